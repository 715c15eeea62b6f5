"""Jobs in threads, in processes of this machine (loky), or on a Dask cluster.

Each job goes out as bytes and comes back as records. A process that dies in the middle of a batch of
replicas, most likely for lack of memory, leaves nothing behind: the batch is halved and goes out again.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from fls_bench.errors import FlsBenchError, InputError, RunFailedError
from fls_bench.schema import RunConfig, RunRecord
from fls_bench.training.backends import Backend, check_versions, connected, versions
from fls_bench.training.checks import exact_arithmetic, one_thread
from fls_bench.training.jobs import Batch, Work, halves, one_net_too_large, out_of_memory
from fls_bench.training_setup import in_one_line

IDLE_SECONDS = 300
"""After which a process of this machine that has nothing to do ends."""

POLL_SECONDS = 5.0
"""How often a silent cluster is looked at."""

PATIENCE_SECONDS = 600.0
"""How long a cluster may be without any worker, or without its scheduler."""

SINGLE_THREADED = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}

# --- threads --------------------------------------------------------------------------------


def in_threads(
    work: Work, batches: Sequence[Batch], keep: Callable[[RunRecord], None], jobs: int
) -> None:
    """Train batches in threads of this process.

    Args:
        work: What they share.
        batches: The batches.
        keep: Called with each record, never from two threads at once.
        jobs: Batches at a time.

    Raises:
        RunFailedError: Memory does not hold one net.
    """
    from joblib import Parallel, delayed

    tasks = None
    if work.engine.batched:
        seeds = sorted({config.seed for batch in batches for config in batch})
        tasks = {seed: work.setup.task_for(seed) for seed in seeds}
    lock, cancelled = threading.Lock(), threading.Event()
    alone: list[RunConfig] = []

    def finish(record: RunRecord) -> None:
        with lock:
            if not cancelled.is_set():
                keep(record)

    def fail(_: RunConfig) -> None:
        raise one_net_too_large(work.engine.device)

    with one_thread(), exact_arithmetic(work.engine.device):
        try:
            Parallel(n_jobs=jobs, backend="threading", batch_size=1)(
                delayed(work.train)(
                    batch, finish, fail if jobs == 1 else alone.append,
                    tasks=tasks, cancelled=cancelled,
                )
                for batch in batches
            )  # fmt: skip
            for config in alone:  # others shared the memory until now
                work.train([config], finish, fail, tasks=tasks)
        finally:
            cancelled.set()


# --- what a worker does ---------------------------------------------------------------------


@dataclass(frozen=True)
class Done:
    """What comes back of a job.

    Attributes:
        records: Of the runs that have ended.
        too_large: Runs that the worker's memory does not hold even alone.
    """

    records: tuple[RunRecord, ...]
    too_large: tuple[RunConfig, ...] = ()


def run_job(packed: bytes, batch: Batch, folders: tuple[str, ...], wanted: dict[str, str]) -> Done:
    """Train one batch in a worker, with one thread.

    Args:
        packed: The work, as ``packed`` made it.
        batch: The runs.
        folders: Where the user's modules may lie, beside the worker's own path.
        wanted: The versions of whoever asks.

    Returns:
        The records.

    Raises:
        InputError: The worker has other versions, or can't import the user's code.
    """
    import threadpoolctl

    check_versions(wanted, versions(), f"{os.uname().nodename}, process {os.getpid()}")
    work = _unpacked(packed, folders)
    threadpoolctl.threadpool_limits(1)  # for good: a worker has nothing else to do
    records: list[RunRecord] = []
    too_large: list[RunConfig] = []
    with one_thread(), exact_arithmetic(work.engine.device):
        work.train(batch, records.append, too_large.append)
    return Done(tuple(records), tuple(too_large))


def _end_with(parent: int) -> None:
    """End this process once the one that started it is gone: killed, that one can't say so."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@lru_cache(maxsize=2)
def _unpacked(packed: bytes, folders: tuple[str, ...]) -> Work:
    """The work; kept, since a setup may hold data that were drawn or read."""
    import pickle

    absent = [folder for folder in folders if not os.path.isdir(folder)]
    sys.path[:0] = [one for one in folders if one not in sys.path and one not in absent]
    try:
        work: Work = pickle.loads(packed)
    except Exception as error:
        if out_of_memory(error):
            raise
        hint = (
            "Install your package in the workers' environment, or keep it in a folder they share."
        )
        if absent:
            hint = f"There is no folder {absent[0]} (--pythonpath) on that machine. {hint}"
        raise InputError(
            f"A worker on {os.uname().nodename} can't import your setup ({in_one_line(error)}).",
            hint,
        ) from None
    return work


