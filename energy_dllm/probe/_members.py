"""Probes of the parts of a term: heads, stored patterns, tokens."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .._types import Scalar
from ..energy import FreeEnergy
from ..flow import AbstractField
from ._probes import learned, seen


def energy_by_head(time: Scalar, state: PyTree[Array], field: AbstractField) -> dict[str, Float[Array, "H L"]]:
    """The energy of every attention by name, head by head, of each query.

    **Arguments:** `time`, `state`, `field` as `solve` passes them.

    **Returns:** for each attention by name `(H, L)` in nats; the sum over heads is its term of `F`.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    field = ed.flow.Relaxation(model.energy, ed.flow.Masked(8))
    assert ed.probe.energy_by_head(jnp.zeros(()), jnp.ones((8, 16)), field)["attention 1"].shape == (1, 8)
    ```
    """
    energy, g = _activations(time, state, field)
    return {name: each / energy.kappa for name, (each, _) in energy.network.heads(g).items()}


def energy_by_memory(time: Scalar, state: PyTree[Array], field: AbstractField) -> dict[str, Float[Array, "L M"]]:
    """The energy of every memory, stored pattern by stored pattern at each token.

    Where patterns compete in a soft minimum each has its share of the energy, `p_m E`.

    **Arguments:** `time`, `state`, `field` as `solve` passes them.

    **Returns:** for each term that stores patterns by name `(L, M)` in nats; all of it is its term of `F`.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    field = ed.flow.Relaxation(model.energy, ed.flow.Masked(8))
    assert ed.probe.energy_by_memory(jnp.zeros(()), jnp.ones((8, 16)), field)["memory 1"].shape == (8, 32)
    ```
    """
    energy, g = _activations(time, state, field)
    return {name: each / energy.kappa for name, (each, *_) in energy.network.memories(g).items()}


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
    _positive("count", count)
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


def nearest_tokens(
    time: Scalar, state: PyTree[Array], field: AbstractField, *, count: int = 3
) -> dict[str, Int[Array, "L n"] | Float[Array, "L n"]]:
    """The most probable tokens of each place under its posterior.

    **Arguments:**

    - `time`, `state`, `field` as `solve` passes them.
    - `count`: how many, at most `V`.

    **Returns:** `tokens (L, count)`, ids, likeliest first, and their `posterior (L, count)`.

    **Raises:** `ValueError` if `count` is not positive.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    field = ed.flow.Relaxation(model.energy, ed.flow.Given(model.encode("a bb aba")))
    near = ed.probe.nearest_tokens(jnp.zeros(()), jnp.zeros((8, 16)), field, count=2)
    assert model.decode(near["tokens"][:, 0]) == "a bb aba"
    ```
    """
    _positive("count", count)
    p = field.posterior(time, state)
    values, tokens = jax.lax.top_k(p, min(count, p.shape[-1]))
    return {"tokens": tokens, "posterior": values}


def _activations(time, state, field) -> tuple[FreeEnergy, Float[Array, "L D"]]:
    """The energy, and the activations `g` at this moment."""
    y, b = seen(time, state, field)
    energy = learned(field)
    return energy, energy.activation(y, b)


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"`{name}` is {value}; expected a positive integer, such as 3.")
