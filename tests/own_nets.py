"""A user's own builders and small setups; importable, because worker processes import it too."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fls_bench import models
from fls_bench.schema import (
    AnyOptimizer,
    ArchitectureSpec,
    LrRule,
    RunConfig,
    RunRecord,
    Sgd,
    TargetLoss,
)
from fls_bench.tasks import Task, make_task
from fls_bench.training import Engine, choose_engine, resolve_lr_rule, train_all
from fls_bench.training.replicas import train_batch
from fls_bench.training.runs import TrainedRun
from fls_bench.training_setup import TrainingSetup

INPUT_DIM = 5


def blobs(seed: int, n_train: int = 23, n_classes: int = 3, spread: float = 1.0) -> Task:
    """Gaussian classes around the axes: 23 points don't divide into minibatches of 5."""
    rng = np.random.default_rng(seed)

    def part(n: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        y = np.arange(n) % n_classes
        return 2 * np.eye(INPUT_DIM)[y] + spread * rng.standard_normal((n, INPUT_DIM)), y

    return make_task("blobs", part(n_train), part(31), part(17))


def images(seed: int, n_train: int = 23, shape: tuple[int, ...] = (1, 8, 8)) -> Task:
    """A bright quarter per class, in noise."""
    rng = np.random.default_rng(seed)

    def part(n: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        y = np.arange(n) % 3
        x = rng.standard_normal((n, *shape))
        height, width = shape[-2] // 2, shape[-1] // 2
        for which, (top, left) in enumerate(((0, 0), (0, width), (height, 0))):
            x[y == which, ..., top : top + height, left : left + width] += 1
        return x, y

    return make_task("images", part(n_train), part(31), part(17))


def two_blobs(seed: int) -> Task:
    return blobs(seed, n_classes=2)


def built_in(
    name: str = "mlp",
    *,
    loss: str = "cross_entropy",
    task: Callable[[int], Task] | Task | None = None,
    stop: Any = None,
    batch_size: int = 5,
    optimizer: AnyOptimizer = Sgd(),  # noqa: B008 (frozen)
    **arguments: Any,
) -> TrainingSetup:
    n_outputs = 1 if loss == "logistic" else 3
    sizes: dict[str, Any] = {"input_dim": INPUT_DIM, "n_outputs": n_outputs, "width": 8}
    checked = models.check_arguments(name, {**sizes, **arguments}).model_dump()

    def build(seed: int | None = None) -> nn.Module:
        return models.build(name, checked, seed=seed)

    return TrainingSetup(
        make_model=build,
        task=task or (two_blobs if loss == "logistic" else blobs),
        loss=loss,  # type: ignore[arg-type]
        optimizer=optimizer,
        batch_size=batch_size,
        stop=stop or TargetLoss(target_loss=0.1, max_epochs=15),
        architecture=ArchitectureSpec(name=name, arguments=checked),
    )


def config(setup: TrainingSetup, **changes: Any) -> RunConfig:
    values: dict[str, Any] = {
        "setup_digest": "test", "c": 1.0, "init_scale": 1.0, "lr": 0.1, "seed": 0,
        "centered": False, "max_epochs": setup.stop.max_epochs,
    }  # fmt: skip
    return RunConfig(**{**values, **changes})


RULE = LrRule(name="homogeneous", depth=4)


def rule_of(setup: TrainingSetup) -> LrRule:
    """The rule that the setup's net is measured to allow."""
    return resolve_lr_rule(setup, setup.task_for(0))


def in_one_batch(
    setup: TrainingSetup,
    configs: Sequence[RunConfig],
    dtype: torch.dtype = torch.float64,
    rule: LrRule | None = None,
    kind: Literal["fused", "vmapped"] = "fused",
    device: str = "cpu",
) -> list[TrainedRun]:
    """Finished runs in the order of their configs."""
    rule = rule or rule_of(setup)
    ended: dict[str, TrainedRun] = {}

    def finish(run: TrainedRun) -> None:
        assert run.config.digest not in ended
        ended[run.config.digest] = run

    data = {one.seed: setup.task_for(one.seed) for one in configs}
    nets = Engine(kind, device).make(setup, rule, configs, dtype)
    train_batch(setup, data, configs, nets, finish, dtype=dtype, device=device)
    return [ended[one.digest] for one in configs]


def records(
    setup: TrainingSetup,
    configs: Sequence[RunConfig],
    jobs: int = 1,
    dtype: torch.dtype = torch.float64,
    rule: LrRule = RULE,
    engine: Engine | None = None,
) -> list[RunRecord]:
    """Records in the order of their configs."""
    ended: list[RunRecord] = []
    engine = engine or choose_engine(setup, rule)
    train_all(setup, rule, configs, ended.append, engine=engine, jobs=jobs, dtype=dtype)
    assert len(ended) == len(configs)
    by_digest = {one.config.digest: one for one in ended}
    return [by_digest[one.digest] for one in configs]


def distance(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    """Largest deviation of any tensor, relative to its norm."""
    assert left.keys() == right.keys()
    return max(
        float((left[key] - right[key]).double().norm() / right[key].double().norm().clamp_min(1e-9))
        for key in left
    )


# --- a user's nets --------------------------------------------------------------------------


class Normed(nn.Module):
    """Normalisation, dropout, a buffer: nothing that a batch of built-in nets knows."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(INPUT_DIM, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout)
        )
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits


class Failing(Normed):
    """Fails in its third training step."""

    steps = 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += self.training
        if self.steps == 3:
            raise ArithmeticError("no\nluck\ntoday")
        return super().forward(x)


class Multiplied(nn.Module):
    """Multiplies its output inside, as nets of the factory route do."""

    def __init__(self, body: nn.Module, multiplier: float) -> None:
        super().__init__()
        self.body = body
        self.multiplier = multiplier

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.multiplier * self.body(x)
        return logits


def plain_body() -> nn.Module:
    return nn.Sequential(
        nn.Linear(INPUT_DIM, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False)
    )


def normed() -> nn.Module:
    return Normed(0.5)


def failing(seed: int) -> nn.Module:
    return Failing(0.5) if seed == 1 else Normed(0.5)


def dying(seed: int) -> nn.Module:
    if seed == 1:
        os._exit(1)
    return Normed(0.0)


def wrapped() -> nn.Module:
    return plain_body()


def factory(output_multiplier: float = 1.0) -> nn.Module:
    return Multiplied(plain_body(), output_multiplier)


def own(builder: Callable[..., nn.Module], **changes: Any) -> TrainingSetup:
    values: dict[str, Any] = {
        "make_model": builder, "task": blobs, "batch_size": 5,
        "stop": TargetLoss(target_loss=0.3, max_epochs=6),
    }  # fmt: skip
    return TrainingSetup(**{**values, **changes})


def is_finite(record: RunRecord) -> bool:
    numbers = [record.train_loss, record.val_error, record.val_loss, record.test_error]
    return all(value is not None and math.isfinite(value) for value in numbers)
