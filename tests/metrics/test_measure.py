import dataclasses
import functools
import importlib
import itertools
import json
import math
import pkgutil
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from profiles import FEW

from fls_bench import metrics, scaling
from fls_bench.errors import InputError
from fls_bench.metrics import LOGITS, METRICS, Metric, NetState, Snapshot, TangentKernel, measure
from fls_bench.metrics.alignment import class_directions, class_means
from fls_bench.metrics.families import alignment, probing
from fls_bench.metrics.probes import linear_probe, neighbour_probe
from fls_bench.schema import Measurement, Regime

K, D, WIDTHS = 4, 8, (12, 10)
SIZES = {"train": 48, "val": 40, "test": 120}
FEATURES = tuple(f"{split}_features" for split in SIZES)
LAYERS = ("fc1", "fc2")
NEED_INIT = {name for name, row in METRICS.items() if "init" in row.needs}


# Matrices this small have too few eigenvalues for a tail; test_spectra measures larger ones.
TOO_SMALL = {("spectrum.tail_exponent", layer) for layer in ("fc1", "fc2", "fc3")}


def draw(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def data(seed=0, noise=2.0, classes=K):
    """Inputs and labels by split."""
    centers = draw(classes, D, seed=seed)
    parts = {}
    for i, (split, n) in enumerate(SIZES.items()):
        y = torch.arange(n) % classes
        parts[f"x_{split}"] = centers[y] + noise * draw(n, D, seed=seed + 10 + i)
        parts[f"y_{split}"] = y
    return parts


def state(weights, parts):
    """What a ReLU net with these weights computes."""
    names = [f"fc{i + 1}" for i in range(len(weights))]
    values = {"weights": dict(zip(names, weights, strict=True))}
    for split in SIZES:
        x, features = parts[f"x_{split}"], {}
        for name, w in zip(names[:-1], weights[:-1], strict=True):
            x = features[name] = (x @ w.T).relu()
        values[f"{split}_features"] = features
        values[f"{split}_outputs"] = x @ weights[-1].T
    gram = relu_kernel(weights, torch.cat([parts["x_train"], parts["x_test"]]))
    n = SIZES["train"]
    points = torch.arange(n), torch.arange(SIZES["test"])
    kernel = TangentKernel(points[0], gram[:n, :n], points[1], gram[n:, :n])
    return NetState(kernel=kernel, **values)


def relu_kernel(weights, x):
    """Tangent kernel of a ReLU net without biases, layer by layer: (a a^T) * (delta delta^T)."""
    inputs = [x]
    for w in weights[:-1]:
        inputs.append((inputs[-1] @ w.T).relu())
    outputs = len(weights[-1])
    delta = torch.eye(outputs, dtype=x.dtype).expand(len(x), outputs, outputs)
    gram = torch.zeros(len(x), len(x), dtype=x.dtype)
    for w, a in zip(weights[::-1], inputs[::-1], strict=True):
        gram += (a @ a.T) * torch.einsum("nkh,mkh->nm", delta, delta) / outputs
        delta = (delta @ w) * (a > 0)[:, None, :]
    return gram


def snapshot(seed=0, widths=WIDTHS, outputs=K, parts=None, **changes):
    """A net whose weights moved from their init; not trained, but not random to its data either."""
    parts = parts or data(seed)
    sizes = (D, *widths, outputs)
    initial = [
        draw(m, n, seed=seed + 20 + i) / n**0.5
        for i, (n, m) in enumerate(itertools.pairwise(sizes))
    ]
    final = [w + 0.5 * draw(*w.shape, seed=seed + 40 + i) for i, w in enumerate(initial)]
    # A read-out that is better than chance: labels have a scale against c f_0 only then.
    last = (list(state(final, parts).train_features.values()) or [parts["x_train"]])[-1]
    hot = torch.nn.functional.one_hot(parts["y_train"], max(outputs, 2)).double()
    target = hot if outputs > 1 else 2 * hot[:, 1:] - 1
    final[-1] = 0.1 * final[-1] + torch.linalg.lstsq(last, target).solution.T
    values = {
        "final": state(final, parts),
        "init": state(initial, parts),
        "c": 0.25,
        "centered": False,
        "n_classes": max(K if outputs > 1 else 2, int(parts["y_train"].max()) + 1),
        **parts,
        **changes,
    }
    return Snapshot(**values)


def by_key(measurements):
    return {(m.metric, m.layer): m for m in measurements}


def value(snap, name, layer=None):
    (found,) = [m for m in measure(snap, [name]) if m.layer == layer]
    assert found.status == "ok", found.reason
    return found.value


@functools.cache
def baseline():
    """Everything measured on the plain snapshot."""
    return by_key(measure(snapshot()))


def change_features(net, change):
    """A net state whose hidden features of all splits are changed, layer by layer."""
    return dataclasses.replace(
        net,
        **{
            f"{split}_features": {
                layer: change(layer, x) for layer, x in getattr(net, f"{split}_features").items()
            }
            for split in SIZES
        },
    )


def cast(value, dtype):
    """Every tensor of a net state, a mapping or alone, in another type."""
    if isinstance(value, torch.Tensor):
        return value.to(dtype)
    if isinstance(value, dict):
        return {k: cast(v, dtype) for k, v in value.items()}
    if isinstance(value, TangentKernel | frozenset):
        return value
    return NetState(
        **{f.name: cast(getattr(value, f.name), dtype) for f in dataclasses.fields(value)}
    )


def change_nets(snap, change):
    return dataclasses.replace(snap, final=change(snap.final), init=change(snap.init))


def rescale_neurons(snap, factors):
    """Into each hidden neuron times its factor, out of it divided by it."""
    parts = {f"x_{s}": getattr(snap, f"x_{s}") for s in SIZES}

    def rescaled(net):
        w = list(net.weights.values())
        for i, factor in enumerate(factors):
            w[i], w[i + 1] = factor[:, None] * w[i], w[i + 1] / factor
        return state(w, parts)

    return change_nets(snap, rescaled)


def widths_of(snap):
    return [x.shape[1] for x in snap.final.train_features.values()]


def permute_neurons(snap):
    parts = {f"x_{s}": getattr(snap, f"x_{s}") for s in SIZES}

    def permuted(net):
        w = list(net.weights.values())
        for i, width in enumerate(widths_of(snap)):
            order = draw(width, seed=70 + i).argsort()
            w[i], w[i + 1] = w[i][order], w[i + 1][:, order]
        return state(w, parts)

    return change_nets(snap, permuted)


def rotate_features(snap):
    def rotated(net):
        turn = {
            layer: torch.linalg.qr(draw(width, width, seed=60 + width + (net is snap.init))).Q
            for layer, width in zip(LAYERS, widths_of(snap), strict=True)
        }
        return change_features(net, lambda layer, x: x @ turn[layer])

    return change_nets(snap, rotated)


def scale_outputs(net):
    return dataclasses.replace(
        net, **{f"{split}_outputs": 3.7 * getattr(net, f"{split}_outputs") for split in SIZES}
    )


def reorder_samples(snap):
    order = {split: draw(n, seed=80 + n).argsort() for split, n in SIZES.items()}

    def reordered(net):
        changes = {}
        for split, o in order.items():
            features = getattr(net, f"{split}_features")
            changes[f"{split}_features"] = {layer: x[o] for layer, x in features.items()}
            changes[f"{split}_outputs"] = getattr(net, f"{split}_outputs")[o]
        moved = {
            f"{split}_points": order[split].argsort()[getattr(net.kernel, f"{split}_points")]
            for split in ("train", "test")
        }
        changes["kernel"] = dataclasses.replace(net.kernel, **moved)
        return dataclasses.replace(net, **changes)

    points = {f"{k}_{s}": getattr(snap, f"{k}_{s}")[o] for s, o in order.items() for k in "xy"}
    return dataclasses.replace(change_nets(snap, reordered), **points)


CHANGES = {
    "neuron_permutation": permute_neurons,
    "relu_rescaling": lambda snap: rescale_neurons(
        snap, [draw(width, seed=50 + width).exp() for width in widths_of(snap)]
    ),
    "feature_rotation": rotate_features,
    "feature_scale": lambda snap: change_nets(
        snap, lambda net: change_features(net, lambda _, x: 5.3 * x)
    ),
    "output_scale": lambda snap: change_nets(snap, scale_outputs),
    "sample_order": reorder_samples,
}


# --- the table ----------------------------------------------------------------------------------


@pytest.mark.parametrize("row", METRICS.values(), ids=METRICS)
def test_rows_are_complete(row: Metric):
    assert METRICS[row.name] is row
    assert row.name.count(".") == 1
    assert row.direction in (None, Regime.OVER_ALIGNED, Regime.OVER_FITTED)
    assert row.better in (None, "higher", "lower")
    assert row.unit
    assert row.needs
    assert row.range[0] < row.range[1]
    # Worth attention is a twentieth of what can be, or one unit where there is no bound.
    assert 0 < row.min_effect <= min(1, 0.05 * (row.range[1] - row.range[0]))
    assert row.min_samples >= 0
    assert (row.split is None) == (row.min_samples == 0)
    assert row.split is None or f"{row.split}_data" in row.needs
    assert 0 < row.cost(100, 64, 128) < row.cost(200, 128, 256) < math.inf
    assert row.invariant_to <= set(CHANGES)
    assert "neuron_permutation" in row.invariant_to
    assert row.undefined.endswith(".")


def test_directions_are_those_of_the_field():
    toward = {name: row.direction for name, row in METRICS.items() if row.direction}
    assert toward == {
        "movement.relative": "over_aligned",
        "alignment.class_means": "over_aligned",
        "cka.init_to_final": "over_fitted",
        "kernel.change": "over_aligned",
        "rank.effective": "over_fitted",
        "rank.over_classes": "over_fitted",
        "spectrum.stable_rank": "over_fitted",
        "spectrum.tail_exponent": "over_fitted",
        "dimension.two_nn": "over_fitted",
        "share.initial_function": "over_fitted",
    }


@pytest.mark.parametrize("name", CHANGES)
def test_rows_are_invariant_to_what_they_say(name):
    before = baseline()
    after = by_key(measure(CHANGES[name](snapshot())))
    assert before.keys() == after.keys()
    for key, old in before.items():
        if name in METRICS[key[0]].invariant_to:
            new = after[key]
            for field in ("value", "low", "high"):
                pair = getattr(old, field), getattr(new, field)
                assert pair == (None, None) or pair[1] == pytest.approx(pair[0], rel=1e-7), key


QUICK = [name for name in METRICS if not name.startswith(("probe.", "spectrum.tail"))]


@FEW
@given(
    seed=st.integers(0, 2**20),
    widths=st.sampled_from([(12, 10), (9, 14)]),
    outputs=st.sampled_from([1, K]),
)
@pytest.mark.parametrize("name", CHANGES)
def test_invariances_hold_for_any_net_and_data(name, seed, widths, outputs):
    snap = snapshot(seed, widths, outputs, data(seed, classes=max(2, outputs)))
    before, after = by_key(measure(snap, QUICK)), by_key(measure(CHANGES[name](snap), QUICK))
    for key, old in before.items():
        if name in METRICS[key[0]].invariant_to:
            assert after[key].status == old.status, key
            for field in ("value", "low", "high"):
                pair = getattr(old, field), getattr(after[key], field)
                # Ties of rounding can turn an answer; they do not for draws from a continuum.
                assert pair == (None, None) or pair[1] == pytest.approx(
                    pair[0], rel=1e-6, abs=1e-9
                ), key


def test_relu_rescaling_changes_what_does_not_claim_to_be_invariant():
    before = baseline()
    after = by_key(measure(CHANGES["relu_rescaling"](snapshot())))
    for name in ("movement.relative", "cka.init_to_final", "rank.effective"):
        assert "relu_rescaling" not in METRICS[name].invariant_to
        key = (name, "fc2")
        assert abs(before[key].value - after[key].value) > 0.01 * before[key].value


# --- measure ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("outputs", [1, K])
@pytest.mark.parametrize("centered", [False, True])
def test_every_name_gives_a_valid_measurement_within_its_range(dtype, outputs, centered):
    parts = data(classes=2 if outputs == 1 else K)
    snap = snapshot(outputs=outputs, parts=parts, centered=centered)
    snap = change_nets(snap, lambda net: cast(net, dtype))
    points = {k: cast(x, dtype) for k, x in parts.items() if k.startswith("x_")}
    snap = dataclasses.replace(snap, **points)
    measurements = measure(snap)
    assert list(dict.fromkeys(m.metric for m in measurements)) == list(METRICS)
    for m in measurements:
        assert Measurement.model_validate_json(m.model_dump_json()) == m
        row = METRICS[m.metric]
        assert (m.unit, m.split) == (row.unit, row.split)
        assert row.per_layer or m.layer is None
        if m.status == "ok":
            assert m.reason is None
            assert row.range[0] <= m.value <= row.range[1]
            assert m.low is None or m.low <= m.value <= m.high
    unavailable = {(m.metric, m.layer) for m in measurements if m.status == "unavailable"}
    assert unavailable - TOO_SMALL == (
        ({("share.initial_function", None)} if centered else set())
        | ({("rank.effective", LOGITS), ("rank.over_classes", LOGITS)} if outputs == 1 else set())
    )


def test_layers_have_their_places():
    layers = {}
    for m in baseline().values():
        layers.setdefault(m.metric, []).append(m.layer)
    assert layers["movement.relative"] == ["fc1", "fc2", "fc3"]
    assert layers["alignment.class_means"] == ["fc1", "fc2", "fc3"]
    assert layers["cka.init_to_final"] == ["fc1", "fc2"]
    assert layers["rank.effective"] == ["fc1", "fc2", LOGITS]
    assert layers["probe.linear"] == ["fc1", "fc2"]
    assert layers["probe.linear_at_init"] == ["fc2"]
    assert layers["error.test"] == [None]


def test_names_of_layers_do_not_matter():
    # Modules of a Sequential are named by numbers, which do not sort as texts.
    names = {"fc1": "8", "fc2": "10", "fc3": "9"}

    def renamed(net):
        mappings = {field: getattr(net, field) for field in ("weights", *FEATURES)}
        return dataclasses.replace(
            net, **{k: {names[n]: x for n, x in m.items()} for k, m in mappings.items()}
        )

    found = by_key(measure(change_nets(snapshot(), renamed)))
    for (metric, layer), old in baseline().items():
        new = found[metric, names.get(layer, layer)]
        assert (new.status, new.reason) == (old.status, old.reason), (metric, layer)
        assert old.value is None or new.value == pytest.approx(old.value, rel=1e-9), (metric, layer)


def test_what_the_metrics_take_and_give_can_not_be_changed():
    modules = [
        scaling,
        *(
            importlib.import_module(m.name)
            for m in pkgutil.walk_packages(metrics.__path__, f"{metrics.__name__}.")
        ),
    ]
    values = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and dataclasses.is_dataclass(value)
    }
    assert {Metric, NetState, Snapshot, TangentKernel, scaling.Factors} < values
    assert all(value.__dataclass_params__.frozen for value in values)


