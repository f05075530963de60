"""Evidence: one interface for every kind of corruption and control.

Evidence about a passage is a log-likelihood `b (L, V)` in nats: how well every token of the vocabulary explains
what was seen at every place. Noise, masks, prompts, typing errors and constraints differ in `b` only; evidence
from independent sources adds, so it composes with `+`. A hard "no" is finite, `FORBIDDEN`.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


FORBIDDEN = -30.0
"""The log-likelihood of a token that is ruled out: `e^-30` is 1e-13, and finite."""


class AbstractEvidence(eqx.Module):
    """What is known about a passage of `length` tokens.

    To add a kind of evidence, write `length` and `field`.
    """

    @property
    @abc.abstractmethod
    def length(self) -> int:
        """Number of tokens `L`."""

    @abc.abstractmethod
    def field(self, codes: Float[Array, "V C"]) -> Float[Array, "L V"]:
        """The log-likelihood `b (L, V)` in nats, given the token codes `e (V, C)`."""

    def spring(self) -> Float[Array, " L"]:
        """The part of the evidence's energy no token can change, `(L,)`: 0 unless there is noise."""
        return jnp.zeros(self.length)

    def __add__(self, other: "AbstractEvidence") -> "AbstractEvidence":
        """Evidence from two independent sources."""
        return Evidences((self, other))


class Gaussian(AbstractEvidence):
    """Token codes seen through Gaussian noise: `b_iw = (<x_i, e_w> - |e_w|^2 / 2) / sigma_i^2`.

    **Arguments:**

    - `x`: the noisy observation `(L, C)`.
    - `sigma`: noise level of each token `(L,)`, or one level for all; positive, in units of the codes.

    **Raises:** `ValueError` if shapes do not match; a runtime error if a `sigma` is not positive.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    codes = jnp.eye(3)
    b = ed.flow.Gaussian(codes[jnp.array([2, 0])], 0.1).field(codes)
    assert b.argmax(-1).tolist() == [2, 0]
    ```
    """

    x: Float[Array, "L C"]
    sigma: Float[Array, " L"]

    def __init__(self, x: Float[Array, "L C"], sigma: Float[Array, " L"] | Float[Array, ""] | float):
        x = jnp.asarray(x)
        if x.ndim != 2:
            raise ValueError(f"`x` has shape {x.shape}; expected (L, C), one code a token.")
        sigma = jnp.asarray(sigma, x.dtype)
        if sigma.shape not in ((), x.shape[:1]):
            raise ValueError(f"`sigma` has shape {sigma.shape}; expected () or ({x.shape[0]},), one a token.")
        sigma = jnp.broadcast_to(sigma, x.shape[:1])
        self.sigma = eqx.error_if(sigma, ~(sigma > 0), "`sigma` must be positive at every token.")
        self.x = x

    @property
    def length(self) -> int:
        """Number of tokens `L`."""
        return self.x.shape[0]

    def field(self, codes: Float[Array, "V C"]) -> Float[Array, "L V"]:
        """`(<x_i, e_w> - |e_w|^2 / 2) / sigma_i^2`."""
        if codes.shape[1] != self.x.shape[1]:
            raise ValueError(f"`x` has codes of width {self.x.shape[1]}; the model's have {codes.shape[1]}.")
        return (self.x @ codes.T - 0.5 * jnp.sum(codes**2, axis=-1)) / self.sigma[:, None] ** 2

    def spring(self) -> Float[Array, " L"]:
        """`|x_i|^2 / (2 sigma_i^2)`."""
        return 0.5 * jnp.sum(self.x**2, axis=-1) / self.sigma**2


class Masked(AbstractEvidence):
    """Nothing is known: `b = 0`.

    **Arguments:**

    - `length`: number of tokens `L`, positive.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    assert ed.flow.Masked(4).field(jnp.eye(3)).shape == (4, 3)
    ```
    """

    tokens: int = eqx.field(static=True)

    def __init__(self, length: int):
        if length < 1:
            raise ValueError(f"`length` is {length}; expected a positive number of tokens.")
        self.tokens = length

    @property
    def length(self) -> int:
        """Number of tokens `L`."""
        return self.tokens

    def field(self, codes: Float[Array, "V C"]) -> Float[Array, "L V"]:
        """Zeros."""
        return jnp.zeros((self.tokens, codes.shape[0]), codes.dtype)


class Given(AbstractEvidence):
    """Some tokens are given (a prompt, the rim of a hole), the others unknown.

    `b_iw = 0` for the given token and `FORBIDDEN` for the others; a row of zeros where `known` is false.

    **Arguments:**

    - `ids`: tokens `(L,)`; those that are not known are not looked at.
    - `known`: which tokens are given `(L,)`; all of them by default.

    **Raises:** `ValueError` if shapes do not match; a runtime error if a known id is outside the vocabulary.

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


class Typo(AbstractEvidence):
    """Every known token may be mistyped: `b_iw = log((1 - q) [w = seen_i] + q / V)`.

    **Arguments:**

    - `ids`: tokens as seen `(L,)`.
    - `rate`: probability `q` that a token was replaced by a random one, `0 < q < 1`.
    - `known`: which tokens were seen at all `(L,)`; all of them by default.

    **Raises:** `ValueError` if shapes do not match or a plain number `rate` is outside (0, 1).

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
        if isinstance(rate, (int, float)) and not 0 < rate < 1:
            raise ValueError(f"`rate` is {rate}; expected a probability between 0 and 1, say 0.1.")
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


