"""What to change: in words, in numbers, and as code to paste."""

from __future__ import annotations

import math

from fls_bench.scaling import factors, format_multiplier, rate_power, usual_exponent
from fls_bench.schema import DIRECTION, AdamW, Code, CStar, Recommendation, Regime, Sgd
from fls_bench.verdict.evidence import Evidence, points_of, symbol_of


def recommend(
    evidence: Evidence, regime: Regime, star: CStar | None, reason: Code
) -> Recommendation:
    """The recommendation that goes with a regime.

    Args:
        evidence: The sweep and what goes with it.
        regime: The regime.
        star: c*, or None.
        reason: Why, for an inconclusive one.

    Returns:
        A change with its snippet for over-aligned and over-fitted, else none.
    """
    c, sweep = evidence.c, evidence.sweep
    if regime is Regime.NEAR_OPTIMAL:
        return Recommendation(
            multiply_output_by=1.0,
            text=f"Keep {symbol_of(sweep)} = {format_multiplier(c)}. ({DIRECTION}.)",
        )
    if regime is Regime.INCONCLUSIVE or star is None:
        return Recommendation(text=f"No change is recommended. {_next_step(reason)}")
    rates = {cell.c: cell.lr for cell in sweep.cells}
    before, after = rates[c], rates[star.value]
    ratio = star.value / c
    on_scale = sweep.axis == "init_scale"
    what = "Multiply the initial weights by" if on_scale else "Multiply the output by"
    gain = ""
    if evidence.gain is not None:
        gain = (
            f" Expected gain on test data: {points_of(evidence.gain)} of accuracy "
            f"({evidence.gain.num_seeds} fresh seeds)."
        )
    return Recommendation(
        multiply_output_by=None if on_scale else ratio,
        multiply_init_by=ratio if on_scale else None,
        learning_rate=(before, after),
        expected_gain=evidence.gain,
        text=f"{what} {_number(ratio)} ({symbol_of(sweep)}: {format_multiplier(c)} -> "
        f"{format_multiplier(star.value)}); learning rate {before:.3g} -> {after:.3g}.{gain}"
        + _about_rates(evidence, after),
        snippet=snippet(evidence, star.value, before, after),
    )


def _about_rates(evidence: Evidence, after: float) -> str:
    """Whether tuning the learning rate alone may do as much, and whether another is better at c*."""
    symbol = symbol_of(evidence.sweep)
    for one in evidence.rates:
        if one.c != evidence.c:
            continue
        text = ""
        if one.gain.low <= 0:
            text = (
                f" But the learning rate alone may do as much: at the present {symbol} with a rate of "
                f"{one.lr_at_c:.3g}, test accuracy is not told from that of {symbol}* at its own best "
                f"rate ({points_of(one.gain)} for {symbol}*)."
            )
        if one.lr_at_c_star != after:
            text += (
                f" At {symbol}* a rate of {one.lr_at_c_star:.3g} had the lowest validation error of "
                "those tried."
            )
        return text
    return ""


def _number(value: float) -> str:
    """A factor as people write it: 16, 1/16, 0.3."""
    if value < 1 and abs(1 / value - round(1 / value)) < 1e-9:
        return f"1/{round(1 / value)}"
    return f"{value:.6g}"


def _python(value: float) -> str:
    """A multiplier as Python: a power of two as such, else the shortest exact number."""
    exponent = math.log2(value)
    return f"2**{round(exponent)}" if exponent == round(exponent) else repr(value)


