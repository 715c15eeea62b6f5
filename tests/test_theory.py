"""The two-layer theory against slow, independent references."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.optimize import minimize
from torch import Tensor

from fls_bench import theory

DIM = 4
NUMBERS = st.floats(-10, 10, allow_subnormal=False)
VECTORS = st.lists(NUMBERS, min_size=DIM, max_size=DIM).map(
    lambda values: torch.tensor(values, dtype=torch.float64)
)
DIRECTIONS = VECTORS.filter(lambda v: float(v.norm()) > 1e-3).map(lambda v: v / v.norm())
LAWS = st.tuples(st.floats(0, 5), st.floats(0.05, 5))


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- errors and their decomposition ----------------------------------------------------------


def test_the_error_of_a_direction_is_that_of_drawn_points() -> None:
    """A binomial count within six deviations: at a true match it fails with probability 2e-9."""
    kappa, sigma, num = 0.8, 0.7, 200_000
    for seed in range(3):
        v, s = drawn(seed, DIM), drawn(seed + 50, DIM)
        s = s / s.norm()
        y = torch.arange(num) % 2 * 2.0 - 1
        x = kappa * y[:, None] * s + sigma * drawn(seed + 100, num, DIM)
        wrong = float(((x @ v) * y <= 0).double().mean())
        error = float(theory.direction_error(v, s, kappa, sigma))
        assert abs(wrong - error) < 6 * math.sqrt(error * (1 - error) / num)
    assert float(theory.bayes_error(kappa, sigma)) == pytest.approx(
        float(theory.direction_error(s, s, kappa, sigma)), rel=1e-12
    )


@pytest.mark.parametrize("seed", range(6))
def test_over_alignment_is_the_least_error_in_the_cone(seed: int) -> None:
    """Against a numerical minimisation over unit vectors within theta of x_+."""
    kappa, sigma = 1.0, 0.6
    s, x_plus = drawn(seed, DIM), drawn(seed + 10, DIM)
    s = s / s.norm()
    w_hat = x_plus / x_plus.norm() + (0.1, 0.4, 2.0)[seed % 3] * drawn(seed + 20, DIM)
    parts = theory.decompose(w_hat, x_plus, s, kappa, sigma)
    u = (x_plus / x_plus.norm()).numpy()
    psi = float(w_hat @ x_plus / (w_hat.norm() * x_plus.norm()))

    def error(v: np.ndarray) -> float:
        return float(theory.direction_error(torch.from_numpy(v), s, kappa, sigma))

    found = min(
        minimize(
            error, start / np.linalg.norm(start), method="SLSQP",
            constraints=[
                {"type": "eq", "fun": lambda v: v @ v - 1},
                {"type": "ineq", "fun": lambda v: v @ u - psi},
            ],
            options={"ftol": 1e-14, "maxiter": 500},
        ).fun
        for start in (u, u + 0.1 * s.numpy(), w_hat.numpy())
    )  # fmt: skip
    least = float(parts.over_alignment + theory.bayes_error(kappa, sigma))
    assert least == pytest.approx(found, abs=1e-6)


@given(VECTORS, VECTORS, DIRECTIONS, LAWS)
def test_both_parts_are_never_negative_and_sum_to_the_excess(
    w_hat: Tensor, x_plus: Tensor, s: Tensor, law: tuple[float, float]
) -> None:
    check(w_hat, x_plus, s, law)


@given(DIRECTIONS, VECTORS, st.floats(0, 2), DIRECTIONS, LAWS)
def test_they_do_near_perfect_alignment_and_where_phi_is_below_theta(
    x_plus: Tensor, away: Tensor, share: float, s: Tensor, law: tuple[float, float]
) -> None:
    check(x_plus + 1e-3 * share * away, x_plus, s, law)
    near = s + 1e-3 * share * away  # phi < theta: the Bayes direction lies within the cone
    parts = check(x_plus, near, s, law)
    if parts.phi <= parts.theta:
        assert parts.over_alignment == 0
        assert parts.over_fitting == parts.excess


@given(DIRECTIONS, DIRECTIONS, st.floats(0, 1), LAWS)
def test_they_do_on_the_arc_from_the_class_mean_to_the_bayes_direction(
    x_plus: Tensor, s: Tensor, share: float, law: tuple[float, float]
) -> None:
    """There w_hat is the best of the cone itself, and OF is 0 but for the rounding of three angles."""
    parts = check((1 - share) * x_plus + share * s, x_plus, s, law)
    if parts.phi < 3:  # nearly opposite vectors span no arc
        assert parts.over_fitting < 1e-12


def check(
    w_hat: Tensor, x_plus: Tensor, s: Tensor, law: tuple[float, float]
) -> theory.Decomposition:
    parts = theory.decompose(w_hat, x_plus, s, *law)
    assert parts.over_alignment >= 0
    assert parts.over_fitting >= 0
    # Differences of numbers up to 1: two roundings.
    assert abs(float(parts.over_alignment + parts.over_fitting - parts.excess)) <= 4e-16
    excess = theory.excess_error(w_hat, s, *law)
    assert float(parts.excess) == pytest.approx(float(excess), abs=1e-15)
    return parts


@given(VECTORS, DIRECTIONS, DIRECTIONS, LAWS, st.integers(-200, 200), st.integers(-200, 200))
def test_scales_of_the_vectors_change_nothing(
    w_hat: Tensor, x_plus: Tensor, s: Tensor, law: tuple[float, float], a: int, b: int
) -> None:
    one = theory.decompose(w_hat, x_plus, s, *law)
    # Powers of ten round, hence not exactly.
    other = theory.decompose(10.0**a * w_hat, 10.0**b * x_plus, s, *law)
    for name in ("over_alignment", "over_fitting", "excess", "theta", "phi"):
        assert float(getattr(other, name)) == pytest.approx(float(getattr(one, name)), abs=1e-7)


def test_what_decides_nothing_has_an_error_of_one_half() -> None:
    s, zero = vector(1, 0, 0), torch.zeros(3, dtype=torch.float64)
    assert float(theory.direction_error(zero, s, 1.0, 0.5)) == pytest.approx(0.5, abs=1e-15)
    nothing = theory.decompose(zero, vector(1, 1, 0), s, 1.0, 0.5)
    assert nothing.over_alignment == 0
    assert nothing.over_fitting == nothing.excess
    assert float(nothing.excess) == pytest.approx(0.5 - float(theory.bayes_error(1.0, 0.5)))
    unknown = theory.decompose(vector(1, 1, 0), zero, s, 1.0, 0.5)
    assert unknown.over_alignment == 0
    backward = theory.decompose(-s, -s, s, 1.0, 0.5)
    assert float(backward.over_alignment) == pytest.approx(
        1 - 2 * float(theory.bayes_error(1, 0.5))
    )
    assert backward.over_fitting == 0
    far = theory.decompose(vector(0, 1, 0), vector(0, 1, 0), s, 1e9, 1e-300)
    assert 0 <= far.excess <= 0.5  # no infinity times zero


def test_perfect_alignment_is_all_over_alignment() -> None:
    x_plus, s = vector(1, 1, 0), vector(1, 0, 0)
    parts = theory.decompose(3 * x_plus, x_plus, s, 1.0, 0.5)
    assert float(parts.phi) == pytest.approx(math.pi / 4)
    assert parts.theta == 0
    assert parts.over_fitting == 0
    assert parts.over_alignment == parts.excess > 0


def test_everything_is_batched() -> None:
    w_hat, x_plus, s = drawn(0, 5, 3, DIM), drawn(1, 3, DIM), drawn(2, DIM)
    parts = theory.decompose(w_hat, x_plus, s, vector(1, 2, 3), 0.5)
    assert parts.over_fitting.shape == (5, 3)
    for i in range(5):
        for j in range(3):
            one = theory.decompose(w_hat[i, j], x_plus[j], s, 1.0 + j, 0.5)
            assert float(parts.over_alignment[i, j]) == pytest.approx(float(one.over_alignment))
            assert float(parts.over_fitting[i, j]) == pytest.approx(float(one.over_fitting))


# --- directions ------------------------------------------------------------------------------


@pytest.mark.parametrize("expected", [0.0, 1e-12, 1e-3, 1.0, math.pi / 2, 3.1, math.pi])
def test_small_angles_keep_their_digits(expected: float) -> None:
    found = theory.angle(vector(2, 0), vector(math.cos(expected), math.sin(expected)))
    assert float(found) == pytest.approx(expected, rel=1e-7)


def test_predictors_sum_over_their_neurons() -> None:
    w, v = drawn(0, 2, 6, DIM), drawn(1, 2, 6)
    for r in range(2):
        up = sum((v[r, j] * w[r, j] for j in range(6) if v[r, j] > 0), torch.zeros(DIM))
        every = sum((v[r, j] * w[r, j] for j in range(6)), torch.zeros(DIM))
        torch.testing.assert_close(theory.effective_predictor(w, v)[r], up)
        torch.testing.assert_close(theory.linear_direction(w, v)[r], every)


def test_the_class_vector_is_that_of_the_positive_points() -> None:
    x, positive = drawn(0, 2, 5, DIM), torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0]]) > 0
    torch.testing.assert_close(
        theory.positive_vector(x, positive, "mean")[0], x[0, [0, 2, 3]].mean(dim=0)
    )
    torch.testing.assert_close(
        theory.positive_vector(x, positive, "sum")[0], x[0, [0, 2, 3]].sum(dim=0)
    )
    assert theory.positive_vector(x, positive, "mean")[1].abs().sum() == 0


# --- the alignment phase ---------------------------------------------------------------------


def test_zeta_vanishes_at_the_critical_scale() -> None:
    sizes = (20, 64, 3.2, 0.15, 14.0)
    critical = float(theory.critical_scale(*sizes))
    assert float(theory.zeta(critical, *sizes)) == pytest.approx(0, abs=1e-15)
    by_hand = 1 - 4 * 0.01 * 20 * 8 * 3.2**2 * 0.15**2 / 14
    assert float(theory.zeta(0.01, *sizes)) == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("x_plus", "loss", "expected"),
    [("sum", "sum", (0, -1)), ("mean", "sum", (-2, -1)), ("mean", "mean", (0, -1)),
     ("sum", "mean", (0, -1))],
)  # fmt: skip
def test_which_class_vector_decides_how_the_optimum_scales_with_n(
    x_plus: theory.ClassVector, loss: str, expected: tuple[int, int]
) -> None:
    assert theory.optimum_exponents(x_plus, loss) == pytest.approx(expected)  # type: ignore[arg-type]
    n_exponent, h_exponent = theory.optimum_exponents(x_plus, loss, w_max_exponent=-0.5)  # type: ignore[arg-type]
    assert (n_exponent, h_exponent) == pytest.approx((expected[0], 1))


def test_critical_scales_of_drawn_data_scale_so_too() -> None:
    """Slopes over n = 2^6 .. 2^12 of real class vectors, whose norms still hold some noise."""
    sizes = [2**k for k in range(6, 13)]
    slopes = {}
    for of in ("sum", "mean"):
        scales = []
        for n in sizes:
            x = vector(1, 0, 0, 0) + 0.3 * drawn(n, n, DIM)
            positive = torch.arange(n) % 2 == 1
            norm = theory.positive_vector(x, positive, of).norm()  # type: ignore[arg-type]
            scales.append(float(theory.critical_scale(n, 16, 1.0, 1.0, norm) ** 2))
        slopes[of] = np.polyfit(np.log2(sizes), np.log2(scales), 1)[0]
    assert slopes["sum"] == pytest.approx(0, abs=0.05)
    assert slopes["mean"] == pytest.approx(-2, abs=0.05)


@pytest.mark.parametrize(("zeta", "norm"), [(0.9, 3.0), (0.2, 10.0)])
def test_the_alignment_bound_solves_its_equation(zeta: float, norm: float) -> None:
    times = np.linspace(0, 2, 9)
    exact = solve_ivp(
        lambda _, psi: norm * (zeta - psi**2), (0, 2), [0.0], t_eval=times, rtol=1e-10, atol=1e-12
    )
    bound = theory.alignment_bound(vector(zeta), norm, torch.from_numpy(times))
    np.testing.assert_allclose(bound.numpy(), exact.y[0], atol=1e-8)


def test_a_vacuous_bound_says_nothing() -> None:
    bound = theory.alignment_bound(vector(0.0, -2.0, 0.5), 1.0, vector(1.0, 1.0, -1.0))
    assert bound.tolist() == [-1, -1, -1]


def test_the_angle_that_the_bound_allows_shrinks_like_the_root_of_alpha() -> None:
    alphas = vector(*(2.0**k for k in range(-20, -11)))
    angles = torch.arccos(theory.zeta(alphas, 20, 64, 3.2, 0.15, 14.0).sqrt())
    slope = np.polyfit(np.log2(alphas.numpy()), np.log2(angles.numpy()), 1)[0]
    assert slope == pytest.approx(0.5, abs=1e-3)


def test_there_is_no_small_norm_phase_for_large_alpha() -> None:
    assert float(theory.phase1_time(2**-3, 20, 64, 3.0)) == 0  # 1/sqrt(h)
    assert float(theory.phase1_time(1.0, 20, 64, 3.0)) == 0
    found = float(theory.phase1_time(2**-10, 20, 64, 3.0))
    assert found == pytest.approx(math.log(2**10 / 8) / (4 * 20 * 3))
    assert float(theory.mean_loss_time(found, 20)) == pytest.approx(40 * found)
    assert float(theory.phase1_norm_bound(0.1, 64, 0.5)) == pytest.approx(2 * 0.1 * 0.25 / 8)
