import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from profiles import FEW
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score

from fls_bench.metrics import probes
from fls_bench.metrics.probes import (
    MAX_WIDTH,
    NEIGHBOURS,
    PROBE_STRENGTHS,
    RIDGE,
    RIDGES,
    Split,
    few_shot_probe,
    input_components,
    neighbour_probe,
    prepared,
    recovery_probe,
)

SIZES = (40, 30, 60)


def splits(seed=0, d=5, noise=1.5, dtype=torch.float64, classes=3, sizes=SIZES):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(classes, d))
    result = []
    for n in sizes:
        y = np.arange(n) % classes
        x = centers[y] + noise * rng.normal(size=(n, d))
        result.append(Split(torch.from_numpy(x).to(dtype), torch.from_numpy(y)))
    return result


def linear_probe(*parts, **options):
    return probes.linear_probe(prepared(*parts), **options)


def ridge_probe(*parts, **options):
    return probes.ridge_probe(prepared(*parts), **options)


def changed(parts, change):
    return [Split(change(part.features), part.labels) for part in parts]


@pytest.mark.parametrize("seed", range(4))
def test_against_a_search_written_out(seed):
    train, validation, test = splits(seed)
    mean, std = train.features.mean(0), train.features.std(0, correction=0)
    x_train, x_val, x_test = (
        ((part.features - mean) / std).numpy() for part in (train, validation, test)
    )
    fits = [
        LogisticRegression(C=c, max_iter=1000).fit(x_train, train.labels.numpy())
        for c in PROBE_STRENGTHS
    ]
    scores = [fit.score(x_val, validation.labels.numpy()) for fit in fits]
    best = scores.index(max(scores))
    probe = linear_probe(train, validation, test)
    assert probe.problem is None
    assert probe.strength == PROBE_STRENGTHS[best]
    expected = fits[best].score(x_test, test.labels.numpy())
    assert float(probe.score) == pytest.approx(expected, abs=1e-12)


def test_the_test_split_chooses_nothing():
    train, validation, test = splits()
    wrong = Split(test.features, (test.labels + 1) % 3)
    chosen = linear_probe(train, validation, test).strength
    assert linear_probe(train, validation, wrong).strength == chosen


@pytest.mark.parametrize("probe", [linear_probe, ridge_probe])
def test_separable_labels_are_read_and_random_ones_are_not(probe):
    assert float(probe(*splits(noise=0.01)).score) == 1
    # Chance is 1/3; 60 points leave [0.13, 0.58] with probability below 1e-4.
    assert 0.13 < float(probe(*splits(noise=1e6)).score) < 0.58


@FEW
@given(
    st.permutations(range(5)),
    st.lists(st.floats(1e-3, 1e3), min_size=5, max_size=5),
    st.lists(st.floats(-1e3, 1e3), min_size=5, max_size=5),
)
@pytest.mark.parametrize("probe", [linear_probe, ridge_probe])
def test_order_scale_and_offset_of_features_do_not_matter(probe, order, scales, offsets):
    parts = splits()
    expected = float(probe(*parts).score)
    scales, offsets = (torch.tensor(x, dtype=torch.float64) for x in (scales, offsets))
    moved = probe(*changed(parts, lambda x: (x * scales + scales * offsets)[:, order]))
    assert float(moved.score) == expected


@pytest.mark.parametrize("probe", [linear_probe, ridge_probe])
def test_a_dead_feature_does_not_matter(probe):
    parts = splits(dtype=torch.float32)
    more = changed(parts, lambda x: torch.cat([x, torch.zeros(len(x), 1)], dim=1))
    assert float(probe(*more).score) == float(probe(*parts).score)


@pytest.mark.parametrize("probe", [linear_probe, ridge_probe])
def test_problems_are_named_and_give_no_number(probe):
    train, validation, test = splits()
    one_class = Split(train.features, torch.ones_like(train.labels))
    nan = Split(test.features.clone(), test.labels)
    nan.features[0, 0] = torch.nan
    empty = Split(validation.features[:0], validation.labels[:0])
    constant = changed((train, validation, test), lambda x: torch.full_like(x, 0.3))
    for parts, fragment in (
        ((one_class, validation, test), "only one class"),
        ((train, validation, nan), "features of the test split hold NaN"),
        ((train, empty, test), "validation split has no points"),
        (constant, "do not vary"),
    ):
        found = probe(*parts)
        assert found.score.isnan()
        assert found.strength is None
        assert fragment in (found.problem or "")


