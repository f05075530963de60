"""Times at which tokens stop changing, from recorded probes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


def commitment_time(times: Float[Array, " N"], tokens: Shaped[Array, "N L"]) -> Float[Array, " L"]:
    """The first recorded time from which on each token's argmax never changes again.

    **Arguments:**

    - `times`: recorded times `(N,)`, increasing; infinite where a path that came to rest did not get to.
    - `tokens`: the `tokens` probe at each of them `(N, L)`; or `confidence >= 0.9`, for the time from which on that
      holds where it holds at the end.

    **Returns:** times `(L,)` on the clock of `times`; the first of them for a token that never changed.

    **Raises:** `ValueError` if the two paths have different lengths.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    tokens = jnp.array([[1, 5], [2, 5], [1, 5], [1, 5]])
    assert ed.probe.commitment_time(jnp.arange(4.0), tokens).tolist() == [2.0, 0.0]
    ```
    """
    if tokens.ndim != 2 or times.shape != tokens.shape[:1]:
        raise ValueError(f"`tokens` has shape {tokens.shape}; expected ({times.shape[0]}, L), one row a time.")
    times = jnp.asarray(times)
    reached = jnp.isfinite(times)
    end = tokens[jnp.max(jnp.where(reached, jnp.arange(times.size), 0))]
    same = (tokens == end) | ~reached[:, None]
    kept = jnp.cumprod(jnp.flip(same, axis=0), axis=0)
    # a record that was not reached stands for the next that was
    return jax.lax.cummin(times, reverse=True)[tokens.shape[0] - jnp.sum(kept, axis=0)]