def packed(work: Work) -> bytes:
    """The work as bytes, its functions by name where they can be imported, else as they are.

    Raises:
        InputError: It holds what can't travel.
    """
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(work))
    except Exception as error:
        raise InputError(
            f"The setup can't be sent to another process: {in_one_line(error)}.",
            "Keep open files, locks and generators out of it, or train with --jobs 1 and no --backend.",
        ) from error


# --- pools ----------------------------------------------------------------------------------


class Pool(Protocol):
    """Where jobs are sent."""

    at_once: int
    """How many jobs it is given before one has ended."""

    def submit(self, batch: Batch, then: Callable[[Any], None]) -> None:
        """Send a job; ``then`` is called with its future, from any thread."""

    def result(self, future: Any) -> Done | None:
        """What a job brought, or None where the process that ran it died."""

    def look(self) -> None:
        """Raise where nothing can come any more."""


class _Loky:
    """Processes of this machine. One that dies takes down all that were at work beside it."""

    def __init__(self, packed: bytes, jobs: int, folders: tuple[str, ...]) -> None:
        self.at_once = jobs
        self._arguments = packed, folders, versions()

    def _executor(self) -> Any:
        from joblib.externals.loky import get_reusable_executor

        return get_reusable_executor(
            max_workers=self.at_once, timeout=IDLE_SECONDS, env=SINGLE_THREADED,
            initializer=_end_with, initargs=(os.getpid(),),
        )  # fmt: skip

    def submit(self, batch: Batch, then: Callable[[Any], None]) -> None:
        from joblib.externals.loky.process_executor import BrokenProcessPool

        packed, *others = self._arguments
        for last in (False, True):
            try:
                future = self._executor().submit(run_job, packed, batch, *others)
            except BrokenProcessPool:  # it broke between two lines of ours
                if last:
                    raise
            else:
                future.add_done_callback(then)
                return

    def result(self, future: Any) -> Done | None:
        from joblib.externals.loky.process_executor import (
            BrokenProcessPool,
            TerminatedWorkerError,
        )

        try:
            done: Done = future.result()
        except TerminatedWorkerError:
            return None
        except BrokenProcessPool as error:
            raise InputError(
                f"The setup can't be sent to another process: {in_one_line(error)}.",
                "Keep open files, locks and generators out of it, or train with --jobs 1.",
            ) from error
        return done

    def look(self) -> None:
        """The executor itself says what died."""

    def stop(self) -> None:
        self._executor().shutdown(wait=True, kill_workers=True)


@contextmanager
def _loky(work: Work, jobs: int, backend: Backend) -> Iterator[Pool]:
    pool = _Loky(packed(work), jobs, backend.folders)
    with warnings.catch_warnings():
        # A long pause between results makes loky warn that it restarts idle workers.
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs")
        try:
            yield pool
        except BaseException:
            pool.stop()
            raise


