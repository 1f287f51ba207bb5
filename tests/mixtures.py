"""Mixtures of experts, as tiny models: transformers merges what their files hold apart."""

from __future__ import annotations

import transformers as t
from tiny import GEMMA, LLAMA, pre

_TWO = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 12}
_LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
_ROUTED = {
    "n_routed_experts": 2,
    "n_shared_experts": 1,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 12,
    "n_group": 1,
    "topk_group": 1,
}
_DENSE_FIRST = {**_ROUTED, "first_k_dense_replace": 1}
_LATENT = {
    "num_key_value_heads": 2,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}


def _mixture(model, config, block, *, output="mlp.experts.0.down_proj"):
    return pre(model, config, block, f"model.layers.1.{output}.weight", bias=False)


def _mixtral(model, config, block):
    return _mixture(model, config, block, output="block_sparse_moe.experts.0.w2")


MIXTURES = {
    "mixtral": _mixtral(
        t.MixtralForCausalLM, t.MixtralConfig(**LLAMA, **_LOCAL), "MixtralDecoderLayer"
    ),
    "phimoe": _mixtral(
        t.PhimoeForCausalLM, t.PhimoeConfig(**LLAMA, **_LOCAL), "PhimoeDecoderLayer"
    ),
    "minimax_m2": _mixtral(
        t.MiniMaxM2ForCausalLM, t.MiniMaxM2Config(**GEMMA, **_LOCAL), "MiniMaxM2DecoderLayer"
    ),
    "qwen2_moe": _mixture(
        t.Qwen2MoeForCausalLM,
        t.Qwen2MoeConfig(**LLAMA, **_TWO, shared_expert_intermediate_size=12, mlp_only_layers=[0]),
        "Qwen2MoeDecoderLayer",
    ),
    "qwen3_moe": _mixture(
        t.Qwen3MoeForCausalLM, t.Qwen3MoeConfig(**GEMMA, **_TWO), "Qwen3MoeDecoderLayer"
    ),
    "olmoe": _mixture(
        t.OlmoeForCausalLM,
        t.OlmoeConfig(**LLAMA, num_experts=2, num_experts_per_tok=1),
        "OlmoeDecoderLayer",
    ),
    "deepseek_v2": _mixture(
        t.DeepseekV2ForCausalLM,
        t.DeepseekV2Config(**{**LLAMA, **_LATENT}, **_DENSE_FIRST),
        "DeepseekV2DecoderLayer",
    ),
    "deepseek_v3": _mixture(
        t.DeepseekV3ForCausalLM,
        t.DeepseekV3Config(**{**LLAMA, **_LATENT}, **{**_DENSE_FIRST, "n_routed_experts": 4}),
        "DeepseekV3DecoderLayer",
    ),
    "glm4_moe": _mixture(
        t.Glm4MoeForCausalLM, t.Glm4MoeConfig(**GEMMA, **_DENSE_FIRST), "Glm4MoeDecoderLayer"
    ),
    "glm4_moe_lite": _mixture(
        t.Glm4MoeLiteForCausalLM,
        t.Glm4MoeLiteConfig(**{**LLAMA, **_LATENT}, **_ROUTED),
        "Glm4MoeLiteDecoderLayer",
    ),
    "dots1": _mixture(
        t.Dots1ForCausalLM, t.Dots1Config(**GEMMA, **_DENSE_FIRST), "Dots1DecoderLayer"
    ),
    "ernie4_5_moe": _mixture(
        t.Ernie4_5_MoeForCausalLM,
        t.Ernie4_5_MoeConfig(
            **GEMMA, moe_num_experts=2, moe_k=1, moe_intermediate_size=12, moe_layer_start_index=1
        ),
        "Ernie4_5_MoeDecoderLayer",
    ),
    "hunyuan_v1_moe": _mixture(
        t.HunYuanMoEV1ForCausalLM,
        t.HunYuanMoEV1Config(**GEMMA, num_experts=2, moe_topk=1),
        "HunYuanMoEV1DecoderLayer",
    ),
    "solar_open": _mixture(
        t.SolarOpenForCausalLM, t.SolarOpenConfig(**GEMMA, **_ROUTED), "SolarOpenDecoderLayer"
    ),
    "exaone_moe": _mixture(
        t.ExaoneMoeForCausalLM, t.ExaoneMoeConfig(**GEMMA, **_TWO), "ExaoneMoeDecoderLayer"
    ),
    "qwen3_next": _mixture(
        t.Qwen3NextForCausalLM,
        t.Qwen3NextConfig(**GEMMA, **_TWO, **LINEAR, shared_expert_intermediate_size=12),
        "Qwen3NextDecoderLayer",
    ),
}
