"""Two runs that ought to be one function: how they are trained, and how far rounding takes them apart.

Everything is float64. The bound on a deviation is

    16 · u · m · (steps + 1) · max(1, A)

with u the unit roundoff 2^-53, m the number of terms of the sums that one step nests (fan-in of every
layer, points of the batch times size of an input, and 64 for softmax and norms), so that m·u bounds the
relative error of a step's arithmetic (Higham, "Accuracy and Stability of Numerical Algorithms", section
3.1), and A the amplification by the training itself, which is *measured*: a third run whose initial
weights are disturbed by 2^-36 of themselves deviates by A·2^-36; so small that a jump over a kink, which
rounding decides as well, is an amplification without bound. Where the bound exceeds ``MAX_BOUND``
a draw says nothing: it is set aside.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fls_bench.homogeneity import Scaling, has_normalisation, measured_scaling
from fls_bench.invariants.claims import DIVERGED, SENSITIVE, STILL, Draw, void
from fls_bench.scaling import rate_power, scaled_rate
from fls_bench.schema import (
    AnyOptimizer,
    InvariantFinding,
    InvariantName,
    LrRule,
    LrRuleName,
    Outcome,
    RunConfig,
    Sgd,
    TargetLoss,
)
from fls_bench.tasks import Task
from fls_bench.training import check_setup, resolve_lr_rule, user_code
from fls_bench.training.checks import one_thread
from fls_bench.training.runs import TrainedRun, make_net, seeded
from fls_bench.training.single import train_single
from fls_bench.training_setup import Custom, TrainingSetup

OptimizerFactory = Callable[..., torch.optim.Optimizer]
"""``make(net, *, output_multiplier) -> torch.optim.Optimizer``: a user's own."""

SAFETY = 16
MAX_BOUND = 1e-5
DISTURBANCE = 2.0**-36
ADAM_NOISE = 1e5
"""Amplification of rounding by Adam where a gradient is nothing but rounding, measured as below 1e5."""
NUM_PROBES = 8
"""Points on which functions are compared."""
MOVED = 100
"""A run counts as trained where its outputs moved by this many bounds."""

TRAINING_FAILED = "Training the model failed"
REMEDY = "Correct the model: it has to train in float64, from the class labels of its data."


@dataclass(frozen=True)
class Run:
    """What is compared of a finished run.

    Attributes:
        outputs: Logits of ``NUM_PROBES`` points in evaluation mode [m, K].
        in_training: Logits of the training points in training mode [n, K].
        start: ``outputs`` before training.
        size: Largest modulus of the terms of ``outputs``: c·f, and c·f_0 where centred.
        outcome: How it ended.
        final: Parameters and buffers by name.
    """

    outputs: Tensor
    in_training: Tensor
    start: Tensor
    size: float
    outcome: Outcome
    final: Mapping[str, Tensor]

    @property
    def finite(self) -> bool:
        """Whether it trained to numbers."""
        right = self.outcome not in (Outcome.DIVERGED, Outcome.FAILED)
        return right and bool(self.outputs.isfinite().all() and self.in_training.isfinite().all())


