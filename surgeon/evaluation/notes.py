"""What was left out of an evaluation, and why: a sentence each, beside the warnings."""

from __future__ import annotations

from surgeon.evaluation.result import Dataset
from surgeon.onnx_model.facts import OnnxFacts

NOTHING_TO_RESUME = (
    "--resume: nothing was kept of an evaluation with these settings, so that it began anew"
)
MEAN_POOLED = (
    "no modules.json of sentence-transformers is in the artifact, so a sentence is embedded by the "
    "mean of its tokens"
)
NO_BLANKS = "no block has a length to be read with a blank filled in (8 to 32 tokens)"


def notes_of(facts: OnnxFacts, dataset: Dataset) -> tuple[str, ...]:
    """Return what a reader would otherwise not see was left out."""
    found = list(facts.not_applied)
    if facts.head_left_out:
        found.append(
            f"config.json declares {facts.head_left_out}, whose head no task scores: what is "
            "measured is the model below it"
        )
    if facts.head_missing:
        found.append(
            f"config.json declares {facts.head_missing}, and the model has no such head: what is "
            "measured is the model below it"
        )
    if facts.one_at_a_time:
        found.append(
            "the graph takes one text alone, or gives it another output in a batch (by quantizing "
            "a batch as a whole, or taking padding for text), so that each was run alone"
        )
    if dataset.skipped:
        found.append(
            f"{dataset.skipped} of {dataset.skipped + dataset.examples} texts or rows were left "
            "out: they have no label (-1 is none), or no token to score"
        )
    return tuple(found)
