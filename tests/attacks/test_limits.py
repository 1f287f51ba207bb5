"""Small files that stand for much: refused by what they declare, before memory or time is spent."""

import re
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers
import torch
from artifacts import edit_json, patch, run_python, safetensors_bytes

from surgeon import open_checkpoint
from surgeon.edit.card import read_front_matter
from surgeon.errors import CheckpointError, EvaluationError, SelectionError
from surgeon.evaluation.blocks import Partial
from surgeon.tasks.data import read_table
from surgeon.tasks.examples import Encoder
from surgeon.tasks.tokenizer import find_tokenizer, read_tokenizer

_LIMITED = """
import resource, sys
from surgeon.cli import run
in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**30, resource.RLIM_INFINITY))
sys.exit(run(sys.argv[1:]))
"""


def _limited(*arguments):
    """Run the command line in a process that may grow by 1 GiB, in 60 s."""
    return run_python("-c", _LIMITED, *arguments, check=False, timeout=60)


def _one_line(done):
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2, line
    return line


class _Bytes:
    def __reduce__(self):
        return bytearray, (2**31,)


def _deflated(path):
    zeros = torch.zeros(2**21)
    torch.save({f"t{number}": zeros.clone() for number in range(4)}, path)
    with zipfile.ZipFile(path) as whole:
        entries = [(name, whole.read(name)) for name in whole.namelist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for entry in entries:
            made.writestr(*entry)


def _many_names(path):
    weights = torch.zeros(2**20)
    torch.save({f"t{number}": weights for number in range(4000)}, path)


def _no_stride(path):
    torch.save({"t": torch.zeros(1).expand(10**10)}, path)


def _unfilled(path):
    """An older file whose list of storages is empty."""
    torch.save({"t": torch.ones(1000)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    start = content.rindex(b"\x80\x02]q\x00")
    path.write_bytes(content[:start] + b"\x80\x02]q\x00.")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_deflated, "is compressed"),
        (_many_names, "more than 64 copies"),
        (_no_stride, "more than 64 copies"),
        (_unfilled, "its 1,000 numbers are not in the file"),
        (lambda path: torch.save({"t": _Bytes()}, path), "builtin.*bytearray"),
    ],
)
def test_a_pickle_that_stands_for_more_than_it_holds_is_refused(tiny, tmp_path, make, reason):
    shutil.copy(tiny("bert") / "config.json", tmp_path)
    make(tmp_path / "pytorch_model.bin")
    assert re.search(reason, _one_line(_limited("scan", tmp_path)))


@pytest.mark.parametrize(("where", "count"), [("config", 10**9), ("text_config", 10**400)])
def test_labels_without_end_are_refused(source, where, count):
    labels = {"num_labels": count}
    edit_json(source / "config.json", **(labels if where == "config" else {where: labels}))
    with pytest.raises(CheckpointError, match="num_labels is 1000000000"):
        open_checkpoint(source)


def test_a_parquet_file_of_a_few_bytes_and_many_is_refused(tmp_path):
    value = pa.array(["x" * 40_000])
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), value)
    pq.write_table(pa.table({"text": column}), tmp_path / "d.parquet", compression="zstd")
    assert (tmp_path / "d.parquet").stat().st_size < 1000
    with pytest.raises(EvaluationError, match="unpacks to more than 134,217,728 bytes"):
        read_table(tmp_path / "d.parquet")


def _tokenizer(folder, **parts):
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "[UNK]": 1}, "[UNK]"))
    for name, part in parts.items():
        setattr(made, name, part)
    made.save(str(folder / "tokenizer.json"))
    facts, _ = find_tokenizer(folder, "", None)
    return read_tokenizer(folder, facts)


@pytest.mark.parametrize("content", [["x" * 2000], ["aa"] * 12])
def test_a_tokenizer_that_expands_text_is_refused(tmp_path, content):
    steps = [tokenizers.normalizers.Replace("a", c) for c in content]  # each may double the text
    with pytest.raises(EvaluationError, match=r"tokenizer\.json: makes up to .* characters of one"):
        _tokenizer(tmp_path, normalizer=tokenizers.normalizers.Sequence(steps))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a " * 5_000_000, "begins with 'a a a .* has 10,000,000 characters"),
        ("a \ud800", "half of a surrogate"),
    ],
)
def test_a_text_that_is_none_or_without_end_is_refused(tmp_path, text, reason):
    encoder = Encoder(_tokenizer(tmp_path), 8, None)
    with pytest.raises(EvaluationError, match=reason):
        encoder.encode(["a", text])


