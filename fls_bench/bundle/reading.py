"""Reading model files: one pass over the bytes, every announced size compared with the file's."""

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
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from fls_bench.bundle.contents import MAKE_ONE, Bundle, check_contents, listed, parse_header
from fls_bench.bundle.pickles import (
    PLAIN_GLOBALS,
    NotPlainError,
    StoredTensor,
    list_pickle,
    read_pickle,
)
from fls_bench.bundle.sniffing import (
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
MAX_ENTRIES = 100_000
COPY_AGAIN = "Copy or download it again."
# What the library and torch raise on headers that don't describe the bytes that follow.
SAFETENSORS_ERRORS = (
    SafetensorError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    KeyError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)
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
    path = Path(path)
    content = _read_file(path)
    kind = sniff(path, content)
    if kind is Kind.ZIP:
        text, tensors = _read_torch_zip(path, content)
    else:
        text, tensors = _read_safetensors(path, content)
    label = label_of(path)
    header = parse_header(label, text)
    if strays := [name for name in tensors if not name.startswith(PREFIXES)]:
        raise InputError(
            f"{label} holds tensors that are neither init/, final/ nor data/: {listed(strays)}.",
            MAKE_ONE,
        )
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
    digest = hashlib.sha256(content).hexdigest()
    return Bundle(path=path, sha256=digest, header=header, init=init, final=final, data=data)


def _read_file(path: Path) -> bytes:
    try:
        # Opening a named pipe would wait for a writer.
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            with path.open("rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                if size <= MAX_FILE_BYTES:
                    return stream.read(size)
            raise InputError(
                f"{label_of(path)} has {size / 2**30:.1f} GiB; model files of up to "
                f"{MAX_FILE_BYTES / 2**30:.0f} GiB are read.",
                "Check that it is the model file you mean.",
            )
    except FileNotFoundError:
        raise InputError(f"There is no file {str(path)!r}.", "Check the path.") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(
            f"{str(path)!r} can't be read: {why}.", "Check the path and its permissions."
        ) from None
    what = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
    raise InputError(f"{str(path)!r} is {what}.", "Give the path of a model file.")


# --- torch.save ---------------------------------------------------------------------------------


def _read_torch_zip(path: Path, content: bytes) -> tuple[str, dict[str, Tensor]]:
    label = label_of(path)
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except ZIP_ERRORS:
        raise InputError(
            f"{label} starts like a file of torch.save, but is truncated or damaged.", COPY_AGAIN
        ) from None
    with archive:
        refuse_archive(path, archive)
        root = _check_entries(label, archive, len(content))
        pickle = _read_entry(label, archive, f"{root}data.pkl")
        try:
            value = read_pickle(pickle)
        except NotPlainError as error:
            found = list_pickle(pickle).globals
            if kind := unusual_tensors(found):
                raise InputError(
                    f"{label} holds {kind}; only plain arrays of floating or whole numbers are "
                    "read.",
                    "Convert them, with .dequantize() or .to_dense() for instance, and save again.",
                ) from None
            if set(found) <= PLAIN_GLOBALS:
                raise InputError(
                    f"{label} is no model file: its data.pkl {error}.", MAKE_ONE
                ) from None
            raise full_pickle(path, found, "zip", "a full pickle") from None
        text, stored = _bundle_parts(path, value)
        _check_announced(label, stored, len(content))
        byteorder = f"{root}byteorder"
        if byteorder in archive.NameToInfo:
            order = _read_entry(label, archive, byteorder)
            if order != sys.byteorder.encode():
                raise InputError(
                    f"{label} was written on a machine with another byte order.",
                    "Save it again on a machine of this kind, or as .safetensors.",
                )
        return text, _materialize(label, archive, root, stored)


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
    raise InputError(f"{label} is a zip archive that {problem}, so it was not read.", MAKE_ONE)


def _read_entry(label: str, archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except ZIP_ERRORS:
        raise InputError(
            f"{label} is damaged: {listed([name])} can't be read.", COPY_AGAIN
        ) from None


def _bundle_parts(path: Path, value: Any) -> tuple[str, dict[str, StoredTensor]]:
    """Header and tensor descriptions, or the reason why a torch file is no model file."""
    label = label_of(path)
    if not isinstance(value, dict) or "fls_bench" not in value:
        what = _description(value)
        if what is None:
            raise InputError(f"{label} is a torch file that holds no state dict.", MAKE_ONE)
        raise _no_header(path, what)
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


def _description(value: object) -> str | None:
    """What a torch file with tensors by name is, or None for any other."""
    if isinstance(value, dict) and value:
        if _is_state(value):
            return f"a state dict of {_counted(value)} ({listed(value, 3)})"
        states = {key: item for key, item in value.items() if item and _is_state(item)}
        parts = [f"{_counted(item)} under {listed([key])}" for key, item in states.items()]
        if parts:
            return f"a checkpoint with {', '.join(parts[:3])}"
    return None


def _no_header(
    path: Path, what: str, load: str = "torch.load({!r}, weights_only=True)"
) -> InputError:
    new = str(path.with_name(f"{path.stem}-bundle.pt"))
    return InputError(
        f"{label_of(path)} is {what}: weights without the header that says which net, data and "
        "training they belong to.",
        f"Load it into your net and write a model file: model.load_state_dict("
        f"{load.format(str(path))}); fls_bench.save_bundle({new!r}, model, task=..., recipe=...).",
    )


def _check_announced(label: str, stored: Mapping[str, StoredTensor], file_bytes: int) -> None:
    if empty := [name for name, tensor in stored.items() if math.prod(tensor.shape) == 0]:
        raise InputError(
            f"{label} holds empty tensors: {listed(empty)}.",
            "A layer of size zero can't be judged; give every layer at least one unit.",
        )
    announced = sum(tensor.num_bytes for tensor in stored.values())
    if announced > file_bytes:
        raise InputError(
            f"{label} announces tensors of {announced:.3g} bytes, and has only {file_bytes:,}.",
            "Save each tensor in full, with .clone(), in place of expanded or shared views.",
        )


def _materialize(
    label: str, archive: zipfile.ZipFile, root: str, stored: Mapping[str, StoredTensor]
) -> dict[str, Tensor]:
    buffers: dict[str, bytearray] = {}
    tensors = {}
    for name, tensor in stored.items():
        record = f"{root}data/{tensor.key}"
        size = tensor.storage_numel * tensor.dtype.itemsize
        info = archive.NameToInfo.get(record)
        if info is None or info.file_size != size or tensor.last_element >= tensor.storage_numel:
            raise InputError(
                f"{label} is damaged: the numbers of {listed([name])} are missing or don't have "
                "the announced size.",
                COPY_AGAIN,
            )
        if record not in buffers:
            buffers[record] = bytearray(_read_entry(label, archive, record))
        flat = torch.frombuffer(buffers[record], dtype=tensor.dtype)
        tensors[name] = flat.as_strided(tensor.shape, tensor.stride, tensor.offset).contiguous()
    return tensors


# --- safetensors --------------------------------------------------------------------------------


def _read_safetensors(path: Path, content: bytes) -> tuple[str, dict[str, Tensor]]:
    label = label_of(path)
    try:
        # The library checks every offset against the file before it makes a tensor.
        tensors = load_safetensors(content)
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
        text = metadata.get("fls_bench")
    except SAFETENSORS_ERRORS as error:
        why = str(error)[:120] or type(error).__name__
        raise InputError(
            f"{label} is a safetensors file that is damaged: {why!r}.", COPY_AGAIN
        ) from None
    if not isinstance(text, str):
        what = f"a safetensors file of {_counted(tensors)} ({listed(tensors, 3)})"
        raise _no_header(path, what, "safetensors.torch.load_file({!r})")
    return text, tensors
