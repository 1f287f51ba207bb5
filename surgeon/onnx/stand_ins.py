"""What stands in, while a model is traced, for functions of its code that ONNX has nothing for."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator
from statistics import NormalDist
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch._higher_order_ops import scan
from torch.nn.functional import scaled_dot_product_attention


@contextlib.contextmanager
def stand_ins(model: torch.nn.Module) -> Iterator[None]:
    """Have those of a model's architecture in place within the block."""
    module = sys.modules[type(model).__module__]
    with contextlib.ExitStack() as stack:
        for name, function in _BY_MODEL_TYPE.get(model.config.model_type, {}).items():
            stack.enter_context(mock.patch(name, function))
        for name in _BY_NAME.keys() & vars(module).keys():
            stack.enter_context(mock.patch.object(module, name, _BY_NAME[name]))
        yield


def _turn(
    query: torch.Tensor, key: torch.Tensor, turns: torch.Tensor, heads: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn neighbours of (batch, sequence, width) by (batch, sequence, width / 2) angles.

    ``heads`` is the axis of the heads among those of the states.
    """
    cos, sin = torch.view_as_real(turns).unsqueeze(heads).unbind(-1)
    turned = []
    for states in (query, key):
        one, other = states.float().unflatten(-1, (-1, 2)).unbind(-1)
        pairs = torch.stack((one * cos - other * sin, one * sin + other * cos), -1)
        turned.append(pairs.flatten(-2).to(states.dtype))
    return turned[0], turned[1]


def _gated_delta_rule(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    g: torch.Tensor,
    beta: torch.Tensor,
    *,
    use_qk_l2norm_in_kernel: bool = False,
    **_options: Any,
) -> tuple[torch.Tensor, None]:
    """Apply the gated delta rule token by token (Yang et al. 2024, arXiv 2412.06464, section 3.1).

    transformers goes by chunks of 64 tokens, in loops of Python, of which a trace has as many turns
    as it was made with.

    Args:
        query: (batch, sequence, key heads, key width).
        key: the same.
        value: (batch, sequence, value heads, value width).
        g: the logarithm of the decay, (batch, sequence, value heads).
        beta: how much of what is new is written, (batch, sequence, value heads).
        use_qk_l2norm_in_kernel: whether queries and keys get the length 1.
    """
    if use_qk_l2norm_in_kernel:
        query, key = (x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt() for x in (query, key))
    query, key = (x.repeat_interleave(value.shape[2] // x.shape[2], 2) for x in (query, key))
    query = query * query.shape[-1] ** -0.5
    by_token = [x.transpose(0, 1).float() for x in (query, key, value, g, beta)]

    def read_and_write(
        state: torch.Tensor, token: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        query, key, value, g, beta = token
        state = state * g.exp()[..., None, None]
        known = (state * key[..., None]).sum(-2)
        state = state + key[..., None] * ((value - known) * beta[..., None])[..., None, :]
        return state, (state * query[..., None]).sum(-2)

    batch, _, heads, width = value.shape
    state = query.new_zeros((batch, heads, key.shape[-1], width), dtype=torch.float32)
    _, read = scan(read_and_write, state, by_token)
    return read.transpose(0, 1).to(value.dtype), None


def _above_quantile(mlp: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Subtract the quantile of a normal distribution with the mean and deviation of what is given.

    It is computed here, because ONNX has no inverse of the error function.
    """
    std, mean = torch.std_mean(inputs, dim=-1, keepdim=True, unbiased=False)
    return torch.relu(inputs - mean - std * NormalDist().inv_cdf(mlp.activation_sparsity))


def _windowed_attention(
    attention: torch.nn.Module,
    hidden_states: torch.Tensor,
    *,
    is_index_masked: torch.Tensor,
    is_index_global_attn: torch.Tensor,
    **_options: Any,
) -> tuple[torch.Tensor]:
    """Attend within a window, and all to all global tokens (Beltagy et al. 2020, arXiv 2004.05150).

    transformers goes by chunks of a window, of which a trace has as many as it was made with; the
    masks, (batch, sequence), are here of all pairs of tokens.
    """

    def attend(of: str, seen: torch.Tensor) -> torch.Tensor:
        linears = (getattr(attention, f"{name}{of}") for name in ("query", "key", "value"))
        states = (each(hidden_states).unflatten(-1, (attention.num_heads, -1)) for each in linears)
        query, key, value = (each.transpose(1, 2) for each in states)
        return scaled_dot_product_attention(query, key, value, seen).transpose(1, 2).flatten(2)

    places = torch.arange(hidden_states.shape[1])
    near = (places[:, None] - places).abs() <= attention.one_sided_attn_window_size
    real, all_see = ~is_index_masked[:, None, None], is_index_global_attn[:, None, None]
    states = attend("", real & near | all_see)
    return (torch.where(is_index_global_attn[..., None], attend("_global", real), states),)


def _unpadded(_model: torch.nn.Module, **tokens: Any) -> tuple[Any, ...]:
    del tokens["pad_token_id"]
    return 0, *tokens.values()


_MODULES = "transformers.models.{0}.modeling_{0}.{1}"
_SPARSITY = _MODULES.format("gemma3n", "Gemma3nTextMLP._gaussian_topk")
# In float16 they clamp what is infinite, and a graph cannot choose by values. Where something is
# not finite, the graph's output is not either, and the comparison with PyTorch fails.
_CLAMPING = ("bart", "blenderbot-small", "marian", "mvp", "plbart")
_UNCLAMPED = {"torch.isfinite": lambda _values: SimpleNamespace(all=lambda: True)}
_BY_MODEL_TYPE: dict[str, dict[str, Any]] = {
    **dict.fromkeys(_CLAMPING, _UNCLAMPED),
    # They turn queries and keys as complex numbers.
    "deepseek_v2": {_MODULES.format("deepseek_v2", "apply_rotary_emb"): _turn},
    "gemma3n": {_SPARSITY: _above_quantile},
    "gemma3n_text": {_SPARSITY: _above_quantile},
    "led": {
        **_UNCLAMPED,
        _MODULES.format("led", "LEDEncoderSelfAttention.forward"): _windowed_attention,
        _MODULES.format("led", "LEDEncoder._pad_to_window_size"): _unpadded,
    },
    "longformer": {
        _MODULES.format("longformer", "LongformerSelfAttention.forward"): _windowed_attention,
        _MODULES.format("longformer", "LongformerModel._pad_to_window_size"): _unpadded,
        # A question ends at the first separator; transformers counts them all, by their values.
        _MODULES.format("longformer", "_get_question_end_index"): (
            lambda ids, separator: (ids == separator).int().argmax(1)
        ),
    },
    "llama4_text": {
        _MODULES.format("llama4", "apply_rotary_emb"): functools.partial(_turn, heads=2)
    },
}
_BY_NAME = {"torch_chunk_gated_delta_rule": _gated_delta_rule}
