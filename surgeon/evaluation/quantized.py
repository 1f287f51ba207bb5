"""An artifact in int8, as onnxruntime quantizes it: what that costs the original, and the patched.

Dynamic quantization (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html)
stores the weights of matrix products and embeddings in int8, and quantizes what goes into a product
when it runs, by the largest value in it: a large dimension leaves the others fewer steps.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from surgeon.errors import EvaluationError
from surgeon.evaluation.artifact import Artifact
from surgeon.evaluation.blocks import blocks_of
from surgeon.evaluation.result import Change, Cost
from surgeon.evaluation.runner import OnnxRunner, open_runner
from surgeon.evaluation.session import follow_links, one_line
from surgeon.evaluation.workload import Workload
from surgeon.onnx.file_graph import QUANTIZED
from surgeon.onnx.read_graph import read_file_graph
from surgeon.onnx.weights import make_replaceable
from surgeon.progress import Progress
from surgeon.tasks.examples import Example
from surgeon.tasks.statistics import Groups, paired_interval
from surgeon.tasks.task import (
    BASELINE,
    BatchScores,
    Floats,
    Runner,
    Scores,
    Task,
    Variant,
    observe,
    ratio_of_sums,
)


@dataclass(frozen=True)
class FilePerVariant:
    """Runs each variant in a file of its own: the edit is of weights that are quantized."""

    artifact: Artifact
    task: Task
    folder: Path

    def run(self, variant: Variant, examples: Sequence[Example]) -> Iterator[BatchScores]:
        """Yield the examples one by one, and what the task observes of each."""
        return _open(self.artifact, self.task, self.folder, variant).run(variant, examples)

    def not_finite(self, variant: Variant) -> EvaluationError:
        """Return the error for an output that is not finite."""
        return _open(self.artifact, self.task, self.folder, variant).not_finite(variant)


def check_float32(artifact: Artifact) -> None:
    """Refuse a graph that computes in float16, if only in part, or is quantized already.

    Raises:
        EvaluationError: it is one.
    """
    path = artifact.model_path
    nodes = read_file_graph(path, artifact.directory).nodes
    casts = {node.attributes.get("to") for node in nodes if node.operation == "Cast"}
    if artifact.facts.dtype == "float16" or TensorProto.FLOAT16 in casts:
        raise EvaluationError(
            f"`quantize`: {path} computes in float16 and onnxruntime quantizes float32; patch the "
            "float32 model, without `dtype`"
        )
    if found := next((n.operation for n in nodes if QUANTIZED.search(n.operation)), None):
        raise EvaluationError(
            f"`quantize`: {path} is quantized already (it has {found}); leave it out"
        )


def open_quantized(artifact: Artifact, task: Task, folder: Path) -> Runner:
    """Quantize an artifact into a folder, and open it for a task, on the CPU.

    Each text runs alone, since a batch is quantized as a whole. Where the edited tensors stay as
    they are, as norms do, one graph serves all variants; else each variant is quantized.

    Raises:
        EvaluationError: onnxruntime cannot quantize it.
    """
    runner = _open(artifact, task, folder, BASELINE)
    whole = runner.session.replaceable == artifact.baseline.keys()
    return runner if whole else FilePerVariant(artifact, task, folder)


def _open(artifact: Artifact, task: Task, folder: Path, variant: Variant) -> OnnxRunner:
    path = folder / f"{variant.name}.onnx"
    if not path.exists():
        _quantize(artifact, variant, path)
    graph = onnx.load(path, load_external_data=False).graph
    stored = {tensor.name for tensor in graph.initializer}
    names = tuple(name for name in artifact.baseline if name in stored)
    alone = replace(artifact, facts=replace(artifact.facts, one_at_a_time=True))
    return open_runner(alone, task, path=path, replaceable=names)


def _quantize(artifact: Artifact, variant: Variant, path: Path) -> None:
    """Write the graph of a variant in int8, by onnxruntime's own tools."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = _graph_of(artifact, variant)
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        whole, folded = Path(name) / "whole.onnx", Path(name) / "folded.onnx"
        try:
            onnx.save(model, whole, save_as_external_data=True, location="whole.data")
            quant_pre_process(
                whole,
                folded,
                skip_symbolic_shape=True,
                save_as_external_data=True,
                all_tensors_to_one_file=True,
                external_data_location="folded.data",
            )
            # Signed weights saturate on processors without VNNI: the score would depend on those.
            quantize_dynamic(
                folded, path, weight_type=QuantType.QUInt8, use_external_data_format=True
            )
        except Exception as error:  # onnx and onnxruntime raise types of their own
            raise EvaluationError(
                f"`quantize`: onnxruntime cannot quantize {artifact.model_path} ({one_line(error)})"
            ) from error


