"""Plain facts that go into a report beside the verdict: losses, what was left out, the machine."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

import joblib
import numpy as np
import torch

from fls_bench import __version__
from fls_bench.homogeneity import has_normalisation
from fls_bench.metrics.dimension import (
    mle_dimension,
    neighbour_distances,
    two_nn_dimension,
)
from fls_bench.metrics.outputs import point_errors, point_losses
from fls_bench.models import ARCHITECTURES
from fls_bench.report.summary import t_quantile
from fls_bench.schema import Finding, LrRule, Regime, Skipped, Sweep, TargetLoss
from fls_bench.subject import Subject
from fls_bench.sweep import SweepResult
from fls_bench.tasks import Array, Task
from fls_bench.training.runs import make_net, training_losses
from fls_bench.training_setup import Custom, TrainingSetup
from fls_bench.verdict.evidence import Advised


def loss_facts(subject: Subject) -> tuple[dict[str, Any], list[Finding]]:
    """What we measure on the training data, and a warning where that does not look like the file."""
    snapshot = subject.snapshot
    assert snapshot is not None
    if snapshot.centered and snapshot.init is None:
        return {}, []
    logits = snapshot.logits("train")
    setup = subject.setup or subject.measured_by
    if setup is None:
        loss = float(point_losses(logits, snapshot.y_train).mean())
    else:  # what the setup trains on: its loss, with label smoothing
        loss = float(training_losses(setup, logits.double(), snapshot.y_train).mean())
    facts: dict[str, Any] = {"train_loss": loss}
    findings = []
    wrong = point_errors(logits, snapshot.y_train)
    facts["train_error"] = float(wrong.double().mean())
    commonest = int(snapshot.y_train.bincount().amax())
    if subject.file and float(wrong.sum()) >= len(wrong) - commonest:
        text = (
            "The net is no better than chance on its own training points "
            f"({100 * facts['train_error']:.1f} % wrong): these are hardly its weights, its data, its "
            "order of classes, or inputs scaled as it saw them."
        )
        findings.append(Finding(code="no_better_than_chance", status="problem", text=text))
    if subject.claim is not None:
        claimed, name = subject.claim
        facts["claimed_train_loss"] = claimed
        if abs(loss - claimed) > 0.02 + 0.1 * claimed:
            text = (
                f"The training loss is {loss:.4g} as measured here, but the file claims {claimed:.4g} "
                f"({name}). Is this the right file, with the right data?"
            )
            ours = subject.facts.get("architecture") in ARCHITECTURES
            if not ours:  # a loop of the user's own
                text += (
                    " Or was that the loss of one batch, with other weights of the classes, or the mean "
                    "over an epoch in which the weights still moved?"
                )
            # Such a mean lies above the loss of the weights at the end.
            grave = ours or loss > claimed
            status: Literal["problem", "warning"] = "problem" if grave else "warning"
            findings.append(Finding(code="training_loss_differs", status=status, text=text))
    return facts, findings


def file_findings(subject: Subject, sweep: Sweep, own: float) -> list[Finding]:
    """Whether a file looks like what its setup gives when it is trained again.

    Args:
        subject: What was read.
        sweep: Runs of the setup.
        own: The setup's own value on the sweep's axis.

    Returns:
        Warnings, none where all is well or there is no file.
    """
    cell = next((cell for cell in sweep.cells if cell.c == own), None)
    if not subject.file or subject.snapshot is None or subject.setup is None or cell is None:
        return []
    findings = []
    loss, _ = loss_facts(subject)
    stop = subject.setup.stop
    if isinstance(stop, TargetLoss) and loss.get("train_loss", 0.0) > 2 * stop.target_loss:
        text = (
            f"The file's training loss is {loss['train_loss']:.4g}, and the setup stops at "
            f"{stop.target_loss:g}: the file was not trained to that target, and the verdict is on the "
            "setup."
        )
        findings.append(Finding(code="file_not_at_target", status="warning", text=text))
    errors = [run.test_error for run in cell.seeds if run.test_error is not None]
    if len(errors) >= MIN_SEEDS_TO_COMPARE and sweep.error == "error" and loss:
        snapshot = subject.snapshot
        error = float(point_errors(snapshot.logits("test"), snapshot.y_test).double().mean())
        mean, spread = float(np.mean(errors)), float(np.std(errors, ddof=1))
        # Where a further run of the setup lies in 99 of 100 cases; a point of error is no matter.
        width = t_quantile(0.99, len(errors) - 1) * spread * (1 + 1 / len(errors)) ** 0.5
        if abs(error - mean) > max(width, 0.01):
            text = (
                f"The file's test error is {100 * error:.1f} %, and runs of the setup at its own c have "
                f"{100 * mean:.1f} % (a further run: {100 * max(0.0, mean - width):.1f} to "
                f"{100 * (mean + width):.1f} % in 99 of 100 cases): the setup is hardly what made this "
                "file, and the verdict is on the setup."
            )
            findings.append(Finding(code="file_unlike_setup", status="problem", text=text))
    return findings


MIN_SEEDS_TO_COMPARE = 3


def problems_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Findings by how grave they are, each once: a reader must not miss that a file is the wrong one."""
    once = {(one.code, one.text): one for one in findings}
    order = ("problem", "warning", "info")
    return tuple(sorted(once.values(), key=lambda one: order.index(one.status)))


