"""Running a model in PyTorch: its outputs, the states around its sites, and their gradients."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from surgeon.errors import WEIGHTS_ONLY, ExportError
from surgeon.families import Site
from surgeon.tasks.examples import Batch, Example
from surgeon.tasks.task import Floats
from surgeon.torch_model.loading import TorchModel, export_error, quiet

# These begin a decoder's input with the language of the text, if they get none.
_OWN_START = ("mbart", "plbart")

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
def without_dims(loaded: TorchModel, sites: Sequence[Site], dims: Sequence[int]) -> Iterator[None]:
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
                (site.bias, -1, 0.0),
            ):
                if tensor is not None:
                    values = loaded.parameters[tensor].values(parameters).movedim(axis, 0)
                    old.append((values, values[chosen]))
                    values[chosen] = nothing
        yield
    finally:
        for values, before in reversed(old):
            values[chosen] = before


def watch(
    loaded: TorchModel, layers: Sequence[Sequence[Site]], batch: Batch, consume: Consume
) -> None:
    """Run a batch and hand out the states around each layer's last operation.

    ``layers`` are the output sites of each. Where there are several, of experts, the operation is
    the module that they are all in, which adds up what they give, or those whose sum the layer
    adds to the stream.

    ``written`` is what the operation gives. ``stream`` is the sum that it meets: the input of a
    post-norm LayerNorm; elsewhere the residual stream as it leaves the layer. Each array is
    handed out while the model runs, and not kept.
    """
    modules = dict(loaded.model.named_modules())
    # Of the streams of Gemma 3n, side by side, that which its layers work on.
    active = getattr(loaded.model.config.get_text_config(), "altup_active_idx", None)
    with contextlib.ExitStack() as hooks:
        for number, sites in enumerate(layers):
            paths = [loaded.parameters[site.gain].module for site in sites]
            operations, layer = _operations(paths), _layer_path(paths[0])
            post_norm = sites[0].kind == "layernorm"
            written = _reporter(number, "written", consume, len(operations))
            stream = _reporter(number, "stream", consume, of_input=post_norm, active=active)
            for path, hook in (
                *((path, written) for path in operations),
                (operations[0] if post_norm else layer, stream),
            ):
                hooks.callback(modules[path].register_forward_hook(hook).remove)
        call(loaded, batch)


def _reporter(
    number: int,
    moment: Moment,
    consume: Consume,
    count: int = 1,
    *,
    of_input: bool = False,
    active: int | None = None,
) -> Callable[..., None]:
    """Return a hook that hands out the sum of what ``count`` modules take or give."""
    parts: list[States] = []

    def report(_module: Any, inputs: Any, output: Any) -> None:
        states = inputs if of_input else output
        states = states if isinstance(states, torch.Tensor) else states[0]
        states = states if active is None else states[active]
        parts.append(_states(states.reshape(-1, states.shape[-1])))
        if len(parts) == count:
            consume(number, moment, functools.reduce(np.add, parts))
            parts.clear()

    return report


def _states(values: torch.Tensor) -> States:
    states: States = values.float().cpu().numpy()
    return states


def _operations(paths: Sequence[str]) -> list[str]:
    """Return the path of the module that all are in, or those in the layer if that is the layer."""
    parts = zip(*(path.split(".") for path in paths), strict=False)
    same = [part[0] for part in itertools.takewhile(lambda part: len(set(part)) == 1, parts)]
    depth = len(same) + (".".join(same) == _layer_path(paths[0]))
    return sorted({".".join(path.split(".")[:depth]) for path in paths})


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
        ExportError: the model's code raised, or it has no such output.
    """
    device = loaded.model.device
    tensors = {name: torch.from_numpy(array).to(device) for name, array in batch.items()}
    takes = inspect.signature(loaded.model.forward).parameters
    if "decoder_input_ids" in takes and loaded.model.config.model_type not in _OWN_START:
        tensors.setdefault("decoder_input_ids", _shifted(tensors["input_ids"], loaded.model.config))
    try:
        with mode(), quiet():
            outputs = loaded.model(**tensors)
    except Exception as error:  # whatever a model's code raises, it does not run on text
        raise export_error("the model does not run in PyTorch", error, WEIGHTS_ONLY) from error
    # A class for pre-training has two heads, and this is the language model's.
    result: torch.Tensor | None = outputs.get(loaded.output, outputs.get("prediction_logits"))
    if result is None:
        raise ExportError(f"{type(loaded.model).__name__} gives no {loaded.output}", WEIGHTS_ONLY)
    return result


