"""From a wave to what a model reads, as it arrives."""
