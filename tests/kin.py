"""The families that share their layers with another one, as tiny models: a lighter table."""

from __future__ import annotations

import transformers as t
from mixtures import LINEAR
from tiny import (
    AUDIO,
    BART,
    GEMMA,
    IMAGE,
    LLAMA,
    PAIR,
    PIXELS,
    SEQ2SEQ,
    SOUND,
    T5,
    TEXT,
    TWO,
    WAVE,
    post,
    pre,
)

_GPT = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "vocab_size": 40}
_LED = {
    **SEQ2SEQ,
    "attention_window": 4,
    "max_encoder_position_embeddings": 64,
    "max_decoder_position_embeddings": 64,
}
_SPEECH = {
    **SEQ2SEQ,
    "max_source_positions": 64,
    "max_target_positions": 64,
    "num_conv_layers": 1,
    "conv_kernel_sizes": (3,),
    "conv_channels": 8,
    "input_feat_per_channel": 4,
}


def _bert(model, config, block, *, prefix):
    return post(model, config, block, f"{prefix}.encoder.layer.1.output.LayerNorm.weight")


def _pre_bert(model, config, block, *, prefix):
    return pre(model, config, block, f"{prefix}.encoder.layer.1.output.dense.weight")


def _llama(model, config, block, *, output="mlp.down_proj", **more):
    return pre(model, config, block, f"model.layers.1.{output}.weight", bias=False, **more)


def _normed(model, config, block, *, output="post_feedforward_layernorm"):
    """Like Llama, with a norm between the output dense layer and the stream."""
    return _llama(model, config, block, output=output, kind="rmsnorm")


def _pair(of, model, config, block, output, **more):
    blocks = f"{block}EncoderLayer {block}DecoderLayer"
    return of(model, config, blocks, output, inputs=PAIR, stacks=TWO, **more)


def _bart(model, config, block, *, prefix="model"):
    return _pair(post, model, config, block, f"{prefix}.encoder.layers.1.final_layer_norm.weight")


def _mbart(model, config, block):
    return _pair(pre, model, config, block, "model.encoder.layers.1.fc2.weight")


def _t5(model, config, block):
    output = "encoder.block.1.layer.1.DenseReluDense.wo.weight"
    return pre(model, config, block, output, inputs=PAIR, bias=False, stacks=TWO)


def _sound(model, config, block, prefix):
    output = f"{prefix}.encoder.layers.1.final_layer_norm.weight"
    return post(model, config(**AUDIO), block, output, inputs=WAVE)


def _stable_sound(model, config, block, prefix):
    output = f"{prefix}.encoder.layers.1.feed_forward.output_dense.weight"
    asked = config(**AUDIO, do_stable_layer_norm=True, feat_extract_norm="layer")
    return pre(model, asked, f"{block}StableLayerNorm", output, inputs=WAVE)


