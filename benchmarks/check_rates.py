"""How often ``check`` is wrong: false alarms in two arms, and planted changes that it must find.

Every net is trained; nothing is simulated. A comparison is that of ``fls-bench check``: the runs of all
cases at their own c, with the suite's gates, seeds and correction. A benign numeric change trains the
same seeds with sums in another order, by another engine, or one by one. Writes the tables of
docs/check-rates.md.

    python benchmarks/check_rates.py --write docs/check-rates.md
"""

from __future__ import annotations

import argparse
import datetime
import gc
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from scipy.stats import beta, binomtest

from fls_bench import __version__
from fls_bench.baselines import recorded_case, recorded_cell
from fls_bench.bench import case_setup
from fls_bench.checking import controls_of
from fls_bench.scaling import rate_power, scaled_rate
from fls_bench.schema import (
    Cell,
    Judgement,
    Pair,
    RecordedCase,
    Regime,
    RunRecord,
    Side,
)
from fls_bench.store import RunStore
from fls_bench.suite import Suite, load_suite
from fls_bench.sweep import SweepPlan, prepare, run_sweep
from fls_bench.sweep.sweeper import Sweeper, seed_result
from fls_bench.tasks import Task
from fls_bench.training import Engine, replicas, resolve_lr_rule, train_all
from fls_bench.training.runs import batch_order
from fls_bench.training_setup import TrainingSetup
from fls_bench.verdict.comparison import compare_sides, values_of
from fls_bench.verdict.diagnosis import diagnose
from fls_bench.verdict.evidence import Evidence

FIRST_SEED = 1_000_000
"""Far from the seeds on which anything was chosen."""

SEEDS_AT_ONCE = 96

Change = Callable[[TrainingSetup], TrainingSetup]


class Silent:
    """A listener that shows nothing."""

    def plan(self, total_runs: int, text: str) -> None: ...

    def done(self, runs: int, text: str) -> None: ...

    def note(self, text: str) -> None: ...


# --- what is changed ------------------------------------------------------------------------


@dataclass(frozen=True)
class Numerics:
    """A way of training that computes the same, rounded otherwise.

    Attributes:
        name: For people.
        engine: What is changed of the engine.
        reordered: Whether the points of every minibatch are taken in another order, which changes
            the order of every sum over them and nothing else.
    """

    name: str
    engine: Mapping[str, object]
    reordered: bool = False


BENIGN = (
    Numerics("minibatches summed in another order", {}, reordered=True),
    Numerics("another engine (vmapped for fused)", {"kind": "vmapped", "replicas": 48}),
    Numerics("one by one by autograd", {"kind": "single"}),
)
SHARES = (0, 1, 0, 1, 2)
"""One by one takes the longest, and gets a fifth of the comparisons."""


@contextmanager
def numerics_of(kind: Numerics | None, batch_size: int) -> Iterator[None]:
    """Train under a benign change; the order of points in a minibatch is sorted where it says so."""
    if kind is None or not kind.reordered:
        yield
        return

    def sorted_within(seed: int, n: int) -> Iterator[torch.Tensor]:
        for order in batch_order(seed, n):
            yield torch.cat([part.sort().values for part in order.split(batch_size)])

    with patch.object(replicas, "batch_order", sorted_within):
        yield


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


def half_the_scale(task: Task, _seed: int) -> Task:
    """All inputs divided by 2, as by a standard deviation of other data."""
    return replace(task, x_train=task.x_train / 2, x_val=task.x_val / 2, x_test=task.x_test / 2)


