"""A callback for the Trainer of Hugging Face's transformers that records a run, and can watch it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from fls_bench.errors import InputError
from fls_bench.integrations.agreement import near
from fls_bench.integrations.loop import Loop, Told
from fls_bench.schema import PerStep
from fls_bench.training_setup import in_one_line

try:
    from transformers import (
        Trainer,
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )
except ImportError:
    raise InputError(
        "transformers is not installed.", "Install it with: pip install 'fls-bench[transformers]'"
    ) from None


LOSS_EVERY = 50
"""Steps after which their mean loss is asked for, which waits for a GPU."""

KEPT = "fls_bench.pt"
"""Its file in each of the Trainer's checkpoints."""


class Logits(nn.Module):
    """A model of transformers as a net from token numbers ``[n, length]`` to logits ``[n, K]``.

    Model files keep numbers; this turns them back into tokens. Use it to build the net for
    ``fls-bench diagnose --model``, and to be watched.

    Args:
        model: Such as ``AutoModelForSequenceClassification``.
        pad: The number of the padding token, which is not attended to; None: from its configuration.
    """

    def __init__(self, model: nn.Module, pad: int | None = None) -> None:
        super().__init__()
        self.model = model
        self.pad = getattr(model.config, "pad_token_id", None) if pad is None else pad

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of sequences of tokens."""
        tokens = tokens.long()
        mask = torch.ones_like(tokens) if self.pad is None else (tokens != self.pad).long()
        logits: torch.Tensor = self.model(input_ids=tokens, attention_mask=mask).logits
        return logits


class FlsBenchCallback(TrainerCallback):
    """Record a run: ``FlsBenchCallback("model.pt", task=task).attach(trainer)``.

    Optimizer, batch size, clipping, accumulation and schedule (constant, linear, cosine, with or
    without warm-up) are read off the training arguments; the stop is the number of steps made, unless
    ``stop`` is given. Process 0 records; FSDP, DeepSpeed and weights in half precision are refused with
    a reason: training itself is never stopped for it. Checkpoints get a file ``fls_bench.pt``, so that a
    run that goes on from one is recorded whole.

    Args:
        path: The model file to write.
        resume_from: The folder of the checkpoint that training goes on from, where it lies in another
            ``output_dir``.
        options: As ``fls_bench.integrations.loop.Loop``. A task's inputs are numbers of tokens.

    Attributes:
        loop: The recording and its looks.
    """

    def __init__(self, path: str, *, resume_from: str | None = None, **options: Any) -> None:
        self.loop = Loop(path, **options)
        self._resume_from = resume_from
        self._trainer: Trainer | None = None
        self._losses: _Losses | None = None
        self._doubted = False

    def attach(self, trainer: Trainer) -> FlsBenchCallback:
        """Add the callback to a trainer, through whose loggers its numbers go.

        Args:
            trainer: The trainer.

        Returns:
            Itself.
        """
        self._trainer = trainer
        trainer.add_callback(self)
        return self

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Keep the initial weights."""
        if not state.is_world_process_zero:
            return
        if args.fsdp or args.deepspeed:
            self.loop.refuse("FSDP or DeepSpeed shares the weights out.")
        else:
            resume = None
            if state.global_step:
                named = self._resume_from or args.resume_from_checkpoint
                folder = Path(named) if isinstance(named, str) else _checkpoint(args, state)
                resume = _load(folder / KEPT)
                if resume is None:
                    self.loop.refuse(
                        f"Training goes on from step {state.global_step}, and {folder / KEPT}, which "
                        "would hold the recording so far, can't be read. If the checkpoint lies "
                        "elsewhere, give resume_from= its folder."
                    )
                    return
            told = self._told(args, state, kwargs)
            if self._losses is not None:
                self._losses.close()
            self._losses, self._doubted = _Losses(kwargs["model"]), False
            self._log(self.loop.begin(Logits(kwargs["model"]), told, resume))

    def _told(self, args: TrainingArguments, state: TrainerState, given: dict[str, Any]) -> Told:
        around = given["optimizer"]  # accelerate's own
        inner = getattr(around, "optimizer", around)
        clip = args.max_grad_norm
        try:
            n_train = len(given["train_dataloader"].dataset)
        except (KeyError, AttributeError, TypeError):  # a stream
            n_train = None
        return Told(
            [inner], args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
            float(clip) if clip and math.isfinite(clip) else None,
            _problem(args, self._trainer, self.loop.stop is not None),
            constant_rate=_kind(args) == "constant", schedule=_schedule(args, state),
            n_train=n_train, called=given["model"],
        )  # fmt: skip

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """See what the net answers, where that is to be compared."""
        self.loop.before_batch(state.global_step)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Compare and watch the loss that the net returned."""
        self.loop.after_batch()
        if self._losses is None:
            return
        self._losses.step()
        if state.global_step % LOSS_EVERY == 0:
            self._look()

    def _look(self) -> None:
        if self._losses is not None and self.loop.watch is not None:
            loss = self._losses.mean("looked")
            self._log(None if loss is None else self.loop.look(loss))

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Keep the recording beside the checkpoint that was just written."""
        folder = _checkpoint(args, state)
        if (kept := self.loop.kept()) and folder.is_dir():
            try:
                torch.save(kept, folder / KEPT)
            except (OSError, RuntimeError) as error:  # training goes on
                self.loop.tell(f"fls-bench could not keep its recording: {in_one_line(error)}.")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Compare the loss that the Trainer reports with those that the net returned."""
        reported, losses = (logs or {}).get("loss"), self._losses
        if reported is None or losses is None:
            return
        self._look()
        mean = losses.mean("logged")
        if mean is None:  # the net returns none, as where the Trainer smooths labels
            self._log(self.loop.look(float(reported)))
        elif args.world_size == 1 and not self._doubted and not near(float(mean), float(reported)):
            self._doubted = True
            self.loop.doubt(
                f"The Trainer reports a loss of {float(reported):.4g} where the model's own is "
                f"{float(mean):.4g}: it computes another one, or adds up accumulated ones."
            )

    def _log(self, look: Any) -> None:
        if look is not None and self._trainer is not None:
            self._trainer.log({f"fls_bench/{name}": v for name, v in look.numbers.items()})

    def on_epoch_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Count the epoch."""
        self.loop.epochs(int((state.epoch or 0) + 1e-6))

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Write the file."""
        if self._losses is not None:
            self._losses.close()
        self.loop.end(early=state.global_step < state.max_steps)


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"


def _load(path: Path) -> dict[str, Any] | None:
    try:
        found = torch.load(path, weights_only=True)
    except Exception:  # absent, torn or foreign; torch raises many kinds
        return None
    return found if isinstance(found, dict) else None


class _Losses:
    """Sums of the losses that a model returns in training, which nothing waits for."""

    def __init__(self, model: nn.Module) -> None:
        self._micro: list[torch.Tensor] = []
        self._windows: dict[str, tuple[torch.Tensor | float, int]] = {}
        self._handle = model.register_forward_hook(self._keep)

    def close(self) -> None:
        """Remove the hook."""
        self._handle.remove()

    def _keep(self, module: nn.Module, inputs: Any, output: Any) -> None:
        loss = getattr(output, "loss", None)
        if isinstance(loss, torch.Tensor) and torch.is_grad_enabled():
            self._micro.append(loss.detach().float())

    def step(self) -> None:
        """After an optimizer step: its loss is the mean of its batches."""
        if self._micro:
            loss = torch.stack(self._micro).mean()
            for window in ("looked", "logged"):
                total, num = self._windows.get(window, (0.0, 0))
                self._windows[window] = total + loss, num + 1
        self._micro = []

    def mean(self, window: str) -> torch.Tensor | None:
        """Mean over the steps since this was last asked; None: the model returns no loss."""
        total, num = self._windows.pop(window, (0.0, 0))
        return total / num if isinstance(total, torch.Tensor) else None


DECAYS: dict[str, Literal["constant", "linear", "cosine"]] = {
    "linear": "linear", "cosine": "cosine", "constant_with_warmup": "constant",
}  # fmt: skip
"""The Trainer's schedules that recipes know, beside ``constant``."""


