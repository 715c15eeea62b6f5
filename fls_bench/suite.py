"""Suites: files of cases in TOML, plain data, each with its cost and sources (suite schema 1)."""

from __future__ import annotations

import difflib
import itertools
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from fls_bench import gates, scaling
from fls_bench.errors import InputError
from fls_bench.files import packaged
from fls_bench.schema import (
    Adam,
    AdamW,
    Augmentation,
    Axis,
    Frozen,
    Gate,
    LabelSmoothing,
    Loss,
    PositiveFloat,
    RankMeasure,
    RankPenalty,
    Recipe,
    Regime,
    Seed,
    Sgd,
    StopByKey,
    TargetLoss,
    TheorySpec,
    canonical_digest,
)

SUITE_SCHEMA = 1

MAX_CASES = 1000
"""Most cases of a suite, those that ``vary`` makes counted."""

Scale = Literal["small", "full"]
SweptClaim = Literal["C1", "C2", "C3", "C4"]
"""Claims that are judged from sweeps; C5 and C6 from gradient flow."""

_SHOWN_PROBLEMS = 4
_REMEDY = "Correct the file and try again."


def _number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return scaling.parse_multiplier(value)
    except InputError as error:
        raise ValueError(error.problem.rstrip(".")) from error


def _kind_of_optimizer(value: Any) -> str:
    kind = value.get("kind", "sgd") if isinstance(value, Mapping) else getattr(value, "kind", "sgd")
    return f"({kind})"


