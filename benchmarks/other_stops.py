"""How the reading does on nets that were not trained to a target, as those of the atlas were.

    python benchmarks/other_stops.py --setups 16    # trains, up to an hour of one core; prints a table

Small setups of the atlas are drawn and swept again with other stops: a number of epochs, or a validation
loss that no longer falls. What is best is then another question, and each net's regime another answer.
The committed models, which saw the same setups with their own stops, read the nets.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from watch_survey import Told, drawn

from fls_bench.atlas import Shard, atlas_folder, load_atlas, load_models
from fls_bench.bench import Options, case_setup
from fls_bench.calibrating import LEVEL, Labelled, labelled
from fls_bench.evaluating import judge_by, row_of
from fls_bench.report import evaluations as words
from fls_bench.report.markdown import table
from fls_bench.schema import FixedSteps, Stop, ValidationLoss
from fls_bench.suite import Case, Suite, load_suite
from fls_bench.surveying import survey_cases

MOST_POINTS = 400
EPOCHS, PATIENCE = 20, 10


def epochs(suite: Suite, case: Case) -> Stop:
    """A number of epochs, as a number of steps."""
    n = case_setup(suite, case).task_for(0).n_train
    return FixedSteps(EPOCHS * -(-n // suite.recipe(case).batch_size))


def validation(suite: Suite, case: Case) -> Stop:
    """A validation loss that no longer falls."""
    return ValidationLoss(PATIENCE)


STOPS: dict[str, Callable[[Suite, Case], Stop]] = {
    f"{EPOCHS} epochs": epochs,
    f"validation loss, patience {PATIENCE}": validation,
}


def small(suite: Suite, atlas: Labelled, num: int) -> list[Case]:
    """Setups of MLPs on few points that have nets of known regime, in the order of one draw."""
    return [
        case
        for case in drawn(suite, atlas, len(suite.cases), 0)
        if str(case.family).startswith("mlp")
        and case.task.arguments.get("n_train", 10**9) <= MOST_POINTS
    ][:num]


def row(name: str, shards: list[Shard], ids: set[str]) -> list[str]:
    """One line of the table: nets of these setups, read by the committed model."""
    nets = labelled(shards)
    wanted = np.array([fact["id"] in ids for fact in nets.facts])
    rows = np.flatnonzero(nets.known & wanted[nets.case])
    judged = judge_by(load_models().models["T2"], nets, "T2", rows, nets.of_case("id")[rows])
    found = row_of(judged, "T2", "setup", LEVEL)
    return [
        name, f"{len(rows)} of {found.num_groups}",
        words.interval(found.auc_over_aligned, 3), words.interval(found.auc_over_fitted, 3),
        f"{100 * judged.emitted.mean():.1f} %", words.percent(found.emitted_accuracy),
        words.percent(found.opposite, 2), words.percent(found.coverage),
    ]  # fmt: skip


def main() -> None:
    """Survey and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--setups", type=int, default=24)
    parser.add_argument("--store", type=Path)
    args = parser.parse_args()
    suite = load_suite("atlas")
    shards = load_atlas(atlas_folder())
    cases = small(suite, labelled(shards), args.setups)
    ids = {case.id for case in cases}
    options = Options(Told(), jobs=1, store=args.store)
    rows = [row("as in the atlas", list(shards), ids)]
    for name, stop in STOPS.items():
        own = tuple(case.model_copy(update={"stop": stop(suite, case)}) for case in cases)
        rows.append(row(name, [survey_cases(suite, own, options)], ids))
    head = ["stop", "nets of setups", "AUC over-aligned", "AUC over-fitted", "said something",
            "of these right", "opposite", "set holds the truth"]  # fmt: skip
    print(table(head, rows))


if __name__ == "__main__":
    main()
