"""Writing model files: checked as a reader checks them, then put in place in one step."""

from __future__ import annotations

import os
import platform
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fls_bench import __version__
from fls_bench.bundle.contents import DATA_NAMES, check_contents, is_path, parse_header
from fls_bench.bundle.digests import state_digest
from fls_bench.bundle.sniffing import label_of
from fls_bench.errors import InputError
from fls_bench.schema import (
    ArchitectureSpec,
    BundleHeader,
    BundleOutcome,
    MultiplierRoute,
    Recipe,
    TaskSpec,
)


class TaskLike(Protocol):
    """What is needed of a task to write it into a model file."""

    @property
    def name(self) -> str:
        """Shown to people."""

    @property
    def n_classes(self) -> int:
        """K."""

    @property
    def fingerprint(self) -> str:
        """Digest of the data."""

    @property
    def spec(self) -> TaskSpec | None:
        """How to make the data again, for a built-in task."""

    @property
    def x_train(self) -> NDArray[Any]:
        """Training inputs [n, ...]; the other arrays are named in ``DATA_NAMES``."""


def write_bundle(
    path: str | os.PathLike[str],
    header: BundleHeader,
    *,
    final: Mapping[str, Tensor],
    init: Mapping[str, Tensor] | None = None,
    data: Mapping[str, Tensor] | None = None,
    force: bool = False,
) -> None:
    """Write a model file: safetensors for the suffix ``.safetensors``, else by ``torch.save``.

    The file appears complete or not at all.

    Args:
        path: The file to write.
        header: What the weights belong to.
        final: Trained weights by name.
        init: Initial weights, with the same names and shapes.
        data: Embedded arrays by name, see ``DATA_NAMES``.
        force: Whether an existing file may be replaced.

    Raises:
        InputError: The path can't be written, or the contents would not load again.
        UnsafeFileError: The header names code as its architecture.
    """
    path = Path(path)
    _check_target(path, force)
    label = label_of(path)
    try:
        text = header.model_dump_json()
    except ValueError as error:
        raise InputError(
            f"The header for {label} is not plain data: {str(error)[:120]}.",
            "Give numbers, strings, lists and dicts as arguments of the architecture and the task.",
        ) from None
    memories: set[int] = set()
    groups = {
        "init": None if init is None else _own(init, memories),
        "final": _own(final, memories),
        "data": _own(data or {}, memories),
    }
    check_contents(
        label,
        parse_header(label, text),
        init=groups["init"],
        final=groups["final"] or {},
        data=groups["data"] or {},
    )
    tensors = {
        f"{group}/{name}": value
        for group, values in groups.items()
        for name, value in (values or {}).items()
    }
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as stream:
            if path.suffix == ".safetensors":
                stream.write(save_safetensors(tensors, metadata={"fls_bench": text}))
            else:
                torch.save({"fls_bench": text, "tensors": tensors}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)[:120]
        raise InputError(
            f"{str(path)!r} can't be written: {why}.", "Choose another folder or free some space."
        ) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def _check_target(path: Path, force: bool) -> None:
    # os.path, because Path.is_dir raises on names that are too long.
    if not os.path.isdir(path.parent):
        raise InputError(
            f"The folder {str(path.parent)!r} does not exist.", "Create it, or choose another path."
        )
    if os.path.isdir(path):
        raise InputError(f"{str(path)!r} is a directory.", "Give the path of a file in it.")
    if os.path.exists(path) and not force:
        raise InputError(
            f"{str(path)!r} exists already.",
            "Choose another path, or overwrite it with --force (force=True in Python).",
        )


def _own(tensors: Mapping[str, Tensor], memories: set[int]) -> dict[str, Tensor]:
    """On the CPU, sharing no memory, so that a view or a tied weight is stored in full.

    What has a memory of its own, not among those seen before, is not copied: a copy costs as much as
    writing it.
    """
    found = {}
    for name, value in tensors.items():
        if value.layout is torch.strided and value.device.type != "meta":
            value = value.detach().cpu().resolve_neg()
            memory = value.untyped_storage()
            whole = memory.nbytes() == value.numel() * value.element_size()
            if not (whole and value.is_contiguous()) or memory.data_ptr() in memories:
                value = value.clone(memory_format=torch.contiguous_format)
            memories.add(value.untyped_storage().data_ptr())
        found[name] = value
    return found


