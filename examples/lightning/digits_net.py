"""A net in Lightning, and its data: digits of scikit-learn, so that nothing has to be brought."""

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

import fls_bench


def build() -> nn.Module:
    """The net inside of the module; what `fls-bench diagnose --model digits_net:build` calls."""
    layers: list[nn.Module] = []
    for size_in in (64, 64, 64):
        layers += [nn.Linear(size_in, 64, bias=False), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(64, 10, bias=False))
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return net


class DigitsModule(pl.LightningModule):
    """A classifier; its logits are multiplied by c. Smaller c = larger FLS = toward over-aligned."""

    def __init__(self, lr: float, output_multiplier: float = 1.0) -> None:
        super().__init__()
        self.net, self.lr, self.output_multiplier = build(), lr, output_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, 10] of images [n, 64]."""
        return self.output_multiplier * self.net(x)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Cross-entropy of a batch."""
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class StopAtLoss(pl.Callback):
    """End training once the loss on all training points is at most a target."""

    def __init__(self, x: Tensor, y: Tensor, target: float) -> None:
        self.x, self.y, self.target = x, y, target
        self.loss = float("inf")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look after every epoch."""
        with torch.no_grad():
            logits = pl_module(self.x.to(pl_module.device))
            self.loss = float(nn.functional.cross_entropy(logits, self.y.to(pl_module.device)))
        trainer.should_stop = self.loss <= self.target


def draw_task(n_train: int, seed: int = 0) -> fls_bench.Task:
    """Digits: training and validation points by seed, one test part for all seeds."""
    return fls_bench.task_source("digits", {"n_train": n_train})(seed)
