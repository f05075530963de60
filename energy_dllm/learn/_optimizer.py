"""The optimizer that `fit` takes by default."""

import functools
import math
from typing import NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from .._checks import sizes
from ..energy import HMMVocabulary


def default_optimizer(
    learning_rate: float, steps: int, *, decay: float = 0.1, tables: float = 8.0
) -> optax.GradientTransformation:
    """Muon for matrices, Adam for the rest, on gradients clipped to norm 1.

    A matrix moves by `0.2 sqrt(max(n, m)) eta U V^T`, where `U S V^T` is its averaged gradient: every direction as far
    as every other, an entry about as far as under Adam. It also shrinks by `decay eta`: without that matrices grow with
    every step, and everything that multiplies them has to fade. A matrix is the last two axes of a parameter, if both
    are at least 16 long. Both share one schedule of `eta`: warmed up over 5 % of `steps`, then a cosine down to 5 %.

    **Arguments:**

    - `learning_rate`: peak of `eta`.
    - `steps`: length of the schedule.
    - `decay`: of matrices, not negative.
    - `tables`: how much farther than all else the logits of a `HMMVocabulary` move, positive.

    **Returns:** an `optax.GradientTransformation`.

    **Raises:** `ValueError` if `learning_rate`, `steps` or `tables` is not positive or `decay` is negative.

    **Source:** Jordan et al. 2024 (Muon); Liu et al. 2025 (arXiv 2502.16982) for the scale and the decay.

    ??? cite "Reference"

        ```bibtex
        @misc{jordan2024muon,
          title={Muon: An Optimizer for Hidden Layers in Neural Networks},
          author={Jordan, Keller and Jin, Yuchen and Boza, Vlado and You, Jiacheng and Cesista, Franz and Newhouse,
            Laker and Bernstein, Jeremy},
          year={2024}
        }
        ```

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    optimizer = ed.learn.default_optimizer(1e-2, steps=100)
    state = optimizer.init({"matrix": jnp.ones((16, 16)), "bias": jnp.ones(16)})
    ```
    """
    sizes(steps=steps)
    if not 0 < learning_rate < np.inf:
        raise ValueError(f"`learning_rate` is {learning_rate}; expected a positive number, such as 1.2e-2.")
    if not 0 <= decay < np.inf:
        raise ValueError(f"`decay` is {decay}; expected 0 (none) or more, such as 0.1.")
    if not 0 < tables < np.inf:
        raise ValueError(f"`tables` is {tables}; expected a positive factor, such as 8.")
    muon = _muon(int(steps), float(decay), float(tables))

    def init(params):
        *before, paced = cast(tuple, muon.init(params))
        return (*before, paced._replace(peak=jnp.asarray(learning_rate, jnp.float32)))

    return optax.GradientTransformation(init, muon.update)


@functools.cache
def _muon(steps: int, decay: float, tables: float) -> optax.GradientTransformation:
    """The same object for the same numbers: what is compiled for one training serves the next, at any peak rate."""
    matrices = optax.chain(optax.trace(0.95, nesterov=True), optax.stateless(lambda changes, _: _turned(changes)))
    rest = optax.scale_by_adam(b1=0.9, b2=0.99, nesterov=True)
    moved = optax.partition({"matrix": matrices, "rest": rest}, _kinds)
    clipped = optax.clip_by_global_norm(1.0)
    return optax.chain(clipped, moved, optax.scale(-1.0), _shrink(decay), _quicken(tables), _paced(steps))


def _turned(changes: PyTree[Array]) -> PyTree[Array]:
    """`0.2 sqrt(max(n, m)) U V^T` of every matrix `U S V^T`: scaled so that an entry moves as far as it would under
    Adam. All matrices of one shape are one batch, so that a deep model compiles no more products than a shallow one."""
    leaves, tree = jax.tree.flatten(changes)
    alike: dict[tuple, list[int]] = {}
    for n, leaf in enumerate(leaves):
        alike.setdefault((leaf.shape[-2:], leaf.dtype), []).append(n)
    muon = optax.contrib.scale_by_muon(
        beta=0.0, nesterov=False, weight_dimension_numbers=optax.contrib.MuonDimensionNumbers(1, 2)
    )
    for (shape, _), members in alike.items():
        batch = jnp.concatenate([leaves[n].reshape(-1, *shape) for n in members])
        batch = 0.2 * max(shape) ** 0.5 * muon.update(batch, muon.init(batch))[0]
        for n in members:
            count = leaves[n].size // math.prod(shape)
            leaves[n], batch = batch[:count].reshape(leaves[n].shape), batch[count:]
    return jax.tree.unflatten(tree, leaves)


class _Pace(NamedTuple):
    """Steps that were taken, and the peak of the schedule, which is state so that it is no part of the program."""

    step: Array
    peak: Array


def _paced(steps: int) -> optax.GradientTransformation:
    """Changes times `eta`: warmed up over 5 % of the steps, then a cosine down to 5 % of the peak."""
    warmup = max(1, steps // 20)
    share = optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup, max(steps, warmup + 1), 0.05)

    def update(updates, state, params=None):
        eta = state.peak * share(state.step)
        scaled = jax.tree.map(lambda change: (eta * change).astype(change.dtype), updates)
        return scaled, state._replace(step=optax.safe_increment(state.step))

    init = lambda params: _Pace(jnp.zeros((), jnp.int32), jnp.ones((), jnp.float32))
    return optax.GradientTransformation(init, update)


def _shrink(decay: float) -> optax.GradientTransformation:
    """Matrices lose `decay` of themselves, those that move at all: token codes are fixed, and stay."""

    def one(leaf, change):
        return change if not _matrix(leaf) else change - decay * jnp.any(change != 0) * leaf

    return optax.stateless(lambda changes, parameters: _each(one, parameters, changes))


def _quicken(tables: float) -> optax.GradientTransformation:
    """Logits move farther than weights: from one chance in a hundred to nine in ten are seven of them."""
    return optax.stateless(lambda changes, _: _each(lambda change: change, changes, otherwise=lambda c: tables * c))


def _kinds(parameters: PyTree[Array]) -> PyTree[str]:
    """Which parameters are matrices."""
    kind = lambda leaf: "matrix" if _matrix(leaf) else "rest"
    return _each(kind, parameters, otherwise=lambda leaf: "rest")


def _each(function, parameters, *rest, otherwise=lambda leaf, *rest: rest[0]):
    """`function` of every leaf, `otherwise` of those that are the logits of a table, which are no map of anything."""

    def one(node, *rest):
        if not isinstance(node, HMMVocabulary):
            return function(node, *rest)
        tables = jax.tree.map(otherwise, node, *rest)
        patterns = jax.tree.map(function, node.patterns, *(other.patterns for other in rest))
        return eqx.tree_at(lambda node: node.patterns, tables, patterns, is_leaf=lambda leaf: leaf is None)

    return jax.tree.map(one, parameters, *rest, is_leaf=lambda node: isinstance(node, HMMVocabulary))


def _matrix(leaf: Array) -> bool:
    """Whether the last two axes of a parameter are both long; heads and offsets are a batch of matrices."""
    return leaf.ndim >= 2 and min(leaf.shape[-2:]) >= 16 and leaf.size > 0
