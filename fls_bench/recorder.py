"""What a training loop of anyone's has to keep for a diagnosis: the init, the stop and the recipe.

``with record(model, "model.pt", ...):`` around the loop, or two calls, writes a model file that
``fls-bench diagnose`` can judge as well as one of its own. Between the two calls nothing is done but to
count the optimizer's steps.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from fls_bench.bundle import WRAPPERS, state_digest, stored_task
from fls_bench.bundle.contents import check_tensor
from fls_bench.bundle.writing import plain_state, versions, write_bundle
from fls_bench.errors import InputError
from fls_bench.files import check_target
from fls_bench.scaling import factor_of_step
from fls_bench.schema import (
    Adam,
    AdamW,
    AnyOptimizer,
    ArchitectureSpec,
    BundleHeader,
    BundleOutcome,
    FixedSteps,
    Loss,
    MultiplierRoute,
    Outcome,
    PerStep,
    Recipe,
    Sgd,
    Stop,
    TargetLoss,
    TaskSpec,
)

if TYPE_CHECKING:
    from fls_bench.tasks import Task

# torch's class -> ours, names of settings there -> here, and what those that we lack must be.
_KNOWN: dict[type[torch.optim.Optimizer], tuple[type[AnyOptimizer], dict[str, str], dict[str, Any]]] = {
    torch.optim.SGD: (
        Sgd, {"lr": "lr", "momentum": "momentum", "nesterov": "nesterov",
              "weight_decay": "weight_decay"}, {"dampening": 0, "maximize": False},
    ),
    torch.optim.Adam: (
        Adam, {"lr": "lr", "weight_decay": "weight_decay", "eps": "epsilon"},
        {"amsgrad": False, "maximize": False, "decoupled_weight_decay": False},
    ),
    torch.optim.AdamW: (
        AdamW, {"lr": "lr", "weight_decay": "weight_decay", "eps": "epsilon"},
        {"amsgrad": False, "maximize": False},
    ),
}  # fmt: skip


SAME_EPOCHS = 0.95
"""A last batch that is dropped leaves a recipe what it is, if steps are this share of those due."""


SAME_RATE = 1e-9
"""Rates that differ by less, as a share of the full one, differ by rounding."""


class _Kept(BaseModel):
    """What ``Recorder.state_dict`` keeps in a checkpoint."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    init: dict[str, Tensor] | None
    init_digest: str
    steps: int
    epochs: int
    recipe: Recipe | None
    no_recipe: str | None


