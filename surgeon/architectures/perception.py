"""Encoders of images and of sound, and towers of text beside towers of images."""

from __future__ import annotations

from surgeon.architectures.family import Family
from surgeon.architectures.placing import under
from surgeon.architectures.sites import SiteTemplate

_VIT = (
    SiteTemplate("output", "dense", "encoder.layer.{layer}.output.dense"),
    SiteTemplate("attention", "dense", "encoder.layer.{layer}.attention.output.dense"),
    SiteTemplate("final", "layernorm", "layernorm"),
)
_VIT_NORMS = ("layernorm_before", "layernorm_after")
_CLIP = (
    SiteTemplate("output", "dense", "encoder.layers.{layer}.mlp.fc2"),
    SiteTemplate("attention", "dense", "encoder.layers.{layer}.self_attn.out_proj"),
    SiteTemplate("embeddings", "layernorm", "pre_layrnorm"),  # sic
    SiteTemplate("final", "layernorm", "final_layer_norm"),  # of the text tower
    SiteTemplate("final", "layernorm", "post_layernorm"),  # of the vision tower
)
_CLIP_NORMS = ("layer_norm1", "layer_norm2")
_TWO_TOWERS = under("text_model", "text", _CLIP) + under("vision_model", "vision", _CLIP)


def _vit(name: str, *model_types: str) -> Family:
    return Family(name, model_types, _VIT, "drift", inner_norms=_VIT_NORMS)


def _clip(name: str, both: str, *alone: str) -> tuple[Family, Family]:
    """One row for two towers, and one for models of one of them."""
    return (
        Family(name, (both,), _TWO_TOWERS, "drift", inner_norms=_CLIP_NORMS),
        Family(name, alone, _CLIP, "drift", inner_norms=_CLIP_NORMS),
    )


def _wav2vec2(name: str, model_type: str) -> tuple[Family, Family]:
    """One row for the post-norm models, and one for the pre-norm ones, as a rule the large."""
    return (
        Family(
            name,
            (model_type,),
            (
                SiteTemplate("output", "layernorm", "encoder.layers.{layer}.final_layer_norm"),
                SiteTemplate("attention", "layernorm", "encoder.layers.{layer}.layer_norm"),
                SiteTemplate("embeddings", "layernorm", "encoder.layer_norm"),
            ),
            "drift",
            when={"do_stable_layer_norm": (False, None)},
        ),
        Family(
            name,
            (model_type,),
            (
                SiteTemplate("output", "dense", "encoder.layers.{layer}.feed_forward.output_dense"),
                SiteTemplate("attention", "dense", "encoder.layers.{layer}.attention.out_proj"),
                SiteTemplate("final", "layernorm", "encoder.layer_norm"),
            ),
            "drift",
            inner_norms=("layer_norm", "final_layer_norm"),
            # A language adapter (MMS) would come after the output dense layer.
            when={"do_stable_layer_norm": (True,), "adapter_attn_dim": (None,)},
        ),
    )


PERCEPTION: tuple[Family, ...] = (
    _vit("ViT", "vit"),
    _vit("DeiT", "deit"),
    _vit("ViT-MAE", "vit_mae"),
    _vit("ViT-MSN", "vit_msn"),
    *_clip("CLIP", "clip", "clip_text_model", "clip_vision_model"),
    *_clip("SigLIP", "siglip", "siglip_text_model", "siglip_vision_model"),
    *_clip("SigLIP 2", "siglip2", "siglip2_text_model"),
    *_wav2vec2("Wav2Vec2", "wav2vec2"),
    *_wav2vec2("HuBERT", "hubert"),
    *_wav2vec2("WavLM", "wavlm"),
    *_wav2vec2("UniSpeech", "unispeech"),
    *_wav2vec2("UniSpeech-SAT", "unispeech-sat"),
)
