"""Every family of the registry as a tiny model: how to make it, run it, and what to find in it."""

from __future__ import annotations

import functools
from pathlib import Path

import transformers as t
from kin import KIN
from mixtures import MIXTURES
from tiny import (
    ALBERT,
    AUDIO,
    BART,
    DEBERTA,
    GEMMA,
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
    make_unequal,
    post,
    pre,
)

FAMILIES = {
    "bert": post(
        t.BertForMaskedLM,
        t.BertConfig(**TEXT),
        "BertLayer",
        "bert.encoder.layer.1.output.LayerNorm.weight",
    ),
    "roberta": post(
        t.RobertaForMaskedLM,
        t.RobertaConfig(**TEXT),
        "RobertaLayer",
        "roberta.encoder.layer.1.output.LayerNorm.weight",
    ),
    "xlm-roberta": post(
        t.XLMRobertaForMaskedLM,
        t.XLMRobertaConfig(**TEXT),
        "XLMRobertaLayer",
        "roberta.encoder.layer.1.output.LayerNorm.weight",
    ),
    "camembert": post(
        t.CamembertForMaskedLM,
        t.CamembertConfig(**TEXT),
        "CamembertLayer",
        "roberta.encoder.layer.1.output.LayerNorm.weight",
    ),
    "electra": post(
        t.ElectraForMaskedLM,
        t.ElectraConfig(**TEXT, embedding_size=12),
        "ElectraLayer",
        "electra.encoder.layer.1.output.LayerNorm.weight",
    ),
    "mpnet": post(
        t.MPNetForMaskedLM,
        t.MPNetConfig(**TEXT),
        "MPNetLayer",
        "mpnet.encoder.layer.1.output.LayerNorm.weight",
    ),
    "distilbert": post(
        t.DistilBertForMaskedLM,
        t.DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=24, vocab_size=40),
        "TransformerBlock",
        "distilbert.transformer.layer.1.output_layer_norm.weight",
    ),
    # One layer, run three times.
    "albert": post(
        t.AlbertForMaskedLM,
        t.AlbertConfig(**{**ALBERT, "num_hidden_layers": 3}),
        "AlbertLayer",
        "albert.encoder.albert_layer_groups.0.albert_layers.0.full_layer_layer_norm.weight",
        stacks={"": 1},
        calls=3,
    ),
    "albert, two groups": post(
        t.AlbertForMaskedLM,
        t.AlbertConfig(**{**ALBERT, "num_hidden_layers": 4, "num_hidden_groups": 2}),
        "AlbertLayer",
        "albert.encoder.albert_layer_groups.1.albert_layers.0.full_layer_layer_norm.weight",
        calls=4,
    ),
    "deberta": post(
        t.DebertaForMaskedLM,
        t.DebertaConfig(**DEBERTA),
        "DebertaLayer",
        "deberta.encoder.layer.1.output.LayerNorm.weight",
    ),
    "deberta-v2, as v3": post(
        t.DebertaV2ForMaskedLM,
        t.DebertaV2Config(**DEBERTA, norm_rel_ebd="layer_norm", position_buckets=8),
        "DebertaV2Layer",
        "deberta.encoder.layer.1.output.LayerNorm.weight",
    ),
    "xlnet": post(
        t.XLNetLMHeadModel,
        t.XLNetConfig(d_model=16, n_layer=2, n_head=2, d_inner=24, vocab_size=40),
        "XLNetLayer",
        "transformer.layer.1.ff.layer_norm.weight",
    ),
    "bart": post(
        t.BartForConditionalGeneration,
        t.BartConfig(**BART),
        "BartEncoderLayer BartDecoderLayer",
        "model.encoder.layers.1.final_layer_norm.weight",
        inputs=PAIR,
        stacks=TWO,
    ),
    "opt, post-norm": post(
        t.OPTForCausalLM,
        t.OPTConfig(**OPT, word_embed_proj_dim=12, do_layer_norm_before=False),
        "OPTDecoderLayer",
        "model.decoder.layers.1.final_layer_norm.weight",
    ),
    "wav2vec2": post(
        t.Wav2Vec2ForCTC,
        t.Wav2Vec2Config(**AUDIO),
        "Wav2Vec2EncoderLayer",
        "wav2vec2.encoder.layers.1.final_layer_norm.weight",
        inputs=WAVE,
    ),
    "gpt2": pre(
        t.GPT2LMHeadModel,
        t.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=64, vocab_size=40),
        "GPT2Block",
        "transformer.h.1.mlp.c_proj.weight",
        axis=1,
    ),
    "gpt_neo": pre(
        t.GPTNeoForCausalLM,
        t.GPTNeoConfig(
            hidden_size=16,
            num_layers=2,
            num_heads=2,
            vocab_size=40,
            max_position_embeddings=64,
            attention_types=[[["global", "local"], 1]],
        ),
        "GPTNeoBlock",
        "transformer.h.1.mlp.c_proj.weight",
    ),
    "gpt_neox": pre(
        t.GPTNeoXForCausalLM,
        t.GPTNeoXConfig(**TEXT),
        "GPTNeoXLayer",
        "gpt_neox.layers.1.mlp.dense_4h_to_h.weight",
    ),
    "gpt_neox, one after the other": pre(
        t.GPTNeoXForCausalLM,
        t.GPTNeoXConfig(**TEXT, use_parallel_residual=False),
        "GPTNeoXLayer",
        "gpt_neox.layers.1.mlp.dense_4h_to_h.weight",
    ),
    "opt": pre(
        t.OPTForCausalLM,
        t.OPTConfig(**OPT, word_embed_proj_dim=16),
        "OPTDecoderLayer",
        "model.decoder.layers.1.fc2.weight",
    ),
    "bloom": pre(
        t.BloomForCausalLM,
        t.BloomConfig(hidden_size=16, n_layer=2, n_head=2, vocab_size=40),
        "BloomBlock",
        "transformer.h.1.mlp.dense_4h_to_h.weight",
    ),
    "llama": pre(
        t.LlamaForCausalLM,
        t.LlamaConfig(**LLAMA),
        "LlamaDecoderLayer",
        "model.layers.1.mlp.down_proj.weight",
        bias=False,
    ),
    "mistral": pre(
        t.MistralForCausalLM,
        t.MistralConfig(**LLAMA),
        "MistralDecoderLayer",
        "model.layers.1.mlp.down_proj.weight",
        bias=False,
    ),
    "qwen2": pre(
        t.Qwen2ForCausalLM,
        t.Qwen2Config(**LLAMA),
        "Qwen2DecoderLayer",
        "model.layers.1.mlp.down_proj.weight",
        bias=False,
    ),
    "qwen3": pre(
        t.Qwen3ForCausalLM,
        t.Qwen3Config(**LLAMA, head_dim=8),
        "Qwen3DecoderLayer",
        "model.layers.1.mlp.down_proj.weight",
        bias=False,
    ),
    "gemma": pre(
        t.GemmaForCausalLM,
        t.GemmaConfig(**GEMMA),
        "GemmaDecoderLayer",
        "model.layers.1.mlp.down_proj.weight",
        bias=False,
    ),
    "gemma2": pre(
        t.Gemma2ForCausalLM,
        t.Gemma2Config(**GEMMA),
        "Gemma2DecoderLayer",
        "model.layers.1.post_feedforward_layernorm.weight",
        kind="rmsnorm",
        offset=1.0,
        bias=False,
    ),
    "gemma3_text": pre(
        t.Gemma3ForCausalLM,
        t.Gemma3TextConfig(**GEMMA),
        "Gemma3DecoderLayer",
        "model.layers.1.post_feedforward_layernorm.weight",
        kind="rmsnorm",
        offset=1.0,
        bias=False,
    ),
    "gemma3": pre(
        t.Gemma3ForConditionalGeneration,
        t.Gemma3Config(text_config=GEMMA, vision_config=IMAGE, mm_tokens_per_image=4),
        "Gemma3DecoderLayer",
        "language_model.model.layers.1.post_feedforward_layernorm.weight",
        kind="rmsnorm",
        offset=1.0,
        bias=False,
    ),
    "phi": pre(
        t.PhiForCausalLM,
        t.PhiConfig(**TEXT),
        "PhiDecoderLayer",
        "model.layers.1.mlp.fc2.weight",
    ),
    "phi3": pre(
        t.Phi3ForCausalLM,
        t.Phi3Config(**TEXT, pad_token_id=0),
        "Phi3DecoderLayer",
        "model.layers.1.mlp.down_proj.weight",
        bias=False,
    ),
    "modernbert": pre(
        t.ModernBertForMaskedLM,
        t.ModernBertConfig(
            **TEXT, pad_token_id=0, global_attn_every_n_layers=2, tie_word_embeddings=True
        ),
        "ModernBertEncoderLayer",
        "model.layers.1.mlp.Wo.weight",
        bias=False,
    ),
    "mbart": pre(
        t.MBartForConditionalGeneration,
        t.MBartConfig(**BART),
        "MBartEncoderLayer MBartDecoderLayer",
        "model.encoder.layers.1.fc2.weight",
        inputs=PAIR,
        stacks=TWO,
    ),
    "whisper": pre(
        t.WhisperForConditionalGeneration,
        t.WhisperConfig(
            **SEQ2SEQ,
            max_source_positions=16,
            max_target_positions=16,
            num_mel_bins=4,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=3,
        ),
        "WhisperEncoderLayer WhisperDecoderLayer",
        "model.encoder.layers.1.fc2.weight",
        inputs=SOUND,
        stacks=TWO,
    ),
    "t5": pre(
        t.T5ForConditionalGeneration,
        t.T5Config(**T5),
        "T5Block",
        "encoder.block.1.layer.1.DenseReluDense.wo.weight",
        inputs=PAIR,
        bias=False,
        stacks=TWO,
    ),
    "mt5": pre(
        t.MT5ForConditionalGeneration,
        t.MT5Config(**T5),
        "MT5Block",
        "encoder.block.1.layer.1.DenseReluDense.wo.weight",
        inputs=PAIR,
        bias=False,
        stacks=TWO,
    ),
    "vit": pre(
        t.ViTForImageClassification,
        t.ViTConfig(**IMAGE),
        "ViTLayer",
        "vit.encoder.layer.1.output.dense.weight",
        inputs=PIXELS,
    ),
    "clip_text_model": pre(
        t.CLIPTextModel,
        t.CLIPTextConfig(**TEXT),
        "CLIPEncoderLayer",
        "encoder.layers.1.mlp.fc2.weight",
    ),
    "clip_vision_model": pre(
        t.CLIPVisionModel,
        t.CLIPVisionConfig(**IMAGE),
        "CLIPEncoderLayer",
        "encoder.layers.1.mlp.fc2.weight",
        inputs=PIXELS,
    ),
    "wav2vec2, pre-norm": pre(
        t.Wav2Vec2ForCTC,
        t.Wav2Vec2Config(**AUDIO, do_stable_layer_norm=True, feat_extract_norm="layer"),
        "Wav2Vec2EncoderLayerStableLayerNorm",
        "wav2vec2.encoder.layers.1.feed_forward.output_dense.weight",
        inputs=WAVE,
    ),
}

