"""The adaptive sweep on simulated nets whose truth is known: where it looks, and what it concludes."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from error_rates import EQUAL, FLAT, RISING, WORLDS, World, simulate, valley

from fls_bench.schema import Regime


def offsets(result: object, log2_c: float) -> list[float]:
    return [math.log2(cell.c) - log2_c for cell in result.sweep.cells]  # type: ignore[attr-defined]


def test_extends_toward_a_far_optimum_and_refines_around_it() -> None:
    world = World(valley(0.03, 4.0), lambda _: 0.004)
    regime, result = simulate(world, 10, 0, log2_c=-4.0)
    assert regime is Regime.OVER_ALIGNED
    assert result.star is not None
    assert abs(math.log2(result.star) - 4.0) <= 1
    tried = offsets(result, -4.0)
    assert 10.0 in tried  # beyond the optimum, 8 octaves up
    assert {7.0, 9.0} & set(tried)  # refined by one octave around the best


def test_stops_at_its_limit_and_says_that_the_optimum_lies_at_the_end() -> None:
    from fls_bench.verdict.diagnosis import diagnose
    from fls_bench.verdict.evidence import Evidence

    world = World(lambda k: 0.2 + 0.01 * k, lambda _: 0.002)  # ever smaller c, ever better
    regime, result = simulate(world, 6, 0, log2_c=0.0)
    assert regime is Regime.OVER_FITTED
    assert min(offsets(result, 0.0)) == -12.0
    found = diagnose(Evidence(result.sweep, 1.0, result.gain, result.centered))
    assert found.c_star is not None
    assert found.c_star.at_edge == "low"
    texts = [f.text for f in found.findings if f.code == "optimum_at_edge"]
    assert len(texts) == 1
    assert "The optimum lies at the end of the range" in texts[0]


def test_more_seeds_only_where_undecided() -> None:
    clear = World(valley(0.06, -4.0), lambda _: 0.002)
    _, result = simulate(clear, 20, 0)
    assert {len(cell.seeds) for cell in result.sweep.cells} == {6}
    noisy = World(FLAT, lambda _: 0.03)
    _, result = simulate(noisy, 20, 0)
    counts = [len(cell.seeds) for cell in result.sweep.cells]
    assert max(counts) > 6


def test_cells_are_paired_by_seed() -> None:
    _, result = simulate(World(FLAT, EQUAL), 6, 3)
    seeds = {tuple(run.seed for run in cell.seeds) for cell in result.sweep.cells}
    assert len(seeds) == 1


def test_gain_is_measured_on_seeds_that_chose_nothing() -> None:
    _, result = simulate(WORLDS["c 4 points above the optimum, too small"][0], 20, 1)
    assert result.gain is not None
    assert result.gain.num_seeds == 10
    swept = {run.seed for cell in result.sweep.cells for run in cell.seeds}
    assert max(swept) < 1500
    assert not swept & set(range(1500, 1510))


@pytest.mark.parametrize("name", [name for name in WORLDS if name.startswith("flat")])
def test_flat_truth_is_rarely_called(name: str) -> None:
    """Adaptive sampling included: over-aligned and over-fitted together in at most 5 % of sweeps."""
    world, log2_c = WORLDS[name]
    regimes = Counter(simulate(world, 10, seed, log2_c)[0] for seed in range(60))
    # Of 60 sweeps at a true 5 %, more than 9 come with a probability below 0.001. Seeds are fixed:
    # a run can't raise a false alarm by chance.
    assert regimes[Regime.OVER_ALIGNED] + regimes[Regime.OVER_FITTED] <= 9


def test_gain_covers_zero_on_a_flat_truth() -> None:
    covered = []
    for seed in range(100):
        _, result = simulate(World(FLAT, RISING), 6, seed)
        if result.gain is not None:
            covered.append(result.gain.low <= 0 <= result.gain.high)
    assert sum(covered) / len(covered) >= 0.88


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("c 4 points above the optimum, too small", Regime.OVER_ALIGNED),
        ("c 2 points above the optimum, too large", Regime.OVER_FITTED),
        ("optimum at c", Regime.NEAR_OPTIMAL),
    ],
)
def test_finds_what_is_there_and_never_its_opposite(name: str, expected: Regime) -> None:
    world, log2_c = WORLDS[name]
    regimes = Counter(simulate(world, 20, seed, log2_c)[0] for seed in range(30))
    assert regimes[expected] >= 20
    assert set(regimes) <= {expected, Regime.INCONCLUSIVE}
