import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from fls_bench.metrics.dimension import (
    mle_dimension,
    neighbour_distances,
    neighbour_ratios,
    two_nn_dimension,
)


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def dimension(x):
    ratios, duplicates = neighbour_ratios(x)
    assert int(duplicates) == 0
    return float(two_nn_dimension(ratios))


def mle(x, num=10):
    distances, duplicates = neighbour_distances(x, num)
    assert int(duplicates) == 0
    return float(mle_dimension(distances))


def test_against_sklearn_and_a_fit_written_out():
    x = draw(300, 4) @ draw(4, 20, seed=1) + 100
    distances, _ = NearestNeighbors(n_neighbors=3).fit(x.numpy()).kneighbors(x.numpy())
    ratios = distances[:, 2] / distances[:, 1]
    np.testing.assert_allclose(neighbour_ratios(x)[0].numpy(), ratios, rtol=1e-7)
    mu = np.sort(ratios)[:270]
    y = -np.log(1 - np.arange(1, 271) / 300)
    slope = np.linalg.lstsq(np.log(mu)[:, None], y, rcond=None)[0][0]
    assert dimension(x) == pytest.approx(slope)


def test_the_likelihood_of_levina_and_bickel_written_out():
    x = draw(200, 4) @ draw(4, 20, seed=1) + 100
    distances, _ = NearestNeighbors(n_neighbors=8).fit(x.numpy()).kneighbors(x.numpy())
    np.testing.assert_allclose(neighbour_distances(x, 7)[0].numpy(), distances[:, 1:], rtol=1e-7)
    inverse = [np.mean([np.log(row[7] / row[j]) for j in range(1, 7)]) for row in distances]
    assert mle(x, 7) == pytest.approx(1 / np.mean(inverse))


@pytest.mark.parametrize("d", [1, 2, 5])
def test_cubes_of_a_known_dimension_in_a_larger_space(d):
    # The error of one estimate is about d / sqrt(n).
    found = [dimension(draw(1000, d, seed=s) @ torch.randn(d, 30).double()) for s in range(4)]
    assert np.mean(found) == pytest.approx(d, rel=0.12)
    found = [mle(draw(1000, d, seed=s) @ torch.randn(d, 30).double()) for s in range(4)]
    assert np.mean(found) == pytest.approx(d, rel=0.12)


def test_a_curved_manifold():
    u = 6.28 * draw(1500, 2)
    torus = torch.stack([
        (2 + u[:, 0].cos()) * u[:, 1].cos(), (2 + u[:, 0].cos()) * u[:, 1].sin(), u[:, 0].sin()
    ], dim=1)  # fmt: skip
    assert dimension(torus) == pytest.approx(2, rel=0.12)
    assert mle(torus) == pytest.approx(2, rel=0.12)


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_scale_rotation_and_order_do_not_matter(seed, scale):
    x = draw(60, 5, seed=seed)
    turn = torch.linalg.qr(draw(5, 5, seed=seed + 1)).Q
    order = draw(60, seed=seed + 2).argsort()
    moved = scale * (x[order] @ turn + 1)
    assert dimension(moved) == pytest.approx(dimension(x), rel=1e-6)
    assert mle(moved) == pytest.approx(mle(x), rel=1e-6)


def test_duplicates_are_counted_and_have_no_ratio():
    x = draw(50, 3).float()
    x[:4] = x[4]
    ratios, duplicates = neighbour_ratios(x)
    assert int(duplicates) == 5
    assert ratios.isnan().nonzero()[:, 0].tolist() == [0, 1, 2, 3, 4]


def ratios_by_all_distances(x):
    distances = np.linalg.norm(x[:, None] - x[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    distances.sort(axis=1)
    return distances[:, 1] / distances[:, 0]


@pytest.mark.parametrize("n", [3, 4, 5])
def test_three_points_are_enough(n):
    x = draw(n, 2)
    expected = ratios_by_all_distances(x.numpy())
    np.testing.assert_allclose(neighbour_ratios(x)[0].numpy(), expected, rtol=1e-9)


def test_the_nearest_of_points_far_from_the_others_are_told_apart():
    # Groups of four, a millionth apart at a distance of a thousand: products of inputs cancel there.
    x = 1e3 * draw(20, 3).repeat_interleave(4, 0) + 1e-6 * draw(80, 3, seed=1)
    ratios, duplicates = neighbour_ratios(x)
    assert int(duplicates) == 0
    np.testing.assert_allclose(ratios.numpy(), ratios_by_all_distances(x.numpy()), rtol=1e-5)


def test_one_pair_that_coincides_is_enough():
    x = draw(50, 3)
    x[7] = x[30]
    ratios, duplicates = neighbour_ratios(x)
    assert int(duplicates) == 2
    assert ratios.isnan().nonzero()[:, 0].tolist() == [7, 30]
