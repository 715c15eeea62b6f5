"""The command line as a user meets it: what it prints where, what it loads, how it exits."""

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fls_bench
from fls_bench import report as reports
from fls_bench import suite as suites
from fls_bench.schema import (
    DIRECTION,
    AdamW,
    Cosine,
    PerStep,
    Regime,
    Report,
    Schedule,
    StepDecay,
)

sys.path.insert(0, str(Path(__file__).resolve().parent))
import report_fixtures as fixtures

Cli = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[1]
COMMANDS = [
    "train", "diagnose", "tune", "run", "check", "compare", "invariants", "report", "env", "suites",
    "baseline", "claims", "transfer", "calibrate", "selftest",
]  # fmt: skip
HEAVY = ["torch", "sklearn", "scipy", "matplotlib", "jinja2"]

SUITE = """
schema = 1
name = "mine"
version = 3
title = "A case of my own"
cost = {{ seconds = 1, memory_mb = 100 }}
sources = ["own"]
seeds = 3
[defaults]
stop = {{ target_loss = 0.1, max_epochs = 5 }}
[[case]]
id = "five-epochs"
task = {{ name = "wine", n_train = 30 }}
model = {{ name = "mlp", depth = 2, width = 8 }}
log2_c = {{ from = -2, to = 2, step = 2 }}
expect = {{ regime = "{}" }}
"""


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def stored_report() -> Path:
    return reports.write_json(fixtures.over_aligned(), "old.json")


@pytest.fixture
def weights_alone() -> Path:
    """A model file that can be judged in no time: inconclusive."""
    return fls_bench.save_bundle("weights.pt", torch.nn.Linear(4, 3))


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"} | more


def process(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fls_bench", *map(str, arguments)],
        env=environment(**more), capture_output=True, text=True, check=False,
    )  # fmt: skip


# --- help and what it loads -----------------------------------------------------------------


def test_help_names_every_command_and_the_direction(cli: Cli) -> None:
    ended = cli("--help")
    assert (ended.code, ended.err) == (0, "")
    text = " ".join(ended.out.split())
    assert "smaller c = larger feature learning strength, FLS" in text
    for name in COMMANDS:
        assert f"\n  {name} " in ended.out
    assert "..." not in ended.out.partition("Commands:")[2]


def test_without_a_command_a_guide_says_where_to_begin(cli: Cli) -> None:
    ended = cli()
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("\n") <= 24, "one screen"
    assert max(map(len, ended.out.splitlines())) <= 82
    assert DIRECTION in ended.out.lower().replace("fls", "FLS")
    lines = [line.split() for line in ended.out.splitlines() if line.startswith("  fls-bench ")]
    assert len(lines) == 6
    for _, *words in lines:
        command = words[:2] if words[0] == "baseline" else words[:1]
        shown = cli(*command, "--help").out
        for option in (word for word in words if word.startswith("-")):
            assert option in shown, (command, option)


@pytest.mark.slow
def test_the_first_two_lines_of_the_guide_give_a_verdict(cli: Cli) -> None:
    train, diagnose, *_ = [
        line.split()[1:] for line in cli().out.splitlines() if line.startswith("  fls-bench ")
    ]
    assert cli(*train).code == 0
    ended = cli(*diagnose)
    assert ended.code == 0
    assert "over-aligned" in ended.out
    assert "<html" in Path("report.html").read_text()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", ["--output-multiplier", "0.002, 2^-9 or 1/16; smaller c = larger FLS", "--task"]),
        ("diagnose", [DIRECTION, "over-aligned (c too small)", "over-fitted (c too large)"]),
        ("diagnose", ["--setup", "imports and runs your code", "--budget", "Exit codes: 0 done"]),
        ("run", [DIRECTION, "--setup", "--fail-on", "Exit codes: 0 done"]),
        ("report", ["--html", "stored report"]),
        ("check", ["--setup", "--require-baseline", "Exit codes: 0 no regression", "5 nothing"]),
        ("compare", ["--html", "--md", "Each is compared with the first"]),
        ("baseline", ["record", "show", "bless", "list"]),
        ("baseline bless", ["--yes", "--report"]),
        ("env", ["--json"]),
        ("suites", ["list", "show", "validate"]),
        ("suites validate", ["trains nothing"]),
        ("run", ["--scale", "full, or small"]),
        ("claims", ["--record", "trains nothing"]),
        ("transfer", ["--width", "--n-train", "--family", "inside of what was fitted", DIRECTION]),
    ],
)
def test_help_of_a_command(cli: Cli, command: str, words: list[str]) -> None:
    ended = cli(*command.split(), "--help")
    assert (ended.code, ended.err) == (0, "")
    text = " ".join(ended.out.split()).replace("over- ", "over-")
    for word in words:
        assert word in text
    assert max(map(len, ended.out.splitlines())) <= 80