class _Dask:
    """A cluster. It has all jobs at once, so that it can grow; a lost worker's go to the others."""

    def __init__(self, client: Any, packed: bytes, folders: tuple[str, ...]) -> None:
        self.at_once = sys.maxsize
        self._client, self._others = client, (folders, versions())
        self._name, self._number = f"fls-bench-{uuid.uuid4().hex[:12]}", 0
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sending large graph")
            # As a result of its own: it travels once to each worker, and is made again if lost.
            self._packed = client.submit(bytes, packed, key=f"{self._name}-setup")
        self._open: set[Any] = set()
        self._without_workers: float | None = None
        """Since when, as far as was looked; None where there were some, or a job has come back since."""

    def submit(self, batch: Batch, then: Callable[[Any], None]) -> None:
        self._number += 1
        future = self._client.submit(
            run_job, self._packed, tuple(batch), *self._others,
            key=f"{self._name}-{self._number}", pure=False,
        )  # fmt: skip
        self._open.add(future)
        future.add_done_callback(then)

    def result(self, future: Any) -> Done | None:
        from distributed import KilledWorker

        self._open.discard(future)
        try:
            done: Done = future.result()
            self._without_workers = None
        except KilledWorker:
            return None
        except FlsBenchError:
            raise
        except ImportError as error:
            raise InputError(
                f"A worker can't use fls-bench ({in_one_line(error)}).",
                "Start workers from the environment that fls-bench itself runs in.",
            ) from None
        except Exception as error:
            # A cancelled future is a BaseException's child in no version, but of several classes.
            if future.cancelled() or future.status in ("lost", "cancelled"):
                raise _cluster_lost("The scheduler has ended, or let the jobs go") from error
            raise
        return done

    def look(self) -> None:
        if any(future.status in ("lost", "cancelled") for future in self._open):
            raise _cluster_lost("The scheduler has ended, or let the jobs go")
        there = False
        with suppress(
            OSError
        ):  # a scheduler that ends just now: its jobs will be lost, or it be silent
            there = self._client.status == "running" and bool(self._client.nthreads())
        # The clock starts here: while results came, nobody looked.
        now = time.monotonic()
        since = now if self._without_workers is None else self._without_workers
        self._without_workers = None if there else since
        if self._client.status == "closed" or (not there and now - since > PATIENCE_SECONDS):
            minutes = PATIENCE_SECONDS / 60
            raise _cluster_lost(f"The cluster has had no worker for {minutes:g} minutes")

    def stop(self) -> None:
        self._client.cancel(list(self._open), force=True)


def _cluster_lost(what: str) -> RunFailedError:
    return RunFailedError(
        f"{what}.",
        "Start scheduler and workers again: the same command goes on from finished runs.",
    )


@contextmanager
def _dask(work: Work, backend: Backend) -> Iterator[Pool]:
    assert backend.scheduler is not None
    with connected(backend.scheduler) as client:
        pool = _Dask(client, packed(work), backend.folders)
        try:
            yield pool
        except BaseException:
            pool.stop()
            raise


def in_workers(
    work: Work,
    batches: Sequence[Batch],
    keep: Callable[[RunRecord], None],
    jobs: int,
    backend: Backend,
) -> None:
    """Train batches in other processes.

    Args:
        work: What they share.
        batches: The batches, in the order in which they are begun.
        keep: Called in this thread with each record, as its batch ends.
        jobs: Processes of this machine; a cluster knows itself how many jobs it takes.
        backend: Which processes.

    Raises:
        InputError: The setup can't be sent, or the workers can't use it.
        RunFailedError: A process died with one net, memory does not hold one, or the cluster is gone.
    """
    waiting, alone = deque(batches), deque[RunConfig]()
    ended: queue.SimpleQueue[tuple[Batch, Any]] = queue.SimpleQueue()
    num_running, last_resort = 0, False
    with _dask(work, backend) if backend.kind == "dask" else _loky(work, jobs, backend) as pool:
        while waiting or num_running or alone:
            if not waiting and not num_running:  # nothing else takes memory beside it now
                waiting.append([alone.popleft()])
                last_resort, pool.at_once = True, 1
            while waiting and num_running < pool.at_once:
                batch = waiting.popleft()
                pool.submit(batch, lambda future, batch=batch: ended.put((batch, future)))  # type: ignore[misc]
                num_running += 1
            try:
                batch, future = ended.get(timeout=POLL_SECONDS)
            except queue.Empty:
                pool.look()
                continue
            num_running -= 1
            done = _brought(pool, future)
            if done is not None:
                for record in done.records:
                    keep(record)
                if done.too_large and last_resort:
                    raise one_net_too_large(work.engine.device)
                alone.extend(done.too_large)
            elif len(batch) > 1:
                waiting.extendleft(reversed(halves(batch)))
            elif last_resort:
                raise RunFailedError(
                    "A training process died, most likely for lack of memory: with one net, and with "
                    "nothing else at work.",
                    "Choose a smaller batch_size or model, or a machine with more memory; finished runs "
                    "are kept.",
                )
            else:
                alone.append(batch[0])


def _brought(pool: Pool, future: Any) -> Done | None:
    """A job's result; None where its process died, or had no memory for what surrounds the training."""
    try:
        return pool.result(future)
    except Exception as error:
        if out_of_memory(error):
            return None
        raise
