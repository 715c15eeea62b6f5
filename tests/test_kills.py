"""A command that is killed at any moment, however often, ends as one that nobody killed.

``killing`` does the killing in a process of its own: by signal at random moments, and inside of writes;
it also lets the disk end, and in its long version two commands work on one store at once.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import killing
import pytest

HERE = str(Path(__file__).parent)
# Threads of torch would not survive the forks.
SINGLE = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
ENVIRONMENT = {**os.environ, **SINGLE, "PYTHONPATH": HERE}


def killed(folder: Path, num_kills: int, seed: int) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "killing", str(folder), str(num_kills), str(seed)],
        env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    assert found["kills"] == num_kills
    return found


def test_a_command_that_is_killed_again_and_again_comes_to_the_same_report(tmp_path: Path) -> None:
    assert killed(tmp_path, 4, seed=0)["wrong"] == []


@pytest.mark.slow
def test_fifty_kills_and_more_change_nothing(tmp_path: Path) -> None:
    found = killed(tmp_path, 60, seed=int(os.environ.get("KILLING_SEED", "1")))
    assert found["wrong"] == []
    kinds = found["kinds"]
    assert isinstance(kinds, dict)
    assert min(kinds["moment"], kinds["write"], kinds["full"]) >= 10


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["auto", "loky"])
def test_the_real_command_from_its_first_import_on_and_no_process_stays(
    backend: str, tmp_path: Path
) -> None:
    draw, num_kills = random.Random(2), 0

    def begin(folder: Path) -> subprocess.Popen[bytes]:
        # In a session of its own, by which its processes are found.
        return subprocess.Popen(
            [sys.executable, "-m", "fls_bench", *killing.command(folder), "--backend", backend],
            env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    start = time.monotonic()
    assert begin(tmp_path / "clean").wait() == 0
    seconds = time.monotonic() - start
    clean, lives = killing.result(tmp_path / "clean" / "report.json"), 1
    while True:
        folder = tmp_path / f"life-{lives}"
        process = begin(folder)
        try:
            code = process.wait(draw.uniform(0, seconds) if num_kills < 6 else None)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
            num_kills += 1
            assert gone(process.pid, within=30), "its workers are still there"
            continue
        assert code == 0
        assert killing.result(folder / "report.json") == clean
        assert killing.stored(folder) == killing.stored(tmp_path / "clean")
        if num_kills == 6:
            break
        lives += 1


def gone(session: int, within: float) -> bool:
    """Whether no process of a session is left, in so many seconds."""
    deadline = time.monotonic() + within
    while True:
        there = False
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            there |= int(fields[3]) == session and fields[0] != "Z"
        if not there:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
