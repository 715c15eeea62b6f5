"""A suite: its cases, how they are run at a scale, and what ``check`` gates of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from fls_bench import gates, scaling
from fls_bench.errors import InputError
from fls_bench.schema import EvaluationSpec, Frozen, Gate, Recipe, TheorySpec, canonical_digest
from fls_bench.suite.problems import did_you_mean
from fls_bench.suite.tables import (
    AtlasSpec,
    Case,
    Defaults,
    InterventionSpec,
    Name,
    ScaleSpec,
    SuiteCost,
)

Scale = Literal["small", "full"]
SweptClaim = Literal["C1", "C2", "C3", "C4"]
"""Claims that are judged from sweeps; C5 and C6 from gradient flow."""


class Suite(Frozen):
    """A suite file, schema 1."""

    model_config = ConfigDict(serialize_by_alias=True)
    schema_: Annotated[Literal[1], Field(alias="schema")]
    name: Name
    version: Annotated[int, Field(ge=1)]
    title: str | None = None
    cost: SuiteCost
    sources: tuple[str, ...]
    seeds: Annotated[int, Field(ge=3, le=1000)] = 10
    defaults: Defaults = Defaults()
    intervention: InterventionSpec | None = None
    """In place of a sweep: what is done to the ranks of hidden layers, in every case."""
    claim: SweptClaim | None = None
    """The claim of the paper that the cases' sweeps are judged for, beside each case's own verdict."""
    atlas: AtlasSpec | None = None
    """In place of verdicts: the runs of all cases are measured, for the reading of single nets."""
    theory: TheorySpec | None = None
    """In place of a sweep: gradient flow over alpha of the suite's one case, for claims C5 and C6."""
    evaluation: EvaluationSpec | None = None
    """In place of cases: the reading of single nets is judged on the atlas, out of sample."""
    cases: Annotated[tuple[Case, ...], Field(alias="case")] = ()
    scale: dict[Scale, ScaleSpec] = Field(default_factory=dict)
    gate: dict[str, Gate] = Field(default_factory=dict)
    """Metric of a run -> when ``check`` calls its change a regression."""

    @model_validator(mode="after")
    def _has_cases(self) -> Suite:
        if bool(self.cases) is (self.evaluation is not None):
            raise ValueError("a suite has cases, or [evaluation] in their place")
        return self

    @model_validator(mode="after")
    def _distinct_ids(self) -> Suite:
        ids = [case.id for case in self.cases]
        for twice in sorted({id_ for id_ in ids if ids.count(id_) > 1}):
            raise ValueError(f"two cases have the id {twice!r}")
        for case in self.cases:
            if (case.c_low is None) is (self.intervention is not None):
                with_it = "with" if self.intervention is not None else "without"
                raise ValueError(
                    f"case {case.id!r}: a suite {with_it} [intervention] has cases {with_it} c_low"
                )
        return self

    @model_validator(mode="after")
    def _claim_has_what_it_needs(self) -> Suite:
        keys = ("family", "difficulty", "seeds", "beside", "needs_gpu")
        for case in self.cases:
            told = [key for key in keys if getattr(case, key) is not None]
            if self.atlas is not None and (case.log2_c is None or case.family is None):
                raise ValueError(f"case {case.id!r}: an atlas needs log2_c and family")
            if told and self.claim is None and self.atlas is None:
                raise ValueError(f"case {case.id!r}: {told[0]} goes with a suite that has a claim")
            if self.claim is not None and case.log2_c is None:
                raise ValueError(f"case {case.id!r}: a suite with a claim has cases with log2_c")
            if self.claim == "C2" and case.difficulty is None and case.expect is None:
                raise ValueError(f"case {case.id!r}: claim C2 needs the case's difficulty")
        kinds = (self.claim, self.intervention, self.theory, self.atlas)
        if sum(kind is not None for kind in kinds) > 1:
            raise ValueError("a suite has one of claim, [intervention], [theory] and [atlas]")
        if self.theory is not None and (len(self.cases) > 1 or self.cases[0].log2_c is not None):
            raise ValueError("a suite with [theory] has one case, and no log2_c")
        known = {case.id for case in self.cases} | {case.family for case in self.cases}
        for name, scale in self.scale.items():
            if (scale.theory is not None and self.theory is None) or (
                scale.log2_c is not None and self.claim is None
            ):
                key = "theory" if scale.theory is not None else "log2_c"
                raise ValueError(f"scale.{name}: {key} does not go with this kind of suite")
            for chosen in scale.cases or ():
                if chosen not in known:
                    raise ValueError(f"scale.{name}: there is no case or family {chosen!r}")
        return self

    @model_validator(mode="after")
    def _gates_can_decide(self) -> Suite:
        if not self.gate:
            return self
        if self.intervention is not None:
            raise ValueError("a suite of interventions has no runs at a setup's own c to gate")
        for name in sorted(set(self.gate) - set(gates.RUN_VALUES)):
            raise ValueError(f"gate: unknown metric {name!r}{did_you_mean(name, gates.RUN_VALUES)}")
        chosen = self.gates
        if len(chosen) > gates.MAX_GATES:
            raise ValueError(
                f"gate: {len(chosen)} metrics are gated ({gates.REACHED} always is), and at most "
                f"{gates.MAX_GATES} can be"
            )
        if too_few := self.too_few_seeds:
            raise ValueError(too_few)
        return self

    def at_scale(self, scale: Scale) -> Suite:
        """The suite as it is run at a scale.

        Args:
            scale: ``full`` is the suite as it stands; ``small`` what ``[scale.small]`` keeps of it,
                under a name of its own, so that baselines of both can lie side by side.

        Returns:
            A suite without scales.

        Raises:
            InputError: It has no such scale.
        """
        spec = self.scale.get(scale, ScaleSpec() if scale == "full" else None)
        if spec is None:
            raise InputError(
                f"The suite {self.name} has no scale {scale}.",
                f"Leave --scale out, or add a table [scale.{scale}] to its file.",
            )
        chosen = set(spec.cases or ())
        cases = [k for k in self.cases if not chosen or {k.id, k.family} & chosen]
        if spec.seeds is not None:
            cases = [k.model_copy(update={"seeds": None}) for k in cases]
        if spec.log2_c is not None:
            cases = [k.model_copy(update={"log2_c": spec.log2_c}) for k in cases]
        return self.model_copy(
            update={
                "name": self.name if scale == "full" else f"{self.name}-{scale}",
                "seeds": spec.seeds or self.seeds,
                "cases": tuple(cases),
                "theory": spec.theory or self.theory,
                "cost": spec.cost or self.cost,
                "scale": {},
            }
        )

    @property
    def too_few_seeds(self) -> str | None:
        """Why its seeds can't decide its gates, or None."""
        tests, needed = (
            count(self.gates, len(self.cases)) for count in (gates.num_tests, gates.seeds_for)
        )
        if self.seeds >= needed:
            return None
        return (
            f"seeds = {self.seeds} can't decide {tests} tests ({len(self.cases)} cases): sign flips "
            f"reach the level {gates.LEVEL:g}/{max(1, tests)} with {needed} seeds, so raise seeds, or "
            "gate fewer metrics"
        )

    @property
    def gates(self) -> dict[str, Gate]:
        """What ``check`` judges: the suite's own choice, or the default."""
        return gates.gates_of(self.gate)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the suite at full scale without title, cost and sources.

        It is that of ``at_scale("full")``, so that a suite and the reports of its runs have one digest;
        what ``[scale.small]`` says is in the digest of the small suite alone.

        Keys that have no value are left out as well, so that a later optional key changes no
        digest of a suite that doesn't use it.
        """
        without = {"title", "cost", "sources"}
        full = self.at_scale("full")
        return canonical_digest(full.model_dump(mode="json", exclude=without, exclude_none=True))

    def recipe(self, case: Case) -> Recipe:
        """How the nets of a case are trained: its own keys, the defaults elsewhere.

        Args:
            case: One of ``cases``.

        Returns:
            The recipe; its seeds are left at zero.
        """
        keys = Defaults.model_fields
        own = {key: value for key in keys if (value := getattr(case, key)) is not None}
        shared = {key: getattr(self.defaults, key) for key in keys}
        if case.lr_rule is not None:
            own["lr_rule"] = scaling.PLAIN
        return Recipe(**{k: v for k, v in (shared | own).items() if v is not None})
