"""Do a model's configuration, its weights and its tokenizer belong together, by their sizes?

Each of them says how many tokens, positions or labels there are. Where two say different numbers,
a model fails late or, with tokens that it has no embedding for, on some texts only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from surgeon.errors import CheckpointError
from surgeon.families import Family
from surgeon.model import Checkpoint
from surgeon.model.checkpoint import CONFIG
from surgeon.model.files import read_object
from surgeon.model.tensors import FLOATS
from surgeon.tasks.tokenizer import count_or_none, length_or_none, vocabulary_size

_USUAL_LENGTH = 512  # tokens, where nothing says how many
_MOST = 2**31 - 1
_POSITIONS = ("max_position_embeddings", "n_positions")
_EMBEDDINGS = (
    "word_embeddings", "wte", "embed_tokens", "tok_embeddings", "shared", "word_embedding",
    "embed_in",
)  # fmt: skip
# A module with a row for each, and the keys of config.json that may say how many.
_TABLES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_EMBEDDINGS, ("vocab_size", "decoder_vocab_size")),
    **dict.fromkeys(("position_embeddings", "wpe"), _POSITIONS),
    "token_type_embeddings": ("type_vocab_size",),
}
_RESERVED = 2  # rows that Nyströmformer's position table has beyond what its configuration says
_CLASSIFIERS = (
    "classifier", "classifier.out_proj", "classification_head.out_proj", "score", "logits_proj",
)  # fmt: skip
_CLASSIFYING = ("ForSequenceClassification", "ForTokenClassification")
_USUAL_LABELS = 2  # where a configuration names none


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a configuration with what is about text, which some have in a part, at its top."""
    text = config.get("text_config")  # Gemma 3
    return {**config, **text} if isinstance(text, dict) else config


def read_config(directory: Path) -> Mapping[str, Any]:
    """Read the part of a model's configuration that is about text; empty without one.

    Raises:
        CheckpointError: it is not a JSON object.
    """
    return text_config(read_object(directory / CONFIG) or {})


def longest_text(config: Mapping[str, Any], family: Family | None, limit: Any) -> int:
    """Return how many tokens a sequence may have.

    Args:
        config: the configuration. XLNet's positions, which are relative, say -1.
        family: its row, which says how many positions are reserved.
        limit: what the tokenizer says, which may be no number.
    """
    config = text_config(config)
    found = (count_or_none(config.get(key), least=2, most=_MOST) for key in _POSITIONS)
    positions = next(filter(None, found), None)
    reserved = family.reserved_positions(config) if family else 0
    limits = (positions - reserved if positions else None, length_or_none(limit))
    return min((one for one in limits if one is not None), default=_USUAL_LENGTH)


def check_sizes(checkpoint: Checkpoint, otherwise: str) -> None:
    """Hold a model directory's configuration, weights and tokenizer against each other.

    Args:
        checkpoint: the opened directory. Nothing but the headers of its weights is read.
        otherwise: what an error tells the user to do instead.

    Raises:
        CheckpointError: a table of the weights has another size than the configuration says, a
            label or the padding token has no row, or the tokenizer has more tokens than the model.
    """
    config, where = text_config(checkpoint.config), checkpoint.directory / CONFIG
    tables = list(_tables(checkpoint))
    for name, module, rows in tables:
        declared = {key: config[key] for key in _TABLES[module] if isinstance(config.get(key), int)}
        spare = _RESERVED if module == "position_embeddings" else 0
        if declared and not {rows, rows - spare} & set(declared.values()):
            key, value = next(iter(declared.items()))
            raise CheckpointError(
                f"{checkpoint.where(name)}: {name} has {rows:,} rows and {where} says {key} "
                f"{value:,}: give the config.json of these weights, or {otherwise}"
            )
    _check_labels(checkpoint, where, otherwise)
    family, positions = checkpoint.family, longest_text(config, checkpoint.family, None)
    if positions < 1:
        raise CheckpointError(
            f"{where}: {family.name} numbers positions from pad_token_id + 1 on, and with "
            f"pad_token_id {config.get('pad_token_id')} none is left for a token; correct it "
            f"there, or {otherwise}"
        )
    embeddings = next(((n, rows) for n, module, rows in tables if module in _EMBEDDINGS), None)
    if embeddings is None:
        return
    name, rows = embeddings
    pad = config.get("pad_token_id")
    if isinstance(pad, int) and pad >= rows:
        raise CheckpointError(
            f"{where}: says pad_token_id {pad:,} and {name} has {rows:,} rows, one a token; give "
            f"one of them there, or {otherwise}"
        )
    check_tokenizer(checkpoint.directory, rows, f"or {otherwise}")


def check_tokenizer(folder: Path, rows: int, remedy: str) -> None:
    """Check that a model with ``rows`` of embeddings has one for every token of a tokenizer.

    Args:
        folder: where the tokenizer's files are.
        rows: of the table of embeddings.
        remedy: how an error goes on after it said what to correct.

    Raises:
        CheckpointError: it does not.
    """
    count, file = vocabulary_size(folder)
    if count > rows:
        raise CheckpointError(
            f"{file}: the tokenizer has {count:,} tokens and the model {rows:,}: the two do not "
            "belong together, or tokens were added without a resize of the embeddings; put the "
            f"model's own tokenizer there or resize them (resize_token_embeddings), {remedy}"
        )


def _tables(checkpoint: Checkpoint) -> Iterator[tuple[str, str, int]]:
    """Yield the name, the module and the rows of each table whose size a configuration says."""
    for name, info in checkpoint.tensors.items():
        module = name.removesuffix(".weight").rpartition(".")[2]
        whole = name.endswith(".weight") and len(info.shape) == 2
        if module in _TABLES and info.dtype in FLOATS and whole:
            yield name, module, info.shape[0]


def _check_labels(checkpoint: Checkpoint, where: Path, otherwise: str) -> None:
    config = checkpoint.config
    declared = config.get("architectures") or []
    if not isinstance(declared, list):
        raise CheckpointError(
            f"{where}: architectures is not a list of class names; write one there"
        )
    if not any(kind in str(name) for name in declared for kind in _CLASSIFYING):
        return
    names, counted = config.get("id2label"), config.get("num_labels")
    count = counted if isinstance(counted, int) else _USUAL_LABELS
    labels = len(names) if isinstance(names, dict) else count
    for name, info in checkpoint.tensors.items():
        module = name.removesuffix(".weight")
        ends = any(f".{module}".endswith(f".{end}") for end in _CLASSIFIERS)
        if name != module and ends and len(info.shape) == 2 and info.shape[0] != labels:
            found = f"names {labels} labels" if isinstance(names, dict) else "has no id2label"
            raise CheckpointError(
                f"{checkpoint.where(name)}: {name} has {info.shape[0]} rows, one a label, and "
                f"{where} {found}; write those of the model there (id2label), or {otherwise}"
            )
