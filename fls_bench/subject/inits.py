"""The initial weights of a net: built again from a seed, and proved to be those."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fls_bench.bundle import Bundle, NetShape, load_any, match_weights, state_digest
from fls_bench.errors import InputError
from fls_bench.training import user_code
from fls_bench.training.runs import make_net
from fls_bench.training_setup import TrainingSetup

NO_DIGEST = (
    "A seed alone proves nothing, since builders and versions of torch draw differently: give the "
    "digest of the initial weights (fls_bench.state_digest(model.state_dict()) before training) with "
    "--init-digest, or a file of them with --init."
)


def check_centered(setup: TrainingSetup, init: object) -> None:
    """Refuse to judge a centered net without what it is centered by.

    Args:
        setup: Says whether the net computes c·(f - f_0).
        init: The initial weights, or None.

    Raises:
        InputError: f_0 can't be computed.
    """
    if setup.centered and init is None:
        raise InputError(
            "The net is centered, c·(f - f_0), and its initial weights, which f_0 needs, are not known.",
            "Give them with --init, or prove their seed with --init-seed and --init-digest.",
        )


def initial_state(setup: TrainingSetup, seed: int) -> dict[str, Tensor]:
    """Build a setup's net again, as it is before training.

    Args:
        setup: Its builder and init scale.
        seed: Passed to the builder, or to torch around the call.

    Returns:
        Parameters, times the init scale, and buffers by name.

    Raises:
        InputError: The builder fails.
    """
    with user_code("make_model failed", "Correct it, or its arguments."):
        net = make_net(setup, seed, setup.output_multiplier, torch.float32)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(setup.init_scale)
    return {
        name: value.clone() for name, value in net.state_dict().items() if isinstance(value, Tensor)
    }


def recovered_init(
    setup: TrainingSetup, seed: int | None, digest: str | None
) -> tuple[dict[str, Tensor] | None, str]:
    """Build the initial weights again from their seed; believed only where a digest proves them.

    Args:
        setup: Its builder and init scale.
        seed: The seed, or None.
        digest: ``state_digest`` of the initial weights, noted before training; or None.

    Returns:
        (the weights or None, one sentence on how they were proved or why they were not).

    Raises:
        InputError: The builder fails.
    """
    if seed is None:
        return None, "The initial weights are not known."
    if digest is None:
        return None, f"The initial weights are not known for sure. {NO_DIGEST}"
    state = initial_state(setup, seed)
    if state_digest(state) == digest:
        return (
            state,
            f"The initial weights were built again from seed {seed}; their digest proves it.",
        )
    return None, (
        f"The net that seed {seed} gives here is not the one that training started from: its digest "
        "differs. Another version of torch, another device or another order of calls draws other "
        "numbers; a file of the initial weights (--init) would settle it."
    )


def init_from_file(
    path: Path, shape: NetShape, allow: Iterable[str] = ()
) -> tuple[dict[str, Tensor], str]:
    """Read initial weights from a file of any kind that can be judged.

    Args:
        path: The file; of a model file of ours its initial weights, else its trained ones.
        shape: What the net's state dict looks like.
        allow: As in ``load_any``.

    Returns:
        (the weights, where they come from).

    Raises:
        InputError: They can't be read, or don't fit the net.
    """
    file = load_any(path, allow)
    if isinstance(file, Bundle):
        state, sha256 = file.init or file.final, file.sha256
    else:
        match = match_weights(file, shape)
        state, sha256 = file.read(match.tensors)
        state |= {name: torch.zeros((), dtype=torch.int64) for name in match.counters}
    if {name: tuple(value.shape) for name, value in state.items()} != dict(shape.shapes):
        raise InputError(
            f"The initial weights in {str(path)!r} do not fit the net.",
            "Give the state dict of the very net before its first step.",
        )
    return state, f"{path}, sha256 {sha256}"


def net_shape(net: nn.Module) -> NetShape:
    """What the state dict of a net looks like.

    Args:
        net: Any module.

    Returns:
        Names, shapes, kinds of numbers and tied names.

    Raises:
        InputError: Some parameters have no shape yet.
    """
    state = {name: value for name, value in net.state_dict().items() if isinstance(value, Tensor)}
    if lazy := [name for name, value in state.items() if is_lazy(value)]:
        raise InputError(
            f"The net's parameter {lazy[0]!r} is lazy and has no shape yet.",
            "Let the builder run the net once on an input before it returns it.",
        )
    same: dict[int, list[str]] = {}
    for name, parameter in net.named_parameters(remove_duplicate=False):
        same.setdefault(id(parameter), []).append(name)
    tied = {
        name: names[1] if name == names[0] else names[0]
        for names in same.values()
        if len(names) > 1
        for name in names
    }
    return NetShape(
        shapes={name: tuple(value.shape) for name, value in state.items()},
        floating=frozenset(name for name, value in state.items() if value.is_floating_point()),
        tied=tied,
    )
