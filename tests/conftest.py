"""What tests of the command line share: the real entry point, and a store that is nobody's."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import profiles  # noqa: F401 (loads a Hypothesis profile before any test is collected)
import pytest

from fls_bench.cli import main


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


Cli = Callable[..., Ended]


@pytest.fixture(autouse=True)
def nobodys_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No test reads or fills the cache of whoever runs it."""
    monkeypatch.setenv("FLS_BENCH_STORE", str(tmp_path_factory.mktemp("store", numbered=True)))


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run ``fls-bench ARGUMENTS`` in this process, from the entry point to the exit code."""

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Ended(end.value.code, out, err)

    return run


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file that describes itself: a tiny net on few digits. Copy it to change it."""
    path = tmp_path_factory.mktemp("models") / "tiny.pt"
    arguments = f"train -o {path} -q --n-train 50 --depth 2 --width 8 --max-epochs 30"
    with pytest.raises(SystemExit) as end:
        main(arguments.split())
    assert end.value.code == 0
    return path
