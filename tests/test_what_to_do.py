"""docs/what-to-do.md: its blocks run, and do what the page says of them; its tables are complete."""

from __future__ import annotations

import copy
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_nets import INPUT_DIM, blobs, config
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import fls_bench
from fls_bench.bundle import load_bundle
from fls_bench.scaling import factors, rate_power, scaled_rate
from fls_bench.schema import Adam, AdamW, FixedSteps, LrRule, Sgd
from fls_bench.training import make_net, train_one
from fls_bench.training_setup import TrainingSetup

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "what-to-do.md").read_text(encoding="utf-8")
C_STAR, STEPS, DEPTH = 0.25, 30, 3
RULE = LrRule(name="homogeneous", depth=DEPTH)


def block(heading: str, number: int = 0) -> str:
    """A block of Python under a heading."""
    part = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", part, re.DOTALL)[number]


def run(heading: str, number: int = 0, **names: Any) -> dict[str, Any]:
    names = {"torch": torch, "copy": copy, **names}
    exec(compile(block(heading, number), "what-to-do.md", "exec"), names)
    return names


def stack(bias: bool = False) -> nn.Module:
    sizes = (INPUT_DIM, 8, 8, 3)
    layers = [nn.Linear(a, b, bias=bias) for a, b in pairwise(sizes)]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def setup(**changes: Any) -> TrainingSetup:
    """Full batches, so that there is no order of points to agree on."""
    options = {"batch_size": 100, "stop": FixedSteps(STEPS), "optimizer": Sgd(lr=0.1), **changes}
    return TrainingSetup(make_model=stack, task=blobs(0), **options)


def points() -> tuple[Tensor, Tensor]:
    task = blobs(0)
    return torch.as_tensor(task.x_train).double(), torch.as_tensor(task.y_train)


def trained(model: nn.Module, optimizer: torch.optim.Optimizer) -> nn.Module:
    x, y = points()
    for _ in range(STEPS):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


def assert_same(found: nn.Module, expected: dict[str, Tensor]) -> None:
    state = found.state_dict()
    assert set(state) == set(expected)
    for name, value in state.items():
        torch.testing.assert_close(value, expected[name].double(), rtol=1e-9, atol=1e-11)


def fresh(seed: int = 0) -> nn.Module:
    return make_net(setup(), seed, 1.0, torch.float64)


def new_rate(optimizer: Any, c: float = C_STAR) -> float:
    return scaled_rate(optimizer.lr, RULE, rate_power(optimizer), at=(1.0, 1.0), to=(c, 1.0))


# --- plain PyTorch --------------------------------------------------------------------------


@pytest.mark.parametrize("centered", [False, True])
def test_the_blocks_train_what_fls_bench_trains(centered: bool) -> None:
    rate = new_rate(Sgd(lr=0.1))
    if centered:
        names = run("Plain PyTorch", 2, build=fresh, c=C_STAR, rate=rate)
    else:
        names = run("Plain PyTorch", 0, build=fresh, c_star=C_STAR, new_rate=rate)
    model = trained(names["model"], names["optimizer"])
    own = setup(centered=centered)
    asked = config(own, c=C_STAR, lr=rate, centered=centered)
    theirs, _ = train_one(own, RULE, asked, dtype=torch.float64)
    assert theirs.final is not None
    assert_same(model.module, theirs.final)  # type: ignore[arg-type]
    before = fresh().state_dict()
    assert max(float((theirs.final[k] - before[k]).abs().max()) for k in before) > 0.1


@pytest.mark.parametrize("bias", [False, True])
def test_c_goes_into_the_last_layer_after_training(bias: bool) -> None:
    net, (x, _) = stack(bias).double(), points()
    expected = C_STAR * net(x)
    run("Plain PyTorch", 1, readout=net[-1], c_star=C_STAR)
    torch.testing.assert_close(net(x), expected)


def test_before_training_it_is_another_setup_unless_the_read_out_has_its_own_rate() -> None:
    outside = fresh()
    scaled = run("Plain PyTorch", 0, build=lambda: outside, c_star=C_STAR, new_rate=0.3)
    trained(scaled["model"], scaled["optimizer"])
    results = []
    for rate in (0.3, 0.3 * C_STAR**2):
        inside = fresh()
        run("Plain PyTorch", 1, readout=inside[-1], c_star=C_STAR)
        others = [p for name, p in inside.named_parameters() if not name.startswith("4.")]
        groups = [{"params": others}, {"params": inside[-1].parameters(), "lr": rate}]
        trained(inside, torch.optim.SGD(groups, lr=0.3))
        x, _ = points()
        results.append(float((inside(x) - C_STAR * outside(x)).detach().abs().max()))
    assert results[0] > 0.01
    assert results[1] < 1e-10