def test_a_number_does_not_depend_on_what_else_is_asked_or_on_global_randomness():
    snap = snapshot()
    whole = by_key(measure(snap))
    torch.manual_seed(123)
    for name in METRICS:
        part = measure(snap, [name])
        assert {m.metric for m in part} == {name}
        assert all(whole[m.metric, m.layer] == m for m in part)


def test_measuring_draws_nothing_from_the_global_generator_and_changes_no_tensor():
    snap = snapshot()
    before, copy = torch.random.get_rng_state(), snap.final.weights["fc1"].clone()
    measure(snap)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(copy, snap.final.weights["fc1"])


def test_an_unknown_name_is_an_input_error_that_lists_the_known_ones():
    with pytest.raises(InputError, match=r"no metric named error\.tset.*error\.test"):
        measure(snapshot(), ["error.tset"])


def test_no_names_is_nothing():
    assert measure(snapshot(), []) == ()


def test_logits_follow_c_and_centring():
    snap = snapshot(c=0.5)
    torch.testing.assert_close(snap.logits("validation"), 0.5 * snap.final.val_outputs)
    centered = dataclasses.replace(snap, centered=True)
    difference = snap.final.test_outputs - snap.init.test_outputs
    torch.testing.assert_close(centered.logits("test"), 0.5 * difference)
    expected = torch.nn.functional.cross_entropy(0.5 * difference, snap.y_test)
    assert value(centered, "loss.test") == pytest.approx(float(expected))
    assert value(snap, "loss.test") != pytest.approx(float(expected))


