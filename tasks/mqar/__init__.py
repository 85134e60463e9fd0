"""Multi-query associative recall: see README.md in this folder for the specification."""

from zeta_bench.tasks.mqar.task import MQAR

__all__ = ["MQAR"]
