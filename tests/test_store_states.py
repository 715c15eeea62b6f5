"""Any order of run, interrupt, crash, resume, repeat and a rival process ends as one clean run does.

The nets train one by one, where each run's numbers are its own bit for bit. In batches they depend
on their neighbours by rounding; the last test says by how much.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import own_nets
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from profiles import FEW
from torch import nn

from fls_bench import store as store_module
from fls_bench.schema import RunRecord, Sgd, TargetLoss
from fls_bench.store import RunStore
from fls_bench.sweep import SweepPlan, SweepResult, prepare, run_sweep
from fls_bench.sweep.sweeper import Sweeper
from fls_bench.tasks import Task
from fls_bench.training import Engine, engines, jobs
from fls_bench.training.replicas import train_batch
from fls_bench.training_setup import TrainingSetup

VALUES, NUM_SEEDS = (0.25, 4.0), 3
PLAN = SweepPlan(seeds=(3,), coarse=(-2.0, 0.0, 2.0), limit=2.0, confirm=3, rate_limit=1.0)


def few_blobs(seed: int) -> Task:
    return own_nets.blobs(seed, n_train=20, spread=0.5)


def narrow(output_multiplier: float = 1.0) -> nn.Module:
    body = nn.Sequential(
        nn.Linear(own_nets.INPUT_DIM, 4, bias=False), nn.ReLU(), nn.Linear(4, 3, bias=False)
    )
    return own_nets.Multiplied(body, output_multiplier)


def setup(max_epochs: int) -> TrainingSetup:
    """By a factory: nets of different c are then different nets, and no batch can hold them."""
    stop = TargetLoss(target_loss=0.8, max_epochs=max_epochs)
    return own_nets.own(narrow, task=few_blobs, optimizer=Sgd(lr=0.5), stop=stop)


class Listener:
    """Counts what a sweep tells, and interrupts it after so many runs."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.planned, self.ended, self.stop_after = 0, 0, stop_after

    def plan(self, total_runs: int, text: str) -> None:
        self.planned += total_runs

    def done(self, runs: int, text: str) -> None:
        self.ended += runs
        if self.ended == self.stop_after:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        pass


@contextmanager
def written_by(write: Callable[[int, bytes], int]) -> Iterator[None]:
    """The store, and nothing else, writes with this function."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "os", SimpleNamespace(**vars(os) | {"write": write}))
        yield


# --- one clean run --------------------------------------------------------------------------


class Clean:
    """What one process leaves behind that nobody disturbs."""

    def __init__(self, path: Path) -> None:
        self.prepared = prepare(setup(2), PLAN, stores=lambda _: None)
        assert self.prepared.engine.kind == "single"
        sweeper = Sweeper.of(self.prepared, lambda _: RunStore(path), Listener(), 1)
        seeds = sweeper.seeds(NUM_SEEDS)
        self.configs = [sweeper.config(value, s, False) for value in VALUES for s in seeds]
        sweeper.train(self.configs, "")
        self.records = dict(sweeper.used)
        self.sweep = sweeper.sweep(VALUES, False)
        # Those of a machine that rounds otherwise, which come too late to count.
        self.late = [
            record.model_copy(update={"train_loss": (record.train_loss or 0) + 1e-9})
            for record in self.records.values()
        ]
        first = path.read_bytes().splitlines()
        RunStore(path).append(self.late)
        second = path.read_bytes().splitlines()[len(first) :]
        self.digest_of = dict(zip(first, self.records, strict=True))
        self.late_lines = set(second)
        assert len(self.digest_of) == len(self.configs) == len(self.late_lines)
        assert not self.late_lines & self.digest_of.keys()


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Clean:
    return Clean(tmp_path_factory.mktemp("clean") / "runs.jsonl")


# --- a second process -----------------------------------------------------------------------

SECOND_PROCESS = """
import json, os, signal, sys, time
from types import SimpleNamespace
from typing import Any
from fls_bench import store as store_module
from fls_bench.schema import RunRecord
from fls_bench.store import RunStore

