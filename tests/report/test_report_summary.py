import math

import pytest
import report_fixtures as fixtures
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fls_bench.report import summary
from fls_bench.schema import CStar, Interval, Outcome


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95, 0.99, 0.9999])
def test_t_quantile_is_that_of_the_statistics_library(level: float) -> None:
    for df in (*range(1, 40), 99, 100, 999):
        expected = stats.t.ppf((1 + level) / 2, df)
        assert summary.t_quantile(level, df) == pytest.approx(expected, rel=1e-8), (level, df)


@pytest.mark.parametrize(("level", "df"), [(0.0, 3), (1.0, 3), (0.95, 0)])
def test_t_quantile_refuses_what_has_no_answer(level: float, df: int) -> None:
    with pytest.raises(ValueError, match="level"):
        summary.t_quantile(level, df)


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=12).filter(lambda v: len({*v}) > 1))
def test_mean_interval_is_students(values: list[int]) -> None:
    found = summary.mean_interval(values)
    assert found is not None
    low, high = stats.t.interval(0.95, len(values) - 1, loc=sum(values) / len(values),
                                 scale=stats.sem(values))  # fmt: skip
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6, abs=1e-9)
    assert found.n == len(values)


def test_one_seed_has_no_interval_and_none_has_no_mean() -> None:
    assert summary.mean_interval([0.25]) == summary.Mean(0.25, None, None, 1)
    assert summary.mean_interval([]) is None
    assert summary.percent(summary.Mean(0.25, None, None, 1)) == "25.00 %"


def test_an_interval_stays_within_the_range_of_the_quantity() -> None:
    found = summary.mean_interval([0.0, 0.01, 0.2], 0.0, 1.0)
    assert found is not None
    assert found.low == 0.0


def test_runs_that_missed_the_target_are_counted_but_not_averaged() -> None:
    mixed = fixtures.cell(-3, 0.2, 5, reached=3)
    low = mixed.seeds[3].model_copy(update={"test_error": 1.0})
    cell = mixed.model_copy(update={"seeds": (*mixed.seeds[:3], low, mixed.seeds[4])})
    found = summary.summarize(cell)
    assert (found.num_reached, found.num_runs) == (3, 5)
    assert found.ended_otherwise == "2 plateau"
    assert found.test_error is not None
    assert found.test_error.n == 3
    expected = math.fsum(run.test_error or 0 for run in mixed.seeds[:3]) / 3
    assert found.test_error.value == pytest.approx(expected)


def test_where_no_run_reached_the_target_the_runs_are_still_shown() -> None:
    found = summary.summarize(fixtures.cell(-3, 0.2, 4, usable=False, reached=0))
    assert found.test_error is not None
    assert (found.num_reached, found.test_error.n) == (0, 4)
    lost = summary.summarize(
        fixtures.cell(5, 0.2, 4, usable=False, reached=0, outcome=Outcome.DIVERGED)
    )
    assert lost.test_error is None
    assert lost.ended_otherwise == "4 diverged"


def test_cells_are_ordered_from_large_to_small_fls() -> None:
    shuffled = fixtures.sweep({3: 0.3, -9: 0.16, -1: 0.1}, 2)
    values = [cell.cell.c for cell in summary.summarize_sweep(shuffled)]
    assert values == sorted(values)


def test_the_direction_is_said_and_never_flipped() -> None:
    assert summary.direction("output_multiplier") == (
        "smaller c = larger FLS = toward over-aligned"
    )
    assert summary.direction("init_scale") == "smaller alpha = larger FLS = toward over-aligned"
    text = summary.ratio_text(Interval(value=-5, low=-6, high=-4), "output_multiplier")
    assert text.startswith("-5.00")
    assert "negative: c is too small, toward over-aligned" in text


def test_an_optimum_at_an_end_of_the_range_is_said() -> None:
    low = CStar(value=2**-9, low=None, high=2**-7, at_edge="low")
    text = summary.c_star_text(low, "output_multiplier")
    assert "at the lower end of the range swept, so the optimum may lie at a smaller c" in text
    high = CStar(value=1, low=0.5, high=None, at_edge="high")
    assert "upper end of the range swept, so the optimum may lie at a larger alpha" in (
        summary.c_star_text(high, "init_scale")
    )


@pytest.mark.parametrize(
    ("c", "text"), [(2**-9, "2^-9"), (1.0, "2^0"), (2**0.5, "2^0.5"), (0.3, "2^-1.74"), (64, "2^6")]
)
def test_multipliers_read_as_powers_of_two(c: float, text: str) -> None:
    assert summary.power(c) == text
    assert summary.multiplier(c).startswith(text)


def test_nested_values_become_dotted_names() -> None:
    rows = summary.flat({"a": {"b": 1, "c": {"d": True}}, "e": None, "f": [1, 2], "g": {}})
    assert rows == (("a.b", "1"), ("a.c.d", "yes"), ("e", "-"), ("f", "[1, 2]"), ("g", "{}"))


def test_a_mechanism_is_named_once() -> None:
    code = summary.Code(code="rank_collapse", text="rank collapse: the rank falls.")
    assert summary.mechanism_name(code.code) == "rank collapse"
    assert summary.mechanism_text(code) == "The rank falls."
