"""Sequence-to-sequence models: the loss on each token of a target, given its source.

The decoder is given the target as it was (teacher forcing), and each side is tokenized as in
training, so that the loss is what transformers gives for ``labels``: the code of a language and the
end that a tokenizer puts around a target count too.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from surgeon.tasks.examples import Encoder, Prepared
from surgeon.tasks.masked import DENOISING, teacher_forced
from surgeon.tasks.table import Columns, Names, locate
from surgeon.tasks.task import Data, Settings


def _read(data: Data, encoder: Encoder, settings: Settings) -> Prepared:
    tokenizer: Any = encoder.tokenizer  # of transformers, which knows both sides
    columns = _called_by(tokenizer.languages, settings.columns)
    located = locate(data, columns, pair=True, label=False)
    tokenizer.choose_languages(data.name, located.text, located.pair)
    sources, targets = zip(*located.pairs, strict=True)
    read, written = encoder.encode(sources), encoder.encode(targets, target=True)
    examples = tuple(
        teacher_forced(source.ids, target.ids, settings)
        for source, target in zip(read.examples, written.examples, strict=True)
        if source.ids and target.ids
    )
    return Prepared(
        examples,
        given=len(sources),
        truncated=read.truncated + written.truncated,
        unknown=read.unknown + written.unknown,
        tokens=read.tokens + written.tokens,
        unit="pairs",
        notes=_without_code(sources, tokenizer.target_codes),
    )


def _called_by(languages: tuple[str | None, str | None], columns: Columns) -> Columns:
    """Look for columns by the names of the model's own languages first."""
    usual, (source, target) = columns.usual, ([name] if name else [] for name in languages)
    usual = Names((*source, *usual.text), (*target, *usual.pair))
    return dataclasses.replace(columns, usual=usual)


def _without_code(sources: tuple[str, ...], codes: tuple[str, ...]) -> tuple[str, ...]:
    """Say if a model of several languages is not told which to write."""
    count = sum(not source.startswith(codes) for source in sources) if codes else 0
    if not count:
        return ()
    return (f"sources that do not begin with the language to write, such as {codes[0]}: {count}",)


SEQ2SEQ = dataclasses.replace(
    DENOISING,
    name="seq2seq",
    title="sequence-to-sequence language modelling",
    read=_read,
    prepare=None,
    sides=True,
    options={"text_column": None, "pair_column": None},
    columns=Names(
        ("source", "src", "document", "article", "dialogue"),
        ("target", "tgt", "summary", "highlights", "abstract"),
    ),
)
