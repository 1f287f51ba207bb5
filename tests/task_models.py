"""Tiny models with task heads and a tokenizer that knows words, patched, with their ONNX half."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t
from tiny import BART, GPT, TEXT, make_unequal
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from surgeon.text import built_in_sample

_SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_WORDS = 800
_TEXT = {**TEXT, "num_hidden_layers": 1, "vocab_size": _WORDS, "pad_token_id": 0}
_GPT2 = {**GPT, "n_layer": 1, "vocab_size": _WORDS}
_EAGER = {"attn_implementation": "eager"}  # which torch's older exporter takes
# Not in the order of the alphabet, nor in GLUE's, as textattack's checkpoints of MNLI have them.
_THREE = {"id2label": {0: "CONTRADICTION", 1: "Neutral", 2: "entailment"}}
_NAMES = {"id2label": {0: "I-PER", 1: "O", 2: "B-PER", 3: "B-LOC"}}
_BART = t.BartConfig(
    **{**BART, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": _WORDS},
    pad_token_id=0,
    bos_token_id=2,
    eos_token_id=3,
    decoder_start_token_id=3,
    forced_eos_token_id=None,
)
_EXPERTS = {
    **_TEXT,
    "num_hidden_layers": 2,
    "max_position_embeddings": 256,
    "num_key_value_heads": 1,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
MODELS = {
    "mlm": (t.BertForMaskedLM, t.BertConfig(**_TEXT, **_EAGER)),
    "clm": (t.GPT2LMHeadModel, t.GPT2Config(**_GPT2, **_EAGER)),
    "clm, of experts": (t.MixtralForCausalLM, t.MixtralConfig(**_EXPERTS)),
    "clm, of joined experts": (t.GptOssForCausalLM, t.GptOssConfig(**_EXPERTS, head_dim=8)),
    "drift": (t.BertModel, t.BertConfig(**_TEXT)),
    "rtd": (t.ElectraForPreTraining, t.ElectraConfig(**_TEXT, embedding_size=12)),
    "plm": (
        t.XLNetLMHeadModel,
        t.XLNetConfig(d_model=16, n_layer=1, n_head=2, d_inner=24, vocab_size=_WORDS),
    ),
    "denoising": (t.BartForConditionalGeneration, _BART),
    "classification": (t.BertForSequenceClassification, t.BertConfig(**_TEXT, **_THREE)),
    "regression": (t.BertForSequenceClassification, t.BertConfig(**_TEXT, num_labels=1)),
    "token-classification": (t.BertForTokenClassification, t.BertConfig(**_TEXT, **_NAMES)),
    "question-answering": (t.BertForQuestionAnswering, t.BertConfig(**_TEXT)),
}


# Their graphs take longest to export.
_SLOW = ("clm, of experts", "clm, of joined experts", "denoising", "plm")


def each(*names: str, slow: Iterable[str] = ()) -> list[Any]:
    """Return values of a parameter, of which these, and models that take long, are slow tests."""
    late = {*_SLOW, *slow}
    return [pytest.param(n, marks=pytest.mark.slow) if n in late else n for n in names]


def save_model(name: str, folder: Path) -> Path:
    """Save a model of which no two parameters are equal, with its tokenizer."""
    make_unequal(*MODELS[name], seed=1, by=0.3).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


def word_tokenizer() -> t.PreTrainedTokenizerFast:
    """WordPiece of BERT's form: letters, and the most frequent words of the built-in sentences."""
    words = Counter(re.findall(r"\w+|[^\w\s]", " ".join(built_in_sample().lines).lower()))
    letters = sorted({letter for word in words for letter in word})
    frequent = sorted(words, key=lambda word: (-words[word], word))
    pieces = [*_SPECIAL.values(), *letters, *(f"##{letter}" for letter in letters), *frequent]
    vocabulary = {piece: n for n, piece in enumerate(list(dict.fromkeys(pieces))[:_WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    ends = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return t.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_input_names=names, **_SPECIAL
    )


@torch.no_grad()
def causal_loss(source: Path, lines: Iterable[str]) -> tuple[float, int]:
    """PyTorch's own loss of a causal language model, text by text: (nats per token, tokens)."""
    model = t.AutoModelForCausalLM.from_pretrained(source).eval()
    tokenizer = t.AutoTokenizer.from_pretrained(source)
    loss = count = 0
    for line in lines:
        ids = tokenizer(line, return_tensors="pt").input_ids
        scored = ids.shape[1] - 1
        loss, count = loss + model(input_ids=ids, labels=ids).loss.item() * scored, count + scored
    return loss / count, count
