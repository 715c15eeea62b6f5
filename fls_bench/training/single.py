"""One net at a time: any module, by autograd and torch.optim. The plain reference of the engine."""

from __future__ import annotations

import copy
import threading

import torch
from torch import Tensor, nn

from fls_bench.models import Mlp
from fls_bench.scaling import bias_rate_factor
from fls_bench.schema import Outcome, RunConfig
from fls_bench.tasks import Task
from fls_bench.training.runs import (
    DIVERGENCE_FACTOR,
    TrainedRun,
    batch_order,
    correctness,
    make_net,
    out_of_epochs,
    reached,
    sample_losses,
)
from fls_bench.training_setup import TrainingSetup


class Interrupted(Exception):
    """Training was cancelled from outside."""


def _parameter_groups(net: nn.Module, config: RunConfig) -> list[dict[str, object]]:
    """One group; for a built-in net with biases, one per layer's biases with its own rate."""
    if not (isinstance(net, Mlp) and net.layers[0].bias is not None):
        return [{"params": list(net.parameters()), "lr": config.lr}]
    depth = len(net.layers)
    groups: list[dict[str, object]] = [
        {"params": [layer.weight for layer in net.layers], "lr": config.lr}
    ]
    for number, layer in enumerate(net.layers, start=1):
        rate = config.lr * bias_rate_factor(number, depth, config.c)
        groups.append({"params": [layer.bias], "lr": rate})
    return groups


def train_single(
    setup: TrainingSetup,
    task: Task,
    config: RunConfig,
    *,
    weight_decay: float = 0.0,
    dtype: torch.dtype = torch.float32,
    cancelled: threading.Event | None = None,
) -> TrainedRun:
    """Train one net until the stopping rule holds.

    Args:
        setup: Any setup.
        task: The run's data.
        config: The run.
        weight_decay: L2 penalty at this c.
        dtype: Floating type of weights and data.
        cancelled: Checked every epoch.

    Returns:
        The run.

    Raises:
        Interrupted: ``cancelled`` was set.
    """
    net = make_net(setup, config.seed, config.c, dtype)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(config.init_scale)
    init = {key: value.detach().clone() for key, value in net.state_dict().items()}
    origin = copy.deepcopy(net).eval().requires_grad_(False) if config.centered else None
    c = config.c if setup.route == "wrapper" else 1.0
    x = torch.as_tensor(task.x_train, dtype=dtype)
    y = torch.as_tensor(task.y_train)
    optimizer = torch.optim.SGD(
        _parameter_groups(net, config),
        lr=config.lr,
        momentum=setup.optimizer.momentum,
        nesterov=setup.optimizer.nesterov,
        weight_decay=weight_decay,
    )

    def logits(inputs: Tensor) -> Tensor:
        output = net(inputs)
        return c * (output if origin is None else output - origin(inputs))

    @torch.no_grad()
    def training_loss() -> tuple[Tensor, Tensor]:
        net.eval()
        # In pieces: a convolutional net's activations on a whole training part need not fit.
        output = torch.cat([logits(part) for part in x.split(1024)])
        net.train()
        return sample_losses(output, y, setup.loss).mean(), correctness(output, y)[0].mean()

    order = batch_order(config.seed, len(y))
    num_steps = -(-len(y) // setup.batch_size)
    bound = DIVERGENCE_FACTOR * max(1.0, float(training_loss()[0]))
    outcome, loss_before, value, epoch = Outcome.FAILED, float("inf"), float("nan"), 0
    # Dropout and the like draw from torch's global state: seeded per run, restored afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        for epoch in range(1, config.max_epochs + 1):
            if cancelled is not None and cancelled.is_set():
                raise Interrupted
            for picked in next(order).split(setup.batch_size):
                optimizer.zero_grad()
                sample_losses(logits(x[picked]), y[picked], setup.loss).mean().backward()
                optimizer.step()
            loss, accuracy = training_loss()
            value = float(loss)
            if epoch == max(1, (3 * config.max_epochs) // 4):
                loss_before = value
            if not value <= bound:
                outcome = Outcome.DIVERGED
            elif bool(reached(setup.stop, loss, accuracy)):
                outcome = Outcome.REACHED_TARGET
            elif epoch == config.max_epochs:
                outcome = out_of_epochs(value, loss_before)
            else:
                continue
            break
    return TrainedRun(
        config=config,
        outcome=outcome,
        epochs=epoch,
        steps=epoch * num_steps,
        train_loss=None if outcome is Outcome.DIVERGED else value,
        init=init,
        final={key: tensor.detach().clone() for key, tensor in net.state_dict().items()},
    )
