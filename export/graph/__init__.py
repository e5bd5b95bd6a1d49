"""Tools on ONNX graphs: written, copied, mended, tidied."""
