"""Running a model in PyTorch: its outputs where they are scored, and what passes its sites."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from surgeon.errors import INSTEAD
from surgeon.families import Site
from surgeon.tasks.examples import Batch
from surgeon.torch_model.loading import TorchModel, export_error, quiet

States: TypeAlias = npt.NDArray[np.float32]
Moment: TypeAlias = Literal["written", "stream"]
Consume: TypeAlias = Callable[[int, Moment, States], None]
"""Called with a layer's number, the moment, and the states there, (tokens, hidden)."""


def run(loaded: TorchModel, batch: Batch) -> States:
    """Run a batch; the output has shape (sequences, tokens, width)."""
    return _states(call(loaded, batch))


def run_at(
    loaded: TorchModel, batch: Batch, positions: Sequence[npt.NDArray[np.int64]]
) -> list[States]:
    """Run a batch and return each sequence's logits at its positions, (positions, vocabulary).

    The projection to the vocabulary, a third of the work of a small model, is computed only there
    where the model has it as a module of its own.
    """
    counts = [at.size for at in positions]
    device = loaded.model.device
    rows = torch.from_numpy(np.repeat(np.arange(len(positions)), counts)).to(device)
    columns = torch.from_numpy(np.concatenate(positions)).to(device)
    shape = batch["input_ids"].shape

    def pick(_module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        if not inputs or tuple(inputs[0].shape[:2]) != shape:
            return None
        return (inputs[0][rows, columns][None], *inputs[1:])

    head = loaded.model.get_output_embeddings()
    handle = head.register_forward_pre_hook(pick) if head is not None else None
    try:
        output = call(loaded, batch)
    finally:
        if handle is not None:
            handle.remove()
    picked = output[0] if tuple(output.shape[:2]) != shape else output[rows, columns]
    return [_states(part) for part in picked.split(counts)]


@contextlib.contextmanager
def removed(loaded: TorchModel, sites: Sequence[Site], dims: Sequence[int]) -> Iterator[None]:
    """Have the model without dimensions: their gain and bias are 0 at the sites, in memory.

    Afterwards the old values are back, bit for bit. A norm that multiplies by an offset plus what
    is stored (Gemma) stores minus the offset meanwhile.
    """
    parameters = dict(loaded.model.named_parameters())
    old = []
    chosen = list(dims)
    try:
        for site in sites:
            for tensor, axis, nothing in (
                (site.gain, site.axis, 0.0 - site.gain_offset),
                (site.bias, 0, 0.0),
            ):
                if tensor is not None:
                    values = loaded.parameters[tensor].values(parameters)
                    index = (slice(None),) * axis + (chosen,)
                    old.append((values, index, values[index].clone()))
                    values[index] = nothing
        yield
    finally:
        for values, index, before in reversed(old):
            values[index] = before


def watch(
    loaded: TorchModel, layers: Sequence[Sequence[Site]], batch: Batch, consume: Consume
) -> None:
    """Run a batch and hand out the states around each layer's last operation.

    ``layers`` are the output sites of each. Where there are several, of experts, the operation is
    the module that they are all in, which adds up what they give.

    ``written`` is what the operation gives. ``stream`` is the sum that it meets: the input of a
    post-norm LayerNorm; elsewhere the residual stream as it leaves the layer. Each array is
    handed out while the model runs, and not kept.
    """
    modules = dict(loaded.model.named_modules())
    with contextlib.ExitStack() as hooks:
        for number, sites in enumerate(layers):
            path = _common_path([loaded.parameters[site.gain].module for site in sites])
            operation, layer = modules[path], modules[_layer_path(path)]
            post_norm = sites[0].kind == "layernorm"
            written = _reporter(number, "written", consume, of_input=False)
            stream = _reporter(number, "stream", consume, of_input=post_norm)
            for module, hook in (
                (operation, written),
                (operation if post_norm else layer, stream),
            ):
                hooks.callback(module.register_forward_hook(hook).remove)
        call(loaded, batch)


def _reporter(
    number: int, moment: Moment, consume: Consume, *, of_input: bool
) -> Callable[..., None]:
    def report(_module: Any, inputs: Any, output: Any) -> None:
        states = inputs if of_input else output
        states = states if isinstance(states, torch.Tensor) else states[0]
        consume(number, moment, _states(states.reshape(-1, states.shape[-1])))

    return report


def _states(values: torch.Tensor) -> States:
    states: States = values.float().cpu().numpy()
    return states


def _common_path(paths: Iterable[str]) -> str:
    parts = zip(*(path.split(".") for path in paths), strict=False)
    same = itertools.takewhile(lambda part: len(set(part)) == 1, parts)
    return ".".join(part[0] for part in same)


def _layer_path(path: str) -> str:
    """Return the path of the layer that a module is in: up to the first number, or its own."""
    parts = path.split(".")
    at = next((i for i, part in enumerate(parts) if part.isdecimal()), len(parts) - 1)
    return ".".join(parts[: at + 1])


def call(
    loaded: TorchModel, batch: Batch, mode: Callable[[], Any] = torch.inference_mode
) -> torch.Tensor:
    """Run a batch and return the output that the task is scored on, with gradients or without.

    Raises:
        ExportError: the model's code raised.
    """
    device = loaded.model.device
    tensors = {name: torch.from_numpy(array).to(device) for name, array in batch.items()}
    try:
        with mode(), quiet():
            outputs = loaded.model(**tensors)
    except Exception as error:  # whatever a model's code raises, it does not run on text
        raise export_error("the model does not run in PyTorch", error, INSTEAD) from error
    result: torch.Tensor = outputs[loaded.output]
    return result
