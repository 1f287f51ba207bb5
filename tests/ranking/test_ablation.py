import dataclasses

import numpy as np
import pytest
import torch
from antibodies import antibodies
from ranking.conftest import PLANTED
from rankings import random_ranking
from task_models import save_model

from surgeon import Options, built_in_sample, open_checkpoint, rank_dimensions, ranking_sample
from surgeon.console import show_ranking
from surgeon.progress import silent
from surgeon.ranking.removals import start_run
from surgeon.ranking.torch_runner import open_torch_runner
from surgeon.tasks.examples import batch_examples
from surgeon.torch_model.forward import first_order


def _joint_damage(model, texts, sets):
    """What removing each set of dimensions together does, on texts."""
    ablation = start_run(open_torch_runner(open_checkpoint(model), texts, silent), Options())
    whole = ablation.scores(()).value
    return {dims: ablation.scores(dims).value - whole for dims in sets}


@pytest.fixture(scope="module")
def minilm_ranking(minilm):
    return rank_dimensions(open_checkpoint(minilm), "ablation", Options(count=2))


@pytest.fixture(scope="module")
def few_antibodies(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "few.txt"
    path.write_text("\n".join(antibodies(5, mutations=0.035)))
    return path


def test_minilm_leans_on_99_and_157(minilm_ranking):
    assert minilm_ranking.outliers == (99, 157)
    first, second = minilm_ranking.dimensions[:2]
    assert first.damage == pytest.approx(0.35, abs=0.05)
    assert second.damage == pytest.approx(0.08, abs=0.02)
    measured = minilm_ranking.measured
    assert measured.task == "drift"
    assert measured.control_range[1] < 0.02 < second.interval[0]


def test_a_race_takes_few_passes_of_the_model_over_all_texts(minilm_ranking):
    assert minilm_ranking.measured.passes < 4
    texts = [d.examples for d in minilm_ranking.dimensions if d.damage is not None]
    assert min(texts) == 4
    assert max(texts) == minilm_ranking.measured.examples < 120
    assert all((d.removals > 0) >= (d.damage is not None) for d in minilm_ranking.dimensions)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 10))
def test_the_order_of_the_texts_changes_nothing_about_the_first_two(minilm, seed):
    options = Options(count=2, seed=seed)
    assert rank_dimensions(open_checkpoint(minilm), "ablation", options).outliers == (99, 157)


def test_two_that_stand_in_for_each_other_are_found_together(planted_jointly):
    folder, texts = planted_jointly
    ranking = rank_dimensions(open_checkpoint(folder), "ablation", Options(texts=texts))
    assert set(ranking.outliers) == set(PLANTED)
    first, second = ranking.dimensions[:2]
    assert max(first.damage, second.damage, first.added) < 0.1
    assert second.added > 5


def test_only_a_shortlist_was_removed_alone(minilm_ranking):
    tried = [d for d in minilm_ranking.dimensions if d.damage is not None]
    assert len(tried) <= 14
    assert minilm_ranking.dimensions[: len(tried)] == tuple(tried)
    assert all(d.score == -1 for d in minilm_ranking.dimensions[len(tried) :])


@pytest.mark.slow
def test_minilm_s_first_two_do_what_the_best_pairs_do_on_other_sentences(minilm, minilm_ranking):
    """The pairs are the best of an exhaustive run (tests/benchmarks/methods.py)."""
    found = tuple(d.dim for d in minilm_ranking.dimensions[:2])
    by_size = tuple(
        d.dim for d in rank_dimensions(open_checkpoint(minilm), "activations").dimensions[:2]
    )
    sample = built_in_sample()
    held_out = dataclasses.replace(sample, lines=sample.lines[::10])
    sets = {(99, 157), (99, 223), (99, 338), (99, 383), found, by_size, (267, 127)}
    damages = _joint_damage(minilm, held_out, sets)
    best = max(damages.values())
    assert damages[found] >= 0.95 * best
    assert damages[by_size] >= 0.85 * best
    assert damages[267, 127] < 0.05 * best


