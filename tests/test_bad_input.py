"""Bad input through the real command line: one paragraph, the right exit code, nothing written."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fls_bench
from fls_bench.report import to_json

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent / "bundle"))
import hostile_files
import report_fixtures
from hostile_files import FOREIGN, HOSTILE

Cli = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[1]
TRACEBACK = "Traceback (most recent call last)"


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def listing(folder: Path) -> dict[str, tuple[int, int] | None]:
    """All that lies in a folder, with sizes and times of files."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        if path.is_file()
        else None
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


def one_paragraph(err: str) -> str:
    """What a person reads on standard error, where an error is all that there is."""
    assert TRACEBACK not in err
    assert err.startswith("error: ")
    assert err.endswith("\n")
    assert "\n\n" not in err
    assert err.count("error: ") == 1
    return err


def refused(cli: Cli, *arguments: object, words: tuple[str, ...], code: int = 2) -> None:
    before = listing(Path.cwd())
    ended = cli(*arguments)
    assert ended.code == code, ended.err
    assert ended.out == ""
    paragraph = one_paragraph(ended.err)
    for word in words:
        assert word in paragraph
    assert len(paragraph) < 2500
    assert listing(Path.cwd()) == before


# --- model files ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(HOSTILE.keys() - FOREIGN))
def test_a_hostile_model_file_is_refused_and_nothing_in_it_runs(
    cli: Cli, tmp_path: Path, name: str
) -> None:
    sentinel = tmp_path / "executed"
    Path("model.pt").write_bytes(HOSTILE[name].make(sentinel))
    words = tuple(" ".join(word.split()) for word in HOSTILE[name].words)
    refused(cli, "diagnose", "model.pt", "--html", "r.html", words=words)
    assert not sentinel.exists()


def test_no_such_file_and_a_directory(cli: Cli) -> None:
    refused(cli, "diagnose", "no.pt", words=("There is no file 'no.pt'", "Check the path"))
    refused(cli, "diagnose", ".", words=("is a directory", "Give the path of a model file"))


def arrays(
    n: int = 200, dim: int = 64, num_classes: int = 10, **changes: Any
) -> Mapping[str, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(n, dim)).astype(np.float32)
    return {"x": x, "y": np.arange(n) % num_classes} | changes


def parts(**changes: Any) -> Mapping[str, np.ndarray]:
    given = arrays()
    return {f"{axis}_{part}": given[axis] for axis in "xy" for part in ("train", "test")} | changes


class Touch:
    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


WITH_NAN = arrays()["x"].copy()
WITH_NAN[3, 4] = np.nan

