"""``python -m fls_bench.report [report|baseline]`` prints the JSON Schema of what is stored."""

import sys

from fls_bench.report import json_schema_text
from fls_bench.schema import Baseline, Report

if __name__ == "__main__":
    print(json_schema_text(Baseline if sys.argv[1:] == ["baseline"] else Report), end="")
