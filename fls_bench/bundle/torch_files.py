"""What ``torch.save`` writes now, a zip archive, and wrote before 1.6, pickles in a row."""

from __future__ import annotations

import sys
import zipfile
from collections import Counter
from collections.abc import Collection
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from fls_bench.bundle.containers import (
    CHUNK,
    COPY_AGAIN,
    MOST_AT_ONCE,
    Container,
    Stream,
    damaged,
    state_of,
)
from fls_bench.bundle.contents import GIVE_ONE, listed
from fls_bench.bundle.opcodes import MAX_OPCODES, MAX_PICKLE_BYTES, NotPlainError, list_pickle
from fls_bench.bundle.pickles import PLAIN_GLOBALS, StoredTensor, read_pickle
from fls_bench.bundle.sniffing import (
    LEGACY_START,
    ZIP_ERRORS,
    Kind,
    full_pickle,
    label_of,
    refuse_archive,
    unusual_tensors,
)
from fls_bench.errors import InputError

MAX_ENTRIES = 40_000
MAX_DIRECTORY_BYTES = 4 * 2**20
"""Of a zip archive. Python's reader takes time that grows as the square of a record's length."""


def open_zip(path: Path, stream: Stream, stack: ExitStack, allowed: Collection[str]) -> Container:
    """Open what ``torch.save`` writes since 1.6.

    Args:
        path: The file.
        stream: On it.
        stack: Closes what is opened here.
        allowed: As in ``opened``.

    Returns:
        The opened file.

    Raises:
        InputError: No such archive, damaged, or one that is made to be a bomb.
        UnsafeFileError: Its pickle names code.
    """
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
            raise damaged(label, name)
        if record not in records:
            records[record] = _read_entry(label, archive, record)
        return _view(records[record], tensor)

    return Container(
        path, Kind.ZIP, found.value, {}, found.passed_over, stream.size, (path,), one,
        (state_of(stream),),
    )  # fmt: skip


def _view(record: bytearray, tensor: StoredTensor) -> Tensor:
    flat = torch.frombuffer(record, dtype=tensor.dtype)
    return flat.as_strided(tensor.shape, tensor.stride, tensor.offset).contiguous()


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


def open_legacy(path: Path, stream: Stream, allowed: Collection[str]) -> Container:
    """Open what ``torch.save`` wrote before 1.6.

    Magic number, version, machine, value, and keys of storages as pickles, then the storages: the
    layout of ``torch.serialization._legacy_save``.

    Args:
        path: The file.
        stream: On it.
        allowed: As in ``opened``.

    Returns:
        The opened file.

    Raises:
        InputError: Truncated, damaged, or of another byte order.
        UnsafeFileError: A pickle names code.
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
            raise damaged(label, str(key))
        stream.seek(place)
        if int.from_bytes(stream.read(8), "little") != numel:
            raise damaged(label, str(key))
        places[key] = place + 8
        place += 8 + numel * dtype.itemsize
    if place != stream.size:
        raise InputError(f"{label} is truncated or damaged.", COPY_AGAIN)

    def one(name: str, tensor: StoredTensor) -> Tensor:
        known = value.storages.get(tensor.key) == (tensor.dtype, tensor.storage_numel)
        if not known or tensor.key not in places or tensor.last_element >= tensor.storage_numel:
            raise damaged(label, name)
        left = tensor.storage_numel * tensor.dtype.itemsize
        record = bytearray()
        stream.seek(places[tensor.key])
        while left > 0 and (part := stream.read(min(left, CHUNK))):
            record += part
            left -= len(part)
        return _view(record, tensor)

    return Container(
        path, Kind.LEGACY, value.value, {}, value.passed_over, stream.size, (path,), one,
        (state_of(stream),),
    )  # fmt: skip
