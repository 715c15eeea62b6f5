"""Nets by name: what is built, what is refused before it is built, and what is measured of a net."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fls_bench import models
from fls_bench.errors import InputError

X = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))


def mlp(**arguments: Any) -> models.Mlp:
    return models.build("mlp", {"input_dim": 6, "n_outputs": 3, "width": 5, **arguments}, seed=0)


# --- what is built --------------------------------------------------------------------------


@given(
    st.integers(1, 6), st.integers(1, 7), st.integers(1, 4), st.integers(1, 9), st.booleans(),
    st.sampled_from(["relu", "tanh", "gelu"]),
)  # fmt: skip
def test_shapes_are_known_without_building(
    depth: int, width: int, n_outputs: int, input_dim: int, bias: bool, activation: str
) -> None:
    arguments = {
        "depth": depth, "width": width, "n_outputs": n_outputs, "input_dim": input_dim,
        "bias": bias, "activation": activation,
    }  # fmt: skip
    net = models.build("mlp", arguments, seed=1)
    found = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert models.state_shapes("mlp", arguments) == found
    assert net(torch.ones(3, input_dim)).shape == (3, n_outputs)
    assert len([name for name in found if name.endswith("weight")]) == depth
    assert any(name.endswith("bias") for name in found) == bias


def test_a_two_layer_net_has_the_shapes_it_says() -> None:
    arguments = {"input_dim": 9, "width": 4}
    found = {
        k: tuple(v.shape) for k, v in models.build("two_layer", arguments).state_dict().items()
    }
    assert models.state_shapes("two_layer", arguments) == found
    assert found == {"layers.0.weight": (4, 9), "layers.1.weight": (1, 4)}


def test_the_net_is_the_matrix_products_it_stands_for() -> None:
    def gelu(z: Tensor) -> Tensor:
        return z * (1 + torch.erf(z / math.sqrt(2))) / 2

    for activation, function in (("relu", torch.relu), ("tanh", torch.tanh), ("gelu", gelu)):
        net = mlp(depth=3, bias=True, activation=activation).double()
        for parameter in net.parameters():
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(3))
        (w1, b1), (w2, b2), (w3, b3) = ((layer.weight, layer.bias) for layer in net.layers)
        x = X.double()
        expected = function(function(x @ w1.T + b1) @ w2.T + b2) @ w3.T + b3
        torch.testing.assert_close(net(x), expected)
        torch.testing.assert_close(net(x.view(8, 2, 3)), expected)


@pytest.mark.parametrize(("activation", "gain"), [("relu", 2.0), ("tanh", 1.0), ("gelu", 2.0)])
def test_he_init_has_variance_gain_over_fan_in(activation: str, gain: float) -> None:
    net = mlp(input_dim=50, width=400, n_outputs=300, activation=activation, bias=True)
    for layer in net.layers:
        weight = layer.weight.detach().double()
        fan_in, num = weight.shape[1], weight.numel()
        # Five standard errors: a variance of n normal draws has the relative error sqrt(2/n).
        assert float(weight.var()) == pytest.approx(gain / fan_in, rel=5 * math.sqrt(2 / num))
        assert abs(float(weight.mean())) < 5 * math.sqrt(gain / fan_in / num)
        assert not layer.bias.any()


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_other_inits_have_the_variance_that_they_say_whatever_the_activation(
    activation: str,
) -> None:
    shared = {"input_dim": 50, "width": 400, "n_outputs": 300, "activation": activation}
    for layer in mlp(**shared, bias=True, init="lecun").layers:
        weight = layer.weight.detach().double()
        fan_in, num = weight.shape[1], weight.numel()
        assert float(weight.var()) == pytest.approx(1 / fan_in, rel=5 * math.sqrt(2 / num))
        assert not layer.bias.any()
    for bias in (False, True):
        for layer in mlp(**shared, bias=bias, init="torch").layers:
            bound = 1 / math.sqrt(layer.in_features)
            for parameter in layer.parameters():
                spread = parameter.detach().double().square().mean()
                # The square of a uniform number has the relative deviation 2/sqrt(5).
                error = 5 * 2 / math.sqrt(5 * parameter.numel())
                assert float(spread) == pytest.approx(bound**2 / 3, rel=error)
                assert 0.98 * bound < float(parameter.detach().abs().max()) <= bound
            assert (layer.bias is not None) == bias


def test_arguments_are_stored_without_an_init_that_nobody_chose() -> None:
    sizes = {"input_dim": 6, "n_outputs": 3}
    before = {**sizes, "depth": 4, "width": 128, "activation": "relu", "bias": False}
    for mode in ("python", "json"):
        checked = models.check_arguments("mlp", {**sizes, "init": None})
        assert checked.model_dump(mode=mode) == before
        chosen = models.check_arguments("mlp", {**sizes, "init": "torch"})
        assert chosen.model_dump(mode=mode) == {**before, "init": "torch"}
    assert models.check_arguments("mlp", before).init is None


# --- the residual net -----------------------------------------------------------------------


def resmlp(**arguments: Any) -> nn.Module:
    sizes = {"input_dim": 6, "n_outputs": 3, "width": 5}
    return models.build("resmlp", {**sizes, **arguments}, seed=0, dtype=torch.float64)


def test_the_residual_net_is_the_formula_it_stands_for() -> None:
    x = X.double()
    for norm in ("layer", "none"):
        net = resmlp(norm=norm, blocks=2)
        with torch.no_grad():
            for k, parameter in enumerate(net.parameters()):
                nn.init.normal_(parameter, generator=torch.Generator().manual_seed(k))
        p = {key: value.detach() for key, value in net.named_parameters()}
        assert sum(key.endswith("bias") for key in p) == (3 if norm == "layer" else 0)

        def normed(h: Tensor, which: str, p: dict[str, Tensor] = p) -> Tensor:
            if f"{which}.weight" not in p:
                return h
            scale = (h.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
            return (h - h.mean(1, keepdim=True)) / scale * p[f"{which}.weight"] + p[f"{which}.bias"]

        h = x @ p["embed.weight"].T
        expected = {"embed": normed(h, "blocks.0.norm")}
        for block in ("blocks.0", "blocks.1"):
            hidden = torch.relu(normed(h, f"{block}.norm") @ p[f"{block}.hidden.weight"].T)
            h = h + hidden @ p[f"{block}.out.weight"].T
            expected[f"{block}.hidden"] = hidden
            expected[f"{block}.out"] = normed(h, "blocks.1.norm" if block[-1] == "0" else "norm")
        features, output = models.named_features(net, x)
        assert list(features) == list(expected)
        for name, value in expected.items():
            torch.testing.assert_close(features[name], value)
        torch.testing.assert_close(output, expected["blocks.1.out"] @ p["readout.weight"].T)
        assert list(models.weight_matrices(net)) == [*expected, "readout"]
        torch.testing.assert_close(net(x.view(8, 2, 3)), output)


@pytest.mark.parametrize("norm", ["layer", "none"])
@pytest.mark.parametrize("blocks", [1, 9])
def test_branches_without_normalisation_start_smaller(norm: str, blocks: int) -> None:
    net = resmlp(input_dim=50, width=200, n_outputs=300, blocks=blocks, norm=norm)
    for name, weight in models.weight_matrices(net).items():
        smaller = blocks if norm == "none" and name.endswith(".out") else 1
        variance = 2 / weight.shape[1] / smaller
        error = 5 * math.sqrt(2 / weight.numel())
        assert float(weight.var()) == pytest.approx(variance, rel=error)


def test_shapes_of_the_residual_net_are_known_without_building() -> None:
    for norm in ("layer", "none"):
        arguments = {"input_dim": 6, "n_outputs": 3, "width": 5, "blocks": 3, "norm": norm}
        state = models.build("resmlp", arguments, seed=1).state_dict()
        found = {name: tuple(value.shape) for name, value in state.items()}
        assert models.state_shapes("resmlp", arguments) == found


def test_the_two_layer_net_is_balanced() -> None:
    d, h = 40, 600
    net = models.build("two_layer", {"input_dim": d, "width": h}, seed=5, dtype=torch.float64)
    w, v = net.layers[0].weight.detach(), net.layers[1].weight.detach()[0]
    torch.testing.assert_close(v.abs(), w.norm(dim=1))
    assert float(w.var()) == pytest.approx(1 / (d * h), rel=5 * math.sqrt(2 / w.numel()))
    assert float((v > 0).double().mean()) == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(h))


@pytest.mark.parametrize("name", ["mlp", "two_layer", "resmlp"])
def test_a_seed_means_the_same_net_in_every_precision(name: str) -> None:
    arguments = {"input_dim": 6, "width": 5} | ({} if name == "two_layer" else {"n_outputs": 3})
    state = torch.get_rng_state()
    single = models.build(name, arguments, seed=7)
    double = models.build(name, arguments, seed=7, dtype=torch.float64)
    other = models.build(name, arguments, seed=8)
    assert torch.equal(state, torch.get_rng_state())
    for a, b, c in zip(single.parameters(), double.parameters(), other.parameters(), strict=True):
        assert (a.dtype, b.dtype) == (torch.float32, torch.float64)
        assert torch.equal(a, b.float())
        assert a.ndim == 1 or not torch.equal(a, c)  # norms start as they are defined
        assert a.requires_grad


def test_without_a_seed_nets_follow_torch_and_differ() -> None:
    arguments = {"input_dim": 6, "n_outputs": 3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first, second = models.build("mlp", arguments), models.build("mlp", arguments)
        torch.manual_seed(1)
        again = models.build("mlp", arguments)
    assert torch.equal(first.layers[0].weight, again.layers[0].weight)
    assert not torch.equal(first.layers[0].weight, second.layers[0].weight)


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "problem"),
    [
        ("alexnet", {}, "no built-in net named 'alexnet'"),
        ("os:system", {}, "no built-in net"),
        ("mlp", {"width": 0}, "width"),
        ("mlp", {"input_dim": 0}, "input_dim"),
        ("mlp", {"n_outputs": 0}, "n_outputs"),
        ("mlp", {"n_outputs": None}, "n_outputs"),
        ("mlp", {"depth": 0}, "depth"),
        ("mlp", {"depth": 65}, "depth"),
        ("mlp", {"width": -3}, "width"),
        ("mlp", {"width": 2.5}, "width"),
        ("mlp", {"width": "wide"}, "width"),
        ("mlp", {"width": float("nan")}, "width"),
        ("mlp", {"activation": "sine"}, "activation"),
        ("mlp", {"bias": "perhaps"}, "bias"),
        ("mlp", {"dropout": 0.5}, "dropout"),
        ("mlp", {"width": 1_000_000, "depth": 3}, "weights; the limit is"),
        ("mlp", {"input_dim": 1_000_000, "width": 1_000}, "weights; the limit is"),
        ("mlp", {"width": 10**15}, "width"),
        ("mlp", {"init": "he"}, "init"),
        ("resmlp", {"blocks": 0}, "blocks"),
        ("resmlp", {"norm": "batch"}, "norm"),
        ("resmlp", {"width": 2000, "blocks": 32}, "weights; the limit is"),
        ("two_layer", {"n_outputs": 2}, "n_outputs"),
        ("two_layer", {"n_outputs": 1, "depth": 3}, "depth"),
    ],
)
def test_what_can_not_be_built_is_refused_before_anything_is_allocated(
    name: str, changes: dict[str, Any], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nn.Module, "to_empty", lambda *_, **__: pytest.fail("it was built"))
    sizes = {"input_dim": 6, "n_outputs": 3}
    for refuse in (models.check_arguments, models.state_shapes, models.build):
        with pytest.raises(InputError, match=problem) as caught:
            refuse(name, {**sizes, **changes})
        assert "\n" not in str(caught.value)


# --- features -------------------------------------------------------------------------------


def test_features_are_what_a_layer_hands_to_the_next() -> None:
    net = mlp(depth=3)
    features, output = models.named_features(net, X)
    first = torch.relu(X @ net.layers[0].weight.T).detach()
    second = torch.relu(first @ net.layers[1].weight.T).detach()
    assert list(features) == ["layers.0", "layers.1"]
    torch.testing.assert_close(features["layers.0"], first)
    torch.testing.assert_close(features["layers.1"], second)
    torch.testing.assert_close(output, second @ net.layers[2].weight.T)
    assert not output.requires_grad
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_hooks_are_removed_when_a_net_fails() -> None:
    net = mlp()
    with pytest.raises(RuntimeError):
        models.named_features(net, torch.ones(2, 7))
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_convolutions_have_flat_features() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    features, output = models.named_features(net, torch.ones(2, 1, 8, 8))
    assert {name: tuple(value.shape) for name, value in features.items()} == {"0": (2, 144)}
    assert output.shape == (2, 3)
    weights = models.weight_matrices(net)
    assert {name: tuple(w.shape) for name, w in weights.items()} == {"0": (4, 9), "3": (3, 144)}


class Gated(nn.Module):
    """A weight layer that acts on something else than one row per sample, called by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)
        self.gate, self.scale = nn.Linear(5, 5), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first(input=x))
        hidden = hidden * self.gate(torch.ones(5)) * self.scale(torch.ones(2, 5))[0]
        logits: Tensor = self.last(hidden)
        return logits


def test_layers_inside_a_module_that_see_no_samples_are_left_out() -> None:
    features, output = models.named_features(Gated(), X)
    assert {name: tuple(value.shape) for name, value in features.items()} == {"scale": (8, 5)}
    assert output.shape == (8, 3)


def test_a_net_of_one_layer_has_no_hidden_features() -> None:
    assert models.named_features(mlp(depth=1), X)[0] == {}
