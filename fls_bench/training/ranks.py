"""Penalties on the ranks of hidden layers: what an experiment adds to the loss of built-in MLPs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fls_bench.metrics.kernels import log_rank
from fls_bench.schema import RankPenalty, RankTerm
from fls_bench.tasks import Task
from fls_bench.training_setup import TrainingSetup

MEASURED_BATCHES = 40


def penalised(penalty: RankPenalty, num_hidden: int) -> range:
    """Which hidden layers a penalty is on, counted from 0."""
    last = num_hidden - 1
    return {"hidden": range(num_hidden), "last": range(last, num_hidden), "earlier": range(last)}[
        penalty.layers
    ]


def rank_name(layer: int) -> str:
    """The name under which a run keeps the log rank of a hidden layer, counted from 0."""
    return f"log_rank.batch:{layer + 1}"


def rank_penalties(
    term: RankTerm | None, seeds: Sequence[int], dtype: torch.dtype, device: str
) -> RankPenalties | None:
    """The penalties of R replicas, or None where there are none."""
    if term is None or not term.penalties:
        return None
    return RankPenalties(term, seeds, dtype, device)


class RankPenalties:
    """What the penalties add to the losses of R replicas.

    Args:
        term: The penalties, with targets for every seed and side in use.
        seeds: One per replica.
        dtype: Floating type of the training.
        device: Where to train.
    """

    def __init__(
        self, term: RankTerm, seeds: Sequence[int], dtype: torch.dtype, device: str
    ) -> None:
        self._term = term
        self._targets = {
            side: torch.tensor([by_seed[seed] for seed in seeds], dtype=dtype, device=device)
            for side, by_seed in term.targets.items()
        }  # side -> [R, layers]

    def keep(self, rows: Tensor) -> None:
        """Drop all replicas but these."""
        self._targets = {side: value[rows] for side, value in self._targets.items()}

    def loss(
        self, hidden: Sequence[Tensor], weights: Sequence[Tensor], *, stacked: bool = True
    ) -> Tensor:
        """The penalties, summed over replicas.

        Args:
            hidden: Activations [R, n, width] of each hidden layer on a minibatch.
            weights: The trained parameters, for the misdirected control.
            stacked: Whether their first axis is the replica.

        Returns:
            0-d; with the gradient of the penalties, or with that gradient misdirected.
        """
        ranks: dict[int, Tensor] = {}
        total = torch.zeros_like(hidden[0][0, 0, 0])
        for penalty in self._term.penalties:
            sign = 1.0 if penalty.side == "hold" else -1.0
            for layer in penalised(penalty, len(hidden)):
                if layer not in ranks:
                    ranks[layer] = log_rank(hidden[layer], self._term.measure)
                target = self._targets[penalty.side][:, layer] + penalty.offset
                missed = sign * (target - ranks[layer])
                total = total + penalty.strength * missed.relu().square().sum()
        return _misdirected(total, weights, stacked) if self._term.misdirected else total


def _misdirected(loss: Tensor, weights: Sequence[Tensor], stacked: bool) -> Tensor:
    """A loss whose gradient has the entries of another's in reverse order, in each weight matrix.

    So it is as large for every matrix at every step and as steady over the steps, and it goes to
    units that have nothing to do with it.
    """
    gradients = torch.autograd.grad(loss, list(weights), retain_graph=True, allow_unused=True)
    total = torch.zeros_like(loss)
    for weight, gradient in zip(weights, gradients, strict=True):
        if gradient is not None:
            total = total + (gradient.flip([*range(int(stacked), gradient.ndim)]) * weight).sum()
    return total


@torch.no_grad()
def batch_ranks(setup: TrainingSetup, task: Task, seed: int, net: nn.Module) -> dict[str, float]:
    """Mean log rank of each hidden layer over random minibatches of the training part.

    Args:
        setup: Its minibatch size, and which ranks; without a ``rank_term`` there is nothing to do.
        task: The run's data.
        seed: The run's; draws the minibatches.
        net: The trained net, an MLP.

    Returns:
        ``rank_name(layer)`` -> log rank, where it is finite.
    """
    if setup.rank_term is None:
        return {}
    weight = next(net.parameters())
    x = torch.as_tensor(task.x_train).to(weight)
    generator = torch.Generator().manual_seed(seed ^ 0x4A4B)
    found: list[list[float]] = []
    for _ in range(MEASURED_BATCHES):
        picked = torch.randperm(len(x), generator=generator)[: setup.batch_size].to(x.device)
        hidden: list[Tensor] = []
        net(x[picked], hidden)
        found.append([float(log_rank(one.double(), setup.rank_term.measure)) for one in hidden])
    means = [math.fsum(values) / MEASURED_BATCHES for values in zip(*found, strict=True)]
    return {rank_name(i): value for i, value in enumerate(means) if math.isfinite(value)}
