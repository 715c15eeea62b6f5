"""What is judged: a trained net, its data, and how it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fls_bench.metrics import Snapshot
from fls_bench.schema import Finding, Tier
from fls_bench.subject.observing import Look, look_at
from fls_bench.subject.snapshots import snapshot_of
from fls_bench.tasks import Task
from fls_bench.training.runs import TrainedRun
from fls_bench.training_setup import TrainingSetup


@dataclass(frozen=True)
class Subject:
    """A trained net with its data, and, where a recipe is known, the setup that made it.

    Attributes:
        setup: None below T3.
        task: None at T0.
        snapshot: None where there are no data to run the net on.
        tier: The evidence that there is.
        why: Why there is no more.
        facts: What was read, for the report's ``input``.
        findings: What a reader should know of it.
        claim: (training loss that the file claims, the name that it has there), or None.
        file: Whether a file was given.
        measured_by: Its loss is that of the snapshot, also where nothing is known to train again.
        look: What its regime is read from; None where there is no snapshot.
    """

    setup: TrainingSetup | None
    task: Task | None
    snapshot: Snapshot | None
    tier: Tier
    why: str
    facts: Mapping[str, Any]
    findings: tuple[Finding, ...] = ()
    claim: tuple[float, str] | None = None
    file: bool = True
    measured_by: TrainingSetup | None = None
    look: Look | None = None

    @property
    def only_looked_at(self) -> bool:
        """Whether its snapshot is that of the look: nothing more is to be measured."""
        return self.look is not None and self.look.snapshot is self.snapshot


def from_run(setup: TrainingSetup, run: TrainedRun) -> Subject:
    """The subject of a setup that was trained once at its own c.

    Args:
        setup: The setup.
        run: Its run.

    Returns:
        A subject at T3.
    """
    task = setup.task_for(run.config.seed)
    snapshot = snapshot_of(setup, task, run.final, run.init, run.config.seed)
    look = look_at(setup, task, run.final, run.init)
    facts = {
        "num_parameters": sum(value.numel() for value in run.final.values()),
        "trained_here": f"seed {run.config.seed}, {run.outcome.value} after {run.epochs} epochs",
    }
    return Subject(setup, task, snapshot, Tier.T3, "", facts, file=False, look=look)
