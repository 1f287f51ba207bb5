"""An artifact comes from anywhere: what its record and its evaluation say is text, and no more.

Each text in ``record.json`` and ``eval.json`` is replaced in turn by one that would be markup to a
terminal, a script to a browser and colour codes to a console.
"""

import json
import shutil

import pytest
from artifacts import EVALUATION, edit_record, write_record

from surgeon.cli import run

HOSTILE = "[/x][red]</script><img src=x onerror=alert(1)>\x1b[31m"


@pytest.fixture(scope="module")
def artifact(tiny_patched, tmp_path_factory):
    folder = shutil.copytree(tiny_patched, tmp_path_factory.mktemp("artifact") / "out")
    (folder / "surgeon" / "eval.json").write_text(json.dumps(EVALUATION))
    assert run(["report", str(folder), "-o", str(folder.parent / "page.html")]) == 0
    return folder


def _places(document, path=()):
    """Yield the path to each text and each key of a document, one entry of a list for all."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from _places(value, (*path, key))
    elif isinstance(document, list):
        yield from _places(document[0], (*path, 0)) if document else ()
    elif isinstance(document, str) or document is None:
        yield path


def _with(document, path, value):
    whole = json.loads(json.dumps(document))
    inner = whole
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    return whole


@pytest.mark.slow
@pytest.mark.parametrize("name", ["record.json", "eval.json"])
def test_no_text_of_an_artifact_is_more_than_text(artifact, tmp_path, capfd, name):
    folder, page = tmp_path / "out", tmp_path / "page.html"
    shutil.copytree(artifact, folder)
    file = folder / "surgeon" / name
    document = json.loads(file.read_bytes())
    places, shown = list(_places(document)), 0
    assert len(places) > 15
    for path in places:
        changed = _with(document, path, HOSTILE)
        if name == "record.json":
            write_record(folder, changed)
        else:
            file.write_text(json.dumps(changed))
        commands = (
            ["report", str(folder), "-o", str(page), "--force"],
            ["verify", str(folder)],
            ["restore", str(folder), "-o", str(tmp_path / "back"), "--force"],
        )
        for command in commands[: 3 if name == "record.json" else 1]:  # what reads that file
            page.unlink(missing_ok=True)
            assert run(command) in (0, 1, 2), (path, command)
            said = "".join(capfd.readouterr())
            assert "Traceback" not in said
            assert "unexpected" not in said, (path, command, said)
            assert "\x1b" not in said, (path, command, said)
            if page.exists():
                text = page.read_text()
                assert "<img" not in text, path
                shown += "&lt;img" in text
    assert shown or name == "record.json"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("factor", "x"),
        ("mode", "explode"),
        ("dims", [[1]]),
        ("params", ["gain", "gains"]),
        ("evaluation", {"task": 3}),
        ("nonsense", 1),
    ],
)
def test_a_recipe_in_a_record_is_checked_like_any_other(artifact, tmp_path, refused, field, value):
    folder = shutil.copytree(artifact, tmp_path / "out")
    edit_record(folder, lambda record: record["recipe"].update({field: value}))
    line = refused("verify", folder, says=field)
    assert line.startswith(f"surgeon: {folder}/surgeon/record.json: damaged (")
