"""Batches in processes of this machine and on a Dask cluster: the same records, whoever dies."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import own_nets
import pytest
import torch
from own_nets import RULE, built_in, config
from travelling import Hungry, Telling, threads_of

import fls_bench
from fls_bench.errors import InputError, RunFailedError, UnsafeFileError
from fls_bench.schema import RunConfig, RunRecord, TargetLoss
from fls_bench.sweep import SweepPlan, prepare
from fls_bench.sweep.search import keeping_tasks
from fls_bench.training import Backend, Engine, backends, find_backend, pools, train_all
from fls_bench.training.backends import check_versions, versions
from fls_bench.training_setup import TrainingSetup

Cli = Callable[..., Any]
SETUP = built_in(width=64, depth=3, stop=TargetLoss(target_loss=0.2, max_epochs=20))
CONFIGS = [config(SETUP, c=c, seed=seed) for c in (0.5, 1.0, 4.0) for seed in range(4)]
FUSED = Engine("fused", replicas=4)
LOKY = Backend("loky")
FOLDERS = (str(Path(own_nets.__file__).parent),)
# For other processes: the fls_bench that is tested here, and no folder of the tests.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(fls_bench.__file__).parents[1])}


def trained(
    backend: Backend,
    engine: Engine = FUSED,
    jobs: int = 2,
    setup: TrainingSetup = SETUP,
    **more: Any,
) -> list[RunRecord]:
    """In the order of their configurations; each run has one record."""
    ended: list[RunRecord] = []
    configs: Sequence[RunConfig] = more.pop("configs", CONFIGS)
    train_all(
        setup, RULE, configs, ended.append, engine=engine, jobs=jobs, backend=backend, **more
    )  # fmt: skip
    by_digest = {record.config.digest: record for record in ended}
    assert len(by_digest) == len(ended)
    return [by_digest[one.digest] for one in configs]


@pytest.fixture(scope="module")
def here() -> list[RunRecord]:
    """By threads of this process."""
    return trained(Backend())


# --- processes of this machine --------------------------------------------------------------


def test_processes_give_the_records_of_threads_bit_for_bit_and_have_one_thread_each(
    here: list[RunRecord],
) -> None:
    # As a sweep hands it over: with the draws of its data kept, which stay where they are.
    setup = keeping_tasks(SETUP, FUSED)
    assert setup.task_for(0) is setup.task_for(0)
    assert trained(LOKY, setup=setup) == here
    found = [record.measurements for record in trained(LOKY, observe=threads_of)]
    assert {one["torch"] for one in found} == {one["others"] for one in found} == {1}
    assert os.getpid() not in {one["process"] for one in found}


def test_a_process_that_is_killed_with_a_batch_is_given_its_halves(here: list[RunRecord]) -> None:
    found = trained(LOKY, Hungry("fused", replicas=4), jobs=1, configs=CONFIGS[:4])
    for record, other in zip(found, here[:4], strict=True):
        assert (record.outcome, record.epochs) == (other.outcome, other.epochs)
        assert record.test_loss == pytest.approx(other.test_loss, rel=1e-4)


def test_a_job_keeps_its_one_thread_when_one_beside_it_ends() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    inside, leave, found = threading.Event(), threading.Event(), list[int]()

    def other() -> None:
        with pools.one_thread():
            inside.set()
            leave.wait()
            found.append(torch.get_num_threads())

    thread = threading.Thread(target=other)
    try:
        with pools.one_thread():
            thread.start()
            inside.wait()
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        leave.set()
        thread.join()
        assert found == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


OUT_OF_MEMORY = """
import resource, sys
import torch
from own_nets import RULE, built_in, config
from travelling import Hungry, Telling, threads_of
from fls_bench.schema import Sgd, TargetLoss
from fls_bench.training import Engine, jobs, train_all

torch.set_num_threads(1)
wide = built_in(width=1200, depth=3, stop=TargetLoss(target_loss=1e-9, max_epochs=1))
runs = [config(wide, seed=seed, max_epochs=1) for seed in range(8)]
tried, train = [], jobs.Work.train

def told(self, batch, *others, **options):
    tried.append(len(batch))
    return train(self, batch, *others, **options)

jobs.Work.train = told
ended = []
small = built_in()
train_all(small, RULE, [config(small)], ended.append, engine=Engine("fused"), jobs=1)  # all is loaded
tried.clear(), ended.clear()
pages = int(open("/proc/self/statm").read().split()[0])
room = int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room,) * 2)
try:
    train_all(wide, RULE, runs, ended.append, engine=Engine("fused", replicas=8), jobs=1)
