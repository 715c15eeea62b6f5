"""Where data sets lie on this machine, and where what was decoded of them is kept."""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fls_bench.errors import AbsentDataError, InputError

Arrays = dict[str, npt.NDArray[Any]]

MAX_FILE_BYTES = 2**28
"""Most bytes of one file of a data set, decompressed; the largest known has 154 million."""


def _user_folder(variable: str, default: str) -> Path:
    chosen = os.environ.get(variable, "")
    # The XDG specification has relative paths ignored.
    return Path(chosen) if os.path.isabs(chosen) else Path(default).expanduser()


def data_folder() -> Path:
    """The user's data sets: ``$FLS_BENCH_DATA``, else ``fls-bench`` in the user's data folder."""
    chosen = os.environ.get("FLS_BENCH_DATA")
    if chosen:
        return Path(chosen).expanduser()
    return _user_folder("XDG_DATA_HOME", "~/.local/share") / "fls-bench"


def found(names: Iterable[str], standard: Iterable[str] = ()) -> Path | None:
    """The first place that exists.

    Args:
        names: Relative paths, looked for in ``data_folder()``.
        standard: Absolute paths where a package manager puts the data, looked for after these.

    Returns:
        A file or a folder, or None.
    """
    folder = data_folder()
    for place in (*(folder / name for name in names), *map(Path, standard)):
        with suppress(OSError):
            if place.exists():
                return place
    return None


def absent(name: str, line: str) -> AbsentDataError:
    """The error that says how to bring a data set.

    Args:
        name: Of the data set.
        line: One shell command; ``{folder}`` in it is replaced by the data folder.
    """
    return AbsentDataError(
        f"The data set {name!r} is not on this machine.",
        f"Bring it with: {line.format(folder=data_folder())}",
    )


def files_of(place: Path, names: Iterable[str]) -> dict[str, bytes]:
    """Read files by name from a folder or a .tgz; ``NAME.gz`` serves for ``NAME`` in a folder.

    Args:
        place: A folder, or a tar archive, of which only regular files are looked at.
        names: Wanted file names without folders.

    Returns:
        Contents by name, of those that were found.

    Raises:
        InputError: A file or the archive is damaged or too large.
    """
    contents = {}
    try:
        if place.is_dir():
            for name in names:
                plain, packed = place / name, place / f"{name}.gz"
                if plain.exists():
                    with plain.open("rb") as stream:
                        contents[name] = stream.read(MAX_FILE_BYTES + 1)
                elif packed.exists():
                    with gzip.open(packed) as unpacked:
                        contents[name] = unpacked.read(MAX_FILE_BYTES + 1)
        else:
            wanted = set(names)
            with tarfile.open(place, "r:gz") as archive:
                for member in archive:
                    name = Path(member.name).name
                    member_stream = archive.extractfile(member) if member.isreg() else None
                    if name in wanted and member_stream is not None:
                        contents[name] = member_stream.read(MAX_FILE_BYTES + 1)
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise InputError(
            f"{str(place)!r} can't be read: {str(error)[:200]}.", "Bring the data set again."
        ) from None
    for name, data in contents.items():
        if len(data) > MAX_FILE_BYTES:
            raise InputError(
                f"{name} in {str(place)!r} holds more than {MAX_FILE_BYTES:,} bytes.",
                "Bring the data set again.",
            )
    return contents


def sha256(array: npt.NDArray[Any]) -> str:
    """SHA-256 of the bytes of an array, in hex."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def check_md5(path: Path, known: str) -> None:
    """Refuse an archive that is not the one that the data set's authors published.

    Args:
        path: The archive.
        known: Its MD5, where its authors give no better digest: good against damage, not against
            forgery.

    Raises:
        InputError: It differs, or can't be read.
    """
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False))
    except OSError as error:
        raise InputError(
            f"{str(path)!r} can't be read: {str(error)[:200]}.", "Bring the data set again."
        ) from None
    if digest.hexdigest() != known:
        raise InputError(
            f"{str(path)!r} is not the archive as it was published: its MD5 is "
            f"{digest.hexdigest()}, not {known}.",
            "Remove it and bring the data set again.",
        )


def check_sha256(
    place: Path, arrays: Mapping[str, npt.NDArray[Any]], known: Mapping[str, str]
) -> None:
    """Refuse data that are not those of the data set's authors.

    Args:
        place: Where they were read, for the message.
        arrays: Decoded arrays by name.
        known: Their SHA-256.

    Raises:
        InputError: One differs.
    """
    for name, digest in known.items():
        if sha256(arrays[name]) != digest:
            raise InputError(
                f"{str(place)!r} does not hold the data set as it was published: the SHA-256 of "
                f"{name} differs.",
                "Remove it and bring the data set again.",
            )


def kept(name: str, make: Callable[[], Arrays]) -> Arrays:
    """Arrays that take long to make: made once, then read from the user's cache.

    Safe for several processes: a file appears whole or not at all. Where the cache can't be written
    the arrays are made each time.

    Args:
        name: Name in the cache; another content needs another name.
        make: Makes the arrays.

    Returns:
        The arrays by name.
    """
    folder = _user_folder("XDG_CACHE_HOME", "~/.cache") / "fls-bench" / "data"
    path = folder / f"{name}.npz"
    with (
        suppress(Exception),  # absent or damaged: it is made again
        path.open("rb") as stream,
        np.load(stream, allow_pickle=False) as archive,
    ):
        return {key: archive[key] for key in archive.files}
    arrays = make()
    temporary = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as part:
            temporary = part.name
            np.savez(part, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, path)
    except OSError:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)
    return arrays
