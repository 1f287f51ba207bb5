"""Encoders: BERT and its kin, whose layers end in a norm, those that do not, images and sound."""

from __future__ import annotations

from functools import partial

from surgeon.families.family import Family, SiteTemplate, layers_of, under

_post_norm = partial(layers_of, "layernorm", embeddings="embeddings.LayerNorm")
_BERT = (
    *_post_norm(
        "encoder.layer",
        "output.LayerNorm",
        "attention.output.LayerNorm",
        "crossattention.output.LayerNorm",  # of a decoder
    ),
    SiteTemplate("output", "layernorm", "encoder.layer.{layer}.mlp.layernorm"),  # with gates
)
# The new names are those in memory.
_RENAMED = _post_norm("layers", "post_mlp_layernorm", "post_attention_layernorm")
_NOMIC = (*_post_norm("encoder.layers", "norm2", "norm1", embeddings="emb_ln"), *_RENAMED)
_GTE = (*_post_norm("encoder.layer", "mlp_ln", "attn_ln"), *_RENAMED)
_MPNET = _post_norm("encoder.layer", "output.LayerNorm", "attention.LayerNorm")
_SQUEEZEBERT = _post_norm("encoder.layers", "output.layernorm", "post_attention.layernorm")
# Its layers mix by a Fourier transform, which has no parameters, in place of attention.
_FNET = _post_norm("encoder.layer", "output.LayerNorm", "fourier.output.LayerNorm")
# Its modules are numbered each in a list of their own.
_XLM = (
    SiteTemplate("output", "layernorm", "layer_norm2.{layer}"),
    SiteTemplate("attention", "layernorm", "layer_norm1.{layer}"),
    SiteTemplate("embeddings", "layernorm", "layer_norm_emb"),
)
_DISTILBERT = _post_norm("transformer.layer", "output_layer_norm", "sa_layer_norm")
_ALBERT = _post_norm(
    "encoder.albert_layer_groups",
    "albert_layers.0.full_layer_layer_norm",
    "albert_layers.0.attention.LayerNorm",
)
# v2, not v3, adds a convolution to what the first layer gives, and normalises again.
_DEBERTA_V2 = (*_BERT, SiteTemplate("output", "layernorm", "encoder.conv.LayerNorm", only_layer=0))
_XLNET = layers_of("layernorm", "layer", "ff.layer_norm", "rel_attn.layer_norm")
# BERT's modules with the norms before them.
_pre_bert = partial(
    layers_of,
    "dense",
    "encoder.layer",
    "output.dense",
    "attention.output.dense",
    "crossattention.output.dense",
)
_ESM = _pre_bert(
    embeddings="embeddings.layer_norm",  # of ESM-1b
    final="encoder.emb_layer_norm_after",
)
_MEGATRON = _pre_bert(final="encoder.ln")
_MEGATRON_NORMS = ("ln", "attention.ln")
_ROBERTA_PRE_NORM = _pre_bert(embeddings="embeddings.LayerNorm", final="LayerNorm")
_ROBERTA_XL = _pre_bert(final="encoder.LayerNorm")
_MODERNBERT = layers_of(
    "dense", "layers", "mlp.Wo", "attn.Wo", embeddings="embeddings.norm", final="final_norm"
)
_MODERNBERT_NORMS = ("attn_norm", "mlp_norm")
_UNIFORM_GROUPS = {"inner_group_num": (1, None)}
_PREDICTIONS, _LM_HEAD = ("cls.predictions.",), ("lm_head.",)
_GENERATOR, _PRED_LAYER = ("generator_predictions.",), ("pred_layer.",)
_LILT_NORMS = ("layout_output.LayerNorm", "attention.layout_output.LayerNorm")
_MOBILEBERT = _post_norm("encoder.layer", "output.bottleneck.LayerNorm")
_MOBILEBERT_NORMS = (
    "output.LayerNorm",
    "attention.output.LayerNorm",
    "bottleneck.input.LayerNorm",
    "bottleneck.attention.LayerNorm",
    *(f"ffn.{block}.output.LayerNorm" for block in range(3)),
)


def _bert(name: str, *model_types: str) -> Family:
    return Family(name, model_types, _BERT, "mlm", _PREDICTIONS)


def _roberta(name: str, *model_types: str) -> Family:
    return Family(name, model_types, _BERT, "mlm", _LM_HEAD, "after padding")


def _pre_norm(
    name: str, model_type: str, templates: tuple[SiteTemplate, ...], *norms: str
) -> Family:
    return Family(name, (model_type,), templates, "mlm", _LM_HEAD, "after padding", norms)


