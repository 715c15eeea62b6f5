"""MLPs under plain SGD: stacked weights, a hand-written backward pass, fused steps.

The learning rate is folded into the gradient at the logits, so that each weight update is one
in-place ``baddbmm``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import gelu, one_hot

from fls_bench.models import Mlp
from fls_bench.schema import LrRule, RunConfig
from fls_bench.training.optimizers import settings
from fls_bench.training.runs import make_net
from fls_bench.training_setup import TrainingSetup


class FusedMlps:
    """R MLPs, wrapped in their multipliers; see ``replicas.Replicas``.

    Args:
        setup: A setup of a built-in MLP with cross-entropy or logistic loss and plain SGD.
        rule: Its learning-rate rule.
        configs: One per replica.
        dtype: Floating type of the weights.
        device: Where they are.
    """

    rows_at_once = 2**15

    def __init__(
        self,
        setup: TrainingSetup,
        rule: LrRule,
        configs: Sequence[RunConfig],
        dtype: torch.dtype,
        device: str,
    ) -> None:
        self._logistic = setup.loss == "logistic"
        nets: dict[int, Mlp] = {}
        for seed in sorted({config.seed for config in configs}):
            net = make_net(setup, seed, 1.0, dtype)
            assert isinstance(net, Mlp)
            nets[seed] = net
        first = nets[configs[0].seed]
        depth, self._activation = len(first.layers), first.activation

        def stacked(kind: str) -> list[Tensor]:
            layers = []
            for layer in range(depth):
                rows = []
                for config in configs:
                    value = getattr(nets[config.seed].layers[layer], kind).detach()
                    value = value if kind == "weight" else value.unsqueeze(0)
                    rows.append(value * config.init_scale)
                layers.append(torch.stack(rows).to(device))
            return layers

        def column(value: Callable[[RunConfig], float]) -> Tensor:
            rows = [value(config) for config in configs]
            return torch.tensor(rows, dtype=torch.float64).to(device, dtype).view(-1, 1, 1)

        def relative_rate(name: str) -> Tensor:
            return column(lambda config: settings(setup, rule, config, name).lr / config.lr)

        has_bias = first.layers[0].bias is not None
        # Per layer [R, out, in]: narrow read-outs are faster so; biases [R, 1, out], or none.
        self._weights = stacked("weight")
        self._biases = stacked("bias") if has_bias else []
        names = range(depth if has_bias else 0)
        self._bias_rates = [relative_rate(f"layers.{layer}.bias") for layer in names]
        self._c, self._lr = column(lambda config: config.c), column(lambda config: config.lr)

    def _forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Inputs and hidden activations of every layer, then f(x), as [R, n, width] each.

        And what is needed of each hidden layer to go back through its activation: the activation
        itself, or of GELU, which it doesn't determine, what it was applied to.
        """
        values, kept = [x], []
        last = len(self._weights) - 1
        for layer, weight in enumerate(self._weights):
            into = weight.transpose(1, 2)
            x = torch.baddbmm(self._biases[layer], x, into) if self._biases else torch.bmm(x, into)
            if layer < last:
                if self._activation == "gelu":
                    kept.append(x)
                    x = gelu(x)
                else:
                    x = x.relu_() if self._activation == "relu" else x.tanh_()
                    kept.append(x)
            values.append(x)
        return values, kept

    def _backward(self, below: Tensor, kept: Tensor) -> Tensor:
        """The gradient at a hidden layer before its activation, of that behind it."""
        gradient: Tensor
        if self._activation == "relu":
            gradient = torch.ops.aten.threshold_backward(below, kept, 0)
        elif self._activation == "tanh":
            gradient = torch.ops.aten.tanh_backward(below, kept)
        else:
            gradient = torch.ops.aten.gelu_backward(below, kept)
        return gradient

    def outputs(self, x: Tensor) -> Tensor:
        """f(x) [R, n, K]."""
        return self._forward(x.flatten(2))[0][-1]

    def step(self, x: Tensor, y: Tensor, start: Tensor | None, factor: Tensor) -> None:
        """One SGD step on the batch mean of the loss of c·(f - f_0), in place."""
        values, kept = self._forward(x.flatten(2))
        logits = values[-1]
        if start is not None:
            logits = logits - start
        logits = logits * self._c
        if self._logistic:
            delta = torch.sigmoid(logits).sub_(y.to(logits.dtype).unsqueeze(-1))
        else:
            delta = torch.softmax(logits, -1).sub_(one_hot(y, logits.shape[-1]))
        delta.mul_(self._c * self._lr * (factor.view(-1, 1, 1) / y.shape[1]))
        for layer in range(len(self._weights) - 1, -1, -1):
            below = None
            if layer > 0:
                below = self._backward(torch.bmm(delta, self._weights[layer]), kept[layer - 1])
            self._weights[layer].baddbmm_(delta.transpose(1, 2), values[layer], alpha=-1)
            if self._biases:
                self._biases[layer].sub_(delta.sum(1, keepdim=True).mul_(self._bias_rates[layer]))
            if below is not None:
                delta = below

    def keep(self, rows: Tensor) -> None:
        """Drop all replicas but these."""
        for layers in (self._weights, self._biases, self._bias_rates):
            layers[:] = [value[rows] for value in layers]
        self._c, self._lr = self._c[rows], self._lr[rows]

    def state(self, row: int) -> dict[str, Tensor]:
        """Weights and biases of one replica by name."""
        state: dict[str, Tensor] = {}
        for layer, weight in enumerate(self._weights):
            state[f"layers.{layer}.weight"] = weight[row].cpu().clone()
            if self._biases:
                state[f"layers.{layer}.bias"] = self._biases[layer][row].squeeze(0).cpu().clone()
        return state