LOADED = """
import sys
from fls_bench.cli import main
for line in sys.argv[2:]:
    try:
        main(line.split())
    except SystemExit as end:
        assert end.code == 0, (line, end.code)
found = [name for name in sys.argv[1].split(",") if name in sys.modules]
assert not found, found
"""


def loads_none_of(names: list[str], *lines: str) -> None:
    command = [sys.executable, "-c", LOADED, ",".join(names), *lines]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_help_and_suites_load_nothing_heavy() -> None:
    lines = ["", "--version", "suites", "suites show quick", "--help"]
    loads_none_of(HEAVY, *lines, *(f"{command} --help" for command in COMMANDS))


def test_a_stored_report_is_shown_without_torch(stored_report: Path) -> None:
    loads_none_of(["torch", "sklearn", "matplotlib"], f"report {stored_report}")
    loads_none_of(["torch", "sklearn"], f"report {stored_report} --html page.html")
    assert "<html" in Path("page.html").read_text()


# --- completion by the shell ----------------------------------------------------------------


@pytest.fixture
def bash(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Run a script in bash, where ``fls-bench`` is this one and the home is nobody's."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    command = tmp_path / "bin" / "fls-bench"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m fls_bench "$@"\n')
    command.chmod(0o755)
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"

    def run(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "--norc", "-c", script], env=environment(PATH=path, HOME=str(tmp_path)),
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


COMPLETED = """
COMP_WORDS=({words})
COMP_CWORD={last}
_fls_bench_completion fls-bench
echo "${{COMPREPLY[*]}}"
"""


def test_bash_completes_commands_suites_and_options(
    bash: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    """What the user's shell is told to do by --install-completion, done."""
    installed = bash("fls-bench --install-completion; . ~/.bashrc; complete -p fls-bench")
    assert installed.returncode == 0, installed.stderr
    assert "completion installed in" in installed.stdout
    assert "-F _fls_bench_completion fls-bench" in installed.stdout
    asked = {
        "fls-bench dia": ["diagnose"],
        "fls-bench run sto": ["stopping"],
        "fls-bench check ''": [suite.name for suite in suites.list_suites()],
        "fls-bench suites show qu": ["quick"],
        "fls-bench baseline record th": ["theory"],
        "fls-bench run quick --scale ''": ["full", "small"],
        "fls-bench diagnose --obs": ["--observe-only"],
    }
    script = ". ~/.bashrc\n"
    for words in asked:
        script += COMPLETED.format(words=words, last=len(words.split()) - 1)
    ended = bash(script)
    assert ended.stderr == ""
    found = [line.split() for line in ended.stdout.splitlines()]
    assert found == list(asked.values())


def test_a_completion_loads_nothing_heavy() -> None:
    script = (
        "import sys\nfrom fls_bench.cli import main\ntry:\n    main([])\n"
        "except SystemExit as end:\n    assert not end.code\n"
        f"assert not set({HEAVY}) & set(sys.modules), sys.modules\n"
    )
    asking = {
        "_FLS_BENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": "fls-bench run qu",
        "COMP_CWORD": "2",
    }
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environment(**asking), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "quick\n", "")


def test_a_shell_that_is_not_known_is_a_matter_of_usage() -> None:
    ended = process("", _FLS_BENCH_COMPLETE="complete_tcsh")
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", "Shell tcsh not supported.\n")


# --- small commands -------------------------------------------------------------------------


def test_version(cli: Cli) -> None:
    ended = cli("--version")
    assert (ended.code, ended.out, ended.err) == (0, f"fls-bench {fls_bench.__version__}\n", "")


def test_env_as_a_table_and_as_json(cli: Cli) -> None:
    table, plain = cli("env"), cli("env", "--json")
    assert (table.code, plain.code) == (0, 0)
    facts = json.loads(plain.out)
    assert facts["torch"] == torch.__version__
    for key, value in facts.items():
        assert key in table.out
        assert value in table.out


