"""What a user sees and a script reads, held as it is: help, JSON documents, artifacts, scores.

A difference here is a change that somebody outside notices. Where it is meant, write the files
anew with ``SURGEON_GOLDEN=write pytest tests/golden`` and read what changed before it is committed.
"""

import json
import os
import re
from pathlib import Path

import pytest
from task_models import each, save_model

from surgeon.cli import _COMMANDS, run
from surgeon.text import built_in_sample

_HERE = Path(__file__).parent
_WRITE = os.environ.get("SURGEON_GOLDEN") == "write"
_TINY = ("bert", "gpt2", "electra")
# What differs from one run, machine or release of a library to the next, and is nobody's promise.
_VARIES = (
    "created", "versions", "surgeon_version", "parity", "graph_key", "providers", "seconds", "path",
)  # fmt: skip
_EXPORTED = re.compile(r"onnx/model\.onnx(_data)?|README\.md")
_PRECISION = {"rel": 1e-3, "abs": 1e-5}
_OF_RANKS = {"abs": 0.05}  # two outputs that are nearly equal may change places
_FRAME = re.compile(r"[\s│╭╮╰╯─]+")  # of a table, whose widths are rich's
_LABELLED = {
    "classification": [
        {"text": line, "label": name}
        for line, name in zip(
            built_in_sample().lines[:12],
            ("entailment", "Neutral", "CONTRADICTION") * 4,
            strict=True,
        )
    ],
    "regression": [
        {"text": line, "label": float(len(line) % 7)} for line in built_in_sample().lines[:12]
    ],
}


def _check(name, found):
    """Compare with the file of that name: text to the letter, numbers to their precision."""
    path = _HERE / name
    if _WRITE:
        path.parent.mkdir(exist_ok=True)
        path.write_text(found if isinstance(found, str) else _written(found) + "\n")
        return
    if isinstance(found, str):
        assert _FRAME.sub(" ", found) == _FRAME.sub(" ", path.read_text())
    else:
        _compare(found, json.loads(path.read_text()), name)


def _written(document, indent=""):
    """A document with a line to each entry, and to each item of a list."""
    inner = indent + " "
    if isinstance(document, dict) and len(json.dumps(document)) > 160:
        lines = [f"{json.dumps(key)}: {_written(value, inner)}" for key, value in document.items()]
        return "{\n" + ",\n".join(inner + line for line in lines) + f"\n{indent}}}"
    if isinstance(document, list) and any(isinstance(item, dict | list) for item in document):
        lines = [json.dumps(item) for item in document]
        return "[\n" + ",\n".join(inner + line for line in lines) + f"\n{indent}]"
    return json.dumps(document)


def _compare(found, expected, where):
    assert type(found) is type(expected) or {type(found), type(expected)} <= {int, float}, where
    if isinstance(expected, dict):
        assert list(found) == list(expected), where
        for key, value in expected.items():
            _compare(found[key], value, f"{where}: {key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            _compare(one, other, f"{where}[{number}]")
    elif isinstance(expected, float):
        precision = _OF_RANKS if "Spearman" in where else _PRECISION
        assert found == pytest.approx(expected, **precision), where
    else:
        assert found == expected, where


def _stable(document, folders):
    """Return a document without what varies, with the folders of this run by a name."""
    if isinstance(document, dict):
        kept = {key: value for key, value in document.items() if key not in _VARIES}
        return {
            key: _stable("(exported)" if _EXPORTED.fullmatch(key) else value, folders)
            for key, value in kept.items()
        }
    if isinstance(document, list):
        return [_stable(value, folders) for value in document]
    if isinstance(document, str):
        for folder, name in folders.items():
            document = document.replace(str(folder), name)
    return document


def _printed(capsys, *arguments):
    assert run([*map(str, arguments)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


@pytest.mark.parametrize("command", sorted(_COMMANDS))
def test_the_help_of_a_command(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _check(f"help/{command}.txt", _printed(capsys, command, "--help"))


@pytest.fixture(scope="module")
def real(minilm, antiberty, iglm_s, patched_once):
    """Artifacts of the real checkpoints, by name: copies, since an evaluation writes into them."""
    return {
        "minilm": patched_once(minilm, 99, 157),
        "antiberty": patched_once(antiberty, 93, 101),
        "iglm-s": patched_once(iglm_s, 3, 8),
    }


@pytest.mark.parametrize("name", ["minilm", "antiberty", "iglm_s", *_TINY])
def test_the_ranking_of_a_checkpoint(name, request, tiny, capsys):
    model = tiny(name) if name in _TINY else request.getfixturevalue(name)
    found = json.loads(_printed(capsys, "scan", model, "--top", "4", "--json"))
    _check(f"scan/{name}.json", _stable(found, {model: "MODEL"}))


@pytest.mark.parametrize("name", ["minilm", "antiberty", "iglm-s"])
def test_the_record_of_a_real_artifact(name, real):
    """The hash of every file of the safetensors half, and every value that was written."""
    record = json.loads((real[name] / "surgeon/record.json").read_bytes())
    del record["blake3"]  # of the record itself, with the time in it
    _check(f"record/{name}.json", _stable(record, {}))


@pytest.mark.parametrize("family", _TINY)
def test_the_record_of_a_tiny_artifact(family, tiny, tmp_path, capsys):
    arguments = ("--dims", "3,8", "--mode", "mean", "--no-onnx", "-o", tmp_path / "out", "--json")
    found = json.loads(_printed(capsys, "patch", tiny(family), *arguments))
    found["files"]["config.json"] = "(saved by transformers, with its version in it)"
    _check(f"record/{family}.json", _stable(found, {tiny(family): "MODEL", tmp_path: "TMP"}))
    found = json.loads(_printed(capsys, "verify", tmp_path / "out", "--json"))
    _check(f"verify/{family}.json", _stable(found, {tmp_path: "TMP"}))
    found = json.loads(_printed(capsys, "diff", tiny(family), tmp_path / "out", "--json"))
    _check(f"diff/{family}.json", _stable(found, {tiny(family): "MODEL", tmp_path: "TMP"}))


@pytest.mark.parametrize("task", each(*_LABELLED, "rtd", "plm", "denoising", "clm, of experts"))
def test_the_scores_of_a_task(task, patched_once, tmp_path, capsys):
    artifact = patched_once(save_model(task, tmp_path / task), 3, 8)
    data = tmp_path / "data.jsonl"
    rows = _LABELLED.get(task) or [{"text": line} for line in built_in_sample().lines[:12]]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = json.loads(
        _printed(capsys, "eval", artifact, "--data", data, "--controls", "5", "--json")
    )
    _check(f"eval/{task.partition(',')[0]}.json", _stable(found, {tmp_path: "TMP"}))


@pytest.mark.parametrize(
    "name", ["minilm", pytest.param("antiberty", marks=pytest.mark.slow), "iglm-s"]
)
def test_the_scores_of_a_real_artifact(name, real, antibody_file, tmp_path, capsys):
    lines = built_in_sample().lines if name == "minilm" else antibody_file.read_text().splitlines()
    data = tmp_path / "data.txt"
    data.write_text("\n".join(lines[:12]) + "\n")
    found = json.loads(
        _printed(capsys, "eval", real[name], "--data", data, "--controls", "5", "--json")
    )
    _check(f"eval/{name}.json", _stable(found, {tmp_path: "TMP"}))
