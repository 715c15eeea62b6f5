"""What a user gives beside a model file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fls_bench.training_setup import TrainingSetup


@dataclass(frozen=True)
class Given:
    """What a user gives beside a file.

    Attributes:
        builder: ``package.module:function`` of the net (imports the user's code), or a built-in net as
            ``NAME,argument=value``.
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
    """

    builder: str | None = None
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


NOTHING = Given()