class Allowed(AbstractEvidence):
    """Only some tokens are allowed at each place: `b = 0` for those, `FORBIDDEN` for the others.

    **Arguments:**

    - `sets`: which tokens are allowed where `(L, V)`.

    **Raises:** `ValueError` if `sets` is not `(L, V)`; a runtime error if a place allows nothing.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    b = ed.flow.Allowed(jnp.array([[True, False, True]])).field(jnp.eye(3))
    assert b.tolist() == [[0.0, ed.flow.FORBIDDEN, 0.0]]
    ```
    """

    sets: Bool[Array, "L V"]

    def __init__(self, sets: Bool[Array, "L V"]):
        if sets.ndim != 2:
            raise ValueError(f"`sets` has shape {sets.shape}; expected (L, V), one row a token.")
        empty = ~jnp.all(jnp.any(sets, axis=-1))
        self.sets = eqx.error_if(sets, empty, "`sets` allows no token at some place; allow at least one.")

    @property
    def length(self) -> int:
        """Number of tokens `L`."""
        return self.sets.shape[0]

    def field(self, codes: Float[Array, "V C"]) -> Float[Array, "L V"]:
        """0 for allowed tokens, `FORBIDDEN` for the others."""
        if self.sets.shape[1] != codes.shape[0]:
            raise ValueError(f"`sets` has {self.sets.shape[1]} tokens a row; the model has {codes.shape[0]}.")
        return jnp.where(self.sets, 0.0, FORBIDDEN).astype(codes.dtype)


class Likelihood(AbstractEvidence):
    """Any outside log-likelihood: a classifier, a lexicon, another model.

    **Arguments:**

    - `b`: log-likelihoods `(L, V)` in nats, finite.

    **Raises:** `ValueError` if `b` is not `(L, V)`; a runtime error if it is not finite.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    evidence = ed.flow.Masked(2) + ed.flow.Likelihood(jnp.ones((2, 3)))
    assert jnp.allclose(evidence.field(jnp.eye(3)), 1.0)
    ```
    """

    b: Float[Array, "L V"]

    def __init__(self, b: Float[Array, "L V"]):
        if b.ndim != 2:
            raise ValueError(f"`b` has shape {b.shape}; expected (L, V), one row a token.")
        fault = ~jnp.all(jnp.isfinite(b))
        self.b = eqx.error_if(b, fault, "`b` must be finite; use -30 for a token that is ruled out.")

    @property
    def length(self) -> int:
        """Number of tokens `L`."""
        return self.b.shape[0]

    def field(self, codes: Float[Array, "V C"]) -> Float[Array, "L V"]:
        """`b` itself."""
        if self.b.shape[1] != codes.shape[0]:
            raise ValueError(f"`b` has {self.b.shape[1]} tokens a row; the model has {codes.shape[0]}.")
        return self.b.astype(codes.dtype)


class Evidences(AbstractEvidence):
    """Evidence from independent sources, added. Usually written `one + another`.

    **Arguments:**

    - `sources`: pieces of evidence about the same tokens.

    **Raises:** `ValueError` if there are none or their lengths differ.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    both = ed.flow.Given(jnp.array([1, 2])) + ed.flow.Masked(2)
    assert len(both.sources) == 2 and both.length == 2
    ```
    """

    sources: tuple[AbstractEvidence, ...]

    def __init__(self, sources: tuple[AbstractEvidence, ...]):
        flat = [s for source in sources for s in (source.sources if type(source) is Evidences else (source,))]
        lengths = [source.length for source in flat]
        if not flat:
            raise ValueError("`sources` is empty; expected at least one piece of evidence.")
        if len(set(lengths)) > 1:
            raise ValueError(f"`sources` speak of {lengths} tokens; expected the same length of all.")
        self.sources = tuple(flat)

    @property
    def length(self) -> int:
        """Number of tokens `L`."""
        return self.sources[0].length

    def field(self, codes: Float[Array, "V C"]) -> Float[Array, "L V"]:
        """The sum of the sources' log-likelihoods."""
        return sum((source.field(codes) for source in self.sources[1:]), self.sources[0].field(codes))

    def spring(self) -> Float[Array, " L"]:
        """The sum of the sources' springs."""
        return sum((source.spring() for source in self.sources[1:]), self.sources[0].spring())


def _tokens(ids, known):
    ids = jnp.asarray(ids)
    if ids.ndim != 1 or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(f"`ids` is {ids.dtype}{list(ids.shape)}; expected integers (L,); `vmap` for a batch.")
    known = jnp.ones(ids.shape, bool) if known is None else jnp.asarray(known)
    if known.shape != ids.shape:
        raise ValueError(f"`known` has shape {known.shape}; expected {ids.shape}, as `ids`.")
    return ids, known


def _seen(ids, known, codes):
    size = codes.shape[0]
    bad = jnp.any(known & ((ids < 0) | (ids >= size)))
    ids = eqx.error_if(ids, bad, f"`ids` has a token outside the vocabulary of {size}; encode with its tokenizer.")
    return jax.nn.one_hot(ids, size, dtype=bool)
