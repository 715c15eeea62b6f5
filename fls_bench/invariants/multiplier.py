"""Invariants of the multiplier at fixed weights: what c does to the function, its loss, its kernel."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from fls_bench.invariants.claims import Draw, decided, measured_exponent, void
from fls_bench.invariants.twins import (
    DISTURBANCE,
    Examined,
    apart,
    deviation,
    disturbed,
    roughened,
)
from fls_bench.schema import InvariantFinding, InvariantName, MeasuredExponent
from fls_bench.training.runs import make_net, training_losses

NUM_POINTS = 3
"""Points of a tangent kernel: its entries are products of single gradients."""


def check_routes(examined: Examined, draw: Draw) -> InvariantFinding:
    """build(output_multiplier=c) computes c times what build() computes, and both train alike.

    The multiplier around the net (wrapper) and inside of it (factory) are then one function, in
    training and in evaluation mode, before and after training. It finds a multiplier that is applied
    twice, not at all, inverted, only in the loss, or whose default is not 1.

    Void where the builder has no parameter ``output_multiplier``: the multiplier is then put around
    the net, and there is nothing to agree with.

    Source: the definition of the output multiplier, c·f(x) (YHL, arXiv 2602.00827, section 2).
    """
    name: InvariantName = "routes"
    if "output_multiplier" not in examined.setup.builder_parameters:
        text = "The builder has no output_multiplier: the multiplier is put around the net."
        return void(name, "wrapper_only", text)
    if (blind := examined.blind(name)) is not None:
        return blind
    c = examined.own_c * draw.ratio
    # The plain net is built without the argument, so that its default counts.
    inside = Examined(replace(examined.setup, multiplier_route="factory"))
    plain, at_one, wired = (
        _built_without(examined, draw),
        inside.net(draw, 1.0),
        inside.net(draw, c),
    )
    x = torch.as_tensor(examined.data(draw).x_test)
    bound = examined.bound(draw, function_amplification(examined, plain, x), 1)
    exponents: list[MeasuredExponent] = []
    powers: list[float] = []
    worst, where = 0.0, ""
    for mode in ("evaluation", "training"):
        f, one, g = (
            examined.logits(roughened(net, draw.seed), x, 1.0, training=mode == "training")
            for net in (plain, at_one, wired)
        )
        found = apart(c * f, g)
        powers.append(_power(float(g.norm() / one.norm()), c))
        exponents += measured_exponent(f"output in {mode} mode against c", powers[-1], 1.0)
        if not found <= worst:
            worst, where = found, mode
    if worst <= bound:
        run, amplified = examined.base(draw, full_batch=False)
        obstacle = examined.obstacle(name, draw, run, amplified)
        if obstacle is None:
            worst = _trained_apart(examined, draw, wired, plain, c)
            bound = examined.bound(draw, amplified, draw.num_steps)
            where = "training"
    wrong = _what_is_wrong(powers, where)
    return decided(name, worst, bound, wrong=wrong, exponents=tuple(exponents))


def _built_without(examined: Examined, draw: Draw) -> nn.Module:
    setup = examined.setup
    build = setup.make_model
    with_seed = "seed" in setup.builder_parameters
    multiplier = inspect.signature(build).parameters["output_multiplier"]
    has_default = multiplier.default is not inspect.Parameter.empty

    def plain(seed: int | None = None) -> nn.Module:
        given: dict[str, float | int | None] = {"seed": seed} if with_seed else {}
        if not has_default:
            given["output_multiplier"] = 1.0
        net: nn.Module = build(**given)
        return net

    def unseeded() -> nn.Module:
        return plain()

    make = plain if with_seed else unseeded
    own = replace(setup, make_model=make, multiplier_route="wrapper")
    net = make_net(own, draw.seed, 1.0, torch.float64)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(setup.init_scale)
    return net


def _trained_apart(
    examined: Examined, draw: Draw, wired: nn.Module, plain: nn.Module, c: float
) -> float:
    """How far a net with c inside and one with c around it are apart after the same training."""
    runs = []
    for route, net in (("factory", wired), ("wrapper", plain)):
        own = Examined(
            replace(examined.setup, multiplier_route=route),  # type: ignore[arg-type]
            examined.optimizer_factory,
        )
        runs.append(
            own.train(
                net,
                examined.data(draw),
                draw,
                c=c,
                lr=examined.rate(draw.ratio),
                rule=examined.rule,
            )
        )
    return deviation(*runs)


def _what_is_wrong(powers: list[float], where: str) -> tuple[str, str]:
    """What the powers of c, in evaluation and in training mode, say of a mistake."""
    evaluation, training = powers
    if abs(evaluation - training) > 0.05:
        return "modes_differ", (
            f"The multiplier acts in one mode only: as c^{training:.3g} in training mode, which the "
            f"loss sees, and as c^{evaluation:.3g} in evaluation mode, which is measured."
        )
    power = training
    if abs(power - 2) < 0.05:
        return "applied_twice", "The multiplier is applied twice: the output goes as c^2."
    if abs(power) < 0.05:
        return "ignored", "The builder takes output_multiplier, but the output does not follow it."
    if abs(power + 1) < 0.05:
        return "inverted", (
            "The direction is flipped: the output goes as 1/c, so that smaller c would mean smaller "
            "FLS."
        )
    if abs(power - 1) > 1e-6 and math.isfinite(power):
        return "wrong_exponent", f"The output goes as c^{power:.4g}, not as c."
    return "routes_differ", (
        f"The net with the multiplier inside is not c times the net without, in {where} mode: the "
        "multiplier does not act on the logits alone, or its default is not 1."
    )


def function_amplification(examined: Examined, net: nn.Module, x: Tensor) -> float:
    """Of a relative change of the weights, in the outputs, at fixed weights."""
    f, g = (examined.logits(one, x, 1.0) for one in (net, disturbed(net)))
    found = apart(f, g) / DISTURBANCE
    return found if math.isfinite(found) else 1.0


def check_temperature(examined: Examined, draw: Draw) -> InvariantFinding:
    """The cross-entropy of c·f is the cross-entropy of f at softmax temperature 1/c.

    The loss that is trained on, of the logits at c, against softmax(f / T) with T = 1/c computed from
    the logits at c = 1; with label smoothing alike, and for one logit the sigmoid in place of softmax.

    Void for the mean squared error, which has no temperature.

    Source: AMSP (arXiv 2410.04642), section 2; Agarwala et al., "Temperature check" (arXiv
    2010.07344), equation 2.
    """
    name: InvariantName = "temperature"
    setup = examined.setup
    if setup.loss == "mse":
        return void(name, "no_temperature", "The mean squared error has no temperature.")
    if (blind := examined.blind(name)) is not None:
        return blind
    c, task = draw.ratio, examined.data(draw)
    x, y = torch.as_tensor(task.x_test), torch.as_tensor(task.y_test)
    f = examined.logits(examined.net(draw, 1.0), x, 1.0)
    found = training_losses(setup, examined.logits(examined.net(draw, c), x, c), y)
    temperature = 1 / c
    if setup.loss == "logistic":
        wanted = functional.binary_cross_entropy_with_logits(
            f[:, 0] / temperature, y.to(f.dtype), reduction="none"
        )
    else:
        wanted = functional.cross_entropy(
            f / temperature, y, label_smoothing=setup.label_smoothing, reduction="none"
        )
    # A loss is a difference of logits: rounding is relative to these.
    size = max(1.0, float((f / temperature).abs().max()))
    bound = examined.bound(draw, 1.0, 1)
    found_apart = apart(found / size, wanted / size, 1.0)
    wrong = (
        "loss_differs",
        "The loss at c is not that of the softmax at temperature 1/c: c does not multiply the logits.",
    )
    return decided(name, found_apart, bound, wrong=wrong)


def check_tangent_kernel(examined: Examined, draw: Draw) -> InvariantFinding:
    """The tangent kernel of c·f is c^2 times that of f; scaled parameters have c^(-2/L) times that.

    The first at fixed weights, for any net. The second compares the two nets that are one function:
    parameters times a^e at multiplier 1, a = c^(1/L), have gradients a^-e times those of the
    parameters themselves at multiplier c; so kernels have to be compared after division by their size.
    The exponents of the gradients are also those of the exact learning rates, -2e/L.

    Void never; the second part says nothing where the net is not quasi-homogeneous.

    Source: Jacot, Gabriel, Hongler (arXiv 1806.07572), section 3; YHL section 2 for c = alpha^L.
    """
    name: InvariantName = "tangent_kernel"
    if (blind := examined.blind(name)) is not None:
        return blind
    ratio = draw.ratio
    x = torch.as_tensor(examined.data(draw).x_test)[:NUM_POINTS]
    plain = roughened(examined.net(draw, examined.own_c), draw.seed)
    multiplied = roughened(examined.net(draw, examined.own_c * ratio), draw.seed)
    own = _gradients(examined, plain, x, examined.own_c)
    at_c = _gradients(examined, multiplied, x, examined.own_c * ratio)
    kernel, larger = _kernel(own), _kernel(at_c)
    worst = apart(larger, ratio**2 * kernel)
    power = _power(float(larger.trace() / kernel.trace()), ratio)
    exponents = [*measured_exponent("tangent kernel against c", power, 2.0)]
    # Squares double a relative error, and a gradient is as sensitive as two outputs.
    shaken = _gradients(examined, disturbed(plain), x, examined.own_c)
    conditioning = apart(_flat(own), _flat(shaken)) / DISTURBANCE
    amplified = max(conditioning, function_amplification(examined, plain, x))
    bound = 4 * examined.bound(draw, amplified, 2)
    wrong = ("kernel_exponent", f"The tangent kernel goes as c^{power:.4g}, not as c^2.")
    scaling = examined.scaling
    if worst <= bound and scaling is not None:
        a = ratio ** (1 / scaling.depth)
        scaled = scaled_parameters(plain, scaling.exponents, a)
        small = _gradients(examined, scaled, x, examined.own_c)
        trained = {k: e for k, e in scaling.exponents.items() if k in small}  # not the frozen ones
        for names in _alike(trained):
            e = scaling.exponents[names[0]]
            left = torch.cat([small[k].flatten() for k in names])
            right = torch.cat([at_c[k].flatten() for k in names])
            if not float(right.norm()) > 1e-6 * math.sqrt(float(larger.trace())):
                continue
            worst = max(worst, apart(left, a**-e * right))
            found = 2 * _power(float(left.norm() / right.norm()), a) / scaling.depth
            exponents += measured_exponent(
                f"SGD rate of {names[0]}" + (f" and {len(names) - 1} more" if names[1:] else ""),
                found,
                -2 * e / scaling.depth,
            )
        wrong = (
            "kernel_of_scaled",
            "Gradients of scaled parameters do not have the scale c^(-e/L).",
        )
    return decided(name, worst, bound, wrong=wrong, exponents=tuple(exponents))


def check_parameter_scale(examined: Examined, draw: Draw) -> InvariantFinding:
    """Parameters times a^e give a^L times the output: c and the scale of the weights are one axis.

    With e = 1 for all weights (L-homogeneous nets), e = l for the biases of layer l, e = 0 for what a
    normalisation makes scale-invariant. Checked with disturbed parameters, in both modes.

    Void where no exponents exist: activations that are not positively homogeneous (tanh, GELU)
    without a normalisation behind them, residual sums without normalisation. c still multiplies the
    output; but no learning-rate rule is exact, and rates have to be calibrated per c.

    Source: Kunin et al. (arXiv 2210.03820), definition 3.1; YHL section 2.
    """
    name: InvariantName = "parameter_scale"
    if (blind := examined.blind(name)) is not None:
        return blind
    scaling = examined.scaling
    net = roughened(examined.net(draw, examined.own_c), draw.seed)
    x = torch.as_tensor(examined.data(draw).x_test)
    f = examined.logits(net, x, 1.0)
    if scaling is None:
        a = 2.0 ** math.copysign(0.25, draw.quarter_octaves)
        scaled = scaled_parameters(net, dict.fromkeys(dict(net.named_parameters()), 1.0), a)
        local = _power(float(examined.logits(scaled, x, 1.0).norm() / f.norm()), a)
        what = "output against a common scale of all parameters, near 1"
        text = (
            "The net is not quasi-homogeneous: its output is no power of the scale of its "
            "parameters, so no learning-rate rule is exact for it."
        )
        exponents = measured_exponent(what, local, None)
        return void(name, "not_homogeneous", text, exponents=exponents)
    a = draw.ratio ** (1 / scaling.depth)
    scaled = scaled_parameters(net, scaling.exponents, a)
    bound = examined.bound(draw, function_amplification(examined, net, x), 1)
    worst = 0.0
    for training in (False, True):
        before, after = (examined.logits(one, x, 1.0, training=training) for one in (net, scaled))
        worst = max(worst, apart(after, a**scaling.depth * before))
    power = _power(float(examined.logits(scaled, x, 1.0).norm() / f.norm()), a)
    found = measured_exponent("output against the scale of the parameters", power, scaling.depth)
    wrong = ("not_homogeneous", f"The output goes as the {power:.4g}th power of the scale.")
    rule = None
    if any(e != 1 for e in scaling.exponents.values()):
        rule = f"with the exponents {exponents_in_words(scaling.exponents)}"
    return decided(name, worst, bound, wrong=wrong, rule=rule, exponents=found)


# --- parts ----------------------------------------------------------------------------------


def scaled_parameters(net: nn.Module, exponents: Mapping[str, float], a: float) -> nn.Module:
    """A copy whose parameters are times a^e each."""
    scaled = copy.deepcopy(net)
    with torch.no_grad():
        for name, parameter in scaled.named_parameters():
            parameter.mul_(a ** exponents.get(name, 0.0))
    return scaled


def exponents_in_words(exponents: Mapping[str, float]) -> str:
    """The exponents, those that are equal together."""
    parts = []
    for names in _alike(exponents):
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
        parts.append(f"e = {exponents[names[0]]:g} for {shown}")
    return "; ".join(parts)


def _alike(exponents: Mapping[str, float]) -> list[list[str]]:
    """Names by exponent, the commonest exponent first."""
    groups: dict[float, list[str]] = {}
    for name, e in exponents.items():
        groups.setdefault(e, []).append(name)
    return sorted(groups.values(), key=len, reverse=True)


def _power(quotient: float, base: float) -> float:
    positive = quotient > 0 and math.isfinite(quotient) and base not in (0.0, 1.0)
    return math.log(quotient) / math.log(base) if positive else math.nan


def _gradients(examined: Examined, net: nn.Module, x: Tensor, c: float) -> dict[str, Tensor]:
    """Gradient of a fixed projection of the logits at each point, by parameter: [n, ...] each."""
    factor = c if examined.setup.route == "wrapper" else 1.0
    net.eval()
    generator = torch.Generator().manual_seed(0)
    direction: Tensor | None = None
    rows: dict[str, list[Tensor]] = {}
    named = {name: p for name, p in net.named_parameters() if p.requires_grad}
    for point in x:
        with torch.enable_grad():
            logits = factor * net(point.unsqueeze(0))[0]
            if direction is None:
                direction = torch.randn(len(logits), generator=generator, dtype=torch.float64)
            scalar = (logits * direction).sum()
        found = torch.autograd.grad(scalar, list(named.values()), materialize_grads=True)
        for key, gradient in zip(named, found, strict=True):
            rows.setdefault(key, []).append(gradient.detach())
    return {key: torch.stack(values) for key, values in rows.items()}


def _flat(gradients: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in gradients.values()])


def _kernel(gradients: Mapping[str, Tensor]) -> Tensor:
    flat = torch.cat([value.reshape(len(value), -1) for value in gradients.values()], dim=1)
    return flat @ flat.T
