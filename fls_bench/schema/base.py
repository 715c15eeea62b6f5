"""What every stored value is built on: the frozen base, its digest, and the number types."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

DIRECTION = "smaller c = larger FLS = toward over-aligned"

PositiveFloat = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Measured = Annotated[float, Field(ge=-1e100, le=1e100)]
"""Nothing that is measured comes near; beyond, squares leave the range of floating point numbers."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""What torch takes as a seed."""


class Frozen(BaseModel):
    """A value that can't be changed, has no unknown fields and holds finite numbers only."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class Interval(Frozen):
    """A value with its confidence interval."""

    value: float
    low: float | None
    high: float | None
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95


class Code(Frozen):
    """A code for programs and a sentence for people."""

    code: str
    text: str


def canonical_digest(value: Any) -> str:
    """SHA-256 of the canonical JSON (sorted keys, no spaces) of a plain value, in hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
