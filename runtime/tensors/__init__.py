"""What an array must be: its dtype, shape and axes, checked, padded, and as a graph of others wants it."""
