"""MNIST-1D: short signals in ten classes, made by the package of their authors."""

from __future__ import annotations

import random
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from fls_bench.errors import InputError
from fls_bench.tasks import places
from fls_bench.tasks.drawing import Official, draw_official
from fls_bench.tasks.task import Task

SHA256 = {
    "y_train": "d97dc7aecec8ad6b5d8f143ba3e9c4bd7e25c420d7dfc2eb990591cfc0ed3e15",
    "y_test": "8de99be3ff9dab15ae0dc072c3d6ced7cf6b33d365888ce4a386fc944489452c",
}
"""Of the labels, int64: they tell another version's draw. Values may differ in their last bits."""

BRING = "pip install mnist1d==0.0.2.post1"


def mnist1d(seed: int, *, n_train: int = 2000, n_val: int = 1000, n_test: int = 1000) -> Task:
    """MNIST-1D: 4,000 + 1,000 signals of 40 values, 10 classes, standardised.

    Source: Greydanus, Kobak, arXiv:2011.14439.
    """
    return draw_official("mnist1d", _official(), seed, n_train=n_train, n_val=n_val, n_test=n_test)


@lru_cache(maxsize=1)
def _official() -> Official:
    try:
        installed = version("mnist1d")
    except PackageNotFoundError:
        raise places.absent("mnist1d", BRING) from None
    arrays = places.kept(f"mnist1d-{installed}", _made)
    if any(places.sha256(arrays[key]) != known for key, known in SHA256.items()):
        raise InputError(
            f"mnist1d {installed} makes other data than fls-bench knows.",
            f"Install it with: {BRING}",
        )
    return Official(**arrays)


def _made() -> places.Arrays:
    # The package draws from the global generators; what others drew from them goes on.
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        import mnist1d as package

        made = package.data.make_dataset(package.data.get_dataset_args())
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
    return {
        "x_train": made["x"].astype(np.float32),
        "y_train": made["y"].astype(np.int64),
        "x_test": made["x_test"].astype(np.float32),
        "y_test": made["y_test"].astype(np.int64),
    }
