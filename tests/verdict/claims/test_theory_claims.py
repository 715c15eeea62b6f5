"""C5 and C6 on tables whose truth is planted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fls_bench.schema import Cell, ClaimResult, LrRule, Outcome, SeedResult, Sweep
from fls_bench.schema.theory import NOT_BY_DEGREES, RUNS_DIFFER, FlowFacts, FlowLevel
from fls_bench.verdict.claims.theory import judge_theory
from fls_bench.verdict.claims.theory.c5 import trends
from fls_bench.verdict.claims.theory.settling import flow_level, largest_change
from fls_bench.verdict.claims.theory.table import table_of
from fls_bench.verdict.claims.theory.trend import trend

LOG2 = np.arange(-12.0, 5.0)
Law = Callable[[float], float]


def planted(
    oa: Law = lambda k: 0.004 - 0.0002 * (k + 12),
    of: Law = lambda k: 0.002 * 2 ** (0.3 * (k + 12)),
    slope: float = 0.5,
    *,
    noise: float = 1e-5,
    slope_noise: float = 0.02,
    num_seeds: int = 16,
    shared: float = 1e-3,
    stray: int = 0,
) -> Sweep:
    """Runs with a common part per seed (paired differences do not see it) and a noise of their own."""
    rng = np.random.default_rng(0)
    common = shared * rng.random(num_seeds)
    own_slopes = slope + slope_noise * rng.standard_normal(num_seeds)
    cells = []
    for k in LOG2:
        runs = []
        for seed in range(num_seeds):
            first = max(0.0, oa(k) + common[seed] + noise * rng.standard_normal())
            second = max(0.0, of(k) + common[seed] + noise * rng.standard_normal())
            values = {
                "over_alignment": first, "over_fitting": second,
                "excess_effective": first + second, "excess_net": first + second + 1e-4,
                "excess_linear": first, "ties": 0.006, "theta": 0.07, "phi": 0.75,
                "zeta_sum": 1 - 9.3 * 2**k, "zeta_mean": 1 - 93 * 2**k,
            }  # fmt: skip
            if k < -2:
                own = 0.1 if seed < stray else own_slopes[seed]
                values["phase1_angle"] = 0.5 * 2 ** (own * (k + 3))
                values["phase1_neuron_angle"] = 0.8 * 2 ** (0.45 * (k + 3))
                values["phase1_cone_share"] = 0.5 if seed < stray else 1.0
            if k < -3:
                values |= {"psi_min": 0.9, "psi_bound": 0.4, "psi_slack": 0.5}
            runs.append(
                SeedResult(
                    seed=seed, outcome=Outcome.REACHED_TARGET, epochs=10,
                    measurements={f"theory.{name}": float(v) for name, v in values.items()},
                )
            )  # fmt: skip
        cells.append(Cell(c=2.0**k, lr=0.1, seeds=tuple(runs)))
    rule = LrRule(name="homogeneous", depth=2)
    return Sweep(axis="init_scale", lr_rule=rule, n_test=20_000, cells=tuple(cells))


def facts(settled: bool = True, changed: str = "mean theta", change: float = 3) -> FlowFacts:
    levels = (
        FlowLevel(step=0.1, num_runs=10, num_reached=10, replica_steps=700),
        FlowLevel(
            step=0.05, num_runs=10, num_reached=10, replica_steps=1400,
            change=0.5 if settled else change, changed=changed,
        ),
    )  # fmt: skip
    return FlowFacts(
        levels=levels, settled=settled, tolerance=0.1, n_train=20, input_dim=100, width=64,
        kappa=1.0, sigma=0.3, bayes_error=0.0004, target_loss=0.1,
    )  # fmt: skip


def judge(sweep: Sweep, known: FlowFacts | None = None) -> tuple[ClaimResult, ClaimResult]:
    return judge_theory(sweep, known or facts())


def valley(k: float) -> float:
    """Falls by 0.0009 down to 2^-3, then rises."""
    return 0.004 - 0.0001 * (k + 12) if k <= -3 else 0.0032 * 2 ** (k + 3)


def test_opposite_trends_are_reproduced_although_seeds_differ_widely() -> None:
    c5, _ = judge(planted())
    assert c5.outcome == "reproduced"
    assert [part.outcome for part in c5.parts] == ["reproduced"] * 3
    assert c5.num_seeds == 16


def test_over_fitting_that_falls_first_is_seen_with_its_range() -> None:
    c5, _ = judge(planted(of=valley))
    oa, of, identity, beside = c5.parts
    assert (oa.outcome, of.outcome, identity.outcome) == (
        "reproduced", "not_reproduced", "reproduced"
    )  # fmt: skip
    assert c5.outcome == "not_reproduced"
    assert "Between some scales of 2^-12 .. 2^-3" in of.text
    assert "from 2^-12 to 2^-3: by 0.09" in of.text
    # Where its mean is least it rises, beside the claim.
    assert beside.outcome is None
    assert "from 2^-3 on" in beside.name
    assert "holds" in beside.text
    assert "it falls beyond noise within 2^-12 .. 2^-3" in c5.cautions[2]


def test_over_alignment_that_rises_is_not_reproduced() -> None:
    c5, _ = judge(planted(oa=lambda k: 0.001 + 0.0002 * (k + 12)))
    assert c5.parts[0].outcome == "not_reproduced"
    assert c5.outcome == "not_reproduced"


def test_what_noise_hides_is_undecided() -> None:
    c5, _ = judge(planted(noise=3e-3, num_seeds=6))
    assert c5.parts[0].outcome == "undecided"
    assert c5.outcome == "undecided"


@pytest.mark.parametrize(("bump", "outcome"), [(5e-5, "reproduced"), (4e-4, "not_reproduced")])
def test_only_a_change_beyond_the_margin_counts(bump: float, outcome: str) -> None:
    """Both rises are beyond noise; the margin is a fiftieth of the least excess, about 0.00012."""
    c5, _ = judge(planted(oa=lambda k: 0.004 + (bump if k == -10 else 0) - 1e-4 * max(0, k + 8)))
    assert c5.parts[0].outcome == outcome
    assert "Between some scales of 2^-12 .. 2^-10" in c5.parts[0].text


def test_parts_that_do_not_sum_to_the_excess_are_a_mistake() -> None:
    sweep = planted()
    first = sweep.cells[0].seeds[0]
    wrong = {**first.measurements, "theory.excess_effective": 0.5}
    seeds = (first.model_copy(update={"measurements": wrong}), *sweep.cells[0].seeds[1:])
    cells = (sweep.cells[0].model_copy(update={"seeds": seeds}), *sweep.cells[1:])
    c5, _ = judge(sweep.model_copy(update={"cells": cells}))
    assert c5.parts[2].outcome == "not_reproduced"
    assert c5.outcome == "not_reproduced"


@pytest.mark.parametrize(
    ("slope", "slope_noise", "outcome"),
    [
        (0.5, 0.02, "reproduced"),
        (0.45, 0.02, "reproduced"),
        (0.25, 0.02, "not_reproduced"),
        (0.8, 0.02, "not_reproduced"),
        (0.41, 0.2, "undecided"),
        (0.5, 0.5, "undecided"),
    ],
)
def test_the_slope_is_judged_by_its_interval(
    slope: float, slope_noise: float, outcome: str
) -> None:
    _, c6 = judge(planted(slope=slope, slope_noise=slope_noise))
    assert c6.outcome == outcome
    main = c6.parts[0]
    assert main.estimate is not None
    assert abs(main.estimate.value - slope) < 3 * slope_noise / 4
    assert main.estimate.low is not None
    assert main.estimate.high is not None
    assert main.estimate.low < main.estimate.value < main.estimate.high
    assert all(part.outcome is None for part in c6.parts[1:])


def test_it_is_read_only_where_zeta_is_positive_and_the_rest_is_called_vacuous() -> None:
    _, c6 = judge(planted())
    assert "Over 2^-12 .. 2^-4" in c6.text  # 9.3 * 2^-3 > 1
    assert "vacuous at 2^-3, 2^-2, 2^-1, 2^0, 2^1, 2^2, 2^3, 2^4." in c6.text
    narrow = c6.parts[1]
    assert "Over 2^-12 .. 2^-7" in narrow.text  # 93 * 2^-6 > 1


def test_seeds_whose_neurons_are_as_assumed_have_a_slope_of_their_own() -> None:
    """Four of the 16 seeds have a slope of 0.1 and half of their neurons outside of the cone."""
    _, c6 = judge(planted(stray=4))
    assert c6.parts[0].estimate is not None
    assert c6.parts[0].estimate.value == pytest.approx(0.4, abs=0.02)
    assert c6.outcome == "undecided"
    (beside,) = [part for part in c6.parts if "as the theory assumes" in part.name]
    assert beside.n == 12
    assert beside.outcome is None
    assert beside.estimate is not None
    assert beside.estimate.value == pytest.approx(0.5, abs=0.02)
    assert "12 of 16 seeds have at least 95 %" in c6.cautions[2]


def test_angles_that_are_missing_leave_their_companion_without_a_slope() -> None:
    _, c6 = judge(planted())
    by_name = {part.name.partition(": ")[2]: part for part in c6.parts}
    missing = by_name["the effective predictor at the explicit phase-1 time"]
    assert missing.estimate is None
    assert missing.n == 0


def test_a_flow_that_still_moves_decides_nothing() -> None:
    for claim in judge(planted(), facts(settled=False)):
        assert claim.outcome == "undecided"
        assert "No step sufficed" in claim.text
    assert "mean theta moved most, by 3 times" in facts(settled=False).sentence
    differ = facts(settled=False, changed=RUNS_DIFFER, change=NOT_BY_DEGREES).sentence
    assert differ.endswith(f"{RUNS_DIFFER} changed.")


def test_facts_count_all_steps_and_say_what_sufficed() -> None:
    assert facts().num_runs == 20
    assert facts().replica_steps == 2100
    for words in (
        "step of 0.05",
        "both outcomes",
        "0.1 of its",
        "0.25 of C5's margin",
        "0.5 times",
    ):
        assert words in facts().sentence


def test_too_few_runs_decide_nothing() -> None:
    sweep = planted()
    few = sweep.model_copy(update={"cells": sweep.cells[:2]})
    assert table_of(few) is None
    for claim in judge(few):
        assert claim.outcome == "undecided"
        assert claim.reported.startswith("Reported by the authors:")


def test_seeds_that_missed_the_target_anywhere_are_left_out() -> None:
    sweep = planted(num_seeds=16)
    last = sweep.cells[-1]
    missed = last.seeds[0].model_copy(update={"outcome": Outcome.DIVERGED, "measurements": {}})
    cells = (*sweep.cells[:-1], last.model_copy(update={"seeds": (missed, *last.seeds[1:])}))
    c5, c6 = judge(sweep.model_copy(update={"cells": cells}))
    assert c5.num_seeds == c6.num_seeds == 15


def test_the_four_cautions_carry_the_numbers_of_these_runs() -> None:
    c5, _ = judge(planted(of=valley))
    ties, direction, where, floor = c5.cautions
    assert "0.600" in ties
    assert "0.300" in ties
    assert "linear direction" in direction
    assert "2^-3" in where
    assert "0.0700" in floor


def test_panels_say_units_and_direction() -> None:
    for claim in judge(planted()):
        assert claim.panels
        for panel in claim.panels:
            assert "larger FLS" in panel.x_label
            assert "(" in panel.y_label
            for curve in panel.curves:
                assert all(-12 <= point.x <= 4 for point in curve.points)


def test_flat_noise_is_rarely_called_a_trend_against() -> None:
    """24 % of 60 tables would come by chance at a true 5 % with a probability below 1e-7."""
    rng = np.random.default_rng(7)
    false = 0
    for _ in range(60):
        walk = rng.standard_normal((9, 12)) * np.linspace(0.2, 2, 9)[:, None]
        false += trend(walk, True, 0.0).outcome == "not_reproduced"
    assert false <= 14


@pytest.mark.parametrize(("spread", "outcome"), [(0.02, "reproduced"), (1.0, "undecided")])
def test_a_trend_needs_intervals_within_the_margin_not_means_alone(
    spread: float, outcome: str
) -> None:
    """Means: 1, 1, 0. Only how widely seeds scatter differs."""
    signs = np.array([-1.0, 1.0] * 6)
    values = np.array([np.ones(12), 1 + spread * signs, 0 * signs])
    assert trend(values, False, 0.1).outcome == outcome


# --- a halving of the step ------------------------------------------------------------------


def moved(sweep: Sweep, by: Law) -> Sweep:
    """The same with OF, and the excess with it, moved by so much at every scale in every run."""
    cells = []
    for k, cell in zip(LOG2, sweep.cells, strict=True):
        runs = []
        for run in cell.seeds:
            of, excess = (f"theory.{name}" for name in ("over_fitting", "excess_effective"))
            values = dict(run.measurements)
            values |= {of: values[of] + by(k), excess: values[excess] + by(k)}
            runs.append(run.model_copy(update={"measurements": values}))
        cells.append(cell.model_copy(update={"seeds": tuple(runs)}))
    return sweep.model_copy(update={"cells": tuple(cells)})


def test_nothing_changed_is_no_change() -> None:
    assert largest_change(planted(), planted(), 0.1)[0] == 0


@pytest.mark.parametrize(
    ("by", "words"),
    [
        (lambda k: 1e-4 * (k == -5), "the difference in OF between 2^"),
        (lambda k: 1.1e-5 * (k + 4), "the difference in OF between 2^-12 and 2^4"),
    ],
    ids=["one scale", "a ramp"],
)
def test_differences_paired_by_seed_settle_later_than_means(by: Law, words: str) -> None:
    """Seeds differ so widely that their means may move by 0.00016, but the margin is 0.0003.

    Neighbours of the ramp move by a tenth of what is allowed, its ends by more than all of it.
    """
    before = planted(of=lambda k: 0.005 + 5e-5 * (k + 12), shared=1e-2)
    change, changed = largest_change(before, moved(before, by), 0.1)
    assert 1 < change < 2
    assert changed.startswith(words)
    assert largest_change(before, moved(before, lambda k: by(k) / 2), 0.1)[0] < 1
    # What all scales share moves no difference, and C5 does not see it.
    assert largest_change(before, moved(before, lambda _: 1e-4), 0.1)[1].startswith("mean")


def test_a_large_difference_may_move_by_a_share_of_itself() -> None:
    """OF is higher by tens of points at the last scales: the margin is no measure of that."""
    steep = planted(of=lambda k: 0.005 + (0.3 if k == 4 else 0.0), shared=1e-2)
    change, changed = largest_change(steep, moved(steep, lambda k: 1.4e-4 * (k == 4)), 0.1)
    assert change < 1
    assert not changed.startswith("the difference")


def test_an_outcome_that_changes_is_a_move_however_small_its_numbers() -> None:
    def bumped(share: float) -> Sweep:
        bump = share * margin
        return planted(lambda k: 0.004 + (bump if k == -10 else 0) - 1e-4 * max(0, k + 8), noise=0)

    margin = 0.0
    table = table_of(bumped(1))
    assert table is not None
    margin = trends(table).margin
    change, changed = largest_change(bumped(0.99), bumped(1.01), 0.1)
    assert change == NOT_BY_DEGREES
    assert changed == "the outcome of C5 (reproduced, then not reproduced here)"
    assert largest_change(bumped(0.97), bumped(0.99), 0.1)[0] < 1

    slopes = [planted(slope=slope, slope_noise=0) for slope in (0.4017, 0.4005, 0.3995)]
    change, changed = largest_change(slopes[1], slopes[2], 0.1)
    assert change == NOT_BY_DEGREES
    assert changed == "the outcome of C6 (reproduced, then not reproduced here)"
    assert largest_change(slopes[0], slopes[1], 0.1)[0] < 1


def test_a_slope_at_only_one_of_two_steps_is_a_move() -> None:
    with_slope = planted(slope=0.41, slope_noise=0.2)
    cells = []
    for cell in with_slope.cells:
        runs = [
            run.model_copy(
                update={
                    "measurements": {
                        name: value
                        for name, value in run.measurements.items()
                        if name != "theory.phase1_angle"
                    }
                }
            )
            for run in cell.seeds
        ]
        cells.append(cell.model_copy(update={"seeds": tuple(runs)}))
    without = with_slope.model_copy(update={"cells": tuple(cells)})
    assert [judge(one)[1].outcome for one in (with_slope, without)] == ["undecided"] * 2
    for pair in ((with_slope, without), (without, with_slope)):
        assert largest_change(*pair, 0.1) == (NOT_BY_DEGREES, "whether the angle has a slope")
    assert largest_change(without, without, 0.1)[0] == 0


def test_a_level_counts_its_runs_and_steps() -> None:
    sweep = planted()
    level = flow_level(0.1, None, sweep, 0.1)
    assert (level.num_runs, level.num_reached, level.replica_steps) == (17 * 16, 17 * 16, 2720)
    assert level.change is None
    few = sweep.model_copy(update={"cells": sweep.cells[:2]})
    assert flow_level(0.05, sweep, few, 0.1).sentence == f"{RUNS_DIFFER} changed"
