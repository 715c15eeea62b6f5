"""Error, ties, loss and calibration."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal

import torch

from fls_bench.metrics.metric import OF_THE_FUNCTION, Invariance, Metric, Need, Reading
from fls_bench.metrics.outputs import (
    CALIBRATION_BINS,
    brier_score,
    calibration_error,
    point_errors,
    point_losses,
    tied_points,
)
from fls_bench.metrics.snapshot import Snapshot, SplitName


def read_risk(snapshot: Snapshot, _: torch.Generator) -> Iterator[Reading]:
    """Error, share of ties and loss on training and test points, at the net's own c.

    A tie of the largest logits (f = 0 for one logit) counts as half an error. The loss is the
    cross-entropy, or the logistic loss for one logit.
    """
    splits: tuple[SplitName, ...] = ("train", "test")
    for split in splits:
        logits, labels = snapshot.logits(split), snapshot.labels(split)
        n = len(labels)
        yield Reading(f"error.{split}", point_errors(logits, labels).mean(), n=n)
        yield Reading(f"ties.{split}", tied_points(logits).mean(), n=n)
        yield Reading(f"loss.{split}", point_losses(logits, labels).mean(), n=n)


def read_calibration(snapshot: Snapshot, _: torch.Generator) -> Iterator[Reading]:
    """Expected calibration error and Brier score of the test outputs, at the net's own c.

    Calibration follows the error, and both are worse on both sides; so neither points to a side.
    """
    logits, labels = snapshot.logits("test"), snapshot.labels("test")
    n = len(labels)
    yield Reading("calibration.expected_error", calibration_error(logits, labels), n=n)
    yield Reading("calibration.brier", brier_score(logits, labels), n=n)


_OF_OUTPUTS: frozenset[Invariance] = OF_THE_FUNCTION - {"output_scale"}


def _row(
    name: str,
    what: str,
    source: str,
    split: Literal["train", "test"] = "test",
    *,
    compute: Callable[[Snapshot, torch.Generator], Iterator[Reading]] = read_risk,
    min_effect: float = 0.01,
    min_samples: int = 1,
    invariant_to: frozenset[Invariance] = _OF_OUTPUTS,
    unit: str = "1",
    upper: float = 1.0,
) -> Metric:
    data: Need = "train_data" if split == "train" else "test_data"
    return Metric(
        name=name,
        what=what,
        source=source,
        compute=compute,
        split=split,
        needs=frozenset({"outputs", "labels", data}),
        per_layer=False,
        direction=None,
        min_effect=min_effect,
        min_samples=min_samples,
        cost=lambda n, _d, _h: 30.0 * n,
        invariant_to=invariant_to,
        unit=unit,
        range=(0.0, upper),
        better="lower",
    )


def _of_split(split: Literal["train", "test"]) -> tuple[Metric, ...]:
    return (
        _row(
            f"error.{split}",
            "share of points with a wrong label, a tie counted in part",
            "own definition of ties",
            split,
            invariant_to=OF_THE_FUNCTION,
        ),
        _row(
            f"ties.{split}",
            "share of points whose largest logits are equal",
            "own definition",
            split,
            invariant_to=OF_THE_FUNCTION,
        ),
        _row(
            f"loss.{split}",
            "mean cross-entropy, or logistic loss for one logit",
            "standard",
            split,
            min_effect=0.02,
            unit="nats",
            upper=math.inf,
        ),
    )


ROWS: tuple[Metric, ...] = (
    *_of_split("train"),
    *_of_split("test"),
    _row(
        "calibration.expected_error",
        f"expected calibration error, {CALIBRATION_BINS} equal bins of confidence",
        "Guo et al. 2017, arXiv 1706.04599, eq. 3",
        compute=read_calibration,
        min_effect=0.02,
        min_samples=100,
    ),
    _row(
        "calibration.brier",
        "Brier score, sum over classes",
        "Brier 1950, eq. 2",
        compute=read_calibration,
        upper=2.0,
    ),
)
