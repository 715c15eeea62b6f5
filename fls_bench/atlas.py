"""The atlas: measurements of many trained nets whose regime is known, as plain arrays in shards.

A shard holds every run of some cases of the suite ``atlas``: what was measured on each net, and the
errors from which the regime of its setup at its c is judged. Nothing in here is pickled.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fls_bench.errors import InputError
from fls_bench.files import packaged, read_stored, write_whole
from fls_bench.schema import READING_SCHEMA, WATCH_SCHEMA, Outcome, ReadingModels, WatchModels
from fls_bench.verdict.reading.columns import COLUMNS

ATLAS_SCHEMA = "fls-bench/atlas/1"
OUTCOMES = tuple(Outcome)
ERRORS = ("val_error", "val_loss", "test_error", "test_loss", "chance_error")

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Shard:
    """Runs of some cases.

    Attributes:
        header: Suite, columns, facts of each case, versions of what made it.
        values: ``[R, C]`` float32, C as ``header["columns"]``, NaN where nothing was measured.
        case: ``[R]`` index into ``header["cases"]``.
        log2_c: ``[R]`` log2 of the output multiplier.
        seed: ``[R]``.
        outcome: ``[R]`` index into ``OUTCOMES``.
        errors: ``[R, 5]`` as ``ERRORS``, NaN where there is none.
    """

    header: dict[str, Any]
    values: Array
    case: Array
    log2_c: Array
    seed: Array
    outcome: Array
    errors: Array


_ARRAYS = {
    "values": np.float32,
    "case": np.int16,
    "log2_c": np.float32,
    "seed": np.int32,
    "outcome": np.int8,
    "errors": np.float32,
}


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard lies."""
    return folder / f"shard-{number:03d}.npz"


def save_shard(path: Path, shard: Shard) -> None:
    """Write a shard whole or not at all.

    Args:
        path: The file; replaced where it exists.
        shard: What to write.
    """
    buffer = io.BytesIO()
    arrays = {key: getattr(shard, key).astype(kind) for key, kind in _ARRAYS.items()}
    header = np.frombuffer(json.dumps(shard.header, sort_keys=True).encode(), dtype=np.uint8)
    np.savez_compressed(buffer, header=header, **arrays)
    write_whole(path, buffer.getvalue())


def load_shard(path: Path) -> Shard:
    """Read a shard.

    Args:
        path: The file.

    Returns:
        The shard.

    Raises:
        InputError: It is none, or of another schema.
    """
    remedy = "Train it again with fls-bench calibrate --survey."
    try:
        # numpy leaves a file open that it fails to read.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes())
            arrays = {key: file[key] for key in _ARRAYS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not a shard of an atlas.", remedy) from error
    if not isinstance(header, dict) or header.get("schema") != ATLAS_SCHEMA:
        raise InputError(f"{path} is not of schema {ATLAS_SCHEMA}.", remedy)
    sizes = {len(value) for value in arrays.values()}
    fits = arrays["values"].ndim == 2 and arrays["values"].shape[1] == len(header["columns"])
    if len(sizes) != 1 or not fits:
        raise InputError(f"The arrays of {path} have different lengths.", remedy)
    return Shard(header, **arrays)


def atlas_folder() -> Path:
    """The atlas that comes with fls-bench.

    Raises:
        InputError: There is none.
    """
    folder = packaged("baselines")
    if folder is None or not (folder / "atlas").is_dir():
        raise InputError(
            "This installation has no atlas.", "Install fls-bench again, or name its folder."
        )
    return folder / "atlas"


def load_atlas(folder: Path) -> tuple[Shard, ...]:
    """All shards of a folder.

    Args:
        folder: Holds ``shard-*.npz``.

    Returns:
        The shards, in order, their columns as ``COLUMNS``.

    Raises:
        InputError: There is none, or they are of different suites.
    """
    shards = [load_shard(path) for path in sorted(folder.glob("shard-*.npz"))]
    if not shards:
        raise InputError(f"{folder} holds no shard of an atlas.", "Name the folder of an atlas.")
    if len({json.dumps(shard.header["suite"], sort_keys=True) for shard in shards}) > 1:
        raise InputError(
            f"The shards in {folder} are of different suites.", "Keep those of one suite there."
        )
    return tuple(map(_aligned, shards))


def models_path() -> Path:
    """The committed models of the reading.

    Raises:
        InputError: There are none.
    """
    folder = packaged("baselines")
    if folder is None or not (folder / "atlas" / "reading.json").is_file():
        raise InputError("This installation has no calibrated reading.", "Install fls-bench again.")
    return folder / "atlas" / "reading.json"


@functools.cache
def load_models(path: Path | None = None) -> ReadingModels:
    """The models by which a regime is read from one net.

    Args:
        path: A file of ``fls-bench calibrate``; None: the committed one.

    Returns:
        The models.

    Raises:
        InputError: The file is not one, or of another schema.
    """
    return read_stored(
        path or models_path(), {READING_SCHEMA: ReadingModels}, "fls-bench calibrate"
    )


@functools.cache
def load_watch_models() -> WatchModels:
    """The committed models by which a net in training is read.

    Returns:
        The models.

    Raises:
        InputError: There are none.
    """
    return read_stored(
        atlas_folder() / "watching.json", {WATCH_SCHEMA: WatchModels}, "benchmarks/watch_survey.py"
    )


def models_digest() -> str:
    """SHA-256 of the committed models."""
    return hashlib.sha256(models_path().read_bytes()).hexdigest()


def _aligned(shard: Shard) -> Shard:
    own: Sequence[str] = shard.header["columns"]
    if tuple(own) == COLUMNS:
        return shard
    values = np.full((len(shard.values), len(COLUMNS)), np.nan, dtype=np.float32)
    for k, column in enumerate(COLUMNS):
        if column in own:
            values[:, k] = shard.values[:, own.index(column)]
    return Shard(
        {**shard.header, "columns": list(COLUMNS)}, values, shard.case, shard.log2_c, shard.seed,
        shard.outcome, shard.errors,
    )  # fmt: skip
