"""What a user gives beside a model file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fls_bench.errors import InputError
from fls_bench.training_setup import TrainingSetup


@dataclass(frozen=True)
class Given:
    """What a user gives beside a file.

    Attributes:
        builder: ``package.module:function`` of the net (imports the user's code), or the name of a
            built-in net.
        builder_arguments: Of a built-in net.
        data: As ``task_source`` names them, in place of the file's own.
        data_arguments: Of a task by name, or of a reader of files.
        setup: Net, data and recipe at once.
        init: A file with the initial weights.
        init_seed: The seed that the builder was called under.
        init_digest: ``state_digest`` of the initial weights, which proves that seed.
        data_seed: Which draw of the data the net was trained on; None: the file's, or 0.
        weights: Which weights of the file, by the prefix of their names.
        feature_layer: Whose features count as the last.
        fit_head: Fit a read-out to an encoder that has none.
        allow: Classes of settings, as ``module.name``, that are read past.
        observe_only: Measure only what the regime is read from, on a fixed part of the data.
    """

    builder: str | None = None
    builder_arguments: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None
    data_arguments: Mapping[str, Any] = field(default_factory=dict)
    setup: TrainingSetup | None = None
    init: Path | None = None
    init_seed: int | None = None
    init_digest: str | None = None
    data_seed: int | None = None
    weights: str | None = None
    feature_layer: str | None = None
    fit_head: bool = False
    allow: tuple[str, ...] = ()
    observe_only: bool = False


NOTHING = Given()


def check_given(given: Given) -> None:
    """Refuse what does not go together, whatever the file is.

    Args:
        given: What the user gives.

    Raises:
        InputError: Some of it excludes some other.
    """
    if given.setup is not None and given.builder is not None:
        raise InputError("--setup brings its own net.", "Leave --model out.")
    if given.setup is not None and given.fit_head:
        raise InputError(
            "A net that --setup trains has a read-out of its own.",
            "Leave --fit-head out, or give the encoder with --model.",
        )
    if given.fit_head and (given.init is not None or given.init_seed is not None):
        raise InputError(
            "A net whose read-out is fitted here is measured without its initial weights, since the "
            "read-out has none.",
            "Leave --init and --init-seed out.",
        )
    if given.init is not None and given.init_seed is not None:
        raise InputError(
            "--init and --init-seed both say what training started from.", "Give one of them."
        )
    if given.init_digest is not None and given.init_seed is None and given.init is None:
        raise InputError(
            "--init-digest proves a seed or a file, and none was given.",
            "Give it with --init-seed or --init.",
        )
    if given.init_digest is not None and not re.fullmatch("[0-9a-f]{64}", given.init_digest):
        raise InputError(
            f"--init-digest {given.init_digest[:80]!r} is no digest of 64 hexadecimal digits.",
            "Give all of fls_bench.state_digest(model.state_dict()).",
        )


def check_measurable(given: Given, lacks: str) -> None:
    """Refuse what would not be used, where a net or data are missing.

    Args:
        given: What the user gives.
        lacks: What is missing, as a sentence.

    Raises:
        InputError: Something would not be used.
    """
    for option, used in (
        ("--data", given.data is not None),
        ("--data-seed", given.data_seed is not None),
        ("--feature-layer", given.feature_layer is not None),
        ("--fit-head", given.fit_head),
        ("--init", given.init is not None),
        ("--init-seed", given.init_seed is not None),
    ):
        if used:
            raise InputError(
                f"{option} would not be used: {lacks[:1].lower()}{lacks[1:].partition(':')[0]}.",
                "Give the net's builder with --model and its data with --data, or --setup.",
            )
