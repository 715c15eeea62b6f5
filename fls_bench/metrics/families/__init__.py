"""One file per family of metrics: its readers, from a snapshot to the pure functions, and its rows.

A reader yields readings, still tensors, and never raises on bad numbers: an undefined value is NaN,
or None with the reason where the reason is not in the numbers.
"""
