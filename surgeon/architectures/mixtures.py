"""Mixtures of experts: decoders of which some layers, or all, have several feed-forward blocks.

All experts of a layer write to the stream, each scaled by how much it is asked: what is 0 in all of
them is 0 in their sum.
"""

from __future__ import annotations

from surgeon.architectures.family import Family
from surgeon.architectures.parts import (
    ATTENTION,
    HYBRID,
    HYBRID_NORMS,
    LAYERNORM,
    MORE_TOKENS,
    QK_NORMS,
    QUERY_NORMS,
    RMSNORM,
    RMSNORM_1P,
    TWO_NORMS,
)
from surgeon.architectures.sites import SiteTemplate

_QWEN_MOE = (
    SiteTemplate(
        "output", "dense", "layers.{layer}.mlp.experts.{expert}.down_proj", among="experts"
    ),
    SiteTemplate("output", "dense", "layers.{layer}.mlp.shared_expert.down_proj", among="experts"),
    SiteTemplate("output", "dense", "layers.{layer}.mlp.shared_experts.down_proj", among="experts"),
    SiteTemplate("output", "dense", "layers.{layer}.mlp.shared_mlp.down_proj", among="experts"),
    SiteTemplate("output", "dense", "layers.{layer}.mlp.down_proj", among="dense"),
)
_MIXTRAL = (
    SiteTemplate("output", "dense", "layers.{layer}.block_sparse_moe.experts.{expert}.w2"),
    ATTENTION,
)
_LATENT_NORMS = ("self_attn.q_a_layernorm", "self_attn.kv_a_layernorm")


def _mixture(
    name: str, *model_types: str, norms: tuple[str, ...] = QK_NORMS, unused: str = ""
) -> Family:
    templates = (*_QWEN_MOE, ATTENTION, RMSNORM)
    inner_norms = (*TWO_NORMS, *norms)
    return Family(name, model_types, templates, "clm", inner_norms=inner_norms, unused=unused)


MIXTURES: tuple[Family, ...] = (
    Family("Mixtral", ("mixtral",), (*_MIXTRAL, RMSNORM), "clm", inner_norms=TWO_NORMS),
    Family("Phi-3.5-MoE", ("phimoe",), (*_MIXTRAL, LAYERNORM), "clm", inner_norms=TWO_NORMS),
    Family(
        "MiniMax-M2",
        ("minimax_m2",),
        (*_MIXTRAL, RMSNORM),
        "clm",
        inner_norms=(*TWO_NORMS, *QK_NORMS),
    ),
    _mixture("Qwen2-MoE", "qwen2_moe"),
    _mixture("Qwen3-MoE", "qwen3_moe"),
    _mixture("OLMoE", "olmoe"),
    _mixture("DeepSeek-V2", "deepseek_v2", norms=_LATENT_NORMS),
    _mixture("DeepSeek-V3", "deepseek_v3", norms=_LATENT_NORMS),
    _mixture("GLM-4-MoE", "glm4_moe"),
    _mixture("GLM-4-MoE", "glm4_moe_lite", norms=_LATENT_NORMS),
    _mixture("dots.llm1", "dots1"),
    _mixture("ERNIE 4.5 MoE", "ernie4_5_moe"),
    _mixture("Hunyuan-MoE", "hunyuan_v1_moe", norms=QUERY_NORMS),
    _mixture("Solar Open", "solar_open"),
    _mixture("EXAONE MoE", "exaone_moe", unused=MORE_TOKENS),
    Family(
        "Qwen3-Next",
        ("qwen3_next",),
        (*_QWEN_MOE, *HYBRID, RMSNORM_1P),
        "clm",
        inner_norms=HYBRID_NORMS,
        unused=MORE_TOKENS,
    ),
)
