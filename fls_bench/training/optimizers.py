"""Optimizer steps: settings per parameter, ``torch.optim`` for one net, stacked ones for many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fls_bench.scaling import factors, rate_power
from fls_bench.schema import Adam, AdamW, LrRule, RunConfig, Sgd
from fls_bench.training_setup import Custom, TrainingSetup

CLIP_EPSILON = 1e-6
"""As in ``torch.nn.utils.clip_grad_norm_``."""


@dataclass(frozen=True)
class Settings:
    """What one parameter of one run is trained with, by the rule.

    Attributes:
        lr: Its rate, without schedule.
        weight_decay: L2 penalty, or for AdamW the decoupled decay.
        epsilon: Adam's epsilon, else 0.
        clip: Factor on its gradient where the norm for clipping is taken.
    """

    lr: float
    weight_decay: float
    epsilon: float
    clip: float


def settings(setup: TrainingSetup, rule: LrRule, config: RunConfig, name: str) -> Settings:
    """What a parameter is trained with at a run's c.

    Args:
        setup: Holds the settings at its own c.
        rule: Its learning-rate rule.
        config: The run; its ``lr`` is the rate of a parameter with the usual exponent.
        name: The parameter's name.

    Returns:
        The settings.
    """
    optimizer = setup.known_optimizer
    own = factors(rule, rate_power(optimizer), name, config.c / setup.output_multiplier)
    decay = own.decay if isinstance(optimizer, AdamW) else own.l2
    epsilon = 0.0 if isinstance(optimizer, Sgd) else optimizer.epsilon * own.epsilon
    return Settings(config.lr * own.lr, optimizer.weight_decay * decay, epsilon, own.clip)


# --- one net --------------------------------------------------------------------------------


class SingleOptimizer:
    """``torch.optim`` with one parameter group for each combination of settings.

    Args:
        setup: The setup.
        rule: Its learning-rate rule.
        config: The run.
        net: Its parameters are trained where they require a gradient.
    """

    def __init__(
        self, setup: TrainingSetup, rule: LrRule, config: RunConfig, net: nn.Module
    ) -> None:
        groups: dict[Settings, list[nn.Parameter]] = {}
        for name, parameter in net.named_parameters():
            if parameter.requires_grad:
                groups.setdefault(settings(setup, rule, config, name), []).append(parameter)
        self._groups = groups
        self._clip_norm = setup.known_optimizer.clip_norm
        self._torch = _torch_optimizer(setup, groups)
        self._rates = [float(group["lr"]) for group in self._torch.param_groups]

    def scale_rates(self, factor: float) -> None:
        """Set all rates to the schedule's factor times their own."""
        for group, rate in zip(self._torch.param_groups, self._rates, strict=True):
            group["lr"] = factor * rate

    def step(self, loss: Tensor) -> None:
        """One step along the gradient of a loss."""
        self._torch.zero_grad()
        torch.autograd.backward(loss)
        if self._clip_norm is not None:
            self._clip(self._clip_norm)
        self._torch.step()

    @torch.no_grad()
    def _clip(self, most: float) -> None:
        squares = [
            (own.clip * parameter.grad).square().sum()
            for own, parameters in self._groups.items()
            for parameter in parameters
            if parameter.grad is not None
        ]
        norm = torch.stack(squares).sum().sqrt()
        shrink = (most / (norm + CLIP_EPSILON)).clamp(max=1.0)
        for parameter in (p for parameters in self._groups.values() for p in parameters):
            if parameter.grad is not None:
                parameter.grad.mul_(shrink)


def _torch_optimizer(
    setup: TrainingSetup, groups: Mapping[Settings, Sequence[nn.Parameter]]
) -> torch.optim.Optimizer:
    own = setup.optimizer
    if isinstance(own, Custom):
        return own.make([{"params": list(p), "lr": one.lr} for one, p in groups.items()])
    listed = [
        {
            "params": list(parameters),
            "lr": one.lr,
            "weight_decay": one.weight_decay,
            **({} if isinstance(own, Sgd) else {"eps": one.epsilon}),
        }
        for one, parameters in groups.items()
    ]
    if isinstance(own, Sgd):
        return torch.optim.SGD(listed, momentum=own.momentum, nesterov=own.nesterov)
    kind = torch.optim.AdamW if isinstance(own, AdamW) else torch.optim.Adam
    return kind(listed, betas=(own.beta1, own.beta2))


