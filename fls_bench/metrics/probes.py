"""Probes of frozen features: what can be read from them, by simple learners of scikit-learn.

scikit-learn is imported inside the functions: it costs most of a second, and few callers probe.
"""

from __future__ import annotations

import functools
import warnings
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fls_bench.metrics.alignment import class_means, nearest_class_mean
from fls_bench.metrics.kernels import centered_features

if TYPE_CHECKING:
    from collections.abc import Sequence

# Inverse regularisation strengths. Below 0.01 the probe underfits a few hundred samples, above 10
# it no longer changes: both were seen on digits with 150 samples.
PROBE_STRENGTHS = (0.01, 0.1, 1.0, 10.0)
NEIGHBOURS = (15, 5, 1)
RIDGES = (1e4, 1e3, 1e2, 1e1, 1.0, 1e-1)
MAX_WIDTH = 256
"""Wider features are reduced to this many principal components of the training points."""
_MAX_ITERATIONS = 5000
_NO_VALUE = torch.tensor(torch.nan, dtype=torch.float64)


@functools.cache
def _controller() -> Any:
    """Of the threads of linear algebra; finding the libraries takes as long as a small fit."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def one_thread() -> AbstractContextManager[Any]:
    """On products this small, threads that wait for each other cost ten times what they save."""
    limit: AbstractContextManager[Any] = _controller().limit(limits=1)
    return limit


@dataclass(frozen=True)
class Split:
    """Features ``[n, width]`` with their labels ``[n]``."""

    features: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Probe:
    """A probe's result.

    Attributes:
        score: 0-d float64: accuracy in [0, 1] or R^2 <= 1 on the test split; NaN where there is a
            problem.
        strength: What was chosen on the validation split; None where nothing was, or there is a
            problem.
        problem: One sentence that says why there is no score, or None.
    """

    score: Tensor
    strength: float | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Prepared:
    """Features of three splits, ready to be probed.

    Attributes:
        x: Training, validation and test features ``[n, width]`` float64: each column with mean 0 and
            variance 1 over the training points (constant ones 0), and, where there are more than
            MAX_WIDTH, their leading principal components.
        y: Their labels ``[n]``.
        problem: Why they can't be probed, or None; x is then empty.
    """

    x: tuple[Any, ...]
    y: tuple[Any, ...]
    problem: str | None = None


def prepared(train: Split, validation: Split, test: Split) -> Prepared:
    """Standardise features by the training split, and reduce wide ones.

    Args:
        train: ``[n, width]`` features and labels of the training split.
        validation: The same of the validation split.
        test: The same of the test split.

    Returns:
        The features, or the reason why they can't be probed.
    """
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    splits = (train, validation, test)
    problem = problem_of(*splits)
    if problem is not None:
        return Prepared((), (), problem)
    x = [split.features.double().cpu().numpy() for split in splits]
    steps: list[Any] = [StandardScaler()]
    if x[0].shape[1] > MAX_WIDTH:
        kept = min(MAX_WIDTH, len(x[0]))
        steps.append(PCA(kept, svd_solver="covariance_eigh" if kept == MAX_WIDTH else "full"))
    scaler = make_pipeline(*steps)
    with one_thread():
        scaler.fit(x[0])
        return Prepared(
            tuple(scaler.transform(part) for part in x),
            tuple(split.labels.cpu().numpy() for split in splits),
        )


def problem_of(train: Split, validation: Split, test: Split) -> str | None:
    """Why no probe can be fitted and scored on these splits, or None."""
    for name, split in (("training", train), ("validation", validation), ("test", test)):
        if not len(split.features):
            return f"The {name} split has no points."
        if not split.features.isfinite().all():
            return f"The features of the {name} split hold NaN or infinite values."
    if train.labels.amin() == train.labels.amax():
        return "The training set has only one class."
    if not centered_features(train.features).any():
        return "The features do not vary over the training points."
    return None


def linear_probe(
    data: Prepared,
    *,
    strengths: Sequence[float] = PROBE_STRENGTHS,
    max_iterations: int = _MAX_ITERATIONS,
) -> Probe:
    """Test accuracy of L2-regularised logistic regression on standardised frozen features.

    The regression sees the training split only; the regularisation is chosen by accuracy on the
    validation split (the strongest among equals); the test split chooses nothing.

    Args:
        data: Features and labels.
        strengths: Inverse regularisation strengths, ascending.
        max_iterations: Limit of the solver; a fit that reaches it gives no accuracy.

    Returns:
        The accuracy, or the reason why there is none.

    Source: Alain, Bengio, "Understanding intermediate layers using linear classifier probes"
    (arXiv 1610.01644), section 3.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if data.problem is not None:
        return Probe(_NO_VALUE, problem=data.problem)
    probes = [LogisticRegression(C=strength, max_iter=max_iterations) for strength in strengths]
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            for probe in probes:
                probe.fit(data.x[0], data.y[0])
        except ConvergenceWarning:
            problem = f"The logistic regression did not converge in {max_iterations} iterations."
            return Probe(_NO_VALUE, problem=problem)
        return _best(data, probes, strengths)


