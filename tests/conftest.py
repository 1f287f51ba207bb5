"""Checkpoints to test on: three real ones out of packages, and tiny ones of every family."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import shutil
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here may reach for the network
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores

from antibodies import antibodies
from artifacts import patch
from benchmarks import measure
from filelock import FileLock
from hub_server import connect, serve
from hypothesis import HealthCheck, settings
from safetensors.numpy import load_file, save_file

from surgeon.cli import run

# No claim is about time: a busy machine is as slow as it is.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# Torch's exporter makes objects by the million, and torch itself has as many that never go.
gc.set_threshold(50_000, 20, 50)


@pytest.fixture(scope="session", autouse=True)
def graphs(tmp_path_factory) -> None:
    """Keep exported graphs for one run of the tests, for all of its workers."""
    root = tmp_path_factory.getbasetemp()
    os.environ["SURGEON_CACHE"] = str(
        root.parent / "graphs" if "PYTEST_XDIST_WORKER" in os.environ else root / "graphs"
    )


@pytest.fixture(scope="session", autouse=True)
def _torch_s_table_of_onnx_functions() -> None:
    """Read it once: torch parses the source of 500 functions anew for each export, a third of it.

    Imports of torch stay out of this module: the process that only hands out tests loads it too.
    """
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2: BERT, 6 layers, 384 dimensions, no head, safetensors."""
    return measure.minilm()


@pytest.fixture(scope="session")
def antiberty(tmp_path_factory) -> Path:
    """AntiBERTy: BERT with an MLM head, 8 layers, a pickle saved from CUDA."""
    folder = tmp_path_factory.mktemp("models") / "AntiBERTy_md_smooth"
    return measure.protein_model("antiberty", folder.name, folder)


@pytest.fixture(scope="session")
def iglm_s(tmp_path_factory) -> Path:
    """IgLM-S: GPT-2 with 3 layers, a pickle."""
    return measure.protein_model("iglm", "IgLM-S", tmp_path_factory.mktemp("models") / "IgLM-S")


@pytest.fixture(scope="session")
def iglm(tmp_path_factory) -> Path:
    """IgLM: GPT-2 with 4 layers, a pickle."""
    return measure.protein_model("iglm", "IgLM", tmp_path_factory.mktemp("models") / "IgLM")


@pytest.fixture(scope="session")
def antibody_file(tmp_path_factory) -> Path:
    """Sixty antibody sequences, on which AntiBERTy's masked loss is about 0.43 nats."""
    path = tmp_path_factory.mktemp("data") / "antibodies.txt"
    path.write_text("\n".join(antibodies(60, mutations=0.035)) + "\n")
    return path


@pytest.fixture
def done(capsys):
    """Run a command that must end with an exit code, 0 or 1; return its ``out`` and ``err``."""

    def check(*arguments, code=0):
        capsys.readouterr()
        assert run([*map(str, arguments)]) == code, capsys.readouterr().err
        return capsys.readouterr()

    return check


@pytest.fixture
def json_of(done):
    """Run a command and parse the one JSON document on its standard output."""
    return lambda *arguments: json.loads(done(*arguments, "--json").out)


@pytest.fixture
def refused(capsys):
    """Run a command that must end with exit code 2 and one line, which says what is given."""

    def check(*arguments, says=""):
        capsys.readouterr()
        assert run([*map(str, arguments)]) == 2
        captured = capsys.readouterr()
        (line,) = captured.err.splitlines()
        assert line.startswith("surgeon: ")
        assert says in line
        assert captured.out == ""
        return line

    return check


@pytest.fixture
def serving(tmp_path, monkeypatch):
    """Start a Hub that serves folders as repositories, by their ids, and talk to no other one."""
    with contextlib.ExitStack() as servers:

        def start(repositories, **how):
            server = servers.enter_context(serve(repositories))
            connect(monkeypatch, server.url, tmp_path / "cache", **how)
            return server

        yield start


@pytest.fixture
def waited(monkeypatch) -> list[float]:
    """The seconds of each wait between two tries at the Hub, none of which takes time here."""
    seconds: list[float] = []
    monkeypatch.setattr("surgeon.model.hub_errors.sleep", seconds.append)
    return seconds


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Make a tiny checkpoint of a family, by its name in the table of families, once."""
    from families import save_family  # brings the configurations of every family

    @functools.cache
    def make(family: str) -> Path:
        folder = tmp_path_factory.mktemp("tiny") / family
        save_family(family, folder, layers=3)
        return folder

    return make


@pytest.fixture
def source(tiny, tmp_path) -> Path:
    """A copy of the tiny BERT, to be changed."""
    return shutil.copytree(tiny("bert"), tmp_path / "source")


def rename_tensors(source: Path, target: Path, rename) -> None:
    """Copy a checkpoint with its tensors under other names."""
    shutil.copytree(source, target)
    tensors = load_file(source / "model.safetensors")
    renamed = {rename(name): value for name, value in tensors.items()}
    save_file(renamed, target / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="session")
def tiny_patched(tiny, tmp_path_factory) -> Path:
    """The tiny BERT without dimensions 3 and 9 and without an ONNX half; to be copied."""
    output = tmp_path_factory.mktemp("artifacts") / "tiny"
    patch(tiny("bert"), output)
    return output


@pytest.fixture(scope="session")
def patched_once(tmp_path_factory):
    """Return a function that patches a model with its ONNX half, once for all workers of a run.

    Each worker gets a copy of its own, since an evaluation writes into the artifact.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def patch_once(model: Path, *dims: int) -> Path:
        name = "-".join([model.name, *map(str, dims)])
        made = root / "artifacts" / name
        made.parent.mkdir(exist_ok=True)
        with FileLock(made.with_name(f"{name}.lock")):
            if not made.exists():
                patch(model, made, onnx=True, dims=dims)
        copy = tmp_path_factory.mktemp("artifacts") / name
        shutil.copytree(made, copy, symlinks=True)
        return copy

    return patch_once


@pytest.fixture(scope="session")
def minilm_patched(minilm, patched_once) -> Path:
    """MiniLM with the two dims that matter removed, ONNX half included."""
    return patched_once(minilm, 99, 157)


@pytest.fixture(scope="session")
def antiberty_patched(antiberty, patched_once) -> Path:
    """AntiBERTy with two dims removed, ONNX half included."""
    return patched_once(antiberty, 93, 101)


@pytest.fixture(scope="session")
def iglm_s_patched(iglm_s, patched_once) -> Path:
    """IgLM-S with two columns of every output dense layer removed, ONNX half included."""
    return patched_once(iglm_s, 3, 8)


@pytest.fixture(scope="session")
def embedder(tmp_path_factory) -> Path:
    """A tiny BERT of one layer, without a head, that knows the built-in sentences' words."""
    from task_models import save_model  # brings torch

    return save_model("drift", tmp_path_factory.mktemp("models") / "drift")


@pytest.fixture(scope="session")
def embedder_patched(embedder, patched_once) -> Path:
    """That without dimensions 3 and 8, ONNX half included."""
    return patched_once(embedder, 3, 8)
