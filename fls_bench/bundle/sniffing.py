"""What a file is, by its content, and why it is not read when it is no model file."""

from __future__ import annotations

import io
import lzma
import re
import shlex
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import islice
from pathlib import Path

from fls_bench.bundle.contents import GIVE_ONE, listed
from fls_bench.bundle.opcodes import MAX_OPCODES, list_pickle
from fls_bench.bundle.pickles import PLAIN_GLOBALS
from fls_bench.errors import InputError, UnsafeFileError

ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The first pickle in files of torch before 1.6: a magic number."""
MAX_SAFETENSORS_HEADER = 16 * 2**20
MAX_SCANNED_PICKLES = 16
MAX_SCANNED_ENTRIES = 1000
MAX_SCANNED_BYTES = 4 * 2**20
"""Of the pickles of a program, which are only listed."""
# Everything that zipfile raises on archives that are damaged, or made to look so.
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    IndexError,
    KeyError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)

# offset, magic bytes, what it is, what to do
_MAGICS = (
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras and h5py write", GIVE_ONE),
    (0, b"\x93NUMPY", "a numpy array", GIVE_ONE),
    (0, b"GGUF", "a GGUF file", GIVE_ONE),
    (0, b"\x1f\x8b\x08", "compressed with gzip", "Unpack it with gunzip first."),
    (257, b"ustar", "a tar archive", "Unpack it with tar first."),
)
# What torch's own reader accepts beside plain tensors, and this one does not.
_TENSOR_KINDS = {
    "torch._utils._rebuild_sparse_tensor": "sparse tensors",
    "torch._utils._rebuild_qtensor": "quantized tensors",
    "torch._utils._rebuild_nested_tensor": "nested tensors",
    "torch._utils._rebuild_meta_tensor_no_storage": "meta tensors, which have no numbers",
    "torch._utils._rebuild_wrapper_subclass": "tensor subclasses",
    "torch._tensor._rebuild_from_type_v2": "tensor subclasses",
    "torch._utils._rebuild_tensor_v3": "tensors of an unusual number type",
    "torch.ComplexFloatStorage": "complex tensors",
    "torch.ComplexDoubleStorage": "complex tensors",
    "torch.QInt8Storage": "quantized tensors",
    "torch.QUInt8Storage": "quantized tensors",
    "torch.QInt32Storage": "quantized tensors",
    "torch.storage.UntypedStorage": "tensors of an unusual number type",
    "torch.serialization._get_layout": "sparse tensors",
    "torch.Size": "sparse tensors",
    "torch.per_tensor_affine": "quantized tensors",
    "torch.per_channel_affine": "quantized tensors",
}
_DTYPE = re.compile(r"torch\.(u?int|float|bfloat|complex|bits)\d\w*")


class Kind(StrEnum):
    """The kinds of file that are looked into."""

    ZIP = "zip"
    LEGACY = "legacy"
    SAFETENSORS = "safetensors"
    SHARDED = "sharded safetensors"


def label_of(path: Path) -> str:
    """The file's name as messages show it."""
    return repr(path.name)


def argument_of(path: Path) -> str:
    """The file's name as a command line needs it."""
    return shlex.quote(path.name) if path.name.isprintable() else label_of(path)


def sniff(path: Path, data: bytes, size: int) -> Kind:
    """Recognize a file by its content.

    Args:
        path: For messages only; its suffix does not count.
        data: How the file starts; ``MAX_PICKLE_BYTES`` of it, where it has so many.
        size: Of the whole file, in bytes.

    Returns:
        The kind of container to open.

    Raises:
        InputError: The file is nothing that could be a model file.
        UnsafeFileError: It is a pickle.
    """
    label = label_of(path)
    if not data:
        raise InputError(f"{label} is empty.", "Save it again: writing it was interrupted.")
    if data[:4] in ZIP_MAGICS:
        return Kind.ZIP
    if data.startswith(LEGACY_START):
        return Kind.LEGACY
    announced = int.from_bytes(data[:8], "little")
    if data[8:9] == b"{" and announced <= min(size - 8, MAX_SAFETENSORS_HEADER):
        return Kind.SAFETENSORS
    if data[:1] == b"{" and b'"weight_map"' in data:
        if size > MAX_SAFETENSORS_HEADER:
            raise InputError(
                f"{label} is an index of shards with {size:,} bytes; up to "
                f"{MAX_SAFETENSORS_HEADER:,} are read.",
                "Check that it is the index you mean.",
            )
        return Kind.SHARDED
    for offset, magic, what, remedy in _MAGICS:
        if data[offset : offset + len(magic)] == magic:
            raise InputError(f"{label} is {what}, not a model file of fls-bench.", remedy)
    listing = list_pickle(data)
    binary = data[:1] == b"\x80" and data[1:2] <= b"\x05"
    if binary or (listing.num_pickles and listing.globals):
        raise full_pickle(path, listing.globals, "pickle", "a pickle")
    if data[8:10] in (b'{"', b"{}") or (data[8:9] == b"{" and announced < 100_000_000):
        raise InputError(
            f"{label} looks like safetensors, but announces a header of {announced:,} bytes, where "
            f"{size - 8:,} follow and at most {MAX_SAFETENSORS_HEADER:,} are read: it is truncated "
            "or damaged.",
            "Copy or download it again.",
        )
    if data.lstrip()[:1] in (b"{", b"["):
        raise InputError(
            f"{label} is text that looks like JSON, not a model file or an index of shards.",
            "To show a report.json, use `fls-bench report`; to judge a net, give its model file.",
        )
    raise InputError(f"{label} is not a model file: its content has no known format.", GIVE_ONE)


