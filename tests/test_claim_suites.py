"""Suites that test claims, from the file to the table of outcomes."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fls_bench import bench, claim_cases, claims, report
from fls_bench.errors import AbsentDataError, InputError
from fls_bench.report import claims as words
from fls_bench.schema import ClaimResult, ClaimsRecord, Report
from fls_bench.suite import Log2Grid, load_at_scale, load_suite, suite_folder
from fls_bench.verdict.claims.cases import ClaimCase, errors_of, vertex
from fls_bench.verdict.claims.prediction import predict
from fls_bench.verdict.claims.scaling_law import judge_scaling_law

Cli = Callable[..., Any]

HEAD = """
schema = 1
name = "mine"
version = 1
cost = { seconds = 1, memory_mb = 1 }
sources = []
seeds = 4
"""

SMALL_NET = 'model = { name = "mlp", depth = 3, width = 16 }\n'

UNIVERSAL = f"""{HEAD}claim = "C1"
[[case]]
id = "digits"
task = {{ name = "digits", n_train = 60 }}
{SMALL_NET}log2_c = {{ from = -6, to = 4, step = 5 }}
stop = {{ target_loss = 0.3, max_epochs = 200 }}
[[case]]
id = "absent"
task = {{ name = "cifar10" }}
{SMALL_NET}log2_c = {{ from = -2, to = 2, step = 2 }}
[[case]]
id = "large"
task = {{ name = "digits" }}
{SMALL_NET}log2_c = {{ from = -2, to = 2, step = 2 }}
needs_gpu = true
[scale.small]
seeds = 3
cases = ["digits"]
"""

FAMILIES = f"""{HEAD}claim = "C4"
[[case]]
id = "a"
task = {{ name = "digits", n_train = 60 }}
{SMALL_NET}log2_c = {{ from = -2, to = 2, step = 2 }}
vary = {{ "task.n_train" = [40, 60], "model.width" = [8, 16, 32] }}
"""


class Quiet:
    """Notes what a sweep tells."""

    def __init__(self) -> None:
        self.planned: list[int] = []

    def plan(self, total_runs: int, text: str) -> None:
        self.planned.append(total_runs)

    def done(self, runs: int, text: str) -> None: ...

    def note(self, text: str) -> None: ...


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def run(
    path: Path, scale: str = "full", *, listener: Quiet | None = None, store: Path | None = None
) -> Report:
    options = bench.Options(
        listener=listener or Quiet(), store=store or path.parent / "runs", device="cpu", jobs=1
    )
    return bench.run(load_at_scale(path, scale), options)


# --- the file ---------------------------------------------------------------------------------


def test_vary_makes_a_case_of_every_combination(tmp_path: Path) -> None:
    suite = load_suite(written(tmp_path, FAMILIES))
    assert [case.id for case in suite.cases] == [
        f"a-n_train{n}-width{h}" for n in (40, 60) for h in (8, 16, 32)
    ]
    assert {case.family for case in suite.cases} == {"a"}
    last = suite.cases[-1]
    assert (last.task.arguments["n_train"], last.model.arguments["width"]) == (60, 32)
    assert last.model.arguments["depth"] == 3
    whole = FAMILIES.replace(
        '"task.n_train" = [40, 60]', '"stop" = [{ steps = 9 }, { target_loss = 1.5 }]'
    )
    ids = [case.id for case in load_suite(written(tmp_path, whole)).cases]
    assert ids[0] == "a-steps9-width8"
    assert ids[-1] == "a-target_loss1_5-width32"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("vary = { ", 'vary = [1]\nx = { ', "vary is a table of lists"),
        ("[8, 16, 32]", "8", "vary is a table of lists"),
        ("[8, 16, 32]", "[]", "vary is a table of lists"),
        ('"model.width"', '"id.width"', "'id' is no table"),
        ("[8, 16, 32]", "[8, 8]", "two cases have the id"),
        ("[8, 16, 32]", str(list(range(1, 600))), "more than 1000 cases"),
        ('claim = "C4"', 'claim = "C5"', "claim: expected 'C1', 'C2', 'C3' or 'C4'"),
        ('claim = "C4"\n', "", "family goes with a suite that has a claim"),
        ("log2_c = { from = -2, to = 2, step = 2 }\n", "", "has cases with log2_c"),
        ('claim = "C4"', 'claim = "C2"', "C2 needs the case's difficulty"),
        ('claim = "C4"', 'claim = "C4"\n[theory]\nstep = 0.1\n', "a suite has one of claim"),
        ('claim = "C4"', 'claim = "C4"\n[scale.small]\ncases = ["b"]\n', "no case or family 'b'"),
        ('claim = "C4"', 'claim = "C4"\n[scale.small]\nseed = 3\n', "did you mean 'seeds'"),
        ('claim = "C4"', 'claim = "C4"\n[scale.medium]\n', "scale"),
        ('claim = "C4"', 'claim = "C4"\n[scale.small]\ntheory = { step = 0.1 }\n', "theory does not go"),
        ('"task.n_train"', '"id"', "vary can't name the id"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_suite_of_a_claim_is_told(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    assert old in FAMILIES
    with pytest.raises(InputError) as error:
        load_suite(written(tmp_path, FAMILIES.replace(old, new)))
    assert told in error.value.problem


def test_a_scale_keeps_what_it_names_under_a_name_of_its_own(tmp_path: Path) -> None:
    path = written(tmp_path, UNIVERSAL)
    small, full = load_at_scale(path, "small"), load_at_scale(path, "full")
    assert (small.name, small.seeds, [case.id for case in small.cases]) == (
        "mine-small",
        3,
        ["digits"],
    )
    assert (full.name, full.seeds, len(full.cases)) == ("mine", 4, 3)
    assert small.digest != full.digest
    other = written(tmp_path, UNIVERSAL.replace("seeds = 3", "seeds = 5"))
    assert load_at_scale(other, "full").digest == full.digest
    assert load_suite("theory-small") == load_at_scale("theory", "small")
    with pytest.raises(InputError, match="no scale 'smal', did you mean 'small'"):
        load_at_scale(path, "smal")
    with pytest.raises(InputError, match="has no scale small"):
        load_at_scale("quick", "small")


def test_every_suite_of_a_claim_has_a_small_scale_of_two_minutes_that_can_be_checked() -> None:
    tested = set()
    for path in sorted(suite_folder().glob("*.toml")):
        suite = load_suite(path)
        if suite.claim is None and suite.theory is None:
            continue
        tested |= {"C5", "C6"} if suite.theory else {suite.claim}
        if path.stem == "paper-cifar":
            continue
        small = suite.at_scale("small")
        assert small.cost.seconds <= 120
        assert small.too_few_seeds is None
        assert suite.cost.seconds <= 5400
    assert tested == {"C1", "C2", "C3", "C4", "C5", "C6"}


# --- the run ----------------------------------------------------------------------------------


def test_cases_that_need_data_or_a_gpu_are_listed_and_the_rest_is_judged_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLS_BENCH_DATA", str(tmp_path / "nothing"))
    path = written(tmp_path, UNIVERSAL)
    made = run(path)
    (claim,) = made.claims
    assert claim.claim == "C1"
    assert claim.outcome in ("reproduced", "not_reproduced", "undecided")
    assert [(one.what, one.code) for one in claim.not_run] == [
        ("absent", "no_data"), ("large", "needs_gpu")
    ]  # fmt: skip
    assert "npm pack" in claim.not_run[0].reason
    (case,) = made.cases
    assert case.diagnosis is not None
    assert case.sweep is not None
    assert len(case.sweep.cells) == 4  # three of the grid, and c = 1
    again = Quiet()
    second = run(path, listener=again)
    assert again.planned == []
    assert second.claims == made.claims


def test_absent_data_is_an_input_error_of_its_own() -> None:
    assert AbsentDataError.exit_code == 2
    assert issubclass(AbsentDataError, InputError)


def test_a_family_is_judged_by_the_sizes_of_its_cases(tmp_path: Path) -> None:
    sizes = []

    def judge(cases: Sequence[ClaimCase]) -> ClaimResult:
        sizes.extend((one.factors["width"], one.factors["n_train"], one.family) for one in cases)
        return judge_scaling_law(cases)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(claim_cases.JUDGES, "C4", judge)
        made = run(written(tmp_path, FAMILIES.replace("seeds = 4", "seeds = 3")))
    assert sizes == [(h, n, "a") for n in (40, 60) for h in (8, 16, 32)]
    (claim,) = made.claims
    # Three seeds are too few to be resampled: nothing is concluded, and every case is listed.
    assert claim.outcome == "undecided"
    assert sorted(one.what for one in claim.not_run) == sorted(case.id for case in made.cases)


@pytest.mark.slow
@pytest.mark.parametrize("claimed", ["cifar100-resnet18", "cifar100-vgg19"])
def test_the_authors_setting_runs_end_to_end_at_toy_size(tmp_path: Path, claimed: str) -> None:
    """The suite's own nets, rule, stop and batch; small in width, images, seeds and values of c."""
    suite = load_suite("paper-cifar")
    case = next(case for case in suite.cases if case.id == claimed)
    arguments = {
        "size": 32, "latent_dim": 4, "n_classes": 3, "n_train": 30, "n_test": 50, "n_val": 50
    }  # fmt: skip
    toy = case.model_copy(
        update={
            "task": case.task.model_copy(update={"name": "latent_images", "arguments": arguments}),
            "model": case.model.model_copy(update={"arguments": {"width": 4}}),
            "needs_gpu": None,
            "log2_c": Log2Grid.model_validate({"from": -1, "to": 1, "step": 1}),
        }
    )
    options = bench.Options(listener=Quiet(), store=tmp_path / "runs", device="cpu", jobs=1)
    made = bench.run(suite.model_copy(update={"cases": (toy,), "seeds": 3}), options)
    (result,) = made.cases
    assert result.sweep is not None
    assert result.sweep.lr_rule.name == "plain"
    assert result.setup["stop"]["target_accuracy"] == 0.99
    assert [cell.usable for cell in result.sweep.cells] == [True] * 3
    (claim,) = made.claims
    assert claim.outcome in ("reproduced", "not_reproduced", "undecided")
    assert [part.n for part in claim.parts if part.unit == "points"] == [3, 3]
    assert claim.panels
    # And the views of it.
    report.write_html(made, tmp_path / "toy.html")
    assert claimed in (tmp_path / "toy.html").read_text()


