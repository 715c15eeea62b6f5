"""A read-out for an encoder that has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from fls_bench.errors import InputError
from fls_bench.metrics.probes import Split, fitted_head
from fls_bench.subject.snapshots import fitting
from fls_bench.tasks import Task
from fls_bench.training.runs import POINTS_AT_ONCE, make_net, seeded
from fls_bench.training_setup import TrainingSetup

HEAD_POINTS = 5000
"""A read-out is fitted to at most so many training points."""


class _Headed(nn.Module):
    """An encoder and a linear read-out."""

    def __init__(self, encoder: nn.Module, width: int, n_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(x).flatten(1))
        return logits


def with_head(
    setup: TrainingSetup, net: nn.Module, final: Mapping[str, Tensor], task: Task
) -> tuple[TrainingSetup, dict[str, Tensor], int]:
    """Put a linear read-out, fitted to the training points, on an encoder.

    Args:
        setup: Builds the encoder.
        net: The encoder.
        final: Its weights by name.
        task: The data.

    Returns:
        (a setup that builds encoder and read-out, their weights, number of the encoder's outputs).

    Raises:
        InputError: The net has a read-out already, or none can be fitted.
    """
    with fitting():
        net.load_state_dict(dict(final))
        with torch.no_grad():
            train, val = (
                torch.cat(
                    [net(part) for part in torch.split(torch.tensor(x), POINTS_AT_ONCE)]
                ).flatten(1)
                for x in (task.x_train[:HEAD_POINTS], task.x_val)
            )
    if train.shape[1] == task.n_classes:
        raise InputError(
            f"The net gives {task.n_classes} outputs for {task.n_classes} classes, as a net with a "
            "read-out does.",
            "Leave --fit-head out, or give the builder of the encoder alone.",
        )
    labels = torch.as_tensor(task.y_train[:HEAD_POINTS])
    head = fitted_head(
        Split(train, labels), Split(val, torch.as_tensor(task.y_val)), task.n_classes
    )
    if isinstance(head, str):
        raise InputError(
            f"No read-out can be fitted to the net's features: {head}",
            "Give data that the encoder can tell apart.",
        )
    weight, bias = head

    def build() -> nn.Module:
        with seeded(0):
            encoder = make_net(setup, 0, 1.0, torch.float32)
            return _Headed(encoder, weight.shape[1], weight.shape[0])

    state = {f"encoder.{name}": value for name, value in final.items()}
    layer = None if setup.feature_layer is None else f"encoder.{setup.feature_layer}"
    headed = replace(
        setup,
        make_model=build,
        output_multiplier=1.0,
        centered=False,
        loss="cross_entropy",
        multiplier_route="wrapper",
        feature_layer=layer,
    )
    return headed, {**state, "head.weight": weight, "head.bias": bias}, train.shape[1]
