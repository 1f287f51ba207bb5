"""A surgeon that is killed leaves each output old or new, and nothing of anybody's is gone.

``SURGEON_KILLS`` sets at how many moments a patch is killed by the clock; half as often two run at
one output, and each command is killed at a quarter as many of its calls to the disk (CI: 8; the
claims were run with 200, by which each call has its kill).
"""

import errno
import json
import math
import os
import random
import shutil
import signal
import time

import numpy as np
import pytest
from artifacts import files_of, patch, plan_of
from forked import forks
from safetensors.numpy import save_file

from surgeon import verify, write_small_patch
from surgeon.cli import run as surgeon
from surgeon.edit.files import hash_file
from surgeon.edit.record import read_record
from surgeon.errors import CheckpointError, OutputError
from surgeon.model.files import RECORD
from surgeon.text import built_in_sample

_KILLS = int(os.environ.get("SURGEON_KILLS", "8"))


@pytest.fixture(scope="module")
def run():
    with forks() as run:
        yield run


@pytest.fixture
def model(tmp_path):
    """A model of 100 MB, so that a patch takes long enough to be killed in its midst."""
    folder = tmp_path / "model"
    folder.mkdir()
    tensors = {"embeddings.word_embeddings.weight": np.zeros((50_000, 512), np.float32)}
    for layer in range(4):
        for leaf in ("weight", "bias"):
            name = f"encoder.layer.{layer}.output.LayerNorm.{leaf}"
            tensors[name] = np.random.default_rng(layer).random(512, np.float32)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "README.md").write_text("mine")
    return folder


def test_a_kill_at_any_moment_leaves_the_output_absent_or_complete(model, tmp_path, run):
    source = {path.name: hash_file(path) for path in model.iterdir()}
    output = tmp_path / "out"
    rng = random.Random(0)
    longest = min(_patch(run, model, output) for _ in range(2))
    assert verify(output).passed
    seen = set()
    for number in range(_KILLS):
        if number % 3:  # else an earlier artifact is replaced
            shutil.rmtree(output, ignore_errors=True)
        # At a random moment of each stretch of time, so that the early ones are among them.
        moment = (number + rng.random()) / _KILLS
        # Timed anew by each run that was done before its kill: the machine may have been busy.
        longest = min(longest, _patch(run, model, output, 1.2 * moment * longest))
        assert {path.name: hash_file(path) for path in model.iterdir()} == source
        if output.exists():
            assert verify(output).passed
        seen.add(output.exists())
        left = [path.name for path in tmp_path.iterdir() if path.name not in ("model", "out")]
        # What one kill leaves is hidden, and the next patch removes it.
        assert len(left) <= 1
        assert all(name.startswith(".out.") for name in left)
    assert seen == {True, False} or _KILLS < 5
    assert _patch(run, model, output) < math.inf
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]


def _patch(run, model, output, end_after=0.0):
    """Run a patch, which a signal ends after some seconds; return how long one not ended took."""
    start = time.perf_counter()
    command = ["patch", model, "--dims", "3,9", "--no-onnx", "--force", "-o", output]
    ((code, _, printed),) = run(command, end_after=end_after)
    took = time.perf_counter() - start
    assert code == 0 or (end_after and code == -signal.SIGALRM), printed
    return took if code == 0 else math.inf


_MINE = b"written by somebody: "
_MADE = "patch model --dims 5 --no-onnx -o out"
_GRID = "models: [nowhere]\nselections: [{each: 0-2}]\ntasks: [task: mlm]\n"

# Each command, and what is at its output before: a key of the functions below.
_COMMANDS = (
    (_MADE, "nothing"),
    (f"{_MADE} --force", "an artifact"),
    (f"{_MADE} --force", "an artifact with a file"),
    (f"{_MADE} --force", "a project"),
    ("restore old -o out", "nothing"),
    ("restore old -o out --force", "a project"),
    ("apply edit.surgeon model --no-onnx -o out", "nothing"),
    ("patch model --dims 5 --record-only -o out", "nothing"),
    ("patch model --dims 5 --record-only -o out --force", "a text"),
    pytest.param("report evaluated -o out.html --force", "a page", marks=pytest.mark.slow),
    ("eval out --data lines.txt --controls 2", "an artifact with a graph"),
    ("sweep grid.yaml out", "nothing"),
    ("export model -o out", "nothing"),
    ("patch model --dims 5 -o out --force", "an artifact with a graph"),
)


