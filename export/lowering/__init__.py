"""Each recurrence as ONNX: loops, scans, fused operators, and the branches of each."""
