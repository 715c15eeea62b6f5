"""Memory that does not hold a batch: the batch is halved, and no run is lost or doubled."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from own_nets import Normed, built_in, config, own

from fls_bench.errors import RunFailedError
from fls_bench.schema import LrRule, RunRecord, TargetLoss
from fls_bench.training import Engine, train_all
from fls_bench.training import jobs as training_jobs
from fls_bench.training.jobs import one_net_too_large
from fls_bench.training.replicas import train_batch

RULE = LrRule(name="homogeneous", depth=2)
SETUP = built_in(stop=TargetLoss(target_loss=0.2, max_epochs=8))
CONFIGS = [config(SETUP, c=c, seed=seed) for c in (0.5, 1.0, 4.0) for seed in range(5)]
FULL = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError("Unable to allocate 2.00 GiB for an array with shape (268435456,)"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you "
        "tried to allocate 2147483648 bytes. Error code 12 (Cannot allocate memory)"
    ),
)


class Memory:
    """Holds so many replicas; records which groups were tried."""

    def __init__(self, holds: int, after: int = 0, full: Exception = FULL[0]) -> None:
        self.holds, self.after, self.full = holds, after, full
        self.tried: list[int] = []

    def __call__(
        self, setup: Any, tasks: Any, configs: Any, replicas: Any, finish: Callable[[Any], None],
        **options: Any,
    ) -> None:  # fmt: skip
        self.tried.append(len(configs))
        ended = 0

        def counted(run: Any) -> None:
            nonlocal ended
            if len(configs) > self.holds and ended >= self.after:
                raise self.full
            finish(run)
            ended += 1

        if len(configs) > self.holds and self.after == 0:
            raise self.full
        train_batch(setup, tasks, configs, replicas, counted, **options)


@cache
def undisturbed() -> dict[str, RunRecord]:
    ended: list[RunRecord] = []
    engine = Engine("vmapped", replicas=8)
    train_all(SETUP, RULE, CONFIGS, ended.append, engine=engine, jobs=1, dtype=torch.float64)
    return {record.config.digest: record for record in ended}


def trained(memory: Memory, monkeypatch: pytest.MonkeyPatch, jobs: int = 1) -> list[RunRecord]:
    ended: list[RunRecord] = []
    engine = Engine("vmapped", replicas=8)
    with monkeypatch.context() as patched:
        patched.setattr(training_jobs, "train_batch", memory)
        train_all(SETUP, RULE, CONFIGS, ended.append, engine=engine, jobs=jobs, dtype=torch.float64)
    return ended


@pytest.mark.parametrize(
    ("holds", "after", "full"), [(1, 0, FULL[0]), (3, 1, FULL[1]), (4, 3, FULL[2])]
)
def test_every_run_has_one_record_however_few_fit(
    holds: int, after: int, full: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory(holds, after, full)
    ended = trained(memory, monkeypatch, jobs=2)
    assert sorted(record.config.digest for record in ended) == sorted(k.digest for k in CONFIGS)
    assert max(memory.tried) > holds
    wanted = undisturbed()
    for record in ended:
        other = wanted[record.config.digest]
        assert (record.outcome, record.epochs) == (other.outcome, other.epochs)
        assert record.test_loss == pytest.approx(other.test_loss, rel=1e-9)


def test_a_batch_is_halved_and_not_cut_into_single_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(4)
    trained(memory, monkeypatch)
    assert memory.tried == [8, 4, 4, 7, 3, 4]


def test_where_one_net_does_not_fit_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunFailedError, match="does not hold one net") as caught:
        trained(Memory(0), monkeypatch)
    assert "smaller batch_size" in str(caught.value)
    assert "--device cpu" not in str(caught.value)
    assert "--device cpu" in one_net_too_large("cuda").remedy


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(4, full=RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        trained(memory, monkeypatch)
    assert memory.tried == [8]


def test_a_run_that_does_not_fit_beside_others_is_tried_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two jobs at a time, each with room for a net only while the other one has none."""
    busy, lock = [0], threading.Lock()

    def shared(setup: Any, tasks: Any, configs: Any, *others: Any, **options: Any) -> None:
        with lock:
            busy[0] += len(configs)
            full = busy[0] > 1
        try:
            time.sleep(0.01)
            if full:
                raise FULL[1]
            train_batch(setup, tasks, configs, *others, **options)
        finally:
            with lock:
                busy[0] -= len(configs)

    monkeypatch.setattr(training_jobs, "train_batch", shared)
    ended: list[RunRecord] = []
    engine = Engine("vmapped", replicas=2)
    train_all(SETUP, RULE, CONFIGS, ended.append, engine=engine, jobs=2, dtype=torch.float64)
    assert sorted(record.config.digest for record in ended) == sorted(k.digest for k in CONFIGS)


def test_the_last_run_of_a_batch_is_tried_alone_before_it_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seven of eight have ended: what is left had shared the memory until then."""
    memory = Memory(1, after=7)
    assert len(trained(memory, monkeypatch)) == len(CONFIGS)
    assert memory.tried[:2] == [8, 1]


def test_one_by_one_it_is_no_failure_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training_jobs, "train_single", full)
    setup, ended = own(lambda: Normed(0.5)), []
    with pytest.raises(RunFailedError, match="does not hold one net"):
        train_all(setup, RULE, [config(setup)], ended.append, engine=Engine("single"), jobs=1)
    assert not ended
