"""The directions that the table claims, seen on nets trained at both ends of the range of c."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from own_nets import config, in_one_batch, rule_of

from fls_bench.metrics import METRICS, measure
from fls_bench.scaling import scaled_rate
from fls_bench.schema import Recipe, Regime, TargetLoss
from fls_bench.subject import snapshot_of
from fls_bench.subject.setups import built_in_setup
from fls_bench.tasks import task_source

DIRECTED = [name for name, row in METRICS.items() if row.direction is not None]
SMALL, MIDDLE, LARGE = 2.0**-8, 2.0**-2, 2.0**4
Found = dict[tuple[str, str | None], dict[float, float]]


@pytest.fixture(scope="module")
def found() -> Found:
    """Metric and layer -> c -> what was measured, for one deep net on digits at three values of c."""
    recipe = Recipe(stop=TargetLoss(target_loss=0.1, max_epochs=400), batch_size=25)
    source = task_source("digits", {"n_train": 150})
    setup = built_in_setup("mlp", {"width": 32, "depth": 4}, source, recipe)
    rule = rule_of(setup)
    configs = [
        config(setup, c=c, lr=scaled_rate(0.1, rule, 2, at=(1.0, 1.0), to=(c, 1.0)))
        for c in (SMALL, MIDDLE, LARGE)
    ]
    values: Found = {}
    for run in in_one_batch(setup, configs, torch.float32, rule):
        assert run.outcome == "reached_target"
        at_c = replace(setup, output_multiplier=run.config.c)
        snap = snapshot_of(at_c, setup.task_for(0), run.final, run.init, kernel_points=40)
        for one in measure(snap, [*DIRECTED, "scale.logits"]):
            if one.value is not None:
                values.setdefault((one.metric, one.layer), {})[run.config.c] = one.value
    return values


def test_every_direction_is_that_of_small_against_large_c_in_every_layer(found: Found) -> None:
    seen = set()
    for (metric, layer), by_c in found.items():
        direction = METRICS[metric].direction
        if direction is None or not {SMALL, LARGE} <= by_c.keys():
            continue
        seen.add(metric)
        rises = by_c[LARGE] - by_c[SMALL]
        toward = rises if direction is Regime.OVER_FITTED else -rises
        assert toward > METRICS[metric].min_effect, (metric, layer, by_c)
    # Small matrices hardly have a tail.
    assert seen | {"spectrum.tail_exponent"} == set(DIRECTED)


def test_the_scale_of_the_logits_rises_toward_both_ends_and_so_points_to_none(found: Found) -> None:
    by_c = found["scale.logits", None]
    assert METRICS["scale.logits"].direction is None
    assert by_c[MIDDLE] < 0.7 * min(by_c[SMALL], by_c[LARGE])
