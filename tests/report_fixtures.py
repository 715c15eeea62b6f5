"""Reports as they come out of the whole path, made up by hand: for tests of views and of the CLI.

The numbers follow the shape of real sweeps, but nothing was trained.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from fls_bench.baselines import side_of_report
from fls_bench.gates import DEFAULT_GATES, gates_of
from fls_bench.schema import (
    Axis,
    BaselineRow,
    CaseResult,
    Cell,
    ClaimCurve,
    ClaimPanel,
    ClaimPart,
    ClaimResult,
    Code,
    Comparison,
    Cost,
    CStar,
    CurvePoint,
    Diagnosis,
    Evaluation,
    EvaluationRow,
    Finding,
    Gain,
    Gate,
    GroupResult,
    Interval,
    Intervention,
    InterventionRow,
    InvariantFinding,
    Invariants,
    LrRule,
    MeasuredExponent,
    Measurement,
    Outcome,
    OutOfRange,
    Placed,
    PlacedCase,
    Provenance,
    Push,
    RateComparison,
    Reading,
    Recommendation,
    ReferenceRange,
    Regime,
    RegimeResult,
    Report,
    ScalingFit,
    SeedResult,
    SelfTest,
    Skipped,
    Sweep,
    Tier,
    Trial,
    Tuning,
)
from fls_bench.verdict.comparison import compare_sides
from fls_bench.verdict.diagnosis import from_reading

# Mean test error by log2 c: digits, three hidden layers, n = 150.
DEEP_DIGITS = {
    -11: 0.185, -9: 0.160, -7: 0.125, -5: 0.112, -4: 0.103, -3: 0.105, -1: 0.119, 1: 0.151,
    3: 0.320,
}  # fmt: skip
LAZY_CENTERED = {-5: 0.112, -3: 0.107, -1: 0.114, 1: 0.126, 3: 0.142}

PROVENANCE = Provenance(
    version="0.1.0",
    torch="2.13.0",
    blas="mkl",
    threads=2,
    started="2026-03-01T12:00:00+00:00",
    seconds=11.25,
    extra={"numpy": "2.4.0"},
)


def cell(
    exponent: float,
    error: float,
    seeds: int,
    *,
    depth: int = 4,
    usable: bool = True,
    reached: int | None = None,
    outcome: Outcome = Outcome.PLATEAU,
) -> Cell:
    """One c with ``seeds`` runs around ``error``; those from ``reached`` on end in ``outcome``."""
    draw = random.Random(round(1000 * exponent) + 7)
    c = 2.0**exponent
    runs = []
    for seed in range(seeds):
        noise = draw.gauss(0, 0.008)
        ended = Outcome.REACHED_TARGET if reached is None or seed < reached else outcome
        gone = ended in (Outcome.DIVERGED, Outcome.FAILED)
        runs.append(
            SeedResult(
                seed=seed,
                outcome=ended,
                epochs=12 + draw.randrange(30),
                train_loss=None if gone else 0.09 + 0.009 * draw.random(),
                val_error=None if gone else min(max(error + noise + draw.gauss(0, 0.004), 0), 1),
                val_loss=None if gone else 3.4 * error + 0.1 + 3 * noise,
                test_error=None if gone else min(max(error + noise, 0), 1),
                test_loss=None if gone else 3.4 * error + 0.08 + 3 * noise,
                test_ties=None if gone else 0.0,
                chance_error=0.9,
                measurements=(
                    {}
                    if gone
                    else {
                        "logits.effective_rank": 4.2 - 9 * (error + noise),
                        "features.effective_rank:layers.2": 6.9 - 15 * (error + noise),
                    }
                ),
                message="OutOfMemoryError: no memory left" if ended is Outcome.FAILED else None,
            )
        )
    return Cell(
        c=c,
        lr=0.1 * min(c ** (-2 / depth), 4 * c**-2),
        lr_calibrated=exponent > 2,
        usable=usable,
        reason=None if usable else f"{reached} of {seeds} runs reached the target.",
        seeds=tuple(runs),
    )


def sweep(
    errors: Mapping[int, float],
    seeds: int = 10,
    *,
    centered: bool = False,
    axis: Axis = "output_multiplier",
    extra: tuple[Cell, ...] = (),
) -> Sweep:
    """A sweep with the given mean test errors by log2 c."""
    return Sweep(
        axis=axis,
        centered=centered,
        lr_rule=LrRule(name="homogeneous", depth=4),
        n_test=1000,
        cells=(*(cell(exponent, error, seeds) for exponent, error in errors.items()), *extra),
    )


def measurements() -> tuple[Measurement, ...]:
    """Values with and without an interval, and one that could not be had."""
    return (
        Measurement(metric="movement.relative", layer="layers.0", value=3.217, n=1),
        Measurement(metric="features.effective_rank", layer="layers.0", split="test", value=23.4,
                    low=22.1, high=24.9, n=1000, unit="dimensions"),
        Measurement(metric="features.effective_rank", layer="layers.2", split="test", value=3.62,
                    low=3.41, high=3.88, n=1000, unit="dimensions"),
        Measurement(metric="logits.effective_rank", split="test", value=2.41, low=2.3, high=2.55,
                    n=1000, unit="dimensions"),
        Measurement(metric="logits.effective_rank", subject="at_c", split="test", value=2.47,
                    low=2.39, high=2.57, n=10, unit="dimensions"),
        Measurement(metric="logits.effective_rank", subject="at_c_star", split="test", value=4.18,
                    low=4.05, high=4.31, n=10, unit="dimensions"),
        Measurement(metric="probes.linear", layer="layers.0", split="test", value=0.913, low=0.894,
                    high=0.929, n=1000, unit="accuracy"),
        Measurement(metric="probes.linear", layer="layers.2", split="test", value=0.833, low=0.809,
                    high=0.855, n=1000, unit="accuracy"),
        Measurement(metric="alignment.nearest_class_mean", split="test", value=0.76, n=1000,
                    unit="share"),
        Measurement(metric="kernels.tangent_alignment", split="train", status="unavailable",
                    reason="No per-sample gradients were available."),
    )  # fmt: skip


def setup(name: str = "digits-mlp") -> dict[str, object]:
    """The setup as plain values."""
    return {
        "name": name,
        "model": {"name": "mlp", "depth": 4, "width": 128, "activation": "relu"},
        "task": {"name": "digits", "n_train": 150, "n_validation": 200, "n_test": 1000},
        "loss": "cross_entropy",
        "optimizer": {"kind": "sgd", "lr": 0.1, "momentum": 0.0},
        "batch_size": 25,
        "stop": {"target_loss": 0.1, "max_epochs": 300},
        "centered": False,
    }


def model_file(name: str = "over.pt") -> dict[str, object]:
    """The input as plain values."""
    return {
        "path": name,
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "num_parameters": 42378,
        "train_loss": 0.0973,
        "train_loss_in_file": 0.0971,
    }


SKIPPED = (
    Skipped(
        what="kernel regression",
        code="not_asked",
        reason="The verdict is not over-fitted, so the lazy limit was not computed.",
    ),
    Skipped(
        what="kernels.tangent_alignment",
        code="needs_gradients",
        reason="Needs per-sample gradients, which this net does not offer.",
    ),
)


def over_aligned() -> Report:
    """c = 2^-9 on digits with three hidden layers: ten seeds, one unusable and two lost cells."""
    diagnosis = Diagnosis(
        regime=Regime.OVER_ALIGNED,
        evidence_tier=Tier.T3,
        method="intervention",
        mechanism=Code(
            code="rank_collapse",
            text=(
                "The effective rank falls from 23.4 in the first layer to 3.6 in the last and to "
                "2.4 in the logits, of 9, and the linear probe loses 8 points on the way. "
                "Agreement with the nearest-class-mean classifier is no higher than at c*."
            ),
        ),
        reason=Code(
            code="larger_c_better",
            text=(
                "Five larger values of c have a lower test error than c = 2^-9 by more than the "
                "practical margin of 1.0 points, and no smaller one has."
            ),
        ),
        log2_c_ratio=Interval(value=-5.0, low=-6.0, high=-4.0),
        c=2.0**-9,
        c_star=CStar(value=2.0**-4, low=2.0**-5, high=2.0**-3),
        recommendation=Recommendation(
            multiply_output_by=32.0,
            learning_rate=(2.2627416997969522, 0.4),
            expected_gain=Gain(value=5.7, low=4.9, high=6.5, num_seeds=10),
            text="Multiply the output by 32 and lower the learning rate from 2.263 to 0.4.",
            snippet=(
                "logits = 32 * model(x)  # c: 2^-9 -> 2^-4\n"
                "optimizer = torch.optim.SGD(model.parameters(), lr=0.4)\n"
            ),
        ),
        findings=(
            Finding(
                code="validation_agrees",
                status="info",
                text="Validation error has its minimum at the same c as test error.",
                evidence={"log2_c_validation": -4, "log2_c_test": -4},
            ),
            Finding(
                code="arms_unusable",
                status="warning",
                text="Three of the values of c that were tried can't be judged.",
                evidence={"log2_c": [-13, 5, 6]},
            ),
        ),
    )
    return Report(
        kind="diagnose",
        diagnosis=diagnosis,
        measurements=measurements(),
        sweep=sweep(
            DEEP_DIGITS,
            extra=(
                cell(-13, 0.21, 10, usable=False, reached=3),
                cell(5, 0.4, 10, usable=False, reached=0, outcome=Outcome.DIVERGED),
                cell(6, 0.4, 2, usable=False, reached=0, outcome=Outcome.FAILED),
            ),
        ),
        rate_comparisons=(
            RateComparison(
                c=2.0**-9,
                c_star=2.0**-4,
                lr_at_c=1.1313708498984762,
                lr_at_c_star=0.4,
                rates_tried=(0.25, 0.5, 1.0, 2.0),
                gain=Gain(value=4.8, low=3.9, high=5.7, num_seeds=5),
                text="Each at its own best rate, c* still does better: it is not only the rate.",
            ),
            RateComparison(
                c=1.0,
                c_star=2.0**-4,
                lr_at_c=0.1,
                lr_at_c_star=0.4,
                rates_tried=(0.25, 0.5, 1.0, 2.0),
                gain=Gain(value=2.1, low=1.2, high=3.0, num_seeds=5),
                text="Against c = 1 at its own best rate, c* does better as well.",
            ),
        ),
        skipped=SKIPPED,
        setup=setup(),
        input=model_file(),
        cost=Cost(replica_epochs=4210, num_runs=150, budget_replica_epochs=20000),
        provenance=PROVENANCE,
    )


def over_fitted() -> Report:
    """c = 2^3 on digits, with the centered sweep that names the face."""
    diagnosis = Diagnosis(
        regime=Regime.OVER_FITTED,
        evidence_tier=Tier.T3,
        method="intervention",
        mechanism=Code(
            code="initial_function_noise",
            text=(
                "Most of the harm is the initial function that training must undo: centered, the "
                "same c loses only 3.5 points against its best, and c·f_0 holds 61 % of the test "
                "logits' variance."
            ),
        ),
        reason=Code(
            code="smaller_c_better",
            text="Four smaller values of c have a lower test error, and no larger one has.",
        ),
        log2_c_ratio=Interval(value=7.0, low=6.0, high=8.0),
        c=8.0,
        c_star=CStar(value=2.0**-4, low=2.0**-5, high=2.0**-3),
        recommendation=Recommendation(
            multiply_output_by=1 / 128,
            learning_rate=(0.00625, 0.4),
            expected_gain=Gain(value=21.7, low=20.1, high=23.3, num_seeds=10),
            text=(
                "Divide the output by 128, or subtract the output at initialisation "
                "(train c·(f - f_0))."
            ),
            snippet="logits = model(x) / 128\n",
        ),
        findings=(
            Finding(
                code="initial_function_share",
                status="problem",
                text="The initial function makes up most of the test logits.",
                evidence={"share": 0.61},
            ),
        ),
    )
    return Report(
        kind="diagnose",
        diagnosis=diagnosis,
        measurements=measurements(),
        sweep=sweep({k: v for k, v in DEEP_DIGITS.items() if k >= -7}),
        centered_sweep=sweep(LAZY_CENTERED, centered=True),
        skipped=SKIPPED[1:],
        setup=setup(),
        input=model_file("lazy.pt"),
        cost=Cost(replica_epochs=3120, num_runs=120, budget_replica_epochs=3120, budget_bound=True),
        provenance=PROVENANCE,
    )


def near_optimal() -> Report:
    """The mixture swept in the init scale, the optimum at the upper end of the range."""
    errors = {-8: 0.0083, -6: 0.0077, -4: 0.0061, -2: 0.0038, -1: 0.0031, 0: 0.0029}
    return Report(
        kind="diagnose",
        diagnosis=Diagnosis(
            regime=Regime.NEAR_OPTIMAL,
            evidence_tier=Tier.T3,
            method="intervention",
            reason=Code(
                code="no_better_c", text="No other alpha does better by more than the margin."
            ),
            log2_c_ratio=Interval(value=0.0, low=-1.0, high=0.0),
            c=1.0,
            c_star=CStar(value=1.0, low=0.5, high=None, at_edge="high"),
            recommendation=Recommendation(text="Leave the init scale as it is."),
            findings=(
                Finding(
                    code="optimum_at_edge",
                    status="warning",
                    text="The optimum lies at the end of the range swept.",
                ),
            ),
        ),
        sweep=sweep(errors, seeds=16, axis="init_scale"),
        setup={"name": "mixture-two-layer", "model": {"name": "two_layer", "width": 64}},
        cost=Cost(replica_epochs=1200, num_runs=96),
        provenance=PROVENANCE,
    )


def no_signal() -> Report:
    """Random labels: no c beats chance."""
    flat = dict.fromkeys((-9, -6, -3, 0, 3), 0.9)
    return Report(
        kind="diagnose",
        diagnosis=Diagnosis(
            regime=Regime.INCONCLUSIVE,
            evidence_tier=Tier.T3,
            method="intervention",
            reason=Code(
                code="no_signal",
                text="No c beats the majority class by more than noise: nothing to judge by.",
            ),
            c=1.0,
            recommendation=Recommendation(
                text="Check the labels, or judge on a task that can be learned."
            ),
        ),
        sweep=sweep(flat, seeds=5),
        skipped=(
            Skipped(what="expected gain", code="no_signal", reason="There is no signal to gain."),
        ),
        setup={"name": "random-labels"},
        cost=Cost(replica_epochs=900, num_runs=25),
        provenance=PROVENANCE,
    )


def weights_alone() -> Report:
    """Tier T0: no data, no sweep, no c."""
    return Report(
        kind="diagnose",
        diagnosis=Diagnosis(
            regime=Regime.INCONCLUSIVE,
            evidence_tier=Tier.T0,
            method="none",
            reason=Code(code="weights_alone", text="The output scale can't be seen from weights."),
            recommendation=Recommendation(text="Save the training recipe with the model."),
        ),
        measurements=(Measurement(metric="weights.stable_rank", layer="fc.weight", value=7.25),),
        skipped=(Skipped(what="sweep", code="no_recipe", reason="The file holds no recipe."),),
        input=model_file("weights.pt"),
        provenance=PROVENANCE,
    )


def suite() -> Report:
    """Three cases: two as expected, one not."""

    def case(report: Report, name: str, expected: str, met: bool | None) -> CaseResult:
        shared = {
            field: getattr(report, field)
            for field in CaseResult.model_fields
            if field in Report.model_fields
        }
        return CaseResult(
            id=name, expect={"regime": expected} if expected else {}, met=met, **shared
        )

    return Report(
        kind="suite",
        suite={"name": "quick", "version": 1, "digest": "0c1d" * 16},
        cases=(
            case(over_aligned(), "digits-mlp-small-c", "over_aligned", True),
            case(near_optimal(), "mixture", "over_fitted", False),
            case(no_signal(), "no-signal", "", None),
        ),
        setup={"name": "quick"},
        cost=Cost(replica_epochs=6310, num_runs=271),
        provenance=PROVENANCE,
    )


def tune(text: str = "") -> Report:
    """A confirmed gain of the multiplier; ``text`` in every place that a person can fill."""
    gain = Gain(value=5.7, low=4.9, high=6.5, num_seeds=10)
    swept = sweep({-9: 0.16, -5: 0.112, -4: 0.103, -3: 0.105}, seeds=4)
    trials = [
        Trial(c=one.c, lr=lr, num_seeds=4, num_reached=4, kept=one.c == 2.0**-4, val_loss=0.41,
              val_error=0.1 + 0.001 * k)
        for k, one in enumerate(swept.cells)
        for lr in (one.lr, 2 * one.lr)
    ]  # fmt: skip
    return Report(
        kind="tune",
        tuning=Tuning(
            change="multiplier",
            reason=Code(code=text or "gain_confirmed", text=text or "2^-4 does better than 2^-9."),
            c=2.0**-9,
            lr=2.26,
            c_star=CStar(value=2.0**-4, low=2.0**-5, high=2.0**-3),
            lr_at_c=1.13,
            lr_at_c_star=0.4,
            gain=gain,
            gain_of_rate=Gain(value=0.7, low=-0.3, high=1.8, num_seeds=10),
            gain_in_all=gain,
            tuned_c=2.0**-4,
            tuned_lr=0.4,
            trials=tuple(trials),
            search_replica_epochs=806,
            text=text or "Train with c = 2^-4 and a learning rate of 0.4 (was 2.26).",
            snippet=text or "logits = 2**-4 * model(x)\n",
            findings=(
                Finding(code=text or "data", status="info", text=text or "200 test points."),
            ),
            model_file=text or "tuned.pt",
        ),
        sweep=swept,
        setup=setup(text or "digits-mlp") | {"loss": "cross_entropy"},
        input=model_file(text or "over.pt"),
        cost=Cost(replica_epochs=2488, num_runs=82),
        provenance=PROVENANCE,
    )


def invariants(text: str = "") -> Report:
    """One held, one broken, one void; ``text`` in every place that a person can fill."""
    exponent = MeasuredExponent(
        what=text or "output against the scale of the parameters", value=4.0, low=3.9, high=4.1,
        wanted=4.0, n=20,
    )  # fmt: skip
    return Report(
        kind="invariants",
        invariants=Invariants(
            findings=(
                InvariantFinding(
                    invariant="routes",
                    statement="build(output_multiplier=c) computes c times what build() computes.",
                    status="broken",
                    code=text or "ignored",
                    text=text or "The builder ignores its output_multiplier.",
                    deviation=1.0,
                    bound=2e-12,
                    counter_example={text: text} if text else {"seed": 0, "c_ratio": 2.0},
                ),
                InvariantFinding(
                    invariant="parameter_scale",
                    statement="Parameters times a^e give a^L times the output.",
                    status="held",
                    text=text or "Equal up to rounding.",
                    rule=text or "e = 0 in front of BatchNorm",
                    deviation=8e-16,
                    bound=3e-12,
                    exponents=(exponent,),
                    num_examples=20,
                ),
                InvariantFinding(
                    invariant="movement",
                    statement="Weights move less relative to where they start as c grows.",
                    status="void",
                    code=text or "no_direction",
                    text=text or "Movement goes as c^-0.32 ± 0.45: no direction is seen.",
                ),
            ),
            seed=0,
            examples=20,
            net={"net": text or "mlp", "parameters": 42240},
            command=text or "fls-bench invariants over.pt --examples 20",
        ),
        setup={"name": text or "over"},
        provenance=PROVENANCE,
    )


def intervention(text: str = "") -> Report:
    """A suite of one case whose ranks were held; ``text`` in every place that a person can fill."""
    sure = Interval(value=0.9, low=0.8, high=1.0)
    rows = (
        InterventionRow(name=text or "plain", c=2.0**-10, num_seeds=20, num_reached=20,
                        accuracy=Interval(value=0.8, low=0.78, high=0.82), ranks=(6.9, 3.4),
                        text=text or "Loses 8 points."),
        InterventionRow(name=text or "held", c=2.0**-10, num_seeds=20, num_reached=18, held=True,
                        accuracy=Interval(value=0.88, low=0.87, high=0.89), share=sure,
                        gap_closed=Interval(value=0.5, low=None, high=None),
                        ranks=(7.1, 6.5), targets=(7.0, None), text=text or "Returns most of it."),
    )  # fmt: skip
    case = CaseResult(
        id=text or "digits-mlp",
        intervention=Intervention(
            measure="nuclear", c_star=2.0**-4, c_low=2.0**-10, rows=rows,
            text=text or "Holding the rank returns the accuracy.",
        ),
        setup=setup(text or "digits-mlp"),
    )  # fmt: skip
    return Report(
        kind="suite",
        suite={"name": text or "rank_intervention", "version": 1},
        cases=(case,),
        provenance=PROVENANCE,
    )


def claims(text: str = "") -> Report:
    """A suite that tests a claim: outcome, parts that decide and that don't, plots, a fit."""
    word = text or "digits"
    points = tuple(
        CurvePoint(x=k, value=9 + 0.1 * k**2, low=8.5 + 0.1 * k**2, high=9.5 + 0.1 * k**2)
        for k in range(-4, 3)
    )
    parts = tuple(
        ClaimPart(
            name=text or "excess error at the largest c", setting=word, outcome=outcome,
            estimate=Interval(value=1.0, low=0.5, high=1.5), unit=text or "points",
            expected=text or "above 0", n=10, text=text or "1.00 [0.50, 1.50] points",
        )
        for outcome in ("reproduced", "not_reproduced", "undecided", None)
    )  # fmt: skip
    panel = ClaimPanel(
        title=text or "digits: test error over c",
        x_label=text or "output multiplier c (← larger FLS, smaller FLS →)",
        y_label=text or "test error (%)",
        curves=tuple(ClaimCurve(name=text or f"curve {k}", points=points) for k in range(8)),
    )
    sizes = panel.model_copy(
        update={
            "title": text or "digits: best c over n",
            "y_label": text or "best c (smaller c = larger FLS)",
            "y_log2": True,
            "curves": (
                ClaimCurve(
                    name=word, points=(CurvePoint(x=5, value=-2.5), CurvePoint(x=7, value=-3.25))
                ),
            ),
        }
    )
    exponent = Interval(value=-0.4, low=-0.6, high=-0.2)
    fit = ScalingFit(
        family=word, width_exponent=exponent, n_exponent=None, intercept=-1.0,
        samples=((-1.0, -0.4, 0.0),) * 3, residual=0.1, freedom=2,
        sizes=((16, 150), (64, 150), (64, 150), (16, 150)), num_seeds=10,
    )  # fmt: skip
    claim = ClaimResult(
        claim="C4", statement=text or "c* falls with n.", reported=text or "Reported by the authors.",
        outcome="not_reproduced", text=text or "Of 2 exponents: 2 not reproduced.", data=(word,),
        num_seeds=10, parts=parts, panels=(panel, sizes), cautions=(text or "Read with care.",),
        fits=(fit,), not_run=(Skipped(what=word, code="no_data", reason=text or "No data."),),
    )  # fmt: skip
    return suite().model_copy(
        update={
            "claims": (claim, claim.model_copy(update={"claim": "C1", "outcome": "undecided"})),
            "suite": {"name": text or "scaling-law", "version": 1, "digest": "0" * 64},
        }
    )


