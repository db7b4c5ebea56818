"""A replica in Python: joins a job as a browser does, and computes with JAX. Knows no service from inside."""

from crowdlearn.replica.actions import State
from crowdlearn.replica.fleet import Fleet, Summary
from crowdlearn.replica.gateway import Gateway, parse_address
from crowdlearn.replica.replica import Replica

__all__ = ["Fleet", "Gateway", "Replica", "State", "Summary", "parse_address"]
