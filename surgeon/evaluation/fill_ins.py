"""A few texts with a blank, filled in before and after the operation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from surgeon.evaluation.result import FillIn
from surgeon.evaluation.runner import OnnxRunner
from surgeon.tasks.examples import Example
from surgeon.tasks.task import BASELINE, Variant
from surgeon.tasks.tokenizer import TokenizerFacts

if TYPE_CHECKING:
    from tokenizers import Tokenizer


_SHOWN = 5
_SHORT, _LONG = 8, 32  # tokens of a text that is pleasant to read
_BLANK = "____"
_NO_CHARACTER = "\N{REPLACEMENT CHARACTER}"  # what a part of a character's bytes is decoded to


def fill_in(
    runner: OnnxRunner, patched: Variant, examples: Sequence[Example]
) -> tuple[FillIn, ...]:
    """Let the baseline and the patched model guess one token in each of a few examples.

    For a masked model the blank is one of the masked tokens, with the others as they are; for a
    causal one it is a token near the end, after all before it; for an encoder-decoder it is a
    token that the encoder does not see. A token that is a word is preferred. Other tasks have none.
    """
    blanks, known = BLANKS.get(runner.task.name), runner.artifact.facts.tokenizer
    if blanks is None or known is None:
        return ()
    tokenizer = runner.artifact.tokenizer
    causal = runner.task.name == "clm"
    short = [e for e in examples if _SHORT <= len(e.ids) <= _LONG]

    def is_word(blank: Example) -> bool:
        place = int(blank.positions[0]) + causal
        return _is_word(
            tokenizer, [*blank.ids[place - 1 : place], *blank.labels, *blank.ids[place + 1 :][:1]]
        )

    def first(fits: Callable[[Example], bool]) -> list[Example]:
        found = (next(filter(fits, blanks(example, known)), None) for example in short)
        return list(itertools.islice(filter(None, found), _SHOWN))

    # A vocabulary without words, such as one of bytes, has blanks all the same.
    chosen = first(is_word) or first(lambda _: True)
    if not chosen:
        return ()

    def word(token: int) -> str:
        text = tokenizer.decode([token], skip_special_tokens=False)
        text = "" if _NO_CHARACTER in text else text.removeprefix("##").strip()
        return text or tokenizer.id_to_token(token) or "?"

    def text(blank: Example) -> str:
        place = int(blank.positions[0]) + causal
        before, after = blank.ids[:place], () if causal else blank.ids[place + 1 :]
        parts = (tokenizer.decode(before), _BLANK, tokenizer.decode(after))
        return " ".join(filter(None, map(str.strip, parts)))

    guesses = [runner.guesses(variant, chosen) for variant in (BASELINE, patched)]
    return tuple(
        FillIn(text(blank), word(int(blank.labels[0])), word(int(a[0])), word(int(b[0])))
        for blank, a, b in zip(chosen, *guesses, strict=True)
    )


def _is_word(tokenizer: Tokenizer, around: Sequence[int]) -> bool:
    """Whether the second of three tokens is a word of its own, by how they are written together."""
    if len(around) < 3:
        return False
    before, token, after = around
    alone = tokenizer.decode([token], skip_special_tokens=False)
    if _NO_CHARACTER in alone or not any(map(str.isalnum, alone)):
        return False
    return (
        _joint(tokenizer, before, token).isspace() and not _joint(tokenizer, token, after).isalnum()
    )


def _joint(tokenizer: Tokenizer, first: int, second: int) -> str:
    """Return the first character that the second of two tokens adds to the text of the first."""
    piece = tokenizer.id_to_token(second) or ""
    if piece.startswith("##"):  # whether or not there is a decoder that knows it
        return piece[2:3]
    alone = tokenizer.decode([first], skip_special_tokens=False)
    return tokenizer.decode([first, second], skip_special_tokens=False)[len(alone) :][:1]


def _masked_tokens(example: Example, tokenizer: TokenizerFacts) -> Iterator[Example]:
    """Hide one of the chosen tokens of an example, and put back what the others were."""
    for place, label in zip(example.positions, example.labels, strict=True):
        ids = np.array(example.ids)
        ids[example.positions] = example.labels
        ids[place] = tokenizer.mask_id
        yield Example(tuple(ids.tolist()), np.array([place]), np.array([label]))


def _next_tokens(example: Example, tokenizer: TokenizerFacts) -> Iterator[Example]:
    """Ask for one of an example's tokens that are ordinary ones, the last first."""
    for place in np.flatnonzero(~np.isin(example.labels, tokenizer.special_ids))[::-1]:
        one = slice(place, place + 1)
        yield Example(example.ids, example.positions[one], example.labels[one])


def _infilled_tokens(example: Example, tokenizer: TokenizerFacts) -> Iterator[Example]:
    """Hide one ordinary token of the whole text, those in its middle first."""
    tokens, mask = example.labels, tokenizer.mask_id
    if mask is None:
        return  # T5 hides spans alone, of a length that it is not told
    ordinary = np.flatnonzero(~np.isin(tokens, tokenizer.special_ids))
    for place in sorted(ordinary, key=lambda at: abs(2 * at - len(tokens))):
        ids = tokens.copy()
        ids[place] = mask
        yield Example(
            tuple(ids.tolist()),
            np.array([place]),
            tokens[place : place + 1],
            decoder_ids=example.decoder_ids,
        )


BLANKS: Mapping[str, Callable[[Example, TokenizerFacts], Iterator[Example]]] = {
    "mlm": _masked_tokens,
    "clm": _next_tokens,
    "denoising": _infilled_tokens,
}
"""What makes blanks of an example, the best to read first, by the name of the task."""