def _shifted(case: CaseResult, by: float, first_seed: int) -> CaseResult:
    """The case with another test error at its own c, and other seeds."""
    found = case.sweep
    assert found is not None
    assert case.diagnosis is not None
    cells = tuple(
        one.model_copy(
            update={
                "seeds": tuple(
                    run.model_copy(
                        update={
                            "seed": run.seed + first_seed,
                            "test_error": None if run.test_error is None
                            else run.test_error + by * (one.c == case.diagnosis.c),
                        }
                    )
                    for run in one.seeds
                )
            }
        )
        for one in found.cells
    )  # fmt: skip
    return case.model_copy(update={"sweep": found.model_copy(update={"cells": cells})})


def check(text: str = "", by: float = 0.03, first_seed: int = 0, baseline: bool = True) -> Report:
    """The suite against itself with a worse error at its own c; ``text`` wherever a person can fill it.

    Made up is only the report: the comparison is that of the real code.
    """
    before = suite()
    now = before.model_copy(
        update={
            "cases": tuple(_shifted(case, by, first_seed) for case in before.cases),
            "provenance": PROVENANCE.model_copy(update={"torch": text or "2.14.0"}),
            "suite": {**(before.suite or {}), "name": text or "quick"},
        }
    )
    found = comparison(text, before, now) if baseline else Comparison(
        status="no_baseline", text=text or "There is no baseline yet.",
        sides=(side_of_report(now, text or "this run"),),
    )  # fmt: skip
    if baseline:
        found = found.model_copy(update={"baseline": text or "baselines/quick.json"})
    return now.model_copy(update={"kind": "check", "comparison": found})


