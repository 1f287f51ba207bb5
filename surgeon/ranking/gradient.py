"""What removing a dimension would do to first order: one backward pass for all dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from surgeon.progress import Progress
from surgeon.ranking.ranking import ByLayer, Options, Ranking, make_ranking, over_median
from surgeon.ranking.torch_runner import TorchRunner
from surgeon.tasks.examples import Example, batch_examples
from surgeon.tasks.task import Floats

MIN_RATIO = 5.0
MIN_SHARE = 1 / 3

TEXTS = 32
"""Texts that the method reads: a few rank well, and more cost more than they tell."""


def rank_by_gradient(runner: TorchRunner, options: Options, progress: Progress) -> Ranking:
    """Rank dimensions by the first-order effect of their removal on the model's own task.

    The effect on a text is gain·∂L/∂gain + bias·∂L/∂bias, summed over the output sites of all
    layers (of a dense layer, over its slice of the weight): L is the loss of the language-model
    head or, where ``ablation`` measures drift, a random projection of the text's embedding,
    orthogonal to it and in units of its length. The score is the root of the mean square over
    ``TEXTS`` texts, as multiples of that of the median dimension: the mean itself vanishes for a
    loss, since training ended where the gradients do. A dimension is an outlier from
    ``MIN_RATIO`` on if it also has ``MIN_SHARE`` of the largest; both figures are ours.

    First order is blind to what only a whole removal does: of two dimensions that stand in for
    each other, neither has a gradient.

    Raises:
        ExportError: the model does not run in PyTorch.
        CheckpointError: a tensor holds values that are not finite.
        EvaluationError: the texts have nothing to score.
    """
    runner = runner.shuffled(options.seed)
    examples = runner.examples(runner.settings(options.seed))
    return rank_by_effect(runner, examples[:TEXTS], options.seed, progress)


def rank_by_effect(
    runner: TorchRunner, examples: Sequence[Example], seed: int, progress: Progress
) -> Ranking:
    """Rank by the gradients on some examples."""
    effects = _effects(runner, examples, seed, progress)
    layers = len(runner.layers)
    # The last row is of the sum: layers may work against each other.
    sizes = np.sqrt(np.mean(np.square([*effects, effects.sum(axis=0)]), axis=1))
    by_layer, score = over_median(sizes[:-1]), over_median(sizes[-1:])[0]
    least = max(MIN_RATIO, MIN_SHARE * float(score.max()))
    return make_ranking(
        runner.checkpoint,
        flags=by_layer >= MIN_RATIO,
        counts=(score >= least).astype(np.int64),
        needed=1,
        score=score,
        strength=sizes[-1],
        method="gradient",
        evidence=f"first-order effect of its removal, summed over {layers} layers, over that of "
        f"the median dimension, on {len(examples)} texts",
        criterion=f"{MIN_RATIO:g} or more, and a third of the largest",
        columns=("|effect| / median", ""),
        text=runner.texts.used(),
        warnings=runner.warnings,
        by_layer=ByLayer(
            values=by_layer,
            threshold=MIN_RATIO,
            unit=" ×",
            title="First-order effect, by layer",
            meaning="of a removal, × that of the layer's median dimension",
            ratios=True,
        ),
    )


def _effects(
    runner: TorchRunner, examples: Sequence[Example], seed: int, progress: Progress
) -> Floats:
    """Return the effect of each dimension's removal on each text, (layers, texts, hidden)."""
    from surgeon.torch_model.forward import first_order

    pad = int(runner.tokenizer.pad_token_id or 0)
    found = []
    for number, example in enumerate(examples):
        progress("computing gradients", number, len(examples))
        batch = batch_examples([example], runner.model.graph_inputs, pad)
        effect = first_order(runner.model, runner.layers, batch, example, seed + number)
        if not np.isfinite(effect).all():
            raise runner.not_finite()
        found.append(effect)
    return np.stack(found, axis=1)
