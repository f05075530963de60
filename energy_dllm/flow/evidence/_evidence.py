"""Evidence: one interface for every kind of corruption and control.

Evidence about a passage is a log-likelihood `b (L, V)` in nats: of the observation at every place, for every token of
the vocabulary. Noise, masks, prompts, typing errors and constraints differ in `b` only; evidence from independent
sources adds, so it composes with `+`. A token that is excluded has a finite log-likelihood, `FORBIDDEN`.
"""

import abc

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._checks import concrete, error_if, finite, floats, number, positive, sizes
from ..._types import Scalar


FORBIDDEN = -1000.0
"""The log-likelihood of a token that is ruled out; finite. A token is known if all others are."""


class AbstractEvidence(eqx.Module):
    """What is known about a passage of `length` tokens.

    To add a kind of evidence, write `length`, `field` and `spring`.
    """

    @property
    @abc.abstractmethod
    def length(self) -> int:
        """Number of tokens `L`."""

    @abc.abstractmethod
    def field(self, codes: Float[Array, "V C"]) -> Float[Array, "L V"]:
        """The log-likelihood `b (L, V)` in nats, given the token codes `e (V, C)`."""

    @abc.abstractmethod
    def spring(self) -> Float[Array, " L"]:
        """The part of the evidence's energy that does not depend on the tokens, `(L,)`: 0 unless there is noise."""

    @property
    def parts(self) -> tuple["AbstractEvidence", ...]:
        """The independent sources that were added up."""
        return self.sources if isinstance(self, Evidences) else (self,)

    def __add__(self, other: "AbstractEvidence") -> "AbstractEvidence":
        """Evidence from two independent sources: `b` and springs add. `ValueError` if their lengths differ, or if the
        other is none.

        **Example:**

        ```python
        import jax.numpy as jnp, energy_dllm as ed

        both = ed.flow.Given(jnp.array([1, 2])) + ed.flow.Masked(2)
        assert len(both.parts) == 2 and both.length == 2
        ```
        """
        return Evidences((self, other))


class Gaussian(AbstractEvidence):
    """Token codes seen through Gaussian noise: `b_iw = (<x_i, e_w> - |e_w|^2 / 2) / sigma_i^2`.

    **Arguments:**

    - `x`: the noisy observation `(L, C)`.
    - `sigma`: noise level of each token `(L,)`, or one level for all; positive, in units of the codes.
    - `temperature`: of the noise, `tau`: at the `sigma` where the energy is least, `x` is off by `tau sigma`. 1 is
      Bayes' rule; below 1 there is less noise than `sigma` accounts for.

    **Raises:** `ValueError` if shapes do not match, or if a `sigma` or `temperature` is not positive.

    **Source:** the posterior mean under it is Tweedie's formula (Robbins 1956; Efron 2011).

    ??? cite "Reference"

        ```bibtex
        @article{efron2011tweedie,
          title={Tweedie's Formula and Selection Bias},
          author={Efron, Bradley},
          journal={Journal of the American Statistical Association}, volume={106}, number={496},
            pages={1602--1614},
          year={2011}
        }
        ```

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
    temperature: Scalar | float

    def __init__(
        self,
        x: Float[Array, "L C"],
        sigma: Float[Array, " L"] | Float[Array, ""] | float,
        *,
        temperature: Scalar | float = 1.0,
    ):
        number("temperature", temperature, positive, "a positive number, 1 for Bayes' rule")
        x = floats(x)
        if x.ndim != 2:
            raise ValueError(f"`x` has shape {x.shape}; expected (L, C), one code a token.")
        sigma = jnp.asarray(sigma, x.dtype)
        if sigma.shape not in ((), x.shape[:1]):
            raise ValueError(f"`sigma` has shape {sigma.shape}; expected () or ({x.shape[0]},), one a token.")
        sigma = jnp.broadcast_to(sigma, x.shape[:1])
        self.sigma = error_if(lambda sigma: ~(sigma > 0), "`sigma` must be positive at every token.", sigma)
        if not finite(x):
            raise ValueError("`x` has a NaN or an infinity; expected finite codes.")
        self.x, self.temperature = x, temperature

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
        """`|x_i|^2 / (2 sigma_i^2) + tau^2 C log sigma_i`: what no token changes in `-log N(x_i; e_w, sigma_i^2)`."""
        dimensions = self.temperature**2 * self.x.shape[1]
        return 0.5 * jnp.sum(self.x**2, axis=-1) / self.sigma**2 + dimensions * jnp.log(self.sigma)


class Masked(AbstractEvidence):
    """Nothing is known: `b = 0`.

    **Arguments:**

    - `length`: number of tokens `L`, positive.

    **Raises:** `ValueError` if `length` is no positive integer.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    assert ed.flow.Masked(4).field(jnp.eye(3)).shape == (4, 3)
    ```
    """

    tokens: int = eqx.field(static=True)

    def __init__(self, length: int):
        sizes(length=length)
        self.tokens = length

    @property
    def length(self) -> int:
        """Number of tokens `L`."""
        return self.tokens

    def field(self, codes: Float[Array, "V C"]) -> Float[Array, "L V"]:
        """Zeros."""
        return jnp.zeros((self.tokens, codes.shape[0]), codes.dtype)

    def spring(self) -> Float[Array, " L"]:
        """Zeros: there is no noise."""
        return jnp.zeros(self.length)


class Evidences(AbstractEvidence):
    """Evidence from independent sources, `one + another`: their log-likelihoods add. `ValueError` if lengths differ."""

    sources: tuple[AbstractEvidence, ...]

    def __init__(self, sources: tuple[AbstractEvidence, ...]):
        for source in sources:
            if not isinstance(source, AbstractEvidence):
                raise ValueError(f"`evidence` is a {type(source).__name__}; expected one, such as `flow.Masked(64)`.")
        flat = [part for source in sources for part in source.parts]
        lengths = [source.length for source in flat]
        if len(set(lengths)) > 1:
            raise ValueError(f"`sources` have {lengths} tokens; expected the same length of all.")
        self.sources = tuple(flat)

    @property
    def length(self) -> int:
        """Number of tokens `L`."""
        return self.sources[0].length

    def field(self, codes: Float[Array, "V C"]) -> Float[Array, "L V"]:
        """The sum of the sources' log-likelihoods; `ValueError` if they are known to leave no token at some place."""
        fields = [source.field(codes) for source in self.sources]
        if concrete(fields):
            allowed = [b > b.max(axis=-1, keepdims=True) + FORBIDDEN for b in map(np.asarray, fields)]
            void = np.flatnonzero(~np.all(allowed, axis=0).any(axis=-1))
            if void.size:
                raise ValueError(
                    f"`sources` contradict each other at token {void[0]}: together they leave nothing that may stand "
                    "there; leave out one of them."
                )
        return sum(fields[1:], fields[0])

    def spring(self) -> Float[Array, " L"]:
        """The sum of the sources' springs."""
        return sum((source.spring() for source in self.sources[1:]), self.sources[0].spring())
