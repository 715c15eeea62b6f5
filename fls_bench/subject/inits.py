"""The initial weights of a net: built again from a seed, and proved to be those."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fls_bench.bundle import (
    Bundle,
    Checkpoint,
    Match,
    NetShape,
    load_any,
    match_weights,
    state_digest,
)
from fls_bench.errors import InputError
from fls_bench.schema import BundleHeader, Finding
from fls_bench.subject.given import Given
from fls_bench.training import user_code
from fls_bench.training.runs import make_net
from fls_bench.training_setup import TrainingSetup

NO_DIGEST = (
    "A seed alone proves nothing, since builders and versions of torch draw differently: give the "
    "digest of the initial weights (fls_bench.state_digest(model.state_dict()) before training) with "
    "--init-digest, or a file of them with --init."
)


LEAST_LIKENESS = 4.0
"""Standard errors of a cosine of 0 that trained and initial weights must at least have in common."""


@dataclass(frozen=True)
class Initial:
    """What training began with.

    Attributes:
        state: Initial weights by name, init scale applied; None where they are not known.
        origin: Where they come from, in words.
        findings: What proves them, or why they are not known.
    """

    state: dict[str, Tensor] | None
    origin: str
    findings: tuple[Finding, ...] = ()


def initial_weights(
    setup: TrainingSetup,
    shape: NetShape,
    given: Given,
    *,
    header: BundleHeader | None,
    held: Mapping[str, Tensor] | None = None,
) -> Initial:
    """Find the initial weights: in the file, in another one, or by their seed with a digest.

    Args:
        setup: Builds the net.
        shape: What the net's state dict looks like.
        given: What the user gives beside the file.
        header: What the file says of its training, or None.
        held: Initial weights in the file, or None.

    Returns:
        The weights, or why they are not known.

    Raises:
        InputError: They don't fit, or are proved to be others than those that training began with.
    """
    recipe = header.recipe if header is not None else None
    noted = header.init_digest if header is not None else None
    if None not in (noted, given.init_digest) and noted != given.init_digest:
        raise InputError(
            "The file notes another digest of its initial weights than --init-digest.",
            "Leave --init-digest out: the file's own was noted when training began.",
        )
    noted = noted or given.init_digest
    if held is not None or given.init is not None:
        state, origin = (dict(held), "in the file") if held is not None else (
            init_from_file(Path(str(given.init)), shape, given.allow)
        )  # fmt: skip
        if noted is None:
            return Initial(state, origin)
        if not _has_digest(state, noted):
            raise InputError(
                f"The initial weights {origin.split(',')[0]} are not those that training began with: "
                "their digest is not the one that was noted.",
                "Give the init of this very run, in the precision in which it was trained.",
            )
        text = "The initial weights have the digest that was noted when training began."
        proof = Finding(code="init_proved", status="info", text=text)
        return Initial(state, f"{origin}, proved by their digest", (proof,))
    seed = given.init_seed if given.init_seed is not None else recipe.seed if recipe else None
    built, how = recovered_init(setup, seed, noted)
    if built is not None:
        told = Finding(code="init_from_seed", status="info", text=how)
        return Initial(built, f"built from seed {seed}, proved by their digest", (told,))
    status = "warning" if noted is not None or given.init_seed is not None else "info"
    missing = Finding.model_validate({
        "code": "init_not_known", "status": status,
        "text": f"{how} Measures of movement and alignment against the init are left out.",
    })  # fmt: skip
    return Initial(None, "not known", (missing,))


def _has_digest(state: Mapping[str, Tensor], digest: str) -> bool:
    """In the precision that it has, or another one in which the net may have been trained."""
    if state_digest(state) == digest:
        return True
    for kind in (torch.float32, torch.bfloat16, torch.float16):
        cast = {
            name: value.to(kind) if value.is_floating_point() else value
            for name, value in state.items()
        }
        if state_digest(cast) == digest:
            return True
    return False


def likeness_findings(
    final: Mapping[str, Tensor], init: Mapping[str, Tensor] | None, shape: NetShape
) -> tuple[Finding, ...]:
    """Whether trained weights can have begun as these: moved, and still like them.

    Two independent draws of m centred numbers have a cosine of 0 with a standard error of 1/sqrt(m).
    Weights that were trained keep more of their init than that, unless they moved very far.

    Args:
        final: Trained weights by name.
        init: The initial ones, or None.
        shape: Says which of them are parameters.

    Returns:
        Warnings, none where all is well.
    """
    matrices = [
        name
        for name, value in final.items()
        if name in shape.parameters and value.is_floating_point() and value.ndim > 1
    ]
    if init is None or not matrices:
        return ()
    after, before = (
        torch.cat([values[name].double().flatten() for name in matrices])
        for values in (final, init)
    )
    if torch.equal(after, before):
        text = (
            "The initial weights are the trained ones: nothing moved. Was the init noted after "
            "training, or the wrong file given?"
        )
        return (Finding(code="init_is_final", status="problem", text=text),)
    cosine = float(after @ before / (after.norm() * before.norm()).clamp_min(1e-300))
    if cosine * len(after) ** 0.5 >= LEAST_LIKENESS:
        return ()
    text = (
        f"The trained weights are no more like the initial ones than another draw would be (cosine "
        f"{cosine:.3f} over {len(after):,} weights): this is hardly the init of this run, or training "
        "moved them very far. Measures of movement rest on it."
    )
    return (Finding(code="init_unlike", status="problem", text=text, evidence={"cosine": cosine}),)


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
        state, sha256 = read_weights(file, match, shape)
    if {name: tuple(value.shape) for name, value in state.items()} != dict(shape.shapes):
        raise InputError(
            f"The initial weights in {str(path)!r} do not fit the net.",
            "Give the state dict of the very net before its first step.",
        )
    return state, f"{path}, sha256 {sha256}"


def read_weights(
    checkpoint: Checkpoint, match: Match, shape: NetShape
) -> tuple[dict[str, Tensor], str]:
    """Read the weights of a net from a checkpoint.

    Args:
        checkpoint: The file.
        match: Which of its tensors are the net's.
        shape: What the net's state dict looks like.

    Returns:
        (weights by the net's own names, SHA-256 of the file).

    Raises:
        InputError: Damaged, not finite, or two weights that the net ties to each other differ.
    """
    state, sha256 = checkpoint.read(match.tensors, shape.infinite)
    for name, others in shape.tied.items():
        if any(not torch.equal(state[name], state[other]) for other in others if other in state):
            raise InputError(
                f"The net ties {name!r} to {others[0]!r}, and the file holds different numbers for "
                "them.",
                "Give the builder of the very net that was trained.",
            )
    # Older torch did not count the batches of BatchNorm; nothing that is measured depends on them.
    return state | {name: torch.zeros((), dtype=torch.int64) for name in match.counters}, sha256


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
    if any(value.device.type == "meta" for value in state.values()):
        raise InputError(
            "The net's weights lie on the meta device, where there are no numbers.",
            "Let the builder make the net on the CPU.",
        )
    if extra := [name for name in net.state_dict() if name not in state]:
        raise InputError(
            f"The net keeps something else than tensors in its state dict, {extra[0]!r}, which is not "
            "read from files.",
            "Leave get_extra_state out of the module that the builder returns.",
        )
    if lazy := [name for name, value in state.items() if is_lazy(value)]:
        raise InputError(
            f"The net's parameter {lazy[0]!r} is lazy and has no shape yet.",
            "Let the builder run the net once on an input before it returns it.",
        )
    same: dict[int, list[str]] = {}
    for values in (net.named_parameters, net.named_buffers):
        for name, value in values(remove_duplicate=False):
            if name in state:
                same.setdefault(id(value), []).append(name)
    floating = frozenset(name for name, value in state.items() if value.is_floating_point())
    parameters = frozenset(name for name, _ in net.named_parameters(remove_duplicate=False))
    return NetShape(
        shapes={name: tuple(value.shape) for name, value in state.items()},
        floating=floating,
        tied={
            name: tuple(other for other in names if other != name)
            for names in same.values()
            if len(names) > 1
            for name in names
        },
        parameters=parameters,
        infinite=frozenset(
            name for name in floating - parameters if bool(state[name].isinf().any())
        ),
    )
