"""Weights as bytes: which files a model lies in, and its tensors by name, without a framework."""

from surgeon.checkpoint.checkpoint import Checkpoint
from surgeon.checkpoint.model_directory import open_checkpoint, open_for_scan
from surgeon.checkpoint.safetensors_file import TensorInfo

__all__ = ["Checkpoint", "TensorInfo", "open_checkpoint", "open_for_scan"]
