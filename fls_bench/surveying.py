"""The atlas is trained: every case of its suite over c, each net measured before it is let go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fls_bench import __version__
from fls_bench.atlas import (
    ATLAS_SCHEMA,
    ERRORS,
    OUTCOMES,
    Shard,
    load_shard,
    save_shard,
    shard_path,
)
from fls_bench.bench import Options, case_setup, stores_of
from fls_bench.errors import InputError
from fls_bench.facts import environment
from fls_bench.schema import Outcome, RunRecord, canonical_digest
from fls_bench.store import RunStore
from fls_bench.subject.observing import observe_run
from fls_bench.suite import Case, Suite
from fls_bench.sweep import Prepared, Stores, prepare
from fls_bench.sweep.sweeper import Sweeper
from fls_bench.training import Observer
from fls_bench.verdict.reading.columns import COLUMNS


def shards_of(suite: Suite) -> list[tuple[Case, ...]]:
    """The cases of each shard, in the suite's order.

    Args:
        suite: One with [atlas].

    Returns:
        Shards of ``[atlas] shard`` cases each.

    Raises:
        InputError: The suite makes no atlas.
    """
    if suite.atlas is None:
        raise InputError(f"The suite {suite.name} makes no atlas.", "Name a suite with [atlas].")
    size = suite.atlas.shard
    return [suite.cases[k : k + size] for k in range(0, len(suite.cases), size)]


def survey(suite: Suite, folder: Path, options: Options, only: tuple[int, ...] = ()) -> None:
    """Train what an atlas lacks, shard by shard.

    A shard that is there, of the same cases and columns, is kept.

    Args:
        suite: One with [atlas].
        folder: Gets the shards.
        options: Store of the runs, jobs (of one shard at a time) and listener.
        only: Numbers of shards; empty: all.

    Raises:
        InputError: A case can't be set up, or the folder not written.
    """
    cases = shards_of(suite)
    missing = [
        k for k in range(len(cases))
        if (not only or k in only) and not _is_there(shard_path(folder, k), suite, cases[k])
    ]  # fmt: skip
    options.listener.note(f"{len(missing)} of {len(cases)} shards are to be trained")
    for k in missing:
        shard = survey_cases(suite, cases[k], options)
        save_shard(shard_path(folder, k), shard)
        options.listener.note(f"shard {k}: {len(shard.case)} nets of {len(cases[k])} cases")


def _is_there(path: Path, suite: Suite, cases: tuple[Case, ...]) -> bool:
    if not path.exists():
        return False
    header = load_shard(path).header
    return bool(
        header["suite"] == _suite_facts(suite)
        and [one.get("digest") for one in header["cases"]] == [_digest(suite, k) for k in cases]
        and tuple(header["columns"]) == COLUMNS
    )


def _digest(suite: Suite, case: Case) -> str:
    """Of all that makes the runs of a case."""
    parts = (case, suite.recipe(case))
    plain = [part.model_dump(mode="json", exclude_none=True) for part in parts]
    return canonical_digest([*plain, case.seeds or suite.seeds])


def _suite_facts(suite: Suite) -> dict[str, Any]:
    return {"name": suite.name, "version": suite.version}


def survey_cases(suite: Suite, cases: tuple[Case, ...], options: Options) -> Shard:
    """Train and measure all runs of some cases.

    Args:
        suite: For its defaults and seeds.
        cases: Some of its cases.
        options: Store of the runs, jobs and listener.

    Returns:
        The shard.
    """
    rows: list[tuple[int, RunRecord]] = []
    facts = []
    for k, case in enumerate(cases):
        records, about = _survey_case(suite, case, options)
        rows += [(k, record) for record in records]
        facts.append(about)
    records = [record for _, record in rows]
    measured = [r.measurements if r.outcome is Outcome.REACHED_TARGET else {} for r in records]
    values = [[one.get(column, math.nan) for column in COLUMNS] for one in measured]
    errors = [[_number(getattr(r, name)) for name in ERRORS] for r in records]
    env = environment()
    return Shard(
        header={
            "schema": ATLAS_SCHEMA,
            "suite": _suite_facts(suite),
            "columns": list(COLUMNS),
            "cases": facts,
            "made_with": {
                "fls-bench": __version__,
                **{key: env[key] for key in ("python", "torch", "numpy", "scikit-learn", "cpu")},
            },
        },
        values=np.array(values, dtype=np.float32),
        case=np.array([k for k, _ in rows]),
        log2_c=np.array([math.log2(r.config.c) for r in records]),
        seed=np.array([r.config.seed for r in records]),
        outcome=np.array([OUTCOMES.index(r.outcome) for r in records]),
        errors=np.array(errors, dtype=np.float32),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def visit_case(
    suite: Suite, case: Case, options: Options, observe: Observer, columns: Sequence[str]
) -> tuple[list[RunRecord], Prepared]:
    """Train one case over its c, and observe each net before it is let go.

    Args:
        suite: For its defaults and seeds.
        case: With its ``log2_c``.
        options: Store of the runs, jobs and listener.
        observe: Net -> column -> number.
        columns: What it measures; runs that were measured by others are not taken from the store.

    Returns:
        (all runs, what they were trained by).
    """
    assert case.log2_c is not None
    setup = case_setup(suite, case)
    values = case.log2_c.values
    seeds = case.seeds or suite.seeds
    plan = replace(options, fixed_seeds=seeds, max_seeds=seeds).plan()
    stores = _apart(stores_of(options), columns)
    offsets = [math.log2(value / setup.output_multiplier) for value in values]
    prepared = prepare(
        setup, plan, stores=stores, device="cpu", offsets=offsets, backend=options.backend
    )
    sweeper = Sweeper.of(prepared, stores, options.listener, options.num_jobs, observe)
    centered = prepared.setup.centered
    sweeper.visit(values, seeds, centered, case.id)
    return [record for value in values for record in sweeper.runs(value, centered)], prepared


def _survey_case(
    suite: Suite, case: Case, options: Options
) -> tuple[list[RunRecord], dict[str, Any]]:
    records, prepared = visit_case(suite, case, options, observe_run, COLUMNS)
    recipe = suite.recipe(case)
    about = {
        "id": case.id,
        "digest": _digest(suite, case),
        "family": case.family,
        "task": case.task.name,
        "alter": None if case.alter is None else case.alter.model_dump(exclude_defaults=True),
        "arguments": dict(case.task.arguments),
        "model": {"name": case.model.name, **case.model.arguments},
        "optimizer": recipe.optimizer.model_dump(exclude_defaults=True)
        | {"kind": recipe.optimizer.kind, "lr": recipe.optimizer.lr},
        "batch_size": recipe.batch_size,
        "stop": recipe.stop.model_dump(),
        "centered": prepared.setup.centered,
        "rule": prepared.rule.name,
        "n_test": prepared.n_test,
        "set_aside": suite.atlas is not None and suite.atlas.sets_aside(case),
    }
    return records, about


def _apart(stores: Stores, columns: Sequence[str]) -> Stores:
    """The runs of an atlas have other measurements than those of a sweep: a store of their own.

    Runs that were measured by other columns are not found in it.
    """
    measured = canonical_digest(list(columns))[:8]

    def store(digest: str) -> RunStore | None:
        own = stores(digest)
        name = "" if own is None else f"atlas-{measured}-{own.path.name}"
        return None if own is None else RunStore(own.path.with_name(name))

    return store
