"""Tuning: what is chosen on which data, what is verified, what is written, and when nothing is."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from error_rates import EQUAL, FLAT, Silent, World, simulated, training_by, valley
from torch import nn

import fls_bench
from fls_bench import console, report, tuning
from fls_bench.bench import Options
from fls_bench.bundle import load_bundle
from fls_bench.errors import RunFailedError
from fls_bench.schema import (
    AdamW,
    Code,
    Cost,
    LrRule,
    Outcome,
    Recipe,
    Report,
    RunConfig,
    RunRecord,
    Sgd,
    Sweep,
    TargetLoss,
    Tuning,
)
from fls_bench.subject import NOTHING, built_in_setup, from_bundle
from fls_bench.sweep import SweepPlan, TuneResult, prepare, tune_plan
from fls_bench.sweep.tuning import search_and_verify
from fls_bench.tasks import make_task, task_source
from fls_bench.training import resolve_lr_rule, train_one
from fls_bench.training_setup import Custom, TrainingSetup

# --- simulated nets: what is found and what is claimed ----------------------------------------

Train = Callable[[RunConfig], RunRecord]


def plan(confirm: int = 10, **changes: object) -> SweepPlan:
    own = Options(listener=Silent()).plan()
    return replace(tune_plan(own, confirm), **changes)  # type: ignore[arg-type]


def tuned(
    train: Train, log2_c: float, asked: SweepPlan | None = None
) -> tuple[TuneResult, list[RunConfig]]:
    trained: list[RunConfig] = []

    def remembered(config: RunConfig) -> RunRecord:
        trained.append(config)
        return train(config)

    with training_by(remembered):
        return search_and_verify(simulated(asked or plan(), log2_c)), trained


def of(world: World, seed: int = 0) -> Train:
    return lambda config: world.run(config, seed)


QUIET = World(valley(0.05, -4.0), lambda _: 0.003)


@pytest.mark.parametrize("log2_c", [-13.0, -9.0, 0.0, 3.0])
def test_finds_the_valley_from_both_sides_and_verifies_its_gain(log2_c: float) -> None:
    found = tuned(of(QUIET), log2_c)[0].tuning
    assert found.change == "multiplier", found.reason
    assert found.c_star is not None
    assert abs(math.log2(found.c_star.value) + 4) <= 1
    assert found.c_star.low <= found.c_star.value <= found.c_star.high
    assert (found.tuned_c, found.tuned_lr) == (found.c_star.value, found.lr_at_c_star)
    true = 100 * (QUIET.error(log2_c) - QUIET.error(math.log2(found.c_star.value)))
    assert found.gain is not None
    assert found.gain.value == pytest.approx(true, abs=1.5)
    assert found.gain.low > 0


def test_the_search_is_short() -> None:
    runs = [one for one in tuned(of(QUIET), -9.0)[1] if one.seed < 1500]
    at_rule = Counter((one.c, one.lr) for one in runs)
    values = Counter(c for c, _ in at_rule)
    assert len(values) <= 7
    assert len(runs) < 16 * 12 / 2  # learning rates included


def test_stays_where_the_valley_is() -> None:
    result, _ = tuned(of(QUIET), -4.0)
    found = result.tuning
    assert (found.change, found.tuned_c, found.tuned_lr) == ("none", None, None)
    assert found.c_star is not None
    assert abs(math.log2(found.c_star.value) + 4) <= 1
    assert found.text.startswith("Keep the setup as it is: ")
    assert result.rate_factor == 1


def test_stops_at_the_limit_and_says_that_the_best_lies_at_an_end() -> None:
    world = World(lambda k: 0.2 + 0.01 * k, lambda _: 0.002)
    found = tuned(of(world), 0.0)[0].tuning
    assert min(one.c for one in found.trials) == 2.0**-12
    assert found.c_star is not None
    assert (found.c_star.value, found.c_star.at_edge) == (2.0**-12, "low")


def test_gains_on_a_flat_truth_are_rarely_claimed() -> None:
    world = World(FLAT, EQUAL)
    results = [tuned(of(world, seed), -4.0)[0].tuning for seed in range(60)]
    claimed = Counter(found.change for found in results)
    # Two one-sided tests at 2.5 %: of 60, more than 9 come in less than 1 of 1,000 runs of this test.
    assert claimed["multiplier"] + claimed["rate"] <= 9
    gains = [found.gain for found in results if found.gain is not None]
    assert sum(gain.low <= 0 <= gain.high for gain in gains) >= 0.85 * len(gains) > 20
    assert {found.reason.code for found in results if found.change == "none"} == {"not_confirmed"}


def test_validation_data_choose_and_test_data_verify() -> None:
    """Validation and test data disagree: the choice follows validation, the claim follows test."""
    mirrored = World(valley(0.05, 4.0), lambda _: 0.003)

    def train(config: RunConfig) -> RunRecord:
        return QUIET.run(config, 0).model_copy(
            update={"test_error": mirrored.run(config, 0).test_error}
        )

    found = tuned(train, 0.0)[0].tuning
    assert found.c_star is not None
    assert abs(math.log2(found.c_star.value) + 4) <= 1
    assert found.gain is not None
    assert found.gain.high < 0
    assert (found.change, found.tuned_c) == ("none", None)


def test_verifies_on_seeds_that_chose_nothing() -> None:
    result, trained = tuned(of(QUIET), 0.0, plan(confirm=7))
    searched = {run.seed for cell in result.sweep.cells for run in cell.seeds}
    fresh = {one.seed for one in trained} - searched
    assert fresh == set(range(1500, 1507))
    assert max(searched) < 1012
    gains = result.tuning.gain, result.tuning.gain_in_all
    assert all(gain is not None and gain.num_seeds == 7 for gain in gains)


def test_noise_in_errors_leaves_the_choice_to_losses() -> None:
    """All validation errors are equal; losses have their valley at -7."""

    def train(config: RunConfig) -> RunRecord:
        found = QUIET.run(config, 0)
        loss = 0.5 + 0.01 * (math.log2(config.c) + 7) ** 2
        return found.model_copy(update={"val_error": 0.1, "val_loss": loss})

    found = tuned(train, 0.0)[0].tuning
    assert found.c_star is not None
    assert found.c_star.value == 2.0**-7


def at_rates(best: float) -> Train:
    """Flat in c; at any c the error has its valley at a rate of so many times the rule's."""

    def train(config: RunConfig) -> RunRecord:
        factor = config.lr / (0.1 * config.c ** (-2 / 4))
        error = 0.1 + 0.02 * math.log2(factor / best) ** 2
        found = World(lambda _: error, lambda _: 0.003).run(config, 0)
        return found.model_copy(update={"val_loss": error})

    return train


