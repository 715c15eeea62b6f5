"""From a snapshot to the pure functions: one function for each family of metrics.

Each yields readings, still tensors, and never raises on bad numbers: an undefined value is NaN, or
None with the reason where the reason is not in the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from fls_bench.metrics.alignment import (
    class_directions,
    class_mean_alignment,
    class_means,
    nearest_class_mean,
    permuted_alignments,
)
from fls_bench.metrics.features import initial_function_share, relative_movement
from fls_bench.metrics.kernels import effective_rank, linear_cka
from fls_bench.metrics.outputs import class_centered, point_errors, point_losses, tied_points
from fls_bench.metrics.probes import Probe, Split, linear_probe
from fls_bench.metrics.snapshot import SPLITS, NetState, Snapshot, SplitName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

LOGITS = "logits"
"""The layer under which measurements of the logits stand."""

# The 95th smallest of 99 is exceeded by one of 100 exchangeable values in exactly 5 of 100 cases.
NUM_PERMUTATIONS = 99
_NULL_LOW, _NULL_HIGH = 4, 94


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


def read_movement(snapshot: Snapshot, _: torch.Generator) -> Iterator[Reading]:
    """Relative movement of each weight layer."""
    if snapshot.init is None:
        return
    for layer, weights in snapshot.final.weights.items():
        initial = snapshot.init.weights.get(layer)
        if initial is None or initial.shape != weights.shape:
            reason = "The initial weights of this layer are missing or have another shape."
            yield Reading("movement.relative", None, layer, reason=reason)
        else:
            yield Reading("movement.relative", relative_movement(weights, initial), layer)


def read_similarity_to_init(snapshot: Snapshot, _: torch.Generator) -> Iterator[Reading]:
    """Linear CKA of each hidden layer with itself at init, on test points."""
    if snapshot.init is None:
        return
    for layer, features in snapshot.final.test_features.items():
        initial = snapshot.init.test_features.get(layer)
        if initial is None:
            reason = "The initial features of this layer are missing."
            yield Reading("cka.init_to_final", None, layer, reason=reason)
        else:
            cka = linear_cka(features, initial)
            yield Reading("cka.init_to_final", cka, layer, n=len(features))


def _layer_inputs(state: NetState, x_train: Tensor) -> Iterator[tuple[str, Tensor, Tensor | None]]:
    """Each weight layer with its weights and its training inputs, None where not recorded."""
    source: Tensor | None = x_train
    for layer, weights in state.weights.items():
        acts_on_it = source is not None and weights.shape[-1] == source.shape[-1]
        yield layer, weights, source if acts_on_it else None
        source = state.train_features.get(layer)


def read_class_mean_alignment(snapshot: Snapshot, generator: torch.Generator) -> Iterator[Reading]:
    """Alignment of each layer with the class means of its training inputs, and its two nulls.

    The null's value is the mean over permutations; low and high are its 5 % and 95 % quantiles, so
    that a layer whose weights know nothing of the labels exceeds high in 5 % of cases. Alignment is
    claimed only above both nulls.
    """
    y, n_classes, n = snapshot.y_train, snapshot.n_classes, len(snapshot.y_train)
    no_input = "The inputs of this layer are not recorded as vectors (as for a convolution)."
    orders = torch.stack(
        [torch.randperm(n, generator=generator) for _ in range(NUM_PERMUTATIONS)]
    ).to(y.device)
    for name, state in (("", snapshot.final), ("_at_init", snapshot.init)):
        if state is None:
            continue
        metric = f"alignment.class_means{name}"
        for layer, weights, inputs in _layer_inputs(state, snapshot.x_train):
            if inputs is None:
                yield Reading(metric, None, layer, n=n, reason=no_input)
                continue
            directions = class_directions(inputs, y, n_classes)
            yield Reading(metric, class_mean_alignment(weights, directions), layer, n=n)
    metric = "alignment.class_means_permutation_null"
    for layer, weights, inputs in _layer_inputs(snapshot.final, snapshot.x_train):
        if inputs is None:
            yield Reading(metric, None, layer, n=n, reason=no_input)
            continue
        null = permuted_alignments(weights, inputs, y, n_classes, orders)
        yield Reading(metric, null.mean(), layer, n=n, low=null[_NULL_LOW], high=null[_NULL_HIGH])


def read_nearest_class_mean(snapshot: Snapshot, _: torch.Generator) -> Iterator[Reading]:
    """Agreement of the net with the nearest-class-mean classifier in input space, on test points.

    The second reading is the share of that classifier's errors where the net gives the same wrong
    label. A tie of the net's logits counts half. In nets with one hidden layer agreement rises
    toward over-aligned; in deeper nets it was seen to fall, so it points to neither side.
    """
    share, copied = "agreement.nearest_class_mean", "agreement.nearest_class_mean_errors"
    if bool(snapshot.y_train.amin() == snapshot.y_train.amax()):
        for metric in (share, copied):
            yield Reading(metric, None, reason="The training set has only one class.")
        return
    means = class_means(snapshot.x_train, snapshot.y_train, snapshot.n_classes)
    labels = nearest_class_mean(snapshot.x_test, means)
    agrees = 1 - point_errors(snapshot.logits("test"), labels)
    yield Reading(share, agrees.mean(), n=len(labels))
    wrong = labels != snapshot.y_test
    yield Reading(copied, agrees[wrong].mean(), n=int(wrong.sum()))


def read_effective_rank(snapshot: Snapshot, _: torch.Generator) -> Iterator[Reading]:
    """Participation ratio of each hidden layer's features and of the logits, on test points.

    The mean over the classes is taken off each point's logits, as softmax does not see it; the
    effective rank of the logits is then at most K - 1.
    """
    for layer, features in snapshot.final.test_features.items():
        yield Reading("rank.effective", effective_rank(features), layer, n=len(features))
    logits = snapshot.logits("test")
    if logits.shape[-1] < 3:
        reason = "With two classes the logits have rank 1 by construction."
        yield Reading("rank.effective", None, LOGITS, n=len(logits), reason=reason)
    else:
        rank = effective_rank(class_centered(logits))
        yield Reading("rank.effective", rank, LOGITS, n=len(logits))


def read_initial_function(snapshot: Snapshot, _: torch.Generator) -> Iterator[Reading]:
    """Share of c f_0 in the test logits (their mean over the classes taken off)."""
    if snapshot.init is None:
        return
    metric = "share.initial_function"
    if snapshot.centered:
        reason = "The net is centred: its logits do not contain the initial function."
        yield Reading(metric, None, reason=reason)
        return
    initial = class_centered(snapshot.init.test_outputs)
    change = class_centered(snapshot.final.test_outputs) - initial
    yield Reading(metric, initial_function_share(initial, change), n=len(initial))


def read_probes(snapshot: Snapshot, _: torch.Generator) -> Iterator[Reading]:
    """Linear probes of the inputs and of the first and last hidden layer, trained and at init.

    The difference first minus last is information that the later layers lost. It is positive on
    both sides: at strong feature learning later layers lose rank, at weak feature learning they are
    still near their random init; so it points to neither side alone.
    """
    n = len(snapshot.y_test)

    def probe(features: Callable[[SplitName], Tensor]) -> Probe:
        return linear_probe(*(Split(features(s), snapshot.labels(s)) for s in SPLITS))

    def layer_probe(state: NetState, layer: str) -> Probe:
        return probe(lambda split: state.features(split)[layer])

    def reading(metric: str, result: Probe, layer: str | None = None) -> Reading:
        return Reading(metric, result.accuracy, layer, n=n, reason=result.problem)

    yield reading("probe.linear_on_inputs", probe(snapshot.inputs))
    layers = list(snapshot.final.train_features)
    if not layers:
        return
    first, last = layers[0], layers[-1]
    trained = {layer: layer_probe(snapshot.final, layer) for layer in dict.fromkeys((first, last))}
    for layer, result in trained.items():
        yield reading("probe.linear", result, layer)
    difference = "probe.first_minus_last"
    if first == last:
        yield Reading(difference, None, n=n, reason="The net has only one hidden layer.")
    else:
        reason = trained[first].problem or trained[last].problem
        lost = trained[first].accuracy - trained[last].accuracy
        yield Reading(difference, lost, n=n, reason=reason)
    init = snapshot.init
    if init is None:
        return
    metric = "probe.linear_at_init"
    if any(last not in init.features(split) for split in SPLITS):
        reason = "The initial features of this layer are missing."
        yield Reading(metric, None, last, n=n, reason=reason)
    else:
        yield reading(metric, layer_probe(init, last), last)


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
