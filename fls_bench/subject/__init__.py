"""What is judged: a model file, anyone's checkpoint or a setup, ready to measure and to train again.

``setups`` turns what a file or a command says into a ``TrainingSetup``, ``snapshots`` runs a net on
its data, ``files`` and ``checkpoints`` bring in what was trained elsewhere, ``inits`` what training
began with.
"""

from fls_bench.subject.checkpoints import from_checkpoint
from fls_bench.subject.files import from_bundle
from fls_bench.subject.given import NOTHING, Given
from fls_bench.subject.setups import built_in_setup, bundle_setup, given_source
from fls_bench.subject.snapshots import snapshot_of
from fls_bench.subject.subject import Subject, from_run

__all__ = [
    "NOTHING",
    "Given",
    "Subject",
    "built_in_setup",
    "bundle_setup",
    "from_bundle",
    "from_checkpoint",
    "from_run",
    "given_source",
    "snapshot_of",
]
