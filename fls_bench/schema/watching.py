"""The stored models that say where a net in training is heading."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from fls_bench.schema.base import Frozen
from fls_bench.schema.evaluations import EvaluationRow
from fls_bench.schema.readings import ReadingModel

WATCH_SCHEMA = "fls-bench/watching/1"

Stage = Literal["start", "early", "half", "late"]
"""How far training has come when a net is looked at."""


class WatchModels(Frozen):
    """The committed file that says where a net in training is heading: a model for each stage."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)
    schema_: Annotated[Literal["fls-bench/watching/1"], Field(alias="schema")] = WATCH_SCHEMA  # type: ignore[assignment]
    atlas: dict[str, Any]
    stages: dict[Stage, ReadingModel]
    figures: dict[Stage, tuple[EvaluationRow, ...]] = {}
    """How well each stage tells the regime of the finished net, out of sample."""
