"""For your own tests: strategies for setups, scaling invariants as checks, a contract in three lines.

Importing this module loads Hypothesis, but neither torch nor pytest: these come when something is drawn,
checked or collected.

A check takes what is examined and one draw, and says held, broken (with the deviation and what rounding
can account for) or void (with the reason)::

    from hypothesis import given
    from fls_bench.testing import Examined, check_exact_rule, draws, setups

    @given(setups(), draws())
    def test_my_rule(setup, draw):
        assert check_exact_rule(Examined(setup), draw).status != "broken"

A test of your own net, by the contract (void invariants are skipped, with their reason)::

    from fls_bench.testing import ScalingContract
    from my_pkg.zoo import build

    class TestBuild(ScalingContract):
        build = staticmethod(build)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from hypothesis import strategies as st

from fls_bench.schema import (
    Adam,
    AdamW,
    AnyOptimizer,
    ArchitectureSpec,
    Cosine,
    InvariantFinding,
    InvariantName,
    LrRule,
    PerStep,
    Sgd,
    StepDecay,
)

if TYPE_CHECKING:
    from torch import Tensor

    from fls_bench.examining import Wanted
    from fls_bench.invariants import Draw, Examined
    from fls_bench.invariants.compensation import (
        check_exact_rule,
        check_one_rate,
        check_own_optimizer,
        check_own_rule,
    )
    from fls_bench.invariants.multiplier import (
        check_parameter_scale,
        check_routes,
        check_tangent_kernel,
        check_temperature,
    )
    from fls_bench.invariants.statistical import check_balance, check_lazy_limit, check_movement
    from fls_bench.invariants.symmetries import (
        check_batching,
        check_duplication,
        check_label_names,
        check_permutation,
        check_relu_rescaling,
        check_rotation,
        check_sample_order,
    )
    from fls_bench.schema import Diagnosis
    from fls_bench.tasks import Task
    from fls_bench.training_setup import TrainingSetup

NAMES: tuple[InvariantName, ...] = get_args(InvariantName)
"""The scaling invariants, in the order in which they are shown."""

_LAZY = {
    "Draw": "invariants",
    "Examined": "invariants",
    "check_balance": "invariants.statistical",
    "check_batching": "invariants.symmetries",
    "check_duplication": "invariants.symmetries",
    "check_exact_rule": "invariants.compensation",
    "check_label_names": "invariants.symmetries",
    "check_lazy_limit": "invariants.statistical",
    "check_movement": "invariants.statistical",
    "check_one_rate": "invariants.compensation",
    "check_own_optimizer": "invariants.compensation",
    "check_own_rule": "invariants.compensation",
    "check_parameter_scale": "invariants.multiplier",
    "check_permutation": "invariants.symmetries",
    "check_relu_rescaling": "invariants.symmetries",
    "check_rotation": "invariants.symmetries",
    "check_routes": "invariants.multiplier",
    "check_sample_order": "invariants.symmetries",
    "check_tangent_kernel": "invariants.multiplier",
    "check_temperature": "invariants.multiplier",
}

__all__ = [
    "NAMES",
    "Draw",
    "Examined",
    "ScalingContract",
    "architectures",
    "check_balance",
    "check_batching",
    "check_duplication",
    "check_exact_rule",
    "check_label_names",
    "check_lazy_limit",
    "check_movement",
    "check_one_rate",
    "check_own_optimizer",
    "check_own_rule",
    "check_parameter_scale",
    "check_permutation",
    "check_relu_rescaling",
    "check_rotation",
    "check_routes",
    "check_sample_order",
    "check_tangent_kernel",
    "check_temperature",
    "data_sets",
    "diagnosed",
    "draws",
    "findings",
    "initial_states",
    "multipliers",
    "optimizers",
    "setups",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"fls_bench.{_LAZY[name]}"), name)


# --- strategies -----------------------------------------------------------------------------


def multipliers(min_log2: int = -12, max_log2: int = 12) -> st.SearchStrategy[float]:
    """Output multipliers c = 2^(k/4); they shrink toward 1. Smaller c = larger FLS.

    Args:
        min_log2: Smallest log2 c.
        max_log2: Largest log2 c.
    """
    return st.integers(4 * min_log2, 4 * max_log2).map(lambda k: float(2.0 ** (k / 4)))


def draws(**limits: Any) -> st.SearchStrategy[Draw]:
    """Draws for the checks; they shrink to one step on two points at a factor next to 1.

    Args:
        **limits: ``max_octaves`` (12: the factor on the multiplier lies within 2^-12 .. 2^12),
            ``max_batch_size`` (6), ``max_batches`` (3), ``max_epochs`` (3).
    """
    from fls_bench.invariants import search

    return search.draws(**limits)


@st.composite
def architectures(
    draw: st.DrawFn,
    *,
    kinds: Sequence[Literal["mlp", "cnn"]] = ("mlp",),
    max_depth: int = 4,
    max_width: int = 8,
    activations: Sequence[Literal["relu", "tanh"]] = ("relu",),
    bias: bool | None = False,
    max_classes: int = 4,
) -> ArchitectureSpec:
    """Built-in nets, small enough to train in milliseconds; they shrink to one layer of one unit.

    Args:
        draw: Given by Hypothesis.
        kinds: ``mlp`` on flat inputs, ``cnn`` on small images.
        max_depth: Most weight layers of an MLP, most convolutions of a CNN but one.
        max_width: Most units or channels.
        activations: Of an MLP.
        bias: Whether layers have biases; None: either.
        max_classes: Most outputs, at least 2.
    """
    kind = draw(st.sampled_from(kinds))
    has_bias = draw(st.booleans()) if bias is None else bias
    common: dict[str, Any] = {
        "n_outputs": draw(st.integers(2, max_classes)),
        "width": draw(st.integers(1, max_width)),
        "bias": has_bias,
    }
    if kind == "cnn":
        shape = (draw(st.integers(1, 2)), 8, 8)
        depth = draw(st.integers(2, max(2, max_depth - 1)))
        return ArchitectureSpec(
            name="cnn", arguments={**common, "input_shape": shape, "depth": depth}
        )
    sizes = {"input_dim": draw(st.integers(1, 8)), "depth": draw(st.integers(1, max_depth))}
    activation = draw(st.sampled_from(activations))
    return ArchitectureSpec(name="mlp", arguments={**common, **sizes, "activation": activation})


SCHEDULES = (
    StepDecay(every=1, factor=0.5), Cosine(epochs=4), PerStep(decay="cosine", warmup_steps=2),
)  # fmt: skip


def optimizers(
    kinds: Sequence[str] = ("sgd", "momentum", "nesterov", "adam", "adamw"),
    *,
    decay: bool | None = None,
    clipping: bool | None = None,
    schedule: bool | None = None,
) -> st.SearchStrategy[AnyOptimizer]:
    """Optimizers with their settings; they shrink to plain SGD.

    Args:
        kinds: Which of ``sgd``, ``momentum``, ``nesterov``, ``adam``, ``adamw``.
        decay: Whether there is a penalty or a decay; None: either.
        clipping: Whether the gradient's norm is clipped; None: either.
        schedule: Whether the rate follows a schedule; None: either.
    """

    def either(wanted: bool | None, values: st.SearchStrategy[Any], none: Any) -> Any:
        if wanted is None:
            return st.just(none) | values
        return values if wanted else st.just(none)

    def made(
        kind: str, lr: float, decayed: float, clip: float | None, follows: Any, m: float
    ) -> Any:
        common = {"weight_decay": decayed, "clip_norm": clip, "schedule": follows}
        if kind in ("adam", "adamw"):
            # An epsilon that matters: at 1e-8 a wrong one could hardly be seen.
            model = AdamW if kind == "adamw" else Adam
            return model(lr=lr / 5, epsilon=1e-3, beta1=m, **common)
        momentum = 0.0 if kind == "sgd" else m
        return Sgd(lr=lr, momentum=momentum, nesterov=kind == "nesterov", **common)

    return st.builds(
        made,
        st.sampled_from(kinds),
        st.sampled_from([0.05, 0.02]),
        either(decay, st.sampled_from([0.01, 0.1]), 0.0),
        either(clipping, st.sampled_from([0.1, 1.0]), None),
        either(schedule, st.sampled_from(SCHEDULES), None),
        st.sampled_from([0.9, 0.5]),
    )


@st.composite
def data_sets(
    draw: st.DrawFn,
    *,
    input_shape: tuple[int, ...] | None = None,
    n_classes: int | None = None,
    max_train: int = 24,
) -> Task:
    """Tasks of a few normal points around one mean per class; they shrink to few points and classes.

    Args:
        draw: Given by Hypothesis.
        input_shape: Shape of one input; None: 1 to 8 numbers.
        n_classes: None: 2 to 4.
        max_train: Most training points, at least 10.
    """
    import numpy as np

    from fls_bench.tasks import make_task

    shape = input_shape or (draw(st.integers(1, 8)),)
    classes = n_classes or draw(st.integers(2, 4))
    least = max(10, classes)
    n = draw(st.integers(least, max(least, max_train)))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    means = rng.standard_normal((classes, *shape))

    def part(size: int) -> tuple[Any, Any]:
        y = np.arange(size) % classes
        return means[y] + rng.standard_normal((size, *shape)), y

    return make_task("drawn", part(n), part(least), part(least), n_classes=classes)


@st.composite
def initial_states(draw: st.DrawFn, architecture: ArchitectureSpec) -> dict[str, Tensor]:
    """Parameters of a built-in net in float64: its usual ones, times a scale, or all disturbed.

    Biases that are zero and read-outs that are equal at init would else hide that they matter. They
    shrink to the usual ones of seed 0.

    Args:
        draw: Given by Hypothesis.
        architecture: From ``architectures``.
    """
    import torch

    from fls_bench import models

    seed = draw(st.integers(0, 2**20))
    scale = draw(st.sampled_from([1.0, 0.5, 2.0]))
    disturbed = draw(st.booleans())
    net = models.build(
        str(architecture.name), architecture.arguments, seed=seed, dtype=torch.float64
    )
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in net.state_dict().items():
        noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        state[name] = scale * value + (0.1 * noise if disturbed else 0.0)
    return state


@st.composite
def setups(
    draw: st.DrawFn,
    *,
    architecture: st.SearchStrategy[ArchitectureSpec] | None = None,
    optimizer: st.SearchStrategy[AnyOptimizer] | None = None,
    losses: Sequence[Literal["cross_entropy", "mse"]] = ("cross_entropy",),
    centered: bool | None = None,
    lr_rule: LrRule | None = None,
) -> TrainingSetup:
    """Whole training setups of built-in nets on drawn data; they shrink to the smallest net.

    Args:
        draw: Given by Hypothesis.
        architecture: None: MLPs without biases.
        optimizer: None: any.
        losses: Which of ``cross_entropy`` and ``mse``.
        centered: Whether the net computes c·(f - f_0); None: either.
        lr_rule: As in ``TrainingSetup``.
    """
    from fls_bench import models
    from fls_bench.schema import TargetLoss
    from fls_bench.training_setup import TrainingSetup

    net = draw(architectures() if architecture is None else architecture)
    arguments = models.check_arguments(str(net.name), net.arguments).model_dump()
    shape = arguments["input_shape"] if net.name == "cnn" else (arguments["input_dim"],)
    task = draw(data_sets(input_shape=tuple(shape), n_classes=arguments["n_outputs"]))
    loss = draw(st.sampled_from(losses))
    state = draw(initial_states(net))

    def build(seed: int | None = None) -> Any:
        made = models.build(str(net.name), arguments, seed=seed)
        if not seed:  # the drawn state is that of seed 0; other seeds have their usual weights
            made = made.to(next(iter(state.values())).dtype)
            made.load_state_dict(state)
        return made

    return TrainingSetup(
        make_model=build,
        task=task,
        loss=loss,
        optimizer=draw(optimizers() if optimizer is None else optimizer),
        batch_size=5,
        stop=TargetLoss(target_loss=1e-3),
        lr_rule=lr_rule,
        centered=draw(st.booleans()) if centered is None else centered,
        name=f"{net.name} {net.arguments}",
        architecture=net,
    )


# --- checks of your own net -----------------------------------------------------------------


def findings(
    target: Any,
    *,
    names: Sequence[str] | None = None,
    examples: int = 20,
    seed: int = 0,
    optimizer: Any = None,
    input_shape: tuple[int, ...] | None = None,
    task: Any = None,
    loss: str | None = None,
) -> Mapping[str, InvariantFinding]:
    """What ``fls-bench invariants`` finds, by invariant.

    Args:
        target: A builder of a torch module, a ``TrainingSetup``, or a function that returns one.
        names: Only these invariants; None: all that there is something to try on.
        examples: Draws per invariant.
        seed: The same one gives the same draws.
        optimizer: ``Sgd``, ``Adam``, ``AdamW``, or ``make(net, *, output_multiplier)``; None: the
            setup's own, for a builder plain SGD at 0.05.
        input_shape: Of one input, for random points; None: told by the net's first layer.
        task: A ``Task`` or a function of a seed, in place of random points.
        loss: ``cross_entropy``, ``logistic`` or ``mse``.

    Returns:
        Invariant -> finding.

    Raises:
        InputError: The net can't be made or run, or a name is unknown.
    """
    from fls_bench.examining import as_setup, examined_setup
    from fls_bench.invariants.search import examine

    wanted = _wanted(optimizer, input_shape, task, loss)
    examined = examined_setup(as_setup(target, wanted), wanted)
    found = examine(
        examined, examples=examples, base_seed=seed,
        names=None if names is None else [name.replace("-", "_") for name in names],
    )  # fmt: skip
    return {one.invariant: one for one in found}


def _wanted(optimizer: Any, input_shape: tuple[int, ...] | None, task: Any, loss: Any) -> Wanted:
    from fls_bench.examining import Wanted, told_multiplier
    from fls_bench.tasks import Task

    if optimizer is not None and not isinstance(optimizer, AnyOptimizer):
        optimizer = told_multiplier(optimizer, "optimizer")
    source = (lambda _: task) if isinstance(task, Task) else task
    return Wanted(optimizer=optimizer, task=source, input_shape=input_shape, loss=loss)


def in_words(finding: InvariantFinding) -> str:
    """What became of an invariant, with the smallest counter-example of a broken one."""
    from fls_bench.report import invariants as words

    text = f"{words.name(finding)} is {finding.status}: {words.why(finding)}\n{finding.statement}"
    if finding.status == "broken":
        text += f"\nsmallest counter-example: {words.counter_example(finding)}"
        text += f"\ndeviation {finding.deviation}, rounding can account for {finding.bound}"
    return text


class _Silent:
    """A listener for whom progress is none of its business."""

    def plan(self, total_runs: int, text: str) -> None:
        pass

    def done(self, runs: int, text: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass


def diagnosed(
    setup: TrainingSetup,
    *,
    budget_seconds: float = 60.0,
    max_seeds: int = 20,
    seed: int = 0,
    jobs: int | None = None,
    store: Any = None,
) -> Diagnosis:
    """The verdict on a setup, as of ``fls-bench diagnose --setup``.

    Args:
        setup: The setup, or a function that returns one.
        budget_seconds: Of the sweep; turned once into a number of epochs.
        max_seeds: Most seeds per multiplier.
        seed: Chooses the seeds.
        jobs: Batches or processes at a time; None: one per core.
        store: Folder of finished runs, from which a repeated call is quick; None: the user's cache;
            False: nothing is kept.

    Returns:
        The diagnosis.

    Raises:
        InputError: The setup can't be trained.
    """
    from fls_bench import bench
    from fls_bench.training_setup import TrainingSetup

    own = setup if isinstance(setup, TrainingSetup) else setup()
    options = bench.Options(
        listener=_Silent(), seed=seed, max_seeds=max_seeds, budget_seconds=budget_seconds, jobs=jobs,
        store=store,
    )  # fmt: skip
    made = bench.diagnose_setup(own, options).diagnosis
    assert made is not None
    return made


class ScalingContract:
    """A test class with one test per invariant; subclass it and set ``build``.

    A broken invariant fails with its smallest counter-example; a void one is skipped with its reason,
    or fails where its name stands in ``must_hold``.

    Attributes:
        build: Builder of a torch module, or a ``TrainingSetup``; wrap a function in ``staticmethod``.
        options: Keyword arguments of ``findings``: ``optimizer``, ``input_shape``, ``task``,
            ``examples``, ``seed``, ...
        must_hold: Names of invariants that may not become void.
    """

    build: ClassVar[Any]
    options: ClassVar[Mapping[str, Any]] = {}
    must_hold: ClassVar[Sequence[str]] = ()

    def test_invariant(self, invariant: InvariantName) -> None:
        """One invariant of the net that ``build`` makes."""
        import pytest

        build = getattr(type(self), "build", None)
        wanted = {name.replace("-", "_") for name in self.must_hold}
        if build is None or wanted - set(NAMES):
            unknown = ", ".join(sorted(wanted - set(NAMES)))
            pytest.fail(f"must_hold names no {unknown}" if build else "set build", pytrace=False)
        if invariant == "own_optimizer" and not callable(self.options.get("optimizer")):
            if invariant in wanted:
                pytest.fail("It has to hold, but options name no optimizer", pytrace=False)
            pytest.skip("there is no optimizer of its own")
        if invariant == "own_rule" and getattr(build, "lr_rule", None) is None:
            pytest.skip("there is no learning-rate rule of its own")
        found = findings(build, names=[invariant], **self.options)[invariant]
        if found.status == "broken":
            pytest.fail(in_words(found), pytrace=False)
        if found.status == "void":
            if invariant in wanted:
                pytest.fail(f"It has to hold, but: {in_words(found)}", pytrace=False)
            pytest.skip(found.text)