def slowly(fd, data):
    # A write may end early: on a full or a remote disk, or by a signal.
    written = os.write(fd, data[:500])
    print("writing", flush=True)
    time.sleep(0.002)
    return written

def for_the_last_time(fd, data):
    os.write(fd, data[:order["dies_after"]])
    os.kill(os.getpid(), signal.SIGKILL)

records = [RunRecord.model_validate(value) for value in json.loads(sys.stdin.readline())]
store = None
for line in sys.stdin:
    order = json.loads(line)
    if store is None or str(store.path) != order["path"]:
        store = RunStore(order["path"])
    wanted = [records[i] for i in order["which"]]
    write = slowly if order["dies_after"] is None else for_the_last_time
    store_module.os = SimpleNamespace(**{**vars(os), "write": write})
    if order["dies_after"] is None:
        store.append(wanted)
    else:
        dying = os.fork()
        if not dying:
            store.append(wanted)
        assert os.waitpid(dying, 0)[1] == signal.SIGKILL
    print("done", flush=True)
"""


class SecondProcess:
    """A process that appends finished records: slowly, or until it is killed in the middle."""

    def __init__(self, records: Sequence[RunRecord]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SECOND_PROCESS],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._tell([record.model_dump(mode="json") for record in records])

    def _tell(self, value: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value) + "\n")
        self._process.stdin.flush()

    def _heard(self) -> str:
        assert self._process.stdout is not None
        word = self._process.stdout.readline().strip()
        assert word, "the second process failed"
        return word

    def append(
        self,
        path: Path,
        which: Sequence[int],
        *,
        meanwhile: Callable[[], None] = lambda: None,
        dies_after: int | None = None,
    ) -> None:
        """Append records by number; ``meanwhile`` is called when the first has begun to be written."""
        self._tell({"path": str(path), "which": which, "dies_after": dies_after})
        word = self._heard()
        try:
            if word == "writing":
                meanwhile()
        finally:
            while word != "done":
                word = self._heard()

    def close(self) -> None:
        self._process.communicate(timeout=10)


@pytest.fixture(scope="module")
def second_process(clean: Clean) -> Iterator[SecondProcess]:
    process = SecondProcess([*clean.records.values(), *clean.late])
    yield process
    process.close()


# --- the machine ----------------------------------------------------------------------------

NUM_RUNS = len(VALUES) * NUM_SEEDS
a_run = st.integers(0, NUM_RUNS - 1)
some_runs = st.lists(a_run, min_size=1, max_size=4, unique=True)
a_share = st.floats(0, 1)


class Sweeping(RuleBasedStateMachine):
    """One sweeping process after the other on one file, and a rival that works on it as well.

    ``kept`` counts the lines that the file must hold of each run, by its number: whatever was
    acknowledged and not cut since. ``damaged`` counts the lines that a crash cut.
    """

    def __init__(self, clean: Clean, rival: SecondProcess) -> None:
        super().__init__()
        self.clean, self.rival = clean, rival
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name) / "runs.jsonl"
        self.kept: Counter[int] = Counter()
        self.damaged = 0
        self.records = list(clean.records.values())
        self.number_of = {digest: number for number, digest in enumerate(clean.records)}
        self.a_process_begins()

    def account(self, line: bytes, sign: int) -> None:
        line = line.strip(b"\0\n")
        if line in self.clean.digest_of:
            self.kept[self.number_of[self.clean.digest_of[line]]] += sign
        elif line and line not in self.clean.late_lines:
            self.damaged += sign

    def missing(self, which: Sequence[int]) -> list[int]:
        """Those that the process does not know: what it must train, in order."""
        known = self.sweeper.known
        return [i for i in which if self.clean.configs[i].digest not in known]

    def train(self, which: Sequence[int], listener: Listener) -> None:
        self.sweeper.listener = listener
        self.sweeper.train([self.clean.configs[i] for i in which], "")

    # --- one process ---

    @rule()
    def a_process_begins(self) -> None:
        self.sweeper = Sweeper.of(self.clean.prepared, lambda _: RunStore(self.path), Listener(), 1)
        assert {self.number_of[digest] for digest in self.sweeper.known} == set(+self.kept)

    @rule(which=some_runs)
    def runs(self, which: list[int]) -> None:
        new, listener = self.missing(which), Listener()
        self.train(which, listener)
        self.kept.update(new)
        assert listener.planned == listener.ended == len(new), "what is stored is not trained again"
        for i in which:
            assert self.sweeper.used[self.clean.configs[i].digest] == self.records[i]

    @rule(which=some_runs, after=st.integers(1, 4))
    def is_interrupted_between_two_runs(self, which: list[int], after: int) -> None:
        new = self.missing(which)
        if after > len(new):
            self.runs(which)
            return
        with pytest.raises(KeyboardInterrupt):
            self.train(which, Listener(stop_after=after))
        self.kept.update(new[:after])

    @rule(which=some_runs, after=st.integers(0, 3), part=a_share)
    def is_interrupted_in_a_write(self, which: list[int], after: int, part: float) -> None:
        new = self.missing(which)
        if after >= len(new):
            self.runs(which)
            return
        num_writes = 0

        def write(fd: int, data: bytes) -> int:
            nonlocal num_writes
            num_writes += 1
            if num_writes <= after:
                return os.write(fd, data)
            os.write(fd, data[: round(part * len(data))])
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), written_by(write):
            self.train(which, Listener())
        self.kept.update(new[:after])

    # --- a second one ---

    @rule(theirs=some_runs, mine=some_runs)
    def two_processes_append_at_once(self, theirs: list[int], mine: list[int]) -> None:
        store = self.sweeper.store
        assert store is not None

        def meanwhile() -> None:
            found = RunStore(self.path)
            found.load()
            assert found.num_damaged == self.damaged, "a line was read that is being written"
            store.append([self.records[i] for i in mine])

        self.rival.append(self.path, theirs, meanwhile=meanwhile)
        self.kept.update(theirs)
        self.kept.update(mine)

    @rule(number=a_run, part=a_share)
    def another_process_is_killed_in_a_write(self, number: int, part: float) -> None:
        before = self.path.read_bytes() if self.path.exists() else b""
        longest = len(list(self.clean.digest_of)[number])
        self.rival.append(self.path, [number], dies_after=round(part * longest))
        after = self.path.read_bytes()
        assert after.startswith(before)
        if before and not before.endswith(b"\n"):
            last = before[before.rfind(b"\n") + 1 :]
            self.account(last, -1)
            before = before[: len(before) - len(last)]
        for line in after[len(before) :].split(b"\n"):
            self.account(line, 1)

    @precondition(lambda self: +self.kept)
    @rule(data=st.data())
    def a_run_comes_again_with_other_numbers(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(+self.kept)))
        self.rival.append(self.path, [NUM_RUNS + number])

    # --- the machine fails ---

    @precondition(lambda self: self.path.exists())
    @rule(part=a_share, num_empty=st.sampled_from([0, 1, 600]))
    def the_power_fails(self, part: float, num_empty: int) -> None:
        """The last line is cut anywhere; the file may have grown to bytes that never came."""
        content = self.path.read_bytes()
        start = content.rfind(b"\n", 0, max(0, len(content) - 1)) + 1
        left = content[start : start + round(part * (len(content) - start))]
        self.account(content[start:], -1)
        self.account(left, 1)
        self.path.write_bytes(content[:start] + left + bytes(num_empty))
        self.a_process_begins()

    # --- what must hold ---

    @invariant()
    def the_store_holds_what_was_acknowledged(self) -> None:
        store = RunStore(self.path)
        found = store.load()
        assert found == {self.records[i].config.digest: self.records[i] for i in +self.kept}
        assert store.num_damaged == self.damaged

    @invariant()
    def no_line_is_lost_or_mangled(self) -> None:
        content = self.path.read_bytes() if self.path.exists() else b""
        lines = [line.strip(b"\0") for line in content.split(b"\n")]
        whole = Counter(self.clean.digest_of[k] for k in lines if k in self.clean.digest_of)
        assert whole == {self.records[i].config.digest: n for i, n in (+self.kept).items()}

    def teardown(self) -> None:
        """Resumed to its end, it is the clean run."""
        try:
            self.a_process_begins()
            self.runs(list(range(NUM_RUNS)))
            assert RunStore(self.path).load() == self.clean.records
            assert self.sweeper.sweep(VALUES, False) == self.clean.sweep
        finally:
            self.folder.cleanup()


def test_any_order_of_runs_crashes_and_rivals_ends_as_one_clean_run(
    clean: Clean, second_process: SecondProcess
) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: Sweeping(clean, second_process),
        settings=settings(stateful_step_count=15, suppress_health_check=list(HealthCheck)),
    )


# --- whole sweeps ---------------------------------------------------------------------------


def swept(path: Path, listener: Listener) -> SweepResult:
    """A whole sweep, from its start."""

    def stores(digest: str) -> RunStore:
        return RunStore(path)

    prepared = prepare(setup(10), PLAN, stores=stores)
    return run_sweep(prepared, stores=stores, listener=listener, jobs=1)


class Whole:
    """A sweep that nobody disturbed."""

    def __init__(self, path: Path) -> None:
        self.result = swept(path, Listener())
        self.records = RunStore(path).load()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    undisturbed = Whole(tmp_path_factory.mktemp("whole") / "runs.jsonl")
    assert undisturbed.result.gain is not None, "it came to its last stage"
    assert undisturbed.result.rates
    return undisturbed


@FEW
@given(crashes=st.lists(st.tuples(st.integers(1, 25), a_share), min_size=1, max_size=3))
def test_a_sweep_that_crashes_again_and_again_comes_to_the_same_result(
    whole: Whole, tmp_path_factory: pytest.TempPathFactory, crashes: list[tuple[int, float]]
) -> None:
    path = tmp_path_factory.mktemp("sweep") / "runs.jsonl"
    for stop_after, part in crashes:
        with suppress(KeyboardInterrupt):
            swept(path, Listener(stop_after))
        content = path.read_bytes()
        start = content.rfind(b"\n", 0, len(content) - 1) + 1
        path.write_bytes(content[: start + round(part * (len(content) - start))])
    assert swept(path, Listener()) == whole.result
    assert RunStore(path).load() == whole.records
    listener = Listener()
    assert swept(path, listener) == whole.result
    assert listener.planned == 0


SWEEP = """
import sys
from contextlib import suppress
from pathlib import Path
from test_store_states import Listener, swept

