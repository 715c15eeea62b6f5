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
from dataclasses import dataclass

from fls_bench.errors import InputError
from fls_bench.schema import AnyOptimizer, FixedSteps, LrRule, PerStep, Sgd, StepDecay, Stop

LAZY_RATE_FACTOR = 4.0
"""Factor of the rate on the lazy side: 4·c^-2 was stable for c = 2^-9 .. 2^6 with lr 0.1."""

PLAIN = LrRule(name="plain", depth=2)
"""YHL's rule: eta/c for every parameter."""


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
    if not 0 < c < math.inf:  # out of range, in a message that says so
        return f"{c:g}"
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


def exponent(rule: LrRule, name: str) -> float:
    """The e of a parameter: times alpha^e each, parameters give alpha^L times the output.

    Args:
        rule: The rule.
        name: The parameter's name.

    Returns:
        e >= 0, as the rule says or its usual one.
    """
    return rule.exponents.get(name, usual_exponent(rule))


def usual_exponent(rule: LrRule) -> float:
    """The e of parameters that the rule does not list: 0 for ``normalised``, else 1."""
    return 0.0 if rule.name == "normalised" else 1.0


def rate_power(optimizer: AnyOptimizer) -> int:
    """2 where a step is proportional to the gradient (SGD), 1 where only its direction counts."""
    return 2 if isinstance(optimizer, Sgd) else 1


def exact_rate_factor(rule: LrRule, power: int, c_ratio: float) -> float:
    """What the rate of a parameter with the usual e is multiplied by to keep the function exactly.

    m^(-p·e/L): parameters times m^(e/L) at multiplier 1 and a rate eta are, at every step, the same
    function as the parameters themselves at multiplier m and this factor times eta, if everything
    else follows by ``factors``.

    Args:
        rule: Carries L and the exponents.
        power: From ``rate_power``.
        c_ratio: m, > 0.

    Returns:
        A positive factor, 1 at m = 1. Source: YHL for L = 2; the table of exact rules otherwise.
    """
    return float(c_ratio ** (-power * usual_exponent(rule) / rule.depth))


def relative_rate(rule: LrRule, power: int, c: float, init_scale: float = 1.0) -> float:
    """Rate of a parameter with the usual e at (c, alpha), as a multiple of that at c = alpha = 1.

    ``min(m^(-p·e/L), (4·m^-2)^(p/2))·alpha^p`` with m = c·alpha^L and p = 2 for SGD, momentum and
    Nesterov, 1 for Adam and AdamW. The first branch is exact (the net with W(0) = alpha·W at
    multiplier 1 keeps its rate); the second keeps the lazy side stable, where the tangent kernel
    scales as c^2, and so the change of the function by a step of Adam's fixed length as c.

    Args:
        rule: Carries L and the exponents.
        power: From ``rate_power``.
        c: Output multiplier, > 0.
        init_scale: alpha, > 0.

    Returns:
        A positive factor, 1 at c = alpha = 1. Source: AMSP; the constant 4 was measured on MLPs.
    """
    m = effective_multiplier(c, init_scale, rule.depth)
    exact = exact_rate_factor(rule, power, m)
    stable = (LAZY_RATE_FACTOR * m**-2) ** (power / 2)
    return float(min(exact, stable) * init_scale**power)


def scaled_rate(
    lr: float, rule: LrRule, power: int, *, at: tuple[float, float], to: tuple[float, float]
) -> float:
    """Carry a learning rate from one (c, alpha) to another by the rule.

    Args:
        lr: The rate in use at ``at``.
        rule: The learning-rate rule.
        power: From ``rate_power``.
        at: (c, alpha) where ``lr`` is used.
        to: (c, alpha) where a rate is wanted.

    Returns:
        The rate at ``to``; exactly ``lr`` where ``to`` equals ``at``.

    Raises:
        InputError: The rate leaves the range of floating point numbers.
    """
    if at == to:
        return lr
    try:
        rate = lr * relative_rate(rule, power, *to) / relative_rate(rule, power, *at)
    except ArithmeticError:
        rate = math.nan
    if not 0 < rate < math.inf:
        c, alpha = map(format_multiplier, to)
        raise InputError(
            f"At c = {c} and alpha = {alpha} the learning rate leaves the range of floating point "
            "numbers.",
            "Choose values nearer to 1.",
        )
    return rate


