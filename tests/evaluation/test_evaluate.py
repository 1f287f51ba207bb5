import dataclasses
import json
import math
import shutil
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from antibodies import antibodies
from artifacts import cached, copy_of, edit_record, edit_tensors, patch, texts_of
from families import save_family
from task_models import save_model

from surgeon import evaluate, open_checkpoint, read_evaluation
from surgeon import save_evaluation as save
from surgeon.errors import EvaluationError, SurgeonError
from surgeon.evaluation.artifact import Artifact, draw_controls, open_artifact
from surgeon.evaluation.blocks import compare_in_blocks
from surgeon.evaluation.notes import collapse_of, doubts_about, explain, explain_cost, name_verdict
from surgeon.evaluation.quantized import FilePerVariant
from surgeon.evaluation.result import Score
from surgeon.evaluation.session import open_session
from surgeon.evaluation.verdict import Effect, Evidence, find, weigh, why_unskilled
from surgeon.evaluation.workload import choose_metric
from surgeon.tasks.examples import Example, batch_examples
from surgeon.tasks.registry import TASKS
from surgeon.tasks.statistics import ALPHA, EARLY, paired_interval
from surgeon.tasks.task import BASELINE, Settings, Variant
from surgeon.text import Texts, built_in_sample


@pytest.fixture(scope="module")
def few():
    """A tenth of the built-in sample."""
    return texts_of(built_in_sample().lines[::10])


@pytest.fixture(scope="module")
def result(embedder_patched, few):
    """What a tiny model without two of its dimensions scores, with three controls."""
    return evaluate(embedder_patched, texts=few, controls=3)


@pytest.fixture(scope="module")
def of_seven(minilm_patched):
    """MiniLM's evaluation on seven texts."""
    return evaluate(minilm_patched, texts=texts_of(built_in_sample().lines[:7]), controls=5)


def test_removing_the_dims_that_matter_degrades_minilm(minilm_patched, few):
    result = evaluate(minilm_patched, texts=few)
    assert (result.verdict, result.task) == ("degraded", "drift")
    assert result.ci95[0] > 0.2
    assert len(result.controls) == 10
    assert all(control.value < result.patched.value / 10 for control in result.controls)
    assert result.baseline.value == 0.0
    assert result.delta == result.patched.value
    assert result.providers == ("CPUExecutionProvider",)


def test_a_control_is_what_patching_its_dims_would_give(embedder, result, few, tmp_path):
    control = result.controls[0]
    assert control.value > 0
    patch(embedder, tmp_path / "out", onnx=True, dims=control.dims)
    again = evaluate(tmp_path / "out", texts=few, controls=1)
    assert again.patched.value == pytest.approx(control.value, abs=1e-9)


def test_in_int8_one_graph_serves_all_variants_as_a_file_of_each_would(
    embedder_patched, few, monkeypatch, tmp_path
):
    asked = {"texts": few, "controls": 2, "quantize": "int8"}
    shared = evaluate(embedder_patched, **asked)
    monkeypatch.setattr("surgeon.evaluation.evaluate.open_quantized", FilePerVariant)
    assert evaluate(embedder_patched, **asked).quantized == shared.quantized
    assert shared.quantized.evaluation.patched.value != shared.patched.value
    out = copy_of(embedder_patched, tmp_path / "out")
    save(shared, out)
    assert read_evaluation(out) == shared


def test_in_int8_an_edited_weight_is_quantized_too(iglm_s_patched, antibody_file):
    result = evaluate(iglm_s_patched, texts=antibody_file, controls=1, quantize="int8")
    cost, quantized = result.quantized.cost, result.quantized.evaluation
    for variant in ("baseline", "patched"):
        after, before = (getattr(one, variant).value for one in (quantized, result))
        assert 0 < abs(after - before) < 0.05
    assert cost.patched.delta == pytest.approx(quantized.patched.value - result.patched.value)
    low, high = cost.difference.ci95
    assert low < cost.patched.delta - cost.baseline.delta < high
    said = explain_cost(result.quantized)
    assert f"int8 costs the baseline {cost.baseline.delta:+.4g}" in said
    assert said.count("(95% interval ") == 3  # of both, and of the difference


