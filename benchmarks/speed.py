"""Timings, compared in one run on one machine, as ratios where there is something to compare with.

    python benchmarks/speed.py             # all of it
    python benchmarks/speed.py watching    # one part of it

Prints one line per figure with the number of repetitions, the median and the range.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import threadpoolctl
import torch
from error_rates import Silent
from scipy.stats import binom
from torch import nn

from fls_bench import Watch, facts, models, record, report
from fls_bench.bench import Options
from fls_bench.scaling import format_multiplier
from fls_bench.schema import ArchitectureSpec, LrRule, Recipe, RunConfig, Sgd, TargetLoss
from fls_bench.subject import built_in_setup
from fls_bench.sweep import SweepPlan, prepare, tune, tune_plan
from fls_bench.sweep.follow_up import best_rate
from fls_bench.sweep.sweeper import Sweeper
from fls_bench.tasks import task_source
from fls_bench.training import choose_engine, setup_digest, train_all
from fls_bench.training.checks import one_thread
from fls_bench.training_setup import TrainingSetup
from fls_bench.verdict import contrasts, regime

REPEATS = 3
RECORDINGS, LARGE_RECORDINGS, FRAMEWORK_PAIRS, LOOKS = 300, 9, 30, 7
NUM_NETS, EPOCHS = 48, 20
SIZES = {"input_dim": 64, "n_outputs": 10, "depth": 4, "width": 128}


def timed(action: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def line(name: str, values: list[float], unit: str, target: str) -> None:
    """Print median and range of one figure."""
    median = statistics.median(values)
    print(
        f"{name:<58} {median:8.2f} {unit}  (min {min(values):.2f}, max {max(values):.2f}, "
        f"n = {len(values)}; target {target})",
        flush=True,
    )


def plain_loop() -> None:
    """The nets of ``batched`` one after another: torch.nn, torch.optim.SGD, the same stop check."""
    task = task_source("digits", {"n_train": 400})(0)
    x, y = torch.as_tensor(task.x_train), torch.as_tensor(task.y_train)
    for seed in range(NUM_NETS):
        net = models.build("mlp", SIZES, seed=seed)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.001)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(EPOCHS):
            for picked in torch.randperm(len(y), generator=generator).split(25):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x[picked]), y[picked]).backward()
                optimizer.step()
            with torch.no_grad():
                if nn.functional.cross_entropy(net(x), y).item() <= 1e-9:
                    break


def batched() -> None:
    """The same work by the engine, recording of errors and metrics included."""
    setup = TrainingSetup(
        make_model=lambda seed: models.build("mlp", SIZES, seed=seed),
        task=task_source("digits", {"n_train": 400})(0),
        optimizer=Sgd(lr=0.001),
        stop=TargetLoss(target_loss=1e-9, max_epochs=EPOCHS),
        architecture=ArchitectureSpec(name="mlp", arguments=SIZES),
    )
    rule = LrRule(name="homogeneous", depth=4)
    digest = setup_digest(setup, rule)
    configs = [
        RunConfig(
            setup_digest=digest, c=1.0, init_scale=1.0, lr=0.001, seed=seed, centered=False,
            max_epochs=EPOCHS,
        )
        for seed in range(NUM_NETS)
    ]  # fmt: skip
    engine = choose_engine(setup, rule)
    train_all(setup, rule, configs, lambda record: None, engine=engine, jobs=joblib.cpu_count())


def command(*arguments: str) -> Callable[[], object]:
    """A whole process of fls-bench, as a user starts it."""
    words = [sys.executable, "-m", "fls_bench", *arguments]
    return lambda: subprocess.run(words, check=True, capture_output=True)


def tuning_costs() -> None:
    """Replica-epochs of ``tune`` against a full grid of c, both with the rates tuned at both ends.

    The grid has log2 c = -9 .. 6 and at every c the seeds of the tuning's last round; so have its
    rates, in factors of 2 outward, at the setup's own c and at c*. The verification is the same for
    both and left out.
    """
    for log2_c in (-9, 0, 3):
        setup = built_in_setup(
            "mlp",
            {"depth": 4, "width": 128},
            task_source("digits", {"n_train": 150}),
            Recipe(stop=TargetLoss(target_loss=0.1, max_epochs=300)),
            base_lr=0.1,
            output_multiplier=2.0**log2_c,
        )
        searches, with_rates, gains, places, inside = [], [], [], [], 0
        for seed in range(REPEATS):
            options = Options(listener=Silent(), seed=seed)
            plan = tune_plan(options.plan(), confirm=10)
            prepared = prepare(setup, plan, stores=lambda _: None)
            found = tune(prepared, stores=lambda _: None, listener=Silent(), jobs=options.num_jobs)
            grid_plan = SweepPlan(seeds=plan.seeds[-1:], first_seed=plan.first_seed)
            grid = Sweeper.of(
                prepare(setup, grid_plan, stores=lambda _: None),
                lambda _: None, Silent(), options.num_jobs,
            )  # fmt: skip
            values = [2.0**k for k in range(-9, 7)]
            grid.visit(values, grid_plan.seeds[0], False, "grid")
            searched = grid.replica_epochs
            star = regime.c_star(contrasts.table(grid.sweep(values, False)), grid.c0)
            for end in {grid.c0, star.value}:
                best_rate(grid, end)
            tuning = found.tuning
            assert tuning.c_star is not None
            assert star.low is not None
            assert star.high is not None
            spent = tuning.search_replica_epochs
            searches.append(spent / searched)
            with_rates.append((spent + tuning.rates_replica_epochs) / grid.replica_epochs)
            inside += star.low <= tuning.c_star.value <= star.high
            gains.append(0.0 if tuning.gain_in_all is None else tuning.gain_in_all.value)
            places.append(
                f"{format_multiplier(tuning.c_star.value)}, grid {format_multiplier(star.value)}"
            )
        name = f"c = {format_multiplier(2.0**log2_c)}"
        line(f"tune / full grid from {name}, search", searches, "x", "0.25 x")
        line(f"tune / full grid from {name}, with rates", with_rates, "x", "0.25 x")
        line(f"verified gain of tune from {name}", gains, "points", "-")
        print(
            f"  c* {'; '.join(places)}; in the grid's interval in {inside} of {REPEATS}", flush=True
        )


def invariants() -> None:
    """``fls-bench invariants`` with its 20 draws, start of Python included, and an idle plugin."""
    sized = "--depth", "4", "--width", "128", "--n-train", "150"
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "model.pt")
        command("train", "--task", "digits", *sized, "--max-epochs", "2", "-o", file)()
        run = command("invariants", file, "--quiet")
        seconds = [timed(run) for _ in range(REPEATS)]
        line("fls-bench invariants, digits, 4 layers of 128", seconds, "s", "-")
        (Path(folder) / "test_nothing.py").write_text("def test_nothing():\n    pass\n")

        def tests(*options: str) -> float:
            words = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", folder, *options]
            return timed(lambda: subprocess.run(words, check=True, capture_output=True))

        tests()
        pairs = [(tests(), tests("-p", "no:fls_bench")) for _ in range(5 * REPEATS)]
        line(
            "pytest of one empty test, with / without the plugin",
            [a / b for a, b in pairs],
            "x",
            "1 x",
        )


def recording() -> None:
    """A plain loop of small steps with and without ``record`` around it, and what start and end cost."""
    task = task_source("digits", {"n_train": 400})(0)
    x, y = torch.as_tensor(task.x_train), torch.as_tensor(task.y_train)
    ends: list[float] = []

    def loop(recorded: bool, path: Path) -> float:
        net = models.build("mlp", SIZES, seed=0)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.001)
        start = time.perf_counter()
        run = record(net, path, optimizer=optimizer, force=True) if recorded else None
        began = time.perf_counter()
        for _ in range(EPOCHS):
            for picked in torch.arange(len(y)).split(25):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x[picked]), y[picked]).backward()
                optimizer.step()
            if run is not None:
                run.log(1.0)
        ended = time.perf_counter()
        if run is not None:
            run.save()
            ends.append((began - start) + (time.perf_counter() - ended))
        return ended - began

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.pt"
        loop(True, path)
        ends.clear()
        ratios = []
        for k in range(RECORDINGS):  # which comes first alternates
            first, second = loop(k % 2 == 0, path), loop(k % 2 == 1, path)
            ratios.append(first / second if k % 2 == 0 else second / first)
    line("a loop with / without record, between its calls", ratios, "x", "1.01 x")
    low, high = sign_test_interval(ratios)
    middle = statistics.median(ratios)
    print(f"  median {middle:.4f}, 95 % interval {low:.4f} to {high:.4f}", flush=True)
    line("record: the copy at the start and the file at the end", ends, "s", "-")


def large_recording() -> None:
    """What ``record`` costs at the start and at the end for a net of a ResNet-18's size."""
    net = models.build("resnet18", {"input_shape": (3, 32, 32), "n_outputs": 10}, seed=0)
    starts, stops = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(LARGE_RECORDINGS):
            optimizer = torch.optim.SGD(net.parameters(), lr=0.001)
            began = time.perf_counter()
            run = record(net, Path(folder) / "m.pt", optimizer=optimizer, force=True)
            kept = time.perf_counter()
            run.save()
            stops.append(time.perf_counter() - kept)
            starts.append(kept - began)
            run.close()
    size = sum(p.numel() for p in net.parameters()) / 1e6
    line(f"record, a net of {size:.1f} M parameters: the copy at the start", starts, "s", "0.2 s")
    line(f"record, a net of {size:.1f} M parameters: the file at the end", stops, "s", "0.2 s")


