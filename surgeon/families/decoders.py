"""Decoders: GPT and its kin.

In most the norms come first in a layer, so that its last operation is the output dense layer. A
Linear stores (outputs, inputs), so that a dimension is a row; a Conv1D stores (inputs, outputs).
"""

from __future__ import annotations

from surgeon.families.family import (
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
    Family,
)
from surgeon.families.sites import SiteTemplate

_LN_F = SiteTemplate("final", "layernorm", "ln_f")
_GPT_J = (
    SiteTemplate("output", "dense", "h.{layer}.mlp.fc_out"),
    SiteTemplate("attention", "dense", "h.{layer}.attn.out_proj"),
    _LN_F,
)
_BLOOM = (
    SiteTemplate("output", "dense", "h.{layer}.mlp.dense_4h_to_h"),
    SiteTemplate("attention", "dense", "h.{layer}.self_attention.dense"),
    SiteTemplate("embeddings", "layernorm", "word_embeddings_layernorm"),
    _LN_F,
)
_XGLM = (
    SiteTemplate("output", "dense", "layers.{layer}.fc2"),
    SiteTemplate("attention", "dense", "layers.{layer}.self_attn.out_proj"),
    SiteTemplate("attention", "dense", "layers.{layer}.encoder_attn.out_proj"),
    SiteTemplate("final", "layernorm", "layer_norm"),
)
_FAIRSEQ_NORMS = ("final_layer_norm", "self_attn_layer_norm", "encoder_attn_layer_norm")

DECODERS: tuple[Family, ...] = (
    Family(
        "GPT-2",
        ("gpt2",),
        (
            SiteTemplate("output", "dense", "h.{layer}.mlp.c_proj", axis=1),
            SiteTemplate("attention", "dense", "h.{layer}.attn.c_proj", axis=1),
            SiteTemplate("attention", "dense", "h.{layer}.crossattention.c_proj", axis=1),
            _LN_F,
        ),
        "clm",
        inner_norms=("ln_1", "ln_2", "ln_cross_attn"),
    ),
    # The first GPT is post-norm.
    Family(
        "GPT",
        ("openai-gpt",),
        (
            SiteTemplate("output", "layernorm", "h.{layer}.ln_2"),
            SiteTemplate("attention", "layernorm", "h.{layer}.ln_1"),
        ),
        "clm",
    ),
    Family(
        "GPT-BigCode",
        ("gpt_bigcode",),
        (
            SiteTemplate("output", "dense", "h.{layer}.mlp.c_proj"),
            SiteTemplate("attention", "dense", "h.{layer}.attn.c_proj"),
            SiteTemplate("attention", "dense", "h.{layer}.crossattention.c_proj"),
            _LN_F,
        ),
        "clm",
        inner_norms=("ln_1", "ln_2", "ln_cross_attn"),
    ),
    Family(
        "GPT-Neo",
        ("gpt_neo",),
        (
            SiteTemplate("output", "dense", "h.{layer}.mlp.c_proj"),
            SiteTemplate("attention", "dense", "h.{layer}.attn.attention.out_proj"),
            _LN_F,
        ),
        "clm",
        inner_norms=("ln_1", "ln_2"),
    ),
    Family("GPT-J", ("gptj",), _GPT_J, "clm", inner_norms=("ln_1",)),
    Family("CodeGen", ("codegen",), _GPT_J, "clm", inner_norms=("ln_1",)),
    Family(
        "GPT-NeoX",
        ("gpt_neox",),
        (
            SiteTemplate("output", "dense", "layers.{layer}.mlp.dense_4h_to_h"),
            SiteTemplate("attention", "dense", "layers.{layer}.attention.dense"),
            SiteTemplate("final", "layernorm", "final_layer_norm"),
        ),
        "clm",
        inner_norms=TWO_NORMS,
    ),
    Family(
        "Persimmon",
        ("persimmon",),
        (
            SiteTemplate("output", "dense", "layers.{layer}.mlp.dense_4h_to_h"),
            SiteTemplate("attention", "dense", "layers.{layer}.self_attn.dense"),
            SiteTemplate("final", "layernorm", "final_layernorm"),
        ),
        "clm",
        inner_norms=(*TWO_NORMS, "self_attn.q_layernorm", "self_attn.k_layernorm"),
    ),
    Family(
        "OPT",
        ("opt",),
        (
            SiteTemplate("output", "dense", "decoder.layers.{layer}.fc2"),
            SiteTemplate("attention", "dense", "decoder.layers.{layer}.self_attn.out_proj"),
            SiteTemplate("final", "layernorm", "decoder.final_layer_norm"),
        ),
        "clm",
        inner_norms=_FAIRSEQ_NORMS,
        when={"do_layer_norm_before": (True, None)},
    ),
    # OPT-350m, alone of its series, is post-norm.
    Family(
        "OPT",
        ("opt",),
        (
            SiteTemplate("output", "layernorm", "decoder.layers.{layer}.final_layer_norm"),
            SiteTemplate("attention", "layernorm", "decoder.layers.{layer}.self_attn_layer_norm"),
        ),
        "clm",
        when={"do_layer_norm_before": (False,)},
    ),
    Family("XGLM", ("xglm",), _XGLM, "clm", inner_norms=_FAIRSEQ_NORMS),
    Family("BioGPT", ("biogpt",), _XGLM, "clm", inner_norms=_FAIRSEQ_NORMS),
    Family("BLOOM", ("bloom",), _BLOOM, "clm", inner_norms=TWO_NORMS),
    Family("Falcon", ("falcon",), _BLOOM, "clm", inner_norms=(*TWO_NORMS, "ln_attn", "ln_mlp")),
    Family(
        "MPT",
        ("mpt",),
        (
            SiteTemplate("output", "dense", "blocks.{layer}.ffn.down_proj"),
            SiteTemplate("attention", "dense", "blocks.{layer}.attn.out_proj"),
            SiteTemplate("final", "layernorm", "norm_f"),
        ),
        "clm",
        inner_norms=("norm_1", "norm_2"),
    ),
    Family(
        "Phi",
        ("phi",),
        (
            SiteTemplate("output", "dense", "layers.{layer}.mlp.fc2"),
            SiteTemplate("attention", "dense", "layers.{layer}.self_attn.dense"),
            SiteTemplate("final", "layernorm", "final_layernorm"),
        ),
        "clm",
        inner_norms=("input_layernorm", "self_attn.q_layernorm", "self_attn.k_layernorm"),
    ),
    Family(
        "StarCoder2",
        ("starcoder2",),
        (
            SiteTemplate("output", "dense", "layers.{layer}.mlp.c_proj"),
            SiteTemplate("attention", "dense", "layers.{layer}.self_attn.o_proj"),
            LAYERNORM,
        ),
        "clm",
        inner_norms=TWO_NORMS,
    ),
)


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
