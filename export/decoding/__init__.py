"""Whole generation and translation as one graph."""
