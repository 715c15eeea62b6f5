import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fls_bench.files
from fls_bench.errors import InputError
from fls_bench.gates import REACHED, RUN_VALUES
from fls_bench.schema import (
    FixedSteps,
    Recipe,
    Regime,
    Sgd,
    TargetAccuracy,
    TargetLoss,
    ValidationLoss,
)
from fls_bench.suite import ScaleSpec, Suite, list_suites, load_suite, suite_folder

FULL = """
schema = 1
name = "mine"
version = 3
title = "All keys"
cost = { seconds = 20, memory_mb = 500 }
sources = ["arXiv:2602.00827"]
seeds = 10
[defaults]
optimizer = { kind = "sgd", lr = 0.2 }
stop = { target_loss = 0.1, max_epochs = 300 }
loss = "cross_entropy"
batch_size = 30
[[case]]
id = "digits-mlp"
task = { name = "digits", n_train = 150 }
model = { name = "mlp", depth = 4, output_multiplier = "2^-9", init_scale = "1/4", centered = true }
log2_c = { from = -9, to = 3, step = 2 }
axis = "init_scale"
optimizer = { lr = 1, momentum = 0.9 }
stop = { target_accuracy = 0.99, max_epochs = 50 }
loss = "logistic"
batch_size = 7
expect = { regime = "over_aligned", mechanism = "rank_collapse" }
[[case]]
id = "no-signal"
task = { name = "noise", n_train = 150 }
expect = { regime = "inconclusive" }
[scale.small]
seeds = 3
[scale.full]
[gate.test_error]
min_effect = 0.01
better = "lower"
"""

MINIMAL = """
schema = 1
name = "mine"
version = 1
cost = { seconds = 1, memory_mb = 1 }
sources = []
seeds = 3
case = [{ id = "a", task = { name = "digits" } }]
"""


def loaded(tmp_path: Path, text: str) -> Suite:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return load_suite(path)


