import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from fls_bench.metrics import probes
from fls_bench.metrics.probes import PROBE_STRENGTHS, Split, prepared

SIZES = (40, 30, 60)


def splits(seed=0, d=5, noise=1.5, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(3, d))
    result = []
    for n in SIZES:
        y = np.arange(n) % 3
        x = centers[y] + noise * rng.normal(size=(n, d))
        result.append(Split(torch.from_numpy(x).to(dtype), torch.from_numpy(y)))
    return result


def linear_probe(*parts, **options):
    return probes.linear_probe(prepared(*parts), **options)


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


def test_separable_labels_are_read_and_random_ones_are_not():
    assert float(linear_probe(*splits(noise=0.01)).score) == 1
    # Chance is 1/3; 60 points leave [0.13, 0.58] with probability below 1e-4.
    assert 0.13 < float(linear_probe(*splits(noise=1e6)).score) < 0.58


@settings(deadline=None, max_examples=8)
@given(st.permutations(range(5)), st.lists(st.floats(1e-3, 1e3), min_size=5, max_size=5))
def test_order_and_scale_of_features_do_not_matter(order, scales):
    parts = splits()
    expected = float(linear_probe(*parts).score)
    moved = linear_probe(*changed(parts, lambda x: (x * torch.tensor(scales))[:, order]))
    assert float(moved.score) == expected


def test_a_dead_feature_does_not_matter():
    parts = splits(dtype=torch.float32)
    more = changed(parts, lambda x: torch.cat([x, torch.zeros(len(x), 1)], dim=1))
    assert float(linear_probe(*more).score) == float(linear_probe(*parts).score)


def test_problems_are_named_and_give_no_number():
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
        probe = linear_probe(*parts)
        assert probe.score.isnan()
        assert probe.strength is None
        assert fragment in (probe.problem or "")


def test_a_fit_that_does_not_converge_gives_no_number():
    probe = linear_probe(*splits(), max_iterations=2)
    assert probe.score.isnan()
    assert "did not converge in 2 iterations" in (probe.problem or "")
