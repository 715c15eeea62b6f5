"""The whole path of ``tune``: a setup -> c* and its rate -> a verified gain -> the tuned model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fls_bench.bench import Options, make_ready, make_report, stores_of
from fls_bench.bundle import load_bundle, save_bundle
from fls_bench.errors import InputError, RunFailedError
from fls_bench.facts import advised, data_findings, setup_facts
from fls_bench.scaling import factors, rate_power
from fls_bench.schema import (
    Adam,
    AdamW,
    AnyOptimizer,
    BundleOutcome,
    Judgement,
    LrRule,
    Outcome,
    Recipe,
    Report,
    RunConfig,
    Sgd,
    Skipped,
)
from fls_bench.subject import NOTHING, Given, from_bundle
from fls_bench.sweep import Prepared, TuneResult, tune, tune_plan
from fls_bench.training import TRAINING_FAILED, train_one, user_code
from fls_bench.training_setup import Custom, TrainingSetup
from fls_bench.verdict.advice import snippet
from fls_bench.verdict.evidence import Evidence

CONFIRM = 10
"""Fresh seeds of the verification."""


def tune_file(path: Path, options: Options, given: Given = NOTHING, **writing: Any) -> Report:
    """Tune the setup that a model file describes.

    Args:
        path: A bundle with data and recipe.
        options: Seeds, budget, store.
        given: What the user gives beside it: a builder, data.
        **writing: As for ``tune_setup``.

    Returns:
        The report.

    Raises:
        InputError: The file can't be used, or does not hold what a sweep needs.
        RunFailedError: The tuned net could not be trained.
    """
    bundle = load_bundle(path)
    subject = from_bundle(bundle, given)
    if subject.setup is None:
        raise InputError(
            f"{path} can't be tuned, since its setup can't be trained again: {subject.why}",
            "Give a file with data and recipe (see save_bundle), or your setup with --setup.",
        )
    hint = None if bundle.header.architecture.name is not None else given.builder
    return tune_setup(subject.setup, options, hint=hint, facts=subject.facts, **writing)


def tune_setup(
    setup: TrainingSetup,
    options: Options,
    *,
    output: Path | None = None,
    train_seed: int = 0,
    confirm: int = CONFIRM,
    force: bool = False,
    hint: str | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Report:
    """Find c* and its rate on validation data, verify the gain, and train the tuned net.

    Args:
        setup: The setup.
        options: Seeds, budget, store.
        output: Where the tuned model is written, if a gain is confirmed; None: nowhere.
        train_seed: Seed of the tuned net's weights, data and order.
        confirm: Fresh seeds of the verification.
        force: Whether an existing file may be replaced.
        hint: ``module:function`` of the net's builder, for readers of the tuned file.
        facts: What is known of the file that was given.

    Returns:
        A report of kind ``tune``.

    Raises:
        InputError: The setup can't be trained or the file not written.
        RunFailedError: The tuned net could not be trained.
    """
    prepared = make_ready(setup, options, plan=tune_plan(options.plan(), confirm))
    result = tune(
        prepared, stores=stores_of(options), listener=options.listener, jobs=options.num_jobs
    )
    task = prepared.setup.task_for(prepared.plan.first_seed)
    findings = tuple(data_findings(prepared.setup, task))
    tuning = result.tuning.model_copy(update={"findings": findings})
    skipped: list[Skipped] = []
    if tuning.tuned_c is not None and tuning.tuned_lr is not None:
        evidence = Evidence(result.sweep, tuning.c, advised=advised(prepared.setup))
        text = snippet(evidence, tuning.tuned_c, tuning.lr, tuning.tuned_lr, result.rate_factor)
        tuning = tuning.model_copy(update={"snippet": text})
        if output is not None:
            options.listener.note(f"training the tuned net with seed {train_seed}")
            skipped = write_tuned(prepared, result, output, train_seed, force=force, hint=hint)
            tuning = tuning.model_copy(update={"model_file": str(output)})
    elif output is not None:
        why = f"No gain is confirmed, so {output} was not written."
        skipped.append(Skipped(what="the tuned model", code="not_confirmed", reason=why))
    judgement = Judgement(
        sweep=result.sweep,
        skipped=tuple(skipped),
        setup=setup_facts(prepared.setup, task, prepared.rule),
        input=dict(facts or {}),
        cost=result.cost,
    )
    return make_report(options, "tune", judgement, engines=[prepared], tuning=tuning)


def write_tuned(
    prepared: Prepared,
    result: TuneResult,
    path: Path,
    seed: int,
    *,
    force: bool = False,
    hint: str | None = None,
) -> list[Skipped]:
    """Train the tuned net and write it as a model file, at once or not at all.

    Args:
        prepared: The setup as it was.
        result: The tuning, with a confirmed change.
        path: Where to write.
        seed: Seed of weights, data and order.
        force: Whether an existing file may be replaced.
        hint: ``module:function`` of a builder that is not built in.

    Returns:
        What the file can't hold, and why.

    Raises:
        InputError: The file can't be written.
        RunFailedError: The net did not reach its target with this seed.
    """
    setup, rule, tuning = prepared.setup, prepared.rule, result.tuning
    value, lr = tuning.tuned_c, tuning.tuned_lr
    assert value is not None
    assert lr is not None
    on_scale = setup.axis == "init_scale"
    c = setup.output_multiplier if on_scale else value
    config = RunConfig(
        setup_digest="own", c=c, init_scale=value if on_scale else setup.init_scale, lr=lr,
        seed=seed, centered=setup.centered, max_epochs=setup.stop.max_epochs,
    )  # fmt: skip
    with user_code(TRAINING_FAILED, "Correct the model, or what it is trained on."):
        run, _ = train_one(setup, rule, config, device=prepared.engine.device)
    if run.outcome is not Outcome.REACHED_TARGET:
        raise RunFailedError(
            f"The tuned net missed its target with seed {seed}: {run.outcome.sentence} Nothing was "
            "written.",
            "Try another --train-seed; finished runs that are stored are used again.",
        )
    optimizer = tuned_optimizer(setup, rule, c, lr)
    recipe: Recipe | None = None
    skipped: list[Skipped] = []
    if isinstance(optimizer, str):
        why = f"{optimizer} So the file holds the weights without a recipe."
        skipped.append(Skipped(what="the tuned file's recipe", code="no_recipe", reason=why))
    else:
        recipe = Recipe(
            loss=setup.loss, label_smoothing=setup.label_smoothing, optimizer=optimizer,
            lr_rule=rule, batch_size=setup.batch_size, augmentation=setup.augmentation,
            stop=setup.stop, seed=seed, data_seed=seed,
        )  # fmt: skip
    save_bundle(
        path,
        dict(run.final),
        initial_state=dict(run.init),
        task=setup.task_for(seed),
        recipe=recipe,
        outcome=BundleOutcome(
            status=run.outcome, epochs=run.epochs, steps=run.steps, train_loss=run.train_loss
        ),
        output_multiplier=c,
        init_scale=config.init_scale,
        centered=setup.centered,
        multiplier_route="factory" if setup.route == "factory" else "wrapper",
        architecture=setup.architecture,
        builder_hint=None if setup.architecture is not None else hint or _builder_hint(setup),
        feature_layer=setup.feature_layer,
        force=force,
    )
    return skipped


def tuned_optimizer(setup: TrainingSetup, rule: LrRule, c: float, lr: float) -> AnyOptimizer | str:
    """The optimizer as a recipe at the tuned c, or why one recipe can't say it.

    Args:
        setup: The setup as it was.
        rule: Its learning-rate rule.
        c: The tuned output multiplier.
        lr: The tuned rate.

    Returns:
        The optimizer with its penalty, epsilon and clipping at c; or a sentence.
    """
    own = setup.optimizer
    if isinstance(own, Custom):
        return "A file can't hold an optimizer of your own."
    ratio = c / setup.output_multiplier
    if rule.exponents and ratio != 1:
        return (
            "At the tuned multiplier some parameters train at rates of their own (see the code to "
            "paste), which a recipe can't say."
        )
    by = factors(rule, rate_power(own), "", ratio)
    changed: dict[str, Any] = {
        "lr": lr,
        "weight_decay": own.weight_decay * (by.decay if isinstance(own, AdamW) else by.l2),
    }
    if own.clip_norm is not None:
        changed["clip_norm"] = own.clip_norm / by.clip
    if not isinstance(own, Sgd):
        changed["epsilon"] = own.epsilon * by.epsilon
    kinds: dict[str, type[Sgd | Adam | AdamW]] = {"sgd": Sgd, "adam": Adam, "adamw": AdamW}
    return kinds[own.kind].model_validate(own.model_dump() | changed)


def _builder_hint(setup: TrainingSetup) -> str | None:
    """``module:function`` of the user's builder, where it can be imported under that name."""
    module = getattr(setup.make_model, "__module__", None)
    name = getattr(setup.make_model, "__qualname__", None)
    if not module or not name or "<" in name or module == "__main__":
        return None
    return f"{module}:{name}"
