"""A run of the real Trainer of transformers is recorded whole, unchanged, or refused with a reason."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fls_bench
from fls_bench.bundle import load_bundle
from fls_bench.schema import AdamW, FixedSteps, PerStep, Recipe
from fls_bench.tasks import Task, make_task

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:transformers"),
    pytest.mark.filterwarnings("ignore::UserWarning:accelerate"),
]

NET = """
from transformers import BertConfig, BertForSequenceClassification

from fls_bench.integrations.transformers import Logits


def build():
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=10, num_labels=2,
    )
    return Logits(BertForSequenceClassification(config))
"""


@pytest.fixture(scope="module", autouse=True)
def offline() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("TRANSFORMERS_VERBOSITY", "error")
        pytest.importorskip("transformers")
        yield


@pytest.fixture
def task() -> Task:
    """Sequences of tokens, some padded; the class is which of two tokens stands in them."""
    rng = np.random.default_rng(0)
    parts = []
    for n in (40, 50, 30):
        y = rng.integers(0, 2, n)
        x = rng.integers(5, 40, size=(n, 8))
        x[np.arange(n), rng.integers(0, 4, n)] = 3 + y
        x[: n // 2, 6:] = 0
        parts.append((x.astype(np.float32), y))
    return make_task("markers", *parts)


def model() -> Any:
    found: dict[str, Any] = {}
    exec(NET, found)
    torch.manual_seed(4)
    return found["build"]().model


def train(
    task: Task, path: Path | None, tmp_path: Path, **options: Any
) -> tuple[Any, Any, list[str]]:
    """Train with the Trainer, recorded where there is a path: (model, callback, what it said)."""
    from transformers import Trainer, TrainingArguments

    from fls_bench.integrations.transformers import FlsBenchCallback

    kind, given = options.pop("trainer", Trainer), options.pop("given", {})
    data = options.pop("data", task)
    own = {
        k: options.pop(k)
        for k in ("watch", "recipe", "stop", "precision", "resume_from")
        if k in options
    }
    resume, also = options.pop("resume", None), [options.pop("also")] if "also" in options else []
    net = options.pop("net", None) or model()
    if own.pop("precision", None) == "half":
        net = net.bfloat16()
    x = torch.tensor(data.x_train).long()
    rows = [
        {"input_ids": a, "attention_mask": (a != 0).long(), "labels": int(b)}
        for a, b in zip(x, data.y_train, strict=True)
    ]
    arguments = {
        "num_train_epochs": 3, "per_device_train_batch_size": 8, "learning_rate": 1e-3,
        "lr_scheduler_type": "constant", "report_to": [], "save_strategy": "no", "use_cpu": True,
        "logging_steps": 2, "disable_tqdm": True, "seed": 0, "dataloader_pin_memory": False,
    }  # fmt: skip
    trainer = kind(
        model=net,
        args=TrainingArguments(**{"output_dir": str(tmp_path / "out"), **arguments, **options}),
        train_dataset=rows,
        eval_dataset=rows[:8],
        callbacks=also,
        **{name: make(net) for name, make in given.items()},
    )
    said: list[str] = []
    callback = None
    if path is not None:
        callback = FlsBenchCallback(str(path), task=task, tell=said.append, **own).attach(trainer)
    trainer.train(resume_from_checkpoint=resume)
    return net, callback, said


def test_a_run_is_recorded_from_init_to_the_last_step(task: Task, tmp_path: Path) -> None:
    before = {k: v.clone() for k, v in model().state_dict().items()}
    net, _, said = train(task, tmp_path / "m.pt", tmp_path, max_grad_norm=0.5)
    file = load_bundle(tmp_path / "m.pt")
    assert file.init is not None
    for name, value in before.items():
        assert torch.equal(file.init[f"model.{name}"], value)
        assert torch.equal(file.final[f"model.{name}"], net.state_dict()[name])
    assert any(not torch.equal(file.init[n], file.final[n]) for n in file.init)
    recipe = file.header.recipe
    assert recipe is not None
    assert recipe.optimizer == AdamW(lr=1e-3, weight_decay=0.0, clip_norm=0.5)
    assert (recipe.batch_size, recipe.stop) == (8, FixedSteps(15))
    assert "fls-bench wrote" in said[-1]


def test_accumulated_batches_are_one_batch_if_their_losses_are_averaged(
    task: Task, tmp_path: Path
) -> None:
    """The Trainer adds up the losses of models that take loss arguments: twice the gradient."""
    from transformers import Trainer

    class Averaging(Trainer):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.model_accepts_loss_kwargs = False

    _, _, said = train(task, tmp_path / "a.pt", tmp_path, gradient_accumulation_steps=2)
    assert load_bundle(tmp_path / "a.pt").header.recipe is None
    assert "adds up accumulated ones" in said[0]
    two = {"gradient_accumulation_steps": 2, "trainer": Averaging}
    _, _, said = train(task, tmp_path / "b.pt", tmp_path, **two)
    recipe = load_bundle(tmp_path / "b.pt").header.recipe
    assert recipe is not None, said
    assert (recipe.batch_size, recipe.stop) == (16, FixedSteps(9))


def warming_up(net: Any) -> Any:
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.0)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1.0, (k + 1) / 5))


def twice(outputs: Any, labels: Any, **_: Any) -> Any:
    return 2 * torch.nn.functional.cross_entropy(outputs.logits, labels)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"label_smoothing_factor": 0.1}, "Labels are smoothed"),
        ({"neftune_noise_alpha": 5.0}, "noise"),
        ({"given": {"compute_loss_func": lambda _: twice}}, "loss of its own"),
        ({"given": {"optimizers": warming_up}}, "A scheduler changes the rate"),
    ],
)
def test_what_no_recipe_can_say_leaves_weights_and_data(
    task: Task, tmp_path: Path, changes: Any, reason: str
) -> None:
    _, _, said = train(task, tmp_path / "m.pt", tmp_path, **changes)
    file = load_bundle(tmp_path / "m.pt")
    assert file.header.recipe is None
    assert file.init is not None
    assert any(reason in sentence for sentence in said), said


def test_a_loss_and_points_that_are_not_the_recipe_s_leave_none(task: Task, tmp_path: Path) -> None:
    from transformers import Trainer

    from fls_bench.integrations.transformers import FlsBenchCallback

    class Weighted(Trainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
            return 3 * model(**inputs).loss

    _, _, said = train(task, tmp_path / "a.pt", tmp_path, trainer=Weighted)
    assert "loss of its own" in said[0]
    # Without attach the trainer is not seen, but the loss that it reports is.
    hidden: list[str] = []
    callback = FlsBenchCallback(str(tmp_path / "b.pt"), task=task, tell=hidden.append)
    train(task, None, tmp_path, trainer=Weighted, also=callback)
    assert "reports a loss of" in hidden[0]

    fewer = dataclasses.replace(task, x_train=task.x_train[:24], y_train=task.y_train[:24])
    _, _, said = train(task, tmp_path / "c.pt", tmp_path, data=fewer)
    assert "trains on 24 points" in said[0]
    other = dataclasses.replace(task, x_train=(task.x_train + 1) % 40)
    _, _, said = train(task, tmp_path / "d.pt", tmp_path, data=other)
    assert "none of the task's" in said[0]
    for name in "abcd":
        assert load_bundle(tmp_path / f"{name}.pt").header.recipe is None


def test_padding_is_not_attended_to() -> None:
    found: dict[str, Any] = {}
    exec(NET, found)
    torch.manual_seed(0)
    net = found["build"]().eval()
    tokens = torch.tensor([[5.0, 6.0, 7.0, 0.0, 0.0]])
    with torch.no_grad():
        assert torch.allclose(net(tokens), net(tokens[:, :3]), atol=1e-6)


PARALLEL = """
import sys
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
from fls_bench.integrations.transformers import FlsBenchCallback