def watching() -> None:
    """A look at a net in training, and beside it one evaluation of the same 400 points.

    In one thread: several wait for each other by spinning, and where other work takes their cores, what
    is measured is the waiting.
    """
    task = task_source("digits", {"n_train": 400})(0)
    sizes = {"input_shape": (3, 32, 32), "n_outputs": 10}
    for name, net, x, y in (
        ("4 layers of 128", models.build("mlp", SIZES, seed=0),
         torch.as_tensor(task.x_train), torch.as_tensor(task.y_train)),
        ("a ResNet-18", models.build("resnet18", sizes, seed=0),
         torch.randn(400, 3, 32, 32), torch.arange(400) % 10),  # as dear as real images
    ):  # fmt: skip
        watch = Watch(net, x, y)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.001)
        nn.functional.cross_entropy(net(x[:25]), y[:25]).backward()
        optimizer.step()
        watch.look()  # it reads the models, once in a process
        net.eval()
        with torch.no_grad(), one_thread(), threadpoolctl.threadpool_limits(1):
            pairs = [(timed(watch.look), timed(lambda net=net, x=x: net(x))) for _ in range(LOOKS)]
        line(f"Watch.look, {name}, 400 points, one thread", [look for look, _ in pairs], "s", "-")
        line("over one evaluation of the points", [look / once for look, once in pairs], "x", "-")


