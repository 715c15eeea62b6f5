"""From a checkpoint that others wrote, with a net and data that the user names, to what is judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fls_bench import models
from fls_bench.bundle import (
    STATES_OF_TRAINING,
    Checkpoint,
    Match,
    NetShape,
    match_weights,
)
from fls_bench.bundle.sniffing import Kind
from fls_bench.schema import ArchitectureSpec, BundleHeader, Finding, Tier
from fls_bench.subject.file_data import data_findings, draw_of, file_task
from fls_bench.subject.files import (
    NO_TEST_POINTS,
    claimed,
    setup_findings,
    stop_findings,
)
from fls_bench.subject.given import Given, check_given, check_measurable
from fls_bench.subject.heads import with_head
from fls_bench.subject.inits import (
    check_centered,
    initial_weights,
    likeness_findings,
    net_shape,
    read_weights,
)
from fls_bench.subject.observing import stored_look
from fls_bench.subject.setups import built_in_builder, given_source, header_setup
from fls_bench.subject.snapshots import fitting, read_out_facts
from fls_bench.subject.subject import Subject
from fls_bench.tasks import Task, TaskSource, named_source, noise
from fls_bench.training import user_code
from fls_bench.training.runs import make_net
from fls_bench.training_setup import TrainingSetup, import_object

MAX_SHOWN = 8
_NO_BUILDER = (
    "The file holds tensors by name and not the net that they belong to: give its builder with --model "
    "package.module:function, or --setup."
)
_NO_DATA = "No data were given: give what the net was trained and tested on with --data."
_NO_RECIPE = (
    "How the net was trained is not known, so c can't be swept: give it with --setup, or keep it with "
    "fls_bench.record."
)
_NO_INIT = "The file's recipe is not swept, since its initial weights are not known."


@dataclass(frozen=True)
class _Weights:
    """The weights of a net, as they were found in a file."""

    state: dict[str, Tensor]
    sha256: str
    match: Match


def from_checkpoint(checkpoint: Checkpoint, given: Given) -> Subject:
    """Put a checkpoint's weights into the net that the user names, and run it on the user's data.

    Args:
        checkpoint: What the file holds.
        given: What the user gives beside it.

    Returns:
        The subject: T0 without net or data, T1 with both, T2 with the initial weights too, T3 with a
        recipe (a setup's, or what ``fls_bench.record`` noted in the file).

    Raises:
        InputError: What was given does not go together, or does not fit.
    """
    check_given(given)
    facts: dict[str, Any] = {
        "path": str(checkpoint.path),
        "format": checkpoint.kind,
        "sha256": None,
        **{k: v for k, v in checkpoint.claims.items() if not k.startswith("train_loss")},
    }
    if checkpoint.kind == Kind.SHARDED:
        facts["sha256_is_of"] = "the index, followed by its shards in the order of their names"
    source = given_source(given)
    setup = _setup(checkpoint, given, source)
    if setup is None:
        facts["sha256"] = checkpoint.sha256()
        facts |= _contents(checkpoint)
        why = _NO_BUILDER if given.builder is None else _NO_DATA
        check_measurable(given, why)
        if given.builder is not None and ":" in given.builder:
            # Without data nothing can be measured, but whether the net is the right one can be told.
            with user_code("make_model failed", "Correct it, or its arguments."):
                net = make_net(_unmeasured(given.builder), 0, 1.0, torch.float32)
            facts["weights"] = match_weights(
                checkpoint, net_shape(net), wanted=given.weights
            ).prefix
        return Subject(None, None, None, Tier.T0, why, facts)
    task = file_task(setup, checkpoint.header, given, source)
    with user_code("make_model failed", "Correct it, or its arguments."):
        net = make_net(setup, 0, setup.output_multiplier, torch.float32).eval()
    shape = net_shape(net)
    found = _weights(checkpoint, shape, given)
    findings = [*_found(found, checkpoint), *data_findings(task, checkpoint.header, given)]
    final = found.state
    facts |= {
        "sha256": found.sha256,
        "weights": found.match.prefix or "at the top of the file",
        "num_parameters": sum(p.numel() for p in net.parameters()),
        "architecture": given.builder or setup.name,
    }
    findings += setup_findings(checkpoint.header, given)
    findings += stop_findings(checkpoint.header, given)
    recipe = given.setup is not None or bool(checkpoint.header and checkpoint.header.recipe)
    claims, init = checkpoint.claims, None
    claim = claimed(checkpoint.header)
    if claim is None and "train_loss" in claims:
        claim = float(claims["train_loss"]), str(claims["train_loss_name"])
    if given.fit_head:
        claim = None  # of another head
        setup, final, width = with_head(setup, net, final, task)
        text = (
            f"A linear read-out was fitted here to the net's {width} outputs on the training points "
            "(logistic regression, strength chosen on validation points): logits, losses and errors are "
            "of that head, and it has no initial weights."
        )
        findings.append(Finding(code="head_fitted", status="warning", text=text))
    else:
        initial = initial_weights(setup, shape, given, header=checkpoint.header)
        init = initial.state
        facts["initial_weights"] = initial.origin
        check_centered(setup, init)
        findings += [*initial.findings, *likeness_findings(final, init, shape)]
        if not recipe:
            setup = replace(setup, loss=_loss(net, final, task))
    facts["feature_layer"] = read_out_facts(setup, task, final)
    look, snapshot = stored_look(setup, task, final, init, only=given.observe_only)
    tier, why = _tier(recipe, init, given)
    if tier is Tier.T3 and not task.has_test:
        tier, why = Tier.T1 if init is None else Tier.T2, NO_TEST_POINTS
    return Subject(
        setup if tier is Tier.T3 else None, task, snapshot, tier, why, facts, tuple(findings), claim,
        measured_by=setup, look=look,
    )  # fmt: skip


def _setup(checkpoint: Checkpoint, given: Given, source: TaskSource | None) -> TrainingSetup | None:
    """Net, data and, as far as they are known, loss and recipe; None without net or data."""
    setup = given.setup
    if setup is None:
        header = checkpoint.header or BundleHeader(architecture=ArchitectureSpec())
        if source is None and header.task is not None and not header.task.embedded:
            source = named_source(header.task.name, header.task.arguments)
        if given.builder is None or source is None:
            return None
        make = (
            import_object(given.builder, "--model")
            if ":" in given.builder
            else _built_in(given, source(draw_of(checkpoint.header, given)))
        )
        setup = header_setup(make, source, header, checkpoint.path.stem)
    layer = given.feature_layer
    return setup if layer is None else replace(setup, feature_layer=layer)


def _unmeasured(named: str) -> TrainingSetup:
    """A user's net, where there are no data: on any."""
    return TrainingSetup(make_model=import_object(named, "--model"), task=noise(0, n_train=20))


def _built_in(given: Given, task: Task) -> Callable[..., nn.Module]:
    """A built-in net that the user names, sized by the data."""
    name = str(given.builder)
    sized = models.architecture(name).sized(task.x_train.shape[1:], task.n_classes)
    arguments = models.check_arguments(name, {**sized, **given.builder_arguments})
    return built_in_builder(name, arguments.model_dump(mode="json"))


def _weights(checkpoint: Checkpoint, shape: NetShape, given: Given) -> _Weights:
    match = match_weights(checkpoint, shape, wanted=given.weights, whole=not given.fit_head)
    state, sha256 = read_weights(checkpoint, match, shape)
    return _Weights(state, sha256, match)


def _found(found: _Weights, checkpoint: Checkpoint) -> list[Finding]:
    """What of the file was taken for the net's weights, where that is not plain."""
    match = found.match
    notes = []
    if match.averaged:
        notes.append((
            "averaged_weights", "warning",
            f"The weights under {match.prefix!r} are averages over training, by their name: not those "
            "at which training stopped.",
        ))  # fmt: skip
    if match.others:
        notes.append((
            "other_weights", "info",
            f"The file holds weights of this net also under {_shown(match.others)}; --weights chooses.",
        ))  # fmt: skip
    if match.left_out:
        notes.append((
            "left_out", "info",
            f"Left out, since the net has no such tensors: {_shown(match.left_out)}.",
        ))  # fmt: skip
    kinds = {
        str(tensor.dtype).removeprefix("torch.")
        for tensor in match.tensors.values()
        if tensor.dtype.is_floating_point and tensor.dtype.itemsize < 4
    }
    if kinds:
        notes.append((
            "half_precision", "info",
            f"The file holds {' and '.join(sorted(kinds))} numbers; the net was run in float32.",
        ))  # fmt: skip
    if checkpoint.passed_over:
        notes.append((
            "settings_read_past", "info",
            f"Objects of these classes were read past, not loaded: {_shown(checkpoint.passed_over)}.",
        ))  # fmt: skip
    return [
        Finding.model_validate({"code": code, "status": status, "text": text})
        for code, status, text in notes
    ]


def _shown(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return ", ".join(name or "the top of the file" for name in names[:MAX_SHOWN]) + more


def _contents(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a file holds, for a user who has to name its net."""
    weights = [
        name for name, home in checkpoint.homes.items() if not home.startswith(STATES_OF_TRAINING)
    ]
    homes = dict.fromkeys(checkpoint.homes[name] for name in weights)
    return {
        "num_tensors": len(checkpoint.tensors),
        "weights_under": [home[:80] or "the top" for home in homes][:MAX_SHOWN],
        "first_weights": weights[:MAX_SHOWN],
    }


def _loss(net: nn.Module, final: Mapping[str, Tensor], task: Task) -> Any:
    """``logistic`` for one output and two classes, else ``cross_entropy``."""
    with fitting():
        net.load_state_dict(dict(final))
        with torch.no_grad():
            output = net(torch.tensor(task.x_train[:2]))
    one = isinstance(output, Tensor) and output.shape[1:] == (1,)
    return "logistic" if one and task.n_classes == 2 else "cross_entropy"


def _tier(recipe: bool, init: Mapping[str, Tensor] | None, given: Given) -> tuple[Tier, str]:
    if given.setup is not None or (recipe and init is not None):
        return Tier.T3, "The setup can be trained again: c can be swept."
    known = Tier.T1 if init is None else Tier.T2
    return known, _NO_INIT if recipe else _NO_RECIPE
