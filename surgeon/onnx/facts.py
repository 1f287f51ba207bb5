"""What the record keeps about ``onnx/model.onnx``: all that an evaluation needs to run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from surgeon.errors import ExportError
from surgeon.onnx.file_graph import FileGraph
from surgeon.settings import reader
from surgeon.tasks.configuration import check_tokenizer
from surgeon.tasks.examples import Side
from surgeon.tasks.task import TaskName
from surgeon.tasks.tokenizer import TokenizerFacts

Dtype: TypeAlias = Literal["float32", "float16"]
"""What the graph's weights are stored in; what it takes and gives does not depend on it."""


@dataclass(frozen=True)
class OnnxOptions:
    """How the ONNX half is made.

    Attributes:
        dtype: in which the graph computes; weights that are not of float32 are then its own.
        standalone: whether the weights are in the ONNX file.
        fresh: whether to export although a graph is kept.
        parity: whether a new graph is compared with PyTorch, if the weights fit in memory.

    Raises:
        ExportError: there is no such dtype.
    """

    dtype: Dtype = "float32"
    standalone: bool = False
    fresh: bool = False
    parity: bool = True

    def __post_init__(self) -> None:
        if self.dtype not in (known := get_args(Dtype)):
            raise ExportError(f"`dtype` {self.dtype}: give {' or '.join(known)}")


@dataclass(frozen=True)
class Parity:
    """How far onnxruntime is from PyTorch, over all real positions of all sequences compared.

    ``largest`` is the largest absolute difference, with onnxruntime's graph optimisations as an
    evaluation runs them, and ``largest_unoptimized`` with none (None in older records).
    ``relative`` is ``largest`` over the largest absolute value of the reference. ``weights`` are
    the BLAKE3 hashes of the data files that it was measured with, and ``measured`` says when (UTC):
    a graph that was kept is used with other weights too.
    """

    largest: float
    relative: float
    sequences: int
    batches: int
    largest_unoptimized: float | None = None
    weights: tuple[str, ...] = ()
    measured: str | None = None


@dataclass(frozen=True)
class OnnxFacts:
    """``task`` is what the graph's outputs can be scored on; ``max_length`` is in tokens.

    ``output`` is the first of ``outputs``, float32 whatever ``dtype`` is. ``vectors`` are the
    editable vectors: initializers of that dtype under their checkpoint names. ``labels`` are a
    classifier's, in the order of its outputs (one: a regression), and ``decoder_start_id`` is the
    token that a decoder's input begins with. ``padding`` is the side on which shorter sequences
    of a batch are filled up. ``head_left_out`` is the class that the configuration declares, where
    no task scores its head, so that the graph is of the model below it; ``head_missing`` is that
    class where a task would, and the weights have no such head. ``parity`` is None for a
    graph that surgeon did not export or did not compare, and ``one_at_a_time`` says of one from
    elsewhere that a text has another output in a batch than alone. ``not_applied`` has a sentence
    for each piece of code and each adapter beside the weights that had no part in the graph.
    ``graph_key`` is that under which the graph is kept ("" if it is not), and ``moved`` are the
    weight files whose tensors lie in a data file of their own, further apart.
    """

    model: str
    task: TaskName
    inputs: tuple[str, ...]
    output: str
    opset: int
    max_length: int
    vectors: tuple[str, ...]
    tokenizer: TokenizerFacts | None
    parity: Parity | None
    outputs: tuple[str, ...]
    labels: tuple[str, ...] = ()
    decoder_start_id: int | None = None
    padding: Side = "right"
    dtype: Dtype = "float32"
    head_left_out: str = ""
    head_missing: str = ""
    one_at_a_time: bool = False
    not_applied: tuple[str, ...] = ()
    graph_key: str = ""
    moved: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def onnx_facts(fields: Mapping[str, Any]) -> OnnxFacts:
    """Check and take back what ``to_json`` gave (``ValueError`` if it is not that).

    Older records, which have one output and say nothing of labels, are read too.
    """
    outputs = [fields["output"]] if "output" in fields else []
    return reader(OnnxFacts).validate_python({"outputs": outputs, **fields})


def check_rows(directory: Path, facts: OnnxFacts, graph: FileGraph) -> None:
    """Refuse a tokenizer with more tokens than the graph has rows for.

    Raises:
        CheckpointError: it has.
    """
    rows = graph.rows_picked_by("input_ids")
    if rows is not None and facts.tokenizer is not None:
        check_tokenizer((directory / facts.tokenizer.file).parent, rows, "and patch again")
