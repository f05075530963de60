"""The motion that writes: from full noise down the model's schedule, one `solve`, read on the way."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, PyTree

from .._types import Scalar
from ..energy import AbstractFreeEnergy
from ..flow import (
    AbstractField,
    Given,
    JointFlow,
    ProbabilityFlow,
    Relaxation,
    ReverseDiffusion,
    Trajectory,
    solve,
)


FIELD: Callable[[AbstractFreeEnergy, Given], AbstractField] = ProbabilityFlow
STEPS = 24
CHURN = 0.0
FRAMES = 32
"""What `generate` and `infill` do where nothing is said, decided here and nowhere else: the motion, its steps
through the noise schedule, the noise that keeps it from committing early, how many moments are recorded."""


@dataclasses.dataclass(frozen=True, eq=False)
class Generation:
    """What `generate` and `infill` return: `N` passages, and `T` moments on the way, from noise to text.

    - `texts`: the passages.
    - `ids (N, L)` and `confidence (N, L)`: their tokens, and the posterior probability of each.
    - `times (T,)`, `sigma (T,)`: the recorded noise times `s = -log sigma` and noise levels.
    - `free_energy (N, T)`: `F` in nats. `terms`: its parts by name, each `(N, T)`.
    - `frames (N, T, L)`, `entropy (N, T, L)`: the likeliest tokens, and the entropy of the posterior in nats.
    - `force_evaluations (N,)`: of the motion; those spent on reading it are not counted.
    - `accepted (N,)`, `rejected (N,)`: steps of the solver.
    - `reason`: why it stopped, in words.
    - `seed`: what it was drawn with.
    """

    texts: list[str]
    ids: Integer[np.ndarray, "N L"]
    confidence: Float[np.ndarray, "N L"]
    times: Float[np.ndarray, " T"]
    sigma: Float[np.ndarray, " T"]
    free_energy: Float[np.ndarray, "N T"]
    terms: dict[str, Float[np.ndarray, "N T"]]
    frames: Integer[np.ndarray, "N T L"]
    entropy: Float[np.ndarray, "N T L"]
    force_evaluations: Integer[np.ndarray, " N"]
    accepted: Integer[np.ndarray, " N"]
    rejected: Integer[np.ndarray, " N"]
    reason: str
    seed: int


def write(model, given, samples, steps, churn, field, solver, controller, frames, seed, watch) -> Generation:
    positive(samples=samples, steps=steps, frames=frames)
    if not 0 <= seed < 2**32:
        raise ValueError(f"`seed` is {seed}; expected an integer of at least 0 and below 2**32.")
    if churn is None:
        churn = CHURN if solver is None and controller is None else 0.0
    if churn and controller is not None:
        raise ValueError(f"`churn` is {churn} beside a `controller`; noise needs known steps, so set `churn=0`.")
    flow = (FIELD if field is None else field)(model.energy, given)
    if isinstance(flow, Relaxation):
        raise ValueError("`field` made a Relaxation, which moves y; expected a ProbabilityFlow, a JointFlow or alike.")
    if churn:
        flow = ReverseDiffusion(flow, churn=churn)  # pyright: ignore[reportArgumentType]

    levels = model.schedule.levels(steps).astype(model.energy.vocabulary.codes.dtype)
    # equally many steps between moments, as nearly as whole steps allow
    marks = np.linspace(0, steps, min(frames, steps) + 1).round().astype(int)
    pieces = [marks] if watch is None else [marks[n : n + 2] for n in range(len(marks) - 1)]
    keys = jax.vmap(lambda n: jax.random.split(jax.random.fold_in(jax.random.key(seed), n)))(jnp.arange(samples))
    state, first = _begin(flow, given, levels[0], keys[:, 0])
    paths = []
    for piece in pieces:
        stretch, inner = levels[piece[0] : piece[-1] + 1], levels[piece[1:-1]]
        path = _move(flow, given, state, stretch, inner, keys[:, 1], solver, controller)
        state = jax.tree.map(lambda leaf: leaf[:, -1], path.states)
        paths.append(path)
        if watch is not None:
            watch(_gather(model, levels[marks[: len(paths) + 1]], first, paths, seed))
    return _gather(model, levels[marks], first, paths, seed)


def _gather(model, times, first, paths, seed) -> Generation:
    """The first moment and those of all pieces so far, as numpy arrays, samples first."""
    moments = [first, *(path.probes["moment"] for path in paths)]
    moment = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *moments)
    last = jax.tree.map(np.asarray, paths[-1])
    samples = moment["ids"].shape[0]
    reasons = dict.fromkeys(jax.tree.map(lambda leaf, n=n: leaf[n], last).reason for n in range(samples))
    free_energy = np.sum(list(moment["terms"].values()), axis=0)
    finite(free_energy[:, -1], "use more `steps`, or a `field` with a smaller rate or step")
    frames = moment["ids"].astype(int)
    ids = frames[:, -1]
    return Generation(
        texts=[model.decode(row) for row in ids],
        ids=ids,
        confidence=moment["confidence"][:, -1],
        times=np.asarray(times),
        sigma=np.exp(-np.asarray(times)),
        free_energy=free_energy,
        terms=moment["terms"],
        frames=frames,
        entropy=moment["entropy"],
        force_evaluations=np.sum([path.force_evaluations for path in paths], axis=0),
        accepted=np.sum([path.accepted for path in paths], axis=0),
        rejected=np.sum([path.rejected for path in paths], axis=0),
        reason="; ".join(reasons),
        seed=seed,
    )


@eqx.filter_jit
def _begin(field: AbstractField, given: Given, time: Scalar, keys: Array) -> tuple[PyTree[Array], PyTree[Array]]:
    """For every key a state of full noise around the mean code, and how it reads."""
    energy = field.energy
    y = energy.neutral(given.length)
    mean = energy.denoised(y, given.field(energy.vocabulary.codes))
    flow = field.flow if isinstance(field, ReverseDiffusion) else field

    def one(key):
        x = mean + jnp.exp(-time) * jax.random.normal(key, mean.shape, mean.dtype)
        state = (x, y) if isinstance(flow, JointFlow) else x
        moment = read(time, state, field, given)
        return state, jax.tree.map(lambda leaf: leaf[None], moment)

    return jax.vmap(one)(keys)


@eqx.filter_jit
def _move(field, given, states, levels, times, keys, solver, controller) -> Trajectory:
    """From one level to another, recording in between at `times`; one motion for every key."""
    clock = {"levels": levels} if controller is None else {"controller": controller}

    def one(state, key):
        return solve(
            field,
            state,
            t0=levels[0],
            t1=levels[-1],
            solver=solver,
            times=times if times.shape[0] else None,
            probes={"moment": lambda time, state, field: read(time, state, field, given)},
            key=key,
            **clock,
        )

    return eqx.filter_vmap(one)(states, keys)


def read(time: Scalar, state: PyTree[Array], field: AbstractField, given: Given | None) -> dict[str, Any]:
    """A probe: likeliest tokens, how sure they are, and every term of `F`, at one moment."""
    evidence = field.evidence(time, state)
    b = evidence.field(field.energy.vocabulary.codes)
    y = field.hidden(time, state)
    log_p = jax.nn.log_softmax(field.energy.logits(y, b), axis=-1)
    ids = jnp.argmax(log_p, axis=-1)
    if given is not None:  # to the letter, however strong the pull of the others
        ids = jnp.where(given.known, given.ids.astype(ids.dtype), ids)
    terms = field.energy.terms(y, b, spring=evidence.spring())
    return {
        # as floats: moments that are never reached are marked with inf, which integers do not have
        "ids": ids.astype(log_p.dtype),
        "confidence": jnp.exp(jnp.take_along_axis(log_p, ids[:, None], axis=-1)[:, 0]),
        "entropy": -jnp.sum(jnp.exp(log_p) * log_p, axis=-1),
        "terms": {name: jnp.sum(term) for name, term in terms.items()},
    }


def positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"`{name}` is {size}; expected a positive integer.")


def finite(free_energy: Float[np.ndarray, "..."], fix: str) -> None:
    if not np.isfinite(free_energy).all():
        raise FloatingPointError(f"the motion diverged: the free energy stopped being finite; {fix}.")
