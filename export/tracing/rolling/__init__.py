"""Loops over time that a module's own Python runs: recorded, aligned over several lengths, rolled into one loop."""
