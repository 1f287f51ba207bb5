"""A damaged artifact: verify finds what would make restore fail or mislead, and nothing hangs.

``SURGEON_FLIPS`` sets the number of flipped bits (CI: 60; the claim was run with 700).
"""

import json
import os
import random
import shutil

import pytest
from artifacts import files_of, make_pickle, patch, run_python

from surgeon import restore, verify
from surgeon.errors import SurgeonError

_FLIPS = int(os.environ.get("SURGEON_FLIPS", "60"))
_MOST = 2**24  # bytes of a file that a command may write here, and a disk's worth without a limit


@pytest.fixture(scope="module")
def artifact(tiny, tmp_path_factory):
    """Made of a pickle, which comes back under another name, with a card of its own."""
    folder = tmp_path_factory.mktemp("damaged")
    source = shutil.copytree(tiny("bert"), folder / "source")
    (source / "README.md").write_text("A model.")
    (source / "vocab.txt").write_text("a")
    make_pickle(source)
    patch(source, folder / "out")
    return folder / "out"


def _flipped(content, rng):
    flipped = bytearray(content)
    flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def _passes(folder):
    try:
        return verify(folder).passed
    except SurgeonError:
        return False


def test_no_flipped_bit_of_a_record_passes_verify(artifact, tmp_path):
    folder = shutil.copytree(artifact, tmp_path / "out")
    path = folder / "surgeon" / "record.json"
    content = path.read_bytes()
    assert _passes(folder)
    for seed in range(_FLIPS):
        path.write_bytes(_flipped(content, random.Random(seed)))
        assert not _passes(folder), seed


def test_no_flipped_bit_of_an_older_record_passes_verify_and_misleads_restore(artifact, tmp_path):
    """Those from before a record had its own hash: there is no more than what must fit."""
    folder = shutil.copytree(artifact, tmp_path / "out")
    path = folder / "surgeon" / "record.json"
    record = json.loads(path.read_bytes())
    assert len(record.pop("blake3")) == 64
    content = json.dumps(record, indent=1).encode()
    path.write_bytes(content)
    assert _passes(folder)
    restore(folder, tmp_path / "original")
    original = files_of(tmp_path / "original")
    assert {"model.safetensors", "README.md"} < original.keys()
    for seed in range(_FLIPS):
        path.write_bytes(_flipped(content, random.Random(seed)))
        if _passes(folder):
            restore(folder, tmp_path / "back", force=True)
            assert files_of(tmp_path / "back") == original, seed


def test_no_flipped_bit_of_another_file_passes_verify(artifact, tmp_path):
    folder = shutil.copytree(artifact, tmp_path / "out")
    for name, content in files_of(artifact).items():
        if name != "surgeon/record.json":
            for seed in range(_FLIPS // 20):
                (folder / name).write_bytes(_flipped(content, random.Random(seed)))
                assert not _passes(folder), (name, seed)
            (folder / name).write_bytes(content)
    assert _passes(folder)


def _zeros(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def _longer(path):
    os.truncate(path, _MOST // 2)


# A hang, and a disk full of zeros, would be those of another process.
_LIMITED = """
import resource, sys
from surgeon.cli import run
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
print(run(["verify", sys.argv[2], "--json"]), run(["restore", sys.argv[2], "-o", sys.argv[3]]))
"""


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("config.json", _zeros, "is not a regular file"),
        ("vocab.txt", _longer, "8,388,608 bytes and had 1"),
    ],
)
def test_only_regular_files_of_the_recorded_size_are_read(
    artifact, tmp_path, name, change, complaint
):
    folder, back = shutil.copytree(artifact, tmp_path / "out"), tmp_path / "back"
    change(folder / name)
    done = run_python("-c", _LIMITED, _MOST, folder, back, timeout=60, check=False)
    *document, codes = done.stdout.splitlines()
    assert codes == "1 2"
    assert complaint in "".join(document)
    failed, refusal = done.stderr.splitlines()
    assert "checks failed" in failed
    assert complaint in refusal
    assert not back.exists()
