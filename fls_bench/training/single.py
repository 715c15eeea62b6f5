"""One net at a time: any module, by autograd and torch.optim. The plain reference of the engine."""

from __future__ import annotations

import copy
from itertools import count

import torch
from torch import Tensor, nn

from fls_bench.models import Mlp
from fls_bench.scaling import bias_rate_factor
from fls_bench.schema import Outcome, RunConfig
from fls_bench.tasks import Task
from fls_bench.training.runs import (
    POINTS_AT_ONCE,
    TrainedRun,
    batch_order,
    divergence_bound,
    make_net,
    out_of_epochs,
    progress,
    quarter_left,
    sample_losses,
    seeded,
)
from fls_bench.training_setup import TrainingSetup


def _parameter_groups(
    net: nn.Module, config: RunConfig, weight_decay: float, own_c: float
) -> list[dict[str, object]]:
    """One group; away from the setup's own c, each layer's biases of a built-in net have their own.

    Rate times penalty is the same in all groups: a step shrinks biases as it shrinks weights.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        factor = 1.0
        if isinstance(net, Mlp) and name.endswith(".bias"):
            layer = 1 + int(name.split(".")[1])
            factor = bias_rate_factor(layer, len(net.layers), config.c / own_c)
        groups.setdefault(factor, []).append(parameter)
    return [
        {"params": params, "lr": config.lr * factor, "weight_decay": weight_decay / factor}
        for factor, params in groups.items()
    ]


def train_single(
    setup: TrainingSetup,
    task: Task,
    config: RunConfig,
    *,
    weight_decay: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> TrainedRun:
    """Train one net until the stopping rule holds.

    Dropout and the like draw from torch's global random state: it is seeded with the run's seed and
    restored afterwards.

    Args:
        setup: Any setup.
        task: The run's data.
        config: The run.
        weight_decay: L2 penalty at this c.
        dtype: Floating type of weights and data.

    Returns:
        The run.
    """
    with seeded(config.seed):
        return _train(setup, task, config, weight_decay, dtype)


def _train(
    setup: TrainingSetup, task: Task, config: RunConfig, weight_decay: float, dtype: torch.dtype
) -> TrainedRun:
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
        _parameter_groups(net, config, weight_decay, setup.output_multiplier),
        momentum=setup.optimizer.momentum,
        nesterov=setup.optimizer.nesterov,
    )

    def logits(inputs: Tensor) -> Tensor:
        output: Tensor = net(inputs)
        return c * (output if origin is None else output - origin(inputs))

    @torch.no_grad()
    def measured() -> tuple[Tensor, Tensor]:
        net.eval()
        output = torch.cat([logits(part) for part in torch.split(x, POINTS_AT_ONCE)])
        net.train()
        return progress(output, y, setup.loss, setup.stop)

    order = batch_order(config.seed, len(y))
    loss, _ = measured()
    loss_before, bound = float(loss), divergence_bound(loss)
    for epoch in count(1):
        for picked in torch.split(next(order), setup.batch_size):
            optimizer.zero_grad()
            batch_loss = sample_losses(logits(x[picked]), y[picked], setup.loss).mean()
            torch.autograd.backward(batch_loss)
            optimizer.step()
        loss, target_met = measured()
        if epoch == quarter_left(config.max_epochs):
            loss_before = float(loss)
        if not loss <= bound:
            outcome = Outcome.DIVERGED
        elif target_met:
            outcome = Outcome.REACHED_TARGET
        elif epoch >= config.max_epochs:
            outcome = out_of_epochs(float(loss), loss_before)
        else:
            continue
        break
    return TrainedRun(
        config=config,
        outcome=outcome,
        epochs=epoch,
        steps=epoch * -(-len(y) // setup.batch_size),
        train_loss=None if outcome is Outcome.DIVERGED else float(loss),
        init=init,
        final={key: value.detach().clone() for key, value in net.state_dict().items()},
    )
