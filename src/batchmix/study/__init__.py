"""Does it help? Runs paired by seed, under the same budget, that differ in the mixing alone."""

from __future__ import annotations

from batchmix.study.plan import Run, StudyPlan
from batchmix.study.records import Study, read_study
from batchmix.study.task import Task

__all__ = ["Run", "Study", "StudyPlan", "Task", "read_study"]
