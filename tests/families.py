"""Every family of the registry as a tiny model: how to make it, run it, and what to find in it."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers as t

_TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 40,
    "max_position_embeddings": 64,
}
_ALBERT = {**_TEXT, "embedding_size": 12}
_DEBERTA = {**_TEXT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
_LLAMA = {**_TEXT, "num_key_value_heads": 1, "pad_token_id": 0}
_GEMMA = {**_LLAMA, "head_dim": 8}
_SEQ2SEQ = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "vocab_size": 40,
}
_BART = {**_SEQ2SEQ, "max_position_embeddings": 64}
_T5 = {"d_model": 16, "num_layers": 2, "num_heads": 2, "d_ff": 24, "d_kv": 8, "vocab_size": 40}
_OPT = {**{k: v for k, v in _TEXT.items() if k != "intermediate_size"}, "ffn_dim": 24}
_IMAGE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 8,
    "patch_size": 4,
}
_AUDIO = {
    **{k: v for k, v in _TEXT.items() if k != "max_position_embeddings"},
    "conv_dim": (8, 8),
    "conv_stride": (5, 2),
    "conv_kernel": (10, 3),
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}

_TOKENS = {"input_ids": torch.tensor([[5, 6, 7, 8, 9]])}
_PAIR = {**_TOKENS, "decoder_input_ids": torch.tensor([[4, 6, 8]])}
_PIXELS = {"pixel_values": torch.linspace(-1, 1, 3 * 8 * 8).reshape(1, 3, 8, 8)}
_WAVE = {"input_values": torch.linspace(-1, 1, 200).sin().reshape(1, 200)}
_SOUND = {
    "input_features": torch.linspace(-1, 1, 4 * 32).reshape(1, 4, 32),
    "decoder_input_ids": torch.tensor([[4, 6, 8]]),
}


@dataclass(frozen=True)
class Tiny:
    """A tiny model and what is true of it.

    ``block`` is the class of its layers, ``output`` the gain of layer 1's output site in the
    file, ``stream`` whether the norm comes after the residual sum ("post") or the layer adds to
    the stream ("pre"). ``stacks`` has the number of layers of each stack in the file; ``calls``
    how often they are run, if they are shared.
    """

    model: type
    config: object
    inputs: dict[str, torch.Tensor]
    block: str
    stream: str
    output: str
    kind: str = "layernorm"
    axis: int = 0
    offset: float = 0.0
    bias: bool = True
    stacks: dict[str, int] = field(default_factory=lambda: {"": 2})
    calls: int = 0


_TWO = {"encoder": 2, "decoder": 2}


def _post(model, config, block, output, *, inputs=None, **more):
    return Tiny(model, config, inputs or _TOKENS, block, "post", output, **more)


def _pre(model, config, block, output, *, inputs=None, kind="dense", **more):
    return Tiny(model, config, inputs or _TOKENS, block, "pre", output, kind, **more)


FAMILIES = {
    "bert": _post(
        t.BertForMaskedLM,
        t.BertConfig(**_TEXT),
        "BertLayer",
        "bert.encoder.layer.1.output.LayerNorm.weight",
    ),
    "roberta": _post(
        t.RobertaForMaskedLM,
        t.RobertaConfig(**_TEXT),
        "RobertaLayer",
        "roberta.encoder.layer.1.output.LayerNorm.weight",
    ),
    "xlm-roberta": _post(
        t.XLMRobertaForMaskedLM,
        t.XLMRobertaConfig(**_TEXT),
        "XLMRobertaLayer",
        "roberta.encoder.layer.1.output.LayerNorm.weight",
    ),
    "camembert": _post(
        t.CamembertForMaskedLM,
        t.CamembertConfig(**_TEXT),
        "CamembertLayer",
        "roberta.encoder.layer.1.output.LayerNorm.weight",
    ),
    "electra": _post(
        t.ElectraForMaskedLM,
        t.ElectraConfig(**_TEXT, embedding_size=12),
        "ElectraLayer",
        "electra.encoder.layer.1.output.LayerNorm.weight",
    ),
    "mpnet": _post(
        t.MPNetForMaskedLM,
        t.MPNetConfig(**_TEXT),
        "MPNetLayer",
        "mpnet.encoder.layer.1.output.LayerNorm.weight",
    ),
    "distilbert": _post(
        t.DistilBertForMaskedLM,
        t.DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=24, vocab_size=40),
        "TransformerBlock",
        "distilbert.transformer.layer.1.output_layer_norm.weight",
    ),
    # One layer, run three times.
    "albert": _post(
        t.AlbertForMaskedLM,
        t.AlbertConfig(**{**_ALBERT, "num_hidden_layers": 3}),
        "AlbertLayer",
        "albert.encoder.albert_layer_groups.0.albert_layers.0.full_layer_layer_norm.weight",
        stacks={"": 1},
        calls=3,
    ),
    "albert, two groups": _post(
        t.AlbertForMaskedLM,
        t.AlbertConfig(**{**_ALBERT, "num_hidden_layers": 4, "num_hidden_groups": 2}),
        "AlbertLayer",
        "albert.encoder.albert_layer_groups.1.albert_layers.0.full_layer_layer_norm.weight",
        calls=4,
    ),
    "deberta": _post(
        t.DebertaForMaskedLM,
        t.DebertaConfig(**_DEBERTA),
        "DebertaLayer",
        "deberta.encoder.layer.1.output.LayerNorm.weight",
    ),
    "deberta-v2, as v3": _post(
        t.DebertaV2ForMaskedLM,
        t.DebertaV2Config(**_DEBERTA, norm_rel_ebd="layer_norm", position_buckets=8),
        "DebertaV2Layer",
        "deberta.encoder.layer.1.output.LayerNorm.weight",
    ),
    "xlnet": _post(
        t.XLNetLMHeadModel,
        t.XLNetConfig(d_model=16, n_layer=2, n_head=2, d_inner=24, vocab_size=40),
        "XLNetLayer",
        "transformer.layer.1.ff.layer_norm.weight",
    ),
    "bart": _post(
        t.BartForConditionalGeneration,
        t.BartConfig(**_BART),
        "BartEncoderLayer BartDecoderLayer",
        "model.encoder.layers.1.final_layer_norm.weight",
        inputs=_PAIR,
        stacks=_TWO,
    ),
    "opt, post-norm": _post(
        t.OPTForCausalLM,
        t.OPTConfig(**_OPT, word_embed_proj_dim=12, do_layer_norm_before=False),
        "OPTDecoderLayer",
        "model.decoder.layers.1.final_layer_norm.weight",
    ),
    "wav2vec2": _post(
        t.Wav2Vec2ForCTC,
        t.Wav2Vec2Config(**_AUDIO),
        "Wav2Vec2EncoderLayer",
        "wav2vec2.encoder.layers.1.final_layer_norm.weight",
        inputs=_WAVE,
    ),
    "gpt2": _pre(
        t.GPT2LMHeadModel,
        t.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=64, vocab_size=40),
        "GPT2Block",
        "transformer.h.1.mlp.c_proj.weight",
        axis=1,
    ),
    "gpt_neo": _pre(
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
    "gpt_neox": _pre(
        t.GPTNeoXForCausalLM,
        t.GPTNeoXConfig(**_TEXT),
        "GPTNeoXLayer",
        "gpt_neox.layers.1.mlp.dense_4h_to_h.weight",
    ),
    "gpt_neox, one after the other": _pre(
        t.GPTNeoXForCausalLM,
        t.GPTNeoXConfig(**_TEXT, use_parallel_residual=False),
        "GPTNeoXLayer",
        "gpt_neox.layers.1.mlp.dense_4h_to_h.weight",
    ),
    "opt": _pre(
        t.OPTForCausalLM,
        t.OPTConfig(**_OPT, word_embed_proj_dim=16),
        "OPTDecoderLayer",
        "model.decoder.layers.1.fc2.weight",
    ),
    "bloom": _pre(
        t.BloomForCausalLM,
        t.BloomConfig(hidden_size=16, n_layer=2, n_head=2, vocab_size=40),
        "BloomBlock",
        "transformer.h.1.mlp.dense_4h_to_h.weight",
    ),
    "llama": _pre(
        t.LlamaForCausalLM,
        t.LlamaConfig(**_LLAMA),
        "LlamaDecoderLayer",
        "model.layers.1.mlp.down_proj.weight",
        bias=False,
    ),
    "mistral": _pre(
        t.MistralForCausalLM,
        t.MistralConfig(**_LLAMA),
        "MistralDecoderLayer",
        "model.layers.1.mlp.down_proj.weight",
        bias=False,
    ),
    "qwen2": _pre(
        t.Qwen2ForCausalLM,
        t.Qwen2Config(**_LLAMA),
        "Qwen2DecoderLayer",
        "model.layers.1.mlp.down_proj.weight",
        bias=False,
    ),
    "qwen3": _pre(
        t.Qwen3ForCausalLM,
        t.Qwen3Config(**_LLAMA, head_dim=8),
        "Qwen3DecoderLayer",
        "model.layers.1.mlp.down_proj.weight",
        bias=False,
    ),
    "gemma": _pre(
        t.GemmaForCausalLM,
        t.GemmaConfig(**_GEMMA),
        "GemmaDecoderLayer",
        "model.layers.1.mlp.down_proj.weight",
        bias=False,
    ),
    "gemma2": _pre(
        t.Gemma2ForCausalLM,
        t.Gemma2Config(**_GEMMA),
        "Gemma2DecoderLayer",
        "model.layers.1.post_feedforward_layernorm.weight",
        kind="rmsnorm",
        offset=1.0,
        bias=False,
    ),
    "gemma3_text": _pre(
        t.Gemma3ForCausalLM,
        t.Gemma3TextConfig(**_GEMMA),
        "Gemma3DecoderLayer",
        "model.layers.1.post_feedforward_layernorm.weight",
        kind="rmsnorm",
        offset=1.0,
        bias=False,
    ),
    "gemma3": _pre(
        t.Gemma3ForConditionalGeneration,
        t.Gemma3Config(text_config=_GEMMA, vision_config=_IMAGE, mm_tokens_per_image=4),
        "Gemma3DecoderLayer",
        "language_model.model.layers.1.post_feedforward_layernorm.weight",
        kind="rmsnorm",
        offset=1.0,
        bias=False,
    ),
    "phi": _pre(
        t.PhiForCausalLM,
        t.PhiConfig(**_TEXT),
        "PhiDecoderLayer",
        "model.layers.1.mlp.fc2.weight",
    ),
    "phi3": _pre(
        t.Phi3ForCausalLM,
        t.Phi3Config(**_TEXT, pad_token_id=0),
        "Phi3DecoderLayer",
        "model.layers.1.mlp.down_proj.weight",
        bias=False,
    ),
    "modernbert": _pre(
        t.ModernBertForMaskedLM,
        t.ModernBertConfig(
            **_TEXT, pad_token_id=0, global_attn_every_n_layers=2, tie_word_embeddings=True
        ),
        "ModernBertEncoderLayer",
        "model.layers.1.mlp.Wo.weight",
        bias=False,
    ),
    "mbart": _pre(
        t.MBartForConditionalGeneration,
        t.MBartConfig(**_BART),
        "MBartEncoderLayer MBartDecoderLayer",
        "model.encoder.layers.1.fc2.weight",
        inputs=_PAIR,
        stacks=_TWO,
    ),
    "whisper": _pre(
        t.WhisperForConditionalGeneration,
        t.WhisperConfig(
            **_SEQ2SEQ,
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
        inputs=_SOUND,
        stacks=_TWO,
    ),
    "t5": _pre(
        t.T5ForConditionalGeneration,
        t.T5Config(**_T5),
        "T5Block",
        "encoder.block.1.layer.1.DenseReluDense.wo.weight",
        inputs=_PAIR,
        bias=False,
        stacks=_TWO,
    ),
    "mt5": _pre(
        t.MT5ForConditionalGeneration,
        t.MT5Config(**_T5),
        "MT5Block",
        "encoder.block.1.layer.1.DenseReluDense.wo.weight",
        inputs=_PAIR,
        bias=False,
        stacks=_TWO,
    ),
    "vit": _pre(
        t.ViTForImageClassification,
        t.ViTConfig(**_IMAGE),
        "ViTLayer",
        "vit.encoder.layer.1.output.dense.weight",
        inputs=_PIXELS,
    ),
    "clip_text_model": _pre(
        t.CLIPTextModel,
        t.CLIPTextConfig(**_TEXT),
        "CLIPEncoderLayer",
        "encoder.layers.1.mlp.fc2.weight",
    ),
    "clip_vision_model": _pre(
        t.CLIPVisionModel,
        t.CLIPVisionConfig(**_IMAGE),
        "CLIPEncoderLayer",
        "encoder.layers.1.mlp.fc2.weight",
        inputs=_PIXELS,
    ),
    "wav2vec2, pre-norm": _pre(
        t.Wav2Vec2ForCTC,
        t.Wav2Vec2Config(**_AUDIO, do_stable_layer_norm=True, feat_extract_norm="layer"),
        "Wav2Vec2EncoderLayerStableLayerNorm",
        "wav2vec2.encoder.layers.1.feed_forward.output_dense.weight",
        inputs=_WAVE,
    ),
}

# What the claims of FAMILIES do not hold of: the last operation of one layer is outside it, or
# there is a tower beside the one that is edited.
ODD = {
    "deberta-v2, with a convolution": _post(
        t.DebertaV2ForMaskedLM,
        t.DebertaV2Config(**_DEBERTA, conv_kernel_size=3, conv_act="gelu"),
        "DebertaV2Layer",
        "deberta.encoder.layer.1.output.LayerNorm.weight",
    ),
    "clip": _pre(
        t.CLIPModel,
        t.CLIPConfig(text_config=_TEXT, vision_config=_IMAGE, projection_dim=12),
        "CLIPEncoderLayer",
        "text_model.encoder.layers.1.mlp.fc2.weight",
        inputs={**_TOKENS, **_PIXELS},
        stacks={"text": 2},
    ),
    "clip, two widths": _pre(
        t.CLIPModel,
        t.CLIPConfig(
            text_config=_TEXT, vision_config={**_IMAGE, "hidden_size": 32}, projection_dim=12
        ),
        "CLIPEncoderLayer",
        "text_model.encoder.layers.1.mlp.fc2.weight",
        inputs={**_TOKENS, **_PIXELS},
        stacks={"text": 2},
    ),
}


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
    """Make a tiny model of which no two parameters are equal, as a trained one's are not."""
    family = {**FAMILIES, **ODD}[name]
    torch.manual_seed(0)
    model = family.model(family.config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model
