"""Which engine trains a setup: chosen by what it can do, and then by measurement."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from pydantic import TypeAdapter, ValidationError

from fls_bench.errors import FlsBenchError, InputError
from fls_bench.models import Mlp
from fls_bench.schema import LrRule, Outcome, RunConfig, Sgd, TargetLoss
from fls_bench.tasks import Task
from fls_bench.training.checks import exact_arithmetic, one_thread
from fls_bench.training.fused import FusedMlps
from fls_bench.training.replicas import Replicas, train_batch
from fls_bench.training.runs import TrainedRun, make_net, seeded
from fls_bench.training.single import train_single
from fls_bench.training.vmapped import VmappedNets, problem_with_batching
from fls_bench.training_setup import Custom, TrainingSetup, in_one_line

REPLICAS_PER_BATCH = 12
"""On a CPU, at most; small enough that weights and activations stay in cache."""

MAX_REPLICAS_ON_GPU = 256

MIN_RATIO = 1.1
"""By how much one batch must beat one by one: a smaller lead is within the noise of a trial."""

TRIAL_BATCHES = 4
TRIAL_SEEDS = 2
"""More than one: what a module holds beside its parameters and buffers would be that of one seed."""
TRIAL_SECONDS = 0.3
"""Each way of training is timed on ever more minibatches until it takes this long."""

MAX_DISAGREEMENT = 0.02
"""Largest difference of the two ways' weights after the trial, relative to how far they moved."""

MEMORY_SHARE = 0.7


@dataclass(frozen=True)
class Engine:
    """How replicas are trained.

    Attributes:
        kind: ``fused``: MLPs under plain SGD, by hand. ``vmapped``: any module, as one batch.
            ``single``: one by one, in several processes.
        device: ``cpu`` or ``cuda``.
        replicas: Most replicas in a batch.
        ratio: Replica-epochs a second of ``vmapped`` over ``single`` in the trial, or None.
        why: One sentence.
    """

    kind: Literal["fused", "vmapped", "single"]
    device: str = "cpu"
    replicas: int = REPLICAS_PER_BATCH
    ratio: float | None = None
    why: str = ""

    @property
    def batched(self) -> bool:
        """Whether replicas are trained as batches, in threads of this process."""
        return self.kind != "single"

    def make(
        self,
        setup: TrainingSetup,
        rule: LrRule,
        configs: Sequence[RunConfig],
        dtype: torch.dtype = torch.float32,
    ) -> Replicas:
        """The replicas of some runs, at init."""
        kind = FusedMlps if self.kind == "fused" else VmappedNets
        return kind(setup, rule, configs, dtype, self.device)


def choose_device(wanted: str) -> str:
    """``cpu`` or ``cuda``; ``auto`` takes a GPU where there is one.

    Raises:
        InputError: ``cuda`` was asked for and there is none.
    """
    if wanted not in ("auto", "cpu", "cuda"):
        raise InputError(f"There is no device {wanted!r}.", "Choose auto, cpu or cuda.")
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise InputError(
            "There is no CUDA device, or this torch is built without CUDA.",
            "Use --device cpu, or install a CUDA build of torch.",
        )
    return "cuda" if there and wanted in ("auto", "cuda") else "cpu"


def read_engine(values: Mapping[str, Any] | None, device: str) -> Engine | None:
    """An engine as it was stored, or None for what this version does not write for this device.

    Args:
        values: Its fields.
        device: ``cpu`` or ``cuda``.

    Returns:
        The engine.
    """
    try:
        engine = TypeAdapter(Engine).validate_python(values)
    except ValidationError:
        return None
    most = MAX_REPLICAS_ON_GPU if device == "cuda" else REPLICAS_PER_BATCH
    return engine if engine.device == device and 1 <= engine.replicas <= most else None


def choose_engine(
    setup: TrainingSetup, rule: LrRule, device: str = "cpu", kept: Engine | None = None
) -> Engine:
    """Choose how a setup's replicas are trained; takes about a second where it has to be measured.

    Args:
        setup: A setup that was checked.
        rule: Its learning-rate rule.
        device: ``cpu`` or ``cuda``.
        kept: What a measurement chose before: another one might choose otherwise, and round so.

    Returns:
        The engine.
    """
    net = make_net(setup, 0, setup.output_multiplier, torch.float32)
    if fusible(setup, net):
        replicas = MAX_REPLICAS_ON_GPU if device == "cuda" else REPLICAS_PER_BATCH
        return Engine("fused", device, replicas, why="An MLP under plain SGD.")
    if setup.rank_term is not None:  # MLPs: known to batch, and all rows of a comparison alike
        replicas = MAX_REPLICAS_ON_GPU if device == "cuda" else REPLICAS_PER_BATCH
        return Engine("vmapped", device, replicas, why="An MLP whose ranks are measured or held.")
    problem = problem_with_batching(net)
    if setup.route == "factory":
        problem = "The multiplier is wired inside: nets of different c are different nets."
    elif isinstance(setup.optimizer, Custom):
        problem = "It has an optimizer of its own."
    if problem is not None:
        return Engine("single", device, why=problem)
    if kept is not None and kept.kind != "fused":
        return kept
    return _by_trial(setup, rule, device)


def fusible(setup: TrainingSetup, net: torch.nn.Module) -> bool:
    """Whether replicas of a setup's net can be trained by the hand-written step."""
    plain = isinstance(setup.optimizer, Sgd) and not (
        setup.optimizer.momentum or setup.optimizer.weight_decay or setup.optimizer.clip_norm
    )
    named = setup.architecture is not None and setup.architecture.name is not None
    loss = setup.loss in ("cross_entropy", "logistic") and not setup.label_smoothing
    wrapped = setup.route == "wrapper"
    extra = setup.augmentation or setup.rank_term is not None
    return plain and named and loss and wrapped and not extra and isinstance(net, Mlp)