def _kind(args: TrainingArguments) -> str:
    return str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))


def _schedule(args: TrainingArguments, state: TrainerState) -> PerStep | None:
    decay = DECAYS.get(_kind(args))
    if decay is None:
        return None
    steps = None if decay == "constant" else state.max_steps
    return PerStep(decay=decay, warmup_steps=args.get_warmup_steps(state.max_steps), steps=steps)


def _problem(args: TrainingArguments, trainer: Trainer | None, stop_given: bool) -> str | None:
    """Why training arguments are no recipe, or None."""
    if (kind := _kind(args)) not in ("constant", *DECAYS) or args.lr_scheduler_kwargs:
        return (
            f"The schedule {kind} is unknown, or has arguments of its own: {', '.join(DECAYS)} and "
            "constant are known."
        )
    if args.label_smoothing_factor:
        return "Labels are smoothed: give recipe= with label_smoothing."
    if args.load_best_model_at_end and not stop_given:
        return (
            "The best checkpoint is loaded at the end: give stop=, such as "
            "fls_bench.ValidationLoss(patience)."
        )
    if getattr(args, "neftune_noise_alpha", None):
        return "Embeddings get noise (neftune_noise_alpha), which recipes don't know."
    own = trainer is not None and type(trainer).compute_loss is not Trainer.compute_loss
    if own or getattr(trainer, "compute_loss_func", None) is not None:
        return "The Trainer computes a loss of its own, which recipes don't know."
    return None
