"""A user's own package: fls-bench knows nothing about it."""
