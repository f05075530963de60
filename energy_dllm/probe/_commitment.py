"""Times at which tokens stop changing, from recorded probes."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def commitment_time(times: Float[Array, " N"], tokens: Int[Array, "N L"]) -> Float[Array, " L"]:
    """The first recorded time from which on each token's argmax never changes again.

    **Arguments:**

    - `times`: recorded times `(N,)`, increasing.
    - `tokens`: the `tokens` probe at each of them `(N, L)`.

    **Returns:** times `(L,)` on the clock of `times`; the first of them for a token that never changed.

    **Raises:** `ValueError` if the two paths have different lengths.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    tokens = jnp.array([[1, 5], [2, 5], [1, 5], [1, 5]])
    assert ed.probe.commitment_time(jnp.arange(4.0), tokens).tolist() == [2.0, 0.0]
    ```
    """
    _paths("tokens", times, tokens)
    return jnp.asarray(times)[_since(tokens == tokens[-1])]


def certainty_time(
    times: Float[Array, " N"], confidence: Float[Array, "N L"], *, level: float = 0.9
) -> Float[Array, " L"]:
    """The first recorded time from which on each token's confidence stays at `level` or above.

    **Arguments:**

    - `times`: recorded times `(N,)`, increasing.
    - `confidence`: the `confidence` probe at each of them `(N, L)`.
    - `level`: a probability.

    **Returns:** times `(L,)` on the clock of `times`; infinite for a token that ends below `level`.

    **Raises:** `ValueError` if the two paths have different lengths or `level` is no probability.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    confidence = jnp.array([[0.2, 0.9], [0.95, 0.5], [0.99, 0.6]])
    assert ed.probe.certainty_time(jnp.arange(3.0), confidence).tolist() == [1.0, float("inf")]
    ```
    """
    _paths("confidence", times, confidence)
    if not 0 < level <= 1:
        raise ValueError(f"`level` is {level}; expected a probability above 0 and up to 1, such as 0.9.")
    sure = confidence >= level
    return jnp.where(sure[-1], jnp.asarray(times)[_since(sure)], jnp.inf)


def _since(holds: Bool[Array, "N L"]) -> Int[Array, " L"]:
    """The first row from which on a column holds to the end; the last row if it does not even hold there."""
    kept = jnp.flip(jnp.cumprod(jnp.flip(holds, axis=0), axis=0), axis=0)
    return jnp.minimum(holds.shape[0] - jnp.sum(kept, axis=0), holds.shape[0] - 1)


def _paths(name: str, times: Array, values: Array) -> None:
    if values.ndim != 2 or times.shape != values.shape[:1]:
        raise ValueError(f"`{name}` has shape {values.shape}; expected ({times.shape[0]}, L), one row a time.")
