"""Images of a frozen random generator of which only so many latents vary."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fls_bench.errors import InputError
from fls_bench.schema import TaskSpec
from fls_bench.tasks.drawing import SPLIT_SEED, checked_seed
from fls_bench.tasks.generated import checked_sizes
from fls_bench.tasks.task import Array, Labels, Task, joined

Doubles = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.int16]

LATENTS = 128
"""Latents of the generator, as many as BigGAN has at 128 x 128."""

GRID = 4
"""Height and width of the first map."""

WIDTHS = (32, 16, 8)
"""Channels of the maps of 4 x 4, 8 x 8 and 16 x 16 cells; the image has 3."""

SIZES = tuple(GRID * 2 ** (k + 1) for k in range(len(WIDTHS)))

CLASS_SHIFT, CLASS_GAIN = 0.25, 0.4
"""How far the channels' shifts and gains of one class lie from another's, calibrated (see
``latent_images``)."""

SLOPE = 0.2
"""Of the leaky ReLU below 0, so that no latent is lost where a cell is negative."""

LEVELS = 8192
"""Black is -8192 and white 8192: so fine that rounding adds no dimension to be measured."""

PIECE = 64
"""Images made at a time: their maps stay in the cache of a core."""


def latent_images(
    seed: int,
    *,
    latent_dim: int = 32,
    n_classes: int = 10,
    size: int = 16,
    n_train: int = 400,
    n_val: int = 500,
    n_test: int = 1000,
) -> Task:
    """Images 3 x size x size of a frozen random generator; ``latent_dim`` of 128 latents vary.

    A stand-in, with nothing to download, for the BigGAN images of YHL (arXiv:2602.00827). That the
    images of a generator with k active latents have an intrinsic dimension of at most k follows
    Pope et al., arXiv:2104.08894; what results is measured by ``facts.intrinsic_dimension``.

    z ~ N(0, I) with all but the first ``latent_dim`` latents set to zero. A linear map to 4 x 4 x 32;
    then gains and shifts of the class, leaky ReLU, doubling of height and width and a 3x3
    convolution, until the image has its size; tanh. As in BigGAN the class enters by the
    channels' gains and shifts alone, so that within a class exactly the latents vary, and the class
    can be told from every image in principle. Weights and classes are drawn once: they are the same
    for every seed, latent_dim and n_classes, and draws of one seed differ in the active latents
    alone. Latents are not rescaled, so that with their number the spread within a class grows too.

    The difficulty was set by two constants, the spread of the classes' shifts (0.25) and of their
    gains (0.4): of the pairs tried, between 0 and 1 each, the one with which ``cnn`` of width 8 (SGD,
    rate 0.1, batches of 25, to a training loss of 0.1, c = 1, 400 training images, two seeds) errs on
    7, 14, 32, 36 and 48 % of test images at latent_dim = 8, 16, 32, 64 and 128. Nothing but errors at
    c = 1 was looked at.

    Args:
        seed: Of the draw: all three parts are new for every seed.
        latent_dim: Active latents, 1 .. 128.
        n_classes: Classes, in equal shares.
        size: Height and width, 8, 16 or 32.
        n_train: Training images.
        n_val: Validation images.
        n_test: Test images.

    Returns:
        The task, standardised by channel over training and validation images.

    Raises:
        InputError: An argument is out of range.
    """
    arguments = {
        "latent_dim": latent_dim, "n_classes": n_classes, "size": size,
        "n_train": n_train, "n_val": n_val, "n_test": n_test,
    }  # fmt: skip
    if not 1 <= latent_dim <= LATENTS:
        raise InputError(
            f"Task 'latent_images': latent_dim = {latent_dim} is out of range.",
            f"Choose 1 .. {LATENTS}.",
        )
    if size not in SIZES:
        raise InputError(
            f"Task 'latent_images': size = {size} is not offered.",
            f"Choose {', '.join(map(str, SIZES[:-1]))} or {SIZES[-1]}.",
        )
    sizes = checked_sizes("latent_images", arguments, 3 * size**2)
    return _drawn(checked_seed(seed), latent_dim, n_classes, size, tuple(sizes))


@lru_cache(maxsize=8)
def _drawn(seed: int, latent_dim: int, n_classes: int, size: int, sizes: tuple[int, ...]) -> Task:
    """The last few draws are kept: nets that are trained one by one ask for them again and again."""
    n_train, n_val, n_test = sizes
    arguments = {
        "latent_dim": latent_dim, "n_classes": n_classes, "size": size,
        "n_train": n_train, "n_val": n_val, "n_test": n_test,
    }  # fmt: skip
    generator = frozen_generator(size, n_classes)
    rng = np.random.default_rng([SPLIT_SEED, seed])
    parts = [draw_latents(rng, n, latent_dim, n_classes) for n in sizes]
    images, labels = [generator.images(z, y) for z, y in parts], [y for _, y in parts]
    train, val, test = standardised(images)
    return joined(
        Task(
            "latent_images", n_classes, train, labels[0], val, labels[1], test, labels[2],
            TaskSpec(name="latent_images", arguments=arguments, seed=seed), fixed_test=False,
        )
    )  # fmt: skip


def draw_latents(
    rng: np.random.Generator, n: int, latent_dim: int, n_classes: int
) -> tuple[Doubles, Labels]:
    """Draw latents [n, 128], of which the first ``latent_dim`` are not zero, and classes [n].

    All 128 are drawn, so that one seed has the same first latents at every ``latent_dim``.
    """
    y = rng.permutation(np.arange(n) % n_classes).astype(np.int64)
    z = rng.standard_normal((n, LATENTS))
    z[:, latent_dim:] = 0
    return z, y


def standardised(images: list[Pixels]) -> list[Array]:
    """Each channel with mean 0 and deviation 1 over all parts but the last, which is for testing."""
    pool = np.concatenate(images[:-1]).astype(np.float64)
    # Sums of whole numbers are exact, in whatever order a machine takes them.
    mean, square = (np.mean(values, (0, 2, 3)) for values in (pool, pool**2))
    scale = np.sqrt(square - mean**2)
    return [((x - mean[:, None, None]) / scale[:, None, None]).astype(np.float32) for x in images]


@dataclass(frozen=True, eq=False)
class Generator:
    """Frozen weights.

    Attributes:
        linear: [128, 4·4·channels].
        kernels: Of each convolution, [3, 3, channels, channels of the next map].
        gains: Of each class before each convolution, [classes, channels].
        shifts: Likewise.
    """

    linear: Doubles
    kernels: tuple[Doubles, ...]
    gains: tuple[Doubles, ...]
    shifts: tuple[Doubles, ...]

    def images(self, z: Doubles, y: Labels) -> Pixels:
        """Make images.

        Products differ in their last bits from machine to machine; these are lost where pixels are
        rounded, so that images do not differ.

        Args:
            z: Latents, [n, 128].
            y: Classes, [n].

        Returns:
            [n, 3, size, size], -8192 .. 8192.
        """
        starts = range(0, len(z), PIECE)
        pieces = [self._piece(z[k : k + PIECE], y[k : k + PIECE]) for k in starts]
        return np.concatenate(pieces)

    def _piece(self, z: Doubles, y: Labels) -> Pixels:
        maps = (z @ self.linear).reshape(len(z), GRID, GRID, -1)
        for kernel, gain, shift in zip(self.kernels, self.gains, self.shifts, strict=True):
            maps = maps * gain[y][:, None, None] + shift[y][:, None, None]
            maps = np.maximum(maps, SLOPE * maps)
            maps = convolved(maps.repeat(2, axis=1).repeat(2, axis=2), kernel)
        pixels = np.rint(LEVELS * np.tanh(maps)).astype(np.int16)
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


def convolved(maps: Doubles, kernel: Doubles) -> Doubles:
    """Convolve maps [n, height, width, channels] with a kernel [3, 3, channels, out], zeros around.

    One product gives what every cell sends to each of its nine neighbours; then these are summed.
    """
    n, height, width, channels = maps.shape
    out = kernel.shape[3]
    sent = maps.reshape(-1, channels) @ kernel.transpose(2, 0, 1, 3).reshape(channels, 9 * out)
    sent = sent.reshape(n, height, width, 3, 3, out)
    padded = np.zeros((n, height + 2, width + 2, out))
    for i in range(3):
        for j in range(3):
            padded[:, 2 - i : 2 - i + height, 2 - j : 2 - j + width] += sent[:, :, :, i, j]
    return padded[:, 1:-1, 1:-1]


@lru_cache(maxsize=8)
def frozen_generator(size: int, n_classes: int) -> Generator:
    """The generator of images of a size: the same weights at every call."""
    stages = SIZES.index(size) + 1
    widths = WIDTHS[:stages]
    rng = np.random.default_rng([SPLIT_SEED, LATENTS])
    linear = rng.standard_normal((LATENTS, GRID**2 * widths[0])) / LATENTS**0.5
    kernels, gains, shifts = [], [], []
    for stage, (num_in, num_out) in enumerate(zip(widths, (*widths[1:], 3), strict=True)):
        kernels.append(rng.standard_normal((3, 3, num_in, num_out)) * (2 / (9 * num_in)) ** 0.5)
        # Of their own, so that a class is the same however many there are.
        rng_classes = np.random.default_rng([SPLIT_SEED, LATENTS, stage])
        both = rng_classes.standard_normal((n_classes, 2, num_in))
        gains.append(1 + CLASS_GAIN * both[:, 0])
        shifts.append(CLASS_SHIFT * both[:, 1])
    return Generator(linear, tuple(kernels), tuple(gains), tuple(shifts))
