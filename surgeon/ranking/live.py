"""The ranking of a model in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from surgeon.progress import Progress, silent
from surgeon.ranking.detectors import MEASURED, find_detector, rank_dimensions
from surgeon.ranking.ranking import Options, Ranking
from surgeon.text import Texts, read_texts
from surgeon.torch_model.live import left_as_it_was, open_live


def rank(
    model: Any,
    tokenizer: Any = None,
    texts: Texts | Sequence[str] | str | Path | None = None,
    *,
    method: str = MEASURED,
    sites_pattern: str | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> Ranking:
    """Rank the dimensions of a transformers model in memory, as it is now.

        surgeon.rank(model, tokenizer, ["One text.", "Another."], method="activations")

    Args:
        model: a ``PreTrainedModel`` in PyTorch, on any device and in any dtype. Its weights,
            gradients and modes are afterwards as they were.
        tokenizer: transformers' for it, for the methods that run the model.
        texts: what ranks: strings, or a file with one text per line (None: English sentences).
        method: what ranks: ablation, activations, gradient, layernorm or layernorm-count.
        sites_pattern: as of ``open_checkpoint``.
        progress: called at each step.
        settings: any other field of ``Options``, such as ``min_damage=0.2``.

    Raises:
        SelectionError: there is no such method or setting, or the method does not take it.
        EvaluationError: the texts or the tokenizer do not suit the model.
        CheckpointError: as ``open_live``.
    """
    find_detector(method)
    if isinstance(texts, str | Path):
        texts = read_texts(texts)
    elif texts is not None and not isinstance(texts, Texts):
        texts = Texts.of(texts)
    checkpoint = open_live(model, sites_pattern=sites_pattern, tokenizer=tokenizer)
    with left_as_it_was(model):
        options = Options(texts=texts, **settings)
        return rank_dimensions(checkpoint, method, options, progress=progress)
