"""Probes: pure functions `(time, state, field) -> PyTree` for `solve(..., probes={...})`.

Every probe works for any field: it takes the hidden state `y` and the evidence from the field, and from the energy
the rest.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .._types import Scalar
from ..energy import FreeEnergy
from ..flow import AbstractField


def free_energy(time: Scalar, state: PyTree[Array], field: AbstractField) -> Scalar:
    """`F(x, y; sigma)`, the scalar that is descended, with the spring to the observation.

    **Arguments:** `time`, `state`, `field` as `solve` passes them.

    **Returns:** a scalar in nats.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    field = ed.flow.Relaxation(model.energy, ed.flow.Masked(8))
    path = ed.solve(field, model.energy.neutral(8), t0=0.0, t1=1.0, probes={"F": ed.probe.free_energy})
    ```
    """
    y, b = seen(time, state, field)
    return field.energy(y, b, spring=field.evidence(time, state).spring())


def energy_terms(time: Scalar, state: PyTree[Array], field: AbstractField) -> dict[str, Scalar]:
    """Every term of `F` by name, summed over tokens: `neurons`, each synapse, `bias`, `vocabulary`, `spring`.

    **Arguments:** `time`, `state`, `field` as `solve` passes them.

    **Returns:** a dict of scalars in nats; their sum is `free_energy`.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    field = ed.flow.Relaxation(model.energy, ed.flow.Masked(8))
    terms = ed.probe.energy_terms(jnp.zeros(()), jnp.ones((8, 16)), field)
    ```
    """
    return {name: jnp.sum(term) for name, term in energy_by_token(time, state, field).items()}


def energy_by_token(time: Scalar, state: PyTree[Array], field: AbstractField) -> dict[str, Float[Array, " L"]]:
    """Every term of `F` by name and token; the energy of a bond is shared by its ends.

    **Arguments:** `time`, `state`, `field` as `solve` passes them.

    **Returns:** a dict of arrays `(L,)` in nats; the sum of everything is `free_energy`.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    field = ed.flow.Relaxation(model.energy, ed.flow.Masked(8))
    assert ed.probe.energy_by_token(jnp.zeros(()), jnp.ones((8, 16)), field)["memory 1"].shape == (8,)
    ```
    """
    y, b = seen(time, state, field)
    return field.energy.terms(y, b, spring=field.evidence(time, state).spring())


def posterior_entropy(time: Scalar, state: PyTree[Array], field: AbstractField) -> Float[Array, " L"]:
    """The entropy of each token's posterior: `-sum_w p_iw log p_iw`.

    **Arguments:** `time`, `state`, `field` as `solve` passes them.

    **Returns:** entropies `(L,)` in nats, from 0 (certain) to `log V` (uniform).

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, states=0, key=jax.random.key(0))
    field = ed.flow.Relaxation(model.energy, ed.flow.Masked(8))
    assert jnp.allclose(ed.probe.posterior_entropy(jnp.zeros(()), jnp.zeros((8, 16)), field), jnp.log(3.0))
    ```
    """
    y, b = seen(time, state, field)
    log_p = jax.nn.log_softmax(field.energy.logits(y, b), axis=-1)
    # rounding must not make a decided token's entropy negative
    return jnp.maximum(-jnp.sum(jnp.exp(log_p) * log_p, axis=-1), 0.0)


def confidence(time: Scalar, state: PyTree[Array], field: AbstractField) -> Float[Array, " L"]:
    """The probability of the most probable token at each place, `max_w p_iw`.

    **Arguments:** `time`, `state`, `field` as `solve` passes them.

    **Returns:** probabilities `(L,)`, from `1/V` to 1.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    field = ed.flow.Relaxation(model.energy, ed.flow.Given(model.encode("a bb aba")))
    assert (ed.probe.confidence(jnp.zeros(()), jnp.zeros((8, 16)), field) > 0.999).all()
    ```
    """
    return jnp.max(field.posterior(time, state), axis=-1)


def tokens(time: Scalar, state: PyTree[Array], field: AbstractField) -> Int[Array, " L"]:
    """The most probable token at each place, `argmax_w p_iw`.

    **Arguments:** `time`, `state`, `field` as `solve` passes them.

    **Returns:** token ids `(L,)`.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    field = ed.flow.Relaxation(model.energy, ed.flow.Given(model.encode("a bb aba")))
    assert model.decode(ed.probe.tokens(jnp.zeros(()), jnp.zeros((8, 16)), field)) == "a bb aba"
    ```
    """
    y, b = seen(time, state, field)
    return jnp.argmax(field.energy.logits(y, b), axis=-1)


def force_norm(
    time: Scalar, state: PyTree[Array], field: AbstractField, *, share: bool = False
) -> dict[str, Float[Array, " L"]]:
    """The norm of the force of every term on each token: `|dF_n/dg_i|`; `total` is the norm of their sum.

    At rest the terms still pull, but against each other: `total` is 0.

    **Arguments:**

    - `time`, `state`, `field` as `solve` passes them.
    - `share`: instead the share of every term, `|f_n| / sum_m |f_m|`, near 0 for a dead one; 0 where there is no force.

    **Returns:** a dict of arrays `(L,)`, in nats per unit of `g`; shares add up to 1 and have no `total`.

    **Raises:** `ValueError` if a synapse is itself named `total`.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    field = ed.flow.Relaxation(model.energy, ed.flow.Masked(8))
    assert ed.probe.force_norm(jnp.zeros(()), jnp.ones((8, 16)), field)["total"].shape == (8,)
    ```
    """
    y, b = seen(time, state, field)
    forces = field.energy.forces(y, b)
    norms = {name: jnp.linalg.norm(force, axis=-1) for name, force in forces.items()}
    if share:
        whole = jnp.sum(jnp.stack(list(norms.values())), axis=0)
        return {
            name: jnp.where(whole > 0, norm / jnp.where(whole > 0, whole, 1.0), 0.0) for name, norm in norms.items()
        }
    if "total" in forces:
        raise ValueError("`field` has a synapse named 'total', which here means their sum; rename it.")
    return norms | {"total": jnp.linalg.norm(field.energy.force(y, b), axis=-1)}


def attention_pattern(time: Scalar, state: PyTree[Array], field: AbstractField) -> dict[str, Float[Array, "H L L"]]:
    """The attention pattern of every attention by name, `A_hij`: softmax of the logits over `j`.

    **Arguments:** `time`, `state`, `field` as `solve` passes them.

    **Returns:** for each attention by name `(H, L, L)`, such as `attention 1` of a `DeepStack`; rows sum to 1, with a
    shifted read-out less what is read of the start, and the diagonal of an attention that is a synapse of its own is 0.
    Empty if the network has none.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    field = ed.flow.Relaxation(model.energy, ed.flow.Masked(8))
    assert ed.probe.attention_pattern(jnp.zeros(()), jnp.ones((8, 16)), field)["attention 1"].shape == (1, 8, 8)
    ```
    """
    y, b = seen(time, state, field)
    energy = learned(field)
    g = energy.activation(y, b)
    return {name: pattern[..., -g.shape[0] :] for name, (_, pattern) in energy.network.heads(g).items()}


def dissipation(time: Scalar, state: PyTree[Array], field: AbstractField) -> Scalar:
    """The rate of fall of `F` in the relaxation: `kappa (dF/dg)^T (dg/dy) (dF/dg) >= 0` for convex `Λ_b`.

    In a `Relaxation` it is `-dF/dt` exactly, so its integral is the drop in `F`. In a flow of `x` it is the
    rate at which the neurons would relax if `x` stood still: 0 means that they are at rest.

    **Arguments:** `time`, `state`, `field` as `solve` passes them.

    **Returns:** a scalar in nats per time constant.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    field = ed.flow.Relaxation(model.energy, ed.flow.Gaussian(jnp.eye(3)[jnp.arange(8) % 3], 1.0))
    assert ed.probe.dissipation(jnp.zeros(()), jnp.eye(8, 16), field) > 0
    ```
    """
    y, b = seen(time, state, field)
    force = field.energy.force(y, b)
    # the Hessian of Λ_b, the mobility, is never formed: one forward derivative of the activation
    energy = learned(field)
    _, moved = jax.jvp(lambda y: energy.activation(y, b), (y,), (force,))
    return field.energy.kappa * jnp.sum(force * moved)


def distance_to_rest(time: Scalar, state: PyTree[Array], field: AbstractField) -> Scalar:
    """The largest speed of any neuron, `max |kappa dF/dg|`: what `solve(stop=)` is compared with.

    It is the speed `|dy/dt|` in relaxation time, whatever the clock of the field; 0 at a rest point.

    **Arguments:** `time`, `state`, `field` as `solve` passes them.

    **Returns:** a scalar in units of `y` per time constant.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    field = ed.flow.Relaxation(model.energy, ed.flow.Masked(8))
    assert ed.probe.distance_to_rest(jnp.zeros(()), jnp.ones((8, 16)), field) > 0
    ```
    """
    y, b = seen(time, state, field)
    return field.energy.kappa * jnp.max(jnp.abs(field.energy.force(y, b)))


def learned(field: AbstractField) -> FreeEnergy:
    """The `FreeEnergy` of a field; `ValueError` if its energy has no network."""
    if not isinstance(field.energy, FreeEnergy):
        raise ValueError(f"`field` moves over a {type(field.energy).__name__}, which has no network.")
    return field.energy


def seen(time: Scalar, state: PyTree[Array], field: AbstractField):
    """The hidden state and the evidence field at this moment."""
    b = field.evidence(time, state).field(field.energy.vocabulary.codes)
    y = field.hidden(time, state)
    if y.shape != (b.shape[0], field.energy.dim):
        raise ValueError(
            f"`state` has the hidden shape {y.shape}; expected ({b.shape[0]}, {field.energy.dim}), the length of the "
            "evidence and the width of the energy: it belongs to another passage or another model."
        )
    return y, b