def refuse_archive(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse zip archives that hold something else than what ``torch.save`` writes.

    Args:
        path: For messages.
        archive: Opened; only names, and pickles for the list of what they name, are read.

    Raises:
        InputError: A numpy archive, or none of torch's.
        UnsafeFileError: TorchScript, or an exported program.
    """
    label, names = label_of(path), archive.namelist()
    inner = {name.partition("/")[2] for name in names}
    if inner & {"archive_format", "archive_version"} or any(
        name.startswith("models/") and name.endswith(".json") for name in inner
    ):
        raise _program(path, archive, "an exported program (.pt2)", "pt2")
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        raise _program(path, archive, "a TorchScript archive", "torchscript")
    if names and all(name.endswith(".npy") for name in names):
        raise InputError(
            f"{label} is a numpy archive (.npz): data, not a model file.",
            f"Train a net on it with `fls-bench train --task {argument_of(path)}`, or give a model "
            "file.",
        )
    if "data.pkl" not in inner:
        raise InputError(
            f"{label} is a zip archive that torch.save did not write: it holds "
            f"{listed(names) or 'nothing'}.",
            GIVE_ONE,
        )


def _program(path: Path, archive: zipfile.ZipFile, what: str, how: str) -> UnsafeFileError:
    found: dict[str, None] = {}
    steps = MAX_OPCODES
    for pickle in islice(_pickles(archive), MAX_SCANNED_PICKLES):
        listing = list_pickle(pickle, steps)
        found |= dict.fromkeys(listing.globals)
        steps -= listing.num_steps
    entries = [name.partition("/")[2] for name in archive.namelist()]
    programs = [name for name in entries if name.startswith(("code/", "models/"))]
    pickles = [name for name in entries if name.endswith((".pkl", ".pt"))]
    return full_pickle(path, (*found, *programs, *pickles), how, what)


def _pickles(archive: zipfile.ZipFile, *, nested: bool = True) -> Iterator[bytes]:
    """Entries that are pickles, one nested archive deep, until enough bytes were looked at."""
    budget = MAX_SCANNED_BYTES
    for info in archive.infolist()[:MAX_SCANNED_ENTRIES]:
        # What is compressed can be a million times as large, and torch compresses no pickle.
        if info.compress_type != zipfile.ZIP_STORED:
            continue
        try:
            with archive.open(info) as stream:
                content = stream.read(4)
                if content[:1] != b"\x80" and content not in ZIP_MAGICS:
                    continue
                content += stream.read(budget)
            if content[:1] == b"\x80":
                yield content
            elif nested:
                with zipfile.ZipFile(io.BytesIO(content)) as inner:
                    yield from _pickles(inner, nested=False)
        except ZIP_ERRORS:
            continue  # a damaged entry can't be listed; the file is refused anyway
        budget -= len(content)
        if budget <= 0:
            return


def unusual_tensors(found: Sequence[str]) -> str | None:
    """The kind of tensors, when that alone is what keeps a pickle from being read."""
    foreign = [name for name in found if name not in PLAIN_GLOBALS]
    kinds = [_TENSOR_KINDS[name] for name in foreign if name in _TENSOR_KINDS]
    harmless = all(name in _TENSOR_KINDS or _DTYPE.fullmatch(name) for name in foreign)
    return kinds[0] if kinds and harmless else None


def full_pickle(
    path: Path, found: Sequence[str], how: str, what: str, *, settings: bool = False
) -> UnsafeFileError:
    """The refusal of a file that would have to execute code, with the lines that convert it.

    Args:
        path: The file.
        found: What it would import or run.
        how: ``zip``, ``legacy``, ``pickle``, ``torchscript`` or ``pt2``: how to load it elsewhere.
        what: What it is, in words.
        settings: Whether classes can be named that are read past.

    Returns:
        The error to raise.
    """
    name = str(path)
    foreign = [item for item in found if item not in PLAIN_GLOBALS] or list(found)
    load = {
        "zip": f"torch.load({name!r}, weights_only=False)",
        "legacy": f"torch.load({name!r}, weights_only=False)",
        "pickle": f"__import__('pickle').load(open({name!r}, 'rb'))",
        "torchscript": f"torch.jit.load({name!r})",
        "pt2": f"torch.export.load({name!r}).state_dict",
    }[how]
    names = f"; it names {listed(foreign, 10)}" if foreign else ""
    new = str(path.with_name(f"{path.stem}-bundle.pt"))
    past = ",".join(
        name if len(name) <= 100 and name.replace(".", "").isidentifier() else "..."
        for name in foreign[:10]
    )
    skip = (
        f"If these are only settings beside the weights, read past them: --allow {past} (nothing is "
        "imported). "
        if settings and foreign
        else ""
    )
    return UnsafeFileError(
        f"{label_of(path)} is {what}, which executes what it names when it is loaded, so it was "
        f"not loaded and nothing was executed{names}.",
        f"{skip}If you trust where it comes from, turn it into a model file yourself with these two "
        "lines:"
        f"\n    import torch, fls_bench; model = {load}"
        f"\n    fls_bench.save_bundle({new!r}, model)",
    )
