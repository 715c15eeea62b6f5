"""Neurons and weight changes against the class means of their inputs, and their nulls."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fls_bench.metrics.alignment import (
    class_directions,
    class_mean_alignment,
    permuted_alignments,
    split_half_cosine,
)
from fls_bench.metrics.energy import (
    energy_in_span,
    permuted_energies,
    principal_energies,
    span_size,
)
from fls_bench.metrics.metric import (
    ORDERLESS,
    UNTIED_TO_SCALE,
    Invariance,
    Metric,
    Need,
    Reading,
)
from fls_bench.metrics.snapshot import NetState, Snapshot
from fls_bench.schema import Regime

# The 95th smallest of 99 is exceeded by one of 100 exchangeable values in exactly 5 of 100 cases.
NUM_PERMUTATIONS = 99
_NULL_LOW, _NULL_HIGH = 4, 94
NUM_SPLITS = 20
_NO_INPUT = "The inputs of this layer are not recorded as vectors (as for a convolution)."


def _layer_inputs(state: NetState, x_train: Tensor) -> Iterator[tuple[str, Tensor, Tensor | None]]:
    """Each weight layer with its weights and its training inputs, None where not recorded."""
    source: Tensor | None = x_train
    features = list(state.train_features.values())
    last = list(state.weights)[-1] if state.weights else None
    for layer, weights in state.weights.items():
        if layer == last and features:
            source = features[-1]  # a read-out reads these, whichever branch comes before it
        # Averaged maps may happen to have as many numbers as a convolution has weights.
        fits = source is not None and weights.shape[-1] == source.shape[-1]
        yield layer, weights, source if fits and layer not in state.convolutions else None
        source = state.train_features.get(layer)


def _permutations(n: int, generator: torch.Generator) -> Tensor:
    return torch.stack([torch.randperm(n, generator=generator) for _ in range(NUM_PERMUTATIONS)])


def read_class_mean_alignment(snapshot: Snapshot, _: torch.Generator) -> Iterator[Reading]:
    """Alignment of each layer with the class means of its training inputs, at the end and at init."""
    y, n_classes, n = snapshot.y_train, snapshot.n_classes, len(snapshot.y_train)
    for name, state in (("", snapshot.final), ("_at_init", snapshot.init)):
        if state is None:
            continue
        metric = f"alignment.class_means{name}"
        for layer, weights, inputs in _layer_inputs(state, snapshot.x_train):
            if inputs is None:
                yield Reading(metric, None, layer, n=n, reason=_NO_INPUT)
                continue
            directions = class_directions(inputs, y, n_classes)
            yield Reading(metric, class_mean_alignment(weights, directions), layer, n=n)


def read_alignment_null(snapshot: Snapshot, generator: torch.Generator) -> Iterator[Reading]:
    """Alignment with the class means of permuted labels, beside init the second null.

    The null's value is the mean over permutations; low and high are its 5 % and 95 % quantiles, so
    that a layer whose weights know nothing of the labels exceeds high in 5 % of cases. Alignment is
    claimed only above both nulls.
    """
    y, n_classes, n = snapshot.y_train, snapshot.n_classes, len(snapshot.y_train)
    orders = _permutations(n, generator).to(y.device)
    metric = "alignment.class_means_permutation_null"
    for layer, weights, inputs in _layer_inputs(snapshot.final, snapshot.x_train):
        if inputs is None:
            yield Reading(metric, None, layer, n=n, reason=_NO_INPUT)
            continue
        null = permuted_alignments(weights, inputs, y, n_classes, orders)
        yield Reading(metric, null.mean(), layer, n=n, low=null[_NULL_LOW], high=null[_NULL_HIGH])


def read_split_half(snapshot: Snapshot, generator: torch.Generator) -> Iterator[Reading]:
    """Cosine of class-mean directions from two halves of each layer's training inputs.

    In the first layer it depends on the data alone, so it points to no side.
    """
    metric, n = "alignment.class_means_split_half", len(snapshot.y_train)
    for layer, _, inputs in _layer_inputs(snapshot.final, snapshot.x_train):
        if inputs is None:
            yield Reading(metric, None, layer, n=n, reason=_NO_INPUT)
            continue
        ceiling = split_half_cosine(
            inputs, snapshot.y_train, snapshot.n_classes, generator, splits=NUM_SPLITS
        )
        yield Reading(metric, ceiling, layer, n=n)


def read_change_energy(snapshot: Snapshot, generator: torch.Generator) -> Iterator[Reading]:
    """Share of each weight change in the span of the class means of its inputs, with two nulls.

    Inputs of later layers are the final net's features. A null's value is the mean over 99
    permutations or resamples, low and high their 5 % and 95 % quantiles. The change is called one
    along class means only where the share is above the high end of both: gradients are sums of
    inputs, so a change always lies in their leading components to a good part. The share points to
    no side: in later layers it rises with feature learning as both nulls do, in the first layer of
    deep nets it is highest inside the range of c.
    """
    if snapshot.init is None:
        return
    y, n_classes, n = snapshot.y_train, snapshot.n_classes, len(snapshot.y_train)
    orders = _permutations(n, generator).to(y.device)
    names = tuple(
        f"energy.class_means{part}" for part in ("", "_permutation_null", "_principal_null")
    )
    for layer, weights, inputs in _layer_inputs(snapshot.final, snapshot.x_train):
        initial = snapshot.init.weights.get(layer)
        reason = None
        if inputs is None:
            reason = _NO_INPUT
        elif initial is None or initial.shape != weights.shape:
            reason = "The initial weights of this layer are missing or have another shape."
        else:
            directions = class_directions(inputs, y, n_classes)
            size = span_size(directions)
            if size == 0:
                reason = "The class means of this layer's inputs are equal."
            elif size == inputs.shape[-1]:
                reason = "The class means span all inputs of this layer: any change lies in there."
        if reason is not None or inputs is None or initial is None:
            for name in names:
                yield Reading(name, None, layer, n=n, reason=reason)
            continue
        change = weights.double() - initial.double()
        yield Reading(names[0], energy_in_span(change, directions), layer, n=n)
        nulls = (
            permuted_energies(change, inputs, y, n_classes, orders),
            principal_energies(change, inputs, size, generator, resamples=NUM_PERMUTATIONS),
        )
        for name, null in zip(names[1:], nulls, strict=True):
            low, high = null[_NULL_LOW], null[_NULL_HIGH]
            yield Reading(name, null.mean(), layer, n=n, low=low, high=high)


def _row(
    name: str,
    what: str,
    source: str,
    *needs: Need,
    compute: Callable[[Snapshot, torch.Generator], Iterator[Reading]] = read_class_mean_alignment,
    direction: Regime | None = None,
    draws: int = 1,
    invariant_to: frozenset[Invariance] = ORDERLESS,
    undefined: str = "The class means of this layer's inputs are equal, or its weights are all 0.",
    lowest: float = 0.0,
) -> Metric:
    return Metric(
        name=name,
        what=what,
        source=source,
        compute=compute,
        split="train",
        needs=frozenset({"weights", "inputs", "features", "labels", "train_data", *needs}),
        per_layer=True,
        direction=direction,
        min_effect=0.05,
        min_samples=10,
        cost=lambda n, d, h: draws * 20.0 * max(d, h) * (n + h),
        invariant_to=invariant_to,
        undefined=undefined,
        range=(lowest, 1.0),
    )


_YHL = "Yeom, Ha, Lee 2026, arXiv 2602.00827, sec. 5"
_NULL = "Phipson, Smyth 2010, sec. 3"
_NO_CHANGE = "The weights of this layer did not change."

ROWS: tuple[Metric, ...] = (
    _row(
        "alignment.class_means",
        "norm-weighted largest cosine of neurons with a class-mean direction of their inputs",
        _YHL,
        direction=Regime.OVER_ALIGNED,
    ),
    _row("alignment.class_means_at_init", "the same before training, the first null", _YHL, "init"),
    _row(
        "alignment.class_means_permutation_null",
        "the same for permuted labels, the second null: mean and 5 % to 95 %",
        _NULL,
        compute=read_alignment_null,
        draws=NUM_PERMUTATIONS,
        invariant_to=UNTIED_TO_SCALE,
    ),
    _row(
        "alignment.class_means_split_half",
        "cosine of class-mean directions from two halves of the points: the noise ceiling",
        "Spearman 1910",
        compute=read_split_half,
        draws=NUM_SPLITS,
        invariant_to=(UNTIED_TO_SCALE | {"feature_rotation"}),
        undefined="The class means of this layer's inputs are equal, or no class has two points.",
        lowest=-1.0,
    ),
    _row(
        "energy.class_means",
        "share of a weight change in the span of the class means of its inputs",
        "own definition, after " + _YHL,
        "init",
        compute=read_change_energy,
        undefined=_NO_CHANGE,
    ),
    _row(
        "energy.class_means_permutation_null",
        "the same for permuted labels, the first null: mean and 5 % to 95 %",
        _NULL,
        "init",
        compute=read_change_energy,
        draws=NUM_PERMUTATIONS,
        invariant_to=UNTIED_TO_SCALE,
        undefined=_NO_CHANGE,
    ),
    _row(
        "energy.class_means_principal_null",
        "the same for as many leading principal components, the second null: mean and 5 % to 95 % "
        "of bootstrap resamples",
        "own definition; Fisher et al. 2016, sec. 3",
        "init",
        compute=read_change_energy,
        draws=NUM_PERMUTATIONS,
        invariant_to=UNTIED_TO_SCALE,
        undefined=_NO_CHANGE,
    ),
)
