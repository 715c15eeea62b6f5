"""Training: many replicas as one batch where that is faster, else one by one in processes.

Stop the first time the training loss (or accuracy) reaches its target, or as another stop says; every
run ends in an ``Outcome`` and is handed over as a record at once.
"""

from __future__ import annotations

import pickle
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import pairwise

import torch

from fls_bench.errors import FlsBenchError, InputError, RunFailedError
from fls_bench.schema import LrRule, Outcome, RunConfig, RunRecord, ValidationLoss
from fls_bench.tasks import Task
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
from fls_bench.training.ranks import penalised, rank_name
from fls_bench.training.recording import record
from fls_bench.training.replicas import train_batch
from fls_bench.training.runs import TrainedRun, epochs_trained, make_net
from fls_bench.training.single import train_single
from fls_bench.training_setup import TrainingSetup, in_one_line

__all__ = [
    "Engine",
    "Observer",
    "TrainedRun",
    "check_setup",
    "choose_device",
    "choose_engine",
    "epochs_trained",
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

MIN_REPLICAS_PER_BATCH = 3
"""Below this, what a step costs beside its products is no longer shared."""

TIMED_SEEDS = 4

TRAINING_FAILED = "Training the model failed"

Observer = Callable[[TrainingSetup, Task, TrainedRun], Mapping[str, float]]
"""What is measured on a run that reached its stop, in place of the usual cheap measurements."""


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
        # A few seeds: a batch's replicas share data as those of a sweep do.
        configs = [trial_config(short, row % TIMED_SEEDS, epochs) for row in range(engine.replicas)]
        tasks = {config.seed: short.task_for(config.seed) for config in configs}
        runs: list[TrainedRun] = []
        start = time.perf_counter()
        nets = engine.make(short, rule, configs)
        train_batch(short, tasks, configs, nets, runs.append, device=engine.device)
        return share * sum(map(trained, runs)), time.perf_counter() - start


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
) -> None:
    """Train all runs and hand over each record as its run ends.

    Args:
        setup: The setup.
        rule: Its learning-rate rule.
        configs: The runs, in any number and order.
        on_record: Called once per run, from any thread but never from two at once.
        engine: How, from ``choose_engine``.
        jobs: How many batches (or processes) at a time; a GPU takes one.
        dtype: Floating type of the training.
        observe: Measures the nets, which are kept nowhere; may be called from several threads.

    Raises:
        InputError: The setup can't be sent to other processes.
        RunFailedError: A worker process died, or the GPU's memory does not hold one net.
    """
    if not configs:
        return
    jobs = 1 if engine.device == "cuda" else jobs
    if engine.batched:
        _train_batches(setup, rule, configs, on_record, engine, jobs, dtype, observe)
    elif jobs == 1 or len(configs) == 1:
        for config in configs:
            on_record(_run_single(setup, rule, config, dtype, engine.device, observe))
    else:
        _train_in_processes(setup, rule, configs, on_record, jobs, dtype, observe)


def _run_single(
    setup: TrainingSetup,
    rule: LrRule,
    config: RunConfig,
    dtype: torch.dtype,
    device: str = "cpu",
    observe: Observer | None = None,
) -> RunRecord:
    """Train and measure one net; an error in the user's code becomes a failed run."""
    try:
        run, finished = train_one(setup, rule, config, dtype=dtype, device=device)
        return _observed(setup, setup.task_for(config.seed), run, finished, observe)
    except FlsBenchError:
        raise
    except torch.OutOfMemoryError as error:
        raise _too_large() from error
    except Exception as error:
        message = in_one_line(error)
        return RunRecord(config=config, outcome=Outcome.FAILED, epochs=0, steps=0, message=message)


def _observed(
    setup: TrainingSetup,
    task: Task,
    run: TrainedRun,
    finished: RunRecord,
    observe: Observer | None,
) -> RunRecord:
    if observe is None or finished.outcome is not Outcome.REACHED_TARGET:
        return finished
    return finished.model_copy(update={"measurements": dict(observe(setup, task, run))})


