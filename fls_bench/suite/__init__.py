"""Suites: files of cases in TOML, plain data, each with its cost and sources (suite schema 1)."""

from fls_bench.schema import Log2Grid
from fls_bench.suite.reading import (
    MAX_CASES,
    SUITE_SCHEMA,
    list_suites,
    load_at_scale,
    load_suite,
    suite_folder,
)
from fls_bench.suite.suite import Scale, Suite
from fls_bench.suite.tables import (
    Alteration,
    Case,
    Defaults,
    Expect,
    InterventionSpec,
    RowSpec,
    ScaleSpec,
    SuiteCost,
    SuiteModel,
    SuiteTask,
)

__all__ = [
    "MAX_CASES",
    "SUITE_SCHEMA",
    "Alteration",
    "Case",
    "Defaults",
    "Expect",
    "InterventionSpec",
    "Log2Grid",
    "RowSpec",
    "Scale",
    "ScaleSpec",
    "Suite",
    "SuiteCost",
    "SuiteModel",
    "SuiteTask",
    "list_suites",
    "load_at_scale",
    "load_suite",
    "suite_folder",
]
