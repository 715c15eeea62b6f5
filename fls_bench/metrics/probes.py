"""Linear probes: how well labels can be read from features by logistic regression.

scikit-learn is imported inside the function: it costs most of a second, and few callers probe.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fls_bench.metrics.kernels import centered_features

if TYPE_CHECKING:
    from collections.abc import Sequence

# Inverse regularisation strengths. Below 0.01 the probe underfits a few hundred samples, above 10
# it no longer changes: both were seen on digits with 150 samples.
PROBE_STRENGTHS = (0.01, 0.1, 1.0, 10.0)
_MAX_ITERATIONS = 5000
_NO_ACCURACY = torch.tensor(torch.nan, dtype=torch.float64)


@dataclass(frozen=True)
class Split:
    """Features ``[n, width]`` with their labels ``[n]``."""

    features: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Probe:
    """A fitted probe's result.

    Attributes:
        accuracy: 0-d float64 in [0, 1] on the test split; NaN where there is a problem.
        strength: The inverse regularisation strength that was chosen; None where there is a
            problem.
        problem: One sentence that says why there is no accuracy, or None.
    """

    accuracy: Tensor
    strength: float | None = None
    problem: str | None = None


def linear_probe(
    train: Split,
    validation: Split,
    test: Split,
    *,
    strengths: Sequence[float] = PROBE_STRENGTHS,
    max_iterations: int = _MAX_ITERATIONS,
) -> Probe:
    """Test accuracy of L2-regularised logistic regression on standardised frozen features.

    The scaler and the regression see the training split only; the regularisation is chosen by
    accuracy on the validation split (the strongest among equals); the test split chooses nothing.

    Args:
        train: ``[n, width]`` features and labels of the training split.
        validation: The same of the validation split.
        test: The same of the test split.
        strengths: Inverse regularisation strengths, ascending.
        max_iterations: Limit of the solver; a fit that reaches it gives no accuracy.

    Returns:
        The accuracy, or the reason why there is none.

    Source: Alain, Bengio, "Understanding intermediate layers using linear classifier probes"
    (arXiv 1610.01644), section 3.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    problem = _problem(train, validation, test)
    if problem is not None:
        return Probe(_NO_ACCURACY, problem=problem)
    x_train, x_val, x_test = (s.features.double().cpu().numpy() for s in (train, validation, test))
    y_train, y_val, y_test = (s.labels.cpu().numpy() for s in (train, validation, test))
    probes = [
        make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=max_iterations))
        for strength in strengths
    ]
    # On products this small, threads that wait for each other cost ten times what they save.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            for probe in probes:
                probe.fit(x_train, y_train)
        except ConvergenceWarning:
            problem = f"The logistic regression did not converge in {max_iterations} iterations."
            return Probe(_NO_ACCURACY, problem=problem)
        # max returns the first of equals: the strongest regularisation.
        best = max(range(len(probes)), key=lambda i: probes[i].score(x_val, y_val))
        hits = torch.from_numpy(probes[best].predict(x_test) == y_test)
    return Probe(hits.double().mean(), strength=strengths[best])


def _problem(train: Split, validation: Split, test: Split) -> str | None:
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
