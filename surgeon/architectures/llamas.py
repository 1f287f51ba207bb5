"""Decoders of Llama's make: Llama and its kin, Gemma, OLMo, and hybrids of them.

In most the last operation of a layer is the output dense layer, which stores (outputs, inputs), so
that a dimension is a row. In some it is a norm, on what the layer adds to the stream.
"""

from __future__ import annotations

from surgeon.architectures.family import Family
from surgeon.architectures.parts import (
    ATTENTION,
    DOWN_PROJ,
    HYBRID,
    HYBRID_NORMS,
    LAYERNORM,
    LAYERNORM_1P,
    MORE_TOKENS,
    QK_NORMS,
    QUERY_NORMS,
    RMSNORM,
    RMSNORM_1P,
    TWO_NORMS,
)
from surgeon.architectures.sites import SiteTemplate

_LAYER = (DOWN_PROJ, ATTENTION)
# Since Gemma 2 there is one more norm between the output dense layer and the stream.
_GEMMA_2 = (
    SiteTemplate("output", "rmsnorm", "layers.{layer}.post_feedforward_layernorm", gain_offset=1.0),
    SiteTemplate(
        "attention", "rmsnorm", "layers.{layer}.post_attention_layernorm", gain_offset=1.0
    ),
    RMSNORM_1P,
)
_GEMMA_2_NORMS = ("input_layernorm", "pre_feedforward_layernorm", *QK_NORMS)
# OLMo 2 has that one alone, on what a block gives.
_OLMO_2 = (
    SiteTemplate("output", "rmsnorm", "layers.{layer}.post_feedforward_layernorm"),
    SiteTemplate("attention", "rmsnorm", "layers.{layer}.post_attention_layernorm"),
    RMSNORM,
)


def _llama(
    name: str,
    *model_types: str,
    final: SiteTemplate = RMSNORM,
    inner_norms: tuple[str, ...] = (*TWO_NORMS, *QK_NORMS),
) -> Family:
    return Family(name, model_types, (*_LAYER, final), "clm", inner_norms=inner_norms)


LLAMAS: tuple[Family, ...] = (
    _llama("Llama", "llama"),
    _llama("Mistral", "mistral"),
    _llama("Ministral", "ministral", "ministral3"),
    _llama("Qwen2", "qwen2"),
    _llama("Qwen3", "qwen3"),
    _llama("Phi-3", "phi3"),
    _llama("SmolLM3", "smollm3"),
    _llama("Granite", "granite"),
    _llama("Arcee", "arcee"),
    _llama("Seed-OSS", "seed_oss"),
    _llama("ERNIE 4.5", "ernie4_5"),
    _llama("Helium", "helium"),
    _llama("GLM", "glm"),
    _llama(
        "Hunyuan",
        "hunyuan_v1_dense",
        inner_norms=(*TWO_NORMS, *QUERY_NORMS),
    ),
    _llama(
        "Apertus",
        "apertus",
        inner_norms=("attention_layernorm", "feedforward_layernorm", *QK_NORMS),
    ),
    _llama("Gemma", "gemma", final=RMSNORM_1P),
    _llama("StableLM", "stablelm", final=LAYERNORM),
    _llama("Cohere", "cohere", "cohere2", final=LAYERNORM),
    _llama("Nemotron", "nemotron", final=LAYERNORM_1P),
    Family(  # an encoder in a Llama's clothes
        "EuroBERT",
        ("eurobert",),
        (*_LAYER, RMSNORM),
        "mlm",
        head=("lm_head.",),
        inner_norms=TWO_NORMS,
    ),
    Family("OLMo", ("olmo",), _LAYER, "clm"),  # its norms have neither gain nor bias
    # The last operation of a layer is a norm, on what is added to the stream.
    Family("OLMo 2", ("olmo2",), _OLMO_2, "clm", inner_norms=QK_NORMS),
    Family("OLMo 3", ("olmo3",), _OLMO_2, "clm", inner_norms=QK_NORMS),
    Family("EXAONE 4", ("exaone4",), _OLMO_2, "clm", inner_norms=QK_NORMS),
    Family(
        "GLM-4",
        ("glm4",),
        (
            SiteTemplate("output", "rmsnorm", "layers.{layer}.post_mlp_layernorm"),
            SiteTemplate("attention", "rmsnorm", "layers.{layer}.post_self_attn_layernorm"),
            RMSNORM,
        ),
        "clm",
        inner_norms=TWO_NORMS,
    ),
    Family("Gemma 2", ("gemma2",), _GEMMA_2, "clm", inner_norms=_GEMMA_2_NORMS),
    Family("Gemma 3", ("gemma3_text", "gemma3"), _GEMMA_2, "clm", inner_norms=_GEMMA_2_NORMS),
    Family("FlexOlmo", ("flex_olmo",), _OLMO_2, "clm", inner_norms=QK_NORMS),
    Family(
        "Qwen3.5",
        ("qwen3_5_text",),
        (DOWN_PROJ, *HYBRID, RMSNORM_1P),
        "clm",
        inner_norms=HYBRID_NORMS,
        unused=MORE_TOKENS,
    ),
    Family(
        "LFM2",
        ("lfm2",),
        (
            SiteTemplate("output", "dense", "layers.{layer}.feed_forward.w2"),
            SiteTemplate("attention", "dense", "layers.{layer}.self_attn.out_proj", among="full"),
            SiteTemplate("attention", "dense", "layers.{layer}.conv.out_proj", among="convolution"),
            SiteTemplate("final", "rmsnorm", "embedding_norm"),
        ),
        "clm",
        inner_norms=(
            "operator_norm",
            "ffn_norm",
            "self_attn.q_layernorm",
            "self_attn.k_layernorm",
        ),
    ),
)
