"""A patch that is killed leaves the output absent or complete, and the source as it was.

``SURGEON_KILLS`` sets how often (CI: 12; the claim was run with 200).
"""

import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import save_file

from surgeon import verify
from surgeon.surgery.transfer import hash_file

_KILLS = int(os.environ.get("SURGEON_KILLS", "12"))
_PATCH = """
import sys
from pathlib import Path
from surgeon import Recipe, make_plan, open_checkpoint, operate
import surgeon.surgery.staging, surgeon.surgery.small_patch, surgeon.surgery.card, yaml, blake3
print("ready", flush=True)
plan = make_plan(open_checkpoint(sys.argv[1]), Recipe(dims=(3, 9)))
operate(plan, Path(sys.argv[2]), onnx=False, force=True)
print("done", flush=True)
"""


@pytest.fixture
def model(tmp_path):
    """A model of 200 MB, so that a patch takes long enough to be killed in its midst."""
    folder = tmp_path / "model"
    folder.mkdir()
    tensors = {"embeddings.word_embeddings.weight": np.zeros((100_000, 512), np.float32)}
    for layer in range(4):
        for leaf in ("weight", "bias"):
            name = f"encoder.layer.{layer}.output.LayerNorm.{leaf}"
            tensors[name] = np.random.default_rng(layer).random(512, np.float32)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "README.md").write_text("mine")
    return folder


def test_a_kill_at_any_moment_leaves_the_output_absent_or_complete(model, tmp_path):
    source = {path.name: hash_file(path) for path in model.iterdir()}
    output = tmp_path / "out"
    rng = random.Random(0)
    longest = min(_run(model, output, kill_after=None) for _ in range(2))
    assert verify(output).passed
    seen = set()
    for number in range(_KILLS):
        if number % 3:  # else an earlier artifact is replaced
            shutil.rmtree(output, ignore_errors=True)
        # At a random moment of each stretch of time, so that the early ones are among them.
        moment = (number + rng.random()) / _KILLS
        # Timed anew by each run that was done before its kill: the machine may have been busy.
        longest = min(longest, _run(model, output, kill_after=1.2 * moment * longest))
        assert {path.name: hash_file(path) for path in model.iterdir()} == source
        if output.exists():
            assert verify(output).passed
        seen.add(output.exists())
        left = [path.name for path in tmp_path.iterdir() if path.name not in ("model", "out")]
        # What one kill leaves is hidden, and the next patch removes it.
        assert len(left) <= 1
        assert all(name.startswith(".out.") for name in left)
    assert seen == {True, False} or _KILLS < 5
    _run(model, output, kill_after=None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]


def _run(model, output, kill_after):
    """Run a patch, kill it some seconds after its imports; return how long one not killed took."""
    command = [sys.executable, "-c", _PATCH, str(model), str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        start = time.perf_counter()
        if kill_after is None:
            process.wait()
            assert process.returncode == 0
        else:
            try:
                process.wait(kill_after)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                return math.inf
        return time.perf_counter() - start


def test_a_patch_beside_a_running_one_leaves_it_alone(model, tmp_path):
    """Only what no process holds is removed."""
    from surgeon.surgery.staging import staged

    with staged(tmp_path / "out", "mark") as first:
        (first / "kept").write_text("yes")
        with staged(tmp_path / "out", "mark") as second:
            (second / "mark").write_text("yes")
        assert (first / "kept").read_text() == "yes"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]
    assert (tmp_path / "out" / "kept").exists()


@pytest.mark.parametrize("at_once", [True, False])
def test_an_artifact_is_replaced_at_once_or_by_two_renames(model, tmp_path, monkeypatch, at_once):
    from surgeon.surgery import staging

    exchanged = []
    exchange = staging._exchange
    monkeypatch.setattr(
        staging,
        "_exchange",
        lambda a, b: at_once and exchanged.append(a) is None and exchange(a, b),
    )
    for content in ("old", "new"):
        with staging.staged(tmp_path / "out", "mark") as folder:
            (folder / "mark").write_text(content)
    assert (tmp_path / "out" / "mark").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]
    assert len(exchanged) == at_once
