"""Decoders: GPT and its kin.

In most the norms come first in a layer, so that its last operation is the output dense layer. A
Linear stores (outputs, inputs), so that a dimension is a row; a Conv1D stores (inputs, outputs).
"""

from __future__ import annotations

from surgeon.architectures.family import Family
from surgeon.architectures.parts import LAYERNORM, TWO_NORMS
from surgeon.architectures.sites import SiteTemplate

_LN_F = SiteTemplate("final", "layernorm", "ln_f")
_GPT_J = (
    SiteTemplate("output", "dense", "h.{layer}.mlp.fc_out"),
    SiteTemplate("attention", "dense", "h.{layer}.attn.out_proj"),
    _LN_F,
)
_BLOOM = (
    SiteTemplate("output", "dense", "h.{layer}.mlp.dense_4h_to_h"),
    SiteTemplate("attention", "dense", "h.{layer}.self_attention.dense"),
    SiteTemplate("embeddings", "layernorm", "word_embeddings_layernorm"),
    _LN_F,
)
_XGLM = (
    SiteTemplate("output", "dense", "layers.{layer}.fc2"),
    SiteTemplate("attention", "dense", "layers.{layer}.self_attn.out_proj"),
    SiteTemplate("attention", "dense", "layers.{layer}.encoder_attn.out_proj"),
    SiteTemplate("final", "layernorm", "layer_norm"),
)
_FAIRSEQ_NORMS = ("final_layer_norm", "self_attn_layer_norm", "encoder_attn_layer_norm")

DECODERS: tuple[Family, ...] = (
    Family(
        "GPT-2",
        ("gpt2",),
        (
            SiteTemplate("output", "dense", "h.{layer}.mlp.c_proj", axis=1),
            SiteTemplate("attention", "dense", "h.{layer}.attn.c_proj", axis=1),
            SiteTemplate("attention", "dense", "h.{layer}.crossattention.c_proj", axis=1),
            _LN_F,
        ),
        "clm",
        inner_norms=("ln_1", "ln_2", "ln_cross_attn"),
    ),
    # The first GPT is post-norm.
    Family(
        "GPT",
        ("openai-gpt",),
        (
            SiteTemplate("output", "layernorm", "h.{layer}.ln_2"),
            SiteTemplate("attention", "layernorm", "h.{layer}.ln_1"),
        ),
        "clm",
    ),
    Family(
        "GPT-BigCode",
        ("gpt_bigcode",),
        (
            SiteTemplate("output", "dense", "h.{layer}.mlp.c_proj"),
            SiteTemplate("attention", "dense", "h.{layer}.attn.c_proj"),
            SiteTemplate("attention", "dense", "h.{layer}.crossattention.c_proj"),
            _LN_F,
        ),
        "clm",
        inner_norms=("ln_1", "ln_2", "ln_cross_attn"),
    ),
    Family(
        "GPT-Neo",
        ("gpt_neo",),
        (
            SiteTemplate("output", "dense", "h.{layer}.mlp.c_proj"),
            SiteTemplate("attention", "dense", "h.{layer}.attn.attention.out_proj"),
            _LN_F,
        ),
        "clm",
        inner_norms=("ln_1", "ln_2"),
    ),
    Family("GPT-J", ("gptj",), _GPT_J, "clm", inner_norms=("ln_1",)),
    Family("CodeGen", ("codegen",), _GPT_J, "clm", inner_norms=("ln_1",)),
    Family(
        "GPT-NeoX",
        ("gpt_neox",),
        (
            SiteTemplate("output", "dense", "layers.{layer}.mlp.dense_4h_to_h"),
            SiteTemplate("attention", "dense", "layers.{layer}.attention.dense"),
            SiteTemplate("final", "layernorm", "final_layer_norm"),
        ),
        "clm",
        inner_norms=TWO_NORMS,
    ),
    Family(
        "Persimmon",
        ("persimmon",),
        (
            SiteTemplate("output", "dense", "layers.{layer}.mlp.dense_4h_to_h"),
            SiteTemplate("attention", "dense", "layers.{layer}.self_attn.dense"),
            SiteTemplate("final", "layernorm", "final_layernorm"),
        ),
        "clm",
        inner_norms=(*TWO_NORMS, "self_attn.q_layernorm", "self_attn.k_layernorm"),
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
        inner_norms=_FAIRSEQ_NORMS,
        when={"do_layer_norm_before": (True, None)},
    ),
    # OPT-350m, alone of its series, is post-norm.
    Family(
        "OPT",
        ("opt",),
        (
            SiteTemplate("output", "layernorm", "decoder.layers.{layer}.final_layer_norm"),
            SiteTemplate("attention", "layernorm", "decoder.layers.{layer}.self_attn_layer_norm"),
        ),
        "clm",
        when={"do_layer_norm_before": (False,)},
    ),
    Family("XGLM", ("xglm",), _XGLM, "clm", inner_norms=_FAIRSEQ_NORMS),
    Family("BioGPT", ("biogpt",), _XGLM, "clm", inner_norms=_FAIRSEQ_NORMS),
    Family("BLOOM", ("bloom",), _BLOOM, "clm", inner_norms=TWO_NORMS),
    Family("Falcon", ("falcon",), _BLOOM, "clm", inner_norms=(*TWO_NORMS, "ln_attn", "ln_mlp")),
    Family(
        "MPT",
        ("mpt",),
        (
            SiteTemplate("output", "dense", "blocks.{layer}.ffn.down_proj"),
            SiteTemplate("attention", "dense", "blocks.{layer}.attn.out_proj"),
            SiteTemplate("final", "layernorm", "norm_f"),
        ),
        "clm",
        inner_norms=("norm_1", "norm_2"),
    ),
    Family(
        "Phi",
        ("phi",),
        (
            SiteTemplate("output", "dense", "layers.{layer}.mlp.fc2"),
            SiteTemplate("attention", "dense", "layers.{layer}.self_attn.dense"),
            SiteTemplate("final", "layernorm", "final_layernorm"),
        ),
        "clm",
        inner_norms=("input_layernorm", "self_attn.q_layernorm", "self_attn.k_layernorm"),
    ),
    Family(
        "StarCoder2",
        ("starcoder2",),
        (
            SiteTemplate("output", "dense", "layers.{layer}.mlp.c_proj"),
            SiteTemplate("attention", "dense", "layers.{layer}.self_attn.o_proj"),
            LAYERNORM,
        ),
        "clm",
        inner_norms=TWO_NORMS,
    ),
)
