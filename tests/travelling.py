"""What tests send to other processes, which import it by name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import threadpoolctl
import torch

from fls_bench.tasks import Task
from fls_bench.training import Engine
from fls_bench.training.runs import TrainedRun
from fls_bench.training_setup import TrainingSetup


def threads_of(setup: TrainingSetup, task: Task, run: TrainedRun) -> dict[str, float]:
    """The threads that a worker has, while it measures a net."""
    pools = [one["num_threads"] for one in threadpoolctl.threadpool_info()]
    return {"process": os.getpid(), "torch": torch.get_num_threads(), "others": max(pools)}


@dataclass(frozen=True)
class Hungry(Engine):
    """Kills its process by more than so many nets at once, as the kernel does for lack of memory."""

    most: int = 2

    def make(self, setup: Any, rule: Any, configs: Sequence[Any], *others: Any) -> Any:
        if len(configs) > self.most:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().make(setup, rule, configs, *others)


@dataclass(frozen=True)
class Telling:
    """Says in a folder which process measures which run, and takes its time the first time."""

    folder: Path
    seconds: float

    def __call__(self, setup: TrainingSetup, task: Task, run: TrainedRun) -> dict[str, float]:
        first = not any(self.folder.iterdir())
        name = f"{time.monotonic_ns()}-{os.getpid()}"
        (self.folder / name).write_text(run.config.digest)
        if first:
            time.sleep(self.seconds)
        return {"c": run.config.c}
