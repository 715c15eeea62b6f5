"""The adaptive sweep over the output multiplier, paired by seed."""

from fls_bench.sweep.plan import Listener, SweepPlan, SweepResult
from fls_bench.sweep.search import keeping_tasks, replica_epochs_for, run_sweep

__all__ = [
    "Listener",
    "SweepPlan",
    "SweepResult",
    "keeping_tasks",
    "replica_epochs_for",
    "run_sweep",
]
