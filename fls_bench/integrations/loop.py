"""What the callbacks of all frameworks share: a recording and, if wanted, looks at the net."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fls_bench.errors import FlsBenchError, InputError
from fls_bench.files import check_target
from fls_bench.integrations.agreement import Agreement, is_due
from fls_bench.recorder import Recorder, record
from fls_bench.schema import (
    FixedSteps,
    Loss,
    PerStep,
    Recipe,
    Stop,
    TargetAccuracy,
    TargetLoss,
)
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
        constant_rate: Whether its scheduler is known to change nothing.
        schedule: How its scheduler changes the rate.
        n_train: How many points it trains on; None: not known.
        called: The module that it calls in training, if that is not the net itself.
    """

    optimizers: list[torch.optim.Optimizer]
    batch_size: int | None
    clip_norm: float | None = None
    problem: str | None = None
    constant_rate: bool = False
    schedule: PerStep | None = None
    n_train: int | None = None
    called: nn.Module | None = None


class Loop:
    """One training run of a framework's, recorded and looked at.

    Args:
        path: The model file to write, ``.pt`` or ``.safetensors``.
        task: The data, as ``fls_bench.make_task`` makes them; kept in the file.
        loss: ``cross_entropy``, ``logistic`` or ``mse``, a mean over the batch.
        stop: When training stops; None: after as many steps as it makes.
        schedule: How the rate changes with the steps, where the framework does not tell.
        recipe: In place of what the framework tells: needed for other schedules and augmentation.
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
        schedule: As given.
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
        schedule: PerStep | None = None,
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
        check_target(
            Path(path), force, "force=True"
        )  # on every process, before anything is trained
        self._path, self._task, self._loss, self.stop = path, task, loss, stop
        self._given, self._points, self.schedule = recipe, watch, schedule
        self._feature_layer, self._c, self._seed = feature_layer, output_multiplier, seed
        self._hint, self._keep_init, self._force = builder_hint, keep_init, force
        self.tell = tell
        self.recorder: Recorder | None = None
        self.watch: Watch | None = None
        self.problem: str | None = None
        self._agreement: Agreement | None = None
        self._trained: weakref.ref[nn.Module] | None = None
        self._kind = ""

    def refuse(self, problem: str) -> None:
        """Say why this run is not recorded; training goes on.

        Args:
            problem: A sentence.
        """
        self._close()
        self.recorder, self.watch, self.problem = None, None, problem
        self.tell(f"fls-bench records nothing: {problem}")

    def _close(self) -> None:
        """Take every hook off the net and its optimizer."""
        if self.recorder is not None:
            self.recorder.close()
        if self._agreement is not None:
            self._agreement.close()
        self._agreement = None

    def begin(
        self, net: nn.Module, told: Told, resume: Mapping[str, Any] | None = None
    ) -> Look | None:
        """Before the first step, or where training goes on.

        Args:
            net: The net, whole on this process.
            told: What the framework tells.
            resume: What ``kept`` returned, from the checkpoint that training goes on from.

        Returns:
            The first look, where the net is watched.

        Raises:
            InputError: The path can't be written, a value is out of range, or what is resumed is of
                another net.
        """
        self._close()
        self.recorder, self.watch, self.problem = None, None, None
        if half := not_full_precision(net):
            self.refuse(half)
            return None
        own = told.called or net
        again = self._trained is not None and self._trained() is own and resume is None
        self._trained = weakref.ref(own)
        self._kind = f"a {type(net).__module__}.{type(net).__qualname__}"
        problem = self._problem(told)
        if again:
            problem = "This net was trained before, so that these are not initial weights."
        optimizer = told.optimizers[0] if len(told.optimizers) == 1 else None
        try:
            self.recorder = record(
                net, self._path, task=self._task, optimizer=optimizer,
                batch_size=told.batch_size if problem is None else None,
                clip_norm=told.clip_norm, schedule=self.schedule or told.schedule,
                stop=self.stop or FixedSteps(1),  # settled at the end, when the steps are counted
                loss=self._loss, recipe=None if again else self._given, resume=resume, seed=self._seed,
                output_multiplier=self._c, builder_hint=self._hint,
                feature_layer=self._feature_layer, keep_init=self._keep_init, force=self._force,
            )  # fmt: skip
        except InputError as error:
            if resume is None and not again:
                raise
            self.refuse(str(error))  # a run that went well so far goes on
            return None
        self.recorder.warns = False  # said here
        self.recorder.constant_rate = told.constant_rate
        self.recorder.no_recipe = problem or self.recorder.no_recipe
        if (why := self.recorder.no_recipe) is not None:
            self.tell(f"fls-bench records weights, but no recipe to sweep by: {why}")
        elif (recipe := self.recorder.recipe()) is not None:
            self._agreement = Agreement(own, recipe, self._c, self._task)
            size = told.batch_size
            if self._given is not None and size not in (None, recipe.batch_size):
                self.doubt(f"Its batch size is {recipe.batch_size}, and training has {size}.")
        if resume is None:
            return self._first_look(net, None)
        self.tell(f"fls-bench goes on recording after step {self.recorder.steps}.")
        if self._points is not False and self.recorder.init is None:
            self.tell("fls-bench can't watch on: the checkpoint lacks the initial weights.")
            return None
        return self._first_look(net, self.recorder.init)

    def _problem(self, told: Told) -> str | None:
        """Why what a framework tells is no recipe, or None."""
        if self._given is not None:
            return None
        if len(told.optimizers) != 1:
            return f"There are {len(told.optimizers)} optimizers; recipes know one."
        if told.problem is not None:
            return told.problem
        n = None if self._task is None else self._task.n_train
        if None not in (n, told.n_train) and n != told.n_train:
            return f"It trains on {told.n_train} points, and the task has {n}."
        return None

    def doubt(self, why: str) -> None:
        """Say that training does not go by the recipe: one that was read off is dropped.

        Args:
            why: A sentence.
        """
        if self.recorder is None or self.recorder.no_recipe is not None:
            return  # there is none to doubt
        if self._given is None:
            self.recorder.settle(why)
            self.tell(f"fls-bench keeps no recipe to sweep by: {why}")
        else:
            self.tell(f"fls-bench: is the recipe that was given that of this run? {why}")

    def before_batch(self, index: int) -> None:
        """Before a batch: see what the net answers, where that is to be compared with the recipe.

        Args:
            index: How many batches, or steps, there were.
        """
        if self._agreement is not None and is_due(index):
            self._agreement.open()

    @property
    def compares(self) -> bool:
        """Whether this batch is compared."""
        return self._agreement is not None and self._agreement.is_open

    def after_batch(self, batch: Any = None, loss: Tensor | float | None = None) -> None:
        """After a batch: compare, as ``Agreement.problem`` says.

        Args:
            batch: As the framework has it.
            loss: That was trained on.
        """
        own = self._agreement
        if own is not None and own.is_open and (why := own.problem(batch, loss)) is not None:
            self._agreement = None
            self.doubt(why)

    def kept(self) -> dict[str, Any]:
        """For a checkpoint: what ``begin`` resumes; empty if nothing is recorded."""
        return {} if self.recorder is None else self.recorder.state_dict()

    def _first_look(self, net: nn.Module, init: Mapping[str, Tensor] | None) -> Look | None:
        if self._points is False:
            return None
        from fls_bench.watching import Watch

        net = getattr(net, "_orig_mod", net)  # as it is, not as it was compiled for training
        task = self._task
        x, y = (task.x_train, task.y_train) if task is not None else (None, None)
        if not isinstance(self._points, bool):
            x, y = self._points
        try:
            self.watch = Watch(
                net, torch.as_tensor(x), torch.as_tensor(y),
                n_train=None if task is None else task.n_train,
                n_classes=None if task is None else task.n_classes,
                output_multiplier=self._c, feature_layer=self._feature_layer, init=init,
            )  # fmt: skip
        except Exception as error:  # the user's forward; a look is not worth a training run
            self.watch = None
            self.tell(f"fls-bench can't watch this net: {in_one_line(error)}.")
            return None
        stop = self.stop if self._given is None else self._given.stop
        if not isinstance(stop, TargetLoss | TargetAccuracy):
            self.tell(
                "fls-bench: the looks know nets that train to a target "
                "(stop=fls_bench.TargetLoss(...)); of others they say less, and less surely."
            )
        return self._look()

    def look(self, loss: float | Tensor) -> Look | None:
        """Look at the net where a loss says that training has come far enough to see more.

        Args:
            loss: Of the last batches.

        Returns:
            The look, where one was due.
        """
        if self.watch is None or not self.watch.due(float(loss)):
            return None
        return self._look()

    def _look(self) -> Look | None:
        assert self.watch is not None
        try:
            look = self.watch.look()
        except Exception as error:  # such as too little memory, late in training
            self.watch = None
            self.tell(f"fls-bench stops watching: {in_one_line(error)}.")
            return None
        self.tell(f"fls-bench: {look.text}")
        return look

    def epochs(self, done: int) -> None:
        """After each epoch.

        Args:
            done: Whole passes over the data so far.
        """
        if self.recorder is not None:
            self.recorder.epochs = done

    def end(self, early: bool = False) -> None:
        """Where training ended well: write the file.

        Args:
            early: Whether something ended it before the steps that were planned.
        """
        recorder = self.recorder
        if recorder is None:
            return
        said = recorder.no_recipe
        if self.stop is not None or self._given is not None:
            for doubt in recorder.doubts():
                self.doubt(doubt)
            said = recorder.no_recipe
        elif recorder.steps and said is None:
            recorder.settle(
                "Something stopped training early: give stop=, such as fls_bench.TargetLoss(loss)."
                if early else FixedSteps(recorder.steps)
            )  # fmt: skip
        try:
            written = recorder.save()
        except FlsBenchError as error:  # hours of training are not lost to a full disk
            self.problem = str(error)
            self.tell(f"fls-bench could not write its file: {error}")
        else:
            if (why := recorder.no_recipe) is not None and why != said:
                self.tell(f"fls-bench keeps no recipe to sweep by: {why}")
            self.tell(
                f"fls-bench wrote {written}; next: fls-bench diagnose {written} --model "
                f"{self._hint or f'pkg.mod:build --pythonpath ., whose build() returns {self._kind}'}"
                f"{'' if self._task is not None else '; and --data, since no task= was given'}"
            )
        self._close()

    def fail(self) -> None:
        """Where training ended in an error: nothing is written."""
        if self.recorder is not None:
            self._close()
            self.tell("fls-bench wrote nothing, since training did not end.")


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