def test_a_fit_that_does_not_converge_gives_no_number():
    probe = linear_probe(*splits(), max_iterations=2)
    assert probe.score.isnan()
    assert "did not converge in 2 iterations" in (probe.problem or "")


# --- other probes -------------------------------------------------------------------------------


def standardised(parts):
    mean, std = parts[0].features.mean(0), parts[0].features.std(0, correction=0)
    return [((part.features - mean) / std).numpy() for part in parts]


def ridge_accuracy(parts, penalty):
    """One class at a time: least squares with a row sqrt(penalty) for each weight, none for the bias."""
    x, _, x_test = standardised(parts)
    y, _, y_test = (part.labels.numpy() for part in parts)
    (n, d), scores = x.shape, []
    rows = np.vstack([np.hstack([x, np.ones((n, 1))]), penalty**0.5 * np.eye(d, d + 1)])
    for k in range(y.max() + 1):
        targets = np.concatenate([np.where(y == k, 1.0, -1.0), np.zeros(d)])
        weights = np.linalg.lstsq(rows, targets)[0]
        scores.append(x_test @ weights[:d] + weights[d])
    return (np.argmax(scores, axis=0) == y_test).mean()


# More and fewer points than features, and more features than are kept as they are.
@pytest.mark.parametrize("d", [5, 60, MAX_WIDTH + 20])
@pytest.mark.parametrize("classes", [2, 4])
def test_ridge_by_least_squares(d, classes):
    found = {}
    for seed in range(2):
        parts = splits(seed, d, noise=0.5 * d**0.5, classes=classes, sizes=(41, 20, 1500))
        for ridge in (1e-3, RIDGE, 10.0):
            probe = ridge_probe(*parts, ridge=ridge)
            assert probe.problem is probe.strength is None
            expected = ridge_accuracy(parts, penalty=ridge * 41)
            assert float(probe.score) == pytest.approx(expected, abs=1e-12)
            found[seed, ridge] = expected
        assert float(ridge_probe(*parts).score) == found[seed, RIDGE]
    assert len(set(found.values())) > 4  # the penalty matters


def test_the_ridge_probe_is_blind_to_validation_to_order_and_to_copies_of_the_points():
    # Many features, so that the penalty decides; many test points, so that it shows.
    train, validation, test = splits(d=60, noise=4.0, sizes=(41, 20, 1500))
    expected = ridge_probe(train, validation, test)
    other = Split(-validation.features, (validation.labels + 1) % 3)
    assert ridge_probe(train, other, test) == expected
    order = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(1))
    for rows in (order, order.repeat(3)):
        moved = Split(train.features[rows], train.labels[rows])
        assert ridge_probe(moved, validation, test) == expected
    names = torch.tensor([5, 0, 2])
    renamed = [Split(part.features, names[part.labels]) for part in (train, validation, test)]
    assert ridge_probe(*renamed) == expected


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_by_sorting_all_distances(seed):
    parts = splits(seed)
    x = standardised(parts)
    y = [part.labels.numpy() for part in parts]

    def accuracy(k, split):
        hits = 0
        for point, label in zip(x[split], y[split], strict=True):
            near = y[0][np.argsort(((x[0] - point) ** 2).sum(1))[:k]]
            hits += np.bincount(near).argmax() == label
        return hits / len(y[split])

    best = max(NEIGHBOURS, key=lambda k: accuracy(k, 1))
    probe = neighbour_probe(prepared(*parts))
    assert probe.strength == best
    assert float(probe.score) == pytest.approx(accuracy(best, 2))


def test_few_points_have_fewer_neighbours():
    train, validation, test = splits()
    few = Split(train.features[:6], train.labels[:6])
    assert neighbour_probe(prepared(few, validation, test)).strength in (5, 1)
    fewer = Split(train.features[:4], train.labels[:4])
    assert neighbour_probe(prepared(fewer, validation, test)).strength == 1


def test_few_shots_written_out():
    parts = splits(2, noise=2.0)
    x, y = standardised(parts), [part.labels.numpy() for part in parts]
    generator, accuracies = torch.Generator().manual_seed(3), []
    for _ in range(4):
        order = torch.randperm(len(y[0]), generator=generator).numpy()
        means = np.stack([x[0][[i for i in order if y[0][i] == k][:5]].mean(0) for k in range(3)])
        nearest = ((x[2][:, None] - means) ** 2).sum(2).argmin(1)
        accuracies.append((nearest == y[2]).mean())
    probe = few_shot_probe(prepared(*parts), torch.Generator().manual_seed(3), draws=4)
    assert float(probe.score) == pytest.approx(np.mean(accuracies))


