"""What several rows of the registry have in common: templates, and the names of norms."""

from __future__ import annotations

from surgeon.architectures.sites import SiteTemplate

TWO_NORMS = ("input_layernorm", "post_attention_layernorm")
QK_NORMS = ("self_attn.q_norm", "self_attn.k_norm")
QUERY_NORMS = ("self_attn.query_layernorm", "self_attn.key_layernorm")

DOWN_PROJ = SiteTemplate("output", "dense", "layers.{layer}.mlp.down_proj")
ATTENTION = SiteTemplate("attention", "dense", "layers.{layer}.self_attn.o_proj")
RMSNORM = SiteTemplate("final", "rmsnorm", "norm")
LAYERNORM = SiteTemplate("final", "layernorm", "norm")
# Gemma and Nemotron multiply by 1 + what they store.
RMSNORM_1P = SiteTemplate("final", "rmsnorm", "norm", gain_offset=1.0)
LAYERNORM_1P = SiteTemplate("final", "layernorm", "norm", gain_offset=1.0)

# In hybrids most layers have an attention that is linear in the length.
HYBRID = (
    SiteTemplate("attention", "dense", "layers.{layer}.self_attn.o_proj", among="full"),
    SiteTemplate("attention", "dense", "layers.{layer}.linear_attn.out_proj", among="linear"),
)
HYBRID_NORMS = (*TWO_NORMS, *QK_NORMS, "linear_attn.norm")
# The block that predicts more than one token ahead.
MORE_TOKENS = "mtp."
