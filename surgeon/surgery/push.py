"""Artifact → Hub: upload what surgeon made and nothing else."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from surgeon.checkpoint.hub import hub_api, looks_like_hub_id
from surgeon.checkpoint.hub_errors import answers_like_the_hub, explained
from surgeon.checkpoint.json_object import parse_json
from surgeon.errors import OutputError
from surgeon.progress import Progress, silent
from surgeon.surgery.ownership import is_unfinished
from surgeon.surgery.record import Record, read_record
from surgeon.surgery.source_files import EVALUATION, FOLDER
from surgeon.surgery.transfer import hash_file


def push(
    artifact: Path,
    repo_id: str,
    *,
    private: bool = False,
    unverified: bool = False,
    progress: Progress = silent,
) -> str:
    """Upload an artifact with its card to a model repository, and return the commit's URL.

    Args:
        artifact: the directory that an operation made.
        repo_id: ``name`` or ``organization/name``; made if it does not exist.
        private: whether others must not see it.
        unverified: whether an artifact goes that was never evaluated.
        progress: told of each step.

    Raises:
        CheckpointError: the directory is no artifact, or the Hub does not take it.
        OutputError: the artifact was not evaluated, is not as surgeon made it, or would be seen
            by others though ``private`` is set.
    """
    record = read_record(artifact)
    if not looks_like_hub_id(repo_id):
        raise OutputError(f"{repo_id}: no name of a repository; give one like organization/name")
    names = sorted(_files(artifact))
    if EVALUATION in names:
        _check_evaluation(artifact, record)
    elif not unverified:
        raise OutputError(
            f"{artifact}: never evaluated, so nobody knows what the edit does; run surgeon eval "
            "first, or push it as it is with --unverified"
        )
    _check_files(artifact, record, names, progress)
    with explained(repo_id, to_write=True), answers_like_the_hub(repo_id):
        api = hub_api()
        progress(f"uploading to {repo_id}", 0, 0)
        api.create_repo(repo_id, private=private, exist_ok=True)
        if private and not api.model_info(repo_id).private:
            raise OutputError(f"{repo_id}: exists and is public; make it private, or name another")
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=artifact,
            commit_message=f"surgeon: dimensions {', '.join(map(str, record.dims))}"[:100],
            # The names are patterns to huggingface_hub.
            allow_patterns=[glob.escape(name) for name in names],
        )
    return str(commit.commit_url)


def _files(artifact: Path) -> Iterator[str]:
    for folder, subfolders, files in os.walk(artifact):
        for name in (*subfolders, *files):
            path = Path(folder, name)
            if path.is_symlink():
                raise OutputError(
                    f"{path}: a link, so what it leads to would be uploaded; remove it or put the "
                    "file in its place"
                )
            if not (path.is_file() or path.is_dir()):
                raise OutputError(f"{path}: a pipe or a device; remove it")
        paths = (Path(folder, name).relative_to(artifact).as_posix() for name in files)
        yield from (path for path in paths if not is_unfinished(path))


def _check_evaluation(artifact: Path, record: Record) -> None:
    """Check that the evaluation is of this model and these dimensions."""
    path = artifact / EVALUATION
    try:
        evaluation = parse_json(path.read_bytes())
        about = (evaluation["model"], tuple(evaluation["patched"]["dims"]))
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path}: damaged ({error}); run surgeon eval again") from error
    if about != (record.model, record.dims):
        raise OutputError(f"{path}: is about another edit; run surgeon eval again")


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
