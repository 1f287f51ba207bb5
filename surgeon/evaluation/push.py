"""Artifact → Hub: upload what surgeon made and nothing else, with a card of what was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from surgeon.edit.card import read_front_matter
from surgeon.edit.files import CARD, EVALUATION, FileState, hash_file
from surgeon.edit.record import Record, read_record
from surgeon.edit.staging import is_result, is_unfinished
from surgeon.errors import OutputError
from surgeon.evaluation.notes import tabulate
from surgeon.evaluation.result import Evaluation, read_evaluations
from surgeon.harmless import markdown_cell
from surgeon.model.files import FOLDER, RECORD, may_follow
from surgeon.model.hub import hub_api, looks_like_hub_id, parse_hub_id
from surgeon.model.hub_errors import answers_like_the_hub, endpoint, explained
from surgeon.model.weight_files import find_weights_name
from surgeon.progress import Progress, silent

_HEADING = "\n## Evaluations\n"


def push(
    artifact: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    unverified: bool = False,
    base_model: str | None = None,
    progress: Progress = silent,
) -> str:
    """Upload an artifact with its card to a model repository, and return the commit's URL.

    The card that is uploaded also shows the newest evaluation on each task and data set, and the
    record that is uploaded has the hash of that card. Evaluations that an earlier upload left are
    removed in the same commit; other files of the repository stay.

    Args:
        artifact: the directory that an operation made.
        repo_id: ``name`` or ``organization/name``, or its address; made if it does not exist.
        private: whether others must not see it.
        unverified: whether an artifact goes that was never evaluated.
        base_model: the Hub id of what was edited, for the card that is uploaded (None: as the card
            says).
        progress: called at each step.

    Raises:
        CheckpointError: the directory is no artifact, or the Hub does not take it.
        EvaluationError: an evaluation is damaged.
        OutputError: the artifact was not evaluated, is not as surgeon made it, its card names no
            base model that the Hub takes, it would be seen by others though ``private`` is set, or
            loaders would take other weights of the repository.
    """
    artifact = Path(artifact)
    record = read_record(artifact)
    target = parse_hub_id(repo_id)
    if target is None or target.revision is not None:
        raise OutputError(f"{repo_id}: no name of a repository; give one like organization/name")
    repo_id = target.model
    names = sorted(_files(artifact))
    evaluations = read_evaluations(artifact)
    for one in evaluations:
        if (one.model, one.patched.dims) != (record.model, record.dims):
            raise OutputError(
                f"{artifact}: its evaluation on {one.task} is about another edit; run surgeon eval "
                "again"
            )
    if EVALUATION not in names and not unverified:
        raise OutputError(
            f"{artifact}: never evaluated, so nobody knows what the edit does; "
            f"{record.to_evaluate}, or push it as it is with `unverified=True`"
        )
    _check_files(artifact, record, names, progress)
    card = _card(artifact / CARD, evaluations, base_model)
    changed = {CARD: card, RECORD: _with_card(record, card)}
    with explained(repo_id, to_write=True), answers_like_the_hub(repo_id):
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        api = hub_api()
        progress(f"uploading to {repo_id}", 0, 0)
        # Before there is a repository.
        _check_card(artifact, card)
        # Only the Hub knows whose a name without an organization is.
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if private and not api.model_info(repo_id).private:
            raise OutputError(f"{repo_id}: exists and is public; make it private, or name another")
        there = api.list_repo_files(repo_id)
        first = find_weights_name({*there, *names})
        if first not in names and find_weights_name(names):
            raise OutputError(
                f"{repo_id}: has {first}, which loaders take before the weights of {artifact}; "
                "remove it there, or name another repository"
            )
        # An evaluation of what was there before would be read as one of this edit.
        stale = [name for name in there if is_result(name) and name not in names]
        commit = api.create_commit(
            repo_id=repo_id,
            operations=[
                *map(CommitOperationDelete, stale),
                *(CommitOperationAdd(name, changed.get(name, artifact / name)) for name in names),
            ],
            commit_message=f"surgeon: dimensions {', '.join(map(str, record.dims))}"[:100],
        )
    return str(commit.commit_url)


def _card(path: Path, evaluations: Sequence[Evaluation], base_model: str | None) -> bytes:
    """Return the card with what was measured, and with another base model where one is named.

    Raises:
        OutputError: the name in the card, or ``base_model``, is no Hub id.
    """
    from huggingface_hub import RepoCard

    # That of an artifact which came from the Hub has such a section.
    text = path.read_bytes().decode("utf-8", "replace").partition(_HEADING)[0].rstrip()
    text = f"{text}\n{_HEADING}\n{_measured(evaluations)}\n"
    if base_model is not None:
        found = parse_hub_id(base_model)
        if found is None:
            raise OutputError(
                f"`base_model` {base_model}: no Hub id; give one like organization/name"
            )
        card = RepoCard(text)
        card.data["base_model"] = found.model
        return str(card).encode()
    named = read_front_matter(path).get("base_model")
    for name in named if isinstance(named, list) else [named]:
        if not isinstance(name, str) or not looks_like_hub_id(name):
            raise OutputError(
                f"{path}: names {name!r} as its base model, which the Hub does not take; name it "
                "with `base_model` ORG/NAME"
            )
    return text.encode()


def _measured(evaluations: Sequence[Evaluation]) -> str:
    """Return the evaluations as a table of Markdown."""
    if not evaluations:
        return "None: what the edit does was not measured."
    heads, rows = tabulate(evaluations)
    lines = [heads, ["---"] * len(heads), *([markdown_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _with_card(record: Record, card: bytes) -> bytes:
    """Return the record as it is of an artifact with that card."""
    from blake3 import blake3

    after = FileState(len(card), blake3(card).hexdigest())
    files = {**record.files, CARD: dataclasses.replace(record.files[CARD], after=after)}
    return dataclasses.replace(record, files=files).to_bytes()


def _check_card(artifact: Path, card: bytes) -> None:
    """Ask the Hub whether it takes the card's header."""
    from huggingface_hub.errors import BadRequestError
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        get_session,
        hf_raise_for_status,
    )

    response = get_session().post(
        f"{endpoint()}/api/validate-yaml",
        json={"content": card.decode(errors="replace"), "repoType": "model"},
        headers=build_hf_headers(),
    )
    try:
        hf_raise_for_status(response)
    except BadRequestError as error:
        reasons = "; ".join(one["message"] for one in response.json()["errors"])
        raise OutputError(
            f"{artifact / CARD}: the Hub does not take its header: {reasons}"
        ) from error


