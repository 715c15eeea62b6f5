"""Fits the models that say, while a net trains, where it is heading; and how early that can be said.

    python benchmarks/watch_survey.py survey --setups 128    # trains, about an hour of one CPU core
    python benchmarks/watch_survey.py fit                    # writes watching.json, and the page
    python benchmarks/watch_survey.py page                   # the page alone, from what is stored

Setups of the atlas are drawn and their nets of the first seed trained again, each only until its loss
falls to that of a stage; truth is the atlas': the regime of the setup at that c, of finished nets.
"""

from __future__ import annotations

import argparse
import datetime
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fls_bench import __version__
from fls_bench.atlas import (
    ATLAS_SCHEMA,
    OUTCOMES,
    Shard,
    atlas_folder,
    load_atlas,
    load_shard,
    load_watch_models,
    save_shard,
)
from fls_bench.bench import Options, case_setup
from fls_bench.calibrating import LEVEL, Labelled, calibrate, labelled, places
from fls_bench.evaluating import leave_out, row_of
from fls_bench.facts import environment
from fls_bench.files import write_whole
from fls_bench.report import evaluations as words
from fls_bench.report.markdown import table
from fls_bench.schema import (
    EvaluationRow,
    Outcome,
    ReadingModel,
    RunRecord,
    Stage,
    TargetLoss,
    WatchModels,
)
from fls_bench.subject.observing import part_of_task
from fls_bench.suite import Case, Suite, load_suite
from fls_bench.surveying import visit_case
from fls_bench.tasks import Task
from fls_bench.training import TrainedRun
from fls_bench.training.runs import make_net
from fls_bench.training_setup import TrainingSetup
from fls_bench.verdict.reading.columns import COLUMNS
from fls_bench.watching import (
    AT_START,
    EVIDENCE,
    OBSERVABLES,
    STAGES,
    chance_loss,
    stage_of,
    watched_columns,
)


class Told:
    """A listener that prints what is trained."""

    def plan(self, total_runs: int, text: str) -> None:
        print(text, total_runs, flush=True)

    def done(self, runs: int, text: str) -> None: ...

    def note(self, text: str) -> None: ...


def observed(setup: TrainingSetup, task: Task, run: TrainedRun) -> Mapping[str, float]:
    """What a look measures on the net as it is when its stage begins."""
    part = part_of_task(task)
    net = make_net(replace(setup, output_multiplier=1.0), run.config.seed, 1.0, torch.float32)
    return watched_columns(
        net, run.init, run.final, part.x_train, part.y_train, c=run.config.c,
        centered=run.config.centered, n_classes=task.n_classes, n_train=task.n_train,
    )  # fmt: skip


def drawn(suite: Suite, atlas: Labelled, num: int, seed: int) -> list[Case]:
    """Some of the setups that have nets of known regime, set-aside ones left out."""
    told = {atlas.facts[case]["id"] for case in atlas.case[atlas.fitted_to]}
    cases = [case for case in suite.cases if case.id in told]
    return [cases[k] for k in sorted(np.random.default_rng(seed).permutation(len(cases))[:num])]


def staged(suite: Suite, case: Case, loss: float) -> Case | None:
    """The case with a stop at a loss; None where it would stop there or before by itself."""
    stop = suite.recipe(case).stop
    if not isinstance(stop, TargetLoss) or loss <= 1.2 * stop.target_loss:
        return None
    return case.model_copy(update={"stop": TargetLoss(loss, max_epochs=stop.max_epochs)})


