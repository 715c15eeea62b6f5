"""Checkpoints that others wrote, through the whole command: found, measured, named in the report."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import foreign_nets
import numpy as np
import pytest
import torch
from foreign_nets import BLOBS, FILES
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

import fls_bench
from fls_bench import models
from fls_bench.bundle import Checkpoint, load_any, match_weights, state_digest
from fls_bench.errors import InputError
from fls_bench.subject.inits import net_shape, read_weights

Cli = Callable[..., Any]
TORCHES = sorted(path.name for path in FILES.glob("torch-*.[0-9].pt"))
TASK = "foreign_nets:blobs"


def formula(scale: float = 1.0) -> dict[str, Tensor]:
    """The weights of ``write_torch.py``: parameter i, entry k is sin(1 + i + 0.37 k)."""
    net = foreign_nets.with_norm()
    wave = {
        name: torch.sin(1 + i + 0.37 * torch.arange(value.numel(), dtype=torch.float64))
        .reshape(value.shape)
        .float()
        * scale
        for i, (name, value) in enumerate(net.named_parameters())
    }
    five = torch.arange(5, dtype=torch.float64)
    return wave | {
        "1.running_mean": torch.sin(7 + 0.37 * five).float(),
        "1.running_var": (1.5 + torch.sin(8 + 0.37 * five)).float(),
        "1.num_batches_tracked": torch.tensor(11),
    }


def weights(path: Path, net: nn.Module, wanted: str | None = None) -> dict[str, Tensor]:
    file = load_any(path)
    assert isinstance(file, Checkpoint)
    return file.read(match_weights(file, net_shape(net), wanted=wanted).tensors)[0]


def same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float = 0) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(
            value.double(), expected[name].double(), rtol=tolerance, atol=tolerance
        )


def report(cli: Cli, path: Path, *arguments: object) -> dict[str, Any]:
    ended = cli("diagnose", path, "-q", "--json", "-", *arguments)
    assert ended.code == 0, ended.err
    found: dict[str, Any] = json.loads(ended.out)
    return found


def findings(made: Mapping[str, Any]) -> dict[str, str]:
    return {one["code"]: one["text"] for one in made["diagnosis"]["findings"]}


# --- files of the real libraries ----------------------------------------------------------------


def test_there_is_a_file_of_many_releases_of_torch() -> None:
    assert len(TORCHES) >= 12


@pytest.mark.parametrize("name", TORCHES)
def test_a_checkpoint_of_every_torch_is_read_to_the_last_bit(name: str) -> None:
    same(weights(FILES / name, foreign_nets.with_norm()), formula())


@pytest.mark.parametrize("name", sorted(path.name for path in FILES.glob("*-legacy.pt")))
def test_the_format_before_zip_is_read(name: str) -> None:
    half = {
        key: value.half() if value.is_floating_point() else value
        for key, value in formula().items()
    }
    same(weights(FILES / name, foreign_nets.with_norm()), half)


@pytest.mark.parametrize(
    ("name", "scale", "wanted"),
    [
        ("torch-2.14.1-averaged.pt", 2, None),
        ("torch-2.14.1-compiled.pt", 1, None),
        ("torch-2.14.1-data_parallel.pt", 1, None),
        ("torch-2.14.1-compiled-data_parallel.pt", 1, None),
        ("ema_pytorch-0.8.3.pt", 3, None),
        ("ema_pytorch-0.8.3.pt", 2.2599211, "ema_model"),
        ("sharded", 1, None),
        ("sharded/model.safetensors.index.json", 1, None),
    ],
)
def test_wrappers_and_shards_are_taken_off(name: str, scale: float, wanted: str | None) -> None:
    found = weights(FILES / name, foreign_nets.with_norm(), wanted)
    same(found, formula(scale), tolerance=1e-6 if scale != 1 else 0)


def test_shards_in_half_precision() -> None:
    found = weights(FILES / "sharded-bf16", foreign_nets.with_norm())
    expected = formula()
    assert found["0.weight"].dtype is torch.bfloat16
    same(found, {k: v.to(found[k].dtype) for k, v in expected.items()})


def test_a_tied_weight_that_was_stored_once() -> None:
    found = weights(FILES / "tied.safetensors", foreign_nets.Tied())
    assert torch.equal(found["first.weight"], found["second.weight"])


@pytest.mark.parametrize(
    ("name", "wanted", "loss"),
    [  # measured in float64 by the script that wrote them, see the README there
        ("lightning-2.6.6.ckpt", None, 0.1699605),
        ("lightning-2.6.6-ema.ckpt", "state_dict.model", 0.2508733),
        ("lightning-2.6.6-ema.ckpt", "current_model_state", 0.1800138),
        ("pytorch_lightning-1.9.ckpt", None, 0.1699604),
        ("pytorch_lightning-1.9-multistep.ckpt", None, 0.1800138),
    ],
)
def test_a_lightning_checkpoint_has_the_loss_that_its_writer_measured(
    cli: Cli, name: str, wanted: str | None, loss: float
) -> None:
    made = report(
        cli, FILES / name, "--model", "foreign_nets:plain", "--data", TASK,
        *(() if wanted is None else ("--weights", wanted)),
    )  # fmt: skip
    known = made["input"]
    assert known["train_loss"] == pytest.approx(loss, rel=1e-5)
    assert known["format"] == "Lightning checkpoint"
    assert (known["epoch"], known["global_step"]) == (1, 20)
    assert known["path"] == str(FILES / name)
    assert known["sha256"] == hashlib.sha256((FILES / name).read_bytes()).hexdigest()
    assert known["feature_layer"] == "0: the input of the last linear map, 2"
    assert made["diagnosis"]["evidence_tier"] == "T1"
    assert findings(made)["left_out"].endswith("state_dict.loss.weight.") or wanted is not None
    # The logged loss is a mean over an epoch with class weights: not near enough to pass unsaid.
    assert ("training_loss_differs" in findings(made)) == (
        abs(loss - known["claimed_train_loss"]) > 0.02 + 0.1 * known["claimed_train_loss"]
    )


def test_averaged_and_plain_weights_in_one_file_need_a_word(cli: Cli) -> None:
    path = FILES / "lightning-2.6.6-ema.ckpt"
    ended = cli("diagnose", path, "--model", "foreign_nets:plain", "--data", TASK)
    assert ended.code == 2
    assert "'current_model_state.model', 'state_dict.model'" in ended.err
    assert "--weights" in ended.err


def test_a_resnet18_in_torchvisions_names(tmp_path: Path, cli: Cli) -> None:
    """Names and shapes as the real torchvision has them; weights from our own net."""
    known = json.loads((FILES / "torchvision-resnet18.json").read_text())
    sized = models.architecture("resnet18").sized((3, 8, 8), known["num_classes"])
    arguments = {**sized, "stem": "imagenet"}
    state = models.build("resnet18", arguments, seed=0).state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == known["shapes"]
    assert list(state) == list(known["shapes"])
    torch.save({"net": {f"module.{k}": v.half() for k, v in state.items()}}, tmp_path / "r.pth")
    rng = np.random.default_rng(0)
    parts = {
        f"{axis}_{part}": value
        for part in ("train", "val", "test")
        for axis, value in (
            ("x", rng.normal(size=(10, 3, 8, 8)).astype("f4")), ("y", np.arange(10))
        )
    }  # fmt: skip
    np.savez(tmp_path / "d.npz", **parts)
    made = report(
        cli, tmp_path / "r.pth", "--model", "resnet18,stem=imagenet", "--data", tmp_path / "d.npz"
    )
    assert made["input"]["weights"] == "net.module"
    assert made["input"]["num_parameters"] == 11_181_642
    assert made["input"]["feature_layer"].endswith("the input of the last linear map, fc")
    assert "float16" in findings(made)["half_precision"]
    assert "no_better_than_chance" in findings(made)


def test_weights_that_lay_on_a_gpu(tmp_path: Path) -> None:
    """The place where a storage lay is written beside it, and does not matter."""
    stream = io.BytesIO()
    torch.save({"state_dict": formula()}, stream)
    with zipfile.ZipFile(stream) as old, zipfile.ZipFile(tmp_path / "gpu.pt", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("data.pkl"):
                assert b"X\x03\x00\x00\x00cpu" in content
                content = content.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:7")
            new.writestr(name, content)
    same(weights(tmp_path / "gpu.pt", foreign_nets.with_norm()), formula())


# --- strict, and clear where it does not fit ------------------------------------------------------


def test_without_a_net_it_says_what_the_file_holds(cli: Cli) -> None:
    made = report(cli, FILES / "lightning-2.6.6.ckpt")
    assert made["diagnosis"]["evidence_tier"] == "T0"
    assert "--model" in made["diagnosis"]["reason"]["text"]
    assert made["input"]["first_weights"][0] == "state_dict.model.0.weight"
    assert made["input"]["weights_under"] == ["state_dict"]
    made = report(cli, FILES / "lightning-2.6.6.ckpt", "--model", "foreign_nets:plain")
    assert "--data" in made["diagnosis"]["reason"]["text"]


def refused(cli: Cli, *arguments: object) -> str:
    ended = cli("diagnose", *arguments)
    assert ended.code == 2, ended.err
    assert ended.err.startswith("error: ")
    assert ended.out == ""
    return str(ended.err)


def test_missing_unexpected_and_near_names_are_listed(cli: Cli, tmp_path: Path) -> None:
    state = {k.replace("0.", "input.0."): v for k, v in foreign_nets.plain().state_dict().items()}
    state["extra"] = torch.ones(2)
    torch.save({"model": state}, tmp_path / "m.pt")
    told = refused(cli, tmp_path / "m.pt", "--model", "foreign_nets:plain", "--data", TASK)
    assert "under 'model'" in told
    assert "missing '0.weight', '0.bias'" in told
    assert "unexpected 'input.0.weight', 'input.0.bias', 'extra'" in told
    assert "'input.0.weight' is near '0.weight'" in told


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"2.weight": torch.ones(4, 5)}, "'2.weight' has shape (4, 5), not (3, 5)"),
        ({"2.weight": torch.ones(3, 5).int()}, "'2.weight' has int32 numbers"),
        ({"2.weight": torch.full((3, 5), math.nan)}, "NaN or infinite"),
        ({"aux.weight": torch.ones(3)}, "unexpected 'aux.weight'"),
        ({"2.bias": None}, "missing '2.bias'"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(
    cli: Cli, tmp_path: Path, change: dict[str, Tensor | None], said: str
) -> None:
    state = {**foreign_nets.plain().state_dict(), **change}
    torch.save({k: v for k, v in state.items() if v is not None}, tmp_path / "m.pt")
    told = refused(cli, tmp_path / "m.pt", "--model", "foreign_nets:plain", "--data", TASK)
    assert said in told


def test_a_small_part_of_another_net_is_not_taken_for_the_net(cli: Cli, tmp_path: Path) -> None:
    body = {f"body.{i}.weight": torch.ones(40, 5) for i in range(3)}
    head = {f"fc.{k}": v for k, v in foreign_nets.read_out().state_dict().items()}
    torch.save(body | head, tmp_path / "m.pt")
    np.savez(
        tmp_path / "d.npz",
        **{f"x_{p}": np.ones((30, 5), "f4") for p in ("train", "val", "test")},
        **{f"y_{p}": np.arange(30) % 3 for p in ("train", "val", "test")},
    )
    given = ("--model", "foreign_nets:read_out", "--data", tmp_path / "d.npz")
    told = refused(cli, tmp_path / "m.pt", *given)
    assert "Only a small part" in told
    assert "--weights fc" in told
    made = report(cli, tmp_path / "m.pt", *given, "--weights", "fc")
    assert made["input"]["weights"] == "fc"


def test_a_class_that_nobody_allowed_is_refused_and_an_allowed_one_read_past(
    cli: Cli, tmp_path: Path
) -> None:
    """The user's own class of settings: named, never imported."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "my_settings.py").write_text(
        "import pathlib\npathlib.Path(__file__).with_name('imported').touch()\n"
        "class Config:\n    lr = 0.1\n"
    )
    state = foreign_nets.plain().state_dict()
    script = (
        "import sys, torch; sys.path.insert(0, sys.argv[1]); import my_settings\n"
        "state = torch.load(sys.argv[2], weights_only=True)\n"
        "torch.save({'state_dict': state, 'config': my_settings.Config()}, sys.argv[3])"
    )
    torch.save(state, tmp_path / "state.pt")
    subprocess.run(
        [sys.executable, "-c", script, folder, tmp_path / "state.pt", tmp_path / "m.ckpt"],
        check=True,
    )
    (folder / "imported").unlink()
    given = ("--model", "foreign_nets:plain", "--data", TASK)
    told = refused(cli, tmp_path / "m.ckpt", *given)
    assert "'my_settings.Config'" in told
    assert "--allow my_settings.Config" in told
    made = report(cli, tmp_path / "m.ckpt", *given, "--allow", "my_settings.Config")
    assert "my_settings.Config" in findings(made)["settings_read_past"]
    assert not (folder / "imported").exists()


