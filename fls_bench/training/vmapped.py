"""Any module without randomness in it: stacked parameters, ``torch.func.vmap`` over the forward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fls_bench.schema import LrRule, RunConfig
from fls_bench.training.optimizers import StackedOptimizer
from fls_bench.training.ranks import rank_penalties
from fls_bench.training.runs import make_net, training_losses
from fls_bench.training_setup import TrainingSetup


class VmappedNets:
    """R nets of one shape, wrapped in their multipliers; see ``replicas.Replicas``.

    The losses of the replicas are summed before the backward pass: each parameter belongs to one of
    them, so its gradient is that of its own loss.

    Args:
        setup: A setup whose nets draw nothing at random and whose multiplier is outside of them.
        rule: Its learning-rate rule.
        configs: One per replica.
        dtype: Floating type of the weights.
        device: Where they are.
    """

    rows_at_once = 1024

    def __init__(
        self,
        setup: TrainingSetup,
        rule: LrRule,
        configs: Sequence[RunConfig],
        dtype: torch.dtype,
        device: str,
    ) -> None:
        self._setup = setup
        nets = {seed: make_net(setup, seed, 1.0, dtype) for seed in {k.seed for k in configs}}
        self._net = nets[configs[0].seed].to(device)
        rows = [nets[config.seed] for config in configs]
        self._trained = {name for name, p in self._net.named_parameters() if p.requires_grad}
        of_row = [dict(net.named_parameters()) for net in rows]
        self._parameters = {
            name: torch.stack(
                [
                    own[name].detach().to(device) * config.init_scale
                    for own, config in zip(of_row, configs, strict=True)
                ]
            ).requires_grad_(name in self._trained)
            for name in of_row[0]
        }
        buffers = [dict(net.named_buffers()) for net in rows]
        self._buffers = {
            name: torch.stack([own[name].to(device) for own in buffers]) for name in buffers[0]
        }
        self._kept = list(self._net.state_dict())
        trained = {name: self._parameters[name] for name in self._trained}
        self._optimizer = StackedOptimizer(setup, rule, configs, trained)

        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64).to(device, dtype).view(-1, 1, 1)

        self._c = column([config.c for config in configs])
        seeds = [config.seed for config in configs]
        self._ranks = rank_penalties(setup.rank_term, seeds, dtype, device)
        # f_0 of inputs that augmentation draws can't be known beforehand.
        self._centered = column([float(config.centered) for config in configs])
        self._origin: tuple[dict[str, Tensor], dict[str, Tensor]] | None = None
        if setup.augmentation and self._centered.any():
            self._origin = (
                {name: value.detach().clone() for name, value in self._parameters.items()},
                {name: value.clone() for name, value in self._buffers.items()},
            )

    def _forward(
        self, state: tuple[dict[str, Tensor], dict[str, Tensor]], x: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
        """f(x) [R, n, K], the buffers afterwards, and hidden activations where ranks are penalised."""

        def one(
            parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], inputs: Tensor
        ) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
            state = {**parameters, **buffers}
            hidden: list[Tensor] = []
            arguments = (inputs,) if self._ranks is None else (inputs, hidden)
            output: Tensor = functional_call(self._net, state, arguments)
            # A forward may have put others in place of its buffers.
            return output, {name: state[name].detach() for name in buffers}, hidden

        forward = vmap(one, randomness="error")
        f, buffers, hidden = forward(*state, x)
        return f, {name: value.contiguous() for name, value in buffers.items()}, hidden

    @torch.no_grad()
    def _start(self, x: Tensor) -> Tensor | None:
        """f_0(x) [R, n, K], zero where not centered; None where it is known beforehand."""
        if self._origin is None:
            return None
        self._net.eval()
        f, buffers, _ = self._forward(self._origin, x)
        self._origin = self._origin[0], buffers
        self._net.train()
        return f * self._centered

    def outputs(self, x: Tensor) -> Tensor:
        """f(x) [R, n, K] in evaluation mode."""
        self._net.eval()
        f, self._buffers, _ = self._forward((self._parameters, self._buffers), x)
        self._net.train()
        return f

    def step(self, x: Tensor, y: Tensor, start: Tensor | None, factor: Tensor) -> None:
        """One step of the optimizer on the batch mean of the loss of c·(f - f_0)."""
        names = [name for name in self._parameters if name in self._trained]
        own = self._start(x)
        start = start if own is None else own
        with torch.enable_grad():
            f, self._buffers, hidden = self._forward((self._parameters, self._buffers), x)
            logits = self._c * (f if start is None else f - start)
            loss = training_losses(self._setup, logits, y).mean(-1).sum()
            if self._ranks is not None:
                loss = loss + self._ranks.loss(hidden, [self._parameters[name] for name in names])
            found = torch.autograd.grad(
                loss, [self._parameters[name] for name in names], allow_unused=True
            )
        gradients = {k: g for k, g in zip(names, found, strict=True) if g is not None}
        self._optimizer.step(self._parameters, gradients, factor)

    def keep(self, rows: Tensor) -> None:
        """Drop all replicas but these."""
        self._parameters = {
            name: value.detach()[rows].requires_grad_(name in self._trained)
            for name, value in self._parameters.items()
        }
        self._buffers = {name: value[rows] for name, value in self._buffers.items()}
        self._c, self._centered = self._c[rows], self._centered[rows]
        if self._origin is not None:
            values, buffers = self._origin
            self._origin = (
                {name: value[rows] for name, value in values.items()},
                {name: value[rows] for name, value in buffers.items()},
            )
        if self._ranks is not None:
            self._ranks.keep(rows)
        self._optimizer.keep(rows)

    def state(self, row: int) -> dict[str, Tensor]:
        """Parameters and persistent buffers of one replica by name."""
        both = {**self._parameters, **self._buffers}
        return {name: both[name][row].detach().cpu().clone() for name in self._kept}


def problem_with_batching(net: nn.Module) -> str | None:
    """Why replicas of a module can't be trained as one batch, as far as its structure tells.

    Args:
        net: A fresh module of the setup.

    Returns:
        A sentence, or None.
    """
    for module in net.modules():
        kind = type(module).__name__
        if "Dropout" in kind and getattr(module, "p", 1) > 0:
            return "It has dropout: replicas would share its masks."
    known = {name for name, _ in (*net.named_parameters(), *net.named_buffers())}
    if set(net.state_dict()) - known:
        return "Some of its parameters are shared between modules."
    return None
