"""Which share of small faults in scaling.py and the metrics their fast tests notice.

Cosmic Ray makes the mutants: every operator, number, comparison, condition, loop and decorator of the
files, changed one at a time. A fixed random sample of them is tested, two at once, each in a copy of
the repository, by the unit tests of these files alone. A mutant that the tests pass with has survived.
Writes docs/mutants.md, and keeps what stands below its ruler.

    python benchmarks/mutants.py --write docs/mutants.md

mutmut was tried first. It changes the bodies of functions in a process that has imported them
already; so of the rows of the table of metrics, which are built at import, every mutant survives.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import hashlib
import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
import time
import tomllib
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

ROOT = Path(__file__).parent.parent
MUTATED = ("fls_bench/scaling.py", "fls_bench/metrics/**/*.py")
TESTS = ("tests/test_scaling.py", "tests/metrics", "fls_bench/scaling.py", "fls_bench/metrics")

SEED = 1
NUM_MUTANTS = 120
WORKERS = 2
LIMIT_SECONDS = 39 * 60  # then no more are begun
WANTED = 0.9
NAMED = ("cosmic-ray", "pytest", "hypothesis", "torch", "numpy", "scipy", "scikit-learn")

# Random order and examples would make the same mutant die in one run and live in the next.
PYTEST = (
    f"{shlex.quote(sys.executable)} -m pytest -x -q -p no:cacheprovider "
    "--randomly-seed=0 --randomly-dont-reorganize --hypothesis-seed=0"
)

# An operator becomes another of its kind. What raises on floats at once (a * b to a << b), or is
# another's twin (-1 to +1 and to 1), would only make the share look better.
_ARITHMETIC = "Add|Sub|Mul|Div|FloorDiv|Mod|Pow"
_SETS = "BitOr|BitAnd|BitXor"
_ORDER = "Eq|NotEq|Lt|LtE|Gt|GtE"
KINDS = re.compile(
    rf"ReplaceBinaryOperator_(({_ARITHMETIC})_({_ARITHMETIC})|({_SETS})_({_SETS}))"
    rf"|ReplaceComparisonOperator_(({_ORDER})_({_ORDER})|Is_IsNot|IsNot_Is)"
    r"|ReplaceUnaryOperator_Delete_\w+"
    r"|NumberReplacer|AddNot|ReplaceTrueWithFalse|ReplaceFalseWithTrue|ReplaceAndWithOr"
    r"|ReplaceOrWithAnd|ReplaceBreakWithContinue|ReplaceContinueWithBreak|ExceptionReplacer"
    r"|RemoveDecorator|ZeroIterationForLoop"
)

JUDGED = ROOT / "benchmarks" / "mutants.toml"
RULER = "\n---\n"


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Attributes:
        path: Relative to the repository.
        line: Of the first line changed, from 1.
        before: The lines taken out.
        after: The lines put in.
        operator: Cosmic Ray's name of the kind of change.
        occurrence: Which of the places in the file where that operator applies.
    """

    path: str
    line: int
    before: str
    after: str
    operator: str
    occurrence: int


@dataclass(frozen=True)
class Tried:
    """A mutant and what its tests said: ``killed``, ``timeout`` or ``survived``."""

    mutant: Mutant
    outcome: str


def program(source: str) -> str:
    """What a source does, annotations left out: they are never evaluated in these files."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            node.annotation = ast.Constant(None)
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
    return ast.dump(tree)


def changed_lines(before: str, after: str) -> tuple[int, str, str]:
    """The first line that differs, what was taken out and what was put in."""
    old, new = before.splitlines(), after.splitlines()
    steps = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    edits = [step for step in steps if step[0] != "equal"]
    first, last = edits[0], edits[-1]
    return first[1] + 1, "\n".join(old[first[1] : last[2]]), "\n".join(new[first[3] : last[4]])


def population(root: Path) -> list[Mutant]:
    """All mutants that are programs, each once."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    mutants = []
    for path in sorted(path for pattern in MUTATED for path in root.glob(pattern)):
        source = path.read_text()
        nodes = list(ast_nodes(get_ast(source)))
        seen = {program(source)}
        for name in sorted(operator_names()):
            if not KINDS.fullmatch(name.partition("/")[2]):
                continue
            operator = get_operator(name)()
            num = sum(1 for node in nodes for _ in operator.mutation_positions(node))
            for occurrence in range(num):
                mutated = mutate_code(source, operator, occurrence)
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", SyntaxWarning)
                        compile(mutated, str(path), "exec")
                    meaning = program(mutated)
                except SyntaxError:
                    continue
                if meaning not in seen:
                    seen.add(meaning)
                    lines = changed_lines(source, mutated)
                    mutants.append(Mutant(str(path.relative_to(root)), *lines, name, occurrence))
    return mutants