class Recorder:
    """Keeps what training began with; made by ``record``.

    Attributes:
        init: State dict before training, copies on the CPU; None: a run that went on has its digest.
        init_digest: ``state_digest`` of it: proves an init that is built again from its seed.
        steps: Optimizer steps so far; 0 where no optimizer was given.
        epochs: How many losses were logged.
        train_loss: The last one, or None.
        no_recipe: Why the file will hold no recipe, or None.
        constant_rate: Whether a scheduler that left its traces is known to change nothing.
        warns: Whether a file without a recipe, where one was wanted, is warned of.
    """

    def __init__(
        self,
        model: nn.Module,
        path: str | os.PathLike[str] | None,
        optimizer: torch.optim.Optimizer | None,
        recipe: Recipe | None,
        no_recipe: str | None,
        read_off: bool,
        header: Mapping[str, Any],
        task: Task | None,
        keep_init: bool,
        force: bool,
        kept: _Kept | None = None,
        schedule: PerStep | None = None,
    ) -> None:
        self._model, self._optimizer = model, optimizer
        self._path = None if path is None else Path(path)
        self._recipe, self.no_recipe, self._read_off = recipe, no_recipe, read_off
        self._header, self._task = dict(header), task
        self._keep_init, self._force = keep_init, force
        self._schedule = schedule
        self._full = [] if optimizer is None else _rates(optimizer, full=True)
        self._settings = _settings(optimizer, schedule is not None)
        self._clock = [0 if kept is None else kept.steps, 0]  # steps, and those at another rate
        self._handle: Any = None
        self._written: Path | None = None
        if optimizer is not None:
            clock, rates = self._clock, _rates(optimizer, full=schedule is not None)

            def count(other: torch.optim.Optimizer, *_: object) -> None:
                factor = _factor(schedule, clock[0])
                clock[0] += 1
                clock[1] += factor is not None and not all(
                    abs(now - factor * full) <= SAME_RATE * full
                    for now, full in zip(_rates(other), rates, strict=True)
                )

            self._handle = optimizer.register_step_post_hook(count)
        self.init: dict[str, Tensor] | None
        if kept is None:
            self.init = {name: value.cpu().clone() for name, value in _state(model).items()}
            self.init_digest, self.epochs = state_digest(self.init), 0
        else:
            self.init, self.init_digest, self.epochs = kept.init, kept.init_digest, kept.epochs
        self.train_loss: float | None = None
        self.constant_rate, self.warns = False, True

    @property
    def steps(self) -> int:
        """Optimizer steps so far."""
        return self._clock[0]

    def log(self, train_loss: float | None = None) -> None:
        """Note the end of an epoch.

        Args:
            train_loss: Loss on the training data; the last one logged is what the file claims. None: it
                was not measured, and the file claims none.
        """
        self.epochs += 1
        self.train_loss = None if train_loss is None else float(train_loss)

    def settle(self, stop: Stop | str) -> None:
        """Replace the stop of the recipe, where only the end of training tells it.

        Args:
            stop: When training ended, or why no recipe can say it.
        """
        if isinstance(stop, str):
            self._recipe, self.no_recipe = None, stop
        elif self._recipe is not None:
            self._recipe = self._recipe.model_copy(update={"stop": stop})

    def state_dict(self) -> dict[str, Any]:
        """What to keep in a checkpoint, for ``record(..., resume=...)`` where training goes on from it.

        Returns:
            Plain values, and the initial weights unless ``keep_init`` is false: a checkpoint grows by
            one copy of the weights.
        """
        return {
            "init": self.init if self._keep_init else None,
            "init_digest": self.init_digest,
            "steps": self.steps,
            "epochs": self.epochs,
            "recipe": None if self._recipe is None else self._recipe.model_dump(mode="json"),
            "no_recipe": self.no_recipe,
        }

    def recipe(self) -> Recipe | None:
        """The recipe as far as it is known now; None, with ``no_recipe`` set, where it is not."""
        if not self._read_off or self._recipe is None:
            return self._recipe
        self.no_recipe = self._changed()
        return self._recipe if self.no_recipe is None else None

    def _changed(self) -> str | None:
        """Why what was read off the optimizer is not how the net was trained, or None."""
        groups = [] if self._optimizer is None else self._optimizer.param_groups
        # Most of torch's schedulers leave this key, even where the rate is now what it was.
        known = self.constant_rate or self._schedule is not None
        settings = _settings(self._optimizer, self._schedule is not None)
        if settings != self._settings or self._clock[1] or (
            not known and any("initial_lr" in one for one in groups)
        ):  # fmt: skip
            return (
                "The optimizer's settings follow a schedule that is not known: give recipe= with its "
                "schedule, or schedule=."
            )
        if self._recipe is None or self._task is None or not self.epochs:
            return None
        per_epoch = -(-len(self._task.x_train) // self._recipe.batch_size)
        due = self.epochs * per_epoch
        if SAME_EPOCHS * due <= self.steps < due + per_epoch:  # an epoch may have begun
            return None
        return (
            f"{self.steps} optimizer steps were made in {self.epochs} epochs, and {due} are due with "
            f"batches of {self._recipe.batch_size}: were gradients accumulated, batches dropped, or the "
            "loss logged at other times? Give recipe= with the points per step."
        )

    def doubts(self) -> list[str]:
        """Where a recipe that was given, or a number of steps, is not what was seen: sentences."""
        recipe, optimizer = self._recipe, self._optimizer
        if recipe is None or optimizer is None:
            return []
        found = []
        stop = recipe.stop
        if isinstance(stop, FixedSteps) and self.steps not in (0, stop.steps):
            found.append(f"Its stop is after {stop.steps} steps, and {self.steps} were made.")
        if self._read_off:
            return found
        kind = _KNOWN.get(type(optimizer), (None,))[0]
        if kind is not type(recipe.optimizer):
            found.append(
                f"It has {recipe.optimizer.kind}, and training {type(optimizer).__name__}."
            )
        elif self._full and not math.isclose(recipe.optimizer.lr, self._full[0], rel_tol=1e-6):
            found.append(
                f"Its rate is {recipe.optimizer.lr:g}, and training has {self._full[0]:g}."
            )
        if recipe.optimizer.schedule is None and self._clock[1]:
            found.append("The rate changes in training, and it has no schedule.")
        return found

    def outcome(self) -> BundleOutcome | None:
        """How training ended, as far as it was logged; None where nothing was."""
        loss, recipe = self.train_loss, self.recipe()
        if loss is None:
            return None
        stop = None if recipe is None else recipe.stop
        status: Outcome | None = None  # whether another stop holds can't be told from a loss
        if not math.isfinite(loss):
            status = Outcome.DIVERGED
        elif isinstance(stop, TargetLoss):
            reached = loss <= stop.target_loss
            status = Outcome.REACHED_TARGET if reached else Outcome.OUT_OF_BUDGET
        elif isinstance(stop, FixedSteps):
            reached = self.steps >= stop.steps
            status = Outcome.REACHED_TARGET if reached else Outcome.OUT_OF_BUDGET
        return BundleOutcome(
            status=status, epochs=self.epochs, steps=self.steps,
            train_loss=loss if math.isfinite(loss) else None,
        )  # fmt: skip

    def header(self) -> str:
        """What to keep in a checkpoint of your own, under the key ``fls_bench``: plain text.

        With it ``fls-bench diagnose`` knows the recipe and how training ended, can prove an init that
        is built again from its seed, and that data are those of training.

        Returns:
            The header of a model file, as JSON, without weights and data.
        """
        task = None if self._task is None else stored_task("the header", self._task)[0]
        return self._bundle_header(task).model_dump_json()

    def _bundle_header(self, task: TaskSpec | None) -> BundleHeader:
        recipe = self.recipe()
        return BundleHeader(
            **self._header, recipe=recipe, no_recipe=self.no_recipe, outcome=self.outcome(), task=task,
            init_digest=self.init_digest, versions=versions(),
        )  # fmt: skip

    def save(
        self, path: str | os.PathLike[str] | None = None, *, force: bool | None = None
    ) -> Path:
        """Write the model file, with the weights as they are now.

        Args:
            path: In place of that given to ``record``.
            force: Whether an existing file may be replaced; None: as given to ``record``.

        Returns:
            The path written.

        Raises:
            InputError: No path, a path that can't be written, or weights that are not finite.
        """
        target = self._path if path is None else Path(path)
        if target is None:
            raise InputError("There is no path to write to.", "Give one to record() or to save().")
        spec, data = (None, {}) if self._task is None else stored_task(str(target), self._task)
        write_bundle(
            target,
            self._bundle_header(spec),
            final=_state(self._model),
            init=self.init if self._keep_init else None,
            data=data,
            force=self._force if force is None else force,
        )
        self._written = target
        if self.no_recipe is not None and self.warns:
            warnings.warn(
                f"{target} holds no recipe, so that c can't be swept: {self.no_recipe}",
                stacklevel=2,
            )
        for doubt in self.doubts() if self.warns else ():
            warnings.warn(f"Is the recipe in {target} that of this run? {doubt}", stacklevel=2)
        return target

    def close(self) -> None:
        """Stop to count steps; the end of the context does so too."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write the file where the loop ended well; an error passes on, and nothing is written."""
        try:
            if error is not None and self._path is not None and self._written is None:
                error.add_note(
                    f"fls_bench.record wrote no {self._path}, since the loop did not end."
                )
            elif kind is None and self._path is not None and self._written != self._path:
                self.save()
        finally:
            self.close()


def _settings(
    optimizer: torch.optim.Optimizer | None, scheduled: bool = False
) -> list[dict[str, Any]] | None:
    """What an optimizer is told of each group of parameters, as plain values; but a scheduled rate."""
    if optimizer is None:
        return None
    return [
        {
            key: float(value) if isinstance(value, Tensor) else value
            for key, value in group.items()
            if key not in ("params", "initial_lr") and not (scheduled and key == "lr")
        }
        for group in optimizer.param_groups
    ]


def _factor(schedule: PerStep | None, step: int) -> float | None:
    """What a step's rate is times the full one; None: the schedule's length is not known."""
    if schedule is None:
        return 1.0
    if schedule.steps is None and schedule.decay != "constant":
        return None
    return factor_of_step(schedule, step, schedule.steps or 0)


def _rates(optimizer: torch.optim.Optimizer, full: bool = False) -> list[float]:
    """The rates, or those before a schedule; but tensors, since to read one waits for a GPU."""
    rates = [g.get("initial_lr", g["lr"]) if full else g["lr"] for g in optimizer.param_groups]
    return [rate for rate in rates if not isinstance(rate, Tensor)]


def _state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a net as a plain one has it: without what torch.compile puts into names."""
    found = plain_state("the recording", "model", model)
    return {WRAPPERS.sub("", name): value.detach() for name, value in found.items()}


def record(
    model: nn.Module,
    path: str | os.PathLike[str] | None = None,
    *,
    task: Task | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    batch_size: int | None = None,
    stop: Stop | None = None,
    loss: Loss | None = None,
    clip_norm: float | None = None,
    schedule: PerStep | None = None,
    recipe: Recipe | None = None,
    resume: Mapping[str, Any] | None = None,
    seed: int = 0,
    data_seed: int = 0,
    output_multiplier: float = 1.0,
    init_scale: float = 1.0,
    centered: bool = False,
    multiplier_route: MultiplierRoute = "wrapper",
    builder_hint: str | None = None,
    feature_layer: str | None = None,
    keep_init: bool = True,
    force: bool = False,
) -> Recorder:
    """Keep what a diagnosis needs of any training loop.

    Call it before the first step, or where training goes on. As a context it writes the model file where
    the loop ends well; without one, call ``save`` where training stops. Call ``log(train_loss)`` after
    each epoch to keep how training ended.

    The recipe is read off the optimizer where ``batch_size``, ``stop`` and ``loss`` are given too, or
    given whole. It is dropped where the optimizer trains a part of the net only, has made steps
    already, changes its settings, or makes other steps than epochs of such batches do. With data and
    recipe the file affords a verdict; else it says what is missing (``Recorder.no_recipe``).

    Args:
        model: The net, before its first step.
        path: The model file to write, ``.pt`` or ``.safetensors``.
        task: The data. A built-in task is stored by name, any other with its arrays.
        optimizer: ``torch.optim.SGD``, ``Adam`` or ``AdamW`` with one setting for all parameters;
            its steps are counted.
        batch_size: Training points per step.
        stop: When the loop ends.
        loss: ``cross_entropy``, ``logistic`` or ``mse``, a mean over the batch.
        clip_norm: Norm at which the gradients are clipped.
        schedule: Of the rate, per step, as torch's ``LambdaLR`` makes it; the optimizer's
            ``initial_lr`` is the full rate. With its ``steps`` each step's rate is compared.
        recipe: In place of what the optimizer tells: needed for a schedule, augmentation, smoothing.
        resume: What ``Recorder.state_dict`` returned, out of the checkpoint that training goes on from:
            the file will hold the first init and all steps. Other settings than before: no recipe.
        seed: Seed that torch was given before the net was built.
        data_seed: Which draw of the data is trained on.
        output_multiplier: c, where c·model(x) is trained. Smaller c = larger FLS = toward
            over-aligned.
        init_scale: alpha, the factor on the initial weights; ``model`` has it applied.
        centered: Whether c·(f(x) - f_0(x)) is trained.
        multiplier_route: How c reaches the net: ``wrapper`` around it, or ``factory`` inside it.
        builder_hint: ``module:function`` that builds the net; shown to readers, never imported.
        feature_layer: Name of the layer whose output counts as features.
        keep_init: Whether the file holds the initial weights, or only their digest: then they are
            built again from the seed, which takes a builder (``--model``) that draws the same.
        force: Whether an existing file may be replaced.

    Returns:
        The recorder, a context manager.

    Raises:
        InputError: The path can't be written, a value is out of range, or what is resumed is of another
            net.

    Cost: One copy of the weights on the CPU and a SHA-256 of it at the start, one file at the end;
    in between one count per step.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"record() was given a {type(model).__name__}.", "Give the torch module.")
    if path is not None:
        check_target(Path(path), force, "force=True")
    kept = None if resume is None else _kept(resume, _state(_inner(model)))
    no_recipe, read_off = None, recipe is None
    if recipe is None:
        read = _read_recipe(
            _inner(model), optimizer, batch_size, stop, loss, clip_norm, schedule, seed, data_seed,
            begun=kept is not None,
        )  # fmt: skip
        recipe, no_recipe = (read, None) if isinstance(read, Recipe) else (None, read)
    if kept is not None:
        recipe, no_recipe = _same(kept, recipe, no_recipe)
    header = {
        "architecture": ArchitectureSpec(hint=builder_hint),
        "output_multiplier": output_multiplier,
        "init_scale": init_scale,
        "centered": centered,
        "multiplier_route": multiplier_route,
        "feature_layer": feature_layer,
    }
    try:
        BundleHeader(**header)
    except ValidationError as error:
        raise _out_of_range(error) from None
    if task is not None:
        stored_task("the recording", task)  # what can't be stored is said before the training
    recorder = Recorder(
        _inner(model), path, optimizer, recipe, no_recipe, read_off, header, task, keep_init, force,
        kept, schedule if read_off else None,
    )  # fmt: skip
    # Who gives none of these knows that there will be no recipe.
    recorder.warns = any(one is not None for one in (batch_size, stop, loss, recipe))
    # What no file can hold is said before the training.
    for name, value in (recorder.init or {}).items():
        check_tensor(f"record(): the tensor {name!r}", "final", value)
    return recorder


