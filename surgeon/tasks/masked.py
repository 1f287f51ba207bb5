"""Language models that are asked for tokens: hidden, permuted, cut out, of a target, replaced.

Masked language modelling (Devlin et al. 2019, section 3.1): by default every chosen token is
replaced by the mask token, so that no variant sees any of them. With ``masking`` bert that
happens to 80 in 100, 10 become another token, and 10 stay.

Permutation language modelling (Yang et al. 2019): tokens are predicted in a random order, each
from those before it in that order.

Denoising (Lewis et al. 2020, 2.2): spans whose lengths are drawn from a Poisson distribution of
mean 3 become one mask token each; a span of no tokens puts one in. The decoder is given the text as
it was (teacher forcing), and writes it whole. With T5's sentinels in place of a mask token (Raffel
et al. 2020, 3.1.4), each span becomes a sentinel, and the decoder writes each with its span.

Sequence to sequence: the decoder is given the target of a source in the same way. Each side is
tokenized as in training, so that the loss is what transformers gives for ``labels``: the code of a
language and the end that a tokenizer puts around a target count too.

Replaced-token detection (Clark et al. 2020, section 2): ELECTRA's discriminator learned on what a
small generator puts in; here random tokens of the vocabulary stand in its place, so that no second
model is needed. All tokens are judged, special ones too, as in training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.errors import EvaluationError
from surgeon.tasks.examples import Encoder, Example, Prepared
from surgeon.tasks.labels import detection
from surgeon.tasks.sequences import (
    TEXT_OPTIONS,
    Draw,
    Ids,
    begin_draw,
    measure_tokens,
    naive_tokens,
    observe_tokens,
    other_tokens,
    reduce_tokens,
)
from surgeon.tasks.table import Columns, Names, locate
from surgeon.tasks.task import INVERTED, SHARE, Data, Floats, Scores, Settings, Task

_MASKED, _REPLACED = 0.8, 0.9  # up to the first: the mask token, up to the second: another one
_MEAN_SPAN = 3
_LAST_FIRST = ("mbart", "plbart")  # their decoders start with the end of the target, its language


def mask_id_of(settings: Settings) -> int:
    """Return the token that hides another.

    Raises:
        EvaluationError: the tokenizer has none.
    """
    if settings.mask_id is None:
        raise EvaluationError(
            "the tokenizer has no mask token, so no token can be hidden; if the model was trained "
            "with one, name it in tokenizer_config.json and patch again; `task` seq2seq scores "
            "an encoder-decoder that was trained on sources and targets"
        )
    return settings.mask_id


def mask(ids: tuple[int, ...], settings: Settings) -> Example | None:
    """Hide ``mask_rate`` of a sequence's ordinary tokens; None if it has none."""
    hidden_by = mask_id_of(settings)
    draw = begin_draw(ids, settings)
    if draw is None:
        return None
    tokens, rng = draw.tokens, draw.rng
    positions = np.sort(rng.choice(draw.ordinary, size=draw.count, replace=False))
    labels = tokens[positions]
    hidden = np.full_like(labels, hidden_by)
    if settings.masking == "bert":
        fate = rng.random(draw.count)
        others = other_tokens(labels, rng, settings)
        hidden = np.where(fate < _MASKED, hidden, np.where(fate < _REPLACED, others, labels))
    tokens[positions] = hidden
    return Example(tuple(tokens.tolist()), positions, labels)


def permute(ids: tuple[int, ...], settings: Settings) -> Example | None:
    """Ask for ``mask_rate`` of a sequence's ordinary tokens; None if it has none.

    ``positions`` number the targets in the order of the text, which is that of the output.
    """
    draw = begin_draw(ids, settings)
    if draw is None:
        return None
    places = np.zeros_like(draw.tokens)
    drawn = draw.rng.choice(draw.ordinary, size=draw.count, replace=False)
    places[drawn] = np.arange(1, draw.count + 1)
    labels = draw.tokens[places > 0]
    return Example(ids, np.arange(draw.count), labels, places=tuple(places.tolist()))


