"""The user's module as a graph: traced, with a placeholder for each recurrence, and what is refused on the way."""
