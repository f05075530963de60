"""What is known is looked at by numpy: a compiler that is asked about it builds a program for every shape."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import ArrayLike


def on_device(known: np.ndarray) -> jax.Array:
    """An array of numpy as one of jax. `jnp.asarray` compiles a program for every shape it has not seen."""
    return jax.device_put(np.array(known))  # of a copy: it may share the memory of what it is given


def error_if(fault: Callable[..., ArrayLike], message: str, value: jax.Array, *others: jax.Array) -> jax.Array:
    """`value`, unless `fault(value, *others)` holds anywhere: then the `message`.

    As `equinox.error_if`, which also compiles a program where the values are known; here it is asked only about those
    that are being traced, and about those at fault.

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
    return eqx.error_if(value, fault(*known), message)
