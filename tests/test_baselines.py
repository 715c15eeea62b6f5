"""Baselines as a user has them: recorded, shown, compared with, and changed by bless alone."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import report_fixtures
from hypothesis import given
from hypothesis import strategies as st

from fls_bench import baselines, bench, checking, claim_cases, console, facts, files, report
from fls_bench.comparing import compare_files
from fls_bench.errors import InputError
from fls_bench.report import claims as claim_words
from fls_bench.report import html, junit, markdown
from fls_bench.report.github import workflow_commands
from fls_bench.schema import (
    Baseline,
    ClaimResult,
    Interval,
    Outcome,
    RecordedClaim,
    RecordedPart,
    Report,
)
from fls_bench.suite import load_suite

Cli = Callable[..., Any]

SUITE = """
schema = 1
name = "tiny"
version = 1
cost = { seconds = 5, memory_mb = 500 }
sources = []
seeds = 8
[defaults]
stop = { target_loss = 0.5, max_epochs = 60 }
[[case]]
id = "blobs"
task = { name = "mixture", input_dim = 5, n_train = 20, kappa = 1.0, sigma = 0.3 }
model = { name = "mlp", depth = 2, width = 8 }
log2_c = { from = -2, to = 2, step = 2 }
"""

OWN = """
import os
import numpy as np
import torch
import fls_bench

def task(seed):
    rng = np.random.default_rng(seed)
    def part(n):
        y = np.arange(n) % 2
        return rng.standard_normal((n, 5)) + 2.0 * np.eye(5)[y], y
    return fls_bench.make_task("mine", part(20), part(300), part(200))

def build():
    return torch.nn.Sequential(torch.nn.Linear(5, 8, bias=False), torch.nn.ReLU(),
                               torch.nn.Linear(8, 2, bias=False))