except Exception as error:
    print(type(error).__name__, error)
print(tried, len({record.config.digest for record in ended}), len(ended))
"""


def out_of_memory(megabytes: int) -> str:
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, str(megabytes)],
        env={**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([ENVIRONMENT["PYTHONPATH"], *FOLDERS])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and RLIMIT_AS")
def test_where_the_system_gives_no_more_memory_smaller_batches_go_on() -> None:
    """A net of this test has 5.8 MB, and as much again for what is made of it."""
    tried = out_of_memory(100)
    assert tried.startswith("[8, 4"), tried
    assert tried.endswith("8 8"), tried


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and RLIMIT_AS")
def test_where_the_system_has_no_memory_for_one_net_it_is_said() -> None:
    said = out_of_memory(10)
    assert said.startswith("RunFailedError Memory does not hold one net"), said
    assert "[8, 4, 2, 1]" in said


def test_errors_of_ours_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(UnsafeFileError("It is bad.", "Take another.")))
    assert isinstance(error, UnsafeFileError)
    assert (error.problem, error.remedy) == ("It is bad.", "Take another.")


def test_one_gpu_is_not_shared_by_processes() -> None:
    with pytest.raises(InputError, match="one GPU takes one batch"):
        prepare(SETUP, SweepPlan(), stores=lambda _: None, device="cuda", backend=LOKY)


# --- a Dask cluster -------------------------------------------------------------------------


class Cluster:
    """A scheduler and workers, each a process of its own, as the command line starts them."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder, self.file = folder, folder / "scheduler.json"
        self.environment = {**ENVIRONMENT, **settings}
        self.processes: list[subprocess.Popen[bytes]] = []
        self.scheduler = self.start(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
            "--scheduler-file", str(self.file),
        )  # fmt: skip
        wait_for(self.file.exists)

    @property
    def address(self) -> str:
        address: str = json.loads(self.file.read_text())["address"]
        return address

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{len(self.processes)}.log").open("wb")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments], env=self.environment,
                cwd=self.folder, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def worker(self, *options: str) -> subprocess.Popen[bytes]:
        return self.start(
            "worker", self.address, "--nthreads", "1", "--no-dashboard",
            "--local-directory", str(self.folder), *(options or ("--no-nanny",)),
        )  # fmt: skip

    def backend(self, num_workers: int) -> Backend:
        """Found when so many workers are there."""
        with backends.connected(self.address) as client:
            client.wait_for_workers(num_workers, timeout=120)
            used = client.run(eval, "__import__('fls_bench').__file__")
        assert set(used.values()) == {fls_bench.__file__}
        return find_backend("dask", self.address, FOLDERS)

    def close(self) -> None:
        for process in self.processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for process in self.processes:
            process.wait()


