"""Builders of the nets in tests/foreign_files, and setups around them; named on command lines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import fls_bench

FILES = Path(__file__).parent / "foreign_files"
BLOBS = FILES / "lightning-2.6.6.npz"


def plain() -> nn.Module:
    """The net inside of the Lightning module."""
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


def with_norm() -> nn.Module:
    """The net of ``write_torch.py``."""
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


def encoder() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU())


def read_out() -> nn.Module:
    return nn.Linear(5, 3)


class Tied(nn.Module):
    """The net of ``tied.safetensors``: one matrix, used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.second(torch.relu(self.first(x)))
        return logits


class Softmax(nn.Module):
    """A net that returns probabilities, its weights named as those of ``plain``."""

    def __init__(self) -> None:
        super().__init__()
        for index, layer in enumerate(plain().children()):
            self.add_module(str(index), layer)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = layer(x)
        return x.softmax(1)


class Answer(Softmax):
    """A net that returns a dict."""

    def forward(self, x: Tensor) -> Any:
        return {"logits": super().forward(x)}


def arrays() -> dict[str, np.ndarray]:
    """What the file holds; it is closed at once."""
    with np.load(BLOBS) as file:
        return dict(file)


def blobs() -> fls_bench.Task:
    """All sixty training points of the Lightning runs, with test points to validate on."""
    data = arrays()
    train = (data["x_train"], data["y_train"])
    test = (data["x_test"], data["y_test"])
    return fls_bench.make_task(
        "blobs", train, (test[0][:20], test[1][:20]), (test[0][20:], test[1][20:])
    )


def setup() -> fls_bench.TrainingSetup:
    return fls_bench.TrainingSetup(
        make_model=plain,
        task=blobs(),
        optimizer=fls_bench.Adam(lr=0.05),
        batch_size=10,
        stop=fls_bench.TargetLoss(0.2, max_epochs=20),
        name="blobs",
    )


def far_setup() -> fls_bench.TrainingSetup:
    """Labels of the training points turned round: what it makes is unlike the file."""
    data = arrays()
    train = (data["x_train"], (data["y_train"] + 1) % 3)
    test = (data["x_test"], (data["y_test"] + 1) % 3)
    task = fls_bench.make_task("turned", train, test, test)
    return fls_bench.TrainingSetup(
        make_model=plain, task=task, optimizer=fls_bench.Adam(lr=0.05), batch_size=10,
        stop=fls_bench.TargetLoss(0.2, max_epochs=20), name="turned",
    )  # fmt: skip


def centered_setup() -> fls_bench.TrainingSetup:
    return replace(setup(), centered=True)


def drawn(seed: int) -> fls_bench.Task:
    """Forty of the training points, by seed."""
    data = arrays()
    picked = np.random.default_rng(seed).permutation(60)[:40]
    test = (data["x_test"], data["y_test"])
    return fls_bench.make_task(
        "drawn", (data["x_train"][picked], data["y_train"][picked]), test, test
    )


def drawn_setup() -> fls_bench.TrainingSetup:
    return replace(setup(), task=drawn)


def large_tied() -> nn.Module:
    """Two layers that share one matrix, which is most of the file."""
    net = Tied()
    net.first, net.second = nn.Linear(64, 64), nn.Linear(64, 64)
    net.second.weight = net.first.weight
    return net


class InPlace(Softmax):
    """A net that scales its inputs where they lie."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.sub_(3).div_(2)
        for layer in self.children():
            x = layer(x)
        return x


class OutOfPlace(Softmax):
    """The same, on a copy."""

    def forward(self, x: Tensor) -> Tensor:
        x = (x - 3) / 2
        for layer in self.children():
            x = layer(x)
        return x


def masked() -> nn.Module:
    """A net with a mask of infinities in its state, as attention keeps one."""
    net = plain()
    net.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))
    return net