def survey(num: int, seed: int, store: Path | None) -> None:
    """Train to each stage, and store what was measured there."""
    suite = load_suite("atlas").model_copy(update={"seeds": 1})
    options = Options(Told(), jobs=1, store=store)
    found: dict[str, list[tuple[int, RunRecord]]] = {stage: [] for stage in STAGES}
    facts: list[dict[str, Any]] = []
    for case in drawn(suite, labelled(load_atlas(atlas_folder())), num, seed):
        task = part_of_task(case_setup(suite, case).task_for(0))
        chance = chance_loss(torch.as_tensor(task.y_train))
        facts.append({"id": case.id, "chance_loss": chance})
        for stage, share in STAGES.items():
            own = staged(suite, case, share * chance) if math.isfinite(share) else None
            if own is None:
                continue
            records, _ = visit_case(suite, own, options, observed, COLUMNS)
            found[stage] += [(len(facts) - 1, record) for record in records]
    env = environment()
    for stage, rows in found.items():
        if not rows:
            continue
        records = [record for _, record in rows]
        values = [
            [(r.measurements or {}).get(column, math.nan) for column in COLUMNS] for r in records
        ]
        kept = [
            k for k, column in enumerate(zip(*values, strict=True)) if np.isfinite(column).any()
        ]
        shard = Shard(
            header={
                "schema": ATLAS_SCHEMA,
                "suite": {"name": suite.name, "version": suite.version},
                "stage": stage, "cases": facts, "columns": [COLUMNS[k] for k in kept],
                "arguments": {"setups": num, "seed": seed},
                "made_with": {"fls-bench": __version__, "python": env["python"], "torch": env["torch"]},
            },
            values=np.array(values, dtype=np.float32)[:, kept],
            case=np.array([k for k, _ in rows]),
            log2_c=np.array([math.log2(r.config.c) for r in records]),
            seed=np.array([r.config.seed for r in records]),
            outcome=np.array([OUTCOMES.index(r.outcome) for r in records]),
            errors=np.full((len(rows), 5), math.nan),
        )  # fmt: skip
        path = atlas_folder() / f"stage-{stage}.npz"
        save_shard(path, shard)
        reached = sum(r.outcome is Outcome.REACHED_TARGET for r in records)
        print(f"{path}: {reached} of {len(rows)} nets reached the stage {stage}")


# --- fitting --------------------------------------------------------------------------------


def staged_nets(
    shards: tuple[Shard, ...], atlas: Labelled, paths: list[Path]
) -> dict[Stage, Labelled]:
    """The nets of each stage, by the loss that was measured on them, with the truth of the atlas.

    A net that fell through several stages in one epoch belongs to the last of them.
    """
    truth = {}
    for (name, log2_c, _), row in places(atlas, shards).items():
        truth[name, log2_c] = row
    found: dict[Stage, dict[tuple[str, float], tuple[int, Any]]] = {stage: {} for stage in STAGES}
    for shard in map(load_shard, paths):
        columns = list(shard.header["columns"])
        loss = shard.values[:, columns.index("loss.train")]
        for k in np.flatnonzero(shard.outcome == OUTCOMES.index(Outcome.REACHED_TARGET)):
            case = shard.header["cases"][shard.case[k]]
            key = case["id"], float(shard.log2_c[k])
            stage = stage_of(float(loss[k]), case["chance_loss"])
            if key in truth and stage != "start":
                values = np.full(len(COLUMNS), np.nan)
                values[[COLUMNS.index(name) for name in columns]] = shard.values[k]
                found[stage].setdefault(key, (truth[key], values))
    result: dict[Stage, Labelled] = {}
    for stage, nets in found.items():
        rows = np.array([row for row, _ in nets.values()], dtype=int)
        if stage == "start":
            rows = np.arange(len(atlas.case))
        result[stage] = Labelled(
            columns=atlas.columns if stage == "start" else np.array([v for _, v in nets.values()]),
            case=atlas.case[rows], regime=atlas.regime[rows], grey=atlas.grey[rows],
            log2_ratio=atlas.log2_ratio[rows], signal=np.ones(len(rows), dtype=bool),
            facts=atlas.facts,
        )  # fmt: skip
    return result


def models_of(staged: Mapping[Stage, Labelled]) -> dict[Stage, ReadingModel]:
    """The models of all stages."""
    return {stage: calibrate(nets, EVIDENCE, nets.fitted_to, observables(stage))[0]
            for stage, nets in staged.items()}  # fmt: skip


