"""The checkpointer: writes checkpoints of jobs to a folder while they train. Keeps no state but what it wrote."""

from services.checkpointer.service import Plan, run

__all__ = ["Plan", "run"]
