"""Memorisation and generalisation of a data set: critical noise, effective number of memories, a report."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._types import Key, Scalar
from ..energy import Empirical
from ..flow import AbstractField, ReverseDiffusion
from ._minima import GaussianMemory
from ._states import AbstractPatternMemory


def effective_memories(time: Scalar, state: PyTree[Array], field: AbstractField) -> Scalar:
    """Probe: the effective number of items in the posterior, `exp(-sum_mu p_mu log p_mu)`, between 1 and `M`.

    **Arguments:** `time`, `state`, `field` as `solve` passes them; the field moves over an `Empirical`.

    **Returns:** a scalar.

    **Raises:** `ValueError` if the energy of the field is not an `Empirical`.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    field = ed.flow.ProbabilityFlow(ed.energy.Empirical.of_vectors(jnp.eye(4)), steps=1)
    probes = {"effective": ed.memory.effective_memories}
    path = ed.solve(field, 3.0 * jnp.eye(4)[:1], t0=-1.0, t1=3.0, times=jnp.array([-1.0, 0.0, 2.0]), probes=probes)
    assert path.probes["effective"][0] > 2.0 and path.probes["effective"][-1] < 1.01
    ```
    """
    energy = (field.flow if isinstance(field, ReverseDiffusion) else field).energy
    if not isinstance(energy, Empirical):
        raise ValueError(f"the field moves over a {type(energy).__name__}; only an `Empirical` has items to count.")
    logs = energy.log_shares(field.evidence(time, state).field(energy.vocabulary.codes))
    return jnp.exp(-jnp.sum(jnp.exp(logs) * logs))


class CriticalNoise(eqx.Module):
    """The two noise levels at which a data set changes its nature, and what is measured around the second.

    Speciation is read from the covariance. Condensation is where the information that noisy data give, taken as
    Gaussian with that covariance, suffices to identify one of `M` items; for variance `v` in every direction it is
    `sigma^2 = v / (M^(2/N) - 1)`. Beside it the posterior mass on the true item, and the effective number of
    memories, are measured; they cross over more sharply the larger `N`.

    **Arguments:**

    - `vectors`: the data `(M, N)`, at least two rows that differ.
    - `key`: random key of the draws.
    - `ratios`: noise levels of the measurement, in units of `condensation`.
    - `draws`: noisy data at each.

    **Attributes:**

    - `speciation`: above this noise the data have one well, below they divide: `sigma^2 = lambda_max(Cov)`.
    - `condensation`: below this noise each datum is its own well: `sum_j log(1 + lambda_j / sigma^2) / 2 = log M`.
    - `sigma (S,)`: noise levels at which the following was measured.
    - `mass (S,)`: mean posterior mass on the datum the noise was added to.
    - `effective (S,)`: the effective number of memories there, `exp` of the mean entropy of the posterior.

    **Raises:** `ValueError` if there are fewer than two rows, or all are equal.

    **Source:** Biroli et al. 2024 (arXiv 2402.18491); Raya & Ambrogioni 2023 (arXiv 2305.19693).

    ??? cite "Reference"

        ```bibtex
        @article{biroli2024dynamical,
          title={Dynamical Regimes of Diffusion Models},
          author={Biroli, Giulio and Bonnaire, Tony and de Bortoli, Valentin and M{\\'e}zard, Marc},
          journal={Nature Communications}, volume={15}, pages={9957},
          year={2024}
        }
        ```

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    pair = jnp.array([[1.5, 0.0], [-1.5, 0.0]])
    assert jnp.allclose(ed.memory.CriticalNoise(pair, key=jax.random.key(0), draws=8).speciation, 1.5)
    ```
    """

    speciation: float
    condensation: float
    sigma: Float[Array, " S"]
    mass: Float[Array, " S"]
    effective: Float[Array, " S"]

    def __init__(
        self,
        vectors: Float[Array, "M N"],
        *,
        key: Key,
        ratios: tuple[float, ...] = (0.6, 0.8, 1.0, 1.25, 1.6),
        draws: int = 256,
    ):
        rows = np.asarray(vectors)
        if rows.ndim != 2 or len(rows) < 2:
            raise ValueError(f"`vectors` has shape {rows.shape}; expected (M, N) with at least two rows.")
        spectrum = np.linalg.svd(rows - rows.mean(0), compute_uv=False) ** 2 / len(rows)
        spectrum = spectrum[spectrum > 1e-12 * spectrum.max()] if spectrum.max() > 0 else spectrum[:0]
        if not spectrum.size:
            raise ValueError("`vectors` are all equal; one datum has no critical noise.")
        low, high = -40.0, 40.0  # log sigma^2, halved to the last digit
        for _ in range(100):
            middle = (low + high) / 2
            enough = 0.5 * np.log1p(spectrum * np.exp(-middle)).sum() > np.log(len(rows))
            low, high = (middle, high) if enough else (low, middle)
        condensation = float(np.exp(low / 2))
        memory = GaussianMemory(vectors)
        sigma = jnp.asarray(condensation * np.array(ratios), memory.patterns.dtype)
        mass, effective = _measure(memory, sigma, key, draws)
        self.speciation, self.condensation = float(spectrum.max() ** 0.5), condensation
        self.sigma, self.mass, self.effective = sigma, mass, effective


@eqx.filter_jit
def _measure(memory: AbstractPatternMemory, sigma, key, draws):
    k1, k2 = jax.random.split(key)
    true = jax.random.randint(k1, (draws,), 0, memory.patterns.shape[0])
    noise = jax.random.normal(k2, (draws, memory.dim), sigma.dtype)

    def at(level):
        def one(pair):
            n, z = pair
            x = memory.patterns[n] + level * z
            logs = jax.nn.log_softmax(-jnp.sum((x - memory.patterns) ** 2, axis=-1) / (2 * level**2))
            return jnp.exp(logs[n]), -jnp.sum(jnp.exp(logs) * logs)

        mass, entropy = jax.tree.map(jnp.mean, jax.lax.map(one, (true, noise), batch_size=64))
        return mass, jnp.exp(entropy)

    return jax.lax.map(at, sigma)


class Memorisation(eqx.Module):
    """Whether a model repeats its training set, repeats itself, or makes something new.

    A sample is *memorised* if it is near a training item; if not, *spurious* if it is near another sample (a minimum
    that is not stored, found repeatedly); otherwise *generalised*. For text give one-hot vectors divided
    by `sqrt(2)`, whose squared distance is the number of tokens that differ.

    **Arguments:**

    - `samples`: what the model made `(S, N)`, at least two.
    - `training`: what it was trained on `(M, N)`.
    - `near`: the distance that counts as near; by default half of the median distance of a training item to its nearest
      neighbour.

    **Attributes:**

    - `memorised`, `spurious`, `generalised`: shares of the samples, together 1.
    - `nearest (S,)`: for every sample the training item it is closest to.
    - `distance (S,)`: how far that is; `between (S,)`: how far the closest other sample is.
    - `near`: the distance that was called near.

    **Raises:** `ValueError` if shapes do not match, a number is not finite, or `near` is not positive.

    **Source:** Pham et al. 2025 (arXiv 2505.21777), whose thresholds are tuned to images.

    **Example:**

    ```python
    import numpy as np, energy_dllm as ed

    training = np.eye(4)
    report = ed.memory.Memorisation(np.vstack([training[:2], np.full((2, 4), 9.0), np.full((1, 4), -9.0)]), training)
    assert (report.memorised, report.spurious, report.generalised) == (0.4, 0.4, 0.2)
    ```
    """

    memorised: float
    spurious: float
    generalised: float
    nearest: Int[np.ndarray, " S"]
    distance: Float[np.ndarray, " S"]
    between: Float[np.ndarray, " S"]
    near: float

    def __init__(
        self,
        samples: Float[Array | np.ndarray, "S N"],
        training: Float[Array | np.ndarray, "M N"],
        *,
        near: float | None = None,
    ):
        made, stored = np.asarray(samples, float), np.asarray(training, float)
        if made.ndim != 2 or stored.ndim != 2 or made.shape[1] != stored.shape[1] or len(made) < 2 or len(stored) < 2:
            raise ValueError(
                f"`samples` {made.shape} and `training` {stored.shape}; expected two rows or more, equally wide."
            )
        for name, rows in (("samples", made), ("training", stored)):
            if not np.isfinite(rows).all():
                raise ValueError(
                    f"`{name}` has a NaN or an infinity; expected finite numbers, so leave those rows out."
                )
        if near is None:
            near = 0.5 * float(np.median(_nearest(stored, stored, itself=True)[1]))
        if not near > 0:
            raise ValueError(f"`near` is {near}; expected a positive distance (training items that repeat give 0).")
        nearest, distance = _nearest(made, stored)
        _, between = _nearest(made, made, itself=True)
        memorised = distance <= near
        spurious = ~memorised & (between <= near)
        share = lambda part: float(np.mean(part))
        new = ~memorised & ~spurious
        self.memorised, self.spurious, self.generalised = share(memorised), share(spurious), share(new)
        self.nearest, self.distance, self.between, self.near = nearest, distance, between, near


def _nearest(these: np.ndarray, those: np.ndarray, *, itself: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """For each of these the closest of those, its number and distance; one row at a time in memory."""
    found = []
    for n, row in enumerate(these):
        squared = ((those - row) ** 2).sum(1)
        if itself:
            squared[n] = np.inf
        found.append((squared.argmin(), np.sqrt(squared.min())))
    index, distance = zip(*found, strict=True)
    return np.array(index), np.array(distance)
