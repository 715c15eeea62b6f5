"""A Lightning callback that records a run for ``fls-bench diagnose``, and can watch it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fls_bench.errors import InputError
from fls_bench.integrations.loop import Loop, Told
from fls_bench.schema import ValidationLoss

try:
    import lightning.pytorch as pl
except ImportError:
    raise InputError(
        "Lightning is not installed.", "Install it with: pip install 'fls-bench[lightning]'"
    ) from None

WHOLE = ("SingleDeviceStrategy", "DDPStrategy")
"""Strategies under which every process has the whole net."""

STEPS = ("optimizer_step", "optimizer_zero_grad", "configure_gradient_clipping", "backward")
"""Methods of a module by which it may train otherwise than its optimizer says."""

CHANGING = (
    "GradientAccumulationScheduler", "StochasticWeightAveraging", "WeightAveraging",
    "EMAWeightAveraging",
)  # fmt: skip
"""Callbacks that change the batch or the weights."""

LOSS_EVERY = 50
"""Batches after which their mean loss is asked for, which waits for a GPU."""


class FlsBenchCallback(pl.Callback):
    """Record a run: ``Trainer(callbacks=[FlsBenchCallback("model.pt", task=task)])``.

    Optimizer, batch size, clipping and accumulation are read off the trainer; the stop is the number of
    steps made, unless ``stop`` is given. Process 0 records; sharded strategies and weights in half
    precision are refused with a reason: training itself is never stopped for it. Checkpoints keep the
    initial weights, so that a run that goes on from one is recorded whole.

    Args:
        path: The model file to write.
        module: Name of the net within the LightningModule, such as ``net``; None: the whole module,
            whose ``forward`` then gives logits.
        options: As ``fls_bench.integrations.loop.Loop``.

    Attributes:
        loop: The recording and its looks.
    """

    def __init__(self, path: str, *, module: str | None = None, **options: Any) -> None:
        self.loop = Loop(path, **options)
        self._module = module
        self._sum: torch.Tensor | None = None
        self._num = 0
        self._resumed: dict[str, Any] = {}

    @property
    def state_key(self) -> str:
        """Under which checkpoints keep it: two callbacks may record two parts of a module."""
        return self._generate_state_key(module=self._module)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: the recording so far."""
        return self.loop.kept()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint: the recording that goes on."""
        self._resumed = state_dict

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the initial weights."""
        if not trainer.is_global_zero:
            return
        kind = type(trainer.strategy).__name__
        if kind not in WHOLE:
            self.loop.refuse(
                f"The strategy {kind} may share the weights out; {' and '.join(WHOLE)} do not."
            )
        elif trainer.global_step and not self._resumed:
            self.loop.refuse(
                f"Training goes on from step {trainer.global_step} of a run that was not recorded."
            )
        else:
            told = _told(trainer, pl_module, self.loop)
            resume = self._resumed if trainer.global_step else None
            self._log(trainer, self.loop.begin(self._net(pl_module), told, resume))

    def _net(self, pl_module: pl.LightningModule) -> nn.Module:
        if self._module is None:
            return pl_module
        try:
            return pl_module.get_submodule(self._module)
        except AttributeError:
            names = ", ".join(name for name, _ in pl_module.named_children()) or "none"
            raise InputError(
                f"The LightningModule has no module {self._module!r}.", f"Its modules are: {names}."
            ) from None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """See what the net answers, where that is to be compared."""
        self.loop.before_batch(trainer.fit_loop.total_batch_idx)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Compare and watch the loss, and look at the net where it has fallen far enough."""
        if self.loop.watch is None and not self.loop.compares:
            return
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if not isinstance(loss, torch.Tensor):
            return
        # As Lightning hands it on, it is a share of the step's.
        loss = trainer.accumulate_grad_batches * loss.detach().float()
        self.loop.after_batch(batch, loss)
        if self.loop.watch is None:
            return
        self._sum = loss if self._sum is None else self._sum + loss
        self._num += 1
        if self._num >= LOSS_EVERY:
            self._look(trainer)

    def _look(self, trainer: pl.Trainer) -> None:
        if self._sum is not None:
            look = self.loop.look(self._sum / self._num)
            self._sum, self._num = None, 0
            self._log(trainer, look)

    def _log(self, trainer: pl.Trainer, look: Any) -> None:
        if look is not None:
            numbers = {f"fls_bench/{name}": value for name, value in look.numbers.items()}
            for logger in trainer.loggers:
                logger.log_metrics(numbers, step=trainer.global_step)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count the epoch."""
        self._look(trainer)
        self.loop.epochs(trainer.current_epoch + bool(trainer.is_last_batch))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file."""
        if isinstance(self.loop.stop, ValidationLoss):
            self.loop.tell(
                "fls-bench keeps the last weights, and a ValidationLoss stop is of the best epoch's: "
                "load those before training ends where the two differ much."
            )
        self.loop.end(early=trainer.should_stop)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Write nothing."""
        self.loop.fail()


def _told(trainer: pl.Trainer, module: pl.LightningModule, loop: Loop) -> Told:
    loader: Any = trainer.train_dataloader
    size = getattr(loader, "batch_size", None)
    per_step = trainer.accumulate_grad_batches * trainer.world_size
    clip = trainer.gradient_clip_val
    try:
        n_train = len(loader.dataset)
    except (AttributeError, TypeError):  # several loaders, or a stream
        n_train = None
    return Told(
        list(trainer.optimizers), size * per_step if isinstance(size, int) else None,
        float(clip) if clip else None, _problem(trainer, module, loop), n_train=n_train,
    )  # fmt: skip


def _problem(trainer: Any, module: pl.LightningModule, loop: Loop) -> str | None:
    """Why a trainer's settings are no recipe, or None."""
    if trainer.lr_scheduler_configs and loop.schedule is None:
        return (
            "A scheduler changes the rate: give schedule=fls_bench.PerStep(...) if it does so with "
            "every step, or recipe= with fls_bench.Cosine or StepDecay if with every epoch."
        )
    if trainer.early_stopping_callbacks and loop.stop is None:
        return (
            "Training stops early: give stop=, such as fls_bench.ValidationLoss(patience), whose net is "
            "that of the best epoch and not of the last."
        )
    if trainer.gradient_clip_val and trainer.gradient_clip_algorithm not in (None, "norm"):
        return "Gradients are clipped by value, which recipes don't know."
    if not module.automatic_optimization:
        return "The module optimizes by hand: give recipe= with what it does."
    own = [name for name in STEPS if _is_own(module, name)]
    if own:
        return f"The module has its own {own[0]}: give recipe= with what it does."
    changing = [one for one in trainer.callbacks if type(one).__name__ in CHANGING]
    if changing:
        return f"{type(changing[0]).__name__} changes how the net is trained."
    if trainer.overfit_batches or trainer.limit_train_batches not in (1.0, None):
        return "An epoch is a part of the data (overfit_batches or limit_train_batches)."
    sampler = type(getattr(trainer.train_dataloader, "sampler", None)).__name__
    if "Weighted" in sampler or "Subset" in sampler:
        return f"The {sampler} does not draw each point once in an epoch."
    return None


def _is_own(module: pl.LightningModule, name: str) -> bool:
    return getattr(type(module), name) is not getattr(pl.LightningModule, name)