def test_suites_are_listed_shown_and_validated(cli: Cli) -> None:
    assert cli("suites").out == cli("suites", "list").out
    shown, valid = cli("suites", "show", "quick"), cli("suites", "validate", "quick")
    assert (shown.code, valid.code) == (0, 0)
    for case in suites.load_suite("quick").cases:
        assert case.id in shown.out
    assert "near-optimal" in shown.out
    assert suites.load_suite("quick").digest in valid.out
    Path("mine.toml").write_text(SUITE.format("near_optimal"))
    assert "mine 3, 3 seeds" in cli("suites", "show", "mine.toml").out


def test_a_stored_report_looks_as_it_did(cli: Cli, stored_report: Path) -> None:
    ended = cli("report", stored_report)
    assert (ended.code, ended.err) == (0, "")
    assert "over-aligned: Feature learning is too strong" in ended.out
    assert DIRECTION in ended.out
    ended = cli("report", stored_report, "--quiet", "--html", "page.html")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    ended = cli("report", stored_report, "--html", "page.html")
    assert ended.code == 2
    ended = cli("report", stored_report, "--html", "page.html", "--force")
    assert (ended.code, ended.err) == (0, "report written to page.html\n")


# --- train and diagnose ---------------------------------------------------------------------

TRAIN = "train -o m.pt --task wine --n-train 30 --depth 2 --width 8 --max-epochs 20 --lr 0.05"


def test_train_says_what_it_made(cli: Cli) -> None:
    ended = cli(*TRAIN.split(), "--output-multiplier", "1/4")
    assert ended.code == 0
    assert ended.err.startswith("The target was not reached")
    for words in (
        "m.pt: c = 2^-2, learning rate 0.2,",
        "128 parameters",
        "test error",
        "20 epochs",
    ):
        assert words in ended.out
    made = fls_bench.load_bundle("m.pt")
    assert made.header.output_multiplier == 0.25
    assert made.header.recipe.optimizer.lr == pytest.approx(0.2)
    ended = cli(*TRAIN.split(), "--force", "--target-loss", 1)
    assert (ended.code, ended.err) == (0, "")
    assert "reached target" in ended.out
    ended = cli(*TRAIN.split(), "--quiet", "--force")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert fls_bench.load_bundle("m.pt").header.output_multiplier == 1


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("cosine", Cosine()),
        ("cosine:50", Cosine(epochs=50)),
        ("step:30", StepDecay(every=30)),
        ("linear", PerStep(decay="linear")),
        ("linear,warmup=100", PerStep(decay="linear", warmup_steps=100)),
        ("cosine,warmup=0", PerStep(decay="cosine")),
        ("cosine,steps=500", PerStep(decay="cosine", steps=500)),
        ("linear,steps=500,warmup=9", PerStep(decay="linear", warmup_steps=9, steps=500)),
        ("constant,warmup=100", PerStep(decay="constant", warmup_steps=100)),
    ],
)
def test_train_reads_schedules(cli: Cli, text: str, schedule: Schedule) -> None:
    optimizer = f"adamw,weight_decay=0.1,schedule={text}"
    ended = cli(*TRAIN.split(), "--max-epochs", 2, "--optimizer", optimizer)
    assert ended.code == 0, ended.err
    recipe = fls_bench.load_bundle("m.pt").header.recipe
    assert recipe.optimizer == AdamW(lr=0.05, weight_decay=0.1, schedule=schedule)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("schedule=exponential", "schedule=exponential is unknown."),
        ("schedule=exponential,warmup=3", "schedule=exponential is unknown, or not"),
        ("schedule=cosine:50,warmup=3", "schedule=cosine:50 is unknown, or not one of warmup="),
        ("schedule=step:30,steps=3", "schedule=step:30 is unknown, or not one of warmup="),
        ("schedule=linear:30", "schedule=linear:30 is unknown."),
        ("warmup=3", "warmup= and steps= go with a schedule"),
        ("schedule=constant,warmup=3,steps=9", "a constant rate has no steps"),
        ("schedule=linear,warmup=-1", "greater than or equal to 0"),
        ("schedule=linear,warmup=ten", "valid integer"),
    ],
)
def test_train_says_what_is_wrong_with_a_schedule(cli: Cli, text: str, problem: str) -> None:
    ended = cli(*TRAIN.split(), "--optimizer", f"sgd,{text}")
    assert ended.code == 2
    assert problem in " ".join(ended.err.split())


