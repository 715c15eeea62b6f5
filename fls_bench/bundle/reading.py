"""Reading model files of ours: header, weights, initial weights and data, checked together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from fls_bench.bundle.containers import Container
from fls_bench.bundle.contents import MAKE_ONE, Bundle, check_contents, listed, parse_header
from fls_bench.bundle.opening import opened
from fls_bench.bundle.pickles import StoredTensor
from fls_bench.bundle.sniffing import Kind, argument_of, full_pickle, label_of
from fls_bench.errors import InputError

PREFIXES = ("init/", "final/", "data/")


def load_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read and check a model file; nothing in it is ever executed.

    Args:
        path: A file as ``write_bundle`` makes them, of either format, whatever its suffix.

    Returns:
        The checked contents, on the CPU.

    Raises:
        InputError: Missing, damaged, no model file, or its contents don't fit each other.
        UnsafeFileError: Reading it would execute code, or it names code to import.
    """
    with opened(Path(path)) as container:
        return bundle_of(container)


def is_bundle(container: Container) -> bool:
    """Whether an opened file says that it is a model file of ours."""
    value = container.value
    own = isinstance(value, dict) and {"fls_bench", "tensors"} <= value.keys()
    names = isinstance(value, dict) and all(str(name).startswith(PREFIXES) for name in value)
    return own or ("fls_bench" in container.metadata and names)


def bundle_of(container: Container) -> Bundle:
    """Read a model file of ours that was opened.

    Args:
        container: The opened file.

    Returns:
        The checked contents, on the CPU.

    Raises:
        InputError: It has no header, or its contents don't fit each other.
        UnsafeFileError: It names code.
    """
    path, label = container.path, label_of(container.path)
    if container.passed_over:  # opened as a checkpoint, which may name classes of settings
        raise full_pickle(path, container.passed_over, "zip", "a full pickle")
    text, stored = _parts(container)
    header = parse_header(label, text)
    if strays := [name for name in stored if not name.startswith(PREFIXES)]:
        raise InputError(
            f"{label} holds tensors that are neither init/, final/ nor data/: {listed(strays)}.",
            MAKE_ONE,
        )
    tensors = container.read(stored)
    groups = {
        prefix: {
            name.removeprefix(prefix): value
            for name, value in tensors.items()
            if name.startswith(prefix)
        }
        for prefix in PREFIXES
    }
    init, final, data = groups["init/"] or None, groups["final/"], groups["data/"]
    check_contents(label, header, init=init, final=final, data=data)
    return Bundle(
        path=path, sha256=container.sha256(), header=header, init=init, final=final, data=data
    )


def _parts(container: Container) -> tuple[str, dict[str, StoredTensor]]:
    """Header and tensor descriptions, or the reason why a file is no model file of ours."""
    path, label, value = container.path, label_of(container.path), container.value
    if container.kind in (Kind.SAFETENSORS, Kind.SHARDED):
        if "fls_bench" not in container.metadata:
            what = f"a {container.kind} file of {_counted(value)} ({listed(value, 3)})"
            raise _no_header(path, what)
        return container.metadata["fls_bench"], value
    if not isinstance(value, dict) or "fls_bench" not in value:
        found = _description(value)
        if found is None:
            raise InputError(f"{label} is a torch file that holds no state dict.", MAKE_ONE)
        raise _no_header(path, found)
    text, tensors = value["fls_bench"], value.get("tensors")
    if set(value) != {"fls_bench", "tensors"}:
        keys = listed(value)
        raise InputError(
            f"{label} must hold exactly 'fls_bench' and 'tensors', and holds {keys}.", MAKE_ONE
        )
    if not isinstance(text, str) or not _is_state(tensors):
        raise InputError(
            f"{label} must hold its header as a string and its tensors by name.", MAKE_ONE
        )
    return text, tensors


def _is_state(value: object) -> TypeGuard[dict[str, StoredTensor]]:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(item, StoredTensor) for name, item in value.items()
    )


def _counted(tensors: Mapping[str, object]) -> str:
    return f"{len(tensors)} tensor{'' if len(tensors) == 1 else 's'}"


def _description(value: Any) -> str | None:
    """What a torch file with tensors by name is, or None for any other."""
    if isinstance(value, dict) and value:
        if _is_state(value):
            return f"a state dict of {_counted(value)} ({listed(value, 3)})"
        states = {key: item for key, item in value.items() if item and _is_state(item)}
        parts = [f"{_counted(item)} under {listed([key])}" for key, item in states.items()]
        if parts:
            return f"a checkpoint with {', '.join(parts[:3])}"
    return None


def _no_header(path: Path, what: str) -> InputError:
    return InputError(
        f"{label_of(path)} is {what}: weights without the header that says which net, data and "
        "training they belong to.",
        f"Judge it with `fls-bench diagnose {argument_of(path)} --model package.module:builder --data "
        "FILE`, or write a model file of it with fls_bench.save_bundle.",
    )
