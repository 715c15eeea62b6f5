"""Training: many replicas as one batch where the net allows, else one by one in processes.

Stop the first time the training loss (or accuracy) reaches its target; every run ends in an
``Outcome`` and is handed over as a record at once.
"""

from __future__ import annotations

import hashlib
import pickle
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import pairwise

import torch
from torch import Tensor

from fls_bench import models
from fls_bench.errors import FlsBenchError, InputError, RunFailedError
from fls_bench.scaling import scaled_weight_decay
from fls_bench.schema import LrRule, Outcome, RunConfig, RunRecord, canonical_digest
from fls_bench.tasks import Task
from fls_bench.training.batched import train_batch
from fls_bench.training.runs import TrainedRun, make_net, record, seeded
from fls_bench.training.single import train_single
from fls_bench.training_setup import TrainingSetup, in_one_line

__all__ = [
    "TrainedRun",
    "check_setup",
    "is_batched",
    "make_net",
    "resolve_lr_rule",
    "setup_digest",
    "time_training",
    "train_all",
    "train_one",
    "user_code",
]

ENGINE_VERSION = 2
"""Part of every setup's digest: raised when the same configuration would give other numbers."""

REPLICAS_PER_BATCH = 12
"""At most; small enough that weights and activations stay in cache."""

MIN_REPLICAS_PER_BATCH = 3
"""Below this, what a step costs beside its products is no longer shared."""


def is_batched(setup: TrainingSetup) -> bool:
    """Whether the setup's replicas train as one batch: a built-in MLP, wrapped, and plain SGD."""
    named = None if setup.architecture is None else setup.architecture.name
    plain = setup.optimizer.momentum == 0 and setup.optimizer.weight_decay == 0
    return named in ("mlp", "two_layer") and plain and setup.route == "wrapper"


def check_setup(setup: TrainingSetup, seed: int = 0) -> Task:
    """Build the net once and pass a few points through, so that a mistake shows before training.

    Args:
        setup: The setup.
        seed: Seed of the net and of the data.

    Returns:
        The task of that seed.

    Raises:
        InputError: The data or the net can't be made, or the net can't take the data, has no
            parameters, or its outputs have the wrong shape or are not finite.
    """
    with user_code("The setup's task function failed", "Correct the function."):
        task = setup.task_for(seed)
    with user_code("make_model failed", "Correct it, or its arguments."):
        net = make_net(setup, seed, setup.output_multiplier, torch.float32).eval()
    if not any(True for _ in net.parameters()):
        raise InputError("The model has no parameters.", "Return a module that can be trained.")
    shape = list(task.x_train.shape[1:])
    with (
        user_code(
            f"The model can't take the data: on inputs of shape {shape} it failed",
            "Give data and a model of the same input dimension.",
        ),
        seeded(seed),
    ):
        features, output = models.named_features(net, torch.as_tensor(task.x_train[:4]))
    if not isinstance(output, torch.Tensor):
        raise InputError(
            f"The model returns a {type(output).__name__}, not a tensor of logits.",
            "Return the logits alone from its forward.",
        )
    if setup.feature_layer is not None and setup.feature_layer not in features:
        raise InputError(
            f"The model has no features of a layer {setup.feature_layer!r}.",
            f"Set feature_layer to one of {', '.join(features)}, or leave it out."
            if features
            else "Leave feature_layer out.",
        )
    wanted = 1 if setup.loss == "logistic" else task.n_classes
    if setup.loss == "logistic" and task.n_classes != 2:
        raise InputError(
            f"The loss is logistic, but task {task.name!r} has {task.n_classes} classes.",
            "Use cross_entropy with one logit per class.",
        )
    if tuple(output.shape) != (4, wanted):
        raise InputError(
            f"The model's output for 4 points has shape {list(output.shape)}; task {task.name!r} "
            f"with loss {setup.loss} needs {[4, wanted]}.",
            "Give data and a model with the same number of classes.",
        )
    if not torch.isfinite(output).all():
        raise InputError(
            "The model's outputs at init are NaN or infinite.", "Check its initial weights."
        )
    return task


@contextmanager
def user_code(problem: str, remedy: str) -> Iterator[None]:
    """Turn any error of the user's own code into an ``InputError`` of one line."""
    try:
        yield
    except FlsBenchError:
        raise
    except Exception as error:
        raise InputError(f"{problem} with {in_one_line(error)}.", remedy) from error


