"""One call of onnxruntime: arguments checked, buffers bound, threads and memory bounded."""
