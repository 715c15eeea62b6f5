"""The training setup that a command or a model file describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from fls_bench import models
from fls_bench.bundle import Bundle
from fls_bench.scaling import rate_power, scaled_rate
from fls_bench.schema import ArchitectureSpec, Axis, BundleHeader, Recipe
from fls_bench.subject.given import Given
from fls_bench.tasks import TaskSource, arrays_source, named_source, task_source
from fls_bench.training import resolve_lr_rule
from fls_bench.training_setup import TrainingSetup, import_object


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
        make_model=built_in_builder(name, checked),
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


def built_in_builder(name: str, arguments: Mapping[str, Any]) -> Callable[..., nn.Module]:
    """A builder of a built-in net.

    Args:
        name: A key of ``models.ARCHITECTURES``.
        arguments: Checked arguments.

    Returns:
        seed -> module.
    """

    def build(seed: int | None = None) -> nn.Module:
        return models.build(name, arguments, seed=seed)

    return build


def given_source(given: Given) -> TaskSource | None:
    """The data that a user names beside a file.

    Args:
        given: What the user gives.

    Returns:
        seed -> Task; None where no data were named.

    Raises:
        InputError: They can't be had.
    """
    if given.data is None:
        return None
    return task_source(
        given.data, given.data_arguments, code=lambda name: import_object(name, "--data")
    )


def bundle_setup(
    bundle: Bundle, *, builder: str | None, source: TaskSource | None
) -> TrainingSetup | None:
    """The setup that a model file describes, with the usual recipe where it has none.

    Args:
        bundle: The file.
        builder: ``package.module:function`` that the user gave for a net that is not built in.
        source: Data of the user's, in place of the file's own task.

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
        built_in_builder(named, header.architecture.arguments)
        if named is not None
        else import_object(str(builder), "--model")
    )
    source = source or _source(bundle)
    if source is None:
        return None
    setup = header_setup(make, source, header, bundle.path.stem)
    return setup if named is None else replace(setup, architecture=header.architecture)


def header_setup(
    make: Callable[..., nn.Module], source: TaskSource, header: BundleHeader, name: str
) -> TrainingSetup:
    """The setup of a net on data, by what a header says; with the usual recipe where it has none.

    Args:
        make: Builds the net.
        source: seed -> Task.
        header: Of a model file, or what ``fls_bench.record`` noted in a checkpoint.
        name: For people.

    Returns:
        The setup.
    """
    recipe = header.recipe or Recipe()
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
        name=name,
    )


def bundle_arrays(bundle: Bundle) -> dict[str, Any]:
    """The data that a model file embeds, by name; numpy has no bfloat16."""
    return {
        key: (value.float() if value.dtype is torch.bfloat16 else value).numpy()
        for key, value in bundle.data.items()
    }


def _source(bundle: Bundle) -> TaskSource | None:
    spec = bundle.header.task
    if spec is None:
        return None
    if not spec.embedded:
        return named_source(spec.name, spec.arguments)
    arrays = bundle_arrays(bundle)
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