def test_losses_and_errors_are_of_their_split():
    snap = snapshot()
    right = dataclasses.replace(
        snap.final, test_outputs=torch.nn.functional.one_hot(snap.y_test, K).double()
    )
    snap = dataclasses.replace(snap, final=right)
    assert value(snap, "error.test") == 0
    assert value(snap, "error.train") > 0.1


# --- what the numbers mean ----------------------------------------------------------------------


def as_nearest_class_mean(snap, label_change=0):
    """The net whose test logits are those of the nearest-class-mean classifier."""
    means = class_means(snap.x_train, snap.y_train, K)
    logits = snap.x_test @ means.T - 0.5 * means.square().sum(1)
    net = dataclasses.replace(snap.final, test_outputs=logits.roll(label_change, dims=1))
    return dataclasses.replace(snap, final=net)


def test_a_net_that_is_the_nearest_class_mean_classifier_agrees_and_copies_its_errors():
    snap = snapshot(parts=data(noise=2.0))
    same = as_nearest_class_mean(snap)
    assert value(same, "agreement.nearest_class_mean") == 1
    assert value(same, "agreement.nearest_class_mean_errors") == 1
    other = as_nearest_class_mean(snap, label_change=1)
    assert value(other, "agreement.nearest_class_mean") == 0
    assert value(other, "agreement.nearest_class_mean_errors") == 0


