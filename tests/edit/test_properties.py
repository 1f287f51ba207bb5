import bisect
import functools
import itertools
import json
import math
import shutil
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch
from artifacts import differing_offsets, files_of, planned_offsets
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from surgeon import Recipe, compare, make_plan, open_checkpoint, restore, write_artifact

_INPUTS = 12
_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]


@dataclass(frozen=True)
class _Kind:
    """A kind of output site: what a layer stores of it, and what the model adds to the gain."""

    model_type: str
    module: str
    axis: int | None
    bias: bool = True
    offset: float = 0.0

    def tensors(self, layer, hidden):
        matrix = {None: (hidden,), 0: (hidden, _INPUTS), 1: (_INPUTS, hidden)}[self.axis]
        module = self.module.format(layer)
        shapes = {f"{module}.weight": matrix}
        return {**shapes, f"{module}.bias": (hidden,)} if self.bias else shapes


_KINDS = [
    _Kind("bert", "encoder.layer.{}.output.LayerNorm", None),
    _Kind("gemma2", "layers.{}.post_feedforward_layernorm", None, bias=False, offset=1.0),
    _Kind("gpt2", "h.{}.mlp.c_proj", 1),
    _Kind("opt", "decoder.layers.{}.fc2", 0),
]


@st.composite
def _recipes(draw, hidden, dtype):
    every = st.lists(st.integers(0, hidden - 1), min_size=1, max_size=hidden, unique=True)
    mode = draw(st.sampled_from(["zero", "mean", "scale"]))
    # Of what is 1 it makes what lies above the middle of two values by less than a float32 tells.
    above = 1 + torch.finfo(dtype).eps / 2 + 2**-40
    factor = draw(st.sampled_from([above, -above, 0.3, 1.0])) if mode == "scale" else None
    return Recipe(dims=tuple(draw(every)), mode=mode, factor=factor)


@st.composite
def _layouts(draw, tensors):
    """One file, or shards with borders anywhere, and an index as nobody else would write it."""
    names = list(tensors)
    borders = sorted(draw(st.sets(st.integers(1, len(names) - 1), max_size=4), "borders"))
    if not borders:
        return {_SINGLE: names}, None
    edges = [0, *borders, len(names)]
    parts = [names[start:end] for start, end in itertools.pairwise(edges)]
    shards = {f"model-{i:05}-of-{len(parts):05}.safetensors": p for i, p in enumerate(parts, 1)}
    index = {
        "metadata": {"total_size": 0, "mine": "kept"},
        "weight_map": {name: shard for shard, part in shards.items() for name in part},
        "extra": [1, {"two": None}],
    }
    return shards, json.dumps(index, indent=draw(st.sampled_from([None, 1, 4]), "indent"))


@st.composite
def _models(draw):
    """A model's kind, its tensors, their layout in files, and a recipe for it."""
    kind = draw(st.sampled_from(_KINDS), "kind")
    hidden = draw(st.integers(2, 9), "hidden")
    dtype = draw(st.sampled_from(_DTYPES), "dtype")
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9), "values"))
    tensors = {"unrelated": torch.arange(5), "odd": torch.zeros(3, dtype=torch.uint8)}
    for layer in range(draw(st.integers(1, 3), "layers")):
        for name, shape in kind.tensors(layer, hidden).items():
            values = torch.randn(shape, generator=generator).to(dtype)
            ones = torch.rand(shape, generator=generator) < 0.3  # as a gain is before training
            tensors[name] = torch.where(ones, torch.ones(()).to(dtype), values)
    return kind, tensors, draw(_layouts(tensors), "layout"), draw(_recipes(hidden, dtype), "recipe")


