"""The evaluator: scores held-out data on new versions, keeps the best, ends jobs by them. Its state is in Redis."""

from services.evaluator.service import run

__all__ = ["run"]