def setup():
    return fls_bench.TrainingSetup(
        make_model=build, task=task, optimizer=fls_bench.Sgd(lr=float(os.environ.get("LR", "0.1"))),
        stop=fls_bench.TargetLoss(0.5, max_epochs=60), batch_size=5, name="my net")
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a suite, the report of its check, and its baseline; copy it to change it."""
    from fls_bench.cli import main

    folder = tmp_path_factory.mktemp("project")
    (folder / "tiny.toml").write_text(SUITE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("FLS_BENCH_STORE", str(folder / "store"))
        for line in (
            "check tiny.toml --json first.json --md first.md --junit first.xml -q --budget 1h",
            "baseline record tiny.toml --report first.json",
        ):
            with pytest.raises(SystemExit) as end:
                main(line.split())
            assert end.value.code == 0
    return folder


@pytest.fixture
def project(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one's own, with the working folder in it."""
    folder = tmp_path / "project"
    shutil.copytree(recorded, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("FLS_BENCH_STORE", str(folder / "store"))
    return folder


def test_the_first_run_measures_ends_well_and_says_how_to_record(recorded: Path) -> None:
    made = report.read(recorded / "first.json")
    assert made.kind == "check"
    assert made.comparison is not None
    assert made.comparison.status == "no_baseline"
    assert made.cases[0].sweep is not None
    # The suite as the command line named it: the file, not the name in it.
    assert "'fls-bench baseline record tiny.toml'" in (recorded / "first.md").read_text()
    suite = ET.parse(recorded / "first.xml").getroot()
    assert suite.find(".//testcase/skipped") is not None
    assert suite.get("errors") == "0"


def test_a_baseline_is_sorted_diffable_and_has_every_seed(recorded: Path) -> None:
    path = recorded / "baselines" / "tiny.json"
    text = path.read_text()
    value = json.loads(text)
    assert value["schema"] == "fls-bench/baseline/1"
    assert json.dumps(value, sort_keys=True) == json.dumps(value)
    assert value["suite"].keys() == {"name", "version", "digest"}
    assert {"torch", "blas", "threads", "device"} <= value["environment"].keys()
    lines = text.splitlines()
    errors = [line for line in lines if '"test_error": [' in line]
    assert len(errors) == 3  # one line for each c
    assert all(line.count(",") >= 7 and "]" in line for line in errors)
    assert len(baselines.read(path).cases[0].cells[1].values["test_error"]) == 8
    # Written again, the same bytes.
    assert baselines.to_text(baselines.read(path)) == text


def test_the_same_setup_again_has_no_regression(cli: Cli, project: Path) -> None:
    ended = cli("check", "tiny.toml", "--budget", "1h", "--json", "again.json")
    assert ended.code == 0, ended.err
    assert "no regression" in ended.out
    found = report.read(project / "again.json").comparison
    assert found is not None
    assert found.baseline == "baselines/tiny.json"
    for metric in found.pairs[0].metrics:
        assert metric.paired
        if metric.difference is not None:
            assert metric.difference.value == pytest.approx(0, abs=1e-3)
    assert "for that alone" not in ended.out  # the same machine is no warning


def worsened(path: Path, by: float) -> None:
    """As if the baseline had been better in every seed."""
    value = json.loads(path.read_text())
    for cell in value["cases"][0]["cells"]:
        cell["values"]["test_error"] = [k - by for k in cell["values"]["test_error"]]
    path.write_text(json.dumps(value))


def test_a_regression_ends_with_1_and_says_so_everywhere(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worsened(project / "baselines" / "tiny.json", 0.1)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(project / "step.md"))
    ended = cli("check", "tiny.toml", "--budget", "1h", "--md", "bad.md", "--junit", "bad.xml")
    assert ended.code == 1
    assert "blobs: test_error: worse by 10 points" in " ".join(ended.out.split())
    assert "::error title=blobs%3A test_error::" in ended.err
    assert (project / "step.md").read_text() == (project / "bad.md").read_text()
    assert "REGRESSED" in (project / "bad.md").read_text()
    failure = (
        ET.parse(project / "bad.xml").getroot().find(".//testcase[@name='test_error']/failure")
    )
    assert failure is not None
    assert failure.get("type") == "regressed"


def test_json_on_standard_output_is_json_alone_under_github_too(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    ended = cli("check", "tiny.toml", "--budget", "1h", "--json", "-")
    assert json.loads(ended.out)["kind"] == "check"
    assert "::notice title=fls-bench::No regression" in ended.err


def test_undecided_is_0_and_4_with_strict(cli: Cli, project: Path) -> None:
    # Half of the seeds are not in the baseline: four pairs decide nothing.
    path = project / "baselines" / "tiny.json"
    value = json.loads(path.read_text())
    for cell in value["cases"][0]["cells"]:
        cell["seeds"] = [k + 4 for k in cell["seeds"]]
    path.write_text(json.dumps(value))
    ended = cli("check", "tiny.toml", "--budget", "1h")
    assert ended.code == 0
    assert "4 pairs of seeds can't decide" in " ".join(ended.out.split())
    assert cli("check", "tiny.toml", "--budget", "1h", "--strict", "-q").code == 4


def test_another_digest_is_not_comparable_and_5_where_it_was_asked_for(
    cli: Cli, project: Path
) -> None:
    changed = SUITE.replace("width = 8", "width = 9")
    (project / "tiny.toml").write_text(changed)
    for option in (["--require-baseline"], ["--baseline", "baselines/tiny.json"]):
        ended = cli("check", "tiny.toml", *option, "--junit", "five.xml", "--force")
        assert ended.code == 5
        assert "The suite has changed since" in ended.err
        assert "runs" not in ended.err  # nothing was trained for it
        error = ET.parse(project / "five.xml").getroot().find(".//testcase/error")
        assert error is not None
        assert "The suite has changed since" in error.get("message", "")
    ended = cli("check", "tiny.toml", "--budget", "1h", "--junit", "not.xml")
    assert ended.code == 0
    assert "not comparable" in ended.out
    assert ET.parse(project / "not.xml").getroot().get("errors") == "1"


def test_no_baseline_is_5_where_one_is_required(cli: Cli, project: Path) -> None:
    (project / "baselines" / "tiny.json").unlink()
    assert cli("check", "tiny.toml", "--require-baseline").code == 5
    ended = cli("check", "tiny.toml", "--baseline", "gone.json")
    assert ended.code == 5
    assert "There is no file gone.json" in ended.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"schema": "fls-bench/baseline/2"}', "Upgrade fls-bench"),
        ('{"schema": "fls-bench/baseline/1", "cases": []}', "damaged baseline"),
        ('{"schema": "fls-bench/baseline/1"', "not JSON"),
        ('{"schema": "fls-bench/report/1"}', "not an fls-bench baseline"),
        ("[]", "not an fls-bench baseline"),
    ],
)
def test_a_baseline_that_can_not_be_used_is_said_before_anything_is_trained(
    cli: Cli, project: Path, text: str, said: str
) -> None:
    (project / "baselines" / "tiny.json").write_text(text)
    ended = cli("check", "tiny.toml")
    assert ended.code == 2
    assert said in ended.err
    assert "runs" not in ended.err