def _save(folder, kind, tensors, layout):
    shards, index = layout
    folder.mkdir()
    for shard, names in shards.items():
        save_file({name: tensors[name] for name in names}, folder / shard)
    if index is not None:
        (folder / _INDEX).write_text(index)
    (folder / "config.json").write_text(json.dumps({"model_type": kind.model_type}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("properties")


@settings(max_examples=60)
@given(drawn=_models())
def test_a_patch_writes_what_is_planned_and_restore_is_its_inverse(folder, drawn):
    """Over kinds of sites, dtypes, shapes, dims, modes and shard borders."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    source, output, back = (folder / name for name in ("source", "out", "back"))
    kind, tensors, layout, recipe = drawn
    _save(source, kind, tensors, layout)
    plan = make_plan(open_checkpoint(source), recipe)
    write_artifact(plan, output, onnx=False)
    _only_planned_bytes_differ(plan, source, output)
    expected = {e.tensor: _expected(tensors[e.tensor], e, kind, recipe) for e in plan.edits}
    _values_are_rounded_once(tensors, expected, output)
    _diff_finds_what_differs(tensors, expected, source, output)
    restore(output, back)
    assert files_of(back) == files_of(source)


def _only_planned_bytes_differ(plan, source, output):
    before, after = files_of(source), files_of(output)
    planned = planned_offsets(plan)
    assert planned.keys() <= before.keys() <= after.keys()
    for name, content in before.items():  # the index with its extra keys among them
        assert differing_offsets(content, after[name]) <= planned.get(name, set())


def _values_are_rounded_once(tensors, expected, output):
    written = open_checkpoint(output)
    for name, values in expected.items():
        assert written.read(name).tobytes() == _bytes(values)
    assert written.tensors.keys() == tensors.keys()


def _diff_finds_what_differs(tensors, expected, source, output):
    changed = {}
    for name, values in expected.items():
        where = np.nonzero(_bits(tensors[name]) != _bits(values))
        if where[0].size:
            changed[name] = where
    found = compare(open_checkpoint(source), open_checkpoint(output))
    assert {tensor.name: tensor.changed for tensor in found.tensors} == {
        name: where[0].size for name, where in changed.items()
    }
    for tensor in found.tensors:
        assert tensor.reason == "values"
        assert tensor.dims == tuple(np.unique(changed[tensor.name][tensor.axis]).tolist())


def _expected(tensor, edit, kind, recipe):
    """A tensor after an edit, each value computed in float64 and rounded to the nearest once."""
    values = tensor.double().numpy().copy()
    offset = kind.offset if edit.param == "gain" else 0.0
    mean = np.broadcast_to(values.mean(axis=edit.axis, keepdims=True), values.shape).copy()
    for dim in recipe.dims:
        place = tuple(dim if axis == edit.axis else slice(None) for axis in range(values.ndim))
        match recipe.mode:
            case "zero":
                values[place] = 0.0 - offset
            case "scale":
                values[place] = values[place] * recipe.factor + offset * (recipe.factor - 1)
            case "mean":
                values[place] = mean[place]
    rounded = [_nearest(value, tensor.dtype) for value in values.reshape(-1).tolist()]
    return torch.tensor(rounded, dtype=torch.float64).reshape(tensor.shape).to(tensor.dtype)


def _nearest(value, dtype):
    """The value of the dtype nearest to a float64, the even one of two, by exact arithmetic."""
    if dtype.itemsize > 2:
        return float(torch.tensor(value, dtype=torch.float64).to(dtype))  # IEEE 754's own rounding
    every = _values_from_zero_up(dtype)
    low = bisect.bisect_right(every, abs(value)) - 1
    beyond = 2 * Fraction(abs(value)) - Fraction(every[low]) - Fraction(every[low + 1])
    up = beyond > 0 or (beyond == 0 and low % 2 == 1)
    return math.copysign(every[low + 1] if up else every[low], value)


@functools.cache
def _values_from_zero_up(dtype):
    """Every finite value of a dtype of one or two bytes from zero up; the even ones are even."""
    count = 2 ** (8 * dtype.itemsize - 1)
    bits = torch.arange(count).to(torch.uint8 if dtype.itemsize == 1 else torch.int16)
    values = bits.view(dtype).double()
    return values[values.isfinite()].tolist()


def _bits(tensor):
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.contiguous().view(integer[tensor.dtype.itemsize]).numpy()


def _bytes(tensor):
    return _bits(tensor).tobytes()
