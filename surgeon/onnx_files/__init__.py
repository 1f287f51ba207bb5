"""An ONNX file as the model: its sites by structure, its edit, its evaluation."""
