"""What the README promises exists: commands, options, names, and the relations between names."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import fls_bench
from fls_bench import report, scaling
from fls_bench.cli import app
from fls_bench.models import build
from fls_bench.training.runs import sample_losses

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_options_and_commands_exist() -> None:
    helps = {
        name: CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).output
        for name in (
            "train", "diagnose", "tune", "run", "check", "compare", "report", "env", "suites",
            "baseline", "invariants", "claims", "transfer", "calibrate", "selftest",
        )
    }  # fmt: skip
    for name in ("record", "bless", "show", "list"):
        output = (
            CliRunner().invoke(app, ["baseline", name, "--help"], env={"COLUMNS": "200"}).output
        )
        helps["baseline"] += output
    used = set(re.findall(r"fls-bench (\w+)", README))
    assert used <= set(helps) | {"is", "trains", "needs"}
    for command, options in re.findall(r"^fls-bench (\w+)(.*)$", README, re.MULTILINE):
        for option in re.findall(r"--[a-z-]+", options):
            assert option in helps[command], (command, option)


def test_public_names_exist() -> None:
    for name in re.findall(r"fls_bench\.([A-Za-z_]+)\(", README):
        assert callable(getattr(fls_bench, name))


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make ([\w ]+?)(?:  |$)", README, re.MULTILINE):
        for one in target.split():
            assert re.search(rf"^{one}:", makefile, re.MULTILINE), one


def test_the_workflow_of_the_examples_calls_options_that_exist() -> None:
    text = (ROOT / "examples" / "github" / "fls-bench.yml").read_text(encoding="utf-8")
    (command,) = re.findall(r"- run: >\n((?:          .*\n)+)", text)
    assert command.split()[:3] == ["fls-bench", "check", "quick"]
    shown = CliRunner().invoke(app, ["check", "--help"], env={"COLUMNS": "200"}).output
    for option in re.findall(r"--[a-z-]+", command):
        assert option in shown, option


def test_linked_files_exist() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def row(name: str) -> str:
    (found,) = [line for line in README.splitlines() if line.startswith(f"| {name}")]
    return found


@pytest.mark.parametrize("c", [2.0**-9, 0.3, 4.0])
def test_naming_bridge(c: float) -> None:
    """Each relation of the README's table, checked on a net."""
    net = build("mlp", {"input_dim": 5, "n_outputs": 3, "depth": 3, "width": 7}, seed=0)
    net = net.double()
    x, y = torch.randn(11, 5, dtype=torch.float64), torch.arange(11) % 3
    logits = net(x).detach()

    assert "T = 1/c" in row("temperature T")
    temperature = 1 / c
    softened = torch.nn.functional.cross_entropy(logits / temperature, y)
    assert torch.allclose(sample_losses(c * logits, y, "cross_entropy").mean(), softened)

    assert "c = alpha^L" in row("alpha")
    alpha = c ** (1 / 3)
    assert scaling.effective_multiplier(1.0, alpha, 3) == pytest.approx(c)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(alpha)
    assert torch.allclose(net(x), c * logits)

    assert "gamma = 1/c" in row("gamma")
    assert "FLS = 1/c" in row("FLS")


def test_direction_is_said() -> None:
    assert "Smaller c = larger FLS = toward over-aligned" in README


def test_setup_of_the_readme_runs() -> None:
    """The code block builds a setup, with a net and a task in the place of the reader's."""
    block, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {"build_my_net": lambda seed: torch.nn.Linear(64, 10), "my_task": lambda seed: None}
    exec(compile(block, "README.md", "exec"), names)
    setup = names["setup"]()  # type: ignore[call-arg]
    assert isinstance(setup, fls_bench.TrainingSetup)
    assert setup.stop == fls_bench.TargetLoss(target_loss=0.1, max_epochs=200)


def test_contract_of_the_readme_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code block makes a test class, with a builder in the place of the reader's."""
    _, block = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    package, module = ModuleType("my_pkg"), ModuleType("my_pkg.my_net")
    module.build = lambda: torch.nn.Linear(4, 3, bias=False)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_pkg", package)
    monkeypatch.setitem(sys.modules, "my_pkg.my_net", module)
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), names)
    contract = names["TestBuild"]
    contract.options = {"examples": 2}
    contract().test_invariant("exact_rule")
    with pytest.raises(pytest.skip.Exception, match="no output_multiplier"):
        contract().test_invariant("routes")


@pytest.mark.slow
def test_the_reading_of_the_model_file_is_the_one_that_is_shown(cli: Any, tmp_path: Path) -> None:
    """Within what another machine's rounding changes."""
    (train,) = re.findall(r"^fls-bench (train .*) -o model.pt$", README, re.MULTILINE)
    model, page = tmp_path / "model.pt", tmp_path / "reading.json"
    assert cli(*train.split(), "-o", model, "-q").code == 0
    cli("diagnose", model, "--observe-only", "--json", page)
    reading = report.read(page).reading
    assert reading is not None
    (block,) = re.findall(r"^(over-aligned: It measures .*?)```", README, re.DOTALL | re.MULTILINE)
    ratio, low, high = (float(x) for x in re.findall(r"-?\d+\.\d\d", block))
    assert reading.regime == "over_aligned"
    found = reading.log2_c_ratio
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((ratio, low, high), abs=0.7)
    shown = [int(p) / 100 for p in re.findall(r"(\d+) %", block.splitlines()[2])]
    regimes = ("over_aligned", "near_optimal", "over_fitted")
    assert [reading.probabilities[r] for r in regimes] == pytest.approx(shown, abs=0.05)
