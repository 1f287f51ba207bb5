"""What tiny models are made of: small configurations, what to feed them, what is true of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import torch
import transformers

TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 40,
    "max_position_embeddings": 64,
}
ALBERT = {**TEXT, "embedding_size": 12}
DEBERTA = {**TEXT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
LLAMA = {**TEXT, "num_key_value_heads": 1, "pad_token_id": 0}
GEMMA = {**LLAMA, "head_dim": 8}
SEQ2SEQ = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "vocab_size": 40,
}
BART = {**SEQ2SEQ, "max_position_embeddings": 64}
T5 = {"d_model": 16, "num_layers": 2, "num_heads": 2, "d_ff": 24, "d_kv": 8, "vocab_size": 40}
OPT = {**{k: v for k, v in TEXT.items() if k != "intermediate_size"}, "ffn_dim": 24}
DISTIL = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "vocab_size": 40}
XLNET = {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24, "vocab_size": 40}
GPT = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "vocab_size": 40}
IMAGE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 8,
    "patch_size": 4,
}
AUDIO = {
    **{k: v for k, v in TEXT.items() if k != "max_position_embeddings"},
    "conv_dim": (8, 8),
    "conv_stride": (5, 2),
    "conv_kernel": (10, 3),
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}

TOKENS = {"input_ids": torch.tensor([[5, 6, 7, 8, 9]])}
PAIR = {**TOKENS, "decoder_input_ids": torch.tensor([[4, 6, 8]])}
PIXELS = {"pixel_values": torch.linspace(-1, 1, 3 * 8 * 8).reshape(1, 3, 8, 8)}
WAVE = {"input_values": torch.linspace(-1, 1, 200).sin().reshape(1, 200)}
SOUND = {
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

    class_name: str
    config_class: str
    settings: dict[str, object]
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

    @functools.cached_property
    def model(self) -> type:
        """The class of transformers: imported when it is used, for all of them take seconds."""
        return getattr(transformers, self.class_name)

    @functools.cached_property
    def config(self):
        return getattr(transformers, self.config_class)(**self.settings)


TWO = {"encoder": 2, "decoder": 2}


def make_unequal(model, config, *, seed=0, by=0.1):
    """Make a tiny model of which no two parameters are equal, as a trained one's are not."""
    torch.manual_seed(seed)
    made = model(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return made