@pytest.fixture(scope="module")
def world(tiny, embedder_patched, run, tmp_path_factory):
    """A folder with all that the commands name, but for their outputs."""
    world = tmp_path_factory.mktemp("world")
    shutil.copytree(tiny("bert"), world / "model")
    (world / "model" / "notes.txt").write_bytes(_MINE + b"source")
    (world / "lines.txt").write_text("\n".join(built_in_sample().lines[:2]))
    (world / "grid.yaml").write_text(_GRID)
    patch(world / "model", world / "old")
    write_small_patch(plan_of(world / "model", dims=(5,)), world / "edit.surgeon")
    _link(embedder_patched, world / "evaluated")
    data = ["--data", world / "lines.txt", "--controls", "2"]
    ((code, _, printed),) = run(["eval", world / "evaluated", *data])
    assert code == 0, printed
    # Its graph is kept from here on, so that each later run makes the same calls.
    assert surgeon(["export", str(world / "model"), "-o", str(world.with_name("exported"))]) == 0
    return world


def _link(source, target):
    """Copy a folder whose files nobody writes in place."""
    shutil.copytree(source, target, copy_function=os.link)


def _put(what, world, output):
    """Put something at an output."""
    if what == "an artifact with a graph":
        _link(world / "evaluated", output)
        (output / "surgeon" / "eval.json").unlink()
    elif what.startswith("an artifact"):
        _link(world / "old", output)
        if what.endswith("a file"):
            (output / "mine").mkdir()
            (output / "mine" / "notes.txt").write_bytes(_MINE + b"notes")
    elif what == "a project":
        (output / "surgeon").mkdir(parents=True)
        (output / "surgeon" / "record.json").write_text("{}")
        (output / "surgeon" / "code.py").write_bytes(_MINE + b"code")
    elif what in ("a text", "a page"):
        output.write_bytes(_MINE + b"text")


def _state(path):
    """Return what is at an output, but for times and for what is hidden."""
    if not path.is_dir():
        return _content(path.read_bytes()) if path.exists() else None
    files = {name: content for name, content in files_of(path).items() if "/." not in f"/{name}"}
    for name in (RECORD, "surgeon/export.json", "rows.parquet"):
        files.pop(name, None)
    if rows := files.pop("rows.jsonl", b""):
        files["rows"] = [{**json.loads(row), "seconds": 0} for row in rows.splitlines()]
    return files


def _content(file):
    """Return the bytes of a file; those of a small patch without the order of its metadata."""
    start = 8 + int.from_bytes(file[:8], "little")
    return (json.loads(file[8:start]), file[start:]) if start < len(file) else file


def _somebodys(folder):
    return {content for content in files_of(folder).values() if content.startswith(_MINE)}


def _passes(output):
    try:
        return not (output / RECORD).is_file() or verify(output).passed
    except CheckpointError:
        return False


