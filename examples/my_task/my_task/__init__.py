"""The catalogue of this plug-in. It is read at every start of zeta-bench, so it imports no torch."""

from zeta_bench.registry import Task

TASKS = {"successor": Task("my_task.task:Successor", "which token followed this one the first time?")}