def wait_for(there: Any, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def a_cluster(folder: Path, **settings: str) -> Iterator[Cluster]:
    cluster = Cluster(folder, **settings)
    try:
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler; whoever uses it starts workers, which stay."""
    pytest.importorskip("distributed")
    with a_cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


def test_a_worker_that_is_lost_in_the_middle_changes_nothing(
    cluster: Cluster, here: list[RunRecord], tmp_path: Path
) -> None:
    cluster.worker(), cluster.worker()
    workers = {process.pid: process for process in cluster.processes[1:] if process.poll() is None}
    where = cluster.backend(len(workers))
    assert where.slots == len(workers)
    found: list[RunRecord] = []
    thread = threading.Thread(
        target=lambda: found.extend(trained(where, observe=Telling(tmp_path, 60.0)))
    )
    thread.start()
    wait_for(lambda: any(tmp_path.iterdir()))
    first = min(tmp_path.iterdir()).name
    lost = int(first.rpartition("-")[2])
    workers[lost].kill()
    thread.join(timeout=50)
    assert found == [
        record.model_copy(update={"measurements": {"c": record.config.c}}) for record in here
    ]
    by_whom = {int(path.name.rpartition("-")[2]) for path in tmp_path.iterdir()}
    assert by_whom > {lost}, "others did what the lost one had begun"
    # Threads: a worker without a nanny is given its number by nobody but the job.
    assert {(r.measurements["torch"], r.measurements["others"]) for r in trained(
        where, observe=threads_of
    )} == {(1, 1)}  # fmt: skip


OWN_SETUP = """
import own_nets
from fls_bench.schema import Sgd, TargetLoss

def build(seed):
    return own_nets.plain_body()

def setup():
    stop = TargetLoss(target_loss=0.3, max_epochs=20)
    return own_nets.own(build, stop=stop, optimizer=Sgd(lr=0.1))
"""


@pytest.mark.slow
def test_a_command_reports_the_same_from_a_cluster_and_from_its_folder_alone_comes_the_code(
    cluster: Cluster, tmp_path: Path
) -> None:
    """The command line; ``--pythonpath`` reaches the workers; one is killed meanwhile."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "my_setup_of_tests.py").write_text(OWN_SETUP)
    (folder / "own_nets.py").write_text(Path(own_nets.__file__).read_text())

    def command(name: str, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                sys.executable, "-m", "fls_bench", "diagnose", "--setup",
                "my_setup_of_tests:setup", "--pythonpath", str(folder), "--max-seeds", "6",
                "--budget", "10h", "--jobs", "2", "--device", "cpu", "--store",
                str(tmp_path / name), "--json", str(tmp_path / f"{name}.json"), *options,
            ],
            env=ENVIRONMENT, text=True, cwd=tmp_path,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    alone = command("alone")
    said, _ = alone.communicate()
    assert alone.returncode == 0, said
    cluster.worker()
    lost = cluster.worker()
    cluster.backend(2)
    shared = command("shared", "--backend", "dask", "--scheduler", str(cluster.file))
    wait_for(lambda: any((tmp_path / "shared").glob("*.jsonl")))
    lost.kill()
    said, _ = shared.communicate()
    assert shared.returncode == 0, said
    reports = []
    for name in ("alone", "shared"):
        value = json.loads((tmp_path / f"{name}.json").read_text())
        reports.append((value.pop("provenance")["extra"].get("backend"), value))
    assert [where for where, _ in reports] == [None, "dask"]
    assert reports[0][1] == reports[1][1]


@pytest.mark.slow
def test_a_worker_that_memory_kills_is_given_halves_and_one_net_that_kills_is_said(
    tmp_path: Path, here: list[RunRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers under a nanny, which starts them again; each death counts at once."""
    pytest.importorskip("distributed")
    with a_cluster(tmp_path, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as own:
        own.worker("--nanny")
        where = own.backend(1)
        found = trained(where, Hungry("fused", replicas=4))
        for record, other in zip(found, here, strict=True):
            assert (record.outcome, record.epochs) == (other.outcome, other.epochs)
        with pytest.raises(RunFailedError, match="process died"):
            trained(where, Hungry("fused", replicas=4, most=0), configs=CONFIGS[:2])
        # A scheduler that ends takes the jobs with it.
        monkeypatch.setattr(pools, "POLL_SECONDS", 0.2)
        monkeypatch.setattr(pools, "PATIENCE_SECONDS", 2.0)
        told = tmp_path / "told"
        told.mkdir()
        raised: list[BaseException] = []

        def train() -> None:
            try:
                trained(where, observe=Telling(told, 60.0))
            except RunFailedError as error:
                raised.append(error)

        thread = threading.Thread(target=train)
        thread.start()
        wait_for(lambda: any(told.iterdir()))
        own.scheduler.kill()
        thread.join(timeout=60)
        assert raised
        assert "goes on from finished runs" in str(raised[0])


def test_code_that_a_worker_can_not_import_is_refused_with_the_reason(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.worker()
    where = cluster.backend(1)
    (tmp_path / "module_of_mine.py").write_text(OWN_SETUP)
    monkeypatch.syspath_prepend(tmp_path)
    import module_of_mine  # type: ignore[import-not-found]

    setup = module_of_mine.setup()
    with pytest.raises(InputError, match="module_of_mine"):
        trained(where, Engine("vmapped"), setup=setup, configs=[config(setup)])
    elsewhere = replace(where, folders=("/there/is/no/such/folder",))
    with pytest.raises(InputError, match="no folder /there/is/no/such/folder") as caught:
        trained(elsewhere, Engine("vmapped"), setup=setup, configs=[config(setup)])
    assert "can't import your setup" in caught.value.problem
    there = replace(where, folders=(*FOLDERS, str(tmp_path)))
    assert len(trained(there, Engine("vmapped"), setup=setup, configs=[config(setup)])) == 1
    # And one with other versions, whose numbers might be others.
    monkeypatch.setattr(pools, "versions", lambda: versions() | {"torch": "1.0"})
    with pytest.raises(InputError, match="has torch"):
        trained(where)
    # That is known before the first job, too.
    monkeypatch.setattr(backends, "__version__", "0.0.0")
    with pytest.raises(InputError, match=r"has fls-bench .*, and this process 0\.0\.0"):
        find_backend("dask", cluster.address)


class FewWorkers:
    """What a pool asks of a client, with as many workers as its test says."""

    status = "running"

    def __init__(self) -> None:
        self.workers: dict[str, int] = {"one": 1}

    def nthreads(self) -> dict[str, int]:
        return self.workers

    def submit(self, *_: Any, **__: Any) -> Future[pools.Done]:
        future: Future[pools.Done] = Future()
        future.set_result(pools.Done(()))
        return future


def test_a_cluster_is_given_up_only_after_ten_minutes_in_which_nobody_saw_a_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("distributed")
    now = 0.0
    monkeypatch.setattr(pools, "time", SimpleNamespace(monotonic=lambda: now))
    client = FewWorkers()
    pool = pools._Dask(client, b"", ())
    now = 700.0  # results came all the time, and nobody looked
    client.workers = {}
    pool.look()
    now = 1290.0
    pool.look()
    pool.result(client.submit())
    now = 1310.0  # a worker was there in between, as a result tells
    pool.look()
    now = 1900.0
    pool.look()
    client.workers = {"one": 1}
    pool.look()
    client.workers = {}
    now = 1920.0  # and here, as the last look told
    pool.look()
    now = 2521.0
    with pytest.raises(RunFailedError, match="no worker for 10 minutes"):
        pool.look()


def test_versions_that_differ_are_refused() -> None:
    check_versions(versions(), versions(), "here")
    with pytest.raises(InputError, match=r"The worker w has numpy 1\.0, and this"):
        check_versions(versions(), versions() | {"numpy": "1.0"}, "w")


def test_a_scheduler_without_workers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(backends, "CONNECT_SECONDS", 1)
    with a_cluster(tmp_path) as own, pytest.raises(InputError, match="has no workers"):
        find_backend("dask", str(own.file))


@pytest.mark.parametrize(
    ("kind", "scheduler", "problem"),
    [
        ("dask", "tcp://127.0.0.1:1", "No Dask scheduler answers at tcp://127.0.0.1:1"),
        ("dask", "nonsense://here", "No Dask scheduler answers"),
        ("dask", "sched.json", "'sched.json': there is no such file, and it is not an address"),
        ("dask", "127.0.0.1", "'127.0.0.1': there is no such file, and it is not an address"),
        ("dask", "127.0.0.1:1", "No Dask scheduler answers at 127.0.0.1:1"),
        ("dask", None, "needs the address of a scheduler"),
        ("loky", "tcp://127.0.0.1:1", "--scheduler goes with --backend dask"),
        ("auto", "tcp://127.0.0.1:1", "--scheduler goes with --backend dask"),
        ("threads", None, "There is no backend 'threads'"),
    ],
)
def test_what_can_not_be_used_is_said_within_seconds(
    kind: str, scheduler: str | None, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "CONNECT_SECONDS", 1)
    with pytest.raises(InputError, match=problem):
        find_backend(kind, scheduler)


@pytest.mark.parametrize(
    "line",
    ["run quick", "diagnose m.pt", "tune m.pt", "check quick", "calibrate --survey atlas --force"],
)
def test_every_command_that_trains_takes_a_backend(
    line: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "CONNECT_SECONDS", 1)
    ended = cli(*line.split(), "--backend", "dask", "--scheduler", "tcp://127.0.0.1:1")
    assert ended.code == 2
    assert "No Dask scheduler answers" in ended.err
    assert "dask scheduler" in ended.err


def test_the_reading_is_fitted_here(cli: Cli) -> None:
    ended = cli("calibrate", "--backend", "loky")
    assert ended.code == 2
    assert "--backend goes with --survey" in ended.err


def test_a_file_that_no_scheduler_wrote_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scheduler.json"
    path.write_text('{"addresses": []}')
    with pytest.raises(InputError, match="not one that a scheduler wrote"):
        find_backend("dask", str(path))


def test_without_distributed_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'fls-bench\[dask\]'"):
        find_backend("dask", "tcp://127.0.0.1:1")
