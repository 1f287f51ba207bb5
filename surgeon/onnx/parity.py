"""Does onnxruntime compute what PyTorch computes? Compared on sequences, padded ones too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from surgeon.errors import ExportError, ParityError
from surgeon.model.checkpoint import find_not_finite
from surgeon.onnx.facts import Dtype, Parity
from surgeon.tasks.examples import Batch, Example, Side, batch_examples
from surgeon.tasks.tokenizer import panics_as_errors
from surgeon.text import built_in_sample
from surgeon.torch_model.loading import TorchModel, decoder_start_of, export_error, quiet

TOLERANCES: dict[Dtype, float] = {"float32": 1e-4, "float16": 2e-2}
"""The largest difference from PyTorch in float32, relative to the largest value above 1.

A float16 graph rounds every weight and every result to 11 bits, each an error of up to 5e-4, and
the layers add theirs up.
"""

_ERRORS_ONLY = 3
_LENGTHS = (5, 9, 14, 24, 48)  # tokens of the sequences that are drawn; as many sentences
_TARGETS = 3  # tokens to predict, in any order (Yang et al. 2019, section 2.2)


@dataclass(frozen=True, eq=False)
class Probe:
    """A batch, and what PyTorch gives for it.

    ``expected`` has an array per output of the graph. ``real`` is a mask over their leading axes:
    the rows that are compared.
    """

    feed: Batch
    expected: tuple[npt.NDArray[np.float32], ...]
    real: npt.NDArray[np.bool_]


def make_feeds(
    loaded: TorchModel, tokenizer: Any | None, max_length: int, pad: int, side: Side
) -> list[Batch]:
    """Make batches of one, of equal lengths, and of mixed lengths with padding.

    Args:
        loaded: the model, which says what it takes.
        tokenizer: its tokenizer, if it has one.
        max_length: the most tokens of a sequence.
        pad: the token that fills up shorter sequences of a batch.
        side: where it fills them up.
    """
    start, rng = decoder_start_of(loaded), np.random.default_rng(1)
    examples = [
        _example(_cut(ids, max_length), pad if start is None else start, rng)
        for ids in _sequences(loaded, tokenizer, pad)
    ]
    groups = [examples[:1], examples[-1:] * 2, examples[1:3], examples]
    return [batch_examples(group, loaded.graph_inputs, pad, side) for group in groups]


def check_parity(path: Path, probes: Sequence[Probe], dtype: Dtype) -> Parity:
    """Compare an ONNX file with what PyTorch gave, with graph optimisations on and off.

    Fusions may change results where a dimension is extreme, so each must hold.

    Raises:
        ParityError: they differ by more than the dtype's tolerance, or a value is not a number
            where the other is one.
        ExportError: onnxruntime does not run the graph.
    """
    levels = onnxruntime.GraphOptimizationLevel
    try:
        on = _largest_difference(path, probes, levels.ORT_ENABLE_ALL)
        off = _largest_difference(path, probes, levels.ORT_DISABLE_ALL)
    except Exception as error:  # onnxruntime raises types of its own
        raise export_error("onnxruntime cannot run the exported model", error) from error
    scale = max(float(np.abs(e[p.real]).max()) for p in probes for e in p.expected)
    for largest, how in ((on, "on"), (off, "off")):
        if not largest <= TOLERANCES[dtype] * max(1.0, scale):
            raise ParityError(
                f"{path.name}: the exported graph differs from PyTorch by {largest:.2g} (values up "
                f"to {scale:.2g}, graph optimisations {how}), over {TOLERANCES[dtype]:g}"
            )
    return Parity(
        largest=on,
        relative=on / scale if scale else 0.0,
        sequences=sum(len(probe.feed["input_ids"]) for probe in probes),
        batches=len(probes),
        largest_unoptimized=off,
    )


def _largest_difference(
    path: Path, probes: Sequence[Probe], level: onnxruntime.GraphOptimizationLevel
) -> float:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = _ERRORS_ONLY
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    largest = 0.0
    for probe in probes:
        for expected, got in zip(probe.expected, session.run(None, dict(probe.feed)), strict=True):
            difference = np.abs(expected[probe.real].astype(np.float64) - got[probe.real])
            largest = max(largest, float(np.nan_to_num(difference, nan=np.inf).max()))
    return largest


def run_probe(loaded: TorchModel, feed: Batch) -> Probe:
    """Run a batch as a user of transformers would, before anything is done for the export.

    Raises:
        ExportError: the model does not run on tokens, or its output is missing or not finite.
    """
    config = loaded.model.config.get_text_config()
    try:
        with torch.inference_mode(), quiet():
            outputs = loaded.model(**{name: torch.from_numpy(v) for name, v in feed.items()})
    except Exception as error:  # whatever a model's code raises
        if loaded.head.rows == "sequence" and getattr(config, "pad_token_id", None) is None:
            raise ExportError(
                f"{loaded.checkpoint.name}: config.json has no pad_token_id, by which "
                f"{type(loaded.model).__name__} finds the last token of a sequence",
                "write the one that the model was trained with into it",
            ) from error
        raise export_error("the model does not run on token ids", error) from error
    if missing := next((name for name in loaded.head.outputs if name not in outputs), ""):
        raise ExportError(f"{type(loaded.model).__name__} gives no {missing}")
    expected = tuple(outputs[name].numpy() for name in loaded.head.outputs)
    real = _real_rows(loaded, feed)
    if not all(np.isfinite(output[real]).all() for output in expected):
        found = find_not_finite(loaded.checkpoint)
        broken = found or f"{loaded.checkpoint.name}: its output is not finite"
        raise ExportError(
            f"{broken}, so there is nothing to compare ONNX with", "repair the weights"
        )
    return Probe(feed, expected, real)


def _real_rows(loaded: TorchModel, feed: Batch) -> npt.NDArray[np.bool_]:
    """Return which rows of an output are of real tokens: a mask over its leading axes."""
    match loaded.head.rows:
        case "token":
            return feed["attention_mask"].astype(bool)
        case "target" if "target_mapping" in feed:
            return np.asarray(feed["target_mapping"].any(axis=-1))
        case "target":  # a decoder sees no token after its own, so that padding changes nothing
            return np.ones(feed["decoder_input_ids"].shape, dtype=bool)
        case "sequence":
            return np.ones(len(feed["input_ids"]), dtype=bool)


def _sequences(loaded: TorchModel, tokenizer: Any | None, pad: int) -> list[list[int]]:
    """Return real sentences where the tokenizer knows their words, else drawn token ids."""
    if tokenizer is not None:
        sentences = built_in_sample().lines
        # Quietly: some are longer than the model takes, and are cut afterwards.
        with quiet(), panics_as_errors(f"{loaded.checkpoint.name}: its tokenizer"):
            # A question, and a text to find its answer in.
            texts = 2 if loaded.task == "question-answering" else 1
            starts = range(len(_LENGTHS))
            encoded = [tokenizer(*sentences[n : n + texts])["input_ids"] for n in starts]
        flat = [token for ids in encoded for token in ids]
        if flat.count(tokenizer.unk_token_id) < len(flat) / 4:
            return sorted(encoded, key=len)
    config = loaded.model.config.get_text_config()
    last = getattr(config, "eos_token_id", None)
    ends = [last] if isinstance(last, int) and last < config.vocab_size else []
    ordinary = np.setdiff1d(np.arange(config.vocab_size), [pad, *ends])
    rng = np.random.default_rng(0)
    return [[*rng.choice(ordinary, size=length).tolist(), *ends] for length in _LENGTHS]


def _cut(ids: Sequence[int], length: int) -> list[int]:
    """Shorten a sequence; its last token stays, because some heads look for the end of one."""
    return list(ids) if len(ids) <= length else [*ids[: length - 1], ids[-1]]


def _example(ids: Sequence[int], start: int, rng: np.random.Generator) -> Example:
    """Make an example with all that a model may take: half of it to decode, some to predict."""
    places = np.zeros(len(ids), dtype=int)
    targets = rng.permutation(len(ids))[:_TARGETS]
    places[targets] = 1 + np.arange(targets.size)
    decoder_ids = (start, *ids[: len(ids) // 2 + 1])
    return Example(tuple(ids), decoder_ids=decoder_ids, places=tuple(places.tolist()))