def _shifted(ids: torch.Tensor, config: Any) -> torch.Tensor:
    """Return what a decoder reads if nothing else is asked for: the text, behind its start.

    BART does so by itself; T5 does not run without.
    """
    declared = (getattr(config, f"{name}_token_id", None) for name in ("decoder_start", "pad"))
    start = next((token for token in declared if token is not None), 0)
    return torch.cat([torch.full_like(ids[:, :1], start), ids[:, :-1]], dim=1)


def first_order(
    loaded: TorchModel, layers: Sequence[Sequence[Site]], batch: Batch, example: Example, seed: int
) -> Floats:
    """Return gain·∂L/∂gain + bias·∂L/∂bias of each dimension in each layer, (layers, hidden).

    Args:
        loaded: the model.
        layers: the output sites of each layer.
        batch: the example, as the model takes it.
        example: what is asked of it; L is its loss, or without labels a random projection.
        seed: of the projection.
    """
    parameters = dict(loaded.model.named_parameters())
    tensors = [tensor for sites in layers for s in sites for tensor in (s.gain, s.bias) if tensor]
    for tensor in tensors:
        values = loaded.parameters[tensor].values(parameters)
        if type(values) is not torch.Tensor or not values.is_floating_point():
            raise ExportError(
                f"{loaded.checkpoint.name}: {tensor} is {type(values).__name__} of {values.dtype}: "
                "what is quantized or split is not removed in memory",
                "use `method` activations",
            )
    names = list(dict.fromkeys(loaded.parameters[tensor].name for tensor in tensors))
    for name, parameter in parameters.items():
        parameter.requires_grad_(requires_grad=name in names)
    try:
        with torch.enable_grad():
            output = call(loaded, batch, torch.enable_grad)
            objective = _objective(output[0], example, loaded.task, seed)
        # Not backward(), which adds to gradients that are there.
        found = torch.autograd.grad(objective, [parameters[n] for n in names], allow_unused=True)
    finally:
        for parameter in parameters.values():
            parameter.requires_grad_(requires_grad=False)
    gradients = dict(zip(names, found, strict=True))
    return np.stack([_sum_of(loaded, sites, parameters, gradients) for sites in layers])


def _sum_of(
    loaded: TorchModel,
    sites: Sequence[Site],
    parameters: Mapping[str, torch.nn.Parameter],
    gradients: Mapping[str, torch.Tensor | None],
) -> Floats:
    """Return the effect of each dimension at the sites of one layer, (hidden,)."""
    effects = []
    for site in sites:
        for tensor, axis, offset in (
            (site.gain, site.axis, site.gain_offset),
            (site.bias, -1, 0.0),
        ):
            if tensor is None:
                continue
            found = loaded.parameters[tensor]
            values = found.part(parameters[found.name].data)
            gradient = gradients[found.name]
            if gradient is None:  # of an expert that no token chose
                continue
            effect = ((values + offset) * found.part(gradient)).movedim(axis, 0)
            effects.append(effect.reshape(len(effect), -1).sum(dim=1).cpu().double().numpy())
    total: Floats = np.sum(effects, axis=0)
    return total


def _objective(output: torch.Tensor, example: Example, task: str, seed: int) -> torch.Tensor:
    """Return the loss of one text, (tokens, width), or a projection of its embedding."""
    if task == "drift":
        embedding = output[: len(example.ids)].mean(dim=0)
        length = embedding.detach().norm()
        direction = torch.from_numpy(np.random.default_rng(seed).standard_normal(len(embedding)))
        direction = direction.to(embedding)
        ahead = embedding.detach() / length
        return (direction - (direction @ ahead) * ahead) @ embedding / length
    labels = torch.from_numpy(example.labels).to(output.device)
    if task == "rtd":
        return functional.binary_cross_entropy_with_logits(
            output.reshape(len(example.ids))[example.positions].float(), labels.float()
        )
    return functional.cross_entropy(output[example.positions].float(), labels)
