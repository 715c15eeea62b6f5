"""Many MLPs as one batch: stacked weights, a hand-written backward pass, fused SGD steps.

Every operation acts on [R, ...] stacks of R replicas that differ in c, learning rate, init scale,
centering and seed. The learning rate is folded into the gradient at the logits, so that each weight
update is one in-place ``baddbmm``. A replica leaves the batch the first time it meets the stopping
rule or diverges. No replica's arithmetic looks at another's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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


@dataclass
class _Stack:
    """State of the replicas that still train; every tensor's first axis is the replica."""

    index: Tensor  # which config each replica is
    seed: Tensor  # which data set each replica has
    weights: list[Tensor]  # per layer [R, in, out]
    biases: list[Tensor]  # per layer [R, 1, out], or empty
    bias_rates: list[Tensor]  # per layer [R, 1, 1]
    c: Tensor  # [R, 1, 1]
    lr: Tensor  # [R, 1, 1]
    start: Tensor | None  # f_0 on the training part [R, n, K], zero where not centered
    bound: Tensor  # training loss beyond which a run has diverged [R]
    loss_before: Tensor  # training loss when three quarters of the epochs had passed [R]

    def keep(self, rows: Tensor) -> None:
        """Drop all replicas but these."""
        for name in ("index", "seed", "c", "lr", "bound", "loss_before"):
            setattr(self, name, getattr(self, name)[rows])
        for name in ("weights", "biases", "bias_rates"):
            setattr(self, name, [value[rows] for value in getattr(self, name)])
        if self.start is not None:
            self.start = self.start[rows]


def _forward(stack: _Stack, x: Tensor, activation: str) -> list[Tensor]:
    """Inputs and hidden activations of every layer, then f(x), as [R, n, width] each."""
    values = [x]
    last = len(stack.weights) - 1
    for layer, weight in enumerate(stack.weights):
        x = torch.baddbmm(stack.biases[layer], x, weight) if stack.biases else torch.bmm(x, weight)
        if layer < last:
            x = x.relu_() if activation == "relu" else x.tanh_()
        values.append(x)
    return values


def _step(
    stack: _Stack, values: list[Tensor], targets: Tensor, start: Tensor | None,
    loss: str, activation: str,
) -> None:  # fmt: skip
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
            below = torch.bmm(delta, stack.weights[layer].transpose(1, 2))
            hidden = values[layer]
            if activation == "relu":
                below = torch.ops.aten.threshold_backward(below, hidden, 0)
            else:
                below = torch.ops.aten.tanh_backward(below, hidden)
        stack.weights[layer].baddbmm_(values[layer].transpose(1, 2), delta, alpha=-1)
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
                value = value.t() if kind == "weight" else value.unsqueeze(0)
                rows.append(value * config.init_scale)
            layers.append(torch.stack(rows).contiguous())
        return layers

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).to(dtype).view(-1, 1, 1)

    has_bias = nets[seeds[0]].layers[0].bias is not None
    count = len(configs)
    stack = _Stack(
        index=torch.arange(count),
        seed=torch.tensor([seeds.index(config.seed) for config in configs]),
        weights=stacked("weight"),
        biases=stacked("bias") if has_bias else [],
        bias_rates=[
            column([bias_rate_factor(layer + 1, depth, config.c) for config in configs])
            for layer in range(depth if has_bias else 0)
        ],
        c=column([config.c for config in configs]),
        lr=column([config.lr for config in configs]),
        start=None,
        bound=torch.empty(count, dtype=dtype),
        loss_before=torch.full((count,), torch.inf, dtype=dtype),
    )
    if any(config.centered for config in configs):
        centered = column([float(config.centered) for config in configs])
        stack.start = _forward(stack, x[stack.seed], nets[seeds[0]].activation)[-1] * centered
    return stack


def _state(
    setup_net: Mlp, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Stacked rows back into a state dict of the net."""
    names = [name for name, _ in setup_net.layers.named_children()]
    state = {f"layers.{n}.weight": w.t().contiguous() for n, w in zip(names, weights, strict=True)}
    for name, bias in zip(names, biases, strict=False):
        state[f"layers.{name}.bias"] = bias.squeeze(0).clone()
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
        configs: One per replica, all with the same ``max_epochs``.
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
    template = make_net(setup, seeds[0], 1.0, dtype)
    assert isinstance(template, Mlp)
    activation, n = template.activation, x.shape[1]
    max_epochs = configs[0].max_epochs
    initial = [
        _state(template, [w[r] for w in stack.weights], [b[r] for b in stack.biases])
        for r in range(len(configs))
    ]
    orders = [batch_order(seed, n) for seed in seeds]
    num_steps = -(-n // setup.batch_size)

    def training_loss() -> tuple[Tensor, Tensor]:
        output = _forward(stack, x[stack.seed], activation)[-1]
        logits = stack.c * (output if stack.start is None else output - stack.start)
        labels = y[stack.seed]
        loss = sample_losses(logits, labels, setup.loss).mean(1)
        return loss, correctness(logits, labels)[0].mean(1)

    stack.bound = DIVERGENCE_FACTOR * training_loss()[0].clamp_min(1)
    for epoch in range(1, max_epochs + 1):
        if cancelled is not None and cancelled.is_set():
            return
        order = torch.stack([next(o) for o in orders])
        for picked in order.split(setup.batch_size, dim=1):
            rows = picked.unsqueeze(-1)
            x_batch = x.gather(1, rows.expand(-1, -1, x.shape[2]))[stack.seed]
            t_batch = targets.gather(1, rows.expand(-1, -1, targets.shape[2]))[stack.seed]
            start = None
            if stack.start is not None:
                per_replica = rows[stack.seed].expand(-1, -1, stack.start.shape[2])
                start = stack.start.gather(1, per_replica)
            _step(
                stack, _forward(stack, x_batch, activation), t_batch, start, setup.loss, activation
            )
        loss, accuracy = training_loss()
        if epoch == max(1, (3 * max_epochs) // 4):
            stack.loss_before = loss
        good = reached(setup.stop, loss, accuracy)
        bad = ~(loss <= stack.bound)
        over = good | bad | (epoch == max_epochs)
        if not over.any():
            continue
        for row in over.nonzero().flatten().tolist():
            value = float(loss[row])
            if bad[row]:
                outcome = Outcome.DIVERGED
            elif good[row]:
                outcome = Outcome.REACHED_TARGET
            else:
                outcome = out_of_epochs(value, float(stack.loss_before[row]))
            which = int(stack.index[row])
            finish(
                TrainedRun(
                    config=configs[which],
                    outcome=outcome,
                    epochs=epoch,
                    steps=epoch * num_steps,
                    train_loss=None if outcome is Outcome.DIVERGED else value,
                    init=initial[which],
                    final=_state(
                        template, [w[row] for w in stack.weights], [b[row] for b in stack.biases]
                    ),
                )
            )
        stack.keep((~over).nonzero().flatten())
        if not len(stack.index):
            return