OptimizerTable = Annotated[
    Annotated[Sgd, Tag("(sgd)")]
    | Annotated[Adam, Tag("(adam)")]
    | Annotated[AdamW, Tag("(adamw)")],
    Discriminator(_kind_of_optimizer),
]
Multiplier = Annotated[float, BeforeValidator(_number), Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Mechanism = Literal[
    "class_mean_alignment", "rank_collapse", "initial_function_noise", "lazy", "undetermined"
]


class _Named(Frozen):
    name: Annotated[str, Field(min_length=1)]
    arguments: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _gather_arguments(cls, table: Any) -> Any:
        if not isinstance(table, dict) or "arguments" in table:
            return table
        own = {key: value for key, value in table.items() if key in cls.model_fields}
        rest = {key: value for key, value in table.items() if key not in cls.model_fields}
        # What an argument may be called is for the task or the net to say, but one that is nearly
        # the name of a key of ours would otherwise be lost in the call of a net of the user's.
        for key in rest:
            if near := difflib.get_close_matches(key, cls.model_fields, n=1, cutoff=0.87):
                raise ValueError(f"unknown key {key!r}, did you mean {near[0]!r}?")
        return {**own, "arguments": rest}


class SuiteTask(_Named):
    """A task by name; every other key of its table is an argument of the task."""


class SuiteModel(_Named):
    """A built-in net by name, its multiplier and init scale; other keys are the net's arguments."""

    name: Annotated[str, Field(min_length=1)] = "mlp"
    output_multiplier: Multiplier = 1.0
    init_scale: Multiplier = 1.0
    centered: bool = False


class Log2Grid(Frozen):
    """A fixed grid over log2 of the swept axis, both ends included where the step meets them."""

    from_: Annotated[float, Field(alias="from", ge=-60, le=60)]
    to: Annotated[float, Field(ge=-60, le=60)]
    step: Annotated[float, Field(ge=0.125)]

    @model_validator(mode="after")
    def _ordered(self) -> Log2Grid:
        if self.to < self.from_:
            raise ValueError(f"'to' = {self.to:g} is smaller than 'from' = {self.from_:g}")
        return self

    @property
    def values(self) -> tuple[float, ...]:
        """The values 2^from, 2^(from + step), ..., up to 2^to."""
        num_steps = int((self.to - self.from_) / self.step + 1e-9)
        return tuple(2.0 ** (self.from_ + k * self.step) for k in range(num_steps + 1))


class Expect(Frozen):
    """What a case should be judged to be."""

    regime: Regime
    mechanism: Mechanism | None = None


class Defaults(Frozen):
    """The recipe of every case that doesn't say otherwise."""

    optimizer: OptimizerTable = Sgd()
    stop: StopByKey = TargetLoss()
    loss: Loss = "cross_entropy"
    label_smoothing: LabelSmoothing | None = None
    augmentation: tuple[Augmentation, ...] | None = None
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 25


class RowSpec(Frozen):
    """Nets trained under the same penalties on their ranks, at one c or at both."""

    name: Annotated[str, Field(min_length=1)]
    at: Annotated[tuple[Literal["low", "star"], ...], Field(min_length=1)] = ("low",)
    penalties: Annotated[tuple[RankPenalty, ...], Field(min_length=1)]
    """``hold`` aims at the ranks of the same seed's plain net at c*, ``lower`` at those at ``c_low``."""
    misdirected: bool = False
    """A control: the penalties' gradient goes to other weights."""


class InterventionSpec(Frozen):
    """What a suite of interventions on ranks does in each of its cases, fixed in advance."""

    measure: RankMeasure = "nuclear"
    first_seed: Seed = 5000
    """Apart from the seeds on which the penalties were chosen."""
    rows: Annotated[tuple[RowSpec, ...], Field(alias="row", min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> InterventionSpec:
        alike = [(row.penalties, row.misdirected, at) for row in self.rows for at in row.at]
        if len(set(alike)) < len(alike):
            raise ValueError("two rows have the same penalties at the same c")
        return self


class Case(Frozen):
    """One training setup to judge. Exactly one of ``log2_c``, ``adaptive`` and ``c_low`` holds."""

    id: Name
    task: SuiteTask
    model: SuiteModel = SuiteModel()
    axis: Axis = "output_multiplier"
    log2_c: Log2Grid | None = None
    """A fixed grid on ``axis``; None where the sweep chooses its own."""
    adaptive: bool = True
    c_low: Multiplier | None = None
    """In a suite of interventions: the small c, beside c* = the model's ``output_multiplier``."""
    optimizer: OptimizerTable | None = None
    stop: StopByKey | None = None
    loss: Loss | None = None
    label_smoothing: LabelSmoothing | None = None
    augmentation: tuple[Augmentation, ...] | None = None
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    lr_rule: Literal["plain"] | None = None
    """The authors' eta/c on all parameters; None: the rule that the net allows."""
    expect: Expect | None = None
    family: Name | None = None
    """Cases that are judged together by the suite's claim."""
    difficulty: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Where a case of claim C2 stands on its family's ladder."""
    seeds: Annotated[int, Field(ge=3, le=1000)] | None = None
    """In place of the suite's."""
    beside: Literal[True] | None = None
    """Shown beside the claim, which it does not decide."""
    needs_gpu: Literal[True] | None = None
    """Without a GPU the case is listed as not run."""

    @model_validator(mode="before")
    @classmethod
    def _one_kind_of_sweep(cls, table: Any) -> Any:
        if not isinstance(table, dict):
            return table
        if "c_low" in table:
            if {"log2_c", "adaptive", "axis", "expect"} & set(table):
                raise ValueError("c_low goes with no log2_c, adaptive, axis or expect")
            return {**table, "adaptive": False}
        adaptive = table.get("adaptive", "log2_c" not in table)
        if adaptive is ("log2_c" in table):
            raise ValueError("give either log2_c = {...} or adaptive = true")
        return {**table, "adaptive": adaptive}

    @model_validator(mode="after")
    def _ordered(self) -> Case:
        if self.c_low is not None and not self.c_low < self.model.output_multiplier:
            raise ValueError("c_low is not smaller than the model's output_multiplier")
        return self


class SuiteCost(Frozen):
    """What a whole run of the suite takes on two CPU cores."""

    seconds: PositiveFloat
    memory_mb: PositiveFloat


class ScaleSpec(Frozen):
    """What a smaller run of a suite keeps of it."""

    seeds: Annotated[int, Field(ge=3, le=1000)] | None = None
    cases: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    """Ids of cases and names of families; None: all."""
    log2_c: Log2Grid | None = None
    """In place of every case's own grid."""
    theory: TheorySpec | None = None
    """In place of the suite's."""
    cost: SuiteCost | None = None


class Suite(Frozen):
    """A suite file, schema 1."""

    model_config = ConfigDict(serialize_by_alias=True)
    schema_: Annotated[Literal[1], Field(alias="schema")]
    name: Name
    version: Annotated[int, Field(ge=1)]
    title: str | None = None
    cost: SuiteCost
    sources: tuple[str, ...]
    seeds: Annotated[int, Field(ge=3, le=1000)] = 10
    defaults: Defaults = Defaults()
    intervention: InterventionSpec | None = None
    """In place of a sweep: what is done to the ranks of hidden layers, in every case."""
    claim: SweptClaim | None = None
    """The claim of the paper that the cases' sweeps are judged for, beside each case's own verdict."""
    theory: TheorySpec | None = None
    """In place of a sweep: gradient flow over alpha of the suite's one case, for claims C5 and C6."""
    cases: Annotated[tuple[Case, ...], Field(alias="case", min_length=1)]
    scale: dict[Scale, ScaleSpec] = Field(default_factory=dict)
    gate: dict[str, Gate] = Field(default_factory=dict)
    """Metric of a run -> when ``check`` calls its change a regression."""

    @model_validator(mode="after")
    def _distinct_ids(self) -> Suite:
        ids = [case.id for case in self.cases]
        for twice in sorted({id_ for id_ in ids if ids.count(id_) > 1}):
            raise ValueError(f"two cases have the id {twice!r}")
        for case in self.cases:
            if (case.c_low is None) is (self.intervention is not None):
                with_it = "with" if self.intervention is not None else "without"
                raise ValueError(
                    f"case {case.id!r}: a suite {with_it} [intervention] has cases {with_it} c_low"
                )
        return self

    @model_validator(mode="after")
    def _claim_has_what_it_needs(self) -> Suite:
        keys = ("family", "difficulty", "seeds", "beside", "needs_gpu")
        for case in self.cases:
            told = [key for key in keys if getattr(case, key) is not None]
            if told and self.claim is None:
                raise ValueError(f"case {case.id!r}: {told[0]} goes with a suite that has a claim")
            if self.claim is not None and case.log2_c is None:
                raise ValueError(f"case {case.id!r}: a suite with a claim has cases with log2_c")
            if self.claim == "C2" and case.difficulty is None and case.expect is None:
                raise ValueError(f"case {case.id!r}: claim C2 needs the case's difficulty")
        kinds = (self.claim, self.intervention, self.theory)
        if sum(kind is not None for kind in kinds) > 1:
            raise ValueError("a suite has one of claim, [intervention] and [theory]")
        if self.theory is not None and (len(self.cases) > 1 or self.cases[0].log2_c is not None):
            raise ValueError("a suite with [theory] has one case, and no log2_c")
        known = {case.id for case in self.cases} | {case.family for case in self.cases}
        for name, scale in self.scale.items():
            for chosen in scale.cases or ():
                if chosen not in known:
                    near = _did_you_mean(chosen, sorted(one for one in known if one))
                    raise ValueError(f"scale.{name}: no case or family {chosen!r}{near}")
        return self

    @model_validator(mode="after")
    def _gates_can_decide(self) -> Suite:
        if not self.gate:
            return self
        if self.intervention is not None:
            raise ValueError("a suite of interventions has no runs at a setup's own c to gate")
        for name in sorted(set(self.gate) - set(gates.RUN_VALUES)):
            raise ValueError(
                f"gate: unknown metric {name!r}{_did_you_mean(name, gates.RUN_VALUES)}"
            )
        chosen = self.gates
        if len(chosen) > gates.MAX_GATES:
            raise ValueError(
                f"gate: {len(chosen)} metrics are gated ({gates.REACHED} always is), and at most "
                f"{gates.MAX_GATES} can be"
            )
        if too_few := self.too_few_seeds:
            raise ValueError(too_few)
        return self

    def at_scale(self, scale: Scale) -> Suite:
        """The suite as it is run at a scale.

        Args:
            scale: ``full`` is the suite as it stands; ``small`` what ``[scale.small]`` keeps of it,
                under a name of its own, so that baselines of both can lie side by side.

        Returns:
            A suite without scales.

        Raises:
            InputError: It has no such scale.
        """
        spec = self.scale.get(scale, ScaleSpec() if scale == "full" else None)
        if spec is None:
            raise InputError(
                f"The suite {self.name} has no scale {scale}.",
                f"Leave --scale out, or add a table [scale.{scale}] to its file.",
            )
        chosen = set(spec.cases or ())
        cases = [k for k in self.cases if not chosen or {k.id, k.family} & chosen]
        if spec.seeds is not None:
            cases = [k.model_copy(update={"seeds": None}) for k in cases]
        if spec.log2_c is not None:
            cases = [k.model_copy(update={"log2_c": spec.log2_c}) for k in cases]
        return self.model_copy(
            update={
                "name": self.name if scale == "full" else f"{self.name}-{scale}",
                "seeds": spec.seeds or self.seeds,
                "cases": tuple(cases),
                "theory": spec.theory or self.theory,
                "cost": spec.cost or self.cost,
                "scale": {},
            }
        )

    @property
    def too_few_seeds(self) -> str | None:
        """Why its seeds can't decide its gates, or None."""
        tests, needed = (
            count(self.gates, len(self.cases)) for count in (gates.num_tests, gates.seeds_for)
        )
        if self.seeds >= needed:
            return None
        return (
            f"seeds = {self.seeds} can't decide {tests} tests ({len(self.cases)} cases): sign flips "
            f"reach the level {gates.LEVEL:g}/{max(1, tests)} with {needed} seeds, so raise seeds, or "
            "gate fewer metrics"
        )

    @property
    def gates(self) -> dict[str, Gate]:
        """What ``check`` judges: the suite's own choice, or the default."""
        return gates.gates_of(self.gate)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the parsed suite without title, cost and sources.

        Keys that have no value are left out as well, so that a later optional key changes no
        digest of a suite that doesn't use it.
        """
        without = {"title", "cost", "sources"}
        return canonical_digest(self.model_dump(mode="json", exclude=without, exclude_none=True))

    def recipe(self, case: Case) -> Recipe:
        """How the nets of a case are trained: its own keys, the defaults elsewhere.

        Args:
            case: One of ``cases``.

        Returns:
            The recipe; its seeds are left at zero.
        """
        keys = Defaults.model_fields
        own = {key: value for key in keys if (value := getattr(case, key)) is not None}
        shared = {key: getattr(self.defaults, key) for key in keys}
        if case.lr_rule is not None:
            own["lr_rule"] = scaling.PLAIN
        return Recipe(**{k: v for k, v in (shared | own).items() if v is not None})


def suite_folder() -> Path:
    """The folder of the suites that come with the package.

    Returns:
        ``_data/suites`` inside an installed package, else ``suites`` beside the source tree.

    Raises:
        InputError: Neither is there.
    """
    folder = packaged("suites")
    if folder is not None:
        return folder
    raise InputError(
        "The suites that come with fls-bench are missing from this installation.",
        "Install fls-bench again, or give the path of a suite file.",
    )


def list_suites() -> list[Suite]:
    """All suites that come with the package, by name.

    Raises:
        InputError: One of the files can't be used.
    """
    return [_read(path) for path in sorted(suite_folder().glob("*.toml"))]


def load_suite(name_or_path: str | Path) -> Suite:
    """Read one suite.

    Args:
        name_or_path: The name of a suite of the package, or the path of a file: whatever is a
            ``Path``, ends in ``.toml`` or holds a slash.

    Returns:
        The suite.

    Raises:
        InputError: There is no such suite, or the file can't be read or used; the message names
            the place in the file.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".toml") or "/" in text:
        return _read(Path(name_or_path))
    known = {path.stem: path for path in sorted(suite_folder().glob("*.toml"))}
    if text not in known:
        raise InputError(
            f"There is no suite named {text!r}{_did_you_mean(text, known)}",
            f"Suites are {', '.join(known)}; for your own, give the path of a .toml file.",
        )
    return _read(known[text])


def load_at_scale(name_or_path: str | Path, scale: str) -> Suite:
    """Read one suite as it is run at a scale.

    Args:
        name_or_path: As for :func:`load_suite`.
        scale: ``small`` or ``full``.

    Returns:
        The suite.

    Raises:
        InputError: There is no such suite or scale, or the file can't be used.
    """
    if scale not in get_args(Scale):
        raise InputError(
            f"There is no scale {scale!r}{_did_you_mean(scale, get_args(Scale))}",
            "Give --scale small or --scale full.",
        )
    return load_suite(name_or_path).at_scale("small" if scale == "small" else "full")


def _read(path: Path) -> Suite:
    try:
        if path.exists() and not path.is_file():
            what = "a directory" if path.is_dir() else "not a file"
            raise InputError(f"{path} is {what}.", "Give the path of a suite file.")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"The suite file {path} can't be read: {error.strerror}.",
            "Check the path; fls-bench suites lists the names that need none.",
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is not a text file in UTF-8.", "Give a suite file.") from error
    try:
        tree = tomllib.loads(text, parse_float=_finite)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}.", _REMEDY) from error
    except (ValueError, RecursionError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"{path} can't be used as a suite: {what}.", _REMEDY) from error
    found = tree.get("schema", SUITE_SCHEMA)
    if isinstance(found, int) and found != SUITE_SCHEMA:
        raise InputError(
            f"{path} is written in suite schema {found}, and this version reads {SUITE_SCHEMA}.",
            "Update fls-bench, or write the suite in the older schema.",
        )
    try:
        tree = _expanded(tree)
    except ValueError as error:
        raise InputError(f"{path}: {error}.", _REMEDY) from error
    try:
        # JSON's strict mode knows arrays and names of choices, and still turns no "4" into a 4.
        return Suite.model_validate_json(json.dumps(tree, default=str), strict=True)
    except ValidationError as error:
        raise InputError(_problem(path, tree, error), _REMEDY) from error


def _expanded(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree with a case for every combination of what a case's ``vary`` lists.

    ``vary = { "model.width" = [16, 64], "task.n_train" = [10, 20] }`` makes four cases, whose ids end
    in ``-width16-n_train10`` and so on, all of one family.

    Raises:
        ValueError: ``vary`` is no table of lists, or makes too many cases.
    """
    cases = tree.get("case")
    if not isinstance(cases, list):
        return tree
    made: list[Any] = []
    for case in cases:
        if not (isinstance(case, dict) and "vary" in case):
            made.append(case)
            continue
        name, vary = case.get("id"), case["vary"]
        lists = vary.values() if isinstance(vary, dict) and vary else [None]
        if not all(isinstance(one, list) and one for one in lists):
            raise ValueError(
                f'case {name!r}: vary is a table of lists, such as {{ "task.n_train" = [10, 20] }}'
            )
        rest = {key: value for key, value in case.items() if key != "vary"}
        for values in itertools.islice(itertools.product(*lists), MAX_CASES + 1):
            one = {"family": name, **rest}
            for place, value in zip(vary, values, strict=True):
                table, _, key = place.rpartition(".")
                if not table:
                    one[key] = value
                    continue
                if not isinstance(one.get(table, {}), dict):
                    raise ValueError(
                        f"case {name!r}: vary names {place!r}, and {table!r} is no table"
                    )
                one[table] = {**one.get(table, {}), key: value}
            shown = []
            for place, value in zip(vary, values, strict=True):
                # A table, such as a stop, is known by its first key.
                key, told = (place, value) if not isinstance(value, dict) else next(
                    iter(value.items()), (place, "")
                )  # fmt: skip
                leaf = key.rpartition(".")[2]
                shown.append(f"{'' if leaf == 'name' else leaf}{told}")
            one["id"] = "-".join([str(name), *shown]).replace(".", "_")
            made.append(one)
    if len(made) > MAX_CASES:
        raise ValueError(f"there are more than {MAX_CASES} cases")
    return {**tree, "case": made}


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise ValueError(f"{text} is not a finite number")
    return value


# --- what is wrong, in words ----------------------------------------------------------------


def _problem(path: Path, tree: Mapping[str, Any], error: ValidationError) -> str:
    lines = list(dict.fromkeys(_sentences(tree, error)))
    if len(lines) == 1:
        return f"{path}: {lines[0]}"
    shown = lines[:_SHOWN_PROBLEMS]
    if rest := len(lines) - len(shown):
        shown[-1] += f" ({rest} more not shown)"
    return "\n".join([f"{path} has {len(lines)} problems:", *shown])


def _sentences(tree: Mapping[str, Any], error: ValidationError) -> Iterator[str]:
    for one in error.errors():
        place, value, kind = one["loc"], one["input"], one["type"]
        if kind == "extra_forbidden":
            place, key = place[:-1], str(place[-1])
            known = _keys_at(place)
            text = (
                f"key {key!r} does not go with the other keys here."
                if key in known
                else f"unknown key {key!r}{_did_you_mean(key, known)}"
            )
        elif kind == "missing":
            place, text = place[:-1], f"missing key {str(place[-1])!r}."
        elif kind == "value_error":
            text = str(one["ctx"]["error"])
            text += "" if text.endswith("?") else "."
        elif kind == "union_tag_invalid":
            tags = one["ctx"]["expected_tags"].replace("(", "").replace(")", "")
            text = f"unknown kind {one['ctx']['tag'].strip('()')!r}, expected {tags}."
        elif kind == "too_short" and value:
            continue  # Its cases are there: each has a problem of its own, in a line of its own.
        elif kind == "too_short":
            text = "expected at least one."
        elif kind == "json_invalid":
            text = "it is nested too deeply."
        elif kind == "string_pattern_mismatch":
            text = f"expected letters, digits, '-' and '_' only, found {_shown(value)}."
        elif place[-1] == "[key]":
            place, expected = place[:-2], one["msg"].removeprefix("Input should be ")
            text = f"unknown key {value!r}, expected {expected}."
        else:
            expected = one["msg"].removeprefix("Input should be ").replace("a valid ", "a ")
            for json_word, toml_word in (
                ("an object", "a table"),
                ("a array", "an array"),
                ("a integer", "a whole number"),
                ("a boolean", "true or false"),
                ("greater than", "a value greater than"),
                ("less than", "a value less than"),
            ):
                expected = expected.replace(json_word, toml_word)
            text = f"expected {expected}, found {_shown(value)}."
        where = _place(tree, place)
        yield f"{where}: {text}" if where else text


def _keys_at(place: Iterable[int | str]) -> list[str]:
    models: list[type[Frozen]] = [Suite]
    for part in place:
        fields = _fields(models)
        # Other parts are positions in an array, free keys of a table, or tags of a choice.
        if isinstance(part, str) and part in fields:
            models = [model for annotation in fields[part] for model in _models_in(annotation)]
    return list(_fields(models))


def _fields(models: Iterable[type[Frozen]]) -> dict[str, list[Any]]:
    fields: dict[str, list[Any]] = {}
    for model in models:
        for name, field in model.model_fields.items():
            fields.setdefault(field.alias or name, []).append(field.annotation)
    return fields


def _models_in(annotation: Any) -> Iterator[type[Frozen]]:
    if isinstance(annotation, type) and issubclass(annotation, Frozen):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _place(tree: Mapping[str, Any], place: tuple[int | str, ...]) -> str:
    parts = [part for part in place if not str(part).startswith("(")]  # no tags of a choice
    if parts[:1] == ["case"] and len(parts) > 1 and isinstance(parts[1], int):
        case = tree["case"][parts[1]]
        id_ = case.get("id") if isinstance(case, dict) else None
        first = f"case {parts[1] + 1}" + (f' "{id_}"' if isinstance(id_, str) else "")
        return ", ".join([first, *[".".join(map(str, parts[2:]))] * (len(parts) > 2)])
    return ".".join(str(part + 1) if isinstance(part, int) else part for part in parts)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, [*known], n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else "."