BAD_DATA: dict[str, tuple[Mapping[str, Any], tuple[str, ...]]] = {
    "negative label": (
        arrays(y=np.arange(200) % 10 - 1),
        ("labels reach from -1 to 8", "0 .. K-1"),
    ),
    "label out of range": (parts(y_train=np.arange(200) % 5), ("label 9 is out of range",)),
    "huge label": (arrays(y=np.arange(200) * 10**6), ("labels reach from 0 to 199000000",)),
    "labels not whole": (arrays(y=np.linspace(0, 1, 200)), ("labels have type float64",)),
    "labels as text": (arrays(y=np.array(["a", "b"] * 100)), ("labels have type <U1",)),
    "one class only": (arrays(y=np.zeros(200, dtype=int)), ("one class only", "two classes")),
    "NaN in data": (arrays(x=WITH_NAN), ("1 input values are NaN or infinite", "Remove or fill")),
    "too few points": (arrays(n=15), ("15 points", "Give more data")),
    "x and y of different length": (arrays(y=np.arange(10)), ("(200, 64)", "(10,)")),
    "inputs without features": (arrays(x=np.ones(200)), ("inputs have shape (200,)",)),
    "no points": ({"x": np.ones((0, 4)), "y": np.ones(0, dtype=int)}, ("none of them empty",)),
    "y missing": ({"x": arrays()["x"]}, ("lack", "y_train")),
    "parts of different dimension": (parts(x_test=np.ones((200, 5))), ("test inputs have shape",)),
    "Python objects": (arrays(x=np.array([[Touch()]], dtype=object)), ("Python objects",)),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_are_refused(cli: Cli, name: str) -> None:
    given, words = BAD_DATA[name]
    np.savez("data.npz", **given)
    refused(cli, "train", "-o", "m.pt", "--task", "data.npz", words=words)
    assert not Path("executed").exists()


def test_the_python_objects_above_are_live() -> None:
    """The control: an ordinary reader executes them, so the test above could fail."""
    np.savez("data.npz", **BAD_DATA["Python objects"][0])
    _ = np.load("data.npz", allow_pickle=True)["x"]
    assert Path("executed").exists()


@pytest.mark.parametrize(
    ("content", "word"), [(b"", "can't be read as .npz"), (b"hello", "can't be read as .npz")]
)
def test_a_file_that_is_no_npz(cli: Cli, content: bytes, word: str) -> None:
    Path("data.npz").write_bytes(content)
    refused(cli, "train", "-o", "m.pt", "--task", "data.npz", words=(word, "numpy.savez"))


def test_data_that_do_not_fit_the_model(cli: Cli, model_file: Path) -> None:
    for name, whole in (("dim", arrays(dim=30)), ("classes", arrays(num_classes=4))):
        np.savez(
            f"{name}.npz",
            **{f"{axis}_{part}": whole[axis] for axis in "xy" for part in ("train", "test")},
        )
    np.savez("whole.npz", **arrays())
    for name, words in [
        ("whole.npz", ("hold x and y alone", "x_train, y_train")),
        ("dim.npz", ("do not fit together", "data that the weights belong to")),
        ("classes.npz", ("[10] outputs per point", "needs [4]")),
        ("no.npz", ("There is no file 'no.npz'",)),
    ]:
        refused(cli, "diagnose", model_file, "--data", name, words=words)


def test_embedded_data_are_checked_like_any_other(cli: Cli) -> None:
    import torch

    x, y = torch.ones(40, 4), torch.arange(40) % 3
    given = {f"{axis}_{part}": v for axis, v in (("x", x), ("y", y)) for part in ("train", "test")}
    Path("model.pt").write_bytes(hostile_files.data(**given | {"y_test": y + 1}))
    refused(cli, "diagnose", "model.pt", words=("test label 3 is out of range",))


# --- options --------------------------------------------------------------------------------

POSITIVE = ("positive number such as 0.002, 2^-9 or 1/16",)
BAD_OPTIONS: dict[str, tuple[str, ...]] = {
    "train -o m.pt --task nosuch": ("no task named 'nosuch'", "Tasks are digits,", ".npz"),
    "train -o m.pt --task no.npz": ("There is no file 'no.npz'", "Check the path"),
    "train -o m.pt --model nosuch": ("no built-in net named 'nosuch'", "mlp, two_layer"),
    "train -o m.pt --model os:system": ("no built-in net named 'os:system'",),
    "train -o m.pt --model two_layer": ("logistic", "10 classes"),
    "train -o m.pt --model two_layer --depth 3": ("'two_layer' can't be built: depth",),
    "train -o m.pt --n-train 3": ("3 training points", "between 10 and 787"),
    "train -o m.pt --n-train -3": ("-3 training points", "between 10 and 787"),
    "train -o m.pt --n-train 9999": ("9999 training points", "between 10 and 787"),
    "train -o m.pt --width 0": ("width", "greater than or equal to 1"),
    "train -o m.pt --depth 0": ("depth", "greater than or equal to 1"),
    "train -o m.pt --width 100000": ("20,007,400,000 weights", "smaller width or depth"),
    "train -o m.pt --output-multiplier 0": ("--output-multiplier", *POSITIVE),
    "train -o m.pt --output-multiplier -1": ("--output-multiplier", "'-1'", *POSITIVE),
    "train -o m.pt --output-multiplier nan": ("'nan'", *POSITIVE),
    "train -o m.pt --output-multiplier 1/0": ("'1/0'", *POSITIVE),
    "train -o m.pt --output-multiplier small": ("'small'", *POSITIVE),
    "train -o m.pt --output-multiplier 2^1000": ("c = 2^1000", "nearer to 1"),
    "train -o m.pt --output-multiplier 2^-1000": ("c = 2^-1000", "nearer to 1"),
    "train -o m.pt --init-scale 0": ("--init-scale", *POSITIVE),
    "train -o m.pt --init-scale 2^600": ("alpha = 2^600", "nearer to 1"),
    "train -o m.pt --lr 0": ("--lr", "greater than 0"),
    "train -o m.pt --lr nan": ("--lr", "finite"),
    "train -o m.pt --batch-size 0": ("--batch-size", "greater than or equal to 1"),
    "train -o m.pt --target-loss -1": ("--target-loss", "greater than 0"),
    "train -o m.pt --max-epochs 0": ("--max-epochs", "greater than or equal to 1"),
    "train -o m.pt --seed -1": ("--seed", "See fls-bench train --help"),
    "train -o m.pt --seed x": ("--seed", "See fls-bench train --help"),
    "train": ("Missing option '--output'", "See fls-bench train --help"),
    "train -o": ("requires an argument", "See fls-bench --help"),
    "diagnose": ("nothing to diagnose", "Give a model file, or --setup"),
    "diagnose m.pt --bugdet 3s": ("--bugdet", "--budget", "See fls-bench diagnose --help"),
    "diagnose m.pt --budget 0s": ("'0s' is not a positive time", "60s, 10m or 2h"),
    "diagnose m.pt --budget -5s": ("'-5s' is not a positive time", "60s, 10m or 2h"),
    "diagnose m.pt --budget soon": ("'soon' is not a positive time", "60s, 10m or 2h"),
    "diagnose m.pt --max-seeds 2": ("--max-seeds", "See fls-bench diagnose --help"),
    "diagnose m.pt --max-epochs 0": ("--max-epochs", "See fls-bench diagnose --help"),
    "diagnose m.pt --jobs 0": ("--jobs", "See fls-bench diagnose --help"),
    "diagnose m.pt --fail-on worse": ("--fail-on does not know worse", "Choose from over-aligned"),
    "diagnose m.pt --setup no_such:b": ("there is no module named 'no_such'", "--pythonpath"),
    "diagnose m.pt --model a:b --data d.npz --init i.pt --init-seed 3": (
        "There is no file 'm.pt'",
    ),
    "diagnose --setup a:b --model c:d": ("--setup brings its own", "Leave out"),
    "diagnose --setup a:b --data c.npz": ("--setup brings its own", "Leave out"),
    "run": ("Missing argument 'suite'", "See fls-bench run --help"),
    "run nosuch": ("no suite named 'nosuch'", "Suites are atlas", ".toml"),
    "run no.toml": ("no.toml can't be read", "Check the path"),
    "run quick --budget -1": ("'-1' is not a positive time",),
    "suites show nosuch": ("no suite named 'nosuch'", "Suites are atlas"),
    "suites validate nosuch": ("no suite named 'nosuch'", "Suites are atlas"),
    "suites nosuch": ("No such command 'nosuch'", "See fls-bench suites --help"),
    "diagnos m.pt": ("No such command 'diagnos'", "'diagnose'?", "See fls-bench --help"),
    "report no.json": ("There is no file no.json", "Check the path"),
}


@pytest.mark.parametrize("line", BAD_OPTIONS)
def test_a_bad_command_line_is_refused(cli: Cli, line: str) -> None:
    refused(cli, *line.split(), words=BAD_OPTIONS[line])


# --- suites and reports ---------------------------------------------------------------------

SUITE = """
schema = 1
name = "mine"
version = 1
cost = { seconds = 1, memory_mb = 100 }
sources = ["own"]
seeds = 3
[[case]]
id = "one"
task = { name = "digits", n_train = 50 }
model = { name = "mlp", width = 8 }
adaptive = true
"""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seeds", "seedz", ("seedz", "did you mean 'seeds'?")),
        ("width", "widht", ("widht", "width")),
        ("seeds = 3", 'seeds = "3"', ("seeds", 'found "3"')),
        ("adaptive = true", "adaptive = 1", ("case 1", "one", "adaptive")),
        ("digits", "digitz", ("digitz", "digits")),
        ("mlp", "nosuch", ("nosuch", "mlp")),
        ("n_train = 50", "n_train = 3", ("3 training points",)),
        ("schema = 1", "schema = 2", ("schema 2", "Update fls-bench")),
        ("[[case]]", "[[case", ("suite.toml",)),
    ],
)
@pytest.mark.parametrize("command", ["run", "suites validate"])
def test_a_bad_suite_is_refused(
    cli: Cli, command: str, old: str, new: str, words: tuple[str, ...]
) -> None:
    Path("suite.toml").write_text(SUITE.replace(old, new, 1))
    ended = cli(*command.split(), "suite.toml")
    assert ended.code == 2
    assert ended.out == ""
    for word in words:
        assert word in one_paragraph(ended.err)
    assert os.listdir() == ["suite.toml"]


