"""The size of each dimension at each layer's last operation, by one forward pass over text.

The statistics are accumulated batch by batch, so that memory does not grow with the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from surgeon.model import Checkpoint
from surgeon.progress import Progress
from surgeon.ranking.bench import (
    Bench,
    not_finite,
    open_bench,
)
from surgeon.ranking.criteria import CRITERIA, LayerStates
from surgeon.ranking.ranking import (
    ByLayer,
    Dimension,
    Options,
    Ranking,
)
from surgeon.tasks.examples import make_batch
from surgeon.text import ranking_sample

Floats = npt.NDArray[np.float64]

MIN_RATIO = 3.0
MIN_LAYERS = 0.75

_MOST_TOKENS = 2048  # of one batch


def rank_by_activations(checkpoint: Checkpoint, options: Options) -> Ranking:
    """Rank dimensions by how large they get at the last operation of each layer.

    A dimension's size in a layer is its largest magnitude over all tokens, divided by that of the
    layer's median dimension. The score is the mean over the layers of the size of what the last
    operation writes, which is what surgery removes; the strength is the same of the stream that
    it meets: the sum that goes into a post-norm LayerNorm, or leaves a pre-norm layer. A dimension
    is an outlier if what is written is ``MIN_RATIO`` or more in ``MIN_LAYERS`` of the layers:
    outliers are at the same dimension throughout a model (Kovaleva et al. 2021), and a dimension
    that is large in the first layers alone is none. Both figures are ours, not the literature's.
    ``flags`` are the literature's criteria that it meets on the same pass (``criteria.CRITERIA``).

    Sizes are no damages: a large dimension may be one that nothing reads.

    Raises:
        ExportError: the model does not load or run in PyTorch.
        CheckpointError: a tensor holds values that are not finite.
        EvaluationError: it has no tokenizer.
    """
    texts = options.texts or ranking_sample()
    bench = open_bench(checkpoint, texts, options.progress)
    return rank_on_bench(checkpoint, bench, options.progress)


def rank_on_bench(checkpoint: Checkpoint, bench: Bench, progress: Progress) -> Ranking:
    """Rank by activations with a model that is loaded already."""
    sizes = measure_sizes(bench, progress)
    written = _ratios(sizes.written)
    large = written >= MIN_RATIO
    score, strength = written.mean(axis=0), _ratios(sizes.stream).mean(axis=0)
    counts = large.sum(axis=0)
    needed = int(np.ceil(MIN_LAYERS * len(bench.layers)))
    order = np.lexsort((np.arange(score.size), -strength, -score))
    return Ranking(
        model=checkpoint.name,
        architecture=checkpoint.family.name,
        layers=len(bench.layers),
        hidden_size=checkpoint.hidden_size,
        method="activations",
        evidence="largest magnitude that a layer's last operation writes, over that of its median "
        "dimension",
        criterion=f"{MIN_RATIO:g} or more in at least {needed} of {len(bench.layers)} layers",
        dimensions=tuple(
            Dimension(
                dim=int(dim),
                score=float(score[dim]),
                strength=float(strength[dim]),
                layers=tuple(map(int, np.flatnonzero(large[:, dim]))),
                flags=tuple(name for name, met in sizes.met.items() if met[dim]),
            )
            for dim in order
        ),
        outliers=tuple(int(dim) for dim in order if counts[dim] >= needed),
        columns=("written, × median", "stream, × median"),
        text=bench.texts.used(),
        warnings=bench.warnings,
        by_layer=ByLayer(
            values=written,
            threshold=MIN_RATIO,
            unit=" ×",
            title="Size of what is written, by layer",
            meaning="largest magnitude, × that of the layer's median dimension",
            ratios=True,
        ),
    )


@dataclass(frozen=True, eq=False)
class Sizes:
    """What a pass over text found.

    ``written`` and ``stream`` have shape (layers, hidden): the largest magnitude over all tokens.
    ``met`` tells for each criterion which dimensions meet it, shape (hidden,).
    """

    written: Floats
    stream: Floats
    met: dict[str, npt.NDArray[np.bool_]]


def measure_sizes(bench: Bench, progress: Progress) -> Sizes:
    """Run the bench's texts through the model once.

    Raises:
        CheckpointError: a tensor holds values that are not finite, and so do the states.
        EvaluationError: the states are not finite for another reason.
    """
    from surgeon.torch_model.forward import watch

    layers, hidden = len(bench.layers), bench.loaded.checkpoint.hidden_size
    largest = {"written": np.zeros((layers, hidden)), "stream": np.zeros((layers, hidden))}
    states = [LayerStates(hidden, last=number == layers - 1) for number in range(layers)]

    def take(number: int, moment: str, values: npt.NDArray[np.float32]) -> None:
        peak = largest[moment][number]
        np.maximum(peak, np.abs(values).max(axis=0), out=peak)
        if not np.isfinite(peak).all():
            return  # told below: what a hook raises looks like an error of the model's code
        # What leaves the layer is what a post-norm LayerNorm writes, and elsewhere the stream.
        if moment == ("written" if bench.layers[number][0].kind == "layernorm" else "stream"):
            states[number].add(values)

    done = 0
    for batch in _batches(bench.encoded.sequences):
        progress("watching the activations", done, len(bench.encoded.sequences))
        watch(bench.loaded, bench.layers, make_batch(batch, bench.loaded.inputs, 0), take)
        if not all(np.isfinite(peaks).all() for peaks in largest.values()):
            raise not_finite(bench)
        done += len(batch)
    met = {name: criterion.met(states) for name, criterion in CRITERIA.items()}
    return Sizes(largest["written"], largest["stream"], met)


def _batches(sequences: Sequence[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    """Put sequences of one length together, so that no padding has to be told from text."""
    batches: list[list[tuple[int, ...]]] = []
    for sequence in sorted(filter(None, sequences), key=len):
        last = batches[-1] if batches else []
        if (
            last
            and len(last[0]) == len(sequence)
            and (len(last) + 1) * len(sequence) <= _MOST_TOKENS
        ):
            last.append(sequence)
        else:
            batches.append([sequence])
    return batches


def _ratios(sizes: Floats) -> Floats:
    median = np.median(sizes, axis=1, keepdims=True)
    return np.divide(sizes, median, out=np.zeros_like(sizes), where=median > 0)
