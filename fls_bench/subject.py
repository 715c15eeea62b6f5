"""What is judged: a model file or a setup, made ready to measure and to train again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fls_bench import models
from fls_bench.bundle import Bundle
from fls_bench.errors import InputError
from fls_bench.metrics import NetState, Snapshot
from fls_bench.scaling import rate_power, scaled_rate
from fls_bench.schema import ArchitectureSpec, Axis, Recipe, Tier
from fls_bench.tangent import tangent_kernels
from fls_bench.tasks import Task, TaskSource, arrays_source, load_task, named_source, task_source
from fls_bench.training import resolve_lr_rule, user_code
from fls_bench.training.runs import POINTS_AT_ONCE, TrainedRun, make_net
from fls_bench.training_setup import TrainingSetup, import_object


@dataclass(frozen=True)
class Subject:
    """A trained net with its data, and, where a recipe is known, the setup that made it.

    Attributes:
        setup: None below T3.
        task: None at T0.
        snapshot: None where there are no data to run the net on.
        tier: The evidence that there is.
        why: Why there is no more.
        facts: What was read, for the report's ``input``.
    """

    setup: TrainingSetup | None
    task: Task | None
    snapshot: Snapshot | None
    tier: Tier
    why: str
    facts: Mapping[str, Any]


def built_in_setup(
    name: str,
    arguments: Mapping[str, Any],
    source: TaskSource,
    recipe: Recipe,
    *,
    base_lr: float | None = None,
    output_multiplier: float = 1.0,
    init_scale: float = 1.0,
    centered: bool = False,
    axis: Axis | None = None,
    label: str | None = None,
) -> TrainingSetup:
    """The setup of a built-in net on a task; sizes of input and output come from the task.

    Args:
        name: A key of ``models.ARCHITECTURES``.
        arguments: The net's arguments; those that follow from the data may be left out.
        source: seed -> Task.
        recipe: How it is trained.
        base_lr: The rate at c = alpha = 1, from which the rate at this c follows by the rule; None
            where ``recipe`` already has the rate at this c.
        output_multiplier: c. Smaller c = larger FLS = toward over-aligned.
        init_scale: alpha.
        centered: Whether the net computes c·(f - f_0).
        axis: What a sweep varies; None: the init scale where that is not 1, else the multiplier.
        label: Name for people.

    Returns:
        The setup.

    Raises:
        InputError: The net can't be built, or does not fit the task.
    """
    task = source(recipe.data_seed)
    n_outputs = 1 if recipe.loss == "logistic" else task.n_classes
    row = models.architecture(name)
    sized = {**row.sized(task.x_train.shape[1:], n_outputs), **arguments}
    checked = models.check_arguments(name, sized).model_dump(mode="json")
    setup = TrainingSetup(
        make_model=_builder(name, checked),
        task=source,
        loss=recipe.loss,
        label_smoothing=recipe.label_smoothing,
        optimizer=recipe.optimizer,
        batch_size=recipe.batch_size,
        augmentation=recipe.augmentation,
        stop=recipe.stop,
        lr_rule=recipe.lr_rule,
        output_multiplier=output_multiplier,
        multiplier_route="wrapper",
        centered=centered,
        init_scale=init_scale,
        axis=axis or ("init_scale" if init_scale != 1 else "output_multiplier"),
        name=label or f"{name} on {task.name}",
        architecture=ArchitectureSpec(name=name, arguments=checked),
    )
    if base_lr is None:
        return setup
    rule = resolve_lr_rule(setup, task)
    power = rate_power(recipe.optimizer)
    rate = scaled_rate(base_lr, rule, power, at=(1.0, 1.0), to=(output_multiplier, init_scale))
    kind = type(recipe.optimizer)
    optimizer = kind.model_validate({**recipe.optimizer.model_dump(), "lr": rate})
    return replace(setup, optimizer=optimizer, lr_rule=rule)


def _builder(name: str, arguments: Mapping[str, Any]) -> Callable[..., nn.Module]:
    def build(seed: int | None = None) -> nn.Module:
        return models.build(name, arguments, seed=seed)

    return build


# --- from a file ----------------------------------------------------------------------------


def from_bundle(
    bundle: Bundle, tier: Tier, why: str, *, builder: str | None, data: Path | None
) -> Subject:
    """Rebuild what a model file describes, as far as it goes.

    Args:
        bundle: The file.
        tier: The best tier that it affords.
        why: Why not more.
        builder: ``package.module:function`` that the user gave for a net that is not built in.
        data: Data of the user's as ``task_source`` names them, in place of the file's own task.

    Returns:
        The subject.

    Raises:
        InputError: The data don't fit the net, or can't be had.
    """
    header = bundle.header
    facts = {
        "path": str(bundle.path),
        "sha256": bundle.sha256,
        "num_parameters": bundle.num_parameters,
        "architecture": header.architecture.name or header.architecture.hint or "unknown",
        "versions": dict(header.versions),
    }
    setup = bundle_setup(bundle, builder=builder, data=data)
    if setup is None:
        return Subject(None, None, None, Tier.T0, why, facts)
    assert callable(setup.task)
    recipe = header.recipe or Recipe()
    task = _own_draw(bundle, setup.task, recipe, data)
    snapshot = snapshot_of(setup, task, bundle.final, bundle.init)
    return Subject(setup if tier is Tier.T3 else None, task, snapshot, tier, why, facts)


def bundle_setup(bundle: Bundle, *, builder: str | None, data: Path | None) -> TrainingSetup | None:
    """The setup that a model file describes, with the usual recipe where it has none.

    Args:
        bundle: The file.
        builder: ``package.module:function`` that the user gave for a net that is not built in.
        data: Data of the user's as ``task_source`` names them, in place of the file's own task.

    Returns:
        The setup; None where the net or its data are not known.

    Raises:
        InputError: The builder or the data can't be had.
    """
    header = bundle.header
    named = header.architecture.name
    if named is None and builder is None:
        return None
    make = (
        _builder(named, header.architecture.arguments)
        if named is not None
        else import_object(str(builder), "--model")
    )
    recipe = header.recipe or Recipe()
    source = _source(bundle, data)
    if source is None:
        return None
    return TrainingSetup(
        make_model=make,
        task=source,
        loss=recipe.loss,
        label_smoothing=recipe.label_smoothing,
        optimizer=recipe.optimizer,
        batch_size=recipe.batch_size,
        augmentation=recipe.augmentation,
        stop=recipe.stop,
        lr_rule=recipe.lr_rule,
        output_multiplier=header.output_multiplier,
        multiplier_route=header.multiplier_route,
        centered=header.centered,
        init_scale=header.init_scale,
        axis="init_scale" if header.init_scale != 1 else "output_multiplier",
        feature_layer=header.feature_layer,
        name=bundle.path.stem,
        architecture=header.architecture if named is not None else None,
    )


def _arrays(bundle: Bundle) -> dict[str, Any]:
    """The embedded data; numpy has no bfloat16."""
    return {
        key: (value.float() if value.dtype is torch.bfloat16 else value).numpy()
        for key, value in bundle.data.items()
    }


def _source(bundle: Bundle, data: Path | None) -> TaskSource | None:
    spec = bundle.header.task
    if data is not None:
        return task_source(str(data), code=lambda name: import_object(name, "--data"))
    if spec is None:
        return None
    if not spec.embedded:
        return named_source(spec.name, spec.arguments)
    arrays = _arrays(bundle)
    if "x_val" not in arrays:
        return arrays_source(spec.name, arrays, None, None, spec.n_classes)
    # A sweep redraws the training points from all that are not for testing.
    pooled = {
        f"{kind}_train": np.concatenate([arrays[f"{kind}_train"], arrays[f"{kind}_val"]])
        for kind in ("x", "y")
    }
    test: dict[str, Any] = {k: arrays[k] for k in ("x_test", "y_test") if k in arrays}
    n_train = len(arrays["y_train"])
    return arrays_source(spec.name, {**pooled, **test}, n_train, None, spec.n_classes)


def _own_draw(bundle: Bundle, source: TaskSource, recipe: Recipe, data: Path | None) -> Task:
    """The very data that the file was trained on, checked by fingerprint where they are named."""
    spec = bundle.header.task
    if spec is None or data is not None:
        return source(recipe.data_seed)
    if spec.embedded:
        arrays = _arrays(bundle)
        return arrays_source(spec.name, arrays, None, None, spec.n_classes)(recipe.data_seed)
    return load_task(spec)


def _features(net: nn.Module, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """As ``named_features``, some points at a time: maps of a whole part need not fit into memory."""
    parts = [models.named_features(net, part) for part in torch.split(x, POINTS_AT_ONCE)]
    features = {name: torch.cat([part[0][name] for part in parts]) for name in parts[0][0]}
    return features, torch.cat([part[1] for part in parts])


def snapshot_of(
    setup: TrainingSetup,
    task: Task,
    final: Mapping[str, Tensor],
    init: Mapping[str, Tensor] | None,
    seed: int = 0,
    *,
    with_kernel: bool = True,
) -> Snapshot:
    """Run a net on its data, at the end and at init, for the metrics.

    Args:
        setup: Builds the net.
        task: The data.
        final: Parameters and buffers by name.
        init: The same at init, init scale applied; or None.
        seed: Seed of the build; its weights are overwritten.
        with_kernel: Whether tangent kernels are computed, the dearest part by far.

    Returns:
        The snapshot.

    Raises:
        InputError: Names or shapes don't fit the net, the net can't take the data, or has no layer
            of the name that the setup gives as its last.
    """
    with user_code("make_model failed", "Correct it, or its arguments."):
        net = make_net(setup, seed, setup.output_multiplier, torch.float32).eval()

    def state(values: Mapping[str, Tensor]) -> NetState:
        try:
            net.load_state_dict(dict(values))
            train, val, test = (
                _features(net, torch.as_tensor(x)) for x in (task.x_train, task.x_val, task.x_test)
            )
        except (RuntimeError, ValueError, TypeError) as error:
            detail = " ".join(str(error).split())[:300].rstrip(".")
            raise InputError(
                f"The weights, the net and the data do not fit together: {detail}.",
                "Give the builder and the data that the weights belong to.",
            ) from None
        return NetState(
            weights=models.weight_matrices(net),
            train_features=train[0],
            val_features=val[0],
            test_features=test[0],
            train_outputs=train[1],
            val_outputs=val[1],
            test_outputs=test[1],
            convolutions=frozenset(
                name
                for name, module in net.named_modules()
                if isinstance(module, models.WEIGHT_LAYERS) and not isinstance(module, nn.Linear)
            ),
        )

    def clone(values: NetState) -> NetState:
        """Weights are views of the net's parameters, which the next state overwrites."""
        return replace(values, weights={k: v.clone() for k, v in values.weights.items()})

    after = clone(state(final))
    before = None if init is None else clone(state(init))
    expected = 1 if setup.loss == "logistic" else task.n_classes
    if after.test_outputs.ndim != 2 or after.test_outputs.shape[1] != expected:
        raise InputError(
            f"The net has {list(after.test_outputs.shape[1:])} outputs per point; task "
            f"{task.name!r} with loss {setup.loss} needs [{expected}].",
            "Give data with the net's number of classes.",
        )
    if setup.feature_layer is not None and setup.feature_layer not in after.train_features:
        recorded = ", ".join(after.train_features) or "none"
        raise InputError(
            f"The net has no layer {setup.feature_layer!r} whose features are recorded.",
            f"Set feature_layer to one of these, or leave it out: {recorded}.",
        )
    no_kernel = "The tangent kernel of this net was not computed."
    if with_kernel:
        kernels = tangent_kernels(
            net,
            [final] if init is None else [final, init],
            torch.as_tensor(task.x_train),
            torch.as_tensor(task.x_test),
        )
        if isinstance(kernels, str):
            no_kernel = kernels
        else:
            after = replace(after, kernel=kernels[0])
            before = None if before is None else replace(before, kernel=kernels[1])
    x_train, x_val, x_test = (
        torch.as_tensor(x).flatten(1) for x in (task.x_train, task.x_val, task.x_test)
    )
    return Snapshot(
        final=after,
        init=before,
        c=setup.output_multiplier if setup.route == "wrapper" else 1.0,
        centered=setup.centered,
        n_classes=task.n_classes,
        x_train=x_train,
        y_train=torch.as_tensor(task.y_train),
        x_val=x_val,
        y_val=torch.as_tensor(task.y_val),
        x_test=x_test,
        y_test=torch.as_tensor(task.y_test),
        last_layer=setup.feature_layer,
        no_kernel=no_kernel,
    )


def from_run(setup: TrainingSetup, run: TrainedRun) -> Subject:
    """The subject of a setup that was trained once at its own c.

    Args:
        setup: The setup.
        run: Its run.

    Returns:
        A subject at T3.
    """
    task = setup.task_for(run.config.seed)
    snapshot = snapshot_of(setup, task, run.final, run.init, run.config.seed)
    facts = {
        "num_parameters": sum(value.numel() for value in run.final.values()),
        "trained_here": f"seed {run.config.seed}, {run.outcome.value} after {run.epochs} epochs",
    }
    return Subject(setup, task, snapshot, Tier.T3, "", facts)
