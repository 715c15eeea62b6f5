"""Invariants that hold in the limit or on average: how c moves weights, and where training tends to."""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from fls_bench.invariants import structure
from fls_bench.invariants.claims import Draw, decided, measured_exponent, void
from fls_bench.invariants.twins import Examined, Run, apart, roughened
from fls_bench.report.summary import mean_interval, t_quantile
from fls_bench.schema import (
    InvariantFinding,
    InvariantName,
    MeasuredExponent,
    Outcome,
    Sgd,
    TargetLoss,
)

NUM_SEEDS = 7
LEVEL = 1 - 1e-4
"""Of the interval that has to leave out 0: a direction that is not there is seen in 5e-5 of cases."""
OCTAVES = 2
"""Movement is compared at 2^-2 and at 2^2 times the setup's multiplier."""
TARGET_SHARE = 0.5
MAX_EPOCHS = 200
RATE_FACTORS = (4.0, 1.0, 16.0)
"""On the rule's rate, tried in turn: the setup's own rate need not fit so few points."""
NUM_LAZY_STEPS = 40
NUM_LAZY_SEEDS = 5
LAZY_OCTAVES = (8, 14)
MIN_LAZY_POWER, MAX_LAZY_POWER, MIN_NOT_LAZY_POWER = -2.5, -0.5, -0.1
ROUNDED, NEAR = 1e-9, 0.05
"""Distances that are rounding; and one beyond which a net is not its linearisation."""


def check_movement(examined: Examined, draw: Draw) -> InvariantFinding:
    """Trained to one loss, weights move less relative to where they start as c grows.

    So smaller c is larger feature learning strength. At 2^-2 and 2^2 times the setup's multiplier, 7
    seeds, each pair with one net and one set of points; the exponent of movement against c is averaged.
    Held where Student's interval at 99.99 % lies below 0, broken where it lies above: were there no
    direction, either would happen in 5e-5 of cases. The norm is over the weight matrices that follow c.

    Void where training does not reach the target at both c, or the interval holds 0.

    Source: Chizat, Oyallon, Bach, "On Lazy Training" (arXiv 1812.07956), section 1; AMSP (arXiv
    2410.04642).
    """
    name: InvariantName = "movement"
    first = replace(draw, batch_size=3, num_batches=3, epochs=1)
    sides = (-OCTAVES, OCTAVES)
    factors = [_rate_factor(examined, first, 2.0**octaves) for octaves in sides]
    powers = []
    for seed in range(draw.seed, draw.seed + NUM_SEEDS):
        one = replace(first, seed=seed)
        small, large = (
            None if factor is None else _movement(examined, one, 2.0**octaves, factor)
            for octaves, factor in zip(sides, factors, strict=True)
        )
        if not small or not large:
            text = (
                f"Training did not reach {100 * TARGET_SHARE:.0f} % of the loss of chance at "
                f"2^-{OCTAVES} and at 2^{OCTAVES} times c within {MAX_EPOCHS} epochs of 9 points."
            )
            return void(name, "target_not_reached", text)
        powers.append(math.log2(large / small) / (2 * OCTAVES))
    exponents = _mean("movement against c", powers)
    width = t_quantile(LEVEL, NUM_SEEDS - 1) * statistics.stdev(powers) / math.sqrt(NUM_SEEDS)
    mean = statistics.fmean(powers)
    if abs(mean) <= width:
        text = f"Movement goes as c^{mean:.2g} ± {width:.2g} (99.99 %): no direction is seen."
        return void(name, "no_direction", text, exponents=exponents)
    if mean > 0:
        text = f"Weights move more as c grows (as c^{mean:.2g}): the direction is flipped."
        return InvariantFinding(
            invariant=name, status="broken", code="direction", text=text, exponents=exponents,
            num_examples=NUM_SEEDS,
        )  # fmt: skip
    text = f"Weights move less at larger c, as c^{mean:.2g}."
    return InvariantFinding(
        invariant=name, status="held", text=text, exponents=exponents, num_examples=NUM_SEEDS
    )


