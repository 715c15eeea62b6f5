"""``selftest``: nets placed in each regime by their c, trained here, and read one by one."""

from __future__ import annotations

from fls_bench.bench import Options, case_setup, make_report, own_run, read_regime
from fls_bench.errors import RunFailedError
from fls_bench.schema import Placed, PlacedCase, Report, RunConfig, RunRecord, SelfTest
from fls_bench.subject.observing import Look, look_at
from fls_bench.suite import load_suite
from fls_bench.tasks import Task
from fls_bench.training import (
    TrainedRun,
    check_setup,
    choose_engine,
    resolve_error,
    resolve_lr_rule,
    train_all,
)
from fls_bench.training_setup import TrainingSetup

SUITE = "selftest"


def run_selftest(options: Options) -> Report:
    """Train the nets of the suite ``selftest`` at their own c, and read each.

    Args:
        options: ``fixed_seeds`` nets of each case, and the first seed.

    Returns:
        A report of kind ``selftest``.

    Raises:
        RunFailedError: A net did not reach its target.
    """
    suite = load_suite(SUITE)
    plan = options.plan()
    seeds = range(plan.first_seed, plan.first_seed + plan.seeds[-1])
    options.listener.plan(len(suite.cases) * len(seeds), SUITE)
    cases = []
    for case in suite.cases:
        assert case.expect is not None
        looks = _looks(case_setup(suite, case), list(seeds), options, case.id)
        nets = tuple(
            Placed(seed=seed, regime=found.regime, probabilities=found.probabilities)
            for seed, found in ((seed, read_regime(look)) for seed, look in looks.items())
        )
        cases.append(PlacedCase(id=case.id, regime=case.expect.regime, nets=nets))
    return make_report(options, "selftest", None, suite, selftest=SelfTest(cases=tuple(cases)))


def _looks(setup: TrainingSetup, seeds: list[int], options: Options, text: str) -> dict[int, Look]:
    task = check_setup(setup, seeds[0])
    setup = resolve_error(setup, task)
    rule = resolve_lr_rule(setup, task)
    engine = choose_engine(setup, rule)
    looks: dict[int, Look] = {}

    def observe(own: TrainingSetup, data: Task, run: TrainedRun) -> dict[str, float]:
        looks[run.config.seed] = look_at(own, data, run.final, run.init)
        return {}

    def keep(record: RunRecord) -> None:
        if record.config.seed not in looks:
            raise RunFailedError(
                f"{text}, seed {record.config.seed}: {record.outcome.sentence}",
                "Try another --seed; if it fails again, this is a fault of fls-bench.",
            )
        options.listener.done(1, text)

    configs: list[RunConfig] = [own_run(setup, seed) for seed in seeds]
    # Threads share what is looked at, processes would not: one job.
    train_all(setup, rule, configs, keep, engine=engine, jobs=1, observe=observe)
    return dict(sorted(looks.items()))
