"""The adaptive sweep over the output multiplier, paired by seed."""

from fls_bench.sweep.plan import Listener, Prepared, Stores, SweepPlan, SweepResult
from fls_bench.sweep.search import prepare, replica_epochs_for, run_sweep

__all__ = [
    "Listener",
    "Prepared",
    "Stores",
    "SweepPlan",
    "SweepResult",
    "prepare",
    "replica_epochs_for",
    "run_sweep",
]
