"""One sequence in chunks: its state, and all that can be done with it."""
