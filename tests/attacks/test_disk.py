"""A full disk and a read-only target: one line, exit code 2, nothing left behind."""

import os
import subprocess
import sys

import pytest

_LIMITED = """
import resource, signal, sys
from surgeon.cli import run
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writing fails as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, resource.RLIM_INFINITY))
sys.exit(run(sys.argv[1:]))
"""


def test_a_disk_that_takes_no_more_leaves_nothing_behind(minilm, tmp_path):
    arguments = ["patch", str(minilm), "--dims", "3", "--no-onnx", "-o", str(tmp_path / "a/out")]
    command = [sys.executable, "-c", _LIMITED, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"surgeon: {tmp_path}/a/out: File too large; make room there" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_pickle_s_tensors_on_a_full_disk_leave_nothing_behind(antiberty, tmp_path):
    arguments = ["patch", str(antiberty), "--dims", "3", "--no-onnx", "-o", str(tmp_path / "out")]
    command = [sys.executable, "-c", _LIMITED, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"surgeon: {tmp_path}/out/model.safetensors" in done.stderr
    assert "make room there" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_full_file_system_leaves_nothing_behind(minilm, tmp_path):
    """On a real file system of 30 MB, where the rights allow to make one."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", str(tmp_path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount; the test above fails the same writes by a limit")
    try:
        arguments = ["patch", str(minilm), "--dims", "3", "--no-onnx", "-o", str(tmp_path / "out")]
        done = subprocess.run(
            [sys.executable, "-m", "surgeon", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert f"surgeon: {tmp_path}/out: No space left on device; make room" in done.stderr
        assert os.listdir(tmp_path) == []  # noqa: PTH208
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_target_that_takes_no_files_is_refused(minilm, tmp_path):
    target = tmp_path / "locked"
    target.mkdir()
    as_root = os.geteuid() == 0  # whom no mode keeps out, but a file system mounted read-only does
    if as_root:
        mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(target)]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("root without the right to mount has no directory that refuses it")
    else:
        target.chmod(0o555)
    try:
        arguments = ["patch", str(minilm), "--dims", "3", "--no-onnx", "-o", str(target / "out")]
        command = [sys.executable, "-m", "surgeon", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "can be written to" in done.stderr
        assert os.listdir(target) == []  # noqa: PTH208
    finally:
        if as_root:
            subprocess.run(["umount", str(target)], check=True)
        else:
            target.chmod(0o755)


def test_a_small_patch_that_cannot_be_written_names_what_was_asked_for(minilm, tmp_path):
    for place in ("/proc/edit.surgeon", str(tmp_path / "file" / "edit.surgeon")):
        (tmp_path / "file").touch()
        arguments = ["patch", str(minilm), "--dims", "3", "--record-only", "-o", place]
        command = [sys.executable, "-m", "surgeon", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert place in done.stderr
        assert "/.edit" not in done.stderr
