"""The JSON Schema of recipes, for editors: what each field is, and which go together."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from surgeon.outliers import DETECTORS
from surgeon.scoring.tasks import TASKS
from surgeon.surgery.expectation import GRADES, EvaluationSettings
from surgeon.surgery.fields import LARGEST, MOST
from surgeon.surgery.recipe import Recipe

_GRADES = "; ".join(f"{grade}: {meaning}" for grade, meaning in GRADES.items())

_ABOUT: dict[str, dict[str, str]] = {
    "Recipe": {
        "dims": "Edit these dimensions, counted from 0.",
        "remove_outliers": "Edit the N strongest outliers by the method.",
        "random": "Edit N dimensions drawn with the seed.",
        "seed": "For random.",
        "method": "What ranks the outliers.",
        "sigma": "Standard deviations beyond which a gain or bias is flagged.",
        "min_layers": "Layers that must flag an outlier: a count, or a share of all below 1.",
        "min_damage": "The least damage that makes an outlier, for a method that measures it.",
        "relax": "Take the N strongest, outliers or not.",
        "mode": "Set to zero, scale by the factor, or set to the mean of the vector.",
        "factor": "For mode scale.",
        "params": "Which of gain and bias to edit.",
        "layers": "Only these layers, counted from 0.",
        "sites": "Which norms: output (the last operation of a layer), attention, …; all.",
        "description": "What the operation is, for people.",
        "model": "The checkpoint that the dimensions were found on.",
        "evaluation": "How surgeon eval is to measure the operation.",
        "expect": "What that should show.",
    },
    "EvaluationSettings": {f.name: f.metadata["about"] for f in fields(EvaluationSettings)},
    "Expectation": {
        "verdict": "The verdict that surgeon eval should reach.",
        "published": "Figures that others have reported.",
    },
    "Published": {
        "what": "What was measured, and in which unit.",
        "grade": f"How well the figure is known. {_GRADES}.",
        "source": "Who reported it, and where.",
        "before": "Of the full model.",
        "after": "Of the edited model.",
        "within": "How far before and after may be off.",
        "dims": "The dimensions it is about, where they are not all of the recipe's.",
    },
}

_ONCE = {"minItems": 1, "uniqueItems": True}
_INDEXES = {**_ONCE, "items": {"type": "integer", "minimum": 0, "maximum": LARGEST}}
_COUNT = {"minimum": 1, "maximum": LARGEST}

_LIMITS: dict[str, dict[str, dict[str, Any]]] = {  # what the types of the fields do not say
    "Recipe": {
        "dims": _INDEXES,
        "remove_outliers": _COUNT,
        "random": _COUNT,
        "seed": {"minimum": 0, "maximum": MOST},
        "method": {"enum": sorted(DETECTORS)},
        "sigma": {"exclusiveMinimum": 0},
        "min_layers": {
            "anyOf": [
                {"exclusiveMinimum": 0, "exclusiveMaximum": 1},
                {"type": "integer", "minimum": 1},
            ]
        },
        "min_damage": {"minimum": 0},
        "params": _ONCE,
        "layers": _INDEXES,
        "sites": _ONCE,
    },
    "EvaluationSettings": {
        **{f.name: f.metadata["limits"] for f in fields(EvaluationSettings)},
        "task": {"enum": list(TASKS)},
    },
    "Published": {"what": {"pattern": r"\S"}, "source": {"pattern": r"\S"}, "dims": _INDEXES},
    "Expectation": {},
}


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a recipe's file."""
    import pydantic

    schema = pydantic.TypeAdapter(Recipe).json_schema()
    for name, part in (("Recipe", schema), *schema["$defs"].items()):
        part.pop("description", None)  # a docstring for programmers
        for field, about in part["properties"].items():
            _limit(about, _LIMITS[name].get(field, {}))
            about["description"] = _ABOUT[name][field]
    ways = ("dims", "remove_outliers", "random")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "surgeon recipe",
        "oneOf": [_given(way) for way in ways],
        "if": {"properties": {"mode": {"const": "scale"}}, "required": ["mode"]},
        "then": _given("factor"),
        "else": {"not": _given("factor")},
    }


def _limit(field: dict[str, Any], limits: dict[str, Any]) -> None:
    """Add limits to a field's schema, or to that of its value where it may be null."""
    values = [part for part in field.get("anyOf", [field]) if part.get("type") != "null"]
    values[0].update(limits)


def _given(field: str) -> dict[str, Any]:
    # A field that is null is not given: recipes show --json has every field.
    return {"required": [field], "properties": {field: {"not": {"type": "null"}}}}
