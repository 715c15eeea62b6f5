import math

import numpy as np
import powerlaw
import pytest
import torch

from fls_bench.metrics import NetState, Snapshot, measure
from fls_bench.metrics.spectra import (
    MIN_TAIL,
    NUM_SYNTHETIC,
    eigenvalues,
    fit_tail,
    stable_rank,
    tail_plausibility,
)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pareto(r, alpha, seed=0, smallest=1.0):
    u = np.random.default_rng(seed).random(r)
    return torch.from_numpy(np.sort(smallest * (1 - u) ** (-1 / (alpha - 1))))


def matrix_with(values, seed=0, extra=5):
    """A matrix W whose W W^T has these eigenvalues."""
    r = len(values)
    left = torch.linalg.qr(draw(r, r, seed=seed)).Q
    right = torch.linalg.qr(draw(r + extra, r, seed=seed + 1)).Q
    return left @ values.sqrt().diag() @ right.T


def of_weights(**weights):
    none, out = {}, torch.zeros(1, 2)
    net = NetState(weights, none, none, none, out, out, out)
    x, y = torch.zeros(1, 3), torch.zeros(1, dtype=torch.long)
    snap = Snapshot(net, None, 1.0, False, 2, x, y, x, y, x, y)
    found = measure(snap, ["spectrum.stable_rank", "spectrum.tail_exponent"])
    return {(m.metric.partition(".")[2], m.layer): m for m in found}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("seed", range(6))
def test_fit_against_the_package_powerlaw(seed):
    values = [
        pareto(80, 2.5, seed),
        eigenvalues(draw(60, 90, seed=seed)),
        torch.cat([1 - draw(60, seed=seed).sigmoid() / 2, pareto(40, 3.0, seed)]).sort().values,
    ][seed % 3]
    tail = fit_tail(values)
    allowed = float(values[len(values) - MIN_TAIL])
    theirs = powerlaw.Fit(
        values.numpy(),
        xmin=(float(values[0]), allowed + 1e-12),
        verbose=0,
        parameter_ranges={"alpha": (1.0, 100.0)},
    )
    assert float(tail.exponent) == pytest.approx(theirs.power_law.alpha, rel=1e-6)
    assert float(values[tail.start]) == pytest.approx(theirs.xmin)


def test_distance_written_out():
    values = pareto(40, 2.2, seed=3)
    tail = fit_tail(values)
    x = values[int(tail.start) :]
    alpha = 1 + len(x) / float((x / x[0]).log().sum())
    assert float(tail.exponent) == pytest.approx(alpha)
    gap = 0.0
    for i, one in enumerate(x.tolist()):
        fitted = 1 - (one / float(x[0])) ** (1 - alpha)
        gap = max(gap, abs(fitted - i / len(x)))
    assert float(tail.distance) == pytest.approx(gap)


def test_leading_dimensions_are_replicas():
    values = torch.stack([pareto(50, 2.5, seed) for seed in range(6)]).reshape(2, 3, 50)
    tails = fit_tail(values)
    for i in range(2):
        for j in range(3):
            one = fit_tail(values[i, j])
            for name in ("exponent", "distance", "start", "size"):
                torch.testing.assert_close(getattr(tails, name)[i, j], getattr(one, name))


@pytest.mark.parametrize("alpha", [1.8, 2.5, 4.0])
def test_a_known_exponent_is_found(alpha):
    found = [float(fit_tail(pareto(1000, alpha, seed)).exponent) for seed in range(5)]
    # The error of one fit is (alpha - 1)/sqrt(tail), a tail of some hundreds.
    assert np.mean(found) == pytest.approx(alpha, abs=0.2 * (alpha - 1))


def test_power_laws_are_plausible_and_what_is_none_is_not():
    def plausibility(values, seed):
        generator = torch.Generator().manual_seed(seed)
        return float(tail_plausibility(values, fit_tail(values), generator))

    real = [plausibility(pareto(150, 2.5, seed), seed) for seed in range(12)]
    # Under a power law p < 0.1 in a tenth of cases: more than 5 of 12 with probability 5e-4.
    assert sum(p < 0.1 for p in real) <= 5
    # A narrow peak far from zero, with one tail on each side.
    steps = torch.cat([torch.full((60,), 1.0), torch.full((60,), 3.0)]) + 1e-6 * pareto(120, 3)
    assert plausibility(steps.sort().values, 0) < 0.1


