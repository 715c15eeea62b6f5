"""Dimensions of features and logits: effective rank, its ratio to K - 1, intrinsic dimension."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor

from fls_bench.metrics.dimension import neighbour_ratios, two_nn_dimension
from fls_bench.metrics.kernels import effective_rank
from fls_bench.metrics.metric import (
    LOGITS,
    OF_THE_FUNCTION,
    OF_THE_KERNEL,
    Invariance,
    Metric,
    Need,
    Reading,
)
from fls_bench.metrics.outputs import class_centered
from fls_bench.metrics.snapshot import Snapshot
from fls_bench.schema import Regime

MAX_NEIGHBOURS = 1000


def read_effective_rank(snapshot: Snapshot, _: torch.Generator) -> Iterator[Reading]:
    """Participation ratio of each hidden layer's features and of the logits, on test points.

    The mean over the classes is taken off each point's logits, as softmax does not see it; the
    effective rank of the logits is then at most K - 1. The second reading is the ratio to K - 1, by
    which tasks with different numbers of classes can be compared.
    """
    logits = snapshot.logits("test")
    parts = {**snapshot.final.test_features, LOGITS: class_centered(logits)}
    for name, features in parts.items():
        n = len(features)
        for metric, size in (("rank.effective", 1), ("rank.over_classes", snapshot.n_classes - 1)):
            if name == LOGITS and logits.shape[-1] < 3:
                reason = "With two classes the logits have rank 1 by construction."
                yield Reading(metric, None, name, n=n, reason=reason)
            elif size < 1:
                reason = "The task has only one class."
                yield Reading(metric, None, name, n=n, reason=reason)
            else:
                yield Reading(metric, effective_rank(features) / size, name, n=n)


def read_rank_in_training(snapshot: Snapshot, _: torch.Generator) -> Iterator[Reading]:
    """The participation ratio on training points, where no test points are needed, and against init.

    Of n points it is at most n - 1; so that final and initial state can be compared, both are
    measured on the same ones.
    """
    logits, final = snapshot.logits("train"), snapshot.final.train_features
    n, outputs = len(logits), class_centered(logits)
    for name, features in {**final, LOGITS: outputs}.items():
        metric = "rank.over_classes_train"
        if name == LOGITS and logits.shape[-1] < 3:
            reason = "With two classes the logits have rank 1 by construction."
            yield Reading(metric, None, name, n=n, reason=reason)
        elif snapshot.n_classes < 2:
            yield Reading(metric, None, name, n=n, reason="The task has only one class.")
        else:
            ratio = effective_rank(features) / (snapshot.n_classes - 1)
            yield Reading(metric, ratio, name, n=n)
    if snapshot.init is None:
        return
    for name, features in final.items():
        initial = snapshot.init.train_features.get(name)
        if initial is None:
            reason = "The initial features of this layer are missing."
            yield Reading("rank.to_init", None, name, n=n, reason=reason)
        else:
            ratio = effective_rank(features) / effective_rank(initial)
            yield Reading("rank.to_init", ratio, name, n=n)


def read_dimension(snapshot: Snapshot, generator: torch.Generator) -> Iterator[Reading]:
    """Intrinsic dimension of the test inputs and of the last features, at most 1000 test points.

    That of the features falls with growing feature learning, as rank does; that of the inputs is a
    property of the data, to compare it with.
    """
    n = len(snapshot.x_test)
    some = torch.randperm(n, generator=generator)[:MAX_NEIGHBOURS].to(snapshot.x_test.device)
    parts: list[tuple[str, str | None, Tensor]] = [
        ("dimension.two_nn_of_inputs", None, snapshot.x_test)
    ]
    parts += [
        ("dimension.two_nn", last, snapshot.final.test_features[last])
        for last in snapshot.layers[-1:]
    ]
    for metric, layer, points in parts:
        if not bool(points.isfinite().all()):
            yield Reading(metric, torch.tensor(torch.nan), layer, n=len(some))
            continue
        ratios, duplicates = neighbour_ratios(points[some])
        if bool(duplicates):
            reason = f"{int(duplicates)} of {len(some)} points coincide with another one."
            yield Reading(metric, None, layer, n=len(some), reason=reason)
        else:
            yield Reading(metric, two_nn_dimension(ratios), layer, n=len(some))


def _rank(
    name: str,
    what: str,
    *,
    min_effect: float,
    unit: str,
    lowest: float,
    compute: Callable[[Snapshot, torch.Generator], Iterator[Reading]] = read_effective_rank,
    split: Literal["train", "test"] = "test",
    needs: tuple[Need, ...] = ("features", "outputs"),
    of: str = "features or logits",
) -> Metric:
    data: Need = "train_data" if split == "train" else "test_data"
    return Metric(
        name=name,
        what=what,
        source="Gao et al. 2017, bioRxiv 214262",
        compute=compute,
        split=split,
        needs=frozenset({data, *needs}),
        per_layer=True,
        direction=Regime.OVER_FITTED,
        min_effect=min_effect,
        min_samples=30,
        cost=lambda n, _d, h: 2.0 * n * h * min(n, h),
        invariant_to=OF_THE_KERNEL,
        undefined=f"The {of} do not vary over the {split} points.",
        unit=unit,
        range=(lowest, math.inf),
    )


def _dimension(
    name: str,
    what: str,
    need: Need,
    *,
    per_layer: bool,
    direction: Regime | None,
    invariant_to: frozenset[Invariance],
) -> Metric:
    compute: Callable[[Snapshot, torch.Generator], Iterator[Reading]] = read_dimension
    return Metric(
        name=name,
        what=what,
        source="Facco et al. 2017, Sci. Rep. 7",
        compute=compute,
        split="test",
        needs=frozenset({need, "test_data"}),
        per_layer=per_layer,
        direction=direction,
        min_effect=1.0,
        min_samples=100,
        cost=lambda n, d, h: 2.0 * n * n * (h if per_layer else d),
        invariant_to=invariant_to - {"sample_order"},
        undefined="Both neighbours of every point are equally far.",
        unit="dimensions",
        range=(0.0, math.inf),
    )


ROWS: tuple[Metric, ...] = (
    _rank(
        "rank.effective",
        "participation ratio of features and logits",
        min_effect=0.5,
        unit="dimensions",
        lowest=1.0,
    ),
    _rank(
        "rank.over_classes",
        "participation ratio of features and logits over K - 1",
        min_effect=0.05,
        unit="1",
        lowest=0.0,
    ),
    _rank(
        "rank.over_classes_train",
        "the same on training points",
        min_effect=0.05,
        unit="1",
        lowest=0.0,
        compute=read_rank_in_training,
        split="train",
    ),
    _rank(
        "rank.to_init",
        "participation ratio of features over that at init, training points",
        min_effect=0.05,
        unit="1",
        lowest=0.0,
        compute=read_rank_in_training,
        split="train",
        needs=("features", "init"),
        of="features, final or initial,",
    ),
    _dimension(
        "dimension.two_nn",
        "intrinsic dimension of the last features, from two nearest neighbours",
        "features",
        per_layer=True,
        direction=Regime.OVER_FITTED,
        invariant_to=OF_THE_KERNEL,
    ),
    _dimension(
        "dimension.two_nn_of_inputs",
        "the same of the inputs",
        "inputs",
        per_layer=False,
        direction=None,
        invariant_to=OF_THE_FUNCTION,
    ),
)
