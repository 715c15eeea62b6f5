"""``python -m fls_bench``."""

import sys

# Python puts the current folder first: code is imported from there with --pythonpath . only.
if not sys.flags.safe_path:
    sys.path.pop(0)

from fls_bench.cli import main

if __name__ == "__main__":
    main()
