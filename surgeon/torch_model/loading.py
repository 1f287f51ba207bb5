"""Model directory → a model in PyTorch, with its editable tensors found by name and by value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from surgeon.architectures import Family, canonical_name
from surgeon.checkpoint import Checkpoint, open_checkpoint
from surgeon.errors import ExportError
from surgeon.scoring.tasks.task import TaskName
from surgeon.torch_model.tokenizer import quiet

_UNBOUNDED = 1_000_000  # transformers writes 1e30 where a tokenizer knows no limit

_AUTO_CLASSES = {
    "mlm": transformers.AutoModelForMaskedLM,
    "clm": transformers.AutoModelForCausalLM,
    "drift": transformers.AutoModel,
}


@dataclass(frozen=True)
class TorchModel:
    """A model in PyTorch, ready to run.

    ``inputs`` names the arrays that it takes, and ``parameters`` maps the checkpoint's name of
    each editable tensor to the model's.
    """

    checkpoint: Checkpoint
    task: TaskName
    model: Any
    inputs: tuple[str, ...]
    parameters: Mapping[str, str]

    @property
    def output(self) -> str:
        """Which of the model's outputs its task is scored on."""
        return "last_hidden_state" if self.task == "drift" else "logits"


def choose_task(checkpoint: Checkpoint) -> TaskName:
    """Return what a checkpoint can be scored on: its language-model head, or drift without one."""
    family = checkpoint.family
    if family.head:
        has_head = any(fragment in name for fragment in family.head for name in checkpoint.tensors)
        return family.objective if has_head else "drift"
    declared = " ".join(map(str, checkpoint.config.get("architectures") or ()))
    if "LMHead" in declared or "CausalLM" in declared or "lm_head.weight" in checkpoint.tensors:
        return family.objective
    return "drift"


def load_model(
    source: Path, family: Family, otherwise: str, sites_pattern: str | None = None
) -> TorchModel:
    """Load a model directory in float32, with the class that its task asks for.

    Args:
        source: the directory, with safetensors weights.
        family: its row of the architecture registry.
        otherwise: what an error tells the user to do instead.
        sites_pattern: where the sites of an architecture without a row are.

    Raises:
        ExportError: transformers cannot load it, or not as it is stored.
    """
    checkpoint = open_checkpoint(source, sites_pattern=sites_pattern)
    task = choose_task(checkpoint)
    try:
        with quiet():
            model, report = _AUTO_CLASSES[task].from_pretrained(
                source,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                attn_implementation="eager",  # exports to a cleaner graph than SDPA
                output_loading_info=True,
            )
    except Exception as error:
        raise explained("transformers cannot load the model", error, otherwise) from error
    # The pooler is not part of the exported graph; anything else would be random numbers.
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
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
        task,
        model,
        _input_names(model, family),
        _parameter_names(checkpoint, model, otherwise),
    )


def _input_names(model: Any, family: Family) -> tuple[str, ...]:
    names = ["input_ids", "attention_mask"]
    if family.objective == "mlm" and getattr(model.config, "type_vocab_size", 0) > 1:
        names.append("token_type_ids")
    return tuple(names)


def _parameter_names(checkpoint: Checkpoint, model: Any, otherwise: str) -> dict[str, str]:
    """Find each editable vector among the model's parameters, and check that it is the same."""
    parameters = dict(model.named_parameters())
    found = {}
    for site in checkpoint.sites:
        for tensor in filter(None, (site.gain, site.bias)):
            wanted = canonical_name(tensor)
            matches = [name for name in parameters if _same_module(name, wanted)]
            if len(matches) != 1 or not _equal(checkpoint.read(tensor), parameters[matches[0]]):
                raise ExportError(
                    f"{checkpoint.name}: transformers does not load {tensor} as it is stored; "
                    f"{otherwise}"
                )
            found[tensor] = matches[0]
    return found


def _same_module(one: str, other: str) -> bool:
    """Whether two names differ at most by a model prefix."""
    return one == other or one.endswith(f".{other}") or other.endswith(f".{one}")


def _equal(stored: npt.NDArray[Any], parameter: torch.Tensor) -> bool:
    return np.array_equal(
        stored.astype(np.float32).view(np.uint32), parameter.detach().numpy().view(np.uint32)
    )


def max_length_of(config: Any, tokenizer: Any | None, family: Family) -> int:
    """Return how many tokens a sequence may have."""
    positions = getattr(config, "max_position_embeddings", None)
    limits = [positions - family.position_offset] if positions else []
    if tokenizer is not None and tokenizer.model_max_length < _UNBOUNDED:
        limits.append(tokenizer.model_max_length)
    return int(min(limits, default=512))


def explained(what: str, error: Exception, otherwise: str) -> ExportError:
    """Make one line of what another library raised."""
    reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), "")
    cause = error.__cause__ or error
    reason = str(cause).partition("\n")[0] or reason
    return ExportError(f"{what} ({type(cause).__name__}: {reason}); {otherwise}")