ENCODERS: tuple[Family, ...] = (
    # Post-norm: the last operation of a layer is its output LayerNorm.
    _bert("BERT", "bert"),
    _roberta("RoBERTa", "roberta", "xlm-roberta", "camembert"),
    _roberta("Longformer", "longformer"),
    _roberta("LUKE", "luke"),
    _roberta("Data2VecText", "data2vec-text"),
    _bert("BigBird", "big_bird"),
    _bert("ERNIE", "ernie"),
    _bert("LayoutLM", "layoutlm"),
    _bert("RemBERT", "rembert"),
    _bert("Nyströmformer", "nystromformer"),
    _bert("RoFormer", "roformer"),
    _bert("TAPAS", "tapas"),
    _bert("RoCBert", "roc_bert"),
    _bert("YOSO", "yoso"),
    Family("DPR", ("dpr",), _BERT, "drift"),
    Family("BROS", ("bros",), _BERT, "drift"),
    Family("Splinter", ("splinter",), _BERT, "drift"),
    Family("LayoutLMv3", ("layoutlmv3",), _BERT, "drift", (), "after padding"),
    Family("MarkupLM", ("markuplm",), _BERT, "drift", (), "after padding"),
    # Beside the stream of the text is one of the layout, a quarter as wide.
    Family("LiLT", ("lilt",), _BERT, "drift", (), "after padding", _LILT_NORMS),
    Family("SqueezeBERT", ("squeezebert",), _SQUEEZEBERT, "mlm", _PREDICTIONS),
    Family("FNet", ("fnet",), _FNET, "mlm", _PREDICTIONS),
    Family("XLM", ("xlm",), _XLM, "mlm", _PRED_LAYER),
    Family("FlauBERT", ("flaubert",), _XLM, "mlm", _PRED_LAYER, when={"pre_norm": (False, None)}),
    Family("MobileBERT", ("mobilebert",), _MOBILEBERT, "mlm", _PREDICTIONS, 0, _MOBILEBERT_NORMS),
    Family("Nomic BERT", ("nomic_bert",), _NOMIC, "mlm", _PREDICTIONS),
    Family("GTE", ("gte", "new"), _GTE, "mlm", _LM_HEAD),
    Family("Jina Embeddings v3", ("jina_embeddings_v3",), _NOMIC, "mlm", _LM_HEAD),
    # ELECTRA's discriminator has no language-model head, but one of its own.
    Family("ELECTRA", ("electra",), _BERT, "mlm", _GENERATOR),
    Family("ConvBERT", ("convbert",), _BERT, "mlm", _GENERATOR),
    Family("MPNet", ("mpnet",), _MPNET, "mlm", _LM_HEAD, 2),
    Family("DistilBERT", ("distilbert",), _DISTILBERT, "mlm", ("vocab_transform.",)),
    # A layer here is a group, whose parameters all the layers of the group share. Groups of
    # several different layers exist in no published checkpoint.
    Family("ALBERT", ("albert",), _ALBERT, "mlm", ("predictions.",), when=_UNIFORM_GROUPS),
    _bert("DeBERTa", "deberta"),
    Family("DeBERTa-v2", ("deberta-v2",), _DEBERTA_V2, "mlm", _PREDICTIONS),
    Family("XLNet", ("xlnet",), _XLNET, "plm", ("lm_loss.",)),
    # Pre-norm: the last operation of a layer is the output dense layer.
    _pre_norm("ESM", "esm", _ESM, "LayerNorm", "attention.LayerNorm"),
    Family("Megatron-BERT", ("megatron-bert",), _MEGATRON, "mlm", _PREDICTIONS, 0, _MEGATRON_NORMS),
    _pre_norm(
        "RoBERTa-PreLayerNorm",
        "roberta-prelayernorm",
        _ROBERTA_PRE_NORM,
        "attention.LayerNorm",
        "intermediate.LayerNorm",
    ),
    _pre_norm(
        "XLM-RoBERTa-XL",
        "xlm-roberta-xl",
        _ROBERTA_XL,
        "LayerNorm",
        "attention.self_attn_layer_norm",
    ),
    Family(
        "ModernBERT", ("modernbert",), _MODERNBERT, "mlm", ("decoder.bias",), 0, _MODERNBERT_NORMS
    ),
    Family(
        "ModernBERT decoder", ("modernbert-decoder",), _MODERNBERT, "clm", (), 0, _MODERNBERT_NORMS
    ),
)