def _graph_of(artifact: Artifact, variant: Variant) -> onnx.ModelProto:
    """Load the graph with its weights, the edited ones as they are in a variant."""
    values, path = artifact.tensors(variant), artifact.model_path
    model = onnx.load(path, load_external_data=False)
    onnx.load_external_data_for_model(model, follow_links(model, path.parent))
    make_replaceable(model, tuple(values), str(path))
    for entries in (model.graph.input, model.graph.initializer):
        for entry in [entry for entry in entries if entry.name in values]:
            entries.remove(entry)
    tensors = (onnx.numpy_helper.from_array(array, name) for name, array in values.items())
    model.graph.initializer.extend(tensors)
    return model


def compare_forms(
    plain: Runner,
    quantized: Runner,
    examples: Sequence[Example],
    variants: Sequence[Variant],
    progress: Progress,
) -> Floats:
    """Run every example in every variant, the baseline first, in float and in int8.

    Returns what is kept, (3, variants, examples, kept): of int8 against the baseline in int8, and
    of float and of int8 each against the same variant in float.
    """
    against, parts = plain.task.against, []
    for block in blocks_of(examples):
        kept, reference = [], None
        for number, variant in enumerate(variants):
            done = block.start * len(variants) + number * (block.stop - block.start)
            progress(f"scoring {variant.name} in int8", done, len(examples) * len(variants))
            before = observe(plain, variant, examples[block])
            after = observe(quantized, variant, examples[block])
            reference = after if reference is None else reference
            pairs = ((after, reference), (before, before), (after, before))
            kept.append(np.stack([against(*pair) for pair in pairs]))
        parts.append(np.stack(kept, axis=1))
    return np.concatenate(parts, axis=2)


def cost_of(work: Workload, before: Floats, after: Floats) -> Cost:
    """Return what int8 costs each variant: the baseline, the patched model and the controls.

    Args:
        work: the task, whose ``metric`` decides, and the texts.
        before: what is kept in float, (variants, examples, kept).
        after: the same in int8.
    """
    scores = [
        [work.task.scores(one, work.settings)[work.task.metric] for one in kept]
        for kept in (before, after)
    ]
    pairs = list(zip(*scores, strict=True))
    costs = [after.value - before.value for before, after in pairs]
    baseline, patched = (
        Change(cost, paired_interval(after, before, work.texts))
        for cost, (before, after) in zip(costs, pairs[:2], strict=False)
    )
    difference = _difference(pairs[0], pairs[1], work.texts)
    return Cost(baseline, patched, tuple(costs[2:]), difference)


def _difference(
    baseline: tuple[Scores, Scores], patched: tuple[Scores, Scores], texts: Groups
) -> Change | None:
    """Return how much more int8 costs the patched model; None for a score that no sum gives."""
    (before, after), (patched_before, patched_after) = baseline, patched
    if before.statistic is not ratio_of_sums:
        return None
    low, high = before.bounds or (0.0, 0.0)
    bounds = (low - high, high - low) if before.bounds else None
    less = Scores(after.total - before.total, before.weight, bounds=bounds)
    more = Scores(patched_after.total - patched_before.total, before.weight, bounds=bounds)
    return Change(more.value - less.value, paired_interval(more, less, texts))
