"""Builders as users write them, right and wrong, for the scaling invariants."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fls_bench import Sgd, TrainingSetup
from fls_bench.examining import random_points
from fls_bench.training_setup import Custom

INPUTS, HIDDEN, CLASSES = 6, 8, 3


def plain_mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(INPUTS, HIDDEN, bias=False),
        nn.ReLU(),
        nn.Linear(HIDDEN, HIDDEN, bias=False),
        nn.ReLU(),
        nn.Linear(HIDDEN, CLASSES, bias=False),
    )


def biased_mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(INPUTS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(),
        nn.Linear(HIDDEN, CLASSES),
    )  # fmt: skip


def dropout_mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(INPUTS, HIDDEN, bias=False), nn.ReLU(), nn.Dropout(0.3),
        nn.Linear(HIDDEN, CLASSES, bias=False),
    )  # fmt: skip


class ScaledLinear(nn.Linear):
    """A read-out with the multiplier wired in."""

    def __init__(self, multiplier: float) -> None:
        super().__init__(HIDDEN, CLASSES, bias=False)
        self.multiplier = multiplier

    def forward(self, x: Tensor) -> Tensor:
        return self.multiplier * super().forward(x)


def wired_mlp(output_multiplier: float = 1.0, seed: int | None = None) -> nn.Module:
    if seed is not None:
        torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(INPUTS, HIDDEN, bias=False), nn.ReLU(), ScaledLinear(output_multiplier)
    )


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(24, CLASSES, bias=False),
    )  # fmt: skip


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(x + self.bn2(self.conv2(y)))


class Residual(nn.Module):
    """A residual net with BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.block = Block(4)
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(torch.relu(self.norm(self.stem(x))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class PlainResidual(nn.Module):
    """Residual sums without normalisation: no power of the scale of its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(INPUTS, HIDDEN, bias=False)
        self.second = nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.head = nn.Linear(HIDDEN, CLASSES, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        logits: Tensor = self.head(x + torch.relu(self.second(x)))
        return logits


class Transformer(nn.Module):
    """One pre-norm block of attention over six tokens of four numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, HIDDEN)
        self.block = nn.TransformerEncoderLayer(
            HIDDEN, 2, 16, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.norm = nn.LayerNorm(HIDDEN)
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.block(self.embed(x))).mean(1))
        return logits


def biased_before_norm() -> nn.Module:
    """The usual layout: a linear layer with a bias, then BatchNorm, which takes the bias off again."""
    return nn.Sequential(
        nn.Linear(INPUTS, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN),
        nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES),
    )  # fmt: skip


def frozen() -> nn.Module:
    net = plain_mlp()
    next(net.parameters()).requires_grad_(False)
    return net


def linear() -> nn.Module:
    return nn.Linear(INPUTS, CLASSES, bias=False)


def many_classes() -> nn.Module:
    return nn.Sequential(nn.Linear(INPUTS, HIDDEN, bias=False), nn.ReLU(), nn.Linear(HIDDEN, 100))


class Gated(nn.Module):
    """A read-out that is zero at init, and a gain that is one number."""

    def __init__(self, multiplier: float) -> None:
        super().__init__()
        self.body = plain_mlp()
        self.gain = nn.Parameter(torch.zeros(()))
        self.register_buffer("multiplier", torch.tensor(float(multiplier)))

    def forward(self, x: Tensor) -> Tensor:
        return self.multiplier * self.gain * self.body(x)


def gated(output_multiplier: float) -> nn.Module:
    return Gated(output_multiplier)


def gated_twice(output_multiplier: float) -> nn.Module:
    return Gated(output_multiplier**2)


# --- planted mistakes -----------------------------------------------------------------------