def _rate_factor(examined: Examined, draw: Draw, ratio: float) -> float | None:
    """The first factor on the rule's rate with which training reaches the target, or None.

    Chosen on one seed and kept for all: what is compared is the way to one loss, not a rate.
    """
    tried = RATE_FACTORS if examined.optimizer_factory is None else RATE_FACTORS[:1]
    return next((k for k in tried if _movement(examined, draw, ratio, k) is not None), None)


def _movement(examined: Examined, draw: Draw, ratio: float, factor: float) -> float | None:
    """|W - W_0| / |W_0| over the matrices that follow c; None where the target was not reached."""
    c = examined.own_c * ratio
    net, task = examined.net(draw, c), examined.data(draw)
    chance = math.log(2 if examined.setup.loss == "logistic" else task.n_classes)
    if examined.setup.loss == "mse":
        chance = (1 - 1 / task.n_classes) / task.n_classes
    run = examined.train(
        net, task, draw, c=c, lr=factor * examined.rate(ratio), rule=examined.rule,
        stop=TargetLoss(target_loss=TARGET_SHARE * chance, max_epochs=MAX_EPOCHS),
    )  # fmt: skip
    if run.outcome is not Outcome.REACHED_TARGET:
        return None
    scaling = examined.scaling
    before = {
        k: p.detach() for k, p in net.named_parameters()
        if p.ndim > 1 and (scaling is None or scaling.exponents.get(k, 1.0) > 0)
    }  # fmt: skip
    change = sum(float((run.final[k] - p).square().sum()) for k, p in before.items())
    size = sum(float(p.square().sum()) for p in before.values())
    return math.sqrt(change / size) if size > 0 else None


def check_balance(examined: Examined, draw: Draw) -> InvariantFinding:
    """|w_j|^2 - |v_j|^2 of each hidden unit drifts in proportion to the step, at fixed flow time.

    Gradient flow conserves it; full-batch gradient descent changes it by the squared step in each of
    1/step steps. The exponent of the drift against the step is measured between a step and a quarter of
    it and has to lie within 1 ± 0.25.

    Void where no two layers pass their units through a positively homogeneous activation alone, with a
    bias in the first of them or one of them frozen, for anything but plain SGD without penalty,
    clipping and schedule, and where the refinements of the step disagree.

    Source: Du, Hu, Lee, "Algorithmic regularization in learning deep homogeneous models" (arXiv
    1806.00900), theorem 2.1; the linear drift is own derivation.
    """
    name: InvariantName = "balance"
    own = examined.setup.optimizer
    plain = isinstance(own, Sgd) and not (
        own.momentum or own.weight_decay or own.clip_norm or own.schedule
    )
    if examined.optimizer_factory is not None or not plain or examined.is_random:
        text = "Only plain gradient descent follows the flow that conserves it."
        return void(name, "not_gradient_flow", text)
    net, task = examined.net(draw, examined.own_c), examined.data(draw)
    x = torch.as_tensor(task.x_test)
    units = [pair for pair in structure.pairs(net, x) if _conserves(examined, net, pair, x)]
    if not units:
        text = (
            "No two trained layers without biases pass units through a positively homogeneous "
            "activation alone."
        )
        return void(name, "not_positively_homogeneous", text)
    drifts = []
    for refined in (1, 4, 16):
        run = examined.train(
            net, task, replace(draw, epochs=16 * refined), c=examined.own_c,
            lr=examined.optimizer.lr / 16 / refined, rule=examined.rule, batch_size=draw.num_points,
        )  # fmt: skip
        found = examined.obstacle(name, draw, run, 1.0)
        if found is not None:
            return found
        drifts.append(
            sum(float((_balance(run, p) - _balance_of(net, p)).abs().sum()) for p in units)
        )
    size = sum(float(_balance_of(net, p).abs().sum()) for p in units)
    if not drifts[0] > 1e-10 * size:
        return void(name, "did_not_move", "Training did not move the net.")
    if not min(drifts) > 0:
        return void(name, "did_not_move", "Training did not move the net.")
    coarse, power = (math.log(a / b) / math.log(4) for a, b in itertools.pairwise(drifts))
    if abs(coarse - power) > 0.1:
        text = "The step is too large for its refinements to agree: a smaller rate would decide."
        return void(name, "too_sensitive", text)
    wrong = ("balance", f"The drift goes as the step to the power of {power:.3g}, not as the step.")
    exponents = measured_exponent("drift against the step", power, 1.0)
    found = decided(name, abs(power - 1), 0.25, wrong=wrong, exponents=exponents)
    text = f"The drift goes as the step to the power of {power:.3g}."
    return found.model_copy(update={"text": text} if found.status == "held" else {})


