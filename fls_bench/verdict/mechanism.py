"""What goes with a regime: a mechanism for over-aligned, a face for over-fitted."""

from __future__ import annotations

import numpy as np

from fls_bench.schema import Code, Outcome, Sweep
from fls_bench.verdict.contrasts import LEVEL, Contrast, contrast, table

MIN_RANK_CHANGE = 0.1
"""A loss of effective rank below a tenth is not called a collapse, however certain."""


RANK_INTERVENTION = (
    "Where it was (suite rank_intervention: MLPs on digits, n = 150, 2^-10 against 2^-4, 20 seeds), "
    "holding a rank that sees the tail of the spectrum, in all hidden layers, returned the lost "
    "accuracy (102 % [93, 111]), lowering it at c* took part of it (42 % [32, 54]), and raising it "
    "further helped small c further: rank, or what the penalty restores with it, is part of the loss "
    "there and not shown to be all of it. The last layer's rank is the visible end of a loss through "
    "all hidden layers, not shown to be the cause alone."
)
"""n = 150, c = 2^-10 against c* = 2^-4, 20 seeds, 95 % intervals; docs/rank-intervention.md."""


def _relative(sweep: Sweep, c: float, other: float, metric: str) -> Contrast | None:
    """metric(c)/metric(other) - 1, by seed, over runs that reached the target."""
    found = {}
    for cell in sweep.cells:
        if cell.c in (c, other):
            found[cell.c] = {
                run.seed: run.measurements[metric]
                for run in cell.seeds
                if run.outcome is Outcome.REACHED_TARGET and metric in run.measurements
            }
    first, second = found.get(c, {}), found.get(other, {})
    seeds = sorted(set(first) & set(second))
    if not seeds or any(second[s] == 0 for s in seeds):
        return None
    ratios = np.array([first[s] / second[s] - 1 for s in seeds])
    return contrast(ratios, np.zeros(len(seeds)), 0.0)


def over_aligned_mechanism(
    sweep: Sweep, c: float, star: float, beats_alignment_nulls: bool | None
) -> tuple[Code, dict[str, float]]:
    """Name what was measured to go with over-alignment: association, not intervention.

    Args:
        sweep: The sweep.
        c: The multiplier that is judged.
        star: c*.
        beats_alignment_nulls: Whether the model's neurons are closer to class-mean directions than
            at init *and* than 95 % of label permutations; None where that was not measured.

    Returns:
        (``class_mean_alignment``, ``rank_collapse`` or ``undetermined`` with the text, the evidence
        as numbers: differences relative to the value at c*).
    """
    evidence: dict[str, float] = {}

    def change(metric: str, practical: float) -> int:
        """Sign of metric(c)/metric(c*) - 1 where it is beyond noise and practically large, else 0."""
        found = _relative(sweep, c, star, metric)
        if found is None:
            return 0
        evidence[f"{metric}, relative change from c* to c"] = found.mean
        width = found.half_width(LEVEL / 2)
        if abs(found.mean) < practical:
            return 0
        return (found.mean > width) - (found.mean < -width)

    rank_logits = change("rank.effective:logits", MIN_RANK_CHANGE)
    rank_last = change("rank.effective:last", MIN_RANK_CHANGE)
    closer = change("agreement.nearest_class_mean", 0.0)
    # A rank lost in the logits or in the last features, and gained in neither.
    lost_rank = min(rank_logits, rank_last) < 0 and max(rank_logits, rank_last) <= 0
    aligned = closer > 0 and beats_alignment_nulls is True
    if aligned and not lost_rank:
        text = (
            "class-mean alignment: the net answers more like the nearest-class-mean classifier than "
            "at c*, and its neurons are closer to the class means than at init and than under "
            "permuted labels."
        )
        return Code(code="class_mean_alignment", text=text), evidence
    if lost_rank and closer <= 0:
        text = (
            "rank collapse: the effective rank of the last features or logits is lower than at c*, "
            "while agreement with the nearest-class-mean classifier is not higher. In this setup both "
            f"were measured and nothing was intervened on. {RANK_INTERVENTION}"
        )
        return Code(code="rank_collapse", text=text), evidence
    both = " Rank is lower and agreement with the class means higher, so neither is singled out."
    text = "undetermined: the measurements do not single out one mechanism."
    return Code(code="undetermined", text=text + (both if lost_rank else "")), evidence


def over_fitted_face(
    plain_sweep: Sweep, centered_sweep: Sweep, c: float, star: float
) -> tuple[Code, dict[str, float]]:
    """Split an over-fitted excess into what the initial function does and what laziness does.

    D_noise = R(c) - R_centered(c) is removed by centering; D_lazy = R_centered(c) - R(c*) stays. The
    larger names the face if the two differ beyond noise.

    Args:
        plain_sweep: The sweep of c·f.
        centered_sweep: The sweep of c·(f - f_0), same seeds.
        c: The multiplier that is judged.
        star: c*.

    Returns:
        (``initial_function_noise``, ``lazy`` or ``undetermined``, the evidence in points of error).
    """
    plain, centered = table(plain_sweep, centered_sweep), table(centered_sweep, plain_sweep)
    if c not in centered.test or star not in plain.test or c not in plain.test:
        text = "undetermined: the centered runs at this c did not reach the target."
        return Code(code="undetermined", text=text), {}
    at_c, at_star, without = plain.test[c], plain.test[star], centered.test[c]
    resolution = 1 / plain.n_test
    noise, lazy = contrast(at_c, without, resolution), contrast(without, at_star, resolution)
    difference = contrast(at_c - without, without - at_star, resolution)
    if noise is None or lazy is None or difference is None:
        return Code(code="undetermined", text="undetermined: too few centered runs."), {}
    evidence = {
        "points removed by centering": 100 * noise.mean,
        "points that stay": 100 * lazy.mean,
        "half-width of their difference": 100 * difference.half_width(LEVEL / 2),
        "num_seeds": float(difference.num_seeds),
    }
    parts = f"centering removes {100 * noise.mean:.1f} points of error, {100 * lazy.mean:.1f} stay"
    width = difference.half_width(LEVEL / 2)
    if difference.mean > width:
        text = (
            f"initial-function noise: {parts}. Most of the harm is the initial function c·f_0 that "
            "training must undo."
        )
        return Code(code="initial_function_noise", text=text), evidence
    if difference.mean < -width:
        text = f"lazy: {parts}. Most of the harm is that the features hardly move."
        return Code(code="lazy", text=text), evidence
    text = f"undetermined: {parts}, too close to call."
    return Code(code="undetermined", text=text), evidence
