"""The version of surgeon, which records and results name."""

from __future__ import annotations

__version__ = "0.1.0"
