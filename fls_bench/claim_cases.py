"""The cases of a suite that tests a claim of the paper: swept whole, each with a verdict of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from fls_bench.facts import advised, data_findings, intrinsic_dimension, problems_first, setup_facts
from fls_bench.flow_sweep import flow_sweep
from fls_bench.schema import (
    CaseResult,
    ClaimResult,
    Code,
    Cost,
    Diagnosis,
    Skipped,
    Sweep,
    TheorySpec,
)
from fls_bench.suite import Case, Suite
from fls_bench.sweep import Listener, Prepared, Stores, SweepPlan, prepare, run_sweep
from fls_bench.tasks import Task
from fls_bench.training import LOCAL, Backend
from fls_bench.training_setup import TrainingSetup
from fls_bench.verdict.claims.cases import ClaimCase
from fls_bench.verdict.claims.difficulty import judge_difficulty
from fls_bench.verdict.claims.scaling_law import judge_scaling_law
from fls_bench.verdict.claims.stopping import judge_stopping
from fls_bench.verdict.claims.theory import judge_theory
from fls_bench.verdict.claims.universality import judge_universality
from fls_bench.verdict.diagnosis import diagnose
from fls_bench.verdict.evidence import Evidence

JUDGES = {
    "C1": judge_universality,
    "C2": judge_difficulty,
    "C3": judge_stopping,
    "C4": judge_scaling_law,
}


def run_claim_case(
    case: Case,
    setup: TrainingSetup,
    offsets: Sequence[float],
    plan: SweepPlan,
    *,
    stores: Stores,
    listener: Listener,
    jobs: int,
    device: str = "cpu",
    backend: Backend = LOCAL,
) -> tuple[CaseResult, ClaimCase, Prepared]:
    """Sweep a case over its grid with all seeds, and judge its own c.

    No budget cuts it short, and nothing is trained beside the sweep: a claim is judged from the runs
    alone.

    Args:
        case: The case.
        setup: Its setup.
        offsets: Its grid, in octaves relative to the setup's own value.
        plan: Its seeds.
        stores: Where runs are kept: an interrupted suite resumes.
        listener: Told what happens.
        jobs: Batches or processes at a time.
        device: ``cpu`` or ``cuda``.
        backend: Where its runs are trained.

    Returns:
        (the case as the report has it, what the claim's judge sees of it, how it was trained).

    Raises:
        InputError: The setup can't be trained.
    """
    plan = replace(plan, follow_up=False)
    prepared = prepare(setup, plan, stores=stores, device=device, offsets=offsets, backend=backend)
    result = run_sweep(prepared, stores=stores, listener=listener, jobs=jobs)
    task = prepared.setup.task_for(plan.first_seed)
    diagnosis = diagnose(
        Evidence(
            result.sweep, prepared.own, complete=result.complete, advised=advised(prepared.setup),
            cost=result.cost,
        )
    )  # fmt: skip
    found = [*diagnosis.findings, *data_findings(prepared.setup, task)]
    factors = _factors(case, prepared, task)
    made = CaseResult(
        id=case.id,
        diagnosis=_unconfirmed(diagnosis).model_copy(update={"findings": problems_first(found)}),
        sweep=result.sweep,
        setup=setup_facts(prepared.setup, task, result.sweep.lr_rule),
        cost=result.cost,
        expect={}
        if case.expect is None
        else case.expect.model_dump(mode="json", exclude_none=True),
    )
    judged = ClaimCase(
        id=case.id,
        family=case.family or case.id,
        setting=_setting(case, task),
        data=f"{case.task.name} (n = {task.n_train}), {case.model.name}"
        if case.family is None
        else f"{case.task.name}, {case.model.name}",
        factors=factors,
        sweep=result.sweep,
        own=prepared.own,
        stop=prepared.setup.stop,
        difficulty=case.difficulty,
        notes=_notes(case, result.sweep, task),
        shift=_shift(prepared, factors),
        beside=bool(case.beside),
        met=None if case.expect is None else diagnosis.regime == case.expect.regime,
        control=case.expect is not None and case.expect.regime.value == "inconclusive",
    )
    return made, judged, prepared


def run_theory_case(
    case: Case,
    setup: TrainingSetup,
    spec: TheorySpec,
    plan: SweepPlan,
    *,
    stores: Stores,
    listener: Listener,
) -> tuple[CaseResult, tuple[ClaimResult, ...]]:
    """Follow the gradient flow of the two-layer theory over alpha, and judge C5 and C6.

    Args:
        case: The case.
        setup: Its setup; its own alpha is judged like any other's.
        spec: Which alphas, and how finely the flow is followed.
        plan: Its seeds.
        stores: Where runs are kept: an interrupted suite resumes.
        listener: Told what happens.

    Returns:
        (the case as the report has it, C5 and C6).

    Raises:
        InputError: The setup is not that of the theory.
    """
    seeds = [plan.first_seed + k for k in range(plan.seeds[-1])]
    sweep, facts = flow_sweep(setup, spec, seeds, stores=stores, listener=listener)
    cost = Cost(replica_epochs=facts.replica_steps, num_runs=facts.num_runs)  # at all steps
    diagnosis = diagnose(Evidence(sweep, setup.init_scale, advised=advised(setup), cost=cost))
    task = setup.task_for(seeds[0])
    made = CaseResult(
        id=case.id,
        diagnosis=_unconfirmed(diagnosis),
        sweep=sweep,
        setup={
            **setup_facts(setup, task, sweep.lr_rule),
            "gradient_flow": facts.model_dump(mode="json"),
        },
        cost=cost,
    )
    return made, judge_theory(sweep, facts)


def _unconfirmed(diagnosis: Diagnosis) -> Diagnosis:
    """A verdict in the words of a suite that trains no fresh seeds: nobody tried to confirm a gain."""
    if diagnosis.reason.code != "not_confirmed":
        return diagnosis
    reason = Code(
        code="not_confirmed",
        text="Other c did better here; a suite of a claim trains no fresh seeds to confirm by how much.",
    )
    advice = diagnosis.recommendation.model_copy(
        update={"text": "No verdict is drawn from a claim's runs alone: fls-bench diagnose does."}
    )
    return diagnosis.model_copy(update={"reason": reason, "recommendation": advice})


def judge_claim(
    suite: Suite, cases: Sequence[ClaimCase], not_run: Sequence[Skipped]
) -> tuple[ClaimResult, ...]:
    """Judge the suite's claim from its finished cases.

    Args:
        suite: The suite.
        cases: Those that ran.
        not_run: Those that did not, and why.

    Returns:
        The claim; none for a suite without one.
    """
    if suite.claim is None:
        return ()
    made = JUDGES[suite.claim](cases)
    told, failed = [], False
    for case in cases:
        if case.control:
            failed |= case.met is False
            words = (
                "a verdict where labels are random"
                if case.met is False
                else "no verdict, as it should be"
            )
            told.append(f"Negative control {case.id} ({case.setting}): {words}.")
    update: dict[str, object] = {
        "not_run": (*not_run, *made.not_run), "cautions": (*told, *made.cautions)
    }  # fmt: skip
    if failed and made.outcome in ("reproduced", "not_reproduced"):
        update |= {
            "outcome": "undecided",
            "text": f"Undecided, since a negative control failed. {made.text}",
        }
    return (made.model_copy(update=update),)


def _notes(case: Case, sweep: Sweep, task: Task) -> tuple[str, ...]:
    calibrated = [f"2^{math.log2(cell.c):.3g}" for cell in sweep.cells if cell.lr_calibrated]
    notes = [] if case.difficulty is None else [_dimension_note(task)]
    if calibrated:
        notes.append(
            f"the rule's rate failed at {', '.join(calibrated)}: chosen on training behaviour."
        )
    return tuple(notes)


def _dimension_note(task: Task) -> str:
    """The intrinsic dimension of the inputs, as it is measured."""
    found = intrinsic_dimension(task)
    parts = []
    for name, one in (("within a class", found.within), ("of all classes together", found.pooled)):
        figures = [
            f"{kind} {value:.1f}"
            for kind, value in (("MLE", one.mle), ("TwoNN", one.two_nn))
            if value is not None
        ]
        parts.append(f"{name} {' and '.join(figures) or 'not measurable'} (n = {one.n})")
    return f"Intrinsic dimension of the inputs, measured: {', '.join(parts)}."


def _shift(prepared: Prepared, factors: Mapping[str, float]) -> float:
    architecture = prepared.setup.architecture
    if architecture is None or architecture.name != "two_layer":
        return 0.0
    return -math.log2(factors["input_dim"] * factors["width"])


def _setting(case: Case, task: Task) -> str:
    arguments = {"n_train": task.n_train, **case.task.arguments}
    words = [case.task.name, *(f"{key}={value}" for key, value in arguments.items())]
    net = [case.model.name, *(f"{key}={value}" for key, value in case.model.arguments.items())]
    rule = [] if case.lr_rule is None else [f"{case.lr_rule} learning-rate rule"]
    return ", ".join([" ".join(words), " ".join(net), *rule])


def _factors(case: Case, prepared: Prepared, task: Task) -> Mapping[str, float]:
    """Numeric arguments of data and net, defaults included."""
    of_task = {} if task.spec is None else task.spec.arguments
    architecture = prepared.setup.architecture
    of_net = {} if architecture is None else architecture.arguments
    every = {**of_task, **of_net, **case.task.arguments, **case.model.arguments}
    numbers = {k: float(v) for k, v in every.items() if type(v) in (int, float)}
    return {**numbers, "n_train": float(task.n_train)}
