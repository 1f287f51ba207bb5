"""A transformers model in memory, seen as a checkpoint: to rank, and to plan an edit of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgeon.errors import CheckpointError
from surgeon.model.checkpoint import Checkpoint
from surgeon.model.tensors import TensorFile, TensorInfo
from surgeon.model.torch_pickle import TORCH_DTYPES

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LiveTensors(TensorFile):
    """The tensors of a model in memory, of which ``state`` holds the values as they are now."""

    state: Mapping[str, torch.Tensor]

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield a tensor's bytes in one piece, from whatever device it is on."""
        import torch

        tensor = self.state[name]
        if tensor.is_meta:
            raise CheckpointError(
                f"{self.path}: tensor {name} is on the meta device, without values; load the model "
                "whole (without `device_map`, where that left weights on the disk)"
            )
        if type(tensor) is not torch.Tensor or not tensor.numel():
            raise CheckpointError(
                f"{self.path}: tensor {name}: {type(tensor).__name__} of {tensor.numel()} values, "
                "not read or edited in place; load the model whole, on one device, not quantized"
            )
        values = tensor.cpu().contiguous().flatten()
        yield values.view(torch.uint8).numpy().tobytes()


@dataclass(frozen=True, kw_only=True, repr=False)
class LiveCheckpoint(Checkpoint):
    """A checkpoint that is a ``model`` in memory, with the ``tokenizer`` for it, if there is one.

    The methods that run a model run this one, as it is, in its dtype and on its device.
    """

    model: Any
    tokenizer: Any = None


def open_live(
    model: Any, *, sites_pattern: str | None = None, tokenizer: Any = None
) -> LiveCheckpoint:
    """See a transformers model in PyTorch as a checkpoint, to rank or to plan an edit of.

    Args:
        model: a ``PreTrainedModel``, on any device and in any dtype, also within what torch.compile
            or PEFT make of it; it is not changed.
        sites_pattern: as of ``open_checkpoint``.
        tokenizer: transformers' for it, which a method that runs the model needs.

    Raises:
        UnknownArchitectureError: no row of the registry describes it (once its sites are needed).
        CheckpointError: it is no such model, or its tensors are not those of its family, such as
            experts that are joined.
    """
    # They rename its tensors and have its methods, but for the name of its class.
    model = getattr(model, "_orig_mod", model)
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    # By its class, for what splits a model up has its methods.
    if "PreTrainedModel" not in (kind.__name__ for kind in type(model).__mro__):
        kind = type(model).__name__
        raise CheckpointError(f"`model`: give a PreTrainedModel of transformers; found {kind}")
    parameters = parameters_of(model)
    state, infos, start = {name: p.detach() for name, p in parameters.items()}, {}, 0
    for name, tensor in state.items():
        dtype = TORCH_DTYPES.get(str(tensor.dtype).removeprefix("torch."))
        if dtype is not None:
            end = start + tensor.numel() * tensor.element_size()
            infos[name] = TensorInfo(name, dtype, tuple(tensor.shape), start, end)
            start = end
    called = Path(model.name_or_path or type(model).__name__)
    return LiveCheckpoint(
        name=called.name,
        directory=called,
        # The class that was saved may have had another head.
        config=model.config.to_dict() | {"architectures": [type(model).__name__]},
        files=(LiveTensors(called, infos, state),),
        parameters_total=sum(parameter.numel() for parameter in model.parameters()),
        sites_pattern=sites_pattern,
        model=model,
        tokenizer=tokenizer,
    )


def parameters_of(model: Any) -> dict[str, torch.nn.Parameter]:
    """Return all of a model's parameters, shared or not, by the names that they are saved by.

    Not by its state_dict, which hooks or code of its own may make of copies. Layers that are
    compiled one by one have a part in the middle.
    """
    named = model.named_parameters(remove_duplicate=False)
    return {name.replace("_orig_mod.", ""): parameter for name, parameter in named}


@contextlib.contextmanager
def left_as_it_was(model: Any) -> Iterator[None]:
    """Run a model as an evaluation does; its modes and settings are put back."""
    from unittest import mock

    import torch

    training = [module for module in model.modules() if module.training]
    learning = [(p, p.requires_grad) for p in model.parameters()]
    try:
        for module in training:  # not by eval(), which may merge weights for inference
            module.training = False
        with (
            # Not every configuration has the settings, which would be saved with the model.
            mock.patch.multiple(model.config, create=True, use_cache=False, return_dict=True),
            torch.inference_mode(mode=False),  # in which there are no gradients
            torch.compiler.set_stance("force_eager"),  # hooks would be compiled too
        ):
            yield
    finally:
        for module in training:
            module.training = True
        for parameter, requires_grad in learning:
            if parameter.requires_grad != requires_grad:  # what inference_mode made refuses it
                parameter.requires_grad_(requires_grad)
