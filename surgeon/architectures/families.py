"""The registry: one row per model family.

Templates are module paths below any model prefix (``bert.``, ``transformer.``, none, …), with
``{layer}`` for the layer number. Prefixes need no table: whatever stands before the output
template in the tensor names is the prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from surgeon.architectures.family import Family
from surgeon.architectures.sites import SiteTemplate, Stack
from surgeon.errors import UnknownArchitectureError


def _under(
    module: str, stack: Stack, templates: tuple[SiteTemplate, ...]
) -> tuple[SiteTemplate, ...]:
    """Place templates under a module. What a stack does not have, its tensor names do not match."""
    return tuple(replace(t, path=f"{module}.{t.path}", stack=stack) for t in templates)


def _both(templates: tuple[SiteTemplate, ...]) -> tuple[SiteTemplate, ...]:
    return _under("encoder", "encoder", templates) + _under("decoder", "decoder", templates)


_BERT = (
    SiteTemplate("output", "layernorm", "encoder.layer.{layer}.output.LayerNorm"),
    SiteTemplate("attention", "layernorm", "encoder.layer.{layer}.attention.output.LayerNorm"),
    SiteTemplate("embeddings", "layernorm", "embeddings.LayerNorm"),
)
_BART = (
    SiteTemplate("output", "layernorm", "layers.{layer}.final_layer_norm"),
    SiteTemplate("attention", "layernorm", "layers.{layer}.self_attn_layer_norm"),
    SiteTemplate("attention", "layernorm", "layers.{layer}.encoder_attn_layer_norm"),
    SiteTemplate("embeddings", "layernorm", "layernorm_embedding"),
)
# BART's modules in another order: the norms of its layers' names come before the blocks here.
_MBART = (
    SiteTemplate("output", "dense", "layers.{layer}.fc2"),
    SiteTemplate("attention", "dense", "layers.{layer}.self_attn.out_proj"),
    SiteTemplate("attention", "dense", "layers.{layer}.encoder_attn.out_proj"),
    SiteTemplate("embeddings", "layernorm", "layernorm_embedding"),
    SiteTemplate("final", "layernorm", "layer_norm"),
)
# Their heads are their embeddings, so that every checkpoint has one (facebook/bart-base, which
# fills in blanks, declares a BartModel).
_SHARED_EMBEDDING = ("shared.", "embed_tokens.")
_T5 = (
    SiteTemplate("output", "dense", "block.{layer}.layer.1.DenseReluDense.wo"),
    SiteTemplate("output", "dense", "block.{layer}.layer.2.DenseReluDense.wo"),  # of the decoder
    SiteTemplate("attention", "dense", "block.{layer}.layer.0.SelfAttention.o"),
    SiteTemplate("attention", "dense", "block.{layer}.layer.1.EncDecAttention.o"),
    SiteTemplate("final", "rmsnorm", "final_layer_norm"),
)
_CLIP = (
    SiteTemplate("output", "dense", "encoder.layers.{layer}.mlp.fc2"),
    SiteTemplate("attention", "dense", "encoder.layers.{layer}.self_attn.out_proj"),
    SiteTemplate("embeddings", "layernorm", "pre_layrnorm"),  # sic
    SiteTemplate("final", "layernorm", "final_layer_norm"),  # of the text tower
    SiteTemplate("final", "layernorm", "post_layernorm"),  # of the vision tower
)
_LLAMA = (
    SiteTemplate("output", "dense", "layers.{layer}.mlp.down_proj"),
    SiteTemplate("attention", "dense", "layers.{layer}.self_attn.o_proj"),
    SiteTemplate("final", "rmsnorm", "norm"),
)
# Gemma multiplies by 1 + what it stores; since Gemma 2 there is one more norm between the output
# dense layer and the stream.
_GEMMA = (*_LLAMA[:2], SiteTemplate("final", "rmsnorm", "norm", gain_offset=1.0))
_GEMMA2 = (
    SiteTemplate("output", "rmsnorm", "layers.{layer}.post_feedforward_layernorm", gain_offset=1.0),
    SiteTemplate(
        "attention", "rmsnorm", "layers.{layer}.post_attention_layernorm", gain_offset=1.0
    ),
    SiteTemplate("final", "rmsnorm", "norm", gain_offset=1.0),
)

FAMILIES: tuple[Family, ...] = (
    # Post-norm encoders: the last operation of a layer is its output LayerNorm.
    Family("BERT", ("bert",), _BERT, "mlm", head=("cls.predictions.",)),
    Family(
        "RoBERTa",
        ("roberta", "xlm-roberta", "camembert"),
        _BERT,
        "mlm",
        head=("lm_head.",),
        position_offset=2,  # positions count from padding_idx + 1
    ),
    # The discriminator has no language-model head, but one of its own.
    Family("ELECTRA", ("electra",), _BERT, "mlm", head=("generator_predictions.",)),
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
            SiteTemplate(
                "output",
                "layernorm",
                "encoder.albert_layer_groups.{layer}.albert_layers.0.full_layer_layer_norm",
            ),
            SiteTemplate(
                "attention",
                "layernorm",
                "encoder.albert_layer_groups.{layer}.albert_layers.0.attention.LayerNorm",
            ),
            SiteTemplate("embeddings", "layernorm", "embeddings.LayerNorm"),
        ),
        "mlm",
        head=("predictions.",),
        when={"inner_group_num": (1, None)},
    ),
    Family("DeBERTa", ("deberta",), _BERT, "mlm", head=("cls.predictions.",)),
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
    Family("BART", ("bart",), _both(_BART), "denoising", head=_SHARED_EMBEDDING),
    Family(
        "OPT",
        ("opt",),
        (
            SiteTemplate("output", "layernorm", "decoder.layers.{layer}.final_layer_norm"),
            SiteTemplate("attention", "layernorm", "decoder.layers.{layer}.self_attn_layer_norm"),
        ),
        "clm",
        when={"do_layer_norm_before": (False,)},  # OPT-350m, alone of its series
    ),
    Family(
        "Wav2Vec2",
        ("wav2vec2",),
        (
            SiteTemplate("output", "layernorm", "encoder.layers.{layer}.final_layer_norm"),
            SiteTemplate("attention", "layernorm", "encoder.layers.{layer}.layer_norm"),
            SiteTemplate("embeddings", "layernorm", "encoder.layer_norm"),
        ),
        "drift",
        when={"do_stable_layer_norm": (False, None)},
    ),
    # Pre-norm: the last operation of a layer is the output dense layer. A Linear stores (outputs,
    # inputs), so that a dimension is a row; GPT-2's Conv1D stores (inputs, outputs).
    Family(
        "GPT-2",
        ("gpt2",),
        (
            SiteTemplate("output", "dense", "h.{layer}.mlp.c_proj", axis=1),
            SiteTemplate("attention", "dense", "h.{layer}.attn.c_proj", axis=1),
            SiteTemplate("final", "layernorm", "ln_f"),
        ),
        "clm",
    ),
    Family(
        "GPT-Neo",
        ("gpt_neo",),
        (
            SiteTemplate("output", "dense", "h.{layer}.mlp.c_proj"),
            SiteTemplate("attention", "dense", "h.{layer}.attn.attention.out_proj"),
            SiteTemplate("final", "layernorm", "ln_f"),
        ),
        "clm",
    ),
    Family(
        "GPT-NeoX",
        ("gpt_neox",),
        (
            SiteTemplate("output", "dense", "layers.{layer}.mlp.dense_4h_to_h"),
            SiteTemplate("attention", "dense", "layers.{layer}.attention.dense"),
            SiteTemplate("final", "layernorm", "final_layer_norm"),
        ),
        "clm",
    ),
    Family(
        "OPT",
        ("opt",),
        (
            SiteTemplate("output", "dense", "decoder.layers.{layer}.fc2"),
            SiteTemplate("attention", "dense", "decoder.layers.{layer}.self_attn.out_proj"),
            SiteTemplate("final", "layernorm", "decoder.final_layer_norm"),
        ),
        "clm",
        when={"do_layer_norm_before": (True, None)},
    ),
    Family(
        "BLOOM",
        ("bloom",),
        (
            SiteTemplate("output", "dense", "h.{layer}.mlp.dense_4h_to_h"),
            SiteTemplate("attention", "dense", "h.{layer}.self_attention.dense"),
            SiteTemplate("embeddings", "layernorm", "word_embeddings_layernorm"),
            SiteTemplate("final", "layernorm", "ln_f"),
        ),
        "clm",
    ),
    Family("Llama", ("llama",), _LLAMA, "clm"),
    Family("Mistral", ("mistral",), _LLAMA, "clm"),
    Family("Qwen2", ("qwen2",), _LLAMA, "clm"),
    Family("Qwen3", ("qwen3",), _LLAMA, "clm"),
    Family("Phi-3", ("phi3",), _LLAMA, "clm"),
    Family("Gemma", ("gemma",), _GEMMA, "clm"),
    Family("Gemma 2", ("gemma2",), _GEMMA2, "clm"),
    Family("Gemma 3", ("gemma3_text", "gemma3"), _GEMMA2, "clm"),
    Family(
        "Phi",
        ("phi",),
        (
            SiteTemplate("output", "dense", "layers.{layer}.mlp.fc2"),
            SiteTemplate("attention", "dense", "layers.{layer}.self_attn.dense"),
            SiteTemplate("final", "layernorm", "final_layernorm"),
        ),
        "clm",
    ),
    Family(
        "ModernBERT",
        ("modernbert",),
        (
            SiteTemplate("output", "dense", "layers.{layer}.mlp.Wo"),
            SiteTemplate("attention", "dense", "layers.{layer}.attn.Wo"),
            SiteTemplate("embeddings", "layernorm", "embeddings.norm"),
            SiteTemplate("final", "layernorm", "final_norm"),
        ),
        "mlm",
        head=("decoder.bias",),
    ),
    Family("mBART", ("mbart",), _both(_MBART), "denoising", head=_SHARED_EMBEDDING),
    Family("Whisper", ("whisper",), _both(_MBART), "drift"),
    Family("T5", ("t5", "mt5"), _both(_T5), "denoising"),
    Family(
        "ViT",
        ("vit",),
        (
            SiteTemplate("output", "dense", "encoder.layer.{layer}.output.dense"),
            SiteTemplate("attention", "dense", "encoder.layer.{layer}.attention.output.dense"),
            SiteTemplate("final", "layernorm", "layernorm"),
        ),
        "drift",
    ),
    Family(
        "CLIP",
        ("clip",),
        _under("text_model", "text", _CLIP) + _under("vision_model", "vision", _CLIP),
        "drift",
    ),
    Family("CLIP", ("clip_text_model", "clip_vision_model"), _CLIP, "drift"),
    Family(
        "Wav2Vec2",
        ("wav2vec2",),
        (
            SiteTemplate("output", "dense", "encoder.layers.{layer}.feed_forward.output_dense"),
            SiteTemplate("attention", "dense", "encoder.layers.{layer}.attention.out_proj"),
            SiteTemplate("final", "layernorm", "encoder.layer_norm"),
        ),
        "drift",
        # A language adapter (MMS) would come after the output dense layer.
        when={"do_stable_layer_norm": (True,), "adapter_attn_dim": (None,)},
    ),
)


def family_of(model_type: object, config: Mapping[str, object] | None = None) -> Family:
    """Return the row for a ``model_type`` and the rest of the configuration.

    Raises:
        UnknownArchitectureError: there is none.
    """
    keys = config or {}
    rows = [family for family in FAMILIES if model_type in family.model_types]
    for family in rows:
        if all(keys.get(key) in values for key, values in family.when.items()):
            return family
    if rows:
        found = ", ".join(f"{key} {keys.get(key)!r}" for row in rows for key in row.when)
        raise UnknownArchitectureError(
            f"config.json: surgeon does not know the layers of {model_type} with {found}"
        )
    known = ", ".join(sorted({name for family in FAMILIES for name in family.model_types}))
    raise UnknownArchitectureError(
        f"config.json: model_type {model_type!r} is not an architecture that surgeon knows "
        f"(it knows {known})"
    )
