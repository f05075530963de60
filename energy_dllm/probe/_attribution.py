"""Why this token and not that one: the log-odds as a sum over everything that spoke."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PyTree

from .._types import Scalar
from ..data import AbstractTokenizer
from ..flow import AbstractField
from ._probes import learned, seen


class Attribution(eqx.Module):
    """What `attribution` returns: arrays only, one row for each token `i` of the passage.

    - `token (L,)`, `reference (L,)`: the two ids that are compared.
    - `log_odds (L,)`: `log p_token - log p_reference`, nats; positive if the token is the likelier one.
    - `parts`: by name `(L,)`, in nats; their sum is `log_odds`. `prior`, `evidence`, every synapse by its name (of a
      `DeepStack` every layer, such as `attention 1`), `bias`, and `residual`, the distance of the hidden state from
      rest; under a pattern (`energy.DFA.on`) also `pattern`, what it leaves of the passages with either token.
    - `neighbours`: terms that couple tokens by name, `(L, L)`: column `j` is the message of `j` to `i`; the sum of a
      row is that part. Of a `ConvolutionalMemory`, `j` is the place around which it was recalled. Of a layer of a
      `DeepStack`, what `i` reads of `j` directly, and what `j` reads of `i`; what depth adds is on the diagonal.
    - `heads`: attentions by name, `(L, H)`: column `h` is the message of head `h` to `i`; the sum of a row is that
      part.
    - `memories`: terms that store patterns by name, `(L, M)`: column `m` is the message of `m` to `i`; the sum of a row
      is that part.
    """

    token: Int[Array, " L"]
    reference: Int[Array, " L"]
    log_odds: Float[Array, " L"]
    parts: dict[str, Float[Array, " L"]]
    neighbours: dict[str, Float[Array, "L L"]]
    heads: dict[str, Float[Array, "L H"]]
    memories: dict[str, Float[Array, "L M"]]

    @property
    def total(self) -> Float[Array, " L"]:
        """The sum of the parts `(L,)`: `log_odds`, up to rounding."""
        return jnp.sum(jnp.stack(list(self.parts.values())), axis=0)

    def plot(self, place: int, tokenizer: AbstractTokenizer, *, ids: Any = None, count: int = 12) -> Any:
        """Why this token: the parts of its log-odds as bars, and which neighbours they come from.

        Above, the parts, which add up to the log-odds: blue for the token, orange for its reference. Below, the
        messages of the nearest neighbours, summed over all synapses.

        **Arguments:**

        - `place`: which token.
        - `tokenizer`: of the model.
        - `ids`: the text `(L,)` to write below the neighbours; by default the tokens attributed.
        - `count`: neighbours on each side that are drawn.

        **Returns:** a matplotlib `Figure`.

        **Raises:** `ImportError` without matplotlib; `ValueError` if `place` is outside of the passage.

        **Example:**

        ```python
        import jax, jax.numpy as jnp, energy_dllm as ed

        model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
        why = ed.probe.attribution(0.0, jnp.ones((8, 16)), ed.flow.Relaxation(model.energy, ed.flow.Masked(8)))
        assert len(why.plot(3, model.tokenizer).axes) == 2
        ```
        """
        from .plot._why import attribution_figure

        return attribution_figure(self, place, tokenizer, ids=ids, count=count)


def attribution(
    time: Scalar | float,
    state: PyTree[Array],
    field: AbstractField,
    *,
    token: Int[Array, " L"] | int | None = None,
    reference: Int[Array, " L"] | int | None = None,
) -> Attribution:
    """The log-odds of one token against another, as an exact sum over terms, neighbours and stored patterns.

    The logits are linear in the hidden state, and at rest the hidden state is the sum of the messages of all synapses:

    `log p_w / p_r = (c_w - c_r) + (b_w - b_r) + sum_n <m_n, U_w - U_r> + <y - sum_n m_n, U_w - U_r>`

    with `c` the prior (of a `HMMVocabulary` the cavity logits) and `m_n` the message of term `n`,
    `kappa` times its force (the bias `a` is one of them). The last part is the `residual`: 0 at rest; elsewhere it
    makes the sum exact. Each message is split further where its synapse can be: by neighbour, by head, by stored
    pattern.

    Main arguments: `time`, `state`, `field` as `solve` passes them.

    Other arguments:

    - `token`: ids `(L,)` or one id for all places; by default the likeliest token of each place.
    - `reference`: what it is compared with; by default the likeliest other token.

    To record a fixed pair along a motion, bind it: `functools.partial(attribution, token=3, reference=5)`.

    **Returns:** an `Attribution`.

    **Raises:** `ValueError` if `token` or `reference` is no id of the vocabulary or has another length than the
    passage, or if the field moves over an energy without a network.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    field = ed.flow.Relaxation(model.energy, ed.flow.Masked(8))
    why = ed.probe.attribution(0.0, jnp.ones((8, 16)), field, token=1)
    assert jnp.allclose(why.total, why.log_odds, atol=1e-4) and why.neighbours["attention 1"].shape == (8, 8)
    ```
    """
    y, b = seen(jnp.asarray(time), state, field)
    energy = learned(field)
    w, r = pair(energy.logits(y, b), token, reference)
    return _attribution(energy, y, b, w, r)


@eqx.filter_jit
def _attribution(energy, y, b, w, r):
    here, logits = jnp.arange(y.shape[0]), energy.logits(y, b)
    u = energy.vocabulary.patterns[w] - energy.vocabulary.patterns[r]
    messages = {name: energy.kappa * force for name, force in energy.forces(y, b).items() if name != "neurons"}
    known = {"prior": energy.vocabulary.cavity_logits(y, b), "evidence": b}
    if hasattr(energy.vocabulary, "by_pattern"):
        known["pattern"] = energy.vocabulary.by_pattern(y, b)
        known["prior"] -= known["pattern"]
    parts = {name: each[here, w] - each[here, r] for name, each in known.items()}
    parts |= {name: jnp.sum(force * u, axis=-1) for name, force in messages.items()}
    parts["residual"] = jnp.sum((y - jnp.sum(jnp.stack(list(messages.values())), axis=0)) * u, axis=-1)
    g = energy.activation(y, b)
    neighbours, heads, memories = energy.network.split(g, u)
    return Attribution(w, r, logits[here, w] - logits[here, r], parts, neighbours, heads, memories)


def pair(logits, token, reference):
    """Both ids at every place: those given, else the most probable and the second most probable."""
    length, size = logits.shape
    w = jnp.argmax(logits, axis=-1) if token is None else _ids("token", token, length, size)
    others = jnp.where(jax.nn.one_hot(w, size, dtype=bool), -jnp.inf, logits)
    r = jnp.argmax(others, axis=-1) if reference is None else _ids("reference", reference, length, size)
    return w, r


def _ids(name, ids, length, size):
    ids = ids if isinstance(ids, Tracer) else np.asarray(ids)
    if ids.shape not in ((), (length,)):
        raise ValueError(f"`{name}` has shape {ids.shape}; expected one id, or ({length},), one for each token.")
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(f"`{name}` is of type {ids.dtype}; expected ids, integers such as `model.encode(text)`.")
    if not isinstance(ids, Tracer) and np.any((ids < 0) | (ids >= size)):
        raise ValueError(f"`{name}` has the ids {ids.min()} to {ids.max()}; expected 0 to {size - 1}, the vocabulary.")
    return jnp.broadcast_to(jnp.asarray(ids), (length,))
