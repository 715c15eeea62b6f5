"""Data that are drawn from a law: all parts are new for every seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fls_bench.errors import InputError
from fls_bench.schema import TaskSpec
from fls_bench.tasks.drawing import SPLIT_SEED, checked_seed
from fls_bench.tasks.task import MIN_PER_PART, Array, Labels, Task, make_task

MAX_SCALE = 1e9
"""Largest kappa and sigma of a mixture, far within the range of float32."""

MAX_NUMBERS = 200_000_000
"""Most input values of generated data, all parts together (0.8 GB)."""


def mixture(
    seed: int,
    *,
    n_train: int = 20,
    input_dim: int = 100,
    kappa: float = 1.0,
    sigma: float = 0.3,
    n_test: int = 20_000,
    n_val: int = 5_000,
    copies: int = 1,
) -> Task:
    """Two Gaussian classes, x = kappa·y·s + sigma·z (YHL section 5).

    The direction s is the first axis: the law of the net's weights is rotation invariant, so this
    loses nothing. Bayes error Phi(-kappa/sigma). Everything is redrawn with the seed.

    Of n_train points n_train/copies are distinct and each stands ``copies`` times, in the training
    part alone: all parts are otherwise those that n_train/copies points without copies would have.
    """
    arguments = {
        "n_train": n_train, "input_dim": input_dim, "kappa": kappa, "sigma": sigma,
        "n_test": n_test, "n_val": n_val, **({} if copies == 1 else {"copies": copies}),
    }  # fmt: skip
    if copies < 1 or n_train % copies:
        raise InputError(
            f"copies = {copies} must be >= 1 and divide n_train = {n_train}.",
            "Change either.",
        )
    if not 0 < sigma <= MAX_SCALE:
        raise InputError(
            f"sigma = {sigma} must be > 0, and at most {MAX_SCALE:g}.",
            "Give a noise level such as 0.3.",
        )
    if not abs(kappa) <= MAX_SCALE:
        raise InputError(
            f"kappa = {kappa} must lie between {-MAX_SCALE:g} and {MAX_SCALE:g}.",
            "Give a distance such as 1.",
        )

    def draw(rng: np.random.Generator, n: int) -> tuple[Array, Labels]:
        y = rng.permutation(np.arange(n) % 2)
        x = sigma * rng.standard_normal((n, input_dim), dtype=np.float32)
        x[:, 0] += kappa * (2 * y - 1)
        return x, y.astype(np.int64)

    return generated("mixture", arguments, seed, draw, copies)


def product_of_signs(
    seed: int,
    *,
    n_train: int = 400,
    input_dim: int = 20,
    order: int = 2,
    n_test: int = 20_000,
    n_val: int = 5_000,
) -> Task:
    """Label = sign of the product of the first ``order`` of ``input_dim`` Gaussians (parity)."""
    arguments = {
        "n_train": n_train, "input_dim": input_dim, "order": order,
        "n_test": n_test, "n_val": n_val,
    }  # fmt: skip
    if not 1 <= order <= input_dim:
        raise InputError(
            f"order = {order} must lie between 1 and input_dim = {input_dim}.", "Change either."
        )

    def draw(rng: np.random.Generator, n: int) -> tuple[Array, Labels]:
        x = rng.standard_normal((n, input_dim), dtype=np.float32)
        return x, (np.prod(np.sign(x[:, :order]), axis=1) > 0).astype(np.int64)

    return generated("product_of_signs", arguments, seed, draw)


def noise(
    seed: int,
    *,
    n_train: int = 150,
    input_dim: int = 64,
    n_classes: int = 10,
    n_test: int = 2_000,
    n_val: int = 1_000,
) -> Task:
    """Gaussian inputs with random labels: the negative control. R(c) is 1 - 1/K for every c."""
    arguments = {
        "n_train": n_train, "input_dim": input_dim, "n_classes": n_classes,
        "n_test": n_test, "n_val": n_val,
    }  # fmt: skip

    def draw(rng: np.random.Generator, n: int) -> tuple[Array, Labels]:
        y = rng.permutation(np.arange(n) % n_classes)
        return rng.standard_normal((n, input_dim), dtype=np.float32), y.astype(np.int64)

    return generated("noise", arguments, seed, draw)


def generated(
    name: str,
    arguments: Mapping[str, Any],
    seed: int,
    draw: Callable[[np.random.Generator, int], tuple[Array, Labels]],
    copies: int = 1,
    *,
    input_dim: int | None = None,
    n_classes: int = 2,
) -> Task:
    """Draw all parts of a task from its law.

    Args:
        name: Name of the task.
        arguments: All of its arguments.
        seed: Of the draw.
        draw: (generator, n) -> n points; called for the training, validation and test part.
        copies: How often each training point stands.
        input_dim: Values of one point, of a task that has no such argument.
        n_classes: Likewise.

    Returns:
        The task.

    Raises:
        InputError: A size or the seed is out of range.
    """
    input_dim = arguments["input_dim"] if input_dim is None else input_dim
    n_train, *held_out = checked_sizes(name, arguments, input_dim)
    rng = np.random.default_rng([SPLIT_SEED, checked_seed(seed)])
    x, y = draw(rng, n_train // copies)
    validation, test = (draw(rng, size) for size in held_out)
    return make_task(
        name, (np.tile(x, (copies, 1)), np.tile(y, copies)), test, validation,
        n_classes=arguments.get("n_classes", n_classes),
        spec=TaskSpec(name=name, arguments=dict(arguments), seed=seed), fixed_test=False,
    )  # fmt: skip


def checked_sizes(name: str, arguments: Mapping[str, Any], input_dim: int) -> tuple[int, int, int]:
    """Check how much is drawn of a law.

    Args:
        name: Name of the task.
        arguments: Its arguments: n_train, n_val and n_test, and input_dim and n_classes if it has
            them.
        input_dim: Values of one point.

    Returns:
        n_train, n_val and n_test.

    Raises:
        InputError: One is out of range, or all together are too many numbers.
    """
    for key, low, high in (
        ("n_train", MIN_PER_PART, 1_000_000),
        ("n_test", MIN_PER_PART, 1_000_000),
        ("n_val", MIN_PER_PART, 1_000_000),
        ("input_dim", 1, 100_000),
        ("n_classes", 2, 1_000),
    ):
        value = arguments.get(key, low)
        if not low <= value <= high:
            raise InputError(
                f"Task {name!r}: {key} = {value} is out of range.", f"Choose {low} .. {high}."
            )
    sizes = int(arguments["n_train"]), int(arguments["n_val"]), int(arguments["n_test"])
    if sum(sizes) * input_dim > MAX_NUMBERS:
        changed = "input_dim, n_train" if "input_dim" in arguments else "size, n_train"
        raise InputError(
            f"Task {name!r} would draw {sum(sizes) * input_dim:,} numbers; the limit is "
            f"{MAX_NUMBERS:,}.",
            f"Choose a smaller {changed}, n_val or n_test.",
        )
    return sizes
