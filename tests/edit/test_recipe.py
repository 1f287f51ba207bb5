import json

import numpy as np
import pytest

from surgeon import Recipe, load_recipe
from surgeon.edit.recipe import (
    EvaluationSettings,
    Expectation,
    Published,
    parse_numbers,
    recipe_from_json,
)
from surgeon.errors import SelectionError


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({}, "exactly one way"),
        ({"dims": (1,), "random": 2}, "exactly one way"),
        ({"dims": ()}, "^`dims`: give one entry or more"),
        ({"dims": (3, 3)}, "^`dims`: name each once"),
        ({"dims": (3,), "colour": 1}, "^`colour`: there is no such field"),
        ({"remove_outliers": 0}, "^`remove_outliers`: give a number of 1 or more; found 0"),
        ({"random": -1}, "^`random`"),
        ({"random": 1, "seed": -1}, "^`seed`"),
        ({"dims": (1,), "mode": "scale"}, "`mode` scale and `factor` go together"),
        ({"dims": (1,), "factor": 2.0}, "`mode` scale and `factor` go together"),
        ({"dims": (1,), "params": ()}, "^`params`"),
        ({"dims": (1,), "layers": ()}, "^`layers`"),
        *(
            ({"dims": (1,), "evaluation": {"mask_rate": rate}}, r"^`evaluation\.mask_rate`: give a")
            for rate in (0.0, 1.0, 2, float("nan"), "0.3", True)
        ),
    ],
)
def test_fields_that_are_wrong_are_refused_by_name(fields, complaint):
    with pytest.raises(SelectionError, match=complaint) as caught:
        Recipe(**fields)
    assert "--" not in str(caught.value)  # which is for the command line alone


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(dims=(5, 3), mode="scale", factor=0.5, layers=(0, 2), params=("bias",)),
        Recipe(
            random=2,
            evaluation=EvaluationSettings(task="mlm", controls=5),
            expect=Expectation(
                verdict="intact",
                published=(
                    Published(what="loss", grade="N", source="notes", before=2.3, after=4.53),
                ),
            ),
        ),
    ],
)
def test_a_recipe_survives_json(recipe):
    assert recipe_from_json(json.loads(json.dumps(recipe.to_json())), "test") == recipe


@pytest.mark.parametrize(
    ("recipe", "summary"),
    [
        (Recipe(dims=(3, 9)), "dims 3,9: zero"),
        (Recipe(random=2, mode="scale", factor=0.5), "2 random dims: scale by 0.5"),
        (
            Recipe(remove_outliers=2, params=("gain",), sites=("attention",), layers=(0, 1)),
            "2 strongest by ablation: zero, gains alone, attention, layers 0,1",
        ),
    ],
)
def test_a_summary_says_all_that_is_not_the_default(recipe, summary):
    assert recipe.summary == summary


@pytest.mark.parametrize(
    "fields", [{"dims": "x"}, {"dims": [1], "colour": 1}, {"dims": [1], "mode": "cut"}, [1], None]
)
def test_fields_of_another_kind_are_refused_by_name(fields):
    with pytest.raises(SelectionError, match=r"^file\.yaml: "):
        recipe_from_json(fields, "file.yaml")


def test_numpy_s_whole_numbers_are_whole_numbers():
    recipe = Recipe(dims=np.array([9, 3]), layers=[np.int8(2)], seed=np.uint64(7))
    plain = Recipe(dims=(9, 3), layers=(2,), seed=7)
    assert json.dumps(recipe.to_json()) == json.dumps(plain.to_json())
    assert repr(recipe) == "Recipe(dims=(9, 3), seed=7, layers=(2,))"


def test_an_unknown_recipe_is_answered_with_those_of_a_similar_name():
    with pytest.raises(SelectionError, match="near it are bert-base-uncased,"):
        load_recipe("bert-base-uncase")
    with pytest.raises(SelectionError, match=r"surgeon recipes lists$"):
        load_recipe("§")


@pytest.mark.parametrize(
    ("text", "numbers"), [("308,381", (308, 381)), ("0-2, 11", (0, 1, 2, 11)), ("5-5", (5,))]
)
def test_lists_of_numbers_and_ranges_are_parsed(text, numbers):
    assert parse_numbers(text) == numbers


@pytest.mark.parametrize(
    "text", ["", "a", "1,,2", "-1", "5-3", "1-2-3", "1.5", "0-99999999999", "0-999999999", "²"]
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match=r"give numbers|beyond any|below its start|has more than"):
        parse_numbers(text)
