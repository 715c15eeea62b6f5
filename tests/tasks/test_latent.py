"""Images of the frozen generator: what is frozen, what a seed draws, and their dimension."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import torch

from fls_bench.errors import InputError
from fls_bench.facts import intrinsic_dimension
from fls_bench.tasks import SPLIT_SEED, Task, latent_images, load_task, make_task, task_source
from fls_bench.tasks.latent import convolved, draw_latents, frozen_generator

SMALL = {"n_train": 60, "n_val": 40, "n_test": 50}


def parts(task: Task) -> list[tuple[Any, Any]]:
    return [(task.x_train, task.y_train), (task.x_val, task.y_val), (task.x_test, task.y_test)]


def made_by_hand(seed: int, latent_dim: int) -> list[tuple[Any, Any]]:
    """The parts of ``SMALL``: all 128 latents drawn, the last ones set to zero, then standardised."""
    rng = np.random.default_rng([SPLIT_SEED, seed])
    images, labels = [], []
    for n in SMALL.values():
        z, y = draw_latents(rng, n, 128, 10)
        z[:, latent_dim:] = 0
        images.append(frozen_generator(16, 10).images(z, y).astype(np.float64))
        labels.append(y)
    pool = np.concatenate(images[:2])
    mean, std = (f(pool, axis=(0, 2, 3), keepdims=True) for f in (np.mean, np.std))
    return [((x - mean) / std, y) for x, y in zip(images, labels, strict=True)]


@pytest.mark.parametrize("latent_dim", [1, 32, 64, 128])
def test_one_seed_has_the_same_first_latents_and_classes_at_every_latent_dim(
    latent_dim: int,
) -> None:
    task = latent_images(3, latent_dim=latent_dim, **SMALL)
    for (x, y), (by_hand, labels) in zip(parts(task), made_by_hand(3, latent_dim), strict=True):
        np.testing.assert_array_equal(y, labels)
        np.testing.assert_allclose(x, by_hand, atol=1e-5)


def test_the_images_are_the_same_on_every_machine() -> None:
    frozen_generator.cache_clear()
    z, y = draw_latents(np.random.default_rng(0), 200, 128, 10)
    digest = hashlib.sha256(frozen_generator(16, 10).images(z, y).tobytes()).hexdigest()
    assert digest == "dbd74cba1f722fef88603b84f9d3fe08a3661681618851ec0723df1ec73b46c9"


def test_seeds_draw_other_images_and_all_parts_are_new() -> None:
    tasks = [latent_images(seed, **SMALL) for seed in (0, 1)]
    rows = [row.tobytes() for task in tasks for x, _ in parts(task) for row in x]
    assert len(set(rows)) == len(rows) == 300
    assert not tasks[0].fixed_test
    again = latent_images(0, **SMALL)
    assert again.fingerprint == tasks[0].fingerprint != tasks[1].fingerprint
    assert again.spec is not None
    assert load_task(again.spec).fingerprint == again.fingerprint


def test_a_class_is_the_same_however_many_there_are_and_its_own() -> None:
    z, y = draw_latents(np.random.default_rng(0), 40, 32, 3)
    few = frozen_generator(16, 3).images(z, y)
    np.testing.assert_array_equal(few, frozen_generator(16, 10).images(z, y))
    assert (few != frozen_generator(16, 3).images(z, (y + 1) % 3)).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("n_classes", [2, 10])
@pytest.mark.parametrize("size", [8, 16, 32])
def test_classes_have_equal_shares_and_images_are_standardised(size: int, n_classes: int) -> None:
    task = latent_images(5, size=size, n_classes=n_classes, **SMALL)
    for (x, y), n in zip(parts(task), SMALL.values(), strict=True):
        assert x.shape == (n, 3, size, size)
        assert np.ptp(np.bincount(y, minlength=n_classes)) <= 1
        assert (np.diff(y) < 0).any()
    seen = np.concatenate([task.x_train, task.x_val])
    np.testing.assert_allclose(seen.mean((0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(seen.std((0, 2, 3)), 1, atol=1e-4)


def test_the_convolution_is_torchs() -> None:
    rng = np.random.default_rng(0)
    maps, kernel = rng.standard_normal((3, 5, 6, 4)), rng.standard_normal((3, 3, 4, 2))
    expected = torch.conv2d(
        torch.from_numpy(maps).permute(0, 3, 1, 2), torch.from_numpy(kernel).permute(3, 2, 0, 1),
        padding=1,
    )  # fmt: skip
    np.testing.assert_allclose(convolved(maps, kernel), expected.permute(0, 2, 3, 1), atol=1e-12)


def test_the_measured_dimension_rises_with_the_latents_and_is_their_number_if_small() -> None:
    def draw(latent_dim: int) -> Task:
        return latent_images(0, latent_dim=latent_dim, n_classes=2, n_val=200, n_test=400)

    found = {d: intrinsic_dimension(draw(d)).within for d in (2, 8, 32, 128)}
    assert {one.n for one in found.values()} == {500}
    for estimates in (
        [one.two_nn or 0.0 for one in found.values()],
        [one.mle or 0.0 for one in found.values()],
    ):
        assert estimates[:2] == pytest.approx([2, 8], rel=0.15)
        assert estimates[1] < 16 < estimates[2] < 30 < estimates[3] < 128


def test_more_latents_are_harder() -> None:
    def error(latent_dim: int) -> float:
        task = latent_images(0, latent_dim=latent_dim)
        means = np.array([task.x_train[task.y_train == k].mean(0) for k in range(10)])
        distances = [np.square(task.x_test - mean).sum((1, 2, 3)) for mean in means]
        return float(np.mean(np.argmin(distances, axis=0) != task.y_test))

    errors = [error(d) for d in (8, 32, 128)]
    assert errors[0] < 0.1 < errors[1] < errors[2] < 0.7


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"latent_dim": 0}, "latent_dim = 0 is out of range"),
        ({"latent_dim": 129}, "latent_dim = 129 is out of range"),
        ({"latent_dim": 8.0}, "is not an int"),
        ({"size": 28}, "size = 28 is not offered"),
        ({"size": 64}, "size = 64 is not offered"),
        ({"n_classes": 1}, "n_classes = 1 is out of range"),
        ({"n_train": 9}, "n_train = 9 is out of range"),
        ({"n_test": 300_000}, "the limit is"),
        ({"width": 3}, "has no argument 'width'"),
    ],
)
def test_what_can_not_be_drawn_is_refused(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        task_source("latent_images", arguments)(0)
    assert "\n" not in str(caught.value)


def test_a_seed_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match="seed"):
        latent_images(-1, **SMALL)


# --- the dimension of any task --------------------------------------------------------------


def curved(d: int, n: int, seed: int) -> Any:
    """A d-dimensional cube, bent into 30 dimensions, apart from those of other seeds."""
    rng = np.random.default_rng([d, seed])
    return np.sin(rng.random((n, d)) @ rng.standard_normal((d, 30))) + 4 * seed


def of_classes(*classes: Any) -> Task:
    x = np.concatenate(classes)
    y = np.repeat(np.arange(len(classes)), [len(one) for one in classes])
    return make_task("t", (x, y), (x[:10], y[:10]), (x[:10], y[:10]))  # which count once


def test_within_is_the_median_over_classes_and_pooled_is_of_all() -> None:
    classes = [curved(2, 400, 0), curved(4, 400, 1), curved(4, 400, 2)]
    found = intrinsic_dimension(of_classes(*classes))
    assert (found.within.n, found.pooled.n) == (400, 1200)
    assert found.within.two_nn == pytest.approx(4, rel=0.15)
    assert found.within.mle == pytest.approx(4, rel=0.15)
    # Neighbours are of the same class here: two thirds of all points lie on four dimensions.
    assert found.pooled.mle == pytest.approx(1 / (2 / 3 / 4 + 1 / 3 / 2), rel=0.15)


def test_points_limit_what_is_drawn_and_the_seed_draws_it() -> None:
    task = of_classes(*(curved(2, 500, seed) for seed in range(4)))
    first, again, other = (intrinsic_dimension(task, points=200, seed=seed) for seed in (0, 0, 1))
    assert (first.within.n, first.pooled.n) == (100, 200)
    assert first == again != other


def test_inputs_that_occur_twice_count_once() -> None:
    points = curved(2, 300, 0), curved(2, 300, 1)
    once, twice = of_classes(*points), of_classes(*(np.repeat(one, 2, axis=0) for one in points))
    assert intrinsic_dimension(once) == intrinsic_dimension(twice)


def test_what_can_not_be_estimated_is_none() -> None:
    few = intrinsic_dimension(of_classes(curved(2, 10, 0), curved(2, 10, 1)))
    assert (few.within.two_nn, few.within.mle, few.within.n) == (None, None, 10)
    assert few.pooled.mle is not None
    # On a grid the two nearest neighbours are equally far; ten of them still tell two dimensions.
    grid = np.stack(np.meshgrid(np.arange(25), np.arange(25)), axis=-1).reshape(-1, 2)
    found = intrinsic_dimension(of_classes(grid, grid + 100)).within
    assert found.two_nn is None
    assert found.mle == pytest.approx(2, rel=0.3)