@pytest.mark.parametrize("seed", range(3))
def test_plausibility_written_out(seed):
    # Half of the values below the power law, so that both parts are drawn from.
    values = torch.cat([draw(40, seed=seed).sigmoid(), pareto(40, 2.5, seed)]).sort().values
    tail = fit_tail(values)
    r, start, alpha = len(values), int(tail.start), float(tail.exponent)
    assert 0 < start < r - MIN_TAIL
    generator = torch.Generator().manual_seed(seed)
    u, body, where = (
        torch.rand(NUM_SYNTHETIC, r, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    farther = 0
    for i in range(NUM_SYNTHETIC):
        made = []
        for j in range(r):
            if where[i, j] < (r - start) / r:
                made.append(float(values[start]) * float(1 - u[i, j]) ** (-1 / (alpha - 1)))
            else:
                made.append(float(values[int(body[i, j] * start)]))
        farther += bool(fit_tail(torch.tensor(sorted(made)).double()).distance >= tail.distance)
    p = tail_plausibility(values, tail, torch.Generator().manual_seed(seed))
    assert float(p) == pytest.approx((1 + farther) / (1 + NUM_SYNTHETIC))


def test_stable_rank():
    assert float(stable_rank(torch.eye(7))) == pytest.approx(7)
    w = draw(6, 9)
    values = np.linalg.eigvalsh((w @ w.T).numpy())
    assert float(stable_rank(w)) == pytest.approx(values.sum() / values[-1])
    assert float(stable_rank(w @ torch.linalg.qr(draw(9, 9, seed=1)).Q * 5)) == pytest.approx(
        float(stable_rank(w))
    )
    for undefined in (0 * w, w / 0, w.index_fill(0, torch.tensor([1]), torch.nan)):
        assert stable_rank(undefined).isnan()
        assert stable_rank(undefined).dtype == torch.float64


def test_a_heavy_tail_is_read_from_the_matrix_in_float32():
    w = matrix_with(pareto(200, 2.5))
    exact = of_weights(fc=w)["tail_exponent", "fc"]
    assert exact.status == "ok"
    assert exact.value == pytest.approx(float(fit_tail(pareto(200, 2.5)).exponent), rel=1e-6)
    assert exact.value == pytest.approx(2.5, abs=0.4)
    rough = of_weights(fc=w.float())["tail_exponent", "fc"]
    assert rough.value == pytest.approx(exact.value, rel=0.02)
    turned = of_weights(fc=3 * w.flip(0).T)["tail_exponent", "fc"]
    assert turned.value == pytest.approx(exact.value, rel=1e-6)


def test_a_failed_fit_is_no_number():
    steps = torch.cat([torch.full((60,), 1.0), torch.full((60,), 3.0)]) + 1e-6 * pareto(120, 3)
    # Uniform, then ten values far out: the closest tail is these ten alone.
    border = torch.cat([torch.linspace(1, 1.2, 40, dtype=torch.float64), pareto(10, 2.5, 7) * 40])
    found = of_weights(
        small=draw(10, 30),
        equal=torch.eye(40, dtype=torch.float64),
        steps=matrix_with(steps),
        border=matrix_with(border),
        zero=torch.zeros(30, 30),
        low=draw(40, 12) @ draw(12, 40, seed=1),
    )
    for layer, fragment in (
        ("small", "10 eigenvalues above rounding; a fit needs 20"),
        ("equal", "all equal|shortest|no power law"),
        ("steps", "no power law: goodness of fit p = 0.0"),
        ("border", "runs to the border"),
        ("zero", "0 eigenvalues"),
        ("low", "12 eigenvalues"),
    ):
        one = found["tail_exponent", layer]
        assert one.value is None, layer
        assert any(part in one.reason for part in fragment.split("|")), one.reason
    assert "all 0" in found["stable_rank", "zero"].reason
    assert math.isclose(found["stable_rank", "equal"].value, 40)
