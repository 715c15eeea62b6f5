"""Laws whose parameters are fixed, and patches of photographs: what they are, what learns them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2, norm

from fls_bench.errors import InputError
from fls_bench.tasks import Task, load_task, task_source
from fls_bench.tasks.photos import patches

# What an RBF support vector machine may at most err by, given the defaults.
ERRORS = {
    "teacher": 0.45, "single_index": 0.49, "clusters": 0.2, "quantiles": 0.3, "hastie": 0.35,
    "waveform": 0.25, "xor_mixture": 0.42, "spirals": 0.25, "piecewise": 0.5,
}  # fmt: skip
REAL = {"photo_patches": 0.2, "diabetes": 0.35}
SMALL = {"n_train": 60, "n_val": 40, "n_test": 50}


def parts(task: Task) -> list[tuple[Any, Any]]:
    return [(task.x_train, task.y_train), (task.x_val, task.y_val), (task.x_test, task.y_test)]


def rows(task: Task) -> list[bytes]:
    return [row.tobytes() for x, _ in parts(task) for row in x]


@pytest.mark.parametrize("name", [*ERRORS, *REAL])
def test_a_simple_learner_beats_chance_and_errs(name: str) -> None:
    from sklearn.svm import SVC

    task = task_source(name)(1)
    flat = [x.reshape(len(x), -1) for x, _ in parts(task)]
    error = 1 - SVC().fit(flat[0], task.y_train).score(flat[2], task.y_test)
    assert 0.005 < error < (ERRORS | REAL)[name]
    assert error < task.chance_error(balanced=True) - 0.02


@pytest.mark.parametrize("name", ERRORS)
def test_classes_are_about_even_and_inputs_of_about_unit_variance(name: str) -> None:
    task = task_source(name)(0)
    shares = np.bincount(task.y_test, minlength=task.n_classes) / len(task.y_test)
    assert len(shares) == task.n_classes
    # Five standard errors of a share, and what the balancing leaves.
    assert np.abs(shares * task.n_classes - 1).max() < 5 * (task.n_classes / 4000) ** 0.5 + 0.05
    assert task.x_test.shape == (4000, task.input_dim)
    assert task.x_test.dtype == np.float32
    assert float(np.square(task.x_test).mean()) == pytest.approx(1, abs=0.1)
    assert np.abs(task.x_test.mean(0)).max() < 0.25


@pytest.mark.parametrize("name", ERRORS)
def test_every_seed_draws_all_parts_anew_and_once(name: str) -> None:
    first, second = (task_source(name, SMALL)(seed) for seed in (0, 1))
    assert not first.fixed_test
    assert len(set(rows(first) + rows(second))) == 300
    again = task_source(name, SMALL)(0)
    assert again.fingerprint == first.fingerprint != second.fingerprint
    assert again.spec is not None
    assert load_task(again.spec).fingerprint == again.fingerprint


@pytest.mark.parametrize("name", ["teacher", "single_index", "piecewise", "clusters"])
def test_all_seeds_draw_from_one_problem(name: str) -> None:
    """A classifier of one seed's points is as good on another's."""
    from sklearn.neighbors import KNeighborsClassifier

    sizes = {"n_train": 2000, "n_val": 40, "n_test": 1000, "input_dim": 4}
    first, second = (task_source(name, sizes)(seed) for seed in (0, 1))
    learner = KNeighborsClassifier(15).fit(first.x_train, first.y_train)
    own, other = (1 - learner.score(task.x_test, task.y_test) for task in (first, second))
    assert max(own, other) < 0.8 * first.chance_error(balanced=True)
    assert other == pytest.approx(own, abs=0.08)


# --- each law ---------------------------------------------------------------------------------


def test_a_single_index_has_no_linear_part_and_one_direction() -> None:
    task = task_source("single_index", {"n_test": 20_000})(0)
    x, sign = task.x_test.astype(float), 2 * task.y_test - 1
    assert np.abs(sign @ x / len(x)).max() < 5 / len(x) ** 0.5
    values, vectors = np.linalg.eigh((x * sign[:, None]).T @ x / len(x))
    assert values[-1] > 4 * np.abs(values[:-1]).max()
    inside = np.abs(x @ vectors[:, -1]) < norm.ppf(0.75)
    assert np.mean(inside == task.y_test) < 0.06


def test_clusters_have_as_many_centres_as_they_say() -> None:
    arguments = {"n_classes": 3, "per_class": 2, "spread": 0.01, "input_dim": 8}
    task, other = (task_source("clusters", arguments)(seed) for seed in (0, 1))
    centres = np.unique(task.x_test.round(0).astype(int), axis=0)
    near = [np.abs(other.x_test - row).max(1).argmin() for row in task.x_test[:200]]
    assert (np.abs(other.x_test[near] - task.x_test[:200]).max(1) < 0.1).all()
    assert (other.y_test[near] == task.y_test[:200]).all()
    assert len(centres) >= 6


def test_quantiles_are_shells_of_even_shares() -> None:
    task = task_source("quantiles", {"n_classes": 4, "input_dim": 3, "n_test": 2000})(0)
    square = np.square(task.x_test.astype(float)).sum(1)
    expected = np.floor(4 * chi2.cdf(square, 3)).astype(int)
    np.testing.assert_array_equal(task.y_test, expected)


def test_hasties_first_ten_inputs_tell_all() -> None:
    task = task_source("hastie")(0)
    assert task.x_test.shape[1] == 30
    square = np.square(task.x_test[:, :10].astype(float)).sum(1)
    np.testing.assert_array_equal(task.y_test, square > 9.341818)  # median of chi2 with 10


def test_waves_are_breimans_and_standardised_by_their_law() -> None:
    task = task_source("waveform", {"n_test": 60_000})(0)
    np.testing.assert_allclose(task.x_test.mean(0), 0, atol=0.025)
    np.testing.assert_allclose(task.x_test.std(0), 1, atol=0.02)
    # A wave reaches 6 at its middle and 0 six places away, where the noise alone is left.
    means = np.array([task.x_test[task.y_test == k].mean(0) for k in range(3)])
    raw = means * np.sqrt(1 + variance_of_waves()) + WAVES.mean(0)
    expected = np.array([(WAVES[i] + WAVES[j]) / 2 for i, j in ((0, 1), (0, 2), (1, 2))])
    np.testing.assert_allclose(raw, expected, atol=0.06)


WAVES = np.array([[max(6 - abs(i - middle), 0) for i in range(1, 22)] for middle in (11, 15, 7)])


def variance_of_waves() -> Any:
    """By quadrature over the share u of the first wave."""
    shares = (np.arange(2000) + 0.5) / 2000
    pairs = ((0, 1), (0, 2), (1, 2))
    mixed = [u * WAVES[i] + (1 - u) * WAVES[j] for i, j in pairs for u in shares]
    return np.var(mixed, axis=0)


def test_opposite_corners_are_of_one_class_and_the_bayes_error_is_as_said() -> None:
    task = task_source("xor_mixture", {"noise": 0.7, "n_test": 20_000})(0)
    guess = task.x_test[:, 0] * task.x_test[:, 1] < 0
    p = norm.cdf(-1 / 0.7)
    expected = 2 * p * (1 - p)
    assert np.mean(guess != task.y_test) == pytest.approx(expected, abs=0.015)
    np.testing.assert_allclose(task.x_test.std(0), 1, atol=0.04)


def test_spirals_lie_in_a_plane_and_are_half_a_turn_apart() -> None:
    task = task_source("spirals", {"noise": 0.0, "turns": 2.0, "input_dim": 7})(0)
    x = task.x_test.astype(float)
    scale = (np.square(x).sum(1).max()) ** 0.5
    _, singular, axes = np.linalg.svd(x, full_matrices=False)
    assert singular[2] < 1e-5 * singular[1]
    flat = x @ axes[:2].T / scale
    radius = np.linalg.norm(flat, axis=1)
    assert radius.min() == pytest.approx(0.1, abs=0.01)
    # The plane's own axes are known up to a rotation and a reflection.
    angle, errors = np.arctan2(flat[:, 1], flat[:, 0]), []
    for mirror in (1, -1):
        phase = np.exp(1j * (mirror * angle - 4 * np.pi * radius - np.pi * task.y_test))
        errors.append(1 - abs(phase.mean()))
    assert min(errors) < 1e-3


def test_cells_are_whole_pieces() -> None:
    """Where all neighbours are of one class, a point is of that class, and that is in most places."""
    task = task_source("piecewise", {"input_dim": 2, "n_classes": 2, "n_train": 5000})(0)
    from sklearn.neighbors import NearestNeighbors

    near = NearestNeighbors(n_neighbors=6).fit(task.x_train)
    of_one = task.y_train[near.kneighbors(task.x_test, return_distance=False)]
    inner = np.ptp(of_one, axis=1) == 0
    assert inner.mean() > 0.7
    assert np.mean(of_one[inner, 0] == task.y_test[inner]) > 0.98


# --- photographs ------------------------------------------------------------------------------


def test_patches_tile_a_picture() -> None:
    picture = np.arange(7 * 9 * 3).reshape(7, 9, 3).astype(np.uint8)
    cut = patches(picture, 3)
    assert cut.shape == (6, 3, 3, 3)
    np.testing.assert_array_equal(cut[4], picture[3:6, 3:6].transpose(2, 0, 1))


def test_no_pixel_is_in_two_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures whose pixels all differ by their place: left of 427 training, right of it testing."""
    import sklearn.datasets

    from fls_bench.tasks import photos

    place = np.arange(427 * 640).reshape(427, 640)
    picture = np.stack([place >> 16, (place >> 8) & 255, place & 255], axis=2).astype(np.uint8)
    monkeypatch.setattr(sklearn.datasets, "load_sample_image", lambda _: picture)
    photos._official.cache_clear()
    try:
        data = photos._official(8)
    finally:
        monkeypatch.undo()
        photos._official.cache_clear()

    def places(x: Any) -> Any:
        return (x[:, 0].astype(int) << 16) + (x[:, 1].astype(int) << 8) + x[:, 2]

    train, test = places(data.x_train), places(data.x_test)
    for found, columns in ((train, 53), (test, 26)):
        assert len(found) == 2 * 53 * columns
        one = found[: len(found) // 2]
        assert len(np.unique(one)) == one.size  # no two patches share a pixel
    assert (train % 640).max() < 426 <= (test % 640).min()


def test_photo_patches_are_images_with_a_fixed_test_part() -> None:
    first, second = (task_source("photo_patches", {"size": 4, **SMALL})(seed) for seed in (0, 1))
    assert first.x_train.shape == (60, 3, 4, 4)
    assert first.x_test is second.x_test
    assert first.fingerprint != second.fingerprint
    assert first.fingerprint == task_source("photo_patches", {"size": 4, **SMALL})(0).fingerprint
    assert first.spec is not None
    assert load_task(first.spec).fingerprint == first.fingerprint
    whole = task_source("photo_patches", {"n_train": 5000, "n_val": 500})(0)
    seen = np.concatenate([whole.x_train, whole.x_val])
    np.testing.assert_allclose(seen.mean((0, 2, 3)), 0, atol=0.05)
    np.testing.assert_allclose(seen.std((0, 2, 3)), 1, atol=0.05)


def test_the_class_of_diabetes_is_one_half() -> None:
    task = task_source("diabetes")(0)
    labels = np.concatenate([y for _, y in parts(task)])
    assert np.bincount(labels).tolist() == [221, 221]


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("teacher", {"width": 0}, "width = 0 is out of range"),
        ("teacher", {"n_classes": 51}, "n_classes = 51 is out of range"),
        ("teacher", {"input_dim": 5000}, "input_dim = 5000 is out of range"),
        ("single_index", {"input_dim": 0}, "input_dim = 0 is out of range"),
        ("clusters", {"spread": 0.0}, r"spread = 0.0 is out of range"),
        ("clusters", {"spread": float("nan")}, "spread = nan is out of range"),
        ("clusters", {"per_class": 0}, "per_class = 0 is out of range"),
        ("quantiles", {"n_classes": 1}, "n_classes = 1 is out of range"),
        ("hastie", {"input_dim": 10}, "has no argument 'input_dim'"),
        ("waveform", {"n_train": 5}, "n_train = 5 is out of range"),
        ("xor_mixture", {"input_dim": 1}, "input_dim = 1 is out of range"),
        ("xor_mixture", {"noise": -1.0}, "noise = -1.0 is out of range"),
        ("spirals", {"turns": 11.0}, "turns = 11.0 is out of range"),
        ("spirals", {"input_dim": 1}, "input_dim = 1 is out of range"),
        ("piecewise", {"n_classes": 1}, "n_classes = 1 is out of range"),
        ("photo_patches", {"size": 3}, "size = 3 is out of range"),
        ("photo_patches", {"size": 16}, "can't give n_test = 2000"),
        ("diabetes", {"n_train": 300}, "can't give 300"),
        ("teacher", {"n_test": 10**6, "input_dim": 1000}, "the limit is"),
    ],
)
def test_what_can_not_be_drawn_is_refused(
    name: str, arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        task_source(name, arguments)(0)
    assert "\n" not in str(caught.value)