def test_a_net_that_is_always_right_agrees_but_copies_no_error():
    snap = snapshot(parts=data(noise=2.0))
    right = torch.nn.functional.one_hot(snap.y_test, K).double()
    snap = dataclasses.replace(snap, final=dataclasses.replace(snap.final, test_outputs=right))
    errors = by_key(measure(snap))["agreement.nearest_class_mean_errors", None]
    assert errors.value == 0
    assert value(snap, "agreement.nearest_class_mean") == pytest.approx(1 - errors.n / 120)


def test_neurons_on_class_means_beat_both_nulls_and_untrained_ones_do_not():
    snap = snapshot()
    directions = class_directions(snap.x_train, snap.y_train, K)
    means = directions[torch.arange(WIDTHS[0]) % K] + 0.1 * draw(WIDTHS[0], D, seed=3)
    weights = [means, *list(snap.final.weights.values())[1:]]
    trained = dataclasses.replace(snap, final=state(weights, data()))
    found = by_key(measure(trained, sorted(ALIGNMENTS)))
    null = found["alignment.class_means_permutation_null", "fc1"]
    aligned = found["alignment.class_means", "fc1"].value
    assert aligned > 0.9
    assert aligned > null.high + 0.1
    assert aligned > found["alignment.class_means_at_init", "fc1"].value + 0.1
    # An untrained layer exceeds the bound in 5 % of draws (the rate is tested in test_alignment).
    untrained = by_key(measure(dataclasses.replace(snap, final=snap.init), sorted(ALIGNMENTS)))
    for layer in ("fc1", "fc2", "fc3"):
        null = untrained["alignment.class_means_permutation_null", layer]
        own = untrained["alignment.class_means", layer].value
        assert own <= null.high
        assert own == untrained["alignment.class_means_at_init", layer].value


