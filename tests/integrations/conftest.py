"""Loggers of the frameworks, and what they stored."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from fls_bench.watching import Look


class Logger:
    """One of the loggers that both frameworks have, writing into the current folder."""

    def __init__(self, name: str, uri: str) -> None:
        self.name, self.uri = name, uri

    def has(self, looks: Sequence[Look]) -> None:
        """Asserts that it has a number of every look, in their order."""
        assert len(looks) > 1
        stored = in_tensorboard() if self.name == "tensorboard" else in_mlflow()
        assert stored == [pytest.approx(look.numbers["movement"], abs=1e-6) for look in looks]


@pytest.fixture(params=["tensorboard", "mlflow"])
def logger(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Logger:
    pytest.importorskip(request.param)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    if (mlflow := sys.modules.get("mlflow")) is not None:  # it remembers the last test's
        mlflow.set_tracking_uri(uri)
    return Logger(request.param, uri)


def in_tensorboard() -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = []
    for file in Path().rglob("events.out.tfevents*"):
        events = EventAccumulator(str(file))
        events.Reload()
        for tag in events.Tags()["scalars"]:
            if tag.endswith("fls_bench/movement"):
                found += [event.value for event in events.Scalars(tag)]
    return found


def in_mlflow() -> list[float]:
    question = "select value from metrics where key = 'fls_bench/movement' order by step, timestamp"
    with sqlite3.connect("mlflow.db") as stored:
        return [value for (value,) in stored.execute(question)]
