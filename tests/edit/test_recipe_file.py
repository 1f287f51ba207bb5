import json

import pytest
from jsonschema import Draft202012Validator

from surgeon import load_recipe
from surgeon.edit.recipe import Recipe
from surgeon.edit.recipe_file import check_file, recipe_schema, shipped_recipes
from surgeon.errors import SelectionError


def _problems(tmp_path, text):
    """What is wrong with a recipe, as ``line:column: message``."""
    path = tmp_path / "r.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    checked = check_file(Recipe, path)
    assert (checked.content is None) == bool(checked.problems)
    return [f"{p.line}:{p.column}: {p.message}" for p in checked.problems]


_FIGURE_OF = "dims: [3]\nexpect:\n  published:\n    - "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dims: [3]\ncolour: red\n", "2:1: colour: there is no such field"),
        ("dims: [3,\n  x]\n", "2:3: dims.1: "),
        ("dims: [3]\nmode: cut\n", "2:7: mode: "),
        ("dims: [3]\nsites: [output, roof]\n", "2:17: sites.1"),
        ("dims: [3]\ndims: [4]\n", "2:1: dims: is here twice"),
        ("random: 2\nmethod: guess\n", "2:9: method: there is ablation, "),
        ("mode: zero\n", "1:1: say which dimensions in exactly one way: remove_outliers N"),
        ("dims: [3]\nexpect:\n  verdict: fine\n", "3:12: expect.verdict: "),
        ("dims: [3]\nevaluation:\n  task: chess\n", "3:9: evaluation.task: there is mlm, "),
        ("dims: [3]\nevaluation: {mask_rate: 2}\n", "2:25: evaluation.mask_rate: give a number"),
        (f"{_FIGURE_OF}what: a loss\n      grade: S\n", "4:7: expect.published.0.source: "),
        (f"{_FIGURE_OF}{{what: x, source: y, grade: Z}}\n", "4:35: expect.published.0.grade: "),
        (
            f"{_FIGURE_OF}{{what: x, source: y, grade: S, after: .nan}}\n",
            "4:45: expect.published.0.after: give a finite number; found nan",
        ),
        ("dims: [3\nmode: zero\n", "2:5: not valid YAML"),
        ("a: !!python/object:os.system {}\n", "1:4: not valid YAML"),
        (b"dims: [\xff]", "1:1: not UTF-8"),
        ("", "1:1: give fields, such as name: value; found nothing"),
        ("- 1\n", "1:1: give fields, such as name: value; found [1]"),
        (f"dims: [0x{'f' * 6000}]\n", "1:8: dims.0: give a number of 999,999,999 at most; found"),
        (f"random: 1\nsigma: 0x{'f' * 6000}\n", "2:8: sigma: give a number; found a number of"),
        ("dims: 308,381\n", "1:7: dims: give a list, such as [a, b]; found '308,381'"),
        ("dims: [true]\n", "1:8: dims.0: give a whole number; found true"),
        ("dims: []\n", "1:7: dims: give one entry or more; found []"),
        ("dims: [3, 3]\n", "1:7: dims: name each once; found [3, 3]"),
        ("dims: [-1]\n", "1:8: dims.0: give a number of 0 or more; found -1"),
        ("dims: [3]\nlayers: 0-5\n", "2:9: layers: give a list, such as [a, b]; found '0-5'"),
        (
            "dims: [3]\nsites: [outputt]\n",
            "2:9: sites.0: there is output, attention, embeddings, final, all; found 'outputt'",
        ),
        ("dims: [3]\nfactor: .inf\nmode: scale\n", "2:9: factor: give a finite number; found inf"),
        ("dims: [3]\nsigma: .nan\n", "2:8: sigma: give a finite number; found nan"),
        ("dims: [3]\nmin_layers: 1.5\n", "2:13: min_layers: give a count, or a share of the lay"),
        ("dims: [3]\nevaluation: mlm\n", "2:13: evaluation: give fields, such as name: value; "),
        ("dims: [3]\nevaluation: {tsk: mlm}\n", "2:14: evaluation.tsk: there is no such field; d"),
        ("remove_outlier: 2\n", "1:1: remove_outlier: there is no such field; did you mean remove"),
        ("dims: [3]\nmode: scale\n", "1:1: factor: mode scale and factor go together, and only t"),
        ("random: 2\nmethod: layrnorm\n", "2:9: method: there is ablation, activations, "),
    ],
)
def test_an_error_is_told_with_its_place_and_what_to_write(tmp_path, text, expected):
    (problem,) = _problems(tmp_path, text)
    assert problem.startswith(expected)
    assert "--" not in problem