def comparison(text: str, *reports: Report) -> Comparison:
    """The reports side by side, as the commands compare them."""
    sides = [
        side_of_report(one, text or f"{'abcdefghij'[k]}.json") for k, one in enumerate(reports)
    ]
    if text:
        sides = [
            one.model_copy(
                update={
                    "suite": text,
                    "environment": {text: text + one.name * k},
                    "cases": tuple(
                        case.model_copy(
                            update={
                                "id": text + str(n),
                                "setup": {"task": "t", text: text * (k + 1)},
                            }
                        )
                        for n, case in enumerate(one.cases)
                    ),
                }
            )
            for k, one in enumerate(sides)
        ]
    gates = gates_of({"chance_error": Gate(tolerance=1e-6), **DEFAULT_GATES})
    pairs = tuple(compare_sides(sides[0], one, gates) for one in sides[1:])
    return Comparison(
        status=pairs[0].status, text=text or pairs[0].text, sides=tuple(sides), pairs=pairs
    )


def compare(text: str = "") -> Report:
    """Three suites side by side, one of them with seeds of its own."""
    one = suite()
    others = (check(text, by=0.03), check(text, by=0.0, first_seed=500))
    return Report(
        kind="compare", comparison=comparison(text, one, *others),
        provenance=PROVENANCE.model_copy(update={"torch": None, "threads": None}),
    )  # fmt: skip


