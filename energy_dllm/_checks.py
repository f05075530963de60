"""Checks of arguments. Concrete values are checked by numpy, so that nothing is compiled for it."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float


Patterns = Float[Array | np.ndarray, "M N"] | Sequence[Float[Array | np.ndarray, " N"]]


def on_device(known: np.ndarray) -> jax.Array:
    """A numpy array on the device. Unlike `jnp.asarray` it compiles nothing for a new shape."""
    return jax.device_put(np.array(known))  # of a copy: it may share the memory of what it is given


def error_if(fault: Callable[..., ArrayLike], message: str, value: jax.Array, *others: jax.Array) -> jax.Array:
    """`value`, unless `fault(value, *others)` holds anywhere: then the `message`.

    As `equinox.error_if`, which also compiles a program where the values are known; here it is asked only about those
    that are being traced. What is known to be at fault is a `ValueError`.

    **Arguments:**

    - `fault`: true where something is wrong, in operators alone: it is given arrays of numpy or of jax.
    - `message`: what was expected and the usual fix.
    - `value`, `others`: arrays, handed to `fault`; the first is returned.
    """
    known: list[Any] = [value, *others]
    if not any(isinstance(array, Tracer) for array in known):
        with np.errstate(invalid="ignore"):  # comparing NaN
            if not np.any(fault(*map(np.asarray, known))):
                return jnp.asarray(value)  # of numpy, if the shapes are not checked
        raise ValueError(message)
    return eqx.error_if(value, fault(*known), message)


def sizes(least: int = 1, /, **sizes: int | np.integer) -> None:
    """`ValueError` naming the first of these numbers that is no integer of at least so much."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < least:
            wanted = "a positive integer" if least == 1 else f"an integer of at least {least}"
            raise ValueError(f"`{name}` is {size}; expected {wanted}.")


def one_a_token(length: int, **arrays: Any) -> None:
    """`ValueError` naming the first of these that is not `(L,)`; `None` is left out."""
    for name, array in arrays.items():
        if array is not None and np.shape(array) != (length,):
            raise ValueError(f"`{name}` has shape {np.shape(array)}; expected ({length},), one a token.")


def seeded(seed: int) -> None:
    """`ValueError` unless it is an integer of 32 bits, which every generator takes."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise ValueError(f"`seed` is {seed!r}; expected an integer of at least 0 and below 2**32.")


def number(name: str, value: Any, fits: Callable[[Any], Any], words: str) -> None:
    """`ValueError` naming a number, of Python, numpy or jax, that does not fit; of one that is traced nothing is asked.

    **Arguments:**

    - `name`, `value`: the argument.
    - `fits`: true of the numbers that are allowed; false of NaN.
    - `words`: what was expected, and the usual fix.
    """
    if isinstance(value, Tracer):
        return
    array = np.asarray(value)
    real = jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)
    if not real or not np.all(fits(array)):
        raise ValueError(f"`{name}` is {repr(value) if isinstance(value, str) else value}; expected {words}.")


def positive(number: Any) -> Any:
    """Whether it is above 0 and finite."""
    return (number > 0) & (number < np.inf)


def booleans(name: str, values: Any) -> jax.Array:
    """An array of booleans; `ValueError` naming it unless it is one, of booleans or of zeros and ones."""
    values = values if isinstance(values, jax.Array) else np.asarray(values)
    if values.dtype == bool:
        return jnp.asarray(values)
    words = (
        f"`{name}` is {values.dtype}{list(values.shape)}; expected booleans, or zeros and ones, such as `array != 0`."
    )
    if not jnp.issubdtype(values.dtype, jnp.integer):
        raise ValueError(words)
    return error_if(lambda values: (values != 0) & (values != 1), words, values).astype(bool)


def tokens(ids: Any, size: int | None = None) -> jax.Array:
    """Token ids `(L,)`; `ValueError` unless they are integers and, where known, in a vocabulary of this size."""
    ids = jnp.asarray(ids)
    if ids.ndim != 1 or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(f"`ids` is {ids.dtype}{list(ids.shape)}; expected integers (L,); `vmap` for a batch.")
    if size is not None and concrete(ids) and np.any((np.asarray(ids) < 0) | (np.asarray(ids) >= size)):
        raise ValueError(f"`ids` has a token outside the vocabulary of {size}; encode with its tokenizer.")
    return ids


def is_value(number: Any, value: float) -> bool:
    """Whether a number has this value; of an array, which may be traced, nothing is asked."""
    return not isinstance(number, jax.Array) and number == value


def expected(**arguments: tuple[Any, type | tuple[type, ...], str]) -> None:
    """`ValueError` naming the first argument that is neither `None` nor of its type; each has an example of it."""
    for name, (value, kind, example) in arguments.items():
        if value is not None and not isinstance(value, kind):
            shown = f"a {type(value).__name__}" if isinstance(value, eqx.Module | jax.Array) else repr(value)
            raise ValueError(f"`{name}` is {shown}; expected an object such as {example}.")


def forward_mode(tree: Any) -> bool:
    """Whether a value is being differentiated in forward mode, at any level."""
    for leaf in jax.tree.leaves(tree):
        while isinstance(leaf, Tracer):
            if type(leaf).__name__ == "JVPTracer":
                return True
            leaf = getattr(leaf, "primal", getattr(leaf, "val", None))
    return False


def concrete(tree: Any) -> bool:
    """Whether all values are known, none of them traced."""
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def finite(tree: Any) -> bool:
    """Whether no known number is NaN or infinite; of those that are traced nothing is asked."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if not isinstance(leaf, Tracer)]
    return all(bool(np.isfinite(np.asarray(leaf)).all()) for leaf in leaves if eqx.is_inexact_array_like(leaf))


def floats(array: Any) -> jax.Array:
    """An array of floats: integers and booleans are converted."""
    array = jnp.asarray(array)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)


def stored(patterns: Patterns, weights: Array | None) -> tuple[Float[Array, "M N"], Float[Array, " M"]]:
    """Validated patterns and log-weights as leaves."""
    if isinstance(patterns, (list, tuple)):
        shapes = sorted({np.shape(pattern) for pattern in patterns})
        if len(shapes) > 1:
            raise ValueError(f"`patterns` have the shapes {shapes}; expected one shape (N,) for all, pad or cut them.")
    rows = floats(patterns)
    if rows.ndim != 2 or 0 in rows.shape:
        raise ValueError(f"`patterns` has shape {rows.shape}; expected (M, N) with at least one pattern, one a row.")
    infinite = lambda rows: ~(abs(rows) < np.inf)
    rows = error_if(infinite, "`patterns` must be finite; one has a NaN or an infinity.", rows)
    if weights is None:
        return rows, jnp.zeros(rows.shape[0], rows.dtype)
    weights = jnp.asarray(weights, rows.dtype)
    if weights.shape != rows.shape[:1]:
        raise ValueError(f"`weights` has shape {weights.shape}; expected ({rows.shape[0]},), one a pattern.")
    fault = lambda weights: ~((weights > 0) & (weights < np.inf))
    return rows, jnp.log(error_if(fault, "`weights` must be positive; remove a pattern instead of 0.", weights))


def log_positive(name: str, value: Float[Array, ""] | float, dtype) -> Float[Array, ""]:
    """The logarithm of a parameter that must be positive."""
    number(name, value, positive, "a positive number")
    if isinstance(value, Tracer):
        value = error_if(lambda value: ~positive(value), f"`{name}` must be positive and finite.", value)
    return jnp.log(jnp.asarray(value, dtype))
