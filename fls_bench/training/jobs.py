"""What one job does, wherever it runs: train a batch of replicas, or its halves where memory is short.

A run's last bits may depend on which others are in its batch: the batches are cut by the runs that are
asked for and by ``--jobs`` alone, never by where or by how many at a time they are trained.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from fls_bench.errors import FlsBenchError, RunFailedError
from fls_bench.schema import LrRule, Outcome, RunConfig, RunRecord
from fls_bench.tasks import Task
from fls_bench.training.checks import exact_arithmetic, one_thread
from fls_bench.training.engines import Engine
from fls_bench.training.recording import record
from fls_bench.training.replicas import train_batch
from fls_bench.training.runs import TrainedRun, make_net
from fls_bench.training.single import train_single
from fls_bench.training_setup import TrainingSetup, in_one_line

MIN_REPLICAS_PER_BATCH = 3
"""Below this, what a step costs beside its products is no longer shared."""

Observer = Callable[[TrainingSetup, Task, TrainedRun], Mapping[str, float]]
"""What is measured on a run that reached its stop, in place of the usual cheap measurements."""

Batch = Sequence[RunConfig]


@dataclass(frozen=True)
class Work:
    """What all jobs of one call share; it travels to other processes as a whole.

    Attributes:
        setup: The setup.
        rule: Its learning-rate rule.
        engine: How it is trained.
        dtype: Floating type of the training.
        observe: Measures the nets, or None.
    """

    setup: TrainingSetup
    rule: LrRule
    engine: Engine
    dtype: torch.dtype = torch.float32
    observe: Observer | None = None

    def train(
        self,
        batch: Batch,
        finish: Callable[[RunRecord], None],
        too_large: Callable[[RunConfig], None],
        *,
        tasks: Mapping[int, Task] | None = None,
        cancelled: threading.Event | None = None,
    ) -> None:
        """Train one batch; where memory does not hold it, the halves of what is left of it.

        Args:
            batch: Runs that are trained together; with the engine ``single``, one by one.
            finish: Called with each record as its run ends.
            too_large: Called with a run that memory does not hold even alone.
            tasks: The data by seed, where they are there already.
            cancelled: Set when the rest is not wanted any more.

        Raises:
            FlsBenchError: The setup can't be trained.
        """
        if not self.engine.batched:
            for config in batch:
                try:
                    finish(self._single(config))
                except Exception as error:
                    if not out_of_memory(error):
                        raise
                    too_large(config)
            return
        open_ = {config.digest: config for config in batch}

        def ended(finished: RunRecord) -> None:
            finish(finished)
            del open_[finished.config.digest]

        try:
            self._together(batch, ended, tasks, cancelled)
        except Exception as error:
            if not out_of_memory(error):
                raise
        else:
            return
        # Outside of the handler: the error's frames hold the batch that did not fit.
        if self.engine.device == "cuda":
            torch.cuda.empty_cache()
        if len(batch) == 1:
            too_large(batch[0])
            return
        for half in halves(list(open_.values())):  # some may have ended before the memory did
            self.train(half, finish, too_large, tasks=tasks, cancelled=cancelled)

    def _together(
        self,
        batch: Batch,
        finish: Callable[[RunRecord], None],
        tasks: Mapping[int, Task] | None,
        cancelled: threading.Event | None,
    ) -> None:
        setup, engine = self.setup, self.engine
        if tasks is None:
            tasks = {seed: setup.task_for(seed) for seed in sorted({k.seed for k in batch})}
        measured = make_net(setup, batch[0].seed, 1.0, self.dtype)

        def ended(run: TrainedRun) -> None:
            task = tasks[run.config.seed]
            finished = record(setup, task, run, measured.to(engine.device), self.dtype)
            finish(self._observed(task, run, finished))

        train_batch(
            setup, tasks, batch, engine.make(setup, self.rule, batch, self.dtype), ended,
            dtype=self.dtype, device=engine.device, cancelled=cancelled,
        )  # fmt: skip

    def _single(self, config: RunConfig) -> RunRecord:
        """Train and measure one net; an error in the user's code becomes a failed run."""
        setup, device = self.setup, self.engine.device
        try:
            run, finished = train_one(setup, self.rule, config, dtype=self.dtype, device=device)
            return self._observed(setup.task_for(config.seed), run, finished)
        except FlsBenchError:
            raise
        except Exception as error:
            if out_of_memory(error):
                raise
            message = in_one_line(error)
            return RunRecord(
                config=config, outcome=Outcome.FAILED, epochs=0, steps=0, message=message
            )

    def _observed(self, task: Task, run: TrainedRun, finished: RunRecord) -> RunRecord:
        if self.observe is None or finished.outcome is not Outcome.REACHED_TARGET:
            return finished
        values = dict(self.observe(self.setup, task, run))
        return finished.model_copy(update={"measurements": values})


def train_one(
    setup: TrainingSetup,
    rule: LrRule,
    config: RunConfig,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> tuple[TrainedRun, RunRecord]:
    """Train one net by the plain loop and measure it.

    Args:
        setup: The setup.
        rule: Its learning-rate rule.
        config: The run.
        dtype: Floating type of the training.
        device: Where to train.

    Returns:
        (the run with its weights, its record).
    """
    task = setup.task_for(config.seed)
    with one_thread(), exact_arithmetic(device):
        run = train_single(setup, rule, task, config, dtype=dtype, device=device)
        net = make_net(setup, config.seed, config.c, dtype).to(device)
        return run, record(setup, task, run, net, dtype)


def batches_of(configs: Sequence[RunConfig], jobs: int, engine: Engine) -> list[Batch]:
    """Cut runs into batches of about one size, as many for each job; longest first.

    Args:
        configs: The runs, in any order.
        jobs: Batches at a time; a GPU takes one.
        engine: How they are trained: one by one, or so many at most together.

    Returns:
        The batches, each run in one of them.
    """
    if not engine.batched:
        return [[config] for config in configs]
    # Small c takes the most epochs. Ties keep equal c together, which end together.
    ordered = sorted(configs, key=lambda k: (-k.max_epochs, k.c * k.init_scale, k.lr, k.seed))
    most = engine.replicas
    num = jobs * -(-len(ordered) // (jobs * most))
    num = max(1, min(num, len(ordered) // min(MIN_REPLICAS_PER_BATCH, most)))
    bounds = [round(i * len(ordered) / num) for i in range(num + 1)]
    return [ordered[start:end] for start, end in pairwise(bounds)]


def halves(batch: Batch) -> list[Batch]:
    """The two halves of a batch, the empty one left out."""
    return [half for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]) if half]


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's, torch's on a GPU, torch's on the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("can't allocate memory", "not enough memory", "Cannot allocate memory")
    return isinstance(error, RuntimeError | OSError) and any(k in str(error) for k in words)


def one_net_too_large(device: str) -> RunFailedError:
    """What is said where memory does not hold one net."""
    where = "The GPU's memory" if device == "cuda" else "Memory"
    instead = "--device cpu" if device == "cuda" else "a machine with more of it"
    return RunFailedError(
        f"{where} does not hold one net of this setup with its data.",
        f"Choose a smaller batch_size or model, or {instead}; finished runs are kept.",
    )
