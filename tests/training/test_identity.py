"""The claim behind every sweep: c and the scale of the parameters are one axis if the rates follow.

Parameters times alpha^e at multiplier 1, with the setup's own settings, are the same function at
every step as the parameters themselves at c = alpha^L with the settings of ``scaling``. Tolerance:
every step rounds its products of at most some dozen terms in float64 (1.1e-16 each, some 1e-15 a
step); 75 steps add up to 1e-13, and 1e-10 leaves three digits for the growth of a deviation by the
training itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from own_nets import INPUT_DIM, blobs, config, distance, images, in_one_batch
from torch import Tensor, nn
from torch.func import functional_call

from fls_bench import models
from fls_bench.homogeneity import Scaling, measured_scaling
from fls_bench.scaling import rate_power, scaled_rate
from fls_bench.schema import (
    Adam,
    AdamW,
    AnyOptimizer,
    Cosine,
    LrRule,
    PerStep,
    Sgd,
    StepDecay,
    TargetLoss,
)
from fls_bench.tasks import Task
from fls_bench.training import optimizers, resolve_lr_rule, train_one
from fls_bench.training.runs import TrainedRun
from fls_bench.training_setup import TrainingSetup

TOLERANCE = 1e-10
ALPHA = 0.4
OPTIMIZERS: dict[str, AnyOptimizer] = {
    "sgd": Sgd(lr=0.1),
    "momentum": Sgd(lr=0.03, momentum=0.9),
    "nesterov": Sgd(lr=0.03, momentum=0.9, nesterov=True),
    "penalty": Sgd(lr=0.1, weight_decay=0.05),
    "clipped": Sgd(lr=0.3, clip_norm=0.2),
    "adam": Adam(lr=0.01, epsilon=1e-3),
    "adam with penalty": Adam(lr=0.01, epsilon=1e-3, weight_decay=0.05),
    "adamw": AdamW(lr=0.01, epsilon=1e-3, weight_decay=0.1),
    "all": AdamW(
        lr=0.02, epsilon=1e-3, weight_decay=0.1, clip_norm=0.2, schedule=Cosine(epochs=20)
    ),
    "steps": Sgd(lr=0.1, momentum=0.5, weight_decay=0.05, schedule=StepDecay(every=4)),
    "per step": AdamW(
        lr=0.02, epsilon=1e-3, weight_decay=0.1, clip_norm=0.2, schedule=PerStep(warmup_steps=20)
    ),
}


def stack(depth: int, bias: bool, norm: Callable[[int], nn.Module] | None = None) -> nn.Module:
    layers: list[nn.Module] = []
    for layer in range(depth - 1):
        layers.append(nn.Linear(INPUT_DIM if layer == 0 else 8, 8, bias=bias))
        layers += [] if norm is None else [norm(8)]
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(8, 3, bias=bias))


class Image(nn.Module):
    """The five inputs as a row of pixels, so that convolutions are tried on the same data."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 4, 3, padding=1)
        self.second = nn.Conv1d(4, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.second(torch.relu(self.first(x.unsqueeze(1))))))
        logits: Tensor = self.head(x.mean(-1))
        return logits


NETS: dict[str, tuple[Callable[[], nn.Module], str, int]] = {
    "2 layers": (lambda: stack(2, bias=False), "homogeneous", 2),
    "4 layers": (lambda: stack(4, bias=False), "homogeneous", 4),
    "3 layers with biases": (lambda: stack(3, bias=True), "homogeneous", 3),
    "batch norm": (lambda: stack(3, True, nn.BatchNorm1d), "normalised", 2),
    "resmlp": (
        lambda: models.build(
            "resmlp", {"input_dim": INPUT_DIM, "n_outputs": 3, "width": 8, "blocks": 1}, seed=0
        ),
        "normalised",
        2,
    ),
    "affine-free": (
        lambda: stack(3, False, lambda n: nn.BatchNorm1d(n, affine=False)),
        "normalised",
        1,
    ),
    "layer norm": (lambda: stack(3, True, nn.LayerNorm), "normalised", 2),
    "convolutions": (Image, "normalised", 2),
}
SHAPE, LARGE, LARGER = (1, 8, 8), (1, 10, 10), (1, 17, 20)