def many_runs(num_cells: int = 50, num_seeds: int = 200) -> Report:
    """A diagnosis that rests on 10,000 runs."""
    shape = {-k: 0.1 + 0.0004 * (k - 20) ** 2 for k in range(num_cells)}
    return over_aligned().model_copy(update={"sweep": sweep(shape, seeds=num_seeds)})


def many_cases(num_cases: int = 100) -> Report:
    """A suite of cases of 100 runs each."""
    one = suite().cases[0]
    small = one.model_copy(update={"sweep": sweep(DEEP_DIGITS | {-6: 0.12}, seeds=10)})
    cases = tuple(small.model_copy(update={"id": f"case {k}"}) for k in range(num_cases))
    return suite().model_copy(update={"cases": cases})


HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "javascript:alert(3)",
    "[red]not red[/red] [link=https://x.example]y[/link]",
    "{{ 7 * 7 }}{% raw %}",
    "\x1b[31mescape\x07",
    "-->]]><svg onload=alert(4)>",
    "very-long-name-" + "x" * 300,
    "::warning:: $\\frac{1}{2}$ &lt; &amp; é 中 🙂",
    "_b$x_{$",
)


def hostile(text: str = HOSTILE[0]) -> Report:
    """The same text in every place that a person can fill."""
    word = text
    diagnosis = Diagnosis(
        regime=Regime.OVER_ALIGNED,
        evidence_tier=Tier.T3,
        method="intervention",
        mechanism=Code(code=word, text=word),
        reason=Code(code=word, text=word),
        probabilities={word: 0.5},
        c=0.1,
        c_star=CStar(value=0.5, low=None, high=None, at_edge="low"),
        recommendation=Recommendation(
            text=word,
            snippet=word,
            expected_gain=Gain(value=1, low=0, high=2, unit=word, num_seeds=3),
        ),
        findings=(
            Finding(code=word, status="problem", text=word, evidence={word: {word: [word]}}),
        ),
    )
    judged = {
        "diagnosis": diagnosis,
        "measurements": (
            Measurement(metric=word, layer=word, unit=word, value=1.0),
            Measurement(metric=word, status="unavailable", reason=word),
        ),
        "sweep": sweep(
            {-3: 0.2, 0: 0.1}, seeds=3, extra=(cell(2, 0.3, 3, usable=False, reached=0),)
        ),
        "rate_comparisons": (
            RateComparison(
                c=1, c_star=0.5, lr_at_c=0.1, lr_at_c_star=0.2, rates_tried=(1.0,),
                gain=Gain(value=1, low=0, high=2, num_seeds=3), text=word,
            ),
        ),
        "skipped": (Skipped(what=word, code=word, reason=word),),
        "setup": {"name": word, word: word},
        "input": {"path": word, word: [word]},
    }  # fmt: skip
    return Report(
        kind="suite",
        suite={"name": word, "version": word, "digest": word},
        cases=(CaseResult(id=word, expect={"regime": word, word: word}, met=False, **judged),),
        provenance=Provenance(
            version=word, torch=word, blas=word, device=word, started=word, seconds=1.0,
            extra={word: word},
        ),
        **(judged | {"sweep": None}),
    )  # fmt: skip