@pytest.mark.parametrize("best", [0.25, 4.0])
def test_a_gain_by_the_rate_alone_keeps_the_multiplier(best: float) -> None:
    result, _ = tuned(at_rates(best), 0.0)
    found = result.tuning
    assert found.change == "rate", found.reason
    assert found.tuned_c == found.c == 1
    assert found.tuned_lr == found.lr_at_c == pytest.approx(best * found.lr)
    assert found.gain_of_rate is not None
    assert found.gain_of_rate.value == pytest.approx(8, abs=0.5)
    assert result.rate_factor == pytest.approx(best)
    assert "(as before)" in found.text


def test_both_changes_are_told_apart() -> None:
    """Half of the gain is the multiplier's and half the rate's."""

    def train(config: RunConfig) -> RunRecord:
        factor = config.lr / (0.1 * config.c ** (-2 / 4))
        error = 0.1 + 0.02 * math.log2(factor / 2) ** 2 + 0.02 * (math.log2(config.c) / 4 + 1) ** 2
        return World(lambda _: error, lambda _: 0.002).run(config, 0)

    found = tuned(train, 0.0)[0].tuning
    assert found.change == "multiplier"
    assert found.c_star is not None
    assert found.lr_at_c == pytest.approx(0.2)
    assert found.lr_at_c_star == pytest.approx(0.2 * found.c_star.value**-0.5)
    gains = found.gain, found.gain_of_rate, found.gain_at_rule, found.gain_in_all
    assert [gain and gain.value for gain in gains] == pytest.approx([2, 2, 2, 4], abs=0.4)


