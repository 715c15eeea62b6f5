"""Kills ``fls-bench diagnose`` again and again; run as ``python -m killing FOLDER KILLS SEED``.

Everything is imported once; each command is then a fork that begins in the first line of ``main``, so
that fifty of them take no longer than their training. All end by SIGKILL: at a moment that is drawn
from the whole time of a run, or inside of a write to the store. What is found is printed as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import own_nets
import torch

from fls_bench import console, report, store  # noqa: F401 (imported before the forks)
from fls_bench.cli import main
from fls_bench.schema import Sgd, TargetLoss
from fls_bench.store import RunStore
from fls_bench.sweep import search
from fls_bench.training_setup import TrainingSetup


def setup() -> TrainingSetup:
    """Batches of an MLP of this size round by which nets are beside each other."""
    return own_nets.built_in(
        width=64, depth=3, stop=TargetLoss(target_loss=0.1, max_epochs=40), optimizer=Sgd(lr=0.1)
    )


FEW = 5
"""Kills up to which there is no time for two commands at once."""

COMMAND = "diagnose --setup killing:setup --max-seeds 6 --budget 10h --jobs 2 --device cpu --force"


def command(folder: Path, name: str = "report") -> list[str]:
    folder.mkdir(exist_ok=True)
    return [*COMMAND.split(), "--store", str(folder), "--json", str(folder / f"{name}.json")]


def result(path: Path) -> str:
    """A report without its provenance."""
    value = json.loads(path.read_text())
    del value["provenance"]
    return json.dumps(value)


def stored(folder: Path) -> dict[str, object]:
    """All runs that a folder holds."""
    found = {}
    for path in folder.glob("*.jsonl"):
        found.update(RunStore(path).load())
    return found


def begin(arguments: list[str], first: Callable[[], object] = lambda: None) -> int:
    """A fork that runs a command."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        log = os.open(os.devnull, os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        first()
        main(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 98
    finally:
        os._exit(code)


def ended(pid: int, within: float | None = None) -> int | None:
    """The status of a process that ends in so many seconds, or None."""
    deadline = None if within is None else time.monotonic() + within
    while True:
        done, status = os.waitpid(pid, 0 if deadline is None else os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if deadline is not None and time.monotonic() > deadline:
            return None
        time.sleep(0.001)


def dies_in_write(number: int, share: float) -> None:
    """From now on: the so-manieth write to the store ends the process in its middle."""
    left = number

    def write(fd: int, data: bytes) -> int:
        nonlocal left
        left -= 1
        if left < 0:
            os.write(fd, data[: round(share * len(data))])
            os.kill(os.getpid(), signal.SIGKILL)
        return os.write(fd, data)

    store.os = SimpleNamespace(**vars(os) | {"write": write})  # type: ignore[attr-defined]


def disk_ends(size: int) -> None:
    """No file may become larger: the kernel cuts the write short, and refuses the next one."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


class Lives:
    """Stores on which commands are killed until one comes through; then the next store."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.draw, self.kinds = folder, random.Random(seed), Counter[str]()
        # What is imported late is there, too, then; and nothing is left of it that a fork could lack.
        with contextlib.suppress(SystemExit):
            main([*command(folder / "warm"), "--jobs", "1", "--quiet"])
        start = time.monotonic()
        clean = folder / "clean"
        assert ended(begin(command(clean))) == 0
        self.seconds = time.monotonic() - start
        self.result, self.stored = result(clean / "report.json"), stored(clean)
        self.num_lives, self.wrong = 0, list[str]()

    @property
    def num_kills(self) -> int:
        return self.kinds["moment"] + self.kinds["write"]

    def check(self, folder: Path, name: str = "report") -> None:
        if result(folder / f"{name}.json") != self.result:
            self.wrong.append(f"{folder.name}: another {name}")
        if stored(folder) != self.stored:
            self.wrong.append(f"{folder.name}: other runs")

    def live(self, num_kills: int) -> None:
        """Until a command comes through."""
        self.num_lives += 1
        folder = self.folder / f"life-{self.num_lives}"
        while True:
            first: Callable[[], object] = lambda: None  # noqa: E731
            within: float | None = self.draw.uniform(0, self.seconds)
            kind = self.draw.choice(["moment", "moment", "write", "full"])
            if self.num_kills >= num_kills:
                kind, within = "none", None
            elif kind == "write":
                number, share, within = self.draw.randrange(12), self.draw.random(), None
                first = lambda number=number, share=share: dies_in_write(number, share)  # type: ignore[misc]  # noqa: E731
            elif kind == "full":
                size, within = self.draw.randrange(20_000), None
                first = lambda size=size: disk_ends(size)  # type: ignore[misc]  # noqa: E731
            pid = begin(command(folder), first)
            code = ended(pid, within)
            if code is None:
                os.kill(pid, signal.SIGKILL)
                code = ended(pid)
            if code == -signal.SIGKILL:
                self.kinds[kind] += 1
            elif code == 2 and kind == "full":
                self.kinds["full"] += 1
            elif code != 0:
                self.wrong.append(f"{folder.name}: exit code {code} by {kind}")
                return
            else:
                self.check(folder)
                return

    def rivals(self) -> None:
        """Two commands on one store at once; a third that begins there is killed meanwhile."""
        folder = self.folder / "rivals"
        pids = [begin(command(folder, "one"))]
        time.sleep(self.draw.uniform(0, self.seconds / 2))
        pids += [begin(command(folder, "other")), begin(command(folder, "third"))]
        time.sleep(self.draw.uniform(0, self.seconds))
        os.kill(pids[2], signal.SIGKILL)
        codes = [ended(pid) for pid in pids]
        if codes[:2] != [0, 0]:
            self.wrong.append(f"two at once: exit codes {codes}")
            return
        self.check(folder, "one")
        self.check(folder, "other")


def run(folder: Path, num_kills: int, seed: int) -> dict[str, object]:
    assert torch.get_num_threads() == 1, "threads of torch do not survive a fork"
    search.TRIAL_SECONDS = 0.001  # what the budget is turned into does not matter here
    lives = Lives(folder, seed)
    if num_kills > FEW:
        lives.rivals()
    while lives.num_kills < num_kills or not lives.num_lives:
        lives.live(num_kills)
    return {
        "kills": lives.num_kills, "kinds": dict(lives.kinds), "lives": lives.num_lives,
        "seconds": lives.seconds, "wrong": lives.wrong, "runs": len(lives.stored),
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
