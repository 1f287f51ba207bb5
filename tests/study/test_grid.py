import json

import pytest

from surgeon.edit.recipe import recipe_from_json
from surgeon.errors import SelectionError
from surgeon.study.grid import check_grid, effort_of, make_cells

_MODELS = "models: [some/model, other/model]\n"


def _cells(tmp_path, text):
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    return make_cells(check_grid(path).valid())


def _problems(tmp_path, text):
    """What is wrong with a grid, as ``line:column: message``."""
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    checked = check_grid(path)
    assert (checked.content is None) == bool(checked.problems)
    return [f"{p.line}:{p.column}: {p.message}" for p in checked.problems]


def test_a_grid_is_the_product_of_its_axes_in_their_order(tmp_path):
    text = (
        f"{_MODELS}selections: [dims: [3], dims: [4, 5]]\n"
        "operations: [{}, {mode: scale, factor: [0, 0.5]}, {params: [gain]}]\n"
        "layers: [all, 0, 1-2]\nseeds: [0, 1]\n"
    )
    cells = _cells(tmp_path, text)
    assert len(cells) == 2 * 2 * 4 * 3 * 2
    assert len({cell.key for cell in cells}) == len(cells)
    assert [cell.evaluation.seed for cell in cells[:2]] == [0, 1]
    assert [cell.recipe.layers for cell in cells[:6:2]] == [None, (0,), (1, 2)]
    assert [cell.recipe.factor for cell in cells[:24:6]] == [None, 0.0, 0.5, None]
    assert cells[18].recipe.params == ("gain",)
    assert [cell.recipe.dims for cell in cells[:48:24]] == [(3,), (4, 5)]
    assert [cell.model.model for cell in cells[::48]] == ["some/model", "other/model"]


def test_each_stands_for_a_selection_of_every_single_dimension(tmp_path):
    cells = _cells(tmp_path, f"{_MODELS}selections: [{{each: '0-2,7'}}]\n")
    assert [cell.recipe.dims for cell in cells] == [(0,), (1,), (2,), (7,)] * 2


def test_numbers_are_written_as_yaml_and_json_have_them(tmp_path):
    """YAML 1.1 takes 1e-3 for text."""
    cells = _cells(
        tmp_path,
        f"{_MODELS}selections: [{{each: [0, 7]}}]\nlayers: [[0, 1], '0,1', 1]\n"
        "operations: [{mode: scale, factor: [1e-3, 0.001, 2E+0]}]\n",
    )
    assert {cell.recipe.dims for cell in cells} == {(0,), (7,)}
    assert {cell.recipe.layers for cell in cells} == {(0, 1), (1,)}
    assert {cell.recipe.factor for cell in cells} == {0.001, 2.0}


def test_a_selection_takes_over_the_recipe_that_it_names(tmp_path):
    text = f"{_MODELS}selections: [recipe: roberta-base-criterion]\noperations: [mode: mean]\n"
    recipe = _cells(tmp_path, text)[0].recipe
    assert (recipe.remove_outliers, recipe.sigma, recipe.mode) == (2, 2.0, "mean")
    assert recipe.evaluation.task == "mlm"
    assert recipe.expect.verdict == "degraded"


def test_only_random_dimensions_are_drawn_anew_with_each_seed(tmp_path):
    cells = _cells(tmp_path, f"{_MODELS}selections: [dims: [3], random: 2]\nseeds: [4, 5]\n")
    assert [cell.recipe.seed for cell in cells[:4]] == [0, 0, 4, 5]


def test_a_recipe_s_seed_that_draws_nothing_makes_no_second_cell(tmp_path):
    (tmp_path / "seeded.yaml").write_text("dims: [3]\nseed: 7\n")
    seeded = tmp_path / "seeded.yaml"
    text = f"models: [m]\nselections: [dims: [3], recipe: {json.dumps(str(seeded))}]\n"
    assert len(_cells(tmp_path, text)) == 1


def test_a_cell_s_recipe_is_a_recipe_s_file(tmp_path):
    (cell, _) = _cells(tmp_path, f"{_MODELS}selections: [dims: [3]]\nseeds: [7]\n")
    assert recipe_from_json(json.loads(json.dumps(cell.recipe.to_json())), "row") == cell.recipe


