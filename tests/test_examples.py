"""The projects in examples/ run as their README says, only with fewer seeds and epochs."""

import importlib
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from fls_bench import report
from fls_bench.bundle import Bundle, load_bundle
from fls_bench.errors import AbsentDataError
from fls_bench.schema import AdamW, AnyOptimizer, Outcome, Report, Sgd, Tier
from fls_bench.subject.setups import bundle_arrays
from fls_bench.tasks import Task, make_task, named_source, task_source

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


# --- worked examples: plain PyTorch, Lightning, transformers, a ResNet ----------------------


@dataclass(frozen=True)
class Example:
    """A folder of examples/: what its README says, in short."""

    folder: str
    builder: str
    few: str
    """Options with which it ends in seconds."""
    optimizer: AnyOptimizer
    needs: str = ""
    """Data by name."""
    extra: str = ""

    @property
    def path(self) -> Path:
        return ROOT / "examples" / self.folder

    @property
    def commands(self) -> list[str]:
        """Those that a reader is to run in the folder."""
        text = (self.path / "README.md").read_text(encoding="utf-8")
        block = re.findall(r"```\n(.*?)```", text.partition("in this folder:")[2], re.DOTALL)[0]
        return [line for line in block.splitlines() if line]


EXAMPLES = (
    Example("plain_pytorch", "fashion_cnn:build", "--n-train 60 --max-epochs 2",
            Sgd(lr=0.1), needs="fashion_mnist"),
    Example("lightning", "digits_net:build", "--n-train 60 --max-epochs 2",
            Sgd(lr=0.02), extra="lightning"),
    Example("transformers", "reviews:build", "--n-train 60 --max-epochs 2",
            AdamW(lr=2e-3, weight_decay=0.0, clip_norm=1.0), extra="transformers"),
    Example("resnet_cifar10", "small_resnet:build", "--n-train 60 --max-epochs 2",
            Sgd(lr=0.05, momentum=0.9), needs="cifar10"),
)  # fmt: skip
each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: one.folder)


def require(example: Example) -> None:
    """Skip where data or framework are not here, with the line that brings them."""
    if example.extra:
        pytest.importorskip(example.extra)
    if example.needs:
        try:
            task_source(example.needs, {"n_train": 60})(0)
        except AbsentDataError as error:
            pytest.skip(str(error))


@each_example
@pytest.mark.filterwarnings("ignore")  # what frameworks warn of is theirs
def test_an_example_writes_a_file_that_can_be_swept(
    example: Example, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    require(example)
    monkeypatch.syspath_prepend(example.path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    module = example.builder.partition(":")[0]
    try:
        monkeypatch.setattr(sys, "argv", ["train.py", *example.few.split()])
        runpy.run_path(str(example.path / "train.py"), run_name="__main__")
        said = capsys.readouterr().out
        net = importlib.import_module(module).build().eval()
    finally:
        sys.modules.pop(module, None)
    file = load_bundle("model.pt")
    header = file.header
    assert file.init is not None
    assert header.architecture.hint == example.builder
    assert header.recipe is not None
    assert header.recipe.optimizer == example.optimizer
    assert header.recipe.stop.max_epochs == 2

    # The builder makes the net of the file, and times c it answers as the script says.
    net.load_state_dict(file.final)
    task, c = task_of(file), header.output_multiplier
    with torch.no_grad():
        error = (net(torch.as_tensor(task.x_test)).argmax(1).numpy() != task.y_test).mean()
        logits = c * net(torch.as_tensor(task.x_train))
        loss = torch.nn.functional.cross_entropy(logits, torch.as_tensor(task.y_train))
    (shown,) = re.findall(r"training loss ([\d.]+) after.*\ntest error ([\d.]+) %", said)
    assert (float(loss), 100 * error) == (
        pytest.approx(float(shown[0]), abs=0.0011),
        pytest.approx(float(shown[1]), abs=0.06),
    )


def task_of(file: Bundle) -> Task:
    """The data of a file: by name, or its own."""
    spec = file.header.task
    assert spec is not None
    if not spec.embedded:
        return named_source(spec.name, spec.arguments)(0)
    arrays = bundle_arrays(file)
    return make_task(
        spec.name,
        *((arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test", "val")),
    )


@each_example
def test_its_readme_says_how_to_run_and_diagnose_it(example: Example, cli: Cli) -> None:
    first, *rest = example.commands
    assert first == "python train.py"
    shown = cli("diagnose", "--help").out
    for command in rest:
        name, verb, *words = command.split()
        assert (name, verb, words[0]) == ("fls-bench", "diagnose", "model.pt")
        assert f"--model {example.builder} --pythonpath ." in command
        for option in re.findall(r"--[a-z-]+", command):
            assert re.search(rf"{option}\b(?!-)", shown), option
    text = (example.path / "README.md").read_text(encoding="utf-8")
    assert f"'.[{example.extra}]'" in text if example.extra else "constraints.txt ." in text
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (example.path / target).exists()


@pytest.mark.parametrize(
    "example", [one for one in EXAMPLES if one.needs], ids=lambda one: one.folder
)
def test_where_its_data_are_absent_it_says_so_in_a_sentence(
    example: Example, tmp_path: Path
) -> None:
    alone = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    alone |= {"FLS_BENCH_DATA": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, example.path / "train.py"], cwd=tmp_path, env=alone, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    if ended.returncode == 0:
        pytest.skip(f"the system has {example.needs} in a place of its own")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"The data set '{example.needs}' is not on this machine. Bring")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "model.pt").exists()


@pytest.mark.slow
@each_example
def test_an_example_runs_from_a_fresh_environment(example: Example, tmp_path: Path) -> None:
    """With its extra alone, as its README says; the sweep with fewer seeds."""
    require(example)
    python = fresh_environment(tmp_path / "env", example.extra)
    work = shutil.copytree(example.path, tmp_path / "work")
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    alone = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST"))}
    alone |= {"PATH": path, "HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for command in example.commands:
        fewer = " --max-seeds 3 --max-epochs 2 --budget 10m" if "--html" in command else ""
        done = subprocess.run(
            command + fewer, shell=True, cwd=work, env=alone, capture_output=True, text=True,
            check=False, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert "T3" in done.stdout
    assert "<html" in (work / "report.html").read_text(encoding="utf-8")
    for other in {"lightning", "transformers", "pytest"} - {example.extra}:
        asked = subprocess.run([python, "-c", f"import {other}"], capture_output=True, check=False)
        assert asked.returncode == 1, f"{other} is there, but not part of the extra"


def fresh_environment(folder: Path, extra: str) -> Path:
    """What `python -m venv` and `pip install` make of this repository and one extra."""
    venv.create(folder, with_pip=True, symlinks=True)
    python = folder / "bin" / "python"
    wanted = f".[{extra}]" if extra else "."
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "-c", "constraints.txt", wanted],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if re.search("Connection|Could not find a version", done.stderr):
        pytest.skip("packages can't be had here")
    assert done.returncode == 0, done.stderr
    return python
