"""ONNX files that rnncore did not write: what is read from them, asked of the caller, and learnt by trial."""
