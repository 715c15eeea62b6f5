"""The whole path on one page: what is given -> measured -> swept -> judged -> a Report."""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fls_bench import __version__, tasks
from fls_bench.atlas import atlas_folder, load_atlas, load_models, models_digest
from fls_bench.bundle import Bundle, load_any, save_bundle
from fls_bench.errors import AbsentDataError, InputError, RunFailedError
from fls_bench.facts import (
    advised,
    data_findings,
    environment,
    file_findings,
    gpu_name,
    loss_facts,
    not_run,
    problems_first,
    setup_facts,
)
from fls_bench.metrics import measure
from fls_bench.schema import (
    BundleOutcome,
    CaseResult,
    ClaimResult,
    Cost,
    Diagnosis,
    Evaluation,
    Finding,
    Invariants,
    Judgement,
    Measurement,
    Outcome,
    Provenance,
    Reading,
    Recipe,
    Report,
    RunConfig,
    SelfTest,
    Skipped,
    TheorySpec,
    Tier,
    Tuning,
)
from fls_bench.store import RunStore, default_path
from fls_bench.subject import (
    NOTHING,
    Given,
    Subject,
    built_in_setup,
    from_bundle,
    from_checkpoint,
    from_run,
)
from fls_bench.subject.observing import Look
from fls_bench.suite import Case, InterventionSpec, Suite
from fls_bench.sweep import (
    Listener,
    Prepared,
    Stores,
    SweepPlan,
    prepare,
    replica_epochs_for,
    run_sweep,
)
from fls_bench.training import (
    LOCAL,
    TRAINING_FAILED,
    Backend,
    check_setup,
    choose_device,
    resolve_error,
    resolve_lr_rule,
    resolve_stop,
    train_one,
    user_code,
)
from fls_bench.training_setup import TrainingSetup
from fls_bench.verdict.diagnosis import (
    diagnose,
    from_reading,
    measured_at,
    reading_finding,
    without_budget,
    without_sweep,
)
from fls_bench.verdict.evidence import Evidence
from fls_bench.verdict.reading.model import read

if TYPE_CHECKING:
    from fls_bench.verdict.claims.cases import ClaimCase

J = TypeVar("J", bound=Judgement)

MIN_LOOK = 6
"""Seeds of a sweep's first look."""

FIRST_SEED, SEEDS_APART = 1000, 1000
"""The first seed of ``--seed 0``, and how far those of the next one are from it."""


