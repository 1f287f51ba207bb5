import dataclasses
import json
import shutil

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from antibodies import antibodies
from artifacts import write_record
from safetensors.numpy import load_file, save_file
from task_models import causal_loss, patched, save_model

from surgeon import (
    Recipe,
    TaskOptions,
    evaluate,
    make_plan,
    open_checkpoint,
    operate,
    read_texts,
)
from surgeon import save_evaluation as save
from surgeon.errors import EvaluationError
from surgeon.evaluation.artifact import open_artifact
from surgeon.evaluation.describe import warnings_of
from surgeon.evaluation.evidence import Evidence, evidence_of
from surgeon.evaluation.request import encode_for
from surgeon.evaluation.result import Score
from surgeon.evaluation.session import open_session
from surgeon.evaluation.variants import BASELINE, Variant, draw_controls, tensors_of
from surgeon.evaluation.words import explain
from surgeon.scoring.examples import Example, make_batch
from surgeon.scoring.tasks import TASKS, Settings
from surgeon.text import Texts, built_in_sample


def _texts(lines):
    return Texts("test", tuple(lines), "\n".join(lines).encode())


@pytest.fixture(scope="module")
def few():
    """A tenth of the built-in sample."""
    return _texts(built_in_sample().lines[::10])


def test_removing_the_dims_that_matter_degrades_minilm(minilm_patched):
    result = evaluate(minilm_patched)
    assert result.verdict == "degraded"
    assert result.task == "drift"
    assert result.dataset.examples == 240
    assert result.ci95[0] > 0.2
    assert len(result.controls) == 10
    assert all(control.value < result.patched.value / 10 for control in result.controls)
    assert result.baseline.value == 0.0
    assert result.delta == result.patched.value
    assert result.providers == ("CPUExecutionProvider",)


def test_removing_what_the_criterion_ranks_first_does_not_degrade_minilm(minilm, tmp_path):
    operate(make_plan(open_checkpoint(minilm), Recipe(dims=(127, 267))), tmp_path / "out")
    assert evaluate(tmp_path / "out").verdict == "intact"


def test_antiberty_is_intact_on_antibodies(antiberty_patched, antibody_file):
    result = evaluate(antiberty_patched, texts=read_texts(antibody_file))
    assert result.task == "mlm"
    assert result.verdict == "intact"
    assert 0.3 < result.baseline.value < 0.6
    assert result.warnings == ()


def test_the_baseline_s_masked_loss_is_pytorch_s(antiberty, antiberty_patched, antibody_file):
    texts = read_texts(antibody_file)
    opened = open_artifact(antiberty_patched)
    tokenizer = opened.facts.tokenizer
    settings = Settings(0, 0.15, tokenizer.mask_id, tokenizer.special_ids)
    encoded = encode_for(opened, texts)
    model = transformers.AutoModelForMaskedLM.from_pretrained(antiberty).eval()
    loss = count = 0
    for ids in encoded.sequences:
        example = TASKS["mlm"].prepare(ids, settings)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([example.ids])).logits[0]
        labels = torch.tensor(example.labels)
        losses = torch.nn.functional.cross_entropy(
            logits[torch.tensor(example.positions)], labels, reduction="sum"
        )
        loss, count = loss + losses.item(), count + len(labels)
    result = evaluate(antiberty_patched, texts=texts, controls=1)
    assert result.dataset.scored_tokens == count
    assert result.baseline.value == pytest.approx(loss / count, abs=1e-4)


def test_the_causal_loss_of_baseline_and_patched_is_pytorch_s(iglm_s, iglm_s_patched):
    lines = antibodies(12)
    result = evaluate(iglm_s_patched, texts=_texts(lines), controls=1)
    assert result.task == "clm"
    for source, score in ((iglm_s, result.baseline), (iglm_s_patched, result.patched)):
        loss, _ = causal_loss(source, lines)
        assert score.value == pytest.approx(loss, abs=1e-4)
        assert score.others["perplexity"] == pytest.approx(np.exp(loss), rel=1e-3)


