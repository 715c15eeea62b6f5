"""What the regime of one trained net is read from: cheap measurements on a fixed part of its data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from fls_bench import models
from fls_bench.homogeneity import NORMALISATIONS, has_normalisation
from fls_bench.metrics import METRICS as METRIC_ROWS
from fls_bench.metrics import Snapshot, measure
from fls_bench.metrics.outputs import point_errors
from fls_bench.metrics.snapshot import SPLITS
from fls_bench.schema import Evidence, Measurement
from fls_bench.subject.snapshots import refuse_overflow, snapshot_of
from fls_bench.tasks import Task
from fls_bench.training import TrainedRun
from fls_bench.training.runs import make_net
from fls_bench.training_setup import TrainingSetup
from fls_bench.verdict.reading.columns import METRICS, POINTS, columns

KERNEL_POINTS = 30


def part_of_task(task: Task) -> Task:
    """The part of a task that is looked at: fixed, whatever the net.

    Args:
        task: The data.

    Returns:
        At most ``POINTS`` of each part, drawn from a fixed seed, in their order.
    """
    changes = {}
    for k, (part, most) in enumerate(POINTS.items()):
        labels = getattr(task, f"y_{part}")
        if len(labels) > most:
            kept = np.sort(np.random.default_rng(k).permutation(len(labels))[:most])
            changes[f"x_{part}"] = getattr(task, f"x_{part}")[kept]
            changes[f"y_{part}"] = labels[kept]
    return replace(task, **changes)


@dataclass(frozen=True, eq=False)
class Look:
    """What the regime of one net is read from.

    Attributes:
        snapshot: The net on the part of its data that is looked at.
        facts: Of the net and its data, as ``FACTS``.
        has_test: Whether there are test points that the net has not seen.
        foreign: Kinds of layers that no net of the atlas has.
    """

    snapshot: Snapshot
    facts: Mapping[str, float]
    has_test: bool = True
    foreign: tuple[str, ...] = ()

    @property
    def evidence(self) -> Evidence:
        """What the reading may rest on."""
        if self.snapshot.init is None:
            return "T1" if self.has_test else "T1-train"
        return "T2" if self.has_test else "T2-train"

    def without_init(self) -> Look:
        """The same look, had there been no initial weights."""
        return replace(self, snapshot=replace(self.snapshot, init=None))

    @property
    def too_few(self) -> tuple[str, ...]:
        """Of what there are too few points for measurements, each with how many it takes."""
        needed: dict[str, int] = {}
        for one in self.measurements:
            row = METRIC_ROWS[one.metric]
            splits = [
                split for split in SPLITS
                if f"{split}_data" in row.needs and len(self.snapshot.labels(split)) < row.min_samples
            ]  # fmt: skip
            for split in splits if one.value is None else ():
                needed[split] = max(needed.get(split, 0), row.min_samples)
        return tuple(
            f"{needed[split]} {split} points (there are {len(self.snapshot.labels(split))})"
            for split in SPLITS if split in needed
        )  # fmt: skip

    @property
    def beats_chance(self) -> bool:
        """Whether the net does better on test points than always answering the commonest class.

        By more than two standard errors of its error; True where there are no test points to tell.
        """
        if not self.has_test:
            return True
        snapshot = self.snapshot
        error = float(point_errors(snapshot.logits("test"), snapshot.y_test).mean())
        commonest = snapshot.y_train.bincount().argmax()
        chance = float((snapshot.y_test != commonest).double().mean())
        noise = math.sqrt(chance * (1 - chance) / len(snapshot.y_test))
        return error < chance - 2 * noise

    @cached_property
    def measurements(self) -> tuple[Measurement, ...]:
        """What is read, without what needs test points where there are none."""
        names = [
            name for name in METRICS if self.has_test or "test_data" not in METRIC_ROWS[name].needs
        ]
        return measure(self.snapshot, names)

    @cached_property
    def columns(self) -> dict[str, float]:
        """The measurements as named numbers."""
        return columns(self.measurements, self.facts)


def look_at(
    setup: TrainingSetup,
    task: Task,
    final: Mapping[str, Tensor],
    init: Mapping[str, Tensor] | None,
) -> Look:
    """Run a net on a fixed part of its data, at the end and at init.

    Args:
        setup: Builds the net.
        task: The whole data.
        final: Parameters and buffers by name.
        init: The same at init, or None.

    Returns:
        What is to be read.

    Raises:
        InputError: As ``snapshot_of``.
    """
    part = part_of_task(task)
    snapshot = snapshot_of(setup, part, final, init, kernel_points=KERNEL_POINTS)
    net = make_net(setup, 0, setup.output_multiplier, torch.float32)
    facts = net_facts(net, snapshot, task.n_train, task.x_train.shape[1:])
    return Look(snapshot, facts, task.has_test, foreign_layers(net))


def stored_look(
    setup: TrainingSetup,
    task: Task,
    final: Mapping[str, Tensor],
    init: Mapping[str, Tensor] | None,
    *,
    only: bool,
) -> tuple[Look, Snapshot]:
    """As ``look_at``, of weights from a file; and the net on all of its data.

    Args:
        setup: Builds the net.
        task: The whole data.
        final: Parameters and buffers by name.
        init: The same at init, or None.
        only: The snapshot is the look's own; the whole data are not run.

    Returns:
        (the look, the snapshot).

    Raises:
        InputError: As ``snapshot_of``, or outputs or features overflow.
    """
    look = look_at(setup, task, final, init)
    refuse_overflow(look.snapshot)
    if only:
        return look, look.snapshot
    snapshot = snapshot_of(setup, task, final, init)
    refuse_overflow(snapshot)
    return look, snapshot


def foreign_layers(net: nn.Module) -> tuple[str, ...]:
    """Kinds of layers with parameters of their own that no net of the atlas has.

    Its nets are of linear maps, convolutions and normalisation: embeddings, attention or recurrent
    layers may measure alike and be another thing.

    Args:
        net: The net.

    Returns:
        Names of classes, sorted.
    """
    known = (*models.WEIGHT_LAYERS, *NORMALISATIONS)
    return tuple(
        sorted(
            {
                type(module).__name__
                for module in net.modules()
                if not isinstance(module, known) and any(True for _ in module.parameters(False))
            }
        )
    )


def net_facts(
    net: nn.Module, snapshot: Snapshot, n_train: int, shape: Sequence[int]
) -> dict[str, float]:
    """What is known of a net and its data beside measurements.

    Args:
        net: The net.
        snapshot: Of it.
        n_train: Points that it is trained on.
        shape: Of one input.

    Returns:
        By the names in ``FACTS``.
    """
    widths = [x.shape[1] for x in snapshot.final.train_features.values()]
    return {
        "n_train": n_train,
        "n_classes": snapshot.n_classes,
        "input_dim": math.prod(shape),
        "depth": len(snapshot.final.weights),
        **({"width": widths[-1]} if widths else {}),
        "parameters": sum(p.numel() for p in net.parameters()),
        "normalised": has_normalisation(net),
        "images": bool(snapshot.final.convolutions),
        "centered": snapshot.centered,
    }


def observe_run(setup: TrainingSetup, task: Task, run: TrainedRun) -> dict[str, float]:
    """As ``look_at``, of a run of a sweep, as named numbers.

    Args:
        setup: The setup; c and centring are those of the run.
        task: The run's data.
        run: The run.

    Returns:
        Column -> number.
    """
    own = replace(setup, output_multiplier=run.config.c, centered=run.config.centered)
    return look_at(own, task, run.final, run.init).columns
