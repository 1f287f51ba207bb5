import json

import pytest

from surgeon.cli import run
from surgeon.edit.recipe_file import shipped_recipes


def test_the_list_has_every_recipe_that_ships(done, json_of):
    table = done("recipes").out
    assert done("recipes", "list").out == table
    listed = json_of("recipes")["recipes"]
    assert [recipe["name"] for recipe in listed] == list(shipped_recipes())
    assert all(f" {name} " in table for name in shipped_recipes())


def test_show_prints_the_file_as_it_is_and_json_every_field(done, json_of):
    assert done("recipes", "show", "bert-large").out == shipped_recipes()["bert-large"].read_text()
    shown = json_of("recipes", "show", "bert-large")
    assert shown["dims"] == [136, 466, 933]
    assert shown["mode"] == "zero"
    assert shown["expect"]["published"][0]["grade"] == "F"


def test_check_tells_every_error_of_every_file_in_one_line_each(tmp_path, capsys):
    good, bad, worse = (tmp_path / f"{name}.yaml" for name in ("good", "bad", "worse"))
    good.write_text("dims: [3]\n")
    bad.write_text("dims: [3]\nmode: cut\ncolour: red\n")
    worse.write_text("dims: [\n")
    assert run(["recipes", "check", *map(str, (good, bad, worse))]) == 2
    captured = capsys.readouterr()
    assert captured.out == f"{good}: a valid recipe\n"
    places = [line.split(": ")[1] for line in captured.err.splitlines()]
    assert places == [f"{bad}:2:7", f"{bad}:3:1", f"{worse}:2:1"]


def test_check_as_json_is_one_document_and_right_recipes_exit_with_0(tmp_path, capsys, done):
    path = tmp_path / "r.yaml"
    path.write_text("dims: [3]\ncolour: red\n")
    assert run(["recipes", "check", str(path), "--json"]) == 2
    (file,) = json.loads(capsys.readouterr().out)["files"]
    assert not file["valid"]
    assert [(error["line"], error["column"]) for error in file["errors"]] == [(2, 1)]
    done("recipes", "check", *shipped_recipes().values())


def test_the_schema_is_one_json_document(done):
    assert "expect" in json.loads(done("recipes", "schema").out)["properties"]


@pytest.mark.parametrize("command", ["show", "check"])
def test_a_recipe_that_is_not_there_is_one_line_and_exit_code_2(refused, command):
    refused("recipes", command, "nowhere.yaml", says="nowhere.yaml")


def test_a_recipe_by_name_patches_and_says_in_the_record_what_it_expects(minilm, tmp_path, json_of):
    out, name = tmp_path / "out", "all-minilm-l6-v2-measured"
    record = json_of("patch", minilm, "--recipe", name, "--no-onnx", "-o", out)
    assert record["recipe"]["expect"]["verdict"] == "degraded"
    assert "verdict: degraded" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("recipe", "doubted"),
    [("bert-base-uncased", True), ("all-minilm-l6-v2-measured", False), ("random-pair", False)],
)
def test_dims_of_another_model_are_doubted_in_a_line(minilm, tmp_path, done, recipe, doubted):
    model = tmp_path / "All-MiniLM_L6-v2"
    model.symlink_to(minilm)
    told = "Note: the recipe's dims are those of bert-base-uncased, and no name of this model"
    assert (told in done("patch", model, "--recipe", recipe, "--dry-run").err) == doubted