def test_the_patched_variant_drifts_as_transformers_says(minilm, minilm_patched, few):
    result = evaluate(minilm_patched, texts=few, controls=1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    pooled = []
    for source in (minilm, minilm_patched):
        model = transformers.AutoModel.from_pretrained(source).eval()
        with torch.no_grad():
            rows = [model(**tokenizer(s, return_tensors="pt"))[0][0].mean(0) for s in few.lines]
        pooled.append(torch.stack(rows))
    drift = 1 - torch.nn.functional.cosine_similarity(*pooled).mean().item()
    assert result.patched.value == pytest.approx(drift, abs=1e-5)


def test_a_control_is_what_patching_its_dims_would_give(minilm, minilm_patched, few, tmp_path):
    result = evaluate(minilm_patched, texts=few, controls=1)
    control = result.controls[0]
    operate(make_plan(open_checkpoint(minilm), Recipe(dims=control.dims)), tmp_path / "out")
    again = evaluate(tmp_path / "out", texts=few, controls=1)
    assert again.patched.value == pytest.approx(control.value, abs=1e-9)


@pytest.mark.parametrize("mode", ["scale", "mean"])
def test_controls_repeat_the_recipe_s_mode_params_and_layers(tiny, tmp_path, mode):
    factor = 0.5 if mode == "scale" else None
    recipe = Recipe(dims=(3,), mode=mode, factor=factor, params=("gain",), layers=(1,))
    operate(make_plan(open_checkpoint(tiny("bert")), recipe), tmp_path / "out")
    opened = open_artifact(tmp_path / "out")
    original = open_checkpoint(tiny("bert"))
    baseline = tensors_of(opened, BASELINE)
    control = tensors_of(opened, Variant("control", (7,)))
    (name,) = baseline
    assert name == "bert.encoder.layer.1.output.LayerNorm.weight"
    gain = original.read(name)
    np.testing.assert_array_equal(baseline[name], gain)
    changed = gain[7] * np.float32(0.5) if mode == "scale" else gain.astype(np.float64).mean()
    np.testing.assert_array_equal(np.flatnonzero(control[name] != gain), [7])
    assert control[name][7] == np.float32(changed)


def test_controls_are_different_sets_without_the_patched_dims(minilm_patched):
    opened = open_artifact(minilm_patched)
    controls = draw_controls(opened, 500, 0)
    sets = {control.dims for control in controls}
    assert len(sets) == 500
    assert all(len(set(dims)) == 2 and not {99, 157} & set(dims) for dims in sets)
    assert draw_controls(opened, 5, 0) == draw_controls(opened, 5, 0)
    assert draw_controls(opened, 5, 0) != draw_controls(opened, 5, 1)


def test_one_session_gives_each_variant_the_output_of_a_session_of_its_own(minilm_patched):
    """Bit for bit: replacing initializers per run is not an approximation."""
    opened = open_artifact(minilm_patched)
    names = tuple(opened.baseline)
    shared = open_session(opened.model_path, "last_hidden_state", names, "cpu")
    batch = make_batch([[101, 2003, 2023, 102], [101, 102]], opened.facts.inputs, 0)
    unfused = ["SkipLayerNormFusion"]  # as the shared one, or the last bits would differ
    alone = onnxruntime.InferenceSession(opened.model_path, disabled_optimizers=unfused)
    (baseline,) = shared.run(batch, tensors_of(opened, BASELINE))
    (patched,) = shared.run(batch, tensors_of(opened, Variant("patched", (99, 157))))
    np.testing.assert_array_equal(patched, alone.run(None, dict(batch))[0])
    assert not np.array_equal(baseline, patched)


def test_the_same_evaluation_twice_gives_the_same_document(minilm_patched, few):
    first, second = (evaluate(minilm_patched, texts=few, controls=3) for _ in range(2))
    assert first.to_json() == second.to_json()


def test_scores_do_not_depend_on_the_order_of_the_texts(antiberty_patched):
    lines = antibodies(6)
    forward, backward = (
        evaluate(antiberty_patched, texts=_texts(order), controls=1)
        for order in (lines, lines[::-1])
    )
    assert forward.baseline.value == pytest.approx(backward.baseline.value, abs=1e-9)


def test_the_result_file_is_strict_json_with_all_that_was_measured(minilm_patched, few, tmp_path):
    shutil.copytree(minilm_patched, tmp_path / "out")
    result = evaluate(tmp_path / "out", texts=few, controls=3)
    path = save(result, tmp_path / "out")
    document = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert document == json.loads(json.dumps(result.to_json()))
    assert document["controls"][0].keys() >= {"dims", "value"}
    assert document["dataset"]["sha256"]
    assert document["versions"]["onnxruntime"] == onnxruntime.__version__
    assert document["delta"] == document["patched"]["value"] - document["baseline"]["value"]


def test_a_patch_that_changed_nothing_is_intact_and_says_so(tiny, minilm, tmp_path, few):
    recipe = Recipe(dims=(99,), mode="scale", factor=1.0)
    operate(make_plan(open_checkpoint(minilm), recipe), tmp_path / "out")
    result = evaluate(tmp_path / "out", texts=few, controls=3)
    assert (result.delta, result.verdict) == (0.0, "intact")
    assert "changed no value" in result.warnings[-1]


@pytest.mark.parametrize(
    ("lines", "remedy"),
    [
        (["no protein at all", "nor here"], "text of the kind that this model reads"),
        (["E V Q hello world again", "Q V Q L some more words"], "text of the kind that this"),
        (None, "text of the kind that this model reads"),  # the built-in English
        (["e v q l v e s g"] * 2, "it knows them in upper case: give --data FILE, the texts in"),
    ],
)
def test_texts_that_the_tokenizer_cannot_read_are_refused(antiberty_patched, lines, remedy):
    with pytest.raises(EvaluationError, match=f"unknown to the tokenizer, so .*{remedy}") as error:
        evaluate(antiberty_patched, texts=lines and _texts(lines))
    unknown, _, tokens, *_ = str(error.value).split()
    assert int(tokens) / 5 < int(unknown) <= int(tokens)


def test_long_texts_are_cut_to_the_model_s_length_and_counted(antiberty_patched):
    long = " ".join(["E V Q L V E S G"] * 100)
    result = evaluate(antiberty_patched, texts=_texts([long, *antibodies(2)]), controls=5)
    assert result.dataset.truncated == 1
    assert "cut to 512 tokens" in " ".join(result.warnings)


def test_one_text_many_times_is_no_evidence(minilm_patched):
    result = evaluate(minilm_patched, texts=_texts(["The cat sat."] * 60), controls=5)
    assert result.ci95[0] > result.control_range[1]  # sure of itself, and wrongly so
    assert result.verdict == "inconclusive"
    repeats, few = result.warnings
    assert repeats.startswith("1 of 60 texts are distinct")
    assert "6 are the least for a verdict" in few
    assert "the notes say why" in explain(result)


def test_a_few_texts_have_a_verdict_with_a_warning(minilm_patched):
    result = evaluate(minilm_patched, texts=_texts(built_in_sample().lines[:7]), controls=5)
    assert result.verdict == "degraded"
    (warning,) = result.warnings
    assert warning.startswith("there are 7 distinct texts")


def _classified(labels, guessed):
    task, logits = TASKS["classification"], np.eye(3)[guessed]
    examples = [Example((1, number), reference=label) for number, label in enumerate(labels)]
    pairs = zip(logits, examples, strict=True)
    return evidence_of(task, examples, np.stack([task.observe(row, e) for row, e in pairs]))


def test_a_baseline_that_has_nothing_to_lose_is_told():
    assert _classified([0, 1, 2, 0], [0, 1, 1, 0]).unskilled is None
    assert "error rate is 1, so" in _classified([0, 1, 2, 0], [1, 2, 0, 1]).unskilled
    assert "the same label" in _classified([0, 1, 2, 0], [0, 0, 0, 0]).unskilled
    questions = TASKS["question-answering"]
    wrong = evidence_of(questions, [Example((1,)), Example((2,))], np.zeros((2, 2)))
    assert "1 − F1 is 1, so" in wrong.unskilled


def _controls(result, *damages):
    """Return controls of these damages at dims of their own."""
    values = [result.baseline.value + damage for damage in damages]
    return tuple(Score((number,), value, {}) for number, value in enumerate(values))


def test_a_control_that_hit_an_outlier_is_named_where_it_keeps_a_verdict_open(minilm_patched):
    opened, data = open_artifact(minilm_patched), built_in_sample()
    evidence = Evidence(60, 60)
    result = evaluate(minilm_patched, texts=_texts(data.lines[:7]), controls=5)
    controls = _controls(result, *[0.004, 0.005] * 4, 0.34)

    def warned(low, *controls):
        return warnings_of(opened, data, result.dataset, result.baseline, controls, low, evidence)

    (warning,) = warned(0.07, *controls)
    assert warning.startswith("the control at 8 does 0.34, where random removals usually reach 0.0")
    assert not warned(0.07, *controls[:-1])  # worse than all controls
    assert not warned(0.35, *controls)  # than this one too
    assert not warned(0.0045, *controls)  # maybe as they usually do
    shown = dataclasses.replace(
        result, delta=0.0045, ci95=(0.004, 0.005), controls=controls, verdict="intact"
    )
    assert "random removals usually do 0 to 0.0065." in explain(shown)


def test_a_score_that_got_better_is_not_said_to_want_more_data(minilm_patched, few):
    result = evaluate(minilm_patched, texts=few, controls=3)
    changes = {"controls": _controls(result, 0.0, 0.1, 0.2), "control_range": (-0.1, 0.2)}
    better = dataclasses.replace(
        result, delta=-1.0, ci95=(-1.2, -0.8), verdict="inconclusive", **changes
    )
    assert "the score got better, beyond random removals" in explain(better)
    assert "--data" not in explain(better)
    wide = dataclasses.replace(better, delta=0.35, ci95=(0.1, 0.6))
    assert "more --data or --controls may settle it" in explain(wide)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"controls": 0}, "--controls 0"),
        ({"controls": 10**9}, "--controls"),
        ({"seed": -1}, "--seed"),
        ({"batch_size": 0}, "--batch-size"),
        ({"options": TaskOptions(mask_rate=0.0)}, "--mask-rate"),
        ({"options": TaskOptions(mask_rate=1.0)}, "--mask-rate"),
        ({"options": TaskOptions(mask_rate=float("nan"))}, "--mask-rate"),
        ({"provider": "cuda"}, "onnxruntime-gpu"),
        ({"texts": _texts(["one"])}, "an interval takes 2"),
    ],
)
def test_what_allows_no_verdict_is_refused(minilm_patched, options, complaint):
    with pytest.raises(EvaluationError, match=complaint):
        evaluate(minilm_patched, **options)


