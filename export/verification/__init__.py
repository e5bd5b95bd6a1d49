"""The exported file against PyTorch: verified before it is written, and again wherever it is run."""
