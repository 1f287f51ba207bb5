"""Mutated headers and indexes: only SurgeonError may come out, in bounded memory.

``SURGEON_FUZZ`` sets the number of mutations (CI: 1,500; the claim was run with 10,000).
"""

import json
import os
import random
import resource
import shutil

import pytest
from safetensors.torch import load_file, save_file

from surgeon import Recipe, make_plan, open_checkpoint, rank_by_layernorm
from surgeon.errors import SurgeonError

_MUTATIONS = int(os.environ.get("SURGEON_FUZZ", "1500"))
_NASTY = [
    0, -1, 1, 2**31, 2**32, 2**53 + 1, 2**63, 2**64, 10**40, 1.5, True, None, "", "..", "F32",
    "BF16", "I8", "F99", [], {}, [[]], "\0", "é" * 50, {"a": 1}, [0, 0], [2**62, 2**62],
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
    mutated = json.dumps(header).encode()
    return len(mutated).to_bytes(8, "little") + mutated + raw[8 + length :]


def _try(folder):
    """Read a model as scan and patch do."""
    checkpoint = open_checkpoint(folder)
    rank_by_layernorm(checkpoint)
    make_plan(checkpoint, Recipe(dims=(1,), sites=("all",)))


@pytest.fixture
def bounded_memory():
    """Let the process grow by no more than 1 GiB while a test runs."""
    in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()  # noqa: PTH123, SIM115
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**30, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.parametrize("mutate", [_mutate_bytes, _mutate_header])
def test_a_mutated_weight_file_gives_a_surgeon_error_or_a_model(
    tiny, tmp_path, bounded_memory, mutate
):
    folder = shutil.copytree(tiny("bert"), tmp_path / "model")
    path = folder / "model.safetensors"
    original = path.read_bytes()
    refused = 0
    for seed in range(_MUTATIONS // 2):
        path.write_bytes(mutate(random.Random(seed), original))
        try:
            _try(folder)
        except SurgeonError:
            refused += 1
        except BaseException as error:
            raise AssertionError(f"seed {seed}") from error
    assert refused > _MUTATIONS / 5


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_a_mutated_index_or_config_gives_a_surgeon_error_or_a_model(
    tiny, tmp_path, bounded_memory, name
):
    folder = shutil.copytree(tiny("bert"), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = list(tensors)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({n: tensors[n] for n in part}, folder / file)
    weight_map = {n: file for file, part in halves.items() for n in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    _try(folder)
    original = (folder / name).read_bytes()
    for seed in range(_MUTATIONS // 4):
        rng = random.Random(seed)
        if seed % 2:
            mutated = _mutate_bytes(rng, original)
        else:
            mutated = json.dumps(_mutate_value(rng, json.loads(original))).encode()
        (folder / name).write_bytes(mutated)
        try:
            _try(folder)
        except SurgeonError:
            continue
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {mutated[:300]!r}") from error