def test_rank_of_logits_ignores_what_softmax_ignores():
    snap = snapshot()
    shifted = snap.final.test_outputs + 100 * draw(SIZES["test"], 1, seed=4)
    moved = dataclasses.replace(snap, final=dataclasses.replace(snap.final, test_outputs=shifted))
    expected = value(snap, "rank.effective", LOGITS)
    assert 1 <= expected <= K - 1
    assert value(moved, "rank.effective", LOGITS) == pytest.approx(expected)


def test_share_of_the_initial_function_falls_as_the_net_moves_away():
    snap = snapshot()
    still = dataclasses.replace(snap, final=snap.init)
    assert value(still, "share.initial_function") == 1
    far = dataclasses.replace(snap, final=scale_outputs(snap.final))
    assert value(far, "share.initial_function") < value(snap, "share.initial_function") < 1


def test_a_collapsed_last_layer_loses_rank_and_probe_accuracy():
    snap = snapshot(parts=data(noise=0.3))
    net = snap.final

    def collapsed(layer, x):
        return x.sum(dim=1, keepdim=True).expand(-1, x.shape[1]) if layer == "fc2" else x

    flat = dataclasses.replace(snap, final=change_features(net, collapsed))
    found = {key: m.value for key, m in by_key(measure(flat)).items()}
    assert found["rank.effective", "fc2"] == pytest.approx(1)
    difference = found["probe.linear", "fc1"] - found["probe.linear", "fc2"]
    assert found["probe.first_minus_last", None] == pytest.approx(difference)
    assert difference > 0.1


# --- what can't be measured ---------------------------------------------------------------------


def with_split(snap, split, n):
    """The snapshot with the first n points of one split."""

    def cut(net):
        features = {k: v[:n] for k, v in getattr(net, f"{split}_features").items()}
        outputs = getattr(net, f"{split}_outputs")[:n]
        rows = [SIZES[k] if k != split else n for k in ("train", "test")]
        kernel = TangentKernel(
            net.kernel.train_points[: rows[0]],
            net.kernel.train[: rows[0], : rows[0]],
            net.kernel.test_points[: rows[1]],
            net.kernel.test[: rows[1], : rows[0]],
        )
        return dataclasses.replace(
            net, **{f"{split}_features": features, f"{split}_outputs": outputs}, kernel=kernel
        )

    points = {f"{k}_{split}": getattr(snap, f"{k}_{split}")[:n] for k in "xy"}
    return dataclasses.replace(change_nets(snap, cut), **points)


def with_final(snap, **changes):
    return dataclasses.replace(snap, final=dataclasses.replace(snap.final, **changes))


def constant_fc2(snap):
    dead = change_features(
        snap.final, lambda layer, x: torch.full_like(x, 0.3) if layer == "fc2" else x
    )
    return dataclasses.replace(snap, final=dead)


def with_nan(tensor):
    return tensor.clone().index_fill_(0, torch.tensor([3]), torch.nan)


def nan_in_fc2(layers):
    return {**layers, "fc2": with_nan(layers["fc2"])}


def family(*names):
    return {name for name in METRICS if name.startswith(names)}


