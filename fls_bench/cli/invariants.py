"""``fls-bench invariants``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fls_bench.cli.app import app
from fls_bench.cli.deliver import deliver
from fls_bench.cli.options import (
    ForceOption,
    HtmlOption,
    JsonOption,
    JunitOption,
    MdOption,
    ModelOption,
    PythonPathOption,
    QuietOption,
    check_outputs,
    checked_recipe,
    parse_named,
    parse_optimizer,
    parse_options,
    search_in,
)
from fls_bench.cli.process import stdout_kept
from fls_bench.errors import InputError

if TYPE_CHECKING:
    from fls_bench.examining import Wanted

INVARIANTS_EXIT_CODES = (
    "Exit codes: 0 none is broken; 1 one is; 2 usage or input; 3 internal error; 130 interrupted."
)


@app.command(epilog=INVARIANTS_EXIT_CODES)
def invariants(
    target: Annotated[
        str,
        typer.Argument(
            help="Model file, or package.module:name of a builder or TrainingSetup (runs your code)."
        ),
    ],
    optimizer: Annotated[
        str | None,
        typer.Option(
            help="sgd, adam or adamw with settings after commas, or package.module:function of your "
            "own: make(net, output_multiplier) -> optimizer."
        ),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of a built-in optimizer.")] = None,
    loss: Annotated[str | None, typer.Option(help="cross_entropy, logistic or mse.")] = None,
    task: Annotated[
        str | None, typer.Option(help="Data, as for train; default: the setup's, or random points.")
    ] = None,
    input_shape: Annotated[
        str | None, typer.Option(help="Shape of one input for random points, such as 3,32,32.")
    ] = None,
    model: ModelOption = None,
    pythonpath: PythonPathOption = None,
    only: Annotated[
        str | None, typer.Option(help="Only these invariants, comma-separated: routes,exact-rule.")
    ] = None,
    examples: Annotated[int, typer.Option(min=1, max=10_000, help="Draws per invariant.")] = 20,
    seed: Annotated[
        int, typer.Option(min=0, max=10**6, help="The same one gives the same draws.")
    ] = 0,
    json: JsonOption = None,
    html: HtmlOption = None,
    md: MdOption = None,
    junit: JunitOption = None,
    quiet: QuietOption = False,
    force: ForceOption = False,
) -> None:
    """Check what the output multiplier does in your net.

    Draws seeds, multipliers and steps, trains pairs of runs that ought to be one function, and says of
    each scaling invariant whether it held, broke (with the smallest counter-example) or is void for this
    net, and why. In float64, on the CPU.
    """
    search_in(pythonpath)
    check_outputs(json, html, force, junit=junit, md=md)
    from fls_bench import console, examining

    with stdout_kept(), console.Progress(quiet, unit="invariants") as listen:
        options = parse_options(listen, seed, 3, "10m", None, 1, "cpu", None, True)
        made = examining.examine_target(
            target,
            options,
            _wanted(optimizer, lr, loss, task, input_shape),
            examples=examples,
            names=None if only is None else [n.strip().replace("-", "_") for n in only.split(",")],
            builder=model,
            command=_again(
                target, optimizer, lr, loss, task, input_shape, model, examples, seed, only
            ),
        )
    deliver(made, json, html, quiet, force, md=md, junit=junit)
    if made.invariants and any(one.status == "broken" for one in made.invariants.findings):
        raise typer.Exit(1)


def _wanted(
    optimizer: str | None, lr: float | None, loss: str | None, task: str | None, shape: str | None
) -> Wanted:
    from fls_bench.examining import DEFAULT_OPTIMIZER, Wanted, told_multiplier
    from fls_bench.tasks import task_source
    from fls_bench.training_setup import import_object

    chosen: Any = None
    if optimizer is not None and ":" in optimizer.partition(",")[0]:
        if lr is not None:
            raise InputError("--lr goes with a built-in optimizer.", "Leave it out.")
        chosen = told_multiplier(import_object(optimizer, "--optimizer"), "--optimizer")
    elif optimizer is not None or lr is not None:
        lr = DEFAULT_OPTIMIZER.lr if lr is None and not optimizer else lr
        chosen = checked_recipe({"optimizer": parse_optimizer(optimizer or "sgd", lr)}).optimizer
    sizes = None
    if shape is not None:
        parts = [part.strip() for part in shape.split(",")]
        if not all(part.isdecimal() and 0 < int(part) < 10**6 for part in parts):
            raise InputError(
                f"--input-shape {shape[:60]!r} is no list of sizes.", "Give for example 3,32,32."
            )
        sizes = tuple(int(part) for part in parts)
    source = None
    if task is not None:
        name, arguments = parse_named("--task", task)
        source = task_source(name, arguments, code=lambda name: import_object(name, "--task"))
    checked = None if loss is None else checked_recipe({"loss": loss}).loss
    return Wanted(optimizer=chosen, task=source, input_shape=sizes, loss=checked)


def _again(
    target: str, optimizer: str | None, lr: float | None, loss: str | None, task: str | None,
    input_shape: str | None, model: str | None, examples: int, seed: int, only: str | None,
) -> str:  # fmt: skip
    """The command that gives the same findings."""
    given = {
        "--optimizer": optimizer, "--lr": lr, "--loss": loss, "--task": task,
        "--input-shape": input_shape, "--model": model, "--examples": examples, "--seed": seed,
        "--only": only,
    }  # fmt: skip
    options = [str(part) for pair in given.items() if pair[1] is not None for part in pair]
    return shlex.join(["fls-bench", "invariants", target, *options])
