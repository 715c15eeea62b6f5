"""What a row of the table of metrics says, and what a reading of it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fls_bench.metrics.snapshot import Snapshot, SplitName
from fls_bench.schema import Regime

LOGITS = "logits"
"""The layer under which measurements of the logits stand."""

Need = Literal[
    "weights",
    "init",
    "kernel",
    "inputs",
    "features",
    "outputs",
    "labels",
    "train_data",
    "validation_data",
    "test_data",
]
Invariance = Literal[
    "neuron_permutation",
    "relu_rescaling",
    "feature_rotation",
    "feature_scale",
    "output_scale",
    "sample_order",
]
"""What may be done to a snapshot.

neuron_permutation: hidden neurons in another order. relu_rescaling: weights into a neuron times
lambda > 0 and weights out of it divided by lambda, init alike. feature_rotation, feature_scale: the
hidden features of a layer rotated, or times a constant. output_scale: outputs times a constant > 0,
init alike. sample_order: the points of each split in another order.
"""


@dataclass(frozen=True)
class Reading:
    """One result of a metric's function, still a tensor.

    Attributes:
        metric: Name of the row in METRICS.
        value: 0-d tensor, NaN or infinite where the metric is undefined; None with a reason.
        layer: Layer that it belongs to, or None.
        n: How many samples it rests on, or None.
        low: Lower bound, where the metric has one.
        high: Upper bound, where the metric has one.
        reason: One sentence that says why there is no value.
    """

    metric: str
    value: Tensor | None
    layer: str | None = None
    n: int | None = None
    low: Tensor | None = None
    high: Tensor | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes:
        name: ``family.quantity``.
        what: What it is, in a few words.
        source: Where the definition comes from.
        compute: Yields the readings of this row. Rows that share a function are computed together,
            once. It gets a generator for what is random in it.
        split: The split that it is measured on, or None for weights.
        needs: Parts of the snapshot that have to be there and be finite.
        per_layer: One reading per layer.
        direction: The side that a higher value points to; None where it points to neither, or
            rises toward both.
        min_effect: Smallest change worth a person's attention.
        min_samples: Fewest points, of each split that it needs, that give a value.
        cost: (n, d, h) -> floating-point operations to leading order for n points per split,
            d inputs and width h, for one layer and 10 classes.
        invariant_to: What leaves it unchanged, up to rounding.
        undefined: One sentence that says when the value is NaN although all that it needs is
            finite.
        unit: "1" for ratios, cosines and shares.
        range: Smallest and largest possible value.
        better: Which way is better in itself, or None.
    """

    name: str
    what: str
    source: str
    compute: Callable[[Snapshot, torch.Generator], Iterable[Reading]]
    split: SplitName | None
    needs: frozenset[Need]
    per_layer: bool
    direction: Regime | None
    min_effect: float
    min_samples: int
    cost: Callable[[int, int, int], float]
    invariant_to: frozenset[Invariance]
    undefined: str = "The value is not finite."
    unit: str = "1"
    range: tuple[float, float] = (0.0, 1.0)
    better: Literal["higher", "lower"] | None = None


UNTIED_TO_SCALE: frozenset[Invariance] = frozenset(
    {"neuron_permutation", "feature_scale", "output_scale"}
)
ORDERLESS: frozenset[Invariance] = UNTIED_TO_SCALE | {"sample_order"}
OF_THE_KERNEL: frozenset[Invariance] = ORDERLESS | {"feature_rotation"}
OF_THE_FUNCTION: frozenset[Invariance] = OF_THE_KERNEL | {"relu_rescaling"}
