"""How often ``check`` is wrong: false alarms in two arms, and planted changes that it must find.

Every net is trained; nothing is simulated. A comparison is that of ``fls-bench check``: the runs of all
cases at their own c, with the suite's gates, seeds and correction. A benign numeric change trains the
same seeds in other batches, by another order of summation, or with another number of threads. Writes the
tables of docs/check-rates.md.

    python benchmarks/check_rates.py --write docs/check-rates.md
"""

from __future__ import annotations

import argparse
import datetime
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import beta, binomtest

from fls_bench import __version__
from fls_bench.baselines import recorded_case, recorded_cell
from fls_bench.bench import case_setup
from fls_bench.schema import (
    Cell,
    Judgement,
    Pair,
    RecordedCase,
    Regime,
    RunRecord,
    Side,
)
from fls_bench.suite import Suite, load_suite
from fls_bench.sweep import SweepPlan, prepare, run_sweep
from fls_bench.sweep.sweeper import Sweeper, seed_result
from fls_bench.tasks import Task
from fls_bench.training import Engine, train_all
from fls_bench.training_setup import TrainingSetup
from fls_bench.verdict.comparison import compare_sides
from fls_bench.verdict.diagnosis import diagnose
from fls_bench.verdict.evidence import Evidence

FIRST_SEED = 1_000_000
"""Far from the seeds on which anything was chosen."""

SEEDS_AT_ONCE = 192

Change = Callable[[TrainingSetup], TrainingSetup]


class Silent:
    """A listener that shows nothing."""

    def plan(self, total_runs: int, text: str) -> None: ...

    def done(self, runs: int, text: str) -> None: ...

    def note(self, text: str) -> None: ...


# --- what is changed ------------------------------------------------------------------------


@dataclass(frozen=True)
class Numerics:
    """A way of training that computes the same, rounded otherwise."""

    name: str
    engine: Mapping[str, object]
    threads: int = 1


BENIGN = (
    Numerics("replicas in batches of 5", {"replicas": 5}),
    Numerics("replicas in batches of 17, two threads", {"replicas": 17}, threads=2),
    Numerics("one by one, autograd's order of summation", {"kind": "single"}),
)


def with_task(setup: TrainingSetup, change: Callable[[Task, int], Task]) -> TrainingSetup:
    """The setup with every draw of its data changed."""
    source = setup.task_for
    return replace(setup, task=lambda seed: change(source(seed), seed))


def noisy_labels(task: Task, seed: int) -> Task:
    """A tenth of the training labels drawn anew, each as another class."""
    rng = np.random.default_rng([seed, 10])
    y = task.y_train.copy()
    chosen = rng.choice(len(y), size=round(0.1 * len(y)), replace=False)
    y[chosen] = (y[chosen] + rng.integers(1, task.n_classes, size=len(chosen))) % task.n_classes
    return replace(task, y_train=y)


def half_the_scale(task: Task, _: int) -> Task:
    """All inputs divided by 2, as by a standard deviation of other data."""
    return replace(task, x_train=task.x_train / 2, x_val=task.x_val / 2, x_test=task.x_test / 2)


def shifted_test_data(task: Task, _: int) -> Task:
    """Validation and test inputs without their mean, which training kept."""
    mean = task.x_train.mean(axis=0, keepdims=True) + task.x_train.std()
    return replace(task, x_val=task.x_val - mean, x_test=task.x_test - mean)


def rate(setup: TrainingSetup, factor: float) -> TrainingSetup:
    """The setup at another learning rate."""
    own = setup.known_optimizer
    return replace(setup, optimizer=own.model_copy(update={"lr": own.lr * factor}))


PLANTED: dict[str, Change] = {
    "multiplier 4 times too large, same rate": lambda s: replace(
        s, output_multiplier=4 * s.output_multiplier
    ),
    "multiplier 4 times too small, same rate": lambda s: replace(
        s, output_multiplier=s.output_multiplier / 4
    ),
    "learning rate that of c = 1": lambda s: rate(s, s.output_multiplier),
    "init scale 1.5 times too large": lambda s: replace(s, init_scale=1.5 * s.init_scale),
    "10 % label noise": lambda s: with_task(s, noisy_labels),
    "inputs at half their scale": lambda s: with_task(s, half_the_scale),
    "test inputs centred, training inputs not": lambda s: with_task(s, shifted_test_data),
    "loss summed over the batch, not averaged": lambda s: rate(s, float(s.batch_size)),
}
"""The axis of a case that sweeps the init scale stays; its setup is changed as every other."""