@pytest.mark.parametrize(
    ("name", "task"),
    [
        pytest.param("antiberty", "mlm", marks=pytest.mark.slow),
        pytest.param("iglm", "clm", marks=pytest.mark.slow),
        ("iglm_s", "clm"),
    ],
)
def test_models_of_antibodies_have_no_outlier_and_patch_refuses_to_remove_them(
    name, task, few_antibodies, request, tmp_path, json_of, refused
):
    model = request.getfixturevalue(name)
    options = ["--method", "ablation", "--data", few_antibodies]
    document = json_of("scan", model, *options)
    assert document["outliers"] == []
    assert document["measured"]["task"] == task
    strongest = document["dimensions"][0]
    assert strongest["damage"] < 0.1
    if name == "iglm_s":
        says = f"{strongest['dim']} (damage {strongest['damage']:.3g}, "
        out = tmp_path / "out"
        line = refused("patch", model, "--remove-outliers", "2", *options, "-o", out, says=says)
        assert "a damage of 0.1 or more" in line
        assert not out.exists()


def test_a_smaller_least_damage_lets_more_in(planted):
    folder, texts = planted
    checkpoint = open_checkpoint(folder)
    ranking = rank_dimensions(checkpoint, "ablation", Options(texts=texts, min_damage=100.0))
    assert ranking.outliers == ()
    assert {d.dim for d in ranking.dimensions[:2]} == set(PLANTED)


def test_exhaustive_removes_every_dimension(planted):
    folder, texts = planted
    checkpoint = open_checkpoint(folder)
    ranking = rank_dimensions(checkpoint, "ablation", Options(texts=texts, exhaustive=True))
    assert all(d.damage is not None for d in ranking.dimensions)
    assert set(ranking.outliers) == set(PLANTED)
    others = [d.damage for d in ranking.dimensions if d.dim not in PLANTED]
    assert max(others) < 0.01


def test_the_damage_of_a_planted_pair_is_that_of_the_formula(planted):
    """See ``plant_in_gpt2``: the loss is log(1 + 39 e^−logit)."""
    folder, texts = planted
    if open_checkpoint(folder).family.name != "GPT-2":
        pytest.skip("the drift of the other model has no closed form")

    def loss(held):
        return np.log1p(39 * np.exp(-0.4 * held * np.sqrt(64 / max(1, held))))

    damages = _joint_damage(folder, texts, [PLANTED[:1], PLANTED, (5,)])
    assert damages[PLANTED[:1]] == pytest.approx(loss(1) - loss(2), abs=0.05)
    assert damages[PLANTED] == pytest.approx(loss(0) - loss(2), abs=0.2)
    assert abs(damages[5,]) < 0.01


def test_an_ablation_leaves_the_model_as_it_was(planted):
    folder, texts = planted
    runner = open_torch_runner(open_checkpoint(folder), texts, silent)
    before = {k: v.clone() for k, v in runner.model.model.state_dict().items()}
    start_run(runner, Options()).scores(PLANTED)
    after = runner.model.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def _by_hand(model, example):
    """The loss of one example, by PyTorch's own function."""
    labels = torch.tensor(example.labels)
    ids = torch.tensor([example.ids])
    if example.places:
        places = torch.tensor(example.places)
        hidden = (places[None, :] > 0) & (places[None, :] >= places[:, None])
        targets = torch.eye(len(places))[places > 0]
        further = {"perm_mask": hidden[None].float(), "target_mapping": targets[None]}
    else:
        decoder = torch.tensor([example.decoder_ids])
        further = {"decoder_input_ids": decoder} if example.decoder_ids else {}
    with torch.inference_mode():
        logits = model(input_ids=ids, **further).logits[0]
    if logits.dim() == 1:
        loss = torch.nn.functional.binary_cross_entropy_with_logits
        return loss(logits, labels.float(), reduction="sum").item()
    return torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()


