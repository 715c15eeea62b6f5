"""A model file opened: what it holds is known, and checked, before any of its numbers is read.

Four kinds are told apart by their content: what ``torch.save`` writes now (a zip archive) and wrote
before 1.6 (pickles in a row), safetensors, and safetensors in shards with an index.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import stat
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fls_bench.bundle.contents import GIVE_ONE, listed
from fls_bench.bundle.opcodes import MAX_OPCODES, MAX_PICKLE_BYTES, NotPlainError, list_pickle
from fls_bench.bundle.pickles import MAX_DIMENSIONS, PLAIN_GLOBALS, StoredTensor, read_pickle
from fls_bench.bundle.sniffing import (
    LEGACY_START,
    MAX_SAFETENSORS_HEADER,
    ZIP_ERRORS,
    Kind,
    full_pickle,
    label_of,
    refuse_archive,
    sniff,
    unusual_tensors,
)
from fls_bench.errors import InputError

MAX_FILE_BYTES = 4 * 2**30
"""Shards together. Optimizer states, which are not read, are twice as large as the weights."""
MAX_TENSOR_BYTES = 2**30
"""Of the tensors that are read: 250 million weights in single precision."""
MAX_ENTRIES = 40_000
MAX_DIRECTORY_BYTES = 4 * 2**20
"""Of a zip archive. Python's reader takes time that grows as the square of a record's length."""
MAX_SHARDS = 1000
SHARD_START = 64 * 2**10
CHUNK = 8 * 2**20
MOST_AT_ONCE = 4 * CHUNK
COPY_AGAIN = "Copy or download it again."

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


@dataclass(frozen=True)
class Container:
    """An opened model file, only valid inside ``opened``."""

    path: Path
    kind: Kind
    value: Any
    """Plain values, with a ``StoredTensor`` in the place of each tensor."""
    metadata: Mapping[str, str]
    """Of a safetensors file; else empty."""
    passed_over: tuple[str, ...]
    """Classes whose objects were read past."""
    num_bytes: int
    """Size of the file, shards included."""
    files: tuple[Path, ...]
    _one: Callable[[str, StoredTensor], Tensor]
    _states: tuple[tuple[int, int, int], ...]

    def read(self, stored: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
        """Read the numbers of tensors.

        Args:
            stored: Tensors out of ``value``, by any names.

        Returns:
            The tensors, on the CPU, contiguous.

        Raises:
            InputError: Some are empty, too large, damaged, or announce more than the file has.
        """
        label = label_of(self.path)
        if empty := [name for name, tensor in stored.items() if math.prod(tensor.shape) == 0]:
            raise InputError(
                f"{label} holds empty tensors: {listed(empty)}.",
                "A layer of size zero can't be judged; give every layer at least one unit.",
            )
        announced = sum(tensor.num_bytes for tensor in stored.values())
        if announced > self.num_bytes:
            raise InputError(
                f"{label} announces tensors of {min(announced, 10**300):.3g} bytes, and has only "
                f"{self.num_bytes:,}.",
                "Save each tensor in full, with .clone(), in place of expanded or shared views.",
            )
        # A small view of a large storage costs what the storage does.
        storages = {
            tensor.key: tensor.storage_numel * tensor.dtype.itemsize for tensor in stored.values()
        }
        needed = max(announced, sum(storages.values()))
        if sum(storages.values()) > self.num_bytes:
            raise _damaged(label, max(stored, key=lambda name: stored[name].storage_numel))
        if needed > MAX_TENSOR_BYTES:
            raise InputError(
                f"{label} holds tensors of {needed / 2**30:.1f} GiB for this net; up to "
                f"{MAX_TENSOR_BYTES / 2**30:.0f} GiB are read.",
                "Save them in half precision, or judge a smaller net of the same family.",
            )
        return {name: self._one(name, tensor) for name, tensor in stored.items()}

    def sha256(self) -> str:
        """SHA-256 of the file, in hex; of an index followed by its shards in the order of names.

        Raises:
            InputError: The file changed since it was opened.
        """
        digest = hashlib.sha256()
        for path, before in zip(self.files, self._states, strict=True):
            with _stream(path) as stream:
                while part := stream.read(CHUNK):
                    digest.update(part)
                if _state(stream) != before:
                    raise InputError(
                        f"{label_of(path)} changed while it was read.",
                        "Try again when nothing writes to it.",
                    )
        return digest.hexdigest()


@contextmanager
def opened(path: Path, allowed: Collection[str] = frozenset()) -> Iterator[Container]:
    """Open a model file; nothing in it is ever executed.

    Args:
        path: A file of any of the four kinds, whatever its suffix, or a folder with safetensors.
        allowed: Classes whose objects are read past, see ``read_pickle``; none: all must be plain.

    Yields:
        The opened file.

    Raises:
        InputError: Missing, damaged, or no model file.
        UnsafeFileError: Reading it would execute code.
    """
    path = _inside(path)
    with ExitStack() as stack:
        stream = stack.enter_context(_stream(path))
        kind = sniff(path, stream.read(MAX_PICKLE_BYTES), stream.size)
        stream.seek(0)
        if kind is Kind.ZIP:
            yield _open_zip(path, stream, stack, allowed)
        elif kind is Kind.LEGACY:
            yield _open_legacy(path, stream, allowed)
        elif kind is Kind.SAFETENSORS:
            yield _open_safetensors(path, stream, stack)
        else:
            yield _open_sharded(path, stream, stack)


# --- files --------------------------------------------------------------------------------------


class _Stream(io.BufferedReader):
    """A regular file of which nobody reads much at once, whatever sizes the file announces."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.size = os.fstat(self.fileno()).st_size
        self.most = MOST_AT_ONCE

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self.size - self.tell())
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > self.most:
            raise ValueError(f"a piece of {wanted} bytes")
        return super().read(wanted)