def framework() -> None:
    """The Lightning callback beside the same training without it, between start and stop."""
    import warnings

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    task = task_source("digits", {"n_train": 400})(0)
    digits = torch.as_tensor(task.x_train), torch.as_tensor(task.y_train)
    images = torch.randn(96, 3, 32, 32), torch.arange(96) % 10  # as dear as real ones
    by_framework("4 layers of 128", ("mlp", SIZES), digits, 25, EPOCHS)
    sizes = {"input_shape": (3, 32, 32), "n_outputs": 10}
    by_framework("a ResNet-18", ("resnet18", sizes), images, 16, 1)


def by_framework(
    name: str,
    net: tuple[str, dict[str, Any]],
    points: tuple[torch.Tensor, torch.Tensor],
    batch_size: int,
    epochs: int,
) -> None:
    """One net under Lightning, with and without the callback in turn."""
    import lightning.pytorch as pl

    from fls_bench.integrations.lightning import FlsBenchCallback

    data = torch.utils.data.TensorDataset(*points)

    class Net(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = models.build(*net, seed=0)

        def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.001)

    class Clock(pl.Callback):
        """Times what lies between the first batch and the last."""

        began = seconds = 0.0

        def on_train_batch_start(self, *_: object, **__: object) -> None:
            self.began = self.began or time.perf_counter()

        def on_train_batch_end(self, *_: object, **__: object) -> None:
            self.seconds = time.perf_counter() - self.began

    def fit(recorded: bool, path: Path) -> float:
        clock = Clock()
        own = [FlsBenchCallback(str(path), module="net", force=True, tell=lambda _: None)]
        trainer = pl.Trainer(
            max_epochs=epochs, logger=False, enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=False, accelerator="cpu", callbacks=[clock, *own[:recorded]],
        )  # fmt: skip
        trainer.fit(Net(), torch.utils.data.DataLoader(data, batch_size=batch_size))
        return clock.seconds

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.pt"
        fit(True, path)
        ratios = []
        for k in range(FRAMEWORK_PAIRS):
            first, second = fit(k % 2 == 0, path), fit(k % 2 == 1, path)
            ratios.append(first / second if k % 2 == 0 else second / first)
    line(f"Lightning with / without the callback, {name}", ratios, "x", "1.01 x")
    low, high = sign_test_interval(ratios)
    print(
        f"  median {statistics.median(ratios):.4f}, 95 % interval {low:.4f} to {high:.4f}",
        flush=True,
    )


def sign_test_interval(values: list[float]) -> tuple[float, float]:
    """95 % interval of the median: order statistics, whatever the distribution (sign test)."""
    ordered = sorted(values)
    skip = int(binom.ppf(0.025, len(ordered), 0.5))
    return ordered[skip - 1], ordered[-skip]