@pytest.mark.parametrize("task", ["rtd", "plm", "denoising"])
def test_a_model_is_scored_by_the_loss_of_its_own_head(task, tmp_path):
    model = save_model(task, tmp_path / task)
    sample = ranking_sample()
    texts = dataclasses.replace(sample, lines=sample.lines[:6])
    runner = open_torch_runner(open_checkpoint(model), texts, silent)
    assert (runner.left_out, runner.task.name) == ("", task)
    ablation = start_run(runner, Options())
    losses = [_by_hand(runner.model.model, example) for example in ablation.examples]
    counts = [example.labels.size for example in ablation.examples]
    found = ablation.scores(())
    np.testing.assert_allclose(found.total, losses, rtol=1e-4)
    assert found.value == pytest.approx(sum(losses) / sum(counts), abs=1e-4)
    assert not np.array_equal(ablation.scores((3, 5)).total, found.total)


@pytest.mark.parametrize("task", ["rtd", "plm", "denoising"])
def test_an_effect_is_how_fast_the_loss_changes_as_gain_and_bias_shrink(task, tmp_path):
    sample = ranking_sample()
    texts = dataclasses.replace(sample, lines=sample.lines[:2])
    runner = open_torch_runner(open_checkpoint(save_model(task, tmp_path / task)), texts, silent)
    example = runner.examples(runner.settings(0))[0]
    batch = batch_examples([example], runner.model.graph_inputs, 0)
    effects = first_order(runner.model, runner.layers, batch, example, 0).sum(axis=0)
    model, dim = runner.model.model, int(np.abs(effects).argmax())
    parameters = dict(model.named_parameters())

    def loss(factor):
        values = [
            (runner.model.parameters[tensor].values(parameters), axis)
            for sites in runner.layers
            for site in sites
            for tensor, axis in ((site.gain, site.axis), (site.bias, 0))
            if tensor
        ]
        for tensor, axis in values:
            tensor.select(axis, dim).mul_(factor)
        found = _by_hand(model, example) / example.labels.size
        for tensor, axis in values:
            tensor.select(axis, dim).div_(factor)
        return found

    slope = (loss(1.05) - loss(0.95)) / 0.1
    assert effects[dim] == pytest.approx(slope, rel=0.02)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_head_that_takes_labels_is_said_to_be_left_out(tmp_path):
    model = save_model("classification", tmp_path / "model")
    sample = ranking_sample()
    texts = dataclasses.replace(sample, lines=sample.lines[:6])
    ranking = rank_dimensions(open_checkpoint(model), "ablation", Options(texts=texts))
    assert ranking.measured.task == "drift"
    assert ranking.evidence.endswith("without its head, since classification takes labels")
    assert "there are 6 distinct texts, and more are firmer" in " ".join(ranking.warnings)


def test_no_random_removal_does_less_than_no_drift(minilm_ranking):
    assert minilm_ranking.measured.control_range[0] == 0.0
    assert "beyond the 0 to 0." in minilm_ranking.criterion


def test_the_table_says_what_is_added_and_to_what(minilm_ranking, capsys):
    show_ranking(minilm_ranking, 3, json=False)
    shown = " ".join(capsys.readouterr().out.split())
    assert "beside those chosen before, or two together; added: the damage beside the" in shown
    show_ranking(dataclasses.replace(minilm_ranking, outliers=(), dimensions=()), 3, json=False)
    assert "added:" not in capsys.readouterr().out


@pytest.mark.parametrize("settle", [None, "surgeon scan m --method ablation"])
def test_what_was_not_measured_is_said_once_and_again_with_what_measures_it(settle, capsys):
    ranking, _ = random_ranking(hidden=32, layers=8, outliers=(3,))
    show_ranking(ranking, 1, json=False, settle=settle)
    _, shown = capsys.readouterr().out.split("Outliers: ")
    says = (
        f"\nBy weights, not measured: {settle} measures what removing each does." if settle else ""
    )
    assert shown == f"3 (by weights, not measured){says}\n"


def test_the_sample_that_ranks_shares_no_line_with_the_one_that_evaluates():
    ranks, evaluates = ranking_sample().used(), built_in_sample().used()
    assert len(ranks.lines) == len(set(ranks.lines)) == 120
    assert not set(ranks.lines) & set(evaluates.lines)

    def words(line):
        return frozenset(line.lower().split())

    judged = [words(line) for line in built_in_sample().lines]
    for line in ranking_sample().lines:
        closest = max(len(words(line) & other) / len(words(line) | other) for other in judged)
        assert closest < 0.6, line