class Wrong(nn.Module):
    """A net that treats its multiplier in one of the ways in which people get it wrong."""

    def __init__(self, multiplier: float, mistake: str) -> None:
        super().__init__()
        self.body = plain_mlp()
        self.multiplier, self.mistake = multiplier, mistake

    def forward(self, x: Tensor) -> Tensor:
        f: Tensor = self.body(x)
        c = self.multiplier
        if self.mistake == "twice":
            return c * (c * f)
        if self.mistake == "inverted":
            return f / c
        if self.mistake == "ignored":
            return f
        if self.mistake == "square root":
            return c**0.5 * f
        if self.mistake == "loss alone":  # the probes and the evaluation see f
            return c * f if self.training else f
        assert self.mistake == "gradient alone"  # straight-through: values of f, gradients of c·f
        return f.detach() + c * (f - f.detach())


def twice(output_multiplier: float = 1.0) -> nn.Module:
    return Wrong(output_multiplier, "twice")


def inverted(output_multiplier: float = 1.0) -> nn.Module:
    return Wrong(output_multiplier, "inverted")


def ignored(output_multiplier: float = 1.0) -> nn.Module:
    return Wrong(output_multiplier, "ignored")


def square_root(output_multiplier: float = 1.0) -> nn.Module:
    return Wrong(output_multiplier, "square root")


def loss_alone(output_multiplier: float = 1.0) -> nn.Module:
    return Wrong(output_multiplier, "loss alone")


def gradient_alone(output_multiplier: float = 1.0) -> nn.Module:
    return Wrong(output_multiplier, "gradient alone")


def other_default(output_multiplier: float = 0.5) -> nn.Module:
    """Right in all but its default: the plain net is not the net at c = 1."""
    body = plain_mlp()
    read_out = ScaledLinear(output_multiplier)
    return nn.Sequential(*body[:-1], read_out)


class Placed(nn.Module):
    """The first point of a batch counts double."""

    def __init__(self) -> None:
        super().__init__()
        self.body = plain_mlp()

    def forward(self, x: Tensor) -> Tensor:
        f: Tensor = self.body(x)
        return torch.cat([2 * f[:1], f[1:]])


# --- optimizers that are told the multiplier ------------------------------------------------


def exact(net: nn.Module, output_multiplier: float) -> torch.optim.Optimizer:
    """The rule of a three-layer net with biases: layer l's go as c^(-2l/3)."""
    groups = [
        {
            "params": [p],
            "lr": 0.05
            * output_multiplier ** (-2 / 3 * (int(k[0]) // 2 + 1 if k.endswith("bias") else 1)),
        }
        for k, p in net.named_parameters()
    ]
    return torch.optim.SGD(groups)


def uncompensated(net: nn.Module, output_multiplier: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.05)


def wrong_exponent(net: nn.Module, output_multiplier: float) -> torch.optim.Optimizer:
    """eta/c, the rule for two layers, on three."""
    return torch.optim.SGD(net.parameters(), lr=0.05 / output_multiplier)


def bias_unscaled(net: nn.Module, output_multiplier: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.05 * output_multiplier ** (-2 / 3))


def adam_epsilon_left(net: nn.Module, output_multiplier: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(net.parameters(), lr=0.01 * output_multiplier ** (-1 / 3), eps=1e-4)


def decay_left(net: nn.Module, output_multiplier: float) -> torch.optim.Optimizer:
    lr = 0.05 * output_multiplier ** (-2 / 3)
    return torch.optim.SGD(net.parameters(), lr=lr, weight_decay=0.1)


def direction_flipped(net: nn.Module, output_multiplier: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.05 * output_multiplier ** (2 / 3))


# --- setups ---------------------------------------------------------------------------------


def setup() -> TrainingSetup:
    return TrainingSetup(
        make_model=plain_mlp, task=random_points((INPUTS,), CLASSES), optimizer=Sgd(lr=0.05),
        name="a setup",
    )  # fmt: skip


def custom_setup() -> TrainingSetup:
    def make(groups: list[dict[str, object]]) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups)  # type: ignore[arg-type]

    return TrainingSetup(
        make_model=plain_mlp,
        task=random_points((INPUTS,), CLASSES),
        optimizer=Custom(make, lr=0.05),
    )


def two_inputs() -> nn.Module:
    return nn.Bilinear(3, 3, 2)


def needs_width(width: int) -> nn.Module:
    return nn.Linear(width, 2)
