"""The ONNX half of an artifact: export, its editable vectors, parity with PyTorch."""
