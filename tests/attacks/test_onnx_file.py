"""Hostile ONNX files: paths that lead outside, sizes that lie, structures without end."""

import itertools
import json

import onnx
import pytest
from artifacts import patch_onnx, write_record
from onnx_exports import norm_chain

from surgeon import open_onnx, restore
from surgeon.errors import CheckpointError, SurgeonError

_PATTERN = r"norm\.\d\.weight"


def _external(folder, change):
    """Save a model with external data, each of its entries passed through ``change``."""
    folder.mkdir(exist_ok=True)
    path = folder / "m.onnx"
    onnx.save(norm_chain(), path, save_as_external_data=True, location="m.data", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = change(entry.key, entry.value)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    "kind", ["parent", "absolute", "inner parent", "backslash", "empty", "self"]
)
def test_no_data_file_lies_outside_the_folder(tmp_path, refused, kind):
    (tmp_path / "secret").write_bytes(bytes(4096))
    location = {
        "parent": "../secret",
        "absolute": str(tmp_path / "secret"),
        "inner parent": "a/../../secret",
        "backslash": "..\\secret",
        "empty": "",
        "self": "m.onnx",
    }[kind]
    path = _external(tmp_path / "model", lambda key, v: location if key == "location" else v)
    options = ["--dims", "1", "--sites-pattern", _PATTERN, "-o", tmp_path / "out"]
    refused("patch", path, *options, says="m.onnx")
    assert not (tmp_path / "out").exists()


def test_a_link_to_a_data_file_elsewhere_is_not_followed(tmp_path):
    path = _external(tmp_path / "model", lambda _, value: value)
    data = path.with_name("m.data")
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="a link to elsewhere"):
        open_onnx(path, _PATTERN)


@pytest.mark.parametrize(("key", "value"), [("offset", "4096"), ("offset", "-4"), ("length", "9"),
                                            ("length", "1" * 19), ("offset", "1e3")])  # fmt: skip
def test_a_tensor_that_claims_other_bytes_than_the_file_has_is_refused(tmp_path, key, value):
    path = _external(tmp_path / "model", lambda k, v: value if k == key else v)
    with pytest.raises(CheckpointError, match=r"m\.onnx: "):
        open_onnx(path, _PATTERN)


def test_a_tensor_is_as_long_as_its_shape_or_of_a_type_unknown_here_as_its_file_says(tmp_path):
    model, path = norm_chain(), tmp_path / "m.onnx"
    nibbles = {"data_type": onnx.TensorProto.INT4, "dims": [3], "raw_data": b"\1\2"}
    model.graph.initializer.append(onnx.TensorProto(name="packed", **nibbles))
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    assert open_onnx(path, _PATTERN).checkpoint.layers == 2
    model = norm_chain()
    model.graph.initializer[0].raw_data += b"\0"
    onnx.save(model, path)
    with pytest.raises(CheckpointError, match="claims the shape"):
        open_onnx(path, _PATTERN)


def test_a_graph_that_goes_in_circles_is_refused(tmp_path):
    model = norm_chain()
    model.graph.node[0].input[0] = "y"
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="is made of itself"):
        open_onnx(tmp_path / "m.onnx", _PATTERN)


def test_a_chain_of_nodes_that_read_a_value_twice_takes_time_by_its_length(tmp_path):
    """Followed once for each way through it, it would take 2 to the power of its length."""
    model = norm_chain()
    values = ["y", *(f"y{number}" for number in range(60))]
    for value, same in itertools.pairwise(values):
        model.graph.node.append(onnx.helper.make_node("Identity", [value, value], [same]))
    onnx.save(model, tmp_path / "m.onnx")
    assert len(open_onnx(tmp_path / "m.onnx", _PATTERN).graph.aliases("y")) == 61
    patch_onnx(tmp_path / "m.onnx", tmp_path / "out", _PATTERN, dims=(1,))


@pytest.mark.parametrize(
    ("splice", "complaint"),
    [
        ((0, 1, "zz"), "damaged"),
        ((-1, 1, ""), "changes do not fit it"),
        ((9, -1, ""), "changes do not fit it"),
        ((10**9, 1, ""), "changes do not fit it"),
        (None, "leaves the folder"),
    ],
)
def test_a_record_of_an_onnx_patch_cannot_lead_outside(tmp_path, splice, complaint):
    """Of the folder or of the file, be its own hash as it should."""
    onnx.save(norm_chain(), tmp_path / "m.onnx")
    patch_onnx(tmp_path / "m.onnx", tmp_path / "out", _PATTERN, dims=(1,))
    record = (tmp_path / "out" / "surgeon" / "record.json").read_text()
    if splice is None:
        record = record.replace('"m.onnx"', '"../m.onnx"')
    changed = json.loads(record)
    if splice:
        splice = dict(zip(("start", "length", "content"), splice, strict=True))
        changed["onnx_patch"]["undo"].append(splice)
    write_record(tmp_path / "out", changed)
    with pytest.raises(SurgeonError, match=complaint):
        restore(tmp_path / "out", tmp_path / "back")