def test_train_stops_as_it_is_told(cli: Cli) -> None:
    ended = cli(*TRAIN.split(), "--validation-patience", 2, "--max-epochs", 100, "--lr", 1)
    assert "reached target" in ended.out
    header = fls_bench.load_bundle("m.pt").header
    assert header.recipe.stop == fls_bench.ValidationLoss(2, max_epochs=100)
    no_limit = [word for word in TRAIN.split() if word not in ("--max-epochs", "20")]
    assert cli(*no_limit, "--force", "--steps", 7).code == 0
    header = fls_bench.load_bundle("m.pt").header
    assert header.recipe.stop == fls_bench.FixedSteps(7, max_epochs=4), "30 points in batches of 25"
    assert (header.outcome.steps, header.outcome.epochs) == (7, 4)
    ended = cli(*TRAIN.split(), "--force", "--steps", 70)
    assert "out of budget after 20 epochs" in ended.out
    assert ended.err.startswith("The target was not reached")
    for line, said in (
        (["--steps", 7, "--validation-patience", 2], "--validation-patience and --steps are"),
        (["--steps", 0], "--steps: Input should be greater than or equal to 1."),
        (["--validation-patience", 0], "--validation-patience: Input should be greater than"),
        (["--target-accuracy", 2], "--target-accuracy: Input should be less than or equal to 1."),
    ):
        ended = cli(*TRAIN.split(), "--force", *line)
        assert ended.code == 2
        assert said in ended.err


def test_a_file_alone_is_enough_to_diagnose(cli: Cli) -> None:
    cli(*TRAIN.split())
    line = ["diagnose", "m.pt", "--max-seeds", 3, "--jobs", 1]
    ended = cli(*line, "--json", "-", "--html", "page.html", "--store", "runs")
    assert ended.code == 0
    made = Report.model_validate(json.loads(ended.out))
    assert made.diagnosis.evidence_tier == "T3"
    assert {cell.c for cell in made.sweep.cells} >= {2.0**k for k in (-4, -2, 0, 2, 4)}
    assert made.input["sha256"] == fls_bench.load_bundle("m.pt").sha256
    assert "sweep of m: first 15 runs" in ended.err
    assert ended.err.endswith("report written to page.html\n")
    assert "<html" in Path("page.html").read_text()

    again = cli(*line, "--json", "r.json", "--store", "runs")
    assert again.code == 0
    assert f"resuming: {made.cost.num_runs} runs" in again.err
    assert made.diagnosis.regime.label in again.out
    assert DIRECTION in again.out
    assert "\x1b" not in again.out + again.err
    stored = json.loads(Path("r.json").read_text())
    assert stored["diagnosis"] == json.loads(ended.out)["diagnosis"]

    quiet = cli(*line, "--json", "r.json", "--store", "runs", "--quiet", "--force")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_nothing_is_stored_where_that_is_asked_for(
    cli: Cli, weights_alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLS_BENCH_STORE", "runs")
    cli(*TRAIN.split())
    line = ["diagnose", "m.pt", "--max-seeds", 3, "--max-epochs", 1, "--jobs", 1, "--quiet"]
    assert cli(*line, "--no-store").code == 0
    assert not Path("runs").exists()
    assert cli(*line).code == 0
    assert len(list(Path("runs").glob("*.jsonl"))) == 1


def test_output_files_are_overwritten_only_when_that_is_asked_for(
    cli: Cli, weights_alone: Path
) -> None:
    Path("r.json").write_text("kept")
    assert cli("diagnose", weights_alone, "--json", "r.json").code == 2
    assert Path("r.json").read_text() == "kept"
    assert cli("diagnose", weights_alone, "--json", "r.json", "--force").code == 0
    assert json.loads(Path("r.json").read_text())["diagnosis"]["evidence_tier"] == "T0"


PRINTING = """
import os
import torch
import fls_bench

class Loud(torch.nn.Linear):
    def __init__(self):
        super().__init__(13, 3)
        print("made a net")
        os.write(1, b"said past Python\\n")

setup = fls_bench.TrainingSetup(
    make_model=Loud,
    task=fls_bench.task_source("wine", {"n_train": 30}),
    stop=fls_bench.TargetLoss(target_loss=0.9, max_epochs=3),
    name="loud",
)
"""


def test_what_the_users_code_prints_does_not_get_into_the_report() -> None:
    Path("loud.py").write_text(PRINTING)
    ended = process(
        "diagnose", "--setup", "loud:setup", "--json", "-", "--max-seeds", 3, "--jobs", 1,
        PYTHONPATH=f"{ROOT}{os.pathsep}.",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["setup"]["name"] == "loud"
    assert "made a net" in ended.stderr
    assert "said past Python" in ended.stderr


# --- exit codes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ("", 0),
        ("--strict", 4),
        ("--fail-on inconclusive", 1),
        ("--fail-on over-fitted,inconclusive", 1),
        ("--fail-on over_fitted,inconclusive", 1),
        ("--fail-on over-aligned,over-fitted,near-optimal,unexpected", 0),
        ("--strict --fail-on inconclusive", 1),
        ("--strict --fail-on over-fitted", 4),
    ],
)
def test_exit_code_of_an_inconclusive_verdict(
    cli: Cli, weights_alone: Path, options: str, code: int
) -> None:
    ended = cli("diagnose", weights_alone, *options.split())
    assert ended.code == code
    # The one line says why a quiet run in CI failed.
    assert ended.err == ("exit 1 by --fail-on: inconclusive\n" if code == 1 else "")
    assert "inconclusive" in ended.out


