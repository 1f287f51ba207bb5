"""Blocks, batches, doses, early stopping and going on after an interruption."""

from types import SimpleNamespace

import numpy as np
import pytest
from antibodies import antibodies
from artifacts import copy_of, edit_record, patch, texts_of

from surgeon import evaluate
from surgeon.errors import EvaluationError
from surgeon.evaluation import blocks
from surgeon.evaluation.artifact import open_artifact
from surgeon.evaluation.session import open_session
from surgeon.model.tensors import open_safetensors
from surgeon.tasks import task as compare
from surgeon.tasks.examples import Example, batch_examples
from surgeon.tasks.table import Table
from surgeon.tasks.task import BASELINE, observe
from surgeon.text import built_in_sample

_PARTIAL = "surgeon/eval.partial.drift.safetensors"


def test_the_vocabulary_is_projected_to_at_the_scored_positions_alone(antiberty_patched):
    """The product with the vocabulary comes after the positions are gathered."""
    import onnx

    from surgeon.onnx.token_scores import with_token_scores

    model = onnx.load(antiberty_patched / "onnx" / "model.onnx")
    with_token_scores(model, "logits")
    made = {name: node for node in model.graph.node for name in node.output}
    (product,) = (n for n in model.graph.node if "surgeon.gathered" in n.input)
    assert product.op_type == "MatMul"
    assert made["surgeon.gathered"].op_type == "GatherND"


def test_a_dose_goes_from_the_first_dim_to_the_whole_patch(minilm_patched):
    texts = texts_of(built_in_sample().lines[::12])
    result = evaluate(minilm_patched, texts=texts, controls=3, dose=True)
    assert [dose.dims for dose in result.dose] == [(99,), (99, 157)]
    assert result.dose[-1].value == result.patched.value
    assert 0 < result.dose[0].value < result.dose[1].value
    assert result.dose[-1].delta == result.delta


@pytest.mark.slow
def test_a_clear_case_is_settled_early_with_the_verdict_of_all_texts(minilm_patched):
    texts = texts_of(built_in_sample().lines[::5])
    result = evaluate(minilm_patched, texts=texts, controls=5, until_certain=True)
    assert result.verdict == "degraded"
    assert result.stopped_after == result.dataset.examples < 48
    assert result.dataset.skipped == 0
    low, high = result.ci95
    whole = evaluate(minilm_patched, texts=texts, controls=5)
    assert low < whole.delta < high
    assert high - low > whole.ci95[1] - whole.ci95[0]
    # Of the built-in sentences, which are a means to a verdict, no more are scored by default.
    sample = evaluate(minilm_patched, controls=5)
    assert sample.verdict == "degraded"
    assert sample.stopped_after == sample.dataset.examples < 240


def test_what_is_not_settled_early_is_judged_on_all_texts(iglm_s_patched):
    """By an interval of the error that looking early has left."""
    texts = texts_of(antibodies(8, mutations=0.035))
    result = evaluate(iglm_s_patched, texts=texts, controls=5, until_certain=True)
    assert result.until_certain
    assert (result.dataset.examples, result.stopped_after) == (8, None)
    low, high = evaluate(iglm_s_patched, texts=texts, controls=5).ci95
    assert low - (high - low) / 10 < result.ci95[0] < low < high < result.ci95[1]


def _stop_at(step, count):
    """Return a progress that interrupts when a step comes for the so-many-th time."""
    calls = []

    def progress(name, done, total):
        calls.extend([name] if name == step else [])
        if len(calls) == count:
            raise KeyboardInterrupt

    return progress


def test_an_interrupted_evaluation_goes_on_with_the_same_result(
    embedder_patched, tmp_path, monkeypatch
):
    out = copy_of(embedder_patched, tmp_path / "out")
    texts = texts_of(built_in_sample().lines[::4])
    monkeypatch.setattr(blocks, "_BLOCK", 16)
    expected = evaluate(out, texts=texts, controls=3)
    # The baseline and the patched model have seen the third block, and no control has.
    stop = _stop_at("scoring control 1", 3)
    with pytest.raises(KeyboardInterrupt, match="`resume` goes on"):
        evaluate(out, texts=texts, controls=3, progress=stop)
    rows = Table("d", ({"text": "a", "text2": "b", "score": 1},) * 2, b"")
    evaluate(out, texts=rows, task="sts", controls=1)  # another task, as of several in one call
    assert (out / _PARTIAL).is_file()
    kept = (out / _PARTIAL).read_bytes()
    seen = []
    monkeypatch.setattr(compare, "observe", lambda *a: seen.append(len(a[2])) or observe(*a))
    other = evaluate(out, texts=texts, controls=3, seed=1, resume=True)
    assert sum(seen) == 60 * 5  # another seed: nothing to go on from
    assert "nothing was kept" in other.warnings[-1]
    assert other.to_json() != expected.to_json()
    (out / _PARTIAL).write_bytes(kept)
    seen.clear()
    resumed = evaluate(out, texts=texts, controls=3, resume=True)
    again = 16  # the baseline of the third block, from which the controls' drift is measured
    assert sum(seen) == (60 - 32) * 5 - 16 * 2 + again
    assert resumed.to_json() == expected.to_json()
    assert not (out / _PARTIAL).exists()


