"""Many MLPs as one batch: stacked weights, a hand-written backward pass, fused SGD steps.

Every operation acts on [R, ...] stacks of R replicas that differ in c, learning rate, init scale,
centering and seed. The learning rate is folded into the gradient at the logits, so that each weight
update is one in-place ``baddbmm``. A replica leaves the batch the first time it meets the stopping
rule or diverges. No replica's arithmetic looks at another's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import count

import torch
from torch import Tensor

from fls_bench.models import Mlp
from fls_bench.scaling import bias_rate_factor
from fls_bench.schema import Outcome, RunConfig
from fls_bench.tasks import Task
from fls_bench.training.runs import (
    TrainedRun,
    batch_order,
    divergence_bound,
    make_net,
    out_of_epochs,
    progress,
    quarter_left,
)
from fls_bench.training_setup import TrainingSetup


@dataclass
class _Stack:
    """State of the replicas that still train; every tensor's first axis is the replica."""

    activation: str
    index: Tensor  # which config each replica is
    seed: Tensor  # which data set each replica has
    weights: list[Tensor]  # per layer [R, out, in]: narrow read-outs are faster so
    biases: list[Tensor]  # per layer [R, 1, out], or empty
    bias_rates: list[Tensor]  # per layer [R, 1, 1]
    c: Tensor  # [R, 1, 1]
    lr: Tensor  # [R, 1, 1]
    max_epochs: Tensor  # [R]
    quarter: Tensor  # epoch when a quarter of them is left [R]
    start: Tensor | None  # f_0 on the training part [R, n, K], zero where not centered
    loss_before: Tensor  # training loss at init, then at that epoch [R]
    bound: Tensor  # training loss beyond which a run has diverged [R]

    def keep(self, rows: Tensor) -> None:
        """Drop all replicas but these."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                setattr(self, field.name, value[rows])
            elif isinstance(value, list):
                setattr(self, field.name, [one[rows] for one in value])


def _forward(stack: _Stack, x: Tensor) -> list[Tensor]:
    """Inputs and hidden activations of every layer, then f(x), as [R, n, width] each."""
    values = [x]
    last = len(stack.weights) - 1
    for layer, weight in enumerate(stack.weights):
        into = weight.transpose(1, 2)
        x = torch.baddbmm(stack.biases[layer], x, into) if stack.biases else torch.bmm(x, into)
        if layer < last:
            x = x.relu_() if stack.activation == "relu" else x.tanh_()
        values.append(x)
    return values


def _step(
    stack: _Stack, values: list[Tensor], targets: Tensor, start: Tensor | None, loss: str
) -> None:
    """One SGD step on the batch mean of the loss of c·(f - f_0), in place."""
    logits = values[-1]
    if start is not None:
        logits = logits - start
    logits = logits * stack.c
    probability = torch.sigmoid(logits) if loss == "logistic" else torch.softmax(logits, -1)
    delta = probability.sub_(targets).mul_(stack.c * stack.lr / targets.shape[1])
    for layer in range(len(stack.weights) - 1, -1, -1):
        below = None
        if layer > 0:
            below = torch.bmm(delta, stack.weights[layer])
            hidden = values[layer]
            if stack.activation == "relu":
                below = torch.ops.aten.threshold_backward(below, hidden, 0)
            else:
                below = torch.ops.aten.tanh_backward(below, hidden)
        stack.weights[layer].baddbmm_(delta.transpose(1, 2), values[layer], alpha=-1)
        if stack.biases:
            stack.biases[layer].sub_(delta.sum(1, keepdim=True).mul_(stack.bias_rates[layer]))
        if below is not None:
            delta = below


def _build_stack(
    setup: TrainingSetup, configs: Sequence[RunConfig], seeds: list[int], x: Tensor,
    dtype: torch.dtype,
) -> _Stack:  # fmt: skip
    nets: dict[int, Mlp] = {}
    for seed in seeds:
        net = make_net(setup, seed, 1.0, dtype)
        assert isinstance(net, Mlp)
        nets[seed] = net
    depth = len(nets[seeds[0]].layers)

    def stacked(kind: str) -> list[Tensor]:
        layers = []
        for layer in range(depth):
            rows = []
            for config in configs:
                value = getattr(nets[config.seed].layers[layer], kind).detach()
                value = value if kind == "weight" else value.unsqueeze(0)
                rows.append(value * config.init_scale)
            layers.append(torch.stack(rows))
        return layers

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).to(dtype).view(-1, 1, 1)

    has_bias = nets[seeds[0]].layers[0].bias is not None
    num = len(configs)
    stack = _Stack(
        activation=nets[seeds[0]].activation,
        index=torch.arange(num),
        seed=torch.tensor([seeds.index(config.seed) for config in configs]),
        weights=stacked("weight"),
        biases=stacked("bias") if has_bias else [],
        bias_rates=[
            column(
                [
                    bias_rate_factor(layer + 1, depth, config.c / setup.output_multiplier)
                    for config in configs
                ]
            )
            for layer in range(depth if has_bias else 0)
        ],
        c=column([config.c for config in configs]),
        lr=column([config.lr for config in configs]),
        max_epochs=torch.tensor([config.max_epochs for config in configs]),
        quarter=torch.tensor([quarter_left(config.max_epochs) for config in configs]),
        start=None,
        loss_before=torch.empty(num, dtype=dtype),
        bound=torch.empty(num, dtype=dtype),
    )
    if any(config.centered for config in configs):
        centered = column([float(config.centered) for config in configs])
        stack.start = _forward(stack, x[stack.seed])[-1] * centered
    return stack


def _state(stack: _Stack, row: int) -> dict[str, Tensor]:
    """Stacked rows back into a state dict of the net, copied."""
    state: dict[str, Tensor] = {}
    for layer, weight in enumerate(stack.weights):
        state[f"layers.{layer}.weight"] = weight[row].clone()
        if stack.biases:
            state[f"layers.{layer}.bias"] = stack.biases[layer][row].squeeze(0).clone()
    return state


@torch.no_grad()
def train_batch(
    setup: TrainingSetup,
    tasks: Mapping[int, Task],
    configs: Sequence[RunConfig],
    finish: Callable[[TrainedRun], None],
    *,
    dtype: torch.dtype = torch.float32,
    cancelled: threading.Event | None = None,
) -> None:
    """Train replicas of a built-in net together; hand over each as it ends.

    Args:
        setup: A setup with ``architecture`` set, plain SGD.
        tasks: Data by seed; all of one training size.
        configs: One per replica.
        finish: Called once per replica, in the order in which they end.
        dtype: Floating type of weights and data.
        cancelled: Checked every epoch; when set, the rest is dropped without ``finish``.
    """
    seeds = sorted({config.seed for config in configs})
    x = torch.stack([torch.as_tensor(tasks[s].x_train, dtype=dtype).flatten(1) for s in seeds])
    y = torch.stack([torch.as_tensor(tasks[s].y_train) for s in seeds])
    if setup.loss == "logistic":
        targets = y.to(dtype).unsqueeze(-1)
    else:
        targets = torch.nn.functional.one_hot(y, tasks[seeds[0]].n_classes).to(dtype)
    stack = _build_stack(setup, configs, seeds, x, dtype)
    initial = [_state(stack, row) for row in range(len(configs))]
    orders = [batch_order(seed, x.shape[1]) for seed in seeds]
    num_steps = -(-x.shape[1] // setup.batch_size)

    def measured(inputs: Tensor, labels: Tensor, start: Tensor | None) -> tuple[Tensor, Tensor]:
        output = _forward(stack, inputs)[-1]
        logits = stack.c * (output if start is None else output - start)
        return progress(logits, labels, setup.loss, setup.stop)

    stack.loss_before, _ = measured(x[stack.seed], y[stack.seed], stack.start)
    stack.bound = divergence_bound(stack.loss_before)
    for epoch in count(1):
        if cancelled is not None and cancelled.is_set():
            return
        # One copy of the data per epoch, in the epoch's order: minibatches are then views of it.
        seed = stack.seed.unsqueeze(1)
        order = torch.stack([next(one) for one in orders])[stack.seed]
        inputs, labels, wanted = x[seed, order], y[seed, order], targets[seed, order]
        start = None
        if stack.start is not None:
            start = stack.start.gather(1, order.unsqueeze(-1).expand_as(stack.start))
        for first in range(0, x.shape[1], setup.batch_size):
            part = slice(first, first + setup.batch_size)
            values = _forward(stack, inputs[:, part])
            origin = None if start is None else start[:, part]
            _step(stack, values, wanted[:, part], origin, setup.loss)
        loss, target_met = measured(inputs, labels, start)
        stack.loss_before = torch.where(stack.quarter == epoch, loss, stack.loss_before)
        diverged = ~(loss <= stack.bound)
        over = diverged | target_met | (epoch >= stack.max_epochs)
        if not over.any():
            continue
        for row in over.nonzero().flatten().tolist():
            if diverged[row]:
                outcome = Outcome.DIVERGED
            elif target_met[row]:
                outcome = Outcome.REACHED_TARGET
            else:
                outcome = out_of_epochs(float(loss[row]), float(stack.loss_before[row]))
            which = int(stack.index[row])
            finish(
                TrainedRun(
                    config=configs[which],
                    outcome=outcome,
                    epochs=epoch,
                    steps=epoch * num_steps,
                    train_loss=None if outcome is Outcome.DIVERGED else float(loss[row]),
                    init=initial[which],
                    final=_state(stack, row),
                )
            )
        stack.keep((~over).nonzero().flatten())
        if not len(stack.index):
            return