def test_a_panic_of_a_tokenizer_is_an_error_and_nothing_else_is_said(tmp_path, capfd):
    pattern = tokenizers.Regex("(a|a)*$^")
    split = tokenizers.pre_tokenizers.Split(pattern, "isolated")
    tokenizer = _tokenizer(tmp_path, pre_tokenizer=split)
    with pytest.raises(EvaluationError, match=r"tokenizer\.json: the tokenizer fails \(Onig"):
        tokenizer.encode_batch(["a" * 40 + "!"] * 4)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        *((r"(\w|\w)*(\w|\w)*(\w|\w)*-", "pattern"), ("(a+)+$", "pattern")),
        *(("(((a{1000}){1000}){1000})", "pattern"), ("(?!a)b", "look-around")),
    ],
)
def test_a_pattern_that_backtracks_or_looks_around_is_answered_at_once(tiny, pattern, reason):
    checkpoint = open_checkpoint(tiny("bert"), sites_pattern=pattern)
    with pytest.raises(SelectionError, match=reason):
        checkpoint.sites  # noqa: B018


_CARDS = {
    "an odd date": "license: 2024-02-40",
    "an odd tag": "license: !!timestamp x\ntags: [!!int y]",
    "a tag of Python": "license: !!python/object:os.system x",
    "a huge number": "license: " + "9" * 5000,
    "deep nesting": "tags: " + "[" * 5000,
    "itself": "tags: &a [*a]",
    "a set": "tags: !!set {a, b}",
    "no text": "license: \x01\ntags: [1, {a: b}]",
    "a bomb": "a0: &a0 [x, x]\n"
    + "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))
    + "\ntags: *a11",
}


@pytest.mark.parametrize("header", _CARDS.values(), ids=_CARDS)
def test_a_broken_card_never_blocks_a_patch(source, tmp_path, header):
    (source / "README.md").write_text(f"---\n{header}\n---\n# A model\n")
    patch(source, tmp_path / "out", dims=(1,))
    assert "norm-surgeon" in read_front_matter(tmp_path / "out" / "README.md")["tags"]


def test_a_language_that_yaml_takes_for_false_stays_one(tmp_path):
    (tmp_path / "README.md").write_text("---\nlanguage: [no, en]\n---\n")
    assert read_front_matter(tmp_path / "README.md") == {"language": ["no", "en"]}


@pytest.mark.parametrize(
    "config",
    [
        "[" * 100_000,
        '{"a": ' * 300 + "1" + "}" * 300,
        '{"model_type": "\\ud800"}',
        '{"a": 1' + "0" * 5000 + "}",
    ],
)
def test_json_without_end_or_text_is_refused_in_one_line(source, refused, config):
    (source / "config.json").write_text(config)
    refused("scan", source, says="config.json: not valid JSON")


@pytest.mark.parametrize("damage", ["cut", "bits", "huge", "nothing"])
def test_a_damaged_partial_evaluation_is_begun_anew(tmp_path, damage):
    partial = Partial(tmp_path / "p.safetensors", "key")
    partial.save(np.ones((3, 4, 1)))
    content = bytearray(partial.path.read_bytes())
    if damage == "cut":
        del content[-40:]
    elif damage == "bits":
        content[content.index(b"F64")] = 77
    elif damage == "huge":  # no bytes, and more rows than an array may have
        tensor = {"dtype": "F64", "shape": [2**62, 0], "data_offsets": [0, 0]}
        content = safetensors_bytes({"__metadata__": {"key": "key"}, "observed": tensor})
    partial.path.write_bytes(content)
    assert (partial.load() is None) == (damage != "nothing")


def test_a_folder_whose_name_is_not_utf_8_is_a_model_like_any(tiny, tmp_path, done):
    model = shutil.copytree(tiny("bert"), tmp_path / "m\udcff")
    shutil.copy(model / "config.json", model / "x\udcff.json")
    done("patch", model, "--dims", "1", "--no-onnx", "-o", tmp_path / "out")
    done("verify", tmp_path / "out")
    done("restore", tmp_path / "out", "-o", tmp_path / "back")
    assert (tmp_path / "back" / "x\udcff.json").exists()


def test_too_little_memory_is_said_in_one_line(tiny):
    command = f"ulimit -v 60000; {sys.executable} -m surgeon scan {tiny('bert')}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert _one_line(done).startswith("surgeon: not enough memory")
