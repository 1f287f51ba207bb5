import json
from pathlib import Path

import pytest
from artifacts import copy_of, edit_record, record_files

import surgeon
from surgeon.cli import run


@pytest.fixture
def artifact(minilm_patched, tmp_path):
    """A copy, because eval writes into it."""
    return copy_of(minilm_patched, tmp_path / "artifact")


@pytest.fixture
def small(embedder_patched, tmp_path):
    """One of a tiny model, where no verdict is asked for."""
    return copy_of(embedder_patched, tmp_path / "small")


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.txt"
    path.write_text("\n".join(f"Sentence number {i} is about the weather." for i in range(8)))
    return str(path)


def _pairs(folder, sentences, columns="sentence1,sentence2,score"):
    """Write a table of eight pairs of sentences, each with a score."""
    rows = [f"{sentences(number)},{number % 4}" for number in range(8)]
    (folder / "pairs.csv").write_text("\n".join([columns, *rows]))
    return folder / "pairs.csv"


def test_eval_prints_what_it_writes(artifact, data, json_of):
    printed = json_of("eval", artifact, "--data", data, "--controls", "5")
    assert printed == json.loads((artifact / "surgeon" / "eval.json").read_text())
    assert (printed["verdict"], printed["dataset"]["name"]) == ("degraded", "data.txt")
    assert (printed["dataset"]["examples"], len(printed["controls"])) == (8, 5)


@pytest.mark.parametrize(("expect", "code"), [("degraded", 0), ("intact", 1)])
def test_the_table_shows_the_verdict_and_expect_makes_it_the_exit_code(
    artifact, data, capsys, expect, code
):
    arguments = ["eval", str(artifact), "--data", data, "--controls", "5"]
    assert run([*arguments, "--expect", expect]) == code
    captured = capsys.readouterr()
    assert ("the verdict is degraded" in captured.err) == (code == 1)
    rows = ("baseline", "patched", "mean of 5 controls", "least of them", "most of them")
    assert all(word in captured.out for word in (*rows, "degraded: ", "95% interval"))


