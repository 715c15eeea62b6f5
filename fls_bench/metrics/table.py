"""The table of metrics: what each needs, means and costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch

from fls_bench.metrics.readings import (
    NUM_PERMUTATIONS,
    Reading,
    read_class_mean_alignment,
    read_effective_rank,
    read_initial_function,
    read_movement,
    read_nearest_class_mean,
    read_probes,
    read_risk,
    read_similarity_to_init,
)
from fls_bench.metrics.snapshot import Snapshot, SplitName
from fls_bench.schema import Regime

Need = Literal[
    "weights",
    "init",
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
class Metric:
    """One row of the table.

    Attributes:
        name: ``family.quantity``.
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


_UNTIED_TO_SCALE: frozenset[Invariance] = frozenset(
    {"neuron_permutation", "feature_scale", "output_scale"}
)
_ORDERLESS: frozenset[Invariance] = _UNTIED_TO_SCALE | {"sample_order"}
_OF_THE_KERNEL: frozenset[Invariance] = _ORDERLESS | {"feature_rotation"}
_OF_THE_FUNCTION: frozenset[Invariance] = _OF_THE_KERNEL | {"relu_rescaling"}


def _risk(
    name: str,
    split: Literal["train", "test"],
    *,
    min_effect: float,
    invariant_to: frozenset[Invariance] = _OF_THE_FUNCTION,
    unit: str = "1",
    upper: float = 1.0,
) -> Metric:
    data: Need = "train_data" if split == "train" else "test_data"
    return Metric(
        name=f"{name}.{split}",
        compute=read_risk,
        split=split,
        needs=frozenset({"outputs", "labels", data}),
        per_layer=False,
        direction=None,
        min_effect=min_effect,
        min_samples=1,
        cost=lambda n, _d, _h: 30.0 * n,
        invariant_to=invariant_to,
        unit=unit,
        range=(0.0, upper),
        better="lower",
    )


def _loss(split: Literal["train", "test"]) -> Metric:
    of_outputs: frozenset[Invariance] = _OF_THE_FUNCTION - {"output_scale"}
    return _risk(
        "loss", split, min_effect=0.02, invariant_to=of_outputs, unit="nats", upper=math.inf
    )


def _alignment(
    name: str,
    *needs: Need,
    direction: Regime | None = None,
    draws: int = 1,
    invariant_to: frozenset[Invariance] = _ORDERLESS,
) -> Metric:
    return Metric(
        name=f"alignment.{name}",
        compute=read_class_mean_alignment,
        split="train",
        needs=frozenset({"weights", "inputs", "features", "labels", "train_data", *needs}),
        per_layer=True,
        direction=direction,
        min_effect=0.05,
        min_samples=10,
        cost=lambda n, d, h: draws * 20.0 * max(d, h) * (n + h),
        invariant_to=invariant_to,
        undefined="The class means of this layer's inputs are equal, or its weights are all 0.",
    )


def _agreement(name: str, *, min_effect: float, min_samples: int) -> Metric:
    return Metric(
        name=f"agreement.{name}",
        compute=read_nearest_class_mean,
        split="test",
        needs=frozenset({"inputs", "outputs", "labels", "train_data", "test_data"}),
        per_layer=False,
        direction=None,
        min_effect=min_effect,
        min_samples=min_samples,
        cost=lambda n, d, _h: 40.0 * n * d,
        invariant_to=_OF_THE_FUNCTION,
    )


def _probe(
    name: str,
    *needs: Need,
    per_layer: bool = False,
    better: Literal["higher"] | None = "higher",
    fits: int = 1,
    lowest: float = 0.0,
    invariant_to: frozenset[Invariance] = _UNTIED_TO_SCALE | {"relu_rescaling"},
) -> Metric:
    return Metric(
        name=f"probe.{name}",
        compute=read_probes,
        split="test",
        needs=frozenset({"labels", "train_data", "validation_data", "test_data", *needs}),
        per_layer=per_layer,
        direction=None,
        min_effect=0.02,
        min_samples=20,
        # Four strengths, about 40 iterations each, two products in each.
        cost=lambda n, d, h: fits * 4 * 40 * 40.0 * n * max(d, h),
        invariant_to=invariant_to,
        range=(lowest, 1.0),
        better=better,
    )


_ROWS: tuple[Metric, ...] = (
    _risk("error", "train", min_effect=0.01),
    _risk("ties", "train", min_effect=0.01),
    _loss("train"),
    _risk("error", "test", min_effect=0.01),
    _risk("ties", "test", min_effect=0.01),
    _loss("test"),
    Metric(
        name="movement.relative",
        compute=read_movement,
        split=None,
        needs=frozenset({"weights", "init"}),
        per_layer=True,
        direction=Regime.OVER_ALIGNED,
        min_effect=0.05,
        min_samples=0,
        cost=lambda _n, d, h: 5.0 * h * max(d, h),
        invariant_to=_OF_THE_KERNEL,
        undefined="The initial weights of this layer are all 0.",
        range=(0.0, math.inf),
    ),
    Metric(
        name="cka.init_to_final",
        compute=read_similarity_to_init,
        split="test",
        needs=frozenset({"init", "features", "test_data"}),
        per_layer=True,
        direction=Regime.OVER_FITTED,
        min_effect=0.05,
        min_samples=30,
        cost=lambda n, _d, h: 6.0 * n * h * min(n, h),
        invariant_to=_OF_THE_KERNEL,
        undefined="The features, final or initial, do not vary over the test points.",
    ),
    _alignment("class_means", direction=Regime.OVER_ALIGNED),
    _alignment("class_means_at_init", "init"),
    _alignment(
        "class_means_permutation_null", draws=NUM_PERMUTATIONS, invariant_to=_UNTIED_TO_SCALE
    ),
    _agreement("nearest_class_mean", min_effect=0.02, min_samples=20),
    _agreement("nearest_class_mean_errors", min_effect=0.05, min_samples=10),
    Metric(
        name="rank.effective",
        compute=read_effective_rank,
        split="test",
        needs=frozenset({"features", "outputs", "test_data"}),
        per_layer=True,
        direction=Regime.OVER_FITTED,
        min_effect=0.5,
        min_samples=30,
        cost=lambda n, _d, h: 2.0 * n * h * min(n, h),
        invariant_to=_OF_THE_KERNEL,
        undefined="The features or logits do not vary over the test points.",
        unit="dimensions",
        range=(1.0, math.inf),
    ),
    Metric(
        name="share.initial_function",
        compute=read_initial_function,
        split="test",
        needs=frozenset({"init", "outputs", "test_data"}),
        per_layer=False,
        direction=Regime.OVER_FITTED,
        min_effect=0.05,
        min_samples=10,
        cost=lambda n, _d, _h: 60.0 * n,
        invariant_to=_OF_THE_FUNCTION,
        undefined="The outputs are 0 on all test points, at init and at the end.",
    ),
    _probe("linear", "features", per_layer=True),
    _probe("linear_at_init", "features", "init", per_layer=True),
    _probe(
        "linear_on_inputs",
        "inputs",
        invariant_to=_OF_THE_FUNCTION - {"sample_order"},
    ),
    _probe("first_minus_last", "features", better=None, fits=2, lowest=-1.0),
)

METRICS: Mapping[str, Metric] = MappingProxyType({row.name: row for row in _ROWS})
"""Every metric by name, in the order in which they are shown."""
