import math

import pytest
from ranking.conftest import PLANTED

from surgeon import Options, Recipe, Texts, make_plan, open_checkpoint, rank_dimensions
from surgeon.errors import EvaluationError, SelectionError
from surgeon.ranking import DETECTORS


def _options(method, texts, **others):
    return Options(texts=texts if DETECTORS[method].needs_model else None, **others)


@pytest.mark.parametrize("method", DETECTORS)
def test_every_detector_finds_the_planted_dimensions_and_no_other(planted, method):
    folder, texts = planted
    ranking = rank_dimensions(open_checkpoint(folder), method, _options(method, texts))
    assert set(ranking.outliers) == set(PLANTED)
    assert {dimension.dim for dimension in ranking.dimensions[:2]} == set(PLANTED)


@pytest.mark.parametrize("method", DETECTORS)
def test_a_ranking_holds_every_dimension_once_strongest_first(planted, method):
    folder, texts = planted
    ranking = rank_dimensions(open_checkpoint(folder), method, _options(method, texts))
    keys = [(-d.score, -d.strength) for d in ranking.dimensions]
    assert keys == sorted(keys)
    assert sorted(d.dim for d in ranking.dimensions) == list(range(64))
    assert ranking.method == method
    ordered = [d.dim for d in ranking.dimensions if d.dim in ranking.outliers]
    assert tuple(ordered) == ranking.outliers


def test_what_read_text_says_which(planted):
    folder, texts = planted
    checkpoint = open_checkpoint(folder)
    for method, detector in DETECTORS.items():
        ranking = rank_dimensions(checkpoint, method, _options(method, texts))
        assert ranking.text == (texts.used() if detector.needs_model else None)


def test_the_texts_that_rank_may_be_strings_or_a_file(planted, tmp_path):
    folder, texts = planted
    (tmp_path / "t.txt").write_text("\n".join(texts.lines))
    checkpoint, recipe = open_checkpoint(folder), Recipe(remove_outliers=2, method="activations")
    for given in (texts.lines, tmp_path / "t.txt", str(tmp_path / "t.txt")):
        plan = make_plan(checkpoint, recipe, texts=given)
        assert set(plan.dims) == set(PLANTED)
        assert plan.ranked_on.lines == texts.used().lines
    with pytest.raises(EvaluationError, match="`texts`: give a list of strings"):
        Texts.of("One text.")


def test_the_weights_of_few_layers_are_weak_evidence_and_a_measurement_is_not(planted):
    folder, texts = planted
    checkpoint = open_checkpoint(folder)
    assert "4 layers" in rank_dimensions(checkpoint).weak
    strict = rank_dimensions(checkpoint, options=Options(sigma=50))
    assert "no dimension meets the criterion" in strict.weak
    assert rank_dimensions(checkpoint, "activations", Options(texts=texts)).weak is None


@pytest.mark.parametrize(
    ("method", "setting", "complaint"),
    [
        ("layernorm", {"exhaustive": True}, "`exhaustive`"),
        ("layernorm", {"min_damage": 0.2}, "`min_damage`"),
        ("activations", {"sigma": 2.0}, "`sigma`"),
        ("ablation", {"min_layers": 2}, "`min_layers`"),
        ("ablation", {"min_damage": math.nan}, "`min_damage`"),
        ("ablation", {"min_damage": -0.1}, "`min_damage`"),
        ("ablation", {"min_damage": "0.1"}, "`min_damage`: give a number"),
        ("ablation", {"count": 2.0}, "`count`: give a whole number; found 2.0"),
        ("ablation", {"seed": -1}, "`seed`: give a number of 0 or more"),
        ("ablation", {"dims": [3]}, "`dims`: there is no such field"),
        ("votes", {}, "`method` votes: there is layernorm, layernorm-count"),
    ],
)
def test_a_setting_that_a_method_would_ignore_is_refused(planted, method, setting, complaint):
    folder, _ = planted
    with pytest.raises(SelectionError, match=complaint):
        rank_dimensions(open_checkpoint(folder), method, Options(**setting))


def test_text_for_a_method_that_reads_none_is_refused(planted):
    folder, texts = planted
    with pytest.raises(SelectionError, match="`texts`"):
        rank_dimensions(open_checkpoint(folder), "layernorm", Options(texts=texts))


@pytest.mark.parametrize("method", ["activations", "ablation"])
def test_text_that_the_tokenizer_does_not_know_is_refused(antiberty, method):
    with pytest.raises(EvaluationError, match=r"unknown to the tokenizer.*`texts` FILE"):
        rank_dimensions(open_checkpoint(antiberty), method)


@pytest.mark.parametrize("method", ["activations", "ablation"])
def test_a_model_without_a_tokenizer_is_an_error_that_says_what_to_do(tiny, method):
    with pytest.raises(EvaluationError, match=r"tokenizer.*`method` layernorm"):
        rank_dimensions(open_checkpoint(tiny("bert")), method)