def test_the_same_cell_is_there_once_and_has_the_same_key_in_another_grid(tmp_path):
    cells = _cells(tmp_path, f"{_MODELS}selections: [dims: [3], dims: [3], dims: [4]]\n")
    assert len(cells) == 4
    (other, _) = _cells(tmp_path, f"{_MODELS}selections: [dims: [4]]\n")
    assert other.key in {cell.key for cell in cells}


def test_other_data_of_the_same_name_make_another_cell(tmp_path):
    text = f"{_MODELS}selections: [dims: [3]]\ntasks: [data: d.txt]\n"
    keys = set()
    for content in ("one\n", "two\n", "one\n"):
        (tmp_path / "d.txt").write_text(content)
        keys.add(_cells(tmp_path, text)[0].key)
    assert len(keys) == 2


def test_paths_start_from_the_grid_and_hub_ids_stay(tmp_path, monkeypatch):
    (tmp_path / "study" / "local").mkdir(parents=True)
    text = "models: [local, org/name]\nselections: [dims: [3]]\ntasks: [data: d.txt]\n"
    (tmp_path / "study" / "grid.yaml").write_text(text)
    (tmp_path / "study" / "d.txt").write_text("one")
    monkeypatch.chdir(tmp_path)
    grid = check_grid(tmp_path / "study" / "grid.yaml").valid()
    assert [m.place for m in grid.models] == [str(tmp_path / "study" / "local"), "org/name"]
    assert grid.tasks[0].data == str(tmp_path / "study" / "d.txt")


def test_a_study_that_was_moved_with_its_models_has_the_same_cells(tmp_path):
    (tmp_path / "study" / "local").mkdir(parents=True)
    (tmp_path / "study" / "d.txt").write_text("one\n")
    text = "models: [local]\nselections: [dims: [3]]\ntasks: [data: d.txt]\n"
    (before,) = _cells(tmp_path / "study", text)
    (tmp_path / "study").rename(tmp_path / "moved")
    (after,) = _cells(tmp_path / "moved", text)
    assert after.to_json() == before.to_json()
    assert (after.to_json()["model"], after.to_json()["data"]) == ("local", "d.txt")
    assert after.model.place == str(tmp_path / "moved" / "local")


def test_a_recipe_starts_from_the_grid_and_not_from_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "study").mkdir()
    text = f"{_MODELS}selections: [recipe: mine.yaml, recipe: random-pair]\n"
    (tmp_path / "study" / "grid.yaml").write_text(text)
    (tmp_path / "study" / "mine.yaml").write_text("dims: [7]\n")
    (tmp_path / "mine.yaml").write_text("dims: [8]\n")
    monkeypatch.chdir(tmp_path)
    mine, pair, *_ = make_cells(check_grid(tmp_path / "study" / "grid.yaml").valid())
    assert mine.recipe.dims == (7,)
    assert pair.recipe.random == 2


def test_data_that_only_a_recipe_names_must_be_there_where_no_task_has_its_own(tmp_path):
    (tmp_path / "r.yaml").write_text("dims: [7]\nevaluation: {data: no.txt}\n")
    (tmp_path / "d.txt").write_text("one")
    text = f"{_MODELS}selections: [recipe: r.yaml]\n"
    (problem,) = _problems(tmp_path, text)
    assert problem.startswith("2:22: selections.0.recipe: its evaluation's data, ")
    assert _problems(tmp_path, text + "tasks: [data: d.txt]\n") == []


