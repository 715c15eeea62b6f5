"""How far a net moved from its initial state, in weights and in function."""

from __future__ import annotations

from torch import Tensor


def relative_movement(weights: Tensor, initial: Tensor) -> Tensor:
    r"""Relative change of a weight matrix over training.

    .. math:: \|W - W_0\|_F / \|W_0\|_F

    Falls as c grows: large = rich learning (toward over-aligned), near 0 = lazy.

    Args:
        weights: ``[..., out, in]``.
        initial: The same shape.

    Returns:
        ``[...]`` float64, >= 0; infinite or NaN where the initial weights are all 0.

    Source: Chizat, Oyallon, Bach, "On Lazy Training" (arXiv 1812.07956), section 1: lazy means
    that the parameters hardly move relative to where they start.
    """
    w, w_0 = weights.double(), initial.double()
    change = (w - w_0).square().sum(dim=(-2, -1)).sqrt()
    return change / w_0.square().sum(dim=(-2, -1)).sqrt()


def initial_function_share(initial: Tensor, change: Tensor) -> Tensor:
    r"""Share of the initial function in what the net computes at the end.

    .. math:: |c f_0|^2 / (|c f_0|^2 + |c (f - f_0)|^2)

    summed over points and logits. c cancels. The cross term is left out on purpose: training
    undoes part of f_0, so that |f_0|^2 / |f|^2 has no upper bound. Near 1: the outputs are those
    of the initial net (toward over-fitted, the face "initial-function noise").

    Args:
        initial: ``[..., n, K]`` outputs at init.
        change: ``[..., n, K]`` final minus initial outputs.

    Returns:
        ``[...]`` float64 in [0, 1]; NaN where both are 0 everywhere.

    Source: own definition, after the centring of Chizat, Oyallon, Bach (arXiv 1812.07956), who
    set f_0 = 0 to separate the two parts.
    """
    kept = initial.double().square().sum(dim=(-2, -1))
    learned = change.double().square().sum(dim=(-2, -1))
    return kept / (kept + learned)
