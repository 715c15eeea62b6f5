"""Whether a framework trains on the recipe's loss and the task's points, by its own forward passes.

The recipe is read off a framework, and its loss can't be: that is a line of somebody's code. So a hook
keeps what the net answers in training; from it the recipe's loss of that batch is computed and compared
with the loss that was trained on. Nothing is run again, and no random number is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fls_bench.schema import Recipe
from fls_bench.tasks import Task
from fls_bench.training.runs import sample_losses

RELATIVE, ABSOLUTE = 0.01, 1e-3
"""By how much losses may differ: logits in half precision, rounding."""

ROWS = 4
"""Of so many points of a batch it is looked up whether the task has them."""


def near(one: float, other: float) -> bool:
    """Whether two losses are the same but for rounding; a loss that is not finite tells nothing."""
    return not math.isfinite(one - other) or abs(one - other) <= RELATIVE * abs(other) + ABSOLUTE


def is_due(index: int) -> bool:
    """Whether a batch is compared: the first ones, then ever fewer, since smoothing shows late only."""
    return index < 2 or index & (index - 1) == 0


@dataclass(frozen=True, eq=False)
class _Pass:
    """One forward pass: inputs and logits, and what the net was given and returned beside them."""

    inputs: Tensor | None
    logits: Tensor
    labels: Tensor | None
    loss: Tensor | None


class Agreement:
    """Compares batches of training with a recipe.

    Args:
        net: The net, whose outputs are logits ``[n, K]`` or have them as ``logits``.
        recipe: Its loss, label smoothing and augmentation.
        c: Output multiplier: c·net(x) is trained.
        task: The data, if known.
    """

    def __init__(self, net: nn.Module, recipe: Recipe, c: float, task: Task | None) -> None:
        self._net, self._recipe, self._c, self._task = net, recipe, c, task
        self._seen: list[_Pass] = []
        self._handle: Any = None

    @property
    def is_open(self) -> bool:
        """Whether forward passes are kept now."""
        return self._handle is not None

    def open(self) -> None:
        """Keep the forward passes from now on. A hook that always hung there would slow small nets."""
        if self._handle is None:
            self._handle = self._net.register_forward_hook(self._keep, with_kwargs=True)

    def close(self) -> None:
        """Remove the hook."""
        if self._handle is not None:
            self._handle.remove()
        self._handle, self._seen = None, []

    def _keep(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if not torch.is_grad_enabled():
            return
        logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
        if isinstance(logits, Tensor) and logits.ndim == 2:
            inputs = args[0] if args else kwargs.get("input_ids")
            inputs = inputs if isinstance(inputs, Tensor) else None
            loss = getattr(output, "loss", None)
            loss = loss.detach() if isinstance(loss, Tensor) else None
            self._seen.append(_Pass(inputs, logits.detach(), kwargs.get("labels"), loss))

    def problem(self, batch: Any = None, loss: Tensor | float | None = None) -> str | None:
        """Why the batch whose forward pass was kept was not trained by the recipe, or None. It closes.

        Args:
            batch: As the framework has it; its labels are found by their shape. None: as they were given
                to the net, with which the first of several passes is enough.
            loss: That was trained on, a mean over the batch; None: the one that the net returned.

        Returns:
            A sentence.
        """
        seen = self._seen
        self.close()
        if not seen or (batch is not None and len(seen) > 1):
            times = f"{len(seen)} times" if seen else "not"
            return (
                f"The net was {times} called for a batch, so that its loss can't be compared with the "
                "recipe's. module= names the net that gives logits [n, K]."
            )
        own, inputs = self._recipe, seen[0].inputs
        batch, loss = (seen[0].labels, seen[0].loss) if batch is None else (batch, loss)
        logits = self._c * seen[0].logits.float()
        most = max(2, logits.shape[1])
        found = [y for y in _labels(batch, len(logits)) if y.max() < most]
        if not found or loss is None:
            return "A batch has no class labels [n], by which its loss could be compared."
        actual = float(loss)
        losses = [
            float(sample_losses(logits, y, own.loss, own.label_smoothing).mean()) for y in found
        ]
        same = [near(one, actual) for one in losses]
        if not any(same):
            smooth = f" with smoothing {own.label_smoothing:g}" if own.label_smoothing else ""
            return (
                f"The loss trained on is {actual:.4g} where the mean {own.loss}{smooth} of the net's "
                f"logits{f' times {self._c:g}' if self._c != 1 else ''} is {losses[0]:.4g}."
            )
        if self._task is None or inputs is None or own.augmentation:
            return None
        return _unlike(inputs[:ROWS], found[same.index(True)][:ROWS], self._task)


def _labels(batch: Any, n: int) -> Iterator[Tensor]:
    """What in a batch may be its labels: n whole numbers."""
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if isinstance(batch, list | tuple):
        for one in batch:
            yield from _labels(one, n)
    elif isinstance(batch, Tensor) and batch.numel() == n and not batch.is_complex():
        flat = batch.detach().flatten()
        if not flat.is_floating_point() or bool((flat == flat.round()).all()):
            flat = flat.long()
            if flat.min() >= 0:
                yield flat


def _unlike(inputs: Tensor, labels: Tensor, task: Task) -> str | None:
    """Why points of a batch are none of the task's, or None; sequences may be cut to the longest."""
    rows = inputs.detach().cpu().flatten(1)
    stored = task.x_train.reshape(len(task.x_train), -1)
    width = rows.shape[1]
    if width > stored.shape[1] or (width < stored.shape[1] and rows.is_floating_point()):
        return f"Inputs have {width} numbers, and those of the task {stored.shape[1]}."
    for row, label in zip(rows.double().numpy(), labels.tolist(), strict=True):
        near = np.arange(len(stored))
        for column in np.linspace(0, width - 1, min(width, 8), dtype=int):  # cheap, before the rest
            near = near[np.isclose(stored[near, column], row[column], rtol=1e-4, atol=1e-5)]
        same = [k for k in near if np.allclose(stored[k, :width], row, rtol=1e-4, atol=1e-5)]
        if not same:
            return "A point of a batch is none of the task's: data are scaled, changed or others."
        if label not in task.y_train[same]:
            return "A point of a batch has another label than in the task."
    return None
