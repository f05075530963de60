"""What a token costs by every way in which a model writes: evaluations, operations, seconds, joules."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._model import EnergyDLLM
from ..flow import relax
from ..sampling import Blocks, Unmasking, default_sampler, generate, most_certain
from ._twins import AbstractTwin, Autoregressive


WATTS = 10.0
"""Of a busy core, where the machine does not report the energy it takes (RAPL)."""
METERS = Path("/sys/class/powercap")
REPEATS = 3


def costs(model: EnergyDLLM | AbstractTwin, length: int) -> dict[str, dict[str, float]]:
    """By way of writing, for each token of a passage of `length`: `evaluations`, `operations` (floating point, as the
    compiler counts them), `seconds`, `joules`, and whether the joules were `metered`."""
    found = {}
    for way, (write, evaluations, operations) in _ways(model, length).items():
        seconds, joules = _spent(write)
        found[way] = {
            "evaluations": evaluations / length,
            "operations": operations / length,
            "seconds": seconds / length,
            "joules": (seconds * WATTS if joules is None else joules) / length,
            "metered": joules is not None,
        }
    return found


def _ways(model: Any, length: int) -> dict[str, tuple[Callable[[], Any], float, float]]:
    """How to write a passage, and the evaluations and operations that it takes."""
    ids, key = jnp.zeros(length, int), jax.random.key(0)
    if isinstance(model, Autoregressive):
        draw = jax.jit(lambda model, key: model.sample(length, key=key)[0])
        ask = lambda model: model.log_posterior(ids, jnp.zeros(length, bool))
        return {"left to right": (lambda: draw(model, key), length, _operations(ask, model))}
    if not isinstance(model, EnergyDLLM):
        ask = jax.jit(lambda model: model.log_posterior(ids, jnp.zeros(length, bool)))
        return {"one evaluation": (lambda: ask(model), 1, _operations(ask, model))}
    energy: Any = model.energy
    b = jnp.zeros((length, model.size), energy.vocabulary.codes.dtype)
    rest = lambda energy, b: relax(energy, energy.neutral(len(b)), b, steps=1, step=1.0)
    samplers: dict[str, tuple[Any, float]] = {}
    if not model.blocks[0]:
        force = _operations(rest, energy, b)
        samplers["descent"] = default_sampler(model), force
        if not model.tokenizer.places:
            drawing = Unmasking(rounds=length, steps=1, step=1.0, order=most_certain)
            samplers["unmasking, a token a round"] = drawing, force
    token = lambda alone, kept, place, b: alone.next(kept, place, place)
    block = lambda alone, kept, place, b: rest(alone.after(kept, place, len(b)), b)
    for size in sorted(set(model.blocks) - {0}):
        alone = energy.in_blocks(size)
        given = alone, alone.kept(ids), jnp.zeros((), int), b[:size]
        step = _operations(token if size == 1 else block, *given)
        samplers["left to right" if size == 1 else f"blocks of {size}"] = Blocks(size=size), step
    found = {}
    for way, (sampler, step) in samplers.items():
        write = lambda sampler=sampler: generate(model, length=length, sampler=sampler, frames=0).ids
        made = generate(model, length=length, sampler=sampler, frames=0)
        evaluations = int(np.max(made.force_evaluations))
        found[way] = write, evaluations, evaluations * step
    return found


def _operations(function: Callable[..., Any], *given: Any) -> float:
    """Floating-point operations of a program without loops; 0 where the compiler does not say."""
    counted: Any = jax.jit(function).lower(*given).compile().cost_analysis()
    counted = counted[0] if isinstance(counted, list) else counted
    return float((counted or {}).get("flops", 0.0))


def _spent(write: Callable[[], Any]) -> tuple[float, float | None]:
    """Seconds of a call (the median of some), and the joules of the packages of processors, where they are metered."""
    jax.block_until_ready(jax.tree.leaves(write()))  # compiled
    before, times = _joules(), []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(jax.tree.leaves(write()))
        times.append(time.perf_counter() - start)
    after = _joules()
    seconds = float(np.median(times))
    if before is None or after is None or after <= before:  # the counters begin anew now and then
        return seconds, None
    return seconds, (after - before) / REPEATS


def _joules() -> float | None:
    """What all packages have taken so far; None where there is no meter, or none that may be read."""
    try:
        meters = [meter / "energy_uj" for meter in METERS.glob("intel-rapl:*") if meter.name.count(":") == 1]
        return sum(int(meter.read_text()) for meter in meters) / 1e6 if meters else None
    except OSError:
        return None
