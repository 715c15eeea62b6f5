import math

import pytest
import torch

from fls_bench.metrics.features import initial_function_share, relative_movement


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_relative_movement_against_loops():
    w, w_0 = draw(4, 3), draw(4, 3, seed=1)
    change = sum((float(w[i, j]) - float(w_0[i, j])) ** 2 for i in range(4) for j in range(3))
    start = sum(float(w_0[i, j]) ** 2 for i in range(4) for j in range(3))
    assert float(relative_movement(w, w_0)) == pytest.approx(math.sqrt(change / start))


def test_relative_movement_of_a_known_step():
    w = draw(4, 3)
    assert float(relative_movement(w, w)) == 0
    assert float(relative_movement(3 * w, w)) == pytest.approx(2)
    assert not relative_movement(w, torch.zeros_like(w)).isfinite()


def test_small_movement_in_float32_is_not_lost():
    w = draw(50, 50).float()
    assert float(relative_movement(w * (1 + 2**-20), w)) == pytest.approx(2**-20, rel=0.2)


def test_share_of_the_initial_function():
    f_0 = draw(10, 3)
    assert float(initial_function_share(f_0, 0 * f_0)) == 1
    assert float(initial_function_share(0 * f_0, f_0)) == 0
    assert float(initial_function_share(f_0, -f_0)) == pytest.approx(0.5)
    assert float(initial_function_share(2 * f_0, f_0)) == pytest.approx(0.8)
    assert initial_function_share(0 * f_0, 0 * f_0).isnan()


def test_leading_dimensions_are_replicas():
    w, w_0 = draw(2, 3, 4, 5), draw(2, 3, 4, 5, seed=1)
    moved, share = relative_movement(w, w_0), initial_function_share(w, w_0)
    assert moved.shape == share.shape == (2, 3)
    torch.testing.assert_close(moved[1, 2], relative_movement(w[1, 2], w_0[1, 2]))
    torch.testing.assert_close(share[1, 2], initial_function_share(w[1, 2], w_0[1, 2]))