ALL = {
    "over_aligned": over_aligned,
    "over_fitted": over_fitted,
    "near_optimal": near_optimal,
    "no_signal": no_signal,
    "weights_alone": weights_alone,
    "suite": suite,
    "hostile": hostile,
}


def reading(text: str = "", *, regime: Regime = Regime.OVER_ALIGNED) -> Reading:
    """A reading with a push, something out of range, and words of a net's in them."""
    ranges = tuple(
        ReferenceRange(regime=one, low=k - 0.5, median=float(k), high=k + 0.5, n=40)
        for k, one in enumerate((Regime.OVER_ALIGNED, Regime.NEAR_OPTIMAL, Regime.OVER_FITTED))
    )
    return Reading(
        evidence="T2", regime=regime, regimes=(regime,), level=0.9,
        probabilities={"over_aligned": 0.93, "near_optimal": 0.06, "over_fitted": 0.01},
        log2_c_ratio=Interval(value=-5.5, low=-8.0, high=-3.0, level=0.9),
        distance=0.9, reach=2.4,
        out_of_range=(
            OutOfRange(observable="gap", text=f"the gap {text}", value=0.9, low=0.0, high=0.6),
        ),
        pushes=(
            Push(
                observable="movement_first", text=f"relative change {text}", value=1.5,
                toward=Regime.OVER_ALIGNED, strength=0.42, ranges=ranges,
            ),
            Push(
                observable="logit_rank", text="dimensions of the logits", value=-0.5,
                toward=Regime.OVER_FITTED, strength=0.2,
            ),
        ),
        depth="nets of 4 to 5 weight layers", reason=Code(code="one_regime_fits", text=f"{text} so."),
        atlas={"nets": 900, "setups": 40, "tasks": 12},
    )  # fmt: skip


