"""Every file that surgeon reads, mutated: only SurgeonError comes out, in bounded memory and time.

``SURGEON_FUZZ`` sets the number of mutations of each kind (CI: 60).
"""

import contextlib
import errno
import io
import json
import os
import random
import resource
import shutil
import signal
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers
import torch
import yaml
from artifacts import EVALUATION, patch, plan_of, safetensors_bytes, stored_tensors
from blake3 import blake3
from onnx_exports import norm_chain
from safetensors.numpy import load_file
from small_models import save_shards

from surgeon import Recipe, make_onnx_plan, open_checkpoint, open_onnx, rank_by_layernorm, verify
from surgeon.edit.card import write_card
from surgeon.edit.recipe_file import load_recipe
from surgeon.edit.small_patch import plan_from_small_patch, write_small_patch
from surgeon.errors import SurgeonError
from surgeon.evaluation.blocks import Partial
from surgeon.evaluation.result import read_evaluation
from surgeon.model.files import OWN_HASH, own_hash
from surgeon.study.grid import check_grid
from surgeon.tasks.data import read_table, read_texts_of
from surgeon.tasks.table import Columns
from surgeon.tasks.tokenizer import find_tokenizer, read_tokenizer

_MUTATIONS = int(os.environ.get("SURGEON_FUZZ", "60"))
_SECONDS = 20  # of one mutation, on a machine that does other things too
_deep: list = []
for _ in range(300):
    _deep = [_deep]
_NASTY = [
    0, -1, 1, 2**31, 2**32, 2**53 + 1, 2**63, 2**64, 10**40, 1.5, True, None, "", "..", "F32",
    "BF16", "I8", "F99", [], {}, [[]], "\0", "é" * 50, {"a": 1}, [0, 0], [2**62, 2**62],
    "\ud800", float("nan"), float("inf"), 1e308, "x" * 10_000, "(a|a)*" * 20, "2024-05-40", _deep,
]  # fmt: skip


def _mutate_bytes(rng, raw):
    raw = bytearray(raw)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        match rng.randrange(5):
            case 0 if raw:
                raw[rng.randrange(min(len(raw), 6000))] = rng.randrange(256)
            case 1:
                raw[: rng.randrange(12)] = rng.randbytes(rng.randrange(12))
            case 2:
                del raw[rng.randrange(len(raw) + 1) :]
            case 3:
                raw += rng.randbytes(rng.randrange(40))
            case _:
                start = rng.randrange(len(raw) + 1)
                del raw[start : start + rng.randrange(30)]
    return bytes(raw)


def _mutate_value(rng, value):
    """Replace one value somewhere in a JSON document."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        match rng.randrange(8):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return {**value, rng.choice(["", "__metadata__", "x", "\0"]): rng.choice(_NASTY)}
            case _:
                return {**value, key: _mutate_value(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randrange(len(value))
        return [*value[:place], _mutate_value(rng, value[place]), *value[place + 1 :]]
    return rng.choice(_NASTY)


def _mutate_header(rng, raw):
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    for _ in range(rng.choice([1, 1, 2, 5])):
        header = _mutate_value(rng, header)
    return safetensors_bytes(header, raw[8 + length :])


def _mutate_json(rng, raw):
    document = json.loads(raw)
    for _ in range(rng.choice([1, 1, 2, 5])):
        document = _mutate_value(rng, document)
    return json.dumps(document).encode()


def _mutate_yaml(rng, raw):
    return json.dumps(_mutate_value(rng, yaml.safe_load(raw))).encode()  # JSON is YAML


def _mutate_card(rng, raw):
    before, header, after = raw.split(b"---\n", 2)
    return b"---\n".join([before, _mutate_yaml(rng, header) + b"\n", after])


def _mutate_lines(rng, raw):
    lines = raw.splitlines()
    place = rng.randrange(len(lines))
    return b"\n".join([*lines[:place], _mutate_json(rng, lines[place]), *lines[place + 1 :]])


def _mutate_edit(rng, raw):
    """Change what an edit file says and give it the hash that fits."""
    length = int.from_bytes(raw[:8], "little")
    header, data = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    metadata = header["__metadata__"]
    said = _mutate_json(rng, metadata["surgeon"]).decode()
    hasher = blake3(said.encode())
    for edit in json.loads(metadata["surgeon"])["edits"]:
        start, end = header[edit["tensor"]]["data_offsets"]
        hasher.update(data[start:end])
    metadata.update(surgeon=said, blake3=hasher.hexdigest())
    return safetensors_bytes(header, data)


def _mutate_record(rng, raw):
    """Change what a record says and give it the hash that fits."""
    record = json.loads(_mutate_json(rng, raw))
    if isinstance(record, dict):
        record[OWN_HASH] = own_hash(record)
    return json.dumps(record).encode()


def _mutate_pickle(rng, raw):
    """Change the pickle inside the archive of torch.save."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as whole, zipfile.ZipFile(buffer, "w") as made:
        for name in whole.namelist():
            content = whole.read(name)
            made.writestr(name, _mutate_bytes(rng, content) if "pkl" in name else content)
    return buffer.getvalue()