@pytest.mark.parametrize(
    ("expected", "options", "code"),
    [
        (Regime.INCONCLUSIVE, "--strict --fail-on unexpected", 0),
        (Regime.NEAR_OPTIMAL, "--fail-on unexpected", 1),
        (Regime.NEAR_OPTIMAL, "--strict", 4),
        (Regime.NEAR_OPTIMAL, "", 0),
    ],
)
def test_exit_code_of_a_suite(cli: Cli, expected: Regime, options: str, code: int) -> None:
    Path("mine.toml").write_text(SUITE.format(expected))
    line = "run mine.toml --jobs 1 --no-store --json r.json"
    ended = cli(*line.split(), *options.split())
    assert ended.code == code, ended.err
    assert ("exit 1 by --fail-on: unexpected\n" in ended.err) == (code == 1)
    made = reports.read("r.json")
    assert (made.kind, made.suite["name"], made.suite["version"]) == ("suite", "mine", 3)
    assert [case.diagnosis.regime for case in made.cases] == [Regime.INCONCLUSIVE]
    assert [case.met for case in made.cases] == [expected is Regime.INCONCLUSIVE]


def test_a_failed_training_is_no_fault_of_the_input(cli: Cli) -> None:
    ended = cli(*TRAIN.split(), "--lr", "1e30")
    assert ended.code == 3
    assert ended.err.startswith("error: Training diverged")
    assert os.listdir() == []


def test_an_internal_error_is_one_paragraph_unless_debugging(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down() -> None:
        raise RuntimeError("first line\n\nsecond line")

    monkeypatch.setattr(suites, "list_suites", break_down)
    ended = cli("suites")
    assert (ended.code, ended.out) == (3, "")
    assert ended.err == (
        "error: Internal error: RuntimeError: first line second line. Please report it; "
        "FLS_BENCH_DEBUG=1 in the environment shows where it happened.\n"
    )
    monkeypatch.setenv("FLS_BENCH_DEBUG", "1")
    ended = cli("suites")
    assert ended.code == 3
    assert "Traceback (most recent call last)" in ended.err
    assert "in break_down" in ended.err


def test_a_library_that_exits_does_not_choose_our_exit_code(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave() -> None:
        raise SystemExit(1)

    monkeypatch.setattr(suites, "list_suites", leave)
    assert cli("suites").code == 3


# --- pipes and terminals --------------------------------------------------------------------


@pytest.mark.parametrize(("line", "code"), [("report old.json", 0), ("suites", 141)])
def test_a_reader_that_goes_away_gets_no_traceback(
    stored_report: Path, line: str, code: int
) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "fls_bench", *line.split()]
    ended = subprocess.run(
        command, env=environment(), stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (ended.returncode, ended.stderr) == (code, "")


def on_a_terminal(*arguments: object, **more: str) -> str:
    """What a command writes where standard output and error are a terminal."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "fls_bench", *map(str, arguments)]
    begun = subprocess.Popen(
        command, env=environment(TERM="xterm-256color", **more), stdout=slave, stderr=slave
    )
    os.close(slave)
    text = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the other side was closed
            break
        if not part:
            break
        text += part
    os.close(master)
    assert begun.wait() == 0, text
    return text.decode()


def test_colours_on_a_terminal_and_none_where_they_are_not_wanted(stored_report: Path) -> None:
    red_to_white = [f"\x1b[1;3{k}m" for k in range(1, 8)]
    coloured = on_a_terminal("report", stored_report)
    assert any(code in coloured for code in red_to_white)
    plain = on_a_terminal("report", stored_report, NO_COLOR="1")
    assert not any(code in plain for code in red_to_white)
    assert "\x1b" not in process("report", stored_report).stdout
