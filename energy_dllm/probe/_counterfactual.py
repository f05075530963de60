"""What would be lost: a part is silenced, the passage settles anew, and the log-odds are read again."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..energy import FreeEnergy
from ..flow import AbstractEvidence
from ._attribution import pair


class Counterfactual(eqx.Module):
    """What `counterfactual` returns: by how much the log-odds of `token` against `rival` fall without a part, nats.

    - `token (L,)`, `rival (L,)`: the two ids that are compared.
    - `log_odds (L,)`: with everything in place, settled as long as without.
    - `terms`: by name `(L,)`, the fall when that synapse, or the bias, is silent everywhere.
    - `neighbours (L, L)`: column `j` is the fall at every `i` when token `j` neither speaks nor listens; 0 on the
      diagonal.
    """

    token: Int[Array, " L"]
    rival: Int[Array, " L"]
    log_odds: Float[Array, " L"]
    terms: dict[str, Float[Array, " L"]]
    neighbours: Float[Array, "L L"]


def counterfactual(
    energy: FreeEnergy,
    evidence: AbstractEvidence,
    y: Float[Array, "L D"],
    *,
    token: Int[Array, " L"] | int | None = None,
    rival: Int[Array, " L"] | int | None = None,
    steps: int = 24,
    step: float = 0.6,
) -> Counterfactual:
    """Remove one part after the other, let the passage settle anew from `y`, and see what the log-odds lose.

    `attribution` says what each part told; this says what would be missed. They differ where others answer: a removed
    neighbour is also no longer heard by the other neighbours. It costs `L` + synapses + 2 relaxations.

    **Arguments:**

    - `energy`: the landscape, with its network.
    - `evidence`: what is known of the passage.
    - `y`: the hidden state to settle from `(L, D)`, such as `model.settle(evidence)`.
    - `token`, `rival`: as in `attribution`, by default the two likeliest at `y`.
    - `steps`, `step`: the relaxation after each removal.

    **Returns:** a `Counterfactual`.

    **Raises:** `ValueError` if shapes do not match, `steps` or `step` is not positive, or an id is none.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    given = ed.flow.Given(model.encode("a bb"), jax.numpy.array([True, False, True, True]))
    missed = ed.probe.counterfactual(model.energy, given, model.settle(given))
    assert missed.neighbours.shape == (4, 4) and set(missed.terms) == {"pairwise", "attention", "memory", "bias"}
    ```
    """
    if not isinstance(energy, FreeEnergy):
        raise ValueError(f"`energy` is a {type(energy).__name__}, which has no network to take parts from.")
    if y.shape != (evidence.length, energy.dim):
        raise ValueError(
            f"`y` has shape {y.shape}; expected ({evidence.length}, {energy.dim}), the length of `evidence` and the "
            "width of `energy`."
        )
    if steps < 1 or not step > 0:
        raise ValueError(f"`steps`={steps} and `step`={step} must be positive.")
    w, r = pair(energy.logits(y, evidence.field(energy.vocabulary.codes)), token, rival)
    return _counterfactual(energy, evidence, y, w, r, steps, step)


@eqx.filter_jit
def _counterfactual(energy, evidence, y, w, r, steps, step):
    b = evidence.field(energy.vocabulary.codes)
    length = y.shape[0]
    here = jnp.arange(length)

    def read(energy, mask=None):
        move = lambda y, _: (y + step * energy.kappa * energy.force(y, b, mask=mask), None)
        logits = energy.logits(jax.lax.scan(move, y, None, length=steps)[0], b)
        return logits[here, w] - logits[here, r]

    whole = read(energy)
    synapses = energy.network.synapses
    without = {name: eqx.tree_at(lambda e: e.network.synapses, energy, _less(synapses, name)) for name in synapses}
    without["bias"] = eqx.tree_at(lambda e: e.network.bias, energy, jnp.zeros_like(energy.network.bias))
    terms = {name: whole - read(part) for name, part in without.items()}
    silent = jax.lax.map(lambda j: whole - read(energy, here != j), here)
    silent = jnp.where(jnp.eye(length, dtype=bool), 0.0, silent.T)
    return Counterfactual(w, r, whole, terms, silent)


def _less(synapses, name):
    return {other: synapse for other, synapse in synapses.items() if other != name}