def pages(source: Path) -> None:
    """The page of a report of 10,000 runs: those of a real one, each listed again under other seeds."""
    found = report.read(source)
    assert found.sweep is not None
    cells = [
        cell.model_copy(
            update={
                "seeds": tuple(
                    cell.seeds[k % len(cell.seeds)].model_copy(update={"seed": k})
                    for k in range(-(-10_000 // len(found.sweep.cells)))
                )
            }
        )
        for cell in found.sweep.cells
    ]
    sweep = found.sweep.model_copy(update={"cells": tuple(cells)})
    stored = report.write_json(
        found.model_copy(update={"sweep": sweep}), source.with_name("many.json"), force=True
    )
    page = source.with_name("many.html")
    run = command("report", str(stored), "--html", str(page), "--force", "--quiet")
    seconds = [timed(run) for _ in range(REPEATS)]
    line("page of 10,000 runs, start of Python included", seconds, "s", "5 s")
    line("its size", [page.stat().st_size / 1e6], "MB", "5 MB")


def comparisons(source: Path) -> None:
    """Ten stored reports side by side, with and without a page; one shown again."""
    files = [source.with_name(f"ten{k}.json") for k in range(10)]
    for file in files:
        file.write_bytes(source.read_bytes())
    names = [str(file) for file in files]
    page = ["--html", str(source.with_name("ten.html")), "--force"]
    for what, arguments in (
        ("fls-bench report", ["report", names[0]]),
        ("fls-bench compare, ten reports", ["compare", *names]),
        ("the same with its page", ["compare", *names, *page, "--quiet"]),
    ):
        line(what, [timed(command(*arguments)) for _ in range(REPEATS)], "s", "1 s")


BUILDER = """from torch import nn
def build():
    return nn.Sequential(nn.Linear(200, 640), nn.ReLU(), nn.Linear(640, 640), nn.ReLU(),
                         nn.Linear(640, 640), nn.ReLU(), nn.Linear(640, 10))
"""


def looks(folder: Path) -> None:
    """A reading of a net of 955,530 parameters with 10,000 training points, from a cold start."""
    (folder / "bench_net.py").write_text(BUILDER)
    sys.path.insert(0, str(folder))
    net = importlib.import_module("bench_net").build()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12_000, 200)).astype("float32")
    y = (x @ rng.standard_normal((200, 10))).argmax(1)
    data = {
        "x_train": x[:10_000],
        "y_train": y[:10_000],
        "x_test": x[10_000:],
        "y_test": y[10_000:],
    }
    np.savez(folder / "data.npz", **data)
    torch.save(net.state_dict(), folder / "init.pt")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    points, labels = torch.from_numpy(x[:10_000]), torch.from_numpy(y[:10_000])
    for _ in range(6):
        for picked in torch.randperm(10_000).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(points[picked]), labels[picked]).backward()
            optimizer.step()
    torch.save(net.state_dict(), folder / "net.pt")
    files = [str(folder / name) for name in ("net.pt", "init.pt", "data.npz")]
    run = command(
        "diagnose", files[0], "--init", files[1], "--data", files[2], "--model", "bench_net:build",
        "--pythonpath", str(folder), "--observe-only", "--quiet",
    )  # fmt: skip
    libraries = [sys.executable, "-c", "import torch, scipy.stats, sklearn.linear_model"]
    pairs = [
        (timed(run), timed(lambda: subprocess.run(libraries, check=True)))
        for _ in range(2 * REPEATS)
    ]
    name = "diagnose --observe-only, 955,530 parameters, 10,000 points"
    line(name, [whole for whole, _ in pairs], "s", "5 s")
    line("over importing torch, scipy, sklearn", [a / b for a, b in pairs], "x", "-")


def main() -> None:
    """Measure and print."""
    alone = tuning_costs, invariants, recording, large_recording, watching, framework
    parts = {part.__name__: part for part in alone}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=list(parts), help="only this one")
    only = parser.parse_args().part
    print(", ".join(f"{key} {value}" for key, value in facts.environment().items()))
    if only is not None:
        parts[only]()
        return
    batched()  # warm up
    pairs = [(timed(plain_loop), timed(batched)) for _ in range(REPEATS)]
    line(f"plain loop, {NUM_NETS} MLPs x {EPOCHS} epochs", [p for p, _ in pairs], "s", "-")
    line("batched engine, the same nets", [b for _, b in pairs], "s", "-")
    line("plain loop / batched engine", [p / b for p, b in pairs], "x", "4 x")
    for part in alone:
        part()
    line("fls-bench --help", [timed(command("--help")) for _ in range(REPEATS)], "s", "0.3 s")
    with tempfile.TemporaryDirectory() as folder:
        looks(Path(folder))
        for multiplier in ("2^-9", "2^-4", "2^3"):
            file = str(Path(folder) / "model.pt")
            command(
                "train", "--task", "digits", "--n-train", "150", "--depth", "4", "--width", "128",
                "--output-multiplier", multiplier, "--force", "-o", file,
            )()  # fmt: skip
            stored = Path(folder) / "report.json"
            run = command(
                "diagnose", file, "--no-store", "--quiet", "--json", str(stored), "--force"
            )
            seconds = [timed(run) for _ in range(3)]
            line(f"fls-bench diagnose, digits at c = {multiplier}, to T3", seconds, "s", "12 s")
        comparisons(stored)
        pages(stored)


if __name__ == "__main__":
    main()