@dataclass(frozen=True)
class Factors:
    """What one parameter's settings are multiplied by, away from the setup's own c.

    Attributes:
        lr: Its rate against that of a parameter with the usual e.
        l2: An L2 penalty.
        decay: A decoupled weight decay.
        epsilon: Adam's epsilon.
        clip: Its gradient, where the norm for clipping is taken.
    """

    lr: float = 1.0
    l2: float = 1.0
    decay: float = 1.0
    epsilon: float = 1.0
    clip: float = 1.0


def factors(rule: LrRule, power: int, name: str, c_ratio: float) -> Factors:
    """Settings of one parameter at c that keep those at the setup's own c equivalent.

    With a = (c/c_own)^(1/L) the run at c is the run of the parameters times a^e at c_own, where
    gradients are a^-e times as large. So SGD needs the rate times a^-2e and an L2 penalty a^2e;
    Adam the rate times a^-e, epsilon a^e, decoupled decay a^e; and the norm for clipping is that of
    the gradients a^-e·g. Layer-l biases of an MLP have e = l, what normalisation makes
    scale-invariant e = 0: nothing changes for it.

    Args:
        rule: Carries L and the exponents.
        power: From ``rate_power``.
        name: The parameter's name.
        c_ratio: c over the setup's own c, > 0.

    Returns:
        The factors, all 1 at the setup's own c. Source: own derivation; it contains the table of
        exact rules for homogeneous nets (SGD c^(-2/L), Adam c^(-1/L)) as the case e = 1.
    """
    e = exponent(rule, name)
    a = c_ratio ** (1 / rule.depth)
    return Factors(
        lr=a ** (-power * (e - usual_exponent(rule))),
        l2=a ** (2 * e),
        decay=a**e,
        epsilon=a**e,
        clip=a**-e,
    )


def schedule_factors(
    optimizer: AnyOptimizer, stop: Stop, *, epoch: int, per_epoch: int, max_epochs: int
) -> list[float]:
    """What the rates are multiplied by in each step of an epoch: the same at every c.

    Args:
        optimizer: Holds the schedule.
        stop: Its ``FixedSteps`` are the length of a schedule per step that has none of its own.
        epoch: Counted from 0.
        per_epoch: Steps of a whole epoch.
        max_epochs: Of the run; under other stops the length of a schedule that has none of its own.

    Returns:
        ``per_epoch`` factors in [0, 1], where a stop may use only the first. Source: Loshchilov, Hutter
        (arXiv 1608.03983), equation 5, without restarts, once per epoch; for ``PerStep`` see there.
    """
    schedule = optimizer.schedule
    if isinstance(schedule, PerStep):
        most = stop.steps if isinstance(stop, FixedSteps) else max_epochs * per_epoch
        first = epoch * per_epoch
        return [
            factor_of_step(schedule, step, schedule.steps or most)
            for step in range(first, first + per_epoch)
        ]
    factor = 1.0
    if isinstance(schedule, StepDecay):
        factor = float(schedule.factor ** (epoch // schedule.every))
    elif schedule is not None:
        length = schedule.epochs or max_epochs
        half = 0.5 * (1 + math.cos(math.pi * min(epoch, length) / length))
        factor = schedule.final + (1 - schedule.final) * half
    return [factor] * per_epoch


def factor_of_step(schedule: PerStep, step: int, length: int) -> float:
    """The factor of one step of a schedule per step.

    Args:
        schedule: The schedule.
        step: Counted from 0.
        length: How many steps it takes, warm-up included.

    Returns:
        The factor, in [0, 1].

    Source: ``get_linear_schedule_with_warmup`` and its neighbours in ``transformers.optimization``
    (5.24), up to their number of training steps; beyond it their cosine would rise again.
    """
    warmup = schedule.warmup_steps
    if step < warmup:
        return step / warmup
    if schedule.decay == "constant":
        return 1.0
    left = max(1, length - warmup)
    if schedule.decay == "linear":
        return max(0.0, (length - step) / left)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / left)))