def _too_large() -> RunFailedError:
    return RunFailedError(
        "The GPU's memory does not hold one net of this setup with its data.",
        "Choose a smaller batch_size or model, or --device cpu.",
    )


# --- batches --------------------------------------------------------------------------------


def _train_batches(
    setup: TrainingSetup,
    rule: LrRule,
    configs: Sequence[RunConfig],
    on_record: Callable[[RunRecord], None],
    engine: Engine,
    jobs: int,
    dtype: torch.dtype,
    observe: Observer | None,
) -> None:
    from joblib import Parallel, delayed

    tasks = {seed: setup.task_for(seed) for seed in sorted({config.seed for config in configs})}
    lock, cancelled = threading.Lock(), threading.Event()

    def job(group: Sequence[RunConfig]) -> None:
        measured = make_net(setup, group[0].seed, 1.0, dtype)
        open_ = {config.digest: config for config in group}

        def finish(run: TrainedRun) -> None:
            net = measured.to(engine.device)
            task = tasks[run.config.seed]
            finished = record(setup, task, run, net, dtype)
            finished = _observed(setup, task, run, finished, observe)
            with lock:
                if not cancelled.is_set():
                    on_record(finished)
                    del open_[run.config.digest]

        try:
            train_batch(
                setup, tasks, group, engine.make(setup, rule, group, dtype), finish,
                dtype=dtype, device=engine.device, cancelled=cancelled,
            )  # fmt: skip
        except torch.OutOfMemoryError as error:
            if len(group) == 1:
                raise _too_large() from error
        else:
            return
        # Outside of the handler: the error's frames hold the batch that did not fit.
        torch.cuda.empty_cache()
        left = list(open_.values())  # some may have ended before the memory did
        for half in (left[: len(left) // 2], left[len(left) // 2 :]):
            if half:
                job(half)

    # Longest first: small c takes the most epochs. Ties keep equal c together, which end together.
    ordered = sorted(configs, key=lambda k: (-k.max_epochs, k.c * k.init_scale, k.lr, k.seed))
    groups = _groups(ordered, jobs, engine.replicas)
    with one_thread(), exact_arithmetic(engine.device):
        try:
            Parallel(n_jobs=jobs, backend="threading", batch_size=1)(
                delayed(job)(group) for group in groups
            )
        finally:
            cancelled.set()


def _groups(configs: Sequence[RunConfig], jobs: int, most: int) -> list[Sequence[RunConfig]]:
    """Cut the runs into batches of about one size, as many for each job, in order."""
    num = jobs * -(-len(configs) // (jobs * most))
    num = max(1, min(num, len(configs) // min(MIN_REPLICAS_PER_BATCH, most)))
    bounds = [round(i * len(configs) / num) for i in range(num + 1)]
    return [configs[start:end] for start, end in pairwise(bounds)]


# --- processes ------------------------------------------------------------------------------


def _train_in_processes(
    setup: TrainingSetup,
    rule: LrRule,
    configs: Sequence[RunConfig],
    on_record: Callable[[RunRecord], None],
    jobs: int,
    dtype: torch.dtype,
    observe: Observer | None,
) -> None:
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import BrokenProcessPool, TerminatedWorkerError

    results = Parallel(n_jobs=jobs, backend="loky", batch_size=1, return_as="generator_unordered")(
        delayed(_run_single)(setup, rule, config, dtype, observe=observe) for config in configs
    )
    try:
        with warnings.catch_warnings():
            # A long pause between results makes loky warn that it restarts idle workers, and an
            # interrupt makes joblib warn that it cancels the rest.
            warnings.filterwarnings("ignore", message="A worker stopped while some jobs")
            warnings.filterwarnings("ignore", message=".*have been cancelled")
            with closing(results):
                for result in results:
                    on_record(result)
    except TerminatedWorkerError as error:
        raise RunFailedError(
            "A training process died, most likely for lack of memory.",
            "Try fewer processes with --jobs 1, or a smaller model.",
        ) from error
    except (pickle.PicklingError, BrokenProcessPool) as error:
        raise InputError(
            f"The setup can't be sent to another process: {error}",
            "Keep open files, locks and generators out of it, or train with --jobs 1.",
        ) from error
