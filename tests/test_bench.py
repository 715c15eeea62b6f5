"""The whole path on small nets: evidence tiers, budgets, resuming, what a report holds."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fls_bench
from fls_bench import bench, report
from fls_bench.bench import Options
from fls_bench.errors import InputError
from fls_bench.schema import (
    ArchitectureSpec,
    BundleOutcome,
    Outcome,
    Recipe,
    Regime,
    Sgd,
    TargetLoss,
    Tier,
)
from fls_bench.subject import Given, built_in_setup
from fls_bench.suite import load_suite
from fls_bench.tasks import task_source
from fls_bench.training_setup import TrainingSetup


@dataclass
class Heard:
    plans: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def plan(self, total_runs: int, text: str) -> None:
        self.plans.append(total_runs)

    def done(self, runs: int, text: str) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


def small_setup(c: float = 1.0) -> TrainingSetup:
    return built_in_setup(
        "mlp",
        {"depth": 2, "width": 16},
        task_source("breast_cancer", {"n_train": 100}),
        Recipe(stop=TargetLoss(target_loss=0.15, max_epochs=60)),
        base_lr=0.1,
        output_multiplier=c,
    )


def options(store: Path | bool = False, **changes: object) -> Options:
    return replace(Options(listener=Heard(), max_seeds=3, store=store, jobs=2), **changes)  # type: ignore[arg-type]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    bench.train(small_setup(), tmp_path / "model.pt", seed=3, force=False)
    return tmp_path / "model.pt"


def without(path: Path, target: Path, **changes: object) -> Path:
    """The same file with parts of its evidence taken away."""
    from fls_bench.bundle import load_bundle, write_bundle

    bundle = load_bundle(path)
    header = bundle.header.model_copy(update={k: v for k, v in changes.items() if k != "init"})
    init = None if "init" in changes else bundle.init
    write_bundle(target, header, final=bundle.final, init=init, data=bundle.data)
    return target


class TestTiers:
    def test_weights_alone(self, model: Path, tmp_path: Path) -> None:
        path = without(model, tmp_path / "t0.pt", task=None, init=None, recipe=None)
        found = bench.diagnose_file(path, options())
        assert found.diagnosis is not None
        assert (found.diagnosis.regime, found.diagnosis.evidence_tier) == (
            Regime.INCONCLUSIVE,
            Tier.T0,
        )
        assert "output scale can't be seen" in found.diagnosis.reason.text
        assert not found.measurements
        assert found.sweep is None

    def test_with_data_alone_the_regime_is_read_or_said_not_to_be(
        self, model: Path, tmp_path: Path
    ) -> None:
        path = without(model, tmp_path / "t1.pt", init=None, recipe=None)
        found = bench.diagnose_file(path, options())
        assert found.diagnosis is not None
        assert found.diagnosis.regime is Regime.INCONCLUSIVE
        assert found.diagnosis.evidence_tier is Tier.T1
        assert found.diagnosis.method == "observation"
        assert found.reading is not None
        assert found.reading.evidence == "T1"
        assert found.diagnosis.reason.code == found.reading.reason.code
        measured = {m.metric: m.status for m in found.measurements}
        assert measured["error.test"] == "ok"
        assert measured["movement.relative"] == "unavailable"
        assert any("initial weights" in s.reason for s in found.skipped)

    def test_with_init(self, model: Path, tmp_path: Path) -> None:
        path = without(model, tmp_path / "t2.pt", recipe=None)
        found = bench.diagnose_file(path, options())
        assert found.diagnosis is not None
        assert found.diagnosis.evidence_tier is Tier.T2
        assert found.reading is not None
        assert found.reading.evidence == "T2"
        assert found.diagnosis.regime is found.reading.regime
        assert {m.metric: m.status for m in found.measurements}["movement.relative"] == "ok"

    def test_with_a_recipe_c_is_swept(self, model: Path) -> None:
        found = bench.diagnose_file(model, options())
        assert found.diagnosis is not None
        assert found.diagnosis.evidence_tier is Tier.T3
        assert found.diagnosis.method == "intervention"
        assert found.sweep is not None
        assert len(found.sweep.cells) >= 5

    def test_budget_too_small_for_a_sweep_falls_back(self, model: Path) -> None:
        found = bench.diagnose_file(model, options(budget_seconds=1e-6))
        assert found.diagnosis is not None
        assert found.diagnosis.evidence_tier is Tier.T2
        assert found.diagnosis.method == "observation"
        assert found.sweep is None
        assert "--budget" in found.diagnosis.reason.text
        assert found.cost.budget_bound
        assert found.measurements


def test_file_facts_are_measured_by_us(model: Path) -> None:
    found = bench.diagnose_file(model, options(budget_seconds=1e-6))
    assert len(found.input["sha256"]) == 64
    assert found.input["num_parameters"] == 30 * 16 + 16 * 2
    assert found.input["train_loss"] == pytest.approx(found.input["claimed_train_loss"], rel=1e-4)


def test_wrong_claim_is_noticed(model: Path, tmp_path: Path) -> None:
    claim = BundleOutcome(status=Outcome.REACHED_TARGET, epochs=5, steps=20, train_loss=0.9)
    path = without(model, tmp_path / "claims.pt", outcome=claim)
    found = bench.diagnose_file(path, options(budget_seconds=1e-6))
    assert found.diagnosis is not None
    assert "training_loss_differs" in [f.code for f in found.diagnosis.findings]


def plain(found: fls_bench.Report) -> dict[str, object]:
    value = json.loads(report.to_json(found))
    del value["provenance"]
    return value


def test_same_command_same_report(model: Path) -> None:
    # Unless the budget bound, its measured number of epochs is no part of the result.
    one, two = (bench.diagnose_file(model, options(budget_seconds=s)) for s in (600.0, 3000.0))
    assert plain(one) == plain(two)
    assert one.cost.budget_replica_epochs is None


def test_resumes_from_the_store(model: Path, tmp_path: Path) -> None:
    store = tmp_path / "runs"
    one = options(store)
    first = bench.diagnose_file(model, one)
    again = options(store)
    second = bench.diagnose_file(model, again)
    assert sum(again.listener.plans) == 0  # type: ignore[attr-defined]
    assert any("resuming" in note for note in again.listener.notes)  # type: ignore[attr-defined]
    assert plain(first)["sweep"] == plain(second)["sweep"]
    assert first.cost.replica_epochs == second.cost.replica_epochs


def test_setups_that_differ_in_c_alone_share_runs(tmp_path: Path) -> None:
    store = tmp_path / "runs"
    bench.diagnose_setup(small_setup(1.0), options(store))
    second = options(store)
    bench.diagnose_setup(small_setup(0.25), second)
    assert len(list(store.glob("*.jsonl"))) == 1
    assert any("resuming" in note for note in second.listener.notes)  # type: ignore[attr-defined]


def test_report_is_valid_and_finite(model: Path) -> None:
    import jsonschema

    found = bench.diagnose_file(model, options())
    jsonschema.validate(json.loads(report.to_json(found)), report.json_schema())


def test_target_that_is_never_reached_is_inconclusive() -> None:
    setup = replace(small_setup(), stop=TargetLoss(target_loss=1e-6, max_epochs=3))
    found = bench.diagnose_setup(setup, options())
    assert found.diagnosis is not None
    assert found.diagnosis.reason.code == "target_not_reached"
    assert found.sweep is not None
    assert all(
        run.outcome is not Outcome.REACHED_TARGET for c in found.sweep.cells for run in c.seeds
    )


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(30, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2, bias=False)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.net(x)
        return output


def test_nets_with_normalisation_are_swept_under_both_rules() -> None:
    setup = TrainingSetup(
        make_model=Normed,
        task=task_source("breast_cancer", {"n_train": 100}),
        stop=TargetLoss(0.3, max_epochs=40),
        optimizer=Sgd(lr=0.1),
    )
    report = bench.diagnose_setup(setup, options(jobs=1))
    found, swept, plain = report.diagnosis, report.sweep, report.plain_sweep
    assert found is not None
    assert swept is not None
    assert plain is not None
    assert (swept.lr_rule.name, swept.lr_rule.depth) == ("normalised", 2)
    assert set(swept.lr_rule.exponents) == {"net.1.weight", "net.1.bias", "net.3.weight"}
    assert {"normalised_rule", "both_rules"} <= {finding.code for finding in found.findings}
    exact, other = ({cell.c: cell for cell in one.cells} for one in (swept, plain))
    assert exact[1.0].seeds[0].test_loss == other[1.0].seeds[0].test_loss, "one run at one's own c"
    assert exact[0.25].lr == 0.1
    assert other[0.25].lr == pytest.approx(0.4)
    assert exact[0.25].seeds[0].test_loss != other[0.25].seeds[0].test_loss


def test_max_epochs_holds_for_the_net_that_is_measured_too() -> None:
    found = bench.diagnose_setup(small_setup(), options(max_epochs=1))
    assert "after 1 epochs" in found.input["trained_here"]


def test_data_given_raise_the_tier(model: Path, tmp_path: Path) -> None:
    path = without(model, tmp_path / "nodata.pt", task=None)
    task = task_source("breast_cancer")(3)
    parts = ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test")
    np.savez(tmp_path / "mine.npz", **{name: getattr(task, name) for name in parts})
    found = bench.diagnose_file(path, options(), Given(data=str(tmp_path / "mine.npz")))
    assert found.diagnosis is not None
    assert found.diagnosis.evidence_tier is Tier.T3


def test_class_that_training_never_saw(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((300, 4)), np.arange(300) % 3
    task = fls_bench.make_task("mine", (x, y), (x, y), (x, y), n_classes=4)
    path = tmp_path / "four.pt"
    fls_bench.save_bundle(path, nn.Linear(4, 4), task=task, builder_hint="test_bench:build_four")
    found = bench.diagnose_file(path, options(), Given(builder="test_bench:build_four"))
    assert found.diagnosis is not None
    assert found.diagnosis.evidence_tier is Tier.T1


def build_four() -> nn.Module:
    return nn.Linear(4, 4)


class Doubler(nn.Module):
    """A user's net that the project does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(30, 8)
        self.out = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.out(torch.tanh(self.inner(x)))


