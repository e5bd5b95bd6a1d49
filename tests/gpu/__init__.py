"""What needs a GPU: training there, and export of what was trained there.  Skipped where PyTorch finds none."""
