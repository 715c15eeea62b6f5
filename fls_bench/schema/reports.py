"""The report: the product that everything else is a view of."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from fls_bench.schema.claims import ClaimResult
from fls_bench.schema.comparisons import Comparison
from fls_bench.schema.evaluations import Evaluation
from fls_bench.schema.invariants import Invariants
from fls_bench.schema.judgements import CaseResult, Judgement, Provenance
from fls_bench.schema.readings import SelfTest
from fls_bench.schema.tuning import Tuning

REPORT_SCHEMA = "fls-bench/report/1"


class Report(Judgement):
    """The product: everything else is a view of it (schema ``fls-bench/report/1``)."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)
    schema_: Annotated[Literal["fls-bench/report/1"], Field(alias="schema")] = REPORT_SCHEMA  # type: ignore[assignment]
    kind: Literal["diagnose", "suite", "tune", "invariants", "check", "compare", "selftest"]
    suite: dict[str, Any] | None = None
    """For kinds ``suite`` and ``check``: name, version, digest."""
    cases: tuple[CaseResult, ...] = ()
    claims: tuple[ClaimResult, ...] = ()
    """For a suite that tests claims of the paper."""
    tuning: Tuning | None = None
    """For kind ``tune``; ``sweep`` then holds the runs of its search at the rule's rates."""
    invariants: Invariants | None = None
    """For kind ``invariants``."""
    evaluation: Evaluation | None = None
    """For a suite that evaluates the reading of single nets."""
    selftest: SelfTest | None = None
    """For kind ``selftest``."""
    comparison: Comparison | None = None
    """For kinds ``check`` and ``compare``."""
    provenance: Provenance
