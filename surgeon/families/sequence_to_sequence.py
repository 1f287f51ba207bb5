"""Encoder-decoders: BART and its kin, mBART and its kin, T5 and its kin."""

from __future__ import annotations

from surgeon.families.family import Family
from surgeon.families.sites import SiteTemplate, under


def _both(templates: tuple[SiteTemplate, ...]) -> tuple[SiteTemplate, ...]:
    return under("encoder", "encoder", templates) + under("decoder", "decoder", templates)


_BART = _both(
    (
        SiteTemplate("output", "layernorm", "layers.{layer}.final_layer_norm"),
        SiteTemplate("attention", "layernorm", "layers.{layer}.self_attn_layer_norm"),
        SiteTemplate("attention", "layernorm", "layers.{layer}.encoder_attn_layer_norm"),
        SiteTemplate("embeddings", "layernorm", "layernorm_embedding"),
    )
)
# BART's modules in another order: the norms of its layers' names come before the blocks here.
_MBART = _both(
    (
        SiteTemplate("output", "dense", "layers.{layer}.fc2"),
        SiteTemplate("attention", "dense", "layers.{layer}.self_attn.out_proj"),
        SiteTemplate("attention", "dense", "layers.{layer}.encoder_attn.out_proj"),
        SiteTemplate("embeddings", "layernorm", "layernorm_embedding"),
        SiteTemplate("final", "layernorm", "layer_norm"),
    )
)
_MBART_NORMS = ("final_layer_norm", "self_attn_layer_norm", "encoder_attn_layer_norm")
# Their heads are their embeddings, so that every checkpoint has one (facebook/bart-base, which
# fills in blanks, declares a BartModel).
_SHARED_EMBEDDING = ("shared.", "embed_tokens.")
_T5 = _both(
    (
        SiteTemplate("output", "dense", "block.{layer}.layer.1.DenseReluDense.wo"),
        SiteTemplate(
            "output", "dense", "block.{layer}.layer.2.DenseReluDense.wo"
        ),  # of the decoder
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


def _bart(name: str, *model_types: str) -> Family:
    return Family(name, model_types, _BART, "denoising", head=_SHARED_EMBEDDING)


def _mbart(name: str, *model_types: str) -> Family:
    return Family(
        name,
        model_types,
        _MBART,
        "denoising",
        head=_SHARED_EMBEDDING,
        inner_norms=_MBART_NORMS,
    )


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
    Family("Whisper", ("whisper",), _MBART, "drift", inner_norms=_MBART_NORMS),
    Family("Speech2Text", ("speech_to_text",), _MBART, "drift", inner_norms=_MBART_NORMS),
    _t5("T5", "t5", "mt5"),
    _t5("UMT5", "umt5"),
    _t5("LongT5", "longt5"),
)