def _model(name):
    def make(tiny, folder):
        shutil.copytree(tiny("bert"), folder, dirs_exist_ok=True)
        return folder / name

    return make


def _index(tiny, folder):
    tensors = load_file(tiny("bert") / "model.safetensors")
    shutil.copy(tiny("bert") / "config.json", folder)
    return save_shards(tensors, folder)


def _pickle(tiny, folder, **how):
    path, tensors = folder / "pytorch_model.bin", stored_tensors(tiny("bert"))
    shutil.copy(tiny("bert") / "config.json", folder)
    torch.save({**tensors, "turned": torch.ones(3, 2).t()}, path, **how)
    return path


def _artifact(name):
    def make(tiny, folder):
        patch(tiny("bert"), folder / "out")
        return folder / "out" / "surgeon" / name

    return make


def _partial(tiny, folder):
    Partial(folder / "p.safetensors", "key").save(np.ones((4, 30, 2)))
    return folder / "p.safetensors"


def _edit(tiny, folder):
    write_small_patch(plan_of(tiny("bert"), dims=(3,)), folder / "e")
    return folder / "e"


def _text(name, text):
    def make(tiny, folder):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        return folder / name

    return make


def _parquet(tiny, folder):
    table = pa.table({"text": ["a b", "c"] * 40, "label": [0, 1] * 40, "l": [[1], []] * 40})
    pq.write_table(table, folder / "d.parquet")
    return folder / "d.parquet"


def _tokenizer(tiny, folder):
    words = {word: number for number, word in enumerate(["[UNK]", "[MASK]", "a", "b", "the"])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "[UNK]"))
    made.normalizer = tokenizers.normalizers.Replace(tokenizers.Regex("b+"), "b")
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"\s+"), "removed")
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[MASK] $A", pair="$A $B:1", special_tokens=[("[MASK]", 1)]
    )
    made.add_special_tokens(["[MASK]"])
    made.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def _onnx(tiny, folder):
    onnx.save(norm_chain(), folder / "m.onnx")
    return folder / "m.onnx"


def _scan_and_plan(path, _tiny):
    """Read a model as scan and patch do."""
    checkpoint = open_checkpoint(path.parent)
    rank_by_layernorm(checkpoint)
    plan_of(checkpoint, dims=(1,), sites=("all",))
    if path.suffix == ".bin":
        path.with_name("converted").unlink(missing_ok=True)  # of the mutation before
        checkpoint.files[0].write_safetensors(path.with_name("converted"))


def _verify(path, _tiny):
    verify(path.parent.parent)


def _apply(path, tiny):
    plan_from_small_patch(path, open_checkpoint(tiny("bert")))


def _write_card(path, tiny):
    write_card(plan_of(tiny("bert")), path, Path(f"{path}.w"))


def _tokenize(path, _tiny):
    facts, _ = find_tokenizer(path.parent, "", None)
    tokenizer = read_tokenizer(path.parent, facts)
    tokenizer.encode_batch(["the a b", ("bb" * 50, "a é \0")])


def _table_and_texts(path, _tiny):
    read_table(str(path))
    read_texts_of(str(path), Columns("text"))


@dataclass(frozen=True)
class Kind:
    """How a valid file is made in a folder, how it is read, and how it is mutated."""

    make: Callable
    read: Callable
    mutate: tuple = (_mutate_bytes,)


