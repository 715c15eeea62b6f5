"""How a net's output scales with its parameters is measured, whatever the net is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from labels import label
from profiles import FEW
from torch import Tensor, nn

from fls_bench import models
from fls_bench.homogeneity import measured_scaling

X = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))


def mlp(**arguments: Any) -> nn.Module:
    return models.build("mlp", {"input_dim": 6, "n_outputs": 3, "width": 5, **arguments}, seed=0)


def chain(*between: Callable[[], nn.Module], bias: bool = False) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(6, 5, bias=bias), *(make() for make in between), nn.Linear(5, 3, bias=bias)
        )


class Residual(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class UnitRows(nn.Module):
    """A normalisation that no list of normalisations knows."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x.norm(dim=1, keepdim=True)


def degree_of(net: nn.Module) -> int | str | None:
    found = measured_scaling(net, X)
    if found is None or found.kind == "homogeneous":
        return None if found is None else found.depth
    return f"{found.kind} {found.depth}"


@pytest.mark.parametrize(
    ("net", "degree"),
    [
        (mlp(depth=1), 1),
        (mlp(depth=2), 2),
        (mlp(depth=3), 3),
        (mlp(depth=4), 4),
        (models.build("two_layer", {"input_dim": 6}, seed=0), 2),
        (chain(nn.ReLU), 2),
        (chain(nn.LeakyReLU, lambda: nn.Dropout(0.3)), 2),
        (chain(lambda: nn.Linear(5, 5, bias=False), nn.ReLU), 3),
        (mlp(depth=2, bias=True), 2),
        (mlp(depth=3, activation="tanh"), None),
        (mlp(depth=3, activation="gelu"), None),
        (mlp(depth=2, bias=True, init="torch"), 2),
        (
            models.build("resmlp", {"input_dim": 6, "n_outputs": 3, "width": 5}, seed=0),
            "normalised 2",
        ),
        (
            models.build(
                "resmlp", {"input_dim": 6, "n_outputs": 3, "width": 5, "norm": "none"}, seed=0
            ),
            None,
        ),
        (chain(nn.ReLU, bias=True), 2),
        (chain(nn.GELU), None),
        (chain(lambda: nn.LayerNorm(5), nn.ReLU), "normalised 2"),
        (chain(lambda: nn.LayerNorm(5), nn.GELU), "normalised 1"),
        (chain(lambda: nn.LayerNorm(5, elementwise_affine=False), nn.ReLU), "normalised 1"),
        (chain(lambda: nn.BatchNorm1d(5), nn.ReLU), "normalised 2"),
        (chain(lambda: nn.BatchNorm1d(5, affine=False), nn.ReLU), "normalised 1"),
        (
            chain(lambda: nn.BatchNorm1d(5), nn.ReLU, lambda: nn.Linear(5, 5), nn.ReLU),
            "normalised 3",
        ),
        (chain(UnitRows, nn.ReLU), "normalised 1"),
        (chain(lambda: Residual(5, 5, bias=False), nn.ReLU), None),
        (nn.ReLU(), None),
        (nn.Sequential(nn.Linear(6, 3), nn.Softmax(-1)), None),
    ],
    ids=label,
)
def test_the_degree_of_homogeneity_is_measured(net: nn.Module, degree: int | str | None) -> None:
    assert degree_of(net) == degree


class Exponential(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(1e3 * super().forward(x).square())


def test_overflow_and_zero_are_no_degree() -> None:
    assert measured_scaling(Exponential(6, 3), X) is None
    zero = chain(nn.ReLU)
    assert measured_scaling(zero, torch.zeros(8, 6)) is None


class Counting(nn.Module):
    """Normalisation with running statistics, a counter, a part that is kept in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 5)
        self.norm, self.frozen = nn.BatchNorm1d(5), nn.BatchNorm1d(5)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(5, 3).double()
        self.register_buffer("wide", torch.ones(2, dtype=torch.float64))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        hidden = self.dropout(self.frozen(self.norm(self.body(x))))
        logits: Tensor = self.head(hidden)
        return logits * self.wide[0]


@pytest.mark.parametrize("fails", [False, True])
def test_measuring_leaves_the_net_and_the_random_state_as_they_were(fails: bool) -> None:
    net = Counting()
    net.frozen.eval()
    tensors = [*net.parameters(), *net.buffers()]
    before = [(value.clone(), value.dtype, value.data_ptr()) for value in tensors]
    modes = [module.training for module in net.modules()]
    state = torch.get_rng_state()
    if fails:
        with pytest.raises(RuntimeError):
            measured_scaling(net, torch.ones(8, 7))
    else:
        assert degree_of(net) == "normalised 2"
    assert torch.equal(state, torch.get_rng_state())
    assert [module.training for module in net.modules()] == modes
    after = [*net.parameters(), *net.buffers()]
    for (value, dtype, place), now in zip(before, after, strict=True):
        assert (now.dtype, now.data_ptr()) == (dtype, place)
        assert torch.equal(now, value)
    assert all(parameter.requires_grad for parameter in net.parameters())


@FEW
@given(st.integers(1, 5), st.booleans(), st.integers(1, 4))
def test_an_mlp_has_its_depth_and_its_biases_their_layer(
    depth: int, bias: bool, n_outputs: int
) -> None:
    found = measured_scaling(mlp(depth=depth, bias=bias, n_outputs=n_outputs), X)
    assert found is not None
    wanted = {f"layers.{layer}.weight": 1.0 for layer in range(depth)}
    wanted |= {f"layers.{layer}.bias": layer + 1.0 for layer in range(depth if bias else 0)}
    assert (found.kind, found.depth, dict(found.exponents)) == ("homogeneous", depth, wanted)


def test_behind_a_normalisation_only_the_end_of_the_net_has_a_scale() -> None:
    net = nn.Sequential(
        nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 5), nn.BatchNorm1d(5),
        nn.ReLU(), nn.Linear(5, 3),
    )  # fmt: skip
    found = measured_scaling(net, X)
    assert found is not None
    scaled = {name: e for name, e in found.exponents.items() if e}
    assert scaled == {"4.weight": 1.0, "4.bias": 1.0, "6.weight": 1.0, "6.bias": 2.0}