def _conserves(examined: Examined, net: nn.Module, pair: structure.Pair, x: Tensor) -> bool:
    first = net.get_submodule(pair.first)
    second = net.get_submodule(pair.second)
    trained = all(layer.weight.requires_grad for layer in (first, second))
    if getattr(first, "bias", None) is not None or not trained:
        return False
    rough = roughened(net, 0)
    factors = 2.0 ** (1 + torch.arange(structure.num_units(net, pair)).double() % 3)
    changed = structure.rescaled(rough, pair, factors)
    if changed is None:
        return False
    # In both modes: at init a normalisation in evaluation mode may be the identity.
    for training in (False, True):
        f, g = (examined.logits(one, x, 1.0, training=training) for one in (rough, changed))
        if not apart(f, g) < 1e-10:
            return False
    return True


def _balance_of(net: nn.Module, pair: structure.Pair) -> Tensor:
    state = {name: p.detach() for name, p in net.named_parameters()}
    return _difference(state[f"{pair.first}.weight"], state[f"{pair.second}.weight"])


def _balance(run: Run, pair: structure.Pair) -> Tensor:
    return _difference(run.final[f"{pair.first}.weight"], run.final[f"{pair.second}.weight"])


def _difference(first: Tensor, second: Tensor) -> Tensor:
    """|w_j|^2 - |v_j|^2 of each unit [h]."""
    num = len(first)
    out = second.reshape(len(second), num, -1)
    return first.reshape(num, -1).square().sum(1) - out.square().sum((0, 2))


def check_lazy_limit(examined: Examined, draw: Draw) -> InvariantFinding:
    """As c grows, training the centred net c·(f - f_0) becomes regression with its tangent kernel.

    40 steps of full-batch gradient descent on the squared error, at c = 2^8 and 2^14 times the setup's,
    against as many steps of gradient descent on the kernel regression of y with the tangent kernel at
    init (which tends to K(x, X) K(X, X)^-1 y). The distance of the predictions goes as 1/c: held where
    the exponent between the two c, mean over 5 seeds, is below -1/2, broken where it is above -0.1.
    Without centring the residual y - c·f_0 grows with c itself, and training has to undo c·f_0: the
    limit is then one of large width, not of large c.

    Void with dropout and batch statistics, for optimizers of the user's own, and between the two bounds.

    Source: Chizat, Oyallon, Bach (arXiv 1812.07956), theorem 2.2; Jacot, Gabriel, Hongler (arXiv
    1806.07572), section 5.
    """
    name: InvariantName = "lazy_limit"
    if examined.is_random or examined.mixes_points or examined.custom:
        return void(
            name, "not_gradient_flow", "Its training is not that of one function of a point."
        )
    if examined.setup.loss == "logistic":
        return void(name, "one_logit", "The squared error needs one output per class.")
    squared = Examined(
        replace(
            examined.setup, loss="mse", label_smoothing=0.0, optimizer=Sgd(lr=1.0), lr_rule=None,
            stop=TargetLoss(target_loss=1e-9), centered=True,
        )
    )  # fmt: skip
    powers, farthest = [], 0.0
    for seed in range(draw.seed, draw.seed + NUM_LAZY_SEEDS):
        one = replace(draw, seed=seed)
        near, far = (
            _from_kernel_regression(squared, one, 2.0**octaves * examined.own_c)
            for octaves in LAZY_OCTAVES
        )
        if max(near, far) < ROUNDED:  # a linear net is its own linearisation at every c
            text = "At every c the nets are their linearisation up to rounding."
            return InvariantFinding(invariant=name, status="held", text=text)
        if not (0 < near < math.inf and 0 < far < math.inf):
            return void(name, "not_finite", "The distance from kernel regression is no number.")
        farthest = max(farthest, far)
        powers.append(math.log2(far / near) / (LAZY_OCTAVES[1] - LAZY_OCTAVES[0]))
    mean = statistics.fmean(powers)
    exponents = _mean("distance from kernel regression against c", powers, -1.0)
    text = f"The distance from kernel regression goes as c^{mean:.3g}."
    if MIN_LAZY_POWER <= mean <= MAX_LAZY_POWER:
        return InvariantFinding(
            invariant=name, status="held", text=text, exponents=exponents,
            num_examples=NUM_LAZY_SEEDS,
        )  # fmt: skip
    if mean < MIN_NOT_LAZY_POWER or farthest < NEAR:
        text = f"{text[:-1]}, and is {farthest:.1g} at the larger c: no limit is seen."
        return void(name, "no_limit_seen", text, exponents=exponents)
    return InvariantFinding(
        invariant=name, status="broken", code="lazy_limit", text=text, exponents=exponents,
        num_examples=NUM_LAZY_SEEDS,
    )  # fmt: skip