def denoise(ids: tuple[int, ...], settings: Settings) -> Example | None:
    """Cut spans of ``mask_rate`` of a sequence's ordinary tokens, and ask for what was there.

    None if it has none.
    """
    draw = begin_draw(ids, settings)
    if draw is None:
        return None
    cut = _with_sentinels if settings.sentinels else _with_masks
    return teacher_forced(*cut(ids, draw, settings), settings)


_Text: TypeAlias = tuple[int, ...]


def teacher_forced(source: _Text, target: _Text, settings: Settings) -> Example:
    """Ask for each token of a target at the one before it, the first at the decoder's start.

    Raises:
        EvaluationError: the decoder has none.
    """
    start = target[-1] if settings.model_type in _LAST_FIRST else settings.decoder_start_id
    if start is None:
        raise EvaluationError(
            "the decoder has no token to start with, so it can write no text; name its "
            "decoder_start_token_id in config.json and patch again"
        )
    labels = np.array(target, dtype=np.int64)
    return Example(source, np.arange(len(target)), labels, decoder_ids=(start, *target[:-1]))


def _with_masks(ids: _Text, draw: Draw, settings: Settings) -> tuple[_Text, _Text]:
    """Return a text with a mask token for each span, and the text itself (BART)."""
    lengths = draw_lengths(draw.count, draw.rng)
    first, end = draw.span
    # What stays and what goes, in a random order: each kept token is one unit, each span another.
    units = (end - first) - int(lengths.sum()) + len(lengths)
    starts = np.sort(draw.rng.choice(units, len(lengths), replace=False))
    spans = dict(zip(starts, lengths, strict=True))
    noisy, place = [], first
    for unit in range(units):
        noisy.append(mask_id_of(settings) if unit in spans else ids[place])
        place += int(spans.get(unit, 1))
    return (*ids[:first], *noisy, *ids[end:]), ids


def _with_sentinels(ids: _Text, draw: Draw, settings: Settings) -> tuple[_Text, _Text]:
    """Return a text with a sentinel for each span, and the spans behind their sentinels (T5).

    As in T5's training, the text starts with what stays and ends with a span, and what the
    tokenizer puts behind a text is behind both.
    """
    first, end = draw.span
    kept = end - first - draw.count
    spans = max(1, min(round(draw.count / _MEAN_SPAN), kept))
    if spans > len(settings.sentinels):
        raise EvaluationError(
            f"`mask_rate` {settings.mask_rate:g}: cuts {spans} spans out of a text, and the "
            f"tokenizer has {len(settings.sentinels)} sentinels; give a smaller one, or shorter "
            "texts"
        )
    noisy, target, place = [*ids[:first]], list[int](), first
    parts = zip(*(_random_parts(n, spans, draw.rng) for n in (kept, draw.count)), strict=True)
    for sentinel, (stays, goes) in zip(settings.sentinels, parts, strict=False):
        start, place = place + stays, place + stays + goes
        noisy += [*ids[start - stays : start], sentinel]
        target += [sentinel, *ids[start:place]]
    return (*noisy, *ids[end:]), (*target, *ids[end:])


def _random_parts(total: int, count: int, rng: np.random.Generator) -> list[int]:
    """Cut a number into so many parts of 1 or more, each way as likely; 0 is one part."""
    cuts = np.sort(rng.choice(max(0, total - 1), count - 1, replace=False)) + 1
    return [int(part) for part in np.diff([0, *cuts, total])]


def draw_lengths(tokens: int, rng: np.random.Generator) -> Ids:
    """Draw lengths of spans until they cover so many tokens; the last is cut to fit."""
    lengths: list[int] = []
    while (left := tokens - sum(lengths)) > 0:
        lengths.append(min(int(rng.poisson(_MEAN_SPAN)), left))
    return np.array(lengths, dtype=np.int64)


