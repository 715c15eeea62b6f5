"""Model files in and out, without ever executing anything that a file brings along.

``contents`` says what a model file holds and what must be true of it, ``sniffing`` recognizes what
is not one, ``pickles`` reads tensor descriptions from a pickle without unpickling it, ``reading``
and ``writing`` do the two directions.
"""

from fls_bench.bundle.contents import Bundle, evidence_tier
from fls_bench.bundle.reading import load_bundle
from fls_bench.bundle.writing import save_bundle, write_bundle

__all__ = ["Bundle", "evidence_tier", "load_bundle", "save_bundle", "write_bundle"]