def sample(mutants: Iterable[Mutant], num: int, seed: int) -> list[Mutant]:
    """A random sample that keeps a mutant for as long as its own line stays as it is.

    Each mutant draws a number from the seed, its file and its change; the smallest are taken. So a
    change of one function does not draw the whole sample anew, as numbering the mutants would.
    """
    twins: Counter[tuple[str, str, str]] = Counter()
    drawn = []
    for mutant in mutants:
        change = (mutant.path, mutant.before.strip(), mutant.after.strip())
        text = "\n".join((str(seed), *change, str(twins[change])))
        twins[change] += 1
        drawn.append((hashlib.sha256(text.encode()).hexdigest(), mutant))
    chosen = [mutant for _, mutant in sorted(drawn, key=lambda pair: pair[0])[:num]]
    return sorted(chosen, key=lambda mutant: (mutant.path, mutant.line, mutant.operator))


def own_tests(root: Path, path: str) -> list[str]:
    """The test files of a mutated file: they run first and alone, since they end it soonest."""
    found = sorted((root / "tests").glob(f"**/test_{Path(path).stem}*.py"))
    if "families" in path:
        found.insert(0, root / "tests/metrics/test_measure.py")
    names = [str(test.relative_to(root)) for test in found]
    return [name for name in names if name.startswith(TESTS)]


def command(*runs: Sequence[str]) -> str:
    """Some tests, and, where they pass, others."""
    lines = (" ".join((PYTEST, *map(shlex.quote, tests))) for tests in runs if tests)
    return f"sh -c {shlex.quote(' && '.join(lines))}"


def enter_copy(folder: str) -> None:
    """Give a worker a copy of the repository of its own, and go there."""
    home = tempfile.mkdtemp(dir=folder)
    ignored = shutil.ignore_patterns(".*", "__pycache__", "reports", "build", "dist")
    shutil.copytree(ROOT, home, ignore=ignored, dirs_exist_ok=True)
    os.chdir(home)
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["HYPOTHESIS_PROFILE"] = "dev"


def run_tests(mutant: Mutant | None, timeout: float) -> tuple[str, str, float]:
    """What the tests say of a mutant (of the files as they are: None), their output and seconds.

    A failure outside the file's own tests is believed where it happens twice; and where pytest could
    not even start, only while it still can on the files as they are. A busy machine is no fault.
    """
    own = own_tests(Path.cwd(), mutant.path) if mutant else []
    start = time.monotonic()
    outcome, output = once(mutant, command(own, TESTS), timeout)
    failed = re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.MULTILINE)
    if mutant is not None and outcome == "killed":
        if not failed and once(None, command(TESTS), timeout)[0] != "survived":
            raise RuntimeError(f"{output}\nThe tests no longer run without any mutant.")
        if failed and not failed[0].startswith(tuple(own) or "-"):
            outcome, again = once(mutant, command(failed), timeout)
            if outcome == "survived":  # it did not fail alone: all of them once more
                outcome, again = once(mutant, command(TESTS), timeout)
            output += again
    return outcome, output, time.monotonic() - start


def once(mutant: Mutant | None, tests: str, timeout: float) -> tuple[str, str]:
    """``killed``, ``timeout`` or ``survived``, and the output of a test command."""
    from cosmic_ray.mutating import mutate_and_test
    from cosmic_ray.work_item import MutationSpec, TestOutcome

    # Examples that failed on the mutant before would be tried on this one first.
    shutil.rmtree(".hypothesis", ignore_errors=True)
    changes = []
    if mutant is not None:
        place = {"start_pos": (mutant.line, 0), "end_pos": (mutant.line, 1)}
        changes = [
            MutationSpec(mutant.path, mutant.operator, mutant.occurrence, **place)  # type: ignore[arg-type]
        ]
    result = mutate_and_test(changes, tests, timeout)
    output = result.output or ""
    if result.test_outcome is TestOutcome.SURVIVED:
        return "survived", output
    if result.test_outcome is not TestOutcome.KILLED:
        raise RuntimeError(output or f"Cosmic Ray made no mutant of {mutant}")
    return "timeout" if output == "timeout" else "killed", output


