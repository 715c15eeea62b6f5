"""``fls-bench invariants`` on nets as users write them: what holds, under what rule, what is void."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from fls_bench import report
from fls_bench.schema import InvariantFinding
from fls_bench.testing import NAMES

Cli = Callable[..., Any]

PLAIN = dict.fromkeys(
    ("temperature", "tangent_kernel", "parameter_scale", "one_rate", "exact_rule", "movement",
     "relu_rescaling", "permutation", "rotation", "duplication", "sample_order", "label_names",
     "batching", "balance", "lazy_limit"),
    "held",
) | {"routes": "wrapper_only"}  # fmt: skip
"""Of a plain MLP under SGD: held, or the code of the reason why it is void."""

BATCH_NORM = {
    "one_rate": "normalisation", "relu_rescaling": "not_positively_homogeneous",
    "rotation": "inputs_not_linear", "balance": "not_positively_homogeneous",
    "lazy_limit": "not_gradient_flow",
}  # fmt: skip
ZOO: dict[str, tuple[list[str], dict[str, str]]] = {
    "plain_mlp": ([], {}),
    "wired_mlp": ([], {"routes": "held", "batching": "one_by_one"}),
    "biased_mlp": ([], {"one_rate": "trained_biases", "balance": "not_positively_homogeneous"}),
    "dropout_mlp": (
        [],
        {
            "one_rate": "held", "permutation": "dropout", "duplication": "dropout",
            "sample_order": "dropout", "batching": "one_by_one", "balance": "not_gradient_flow",
            "lazy_limit": "not_gradient_flow", "movement": "held",
        },
    ),
    "cnn": ([], {"rotation": "inputs_not_linear"}),
    "Residual": ([], BATCH_NORM),
    "PlainResidual": (
        [],
        {
            "parameter_scale": "not_homogeneous", "one_rate": "not_homogeneous",
            "exact_rule": "not_homogeneous", "relu_rescaling": "not_positively_homogeneous",
            "permutation": "no_exchangeable_units", "balance": "not_positively_homogeneous",
        },
    ),
    "Transformer": (
        ["--optimizer", "adamw,lr=0.01", "--input-shape", "6,4"],
        {
            "one_rate": "normalisation", "relu_rescaling": "not_positively_homogeneous",
            "rotation": "sees_axes", "balance": "not_gradient_flow",
        },
    ),
    "plain_mlp under adam": (
        ["--optimizer", "adam,lr=0.01"],
        {"one_rate": "adam_epsilon", "rotation": "sees_axes", "balance": "not_gradient_flow"},
    ),
    "plain_mlp with decay and clipping": (
        ["--optimizer", "sgd,lr=0.05,weight_decay=0.1,clip_norm=0.1"],
        {
            "one_rate": "weight_decay", "balance": "not_gradient_flow",
            "movement": "target_not_reached",
        },
    ),
    "setup": ([], {}),
    "custom_setup": (
        [],
        {
            "one_rate": "own_optimizer", "exact_rule": "own_optimizer", "rotation": "sees_axes",
            "batching": "one_by_one", "balance": "not_gradient_flow",
            "lazy_limit": "not_gradient_flow",
        },
    ),
}  # fmt: skip


def examined(
    cli: Cli, folder: Path, target: str, *options: str, examples: int = 6
) -> tuple[Any, dict[str, InvariantFinding]]:
    path = folder / "found.json"
    ended = cli(
        "invariants", target, "--examples", examples, "--json", path, "--force", "--quiet", *options
    )
    assert ended.code in (0, 1), ended.err
    found = report.read(path).invariants
    assert found is not None
    return ended, {one.invariant: one for one in found.findings}


@pytest.mark.parametrize("name", ZOO)
def test_each_row_of_the_table_is_right(cli: Cli, tmp_path: Path, name: str) -> None:
    options, others = ZOO[name]
    ended, found = examined(cli, tmp_path, f"zoo:{name.split()[0]}", *options)
    told = {k: "held" if one.status == "held" else one.code for k, one in found.items()}
    assert told == PLAIN | others
    assert ended.code == 0
    for one in found.values():
        assert one.status in ("held", "void")
        if one.status == "held" and one.bound is not None:
            assert one.deviation is not None
            assert one.deviation <= one.bound
            assert one.num_examples >= 4, one  # not decided on a lucky draw


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("biased_before_norm", ["--optimizer", "adam,lr=0.01"]),
        ("biased_before_norm", ["--optimizer", "adamw,lr=0.01"]),
        ("frozen", []),
        ("linear", []),
        ("many_classes", []),
        ("gated", []),
    ],
)
def test_other_nets_of_users_are_not_called_broken(
    cli: Cli, tmp_path: Path, name: str, options: list[str]
) -> None:
    ended, found = examined(cli, tmp_path, f"zoo:{name}", *options, examples=12)
    assert [one for one in found.values() if one.status == "broken"] == []
    assert ended.code == 0
    if name != "linear":
        assert found["parameter_scale"].status == "held"


def test_a_read_out_that_starts_at_zero_hides_no_mistake(cli: Cli, tmp_path: Path) -> None:
    _, found = examined(cli, tmp_path, "zoo:gated_twice", "--only", "routes")
    assert (found["routes"].status, found["routes"].code) == ("broken", "applied_twice")


def test_what_a_changed_rule_is_is_said(cli: Cli, tmp_path: Path) -> None:
    _, norm = examined(cli, tmp_path, "zoo:Residual", "--only", "exact-rule,duplication,one-rate")
    rule = norm["exact_rule"].rule or ""
    # Its normalised stream has no scale of its own (epsilon): only the read-out follows c.
    assert "e = 1 for fc.weight, fc.bias" in rule
    assert "e = 0 for stem.weight" in rule
    assert "running variances" in (norm["duplication"].rule or "")
    assert norm["one_rate"].deviation is not None
    assert norm["one_rate"].deviation > 1e-4  # the drift was measured
    _, biased = examined(cli, tmp_path, "zoo:biased_mlp", "--only", "exact-rule,one-rate")
    assert "e = 3 for 4.bias" in (biased["exact_rule"].rule or "")
    assert "4.bias" in biased["one_rate"].text
    assert "drift apart by" in biased["one_rate"].text
    adam = ("--optimizer", "adam,lr=0.01,epsilon=0.001")
    _, epsilon = examined(cli, tmp_path, "zoo:plain_mlp", *adam, "--only", "exact-rule,one-rate")
    assert epsilon["exact_rule"].rule == "epsilon times c^(1/3)"
    assert "epsilon" in epsilon["one_rate"].text
    _, masks = examined(cli, tmp_path, "zoo:dropout_mlp", "--only", "exact-rule")
    assert masks["exact_rule"].rule == "dropout draws the same masks in both runs"
    _, plain = examined(cli, tmp_path, "zoo:plain_mlp", "--only", "exact-rule")
    assert plain["exact_rule"].rule is None


def test_exponents_are_measured_with_their_intervals(cli: Cli, tmp_path: Path) -> None:
    _, found = examined(cli, tmp_path, "zoo:biased_mlp", "--only", "tangent-kernel,parameter-scale")
    measured = {one.what: one for row in found.values() for one in row.exponents}
    wanted = {
        "tangent kernel against c": 2.0, "SGD rate of 0.weight and 3 more": -2 / 3,
        "SGD rate of 2.bias": -4 / 3, "SGD rate of 4.bias": -2.0,
        "output against the scale of the parameters": 3.0,
    }  # fmt: skip
    assert measured.keys() == wanted.keys()
    for what, value in wanted.items():
        one = measured[what]
        assert one.n == 6
        assert one.wanted == pytest.approx(value)
        assert one.value == pytest.approx(value, abs=1e-9)
        assert one.low is not None
        assert one.high is not None
        assert one.low <= one.value <= one.high
    _, residual = examined(cli, tmp_path, "zoo:PlainResidual", "--only", "parameter-scale")
    (local,) = residual["parameter_scale"].exponents
    assert local.wanted is None
    assert local.n == 6
    assert local.low is not None
    assert local.high is not None
    assert 2 < local.low < local.high < 3.1  # between the two powers that are summed


# --- planted mistakes -----------------------------------------------------------------------

MISTAKES = {
    "twice": ("applied_twice", 2.0),
    "inverted": ("inverted", -1.0),
    "ignored": ("ignored", 0.0),
    "square_root": ("wrong_exponent", 0.5),
    "loss_alone": ("modes_differ", None),
    "gradient_alone": ("ignored", 0.0),
    "other_default": ("routes_differ", None),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_multiplier_that_is_wired_wrongly_is_found(cli: Cli, tmp_path: Path, name: str) -> None:
    only = "routes,parameter-scale,duplication,tangent-kernel,exact-rule"
    ended, found = examined(cli, tmp_path, f"zoo:{name}", "--only", only)
    code, power = MISTAKES[name]
    assert ended.code == 1
    routes = found["routes"]
    assert (routes.status, routes.code) == ("broken", code), routes
    # The smallest case: one step of two points, next to the multiplier's own value.
    assert routes.counter_example is not None
    smallest = {
        "seed": 0, "quarter_octaves": -4, "batch_size": 2, "num_batches": 1, "epochs": 1,
        "c_ratio": 0.5,
    }  # fmt: skip
    assert routes.counter_example == smallest
    if power is not None:
        assert routes.exponents[1].value == pytest.approx(power, abs=1e-6)
    # What does not depend on the multiplier is not blamed.
    assert found["duplication"].status != "broken"
    assert found["parameter_scale"].status == "held"


OPTIMIZERS = {
    "exact": ("held", None),
    "uncompensated": ("broken", "rate"),
    "wrong_exponent": ("broken", "rate"),
    "direction_flipped": ("broken", "rate"),
    "bias_unscaled": ("broken", "bias_rate"),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_that_is_told_the_multiplier_is_checked(
    cli: Cli, tmp_path: Path, name: str
) -> None:
    status, code = OPTIMIZERS[name]
    options = ("--optimizer", f"zoo:{name}", "--only", "own-optimizer")
    ended, found = examined(cli, tmp_path, "zoo:biased_mlp", *options)
    one = found["own_optimizer"]
    assert (one.status, one.code) == (status, code), one
    assert ended.code == (status == "broken")
    if name == "bias_unscaled":
        assert "2.bias goes as c^-0.667, exact is c^-1.33" in one.text
        assert "weight" not in one.text


@pytest.mark.parametrize(
    ("name", "code"), [("adam_epsilon_left", "epsilon"), ("decay_left", "penalty")]
)
def test_epsilons_and_penalties_are_read_off_it(
    cli: Cli, tmp_path: Path, name: str, code: str
) -> None:
    options = ("--optimizer", f"zoo:{name}", "--only", "own-optimizer")
    _, found = examined(cli, tmp_path, "zoo:plain_mlp", *options)
    assert (found["own_optimizer"].status, found["own_optimizer"].code) == ("broken", code)


def test_a_place_in_the_batch_that_matters_is_found(cli: Cli, tmp_path: Path) -> None:
    ended, found = examined(cli, tmp_path, "zoo:Placed", "--only", "duplication,sample-order")
    assert ended.code == 1
    assert {one.status for one in found.values()} == {"broken"}


# --- the command ----------------------------------------------------------------------------


def test_a_model_file_is_examined_with_its_own_recipe(
    cli: Cli, tmp_path: Path, model_file: Path
) -> None:
    ended, found = examined(
        cli, tmp_path, str(model_file), "--only", "exact-rule,batching,own-rule"
    )
    assert ended.code == 0
    assert {one.status for one in found.values()} == {"held"}
    assert report.read(tmp_path / "found.json").invariants.net["inputs"] == "64, from digits"  # type: ignore[union-attr]


def test_the_printed_seed_gives_the_same_findings(cli: Cli, tmp_path: Path) -> None:
    only = ("--only", "exact-rule,tangent-kernel")
    texts = []
    for seed in (7, 7, 8):
        path = tmp_path / f"{len(texts)}.json"
        cli(
            "invariants",
            "zoo:plain_mlp",
            "--seed",
            seed,
            "--examples",
            4,
            "-q",
            "--json",
            path,
            *only,
        )
        made = json.loads(path.read_text())
        assert made["invariants"]["command"] == (
            f"fls-bench invariants zoo:plain_mlp --examples 4 --seed {seed}"
            " --only exact-rule,tangent-kernel"
        )
        del made["provenance"], made["invariants"]["command"], made["invariants"]["seed"]
        texts.append(json.dumps(made))
    assert texts[0] == texts[1] != texts[2]


def test_the_terminal_shows_table_reasons_and_how_to_repeat(cli: Cli) -> None:
    ended = cli("invariants", "zoo:twice", "--examples", 3, "--only", "routes,rotation,batching")
    assert ended.code == 1
    for part in (
        "1 broken, 1 held, 1 void", "routes", "broken", "Void, and why", "one-by-one",
        "applied twice", "smallest counter-example: seed 0, c times 0.5, 2 points a step",
        "fls-bench invariants zoo:twice --examples 3 --seed 0",
    ):  # fmt: skip
        assert part in ended.out, part


def test_junit_has_a_case_for_each_and_html_says_the_same(cli: Cli, tmp_path: Path) -> None:
    junit, page = tmp_path / "found.xml", tmp_path / "found.html"
    only = ("--only", "routes,rotation,batching")
    ended = cli(
        "invariants", "zoo:twice", "--examples", 3, *only, "--junit", junit, "--html", page, "-q"
    )
    assert ended.code == 1
    (suite,) = ET.parse(junit).getroot()
    assert {k: suite.get(k) for k in ("tests", "failures", "errors", "skipped")} == {
        "tests": "3", "failures": "1", "errors": "0", "skipped": "1"
    }  # fmt: skip
    cases = {case.get("name"): [child.tag for child in case] for case in suite.iter("testcase")}
    assert cases == {"routes": ["failure"], "rotation": [], "batching": ["skipped"]}
    failure = next(suite.iter("failure"))
    assert failure.get("type") == "applied-twice"
    assert "c times 0.5" in (failure.text or "")
    html = page.read_text()
    assert "1 broken, 1 held, 1 void" in html
    assert "The multiplier is applied twice" in html
    assert "Measured exponents" in html


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing.pt"], "There is no file nothing.pt"),
        (["zoo:nothing"], "no 'nothing'"),
        (["zoo:CLASSES"], "is a int, not a builder"),
        (["zoo:needs_width"], "failed with TypeError"),
        (["zoo:two_inputs"], "can't be told from its layers"),
        (["zoo:plain_mlp", "--input-shape", "7"], "shape [7]"),
        (["zoo:plain_mlp", "--input-shape", "six"], "no list of sizes"),
        (["zoo:plain_mlp", "--optimizer", "lion"], "--optimizer"),
        (["zoo:plain_mlp", "--optimizer", "zoo:setup"], "output_multiplier"),
        (["zoo:plain_mlp", "--optimizer", "zoo:exact", "--lr", "1"], "--lr goes with"),
        (["zoo:plain_mlp", "--only", "everything"], "There is no invariant named everything"),
        (["zoo:plain_mlp", "--only", "own-optimizer"], "there is none to try"),
        (["zoo:plain_mlp", "--model", "zoo:cnn"], "--model goes with a model file"),
        (["zoo:plain_mlp", "--loss", "hinge"], "--loss"),
        (["zoo:plain_mlp", "--task", "digits"], "can't take the data"),
    ],
)
def test_what_can_not_be_examined_is_said_in_a_sentence(
    cli: Cli, arguments: list[str], words: str
) -> None:
    ended = cli("invariants", *arguments)
    assert ended.code == 2, ended.err
    assert words in ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""


def test_the_table_has_every_name_once() -> None:
    from fls_bench.invariants import INVARIANTS

    assert tuple(INVARIANTS) == NAMES
    for row in INVARIANTS.values():
        text = row.check.__doc__ or ""
        assert "Source:" in text, row.name
        assert "Void" in text, row.name
        assert row.statement.endswith("."), row.name