def test_in_int8_an_artifact_in_the_cache_of_the_hub_is_scored(embedder_patched, few, tmp_path):
    asked = {"texts": few, "controls": 1, "quantize": "int8"}
    found = evaluate(cached(embedder_patched, tmp_path), **asked)
    assert found.quantized == evaluate(embedder_patched, **asked).quantized


def test_in_int8_more_dims_are_edited_than_a_file_s_name_has_room_for(iglm_s, tmp_path):
    patch(iglm_s, tmp_path / "out", onnx=True, dims=tuple(range(100, 180)))
    texts = texts_of(antibodies(2))
    found = evaluate(tmp_path / "out", texts=texts, controls=1, quantize="int8")
    assert len(found.quantized.evaluation.patched.dims) == 80


def test_controls_repeat_the_recipe_s_mode_params_and_layers(tiny, tmp_path):
    recipe = {"mode": "mean", "params": ("gain",), "layers": (1,)}
    patch(tiny("bert"), tmp_path / "out", onnx=True, dims=(3,), **recipe)
    opened = open_artifact(tmp_path / "out")
    baseline = opened.tensors(BASELINE)
    control = opened.tensors(Variant("control", (7,)))
    (name,) = baseline
    assert name == "bert.encoder.layer.1.output.LayerNorm.weight"
    gain = open_checkpoint(tiny("bert")).read(name)
    np.testing.assert_array_equal(baseline[name], gain)
    np.testing.assert_array_equal(np.flatnonzero(control[name] != gain), [7])
    assert control[name][7] == np.float32(gain.astype(np.float64).mean())


def test_controls_are_different_sets_without_the_patched_dims(minilm_patched):
    opened = open_artifact(minilm_patched)
    controls = draw_controls(opened, 500, 0)
    sets = {control.dims for control in controls}
    assert len(sets) == 500
    assert all(len(set(dims)) == 2 and not {99, 157} & set(dims) for dims in sets)
    assert draw_controls(opened, 5, 0) == draw_controls(opened, 5, 0)
    assert draw_controls(opened, 5, 0) != draw_controls(opened, 5, 1)


def test_controls_are_as_many_as_there_are_sets_and_no_more(embedder_patched):
    opened = open_artifact(embedder_patched)
    most = math.comb(opened.record.hidden_size - 2, 2)
    assert len(draw_controls(opened, most, 0)) == most
    with pytest.raises(EvaluationError, match=f"give a number from 1 to {most}"):
        draw_controls(opened, most + 1, 0)


def test_a_control_of_a_gain_that_counts_from_one_is_zero_there_too(tmp_path):
    """Gemma multiplies by one more than what it stores."""
    save_family("gemma2", tmp_path / "model")
    record = patch(tmp_path / "model", tmp_path / "out", dims=(3,))
    source = open_checkpoint(tmp_path / "model")
    stored = {edit.tensor: source.read(edit.tensor) for edit in record.edits}
    opened = Artifact(tmp_path, record, SimpleNamespace(dtype="float32"), {}, stored)
    control = opened.tensors(Variant("control", (7,)))
    for edit in record.edits:
        zero = stored[edit.tensor].copy()
        np.moveaxis(zero, edit.axis, 0)[7] = -edit.offset
        np.testing.assert_array_equal(control[edit.tensor], zero)
    assert {edit.offset for edit in record.edits} == {1.0}


def test_what_may_stop_early_comes_in_random_order_and_is_judged_by_its_share_of_the_error(
    embedder_patched, few, monkeypatch
):
    orders, judged = [], []

    def compared(runner, examples, *how, **options):
        orders.append([example.tokens for example in examples])
        return compare_in_blocks(runner, examples, *how, **options)

    def found(work, kept, *, alpha, early, **how):
        judged.append((len(kept), early, alpha))
        return find(work, kept, alpha=alpha, early=early, **how)

    monkeypatch.setattr("surgeon.evaluation.evaluate.compare_in_blocks", compared)
    monkeypatch.setattr("surgeon.evaluation.evaluate.find", found)
    asked = {"texts": few, "controls": 5, "dose": True, "margin": 2.0}
    evaluate(embedder_patched, **asked)
    assert judged == [(7, False, ALPHA)]
    result = evaluate(embedder_patched, **asked, until_certain=True)
    assert result.stopped_after
    assert judged[1:] == [(7, True, EARLY)] * 2
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_one_session_gives_each_variant_the_output_of_a_session_of_its_own(minilm_patched):
    """Bit for bit: replacing initializers per run is not an approximation."""
    opened = open_artifact(minilm_patched)
    names = tuple(opened.baseline)
    shared = open_session(opened.model_path, ["last_hidden_state"], names, "cpu")
    examples = [Example((101, 2003, 2023, 102)), Example((101, 102))]
    batch = batch_examples(examples, opened.facts.inputs, 0)
    unfused = ["SkipLayerNormFusion"]  # as the shared one, or the last bits would differ
    alone = onnxruntime.InferenceSession(opened.model_path, disabled_optimizers=unfused)
    (baseline,) = shared.run(batch, opened.tensors(BASELINE))
    (patched,) = shared.run(batch, opened.tensors(Variant("patched", (99, 157))))
    np.testing.assert_array_equal(patched, alone.run(None, dict(batch))[0])
    assert not np.array_equal(baseline, patched)


