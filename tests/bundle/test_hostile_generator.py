"""The whole command on every hostile file: nothing runs, escapes, swells, hangs or ends unclearly.

Files are handled one after another in a few processes of their own, by ``fls_bench.cli.main``. Each
process watches itself: an audit hook for what is executed or written, the peak of its memory, an
alarm. The controls at the end show that each of these can fail.
"""

import contextlib
import json
import marshal
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import hostile_generator
import pytest
from hostile_generator import Ends, HostileFile, by_default, hostile_files

NUM_BATCHES = 4
MAX_BYTES = 2 * 10**9
TORCH_BYTES = 5 * 10**8
"""Of these, what a process takes that has done nothing yet."""
MAX_SECONDS = 10.0
"""Of the processor: how long the clock says depends on what else the machine does."""
HANGS = 6.0
"""So many times that by the clock is no longer work but waiting."""
MAX_CHARACTERS = 6000
BATCH_SECONDS = 900.0


# --- in the test's process ------------------------------------------------------------------------


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """All that lies in a folder, links not followed."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in folders + files:
            state = os.lstat(os.path.join(place, name))
            found[os.path.relpath(os.path.join(place, name), folder)] = (
                state.st_size,
                state.st_mtime_ns,
            )
    return found


def handled(folder: Path, *arguments: str, limit: float = BATCH_SECONDS) -> list[dict[str, Any]]:
    """What a process of its own noted on each file that it handled; a lost one is noted too."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", __file__, str(folder), *arguments],
        env=os.environ | {"COLUMNS": "80", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=folder, capture_output=True, text=True, errors="replace", check=False, timeout=limit,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    notes = [json.loads(line) for line in (folder / "notes").read_text().splitlines()]
    if ended.returncode != 0 or (notes and "seconds" not in notes[-1]):
        last = notes[-1] if notes else {"name": "before any file"}
        lost = f"the process ended with {ended.returncode}: {ended.stderr[-2000:]}"
        notes.append({**last, "faults": [lost]})
    return notes


def part_of(batch: int, which: str) -> list[tuple[int, HostileFile]]:
    """The files of a batch, with their places among all that are handled."""
    files = hostile_files() if which == "all" else by_default()
    return list(enumerate(files))[batch::NUM_BATCHES]


@pytest.mark.parametrize(
    ("batch", "which"),
    [
        *((batch, "default") for batch in range(NUM_BATCHES)),
        *(pytest.param(batch, "all", marks=pytest.mark.slow) for batch in range(NUM_BATCHES)),
    ],
)
def test_no_hostile_file_runs_writes_swells_hangs_or_ends_unclearly(
    tmp_path: Path, batch: int, which: str
) -> None:
    notes = handled(tmp_path, str(batch), which)
    faults = [f"{note['name']}: {fault}" for note in notes for fault in note["faults"]]
    assert not faults, "\n" + "\n".join(faults)
    done = {note["file"] for note in notes if note["how"] == "net"}
    assert done == {one.name for _, one in part_of(batch, which)}
    # Mutants and odd contents that are good all the same end with a report: the net does fit.
    assert {note["code"] for note in notes if "seconds" in note} == {0, 2}


def test_there_are_at_least_500_and_no_two_are_the_same() -> None:
    files = hostile_files()
    assert len(by_default()) >= 500
    assert len({one.name for one in files}) == len(files)
    assert min(Counter(one.family for one in by_default()).values()) >= 20
    again = [one.name for one in hostile_files.__wrapped__()]
    assert again == [one.name for one in files]


# --- in a process of its own ----------------------------------------------------------------------

EXECUTING = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.startfile",
    "os.kill", "os.putenv", "os.unsetenv", "subprocess.", "pty.", "socket.", "ctypes.", "code.__new__",
    "function.__new__", "pickle.", "webbrowser.", "urllib.", "ftplib.", "http.", "smtplib.",
    "builtins.breakpoint", "builtins.input", "signal.", "sys.setprofile", "sys.settrace", "cpython.",
    "object.__setattr__", "sqlite3.", "syslog.", "glob.", "tempfile.",
)  # fmt: skip
CHANGING = (
    "shutil.", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.chmod",
    "os.chown", "os.chflags", "os.truncate", "os.utime", "os.setxattr", "os.removexattr", "os.mkfifo",
)  # fmt: skip
TRUSTED = tuple(
    os.path.realpath(path) + os.sep
    for path in (
        *sysconfig.get_paths().values(),
        sys.base_prefix + "/lib",
        Path(hostile_generator.fls_bench.__file__).parent,
    )
)