def resolve_lr_rule(setup: TrainingSetup, task: Task) -> LrRule:
    """The setup's rule, or the one that its net is measured to allow.

    Args:
        setup: The setup.
        task: Its data, for a few inputs.

    Returns:
        ``homogeneous`` with the measured degree L; else ``calibrated`` with the number of weight
        layers. A built-in net with biases counts as homogeneous: its biases get rates of their own.
    """
    if setup.lr_rule is not None:
        return setup.lr_rule
    net = make_net(setup, 0, 1.0, torch.float32)
    if isinstance(net, models.Mlp) and net.activation == "relu":
        return LrRule(name="homogeneous", depth=len(net.layers))
    try:
        degree = models.homogeneity_degree(net, torch.as_tensor(task.x_train[:8]))
    except Exception:  # e.g. a module that can't run in float64: no exact rule is claimed
        degree = None
    if degree is not None:
        return LrRule(name="homogeneous", depth=degree)
    return LrRule(name="calibrated", depth=max(1, len(models.weight_matrices(net))))


@torch.no_grad()
def setup_digest(setup: TrainingSetup, rule: LrRule, *, dtype: torch.dtype = torch.float32) -> str:
    """Identify a setup by what it does: the key under which its runs are stored.

    Code can't be hashed reliably, so this hashes behaviour: the initial parameters of one seed, the
    outputs on a few inputs in training and in evaluation mode (of a factory at two multipliers), the
    data, and the recipe. The multiplier, the rate and centering belong to each run, not to the setup.

    Args:
        setup: The setup.
        rule: Its learning-rate rule.
        dtype: Floating type of the training.

    Returns:
        SHA-256 in hex.
    """
    task = setup.task_for(0)
    behaviour = hashlib.sha256()

    def observe(name: str, value: Tensor) -> None:
        behaviour.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        behaviour.update(value.contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())

    x = torch.as_tensor(task.x_train[:8], dtype=dtype)
    refers_to_own_c = setup.optimizer.weight_decay > 0
    for c in (1.0, 0.5) if setup.route == "factory" else (1.0,):
        net = make_net(setup, 0, c, dtype)
        # The rates of a built-in net's biases are relative to those at the setup's own c.
        refers_to_own_c |= isinstance(net, models.Mlp) and net.layers[0].bias is not None
        for name, value in net.state_dict().items():
            observe(name, value)
        for training in (False, True):
            with seeded(0), _one_thread():
                observe("output", net.train(training)(x))
    return canonical_digest(
        {
            "engine": ENGINE_VERSION,
            "torch": torch.__version__,
            "behaviour": behaviour.hexdigest(),
            "task": [task.fingerprint, setup.task_for(1).fingerprint],
            "loss": setup.loss,
            "momentum": setup.optimizer.momentum,
            "nesterov": setup.optimizer.nesterov,
            "decay": setup.optimizer.weight_decay,
            "own_c": setup.output_multiplier if refers_to_own_c else None,
            "batch_size": setup.batch_size,
            "stop": setup.stop.model_dump(exclude={"max_epochs"}),
            "rule": rule.model_dump(),
            "route": setup.route,
            "feature_layer": setup.feature_layer,
            "dtype": str(dtype),
        }
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread per job: splitting a small product over threads is slower, and rounds otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _decay_at(setup: TrainingSetup, rule: LrRule, c: float) -> float:
    return scaled_weight_decay(setup.optimizer.weight_decay, rule, c / setup.output_multiplier)


def _run_single(
    setup: TrainingSetup, rule: LrRule, config: RunConfig, dtype: torch.dtype
) -> RunRecord:
    """Train and measure one net; an error in the user's code becomes a failed run."""
    try:
        with _one_thread():
            return train_one(setup, rule, config, dtype=dtype)[1]
    except FlsBenchError:
        raise
    except Exception as error:
        message = in_one_line(error)
        return RunRecord(config=config, outcome=Outcome.FAILED, epochs=0, steps=0, message=message)


def train_one(
    setup: TrainingSetup,
    rule: LrRule,
    config: RunConfig,
    *,
    dtype: torch.dtype = torch.float32,
) -> tuple[TrainedRun, RunRecord]:
    """Train one net by the plain loop and measure it.

    Args:
        setup: The setup.
        rule: Its learning-rate rule.
        config: The run.
        dtype: Floating type of the training.

    Returns:
        (the run with its weights, its record).
    """
    task = setup.task_for(config.seed)
    decay = _decay_at(setup, rule, config.c)
    run = train_single(setup, task, config, weight_decay=decay, dtype=dtype)
    net = make_net(setup, config.seed, config.c, dtype)
    return run, record(setup, task, run, net, dtype)


TRAINING_FAILED = "Training the model failed"


def time_training(
    setup: TrainingSetup, rule: LrRule, configs: Sequence[RunConfig]
) -> tuple[int, float]:
    """Train runs one job at a time and time the training alone, without data and evaluation.

    Args:
        setup: The setup.
        rule: Its learning-rate rule.
        configs: The runs: one batch, or, where nets train one by one, a few.

    Returns:
        (epochs of all runs, seconds).
    """
    tasks = {config.seed: setup.task_for(config.seed) for config in configs}
    runs: list[TrainedRun] = []
    with _one_thread():
        start = time.perf_counter()
        if is_batched(setup):
            train_batch(setup, tasks, configs, runs.append)
        else:
            for config in configs:
                decay = _decay_at(setup, rule, config.c)
                with user_code(TRAINING_FAILED, "Correct the model, or what it is trained on."):
                    runs.append(train_single(setup, tasks[config.seed], config, weight_decay=decay))
        return sum(run.epochs for run in runs), time.perf_counter() - start


def train_all(
    setup: TrainingSetup,
    rule: LrRule,
    configs: Sequence[RunConfig],
    on_record: Callable[[RunRecord], None],
    *,
    jobs: int,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Train all runs and hand over each record as its run ends.

    Args:
        setup: The setup.
        rule: Its learning-rate rule.
        configs: The runs, in any number and order.
        on_record: Called once per run, from any thread but never from two at once.
        jobs: How many batches (or processes) at a time.
        dtype: Floating type of the training.

    Raises:
        InputError: The setup can't be sent to other processes.
        RunFailedError: A worker process died.
    """
    if not configs:
        return
    if is_batched(setup):
        _train_batches(setup, configs, on_record, jobs, dtype)
    elif jobs == 1 or len(configs) == 1:
        for config in configs:
            on_record(_run_single(setup, rule, config, dtype))
    else:
        _train_in_processes(setup, rule, configs, on_record, jobs, dtype)


def _train_batches(
    setup: TrainingSetup,
    configs: Sequence[RunConfig],
    on_record: Callable[[RunRecord], None],
    jobs: int,
    dtype: torch.dtype,
) -> None:
    from joblib import Parallel, delayed

    tasks = {seed: setup.task_for(seed) for seed in sorted({config.seed for config in configs})}
    lock, cancelled = threading.Lock(), threading.Event()

    def job(group: Sequence[RunConfig]) -> None:
        net = make_net(setup, group[0].seed, 1.0, dtype)

        def finish(run: TrainedRun) -> None:
            finished = record(setup, tasks[run.config.seed], run, net, dtype)
            with lock:
                if not cancelled.is_set():
                    on_record(finished)

        train_batch(setup, tasks, group, finish, dtype=dtype, cancelled=cancelled)

    # Longest first: small c takes the most epochs. Ties keep equal c together, which end together.
    ordered = sorted(configs, key=lambda k: (-k.max_epochs, k.c * k.init_scale, k.lr, k.seed))
    groups = _groups(ordered, jobs)
    with _one_thread():
        try:
            Parallel(n_jobs=jobs, backend="threading", batch_size=1)(
                delayed(job)(group) for group in groups
            )
        finally:
            cancelled.set()


def _groups(configs: Sequence[RunConfig], jobs: int) -> list[Sequence[RunConfig]]:
    """Cut the runs into batches of about one size, as many for each job, in order."""
    num = jobs * -(-len(configs) // (jobs * REPLICAS_PER_BATCH))
    num = max(1, min(num, len(configs) // MIN_REPLICAS_PER_BATCH))
    bounds = [round(i * len(configs) / num) for i in range(num + 1)]
    return [configs[start:end] for start, end in pairwise(bounds)]


def _train_in_processes(
    setup: TrainingSetup,
    rule: LrRule,
    configs: Sequence[RunConfig],
    on_record: Callable[[RunRecord], None],
    jobs: int,
    dtype: torch.dtype,
) -> None:
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import BrokenProcessPool, TerminatedWorkerError

    results = Parallel(n_jobs=jobs, backend="loky", batch_size=1, return_as="generator_unordered")(
        delayed(_run_single)(setup, rule, config, dtype) for config in configs
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