RIDGE = 0.1
"""Penalty of the ridge probe per training point, on standardised features."""


def ridge_probe(data: Prepared, *, ridge: float = RIDGE) -> Probe:
    """Test accuracy of ridge regression on the labels, one class against the rest.

    In closed form, with a fixed penalty: for where many nets are compared in little time. The
    validation split is not used.

    Args:
        data: Features and labels.
        ridge: Penalty per training point, so that it means the same for every number of them.

    Returns:
        The accuracy, or the reason why there is none.

    Source: Rifkin, Yeo, Poggio, "Regularized least-squares classification" (2003), section 3, on
    frozen features.
    """
    from sklearn.linear_model import RidgeClassifier

    if data.problem is not None:
        return Probe(_NO_VALUE, problem=data.problem)
    with one_thread():
        fit = RidgeClassifier(ridge * len(data.y[0]), solver="cholesky").fit(data.x[0], data.y[0])
        hits = torch.from_numpy(fit.predict(data.x[2]) == data.y[2])
    return Probe(hits.double().mean())


def fitted_head(
    train: Split, validation: Split, n_classes: int, *, strengths: Sequence[float] = PROBE_STRENGTHS
) -> tuple[Tensor, Tensor] | str:
    """A linear read-out for features that have none: L2-regularised logistic regression.

    Columns are standardised by the training split, and the scaling is put into the weights. The
    regularisation is chosen by accuracy on the validation split (the strongest among equals).

    Args:
        train: ``[n, width]`` features with labels; every class must occur.
        validation: The same of the validation split.
        n_classes: K.
        strengths: Inverse regularisation strengths, ascending.

    Returns:
        (weight ``[K, width]``, bias ``[K]``) in float32, or the reason why there is no read-out.

    Source: as ``linear_probe``.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    problem = problem_of(train, validation, validation)
    if problem is None and bool((train.labels.bincount(minlength=n_classes) == 0).any()):
        problem = "Some classes have no training points."
    if problem is not None:
        return problem
    scaler = StandardScaler().fit(train.features.double().cpu().numpy())
    x, held_out = (
        scaler.transform(part.features.double().cpu().numpy()) for part in (train, validation)
    )
    fits = [LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS) for strength in strengths]
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            for fit in fits:
                fit.fit(x, train.labels.cpu().numpy())
        except ConvergenceWarning:
            return f"The logistic regression did not converge in {_MAX_ITERATIONS} iterations."
        best = max(fits, key=lambda fit: fit.score(held_out, validation.labels.cpu().numpy()))
    weight, bias = torch.from_numpy(best.coef_), torch.from_numpy(best.intercept_)
    if n_classes == 2:  # one logit there: the second class against the first
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    weight = weight / torch.from_numpy(scaler.scale_)
    bias = bias - weight @ torch.from_numpy(scaler.mean_)
    return weight.float(), bias.float()


def neighbour_probe(data: Prepared, *, neighbours: Sequence[int] = NEIGHBOURS) -> Probe:
    """Test accuracy of the vote of the nearest training points, in standardised frozen features.

    Their number is chosen by accuracy on the validation split (the largest among equals).

    Args:
        data: Features and labels.
        neighbours: Numbers to choose from, descending; those beyond the training points left out.

    Returns:
        The accuracy, or the reason why there is none.

    Source: Wu, Xiong, Yu, Lin, "Unsupervised feature learning via non-parametric instance
    discrimination" (arXiv 1805.01978), section 3.4, here without weights.
    """
    from sklearn.neighbors import KNeighborsClassifier

    if data.problem is not None:
        return Probe(_NO_VALUE, problem=data.problem)
    numbers = [k for k in neighbours if k <= len(data.y[0])]
    with one_thread():
        probes = [
            KNeighborsClassifier(k, algorithm="brute").fit(data.x[0], data.y[0]) for k in numbers
        ]
        return _best(data, probes, numbers)


def _best(data: Prepared, probes: Sequence[Any], settings: Sequence[float]) -> Probe:
    """Test accuracy of the fitted probe that is best on the validation split, first among equals."""
    best = max(range(len(probes)), key=lambda i: probes[i].score(data.x[1], data.y[1]))
    hits = torch.from_numpy(probes[best].predict(data.x[2]) == data.y[2])
    return Probe(hits.double().mean(), strength=settings[best])


def few_shot_probe(
    data: Prepared, generator: torch.Generator, *, shots: int = 5, draws: int = 10
) -> Probe:
    """Test accuracy of the nearest class mean of a few training points per class, mean over draws.

    Args:
        data: Features and labels.
        generator: Draws the points.
        shots: Training points per class.
        draws: How many times they are drawn.

    Returns:
        The accuracy, or the reason why there is none.

    Source: Snell, Swersky, Zemel, "Prototypical networks for few-shot learning" (arXiv 1703.05175),
    section 2.2, on frozen features.
    """
    if data.problem is not None:
        return Probe(_NO_VALUE, problem=data.problem)
    x, y = torch.from_numpy(data.x[0]), torch.from_numpy(data.y[0]).long()
    test, truth = torch.from_numpy(data.x[2]), torch.from_numpy(data.y[2]).long()
    counts = y.bincount()
    fewest = counts[counts > 0].amin()
    if fewest < shots:
        problem = f"A class has {int(fewest)} training points; {shots} are drawn from each."
        return Probe(_NO_VALUE, problem=problem)
    n_classes = int(max(y.amax(), truth.amax())) + 1
    hits = []
    for _ in range(draws):
        order = torch.randperm(len(y), generator=generator)
        chosen = torch.cat([order[y[order] == k][:shots] for k in counts.nonzero()])
        means = class_means(x[chosen], y[chosen], n_classes)
        hits.append((nearest_class_mean(test, means) == truth).double().mean())
    return Probe(torch.stack(hits).mean())


def input_components(inputs: Sequence[Tensor], *, components: int = 10) -> tuple[Tensor, ...] | str:
    """Scores of points on the leading principal components of the training inputs.

    Args:
        inputs: ``[n, d]`` of the training, validation and test split.
        components: How many, at most the rank of the training inputs.

    Returns:
        ``[n, components]`` float64 of each split, variance 1 over the training points; or the reason
        why there are none.
    """
    x = centered_features(inputs[0])
    if not bool(x.any()):
        return "The inputs do not vary over the training points."
    n, d = x.shape
    if d <= n:
        values, basis = torch.linalg.eigh(x.mT @ x)
    else:
        values, left = torch.linalg.eigh(x @ x.mT)
        basis = x.mT @ left / values.clamp_min(1e-300).sqrt()
    kept = min(components, int((values > 1e-12 * values[-1]).sum()))
    directions = basis[:, -kept:] / (values[-kept:] / n).sqrt()
    mean = inputs[0].double().mean(dim=0)
    scores = tuple((part.double() - mean) @ directions for part in inputs)
    if any(not len(part) or bool((part.amin(dim=0) == part.amax(dim=0)).any()) for part in scores):
        return "A principal component of the inputs does not vary over validation or test points."
    return scores


def recovery_probe(
    data: Prepared, components: Sequence[Tensor], *, ridges: Sequence[float] = RIDGES
) -> Probe:
    """Test R^2 of the inputs' leading principal components, read from features by ridge regression.

    Each component counts alike. The ridge is chosen by R^2 on the validation split (the largest
    among equals).

    Args:
        data: Features; labels are not used.
        components: Of the three splits, from :func:`input_components`.
        ridges: Penalties on standardised features, descending.

    Returns:
        The mean R^2 (<= 1; below 0 where the components are predicted worse than by their mean), or
        the reason why there is none.

    Source: own definition; linear decodability as in Alain, Bengio (arXiv 1610.01644).
    """
    from sklearn.linear_model import Ridge
    from sklearn.metrics import r2_score

    if data.problem is not None:
        return Probe(_NO_VALUE, problem=data.problem)
    train, validation, test = (part.cpu().numpy() for part in components)
    with one_thread():
        fits = [Ridge(alpha=ridge).fit(data.x[0], train) for ridge in ridges]
        scores = [r2_score(validation, fit.predict(data.x[1])) for fit in fits]
        best = scores.index(max(scores))
        score = r2_score(test, fits[best].predict(data.x[2]))
    return Probe(torch.tensor(score, dtype=torch.float64), strength=ridges[best])
