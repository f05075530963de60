"""Running a sampler over one window, recording moments on the way."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Integer, PyTree, UInt8

from .._model import EnergyDLLM
from .._types import LOG_ZERO
from ..energy import DFA, AbstractFreeEnergy, Padded
from ..flow import AbstractEvidence, AutonomousDescent, Conditioning, Trajectory
from ._blockwise import Blocks
from ._diffusion import Diffusion, descent
from ._padding import can_pad, pad, pad_conditioning, within
from ._sampler import AbstractSampler, changed
from ._unmasking import Unmasking, most_certain


ENDED = "reached the end of the time interval"
"""The `reason` of `solve` at the end of the interval."""
FRAMES = 32
"""Moments that are recorded by default, at most."""


@dataclasses.dataclass(frozen=True, eq=False)
class Generation:
    """What `generate` and `infill` return: `N` passages, and `T` moments on the way from masks or noise to text.

    - `texts`: the passages, each up to its `stop` where there is one.
    - `ids (N, L)` and `confidence (N, L)`: their tokens, and the posterior probability of each given the others,
      without its own evidence.
    - `times (T,)`: the recorded times: noise time `s = -log sigma`, or relaxation time `t` where tokens are unmasked.
    - `sigma (T,)`: the noise level of the noisiest token; infinite while a token is masked.
    - `known (N, T)`: the share of the tokens that are known.
    - `free_energy (N, T)`: `F` in nats. `terms`: its parts by name, each `(N, T)`.
    - `frames (N, T, L)`, `entropy (N, T, L)`: the most probable tokens, and the entropy of the posterior in nats.
    - `force_evaluations (N,)`: of the motion; those spent on recording are not counted.
    - `accepted (N,)`, `rejected (N,)`: steps of the solver, or rounds.
    - `reason`: why it stopped, in words.
    - `seed`: of the randomness.
    - `pictures`: of a model that makes pictures, `(N, rows, columns)`, in colour `(N, rows, columns, 3)`, uint8; their
      captions are the `texts`. None of a model that writes.

    A passage that is generated window by window has the moments of all windows one after another, times and free
    energies being those of each window; tokens of later windows have the entropy of a fully masked window.
    """

    texts: list[str]
    ids: Integer[np.ndarray, "N L"]
    confidence: Float[np.ndarray, "N L"]
    times: Float[np.ndarray, " T"]
    sigma: Float[np.ndarray, " T"]
    known: Float[np.ndarray, "N T"]
    free_energy: Float[np.ndarray, "N T"]
    terms: dict[str, Float[np.ndarray, "N T"]]
    frames: Integer[np.ndarray, "N T L"]
    entropy: Float[np.ndarray, "N T L"]
    force_evaluations: Integer[np.ndarray, " N"]
    accepted: Integer[np.ndarray, " N"]
    rejected: Integer[np.ndarray, " N"]
    reason: str
    seed: int
    pictures: UInt8[np.ndarray, "P rows columns *channels"]


def default_sampler(
    model: EnergyDLLM | None = None, evaluations: int | None = None, *, filling: bool = False
) -> AbstractSampler:
    """The sampler of `generate`, `infill` and `inpaint` where none is given.

    | model | sampler | evaluations |
    |---|---|---|
    | of text, or none | `descent()` | 25 a passage |
    | whose first of `blocks` is not the whole passage | `Blocks` of it, the most certain token first | one a token |
    | of pictures | the descent from 9 to 87 % of the model's noise, `y` one step of 1.3 from neutral | 48 a picture |
    | of pictures, `filling` a hole | the descent over all noise of the model, `y` moving along | 64 a picture |

    **Arguments:**

    - `model`: for which model; None is one of text that is read as a whole.
    - `evaluations`: of the force, in place of those of the table: of a passage, a block, the descent of a picture;
      the draw at the end of a picture from nothing is one more.
    - `filling`: whether a hole of a picture is filled.

    **Example:**

    ```python
    import energy_dllm as ed

    made = ed.generate(ed.load("digits"), prompt="seven", sampler=ed.sampling.default_sampler(ed.load("digits"), 8))
    assert made.pictures.shape == (1, 28, 28) and made.force_evaluations[0] == 9
    ```
    """
    if model is not None and model.tokenizer.places:
        if filling:
            return Diffusion(steps=64 if evaluations is None else evaluations, temperature=0.0, field=AutonomousDescent)
        # what is above and below tells no patches apart; how these were found is in the log
        field = functools.partial(AutonomousDescent, steps=1, step=1.3)
        steps = 48 if evaluations is None else evaluations
        return Diffusion(steps=steps, temperature=0.0, field=field, since=0.09, until=0.87)
    if model is not None and (block := model.blocks[0]):
        rounds = block if evaluations is None else evaluations
        return Blocks(Unmasking(rounds=rounds, steps=1, step=1.0, order=most_certain), size=block)
    return descent(25 if evaluations is None else evaluations)


def pictures_of(model: EnergyDLLM, ids: Integer[np.ndarray, "N L"]) -> UInt8[np.ndarray, "P rows columns *channels"]:
    """The pictures of sequences of a model that makes them; none of one that writes."""
    tokenizer: Any = model.tokenizer
    return np.stack([tokenizer.picture(each) for each in ids]) if tokenizer.places else np.zeros((0, 0, 0), np.uint8)


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """What was recorded of one window, as numpy arrays, samples first; `clock` and `sigma` by moment."""

    clock: Float[np.ndarray, " T"]
    sigma: Float[np.ndarray, " T"]
    recorded: dict[str, Any]
    forces: Integer[np.ndarray, " N"]
    accepted: Integer[np.ndarray, " N"]
    rejected: Integer[np.ndarray, " N"]
    reasons: tuple[str, ...]


def follow(
    sampler: AbstractSampler,
    model: EnergyDLLM,
    energy: AbstractFreeEnergy,
    conditioning: Conditioning,
    ids: Integer[np.ndarray, "N L"],
    starts: Integer[np.ndarray, " N"],
    keys: Array,
    frames: int,
    watch: Callable[[Moments], object] | None,
    split: NamedSharding | None = None,
) -> Moments:
    """One window, for every sample: its given tokens `ids`, and the state of its automaton; samples lie as `split`
    says."""
    dtype, length = energy.vocabulary.codes.dtype, conditioning.length
    times = sampler.clock(model.schedule)
    clock, sigma = np.asarray(times, dtype), np.asarray(sampler.sigma(times, length))
    steps = clock.shape[0] - 1
    # as equally spaced as whole steps allow
    marks = np.linspace(0, steps, min(max(frames, 1), steps) + 1).round().astype(int)
    pieces = [marks] if watch is None else [marks[n : n + 2] for n in range(len(marks) - 1)]
    if getattr(sampler, "ragged", False) and can_pad(energy, conditioning.others):
        energy, conditioning = Padded(energy, within(length)), pad_conditioning(model, conditioning)
        ids = pad(ids, conditioning.length)
    if isinstance(sampler, Blocks) and len(ids) > 1:  # passages that stand at different places are read no faster
        sampler = changed(sampler, draft=None)
    traced = getattr(sampler, "traced", lambda dtype: sampler)
    sampler, padding = traced(dtype), conditioning.length - length
    if split is not None:
        everywhere = NamedSharding(split.mesh, PartitionSpec())
        energy, conditioning, sampler = eqx.filter_shard((energy, conditioning, sampler), everywhere)
        ids, starts, keys = jax.device_put((ids, starts, keys), split)
    state = _begin(sampler, energy, conditioning, ids, starts, clock[0], keys)
    parts: list[Trajectory] = []

    def gather() -> Moments:
        records = [jax.tree.map(np.asarray, part.probes["moment"]) for part in parts]
        # every piece begins with the last moment of the one before
        later = [jax.tree.map(lambda leaf: leaf[:, 1:], record) for record in records[1:]]
        recorded = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), records[0], *later)
        recorded = _reached(recorded)
        recorded |= {name: recorded[name][..., :length] for name in ("ids", "confidence", "entropy")}
        recorded["known"] = (recorded["known"] - padding) / length
        there = marks[: recorded["ids"].shape[1]]
        results = jax.tree.map(np.asarray, parts[-1])
        # where the noise level is part of the state it is that of the passages, on average
        levels = recorded.pop("sigma").mean(axis=0) if "sigma" in recorded else sigma[there]
        # every distinct reason, once
        ends = jax.tree.leaves(results.result)[0].tolist()
        firsts = sorted(ends.index(end) for end in set(ends))
        reasons = [jax.tree.map(lambda leaf, n=n: np.asarray(leaf[n]), results).reason for n in firsts]
        return Moments(
            clock=clock[there],
            sigma=levels,
            recorded=recorded,
            forces=np.sum([part.force_evaluations for part in parts], axis=0),
            accepted=np.sum([part.accepted for part in parts], axis=0),
            rejected=np.sum([part.rejected for part in parts], axis=0),
            reasons=tuple(sampler.ending if reason == ENDED else reason for reason in reasons),
        )

    for piece in pieces:
        numbers = np.arange(piece[0], piece[-1] + 1)
        inner = tuple((piece[1:-1] - piece[0]).tolist())
        span = (state, clock[numbers], numbers, inner)
        part, state = _move(sampler, energy, conditioning, ids, starts, *span, frames > 0, keys)
        parts.append(part)
        if watch is not None:
            watch(gather())
    return gather()


def _reached(recorded: dict[str, Any]) -> dict[str, Any]:
    """Moments that were not reached, because the solver stopped before, are those of the last one that was."""
    there = np.isfinite(recorded["ids"][..., 0])
    if there.all():
        return recorded
    # the last record is where the motion stopped, and always exists
    samples, moments = there.shape
    index = np.where(there, np.arange(moments), moments - 1)
    return jax.tree.map(lambda leaf: leaf[np.arange(samples)[:, None], index], recorded)


def _each(one: Callable[..., Any], *rows: PyTree[Array]) -> Any:
    """Of every sample. One alone is not mapped: the CPU's compiler would copy what is kept of a text at every token."""
    if rows[0].shape[0] > 1:
        return eqx.filter_vmap(one)(*rows)
    made = one(*jax.tree.map(lambda leaf: leaf[0], rows))
    return jax.tree.map(lambda leaf: leaf[None] if eqx.is_array(leaf) else leaf, made)


