"""The branches and tags of a repository on the Hub: what a training run kept of its way."""

from __future__ import annotations

from surgeon.checkpoint.hub import hub_api
from surgeon.checkpoint.hub_errors import answers_like_the_hub, explained
from surgeon.checkpoint.retry import PATIENT, retry


def list_revisions(model_id: str) -> tuple[str, ...]:
    """Ask the Hub for the names of a repository's branches and tags, each once, in its order.

    Raises:
        CheckpointError: the repository cannot be had.
    """
    with explained(model_id), answers_like_the_hub(model_id):
        refs = retry(lambda: hub_api().list_repo_refs(model_id), PATIENT)
        return tuple(dict.fromkeys(ref.name for ref in (*refs.branches, *refs.tags)))
