"""The evaluator: scores held-out data on new versions and ends jobs that reach their target. Keeps no state."""

from services.evaluator.service import run

__all__ = ["run"]