class TooSlowError(BaseException):
    """No ``except Exception`` may swallow it."""


class Watch:
    """Notes what Python does while a file is handled, beside what it does on good ones."""

    def __init__(self, trusted: Path, out: Path) -> None:
        self.seen: list[str] = []
        self.on = False
        self.learning = True
        self._known_acts: set[tuple[str, object]] = set()
        self._trusted = (*TRUSTED, os.path.realpath(trusted) + os.sep)
        self._out = os.path.realpath(out) + os.sep
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.on:
            self.on = False  # what this does itself is not of interest
            try:
                if self._bad(event, args):
                    # The command line's parser evaluates annotations, and a little more of this kind.
                    code = args[0] if event == "exec" else None
                    act = event, repr(args) if code is None else marshal.dumps(code)
                    if self.learning:
                        self._known_acts.add(act)
                    elif act not in self._known_acts:
                        self.seen.append(f"{event} {args!r:.200}")
            finally:
                self.on = True

    def _ours(self, path: object) -> bool:
        """Whether a path lies in the output folder."""
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        return os.path.realpath(os.fsdecode(path)).startswith(self._out)

    def _known(self, file: object) -> bool:
        """Whether code stems from a file of Python, an installed package or the user's builder."""
        return isinstance(file, str) and (
            file.startswith("<frozen ") or os.path.realpath(file).startswith(self._trusted)
        )

    def _bad(self, event: str, args: tuple[Any, ...]) -> bool:
        if event == "open":
            path, mode, flags = args
            writes = (flags or 0) & (
                os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
            )
            writes = writes or (isinstance(mode, str) and set(mode) & set("wax+"))
            return bool(writes) and path != os.devnull and not self._ours(path)
        if event == "import":
            return args[0].partition(".")[0] not in _importable()
        if event == "exec":
            return not self._known(args[0].co_filename)
        if event == "compile":
            # np.load parses the header of an array as a literal.
            return not self._known(args[1]) and args[1] != "<unknown>"
        if event.startswith(CHANGING):
            paths = [part for part in args[:2] if isinstance(part, str | bytes | os.PathLike)]
            return not all(map(self._ours, paths))
        return event.startswith(EXECUTING)


def _importable() -> frozenset[str]:
    """Packages that a report may load late; none of those that pickles name to do harm."""
    return frozenset({"torch", "numpy", "scipy", "sklearn", "pydantic", "fls_bench", "encodings"})


def memory() -> tuple[int, int]:
    """The most bytes that this process ever had in memory, and how many it has now."""
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(1024 * int(status[key].split()[0]) for key in ("VmHWM", "VmRSS"))


