"""What is masked, replaced, permuted or cut out: how much, where, and by what it is decided."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgeon.errors import EvaluationError
from surgeon.tasks.causal import windows
from surgeon.tasks.examples import batch_examples
from surgeon.tasks.masked import draw_lengths
from surgeon.tasks.registry import TASKS
from surgeon.tasks.task import Settings

SETTINGS = Settings(0, 0.15, 4, (0, 1, 2, 3, 4), vocabulary=300, decoder_start_id=3)
SEQUENCE = (2, *range(5, 205), 3)
TOKENS = np.array(SEQUENCE)


@pytest.mark.parametrize("name", ["mlm", "rtd", "plm", "denoising"])
def test_the_draw_is_by_seed_and_sequence_alone(name):
    prepare = TASKS[name].prepare

    def drawn(sequence, seed):
        settings = dataclasses.replace(SETTINGS, seed=seed, mask_rate=0.3)
        example = prepare(sequence, settings)
        pairs = enumerate(zip(example.ids, sequence, strict=False))
        return [place for place, (new, old) in pairs if new != old], example.places

    assert drawn(SEQUENCE, 0) == drawn(SEQUENCE, 0)
    assert drawn(SEQUENCE, 0) != drawn(SEQUENCE, 1)
    assert drawn(SEQUENCE, 0) != drawn((*SEQUENCE[:-2], 205, 3), 0)
    assert prepare((2, 3), SETTINGS) is None


def test_bert_s_masking_hides_80_changes_10_and_leaves_10_of_100():
    settings = dataclasses.replace(SETTINGS, masking="bert", mask_rate=0.5)
    fates = np.zeros(3)
    for seed in range(100):
        example = TASKS["mlm"].prepare(SEQUENCE, dataclasses.replace(settings, seed=seed))
        seen = np.array(example.ids)[example.positions]
        np.testing.assert_array_equal(example.labels, TOKENS[example.positions])
        masked, kept = seen == 4, seen == example.labels
        assert not np.isin(seen[~masked], SETTINGS.special_ids).any()
        fates += [masked.sum(), (~masked & ~kept).sum(), kept.sum()]
    np.testing.assert_allclose(fates / fates.sum(), [0.8, 0.1, 0.1], atol=0.015)


def test_masking_hides_the_same_tokens_either_way():
    both = [
        TASKS["mlm"].prepare(SEQUENCE, dataclasses.replace(SETTINGS, masking=masking)).positions
        for masking in ("all", "bert")
    ]
    np.testing.assert_array_equal(*both)
    assert np.unique(both[0]).size == 30  # 15% of 200


def test_a_replaced_token_is_always_another_and_never_special():
    for seed in range(50):
        example = TASKS["rtd"].prepare(SEQUENCE, dataclasses.replace(SETTINGS, seed=seed))
        ids = np.array(example.ids)
        np.testing.assert_array_equal(ids != TOKENS, example.labels == 1)
        assert example.labels.sum() == 30  # 15% of 200
        assert not np.isin(ids[1:-1], SETTINGS.special_ids).any()


def test_where_every_token_is_replaced_a_constant_guess_loses_nothing():
    examples = [TASKS["rtd"].prepare((token,), SETTINGS) for token in (7, 9)]
    assert [example.labels.tolist() for example in examples] == [[1], [1]]
    (guessed,) = TASKS["rtd"].naive(examples, np.ones((2, 6)), SETTINGS).values()
    assert guessed[:, 0].tolist() == [0, 0]


def test_a_permuted_token_sees_what_is_given_and_what_came_before_it():
    short = SEQUENCE[:12]
    settings = dataclasses.replace(SETTINGS, mask_rate=0.3)
    example = TASKS["plm"].prepare(short, settings)
    inputs = ("input_ids", "perm_mask", "target_mapping")
    batch = batch_examples([example, TASKS["plm"].prepare(SEQUENCE, settings)], inputs, 0)
    assert sorted(example.places)[-3:] == [1, 2, 3]
    targets = {place: token for token, place in enumerate(example.places) if place}
    hidden = batch["perm_mask"][0]
    for token in range(12):
        unseen = {other for other in range(12) if hidden[token, other]}
        after = [targets[p] for p in targets if p >= example.places[token]]
        assert unseen == (set(after) if example.places[token] else set(targets.values()))
    asked = batch["target_mapping"][0]
    assert [row.argmax() for row in asked[:3]] == sorted(targets.values())
    assert not asked[3:].any()  # the longer example has more targets
    np.testing.assert_array_equal(batch["input_ids"][0, :12], short)


def test_cut_out_spans_are_one_mask_each_and_the_rest_stays_in_order():
    settings = dataclasses.replace(SETTINGS, mask_rate=0.3)
    example = TASKS["denoising"].prepare(SEQUENCE, settings)
    kept = [token for token in example.ids if token != 4]
    assert len(kept) == len(SEQUENCE) - 60  # 30% of 200 are gone
    assert kept == [token for token in SEQUENCE if token in set(kept)]
    assert (kept[0], kept[-1]) == (2, 3)
    np.testing.assert_array_equal(example.labels, SEQUENCE)
    assert example.decoder_ids == (3, *SEQUENCE[:-1])


@pytest.mark.parametrize("tokens", [1, 2, 3, 9, 200])
def test_with_sentinels_the_decoder_writes_what_each_one_stands_for(tokens):
    sentinels = tuple(range(299, 269, -1))
    settings = dataclasses.replace(SETTINGS, mask_id=None, mask_rate=0.3, sentinels=sentinels)
    sequence = (*SEQUENCE[1 : tokens + 1], 3)
    example = TASKS["denoising"].prepare(sequence, settings)
    cut = [token for token in example.ids if token in sentinels]
    assert cut == list(sentinels[: len(cut)])
    assert (tokens, len(cut)) in {(1, 1), (2, 1), (3, 1), (9, 1), (200, 20)}
    *written, end = example.labels.tolist()
    assert (end, example.ids[-1]) == (3, 3)
    spans, hidden = {}, 0
    for token in written:
        if token in sentinels:
            spans[token] = []
        else:
            spans[[*spans][-1]].append(token)
            hidden += 1
    assert hidden == max(1, round(0.3 * tokens))
    assert all(spans.values())
    whole = [inner for token in example.ids for inner in spans.get(token, [token])]
    assert whole == list(sequence)
    assert example.decoder_ids == (3, *written)
    few = dataclasses.replace(settings, sentinels=sentinels[:10])
    if tokens == 200:
        with pytest.raises(EvaluationError, match=r"cuts 20 spans .* has 10 sentinels; give a sm"):
            TASKS["denoising"].prepare(sequence, few)


def test_the_lengths_of_spans_are_poisson_s_and_cover_what_is_asked():
    rng = np.random.default_rng(0)
    drawn = [draw_lengths(60, rng) for _ in range(300)]
    assert all(lengths.sum() == 60 for lengths in drawn)
    inner = np.concatenate([lengths[:-1] for lengths in drawn])
    assert abs(inner.mean() - 3) < 0.15
    assert abs((inner == 0).mean() - np.exp(-3)) < 0.01


@given(st.integers(2, 400), st.integers(2, 60), st.data())
def test_windows_score_each_token_once_with_enough_before_it(tokens, length, data):
    stride = data.draw(st.integers(1, length - 1))
    scored = []
    for start, first, end in windows(tokens, length, stride):
        assert end - start <= length
        scored += range(first, end)
        assert first - start >= min(first, length - stride)
    assert scored == list(range(1, tokens))