KIN = {
    "longformer": _bert(
        t.LongformerForMaskedLM,
        t.LongformerConfig(**TEXT, attention_window=4),
        "LongformerLayer",
        prefix="longformer",
    ),
    "data2vec-text": _bert(
        t.Data2VecTextForMaskedLM,
        t.Data2VecTextConfig(**TEXT),
        "Data2VecTextLayer",
        prefix="data2vec_text",
    ),
    "big_bird": _bert(
        t.BigBirdForMaskedLM,
        t.BigBirdConfig(**TEXT, attention_type="original_full"),
        "BigBirdLayer",
        prefix="bert",
    ),
    "ernie": _bert(t.ErnieForMaskedLM, t.ErnieConfig(**TEXT), "ErnieLayer", prefix="ernie"),
    "layoutlm": _bert(
        t.LayoutLMForMaskedLM, t.LayoutLMConfig(**TEXT), "LayoutLMLayer", prefix="layoutlm"
    ),
    "rembert": _bert(
        t.RemBertForMaskedLM,
        t.RemBertConfig(**TEXT, input_embedding_size=12, output_embedding_size=12),
        "RemBertLayer",
        prefix="rembert",
    ),
    "nystromformer": _bert(
        t.NystromformerForMaskedLM,
        t.NystromformerConfig(**TEXT, segment_means_seq_len=64),
        "NystromformerLayer",
        prefix="nystromformer",
    ),
    "roformer": _bert(
        t.RoFormerForMaskedLM, t.RoFormerConfig(**TEXT), "RoFormerLayer", prefix="roformer"
    ),
    "convbert": _bert(
        t.ConvBertForMaskedLM,
        t.ConvBertConfig(**TEXT, embedding_size=16, head_ratio=1, conv_kernel_size=3),
        "ConvBertLayer",
        prefix="convbert",
    ),
    "esm": _pre_bert(
        t.EsmForMaskedLM,
        t.EsmConfig(
            **TEXT,
            pad_token_id=1,
            mask_token_id=3,
            position_embedding_type="rotary",
            token_dropout=True,
        ),
        "EsmLayer",
        prefix="esm",
    ),
    "esm, as 1b": _pre_bert(
        t.EsmForMaskedLM,
        t.EsmConfig(
            **TEXT,
            pad_token_id=1,
            mask_token_id=3,
            position_embedding_type="absolute",
            emb_layer_norm_before=True,
        ),
        "EsmLayer",
        prefix="esm",
    ),
    "megatron-bert": _pre_bert(
        t.MegatronBertForMaskedLM, t.MegatronBertConfig(**TEXT), "MegatronBertLayer", prefix="bert"
    ),
    "roberta-prelayernorm": _pre_bert(
        t.RobertaPreLayerNormForMaskedLM,
        t.RobertaPreLayerNormConfig(**TEXT),
        "RobertaPreLayerNormLayer",
        prefix="roberta_prelayernorm",
    ),
    "xlm-roberta-xl": _pre_bert(
        t.XLMRobertaXLForMaskedLM,
        t.XLMRobertaXLConfig(**TEXT),
        "XLMRobertaXLLayer",
        prefix="roberta",
    ),
    "modernbert-decoder": _llama(
        t.ModernBertDecoderForCausalLM,
        t.ModernBertDecoderConfig(**TEXT, pad_token_id=0),
        "ModernBertDecoderLayer",
        output="mlp.Wo",
    ),
    "eurobert": _llama(t.EuroBertForMaskedLM, t.EuroBertConfig(**GEMMA), "EuroBertDecoderLayer"),
    "openai-gpt": post(
        t.OpenAIGPTLMHeadModel, t.OpenAIGPTConfig(**_GPT), "Block", "transformer.h.1.ln_2.weight"
    ),
    "gpt_bigcode": pre(
        t.GPTBigCodeForCausalLM,
        t.GPTBigCodeConfig(**_GPT),
        "GPTBigCodeBlock",
        "transformer.h.1.mlp.c_proj.weight",
    ),
    "gptj": pre(
        t.GPTJForCausalLM,
        t.GPTJConfig(**_GPT, rotary_dim=4),
        "GPTJBlock",
        "transformer.h.1.mlp.fc_out.weight",
    ),
    "codegen": pre(
        t.CodeGenForCausalLM,
        t.CodeGenConfig(**{**_GPT, "n_head": 4}, rotary_dim=4),
        "CodeGenBlock",
        "transformer.h.1.mlp.fc_out.weight",
    ),
    "persimmon": pre(
        t.PersimmonForCausalLM,
        t.PersimmonConfig(**TEXT, pad_token_id=0),
        "PersimmonDecoderLayer",
        "model.layers.1.mlp.dense_4h_to_h.weight",
    ),
    "xglm": pre(
        t.XGLMForCausalLM,
        t.XGLMConfig(
            d_model=16,
            num_layers=2,
            attention_heads=2,
            ffn_dim=24,
            vocab_size=40,
            max_position_embeddings=64,
        ),
        "XGLMDecoderLayer",
        "model.layers.1.fc2.weight",
    ),
    "biogpt": pre(
        t.BioGptForCausalLM,
        t.BioGptConfig(**TEXT),
        "BioGptDecoderLayer",
        "biogpt.layers.1.fc2.weight",
    ),
    "falcon": pre(
        t.FalconForCausalLM,
        t.FalconConfig(**TEXT),
        "FalconDecoderLayer",
        "transformer.h.1.mlp.dense_4h_to_h.weight",
        bias=False,
    ),
    "falcon, as 40b": pre(
        t.FalconForCausalLM,
        t.FalconConfig(**TEXT, new_decoder_architecture=True, num_kv_heads=1),
        "FalconDecoderLayer",
        "transformer.h.1.mlp.dense_4h_to_h.weight",
        bias=False,
    ),
    "falcon, as rw": pre(
        t.FalconForCausalLM,
        t.FalconConfig(**TEXT, alibi=True, parallel_attn=False, multi_query=False, bias=True),
        "FalconDecoderLayer",
        "transformer.h.1.mlp.dense_4h_to_h.weight",
    ),
    "mpt": pre(
        t.MptForCausalLM,
        t.MptConfig(
            d_model=16, n_layers=2, n_heads=2, vocab_size=40, max_seq_len=64, expansion_ratio=2
        ),
        "MptBlock",
        "transformer.blocks.1.ffn.down_proj.weight",
        bias=False,
    ),
    "starcoder2": pre(
        t.Starcoder2ForCausalLM,
        t.Starcoder2Config(**LLAMA),
        "Starcoder2DecoderLayer",
        "model.layers.1.mlp.c_proj.weight",
    ),
    "ministral": _llama(
        t.MinistralForCausalLM, t.MinistralConfig(**GEMMA), "MinistralDecoderLayer"
    ),
    "ministral3": _llama(
        t.Ministral3ForCausalLM, t.Ministral3Config(**GEMMA), "Ministral3DecoderLayer"
    ),
    "smollm3": _llama(t.SmolLM3ForCausalLM, t.SmolLM3Config(**LLAMA), "SmolLM3DecoderLayer"),
    "granite": _llama(t.GraniteForCausalLM, t.GraniteConfig(**LLAMA), "GraniteDecoderLayer"),
    "arcee": _llama(t.ArceeForCausalLM, t.ArceeConfig(**LLAMA), "ArceeDecoderLayer"),
    "seed_oss": _llama(t.SeedOssForCausalLM, t.SeedOssConfig(**GEMMA), "SeedOssDecoderLayer"),
    "ernie4_5": _llama(t.Ernie4_5ForCausalLM, t.Ernie4_5Config(**GEMMA), "Ernie4_5DecoderLayer"),
    "helium": _llama(t.HeliumForCausalLM, t.HeliumConfig(**GEMMA), "HeliumDecoderLayer"),
    "glm": _llama(t.GlmForCausalLM, t.GlmConfig(**GEMMA), "GlmDecoderLayer"),
    "hunyuan_v1_dense": _llama(
        t.HunYuanDenseV1ForCausalLM, t.HunYuanDenseV1Config(**GEMMA), "HunYuanDenseV1DecoderLayer"
    ),
    "apertus": _llama(t.ApertusForCausalLM, t.ApertusConfig(**LLAMA), "ApertusDecoderLayer"),
    "stablelm": _llama(t.StableLmForCausalLM, t.StableLmConfig(**LLAMA), "StableLmDecoderLayer"),
    "stablelm, in parallel": _llama(
        t.StableLmForCausalLM,
        t.StableLmConfig(**LLAMA, use_parallel_residual=True, qk_layernorm=True),
        "StableLmDecoderLayer",
    ),
    "cohere": _llama(
        t.CohereForCausalLM, t.CohereConfig(**LLAMA, use_qk_norm=True), "CohereDecoderLayer"
    ),
    "cohere2": _llama(t.Cohere2ForCausalLM, t.Cohere2Config(**GEMMA), "Cohere2DecoderLayer"),
    "nemotron": _llama(t.NemotronForCausalLM, t.NemotronConfig(**LLAMA), "NemotronDecoderLayer"),
    "olmo": _llama(t.OlmoForCausalLM, t.OlmoConfig(**LLAMA), "OlmoDecoderLayer"),
    "olmo2": _normed(t.Olmo2ForCausalLM, t.Olmo2Config(**LLAMA), "Olmo2DecoderLayer"),
    "olmo3": _normed(t.Olmo3ForCausalLM, t.Olmo3Config(**LLAMA), "Olmo3DecoderLayer"),
    "flex_olmo": _normed(
        t.FlexOlmoForCausalLM,
        t.FlexOlmoConfig(**LLAMA, num_experts=2, num_experts_per_tok=1),
        "FlexOlmoDecoderLayer",
    ),
    "qwen3_5_text": _llama(
        t.Qwen3_5ForCausalLM, t.Qwen3_5TextConfig(**GEMMA, **LINEAR), "Qwen3_5DecoderLayer"
    ),
    "lfm2": _llama(
        t.Lfm2ForCausalLM,
        t.Lfm2Config(**LLAMA, layer_types=["conv", "full_attention"]),
        "Lfm2DecoderLayer",
        output="feed_forward.w2",
    ),
    "exaone4": _normed(
        t.Exaone4ForCausalLM,
        t.Exaone4Config(**GEMMA, sliding_window=4, sliding_window_pattern=2),
        "Exaone4DecoderLayer",
    ),
    "glm4": _normed(
        t.Glm4ForCausalLM, t.Glm4Config(**GEMMA), "Glm4DecoderLayer", output="post_mlp_layernorm"
    ),
    "led": _bart(t.LEDForConditionalGeneration, t.LEDConfig(**_LED), "LED", prefix="led"),
    "marian": _bart(
        t.MarianMTModel, t.MarianConfig(**BART, pad_token_id=0, decoder_start_token_id=0), "Marian"
    ),
    "blenderbot-small": _bart(
        t.BlenderbotSmallForConditionalGeneration,
        t.BlenderbotSmallConfig(**BART),
        "BlenderbotSmall",
    ),
    "mvp": _bart(t.MvpForConditionalGeneration, t.MvpConfig(**BART), "Mvp"),
    "plbart": _bart(t.PLBartForConditionalGeneration, t.PLBartConfig(**BART), "PLBart"),
    "m2m_100": _mbart(t.M2M100ForConditionalGeneration, t.M2M100Config(**BART), "M2M100"),
    "pegasus": _mbart(t.PegasusForConditionalGeneration, t.PegasusConfig(**BART), "Pegasus"),
    "blenderbot": _mbart(
        t.BlenderbotForConditionalGeneration, t.BlenderbotConfig(**BART), "Blenderbot"
    ),
    "speech_to_text": pre(
        t.Speech2TextForConditionalGeneration,
        t.Speech2TextConfig(**_SPEECH),
        "Speech2TextEncoderLayer Speech2TextDecoderLayer",
        "model.encoder.layers.1.fc2.weight",
        inputs={**SOUND, "input_features": SOUND["input_features"].reshape(1, 32, 4)},
        stacks=TWO,
    ),
    "umt5": _t5(t.UMT5ForConditionalGeneration, t.UMT5Config(**T5), "UMT5Block"),
    "longt5": _t5(
        t.LongT5ForConditionalGeneration, t.LongT5Config(**T5, local_radius=4), "LongT5Block"
    ),
    "longt5, global": _t5(
        t.LongT5ForConditionalGeneration,
        t.LongT5Config(**T5, local_radius=4, encoder_attention_type="transient-global"),
        "LongT5Block",
    ),
    "deit": pre(
        t.DeiTForImageClassification,
        t.DeiTConfig(**IMAGE),
        "DeiTLayer",
        "deit.encoder.layer.1.output.dense.weight",
        inputs=PIXELS,
    ),
    "vit_mae": pre(
        t.ViTMAEModel,
        t.ViTMAEConfig(**IMAGE),
        "ViTMAELayer",
        "encoder.layer.1.output.dense.weight",
        inputs=PIXELS,
    ),
    "vit_msn": pre(
        t.ViTMSNModel,
        t.ViTMSNConfig(**IMAGE),
        "ViTMSNLayer",
        "encoder.layer.1.output.dense.weight",
        inputs=PIXELS,
    ),
    "siglip_text_model": pre(
        t.SiglipTextModel,
        t.SiglipTextConfig(**TEXT),
        "SiglipEncoderLayer",
        "encoder.layers.1.mlp.fc2.weight",
    ),
    "siglip_vision_model": pre(
        t.SiglipVisionModel,
        t.SiglipVisionConfig(**IMAGE),
        "SiglipEncoderLayer",
        "encoder.layers.1.mlp.fc2.weight",
        inputs=PIXELS,
    ),
    "siglip2_text_model": pre(
        t.Siglip2TextModel,
        t.Siglip2TextConfig(**TEXT),
        "Siglip2EncoderLayer",
        "encoder.layers.1.mlp.fc2.weight",
    ),
    "hubert": _sound(t.HubertForCTC, t.HubertConfig, "HubertEncoderLayer", "hubert"),
    "hubert, pre-norm": _stable_sound(
        t.HubertForCTC, t.HubertConfig, "HubertEncoderLayer", "hubert"
    ),
    "wavlm": _sound(t.WavLMForCTC, t.WavLMConfig, "WavLMEncoderLayer", "wavlm"),
    "wavlm, pre-norm": _stable_sound(t.WavLMForCTC, t.WavLMConfig, "WavLMEncoderLayer", "wavlm"),
    "unispeech": _sound(t.UniSpeechForCTC, t.UniSpeechConfig, "UniSpeechEncoderLayer", "unispeech"),
    "unispeech, pre-norm": _stable_sound(
        t.UniSpeechForCTC, t.UniSpeechConfig, "UniSpeechEncoderLayer", "unispeech"
    ),
    "unispeech-sat": _sound(
        t.UniSpeechSatForCTC, t.UniSpeechSatConfig, "UniSpeechSatEncoderLayer", "unispeech_sat"
    ),
    "unispeech-sat, pre-norm": _stable_sound(
        t.UniSpeechSatForCTC, t.UniSpeechSatConfig, "UniSpeechSatEncoderLayer", "unispeech_sat"
    ),
}
