"""What a sampler conditions on: given tokens, other evidence, and an automaton that has to accept the passage."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..._checks import is_value
from ..._types import LOG_ZERO, Key, Scalar
from ...energy import DFA, AbstractFreeEnergy
from ._evidence import FORBIDDEN, AbstractEvidence
from ._tokens import Given


COLD = 0.05
"""Temperatures below it are 0: each token's own law to a power of 20 and more outweighs what tokens have to do with
each other, and the likeliest tokens are no likely passage."""


class Conditioning(AbstractEvidence):
    """Given tokens, evidence about the others, and an automaton that has to accept the passage.

    The automaton enters as evidence: `b_iw = FORBIDDEN` where no accepted string that agrees with the rest has the
    token `w` at place `i`, by a forward and a backward pass.

    **Arguments:**

    - `given`: the tokens that are given.
    - `others`: evidence besides; none by default.
    - `dfa`: an automaton that accepts the passage; none by default.

    **Raises:** `ValueError` if lengths differ.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    tokenizer = ed.data.Characters("ab")
    conditioning = ed.flow.Conditioning(ed.flow.Given(jnp.array([1, 0]), jnp.array([True, False])))
    assert conditioning.field(jnp.eye(2))[0, 0] == ed.flow.FORBIDDEN
    ```
    """

    given: Given
    others: AbstractEvidence | None = None
    dfa: DFA | None = None

    def __check_init__(self):
        if self.others is not None and self.others.length != self.given.length:
            raise ValueError(
                f"`evidence` is about {self.others.length} tokens; the passage has {self.given.length}, so give "
                "evidence of that length."
            )

    @property
    def length(self) -> int:
        """Number of tokens `L`."""
        return self.given.length

    def field(self, codes: Float[Array, "V C"]) -> Float[Array, "L V"]:
        """The sum of all, in nats."""
        b = self.given.field(codes)
        if self.others is not None:
            b = b + self.others.field(codes)
        if self.dfa is None:
            return b
        return b + jnp.where(self.dfa.support(self.allowed(b)), 0.0, FORBIDDEN).astype(b.dtype)

    def spring(self) -> Float[Array, " L"]:
        """That of the other evidence."""
        return self.given.spring() if self.others is None else self.others.spring()

    def at(self, ids: Int[Array, " L"], start: Int[Array, ""]) -> "Conditioning":
        """With other given tokens, and the automaton starting in another state."""
        changed = eqx.tree_at(lambda c: c.given.ids, self, ids)
        if self.dfa is None:
            return changed
        return eqx.tree_at(lambda c: c.dfa.start, changed, start.astype(self.dfa.start.dtype))

    def written(self, ids: Int[Array, " L"], known: Bool[Array, " L"]) -> "Conditioning":
        """With these tokens, where `known`, in place of those that were given."""
        return eqx.tree_at(lambda c: (c.given.ids, c.given.known), self, (ids, known))

    def draw(
        self,
        energy: AbstractFreeEnergy,
        y: Float[Array, "L D"],
        b: Float[Array, "L V"],
        *,
        temperature: Scalar | float = 1.0,
        key: Key,
    ) -> tuple[Int[Array, " L"], Float[Array, "L V"]]:
        """A token for every place, drawn jointly, and the log posterior `(L, V)`.

        **Arguments:**

        - `energy`, `y`: the free energy and its hidden state.
        - `b`: all evidence, this included.
        - `temperature`: prior probabilities of tokens are raised to `1/temperature` before drawing. Below `COLD`, as 0:
          the most likely passage, its tokens together.
        - `key`: random key.
        """
        logits = energy.logits(y, b)
        # the temperature acts on the prior, not on the evidence; excluded tokens are never drawn
        cold = self.cold(temperature)
        tilt = jnp.zeros_like(b) if cold or is_value(temperature, 1) else (1.0 / temperature - 1.0) * (logits - b)
        tilt = jnp.where(self.allowed(self.field(energy.vocabulary.codes)), tilt, LOG_ZERO)
        drawn = energy.sample(y, b, tilt=tilt, dfa=self.dfa, key=None if cold else key)
        return drawn.astype(self.given.ids.dtype), jax.nn.log_softmax(logits, axis=-1)

    @staticmethod
    def cold(temperature: Scalar | float) -> bool:
        """Whether a known temperature counts as 0; one that is traced does not."""
        return not isinstance(temperature, jax.Array) and temperature < COLD

    @staticmethod
    def allowed(b: Any) -> Any:
        """Which tokens `b (L, V)`, of numpy or of jax, does not rule out: those not `-FORBIDDEN` nats or more below
        the best `(L, V)`."""
        return b > b.max(axis=-1, keepdims=True) + FORBIDDEN