def test_the_same_evaluation_twice_gives_the_same_document(embedder_patched, few, result):
    assert evaluate(embedder_patched, texts=few, controls=3).to_json() == result.to_json()


def test_the_result_file_is_strict_json_with_all_that_was_measured(
    embedder_patched, result, tmp_path
):
    path = save(result, copy_of(embedder_patched, tmp_path / "out"))
    document = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert document == json.loads(json.dumps(result.to_json()))
    assert document["controls"][0].keys() >= {"dims", "value"}
    assert document["dataset"]["sha256"]
    assert document["versions"]["onnxruntime"] == onnxruntime.__version__
    assert document["delta"] == document["patched"]["value"] - document["baseline"]["value"]


def test_a_patch_that_changed_nothing_is_intact_and_says_so(embedder, tmp_path, few):
    patch(embedder, tmp_path / "out", onnx=True, dims=(3,), mode="scale", factor=1.0)
    result = evaluate(tmp_path / "out", texts=few, controls=5)
    assert (result.delta, result.verdict) == (0.0, "intact")
    assert {control.value for control in result.controls} == {0.0}  # they scale by 1 too
    assert "changed no value" in " ".join(result.warnings)


@pytest.mark.parametrize(
    ("lines", "remedy"),
    [
        (["no protein at all", "nor here"], "text of the kind that this model reads"),
        (["E V Q hello world again", "Q V Q L some more words"], "text of the kind that this"),
        (None, "text of the kind that this model reads"),  # the built-in English
        (["e v q l v e s g"] * 2, "it knows them in upper case: give `texts` FILE, in upper"),
    ],
)
def test_texts_that_the_tokenizer_cannot_read_are_refused(antiberty_patched, lines, remedy):
    with pytest.raises(EvaluationError, match=f"unknown to the tokenizer, so .*{remedy}") as error:
        evaluate(antiberty_patched, texts=lines and texts_of(lines))
    unknown, _, tokens, *_ = str(error.value).split()
    assert int(tokens) / 5 < int(unknown) <= int(tokens)


def test_long_texts_are_cut_to_the_model_s_length_and_counted(antiberty_patched):
    long = " ".join(["E V Q L V E S G"] * 100)
    result = evaluate(antiberty_patched, texts=texts_of([long, *antibodies(1)]), controls=1)
    assert result.dataset.truncated == 1
    assert "cut to 512 tokens" in " ".join(result.warnings)


def test_one_text_many_times_is_no_evidence(minilm_patched):
    result = evaluate(minilm_patched, texts=texts_of(["The cat sat."] * 60), controls=5)
    assert result.ci95[0] == result.ci95[1]  # of one text there is no interval
    assert result.verdict == "inconclusive"
    repeats, few = result.warnings
    assert repeats.startswith("1 of 60 texts are distinct")
    assert "6 are the least for a verdict" in few
    assert "the notes say why" in explain(result)


def test_a_few_texts_have_a_verdict_with_a_warning(of_seven):
    assert of_seven.verdict == "degraded"
    (warning,) = of_seven.warnings
    assert warning.startswith("there are 7 distinct texts")


def _why(task, examples, observed, **settings):
    task = TASKS[task] if isinstance(task, str) else task
    settings = Settings(0, 0.15, None, (), **settings)
    return why_unskilled(task, examples, observed, settings, paired_interval)


def _classified(labels, guessed):
    examples = [Example((1, number), reference=label) for number, label in enumerate(labels)]
    observed = np.column_stack([labels, 9 * np.eye(3)[guessed]])
    return _why("classification", examples, observed)