def _files(artifact: Path) -> Iterator[str]:
    for path in artifact.rglob("*"):
        if path.is_symlink() and not may_follow(artifact, path):
            raise OutputError(
                f"{path}: a link to elsewhere, so that what is there would be uploaded; remove it, "
                "or put the file in its place"
            )
        if not (path.is_file() or path.is_dir()):
            raise OutputError(f"{path}: a pipe or a device; remove it")
        name = path.relative_to(artifact).as_posix()
        if path.is_file() and not is_unfinished(name):
            yield name


def _check_files(artifact: Path, record: Record, names: list[str], progress: Progress) -> None:
    """Check that the files are those of the record and surgeon's own, and no others."""
    for name in names:
        if name not in record.files and not name.startswith(f"{FOLDER}/"):
            raise OutputError(
                f"{artifact / name}: not made by surgeon; move it out of the artifact"
            )
    for number, (name, change) in enumerate(record.files.items()):
        progress("checking the files", number, len(record.files))
        # Only what was found by walking is opened: a record is untrusted input.
        if name not in names:
            raise OutputError(f"{artifact}: {name} is missing; make the artifact again")
        if hash_file(artifact / name) != change.after:
            raise OutputError(
                f"{artifact / name}: changed since surgeon made it, so the record does not "
                "describe it; make the artifact again"
            )
