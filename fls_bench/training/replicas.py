"""Many replicas as one batch: the loop. How a batch steps is in ``fused`` and ``vmapped``.

Replicas differ in c, learning rate, init scale, centering and seed. One leaves the batch the first
time it meets the stopping rule or diverges. No replica's arithmetic looks at another's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import count, islice
from typing import Protocol

import torch
from torch import Tensor

from fls_bench.errors import InputError
from fls_bench.scaling import schedule_factors
from fls_bench.schema import FixedSteps, Outcome, RunConfig, ValidationLoss
from fls_bench.tasks import Array, Labels, Task
from fls_bench.training.runs import (
    TrainedRun,
    augment,
    augmentations,
    batch_order,
    divergence_bound,
    out_of_epochs,
    out_of_patience,
    progress,
    quarter_left,
    steps_after,
    validation_losses,
)
from fls_bench.training_setup import TrainingSetup

MAX_COPIED = 2**24
"""Input values of all replicas up to which an epoch's data are copied once, in the epoch's order."""


class Replicas(Protocol):
    """R nets of one shape; every tensor's first axis is the replica."""

    def outputs(self, x: Tensor) -> Tensor:
        """f(x) [R, n, K] in evaluation mode, for inputs [R, n, ...]."""

    def step(self, x: Tensor, y: Tensor, start: Tensor | None, factor: Tensor) -> None:
        """One step on inputs [R, n, ...], labels [R, n] and f_0 [R, n, K], rates times [R]."""

    def keep(self, rows: Tensor) -> None:
        """Drop all replicas but these."""

    def state(self, row: int) -> dict[str, Tensor]:
        """Parameters and buffers of one replica by name, copied to the CPU."""

    @property
    def rows_at_once(self) -> int:
        """How many points of all replicas together an evaluation takes, if a step takes fewer."""


@dataclass
class _Watch:
    """What the loop knows of the replicas that still train."""

    index: Tensor  # which config each replica is
    seed: Tensor  # which data set each replica has
    c: Tensor  # [R, 1, 1]
    max_epochs: Tensor  # [R]
    quarter: Tensor  # epoch when a quarter of them is left [R]
    start: Tensor | None  # f_0 on the training part [R, n, K], zero where not centered
    val_start: Tensor | None  # likewise on the validation part, where the stop looks at it
    loss_before: Tensor  # training loss at init, then at that epoch [R]
    bound: Tensor  # training loss beyond which a run has diverged [R]
    lowest: Tensor  # lowest validation loss so far [R]
    best_epoch: Tensor  # the epoch that had it [R]

    def keep(self, rows: Tensor) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                setattr(self, field.name, value[rows])