def test_x_and_y_alone_do_not_say_what_was_trained_on(cli: Cli, tmp_path: Path) -> None:
    with np.load(BLOBS) as file:
        data = dict(file)
    np.savez(tmp_path / "whole.npz", x=data["x_train"], y=data["y_train"])
    told = refused(
        cli, FILES / "lightning-2.6.6.ckpt", "--model", "foreign_nets:plain", "--data",
        tmp_path / "whole.npz",
    )  # fmt: skip
    assert "x_train, y_train, x_test and y_test" in told


@pytest.mark.parametrize(
    ("builder", "said"),
    [
        ("Softmax", "returns probabilities, not logits"),
        ("Answer", "returns a dict, not a tensor"),
        ("encoder", "needs --fit-head"),
    ],
)
def test_a_net_without_logits_is_refused(cli: Cli, tmp_path: Path, builder: str, said: str) -> None:
    torch.save(getattr(foreign_nets, builder)().state_dict(), tmp_path / "m.pt")
    told = refused(cli, tmp_path / "m.pt", "--model", f"foreign_nets:{builder}", "--data", TASK)
    assert said in told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--setup", "foreign_nets:setup", "--model", "foreign_nets:plain"), "brings its own net"),
        (("--setup", "foreign_nets:setup", "--fit-head"), "a read-out of its own"),
        (("--fit-head",), "--fit-head would not be used"),
        (("--data", TASK), "--data would not be used"),
        (("--model", "foreign_nets:plain", "--init", "nope.pt"), "--init would not be used"),
        (("--model", "foreign_nets:with_norm"), "do not fit the net: missing '1.weight'"),
        (
            ("--model", "foreign_nets:plain", "--data", TASK, "--fit-head"),
            "3 outputs for 3 classes",
        ),
        (
            ("--model", "foreign_nets:plain", "--data", TASK, "--init-digest", "0" * 64),
            "a seed or a file",
        ),
        (
            (
                "--model",
                "foreign_nets:plain",
                "--data",
                TASK,
                "--init-seed",
                "1",
                "--init-digest",
                "3f",
            ),
            "64 hexadecimal digits",
        ),
        (("--setup", "foreign_nets:centered_setup"), "which f_0 needs"),
        (
            ("--model", "foreign_nets:plain", "--data", TASK, "--init-digest", "0" * 64),
            "--init-seed",
        ),
        (
            ("--model", "foreign_nets:plain", "--data", TASK, "--feature-layer", "3"),
            "no layer '3'",
        ),
        (
            ("--model", "foreign_nets:plain", "--data", TASK, "--feature-layer", "2"),
            "no layer '2'",
        ),
        (("--model", "resnet9000", "--data", TASK), "no built-in net named 'resnet9000'"),
        (("--model", "foreign_nets:plain", "--data", TASK, "--weights", "ema"), "under 'ema'"),
    ],
)
def test_options_that_do_not_go_together(cli: Cli, arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(cli, FILES / "lightning-2.6.6.ckpt", *arguments)


# --- the report says what was read ----------------------------------------------------------------


def test_a_claim_far_from_what_is_measured_is_a_problem(cli: Cli, tmp_path: Path) -> None:
    state = weights(FILES / "lightning-2.6.6.ckpt", foreign_nets.plain())
    # A mean over an epoch with dropout is larger than the loss at its end: no more than a warning.
    for claim, status in ((0.17, None), (0.01, "problem"), (0.3, "warning")):
        torch.save({"model": state, "loss": claim, "epoch": 7}, tmp_path / "m.pt")
        made = report(cli, tmp_path / "m.pt", "--model", "foreign_nets:plain", "--data", TASK)
        assert made["input"]["claimed_train_loss"] == claim
        assert made["input"]["epoch"] == 7
        told = {one["code"]: one["status"] for one in made["diagnosis"]["findings"]}
        assert told.get("training_loss_differs") == status
        assert "no_better_than_chance" not in told
        # What may mean that all the rest is of another net comes first.
        order = [one["status"] for one in made["diagnosis"]["findings"]]
        assert order == sorted(order, key=["problem", "warning", "info"].index)


def test_the_training_loss_is_of_all_points_that_the_net_was_trained_on(cli: Cli) -> None:
    """The .npz has no validation part; what serves as one was trained on, too."""
    made = report(
        cli, FILES / "lightning-2.6.6.ckpt", "--model", "foreign_nets:plain", "--data", BLOBS
    )
    assert made["input"]["train_loss"] == pytest.approx(0.1699605, rel=1e-5)
    assert made["input"]["train_error"] == pytest.approx(1 / 60)
    assert "choose the strength of probes" in findings(made)["data"]


def test_the_wrong_data_are_noticed_without_any_claim(cli: Cli, tmp_path: Path) -> None:
    with np.load(BLOBS) as file:
        data = dict(file)
    data["y_train"] = (data["y_train"] + 1) % 3
    np.savez(tmp_path / "turned.npz", **data)
    made = report(
        cli, FILES / "torch-2.14.1-compiled.pt", "--model", "foreign_nets:with_norm", "--data",
        tmp_path / "turned.npz",
    )  # fmt: skip
    assert "no better than chance" in findings(made)["no_better_than_chance"]


def test_an_encoder_gets_a_head_of_ours_and_the_report_says_so(cli: Cli, tmp_path: Path) -> None:
    state = weights(FILES / "lightning-2.6.6.ckpt", foreign_nets.plain())
    save_file({k: v for k, v in state.items() if k.startswith("0.")}, tmp_path / "e.safetensors")
    given = ("--model", "foreign_nets:encoder", "--data", TASK, "--fit-head")
    made = report(cli, tmp_path / "e.safetensors", *given)
    assert made["diagnosis"]["evidence_tier"] == "T1"
    assert "fitted here" in findings(made)["head_fitted"]
    assert made["input"]["feature_layer"].startswith(
        "encoder.0: the input of the last linear map, head"
    )
    # Ten times better than guessing, by a head that saw the training points only.
    assert made["input"]["train_error"] < 0.07
    assert "no_better_than_chance" not in findings(made)


def test_an_encoder_is_taken_out_of_a_checkpoint_with_a_head(cli: Cli) -> None:
    given = ("--model", "foreign_nets:encoder", "--data", TASK)
    path = FILES / "lightning-2.6.6.ckpt"
    assert "--fit-head leaves it out" in refused(cli, path, *given)
    made = report(cli, path, *given, "--fit-head")
    assert "5 outputs" in findings(made)["head_fitted"]
    assert "2.weight" in findings(made)["left_out"]
    assert made["input"]["train_error"] < 0.07


def test_a_module_that_is_no_linear_map_can_be_the_feature_layer(cli: Cli) -> None:
    given = (FILES / "lightning-2.6.6.ckpt", "--model", "foreign_nets:plain", "--data", TASK)
    made = report(cli, *given, "--feature-layer", "1")
    assert made["input"]["feature_layer"] == "1, as given"
    own = [m for m in made["measurements"] if m["layer"] in ("0", "1") and m["n"]]
    usual = report(cli, *given)["measurements"]
    # The same tensor under another name: every measure of features is the same.
    assert {m["layer"] for m in own if m["metric"].startswith("collapse")} == {"1"}
    for one in own:
        other = next(m for m in usual if m["metric"] == one["metric"] and m["layer"] == "0")
        assert one["value"] == other["value"]


# --- the initial weights ----------------------------------------------------------------------------


@pytest.fixture
def moved(tmp_path: Path) -> dict[str, Any]:
    """A net that was built under seed 5 and moved, with its init."""
    torch.manual_seed(5)
    init = {k: v.clone() for k, v in foreign_nets.plain().state_dict().items()}
    final = {k: v + 0.1 * torch.sign(v) for k, v in init.items()}
    torch.save(final, tmp_path / "final.pt")
    return {"path": tmp_path / "final.pt", "init": init, "folder": tmp_path}


MODEL = ("--model", "foreign_nets:plain", "--data", TASK)


def movement(made: Mapping[str, Any]) -> list[float | None]:
    return [m["value"] for m in made["measurements"] if m["metric"] == "movement.relative"]


def test_an_init_file_of_any_kind_gives_t2(cli: Cli, moved: dict[str, Any]) -> None:
    init, folder = moved["init"], moved["folder"]
    save_file(init, folder / "init.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in init.items()}}, folder / "init.pt")
    for name in ("init.safetensors", "init.pt"):
        made = report(cli, moved["path"], *MODEL, "--init", folder / name)
        assert made["diagnosis"]["evidence_tier"] == "T2"
        expected = float((0.1 * torch.ones_like(init["0.weight"])).norm() / init["0.weight"].norm())
        assert movement(made)[0] == pytest.approx(expected, rel=1e-5)
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        assert digest in made["input"]["initial_weights"]
        assert not {"init_is_final", "init_unlike", "init_proved"} & findings(made).keys()
    digest = state_digest(init)
    made = report(cli, moved["path"], *MODEL, "--init", folder / "init.pt", "--init-digest", digest)
    assert "proved by their digest" in made["input"]["initial_weights"]
    made = report(cli, moved["path"], *MODEL, "--init", moved["path"])
    assert "nothing moved" in findings(made)["init_is_final"]
    save_file({"0.weight": init["0.weight"]}, folder / "half.safetensors")
    assert "missing" in refused(cli, moved["path"], *MODEL, "--init", folder / "half.safetensors")


def test_the_init_of_another_run_is_noticed(cli: Cli, moved: dict[str, Any]) -> None:
    torch.manual_seed(77)
    other = foreign_nets.plain().state_dict()
    save_file(other, moved["folder"] / "other.safetensors")
    given = (*MODEL, "--init", moved["folder"] / "other.safetensors")
    made = report(cli, moved["path"], *given)
    assert "no more like the initial ones" in findings(made)["init_unlike"]
    told = refused(cli, moved["path"], *given, "--init-digest", state_digest(moved["init"]))
    assert "not those that training began with" in told


def test_a_seed_is_believed_only_with_the_digest_of_its_init(
    cli: Cli, moved: dict[str, Any]
) -> None:
    digest = state_digest(moved["init"])
    proved = report(cli, moved["path"], *MODEL, "--init-seed", "5", "--init-digest", digest)
    assert proved["diagnosis"]["evidence_tier"] == "T2"
    assert "their digest proves it" in findings(proved)["init_from_seed"]
    assert movement(proved)[0] is not None
    for seed, given, said in (
        ("5", (), "A seed alone proves nothing"),
        ("6", ("--init-digest", digest), "is not the one that training started from"),
        ("5", ("--init-digest", "0" * 64), "is not the one that training started from"),
    ):
        made = report(cli, moved["path"], *MODEL, "--init-seed", seed, *given)
        assert made["diagnosis"]["evidence_tier"] == "T1"
        assert said in findings(made)["init_not_known"]
        assert movement(made) == [None]


def test_a_digest_sees_every_bit_and_no_device(moved: dict[str, Any]) -> None:
    init = moved["init"]
    digest = state_digest(init)
    assert state_digest(dict(reversed(init.items()))) == digest
    assert state_digest({k: v.flip(0).flip(0) for k, v in init.items()}) == digest
    changed = {k: v.clone() for k, v in init.items()}
    changed["2.bias"][0] = torch.nextafter(changed["2.bias"][0], torch.tensor(9.0))
    for other in (changed, {k: v.double() for k, v in init.items()},
                  {k: v for k, v in init.items() if k != "2.bias"},
                  {k.replace("2.", "3."): v for k, v in init.items()},
                  {k: v.reshape(-1) for k, v in init.items()}):  # fmt: skip
        assert state_digest(other) != digest


# --- with a setup -----------------------------------------------------------------------------------


def test_a_setup_makes_a_verdict_and_the_file_is_compared_with_its_runs(cli: Cli) -> None:
    path = FILES / "lightning-2.6.6.ckpt"
    few = ("--max-seeds", "3", "--no-store")
    made = report(cli, path, "--setup", "foreign_nets:setup", *few)
    assert made["diagnosis"]["evidence_tier"] == "T3"
    assert made["sweep"] is not None
    assert "init_not_known" in findings(made)
    assert "file_unlike_setup" not in findings(made)
    assert "draw_not_known" not in findings(made), "every draw is the same"
    other = report(cli, path, "--setup", "foreign_nets:far_setup", *few)
    assert "hardly what made this file" in findings(other)["file_unlike_setup"]
    assert "not trained to that target" in findings(other)["file_not_at_target"]


def test_a_setup_that_draws_its_points_needs_to_know_the_draw(cli: Cli) -> None:
    path, few = (
        FILES / "lightning-2.6.6.ckpt",
        ("--max-seeds", "3", "--max-epochs", "2", "--no-store"),
    )
    setup = ("--setup", "foreign_nets:drawn_setup", *few)
    made = report(cli, path, *setup)
    assert "measured on draw 0" in findings(made)["draw_not_known"]
    told = report(cli, path, *setup, "--data-seed", "1")
    assert "draw_not_known" not in findings(told)
    assert told["input"]["train_loss"] != made["input"]["train_loss"]
    whole = report(cli, path, *setup, "--data", TASK)
    assert "draw_not_known" not in findings(whole)
    assert whole["input"]["train_loss"] == pytest.approx(0.1699605, rel=1e-5)


# --- the user's code ----------------------------------------------------------------------------------


def test_code_in_the_current_folder_is_imported_only_with_pythonpath(tmp_path: Path) -> None:
    (tmp_path / "my_net.py").write_text(
        "from pathlib import Path\nfrom torch import nn\nPath('imported').touch()\n"
        "def build():\n    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))\n"
    )
    script = Path(sys.executable).with_name("fls-bench")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    for start in ([sys.executable, "-m", "fls_bench"], [script]):
        command = [
            *start, "diagnose", FILES / "lightning-2.6.6.ckpt", "--model", "my_net:build",
            "--data", BLOBS, "--json", "r.json", "--force",
        ]  # fmt: skip
        ended = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert ended.returncode == 2
        assert "--pythonpath ." in ended.stderr
        assert not (tmp_path / "imported").exists()
    ended = subprocess.run(
        [*command, "--pythonpath", "."],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert "your own code was imported and run" in ended.stderr
    assert (tmp_path / "imported").exists()


def test_no_such_folder_to_import_from(cli: Cli) -> None:
    assert "is no folder" in refused(cli, FILES / "tied.safetensors", "--pythonpath", "no/such")


def test_a_tied_weight_counts_once(tmp_path: Path) -> None:
    state = foreign_nets.large_tied().state_dict()
    torch.save(state, tmp_path / "tied.pt")
    save_model(foreign_nets.large_tied(), str(tmp_path / "tied.safetensors"))
    for name in ("tied.pt", "tied.safetensors"):
        assert weights(tmp_path / name, foreign_nets.large_tied()).keys() == state.keys()
    state["second.weight"] = state["first.weight"] + 1
    torch.save(state, tmp_path / "apart.pt")
    file, shape = load_any(tmp_path / "apart.pt"), net_shape(foreign_nets.large_tied())
    assert isinstance(file, Checkpoint)
    with pytest.raises(InputError, match="holds different numbers"):
        read_weights(file, match_weights(file, shape), shape)


def test_a_net_that_changes_its_input_does_not_change_the_data(cli: Cli, tmp_path: Path) -> None:
    torch.save(foreign_nets.InPlace().state_dict(), tmp_path / "m.pt")
    losses = {
        builder: report(
            cli, tmp_path / "m.pt", "--model", f"foreign_nets:{builder}", "--data", TASK
        )["input"]["train_loss"]
        for builder in ("InPlace", "OutOfPlace")
    }
    assert losses["InPlace"] == losses["OutOfPlace"]


def test_a_mask_of_infinities_is_no_divergence(cli: Cli, tmp_path: Path) -> None:
    torch.save(foreign_nets.masked().state_dict(), tmp_path / "m.pt")
    made = report(cli, tmp_path / "m.pt", "--model", "foreign_nets:masked", "--data", TASK)
    assert made["input"]["num_parameters"] == 43


def test_a_setup_that_contradicts_the_header_is_a_problem(cli: Cli, tmp_path: Path) -> None:
    recipe = fls_bench.Recipe(optimizer=fls_bench.Adam(lr=0.05), batch_size=10)
    run = fls_bench.record(foreign_nets.plain(), recipe=recipe, output_multiplier=0.25)
    torch.save(
        {"model": foreign_nets.plain().state_dict(), "fls_bench": run.header()}, tmp_path / "m.pt"
    )
    few = ("--max-seeds", "3", "--max-epochs", "2", "--no-store")
    made = report(cli, tmp_path / "m.pt", "--setup", "foreign_nets:setup", *few)
    assert "output_multiplier, stop" in findings(made)["setup_differs_from_file"]


def test_a_digest_does_not_see_wrappers(moved: dict[str, Any]) -> None:
    digest = state_digest(moved["init"])
    for wrapped in ("module.{}", "_orig_mod.{}", "module._orig_mod.{}"):
        assert state_digest({wrapped.format(k): v for k, v in moved["init"].items()}) == digest


def test_a_bundle_without_a_net_takes_a_setup(cli: Cli, tmp_path: Path) -> None:
    """What the two lines that convert a full pickle make."""
    state = weights(FILES / "lightning-2.6.6.ckpt", foreign_nets.plain())
    fls_bench.save_bundle(tmp_path / "m.pt", state)
    made = report(cli, tmp_path / "m.pt", "--setup", "foreign_nets:setup", "--max-seeds", "3")
    assert made["diagnosis"]["evidence_tier"] == "T3"
    with pytest.raises(InputError, match="do not fit the net"):
        weights(FILES / "torch-2.14.1.pt", foreign_nets.Tied())
