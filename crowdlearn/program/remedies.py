"""What to write instead of what JAX cannot trace: one sentence's end for each error that a user's function meets."""

from __future__ import annotations

import re
from collections.abc import Iterator

from crowdlearn.program.advice import ADVICE

NUMPY = (
    "NumPy, SciPy, scikit-learn and pandas cannot compute with what JAX traces: write it with jax.numpy (np.mean is "
    "jnp.mean), or make it an array of the data beforehand"
)

BYTE_ORDER = "a constant has another byte order than JAX takes: write x.astype(x.dtype.newbyteorder('='))"

BY_TYPE = {
    "TracerArrayConversionError": NUMPY,
    "TracerBoolConversionError": (
        "Python cannot branch on a traced value: write jnp.where(condition, a, b) for if, & and | for and and or, "
        "jnp.maximum for max"
    ),
    "TracerIntegerConversionError": (
        "a traced value is no index, size or count of Python: make what it picks from an array, jnp.asarray(x)[i], and "
        "take sizes from x.shape"
    ),
    "NonConcreteBooleanIndexError": (
        "a mask would give a shape that depends on values: write jnp.where(mask, x, 0.0), and divide by mask.sum() for "
        "a mean; for x.at[mask].set(y) write jnp.where(mask, y, x)"
    ),
    "ConcretizationTypeError": (
        "float(x), int(x), x.item(), math.exp(x) and sizes that depend on values (jnp.unique, jnp.nonzero) are not "
        "known while JAX traces: keep the array, use jax.numpy, take sizes from x.shape or give size=..."
    ),
    "UnexpectedTracerError": (
        "a value of one call was kept for another, in a global, an attribute or a list: return it, and pass it on"
    ),
    "KeyReuseError": "split the key for every draw: first, second = jax.random.split(key)",
}
"""By the name of an error's class: nothing of JAX need be imported to compare."""

BY_WORDS = {
    "scatter_mul gradients": "where no index repeats, say so: .at[i].multiply(x, unique_indices=True); otherwise write "
    "jnp.prod(jnp.where(i[:, None] == jnp.arange(n), x[:, None], 1), 0), or the same of segment ids",
    "scatter_apply JVP": "write .at[i].set(f(x[i])) for .at[i].apply(f)",
    "Pred must be a scalar": "a condition is one truth value: write jnp.any(x) or jnp.all(x), or jnp.where(x, a, b) to "
    "choose each element",
    "Reverse-mode differentiation does not work for lax.while_loop": "a loop with gradients has a bound: write "
    "crowdlearn.bounded_while(cond, body, init, max_steps=...)",
    "item assignment": "arrays of JAX do not change: write x = x.at[i].set(value)",
    "assignment destination is read-only": "arrays do not change here: write x = jnp.asarray(x).at[i].set(value)",
    "callbacks do not support": "a browser has no Python: write the computation in JAX; to print, use jax.debug.print",
    "concrete values of integer type": "sizes are not known while JAX traces: take them from x.shape",
    "unsupported format string": "values are not known while JAX traces: print them with jax.debug.print",
    "Dtype >": BYTE_ORDER,
    "with dtype >": BYTE_ORDER,
    **dict.fromkeys(
        ("bounds for int8", "bounds for uint8", "bounds for int16", "bounds for uint16"),
        "JAX computes in the type of the array: convert it first, x.astype(jnp.int32)",
    ),
    "as an abstract array": "jax.numpy computes with numbers: take a field of a structured array, x['name'], and write "
    "texts and objects as numbers",
    "JitTracer": NUMPY,
    "JVPTracer": NUMPY,
    "DynamicJaxprTracer": NUMPY,
    "float64": "an array was made with x64 switched on: write x.astype(jnp.float32)",
    "RESOURCE_EXHAUSTED": "there is not enough memory here: try a smaller batch_size",
}
"""By what an error says, or one that caused it. The first that fits."""

SHAPES = ("shape", "dimension", "broadcast", "ndim", "axis", "axes")
"""Words of an error that the shapes of all arrays explain."""


MODE = "JAX cannot check indices while it traces: write mode='clip', or mode='wrap'"
"""For functions that raise if an index is out of range, unless told otherwise: jnp.choose, jnp.ravel_multi_index."""


def remedy(error: BaseException) -> str | None:
    """What to write instead; None where the error says all there is."""
    chain = list(_chain(error))
    if any("mode='raise'" in str(each) for each in chain):
        return MODE
    for each in chain:
        for kind in type(each).__mro__:
            if kind.__name__ in BY_TYPE:
                return BY_TYPE[kind.__name__]
    for each in chain:
        found = _attribute(each) or _derivative(each)
        if found:
            return found
    return next((found for words, found in BY_WORDS.items() if any(words in str(each) for each in chain)), None)


def is_of_shapes(error: BaseException) -> bool:
    """Whether the shapes of the arrays would help."""
    return isinstance(error, TypeError | ValueError | IndexError) and any(word in str(error) for word in SHAPES)


def _attribute(error: BaseException) -> str | None:
    if isinstance(error, AttributeError) and "Tracer" in type(error.obj).__name__:
        return f"arrays of JAX have no `.{error.name}`: jax.numpy has the functions for them"
    return None


def _derivative(error: BaseException) -> str | None:
    named = re.search(r"ifferentiation rule for '(\w+)' not implemented", str(error))
    if named is None:
        return None
    return f"write {ADVICE.get(named[1], 'it in functions of which JAX knows the derivative')} instead"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that caused it: scikit-learn tells only that it got no array."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