def test_every_error_is_told_in_the_order_of_the_file(tmp_path):
    text = "mode: cut\ndims: [x, 3, y]\ncolour: red\nexpect: {verdict: fine}\n"
    places = [problem.split(": ")[0] for problem in _problems(tmp_path, text)]
    assert places == ["1:7", "2:8", "2:14", "3:1", "4:19"]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("random: 0\ndims: [3, 3]\nseed: -1\nlayers: []\n", [1, 2, 3, 4]),
        ("random: 1\ndims: [3]\nfactor: 2\n", [1, 3]),
    ],
)
def test_values_out_of_bounds_and_then_contradictions_are_all_told(tmp_path, text, lines):
    assert [int(p.split(":")[0]) for p in _problems(tmp_path, text)] == lines


def test_a_recipe_with_errors_is_refused_with_the_first_and_their_number(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("dims: [3]\nmode: cut\ncolour: red\n")
    with pytest.raises(SelectionError, match=r"r\.yaml:2:7: mode: .*\(and 1 more: "):
        load_recipe(str(path))


_BOMB = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("\n".join(["a0: &a0 [x, x]", *_BOMB]), "more than 100,000 values"),
        ("a0: &a0 {x: 1}\n" + "\n".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}"
                                       for n in range(1, 12)), "more than 100,000 values"),
        ("a: &a [*a]", "50 deep"),
        ("[" * 9000, "recursion"),
        ("x" * 300_001, "at most 300,000"),
        ("a: 2024-05-40", "day is out of range"),
        ("a: !!timestamp x", "NoneType"),
    ],
)  # fmt: skip
def test_a_document_without_end_or_with_odd_values_is_one_problem(tmp_path, text, reason):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    (problem,) = check_file(Recipe, path).problems
    assert reason in problem.message


def test_the_path_of_the_data_starts_from_the_recipe(tmp_path, monkeypatch):
    (tmp_path / "study").mkdir()
    path = tmp_path / "study" / "r.yaml"
    path.write_text("dims: [3]\nevaluation: {data: texts.txt}\n")
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("study/r.yaml")
    assert recipe.evaluation.data == str(tmp_path / "study" / "texts.txt")


def test_the_schema_tells_an_editor_what_every_field_is():
    schema = recipe_schema()
    Draft202012Validator.check_schema(schema)
    parts = [schema, *schema["$defs"].values()]
    assert len(parts) == 4
    for part in parts:
        assert part["additionalProperties"] is False
        assert all(field["description"] for field in part["properties"].values())
    assert schema["properties"]["mode"]["enum"] == ["zero", "scale", "mean"]
    ways = [way["required"] for way in schema["oneOf"]]
    assert ways == [["dims"], ["remove_outliers"], ["random"]]


_DIMS = {"dims": [3]}
_FIGURE = {"what": "a loss", "grade": "S", "source": "a paper"}


