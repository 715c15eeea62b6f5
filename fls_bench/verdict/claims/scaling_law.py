"""Claim C4: c* ~ n^-2 h^-1, by fits of log c* on log n and log h; and what decides the exponent of n."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fls_bench.schema import (
    ClaimCurve,
    ClaimPanel,
    ClaimPart,
    ClaimResult,
    CurvePoint,
    ScalingFit,
)
from fls_bench.verdict.claims.cases import (
    ERROR_LABEL,
    LEVEL,
    ClaimCase,
    Errors,
    Findings,
    Star,
    Values,
    axis_label,
    best_octave,
    corrected,
    counted,
    curve,
    errors_of,
    left_out,
    of_seeds,
    percentiles,
    read_with_care,
    resamples,
    shown,
    within,
)
from fls_bench.verdict.contrasts import MIN_SEEDS

STATEMENT = "The best c falls with the number of training points and the width: c* ~ n^-2 h^-1."
REPORTED = (
    "Reported by the authors: c* ~ n^-2 h^-1 with a 5-layer CNN on BigGAN images of effective latent "
    "dimension 128."
)
CLAIMED: Mapping[str, float] = {"n_train": -2.0, "width": -1.0}
MARGIN = 0.25
"""An exponent is reproduced where its whole interval lies this near to the claimed one."""

KEPT_DRAWS = 200
"""Resamples of a fit that are stored, for predictions from it."""

NAMES = {
    "n_train": "n (training points)",
    "width": "h (width)",
    "copies": "m (copies of each training point, n/m distinct ones fixed)",
    "phi": "phi (angle of the class mean to the Bayes direction, by sigma)",
}


@dataclass(frozen=True)
class _Point:
    """A case's log2 c* with the factors that its family varies."""

    case: ClaimCase
    errors: Errors
    star: Star


def judge_scaling_law(cases: Sequence[ClaimCase]) -> ClaimResult:
    """Fit every family of cases that differ in size.

    Args:
        cases: Sweeps; those of a family differ in ``n_train``, ``width``, ``copies`` or ``sigma``.
            Controls are left out.

    Returns:
        C4: reproduced where every exponent of n and h of every deciding family is as claimed; a family
        that could not be fitted leaves it undecided.
    """
    cases = [case for case in cases if not case.control]
    findings = Findings()
    fits: list[ScalingFit] = []
    families = {
        one: [k for k in cases if k.family == one] for one in dict.fromkeys(k.family for k in cases)
    }
    num_deciding = sum(
        name in CLAIMED
        for members in families.values() if not any(case.beside for case in members)
        for name in _varied(members)
    )  # fmt: skip
    for family, members in families.items():
        decides = not any(case.beside for case in members)
        tables = [(case, errors_of(case.sweep)) for case in members]
        findings.cautions += [
            line for case, errors in tables for line in read_with_care(case, errors)
        ]
        findings.skipped += [
            left_out(case, "fewer than three c, or three seeds, reached the target")
            for case, errors in tables if errors is None
        ]  # fmt: skip
        usable = [(case, errors) for case, errors in tables if errors is not None]
        # All cases rest on the same seeds, so that a resample is one and the same for each.
        shared = sorted(set.intersection(*(set(e.seeds) for _, e in usable))) if usable else []
        found: list[_Point] = []
        for case, errors in usable if len(shared) >= MIN_SEEDS else ():
            own = of_seeds(errors, shared)
            star = best_octave(case, own, resamples(len(shared)))
            if star.at_edge:
                why = f"its best c, 2^{star.value:.1f}, is not shown to lie inside of the range"
                findings.skipped.append(left_out(case, why))
            else:
                found.append(_Point(case, own, star))
        if usable:
            findings.panels.append(
                ClaimPanel(
                    title=f"{family}: test error over c",
                    x_label=axis_label(usable[0][0].sweep.axis),
                    y_label=ERROR_LABEL,
                    curves=tuple(curve(case.id, e, e.test) for case, e in usable),
                )
            )
        factors = _varied([p.case for p in found])
        if not factors or len(found) < len(factors) + 2:
            findings.cautions.append(
                f"{family}: {len(found)} cases have a best c inside: too few for a fit."
            )
            findings.outcomes += [
                "undecided" for name in _varied(members) if decides and name in CLAIMED
            ]
            continue
        fit, exponents = _fit(family, found, factors)
        unit = (
            "c of W with entries of order one"
            if found[0].case.shift
            else "c of the net as it is initialised"
        )
        if decides:
            fits.append(fit)
            findings.seeds.append(len(shared))
            findings.data.append(found[0].case.data)
        for name, (value, drawn) in exponents.items():
            exponent = percentiles(value, drawn, len(shared))
            outcome, expected, also = None, "0" if name == "copies" else "shown", ""
            if decides and name in CLAIMED:
                claimed = CLAIMED[name]
                outer = percentiles(value, drawn, len(shared), LEVEL / max(1, num_deciding))
                outcome = within(exponent, claimed - MARGIN, claimed + MARGIN, outer)
                also = corrected(exponent, outer, outcome, claimed - MARGIN, claimed + MARGIN)
                findings.outcomes.append(outcome)
                expected = f"{claimed:g} ± {MARGIN:g}"
            findings.parts.append(
                ClaimPart(
                    name=f"exponent of {NAMES[name]} in c*",
                    setting=f"{family}: {_sizes(found)}; {unit}", outcome=outcome,
                    estimate=exponent, expected=expected, n=len(shared),
                    text=f"{shown(exponent)}{also}; over {len(found)} cases, which the fit misses by "
                    f"{fit.residual:.2f} octaves",
                )
            )  # fmt: skip
        findings.panels += [_panel(family, found, name) for name in factors]
    text = "No family of cases was run."
    if findings.outcomes:
        words = [
            f"{part.setting.split(':')[0]} {part.name.split()[2]} {part.text.split(';')[0]}"
            for part in findings.parts if part.outcome is not None
        ]  # fmt: skip
        text = (
            f"Exponents as claimed within {MARGIN:g}, {counted(findings.outcomes, 'exponents')}: "
            f"{'; '.join(words) or 'none could be fitted'}."
        )
    return findings.result("C4", STATEMENT, REPORTED, text, fits)