def test_few_shots_need_their_points():
    parts = splits()
    probe = few_shot_probe(prepared(*parts), torch.Generator(), shots=15)
    assert "13 training points; 15" in (probe.problem or "")
    assert probe.score.isnan()


def test_recovery_against_sklearn():
    parts = splits(d=12)
    inputs = [torch.randn(len(p.labels), 20, generator=torch.Generator().manual_seed(9)).double()
              @ torch.diag(torch.arange(20, 0, -1).double()) for p in parts]  # fmt: skip
    inputs = [x[:, :20] + 5 * p.features[:, :1] for x, p in zip(inputs, parts, strict=True)]
    pca = PCA(4, whiten=True, svd_solver="full").fit(inputs[0].numpy())
    targets = [pca.transform(x.numpy()) for x in inputs]
    x = standardised(parts)
    fits = [Ridge(alpha=ridge).fit(x[0], targets[0]) for ridge in RIDGES]
    best = max(range(len(RIDGES)), key=lambda i: r2_score(targets[1], fits[i].predict(x[1])))
    probe = recovery_probe(prepared(*parts), input_components(inputs, components=4))
    assert probe.strength == RIDGES[best]
    expected = r2_score(targets[2], fits[best].predict(x[2]))
    assert float(probe.score) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("d", [6, 100])
def test_components_are_those_of_the_training_inputs(d):
    parts = splits(d=d)
    inputs = [part.features for part in parts]
    pca = PCA(4, svd_solver="full").fit(inputs[0].numpy())
    for found, x in zip(input_components(inputs, components=4), inputs, strict=True):
        theirs = pca.transform(x.numpy()) / np.std(pca.transform(inputs[0].numpy()), axis=0)
        np.testing.assert_allclose(np.abs(found.numpy())[:, ::-1], np.abs(theirs), atol=1e-8)


def test_what_features_keep_is_recovered_and_what_they_drop_is_not():
    parts = splits(d=6)
    inputs = [part.features for part in parts]
    components = input_components(inputs, components=6)
    assert float(recovery_probe(prepared(*parts), components).score) > 0.99
    noise = changed(
        parts, lambda x: torch.randn(x.shape, generator=torch.Generator().manual_seed(7))
    )
    assert float(recovery_probe(prepared(*noise), components).score) < 0.1


def test_inputs_that_do_not_vary_have_no_components():
    flat = [torch.ones(5, 3), torch.ones(4, 3), torch.ones(4, 3)]
    assert "do not vary" in input_components(flat)
    assert "does not vary over" in input_components([torch.eye(5), torch.ones(4, 5), torch.eye(5)])


def test_wide_features_are_reduced_and_still_read():
    wide = changed(splits(d=5, noise=0.2), lambda x: x.repeat(1, 80) * torch.arange(1, 401))
    data = prepared(*wide)
    assert data.x[0].shape == (40, 40)
    many = [Split(p.features.repeat(8, 1), p.labels.repeat(8)) for p in wide]
    assert prepared(*many).x[0].shape == (320, MAX_WIDTH)
    assert float(probes.linear_probe(data).score) == 1
    assert float(neighbour_probe(data).score) == 1


def test_of_equally_good_numbers_of_neighbours_the_largest_is_chosen():
    assert neighbour_probe(prepared(*splits(noise=0.01))).strength == 15


def test_a_class_with_a_single_training_point_has_too_few_shots():
    train, validation, test = splits()
    rare = train.labels.clone()
    rare[rare == 2] = 0
    rare[0] = 2
    parts = prepared(Split(train.features, rare), validation, test)
    assert "A class has 1 training points; 5" in few_shot_probe(parts, torch.Generator()).problem


def test_inputs_have_no_more_components_than_their_rank():
    generator = torch.Generator().manual_seed(1)
    spread = torch.randn(5, 30, generator=generator, dtype=torch.float64)
    flat = [part.features @ spread for part in splits(d=5)]
    found = input_components(flat)
    assert [part.shape for part in found] == [(n, 5) for n in SIZES]
    assert found[0].square().mean(0).tolist() == pytest.approx([1] * 5)
    narrow = [part[:, :3] for part in flat]
    assert input_components(narrow)[0].shape == (SIZES[0], 3)
