"""Probes at recorded times: compiled once, read after the motion."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ._cached import CachedField
from ._field import AbstractField


BATCH = 8
"""Records that the probes read at once."""
UNKNOWN = (
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
"""What JAX raises where a shape or a branch would depend on a value."""


def observed(probes, records, field):
    """Every probe at every record, after the motion: read inside of it, each would be compiled several times over."""
    if not probes:
        return {}
    reached = jnp.isfinite(records[0])  # diffrax marks times that were never reached with infinity
    mark = lambda leaf, other: jnp.where(reached.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, other)
    # the last record always exists: it stands in where there is nothing to read
    safe = jax.tree.map(lambda leaf: mark(leaf, leaf[-1]), records)

    arrays, rest = eqx.partition(field, eqx.is_array)

    def read(record):
        # tied to the record, so that XLA cannot move parts of each probe out of the loop, where it would no longer see
        # that the probes have what is left in common
        here, record = jax.lax.optimization_barrier((arrays, record))
        now = eqx.combine(here, rest)
        moment = CachedField(now, *record) if isinstance(now, AbstractField) else now
        return {name: _ask(name, probe, record, moment) for name, probe in probes.items()}

    # several records at once keep the processor busy; filled up, so that no smaller batch is compiled as well
    number = reached.shape[0]
    batch = min(number, BATCH)
    fill = lambda leaf: jnp.concatenate([leaf, jnp.repeat(leaf[-1:], -number % batch, axis=0)])
    found = jax.lax.map(read, jax.tree.map(fill, safe), batch_size=batch)
    return jax.tree.map(lambda leaf: mark(leaf[:number], _never(leaf.dtype)), found)


def _ask(name, probe, record, field):
    """What a probe answers: arrays, whose shapes no value of the record can change."""
    wrong = f"the probe {name!r} must return arrays of the same shapes at every time"
    try:
        answer = probe(*record, field)
    except UNKNOWN as error:
        raise ValueError(
            f"{wrong}, but its course depends on values of the record; use `jnp.where` in place of `if` and masks."
        ) from error
    odd = [leaf for leaf in jax.tree.leaves(answer) if not eqx.is_array_like(leaf)]
    if odd:
        raise ValueError(f"{wrong}, but it returns a {type(odd[0]).__name__}; leave it out, or make it a number.")
    return jax.tree.map(jnp.asarray, answer)


def _never(dtype: Any) -> Any:
    """What marks a record that was not made: infinity, or the largest integer there is."""
    return jnp.iinfo(dtype).max if jnp.issubdtype(dtype, jnp.integer) else jnp.asarray(jnp.inf, dtype)