def test_without_a_gpu_the_authors_setting_is_listed_as_not_run(tmp_path: Path) -> None:
    made = run(suite_folder() / "paper-cifar.toml", store=tmp_path)
    (claim,) = made.claims
    assert claim.outcome == "not_run"
    assert {one.code for one in claim.not_run} == {"needs_gpu"}
    assert len(claim.not_run) == len(load_suite("paper-cifar").cases) - 1


# --- stored outcomes --------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, Report]:
    import report_fixtures

    made = report_fixtures.claims()
    path = tmp_path / "report.json"
    report.write_json(made, path)
    return path, made


def shown(result: Any) -> str:
    return " ".join((result.out + result.err).split())


def test_an_outcome_is_kept_shown_and_never_lost(
    cli: Cli, tmp_path: Path, stored: tuple[Path, Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(claims, "packaged", lambda name: None)
    path, made = stored
    kept = cli("claims", "--record", str(path))
    assert kept.code == 0
    assert "C4: c* ~ n^-2 h^-1: not reproduced here" in shown(kept)
    assert "C2: Harder data, larger gain: not run here" in shown(kept)
    file = tmp_path / "baselines" / "claims" / "scaling-law.json"
    record = ClaimsRecord.model_validate(json.loads(file.read_text()))
    assert record.claims == made.claims
    assert record.recorded == made.provenance.started
    before = file.read_bytes()
    assert cli("claims", "--record", str(path)).code == 2
    assert file.read_bytes() == before
    assert cli("claims", "--record", str(path), "--force").code == 0
    table = cli("claims", "--md", "table.md", "--json", "-")
    assert json.loads(table.out)[0]["schema"] == "fls-bench/claims/1"
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert len(lines) == 2 + 6
    assert lines[0].count("|") == lines[-1].count("|") == len(words.COLUMNS) + 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("claims", "--record", "nothing.json"), "There is no file nothing.json"),
        (("claims", "--folder", "nothing"), "There is no folder nothing"),
        (("transfer", "nothing.json", "--width", "9", "--n-train", "9"), "There is no file"),
        (("run", "quick", "--scale", "small"), "has no scale small"),
        (("run", "quick", "--scale", "medium"), "no scale 'medium'"),
    ],
)
def test_bad_input_is_told(
    cli: Cli, tmp_path: Path, arguments: Sequence[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli(*arguments)
    assert result.code == 2
    assert told in shown(result)
    assert list(tmp_path.iterdir()) == []


def test_a_report_without_claims_has_no_outcome_to_keep(cli: Cli, tmp_path: Path) -> None:
    import report_fixtures

    path = tmp_path / "suite.json"
    report.write_json(report_fixtures.suite(), path)
    result = cli("claims", "--record", str(path), "--folder", str(tmp_path / "kept"))
    assert result.code == 2
    assert "has no outcome to keep" in shown(result)
    assert not (tmp_path / "kept").exists()
    result = cli("transfer", str(path), "--width", "9", "--n-train", "9")
    assert result.code == 2
    assert "holds no fit" in shown(result)


def test_transfer_predicts_inside_of_the_fit_from_reports_and_outcomes(
    cli: Cli, tmp_path: Path, stored: tuple[Path, Report]
) -> None:
    path, _ = stored
    folder = tmp_path / "kept"
    cli("claims", "--record", str(path), "--folder", str(folder))
    sizes = ("--width", "32", "--n-train", "150", "--family", "digits", "--json", "-")
    answers = [
        json.loads(cli("transfer", str(file), *sizes).out)
        for file in (path, folder / "scaling-law.json")
    ]
    assert answers[0] == answers[1]
    star = answers[0]["c_star"]
    assert star["low"] < star["value"] < star["high"]
    assert star["value"] == pytest.approx(2 ** (-1 - 0.4 * 5))
    outside = cli(
        "transfer", str(path), "--width", "1024", "--n-train", "150", "--family", "digits"
    )
    assert outside.code == 2
    assert "lies outside of what digits was fitted on (width 16 to 64" in shown(outside)


def test_the_outcomes_that_come_with_the_package_are_readable() -> None:
    records, places = claims.find()
    assert len(places) == 1
    assert records


@pytest.mark.parametrize("name", ["../../evil", "/evil", "", "a b", ".", "a/b", 3, None])
def test_an_outcome_is_written_under_the_name_of_a_suite_and_nowhere_else(
    cli: Cli, tmp_path: Path, stored: tuple[Path, Report], name: object
) -> None:
    _, made = stored
    suite = {"version": 1, "digest": "0" * 64} | ({} if name is None else {"name": name})
    path = tmp_path / "bad.json"
    report.write_json(made.model_copy(update={"suite": suite}), path)
    folder = tmp_path / "one" / "two"
    result = cli("claims", "--record", str(path), "--folder", str(folder))
    assert result.code == 2
    assert "is no name of a suite" in shown(result)
    with pytest.raises(InputError, match="is no name of a suite"):
        claims.write(claims.record_of(made).model_copy(update={"suite": suite}), folder)
    assert {one.name for one in tmp_path.rglob("*.json")} == {"bad.json", "report.json"}


def test_an_outcome_of_a_small_scale_is_not_kept(
    cli: Cli, tmp_path: Path, stored: tuple[Path, Report]
) -> None:
    _, made = stored
    path = tmp_path / "small.json"
    suite = {"name": "scaling-law-small", "version": 1, "digest": "0" * 64}
    report.write_json(made.model_copy(update={"suite": suite}), path)
    result = cli("claims", "--record", str(path), "--folder", str(tmp_path / "kept"))
    assert result.code == 2
    assert "scaling-law-small is a suite at its small scale" in shown(result)
    assert "'fls-bench run scaling-law --json FILE'" in shown(result)
    assert not (tmp_path / "kept").exists()


def test_a_projects_outcome_stands_for_the_packages_and_hides_no_other(
    tmp_path: Path, stored: tuple[Path, Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(claims, "packaged", lambda name: tmp_path / "package" / name)
    package = tmp_path / "package" / "baselines" / "claims"
    record = claims.record_of(stored[1])
    for name, folder, date in (
        ("theory", package, "2026-01-01"), ("scaling-law", package, "2026-01-01"),
        ("scaling-law", claims.PROJECT_FOLDER, "2026-02-02"),
    ):  # fmt: skip
        suite = record.suite | {"name": name}
        claims.write(record.model_copy(update={"suite": suite, "recorded": date}), folder)
    found, places = claims.find()
    assert [(one.suite["name"], one.recorded) for one in found] == [
        ("scaling-law", "2026-02-02"), ("theory", "2026-01-01")
    ]  # fmt: skip
    assert places == (claims.PROJECT_FOLDER, package)
    assert claims.find(package)[1] == (package,)
    # The source tree is both.
    monkeypatch.setattr(claims, "packaged", lambda name: tmp_path / name)
    found, places = claims.find()
    assert [one.suite["name"] for one in found] == ["scaling-law"]
    assert places == (claims.PROJECT_FOLDER,)


def test_the_seeds_that_were_run_are_kept_and_shown(stored: tuple[Path, Report]) -> None:
    _, made = stored
    cases = made.cases
    every = [
        run.seed
        for case in cases
        if case.sweep is not None
        for cell in case.sweep.cells
        for run in cell.seeds
    ]
    record = claims.record_of(made)
    assert record.seeds == (min(every), max(every))
    cells = dict(zip(words.COLUMNS, words.rows([record])[3], strict=True))
    # The claim was judged from the ten that all of a case's c share; a case ran sixteen.
    assert cells["seeds"] == f"10 to {max(every) - min(every) + 1} a case (from {min(every)})"
    old = json.loads(record.model_dump_json(by_alias=True))
    del old["seeds"]
    read = ClaimsRecord.model_validate(old)  # written before seeds were kept
    assert read.seeds is None
    assert dict(zip(words.COLUMNS, words.rows([read])[3], strict=True))["seeds"] == "10"


def test_no_text_in_an_outcome_breaks_the_table_of_markdown(stored: tuple[Path, Report]) -> None:
    import report_fixtures

    record = claims.record_of(stored[1])
    hostile = report_fixtures.claims("a\nb | c <script>x</script> ~y~ **z**").claims
    text = words.markdown([record.model_copy(update={"claims": hostile})])
    lines = text.splitlines()
    assert len(lines) == 2 + 6
    assert {line.replace("\\|", "").count("|") for line in lines} == {len(words.COLUMNS) + 1}
    assert "<" not in text
    assert "\\*\\*z\\*\\*" in text


LAW = f"""{HEAD.replace("seeds = 4", "seeds = 8")}claim = "C4"
[defaults]
stop = {{ target_loss = 0.1, max_epochs = 400 }}
[[case]]
id = "digits"
task = {{ name = "digits" }}
model = {{ name = "mlp", depth = 4 }}
log2_c = {{ from = -8, to = 1, step = 1 }}
vary = {{ "task.n_train" = [75, 300], "model.width" = [32, 128] }}
"""


@pytest.mark.slow
def test_a_prediction_agrees_with_a_real_sweep_at_a_size_that_was_not_fitted(
    tmp_path: Path,
) -> None:
    """A larger size than three of the four fitted ones is swept after the prediction."""
    (claim,) = run(written(tmp_path, LAW)).claims
    star = predict(claim.fits[0], 120, 280).setting
    assert star.low is not None
    assert star.high is not None
    swept = LAW.replace("[75, 300]", "[280]").replace("[32, 128]", "[120]")
    (case,) = run(written(tmp_path, swept)).cases
    assert case.sweep is not None
    errors = errors_of(case.sweep)
    assert errors is not None
    found = vertex(np.log2(errors.c), errors.test.mean(axis=1))[0]
    assert abs(found - math.log2(star.value)) < 1
    assert math.log2(star.low) <= found <= math.log2(star.high)
    # And the prediction says something: far from every c of the sweep would agree with it.
    assert math.log2(star.high / star.low) < 4


THEORY = f"""{HEAD}[defaults]
loss = "logistic"
stop = {{ target_loss = 0.1, max_epochs = 9000 }}
[theory]
log2_alpha = {{ from = -6, to = 0, step = 3 }}
step = 0.2
max_halvings = 1
[[case]]
id = "mixture"
task = {{ name = "mixture", input_dim = 10, n_train = 10, n_test = 200, n_val = 100 }}
model = {{ name = "two_layer", width = 8 }}
axis = "init_scale"
"""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("step = 0.2", "step = 0", "theory.step: expected a value greater than or equal to 0.0001"),
        ("step = 0.2", "stepp = 0.2", "unknown key 'stepp', did you mean 'step'?"),
        ("to = 0", "to = -9", "'to' = -9 is smaller than 'from' = -6"),
        ("step = 3", "step = 6", "a trend needs at least 3"),
        ("to = 0", "to = 40", "theory.log2_alpha.to"),
        ("max_halvings = 1", "max_halvings = 99", "theory.max_halvings"),
        ('axis = "init_scale"', "log2_c = { from = -2, to = 2, step = 2 }", "and no log2_c"),
        ("[theory]", "[scale.small]\nlog2_c = { from = 0, to = 1, step = 1 }\n[theory]", "does not go"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_suite_of_the_theory_is_told(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    assert old in THEORY
    with pytest.raises(InputError) as error:
        load_suite(written(tmp_path, THEORY.replace(old, new)))
    assert told in error.value.problem


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('loss = "logistic"', "", "n_outputs: Input should be 1"),
        ('"two_layer", width = 8', '"mlp", depth = 3, width = 8', "the built-in net 'two_layer'"),
        ("target_loss = 0.1,", "target_accuracy = 0.9,", "a stop at a training loss"),
    ],
)
def test_a_setup_that_is_not_that_of_the_theory_is_refused(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    assert old in THEORY
    with pytest.raises(InputError) as error:
        run(written(tmp_path, THEORY.replace(old, new)))
    assert told in str(error.value)


def test_the_theory_runs_from_its_file_to_both_claims(tmp_path: Path) -> None:
    made = run(written(tmp_path, THEORY))
    assert [claim.claim for claim in made.claims] == ["C5", "C6"]
    (case,) = made.cases
    assert case.diagnosis is not None  # alpha = 1 is judged like any other
    assert case.sweep is not None
    run_ = case.sweep.cells[0].seeds[0]
    oa, of, excess = (
        run_.measurements[f"theory.{name}"]
        for name in ("over_alignment", "over_fitting", "excess_effective")
    )
    assert oa >= 0
    assert of >= 0
    assert oa + of == pytest.approx(excess, abs=1e-12)
    assert len(case.setup["gradient_flow"]["levels"]) == 2
