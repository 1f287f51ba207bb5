"""MODEL as an existing ONNX file: what the commands do not do with one."""

from __future__ import annotations

from pathlib import Path

from surgeon.errors import SelectionError


def is_onnx(model: str) -> bool:
    """Tell whether MODEL names an ONNX file."""
    return Path(model).suffix == ".onnx"


def refuse_options(model: str, **given: object) -> None:
    """Refuse the first option that was given; a value that is false or None was not.

    Raises:
        SelectionError: there is one.
    """
    for name, value in given.items():
        if value:
            option = name.replace("_", "-")
            raise SelectionError(
                f"--{option}: {model} is an ONNX file, whose weights alone are read; leave it out"
            )
