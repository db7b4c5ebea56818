"""The program: a traced model as a flat list of JAX primitives, written as JSON. See docs/program.md.

`trace` needs JAX and imports it when called; everything else here is NumPy.
"""

from crowdlearn.program.interpret import evaluate
from crowdlearn.program.model import Equation, Program, ValueType, decode, encode
from crowdlearn.program.trace import trace, traced

__all__ = ["Equation", "Program", "ValueType", "decode", "encode", "evaluate", "trace", "traced"]
