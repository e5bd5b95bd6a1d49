"""Model files: what is in them, how they are read, checked, opened and proved once more."""
