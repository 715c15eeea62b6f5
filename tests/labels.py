"""Names of parametrised cases: the same in every process, which parallel runs of the tests need."""

import re


def label(value: object) -> str:
    """The value as text, without the addresses of functions."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))