@pytest.mark.parametrize(
    "document",
    [
        {"dims": [0, 999_999_999]},
        {"random": 2, "dims": None},
        {"remove_outliers": 1, "relax": True, "method": "ablation", "min_damage": 0},
        {**_DIMS, "sigma": 2, "min_layers": 0.5},
        {**_DIMS, "min_layers": 3, "layers": [0], "params": ["bias"], "sites": ["all"]},
        {**_DIMS, "mode": "scale", "factor": 2},
        {**_DIMS, "mode": "scale", "factor": -0.5, "seed": 3},
        {**_DIMS, "mode": "mean", "factor": None},
        {**_DIMS, "evaluation": {"task": "mlm", "mask_rate": 0.3, "controls": 1, "dose": False}},
        {**_DIMS, "evaluation": {"masking": "bert", "block": 64, "text_column": "review"}},
        {**_DIMS, "evaluation": {"task": "clm", "stride": 1, "bos": True, "document": True}},
        {**_DIMS, "expect": {"published": [{**_FIGURE, "after": 1}]}},
    ],
)
def test_the_schema_takes_what_the_check_takes(tmp_path, document):
    assert _problems(tmp_path, json.dumps(document)) == []
    Draft202012Validator(recipe_schema()).validate(document)


@pytest.mark.parametrize("name", ["bert-base-uncased-scale", "random-pair", "bert-large-criterion"])
def test_the_schema_takes_recipes_that_ship_with_every_field_written_out(name):
    recipe = json.loads(json.dumps(load_recipe(name).to_json()))
    Draft202012Validator(recipe_schema()).validate(recipe)
    assert name in shipped_recipes()


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        None,
        {"dims": None},
        {"dims": [3], "random": 2},
        *(
            {"dims": dims}
            for dims in ("308,381", 3, [], [1, 1], [-1], ["1"], [True], [0.5], [10**22])
        ),
        *({"random": random} for random in (0, -1, "2", True, 1.5, 10**22)),
        *({**_DIMS, "seed": seed} for seed in (-1, "1", None, 2**63)),
        *({**_DIMS, "method": method} for method in ("guess", 1)),
        *({**_DIMS, "sigma": sigma} for sigma in (0, -1, "3")),
        *({**_DIMS, "min_layers": least} for least in (-3, 0, 1.5, "1")),
        {**_DIMS, "min_damage": -1},
        *({**_DIMS, "relax": relax} for relax in ("yes", 1, None)),
        *({**_DIMS, "params": params} for params in ([], ["gain", "gain"], ["beta"], "gain")),
        *({**_DIMS, "layers": layers} for layers in ([], [1, 1], [-1], ["0-5"], "0-5", [True])),
        *({**_DIMS, "sites": sites} for sites in ([], ["outputt"], "all", ["all", "all"])),
        {**_DIMS, "mode": "cut"},
        {**_DIMS, "mode": "scale"},
        {**_DIMS, "mode": "scale", "factor": None},
        {**_DIMS, "mode": "scale", "factor": "0.5"},
        {**_DIMS, "factor": 0.5},
        {**_DIMS, "description": 3},
        {**_DIMS, "dim": [3]},
        *({**_DIMS, "evaluation": {"task": task}} for task in ("chess", 3)),
        *({**_DIMS, "evaluation": {"mask_rate": rate}} for rate in (0, 3, "0.5", True)),
        *({**_DIMS, "evaluation": {"block": number}} for number in (0, -1, 2.5, 10**9)),
        *({**_DIMS, "evaluation": wrong} for wrong in ({"masking": "some"}, {"bos": 1})),
        *({**_DIMS, "evaluation": {"controls": controls}} for controls in (0, -1, "3")),
        *({**_DIMS, "evaluation": value} for value in ("mlm", {"seed": -1}, {"dose": "yes"})),
        *({**_DIMS, "expect": value} for value in ("intact", {"verdict": "fine"})),
        {**_DIMS, "expect": {"published": [{**_FIGURE, "what": " "}]}},
        {**_DIMS, "expect": {"published": [{**_FIGURE, "dims": [-1]}]}},
    ],
)
def test_the_schema_refuses_what_the_check_refuses(tmp_path, document):
    assert _problems(tmp_path, json.dumps(document))
    assert not Draft202012Validator(recipe_schema()).is_valid(document)


def test_a_directory_is_told_to_be_one(tmp_path):
    with pytest.raises(SelectionError, match="is a directory; name a YAML file in it"):
        load_recipe(str(tmp_path))