@dataclass(frozen=True)
class Options:
    """What every command shares.

    Attributes:
        listener: Told what happens.
        seed: Chooses the seeds of the sweep.
        max_seeds: Most seeds per multiplier.
        fixed_seeds: So many seeds everywhere and one look, as suites ask for; None: adaptive.
        budget_seconds: Wall-clock budget of the sweep, turned once into replica-epochs.
        max_epochs: In place of the setup's own limit, or None.
        jobs: Batches or processes at a time; None: one per core, or per slot of a cluster.
        device: ``auto``, ``cpu`` or ``cuda``.
        store: Folder of the stored runs; None: the user's cache; False: nothing is stored.
        backend: Where runs are trained.
    """

    listener: Listener
    seed: int = 0
    max_seeds: int = 20
    fixed_seeds: int | None = None
    budget_seconds: float = 600.0
    max_epochs: int | None = None
    jobs: int | None = None
    device: str = "cpu"
    store: Path | bool | None = None
    backend: Backend = LOCAL
    started: float = field(default_factory=time.perf_counter)
    clock: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))

    @property
    def num_jobs(self) -> int:
        """Batches or processes at a time."""
        import joblib

        return self.jobs or self.backend.slots or max(1, joblib.cpu_count())

    def plan(self) -> SweepPlan:
        """Looks at 6 seeds, half way, and at the most; seeds apart from those people train with."""
        first, most = min(MIN_LOOK, self.max_seeds), self.max_seeds
        looks = tuple(sorted({first, (first + most) // 2, most}))
        if self.fixed_seeds is not None:
            looks = (min(self.fixed_seeds, most),)
        return SweepPlan(seeds=looks, first_seed=FIRST_SEED + SEEDS_APART * self.seed)


# --- commands -------------------------------------------------------------------------------


def train(
    setup: TrainingSetup, path: Path, *, seed: int, force: bool, device: str = "cpu"
) -> dict[str, Any]:
    """Train a built-in net once and write it as a model file.

    Args:
        setup: From ``built_in_setup``.
        path: Where to write.
        seed: Seed of weights, data and order.
        force: Whether an existing file may be replaced.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        What happened, as plain values: outcome, epochs, errors.

    Raises:
        InputError: The setup can't be trained or the file not written.
        RunFailedError: Training diverged or failed, so there is no net to write.
    """
    task = check_setup(setup, seed)
    setup = resolve_stop(resolve_error(setup, task), task)
    rule = resolve_lr_rule(setup, task)
    run, record = train_one(setup, rule, own_run(setup, seed), device=choose_device(device))
    if run.outcome in (Outcome.DIVERGED, Outcome.FAILED):
        raise RunFailedError(f"{run.outcome.sentence} Nothing was written.", "Try a smaller --lr.")
    save_bundle(
        path,
        dict(run.final),
        initial_state=dict(run.init),
        task=task,
        recipe=Recipe(
            loss=setup.loss, label_smoothing=setup.label_smoothing,
            optimizer=setup.known_optimizer, lr_rule=rule, batch_size=setup.batch_size,
            augmentation=setup.augmentation, stop=setup.stop, seed=seed, data_seed=seed,
        ),
        outcome=BundleOutcome(
            status=run.outcome, epochs=run.epochs, steps=run.steps, train_loss=run.train_loss
        ),
        output_multiplier=setup.output_multiplier,
        init_scale=setup.init_scale,
        centered=setup.centered,
        architecture=setup.architecture,
        feature_layer=setup.feature_layer,
        force=force,
    )  # fmt: skip
    return {
        "lr": setup.known_optimizer.lr,
        "num_parameters": sum(value.numel() for value in run.final.values()),
        **record.model_dump(include={"outcome", "epochs", "train_loss", "test_error"}),
    }


def diagnose_file(path: Path, options: Options, given: Given = NOTHING) -> Report:
    """Diagnose a model file or anyone's checkpoint with the best evidence that there is.

    Args:
        path: The file.
        options: Seeds, budget, store.
        given: What the user gives beside it: the net's builder, data, initial weights, a setup.

    Returns:
        The report.

    Raises:
        InputError: The file, or what was given, can't be used.
    """
    file = load_any(path, given.allow)
    if isinstance(file, Bundle):
        subject = from_bundle(file, given)
    else:
        subject = from_checkpoint(file, given)
        options.listener.note(f"{path}: {file.kind} of {len(file.tensors)} tensors")
    if given.builder is not None and ":" in given.builder:
        options.listener.note(f"--model {given.builder}: your own code was imported and run")
    setup = None if given.observe_only else subject.setup
    prepared = None if setup is None else make_ready(setup, options)
    judged = judge(subject, prepared, options)
    return make_report(options, "diagnose", judged, engines=[] if prepared is None else [prepared])


def diagnose_setup(setup: TrainingSetup, options: Options) -> Report:
    """Diagnose a training setup: its net is trained here.

    Args:
        setup: The setup.
        options: Seeds, budget, store.

    Returns:
        The report.

    Raises:
        InputError: The setup can't be trained.
    """
    prepared = make_ready(setup, options)
    judged = judge(_train_subject(prepared), prepared, options)
    return make_report(options, "diagnose", judged, engines=[prepared])


def run(suite: Suite, options: Options, setup: TrainingSetup | None = None) -> Report:
    """Run every case of a suite.

    Args:
        suite: The suite.
        options: Seeds, budget, store.
        setup: Replaces every case's task and model; expectations then don't apply.

    Returns:
        A report of kind ``suite``.

    Raises:
        InputError: A case can't be set up.
    """
    if suite.intervention is not None and setup is not None:
        raise InputError(
            f"The suite {suite.name} intervenes on the ranks of built-in nets.",
            "Leave --setup out, or write a suite file with your task and size of net.",
        )
    if suite.evaluation is not None or suite.atlas is not None:
        return _read_out(suite, options, setup)
    options = replace(options, fixed_seeds=suite.seeds)
    if suite.claim is not None and setup is None:
        return _run_claim(suite, options)
    if suite.theory is not None:
        return _run_theory(suite, suite.theory, options, setup)
    setups = [(case, setup or case_setup(suite, case)) for case in suite.cases]
    results: list[CaseResult] = []
    engines: list[Prepared] = []
    for case, own in setups[: 1 if setup else None]:
        options.listener.note(f"case {case.id if setup is None else own.name}")
        if suite.intervention is not None and case.c_low is not None:
            result, prepared = _intervene(suite.intervention, case, case.c_low, own, options)
            results.append(result)
            engines.append(prepared)
            continue
        grid = None if case.log2_c is None or setup is not None else case.log2_c.values
        prepared = make_ready(own, options, grid)
        engines.append(prepared)
        judged = judge(_train_subject(prepared), prepared, options)
        if setup is not None and len(suite.cases) > 1:
            why = "--setup replaces every case's task and model, so one sweep stands for them all."
            left = Skipped(
                what=f"the {len(suite.cases)} cases of the suite", code="setup", reason=why
            )
            judged = judged.model_copy(update={"skipped": (left, *judged.skipped)})
        expect = {} if setup is not None or case.expect is None else case.expect.model_dump(
            mode="json", exclude_none=True
        )  # fmt: skip
        results.append(
            CaseResult(
                id=own.name if setup is not None else case.id,
                expect=expect,
                met=_met(judged, expect) if expect else None,
                **{name: getattr(judged, name) for name in Judgement.model_fields},
            )
        )
    return make_report(options, "suite", None, suite, tuple(results), engines)


def _read_out(suite: Suite, options: Options, setup: TrainingSetup | None) -> Report:
    """A suite that judges the reading of single nets, on the committed atlas."""
    if suite.evaluation is None:
        raise InputError(
            f"The suite {suite.name} is trained to calibrate the reading of single nets.",
            f"Use fls-bench calibrate --survey {suite.name}.",
        )
    if setup is not None:
        raise InputError(
            f"The suite {suite.name} judges the reading on the atlas.", "Leave --setup out."
        )
    from fls_bench.calibrating import labelled
    from fls_bench.evaluating import evaluate

    atlas = labelled(load_atlas(atlas_folder()))
    found = evaluate(
        atlas, suite.evaluation, models_sha256=models_digest(), tell=options.listener.note
    )
    return make_report(options, "suite", None, suite, evaluation=found)


def _run_claim(suite: Suite, options: Options) -> Report:
    """A suite that tests a claim: all cases, but those whose data or GPU are not here."""
    from fls_bench.claim_cases import judge_claim, run_claim_case

    device = choose_device(options.device)
    results: list[CaseResult] = []
    judged: list[ClaimCase] = []
    engines: list[Prepared] = []
    skipped: list[Skipped] = []
    options.listener.note(
        f"{suite.name}: {len(suite.cases)} case{'s' * (len(suite.cases) != 1)}, about "
        f"{_duration(suite.cost.seconds)} on 2 CPU cores"
    )
    for k, case in enumerate(suite.cases, start=1):
        if case.needs_gpu and device != "cuda":
            skipped.append(Skipped(what=case.id, code="needs_gpu", reason="It needs a GPU."))
            continue
        options.listener.note(f"case {k} of {len(suite.cases)}: {case.id}")
        try:
            setup = case_setup(suite, case)
        except AbsentDataError as error:
            skipped.append(Skipped(what=case.id, code="no_data", reason=str(error)))
            continue
        setup = _limited(setup, options)
        own = setup.init_scale if setup.axis == "init_scale" else setup.output_multiplier
        assert case.log2_c is not None
        result, one, prepared = run_claim_case(
            case, setup, [math.log2(value / own) for value in case.log2_c.values],
            replace(options, fixed_seeds=case.seeds or suite.seeds).plan(),
            stores=stores_of(options), listener=options.listener, jobs=options.num_jobs,
            device=device, backend=options.backend,
        )  # fmt: skip
        met = _met(result, result.expect) if result.expect else None
        results.append(result.model_copy(update={"met": met}))
        judged.append(one)
        engines.append(prepared)
    claims = judge_claim(suite, judged, skipped)
    return make_report(options, "suite", None, suite, tuple(results), engines, claims=claims)


def _run_theory(
    suite: Suite, spec: TheorySpec, options: Options, setup: TrainingSetup | None
) -> Report:
    if setup is not None:
        raise InputError(
            f"The suite {suite.name} is about the two-layer theory.",
            "Leave --setup out, or write a suite file with your mixture and width.",
        )
    from fls_bench.claim_cases import run_theory_case

    case = suite.cases[0]
    own = case_setup(suite, case)
    result, claims = run_theory_case(
        case, own, spec, options.plan(), stores=stores_of(options), listener=options.listener
    )
    return make_report(options, "suite", None, suite, (result,), claims=claims)


def _intervene(
    spec: InterventionSpec, case: Case, c_low: float, setup: TrainingSetup, options: Options
) -> tuple[CaseResult, Prepared]:
    """One case of a suite of interventions; the budget does not bound it."""
    from fls_bench.intervention import run_intervention

    setup = _limited(setup, options)
    first = spec.first_seed + 1000 * options.seed
    plan = replace(options.plan(), first_seed=first)
    prepared, intervention, cost = run_intervention(
        setup, spec, c_low, plan, stores=stores_of(options), listener=options.listener,
        jobs=options.num_jobs, device=choose_device(options.device), backend=options.backend,
    )  # fmt: skip
    result = CaseResult(
        id=case.id,
        intervention=intervention,
        setup=setup_facts(prepared.setup, prepared.setup.task_for(first), prepared.rule),
        cost=cost,
    )
    return result, prepared


def _limited(setup: TrainingSetup, options: Options) -> TrainingSetup:
    """The setup with the most epochs that the options allow, where they say so."""
    if options.max_epochs is None:
        return setup
    stop = setup.stop.model_copy(update={"max_epochs": options.max_epochs})
    return replace(setup, stop=stop)


def _met(judged: Judgement, expect: dict[str, str]) -> bool:
    diagnosis = judged.diagnosis
    assert diagnosis is not None
    mechanism = None if diagnosis.mechanism is None else diagnosis.mechanism.code
    return diagnosis.regime.value == expect["regime"] and expect.get("mechanism") in (
        None, mechanism,
    )  # fmt: skip


def case_setup(suite: Suite, case: Case) -> TrainingSetup:
    """The training setup of a suite's case.

    Args:
        suite: The suite, for its defaults.
        case: One of its cases.

    Returns:
        The setup; ``lr`` in a suite is the rate at c = alpha = 1.

    Raises:
        InputError: Task or model arguments are wrong.
    """
    recipe = suite.recipe(case)
    source = tasks.task_source(case.task.name, case.task.arguments)
    if case.alter is not None:
        source = tasks.altered(source, **case.alter.model_dump())
    return built_in_setup(
        case.model.name,
        case.model.arguments,
        source,
        recipe,
        base_lr=recipe.optimizer.lr,
        output_multiplier=case.model.output_multiplier,
        init_scale=case.model.init_scale,
        centered=case.model.centered,
        axis=case.axis,
        label=case.id,
    )


# --- one judgement --------------------------------------------------------------------------


def make_ready(
    setup: TrainingSetup,
    options: Options,
    grid: tuple[float, ...] | None = None,
    plan: SweepPlan | None = None,
) -> Prepared:
    """Make the setup ready, turn the budget into replica-epochs, and say what a sweep costs at most.

    Args:
        setup: The setup.
        options: Budget, epochs, seeds.
        grid: A fixed grid of values on the sweep's axis, in place of the adaptive one.
        plan: In place of the options' own.

    Returns:
        The setup, ready, with its budget in the plan.

    Raises:
        InputError: The setup can't be trained.
    """
    setup = _limited(setup, options)
    own = setup.init_scale if setup.axis == "init_scale" else setup.output_multiplier
    offsets = None if grid is None else [math.log2(value / own) for value in grid]
    stores, device = stores_of(options), choose_device(options.device)
    plan = plan or options.plan()
    prepared = prepare(
        setup, plan, stores=stores, device=device, offsets=offsets, backend=options.backend
    )
    plan, engine = prepared.plan, prepared.engine
    budget = replica_epochs_for(
        prepared.setup, prepared.rule, engine, options.budget_seconds, options.num_jobs
    )
    first = len(plan.coarse if grid is None else grid) * plan.seeds[0]
    at_most = first * prepared.setup.stop.max_epochs
    speed = budget / options.budget_seconds
    options.listener.note(f"learning-rate rule {prepared.rule.name}; {engine.kind}: {engine.why}")
    options.listener.note(
        f"sweep of {setup.name}: first {first} runs of at most {prepared.setup.stop.max_epochs} epochs "
        f"({at_most:,} replica-epochs, at most {_duration(at_most / speed)} at {speed:,.0f} a "
        f"second); budget {_duration(options.budget_seconds)} = {budget:,} replica-epochs"
    )
    return replace(prepared, plan=replace(plan, budget=budget))


def judge(
    subject: Subject,
    prepared: Prepared | None,
    options: Options,
) -> Judgement:
    """Measure, sweep where the evidence allows, and judge.

    Args:
        subject: What is judged.
        prepared: Its setup, made ready; None below T3.
        options: Store and jobs.

    Returns:
        The judgement.
    """
    measurements: tuple[Measurement, ...] = ()
    skipped: list[Skipped] = []
    reading = None if subject.look is None else read_regime(subject.look, subject.findings)
    facts: dict[str, Any] = dict(subject.facts)
    findings: list[Finding] = list(subject.findings)
    if subject.snapshot is not None and subject.task is not None:
        look = subject.look if subject.only_looked_at else None
        measurements = measure(subject.snapshot) if look is None else look.measurements
        found, told = loss_facts(subject)
        findings += told
        facts.update(found)
    else:
        skipped.append(Skipped(what="all metrics", code="no_model_run", reason=subject.why))

    def unswept(diagnosis: Diagnosis, code: str, why: str, cost: Cost) -> Judgement:
        return Judgement(
            diagnosis=diagnosis.model_copy(update={"findings": problems_first(findings)}),
            measurements=measurements,
            reading=reading,
            skipped=(Skipped(what="sweep over c", code=code, reason=why), *skipped),
            input=facts,
            cost=cost,
        )

    if prepared is None or subject.task is None:
        why, code = subject.why, f"tier_{subject.tier}"
        if subject.only_looked_at and subject.tier is Tier.T3:
            why, code = OBSERVED_ONLY, "observe_only"
        diagnosis = (
            without_sweep(subject.tier, why)
            if reading is None
            else from_reading(
                reading,
                subject.tier,
                "" if subject.tier is Tier.T3 else why,
                multiplier_of(subject),
            )
        )
        return unswept(diagnosis, code, why, Cost())
    setup = prepared.setup
    result = run_sweep(
        prepared, stores=stores_of(options), listener=options.listener, jobs=options.num_jobs
    )
    judged = [cell.usable for cell in result.sweep.cells if cell.c == prepared.own]
    if result.decision is None and result.cost.budget_bound and judged != [False]:
        # What was spent did not do, as on rates; three seeds of five multipliers come on top.
        epochs = result.cost.replica_epochs + 15 * setup.stop.max_epochs
        needed = options.budget_seconds * epochs / (prepared.plan.budget or 1)
        why = (
            f"The budget of {prepared.plan.budget:,} replica-epochs does not pay for three seeds of "
            f"a sweep; --budget {math.ceil(needed)}s would at most be needed."
        )
        diagnosis = (
            without_budget(why)
            if reading is None
            else from_reading(reading, subject.tier, why, multiplier_of(subject))
        )
        return unswept(diagnosis, "budget", why, result.cost)
    own = prepared.own
    diagnosis = diagnose(
        Evidence(
            result.sweep, own, result.gain, result.centered, measurements, result.cost,
            result.complete, advised(setup), result.rates, result.plain,
        )
    )  # fmt: skip
    findings += data_findings(setup, subject.task)
    findings += file_findings(subject, result.sweep, own)
    findings += [] if reading is None else [reading_finding(reading, diagnosis.regime)]
    star = None if diagnosis.c_star is None else diagnosis.c_star.value
    return Judgement(
        diagnosis=diagnosis.model_copy(
            update={"findings": problems_first([*diagnosis.findings, *findings])}
        ),
        measurements=(*measurements, *measured_at(result.sweep, own, star)),
        reading=reading,
        sweep=result.sweep,
        centered_sweep=result.centered,
        plain_sweep=result.plain,
        rate_comparisons=result.rates,
        skipped=(*not_run(setup, result, diagnosis.regime), *skipped),
        setup=setup_facts(setup, subject.task, result.sweep.lr_rule),
        input=facts,
        cost=result.cost,
    )


def multiplier_of(subject: Subject) -> float | None:
    """The net's own c, where a recipe or a header says it."""
    setup = subject.setup
    return None if setup is None or setup.axis == "init_scale" else setup.output_multiplier


OBSERVED_ONLY = "--observe-only was given, so no net was trained at another c."


def read_regime(look: Look, findings: Sequence[Finding] = ()) -> Reading:
    """The regime of one net, read by the committed model.

    Args:
        look: The net on the part of its data that is looked at.
        findings: Of the net; initial weights that are hardly its own are not read by.

    Returns:
        The reading.
    """
    doubted = not {"init_unlike", "init_is_final"}.isdisjoint(one.code for one in findings)
    if doubted and not look.snapshot.centered:  # a centred net's outputs rest on its init
        look = look.without_init()
    missing = "" if look.evidence.startswith("T2") else "the initial weights (--init)"
    if doubted:
        missing = "the initial weights of this run (those given are hardly its own)"
    if not look.has_test:
        points = "test points (without them it can't be told whether the net learned anything)"
        missing = " and ".join(filter(None, (missing, points)))
    return read(
        load_models(), look.evidence, look.columns, missing, has_signal=look.beats_chance,
        too_few=look.too_few, trusted=not (doubted and look.snapshot.centered),
        foreign=look.foreign,
    )  # fmt: skip


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def stores_of(options: Options) -> Stores:
    """Where the runs of each setup are kept, as the options say."""
    told: set[Path] = set()

    def store(digest: str) -> RunStore | None:
        if options.store is False:
            return None
        if isinstance(options.store, Path):
            try:
                options.store.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(
                    f"The folder {options.store} can't be made: {error.strerror}.",
                    "Name another one with --store, or pass --no-store.",
                ) from None
            found = RunStore(options.store / f"{digest[:16]}.jsonl")
        else:
            try:
                found = RunStore(default_path(digest))
            except (InputError, OSError) as error:
                options.listener.note(f"runs are not stored: {error}")
                return None
        known = found.load()
        if known and found.path not in told:
            told.add(found.path)
            options.listener.note(f"resuming: {len(known)} runs of this setup in {found.path}")
        if found.num_damaged:
            options.listener.note(f"{found.num_damaged} damaged lines of the store are left out")
        return found

    return store


def own_run(setup: TrainingSetup, seed: int) -> RunConfig:
    """The run of a setup as it is, at its own c and rate."""
    return RunConfig(
        setup_digest="own", c=setup.output_multiplier, init_scale=setup.init_scale,
        lr=setup.known_optimizer.lr, seed=seed, centered=setup.centered,
        max_epochs=setup.stop.max_epochs,
    )  # fmt: skip


def _train_subject(prepared: Prepared) -> Subject:
    """Train the setup once, for the metrics that need a whole net."""
    setup, seed = prepared.setup, prepared.plan.first_seed
    task = setup.task_for(seed)
    if prepared.plan.budget is not None and setup.stop.max_epochs > prepared.plan.budget:
        why = "The budget does not pay for one more net to measure."
        return Subject(setup, task, None, Tier.T3, why, {})
    with user_code(TRAINING_FAILED, "Correct the model, or what it is trained on."):
        device = prepared.engine.device
        trained, _ = train_one(setup, prepared.rule, own_run(setup, seed), device=device)
    if trained.outcome in (Outcome.DIVERGED, Outcome.FAILED):
        facts = {"trained_here": f"seed {seed}, {trained.outcome.value}"}
        return Subject(setup, task, None, Tier.T3, trained.outcome.sentence, facts)
    return from_run(setup, trained)


def make_report(
    options: Options,
    kind: Any,
    judgement: Judgement | None,
    suite: Suite | None = None,
    cases: tuple[CaseResult, ...] = (),
    engines: Sequence[Prepared] = (),
    tuning: Tuning | None = None,
    invariants: Invariants | None = None,
    claims: tuple[ClaimResult, ...] = (),
    selftest: SelfTest | None = None,
    evaluation: Evaluation | None = None,
) -> Report:
    """A report of any kind, with its provenance.

    Args:
        options: When the command started, on how many cores.
        kind: As in ``Report``.
        judgement: What it holds, except for a suite.
        suite: The suite, for that kind.
        cases: Its cases.
        engines: What was trained, for how.
        tuning: For the kind ``tune``.
        invariants: For the kind ``invariants``.
        claims: Of a suite that tests claims.
        selftest: For the kind ``selftest``.
        evaluation: Of a suite that evaluates the reading.

    Returns:
        The report.
    """
    facts = environment()
    device = engines[0].engine.device if engines else "cpu"
    # A budget is a measured number: where it did not bind, it is no part of the result.
    budgets = [one.cost.budget_replica_epochs for one in (judgement, *cases) if one is not None]
    known = [str(budget) for budget in budgets if budget is not None]
    judgement = None if judgement is None else _unmeasured(judgement)
    cases = tuple(_unmeasured(case) for case in cases)
    fields = {} if judgement is None else {
        name: getattr(judgement, name) for name in Judgement.model_fields
    }  # fmt: skip
    return Report(
        kind=kind,
        suite=None if suite is None else suite_facts(suite),
        cases=cases,
        claims=claims,
        **({"cost": _total(cases)} if claims else {}),
        tuning=tuning,
        invariants=invariants,
        selftest=selftest,
        evaluation=evaluation,
        provenance=Provenance(
            version=__version__,
            torch=facts["torch"],
            blas=facts["blas"],
            threads=options.num_jobs,
            device=device,
            started=options.clock.isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - options.started, 2),
            extra={
                **{
                    key: facts[key]
                    for key in ("python", "numpy", "scikit-learn", "platform", "cpu")
                },
                **{
                    f"engine of {k.setup.name}": f"{k.engine.kind}: {k.engine.why}" for k in engines
                },
                **({"budget in replica-epochs": ", ".join(known)} if known else {}),
                **({"gpu": gpu_name(device)} if device.startswith("cuda") else {}),
                **({"backend": options.backend.kind} if options.backend.kind != "auto" else {}),
            },
        ),
        **fields,
    )


def _total(cases: Sequence[CaseResult]) -> Cost:
    """What all cases cost together."""
    return Cost(
        replica_epochs=sum(case.cost.replica_epochs for case in cases),
        num_runs=sum(case.cost.num_runs for case in cases),
    )


def suite_facts(suite: Suite) -> dict[str, Any]:
    """By what a suite is known in reports and baselines."""
    return {"name": suite.name, "version": suite.version, "digest": suite.digest}


def _unmeasured(judgement: J) -> J:
    """The judgement without a budget that did not bind."""
    if judgement.cost.budget_bound:
        return judgement
    cost = judgement.cost.model_copy(update={"budget_replica_epochs": None})
    return judgement.model_copy(update={"cost": cost})