def test_a_seed_twice_or_a_row_too_short_is_a_damaged_baseline(project: Path) -> None:
    path = project / "baselines" / "tiny.json"
    for change in ({"seeds": [1] * 8}, {"missed": {"77": "diverged"}}, {"seeds": [1, 2]}):
        value = json.loads(path.read_text())
        value["cases"][0]["cells"][0] |= change
        (project / "other.json").write_text(json.dumps(value))
        with pytest.raises(InputError, match="damaged baseline"):
            baselines.read(project / "other.json")


def test_a_check_takes_the_seeds_of_its_baseline(cli: Cli, project: Path) -> None:
    recording = cli("baseline", "record", "tiny.toml", "--seed", 3, "--file", "three.json")
    assert recording.code == 0, recording.err
    assert baselines.read(project / "three.json").cases[0].cells[0].seeds[0] == 4000
    ended = cli("check", "tiny.toml", "--baseline", "three.json", "--json", "c.json")
    assert ended.code == 0
    found = report.read(project / "c.json").comparison
    assert found is not None
    assert all(metric.paired for metric in found.pairs[0].metrics)


def test_a_suite_of_interventions_is_refused_before_it_runs(cli: Cli, project: Path) -> None:
    for command in (["check"], ["baseline", "record"]):
        ended = cli(*command, "rank_intervention")
        assert ended.code == 2
        assert "intervenes on ranks" in ended.err


def test_recording_says_where_the_baseline_is_weak(cli: Cli, project: Path) -> None:
    (project / "tiny.toml").write_text(SUITE.replace("max_epochs = 60", "max_epochs = 2"))
    ended = cli("baseline", "record", "tiny.toml", "--no-store", "--file", "weak.json")
    assert ended.code == 0
    said = " ".join(ended.err.split())
    assert "missed the target and leave no numbers" in said
    assert "its verdict is inconclusive, so that no change of regime can be seen" in said


def test_a_suite_with_too_few_seeds_is_refused_before_it_runs(cli: Cli, project: Path) -> None:
    (project / "tiny.toml").write_text(SUITE.replace("seeds = 8", "seeds = 3"))
    for command in (["check"], ["baseline", "record"]):
        ended = cli(*command, "tiny.toml")
        assert ended.code == 2
        assert "seeds = 3 can't decide 5 tests" in ended.err
        assert "runs" not in ended.err


def test_bless_takes_the_seeds_of_the_baseline(cli: Cli, project: Path) -> None:
    assert cli("baseline", "record", "tiny.toml", "--seed", 3, "--file", "three.json").code == 0
    ended = cli("baseline", "bless", "tiny.toml", "--file", "three.json", "--yes")
    assert ended.code == 0
    assert baselines.read(project / "three.json").cases[0].cells[0].seeds[0] == 4000
    assert "no regression" in ended.out


def test_a_baseline_changes_by_bless_alone_which_shows_the_difference_first(
    cli: Cli, project: Path
) -> None:
    path = project / "baselines" / "tiny.json"
    again = cli("baseline", "record", "tiny.toml", "--report", "first.json")
    assert again.code == 2
    assert "baseline bless" in again.err
    good = path.read_bytes()
    worsened(path, 0.1)
    bad = path.read_bytes()
    asked = cli("baseline", "bless", "tiny.toml", "--report", "first.json")
    assert asked.code == 2  # nobody is there to agree
    assert "test_error" in asked.out
    assert "REGRESSED" in asked.out
    assert path.read_bytes() == bad
    agreed = cli("baseline", "bless", "tiny.toml", "--report", "first.json", "--yes")
    assert agreed.code == 0
    assert path.read_bytes() == good


