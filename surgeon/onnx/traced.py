"""A model as a function of its inputs and its editable vectors, and that function as a graph."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Any
from unittest import mock

import torch

from surgeon.errors import ExportError
from surgeon.onnx.experts import part_experts, put_in_experts
from surgeon.onnx.facts import Dtype
from surgeon.onnx.parity import Feed
from surgeon.torch_model.heads import AXES
from surgeon.torch_model.loading import TorchModel, explained, quiet

# XLNet subtracts its mask from 1.0, which the exporter does not take of an integer.
_FLOAT_MASK = ("xlnet",)


class _Traced(torch.nn.Module):  # type: ignore[misc]  # torch is untyped to mypy here
    def __init__(self, loaded: TorchModel) -> None:
        super().__init__()
        self.model = loaded.model
        self.outputs = loaded.head.outputs
        self.floats = ["perm_mask", "target_mapping"]
        if loaded.model.config.model_type in _FLOAT_MASK:
            self.floats.append("attention_mask")

    def forward(
        self, tokens: dict[str, torch.Tensor], vectors: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        dtype = self.model.dtype
        taken = {n: v.to(dtype) if n in self.floats else v for n, v in tokens.items()}
        outputs = torch.func.functional_call(self.model, vectors, (), taken)
        return tuple(outputs[name].to(torch.float32) for name in self.outputs)


def trace(loaded: TorchModel, example: Feed, dtype: Dtype, otherwise: str) -> Any:
    """Return the model as an ``onnx_ir.Model`` with its weights in ``dtype``.

    Its inputs are the model's, then the editable vectors in the order of ``loaded.parameters``:
    no exporter pass can merge, fold or transpose an input. Its outputs are the head's, float32.

    Args:
        loaded: the model; afterwards its weights are in ``dtype``, and if it has experts it runs
            no more.
        example: a batch of at least two sequences of at least two tokens.
        dtype: of the weights.
        otherwise: what an error tells the user to do instead.

    Raises:
        ExportError: torch cannot export it.
    """
    loaded.model.to(getattr(torch, dtype))
    tokens = {name: torch.from_numpy(example[name]) for name in loaded.graph_inputs}
    parameters: Mapping[str, torch.Tensor] = dict(loaded.model.named_parameters())
    traced = [place.name for place in loaded.parameters.values() if place.expert is None]
    vectors = {name: parameters[name].detach().clone() for name in traced}
    axes = {name: dict(enumerate(AXES[name])) for name in tokens}
    try:
        # torch prints the half-made graph of what it cannot export to standard error.
        with (
            quiet(),
            contextlib.redirect_stderr(io.StringIO()),
            _with_stand_in(loaded),
        ):
            expert = part_experts(loaded, otherwise)
            program = torch.onnx.export(
                _Traced(loaded).eval(),
                (),
                kwargs={"tokens": tokens, "vectors": vectors},
                dynamic_shapes={"tokens": axes, "vectors": {name: {} for name in vectors}},
                dynamo=True,
                verbose=False,
            )
    except ExportError:
        raise
    except Exception as error:
        raise explained("torch cannot export the model", error, otherwise) from error
    assert program is not None
    for value in list(program.model.graph.initializers.values()):
        value.name = str(value.name).removeprefix("model.")  # of _Traced
    if expert is not None:
        put_in_experts(program.model, loaded, expert)
    return program.model


class _AllFinite:
    def all(self) -> bool:
        return True


def _take_as_finite(_values: torch.Tensor) -> _AllFinite:
    return _AllFinite()


def _turn(
    query: torch.Tensor, key: torch.Tensor, turns: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn neighbours of (batch, heads, sequence, width) by (batch, sequence, width / 2) angles."""
    cos, sin = torch.view_as_real(turns).unsqueeze(1).unbind(-1)
    turned = []
    for states in (query, key):
        one, other = states.float().unflatten(-1, (-1, 2)).unbind(-1)
        pairs = torch.stack((one * cos - other * sin, one * sin + other * cos), -1)
        turned.append(pairs.flatten(-2).to(states.dtype))
    return turned[0], turned[1]


# What stands in for a function that ONNX has nothing for, by model type.
_STAND_INS = {
    # In float16 it clamps what is infinite, and a graph cannot choose by values. Where something is
    # not finite, the graph's output is not either, and the comparison with PyTorch fails.
    "bart": ("torch.isfinite", _take_as_finite),
    # It turns queries and keys as complex numbers.
    "deepseek_v2": (
        "transformers.models.deepseek_v2.modeling_deepseek_v2.apply_rotary_emb",
        _turn,
    ),
}


def _with_stand_in(loaded: TorchModel) -> contextlib.AbstractContextManager[Any]:
    replaced = _STAND_INS.get(loaded.model.config.model_type)
    return mock.patch(*replaced) if replaced else contextlib.nullcontext()