def _from_kernel_regression(examined: Examined, draw: Draw, c: float) -> float:
    """Distance of a trained net's predictions from those of its linearisation, relative."""
    sized = replace(draw, batch_size=4, num_batches=1, epochs=NUM_LAZY_STEPS)
    task, net = examined.data(sized), examined.net(sized, c)
    x, probes = (torch.as_tensor(part) for part in (task.x_train, task.x_test))
    wanted = one_hot(torch.as_tensor(task.y_train), task.n_classes).double().flatten()
    jacobian, across = (_jacobian(examined, net, part, c) for part in (x, probes))
    kernel, to_probes = jacobian @ jacobian.T, across @ jacobian.T
    # The gradient of the mean over points and classes is 2 / (n K) that of half the squared sum.
    step = 1 / float(torch.linalg.eigvalsh(kernel)[-1])
    run = examined.train(
        net, task, sized, c=c, lr=step * len(wanted) / 2, rule=examined.rule, own_c=c,
        batch_size=len(x),
    )  # fmt: skip
    f, predicted = torch.zeros_like(wanted), torch.zeros(len(across), dtype=across.dtype)
    for _ in range(NUM_LAZY_STEPS):
        residual = wanted - f
        f = f + step * (kernel @ residual)
        predicted = predicted + step * (to_probes @ residual)
    size = float(predicted.norm())
    return float((run.outputs.flatten() - predicted).norm()) / size if size > 0 else math.nan


def _jacobian(examined: Examined, net: nn.Module, x: Tensor, c: float) -> Tensor:
    """Derivatives of all logits by all trained parameters [n·K, P]."""
    factor = c if examined.setup.route == "wrapper" else 1.0
    trained = [p for p in net.parameters() if p.requires_grad]
    with torch.enable_grad():
        outputs = (factor * net.eval()(x)).flatten()
        rows = [
            torch.autograd.grad(one, trained, retain_graph=True, materialize_grads=True)
            for one in outputs
        ]
    return torch.stack([torch.cat([value.flatten() for value in row]) for row in rows])


def _mean(
    what: str, values: list[float], wanted: float | None = None
) -> tuple[MeasuredExponent, ...]:
    """The mean of some exponents with its interval."""
    known = [value for value in values if math.isfinite(value)]
    mean = mean_interval(known)
    if mean is None:
        return ()
    return (
        MeasuredExponent(
            what=what, value=mean.value, low=mean.low, high=mean.high, wanted=wanted, n=mean.n
        ),
    )