def observed(text: str = "ckpt.pt") -> Report:
    """A checkpoint that was read and not swept."""
    found = reading(text)
    return Report(
        kind="diagnose",
        diagnosis=from_reading(found, Tier.T2, "The file holds no training recipe."),
        reading=found,
        input={"path": text},
        provenance=PROVENANCE,
    )


def selftest(text: str = "digits-small-c") -> Report:
    """Nets that were placed in a regime."""
    places = (Regime.OVER_ALIGNED, Regime.NEAR_OPTIMAL, Regime.OVER_FITTED, Regime.INCONCLUSIVE)
    cases = tuple(
        PlacedCase(
            id=f"{text} {k}",
            regime=place,
            nets=tuple(
                Placed(seed=n, regime=place if n else Regime.INCONCLUSIVE, probabilities={})
                for n in range(3)
            ),
        )
        for k, place in enumerate(places)
    )
    return Report(kind="selftest", selftest=SelfTest(cases=cases), provenance=PROVENANCE)


def evaluation(text: str = "digits") -> Report:
    """The reading, judged out of sample."""
    share = Interval(value=0.9, low=0.85, high=0.95)
    groups = tuple(
        GroupResult(
            group=f"{text} {k}", n=100, auc_over_aligned=0.95, auc_over_fitted=None,
            balanced_accuracy=0.8, coverage=0.9 - k / 100, opposite=0, emitted=80, read=100 - k,
        )
        for k in range(8)
    )  # fmt: skip
    row = EvaluationRow(
        evidence="T2", left_out="task", n=800, num_read=772, num_groups=8, auc_over_aligned=share,
        auc_over_fitted=None, balanced_accuracy=share, opposite=Interval(value=0, low=0, high=0.01),
        num_verdicts=640,
        emitted_accuracy=share, abstained=share, coverage=share, level=0.9, set_size=1.2,
        num_ratios=760, ratio_coverage=0.9, ratio_width=6.0, calibration_error=share, groups=groups,
        regimes=(
            RegimeResult(regime=Regime.OVER_ALIGNED, n=200, coverage=0.86, called=90, right=0.8),
            RegimeResult(regime=Regime.OVER_FITTED, n=0, coverage=None, called=0, right=None),
        ),
    )  # fmt: skip
    alone = BaselineRow(
        name=text, left_out="task", n=800, auc_over_aligned=0.7, auc_over_fitted=None,
        raw_over_aligned=0.72, opposite=0.05,
    )  # fmt: skip
    return Report(
        kind="suite",
        suite={"name": "verdict-eval", "version": 1},
        evaluation=Evaluation(
            rows=(row,), baselines=(alone,), truth={"over_aligned": 200, "near_optimal": 400}
        ),
        provenance=PROVENANCE,
    )


PAGES = ALL | {
    "tune": tune, "invariants": invariants, "intervention": intervention, "check": check,
    "check_without_baseline": lambda: check(baseline=False), "compare": compare, "claims": claims,
    "observed": observed, "selftest": selftest, "evaluation": evaluation,
}  # fmt: skip
"""Every kind of page; the terminal's tests of these stand with their commands."""

HOSTILE_PAGES = {
    "suite": hostile,
    "tune": tune,
    "invariants": invariants,
    "intervention": intervention,
    "check": check,
    "compare": compare,
    "claims": claims,
    "observed": observed,
    "selftest": selftest,
    "evaluation": evaluation,
}
