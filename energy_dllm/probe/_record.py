"""What `inspect` and `page` record before they draw, and how files are written."""

import os
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import seeded
from .._model import EnergyDLLM
from .._types import Key
from ..flow import AbstractEvidence, Gaussian, Given, JointFlow, Masked, Relaxation, Trajectory, solve
from ._landscape import Landscape
from ._probes import (
    attention_pattern,
    confidence,
    dissipation,
    distance_to_rest,
    energy_terms,
    free_energy,
    posterior_entropy,
    tokens,
)


RECORDS = 48
"""Largest number of recorded times of a trajectory."""
REST = 10.0
"""Length of the recorded relaxation, in units of the default relaxation."""
NOISE = 0.7
"""Noise level of the tokens that relax, if they are not known: at rest there is something left to decide."""
STARTS = 6
"""Random hidden states that relax on the slice of the landscape."""
SCALARS = {
    "free_energy": free_energy,
    "energy_terms": energy_terms,
    "dissipation": dissipation,
    "distance_to_rest": distance_to_rest,
}
BY_TOKEN = {
    "tokens": tokens,
    "posterior_entropy": posterior_entropy,
    "confidence": confidence,
}


class Record(NamedTuple):
    """Everything that is computed, before anything is drawn."""

    given: AbstractEvidence
    rate: float
    known: int
    passage: Trajectory
    relaxation: Trajectory
    slice: Landscape
    attention: dict[str, Array]


def record(model: EnergyDLLM, prompt: str, length: int, steps: int, seed: int) -> Record:
    """A passage, a relaxation and a slice, as described in `inspect`; `ValueError` for bad input."""
    return recorded_from(model, validate(model, prompt, length, steps), length, steps, seed)


def passage_length(model: EnergyDLLM, length: int | None, default: int = 64) -> int:
    """Tokens of a passage if it is not said how many; a picture has those that it has, else `ValueError`."""
    places = model.tokenizer.places
    if places and length not in (None, places):
        raise ValueError(f"`length` is {length}; pictures of this model have {places} tokens: leave it out.")
    return (places or default) if length is None else length


def validate(model: EnergyDLLM, prompt: str, length: int, steps: int) -> np.ndarray:
    """The ids of the prompt; `ValueError` if it does not fit, or for sizes that are not positive."""
    if length < 1:
        raise ValueError(f"`length` is {length}; expected a positive number of tokens, such as 64.")
    if steps < 1:
        raise ValueError(f"`steps` is {steps}; expected a positive number of steps, such as 64.")
    try:
        known = np.asarray(model.encode(prompt) if prompt else [], int)
    except ValueError as error:
        raise ValueError(f"`prompt` {prompt!r} cannot be encoded: {error}") from error
    if len(known) > length:
        raise ValueError(f"`prompt` has {len(known)} tokens but `length` is {length}; make `length` larger.")
    return known


def levels_of(model: EnergyDLLM, steps: int) -> Float[Array, " n"]:
    """Noise times of the schedule, in the precision of the model."""
    return model.schedule.levels(steps).astype(model.energy.vocabulary.codes.dtype)


def recorded_from(model: EnergyDLLM, known: np.ndarray, length: int, steps: int, seed: int) -> Record:
    """The same after given ids."""
    seeded(seed)
    given = given_start(known, length) if len(known) else Masked(length)
    levels = levels_of(model, steps)
    rate = min(10.0, steps / float(levels[-1] - levels[0]))
    passage, relaxation, cut, attention = _record(model, given, levels, rate, jax.random.key(seed))
    check_finite(passage, "passage")
    check_finite(relaxation, "relaxation")
    return Record(given, rate, len(known), passage, relaxation, cut, attention)


def given_start(known: np.ndarray, length: int) -> Given:
    """Evidence in which the first tokens are given."""
    return Given(jnp.asarray(np.pad(known, (0, length - len(known)))), jnp.arange(length) < len(known))


def check_finite(path: Trajectory, what: str) -> None:
    """Refuse a motion that was not finite."""
    if not np.isfinite(path.probes["free_energy"]).all():
        raise FloatingPointError(f"the free energy of the {what} was not finite; check `model` with `evaluate`.")


@eqx.filter_jit
def _record(
    model: EnergyDLLM,
    given: AbstractEvidence,
    levels: Float[Array, " levels"],
    rate: float,
    key: Key,
) -> tuple[Trajectory, Trajectory, Landscape, dict[str, Array]]:
    k1, k2, k3, k4 = jax.random.split(key, 4)
    energy, length = model.energy, given.length
    passage = generated(model, given, levels, rate, k1)
    ids = passage.probes["tokens"][-1]
    codes = energy.vocabulary.codes[ids]
    noisy = Gaussian(codes + NOISE * jax.random.normal(k4, codes.shape, codes.dtype), NOISE)
    evidence = Given(ids, jax.random.uniform(k2, (length,)) < 0.5) + noisy
    field = Relaxation(energy, evidence)
    end = REST * model.steps * model.step
    times = jnp.concatenate([jnp.zeros(1), jnp.geomspace(1e-3, 1.0, RECORDS)[:-1]]) * end
    probes = SCALARS | BY_TOKEN
    # one start is neutral, the others as large as the rest point is, in every direction
    size = jnp.sqrt(jnp.mean(model.settle(evidence) ** 2))
    starts = size * jax.random.normal(k3, (STARTS, length, energy.dim), levels.dtype)
    starts = jnp.concatenate([energy.neutral(length)[None], starts])

    @jax.vmap
    def relaxed(y):
        # equal steps: errors shrink with the motion, where a tolerance leaves rises of F as large as itself squared;
        # and short ones, since records lie between them
        return solve(field, y, t0=0.0, t1=end, step=model.step / 4, times=times, probes=probes)

    paths = relaxed(starts)
    relaxation = jax.tree.map(lambda leaf: leaf[0], paths)
    attention = attention_pattern(relaxation.times[-1], relaxation.final, field)
    return passage, relaxation, Landscape(energy, evidence, paths.states[1:]), attention


def generated(
    model: EnergyDLLM, given: AbstractEvidence, levels: Float[Array, " levels"], rate: float, key: Key
) -> Trajectory:
    """A passage generated from noise by the joint flow of observation and neurons."""
    steps = levels.shape[0] - 1
    start, end = levels[0], levels[-1]
    # the end is recorded anyway
    kept = np.unique(np.linspace(0, steps, min(steps, RECORDS) + 1).round().astype(int))[:-1]
    shape = given.length, model.energy.vocabulary.codes.shape[1]
    x = jnp.exp(-start) * jax.random.normal(key, shape, levels.dtype)
    return solve(
        JointFlow(model.energy, given, rate=rate),
        (x, model.settle(Gaussian(x, jnp.exp(-start)) + given)),
        t0=start,
        t1=end,
        step=(end - start) / steps,
        times=levels[kept],
        probes=SCALARS | BY_TOKEN,
        max_steps=steps + 2,  # rounding may leave a remainder of time for one step more
    )


def write(folder: Path, files: dict[str, bytes]) -> list[Path]:
    """Write files atomically: all of them to temporary names first, then one rename each."""
    folder.mkdir(parents=True, exist_ok=True)
    waiting = {folder / name: folder / f".{name}.{os.getpid()}.tmp" for name in files}
    try:
        for path, temporary in waiting.items():
            temporary.write_bytes(files[path.name])
        for path, temporary in waiting.items():
            os.replace(temporary, path)
    finally:
        for temporary in waiting.values():
            temporary.unlink(missing_ok=True)
    return list(waiting)