class Process:
    """Handles files, and keeps a note on each."""

    def __init__(self, folder: Path) -> None:
        self.code, self.out, self.files, self.cwd = (
            folder / name for name in ("code", "out", "files", "cwd")
        )
        for place in (self.code, self.out, self.files, self.cwd):
            place.mkdir()
        (self.cwd / "victim").touch()
        (self.code / "nets.py").write_text(hostile_generator.NETS)
        self.data = hostile_generator.data_file(self.code / "data.npz")
        self.good = {
            net: hostile_generator.put(f"{net}.pt", content)(self.code)
            for net, content in (
                ("normed", hostile_generator.GOOD),
                ("plain", hostile_generator.PLAIN),
            )
        }
        self.notes = (folder / "notes").open("w", buffering=1)
        os.chdir(self.cwd)
        self.texts = [os.open(folder / name, os.O_RDWR | os.O_CREAT) for name in ("1", "2")]
        self.watch = Watch(self.code, self.out)
        self._warm_up()
        # What would take the whole machine ends here, and is noted; files that are mapped don't count.
        text = Path("/proc/self/status").read_text()
        data = 1024 * int(text.partition("VmData:")[2].split()[0])
        resource.setrlimit(resource.RLIMIT_DATA, (data + 3 * 2**30,) * 2)

    def _warm_up(self) -> None:
        """Good files both ways, so that what is imported late is there."""
        for net, path in self.good.items():
            for how in ("net", "alone", "init"):
                note = self.handle(
                    f"a good file, {how}", lambda p=path, n=net, h=how: self.run(p, n, h)
                )
                assert note["code"] == 0, note
                assert not note["faults"], note
                self.clear()
        self.watch.learning = False

    def line(self, path: Path, net: str, how: str) -> list[str]:
        given = ["--model", f"nets:{net}", "--pythonpath", str(self.code), "--data", str(self.data)]
        begin = {
            "net": ["diagnose", str(path), *given],
            "alone": ["diagnose", str(path)],
            "init": ["diagnose", str(self.good[net]), *given, "--init", str(path)],
        }[how]
        return [*begin, "--json", str(self.out / "x.json"), "-q", "--no-store"]

    def run(self, path: Path, net: str, how: str) -> int | None:
        from fls_bench.cli import main

        try:
            main(self.line(path, net, how))
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else -1
        return None

    def handle(
        self, name: str, act: Callable[[], int | None], limit: float = MAX_SECONDS
    ) -> dict[str, Any]:
        """Do something under watch; exit code, what was said, and what was wrong with it."""
        before, now = memory()
        self.watch.seen.clear()
        kept = [os.dup(1), os.dup(2)]
        for stream, text in enumerate(self.texts, 1):
            os.ftruncate(text, 0)
            os.lseek(text, 0, os.SEEK_SET)
            os.dup2(text, stream)
        code, fault = None, ""
        start, began = time.process_time(), time.monotonic()
        signal.setitimer(signal.ITIMER_PROF, 1.5 * limit)  # later, so that the limit was passed
        signal.setitimer(signal.ITIMER_REAL, 1.1 * HANGS * limit)
        self.watch.on = True
        try:
            code = act()
        except BaseException as error:
            fault = f"left the command: {traceback.format_exc(limit=-3)} {error}"
        finally:
            self.watch.on = False
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
        seconds, waited = time.process_time() - start, time.monotonic() - began
        sys.stdout.flush()
        sys.stderr.flush()
        said = []
        for stream, text in enumerate(self.texts, 1):
            os.dup2(kept[stream - 1], stream)
            os.close(kept[stream - 1])
            said.append(os.pread(text, 10**7, 0).decode("utf-8", "backslashreplace"))
        peak, _ = memory()
        faults = [f"noticed {event}" for event in self.watch.seen]
        if fault:
            faults.append(fault)
        if peak > before and peak - now > MAX_BYTES - TORCH_BYTES:
            faults.append(f"took {peak - now:,} bytes more than before")
        if seconds > limit:
            faults.append(f"took {seconds:.1f} s")
        if waited > HANGS * limit:
            faults.append(f"hung for {waited:.1f} s")
        return {
            "name": name, "code": code, "out": said[0], "err": said[1], "seconds": seconds,
            "bytes": peak - now if peak > before else 0, "faults": faults,
        }  # fmt: skip

    def clear(self) -> list[str]:
        """Empty the output folder; what is not a whole report in it is a fault."""
        names = os.listdir(self.out)
        for name in names:
            with contextlib.suppress(ValueError):
                json.loads((self.out / name).read_text())
                (self.out / name).unlink()
        return os.listdir(self.out)

    def judge(self, one: HostileFile, path: Path, how: str, limit: float = MAX_SECONDS) -> None:
        """Handle a file, and write down all that is wrong with how that ended."""
        before = listing(self.files), listing(self.cwd), listing(self.code)
        note = {"file": one.name, "how": how, "name": f"{one.family}: {one.name} ({how})"}
        self.notes.write(json.dumps(note | {"code": None, "faults": []}) + "\n")
        note |= self.handle(note["name"], lambda: self.run(path, one.net, how), limit)
        faults: list[str] = note["faults"]
        wanted = {
            Ends.REFUSED: {2},
            Ends.UNFIT: {0, 2} if how == "alone" else {2},
            Ends.ANY: {0, 2},
        }
        if note["code"] not in wanted[one.ends]:
            faults.append(f"ended with {note['code']}, not {wanted[one.ends]}: {note['err'][:500]}")
        reports = os.listdir(self.out)
        if reports != (["x.json"] if note["code"] == 0 else []):
            faults.append(f"left {reports} in the output folder")
        if left := self.clear():
            faults.append(f"left half a report: {left}")
        if note["code"] == 2:
            faults += unclear(note["out"], note["err"])
        elif "Traceback" in note["err"]:
            faults.append(f"said {note['err'][:300]!r}")
        if (listing(self.files), listing(self.cwd), listing(self.code)) != before:
            faults.append("changed files outside of the output folder")
        self.notes.write(json.dumps(note) + "\n")


