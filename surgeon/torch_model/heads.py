"""Task heads: how one is known, which class of transformers loads it, what that takes and gives.

One row per task. A new head is a new row, and its inputs' axes if they have a new name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from surgeon.families import Family
from surgeon.model import Checkpoint
from surgeon.tasks.task import TaskName

Rows: TypeAlias = Literal["token", "target", "sequence"]


@dataclass(frozen=True)
class Head:
    """A row of the table.

    ``auto_class`` is the name of transformers' class, ``outputs`` are those of its outputs that
    the task is scored on, ``inputs`` what it takes beyond the tokens and their mask. ``rows``
    says what an output has a row for: each input token, each target (of a decoder, or asked for),
    or each sequence as a whole. ``declared`` ends the class names in ``architectures`` of the
    configuration, and ``tensors`` begin tensor names, below any prefix, that only a checkpoint
    with the head has; both are empty where the family's row of the registry knows the head.
    """

    task: TaskName
    auto_class: str
    outputs: tuple[str, ...] = ("logits",)
    inputs: tuple[str, ...] = ()
    rows: Rows = "token"
    declared: str = ""
    tensors: tuple[str, ...] = ()

    def is_in(self, checkpoint: Checkpoint) -> bool:
        """Whether the checkpoint has tensors of the head."""
        names = [f".{name}" for name in checkpoint.tensors]
        return any(f".{fragment}" in name for fragment in self.tensors for name in names)


_CLASSIFIERS = ("classifier.", "score.", "classification_head.", "logits_proj.")

# Where nothing is declared, the first row whose tensors are there decides.
BY_TENSORS = (
    Head(
        "classification",
        "AutoModelForSequenceClassification",
        rows="sequence",
        declared="ForSequenceClassification",
        tensors=_CLASSIFIERS,
    ),
    Head(
        "token-classification",
        "AutoModelForTokenClassification",
        declared="ForTokenClassification",
        tensors=_CLASSIFIERS,
    ),
    Head(
        "rtd",
        "AutoModelForPreTraining",
        declared="ForPreTraining",
        tensors=("discriminator_predictions.",),
    ),
    # The last, because ModernBERT's head for answers has the name of a classifier's.
    Head(
        "question-answering",
        "AutoModelForQuestionAnswering",
        outputs=("start_logits", "end_logits"),
        declared="ForQuestionAnswering",
        tensors=("qa_outputs.", "classifier."),
    ),
)
_BY_FAMILY = (
    Head("mlm", "AutoModelForMaskedLM"),
    Head("clm", "AutoModelForCausalLM"),
    # XLNet calls it a causal model, and predicts in any order (Yang et al. 2019, section 2.2).
    Head("plm", "AutoModelForCausalLM", inputs=("perm_mask", "target_mapping"), rows="target"),
    Head("denoising", "AutoModelForSeq2SeqLM", inputs=("decoder_input_ids",), rows="target"),
    Head("drift", "AutoModel", outputs=("last_hidden_state",)),
)
HEADS: Mapping[TaskName, Head] = MappingProxyType(
    {head.task: head for head in (*BY_TENSORS, *_BY_FAMILY)}
)

# Parts of the names of classes that have a language model's head.
_LANGUAGE_MODELS = ("LMHead", "CausalLM", "ConditionalGeneration")
LEFT_PADDED = {("xlnet", "classification")}
"""Model types and tasks whose shorter sequences are filled up on the left: XLNet classifies by the
last position, whatever is there (Yang et al. 2019 pad so)."""

AXES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "input_ids": ("batch", "sequence"),
        "attention_mask": ("batch", "sequence"),
        "token_type_ids": ("batch", "sequence"),
        "decoder_input_ids": ("batch", "target_sequence"),
        "perm_mask": ("batch", "sequence", "sequence"),
        "target_mapping": ("batch", "targets", "sequence"),
    }
)
"""The axes of every input, all dynamic; the masks of three axes are float32, the rest int64."""


def choose_task(checkpoint: Checkpoint) -> TaskName:
    """Return what a checkpoint can be scored on, by the head that is in its tensors.

    A fine-tuned head comes before a language-model head, and must be declared in the
    configuration, unless nothing is declared at all. Without any head it is drift.
    """
    declared = _declared(checkpoint.config)
    found = [head for head in BY_TENSORS if head.is_in(checkpoint)]
    for head in found:
        # XLNet's and DistilBERT's classes may go on ("ForQuestionAnsweringSimple").
        if any(head.declared in name for name in declared):
            return head.task
    if _has_language_model_head(checkpoint, " ".join(declared)):
        return checkpoint.family.objective
    return found[0].task if found and not declared else "drift"


def declared_head(config: Mapping[str, Any], family: Family | None) -> Head | None:
    """Return the head that a configuration declares, without a look at any tensor.

    None where nothing is declared, or a head that no task scores; the body's where a model without
    one is.
    """
    declared = _declared(config)
    for head in BY_TENSORS:
        # Only ELECTRA's class for pre-training is a discriminator.
        if any(head.declared in n and (head.task != "rtd" or "Electra" in n) for n in declared):
            return head
    fragments = (*_LANGUAGE_MODELS, "MaskedLM")
    if any(fragment in name for name in declared for fragment in fragments):
        return HEADS[family.objective] if family and family.objective != "drift" else None
    return HEADS["drift"] if declared and not _with_head(declared) else None


def head_left_out(config: Mapping[str, Any], family: Family | None, task: TaskName) -> str:
    """Return the declared class whose head no task scores, so that drift is; "" if none is so."""
    return "" if head_missing(config, family, task) else _declared_beside(config, task)


def head_missing(config: Mapping[str, Any], family: Family | None, task: TaskName) -> str:
    """Return the declared class of a head that a task scores and that is not there, or ""."""
    scored = declared_head(config, family)
    there = scored is None or scored.task == "drift"
    return "" if there else _declared_beside(config, task)


def _declared_beside(config: Mapping[str, Any], task: TaskName) -> str:
    return next(iter(_with_head(_declared(config))), "") if task == "drift" else ""


def _with_head(declared: Iterable[str]) -> list[str]:
    return [name for name in declared if "For" in name or "LMHead" in name]


def _declared(config: Mapping[str, Any]) -> list[str]:
    return [str(name) for name in config.get("architectures") or ()]


def _has_language_model_head(checkpoint: Checkpoint, declared: str) -> bool:
    family = checkpoint.family
    if family.head:
        return any(fragment in name for fragment in family.head for name in checkpoint.tensors)
    return "lm_head.weight" in checkpoint.tensors or any(f in declared for f in _LANGUAGE_MODELS)
