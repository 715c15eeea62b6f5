"""What an intervention returned: the interval of a ratio, and what a table of rows is judged to say."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from fls_bench.schema import Intervention, Outcome, RankPenalty, SeedResult
from fls_bench.verdict.shares import Aim, Row, judge_rows, ratio_of_means

ALL = (RankPenalty(strength=1.0),)
LAST = (RankPenalty(layers="last"),)
LOWER = (RankPenalty(side="lower"),)
RAISED = (RankPenalty(offset=0.15),)
NUM = 12
WANTED = {seed: math.log(9.0) for seed in range(NUM)}


@given(seed=st.integers(0, 500), gap=st.floats(1.0, 8.0), share=st.floats(-2, 2))
def test_the_interval_holds_the_ratios_that_a_t_test_does_not_reject(
    seed: int, gap: float, share: float
) -> None:
    rng = np.random.default_rng(seed)
    b = gap + rng.standard_normal(10)
    a = share * b + 0.5 * rng.standard_normal(10)
    found = ratio_of_means(a, b)
    assert found.value == pytest.approx(a.mean() / b.mean())
    if ttest_1samp(b, 0.0).pvalue >= 0.05:
        assert (found.low, found.high) == (None, None)
        return
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.value <= found.high
    for end in (found.low, found.high):
        assert ttest_1samp(a - end * b, 0.0).pvalue == pytest.approx(0.05, abs=1e-6)


def test_no_ratio_of_a_gap_that_is_not_there() -> None:
    found = ratio_of_means([0.1, -0.2, 0.3, 0.1], [0.1, -0.1, 0.1, -0.1])
    assert (found.low, found.high) == (None, None)


def row(
    name: str,
    accuracy: float,
    penalties: tuple[RankPenalty, ...] = (),
    *,
    at_star: bool = False,
    rank: float = 5.0,
    misdirected: bool = False,
    missed: int = 0,
    seed: int = 0,
) -> Row:
    rng = np.random.default_rng([seed, int(1000 * accuracy)])
    level = np.random.default_rng(1).normal(0, 0.01, NUM)  # that all nets of a seed share
    runs = tuple(
        SeedResult(
            seed=s,
            outcome=Outcome.PLATEAU if s < missed else Outcome.REACHED_TARGET,
            epochs=5,
            test_error=1 - (accuracy + level[s] + rng.normal(0, 0.004)),
        )
        for s in range(NUM)
    )
    ranks = {s: (math.log(12.0), math.log(rank)) for s in range(NUM)}
    side = penalties[0].side if penalties else "hold"
    aims = (Aim(1, side, WANTED),) if penalties else ()
    return Row(name, at_star, penalties, misdirected, runs, ranks, aims)


STAR = row("plain", 0.90, at_star=True, rank=9.0)
PLAIN = row("plain", 0.80)
HELD = row("held", 0.88, ALL, rank=8.8)
CONTROL = row("control", 0.79, ALL, misdirected=True)


def judged(*rows: Row, low: Row = PLAIN) -> Intervention:
    return judge_rows([STAR, low, *rows], low, STAR, measure="nuclear", c_low=2**-10, c_star=2**-4)


def test_shares_of_the_gap_and_what_they_support() -> None:
    at_star = row("held", 0.91, ALL, at_star=True, rank=9.5)
    lower = row("lower", 0.86, LOWER, at_star=True, rank=9.0)
    found = judged(HELD, at_star, lower, CONTROL)
    plain, _, held, also, lowered, control = found.rows
    assert plain.share is held.share is None or plain.share is None
    assert held.share is not None
    assert held.share.value == pytest.approx(0.8, abs=0.05)
    assert held.share.low is not None
    assert 0.7 < held.share.low < held.share.value
    assert held.gap_closed is not None
    assert held.gap_closed.value == pytest.approx(0.7, abs=0.05)  # 0.91 - 0.88 of 0.10 is left
    assert also.share is not None
    assert also.share.value == pytest.approx(-0.1, abs=0.05)
    assert lowered.share is not None
    assert lowered.share.value == pytest.approx(0.4, abs=0.05)
    assert "Takes 4" in lowered.text
    assert (held.held, lowered.held, control.held) == (True, True, None)
    assert held.targets == (None, pytest.approx(9.0))
    assert held.ranks == (pytest.approx(12.0), pytest.approx(8.8))
    assert "carry part of the loss" in found.text
    assert f"returned {100 * held.share.value:.0f} %" in found.text


def test_what_returns_nothing_supports_nothing() -> None:
    assert "does not show" in judged(row("held", 0.801, ALL, rank=8.8), CONTROL).text


def test_a_control_that_does_as_much_takes_the_conclusion_away() -> None:
    good = row("control", 0.88, ALL, misdirected=True, seed=3)
    assert "not shown to carry" in judged(HELD, good).text


def test_a_rank_that_missed_its_target_was_not_held() -> None:
    found = judged(row("held", 0.88, ALL, rank=7.9))
    assert found.rows[-1].held is False
    assert "not held" in found.rows[-1].text
    assert "does not show" in found.text
    assert judged(row("held", 0.88, ALL, rank=8.2)).rows[-1].held is True
    # Beyond the target is held for a hinge, on either side.
    assert judged(row("held", 0.88, ALL, rank=20.0)).rows[-1].held is True
    assert judged(row("low", 0.8, LOWER, at_star=True, rank=4.0)).rows[-1].held is True
    assert judged(row("low", 0.8, LOWER, at_star=True, rank=10.1)).rows[-1].held is False


def test_runs_off_target_are_shown_and_judged_nowhere() -> None:
    found = judged(row("held", 0.88, ALL, rank=9.0, missed=4)).rows[-1]
    assert (found.num_reached, found.num_seeds, len(found.seeds)) == (NUM - 4, NUM, NUM)
    assert found.share is found.accuracy is None
    assert "8 of 12 runs reached the target (4 reached a plateau)" in found.text
    one = judged(row("held", 0.88, ALL, rank=9.0, missed=1)).rows[-1]
    assert one.share is not None  # nine in ten reached it


def test_without_a_gap_nothing_is_said() -> None:
    same = row("plain", 0.90, seed=5)
    found = judged(HELD, low=same)
    assert "Nothing can be said" in found.text
    assert found.rows[-1].share is not None
    assert found.rows[-1].share.low is None
    better = row("plain", 0.95, seed=5)
    assert "the small c is not worse beyond noise" in judged(HELD, low=better).text
    lost = replace(PLAIN, runs=tuple(
        run.model_copy(update={"outcome": Outcome.DIVERGED}) for run in PLAIN.runs
    ))  # fmt: skip
    assert "too few of the plain runs" in judged(HELD, low=lost).text


def test_the_raised_rows_say_whether_any_net_gains() -> None:
    pair = (row("up", 0.89, RAISED, rank=9), row("up", 0.93, RAISED, at_star=True, rank=9))
    found = judged(HELD, *pair, CONTROL)
    assert "raised above that of c* at both c, the gap between them closes by 6" in found.text
    assert "does more there" not in found.text
    better = (row("up", 0.95, RAISED, rank=9), row("up", 0.93, RAISED, at_star=True, rank=9))
    assert "does more there than restore a rank" in judged(HELD, *better, CONTROL).text