def unclear(out: str, err: str) -> Iterator[str]:
    """What is wrong with what a refusal says: it must be one paragraph that a person can read."""
    lines = err.splitlines()
    conversion = [line for line in lines if line.startswith("    ")]
    if out:
        yield f"said {out[:200]!r} on standard output"
    if not err.startswith("error: ") or "\nerror: " in err or "\n\n" in err:
        yield f"said no paragraph: {err[:300]!r}"
    if not err.endswith(".\n") and not (len(conversion) == 2 and err.endswith(", model)\n")):
        yield f"ended with {err[-100:]!r}"
    if not err.replace("\n", "").isprintable() or "Traceback" in err or "Internal" in err:
        yield f"said what can't be shown: {err[:500]!r}"
    if not 60 < len(err) <= MAX_CHARACTERS:
        yield f"said {len(err):,} characters: {err[:500]!r}"


def _too_slow(*_: object) -> None:
    raise TooSlowError("it took too long")


def work(folder: Path, batch: int, which: str) -> None:
    """Handle every so many-th file: with a net, some also without one or as initial weights."""
    import warnings

    process = Process(folder)
    for number, one in part_of(batch, which):
        place = process.files / "x"
        place.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = one.make(place)
        process.judge(one, path, "net")
        turn = number // NUM_BATCHES % 5
        if turn in (1, 3):
            process.judge(one, path, "alone" if turn == 1 else "init")
        shutil.rmtree(place)


# --- that the watch can see -----------------------------------------------------------------------


def unpickled(name: str) -> Callable[[Process, Path], int | None]:
    """What an ordinary reader does with one of the files."""

    def act(process: Process, place: Path) -> int | None:
        one = next(one for one in hostile_files() if one.name == name)
        pickle.loads(one.make(place).read_bytes())
        return 2

    return act


def _loaded(process: Process, place: Path) -> int | None:
    import torch

    one = next(one for one in hostile_files() if one.name == "posix.system, protocol 2, torch.save")
    torch.load(one.make(place), weights_only=False)
    return 2


def _doing(
    act: Callable[[Process], object], code: int = 2
) -> Callable[[Process, Path], int | None]:
    def done(process: Process, place: Path) -> int | None:
        act(process)
        print(
            "error: The file is bad, and that is all there is to say about it. Give another.",
            file=sys.stderr,
        )
        return code

    return done


def _evil_import(process: Process) -> None:
    (process.cwd / "evil.py").write_text("import os; os.system('true')")
    sys.path.insert(0, str(process.cwd))
    __import__("evil")


def _compute(process: Process) -> None:
    end = time.process_time() + 0.4
    while time.process_time() < end:
        pass


def _raise(process: Process) -> None:
    raise ValueError("not caught")


