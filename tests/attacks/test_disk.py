"""What a disk does and holds: full, read-only, long names, and files that are somebody's own."""

import contextlib
import faulthandler
import json
import os
import shutil
import stat
import subprocess
import sys

import pytest
from artifacts import copy_of, files_of, flip_bit, patch, run_python
from rankings import random_ranking

from surgeon import evaluate, plot_ranking, verify
from surgeon.cli import run
from surgeon.edit.record import read_record
from surgeon.edit.staging import staged_file
from surgeon.errors import OutputError
from surgeon.model.files import RECORD

_LIMITED = """
import resource, signal, sys
from surgeon.cli import run
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writing fails as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, resource.RLIM_INFINITY))
sys.exit(run(sys.argv[1:]))
"""
_PATCH = ("--dims", "5", "--no-onnx", "-o")


def _fails(*arguments, says, how=("-m", "surgeon")):
    """Run surgeon in a process of its own, which must end with one line."""
    done = run_python(*how, *arguments, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert says in line
    return line


def _mounted(place, *options):
    """Mount a file system of memory, or as options say, if the rights allow it."""
    command = ["mount", *(options or ("-t", "tmpfs", "-o", "size=30m", "tmpfs")), str(place)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def _read_only(folder):
    """Let a folder take no files; root, whom no mode keeps out, mounts it read-only for that."""
    as_root = os.geteuid() == 0
    places = () if as_root else [folder, *folder.glob("surgeon")]
    if as_root and not _mounted(folder, "--bind", str(folder)):
        pytest.skip("root without the right to mount has no directory that refuses it")
    try:
        assert not as_root or _mounted(folder, "-o", "remount,bind,ro")
        for place in places:
            place.chmod(0o555)
        yield
    finally:
        if as_root:
            subprocess.run(["umount", str(folder)], check=True)
        for place in places:
            place.chmod(0o755)


@pytest.mark.parametrize(("name", "file"), [("minilm", ""), ("antiberty", "/model.safetensors")])
def test_a_disk_that_takes_no_more_leaves_nothing_behind(request, tmp_path, name, file):
    """Of safetensors, which are copied, and of a pickle, whose tensors are written anew."""
    model, out = request.getfixturevalue(name), tmp_path / "a/out"
    told = f"surgeon: {out}{file}: "
    line = _fails("patch", model, *_PATCH, out, says=told, how=("-c", _LIMITED))
    assert "make room there" in line
    assert list(tmp_path.iterdir()) == []


def test_a_full_file_system_leaves_nothing_behind(minilm, tmp_path):
    """On a real file system of 30 MB, where the rights allow to make one."""
    if not _mounted(tmp_path):
        pytest.skip("needs the right to mount; the test above fails the same writes by a limit")
    try:
        told = f"surgeon: {tmp_path}/out: No space left on device; make room"
        _fails("patch", minilm, *_PATCH, tmp_path / "out", says=told)
        assert os.listdir(tmp_path) == []  # noqa: PTH208
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_nothing_is_written_on_windows_and_what_to_do_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    refused = pytest.raises(OutputError, match="out: surgeon does not write on Windows; run it in")
    with refused, staged_file(tmp_path / "out"):
        pass
    assert not list(tmp_path.iterdir())


def test_the_source_under_another_name_is_no_output(tiny, tmp_path):
    """As OUT and out are one folder where case does not count; here it is mounted twice."""
    source, other = copy_of(tiny("bert"), tmp_path / "source"), tmp_path / "other"
    other.mkdir()
    if not _mounted(other, "--bind", str(source)):
        pytest.skip("needs the right to mount")
    try:
        for place in (other, other / "inside"):
            with pytest.raises(OutputError, match="is the source or inside it"):
                patch(source, place, dims=(3,), force=True)
    finally:
        subprocess.run(["umount", str(other)], check=True)
    assert files_of(source) == files_of(tiny("bert"))


def test_a_target_that_takes_no_files_is_refused(minilm, tmp_path):
    target = tmp_path / "locked"
    target.mkdir()
    with _read_only(target):
        _fails("patch", minilm, *_PATCH, target / "out", says="can be written to")
        assert os.listdir(target) == []  # noqa: PTH208


def test_an_artifact_in_a_read_only_place_is_evaluated_where_nothing_is_to_be_kept(
    embedder_patched, tmp_path, refused
):
    artifact, texts = copy_of(embedder_patched, tmp_path / "artifact"), ["One text.", "Another."]
    before = files_of(artifact)
    with _read_only(artifact):
        assert len(evaluate(artifact, texts=texts, controls=1).controls) == 1
        refused("eval", artifact, says="artifact/surgeon: cannot be written to")
    assert files_of(artifact) == before
    (artifact / "surgeon/evaluations").mkdir()
    with _read_only(artifact / "surgeon/evaluations"):
        refused("eval", artifact, says="surgeon/evaluations: cannot be written to")


def test_a_small_patch_that_cannot_be_written_names_what_was_asked_for(tiny, tmp_path, refused):
    (tmp_path / "file").touch()
    for place in ("/proc/edit.surgeon", str(tmp_path / "file" / "edit.surgeon")):
        arguments = ["patch", tiny("bert"), "--dims", "3", "--record-only", "-o", place]
        assert "/.edit" not in refused(*arguments, says=place)


def _add(name):
    def change(folder):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")

    return change


def _note_in_the_card(folder):
    with (folder / "README.md").open("a") as file:
        file.write("mine")


def _link_the_weights(folder):
    (folder / "model.safetensors").rename(folder.parent / "weights")
    (folder / "model.safetensors").symlink_to("../weights")


_CHANGED = {
    "a folder": _add("mine/notes.txt"),
    "a file beside the record": _add("surgeon/notes.txt"),
    "almost a leftover": _add("surgeon/.eval.json.bak"),
    "a file beside the evaluations": _add("surgeon/evaluations/notes.json"),
    "a note in the card": _note_in_the_card,
    "a changed bit": lambda folder: flip_bit(folder / "config.json", 0),
    "a link within": lambda folder: (folder / "again").symlink_to("config.json"),
    "linked weights": _link_the_weights,
    "a damaged record": lambda folder: (folder / RECORD).write_text("{}"),
}


@pytest.mark.parametrize("change", _CHANGED.values(), ids=_CHANGED)
def test_what_surgeon_did_not_make_is_moved_aside_whole_and_told(
    tiny_patched, tiny, tmp_path, done, change
):
    output = shutil.copytree(tiny_patched, tmp_path / "out")
    change(output)
    before = files_of(output)
    (line,) = done("patch", tiny("bert"), *_PATCH, output, "--force").err.splitlines()
    assert line.endswith(f"not all there was made by surgeon, so it was moved to {output}.replaced")
    assert files_of(tmp_path / "out.replaced") == before
    assert read_record(output).dims == (5,)


@pytest.mark.parametrize("made", ["tiny_patched", "embedder_patched"])
def test_what_surgeon_made_is_replaced_its_evaluation_and_leftovers_too(
    request, made, tiny, tmp_path, done
):
    made = request.getfixturevalue(made)
    output = shutil.copytree(made, tmp_path / "out", symlinks=True)
    (output / "surgeon" / "evaluations").mkdir()
    token = "0123456789abcdef.surgeon-staging"
    for name in (
        "eval.json",
        "eval.partial.npz",
        "eval.partial.glue-cola.safetensors",
        f".eval.partial.glue-cola.safetensors.{token}",
        ".eval.json.x1y2z3_4",
        "evaluations/sts-dev.csv-0123abcd.json",
        f"evaluations/.sts-dev.csv-0123abcd.json.{token}",
    ):
        (output / "surgeon" / name).touch()
    done("patch", tiny("bert"), *_PATCH, output, "--force")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_result_that_was_never_written_to_its_end_does_not_fail_verify(tiny_patched, tmp_path):
    out = shutil.copytree(tiny_patched, tmp_path / "out")
    for name in (".eval.json.x1y2z3_4", ".eval.json.0123456789abcdef.surgeon-staging"):
        (out / "surgeon" / name).touch()
    assert verify(out).passed
    (out / "link").symlink_to(tmp_path)
    (failed,) = [check for check in verify(out).checks if not check.passed]
    assert failed.found == "1 more, link among them"


def test_a_file_that_surgeon_did_not_make_is_moved_aside_and_its_own_replaced(tiny, tmp_path, done):
    model = tiny("bert")
    steps = [shutil.copytree(model, tmp_path / f"step{step}") for step in (100, 200)]
    small = ["patch", model, "--dims", "5", "--record-only"]
    for name, command in {
        "thesis.txt": small,
        "model.safetensors": small,
        "trace.json": ["trace", *steps],
        "trace.parquet": ["trace", *steps],
    }.items():
        path = tmp_path / name
        path.write_bytes(b"mine")
        for moved in (1, 0):
            assert done(*command, "-o", path, "--force").err.count("moved to") == moved
        assert path.with_name(f"{name}.replaced").read_bytes() == b"mine"
        assert not path.with_name(f"{name}.replaced1").exists()


@pytest.mark.parametrize("kind", ["--no-onnx", "--record-only"])
def test_a_name_of_255_bytes_works_and_a_longer_one_is_shown_as_it_was_asked_for(
    tiny, tmp_path, done, refused, kind
):
    name, shorter = "é" * 127 + "n", "é" * 119 + ".replaced"
    (tmp_path / name).write_text("mine")
    command = ["patch", tiny("bert"), "--dims", "5", kind, "-o"]
    for _ in range(2):
        done(*command, tmp_path / name, "--force")
    assert sorted(path.name for path in tmp_path.iterdir()) == [shorter, name]
    told = refused(*command, tmp_path / f"{name}x")
    assert told == f"surgeon: {tmp_path / name}x: File name too long"
    assert sorted(path.name for path in tmp_path.iterdir()) == [shorter, name]


def test_an_output_has_the_group_and_the_rights_of_its_folder(tiny, tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o2775)
    mask = os.umask(0o027)
    try:
        patch(tiny("bert"), tmp_path / "shared" / "out")
    finally:
        os.umask(mask)
    for folder in ("out", "out/surgeon"):
        assert stat.S_IMODE((tmp_path / "shared" / folder).stat().st_mode) == 0o2750
    record = tmp_path / "shared" / "out" / "surgeon" / "record.json"
    assert stat.S_IMODE(record.stat().st_mode) == 0o640


def test_a_page_that_surgeon_did_not_make_is_known_by_its_head(tmp_path):
    from surgeon.figures import is_picture
    from surgeon.figures.page import page

    (tmp_path / "ours").write_bytes(page("title", "body"))
    (tmp_path / "theirs").write_bytes(b"<!DOCTYPE html>\n<html><title>mine</title></html>")
    assert [is_picture(tmp_path / name) for name in ("ours", "theirs")] == [True, False]


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf", "html"])
def test_a_picture_replaces_an_earlier_one_alone(tmp_path, suffix):
    path, mine = tmp_path / f"scan.{suffix}", b"<p>Mine, of what norm-surgeon drew.</p>"
    path.write_bytes(mine)
    for _ in range(2):
        plot_ranking(*random_ranking(hidden=16), path)
    assert path.with_name(f"{path.name}.replaced").read_bytes() == mine
    assert len(list(tmp_path.iterdir())) == 2


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


def _endless(path):
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.fixture
def soon():
    """End the tests if one waits, or writes, without end: threads of it hear no signal."""
    faulthandler.dump_traceback_later(60, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.mark.parametrize("put", [_pipe, _endless])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "README.md", "surgeon/excised.safetensors"]
)
def test_what_has_no_end_is_neither_read_nor_waited_for(
    tiny_patched, tmp_path, capsys, refused, soon, put, name
):
    output = shutil.copytree(tiny_patched, tmp_path / "out")
    put(output / name)
    assert run(["verify", str(output), "--json"]) in (1, 2)
    if document := capsys.readouterr().out:
        assert name in [c["name"] for c in json.loads(document)["checks"] if not c["passed"]]
    if name != "README.md":  # which surgeon made, so restore has no need of it
        says = f"{name}: is not a regular file"
        refused("restore", output, "-o", tmp_path / "back", says=says)
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
