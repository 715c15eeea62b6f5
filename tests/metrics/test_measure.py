import dataclasses
import functools
import importlib
import itertools
import json
import math
import pkgutil
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from profiles import FEW

from fls_bench import metrics, scaling
from fls_bench.errors import InputError
from fls_bench.metrics import LOGITS, METRICS, Metric, NetState, Snapshot, TangentKernel, measure
from fls_bench.metrics.alignment import class_directions, class_means
from fls_bench.metrics.families import alignment, probing, spectrum
from fls_bench.metrics.probes import linear_probe, neighbour_probe, ridge_probe
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
        "cka.init_to_final_train": "over_fitted",
        "scale.logits_at_init": "over_fitted",
        "kernel.change": "over_aligned",
        "rank.effective": "over_fitted",
        "rank.over_classes": "over_fitted",
        "rank.over_classes_train": "over_fitted",
        "rank.to_init": "over_fitted",
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
        | ({(name, LOGITS) for name in RANKS - {"rank.to_init"}} if outputs == 1 else set())
    )


def test_layers_have_their_places():
    layers = {}
    for m in baseline().values():
        layers.setdefault(m.metric, []).append(m.layer)
    assert layers["movement.relative"] == ["fc1", "fc2", "fc3"]
    assert layers["alignment.class_means"] == ["fc1", "fc2", "fc3"]
    assert layers["cka.init_to_final"] == ["fc1", "fc2"]
    assert layers["cka.init_to_final_train"] == ["fc1", "fc2"]
    assert layers["scale.logits"] == layers["scale.logits_at_init"] == [None]
    assert layers["rank.effective"] == ["fc1", "fc2", LOGITS]
    assert layers["rank.over_classes_train"] == ["fc1", "fc2", LOGITS]
    assert layers["rank.to_init"] == ["fc1", "fc2"]
    assert layers["spectrum.stable_rank_at_init"] == ["fc1", "fc2", "fc3"]
    for kind in ("linear", "ridge"):
        assert layers[f"probe.{kind}"] == ["fc1", "fc2"]
        assert layers[f"probe.{kind}_at_init"] == ["fc2"]
    assert layers["probe.ridge_first_minus_last"] == layers["probe.ridge_on_inputs"] == [None]
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
    # Wide enough that a tail is fitted, which draws; the other probes draw too.
    snap = snapshot(widths=(24, 21))
    whole = measure(snap)
    torch.manual_seed(123)
    for name in METRICS:
        assert measure(snap, [name]) == tuple(m for m in whole if m.metric == name)


