"""Model directory → a model in PyTorch, with its editable tensors found by name and by value."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from surgeon.architectures import Family, canonical_name
from surgeon.checkpoint import Checkpoint
from surgeon.errors import ExportError
from surgeon.scoring.tasks.task import TaskName
from surgeon.scoring.tokenizer import UNBOUNDED, longest_text
from surgeon.torch_model.heads import HEADS, Head, choose_task
from surgeon.torch_model.tokenizer import quiet

_MODULE_AND_LEAF = 2  # components of a name that say what a tensor outside the layers is
# Not in some files and no random numbers: transformers fills it with zeros.
_FILLED = ("final_logits_bias",)
# Segments are compared and not embedded, so that the configuration has no vocabulary of them.
_SEGMENTS_COMPARED = ("xlnet",)
_EXPERT = re.compile(r".*?\.(?P<layer>\d+)\..*\.experts\.(?P<expert>\d+)\..*")


@dataclass(frozen=True)
class Place:
    """A parameter's name, and which part of it, where it holds those of all experts of a layer."""

    name: str
    expert: int | None = None

    @property
    def module(self) -> str:
        """The path of the module that holds the parameter."""
        return self.name.rpartition(".")[0]

    def values(self, parameters: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the tensor, a view into the model's own memory."""
        whole = parameters[self.name].data
        return whole if self.expert is None else whole[self.expert]


@dataclass(frozen=True)
class TorchModel:
    """A model in PyTorch, ready to run.

    ``inputs`` names the arrays that are made of the tokens alone, and ``parameters`` says where
    the model has each editable tensor of the checkpoint.
    """

    checkpoint: Checkpoint
    head: Head
    model: Any
    inputs: tuple[str, ...]
    parameters: Mapping[str, Place]

    @property
    def graph_inputs(self) -> tuple[str, ...]:
        """All that the exported graph takes: PyTorch makes the head's further inputs up."""
        return (*self.inputs, *self.head.inputs)

    @property
    def task(self) -> TaskName:
        """What the model's head is scored on."""
        return self.head.task

    @property
    def output(self) -> str:
        """Which of the model's outputs its task is scored on; the first of several."""
        return self.head.outputs[0]


def load_model(checkpoint: Checkpoint, otherwise: str, task: TaskName | None = None) -> TorchModel:
    """Load a model directory in float32, with the class that its task asks for.

    Args:
        checkpoint: the opened directory, with safetensors weights.
        otherwise: what an error tells the user to do instead.
        task: load it for this one (None: for the head that is there).

    Raises:
        ExportError: transformers cannot load it, or not as it is stored.
    """
    head = HEADS[task or choose_task(checkpoint)]
    try:
        with quiet():
            model, report = getattr(transformers, head.auto_class).from_pretrained(
                checkpoint.directory,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                attn_implementation="eager",  # exports to a cleaner graph than SDPA
                output_loading_info=True,
            )
    except Exception as error:
        raise explained("transformers cannot load the model", error, otherwise) from error
    # Without a head, the pooler is not among the outputs; anything else would be random numbers.
    ignored = (*_FILLED, "pooler") if head.task == "drift" else _FILLED
    missing = sorted(
        name for name in report["missing_keys"] if not any(part in name for part in ignored)
    )
    if missing or report["mismatched_keys"]:
        what = missing[0] if missing else next(iter(report["mismatched_keys"]))
        raise ExportError(
            f"{checkpoint.name}: transformers finds no weights for {what} of its "
            f"{type(model).__name__}; {otherwise}"
        )
    model.eval()
    model.config.use_cache = False
    return TorchModel(
        checkpoint,
        head,
        model,
        _input_names(checkpoint.name, model, otherwise),
        _places(checkpoint, model, otherwise),
    )


def _input_names(name: str, model: Any, otherwise: str) -> tuple[str, ...]:
    taken = list(inspect.signature(model.forward).parameters)
    if "input_ids" not in taken:
        raise ExportError(
            f"{name}: {type(model).__name__} takes {taken[0]}, and only models that take text "
            f"have an ONNX half; {otherwise}"
        )
    config = model.config
    segments = 2 if config.model_type in _SEGMENTS_COMPARED else 0
    typed = "token_type_ids" in taken and getattr(config, "type_vocab_size", segments) > 1
    return ("input_ids", "attention_mask", *(("token_type_ids",) if typed else ()))


def _places(checkpoint: Checkpoint, model: Any, otherwise: str) -> dict[str, Place]:
    """Find each editable tensor among the model's parameters, and check that it is the same."""
    parameters = dict(model.named_parameters())
    found = {}
    for site in checkpoint.sites:
        for tensor in filter(None, (site.gain, site.bias)):
            stored = checkpoint.read(tensor)
            name = _namesake(canonical_name(tensor), parameters)
            place = Place(name) if name is not None else _of_experts(tensor, stored, parameters)
            if place is None or not _equal(stored, place.values(parameters)):
                raise ExportError(
                    f"{checkpoint.name}: transformers does not load {tensor} as it is stored; "
                    f"{otherwise}"
                )
            found[tensor] = place
    return found


def _of_experts(
    tensor: str, stored: npt.NDArray[Any], parameters: Mapping[str, torch.Tensor]
) -> Place | None:
    """Find an expert's tensor in the one that transformers makes of all experts of its layer.

    Their modules may have other names than in the file (Mixtral), and so may the tensors (w2 is
    down_proj): what is there in that layer, of that shape and with those values, is it.
    """
    match = _EXPERT.fullmatch(tensor)
    if match is None:
        return None
    expert = int(match["expert"])
    for name, parameter in parameters.items():
        of_layer = f".{match['layer']}." in name and ".experts." in name
        if of_layer and parameter.shape[1:] == stored.shape and expert < parameter.shape[0]:
            place = Place(name, expert)
            if _equal(stored, place.values(parameters)):
                return place
    return None


def _namesake(tensor: str, parameters: Iterable[str]) -> str | None:
    """Return the parameter whose name has most of its end in common with a tensor's.

    Prefixes differ (``bert.``, none), and even their order does (Gemma 3's ``language_model.model``
    is ``model.language_model`` in memory). What follows from the layer's number on may not.
    """
    wanted = tensor.split(".")
    numbers = [at for at, part in enumerate(wanted) if part.isdecimal()]
    least = len(wanted) - numbers[0] if numbers else _MODULE_AND_LEAF
    by_length: dict[int, list[str]] = {}
    for name in parameters:
        pairs = zip(reversed(wanted), reversed(name.split(".")), strict=False)
        common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        by_length.setdefault(common, []).append(name)
    best = by_length[max(by_length)] if by_length and max(by_length) >= least else []
    return best[0] if len(best) == 1 else None


def _equal(stored: npt.NDArray[Any], parameter: torch.Tensor) -> bool:
    return np.array_equal(
        stored.astype(np.float32).view(np.uint32), parameter.detach().numpy().view(np.uint32)
    )


def max_length_of(config: Any, tokenizer: Any | None, family: Family) -> int:
    """Return how many tokens a sequence may have."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    limit = tokenizer.model_max_length if tokenizer is not None else UNBOUNDED
    return longest_text(
        positions, family.position_offset, int(limit) if limit < UNBOUNDED else None
    )


def padding_id_of(config: Any, tokenizer: Any | None) -> int:
    """Return the token that fills up shorter sequences of a batch; 0 where none is declared.

    The configuration's comes first: RoBERTa counts its positions by it, and GPT-2 finds the last
    token of a sequence to classify by it.
    """
    text = config.get_text_config()
    declared = (getattr(text, "pad_token_id", None), getattr(tokenizer, "pad_token_id", None))
    return next((pad for pad in declared if pad is not None and 0 <= pad < text.vocab_size), 0)


def decoder_start_of(loaded: TorchModel) -> int | None:
    """Return the token that a decoder's input begins with; None without an input or a token."""
    if "decoder_input_ids" not in loaded.head.inputs:
        return None
    for declared in (loaded.model.config, getattr(loaded.model, "generation_config", None)):
        start = getattr(declared, "decoder_start_token_id", None)
        if start is not None:
            return int(start)
    return None


def labels_of(config: Any, head: Head) -> tuple[str, ...]:
    """Return the names of a classifier's labels, in the order of its outputs; () without one."""
    if head.task not in ("classification", "token-classification"):
        return ()
    return tuple(str(label) for _, label in sorted(config.id2label.items()))


def explained(what: str, error: Exception, otherwise: str) -> ExportError:
    """Make one line of what another library raised."""
    reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), "")
    cause = error.__cause__ or error
    reason = str(cause).partition("\n")[0] or reason
    return ExportError(f"{what} ({type(cause).__name__}: {reason}); {otherwise}")
