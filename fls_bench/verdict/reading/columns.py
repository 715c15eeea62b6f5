"""What the regime is read from: measurements of one net as numbers with fixed names.

A net has any number of layers; a metric that is measured per layer becomes its value in the first and
in the last two layers, and its mean, least and largest value over all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from fls_bench.schema import Measurement

POINTS = {"train": 400, "val": 200, "test": 800}
"""At most so many points of each part are looked at: the same for the atlas and for a file."""

LOGITS = "logits"

PER_NET = (
    "error.train",
    "loss.train",
    "error.test",
    "ties.test",
    "loss.test",
    "calibration.expected_error",
    "calibration.brier",
    "share.initial_function",
    "scale.logits",
    "scale.logits_at_init",
    "agreement.nearest_class_mean",
    "agreement.nearest_class_mean_errors",
    "dimension.two_nn_of_inputs",
    "kernel.change",
    "kernel.label_alignment",
    "kernel.label_alignment_at_init",
    "probe.ridge_on_inputs",
    "probe.ridge_first_minus_last",
    "probe.few_shot_on_inputs",
    "reference.class_means",
    "reference.kernel",
    "reference.kernel_unsmoothed",
)
PER_LAYER = (
    "movement.relative",
    "cka.init_to_final",
    "cka.init_to_final_train",
    "alignment.class_means",
    "alignment.class_means_at_init",
    "rank.over_classes",
    "rank.over_classes_train",
    "rank.to_init",
    "spectrum.stable_rank",
    "spectrum.stable_rank_at_init",
)
OF_VECTORS = ("alignment.class_means", "alignment.class_means_at_init")
"""Convolutions have no value of these: in a net that has some, the layers that have one count."""
OF_LAST = (
    "agreement.nearest_class_mean_in_features",
    "dimension.two_nn",
    "collapse.variability_train",
    "collapse.variability_test",
    "collapse.test_over_train",
    "collapse.self_duality",
    "probe.ridge",
    "probe.ridge_at_init",
    "probe.few_shot",
    "probe.few_shot_at_init",
    "probe.inputs_kept",
    "probe.inputs_kept_at_init",
)
OF_LOGITS = ("rank.over_classes", "rank.over_classes_train")
METRICS = (*PER_NET, *PER_LAYER, *OF_LAST)
"""Every metric that has to be measured."""

PLACES = ("first", "before_last", "last", "mean", "least", "largest")
FACTS = (
    "n_train",
    "n_classes",
    "input_dim",
    "depth",
    "width",
    "parameters",
    "normalised",
    "images",
    "centered",
)
"""Of the setup: points it was trained on, classes, numbers of an input, weight layers, width of the
last features, parameters, whether it has normalisation layers or takes images, and whether it is
centred."""

COLUMNS = (
    *PER_NET,
    *(f"{metric}:{place}" for metric in PER_LAYER for place in PLACES),
    *OF_LAST,
    *(f"{metric}:{LOGITS}" for metric in OF_LOGITS),
    *FACTS,
)
"""Names of the numbers, in the order of the atlas."""


def columns(measurements: Iterable[Measurement], facts: Mapping[str, float]) -> dict[str, float]:
    """The numbers of one net.

    Args:
        measurements: Of the net; those that are unavailable are left out.
        facts: By the names in ``FACTS``.

    Returns:
        Column -> finite number; what could not be measured is absent.
    """
    found: dict[str, float] = {key: float(facts[key]) for key in FACTS if key in facts}
    layers: dict[str, list[float]] = {}
    for one in measurements:
        value = math.nan if one.value is None else one.value
        if one.metric in PER_NET:
            found[one.metric] = value
        elif one.layer == LOGITS:
            if one.metric in OF_LOGITS:
                found[f"{one.metric}:{LOGITS}"] = value
        elif one.metric in OF_LAST:
            found[one.metric] = value  # the later one: probes of the first layer come before
        elif one.metric in PER_LAYER:
            if one.value is None and one.metric in OF_VECTORS and facts.get("images"):
                continue
            layers.setdefault(one.metric, []).append(value)
    for metric, values in layers.items():
        for place, value in zip(PLACES, _places(values), strict=True):
            found[f"{metric}:{place}"] = value
    return {key: value for key, value in found.items() if math.isfinite(value)}


def _places(values: Sequence[float]) -> tuple[float, ...]:
    """NaN where the value of that place, or for mean and extremes any value, is missing."""
    mean = math.fsum(values) / len(values)
    least, largest = (math.nan, math.nan) if math.isnan(mean) else (min(values), max(values))
    return values[0], values[max(0, len(values) - 2)], values[-1], mean, least, largest
