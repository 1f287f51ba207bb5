"""Text of others: names of models and tensors, what a configuration, a card and a recipe say.

One model says the same hostile line wherever it can. Nothing that surgeon writes about it is more
than text to a terminal, a browser or a renderer of Markdown; JSON has every text exactly.
"""

import json
import shutil
import xml.etree.ElementTree as ET

import pytest
import yaml
from artifacts import edit_json, edit_tensors
from markdown_it import MarkdownIt

from surgeon import harmless
from surgeon.cli import run

HOSTILE = (
    "<img src=x onerror=alert(1)>|`x``|\n# y\r\x1b[31m\x1b]0;t\x07\x9b2J\u202eevil\u2066"
    "[a](javascript:x)[red]:heart:\u2028**b** ![i](http:x) www.x.org $\\frac{$\n\n---\n\x7f"
)
PATTERN = r"(?s).*\d\.output\.LayerNorm"


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory):
    folder = shutil.copytree(tiny("bert"), tmp_path_factory.mktemp("hostile") / HOSTILE)
    edit_tensors(folder, lambda tensors: {f"{HOSTILE}[/x]\0{n}": t for n, t in tensors.items()})
    hostile = {"model_type": HOSTILE, "architectures": [HOSTILE], "id2label": {"0": HOSTILE}}
    edit_json(folder / "config.json", **hostile)
    card = yaml.safe_dump({"license": HOSTILE, "language": [HOSTILE], "tags": [HOSTILE, "```"]})
    (folder / "README.md").write_text(f"---\n{card}---\n")
    return folder


@pytest.fixture(scope="module")
def artifact(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    figure = {"what": HOSTILE, "grade": "O", "source": f"a\n```\n\n{HOSTILE}\n````\n"}
    said = {"description": f"a\n```\n\n{HOSTILE}\n````\n", "model": HOSTILE}
    recipe = {"dims": [3, 9], **said, "expect": {"published": [figure]}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    options = ["--recipe", str(folder / "recipe.yaml"), "--sites-pattern", PATTERN, "--no-onnx"]
    assert run(["patch", str(model), *options, "-o", str(folder / "out")]) == 0
    return folder / "out"


def _orders(text):
    return [c for c in text if not c.isprintable() and c != "\n"]


def test_the_model_card_says_it_as_text(artifact):
    card = (artifact / "README.md").read_text()
    assert _orders(card) == []
    _, header, body = card.split("---\n", 2)
    assert yaml.safe_load(header)["base_model"] == HOSTILE
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(body)
    inline = [token for block in tokens for token in block.children or ()]
    kinds = {token.type for token in (*tokens, *inline)}
    assert not kinds & {"html_block", "html_inline", "image", "hr"}
    links = {token.attrs["href"] for token in inline if token.type == "link_open"}
    assert links == {"https://pypi.org/project/norm-surgeon/", "surgeon/source/README.md"}
    said = "".join(token.content for token in inline if token.type == "code_inline")
    assert said.count("<img src=x") == 2 + 1 + 6  # the heading, the base, the architecture, tensors
    headings = [token for token in tokens if token.type == "heading_open"]
    assert len(headings) == 5
    (code,) = (token.content for token in tokens if token.type == "fence")
    assert yaml.safe_load(code)["model"] == HOSTILE
    cells = [token.type for token in tokens if token.type in ("tr_open", "td_open")]
    assert cells.count("td_open") == 6 * 5


@pytest.mark.parametrize(
    "command",
    [
        ["scan", "MODEL", "--sites-pattern", PATTERN],
        ["patch", "MODEL", "--sites-pattern", PATTERN, "--dims", "3", "--dry-run"],
        ["patch", "MODEL", "--dims", "3", "--dry-run"],
        ["scan", "MODEL?"],
        ["verify", "ARTIFACT"],
        ["diff", "MODEL", "ARTIFACT"],
        ["restore", "ARTIFACT", "-o", "OUT"],
        ["recipes", "check", "ARTIFACT/../recipe.yaml", "MODEL/config.json"],
        ["patch", HOSTILE, "--dims", "3", "--dry-run"],
        ["patch", "MODEL", "--recipe", HOSTILE, "--dry-run"],
        ["scan", "MODEL", "--method", HOSTILE],
        ["report", "MODEL", "-o", "OUT.html"],
    ],
)
def test_the_terminal_is_given_no_order(model, artifact, tmp_path, capfd, command):
    places = {"MODEL": model, "ARTIFACT": artifact, "OUT": tmp_path / f"o{HOSTILE[:20]}"}
    for name, place in places.items():
        command = [part.replace(name, str(place)) for part in command]
    run(command)
    said = "".join(capfd.readouterr())
    assert "<img" in said
    assert "[red]" in "".join(said.split()).replace("│", "")
    assert _orders(said) == []
    assert "Traceback" not in said
    assert "unexpected" not in said


def test_json_has_every_text_exactly(model, done):
    document = done("scan", model, "--sites-pattern", PATTERN, "--json").out
    assert json.loads(document)["model"] == HOSTILE
    assert _orders(document) == []


@pytest.mark.parametrize("suffix", [".svg", ".html", ".pdf", ".png"])
def test_a_picture_shows_it_as_text(model, tmp_path, done, suffix):
    picture = tmp_path / f"picture{suffix}"
    done("scan", model, "--sites-pattern", PATTERN, "--plot", picture)
    if suffix in (".svg", ".html"):
        text = picture.read_text()
        assert not {*_orders(text)} - {"\t"} - {*_script(text)}
        assert "<img" not in text
    if suffix == ".svg":
        ET.fromstring(text)


def _script(page):
    """The characters of plotly's own script, which is no text of others'."""
    return [] if "<script" not in page else _orders(page[page.index("plotly.js") : -20_000])


def test_long_names_stay_short_where_people_read_them(refused):
    name = "x" * 100_000
    assert len(harmless.markdown(name)) < 250
    assert len(harmless.in_chart(name)) < 250
    assert len(refused("scan", name)) < 5_000


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("bert-base-uncased", "bert-base-uncased"),
        ("BERT (WordPiece), 12 layers", "BERT (WordPiece), 12 layers"),
        ("a_b_", "`a_b_`"),
        ("1. a", "`1. a`"),
        ("www.x.org", "`www.x.org`"),
        ("a`b", "``a`b``"),
        ("`", "`` ` ``"),
        ("a  \n b", "a b"),
        ("", "`\N{REPLACEMENT CHARACTER}`"),
        ("\ud800", "`\N{REPLACEMENT CHARACTER}`"),
    ],
)
def test_markdown_leaves_words_alone_and_makes_code_of_the_rest(text, shown):
    assert harmless.markdown(text) == shown
