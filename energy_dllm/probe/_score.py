"""The free energy and the pseudo-likelihood of a given text."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from .._checks import sizes
from .._model import EnergyDLLM
from .._types import Scalar
from ..flow import Given


class Score(eqx.Module):
    """What `score` returns, one row a token.

    - `ids (L,)`: the text.
    - `nll (L,)`: `-log p(token_i | all other tokens)`, nats; large where a token is out of place.
    - `likelier (L,)`: the most probable token there, given the others.
    - `energy (L,)`: each token's share of the free energy with all tokens given, nats; a bond is shared by its ends.
    """

    ids: Int[Array, " L"]
    nll: Float[Array, " L"]
    likelier: Int[Array, " L"]
    energy: Float[Array, " L"]

    @property
    def free_energy(self) -> Scalar:
        """`F` of the whole text, nats: lower for a more probable text."""
        return jnp.sum(self.energy)

    @property
    def pseudo_likelihood(self) -> Scalar:
        """`sum_i log p(token_i | all other tokens)`, nats: for ranking texts; divide by `L` if their lengths differ."""
        return -jnp.sum(self.nll)


def score(model: EnergyDLLM, text: str | Int[Array, " L"], *, batch_size: int = 16) -> Score:
    """The free energy of a text and of each token, and the negative log-likelihood of each token given the others.

    `nll` leaves out one token after the other and relaxes under the rest: `L` relaxations. `energy` takes one, with all
    tokens given.

    **Arguments:**

    - `model`: the model.
    - `text`: a text, or its ids `(L,)`.
    - `batch_size`: relaxations at once.

    **Returns:** a `Score`.

    **Raises:** `ValueError` if the text is empty, has characters unknown to the model, or `batch_size` is not positive.

    **Source:** pseudo-likelihood, Besag 1975.

    ??? cite "Reference"

        ```bibtex
        @article{besag1975statistical,
          title={Statistical Analysis of Non-Lattice Data},
          author={Besag, Julian},
          journal={The Statistician}, volume={24}, number={3}, pages={179--195},
          year={1975}
        }
        ```

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    score = ed.probe.score(model, "ab ba")
    assert score.nll.shape == (5,) and (score.nll > 0).all()
    ```
    """
    sizes(batch_size=batch_size)
    if len(text) == 0:
        raise ValueError("`text` is empty; expected at least one token.")
    ids = model.encode(text) if isinstance(text, str) else jnp.asarray(text)
    if ids.ndim != 1 or (not isinstance(ids, Tracer) and bool(jnp.any((ids < 0) | (ids >= model.size)))):
        raise ValueError(f"`text` has ids of shape {ids.shape}; expected (L,), each of 0 to {model.size - 1}.")
    return scored(model, ids, batch_size)


@eqx.filter_jit
def scored(model: EnergyDLLM, ids: Int[Array, " L"], batch_size: int) -> Score:
    here = jnp.arange(ids.shape[0])

    def without(i):
        log_p = model.log_posterior(ids, here != i)[i]
        return -log_p[ids[i]], jnp.argmax(log_p)

    nll, likelier = jax.lax.map(without, here, batch_size=min(batch_size, ids.shape[0]))
    given = Given(ids)
    terms = model.terms(given, model.settle(given))
    return Score(ids, nll, likelier, sum(terms.values(), jnp.zeros_like(nll)))
