"""From a model file of ours to what is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fls_bench.bundle import Bundle
from fls_bench.bundle.contents import listed
from fls_bench.bundle.matching import NetShape
from fls_bench.bundle.sniffing import label_of
from fls_bench.errors import InputError
from fls_bench.schema import BundleHeader, Finding, FixedSteps, Recipe, Tier
from fls_bench.subject.file_data import data_findings, file_task
from fls_bench.subject.given import Given, check_given
from fls_bench.subject.inits import check_centered, initial_weights, likeness_findings, net_shape
from fls_bench.subject.observing import stored_look
from fls_bench.subject.setups import bundle_arrays, bundle_setup, given_source
from fls_bench.subject.snapshots import read_out_facts
from fls_bench.subject.subject import Subject
from fls_bench.tasks import Task, arrays_source, load_task
from fls_bench.training import user_code
from fls_bench.training.runs import make_net
from fls_bench.training_setup import TrainingSetup

NO_TEST_POINTS = "There are no test points, by which nets of other c could be judged."


def from_bundle(bundle: Bundle, given: Given) -> Subject:
    """Rebuild what a model file describes, as far as it goes.

    Args:
        bundle: The file.
        given: What the user gives beside it.

    Returns:
        The subject.

    Raises:
        InputError: What was given is not needed, the data don't fit the net, or can't be had.
    """
    check_given(given)
    header, path = bundle.header, bundle.path
    named = header.architecture.name
    known = f"names the built-in net {named!r}"
    for option, used, what in (
        ("--model", given.builder is not None and named is not None, known),
        ("--setup", given.setup is not None and named is not None, known),
        ("--init", given.init is not None and bundle.init is not None, "holds initial weights"),
        ("--weights", given.weights is not None, "holds the weights of one net"),
        ("--fit-head", given.fit_head, "holds a net with its read-out"),
    ):
        if used:
            raise InputError(f"{path} {what}; {option} would not be used.", f"Leave {option} out.")
    facts: dict[str, Any] = {
        "path": str(path),
        "format": "model file of fls-bench",
        "sha256": bundle.sha256,
        "num_parameters": bundle.num_parameters,
        "architecture": named or given.builder or header.architecture.hint or "unknown",
        "versions": dict(header.versions),
    }
    source = given_source(given)
    setup = given.setup or bundle_setup(bundle, builder=given.builder, source=source)
    findings: list[Finding] = []
    if setup is not None:
        if given.feature_layer is not None:
            setup = replace(setup, feature_layer=given.feature_layer)
        with user_code("make_model failed", "Correct it, or its arguments."):
            shape = net_shape(make_net(setup, 0, setup.output_multiplier, torch.float32))
        initial = initial_weights(setup, shape, given, header=header, held=bundle.init)
        facts["initial_weights"] = initial.origin
        prefix = part_of(bundle, shape) if named is None else ""
        bundle = replace(
            bundle,
            final=_without(prefix, bundle.final),
            init=None if initial.state is None else _without(prefix, initial.state),
        )
        findings += [*initial.findings, *likeness_findings(bundle.final, bundle.init, shape)]
    tier, why = (Tier.T3, "") if given.setup is not None else evidence_tier(
        bundle, builder_given=given.builder is not None, data_given=source is not None
    )  # fmt: skip
    if setup is None:
        return Subject(None, None, None, Tier.T0, why, facts)
    if source is None and given.setup is None and given.data_seed is None:
        task = _own_draw(bundle, setup)
    else:
        task = file_task(setup, header, given, source)
        findings += data_findings(task, header, given)
    if tier is Tier.T3 and not task.has_test:
        tier, why = Tier.T2 if bundle.init is not None else Tier.T1, NO_TEST_POINTS
    findings += setup_findings(header, given)
    findings += stop_findings(header, given)
    check_centered(setup, bundle.init)
    facts["feature_layer"] = read_out_facts(setup, task, bundle.final)
    look, snapshot = stored_look(setup, task, bundle.final, bundle.init, only=given.observe_only)
    return Subject(
        setup if tier is Tier.T3 else None, task, snapshot, tier, why, facts, tuple(findings),
        claimed(header), measured_by=setup, look=look,
    )  # fmt: skip


def part_of(bundle: Bundle, shape: NetShape) -> str:
    """What stands before the names of a net's weights in a file of a module around it.

    Args:
        bundle: The file.
        shape: Of the net that was built.

    Returns:
        The prefix with its dot, or nothing.

    Raises:
        InputError: The file holds other weights than the net has.
    """
    names, wanted = set(bundle.final), set(shape.shapes)
    first = min(wanted, default="")
    for name in sorted(names):
        prefix = name.removesuffix(first)
        if name.endswith(f".{first}") and {f"{prefix}{one}" for one in wanted} == names:
            return prefix
    missing, strange = sorted(wanted - names - set(shape.tied)), sorted(names - wanted)
    if missing and strange:
        raise InputError(
            f"The weights in {label_of(bundle.path)} do not fit the net: missing {listed(missing)}; "
            f"unexpected {listed(strange)}.",
            "Give with --model the builder of the very module that was recorded: of a transformers "
            "model fls_bench.integrations.transformers.Logits(model), of a LightningModule the part "
            "that module= named.",
        )
    return ""


def _without(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items()}


def claimed(header: BundleHeader | None) -> tuple[float, str] | None:
    """The training loss that a header claims, with its name there.

    Args:
        header: Of a model file, or what ``fls_bench.record`` noted in a checkpoint.

    Returns:
        (loss, name), or None.
    """
    if header is None or header.outcome is None or header.outcome.train_loss is None:
        return None
    return header.outcome.train_loss, "outcome.train_loss"


def _own_draw(bundle: Bundle, setup: TrainingSetup) -> Task:
    """The very data that the file was trained on, checked by fingerprint where they are named."""
    spec, recipe = bundle.header.task, bundle.header.recipe or Recipe()
    if spec is None:
        return setup.task_for(recipe.data_seed)
    if spec.embedded:
        source = arrays_source(spec.name, bundle_arrays(bundle), None, None, spec.n_classes)
        return source(recipe.data_seed)
    return load_task(spec)


def setup_findings(header: BundleHeader | None, given: Given) -> tuple[Finding, ...]:
    """Where a setup that the user gives says otherwise than the file's own header.

    Args:
        header: Of the file, or None.
        given: What the user gives.

    Returns:
        A problem that names what differs, or nothing.
    """
    setup = given.setup
    if header is None or setup is None:
        return ()
    pairs: dict[str, tuple[Any, Any]] = {
        name: (getattr(header, name), getattr(setup, name))
        for name in ("output_multiplier", "init_scale", "centered")
    }
    if header.recipe is not None:
        pairs |= {
            name: (getattr(header.recipe, name), getattr(setup, name))
            for name in ("loss", "label_smoothing", "optimizer", "batch_size", "stop")
        }
    differing = [name for name, (noted, own) in pairs.items() if noted != own]
    if not differing:
        return ()
    text = (
        f"The setup says otherwise than the file's own header on {', '.join(differing)}: the verdict is "
        "on the setup, and the file was measured as the setup says."
    )
    return (Finding(code="setup_differs_from_file", status="problem", text=text),)


def stop_findings(header: BundleHeader | None, given: Given) -> list[Finding]:
    """That the reading's nets were trained to a target, where this one was not.

    Args:
        header: Of the file, or None.
        given: What the user gives; a setup counts before the header.

    Returns:
        A warning with what was measured (``benchmarks/other_stops.py``), or nothing.
    """
    recipe = None if header is None else header.recipe
    stop = given.setup.stop if given.setup is not None else recipe.stop if recipe else None
    if not isinstance(stop, FixedSteps):
        return []
    text = (
        f"Training stopped after {stop.steps:,} steps, and the reading is of nets that were trained to "
        "a target loss or accuracy: of others that were measured it said less, and was wrong more "
        "often, also by the opposite (docs/reading.md has the figures)."
    )
    return [Finding(code="stop_unlike", status="warning", text=text)]


def evidence_tier(
    bundle: Bundle, *, builder_given: bool = False, data_given: bool = False
) -> tuple[Tier, str]:
    """Say how much evidence a model file affords, and why not more.

    Args:
        bundle: The file.
        builder_given: Whether the user gave a builder for a net that is not built in.
        data_given: Whether the user gave data in place of the file's own.

    Returns:
        The best tier, and one sentence on what the next tier lacks.
    """
    header = bundle.header
    if header.architecture.name is None and not builder_given:
        hint = header.architecture.hint
        repeat = f" (the file's hint is {hint!r})" if hint else ""
        return Tier.T0, (
            "The file names no built-in net, so it can't be rebuilt and run: give its builder with "
            f"--model module:function{repeat}."
        )
    if header.task is None and not data_given:
        return Tier.T0, "The file neither names a task nor embeds data."
    if bundle.init is None:
        return Tier.T1, "The file holds no initial weights."
    if header.recipe is None:
        why = f" (when it was recorded: {header.no_recipe})" if header.no_recipe else ""
        return Tier.T2, f"The file holds no training recipe, so c can't be swept{why}."
    return Tier.T3, "The file holds weights, data, initial weights and a recipe: c can be swept."