def failing(record: RunRecord) -> RunRecord:
    return record.model_copy(update={"outcome": Outcome.DIVERGED, "val_error": None})


def test_a_setup_that_misses_its_target_is_not_compared() -> None:
    world = of(QUIET)
    result, trained = tuned(lambda k: failing(world(k)) if k.c == 1 else world(k), 0.0)
    found = result.tuning
    assert (found.change, found.reason.code) == ("none", "target_not_reached")
    assert "0 of 3 runs reached the target (3 diverged)" in found.text
    assert found.c_star is None
    assert len(trained) == 3  # nothing more is spent on it


def test_values_that_fail_are_out_after_their_rates_were_tried() -> None:
    world = of(QUIET)
    result, _ = tuned(lambda k: failing(world(k)) if k.c < 2.0**-3.5 else world(k), 3.0)
    found = result.tuning
    assert found.c_star is not None
    assert found.c_star.value == 2.0**-3
    assert all(one.num_reached == 0 for one in found.trials if one.c < 2.0**-3.5)


def test_nets_no_better_than_chance_are_not_tuned() -> None:
    world = World(lambda _: 0.9, lambda _: 0.01)
    found = tuned(of(world), 0.0)[0].tuning
    assert (found.change, found.reason.code) == ("none", "no_signal")
    assert found.gain is None


@pytest.mark.parametrize("budget", [1, 30, 120])
def test_a_budget_that_ends_early_claims_nothing(budget: int) -> None:
    def train(config: RunConfig) -> RunRecord:
        return QUIET.run(config, 0).model_copy(update={"epochs": 1})

    result, trained = tuned(train, 0.0, replace(plan(), budget=budget))
    found = result.tuning
    assert (found.change, found.reason.code) == ("none", "budget")
    assert found.tuned_c is None
    assert result.cost.budget_bound
    assert len(trained) <= budget
    assert "Raise --budget" in found.text


Cli = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- real nets: files, stores, views ----------------------------------------------------------


@dataclass
class Heard:
    plans: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def plan(self, total_runs: int, text: str) -> None:
        self.plans.append(total_runs)

    def done(self, runs: int, text: str) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


def digits(c: float = 8.0, **recipe: Any) -> TrainingSetup:
    return built_in_setup(
        "mlp",
        {"depth": 3, "width": 16},
        task_source("digits", {"n_train": 100}),
        Recipe(**{"stop": TargetLoss(target_loss=0.2, max_epochs=150)} | recipe),
        base_lr=0.1,
        output_multiplier=c,
    )


def options(store: Path | bool = False, **changes: object) -> Options:
    return replace(Options(listener=Heard(), max_seeds=4, store=store, jobs=1), **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path, Path]:
    """A report with a confirmed gain, its tuned model, and the store."""
    folder = tmp_path_factory.mktemp("tuned")
    made = tuning.tune_setup(
        digits(), options(folder / "runs"), output=folder / "tuned.pt", train_seed=7, confirm=5
    )
    return made, folder / "tuned.pt", folder / "runs"


def test_the_tuned_model_is_what_was_verified(written: tuple[Report, Path, Path]) -> None:
    made, path, _ = written
    found = made.tuning
    assert found is not None
    assert found.change == "multiplier", found.reason
    bundle = load_bundle(path)
    header = bundle.header
    assert header.output_multiplier == found.tuned_c
    assert header.recipe is not None
    assert header.recipe.optimizer.lr == found.tuned_lr
    assert header.recipe.seed == header.recipe.data_seed == 7
    # Trained again as the file says, the same weights come out.
    setup = from_bundle(bundle, NOTHING).setup
    assert setup is not None
    config = RunConfig(
        setup_digest="own", c=setup.output_multiplier, init_scale=1.0,
        lr=setup.known_optimizer.lr, seed=7, centered=False, max_epochs=150,
    )  # fmt: skip
    run, _ = train_one(setup, resolve_lr_rule(setup, setup.task_for(7)), config)
    for name, value in run.final.items():
        assert torch.equal(value, bundle.final[name])