def _kept(resume: Mapping[str, Any], now: Mapping[str, Tensor]) -> _Kept:
    remedy = "Give what Recorder.state_dict() returned, out of the checkpoint that is resumed."
    try:
        kept = _Kept.model_validate(dict(resume))
    except (TypeError, ValueError):
        raise InputError("What is resumed is not the state of a recording.", remedy) from None
    if kept.init is not None:
        kept.init = {name: value.cpu() for name, value in kept.init.items()}
        shapes = {name: value.shape for name, value in kept.init.items()}
        if shapes != {name: value.shape for name, value in now.items()}:
            raise InputError("The recording that is resumed is of another net.", remedy)
        if state_digest(kept.init) != kept.init_digest:
            raise InputError("The initial weights that are resumed were changed.", remedy)
    return kept


def _same(
    kept: _Kept, recipe: Recipe | None, no_recipe: str | None
) -> tuple[Recipe | None, str | None]:
    """The recipe of a run that goes on, if it goes on as it began."""
    if kept.recipe is None or recipe is None:
        return None, kept.no_recipe or no_recipe
    if kept.recipe != recipe:
        return None, "Training goes on with other settings than it began with."
    return recipe, None


def _inner(model: nn.Module) -> nn.Module:
    """The net in what torch.compile or data parallelism put around it: the same parameters."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def _out_of_range(error: ValidationError) -> InputError:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return InputError(
        f"record() can't keep {place}: {first['msg'][:1].lower()}{first['msg'][1:]}.",
        "Correct that argument.",
    )


def _read_recipe(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    batch_size: int | None,
    stop: Stop | None,
    loss: Loss | None,
    clip_norm: float | None,
    schedule: PerStep | None,
    seed: int,
    data_seed: int,
    begun: bool,
) -> Recipe | str:
    """The recipe that an optimizer tells, or the reason why there is none."""
    absent = [
        name
        for name, value in {
            "optimizer": optimizer,
            "batch_size": batch_size,
            "stop": stop,
            "loss": loss,
        }.items()
        if value is None
    ]
    if absent:
        return f"Not given: {', '.join(absent)}."
    assert optimizer is not None
    known = _KNOWN.get(type(optimizer))
    if known is None:
        names = ", ".join(one.__name__ for one in _KNOWN)
        return f"The optimizer is a {type(optimizer).__name__}; {names} are known."
    if not begun and (
        any(optimizer.state.values()) or any(p.grad is not None for p in model.parameters())
    ):
        return (
            "The optimizer, or the net, has made steps already: call record() before the first one."
        )
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if trained != {id(p) for p in model.parameters()} or not all(
        p.requires_grad for p in model.parameters()
    ):
        return (
            "The optimizer trains others than just the parameters of this net; or some are frozen."
        )
    kind, names_here, fixed = known
    settings: list[dict[str, Any]] = [
        {key: value for key, value in group.items() if key in {*names_here, *fixed, "betas"}}
        for group in optimizer.param_groups
    ]
    if schedule is not None:
        for own, group in zip(settings, optimizer.param_groups, strict=True):
            own["lr"] = group.get("initial_lr", group["lr"])
    elif any(
        group["lr"] != group.get("initial_lr", group["lr"]) for group in optimizer.param_groups
    ):
        return "A scheduler changes the rate: give schedule=, or recipe= with its schedule."
    if any(one != settings[0] for one in settings):
        return (
            "The optimizer has groups of parameters with settings of their own, such as a decay that "
            "leaves out biases: a recipe knows one setting for all."
        )
    first = settings[0]
    if odd := [key for key, value in fixed.items() if first.get(key, value) != value]:
        return f"The optimizer has {odd[0]} = {first[odd[0]]!r}, which recipes don't know."
    fields: dict[str, Any]
    fields = {here: float(first[there]) if there != "nesterov" else bool(first[there])
              for there, here in names_here.items()}  # fmt: skip
    if "betas" in first:
        fields["beta1"], fields["beta2"] = map(float, first["betas"])
    fields |= {"clip_norm": clip_norm, "schedule": schedule}
    try:
        return Recipe(
            loss=loss, optimizer=kind.model_validate(fields), batch_size=batch_size, stop=stop,
            seed=seed, data_seed=data_seed,
        )  # fmt: skip
    except ValidationError as error:
        first_error = error.errors()[0]
        place = ".".join(str(part) for part in first_error["loc"])
        return f"The recipe can't say {place}: {first_error['msg']}."
