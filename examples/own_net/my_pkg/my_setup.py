"""A net and a task that fls-bench does not know, offered to it as a training setup."""

import functools

import numpy as np
import torch
from sklearn.datasets import load_digits

import fls_bench


class SmallConvNet(torch.nn.Module):
    """Two convolutions with tanh and biases, a linear read-out; for 8 x 8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(1, 8, kernel_size=3, padding=1)
        self.conv2 = torch.nn.Conv2d(8, 16, kernel_size=3, stride=2, padding=1)
        self.readout = torch.nn.Linear(16 * 4 * 4, 10)
        for layer in (self.conv1, self.conv2, self.readout):
            torch.nn.init.xavier_normal_(layer.weight, gain=3.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images [n, 1, 8, 8] to logits [n, 10]."""
        x = torch.tanh(self.conv1(x))
        x = torch.tanh(self.conv2(x))
        return self.readout(x.flatten(1))


def make_net() -> torch.nn.Module:
    """The net with fresh weights; torch is seeded around this call."""
    return SmallConvNet()


@functools.cache
def load() -> tuple[np.ndarray, np.ndarray]:
    """Images [n, 1, 8, 8] in 0 .. 1 and labels [n], read once per process."""
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype(np.float32).reshape(-1, 1, 8, 8), y


def draw_task(seed: int) -> fls_bench.Task:
    """Digits as images: one test part for all seeds, training and validation parts by seed."""
    images, y = load()
    order = np.random.default_rng(0).permutation(len(y))
    test, rest = order[:1000], order[1000:]
    rest = np.random.default_rng([1, seed]).permutation(rest)
    train, validation = rest[:100], rest[100:]
    return fls_bench.make_task(
        "digit-images",
        train=(images[train], y[train]),
        validation=(images[validation], y[validation]),
        test=(images[test], y[test]),
        n_classes=10,
    )


def setup() -> fls_bench.TrainingSetup:
    """What `fls-bench diagnose --setup my_pkg.my_setup:setup` judges."""
    return fls_bench.TrainingSetup(
        make_model=make_net,
        task=draw_task,
        optimizer=fls_bench.Sgd(lr=0.15),
        batch_size=25,
        stop=fls_bench.TargetLoss(target_loss=0.3, max_epochs=100),
        name="small conv net",
    )