class Waiting(Listener):
    def plan(self, total_runs, text):
        if not self.planned:  # it has read the store, and begins to train
            print("ready", flush=True)
            sys.stdin.readline()
        super().plan(total_runs, text)

with suppress(KeyboardInterrupt):
    swept(Path(sys.argv[2]), Listener(stop_after=1))  # it warms up
print(swept(Path(sys.argv[1]), Waiting()), end="")
"""


def test_two_processes_that_sweep_one_store_at_once_come_to_the_same_result(
    whole: Whole, tmp_path: Path
) -> None:
    path = tmp_path / "runs.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", SWEEP, path, tmp_path / "other.jsonl"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sys.path))},
    ) as other:  # fmt: skip
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        other.stdin.write("go\n")
        other.stdin.flush()
        result = swept(path, Listener())
        theirs = other.stdout.read()
    assert other.returncode == 0
    assert result == whole.result
    assert theirs == str(whole.result)
    store = RunStore(path)
    assert store.load() == whole.records
    assert store.num_damaged == 0
    assert path.read_bytes().count(b"\n") > len(whole.records), "both have trained"


def test_an_engine_that_was_chosen_by_measurement_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = own_nets.own(own_nets.plain_body, task=few_blobs)
    chosen = Engine("single", why="Measured.")
    monkeypatch.setattr(engines, "_by_trial", lambda *_: chosen)

    def prepared(name: str) -> Engine:
        return prepare(own, PLAN, stores=lambda _: RunStore(tmp_path / name)).engine

    assert prepared("runs.jsonl") == chosen
    monkeypatch.setattr(engines, "_by_trial", lambda *_: Engine("vmapped", why="Measured anew."))
    assert prepared("runs.jsonl") == chosen
    assert prepared("other.jsonl").kind == "vmapped"


def test_in_batches_a_resumed_sweep_differs_by_no_more_than_rounding(tmp_path: Path) -> None:
    own = own_nets.built_in(task=few_blobs, width=4, depth=2, stop=TargetLoss(0.8, max_epochs=6))
    prepared = prepare(own, PLAN, stores=lambda _: None)
    assert prepared.engine.batched

    def trained(path: Path, *parts: slice) -> dict[str, RunRecord]:
        for part in parts:
            sweeper = Sweeper.of(prepared, lambda _: RunStore(path), Listener(), 1)
            seeds = sweeper.seeds(9)
            configs = [sweeper.config(value, seed, False) for value in VALUES for seed in seeds]
            sweeper.train(configs[part], "")
        return RunStore(path).load()

    once = trained(tmp_path / "once.jsonl", slice(None))
    resumed = trained(tmp_path / "resumed.jsonl", slice(0, 5), slice(3, 11), slice(None))
    assert once.keys() == resumed.keys()
    for digest, record in once.items():
        expected, found = flat(record), flat(resumed[digest])
        assert {k: v for k, v in found.items() if not isinstance(v, float)} == {
            k: v for k, v in expected.items() if not isinstance(v, float)
        }
        numbers = {k: v for k, v in expected.items() if isinstance(v, float)}
        assert {k: found[k] for k in numbers} == pytest.approx(numbers, rel=1e-4, abs=1e-6)


def test_a_batch_that_was_cut_short_is_trained_again_whole_and_nothing_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = own_nets.built_in(width=64, depth=3, stop=TargetLoss(target_loss=0.2, max_epochs=20))
    prepared = prepare(own, PLAN, stores=lambda _: None)
    tried: list[int] = []

    def counted(
        setup: object, tasks: object, configs: Sequence[object], *rest: Any, **more: Any
    ) -> None:
        tried.append(len(configs))
        train_batch(setup, tasks, configs, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(jobs, "train_batch", counted)

    def train(name: str, num_seeds: int, listener: Listener) -> dict[str, RunRecord]:
        sweeper = Sweeper.of(prepared, lambda _: RunStore(tmp_path / name), listener, 1)
        seeds = sweeper.seeds(num_seeds)
        sweeper.train([sweeper.config(v, seed, False) for v in VALUES for seed in seeds], "")
        return RunStore(tmp_path / name).load()

    once = train("once.jsonl", 9, Listener())
    assert tried == [9, 9]
    tried.clear()
    with pytest.raises(KeyboardInterrupt):
        train("twice.jsonl", 9, Listener(stop_after=2))
    tried.clear()
    there, resumed = len(RunStore(tmp_path / "twice.jsonl").load()), Listener()
    assert there == 2
    assert train("twice.jsonl", 9, resumed) == once, "to the last bit"
    assert tried == [9, 9]
    assert resumed.planned == resumed.ended == len(once) - there, "what was there is not told again"
    assert (tmp_path / "twice.jsonl").read_bytes().count(b"\n") == len(once)
    tried.clear()
    train("twice.jsonl", 12, Listener())
    assert tried == [6], "more seeds are a batch of their own"


def flat(record: RunRecord) -> dict[str, object]:
    values = record.model_dump(exclude={"measurements"})
    return values | record.measurements
