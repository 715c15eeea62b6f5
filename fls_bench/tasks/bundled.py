"""Small data sets that scikit-learn brings."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from fls_bench.schema import TaskSpec
from fls_bench.tasks.drawing import checked_seed, draw_whole
from fls_bench.tasks.task import Array, Labels, Task


@lru_cache(maxsize=4)
def _sklearn_arrays(name: str) -> tuple[Array, Labels]:
    from sklearn import datasets

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return x.astype(np.float32), y.astype(np.int64)


def _bundled(name: str, n_train: int, seed: int, num_test: int) -> Task:
    x, y = _sklearn_arrays(name)
    if name == "diabetes":  # a quantity; no patient has the median itself
        y = (y > np.median(y)).astype(np.int64)
    spec = TaskSpec(name=name, arguments={"n_train": n_train}, seed=checked_seed(seed))
    return draw_whole(name, x, y, n_train, seed, spec, num_test)


def digits(seed: int, *, n_train: int = 150) -> Task:
    """Handwritten digits of scikit-learn: 1,797 x 64, 10 classes, standardised."""
    return _bundled("digits", n_train, seed, num_test=1000)


def breast_cancer(seed: int, *, n_train: int = 100) -> Task:
    """Breast cancer of scikit-learn: 569 x 30, 2 classes, standardised."""
    return _bundled("breast_cancer", n_train, seed, num_test=250)


def wine(seed: int, *, n_train: int = 50) -> Task:
    """Wine of scikit-learn: 178 x 13, 3 classes, standardised."""
    return _bundled("wine", n_train, seed, num_test=100)


def diabetes(seed: int, *, n_train: int = 200) -> Task:
    """Diabetes of scikit-learn: 442 x 10, standardised; class 1 = progression above the median."""
    return _bundled("diabetes", n_train, seed, num_test=150)
