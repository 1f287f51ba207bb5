"""Encoder-decoders: BART, mBART, T5 and their kin, of text and sound."""

from __future__ import annotations

from functools import partial

from surgeon.families.decoders import FAIRSEQ_NORMS, TWO_NORMS, expert_layers
from surgeon.families.family import Family, Objective, SiteTemplate, layers_of, under

_layers = partial(layers_of, "dense", "layers")


def _both(templates: tuple[SiteTemplate, ...]) -> tuple[SiteTemplate, ...]:
    return under("encoder", "encoder", templates) + under("decoder", "decoder", templates)


_BART = _both(layers_of("layernorm", "layers", *FAIRSEQ_NORMS, embeddings="layernorm_embedding"))
# BART's modules in another order: the norms of its layers' names come before the blocks here.
_MBART = _both(
    _layers(
        "fc2",
        "self_attn.out_proj",
        "encoder_attn.out_proj",
        embeddings="layernorm_embedding",
        final="layer_norm",
    )
)
# Their heads are their embeddings, so that every checkpoint has one (facebook/bart-base, which
# fills in blanks, declares a BartModel).
_SHARED_EMBEDDING = ("shared.", "embed_tokens.")
# BART's names, but the norms are before the blocks, and what is called that of the embeddings last.
_comes_last = partial(_layers, "fc2", final="layernorm_embedding")
_BIGBIRD_PEGASUS = (
    *under("encoder", "encoder", _comes_last("self_attn.output")),
    *under("decoder", "decoder", _comes_last("self_attn.out_proj", "encoder_attn.out_proj")),
)
_T5_ATTENTION = (
    SiteTemplate("attention", "dense", "block.{layer}.layer.0.SelfAttention.o"),
    # Of LongT5's encoder, one or the other.
    SiteTemplate("attention", "dense", "block.{layer}.layer.0.LocalSelfAttention.o"),
    SiteTemplate("attention", "dense", "block.{layer}.layer.0.TransientGlobalSelfAttention.o"),
    SiteTemplate("attention", "dense", "block.{layer}.layer.1.EncDecAttention.o"),
    SiteTemplate("final", "rmsnorm", "final_layer_norm"),
)
_T5 = _both(
    (
        SiteTemplate("output", "dense", "block.{layer}.layer.1.DenseReluDense.wo"),
        # Of the decoder.
        SiteTemplate("output", "dense", "block.{layer}.layer.2.DenseReluDense.wo"),
        *_T5_ATTENTION,
    )
)
_EXPERT = "experts.expert_{expert}"
_SWITCH = _both(
    (
        *expert_layers("layer.1.mlp", _EXPERT, end="wo", path="block"),
        *expert_layers("layer.2.mlp", _EXPERT, end="wo", path="block"),
        *_T5_ATTENTION,
    )
)
_NLLB_MOE = _both(
    (
        *expert_layers("ffn", _EXPERT, end="fc2"),
        SiteTemplate("attention", "dense", "layers.{layer}.self_attn.out_proj"),
        SiteTemplate("attention", "dense", "layers.{layer}.cross_attention.out_proj"),
        SiteTemplate("final", "layernorm", "layer_norm"),
    )
)
_moonshine_layers = partial(_layers, "mlp.fc2", "self_attn.o_proj", "encoder_attn.o_proj")
_MOONSHINE = (
    *under("encoder", "encoder", _moonshine_layers(final="layer_norm")),
    *under("decoder", "decoder", _moonshine_layers(final="norm")),
)
_PROPHETNET = _both(
    layers_of(
        "layernorm",
        "layers",
        "feed_forward_layer_norm",
        "self_attn_layer_norm",
        "cross_attn_layer_norm",
        embeddings="embeddings_layer_norm",
    )
)
# Gemma 2's layers. The decoder's cross-attention is a block of its own in the first version alone.
_T5GEMMA_STACK = layers_of(
    "rmsnorm",
    "layers",
    "post_feedforward_layernorm",
    "post_self_attn_layernorm",
    "post_cross_attn_layernorm",
    final="norm",
    norm="rmsnorm",
    gain_offset=1.0,
)
# The second version's name in memory is the last.
_T5GEMMA = (*_both(_T5GEMMA_STACK), *under("encoder.text_model", "encoder", _T5GEMMA_STACK))
_T5GEMMA_NORMS = (
    "pre_self_attn_layernorm",
    "pre_cross_attn_layernorm",
    "pre_feedforward_layernorm",
    "self_attn.q_norm",
    "self_attn.k_norm",
)
_PRE_NORMS = (
    *(*FAIRSEQ_NORMS, "global_self_attn_layer_norm", "cross_attention_layer_norm", "ff_layer_norm"),
    *(*TWO_NORMS, "final_layernorm"),
)
_T5_NORMS = (
    "layer.0.layer_norm",
    "layer.1.layer_norm",
    "layer.2.layer_norm",
    "layer.0.TransientGlobalSelfAttention.global_input_layer_norm",
)


def _bart(name: str, model_type: str) -> Family:
    return Family(name, (model_type,), _BART, "denoising", _SHARED_EMBEDDING)


def _mbart(
    name: str,
    model_type: str,
    objective: Objective = "denoising",
    templates: tuple[SiteTemplate, ...] = _MBART,
) -> Family:
    head = _SHARED_EMBEDDING if objective == "denoising" else ()
    return Family(name, (model_type,), templates, objective, head, inner_norms=_PRE_NORMS)


def _t5(name: str, *model_types: str, templates: tuple[SiteTemplate, ...] = _T5) -> Family:
    return Family(name, model_types, templates, "denoising", inner_norms=_T5_NORMS)


SEQUENCE_TO_SEQUENCE: tuple[Family, ...] = (
    # Post-norm: the last operation of a layer is a LayerNorm.
    _bart("BART", "bart"),
    _bart("LED", "led"),
    _bart("Marian", "marian"),
    _bart("Blenderbot Small", "blenderbot-small"),
    _bart("MVP", "mvp"),
    _bart("PLBART", "plbart"),
    _bart("FSMT", "fsmt"),
    Family("ProphetNet", ("prophetnet",), _PROPHETNET, "denoising"),
    Family("T5Gemma", ("t5gemma", "t5gemma2"), _T5GEMMA, "denoising", inner_norms=_T5GEMMA_NORMS),
    # Pre-norm: it is the output dense layer.
    _mbart("mBART", "mbart"),
    _mbart("M2M-100", "m2m_100"),
    _mbart("NLLB-MoE", "nllb-moe", templates=_NLLB_MOE),
    _mbart("Pegasus", "pegasus"),
    _mbart("Blenderbot", "blenderbot"),
    _mbart("BigBird-Pegasus", "bigbird_pegasus", templates=_BIGBIRD_PEGASUS),
    _mbart("Pegasus-X", "pegasus_x"),
    _mbart("Whisper", "whisper", "drift"),
    _mbart("Speech2Text", "speech_to_text", "drift"),
    _mbart("Moonshine", "moonshine", "drift", _MOONSHINE),
    _t5("T5", "t5", "mt5"),
    _t5("UMT5", "umt5"),
    _t5("Switch Transformers", "switch_transformers", templates=_SWITCH),
    _t5("LongT5", "longt5"),
    Family("UDOP", ("udop",), _T5, "drift", inner_norms=_T5_NORMS),
)
