import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fls_bench.metrics.alignment import class_directions
from fls_bench.metrics.energy import (
    energy_in_span,
    permuted_energies,
    principal_energies,
    span_size,
)

K = 3


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def blobs(n=40, d=9, seed=0, spread=1.0):
    labels = torch.arange(n) % K
    return draw(K, d, seed=seed)[labels] + spread * draw(n, d, seed=seed + 1), labels


def permutations(n, num=99, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(n, generator=generator) for _ in range(num)])


def principal(change, x, size=2, seed=0, resamples=99, **options):
    generator = torch.Generator().manual_seed(seed)
    return principal_energies(change, x, size, generator, resamples=resamples, **options)


def reference(change, x, y):
    """A basis of the class means by Gram-Schmidt, one class after the other."""
    basis = []
    for k in sorted(set(y.tolist()))[:-1]:
        v = x[y == k].mean(axis=0) - x.mean(axis=0)
        for b in basis:
            v = v - (v @ b) * b
        basis.append(v / np.linalg.norm(v))
    inside = sum((row @ b) ** 2 for row in change for b in basis)
    return inside / sum(row @ row for row in change)


def test_energy_against_gram_schmidt():
    (x, y), change = blobs(), draw(5, 9, seed=5)
    expected = reference(change.numpy(), x.numpy(), y.numpy())
    directions = class_directions(x, y, K)
    assert span_size(directions) == K - 1
    assert float(energy_in_span(change, directions)) == pytest.approx(expected)
    orders = permutations(len(y), 5)
    null = sorted(reference(change.numpy(), x.numpy(), y[o].numpy()) for o in orders)
    np.testing.assert_allclose(permuted_energies(change, x, y, K, orders).numpy(), null)


def test_energy_of_known_changes():
    x, y = blobs()
    directions = class_directions(x, y, K)
    along = draw(5, K, seed=1) @ directions
    across = draw(5, 9, seed=2) @ torch.linalg.svd(directions).Vh[K - 1 :].T
    across = across @ torch.linalg.svd(directions).Vh[K - 1 :]
    assert float(energy_in_span(along, directions)) == pytest.approx(1)
    assert float(energy_in_span(across, directions)) == pytest.approx(0, abs=1e-12)
    both = 3 * along / along.norm() + across / across.norm()
    assert float(energy_in_span(both, directions)) == pytest.approx(0.9)
    assert energy_in_span(0 * along, directions).isnan()
    assert energy_in_span(along, torch.full_like(directions, torch.nan)).isnan()


@given(st.integers(0, 2**32 - 1), st.floats(1e-4, 1e4))
def test_energy_does_not_see_scale_rotation_or_order(seed, scale):
    (x, y), change = blobs(seed=seed), draw(5, 9, seed=seed + 2)
    turn = torch.linalg.qr(draw(9, 9, seed=seed + 3)).Q
    order = permutations(40, 1, seed)[0]
    expected = float(energy_in_span(change, class_directions(x, y, K)))
    turned = class_directions(scale * (x[order] + 1) @ turn, y[order], K)
    assert float(energy_in_span(scale * change @ turn, turned)) == pytest.approx(expected, rel=1e-6)


def test_a_change_without_labels_exceeds_the_95_percent_bound_in_5_percent_of_cases():
    # Binomial(120, 0.05) leaves 1..15 with probability 0.0025, were the seeds not fixed.
    x, y = blobs(n=30, d=8)
    orders = permutations(30)
    exceeded = sum(
        bool(
            energy_in_span(change, class_directions(x, y, K))
            > permuted_energies(change, x, y, K, orders)[94]
        )
        for change in (draw(5, 8, seed=1000 + seed) for seed in range(120))
    )
    assert 1 <= exceeded <= 15


@pytest.mark.parametrize(("n", "d"), [(40, 9), (20, 30)])
def test_principal_null_written_out(n, d):
    (x, _), change = blobs(n=n, d=d), draw(5, d, seed=5)
    rows = torch.randint(n, (7, n), generator=torch.Generator().manual_seed(4))
    expected = []
    for some in rows:
        _, _, v = np.linalg.svd((x[some] - x[some].mean(0)).numpy(), full_matrices=False)
        expected.append(((change.numpy() @ v[:2].T) ** 2).sum() / float(change.square().sum()))
    found = principal(change, x, seed=4, resamples=7)
    np.testing.assert_allclose(found.numpy(), sorted(expected), rtol=1e-9)


def test_fewer_kept_components_hardly_change_the_null():
    x = draw(200, 60) @ torch.diag(torch.linspace(3, 0.1, 60).double().square())
    change = draw(10, 60, seed=1) @ torch.diag(torch.linspace(3, 0.1, 60).double())
    whole = principal(change, x, size=3, kept=60)
    part = principal(change, x, size=3, kept=20)
    assert float((whole - part).abs().max()) < 0.02


def test_a_change_along_the_leading_components_does_not_beat_their_null():
    x, y = blobs(n=60, spread=0.3)
    x = x + 20 * draw(60, 1, seed=8) @ draw(1, 9, seed=9)  # variance that no label explains
    leading = torch.linalg.svd(x - x.mean(0)).Vh[:2]
    blind = draw(5, 2, seed=3) @ leading
    directions = class_directions(x, y, K)
    assert principal(blind, x)[4] > 0.95
    assert float(energy_in_span(blind, directions)) < float(principal(blind, x)[94])
    labelled = draw(5, K, seed=3) @ directions
    assert float(energy_in_span(labelled, directions)) > float(principal(labelled, x)[94]) + 0.05
    assert principal(labelled, torch.ones_like(x)).isnan().all()


def test_nulls_of_wide_layers_are_the_same_in_parts(monkeypatch):
    (x, y), change, orders = blobs(), draw(5, 9, seed=5), permutations(40, 7)
    whole = permuted_energies(change, x, y, K, orders), principal(change, x, resamples=7)
    seen = []
    monkeypatch.setattr("fls_bench.metrics.energy._MAX_NUMBERS", 2 * 40 * 9)
    monkeypatch.setattr(
        "fls_bench.metrics.energy.class_directions",
        lambda x, y, k: seen.append(len(y)) or class_directions(x, y, k),
    )
    parts = permuted_energies(change, x, y, K, orders), principal(change, x, resamples=7)
    assert seen == [4, 3]  # 720 numbers are those of 4 permutations, 3 classes, 5 + 40 + 9 each
    for one, other in zip(whole, parts, strict=True):
        assert other.shape == (7,)
        torch.testing.assert_close(one, other)


def test_of_features_in_one_dimension_the_null_counts_no_other():
    line = draw(1, 20)
    x, change = draw(6, 1, seed=1) @ line, draw(5, 20, seed=2)
    share = float((change @ line.T).square().sum() / (change.square().sum() * line.square().sum()))
    for size in (1, 2):
        assert principal(change, x, size=size).tolist() == pytest.approx([share] * 99)