def test_eval_scores_the_task_that_is_asked_for_on_the_columns_that_are_named(
    artifact, tmp_path, json_of
):
    data = _pairs(tmp_path, lambda n: f"Rain {n} is near.,A {n % 3} cat.", "one,two,rating")
    columns = ["--text-column", "one", "--pair-column", "two", "--label-column", "rating"]
    options = ["--task", "sts", "--data", data, *columns, "--controls", "1"]
    printed = json_of("eval", artifact, *options)
    assert (printed["task"], printed["metric"]) == ("sts", "1 − Spearman")
    assert printed["baseline"]["value"] == pytest.approx(1 - printed["baseline"]["Spearman"])
    assert printed["dataset"]["examples"] == 8


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
        (["--task", "glue/mnli"], "for drift does; leave it out, or give one of drift, sts"),
        (["--task", "sts"], "sts takes labelled rows"),
        (["--stride", "5"], "--stride 5: the task drift does not use it"),
        (["--label-column", "x"], "--label-column x: the task drift does not use it"),
        (["--masking", "some"], "--masking"),
        (["--task", "sts", "--data", "PAIRS", "--until-certain"], "score of the whole set"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(
    minilm_patched, tmp_path, refused, options, complaint
):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("A dog.,A cat.,1.5\nA man.,A boy.,4\n")
    options = [pairs if option == "PAIRS" else option for option in options]
    refused("eval", minilm_patched, *options, says=complaint)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\x00"])
def test_data_without_text_is_refused(minilm_patched, tmp_path, refused, content):
    (tmp_path / "d.txt").write_bytes(content)
    refused("eval", minilm_patched, "--data", tmp_path / "d.txt", says="d.txt")


def test_what_is_no_artifact_with_a_graph_is_refused(minilm, tiny_patched, refused):
    refused("eval", minilm, says="is no artifact; make one with surgeon patch")
    refused("eval", tiny_patched, says="--no-onnx")


@pytest.mark.parametrize("record", ["{", "[]", '{"schema": 99}', '{"schema": 1}'])
def test_a_damaged_record_is_refused(tmp_path, refused, record):
    (tmp_path / "surgeon").mkdir()
    (tmp_path / "surgeon" / "record.json").write_text(record)
    refused("eval", tmp_path, says="record.json")


def _with_recipe(artifact, **fields):
    """Let an artifact's record say more of its recipe."""
    edit_record(artifact, lambda record: record["recipe"].update(fields))


@pytest.mark.parametrize(
    ("verdict", "told", "code"),
    [
        ("degraded", "degraded: as its recipe expects.", 0),
        ("intact", "degraded: its recipe expects intact.", 1),
    ],
)
def test_eval_says_whether_the_verdict_is_what_the_recipe_expects(
    artifact, data, done, verdict, told, code
):
    _with_recipe(artifact, expect={"verdict": verdict, "published": []})
    arguments = ["eval", str(artifact), "--data", data, "--controls", "5"]
    assert told in done(*arguments).out
    assert run([*arguments, "--expect", "recipe"]) == code
    assert json.loads((artifact / "surgeon" / "eval.json").read_text())["expected"] == verdict


@pytest.mark.parametrize(
    "fields", [{}, {"evaluation": {"task": "mlm"}, "expect": {"verdict": "degraded"}}]
)
def test_a_recipe_that_expects_nothing_of_the_task_cannot_be_what_is_expected(
    small, data, capsys, fields
):
    _with_recipe(small, **fields)
    options = ["--data", data, "--controls", "5", "--expect", "recipe"]
    assert run(["eval", str(small), *options]) == 2
    captured = capsys.readouterr()
    assert "expects no verdict" in captured.err
    assert bool(captured.out) == bool(fields)  # what is known beforehand is not measured


def test_the_command_and_python_measure_as_the_recipe_says_where_nothing_says_otherwise(
    small, data, tmp_path, json_of
):
    other = tmp_path / "other.txt"
    other.write_text("One text.\nAnother text.\nA third one.\n")
    settings = {"task": "drift", "data": str(other), "controls": 5, "seed": 3, "dose": True}
    _with_recipe(small, evaluation=settings)
    asked = json_of("eval", small)
    assert asked["dataset"]["examples"] == 3
    assert (len(asked["controls"]), asked["seed"], len(asked["dose"])) == (5, 3, 2)
    assert asked == json.loads(json.dumps(surgeon.evaluate(small).to_json()))
    otherwise = json_of("eval", small, "--data", data, "--controls", "6")
    assert otherwise["dataset"]["examples"] == 8
    assert (len(otherwise["controls"]), otherwise["seed"]) == (6, 3)
    result = surgeon.evaluate(small, seed=0)
    assert (result.seed, len(result.dose)) == (0, 2)
    result = surgeon.evaluate(small, dose=False)
    assert (result.seed, len(result.dose)) == (3, 0)
    _with_recipe(small, evaluation={**settings, "task": "mlm"})  # about another task
    assert surgeon.evaluate(small, texts=Path(data), controls=1).seed == 0


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
    with pytest.raises(surgeon.SurgeonError, match=r"`texts`: give .*; found list of int, str"):
        surgeon.evaluate(str(artifact), texts=["one", 2])
    assert repr(surgeon.verify(str(artifact))).endswith(": 0 of 21 checks failed>")
    surgeon.write_report(str(artifact), str(tmp_path / "report.html"))
    surgeon.restore(str(artifact), str(tmp_path / "source"))
    checkpoint = surgeon.open_checkpoint(str(tmp_path / "source"))
    ranking = surgeon.rank_by_layernorm(checkpoint)
    assert repr(ranking) == "<Ranking of source by layernorm: outliers none>"
    assert list(ranking.to_frame().index[:2]) == [267, 127]
    small = tmp_path / "edit.surgeon"
    surgeon.write_small_patch(surgeon.make_plan(checkpoint, surgeon.Recipe(dims=(5,))), str(small))
    plan = surgeon.plan_from_small_patch(str(small), checkpoint)
    assert repr(plan) == "<Plan of source: dimensions 5>"
    assert repr(plan.checkpoint) == "<Checkpoint source: 22,713,216 parameters>"
    record = surgeon.write_artifact(plan, str(tmp_path / "again"), onnx=False)
    assert repr(record) == "<Record of source: dimensions 5>"
    for wrong, says in (({"mode": "zeros"}, "mean zero"), ({"params": ("weight",)}, "gain, bias")):
        with pytest.raises(surgeon.SurgeonError, match=says):
            surgeon.Recipe(dims=(5,), **wrong)


def test_several_tasks_are_scored_in_turn_and_each_is_kept(artifact, tmp_path, json_of):
    data = _pairs(tmp_path, lambda n: f"Sentence {n} is about the town.,And {n % 3} about it.")
    asked = ["--task", "sts", "--task", "drift", "--data", str(data), "--controls", "1"]
    printed = json_of("eval", artifact, *asked, "--text-column", "sentence1")["evaluations"]
    assert [evaluation["task"] for evaluation in printed] == ["sts", "drift"]
    assert {e.task for e in surgeon.read_evaluations(artifact)} == {"sts", "drift"}
    assert json.loads((artifact / "surgeon" / "eval.json").read_text()) == printed[1]
    assert run(["eval", str(artifact), *asked, "--expect", "intact"]) == 1
    (artifact / "surgeon" / "eval.json").unlink()
    assert run(["eval", str(artifact), *asked, "--task", "nope"]) == 2
    assert not (artifact / "surgeon" / "eval.json").exists()


def test_eval_says_where_a_sentence_is_cut_and_how_its_tokens_are_pooled(
    artifact, tmp_path, json_of
):
    data = _pairs(tmp_path, lambda n: f"One sentence {n} of the weather in town.,And {n % 3} more.")
    limits = artifact / "sentence_bert_config.json"
    limits.write_text('{"max_seq_length": 8}')

    def notes():
        record_files(artifact)
        asked = ["--task", "sts", "--data", data, "--controls", "1"]
        return json_of("eval", artifact, *asked)["warnings"]

    newer = notes()
    assert "8 texts were cut to 8 tokens" in newer
    limits.rename(artifact / "sentence_roberta_config.json")
    assert notes() == newer
    (artifact / "modules.json").unlink()
    (pooled,) = (note for note in notes() if "modules.json" in note)
    assert pooled.endswith("a sentence is embedded by the mean of its tokens")
