"""Models that are ES modules, run by Node: checked before a job is stored, and scored. docs/modules.md."""

from crowdlearn.module.check import Checked, Rows, check
from crowdlearn.module.process import missing
from crowdlearn.module.scorer import ModuleScorer, RunningModule
from crowdlearn.module.source import Source, read

__all__ = ["Checked", "ModuleScorer", "Rows", "RunningModule", "Source", "check", "missing", "read"]