def snippet(
    evidence: Evidence, star: float, before: float, after: float, rate_factor: float = 1.0
) -> str:
    """The recommended change as code to paste: what was trained at c*, nothing else.

    Args:
        evidence: The sweep and what is known of the setup.
        star: The value on the axis that is recommended; the setup's own where only the rate changes.
        before: The rate now.
        after: The rate there.
        rate_factor: ``after`` over the rate that the rule gives there.

    Returns:
        Lines of Python.
    """
    sweep, c, advised = evidence.sweep, evidence.c, evidence.advised
    lines = []
    if star == c:
        pass
    elif sweep.axis == "init_scale":
        lines = [
            "with torch.no_grad():",
            "    for parameter in model.parameters():  # as your own code initialises them",
            f"        parameter.mul_({_number(star / c)})  # alpha {_python(c)} -> {_python(star)}",
        ]
    elif advised.route == "factory":
        lines = [f"model = build(output_multiplier={_python(star)})  # was {_python(c)}"]
    else:
        f = "(model(x) - initial_model(x))" if sweep.centered else "model(x)"
        lines = [f"logits = {_python(star)} * {f}  # was {_python(c)} * {f}"]
    lines += _optimizer(evidence, 1.0 if sweep.axis == "init_scale" else star / c, before, after)
    own = advised.optimizer
    plain = isinstance(own, Sgd) and not (own.weight_decay or own.clip_norm)
    ruled = all(not cell.lr_calibrated for cell in sweep.cells if cell.c == star)
    if advised.built_in and plain and ruled and not sweep.lr_rule.exponents:
        option = "--init-scale" if sweep.axis == "init_scale" else "--output-multiplier"
        rate = "as before" if rate_factor == 1 else f"times {_number(rate_factor)}"
        lines.append(
            f"# with fls-bench train: {option} {format_multiplier(star)}, --lr {rate} (it is the "
            "rate at c = 1)"
        )
    return "\n".join(lines)


def _optimizer(evidence: Evidence, ratio: float, before: float, after: float) -> list[str]:
    """The optimizer with the settings that were trained with at c* = ratio times c."""
    own, rule = evidence.advised.optimizer, evidence.sweep.lr_rule
    if evidence.advised.custom:
        return [f"# learning rate of your own optimizer: {after:.4g}  # was {before:.4g}"]
    usual = usual_exponent(rule)
    special = {name: e for name, e in rule.exponents.items() if e != usual} if ratio != 1 else {}
    one_for_all: list[str] = []
    if isinstance(own, Sgd):
        kind = "SGD"
        one_for_all += [f"momentum={own.momentum:g}"] if own.momentum else []
        one_for_all += ["nesterov=True"] if own.nesterov else []
    else:
        kind = "AdamW" if isinstance(own, AdamW) else "Adam"
        one_for_all += [f"betas=({own.beta1:g}, {own.beta2:g})"]

    def settings(name: str, scale: float, lr: float) -> list[str]:
        by = factors(rule, rate_power(own), name, scale)
        listed = [f"lr={lr * by.lr:.4g}"]
        if own.weight_decay:
            decay = own.weight_decay * (by.decay if isinstance(own, AdamW) else by.l2)
            listed.append(f"weight_decay={decay:.4g}")
        if not isinstance(own, Sgd):
            listed.append(f"eps={own.epsilon * by.epsilon:.4g}")
        return listed

    was = ", ".join(settings("", 1.0, before))
    lines: list[str]
    if not special:
        arguments = ", ".join([*settings("", ratio, after), *one_for_all])
        lines = [f"optimizer = torch.optim.{kind}(model.parameters(), {arguments})  # was {was}"]
    else:
        by_exponent = {special[name]: name for name in special} | {usual: ""}
        lines = [
            f"exponents = {_listed(special)}  # all others: {usual:g}",
            "settings = {",
            *(
                f"    {e:g}: dict({', '.join(settings(by_exponent[e], ratio, after))}),"
                for e in sorted(by_exponent)
            ),
            f"}}  # were {was} for all parameters",
            "groups = [",
            f'    {{"params": [p], **settings[exponents.get(name, {usual:g})]}}',
            "    for name, p in model.named_parameters()",
            "]",
            f"optimizer = torch.optim.{kind}({', '.join(['groups', *one_for_all])})",
        ]
    if own.clip_norm is not None and ratio != 1:
        by = factors(rule, rate_power(own), "", ratio)
        lines.append(
            f"# clip gradients at a norm of {own.clip_norm / by.clip:.4g}  # was {own.clip_norm:.4g}"
            if not special
            else f"# clip at {own.clip_norm:.4g} as before, but the norm of gradients times "
            f"{_number(ratio)}**(-exponent / {rule.depth})"
        )
    return lines


def _listed(special: dict[str, float]) -> str:
    return "{" + ", ".join(f'"{name}": {e:g}' for name, e in special.items()) + "}"


def _next_step(reason: Code) -> str:
    """What would decide, where the reason does not say so already."""
    return {
        "too_few_seeds": "More seeds (--max-seeds) or more test data would decide.",
        "one_side_missing": "A larger --max-epochs would let that side train to its target.",
        "two_optima": "Look at the curve: the regime of this c is not a matter of side.",
        "not_confirmed": "More seeds (--max-seeds) or a larger --budget would decide.",
    }.get(reason.code, "See the reason above for what would decide.")
