"""Interventions on rank: nets that differ in c, with the ranks of their hidden layers held or lowered.

The targets are yoked: a net is held at the ranks that the plain net of the same seed has at the
other c, on minibatches at its stop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fls_bench.errors import InputError
from fls_bench.schema import (
    Cost,
    Intervention,
    RankPenalty,
    RankSide,
    RankTerm,
    RunRecord,
)
from fls_bench.suite import InterventionSpec
from fls_bench.sweep import Listener, Prepared, Stores, SweepPlan, prepare
from fls_bench.sweep.sweeper import Sweeper, seed_result
from fls_bench.training import LOCAL, Backend, penalised, rank_name
from fls_bench.training_setup import TrainingSetup
from fls_bench.verdict.shares import Aim, Row, judge_rows

Ranks = Mapping[int, tuple[float, ...]]
"""Seed -> log rank of each hidden layer."""


@dataclass
class _Runs:
    """Trains rows one after the other, each under the key of its own penalties, and adds up costs."""

    setup: TrainingSetup
    plan: SweepPlan
    stores: Stores
    listener: Listener
    jobs: int
    device: str
    backend: Backend
    cost: Cost = Cost()

    def prepared(self, term: RankTerm) -> Prepared:
        setup = replace(self.setup, rank_term=term)
        return prepare(
            setup, self.plan, stores=self.stores, device=self.device, backend=self.backend
        )

    def train(
        self, prepared: Prepared, c: float, seeds: Sequence[int], text: str
    ) -> list[RunRecord]:
        sweeper = Sweeper.of(prepared, self.stores, self.listener, self.jobs)
        configs = [sweeper.config(c, seed, prepared.setup.centered) for seed in seeds]
        sweeper.train(configs, text)
        self.cost = Cost(
            replica_epochs=self.cost.replica_epochs + sweeper.replica_epochs,
            num_runs=self.cost.num_runs + len(configs),
        )
        return [sweeper.used[config.digest] for config in configs]


def run_intervention(
    setup: TrainingSetup,
    spec: InterventionSpec,
    c_low: float,
    plan: SweepPlan,
    *,
    stores: Stores,
    listener: Listener,
    jobs: int,
    device: str = "cpu",
    backend: Backend = LOCAL,
) -> tuple[Prepared, Intervention, Cost]:
    """Train the plain nets at c* and at the small c, then every row against them.

    Args:
        setup: A built-in MLP; its own multiplier is c*.
        spec: Which rows, and which rank.
        c_low: The small c, < c*.
        plan: Its first seed and its (last) number of seeds; all rows share them.
        stores: Where runs are kept: an interrupted suite resumes.
        listener: Told what happens.
        jobs: Batches at a time.
        device: ``cpu`` or ``cuda``.
        backend: Where runs are trained.

    Returns:
        (the plain setup as it was trained, the rows judged, what they cost).

    Raises:
        InputError: The net is no MLP, or the minibatches are not of one size.
    """
    runs = _Runs(setup, plan, stores, listener, jobs, device, backend)
    seeds = [plan.first_seed + i for i in range(plan.seeds[-1])]
    prepared = runs.prepared(RankTerm(measure=spec.measure))
    n, size = prepared.setup.task_for(seeds[0]).n_train, setup.batch_size
    if size < 3 or n % size:
        raise InputError(
            f"{n} training points in minibatches of {size}: ranks need minibatches of one size >= 3.",
            "Choose n_train and batch_size so that one divides the other.",
        )
    c_star = setup.output_multiplier
    plain = {
        at: runs.train(prepared, c, seeds, f"no penalty at {'c*' if at == 'star' else 'small c'}")
        for at, c in (("star", c_star), ("low", c_low))
    }
    ranks = {at: _ranks(records) for at, records in plain.items()}
    yoked = [seed for seed in seeds if seed in ranks["star"] and seed in ranks["low"]]
    targets: dict[RankSide, dict[int, tuple[float, ...]]] = {
        "hold": {seed: ranks["star"][seed] for seed in yoked},
        "lower": {seed: ranks["low"][seed] for seed in yoked},
    }
    star, low = (_row("no penalty", at == "star", plain[at]) for at in ("star", "low"))
    rows = [star, low]
    for one in spec.rows if yoked else ():
        used = {penalty.side for penalty in one.penalties}
        term = RankTerm(
            measure=spec.measure,
            penalties=one.penalties,
            targets={side: value for side, value in targets.items() if side in used},
            misdirected=one.misdirected,
        )
        under = runs.prepared(term)
        for at in one.at:
            text = f"{one.name} at {'c*' if at == 'star' else 'small c'}"
            records = runs.train(under, c_star if at == "star" else c_low, yoked, text)
            rows.append(
                _row(one.name, at == "star", records, one.penalties, one.misdirected, targets)
            )
    judged = judge_rows(rows, low, star, measure=spec.measure, c_low=c_low, c_star=c_star)
    return prepared, judged, runs.cost


def _ranks(records: Sequence[RunRecord]) -> dict[int, tuple[float, ...]]:
    """Of the runs that have them (one that diverged has none)."""
    found = {}
    for record in records:
        layers: list[float] = []
        while (value := record.measurements.get(rank_name(len(layers)))) is not None:
            layers.append(value)
        if layers:
            found[record.config.seed] = tuple(layers)
    return found


def _row(
    name: str,
    at_star: bool,
    records: Sequence[RunRecord],
    penalties: tuple[RankPenalty, ...] = (),
    misdirected: bool = False,
    targets: Mapping[RankSide, Ranks] | None = None,
) -> Row:
    ranks = _ranks(records)
    num_hidden = max(map(len, ranks.values()), default=0)
    aims = tuple(
        Aim(
            layer,
            penalty.side,
            {
                seed: own[layer] + penalty.offset
                for seed, own in (targets or {})[penalty.side].items()
            },
        )
        for penalty in penalties
        for layer in penalised(penalty, num_hidden)
    )
    results = tuple(seed_result(record) for record in records)
    return Row(name, at_star, penalties, misdirected, results, ranks, aims)
