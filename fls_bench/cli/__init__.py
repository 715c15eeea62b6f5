"""The command line: parse, call one function, set the exit code.

Exit codes: 0 done (an inconclusive verdict included), 1 what was asked for was found (a regression,
a --fail-on condition, a broken invariant), 2 usage or input, 3 a run failed or an internal error, 4
inconclusive with --strict, 5 nothing to compare with, where that was asked for, 130 interrupted, 141
the reader of a pipe went away before the work was done (as of any Unix program).
"""

from fls_bench.cli.app import app
from fls_bench.cli.process import main

# A command registers itself as it is imported: help shows them in this order.
# isort: off
# fmt: off
from fls_bench.cli import train, diagnose, tune, run, check, compare, invariants  # noqa: F401
from fls_bench.cli import calibrate, report, suites, baseline, claims  # noqa: F401
# fmt: on
# isort: on

__all__ = ["app", "main"]
