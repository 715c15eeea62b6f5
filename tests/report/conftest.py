"""Puts the folder with report_fixtures.py on the path, however the tests were started."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
