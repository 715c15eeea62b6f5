"""Laws of many kinds whose own parameters are fixed: all seeds draw from the same problem.

Inputs have about unit variance. What is fixed of a problem (a teacher's weights, the centres of
clusters) is drawn once, from a generator that the task's name seeds.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri, ndtri

from fls_bench.errors import InputError
from fls_bench.tasks.drawing import SPLIT_SEED
from fls_bench.tasks.generated import generated
from fls_bench.tasks.task import Array, Labels, Task

Doubles = npt.NDArray[np.float64]

BALANCING_POINTS, BALANCING_STEPS = 10_000, 300
"""Points on which shares of classes are made even, and how often the offsets are moved."""

HASTIE_DIM, HASTIE_NOISE = 10, 20

CELLS_PER_CLASS = 4


def teacher(
    seed: int,
    *,
    n_train: int = 400,
    input_dim: int = 30,
    n_classes: int = 4,
    width: int = 8,
    n_test: int = 4_000,
    n_val: int = 1_000,
) -> Task:
    """Label = largest output of a fixed two-layer ReLU net of ``width`` units on Gaussian inputs.

    Weights are normal; the outputs' offsets make all classes about equally frequent.
    """
    arguments = {
        "n_train": n_train, "input_dim": input_dim, "n_classes": n_classes, "width": width,
        "n_test": n_test, "n_val": n_val,
    }  # fmt: skip
    _check("teacher", "n_classes", n_classes, 2, 50)
    _check("teacher", "width", width, 1, 1_000)
    _check("teacher", "input_dim", input_dim, 1, 1_000)

    def draw(rng: np.random.Generator, n: int) -> tuple[Array, Labels]:
        x = rng.standard_normal((n, input_dim), dtype=np.float32)
        weights, readout, offsets = _teacher(input_dim, n_classes, width)
        return x, _largest(np.maximum(x @ weights, 0) @ readout, offsets)

    return generated("teacher", arguments, seed, draw)


@lru_cache(maxsize=16)
def _teacher(input_dim: int, n_classes: int, width: int) -> tuple[Doubles, Doubles, Doubles]:
    rng = _fixed("teacher")
    weights = rng.standard_normal((input_dim, width)) / input_dim**0.5
    readout = rng.standard_normal((width, n_classes))
    x = rng.standard_normal((BALANCING_POINTS, input_dim))
    return weights, readout, _even_offsets(np.maximum(x @ weights, 0) @ readout)


def single_index(
    seed: int, *, n_train: int = 400, input_dim: int = 40, n_test: int = 4_000, n_val: int = 1_000
) -> Task:
    """Y = 1 where abs(<u, x>) is above its median, with a fixed direction u and Gaussian x.

    No linear classifier is better than chance: y is even in x.
    """
    arguments = {"n_train": n_train, "input_dim": input_dim, "n_test": n_test, "n_val": n_val}

    def draw(rng: np.random.Generator, n: int) -> tuple[Array, Labels]:
        x = rng.standard_normal((n, input_dim), dtype=np.float32)
        direction = _fixed("single_index").standard_normal(input_dim)
        along = x @ (direction / np.linalg.norm(direction))
        return x, (np.abs(along) > ndtri(0.75)).astype(np.int64)

    return generated("single_index", arguments, seed, draw)


def clusters(
    seed: int,
    *,
    n_train: int = 400,
    input_dim: int = 20,
    n_classes: int = 5,
    per_class: int = 3,
    spread: float = 1.0,
    n_test: int = 4_000,
    n_val: int = 1_000,
) -> Task:
    """Each class is a mixture of ``per_class`` Gaussian clusters around fixed centres.

    The centres are normal, with mean 0 and variance 1 over all of them; ``spread`` is the deviation of
    the points around them. Then all is divided by the root of 1 + spread^2.
    """
    arguments = {
        "n_train": n_train, "input_dim": input_dim, "n_classes": n_classes,
        "per_class": per_class, "spread": spread, "n_test": n_test, "n_val": n_val,
    }  # fmt: skip
    _check("clusters", "input_dim", input_dim, 1, 1_000)
    _check("clusters", "n_classes", n_classes, 2, 50)
    _check("clusters", "per_class", per_class, 1, 50)
    _check("clusters", "spread", spread, 0.01, 100)

    def draw(rng: np.random.Generator, n: int) -> tuple[Array, Labels]:
        centres = _fixed("clusters").standard_normal((n_classes * per_class, input_dim))
        centres -= centres.mean(0)
        centres /= np.square(centres).mean() ** 0.5
        cluster = rng.permutation(np.arange(n) % len(centres))
        x = centres[cluster] + spread * rng.standard_normal((n, input_dim))
        return _single(x / (1 + spread**2) ** 0.5), cluster % n_classes

    return generated("clusters", arguments, seed, draw)


def quantiles(
    seed: int,
    *,
    n_train: int = 400,
    input_dim: int = 10,
    n_classes: int = 3,
    n_test: int = 4_000,
    n_val: int = 1_000,
) -> Task:
    """Concentric shells of a Gaussian: classes are the quantiles of abs(x)^2, in equal shares."""
    arguments = {
        "n_train": n_train, "input_dim": input_dim, "n_classes": n_classes,
        "n_test": n_test, "n_val": n_val,
    }  # fmt: skip

    def draw(rng: np.random.Generator, n: int) -> tuple[Array, Labels]:
        x = rng.standard_normal((n, input_dim), dtype=np.float32)
        edges = chdtri(input_dim, 1 - np.arange(1, n_classes) / n_classes)
        return x, np.searchsorted(edges, np.square(x, dtype=np.float64).sum(1)).astype(np.int64)

    return generated("quantiles", arguments, seed, draw)


def hastie(seed: int, *, n_train: int = 1_000, n_test: int = 4_000, n_val: int = 1_000) -> Task:
    """Y = 1 where the sum of squares of the first 10 of 30 Gaussians is above its median.

    Source: Hastie, Tibshirani, Friedman, "The Elements of Statistical Learning", equation 10.2; the
    other 20 inputs, which mean nothing, are ours.
    """
    arguments = {"n_train": n_train, "n_test": n_test, "n_val": n_val}

    def draw(rng: np.random.Generator, n: int) -> tuple[Array, Labels]:
        x = rng.standard_normal((n, HASTIE_DIM + HASTIE_NOISE), dtype=np.float32)
        squares = np.square(x[:, :HASTIE_DIM], dtype=np.float64).sum(1)
        return x, (squares > chdtri(HASTIE_DIM, 0.5)).astype(np.int64)

    return generated("hastie", arguments, seed, draw, input_dim=HASTIE_DIM + HASTIE_NOISE)


def waveform(seed: int, *, n_train: int = 300, n_test: int = 4_000, n_val: int = 1_000) -> Task:
    """Three classes of 21 values: random mixtures of two of three triangular waves, and noise.

    Standardised by the mean and deviation of the law itself.

    Source: Breiman, Friedman, Olshen, Stone, "Classification and Regression Trees", section 2.6.2.
    """
    arguments = {"n_train": n_train, "n_test": n_test, "n_val": n_val}
    place = np.arange(1, 22)
    waves = np.stack([np.maximum(6 - np.abs(place - middle), 0.0) for middle in (11, 15, 7)])
    first, second = waves[[0, 0, 1]], waves[[1, 2, 2]]
    mean = waves.mean(0)
    # u^2 and (1 - u)^2 are 1/3 on average, and u (1 - u) is 1/6; the noise has variance 1.
    square = 1 + ((first**2 + second**2 + first * second) / 3).mean(0)
    deviation = np.sqrt(square - mean**2)

    def draw(rng: np.random.Generator, n: int) -> tuple[Array, Labels]:
        y = rng.permutation(np.arange(n) % 3).astype(np.int64)
        share = rng.random((n, 1))
        x = share * first[y] + (1 - share) * second[y] + rng.standard_normal((n, len(place)))
        return _single((x - mean) / deviation), y

    return generated("waveform", arguments, seed, draw, input_dim=len(place), n_classes=3)


def xor_mixture(
    seed: int,
    *,
    n_train: int = 400,
    input_dim: int = 30,
    noise: float = 0.5,
    n_test: int = 4_000,
    n_val: int = 1_000,
) -> Task:
    """Four Gaussian clusters at the corners of a square, opposite ones of one class.

    ``noise`` is the deviation around the corners (±1, ±1) in the first two coordinates, which are
    then divided by the root of 1 + noise^2. The other coordinates are standard normal.
    Bayes error 2p(1 - p) with p = Phi(-1/noise).
    """
    arguments = {
        "n_train": n_train, "input_dim": input_dim, "noise": noise,
        "n_test": n_test, "n_val": n_val,
    }  # fmt: skip
    _check("xor_mixture", "input_dim", input_dim, 2, 100_000)
    _check("xor_mixture", "noise", noise, 0.01, 100)

    def draw(rng: np.random.Generator, n: int) -> tuple[Array, Labels]:
        corner = rng.permutation(np.arange(n) % 4)
        signs = 2 * np.stack([corner // 2, corner % 2], axis=1) - 1
        x = rng.standard_normal((n, input_dim))
        x[:, :2] = (signs + noise * x[:, :2]) / (1 + noise**2) ** 0.5
        return _single(x), (signs.prod(1) < 0).astype(np.int64)

    return generated("xor_mixture", arguments, seed, draw)


def spirals(
    seed: int,
    *,
    n_train: int = 400,
    input_dim: int = 10,
    turns: float = 1.5,
    noise: float = 0.06,
    n_test: int = 4_000,
    n_val: int = 1_000,
) -> Task:
    """Two spirals in a fixed plane of ``input_dim`` dimensions, one per class, and noise.

    The radius grows evenly from 0.1 to 1 over ``turns`` turns. ``noise`` is the deviation of the
    noise in every dimension, in the same unit. Then all is scaled to unit variance on average.
    """
    arguments = {
        "n_train": n_train, "input_dim": input_dim, "turns": turns, "noise": noise,
        "n_test": n_test, "n_val": n_val,
    }  # fmt: skip
    _check("spirals", "input_dim", input_dim, 2, 10_000)
    _check("spirals", "turns", turns, 0.1, 10)
    _check("spirals", "noise", noise, 0, 10)
    plane = np.linalg.qr(_fixed("spirals").standard_normal((input_dim, 2)))[0]
    variance = (1 - 0.1**3) / (3 * 0.9) / input_dim + noise**2

    def draw(rng: np.random.Generator, n: int) -> tuple[Array, Labels]:
        y = rng.permutation(np.arange(n) % 2).astype(np.int64)
        radius = 0.1 + 0.9 * rng.random(n)
        angle = 2 * np.pi * turns * radius + np.pi * y
        x = noise * rng.standard_normal((n, input_dim))
        # No matrix product: machines round these in different ways.
        for axis, turned in zip(plane.T, (np.cos(angle), np.sin(angle)), strict=True):
            x += (radius * turned)[:, None] * axis
        return _single(x / variance**0.5), y

    return generated("spirals", arguments, seed, draw)


def piecewise(
    seed: int,
    *,
    n_train: int = 600,
    input_dim: int = 12,
    n_classes: int = 6,
    n_test: int = 4_000,
    n_val: int = 1_000,
) -> Task:
    """Class = the cell of a fixed partition into convex cells, four to each class.

    A point belongs to the nearest of fixed Gaussian prototypes, each distance^2 shifted by an offset
    of the prototype's so that all cells are about equally frequent.
    """
    arguments = {
        "n_train": n_train, "input_dim": input_dim, "n_classes": n_classes,
        "n_test": n_test, "n_val": n_val,
    }  # fmt: skip
    _check("piecewise", "n_classes", n_classes, 2, 50)
    _check("piecewise", "input_dim", input_dim, 1, 1_000)

    def draw(rng: np.random.Generator, n: int) -> tuple[Array, Labels]:
        x = rng.standard_normal((n, input_dim), dtype=np.float32)
        prototypes, offsets = _prototypes(input_dim, n_classes * CELLS_PER_CLASS)
        return x, _largest(x @ prototypes, offsets) % n_classes

    return generated("piecewise", arguments, seed, draw)


@lru_cache(maxsize=16)
def _prototypes(input_dim: int, cells: int) -> tuple[Doubles, Doubles]:
    rng = _fixed("piecewise")
    prototypes = rng.standard_normal((cells, input_dim)).T
    x = rng.standard_normal((BALANCING_POINTS, input_dim))
    return prototypes, _even_offsets(x @ prototypes)


# --- what they share --------------------------------------------------------------------------


def _fixed(name: str) -> np.random.Generator:
    """What the fixed parameters of a problem are drawn from: the same for every data seed."""
    return np.random.default_rng([SPLIT_SEED, *name.encode()])


def _check(name: str, key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InputError(
            f"Task {name!r}: {key} = {value} is out of range.", f"Choose {low:g} .. {high:g}."
        )


def _single(x: Doubles) -> Array:
    return x.astype(np.float32)


def _largest(scores: Doubles, offsets: Doubles) -> Labels:
    largest: Labels = (scores + offsets).argmax(1).astype(np.int64)
    return largest


def _even_offsets(scores: Doubles) -> Doubles:
    """Offsets of the columns with which each is the largest about equally often.

    Those of too frequent columns are lowered and those of too rare ones raised, by smaller and
    smaller steps. Rounded, so that the last bits of a machine's products are lost.
    """
    num = scores.shape[1]
    offsets: Doubles = -scores.mean(0)
    for step in range(BALANCING_STEPS):
        shares = np.bincount(_largest(scores, offsets), minlength=num) / len(scores)
        offsets += scores.std() * (1 - num * shares) * 0.3 / (1 + step / 30)
    rounded: Doubles = (offsets - offsets.mean()).round(3)
    return rounded
