import pytest

from surgeon import load_recipe
from surgeon.errors import SelectionError
from surgeon.surgery.recipe_file import check_recipe
from surgeon.surgery.recipe_schema import recipe_schema
from surgeon.surgery.yaml_file import read_yaml


def _problems(tmp_path, text):
    """Check a recipe; return what is wrong as (line, column, start of the message)."""
    path = tmp_path / "r.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    checked = check_recipe(path)
    assert (checked.recipe is None) == bool(checked.problems)
    return [(p.line, p.column, p.message) for p in checked.problems]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dims: [3]\ncolour: red\n", [(2, 1, "colour: there is no such field")]),
        ("dims: [3,\n  x]\n", [(2, 3, "dims.1: ")]),
        ("dims: [3]\nmode: cut\n", [(2, 7, "mode: ")]),
        ("dims: [3]\nsites: [output, roof]\n", [(2, 17, "sites.1")]),
        ("dims: [3]\ndims: [4]\n", [(2, 1, "dims: is here twice")]),
        ("random: 2\nmethod: guess\n", [(2, 9, "--method guess")]),
        ("mode: zero\n", [(1, 1, "say which dimensions in exactly one way")]),
        ("dims: [3]\nexpect:\n  verdict: fine\n", [(3, 12, "expect.verdict: ")]),
        ("dims: [3]\nevaluation:\n  task: chess\n", [(3, 9, "evaluation.task: 'chess'")]),
        ("dims: [3]\nevaluation: {mask_rate: 2}\n", [(2, 25, "evaluation.mask_rate: 2")]),
        (
            "dims: [3]\nexpect:\n  published:\n    - what: a loss\n      grade: S\n",
            [(4, 7, "expect.published.0.source: ")],
        ),
        (
            "dims: [3]\nexpect:\n  published:\n    - {what: x, source: y, grade: Z}\n",
            [(4, 35, "expect.published.0.grade: ")],
        ),
        (
            "dims: [3]\nexpect:\n  published:\n    - {what: x, source: y, grade: S, after: .nan}\n",
            [(4, 45, "expect.published.0.after: nan")],
        ),
        ("dims: [3\nmode: zero\n", [(2, 5, "not valid YAML")]),
        ("a: !!python/object:os.system {}\n", [(1, 4, "not valid YAML")]),
        (b"dims: [\xff]", [(1, 1, "not UTF-8")]),
        ("", [(1, 1, "recipe: ")]),
        ("- 1\n", [(1, 1, "recipe: ")]),
    ],
)
def test_an_error_is_told_with_its_line_and_column(tmp_path, text, expected):
    found = _problems(tmp_path, text)
    assert [place[:2] for place in found] == [place[:2] for place in expected]
    for (_, _, message), (_, _, start) in zip(found, expected, strict=True):
        assert message.startswith(start)


def test_every_error_is_told_in_the_order_of_the_file(tmp_path):
    text = "mode: cut\ndims: [x, 3, y]\ncolour: red\nexpect: {verdict: fine}\n"
    assert [p[:2] for p in _problems(tmp_path, text)] == [(1, 7), (2, 8), (2, 14), (3, 1), (4, 19)]


def test_fields_that_contradict_each_other_are_all_told(tmp_path):
    text = "random: 0\ndims: [3, 3]\nseed: -1\nlayers: []\nfactor: 2\n"
    assert [p[0] for p in _problems(tmp_path, text)] == [1, 1, 2, 3, 4, 5]


def test_a_recipe_with_errors_is_refused_with_the_first_and_their_number(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("dims: [3]\nmode: cut\ncolour: red\n")
    with pytest.raises(SelectionError, match=r"r\.yaml:2:7: mode: .*\(and 1 more: "):
        load_recipe(str(path))


def test_aliases_that_unfold_to_billions_are_read_in_no_time(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    path = tmp_path / "r.yaml"
    path.write_text("\n".join(lines))
    assert len(read_yaml(path).values) < 1000
    assert len(check_recipe(path).problems) == 12  # as many unknown fields


def test_the_path_of_the_data_starts_from_the_recipe(tmp_path, monkeypatch):
    (tmp_path / "study").mkdir()
    path = tmp_path / "study" / "r.yaml"
    path.write_text("dims: [3]\nevaluation: {data: texts.txt}\n")
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("study/r.yaml")
    assert recipe.evaluation.data == str(tmp_path / "study" / "texts.txt")


def test_the_schema_tells_an_editor_what_every_field_is():
    schema = recipe_schema()
    parts = [schema, *schema["$defs"].values()]
    assert len(parts) == 4
    for part in parts:
        assert part["additionalProperties"] is False
        assert all(field["description"] for field in part["properties"].values())
    assert schema["properties"]["mode"]["enum"] == ["zero", "scale", "mean"]
    assert {"required": ["dims"]} in schema["oneOf"]
