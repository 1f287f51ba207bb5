"""What a model's files say of the texts it takes: how long, how many tokens, and how embedded.

Configuration, weights and tokenizer each say how many tokens, positions or labels there are. Where
two say different numbers, a model fails late or, with tokens that it has no embedding for, on some
texts only. Sentence-transformers' files say how token vectors become the vector of a sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from surgeon.errors import CheckpointError, EvaluationError
from surgeon.families import Family, language_model
from surgeon.model import Checkpoint
from surgeon.model.checkpoint import CONFIG
from surgeon.model.files import parse_json, read_object
from surgeon.model.tensors import FLOATS
from surgeon.tasks.tokenizer import count_or_none, length_or_none, vocabulary_size

_USUAL_LENGTH = 512  # tokens, where nothing says how many
_MOST = 2**31 - 1
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")
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
    return {**config, **language_model(config)}


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


# Each maps the vectors of a sentence's tokens, (tokens, width), to one of them, (width,).
_MODES: Mapping[str, Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]] = {
    "cls": lambda states: states[0],
    "max": lambda states: states.max(axis=0),
    "mean": lambda states: states.mean(axis=0),
    "mean_sqrt_len_tokens": lambda states: states.sum(axis=0) / np.sqrt(len(states)),
    # Each token by its place, as for causal models (Muennighoff 2022).
    "weightedmean": lambda states: np.average(
        states, axis=0, weights=np.arange(1.0, len(states) + 1)
    ),
    "lasttoken": lambda states: states[-1],
}
_ENDS = ("", "_token", "_tokens")  # of a mode's name in older files
# Older releases named the file of the limits after the model's architecture.
_KINDS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
# Others change the vector after the pooling, with weights that the graph does not have.
_HARMLESS = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True)
class Pooling:
    """How a sentence is embedded.

    ``modes`` are pooled side by side, ``prompt`` goes before each text, and texts are cut to
    ``max_length`` tokens (None: the model's own limit).
    """

    modes: tuple[str, ...] = ("mean",)
    prompt: str = ""
    max_length: int | None = None
    lower_case: bool = False

    def pool(self, states: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the vector of a sentence from its tokens', (tokens, width), padding left out."""
        wide = states.astype(np.float64)
        return np.concatenate([_MODES[mode](wide) for mode in self.modes])


def read_pooling(directory: Path) -> Pooling | None:
    """Read how a checkpoint embeds sentences; None without sentence-transformers' files.

    Raises:
        CheckpointError: a file is damaged.
        EvaluationError: the files name a step that the ONNX half does not have.
    """
    listing, settings = directory / "modules.json", "config_sentence_transformers.json"
    if not listing.is_file():
        return None
    modules = _modules(listing)
    if "Pooling" not in modules or not set(modules) <= set(_HARMLESS):
        raise EvaluationError(
            f"{listing}: names the modules {', '.join(modules)}, and sts embeds only with "
            f"{', '.join(_HARMLESS)}; give `task` drift, which needs none of them"
        )
    inside = directory / modules.get("Transformer", "")
    found = (read_object(inside / f"sentence_{kind}_config.json") for kind in _KINDS)
    limits = next((one for one in found if one is not None), {})
    pooling = directory / modules["Pooling"] / CONFIG
    modes, with_prompt = _modes(pooling)
    further = read_object(directory / settings) or {}
    prompts, chosen = further.get("prompts"), further.get("default_prompt_name")
    prompt: Any = ""
    if chosen is not None:
        prompt = prompts.get(str(chosen)) if isinstance(prompts, dict) else None
    if not isinstance(prompt, str):
        raise EvaluationError(
            f"{directory / settings}: its prompts have no text called {chosen}, which "
            "default_prompt_name says; correct one of them"
        )
    if prompt and not with_prompt:
        raise EvaluationError(
            f"{pooling}: leaves the prompt out of the pooling (include_prompt), which sts cannot "
            "do; give `task` drift"
        )
    longest = length_or_none(limits.get("max_seq_length"))
    return Pooling(modes, prompt, longest, bool(limits.get("do_lower_case", False)))


def _modules(path: Path) -> dict[str, str]:
    """Return the folder of each module by its kind, below the folder of ``modules.json``."""
    found = {}
    try:
        listed = parse_json(path.read_bytes())
    except ValueError as error:
        raise EvaluationError(f"{path}: not valid JSON ({error})") from error
    for module in listed if isinstance(listed, list) else [None]:
        match module:
            case {"type": str(kind), "path": str(folder)} if ".." not in folder.split("/"):
                found[kind.rpartition(".")[2]] = folder.lstrip("/")
            case _:
                raise EvaluationError(
                    f"{path}: is not a list of modules with a type and a path in this folder each; "
                    "take the one that sentence-transformers saved with the model"
                )
    return found


def _modes(path: Path) -> tuple[tuple[str, ...], bool]:
    """Return how the tokens are pooled, and whether those of a prompt are too."""
    config = read_object(path)
    if config is None:
        raise EvaluationError(f"{path}: no such file, and modules.json names it; put it there")
    # Older files say pooling_mode_cls_token, pooling_mode_mean_tokens or pooling_mode_lasttoken.
    switched = [mode for mode in _MODES for end in _ENDS if config.get(f"pooling_mode_{mode}{end}")]
    named = config.get("pooling_mode") or switched
    modes = tuple(named or ["mean"]) if isinstance(named, list) else (named,)
    if unknown := [mode for mode in modes if not isinstance(mode, str) or mode not in _MODES]:
        raise EvaluationError(f"{path}: pools by {unknown[0]}; known are {', '.join(_MODES)}")
    return modes, bool(config.get("include_prompt", True))
