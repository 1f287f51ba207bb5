"""Task heads: how one is known, which class of transformers loads it, what that takes and gives.

One row per task. A new head is a new row, and its inputs' axes if they have a new name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from surgeon.families import Family
from surgeon.model import Checkpoint
from surgeon.tasks.task import TaskName

RowKind: TypeAlias = Literal["token", "target", "sequence"]


@dataclass(frozen=True)
class Head:
    """A row of the table.

    ``auto_class`` is the name of transformers' class, ``outputs`` are those of its outputs that
    the task is scored on, ``inputs`` what it takes beyond the tokens and their mask. ``rows``
    says what an output has a row for: each input token, each target (of a decoder, or asked for),
    or each sequence as a whole. ``tensors`` begin tensor names, below any prefix, that only a
    checkpoint with the head has; empty where the family's row of the registry knows the head.
    """

    task: TaskName
    auto_class: str
    outputs: tuple[str, ...] = ("logits",)
    inputs: tuple[str, ...] = ()
    rows: RowKind = "token"
    tensors: tuple[str, ...] = ()

    def is_in(self, checkpoint: Checkpoint) -> bool:
        """Whether the checkpoint has tensors of the head."""
        names = [f".{name}" for name in checkpoint.tensors]
        return any(f".{fragment}" in name for fragment in self.tensors for name in names)

    def is_declared(self, classes: list[str]) -> bool:
        """Whether one of a configuration's classes has the head."""
        # XLNet's and DistilBERT's classes may go on ("ForQuestionAnsweringSimple").
        ending = self.auto_class.removeprefix("AutoModel")
        return any(ending in name for name in classes)


_CLASSIFIERS = ("classifier.", "score.", "classification_head.", "logits_proj.")

# Where nothing is declared, the first row whose tensors are there decides.
_FINE_TUNED = (
    Head(
        "classification",
        "AutoModelForSequenceClassification",
        rows="sequence",
        tensors=_CLASSIFIERS,
    ),
    Head("token-classification", "AutoModelForTokenClassification", tensors=_CLASSIFIERS),
    Head("rtd", "AutoModelForPreTraining", tensors=("discriminator_predictions.",)),
    # The last, because ModernBERT's head for answers has the name of a classifier's.
    Head(
        "question-answering",
        "AutoModelForQuestionAnswering",
        outputs=("start_logits", "end_logits"),
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
HEADS: Mapping[TaskName, Head] = {head.task: head for head in (*_FINE_TUNED, *_BY_FAMILY)}

# Parts of the names of classes that have a language model's head.
_LANGUAGE_MODELS = ("LMHead", "CausalLM", "ConditionalGeneration")
LEFT_PADDED = {("xlnet", "classification")}
"""Model types and tasks whose shorter sequences are filled up on the left: XLNet classifies by the
last position, whatever is there (Yang et al. 2019 pad so)."""

AXES: Mapping[str, tuple[str, ...]] = {
    "input_ids": ("batch", "sequence"),
    "attention_mask": ("batch", "sequence"),
    "token_type_ids": ("batch", "sequence"),
    "decoder_input_ids": ("batch", "target_sequence"),
    "perm_mask": ("batch", "sequence", "sequence"),
    "target_mapping": ("batch", "targets", "sequence"),
}
"""The axes of every input, all dynamic; the masks of three axes are float32, the rest int64."""


def detect_task(checkpoint: Checkpoint) -> TaskName:
    """Return what a checkpoint can be scored on, by the head that is in its tensors.

    A fine-tuned head comes before a language-model head, and must be declared in the
    configuration, unless nothing is declared at all. Without any head it is drift.
    """
    declared, family = _declared(checkpoint.config), checkpoint.family
    found = [head for head in _FINE_TUNED if head.is_in(checkpoint)]
    for head in found:
        if head.is_declared(declared):
            return head.task
    if family.head:
        with_head = any(part in name for part in family.head for name in checkpoint.tensors)
    else:
        with_head = "lm_head.weight" in checkpoint.tensors or _mentions(declared, _LANGUAGE_MODELS)
    if with_head:
        return family.objective
    return found[0].task if found and not declared else "drift"


def declared_head(config: Mapping[str, Any], family: Family | None) -> Head | None:
    """Return the head that a configuration declares, without a look at any tensor.

    None where nothing is declared, or a head that no task scores; the body's where a model without
    one is.
    """
    declared = _declared(config)
    for head in _FINE_TUNED:
        # Only ELECTRA's class for pre-training is a discriminator.
        if head.is_declared([n for n in declared if head.task != "rtd" or "Electra" in n]):
            return head
    if _mentions(declared, (*_LANGUAGE_MODELS, "MaskedLM")):
        return HEADS[family.objective] if family and family.objective != "drift" else None
    return HEADS["drift"] if declared and not _class_with_head(declared) else None


def unscored_head(
    config: Mapping[str, Any], family: Family | None, task: TaskName
) -> tuple[str, str]:
    """Return why drift is scored although the configuration declares a class with a head.

    The class stands first if no task scores its head, and second if one does and the weights have
    no such head; elsewhere they are "".
    """
    declared = _class_with_head(_declared(config)) if task == "drift" else ""
    scored = declared_head(config, family)
    return ("", declared) if scored and scored.task != "drift" else (declared, "")


def _declared(config: Mapping[str, Any]) -> list[str]:
    return [str(name) for name in config.get("architectures") or ()]


def _mentions(declared: list[str], fragments: tuple[str, ...]) -> bool:
    return any(fragment in name for name in declared for fragment in fragments)


def _class_with_head(declared: list[str]) -> str:
    return next((name for name in declared if "For" in name or "LMHead" in name), "")
