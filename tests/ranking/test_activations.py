import dataclasses
import re
import shutil

import numpy as np
import pytest
import torch
import transformers
from ranking.conftest import PLANTED
from safetensors.torch import load_file, save_file

from surgeon import Options, open_checkpoint, rank_dimensions, ranking_sample
from surgeon.console import show_ranking
from surgeon.errors import CheckpointError
from surgeon.ranking.criteria import CRITERIA, LayerStates


def test_minilm_s_sizes_are_those_of_transformers_own_hidden_states(minilm):
    sample = ranking_sample()
    texts = dataclasses.replace(sample, lines=sample.lines[:10])
    ranking = rank_dimensions(open_checkpoint(minilm), "activations", Options(texts=texts))
    model = transformers.AutoModel.from_pretrained(minilm)
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    peaks = np.zeros((6, 384))
    with torch.inference_mode():
        for line in texts.lines:
            output = model(**tokenizer(line, return_tensors="pt"), output_hidden_states=True)
            for layer, states in enumerate(output.hidden_states[1:]):
                peaks[layer] = np.maximum(peaks[layer], states[0].abs().amax(0).numpy())
    sizes = (peaks / np.median(peaks, axis=1, keepdims=True)).mean(axis=0)
    for dimension in ranking.dimensions:
        assert dimension.score == pytest.approx(sizes[dimension.dim], rel=1e-4)
    assert [d.dim for d in ranking.dimensions[:2]] == [99, 157]
    assert ranking.outliers == (99, 157)


def test_more_text_takes_no_more_memory_and_no_other_place(planted):
    """The same lines three times over have the same largest magnitudes."""
    folder, texts = planted
    checkpoint = open_checkpoint(folder)
    thrice = dataclasses.replace(texts, lines=texts.lines * 3)
    once = rank_dimensions(checkpoint, "activations", Options(texts=texts))
    more = rank_dimensions(checkpoint, "activations", Options(texts=thrice))
    assert [d.dim for d in once.dimensions] == [d.dim for d in more.dimensions]
    assert [d.flags for d in once.dimensions] == [d.flags for d in more.dimensions]


def test_the_planted_dimensions_vary_most(planted):
    folder, texts = planted
    ranking = rank_dimensions(open_checkpoint(folder), "activations", Options(texts=texts))
    flagged = {d.dim for d in ranking.dimensions if d.flags}
    assert flagged <= set(PLANTED)
    assert flagged


def test_a_table_explains_the_flags_that_are_in_it_and_no_others(planted, capsys):
    folder, texts = planted
    ranking = rank_dimensions(open_checkpoint(folder), "activations", Options(texts=texts))
    show_ranking(ranking, 2, json=False)
    lines = capsys.readouterr().out.splitlines()
    met = {flag for dimension in ranking.dimensions[:2] for flag in dimension.flags}
    for name, criterion in CRITERIA.items():
        assert (f"{name}: {criterion.rule} ({criterion.source})" in lines) == (name in met)


@pytest.mark.parametrize("method", ["activations", "ablation"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_tensor_that_is_not_finite_is_named(planted, tmp_path, method, value):
    folder, texts = planted
    broken = shutil.copytree(folder, tmp_path / "model")
    tensors = load_file(broken / "model.safetensors")
    dense = next(name for name in tensors if "1.output.dense.w" in name or "1.mlp.c_proj.w" in name)
    tensors[dense][0, 0] = value
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    complaint = rf"safetensors: {re.escape(dense)} holds 1 of \d+ values that are not finite"
    with pytest.raises(CheckpointError, match=complaint) as caught:
        rank_dimensions(open_checkpoint(broken), method, Options(texts=texts))
    assert str(broken) in str(caught.value)


_QUIET = np.random.default_rng(0).uniform(-1, 1, size=(400, 200))


def _with(values):
    states = _QUIET.copy()
    states[:, 7] = values
    return states.astype(np.float32)


@pytest.mark.parametrize(
    ("criterion", "meets", "falls_short"),
    [
        ("int8", np.where(np.arange(400) < 24, 6.0, 0.0), np.where(np.arange(400) < 23, 6.0, 0.0)),
        ("massive", np.where(np.arange(400) == 3, 2000.0, 0.0), np.full(400, 99.0)),
        ("variance", 3.0 * np.sign(_QUIET[:, 0]), np.full(400, 3.0)),
        ("median", np.full(400, 1.5), np.where(np.arange(400) < 190, 1.5, 0.0)),
        ("argmax", np.where(np.arange(400) < 200, 2.0, 0.0), np.where(np.arange(400) < 150, 2, 0)),
        ("cosine", np.full(400, 3.0), 3.0 * np.sign(_QUIET[:, 0] - _QUIET[:, 0].mean())),
    ],
)
def test_a_criterion_flags_what_meets_it_and_nothing_less(criterion, meets, falls_short):
    def flagged(values):
        layer = LayerStates(200, last=True)
        for part in np.array_split(_with(values), 3):
            layer.add(part)
        return set(np.flatnonzero(CRITERIA[criterion].met([layer])))

    assert flagged(meets) == {7}
    assert 7 not in flagged(falls_short)
