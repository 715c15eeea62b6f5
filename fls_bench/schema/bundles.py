"""What a model file says of itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from fls_bench.schema.base import Frozen, PositiveFloat, Seed
from fls_bench.schema.recipes import Recipe
from fls_bench.schema.states import Outcome

BundleSchema = Literal["fls-bench/bundle/1", "fls-bench/bundle/2"]
"""2 added ``init_digest``."""
BUNDLE_SCHEMA: BundleSchema = "fls-bench/bundle/2"

MultiplierRoute = Literal["auto", "wrapper", "factory"]


class ArchitectureSpec(Frozen):
    """A built-in architecture by name with its arguments, or only a hint at a user's builder."""

    name: str | None = None
    """Name of a built-in architecture (see ``models.ARCHITECTURES``), or None."""
    arguments: dict[str, Any] = {}
    hint: str | None = None
    """``module:function`` of the user's builder: printed, never imported from the file."""


class TaskSpec(Frozen):
    """Data by name, or arrays embedded in the file."""

    name: str
    arguments: dict[str, Any] = {}
    seed: Seed = 0
    fingerprint: str | None = None
    n_train: int | None = None
    n_classes: int | None = None
    """K; None: one more than the largest training label."""
    embedded: bool = False


class BundleOutcome(Frozen):
    """How the file's author says that training ended (the loss is measured again by us)."""

    status: Outcome | None
    """None where a loop of the user's did not tell whether its stop held."""
    epochs: Annotated[int, Field(ge=0)]
    steps: Annotated[int, Field(ge=0)]
    train_loss: float | None


class BundleHeader(Frozen):
    """The JSON header of a model file; schema 1 had no ``init_digest``."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)
    schema_: Annotated[BundleSchema, Field(alias="schema")] = BUNDLE_SCHEMA
    architecture: ArchitectureSpec
    output_multiplier: PositiveFloat = 1.0
    init_scale: PositiveFloat = 1.0
    centered: bool = False
    multiplier_route: MultiplierRoute = "wrapper"
    recipe: Recipe | None = None
    no_recipe: str | None = None
    """Why there is no recipe, as it was found when the run was recorded."""
    outcome: BundleOutcome | None = None
    task: TaskSpec | None = None
    feature_layer: str | None = None
    init_digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """``bundle.state_digest`` of the initial weights: proves an init that is built from the seed."""
    versions: dict[str, str] = {}