# What the claims of FAMILIES do not hold of: the last operation of one layer is outside it, or
# there is a tower beside the one that is edited.
ODD = {
    "deberta-v2, with a convolution": post(
        t.DebertaV2ForMaskedLM,
        t.DebertaV2Config(**DEBERTA, conv_kernel_size=3, conv_act="gelu"),
        "DebertaV2Layer",
        "deberta.encoder.layer.1.output.LayerNorm.weight",
    ),
    "clip": pre(
        t.CLIPModel,
        t.CLIPConfig(text_config=TEXT, vision_config=IMAGE, projection_dim=12),
        "CLIPEncoderLayer",
        "text_model.encoder.layers.1.mlp.fc2.weight",
        inputs={**TOKENS, **PIXELS},
        stacks={"text": 2},
    ),
    "clip, two widths": pre(
        t.CLIPModel,
        t.CLIPConfig(
            text_config=TEXT, vision_config={**IMAGE, "hidden_size": 32}, projection_dim=12
        ),
        "CLIPEncoderLayer",
        "text_model.encoder.layers.1.mlp.fc2.weight",
        inputs={**TOKENS, **PIXELS},
        stacks={"text": 2},
    ),
    "siglip": pre(
        t.SiglipModel,
        t.SiglipConfig(text_config=TEXT, vision_config=IMAGE),
        "SiglipEncoderLayer",
        "text_model.encoder.layers.1.mlp.fc2.weight",
        inputs={**TOKENS, **PIXELS},
        stacks={"text": 2},
    ),
    "siglip2": pre(
        t.Siglip2Model,
        t.Siglip2Config(text_config=TEXT, vision_config={**IMAGE, "num_patches": 4}),
        "Siglip2EncoderLayer",
        "text_model.encoder.layers.1.mlp.fc2.weight",
        inputs={**TOKENS, **PIXELS},
        stacks={"text": 2},
    ),
}

EVERY = {**FAMILIES, **ODD, **KIN, **MIXTURES}


def save_family(name: str, folder: Path) -> None:
    """Save a family's tiny model."""
    _made(name).save_pretrained(folder)


def save_family_in_shards(name: str, folder: Path) -> None:
    """Save the same in a few shards, with an index."""
    model = _made(name)
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    model.save_pretrained(folder, max_shard_size=size // 3)


@functools.cache
def _made(name: str) -> t.PreTrainedModel:
    return make_unequal(EVERY[name].model, EVERY[name].config)
