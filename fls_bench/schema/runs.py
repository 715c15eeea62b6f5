"""One training run of a sweep: its key, what it left behind, and what was measured."""

from __future__ import annotations

from typing import Literal

from fls_bench.schema.base import Frozen, Measured, PositiveFloat, Share, canonical_digest
from fls_bench.schema.states import Outcome, Regime


class RunConfig(Frozen):
    """One training run of a sweep; its digest is its key in the store."""

    setup_digest: str
    c: PositiveFloat
    init_scale: PositiveFloat
    lr: PositiveFloat
    seed: int
    centered: bool
    max_epochs: int

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of this value."""
        return canonical_digest(self.model_dump())


class Measurement(Frozen):
    """One measured number, or the reason why there is none."""

    metric: str
    subject: Literal["model", "at_c", "at_c_star"] = "model"
    """The model that was given, or nets that were trained again at its c, or at c*."""
    layer: str | None = None
    split: Literal["train", "validation", "test"] | None = None
    value: float | None = None
    unit: str = "1"
    direction: Regime | None = None
    """The side that higher values go with; None where they go with neither or with both."""
    n: int | None = None
    """How many samples (or seeds) the value rests on."""
    low: float | None = None
    high: float | None = None
    status: Literal["ok", "unavailable"] = "ok"
    reason: str | None = None


class RunRecord(Frozen):
    """What one run left behind. Saved at once, judged later."""

    config: RunConfig
    outcome: Outcome
    epochs: int
    steps: int
    train_loss: Measured | None = None
    val_error: Share | None = None
    val_loss: Measured | None = None
    test_error: Share | None = None
    test_loss: Measured | None = None
    test_ties: Share | None = None
    """Share of test points whose largest logits tie (f = 0 for one logit); each counts half an error."""
    chance_error: Share | None = None
    """Test error of always answering the commonest training class."""
    measurements: dict[str, Measured] = {}
    """Cheap measurements on test data that tell mechanisms apart, ``metric`` or ``metric:layer``."""
    message: str | None = None
    """For ``failed``: the error in one line."""
