"""``python -m fls_bench.report`` prints the JSON Schema of a report."""

from fls_bench.report import json_schema_text

if __name__ == "__main__":
    print(json_schema_text(), end="")
