import numpy as np
import pytest
from ranking.test_layernorm import make_checkpoint, vectors  # noqa: F401  (a fixture)

from surgeon.ranking.layernorm import rank_by_count


def test_gains_and_biases_are_counted_apart(tmp_path, vectors):  # noqa: F811
    gains, biases = vectors
    gains[:2, 7] = 9  # the gain alone, in 2 of 4 layers: more than a quarter
    biases[2:, 8] = -9  # the bias alone
    gains[0, 9], biases[1, 9] = 9, 9  # each once, which is a quarter and no more
    ranking = rank_by_count(make_checkpoint(tmp_path / "m", gains, biases))
    assert set(ranking.outliers) == {7, 8}
    by_dim = {d.dim: d for d in ranking.dimensions}
    assert (by_dim[7].layers, by_dim[7].score) == ((0, 1), 0.5)
    assert (by_dim[8].layers, by_dim[8].score) == ((2, 3), 0.5)
    assert (by_dim[9].layers, by_dim[9].score) == ((0, 1), 0.25)


@pytest.mark.parametrize(("layers", "needed"), [(12, 4), (6, 2), (4, 2), (3, 1)])
def test_more_than_a_quarter_of_the_layers_is_more_than_3_of_12(tmp_path, layers, needed):
    rng = np.random.default_rng(0)
    spread = np.linspace(-1, 1, 100)
    gains = np.array([rng.permutation(spread) for _ in range(layers)])
    gains[:needed, 5] = 9
    gains[: needed - 1, 6] = 9
    ranking = rank_by_count(make_checkpoint(tmp_path / "m", gains, np.zeros((layers, 100))))
    assert ranking.outliers == (5,)
