"""Evidence about tokens: given, mistyped, restricted to a set, or any outside log-likelihood."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..._checks import booleans, error_if, number, on_device, tokens
from ._evidence import FORBIDDEN, AbstractEvidence


class Given(AbstractEvidence):
    """Some tokens are given (a prompt, the rim of a hole), the others unknown.

    `b_iw = 0` for the given token and `FORBIDDEN` for the others; a row of zeros where `known` is false.

    **Arguments:**

    - `ids`: tokens `(L,)`; those that are not known are ignored.
    - `known`: which tokens are given `(L,)`, booleans or zeros and ones; all of them by default.

    **Raises:** `ValueError` if shapes do not match, `known` has other numbers, or a known id is outside the vocabulary.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    b = ed.flow.Given(jnp.array([1, 0]), jnp.array([True, False])).field(jnp.eye(3))
    assert b[0, 1] == 0 and b[0, 0] == ed.flow.FORBIDDEN and (b[1] == 0).all()
    ```
    """

    ids: Int[Array, " L"]
    known: Bool[Array, " L"]

    def __init__(self, ids: Int[Array, " L"], known: Bool[Array, " L"] | None = None):
        self.ids, self.known = _tokens(ids, known)

    @property
    def length(self) -> int:
        """Number of tokens `L`."""
        return self.ids.shape[0]

    def field(self, codes: Float[Array, "V C"]) -> Float[Array, "L V"]:
        """0 for the given token, `FORBIDDEN` for the others, 0 everywhere in unknown rows."""
        seen = _seen(self.ids, self.known, codes)
        return jnp.where(seen | ~self.known[:, None], 0.0, FORBIDDEN).astype(codes.dtype)

    def spring(self) -> Float[Array, " L"]:
        """Zeros: there is no noise."""
        return jnp.zeros(self.length)


class Typo(AbstractEvidence):
    """Every known token may be mistyped: `b_iw = log((1 - q) [w = seen_i] + q / V)`.

    **Arguments:**

    - `ids`: tokens as seen `(L,)`.
    - `rate`: probability `q` that a token was replaced by a random one, `0 < q < 1`.
    - `known`: which tokens were seen at all `(L,)`, booleans or zeros and ones; all of them by default.

    **Raises:** `ValueError` if shapes do not match, `known` has other numbers, or `rate` is known to be outside (0, 1).

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    b = ed.flow.Typo(jnp.array([1]), 0.3).field(jnp.eye(3))
    assert jnp.allclose(jnp.exp(b), jnp.array([[0.1, 0.8, 0.1]]))
    ```
    """

    ids: Int[Array, " L"]
    known: Bool[Array, " L"]
    rate: Float[Array, ""]

    def __init__(
        self,
        ids: Int[Array, " L"],
        rate: Float[Array, ""] | float,
        known: Bool[Array, " L"] | None = None,
    ):
        number("rate", rate, lambda q: (q > 0) & (q < 1), "a probability between 0 and 1, such as 0.1")
        self.ids, self.known = _tokens(ids, known)
        self.rate = jnp.asarray(rate, jnp.result_type(float))

    @property
    def length(self) -> int:
        """Number of tokens `L`."""
        return self.ids.shape[0]

    def field(self, codes: Float[Array, "V C"]) -> Float[Array, "L V"]:
        """`log((1 - q) [w = seen_i] + q / V)`, 0 in unknown rows."""
        seen = _seen(self.ids, self.known, codes)
        floor = self.rate / codes.shape[0]
        b = jnp.log(jnp.where(seen, 1.0 - self.rate + floor, floor))
        return jnp.where(self.known[:, None], b, 0.0).astype(codes.dtype)

    def spring(self) -> Float[Array, " L"]:
        """Zeros: there is no noise."""
        return jnp.zeros(self.length)


class Allowed(AbstractEvidence):
    """Only some tokens are allowed at each place: `b = 0` for those, `FORBIDDEN` for the others.

    **Arguments:**

    - `sets`: which tokens are allowed where `(L, V)`, booleans or zeros and ones.

    **Raises:** `ValueError` if `sets` is not `(L, V)` or has other numbers, or if a place allows nothing.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    b = ed.flow.Allowed(jnp.array([[True, False, True]])).field(jnp.eye(3))
    assert b.tolist() == [[0.0, ed.flow.FORBIDDEN, 0.0]]
    ```
    """

    sets: Bool[Array, "L V"]

    def __init__(self, sets: Bool[Array, "L V"]):
        sets = booleans("sets", sets)
        if sets.ndim != 2:
            raise ValueError(f"`sets` has shape {sets.shape}; expected (L, V), one row a token.")
        empty = lambda sets: ~sets.any(axis=-1)
        self.sets = error_if(empty, "`sets` allows no token at some place; allow at least one.", sets)

    @property
    def length(self) -> int:
        """Number of tokens `L`."""
        return self.sets.shape[0]

    def field(self, codes: Float[Array, "V C"]) -> Float[Array, "L V"]:
        """0 for allowed tokens, `FORBIDDEN` for the others."""
        if self.sets.shape[1] != codes.shape[0]:
            raise ValueError(f"`sets` has {self.sets.shape[1]} tokens a row; the model has {codes.shape[0]}.")
        return jnp.where(self.sets, 0.0, FORBIDDEN).astype(codes.dtype)

    def spring(self) -> Float[Array, " L"]:
        """Zeros: there is no noise."""
        return jnp.zeros(self.length)


class Likelihood(AbstractEvidence):
    """Any outside log-likelihood: a classifier, a lexicon, another model.

    **Arguments:**

    - `b`: log-likelihoods `(L, V)` in nats, finite.

    **Raises:** `ValueError` if `b` is not `(L, V)`, or if it is not finite.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    evidence = ed.flow.Masked(2) + ed.flow.Likelihood(jnp.ones((2, 3)))
    assert jnp.allclose(evidence.field(jnp.eye(3)), 1.0)
    ```
    """

    b: Float[Array, "L V"]

    def __init__(self, b: Float[Array, "L V"]):
        if np.ndim(b) != 2:
            raise ValueError(f"`b` has shape {np.shape(b)}; expected (L, V), one row a token.")
        fault = lambda b: ~(abs(b) < np.inf)
        self.b = error_if(fault, "`b` must be finite; use `FORBIDDEN` for a token that is ruled out.", jnp.asarray(b))

    @property
    def length(self) -> int:
        """Number of tokens `L`."""
        return self.b.shape[0]

    def field(self, codes: Float[Array, "V C"]) -> Float[Array, "L V"]:
        """`b` itself."""
        if self.b.shape[1] != codes.shape[0]:
            raise ValueError(f"`b` has {self.b.shape[1]} tokens a row; the model has {codes.shape[0]}.")
        return self.b.astype(codes.dtype)

    def spring(self) -> Float[Array, " L"]:
        """Zeros: there is no noise."""
        return jnp.zeros(self.length)


def _tokens(ids, known):
    ids = tokens(ids)
    known = on_device(np.ones(ids.shape, bool)) if known is None else booleans("known", known)
    if known.shape != ids.shape:
        raise ValueError(f"`known` has shape {known.shape}; expected {ids.shape}, as `ids`.")
    return ids, known


def _seen(ids, known, codes):
    size = codes.shape[0]
    bad = lambda ids, known: known & ((ids < 0) | (ids >= size))
    message = f"`ids` has a token outside the vocabulary of {size}; encode with its tokenizer."
    ids = error_if(bad, message, ids, known)
    return jax.nn.one_hot(ids, size, dtype=bool)