def observables(stage: Stage) -> tuple[str, ...]:
    """What a stage's model rests on."""
    return AT_START if stage == "start" else OBSERVABLES


def fitted(paths: list[Path]) -> WatchModels:
    """Models of all stages, and how well each does on tasks and families that were left out."""
    shards = load_atlas(atlas_folder())
    staged = staged_nets(shards, labelled(shards), paths)
    figures: dict[Stage, tuple[EvaluationRow, ...]] = {}
    for stage, nets in staged.items():
        found = []
        for kind in ("task", "family"):
            judged, _ = leave_out(nets, EVIDENCE, nets.fitted_to, kind, observables(stage))
            found.append(row_of(judged, EVIDENCE, kind, LEVEL).model_copy(update={"groups": ()}))
        figures[stage] = tuple(found)
        print(stage, figures[stage], flush=True)
    about = {**shards[0].header["suite"], "setups": len(load_shard(paths[0]).header["cases"])}
    made_with = {
        "torch": str(torch.__version__).partition("+")[0],
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    return WatchModels(atlas=about, stages=models_of(staged), figures=figures, made_with=made_with)


PAGE = Path(__file__).resolve().parents[1] / "docs" / "watching.md"
BEGIN, END = (
    "<!-- figures: written by benchmarks/watch_survey.py -->", "<!-- end of figures -->",
)  # fmt: skip
COLUMNS_SHOWN = (
    "stage", "nets", "left out", "AUC over-aligned [95 %]", "AUC over-fitted [95 %]",
    "said something", "of these right [95 %]", "opposite [95 %]", "set holds the truth [95 %]",
    "calibration error [95 %]",
)  # fmt: skip


def stored_stages() -> list[Path]:
    """What ``survey`` wrote."""
    return sorted(atlas_folder().glob("stage-*.npz"))


def setups_trained(paths: list[Path]) -> dict[Stage, int]:
    """Of how many setups nets were trained to each stage; ``staged`` says of which not."""
    shards = {shard.header["stage"]: shard for shard in map(load_shard, paths)}
    return {stage: len(np.unique(shards[stage].case)) for stage in STAGES if stage in shards}


def page(models: WatchModels) -> str:
    """What stands between the markers of the page."""
    rows = [
        (
            stage, f"{one.num_read} of {one.n}", f"{one.left_out} ({one.num_groups})",
            words.interval(one.auc_over_aligned, 3), words.interval(one.auc_over_fitted, 3),
            words.of_hundred(1 - one.abstained.value), words.percent(one.emitted_accuracy),
            words.percent(one.opposite, 2), words.percent(one.coverage),
            words.interval(one.calibration_error, 3),
        )
        for stage, found in models.figures.items() for one in found
    ]  # fmt: skip
    made = models.made_with
    trained = setups_trained(stored_stages())
    counts = ", ".join(f"{num} {stage}" for stage, num in trained.items())
    return (
        f"{models.atlas['setups']} setups were drawn for the later stages, of which nets were trained "
        f"to a stage where it comes before the setup's own stop ({counts}); one seed; torch "
        f"{made['torch']}, {made['date']}. {words.NOTE}\n\n{table(COLUMNS_SHOWN, rows)}"
    )


def write_page(models: WatchModels) -> None:
    """Put the figures into the page."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{page(models)}\n\n{END}{rest.partition(END)[2]}", "utf-8")


def main() -> None:
    """Survey or fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("survey")
    first.add_argument("--setups", type=int, default=128)
    first.add_argument("--seed", type=int, default=0)
    first.add_argument("--store", type=Path)
    commands.add_parser("fit")
    commands.add_parser("page")
    options = parser.parse_args()
    if options.command == "survey":
        survey(options.setups, options.seed, options.store)
        return
    if options.command == "page":
        write_page(load_watch_models())
        return
    models = fitted(stored_stages())
    text = models.model_dump_json(by_alias=True, exclude_none=True) + "\n"
    write_whole(atlas_folder() / "watching.json", text.encode())
    write_page(models)


if __name__ == "__main__":
    main()