def not_run(setup: TrainingSetup, result: SweepResult, regime: Regime) -> list[Skipped]:
    """Parts of a full diagnosis that did not run, each with its reason."""
    skipped = [Skipped(what=what, code=code, reason=why) for what, code, why in result.notes]
    if result.centered is None:
        why = (
            "The setup is centered already."
            if setup.centered
            else "It is run where the verdict is over-fitted."
            if regime is not Regime.OVER_FITTED
            else "The budget ended before."
        )
        skipped.append(Skipped(what="centered sweep", code="not_needed", reason=why))
    what = "learning rates at c* and at c = 1"
    if result.rates:
        return skipped
    if regime is Regime.INCONCLUSIVE:
        why = "It is run where there is a verdict."
        skipped.append(Skipped(what=what, code="not_needed", reason=why))
    elif result.cost.budget_bound:
        skipped.append(Skipped(what=what, code="budget", reason="The budget ended before."))
    elif not result.notes:
        why = "c* is 1, so there is nothing to compare with."
        skipped.append(Skipped(what=what, code="not_needed", reason=why))
    return skipped


def advised(setup: TrainingSetup) -> Advised:
    """What a recommendation has to know of the setup."""
    net = make_net(setup, 0, setup.output_multiplier, torch.float32)
    return Advised(
        optimizer=setup.known_optimizer,
        custom=isinstance(setup.optimizer, Custom),
        route=setup.route,
        built_in=setup.architecture is not None and setup.architecture.name is not None,
        normalised=has_normalisation(net),
    )


MAX_IMBALANCE = 3
"""Where the commonest class has more than so many times the points of the rarest, say so."""

MIN_TEST_POINTS = 30
"""Fewer test points of a class tell its error to no better than about 18 points of percent."""


def data_findings(setup: TrainingSetup, task: Task) -> list[Finding]:
    """What a reader should know of the data: where parts came from, what they share, the classes.

    Args:
        setup: Draws the data of other seeds.
        task: One draw.

    Returns:
        The findings, none where all is well.
    """
    findings = [Finding(code="data", status="info", text=note) for note in task.notes]
    for part, x, code, status, harm in (
        ("test", task.x_test, "test_points_in_training", "problem",
         "test error is too low, and least where a net memorises most"),
        ("validation", task.x_val, "validation_points_in_training", "warning",
         "what is chosen on validation data leans toward nets that memorise"),
    ):  # fmt: skip
        if shared := task.shared_with_training(x):
            text = f"{shared} of {len(x)} {part} points are also training points: {harm}."
            findings.append(Finding.model_validate({"code": code, "status": status, "text": text}))
    findings += _class_findings(task)
    if len({setup.task_for(seed).fingerprint for seed in (1, 2)}) == 1:
        text = (
            "Every seed trains on the same points: seeds vary the initial weights and the order "
            "only, so intervals do not cover the choice of training data."
        )
        findings.append(Finding(code="fixed_training_data", status="info", text=text))
    return findings


def _class_findings(task: Task) -> list[Finding]:
    """Classes that are missing, rare, or much rarer than others."""
    findings = []
    training = task.class_counts
    test = np.bincount(task.y_test, minlength=task.n_classes)
    for part, counts, harm in (
        ("training", training, "no net can learn them"),
        ("test", test, "nothing is measured on them"),
    ):
        if missing := np.flatnonzero(counts == 0).tolist():
            text = (
                f"{len(missing)} of {task.n_classes} classes have no {part} points, so that {harm}: "
                f"{_shown(missing)}."
            )
            findings.append(Finding(code=f"class_missing_in_{part}", status="warning", text=text))
    rare = np.flatnonzero((test > 0) & (test < MIN_TEST_POINTS)).tolist()
    if rare and task.imbalance > MAX_IMBALANCE:
        text = (
            f"{len(rare)} of {task.n_classes} classes have fewer than {MIN_TEST_POINTS} test points, "
            f"so that their errors are uncertain: {_shown(rare)}."
        )
        findings.append(Finding(code="class_rare_in_test", status="warning", text=text))
    if task.imbalance > MAX_IMBALANCE:
        text = (
            f"The commonest class has {task.imbalance:.1f} times the points of the rarest: the share "
            "of wrong answers says little of the rare classes."
        )
        findings.append(Finding(code="class_imbalance", status="warning", text=text))
    return findings