def _state(stream: _Stream) -> tuple[int, int, int]:
    found = os.fstat(stream.fileno())
    return found.st_ino, found.st_size, found.st_mtime_ns


@contextmanager
def _stream(path: Path) -> Iterator[_Stream]:
    try:
        # Opening a named pipe would wait for a writer.
        mode = path.stat().st_mode
        stream = _Stream(path) if stat.S_ISREG(mode) else None
    except FileNotFoundError:
        raise InputError(f"There is no file {str(path)!r}.", "Check the path.") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(
            f"{str(path)!r} can't be read: {why}.", "Check the path and its permissions."
        ) from None
    if stream is None:
        what = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise InputError(f"{str(path)!r} is {what}.", "Give the path of a model file.")
    with stream:
        _check_size(path, stream.size)
        yield stream


def _check_size(path: Path, size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise InputError(
            f"{label_of(path)} has {size / 2**30:.1f} GiB; model files of up to "
            f"{MAX_FILE_BYTES / 2**30:.0f} GiB are read.",
            "Check that it is the model file you mean.",
        )


def _inside(path: Path) -> Path:
    """The file that a folder stands for; any other path as it is."""
    if not os.path.isdir(path):
        return path
    try:
        names = sorted(os.listdir(path))
    except OSError:
        return path
    indices = [name for name in names if name.endswith(".index.json")]
    whole = [name for name in names if name.endswith(".safetensors")]
    for found in (indices, whole):
        if len(found) == 1:
            return path / found[0]
    if ".metadata" in names:
        raise InputError(
            f"{str(path)!r} is a directory with a checkpoint of torch.distributed.",
            "Turn it into one file with torch.distributed.checkpoint.format_utils."
            "dcp_to_torch_save, and give that.",
        )
    if indices or whole:
        raise InputError(
            f"{str(path)!r} is a directory with several model files: {listed(indices or whole)}.",
            "Give the path of a model file in it, or of an index.",
        )
    return path


# --- torch.save -----------------------------------------------------------------------------------


def _open_zip(path: Path, stream: _Stream, stack: ExitStack, allowed: Collection[str]) -> Container:
    label = label_of(path)
    try:
        stream.most = MAX_DIRECTORY_BYTES
        archive = stack.enter_context(zipfile.ZipFile(stream))
        stream.most = MOST_AT_ONCE
    except ZIP_ERRORS:
        raise InputError(
            f"{label} starts like a file of torch.save, but is truncated or damaged.", COPY_AGAIN
        ) from None
    refuse_archive(path, archive)
    root = _check_entries(label, archive, stream.size)
    if archive.getinfo(f"{root}data.pkl").file_size > MAX_PICKLE_BYTES:
        raise InputError(
            f"{label} is no model file: its data.pkl is larger than {MAX_PICKLE_BYTES:,} bytes.",
            GIVE_ONE,
        )
    pickle = bytes(_read_entry(label, archive, f"{root}data.pkl"))
    try:
        found = read_pickle(pickle, allowed)
    except NotPlainError as error:
        raise _not_plain(path, pickle, error, allowed, "zip") from None
    byteorder = f"{root}byteorder"
    if byteorder in archive.NameToInfo:
        right = sys.byteorder.encode()
        long = archive.getinfo(byteorder).file_size > len(right)
        if long or _read_entry(label, archive, byteorder) != right:
            raise InputError(
                f"{label} was written on a machine with another byte order.",
                "Save it again on a machine of this kind, or as .safetensors.",
            )
    records: dict[str, bytearray] = {}

    def one(name: str, tensor: StoredTensor) -> Tensor:
        record = f"{root}data/{tensor.key}"
        size = tensor.storage_numel * tensor.dtype.itemsize
        info = archive.NameToInfo.get(record)
        if info is None or info.file_size != size or tensor.last_element >= tensor.storage_numel:
            raise _damaged(label, name)
        if record not in records:
            records[record] = _read_entry(label, archive, record)
        return _view(records[record], tensor)

    return Container(
        path, Kind.ZIP, found.value, {}, found.passed_over, stream.size, (path,), one,
        (_state(stream),),
    )  # fmt: skip


def _view(record: bytearray, tensor: StoredTensor) -> Tensor:
    flat = torch.frombuffer(record, dtype=tensor.dtype)
    return flat.as_strided(tensor.shape, tensor.stride, tensor.offset).contiguous()


def _damaged(label: str, name: str) -> InputError:
    return InputError(
        f"{label} is damaged: the numbers of {listed([name])} are missing or don't have the "
        "announced size.",
        COPY_AGAIN,
    )


def _not_plain(
    path: Path, pickle: bytes, error: NotPlainError, allowed: Collection[str], how: str
) -> InputError:
    """Why a pickle is not read: its kind of tensors, its damage, or what it would execute."""
    label = label_of(path)
    found = list_pickle(pickle).globals
    if kind := unusual_tensors(found):
        return InputError(
            f"{label} holds {kind}; only plain arrays of floating or whole numbers are read.",
            "Convert them, with .dequantize() or .to_dense() for instance, and save again.",
        )
    foreign = [name for name in found if name not in PLAIN_GLOBALS and name not in allowed]
    if not foreign:
        return InputError(f"{label} is no model file: its data.pkl {error}.", GIVE_ONE)
    what = "a full pickle" if how == "zip" else "a pickle of torch before 1.6"
    settings = bool(allowed) and how == "zip" and _would_hold_tensors(pickle, allowed, foreign)
    return full_pickle(path, foreign, how, what, settings=settings)


def _would_hold_tensors(pickle: bytes, allowed: Collection[str], foreign: Collection[str]) -> bool:
    """Whether tensors by name remain where the foreign classes are read past as well."""
    try:
        value = read_pickle(pickle, frozenset(allowed) | frozenset(foreign)).value
    except NotPlainError:
        return False
    level = [value]
    for _ in range(4):
        dicts = [one for one in level if isinstance(one, dict)][:100]
        level = [item for one in dicts for item in islice(one.values(), 1000)]
        if any(isinstance(item, StoredTensor) for item in level):
            return True
    return False


def _check_entries(label: str, archive: zipfile.ZipFile, file_bytes: int) -> str:
    """Check that the archive is what torch.save writes, and no bomb; return its root folder."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
    stored = all(
        entry.compress_type == zipfile.ZIP_STORED
        and entry.compress_size == entry.file_size
        and not entry.flag_bits & 0x1
        for entry in entries
    )
    if len(entries) > MAX_ENTRIES:
        problem = f"has {len(entries):,} entries; the limit is {MAX_ENTRIES:,}"
    elif len(set(names)) != len(names):
        twice = [name for name, count in Counter(names).items() if count > 1]
        problem = f"holds entries twice: {listed(twice)}"
    elif not stored:
        problem = "holds compressed or encrypted entries, which torch.save never writes"
    elif sum(entry.file_size for entry in entries) > file_bytes:
        problem = "announces more bytes than it has"
    elif len(roots) != 1 or roots[0].count("/") != 1:
        problem = "does not hold exactly one data.pkl"
    else:
        return roots[0]
    raise InputError(f"{label} is a zip archive that {problem}, so it was not read.", GIVE_ONE)


def _read_entry(label: str, archive: zipfile.ZipFile, name: str) -> bytearray:
    content = bytearray()
    try:
        with archive.open(name) as entry:
            while part := entry.read(CHUNK):
                content += part
    except ZIP_ERRORS:
        raise InputError(
            f"{label} is damaged: {listed([name])} can't be read.", COPY_AGAIN
        ) from None
    return content


def _open_legacy(path: Path, stream: _Stream, allowed: Collection[str]) -> Container:
    """Magic number, version, machine, value, and keys of storages as pickles; then the storages.

    The layout is that of ``torch.serialization._legacy_save``.
    """
    label = label_of(path)
    head = stream.read(MAX_PICKLE_BYTES)
    start, steps = len(LEGACY_START), MAX_OPCODES
    parts = []
    try:
        for names in ((), (), allowed, ()):
            parts.append(read_pickle(head[start:], names, steps))
            start += parts[-1].end
            steps -= parts[-1].num_steps
    except NotPlainError as error:
        raise _not_plain(path, head, error, allowed, "legacy") from None
    _, machine, value, keys = parts
    if not isinstance(machine.value, dict) or machine.value.get("little_endian") is not True:
        raise InputError(
            f"{label} was written on a machine with another byte order.",
            "Save it again on a machine of this kind, or as .safetensors.",
        )
    places: dict[str, int] = {}
    place = start
    for key in keys.value if isinstance(keys.value, list) else ():
        dtype, numel = value.storages.get(key, (None, -1)) if isinstance(key, str) else (None, -1)
        if dtype is None or key in places or place >= stream.size:
            raise _damaged(label, str(key))
        stream.seek(place)
        if int.from_bytes(stream.read(8), "little") != numel:
            raise _damaged(label, str(key))
        places[key] = place + 8
        place += 8 + numel * dtype.itemsize
    if place != stream.size:
        raise InputError(f"{label} is truncated or damaged.", COPY_AGAIN)

    def one(name: str, tensor: StoredTensor) -> Tensor:
        known = value.storages.get(tensor.key) == (tensor.dtype, tensor.storage_numel)
        if not known or tensor.key not in places or tensor.last_element >= tensor.storage_numel:
            raise _damaged(label, name)
        left = tensor.storage_numel * tensor.dtype.itemsize
        record = bytearray()
        stream.seek(places[tensor.key])
        while left > 0 and (part := stream.read(min(left, CHUNK))):
            record += part
            left -= len(part)
        return _view(record, tensor)

    return Container(
        path, Kind.LEGACY, value.value, {}, value.passed_over, stream.size, (path,), one,
        (_state(stream),),
    )  # fmt: skip


# --- safetensors ----------------------------------------------------------------------------------


def _open_safetensors(path: Path, stream: _Stream, stack: ExitStack) -> Container:
    value, metadata, one = _shard(path, stack)
    return Container(
        path, Kind.SAFETENSORS, value, metadata, (), stream.size, (path,), one, (_state(stream),)
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


def _open_sharded(path: Path, stream: _Stream, stack: ExitStack) -> Container:
    """The index of Hugging Face's libraries: ``weight_map`` says which shard holds which tensor."""
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
    states, size, header = [_state(stream)], stream.size, 0
    readers: dict[str, Callable[[str, StoredTensor], Tensor]] = {}
    value: dict[str, StoredTensor] = {}
    for shard, place in paths.items():
        with _stream(place) as beside:
            start = beside.read(SHARD_START)
            if sniff(place, start, beside.size) is not Kind.SAFETENSORS:
                raise InputError(f"{label_of(place)} is no safetensors file.", COPY_AGAIN)
            states.append(_state(beside))
            size += beside.size
        _check_size(path, size)
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
