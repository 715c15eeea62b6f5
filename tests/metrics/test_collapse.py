import numpy as np
import pytest
import torch

from fls_bench.metrics.collapse import self_duality, within_between

K = 4


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def blobs(n=60, d=7, spread=0.5, seed=0):
    y = torch.arange(n) % K
    return draw(K, d, seed=seed)[y] + spread * draw(n, d, seed=seed + 1), y


def reference(x, y):
    """Papyan's definition with the matrices written out."""
    means = [x[y == k].mean(0) for k in range(K)]
    grand = sum(means) / K
    within = sum(np.outer(p - means[k], p - means[k]) for p, k in zip(x, y, strict=True)) / len(x)
    between = sum(np.outer(m - grand, m - grand) for m in means) / K
    return np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / K


@pytest.mark.parametrize("d", [2, 7, 40])
def test_variability_against_matrices(d):
    x, y = blobs(d=d)
    expected = reference(x.numpy(), y.numpy())
    assert float(within_between(x, y, K)) == pytest.approx(expected)
    assert float(within_between(x.float(), y, K)) == pytest.approx(expected, rel=1e-3)


def test_variability_of_known_features():
    x, y = blobs(spread=0)
    assert float(within_between(x, y, K)) == pytest.approx(0, abs=1e-12)
    assert float(within_between(x + 5, y, K + 3)) == pytest.approx(0, abs=1e-12)
    x, y = blobs()
    turn = torch.linalg.qr(draw(7, 7, seed=3)).Q
    expected = float(within_between(x, y, K))
    assert float(within_between(3 * x @ turn + 1, y, K)) == pytest.approx(expected)
    for small in (1e-3, 1e-9):
        assert float(within_between(small * x, y, K)) == pytest.approx(expected)
        same = float(self_duality(draw(K, 7, seed=4), x, y))
        assert float(self_duality(draw(K, 7, seed=4), small * x, y)) == pytest.approx(same)
    means = torch.stack([x[y == k].mean(0) for k in range(K)])[y]
    assert float(within_between(means + 2 * (x - means), y, K)) == pytest.approx(4 * expected)
    assert within_between(torch.ones(60, 3), y, K).isnan()
    assert within_between(x - means, y, K).isnan()
    assert within_between(x * torch.nan, y, K).isnan()


def test_self_duality_is_papyans_distance():
    (x, y), w = blobs(), draw(K, 7, seed=4)
    means = torch.stack([x[y == k].mean(0) for k in range(K)])
    m, v = (means - means.mean(0)).numpy(), (w - w.mean(0)).numpy()
    distance = ((v / np.linalg.norm(v) - m / np.linalg.norm(m)) ** 2).sum()
    assert float(self_duality(w, x, y)) == pytest.approx(1 - distance / 2)


def test_self_duality_of_known_read_outs():
    x, y = blobs()
    means = torch.stack([x[y == k].mean(0) for k in range(K)])
    assert float(self_duality(2 * means + draw(1, 7), x, y)) == pytest.approx(1)
    assert float(self_duality(-means, x, y)) == pytest.approx(-1)
    two = y % 2
    line = x[two == 1].mean(0) - x[two == 0].mean(0)
    assert float(self_duality(line[None], x, two)) == pytest.approx(1)
    assert self_duality(0 * means, x, y).isnan()
    assert self_duality(means, torch.ones(60, 7), y).isnan()
    assert self_duality(draw(K + 1, 7), x, y).isnan()