def build_doubler(seed: int | None = None) -> nn.Module:
    if seed is not None:
        torch.manual_seed(seed)
    return Doubler()


def test_bundle_of_ones_own_loop_needs_its_builder(tmp_path: Path) -> None:
    task = task_source("breast_cancer")(0)
    task = replace(task, spec=None, name="mine")
    net = build_doubler(seed=0)
    initial = {k: v.clone() for k, v in net.state_dict().items()}
    path = tmp_path / "own.pt"
    fls_bench.save_bundle(
        path, net, initial_state=initial, task=task, builder_hint="test_bench:build_doubler",
        recipe=Recipe(optimizer=Sgd(lr=0.1), stop=TargetLoss(target_loss=0.2, max_epochs=40)),
    )  # fmt: skip
    alone = bench.diagnose_file(path, options())
    assert alone.diagnosis is not None
    assert alone.diagnosis.evidence_tier is Tier.T0
    assert "test_bench:build_doubler" in alone.diagnosis.reason.text
    found = bench.diagnose_file(path, options(jobs=1), Given(builder="test_bench:build_doubler"))
    assert found.diagnosis is not None
    assert found.diagnosis.evidence_tier is Tier.T3
    assert found.sweep is not None
    assert found.sweep.lr_rule.name == "calibrated"
    # Seeds redraw the training points, so this is no fixed training set.
    assert "fixed_training_data" not in [f.code for f in found.diagnosis.findings]