torch.manual_seed(0)
config = BertConfig(
    vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
    max_position_embeddings=8, num_labels=2,
)
rows = [{"input_ids": torch.randint(1, 20, (6,)), "labels": k % 2} for k in range(40)]
arguments = TrainingArguments(
    output_dir=sys.argv[2], per_device_train_batch_size=4, num_train_epochs=2, use_cpu=True,
    lr_scheduler_type="constant", report_to=[], save_strategy="no", disable_tqdm=True,
    ddp_backend="gloo",
)
trainer = Trainer(
    model=BertForSequenceClassification(config), args=arguments, train_dataset=rows,
    callbacks=[FlsBenchCallback(sys.argv[1])],
)
trainer.train()
"""


@pytest.mark.slow
def test_of_two_processes_the_first_records(tmp_path: Path) -> None:
    script = tmp_path / "parallel.py"
    script.write_text(PARALLEL)
    ended = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port",
         "29571", script, tmp_path / "m.pt", tmp_path / "out"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.count("fls-bench wrote") == 1
    recipe = load_bundle(tmp_path / "m.pt").header.recipe
    assert recipe is not None, ended.stdout
    assert (recipe.batch_size, recipe.stop) == (8, FixedSteps(10))


def test_recording_changes_nothing_of_the_training(task: Task, tmp_path: Path) -> None:
    recorded, _, _ = train(task, tmp_path / "m.pt", tmp_path)
    plain, _, _ = train(task, None, tmp_path)
    for name, value in plain.state_dict().items():
        assert torch.equal(recorded.state_dict()[name], value)


def test_the_file_can_be_diagnosed_with_tokens_as_data(
    task: Task, tmp_path: Path, cli: Any
) -> None:
    (tmp_path / "their_bert.py").write_text(NET)
    net, _, _ = train(task, tmp_path / "m.pt", tmp_path)
    ended = cli(
        "diagnose", tmp_path / "m.pt", "--model", "their_bert:build", "--pythonpath", tmp_path,
        "--observe-only", "--json", tmp_path / "report.json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    found = {m.metric: m for m in fls_bench.report.read(tmp_path / "report.json").measurements}
    x, y = torch.tensor(task.x_test).long(), torch.tensor(task.y_test)
    with torch.no_grad():
        wrong = net.eval()(input_ids=x, attention_mask=(x != 0).long()).logits.argmax(1) != y
    assert found["error.test"].value == pytest.approx(float(wrong.double().mean()))


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("linear", PerStep(decay="linear", warmup_steps=4, steps=15)),
        ("cosine", PerStep(decay="cosine", warmup_steps=4, steps=15)),
        ("constant_with_warmup", PerStep(decay="constant", warmup_steps=4)),
    ],
)
def test_the_trainer_s_schedule_is_read(
    task: Task, tmp_path: Path, name: str, schedule: PerStep
) -> None:
    options = {"lr_scheduler_type": name, "warmup_steps": 4}
    _, _, said = train(task, tmp_path / "m.pt", tmp_path, **options)
    recipe = load_bundle(tmp_path / "m.pt").header.recipe
    assert recipe is not None, said
    assert recipe.optimizer == AdamW(lr=1e-3, weight_decay=0.0, clip_norm=1.0, schedule=schedule)
    assert recipe.stop == FixedSteps(15)


def test_a_schedule_that_is_not_the_one_told_or_not_known_leaves_no_recipe(
    task: Task, tmp_path: Path
) -> None:
    _, _, said = train(task, tmp_path / "a.pt", tmp_path, lr_scheduler_type="polynomial")
    assert "polynomial is unknown" in said[0]
    other = {"given": {"optimizers": warming_up}, "lr_scheduler_type": "linear"}
    _, _, said = train(task, tmp_path / "b.pt", tmp_path, **other)
    assert "follow a schedule" in said[-2]
    for name in "ab":
        assert load_bundle(tmp_path / f"{name}.pt").header.recipe is None
    given = Recipe(
        optimizer=AdamW(lr=1e-3, weight_decay=0.0, clip_norm=1.0, schedule=PerStep()), batch_size=8,
        stop=FixedSteps(15),
    )  # fmt: skip
    train(task, tmp_path / "c.pt", tmp_path, lr_scheduler_type="polynomial", recipe=given)
    assert load_bundle(tmp_path / "c.pt").header.recipe == given


def test_weights_in_half_precision_are_refused_with_the_reason(task: Task, tmp_path: Path) -> None:
    _, callback, said = train(task, tmp_path / "m.pt", tmp_path, precision="half")
    assert not (tmp_path / "m.pt").exists()
    assert "bfloat16" in said[-1]
    assert callback.loop.problem is not None


def test_mixed_precision_is_recorded_in_float32(task: Task, tmp_path: Path) -> None:
    train(task, tmp_path / "m.pt", tmp_path, bf16=True)
    final = load_bundle(tmp_path / "m.pt").final
    assert torch.float32 in {value.dtype for value in final.values()}
    assert torch.bfloat16 not in {value.dtype for value in final.values()}


def test_a_run_that_goes_on_or_is_sharded_is_refused_with_the_reason(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from fls_bench.integrations.transformers import FlsBenchCallback

    for facts, reason in (
        ({"fsdp": "", "deepspeed": None, "step": 7}, "goes on from step 7"),
        ({"fsdp": "full_shard", "deepspeed": None, "step": 0}, "FSDP"),
        ({"fsdp": "", "deepspeed": "config.json", "step": 0}, "DeepSpeed"),
    ):
        facts |= {"output_dir": str(tmp_path), "resume_from_checkpoint": None}
        said: list[str] = []
        callback = FlsBenchCallback(str(tmp_path / "m.pt"), tell=said.append)
        state = SimpleNamespace(max_steps=9, is_world_process_zero=True, global_step=facts["step"])
        callback.on_train_begin(SimpleNamespace(**facts), state, None, model=model())
        callback.on_train_end(SimpleNamespace(**facts), state, None)
        assert len(said) == 1
        assert reason in said[0]
    assert not (tmp_path / "m.pt").exists()


def test_a_run_that_goes_on_from_a_checkpoint_is_recorded_whole(task: Task, tmp_path: Path) -> None:
    from transformers import TrainerCallback

    init = {f"model.{name}": value.clone() for name, value in model().state_dict().items()}
    options: dict[str, Any] = {
        "save_strategy": "epoch", "watch": True, "lr_scheduler_type": "linear", "max_steps": 15,
    }  # fmt: skip

    class Enough(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = state.global_step >= 10

    train(task, tmp_path / "a.pt", tmp_path, also=Enough(), **options)
    half = str(tmp_path / "out" / "checkpoint-10")
    net, callback, said = train(task, tmp_path / "b.pt", tmp_path, resume=half, **options)
    file = load_bundle(tmp_path / "b.pt")
    assert said[0] == "fls-bench goes on recording after step 10."
    assert file.init is not None
    assert all(torch.equal(file.init[name], value) for name, value in init.items())
    assert torch.equal(file.final["model.classifier.bias"], net.state_dict()["classifier.bias"])
    assert file.header.recipe is not None, said
    assert file.header.recipe.stop == FixedSteps(15)
    assert file.header.recipe.optimizer.schedule == PerStep(steps=15)
    assert callback.loop.watch.looks[0].numbers["movement"] > 0

    elsewhere = {**options, "output_dir": str(tmp_path / "other")}
    _, _, said = train(task, tmp_path / "e.pt", tmp_path, resume=half, **elsewhere)
    assert "resume_from=" in said[0]
    train(task, tmp_path / "e.pt", tmp_path, resume=half, resume_from=half, **elsewhere)
    again = load_bundle(tmp_path / "e.pt")
    assert all(torch.equal(again.final[name], value) for name, value in file.final.items())

    also = {"lr_scheduler_type": "linear", "max_steps": 15, "max_grad_norm": 0.5}
    _, _, said = train(task, tmp_path / "c.pt", tmp_path, resume=half, **also)
    assert "other settings" in said[0]
    assert load_bundle(tmp_path / "c.pt").header.recipe is None

    (tmp_path / "out" / "checkpoint-10" / "fls_bench.pt").write_bytes(b"torn")
    _, _, said = train(task, tmp_path / "d.pt", tmp_path, resume=half)
    assert len(said) == 1
    assert "can't be read" in said[0]
    assert not (tmp_path / "d.pt").exists()


def test_weights_that_are_not_those_of_the_last_step_ask_for_the_stop(
    task: Task, tmp_path: Path
) -> None:
    from transformers import TrainerCallback

    class Enough(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = state.global_step >= 7

    best = {
        "eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True,
    }  # fmt: skip
    _, _, said = train(task, tmp_path / "a.pt", tmp_path, **best)
    assert "best checkpoint" in said[0]
    assert load_bundle(tmp_path / "a.pt").header.recipe is None
    _, _, said = train(task, tmp_path / "b.pt", tmp_path, also=Enough())
    assert "stopped training early" in said[-2]
    assert load_bundle(tmp_path / "b.pt").header.recipe is None
    stop = fls_bench.TargetLoss(0.3, max_epochs=3)
    train(task, tmp_path / "c.pt", tmp_path, also=Enough(), stop=stop)
    recipe = load_bundle(tmp_path / "c.pt").header.recipe
    assert recipe is not None
    assert recipe.stop == stop


def test_a_run_is_watched_and_its_numbers_go_through_the_trainer(
    task: Task, tmp_path: Path
) -> None:
    _, callback, said = train(
        task, tmp_path / "m.pt", tmp_path, watch=True, num_train_epochs=8, learning_rate=5e-3
    )
    looks = callback.loop.watch.looks
    assert looks[0].stage == "start"
    assert len(looks) > 1
    assert said[1].startswith("fls-bench: At the start")
    logged = [row for row in callback._trainer.state.log_history if "fls_bench/loss" in row]
    assert [row["fls_bench/loss"] for row in logged] == [
        pytest.approx(look.numbers["loss"], abs=1e-3) for look in looks
    ]


def test_a_second_training_of_a_net_is_not_recorded_as_its_first(
    task: Task, tmp_path: Path
) -> None:
    from fls_bench.integrations.transformers import FlsBenchCallback

    said: list[str] = []
    callback = FlsBenchCallback(str(tmp_path / "m.pt"), task=task, tell=said.append, force=True)
    own: dict[str, Any] = {"also": callback, "net": model()}
    train(task, None, tmp_path, **own)
    assert load_bundle(tmp_path / "m.pt").header.recipe is not None
    train(task, None, tmp_path, **own)
    assert load_bundle(tmp_path / "m.pt").header.recipe is None
    assert any("trained before" in sentence for sentence in said)


@pytest.mark.filterwarnings("ignore")  # the loggers' own
def test_the_loggers_have_every_look(task: Task, tmp_path: Path, logger: Any) -> None:
    _, callback, _ = train(
        task, tmp_path / "m.pt", tmp_path, watch=True, num_train_epochs=8, learning_rate=5e-3,
        report_to=[logger.name],
    )  # fmt: skip
    logger.has(callback.loop.watch.looks)