def test_baselines_are_listed_and_shown(cli: Cli, project: Path) -> None:
    listed = cli("baseline", "list").out
    assert "tiny" in listed  # long names of the others may break it
    assert "project" in listed
    assert "quick.json" in listed  # the package's own
    shown = cli("baseline", "show", "tiny").out
    assert "blobs: " in shown
    assert "test_error" in shown
    assert cli("baseline", "show", "nothing").code == 2
    assert cli("baseline").out == listed


def test_a_setup_of_ones_own_has_a_baseline_of_its_own(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "own_project.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(project))
    own = ["--setup", "own_project:setup", "--budget", "1h", "--jobs", 1]
    ended = cli("check", "tiny.toml", *own, "--require-baseline")
    assert ended.code == 5
    assert "the setup 'my net'" in ended.err
    recording = cli("baseline", "record", "tiny.toml", *own, "--file", "mine.json")
    assert recording.code == 0, recording.err
    assert baselines.read(project / "mine.json").setup == "my net"
    assert "baseline record tiny.toml --setup own_project:setup" in " ".join(ended.err.split())
    other = cli("baseline", "bless", "tiny.toml", "--file", "mine.json", "--yes", "--budget", "1h")
    assert other.code == 2  # without --setup it would replace the user's by the suite's own cases
    assert "recorded with the setup 'my net'" in other.err
    same = cli("check", "tiny.toml", *own, "--baseline", "mine.json")
    assert same.code == 0, same.out
    assert "no regression" in same.out
    monkeypatch.setenv("LR", "0.0001")
    slow = cli("check", "tiny.toml", *own, "--baseline", "mine.json")
    assert slow.code == 1, slow.out
    assert "reached_target" in slow.out
    assert "optimizer.lr 0.1 -> 0.0001" in " ".join(slow.out.split())


def test_where_no_case_can_be_compared_a_required_baseline_is_5(cli: Cli, project: Path) -> None:
    path = project / "baselines" / "tiny.json"
    value = json.loads(path.read_text())
    value["cases"][0]["setup"]["task"] = "of another name"
    path.write_text(json.dumps(value))
    assert cli("check", "tiny.toml", "--budget", "1h", "-q").code == 0
    ended = cli("check", "tiny.toml", "--budget", "1h", "--require-baseline")
    assert ended.code == 5
    assert "not comparable" in ended.out


def test_an_error_is_an_annotation_under_github(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    ended = cli("check", "nothing.toml")
    assert ended.code == 2
    assert "::error title=fls-bench::The suite file nothing.toml" in ended.err


def test_the_baseline_of_the_package_is_the_last_to_be_looked_for(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = baselines.find("quick")
    assert there is not None
    assert there.where == "package"
    shutil.copy(there.path, project / "baselines" / "quick.json")
    nearer = baselines.find("quick")
    assert nearer is not None
    assert nearer.where == "project"
    given = baselines.find("quick", project / "baselines" / "tiny.json")
    assert given is not None
    assert given.where == "given"
    (project / "baselines" / "quick.json").unlink()
    assert baselines.find("quick", own_setup=True) is None


def test_an_installed_package_carries_its_baselines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "fls_bench" / "_data" / "baselines"
    inside.mkdir(parents=True)
    monkeypatch.setattr(files, "__file__", str(tmp_path / "fls_bench" / "files.py"))
    assert baselines.packaged_folder() == inside


def test_the_committed_baseline_is_that_of_the_suite_as_it_is() -> None:
    found = baselines.find("quick")
    assert found is not None
    suite = load_suite("quick")
    facts = {"name": suite.name, "version": suite.version, "digest": suite.digest}
    assert baselines.mismatch(found.baseline, facts, None) is None
    for case, recorded_case in zip(suite.cases, found.baseline.cases, strict=True):
        assert recorded_case.id == case.id
        assert case.expect is not None
        assert recorded_case.regime == case.expect.regime
        own = recorded_case.own
        assert own is not None
        assert len(own.seeds) == suite.seeds
        assert set(own.values) >= set(suite.gate)


def test_runs_that_missed_the_target_leave_no_number(project: Path) -> None:
    made = report.read(project / "first.json")
    cell = made.cases[0].sweep.cells[0]  # type: ignore[union-attr]
    stuck = cell.seeds[0].model_copy(update={"outcome": Outcome.PLATEAU})
    found = baselines.recorded_cell(cell.model_copy(update={"seeds": (stuck, *cell.seeds[1:])}))
    assert found.values["test_error"][0] is None
    assert found.missed == {stuck.seed: Outcome.PLATEAU}
    assert found.num_reached == 7


def test_a_report_without_a_suite_is_no_baseline(project: Path) -> None:
    made = report.read(project / "first.json").model_copy(update={"suite": None})
    with pytest.raises(InputError, match="no run of a suite"):
        baselines.baseline_of(made)
    assert isinstance(baselines.read(project / "baselines" / "tiny.json"), Baseline)


# --- claims of the paper --------------------------------------------------------------------

CLAIMED = (
    SUITE.replace('name = "tiny"', 'name = "claimed"\nclaim = "C1"')
    + """
[scale.small]
cases = ["blobs"]
[gate.test_error]
min_effect = 0.02
better = "lower"
"""
)
SMALL = ("claimed.toml", "--scale", "small", "--budget", "1h")


@pytest.fixture(scope="module")
def claimed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a suite of a claim and the baseline of its small scale; copy it to change it."""
    from fls_bench.cli import main

    folder = tmp_path_factory.mktemp("claimed")
    (folder / "claimed.toml").write_text(CLAIMED)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("FLS_BENCH_STORE", str(folder / "store"))
        for line in (
            "check claimed.toml --scale small --json first.json -q --budget 1h",
            "baseline record claimed.toml --scale small --report first.json",
        ):
            with pytest.raises(SystemExit) as end:
                main(line.split())
            assert end.value.code == 0
    return folder


@pytest.fixture
def claiming(claimed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as a project of one's own, with the working folder in it."""
    folder = tmp_path / "project"
    shutil.copytree(claimed, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("FLS_BENCH_STORE", str(folder / "store"))
    return folder


def recorded_as(folder: Path, said: str, **part: Any) -> None:
    """As if the baseline said that of the claim, and of the first number that decides."""
    path = folder / "baselines" / "claimed-small.json"
    value = json.loads(path.read_text())
    (claim,) = value["claims"]
    claim["outcome"] = said
    first = next(one for one in claim["parts"] if one["outcome"] is not None)
    first |= part
    path.write_text(json.dumps(value))


def test_a_baseline_keeps_what_a_claim_was_judged_by_and_shows_it(cli: Cli, claiming: Path) -> None:
    path = claiming / "baselines" / "claimed-small.json"
    found = baselines.read(path)
    (claim,) = report.read(claiming / "first.json").claims
    assert found.claims == (baselines.recorded_claim(claim),)
    assert [(one.name, one.setting, one.outcome) for one in found.claims[0].parts] == [
        (one.name, one.setting, one.outcome) for one in claim.parts
    ]
    assert any(one.estimate is not None for one in found.claims[0].parts)
    assert baselines.to_text(found) == path.read_text()
    shown = " ".join(cli("baseline", "show", str(path)).out.split())
    assert "Claims of the paper" in shown
    assert claim.parts[0].name.split()[0] in shown


def test_the_same_claim_again_has_no_regression(cli: Cli, claiming: Path) -> None:
    ended = cli("check", *SMALL, "--require-baseline", "--strict", "--json", "again.json")
    assert ended.code == 0, ended.out
    found = report.read(claiming / "again.json").comparison
    assert found is not None
    assert found.status == "no_regression"
    assert "No change of C1." in found.text
    assert len(found.pairs[0].claims) > 1
    assert {one.status for one in found.pairs[0].claims} == {"same"}


def test_a_judge_that_always_says_reproduced_fails_the_check_and_every_view_says_so(
    cli: Cli, claiming: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded_as(claiming, "not_reproduced", outcome="not_reproduced")
    judge = claim_cases.JUDGES["C1"]

    def always(cases: Sequence[Any]) -> ClaimResult:
        made = judge(cases)
        parts = tuple(
            one if one.outcome is None else one.model_copy(update={"outcome": "reproduced"})
            for one in made.parts
        )
        return made.model_copy(update={"outcome": "reproduced", "parts": parts})

    monkeypatch.setitem(claim_cases.JUDGES, "C1", always)
    ended = cli(
        "check", *SMALL, "--require-baseline", "--json", "bad.json", "--md", "bad.md",
        "--junit", "bad.xml", "--html", "bad.html",
    )  # fmt: skip
    assert ended.code == 1, ended.out
    sentence = "was not reproduced here, is reproduced now"
    assert f"Regression: C1 {sentence}" in " ".join(ended.out.split())
    for name in ("bad.md", "bad.html"):
        text = (claiming / name).read_text()
        assert "Claims of the paper" in text
        assert sentence in text
    failed = ET.parse(claiming / "bad.xml").getroot().findall(".//testcase[failure]")
    assert ("fls_bench.check.claimed-small.C1", "outcome") in {
        (one.get("classname"), one.get("name")) for one in failed
    }
    lines = workflow_commands(report.read(claiming / "bad.json"))
    assert f"::error title=C1::{sentence}" in lines
    assert not any(line.startswith("::notice") for line in lines)


def test_a_number_that_decides_and_has_left_its_interval_is_a_regression(
    cli: Cli, claiming: Path
) -> None:
    (claim,) = baselines.read(claiming / "baselines" / "claimed-small.json").claims
    recorded_as(claiming, claim.outcome, estimate={"value": 900.0, "low": 800.0, "high": 1000.0})
    ended = cli("check", *SMALL, "--junit", "bad.xml")
    assert ended.code == 1, ended.out
    said = " ".join(ended.out.split())
    assert "was 900 [800, 1000], is " in said
    assert "now: the intervals have nothing in common" in said
    assert ET.parse(claiming / "bad.xml").getroot().get("failures") == "1"


def test_an_outcome_that_can_not_be_told_any_more_is_inconclusive(
    cli: Cli, claiming: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded_as(claiming, "reproduced")
    judge = claim_cases.JUDGES["C1"]
    monkeypatch.setitem(
        claim_cases.JUDGES,
        "C1",
        lambda cases: judge(cases).model_copy(update={"outcome": "undecided"}),
    )
    ended = cli("check", *SMALL, "--junit", "open.xml")
    assert ended.code == 0
    assert "Open: C1 was reproduced, is undecided now." in " ".join(ended.out.split())
    assert ET.parse(claiming / "open.xml").getroot().get("skipped") == "1"
    assert cli("check", *SMALL, "--strict", "-q").code == 4


def test_a_baseline_from_before_claims_were_kept_is_read_and_leaves_the_check_open(
    cli: Cli, claiming: Path
) -> None:
    path = claiming / "baselines" / "claimed-small.json"
    value = json.loads(path.read_text())
    del value["claims"]
    path.write_text(json.dumps(value))
    assert baselines.read(path).claims == ()
    ended = cli("check", *SMALL)
    assert ended.code == 0
    assert "Open: C1 the baseline has no outcome of it." in " ".join(ended.out.split())
    assert cli("baseline", "bless", *SMALL, "--yes").code == 0
    assert cli("check", *SMALL, "--strict").code == 0


def claim(outcome: str, *parts: RecordedPart) -> RecordedClaim:
    return RecordedClaim(claim="C4", outcome=outcome, parts=parts)  # type: ignore[arg-type]


def part(
    outcome: str | None, low: float | None = 0.0, high: float | None = 1.0, name: str = "slope"
) -> RecordedPart:
    estimate = Interval(value=0.5, low=low, high=high)
    return RecordedPart(name=name, setting="digits", outcome=outcome, estimate=estimate)  # type: ignore[arg-type]


UNMEASURED = RecordedPart(name="slope", setting="digits", outcome="reproduced", estimate=None)


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        (claim("reproduced"), claim("reproduced"), "same"),
        (claim("not_run"), claim("not_run"), "same"),
        (claim("reproduced"), claim("not_reproduced"), "changed"),
        (claim("not_reproduced"), claim("reproduced"), "changed"),
        (claim("reproduced"), claim("undecided"), "inconclusive"),
        (claim("not_reproduced"), claim("not_run"), "inconclusive"),
        (claim("not_run"), claim("reproduced"), "inconclusive"),
        (claim("undecided"), claim("reproduced"), "decided_now"),
        (claim("undecided"), claim("not_reproduced"), "decided_now"),
    ],
)
def test_what_a_change_of_a_claims_outcome_is(
    before: RecordedClaim, after: RecordedClaim, status: str
) -> None:
    (found,) = checking.compare_claims([before], [after])
    assert found.status == status
    assert (found.before, found.after) == (before.outcome, after.outcome)


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        (part("reproduced"), part("reproduced", 0.9, 2.0), "same"),
        (part("reproduced"), part("reproduced", 1.0, 2.0), "same"),  # they share a point
        (part("reproduced"), part("reproduced", 1.0 + 1e-8, 2.0), "same"),  # rounding
        (part("reproduced"), part("reproduced", 1.01, 2.0), "changed"),
        (part("reproduced"), part("reproduced", -2.0, -0.01), "changed"),
        (part("undecided"), part("undecided", 1.01, 2.0), "changed"),
        (part("reproduced"), part("reproduced", None, 2.0), "same"),  # open: no bound
        (part("reproduced"), part("reproduced", None, -0.1), "changed"),
        (part("reproduced", None, None), part("reproduced", 5.0, 6.0), "same"),
        (part("reproduced"), part("not_reproduced"), "changed"),
        (part("reproduced"), part("undecided"), "inconclusive"),
        (part("reproduced"), part(None), "inconclusive"),
        (part(None), part("reproduced"), "inconclusive"),
        (part("reproduced"), UNMEASURED, "inconclusive"),
        (UNMEASURED, part("reproduced"), "same"),
        (part("undecided"), part("reproduced"), "decided_now"),
    ],
)
def test_what_a_change_of_a_number_that_decides_is(
    before: RecordedPart, after: RecordedPart, status: str
) -> None:
    whole, found = checking.compare_claims(
        [claim("reproduced", before)], [claim("reproduced", after)]
    )
    assert whole.status == "same"
    assert found.status == status
    assert (found.part, found.setting) == ("slope", "digits")


def test_a_number_on_one_side_alone_leaves_the_claim_open_and_one_beside_it_does_not() -> None:
    one, other = claim("reproduced", part("reproduced")), claim("reproduced")
    for before, after, words in ((one, other, "the baseline"), (other, one, "this run")):
        _, found = checking.compare_claims([before], [after])
        assert (found.status, found.text) == ("inconclusive", f"only {words} is judged by it")
    beside = claim("reproduced", part(None, 5.0, 6.0))
    assert len(checking.compare_claims([claim("reproduced", part(None))], [beside])) == 1
    (gone,) = checking.compare_claims([one], [])
    assert (gone.status, gone.text) == ("inconclusive", "this run has no outcome of it")


NUMBERS = st.floats(-1e6, 1e6)
INTERVALS = st.builds(
    lambda a, b, open_: Interval(value=a, low=None if open_ else min(a, b), high=max(a, b)),
    NUMBERS, NUMBERS, st.booleans(),
)  # fmt: skip
OUTCOMES = st.sampled_from(["reproduced", "not_reproduced", "undecided", "not_run"])
PARTS = st.builds(
    RecordedPart, name=st.sampled_from("ab"), setting=st.just("x"),
    outcome=st.none() | OUTCOMES, estimate=st.none() | INTERVALS,
)  # fmt: skip
CLAIMS = st.builds(
    RecordedClaim, claim=st.just("C4"), outcome=OUTCOMES, parts=st.lists(PARTS).map(tuple)
)


@given(CLAIMS)
def test_equal_claims_never_change_even_where_two_parts_have_one_name(one: RecordedClaim) -> None:
    found = checking.compare_claims([one], [one])
    assert len(found) == 1 + sum(k.outcome is not None for k in one.parts)
    assert {k.status for k in found} == {"same"}


@given(PARTS, PARTS)
def test_a_change_is_one_from_both_sides(one: RecordedPart, other: RecordedPart) -> None:
    there, back = (
        [
            k.status
            for k in checking.compare_claims([claim("reproduced", a)], [claim("reproduced", b)])
        ]
        for a, b in ((one, other), (other, one))
    )
    assert there.count("changed") == back.count("changed")


@pytest.mark.parametrize("status", ["regression", "inconclusive", "no_regression"])
def test_the_worse_of_runs_and_claims_is_the_result(status: str) -> None:
    made = report_fixtures.check()
    assert made.comparison is not None
    pair = made.comparison.pairs[0].model_copy(update={"status": status})
    for now, expected in (
        ("reproduced", status),
        ("undecided", "inconclusive" if status == "no_regression" else status),
        ("not_reproduced", "regression"),
    ):
        found = checking.compare_claims([claim("reproduced")], [claim(now)])
        assert checking.with_claims(pair, found).status == expected
    assert checking.with_claims(pair, ()) == pair


def test_a_hostile_name_of_a_part_is_text_in_every_view() -> None:
    text = "a|b <script>alert(1)</script>\n| x"
    made = report_fixtures.check()
    assert made.comparison is not None
    found = checking.compare_claims(
        [claim("reproduced", part("reproduced", name=text))],
        [claim("reproduced", part("not_reproduced", name=text))],
    )
    pair = checking.with_claims(made.comparison.pairs[0], found)
    shown = made.model_copy(
        update={"comparison": made.comparison.model_copy(update={"pairs": (pair,)})}
    )
    for view in (markdown, html):
        assert "<script>alert" not in view.render(shown)
    (row,) = [k for k in markdown.render(shown).splitlines() if "CHANGED: was reproduced" in k]
    assert row.replace("\\|", "").count("|") == 6
    assert ET.fromstring(junit.render(shown).split("\n", 1)[1]).get("failures") != "0"
    screen = io.StringIO()
    console.show(shown, screen, 120)
    assert "CHANGED" in screen.getvalue()


def test_a_suite_and_the_reports_of_its_runs_have_one_digest_so_that_compare_takes_its_gates(
    claiming: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = load_suite(claiming / "claimed.toml")
    assert suite.scale
    assert suite.digest == suite.at_scale("full").digest
    assert suite.digest != suite.at_scale("small").digest
    made = report.read(claiming / "first.json")
    facts_ = {"name": suite.name, "version": suite.version, "digest": suite.at_scale("full").digest}
    paths = [claiming / f"{name}.json" for name in "ab"]
    for path in paths:
        report.write_json(made.model_copy(update={"suite": facts_, "kind": "suite"}), path)
    monkeypatch.setattr("fls_bench.comparing.load_suite", lambda name: suite)
    found = compare_files(paths).comparison
    assert found is not None
    (own,) = [k for k in found.pairs[0].metrics if k.metric == "test_error"]
    assert own.min_effect == 0.02  # the suite's, not the default


# --- the GPU --------------------------------------------------------------------------------


def test_the_name_of_the_gpu_is_kept_and_stands_where_the_cpus_instructions_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def name(device: str) -> str:
        asked.append(device)
        return "Fast 100"

    trained = SimpleNamespace(  # what a report asks of an engine
        engine=SimpleNamespace(device="cuda", kind="batched", why="one batch"),
        setup=SimpleNamespace(name="net"),
    )
    monkeypatch.setattr(facts.torch.cuda, "get_device_name", name)
    options = bench.Options(listener=console.Progress(quiet=True))
    made: Report = bench.make_report(options, "suite", None, engines=[trained])  # type: ignore[list-item]
    assert asked == ["cuda"]
    assert made.provenance.extra["gpu"] == "Fast 100"
    assert baselines.environment_of(made.provenance)["gpu"] == "Fast 100"
    from fls_bench import claims

    record = claims.record_of(
        report_fixtures.claims().model_copy(update={"provenance": made.provenance})
    )
    assert claim_words.hardware(record).startswith("cuda (Fast 100), torch ")
    on_cpu = bench.make_report(options, "suite", None)
    assert asked == ["cuda"]
    assert "gpu" not in on_cpu.provenance.extra
    assert "cuda" not in claim_words.hardware(
        record.model_copy(update={"environment": baselines.environment_of(on_cpu.provenance)})
    )
