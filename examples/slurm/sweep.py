"""Runs one fls-bench command on workers that Slurm starts.

    python sweep.py --workers 64 --partition cpu -- diagnose --setup my_pkg.my_setup:setup --json r.json

It runs where jobs may be submitted, for as long as the sweep takes; all training is done by the workers.
Killed, or ended by its own time limit, the same command goes on from the runs that it has stored.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

from dask.utils import parse_bytes
from dask_jobqueue import SLURMCluster
from distributed import Client

LEAST_MEMORY = 100_000_000
"""Bytes of a worker; less is a number whose unit was left out."""


def memory(text: str) -> int:
    """Bytes."""
    try:
        size = parse_bytes(text)
    except ValueError:
        size = 0
    if size < LEAST_MEMORY:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no memory that a worker could do with; give a number and a unit: 512MB, 1.5GB"
        )
    return size


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=16, help="replica batches at a time, in all")
    parser.add_argument("--per-job", type=int, default=8, help="of these, in one Slurm job")
    parser.add_argument("--memory", type=memory, default="2GB", help="of one worker: 2GB")
    parser.add_argument("--hours", type=int, default=4, help="time limit of a Slurm job")
    parser.add_argument("--partition")
    parser.add_argument("--account")
    parser.add_argument("--interface", help="network card that nodes reach this one by, e.g. ib0")
    parser.add_argument(
        "--setup-line", action="append", default=[], help="shell line, e.g. module load"
    )
    parser.add_argument("--directive", action="append", default=[], help="e.g. --constraint=avx512")
    parser.add_argument(
        "--print", action="store_true", help="show the job script and submit nothing"
    )
    parser.add_argument("command", nargs="+", help="of fls-bench, behind --")
    return parser.parse_args(arguments)


def cluster_of(chosen: argparse.Namespace) -> SLURMCluster:
    return SLURMCluster(
        queue=chosen.partition,
        account=chosen.account,
        # One process of one thread per core: a worker trains one batch at a time.
        cores=chosen.per_job,
        processes=chosen.per_job,
        memory=f"{chosen.memory * chosen.per_job}B",
        walltime=f"{chosen.hours:02d}:00:00",
        interface=chosen.interface,
        job_script_prologue=[
            # Dask's nanny sets these, too; here they hold for whatever else the job starts.
            "export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1",
            *chosen.setup_line,
        ],
        job_extra_directives=["--requeue", *chosen.directive],
        worker_extra_args=[
            # They leave 5 to 15 minutes before Slurm ends them, each at a random moment of these, and
            # hand their jobs back.
            "--lifetime", f"{60 * chosen.hours - 10}m", "--lifetime-stagger", "5m",
        ],
        scheduler_options={"dashboard_address": None},
    )  # fmt: skip


def command_of(chosen: argparse.Namespace, address: str) -> list[str]:
    run = [sys.executable, "-m", "fls_bench", *chosen.command]
    run += ["--backend", "dask", "--scheduler", address]
    # --jobs says how runs are cut into batches: with it the last bits of the result do not depend on
    # how many workers happened to be there first.
    if not any(word.startswith("--job") for word in chosen.command):  # --jobs 4, --jobs=4, --job 4
        run += ["--jobs", str(chosen.workers)]
    return run


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options(arguments)
    with cluster_of(chosen) as cluster:
        if chosen.print:
            print(cluster.job_script())
            return 0
        # Of a fixed size, but jobs that end are submitted again.
        num_jobs = -(-chosen.workers // chosen.per_job)
        cluster.adapt(minimum_jobs=num_jobs, maximum_jobs=num_jobs, interval="10s")
        with Client(cluster) as client:
            print("waiting for the first worker", file=sys.stderr)
            client.wait_for_workers(1)
        run = command_of(chosen, cluster.scheduler_address)
        return subprocess.run(run, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
