"""c* at another size, from fitted exponents, within what was fitted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fls_bench.errors import InputError
from fls_bench.schema import CStar, ScalingFit


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


def predict(fit: ScalingFit, width: int, n_train: int) -> CStar:
    """c* at a size, with a 95 % prediction interval.

    log2 c* = a + b_h·log2 h + b_n·log2 n of every resample of the seeds, with what the fit left of the
    cases added: a new case is off by as much as those that were fitted.

    Args:
        fit: Exponents and resamples.
        width: h.
        n_train: n.

    Returns:
        c* and its interval.

    Raises:
        InputError: The size lies outside of what was fitted.
    """
    for name, value, (low, high) in (
        ("width", width, fit.widths), ("n-train", n_train, fit.n_trains)
    ):  # fmt: skip
        if not low <= value <= high:
            span = f"only {low}" if low == high else f"{low} to {high}"
            raise InputError(
                f"--{name} {value} lies outside of what {fit.family} was fitted on ({span}): a power "
                "law says nothing of what was not measured.",
                f"Choose {span}, or run the suite with sizes around yours.",
            )
    x = np.array([1.0, math.log2(width) if width else 0.0, math.log2(n_train)])
    slopes = [0.0 if one is None else one.value for one in (fit.width_exponent, fit.n_exponent)]
    middle = float(x @ np.array([fit.intercept, *slopes]))
    draws = np.array(fit.samples) @ x
    draws = draws + np.random.default_rng(0).normal(0.0, fit.residual, len(draws))
    ends = np.quantile(draws, (0.025, 0.975))
    return CStar(value=2.0**middle, low=float(2.0 ** ends[0]), high=float(2.0 ** ends[1]))
