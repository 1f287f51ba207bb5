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
# Its first token sees all and is seen by all; the others, a window.
_LONGFORMER = t.LongformerConfig(**_BODY, **_THREE, attention_window=4)
_ELECTRA = t.ElectraConfig(**_BODY, id2label={0: "similarity"}, embedding_size=12)
_XLNET = t.XLNetConfig(**_one_layer(XLNET), **_THREE)
_DISTILBERT = t.DistilBertConfig(**_one_layer(DISTIL), **_THREE)
_DEBERTA = t.DebertaV2Config(
    **_BODY, **_THREE, relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=8
)
_GPT2 = t.GPT2Config(**_one_layer(GPT), pad_token_id=0, **_THREE)
_BART = t.BartConfig(**_one_layer(BART), **_THREE)
_MODERN = t.ModernBertConfig(**_BODY, pad_token_id=0, local_attention=8)


_TASKS = {
    "SequenceClassification": "classification",
    "TokenClassification": "token-classification",
    "QuestionAnswering": "question-answering",
    "PreTraining": "rtd",
}


class TinyHead(NamedTuple):
    """A tiny model with a head, by the name of its class."""

    class_name: str
    config: t.PretrainedConfig

    @property
    def model(self) -> type:
        """The class, imported when it is used."""
        return getattr(t, self.class_name)

    @property
    def task(self) -> str:
        """The task that its head is for."""
        return _TASKS[self.class_name.partition("For")[2]]


HEADS = {
    "bert, classification": TinyHead("BertForSequenceClassification", _BERT),
    "bert, tokens": TinyHead("BertForTokenClassification", _BERT),
    "bert, questions": TinyHead("BertForQuestionAnswering", t.BertConfig(**_BODY)),
    "roberta, classification": TinyHead("RobertaForSequenceClassification", _ROBERTA),
    "roberta, tokens": TinyHead("RobertaForTokenClassification", _ROBERTA),
    "roberta, questions": TinyHead("RobertaForQuestionAnswering", t.RobertaConfig(**_BODY)),
    "longformer, classification": TinyHead("LongformerForSequenceClassification", _LONGFORMER),
    "electra, discriminator": TinyHead("ElectraForPreTraining", _ELECTRA),
    "electra, regression": TinyHead("ElectraForSequenceClassification", _ELECTRA),
    "xlnet, classification": TinyHead("XLNetForSequenceClassification", _XLNET),
    "distilbert, classification": TinyHead("DistilBertForSequenceClassification", _DISTILBERT),
    "deberta-v2, classification": TinyHead("DebertaV2ForSequenceClassification", _DEBERTA),
    "modernbert, questions": TinyHead("ModernBertForQuestionAnswering", _MODERN),
    "bart, classification": TinyHead("BartForSequenceClassification", _BART),
    "gpt2, classification": TinyHead("GPT2ForSequenceClassification", _GPT2),
}


def save_head(name: str, folder: Path) -> None:
    """Save a tiny model of which no two parameters are equal."""
    head = HEADS[name]
    make_unequal(head.model, head.config).save_pretrained(folder)