def standardised_held_out_data(task: Task, _seed: int) -> Task:
    """Validation and test inputs standardised by their own statistics, training inputs as they are."""

    def standardised(x: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        spread = x.std(axis=0, keepdims=True)
        return (x - x.mean(axis=0, keepdims=True)) / np.where(spread > 0, spread, 1)

    return replace(task, x_val=standardised(task.x_val), x_test=standardised(task.x_test))


def rate(setup: TrainingSetup, factor: float) -> TrainingSetup:
    """The setup at another learning rate."""
    own = setup.known_optimizer
    return replace(setup, optimizer=own.model_copy(update={"lr": own.lr * factor}))


def uncompensated(setup: TrainingSetup) -> TrainingSetup:
    """The rate that belongs to c = alpha = 1, at the setup's own c."""
    rule = resolve_lr_rule(setup, setup.task_for(0))
    own = setup.known_optimizer
    at = setup.output_multiplier, setup.init_scale
    lr = scaled_rate(own.lr, rule, rate_power(own), at=at, to=(1.0, 1.0))
    return rate(setup, lr / own.lr)


PLANTED: dict[str, Change] = {
    "multiplier 4 times too large, same rate": lambda s: replace(
        s, output_multiplier=4 * s.output_multiplier
    ),
    "multiplier 4 times too small, same rate": lambda s: replace(
        s, output_multiplier=s.output_multiplier / 4
    ),
    "rate of c = 1, not compensated for c": uncompensated,
    "init scale 1.5 times too large": lambda s: replace(s, init_scale=1.5 * s.init_scale),
    "10 % label noise": lambda s: with_task(s, noisy_labels),
    "all inputs at half their scale": lambda s: with_task(s, half_the_scale),
    "held-out inputs standardised, training inputs not": lambda s: with_task(
        s, standardised_held_out_data
    ),
    "loss summed over the minibatch, not averaged": lambda s: rate(s, float(s.batch_size)),
}
"""A sum in place of a mean is the rate times the size of a minibatch."""


# --- training and comparing -----------------------------------------------------------------


Runs = dict[str, dict[int, RunRecord]]
"""Case -> seed -> run."""


@dataclass(frozen=True)
class Bench:
    """The suite, and where its runs are kept."""

    suite: Suite
    jobs: int
    folder: Path

    def setups(self) -> dict[str, TrainingSetup]:
        """The suite's cases."""
        return {case.id: case_setup(self.suite, case) for case in self.suite.cases}

    def train(
        self, setup: TrainingSetup, seeds: Sequence[int], numerics: Numerics | None = None
    ) -> dict[int, RunRecord]:
        """Train a setup as it is, at its own c, for some seeds."""
        prepared = prepare(setup, SweepPlan(first_seed=seeds[0]), stores=lambda _: None)
        engine: Engine = prepared.engine
        if numerics is not None:
            engine = replace(engine, **numerics.engine)  # type: ignore[arg-type]
        sweeper = Sweeper.of(prepared, lambda _: None, Silent(), 1)
        wanted = [sweeper.config(sweeper.c0, seed, setup.centered) for seed in seeds]
        store = self.store(prepared.digest, "own" if numerics is None else numerics.name)
        known = store.load()
        missing = [config for config in wanted if config.digest not in known]
        # Every seed is trained once, so that its data need not be kept: a thousand don't fit.
        ready = replace(prepared.setup, task=setup.task)
        for start in range(0, len(missing), SEEDS_AT_ONCE):
            records: list[RunRecord] = []
            with numerics_of(numerics, setup.batch_size):
                train_all(
                    ready, prepared.rule, missing[start : start + SEEDS_AT_ONCE], records.append,
                    engine=engine, jobs=self.jobs,
                )  # fmt: skip
            store.append(records)
            gc.collect()  # data of many seeds in reference cycles would fill the memory
            known |= {record.config.digest: record for record in records}
        return {config.seed: known[config.digest] for config in wanted}

    def store(self, digest: str, kind: str) -> RunStore:
        """Where the runs of a setup are kept, so that they can be judged again."""
        return RunStore(
            self.folder / f"{digest[:16]}-{kind.partition(',')[0].replace(' ', '-')}.jsonl"
        )


def side(
    view: Suite, setups: Mapping[str, TrainingSetup], runs: Runs, seeds: Sequence[int]
) -> Side:
    """The runs of some seeds at each setup's own c; regimes are left open."""
    cases = []
    for case in view.cases:
        setup = setups[case.id]
        own = setup.init_scale if setup.axis == "init_scale" else setup.output_multiplier
        chosen = tuple(seed_result(runs[case.id][seed]) for seed in seeds[: view.seeds])
        cell = Cell(c=own, lr=setup.known_optimizer.lr, seeds=chosen)
        cases.append(
            RecordedCase(
                id=case.id, regime=Regime.INCONCLUSIVE, c=own, axis=setup.axis,
                setup={"task": case.task.name}, cells=(recorded_cell(cell),),
            )
        )  # fmt: skip
    return Side(name="runs", kind="suite", recorded="-", cases=tuple(cases))


def views(suite: Suite) -> dict[str, Suite]:
    """The suite as it is, and what a setup of one's own has: one case, default gates, ten seeds."""
    alone = suite.model_copy(update={"cases": suite.cases[:1], "gate": {}, "seeds": 10})
    return {
        f"{suite.name}: {len(suite.cases)} cases, {len(suite.gates)} gates, {suite.seeds} seeds": suite,
        f"{suite.cases[0].id} alone: default gates, 10 seeds": alone,
    }


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
    runs: int = 0
    differing: int = 0
    """Of the runs, how many have another value of anything that is gated."""

    def add(self, pair: Pair) -> None:
        """Count one comparison."""
        self.metrics = self.metrics or Counter()
        self.n += 1
        self.alarms += pair.status == "regression"
        self.undecided += pair.status == "inconclusive"
        bad = {one.metric for one in pair.metrics if one.gated and one.status == "regressed"}
        bad |= {"regime" for one in pair.regimes if one.status == "changed"}
        self.metrics.update(bad)

    def add_runs(self, view: Suite, before: Side, after: Side) -> None:
        """Count the runs that are not the same in what is gated."""
        for one, two in zip(before.cases, after.cases, strict=True):
            cells = [cell for cell in (one.own, two.own) if cell is not None]
            rows = [[values_of(cell, name) for name in view.gates] for cell in cells]
            for seed in cells[0].seeds:
                self.runs += 1
                self.differing += [k.get(seed) for k in rows[0]] != [k.get(seed) for k in rows[1]]

    @property
    def differ(self) -> str:
        """The share of runs that differ, in percent."""
        return f"{100 * self.differing / self.runs:.0f}" if self.runs else "-"

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


def false_alarms(bench: Bench, num: int) -> dict[str, dict[str, Tally]]:
    """Both arms of ``num`` comparisons: (a) by kind of numeric change, (b) fresh seeds; per view."""
    size = bench.suite.seeds
    sets = blocks(num, size, FIRST_SEED)
    fresh = blocks(num, size, FIRST_SEED + num * size)
    kinds = [BENIGN[SHARES[k % len(SHARES)]] for k in range(num)]
    setups = bench.setups()
    before: Runs = {}
    again: Runs = {}
    other: Runs = {}
    for name, setup in setups.items():
        before[name] = bench.train(setup, [seed for block in sets for seed in block])
        progress(f"false alarms: {name}, baselines")
        other[name] = bench.train(setup, [seed for block in fresh for seed in block])
        progress(f"false alarms: {name}, fresh seeds")
        again[name] = {}
        for kind in BENIGN:
            chosen = [
                s for block, own in zip(sets, kinds, strict=True) if own is kind for s in block
            ]
            again[name] |= bench.train(setup, chosen, kind) if chosen else {}
            progress(f"false alarms: {name}, {kind.name}")
    found = {}
    for label, view in views(bench.suite).items():
        tallies = {f"(a) {kind.name}": Tally() for kind in BENIGN}
        everything, unpaired = Tally(), Tally()
        for k in range(num):
            reference = side(view, setups, before, sets[k])
            now = side(view, setups, again, sets[k])
            pair = compare_sides(reference, now, view.gates, whole=True)
            for tally in (tallies[f"(a) {kinds[k].name}"], everything):
                tally.add(pair)
                tally.add_runs(view, reference, now)
            now = side(view, setups, other, fresh[k])
            unpaired.add(compare_sides(reference, now, view.gates, whole=True))
        tallies |= {"(a) all of these": everything, "(b) fresh seeds, unpaired": unpaired}
        found[label] = {name: one for name, one in tallies.items() if one.n}
    return found


def planted(bench: Bench, num: int) -> dict[str, dict[str, Tally]]:
    """Every planted change against the setup as it was, same seeds, ``num`` comparisons; per view."""
    sets = blocks(num, bench.suite.seeds, FIRST_SEED + 10**6)
    flat = [seed for block in sets for seed in block]
    setups = bench.setups()
    before: Runs = {name: bench.train(setup, flat) for name, setup in setups.items()}
    found: dict[str, dict[str, Tally]] = {label: {} for label in views(bench.suite)}
    for change_name, change in PLANTED.items():
        wrong = {name: change(setup) for name, setup in setups.items()}
        after: Runs = {}
        for name, setup in wrong.items():
            after[name] = bench.train(setup, flat)
            progress(f"planted: {change_name}, {name}")
        for label, view in views(bench.suite).items():
            tally = found[label][change_name] = Tally()
            for seeds in sets:
                reference, now = side(view, setups, before, seeds), side(view, wrong, after, seeds)
                tally.add(compare_sides(reference, now, view.gates, whole=True))
    return found


def regimes(bench: Bench, num: int) -> dict[str, Tally]:
    """Whole sweeps of all cases with their verdicts: as ``check`` compares them, regimes included."""
    size = bench.suite.seeds
    benign, fresh = Tally(), Tally()
    for k in range(num):
        first = FIRST_SEED + 2 * 10**6 + 2 * k * 1000
        before = sweeps(bench, first, size, None)
        now = sweeps(bench, first, size, BENIGN[k % 2])
        controls = controls_of(bench.suite)
        gates = bench.suite.gates
        benign.add(compare_sides(before, now, gates, controls=controls, whole=True))
        other = sweeps(bench, first + 1000, size, None)
        fresh.add(compare_sides(before, other, gates, controls=controls, whole=True))
        progress(f"regimes: {k + 1} of {num}, {benign.alarms} and {fresh.alarms} alarms")
    return {"(a) whole sweeps": benign, "(b) whole sweeps, unpaired": fresh}


def sweeps(bench: Bench, first: int, size: int, kind: Numerics | None) -> Side:
    """One sweep of every case with its verdict."""
    cases = []
    for case, setup in zip(bench.suite.cases, bench.setups().values(), strict=True):
        plan = SweepPlan(seeds=(size,), first_seed=first)
        prepared = prepare(setup, plan, stores=lambda _: None)
        if kind is not None:
            engine = replace(prepared.engine, **kind.engine)  # type: ignore[arg-type]
            prepared = replace(prepared, engine=engine)
        kept = bench.store(prepared.digest, f"sweep {first} {kind.name if kind else 'own'}")
        with numerics_of(kind, setup.batch_size):
            result = run_sweep(
                prepared, stores=lambda _, kept=kept: kept, listener=Silent(), jobs=bench.jobs
            )
        evidence = Evidence(
            result.sweep, prepared.own, result.gain, result.centered, (), result.cost
        )
        judged = Judgement(
            sweep=result.sweep, diagnosis=diagnose(evidence), setup={"task": case.task.name}
        )
        found = recorded_case(judged, case.id)
        assert found is not None
        cases.append(found)
    return Side(name="sweep", kind="suite", recorded="-", cases=tuple(cases))


# --- the page -------------------------------------------------------------------------------


def progress(text: str) -> None:
    """One line for whoever waits."""
    print(f"{time.perf_counter() - STARTED:6.0f} s  {text}", flush=True)


STARTED = time.perf_counter()


def table(head: str, tallies: Mapping[str, Tally], alarms: bool) -> list[str]:
    """A table of alarms."""
    heads = [
        head,
        "comparisons",
        "alarms, % [95 %]" if alarms else "found, % [95 %]",
        "inconclusive",
    ]
    heads += ["runs that differ, %", "95 % upper bound, %"] if alarms else []
    heads += ["raised by"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name, one in tallies.items():
        cells = [name, str(one.n), one.shown, str(one.undecided)]
        cells += [one.differ, one.upper] if alarms else []
        lines.append(f"| {' | '.join([*cells, one.raised_by])} |")
    return lines


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", default="quick")
    parser.add_argument("--comparisons", type=int, default=400, help="of each arm")
    parser.add_argument("--planted", type=int, default=60, help="comparisons of each change")
    parser.add_argument("--sweeps", type=int, default=60, help="comparisons of whole sweeps")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--store", type=Path, help="keep runs here, and judge kept ones again")
    arguments = parser.parse_args()
    folder = arguments.store or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(load_suite(arguments.suite), arguments.jobs, folder)
    parts: list[str] = []
    if arguments.comparisons:
        parts += ["", "## False alarms", "", ALARMS_NOTE]
        for label, tallies in false_alarms(bench, arguments.comparisons).items():
            parts += ["", f"{label}:", "", *table("what differs", tallies, alarms=True)]
        print("\n".join(parts), flush=True)
    if arguments.planted:
        parts += ["", "## Planted changes", "", PLANTED_NOTE]
        for label, tallies in planted(bench, arguments.planted).items():
            parts += ["", f"{label}:", "", *table("change", tallies, alarms=False)]
        print("\n".join(parts), flush=True)
    if arguments.sweeps:
        found = regimes(bench, arguments.sweeps)
        parts += ["", "## False alarms of whole checks", "", REGIMES_NOTE, ""]
        parts += table("what differs", found, alarms=True)
        print("\n".join(parts), flush=True)
    seconds = time.perf_counter() - STARTED
    suite = bench.suite
    kept = " (most runs kept from before)" if arguments.store else ""
    head = [
        "# How often `check` is wrong",
        "",
        f"Written by `python benchmarks/check_rates.py --comparisons {arguments.comparisons} --planted "
        f"{arguments.planted} --sweeps {arguments.sweeps} --write docs/check-rates.md` "
        f"(`make check-rates`): suite {suite.name} version {suite.version} (digest "
        f"{suite.digest[:12]}), {len(suite.cases)} cases, {suite.seeds} seeds, {len(suite.gates)} gated "
        f"metrics; {datetime.date.today().isoformat()}, {seconds:.0f} s{kept} on {arguments.jobs} CPU "
        "cores "
        f"({torch.backends.cpu.get_cpu_capability()}), fls-bench {__version__}, torch "
        f"{torch.__version__}, Python {platform.python_version()}.",
    ]
    text = "\n".join([*head, *parts]) + "\n"
    print(text)
    if arguments.write:
        arguments.write.write_text(text, encoding="utf-8")


ALARMS_NOTE = """Nothing that matters has changed, so that every alarm is false. (a) The same seeds,
compared in pairs, after a change that only rounds otherwise. (b) Seeds that the baseline does not have,
compared as independent samples. These are the gates at each case's own c, which is where `check`
compares metrics; the rule for regimes has a table of its own below. Each comparison has seeds of its
own; both arms share their baselines. Runs that differ: in the first seven digits of anything that is
gated. Target: 1 %."""

PLANTED_NOTE = """Each change is made in the setups of all cases, and compared with the setups as they
were on the same seeds, at the own c: found means that `check` ends with exit code 1. Target: 95 %. The
task digits is standardised already: standardising its held-out part once more does next to nothing."""

REGIMES_NOTE = """Every case is swept and judged, so that the rule for a change of regime can raise an
alarm as well; all gates are judged too. Fewer comparisons, since each takes hundreds of runs."""

if __name__ == "__main__":
    main()