def _sizes(found: Sequence[_Point]) -> str:
    """Data and net of a family, with the range of what differs."""
    first = found[0].case
    spans = []
    for name in ("n_train", "width", "sigma", "copies"):
        values = [p.case.factors[name] for p in found if name in p.case.factors]
        if values and (low := min(values)) < (high := max(values)):
            spans.append(f"{name} {low:g} .. {high:g}")
        elif values and name != "copies":
            spans.append(f"{name} {values[0]:g}")
    return ", ".join([first.data, *spans])


def mixture_angle(factors: Mapping[str, float]) -> float | None:
    """phi: the typical angle of a class's empirical mean to the Bayes direction, in radians.

    tan phi = sigma·sqrt((d - 1)/(n/2))/kappa: the mean of n/2 points of one class has noise of that
    length across the direction.
    """
    try:
        kappa, sigma, d, n = (factors[k] for k in ("kappa", "sigma", "input_dim", "n_train"))
    except KeyError:
        return None
    return math.atan(sigma * math.sqrt((d - 1) / (n / 2)) / kappa)


def _value(case: ClaimCase, name: str) -> float | None:
    return mixture_angle(case.factors) if name == "phi" else case.factors.get(name)


def _varied(cases: Sequence[ClaimCase]) -> list[str]:
    """Which factors differ between the cases; sigma acts through phi, and copies go with n."""
    found = []
    for name in ("n_train", "width", "copies", "sigma"):
        values = {case.factors.get(name) for case in cases}
        if len(values) > 1 and None not in values:
            found.append("phi" if name == "sigma" else name)
    if "copies" in found:  # n grows with the copies; what is distinct stays
        found = [name for name in found if name != "n_train"]
    return found


def _fit(
    family: str, found: Sequence[_Point], factors: Sequence[str]
) -> tuple[ScalingFit, dict[str, tuple[float, Values]]]:
    """The fit, and each exponent with its resamples."""
    design = np.column_stack(
        [
            np.ones(len(found)),
            *([np.log2(_value(p.case, k) or 1.0) for p in found] for k in factors),
        ]
    )
    inverse = np.linalg.pinv(design)
    stars = np.array([p.star.value for p in found])
    solution: Values = inverse @ stars
    draws: Values = inverse @ np.array([p.star.draws for p in found])  # [1 + factors, B]
    exponents = {name: (float(solution[k]), draws[k]) for k, name in enumerate(factors, start=1)}
    freedom = max(1, len(found) - len(solution))
    residual = math.sqrt(float(((stars - design @ solution) ** 2).sum()) / freedom)
    num_seeds, first = len(found[0].errors.seeds), found[0].case

    def column(name: str) -> Values:
        return draws[1 + list(factors).index(name)] if name in factors else np.zeros(draws.shape[1])

    columns = (draws[0], column("width"), column("n_train"))
    shown_exponents = {
        name: percentiles(value, drawn, num_seeds) for name, (value, drawn) in exponents.items()
    }
    fit = ScalingFit(
        family=family,
        width_exponent=shown_exponents.get("width"),
        n_exponent=shown_exponents.get("n_train"),
        intercept=float(solution[0]),
        samples=tuple(
            (round(float(a), 4), round(float(b), 4), round(float(c), 4))
            for a, b, c in zip(*(k[:KEPT_DRAWS] for k in columns), strict=True)
        ),
        residual=residual,
        freedom=freedom,
        sizes=tuple(
            (int(p.case.factors.get("width", 0)), int(p.case.factors["n_train"])) for p in found
        ),
        axis=first.sweep.axis,
        octaves=first.octaves,
        log2_input_dim=math.log2(first.factors["input_dim"]) if first.shift else None,
        num_seeds=num_seeds,
    )
    return fit, exponents


def _panel(family: str, found: Sequence[_Point], name: str) -> ClaimPanel:
    """log2 c* over one factor, one curve for each combination of the others."""
    groups: dict[str, list[_Point]] = {}
    others = [k for k in _varied([p.case for p in found]) if k != name]
    for p in found:
        label = ", ".join(f"{k} = {p.case.factors.get(k, 0):g}" for k in others) or family
        groups.setdefault(label, []).append(p)
    curves = []
    for label, group in groups.items():
        rows = []
        for p in sorted(group, key=lambda p: _value(p.case, name) or 0.0):
            one = percentiles(p.star.value, p.star.draws, len(p.errors.seeds))
            rows.append(
                CurvePoint(
                    x=math.log2(_value(p.case, name) or 1.0),
                    value=one.value,
                    low=one.low,
                    high=one.high,
                )
            )
        curves.append(ClaimCurve(name=label, points=tuple(rows)))
    return ClaimPanel(
        title=f"{family}: best c over {NAMES[name]}",
        x_label=NAMES[name],
        y_label="best c (smaller c = larger FLS)"
        + (", of weights of order one" if found[0].case.shift else ""),
        y_log2=True,
        curves=tuple(curves),
    )
