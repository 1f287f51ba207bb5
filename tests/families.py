"""Every family of the registry as a tiny model: how to make it, run it, and what to find in it.

A row names transformers' classes by what they begin with: ``Bert`` for ``BertConfig``,
``BertForMaskedLM`` and ``BertLayer``.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from pathlib import Path

import torch
import transformers as t
from tiny import (
    ALBERT,
    AUDIO,
    BART,
    DEBERTA,
    DISTIL,
    GEMMA,
    GPT,
    IMAGE,
    LLAMA,
    OPT,
    PAIR,
    PIXELS,
    SEQ2SEQ,
    SOUND,
    T5,
    TEXT,
    TOKENS,
    TWO,
    WAVE,
    XLNET,
    Tiny,
    make_unequal,
)

_MASKED, _CAUSAL = "ForMaskedLM", "ForCausalLM"
_CONDITIONAL, _IMAGES = "ForConditionalGeneration", "ForImageClassification"


def _row(stream, stem, head, config, output, *, config_of=None, block=None, **more):
    kind, block = f"{config_of or stem}Config", block or f"{stem}Layer"
    inputs, leaf = more.pop("inputs", TOKENS), more.pop("leaf", ".weight")
    return Tiny(stem + head, kind, config, inputs, block, stream, output + leaf, **more)


_post = functools.partial(_row, "post")
_pre = functools.partial(_row, "pre", kind="dense")


def _bert(stem, prefix, config=TEXT):
    return _post(stem, _MASKED, config, f"{prefix}.encoder.layer.1.output.LayerNorm")


def _pre_bert(stem, prefix, config=TEXT):
    return _pre(stem, _MASKED, config, f"{prefix}.encoder.layer.1.output.dense")


def _gpt(stem, config, output, *, head=_CAUSAL, block="Block", **more):
    return _pre(stem, head, config, f"transformer.{output}", block=f"{stem}{block}", **more)


def _llama(stem, config, output="mlp.down_proj", *, head=_CAUSAL, bias=False, **more):
    block = more.pop("block", f"{stem}DecoderLayer")
    return _pre(stem, head, config, f"model.layers.1.{output}", block=block, bias=bias, **more)


def _normed(stem, config, output="post_feedforward_layernorm", **more):
    """Like Llama, with a norm between the output dense layer and the stream."""
    return _llama(stem, config, output, **{"kind": "rmsnorm", **more})


def _mamba(stem, config, output="out_proj", layers=2):
    output, block = f"backbone.layers.1.mixer.{output}", f"{stem}Block"
    return _pre(stem, _CAUSAL, config, output, block=block, bias=False, stacks={"": layers})


def _pair(of, stem, config, output, *, head=_CONDITIONAL, inputs=PAIR):
    block = f"{stem}EncoderLayer {stem}DecoderLayer"
    return of(stem, head, config, output, block=block, inputs=inputs, stacks=TWO)


def _bart(stem, config=BART, *, prefix="model", **more):
    return _pair(_post, stem, config, f"{prefix}.encoder.layers.1.final_layer_norm", **more)


def _mbart(stem, config=BART, **more):
    return _pair(_pre, stem, config, "model.encoder.layers.1.fc2", **more)


def _t5(stem, **more):
    output, block = "encoder.block.1.layer.1.DenseReluDense.wo", f"{stem}Block"
    config = {**T5, **more}
    return _pre(
        stem, _CONDITIONAL, config, output, block=block, inputs=PAIR, bias=False, stacks=TWO
    )


def _albert(group, config, **more):
    output = f"{_GROUPS}.{group}.{_FULL_NORM}"
    return _post("Albert", _MASKED, {**ALBERT, **config}, output, **more)


def _opt(of, output, **config):
    output, block = f"model.decoder.layers.1.{output}", "OPTDecoderLayer"
    return of("OPT", _CAUSAL, {**OPT, **config}, output, block=block)


def _neox(config):
    return _pre("GPTNeoX", _CAUSAL, config, "gpt_neox.layers.1.mlp.dense_4h_to_h")


def _image(
    stem, prefix="", head="Model", output="encoder.layer.1.output.dense", inputs=PIXELS, **config
):
    return _pre(stem, head, {**IMAGE, **config}, prefix + output, inputs=inputs)


def _tower(stem, of, config, inputs=TOKENS):
    return _pre(
        stem + of,
        "Model",
        config,
        "encoder.layers.1.mlp.fc2",
        block=f"{stem}EncoderLayer",
        inputs=inputs,
    )


def _towers(stem, vision=IMAGE, **config):
    return _pre(
        stem,
        "Model",
        {"text_config": TEXT, "vision_config": vision, **config},
        "text_model.encoder.layers.1.mlp.fc2",
        block=f"{stem}EncoderLayer",
        inputs={**TOKENS, **PIXELS},
        stacks={"text": 2},
    )


def _sound(stem, prefix):
    output, block = f"{prefix}.encoder.layers.1.final_layer_norm", f"{stem}EncoderLayer"
    return _post(stem, "ForCTC", AUDIO, output, block=block, inputs=WAVE)


def _stable_sound(stem, prefix):
    config = {**AUDIO, "do_stable_layer_norm": True, "feat_extract_norm": "layer"}
    output = f"{prefix}.encoder.layers.1.feed_forward.output_dense"
    block = f"{stem}EncoderLayerStableLayerNorm"
    return _pre(stem, "ForCTC", config, output, block=block, inputs=WAVE)


def _two(stem, prefix):
    """A post-norm and a pre-norm model of sound."""
    name = prefix.replace("_", "-")
    return {name: _sound(stem, prefix), f"{name}, pre-norm": _stable_sound(stem, prefix)}


_POST_OPT = {"word_embed_proj_dim": 12, "do_layer_norm_before": False}
_NEO = {
    "hidden_size": 16,
    "num_layers": 2,
    "num_heads": 2,
    "vocab_size": 40,
    "max_position_embeddings": 64,
    "attention_types": [[["global", "local"], 1]],
}
_BLOOM = {"hidden_size": 16, "n_layer": 2, "n_head": 2, "vocab_size": 40}
_WHISPER = {
    **SEQ2SEQ,
    "max_source_positions": 16,
    "max_target_positions": 16,
    "num_mel_bins": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
}
_WO = {"pad_token_id": 0, "global_attn_every_n_layers": 2, "tie_word_embeddings": True}
_DISTIL_NORM = "distilbert.transformer.layer.1.output_layer_norm"
_GROUPS = "albert.encoder.albert_layer_groups"
_FULL_NORM = "albert_layers.0.full_layer_layer_norm"

FAMILIES = {
    "bert": _bert("Bert", "bert"),
    "roberta": _bert("Roberta", "roberta"),
    "xlm-roberta": _bert("XLMRoberta", "roberta"),
    "camembert": _bert("Camembert", "roberta"),
    "electra": _bert("Electra", "electra", {**TEXT, "embedding_size": 12}),
    "mpnet": _bert("MPNet", "mpnet"),
    "distilbert": _post("DistilBert", _MASKED, DISTIL, _DISTIL_NORM, block="TransformerBlock"),
    # One layer, run three times.
    "albert": _albert(0, {"num_hidden_layers": 3}, stacks={"": 1}, calls=3),
    "albert, two groups": _albert(1, {"num_hidden_layers": 4, "num_hidden_groups": 2}, calls=4),
    "deberta": _bert("Deberta", "deberta", DEBERTA),
    "deberta-v2, as v3": _bert(
        "DebertaV2", "deberta", {**DEBERTA, "norm_rel_ebd": "layer_norm", "position_buckets": 8}
    ),
    "xlnet": _post("XLNet", "LMHeadModel", XLNET, "transformer.layer.1.ff.layer_norm"),
    "bart": _bart("Bart"),
    "opt, post-norm": _opt(_post, "final_layer_norm", **_POST_OPT),
    "wav2vec2": _sound("Wav2Vec2", "wav2vec2"),
    "gpt2": _gpt("GPT2", GPT, "h.1.mlp.c_proj", head="LMHeadModel", axis=1),
    "gpt_neo": _gpt("GPTNeo", _NEO, "h.1.mlp.c_proj"),
    "gpt_neox": _neox(TEXT),
    "gpt_neox, one after the other": _neox({**TEXT, "use_parallel_residual": False}),
    "opt": _opt(_pre, "fc2", word_embed_proj_dim=16),
    "bloom": _gpt("Bloom", _BLOOM, "h.1.mlp.dense_4h_to_h"),
    "llama": _llama("Llama", LLAMA),
    "mistral": _llama("Mistral", LLAMA),
    "qwen2": _llama("Qwen2", LLAMA),
    "qwen3": _llama("Qwen3", {**LLAMA, "head_dim": 8}),
    "gemma": _llama("Gemma", GEMMA),
    "gemma2": _normed("Gemma2", GEMMA, offset=1.0),
    "gemma3_text": _normed("Gemma3", GEMMA, config_of="Gemma3Text", offset=1.0),
    "gemma3": _pre(
        "Gemma3",
        _CONDITIONAL,
        {"text_config": GEMMA, "vision_config": IMAGE, "mm_tokens_per_image": 4},
        "language_model.model.layers.1.post_feedforward_layernorm",
        block="Gemma3DecoderLayer",
        kind="rmsnorm",
        offset=1.0,
        bias=False,
    ),
    "phi": _llama("Phi", TEXT, "mlp.fc2", bias=True),
    "phi3": _llama("Phi3", {**TEXT, "pad_token_id": 0}),
    "modernbert": _llama(
        "ModernBert", {**TEXT, **_WO}, "mlp.Wo", head=_MASKED, block="ModernBertEncoderLayer"
    ),
    "mbart": _mbart("MBart"),
    "whisper": _mbart("Whisper", _WHISPER, inputs=SOUND),
    "t5": _t5("T5"),
    "mt5": _t5("MT5"),
    "vit": _image("ViT", "vit.", _IMAGES),
    "clip_text_model": _tower("CLIP", "Text", TEXT),
    "clip_vision_model": _tower("CLIP", "Vision", IMAGE, PIXELS),
    "wav2vec2, pre-norm": _stable_sound("Wav2Vec2", "wav2vec2"),
}


def _multimodal(stem, output, text, vision):
    """A language model, known by its own configuration, beside a tower of images."""
    config = {"text_config": text, "vision_config": vision}
    inputs = {**TOKENS, **PIXELS}
    return _pre(stem, _CONDITIONAL, config, output, block="", inputs=inputs, bias=False)


_SECTIONS = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
_CLIP = {"model_type": "clip_vision_model", **IMAGE}
_GEMMA_3N = {
    **GEMMA,
    "intermediate_size": [24, 24],
    "num_kv_shared_layers": 0,
    "layer_types": ["sliding_attention", "full_attention"],
    "sliding_window": 4,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 40,
    "laurel_rank": 4,
    "activation_sparsity_pattern": [0.5, 0.0],
}
_QWEN_VL = (
    {**GEMMA, "rope_parameters": _SECTIONS},
    {
        "depth": 1, "num_heads": 2, "embed_dim": 16, "hidden_size": 16, "intermediate_size": 16,
        "out_hidden_size": 16, "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
    },
)  # fmt: skip
_DOWN = "layers.1.mlp.down_proj"

# What the claims of FAMILIES do not hold of: the last operation of one layer is outside it or run
# twice, or there is a tower beside the one that is edited.
ODD = {
    "pegasus_x": _mbart("PegasusX"),
    "deberta-v2, with a convolution": _bert(
        "DebertaV2", "deberta", {**DEBERTA, "conv_kernel_size": 3, "conv_act": "gelu"}
    ),
    "clip": _towers("CLIP", projection_dim=12),
    "clip, two widths": _towers("CLIP", {**IMAGE, "hidden_size": 32}, projection_dim=12),
    "metaclip_2": _towers("MetaClip2"),
    "siglip": _towers("Siglip"),
    "siglip2": _towers("Siglip2", {**IMAGE, "num_patches": 4}),
    "clipseg": _towers("CLIPSeg", projection_dim=12),
    "owlvit": _towers("OwlViT", projection_dim=12),
    "owlv2": _towers("Owlv2", projection_dim=12),
    "llava": _multimodal(
        "Llava", f"language_model.model.{_DOWN}", {"model_type": "llama", **LLAMA}, _CLIP
    ),
    "voxtral_realtime": _pre(
        "VoxtralRealtime",
        _CONDITIONAL,
        {
            "text_config": GEMMA,
            "audio_config": {**TEXT, "head_dim": 8, "num_mel_bins": 4},
            "downsample_factor": 1,
        },
        f"language_model.model.{_DOWN}",
        inputs=WAVE,
        bias=False,
    ),
    "mllama": _llama(
        "Mllama",
        {
            **LLAMA,
            "cross_attention_layers": [1],
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        },
        config_of="MllamaText",
    ),
    "gemma3n_text": _normed(
        "Gemma3n", _GEMMA_3N, config_of="Gemma3nText", block="Gemma3nTextDecoderLayer"
    ),
    "qwen2_vl": _multimodal("Qwen2VL", f"model.{_DOWN}", *_QWEN_VL),
    "qwen3_vl": _multimodal("Qwen3VL", f"model.language_model.{_DOWN}", *_QWEN_VL),
}


_XGLM = {"d_model": 16, "num_layers": 2, "attention_heads": 2, "ffn_dim": 24, "vocab_size": 40}
_MPT = {"d_model": 16, "n_layers": 2, "n_heads": 2, "vocab_size": 40, "max_seq_len": 64}
_CONVBERT = {**TEXT, "embedding_size": 16, "head_ratio": 1, "conv_kernel_size": 3}
_LED = {
    **SEQ2SEQ,
    "attention_window": 4,
    "max_encoder_position_embeddings": 64,
    "max_decoder_position_embeddings": 64,
}
_BOXES = {"coordinate_size": 2, "shape_size": 4, "input_size": 8, "patch_size": 4}
_SPEECH = {
    **SEQ2SEQ,
    "max_source_positions": 64,
    "max_target_positions": 64,
    "num_conv_layers": 1,
    "conv_kernel_sizes": (3,),
    "conv_channels": 8,
    "input_feat_per_channel": 4,
}
_LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_ESM = {**TEXT, "pad_token_id": 1, "mask_token_id": 3}
_ROTARY = {"position_embedding_type": "rotary", "token_dropout": True}
_ABSOLUTE = {"position_embedding_type": "absolute", "emb_layer_norm_before": True}
_FALCON_40B = {**TEXT, "new_decoder_architecture": True, "num_kv_heads": 1}
_FALCON_RW = {**TEXT, "alibi": True, "parallel_attn": False, "multi_query": False, "bias": True}

_STATES = {**LLAMA, "state_size": 4, "num_heads": 4, "head_dim": 8, "n_groups": 1}
_BLOCKS = {
    **GEMMA,
    "ssm_state_size": 4,
    "mamba_num_heads": 4,
    "mamba_head_dim": 8,
    "n_groups": 1,
    "use_mamba_kernels": False,
}
_KINDS = ["linear_attention", "mlp", "full_attention"]
_SSM = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1}
_MIXERS = {"layer_types": ["mamba", "attention"]}
_FILM = {"pixel_values": PIXELS["pixel_values"].expand(1, 2, 3, 8, 8)}
_MEL = {"input_values": PIXELS["pixel_values"].reshape(1, 24, 8)[:, :16]}
_LATENT = {
    **LLAMA,
    "num_key_value_heads": 2,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
}
_GEMMA_4 = {**GEMMA, "global_head_dim": 8, "hidden_size_per_layer_input": 0}

_PHI_4_AUDIO = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_blocks": 1,
    "num_attention_heads": 2,
    "ext_pw_out_channel": 16,
    "depthwise_separable_out_channel": 16,
    "nemo_conv_channels": 16,
    "input_size": 8,
}
_ZAMBA = {
    **LLAMA,
    "num_hidden_layers": 3,
    "mamba_d_state": 4,
    "mamba_dt_rank": 4,
    "n_mamba_heads": 2,
    "use_mamba_kernels": False,
    "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
}
_PARAKEET = {**TEXT, "num_mel_bins": 8, "subsampling_conv_channels": 4, "subsampling_factor": 2}
_MOONSHINE = {
    **{key: value for key, value in TEXT.items() if not key.startswith("num_")},
    **{f"{of}_num_hidden_layers": 2 for of in TWO},
    **{f"{of}_num_attention_heads": 2 for of in TWO},
    "decoder_start_token_id": 1,
    "pad_token_id": 0,
}
_FEATURES = {"input_features": SOUND["input_features"].reshape(1, 16, 8)}
_HEARD = {
    "input_values": WAVE["input_values"].repeat(1, 10),
    "decoder_input_ids": PAIR["decoder_input_ids"],
}
_PATCHES = {
    "pixel_values": PIXELS["pixel_values"].reshape(1, 4, 48),
    "pixel_attention_mask": torch.ones(1, 4, dtype=torch.long),
    "spatial_shapes": torch.tensor([[2, 2]]),
}
_LUKE = {**TEXT, "entity_vocab_size": 8, "entity_emb_size": 12}
_LILT = {**TEXT, "hidden_size": 24}  # of six parts
_XLM = {
    "emb_dim": 16,
    "n_layers": 2,
    "n_heads": 2,
    "vocab_size": 40,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_PROPHETNET = {
    "hidden_size": 16,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "num_encoder_attention_heads": 2,
    "num_decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "vocab_size": 40,
    "max_position_embeddings": 64,
}


def _glm_4v(stem):
    config, output = {**GEMMA, "rope_parameters": _SECTIONS}, "layers.1.post_mlp_layernorm"
    block = f"{stem}DecoderLayer"
    return _pre(stem, "Model", config, output, block=block, kind="rmsnorm", bias=False)


def _text(stem, block, output="mlp.down_proj", config_of=None, **settings):
    """The language model of a multimodal one."""
    config = {**GEMMA, "rope_parameters": {**_SECTIONS, "partial_rotary_factor": 1.0}, **settings}
    output = f"layers.1.{output}"
    return _pre(stem, "Model", config, output, config_of=config_of, block=block, bias=False)


def _t5gemma(stem, encoder):
    return _pre(
        stem,
        _CONDITIONAL,
        {"encoder": encoder, "decoder": GEMMA, "vocab_size": 40},
        "model.encoder.layers.1.post_feedforward_layernorm",
        block=f"{stem}EncoderLayer {stem}DecoderLayer",
        inputs=PAIR,
        stacks=TWO,
        kind="rmsnorm",
        offset=1.0,
        bias=False,
    )


_of_no_blocks = functools.partial(_row, "", block="")  # their layers are called as no modules


def _xlm(stem):
    return _of_no_blocks(stem, "WithLMHeadModel", _XLM, "transformer.layer_norm2.1")


def _zamba(stem):
    output, block = "mamba_decoder.mamba.out_proj", f"{stem}MambaDecoderLayer"
    return _llama(stem, _ZAMBA, output, block=block, stacks={"": 3})


# The families that share their layers with another one.
KIN = {
    "longformer": _bert("Longformer", "longformer", {**TEXT, "attention_window": 4}),
    "data2vec-audio": _sound("Data2VecAudio", "data2vec_audio"),
    "wav2vec2-bert": _post(
        "Wav2Vec2Bert",
        "ForCTC",
        {**TEXT, "feature_projection_input_dim": 4},
        "wav2vec2_bert.encoder.layers.1.final_layer_norm",
        block="Wav2Vec2BertEncoderLayer",
        inputs={"input_features": SOUND["input_features"].reshape(1, 32, 4)},
    ),
    "wav2vec2-conformer": _sound("Wav2Vec2Conformer", "wav2vec2_conformer"),
    "sew": _sound("SEW", "sew"),
    "parakeet_ctc": _post(
        "Parakeet",
        "ForCTC",
        {"encoder_config": _PARAKEET, "vocab_size": 40},
        "encoder.layers.1.norm_out",
        config_of="ParakeetCTC",
        block="ParakeetEncoderBlock",
        inputs=_FEATURES,
    ),
    "data2vec-text": _bert("Data2VecText", "data2vec_text"),
    "roc_bert": _bert(
        "RoCBert", "roc_bert", {**TEXT, "pronunciation_vocab_size": 40, "shape_vocab_size": 40}
    ),
    "yoso": _bert("Yoso", "yoso"),
    "dpr": _post(
        "DPR",
        "QuestionEncoder",
        TEXT,
        "question_encoder.bert_model.encoder.layer.1.output.LayerNorm",
        block="BertLayer",
    ),
    "bros": _post(
        "Bros",
        "Model",
        {**TEXT, "hidden_size": 64, "dim_bbox_projection": 32},
        "encoder.layer.1.output.LayerNorm",
        inputs={**TOKENS, "bbox": TOKENS["input_ids"][..., None].expand(1, 5, 8) / 10},
    ),
    "splinter": _post("Splinter", "Model", TEXT, "encoder.layer.1.output.LayerNorm"),
    "luke": _bert("Luke", "luke", _LUKE),
    "tapas": _bert("Tapas", "tapas"),
    "markuplm": _post("MarkupLM", "Model", TEXT, "encoder.layer.1.output.LayerNorm"),
    "lilt": _post("Lilt", "Model", _LILT, "encoder.layer.1.output.LayerNorm"),
    "squeezebert": _of_no_blocks(
        "SqueezeBert",
        _MASKED,
        {**TEXT, "embedding_size": 16},
        "transformer.encoder.layers.1.output.layernorm",
    ),
    "fnet": _bert("FNet", "fnet"),
    "xlm": _xlm("XLM"),
    "flaubert": _xlm("Flaubert"),
    "big_bird": _bert("BigBird", "bert", {**TEXT, "attention_type": "original_full"}),
    "ernie": _bert("Ernie", "ernie"),
    "layoutlm": _bert("LayoutLM", "layoutlm"),
    "rembert": _bert(
        "RemBert", "rembert", {**TEXT, "input_embedding_size": 12, "output_embedding_size": 12}
    ),
    "nystromformer": _bert("Nystromformer", "nystromformer", {**TEXT, "segment_means_seq_len": 64}),
    "roformer": _bert("RoFormer", "roformer"),
    "nomic_bert": _post("NomicBert", _MASKED, TEXT, "nomic_bert.encoder.layers.1.norm2"),
    "gte": _post("Gte", _MASKED, TEXT, "gte.encoder.layer.1.mlp_ln"),
    "jina_embeddings_v3": _post(
        "JinaEmbeddingsV3", _MASKED, TEXT, "roberta.encoder.layers.1.norm2"
    ),
    "convbert": _bert("ConvBert", "convbert", _CONVBERT),
    "layoutlmv3": _post(
        "LayoutLMv3", "Model", {**TEXT, **_BOXES}, "encoder.layer.1.output.LayerNorm"
    ),
    "mobilebert": _post(
        "MobileBert",
        _MASKED,
        {**TEXT, "embedding_size": 12, "intra_bottleneck_size": 8, "true_hidden_size": 8},
        "mobilebert.encoder.layer.1.output.bottleneck.LayerNorm",
    ),
    "esm": _pre_bert("Esm", "esm", {**_ESM, **_ROTARY}),
    "esm, as 1b": _pre_bert("Esm", "esm", {**_ESM, **_ABSOLUTE}),
    "megatron-bert": _pre_bert("MegatronBert", "bert"),
    "roberta-prelayernorm": _pre_bert("RobertaPreLayerNorm", "roberta_prelayernorm"),
    "xlm-roberta-xl": _pre_bert("XLMRobertaXL", "roberta"),
    "modernbert-decoder": _llama(
        "ModernBertDecoder", {**TEXT, "pad_token_id": 0}, "mlp.Wo", block="ModernBertDecoderLayer"
    ),
    "eurobert": _llama("EuroBert", GEMMA, head=_MASKED),
    "esmc": _pre("Esmc", _MASKED, TEXT, "esmc.layers.1.mlp.down_proj", bias=False),
    "exaone": _pre(
        "Llama",
        _CAUSAL,
        LLAMA,
        "transformer.h.1.mlp.c_proj",
        config_of="Exaone",
        block="LlamaDecoderLayer",
        bias=False,
    ),
    "openai-gpt": _post("OpenAIGPT", "LMHeadModel", GPT, "transformer.h.1.ln_2", block="Block"),
    "gpt_bigcode": _gpt("GPTBigCode", GPT, "h.1.mlp.c_proj"),
    "gptj": _gpt("GPTJ", {**GPT, "rotary_dim": 4}, "h.1.mlp.fc_out"),
    "codegen": _gpt("CodeGen", {**GPT, "n_head": 4, "rotary_dim": 4}, "h.1.mlp.fc_out"),
    "persimmon": _llama("Persimmon", {**TEXT, "pad_token_id": 0}, "mlp.dense_4h_to_h", bias=True),
    "xglm": _llama("XGLM", _XGLM, "fc2", bias=True),
    "biogpt": _pre("BioGpt", _CAUSAL, TEXT, "biogpt.layers.1.fc2", block="BioGptDecoderLayer"),
    "falcon": _gpt("Falcon", TEXT, "h.1.mlp.dense_4h_to_h", block="DecoderLayer", bias=False),
    "falcon, as 40b": _gpt(
        "Falcon", _FALCON_40B, "h.1.mlp.dense_4h_to_h", block="DecoderLayer", bias=False
    ),
    "falcon, as rw": _gpt("Falcon", _FALCON_RW, "h.1.mlp.dense_4h_to_h", block="DecoderLayer"),
    "mpt": _gpt("Mpt", _MPT, "blocks.1.ffn.down_proj", bias=False),
    "starcoder2": _llama("Starcoder2", LLAMA, "mlp.c_proj", bias=True),
    "ministral": _llama("Ministral", GEMMA),
    "ministral3": _llama("Ministral3", GEMMA),
    "smollm3": _llama("SmolLM3", LLAMA),
    "granite": _llama("Granite", LLAMA),
    "qwen2_5_omni_text": _text(
        "Qwen2_5OmniThinkerText", "Qwen2_5OmniDecoderLayer", config_of="Qwen2_5OmniText"
    ),
    "phi4_multimodal": _llama(
        "Phi4Multimodal", {**GEMMA, "vision_config": IMAGE, "audio_config": _PHI_4_AUDIO}
    ),
    "granite_docling_text": _text("GraniteDoclingText", "GraniteDoclingTextDecoderLayer"),
    "paddleocr_vl_text": _text("PaddleOCRText", "PaddleOCRDecoderLayer"),
    "hunyuan_vl_text": _text("HunYuanVLText", "HunYuanVLDenseV1DecoderLayer"),
    "apertus1p5_text": _llama("Apertus1p5Text", LLAMA),
    "granite_swa": _llama("GraniteSWA", LLAMA),
    "cwm": _llama("Cwm", GEMMA),
    "internlm3": _llama("Llama", GEMMA, config_of="InternLM3", block="LlamaDecoderLayer"),
    "iquestcoder": _llama("Llama", GEMMA, config_of="IQuestCoder", block="LlamaDecoderLayer"),
    "bitnet": _llama("BitNet", LLAMA),
    "minicpm3": _llama("MiniCPM3", _LATENT),
    "youtu": _llama("Youtu", {**_LATENT, "pad_token_id": None}),
    "nanochat": _llama("NanoChat", GEMMA, "mlp.fc2"),
    "vaultgemma": _llama("VaultGemma", GEMMA),
    "jais2": _llama("Jais2", GEMMA, bias=True),
    "arcee": _llama("Arcee", LLAMA),
    "seed_oss": _llama("SeedOss", GEMMA),
    "ernie4_5": _llama("Ernie4_5", GEMMA),
    "helium": _llama("Helium", GEMMA),
    "glm": _llama("Glm", GEMMA),
    "hunyuan_v1_dense": _llama("HunYuanDenseV1", GEMMA),
    "apertus": _llama("Apertus", LLAMA),
    "stablelm": _llama("StableLm", LLAMA),
    "stablelm, in parallel": _llama(
        "StableLm", {**LLAMA, "use_parallel_residual": True, "qk_layernorm": True}
    ),
    "cohere": _llama("Cohere", {**LLAMA, "use_qk_norm": True}),
    "cohere2": _llama("Cohere2", GEMMA),
    "nemotron": _llama("Nemotron", LLAMA),
    "olmo": _llama("Olmo", LLAMA),
    "olmo2": _normed("Olmo2", LLAMA),
    "olmo3": _normed("Olmo3", LLAMA),
    "flex_olmo": _normed("FlexOlmo", {**LLAMA, "num_experts": 2, "num_experts_per_tok": 1}),
    "qwen3_5_text": _llama("Qwen3_5", {**GEMMA, **_LINEAR}, config_of="Qwen3_5Text"),
    "lfm2": _llama("Lfm2", {**LLAMA, "layer_types": ["conv", "full_attention"]}, "feed_forward.w2"),
    "mamba": _mamba("Mamba", _STATES),
    "mamba2": _mamba("Mamba2", _STATES),
    "falcon_mamba": _mamba("FalconMamba", _STATES),
    "nemotron_h": _mamba("NemotronH", {**_BLOCKS, "layers_block_type": _KINDS}, "down_proj", 3),
    "bamba": _llama(
        "Bamba", {**LLAMA, **_SSM, "attn_layer_indices": [1]}, "feed_forward.down_proj"
    ),
    "falcon_h1": _llama("FalconH1", {**LLAMA, **_SSM, "mamba_d_ssm": 32}, "feed_forward.down_proj"),
    "granitemoehybrid": _llama(
        "GraniteMoeHybrid",
        {**LLAMA, **_SSM, **_MIXERS, "shared_intermediate_size": 24, "num_local_experts": 0},
        "shared_mlp.output_linear",
    ),
    "zamba": _zamba("Zamba"),
    "zamba2": _zamba("Zamba2"),
    "recurrent_gemma": _llama(
        "RecurrentGemma",
        {**LLAMA, "block_types": ["recurrent", "attention"]},
        "mlp_block.down_proj",
        bias=True,
    ),
    "afmoe": _normed(
        "Afmoe",
        {**GEMMA, "num_experts": 2, "num_dense_layers": 1, "num_experts_per_tok": 1},
        "post_mlp_layernorm",
    ),
    "gemma4_text": _normed(
        "Gemma4", _GEMMA_4, config_of="Gemma4Text", block="Gemma4TextDecoderLayer"
    ),
    "gemma4_text, with embeddings of each layer": _normed(
        "Gemma4",
        {**_GEMMA_4, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 40},
        "post_per_layer_input_norm",
        config_of="Gemma4Text",
        block="Gemma4TextDecoderLayer",
    ),
    "gemma4_unified_text": _normed(
        "Gemma4Unified",
        {**GEMMA, "global_head_dim": 8},
        config_of="Gemma4UnifiedText",
        block="Gemma4UnifiedTextDecoderLayer",
    ),
    "exaone4": _normed("Exaone4", {**GEMMA, "sliding_window": 4, "sliding_window_pattern": 2}),
    "glm4": _normed("Glm4", GEMMA, "post_mlp_layernorm"),
    "glm4v_text": _glm_4v("Glm4vText"),
    "glm_ocr_text": _glm_4v("GlmOcrText"),
    "led": _bart("LED", _LED, prefix="led"),
    "marian": _bart(
        "Marian", {**BART, "pad_token_id": 0, "decoder_start_token_id": 0}, head="MTModel"
    ),
    "blenderbot-small": _bart("BlenderbotSmall"),
    "mvp": _bart("Mvp"),
    "plbart": _bart("PLBart"),
    "fsmt": _post(
        "FSMT",
        _CONDITIONAL,
        {**BART, "langs": ["a", "b"], "src_vocab_size": 40, "tgt_vocab_size": 40},
        "model.encoder.layers.1.final_layer_norm",
        block="EncoderLayer DecoderLayer",
        inputs=PAIR,
        stacks=TWO,
    ),
    "prophetnet": _pair(
        _post, "ProphetNet", _PROPHETNET, "prophetnet.encoder.layers.1.feed_forward_layer_norm"
    ),
    "t5gemma": _t5gemma("T5Gemma", GEMMA),
    "t5gemma2": _t5gemma("T5Gemma2", {"text_config": GEMMA, "vision_config": IMAGE}),
    "m2m_100": _mbart("M2M100"),
    "pegasus": _mbart("Pegasus"),
    "blenderbot": _mbart("Blenderbot"),
    "bigbird_pegasus": _mbart("BigBirdPegasus", {**BART, "attention_type": "original_full"}),
    "moonshine": _pair(
        _pre, "Moonshine", _MOONSHINE, "model.encoder.layers.1.mlp.fc2", inputs=_HEARD
    ),
    "speech_to_text": _mbart(
        "Speech2Text",
        _SPEECH,
        inputs={**SOUND, "input_features": SOUND["input_features"].reshape(1, 32, 4)},
    ),
    "umt5": _t5("UMT5"),
    "udop": dataclasses.replace(
        _t5("Udop"), inputs={**PAIR, "bbox": TOKENS["input_ids"][..., None].expand(1, 5, 4) / 10}
    ),
    "longt5": _t5("LongT5", local_radius=4),
    "longt5, global": _t5("LongT5", local_radius=4, encoder_attention_type="transient-global"),
    "vilt": _image("Vilt", inputs={**TOKENS, **PIXELS}, max_position_embeddings=64, vocab_size=40),
    "dpt": dataclasses.replace(_image("DPT"), block="DPTViTLayer"),
    "deit": _image("DeiT", "deit.", _IMAGES),
    "vit_mae": _image("ViTMAE"),
    "vit_msn": _image("ViTMSN"),
    "beit": _image("Beit", use_mean_pooling=False),
    "data2vec-vision": _image("Data2VecVision", use_mean_pooling=False),
    "ijepa": _image("IJepa"),
    "yolos": _image("Yolos", image_size=(8, 8), num_detection_tokens=2),
    "vivit": _image("Vivit", inputs=_FILM, num_frames=2, tubelet_size=[2, 4, 4]),
    "videomae": _image("VideoMAE", inputs=_FILM, num_frames=2, use_mean_pooling=False),
    "audio-spectrogram-transformer": _image("AST", inputs=_MEL, max_length=16, num_mel_bins=8),
    "dinov2": _image("Dinov2", output="encoder.layer.1.mlp.fc2"),
    "dinov2, gated": _image(
        "Dinov2", output="encoder.layer.1.mlp.weights_out", use_swiglu_ffn=True
    ),
    "dinov2_with_registers": _image("Dinov2WithRegisters", output="encoder.layer.1.mlp.fc2"),
    "dinov3_vit": _image("DINOv3ViT", output="layer.1.mlp.down_proj"),
    "siglip_text_model": _tower("Siglip", "Text", TEXT),
    "siglip_vision_model": _tower("Siglip", "Vision", IMAGE, PIXELS),
    "metaclip_2_text_model": _tower("MetaClip2", "Text", TEXT),
    "metaclip_2_vision_model": _tower("MetaClip2", "Vision", IMAGE, PIXELS),
    "siglip2_text_model": _tower("Siglip2", "Text", TEXT),
    "siglip2_vision_model": _tower("Siglip2", "Vision", {**IMAGE, "num_patches": 4}, _PATCHES),
    **_two("Hubert", "hubert"),
    **_two("WavLM", "wavlm"),
    **_two("UniSpeech", "unispeech"),
    **_two("UniSpeechSat", "unispeech_sat"),
}


_EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 12}
_LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
_ROUTED = {
    "n_routed_experts": 2,
    "n_shared_experts": 1,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 12,
    "n_group": 1,
    "topk_group": 1,
}
_DELTA = {
    "moe_intermediate_size": 12,
    "num_local_experts": 2,
    "num_experts_per_tok": 1,
    "linear_head_dim": 8,
    "linear_num_heads": 2,
    "head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
    "mlp_layer_types": ["dense", "sparse"],
}
_ERNIE_VL = {
    **GEMMA,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
    "moe_intermediate_size": [12, 4],
    "moe_num_experts": 2,
    "moe_k": 1,
    "mlp_layer_types": ["dense", "sparse"],
}
_ERNIE_VISION = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16}
_SPARSE = {"num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 2}
_DENSE_FIRST = {**_ROUTED, "first_k_dense_replace": 1}
_INDEX = {"index_n_heads": 2, "index_head_dim": 8, "index_topk": 4}
_EVERY_SECOND = {
    f"{of}_layer_{it}": n for of in ("attn", "expert") for it, n in (("period", 2), ("offset", 1))
}
_SHARED = {"shared_expert_intermediate_size": 12}


def _mixture(stem, *configs, output="mlp.experts.0.down_proj", **more):
    merged = {key: value for config in configs for key, value in config.items()}
    return _llama(stem, merged, output, **more)


_mixtral = functools.partial(_mixture, output="block_sparse_moe.experts.0.w2")

_joined = functools.partial(_mixture, output="mlp.experts.down_proj", leaf="", axis=2)

# Mixtures of experts: transformers merges what most of their files hold apart.
MIXTURES = {
    "mixtral": _mixtral("Mixtral", LLAMA, _LOCAL),
    "phimoe": _mixtral("Phimoe", LLAMA, _LOCAL),
    "minimax_m2": _mixtral("MiniMaxM2", GEMMA, _LOCAL),
    "qwen2_moe": _mixture("Qwen2Moe", LLAMA, _EXPERTS, _SHARED, {"mlp_only_layers": [0]}),
    "qwen3_moe": _mixture("Qwen3Moe", GEMMA, _EXPERTS),
    "olmoe": _mixture("Olmoe", LLAMA, {"num_experts": 2, "num_experts_per_tok": 1}),
    "deepseek_v2": _mixture("DeepseekV2", _LATENT, _DENSE_FIRST),
    "deepseek_v3": _mixture("DeepseekV3", _LATENT, _DENSE_FIRST, {"n_routed_experts": 4}),
    "glm4_moe": _mixture("Glm4Moe", GEMMA, _DENSE_FIRST),
    "glm4v_moe_text": _text(
        "Glm4vMoeText", "Glm4vMoeTextDecoderLayer", "mlp.experts.0.down_proj", **_DENSE_FIRST
    ),
    "glm4_moe_lite": _mixture("Glm4MoeLite", _LATENT, _ROUTED),
    "dots1": _mixture("Dots1", GEMMA, _DENSE_FIRST),
    "ernie4_5_moe": _mixture(
        "Ernie4_5_Moe",
        GEMMA,
        {"moe_num_experts": 2, "moe_k": 1, "moe_intermediate_size": 12, "moe_layer_start_index": 1},
    ),
    "hunyuan_v1_moe": _mixture("HunYuanMoEV1", GEMMA, {"num_experts": 2, "moe_topk": 1}),
    "solar_open": _mixture("SolarOpen", GEMMA, _ROUTED),
    "mistral4": _mixture("Mistral4", _LATENT, _DENSE_FIRST),
    "kimi_linear": _mixture("KimiLinear", _LATENT, _DELTA, output="block_sparse_moe.experts.0.w2"),
    "bailing_hybrid": _mixture("BailingHybrid", _LATENT, _DELTA, {"n_group": 1, "topk_group": 1}),
    "sarvam_moe": _mixture("Glm4Moe", GEMMA, _DENSE_FIRST, config_of="SarvamMoE"),
    "sarvam_mla": _mixture("DeepseekV3", _LATENT, _DENSE_FIRST, config_of="SarvamMLA"),
    "granitemoe_swa": _mixture(
        "GraniteMoeSWA", LLAMA, _LOCAL, output="block_sparse_moe.experts.down_proj", leaf="", axis=1
    ),
    "ernie4_5_vl_moe": _mixture(
        "Ernie4_5_VLMoe",
        {"text_config": _ERNIE_VL, "vision_config": _ERNIE_VISION},
        head=_CONDITIONAL,
    ),
    "cohere2_moe": _mixture(
        "Cohere2Moe", GEMMA, _EXPERTS, {"num_shared_experts": 1, "first_k_dense_replace": 1}
    ),
    "qwen3_omni_moe_text": dataclasses.replace(
        _text(
            "Qwen3OmniMoeThinkerText",
            "Qwen3OmniMoeThinkerTextDecoderLayer",
            config_of="Qwen3OmniMoeText",
            **_EXPERTS,
        ),
        output="layers.1.mlp.experts.0.down_proj.weight",
    ),
    "switch_transformers": _pre(
        "SwitchTransformers",
        _CONDITIONAL,
        {**T5, "num_decoder_layers": 2, **_SPARSE, "num_experts": 2},
        "encoder.block.1.layer.1.mlp.experts.expert_0.wo",
        block="SwitchTransformersBlock",
        inputs=PAIR,
        bias=False,
        stacks=TWO,
    ),
    "nllb-moe": _pair(
        _pre,
        "NllbMoe",
        {**BART, "num_experts": 2, "encoder_sparse_step": 2, "decoder_sparse_step": 1},
        "model.encoder.layers.1.ffn.experts.expert_0.fc2",
    ),
    "hy_v3": _mixture("HYV3", GEMMA, _EXPERTS, {"num_shared_experts": 1}),
    "laguna": _mixture("Laguna", GEMMA, _EXPERTS, {"shared_expert_intermediate_size": 12}),
    "mimo_v2_flash": _mixture("MiMoV2Flash", GEMMA, _ROUTED),
    "mellum": _mixture("Mellum", GEMMA, _EXPERTS),
    "deepseek_v32": _mixture("DeepseekV32", _LATENT, _DENSE_FIRST, _INDEX),
    "glm_moe_dsa": _mixture(
        "GlmMoeDsa", _LATENT, _ROUTED, _INDEX, {"mlp_layer_types": ["dense", "sparse"]}
    ),
    "lfm2_moe": _mixture(
        "Lfm2Moe",
        LLAMA,
        {**_EXPERTS, "num_dense_layers": 1, "layer_types": ["conv", "full_attention"]},
        output="feed_forward.experts.0.w2",
    ),
    "nemotron_h, with experts": _mamba(
        "NemotronH",
        {**_BLOCKS, **_ROUTED, "layers_block_type": ["full_attention", "moe"]},
        "experts.0.down_proj",
    ),
    "jamba": _mixture(
        "Jamba",
        LLAMA,
        {"num_experts": 2, "mamba_d_state": 4, "mamba_dt_rank": 4, **_EVERY_SECOND},
        output="feed_forward.experts.0.down_proj",
        block="JambaMambaDecoderLayer JambaAttentionDecoderLayer",
    ),
    "exaone_moe": _mixture("ExaoneMoe", GEMMA, _EXPERTS),
    "qwen3_next": _mixture("Qwen3Next", GEMMA, _EXPERTS, _LINEAR, _SHARED),
    "qwen3_5_moe_text": _mixture(
        "Qwen3_5Moe", GEMMA, _EXPERTS, _LINEAR, _SHARED, config_of="Qwen3_5MoeText"
    ),
    # As transformers writes it; the Hub has (experts, inner, hidden).
    "qwen3_vl_moe_text": dataclasses.replace(
        _text("Qwen3VLMoeText", "Qwen3VLMoeTextDecoderLayer", "mlp.experts.down_proj", **_EXPERTS),
        output="layers.1.mlp.experts.down_proj",
    ),
    "aria_text": _mixture(
        "AriaText", LLAMA, {"moe_num_experts": 2, "moe_topk": 1}, output="mlp.experts.fc2", axis=2
    ),
    "openai_privacy_filter": _mixture(
        "OpenAIPrivacyFilter",
        GEMMA,
        _LOCAL,
        head="ForTokenClassification",
        output="mlp.experts.down_proj",
        block="OpenAIPrivacyFilterEncoderLayer",
        leaf="",
        axis=2,
    ),
    "gpt_oss": _joined("GptOss", GEMMA, _LOCAL, bias=True),
    "llama4_text": _joined(
        "Llama4",
        GEMMA,
        _LOCAL,
        {"interleave_moe_layer_step": 2, "intermediate_size_mlp": 24},
        output="feed_forward.experts.down_proj",
        config_of="Llama4Text",
        block="Llama4TextDecoderLayer",
    ),
    "granitemoe": _mixture(
        "GraniteMoe", LLAMA, _LOCAL, output="block_sparse_moe.output_linear", axis=1
    ),
    "granitemoeshared": _mixture(
        "GraniteMoeShared",
        LLAMA,
        _LOCAL,
        {"shared_intermediate_size": 12},
        output="block_sparse_moe.output_linear",
        axis=1,
    ),
    "granitemoehybrid, with experts": _mixture(
        "GraniteMoeHybrid",
        LLAMA,
        _SSM,
        _MIXERS,
        _LOCAL,
        {"shared_intermediate_size": 24},
        output="block_sparse_moe.output_linear",
        axis=1,
    ),
}

EVERY = {**FAMILIES, **ODD, **KIN, **MIXTURES}


def save_family(name: str, folder: Path, layers: int | None = None) -> None:
    """Save a family's tiny model, with another number of layers than two if it is given."""
    made(name, layers).save_pretrained(folder)


def save_family_in_shards(name: str, folder: Path) -> None:
    """Save the same in a few shards, with an index."""
    model = made(name)
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    model.save_pretrained(folder, max_shard_size=size // 3)


@functools.cache
def made(name: str, layers: int | None = None) -> t.PreTrainedModel:
    """Make a family's tiny model in memory."""
    config = copy.deepcopy(EVERY[name].config)
    if layers is not None:
        config.num_hidden_layers = layers
    return make_unequal(EVERY[name].model, config)