# --- the trial ------------------------------------------------------------------------------


def trial_config(setup: TrainingSetup, seed: int = 0, max_epochs: int = 1) -> RunConfig:
    """The run of a setup as it is, for trials of the speed."""
    return RunConfig(
        setup_digest="trial", c=setup.output_multiplier, init_scale=setup.init_scale,
        lr=setup.known_optimizer.lr, seed=seed, centered=setup.centered, max_epochs=max_epochs,
    )  # fmt: skip


def shortened(setup: TrainingSetup, num_batches: int, max_epochs: int = 1) -> TrainingSetup:
    """The setup on its first so many minibatches, without warm-up or a target that it could reach.

    The validation part is cut in proportion: evaluating it is a part of the time of an epoch.
    """
    size = num_batches * setup.batch_size

    def task(seed: int) -> Task:
        whole = setup.task_for(seed)
        val = max(1, min(size, whole.n_train) * len(whole.y_val) // whole.n_train)
        return replace(
            whole, x_train=whole.x_train[:size], y_train=whole.y_train[:size],
            x_val=whole.x_val[:val], y_val=whole.y_val[:val],
        )  # fmt: skip

    return replace(setup.without_warmup(), task=task, stop=TargetLoss(1e-30, max_epochs=max_epochs))


def _seconds_per_batch(train: Callable[[int], list[TrainedRun]], most: int) -> float:
    num = TRIAL_BATCHES
    train(num)  # it warms up
    while True:
        start = time.perf_counter()
        train(num)
        taken = time.perf_counter() - start
        if taken >= TRIAL_SECONDS or num >= most:
            return taken / num
        num = min(most, 4 * num)


def _by_trial(setup: TrainingSetup, rule: LrRule, device: str) -> Engine:
    task = setup.task_for(0)
    most = -(-task.n_train // setup.batch_size)

    def singly(num: int, seed: int = 0) -> list[TrainedRun]:
        short = shortened(setup, num)
        own = trial_config(setup, seed)
        return [train_single(short, rule, short.task_for(seed), own, device=device)]

    engine = Engine("vmapped", device)

    def batched(num: int) -> list[TrainedRun]:
        short = shortened(setup, num)
        seeds = [row % TRIAL_SEEDS for row in range(engine.replicas)]
        configs = [trial_config(setup, seed) for seed in seeds]
        runs: list[TrainedRun] = []
        cut = {seed: short.task_for(seed) for seed in seeds}
        nets = engine.make(short, rule, configs)
        train_batch(short, cut, configs, nets, runs.append, device=device)
        return runs

    # What a module draws in spite of all is not drawn from the caller's random state.
    with one_thread(), exact_arithmetic(device), seeded(0):
        try:
            if device == "cuda":
                engine = replace(engine, replicas=_fitting(batched, engine))
            together = _seconds_per_batch(batched, most)
        except FlsBenchError:
            raise
        except Exception as error:
            return Engine("single", device, why=f"As one batch it fails with {in_one_line(error)}.")
        try:
            alone = _seconds_per_batch(singly, most)
            runs = batched(TRIAL_BATCHES)
            apart = max(
                _disagreement(run, singly(TRIAL_BATCHES, run.config.seed)[0])
                for run in runs[:TRIAL_SEEDS]
            )
        except FlsBenchError:
            raise
        except Exception as error:  # every run will say so
            return Engine("single", device, why=f"In a trial it fails with {in_one_line(error)}.")
    ratio = engine.replicas * alone / together
    if apart > MAX_DISAGREEMENT:
        how = f"weights differ by {100 * apart:.2g} % of their way"
        how = how if apart < math.inf else "what it counts differs, or what it can train"
        why = f"As one batch it trains otherwise ({how})."
        return Engine("single", device, ratio=ratio, why=why)
    if ratio < MIN_RATIO:
        why = f"As one batch of {engine.replicas} it is {ratio:.2f} times as fast as one by one."
        return Engine("single", device, ratio=ratio, why=why)
    why = f"As one batch of {engine.replicas} it is {ratio:.1f} times as fast as one by one."
    return replace(engine, ratio=ratio, why=why)


def _disagreement(run: TrainedRun, reference: TrainedRun) -> float:
    if run.outcome is not reference.outcome:
        return math.inf
    if run.outcome is Outcome.DIVERGED:
        return 0.0  # both: there is nothing to compare
    apart = moved = size = 0.0
    for name, value in reference.final.items():
        if value.is_floating_point():
            apart += float((run.final[name] - value).double().norm() ** 2)
            moved += float((value - reference.init[name]).double().norm() ** 2)
            size += float(value.double().norm() ** 2)
        elif not torch.equal(run.final[name], value):
            return math.inf  # a count went wrong
    # Rounding of the weights themselves is no disagreement, however short the way.
    return (apart / (moved + 1e-10 * size)) ** 0.5 if moved + size > 0 else 0.0


def _fitting(train: Callable[[int], list[TrainedRun]], engine: Engine) -> int:
    """How many replicas fit into the GPU's memory, by the peak of a first batch."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    train(TRIAL_BATCHES)
    per_replica = max(1, torch.cuda.max_memory_allocated() - before) / engine.replicas
    free, _ = torch.cuda.mem_get_info()
    return max(1, min(MAX_REPLICAS_ON_GPU, int(MEMORY_SHARE * free / per_replica)))
