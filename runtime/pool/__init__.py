"""Many streams that push whenever they like, run in batches by a thread."""