# --- many nets ------------------------------------------------------------------------------


class StackedOptimizer:
    """The same steps on parameters [R, ...] of R replicas, each with settings of its own.

    Args:
        setup: The setup; not with a custom optimizer.
        rule: Its learning-rate rule.
        configs: One per replica.
        parameters: Name -> [R, ...].
    """

    def __init__(
        self,
        setup: TrainingSetup,
        rule: LrRule,
        configs: Sequence[RunConfig],
        parameters: Mapping[str, Tensor],
    ) -> None:
        assert not isinstance(setup.optimizer, Custom)
        self._own = setup.optimizer
        self._settings: dict[str, dict[str, Tensor]] = {}
        for name, value in parameters.items():
            rows = [settings(setup, rule, config, name) for config in configs]
            self._settings[name] = {
                key: torch.tensor([getattr(row, key) for row in rows], dtype=torch.float64)
                .to(value)
                .view(-1, *[1] * (value.ndim - 1))
                for key in ("lr", "weight_decay", "epsilon", "clip")
            }
        self._state: dict[str, dict[str, Tensor]] = {name: {} for name in parameters}
        self._steps = 0

    def keep(self, rows: Tensor) -> None:
        """Drop all replicas but these."""
        for table in (self._settings, self._state):
            for name, values in table.items():
                table[name] = {key: value[rows] for key, value in values.items()}

    @torch.no_grad()
    def step(
        self, parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor], factor: Tensor
    ) -> None:
        """One step in place.

        Args:
            parameters: Name -> [R, ...].
            gradients: The same; a parameter that is missing is left as it is.
            factor: The schedule's, on all rates of each replica [R].
        """
        if self._own.clip_norm is not None:
            gradients = self._clipped(gradients, self._own.clip_norm)
        self._steps += 1
        for name, gradient in gradients.items():
            own, state, value = self._settings[name], self._state[name], parameters[name]
            lr = factor.view_as(own["lr"]) * own["lr"]
            if self._own.weight_decay:
                if isinstance(self._own, AdamW):
                    value.mul_(1 - lr * own["weight_decay"])
                else:
                    gradient = gradient + own["weight_decay"] * value
            if isinstance(self._own, Sgd):
                value.sub_(lr * self._momentum(gradient, state, self._own))
            else:
                value.sub_(lr * self._adam(gradient, state, own["epsilon"], self._own))

    @staticmethod
    def _momentum(gradient: Tensor, state: dict[str, Tensor], own: Sgd) -> Tensor:
        if not own.momentum:
            return gradient
        if "momentum" not in state:
            state["momentum"] = gradient.clone()
        else:
            state["momentum"].mul_(own.momentum).add_(gradient)
        return gradient + own.momentum * state["momentum"] if own.nesterov else state["momentum"]

    def _adam(
        self, gradient: Tensor, state: dict[str, Tensor], epsilon: Tensor, own: Adam | AdamW
    ) -> Tensor:
        if not state:
            state.update(mean=torch.zeros_like(gradient), square=torch.zeros_like(gradient))
        state["mean"].lerp_(gradient, 1 - own.beta1)
        state["square"].mul_(own.beta2).addcmul_(gradient, gradient, value=1 - own.beta2)
        # Bias corrections as in the paper's algorithm 1; epsilon is added to the corrected root.
        mean = state["mean"] / (1 - own.beta1**self._steps)
        root = (state["square"] / (1 - own.beta2**self._steps)).sqrt_()
        return mean.div_(root.add_(epsilon))

    def _clipped(self, gradients: Mapping[str, Tensor], most: float) -> dict[str, Tensor]:
        squares = [
            (self._settings[name]["clip"] * value).flatten(1).square().sum(1)
            for name, value in gradients.items()
        ]
        norm = torch.stack(squares).sum(0).sqrt()
        shrink = (most / (norm + CLIP_EPSILON)).clamp(max=1.0)
        return {
            name: value * shrink.view(-1, *[1] * (value.ndim - 1))
            for name, value in gradients.items()
        }
