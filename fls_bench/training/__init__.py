"""Training: many replicas as one batch where that is faster, else one by one; see ``jobs`` for where.

Stop the first time the training loss (or accuracy) reaches its target, or as another stop says; every
run ends in an ``Outcome`` and is handed over as a record at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from fls_bench.schema import LrRule, RunConfig, RunRecord, ValidationLoss
from fls_bench.training.backends import LOCAL, Backend, find_backend
from fls_bench.training.checks import (
    check_setup,
    exact_arithmetic,
    is_normalised,
    one_thread,
    resolve_error,
    resolve_lr_rule,
    resolve_stop,
    user_code,
)
from fls_bench.training.digest import setup_digest
from fls_bench.training.engines import (
    Engine,
    choose_device,
    choose_engine,
    read_engine,
    shortened,
    trial_config,
)
from fls_bench.training.jobs import Observer, Work, batches_of, out_of_memory, train_one
from fls_bench.training.pools import in_threads, in_workers
from fls_bench.training.ranks import penalised, rank_name
from fls_bench.training.replicas import train_batch
from fls_bench.training.runs import TrainedRun, epochs_trained, make_net
from fls_bench.training.single import train_single
from fls_bench.training_setup import TrainingSetup

__all__ = [
    "LOCAL",
    "Backend",
    "Engine",
    "Observer",
    "TrainedRun",
    "batches_of",
    "check_setup",
    "choose_device",
    "choose_engine",
    "epochs_trained",
    "find_backend",
    "is_normalised",
    "make_net",
    "penalised",
    "rank_name",
    "read_engine",
    "resolve_error",
    "resolve_lr_rule",
    "resolve_stop",
    "setup_digest",
    "time_training",
    "train_all",
    "train_one",
    "user_code",
]

TIMED_SEEDS = 4

TRAINING_FAILED = "Training the model failed"


def time_training(
    setup: TrainingSetup, rule: LrRule, engine: Engine, num_batches: int, epochs: int
) -> tuple[float, float]:
    """Train at the setup's own c, one job at a time, and time the training alone.

    Args:
        setup: The setup.
        rule: Its learning-rate rule.
        engine: How.
        num_batches: Minibatches of an epoch of the trial, at most those that there are.
        epochs: How many such epochs.

    Returns:
        (epochs of the setup's whole training part, of all replicas together; seconds).
    """
    short = shortened(setup, num_batches, epochs)
    if isinstance(setup.stop, ValidationLoss):  # looked at after every epoch, which takes its time
        short = replace(short, stop=ValidationLoss(epochs, max_epochs=epochs))
    task = short.task_for(0)
    share = task.n_train / setup.task_for(0).n_train

    def trained(run: TrainedRun) -> int:
        return epochs_trained(short.stop, run.outcome, run.epochs, epochs)

    with one_thread(), exact_arithmetic(engine.device):
        if not engine.batched:
            with user_code(TRAINING_FAILED, "Correct the model, or what it is trained on."):
                start = time.perf_counter()
                run = train_single(
                    short, rule, task, trial_config(short, 0, epochs), device=engine.device
                )
                return share * trained(run), time.perf_counter() - start
        while True:
            # A few seeds: a batch's replicas share data as those of a sweep do.
            configs = [
                trial_config(short, row % TIMED_SEEDS, epochs) for row in range(engine.replicas)
            ]
            tasks = {config.seed: short.task_for(config.seed) for config in configs}
            runs: list[TrainedRun] = []
            start = time.perf_counter()
            try:
                nets = engine.make(short, rule, configs)
                train_batch(short, tasks, configs, nets, runs.append, device=engine.device)
            except Exception as error:
                if engine.replicas == 1 or not out_of_memory(error):
                    raise
            else:
                return share * sum(map(trained, runs)), time.perf_counter() - start
            engine = replace(engine, replicas=engine.replicas // 2)  # as the sweep itself will do


def train_all(
    setup: TrainingSetup,
    rule: LrRule,
    configs: Sequence[RunConfig],
    on_record: Callable[[RunRecord], None],
    *,
    engine: Engine,
    jobs: int,
    dtype: torch.dtype = torch.float32,
    observe: Observer | None = None,
    backend: Backend = LOCAL,
    batches: Sequence[Sequence[RunConfig]] | None = None,
) -> None:
    """Train all runs and hand over each record as its run (on other processes: its batch) ends.

    Args:
        setup: The setup.
        rule: Its learning-rate rule.
        configs: The runs, in any number and order.
        on_record: Called once per run, from any thread but never from two at once.
        engine: How, from ``choose_engine``.
        jobs: How many batches (or processes) at a time; a GPU of this machine takes one.
        dtype: Floating type of the training.
        observe: Measures the nets, which are kept nowhere; may be called from several threads.
        backend: Where.
        batches: Which runs are trained together, from ``batches_of``; they may hold runs that are not
            asked for, which are trained and dropped: without them others would round otherwise.

    Raises:
        InputError: The setup can't be sent to other processes.
        RunFailedError: Memory does not hold one net, a process dies of one, or a cluster is gone.
    """
    if not configs:
        return
    jobs = 1 if engine.device == "cuda" and backend.kind != "dask" else jobs
    if batches is None:
        batches = batches_of(configs, jobs, engine)
    work = Work(setup, rule, engine, dtype, observe)
    wanted = {config.digest for config in configs}

    def keep(record: RunRecord) -> None:
        if record.config.digest in wanted:
            wanted.discard(record.config.digest)
            on_record(record)

    here = engine.batched or jobs == 1 or len(configs) == 1
    if backend.kind == "auto" and here:
        in_threads(work, batches, keep, jobs)
    else:
        in_workers(work, batches, keep, jobs, backend)