def test_the_table_of_settings_is_that_of_scaling() -> None:
    table = PAGE.split("### Rate, decay")[1].split("### ")[0]
    powers = dict(re.findall(r"^\| ([^|]+) \| r\^\((-?\d)/L\) \|", table, re.MULTILINE))
    r = 0.3
    assert len(powers) == 6
    for row, optimizer, factor in (
        ("rate of SGD, momentum, Nesterov", Sgd(lr=1), lambda o, by: new_rate(o, r)),
        ("L2 penalty (SGD's and Adam's `weight_decay`)", Sgd(lr=1), lambda o, by: by.l2),
        ("rate of Adam, AdamW", Adam(lr=1), lambda o, by: new_rate(o, r)),
        ("AdamW's `weight_decay`", AdamW(lr=1), lambda o, by: by.decay),
        ("Adam's `eps`", Adam(lr=1), lambda o, by: by.epsilon),
        # The product trains with gradients of by.clip times the norm at the same threshold.
        ("threshold of clipping by norm", Sgd(lr=1), lambda o, by: 1 / by.clip),
    ):
        by = factors(RULE, rate_power(optimizer), "0.weight", r)
        assert factor(optimizer, by) == pytest.approx(r ** (int(powers[row]) / DEPTH)), row
    assert "at most 4·c\\*^-2" in table
    assert new_rate(Sgd(lr=1), 64.0) == pytest.approx(4 * 64.0**-2)
    assert "at most 2·c\\*^-1" in table
    assert new_rate(Adam(lr=1), 64.0) == pytest.approx(2 / 64)


# --- Lightning and transformers -------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_the_block_of_lightning_records_c_and_the_rate(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")
    from fls_bench.integrations.lightning import FlsBenchCallback

    task = blobs(0)
    x, y = torch.as_tensor(task.x_train), torch.as_tensor(task.y_train)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False,
             "enable_checkpointing": False, "accelerator": "cpu"}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        names = run(
            "Lightning", lightning=lightning, FlsBenchCallback=FlsBenchCallback, build=stack,
            task=task, c_star=C_STAR, new_rate=0.2, quiet=quiet,
            loader=torch.utils.data.DataLoader(list(zip(x, y, strict=True)), batch_size=8),
        )  # fmt: skip
    file = load_bundle(tmp_path / "model.pt")
    assert file.header.output_multiplier == C_STAR
    assert file.header.recipe is not None
    assert file.header.recipe.optimizer == Sgd(lr=0.2)
    assert set(file.final) == set(stack().state_dict())
    torch.testing.assert_close(names["module"](x), C_STAR * names["module"].net(x))


@pytest.mark.filterwarnings("ignore")
def test_the_block_of_transformers_scales_logits_and_loss(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 8, "max_position_embeddings": 6}  # fmt: skip
    names = run(
        "transformers", BertForSequenceClassification=transformers.BertForSequenceClassification,
        BertConfig=transformers.BertConfig, TrainingArguments=transformers.TrainingArguments,
        c_star=C_STAR, sizes=sizes, folder=str(tmp_path), new_rate=1e-3, new_epsilon=1e-7,
        new_clip=0.5, quiet={"report_to": [], "use_cpu": True},
    )  # fmt: skip
    model = names["model"].eval()
    plain = transformers.BertForSequenceClassification(transformers.BertConfig(**sizes)).eval()
    plain.load_state_dict(model.state_dict())
    tokens, labels = torch.randint(20, (7, 6)), torch.arange(7) % 2
    expected = C_STAR * plain(input_ids=tokens).logits
    model.save_pretrained(tmp_path / "saved")
    for one in (model, names["ScaledBert"].from_pretrained(tmp_path / "saved").eval()):
        found = one(input_ids=tokens, labels=labels)
        torch.testing.assert_close(found.logits, expected)
        torch.testing.assert_close(found.loss, cross_entropy(expected, labels))


# --- muP ------------------------------------------------------------------------------------


class MuReadout(nn.Linear):
    """The formula of mup's read-out; the width multiplier is that of base shapes there."""

    width_mult = 4.0

    def __init__(self, width: int, n_classes: int, *, bias: bool, output_mult: float) -> None:
        super().__init__(width, n_classes, bias=bias)
        self.output_mult = output_mult

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.output_mult * x / self.width_mult)