# --- training and comparing -----------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """The suite, and how many seeds a comparison has."""

    suite: Suite
    jobs: int

    def setups(self) -> list[TrainingSetup]:
        """The suite's cases."""
        return [case_setup(self.suite, case) for case in self.suite.cases]

    def train(
        self, setup: TrainingSetup, seeds: Sequence[int], numerics: Numerics | None = None
    ) -> dict[int, RunRecord]:
        """Train a setup as it is, at its own c, for some seeds."""
        prepared = prepare(setup, SweepPlan(first_seed=seeds[0]), stores=lambda _: None)
        engine: Engine = prepared.engine
        if numerics is not None:
            engine = replace(engine, **numerics.engine)  # type: ignore[arg-type]
        sweeper = Sweeper.of(prepared, lambda _: None, Silent(), 1)
        records: dict[int, RunRecord] = {}

        def keep(record: RunRecord) -> None:
            records[record.config.seed] = record

        # Every seed is trained once, so that its data need not be kept: a thousand don't fit.
        ready = replace(prepared.setup, task=setup.task)
        for start in range(0, len(seeds), SEEDS_AT_ONCE):
            configs = [
                sweeper.config(sweeper.c0, seed, setup.centered)
                for seed in seeds[start : start + SEEDS_AT_ONCE]
            ]
            with threads(1 if numerics is None else numerics.threads):
                train_all(ready, prepared.rule, configs, keep, engine=engine, jobs=self.jobs)
        return records

    def side(self, name: str, cases: Sequence[RecordedCase]) -> Side:
        """What was trained, as one side of a comparison."""
        return Side(name=name, kind="suite", recorded="-", cases=tuple(cases))

    def recorded(
        self, id_: str, setup: TrainingSetup, records: Mapping[int, RunRecord], seeds: Sequence[int]
    ) -> RecordedCase:
        """The runs of some seeds at the setup's own c; its regime is left open."""
        own = setup.init_scale if setup.axis == "init_scale" else setup.output_multiplier
        cell = Cell(
            c=own, lr=setup.known_optimizer.lr,
            seeds=tuple(seed_result(records[seed]) for seed in seeds),
        )  # fmt: skip
        return RecordedCase(
            id=id_, regime=Regime.INCONCLUSIVE, c=own, axis=setup.axis,
            cells=(recorded_cell(cell),),
        )  # fmt: skip

    def compare(self, before: Side, after: Side) -> Pair:
        """As ``check`` does."""
        return compare_sides(before, after, self.suite.gates)


