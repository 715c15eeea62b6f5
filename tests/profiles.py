"""How many examples Hypothesis draws: HYPOTHESIS_PROFILE = dev (the default), ci or nightly."""

import os

from hypothesis import settings

settings.register_profile("dev", max_examples=25, deadline=None)
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True)
settings.register_profile("nightly", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

FEW = settings(max_examples=max(6, settings.default.max_examples // 4))  # type: ignore[union-attr]
"""For properties whose examples train nets."""
