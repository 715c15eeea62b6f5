"""Opening a model file of any kind, told by its content and not by its name."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fls_bench.bundle.containers import Container, stream_of
from fls_bench.bundle.contents import listed
from fls_bench.bundle.opcodes import MAX_PICKLE_BYTES
from fls_bench.bundle.safetensors_files import open_safetensors, open_sharded
from fls_bench.bundle.sniffing import Kind, sniff
from fls_bench.bundle.torch_files import open_legacy, open_zip
from fls_bench.errors import InputError


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
        stream = stack.enter_context(stream_of(path))
        kind = sniff(path, stream.read(MAX_PICKLE_BYTES), stream.size)
        stream.seek(0)
        if kind is Kind.ZIP:
            yield open_zip(path, stream, stack, allowed)
        elif kind is Kind.LEGACY:
            yield open_legacy(path, stream, allowed)
        elif kind is Kind.SAFETENSORS:
            yield open_safetensors(path, stream, stack)
        else:
            yield open_sharded(path, stream, stack)


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