def image_net(
    name: str, shape: tuple[int, ...] = SHAPE, **arguments: Any
) -> Callable[[], nn.Module]:
    sized = {**models.architecture(name).sized(shape, 3), **arguments}
    return lambda: models.build(name, sized, seed=0)


IMAGE_NETS: dict[str, tuple[Callable[[], nn.Module], str, int]] = {
    "cnn": (image_net("cnn", width=3, depth=2), "homogeneous", 3),
    "cnn with biases": (image_net("cnn", width=3, depth=2, bias=True), "homogeneous", 3),
    "normalised cnn": (image_net("cnn", width=3, depth=2, norm="batch"), "normalised", 2),
    "resnet": (image_net("resnet", width=2), "normalised", 2),
    "resnet18": (image_net("resnet18", width=2), "normalised", 1),
    "vit": (image_net("vit", dim=8, depth=1, heads=2), "normalised", 2),
}
DEEP_NETS: dict[str, tuple[Callable[[], nn.Module], str, int]] = {
    "resnet34": (image_net("resnet34", LARGE, width=2), "normalised", 1),
    "resnet50": (image_net("resnet50", LARGE, width=2), "normalised", 1),
    "vgg19": (image_net("vgg19", LARGER, width=2), "normalised", 2),
    "plain vgg19": (image_net("vgg19", LARGER, width=2, norm="none"), "homogeneous", 17),
}
ALL_NETS = {**NETS, **IMAGE_NETS, **DEEP_NETS}


@cache
def data(net: str, n_train: int = 25) -> Task:
    if net in NETS:
        return blobs(0, n_train=n_train)
    shape = (LARGER if "vgg" in net else LARGE) if net in DEEP_NETS else SHAPE
    return images(0, n_train=n_train, shape=shape)


@cache
def measured(net: str) -> Scaling:
    found = measured_scaling(ALL_NETS[net][0](), torch.as_tensor(data(net).x_train))
    assert found is not None
    return found


def pair(
    net: str,
    optimizer: AnyOptimizer,
    *,
    batched: bool = False,
    compensated: bool = True,
    epochs: int = 15,
) -> tuple[TrainedRun, ...]:
    """The run with parameters times alpha^e, and the run at c = alpha^L."""
    make, kind, depth = ALL_NETS[net]
    task = data(net)
    scaled = TrainingSetup(
        make_model=make, task=task, optimizer=optimizer, batch_size=5,
        stop=TargetLoss(target_loss=1e-9, max_epochs=epochs),
    )  # fmt: skip
    rule = resolve_lr_rule(scaled, task)
    assert (rule.name, rule.depth) == (kind, depth)
    found = measured(net)

    def smaller() -> nn.Module:
        model = make().double()  # float32 would round the product
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.mul_(ALPHA ** found.exponents[name])
        return model

    c = ALPHA**depth
    rate = scaled_rate(optimizer.lr, rule, rate_power(optimizer), at=(1.0, 1.0), to=(c, 1.0))
    if not compensated:
        rate = optimizer.lr
    both = (
        (replace(scaled, make_model=smaller), config(scaled, lr=optimizer.lr)),
        (scaled, config(scaled, c=c, lr=rate)),
    )
    if batched:
        return tuple(in_one_batch(s, [k], rule=rule, kind="vmapped")[0] for s, k in both)
    return tuple(train_one(s, rule, k, dtype=torch.float64)[0] for s, k in both)


