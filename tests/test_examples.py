"""The projects in examples/ run as their README says, only with fewer seeds and epochs."""

import runpy
import sys
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
