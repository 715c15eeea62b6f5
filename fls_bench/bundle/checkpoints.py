"""Checkpoints that others wrote: which tensors they hold, and what they say of their training."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fls_bench.bundle.containers import Container
from fls_bench.bundle.contents import (
    GIVE_ONE,
    MAX_NAME_CHARACTERS,
    Bundle,
    check_tensor,
    listed,
    parse_header,
)
from fls_bench.bundle.opening import opened
from fls_bench.bundle.pickles import PASSED_OVER, Mark, StoredTensor
from fls_bench.bundle.reading import bundle_of, is_bundle
from fls_bench.bundle.sniffing import Kind, label_of
from fls_bench.errors import InputError
from fls_bench.schema import BundleHeader

MAX_DEPTH = 12
MAX_VALUES = 1_000_000
MAX_TENSORS = 50_000
MAX_CHARACTERS = 8_000_000
LONGEST_NAME = 2 * MAX_NAME_CHARACTERS
LOSS_NAMES = ("train_loss", "training_loss", "loss")


@dataclass(frozen=True)
class Checkpoint:
    """A file with tensors by name and no header of ours; its numbers are not read yet."""

    path: Path
    kind: str
    """For people."""
    tensors: Mapping[str, StoredTensor]
    """By name, the keys that lead to it joined by dots: ``state_dict.model.0.weight``."""
    homes: Mapping[str, str]
    """Name -> the keys that lead to its dict: ``state_dict``; empty at the top."""
    claims: Mapping[str, float | int | str]
    """What it says of its training: epoch, global_step, train_loss and by which name, version."""
    header: BundleHeader | None
    """What ``fls_bench.record`` noted, where the file holds that under the key ``fls_bench``."""
    passed_over: tuple[str, ...]
    """Classes of settings that were read past."""
    allowed: frozenset[str]

    def read(
        self, stored: Mapping[str, StoredTensor], infinite: Collection[str] = ()
    ) -> tuple[dict[str, Tensor], str]:
        """Read the numbers of some tensors.

        Args:
            stored: Some of ``tensors``, by any names.
            infinite: Names of those that may hold infinite numbers, as masks of attention do.

        Returns:
            (tensors by the names given, SHA-256 of the file in hex; for shards, of the index and
            the shards in the order of names).

        Raises:
            InputError: Damaged, not finite, or the file has changed.
        """
        with opened(self.path, self.allowed) as container:
            if _flat(container)[0] != self.tensors:
                raise InputError(
                    f"{label_of(self.path)} changed while it was read.",
                    "Try again when nothing writes to it.",
                )
            tensors = container.read(stored)
            for name, value in tensors.items():
                checked = value.nan_to_num(nan=torch.nan) if name in infinite else value
                check_tensor(f"{label_of(self.path)}: the tensor {name!r}", "final", checked)
            return tensors, container.sha256()

    def sha256(self) -> str:
        """As from ``read``."""
        return self.read({})[1]


def load_any(path: Path, allow: Iterable[str] = ()) -> Bundle | Checkpoint:
    """Read a model file of ours, or what a checkpoint of anyone's holds.

    Args:
        path: The file; for shards their index, or the folder that holds them.
        allow: Classes, as ``module.name``, that a checkpoint may name beside those of
            ``PASSED_OVER``: their objects are read past, and nothing is imported.

    Returns:
        The bundle, or the checkpoint.

    Raises:
        InputError: Missing, damaged, or no model file.
        UnsafeFileError: It names code that nobody allowed; none of it is executed.
    """
    allowed = PASSED_OVER | frozenset(allow)
    with opened(path, allowed) as container:
        if is_bundle(container):
            return bundle_of(container)
        tensors, homes = _flat(container)
        label = label_of(path)
        if not tensors:
            raise InputError(
                f"{label} is a torch file that holds no state dict, nor other tensors by name.",
                GIVE_ONE,
            )
        for name in tensors:
            if len(name) > LONGEST_NAME or not name.isprintable():
                raise InputError(
                    f"{label} has a tensor whose name is too long or unprintable: "
                    f"{listed([name])}.",
                    GIVE_ONE,
                )
        value = container.value
        text = value.get("fls_bench") if isinstance(value, dict) else None
        text = container.metadata.get("fls_bench", text)
        return Checkpoint(
            path=container.path,
            kind=_kind(container),
            tensors=tensors,
            homes=homes,
            claims=_claims(container),
            header=parse_header(label, text) if isinstance(text, str) else None,
            passed_over=container.passed_over,
            allowed=allowed,
        )


def _flat(container: Container) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """All tensors by the keys that lead to them, and the dicts that they lie in."""
    tensors: dict[str, StoredTensor] = {}
    homes: dict[str, str] = {}
    count = length = 0
    nested = isinstance(container.value, dict | list | tuple)
    waiting = deque[tuple[str, Any, int]]([("", container.value, 0)] if nested else [])
    while waiting:
        home, value, depth = waiting.popleft()
        items = enumerate(value) if isinstance(value, list | tuple) else value.items()
        for key, item in items:
            count += 1
            # A few shared lists can stand for any number of values, and one may hold itself.
            if count > MAX_VALUES:
                raise InputError(
                    f"{label_of(container.path)} nests more than {MAX_VALUES:,} values, so it was "
                    "not read.",
                    GIVE_ONE,
                )
            if isinstance(key, Mark):
                continue
            # Cut, since a million values may lie under one name of a megabyte; refused later.
            name = str(key)[: LONGEST_NAME + 1]
            name = f"{home}.{name}"[: LONGEST_NAME + 1] if home else name
            if isinstance(item, StoredTensor):
                tensors[name], homes[name] = item, home
                length += len(name)
                if len(tensors) > MAX_TENSORS or length > MAX_CHARACTERS:
                    raise InputError(
                        f"{label_of(container.path)} holds more than {MAX_TENSORS:,} tensors by name, "
                        f"or names of more than {MAX_CHARACTERS:,} characters.",
                        GIVE_ONE,
                    )
            elif isinstance(item, dict | list | tuple) and depth < MAX_DEPTH:
                waiting.append((name, item, depth + 1))
    return tensors, homes


def _kind(container: Container) -> str:
    value = container.value
    if container.kind in (Kind.SAFETENSORS, Kind.SHARDED):
        return str(container.kind)
    if "pytorch-lightning_version" in value:
        return "Lightning checkpoint"
    bare = isinstance(value, dict) and all(isinstance(one, StoredTensor) for one in value.values())
    return "state dict" if bare else "checkpoint"


STATES_OF_TRAINING = ("optim", "lr_sched", "scheduler", "callbacks", "loops", "scaler", "rng")
"""How keys begin under which there are tensors that are no weights."""


def _claims(container: Container) -> dict[str, float | int | str]:
    value = container.value
    if container.kind is Kind.SHARDED or not isinstance(value, dict):
        return {}
    claims: dict[str, float | int | str] = {}
    for key in ("epoch", "global_step"):
        if type(value.get(key)) is int and 0 <= value[key] < 2**63:
            claims[key] = value[key]
    version = value.get("pytorch-lightning_version")
    if isinstance(version, str) and version.isprintable():
        claims["lightning"] = version[:40]
    named = [(name, value.get(name)) for name in LOSS_NAMES]
    # Lightning keeps what it monitored with the callback that saved the file.
    callbacks = value.get("callbacks")
    for state in callbacks.values() if isinstance(callbacks, dict) else ():
        monitor = state.get("monitor") if isinstance(state, dict) else None
        if isinstance(monitor, str) and "train" in monitor and "loss" in monitor:
            named.append((monitor[:80], state.get("current_score")))
    for name, found in named:
        number = _number(container, found)
        if number is not None and name.isprintable():
            return {**claims, "train_loss": number, "train_loss_name": name}
    return claims


def _number(container: Container, value: object) -> float | None:
    if isinstance(value, StoredTensor):
        if value.shape not in ((), (1,)):
            return None
        value = float(container.read({"a loss": value})["a loss"])
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an int may have any number of digits
        return None
    return number if math.isfinite(number) else None
