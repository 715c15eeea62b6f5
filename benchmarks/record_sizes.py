"""How many bytes a run takes: in shards of the atlas, and in the stores of a survey and of a sweep.

    python benchmarks/record_sizes.py

The shards are the committed ones. The stores are filled here by a few small nets, in seconds; what a
record holds does not depend on the size of the net.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from fls_bench.atlas import atlas_folder, load_shard
from fls_bench.bench import case_setup
from fls_bench.store import RunStore
from fls_bench.subject.observing import observe_run
from fls_bench.suite import load_suite
from fls_bench.sweep import SweepPlan, prepare
from fls_bench.sweep.sweeper import Sweeper
from fls_bench.training import Observer

SEEDS = 4


class Silent:
    """Tells nobody."""

    def plan(self, total_runs: int, text: str) -> None: ...
    def done(self, runs: int, text: str) -> None: ...
    def note(self, text: str) -> None: ...


def shards() -> tuple[int, int]:
    """(bytes, nets) of the committed atlas."""
    paths = sorted(atlas_folder().glob("shard-*.npz"))
    return sum(path.stat().st_size for path in paths), sum(
        len(load_shard(path).case) for path in paths
    )


def store(observe: Observer | None) -> Mapping[str, float]:
    """Bytes a run of each file of a store."""
    suite = load_suite("quick")
    setup = case_setup(suite, suite.cases[0])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.jsonl"
        stores: Callable[[str], RunStore] = lambda _: RunStore(path)  # noqa: E731
        prepared = prepare(setup, SweepPlan(seeds=(SEEDS,)), stores=stores)
        sweeper = Sweeper.of(prepared, stores, Silent(), 1, observe)
        sweeper.visit([0.25, 1.0, 4.0], SEEDS, False, "")
        num = len(RunStore(path).load())
        return {one.name: one.stat().st_size / num for one in sorted(Path(folder).iterdir())}


if __name__ == "__main__":
    size, num = shards()
    print(f"atlas: {size:,} bytes, {num:,} nets, {size / num:.0f} bytes a net")
    for name, observe in (("a sweep", None), ("a survey", observe_run)):
        parts = ", ".join(f"{file} {size:.0f}" for file, size in store(observe).items())
        print(f"store of {name}, bytes a run: {parts}")
