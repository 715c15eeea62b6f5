"""``python -m fls_bench``."""

from fls_bench.cli import main

if __name__ == "__main__":
    main()
