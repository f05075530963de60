"""Probes of the parts of a term: heads and stored patterns."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._checks import sizes
from .._types import Scalar
from ..energy import FreeEnergy
from ..flow import AbstractField
from ._probes import learned, seen


def energy_by_part(time: Scalar, state: PyTree[Array], field: AbstractField) -> dict[str, Float[Array, "..."]]:
    """The energy of every term that has parts: of an attention by head and query, of a memory by token and pattern.

    Where patterns compete in a soft minimum each has its share of the energy, `p_m E`.

    **Arguments:** `time`, `state`, `field` as `solve` passes them.

    **Returns:** by name of the term, in nats: `(H, L)` of an attention, `(L, M)` of what stores patterns. The sum over
    heads or patterns is the term of `F` at each token.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    field = ed.flow.Relaxation(model.energy, ed.flow.Masked(8))
    parts = ed.probe.energy_by_part(jnp.zeros(()), jnp.ones((8, 16)), field)
    assert parts["attention 1"].shape == (1, 8) and parts["memory 1"].shape == (8, 32)
    ```
    """
    energy, g = _activations(time, state, field)
    split = {**energy.network.heads(g), **energy.network.memories(g)}
    return {name: parts[0] / energy.kappa for name, parts in split.items()}


def strongest_memories(
    time: Scalar, state: PyTree[Array], field: AbstractField, *, count: int = 3
) -> dict[str, dict[str, Array]]:
    """The stored patterns that are most active at each token, and the tokens they favour.

    The strength of a pattern is its activation times the norm of its value (its answer, or the pattern itself). It
    favours the tokens whose patterns overlap most with its value.

    **Arguments:**

    - `time`, `state`, `field` as `solve` passes them.
    - `count`: memories of each token, and tokens of each memory, at most.

    **Returns:** for each term that stores patterns by name a dict: `memory (L, count)`, which patterns, strongest
    first; `strength (L, count)`; `tokens (L, count, count)`, the ids that each of them favours most.

    **Raises:** `ValueError` if `count` is not positive.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    field = ed.flow.Relaxation(model.energy, ed.flow.Masked(8))
    found = ed.probe.strongest_memories(jnp.zeros(()), jnp.ones((8, 16)), field, count=2)
    assert found["memory 1"]["tokens"].shape == (8, 2, 2)
    ```
    """
    sizes(count=count)
    energy, g = _activations(time, state, field)
    found = {}
    for name, (_, active, answer) in energy.network.memories(g).items():
        if active is None or answer is None:
            continue
        strength, memory = jax.lax.top_k(
            jnp.abs(active) * jnp.linalg.norm(answer, axis=-1), min(count, active.shape[1])
        )
        # a pattern with a negative activation favours the tokens that its value disfavours
        sign = jnp.sign(jnp.take_along_axis(active, memory, axis=1))
        scores = sign[..., None] * (answer @ energy.vocabulary.patterns.T)[memory]
        tokens = jax.lax.top_k(scores, min(count, energy.size))[1]
        found[name] = {"memory": memory, "strength": strength, "tokens": tokens}
    return found


def _activations(time, state, field) -> tuple[FreeEnergy, Float[Array, "L D"]]:
    """The energy, and the activations `g` at this moment."""
    y, b = seen(time, state, field)
    energy = learned(field)
    return energy, energy.activation(y, b)
