"""Encoder-decoders: BART and its kin, mBART and its kin, T5 and its kin."""

from __future__ import annotations

from surgeon.families.family import Family, Objective, SiteTemplate, layers_of, under


def _both(templates: tuple[SiteTemplate, ...]) -> tuple[SiteTemplate, ...]:
    return under("encoder", "encoder", templates) + under("decoder", "decoder", templates)


_BART = _both(
    layers_of(
        "layernorm",
        "layers",
        "final_layer_norm",
        "self_attn_layer_norm",
        "encoder_attn_layer_norm",
        embeddings="layernorm_embedding",
    )
)
# BART's modules in another order: the norms of its layers' names come before the blocks here.
_MBART = _both(
    layers_of(
        "dense",
        "layers",
        "fc2",
        "self_attn.out_proj",
        "encoder_attn.out_proj",
        embeddings="layernorm_embedding",
        final="layer_norm",
    )
)
_MBART_NORMS = ("final_layer_norm", "self_attn_layer_norm", "encoder_attn_layer_norm")
# Their heads are their embeddings, so that every checkpoint has one (facebook/bart-base, which
# fills in blanks, declares a BartModel).
_SHARED_EMBEDDING = ("shared.", "embed_tokens.")
_T5 = _both(
    (
        SiteTemplate("output", "dense", "block.{layer}.layer.1.DenseReluDense.wo"),
        # Of the decoder.
        SiteTemplate("output", "dense", "block.{layer}.layer.2.DenseReluDense.wo"),
        SiteTemplate("attention", "dense", "block.{layer}.layer.0.SelfAttention.o"),
        # Of LongT5's encoder, one or the other.
        SiteTemplate("attention", "dense", "block.{layer}.layer.0.LocalSelfAttention.o"),
        SiteTemplate("attention", "dense", "block.{layer}.layer.0.TransientGlobalSelfAttention.o"),
        SiteTemplate("attention", "dense", "block.{layer}.layer.1.EncDecAttention.o"),
        SiteTemplate("final", "rmsnorm", "final_layer_norm"),
    )
)
_T5_NORMS = (
    "layer.0.layer_norm",
    "layer.1.layer_norm",
    "layer.2.layer_norm",
    "layer.0.TransientGlobalSelfAttention.global_input_layer_norm",
)


def _bart(name: str, model_type: str) -> Family:
    return Family(name, (model_type,), _BART, "denoising", _SHARED_EMBEDDING)


def _mbart(name: str, model_type: str, objective: Objective = "denoising") -> Family:
    head = _SHARED_EMBEDDING if objective == "denoising" else ()
    return Family(name, (model_type,), _MBART, objective, head, inner_norms=_MBART_NORMS)


def _t5(name: str, *model_types: str) -> Family:
    return Family(name, model_types, _T5, "denoising", inner_norms=_T5_NORMS)


SEQUENCE_TO_SEQUENCE: tuple[Family, ...] = (
    # Post-norm: the last operation of a layer is a LayerNorm.
    _bart("BART", "bart"),
    _bart("LED", "led"),
    _bart("Marian", "marian"),
    _bart("Blenderbot Small", "blenderbot-small"),
    _bart("MVP", "mvp"),
    _bart("PLBART", "plbart"),
    # Pre-norm: it is the output dense layer.
    _mbart("mBART", "mbart"),
    _mbart("M2M-100", "m2m_100"),
    _mbart("Pegasus", "pegasus"),
    _mbart("Blenderbot", "blenderbot"),
    _mbart("Whisper", "whisper", "drift"),
    _mbart("Speech2Text", "speech_to_text", "drift"),
    _t5("T5", "t5", "mt5"),
    _t5("UMT5", "umt5"),
    _t5("LongT5", "longt5"),
)
