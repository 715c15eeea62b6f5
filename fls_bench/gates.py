"""What of a training run can be compared and gated, and how many seeds that takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fls_bench.schema import Gate

LEVEL = 0.05
"""Chance of any false alarm over everything that is gated, both directions taken together."""

MAX_GATES = 8


@dataclass(frozen=True)
class RunValue:
    """A number that every run of a sweep leaves behind.

    Attributes:
        what: What it is, in a few words.
        unit: "1" for ratios; "share" is shown in percent, a difference in points.
        gate: How it is judged where a suite doesn't say; None: it is shown only.
    """

    what: str
    unit: str = "1"
    gate: Gate | None = None

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest possible value."""
        return (0.0, 1.0) if self.unit == "share" else (-math.inf, math.inf)

    @property
    def suffix(self) -> str:
        """The unit as it follows a level: `` %``, `` nats`` or nothing."""
        return {"share": " %", "1": ""}.get(self.unit, f" {self.unit}")

    def level(self, value: float, low: float | None = None, high: float | None = None) -> str:
        """A value with its unit, and its interval: ``9.43 % [8.20, 10.66]``, ``0.412 nats``."""
        texts = [
            f"{100 * k:.2f}" if self.unit == "share" else f"{k:.4g}"
            for k in (value, low, high)
            if k is not None
        ]
        interval = f" [{texts[1]}, {texts[2]}]" if len(texts) == 3 else ""
        return f"{texts[0]}{self.suffix}{interval}"

    def change(self, value: float, low: float | None = None, high: float | None = None) -> str:
        """A signed difference with its unit, and its interval: ``+1.2 points [+0.4, +2.0]``."""
        factor, unit = (100, " points") if self.unit == "share" else (1, self.suffix)
        texts = [f"{factor * k:+.3g}" for k in (value, low, high) if k is not None]
        interval = f" [{texts[1]}, {texts[2]}]" if len(texts) == 3 else ""
        return f"{texts[0]}{unit}{interval}"

    def amount(self, value: float) -> str:
        """A difference without its sign: ``1.2 points``."""
        text = self.change(abs(value)).removeprefix("+")
        return "1 point" if text == "1 points" else text


REACHED = "reached_target"

RUN_VALUES: Mapping[str, RunValue] = {
    REACHED: RunValue(
        "share of runs that reached the target", "share", gate=Gate(min_effect=0.1, better="higher")
    ),
    "test_error": RunValue("error on test data", "share", gate=Gate(min_effect=0.01, better="lower")),
    "test_loss": RunValue(
        "loss on test data", "nats", gate=Gate(min_effect=0.1, relative=True, better="lower")
    ),
    "val_error": RunValue("error on validation data", "share"),
    "val_loss": RunValue("loss on validation data", "nats"),
    "train_loss": RunValue("training loss at the stop", "nats"),
    "epochs": RunValue(
        "epochs to the target", "epochs",
        gate=Gate(min_effect=0.2, relative=True, better="unchanged"),
    ),
    "test_ties": RunValue("share of test points whose largest logits are equal", "share"),
    "chance_error": RunValue("test error of always answering the commonest training class", "share"),
    "movement.relative": RunValue(
        "||W - W_0|| / ||W_0|| over all parameters",
        gate=Gate(min_effect=0.1, relative=True, better="unchanged"),
    ),
    "rank.effective:logits": RunValue("effective rank of the logits"),
    "rank.effective:last": RunValue("effective rank of the last features"),
    "agreement.nearest_class_mean": RunValue(
        "share of answers like the nearest class mean's", "share",
        gate=Gate(min_effect=0.03, better="unchanged"),
    ),
    "theory.over_alignment": RunValue("OA: least error within the cone of x_+, above Bayes", "share"),
    "theory.over_fitting": RunValue("OF: error of the effective predictor above that", "share"),
    "theory.theta": RunValue("angle of the effective predictor to x_+", "radians"),
    "theory.phase1_angle": RunValue("the same at the end of phase 1", "radians"),
}  # fmt: skip
"""By name, in the order in which they are shown; what else a run measured follows, by name."""

DEFAULT_GATES = {name: one.gate for name, one in RUN_VALUES.items() if one.gate is not None}


def run_value(name: str) -> RunValue:
    """The row of the table, or one for a measurement that is not in it."""
    return RUN_VALUES.get(name, RunValue(name))


def gates_of(chosen: Mapping[str, Gate]) -> dict[str, Gate]:
    """What a suite gates: its own choice, or the default; whether runs reach the target in any case.

    A change after which nothing trains any more leaves no other number to compare.
    """
    return {REACHED: DEFAULT_GATES[REACHED], **(chosen or DEFAULT_GATES)}


def num_tests(gates: Mapping[str, Gate], num_cases: int) -> int:
    """How many intervals share the level: all gates but the exact ones, in all cases.

    Whether runs reach the target has a level of its own, shared by the cases alone: where half of them
    don't, no other gate has the numbers to say so.
    """
    return num_cases * sum(
        gate.tolerance is None and name != REACHED for name, gate in gates.items()
    )


def seeds_for(gates: Mapping[str, Gate], num_cases: int) -> int:
    """Fewest seeds with which every gate of so many cases can be decided."""
    return max(needed_seeds(num_tests(gates, num_cases)), needed_seeds(num_cases))


def needed_seeds(tests: int, level: float = LEVEL) -> int:
    """Fewest pairs of seeds with which sign flips can reach the level shared by so many tests.

    With n pairs the smallest two-sided p is 2/2^n: six pairs for one test at 5 %, nine for ten.
    """
    return max(2, math.ceil(1 + math.log2(max(1, tests) / level) - 1e-12))
