"""First-order effects of removals: gradients at the sites, of one text at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from surgeon.families import Site
from surgeon.tasks.examples import Batch, Example
from surgeon.torch_model.forward import call
from surgeon.torch_model.loading import TorchModel


def first_order(
    loaded: TorchModel,
    layers: Sequence[Sequence[Site]],
    batch: Batch,
    example: Example,
    seed: int,
) -> npt.NDArray[np.float64]:
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
    wanted = {loaded.parameters[tensor].name for tensor in tensors}
    for name, parameter in parameters.items():
        parameter.requires_grad_(requires_grad=name in wanted)
    try:
        with torch.enable_grad():
            output = call(loaded, batch, torch.enable_grad)
            _objective(output[0], example, loaded.task, seed).backward()
        return np.stack([_sum_of(loaded, sites, parameters) for sites in layers])
    finally:
        for parameter in parameters.values():
            parameter.requires_grad_(requires_grad=False)
            parameter.grad = None


def _sum_of(
    loaded: TorchModel, sites: Sequence[Site], parameters: dict[str, torch.nn.Parameter]
) -> npt.NDArray[np.float64]:
    """Return the effect of each dimension at the sites of one layer, (hidden,)."""
    effects = []
    for site in sites:
        for tensor, axis, offset in ((site.gain, site.axis, site.gain_offset), (site.bias, 0, 0.0)):
            if tensor is None:
                continue
            found = loaded.parameters[tensor]
            values = found.part(parameters[found.name].data)
            gradient = parameters[found.name].grad
            if gradient is None:  # of an expert that no token chose
                continue
            effect = ((values + offset) * found.part(gradient)).movedim(axis, 0)
            effects.append(effect.reshape(len(effect), -1).sum(dim=1).cpu().double().numpy())
    total: npt.NDArray[np.float64] = np.sum(effects, axis=0)
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
