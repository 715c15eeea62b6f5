"""The numbers of a watched run arrive where the frameworks' own loggers put them."""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fls_bench.tasks import Task, make_task
from fls_bench.watching import Look

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # theirs: two frameworks and two loggers
    pytest.mark.usefixtures("offline"),
]
EPOCHS = 12


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    if (mlflow := sys.modules.get("mlflow")) is not None:  # it remembers the last test's
        mlflow.set_tracking_uri(uri)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def task() -> Task:
    rng = np.random.default_rng(0)
    parts = []
    for n in (48, 60, 30):
        y = rng.integers(0, 3, n)
        x = rng.integers(5, 40, size=(n, 8))
        x[:, 0] = 15 * y
        parts.append((x.astype(np.float32), y))
    return make_task("tokens", *parts)


def by_lightning(task: Task, to: str) -> list[Look]:
    pl = pytest.importorskip("lightning.pytorch")
    from lightning.pytorch import loggers

    from fls_bench.integrations.lightning import FlsBenchCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Net(pl.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=0.01)

    logger = {
        "tensorboard": lambda: loggers.TensorBoardLogger("runs"),
        "mlflow": lambda: loggers.MLFlowLogger(tracking_uri=os.environ["MLFLOW_TRACKING_URI"]),
    }[to]()
    callback = FlsBenchCallback("m.pt", module="net", task=task, watch=True, tell=lambda _: None)
    data = torch.utils.data.TensorDataset(torch.tensor(task.x_train), torch.tensor(task.y_train))
    pl.Trainer(
        callbacks=[callback], logger=logger, max_epochs=EPOCHS, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    ).fit(Net(), torch.utils.data.DataLoader(data, batch_size=8))  # fmt: skip
    assert callback.loop.watch is not None
    return callback.loop.watch.looks


def by_transformers(task: Task, to: str) -> list[Look]:
    pytest.importorskip("transformers")
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    from fls_bench.integrations.transformers import FlsBenchCallback

    set_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=10, num_labels=3, pad_token_id=39,
    )  # fmt: skip
    rows = [
        {"input_ids": torch.tensor(a).long(), "labels": int(b)}
        for a, b in zip(task.x_train, task.y_train, strict=True)
    ]
    trainer = Trainer(
        model=BertForSequenceClassification(config),
        args=TrainingArguments(
            output_dir="out", report_to=[to],
            num_train_epochs=EPOCHS, per_device_train_batch_size=8, learning_rate=5e-3,
            lr_scheduler_type="constant", save_strategy="no", use_cpu=True, logging_steps=6,
            disable_tqdm=True, dataloader_pin_memory=False,
        ),
        train_dataset=rows,
    )  # fmt: skip
    callback = FlsBenchCallback("m.pt", task=task, watch=True, tell=lambda _: None).attach(trainer)
    trainer.train()
    assert callback.loop.watch is not None
    return callback.loop.watch.looks


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


@pytest.mark.parametrize("framework", [by_lightning, by_transformers])
@pytest.mark.parametrize(("to", "stored"), [("tensorboard", in_tensorboard), ("mlflow", in_mlflow)])
def test_the_logger_has_every_look(
    task: Task, framework: Callable[..., list[Look]], to: str, stored: Callable[[], list[float]]
) -> None:
    pytest.importorskip(to)
    looks = framework(task, to)
    assert len(looks) > 1
    expected = [look.numbers["movement"] for look in looks]
    assert stored() == [pytest.approx(value, abs=1e-6) for value in expected]
