import json
from dataclasses import replace

import pytest
from pictures import assert_legible
from ranking.conftest import PLANTED

from surgeon import Options, compare_detectors, open_checkpoint, plot_agreement
from surgeon.cli import run
from surgeon.console import show_agreement
from surgeon.ranking import DETECTORS


@pytest.fixture(scope="module")
def agreement(planted):
    folder, texts = planted
    return compare_detectors(open_checkpoint(folder), Options(texts=texts))


def test_detectors_that_find_the_same_share_it_and_capture_all(agreement):
    assert [standing.method for standing in agreement.standings] == list(DETECTORS)
    assert len(repr(agreement)) < 200
    for standing in agreement.standings:
        assert set(standing.first[:2]) == set(PLANTED)
        assert standing.captured == pytest.approx(1.0)
        assert agreement.overlap[standing.method] == dict.fromkeys(DETECTORS, 2)


def test_half_of_the_lines_rank_and_the_other_half_measures(agreement, planted):
    _, texts = planted
    assert agreement.measured.texts == "every other line of texts.txt"
    assert agreement.examples == len(set(texts.lines[1::2]))
    assert agreement.held_out == "the other lines of texts.txt"


def test_the_table_says_what_each_method_is_and_whose(agreement, capsys):
    show_agreement(agreement, json=False)
    lines = capsys.readouterr().out.splitlines()
    for name, detector in DETECTORS.items():
        assert f"{name}: {detector.summary} ({detector.source})" in lines


def test_the_methods_are_drawn_with_their_labels_whole(agreement):
    figure = plot_agreement(agreement)
    assert_legible(figure, least=20)
    assert {
        f"{name}: {', '.join(map(str, s.first[:2]))}"
        for name, s in zip(DETECTORS, agreement.standings, strict=True)
    } <= {text.get_text() for text in figure.axes[0].get_yticklabels()}


def test_where_no_damage_is_beyond_chance_there_is_nothing_to_capture(planted):
    folder, texts = planted
    agreement = compare_detectors(open_checkpoint(folder), Options(texts=texts, min_damage=100.0))
    assert {standing.captured for standing in agreement.standings} == {None}
    assert len(plot_agreement(agreement).axes) == 1  # the damage


def test_what_does_less_than_nothing_captures_nothing(agreement):
    worse = replace(agreement.standings[0], captured=-0.18)
    figure = plot_agreement(replace(agreement, standings=(worse, *agreement.standings[1:])))
    assert_legible(figure, least=20)
    assert "0%" in {text.get_text() for text in figure.axes[1].texts}


def test_scan_compare_prints_a_table_and_one_json_document(planted, capsys, refused):
    folder, _ = planted
    command = ["scan", str(folder), "--compare", "--data", str(folder / "texts.txt")]
    assert run([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [s["method"] for s in document["standings"]] == list(DETECTORS)
    assert set(document["standings"][-1]["outliers"]) == set(PLANTED)
    assert run(command) == 0
    table = capsys.readouterr().out
    assert all(f"│ {method}" in table for method in DETECTORS)
    assert "100%" in table
    refused(*command, "--method", "ablation", says="--compare")
