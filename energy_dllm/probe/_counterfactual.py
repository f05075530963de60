"""What would be missed: a token is made deaf to a part, the passage settles anew, its log-odds are read again."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from .._types import Scalar
from ..energy import FreeEnergy
from ..flow import AbstractEvidence
from ._attribution import pair
from ._parts import by_neighbour


class Counterfactual(eqx.Module):
    """What `counterfactual` returns: by how much the log-odds of one place fall without a part, nats.

    - `token`, `reference`: the two ids that are compared.
    - `log_odds ()`: with everything in place, settled as long as without.
    - `terms`: by name, the fall when the place no longer listens to that synapse, or has no bias.
    - `neighbours (L,)`: the fall when it no longer listens to token `j`, in any synapse that couples them.
    """

    token: Int[Array, ""]
    reference: Int[Array, ""]
    log_odds: Scalar
    terms: dict[str, Scalar]
    neighbours: Float[Array, " L"]


def counterfactual(
    energy: FreeEnergy,
    evidence: AbstractEvidence,
    y: Float[Array, "L D"],
    place: int | Int[Array, ""],
    *,
    token: int | None = None,
    reference: int | None = None,
    steps: int = 24,
    step: float = 0.6,
) -> Counterfactual:
    """Take one part after the other away from a token, let the passage settle anew, and see what the log-odds lose.

    `attribution` says what each part told; this says what would be missed. The token becomes deaf to the part; then
    everything settles from `y`. The two differ by what comes back: a token that has changed its mind tells its
    neighbours, and they answer. It costs `L` + synapses + 2 relaxations.

    **Arguments:**

    - `energy`: the landscape, with its network.
    - `evidence`: what is known of the passage.
    - `y`: the hidden state to settle from `(L, D)`, such as `model.settle(evidence)`.
    - `place`: which token.
    - `token`, `reference`: the ids that are compared, by default the two likeliest at `y`.
    - `steps`, `step`: the relaxation after each removal.

    **Returns:** a `Counterfactual`.

    **Raises:** `ValueError` if shapes do not match, `place` is outside of the passage, `steps` or `step` is not
    positive, or an id is none.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    given = ed.flow.Given(model.encode("a bb"), jax.numpy.array([True, False, True, True]))
    missed = ed.probe.counterfactual(model.energy, given, model.settle(given), 1, steps=8)
    assert missed.neighbours.shape == (4,) and set(missed.terms) == {"pairwise", "attention", "memory", "bias"}
    ```
    """
    if not isinstance(energy, FreeEnergy):
        raise ValueError(f"`energy` is a {type(energy).__name__}, which has no network to take parts from.")
    if y.shape != (evidence.length, energy.dim):
        raise ValueError(
            f"`y` has shape {y.shape}; expected ({evidence.length}, {energy.dim}), the length of `evidence` and the "
            "width of `energy`: it belongs to another passage or another model."
        )
    if steps < 1 or not step > 0:
        raise ValueError(f"`steps`={steps} and `step`={step} must be positive.")
    length = y.shape[0]
    if not isinstance(place, Tracer) and not -length <= place < length:
        raise ValueError(f"`place` is {place}; the passage has {length} tokens, 0 to {length - 1}.")
    w, r = pair(energy.logits(y, evidence.field(energy.vocabulary.codes)), token, reference)
    i = jnp.asarray(place) % length
    return _counterfactual(energy, evidence, y, i, w[i], r[i], steps, step)


@eqx.filter_jit
def _counterfactual(energy, evidence, y, place, w, r, steps, step):
    b = evidence.field(energy.vocabulary.codes)
    length, synapses = y.shape[0], energy.network.synapses
    names = (*synapses, "bias")

    def told(synapse, g, heed):
        """What every token hears of a synapse, its neighbours weighed by `heed (L, L)`: linear in the direction."""
        if by_neighbour(synapse, g, g) is None:
            return -jax.grad(synapse)(g)
        return jax.grad(lambda u: jnp.sum(heed * by_neighbour(synapse, g, u)))(jnp.zeros_like(g))

    def read(case):
        neighbours, terms = case
        heed = jnp.ones((length, length), y.dtype).at[place].set(neighbours)

        def move(y, _):
            g = energy.activation(y, b)
            messages = [told(synapse, g, heed) for synapse in synapses.values()]
            messages.append(jnp.broadcast_to(energy.network.bias, y.shape))
            messages = [each.at[place].multiply(weight) for each, weight in zip(messages, terms, strict=True)]
            return y + step * (sum(messages) - y), None

        logits = energy.logits(jax.lax.scan(move, y, None, length=steps)[0], b)[place]
        return logits[w] - logits[r]

    # the first case has everything; then one neighbour less, then one term less
    deaf = jnp.ones((1 + length + len(names), length), y.dtype).at[1 : 1 + length].add(-jnp.eye(length, dtype=y.dtype))
    off = jnp.ones((deaf.shape[0], len(names)), y.dtype).at[1 + length :].add(-jnp.eye(len(names), dtype=y.dtype))
    whole, *left = jnp.split(jax.lax.map(read, (deaf, off), batch_size=16), [1, 1 + length])
    neighbours, terms = (whole - part for part in left)
    return Counterfactual(w, r, whole[0], dict(zip(names, terms, strict=True)), neighbours)
