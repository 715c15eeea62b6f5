"""How far the net moved from its initial state."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch

from fls_bench.metrics.features import initial_function_share, relative_movement
from fls_bench.metrics.kernels import linear_cka
from fls_bench.metrics.metric import OF_THE_FUNCTION, OF_THE_KERNEL, Metric, Need, Reading
from fls_bench.metrics.outputs import class_centered
from fls_bench.metrics.snapshot import Snapshot, SplitName
from fls_bench.schema import Regime


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
    """Linear CKA of each hidden layer with itself at init, on test points and on training points."""
    if snapshot.init is None:
        return
    splits: tuple[SplitName, ...] = ("test", "train")
    for split in splits:
        name = f"cka.init_to_final{'_train' if split == 'train' else ''}"
        before = snapshot.init.features(split)
        for layer, features in snapshot.final.features(split).items():
            if layer not in before:
                reason = "The initial features of this layer are missing."
                yield Reading(name, None, layer, reason=reason)
            else:
                cka = linear_cka(features, before[layer])
                yield Reading(name, cka, layer, n=len(features))


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


def read_scale(snapshot: Snapshot, _: torch.Generator) -> Iterator[Reading]:
    """Root mean square of the training logits (mean over the classes taken off), and of c f_0.

    That of c f_0 is read for centred nets too, whose logits do not contain it.
    """
    logits = class_centered(snapshot.logits("train"))
    yield Reading("scale.logits", logits.square().mean().sqrt(), n=len(logits))
    if snapshot.init is not None:
        initial = snapshot.c * class_centered(snapshot.init.train_outputs)
        yield Reading("scale.logits_at_init", initial.square().mean().sqrt(), n=len(initial))


def _similarity(name: str, what: str, split: Literal["train", "test"]) -> Metric:
    data: Need = "train_data" if split == "train" else "test_data"
    return Metric(
        name=name,
        what=what,
        source="Kornblith et al. 2019, arXiv 1905.00414, eq. 4",
        compute=read_similarity_to_init,
        split=split,
        needs=frozenset({"init", "features", data}),
        per_layer=True,
        direction=Regime.OVER_FITTED,
        min_effect=0.05,
        min_samples=30,
        cost=lambda n, _d, h: 6.0 * n * h * min(n, h),
        invariant_to=OF_THE_KERNEL,
        undefined=f"The features, final or initial, do not vary over the {split} points.",
    )


def _scale(name: str, what: str, direction: Regime | None, *needs: Need) -> Metric:
    return Metric(
        name=name,
        what=what,
        source="own definition, after Chizat, Oyallon, Bach 2019, arXiv 1812.07956, sec. 1",
        compute=read_scale,
        split="train",
        needs=frozenset({"outputs", "train_data", *needs}),
        per_layer=False,
        direction=direction,
        min_effect=0.1,
        min_samples=10,
        cost=lambda n, _d, _h: 60.0 * n,
        invariant_to=OF_THE_FUNCTION - {"output_scale"},
        unit="nats",
        range=(0.0, math.inf),
    )


ROWS: tuple[Metric, ...] = (
    Metric(
        name="movement.relative",
        what="change of a weight matrix over its initial norm",
        source="Chizat, Oyallon, Bach 2019, arXiv 1812.07956, sec. 1",
        compute=read_movement,
        split=None,
        needs=frozenset({"weights", "init"}),
        per_layer=True,
        direction=Regime.OVER_ALIGNED,
        min_effect=0.05,
        min_samples=0,
        cost=lambda _n, d, h: 5.0 * h * max(d, h),
        invariant_to=OF_THE_KERNEL,
        undefined="The initial weights of this layer are all 0.",
        range=(0.0, math.inf),
    ),
    _similarity("cka.init_to_final", "linear CKA of a layer's features with those at init", "test"),
    _similarity("cka.init_to_final_train", "the same on training points", "train"),
    Metric(
        name="share.initial_function",
        what="share of c f_0 in the test logits",
        source="own definition, after arXiv 1812.07956",
        compute=read_initial_function,
        split="test",
        needs=frozenset({"init", "outputs", "test_data"}),
        per_layer=False,
        direction=Regime.OVER_FITTED,
        min_effect=0.05,
        min_samples=10,
        cost=lambda n, _d, _h: 60.0 * n,
        invariant_to=OF_THE_FUNCTION,
        undefined="The outputs are 0 on all test points, at init and at the end.",
    ),
    _scale("scale.logits", "root mean square of the training logits, class mean taken off", None),
    _scale(
        "scale.logits_at_init",
        "the same of c f_0, before training",
        Regime.OVER_FITTED,
        "init",
    ),
)
