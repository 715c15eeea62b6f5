"""A callback for the Trainer of Hugging Face's transformers that records a run, and can watch it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fls_bench.errors import InputError
from fls_bench.integrations.loop import Loop, Told
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

    Optimizer, batch size, clipping and accumulation are read off the training arguments; the stop is the
    number of steps made, unless ``stop`` is given. Schedules but ``constant`` need ``recipe``. Process 0
    records; FSDP, DeepSpeed and weights in half precision are refused with a reason: training itself is
    never stopped for it. Checkpoints get a file ``fls_bench.pt``, so that a run that goes on from one is
    recorded whole.

    Args:
        path: The model file to write.
        options: As ``fls_bench.integrations.loop.Loop``. A task's inputs are numbers of tokens.

    Attributes:
        loop: The recording and its looks.
    """

    def __init__(self, path: str, **options: Any) -> None:
        self.loop = Loop(path, **options)
        self._trainer: Trainer | None = None

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
                kept = _checkpoint(args, state) / KEPT
                resume = _load(kept)
                if resume is None:
                    self.loop.refuse(
                        f"Training goes on from step {state.global_step}, and {kept}, which would hold "
                        "the recording so far, can't be read."
                    )
                    return
            told = _told(args, kwargs["optimizer"], self.loop.stop is not None)
            self._log(self.loop.begin(Logits(kwargs["model"]), told, resume))

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
        """Watch the loss, and look at the net where it has fallen far enough."""
        loss = (logs or {}).get("loss")
        if loss is not None:
            self._log(self.loop.look(float(loss)))

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
        self.loop.end(early=state.global_step < state.max_steps)


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"


def _load(path: Path) -> dict[str, Any] | None:
    try:
        found = torch.load(path, weights_only=True)
    except Exception:  # absent, torn or foreign; torch raises many kinds
        return None
    return found if isinstance(found, dict) else None


def _told(args: TrainingArguments, optimizer: Any, stop_given: bool) -> Told:
    schedule = str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
    problem = None
    if schedule != "constant":
        problem = (
            f"The schedule {schedule} changes the rate: set lr_scheduler_type='constant', or give "
            "recipe= with its schedule."
        )
    elif args.label_smoothing_factor:
        problem = "Labels are smoothed: give recipe= with label_smoothing."
    elif args.load_best_model_at_end and not stop_given:
        problem = (
            "The best checkpoint is loaded at the end: give stop=, such as "
            "fls_bench.ValidationLoss(patience)."
        )
    inner = getattr(optimizer, "optimizer", optimizer)  # what accelerate puts around it
    clip = args.max_grad_norm
    return Told(
        [inner], args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        float(clip) if clip and math.isfinite(clip) else None, problem, schedule == "constant",
    )  # fmt: skip
