"""Who may import whom: the direction of the layers, one owner per third-party name, no early torch.

Imports inside functions count as well; they only make a module cheaper to load.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "fls_bench"

# From the lowest layer to the highest. Files of one folder in one layer are a module in parts and
# may import each other; a file that is not placed itself belongs where its folder does. A new
# module has to be placed here. Bundle stands above models because it checks the net a file names.
LAYERS = (
    ("errors",),
    ("schema",),
    ("scaling", "theory", "homogeneity", "metrics.*", "report.summary", "gates", "files"),
    ("report.charts",),
    ("metrics", "verdict", "tangent", "tasks", "models", "suite", "store", "baselines", "report.*"),
    ("claims", "atlas"),
    ("bundle", "training_setup"),
    ("training", "report", "recorder"),
    ("sweep", "subject"),
    ("facts", "intervention", "flow_sweep", "invariants", "calibrating", "watching"),
    ("evaluating",),
    ("claim_cases",),
    ("bench", "console"),
    ("tuning", "examining", "checking", "comparing", "selftesting", "surveying"),
    ("cli", "testing", "integrations"),
    ("pytest_plugin",),
    ("__main__", "report.__main__"),
)
OWNERS = {
    "rich": ("console",),
    "typer": ("cli",),
    "sklearn": ("metrics.probes", "metrics.references", "tasks", "calibrating", "evaluating"),
    "matplotlib": ("report.charts", "report.overlay", "report.panels"),
    "jinja2": ("report.html",),
    "markupsafe": ("report.html",),
    "scipy": (
        "verdict",
        "theory",
        "homogeneity",
        "metrics.*",
        "tasks",
        "calibrating",
        "evaluating",
    ),
    "safetensors": ("bundle",),
    "joblib": ("training", "bench", "facts"),
    "threadpoolctl": ("metrics.probes", "calibrating", "training.pools"),
    "cloudpickle": ("training.pools",),
    "distributed": ("training.backends", "training.pools"),
    "torch": (
        "homogeneity",
        "theory",
        "flow_sweep",
        "metrics",
        "models",
        "bundle",
        "recorder",
        "training_setup",
        "training",
        "subject",
        "facts",
        "tangent",
        "invariants",
        "examining",
        "testing",
        "watching",
        "integrations",
    ),
    "lightning": ("integrations",),
    "transformers": ("integrations",),
    "hypothesis": ("testing", "invariants"),
    "pytest": ("testing", "pytest_plugin"),
    "PIL": ("tasks",),
    "pyarrow": ("tasks",),
    "mnist1d": ("tasks",),
    "numpy": ("*",),
    "pydantic": ("*",),
}
IMPURE_MODULES = {"os", "io", "pathlib", "time", "datetime", "random", "logging", "sys"}
IMPURE_CALLS = {"open", "print", "input", "item", "cuda"}
GLOBAL_SEEDS = {"torch.manual_seed", "torch.random.manual_seed", "np.random.seed"}
HEAVY = ("torch", "sklearn", "scipy", "matplotlib")


def name_of(path: Path, package: Path) -> str:
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(package: Path) -> dict[str, ast.Module]:
    paths = sorted(package.rglob("*.py"))
    return {name_of(path, package): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def layer(name: str) -> int | None:
    for asked in (name, name.partition(".")[0]):
        for same in (str.__eq__, fnmatchcase):
            for k, placed in enumerate(LAYERS):
                if any(same(asked, pattern) for pattern in placed):
                    return k
    return None


def owns(name: str, third_party: str) -> bool:
    asked = (name, name.partition(".")[0])
    owners = OWNERS.get(third_party, ())
    return any(fnmatchcase(one, owner) for one in asked for owner in owners)


def imports(tree: ast.Module, name: str, is_package: bool) -> Iterator[str]:
    home = ["fls_bench", *name.split(".")] if name else ["fls_bench"]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = len(home) - node.level + is_package
            base = ".".join([*(home[:up] if node.level else []), *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", None))
            if called in ("import_module", "__import__"):
                yield str(node.args[0].value)


def violations(package: Path) -> list[str]:
    trees, found = modules(package), []
    for name, tree in trees.items():
        own = layer(name)
        if name and own is None:
            found.append(f"{name} has no layer")
        is_package = package.joinpath(*name.split("."), "__init__.py").exists()
        for target in imports(tree, name, is_package):
            top, _, rest = target.partition(".")
            if top != "fls_bench":
                if top not in sys.stdlib_module_names and not owns(name, top):
                    found.append(f"{name} imports {top}")
                continue
            public = ""
            while rest not in trees:
                rest, _, public = rest.rpartition(".")
            # The package itself offers its public names lazily, from any layer, to users alone.
            if not name or (not rest and public == "__version__"):
                continue
            lower, folder = layer(rest), name.partition(".")[0]
            one_module = lower == own and folder == rest.partition(".")[0]
            if not rest or lower is None or own is None or not (lower < own or one_module):
                found.append(f"{name} imports fls_bench.{rest or public}")
    return list(dict.fromkeys(found))


def impurities(package: Path) -> list[str]:
    found = []
    for name, tree in modules(package).items():
        if name.partition(".")[0] not in ("metrics", "theory"):
            continue
        for target in imports(tree, name, False):
            if target.partition(".")[0] in IMPURE_MODULES:
                found.append(f"{name} imports {target}")
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = getattr(node.func, "attr", getattr(node.func, "id", None))
                if called in IMPURE_CALLS or ast.unparse(node.func) in GLOBAL_SEEDS:
                    found.append(f"{name} calls {called}")
    return found


def test_imports_go_downward_and_third_parties_have_their_owner() -> None:
    assert violations(PACKAGE) == []


def test_metrics_and_theory_touch_no_file_clock_screen_or_global_random_state() -> None:
    assert impurities(PACKAGE) == []


@pytest.mark.parametrize(
    ("path", "code", "violation"),
    [
        ("helpers.py", "", "helpers has no layer"),
        ("schema.py", "from fls_bench.suite import Suite", "schema imports fls_bench.suite"),
        ("schema.py", "from .suite import Suite", "schema imports fls_bench.suite"),
        ("schema.py", "from . import suite", "schema imports fls_bench.suite"),
        ("schema.py", "import fls_bench.suite", "schema imports fls_bench.suite"),
        ("schema.py", "def f():\n    import fls_bench.suite", "schema imports fls_bench.suite"),
        ("store.py", "from fls_bench import suite", "store imports fls_bench.suite"),
        ("store.py", "from fls_bench import diagnose", "store imports fls_bench.diagnose"),
        ("store.py", "import fls_bench", "store imports fls_bench."),
        ("report/html.py", "import fls_bench.report as r", "report.html imports fls_bench.report"),
        ("report/html.py", "from . import build", "report.html imports fls_bench.report"),
        ("report/html.py", "from ..suite import S", "report.html imports fls_bench.suite"),
        ("store.py", "import rich.table", "store imports rich"),
        ("report/html.py", "def f():\n    from torch import nn", "report.html imports torch"),
        ("verdict.py", "import_module('torch')", "verdict imports torch"),
        ("training/rates.py", "import fls_bench.sweep", "training.rates imports fls_bench.sweep"),
        ("store.py", "import pandas", "store imports pandas"),
    ],
)  # fmt: skip
def test_a_broken_rule_is_seen(tmp_path: Path, path: str, code: str, violation: str) -> None:
    for name in ("__init__.py", "suite.py", "sweep.py", "report/__init__.py", path):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert violations(tmp_path) == ([violation] if not code else [])
    (tmp_path / path).write_text(code)
    assert violations(tmp_path) == [violation]


@pytest.mark.parametrize(
    "code",
    [
        "import time",
        "from pathlib import Path",
        "print(1)",
        "x.sum().item()",
        "torch.manual_seed(0)",
    ],
)
def test_an_impure_metric_is_seen(tmp_path: Path, code: str) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "kernels.py").write_text(code)
    assert len(impurities(tmp_path)) == 1


WITHOUT_TORCH = """
import importlib, importlib.util, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("torch was imported")

sys.meta_path.insert(0, Blocker())
exists = lambda name: importlib.util.find_spec(f"fls_bench.{name}") is not None
import fls_bench
if exists("cli"):
    from typer.testing import CliRunner
    from fls_bench.cli import app
    for arguments, expected in ((["--help"], "diagnose"), (["suites"], "quick")):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, (arguments, result.output, result.exception)
        assert expected in result.output, result.output
for name in ("schema", "scaling", "suite", "store"):
    if exists(name):
        importlib.import_module(f"fls_bench.{name}")
early = [name for name in sys.argv[1:] if name in sys.modules]
assert not early, f"loaded by --help or suites: {early}"
for name in ("verdict", "report", "console"):
    if exists(name):
        importlib.import_module(f"fls_bench.{name}")
"""


def test_help_suites_verdict_and_report_need_no_torch_and_help_loads_nothing_heavy() -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, *HEAVY]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent, check=False)
    assert done.returncode == 0, done.stderr
