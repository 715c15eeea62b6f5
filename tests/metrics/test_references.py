import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestCentroid

from fls_bench.metrics.probes import Split
from fls_bench.metrics.references import (
    STRENGTHS,
    class_means_reference,
    kernel_references,
    relu_tangent_kernel,
)


def blobs(n, seed, d=6, classes=3, spread=1.0, noise=0.0):
    centers = np.random.default_rng(0).normal(size=(classes, d))
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = centers[y] + spread * rng.normal(size=(n, d))
    y = np.where(rng.random(n) < noise, rng.integers(classes, size=n), y)
    return Split(torch.from_numpy(x), torch.from_numpy(y))


def splits(**kwargs):
    return tuple(blobs(n, seed, **kwargs) for seed, n in ((1, 60), (2, 50), (3, 90)))


def test_the_kernel_is_that_of_a_wide_net_with_one_hidden_layer():
    generator = torch.Generator().manual_seed(0)
    x, z = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (4, 3))
    weights = torch.randn(400_000, 5, generator=generator, dtype=torch.float64)

    def hidden(points):
        return (points @ weights.T).relu()

    def gates(points):
        return (points @ weights.T > 0).double()

    # f = a . relu(W x) with a, W standard normal: both layers' gradients, averaged over neurons.
    averaged = (hidden(x) @ hidden(z).T + (x @ z.T) * (gates(x) @ gates(z).T)) / len(weights)
    assert torch.allclose(relu_tangent_kernel(x, z), 2 * averaged, rtol=0, atol=0.06)


@given(st.integers(0, 100), st.floats(0.01, 100.0))
def test_the_kernel_is_homogeneous_and_blind_to_rotation(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    x, z = (torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (5, 3))
    turn, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))
    kernel = relu_tangent_kernel(x, z)
    assert torch.allclose(relu_tangent_kernel(scale * x, z), scale * kernel)
    assert torch.allclose(relu_tangent_kernel(x @ turn, z @ turn), kernel, atol=1e-10)
    assert torch.linalg.eigvalsh(relu_tangent_kernel(x, x)).amin() > -1e-9


def test_a_point_at_zero_has_no_kernel():
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    assert relu_tangent_kernel(x, x)[0].tolist() == [0.0, 0.0]


def test_regression_written_out():
    train, validation, test = splits()
    best, unsmoothed = kernel_references(train, validation, test)
    kernel = relu_tangent_kernel(train.features, train.features).numpy()
    targets = np.eye(3)[train.labels.numpy()]
    found = {}
    for strength in STRENGTHS:
        ridge = strength * np.trace(kernel) / len(kernel) * np.eye(len(kernel))
        weights = np.linalg.solve(kernel + ridge, targets - targets.mean(0))
        for name, part in (("validation", validation), ("test", test)):
            outputs = relu_tangent_kernel(part.features, train.features).numpy() @ weights
            answers = (outputs + targets.mean(0)).argmax(1)
            found[name, strength] = (answers == part.labels.numpy()).mean()
    chosen = max(STRENGTHS, key=lambda strength: found["validation", strength])
    assert best.strength == chosen
    assert float(best.score) == pytest.approx(found["test", chosen])
    assert float(unsmoothed.score) == pytest.approx(found["test", STRENGTHS[-1]])


def test_smoothing_helps_where_labels_are_noisy():
    train, validation, test = (
        blobs(n, seed, noise=noise)
        for n, seed, noise in ((150, 1, 0.4), (300, 2, 0.0), (600, 3, 0.0))
    )
    best, unsmoothed = kernel_references(train, validation, test)
    assert best.strength is not None
    assert best.strength > STRENGTHS[-1]
    assert best.score > unsmoothed.score + 0.05


def test_the_nearest_class_mean_by_sklearn():
    train, _, test = splits(spread=1.5)
    fit = NearestCentroid().fit(train.features.numpy(), train.labels.numpy())
    score = fit.score(test.features.numpy(), test.labels.numpy())
    assert float(class_means_reference(train, test).score) == pytest.approx(score)


def test_a_class_without_training_points_is_never_answered():
    train, validation, test = splits()
    seen = train.labels != 2
    two = Split(train.features[seen], train.labels[seen])
    for found in (class_means_reference(two, test), *kernel_references(two, validation, test)):
        assert 0 < float(found.score) <= float((test.labels != 2).double().mean())


def test_problems_are_named_and_give_no_number():
    train, validation, test = splits()
    one_class = Split(train.features, torch.zeros_like(train.labels))
    nan = Split(test.features.clone(), test.labels)
    nan.features[0, 0] = torch.nan
    constant = Split(torch.ones_like(train.features), train.labels)
    for parts, fragment in (
        ((one_class, validation, test), "only one class"),
        ((train, validation, nan), "hold NaN"),
        ((constant, validation, test), "do not vary"),
    ):
        results = (class_means_reference(parts[0], parts[2]), *kernel_references(*parts))
        for found in results:
            assert found.score.isnan()
            assert fragment in (found.problem or "")
