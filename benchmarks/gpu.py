"""The engine against a plain loop, in replica-epochs per second, on a GPU or on a CPU.

    python benchmarks/gpu.py [--device auto|cpu|cuda] [--tiny] [--folder benchmarks/results]

The plain loop is torch.nn and torch.optim, one net after another, on the same device, with the same
evaluation of the training loss after every epoch; the engine is the one that the setup is given.
Writes one JSON file with the hardware and the date, and prints the same as a table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fls_bench import facts, models
from fls_bench.errors import InputError
from fls_bench.schema import ArchitectureSpec, Sgd, TargetLoss
from fls_bench.tasks import Task, make_task, task_source
from fls_bench.training import choose_device, choose_engine, resolve_lr_rule, time_training
from fls_bench.training.checks import exact_arithmetic
from fls_bench.training.runs import POINTS_AT_ONCE, batch_order, make_net
from fls_bench.training_setup import TrainingSetup

REPEATS = 3
BATCH = 25
SECONDS = 1.0
"""Each figure is timed over at least so long, warmed up before."""


def digits(n_train: int) -> Task:
    """The digits that come with scikit-learn."""
    return task_source("digits", {"n_train": n_train})(0)


def small_images(n_train: int, size: int = 32) -> Task:
    """CIFAR-10; where it is absent, noise of the same shape, which takes the same time."""
    try:
        if size != 32:
            raise InputError("no such size", "")
        return task_source("cifar10", {"n_train": n_train})(0)
    except InputError:
        rng = np.random.default_rng(0)

        def part(n: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
            return rng.standard_normal((n, 3, size, size)), np.arange(n) % 10

        return make_task(f"noise of {size} x {size}", part(n_train), part(100), part(100))


def cases(tiny: bool) -> dict[str, TrainingSetup]:
    """What is timed, by name."""
    if tiny:
        return {
            "digits, mlp": setup("mlp", digits(50), width=8, depth=2),
            "images, cnn": setup("cnn", small_images(50, size=8), width=2, depth=2),
            "images, resnet18": setup("resnet18", small_images(50, size=8), width=2),
        }
    return {
        "digits, mlp": setup("mlp", digits(400), width=128, depth=4),
        "images, cnn": setup("cnn", small_images(2000)),
        "images, resnet18": setup("resnet18", small_images(2000)),
    }


def setup(name: str, task: Task, **arguments: Any) -> TrainingSetup:
    """A built-in net on a task, by plain SGD."""
    sized = models.architecture(name).sized(task.x_train.shape[1:], task.n_classes)
    checked = models.check_arguments(name, {**sized, **arguments}).model_dump()
    return TrainingSetup(
        make_model=lambda seed: models.build(name, checked, seed=seed),
        task=task,
        optimizer=Sgd(lr=0.01),
        batch_size=BATCH,
        stop=TargetLoss(target_loss=1e-9, max_epochs=300),
        architecture=ArchitectureSpec(name=name, arguments=checked),
    )


def plain_loop(case: TrainingSetup, device: str, epochs: int) -> float:
    """Seconds of so many epochs of one net."""
    task = case.task_for(0)
    x, y = torch.as_tensor(task.x_train).to(device), torch.as_tensor(task.y_train).to(device)
    net = make_net(case, 0, 1.0, torch.float32).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    order = batch_order(0, len(y))
    start = time.perf_counter()
    for _ in range(epochs):
        for picked in next(order).to(device).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[picked]), y[picked]).backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            output = torch.cat([net(part) for part in x.split(POINTS_AT_ONCE)])
            nn.functional.cross_entropy(output, y).item()  # waits for the device
        net.train()
    return time.perf_counter() - start


def rates(replica_epochs: Callable[[int], tuple[float, float]], seconds: float) -> list[float]:
    """Replica-epochs a second, ``REPEATS`` times, each over enough epochs to be timed."""
    epochs, taken = 1, replica_epochs(1)[1]
    while (taken := replica_epochs(epochs)[1]) < seconds:
        epochs = max(epochs + 1, int(1.2 * epochs * min(10.0, seconds / max(taken, 1e-9))))
    done = [replica_epochs(epochs) for _ in range(REPEATS)]
    return [count / spent for count, spent in done]


def measured(case: TrainingSetup, device: str, seconds: float) -> dict[str, Any]:
    """Both ways of training one setup."""
    task = case.task_for(0)
    rule = resolve_lr_rule(case, task)
    engine = choose_engine(case, rule, device)
    batches = -(-task.n_train // BATCH)

    def by_engine(epochs: int) -> tuple[float, float]:
        return time_training(case, rule, engine, batches, epochs)

    def by_loop(epochs: int) -> tuple[float, float]:
        with exact_arithmetic(device):
            return epochs, plain_loop(case, device, epochs)

    found = {"loop": rates(by_loop, seconds), "engine": rates(by_engine, seconds)}
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    return {
        "task": task.name,
        "n_train": task.n_train,
        "parameters": sum(p.numel() for p in make_net(case, 0, 1.0, torch.float32).parameters()),
        "chosen": asdict(engine),
        "replica_epochs_per_second": found,
        "ratio": statistics.median(found["engine"]) / statistics.median(found["loop"]),
        "peak_bytes": peak,
    }


def hardware(device: str) -> dict[str, Any]:
    """The machine, and the GPU where it is one."""
    told: dict[str, Any] = {key: str(value) for key, value in facts.environment().items()}
    if device == "cuda":
        gpu = torch.cuda.get_device_properties(0)
        told |= {"gpu": gpu.name, "gpu_bytes": gpu.total_memory, "cuda": torch.version.cuda}
    return told


def main(arguments: list[str] | None = None) -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--tiny", action="store_true", help="small nets: does it run?")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(arguments)
    device = choose_device(options.device)
    now = datetime.now(UTC)
    told: dict[str, Any] = {
        "date": now.isoformat(timespec="seconds"), "device": device, "tiny": options.tiny,
        "hardware": hardware(device), "repeats": REPEATS, "batch_size": BATCH, "cases": {},
    }  # fmt: skip
    print(", ".join(f"{key} {value}" for key, value in told["hardware"].items()))
    for name, case in cases(options.tiny).items():
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        one = told["cases"][name] = measured(case, device, 0.01 if options.tiny else SECONDS)
        loop, engine = (
            statistics.median(one["replica_epochs_per_second"][k]) for k in ("loop", "engine")
        )
        print(
            f"{name:<20} loop {loop:9.2f}, {one['chosen']['kind']:>7} {engine:9.2f} "
            f"replica-epochs/s: {one['ratio']:.2f} x (n = {REPEATS})",
            flush=True,
        )
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / f"{device}-{now:%Y%m%d-%H%M%S}{'-tiny' * options.tiny}.json"
    path.write_text(json.dumps(told, indent=2) + "\n")
    print(path)


if __name__ == "__main__":
    main()