def test_a_baseline_is_held_against_a_constant_and_a_shuffled_predictor():
    labels = np.arange(60) % 3
    assert _classified(labels, labels) is None
    assert "of the most frequent label for all" in _classified(labels, 0 * labels)
    assert "the 0.6667 of the most frequent label" in _classified(labels, (labels + 1) % 3)
    assert "all examples have the same label" in _classified(0 * labels, 0 * labels)
    # 38 in 60 right where 40 have one label: that is what knowing the shares gives.
    common = np.where(labels == 2, 1, 0)
    guessed = np.where(np.arange(60) < 22, 1 - common, common)
    assert "is not shown to be better than the 0.3333" in _classified(common, guessed)


def test_a_tagger_that_finds_nothing_has_no_skill():
    reference = ("O", "B-PER"), False  # the labels' names, and whether they were rewritten
    rng = np.random.default_rng(0)
    tags = [(rng.random(12) < 0.15).astype(np.int64) for _ in range(60)]
    examples = [
        Example((n,), np.arange(12), labels, reference=reference) for n, labels in enumerate(tags)
    ]
    task = TASKS["token-classification"]

    def observed(guessed):
        rows = zip(guessed, examples, strict=True)
        return np.stack([task.observe(np.eye(2, dtype=np.float32)[g], e) for g, e in rows])

    nothing = observed([0 * labels for labels in tags])
    assert "the most frequent label for all" in _why(task, examples, nothing)
    assert _why(task, examples, observed(tags)) is None


def test_a_loss_must_be_below_what_guessing_gives():
    rng, size = np.random.default_rng(0), 50
    examples = [Example((n,), np.arange(9), rng.integers(3, size=9)) for n in range(60)]

    def observed(loss):
        return np.column_stack([rng.normal(9 * loss, 1, 60), np.zeros(60), np.full(60, 9.0)])

    assert "a guess among 50 tokens" in _why("mlm", examples, observed(np.log(size)), vocabulary=50)
    # Three tokens of 50 occur: who knows which ones needs no text.
    assert "share of the other texts" in _why("mlm", examples, observed(1.2), vocabulary=50)
    assert _why("mlm", examples, observed(0.5), vocabulary=50) is None


def test_scores_on_another_scale_are_told_from_no_skill():
    rng = np.random.default_rng(0)
    expected = rng.uniform(0, 1, 60)
    examples = [Example((n,)) for n in range(60)]
    observed = np.column_stack([expected, 5 * expected + rng.normal(0, 0.1, 60)])
    told = _why("regression", examples, observed)
    assert "the labels run from 0.0" in told
    assert "the metric Pearson" in told
    assert _why(choose_metric(TASKS["regression"], "pearson"), examples, observed) is None
    constant = np.column_stack([expected, np.full(60, 3.0)])
    assert "the labels run from" not in _why("regression", examples, constant)


def test_a_patched_model_that_collapses_to_one_label_is_named():
    task = TASKS["classification"]
    settings = Settings(0, 0.0, None, (), labels=("bad", "good"))
    several = np.column_stack([[0, 1, 0, 1], np.eye(2)[[0, 1, 0, 1]]])
    one = np.column_stack([[0, 1, 0, 1], np.eye(2)[[1, 1, 1, 1]]])
    (told,) = collapse_of(task, several, one, settings)
    assert told == "the patched model gives all examples the label good"
    assert not collapse_of(task, several, several, settings)
    assert not collapse_of(task, one, one, settings)


def test_every_task_s_further_metrics_can_decide():
    """Each name is of a score that the task gives, and is larger where it is worse."""
    labels, words = np.arange(12) % 2, np.full(12, 4.0)
    settings = Settings(0, 0.0, None, (), labels=("LABEL_0", "LABEL_1"))
    for task in TASKS.values():
        if "classification" in task.heads:
            good = np.column_stack([labels, labels if task.numeric else np.eye(2)[labels]])
        elif task.name == "token-classification":
            good = np.column_stack([0 * words, words, words, words, words])
        else:
            of_words = dict.fromkeys(("mlm", "plm", "denoising", "seq2seq"), 3)
            kept = {"rtd": 6, "drift": 1, **of_words}
            good = np.ones((12, kept.get(task.name, 2 if task.needs_table else 5)))
        for name in task.metrics:
            chosen = choose_metric(task, name.removeprefix("1 − "))
            assert chosen.metric == name
            assert name in chosen.scores(good.astype(float), settings)
    assert choose_metric(TASKS["glue/cola"], "matthews").metric == "1 − Matthews"
    with pytest.raises(EvaluationError, match="no such metric; give one of error rate, log-loss"):
        choose_metric(TASKS["glue/sst2"], "BLEU")
    with pytest.raises(EvaluationError, match=r"give one of Spearman, Pearson$"):
        choose_metric(TASKS["sts"], "BLEU")