_BOTH = (_mutate_bytes, _mutate_json)
_ROWS = '{"text": "a b", "label": 0}\n' * 9
KINDS = {
    "weights": Kind(_model("model.safetensors"), _scan_and_plan, (_mutate_bytes, _mutate_header)),
    "config": Kind(_model("config.json"), _scan_and_plan, _BOTH),
    "index": Kind(_index, _scan_and_plan, _BOTH),
    "pickle": Kind(_pickle, _scan_and_plan, (_mutate_bytes, _mutate_pickle)),
    "older pickle": Kind(partial(_pickle, _use_new_zipfile_serialization=False), _scan_and_plan),
    "record": Kind(_artifact("record.json"), _verify, (_mutate_bytes, _mutate_record)),
    "excised": Kind(_artifact("excised.safetensors"), _verify, (_mutate_bytes, _mutate_header)),
    "eval": Kind(
        _text("surgeon/eval.json", json.dumps(EVALUATION)),
        lambda path, _: read_evaluation(path.parent.parent),
        _BOTH,
    ),
    "partial": Kind(_partial, lambda path, _: Partial(path, "key").load()),
    "edit file": Kind(_edit, _apply, (_mutate_bytes, _mutate_header, _mutate_edit)),
    "recipe": Kind(
        _text("r.yaml", "dims: [3, 9]\nmode: scale\nfactor: 0.5\nevaluation: {task: mlm}\n"),
        lambda path, _: load_recipe(str(path)),
        (_mutate_bytes, _mutate_yaml),
    ),
    "grid": Kind(
        _text("g.yaml", "models: [org/m]\nselections: [{dims: [3]}, {each: 0-3}]\nseeds: [0]\n"),
        lambda path, _: check_grid(path).valid(),
        (_mutate_bytes, _mutate_yaml),
    ),
    "tokenizer": Kind(_tokenizer, _tokenize, _BOTH),
    "card": Kind(
        _text("README.md", "---\nlicense: mit\nlanguage: [en, no]\ntags: [a, b]\n---\n# A\n"),
        _write_card,
        (_mutate_bytes, _mutate_card),
    ),
    "Parquet": Kind(_parquet, _table_and_texts),
    "CSV": Kind(_text("d.csv", 'text,label\na b,0\n"c, d",1\n' * 5), _table_and_texts),
    "JSONL": Kind(_text("d.jsonl", _ROWS), _table_and_texts, (_mutate_bytes, _mutate_lines)),
    "ONNX": Kind(_onnx, lambda path, _: make_onnx_plan(open_onnx(path), Recipe(dims=(1,)))),
    "ONNX by pattern": Kind(
        _onnx,
        lambda path, _: make_onnx_plan(open_onnx(path, r"norm\.\d\.weight"), Recipe(dims=(1,))),
    ),
}


class _TooSlow(BaseException):
    """Not an error that anything would catch."""


@pytest.fixture
def bounded():
    """Let the process, a worker of pytest's, grow by 1 GiB, and a mutation take some seconds."""

    def stop(*_):
        raise _TooSlow

    in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()  # noqa: PTH123, SIM115
    limits = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**30, limits[1]))
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.parametrize("name", KINDS)
def test_a_mutated_file_gives_a_surgeon_error_or_is_read(tiny, tmp_path, bounded, name):
    kind = KINDS[name]
    path = kind.make(tiny, tmp_path)
    with contextlib.nullcontext() if name != "ONNX" else contextlib.suppress(SurgeonError):
        kind.read(path, tiny)  # of the chain, nothing but a pattern tells the layers
    original = path.read_bytes()
    refused = 0
    for seed in range(_MUTATIONS):
        mutated = kind.mutate[seed % len(kind.mutate)](random.Random(seed), original)
        path.write_bytes(mutated)
        signal.alarm(_SECONDS)
        try:
            kind.read(path, tiny)
        except SurgeonError:
            refused += 1
        except BaseException as error:
            if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
                continue  # the system's own answer, which the command line passes on
            raise AssertionError(f"seed {seed}: {mutated[:300]!r}") from error
        finally:
            signal.alarm(0)
    assert refused > _MUTATIONS / 5 or name in ("card", "partial", "record", "excised")
