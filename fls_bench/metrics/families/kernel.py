"""The empirical tangent kernel: how it changed, how it fits the labels, what it predicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from fls_bench.metrics.kernels import kernel_alignment, kernel_regression
from fls_bench.metrics.metric import UNTIED_TO_SCALE, Invariance, Metric, Need, Reading
from fls_bench.metrics.outputs import class_centered, point_errors, point_losses
from fls_bench.metrics.snapshot import Snapshot, SplitName
from fls_bench.schema import Regime

JITTER = 1e-4


def read_kernel(snapshot: Snapshot, _: torch.Generator) -> Iterator[Reading]:
    """Change and label alignment of the tangent kernel on its training points.

    The kernel is the mean over outputs (Jacot et al.'s kernel of an infinitely wide net is the same
    for all outputs and 0 between them); what single outputs learn differently is not in it. Label
    alignment points to neither side: on digits it is highest inside the range of c.
    """
    final = snapshot.final.kernel
    if final is None:
        return
    labels, n = snapshot.y_train[final.train_points].long(), len(final.train)
    hot = one_hot(labels, snapshot.n_classes).double()
    targets, reason = hot @ hot.mT, None
    if bool((labels == labels[0]).all()):
        reason = "The training points of the kernel have only one class."
    fit = kernel_alignment(final.train, targets)
    yield Reading("kernel.label_alignment", fit, n=n, reason=reason)
    initial = None if snapshot.init is None else snapshot.init.kernel
    if initial is not None:
        before = kernel_alignment(initial.train, targets)
        yield Reading("kernel.label_alignment_at_init", before, n=n, reason=reason)
        change = 1 - kernel_alignment(initial.train, final.train)
        yield Reading("kernel.change", change, n=n)


def read_kernel_regression(snapshot: Snapshot, _: torch.Generator) -> Iterator[Reading]:
    """Regression with the final tangent kernel, on labels and on the net's own training logits.

    Targets are the labels minus c f_0, which is added again at test points (unless the net is
    centred). So that labels and c f_0 can be compared, labels are one-hot times the margin at which
    the loss would be the net's own training loss. A net that was trained by squared error in the lazy
    limit is this regression; one trained by cross-entropy need not undo all of c f_0, and at c > 1
    does better than it. The last reading therefore regresses on the net's own training logits minus
    c f_0: a net that is linear in its parameters agrees with that whatever the loss, up to what the
    mean over outputs leaves out. All training points are needed: a kernel with fewer labels than the
    net had is no match for it.

    None has a direction: on digits the error has its minimum inside the range of c, the agreement on
    labels its maximum, and the agreement on logits is high at both ends.
    """
    kernel = snapshot.final.kernel
    on_labels = ("kernel.regression_error", "kernel.regression_agreement")
    on_logits = "kernel.function_agreement"
    if kernel is None:
        return
    if kernel.test is None:
        reason = "The tangent kernel was computed without test points."
        for name in (*on_labels, on_logits):
            yield Reading(name, None, reason=reason)
        return
    among, across = kernel.train, kernel.test
    n, n_all = len(kernel.test_points), len(snapshot.y_train)
    if len(among) < n_all:
        reason = f"It needs all {n_all} training points, and the kernel is of {len(among)}."
        for name in (*on_labels, on_logits):
            yield Reading(name, None, n=n, reason=reason)
        return
    at_train, at_test = _initial(snapshot, "train"), _initial(snapshot, "test")
    net = snapshot.logits("test")[kernel.test_points]

    def regression(targets: Tensor) -> Tensor:
        change = (targets - at_train)[kernel.train_points]
        learned = kernel_regression(among, across, change, JITTER)
        return learned + at_test[kernel.test_points]

    def agreement(logits: Tensor) -> Tensor:
        same = 1 - point_errors(net, _answers(logits))
        return same.mean() + 0 * logits.sum()  # NaN where the regression has no solution

    targets = _targets(snapshot)
    if targets is None:
        reason = "The training loss is not below that of equal logits, so labels have no scale."
        for name in on_labels:
            yield Reading(name, None, n=n, reason=reason)
    else:
        logits = regression(targets)
        error = point_errors(logits, snapshot.y_test[kernel.test_points]).mean()
        yield Reading(on_labels[0], error, n=n)
        yield Reading(on_labels[1], agreement(logits), n=n)
    own = class_centered(snapshot.logits("train"))
    yield Reading(on_logits, agreement(regression(own)), n=n)


def _targets(snapshot: Snapshot) -> Tensor | None:
    """Labels ``[n, K']`` at the scale of the net's logits, or None where they have none."""
    logits, labels = snapshot.logits("train"), snapshot.y_train.long()
    loss, outputs = point_losses(logits, labels).mean(), logits.shape[-1]
    others = max(1, outputs - 1)
    # The loss is log(1 + others e^-margin) where the right logit leads all others by the margin.
    margin = math.log(others) - loss.expm1().log()
    if not bool(margin > 0):
        return None
    if outputs == 1:
        return margin * (2 * labels - 1).double()[:, None]
    return margin * class_centered(one_hot(labels, outputs).double())


def _initial(snapshot: Snapshot, split: SplitName) -> Tensor:
    """C f_0, or 0 for a centred net."""
    assert snapshot.init is not None
    scale = 0.0 if snapshot.centered else snapshot.c
    return scale * class_centered(snapshot.init.outputs(split))


def _answers(logits: Tensor) -> Tensor:
    return (logits[:, 0] > 0).long() if logits.shape[-1] == 1 else logits.argmax(dim=-1)


_INVARIANT: frozenset[Invariance] = UNTIED_TO_SCALE | {"feature_rotation"}
_JACOT = "Jacot, Gabriel, Hongler 2018, arXiv 1806.07572"
_LABELS = "Cortes, Mohri, Rostamizadeh 2012, def. 4; Atanasov et al. 2021, arXiv 2111.00034"


def _row(
    name: str,
    what: str,
    source: str,
    *needs: Need,
    split: SplitName = "train",
    compute: Callable[[Snapshot, torch.Generator], Iterator[Reading]] = read_kernel,
    direction: Regime | None = None,
    better: Literal["lower"] | None = None,
    invariant_to: frozenset[Invariance] = _INVARIANT,
) -> Metric:
    return Metric(
        name=f"kernel.{name}",
        what=what,
        source=source,
        compute=compute,
        split=split,
        needs=frozenset({"kernel", "train_data", *needs}),
        per_layer=False,
        direction=direction,
        min_effect=0.05,
        min_samples=30,
        # Gradients of 10 outputs, two states, and their inner products; at most a fixed work.
        cost=lambda n, d, h: 4.0 * 10 * min(n, 512) ** 2 * h * (d + h),
        invariant_to=invariant_to,
        undefined="The tangent kernel does not vary over the points.",
        better=better,
    )


ROWS: tuple[Metric, ...] = (
    _row(
        "change",
        "1 - centred alignment of the tangent kernel with that at init",
        f"{_JACOT}; Chizat, Oyallon, Bach 2019, arXiv 1812.07956",
        "init",
        direction=Regime.OVER_ALIGNED,
    ),
    _row(
        "label_alignment",
        "centred alignment of the tangent kernel with the labels' kernel",
        _LABELS,
        "labels",
    ),
    _row("label_alignment_at_init", "the same before training", _LABELS, "labels", "init"),
    _row(
        "regression_error",
        "test error of regression with the final tangent kernel",
        f"{_JACOT}, sec. 5",
        "labels",
        "init",
        "outputs",
        "test_data",
        split="test",
        compute=read_kernel_regression,
        better="lower",
        invariant_to=frozenset({"neuron_permutation", "feature_scale", "feature_rotation"}),
    ),
    _row(
        "regression_agreement",
        "share of test points where that regression answers as the net",
        f"{_JACOT}, sec. 5; Chizat, Oyallon, Bach 2019, arXiv 1812.07956",
        "labels",
        "init",
        "outputs",
        "test_data",
        split="test",
        compute=read_kernel_regression,
        invariant_to=frozenset({"neuron_permutation", "feature_scale", "feature_rotation"}),
    ),
    _row(
        "function_agreement",
        "the same for regression on the net's own training logits",
        "Chizat, Oyallon, Bach 2019, arXiv 1812.07956; Long 2021, arXiv 2105.10585",
        "labels",
        "init",
        "outputs",
        "test_data",
        split="test",
        compute=read_kernel_regression,
        invariant_to=frozenset({"neuron_permutation", "feature_scale", "feature_rotation"}),
    ),
)
