"""Where jobs run: in this process' threads, in processes of this machine, or on a Dask cluster."""

from __future__ import annotations

import gc
import json
import logging
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from fls_bench import __version__
from fls_bench.errors import InputError
from fls_bench.training_setup import in_one_line

if TYPE_CHECKING:
    from distributed import Client

BackendKind = Literal["auto", "loky", "dask"]

CONNECT_SECONDS = 5
"""For how long a scheduler is looked for, and then its first worker."""


@dataclass(frozen=True)
class Backend:
    """Where jobs run. Records come back to the process that asked, which alone writes the store.

    Attributes:
        kind: ``auto``: batches in threads of this process, nets that are trained one by one in
            processes. ``loky``: both in processes of this machine. ``dask``: both on a Dask cluster.
        scheduler: Address of the cluster's scheduler.
        slots: Jobs at a time that the cluster took when it was found.
        folders: Where workers look for the user's modules, beside their own path.
    """

    kind: BackendKind = "auto"
    scheduler: str | None = None
    slots: int | None = None
    folders: tuple[str, ...] = ()


LOCAL = Backend()


def find_backend(kind: str, scheduler: str | None = None, folders: tuple[str, ...] = ()) -> Backend:
    """The backend of that name, after a look at whether it is there.

    Args:
        kind: ``auto``, ``loky`` or ``dask``.
        scheduler: For ``dask``: an address such as ``tcp://10.0.0.1:8786``, or a scheduler file.
        folders: Where the user's modules are imported from.

    Returns:
        The backend, with the slots of the workers that a cluster has now.

    Raises:
        InputError: There is no such backend, it needs what is not installed, or the scheduler or its
            workers are not there or of other versions.
    """
    if kind not in get_args(BackendKind):
        raise InputError(f"There is no backend {kind!r}.", "Choose auto, loky or dask.")
    if kind != "dask":
        if scheduler is not None:
            raise InputError("--scheduler goes with --backend dask.", "Leave it out, or give both.")
        return Backend("loky" if kind == "loky" else "auto", folders=folders)
    if scheduler is None:
        raise InputError(
            "--backend dask needs the address of a scheduler.",
            "Give for example --scheduler tcp://127.0.0.1:8786 (see docs/clusters.md).",
        )
    address = _address(scheduler)
    with connected(address) as client:
        slots = _checked_slots(client, address)
    return Backend("dask", address, slots, folders)


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """A client of a scheduler, which is closed afterwards.

    Raises:
        InputError: distributed is not installed, or no scheduler answers there in time.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError(
            f"--backend dask needs the package distributed, which can't be imported here ({error}).",
            "Install it with: pip install 'fls-bench[dask]'.",
        ) from None
    # What it tells of lost workers and broken connections, in many lines, is ours to say.
    for name in list(logging.root.manager.loggerDict):  # it gives some of its own a level
        if name.split(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)
    # A client that failed closes itself where it is collected, under a lock that the start of the next
    # one holds: collected in there, both would wait for ever.
    gc.collect()
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False, name="fls-bench")  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            f"No Dask scheduler answers at {address} within {CONNECT_SECONDS} seconds "
            f"({in_one_line(error)}).",
            "Start one with 'dask scheduler', or correct --scheduler.",
        ) from None
    try:
        yield client
    finally:
        client.close(timeout=CONNECT_SECONDS)  # type: ignore[no-untyped-call]


def versions() -> dict[str, str]:
    """Of all that a run's numbers depend on; it is called on workers, too."""
    return {
        "fls-bench": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def check_versions(wanted: dict[str, str], found: dict[str, str], where: str) -> None:
    """Refuse a worker whose numbers would be others.

    Raises:
        InputError: A version differs.
    """
    for name, version in wanted.items():
        if found.get(name) != version:
            raise InputError(
                f"The worker {where} has {name} {found.get(name)}, and this process {version}.",
                "Start workers from the environment that fls-bench itself runs in.",
            )


def _address(text: str) -> str:
    path = Path(text)
    try:
        if not path.is_file():
            if "://" in text or re.fullmatch(r"[^/\s]+:\d+", text):
                return text
            raise InputError(
                f"--scheduler {text!r}: there is no such file, and it is not an address either.",
                "Name the file of dask scheduler --scheduler-file, or give an address such as "
                "tcp://127.0.0.1:8786.",
            )
        address = json.loads(path.read_text(encoding="utf-8"))["address"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(
            f"--scheduler {text!r} is a file, but not one that a scheduler wrote.",
            "Name the file of dask scheduler --scheduler-file, or give an address.",
        ) from None
    return str(address)


def _checked_slots(client: Client, address: str) -> int:
    """How many jobs the cluster takes at a time."""
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except TimeoutError:
        raise InputError(
            f"The scheduler at {address} has no workers.",
            f"Start some, for example with: dask worker {address} --nworkers 2 --nthreads 1.",
        ) from None
    threads: dict[str, int] = client.nthreads()  # type: ignore[no-untyped-call]
    found: dict[str, Any] = client.run(versions, on_error="return")
    for where, answer in found.items():
        if not isinstance(answer, dict):
            raise InputError(
                f"The worker {where} can't use fls-bench ({in_one_line(answer)}).",
                "Start workers from the environment that fls-bench itself runs in.",
            )
        check_versions(versions(), answer, where)
    return max(1, sum(threads.values()))