CONTROLS: dict[str, tuple[Callable[[Process, Path], int | None], str]] = {
    "all is well": (_doing(lambda process: None), ""),
    "os.system, unpickled": (unpickled("os.system _by_reduce_raw"), "noticed os.system"),
    "protocol 0, unpickled": (unpickled("builtins.exec, protocol 0, raw"), "noticed exec"),
    "torch.load": (_loaded, "noticed os.system"),
    "Popen": (_doing(lambda process: subprocess.run(["true"], check=True)), "noticed subprocess.Popen"),
    "exec": (_doing(lambda process: exec("1 + 1")), "noticed compile"),
    "import": (_doing(_evil_import), "noticed import"),
    "rmtree": (_doing(lambda process: shutil.rmtree(process.files / "x")), "noticed shutil.rmtree"),
    "write": (_doing(lambda process: (process.cwd / "new").touch()), "changed files"),
    "write, seen at once": (_doing(lambda process: open("new", "w").close()), "noticed open"),
    "rename": (_doing(lambda process: os.rename("victim", "gone")), "noticed os.rename"),
    "link out of the output folder": (
        _doing(lambda process: (process.out / "x").symlink_to("/etc/passwd")), "noticed os.symlink",
    ),
    "socket": (_doing(lambda process: __import__("socket").socket().close()), "noticed socket"),
    "library": (_doing(lambda process: __import__("ctypes").CDLL(None)), "noticed ctypes"),
    "memory": (_doing(lambda process: bytearray(b"x") * (16 * 10**8)), "bytes more"),
    "all memory": (_doing(lambda process: bytearray(2**40)), "left the command: "),
    "time": (_doing(_compute), "took 0."),
    "waiting": (_doing(lambda process: time.sleep(1.5)), "hung for 1."),
    "exit 3": (_doing(lambda process: None, 3), "ended with 3"),
    "exit 1": (_doing(lambda process: None, 1), "ended with 1"),
    "no error": (_doing(_raise), "left the command: "),
    "report on failure": (
        _doing(lambda process: (process.out / "x.json").write_text("{}")), "left ['x.json']",
    ),
    "half a report": (
        _doing(lambda process: (process.out / "x.json").write_text("{"), 0), "left half a report",
    ),
    "no report": (_doing(lambda process: None, 0), "left [] in"),
    "traceback": (_doing(lambda process: traceback.print_stack()), "said no paragraph"),
    "words on standard output": (_doing(lambda process: print("x")), "on standard output"),
    "end of the process": (_doing(lambda process: os._exit(0)), "the process ended"),
}  # fmt: skip


def controls(folder: Path) -> None:
    """Do each of the controls in place of the command."""
    process = Process(folder)
    for name, (act, _) in CONTROLS.items():
        place = process.files / "x"
        place.mkdir(exist_ok=True)
        process.run = lambda *_, act=act, place=place: act(process, place)  # type: ignore[method-assign]
        limit = 0.2 if name in ("time", "waiting") else MAX_SECONDS
        process.judge(HostileFile(name, "control", lambda path: path), place, "net", limit)
        for path in process.out.iterdir():
            path.unlink()


def test_every_detector_detects(tmp_path: Path) -> None:
    notes = handled(tmp_path, "controls")
    for name, (_, word) in CONTROLS.items():
        faults = [fault for note in notes if note["file"] == name for fault in note["faults"]]
        assert any(word in fault for fault in faults) if word else not faults, (name, faults)


@pytest.mark.parametrize(
    "err",
    [
        "",
        "There is nothing that begins as an error does, and a person reads this as advice.\n",
        "error: Too short.\n",
        "error: Two paragraphs say more than one, and the second one\n\nis not read by anybody.\n",
        "error: There is no full stop at the end of this sentence, so it may have been cut\n",
        "error: Internal error: ValueError: something that nobody thought of has happened.\n",
        "error: This moves the cursor \x1b[2J and clears the screen of whoever reads it.\n",
        "error: This turns the text \u202e round, which hides what a name really says here.\n",
        "error: " + "x" * MAX_CHARACTERS + ".\n",
    ],
)
def test_an_unclear_message_is_noticed(err: str) -> None:
    assert list(unclear("", err))


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, _too_slow)
    signal.signal(signal.SIGPROF, _too_slow)
    target, *rest = sys.argv[1:]
    if rest == ["controls"]:
        controls(Path(target))
    else:
        work(Path(target), int(rest[0]), rest[1])
