import json

import pytest
from families import save_family

_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz012345678"]
_LINES = [
    "a b c d e f g h",
    "h g f e d c b a",
    "z y x w v u",
    "0 1 2 3 4 5 6 7 8",
    "a a b b c c d d",
]


@pytest.fixture(scope="session")
def small_model(tmp_path_factory):
    """A tiny BERT of two layers with a masked head, and a tokenizer of letters and digits."""
    folder = tmp_path_factory.mktemp("study") / "small"
    save_family("bert", folder)
    (folder / "vocab.txt").write_text("\n".join(_WORDS) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return folder


@pytest.fixture
def grid_file(small_model, tmp_path):
    """Write a grid of the small model on a few lines of text."""
    (tmp_path / "lines.txt").write_text("\n".join(_LINES) + "\n")

    def write(text, models=None):
        path = tmp_path / "grid.yaml"
        named = json.dumps(list(map(str, models or [small_model])))
        path.write_text(f"models: {named}\ntasks: [{{data: lines.txt, controls: 3}}]\n{text}")
        return path

    return write
