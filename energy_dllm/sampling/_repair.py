"""`repair`: the text is noisy evidence, and the answer is the posterior at rest."""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Integer

from .._checks import expected, on_device, sizes
from .._model import EnergyDLLM
from .._types import Scalar
from ..energy import DFA, AbstractFreeEnergy, FreeEnergy, Guidance, Padded
from ..flow import AbstractEvidence, Relaxation, Trajectory, Typo, solve
from ._align import aligned
from ._motion import FRAMES, finite, observe
from ._padding import can_pad, pad, pad_evidence, padded_length, within
from ._template import typed
from ._validate import ahead, check_consistent, field, room, split_evidence


class Edit(NamedTuple):
    """One change of `repair`: position in the typed text, text before and after, probability.

    `before` is empty where a token was inserted (in front of `position`), `after` where one was deleted.
    """

    position: int
    before: str
    after: str
    confidence: float

    @property
    def kind(self) -> str:
        """`"substitute"`, `"insert"` or `"delete"`."""
        return "insert" if not self.before else "substitute" if self.after else "delete"


@dataclasses.dataclass(frozen=True, eq=False)
class Repair:
    """What `repair` returns.

    - `text`: the repaired text. `ids (L,)`, `confidence (L,)`: its tokens, and the probability of each.
    - `edits`: what was changed, in the order of the typed text. `origin (L,)`: the position of each token there, `-1`
      for an inserted one.
    - `times (T,)`: recorded relaxation times, in time constants.
    - `free_energy (T,)`: `F` in nats. `terms`: its parts by name, each `(T,)`.
    - `force_evaluations`: of the motion.
    - `reason`: why it stopped, in words.
    """

    text: str
    ids: Integer[np.ndarray, " L"]
    confidence: Float[np.ndarray, " L"]
    edits: list[Edit]
    origin: Integer[np.ndarray, " L"]
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
    shifts: int = 0,
    mask_unknown: bool = True,
    evidence: AbstractEvidence | None = None,
    guidance: Guidance | None = None,
    time: float | None = None,
    stop: float = 1e-2,
    frames: int = FRAMES,
) -> Repair:
    """Correct typing errors: the most probable text at rest, under evidence in which every token may be wrong.

    `dy/dt = -kappa dF/dg` under the evidence `log((1 - q) [w = seen] + q / V)`; the answer is `argmax p`.

    **Arguments:**

    - `text`: what was typed.
    - `rate`: probability `q` that a token is wrong, `0 < q < 1`; the larger, the more is changed.
    - `shifts`: how many tokens may be missing, or too many, each with probability `rate`. They are
      found one by one where `-log P` of what was typed falls most: about `2 L` relaxations for each. That is the free
      energy less that of a masked passage, or, of a model that also reads in blocks of one, the chain rule.
    - `mask_unknown`: whether characters outside the alphabet are masked, and so replaced; else they are an error.
    - `evidence`: what else is known of the tokens, as in `generate`; the answer matches every `flow.Matching` of it.
    - `guidance`: an energy that is added, as in `generate`.
    - `time`: longest relaxation, in time constants; default ten times the model's own.
    - `stop`: largest speed that counts as rest, as in `solve`.
    - `frames`: moments to record (32 by default), denser at the beginning.

    **Returns:** a `Repair`.

    **Raises:** `ValueError` for an empty text, characters outside the alphabet with `mask_unknown=False`, a `rate`
    outside (0, 1), a `time` that is not positive, `shifts` that are negative or stand beside evidence, whose places
    they move, or evidence that contradicts itself; `FloatingPointError` if the motion diverges.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, key=jax.random.key(0))
    fixed = ed.repair(model, "abc cab", rate=0.01)
    assert len(fixed.text) == 7 and fixed.free_energy[-1] <= fixed.free_energy[0]
    ```
    """
    expected(
        model=(model, EnergyDLLM, 'load("shakespeare")'),
        guidance=(guidance, Guidance, "energy.Guidance(lambda p: p[0, 0])"),
    )
    sizes(frames=frames)
    if model.tokenizer.places:
        raise ValueError("`model` makes pictures, which have no typing errors; expected one that writes text.")
    ids, read_off, pieces, _ = typed(model, text, mask_unknown)
    if ids.size == 0:
        raise ValueError("`text` is empty; expected at least one character to repair.")
    if not isinstance(shifts, int | np.integer) or shifts < 0:
        raise ValueError(f"`shifts` is {shifts}; expected 0 (no token is missing or too many) or more, such as 2.")
    room(ids.size, 2 * shifts + 1, frames, ids.size + 2, "text")
    end = 10.0 * model.steps * model.step if time is None else time
    if not 0 < end < np.inf:
        raise ValueError(f"`time` is {time}; expected a positive relaxation time in time constants, such as 50.")
    if not 0 < stop < np.inf:
        raise ValueError(f"`stop` is {stop}; expected a positive speed that counts as rest, such as 1e-2.")
    if shifts and evidence is not None:
        raise ValueError("`evidence` is about places, which `shifts` move; leave out one of them.")
    others, matching = split_evidence(evidence, ids.size)
    energy = model.energy if guidance is None else guidance.on(model.energy)
    Typo(on_device(ids), rate)  # refuses a wrong one
    base = model.energy
    reader = base.in_blocks(1) if isinstance(base, FreeEnergy) and 1 in model.blocks and guidance is None else None
    alignment = aligned(
        energy, ids, read_off, rate=rate, shifts=shifts, steps=model.steps, step=model.step, reader=reader
    )
    there = alignment.origin >= 0
    stands = there & read_off[alignment.origin]
    written, length = ids[alignment.origin].astype(np.int32), stands.size
    seen = Typo(on_device(written), rate, on_device(stands))
    known, dfa = seen if others is None else seen + others, None
    if others is not None:
        check_consistent(model, [("", known)])
    if matching is not None:
        ahead(matching, field(model, known))
        dfa = DFA.of(matching.automaton)
    if can_pad(energy, others):
        energy, size = Padded(energy, within(length)), padded_length(length)
        dfa = None if dfa is None else dfa.within(within(length))
        seen = Typo(on_device(pad(written, size)), rate, on_device(pad(stands, size)))
        known = seen if others is None else seen + pad_evidence(model, others, size)
    dtype = energy.vocabulary.codes.dtype
    longest, rest = (on_device(np.asarray(number, dtype)) for number in (end, stop))
    path = _relax(energy, known, dfa, longest, rest, frames)
    # moments after it came to rest were never reached
    moments = jax.tree.map(lambda leaf: np.asarray(leaf)[np.isfinite(path.times)], path.probes["moment"])
    moments |= {name: moments[name][:, :length] for name in ("ids", "confidence")}
    terms = moments["terms"]
    free_energy = np.sum(list(terms.values()), axis=0)
    finite(free_energy[-1:], "lower `time`, or train the model longer")
    answer, confidence = moments["ids"][-1].astype(int), moments["confidence"][-1]
    edits = [
        *(Edit(j, pieces[j], "", share) for j, share in alignment.extra.items()),
        *(
            Edit(
                # in front of the next one that was typed
                int(min(alignment.origin[i:][there[i:]], default=ids.size)),
                pieces[alignment.origin[i]] if there[i] else "",
                model.tokenizer.decode(answer[i : i + 1]),
                float(alignment.trust[i] * confidence[i]),
            )
            for i in np.flatnonzero((answer != ids[alignment.origin]) | ~stands).tolist()
        ),
    ]
    return Repair(
        text=model.decode(answer),
        ids=answer,
        confidence=confidence,
        edits=sorted(edits, key=lambda edit: edit.position),
        origin=alignment.origin,
        times=np.asarray(path.times)[np.isfinite(path.times)],
        free_energy=free_energy,
        terms=terms,
        force_evaluations=int(path.force_evaluations) + alignment.force_evaluations,
        reason=path.reason,
    )


@eqx.filter_jit
def _relax(
    energy: AbstractFreeEnergy,
    seen: AbstractEvidence,
    dfa: DFA | None,
    end: Scalar,
    stop: Scalar,
    frames: int,
) -> Trajectory:
    """Descent from neutral until `stop`, recorded at times that are dense where it is fast."""
    times = end * (jnp.arange(frames) / frames) ** 2
    probes = {"moment": lambda time, state, field: observe(energy, seen, state, None, dfa)}
    return solve(
        Relaxation(energy if dfa is None else dfa.on(energy), seen),
        energy.neutral(seen.length),
        t0=jnp.zeros_like(times[0]),
        t1=end,
        times=times,
        probes=probes,
        stop=stop,
    )
