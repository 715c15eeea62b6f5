"""A net with its multiplier inside, the optimizer that goes with it, and the setup of both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import fls_bench


class SmallConvNet(nn.Module):
    """Two convolutions and a read-out that is multiplied by c."""

    def __init__(self, output_multiplier: float) -> None:
        super().__init__()
        self.output_multiplier = output_multiplier
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.readout = nn.Linear(64, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.output_multiplier * self.readout(self.features(x))


def build(*, output_multiplier: float = 1.0, seed: int | None = None) -> nn.Module:
    if seed is not None:
        torch.manual_seed(seed)
    return SmallConvNet(output_multiplier)


def optimizer(net: nn.Module, output_multiplier: float) -> torch.optim.Optimizer:
    """SGD whose rate follows c by the exact rule of a net of three weight layers."""
    return torch.optim.SGD(net.parameters(), lr=0.1 * output_multiplier ** (-2 / 3))


def digits(seed: int) -> fls_bench.Task:
    """scikit-learn's digits as images: 200 to train on, redrawn with the seed."""
    flat = fls_bench.task_source("digits", {"n_train": 200})(seed)
    parts = {
        part: (getattr(flat, f"x_{part}").reshape(-1, 1, 8, 8), getattr(flat, f"y_{part}"))
        for part in ("train", "val", "test")
    }
    return fls_bench.make_task("digit-images", parts["train"], parts["test"], parts["val"])


def setup() -> fls_bench.TrainingSetup:
    return fls_bench.TrainingSetup(
        make_model=build,
        task=digits,
        optimizer=fls_bench.Sgd(lr=0.1),
        stop=fls_bench.TargetLoss(0.3, max_epochs=60),
        name="small conv net with c inside",
    )