def test_keys_of_another_net(tmp_path: Path) -> None:
    task = replace(task_source("breast_cancer")(0), spec=None, name="mine")
    path = tmp_path / "own.pt"
    fls_bench.save_bundle(path, nn.Linear(30, 2), task=task, recipe=Recipe())
    with pytest.raises(InputError, match="do not fit"):
        bench.diagnose_file(path, options(), Given(builder="test_bench:build_doubler"))


def test_data_of_another_dimension(model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = tmp_path / "other.npz"
    parts = {
        f"{axis}_{part}": value
        for part in ("train", "test")
        for axis, value in (("x", rng.standard_normal((100, 7))), ("y", np.arange(100) % 2))
    }
    np.savez(data, **parts)
    with pytest.raises(InputError, match="do not fit"):
        bench.diagnose_file(model, options(), Given(data=str(data)))


def test_suite_on_ones_own_setup_drops_expectations() -> None:
    found = bench.run(load_suite("quick"), options(), small_setup())
    assert [case.met for case in found.cases] == [None]
    assert found.cases[0].id == "mlp on breast_cancer"
    assert found.suite is not None
    assert found.suite["name"] == "quick"


def test_init_scale_and_multiplier_give_the_same_verdict() -> None:
    """(c, W) and (1, c^(1/L)·W) are one function: verdicts and errors agree."""
    c = 2.0**-4
    by_c = bench.diagnose_setup(small_setup(c), options())
    recipe = Recipe(stop=TargetLoss(target_loss=0.15, max_epochs=60))
    setup = built_in_setup(
        "mlp", {"depth": 2, "width": 16}, task_source("breast_cancer", {"n_train": 100}), recipe,
        base_lr=0.1, init_scale=c**0.5, axis="init_scale",
    )  # fmt: skip
    by_alpha = bench.diagnose_setup(setup, options())
    errors = [
        {cell.c: [run.test_error for run in cell.seeds] for cell in found.sweep.cells}
        for found in (by_c, by_alpha)
        if found.sweep is not None
    ]
    # One octave of alpha is two of c; both sweeps hold the setup's own value and two octaves of c.
    assert errors[0][c] == errors[1][c**0.5]
    assert errors[0][c * 16] == errors[1][c**0.5 * 4]


def test_architecture_is_recorded() -> None:
    setup = small_setup()
    assert setup.architecture == ArchitectureSpec(
        name="mlp",
        arguments={
            "input_dim": 30, "n_outputs": 2, "depth": 2, "width": 16, "activation": "relu",
            "bias": False,
        },
    )  # fmt: skip
