"""A run of the real Lightning is recorded whole, unchanged, or refused with a reason."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fls_bench
from fls_bench.bundle import load_bundle
from fls_bench.errors import InputError
from fls_bench.schema import AdamW, FixedSteps, Sgd, TargetLoss
from fls_bench.tasks import Task, make_task

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings(
        "ignore:.*(bottleneck|logging interval|LeafSpec|isinstance|overfit).*"
    ),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def pl() -> Any:
    return pytest.importorskip("lightning.pytorch")


@pytest.fixture
def task() -> Task:
    rng = np.random.default_rng(0)
    parts = []
    for n in (48, 60, 30):
        y = rng.integers(0, 3, n)
        parts.append(((rng.normal(size=(n, 5)) + 2 * np.eye(5)[y]).astype(np.float32), y))
    return make_task("blobs", *parts)


def module(pl: Any, **changes: Any) -> Any:
    """A LightningModule around a small net; changes replace its methods."""

    class Net(pl.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.net = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3))

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            x, y = batch
            return nn.functional.cross_entropy(self.net(x), y)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.2, momentum=0.5)

    for name, value in changes.items():
        setattr(Net, name, value)
    return Net()


def fit(pl: Any, task: Task, callbacks: list[Any], net: Any = None, **options: Any) -> Any:
    """Train for some epochs, and return the module."""
    net = module(pl) if net is None else net
    torch.manual_seed(0)
    data = TensorDataset(torch.tensor(task.x_train), torch.tensor(task.y_train))
    loader = DataLoader(data, batch_size=8, shuffle=True, drop_last=False)
    quiet = {
        "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
        "enable_checkpointing": False, "accelerator": "cpu", "max_epochs": 4, "devices": 1,
    }  # fmt: skip
    pl.Trainer(callbacks=callbacks, **{**quiet, **options}).fit(net, loader)
    return net


def recorder(path: Path, task: Task | None = None, **options: Any) -> tuple[Any, list[str]]:
    """The callback, and what it will say."""
    from fls_bench.integrations.lightning import FlsBenchCallback

    said: list[str] = []
    options = {"module": "net", "tell": said.append, **options}
    return FlsBenchCallback(str(path), task=task, **options), said


def test_a_run_is_recorded_from_init_to_the_last_step(pl: Any, task: Task, tmp_path: Path) -> None:
    before = {k: v.clone() for k, v in module(pl).net.state_dict().items()}
    callback, said = recorder(tmp_path / "model.pt", task, builder_hint="my_pkg.net:build")
    net = fit(pl, task, [callback], gradient_clip_val=0.7, accumulate_grad_batches=2)
    file = load_bundle(tmp_path / "model.pt")
    assert file.init is not None
    for name, value in before.items():
        assert torch.equal(file.init[name], value)
        assert torch.equal(file.final[name], net.net.state_dict()[name])
        assert not torch.equal(file.final[name], value)
    recipe = file.header.recipe
    assert recipe is not None
    assert recipe.optimizer == Sgd(lr=0.2, momentum=0.5, clip_norm=0.7)
    assert recipe.batch_size == 16
    assert recipe.stop == FixedSteps(12)  # 48 points by 16, four times
    assert file.header.task is not None
    assert file.header.task.fingerprint == task.fingerprint
    assert "fls-bench diagnose" in said[-1]
    assert "--model my_pkg.net:build" in said[-1]


def test_recording_changes_nothing_of_the_training(pl: Any, task: Task, tmp_path: Path) -> None:
    callback, _ = recorder(tmp_path / "model.pt", task)
    watched, plain = fit(pl, task, [callback]), fit(pl, task, [])
    for name, value in plain.state_dict().items():
        assert torch.equal(watched.state_dict()[name], value)


def test_the_file_can_be_diagnosed(pl: Any, task: Task, tmp_path: Path, cli: Any) -> None:
    (tmp_path / "their_net.py").write_text(
        "from torch import nn\n\n\ndef build():\n"
        "    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3))\n"
    )
    callback, _ = recorder(tmp_path / "model.pt", task)
    fit(pl, task, [callback])
    ended = cli(
        "diagnose", tmp_path / "model.pt", "--model", "their_net:build", "--pythonpath", tmp_path,
        "--observe-only", "--json", tmp_path / "report.json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    found = fls_bench.report.read(tmp_path / "report.json")
    assert found.diagnosis.evidence_tier == "T2"


def test_a_given_stop_or_recipe_is_kept(pl: Any, task: Task, tmp_path: Path) -> None:
    callback, _ = recorder(tmp_path / "a.pt", task, stop=TargetLoss(0.1, max_epochs=4))
    fit(pl, task, [callback])
    recipe = load_bundle(tmp_path / "a.pt").header.recipe
    assert recipe is not None
    assert recipe.stop == TargetLoss(0.1, max_epochs=4)
    given = fls_bench.Recipe(optimizer=AdamW(lr=0.01), batch_size=8, stop=FixedSteps(24))
    callback, _ = recorder(tmp_path / "b.pt", task, recipe=given)
    fit(pl, task, [callback])
    assert load_bundle(tmp_path / "b.pt").header.recipe == given


def scheduled(self: Any) -> Any:
    optimizer = torch.optim.SGD(self.parameters(), lr=0.2)
    return {
        "optimizer": optimizer,
        "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1),
    }


def two(self: Any) -> Any:
    half = list(self.parameters())
    return [torch.optim.SGD(half[:2], lr=0.1), torch.optim.SGD(half[2:], lr=0.1)]


def by_hand(self: Any, batch: Any, _: int) -> None:
    for optimizer in self.optimizers():
        optimizer.zero_grad()
    self.manual_backward(nn.functional.cross_entropy(self.net(batch[0]), batch[1]))
    for optimizer in self.optimizers():
        optimizer.step()


def warmed_up(self: Any, epoch: int, index: int, optimizer: Any, closure: Any) -> None:
    optimizer.param_groups[0]["lr"] = 0.01 * (index + 1)
    optimizer.step(closure=closure)


def no_clipping(self: Any, *_: Any, **__: Any) -> None:
    return None


@pytest.mark.parametrize(
    ("changes", "options", "reason"),
    [
        ({"configure_optimizers": scheduled}, {}, "scheduler"),
        ({"configure_optimizers": two, "training_step": by_hand,
          "automatic_optimization": False}, {}, "2 optimizers"),
        ({}, {"gradient_clip_val": 0.5, "gradient_clip_algorithm": "value"}, "clipped by value"),
        ({"training_step": by_hand, "automatic_optimization": False,
          "optimizers": lambda self: [self._trainer.optimizers[0]]}, {}, "by hand"),
        ({"optimizer_step": warmed_up}, {}, "its own optimizer_step"),
        ({"configure_gradient_clipping": no_clipping}, {"gradient_clip_val": 0.5},
         "its own configure_gradient_clipping"),
        ({}, {"limit_train_batches": 3}, "part of the data"),
        ({}, {"overfit_batches": 2}, "part of the data"),
    ],
)  # fmt: skip
def test_what_no_recipe_can_say_leaves_weights_and_data(
    pl: Any, task: Task, tmp_path: Path, changes: Any, options: Any, reason: str
) -> None:
    callback, said = recorder(tmp_path / "model.pt", task)
    fit(pl, task, [callback], module(pl, **changes), **options)
    file = load_bundle(tmp_path / "model.pt")
    assert file.header.recipe is None
    assert file.init is not None
    assert any(reason in sentence for sentence in said)


def by_a_rate_of_its_own(self: Any, batch: Any, index: int) -> torch.Tensor:
    self.optimizers().param_groups[0]["lr"] = 0.2 / (1 + self.global_step)
    return nn.functional.cross_entropy(self.net(batch[0]), batch[1])


def by_a_rate_that_comes_back(self: Any, batch: Any, index: int) -> torch.Tensor:
    self.optimizers().param_groups[0]["lr"] = 0.1 if self.global_step == 5 else 0.2
    return nn.functional.cross_entropy(self.net(batch[0]), batch[1])


def until_it_likes(self: Any, batch: Any, index: int) -> torch.Tensor:
    self.trainer.should_stop = self.global_step >= 6
    return nn.functional.cross_entropy(self.net(batch[0]), batch[1])


def with_a_loss(loss: Any) -> Any:
    def training_step(self: Any, batch: Any, index: int) -> Any:
        return loss(self.net(batch[0]), batch[1])

    return training_step


def squared(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (logits - nn.functional.one_hot(y, 3)).square().mean()


def twice(self: Any, batch: Any, index: int) -> torch.Tensor:
    return nn.functional.cross_entropy(self.net(batch[0]) + self.net(-batch[0]), batch[1])


def changed(self: Any, batch: Any, index: int) -> torch.Tensor:
    return nn.functional.cross_entropy(self.net(batch[0] + 0.1), batch[1])


def scrambled(self: Any, batch: Any, index: int) -> torch.Tensor:
    return nn.functional.cross_entropy(self.net(batch[0]), (batch[1] + 1) % 3)


CE = nn.functional.cross_entropy


@pytest.mark.parametrize(
    ("training_step", "reason"),
    [
        (by_a_rate_of_its_own, "follow a schedule"),
        (by_a_rate_that_comes_back, "follow a schedule"),
        (until_it_likes, "stopped training early"),
        (with_a_loss(squared), "loss trained on is"),
        (with_a_loss(lambda a, y: CE(a, y, reduction="sum")), "loss trained on is"),
        (with_a_loss(lambda a, y: CE(a, y, label_smoothing=0.1)), "loss trained on is"),
        (with_a_loss(lambda a, y: CE(a, y, torch.tensor([1.0, 9, 1]))), "loss trained on is"),
        (with_a_loss(lambda a, y: CE(4 * a, y)), "loss trained on is"),
        (twice, "called for a batch"),
        (changed, "none of the task's"),
        (scrambled, "loss trained on is"),
    ],
)
def test_what_only_training_tells_leaves_no_wrong_recipe(
    pl: Any, task: Task, tmp_path: Path, training_step: Any, reason: str
) -> None:
    callback, said = recorder(tmp_path / "model.pt", task)
    fit(pl, task, [callback], module(pl, training_step=training_step))
    assert load_bundle(tmp_path / "model.pt").header.recipe is None
    assert any(reason in sentence for sentence in said)


@pytest.mark.parametrize(
    "facts",
    [
        {"output_multiplier": 4.0, "step": with_a_loss(lambda a, y: CE(4 * a, y))},
        {"loss": "mse", "step": with_a_loss(squared)},
        {"options": {"accumulate_grad_batches": 2}},
        {"options": {"precision": "bf16-mixed"}},
        {"step": with_a_loss(lambda a, y: {"loss": CE(a, y), "logits": a})},
    ],
)
def test_a_loss_that_is_the_recipe_s_keeps_it(
    pl: Any, task: Task, tmp_path: Path, facts: dict[str, Any]
) -> None:
    step, options = facts.pop("step", with_a_loss(CE)), facts.pop("options", {})
    callback, said = recorder(tmp_path / "model.pt", task, **facts)
    fit(pl, task, [callback], module(pl, training_step=step), **options)
    assert load_bundle(tmp_path / "model.pt").header.recipe is not None, said


def test_dropout_and_batch_norm_of_training_are_compared_as_they_were(
    pl: Any, task: Task, tmp_path: Path
) -> None:
    net = module(pl)
    net.net.insert(1, nn.Dropout(0.5))
    net.net.insert(1, nn.BatchNorm1d(16))
    callback, said = recorder(tmp_path / "model.pt", task)
    fit(pl, task, [callback], net)
    assert load_bundle(tmp_path / "model.pt").header.recipe is not None, said


def test_labels_and_points_of_another_task_leave_no_recipe(
    pl: Any, task: Task, tmp_path: Path
) -> None:
    fewer = dataclasses.replace(task, x_train=task.x_train[:40], y_train=task.y_train[:40])
    other = dataclasses.replace(task, y_train=(task.y_train + 1) % 3)
    for kept, reason in ((fewer, "trains on 48 points"), (other, "another label")):
        callback, said = recorder(tmp_path / "model.pt", kept, force=True)
        fit(pl, task, [callback])
        assert load_bundle(tmp_path / "model.pt").header.recipe is None
        assert any(reason in sentence for sentence in said)


def test_a_given_recipe_that_is_not_that_of_the_run_is_doubted_aloud(
    pl: Any, task: Task, tmp_path: Path
) -> None:
    given = fls_bench.Recipe(optimizer=Sgd(lr=9.0), batch_size=3, stop=FixedSteps(5))
    callback, said = recorder(tmp_path / "model.pt", task, recipe=given)
    fit(pl, task, [callback])
    assert load_bundle(tmp_path / "model.pt").header.recipe == given
    assert [s for s in said if "rate is 9" in s]
    assert [s for s in said if "batch size is 3" in s]
    assert [s for s in said if "after 5 steps, and 24" in s]
    callback, said = recorder(tmp_path / "b.pt", task, stop=FixedSteps(5))
    fit(pl, task, [callback])
    assert load_bundle(tmp_path / "b.pt").header.recipe is None


def test_a_second_fit_never_writes_what_is_not_of_it(pl: Any, task: Task, tmp_path: Path) -> None:
    callback, said = recorder(tmp_path / "model.pt", task, force=True)
    net = fit(pl, task, [callback])
    fit(pl, task, [callback], net)
    assert load_bundle(tmp_path / "model.pt").header.recipe is None
    assert [s for s in said if "trained before" in s]
    before = (tmp_path / "model.pt").read_bytes()
    said.clear()
    fit(pl, task, [callback], precision="bf16-true")
    assert (tmp_path / "model.pt").read_bytes() == before
    assert len(said) == 1


def test_averaged_weights_leave_no_recipe(pl: Any, task: Task, tmp_path: Path) -> None:
    callback, said = recorder(tmp_path / "model.pt", task)
    average = pl.callbacks.StochasticWeightAveraging(swa_lrs=0.1, swa_epoch_start=1)
    fit(pl, task, [callback, average])
    assert load_bundle(tmp_path / "model.pt").header.recipe is None
    assert "StochasticWeightAveraging" in said[0]


def test_a_compiled_net_is_compared_and_watched(pl: Any, task: Task, tmp_path: Path) -> None:
    net = module(pl)
    net.net = torch.compile(net.net, backend="eager")
    callback, said = recorder(tmp_path / "model.pt", task, watch=True)
    fit(pl, task, [callback], net)
    assert load_bundle(tmp_path / "model.pt").header.recipe is not None, said
    assert callback.loop.watch is not None, said


def test_a_look_that_fails_late_costs_the_looks_alone(
    pl: Any, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback, said = recorder(tmp_path / "model.pt", task, watch=True)
    look, num = fls_bench.Watch.look, [0]

    def failing(self: Any) -> Any:
        num[0] += 1
        if num[0] > 1:
            raise RuntimeError("out of memory")
        return look(self)

    monkeypatch.setattr(fls_bench.Watch, "look", failing)
    fit(pl, task, [callback], max_epochs=40)
    assert num == [2]
    assert [s for s in said if "stops watching" in s]
    assert load_bundle(tmp_path / "model.pt").header.recipe is not None


def test_a_schedule_that_is_told_is_compared_step_by_step(
    pl: Any, task: Task, tmp_path: Path
) -> None:
    def linear(self: Any) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.2)
        rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 1 - k / 24)
        return {
            "optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "step"},
        }  # fmt: skip

    for steps, right in ((24, True), (25, False)):
        schedule = fls_bench.PerStep(steps=steps)
        callback, said = recorder(tmp_path / f"{steps}.pt", task, schedule=schedule)
        fit(pl, task, [callback], module(pl, configure_optimizers=linear))
        recipe = load_bundle(tmp_path / f"{steps}.pt").header.recipe
        assert (recipe is not None) == right, said
        if recipe is not None:
            assert recipe.optimizer == Sgd(lr=0.2, schedule=schedule)


def test_a_number_of_steps_within_an_epoch_is_a_stop(pl: Any, task: Task, tmp_path: Path) -> None:
    callback, _ = recorder(tmp_path / "model.pt", task)
    fit(pl, task, [callback], max_steps=9, max_epochs=-1)
    recipe = load_bundle(tmp_path / "model.pt").header.recipe
    assert recipe is not None
    assert recipe.stop == FixedSteps(9)


def test_early_stopping_asks_for_the_stop(pl: Any, task: Task, tmp_path: Path) -> None:
    def step(self: Any, batch: Any, _: int) -> torch.Tensor:
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss, on_epoch=True)
        return loss

    for stop, has_recipe in ((None, False), (fls_bench.ValidationLoss(2, max_epochs=4), True)):
        early = pl.callbacks.EarlyStopping("loss", patience=2)
        callback, _ = recorder(tmp_path / f"{has_recipe}.pt", task, stop=stop)
        fit(pl, task, [early, callback], module(pl, training_step=step))
        recipe = load_bundle(tmp_path / f"{has_recipe}.pt").header.recipe
        assert (recipe is not None) == has_recipe


def test_mixed_precision_is_recorded_in_float32(pl: Any, task: Task, tmp_path: Path) -> None:
    callback, _ = recorder(tmp_path / "model.pt", task)
    fit(pl, task, [callback], precision="bf16-mixed")
    file = load_bundle(tmp_path / "model.pt")
    assert {value.dtype for value in file.final.values()} == {torch.float32}


def test_weights_in_half_precision_are_refused_with_the_reason(
    pl: Any, task: Task, tmp_path: Path
) -> None:
    callback, said = recorder(tmp_path / "model.pt", task)
    fit(pl, task, [callback], precision="bf16-true")
    assert not (tmp_path / "model.pt").exists()
    assert "bfloat16" in said[-1]


def kept_at_the_end(pl: Any, path: Path) -> Any:
    class Keep(pl.Callback):  # type: ignore[misc, name-defined]
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            trainer.save_checkpoint(path)

    return Keep()


def go_on(pl: Any, task: Task, callback: Any, path: Path, net: Any = None, **options: Any) -> Any:
    data = TensorDataset(torch.tensor(task.x_train), torch.tensor(task.y_train))
    trainer = pl.Trainer(
        callbacks=[callback], logger=False, enable_progress_bar=False, max_epochs=4,
        enable_model_summary=False, enable_checkpointing=False, accelerator="cpu", **options,
    )  # fmt: skip
    net = module(pl) if net is None else net
    torch.nn.init.zeros_(net.net[0].weight)  # only the checkpoint's weights count
    trainer.fit(net, DataLoader(data, batch_size=8), ckpt_path=path)
    return net


@pytest.mark.parametrize("keep_init", [True, False])
def test_a_run_that_goes_on_from_a_checkpoint_is_recorded_whole(
    pl: Any, task: Task, tmp_path: Path, keep_init: bool
) -> None:
    init = {k: v.clone() for k, v in module(pl).net.state_dict().items()}
    options = {"watch": True, "keep_init": keep_init}
    first, _ = recorder(tmp_path / "model.pt", task, **options)
    fit(pl, task, [first, kept_at_the_end(pl, tmp_path / "half.ckpt")], max_epochs=2)
    (tmp_path / "model.pt").unlink()
    callback, said = recorder(tmp_path / "model.pt", task, **options)
    net = go_on(pl, task, callback, tmp_path / "half.ckpt")
    file = load_bundle(tmp_path / "model.pt")
    assert file.header.init_digest == fls_bench.state_digest(init)
    assert file.header.recipe is not None
    assert file.header.recipe.stop == FixedSteps(24)
    assert said[0] == "fls-bench goes on recording after step 12."
    for name, value in net.net.state_dict().items():
        assert torch.equal(file.final[name], value)
    if keep_init:
        assert file.init is not None
        assert all(torch.equal(file.init[name], value) for name, value in init.items())
        assert callback.loop.watch.looks[0].numbers["movement"] > 0
    else:
        assert file.init is None
        assert callback.loop.watch is None
        assert "lacks the initial weights" in said[1]


def test_looks_of_a_run_that_goes_on_change_nothing_of_it(
    pl: Any, task: Task, tmp_path: Path
) -> None:
    first, _ = recorder(tmp_path / "model.pt", task)
    fit(pl, task, [first, kept_at_the_end(pl, tmp_path / "half.ckpt")], max_epochs=2)
    callback, _ = recorder(tmp_path / "model.pt", task, force=True)
    plain = go_on(pl, task, callback, tmp_path / "half.ckpt")
    callback, _ = recorder(tmp_path / "model.pt", task, watch=True, force=True)
    watched = go_on(pl, task, callback, tmp_path / "half.ckpt")
    for name, value in plain.state_dict().items():
        assert torch.equal(watched.state_dict()[name], value)


def test_a_run_that_goes_on_otherwise_or_unrecorded_gets_no_recipe(
    pl: Any, task: Task, tmp_path: Path
) -> None:
    fit(pl, task, [kept_at_the_end(pl, tmp_path / "bare.ckpt")], max_epochs=2)
    callback, said = recorder(tmp_path / "model.pt", task)
    go_on(pl, task, callback, tmp_path / "bare.ckpt")
    assert not (tmp_path / "model.pt").exists()
    assert "goes on from step 12" in said[-1]

    first, _ = recorder(tmp_path / "model.pt", task)
    fit(pl, task, [first, kept_at_the_end(pl, tmp_path / "half.ckpt")], max_epochs=2)
    callback, said = recorder(tmp_path / "model.pt", task, force=True)
    go_on(pl, task, callback, tmp_path / "half.ckpt", gradient_clip_val=0.3)
    assert load_bundle(tmp_path / "model.pt").header.recipe is None
    assert any("other settings" in sentence for sentence in said)


def test_a_checkpoint_with_a_recording_in_it_is_read_like_any_other(
    pl: Any, task: Task, tmp_path: Path, cli: Any
) -> None:
    (tmp_path / "their_net.py").write_text(
        "from torch import nn\n\n\ndef build():\n"
        "    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3))\n"
    )
    data = {f"{a}_{part}": getattr(task, f"{a}_{part}") for a in "xy" for part in ("train", "test")}
    np.savez(tmp_path / "data.npz", **data)
    callback, _ = recorder(tmp_path / "model.pt", task)
    fit(pl, task, [callback, kept_at_the_end(pl, tmp_path / "last.ckpt")])
    ended = cli(
        "diagnose", tmp_path / "last.ckpt", "--model", "their_net:build", "--pythonpath", tmp_path,
        "--data", tmp_path / "data.npz", "--observe-only",
    )  # fmt: skip
    assert ended.code == 0, ended.err + ended.out


def test_sharded_strategies_are_refused_with_the_reason(
    pl: Any, task: Task, tmp_path: Path
) -> None:
    from lightning.pytorch.strategies import SingleDeviceStrategy

    class FSDPStrategy(SingleDeviceStrategy):
        pass

    callback, said = recorder(tmp_path / "model.pt", task)
    fit(pl, task, [callback], strategy=FSDPStrategy(device="cpu"), accelerator="auto")
    assert not (tmp_path / "model.pt").exists()
    assert "FSDPStrategy" in said[-1]


def test_an_error_in_training_passes_on_and_nothing_is_written(
    pl: Any, task: Task, tmp_path: Path
) -> None:
    def step(self: Any, batch: Any, index: int) -> torch.Tensor:
        raise ArithmeticError("theirs")

    callback, _ = recorder(tmp_path / "model.pt", task)
    with pytest.raises(ArithmeticError, match="theirs"):
        fit(pl, task, [callback], module(pl, training_step=step))
    assert not (tmp_path / "model.pt").exists()


def test_a_full_disk_at_the_end_costs_the_file_and_not_the_training(
    pl: Any, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    callback, said = recorder(tmp_path / "model.pt", task)
    monkeypatch.setattr(torch, "save", full)
    fit(pl, task, [callback])
    assert "could not write" in said[-1]
    assert "No space left" in said[-1]


def test_a_file_that_exists_is_said_before_anything_else(
    pl: Any, task: Task, tmp_path: Path
) -> None:
    (tmp_path / "model.pt").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        recorder(tmp_path / "model.pt", task)


def test_a_module_that_is_not_there_is_named_with_those_that_are(
    pl: Any, task: Task, tmp_path: Path
) -> None:
    callback, _ = recorder(tmp_path / "model.pt", task, module="model")
    with pytest.raises(InputError, match=r"no module 'model'.*net"):
        fit(pl, task, [callback])


def test_a_run_is_watched_and_its_numbers_go_to_the_loggers(
    pl: Any, task: Task, tmp_path: Path
) -> None:
    from lightning.pytorch.loggers import CSVLogger

    plain = fit(pl, task, [], max_epochs=40)
    callback, said = recorder(tmp_path / "model.pt", task, watch=True)
    logger = CSVLogger(tmp_path / "csv")
    net = fit(pl, task, [callback], max_epochs=40, logger=logger)
    for name, value in plain.state_dict().items():  # looking changes nothing
        assert torch.equal(net.state_dict()[name], value)
    looks = callback.loop.watch.looks
    stages = [look.stage for look in looks]
    assert stages[0] == "start"
    assert stages[-1] == "late"
    assert len(set(stages)) == len(stages)
    assert [s for s in said if "At the start" in s or "in training" in s or "through" in s]
    logger.save()
    (file,) = (tmp_path / "csv").rglob("metrics.csv")
    rows = [row.split(",") for row in file.read_text().splitlines()]
    columns = dict(zip(rows[0], zip(*rows[1:], strict=True), strict=True))
    movement = [float(x) for x in columns["fls_bench/movement"] if x]
    assert movement == [pytest.approx(look.numbers["movement"]) for look in looks]
    assert movement[0] == 0 < movement[-1]


@pytest.mark.filterwarnings("ignore")  # the loggers' own
def test_the_loggers_have_every_look(pl: Any, task: Task, tmp_path: Path, logger: Any) -> None:
    from lightning.pytorch import loggers

    own = {
        "tensorboard": lambda: loggers.TensorBoardLogger("runs"),
        "mlflow": lambda: loggers.MLFlowLogger(tracking_uri=logger.uri),
    }[logger.name]()
    callback, _ = recorder(tmp_path / "model.pt", task, watch=True)
    fit(pl, task, [callback], max_epochs=40, logger=own)
    logger.has(callback.loop.watch.looks)


def test_a_net_that_can_not_be_watched_trains_and_is_recorded(
    pl: Any, task: Task, tmp_path: Path
) -> None:
    pairs = (np.zeros((20, 7), dtype=np.float32), np.arange(20) % 3)  # of another width
    callback, said = recorder(tmp_path / "model.pt", task, watch=pairs)
    fit(pl, task, [callback])
    assert any("can't watch this net" in sentence for sentence in said)
    assert load_bundle(tmp_path / "model.pt").header.recipe is not None


PARALLEL = """
import sys
import numpy as np, torch
import lightning.pytorch as pl
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from fls_bench.integrations.lightning import FlsBenchCallback

class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(4, 2)
    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

if __name__ == "__main__":
    data = TensorDataset(torch.randn(32, 4), torch.arange(32) % 2)
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=2, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        callbacks=[FlsBenchCallback(sys.argv[1], module="net")],
    )
    trainer.fit(Net(), DataLoader(data, batch_size=4))
"""


@pytest.mark.slow
def test_of_two_processes_the_first_records(tmp_path: Path) -> None:
    pytest.importorskip("lightning.pytorch")
    script = tmp_path / "parallel.py"
    script.write_text(PARALLEL)
    ended = subprocess.run(
        [sys.executable, script, tmp_path / "model.pt"], capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.count("fls-bench wrote") == 1
    recipe = load_bundle(tmp_path / "model.pt").header.recipe
    assert recipe is not None
    assert (recipe.batch_size, recipe.stop) == (8, FixedSteps(8))
