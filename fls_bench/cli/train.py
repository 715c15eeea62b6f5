"""``fls-bench train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fls_bench.cli.app import app
from fls_bench.cli.options import (
    DeviceOption,
    ForceOption,
    QuietOption,
    checked_recipe,
    parse_named,
    parse_optimizer,
)
from fls_bench.errors import InputError

if TYPE_CHECKING:
    from fls_bench.training_setup import TrainingSetup


@app.command()
def train(
    output: Annotated[Path, typer.Option("--output", "-o", help="Model file to write.")],
    task: Annotated[
        str,
        typer.Option(
            help="Data by name, file, folder or package.module:function; arguments after commas: "
            "rows.csv,target=price."
        ),
    ] = "digits",
    n_train: Annotated[
        int | None, typer.Option(help="Training points; default: the task's own.")
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="mlp, two_layer, cnn, resnet, resnet18, resnet34, resnet50, vgg19 or vit; "
            "arguments after commas: cnn,norm=batch,width=32."
        ),
    ] = "mlp",
    depth: Annotated[
        int | None, typer.Option(help="Weight layers of an mlp, the read-out counted; default: 4.")
    ] = None,
    width: Annotated[int | None, typer.Option(help="Units or channels; default: 128, 16.")] = None,
    output_multiplier: Annotated[
        str, typer.Option(help="c: 0.002, 2^-9 or 1/16; smaller c = larger FLS.")
    ] = "1",
    init_scale: Annotated[str, typer.Option(help="alpha, the factor on initial weights.")] = "1",
    lr: Annotated[
        float | None,
        typer.Option(help="Rate at c = 1; the rule gives that at c; default: 0.1, Adam 0.001."),
    ] = None,
    optimizer: Annotated[
        str,
        typer.Option(
            help="sgd, adam or adamw; settings after commas: adamw,weight_decay=0.1,clip_norm=1,"
            "schedule=cosine (or step:30); per step schedule=linear (or cosine, constant),warmup=100."
        ),
    ] = "sgd",
    loss: Annotated[str, typer.Option(help="cross_entropy, logistic or mse.")] = "",
    label_smoothing: Annotated[float, typer.Option(help="Of the cross-entropy.")] = 0.0,
    augment: Annotated[str, typer.Option(help="Of training images: flip, crop or both.")] = "",
    batch_size: Annotated[int, typer.Option(help="Points per step.")] = 25,
    target_loss: Annotated[float, typer.Option(help="Stop at this training loss.")] = 0.1,
    target_accuracy: Annotated[
        float | None, typer.Option(help="Stop at this training accuracy, in place of a loss.")
    ] = None,
    validation_patience: Annotated[
        int | None,
        typer.Option(
            help="Stop where the validation loss has not fallen for so many epochs, and keep the best "
            "epoch's net."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Stop after so many optimizer steps.")] = None,
    max_epochs: Annotated[
        int | None, typer.Option(help="Most epochs; default: 300, and with --steps no limit.")
    ] = None,
    centered: Annotated[bool, typer.Option("--centered", help="Train c·(f - f_0).")] = False,
    seed: Annotated[
        int, typer.Option(min=0, max=10**6, help="Seed of weights, data and order.")
    ] = 0,
    device: DeviceOption = "auto",
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a built-in net and write a model file.

    The file describes itself: `fls-bench diagnose FILE` needs nothing else.
    """
    from fls_bench import bench, console, report
    from fls_bench.scaling import format_multiplier

    report.check_target(output, force)
    recipe = {
        "optimizer": parse_optimizer(optimizer, lr),
        "loss": loss or ("logistic" if model.startswith("two_layer") else "cross_entropy"),
        "label_smoothing": label_smoothing,
        "augmentation": [part.strip() for part in augment.split(",") if part.strip()],
        "batch_size": batch_size,
        "stop": _stop(
            target_loss,
            {
                "target_accuracy": target_accuracy,
                "validation_patience": validation_patience,
                "steps": steps,
            },
            max_epochs,
        ),
        "seed": seed,
        "data_seed": seed,
    }
    sizes = {"n_train": n_train}, {"depth": depth, "width": width}
    setup = _train_setup(task, model, sizes, recipe, output_multiplier, init_scale, centered)
    facts = bench.train(setup, output, seed=seed, force=force, device=device)
    if not quiet:
        c = format_multiplier(setup.output_multiplier)
        console.note(
            f"{output}: c = {c}, learning rate {facts['lr']:.4g}, "
            f"{facts['num_parameters']:,} parameters, {facts['outcome'].replace('_', ' ')} after "
            f"{facts['epochs']} epochs, training loss {facts['train_loss']:.4f}, "
            f"test error {100 * facts['test_error']:.1f} %",
            stdout=True,
        )
        if facts["outcome"] != "reached_target":
            console.note(
                "The target was not reached, so a diagnosis of this file can only be inconclusive: "
                "raise --max-epochs, or change the stop."
            )


def _stop(
    target_loss: float, others: dict[str, float | None], max_epochs: int | None
) -> dict[str, float]:
    given = {key: value for key, value in others.items() if value is not None}
    if len(given) > 1:
        names = " and ".join(f"--{key.replace('_', '-')}" for key in given)
        raise InputError(f"{names} are different ways to stop.", "Give one of them.")
    limit = {} if max_epochs is None else {"max_epochs": max_epochs}
    return (given or {"target_loss": target_loss}) | limit


def _train_setup(
    task: str, model: str, sizes: tuple[dict[str, Any], dict[str, Any]], recipe: dict[str, Any],
    output_multiplier: str, init_scale: str, centered: bool,
) -> TrainingSetup:  # fmt: skip
    from fls_bench.subject import built_in_setup
    from fls_bench.tasks import task_source
    from fls_bench.training_setup import import_object

    checked = checked_recipe(recipe)
    c = _multiplier("--output-multiplier", output_multiplier)
    alpha = _multiplier("--init-scale", init_scale)
    (task, of_task), (model, of_model) = parse_named("--task", task), parse_named("--model", model)
    for arguments, given in ((of_task, sizes[0]), (of_model, sizes[1])):
        arguments.update({key: value for key, value in given.items() if value is not None})
    return built_in_setup(
        model,
        of_model,
        task_source(task, of_task, code=lambda name: import_object(name, "--task")),
        checked,
        base_lr=checked.optimizer.lr,
        output_multiplier=c,
        init_scale=alpha,
        centered=centered,
    )


def _multiplier(option: str, text: str) -> float:
    from fls_bench.scaling import parse_multiplier

    try:
        return parse_multiplier(text)
    except InputError as error:
        raise InputError(f"{option}: {error.problem}", error.remedy) from None