def save_bundle(
    path: str | os.PathLike[str],
    model: nn.Module | Mapping[str, Tensor],
    *,
    initial_state: Mapping[str, Tensor] | None = None,
    task: TaskLike | None = None,
    recipe: Recipe | None = None,
    outcome: BundleOutcome | None = None,
    output_multiplier: float = 1.0,
    init_scale: float = 1.0,
    centered: bool = False,
    multiplier_route: MultiplierRoute = "wrapper",
    architecture: ArchitectureSpec | None = None,
    builder_hint: str | None = None,
    feature_layer: str | None = None,
    keep_init: bool = True,
    force: bool = False,
) -> Path:
    """Write the net of any training loop as a model file that `fls-bench diagnose` reads.

    The more of the optional arguments are given, the more can be said: the data, then the initial
    weights, then the recipe, with which the output multiplier c can be swept.

    Args:
        path: The file to write; the suffix ``.safetensors`` chooses that format.
        model: The trained net, or its state dict.
        initial_state: State dict before training, copied before the first step:
            ``{k: v.clone() for k, v in model.state_dict().items()}``.
        task: The data. A built-in task is stored by name, any other with its arrays.
        recipe: Loss, optimizer, batch size and stop.
        outcome: How training ended.
        output_multiplier: c, where the net that was trained computes c·model(x). Smaller c =
            larger FLS = toward over-aligned.
        init_scale: alpha, the factor on the initial weights, W(0) = alpha·W.
        centered: Whether the net computes c·(f(x) - f_0(x)); needs ``initial_state``.
        multiplier_route: How c reaches the net: ``wrapper`` around it, or ``factory`` inside it.
        architecture: A built-in net by name, if it is one.
        builder_hint: ``module:function`` that builds the net; shown to readers, never imported.
        feature_layer: Name of the layer whose output counts as features.
        keep_init: Whether the file holds the initial weights, or only their digest: a reader then
            builds them again from the recipe's seed, and believes them only where they have it.
        force: Whether an existing file may be replaced.

    Returns:
        The path written.

    Raises:
        InputError: A value out of range, tensors that are not plain, finite and not empty, or a
            path that can't be written.
        UnsafeFileError: ``architecture`` names code.
    """
    label = label_of(Path(path))
    init = None if initial_state is None else plain_state(label, "initial_state", initial_state)
    if architecture is None:
        architecture = ArchitectureSpec(hint=builder_hint)
    elif builder_hint is not None:
        architecture = architecture.model_copy(update={"hint": builder_hint})
    spec, data = (None, {}) if task is None else stored_task(label, task)
    try:
        header = BundleHeader(
            architecture=architecture,
            output_multiplier=output_multiplier,
            init_scale=init_scale,
            centered=centered,
            multiplier_route=multiplier_route,
            recipe=recipe,
            outcome=outcome,
            task=spec,
            feature_layer=feature_layer,
            init_digest=None if init is None else state_digest(init),
            versions=versions(),
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{label} can't be written: {place}: {first['msg'].lower()}.", "Correct that argument."
        ) from None
    write_bundle(
        path,
        header,
        final=plain_state(label, "model", model),
        init=init if keep_init else None,
        data=data,
        force=force,
    )
    return Path(path)


def versions() -> dict[str, str]:
    """What a file was written with."""
    return {
        "fls_bench": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def plain_state(label: str, argument: str, value: object) -> dict[str, Tensor]:
    """The state dict of a net, where a model file can hold it.

    Args:
        label: What messages call the file.
        argument: What they call the value.
        value: A net, or its state dict.

    Returns:
        Tensors by name.

    Raises:
        InputError: It is something else, lazy, or holds something else than tensors.
    """
    state = value.state_dict() if isinstance(value, nn.Module) else value
    problem = None
    if not isinstance(state, Mapping):
        problem = f"{argument} is a {type(value).__name__}, not a torch.nn.Module or a state dict"
    else:
        for name, item in state.items():
            if not isinstance(item, Tensor):
                problem = f"{argument}[{str(name)!r}] is a {type(item).__name__}, not a tensor"
            elif is_lazy(item):
                problem = f"{argument}[{str(name)!r}] is lazy and has no shape yet"
    if problem is not None or not isinstance(state, Mapping):
        raise InputError(
            f"{label} can't be written: {problem}.", "Give the net, or its model.state_dict()."
        )
    return {str(name): item for name, item in state.items()}


def stored_task(label: str, task: TaskLike) -> tuple[TaskSpec, dict[str, Tensor]]:
    """What a model file keeps of its data.

    Args:
        label: What messages call the file.
        task: The data.

    Returns:
        (the header's entry, the arrays by name where no name can make them again).

    Raises:
        InputError: The arrays are not numbers.
    """
    known = {
        "fingerprint": task.fingerprint,
        "n_train": len(task.x_train),
        "n_classes": task.n_classes,
    }
    if task.spec is not None and not task.spec.embedded and not is_path(task.spec.name):
        return task.spec.model_copy(update=known), {}
    arrays = {name: getattr(task, name, None) for name in DATA_NAMES}
    try:
        tensors = {
            name: torch.from_numpy(np.array(array))
            for name, array in arrays.items()
            if array is not None
        }
    except TypeError as error:
        raise InputError(
            f"{label} can't be written: the task's arrays are not numbers ({str(error)[:80]}).",
            "Give inputs as floating numbers and labels as integers.",
        ) from None
    return TaskSpec(name=task.name, embedded=True, **known), tensors
