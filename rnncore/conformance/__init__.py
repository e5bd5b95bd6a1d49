"""The same file on other programs that run ONNX: do they agree with PyTorch, and where not, why?"""
