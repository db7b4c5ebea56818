"""A replica in Python: joins a job as a browser does, and computes with JAX. Knows no service from inside."""

from crowdlearn.replica.actions import State
from crowdlearn.replica.fleet import Fleet, Summary
from crowdlearn.replica.gateway import Gateway, parse_address

__all__ = ["Fleet", "Gateway", "State", "Summary", "parse_address"]
