import json
import shutil
from pathlib import Path

import pytest
from artifacts import write_record

import surgeon
from surgeon.cli import run


@pytest.fixture
def artifact(minilm_patched, tmp_path):
    """A copy, because eval writes into it."""
    return shutil.copytree(minilm_patched, tmp_path / "artifact")


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.txt"
    path.write_text("\n".join(f"Sentence number {i} is about the weather." for i in range(8)))
    return str(path)


def test_eval_prints_what_it_writes(artifact, data, capsys):
    assert run(["eval", str(artifact), "--data", data, "--controls", "5", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((artifact / "surgeon" / "eval.json").read_text())
    assert printed["verdict"] == "degraded"
    assert printed["dataset"]["name"] == "data.txt"
    assert printed["dataset"]["examples"] == 8
    assert len(printed["controls"]) == 5


def test_eval_s_table_and_verdict_can_be_read_at_a_glance(artifact, data, capsys):
    assert run(["eval", str(artifact), "--data", data, "--controls", "5"]) == 0
    text = capsys.readouterr().out
    for word in (
        "baseline",
        "patched",
        "mean of 5 controls",
        "least of them",
        "most of them",
        "degraded: ",
        "95% interval",
    ):
        assert word in text


def test_eval_scores_the_task_that_is_asked_for_on_the_columns_that_are_named(
    artifact, tmp_path, capsys
):
    lines = [f"Sentence {n} is about the weather.;A {n % 3} cat.;{n % 4}" for n in range(8)]
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(["one,two,rating", *(line.replace(";", ",") for line in lines)]))
    columns = ["--text-column", "one", "--pair-column", "two", "--label-column", "rating"]
    arguments = ["eval", str(artifact), "--task", "sts", "--data", str(path), *columns]
    assert run([*arguments, "--controls", "1", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["task"], printed["metric"]) == ("sts", "1 − Spearman")
    assert printed["baseline"]["value"] == pytest.approx(1 - printed["baseline"]["Spearman"])
    assert printed["dataset"]["examples"] == 8


@pytest.mark.parametrize(("expect", "code"), [("degraded", 0), ("intact", 1)])
def test_expect_turns_the_verdict_into_the_exit_code(artifact, data, capsys, expect, code):
    arguments = ["eval", str(artifact), "--data", data, "--controls", "5"]
    assert run([*arguments, "--expect", expect]) == code
    assert ("the verdict is degraded" in capsys.readouterr().err) == (code == 1)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--provider", "cuda"], "use --provider cpu"),
        (["--provider", "tpu"], "--provider"),
        (["--data", "nowhere.txt"], "no such file"),
        (["--data", "."], "is a folder"),
        (["--task", "sts", "--data", "/"], "is a folder"),
        (["--controls", "0"], "--controls: give a number of 1 or more; found 0"),
        (["--expect", "fine"], "--expect"),
        (["--task", "nope"], "--task: there is mlm, clm, "),
        (["--task", "glue/mnli"], "for drift does; leave it out, or choose of drift, sts"),
        (["--task", "sts"], "sts takes labelled rows"),
        (["--stride", "5"], "--stride 5: the task drift does not use it"),
        (["--label-column", "x"], "--label-column x: the task drift does not use it"),
        (["--masking", "some"], "--masking"),
        (["--task", "sts", "--data", "x.csv", "--until-certain"], "score of the whole set"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(artifact, capsys, options, complaint):
    assert run(["eval", str(artifact), *options]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert complaint in captured.err


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\x00"])
def test_data_without_text_is_refused(artifact, tmp_path, capsys, content):
    (tmp_path / "d.txt").write_bytes(content)
    assert run(["eval", str(artifact), "--data", str(tmp_path / "d.txt")]) == 2
    assert "d.txt" in capsys.readouterr().err


def test_a_model_that_is_no_artifact_is_refused(minilm, capsys):
    assert run(["eval", str(minilm)]) == 2
    assert "is no artifact; make one with surgeon patch" in capsys.readouterr().err


def test_an_artifact_without_onnx_is_refused(tiny, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert run(["patch", str(tiny("bert")), "--dims", "3", "--no-onnx", "-o", out]) == 0
    assert run(["eval", out]) == 2
    assert "--no-onnx" in capsys.readouterr().err


@pytest.mark.parametrize("record", ["{", "[]", '{"schema": 99}', '{"schema": 1}'])
def test_a_damaged_record_is_refused(tmp_path, capsys, record):
    (tmp_path / "surgeon").mkdir()
    (tmp_path / "surgeon" / "record.json").write_text(record)
    assert run(["eval", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def _with_recipe(artifact, **fields):
    """Let an artifact's record say more of its recipe."""
    path = artifact / "surgeon" / "record.json"
    record = json.loads(path.read_text())
    record["recipe"].update(fields)
    write_record(artifact, record)


@pytest.mark.parametrize(
    ("verdict", "told", "code"),
    [
        ("degraded", "degraded: as its recipe expects.", 0),
        ("intact", "degraded: its recipe expects intact.", 1),
    ],
)
def test_eval_says_whether_the_verdict_is_what_the_recipe_expects(
    artifact, data, capsys, verdict, told, code
):
    _with_recipe(artifact, expect={"verdict": verdict, "published": []})
    arguments = ["eval", str(artifact), "--data", data, "--controls", "5"]
    assert run(arguments) == 0
    assert told in capsys.readouterr().out
    assert run([*arguments, "--expect", "recipe"]) == code
    assert json.loads((artifact / "surgeon" / "eval.json").read_text())["expected"] == verdict


@pytest.mark.parametrize(
    "fields", [{}, {"evaluation": {"task": "mlm"}, "expect": {"verdict": "degraded"}}]
)
def test_a_recipe_that_expects_nothing_of_the_task_cannot_be_what_is_expected(
    artifact, data, capsys, fields
):
    _with_recipe(artifact, **fields)
    arguments = ["eval", str(artifact), "--data", data, "--controls", "5"]
    assert run([*arguments, "--expect", "recipe"]) == 2
    assert "the recipe expects no verdict of drift" in capsys.readouterr().err


def test_eval_measures_as_the_recipe_says_where_no_option_says_otherwise(
    artifact, data, tmp_path, capsys
):
    other = tmp_path / "other.txt"
    other.write_text("One text.\nAnother text.\nA third one.\n")
    settings = {"task": "drift", "data": str(other), "controls": 5, "seed": 3, "dose": True}
    _with_recipe(artifact, evaluation=settings)
    assert run(["eval", str(artifact), "--json"]) == 0
    asked = json.loads(capsys.readouterr().out)
    assert asked["dataset"]["examples"] == 3
    assert (len(asked["controls"]), asked["seed"], len(asked["dose"])) == (5, 3, 2)
    assert run(["eval", str(artifact), "--data", data, "--controls", "6", "--json"]) == 0
    otherwise = json.loads(capsys.readouterr().out)
    assert otherwise["dataset"]["examples"] == 8
    assert (len(otherwise["controls"]), otherwise["seed"]) == (6, 3)


def test_python_s_evaluate_measures_as_the_command_does(artifact, data, capsys):
    settings = {"task": "drift", "data": data, "controls": 5, "seed": 3, "dose": True}
    _with_recipe(artifact, evaluation=settings)
    assert run(["eval", str(artifact), "--json"]) == 0
    by_python = json.loads(json.dumps(surgeon.evaluate(artifact).to_json()))
    assert by_python == json.loads(capsys.readouterr().out)
    _with_recipe(artifact, evaluation={**settings, "task": "mlm"})  # about another task
    texts = Path(data)
    assert surgeon.evaluate(artifact, texts=texts, controls=1).seed == 0
    for arguments in ({"seed": 0}, {"dose": False}):
        _with_recipe(artifact, evaluation=settings)
        result = surgeon.evaluate(artifact, **arguments)
        assert (result.seed, len(result.dose)) == ((0, 2) if "seed" in arguments else (3, 0))


def test_python_takes_plain_strings_and_shows_results_as_people_read_them(artifact, tmp_path):
    texts = [f"Sentence number {i} is about the weather." for i in range(8)]
    evaluation = surgeon.evaluate(str(artifact), texts=texts, controls=1)
    assert evaluation.dataset.examples == 8
    surgeon.save_evaluation(evaluation, str(artifact))
    assert surgeon.read_evaluation(str(artifact)) == evaluation
    assert repr(evaluation).startswith("<Evaluation of model: inconclusive, drift 0 → 0.")
    frame = evaluation.to_frame()
    assert list(frame["variant"]) == ["baseline", "patched", "control"]
    assert frame["drift"][1] == evaluation.patched.value
    assert "<table" in evaluation._repr_html_()
    with pytest.raises(surgeon.SurgeonError, match="give strings, one for each text; found int"):
        surgeon.evaluate(str(artifact), texts=["one", 2])
    assert surgeon.verify(str(artifact)).passed
    surgeon.write_report(str(artifact), str(tmp_path / "report.html"))
    surgeon.restore(str(artifact), str(tmp_path / "source"))
    checkpoint = surgeon.open_checkpoint(str(tmp_path / "source"))
    ranking = surgeon.rank_by_layernorm(checkpoint)
    assert repr(ranking) == "<Ranking of source by layernorm: outliers none>"
    assert list(ranking.to_frame().index[:2]) == [267, 127]
    small = tmp_path / "edit.surgeon"
    surgeon.write_small_patch(surgeon.make_plan(checkpoint, surgeon.Recipe(dims=(5,))), str(small))
    plan = surgeon.plan_from_small_patch(str(small), checkpoint)
    surgeon.write_artifact(plan, str(tmp_path / "again"), onnx=False)
    with pytest.raises(surgeon.SurgeonError, match="did you mean zero"):
        surgeon.Recipe(dims=(5,), mode="zeros")


def test_several_tasks_are_scored_in_turn_and_each_is_kept(artifact, tmp_path, capsys):
    data = tmp_path / "pairs.csv"
    rows = [f"Sentence {n} is about the town.,And {n % 3} about it.,{n % 4}" for n in range(8)]
    data.write_text("\n".join(["sentence1,sentence2,score", *rows]))
    asked = ["--task", "sts", "--task", "drift", "--data", str(data), "--controls", "1"]
    assert run(["eval", str(artifact), *asked, "--text-column", "sentence1", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)["evaluations"]
    assert [evaluation["task"] for evaluation in printed] == ["sts", "drift"]
    assert {e.task for e in surgeon.read_evaluations(artifact)} == {"sts", "drift"}
    assert json.loads((artifact / "surgeon" / "eval.json").read_text()) == printed[1]
    assert run(["eval", str(artifact), *asked, "--expect", "intact"]) == 1


def test_eval_says_where_a_sentence_is_cut_and_how_its_tokens_are_pooled(
    artifact, tmp_path, capsys
):
    lines = [
        f"One sentence {n} about the weather in town.,And another {n % 3}.,{n % 4}\n"
        for n in range(8)
    ]
    (tmp_path / "pairs.csv").write_text("sentence1,sentence2,score\n" + "".join(lines))
    limits = artifact / "sentence_bert_config.json"
    limits.write_text(json.dumps({"max_seq_length": 8}))

    def notes():
        data = str(tmp_path / "pairs.csv")
        arguments = ["eval", str(artifact), "--task", "sts", "--data", data, "--controls", "1"]
        assert run([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)["warnings"]

    newer = notes()
    assert "8 texts were cut to 8 tokens" in newer
    limits.rename(artifact / "sentence_roberta_config.json")
    assert notes() == newer
    (artifact / "modules.json").unlink()
    (pooled,) = (note for note in notes() if "modules.json" in note)
    assert pooled.endswith("a sentence is embedded by the mean of its tokens")
