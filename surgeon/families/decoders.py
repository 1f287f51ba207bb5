"""Decoders: GPT, Llama, mixtures of experts, hybrids and their kin.

In most the norms come first in a layer, so that its last operation is the output dense layer. A
Linear stores (outputs, inputs), so that a dimension is a row; a Conv1D stores (inputs, outputs).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from surgeon.families.family import Family, SiteTemplate, layers_of
from surgeon.families.sites import Kind

_GPT_NORMS = ("ln_1", "ln_2")
_CROSS_NORMS = (*_GPT_NORMS, "ln_cross_attn")
TWO_NORMS = ("input_layernorm", "post_attention_layernorm")
_QK_NORMS = ("self_attn.q_norm", "self_attn.k_norm")
_QK_LAYERNORMS = ("self_attn.q_layernorm", "self_attn.k_layernorm")
_LATENT_NORMS = ("self_attn.q_a_layernorm", "self_attn.kv_a_layernorm")
_QUERY_NORMS = ("self_attn.query_layernorm", "self_attn.key_layernorm")
FAIRSEQ_NORMS = ("final_layer_norm", "self_attn_layer_norm", "encoder_attn_layer_norm")

_gpt = partial(layers_of, "dense", "h", final="ln_f")
_layers = partial(layers_of, "dense", "layers")
_GPT_2 = _gpt("mlp.c_proj", "attn.c_proj", "crossattention.c_proj", axis=1)
_GPT_BIGCODE = _gpt("mlp.c_proj", "attn.c_proj", "crossattention.c_proj")
_GPT_NEO = _gpt("mlp.c_proj", "attn.attention.out_proj")
_GPT_J = _gpt("mlp.fc_out", "attn.out_proj")
_GPT_NEOX = _layers("mlp.dense_4h_to_h", "attention.dense", final="final_layer_norm")
_PERSIMMON = _layers("mlp.dense_4h_to_h", "self_attn.dense", final="final_layernorm")
_OPT = layers_of(
    "dense", "decoder.layers", "fc2", "self_attn.out_proj", final="decoder.final_layer_norm"
)
_OPT_POST_NORM = layers_of(
    "layernorm", "decoder.layers", "final_layer_norm", "self_attn_layer_norm"
)
_XGLM = _layers("fc2", "self_attn.out_proj", "encoder_attn.out_proj", final="layer_norm")
_BLOOM = _gpt("mlp.dense_4h_to_h", "self_attention.dense", embeddings="word_embeddings_layernorm")
_MPT = layers_of("dense", "blocks", "ffn.down_proj", "attn.out_proj", final="norm_f")
_PHI = _layers("mlp.fc2", "self_attn.dense", final="final_layernorm")
_STARCODER_2 = _layers("mlp.c_proj", "self_attn.o_proj", final="norm")


def _decoder(
    name: str,
    model_type: str,
    templates: tuple[SiteTemplate, ...],
    *inner_norms: str,
    **when: tuple[object, ...],
) -> Family:
    return Family(name, (model_type,), templates, "clm", inner_norms=inner_norms, when=when)


DECODERS: tuple[Family, ...] = (
    _decoder("GPT-2", "gpt2", _GPT_2, *_CROSS_NORMS),
    # The first GPT is post-norm.
    _decoder("GPT", "openai-gpt", layers_of("layernorm", "h", "ln_2", "ln_1")),
    _decoder("GPT-BigCode", "gpt_bigcode", _GPT_BIGCODE, *_CROSS_NORMS),
    _decoder("GPT-Neo", "gpt_neo", _GPT_NEO, *_GPT_NORMS),
    _decoder("GPT-J", "gptj", _GPT_J, "ln_1"),
    _decoder("CodeGen", "codegen", _GPT_J, "ln_1"),
    _decoder("GPT-NeoX", "gpt_neox", _GPT_NEOX, *TWO_NORMS),
    _decoder("Persimmon", "persimmon", _PERSIMMON, *TWO_NORMS, *_QK_LAYERNORMS),
    _decoder("OPT", "opt", _OPT, *FAIRSEQ_NORMS, do_layer_norm_before=(True, None)),
    # OPT-350m, alone of its series, is post-norm.
    _decoder("OPT", "opt", _OPT_POST_NORM, do_layer_norm_before=(False,)),
    _decoder("XGLM", "xglm", _XGLM, *FAIRSEQ_NORMS),
    _decoder("BioGPT", "biogpt", _XGLM, *FAIRSEQ_NORMS),
    _decoder("BLOOM", "bloom", _BLOOM, *TWO_NORMS),
    _decoder("Falcon", "falcon", _BLOOM, *TWO_NORMS, "ln_attn", "ln_mlp"),
    _decoder("MPT", "mpt", _MPT, "norm_1", "norm_2"),
    _decoder("Phi", "phi", _PHI, "input_layernorm", *_QK_LAYERNORMS),
    _decoder("StarCoder2", "starcoder2", _STARCODER_2, *TWO_NORMS),
)


_llama_layers = partial(_layers, "mlp.down_proj", "self_attn.o_proj")
_LLAMA = _llama_layers(final="norm", norm="rmsnorm")
# EXAONE is a Llama by other names, but in memory.
_EXAONE = (*_gpt("mlp.c_proj", "attn.attention.out_proj", norm="rmsnorm"), *_LLAMA)
_GEMMA = _llama_layers(final="norm", norm="rmsnorm", gain_offset=1.0)
_APERTUS_NORMS = ("attention_layernorm", "feedforward_layernorm", *_QK_NORMS)
_ESM_C = _llama_layers(final="norm")
# Since Gemma 2 there is one more norm between the output dense layer and the stream, and OLMo 2 has
# that one alone, on what a block gives.
_normed_layers = partial(layers_of, "rmsnorm", "layers", final="norm", norm="rmsnorm")
_OLMO_2 = _normed_layers("post_feedforward_layernorm", "post_attention_layernorm")
_GEMMA_2 = _normed_layers("post_feedforward_layernorm", "post_attention_layernorm", gain_offset=1.0)
_GEMMA_2_NORMS = ("input_layernorm", "pre_feedforward_layernorm", *_QK_NORMS)
# With embeddings of each layer, one more block comes after the feed-forward one.
_GEMMA_4 = _normed_layers(
    "post_per_layer_input_norm", "post_attention_layernorm", "post_feedforward_layernorm"
)
_GEMMA_3N_NORMS = (
    *(*_GEMMA_2_NORMS, "post_per_layer_input_norm"),
    *("altup.router_norm", "laurel.post_laurel_norm"),
)
_AFMOE = _normed_layers("post_mlp_layernorm", "post_attention_layernorm")
_GLM_4 = _normed_layers("post_mlp_layernorm", "post_self_attn_layernorm")

_ATTENTION = SiteTemplate("attention", "dense", "layers.{layer}.self_attn.o_proj")
_LAYERNORM = SiteTemplate("final", "layernorm", "norm")
_RMSNORM = SiteTemplate("final", "rmsnorm", "norm")
_RMSNORM_1P = SiteTemplate("final", "rmsnorm", "norm", gain_offset=1.0)
# In hybrids most layers have an attention that is linear in the length.
_HYBRID = (
    SiteTemplate("attention", "dense", "layers.{layer}.self_attn.o_proj", among="full"),
    SiteTemplate("attention", "dense", "layers.{layer}.linear_attn.out_proj", among="linear"),
    _RMSNORM_1P,
)
_HYBRID_NORMS = (*TWO_NORMS, *_QK_NORMS, "linear_attn.norm")
# The block that predicts more than one token ahead.
_MORE_TOKENS = "mtp."


def _llama(
    name: str, *model_types: str, norms: tuple[str, ...] = (*TWO_NORMS, *_QK_NORMS)
) -> Family:
    return Family(name, model_types, _LLAMA, "clm", inner_norms=norms)


def _other_norm(name: str, *model_types: str, norm: Kind, gain_offset: float = 0.0) -> Family:
    """A Llama whose final norm is of another kind, or multiplies by 1 + what it stores."""
    templates = _llama_layers(final="norm", norm=norm, gain_offset=gain_offset)
    return Family(name, model_types, templates, "clm", inner_norms=(*TWO_NORMS, *_QK_NORMS))


def _hybrid(name: str, model_type: str, ends: tuple[SiteTemplate, ...]) -> Family:
    templates, norms = (*ends, *_HYBRID), _HYBRID_NORMS
    return Family(name, (model_type,), templates, "clm", inner_norms=norms, unused=_MORE_TOKENS)


def _olmo_2(name: str, model_type: str) -> Family:
    return Family(name, (model_type,), _OLMO_2, "clm", inner_norms=_QK_NORMS)


LLAMAS: tuple[Family, ...] = (
    _llama("Llama", "llama"),
    _llama("Mistral", "mistral"),
    _llama("Ministral", "ministral", "ministral3"),
    _llama("Qwen2", "qwen2"),
    _llama("Qwen3", "qwen3"),
    _llama("Qwen2-VL", "qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text"),
    _llama("Qwen3-VL", "qwen3_vl", "qwen3_vl_text"),
    _llama("Qwen2.5-Omni", "qwen2_5_omni_text"),
    _llama("Phi-3", "phi3"),
    _llama("Phi-4-multimodal", "phi4_multimodal"),
    _llama("Voxtral Realtime", "voxtral_realtime_text"),
    _decoder("EXAONE", "exaone", _EXAONE, *_GPT_NORMS, *TWO_NORMS),
    _llama("SmolLM3", "smollm3"),
    _llama("Granite", "granite", "granite_swa", "granite_docling_text"),
    _llama("Arcee", "arcee"),
    _llama("Seed-OSS", "seed_oss"),
    _llama("ERNIE 4.5", "ernie4_5", "paddleocr_vl_text"),
    _llama("Helium", "helium"),
    _llama("GLM", "glm"),
    _llama("CWM", "cwm"),
    _llama("InternLM3", "internlm3"),
    _llama("IQuest-Coder", "iquestcoder"),
    _llama("BitNet", "bitnet", norms=(*TWO_NORMS, "self_attn.attn_sub_norm", "mlp.ffn_sub_norm")),
    _llama("MiniCPM3", "minicpm3", norms=(*TWO_NORMS, *_LATENT_NORMS)),
    _llama("Youtu-LLM", "youtu", norms=(*TWO_NORMS, *_LATENT_NORMS)),
    _decoder("nanochat", "nanochat", _layers("mlp.fc2", "self_attn.o_proj")),  # as OLMo's
    _llama("Hunyuan", "hunyuan_v1_dense", "hunyuan_vl_text", norms=(*TWO_NORMS, *_QUERY_NORMS)),
    _llama("Apertus", "apertus", "apertus1p5_text", norms=_APERTUS_NORMS),
    _other_norm("Gemma", "gemma", norm="rmsnorm", gain_offset=1.0),
    _decoder("VaultGemma", "vaultgemma", _GEMMA, "input_layernorm", "pre_feedforward_layernorm"),
    _other_norm("Jais 2", "jais2", norm="layernorm"),
    _other_norm("StableLM", "stablelm", norm="layernorm"),
    _other_norm("Cohere", "cohere", "cohere2", norm="layernorm"),
    _other_norm("Nemotron", "nemotron", norm="layernorm", gain_offset=1.0),
    # Encoders in a Llama's clothes.
    Family("EuroBERT", ("eurobert",), _LLAMA, "mlm", ("lm_head.",), inner_norms=TWO_NORMS),
    Family("ESM C", ("esmc",), _ESM_C, "mlm", ("lm_head.",), inner_norms=(*TWO_NORMS, *_QK_NORMS)),
    Family("OLMo", ("olmo",), _llama_layers(), "clm"),  # its norms have no gain and no bias
    # The last operation of a layer is a norm, on what is added to the stream.
    _olmo_2("OLMo 2", "olmo2"),
    _olmo_2("OLMo 3", "olmo3"),
    _olmo_2("EXAONE 4", "exaone4"),
    Family("GLM-4", ("glm4", "glm4v_text", "glm_ocr_text"), _GLM_4, "clm", inner_norms=TWO_NORMS),
    Family("Gemma 2", ("gemma2",), _GEMMA_2, "clm", inner_norms=_GEMMA_2_NORMS),
    Family("Gemma 3", ("gemma3_text", "gemma3"), _GEMMA_2, "clm", inner_norms=_GEMMA_2_NORMS),
    _decoder("Gemma 4", "gemma4_text", _OLMO_2, *_GEMMA_2_NORMS, hidden_size_per_layer_input=(0,)),
    _decoder("Gemma 4", "gemma4_text", _GEMMA_4, *_GEMMA_2_NORMS),
    _decoder("Gemma 4", "gemma4_unified_text", _OLMO_2, *_GEMMA_2_NORMS),
    # The embeddings of each layer go to the three streams beside the one that layers work on.
    _decoder("Gemma 3n", "gemma3n_text", _OLMO_2, *_GEMMA_3N_NORMS),
    _olmo_2("FlexOlmo", "flex_olmo"),
    _decoder("AFMoE", "afmoe", _AFMOE, "input_layernorm", "pre_mlp_layernorm", *_QK_NORMS),
    _hybrid("Qwen3.5", "qwen3_5_text", _layers("mlp.down_proj")),
)


_EXPERTS = ("experts.{expert}", "experts", "shared_expert", "shared_experts", "shared_mlp")


def expert_layers(
    block: str, *parts: str, end: str = "down_proj", axis: int = 1, path: str = "layers"
) -> tuple[SiteTemplate, ...]:
    """What ends layers with experts, and those without.

    ``axis`` is that of the dimension in what holds all experts of a layer: (experts, hidden, inner)
    or (experts, inner, hidden).
    """
    return (
        *(
            SiteTemplate(
                "output",
                "dense",
                f"{path}.{{layer}}.{block}.{part}.{end}",
                axis=axis if part.rpartition(".")[2] == "experts" else 0,
                among="experts",
            )
            for part in parts
        ),
        SiteTemplate("output", "dense", f"{path}.{{layer}}.{block}.{end}", among="dense"),
    )


_QWEN_MOE = expert_layers("mlp", *_EXPERTS)
_GRANITE_EXPERTS = (
    *expert_layers("block_sparse_moe", "experts"),  # in memory
    SiteTemplate(
        "output", "dense", "layers.{layer}.block_sparse_moe.output_linear", axis=1, among="experts"
    ),
    SiteTemplate("output", "dense", "layers.{layer}.shared_mlp.output_linear", among="experts"),
)
_JOINED = expert_layers("mlp", "experts", axis=2)
_LLAMA_4 = expert_layers("feed_forward", "experts", "shared_expert", axis=2)
_MIXTRAL = (
    *expert_layers("block_sparse_moe", "experts.{expert}", end="w2"),
    *expert_layers("mlp", "experts"),  # in memory
    _ATTENTION,
)
_SPARSE_NORMS = (*_LATENT_NORMS, "self_attn.indexer.k_norm")
_KIMI_LINEAR = (
    *expert_layers("block_sparse_moe", "experts.{expert}", end="w2"),
    *expert_layers("block_sparse_moe", "shared_experts"),
    *expert_layers("mlp", "experts", "shared_experts"),  # in memory, and layers without experts
)
# In memory those of images, which are narrower, are apart.
_ERNIE_VL = expert_layers("mlp", *_EXPERTS, "text_moe.experts", "vision_moe.experts")
_BAILING = (
    SiteTemplate("attention", "dense", "layers.{layer}.attention.dense", among="full"),
    SiteTemplate("attention", "dense", "layers.{layer}.attention.o_proj", among="linear"),
    _ATTENTION,  # in memory
)
_IN_ATTENTION = ("q_a_layernorm", "kv_a_layernorm", "o_norm", "query_layernorm", "key_layernorm")
_BAILING_NORMS = tuple(f"{of}.{n}" for of in ("attention", "self_attn") for n in _IN_ATTENTION)
_ARIA = (
    *expert_layers("mlp", "experts", "shared_experts", axis=2),
    *expert_layers("mlp", "experts", end="fc2", axis=2),  # in the file
)


def _mixture(
    name: str,
    model_type: str,
    norms: tuple[str, ...] = _QK_NORMS,
    ends: tuple[SiteTemplate, ...] = _QWEN_MOE,
    unused: str = "",
) -> Family:
    templates, inner_norms = (*ends, _ATTENTION, _RMSNORM), (*TWO_NORMS, *norms)
    return Family(name, (model_type,), templates, "clm", inner_norms=inner_norms, unused=unused)


def _bailing(name: str, model_type: str) -> Family:
    templates = (*_QWEN_MOE, *_BAILING, _RMSNORM)
    return _decoder(name, model_type, templates, *TWO_NORMS, *_BAILING_NORMS)


MIXTURES: tuple[Family, ...] = (
    _decoder("Mixtral", "mixtral", (*_MIXTRAL, _RMSNORM), *TWO_NORMS),
    _decoder("Phi-3.5-MoE", "phimoe", (*_MIXTRAL, _LAYERNORM), *TWO_NORMS),
    _decoder("MiniMax-M2", "minimax_m2", (*_MIXTRAL, _RMSNORM), *TWO_NORMS, *_QK_NORMS),
    _mixture("Qwen2-MoE", "qwen2_moe"),
    _mixture("Qwen3-MoE", "qwen3_moe"),
    _mixture("OLMoE", "olmoe"),
    _mixture("DeepSeek-V2", "deepseek_v2", _LATENT_NORMS),
    _mixture("DeepSeek-V3", "deepseek_v3", _LATENT_NORMS),
    _mixture("Kimi K2", "kimi_k2", _LATENT_NORMS),
    _mixture("DeepSeek-V3.2", "deepseek_v32", _SPARSE_NORMS),
    _mixture("GLM-4-MoE", "glm4_moe"),
    _mixture("GLM-4-MoE", "glm4_moe_lite", _LATENT_NORMS),
    _mixture("GLM-4-MoE", "glm4v_moe_text"),
    _mixture("GLM-5", "glm_moe_dsa", _SPARSE_NORMS),
    _mixture("dots.llm1", "dots1"),
    _mixture("ERNIE 4.5 MoE", "ernie4_5_moe"),
    _mixture("Hunyuan-MoE", "hunyuan_v1_moe", _QUERY_NORMS),
    _mixture("Solar Open", "solar_open"),
    _mixture("Mistral 4", "mistral4", _LATENT_NORMS),
    _mixture("Hy3", "hy_v3"),
    _mixture("Laguna", "laguna"),
    _mixture("MiMo-V2-Flash", "mimo_v2_flash"),
    _mixture("Mellum", "mellum"),
    _mixture("Qwen3-Omni", "qwen3_omni_moe_text"),
    _mixture("Kimi Linear", "kimi_linear", (*_LATENT_NORMS, "self_attn.o_norm"), _KIMI_LINEAR),
    _mixture("ERNIE 4.5 VL MoE", "ernie4_5_vl_moe_text", (), _ERNIE_VL),
    _mixture("EXAONE MoE", "exaone_moe", unused=_MORE_TOKENS),
    _decoder("Cohere 2 MoE", "cohere2_moe", (*_QWEN_MOE, _ATTENTION, _LAYERNORM), *TWO_NORMS),
    _bailing("Bailing (Ling)", "bailing_hybrid"),
    _bailing("Sarvam", "sarvam_moe"),
    _mixture("Sarvam", "sarvam_mla", _LATENT_NORMS),
    _hybrid("Qwen3-Next", "qwen3_next", _QWEN_MOE),
    # All experts of a layer are in one tensor.
    _hybrid("Qwen3.5-MoE", "qwen3_5_moe_text", _QWEN_MOE),
    _mixture("Qwen3-VL-MoE", "qwen3_vl_moe_text", ends=_JOINED),
    _mixture("gpt-oss", "gpt_oss", (), _JOINED),
    replace(
        _mixture("OpenAI Privacy Filter", "openai_privacy_filter", (), _JOINED), objective="drift"
    ),
    _mixture("Llama 4", "llama4_text", (), _LLAMA_4),
    _mixture("Aria", "aria_text", (), _ARIA),
    _mixture("Granite-MoE", "granitemoe", (), _GRANITE_EXPERTS),
    _mixture("Granite-MoE", "granitemoeshared", (), _GRANITE_EXPERTS),
    _mixture("Granite-MoE", "granitemoe_swa", (), _GRANITE_EXPERTS),
)


_LFM_2 = (
    *expert_layers("feed_forward", "experts.{expert}", end="w2"),
    *expert_layers("feed_forward", "experts"),  # in memory
    SiteTemplate("attention", "dense", "layers.{layer}.self_attn.out_proj", among="full"),
    SiteTemplate("attention", "dense", "layers.{layer}.conv.out_proj", among="convolution"),
    SiteTemplate("final", "rmsnorm", "embedding_norm"),
)
_LFM_2_NORMS = ("operator_norm", "ffn_norm", *_QK_LAYERNORMS)
# A layer is one block: of Mamba, of attention or a feed-forward one.
_MAMBA = _layers("mixer.out_proj", final="norm_f", norm="rmsnorm")
_NEMOTRON_H = (
    *expert_layers("mixer", "experts.{expert}", "experts", "shared_experts"),
    SiteTemplate("output", "dense", "layers.{layer}.mixer.out_proj", among="Mamba"),
    SiteTemplate("output", "dense", "layers.{layer}.mixer.o_proj", among="attention"),
    SiteTemplate("final", "rmsnorm", "norm_f"),
)
_MAMBA_NORMS = ("norm", "mixer.norm")
_MLLAMA = (
    *_layers("mlp.down_proj", final="norm", norm="rmsnorm"),
    SiteTemplate("attention", "dense", "layers.{layer}.self_attn.o_proj", among="text"),
    SiteTemplate("attention", "dense", "layers.{layer}.cross_attn.o_proj", among="images"),
)
_CROSS_QK_NORMS = ("cross_attn.q_norm", "cross_attn.k_norm")
_MAMBA_OR_ATTENTION = (
    SiteTemplate("attention", "dense", "layers.{layer}.mamba.out_proj", among="Mamba"),
    SiteTemplate("attention", "dense", "layers.{layer}.self_attn.o_proj", among="attention"),
)
_hybrid_layers = partial(_layers, norm="rmsnorm")
_BAMBA = (*_hybrid_layers("feed_forward.down_proj", final="final_layernorm"), *_MAMBA_OR_ATTENTION)
_GRANITE_4 = (*_GRANITE_EXPERTS, *_MAMBA_OR_ATTENTION, _RMSNORM)
_FALCON_H1 = _hybrid_layers(
    "feed_forward.down_proj", "self_attn.o_proj", "mamba.out_proj", final="final_layernorm"
)
_JAMBA = (
    *expert_layers("feed_forward", "experts.{expert}", "experts"),
    *_MAMBA_OR_ATTENTION,
    SiteTemplate("final", "rmsnorm", "final_layernorm"),
)
_TEMPORAL = "layers.{layer}.temporal_block."
_RECURRENT_GEMMA = (
    *_hybrid_layers("mlp_block.down_proj", final="final_norm", gain_offset=1.0),
    SiteTemplate("attention", "dense", f"{_TEMPORAL}o_proj", among="attention"),
    SiteTemplate("attention", "dense", f"{_TEMPORAL}linear_out", among="recurrent"),
)
_GRIFFIN_NORMS = ("temporal_pre_norm", "channel_pre_norm")
# The block of attention that layers share adds to what their Mamba reads, not to the stream.
_ZAMBA = (
    SiteTemplate("output", "dense", "layers.{layer}.mamba.out_proj", among="Mamba"),
    SiteTemplate("output", "dense", "layers.{layer}.mamba_decoder.mamba.out_proj", among="both"),
    SiteTemplate("final", "rmsnorm", "final_layernorm"),
)
_BAMBA_NORMS = ("input_layernorm", "pre_ff_layernorm", "mamba.norm")
_JAMBA_NORMS = tuple(f"mamba.{of}_layernorm" for of in ("dt", "b", "c"))

HYBRIDS: tuple[Family, ...] = (
    _decoder("LFM2", "lfm2", _LFM_2, *_LFM_2_NORMS),
    _decoder("LFM2-MoE", "lfm2_moe", _LFM_2, *_LFM_2_NORMS),
    _decoder("Mllama", "mllama_text_model", _MLLAMA, *TWO_NORMS, *_CROSS_QK_NORMS),
    _decoder("Mamba", "mamba", _MAMBA, *_MAMBA_NORMS),
    _decoder("Mamba 2", "mamba2", _MAMBA, *_MAMBA_NORMS),
    _decoder("Falcon Mamba", "falcon_mamba", _MAMBA, *_MAMBA_NORMS),
    # Where the experts are narrower than the stream, one more dense layer comes after them.
    Family(
        "Nemotron-H",
        ("nemotron_h",),
        _NEMOTRON_H,
        "clm",
        inner_norms=_MAMBA_NORMS,
        when={"moe_latent_size": (None,)},
        unused=_MORE_TOKENS,
    ),
    _decoder("Bamba", "bamba", _BAMBA, *_BAMBA_NORMS),
    _decoder("Falcon-H1", "falcon_h1", _FALCON_H1, *_BAMBA_NORMS),
    _decoder("Granite 4", "granitemoehybrid", _GRANITE_4, *TWO_NORMS, "mamba.norm"),
    _decoder("Zamba", "zamba", _ZAMBA),
    _decoder("Zamba 2", "zamba2", _ZAMBA),
    _decoder("RecurrentGemma", "recurrent_gemma", _RECURRENT_GEMMA, *_GRIFFIN_NORMS),
    _decoder("Jamba", "jamba", _JAMBA, *_BAMBA_NORMS, *_JAMBA_NORMS),
)