def run_sample(mutants: Sequence[Mutant], end: float) -> list[Tried]:
    """Test the mutants, two at once, after the files as they are have passed in both copies."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(WORKERS, initializer=enter_copy, initargs=(folder,)) as pool,
    ):
        unchanged = list(pool.map(run_tests, [None] * WORKERS, [600.0] * WORKERS))
        for outcome, output, _ in unchanged:
            if outcome != "survived":
                sys.exit(f"{output}\nThe tests fail without any mutant. Mend them first.")
        timeout = max(120.0, 6 * max(seconds for _, _, seconds in unchanged))
        pending = [(mutant, pool.submit(run_tests, mutant, timeout)) for mutant in mutants]
        tried = []
        for number, (mutant, future) in enumerate(pending, start=1):
            try:
                outcome, output, seconds = future.result(timeout=max(0.0, end - time.monotonic()))
            except TimeoutError:
                pool.shutdown(wait=False, cancel_futures=True)
                sys.exit(f"{len(mutants) - len(tried)} mutants left after {LIMIT_SECONDS} s.")
            tried.append(Tried(mutant, outcome))
            place = f"{mutant.path}:{mutant.line}"
            by = " ".join(re.findall(r"^(?:FAILED|ERROR) .+", output, re.MULTILINE))
            print(
                f"{number}/{len(mutants)} {outcome} ({seconds:.0f} s) {place} {by[:200]}",
                file=sys.stderr,
                flush=True,
            )
    return tried


def judgement(mutant: Mutant, judged: Sequence[dict[str, Any]]) -> str | None:
    """Why nothing can notice a mutant, as written by hand; None where no one has said so."""
    change = (mutant.path, mutant.before.strip(), mutant.after.strip())
    for row in judged:
        if (row["path"], row["before"].strip(), row["after"].strip()) == change:
            return str(row["reason"])
    return None


def share(count: int, total: int) -> str:
    """A share in percent with its exact 95 % interval."""
    interval = binomtest(count, total).proportion_ci(method="exact")
    return f"{100 * count / total:.1f} % [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def report(
    tried: Sequence[Tried],
    judged: Sequence[dict[str, Any]],
    *,
    seed: int,
    size: int,
    seconds: float,
    versions: str,
) -> str:
    """The result as Markdown."""
    outcomes = Counter(one.outcome for one in tried)
    noticed = outcomes["killed"] + outcomes["timeout"]
    survivors = [
        (one.mutant, judgement(one.mutant, judged)) for one in tried if one.outcome == "survived"
    ]
    equivalent = sum(reason is not None for _, reason in survivors)
    lines = [
        "| | |",
        "|---|---|",
        f"| mutants tested | {len(tried)} of {size}, drawn with seed {seed} |",
        f"| killed | {noticed}: **{share(noticed, len(tried))}** |",
        f"| of these by the time limit | {outcomes['timeout']} |",
        f"| survived | {len(survivors)}, of which {equivalent} change nothing that can be seen |",
        f"| took | {seconds:.0f} s on {WORKERS} cores, {datetime.now(UTC):%Y-%m-%d} |",
        f"| versions | {versions} |",
        "",
        "| file | tested | killed |",
        "|---|---|---|",
    ]
    paths = Counter(one.mutant.path for one in tried)
    for path, num in sorted(paths.items()):
        alive = sum(mutant.path == path for mutant, _ in survivors)
        lines.append(f"| `{path}` | {num} | {num - alive} |")
    lines += ["", "## Survivors", ""]
    if not survivors:
        lines += ["None.", ""]
    for mutant, reason in survivors:
        diff = [f"-{line}" for line in mutant.before.splitlines()]
        diff += [f"+{line}" for line in mutant.after.splitlines()]
        operator = mutant.operator.partition("/")[2]
        verdict = f"Equivalent: {reason}" if reason else "**No test notices it.**"
        lines += [f"`{mutant.path}:{mutant.line}` ({operator})", "", "```diff", *diff, "```", ""]
        lines += [verdict, ""]
    return "\n".join(lines)


HEAD = """# Do the tests of the metrics notice a fault?

`make mutants` changes `fls_bench/scaling.py` and `fls_bench/metrics/` in one small place at a time (an
operator, a number, a comparison, a condition, a loop, a decorator: Cosmic Ray's mutants) and runs their
fast unit tests. A mutant that the tests pass with has survived, and stands below. The sample is fixed by
a seed in `benchmarks/mutants.py`; texts are not changed, nor is what raises at once or repeats another.
Intervals are exact, at 95 %. A time limit counts as killed. Mutants that nothing can notice stay in the
denominator; the reasons stand in `benchmarks/mutants.toml`.

"""


def main() -> None:
    """Draw, test and report; end with an error where too few are killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--mutants", type=int, default=NUM_MUTANTS)
    parser.add_argument("--write", type=Path, help="a page; it is printed where left out")
    arguments = parser.parse_args()
    start = time.monotonic()
    everything = population(ROOT)
    chosen = sample(everything, arguments.mutants, arguments.seed)
    tried = run_sample(chosen, start + LIMIT_SECONDS)
    judged = tomllib.loads(JUDGED.read_text())["equivalent"]
    text = HEAD + report(
        tried,
        judged,
        seed=arguments.seed,
        size=len(everything),
        seconds=time.monotonic() - start,
        versions=", ".join(
            (f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in NAMED))
        ),
    )
    if arguments.write is None:
        print(text)
    else:
        old = arguments.write.read_text() if arguments.write.exists() else ""
        arguments.write.write_text(text + "".join(old.partition(RULER)[1:]))
    killed = sum(one.outcome != "survived" for one in tried)
    if killed < WANTED * len(tried):
        sys.exit(f"{killed} of {len(tried)} mutants were killed, fewer than {WANTED:.0%}.")


if __name__ == "__main__":
    main()
