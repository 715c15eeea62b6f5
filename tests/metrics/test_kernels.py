import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ortho_group

from fls_bench.metrics.kernels import centered_features, effective_rank, linear_cka

SHAPES = st.tuples(st.integers(5, 40), st.integers(2, 12), st.integers(0, 2**32 - 1))
SCALES = st.floats(1e-6, 1e6)


def draw(n, width, seed, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(n, width)) + rng.normal(size=width)).to(dtype)


def reference_cka(x, y):
    """HSIC with explicit centring matrices."""
    n = len(x)
    center = np.eye(n) - np.ones((n, n)) / n
    k, m = center @ x @ x.T @ center, center @ y @ y.T @ center
    return np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m))


def reference_rank(x):
    eigenvalues = np.linalg.eigvalsh(np.cov(x, rowvar=False))
    return eigenvalues.sum() ** 2 / (eigenvalues**2).sum()


@pytest.mark.parametrize(("n", "width", "other"), [(30, 4, 6), (8, 20, 5), (8, 5, 20), (9, 9, 9)])
def test_against_slow_references(n, width, other):
    x, y = draw(n, width, 0), draw(n, other, 1)
    assert float(linear_cka(x, y)) == pytest.approx(reference_cka(x.numpy(), y.numpy()), rel=1e-10)
    assert float(effective_rank(x)) == pytest.approx(reference_rank(x.numpy()), rel=1e-10)


def test_effective_rank_counts_equal_directions():
    directions = torch.eye(7, dtype=torch.float64)[:3]
    assert float(effective_rank(torch.cat([directions, -directions]))) == pytest.approx(3)


@given(SHAPES, SCALES)
def test_cka_does_not_see_rotation_scale_or_offset(shape, scale):
    n, width, seed = shape
    x, y = draw(n, width, seed), draw(n, width, seed + 1)
    rotation = torch.from_numpy(ortho_group.rvs(width, random_state=seed % 1000))
    assert float(linear_cka(x, scale * x @ rotation + 1)) == pytest.approx(1)
    expected = float(linear_cka(x, y))
    assert 0 <= expected <= 1
    assert float(linear_cka(scale * x @ rotation, y)) == pytest.approx(expected, abs=1e-9)


@given(SHAPES, SCALES)
def test_effective_rank_does_not_see_rotation_scale_or_offset(shape, scale):
    n, width, seed = shape
    x = draw(n, width, seed)
    rotation = torch.from_numpy(ortho_group.rvs(width, random_state=seed % 1000))
    expected = float(effective_rank(x))
    assert 1 - 1e-9 <= expected <= min(n - 1, width) + 1e-9
    assert float(effective_rank(scale * x @ rotation + 1)) == pytest.approx(expected, rel=1e-6)


def test_leading_dimensions_are_replicas():
    x, y = draw(6 * 20, 5, 0).reshape(2, 3, 20, 5), draw(6 * 20, 4, 1).reshape(2, 3, 20, 4)
    ranks, ckas = effective_rank(x), linear_cka(x, y)
    assert ranks.shape == ckas.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(ranks[i, j], effective_rank(x[i, j]))
            torch.testing.assert_close(ckas[i, j], linear_cka(x[i, j], y[i, j]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_that_vary_by_rounding_only_are_undefined(dtype):
    noise = torch.finfo(dtype).eps * draw(20, 3, 0, dtype)
    constant = torch.full((20, 3), 0.7, dtype=dtype)
    varying = draw(20, 3, 1, dtype)
    for features in (torch.zeros_like(constant), constant, constant + noise):
        assert not centered_features(features).any()
        assert effective_rank(features).isnan()
        assert linear_cka(features, varying).isnan()
        assert linear_cka(varying, features).isnan()
    assert effective_rank(constant + 1e-3 * varying).isfinite()


def test_tiny_features_are_not_rounding():
    x = 1e-12 * draw(20, 3, 0, torch.float32)
    assert float(effective_rank(x)) == pytest.approx(float(effective_rank(1e12 * x)), rel=1e-6)
