"""Which tensors of a checkpoint are the weights of a net: wrappers taken off, then name by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from fls_bench.bundle.checkpoints import STATES_OF_TRAINING, Checkpoint
from fls_bench.bundle.contents import MAX_NAME_CHARACTERS, listed
from fls_bench.bundle.digests import WRAPPERS
from fls_bench.bundle.pickles import StoredTensor
from fls_bench.bundle.sniffing import label_of
from fls_bench.errors import InputError

AVERAGED = re.compile(
    r"(?:^|[._])(?:ema|swa|avg|average|averaged|averaging|shadow|polyak)\d*(?:[._]|$)",
    re.IGNORECASE,
)
INITIAL = re.compile(r"(?:^|[._])init(?:ial)?(?:[._]|$)", re.IGNORECASE)
MAX_CANDIDATES = 20
SMALLEST_SHARE = 1 / 3
"""A part of a dict that holds less of its numbers is taken for the net only where a user names it."""


@dataclass(frozen=True)
class NetShape:
    """What a net's state dict looks like.

    Attributes:
        shapes: Name -> shape, of parameters and buffers.
        floating: Which of these hold floating numbers.
        tied: Name -> the other names of the same parameter or buffer.
        parameters: Which of these are parameters.
        infinite: Buffers that hold infinite numbers, as masks do.
    """

    shapes: Mapping[str, tuple[int, ...]]
    floating: frozenset[str]
    tied: Mapping[str, tuple[str, ...]]
    parameters: frozenset[str] = frozenset()
    infinite: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Match:
    """The weights of a net in a checkpoint.

    Attributes:
        prefix: What stands before the net's own names, without the last dot; empty: nothing.
        tensors: The net's own name -> the tensor.
        counters: Counts of BatchNorm's batches that older torch did not store.
        left_out: Other tensors of the same dicts, which do not belong to the net.
        averaged: Whether the prefix says that these are averages over training.
        others: Other prefixes under which weights of this net lie.
    """

    prefix: str
    tensors: Mapping[str, StoredTensor]
    counters: tuple[str, ...]
    left_out: tuple[str, ...]
    averaged: bool
    others: tuple[str, ...]


@dataclass(frozen=True)
class _Candidate:
    prefix: str
    found: Mapping[str, str]  # the net's name -> the checkpoint's
    missing: tuple[str, ...]
    counters: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong: tuple[str, ...]
    beside: tuple[str, ...]
    share: float

    @property
    def holds(self) -> bool:
        return not (self.missing or self.wrong)

    @property
    def fits(self) -> bool:
        return self.holds and not self.unexpected


def match_weights(
    checkpoint: Checkpoint, net: NetShape, *, wanted: str | None = None, whole: bool = True
) -> Match:
    """Find the weights of a net in a checkpoint; strict once wrappers are taken off.

    Keys of nested dicts and prefixes of names are treated alike: ``state_dict``, ``model``,
    ``module.``, ``ema_model.`` and any other. Averages over training and initial weights are chosen
    only where nothing else fits. What is left out must lie beside the prefix, not under it.

    Args:
        checkpoint: What the file holds.
        net: What the net's state dict looks like.
        wanted: The prefix that the user names, or a part of it; None: the one that fits.
        whole: Whether other tensors under the prefix make it a misfit; else they are left out, as the
            read-out of a net of which the encoder alone is taken.

    Returns:
        The match.

    Raises:
        InputError: Nothing fits (the message lists what is missing, unexpected and near), several
            do, or only a small part of the file does.
    """
    label = label_of(checkpoint.path)
    wanted = None if wanted is None else WRAPPERS.sub("", f"{wanted.rstrip('.')}.").rstrip(".")
    candidates = _candidates(checkpoint, net, wanted)
    if wanted is not None:
        end = wanted.rstrip(".")
        exact = [one for one in candidates if one.prefix == end]
        named = exact or [one for one in candidates if f".{end}." in f".{one.prefix}."]
        if end and not named:
            raise InputError(
                f"{label} holds no weights of this net under {wanted[:80]!r}.",
                f"It holds some under {_prefixes(candidates)}."
                if candidates
                else f"Its tensors are {listed(checkpoint.tensors)}.",
            )
        candidates = named if end else [one for one in candidates if not one.prefix]
    fitting = [one for one in candidates if one.fits or (not whole and one.holds)]
    if not fitting:
        raise _misfit(checkpoint, net, candidates)
    large = [one for one in fitting if one.share >= SMALLEST_SHARE or wanted is not None]
    if not large:
        share = 100 * fitting[0].share
        raise InputError(
            f"Only a small part of {label} fits the net ({share:.2g} % of its numbers, under "
            f"{_prefixes(fitting)}).",
            f"Give the builder of the whole net, or --weights {fitting[0].prefix} if that part is the "
            "net.",
        )
    plain = [one for one in large if not INITIAL.search(one.prefix)] or large
    plain = [one for one in plain if not AVERAGED.search(one.prefix)] or plain
    first, *rest = sorted(plain, key=lambda one: one.prefix)
    tensors = _tensors(checkpoint, net, first)
    if any(_tensors(checkpoint, net, one) != tensors for one in rest):
        raise InputError(
            f"{label} holds weights of this net more than once: under {_prefixes(plain)}.",
            f"Say which ones to judge, with --weights {first.prefix or repr('')} for instance.",
        )
    others = [one for one in fitting if one is not first]
    elsewhere = {name for one in others for name in one.found.values()}
    return Match(
        prefix=first.prefix,
        tensors=tensors,
        counters=first.counters,
        left_out=tuple(
            name for name in (*first.beside, *first.unexpected) if name not in elsewhere
        ),
        averaged=AVERAGED.search(first.prefix) is not None,
        others=tuple(sorted(one.prefix for one in others)),
    )


def _tensors(checkpoint: Checkpoint, net: NetShape, one: _Candidate) -> dict[str, StoredTensor]:
    names = {
        name: next(one.found[own] for own in (name, *net.tied.get(name, ())) if own in one.found)
        for name in net.shapes
        if name not in one.counters
    }
    return {name: checkpoint.tensors[found] for name, found in names.items()}


def _distance(prefix: str, wanted: str | None) -> int:
    """From a prefix that the user names: 0 for that very one, 1 where it is part of it."""
    own, named = prefix.rstrip("."), (wanted or "").rstrip(".")
    if wanted is None or own == named:
        return 0
    return 1 if f".{named}." in f".{own}." else 2


def _candidates(checkpoint: Checkpoint, net: NetShape, wanted: str | None) -> list[_Candidate]:
    """Prefixes under which most names of the net occur, those that are wanted first."""
    plain = {name: WRAPPERS.sub("", name) for name in checkpoint.tensors}
    first: dict[str, str] = {}
    for name, short in plain.items():
        other = first.setdefault(short, name)
        if checkpoint.tensors[other] != checkpoint.tensors[name]:
            raise InputError(
                f"{label_of(checkpoint.path)} holds two tensors that are both called {short!r} once "
                f"wrappers are taken off: {listed([other, name])}.",
                "Save the state dict of one of the two nets.",
            )
    expected = {WRAPPERS.sub("", name): name for name in net.shapes}
    found: dict[str, dict[str, str]] = {}
    # No end of a name with more dots than the net's own can be one of these.
    most_parts = 1 + max((name.count(".") for name in expected), default=0)
    for name, short in plain.items():
        parts = short.rsplit(".", most_parts)
        for count in range(1, min(len(parts), most_parts) + 1):
            end = ".".join(parts[-count:])
            if own := expected.get(end):
                found.setdefault(short.removesuffix(end), {})[own] = name
    # What fits has the most names; a file may have any number of prefixes with one of them each.
    most = max(map(len, found.values()), default=0)
    best = sorted(found.items(), key=lambda one: (_distance(one[0], wanted), -len(one[1])))
    return [
        _candidate(checkpoint, net, prefix, names, plain)
        for prefix, names in best[:MAX_CANDIDATES]
        if 2 * len(names) >= most
    ]


def _candidate(
    checkpoint: Checkpoint,
    net: NetShape,
    prefix: str,
    found: Mapping[str, str],
    plain: Mapping[str, str],
) -> _Candidate:
    absent = [
        name
        for name in net.shapes
        if not any(own in found for own in (name, *net.tied.get(name, ())))
    ]
    counters = tuple(name for name in absent if name.rpartition(".")[2] == "num_batches_tracked")
    homes = {checkpoint.homes[name] for name in found.values()}
    used = set(found.values())
    # A state dict may be nested once more, by layer: all that lies under a prefix counts.
    same = [
        name
        for name, home in checkpoint.homes.items()
        if name not in used and (home in homes or (prefix and plain[name].startswith(prefix)))
    ]
    stored = checkpoint.tensors
    matched = sum(_numel(stored[name]) for name in used)
    wrong = [
        f"{own!r} has shape {stored[name].shape}, not {net.shapes[own]}"
        if stored[name].shape != net.shapes[own]
        else f"{own!r} has {str(stored[name].dtype).removeprefix('torch.')} numbers, not floating ones"
        for own, name in found.items()
        if stored[name].shape != net.shapes[own]
        or (own in net.floating and not stored[name].dtype.is_floating_point)
    ]
    return _Candidate(
        prefix=prefix.rstrip("."),
        found=found,
        missing=tuple(name for name in absent if name not in counters),
        counters=counters,
        unexpected=tuple(
            plain[name].removeprefix(prefix) for name in same if plain[name].startswith(prefix)
        ),
        wrong=tuple(wrong),
        beside=tuple(name for name in same if not plain[name].startswith(prefix)),
        share=matched / max(1, matched + sum(_numel(stored[name]) for name in same)),
    )


def _numel(tensor: StoredTensor) -> int:
    return tensor.num_bytes // tensor.dtype.itemsize


def _prefixes(candidates: Iterable[_Candidate]) -> str:
    return listed(sorted(one.prefix for one in candidates))


def _misfit(checkpoint: Checkpoint, net: NetShape, candidates: Iterable[_Candidate]) -> InputError:
    label = label_of(checkpoint.path)
    best = max(candidates, key=lambda one: (len(one.found), -len(one.prefix)), default=None)
    if best is None:
        # No name is right: compare with the dict that holds the most numbers.
        sizes: dict[str, int] = {}
        for name, home in checkpoint.homes.items():
            if not home.startswith(STATES_OF_TRAINING):
                sizes[home] = sizes.get(home, 0) + _numel(checkpoint.tensors[name])
        home = max(sizes, key=lambda one: sizes[one], default="")
        strange = [
            name.removeprefix(f"{home}.") if home else name
            for name, own in checkpoint.homes.items()
            if own == home
        ]
        missing, wrong = tuple(net.shapes), tuple[str, ...]()
    else:
        home, strange = best.prefix, list(best.unexpected)
        missing, wrong = best.missing, best.wrong
    nearest = {
        name: near[0]
        for name in strange[:5]
        if (near := get_close_matches(name[:MAX_NAME_CHARACTERS], list(missing)[:200], 1))
    }
    close = ", ".join(f"{name!r} is near {own!r}" for name, own in nearest.items())
    parts = [
        f"missing {listed(missing)}" if missing else "",
        f"unexpected {listed(strange)}" if strange else "",
        close,
        "; ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""),
    ]
    where = f", under {home!r}," if home else ""
    return InputError(
        f"The weights in {label}{where} do not fit the net: {'; '.join(filter(None, parts))}.",
        "Give with --model the builder of the very net that was trained."
        if best is None or not best.holds
        else "The file holds all of the net and more. If the rest belongs to a loss or a metric beside "
        "it, give the builder of the net alone; if it is a read-out, --fit-head leaves it out and fits "
        "another one.",
    )
