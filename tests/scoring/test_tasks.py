import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surgeon.scoring.examples import Example, batches_by_length
from surgeon.scoring.tasks import TASKS, Settings
from surgeon.scoring.tasks.masked import mask

_SETTINGS = Settings(seed=0, mask_rate=0.15, mask_id=4, special_ids=(0, 1, 2, 3, 4))
_SEQUENCE = (2, *range(5, 45), 3)


def test_a_share_of_the_ordinary_tokens_is_masked_and_no_other():
    example = mask(_SEQUENCE, _SETTINGS)
    ids = np.array(example.ids)
    assert len(example.positions) == 6  # 15% of 40
    assert (ids[example.positions] == 4).all()
    np.testing.assert_array_equal(example.labels, np.array(_SEQUENCE)[example.positions])
    untouched = np.setdiff1d(np.arange(42), example.positions)
    np.testing.assert_array_equal(ids[untouched], np.array(_SEQUENCE)[untouched])


def test_masks_depend_on_the_seed_and_the_sequence():
    def positions(sequence, seed):
        settings = Settings(seed=seed, mask_rate=0.15, mask_id=4, special_ids=(2, 3, 4))
        return tuple(mask(sequence, settings).positions)

    assert positions(_SEQUENCE, 0) == positions(_SEQUENCE, 0)
    assert positions(_SEQUENCE, 0) != positions(_SEQUENCE, 1)
    assert positions(_SEQUENCE, 0) != positions((*_SEQUENCE[:-1], 44, 3), 0)


def test_a_short_sequence_has_one_mask_and_an_empty_one_is_left_out():
    assert len(mask((2, 9, 3), _SETTINGS).positions) == 1
    assert mask((2, 3), _SETTINGS) is None


def test_causal_labels_are_the_next_tokens():
    example = TASKS["clm"].prepare((7, 8, 9), _SETTINGS)
    assert example.positions.tolist() == [0, 1]
    assert example.labels.tolist() == [8, 9]
    assert TASKS["clm"].prepare((7,), _SETTINGS) is None


@pytest.mark.parametrize("scale", [1, 1000])
def test_the_loss_is_pytorch_s_cross_entropy(scale):
    logits = np.random.default_rng(0).normal(size=(42, 50)).astype(np.float32) * scale
    example = mask(_SEQUENCE, _SETTINGS)
    total, correct, count = TASKS["mlm"].observe(logits, example)
    positions, labels = torch.tensor(example.positions), torch.tensor(example.labels)
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(logits).double()[positions], labels, reduction="sum"
    )
    assert total == pytest.approx(expected.item(), rel=1e-12)
    assert correct == (logits[example.positions].argmax(1) == example.labels).sum()
    assert count == 6


def test_perplexity_is_the_exponential_of_the_loss_where_it_can_be():
    assert TASKS["clm"].derive({"loss": 2.0})["perplexity"] == pytest.approx(math.exp(2))
    assert TASKS["clm"].derive({"loss": 1000.0}) == {}


def test_drift_is_zero_for_the_same_one_for_nothing_in_common_and_two_for_the_opposite():
    baseline = np.array([[1.0, 2.0], [1.0, 0.0], [3.0, 1.0], [1.0, 1.0]])
    variant = np.array([[1.0, 2.0], [0.0, 5.0], [-6.0, -2.0], [0.0, 0.0]])
    drift = TASKS["drift"].score(variant, baseline)["drift"].total
    np.testing.assert_allclose(drift, [0, 1, 2, 1])
    assert drift[0] == 0.0


def test_padding_does_not_enter_the_embedding():
    states = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    example = TASKS["drift"].prepare((1, 2, 3), _SETTINGS)
    np.testing.assert_allclose(TASKS["drift"].observe(states, example), states[:3].mean(0))


@given(st.lists(st.integers(1, 600), max_size=60), st.sampled_from([1, 384, 30522, 250_000]))
def test_batches_hold_every_example_once_within_the_budget(lengths, width):
    nothing = np.empty(0, dtype=np.int64)
    examples = [Example((0,) * length, nothing, nothing) for length in lengths]
    batches = list(batches_by_length(examples, width))
    assert sorted(n for batch in batches for n in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(lengths[n] for n in batch)
        assert len(batch) == 1 or padded <= 2048
        assert len(batch) == 1 or padded * width <= 48_000_000
