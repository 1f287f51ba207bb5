"""Artifact → scores on onnxruntime → verdict."""
