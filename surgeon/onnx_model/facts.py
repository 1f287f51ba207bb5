"""What the record keeps about ``onnx/model.onnx``: all that an evaluation needs to run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from surgeon.scoring.tasks.task import TaskName
from surgeon.scoring.tokenizer import TokenizerFacts


@dataclass(frozen=True)
class Parity:
    """How far onnxruntime is from PyTorch, over all real positions of all sequences compared.

    ``largest`` is the largest absolute difference, ``relative`` the same over the largest
    absolute value of the reference.
    """

    largest: float
    relative: float
    sequences: int
    batches: int


@dataclass(frozen=True)
class OnnxFacts:
    """``task`` is what the graph's output can be scored on; ``max_length`` is in tokens.

    ``vectors`` are the editable vectors: initializers under their checkpoint names.
    """

    model: str
    task: TaskName
    inputs: tuple[str, ...]
    output: str
    opset: int
    max_length: int
    vectors: tuple[str, ...]
    tokenizer: TokenizerFacts | None
    parity: Parity

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def onnx_facts(fields: Mapping[str, Any]) -> OnnxFacts:
    """Check and take back what ``to_json`` gave (``ValueError`` if it is not that)."""
    import pydantic

    return pydantic.TypeAdapter(OnnxFacts).validate_python(dict(fields))
