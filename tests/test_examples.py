"""The projects in examples/ run as their README says, only with fewer seeds and epochs."""

import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fls_bench import report
from fls_bench.schema import Outcome, Report, Tier

Cli = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[1]
OWN_NET = ROOT / "examples" / "own_net"
QUICK = "--max-seeds 3 --max-epochs 20 --no-store --quiet --json r.json"


@pytest.fixture(autouse=True)
def in_folder_with_own_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(OWN_NET)
    yield
    for name in ("my_pkg", "my_pkg.my_setup"):
        sys.modules.pop(name, None)


def swept(cli: Cli, *arguments: str) -> Report:
    ended = cli("diagnose", *arguments, *QUICK.split())
    assert ended.code == 0, ended.err
    made = report.read("r.json")
    assert made.diagnosis is not None
    assert made.diagnosis.evidence_tier is Tier.T3
    assert made.sweep is not None
    assert made.sweep.lr_rule.name == "calibrated"
    for cell in made.sweep.cells:
        assert [run.outcome for run in cell.seeds].count(Outcome.FAILED) == 0
    assert "fixed_training_data" not in {finding.code for finding in made.diagnosis.findings}
    own = next(cell for cell in made.sweep.cells if cell.c == 1)
    assert own.usable
    assert len(own.seeds) == 3
    return made


def test_a_setup_of_your_own_is_swept_with_redrawn_data(cli: Cli) -> None:
    made = swept(cli, "--setup", "my_pkg.my_setup:setup", "--jobs", "1")
    assert made.setup["name"] == "small conv net"
    assert made.setup["model"] is None
    assert made.input["num_parameters"] == 3_818


def test_a_net_from_your_own_loop_is_swept_with_the_data_of_its_file(
    cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    runpy.run_path(str(OWN_NET / "train_and_save.py"), run_name="__main__")
    assert capsys.readouterr().out.endswith("written: model.pt\n")

    alone = cli("diagnose", "model.pt")
    assert alone.code == 0
    assert "my_pkg.my_setup:make_net" in alone.out
    assert "T0" in alone.out

    made = swept(cli, "model.pt", "--model", "my_pkg.my_setup:make_net", "--jobs", "1")
    assert made.setup["task"] == "digit-images"
    assert made.input["train_loss"] <= 0.3


def test_the_readme_names_what_is_there() -> None:
    text = (OWN_NET / "README.md").read_text()
    assert "--setup my_pkg.my_setup:setup" in text
    assert "--model my_pkg.my_setup:make_net" in text
    assert "gain=3.0" in (OWN_NET / "my_pkg" / "my_setup.py").read_text()
    assert "Smaller c = larger FLS = toward over-aligned." in text


# --- a net whose multiplier is tested -------------------------------------------------------

TESTED_NET = ROOT / "examples" / "tested_net"


@pytest.fixture(scope="module")
def own_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own, with nothing on its path but this package and what it depends on."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    borrowed = sysconfig.get_path("purelib")
    (site / "borrowed.pth").write_text(f"{borrowed}\n{ROOT}\n")
    return folder / "bin" / "python"


def run_tests(python: Path, folder: Path, *options: str) -> tuple[int, str]:
    alone = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST"))}
    done = subprocess.run(
        [python, "-m", "pytest", "-p", "no:cacheprovider", "-rfs", *options],
        cwd=folder, env=alone, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_tested_net_passes_in_an_environment_of_its_own(
    own_environment: Path, tmp_path: Path
) -> None:
    project = shutil.copytree(TESTED_NET, tmp_path / "project")
    code, text = run_tests(own_environment, project, "-k", "not regime")
    assert code == 0, text
    assert "12 passed, 7 skipped, 1 deselected" in text
    assert "The multiplier is wired inside" in text


@pytest.mark.slow
def test_a_change_that_breaks_the_rule_is_noticed_there(
    own_environment: Path, tmp_path: Path
) -> None:
    project = shutil.copytree(TESTED_NET, tmp_path / "project")
    zoo = project / "my_pkg" / "zoo.py"
    right = zoo.read_text()
    only = ("-k", "routes or own_optimizer")
    for old, new, message in (
        ("self.output_multiplier * self", "self.output_multiplier**2 * self", "applied twice"),
        ("output_multiplier ** (-2 / 3)", "output_multiplier**-1", "exact is c^-0.667"),
        ("64, 10, bias=False", "64, 10", "readout.bias goes as c^-0.667, exact is c^-2"),
    ):
        assert old in right
        zoo.write_text(right.replace(old, new))
        code, text = run_tests(own_environment, project, *only)
        assert code == 1, text
        assert message in text
    zoo.write_text(right)
    assert run_tests(own_environment, project, *only)[0] == 0


def test_its_readme_names_what_is_there() -> None:
    text = (TESTED_NET / "README.md").read_text()
    for name in ("TestBuild", "must_hold", "test_regime"):
        assert name in text
        assert name in (TESTED_NET / "test_multiplier.py").read_text()
    assert "my_pkg.zoo:build --optimizer my_pkg.zoo:optimizer" in text