@dataclass(eq=False)
class Examined:
    """A net with its data and optimizer, ready to be tried.

    Attributes:
        setup: Whose net it is; its task gives the points. Its warm-up is left out: few steps are made.
        optimizer_factory: The user's own optimizer, told the multiplier; in place of the setup's.
    """

    setup: TrainingSetup
    optimizer_factory: OptimizerFactory | None = None
    _bases: dict[tuple[Draw, bool], tuple[Run, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.setup = self.setup.without_warmup()

    # --- facts ---

    @cached_property
    def task(self) -> Task:
        """The data from which draws take their points; checks the setup."""
        return check_setup(self.setup)

    @cached_property
    def scaling(self) -> Scaling | None:
        """Exponents under which the net is quasi-homogeneous, or None."""
        net = self.net(Draw(), self.own_c).float()
        try:
            return measured_scaling(net, torch.as_tensor(self.task.x_train[:64]))
        except Exception:  # a module that can't run in float64: said where it is trained
            return None

    @cached_property
    def rule(self) -> LrRule:
        """The rule by which the setup's rates follow c."""
        if self.optimizer_factory is not None:
            return self.exact_rule or LrRule(name="calibrated", depth=1)
        if self.exact_rule is not None and self.setup.lr_rule is None and not self.custom:
            return self.exact_rule  # what would be measured once more
        return resolve_lr_rule(self.setup, self.task)

    @cached_property
    def exact_rule(self) -> LrRule | None:
        """The exact rule of the net as it was measured, whatever the setup's own rule is."""
        if self.scaling is None:
            return None
        usual = 0.0 if self.scaling.kind == "normalised" else 1.0
        exponents = {name: e for name, e in self.scaling.exponents.items() if e != usual}
        name: LrRuleName = "normalised" if self.scaling.kind == "normalised" else "homogeneous"
        return LrRule(name=name, depth=self.scaling.depth, exponents=exponents)

    @property
    def own_c(self) -> float:
        """The setup's own multiplier."""
        return self.setup.output_multiplier

    @property
    def optimizer(self) -> AnyOptimizer:
        """The setup's optimizer."""
        return self.setup.known_optimizer

    @property
    def custom(self) -> bool:
        """Whether the optimizer is code of the user's."""
        return self.optimizer_factory is not None or isinstance(self.setup.optimizer, Custom)

    @property
    def power(self) -> int:
        """2 for SGD, 1 for Adam."""
        return rate_power(self.optimizer)

    @cached_property
    def is_random(self) -> bool:
        """Whether the net draws at random in training, as dropout does."""
        net = self.net(Draw(), self.own_c)
        x = self._points(Draw(), NUM_PROBES)
        first, second = (self.logits(net, x, 1.0, training=True, seed=seed) for seed in (0, 1))
        return not torch.equal(first, second)

    @cached_property
    def mixes_points(self) -> bool:
        """Whether in training a point's output depends on the others of its batch."""
        net = self.net(Draw(), self.own_c)
        x = self._points(Draw(), 4)
        both = (self.logits(net, x[[0, 1, k]], 1.0, training=True) for k in (2, 3))
        first, second = (one[:2] for one in both)
        return not self.is_random and apart(first, second) > 1e-9

    @cached_property
    def has_normalisation(self) -> bool:
        """Whether there are normalisation layers."""
        return has_normalisation(self.net(Draw(), self.own_c))

    @cached_property
    def divides_noise(self) -> bool:
        """Whether Adam divides rounding by its epsilon: some gradient is 0 but for rounding.

        So it is of a bias in front of a normalisation; its steps move running statistics.
        """
        if isinstance(self.optimizer, Sgd) and not self.custom:
            return False
        net = roughened(self.net(Draw(), self.own_c), 0).train()
        x, wanted = self._points(Draw(), NUM_PROBES), 0.0
        with seeded(0):
            output = net(x)
        weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).double()
        trained = [p for p in net.parameters() if p.requires_grad]
        gradients = torch.autograd.grad((output * weights).sum(), trained, materialize_grads=True)
        sizes = [float(one.abs().max()) for one in gradients if one.numel()]
        wanted = 1e-10 * max(sizes, default=0.0)
        return any(0 < size < wanted for size in sizes)

    @cached_property
    def low_precision(self) -> bool:
        """Whether the net computes in less than float64, whatever it is given."""
        net = roughened(self.net(Draw(), self.own_c), 0)  # a read-out may be 0 at init
        x = self._points(Draw(), NUM_PROBES)
        before = self.logits(net, x, 1.0)
        deviation = apart(before, self.logits(disturbed(net, 2.0**-40), x, 1.0))
        return before.dtype != torch.float64 or not 0 < deviation < 2.0**-26

    # --- nets and data ---

    def net(self, draw: Draw, c: float) -> nn.Module:
        """The setup's own net of a seed, in float64; built for c where c is wired inside."""
        with user_code("make_model failed", "Correct it, or its arguments."):
            net = make_net(self.setup, draw.seed, c, torch.float64)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(self.setup.init_scale)
        return net

    def data(self, draw: Draw) -> Task:
        """A few points of the setup's task in float64: the draw's to train on, some to compare."""
        rng = np.random.default_rng(draw.seed)
        task = self.task
        picked = rng.choice(task.n_train, draw.num_points, replace=task.n_train < draw.num_points)
        probes = rng.choice(len(task.y_test), NUM_PROBES, replace=len(task.y_test) < NUM_PROBES)
        x, y = task.x_train[picked].astype(np.float64), task.y_train[picked]
        x_test, y_test = task.x_test[probes].astype(np.float64), task.y_test[probes]
        # Arrays of float64 on purpose: what rotates them must not round them.
        return Task(task.name, task.n_classes, x, y, x_test, y_test, x_test, y_test)  # type: ignore[arg-type]

    def _points(self, draw: Draw, num: int) -> Tensor:
        sized = replace(draw, batch_size=num, num_batches=1)
        return torch.as_tensor(self.data(sized).x_train)

    def logits(
        self, net: nn.Module, x: Tensor, c: float, *, training: bool = False, seed: int = 0
    ) -> Tensor:
        """c·f(x) of a wrapped net, f(x) where c is wired inside; no centring, the net left as it is."""
        net = copy.deepcopy(net).train(training)
        with (
            torch.no_grad(),
            seeded(seed),
            user_code("Running the model failed", "Give --input-shape, or data that it takes."),
        ):
            output: Tensor = net(x)
        return (c if self.setup.route == "wrapper" else 1.0) * output

    def rate(self, ratio: float) -> float:
        """The rate of the setup's rule at its own c times a factor: stable on the lazy side too."""
        to = (self.own_c * ratio, 1.0)
        return scaled_rate(self.optimizer.lr, self.rule, self.power, at=(self.own_c, 1.0), to=to)

    # --- runs ---

    def train(
        self,
        net: nn.Module,
        task: Task,
        draw: Draw,
        *,
        c: float,
        lr: float,
        rule: LrRule,
        own_c: float | None = None,
        batch_size: int | None = None,
        stop: TargetLoss | None = None,
    ) -> Run:
        """Train a copy of a net by the plain loop.

        Args:
            net: At init.
            task: From ``data``, or changed.
            draw: Epochs, and the seed of orders and masks.
            c: The multiplier.
            lr: The rate of a parameter with the rule's usual exponent.
            rule: How the settings follow c, relative to ``own_c``.
            own_c: Where the optimizer's settings are meant as they stand; None: the setup's own.
            batch_size: None: the draw's.
            stop: None: after the draw's epochs.
        """
        stop = stop or TargetLoss(target_loss=1e-300, max_epochs=draw.epochs)
        made: list[nn.Module] = []

        def make(**_: float) -> nn.Module:
            made.append(copy.deepcopy(net))
            return made[-1]

        def make_wired(output_multiplier: float) -> nn.Module:
            return make(output_multiplier=output_multiplier)

        own: AnyOptimizer | Custom = self.setup.optimizer
        if self.optimizer_factory is not None:
            factory = self.optimizer_factory
            own = Custom(lambda _: factory(made[-1], output_multiplier=c), lr=lr)
        setup = replace(
            self.setup,
            make_model=make if self.setup.route == "wrapper" else make_wired,
            multiplier_route=self.setup.route,  # type: ignore[arg-type]
            task=task,
            optimizer=own,
            batch_size=batch_size or draw.batch_size,
            stop=stop,
            output_multiplier=self.own_c if own_c is None else own_c,
            init_scale=1.0,
            augmentation=(),
            architecture=None,
        )
        config = RunConfig(
            setup_digest="twin", c=c, init_scale=1.0, lr=lr, seed=draw.seed,
            centered=setup.centered, max_epochs=stop.max_epochs,
        )  # fmt: skip
        with user_code(TRAINING_FAILED, REMEDY), one_thread():
            ended = train_single(setup, rule, task, config, dtype=torch.float64)
        return self.ended(net, task, draw, c, ended)

    def ended(self, net: nn.Module, task: Task, draw: Draw, c: float, ended: TrainedRun) -> Run:
        """What is compared of a finished run that began with a net."""
        x, probes = torch.as_tensor(task.x_train), torch.as_tensor(task.x_test)
        trained = copy.deepcopy(net)
        trained.load_state_dict(dict(ended.final))
        outputs = self.logits(trained, probes, c)
        in_training = self.logits(trained, x, c, training=True, seed=draw.seed)
        before = self.logits(net, probes, c)
        size = float(outputs.abs().max())
        start = before
        if self.setup.centered:
            size = max(size, float(before.abs().max()))
            outputs = outputs - before
            in_training = in_training - self.logits(net, x, c)
            start = torch.zeros_like(before)
        return Run(outputs, in_training, start, size, ended.outcome, ended.final)

    def base(self, draw: Draw, *, full_batch: bool) -> tuple[Run, float]:
        """The draw's own net trained at its c, and how much training amplified a disturbance."""
        key = (draw, full_batch)
        if key not in self._bases:
            c, task = self.own_c * draw.ratio, self.data(draw)
            net = self.net(draw, c)
            settings: dict[str, Any] = {
                "c": c, "lr": self.rate(draw.ratio), "rule": self.rule,
                "batch_size": draw.num_points if full_batch else None,
            }  # fmt: skip
            run = self.train(net, task, draw, **settings)
            # A kink may lie on one side only of where training goes.
            amplified = max(
                amplification(run, self.train(disturbed(net, by), task, draw, **settings))
                for by in (DISTURBANCE, -DISTURBANCE)
            )
            self._bases[key] = run, amplified
        return self._bases[key]

    # --- judgement ---

    def blind(self, name: InvariantName) -> InvariantFinding | None:
        """Void where the net itself rounds so coarsely that nothing can be compared, else None."""
        if not self.low_precision:
            return None
        text = "The net computes in less than float64 inside, so that rounding hides deviations."
        return void(name, SENSITIVE, text)

    def bound(self, draw: Draw, amplified: float, steps: int) -> float:
        """What rounding can account for, relative; see the module's text."""
        net = self.net(draw, self.own_c)
        terms = 64 + draw.num_points * math.prod(self.task.x_train.shape[1:])
        terms += sum(p.numel() // max(1, len(p)) if p.ndim else 1 for p in net.parameters())
        if self.divides_noise:
            amplified = max(amplified, ADAM_NOISE)
        return SAFETY * 2.0**-53 * terms * (steps + 1) * max(1.0, amplified)

    def obstacle(
        self, name: InvariantName, draw: Draw, run: Run, amplified: float
    ) -> InvariantFinding | None:
        """Why nothing can be seen at a draw whose base run is this one, or None."""
        if not run.finite:
            return void(name, DIVERGED, "Training diverged: a smaller learning rate would decide.")
        bound = self.bound(draw, amplified, draw.num_steps)
        if (blind := self.blind(name)) is not None:
            return blind
        if not bound <= MAX_BOUND:
            text = (
                "Training amplifies rounding too much: fewer steps or a smaller rate would decide."
            )
            return void(name, SENSITIVE, text)
        if not apart(run.start, run.outputs, run.size) > MOVED * bound:
            text = "Training did not move the net: a larger learning rate would decide."
            return void(name, STILL, text)
        return None


# --- small parts ----------------------------------------------------------------------------


def disturbed(net: nn.Module, by: float = DISTURBANCE) -> nn.Module:
    """A copy whose parameters are changed by a relative ``by``, each up or down.

    What is zero, as biases are at init, is changed by as much of the net's usual weight: where a layer
    is dead for a point, rounding decides on which side of a kink its zero bias goes.
    """
    changed = copy.deepcopy(net)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        weights = list(changed.parameters())
        squares = sum(float(one.double().square().sum()) for one in weights)
        usual = (squares / max(1, sum(one.numel() for one in weights))) ** 0.5
        for parameter in weights:
            signs = torch.randint(0, 2, parameter.shape, generator=generator) * 2 - 1
            step = by * signs.to(parameter.dtype)
            parameter.copy_(torch.where(parameter == 0, usual * step, parameter * (1 + step)))
    return changed


def roughened(net: nn.Module, seed: int) -> nn.Module:
    """A copy with every parameter changed at random by about a third of its spread.

    What is equal or zero at init (biases, a read-out, scales of normalisation) would else hide that
    it matters.
    """
    changed = copy.deepcopy(net)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in changed.parameters():
            spread = float(parameter.std()) if parameter.numel() > 1 else 0.0
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(0.3 * (spread or 1.0) * noise)
    return changed


def amplification(run: Run, other: Run) -> float:
    """Relative deviation of a run whose weights were disturbed, per unit of the disturbance."""
    if not (run.finite and other.finite):
        return math.inf
    parts = (
        apart(run.outputs, other.outputs, run.size),
        apart(run.in_training, other.in_training, run.size),
    )
    return max(parts) / DISTURBANCE


def apart(left: Tensor, right: Tensor, size: float | None = None) -> float:
    """Largest deviation of two tensors, relative to the size of the larger one; NaN where undefined."""
    if left.shape != right.shape:
        return math.nan
    scale = max(float(left.abs().max()), float(right.abs().max()), size or 0.0)
    deviation = float((left - right).abs().max())
    return 0.0 if deviation == 0 else deviation / scale if scale > 0 else math.nan


def deviation(left: Run, right: Run, *, in_training: bool = False) -> float:
    """How far two runs' functions are apart, relative to their size; infinite where one diverged."""
    if not (left.finite and right.finite):
        return math.inf
    size = max(left.size, right.size)
    if in_training:
        return apart(left.in_training, right.in_training, size)
    return apart(left.outputs, right.outputs, size)
