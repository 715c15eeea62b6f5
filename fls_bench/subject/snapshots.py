"""A net run on its data, at init and at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from fls_bench import models
from fls_bench.errors import FlsBenchError, InputError
from fls_bench.metrics import NetState, Snapshot
from fls_bench.tangent import MAX_POINTS, tangent_kernels
from fls_bench.tasks import Task
from fls_bench.training import user_code
from fls_bench.training.runs import POINTS_AT_ONCE, make_net
from fls_bench.training_setup import TrainingSetup, in_one_line

KERNEL_OUTPUTS = 3


@contextmanager
def fitting() -> Iterator[None]:
    """Weights, a net and data brought together; what torch says of a misfit, in one sentence.

    Raises:
        InputError: They do not fit.
    """
    try:
        yield
    except FlsBenchError:
        raise
    except (Exception, SystemExit) as error:  # the user's own forward can raise anything
        raise InputError(
            f"The weights, the net and the data do not fit together: {in_one_line(error)}.",
            "Give the builder and the data that the weights belong to.",
        ) from None


def _features(net: nn.Module, x: Tensor, also: str | None) -> tuple[dict[str, Tensor], Tensor]:
    """As ``named_features``, some points at a time: maps of a whole part need not fit into memory."""
    parts = [models.named_features(net, part, also) for part in torch.split(x, POINTS_AT_ONCE)]
    if not isinstance(parts[0][1], Tensor):
        raise InputError(
            f"The net returns a {type(parts[0][1]).__name__}, not a tensor of logits.",
            "Let its builder return a module whose output is one tensor [n, K].",
        )
    features = {name: torch.cat([part[0][name] for part in parts]) for name in parts[0][0]}
    return features, torch.cat([part[1] for part in parts])


def _probabilities(outputs: Tensor) -> bool:
    sums = outputs.double().sum(1)
    return bool((outputs >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-4)


def snapshot_of(
    setup: TrainingSetup,
    task: Task,
    final: Mapping[str, Tensor],
    init: Mapping[str, Tensor] | None,
    seed: int = 0,
    *,
    with_kernel: bool = True,
    kernel_points: int | None = None,
) -> Snapshot:
    """Run a net on its data, at the end and at init, for the metrics.

    Args:
        setup: Builds the net.
        task: The data.
        final: Parameters and buffers by name.
        init: The same at init, init scale applied; or None.
        seed: Seed of the build; its weights are overwritten.
        with_kernel: Whether tangent kernels are computed, the dearest part by far.
        kernel_points: Of so many training points and no test points, mean over at most
            ``KERNEL_OUTPUTS`` outputs; None: of as many as can be had.

    Returns:
        The snapshot.

    Raises:
        InputError: Names or shapes don't fit the net, the net can't take the data, or has no layer
            of the name that the setup gives as its last.
    """
    with user_code("make_model failed", "Correct it, or its arguments."):
        net = make_net(setup, seed, setup.output_multiplier, torch.float32).eval()
    named = setup.feature_layer or None
    also = named if named in dict(net.named_modules()) else None

    def state(values: Mapping[str, Tensor]) -> NetState:
        with fitting():
            net.load_state_dict(dict(values))
            train, val, test = (
                _features(net, torch.tensor(x), also)
                for x in (task.x_train, task.x_val, task.x_test)
            )
        return NetState(
            weights=models.weight_matrices(net),
            train_features=train[0],
            val_features=val[0],
            test_features=test[0],
            train_outputs=train[1],
            val_outputs=val[1],
            test_outputs=test[1],
            convolutions=frozenset(
                name
                for name, module in net.named_modules()
                if isinstance(module, models.WEIGHT_LAYERS) and not isinstance(module, nn.Linear)
            ),
        )

    def clone(values: NetState) -> NetState:
        """Weights are views of the net's parameters, which the next state overwrites."""
        return replace(values, weights={k: v.clone() for k, v in values.weights.items()})

    after = clone(state(final))
    before = None if init is None else clone(state(init))
    expected = 1 if setup.loss == "logistic" else task.n_classes
    if after.test_outputs.ndim != 2 or after.test_outputs.shape[1] != expected:
        raise InputError(
            f"The net has {list(after.test_outputs.shape[1:])} outputs per point; task "
            f"{task.name!r} with loss {setup.loss} needs [{expected}].",
            "Give data with the net's number of classes; a net without a read-out needs --fit-head.",
        )
    if setup.loss == "cross_entropy" and _probabilities(after.test_outputs):
        raise InputError(
            "The net returns probabilities, not logits: its outputs are not negative and add up to 1.",
            "Leave the softmax out of the net that the builder returns; losses and c need logits.",
        )
    if setup.feature_layer is not None and setup.feature_layer not in after.train_features:
        recorded = ", ".join(after.train_features) or "none"
        raise InputError(
            f"The net has no layer {setup.feature_layer[:80]!r} whose features are recorded.",
            "Name the layer that counts as the last (--feature-layer, feature_layer=) out of these, or "
            f"any other module of the net but its read-out: {recorded}.",
        )
    if also is not None and torch.equal(after.test_features[also], after.test_outputs):
        raise InputError(
            f"The layer {also!r} hands on what the net returns: those are logits, not features.",
            "Name a layer in front of the read-out, or leave it out.",
        )
    no_kernel = "The tangent kernel of this net was not computed."
    if with_kernel:
        kernels = tangent_kernels(
            net,
            [final] if init is None else [final, init],
            torch.tensor(task.x_train),
            torch.tensor(task.x_test),
            max_points=MAX_POINTS if kernel_points is None else kernel_points,
            max_outputs=None if kernel_points is None else KERNEL_OUTPUTS,
            with_test=kernel_points is None,
        )
        if isinstance(kernels, str):
            no_kernel = kernels
        else:
            after = replace(after, kernel=kernels[0])
            before = None if before is None else replace(before, kernel=kernels[1])
    x_train, x_val, x_test = (
        torch.as_tensor(x).flatten(1) for x in (task.x_train, task.x_val, task.x_test)
    )
    return Snapshot(
        final=after,
        init=before,
        c=setup.output_multiplier if setup.route == "wrapper" else 1.0,
        centered=setup.centered,
        n_classes=task.n_classes,
        x_train=x_train,
        y_train=torch.as_tensor(task.y_train),
        x_val=x_val,
        y_val=torch.as_tensor(task.y_val),
        x_test=x_test,
        y_test=torch.as_tensor(task.y_test),
        last_layer=setup.feature_layer,
        no_kernel=no_kernel,
    )