@pytest.mark.parametrize(("command", "before"), _COMMANDS)
def test_a_kill_at_a_call_to_the_disk_leaves_old_or_new(command, before, world, tmp_path, run):
    words = command.split()
    name = next(word for word in words if word in ("out", "out.html"))
    place, output = tmp_path / "place", tmp_path / "place" / name
    arguments = [str(place / w) if (world / w).exists() or w == name else w for w in words]

    def anew():
        shutil.rmtree(place, ignore_errors=True)
        _link(world, place)
        _put(before, world, output)
        return _state(output)

    old, sound = anew(), _passes(output)
    ((code, calls, printed),) = run(arguments)
    assert (code, _passes(output)) == (0, True), printed
    new = _state(output)
    points = min(calls, max(2, _KILLS // 4))
    for number in range(points):
        anew()
        source, mine = files_of(place / "model"), _somebodys(place)
        ((code, _, printed),) = run(arguments, end_at=number * (calls - 1) // max(1, points - 1))
        assert code == -signal.SIGKILL, printed
        left = _state(output)
        assert left in (old, new) or words[0] == "sweep"
        assert _passes(output) or (left == old and not sound)
        assert mine <= _somebodys(place)
        ((code, _, printed),) = run(arguments)
        done = left == new and before == "nothing" and words[0] != "sweep"
        assert code == (2 if done else 0), printed
        assert _state(output) == new
        assert _passes(output)
        assert mine <= _somebodys(place)
        assert files_of(place / "model") == source
        assert not list(place.rglob("*.surgeon-staging"))


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_can_be_heard_leaves_nothing_behind(world, tmp_path, run, by):
    _put("an artifact with a file", world, tmp_path / "out")
    command = ["patch", world / "model", "--dims", "5", "--no-onnx", "-o"]
    for number, output in ((0, "new/out"), (1, "new/out"), (5, "out")):
        before = files_of(tmp_path)
        arguments = [*command, tmp_path / output, "--force"]
        ((code, _, printed),) = run(arguments, end_at=number, by=by)
        assert (code, printed) == (128 + by, "surgeon: interrupted\n")
        assert files_of(tmp_path) == before
        assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", ["--no-onnx", "--record-only"])
def test_of_two_at_one_output_one_wins_and_the_other_says_so(kind, world, tmp_path, run):
    output = tmp_path / "out"
    for _ in range(_KILLS // 2 if kind == "--no-onnx" else 2):
        command = ["patch", world / "model", kind, "-o", output, "--dims"]
        answers = run([*command, "3"], [*command, "5"], meet=True)
        assert sorted(code for code, *_ in answers) == [0, 2], answers
        winner = [code for code, *_ in answers].index(0)
        told = answers[1 - winner][2]
        assert told.startswith(f"surgeon: -o {output}: has appeared meanwhile")
        assert told.count("\n") == 1
        if kind == "--no-onnx":
            assert read_record(output).dims == ((3,), (5,))[winner]
            assert verify(output).passed
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        shutil.rmtree(output) if output.is_dir() else output.unlink()


@pytest.mark.parametrize("locks", [True, False])
def test_only_what_no_process_holds_is_removed(tmp_path, monkeypatch, locks):
    from surgeon.edit.staging import staged, staged_file

    def not_there(_descriptor, _how):
        raise OSError(errno.ENOSYS, "Function not implemented")

    if not locks:
        monkeypatch.setattr("fcntl.flock", not_there)
    with staged(tmp_path / "out", force=False) as first, staged_file(tmp_path / "file") as second:
        (first / "kept").write_text("yes")
        with pytest.raises(KeyError), staged(tmp_path / "out", force=False):
            raise KeyError
        assert (first / "kept").read_text() == "yes"
        assert second.exists()
    assert (tmp_path / "out" / "kept").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]


@pytest.mark.parametrize("before", ["an artifact", "an artifact with a file", "a text"])
def test_where_the_system_cannot_exchange_two_renames_do(world, tmp_path, monkeypatch, before):
    from surgeon.edit import disk

    monkeypatch.setattr(disk, "_renameat2", lambda *_: False)
    _put(before, world, tmp_path / "out")
    mine = _somebodys(tmp_path)
    patch(world / "model", tmp_path / "out", dims=(5,), force=True)
    assert read_record(tmp_path / "out").dims == (5,)
    assert _somebodys(tmp_path) >= mine
    kept = [] if before == "an artifact" else ["out.replaced"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", *kept]
    with pytest.raises(OutputError, match="already exists"):
        patch(world / "model", tmp_path / "out")


def test_without_a_call_for_it_no_file_or_folder_is_replaced_either(tmp_path, monkeypatch):
    from surgeon.edit import disk

    monkeypatch.setattr(disk, "_renameat2", lambda *_: False)
    for name in ("one", "other"):
        (tmp_path / name).write_text(name)
        (tmp_path / f"{name} folder").mkdir()
    with pytest.raises(FileExistsError):
        disk.rename_new(tmp_path / "one folder", tmp_path / "other folder")
    disk.rename_new(tmp_path / "one folder", tmp_path / "new folder")
    with monkeypatch.context() as late:
        late.setattr(os.path, "lexists", lambda _: False)  # as it is until just before the call
        with pytest.raises(FileExistsError):
            disk.rename_new(tmp_path / "one", tmp_path / "other")
    assert (tmp_path / "other").read_text() == "other"
    disk.rename_new(tmp_path / "one", tmp_path / "new")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["new", "new folder", "other", "other folder"]


@pytest.mark.parametrize("name", ["notes.txt", "config.json", "link"])
def test_what_is_written_while_an_artifact_is_replaced_is_kept(
    tiny_patched, tiny, tmp_path, monkeypatch, name
):
    """And no other process takes what is removed for abandoned."""
    from surgeon.edit import disk
    from surgeon.edit.staging import replace_file

    output = shutil.copytree(tiny_patched, tmp_path / "out")
    exchange = disk.exchange

    def exchange_and_write(one, other):
        done = exchange(one, other)
        if name == "link":
            (one / name).symlink_to(".")
        else:
            (one / name).write_text("mine")
        replace_file(tmp_path / "file", b"")
        assert one.exists()
        return done

    monkeypatch.setattr(disk, "exchange", exchange_and_write)
    patch(tiny("bert"), output, dims=(5,), force=True)
    assert os.path.lexists(tmp_path / "out.replaced" / name)
    assert verify(output).passed


def test_what_kills_left_is_removed_but_for_what_somebody_put_there(tiny_patched, tmp_path):
    from surgeon.edit.staging import staged

    with staged(tmp_path / "first", force=False) as folder:
        token = folder.name.split(".")[2]
    far = "".join("1" if digit == "0" else "0" for digit in token[:4]) + token[4:]
    end = f"{token}.surgeon-staging"
    (tmp_path / f".unfinished.{end}").mkdir()
    (tmp_path / f".elsewhere.{far}.surgeon-staging").mkdir()  # of another machine
    shutil.copytree(tiny_patched, tmp_path / f".whole.{end}")
    shutil.copytree(tiny_patched, tmp_path / f".more.{end}")
    (tmp_path / f".more.{end}" / "notes.txt").write_text("mine")
    (tmp_path / "more.replaced").symlink_to("nowhere")
    mine = shutil.copytree(tiny_patched, tmp_path / "mine")
    (tmp_path / f".link.{end}").symlink_to(mine)
    with staged(tmp_path / "new", force=False):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {
        "first", f".elsewhere.{far}.surgeon-staging", "mine", f".link.{end}", "new",
        "more.replaced", "more.replaced1",
    }  # fmt: skip
    assert files_of(mine) == files_of(tiny_patched)
    assert (tmp_path / "more.replaced1" / "notes.txt").exists()


def test_what_takes_another_s_place_is_on_the_disk_before(
    tiny_patched, tiny, tmp_path, monkeypatch
):
    from surgeon.edit import disk
    from surgeon.edit.staging import replace_file

    output, synced, before = shutil.copytree(tiny_patched, tmp_path / "out"), [], []
    fsync, exchange = os.fsync, disk.exchange
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino) or fsync(fd))
    monkeypatch.setattr(disk, "exchange", lambda *a: before.extend(synced) or exchange(*a))
    patch(tiny("bert"), output, dims=(5,), force=True)
    assert {path.stat().st_ino for path in (output, *output.rglob("*"))} <= {*before}
    assert synced[-1] == tmp_path.stat().st_ino
    replace_file(tmp_path / "file", b"")
    assert synced[-1] == (tmp_path / "file").stat().st_ino