@eqx.filter_jit
def _begin(sampler, energy, conditioning, ids, starts, time, keys) -> PyTree[Array]:
    """The initial state for every key."""
    one = lambda ids, start, key: sampler.begin(energy, conditioning.at(ids, start), time, key=key[0])
    return _each(one, ids, starts, keys)


@eqx.filter_jit
def _move(
    sampler, energy, conditioning, ids, starts, states, clock, numbers, inner, with_terms, keys
) -> tuple[Trajectory, PyTree[Array]]:
    """From one time to another, recording at both and in between, for every pair of keys; and the final states."""
    look = functools.partial(observe, energy, with_terms=with_terms)

    def one(ids, start, state, key):
        here = conditioning.at(ids, start)
        return sampler.move(energy, here, state, clock, numbers, inner, look, key=key[1])

    made = _each(one, ids, starts, states, keys)
    # of the states nothing but the last is needed any more
    return eqx.tree_at(lambda made: made.states, made, None), jax.tree.map(lambda leaf: leaf[:, -1], made.states)


def observe(
    energy: AbstractFreeEnergy,
    evidence: AbstractEvidence,
    y: Float[Array, "L D"],
    conditioning: Conditioning | None,
    dfa: DFA | None = None,
    with_terms: bool = True,
) -> dict[str, Any]:
    """Most probable tokens, their probabilities, how many are known, and every term of `F`, at one moment.

    Without the terms nothing of the network is evaluated.
    """
    codes = energy.vocabulary.codes
    b = evidence.field(codes)
    alone = jax.nn.log_softmax(energy.logits(y, b), axis=-1)
    ids, known = jnp.argmax(alone, axis=-1), jnp.zeros((), alone.dtype)
    plain = b if conditioning is None else conditioning.field(codes)
    dfa = dfa if conditioning is None else conditioning.dfa
    if dfa is not None:
        ids = dfa.best(jnp.where(Conditioning.allowed(plain), alone, LOG_ZERO)).astype(ids.dtype)
        energy = dfa.on(energy)
    logits = energy.logits(y, b)
    log_p = jax.nn.log_softmax(logits, axis=-1)
    log_q = log_p
    if conditioning is not None:
        # given tokens are kept exactly
        ids = jnp.where(conditioning.given.known, conditioning.given.ids.astype(ids.dtype), ids)
        log_q = jax.nn.log_softmax(logits - plain, axis=-1)
        known = jnp.sum(conditioning.given.known, dtype=log_p.dtype)
    terms = energy.terms(y, b, spring=evidence.spring()) if with_terms else {}
    return {
        # as floats: moments that are not reached are marked with inf
        "ids": ids.astype(log_p.dtype),
        "confidence": jnp.exp(jnp.take_along_axis(log_q, ids[:, None], axis=-1)[:, 0]),
        "entropy": -jnp.sum(jnp.exp(log_p) * log_p, axis=-1),
        "known": known,
        "terms": {name: jnp.sum(term) for name, term in terms.items()},
    }


def finite(free_energy: Float[np.ndarray, "..."], fix: str) -> None:
    if not np.isfinite(free_energy).all():
        raise FloatingPointError(f"the motion diverged: the free energy stopped being finite; {fix}.")
