"""Baselines as a user has them: recorded, shown, compared with, and changed by bless alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from fls_bench import baselines, files, report
from fls_bench.errors import InputError
from fls_bench.schema import Baseline, Outcome

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
    assert "baselines/tiny.json" in listed
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
    from fls_bench.suite import load_suite

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
