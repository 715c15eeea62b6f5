"""A model file opened: what it holds is known, and checked, before any of its numbers is read."""

from __future__ import annotations

import hashlib
import io
import math
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fls_bench.bundle.contents import listed
from fls_bench.bundle.pickles import StoredTensor
from fls_bench.bundle.sniffing import Kind, label_of
from fls_bench.errors import InputError

MAX_FILE_BYTES = 2 * 2**30
"""Shards together. Optimizer states, which are not read, are twice as large as the weights."""
MAX_TENSOR_BYTES = 2**30
"""Of the tensors that are read: 250 million weights in single precision."""
CHUNK = 8 * 2**20
MOST_AT_ONCE = 4 * CHUNK
COPY_AGAIN = "Copy or download it again."


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
        # A tied weight is one tensor under two names.
        announced = sum(tensor.num_bytes for tensor in set(stored.values()))
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
        named = sum(tensor.num_bytes for tensor in stored.values())
        needed = max(named, sum(storages.values()))
        if sum(storages.values()) > self.num_bytes:
            raise damaged(label, max(stored, key=lambda name: stored[name].storage_numel))
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
            with stream_of(path) as stream:
                while part := stream.read(CHUNK):
                    digest.update(part)
                if state_of(stream) != before:
                    raise InputError(
                        f"{label_of(path)} changed while it was read.",
                        "Try again when nothing writes to it.",
                    )
        return digest.hexdigest()


def damaged(label: str, name: str) -> InputError:
    """The error of a tensor whose numbers are not there.

    Args:
        label: What messages call the file.
        name: Of the tensor.

    Returns:
        The error to raise.
    """
    return InputError(
        f"{label} is damaged: the numbers of {listed([name])} are missing or don't have the "
        "announced size.",
        COPY_AGAIN,
    )


class Stream(io.BufferedReader):
    """A regular file of which nobody reads much at once, whatever sizes the file announces."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.size = os.fstat(self.fileno()).st_size
        self.most = MOST_AT_ONCE

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any stream; a ``ValueError`` for more than ``most`` bytes at once."""
        left = max(0, self.size - self.tell())
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > self.most:
            raise ValueError(f"a piece of {wanted} bytes")
        return super().read(wanted)


def state_of(stream: Stream) -> tuple[int, int, int]:
    """By what a file is known not to have changed: inode, size, time of change."""
    found = os.fstat(stream.fileno())
    return found.st_ino, found.st_size, found.st_mtime_ns


@contextmanager
def stream_of(path: Path) -> Iterator[Stream]:
    """Open a regular file of a size that is read.

    Args:
        path: The file.

    Yields:
        The stream.

    Raises:
        InputError: Missing, not readable, too large, a directory or a device.
    """
    try:
        # Opening a named pipe would wait for a writer.
        mode = path.stat().st_mode
        stream = Stream(path) if stat.S_ISREG(mode) else None
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
        check_size(path, stream.size)
        yield stream


def check_size(path: Path, size: int) -> None:
    """Refuse what is larger than any model file that is read.

    Args:
        path: For the message.
        size: In bytes.

    Raises:
        InputError: It is.
    """
    if size > MAX_FILE_BYTES:
        raise InputError(
            f"{label_of(path)} has {size / 2**30:.1f} GiB; model files of up to "
            f"{MAX_FILE_BYTES / 2**30:.0f} GiB are read.",
            "Check that it is the model file you mean.",
        )