def test_what_was_kept_of_another_shape_is_not_gone_on_from(embedder_patched, tmp_path):
    out = copy_of(embedder_patched, tmp_path / "out")
    texts = texts_of(built_in_sample().lines[:8])
    expected = evaluate(out, texts=texts, controls=1)
    with pytest.raises(KeyboardInterrupt, match="`resume` goes on"):
        evaluate(out, texts=texts, controls=1, progress=_stop_at("scoring patched", 1))
    stored = open_safetensors(out / _PARTIAL)
    observed = stored.read("observed")
    longer = np.repeat(observed, 2, axis=1)
    for damaged in (observed[:2], observed[..., 0], observed[:, :0], longer):
        blocks.Partial(out / _PARTIAL, stored.metadata["key"]).save(damaged)
        again = evaluate(out, texts=texts, controls=1, resume=True)
        assert "nothing was kept" in again.warnings[-1]
        assert again.patched == expected.patched


@pytest.mark.parametrize("other", ["record", "texts", "variants", "order"])
def test_what_was_kept_of_another_evaluation_is_not_gone_on_from(embedder_patched, tmp_path, other):
    out, lines = copy_of(embedder_patched, tmp_path / "out"), built_in_sample().lines
    asked = {"texts": texts_of(lines[:8]), "controls": 3}
    with pytest.raises(KeyboardInterrupt, match="`resume` goes on"):
        evaluate(out, **asked, progress=_stop_at("scoring patched", 1))
    if other == "record":
        edit_record(out, lambda record: record.update(created="later"))
    elif other == "texts":
        asked["texts"] = texts_of(lines[8:16])
    elif other == "variants":
        asked |= {"controls": 1, "dose": True}  # as many
    else:
        asked["until_certain"] = True
    again = evaluate(out, **asked, resume=True)
    assert "nothing was kept" in again.warnings[-1]


def test_an_interrupted_evaluation_whose_place_takes_no_file_says_so(embedder_patched, tmp_path):
    out = copy_of(embedder_patched, tmp_path / "out")
    (out / _PARTIAL).mkdir()
    with pytest.raises(KeyboardInterrupt, match="safetensors cannot be written"):
        evaluate(out, texts=["a", "b"], controls=1, progress=_stop_at("scoring patched", 1))


def test_what_was_observed_is_kept_after_a_while_too(embedder_patched, tmp_path, monkeypatch):
    """For what no interruption announces, such as a lack of power."""
    out = copy_of(embedder_patched, tmp_path / "out")
    monkeypatch.setattr(blocks, "_PAUSE", 0.0)

    def fail(step, done, total):
        if step == "scoring control 1":
            raise RuntimeError

    texts = texts_of(built_in_sample().lines[:8])
    with pytest.raises(RuntimeError):
        evaluate(out, texts=texts, controls=1, progress=fail)
    observed = open_safetensors(out / _PARTIAL).read("observed")
    seen = ~np.isnan(observed).any(axis=2)
    np.testing.assert_array_equal(seen.all(axis=1), [True, True, False])


def test_blocks_are_of_so_many_texts_and_tokens():
    sizes = [300] * 60 + [20_000] + [10] * 600
    examples = [Example((1,) * size) for size in sizes]
    found = [(block.start, block.stop) for block in blocks.blocks_of(examples, blocks._BLOCK)]
    assert found == [(0, 54), (54, 60), (60, 61), (61, 573), (573, 661)]


def test_blanks_are_filled_before_and_after(antiberty_patched, iglm_s_patched, minilm_patched):
    lines = [" ".join(line.split()[:20]) for line in antibodies(12)]
    for artifact in (antiberty_patched, iglm_s_patched):
        result = evaluate(artifact, texts=texts_of(lines), controls=1)
        assert 1 <= len(result.fill_ins) <= 5
        for blank in result.fill_ins:
            assert blank.text.count("____") == 1
            assert len(blank.expected) == 1  # an amino acid
        assert any(blank.expected == blank.baseline for blank in result.fill_ins)
    few = texts_of(built_in_sample().lines[:4])
    assert evaluate(minilm_patched, texts=few, controls=1).fill_ins == ()


def test_a_run_with_bound_inputs_gives_what_a_plain_run_gives(minilm_patched):
    """What the CUDA path does, on the device that is here."""
    opened = open_artifact(minilm_patched)
    names = tuple(opened.baseline)
    session = open_session(opened.model_path, opened.facts.outputs, names, "cpu")
    examples = [Example((101, 2003, 2023, 102)), Example((101, 102))]
    batch = batch_examples(examples, opened.facts.inputs, 0)
    tensors = opened.tensors(BASELINE)
    (plain,) = session.run(batch, tensors)
    (bound,) = session.run_bound({**batch, **tensors}, "cpu")
    np.testing.assert_array_equal(plain, bound)


def test_two_wheels_of_onnxruntime_are_told_apart(minilm_patched, monkeypatch):
    both = [SimpleNamespace(name=wheel) for wheel in ("onnxruntime", "onnxruntime-gpu")]
    monkeypatch.setattr("importlib.metadata.distributions", lambda: both)
    with pytest.raises(EvaluationError, match="overwrite each other's files: uninstall both"):
        evaluate(minilm_patched, provider="cuda")


def test_a_float16_artifact_is_evaluated_too(embedder, embedder_patched, tmp_path):
    texts = texts_of(built_in_sample().lines[::12])
    patch(embedder, tmp_path / "half", onnx=True, dtype="float16", dims=(3, 8))
    half = evaluate(tmp_path / "half", texts=texts, controls=5)
    whole = evaluate(embedder_patched, texts=texts, controls=5)
    assert half.verdict == whole.verdict
    assert half.delta != whole.delta
    assert half.delta == pytest.approx(whole.delta, rel=0.02)
