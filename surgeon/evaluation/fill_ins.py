"""A few texts with a blank, filled in before and after the operation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from surgeon.evaluation.observe import Scorer
from surgeon.evaluation.result import FillIn
from surgeon.evaluation.variants import BASELINE, Variant
from surgeon.scoring.examples import Example
from surgeon.scoring.tokenizer import TokenizerFacts, read_tokenizer

_SHOWN = 5
_SHORT, _LONG = 8, 32  # tokens of a text that is pleasant to read
_BLANK = "____"


def fill_in(scorer: Scorer, patched: Variant, examples: Sequence[Example]) -> tuple[FillIn, ...]:
    """Let the baseline and the patched model guess one token in each of a few examples.

    For a masked model the blank is the first masked token, with the others as they are; for a
    causal one it is the last token, after all before it. Other tasks have none.
    """
    facts = scorer.artifact.facts
    one_blank = _BLANKS.get(scorer.task.name)
    if one_blank is None or facts.tokenizer is None:
        return ()
    short = (e for e in examples if _SHORT <= len(e.ids) <= _LONG)
    chosen = [made for e in short if (made := one_blank(e, facts.tokenizer)) is not None][:_SHOWN]
    if not chosen:
        return ()
    tokenizer = read_tokenizer(scorer.artifact.directory, facts.tokenizer)

    def word(token: int) -> str:
        text = tokenizer.decode([token], skip_special_tokens=False)
        return text.removeprefix("##").strip() or tokenizer.id_to_token(token) or "?"

    def text(example: Example) -> str:
        place = int(example.positions[0]) + (scorer.task.name == "clm")
        before, after = example.ids[:place], example.ids[place + 1 :]
        if scorer.task.name == "clm":
            after = ()
        return " ".join(filter(None, (tokenizer.decode(before), _BLANK, tokenizer.decode(after))))

    guesses = [scorer.guesses(variant, chosen) for variant in (BASELINE, patched)]
    return tuple(
        FillIn(text(example), word(int(example.labels[0])), word(int(a[0])), word(int(b[0])))
        for example, a, b in zip(chosen, *guesses, strict=True)
    )


def _first_mask(example: Example, tokenizer: TokenizerFacts) -> Example:
    """Hide the first chosen token of an example, and put back what the others were."""
    ids = np.array(example.ids)
    ids[example.positions] = example.labels
    ids[example.positions[0]] = tokenizer.mask_id
    return Example(tuple(ids.tolist()), example.positions[:1], example.labels[:1])


def _last_token(example: Example, tokenizer: TokenizerFacts) -> Example | None:
    """Keep the last token of an example that is an ordinary one."""
    ordinary = np.flatnonzero(~np.isin(example.labels, tokenizer.special_ids))
    if not ordinary.size:
        return None
    last = ordinary[-1:]
    return Example(example.ids, example.positions[last], example.labels[last])


_BLANKS = {"mlm": _first_mask, "clm": _last_token}