def _controls(result, *damages):
    """Return controls of these damages at dims of their own."""
    values = [result.baseline.value + damage for damage in damages]
    return tuple(Score((number,), value, {}) for number, value in enumerate(values))


def test_a_control_that_hit_an_outlier_is_named_where_it_keeps_a_verdict_open(of_seven):
    damages = (*[0.004, 0.005] * 4, 0.34)
    controls = _controls(of_seven, *damages)

    def warned(low, *controls):
        effects = [Effect(damage, (damage, damage)) for damage in damages[: len(controls)]]
        finding = weigh(Effect(low, (low, 1.0)), effects, 0.0, Evidence(60, 60))
        return list(doubts_about(finding, controls))

    (warning,) = warned(0.07, *controls)
    assert warning.startswith("the control at 8 does 0.34, where random removals usually reach 0.0")
    assert not warned(0.07, *controls[:-1])  # worse than all controls
    assert not warned(0.35, *controls)  # than this one too
    assert not warned(0.0045, *controls)  # maybe as they usually do
    intact = {"delta": 0.0045, "ci95": (0.004, 0.005), "verdict": "intact"}
    intact["controls"] = controls
    shown = dataclasses.replace(of_seven, **intact, usual_range=(0.0, 0.0065))
    within = "all of it within the 0 to 0.0065 that most random removals do"
    assert f"{within}; left out of that range: control 8 (+0.34)." in explain(shown)
    assert name_verdict(shown) == "intact, no worse than random removals"
    shown = dataclasses.replace(of_seven, **intact, usual_range=(0.0, 0.001), margin=0.02)
    assert "all of it within the margin of ±0.02." in explain(shown)
    assert name_verdict(shown) == "intact, by less than the margin that matters"
    intact = {"verdict": "intact", "usual_range": (0.0, 0.06), "margin": 0.02}
    shown = dataclasses.replace(of_seven, **intact, ci95=(-0.003, 0.03))
    assert "within the -0.02 to 0.06 that most random removals do or the margin" in explain(shown)
    lower = dataclasses.replace(shown, ci95=(-0.04, 0.015), usual_range=(-0.05, 0.01))
    assert "within the -0.05 to 0.02 that most random" in explain(lower)
    assert name_verdict(shown) == "intact, no worse than random removals"
    assert name_verdict(of_seven) == of_seven.verdict != "intact"


def test_what_is_larger_where_it_is_better_is_shown_in_its_own_direction(result):
    spearman = dataclasses.replace(
        result,
        metric="1 − Spearman",
        baseline=Score((), 0.133, {"1 − Spearman": 0.133, "Pearson": 0.87, "Spearman": 0.867}),
        patched=Score((99,), 0.31, {"1 − Spearman": 0.31, "Pearson": 0.69, "Spearman": 0.69}),
    )
    assert explain(spearman).startswith("Spearman 0.867 → 0.69; the 1 − Spearman changes by +")
    assert spearman.columns == ["Spearman", "1 − Spearman", "change", "Pearson"]
    assert spearman.row(spearman.patched) == ["0.69", "0.31", "+0.177", "0.69"]


def test_a_score_that_got_better_is_not_said_to_want_more_data(result):
    changes = {"controls": _controls(result, 0.0, 0.1, 0.2), "control_range": (-0.1, 0.2)}
    changes |= {"delta": -1.0, "ci95": (-1.2, -0.8), "verdict": "inconclusive"}
    better = dataclasses.replace(result, **changes)
    assert "the score got better, beyond random removals" in explain(better)
    assert "more data" not in explain(better)
    maybe = dataclasses.replace(better, ci95=(-1.2, -0.01), control_range=(0.0, 0.2), margin=0.02)
    assert "the score got better" not in explain(maybe)
    wide = dataclasses.replace(better, delta=0.35, ci95=(0.1, 0.6), needed=1700)
    assert "some 1,700 texts like these would settle it" in explain(wide)
    edge = dataclasses.replace(wide, needed=None, warnings=())
    assert "more controls may settle it" in explain(edge)


