"""Counterfactuals: the log-odds of a token after one input to it is removed and the passage relaxes again."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from .._types import Scalar
from ..energy import FreeEnergy
from ..flow import AbstractEvidence
from ._attribution import pair


class Counterfactual(eqx.Module):
    """Remove one input after the other from a token, relax the passage again, and measure the fall of its log-odds.

    `attribution` splits the present log-odds; this is the effect of an intervention. The input is removed at this token
    only; then everything relaxes from `y`. The two differ by feedback: the token changes, and so do the messages it
    gets back; and without a token the attention to the others grows. It costs `L` + terms + 2 relaxations.

    **Arguments:**

    - `energy`: the free energy, with its network.
    - `evidence`: the evidence about the passage.
    - `y`: the hidden state to relax from `(L, D)`, such as `model.settle(evidence)`.
    - `place`: which token.
    - `token`, `reference`: the ids that are compared, by default the two likeliest at `y`.
    - `steps`, `step`: the relaxation after each removal.

    **Attributes:**

    - `token`, `reference`: the two ids that are compared.
    - `log_odds ()`: with all inputs, after the same relaxation.
    - `terms`: by name, the fall without the force of that term, or of the bias, on this place.
    - `neighbours (L,)`: the fall where this place neither reads token `j` nor is read by it; 0 for the place itself.

    **Raises:** `ValueError` if shapes do not match, `place` is outside of the passage, `steps` or `step` is not
    positive, or an id is none.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    given = ed.flow.Given(model.encode("a bb"), jax.numpy.array([True, False, True, True]))
    missed = ed.probe.Counterfactual(model.energy, given, model.settle(given), 1, steps=8)
    assert missed.neighbours.shape == (4,) and set(missed.terms) >= {"attention 1", "memory 1", "bias"}
    ```
    """

    token: Int[Array, ""]
    reference: Int[Array, ""]
    log_odds: Scalar
    terms: dict[str, Scalar]
    neighbours: Float[Array, " L"]

    def __init__(
        self,
        energy: FreeEnergy,
        evidence: AbstractEvidence,
        y: Float[Array, "L D"],
        place: int | Int[Array, ""],
        *,
        token: int | None = None,
        reference: int | None = None,
        steps: int = 12,
        step: float = 0.6,
    ):
        if not isinstance(energy, FreeEnergy):
            raise ValueError(f"`energy` is a {type(energy).__name__}, which has no network to remove inputs from.")
        if y.shape != (evidence.length, energy.dim):
            raise ValueError(
                f"`y` has shape {y.shape}; expected ({evidence.length}, {energy.dim}), the length of `evidence` and "
                "the width of `energy`: it belongs to another passage or another model."
            )
        if steps < 1 or not step > 0:
            raise ValueError(f"`steps`={steps} and `step`={step} must be positive.")
        length = y.shape[0]
        if not isinstance(place, Tracer) and not -length <= place < length:
            raise ValueError(f"`place` is {place}; the passage has {length} tokens, 0 to {length - 1}.")
        w, r = pair(energy.logits(y, evidence.field(energy.vocabulary.codes)), token, reference)
        i = jnp.asarray(place) % length
        self.token, self.reference = w[i], r[i]
        self.log_odds, self.terms, self.neighbours = _fall(energy, evidence, y, i, w[i], r[i], steps, step)


@eqx.filter_jit
def _fall(energy, evidence, y, place, w, r, steps, step):
    b = evidence.field(energy.vocabulary.codes)
    length = y.shape[0]
    names = [name for name in energy.terms(y, b) if name not in ("neurons", "vocabulary")]

    def speed(y, weights, mask):
        """`-kappa dF/dg (L, D)` of the terms, weighted, and without the tokens that are masked."""
        g = energy.activation(y, b)
        weights = dict(zip(names, weights, strict=True))
        weighted = lambda g: sum(
            weights.get(name, 1.0) * jnp.sum(term) for name, term in energy.terms(y, b, mask=mask, g=g).items()
        )
        return -energy.kappa * jax.grad(weighted)(g)

    def log_odds(case):
        mask, weights = case

        def move(y, _):
            speeds = speed(y, jnp.ones_like(weights), None)
            return y + step * speeds.at[place].set(speed(y, weights, mask)[place]), None

        logits = energy.logits(jax.lax.scan(move, y, None, length=steps)[0], b)[place]
        return logits[w] - logits[r]

    # first all inputs, then without one neighbour, then without one term; the token itself stays
    here = jnp.arange(length)
    masks = jnp.ones((1 + length + len(names), length), bool).at[1 + here, here].set(here == place)
    weights = jnp.ones((len(masks), len(names)), y.dtype).at[1 + length :].add(-jnp.eye(len(names), dtype=y.dtype))
    full, *reduced = jnp.split(jax.lax.map(log_odds, (masks, weights), batch_size=16), [1, 1 + length])
    neighbours, terms = (full - part for part in reduced)
    return full[0], dict(zip(names, terms, strict=True)), neighbours
