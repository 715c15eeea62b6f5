"""A residual net with BatchNorm for images of 32 x 32, as in He et al. (arXiv 1512.03385)."""

from torch import Tensor, nn

import fls_bench
from fls_bench.tasks import altered


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, size_in: int, size_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(size_in, size_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(size_out)
        self.conv2 = nn.Conv2d(size_out, size_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(size_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or size_in != size_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(size_in, size_out, 1, stride, bias=False), nn.BatchNorm2d(size_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, size_in, h, w] to [n, size_out, h / stride, w / stride]."""
        y = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(y)) + self.shortcut(x)).relu()


class SmallResNet(nn.Module):
    """``blocks`` blocks in each of three stages; blocks=3 and width=16 is the ResNet-20 of the paper."""

    def __init__(self, blocks: int = 1, width: int = 8, n_classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        ]  # fmt: skip
        size = width
        for stage, size_out in enumerate((width, 2 * width, 4 * width)):
            for block in range(blocks):
                layers.append(Block(size, size_out, stride=2 if stage and not block else 1))
                size = size_out
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.readout = nn.Linear(size, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [n, 3, 32, 32] to logits [n, n_classes]."""
        return self.readout(self.features(x))


def build() -> nn.Module:
    """The small net; what `fls-bench diagnose --model small_resnet:build` calls."""
    return SmallResNet()


def resnet20() -> nn.Module:
    """The net of the paper, for `train.py --full`; has 270,000 parameters."""
    return SmallResNet(blocks=3, width=16)


def draw_task(n_train: int, seed: int = 0, pool: int = 1) -> fls_bench.Task:
    """CIFAR-10 from the folder that FLS_BENCH_DATA names; a sentence where it is not there.

    ``pool=2`` averages squares of 2 x 2 pixels: images of 16 x 16, for a machine without a GPU.
    """
    source = fls_bench.task_source("cifar10", {"n_train": n_train})
    return altered(source, pool=pool)(seed)
