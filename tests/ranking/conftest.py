"""Models built so that what they do depends on two known dimensions, and on no other."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers

from surgeon import read_texts

PLANTED = (11, 37)
_HIDDEN = 64
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_WORDS = [f"w{number}" for number in range(35)]
_SIZES = {"vocab_size": len(_SPECIAL) + len(_WORDS)}


def plant_in_bert(folder: Path) -> str:
    """A BERT without a head: all that leaves a layer, but for noise, is the planted dimensions.

    The gain of every other dimension is 0.001 and its bias 0, so that an embedding without the
    planted ones keeps a thousandth of its length, and one without another dimension keeps all.
    """
    config = transformers.BertConfig(
        **_SIZES, hidden_size=_HIDDEN, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32,
    )  # fmt: skip
    model = transformers.BertModel(config, add_pooling_layer=False)
    with torch.no_grad():
        for layer in model.encoder.layer:
            norm = layer.output.LayerNorm
            norm.weight.copy_(0.001 * (1 + 0.1 * torch.randn(_HIDDEN)))
            norm.bias.zero_()
            norm.weight[list(PLANTED)] = 1.0
            norm.bias[list(PLANTED)] = torch.tensor([0.9, 0.8])
    model.save_pretrained(folder)
    return _random_text()


def _gpt2() -> transformers.GPT2LMHeadModel:
    config = transformers.GPT2Config(
        **_SIZES, n_embd=_HIDDEN, n_layer=4, n_head=2, n_positions=32,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def plant_in_gpt2(folder: Path) -> str:
    """A GPT-2 that says one word: the planted dimensions hold it up, and no other does.

    Their biases of the output dense layers dwarf the rest of the stream, so that after the final
    norm they alone are left, each √(64 / 2). The word's embedding has 0.4 at both, other words'
    have 0 there: its logit is 4.5 with both of them, 3.2 with one, and the loss on a text of
    this word alone is log(1 + 39 e^−logit).
    """
    model = _gpt2()
    word = len(_SPECIAL)
    with torch.no_grad():
        embeddings = model.transformer.wte.weight
        embeddings.copy_(0.001 * torch.randn_like(embeddings))
        embeddings[word, list(PLANTED)] = 0.4
        # What the word's embedding brings into the stream, its position takes out again.
        model.transformer.wpe.weight.zero_()
        model.transformer.wpe.weight[:, list(PLANTED)] = -0.4
        for block in model.transformer.h:
            block.attn.c_proj.weight.zero_()  # nothing else writes to the planted dimensions
            block.mlp.c_proj.weight[:, list(PLANTED)] = 0.5
            block.mlp.c_proj.bias[list(PLANTED)] = 10.0
    model.save_pretrained(folder)
    return "\n".join(" ".join([_WORDS[0]] * (4 + number % 7)) for number in range(24))


def plant_joint_in_gpt2(folder: Path) -> str:
    """A GPT-2 whose planted dimensions stand in for each other: each alone holds the scale up.

    Their biases are a thousand times the rest, so that the final norm leaves next to nothing of
    it, and all words are as likely. Without one of them that is still so. Without both, what is
    left is the embedding of the last word, and the model is sure that it comes again.
    """
    model = _gpt2()
    with torch.no_grad():
        model.transformer.wte.weight.normal_(std=0.5)
        model.transformer.wte.weight[:, list(PLANTED)] = 0.0
        model.transformer.wpe.weight.zero_()
        for block in model.transformer.h:
            block.mlp.c_proj.bias[list(PLANTED)] = 250.0
    model.save_pretrained(folder)
    return _random_text()


def _random_text() -> str:
    rng = random.Random(0)
    return "\n".join(" ".join(rng.choices(_WORDS, k=rng.randint(4, 12))) for _ in range(24))


def _save_planted(plant, folder: Path):
    """Save a model with its tokenizer and texts; return the directory and the texts."""
    torch.manual_seed(0)
    text = plant(folder)
    words = {word: number for number, word in enumerate(_SPECIAL + _WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(folder)
    (folder / "texts.txt").write_text(text)
    return folder, read_texts(folder / "texts.txt")


@pytest.fixture(scope="session", params=[plant_in_bert, plant_in_gpt2], ids=["bert", "gpt2"])
def planted(request, tmp_path_factory):
    """A model directory and the texts to measure it on."""
    return _save_planted(request.param, tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="session")
def planted_jointly(tmp_path_factory):
    """The same of a model whose planted dimensions act only together."""
    return _save_planted(plant_joint_in_gpt2, tmp_path_factory.mktemp("joint"))
