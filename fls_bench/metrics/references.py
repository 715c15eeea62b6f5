"""Classifiers of the inputs that learn no features: what either end of the range of c comes close to."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fls_bench.metrics.alignment import class_means, nearest_class_mean
from fls_bench.metrics.probes import Probe, Split, one_thread, problem_of

STRENGTHS = (1.0, 1e-1, 1e-2, 1e-4)
"""Ridges in units of the kernel's mean diagonal, descending."""
_NO_VALUE = torch.tensor(torch.nan, dtype=torch.float64)


def relu_tangent_kernel(x: Tensor, z: Tensor) -> Tensor:
    r"""Tangent kernel of an infinitely wide ReLU net with one hidden layer, both layers trained.

    .. math:: |x||z| \left(\frac{\sin t + (\pi - t) \cos t}{\pi} + \cos t \frac{\pi - t}{\pi}\right)

    with t the angle between x and z: the first part from the read-out, the second from the hidden
    weights, both up to the same constant. Biases are none.

    Args:
        x: ``[n, d]``.
        z: ``[m, d]``.

    Returns:
        ``[n, m]`` float64; 0 where a point is 0.

    Source: Cho, Saul 2009, "Kernel methods for deep learning", equations 6 and 7; Jacot, Gabriel,
    Hongler, arXiv 1806.07572, proposition 1.
    """
    x, z = x.double(), z.double()
    norms = x.norm(dim=-1)[:, None] * z.norm(dim=-1)[None, :]
    cosine = ((x @ z.mT) / norms.clamp_min(torch.finfo(norms.dtype).tiny)).clamp(-1.0, 1.0)
    angle = cosine.acos()
    left = math.pi - angle
    kernel: Tensor = norms * (angle.sin() + 2 * left * cosine) / math.pi
    return kernel


def class_means_reference(train: Split, test: Split) -> Probe:
    """Test accuracy of the class mean of the training inputs that is nearest.

    Args:
        train: ``[n, d]`` inputs and labels.
        test: The same of the test split.

    Returns:
        The accuracy, or the reason why there is none.

    Source: as ``nearest_class_mean``.
    """
    problem = problem_of(train, test, test)
    if problem is not None:
        return Probe(_NO_VALUE, problem=problem)
    means = class_means(train.features, train.labels, int(train.labels.amax()) + 1)
    hits = nearest_class_mean(test.features, means) == test.labels
    return Probe(hits.double().mean())


def kernel_references(
    train: Split, validation: Split, test: Split, *, strengths: Sequence[float] = STRENGTHS
) -> tuple[Probe, Probe]:
    """Test accuracy of kernel ridge regression on the labels with ``relu_tangent_kernel``.

    What a net of the over-fitted end does with its own, random kernel.

    Args:
        train: ``[n, d]`` inputs and labels.
        validation: The same of the validation split.
        test: The same of the test split.
        strengths: Ridges to choose from, descending, in units of the mean diagonal of the kernel.

    Returns:
        (with the ridge that is best on the validation split, the largest among equals; with the
        smallest ridge, which fits the training labels), or the reason why there is none.
    """
    from sklearn.kernel_ridge import KernelRidge

    problem = problem_of(train, validation, test)
    if problem is not None:
        failed = Probe(_NO_VALUE, problem=problem)
        return failed, failed
    n_classes = int(train.labels.amax()) + 1
    targets = torch.nn.functional.one_hot(train.labels.long(), n_classes).double()
    mean = targets.mean(dim=0)
    kernel = relu_tangent_kernel(train.features, train.features)
    unit = float(kernel.diagonal().mean())
    seen, unseen = (
        relu_tangent_kernel(part.features, train.features).cpu().numpy()
        for part in (validation, test)
    )
    scores = []
    with one_thread():
        for strength in strengths:
            fit = KernelRidge(alpha=strength * unit, kernel="precomputed")
            fit.fit(kernel.cpu().numpy(), (targets - mean).cpu().numpy())
            accuracies = [
                (torch.from_numpy(fit.predict(k)) + mean.cpu()).argmax(dim=1) == part.labels.cpu()
                for k, part in ((seen, validation), (unseen, test))
            ]
            scores.append([float(one.double().mean()) for one in accuracies])
    chosen = max(range(len(strengths)), key=lambda k: scores[k][0])
    best, last = (torch.tensor(scores[k][1], dtype=torch.float64) for k in (chosen, -1))
    return Probe(best, strength=strengths[chosen]), Probe(last, strength=strengths[-1])