MASKED = Task(
    name="mlm",
    title="masked language modelling",
    metric="loss",
    unit="nats per masked token",
    heads=("mlm",),
    prepare=mask,
    observe=observe_tokens,
    measure=measure_tokens,
    further=(f"{INVERTED}top1",),
    naive=naive_tokens,
    reduce=reduce_tokens,
    options={"mask_rate": 0.15, "masking": "all", "block": None, **TEXT_OPTIONS},
)
PERMUTED = dataclasses.replace(
    MASKED,
    name="plm",
    title="permutation language modelling",
    unit="nats per target token",
    heads=("plm",),
    prepare=permute,
    options={"mask_rate": 1 / 6, "block": None, **TEXT_OPTIONS},
)
DENOISING = dataclasses.replace(
    PERMUTED,
    name="denoising",
    title="text infilling",
    heads=("denoising",),
    prepare=denoise,
    options={"mask_rate": 0.3, "block": None, **TEXT_OPTIONS},
)


def _read_pairs(data: Data, encoder: Encoder, settings: Settings) -> Prepared:
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
        notes=(*located.notes, *_without_code(sources, tokenizer.target_codes)),
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
    reader=_read_pairs,
    prepare=None,
    sides=True,
    options={"text_column": None, "pair_column": None},
    columns=Names(
        ("source", "src", "document", "article", "dialogue"),
        ("target", "tgt", "summary", "highlights", "abstract"),
    ),
)


def replace_tokens(ids: tuple[int, ...], settings: Settings) -> Example | None:
    """Replace ``mask_rate`` of a sequence's ordinary tokens; the labels are 1 where it did."""
    draw = begin_draw(ids, settings)
    if draw is None:
        return None
    tokens, labels = draw.tokens, np.zeros_like(draw.tokens)
    places = np.sort(draw.rng.choice(draw.ordinary, size=draw.count, replace=False))
    labels[places] = 1
    tokens[places] = other_tokens(tokens[places], draw.rng, settings)
    return Example(tuple(tokens.tolist()), np.arange(len(tokens)), labels)


def _observe(logits: npt.NDArray[np.float32], example: Example) -> Floats:
    """Return (summed loss, tokens, true and false positives, false and true negatives)."""
    scores = logits[example.positions].astype(np.float64)
    replaced, guessed = example.labels == 1, scores > 0
    losses = np.logaddexp(0, np.where(replaced, -scores, scores))
    outcomes = (guessed & replaced, guessed & ~replaced, ~guessed & replaced, ~guessed & ~replaced)
    return np.array([losses.sum(), len(losses), *(outcome.sum() for outcome in outcomes)])


def _measure(observed: Floats, settings: Settings) -> Mapping[str, Scores]:
    loss, tokens, found, false, missed, left = observed.T
    return {
        "loss": Scores(loss, tokens),
        "accuracy": Scores(found + left, tokens, bounds=SHARE),
        "F1": detection(found, found + false, found + missed)["F1"],
    }


def _naive(
    examples: Sequence[Example], observed: Floats, settings: Settings
) -> Mapping[str, Floats]:
    """Return what would be observed if each token were as likely replaced as any is."""
    from scipy.special import xlog1py, xlogy

    tokens = np.array([example.labels.size for example in examples])
    replaced = np.array([example.labels.sum() for example in examples])
    share, constant = replaced.sum() / tokens.sum(), np.zeros_like(observed)
    constant[:, 0] = -xlogy(replaced, share) - xlog1py(tokens - replaced, -share)
    constant[:, 1], constant[:, 4], constant[:, 5] = tokens, replaced, tokens - replaced
    return {"the share of replaced tokens for each": constant}


REPLACED = Task(
    name="rtd",
    title="replaced-token detection",
    metric="loss",
    unit="nats per token",
    heads=("rtd",),
    prepare=replace_tokens,
    observe=_observe,
    measure=_measure,
    further=(f"{INVERTED}accuracy",),
    whole=(f"{INVERTED}F1",),
    naive=_naive,
    options={"mask_rate": 0.15, "block": None, **TEXT_OPTIONS},
)
