"""fls-bench: is a training setup over-aligned, near-optimal or over-fitted?"""

__version__ = "0.1.0.dev0"
