"""Invariants of training: (c, W) and (1, c^(1/L)·W) are one function if the settings follow c."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fls_bench.homogeneity import Scaling
from fls_bench.invariants.claims import Draw, decided, measured_exponent, void
from fls_bench.invariants.multiplier import exponents_in_words, scaled_parameters
from fls_bench.invariants.twins import Examined, Run, amplification, deviation, disturbed
from fls_bench.scaling import PLAIN, exact_rate_factor, factors, scaled_rate
from fls_bench.schema import (
    Adam,
    AdamW,
    InvariantFinding,
    InvariantName,
    LrRule,
    MeasuredExponent,
    Sgd,
)

NO_EXACT_RULE = "The net is not quasi-homogeneous: no rule is exact, rates are calibrated per c."


@dataclass(frozen=True)
class _Twin:
    """The run that sets the standard: scaled parameters at the setup's own multiplier.

    Attributes:
        run: The run.
        amplified: By how much it amplifies a disturbance.
        lr: Its rate.
    """

    run: Run
    amplified: float
    lr: float


def check_exact_rule(examined: Examined, draw: Draw) -> InvariantFinding:
    """Scaled parameters at c = 1 and the parameters at c train alike under the exact rule.

    The net with parameters times a^e at the setup's own multiplier, with its settings as they stand,
    is at every step the function of the parameters themselves at c = a^L times that multiplier with:
    rate times a^-2e for SGD, momentum and Nesterov, a^-e for Adam and AdamW; L2 penalty times a^2e,
    decoupled decay and epsilon times a^e; gradients times a^-e where the norm for clipping is taken. For
    a net without biases and normalisation that is eta·c^(-2/L), or eta·c^(-1/L) for Adam. Dropout has to
    draw the same masks in both runs.

    Void where the net is not quasi-homogeneous, or its optimizer is the user's own code.

    Source: YHL (arXiv 2602.00827), section 2, for SGD and L = 2; AMSP (arXiv 2410.04642) for deeper
    nets; the other rows by the same substitution (``fls_bench.scaling.factors``).
    """
    name: InvariantName = "exact_rule"
    if examined.custom:
        text = "The optimizer is code of your own: how it answers a scale of its gradients is not known."
        return void(name, "own_optimizer", text)
    rule = examined.exact_rule
    if rule is None:
        return examined.blind(name) or void(name, "not_homogeneous", NO_EXACT_RULE)
    twin, found = _standard(name, examined, draw, rule)
    if found is not None:
        return found
    other = _at_c(
        examined, draw, rule, twin.lr * exact_rate_factor(rule, examined.power, draw.ratio)
    )
    bound = examined.bound(draw, twin.amplified, draw.num_steps)
    wrong = (
        "compensation",
        "The run at c with compensated settings is not the run with scaled parameters.",
    )
    changed = "; ".join(part for part in (_changes(examined, rule), _masks(examined)) if part)
    return decided(name, deviation(twin.run, other), bound, wrong=wrong, rule=changed or None)


def check_one_rate(examined: Examined, draw: Draw) -> InvariantFinding:
    """One rate for all parameters, eta·c^(-2/L) (Adam eta·c^(-1/L)), and nothing else follows c.

    What a training loop with one line of compensation does. Held for L-homogeneous nets without
    biases under SGD, momentum or Nesterov without penalty and clipping.

    Void, with the drift that was measured, for trained biases (layer l's need eta·c^(-2l/L)), for
    weights before a normalisation (scale-invariant: their rate must not follow c), for Adam whose
    epsilon is left as it is, and for penalties, decay and clipping that are.

    Source: YHL (arXiv 2602.00827), section 2, with L = 2: eta/c.
    """
    name: InvariantName = "one_rate"
    if examined.custom:
        text = "The optimizer is code of your own; own_optimizer says what it does, where it is told c."
        return void(name, "own_optimizer", text)
    rule = examined.exact_rule
    if rule is None:
        return examined.blind(name) or void(name, "not_homogeneous", NO_EXACT_RULE)
    twin, found = _standard(name, examined, draw, rule)
    if found is not None:
        return found
    one = LrRule(name="plain", depth=rule.depth)
    lr = twin.lr * exact_rate_factor(one, examined.power, draw.ratio)
    # Its settings are meant as they stand: nothing but the one rate follows c.
    run = _at_c(examined, draw, one, lr, follow=False)
    apart = deviation(twin.run, run)
    bound = examined.bound(draw, twin.amplified, draw.num_steps)
    reasons = _why_one_rate_fails(examined, rule)
    if reasons and not apart <= bound:
        size = "it diverges" if math.isinf(apart) else f"functions drift apart by {apart:.2g}"
        code, text = reasons[0][0], "; ".join(why for _, why in reasons)
        drifted = apart if math.isfinite(apart) else None
        return void(name, code, f"{text[:1].upper()}{text[1:]} ({size}).", deviation=drifted)
    wrong = ("one_rate", "One rate for all parameters does not keep the function.")
    return decided(name, apart, bound, wrong=wrong)


def check_own_rule(examined: Examined, draw: Draw) -> InvariantFinding:
    """The rule that the setup names keeps the function as c changes.

    As ``exact_rule``, with the rates and exponents of the setup's own ``lr_rule``.

    Void for ``calibrated``, which claims nothing, for ``plain`` (YHL's eta/c) where L is not 2, and
    where the net is not quasi-homogeneous.

    Source: as ``exact_rule``.
    """
    name: InvariantName = "own_rule"
    exact, own = examined.exact_rule, examined.rule
    if exact is None or examined.custom:
        return examined.blind(name) or void(name, "not_homogeneous", NO_EXACT_RULE)
    twin, found = _standard(name, examined, draw, exact)
    if found is not None:
        return found
    lr = twin.lr * exact_rate_factor(own, examined.power, draw.ratio)
    apart = deviation(twin.run, _at_c(examined, draw, own, lr))
    bound = examined.bound(draw, twin.amplified, draw.num_steps)
    if own.name in ("calibrated", "plain") and not apart <= bound:
        drift = "it diverges" if math.isinf(apart) else f"functions drift apart by {apart:.2g}"
        what = "eta/c for all parameters" if own == PLAIN else f"The rule {own.name}"
        text = f"{what} claims no exactness for this net ({drift})."
        return void(name, f"rule_{own.name}", f"{text[:1].upper()}{text[1:]}")
    wrong = (
        "wrong_rule",
        f"The setup's rule ({own.name}, L = {own.depth}) does not keep the function; the net is "
        f"measured to have L = {exact.depth}, {exponents_in_words(_exponents(examined))}.",
    )
    return decided(name, apart, bound, wrong=wrong)


def check_own_optimizer(examined: Examined, draw: Draw) -> InvariantFinding:
    """The user's optimizer, told the multiplier, keeps the function as c changes.

    ``make(net, output_multiplier=c)`` is called for the net with scaled parameters at the setup's own
    multiplier and for the net itself at c; both runs have to be one function. Where they are not, the
    rates, penalties and epsilons that it gives at both multipliers are read off its groups and
    compared with those of the exact rule.

    Void where the net is not quasi-homogeneous.

    Source: as ``exact_rule``.
    """
    name: InvariantName = "own_optimizer"
    rule, factory = examined.exact_rule, examined.optimizer_factory
    if rule is None or factory is None:
        return examined.blind(name) or void(name, "not_homogeneous", NO_EXACT_RULE)
    twin, found = _standard(name, examined, draw, rule)
    if found is not None:
        return found
    apart = deviation(twin.run, _at_c(examined, draw, rule, 1.0))
    bound = examined.bound(draw, twin.amplified, draw.num_steps)
    code, text, exponents = _read_settings(examined, draw, rule)
    return decided(name, apart, bound, wrong=(code, text), exponents=exponents)


def equivalent_runs(
    examined: Examined, draw: Draw
) -> tuple[tuple[nn.Module, Run], tuple[nn.Module, Run]]:
    """The two nets of ``check_exact_rule`` at init, each with its finished run.

    Args:
        examined: A quasi-homogeneous net under a built-in optimizer.
        draw: The draw.

    Returns:
        (scaled parameters, their run at the setup's own multiplier), (parameters, their run at c).
    """
    rule, scaling = examined.exact_rule, examined.scaling
    assert rule is not None
    assert scaling is not None
    twin, _ = _standard("exact_rule", examined, draw, rule)
    plain = examined.net(draw, examined.own_c)
    scaled = scaled_parameters(plain, scaling.exponents, draw.ratio ** (1 / scaling.depth))
    return (scaled, twin.run), (plain, _at_c_exactly(examined, draw, rule, twin))


# --- runs -----------------------------------------------------------------------------------


def _exponents(examined: Examined) -> Mapping[str, float]:
    assert examined.scaling is not None
    return examined.scaling.exponents


def _standard(
    name: InvariantName, examined: Examined, draw: Draw, rule: LrRule
) -> tuple[_Twin, InvariantFinding | None]:
    """The run with scaled parameters, and why it can't be a standard, if so."""
    scaling = examined.scaling
    assert scaling is not None
    a = draw.ratio ** (1 / scaling.depth)
    own_c, power = examined.own_c, examined.power
    to = (own_c * draw.ratio, 1.0)
    # Toward lazy the rule for stability is slower than the exact one: both runs are slowed alike.
    stable = scaled_rate(1.0, rule, power, at=(own_c, 1.0), to=to)
    slowed = stable / exact_rate_factor(rule, power, draw.ratio)
    lr = examined.optimizer.lr * (1.0 if slowed > 1 - 1e-9 else slowed)
    net = scaled_parameters(examined.net(draw, own_c), scaling.exponents, a)
    task = examined.data(draw)
    settings: dict[str, Any] = {"c": own_c, "lr": lr, "rule": rule}
    run = examined.train(net, task, draw, **settings)
    amplified = amplification(run, examined.train(disturbed(net), task, draw, **settings))
    return _Twin(run, amplified, lr), examined.obstacle(name, draw, run, amplified)


def _at_c_exactly(examined: Examined, draw: Draw, rule: LrRule, twin: _Twin) -> Run:
    lr = twin.lr * exact_rate_factor(rule, examined.power, draw.ratio)
    return _at_c(examined, draw, rule, lr)


def _at_c(examined: Examined, draw: Draw, rule: LrRule, lr: float, *, follow: bool = True) -> Run:
    """The run of the parameters themselves at c; settings follow the rule, or stand as they are."""
    c = examined.own_c * draw.ratio
    return examined.train(
        examined.net(draw, c), examined.data(draw), draw,
        c=c, lr=lr, rule=rule, own_c=examined.own_c if follow else c,
    )  # fmt: skip


# --- words ----------------------------------------------------------------------------------


def _biases(scaling: Scaling, net: nn.Module) -> list[str]:
    """Trained parameters of one axis that have an exponent of their own, not 0."""
    trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
    return [k for k, p in trained.items() if p.ndim <= 1 and scaling.exponents.get(k, 0) > 0]


def _why_one_rate_fails(examined: Examined, rule: LrRule) -> list[tuple[str, str]]:
    """(code, words) of every condition of ``check_one_rate`` that this setup does not meet."""
    scaling, optimizer = examined.scaling, examined.optimizer
    assert scaling is not None
    reasons: list[tuple[str, str]] = []
    exponents = {e for e in scaling.exponents.values() if e > 0}
    if rule.name == "normalised":
        reasons.append(
            (
                "normalisation",
                "weights before a normalisation are scale-invariant: at a rate that follows c they "
                "take steps of another size",
            )
        )
    if exponents - {1.0}:
        biases = _biases(scaling, examined.net(Draw(), examined.own_c))
        reasons.append(
            (
                "trained_biases",
                f"biases are trained under one rate ({', '.join(biases[:3])}): those of layer l need "
                f"eta·c^(-{examined.power}l/L)",
            )
        )
    if isinstance(optimizer, Adam | AdamW):
        reasons.append(
            (
                "adam_epsilon",
                f"Adam's epsilon {optimizer.epsilon:g} is left as it is: it needs epsilon·c^(1/L)",
            )
        )
    if optimizer.weight_decay:
        reasons.append(("weight_decay", "the weight decay is left as it is"))
    if optimizer.clip_norm is not None:
        reasons.append(("clipping", "the threshold of the clipping is left as it is"))
    if examined.is_random:
        reasons.append(("dropout", "dropout draws at random"))
    return reasons


def _changes(examined: Examined, rule: LrRule) -> str:
    """In which of its settings the exact rule is more than one rate for all."""
    optimizer, exponents = examined.optimizer, _exponents(examined)
    power = "" if rule.depth == 1 else f"1/{rule.depth}"
    unit = f"c^({power})" if power else "c"
    parts = []
    if rule.name == "normalised":
        parts.append(
            f"a = {unit}; rates times a^-{examined.power}e, "
            f"{exponents_in_words(exponents)} (normalisation)"
        )
    elif set(exponents.values()) - {1.0}:
        parts.append(
            f"a = {unit}; rates times a^-{examined.power}e, {exponents_in_words(exponents)} (biases)"
        )
    if isinstance(optimizer, Adam | AdamW):
        parts.append(f"epsilon times {unit}")
    if optimizer.weight_decay:
        squared = isinstance(optimizer, Sgd | Adam)
        parts.append(f"penalty times {unit}^2" if squared else f"decay times {unit}")
    if optimizer.clip_norm is not None:
        parts.append(f"the norm for clipping is that of gradients times {unit}^-1")
    return "; ".join(parts)


def _masks(examined: Examined) -> str:
    return "dropout draws the same masks in both runs" if examined.is_random else ""


_SETTINGS = (("lr", "rate"), ("weight_decay", "penalty"), ("eps", "epsilon"))


def _read_settings(
    examined: Examined, draw: Draw, rule: LrRule
) -> tuple[str, str, tuple[MeasuredExponent, ...]]:
    """What a user's optimizer gives at both multipliers, against the exact rule.

    Returns:
        (code, sentence, exponents of c measured and wanted), the worst of what differs in words.
    """
    factory, scaling = examined.optimizer_factory, examined.scaling
    assert factory is not None
    assert scaling is not None
    c = examined.own_c * draw.ratio
    given: list[dict[str, dict[str, float]]] = []
    made: list[torch.optim.Optimizer] = []
    for multiplier in (examined.own_c, c):
        net = examined.net(draw, multiplier)
        made.append(factory(net, output_multiplier=multiplier))
        names = {id(p): name for name, p in net.named_parameters()}
        given.append(
            {
                names[id(p)]: {key: float(group[key]) for key, _ in _SETTINGS if key in group}
                for group in made[-1].param_groups
                for p in group["params"]
                if id(p) in names
            }
        )
    adam = "eps" in made[0].param_groups[0]
    decoupled = isinstance(made[0], torch.optim.AdamW)
    exponents: list[MeasuredExponent] = []
    wrong: list[tuple[str, str]] = []
    for name, before in given[0].items():
        follow = factors(rule, 1 if adam else 2, name, draw.ratio)
        wanted = {
            "lr": follow.lr * exact_rate_factor(rule, 1 if adam else 2, draw.ratio),
            "weight_decay": follow.decay if decoupled else follow.l2,
            "eps": follow.epsilon,
        }
        for key, word in _SETTINGS:
            if not before.get(key) or not given[1].get(name, {}).get(key):
                continue
            found = math.log(given[1][name][key] / before[key]) / math.log(draw.ratio)
            right = math.log(wanted[key]) / math.log(draw.ratio)
            exponents += measured_exponent(f"{word} of {name} against c", found, right)
            if abs(found - right) > 1e-6:
                wrong.append(
                    (
                        f"{'bias_' if name.endswith('bias') else ''}{word}",
                        f"the {word} of {name} goes as c^{found:.3g}, exact is c^{right:.3g}",
                    )
                )
    if not wrong:
        text = (
            "The optimizer does not keep the function as c changes, although the rates, penalties and "
            "epsilons of its groups follow c: something in its step does not, such as a clipping."
        )
        return "own_optimizer", text, tuple(exponents)
    more = f", and {len(wrong) - 3} more" if wrong[3:] else ""
    text = "; ".join(words for _, words in wrong[:3])
    return wrong[0][0], f"{text[:1].upper()}{text[1:]}{more}.", tuple(exponents)
