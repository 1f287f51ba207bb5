"""The size of each dimension at each layer's last operation, by one forward pass over text.

The statistics are accumulated batch by batch, so that memory does not grow with the text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from surgeon.progress import Progress
from surgeon.ranking.criteria import CRITERIA, LayerStates
from surgeon.ranking.ranking import ByLayer, Options, Ranking, make_ranking, over_median
from surgeon.ranking.torch_runner import TorchRunner
from surgeon.tasks.examples import Example, batch_examples
from surgeon.tasks.task import Floats

MIN_RATIO = 3.0
MIN_LAYERS = 0.75

_MOST_TOKENS = 2048  # of one batch


def rank_by_activations(runner: TorchRunner, _options: Options, progress: Progress) -> Ranking:
    """Rank dimensions by how large they get at the last operation of each layer.

    A dimension's size in a layer is its largest magnitude over all tokens, divided by that of the
    layer's median dimension. The score is the mean over the layers of the size of what the last
    operation writes, which is what surgery removes; the strength is the same of the stream that
    it meets: the sum that goes into a post-norm LayerNorm, or leaves a pre-norm layer. A dimension
    is an outlier if what is written is ``MIN_RATIO`` or more in ``MIN_LAYERS`` of the layers:
    outliers are at the same dimension throughout a model (Kovaleva et al. 2021), and a dimension
    that is large in the first layers alone is none. Both figures are ours, not the literature's.
    ``flags`` are the literature's criteria that it meets on the same pass (``criteria.CRITERIA``).

    A size is not a damage: a large dimension may be one that nothing reads.

    Raises:
        ExportError: the model does not run in PyTorch.
        CheckpointError: a tensor holds values that are not finite.
    """
    largest, met = _run(runner, progress)
    written, stream = (over_median(largest[moment]) for moment in ("written", "stream"))
    large = written >= MIN_RATIO
    needed = math.ceil(MIN_LAYERS * len(large))
    return make_ranking(
        runner.checkpoint,
        flags=large,
        counts=large.sum(axis=0),
        needed=needed,
        score=written.mean(axis=0),
        strength=stream.mean(axis=0),
        met=met,
        method="activations",
        evidence="largest magnitude that a layer's last operation writes, over that of its median "
        "dimension",
        criterion=f"{MIN_RATIO:g} or more in at least {needed} of {len(large)} layers",
        columns=("max |activation| / median", "max |stream| / median"),
        text=runner.texts.used(),
        warnings=runner.warnings,
        by_layer=ByLayer(
            values=written,
            threshold=MIN_RATIO,
            unit=" ×",
            title="Size of what is written, by layer",
            meaning="largest magnitude, × that of the layer's median dimension",
            ratios=True,
        ),
    )


def _run(
    runner: TorchRunner, progress: Progress
) -> tuple[dict[str, Floats], dict[str, npt.NDArray[np.bool_]]]:
    """Run the texts once.

    Returns the largest magnitude of what is written and of the stream, (layers, hidden), and which
    dimensions meet each criterion of the literature, (hidden,).
    """
    from surgeon.torch_model.forward import watch

    layers, hidden = len(runner.layers), runner.checkpoint.hidden_size
    largest = {"written": np.zeros((layers, hidden)), "stream": np.zeros((layers, hidden))}
    states = [LayerStates(hidden, last=number == layers - 1) for number in range(layers)]

    def take(number: int, moment: str, values: npt.NDArray[np.float32]) -> None:
        peak = largest[moment][number]
        np.maximum(peak, np.abs(values).max(axis=0), out=peak)
        if not np.isfinite(peak).all():
            return  # an error below: what a hook raises looks like one of the model's code
        # What leaves the layer is what a post-norm LayerNorm writes, and elsewhere the stream.
        if moment == ("written" if runner.layers[number][0].kind == "layernorm" else "stream"):
            states[number].add(values)

    done, sequences = 0, runner.sequences
    for batch in _of_one_length(sequences):
        progress("watching the activations", done, len(sequences))
        fed = batch_examples([Example(ids) for ids in batch], runner.model.inputs, 0)
        watch(runner.model, runner.layers, fed, take)
        if not all(np.isfinite(peaks).all() for peaks in largest.values()):
            raise runner.not_finite()
        done += len(batch)
    return largest, {name: criterion.met(states) for name, criterion in CRITERIA.items()}


def _of_one_length(sequences: tuple[tuple[int, ...], ...]) -> Iterator[list[tuple[int, ...]]]:
    """Yield batches of sequences of one length, so that none of them is padded."""
    batch: list[tuple[int, ...]] = []
    for sequence in sorted(filter(None, sequences), key=len):
        full = (len(batch) + 1) * len(sequence) > _MOST_TOKENS
        if batch and (full or len(batch[0]) != len(sequence)):
            yield batch
            batch = []
        batch.append(sequence)
    if batch:
        yield batch
