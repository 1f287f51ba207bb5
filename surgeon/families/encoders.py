"""Encoders of text: BERT and its kin, whose layers end in a norm, and those that do not."""

from __future__ import annotations

from surgeon.families.family import Family
from surgeon.families.sites import SiteTemplate, under

_BERT = (
    SiteTemplate("output", "layernorm", "encoder.layer.{layer}.output.LayerNorm"),
    SiteTemplate("attention", "layernorm", "encoder.layer.{layer}.attention.output.LayerNorm"),
    # Of a decoder.
    SiteTemplate("attention", "layernorm", "encoder.layer.{layer}.crossattention.output.LayerNorm"),
    SiteTemplate("embeddings", "layernorm", "embeddings.LayerNorm"),
)
_ALBERT = "encoder.albert_layer_groups.{layer}.albert_layers.0"
# BERT's modules with the norms before them.
_PRE_BERT = (
    SiteTemplate("output", "dense", "encoder.layer.{layer}.output.dense"),
    SiteTemplate("attention", "dense", "encoder.layer.{layer}.attention.output.dense"),
    SiteTemplate("attention", "dense", "encoder.layer.{layer}.crossattention.output.dense"),
)
_MODERNBERT = (
    SiteTemplate("output", "dense", "layers.{layer}.mlp.Wo"),
    SiteTemplate("attention", "dense", "layers.{layer}.attn.Wo"),
    SiteTemplate("embeddings", "layernorm", "embeddings.norm"),
    SiteTemplate("final", "layernorm", "final_norm"),
)
_MODERNBERT_NORMS = ("attn_norm", "mlp_norm")


def _bert(name: str, *model_types: str) -> Family:
    return Family(name, model_types, _BERT, "mlm", head=("cls.predictions.",))


def _roberta(name: str, *model_types: str) -> Family:
    return Family(
        name, model_types, _BERT, "mlm", head=("lm_head.",), position_offset="after padding"
    )


ENCODERS: tuple[Family, ...] = (
    # Post-norm: the last operation of a layer is its output LayerNorm.
    _bert("BERT", "bert"),
    _roberta("RoBERTa", "roberta", "xlm-roberta", "camembert"),
    _roberta("Longformer", "longformer"),
    _roberta("Data2VecText", "data2vec-text"),
    _bert("BigBird", "big_bird"),
    _bert("ERNIE", "ernie"),
    _bert("LayoutLM", "layoutlm"),
    _bert("RemBERT", "rembert"),
    _bert("Nyströmformer", "nystromformer"),
    _bert("RoFormer", "roformer"),
    # ELECTRA's discriminator has no language-model head, but one of its own.
    Family("ELECTRA", ("electra",), _BERT, "mlm", head=("generator_predictions.",)),
    Family("ConvBERT", ("convbert",), _BERT, "mlm", head=("generator_predictions.",)),
    Family(
        "MPNet",
        ("mpnet",),
        (
            SiteTemplate("output", "layernorm", "encoder.layer.{layer}.output.LayerNorm"),
            SiteTemplate("attention", "layernorm", "encoder.layer.{layer}.attention.LayerNorm"),
            SiteTemplate("embeddings", "layernorm", "embeddings.LayerNorm"),
        ),
        "mlm",
        head=("lm_head.",),
        position_offset=2,
    ),
    Family(
        "DistilBERT",
        ("distilbert",),
        (
            SiteTemplate("output", "layernorm", "transformer.layer.{layer}.output_layer_norm"),
            SiteTemplate("attention", "layernorm", "transformer.layer.{layer}.sa_layer_norm"),
            SiteTemplate("embeddings", "layernorm", "embeddings.LayerNorm"),
        ),
        "mlm",
        head=("vocab_transform.",),
    ),
    # A layer here is a group, whose parameters all the layers of the group share. Groups of
    # several different layers exist in no published checkpoint.
    Family(
        "ALBERT",
        ("albert",),
        (
            SiteTemplate("output", "layernorm", f"{_ALBERT}.full_layer_layer_norm"),
            SiteTemplate("attention", "layernorm", f"{_ALBERT}.attention.LayerNorm"),
            SiteTemplate("embeddings", "layernorm", "embeddings.LayerNorm"),
        ),
        "mlm",
        head=("predictions.",),
        when={"inner_group_num": (1, None)},
    ),
    _bert("DeBERTa", "deberta"),
    Family(
        "DeBERTa-v2",
        ("deberta-v2",),
        (
            *_BERT,
            # v2, not v3, adds a convolution to what the first layer gives, and normalises again.
            SiteTemplate("output", "layernorm", "encoder.conv.LayerNorm", only_layer=0),
        ),
        "mlm",
        head=("cls.predictions.",),
    ),
    Family(
        "XLNet",
        ("xlnet",),
        (
            SiteTemplate("output", "layernorm", "layer.{layer}.ff.layer_norm"),
            SiteTemplate("attention", "layernorm", "layer.{layer}.rel_attn.layer_norm"),
        ),
        "plm",
        head=("lm_loss.",),
    ),
    # Pre-norm: the last operation of a layer is the output dense layer.
    Family(
        "ESM",
        ("esm",),
        (
            *_PRE_BERT,
            SiteTemplate("embeddings", "layernorm", "embeddings.layer_norm"),  # of ESM-1b
            SiteTemplate("final", "layernorm", "encoder.emb_layer_norm_after"),
        ),
        "mlm",
        head=("lm_head.",),
        position_offset="after padding",
        inner_norms=("LayerNorm", "attention.LayerNorm"),
    ),
    Family(
        "Megatron-BERT",
        ("megatron-bert",),
        (*_PRE_BERT, SiteTemplate("final", "layernorm", "encoder.ln")),
        "mlm",
        head=("cls.predictions.",),
        inner_norms=("ln", "attention.ln"),
    ),
    Family(
        "RoBERTa-PreLayerNorm",
        ("roberta-prelayernorm",),
        (
            *_PRE_BERT,
            SiteTemplate("embeddings", "layernorm", "embeddings.LayerNorm"),
            SiteTemplate("final", "layernorm", "LayerNorm"),
        ),
        "mlm",
        head=("lm_head.",),
        position_offset="after padding",
        inner_norms=("attention.LayerNorm", "intermediate.LayerNorm"),
    ),
    Family(
        "XLM-RoBERTa-XL",
        ("xlm-roberta-xl",),
        (*_PRE_BERT, SiteTemplate("final", "layernorm", "encoder.LayerNorm")),
        "mlm",
        head=("lm_head.",),
        position_offset="after padding",
        inner_norms=("LayerNorm", "attention.self_attn_layer_norm"),
    ),
    Family(
        "ModernBERT",
        ("modernbert",),
        _MODERNBERT,
        "mlm",
        head=("decoder.bias",),
        inner_norms=_MODERNBERT_NORMS,
    ),
    Family(
        "ModernBERT decoder",
        ("modernbert-decoder",),
        _MODERNBERT,
        "clm",
        inner_norms=_MODERNBERT_NORMS,
    ),
)


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
