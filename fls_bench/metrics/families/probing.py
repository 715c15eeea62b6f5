"""Probes of the inputs, of the first and the last hidden layer, and of the last one at init."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from fls_bench.metrics.metric import (
    OF_THE_FUNCTION,
    UNTIED_TO_SCALE,
    Invariance,
    Metric,
    Need,
    Reading,
)
from fls_bench.metrics.probes import (
    MAX_WIDTH,
    Prepared,
    Probe,
    Split,
    few_shot_probe,
    input_components,
    linear_probe,
    neighbour_probe,
    prepared,
    recovery_probe,
    ridge_probe,
)
from fls_bench.metrics.snapshot import SPLITS, NetState, Snapshot, SplitName

MAX_POINTS = 1000
"""Probes are fitted on, and chosen by, at most so many points; the test points are all used."""
_NO_INITIAL = "The initial features of this layer are missing."


def read_linear_probes(snapshot: Snapshot, generator: torch.Generator) -> Iterator[Reading]:
    """Linear probes, to be read beside the net's own test error; also of the first hidden layer.

    The difference first minus last is information that the later layers lost. It is positive on both
    sides: at strong feature learning later layers lose rank, at weak feature learning they are still
    near their random init; so it points to neither side alone. Nor do probes of the last features:
    like the net's own accuracy they are best inside the range of c.
    """
    yield from _read(snapshot, generator, "linear", linear_probe, "probe.first_minus_last")


def read_ridge_probes(snapshot: Snapshot, generator: torch.Generator) -> Iterator[Reading]:
    """As ``read_linear_probes``, by ridge regression on the labels: in a fraction of the time."""
    difference = "probe.ridge_first_minus_last"
    yield from _read(snapshot, generator, "ridge", ridge_probe, difference)


def read_neighbour_probes(snapshot: Snapshot, generator: torch.Generator) -> Iterator[Reading]:
    """Votes of the nearest training points."""
    yield from _read(snapshot, generator, "neighbours", neighbour_probe)


def read_few_shot_probes(snapshot: Snapshot, generator: torch.Generator) -> Iterator[Reading]:
    """Nearest means of a few points per class: the same points for all features that are compared."""
    drawn = generator.clone_state()
    some_points(snapshot, drawn)
    draws = drawn.get_state()

    def few_shot(data: Prepared) -> Probe:
        return few_shot_probe(data, torch.Generator().set_state(draws))

    yield from _read(snapshot, generator, "few_shot", few_shot)


def _read(
    snapshot: Snapshot,
    generator: torch.Generator,
    kind: str,
    probe: Callable[[Prepared], Probe],
    difference: str | None = None,
) -> Iterator[Reading]:
    """One kind of probe on the inputs, the last features and those at init.

    With a difference also on the first features, which it compares with the last.
    """
    n = len(snapshot.y_test)
    rows = some_points(snapshot, generator)

    def reading(suffix: str, data: Prepared, layer: str | None = None) -> Reading:
        result = probe(data)
        return Reading(f"probe.{kind}{suffix}", result.score, layer, n=n, reason=result.problem)

    yield reading("_on_inputs", _prepared(snapshot, rows, snapshot.inputs))
    if not snapshot.layers:
        return
    first, last = snapshot.layers[0], snapshot.layers[-1]
    end = reading("", _of_layer(snapshot, rows, snapshot.final, last), last)
    if difference is not None and first == last:
        reason = "There is only one hidden layer up to the one that counts as the last."
        yield Reading(difference, None, n=n, reason=reason)
    elif difference is not None:
        start = reading("", _of_layer(snapshot, rows, snapshot.final, first), first)
        yield start
        assert start.value is not None
        assert end.value is not None
        lost = start.value - end.value
        yield Reading(difference, lost, n=n, reason=start.reason or end.reason)
    yield end
    init = snapshot.init
    if init is None:
        return
    if any(last not in init.features(split) for split in SPLITS):
        yield Reading(f"probe.{kind}_at_init", None, last, n=n, reason=_NO_INITIAL)
    else:
        yield reading("_at_init", _of_layer(snapshot, rows, init, last), last)


def read_recovery(snapshot: Snapshot, generator: torch.Generator) -> Iterator[Reading]:
    """What the last features still say about the inputs, against what they said at init.

    On digits features keep the most inside the range of c, and what they forgot was within its spread
    over seeds, so it points to no side.
    """
    n = len(snapshot.y_test)
    rows = some_points(snapshot, generator)
    targets = input_components([snapshot.inputs(s)[rows[s]] for s in SPLITS])
    names = [f"probe.{name}" for name in ("inputs_kept", "inputs_kept_at_init", "inputs_forgotten")]
    for layer in snapshot.layers[-1:]:
        results = []
        for state in (snapshot.final, snapshot.init):
            if isinstance(targets, str):
                results.append(Probe(torch.tensor(torch.nan), problem=targets))
            elif state is not None and all(layer in state.features(s) for s in SPLITS):
                results.append(recovery_probe(_of_layer(snapshot, rows, state, layer), targets))
            else:
                results.append(Probe(torch.tensor(torch.nan), problem=_NO_INITIAL))
        final, initial = results
        yield Reading(names[0], final.score, layer, n=n, reason=final.problem)
        yield Reading(names[1], initial.score, layer, n=n, reason=initial.problem)
        reason = final.problem or initial.problem
        yield Reading(names[2], initial.score - final.score, layer, n=n, reason=reason)


def some_points(snapshot: Snapshot, generator: torch.Generator) -> dict[SplitName, Tensor]:
    """Points of each split that probes see, in their order."""
    rows: dict[SplitName, Tensor] = {}
    for split in SPLITS:
        n = len(snapshot.labels(split))
        order = torch.randperm(n, generator=generator)
        some = order if split == "test" else order[:MAX_POINTS]
        rows[split] = some.sort().values.to(snapshot.labels(split).device)
    return rows


def _prepared(
    snapshot: Snapshot, rows: dict[SplitName, Tensor], features: Callable[[SplitName], Tensor]
) -> Prepared:
    return prepared(*(Split(features(s)[rows[s]], snapshot.labels(s)[rows[s]]) for s in SPLITS))


_OF_ALL_POINTS: WeakKeyDictionary[Snapshot, dict[tuple[bool, str], Prepared]] = WeakKeyDictionary()
"""Features that several kinds of probes see: reducing wide ones takes longer than a probe."""


def _of_layer(
    snapshot: Snapshot, rows: dict[SplitName, Tensor], state: NetState, layer: str
) -> Prepared:
    def prepare() -> Prepared:
        return _prepared(snapshot, rows, lambda split: state.features(split)[layer])

    if any(len(rows[split]) < len(snapshot.labels(split)) for split in SPLITS):
        return prepare()  # each kind draws points of its own
    known, key = _OF_ALL_POINTS.setdefault(snapshot, {}), (state is snapshot.init, layer)
    if key not in known:
        known[key] = prepare()
    return known[key]


_STANDARDISED: frozenset[Invariance] = UNTIED_TO_SCALE | {"relu_rescaling"}


def _row(
    name: str,
    what: str,
    source: str,
    *needs: Need,
    compute: Callable[[Snapshot, torch.Generator], Iterator[Reading]],
    better: Literal["higher"] | None = "higher",
    per_layer: bool = True,
    fits: int = 160,
    lowest: float = 0.0,
    highest: float = 1.0,
    invariant_to: frozenset[Invariance] = _STANDARDISED,
) -> Metric:
    return Metric(
        name=f"probe.{name}",
        what=what,
        source=source,
        compute=compute,
        split="test",
        needs=frozenset({"labels", "train_data", "validation_data", "test_data", *needs}),
        per_layer=per_layer,
        direction=None,
        min_effect=0.02,
        min_samples=20,
        cost=lambda n, d, h: fits * 40.0 * min(n, 5 * MAX_POINTS) * min(max(d, h), 4 * MAX_WIDTH),
        invariant_to=invariant_to,
        range=(lowest, highest),
        better=better,
    )


def _kind(
    kind: str,
    what: str,
    source: str,
    fits: int,
    compute: Callable[[Snapshot, torch.Generator], Iterator[Reading]],
) -> tuple[Metric, ...]:
    return (
        _row(
            kind,
            f"{what} on the last features",
            source,
            "features",
            compute=compute,
            fits=fits,
        ),
        _row(
            f"{kind}_at_init",
            "the same before training",
            source,
            "features",
            "init",
            compute=compute,
            fits=fits,
        ),
        _row(
            f"{kind}_on_inputs",
            "the same on the inputs",
            source,
            "inputs",
            compute=compute,
            per_layer=False,
            fits=fits,
            invariant_to=OF_THE_FUNCTION - {"sample_order"},
        ),
    )


_ALAIN = "Alain, Bengio 2016, arXiv 1610.01644, sec. 3"
_OWN = "own definition, after arXiv 1610.01644"

ROWS: tuple[Metric, ...] = (
    # Four strengths, about 40 iterations each.
    *_kind(
        "linear",
        "test accuracy of logistic regression (also on the first)",
        _ALAIN,
        160,
        read_linear_probes,
    ),
    _row(
        "first_minus_last",
        "linear probe of the first hidden layer minus that of the last",
        _ALAIN,
        "features",
        compute=read_linear_probes,
        better=None,
        per_layer=False,
        fits=320,
        lowest=-1.0,
    ),
    *_kind(
        "ridge",
        "test accuracy of ridge regression on the labels (also on the first)",
        "Rifkin, Yeo, Poggio 2003, sec. 3; Alain, Bengio 2016",
        4,
        read_ridge_probes,
    ),
    _row(
        "ridge_first_minus_last",
        "ridge probe of the first hidden layer minus that of the last",
        "Rifkin, Yeo, Poggio 2003, sec. 3; Alain, Bengio 2016",
        "features",
        compute=read_ridge_probes,
        better=None,
        per_layer=False,
        fits=8,
        lowest=-1.0,
    ),
    *_kind(
        "neighbours",
        "test accuracy of the nearest neighbours' vote",
        "Wu et al. 2018, arXiv 1805.01978, sec. 3.4",
        25,
        read_neighbour_probes,
    ),
    *_kind(
        "few_shot",
        "test accuracy of the nearest class mean of 5 training points per class, 10 draws",
        "Snell et al. 2017, arXiv 1703.05175, sec. 2.2",
        1,
        read_few_shot_probes,
    ),
    _row(
        "inputs_kept",
        "R^2 of the inputs' 10 leading principal components, by ridge regression from the last features",
        _OWN,
        "features",
        "inputs",
        compute=read_recovery,
        better=None,
        fits=8,
        lowest=-math.inf,
    ),
    _row(
        "inputs_kept_at_init",
        "the same before training",
        _OWN,
        "features",
        "inputs",
        "init",
        compute=read_recovery,
        better=None,
        fits=8,
        lowest=-math.inf,
    ),
    _row(
        "inputs_forgotten",
        "the latter minus the former",
        _OWN,
        "features",
        "inputs",
        "init",
        compute=read_recovery,
        better=None,
        fits=16,
        lowest=-math.inf,
        highest=math.inf,
    ),
)