TAIL = {"spectrum.tail_exponent"}  # of matrices this small, see TOO_SMALL
PROBES, ALIGNMENTS, AGREEMENTS = family("probe."), family("alignment."), family("agreement.")
ENERGIES, COLLAPSE, DIMENSIONS = family("energy."), family("collapse."), family("dimension.")
RANKS, ON_LABELS = family("rank."), family("kernel.regression")
REGRESSION = ON_LABELS | {"kernel.function_agreement"}
CALIBRATION, RISK_TRAIN = family("calibration."), {"error.train", "ties.train", "loss.train"}
COLLAPSE_TEST = {"collapse.variability_test", "collapse.test_over_train"}
FROM_TEST_OUTPUTS = {
    "error.test", "ties.test", "loss.test", *RANKS, *AGREEMENTS, *CALIBRATION, *REGRESSION,
}  # fmt: skip
ON_INPUTS = family("probe.linear_on", "probe.neighbours_on", "probe.few_shot_on")
CASES = {
    "no init": (lambda s: dataclasses.replace(s, init=None), NEED_INIT, "initial weights"),
    "centered without init": (
        lambda s: dataclasses.replace(s, init=None, centered=True),
        NEED_INIT | FROM_TEST_OUTPUTS | RISK_TRAIN | {"collapse.self_duality"},
        "initial weights",
    ),
    "no kernel": (
        lambda s: dataclasses.replace(
            change_nets(s, lambda net: dataclasses.replace(net, kernel=None)), no_kernel="So what."
        ),
        family("kernel."),
        "So what.",
    ),
    "few test points": (
        lambda s: with_split(s, "test", 5),
        PROBES | AGREEMENTS | RANKS | REGRESSION | DIMENSIONS | COLLAPSE_TEST
        | {"cka.init_to_final", "share.initial_function", "calibration.expected_error"},
        "points",
    ),
    "no test points": (
        lambda s: with_split(s, "test", 0),
        PROBES | FROM_TEST_OUTPUTS | DIMENSIONS | COLLAPSE_TEST
        | {"cka.init_to_final", "share.initial_function"},
        "points",
    ),
    "few training points": (
        lambda s: with_split(s, "train", 5),
        PROBES | ALIGNMENTS | AGREEMENTS | ENERGIES | family("kernel.")
        | (COLLAPSE - {"collapse.variability_test"}),
        "train points",
    ),
    "no validation points": (
        lambda s: with_split(s, "val", 0), PROBES, "20 validation points, and there are 0",
    ),
    "one class": (
        lambda s: dataclasses.replace(s, y_train=torch.zeros_like(s.y_train)),
        PROBES | ALIGNMENTS | AGREEMENTS | ENERGIES | ON_LABELS
        | family("kernel.label") | (COLLAPSE - {"collapse.variability_test"}),
        "class|The training loss is not below",
    ),
    "NaN in test outputs": (
        lambda s: with_final(s, test_outputs=with_nan(s.final.test_outputs)),
        FROM_TEST_OUTPUTS | {"share.initial_function"},
        "The final outputs on the test points hold NaN",
    ),
    "NaN in weights": (
        lambda s: with_final(s, weights=nan_in_fc2(s.final.weights)),
        ALIGNMENTS | ENERGIES | {"movement.relative", "collapse.self_duality"}
        | family("spectrum."),
        "The final weights hold NaN",
    ),
    "NaN in gradients": (
        lambda s: with_final(
            s, kernel=dataclasses.replace(s.final.kernel, train=with_nan(s.final.kernel.train))
        ),
        family("kernel."),
        "The final gradients hold NaN",
    ),
    "NaN in features": (
        lambda s: with_final(s, test_features=nan_in_fc2(s.final.test_features)),
        (PROBES - ON_INPUTS) | RANKS | COLLAPSE_TEST
        | {"cka.init_to_final", "dimension.two_nn", "agreement.nearest_class_mean_in_features"},
        "The final features on the test points hold NaN",
    ),
    "NaN in test inputs": (
        lambda s: dataclasses.replace(s, x_test=with_nan(s.x_test)),
        (AGREEMENTS - {"agreement.nearest_class_mean_in_features"}) | ON_INPUTS
        | family("probe.inputs_") | {"dimension.two_nn_of_inputs"},
        "inputs on the test points hold NaN",
    ),
    "infinite initial weights": (
        lambda s: dataclasses.replace(
            s, init=dataclasses.replace(
                s.init, weights={**s.init.weights, "fc1": s.init.weights["fc1"] / 0}
            )
        ),
        ENERGIES | {"movement.relative", "alignment.class_means_at_init"},
        "The initial weights hold NaN or infinite",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_can_not_be_computed_is_unavailable_with_the_reason_and_the_rest_stays(case):
    change, expected, fragment = CASES[case]
    found = measure(change(snapshot()))
    assert {m.metric for m in found} == set(METRICS)
    unavailable = [
        m for m in found if m.status == "unavailable" and m.metric not in TAIL - expected
    ]
    assert {m.metric for m in unavailable} == expected
    assert {m.metric for m in found if m.status == "ok"} == set(METRICS) - expected - TAIL
    for m in unavailable:
        assert m.value is m.low is m.high is None
        assert m.reason.endswith(".")
        assert re.search(fragment, m.reason), m.reason
    assert "NaN" not in json.dumps([m.value for m in found])


def test_reasons_stand_in_the_places_of_the_numbers():
    change, expected, _ = CASES["one class"]
    found = measure(change(snapshot()))
    assert by_key(found).keys() == baseline().keys()
    assert {(m.metric, m.layer) for m in found if m.status == "unavailable"} - TOO_SMALL == {
        key for key in baseline() if key[0] in expected
    }


def test_a_layer_that_does_not_vary_is_unavailable_and_the_others_are_not():
    found = by_key(measure(constant_fc2(snapshot())))
    unavailable = {key for key, m in found.items() if m.status == "unavailable"}
    layer_in_3 = {"alignment.class_means", "alignment.class_means_permutation_null"}
    layer_in_3 |= {"alignment.class_means_split_half", *ENERGIES}
    layer_2 = COLLAPSE | RANKS | {"cka.init_to_final", "probe.inputs_kept", "dimension.two_nn"}
    layer_2 |= {"probe.linear", "probe.neighbours", "probe.few_shot", "probe.inputs_forgotten"}
    assert unavailable - TOO_SMALL == {
        *((name, "fc3") for name in layer_in_3),
        *((name, "fc2") for name in layer_2),
        ("probe.first_minus_last", None),
    }
    assert "120 of 120 points coincide" in found["dimension.two_nn", "fc2"].reason
    assert "do not vary" in found["rank.effective", "fc2"].reason
    assert "do not vary" in found["probe.first_minus_last", None].reason


def test_few_errors_of_the_nearest_class_mean_are_not_a_share():
    found = by_key(measure(snapshot(parts=data(noise=0.1))))
    copied = found["agreement.nearest_class_mean_errors", None]
    assert (copied.status, copied.value, copied.n) == ("unavailable", None, 0)
    assert "at least 10" in copied.reason
    assert found["agreement.nearest_class_mean", None].status == "ok"


def test_reasons_of_nets_with_other_shapes():
    one_hidden = by_key(measure(snapshot(widths=(12,))))
    assert "only one hidden layer" in one_hidden["probe.first_minus_last", None].reason
    assert one_hidden["probe.linear", "fc1"].status == "ok"
    linear = by_key(measure(snapshot(widths=())))
    assert linear["alignment.class_means", "fc1"].status == "ok"
    for name in ("cka.init_to_final", "probe.linear", "probe.linear_at_init"):
        assert "no layer that this metric applies to" in linear[name, None].reason
    one_logit = by_key(measure(snapshot(outputs=1, parts=data(classes=2))))
    assert "rank 1 by construction" in one_logit["rank.effective", LOGITS].reason
    centered = by_key(measure(snapshot(centered=True)))
    assert "is centred" in centered["share.initial_function", None].reason


def test_a_convolution_has_no_class_means_in_its_inputs():
    snap = snapshot()
    kernel = draw(12, 3, seed=1)
    net = dataclasses.replace(snap.final, weights={**snap.final.weights, "fc1": kernel})
    found = by_key(measure(dataclasses.replace(snap, final=net)))
    assert "as for a convolution" in found["alignment.class_means", "fc1"].reason
    assert found["alignment.class_means", "fc2"].status == "ok"
    assert "another shape" in found["movement.relative", "fc1"].reason


def test_initial_weights_of_zero_have_no_relative_movement():
    snap = snapshot()
    init = dataclasses.replace(snap.init, weights={k: 0 * w for k, w in snap.init.weights.items()})
    found = by_key(measure(dataclasses.replace(snap, init=init)))
    assert "all 0" in found["movement.relative", "fc1"].reason
    assert found["movement.relative", "fc1"].value is None


def test_missing_initial_features_are_said():
    snap = snapshot()
    gone = dataclasses.replace(snap.init, test_features={})
    found = by_key(measure(dataclasses.replace(snap, init=gone)))
    assert "initial features" in found["cka.init_to_final", "fc1"].reason
    for name in ("probe.linear_at_init", "probe.inputs_kept_at_init", "probe.inputs_forgotten"):
        assert "initial features" in found[name, "fc2"].reason
    assert found["probe.inputs_kept", "fc2"].status == "ok"


def test_the_layer_that_counts_as_the_last_can_be_chosen():
    snap = snapshot(widths=(12, 10, 9), last_layer="fc2")
    found = measure(snap)
    by_name = {}
    for m in found:
        by_name.setdefault(m.metric, []).append(m.layer)
    for name in ("dimension.two_nn", "probe.neighbours", "probe.inputs_kept"):
        assert by_name[name] == ["fc2"]
    assert by_name["probe.linear"] == ["fc1", "fc2"]
    assert by_name["collapse.variability_train"] == ["fc2"]
    assert by_name["agreement.nearest_class_mean_in_features"] == ["fc2"]
    assert by_name["rank.effective"] == ["fc1", "fc2", "fc3", LOGITS]
    duality = by_key(found)["collapse.self_duality", "fc2"]
    assert "does not act on the features" in duality.reason
    last = by_key(measure(dataclasses.replace(snap, last_layer=None)))
    assert ("probe.neighbours", "fc3") in last
    assert last["collapse.self_duality", "fc3"].status == "ok"
    same = by_key(measure(dataclasses.replace(snap, last_layer="fc3")))
    assert same == last


def test_rank_over_classes_is_a_ratio_to_the_number_of_classes_less_one():
    found = baseline()
    for layer in ("fc1", "fc2", LOGITS):
        expected = found["rank.effective", layer].value / (K - 1)
        assert found["rank.over_classes", layer].value == pytest.approx(expected)


def test_a_task_with_one_class_has_no_rank_over_classes():
    found = by_key(measure(snapshot(n_classes=1), sorted(RANKS)))
    assert found["rank.effective", "fc1"].status == "ok"
    for layer in ("fc1", "fc2", LOGITS):
        assert "only one class" in found["rank.over_classes", layer].reason


def test_intrinsic_dimension_rests_on_a_thousand_points(monkeypatch):
    monkeypatch.setitem(SIZES, "test", 1003)
    for m in measure(snapshot(), sorted(DIMENSIONS)):
        assert (m.status, m.n) == ("ok", 1000)


def test_a_change_along_the_class_means_beats_both_nulls_and_a_random_one_does_not():
    snap = snapshot()
    directions = class_directions(snap.x_train, snap.y_train, K)
    initial = snap.init.weights["fc1"]
    for change, beats in (
        (draw(WIDTHS[0], K, seed=3) @ directions, True),
        (draw(WIDTHS[0], D, seed=4), False),
    ):
        weights = {**snap.final.weights, "fc1": initial + change}
        found = by_key(measure(with_final(snap, weights=weights), sorted(ENERGIES)))
        share = found["energy.class_means", "fc1"].value
        nulls = [
            found[f"energy.class_means_{name}_null", "fc1"] for name in ("permutation", "principal")
        ]
        assert all(null.low <= null.value <= null.high for null in nulls)
        assert all(share > null.high for null in nulls) is beats
    assert share == pytest.approx((K - 1) / D, abs=0.15)


def test_a_null_has_its_mean_and_its_5_and_95_percent(monkeypatch):
    values = torch.arange(1.0, 100.0)
    for name in ("permuted_alignments", "permuted_energies", "principal_energies"):
        monkeypatch.setattr(alignment, name, lambda *_, **__: values)
    nulls = [name for name in METRICS if name.endswith("_null")]
    found = measure(snapshot(), nulls)
    assert {m.metric for m in found} == set(nulls)
    assert {(m.low, m.value, m.high) for m in found} == {(5, 50, 95)}


def test_a_change_has_no_energy_where_there_is_none_or_everything_is_in_the_span():
    snap = snapshot()
    still = by_key(measure(dataclasses.replace(snap, final=snap.init), sorted(ENERGIES)))
    assert "did not change" in still["energy.class_means", "fc1"].reason
    narrow = by_key(measure(snapshot(widths=(12, 3)), sorted(ENERGIES)))
    assert "span all inputs" in narrow["energy.class_means", "fc3"].reason


def test_agreement_in_feature_space_is_1_for_a_collapsed_net():
    snap = snapshot()
    final = change_features(
        snap.final,
        lambda layer, x: (
            torch.nn.functional.one_hot(
                (snap.y_train if len(x) == 48 else snap.final.test_outputs.argmax(1))[: len(x)], K
            ).double()
            if layer == "fc2" and len(x) != 40
            else x
        ),
    )
    collapsed = dataclasses.replace(snap, final=final)
    assert value(collapsed, "agreement.nearest_class_mean_in_features", "fc2") == 1
    assert value(snap, "agreement.nearest_class_mean_in_features", "fc2") < 1


def test_what_was_forgotten_is_what_was_kept_at_init_and_is_not_now():
    snap = snapshot()
    blind = change_features(snap.final, lambda layer, x: x[:, :1] if layer == "fc2" else x)
    found = by_key(measure(dataclasses.replace(snap, final=blind), sorted(family("probe.inputs"))))
    kept, before, lost = (
        found[f"probe.inputs_{name}", "fc2"].value for name in ("kept", "kept_at_init", "forgotten")
    )
    assert kept < before
    assert lost == pytest.approx(before - kept)


def test_probes_of_a_net_that_did_not_move_are_those_at_init():
    snap = snapshot()
    still = by_key(measure(dataclasses.replace(snap, final=snap.init), sorted(PROBES)))
    for kind in ("linear", "neighbours", "few_shot"):
        same = still[f"probe.{kind}_at_init", "fc2"].value
        assert still[f"probe.{kind}", "fc2"].value == same
    assert still["probe.inputs_forgotten", "fc2"].value == 0


def test_probes_are_fitted_on_a_bounded_number_of_points_and_tested_on_all(monkeypatch):
    seen = []
    monkeypatch.setattr(probing, "MAX_POINTS", 45)
    monkeypatch.setattr(
        probing, "linear_probe", lambda d: seen.append([len(x) for x in d.x]) or linear_probe(d)
    )
    (linear, *_) = measure(snapshot(), ["probe.linear_on_inputs"])
    assert linear.n == SIZES["test"]
    assert {tuple(sizes) for sizes in seen} == {(45, 40, 120)}


def test_probes_are_fitted_on_a_thousand_points_at_most(monkeypatch):
    seen = []
    monkeypatch.setitem(SIZES, "train", 1003)
    monkeypatch.setattr(
        probing, "neighbour_probe", lambda d: seen.append(len(d.x[0])) or neighbour_probe(d)
    )
    measure(snapshot(), ["probe.neighbours_on_inputs"])
    assert set(seen) == {1000}
