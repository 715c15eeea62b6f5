"""What the callbacks of all frameworks share: a recording and, if wanted, looks at the net."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fls_bench.errors import FlsBenchError, InputError
from fls_bench.recorder import Recorder, read_recipe, record
from fls_bench.schema import FixedSteps, Loss, Recipe, Stop
from fls_bench.training_setup import in_one_line

if TYPE_CHECKING:
    from fls_bench.tasks import Task
    from fls_bench.watching import Look, Watch

Tell = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Told:
    """What a framework tells of a run before its first step.

    Attributes:
        optimizers: All that it has.
        batch_size: Points per optimizer step, of all processes together; None: not known.
        clip_norm: At which gradients are clipped, or None.
        problem: Why what it tells can't be a recipe, or None.
    """

    optimizers: list[torch.optim.Optimizer]
    batch_size: int | None
    clip_norm: float | None = None
    problem: str | None = None


class Loop:
    """One training run of a framework's, recorded and looked at.

    Args:
        path: The model file to write, ``.pt`` or ``.safetensors``.
        task: The data, as ``fls_bench.make_task`` makes them; kept in the file.
        loss: ``cross_entropy``, ``logistic`` or ``mse``, a mean over the batch.
        stop: When training stops; None: after as many steps as it makes.
        recipe: In place of what the framework tells: needed for schedules that change the rate.
        watch: Whether to look at the net while it trains; True: at the task's training points; or
            ``(x, y)``, training inputs and labels as the net takes them.
        feature_layer: Name of the layer whose output counts as features.
        output_multiplier: c, where c·net(x) is trained. Smaller c = larger FLS = toward over-aligned.
        seed: Seed that torch was given before the net was built.
        builder_hint: ``module:function`` that builds the net; shown to readers, never imported.
        keep_init: Whether the file holds the initial weights, or only their digest.
        force: Whether an existing file may be replaced.
        tell: Gets what is to be said, a sentence at a time.

    Attributes:
        stop: As given.
        recorder: The recording, from the first step on; None: there is none.
        watch: Its looks; None: none are made.
        problem: Why nothing is recorded, or None.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        task: Task | None = None,
        loss: Loss = "cross_entropy",
        stop: Stop | None = None,
        recipe: Recipe | None = None,
        watch: bool | tuple[Any, Any] = False,
        feature_layer: str | None = None,
        output_multiplier: float = 1.0,
        seed: int = 0,
        builder_hint: str | None = None,
        keep_init: bool = True,
        force: bool = False,
        tell: Tell = print,
    ) -> None:
        if watch is True and task is None:
            raise InputError(
                "watch=True looks at the training points of task=, and there is none.",
                "Give task=, or watch=(x, y) with training inputs and labels.",
            )
        self._path, self._task, self._loss, self.stop = path, task, loss, stop
        self._given, self._points = recipe, watch
        self._feature_layer, self._c, self._seed = feature_layer, output_multiplier, seed
        self._hint, self._keep_init, self._force = builder_hint, keep_init, force
        self.tell = tell
        self.recorder: Recorder | None = None
        self.watch: Watch | None = None
        self.problem: str | None = None
        self._read: Recipe | None = None

    def refuse(self, problem: str) -> None:
        """Say why this run is not recorded; training goes on.

        Args:
            problem: A sentence.
        """
        self.problem = problem
        self.tell(f"fls-bench records nothing: {problem}")

    def begin(self, net: nn.Module, told: Told) -> Look | None:
        """Before the first step.

        Args:
            net: The net, whole on this process.
            told: What the framework tells.

        Returns:
            The first look, where the net is watched.

        Raises:
            InputError: The path can't be written, or a value is out of range.
        """
        self.recorder, self.watch, self.problem, self._read = None, None, None, None
        if half := not_full_precision(net):
            self.refuse(half)
            return None
        optimizer = told.optimizers[0] if len(told.optimizers) == 1 else None
        found = self._given or self._recipe(net, optimizer, told)
        recipe = found if isinstance(found, Recipe) else None
        self._read = None if self._given is not None else recipe
        self.recorder = record(
            net, self._path, task=self._task, optimizer=optimizer, recipe=recipe, seed=self._seed,
            output_multiplier=self._c, builder_hint=self._hint, feature_layer=self._feature_layer,
            keep_init=self._keep_init, force=self._force,
        )  # fmt: skip
        if not isinstance(found, Recipe):
            self.recorder.no_recipe = found
            self.tell(f"fls-bench records weights, but no recipe to sweep by: {found}")
        return self._first_look(net)

    def _recipe(
        self, net: nn.Module, optimizer: torch.optim.Optimizer | None, told: Told
    ) -> Recipe | str:
        if told.problem is not None:
            return told.problem
        if optimizer is None:
            return f"There are {len(told.optimizers)} optimizers; recipes know one."
        stop = self.stop or FixedSteps(1)  # set at the end, when the steps are counted
        found = read_recipe(net, optimizer, told.batch_size, stop, self._loss, self._seed, 0)
        if isinstance(found, str) or told.clip_norm is None:
            return found
        clipped = found.optimizer.model_copy(update={"clip_norm": told.clip_norm})
        return found.model_copy(update={"optimizer": clipped})

    def _first_look(self, net: nn.Module) -> Look | None:
        if self._points is False:
            return None
        from fls_bench.watching import Watch

        task = self._task
        x, y = (task.x_train, task.y_train) if task is not None else (None, None)
        if not isinstance(self._points, bool):
            x, y = self._points
        try:
            self.watch = Watch(
                net, torch.as_tensor(x), torch.as_tensor(y),
                n_train=None if task is None else task.n_train,
                n_classes=None if task is None else task.n_classes,
                output_multiplier=self._c, feature_layer=self._feature_layer,
            )  # fmt: skip
            return self._say(self.watch.look())
        except Exception as error:  # the user's forward; a look is not worth a training run
            self.watch = None
            self.tell(f"fls-bench can't watch this net: {in_one_line(error)}.")
            return None

    def look(self, loss: float | Tensor) -> Look | None:
        """Look at the net where a loss says that training has come far enough to see more.

        Args:
            loss: Of the last batches.

        Returns:
            The look, where one was due.
        """
        if self.watch is None or not self.watch.due(float(loss)):
            return None
        return self._say(self.watch.look())

    def _say(self, look: Look) -> Look:
        self.tell(f"fls-bench: {look.text}")
        return look

    def epoch(self) -> None:
        """After each epoch."""
        if self.recorder is not None:
            self.recorder.log()

    def end(self) -> None:
        """Where training ended well: write the file."""
        recorder = self.recorder
        if recorder is None:
            return
        if self._read is not None and self.stop is None and recorder.steps:
            recorder.settle(self._read.model_copy(update={"stop": FixedSteps(recorder.steps)}))
        try:
            written = recorder.save()
        except FlsBenchError as error:  # hours of training are not lost to a full disk
            self.problem = str(error)
            self.tell(f"fls-bench could not write its file: {error}")
        else:
            hint = f" --model {self._hint}" if self._hint else " --model pkg.mod:build"
            self.tell(f"fls-bench wrote {written}; next: fls-bench diagnose {written}{hint}")
        recorder.close()

    def fail(self) -> None:
        """Where training ended in an error: nothing is written."""
        if self.recorder is not None:
            self.recorder.close()


def not_full_precision(net: nn.Module) -> str | None:
    """Why the weights of a net can't be recorded, or None.

    Args:
        net: The net.

    Returns:
        A sentence.
    """
    for name, value in net.named_parameters():
        if value.device.type == "meta" or value.numel() == 0 or hasattr(value, "placements"):
            return (
                f"Parameter {name} is not whole on this process: it is sharded or has no values yet. "
                "Train with plain or data-parallel copies, or diagnose a gathered checkpoint."
            )
        if value.is_floating_point() and value.dtype not in (torch.float32, torch.float64):
            kind = str(value.dtype).removeprefix("torch.")
            return (
                f"Parameter {name} is kept in {kind}, too coarse for how far weights moved. Mixed "
                "precision that keeps weights in float32 can be recorded."
            )
    return None
