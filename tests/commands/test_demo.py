import json

import pytest

import surgeon.commands.demo as demo_module


@pytest.mark.slow  # it measures all that a person would wait for
def test_the_demo_finds_a_real_effect_by_measurement_and_none_by_the_criterion(tmp_path, done):
    printed = done("demo", "-o", tmp_path / "demo").out
    folders = {name: tmp_path / "demo" / name / "surgeon" for name in ("measured", "criterion")}
    records = {name: json.loads((f / "record.json").read_text()) for name, f in folders.items()}
    verdicts = {name: json.loads((f / "eval.json").read_text()) for name, f in folders.items()}
    assert records["measured"]["recipe"]["method"] == "ablation"
    assert records["measured"]["dims"] == [99, 157]
    assert records["measured"]["ranked_on"]["name"] == "built-in ranking sentences"
    assert verdicts["measured"]["verdict"] == "degraded"
    assert verdicts["measured"]["warnings"] == []
    assert records["criterion"]["dims"] == [267, 127]
    assert records["criterion"]["ranked_on"] is None
    assert verdicts["criterion"]["verdict"] == "intact"
    said = [printed.index(part) for part in ("surgeon patch", "degraded: ", "intact, no worse")]
    assert said == sorted(said)
    assert "Next" in printed


def test_the_demo_refuses_a_directory_with_something_in_it(tmp_path, refused):
    (tmp_path / "mine").write_text("")
    refused("demo", "-o", tmp_path, says="already exists")


def test_the_demo_says_which_extra_it_needs(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(demo_module, "_PACKAGE", "not_installed_here")
    refused("demo", "-o", tmp_path / "demo", says="pip install 'norm-surgeon[demo]'")
    assert list(tmp_path.iterdir()) == []


def test_without_a_name_the_demo_takes_a_new_directory_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "surgeon-demo").mkdir()
    assert demo_module._new_folder(None).name == "surgeon-demo-1"