@dataclass(frozen=True)
class _Data:
    """One part of the data by seed: [S, n, ...] and [S, n]."""

    x: Tensor
    y: Tensor

    @classmethod
    def of(cls, parts: Sequence[tuple[Array, Labels]], dtype: torch.dtype, device: str) -> _Data:
        """Inputs and labels of one part for each seed."""
        sizes = sorted({len(y) for _, y in parts})
        if len(sizes) > 1:
            raise InputError(
                f"One part of the data has {sizes[0]} points for one seed and {sizes[-1]} for another.",
                "Let the task give every seed as many.",
            )
        return cls(
            torch.stack([torch.as_tensor(x, dtype=dtype) for x, _ in parts]).to(device),
            torch.stack([torch.as_tensor(y) for _, y in parts]).to(device),
        )

    @property
    def n(self) -> int:
        return self.x.shape[1]

    def batches(
        self, watch: _Watch, order: Tensor, size: int, disturb: Callable[[Tensor], Tensor] | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Minibatches [R, size, ...] of an epoch in the order [S, n] of each seed."""
        of_replica = watch.seed.unsqueeze(1)
        own = order[watch.seed]
        start = None
        if watch.start is not None:
            start = watch.start.gather(1, own.unsqueeze(-1).expand_as(watch.start))
        inputs = None
        if disturb is None and len(watch.seed) * self.x[0].numel() <= MAX_COPIED:
            inputs = self.x[of_replica, own]  # one copy: minibatches are then views of it
        labels = self.y[of_replica, own]
        every_seed = torch.arange(len(self.x), device=self.x.device).unsqueeze(1)
        for first in range(0, self.n, size):
            part = slice(first, first + size)
            if inputs is not None:
                x = inputs[:, part]
            else:
                x = self.x[every_seed, order[:, part]]
                x = (x if disturb is None else disturb(x))[watch.seed]
            yield x, labels[:, part], None if start is None else start[:, part]


@torch.no_grad()
def train_batch(
    setup: TrainingSetup,
    tasks: Mapping[int, Task],
    configs: Sequence[RunConfig],
    replicas: Replicas,
    finish: Callable[[TrainedRun], None],
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    cancelled: threading.Event | None = None,
) -> None:
    """Train replicas together; hand over each as it ends.

    Args:
        setup: The setup.
        tasks: Data by seed; all of one training size.
        configs: One per replica.
        replicas: The nets at init, init scale applied.
        finish: Called once per replica, in the order in which they end.
        dtype: Floating type of weights and data.
        device: Where to train.
        cancelled: Checked every epoch; when set, the rest is dropped without ``finish``.
    """
    seeds = sorted({config.seed for config in configs})
    data = _Data.of([(tasks[s].x_train, tasks[s].y_train) for s in seeds], dtype, device)
    stop = setup.stop
    held_out = None
    if isinstance(stop, ValidationLoss):
        held_out = _Data.of([(tasks[s].x_val, tasks[s].y_val) for s in seeds], dtype, device)
    initial = [replicas.state(row) for row in range(len(configs))]
    orders = [batch_order(seed, data.n) for seed in seeds]
    disturbances = [augmentations(seed) for seed in seeds]
    num_steps = -(-data.n // setup.batch_size)

    def disturb(x: Tensor) -> Tensor:
        rows = zip(x, disturbances, strict=True)
        return torch.stack([augment(one, setup.augmentation, own) for one, own in rows])

    def outputs(data: _Data) -> Tensor:
        at_once = max(setup.batch_size, replicas.rows_at_once // len(watch.seed))
        parts = range(0, data.n, at_once)
        return torch.cat(
            [replicas.outputs(data.x[watch.seed, first : first + at_once]) for first in parts], 1
        )

    def measured() -> tuple[Tensor, Tensor]:
        f = outputs(data)
        logits = watch.c * (f if watch.start is None else f - watch.start)
        return progress(logits, data.y[watch.seed], setup)

    def validation_loss(held_out: _Data) -> Tensor:
        f = outputs(held_out)
        logits = watch.c * (f if watch.val_start is None else f - watch.val_start)
        return validation_losses(setup, logits, held_out.y[watch.seed])

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).to(device, dtype).view(-1, 1, 1)

    lengths = sorted({config.max_epochs for config in configs})
    length_of = torch.tensor([lengths.index(k.max_epochs) for k in configs], device=device)

    def rates(epoch: int) -> Tensor:
        """The schedule's factors [steps of an epoch, R]."""
        table = [
            schedule_factors(
                setup.known_optimizer, stop,
                epoch=epoch - 1, per_epoch=num_steps, max_epochs=most,
            )
            for most in lengths
        ]  # fmt: skip
        by_length = torch.tensor(table, dtype=torch.float64).to(device, dtype)
        return by_length.T[:, length_of[watch.index]]

    num = len(configs)
    watch = _Watch(
        index=torch.arange(num, device=device),
        seed=torch.tensor([seeds.index(config.seed) for config in configs], device=device),
        c=column([config.c for config in configs]),
        max_epochs=torch.tensor([config.max_epochs for config in configs], device=device),
        quarter=torch.tensor([quarter_left(k.max_epochs) for k in configs], device=device),
        start=None,
        val_start=None,
        loss_before=torch.empty(num, dtype=dtype, device=device),
        bound=torch.empty(num, dtype=dtype, device=device),
        lowest=torch.full((num,), torch.inf, dtype=torch.float64, device=device),
        best_epoch=torch.zeros(num, dtype=torch.long, device=device),
    )
    if any(config.centered for config in configs):
        centered = column([float(config.centered) for config in configs])
        watch.start = outputs(data) * centered
        watch.val_start = None if held_out is None else outputs(held_out) * centered
    watch.loss_before, _ = measured()
    watch.bound = divergence_bound(watch.loss_before)
    kept: dict[int, TrainedRun] = {}  # of each config its best epoch so far, where one is kept

    def run_of(row: int, outcome: Outcome, loss: Tensor) -> TrainedRun:
        which = int(watch.index[row])
        return TrainedRun(
            config=configs[which],
            outcome=outcome,
            epochs=epoch,
            steps=steps,
            train_loss=None if outcome is Outcome.DIVERGED else float(loss[row]),
            init=initial[which],
            final=replicas.state(row),
        )

    for epoch in count(1):
        if cancelled is not None and cancelled.is_set():
            return
        factors = rates(epoch)
        order = torch.stack([next(one) for one in orders]).to(device)
        steps = steps_after(stop, epoch, num_steps)
        batches = data.batches(
            watch, order, setup.batch_size, disturb if setup.augmentation else None
        )
        due = steps - steps_after(stop, epoch - 1, num_steps)
        for (x, y, start), factor in islice(zip(batches, factors, strict=True), due):
            replicas.step(x, y, start, factor)
        loss, target_met = measured()
        watch.loss_before = torch.where(watch.quarter == epoch, loss, watch.loss_before)
        diverged = ~(loss <= watch.bound)
        if isinstance(stop, FixedSteps):
            target_met = target_met | (steps == stop.steps)
        if isinstance(stop, ValidationLoss) and held_out is not None:
            value = validation_loss(held_out)
            diverged = diverged | ~value.isfinite()
            better = value < watch.lowest
            watch.lowest = torch.where(better, value, watch.lowest)
            watch.best_epoch = torch.where(better, epoch, watch.best_epoch)
            target_met = epoch - watch.best_epoch >= stop.validation_patience
            for row in (better & ~diverged).nonzero().flatten().tolist():
                kept[int(watch.index[row])] = run_of(row, Outcome.REACHED_TARGET, loss)
        over = diverged | target_met | (epoch >= watch.max_epochs)
        if not over.any():
            continue
        for row in over.nonzero().flatten().tolist():
            if diverged[row]:
                outcome = Outcome.DIVERGED
            elif target_met[row]:
                outcome = Outcome.REACHED_TARGET
            else:
                outcome = out_of_epochs(float(loss[row]), float(watch.loss_before[row]))
            best = kept.pop(int(watch.index[row]), None)
            if best is None or outcome is Outcome.DIVERGED:
                finish(run_of(row, outcome, loss))
            elif target_met[row]:
                finish(best)
            else:
                finish(replace(best, outcome=out_of_patience(best.epochs, best.config.max_epochs)))
        still = (~over).nonzero().flatten()
        watch.keep(still)
        replicas.keep(still)
        if not len(still):
            return
