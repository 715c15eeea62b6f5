"""The Slurm recipe in examples/slurm: its job script, and all of it under a Slurm of a few lines."""

from __future__ import annotations

import json
import os
import runpy
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import own_nets
import pytest

import fls_bench

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "slurm" / "sweep.py"
pytest.importorskip("dask_jobqueue")

# Each submitted script runs as a process group of its own; its number is the job's.
SLURM = """#!{python}
import os, pathlib, re, signal, subprocess, sys
spool, arguments = pathlib.Path({spool!r}), sys.argv[1:]
if pathlib.Path(sys.argv[0]).name == "sbatch":
    text = pathlib.Path(arguments[-1]).read_text()
    known = r"-J|-p|-A|-n|--cpus-per-task|--mem|-t|--requeue|--constraint|-e|-o"
    for line in re.findall("^#SBATCH (.*)$", text, flags=re.M):
        if not re.match(f"({{known}})([ =]|$)", line):
            sys.exit(f"sbatch: unrecognized option {{line}}")
    script = spool / f"{{len(list(spool.iterdir()))}}.sh"
    script.write_text(text)
    with open(f"{{script}}.log", "wb") as log:
        job = subprocess.Popen(
            ["bash", script], start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    (spool / f"{{job.pid}}.job").touch()
    print(f"Submitted batch job {{job.pid}}")
else:
    for job in arguments:
        try:
            os.killpg(int(job), signal.SIGKILL)
        except ProcessLookupError:
            pass
"""


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Slurm that starts its jobs at once and here."""
    spool, programs = tmp_path / "spool", tmp_path / "bin"
    spool.mkdir()
    programs.mkdir()
    for name in ("sbatch", "scancel"):
        path = programs / name
        path.write_text(SLURM.format(python=sys.executable, spool=str(spool)))
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    yield spool
    for job in spool.glob("*.job"):
        with suppress(ProcessLookupError):
            os.killpg(int(job.stem), signal.SIGKILL)


def job_script(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--print", *arguments, "--", "run", "quick"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_job_script_asks_for_what_its_workers_use() -> None:
    script = job_script(
        "--per-job", "16", "--memory", "1.5GB", "--hours", "6", "--partition", "cpu",
        "--account", "me", "--setup-line", "module load gcc", "--directive=--constraint=avx512",
    )  # fmt: skip
    checked = subprocess.run(["bash", "-n"], input=script, text=True, check=False)
    assert checked.returncode == 0
    lines = script.strip().splitlines()
    assert lines[0].startswith("#!")
    asked = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")]
    wanted = ["-p cpu", "-A me", "-n 1", "--cpus-per-task=16", "-t 06:00:00", "--requeue"]
    assert {*wanted, "--constraint=avx512"} <= set(asked)
    assert [one for one in asked if one.startswith("--mem=")] == ["--mem=23G"]  # 24 GB in GiB
    threads = next(line for line in lines if line.startswith("export OMP_NUM_THREADS"))
    assert {"OMP_NUM_THREADS=1", "MKL_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1"} <= set(
        threads.split()
    )
    worker = shlex.split(lines[-1])
    assert lines.index("module load gcc") < len(lines) - 1
    assert worker[1:3] == ["-m", "distributed.cli.dask_worker"]
    given = dict(pairwise(worker))
    assert (given["--nthreads"], given["--nworkers"], given["--lifetime"]) == ("1", "16", "350m")
    assert "--nanny" in worker


@pytest.mark.parametrize("memory", ["512", "2gigs", "0.5MB", "-2GB", ""])
def test_memory_that_no_worker_could_do_with_is_refused(memory: str) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--print", f"--memory={memory}", "--", "run", "quick"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "give a number and a unit: 512MB, 1.5GB" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("written", "jobs"),
    [([], ["--jobs", "64"]), (["--jobs", "4"], ["--jobs", "4"]), (["--jobs=4"], ["--jobs=4"])],
)
def test_jobs_that_are_written_are_not_overruled(written: list[str], jobs: list[str]) -> None:
    sweep = runpy.run_path(str(SCRIPT))
    chosen = sweep["options"](["--workers", "64", "--", "run", "quick", *written])
    command = sweep["command_of"](chosen, "tcp://10.0.0.1:8786")
    assert [word for word in command if "tcp:" in word] == ["tcp://10.0.0.1:8786"]
    at = command.index(jobs[0])
    assert command[at : at + len(jobs)] == jobs
    assert len([word for word in command if word.startswith("--jobs")]) == 1


@pytest.mark.slow
def test_a_sweep_of_jobs_that_come_and_go_gives_the_report_of_this_machine(
    spool: Path, tmp_path: Path
) -> None:
    folder = str(Path(own_nets.__file__).parent)

    def command(name: str) -> list[str]:
        return [
            "diagnose", "--setup", "killing:setup", "--pythonpath", folder, "--max-seeds", "6",
            "--budget", "10h", "--device", "cpu", "--store", str(tmp_path / name),
            "--json", str(tmp_path / f"{name}.json"), "--quiet",
        ]  # fmt: skip

    environment = {**os.environ, "PYTHONPATH": str(Path(fls_bench.__file__).parents[1])}
    here = [sys.executable, "-m", "fls_bench", *command("here"), "--jobs", "2"]
    subprocess.run(here, check=True, env=environment)
    there = subprocess.Popen(
        [
            sys.executable, str(SCRIPT), "--workers", "2", "--per-job", "1", "--interface", "lo",
            "--", *command("there"),
        ],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    deadline = time.monotonic() + 150
    while not any((tmp_path / "there").glob("*.batches")) and time.monotonic() < deadline:
        time.sleep(0.02)
    first = min(spool.glob("*.job"), key=lambda path: path.stat().st_mtime_ns)
    os.killpg(int(first.stem), signal.SIGKILL)
    _, told = there.communicate(timeout=180)
    assert there.returncode == 0, told
    assert len(list(spool.glob("*.job"))) >= 2
    reports = [json.loads((tmp_path / f"{k}.json").read_text()) for k in ("here", "there")]
    assert reports[1].pop("provenance")["extra"]["backend"] == "dask"
    del reports[0]["provenance"]
    assert reports[0] == reports[1]