def refuse_overflow(snapshot: Snapshot) -> None:
    """Weights from a file may be finite and yet too large to compute with.

    Args:
        snapshot: Of such weights.

    Raises:
        InputError: Outputs or features overflow.
    """
    for which, state in (("weights", snapshot.final), ("initial weights", snapshot.init)):
        parts = [] if state is None else [
            *(snapshot.c * part
              for part in (state.train_outputs, state.val_outputs, state.test_outputs)),
            *state.train_features.values(), *state.val_features.values(),
            *state.test_features.values(),
        ]  # fmt: skip
        if not all(bool(torch.isfinite(part).all()) for part in parts):
            raise InputError(
                f"With the {which} of the file, what the net computes on these data is NaN or infinite.",
                "Give the builder and the data that the weights belong to, with inputs scaled as the "
                "net saw them; if that is so, training diverged.",
            )


def read_out_facts(setup: TrainingSetup, task: Task, final: Mapping[str, Tensor]) -> str:
    """Say which features count as the last, and how that was found.

    Args:
        setup: Builds the net.
        task: The data.
        final: Parameters and buffers by name.

    Returns:
        A few words for people.

    Raises:
        InputError: As ``snapshot_of``.
    """
    if setup.feature_layer is not None:
        return f"{setup.feature_layer}, as given"
    with user_code("make_model failed", "Correct it, or its arguments."):
        net = make_net(setup, 0, setup.output_multiplier, torch.float32).eval()
    with fitting():
        net.load_state_dict(dict(final))
        x = torch.tensor(task.x_train[:2])
        name, fed, is_output = models.read_out(net, x.clone())
        features = models.named_features(net, x)[0]
    if name is None or not features:
        return "none found: the net has no hidden linear or convolutional layer"
    what = (
        "the last linear map" if is_output else "the last linear map, whose output is changed after"
    )
    last = list(features)[-1]
    if fed is None or fed.shape != features[last].shape or not torch.equal(fed, features[last]):
        return (
            f"{last}, whose features are the last that were kept; what {what}, {name}, reads is not"
        )
    return f"{last}: the input of {what}, {name}"
