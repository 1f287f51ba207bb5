"""surgeon in forks of one process that has done its imports, each ended where a test wants it.

Run as a program, this is that process: it reads jobs, a line of JSON each, and answers with a line.
"""

from __future__ import annotations

import gc
import importlib
import json
import mmap
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager

_MODULES = (
    "huggingface_hub.hf_api", "onnxruntime", "pandas", "plotly.graph_objects", "pyarrow.parquet",
    "pydantic", "rich.progress", "rich.table", "scipy.stats", "tokenizers", "yaml", "surgeon.cli",
    "surgeon.model.hub",
    *(f"surgeon.console.{name}" for name in ("evaluations", "rankings", "surgeries")),
    "surgeon.figures.report", "surgeon.figures.sweep_report", "surgeon.evaluation.evaluate",
    "surgeon.study.sweep", "surgeon.study.measure", "surgeon.onnx_files.patch",
    "surgeon.edit.write", "surgeon.edit.restore", "surgeon.edit.small_patch",
    "surgeon.edit.staging", "surgeon.edit.verify", "surgeon.torch_model.directory",
    *(f"surgeon.commands.{name}" for name in ("artifact", "eval", "patch")),
)  # fmt: skip
_CALLS = ("mkdir", "rename", "replace", "link", "unlink", "rmdir", "fsync", "truncate")


@contextmanager
def forks():
    """Yield what runs jobs at once, each a list of arguments, and returns an answer for each.

    That is its exit code (negative for a signal that it did not survive), how many calls to the
    disk it made, and what it printed. Before the call of number ``end_at`` it gets the signal
    ``by``, or after ``end_after`` seconds one that nothing hears; ``meet`` has all wait for each
    other before their first rename, so that they race.
    """
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def run(*jobs, end_at=None, by=signal.SIGKILL, end_after=0.0, meet=False):
            listed = [list(map(str, job)) for job in jobs]
            end = end_at, by, end_after
            line = {"jobs": listed, "end": end, "meet": meet}
            process.stdin.write(json.dumps(line).encode() + b"\n")
            process.stdin.flush()
            return [tuple(answer) for answer in json.loads(process.stdout.readline())]

        try:
            yield run
        finally:
            process.stdin.close()


def _serve():
    for name in _MODULES:
        importlib.import_module(name)
    gc.freeze()  # else each fork copies the pages of all that was imported, in its first collection
    # A process in the background of a shell, or of nohup, starts with these ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for line in sys.stdin:
        asked = json.loads(line)
        barrier = multiprocessing.Barrier(len(asked["jobs"])) if asked["meet"] else None
        children = [_fork(job, asked["end"], barrier) for job in asked["jobs"]]
        answers = []
        for pid, counter, printed in children:
            _, status = os.waitpid(pid, 0)
            printed.seek(0)
            count = int.from_bytes(counter[:8], "little")
            answers.append((os.waitstatus_to_exitcode(status), count, printed.read().decode()))
        sys.stdout.write(json.dumps(answers) + "\n")
        sys.stdout.flush()


def _fork(job, end, barrier):
    counter, printed = mmap.mmap(-1, 8), tempfile.TemporaryFile()  # noqa: SIM115  (read by _serve)
    pid = os.fork()
    if pid:
        return pid, counter, printed
    for stream in (1, 2):
        os.dup2(printed.fileno(), stream)
    code = 99
    try:
        *at_a_call, after = end
        signal.setitimer(signal.ITIMER_REAL, after)
        _count_calls(counter, *at_a_call, barrier)
        if job[0] == "sweep":
            code = sweep(*job[1:])
        else:
            sys.argv = ["surgeon", *job]
            sys.modules["surgeon.cli"].main()
    except SystemExit as ended:
        code = ended.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _count_calls(counter, end_at, by, barrier):
    """Count the calls that change names on the disk, or flush, and send a signal before one."""
    waiting = [barrier] if barrier else []

    def counted(call, *, renames):
        def wrapped(*arguments, **options):
            if renames and waiting:
                waiting.pop().wait(30)
            number = int.from_bytes(counter[:8], "little")
            counter[:8] = (number + 1).to_bytes(8, "little")
            if number == end_at:
                os.kill(os.getpid(), by)
            return call(*arguments, **options)

        return wrapped

    for name in _CALLS:
        setattr(os, name, counted(getattr(os, name), renames=name in ("rename", "link")))
    disk = importlib.import_module("surgeon.edit.disk")
    disk._renameat2 = counted(disk._renameat2, renames=True)


def sweep(grid, folder):
    """Run a sweep in this process, whose workers would start up anew; return 0 at its end."""
    from pathlib import Path

    from surgeon.study.grid import check_grid
    from surgeon.study.sweep import run_sweep

    run_sweep(check_grid(Path(grid)).valid(), Path(folder), engine=in_process)
    return 0


def in_process(queue, work):
    """An engine without processes, so that a test can look into it."""
    from surgeon.study.engines import do_job

    job = None
    while taken := queue.take(job):
        job, delay = taken
        yield do_job(job, work, delay)


def sleep(_job):
    """Say who does a job, and work on it for an hour."""
    sys.stdout.write(f"{os.getpid()}\n")
    sys.stdout.flush()
    time.sleep(3600)


if __name__ == "__main__":
    _serve()