def mup_net(c_star: float, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net = stack()
    names = run(
        "muP", MuReadout=MuReadout, width=8, n_classes=3, output_mult=2.0, c=1.0, c_star=c_star
    )
    net[-1] = names["readout"]
    return net.double()


@pytest.mark.parametrize(
    ("make", "power", "rates"),
    [(torch.optim.SGD, 2, (1.0, 0.2, 3.0)), (torch.optim.AdamW, 1, (0.01, 0.002, 0.03))],
    ids=["SGD", "AdamW"],
)
def test_all_rates_of_mup_take_the_same_factor(
    make: Any, power: int, rates: tuple[float, ...]
) -> None:
    """Each layer has a rate of its own, as muP has; the ratios between them stay."""
    r, x = C_STAR, points()[0]
    runs = []
    for c, scale in ((r, 1.0), (1.0, r ** (1 / DEPTH))):
        net = mup_net(c)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(scale)
        a = c ** (1 / DEPTH)  # c = 1: the settings before
        groups = []
        for weight, rate in zip(net.parameters(), rates, strict=True):
            group: dict[str, Any] = {"params": [weight], "lr": rate * a**-power}
            if make is torch.optim.AdamW:
                group |= {"weight_decay": 0.5 * a, "eps": 1e-3 * a}
            groups.append(group)
        trained(net, make(groups))
        with torch.no_grad():
            runs.append(net(x))
            assert float((net(x) - mup_net(c)(x)).abs().max()) > 0.1
    torch.testing.assert_close(runs[0], runs[1], rtol=1e-9, atol=1e-10)


def test_a_read_out_of_mup_with_a_bias_is_not_c_times_the_net() -> None:
    x, c = points()[0][:, :5], C_STAR
    plain = MuReadout(5, 3, bias=True, output_mult=1.0).double()
    scaled = MuReadout(5, 3, bias=True, output_mult=c).double()
    scaled.load_state_dict(plain.state_dict())
    assert not torch.allclose(scaled(x), c * plain(x))
    with torch.no_grad():
        plain.bias.zero_()
        scaled.bias.zero_()
    torch.testing.assert_close(scaled(x), c * plain(x))


# --- the rest -------------------------------------------------------------------------------


def test_a_temperature_is_the_inverse_of_c() -> None:
    net, (x, y) = fresh(), points()
    names = run("As a temperature", logits=net(x), y=y, T=1 / C_STAR)
    names["loss"].backward()
    by_temperature = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    net.zero_grad()
    expected = cross_entropy(C_STAR * net(x), y)
    expected.backward()
    torch.testing.assert_close(names["loss"], expected)
    for one, parameter in zip(by_temperature, net.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad)


def test_every_reason_for_no_verdict_is_answered() -> None:
    """The codes of the source, in the words of the screen."""
    verdict = ROOT / "fls_bench" / "verdict"
    regime, diagnosis = (verdict / "regime.py").read_text(), (verdict / "diagnosis.py").read_text()
    reading = (verdict / "reading" / "model.py").read_text()
    codes = re.findall(r'Regime\.INCONCLUSIVE,\s+"(\w+)"', regime)
    codes += re.findall(r'open_because\(\s*"(\w+)"', diagnosis)
    codes += re.findall(r'code = "(\w+)"', diagnosis)
    codes += re.findall(r'code="(\w+)"', reading)
    assert len(codes) >= 16
    table = PAGE.split("## Inconclusive\n")[1]
    answered = set(re.findall(r"`([a-z-]+)`", " ".join(re.findall(r"^\| (.*?) \|", table, re.M))))
    decided = {"one-regime-fits"}
    assert answered == {code.replace("_", "-") for code in codes} - decided


def test_verdicts_and_mechanisms_of_the_page_are_those_of_the_product() -> None:
    for regime in fls_bench.schema.Regime:
        assert f"\n| {regime.label}" in PAGE
    mechanism = (ROOT / "fls_bench" / "verdict" / "mechanism.py").read_text()
    for code, _ in re.findall(r'code="(\w+)", (text)=', mechanism):
        words = code.replace("_", " ").replace("initial function", "initial-function")
        assert f"*{words.replace('class mean', 'class-mean')}*" in PAGE, code
    assert fls_bench.schema.DIRECTION.lower() in PAGE.lower().replace(
        "feature learning strength (fls)", "fls"
    )
    assert np.all([name in PAGE for name in ("c-hardly-matters", "readout_zero_init")])
