"""Model files in and out, without ever executing anything that a file brings along.

``contents`` says what a model file of ours holds and what must be true of it. ``sniffing`` recognizes
a file by its content, ``opening`` opens it as one of ``torch_files`` or ``safetensors_files``, and
``opcodes`` and ``pickles`` read a pickle without unpickling it. ``reading`` and ``writing`` do the two
directions of files of ours, ``checkpoints`` and ``matching`` find a net's weights in those of others.
"""

from fls_bench.bundle.checkpoints import STATES_OF_TRAINING, Checkpoint, load_any
from fls_bench.bundle.contents import Bundle
from fls_bench.bundle.digests import WRAPPERS, state_digest
from fls_bench.bundle.matching import Match, NetShape, match_weights
from fls_bench.bundle.reading import load_bundle
from fls_bench.bundle.writing import save_bundle, stored_task, write_bundle

__all__ = [
    "STATES_OF_TRAINING",
    "WRAPPERS",
    "Bundle",
    "Checkpoint",
    "Match",
    "NetShape",
    "load_any",
    "load_bundle",
    "match_weights",
    "save_bundle",
    "state_digest",
    "stored_task",
    "write_bundle",
]
