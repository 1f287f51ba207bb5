"""A checkpoint as transformers loads it in PyTorch, and its tokenizer."""

from __future__ import annotations

import os

# Read once, when transformers is imported: no kernel, which is code, is fetched from the Hub.
os.environ["USE_HUB_KERNELS"] = "NO"
