"""Data by name, and the user's own: arrays in three parts, redrawn with a seed.

What is chosen (c*, learning rates) is chosen on training or validation data; regime and gain are
measured on a test part that chose nothing. Finite data keep one fixed test part, and the seed
redraws training and validation from the rest; generated data are redrawn whole.
"""

from fls_bench.tasks.arrays import arrays_source, npz_source
from fls_bench.tasks.sources import TASKS, function_source, load_task, named_source, task_source
from fls_bench.tasks.task import MIN_PER_PART, Array, Labels, Task, TaskSource, make_task

__all__ = [
    "MIN_PER_PART",
    "TASKS",
    "Array",
    "Labels",
    "Task",
    "TaskSource",
    "arrays_source",
    "function_source",
    "load_task",
    "make_task",
    "named_source",
    "npz_source",
    "task_source",
]
