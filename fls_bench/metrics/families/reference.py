"""What classifiers of the inputs that learn no features achieve, beside the net's test error."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from fls_bench.metrics.families.probing import MAX_POINTS, some_points
from fls_bench.metrics.metric import OF_THE_FUNCTION, Metric, Reading
from fls_bench.metrics.probes import Split
from fls_bench.metrics.references import STRENGTHS, class_means_reference, kernel_references
from fls_bench.metrics.snapshot import SPLITS, Snapshot

_MEANS, _KERNEL = "reference.class_means", "reference.kernel"
_UNSMOOTHED = "reference.kernel_unsmoothed"


def read_references(snapshot: Snapshot, generator: torch.Generator) -> Iterator[Reading]:
    """The nearest class mean, and regression with the tangent kernel of a wide net.

    The first is what over-aligned nets come close to, the second what over-fitted ones do. A net that
    is worse than one of them may be on that side. They say nothing about the net itself.
    """
    rows, n = some_points(snapshot, generator), len(snapshot.y_test)
    train, validation, test = (
        Split(snapshot.inputs(s)[rows[s]], snapshot.labels(s)[rows[s]]) for s in SPLITS
    )
    means = class_means_reference(train, test)
    yield Reading(_MEANS, means.score, n=n, reason=means.problem)
    for name, found in zip(
        (_KERNEL, _UNSMOOTHED), kernel_references(train, validation, test), strict=True
    ):
        yield Reading(name, found.score, n=n, reason=found.problem)


def _row(name: str, what: str, source: str, fits: int) -> Metric:
    return Metric(
        name=name,
        what=what,
        source=source,
        compute=read_references,
        split="test",
        needs=frozenset({"inputs", "labels", "train_data", "validation_data", "test_data"}),
        per_layer=False,
        direction=None,
        min_effect=0.02,
        min_samples=20,
        cost=lambda n, d, _: 2.0 * n * d * 10 + fits * min(n, MAX_POINTS) ** 3 / 3,
        invariant_to=OF_THE_FUNCTION - {"sample_order"},
        better="higher",
    )


_SOURCE = "Cho, Saul 2009; Jacot, Gabriel, Hongler 2018, arXiv 1806.07572"

ROWS: tuple[Metric, ...] = (
    _row(
        _MEANS,
        "test accuracy of the nearest class mean of the inputs",
        "Papyan, Han, Donoho 2020",
        0,
    ),
    _row(
        _KERNEL,
        "test accuracy of ridge regression with the tangent kernel of a wide one-hidden-layer ReLU net",
        _SOURCE,
        len(STRENGTHS),
    ),
    _row(
        _UNSMOOTHED, "the same with the smallest ridge, which fits the training labels", _SOURCE, 1
    ),
)
