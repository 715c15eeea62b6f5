"""A convolutional net in plain PyTorch, as one writes it, and its data."""

from torch import Tensor, nn

import fls_bench


class FashionCnn(nn.Module):
    """Three convolutions and a read-out, with PyTorch's own initial weights; for 28 x 28 images."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1)
        self.readout = nn.Linear(2 * width * 4 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [n, 1, 28, 28] to logits [n, 10]."""
        for conv in (self.conv1, self.conv2, self.conv3):
            x = conv(x).relu()
        return self.readout(x.flatten(1))


def build() -> nn.Module:
    """What `fls-bench diagnose --model fashion_cnn:build` calls, torch seeded around it."""
    return FashionCnn()


def draw_task(n_train: int, seed: int = 0) -> fls_bench.Task:
    """Fashion-MNIST from the folder that FLS_BENCH_DATA names; a sentence where it is not there."""
    return fls_bench.task_source("fashion_mnist", {"n_train": n_train})(seed)
