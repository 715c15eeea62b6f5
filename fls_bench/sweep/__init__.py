"""The adaptive sweep over the output multiplier, and the frugal search for its best, paired by seed."""

from fls_bench.sweep.plan import Listener, Prepared, Stores, SweepPlan, SweepResult
from fls_bench.sweep.search import prepare, replica_epochs_for, run_sweep
from fls_bench.sweep.tuning import TuneResult, tune, tune_plan

__all__ = [
    "Listener",
    "Prepared",
    "Stores",
    "SweepPlan",
    "SweepResult",
    "TuneResult",
    "prepare",
    "replica_epochs_for",
    "run_sweep",
    "tune",
    "tune_plan",
]
