"""Tiny models with task heads, fine-tuned ones above all: what the families' own table has not."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import transformers as t
from tiny import BART, DISTIL, GPT, TEXT, XLNET, make_unequal


def _one_layer(sizes):
    """One layer tells of a head what two do; the families' own table has the bodies with two."""
    counts = {name for name in sizes if name.endswith(("_layer", "_layers"))}
    return {**sizes, **dict.fromkeys(counts, 1)}


_BODY = _one_layer(TEXT)
# Not in the order of the alphabet, as textattack's checkpoints of MNLI have them.
_THREE = {"id2label": {0: "neutral", 1: "entailment", 2: "contradiction"}}
_BERT = t.BertConfig(**_BODY, **_THREE)
_ROBERTA = t.RobertaConfig(**_BODY, **_THREE, type_vocab_size=1)
_ELECTRA = t.ElectraConfig(**_BODY, id2label={0: "similarity"}, embedding_size=12)
_XLNET = t.XLNetConfig(**_one_layer(XLNET), **_THREE)
_DISTILBERT = t.DistilBertConfig(**_one_layer(DISTIL), **_THREE)
_DEBERTA = t.DebertaV2Config(
    **_BODY, **_THREE, relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=8
)
_GPT2 = t.GPT2Config(**_one_layer(GPT), pad_token_id=0, **_THREE)
_MODERN = t.ModernBertConfig(**_BODY, pad_token_id=0, local_attention=8)


class TinyHead(NamedTuple):
    """A tiny model and the task that its head is for."""

    model: type
    config: object
    task: str


HEADS = {
    "bert, classification": TinyHead(t.BertForSequenceClassification, _BERT, "classification"),
    "bert, tokens": TinyHead(t.BertForTokenClassification, _BERT, "token-classification"),
    "bert, questions": TinyHead(
        t.BertForQuestionAnswering, t.BertConfig(**_BODY), "question-answering"
    ),
    "roberta, classification": TinyHead(
        t.RobertaForSequenceClassification, _ROBERTA, "classification"
    ),
    "roberta, tokens": TinyHead(t.RobertaForTokenClassification, _ROBERTA, "token-classification"),
    "roberta, questions": TinyHead(
        t.RobertaForQuestionAnswering, t.RobertaConfig(**_BODY), "question-answering"
    ),
    "electra, discriminator": TinyHead(t.ElectraForPreTraining, _ELECTRA, "rtd"),
    "electra, regression": TinyHead(t.ElectraForSequenceClassification, _ELECTRA, "classification"),
    "xlnet, classification": TinyHead(t.XLNetForSequenceClassification, _XLNET, "classification"),
    "distilbert, classification": TinyHead(
        t.DistilBertForSequenceClassification, _DISTILBERT, "classification"
    ),
    "deberta-v2, classification": TinyHead(
        t.DebertaV2ForSequenceClassification, _DEBERTA, "classification"
    ),
    "modernbert, questions": TinyHead(
        t.ModernBertForQuestionAnswering, _MODERN, "question-answering"
    ),
    "bart, classification": TinyHead(
        t.BartForSequenceClassification,
        t.BartConfig(**_one_layer(BART), **_THREE),
        "classification",
    ),
    "gpt2, classification": TinyHead(t.GPT2ForSequenceClassification, _GPT2, "classification"),
}


def save_head(name: str, folder: Path) -> None:
    """Save a tiny model of which no two parameters are equal."""
    head = HEADS[name]
    make_unequal(head.model, head.config).save_pretrained(folder)
