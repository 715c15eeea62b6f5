"""c* at another size, from fitted exponents, within what was fitted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fls_bench.errors import InputError
from fls_bench.schema import Axis, CStar, ScalingFit


def choose_fit(fits: Sequence[ScalingFit], family: str | None) -> ScalingFit:
    """The fit of a family; the only one where none is named.

    Raises:
        InputError: There is no such family, or several and none named.
    """
    names = [fit.family for fit in fits]
    if family is None and len(fits) == 1:
        return fits[0]
    if family is None:
        raise InputError(
            f"There are {len(fits)} fits.", f"Choose one with --family: {', '.join(names)}."
        )
    for fit in fits:
        if fit.family == family:
            return fit
    raise InputError(f"There is no fit named {family!r}.", f"Fits are {', '.join(names)}.")


@dataclass(frozen=True)
class Prediction:
    """c* at a size, and what to set for it.

    Attributes:
        c_star: In the unit of the fit, with its 95 % prediction interval.
        axis: What is set: the output multiplier, or the init scale.
        setting: c* as a value on that axis, with its interval.
    """

    c_star: CStar
    axis: Axis
    setting: CStar


def predict(fit: ScalingFit, width: int, n_train: int) -> Prediction:
    """c* at a size, with a 95 % prediction interval.

    log2 c* = a + b_h·log2 h + b_n·log2 n of every resample of the seeds, and what the fit left of its
    cases added by Student's law: a new case is off by as much as those that were fitted.

    Args:
        fit: Exponents and resamples.
        width: h.
        n_train: n.

    Returns:
        c* and its interval.

    Raises:
        InputError: The size lies outside of what was fitted: no fitted case is at least as wide and has
            at least as many points, or as wide with at most as many, and so on.
    """
    corners = [
        any(a * (h - width) >= 0 and b * (n - n_train) >= 0 for h, n in fit.sizes)
        for a in (1, -1) for b in (1, -1)
    ]  # fmt: skip
    if not all(corners):
        (h_low, h_high), (n_low, n_high) = ((min(k), max(k)) for k in zip(*fit.sizes, strict=True))
        raise InputError(
            f"--width {width} with --n-train {n_train} lies outside of what {fit.family} was fitted on "
            f"(width {h_low} to {h_high}, n {n_low} to {n_high}, {len(fit.sizes)} cases): a power law "
            "says nothing of what was not measured.",
            "Choose a size within, or run the suite with sizes around yours.",
        )
    x = np.array([1.0, math.log2(width) if width else 0.0, math.log2(n_train)])
    slopes = [0.0 if one is None else one.value for one in (fit.width_exponent, fit.n_exponent)]
    middle = float(x @ np.array([fit.intercept, *slopes]))
    draws = np.array(fit.samples) @ x
    noise = np.random.default_rng(0).standard_t(fit.freedom, len(draws))
    ends = np.quantile(draws + fit.residual * noise, (0.025, 0.975))
    logs = (middle, min(float(ends[0]), middle), max(float(ends[1]), middle))
    # Back from the theory's unit to what is set: c = alpha^2/(d·h) there, alpha^L elsewhere.
    shift = 0.0 if fit.log2_input_dim is None else fit.log2_input_dim + math.log2(width)
    return Prediction(
        c_star=_star(*logs),
        axis=fit.axis,
        setting=_star(*((one + shift) / fit.octaves for one in logs)),
    )


def _star(value: float, low: float, high: float) -> CStar:
    return CStar(value=2.0**value, low=2.0**low, high=2.0**high)
