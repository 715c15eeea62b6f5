"""What the README promises exists: commands, options, names, and the relations between names."""

from __future__ import annotations

import functools
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import fls_bench
from fls_bench import claims, report, scaling
from fls_bench.bundle import load_bundle
from fls_bench.cli import app
from fls_bench.models import build
from fls_bench.report.claims import brief
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


def block(word: str) -> str:
    """The one block of Python in which a word stands."""
    (found,) = [
        text for text in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if word in text
    ]
    return found


def run_block(word: str, **names: Any) -> dict[str, Any]:
    exec(compile(block(word), "README.md", "exec"), names)
    return names


def test_setup_of_the_readme_runs() -> None:
    """The code block builds a setup, with a net and a task in the place of the reader's."""
    names = run_block(
        "def setup", build_my_net=lambda seed: torch.nn.Linear(64, 10), my_task=lambda seed: None
    )
    setup = names["setup"]()
    assert isinstance(setup, fls_bench.TrainingSetup)
    assert setup.stop == fls_bench.TargetLoss(target_loss=0.1, max_epochs=200)


def test_contract_of_the_readme_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code block makes a test class, with a builder in the place of the reader's."""
    package, module = ModuleType("my_pkg"), ModuleType("my_pkg.my_net")
    module.build = lambda: torch.nn.Linear(4, 3, bias=False)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_pkg", package)
    monkeypatch.setitem(sys.modules, "my_pkg.my_net", module)
    contract = run_block("ScalingContract")["TestBuild"]
    contract.options = {"examples": 2}
    contract().test_invariant("exact_rule")
    with pytest.raises(pytest.skip.Exception, match="no output_multiplier"):
        contract().test_invariant("routes")


# --- three lines for each framework ---------------------------------------------------------


def points(tokens: bool = False) -> fls_bench.Task:
    rng = np.random.default_rng(0)

    def part(n: int) -> tuple[Any, Any]:
        y = rng.integers(0, 3, n)
        return (rng.integers(1, 20, (n, 5)) if tokens else rng.normal(size=(n, 5))), y

    return fls_bench.make_task("points", part(30), part(20), part(10))


def lines_of(word: str) -> list[str]:
    return [line for line in block(word).splitlines() if line]


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "model.pt"


def recipe_in(path: Path, net: torch.nn.Module) -> fls_bench.Recipe:
    """What the lines kept: data, the initial weights and those of the net, and this."""
    file = load_bundle(path)
    assert file.header.task is not None
    assert file.init is not None
    for name, value in net.state_dict().items():
        assert torch.equal(file.final[name], value)
    assert any(not torch.equal(file.init[name], file.final[name]) for name in file.init)
    assert file.header.recipe is not None
    return file.header.recipe


def test_the_lines_for_a_loop_of_your_own_record_it(in_folder: Path) -> None:
    net, task = torch.nn.Linear(5, 3), points()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.2)
    x, y = torch.as_tensor(task.x_train), torch.as_tensor(task.y_train)
    names: dict[str, Any] = {}

    def train(model: torch.nn.Module) -> None:
        for rows in (slice(0, 25), slice(25, 30)):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
        names["run"].log(loss.item())

    names |= {"fls_bench": fls_bench, "model": net, "task": task, "optimizer": optimizer,
              "train": train}  # fmt: skip
    assert len(lines_of("fls_bench.record")) == 3
    exec(compile(block("fls_bench.record"), "README.md", "exec"), names)
    recipe = recipe_in(in_folder, net)
    assert (recipe.optimizer, recipe.batch_size, recipe.seed) == (fls_bench.Sgd(lr=0.2), 25, 3)
    assert recipe.stop == fls_bench.TargetLoss(0.1)


@pytest.mark.filterwarnings("ignore")
def test_the_lines_for_lightning_record_a_run(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lightning = pytest.importorskip("lightning")
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False,
             "enable_checkpointing": False, "accelerator": "cpu"}  # fmt: skip
    trainer = functools.partial(lightning.Trainer, **quiet)
    monkeypatch.setattr(lightning, "Trainer", trainer)

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(5, 3)

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.2)

    task, module = points(), Module()
    data = torch.utils.data.TensorDataset(
        torch.as_tensor(task.x_train), torch.as_tensor(task.y_train)
    )
    assert len(lines_of("lightning")) == 3
    loader = torch.utils.data.DataLoader(data, batch_size=10)
    run_block("lightning", lightning=lightning, task=task, my_module=module, loader=loader)
    recipe = recipe_in(in_folder, module.net)
    assert (recipe.optimizer, recipe.batch_size, recipe.seed) == (fls_bench.Sgd(lr=0.2), 10, 3)
    assert recipe.stop == fls_bench.FixedSteps(60), "3 steps an epoch, 20 epochs"


@pytest.mark.filterwarnings("ignore")
def test_the_lines_for_transformers_record_a_run(in_folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from fls_bench.integrations.transformers import Logits

    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=5, num_labels=3,
    )  # fmt: skip
    model, task = transformers.BertForSequenceClassification(config), points(tokens=True)
    arguments = transformers.TrainingArguments(
        output_dir="out", num_train_epochs=2, per_device_train_batch_size=10, report_to=[],
        learning_rate=1e-3, use_cpu=True, disable_tqdm=True, save_strategy="no",
        dataloader_pin_memory=False,
    )  # fmt: skip
    rows = [
        {"input_ids": torch.as_tensor(x).long(), "labels": int(y)}
        for x, y in zip(task.x_train, task.y_train, strict=True)
    ]
    assert len(lines_of("transformers")) == 3
    names = run_block(
        "transformers", Trainer=transformers.Trainer, model=model, arguments=arguments, task=task,
        rows=rows,
    )  # fmt: skip
    names["trainer"].train()
    recipe = recipe_in(in_folder, Logits(model))
    assert isinstance(recipe.optimizer, fls_bench.AdamW)
    assert (recipe.optimizer.lr, recipe.batch_size, recipe.seed) == (1e-3, 10, 3)
    assert recipe.stop == fls_bench.FixedSteps(6)


def test_the_claims_are_those_of_the_stored_outcomes() -> None:
    records, _ = claims.find(ROOT / "baselines" / "claims")
    assert f"\n\n{brief(records)}\n" in README, f"put this into the README:\n{brief(records)}"


def test_the_guide_stays_short_and_has_a_picture() -> None:
    assert len(README) < 22_000, "what is detail belongs into docs/"
    assert re.search(r"!\[[^\]]{40,}\]\(reports/example/[a-z]+\.png\)", README), "with its words"
    for heading in ("## Start", "## Limits", "## What is known by which name"):
        assert README.count(f"\n{heading}\n") == 1


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