def drift(net: str, runs: tuple[TrainedRun, ...]) -> float:
    """Largest difference of the two functions on test points, relative to their size."""
    x = torch.as_tensor(data(net).x_test, dtype=torch.float64)
    model = ALL_NETS[net][0]().double().eval()
    scaled, multiplied = (
        run.config.c * functional_call(model, dict(run.final), (x,)).detach() for run in runs
    )
    return float((scaled - multiplied).abs().max() / scaled.abs().max())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("net", NETS)
def test_scaled_parameters_and_multiplier_give_one_function(net: str, optimizer: str) -> None:
    runs = pair(net, OPTIMIZERS[optimizer])
    assert runs[0].steps == 75
    assert drift(net, runs) < TOLERANCE
    assert runs[0].train_loss == pytest.approx(runs[1].train_loss, rel=TOLERANCE)


@pytest.mark.parametrize("optimizer", ["sgd", "steps", "all"])
@pytest.mark.parametrize("net", ["3 layers with biases", "batch norm", "convolutions"])
def test_a_batch_of_any_nets_keeps_the_identity_too(net: str, optimizer: str) -> None:
    assert drift(net, pair(net, OPTIMIZERS[optimizer], batched=True)) < TOLERANCE


@pytest.mark.parametrize("batched", [False, True], ids=["single", "batched"])
@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
@pytest.mark.parametrize("net", IMAGE_NETS)
def test_the_built_in_image_nets_keep_the_identity(net: str, optimizer: str, batched: bool) -> None:
    # Slow: at a rate of 0.03 the deep one turns a change of its weights by 1e-15 into 5e-10.
    slow = Sgd(lr=0.003, momentum=0.9) if optimizer == "momentum" else OPTIMIZERS[optimizer]
    runs = pair(net, slow, batched=batched, epochs=3)
    assert runs[0].steps == 15
    assert drift(net, runs) < TOLERANCE
    assert all(distance(dict(run.init), dict(run.final)) > 1e-3 for run in runs)


@pytest.mark.parametrize(
    ("net", "batched"),
    # To measure the exponents of 161 parameters takes 15 s: once, and not by default, is enough.
    [
        pytest.param(net, batched, marks=[pytest.mark.slow] if "50" in net else [])
        for batched in (False, True)
        for net in DEEP_NETS
        if not (batched and "50" in net)
    ],
)
def test_the_deep_nets_keep_the_identity(net: str, batched: bool) -> None:
    # Smaller and fewer steps on larger images: on maps of one pixel, as those of 8 x 8 end in, a norm
    # sees five values, and fifty norms turn the rounding of five steps at 0.003 into 0.06.
    calm = Sgd(lr=0.0003, momentum=0.9)
    runs = pair(net, calm, batched=batched, epochs=1)
    assert runs[0].steps == 5
    assert drift(net, runs) < TOLERANCE
    assert all(distance(dict(run.init), dict(run.final)) > 1e-3 for run in runs)


def test_it_breaks_without_compensation() -> None:
    assert drift("4 layers", pair("4 layers", OPTIMIZERS["sgd"], compensated=False)) > 0.1


@pytest.mark.parametrize(
    ("broken", "net", "optimizer", "least"),
    [
        ("lr", "3 layers with biases", "sgd", 1e-3),
        ("lr", "batch norm", "adam", 1e-3),
        ("l2", "4 layers", "penalty", 1e-3),
        ("l2", "batch norm", "penalty", 1e-3),
        ("decay", "4 layers", "adamw", 1e-3),
        ("epsilon", "4 layers", "adam", 1e-3),
        ("clip", "batch norm", "clipped", 1e-3),
    ],
)
def test_it_breaks_where_one_setting_does_not_follow(
    broken: str, net: str, optimizer: str, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = optimizers.factors

    def wrong(rule: LrRule, power: int, name: str, c_ratio: float) -> object:
        return replace(right(rule, power, name, c_ratio), **{broken: 1.0})

    monkeypatch.setattr(optimizers, "factors", wrong)
    assert drift(net, pair(net, OPTIMIZERS[optimizer])) > least
