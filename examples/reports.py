"""Makes reports/example/: one report of each kind by real commands, and the picture of the README.

    make example-reports

A report is written as JSON and as a page. The picture needs chromium (Debian's package of that name)
and is left as it is where there is none. About three minutes on 2 busy cores.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).resolve().parents[1] / "reports" / "example"

# In order, each after those above it: the report's name, or none where a command makes what later ones
# need; and the command. Files are named relative to a folder that is thrown away.
COMMANDS = (
    (
        "",
        "train --task digits --depth 4 --width 128 --n-train 150 --output-multiplier 2^-9 "
        "-o digits.pt",
    ),
    ("diagnose", "diagnose digits.pt"),
    ("suite", "run quick"),
    ("tune", "tune digits.pt"),
    ("invariants", "invariants digits.pt"),
    # As if someone had cut the epochs: many runs miss their target.
    ("check", "check quick --max-epochs 24"),
    (
        "",
        "train --task digits --depth 4 --width 128 --n-train 150 --output-multiplier 2^1 -o lazy.pt",
    ),
    ("", "diagnose lazy.pt --json lazy.json"),
    ("compare", "compare diagnose.json lazy.json"),
)

PICTURE, WIDTH, HEIGHT = "diagnose", 1280, 1330
MOST_BYTES = 200_000


def make(folder: Path) -> None:
    """Run every command in a folder of its own and keep what it reports."""
    environment = {**os.environ, "FLS_BENCH_STORE": str(folder / "runs")}
    for name, words in COMMANDS:
        print(f"$ fls-bench {words}", flush=True)
        written = [f"{name}.json", f"{name}.html"] if name else []
        outputs = ["--json", written[0], "--html", written[1]] if name else []
        command = [sys.executable, "-m", "fls_bench", *shlex.split(words), *outputs, "--quiet"]
        code = subprocess.run(command, cwd=folder, env=environment, check=False).returncode
        if code not in (0, 1):  # 1: what was asked for was found
            raise SystemExit(f"exit code {code}")
        for file in written:
            shutil.copyfile(folder / file, FOLDER / file)


def photograph(folder: Path) -> None:
    """The top of one page, as a picture."""
    chromium = shutil.which("chromium")
    if chromium is None:
        print("There is no chromium here: the picture stays as it is.")
        return
    taken = folder / "picture.png"
    subprocess.run(
        [
            chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--no-first-run", "--disable-background-networking", "--disable-sync",
            f"--user-data-dir={folder / 'profile'}", f"--window-size={WIDTH},{HEIGHT}",
            f"--screenshot={taken}", (FOLDER / f"{PICTURE}.html").as_uri(),
        ],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    picture = FOLDER / f"{PICTURE}.png"
    # A page has few colours: with 256 of them nothing is lost that one sees.
    Image.open(taken).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
        picture, optimize=True
    )
    size = picture.stat().st_size
    print(f"{picture}: {size / 1000:.0f} kB")
    if size > MOST_BYTES:
        raise SystemExit(f"The picture is larger than {MOST_BYTES / 1000:.0f} kB.")


def main() -> None:
    """Make everything again."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        photograph(Path(folder))


if __name__ == "__main__":
    main()