def test_numbers_of_numpy_are_numbers(embedder_patched):
    numbers = {"margin": np.float32(0.5), "controls": np.int64(2), "seed": np.uint8(3)}
    found = evaluate(embedder_patched, texts=["One text.", "Another."], **numbers)
    assert (found.margin, len(found.controls), found.seed) == (0.5, 2, 3)
    assert json.loads(json.dumps(found.to_json()))["margin"] == 0.5


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"controls": 0}, "`controls`: give a number of 1 or more; found 0"),
        ({"controls": 10**9}, "`controls`"),
        ({"seed": -1}, "`seed`"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"provider": "cuda"}, "onnxruntime-gpu"),
        ({"provider": "gpu"}, "`provider` gpu: give auto, cpu or cuda"),
        ({"margin": -0.1}, "`margin` -0.1: give a number of 0 or more"),
        ({"margin": float("nan")}, "`margin`"),
        ({"margin": float("inf")}, "`margin` inf: give a number of 0 or more"),
        ({"metric": "accuracy"}, "`metric` accuracy: the task drift has no such metric"),
        ({"texts": texts_of(["one"])}, "an interval takes 2"),
        ({"quantize": "int4"}, "`quantize`: there is int8"),
        ({"quantize": "int8", "until_certain": True}, "`until_certain`: a stop"),
    ],
)
def test_what_allows_no_verdict_is_refused(minilm_patched, options, complaint):
    with pytest.raises(SurgeonError, match=complaint):
        evaluate(minilm_patched, **options)


def test_a_provider_that_does_not_start_is_an_error_and_no_silent_fall_back(
    minilm_patched, monkeypatch
):
    """A machine with onnxruntime-gpu and a broken driver: the name is there, the device is not."""
    claimed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: claimed)
    with pytest.raises(EvaluationError, match="fell back to CPUExecutionProvider"):
        evaluate(minilm_patched, provider="cuda")


_MADE = ("onnx/model.onnx", "onnx/model.onnx_data", "surgeon/excised.safetensors")


@pytest.mark.parametrize("name", [*_MADE, "config.json", "tokenizer.json"])
def test_a_file_changed_after_the_patch_is_refused(embedder_patched, tmp_path, name):
    path = shutil.copytree(embedder_patched, tmp_path / "out") / name
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(EvaluationError, match="not the file that the record describes"):
        evaluate(tmp_path / "out")


def test_an_artifact_without_a_tokenizer_says_what_to_add(tiny, patched_once):
    with pytest.raises(EvaluationError, match=r"no tokenizer; put .*tokenizer\.json"):
        evaluate(patched_once(tiny("bert"), 3, 9))


def test_texts_that_also_chose_the_dimensions_are_told(minilm_patched, tmp_path):
    """The record of an artifact, as if two lines had ranked; one of them is judged on again."""
    artifact = copy_of(minilm_patched, tmp_path / "artifact")
    ranked = Texts("mine", ("The cat sat.", "A line that only ranked."), b"").used()
    edit_record(artifact, lambda record: record.update(ranked_on=dataclasses.asdict(ranked)))
    others = tuple(f"Another line, number {number}." for number in range(10))
    texts = Texts("mine", ("the  CAT sat.", *others), b"")
    evaluation = evaluate(artifact, texts=texts, controls=5)
    (warning,) = evaluation.warnings
    assert warning.startswith("1 of the texts in mine also chose the dimensions")
    assert evaluate(minilm_patched, texts=texts, controls=5).warnings == ()


def test_a_baseline_that_is_not_finite_names_the_tensor(tmp_path, few):
    """NaN where the patch wrote zero: the patched model has scores, and its baseline has none."""
    model, name = save_model("rtd", tmp_path / "m"), "electra.encoder.layer.0.output.LayerNorm.bias"
    edit_tensors(model, lambda tensors: tensors[name][3:4].fill_(np.nan))
    patch(model, tmp_path / "out", onnx=True)
    with pytest.raises(EvaluationError, match=rf"^baseline: {name} holds 1 of 16 values"):
        evaluate(tmp_path / "out", texts=few, controls=1)
