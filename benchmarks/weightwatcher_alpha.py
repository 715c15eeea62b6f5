"""WeightWatcher's mean alpha beside the reading, on the same nets of the atlas, which are trained again.

    pip install weightwatcher
    python benchmarks/weightwatcher_alpha.py --cases 100 --write baselines/atlas/weightwatcher.json

The atlas keeps no weights: some of its setups are drawn, and their nets of the first seed trained as
``fls-bench calibrate --survey`` does. Truth is that of the atlas. Alpha and the initial logit scale are
fitted to the nets drawn here, one task or family out at a time; the logit scale also to the whole atlas,
as the reading is.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer
from watch_survey import Told, drawn

from fls_bench.atlas import Shard, atlas_folder, load_atlas, models_digest
from fls_bench.bench import Options
from fls_bench.calibrating import Labelled, labelled, places
from fls_bench.evaluating import leave_out, raw_auc
from fls_bench.facts import environment
from fls_bench.schema import Outcome
from fls_bench.suite import load_suite
from fls_bench.surveying import visit_case
from fls_bench.tasks import Task
from fls_bench.training import TrainedRun
from fls_bench.training.runs import make_net
from fls_bench.training_setup import TrainingSetup
from fls_bench.verdict.reading.observables import OBSERVABLES, matrix
from fls_bench.verdict.reading.truth import REGIMES

ALPHA = "alpha"
Values = npt.NDArray[np.float64]


def alpha_of(setup: TrainingSetup, task: Task, run: TrainedRun) -> Mapping[str, float]:
    """The mean alpha of the layers that WeightWatcher fits; nothing where it fits none."""
    from weightwatcher import WeightWatcher

    net = make_net(setup, run.config.seed, run.config.c, torch.float32)
    net.load_state_dict(dict(run.final))
    watcher = WeightWatcher(model=net)
    try:
        details = watcher.analyze()
        value = watcher.get_summary(details).get(ALPHA)
    except Exception as error:  # it raises what it likes on layers that are too small
        print(f"no alpha: {type(error).__name__}: {str(error)[:80]}")
        return {}
    return {ALPHA: float(value)} if value is not None and math.isfinite(value) else {}


def measured(atlas: Labelled, num: int, seed: int, store: Path | None) -> list[dict[str, Any]]:
    """Train the first seed of some setups that have nets of known regime, and measure alpha."""
    suite = load_suite("atlas").model_copy(update={"seeds": 1})
    options = Options(Told(), jobs=1, store=store)
    rows = []
    for case in drawn(suite, atlas, num, seed):
        records, _ = visit_case(suite, case, options, alpha_of, (ALPHA,))
        rows += [
            {
                "id": case.id, "log2_c": math.log2(record.config.c), "seed": record.config.seed,
                ALPHA: (record.measurements or {}).get(ALPHA),
            }
            for record in records if record.outcome is Outcome.REACHED_TARGET
        ]  # fmt: skip
    return rows


def alone(value: Values, regime: npt.NDArray[Any], groups: npt.NDArray[Any]) -> Values:
    """Probabilities from one number, one group out at a time: ``[R, 3]``."""
    found = np.empty((len(value), len(REGIMES)))
    for group in np.unique(groups):
        out = groups == group
        fit = make_pipeline(
            SplineTransformer(n_knots=6, degree=1, knots="quantile", extrapolation="constant"),
            LogisticRegression(),
        )
        fit.fit(value[~out, None], regime[~out])
        assert list(fit.classes_) == [0, 1, 2]
        found[out] = fit.predict_proba(value[out, None])
    return found


def fitted(probabilities: Values, regime: npt.NDArray[Any]) -> list[float]:
    """Areas under the curve, over-aligned and over-fitted."""
    return [round(float(roc_auc_score(regime == k, probabilities[:, k])), 4) for k in (0, 2)]


def raw(value: Values, regime: npt.NDArray[Any]) -> list[float]:
    """The same of a number as it is, in whichever direction is better."""
    return [round(raw_auc(value, regime == k), 4) for k in (0, 2)]


def compare(
    atlas: Labelled, shards: tuple[Shard, ...], rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """Areas under the curve of alpha, initial logit scale and reading, on the same nets."""
    where = places(atlas, shards)
    own = [(where.get((r["id"], r["log2_c"], r["seed"])), r[ALPHA]) for r in rows]
    kept = [(row, alpha) for row, alpha in own if row is not None and atlas.known[row]]
    lacking = sum(alpha is None for _, alpha in kept)
    nets = np.array([row for row, alpha in kept if alpha is not None])
    alpha = np.array([alpha for _, alpha in kept if alpha is not None], dtype=float)
    regime = atlas.regime[nets]
    logits = matrix(atlas.by_column(nets), [o for o in OBSERVABLES if o.name == "initial_logits"])[
        :, 0
    ]
    result: dict[str, Any] = {
        "nets": len(nets),
        "without_alpha": lacking,
        "setups": len(np.unique(atlas.case[nets])),
        "regimes": {one.value: int((regime == k).sum()) for k, one in enumerate(REGIMES)},
        "areas": [],
    }
    every = atlas.fitted_to
    for left_out in ("task", "family"):
        groups = atlas.of_case(left_out)[every]
        order = np.concatenate([every[groups == group] for group in np.unique(groups)])
        at = {int(row): k for k, row in enumerate(order)}
        mine = np.array([at[int(row)] for row in nets])
        judged = leave_out(atlas, "T2", every, left_out)[0].part(mine)
        scale = leave_out(atlas, "T2", every, left_out, ("initial_logits",))[0].part(mine)
        read = judged.read & np.isfinite(logits)  # on the nets that the reading gives probabilities
        truth, own = regime[read], atlas.of_case(left_out)[nets][read]
        for name, areas in (
            ("WeightWatcher's mean alpha, as it is", raw(alpha[read], truth)),
            ("WeightWatcher's mean alpha", fitted(alone(alpha[read], truth, own), truth)),
            ("initial logit scale, as it is", raw(logits[read], truth)),
            (
                "initial logit scale, fitted to these nets",
                fitted(alone(logits[read], truth, own), truth),
            ),
            ("initial logit scale", fitted(scale.probabilities[read], truth)),
            ("the reading (T2)", fitted(judged.probabilities[read], truth)),
        ):
            result["areas"].append(
                {
                    "name": name, "left_out": left_out, "nets": int(read.sum()),
                    "auc_over_aligned": areas[0], "auc_over_fitted": areas[1],
                }
            )  # fmt: skip
    return result


def main() -> None:
    """Train, measure, compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--write", type=Path, required=True)
    parser.add_argument(
        "--again",
        action="store_true",
        help="compare the nets that --write's file holds; train none",
    )
    options = parser.parse_args()
    logging.getLogger("weightwatcher").setLevel(logging.ERROR)
    shards = load_atlas(atlas_folder())
    atlas = labelled(shards)
    if options.again:
        kept = json.loads(options.write.read_text("utf-8"))
        rows, arguments, made_with = kept["trained"], kept["arguments"], kept["made_with"]
    else:
        rows = measured(atlas, options.cases, options.seed, options.store)
        arguments = {"cases": options.cases, "seed": options.seed}
        env = environment()
        versions = {key: env[key] for key in ("python", "torch", "cpu")}
        made_with = versions | {"weightwatcher": metadata.version("weightwatcher")}
    found = {
        **compare(atlas, shards, rows),
        "made_with": made_with,
        "arguments": arguments,
        "models_sha256": models_digest(),
    }
    text = json.dumps(found, indent=1).removesuffix("\n}")
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    options.write.write_text(f'{text},\n "trained": [\n  {lines}\n ]\n}}\n')
    for one in found["areas"]:
        print(one)


if __name__ == "__main__":
    main()
