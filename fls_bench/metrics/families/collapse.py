"""Neural collapse of the last features and the read-out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch

from fls_bench.metrics.collapse import self_duality, within_between
from fls_bench.metrics.metric import (
    OF_THE_KERNEL,
    UNTIED_TO_SCALE,
    Invariance,
    Metric,
    Need,
    Reading,
)
from fls_bench.metrics.snapshot import Snapshot, SplitName


def read_collapse(snapshot: Snapshot, _: torch.Generator) -> Iterator[Reading]:
    """Within-class against between-class variability of the last features, and self-duality.

    The ratio test over train says how much of the collapse is of the training points alone. None
    points to a side: variability falls from lazy to rich, but on digits rises again, or stays, at
    the smallest c.
    """
    for layer in snapshot.layers[-1:]:
        train, test = (
            within_between(
                snapshot.final.features(split)[layer], snapshot.labels(split), snapshot.n_classes
            )
            if len(snapshot.labels(split))
            else torch.tensor(torch.nan)
            for split in ("train", "test")
        )
        n = len(snapshot.y_train)
        yield Reading("collapse.variability_train", train, layer, n=n)
        n = len(snapshot.y_test)
        yield Reading("collapse.variability_test", test, layer, n=n)
        yield Reading("collapse.test_over_train", test / train, layer, n=n)


def read_self_duality(snapshot: Snapshot, _: torch.Generator) -> Iterator[Reading]:
    """Cosine of the read-out with the centred class means of the features that it acts on.

    It is low for lazy nets and saturates for rich ones (on digits it was highest inside the range of
    c in a deep net, at its end in one with one hidden layer), so it points to no side.
    """
    metric, n = "collapse.self_duality", len(snapshot.y_train)
    layers, weights = tuple(snapshot.final.train_features), snapshot.final.weights
    for layer in snapshot.layers[-1:]:
        readout = list(weights)[-1]
        features = snapshot.final.train_features[layer]
        expected = (snapshot.final.train_outputs.shape[-1], features.shape[-1])
        reason = None
        if layer != layers[-1] or tuple(weights[readout].shape) != expected:
            reason = "The read-out does not act on the features that count as the last."
        value = None if reason else self_duality(weights[readout], features, snapshot.y_train)
        yield Reading(metric, value, layer, n=n, reason=reason)


_PAPYAN = "Papyan, Han, Donoho 2020"


def _row(
    name: str,
    what: str,
    source: str,
    split: SplitName,
    *needs: Need,
    compute: Callable[[Snapshot, torch.Generator], Iterator[Reading]] = read_collapse,
    invariant_to: frozenset[Invariance] = OF_THE_KERNEL,
    undefined: str = "The class means of the last features are equal.",
    interval: tuple[float, float] = (0.0, math.inf),
    min_effect: float = 0.1,
) -> Metric:
    return Metric(
        name=f"collapse.{name}",
        what=what,
        source=source,
        compute=compute,
        split=split,
        needs=frozenset({"features", "labels", *needs}),
        per_layer=True,
        direction=None,
        min_effect=min_effect,
        min_samples=20,
        cost=lambda n, _d, h: 60.0 * n * h,
        invariant_to=invariant_to,
        undefined=undefined,
        range=interval,
    )


ROWS: tuple[Metric, ...] = (
    _row(
        "variability_train",
        "within-class over between-class variability of the last features, training points",
        f"{_PAPYAN}, NC1",
        "train",
        "train_data",
    ),
    _row(
        "variability_test",
        "the same on test points",
        f"{_PAPYAN}, NC1",
        "test",
        "test_data",
    ),
    _row(
        "test_over_train",
        "the one over the other",
        f"{_PAPYAN}, NC1",
        "test",
        "train_data",
        "test_data",
        undefined="The class means of the last features are equal, or collapse is complete.",
        min_effect=0.5,
    ),
    _row(
        "self_duality",
        "cosine of the read-out with the centred class means of the last features",
        f"{_PAPYAN}, NC3",
        "train",
        "weights",
        "outputs",
        "train_data",
        compute=read_self_duality,
        invariant_to=UNTIED_TO_SCALE | {"sample_order"},
        undefined="The class means are equal, a class has no points, or the read-out is 0.",
        interval=(-1.0, 1.0),
        min_effect=0.05,
    ),
)