@contextmanager
def threads(num: int) -> Iterator[None]:
    """With so many of torch's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(num)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def blocks(num: int, size: int, start: int) -> list[list[int]]:
    """Disjoint sets of seeds."""
    return [list(range(start + k * size, start + (k + 1) * size)) for k in range(num)]


@dataclass
class Tally:
    """How many comparisons ended in an alarm, and which metrics raised it."""

    n: int = 0
    alarms: int = 0
    undecided: int = 0
    metrics: Counter[str] | None = None

    def add(self, pair: Pair) -> None:
        """Count one comparison."""
        self.metrics = self.metrics or Counter()
        self.n += 1
        self.alarms += pair.status == "regression"
        self.undecided += pair.status == "inconclusive"
        bad = {one.metric for one in pair.metrics if one.gated and one.status == "regressed"}
        bad |= {"regime" for one in pair.regimes if one.status == "changed"}
        self.metrics.update(bad)

    @property
    def shown(self) -> str:
        """Alarms in percent, with the exact 95 % interval."""
        found = binomtest(self.alarms, self.n).proportion_ci()
        return f"{100 * self.alarms / self.n:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"

    @property
    def upper(self) -> str:
        """Exact one-sided 95 % upper bound of the rate, in percent."""
        if self.alarms == self.n:
            return "100"
        return f"{100 * beta.ppf(0.95, self.alarms + 1, self.n - self.alarms):.2f}"

    @property
    def raised_by(self) -> str:
        """The metrics that raised the alarms, the most frequent first."""
        found = (self.metrics or Counter()).most_common(3)
        return ", ".join(f"{name} {count}" for name, count in found) or "-"


def false_alarms(bench: Bench, num: int) -> tuple[dict[str, Tally], dict[str, Tally]]:
    """Both arms of ``num`` comparisons: (a) by kind of numeric change, (b) fresh seeds."""
    size = bench.suite.seeds
    sets = blocks(num, size, FIRST_SEED)
    fresh = blocks(num, size, FIRST_SEED + num * size)
    # One by one takes the longest, and gets a fifth of the comparisons.
    kinds = [BENIGN[(0, 1, 0, 1, 2)[k % 5]] for k in range(num)]
    before: list[list[RecordedCase]] = [[] for _ in range(num)]
    again: list[list[RecordedCase]] = [[] for _ in range(num)]
    other: list[list[RecordedCase]] = [[] for _ in range(num)]
    for case, setup in zip(bench.suite.cases, bench.setups(), strict=True):
        records = bench.train(setup, [seed for block in sets for seed in block])
        more = bench.train(setup, [seed for block in fresh for seed in block])
        changed: dict[int, RunRecord] = {}
        for kind in BENIGN:
            chosen = [
                s for block, own in zip(sets, kinds, strict=True) if own is kind for s in block
            ]
            changed |= bench.train(setup, chosen, kind)
        for k in range(num):
            before[k].append(bench.recorded(case.id, setup, records, sets[k]))
            again[k].append(bench.recorded(case.id, setup, changed, sets[k]))
            other[k].append(bench.recorded(case.id, setup, more, fresh[k]))
        progress(f"false alarms: {case.id} done")
    numeric = {kind.name: Tally() for kind in BENIGN}
    unpaired = {"fresh seeds": Tally()}
    for k in range(num):
        reference = bench.side("before", before[k])
        numeric[kinds[k].name].add(bench.compare(reference, bench.side("again", again[k])))
        unpaired["fresh seeds"].add(bench.compare(reference, bench.side("fresh", other[k])))
    return numeric, unpaired


def planted(bench: Bench, num: int) -> dict[str, Tally]:
    """Every planted change against the setup as it was, same seeds, ``num`` comparisons each."""
    size = bench.suite.seeds
    sets = blocks(num, size, FIRST_SEED + 10**6)
    flat = [seed for block in sets for seed in block]
    before: list[list[RecordedCase]] = [[] for _ in range(num)]
    after: dict[str, list[list[RecordedCase]]] = {
        name: [[] for _ in range(num)] for name in PLANTED
    }
    for case, setup in zip(bench.suite.cases, bench.setups(), strict=True):
        records = bench.train(setup, flat)
        for k in range(num):
            before[k].append(bench.recorded(case.id, setup, records, sets[k]))
        for name, change in PLANTED.items():
            wrong = change(setup)
            records = bench.train(wrong, flat)
            for k in range(num):
                after[name][k].append(bench.recorded(case.id, wrong, records, sets[k]))
            progress(f"planted: {name}, {case.id} done")
    tallies = {name: Tally() for name in PLANTED}
    for name, sides in after.items():
        for k in range(num):
            pair = bench.compare(bench.side("before", before[k]), bench.side("after", sides[k]))
            tallies[name].add(pair)
    return tallies


def regimes(bench: Bench, num: int) -> dict[str, Tally]:
    """Whole sweeps of all cases with their verdicts, fresh seeds against fresh seeds."""
    size = bench.suite.seeds
    tally = Tally()
    for k in range(num):
        sides = []
        for half in (0, 1):
            cases = []
            first = FIRST_SEED + 2 * 10**6 + (2 * k + half) * 1000
            for case, setup in zip(bench.suite.cases, bench.setups(), strict=True):
                plan = SweepPlan(seeds=(size,), first_seed=first)
                prepared = prepare(setup, plan, stores=lambda _: None)
                result = run_sweep(
                    prepared, stores=lambda _: None, listener=Silent(), jobs=bench.jobs
                )
                evidence = Evidence(
                    result.sweep, prepared.own, result.gain, result.centered, (), result.cost
                )
                judged = Judgement(sweep=result.sweep, diagnosis=diagnose(evidence))
                cases.append(recorded_case(judged, case.id))
            sides.append(bench.side("sweep", [one for one in cases if one is not None]))
        controls = frozenset(case.id for case in bench.suite.cases if case.id == "no-signal")
        tally.add(compare_sides(*sides, bench.suite.gates, controls=controls))
        progress(f"regimes: {k + 1} of {num}, {tally.alarms} alarms")
    return {"whole sweeps, fresh seeds": tally}


# --- the page -------------------------------------------------------------------------------


def progress(text: str) -> None:
    """One line for whoever waits."""
    print(f"{time.perf_counter() - STARTED:6.0f} s  {text}", flush=True)


STARTED = time.perf_counter()


def table(head: str, tallies: Mapping[str, Tally], bound: bool) -> list[str]:
    """A table of alarms."""
    last = "95 % upper bound, %" if bound else "raised by"
    lines = [f"| {head} | comparisons | alarms, % [95 %] | inconclusive | {last} |"]
    lines.append("|---|---|---|---|---|")
    for name, one in tallies.items():
        end = one.upper if bound else one.raised_by
        lines.append(f"| {name} | {one.n} | {one.shown} | {one.undecided} | {end} |")
    return lines


def together(tallies: Mapping[str, Tally]) -> Tally:
    """All of them as one."""
    total = Tally(metrics=Counter())
    for one in tallies.values():
        total.n, total.alarms = total.n + one.n, total.alarms + one.alarms
        total.undecided += one.undecided
        assert total.metrics is not None
        total.metrics.update(one.metrics or {})
    return total


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", default="quick")
    parser.add_argument("--comparisons", type=int, default=400, help="of each arm")
    parser.add_argument("--planted", type=int, default=60, help="comparisons of each change")
    parser.add_argument("--sweeps", type=int, default=40, help="comparisons of whole sweeps")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    bench = Bench(load_suite(arguments.suite), arguments.jobs)
    parts: list[str] = []
    if arguments.comparisons:
        numeric, unpaired = false_alarms(bench, arguments.comparisons)
        arms = {"(a) all of these": together(numeric)} if len(numeric) > 1 else {}
        tables = {**{f"(a) {k}": v for k, v in numeric.items()}, **arms}
        tables |= {f"(b) {k}, unpaired": v for k, v in unpaired.items()}
        if arguments.sweeps:
            tables |= {f"(b) {k}": v for k, v in regimes(bench, arguments.sweeps).items()}
        raised = {name: one.raised_by for name, one in tables.items() if one.alarms}
        parts += ["", "## False alarms", "", ALARMS_NOTE, ""]
        parts += table("what differs", tables, bound=True)
        parts += ["", f"Raised by: {raised or 'nothing'}."]
        print("\n".join(parts), flush=True)
    if arguments.planted:
        parts += ["", "## Planted changes", "", PLANTED_NOTE, ""]
        parts += table("change", planted(bench, arguments.planted), bound=False)
        print("\n".join(parts), flush=True)
    seconds = time.perf_counter() - STARTED
    suite = bench.suite
    head = [
        "# How often `check` is wrong",
        "",
        f"Written by `python benchmarks/check_rates.py --comparisons {arguments.comparisons} --planted "
        f"{arguments.planted} --sweeps {arguments.sweeps} --write docs/check-rates.md` "
        f"(`make check-rates`): suite {suite.name} version {suite.version} (digest "
        f"{suite.digest[:12]}), {len(suite.cases)} cases, {suite.seeds} seeds, {len(suite.gates)} gated "
        f"metrics; {datetime.date.today().isoformat()}, {seconds:.0f} s on {arguments.jobs} CPU cores "
        f"({torch.backends.cpu.get_cpu_capability()}), fls-bench {__version__}, torch "
        f"{torch.__version__}, Python {platform.python_version()}.",
    ]
    text = "\n".join([*head, *parts]) + "\n"
    print(text)
    if arguments.write:
        arguments.write.write_text(text, encoding="utf-8")


ALARMS_NOTE = """Nothing that matters has changed, so that every alarm is false. (a) The same seeds,
compared in pairs, after a change that only rounds otherwise. (b) Seeds that the baseline does not have,
compared as independent samples. The first rows are the suite's gates at each case's own c, which is
where `check` compares metrics; the last one has the sweeps and the rule for a change of regime as well.
Each comparison has seeds of its own; both arms share their baselines. Target: 1 %."""

PLANTED_NOTE = """Each change is made in the setups of all cases, and compared with the setups as they
were on the same seeds: found means that `check` ends with exit code 1. Target: 95 %."""

if __name__ == "__main__":
    main()
