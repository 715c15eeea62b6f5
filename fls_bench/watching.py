"""Looks at a net while it trains: cheap measurements, and which side the run is heading to.

A look runs the net on a fixed part of the training points. From what it measures the regime is read by
models of their own, one for each stage of training: the regime is that of the finished net, so a stage's
model was fitted on nets that had come just as far and whose setups' regime is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fls_bench import models
from fls_bench.atlas import load_watch_models
from fls_bench.errors import InputError
from fls_bench.metrics import LOGITS, NetState, Snapshot, measure
from fls_bench.schema import Evidence, Measurement, Reading, ReadingModels, Regime, Stage
from fls_bench.subject.observing import foreign_layers, net_facts
from fls_bench.verdict.reading.columns import FACTS, POINTS, columns
from fls_bench.verdict.reading.model import read
from fls_bench.verdict.reading.observables import available

WATCHED = (
    "error.train",
    "loss.train",
    "scale.logits",
    "scale.logits_at_init",
    "share.initial_function",
    "movement.relative",
    "cka.init_to_final_train",
    "rank.over_classes_train",
    "rank.to_init",
)
"""What a look measures. The points that are looked at stand in for test points: the share of c f_0 is
that in the training logits."""

STAGES: Mapping[Stage, float] = {"start": float("inf"), "early": 0.8, "half": 0.5, "late": 0.25}
"""A stage begins when the training loss first falls to so many times that of the class frequencies."""

ORDER = tuple(STAGES)

EVIDENCE: Evidence = "T2"

OBSERVABLES = tuple(
    one.name
    for one in available(EVIDENCE)
    if {source.partition(":")[0] for source in one.sources} <= {*WATCHED, *FACTS}
)
"""What the models of the stages rest on; before the first step it is the setup and c f_0 alone."""

AT_START = tuple(
    one.name for one in available(EVIDENCE) if set(one.sources) <= {"scale.logits_at_init", *FACTS}
)


def chance_loss(labels: Tensor) -> float:
    """Cross-entropy of always answering with the frequencies of the classes, nats.

    Args:
        labels: ``[n]`` int.

    Returns:
        Their entropy.
    """
    shares = labels.bincount().double() / len(labels)
    return float(torch.special.entr(shares).sum())


def stage_of(loss: float, chance: float) -> Stage:
    """How far training has come.

    Args:
        loss: On the training points.
        chance: From ``chance_loss``.

    Returns:
        The last stage whose loss is reached.
    """
    reached = [stage for stage, share in STAGES.items() if loss <= share * chance]
    return reached[-1] if reached else "start"


@torch.no_grad()
def state_of(net: nn.Module, x: Tensor, feature_layer: str | None = None) -> NetState:
    """What a look keeps of a net: weights, features and outputs, as copies on the CPU in float32.

    Args:
        net: Takes x; it is evaluated in evaluation mode and left in the modes that its modules are in.
        x: ``[n, ...]`` on the net's device.
        feature_layer: A module whose output is kept too.

    Returns:
        The state, its points standing for all three parts.
    """
    training = [module for module in net.modules() if module.training]
    buffers = [(value, value.clone()) for value in net.buffers()]
    devices = [x.device] if x.device.type == "cuda" else []
    net.eval()
    try:
        also = feature_layer if feature_layer in dict(net.named_modules()) else None
        with torch.random.fork_rng(devices), torch.autocast(x.device.type, enabled=False):
            features, outputs = models.named_features(net, x, also)
    finally:
        for module in training:
            module.training = True
        for value, before in buffers:  # some nets count even when they are evaluated
            value.copy_(before)
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        raise InputError(
            "The net that is watched does not return logits [n, K].",
            "Give watch= a module that does, such as a wrapper around yours.",
        )
    plain = {name: value.float().cpu() for name, value in features.items()}
    logits = outputs.float().cpu()
    weights = {name: value.detach().float().cpu().clone()
               for name, value in models.weight_matrices(net).items()}  # fmt: skip
    convolutions = frozenset(
        name for name, module in net.named_modules() if isinstance(module, models.CONVOLUTIONS)
    )
    return NetState(
        weights=weights, train_features=plain, test_features=plain, val_features=plain,
        train_outputs=logits, val_outputs=logits, test_outputs=logits, convolutions=convolutions,
    )  # fmt: skip


def watched_snapshot(
    final: NetState,
    init: NetState,
    x: Tensor,
    y: Tensor,
    *,
    c: float,
    centered: bool,
    n_classes: int,
    feature_layer: str | None = None,
) -> Snapshot:
    """Two states of a net on the points that are looked at, for the metrics.

    Args:
        final: As it is now.
        init: As it was before the first step.
        x: ``[n, ...]`` inputs on the CPU.
        y: ``[n]`` labels on the CPU.
        c: Output multiplier.
        centered: Whether c (f - f_0) is trained.
        n_classes: K.
        feature_layer: The layer that counts as the last.

    Returns:
        The snapshot; the points stand for all three parts.
    """
    flat = x.flatten(1).float()
    return Snapshot(
        final=final, init=init, c=c, centered=centered, n_classes=n_classes, x_train=flat, y_train=y,
        x_val=flat, y_val=y, x_test=flat, y_test=y, last_layer=feature_layer,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Look:
    """What one look at a net in training told.

    Attributes:
        stage: How far training had come, by the loss on the points that are looked at.
        measurements: Of ``WATCHED``.
        reading: Which regime the finished net is heading to; inconclusive wherever that is not told.
    """

    stage: Stage
    measurements: tuple[Measurement, ...]
    reading: Reading

    @property
    def numbers(self) -> dict[str, float]:
        """For a logger: name -> number; what could not be measured is absent."""
        found = columns(self.measurements, {})
        names = {
            "loss": "loss.train",
            "rank_of_logits": f"rank.over_classes_train:{LOGITS}",
            "rank_of_features": "rank.over_classes_train:last",
            "movement": "movement.relative:mean",
            "share_of_initial_function": "share.initial_function",
        }
        own = {name: found[column] for name, column in names.items() if column in found}
        return own | {f"p_{name}": p for name, p in self.reading.probabilities.items()}

    @property
    def text(self) -> str:
        """One sentence for a person."""
        stage = {
            "start": "At the start",
            "early": "Early in training", "half": "Halfway through training",
            "late": "Late in training",
        }[self.stage]  # fmt: skip
        shares = ", ".join(
            f"{Regime(name).label} {100 * p:.0f} %"
            for name, p in self.reading.probabilities.items()
        )
        if self.reading.regime is Regime.INCONCLUSIVE:
            return (
                f"{stage}: undecided{f' ({shares})' if shares else ''}. {self.reading.reason.text}"
            )
        return f"{stage}: heading to {self.reading.regime.label} ({shares})."


class Watch:
    """Looks at a net from before its first step on.

    Args:
        net: Takes ``x``, returns logits ``[n, K]`` without the multiplier c.
        x: Training inputs ``[n, ...]``; at most 400 of them are looked at.
        y: Their labels ``[n]``, int.
        n_train: How many points the net is trained on; None: as many as x has.
        n_classes: K; None: one more than the largest label.
        output_multiplier: c. Smaller c = larger FLS = toward over-aligned.
        centered: Whether c (f - f_0) is trained.
        feature_layer: Name of the layer whose output counts as the last features.
        init: State dict before the first step, where training goes on; None: the net is as it was then.

    Attributes:
        looks: All that were made, in order.

    Raises:
        InputError: The net does not return logits for x.

    Cost: Two copies of the weights' matrices and of the features of 400 points; a look takes one
    evaluation of 400 points and singular values of their features.
    """

    def __init__(
        self,
        net: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        n_train: int | None = None,
        n_classes: int | None = None,
        output_multiplier: float = 1.0,
        centered: bool = False,
        feature_layer: str | None = None,
        init: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._net, self._layer = net, feature_layer
        self._c, self._centered = output_multiplier, centered
        kept = np.sort(np.random.default_rng(0).permutation(len(x))[: POINTS["train"]])
        self._x, self._y = torch.as_tensor(x)[kept].cpu(), torch.as_tensor(y)[kept].cpu().long()
        self._n_train = len(x) if n_train is None else n_train
        self._n_classes = int(torch.as_tensor(y).max()) + 1 if n_classes is None else n_classes
        self._chance = chance_loss(self._y)
        self._init = self._state() if init is None else self._state_with(init)
        self._num_stages = 0  # asked for or looked at, in their order
        self.looks: list[Look] = []

    def _state(self) -> NetState:
        device = next((p.device for p in self._net.parameters()), torch.device("cpu"))
        return state_of(self._net, self._x.to(device), self._layer)

    def _state_with(self, weights: Mapping[str, Tensor]) -> NetState:
        """The state with other weights; the net gets its own back, bit for bit."""
        own = {name: value.clone() for name, value in self._net.state_dict().items()}
        try:
            self._net.load_state_dict(dict(weights))
            return self._state()
        finally:
            self._net.load_state_dict(own)

    def due(self, loss: float) -> bool:
        """Whether a loss reaches a stage that was not asked for or looked at: true once per stage.

        Args:
            loss: Of training, as cheap as it comes: of the last batches, say.

        Returns:
            Whether to look now.
        """
        # Asked counts also where the look then finds another stage: by a loss that stays apart from the
        # points' own it would be due for ever. And a look never goes back.
        return self._goes_on_to(stage_of(loss, self._chance))

    def _goes_on_to(self, stage: Stage) -> bool:
        """Whether a stage lies beyond all that were asked for or looked at; from now on it does not."""
        before, self._num_stages = self._num_stages, max(self._num_stages, ORDER.index(stage) + 1)
        return self._num_stages > before

    def look(self) -> Look:
        """Measure the net as it is now, and read where it is heading.

        Returns:
            What was seen; also kept in ``looks``.
        """
        snapshot = watched_snapshot(
            self._state(), self._init, self._x, self._y, c=self._c, centered=self._centered,
            n_classes=self._n_classes, feature_layer=self._layer,
        )  # fmt: skip
        measured = measure(snapshot, WATCHED)
        facts = net_facts(self._net, snapshot, self._n_train, tuple(self._x.shape[1:]))
        found = columns(measured, facts)
        stage = stage_of(found.get("loss.train", float("inf")), self._chance)
        seen = Look(stage, measured, read_stage(stage, found, foreign_layers(self._net)))
        self._goes_on_to(stage)
        self.looks.append(seen)
        return seen


def read_stage(stage: Stage, found: Mapping[str, float], foreign: Sequence[str] = ()) -> Reading:
    """Read where a run is heading.

    Args:
        stage: How far it has come.
        found: From ``columns``.
        foreign: From ``foreign_layers``.

    Returns:
        The reading, by the model of that stage.
    """
    stored = load_watch_models()
    own = ReadingModels(atlas=stored.atlas, models={EVIDENCE: stored.stages[stage]}, groups=())
    return read(own, EVIDENCE, found, foreign=foreign)


def watched_columns(
    net: nn.Module,
    init: Mapping[str, Tensor],
    final: Mapping[str, Tensor],
    x: Any,
    y: Any,
    *,
    c: float,
    centered: bool,
    n_classes: int,
    n_train: int,
) -> dict[str, float]:
    """What a look measures, of weights that are kept: for the nets that stages are fitted on.

    Args:
        net: Gets the weights.
        init: State dict before training.
        final: As it is now.
        x: ``[n, ...]`` the points that are looked at.
        y: Their labels.
        c: Output multiplier.
        centered: Whether c (f - f_0) is trained.
        n_classes: K.
        n_train: How many points it is trained on.

    Returns:
        Column -> number.
    """
    points, labels = torch.as_tensor(x), torch.as_tensor(y)
    net.load_state_dict(dict(init))
    before = state_of(net, points)
    net.load_state_dict(dict(final))
    snapshot = watched_snapshot(
        state_of(net, points), before, points, labels, c=c, centered=centered, n_classes=n_classes
    )
    measured = measure(snapshot, WATCHED)
    return columns(measured, net_facts(net, snapshot, n_train, tuple(points.shape[1:])))