_VIT = (
    *layers_of("dense", "encoder.layer", "output.dense", "attention.output.dense"),
    *layers_of("dense", "layers", "mlp.fc2", "attention.o_proj", final="layernorm"),  # in memory
)
_DINO_2 = (
    *layers_of("dense", "encoder.layer", "mlp.fc2", "attention.output.dense", final="layernorm"),
    *layers_of("dense", "encoder.layer", "mlp.weights_out"),  # of the giant
    *layers_of("dense", "encoder.layer", "mlp.down_proj", "attention.o_proj"),  # in memory
)
_PRE_NORMS = ("norm1", "norm2")
_DINO_3 = layers_of("dense", "layer", "mlp.down_proj", "attention.o_proj", final="norm")
_CLIP = (
    *layers_of(
        "dense",
        "encoder.layers",
        "mlp.fc2",
        "self_attn.out_proj",
        embeddings="pre_layrnorm",  # sic
        final="final_layer_norm",  # of the text tower
    ),
    SiteTemplate("final", "layernorm", "post_layernorm"),  # of the vision tower
)
_TWO_TOWERS = under("text_model", "text", _CLIP) + under("vision_model", "vision", _CLIP)


def _vit(name: str, model_type: str) -> Family:
    norms = ("layernorm_before", "layernorm_after")
    return Family(name, (model_type,), _VIT, "drift", inner_norms=norms)


def _clip(name: str, both: str, *alone: str) -> tuple[Family, ...]:
    """One row for two towers, and one for models of one of them, if there are any."""
    rows, norms = (((both,), _TWO_TOWERS), (alone, _CLIP)), ("layer_norm1", "layer_norm2")
    return tuple(
        Family(name, types, templates, "drift", inner_norms=norms)
        for types, templates in rows
        if types
    )


_WAV2VEC2 = layers_of(
    "layernorm", "encoder.layers", "final_layer_norm", "layer_norm", embeddings="encoder.layer_norm"
)
_CONFORMER = layers_of("layernorm", "encoder.layers", "final_layer_norm")
_PARAKEET = layers_of("layernorm", "layers", "norm_out")
_STABLE_WAV2VEC2 = layers_of(
    "dense",
    "encoder.layers",
    "feed_forward.output_dense",
    "attention.out_proj",
    final="encoder.layer_norm",
)


def _wav2vec2(name: str, model_type: str) -> tuple[Family, Family]:
    """One row for the post-norm models, and one for the pre-norm ones, as a rule the large."""
    return (
        Family(
            name, (model_type,), _WAV2VEC2, "drift", when={"do_stable_layer_norm": (False, None)}
        ),
        Family(
            name,
            (model_type,),
            _STABLE_WAV2VEC2,
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
    _vit("BEiT", "beit"),
    _vit("Data2VecVision", "data2vec-vision"),
    _vit("I-JEPA", "ijepa"),
    _vit("YOLOS", "yolos"),
    _vit("ViLT", "vilt"),
    _vit("DPT", "dpt"),
    _vit("ViViT", "vivit"),
    _vit("VideoMAE", "videomae"),
    _vit("Audio Spectrogram Transformer", "audio-spectrogram-transformer"),
    Family("DINOv2", ("dinov2", "dinov2_with_registers"), _DINO_2, "drift", inner_norms=_PRE_NORMS),
    Family("DINOv3", ("dinov3_vit",), _DINO_3, "drift", inner_norms=_PRE_NORMS),
    *_clip("CLIP", "clip", "clip_text_model", "clip_vision_model"),
    *_clip("SigLIP", "siglip", "siglip_text_model", "siglip_vision_model"),
    *_clip("SigLIP 2", "siglip2", "siglip2_text_model", "siglip2_vision_model"),
    *_clip("CLIPSeg", "clipseg"),
    *_clip("OWL-ViT", "owlvit"),
    *_clip("OWLv2", "owlv2"),
    *_clip("MetaCLIP 2", "metaclip_2", "metaclip_2_text_model", "metaclip_2_vision_model"),
    *_wav2vec2("Wav2Vec2", "wav2vec2"),
    *_wav2vec2("HuBERT", "hubert"),
    *_wav2vec2("WavLM", "wavlm"),
    *_wav2vec2("UniSpeech", "unispeech"),
    *_wav2vec2("UniSpeech-SAT", "unispeech-sat"),
    Family("Data2VecAudio", ("data2vec-audio",), _WAV2VEC2, "drift"),
    Family("SEW", ("sew",), _WAV2VEC2, "drift"),
    Family("W2V-BERT", ("wav2vec2-bert",), _CONFORMER, "drift"),
    Family("Wav2Vec2-Conformer", ("wav2vec2-conformer",), _CONFORMER, "drift"),
    Family("Parakeet", ("parakeet_ctc", "parakeet_encoder"), _PARAKEET, "drift"),
)
