"""The net against the nearest-class-mean classifier, in input and in feature space."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from fls_bench.metrics.alignment import class_means, nearest_class_mean
from fls_bench.metrics.metric import (
    OF_THE_FUNCTION,
    OF_THE_KERNEL,
    Invariance,
    Metric,
    Need,
    Reading,
)
from fls_bench.metrics.outputs import point_errors
from fls_bench.metrics.snapshot import Snapshot

_SHARE, _COPIED = "agreement.nearest_class_mean", "agreement.nearest_class_mean_errors"
_IN_FEATURES = "agreement.nearest_class_mean_in_features"


def read_nearest_class_mean(snapshot: Snapshot, _: torch.Generator) -> Iterator[Reading]:
    """Agreement of the net with the nearest-class-mean classifier on test points.

    First in input space, then the share of that classifier's errors where the net gives the same
    wrong label, then in the space of the last features (neural collapse's NC4). A tie of the net's
    logits counts half. In nets with one hidden layer agreement in input space rises toward
    over-aligned; in deeper nets it was seen to fall, so it points to neither side.
    """
    layers = snapshot.layers[-1:]
    if bool(snapshot.y_train.amin() == snapshot.y_train.amax()):
        for metric in (_SHARE, _COPIED, *([_IN_FEATURES] if layers else [])):
            layer = layers[0] if metric == _IN_FEATURES else None
            yield Reading(metric, None, layer, reason="The training set has only one class.")
        return
    y, n_classes, logits = snapshot.y_train, snapshot.n_classes, snapshot.logits("test")
    labels = nearest_class_mean(snapshot.x_test, class_means(snapshot.x_train, y, n_classes))
    agrees = 1 - point_errors(logits, labels)
    yield Reading(_SHARE, agrees.mean(), n=len(labels))
    wrong = labels != snapshot.y_test
    yield Reading(_COPIED, agrees[wrong].mean(), n=int(wrong.sum()))
    for layer in layers:
        means = class_means(snapshot.final.train_features[layer], y, n_classes)
        labels = nearest_class_mean(snapshot.final.test_features[layer], means)
        agrees = 1 - point_errors(logits, labels)
        yield Reading(_IN_FEATURES, agrees.mean(), layer, n=len(labels))


def _row(
    name: str,
    what: str,
    *needs: Need,
    min_effect: float = 0.02,
    min_samples: int = 20,
    per_layer: bool = False,
    invariant_to: frozenset[Invariance] = OF_THE_FUNCTION,
) -> Metric:
    return Metric(
        name=name,
        what=what,
        source="Papyan, Han, Donoho 2020, NC4",
        compute=read_nearest_class_mean,
        split="test",
        needs=frozenset({"outputs", "labels", "train_data", "test_data", *needs}),
        per_layer=per_layer,
        direction=None,
        min_effect=min_effect,
        min_samples=min_samples,
        cost=lambda n, d, h: 40.0 * n * (h if per_layer else d),
        invariant_to=invariant_to,
    )


ROWS: tuple[Metric, ...] = (
    _row(
        _SHARE,
        "share of test points where the net answers as the nearest class mean of inputs",
        "inputs",
    ),
    _row(
        _COPIED,
        "share of that classifier's errors that the net copies",
        "inputs",
        min_effect=0.05,
        min_samples=10,
    ),
    _row(
        _IN_FEATURES,
        "share of test points where the net answers as the nearest class mean of its last features",
        "features",
        per_layer=True,
        invariant_to=OF_THE_KERNEL,
    ),
)
