"""The output multiplier c, the init scale alpha and the learning rate: the one place that converts.

Conventions: a net computes c·f(x). Smaller c = larger FLS = toward over-aligned. FLS = 1/c, and
AMSP's gamma = 1/c. For an L-homogeneous net W(0) = alpha·W at multiplier 1 is the same function as
W at multiplier c = alpha^L, at every step, if the learning rate is compensated.

Sources: YHL = arXiv 2602.00827 (lr = eta/c, the exact rule for L = 2); AMSP = arXiv 2410.04642
(eta* ~ gamma^2 for gamma << 1, eta* ~ gamma^(2/L) for gamma >> 1).
"""

from __future__ import annotations

import math
import re

from fls_bench.errors import InputError
from fls_bench.schema import LrRule

LAZY_RATE_FACTOR = 4.0
"""Factor of the rate on the lazy side: 4·c^-2 was stable for c = 2^-9 .. 2^6 with lr 0.1."""


def parse_multiplier(text: str | float) -> float:
    """Parse ``0.002``, ``2^-9`` or ``1/16`` into a positive number.

    Args:
        text: A number, or a string with a number, a power ``a^b`` or a fraction ``a/b``.

    Returns:
        The value, finite and > 0.

    Raises:
        InputError: The text is no number, or the number is not finite and positive.

    >>> parse_multiplier("2^-9") == 2**-9
    True
    >>> parse_multiplier("1/16")
    0.0625
    """
    remedy = "Give a positive number such as 0.002, 2^-9 or 1/16."
    number = r"((?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)"
    match = re.fullmatch(
        rf"\+?{number}(?:\s*(\^|\*\*|/)\s*([+-]?){number})?", str(text).strip(), re.ASCII
    )
    if match is None:
        raise InputError(f"{str(text)[:60]!r} is not a multiplier.", remedy)
    base, operator, sign, other = match.groups()
    try:
        value = float(base)
        if operator == "/":
            value /= float(sign + other)
        elif operator:
            value = math.pow(value, float(sign + other))
    except (ValueError, OverflowError, ZeroDivisionError):
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"The multiplier {str(text)[:60]!r} is not finite and positive.", remedy)
    return value


def format_multiplier(c: float) -> str:
    """Write c as a power of two where it is one, else with four significant digits.

    >>> format_multiplier(2**-9), format_multiplier(0.3), format_multiplier(1.0)
    ('2^-9', '0.3', '2^0')
    """
    exponent = math.log2(c)
    if abs(exponent - round(exponent)) < 1e-9:
        return f"2^{round(exponent)}"
    return f"{c:.4g}"


def effective_multiplier(c: float, init_scale: float, depth: int) -> float:
    """c·alpha^L: the multiplier that gives an L-homogeneous net W the function of c·f(alpha·W).

    Args:
        c: Output multiplier, > 0.
        init_scale: alpha, > 0.
        depth: L, the degree of homogeneity.

    Returns:
        The effective multiplier, > 0. Source: YHL section 5 (c = alpha^L).
    """
    return float(c * init_scale**depth)


def relative_rate(rule: LrRule, c: float, init_scale: float = 1.0) -> float:
    """Learning rate at (c, alpha), as a multiple of the rate at c = 1, alpha = 1.

    ``min(e^(-2/L), 4·e^-2)·alpha^2`` with e = c·alpha^L. The first branch is exact for SGD,
    momentum and Nesterov on an L-homogeneous net without biases (the net with W(0) = alpha·W at
    multiplier 1 keeps its rate); the second keeps the lazy side stable, where the tangent kernel
    scales as c^2.

    Args:
        rule: Carries L.
        c: Output multiplier, > 0.
        init_scale: alpha, > 0.

    Returns:
        A positive factor, 1 at c = alpha = 1. Source: AMSP; the constant 4 was measured on MLPs.
    """
    effective = effective_multiplier(c, init_scale, rule.depth)
    compensated = min(effective ** (-2 / rule.depth), LAZY_RATE_FACTOR * effective**-2)
    return float(compensated * init_scale**2)


def scaled_rate(
    lr: float, rule: LrRule, *, at: tuple[float, float], to: tuple[float, float]
) -> float:
    """Carry a learning rate from one (c, alpha) to another by the rule.

    Args:
        lr: The rate in use at ``at``.
        rule: The learning-rate rule.
        at: (c, alpha) where ``lr`` is used.
        to: (c, alpha) where a rate is wanted.

    Returns:
        The rate at ``to``; exactly ``lr`` where ``to`` equals ``at``.
    """
    if at == to:
        return lr
    return lr * relative_rate(rule, *to) / relative_rate(rule, *at)


def bias_rate_factor(layer: int, depth: int, c: float) -> float:
    """Rate of the bias of layer l = 1..L relative to the rate of that net's weights.

    Biases of layer l need eta·c^(-2l/L) where weights need eta·c^(-2/L); with one rate for all,
    even zero-initialised biases break the identity between c and alpha.

    Args:
        layer: l, counted from 1.
        depth: L.
        c: Output multiplier.

    Returns:
        c^(-2(l-1)/L).
    """
    return float(c ** (-2 * (layer - 1) / depth))


def scaled_weight_decay(weight_decay: float, rule: LrRule, c: float) -> float:
    """L2 penalty at c that keeps the penalty at c = 1 equivalent: lambda·c^(2/L), exact for SGD."""
    return float(weight_decay * c ** (2 / rule.depth))