def _shown(classes: list[int]) -> str:
    return ", ".join(map(str, classes[:10])) + (", ..." if len(classes) > 10 else "")


@dataclass(frozen=True)
class Dimension:
    """Estimates of the intrinsic dimension of a set of inputs, None where it can't be estimated.

    Attributes:
        two_nn: From two neighbours; None also where these are equally far, as on a grid.
        mle: From ``NEIGHBOURS`` neighbours.
        n: Points it was estimated from; the median over classes where it is within classes.
    """

    two_nn: float | None
    mle: float | None
    n: int


@dataclass(frozen=True)
class IntrinsicDimension:
    """Of the inputs of a task.

    Attributes:
        within: Median over classes of the dimension of one class: what the number of latents of a
            generator, or of factors that vary, bounds.
        pooled: Of all classes together.
    """

    within: Dimension
    pooled: Dimension


NEIGHBOURS = 10


def intrinsic_dimension(task: Task, *, points: int = 2000, seed: int = 0) -> IntrinsicDimension:
    """Estimate the intrinsic dimension of a task's inputs, all parts together.

    Both estimates fall short of a dimension that is large for the number of points (of a Gaussian of
    128 dimensions 2,000 points show about 55), and still rise with it: compare sets at equal n.

    Args:
        task: The task.
        points: Most inputs of the pooled set. Of one of K classes at most points/sqrt(K), so that all
            classes together cost as much.
        seed: Of the draw of them.

    Returns:
        The estimates, in float64; inputs that occur twice count once.
    """
    x = np.concatenate([task.x_train, task.x_val, task.x_test])
    y = np.concatenate([task.y_train, task.y_val, task.y_test])
    order = np.random.default_rng(seed).permutation(len(x))
    x, y = x.reshape(len(x), -1), y[order]
    most = int(points / task.n_classes**0.5)
    classes = [_dimension(x[order[y == k][:most]]) for k in range(task.n_classes)]
    within = Dimension(
        two_nn=_median([one.two_nn for one in classes]),
        mle=_median([one.mle for one in classes]),
        n=int(np.median([one.n for one in classes])),
    )
    return IntrinsicDimension(within=within, pooled=_dimension(x[order[:points]]))


def _dimension(inputs: Array) -> Dimension:
    points = torch.from_numpy(np.unique(inputs, axis=0))
    if len(points) <= NEIGHBOURS:
        return Dimension(None, None, len(points))
    distances, _ = neighbour_distances(points, NEIGHBOURS)
    distances = distances[distances.isfinite().all(dim=1)]
    estimates = two_nn_dimension(distances[:, 1] / distances[:, 0]), mle_dimension(distances)
    two_nn, mle = (float(one) if bool(one.isfinite()) else None for one in estimates)
    return Dimension(two_nn, mle, len(distances))


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def setup_facts(setup: TrainingSetup, task: Task, rule: LrRule) -> dict[str, Any]:
    """What was judged, as plain values."""
    return {
        "name": setup.name,
        "model": None if setup.architecture is None else setup.architecture.model_dump(
            exclude_none=True
        ),
        "task": task.name,
        "data": task.fingerprint[:16],
        "n_train": task.n_train,
        "n_validation": len(task.y_val),
        "n_test": len(task.y_test),
        "n_classes": task.n_classes,
        "loss": setup.loss,
        **({"label_smoothing": setup.label_smoothing} if setup.label_smoothing else {}),
        "optimizer": {"kind": "custom", "like": setup.optimizer.like, "lr": setup.optimizer.lr}
        if isinstance(setup.optimizer, Custom)
        else setup.optimizer.model_dump(exclude_none=True),
        **({"augmentation": list(setup.augmentation)} if setup.augmentation else {}),
        "batch_size": setup.batch_size,
        "stop": setup.stop.model_dump(),
        "lr_rule": rule.model_dump(exclude_defaults=True),
        "output_multiplier": setup.output_multiplier,
        "init_scale": setup.init_scale,
        "centered": setup.centered,
        "multiplier_route": setup.route,
        "axis": setup.axis,
    }  # fmt: skip


def gpu_name(device: str) -> str:
    """What the GPU behind ``cuda`` or ``cuda:1`` is called by its driver."""
    return torch.cuda.get_device_name(device)


def environment() -> dict[str, str]:
    """Versions and machine facts, for ``fls-bench env`` and provenance."""
    config = torch.__config__.show().lower()
    packages = ("torch", "numpy", "scipy", "scikit-learn", "joblib", "pydantic")
    return {
        "fls-bench": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        "blas": next((name for name in ("mkl", "openblas", "accelerate") if name in config), "?"),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "cpu cores": str(joblib.cpu_count()),
    }