def problem(tmp_path: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        loaded(tmp_path, text)
    assert caught.value.remedy
    assert "pydantic" not in str(caught.value)
    return caught.value.problem


def test_every_key_of_a_case_arrives(tmp_path: Path) -> None:
    suite = loaded(tmp_path, FULL)
    first, second = suite.cases
    assert (suite.name, suite.version, suite.seeds) == ("mine", 3, 10)
    assert (first.task.name, first.task.arguments) == ("digits", {"n_train": 150})
    assert (first.model.name, first.model.arguments) == ("mlp", {"depth": 4})
    assert (first.model.output_multiplier, first.model.init_scale) == (2**-9, 0.25)
    assert first.model.centered
    assert first.axis == "init_scale"
    assert not first.adaptive
    assert first.log2_c is not None
    assert first.log2_c.values == tuple(2.0**k for k in (-9, -7, -5, -3, -1, 1, 3))
    assert first.expect is not None
    assert first.expect.regime is Regime.OVER_ALIGNED
    assert second.adaptive
    assert second.log2_c is None
    assert suite.scale == {"small": ScaleSpec(seeds=3), "full": ScaleSpec()}
    assert suite.gate["test_error"].min_effect == 0.01


def test_a_case_overrides_the_defaults_key_by_key(tmp_path: Path) -> None:
    suite = loaded(tmp_path, FULL)
    assert suite.recipe(suite.cases[0]) == Recipe(
        loss="logistic",
        optimizer=Sgd(lr=1.0, momentum=0.9),
        batch_size=7,
        stop=TargetAccuracy(target_accuracy=0.99, max_epochs=50),
    )
    assert suite.recipe(suite.cases[1]) == Recipe(
        optimizer=Sgd(lr=0.2), batch_size=30, stop=TargetLoss(target_loss=0.1, max_epochs=300)
    )


def test_a_case_has_an_augmentation_of_its_own(tmp_path: Path) -> None:
    suite = loaded(tmp_path, FULL.replace("batch_size = 7", 'augmentation = ["flip", "crop"]'))
    assert suite.recipe(suite.cases[0]).augmentation == ("flip", "crop")
    assert suite.recipe(suite.cases[1]).augmentation == ()


@pytest.mark.parametrize(
    ("table", "stop"),
    [
        ("validation_patience = 20, max_epochs = 300", ValidationLoss(20, max_epochs=300)),
        ("validation_patience = 7", ValidationLoss(7, max_epochs=300)),
        ("steps = 500", FixedSteps(500)),
        ("steps = 500, max_epochs = 50", FixedSteps(500, max_epochs=50)),
        ("max_epochs = 50", TargetLoss(0.1, max_epochs=50)),
    ],
)
def test_a_stop_is_told_by_its_keys(tmp_path: Path, table: str, stop: Any) -> None:
    suite = loaded(tmp_path, FULL.replace("target_accuracy = 0.99, max_epochs = 50", table))
    assert suite.recipe(suite.cases[0]).stop == stop
    assert suite.recipe(suite.cases[1]).stop == TargetLoss(0.1, max_epochs=300)
    assert type(suite.recipe(suite.cases[0]).stop) is type(stop)
    recipe = suite.recipe(suite.cases[0])
    again = Recipe.model_validate_json(recipe.model_dump_json())
    assert (again, type(again.stop)) == (recipe, type(stop))
    as_default = loaded(tmp_path, FULL.replace("target_loss = 0.1, max_epochs = 300", table))
    assert as_default.recipe(as_default.cases[1]).stop == stop


def test_the_digest_is_of_what_is_run_and_not_of_how_it_is_presented(tmp_path: Path) -> None:
    digest = loaded(tmp_path, FULL).digest
    assert re.fullmatch("[0-9a-f]{64}", digest)
    for old, new in (
        ('title = "All keys"\n', ""),
        ("seconds = 20", "seconds = 99"),
        ('["arXiv:2602.00827"]', "[]"),
        ('"2^-9"', "0.001953125"),
        ("seeds = 10\n", "seeds = 10  # a comment\n"),
        ("lr = 1,", "lr = 1.0,"),
    ):
        assert old in FULL
        assert loaded(tmp_path, FULL.replace(old, new)).digest == digest
    for old, new in (
        ("seeds = 10\n", "seeds = 11\n"),
        ("version = 3", "version = 4"),
        ("n_train = 150 }\nmodel", "n_train = 151 }\nmodel"),
        ('"2^-9"', '"2^-8"'),
        ("to = 3", "to = 5"),
        ('regime = "inconclusive"', 'regime = "near_optimal"'),
        ("min_effect = 0.01", "min_effect = 0.02"),
    ):
        assert old in FULL
        assert loaded(tmp_path, FULL.replace(old, new)).digest != digest


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "output_multiplier",
            "outptu_multiplier",
            "case 1 \"digits-mlp\", model: unknown key 'outptu_multiplier', "
            "did you mean 'output_multiplier'?",
        ),
        (
            "\nexpect = { regime = \"inc",
            "\nexpcet = { regime = \"inc",
            "case 2 \"no-signal\": unknown key 'expcet', did you mean 'expect'?",
        ),
        (
            "max_epochs = 50",
            "max_epoch = 50",
            "case 1 \"digits-mlp\", stop: unknown key 'max_epoch', did you mean 'max_epochs'?",
        ),
        ("version = 3", "version = 3\nseeed = 1", "unknown key 'seeed', did you mean 'seeds'?"),
        ("batch_size = 30", "zzz = 30", "defaults: unknown key 'zzz'."),
        (
            "min_effect = 0.01",
            "min_effect = 0.01\nmin_efect = 2",
            "gate.test_error: unknown key 'min_efect', did you mean 'min_effect'?",
        ),
        ("[gate.test_error]", "[gate.tset_error]", "metric 'tset_error', did you mean 'test_error'?"),
        ("min_effect = 0.01\n", "", "gate.test_error: give min_effect and better, or tolerance alone."),
        (
            "min_effect = 0.01",
            "min_effect = 0.01\ntolerance = 0.1",
            "gate.test_error: tolerance goes with neither min_effect nor better.",
        ),
        (
            "seeds = 10",
            "seeds = 6",
            "seeds = 6 can't decide 2 tests (2 cases): sign flips reach the level 0.05/2 with 7 seeds",
        ),
        ("[scale.full]", "[scale.huge]", "scale: unknown key 'huge', expected 'small' or 'full'."),
        (
            "target_accuracy = 0.99",
            "target_accuracy = 0.99, target_loss = 0.1",
            "case 1 \"digits-mlp\", stop: key 'target_loss' does not go with the other keys here.",
        ),
        (
            "target_accuracy = 0.99",
            "validation_patience = 9, target_accuracy = 0.9",
            "stop: key 'validation_patience' does not go with the other keys here.",
        ),
        (
            "target_accuracy = 0.99",
            "steps = 9, validation_patience = 9",
            "stop: key 'steps' does not go with the other keys here.",
        ),
        (
            "target_accuracy = 0.99",
            "steps = 9, target_loss = 0.1",
            "stop: key 'target_loss' does not go with the other keys here.",
        ),
        (
            "target_accuracy = 0.99",
            "validation_patince = 9",
            "stop: unknown key 'validation_patince', did you mean 'validation_patience'?",
        ),
        ("target_accuracy = 0.99", "step = 9", "unknown key 'step', did you mean 'steps'?"),
        (
            "target_accuracy = 0.99",
            "validation_patience = 0",
            "stop.validation_patience: expected a value greater than or equal to 1, found 0.",
        ),
        ("target_accuracy = 0.99", "steps = 2.5", "stop.steps: expected"),
        ("target_accuracy = 0.99", "steps = 0", "stop.steps: expected a value greater than or"),
        ("target_accuracy = 0.99", "steps = [3]", "stop.steps: expected a whole number"),
        ("version = 3", 'version = "3"', 'version: expected a whole number, found "3".'),
        ("seeds = 10", "seeds = 0", "seeds: expected a value greater than or equal to 3, found 0."),
        ("lr = 1,", "lr = true,", "optimizer.lr: expected a number, found true."),
        ("lr = 1,", f"lr = {10**400},", "optimizer.lr: expected a number, found 1000"),
        ("n_train = 150 }\nex", "n_train = nan }\nex", "nan is not a finite number"),
        (
            'id = "digits-mlp"',
            "id = 4",
            "case 1, id: expected a string, found 4.",
        ),
        ('id = "no-signal"', 'id = "digits-mlp"', "two cases have the id 'digits-mlp'."),
        (FULL[FULL.index("[defaults]") :], "case = [3]", "case 1: expected a table, found 3."),
        ('id = "no-signal"', 'id = "../etc"', "case 2 \"../etc\", id: expected letters"),
        ('{ name = "noise", n_train = 150 }', '"noise"', 'task: expected a table, found "noise".'),
        ('name = "noise", ', "", "case 2 \"no-signal\", task: missing key 'name'."),
        ("centered = true", "centered = 1", "model.centered: expected true or false, found 1."),
        ('"1/4"', '"1/0"', "model.init_scale: The multiplier '1/0' is not finite and positive."),
        ('"1/4"', "-0.5", "model.init_scale: expected a value greater than 0, found -0.5."),
        ('"rank_collapse"', '"rank"', "expect.mechanism: expected 'class_mean_alignment', 'rank_c"),
        ('kind = "sgd"', 'kind = "rmsprop"', "unknown kind 'rmsprop', expected 'sgd', 'adam', 'adamw'."),
        ("to = 3", "to = -11", "log2_c: 'to' = -11 is smaller than 'from' = -9."),
        ("step = 2", "step = 0", "log2_c.step: expected a value greater than or equal to 0.125"),
        (
            "axis = ",
            "adaptive = true\naxis = ",
            "case 1 \"digits-mlp\": give either log2_c = {...} or adaptive = true.",
        ),
        ("schema = 1\n", "schema = 2\n", "is written in suite schema 2, and this version reads 1."),
        ("schema = 1\n", "", "missing key 'schema'."),
        ('["arXiv:2602.00827"]', '"arXiv:2602.00827"', "sources: expected an array, found"),
        ("seeds = 10\n", "seeds 10\n", "is not valid TOML: Expected '=' after a key"),
        ("seeds = 10\n", "seeds 10\n", "at line 8"),
    ],
)  # fmt: skip
def test_a_wrong_suite_is_refused_with_the_place_and_the_fix(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    assert old in FULL
    said = problem(tmp_path, FULL.replace(old, new))
    assert expected in said
    assert "mine.toml" in said
    assert "\n" not in said


def test_all_problems_are_told_at_once_in_a_few_lines(tmp_path: Path) -> None:
    two = FULL.replace("version = 3", 'version = "3"').replace("depth = 4", "centred = 4")
    said = problem(tmp_path, two)
    assert "has 2 problems:" in said
    assert "version: expected a whole number" in said
    assert "did you mean 'centered'?" in said
    lines = problem(tmp_path, 'schema = 1\ncase = [{}, {}, 3, "x"]').splitlines()
    assert len(lines) == 5
    assert lines[-1].endswith("more not shown)")


@pytest.mark.parametrize(
    "text",
    ["", "case = []", "case = 3", "case = {}", "x = " + "[" * 5000, "n = " + "9" * 5000,
     MINIMAL.replace("seeds = 3", "seeds = 2024-01-01"), "schema = true", "schema = 1e999"],
)  # fmt: skip
def test_a_strange_file_gets_a_sentence_and_not_a_traceback(tmp_path: Path, text: str) -> None:
    assert problem(tmp_path, text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["case", "id", "task", "model", "name", "stop", "gate", "log2_c"]),
                inner,
                max_size=4,
            )
        ),
    )
)
def test_no_tree_of_values_escapes_the_wording_of_problems(
    tmp_path_factory: pytest.TempPathFactory, tree: Any
) -> None:
    path = tmp_path_factory.mktemp("suite") / "mine.toml"
    keys = ("defaults", "scale", "gate", "cost", "case")
    for key in keys:
        path.write_text(f"{key} = {as_toml(tree)}\n", encoding="utf-8")
        with pytest.raises(InputError):
            load_suite(path)


