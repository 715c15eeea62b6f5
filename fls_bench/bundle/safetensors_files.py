"""Safetensors, whole or in shards with an index."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fls_bench.bundle.containers import (
    COPY_AGAIN,
    Container,
    Stream,
    check_size,
    state_of,
    stream_of,
)
from fls_bench.bundle.contents import GIVE_ONE, listed
from fls_bench.bundle.pickles import MAX_DIMENSIONS, StoredTensor
from fls_bench.bundle.sniffing import MAX_SAFETENSORS_HEADER, Kind, label_of, sniff
from fls_bench.errors import InputError

MAX_SHARDS = 1000
SHARD_START = 64 * 2**10
SAFETENSORS_DTYPES = {
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
    "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
# What the library raises on headers that don't describe the bytes that follow.
SAFETENSORS_ERRORS = (
    SafetensorError,
    ArithmeticError,
    AttributeError,
    KeyError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)


def open_safetensors(path: Path, stream: Stream, stack: ExitStack) -> Container:
    """Open a safetensors file.

    Args:
        path: The file.
        stream: On it.
        stack: Closes what is opened here.

    Returns:
        The opened file.

    Raises:
        InputError: Damaged, or with numbers of an unusual type.
    """
    value, metadata, one = _shard(path, stack)
    return Container(
        path, Kind.SAFETENSORS, value, metadata, (), stream.size, (path,), one, (state_of(stream),)
    )


def _shard(
    path: Path, stack: ExitStack
) -> tuple[dict[str, StoredTensor], dict[str, str], Callable[[str, StoredTensor], Tensor]]:
    label = label_of(path)
    try:
        # The library checks every offset against the file before it makes a tensor.
        reader = stack.enter_context(safe_open(path, framework="pt"))
        metadata = reader.metadata() or {}
        slices = {name: reader.get_slice(name) for name in reader.keys()}  # noqa: SIM118
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        kinds = {name: str(part.get_dtype()) for name, part in slices.items()}
    except SAFETENSORS_ERRORS as error:
        raise _damaged_safetensors(label, error) from None
    if deep := [name for name, shape in shapes.items() if len(shape) > MAX_DIMENSIONS]:
        raise InputError(
            f"{label} holds tensors of more than {MAX_DIMENSIONS} dimensions: {listed(deep)}.",
            GIVE_ONE,
        )
    if odd := [name for name, kind in kinds.items() if kind not in SAFETENSORS_DTYPES]:
        raise InputError(
            f"{label} holds tensors of the number type {kinds[odd[0]]}: {listed(odd)}; only plain "
            "arrays of floating or whole numbers are read.",
            "Convert them, with .float() for instance, and save again.",
        )

    def one(_: str, tensor: StoredTensor) -> Tensor:
        try:
            found: Tensor = reader.get_tensor(tensor.key)
        except SAFETENSORS_ERRORS as error:
            raise _damaged_safetensors(label, error) from None
        return found

    value = {
        name: _whole(name, SAFETENSORS_DTYPES[kinds[name]], shape) for name, shape in shapes.items()
    }
    return value, metadata, one


def _damaged_safetensors(label: str, error: BaseException) -> InputError:
    why = str(error)[:120] or type(error).__name__
    return InputError(f"{label} is a safetensors file that is damaged: {why!r}.", COPY_AGAIN)


def _whole(name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> StoredTensor:
    stride = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    return StoredTensor(dtype, name, math.prod(shape), 0, shape, stride)


def open_sharded(path: Path, stream: Stream, stack: ExitStack) -> Container:
    """Open shards by the index of Hugging Face's libraries: ``weight_map``, tensor -> shard.

    Args:
        path: The index.
        stream: On it.
        stack: Closes what is opened here.

    Returns:
        The opened shards, as one file.

    Raises:
        InputError: A shard is missing, damaged, elsewhere, or holds other tensors than the index says.
    """
    label = label_of(path)
    try:
        index = json.loads(stream.read(MAX_SAFETENSORS_HEADER))
        weight_map = index["weight_map"]
        shards = sorted(set(weight_map.values()))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InputError(
            f"{label} is no index of shards: it has no map from names to files.", GIVE_ONE
        ) from None
    if not shards or not all(isinstance(shard, str) for shard in shards):
        raise InputError(f"{label} is an index that names no shards.", GIVE_ONE)
    if len(shards) > MAX_SHARDS:
        raise InputError(
            f"{label} names {len(shards):,} shards; the limit is {MAX_SHARDS:,}.", GIVE_ONE
        )
    paths = {shard: _beside(path, shard) for shard in shards}
    names: dict[str, set[str]] = {}
    for name, shard in weight_map.items():
        names.setdefault(shard, set()).add(name)
    states, size, header = [state_of(stream)], stream.size, 0
    readers: dict[str, Callable[[str, StoredTensor], Tensor]] = {}
    value: dict[str, StoredTensor] = {}
    for shard, place in paths.items():
        with stream_of(place) as beside:
            start = beside.read(SHARD_START)
            if sniff(place, start, beside.size) is not Kind.SAFETENSORS:
                raise InputError(f"{label_of(place)} is no safetensors file.", COPY_AGAIN)
            states.append(state_of(beside))
            size += beside.size
        check_size(path, size)
        header += int.from_bytes(start[:8], "little")
        if header > MAX_SAFETENSORS_HEADER:
            raise InputError(
                f"The headers of the shards of {label} have more than {MAX_SAFETENSORS_HEADER:,} "
                "bytes.",
                GIVE_ONE,
            )
        own, _, reader = _shard(place, stack)
        wanted = names[shard]
        if own.keys() != wanted:
            missing, more = sorted(wanted - own.keys()), sorted(own.keys() - wanted)
            told = [
                f"lacks {listed(missing)}" if missing else "",
                f"holds {listed(more)}, of which the index says nothing" if more else "",
            ]
            raise InputError(
                f"{label_of(place)} {' and '.join(filter(None, told))}.",
                "Give the index and the shards of one download.",
            )
        readers |= dict.fromkeys(own, reader)
        value |= own
    return Container(
        path, Kind.SHARDED, value, {}, (), size, (path, *paths.values()),
        lambda name, tensor: readers[tensor.key](name, tensor), tuple(states),
    )  # fmt: skip


def _beside(index: Path, shard: str) -> Path:
    """A shard's path; never outside of the index's folder, nor of the cache that links into it."""
    folder = Path(os.path.realpath(index.parent))
    plain = shard not in ("", ".", "..") and os.path.basename(shard) == shard and "\\" not in shard
    # Neither NUL nor half a surrogate pair can be part of a path, nor can a name be any longer.
    plain = plain and shard.isprintable() and len(shard) <= 255
    target = Path(os.path.realpath(folder / shard)) if plain else None
    # Hugging Face's cache: snapshots/REVISION/NAME links to blobs/DIGEST of the same model.
    blobs = folder.parent.parent / "blobs" if folder.parent.name == "snapshots" else folder
    if target is None or target.parent not in (folder, blobs):
        raise InputError(
            f"{label_of(index)} names the shard {shard[:80]!r}, which lies outside of its folder, "
            "so it was not read.",
            "Put the shards beside the index.",
        )
    return folder / shard
