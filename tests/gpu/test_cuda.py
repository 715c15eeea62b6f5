"""Training on a GPU: the same nets as on the CPU, within rounding, in the memory that there is.

Tolerances: sums are added up in another order on a GPU, so that every product differs in its last
digits (1e-16 in float64, 6e-8 in float32), and training lets differences grow. The bounds, 1e-8 in
float64 and 1e-2 in float32 after ten epochs of five small steps, leave room for that and are still
far below what a wrong step gives. No GPU has run them yet.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import own_nets
import pytest
import torch
from own_nets import built_in, config, distance, images, in_one_batch, own, rule_of
from torch import nn

from fls_bench import models
from fls_bench.errors import RunFailedError
from fls_bench.schema import AdamW, Cosine, LrRule, Outcome, RunRecord, Sgd, TargetLoss
from fls_bench.training import Engine, choose_engine, engines, train_all, train_one
from fls_bench.training.replicas import train_batch
from fls_bench.training.runs import TrainedRun, seeded
from fls_bench.training.single import train_single
from fls_bench.training_setup import TrainingSetup

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="no CUDA device, or torch is built without CUDA"
    ),
]
RULE = LrRule(name="calibrated", depth=2)
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-2}
STOP = TargetLoss(target_loss=1e-9, max_epochs=10)


def image_net(name: str, **arguments: Any) -> Callable[[int], nn.Module]:
    sized = {**models.architecture(name).sized((1, 8, 8), 3), **arguments}
    return lambda seed: models.build(name, sized, seed=seed)


SETUPS: dict[str, TrainingSetup] = {
    "mlp": built_in(depth=3, bias=True, stop=STOP, optimizer=Sgd(schedule=Cosine())),
    "two_layer": built_in("two_layer", loss="logistic", stop=STOP),
    "momentum": built_in(depth=3, stop=STOP, optimizer=Sgd(momentum=0.5, clip_norm=0.5)),
    "batch norm": own(lambda: own_nets.Normed(0.0), stop=STOP, optimizer=Sgd(weight_decay=0.01)),
    "cnn": own(
        image_net("cnn", width=4, depth=2), task=images, stop=STOP, augmentation=("flip", "crop"),
        optimizer=AdamW(lr=0.003, epsilon=1e-4),
    ),
    "resnet": own(image_net("resnet", width=2), task=images, stop=STOP, label_smoothing=0.1),
    "vit": own(
        image_net("vit", dim=8, depth=1, heads=2), task=images, stop=STOP, loss="mse",
        optimizer=AdamW(lr=0.003, epsilon=1e-4, weight_decay=0.1),
    ),
}  # fmt: skip
FUSED = ("mlp", "two_layer")


def some(setup: TrainingSetup) -> list[Any]:
    return [
        config(setup, c=0.5, lr=0.02),
        config(setup, c=1.0, lr=0.01, seed=1, centered=True, max_epochs=6),
        config(setup, c=2.0, lr=0.005, seed=1, init_scale=1.2),
    ]


def close(run: TrainedRun, wanted: TrainedRun, dtype: torch.dtype) -> None:
    assert (run.outcome, run.epochs) == (wanted.outcome, wanted.epochs)
    assert run.train_loss == pytest.approx(wanted.train_loss, rel=TOLERANCE[dtype])
    assert all(value.device.type == "cpu" for value in (*run.init.values(), *run.final.values()))
    assert distance(dict(run.init), dict(wanted.init)) == 0
    assert distance(dict(run.final), dict(wanted.final)) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", SETUPS)
def test_every_engine_gives_on_a_gpu_what_the_plain_loop_gives_on_the_cpu(
    name: str, dtype: torch.dtype
) -> None:
    setup = SETUPS[name]
    configs, rule = some(setup), rule_of(setup)
    wanted = {
        one.digest: train_single(setup, rule, setup.task_for(one.seed), one, dtype=dtype)
        for one in configs
    }
    for one in configs:
        run, record = train_one(setup, rule, one, dtype=dtype, device=DEVICE)
        close(run, wanted[one.digest], dtype)
        assert record.test_loss is not None
    with engines.exact_arithmetic(DEVICE):
        for kind in ("fused", "vmapped") if name in FUSED else ("vmapped",):
            for run in in_one_batch(setup, configs, dtype, rule, kind, DEVICE):  # type: ignore[arg-type]
                close(run, wanted[run.config.digest], dtype)


def trained(setup: TrainingSetup, engine: Engine, configs: list[Any]) -> list[RunRecord]:
    ended: list[RunRecord] = []
    train_all(setup, RULE, configs, ended.append, engine=engine, jobs=4)
    by_digest = {record.config.digest: record for record in ended}
    assert len(ended) == len(by_digest) == len(configs)
    return [by_digest[one.digest] for one in configs]


@pytest.mark.parametrize("kind", ["vmapped", "single"])
def test_the_same_runs_give_the_same_records(kind: Any) -> None:
    setup = SETUPS["resnet"]
    first, second = (trained(setup, Engine(kind, DEVICE), some(setup)) for _ in range(2))
    assert first == second


def test_dropout_on_a_gpu_follows_the_seed_and_leaves_the_random_state_alone() -> None:
    setup = own(own_nets.normed, stop=STOP)
    torch.rand(3, device=DEVICE)  # CUDA is at work from here on
    state = torch.cuda.get_rng_state()
    first = train_one(setup, RULE, config(setup), device=DEVICE)[0]
    assert torch.equal(state, torch.cuda.get_rng_state())
    torch.rand(7, device=DEVICE)
    again, other = (train_one(setup, RULE, config(setup, seed=s), device=DEVICE)[0] for s in (0, 1))
    assert distance(dict(first.final), dict(again.final)) == 0
    assert distance(dict(first.final), dict(other.final)) > 0
    with seeded(3):
        one = torch.rand(3, device=DEVICE)
    with seeded(3):
        assert torch.equal(one, torch.rand(3, device=DEVICE))


def test_a_whole_diagnosis_runs_on_it(cli: Any, tmp_path: Any) -> None:
    file, report = tmp_path / "tiny.pt", tmp_path / "report.json"
    sizes = ["--n-train", "50", "--depth", "2", "--width", "8", "--max-epochs", "30"]
    assert cli("train", "-o", file, "-q", "--device", DEVICE, *sizes).code == 0
    ended = cli(
        "diagnose", file, "--device", DEVICE, "--no-store", "--quiet", "--max-seeds", "6",
        "--max-epochs", "30", "--json", report,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    found = json.loads(report.read_text())
    assert found["diagnosis"]["regime"]
    assert found["provenance"]["device"].startswith(DEVICE)
    assert len(found["sweep"]["cells"]) >= 5


# --- memory ---------------------------------------------------------------------------------


def wide(stop: TargetLoss = STOP) -> TrainingSetup:
    """Some 17 MB of weights a replica, and as much again for gradients and momentum each."""
    return own(
        lambda: nn.Sequential(
            nn.Linear(own_nets.INPUT_DIM, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU(),
            nn.Linear(2048, 3),
        ),
        optimizer=Sgd(lr=0.01, momentum=0.5), stop=stop,
    )  # fmt: skip


def test_a_batch_is_as_large_as_the_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "TRIAL_SECONDS", 0.01)
    monkeypatch.setattr(engines, "MIN_RATIO", 0.0)
    setup = wide()
    free, total = torch.cuda.mem_get_info()
    engine = choose_engine(setup, RULE, DEVICE)
    assert engine.kind == "vmapped", engine.why
    assert 1 <= engine.replicas <= engines.MAX_REPLICAS_ON_GPU
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free // 1000, total))
    assert choose_engine(setup, RULE, DEVICE).replicas <= max(1, engine.replicas // 10)
    # As many as it says do fit.
    short = wide(TargetLoss(target_loss=1e-9, max_epochs=1))
    configs = [config(short, seed=row % 3, c=1 + row / 100) for row in range(engine.replicas)]
    data = {seed: short.task_for(seed) for seed in range(3)}
    runs: list[TrainedRun] = []
    nets = engine.make(short, RULE, configs)
    train_batch(short, data, configs, nets, runs.append, device=DEVICE)
    assert len(runs) == engine.replicas


@pytest.fixture
def little_memory() -> Iterator[Callable[[int], None]]:
    total = torch.cuda.get_device_properties(0).total_memory

    def limit(size: int) -> None:
        torch.cuda.empty_cache()
        used = torch.cuda.memory_reserved()
        torch.cuda.set_per_process_memory_fraction(min(1.0, (used + size) / total))

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def test_a_batch_that_does_not_fit_is_halved(little_memory: Callable[[int], None]) -> None:
    setup = wide(TargetLoss(target_loss=1e-9, max_epochs=2))
    configs = [config(setup, seed=seed % 2, c=1 + seed / 10, lr=0.01) for seed in range(16)]
    wanted = trained(setup, Engine("vmapped", DEVICE, 2), configs)
    little_memory(600 * 2**20)  # 16 replicas take over 800 MiB, two some 150
    found = trained(setup, Engine("vmapped", DEVICE, 16), configs)
    for one, other in zip(found, wanted, strict=True):
        assert one.outcome is other.outcome is not Outcome.FAILED
        assert one.test_loss == pytest.approx(other.test_loss, rel=1e-3)


@pytest.mark.parametrize("kind", ["vmapped", "single"])
def test_where_one_net_does_not_fit_it_is_said(
    kind: Any, little_memory: Callable[[int], None]
) -> None:
    setup = wide()
    little_memory(8 * 2**20)
    with pytest.raises(RunFailedError, match="does not hold one net"):
        trained(setup, Engine(kind, DEVICE), [config(setup), config(setup, seed=1)])