def test_a_provider_that_does_not_start_is_an_error_and_no_silent_fall_back(
    minilm_patched, monkeypatch
):
    """A machine with onnxruntime-gpu and a broken driver: the name is there, the device is not."""
    claimed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: claimed)
    with pytest.raises(EvaluationError, match="fell back to CPUExecutionProvider"):
        evaluate(minilm_patched, provider="cuda")


@pytest.mark.parametrize("name", ["onnx/model.onnx", "surgeon/excised.safetensors"])
def test_a_file_changed_after_the_patch_is_refused(minilm_patched, tmp_path, name):
    shutil.copytree(minilm_patched, tmp_path / "out")
    with (tmp_path / "out" / name).open("ab") as file:
        file.write(b"x")
    with pytest.raises(EvaluationError, match="not the file that the record describes"):
        evaluate(tmp_path / "out")


def test_an_artifact_without_a_tokenizer_says_what_to_add(tiny, tmp_path):
    operate(make_plan(open_checkpoint(tiny("bert")), Recipe(dims=(3,))), tmp_path / "out")
    with pytest.raises(EvaluationError, match=r"no tokenizer; put .*tokenizer\.json"):
        evaluate(tmp_path / "out")


def test_texts_that_also_chose_the_dimensions_are_told(minilm_patched, tmp_path):
    """The record of an artifact, as if two lines had ranked; one of them is judged on again."""
    artifact = shutil.copytree(minilm_patched, tmp_path / "artifact")
    path = artifact / "surgeon" / "record.json"
    record = json.loads(path.read_text())
    ranked = Texts("mine", ("The cat sat.", "A line that only ranked."), b"")
    write_record(artifact, {**record, "ranked_on": dataclasses.asdict(ranked.used())})
    others = tuple(f"Another line, number {number}." for number in range(10))
    texts = Texts("mine", ("the  CAT sat.", *others), b"")
    evaluation = evaluate(artifact, texts=texts, controls=5)
    (warning,) = evaluation.warnings
    assert warning.startswith("1 of 11 texts also chose the dimensions")
    assert evaluate(minilm_patched, texts=texts, controls=5).warnings == ()


def test_a_baseline_that_is_not_finite_names_the_tensor(tmp_path, few):
    """NaN where the patch wrote zero: the patched model has scores, and its baseline has none."""
    path = save_model("rtd", tmp_path / "model") / "model.safetensors"
    tensors = load_file(path)
    name = "electra.encoder.layer.0.output.LayerNorm.bias"
    tensors[name][3] = np.nan
    save_file(tensors, path, metadata={"format": "pt"})
    artifact = patched(tmp_path / "model", tmp_path / "out")
    with pytest.raises(EvaluationError, match=rf"^baseline: {name} holds 1 of 16 values"):
        evaluate(artifact, texts=few, controls=1)
