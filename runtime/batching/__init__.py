"""Whole sequences and many streams, several in one call."""