def as_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {as_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    return '"' + "".join(f"\\U{ord(letter):08X}" for letter in str(value)) + '"'


def test_arguments_that_are_no_keys_of_ours_are_left_to_the_task_and_the_net(
    tmp_path: Path,
) -> None:
    model = 'model = { name = "net", width = 5, initial = "x", scale = [1, 2] }, id = "a"'
    suite = loaded(tmp_path, MINIMAL.replace('id = "a"', model))
    assert suite.cases[0].model.arguments == {"width": 5, "initial": "x", "scale": [1, 2]}


def test_a_file_that_can_not_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_suite(tmp_path / "missing.toml")
    with pytest.raises(InputError, match="is a directory"):
        load_suite(tmp_path)
    with pytest.raises(InputError, match="is not a file"):
        load_suite("/dev/null")
    with pytest.raises(InputError, match="too long"):
        load_suite("x" * 300 + ".toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\x00\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        load_suite(str(tmp_path / "binary.toml"))


def test_an_unknown_name_is_answered_with_the_nearest_and_the_list() -> None:
    with pytest.raises(InputError) as caught:
        load_suite("quikc")
    assert caught.value.problem.endswith("'quikc', did you mean 'quick'?")
    assert "quick" in caught.value.remedy
    with pytest.raises(InputError, match=r"There is no suite named '\.\.'\. Suites are"):
        load_suite("..")


def test_every_suite_of_the_package_can_be_loaded_by_its_name() -> None:
    suites = list_suites()
    assert [suite.name for suite in suites] == sorted(
        path.stem for path in suite_folder().glob("*.toml")
    )
    for suite in suites:
        assert load_suite(suite.name) == suite
        assert suite.sources


def test_every_suite_says_its_purpose_cost_and_sources_and_has_a_negative_control() -> None:
    for path in suite_folder().glob("*.toml"):
        header = path.read_text(encoding="utf-8").split("schema =")[0]
        for word in ("Purpose", "Cost", "Sources"):
            assert f"# {word}" in header
        suite = load_suite(path)
        if suite.intervention is not None:  # its control is a row beside those that it is for
            assert any(row.misdirected for row in suite.intervention.rows)
            continue
        if (
            suite.theory or suite.atlas or suite.evaluation
        ):  # nothing there is called better or worse
            continue
        cases = suite.cases
        assert any(
            case.task.name == "noise"
            and case.expect is not None
            and case.expect.regime is Regime.INCONCLUSIVE
            for case in cases
        )


def gated(*names: str, seeds: int = 10) -> str:
    head = FULL[: FULL.index("[gate.test_error]")].replace("seeds = 10", f"seeds = {seeds}")
    gates = (f'[gate."{name}"]\nmin_effect = 0.1\nbetter = "unchanged"\n' for name in names)
    return head + "".join(gates)


def test_at_most_eight_metrics_are_gated_and_reaching_the_target_is_one_of_them(
    tmp_path: Path,
) -> None:
    names = [name for name in RUN_VALUES if name != REACHED]
    found = loaded(tmp_path, gated(*names[:7]))
    assert list(found.gates) == [REACHED, *names[:7]]
    with pytest.raises(InputError, match=r"9 metrics are gated .reached_target always is."):
        loaded(tmp_path, gated(*names[:8]))


def test_a_suite_whose_seeds_can_not_reach_its_level_is_refused(tmp_path: Path) -> None:
    """Two cases with five gates: ten tests, for which sign flips need nine pairs."""
    names = [name for name in RUN_VALUES if name != REACHED][:5]
    assert loaded(tmp_path, gated(*names, seeds=9)).seeds == 9
    with pytest.raises(InputError, match=r"8 can't decide 10 tests .* with 9 seeds"):
        loaded(tmp_path, gated(*names, seeds=8))


def test_exact_gates_take_no_share_of_the_level(tmp_path: Path) -> None:
    exact = "[gate.chance_error]\ntolerance = 1e-6\n"
    assert loaded(tmp_path, gated("test_error", seeds=7) + exact).seeds == 7


def test_ten_seeds_and_default_gates_are_what_a_suite_has_that_names_none(tmp_path: Path) -> None:
    found = loaded(tmp_path, MINIMAL.replace("seeds = 3\n", ""))
    assert found.seeds == 10
    assert list(found.gates) == [
        REACHED, "test_error", "test_loss", "epochs", "movement.relative",
        "agreement.nearest_class_mean",
    ]  # fmt: skip
    assert found.too_few_seeds is None
    assert "can't decide 5 tests" in str(loaded(tmp_path, MINIMAL).too_few_seeds)


def test_quick_judges_digits_the_mixture_and_a_negative_control() -> None:
    suite = load_suite("quick")
    digits, mixture, noise = suite.cases
    assert (digits.id, mixture.id, noise.id) == ("digits-mlp", "mixture-two-layer", "no-signal")
    assert digits.model.output_multiplier == 2**-4
    assert (mixture.axis, mixture.model.init_scale) == ("init_scale", 1.0)
    recipe = suite.recipe(mixture)
    assert (recipe.loss, recipe.batch_size) == ("logistic", mixture.task.arguments["n_train"])
    assert all(case.adaptive for case in suite.cases)


def test_an_installed_package_reads_its_own_copy_and_a_checkout_the_folder_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "fls_bench"
    package.mkdir()
    monkeypatch.setattr(fls_bench.files, "__file__", str(package / "files.py"))
    with pytest.raises(InputError, match="missing from this installation"):
        list_suites()
    (tmp_path / "suites").mkdir()
    assert suite_folder() == tmp_path / "suites"
    (package / "_data" / "suites").mkdir(parents=True)
    assert suite_folder() == package / "_data" / "suites"
    (package / "_data" / "suites" / "mine.toml").write_text(MINIMAL)
    assert load_suite("mine").name == "mine"