DEAR = {
    "alignment.class_means_permutation_null": (
        alignment, "permuted_alignments", ["alignment.class_means", "alignment.class_means_at_init"],
    ),
    "spectrum.tail_exponent": (
        spectrum, "eigenvalues", ["spectrum.stable_rank", "spectrum.stable_rank_at_init"],
    ),
    "probe.linear": (
        probing, "linear_probe",
        ["probe.ridge", "probe.ridge_first_minus_last", "probe.neighbours", "probe.few_shot"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DEAR)
def test_what_is_cheap_does_not_wait_for_what_is_dear(name, monkeypatch):
    def dear(*_, **__):
        raise NotImplementedError

    module, function, cheap = DEAR[name]
    monkeypatch.setattr(module, function, dear)
    assert {m.metric for m in measure(snapshot(), cheap) if m.status == "ok"} == set(cheap)
    with pytest.raises(NotImplementedError):
        measure(snapshot(), [name])


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
    assert found["rank.over_classes_train", "fc2"] == pytest.approx(1 / (K - 1))
    for kind, name in (("linear", "first_minus_last"), ("ridge", "ridge_first_minus_last")):
        difference = found[f"probe.{kind}", "fc1"] - found[f"probe.{kind}", "fc2"]
        assert found[f"probe.{name}", None] == pytest.approx(difference)
        assert difference > 0.1


@pytest.mark.parametrize("outputs", [1, K])
def test_scales_of_logits_written_out(outputs):
    parts = data(classes=max(2, outputs))
    snap = snapshot(outputs=outputs, parts=parts, c=0.3)
    f, f_0 = (net.train_outputs.numpy() for net in (snap.final, snap.init))

    def size(z):
        return np.sqrt(np.mean((z if outputs == 1 else z - z.mean(1, keepdims=True)) ** 2))

    centered = dataclasses.replace(snap, centered=True)
    assert value(snap, "scale.logits") == pytest.approx(size(0.3 * f))
    assert value(centered, "scale.logits") == pytest.approx(size(0.3 * (f - f_0)))
    for one in (snap, centered):
        assert value(one, "scale.logits_at_init") == pytest.approx(size(0.3 * f_0))
    still = dataclasses.replace(snap, final=snap.init)
    assert value(still, "scale.logits") == value(still, "scale.logits_at_init")
    assert value(dataclasses.replace(still, centered=True), "scale.logits") == 0


def test_scales_of_logits_go_with_c_and_do_not_see_what_softmax_ignores():
    snap = snapshot(c=0.5)
    offset = 100 * draw(SIZES["train"], 1, seed=4)
    moved = change_nets(
        snap, lambda net: dataclasses.replace(net, train_outputs=net.train_outputs + offset)
    )
    for name in sorted(SCALES):
        assert value(dataclasses.replace(snap, c=2.0), name) == pytest.approx(4 * value(snap, name))
        assert value(moved, name) == pytest.approx(value(snap, name))


def test_the_stable_rank_at_init_is_that_of_the_initial_weights():
    snap = snapshot()
    back = dataclasses.replace(snap, final=snap.init, init=snap.final)
    for layer in ("fc1", "fc2", "fc3"):
        initial = value(snap, "spectrum.stable_rank_at_init", layer)
        assert initial == value(back, "spectrum.stable_rank", layer)
        assert initial != value(snap, "spectrum.stable_rank", layer)


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
PROBES, REFERENCES = family("probe.", "reference."), family("reference.")
ALIGNMENTS, AGREEMENTS = family("alignment."), family("agreement.")
ENERGIES, COLLAPSE, DIMENSIONS = family("energy."), family("collapse."), family("dimension.")
RANKS, ON_LABELS = family("rank."), family("kernel.regression")
RANKS_TEST, SCALES = {"rank.effective", "rank.over_classes"}, family("scale.")
RANKS_TRAIN = RANKS - RANKS_TEST
REGRESSION = ON_LABELS | {"kernel.function_agreement"}
CALIBRATION, RISK_TRAIN = family("calibration."), {"error.train", "ties.train", "loss.train"}
COLLAPSE_TEST = {"collapse.variability_test", "collapse.test_over_train"}
FROM_TEST_OUTPUTS = {
    "error.test", "ties.test", "loss.test", *RANKS_TEST, *AGREEMENTS, *CALIBRATION, *REGRESSION,
}  # fmt: skip
ON_INPUTS = {name for name in PROBES if name.endswith("_on_inputs")} | REFERENCES
FROM_INITIAL_WEIGHTS = {
    "movement.relative", "alignment.class_means_at_init", "spectrum.stable_rank_at_init",
}  # fmt: skip
CASES = {
    "no init": (lambda s: dataclasses.replace(s, init=None), NEED_INIT, "initial weights"),
    "centered without init": (
        lambda s: dataclasses.replace(s, init=None, centered=True),
        NEED_INIT | FROM_TEST_OUTPUTS | RISK_TRAIN | RANKS_TRAIN | SCALES
        | {"collapse.self_duality"},
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
        PROBES | AGREEMENTS | RANKS_TEST | REGRESSION | DIMENSIONS | COLLAPSE_TEST
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
        | (COLLAPSE - {"collapse.variability_test"}) | RANKS_TRAIN | SCALES
        | {"cka.init_to_final_train"},
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
        (PROBES - ON_INPUTS) | RANKS_TEST | COLLAPSE_TEST
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
        ENERGIES | FROM_INITIAL_WEIGHTS,
        "The initial weights hold NaN or infinite",
    ),
    "NaN in initial weights": (
        lambda s: dataclasses.replace(
            s, init=dataclasses.replace(s.init, weights=nan_in_fc2(s.init.weights))
        ),
        ENERGIES | FROM_INITIAL_WEIGHTS,
        "The initial weights hold NaN or infinite",
    ),
    "NaN in training outputs": (
        lambda s: with_final(s, train_outputs=with_nan(s.final.train_outputs)),
        RISK_TRAIN | SCALES | REGRESSION | AGREEMENTS
        | {"rank.over_classes_train", "collapse.self_duality"},
        "The final outputs on the train points hold NaN",
    ),
    "NaN in training features": (
        lambda s: with_final(s, train_features=nan_in_fc2(s.final.train_features)),
        (PROBES - ON_INPUTS) | RANKS_TRAIN | ALIGNMENTS | ENERGIES
        | (COLLAPSE - {"collapse.variability_test"})
        | {"cka.init_to_final_train", "agreement.nearest_class_mean_in_features"},
        "The final features on the train points hold NaN",
    ),
    "NaN in initial training features": (
        lambda s: dataclasses.replace(
            s, init=dataclasses.replace(s.init, train_features=nan_in_fc2(s.init.train_features))
        ),
        ENERGIES | (PROBES & NEED_INIT)
        | {"cka.init_to_final_train", "rank.to_init", "alignment.class_means_at_init"},
        "The initial features on the train points hold NaN",
    ),
    "no test points of the kernel": (
        lambda s: with_final(s, kernel=dataclasses.replace(s.final.kernel, test=None)),
        REGRESSION,
        "The tangent kernel was computed without test points",
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
    layer_2 = COLLAPSE | RANKS | {"cka.init_to_final", "cka.init_to_final_train"}
    layer_2 |= {"probe.inputs_kept", "probe.inputs_forgotten", "dimension.two_nn"}
    layer_2 |= {f"probe.{kind}" for kind in ("linear", "ridge", "neighbours", "few_shot")}
    assert unavailable - TOO_SMALL == {
        *((name, "fc3") for name in layer_in_3),
        *((name, "fc2") for name in layer_2),
        ("probe.first_minus_last", None),
        ("probe.ridge_first_minus_last", None),
    }
    assert "120 of 120 points coincide" in found["dimension.two_nn", "fc2"].reason
    assert "do not vary over the test points" in found["rank.effective", "fc2"].reason
    for name in ("rank.over_classes_train", "rank.to_init", "cka.init_to_final_train"):
        assert "do not vary over the train points" in found[name, "fc2"].reason
    assert "final or initial" in found["rank.to_init", "fc2"].reason
    for name in ("probe.first_minus_last", "probe.ridge_first_minus_last"):
        assert "do not vary" in found[name, None].reason


def test_few_errors_of_the_nearest_class_mean_are_not_a_share():
    found = by_key(measure(snapshot(parts=data(noise=0.1))))
    copied = found["agreement.nearest_class_mean_errors", None]
    assert (copied.status, copied.value, copied.n) == ("unavailable", None, 0)
    assert "at least 10" in copied.reason
    assert found["agreement.nearest_class_mean", None].status == "ok"


def test_reasons_of_nets_with_other_shapes():
    one_hidden = by_key(measure(snapshot(widths=(12,))))
    for kind, difference in (("linear", "first_minus_last"), ("ridge", "ridge_first_minus_last")):
        assert "only one hidden layer" in one_hidden[f"probe.{difference}", None].reason
        assert one_hidden[f"probe.{kind}", "fc1"].status == "ok"
    linear = by_key(measure(snapshot(widths=())))
    assert linear["alignment.class_means", "fc1"].status == "ok"
    for name in ("cka.init_to_final", "rank.to_init", "probe.linear", "probe.ridge_at_init"):
        assert "no layer that this metric applies to" in linear[name, None].reason
    one_logit = by_key(measure(snapshot(outputs=1, parts=data(classes=2))))
    for name in RANKS - {"rank.to_init"}:
        assert "rank 1 by construction" in one_logit[name, LOGITS].reason
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
    of_probes = [
        f"probe.{name}" for name in ("linear_at_init", "ridge_at_init", "inputs_kept_at_init")
    ]
    for part, missing, there in (
        ("test_features", {"cka.init_to_final"}, RANKS_TRAIN | {"cka.init_to_final_train"}),
        ("train_features", {"cka.init_to_final_train", "rank.to_init"}, {"cka.init_to_final"}),
    ):
        gone = dataclasses.replace(snap.init, **{part: {}})
        found = by_key(measure(dataclasses.replace(snap, init=gone)))
        for name in missing:
            assert "initial features" in found[name, "fc1"].reason
        for name in (*of_probes, "probe.inputs_forgotten"):
            assert "initial features" in found[name, "fc2"].reason
        for name in (*there, "probe.inputs_kept"):
            assert found[name, "fc2"].status == "ok"


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


def participation(features):
    """Participation ratio from the eigenvalues of the covariance matrix."""
    values = np.linalg.eigvalsh(np.cov(features.numpy(), rowvar=False))
    return values.sum() ** 2 / (values**2).sum()


def test_ranks_on_training_points_against_eigenvalues():
    snap, found = snapshot(), baseline()
    for layer in LAYERS:
        final, initial = (
            participation(net.train_features[layer]) for net in (snap.final, snap.init)
        )
        over_classes = found["rank.over_classes_train", layer]
        assert over_classes.value == pytest.approx(final / (K - 1))
        assert found["rank.to_init", layer].value == pytest.approx(final / initial)
        assert over_classes.n == found["rank.to_init", layer].n == SIZES["train"]
    logits = snap.logits("train")
    expected = participation(logits - logits.mean(1, keepdim=True)) / (K - 1)
    assert found["rank.over_classes_train", LOGITS].value == pytest.approx(expected)


def test_the_rank_of_a_net_that_did_not_move_is_1_of_that_at_init_and_stays_so_in_other_axes():
    snap = snapshot()
    still = dataclasses.replace(snap, final=snap.init)
    turned = dataclasses.replace(still, final=rotate_features(still).final)
    for layer in LAYERS:
        assert value(still, "rank.to_init", layer) == 1
        assert value(turned, "rank.to_init", layer) == pytest.approx(1)
        moved = value(snap, "rank.to_init", layer)
        assert abs(moved - 1) > 0.01
        assert value(rotate_features(snap), "rank.to_init", layer) == pytest.approx(moved)
    assert not torch.allclose(turned.final.train_features["fc1"], snap.init.train_features["fc1"])


def test_on_training_points_is_the_same_as_on_test_points_that_are_these(monkeypatch):
    apart = baseline()  # of the usual sizes: it is kept for the other tests
    monkeypatch.setitem(SIZES, "test", SIZES["train"])
    parts = data()
    snap = snapshot(parts={**parts, "x_test": parts["x_train"], "y_test": parts["y_train"]})
    for name in ("rank.over_classes", "cka.init_to_final"):
        for left, right in zip(*(measure(snap, [n]) for n in (name, f"{name}_train")), strict=True):
            assert (left.value, left.layer, left.n) == (right.value, right.layer, right.n)
            assert left.status == "ok"
        assert apart[name, "fc1"].value != apart[f"{name}_train", "fc1"].value


def test_a_task_with_one_class_has_no_rank_over_classes():
    found = by_key(measure(snapshot(n_classes=1), sorted(RANKS)))
    assert found["rank.effective", "fc1"].status == "ok"
    for layer in ("fc1", "fc2", LOGITS):
        for name in ("rank.over_classes", "rank.over_classes_train"):
            assert "only one class" in found[name, layer].reason
    assert found["rank.to_init", "fc1"].status == "ok"


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
    for kind in ("linear", "ridge", "neighbours", "few_shot"):
        same = still[f"probe.{kind}_at_init", "fc2"].value
        assert still[f"probe.{kind}", "fc2"].value == same
    assert still["probe.inputs_forgotten", "fc2"].value == 0


@pytest.mark.parametrize("probe", [linear_probe, ridge_probe])
def test_probes_are_fitted_on_a_bounded_number_of_points_and_tested_on_all(probe, monkeypatch):
    seen, name = [], probe.__name__
    monkeypatch.setattr(probing, "MAX_POINTS", 45)
    monkeypatch.setattr(probing, name, lambda d: seen.append([len(x) for x in d.x]) or probe(d))
    (on_inputs,) = measure(snapshot(), [f"probe.{name.removesuffix('_probe')}_on_inputs"])
    assert on_inputs.n == SIZES["test"]
    assert {tuple(sizes) for sizes in seen} == {(45, 40, 120)}


def test_probes_are_fitted_on_a_thousand_points_at_most(monkeypatch):
    seen = []
    monkeypatch.setitem(SIZES, "train", 1003)
    monkeypatch.setattr(
        probing, "neighbour_probe", lambda d: seen.append(len(d.x[0])) or neighbour_probe(d)
    )
    measure(snapshot(), ["probe.neighbours_on_inputs"])
    assert set(seen) == {1000}


def test_probes_that_share_prepared_features_read_what_each_reads_alone():
    names = [f"probe.{kind}{end}" for kind in ("ridge", "few_shot") for end in ("", "_at_init")]
    snap = snapshot()
    together = measure(snap, names)
    alone = [m for name in names for m in measure(dataclasses.replace(snap), [name])]
    assert set(together) == set(alone)
    before = {
        m.layer: m.value for m in measure(dataclasses.replace(snap, final=snap.init), names[:1])
    }
    for one in together:
        if one.metric == "probe.ridge_at_init":
            assert one.value == before[one.layer]
    after = {m.layer: m.value for m in together if m.metric == "probe.ridge"}
    assert after != before
