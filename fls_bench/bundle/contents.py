"""What a model file holds, and what must be true of it, whichever format it has."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, get_args

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from fls_bench.errors import InputError, UnsafeFileError
from fls_bench.schema import (
    BUNDLE_SCHEMA,
    Adam,
    AdamW,
    ArchitectureSpec,
    BundleHeader,
    BundleOutcome,
    BundleSchema,
    Cosine,
    LrRule,
    PerStep,
    Recipe,
    Sgd,
    StepDecay,
    Stop,
    TaskSpec,
)

MAX_HEADER_CHARACTERS = 1_000_000
MAX_NAME_CHARACTERS = 300
PART = 2**22
DATA_NAMES = tuple(f"{axis}_{split}" for split in ("train", "val", "test") for axis in "xy")
DTYPES = frozenset(
    {torch.float16, torch.bfloat16, torch.float32, torch.float64}
    | {torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool}
)
MAKE_ONE = "Give a model file written by `fls-bench train` or by fls_bench.save_bundle."
GIVE_ONE = (
    "Give the path of a model file: one written by `fls-bench train` or by fls_bench.save_bundle, or "
    "a checkpoint in the format of torch.save, Lightning or safetensors."
)


@dataclass(frozen=True)
class Bundle:
    """A model file that was read and checked."""

    path: Path
    sha256: str
    """Of the bytes that were read, in hex."""
    header: BundleHeader
    init: dict[str, Tensor] | None
    """The initial weights by name, or None."""
    final: dict[str, Tensor]
    """The trained weights by name."""
    data: dict[str, Tensor]
    """Embedded arrays, a subset of ``DATA_NAMES``; empty when the task is only named."""

    @property
    def num_parameters(self) -> int:
        """How many floating numbers the trained weights hold, floating buffers counted."""
        return sum(value.numel() for value in self.final.values() if value.is_floating_point())


def listed(names: Iterable[object], limit: int = 5) -> str:
    """Names in quotes, shortened and with control characters escaped, with how many are left."""
    shown = [repr(str(name)[:MAX_NAME_CHARACTERS]) for name in names]
    more = f" and {len(shown) - limit} more" if len(shown) > limit else ""
    return ", ".join(shown[:limit]) + more


# --- header -----------------------------------------------------------------------------------

_MODELS = (
    BundleHeader, ArchitectureSpec, Recipe, Sgd, Adam, AdamW, Cosine, StepDecay, PerStep, LrRule,
    BundleOutcome, TaskSpec,
)  # fmt: skip
_HEADER_KEYS = sorted(
    {"schema"}
    | {
        key
        for model in (*_MODELS, *get_args(Stop))
        for key in model.model_fields
        if key != "schema_"
    }
)


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:40]} is not a finite number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_number(text)


def _unprintable(value: Any) -> bool:
    """Whether a string in a JSON value could move a cursor or break an encoding when shown."""
    match value:
        case str():
            return not value.isprintable()
        case list():
            return any(map(_unprintable, value))
        case dict():
            return any(map(_unprintable, value)) or any(map(_unprintable, value.values()))
    return False


def parse_header(label: str, text: str) -> BundleHeader:
    """Parse and check the JSON header of a model file.

    Args:
        label: What messages call the file.
        text: The header.

    Returns:
        The checked header.

    Raises:
        InputError: Not JSON, nested without end, unknown or missing keys, wrong types, another
            schema.
        UnsafeFileError: The architecture is a path to code instead of a built-in name.
    """
    if len(text) > MAX_HEADER_CHARACTERS:
        raise InputError(
            f"The header of {label} has {len(text):,} characters; the limit is "
            f"{MAX_HEADER_CHARACTERS:,}.",
            MAKE_ONE,
        )
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_refuse_number)
        unprintable = _unprintable(value)
    except (ValueError, RecursionError) as error:
        why = str(error)[:120] if isinstance(error, ValueError) else "nested too deeply"
        raise InputError(f"The header of {label} is not valid JSON: {why}.", MAKE_ONE) from None
    if unprintable:
        raise InputError(
            f"The header of {label} holds a string with control or other unprintable characters.",
            MAKE_ONE,
        )
    _check_schema(label, value)
    try:
        header = BundleHeader.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise _header_error(label, error) from None
    except (ValueError, RecursionError):
        raise InputError(f"The header of {label} can't be read.", MAKE_ONE) from None
    _check_names(label, header)
    return header


def _check_schema(label: str, value: object) -> None:
    schema = value.get("schema") if isinstance(value, dict) else None
    if schema in get_args(BundleSchema):
        return
    family = (
        re.fullmatch(r"fls-bench/bundle/(\d{1,6})", schema) if isinstance(schema, str) else None
    )
    if family and int(family[1]) > int(BUNDLE_SCHEMA.rpartition("/")[2]):
        raise InputError(
            f"{label} was written by a newer fls-bench: it has schema {family[1]}, and this "
            f"version reads up to {BUNDLE_SCHEMA!r}.",
            "Upgrade with `pip install --upgrade fls-bench`.",
        )
    found = f"schema {str(schema)[:80]!r}" if schema is not None else "no key 'schema'"
    raise InputError(
        f"The header of {label} has {found}, where {BUNDLE_SCHEMA!r} is needed.", MAKE_ONE
    )


def _header_error(label: str, error: ValidationError) -> InputError:
    parts, suggestions = [], []
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        place = ".".join(str(part) for part in item["loc"])[:MAX_NAME_CHARACTERS]
        if item["type"] == "extra_forbidden":
            parts.append(f"unknown key {place!r}")
            suggestions += get_close_matches(str(item["loc"][-1])[:80], _HEADER_KEYS, 1)
        elif item["type"] == "missing":
            parts.append(f"missing key {place!r}")
        else:
            parts.append(f"{place!r}: {item['msg'][:1].lower()}{item['msg'][1:120]}")
    more = f" and {len(parts) - 3} more" if len(parts) > 3 else ""
    nearest = f"The nearest known key is {listed(dict.fromkeys(suggestions))}. "
    return InputError(
        f"The header of {label} does not follow its schema: {'; '.join(parts[:3])}{more}.",
        (nearest if suggestions else "") + MAKE_ONE,
    )


def is_path(name: str) -> bool:
    """Whether a name looks like a path to code or to a file, which no built-in name does."""
    return re.search(r"[:./\\]", name) is not None


def _check_names(label: str, header: BundleHeader) -> None:
    name, task = header.architecture.name, header.task
    if name is not None and is_path(name):
        raise UnsafeFileError(
            f"{label} names {name[:80]!r} as its architecture, which is code to import; a model "
            "file may name only built-in nets, and nothing was imported.",
            "If the net is yours, save it with builder_hint='module:function' in place of an "
            "architecture, and repeat that hint on the command line with --model module:function.",
        )
    if task is not None and not task.embedded and is_path(task.name):
        raise InputError(
            f"{label} names the file {task.name[:80]!r} as its data; a model file may name only "
            "built-in tasks, and no other file was opened.",
            "Save it again with fls_bench.save_bundle, which embeds the data of any other task.",
        )


# --- tensors ----------------------------------------------------------------------------------


def check_contents(
    label: str,
    header: BundleHeader,
    *,
    init: Mapping[str, Tensor] | None,
    final: Mapping[str, Tensor],
    data: Mapping[str, Tensor],
) -> None:
    """Check that tensors are plain and finite, and fit the header and each other.

    Args:
        label: What messages call the file.
        header: The checked header.
        init: Initial weights by name, or None.
        final: Trained weights by name.
        data: Embedded arrays by name.

    Raises:
        InputError: Any of it does not hold; the message names the tensors.
    """
    groups = {"final": final, "init": init or {}, "data": data}
    for group, tensors in groups.items():
        for name, value in tensors.items():
            if len(name) > MAX_NAME_CHARACTERS or not name.isprintable():
                raise InputError(
                    f"{label} has a tensor whose name is too long or unprintable: "
                    f"{listed([name])}.",
                    MAKE_ONE,
                )
            check_tensor(f"{label}: the tensor '{group}/{name}'", group, value)
    if not final:
        raise InputError(f"{label} holds no trained weights.", MAKE_ONE)
    expected = {name: tuple(value.shape) for name, value in final.items()}
    if header.architecture.name is not None:
        from fls_bench import models

        expected = models.state_shapes(header.architecture.name, header.architecture.arguments)
        described = f"the net {header.architecture.name!r} of its header"
        _check_names_and_shapes(f"{label}: the trained weights", final, expected, described)
    if init is not None:
        _check_names_and_shapes(f"{label}: the initial weights", init, expected, "the trained net")
    elif header.centered:
        raise InputError(
            f"{label} says that its net is centered, c·(f - f_0), but holds no initial weights to "
            "compute f_0.",
            "Save it again with initial_state=, a copy of the state dict before training.",
        )
    _check_data(label, header.task, data)


def check_tensor(label: str, group: str, value: Tensor) -> None:
    """Check that a tensor is a plain, finite, non-empty array of a known number type.

    Args:
        label: What messages call it.
        group: ``data``, or what weights it is one of.
        value: The tensor.

    Raises:
        InputError: It is not.
    """
    plain = (
        type(value) in (Tensor, nn.Parameter)
        and value.layout is torch.strided
        and not value.is_quantized
        and not value.is_nested
        and value.device.type != "meta"
    )
    if not plain or value.dtype not in DTYPES:
        described = (type(value).__name__, value.layout, value.dtype, value.device.type)
        kind = ", ".join(str(part).removeprefix("torch.") for part in described)
        raise InputError(
            f"{label} is not a plain array of floating or whole numbers ({kind}).",
            "Convert it, with .float() or .to_dense() for instance, and save the file again.",
        )
    if value.numel() == 0:
        raise InputError(
            f"{label} is empty: its shape is {tuple(value.shape)}.",
            "A layer of size zero can't be judged; give every layer at least one unit.",
        )
    # The extremes of what holds NaN are NaN: one pass, and no memory, where all is well.
    if value.is_floating_point() and not all(
        bool(end.isfinite()) for end in torch.aminmax(value.detach())
    ):
        # By parts: the search takes twice the memory of what it searches.
        bad = sum(
            part.numel() - int(torch.isfinite(part).sum())
            for part in torch.split(value.reshape(-1), PART)
        )
        if bad:
            raise InputError(
                f"{label} holds NaN or infinite values ({bad:,} of {value.numel():,}).",
                "Remove or fill them before saving."
                if group == "data"
                else "Training probably diverged: lower the learning rate, or save the weights "
                "from before that.",
            )


def _check_names_and_shapes(
    what: str, tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], of: str
) -> None:
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    wrong = [
        f"{name!r} has shape {tuple(tensors[name].shape)}, not {shape}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    nearest = list(
        dict.fromkeys(
            match
            for name in unexpected[:5]
            for match in get_close_matches(name[:MAX_NAME_CHARACTERS], list(expected)[:200], 1)
        )
    )
    parts = [
        f"missing {listed(missing)}" if missing else "",
        f"unexpected {listed(unexpected)}" if unexpected else "",
        f"nearest known {listed(nearest)}" if nearest else "",
        "; ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""),
    ]
    if missing or unexpected or wrong:
        raise InputError(
            f"{what} do not fit {of}: {'; '.join(part for part in parts if part)}.",
            "Save the weights together with the architecture that they belong to.",
        )


def _check_data(label: str, task: TaskSpec | None, data: Mapping[str, Tensor]) -> None:
    again = "Save the file again with task=, the task that the net was trained on."
    embedded = task is not None and task.embedded
    if data and not embedded:
        raise InputError(
            f"{label} holds data of which its header says nothing: {listed(data)}.", again
        )
    if embedded and not data:
        raise InputError(f"{label} says that it embeds its data, and holds none.", again)
    if not data or task is None:
        return
    if unknown := [name for name in data if name not in DATA_NAMES]:
        raise InputError(f"{label} embeds data named {listed(unknown)}.", again)
    for split in ("train", "val", "test"):
        x, y = data.get(f"x_{split}"), data.get(f"y_{split}")
        if x is None and y is None and split != "train":
            continue
        if x is None or y is None or x.ndim < 2 or y.ndim != 1 or len(x) != len(y):
            shapes = [None if part is None else tuple(part.shape) for part in (x, y)]
            raise InputError(
                f"{label} embeds {split} data that do not belong together: x has shape "
                f"{shapes[0]} and y {shapes[1]}, where [n, ...] and [n] are needed.",
                again,
            )
    if task.n_train is not None and task.n_train != len(data["x_train"]):
        raise InputError(
            f"{label} says that it was trained on {task.n_train} samples, and embeds "
            f"{len(data['x_train'])}.",
            again,
        )