def test_data_of_the_hub_have_no_folder(tmp_path):
    cells = _cells(tmp_path, f"{_MODELS}selections: [dims: [3]]\ntasks: [data: 'hf:org/set']\n")
    assert cells[0].evaluation.data == "hf:org/set"


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ("selections: [{each: 0-3, dims: [5]}]", "2:26: selections.0.dims: chooses dimensions"),
        ("selections: [{recipe: random-pair, dims: [5]}]", "2:36: selections.0.dims: chooses dim"),
        ("selections: [dims: [5]]\noperations: [{dims: [2]}]", "3:15: operations.0.dims: chooses"),
        (
            "selections: [random: 2]\noperations: [factor: []]",
            "3:14: operations.0.factor: give one",
        ),
        (
            "selections: [{dims: [5], params: [gain]}]\noperations: [{params: [bias]}]",
            "3:15: operations.0.params: selections.0 has it too; say it in one of the two",
        ),
        ("selections: [{dims: [5], layers: [1]}]\nlayers: [0]", "2:26: selections.0.layers: "),
        ("selections: [{random: 2, seed: 7}]", "2:26: selections.0.seed: is not for one"),
        ("selections: [{random: 2, evaluation: {}}]", "2:26: selections.0.evaluation: is not for"),
        ("selections: [{dim: [5]}]", "2:15: selections.0.dim: there is no such field; did you"),
        ("selections: [dims: [5]]\ntasks: [data: no.txt]", "3:15: tasks.0.data: "),
        ("selections: [{random: 2, method: guess}]", "2:34: selections.0.method: there is "),
        ("selections: [dims: [5]]\ntasks: [mlm]", "3:9: tasks.0: give fields, such as name: "),
        ("selections: [dims: [5]]\nlayers: [true]", "3:10: layers.0: give "),
        ("selections: [dims: [5]]\nlayers: [[0, x]]", "3:10: layers.0: give "),
        ("selections: [[5]]", "2:14: selections.0: give fields, such as name: value; found [5]"),
        ("selections: [dims: [3]]\ncolour: red", "3:1: colour: "),
        ("selections: [dims: [x]]", "2:21: selections.0.dims.0: "),
        ("selections: [each: a-b]", "2:20: selections.0.each: give numbers"),
        ("selections: [recipe: nowhere]", "2:22: selections.0.recipe: recipe nowhere: no such"),
        (
            "selections: [random: 2]\noperations: [mode: cut]",
            "3:20: operations.0.mode: there is zero",
        ),
        (
            "selections: [random: 2]\noperations: [{}, factor: [1]]",
            "3:26: operations.1.factor: mode",
        ),
        ("selections: [dims: [3]]\nlayers: [all, x]", "3:15: layers.1: give numbers and ranges"),
        ("selections: [dims: [3]]\nseeds: [0, -1]", "3:12: seeds.1: give a number of 0 or more"),
        ("selections: [dims: [3]]\ntasks: [task: chess]", "3:15: tasks.0.task: there is mlm, "),
        ("selections: [dims: [3]]\ntasks: [dose: true]", "3:15: tasks.0.dose: is not for a sweep"),
        (
            "selections: [random: 2]\noperations: [seed: 7]",
            "3:14: operations.0.seed: is not for one",
        ),
    ],
)
def test_an_error_of_a_grid_is_told_with_its_line_and_column(tmp_path, entries, expected):
    (problem,) = _problems(tmp_path, f"{_MODELS}{entries}\n")
    assert problem.startswith(expected)


def test_what_is_missing_and_a_model_s_fields_are_told_too(tmp_path):
    dims = "selections: [dims: [3]]\n"
    for text, *expected in (
        (dims, "1:1: models: is missing"),
        (f"models: []\n{dims}", "1:9: models: give one entry or more"),
        (
            f"models: [{{model: m, revisoin: v1}}]\n{dims}",
            "1:21: models.0.revisoin: there is no such field; did you mean revision?",
        ),
        (
            f"{_MODELS}selection: [dims: [3]]\n",
            "1:1: selections: is missing",
            "2:1: selection: there is no such field; did you mean selections?",
        ),
    ):
        found = _problems(tmp_path, text)
        assert [p.startswith(e) for p, e in zip(found, expected, strict=True)] == [True] * len(
            found
        )


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SelectionError, match="no such file"):
        check_grid(tmp_path / "nowhere.yaml").valid()


def test_the_cost_counts_what_cells_share_once(tmp_path):
    (tmp_path / "d.txt").write_text("one\ntwo\nthree\n")
    text = (
        f"{_MODELS}selections: [each: 0-9]\ntasks: [{{data: d.txt, controls: 4}}]\nseeds: [0, 1]\n"
    )
    effort = effort_of(_cells(tmp_path, text))
    assert (effort.models, effort.cells) == (2, 40)
    assert effort.variants == 40 + 4 * (1 + 4)  # a baseline and the controls per model and seed
    assert effort.texts == 3 * effort.variants