def test_the_suite_that_the_bad_ones_are_made_of_is_good(cli: Cli) -> None:
    Path("suite.toml").write_text(SUITE)
    ended = cli("suites", "validate", "suite.toml")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("mine: 1 case")


def test_a_bad_report_is_refused(cli: Cli, model_file: Path) -> None:
    good = to_json(report_fixtures.over_aligned())
    for text, words in [
        ("", ("is not JSON", "--json")),
        (good[: len(good) // 2], ("is not JSON", "cut off")),
        ("[1]", ("not an fls-bench report",)),
        (good.replace("report/1", "report/2", 1), ("newer fls-bench", "Upgrade")),
        (
            good.replace("over_aligned", "too_cold", 1),
            ("damaged report", "docs/report.schema.json"),
        ),
        (good.replace('"seconds": ', '"seconds": 1e999, "x": ', 1), ("is not JSON",)),
    ]:
        Path("r.json").write_text(text)
        refused(cli, "report", "r.json", "--html", "r.html", words=words)
    refused(cli, "report", model_file, words=("is not JSON", "Name a report"))
    refused(cli, "report", ".", words=("is a folder",))


# --- the user's own code --------------------------------------------------------------------

OWN = """
import torch
import fls_bench
from fls_bench import TrainingSetup

number = 3
def nothing(): return None
def wants(x): return x
def fails(): raise ValueError("no such luck\\n  second line")
def leaves(): raise SystemExit(1)
def draw(seed): return fls_bench.task_source("digits", {"n_train": 50})(seed)
def net(): return torch.nn.Linear(64, 10)
def narrow(): return torch.nn.Linear(30, 10)
def few(): return torch.nn.Linear(64, 3)
class Nan(torch.nn.Linear):
    def forward(self, x): return super().forward(x) * float("nan")

def negative(): return TrainingSetup(make_model=net, task=draw, output_multiplier=-1)
def no_net(): return TrainingSetup(make_model=nothing, task=draw)
def no_builder(): return TrainingSetup(make_model=3, task=draw)
def net_fails(): return TrainingSetup(make_model=fails, task=draw)
def net_wants(): return TrainingSetup(make_model=wants, task=draw)
def no_task(): return TrainingSetup(make_model=net, task=lambda seed: None)
def task_by_name(): return TrainingSetup(make_model=net, task="digits")
def task_fails(): return TrainingSetup(make_model=net, task=lambda seed: fails())
def few_outputs(): return TrainingSetup(make_model=few, task=draw)
def other_dim(): return TrainingSetup(make_model=narrow, task=draw)
def no_weights(): return TrainingSetup(make_model=torch.nn.Identity, task=draw)
def nan_net(): return TrainingSetup(make_model=lambda: Nan(64, 10), task=draw)
def other_loss(): return TrainingSetup(make_model=net, task=draw, loss="hinge")
def other_optimizer(): return TrainingSetup(make_model=net, task=draw, optimizer=torch.optim.SGD)
def half_batch(): return TrainingSetup(make_model=net, task=draw, batch_size=2.5)
"""
BAD_SETUPS: dict[str, tuple[str, ...]] = {
    "own_code": ("not of the form package.module:name", "my_pkg.my_setup:setup"),
    "own_code.py:net": ("not of the form package.module:name",),
    "./own_code:net": ("not of the form package.module:name",),
    "no_such_code:setup": ("no module named 'no_such_code'", "--pythonpath"),
    "no.such:setup": ("no module named 'no'", "--pythonpath"),
    "hidden.code:setup": ("no module named 'hidden'", "current folder", "--pythonpath ."),
    "needs_more:setup": ("no module named 'no_such_dependency'", "Install"),
    "breaks:setup": ("importing 'breaks' failed with RuntimeError: at import", "to see where"),
    "exits:setup": ("importing 'exits' failed with SystemExit", "to see where"),
    "garbled:setup": ("importing 'garbled' failed with SyntaxError", "to see where"),
    "own_code:nope": ("has no 'nope'", "Check the name"),
    "own_code:number": ("gives a int, not a TrainingSetup",),
    "own_code:nothing": ("gives a NoneType, not a TrainingSetup",),
    "own_code:wants": ("TypeError", "a function without arguments"),
    "own_code:fails": ("ValueError: no such luck second line",),
    "own_code:leaves": ("SystemExit",),
    "own_code:negative": ("output_multiplier = -1 must be > 0",),
    "own_code:no_net": ("make_model returned a NoneType", "torch.nn.Module"),
    "own_code:no_builder": ("make_model is not callable",),
    "own_code:net_fails": ("make_model failed with ValueError: no such luck",),
    "own_code:net_wants": ("make_model failed with TypeError",),
    "own_code:no_task": ("returned NoneType, not a Task", "fls_bench.make_task"),
    "own_code:task_by_name": ("task is neither a Task nor a function",),
    "own_code:task_fails": ("task function failed with ValueError: no such luck",),
    "own_code:few_outputs": ("[4, 3]", "[4, 10]", "same number of classes"),
    "own_code:other_dim": ("can't take the data", "[64]", "same input dimension"),
    "own_code:no_weights": ("no parameters",),
    "own_code:nan_net": ("outputs at init are NaN or infinite",),
    "own_code:other_loss": ("loss = 'hinge' is unknown", "cross_entropy"),
    "own_code:other_optimizer": ("optimizer is not an Sgd",),
    "own_code:half_batch": ("batch_size = 2.5",),
}


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    code, hidden = tmp_path / "code", tmp_path / "hidden"
    code.mkdir()
    hidden.mkdir()
    (hidden / "code.py").touch()
    (code / "own_code.py").write_text(OWN)
    (code / "needs_more.py").write_text("import no_such_dependency\n")
    (code / "breaks.py").write_text("raise RuntimeError('at import')\n")
    (code / "exits.py").write_text("import sys\nsys.exit(1)\n")
    (code / "garbled.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(code)
    yield
    for name in ("own_code", "needs_more", "breaks", "exits", "garbled"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("own_code")
@pytest.mark.parametrize("reference", BAD_SETUPS)
def test_a_setup_that_is_none_is_refused(cli: Cli, reference: str) -> None:
    refused(cli, "diagnose", "--setup", reference, words=BAD_SETUPS[reference])


@pytest.mark.usefixtures("own_code")
def test_the_code_that_the_bad_setups_lie_in_is_good() -> None:
    from fls_bench.training_setup import import_object

    assert import_object("own_code:net", "--model")().out_features == 10


@pytest.mark.usefixtures("own_code")
def test_a_bad_builder_is_refused(cli: Cli, tmp_path: Path) -> None:
    from fls_bench.training_setup import import_object

    net, task = import_object("own_code:net", "--model")(), import_object("own_code:draw", "")(0)
    fls_bench.save_bundle("own.pt", net, task=task, builder_hint="own_code:net")
    for reference, words in [
        ("own_code", ("--model 'own_code' is not of the form",)),
        ("no_such_code:net", ("--model: there is no module named 'no_such_code'",)),
        ("own_code:nope", ("--model: the module 'own_code' has no 'nope'",)),
        ("own_code:number", ("not callable",)),
        ("own_code:nothing", ("returned a NoneType", "torch.nn.Module")),
        ("own_code:narrow", ("do not fit together", "size mismatch for weight")),
    ]:
        refused(cli, "diagnose", "own.pt", "--model", reference, words=words)


# --- outputs --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line", ["train -o {}", "diagnose m.pt --json {}", "run quick --html {}", "report r --html {}"]
)
def test_an_output_that_can_not_be_written_is_refused_before_any_work(cli: Cli, line: str) -> None:
    Path("old").write_text("kept")
    Path("folder").mkdir()
    for target, words in [
        ("old", ("old exists already", "--force")),
        ("folder", ("folder is a folder", "Name a file in it")),
        ("no/file", ("There is no folder", "Make it")),
        ("old/file", ("There is no folder",)),
        ("/dev/full", ("/dev/full",)),
    ]:
        refused(cli, *line.format(target).split(), words=words)
    assert Path("old").read_text() == "kept"


def test_a_folder_that_is_read_only(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    access = os.access  # root may write anywhere, so this asks for others
    monkeypatch.setattr(
        os, "access", lambda path, mode, **how: mode != os.W_OK and access(path, mode, **how)
    )
    refused(cli, "train", "-o", "m.pt", words=("can't be written to", "Choose another one"))


def test_one_file_for_two_outputs(cli: Cli, model_file: Path) -> None:
    line = ("diagnose", model_file, "--json", "r", "--html", "./r")
    refused(cli, *line, words=("name the same file", "different names"))


def test_a_store_that_is_a_file(cli: Cli, model_file: Path) -> None:
    Path("file").touch()
    for store in ("file", "file/folder"):
        words = (f"--store '{store}' can't be a folder", "--no-store")
        refused(cli, "diagnose", model_file, "--store", store, words=words)


# --- in a process of its own ----------------------------------------------------------------


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fls_bench", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80", "PYTHONWARNINGS": "error"} | more


def full_disk() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


def test_a_disk_that_fills_up_leaves_no_part_of_a_file(tmp_path: Path) -> None:
    line = "train -o m.pt --n-train 50 --depth 2 --width 64 --max-epochs 1"
    ended = subprocess.run(
        command(*line.split()), env=environment(PYTHONDONTWRITEBYTECODE="1"), cwd=tmp_path,
        capture_output=True, text=True, check=False, preexec_fn=full_disk,
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    assert "'m.pt' can't be written" in one_paragraph(ended.stderr)
    assert os.listdir(tmp_path) == []


def test_ctrl_c_keeps_finished_runs_and_the_same_command_resumes(
    tmp_path: Path, model_file: Path
) -> None:
    store, old = tmp_path / "store", tmp_path / "r.json"
    old.write_text("kept")
    # Many seeds, so that the work outlasts a slow look; the smallest rate never reaches the target.
    line = command(
        "diagnose", model_file, "--store", store, "--max-seeds", 60, "--max-epochs", 3000,
        "--json", old, "--force",
    )  # fmt: skip
    num_kept = 0
    for _ in range(2):
        begun = subprocess.Popen(
            line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
            # A shell that started these tests in the background told all of them to ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        stop = time.monotonic() + 60
        while num_lines(store) <= num_kept and time.monotonic() < stop and begun.poll() is None:
            time.sleep(0.01)
        os.killpg(begun.pid, signal.SIGINT)
        out, err = begun.communicate(timeout=60)
        assert begun.returncode == 130, err
        assert out == ""
        assert TRACEBACK not in err
        assert err.splitlines()[-1].startswith("error: Interrupted. The same command goes on")
        if num_kept:
            assert f"resuming: {num_kept} runs" in err
        assert num_lines(store) > num_kept
        num_kept = num_lines(store)
    assert old.read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.json", "store"]


def num_lines(folder: Path) -> int:
    return sum(path.read_text().count("\n") for path in folder.glob("*.jsonl"))
