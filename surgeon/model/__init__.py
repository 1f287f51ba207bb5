"""Weights as bytes: which files a model lies in, and its tensors by name, without a framework."""

from __future__ import annotations

from surgeon.model.checkpoint import Checkpoint
from surgeon.model.directory import open_checkpoint, open_for_scan
from surgeon.model.tensors import TensorFile, TensorInfo

__all__ = ["Checkpoint", "TensorFile", "TensorInfo", "open_checkpoint", "open_for_scan"]
