"""`repair`: the text itself is the evidence, and the answer is where the hidden state comes to rest."""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Integer

from .._model import EnergyDLLM
from ..energy import AbstractFreeEnergy, Language, Steered, Wish
from ..flow import AbstractEvidence, Relaxation, SteadyState, Trajectory, Typo, solve
from ._asked import agree, behind, sorted_out
from ._motion import FRAMES, finite, positive, read


class Edit(NamedTuple):
    """A token that `repair` replaced: where, what stood there, what stands there now, how probable it is."""

    position: int
    before: str
    after: str
    confidence: float


@dataclasses.dataclass(frozen=True, eq=False)
class Repair:
    """What `repair` returns.

    - `text`: the repaired text. `ids (L,)`, `confidence (L,)`: its tokens, and the probability of each.
    - `edits`: what was changed.
    - `times (T,)`: recorded relaxation times, in time constants.
    - `free_energy (T,)`: `F` in nats. `terms`: its parts by name, each `(T,)`.
    - `force_evaluations`: of the motion.
    - `reason`: why it stopped, in words.
    """

    text: str
    ids: Integer[np.ndarray, " L"]
    confidence: Float[np.ndarray, " L"]
    edits: list[Edit]
    times: Float[np.ndarray, " T"]
    free_energy: Float[np.ndarray, " T"]
    terms: dict[str, Float[np.ndarray, " T"]]
    force_evaluations: int
    reason: str


def repair(
    model: EnergyDLLM,
    text: str,
    *,
    rate: float = 0.1,
    evidence: AbstractEvidence | None = None,
    wish: Wish | None = None,
    time: float | None = None,
    stop: SteadyState | None = None,
    frames: int = FRAMES,
) -> Repair:
    """Correct typing errors: every token may be wrong, and the system comes to rest on what was meant.

    `dy/dt = -kappa dF/dg` under the evidence `log((1 - q) [w = seen] + q / V)`; the answer is `argmax p`.

    **Arguments:**

    - `text`: what was typed.
    - `rate`: probability `q` that a token is wrong, `0 < q < 1`; the larger, the more is changed.
    - `evidence`: what else is known of the tokens, as in `generate`; the answer matches every `flow.Matching` of it.
    - `wish`: an energy that is added, as in `generate`.
    - `time`: longest relaxation, in time constants; default ten times the model's own.
    - `stop`: what counts as rest; default `SteadyState(1e-2)`.
    - `frames`: moments to record, denser at the beginning.

    **Returns:** a `Repair`.

    **Raises:** `ValueError` for an empty text, characters unknown to the model, a `rate` outside (0, 1), a
    `time` that is not positive or evidence that contradicts itself; `FloatingPointError` if the motion diverges.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, key=jax.random.key(0))
    fixed = ed.repair(model, "abc cab", rate=0.01)
    assert len(fixed.text) == 7 and fixed.free_energy[-1] <= fixed.free_energy[0]
    ```
    """
    positive(frames=frames)
    seen = model.encode(text)
    if seen.shape[0] == 0:
        raise ValueError("`text` is empty; expected at least one character to repair.")
    end = 10.0 * model.steps * model.step if time is None else time
    if not end > 0:
        raise ValueError(f"`time` is {time}; expected a positive relaxation time in time constants, such as 50.")
    stop = SteadyState(1e-2) if stop is None else stop
    others, matching = sorted_out(evidence, seen.shape[0])
    known = Typo(seen, rate) if others is None else Typo(seen, rate) + others
    agree(model, [("", known)])
    language = None
    if matching is not None:
        behind(matching, np.asarray(model.field(known)))
        language = Language.of(matching.acceptor)
    energy = model.energy if wish is None else Steered(model.energy, wish)
    path = _relax(energy, known, language, end, frames, stop)
    # moments after it came to rest were never reached
    moments = jax.tree.map(lambda leaf: np.asarray(leaf)[np.isfinite(path.times)], path.probes["moment"])
    terms = moments["terms"]
    free_energy = np.sum(list(terms.values()), axis=0)
    finite(free_energy[-1:], "lower `time`, or train the model longer")
    ids, confidence = moments["ids"][-1].astype(int), moments["confidence"][-1]
    edits = [
        Edit(i, model.decode(seen[i : i + 1]), model.decode(ids[i : i + 1]), float(confidence[i]))
        for i in np.flatnonzero(ids != np.asarray(seen)).tolist()
    ]
    return Repair(
        text=model.decode(ids),
        ids=ids,
        confidence=confidence,
        edits=edits,
        times=np.asarray(path.times)[np.isfinite(path.times)],
        free_energy=free_energy,
        terms=terms,
        force_evaluations=int(path.force_evaluations),
        reason=path.reason,
    )


@eqx.filter_jit
def _relax(
    energy: AbstractFreeEnergy,
    seen: AbstractEvidence,
    language: Language | None,
    end: float,
    frames: int,
    stop: SteadyState,
) -> Trajectory:
    """Descent from neutral until `stop`, recorded at times that are dense where it is fast."""
    times = end * (jnp.arange(frames) / frames) ** 2
    probes = {"moment": lambda time, state, field: read(energy, seen, state, None, language)}
    return solve(
        Relaxation(energy, seen),
        energy.neutral(seen.length),
        t0=jnp.zeros_like(times[0]),
        t1=jnp.asarray(end, times.dtype),
        times=times,
        probes=probes,
        stop=stop,
    )