def test_what_to_paste_is_what_was_trained(written: tuple[Report, Path, Path]) -> None:
    found = written[0].tuning
    assert found is not None
    assert found.snippet is not None
    exponent = round(math.log2(found.tuned_c or 0))
    assert f"logits = 2**{exponent} * model(x)  # was 2**3 * model(x)" in found.snippet
    assert f"lr={found.tuned_lr:.4g})  # was lr={found.lr:.4g}" in found.snippet


def test_goes_on_from_its_store(written: tuple[Report, Path, Path]) -> None:
    first, _, store = written
    again = options(store)
    second = tuning.tune_setup(digits(), again, confirm=5)
    assert again.listener.plans == []  # type: ignore[attr-defined]
    assert second.tuning == first.tuning.model_copy(update={"model_file": None})  # type: ignore[union-attr]


def test_every_view_shows_it(
    written: tuple[Report, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = written[0]
    found = made.tuning
    assert found is not None
    assert found.snippet is not None
    assert found.gain is not None
    report.write_json(made, tmp_path / "r.json")
    assert report.read(tmp_path / "r.json") == made
    assert json.loads((tmp_path / "r.json").read_text())["kind"] == "tune"
    console.show(made, width=200)
    screen = capsys.readouterr().out
    page = report.write_html(made, tmp_path / "r.html").read_text()
    for text in (screen, page):
        assert "gain confirmed" in text
        assert f"{found.gain.value:+.2f} percentage points" in text
        assert "smaller c = larger FLS = toward over-aligned" in text
        assert "learning rates" in text
        for trial in found.trials:
            assert f"{trial.lr:.4g}" in text
    assert found.snippet in screen
    assert "no verdict" not in screen + page


def test_no_gain_no_file(tmp_path: Path) -> None:
    best = digits(2.0**-3, optimizer=Sgd(lr=0.1))
    made = tuning.tune_setup(best, options(), output=tmp_path / "tuned.pt", confirm=3)
    assert made.tuning is not None
    assert made.tuning.change == "none", made.tuning.reason
    assert made.tuning.snippet is None
    assert not (tmp_path / "tuned.pt").exists()
    assert [one.code for one in made.skipped] == ["not_confirmed"]


def test_a_tuned_net_that_misses_its_target_is_not_written(
    written: tuple[Report, Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = tuning.train_one

    def fails(*arguments: Any, **more: Any) -> Any:
        run, found = real(*arguments, **more)
        return replace(run, outcome=Outcome.OUT_OF_BUDGET), found

    monkeypatch.setattr(tuning, "train_one", fails)
    with pytest.raises(RunFailedError, match=r"seed 3.*--train-seed"):
        tuning.tune_setup(
            digits(), options(written[2]), output=tmp_path / "t.pt", train_seed=3, confirm=5
        )
    assert not (tmp_path / "t.pt").exists()


OPTIMIZERS = {
    "sgd": Sgd(lr=0.05, momentum=0.5, weight_decay=0.01, clip_norm=0.5),
    "adamw": AdamW(lr=0.003, weight_decay=0.05, clip_norm=0.5),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_recipe_holds_penalty_epsilon_and_clipping_at_the_tuned_multiplier(name: str) -> None:
    setup = digits(1.0, optimizer=OPTIMIZERS[name], stop=TargetLoss(1e-9, max_epochs=3))
    rule, c, lr = resolve_lr_rule(setup, setup.task_for(0)), 2.0**-6, 0.02
    optimizer = tuning.tuned_optimizer(setup, rule, c, lr)
    assert not isinstance(optimizer, str)
    config = RunConfig(
        setup_digest="own", c=c, init_scale=1.0, lr=lr, seed=0, centered=False, max_epochs=3
    )
    verified, _ = train_one(setup, rule, config)
    again, _ = train_one(replace(setup, output_multiplier=c, optimizer=optimizer), rule, config)
    for key, value in verified.final.items():
        assert torch.allclose(value, again.final[key], rtol=1e-4, atol=1e-6)


def test_what_a_recipe_can_not_say_is_left_out() -> None:
    setup = digits(1.0)
    special = LrRule(name="homogeneous", depth=3, exponents={"0.bias": 2.0})
    assert "rates of their own" in str(tuning.tuned_optimizer(setup, special, 0.5, 0.1))
    assert tuning.tuned_optimizer(setup, special, 1.0, 0.3) == setup.known_optimizer.model_copy(
        update={"lr": 0.3}
    )
    own = replace(setup, optimizer=Custom(make=lambda groups: None, lr=0.1))  # type: ignore[arg-type,return-value]
    assert "optimizer of your own" in str(tuning.tuned_optimizer(own, special, 1.0, 0.1))


def two_blobs(seed: int) -> fls_bench.Task:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(600) % 2
    x = torch.randn(600, 12, generator=generator)
    x[:, 0] += 2.0 * y
    drawn = torch.randperm(300, generator=torch.Generator().manual_seed(seed))
    x_test, y_test = x[300:].numpy(), y[300:].numpy()
    train, validation = ((x[part].numpy(), y[part].numpy()) for part in (drawn[:60], drawn[60:200]))
    return make_task("two blobs", train, (x_test, y_test), validation, seed=seed)


def own_net(seed: int | None = None) -> nn.Module:
    torch.manual_seed(seed or 0)
    return nn.Sequential(nn.Linear(12, 32, bias=False), nn.ReLU(), nn.Linear(32, 2, bias=False))


OWN = TrainingSetup(
    make_model=own_net,
    task=two_blobs,
    optimizer=Sgd(lr=0.0005),
    stop=TargetLoss(0.1, max_epochs=200),
    output_multiplier=64.0,
    centered=True,
    name="own",
)


def test_a_net_of_the_users_own_and_its_tuned_file(cli: Cli, folder: Path) -> None:
    made = tuning.tune_setup(
        replace(OWN, centered=False), options(), output=Path("tuned.pt"), confirm=10
    )
    assert made.tuning is not None
    assert made.tuning.change != "none", made.tuning.reason
    header = load_bundle("tuned.pt").header
    assert header.architecture.name is None
    assert header.architecture.hint == f"{__name__}:own_net"
    assert header.task is not None
    assert header.task.embedded
    refused = cli("tune", "tuned.pt", "--no-store")
    assert (refused.code, refused.out) == (2, "")
    assert f"--model module:function (the file's hint is '{__name__}:own_net')" in refused.err
    line = ("tune", "tuned.pt", "--model", f"{__name__}:own_net", "--max-seeds", 3, "--confirm", 3)
    ended = cli(*line, "--jobs", 1, "--no-store", "--json", "r.json")
    assert ended.code == 0, ended.err
    again = report.read("r.json").tuning
    assert again is not None
    assert (again.c, again.lr) == (made.tuning.tuned_c, made.tuning.tuned_lr)


@pytest.mark.parametrize("axis", ["output_multiplier", "init_scale"])
def test_centering_and_the_init_scale_are_kept(folder: Path, axis: Any) -> None:
    setup = replace(OWN, axis=axis, output_multiplier=1.0, init_scale=0.5, optimizer=Sgd(lr=0.1))
    prepared = prepare(setup, plan(), stores=lambda _: None)
    asked = Tuning(
        change="multiplier", reason=Code(code="x", text="x"), axis=axis, c=1.0, lr=0.1,
        tuned_c=0.25, tuned_lr=0.2, text="x",
    )  # fmt: skip
    result = TuneResult(asked, Sweep(lr_rule=prepared.rule, n_test=300, cells=()), Cost())
    assert tuning.write_tuned(prepared, result, Path("t.pt"), 0) == []
    bundle = load_bundle("t.pt")
    assert bundle.header.centered
    c, alpha = (1.0, 0.25) if axis == "init_scale" else (0.25, 0.5)
    assert (bundle.header.output_multiplier, bundle.header.init_scale) == (c, alpha)
    assert bundle.init is not None
    assert torch.equal(bundle.init["0.weight"], alpha * own_net(0)[0].weight)


# --- the command line ---------------------------------------------------------------------------


def test_the_command_writes_model_and_reports(cli: Cli, folder: Path, model_file: Path) -> None:
    line = ("tune", model_file, "--max-seeds", 3, "--confirm", 3, "--jobs", 1)
    ended = cli(*line, "-o", "tuned.pt", "--json", "r.json", "--html", "r.html")
    assert ended.code == 0, ended.err
    made = report.read("r.json")
    assert made.kind == "tune"
    assert made.tuning is not None
    assert made.input["sha256"] == load_bundle(model_file).sha256
    assert Path("tuned.pt").exists() == (made.tuning.change != "none")
    assert made.tuning.text.split(".")[0] in " ".join(ended.out.split())
    assert "first 6 runs" in ended.err
    again = cli(*line, "--quiet", "--strict")
    assert (again.out, again.err) == ("", "")
    assert again.code == (4 if made.tuning.change == "none" else 0)
    alone = cli(*line, "--json", "-", "--quiet")
    assert json.loads(alone.out)["tuning"]["change"] == made.tuning.change


def test_bad_input_is_refused_before_anything_is_trained(
    cli: Cli, folder: Path, model_file: Path
) -> None:
    fls_bench.save_bundle("weights.pt", nn.Linear(4, 3))
    Path("there.pt").write_text("kept")
    for arguments, words in {
        (): "nothing to tune",
        (model_file, "--setup", "a:b"): "--setup brings its own",
        ("no.pt",): "There is no file",
        ("weights.pt",): "can't be tuned, since its setup can't be trained again",
        (model_file, "-o", "there.pt"): "exists already",
        (model_file, "-o", "no/t.pt"): "There is no folder ",
        (model_file, "-o", "r.json", "--json", "r.json"): "name the same file",
        (model_file, "--confirm", "2"): "greater than or equal to 3",
        (model_file, "--budget", "soon"): "is not a positive time",
        (model_file, "--model", "a:b"): "--model would not be used",
        ("--setup", "no.such:setup"): "there is no module named",
    }.items():
        ended = cli("tune", *arguments, "--no-store")
        assert (ended.code, ended.out) == (2, ""), ended.err
        assert words in ended.err
    assert Path("there.pt").read_text() == "kept"


def test_help_says_when_nothing_is_written(cli: Cli) -> None:
    text = " ".join(cli("tune", "--help").out.split())
    for words in ("writes no model", "smaller c = larger FLS", "no gain confirmed, with --strict"):
        assert words.lower() in text.lower()


@pytest.mark.calibration
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_digits_from_both_ends(seed: int, tmp_path: Path) -> None:
    for log2_c, least in ((-9, 1.0), (3, 15.0)):
        setup = built_in_setup(
            "mlp", {"depth": 4, "width": 128}, task_source("digits", {"n_train": 150}),
            Recipe(stop=TargetLoss(target_loss=0.1, max_epochs=300)), base_lr=0.1,
            output_multiplier=2.0**log2_c,
        )  # fmt: skip
        asked = Options(listener=Silent(), seed=seed, store=False)
        path = tmp_path / f"{log2_c}.pt"
        found = tuning.tune_setup(setup, asked, output=path).tuning
        assert found is not None
        assert found.change != "none"
        assert found.gain_in_all is not None
        assert found.gain_in_all.value > least
        assert found.gain_in_all.low > 0
        assert found.c_star is not None
        assert -6 <= math.log2(found.c_star.value) <= -1
        assert path.exists()
