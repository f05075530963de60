"""`solve`: diffrax integrates any field and records any probe."""

from collections.abc import Callable, Mapping
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._checks import concrete, expected, finite, forward_mode, number, sizes
from .._types import Key, Scalar
from ._field import AbstractMotion
from ._probing import observed


class Trajectory(eqx.Module):
    """What `solve` returns.

    - `times (N,)`: the recorded times, the last of them where the motion stopped.
    - `states`: the state at each, leaves with a leading axis `N`.
    - `probes`: by name, the values of each probe at each, leaves with a leading axis `N`.
    - `force_evaluations`: evaluations of `-dF/dg`, those of rejected steps included, those of probes not. Exact
      for explicit methods; for implicit ones those of their inner iterations are not counted. Of a flow map, its own.
    - `accepted`, `rejected`: steps of the solver.
    - `clock (max_steps + 1,)`: the start and the end of every accepted step, infinite after the last; `None` unless
       `solve(..., clock=True)`.
    - `result`: how it ended, an item of `diffrax.RESULTS`; `reason` in words.
    """

    times: Float[Array, " N"]
    states: PyTree[Array]
    probes: dict[str, PyTree[Array]]
    force_evaluations: Int[Array, ""]
    accepted: Int[Array, ""]
    rejected: Int[Array, ""]
    clock: Float[Array, " S"] | None = None
    result: diffrax.RESULTS = eqx.field(default_factory=lambda: diffrax.RESULTS.successful)

    @property
    def final(self) -> PyTree[Array]:
        """The state where the motion stopped."""
        return jax.tree.map(lambda leaf: leaf[-1], self.states)

    @property
    def step_sizes(self) -> Float[Array, " S"]:
        """The size of every accepted step `(max_steps,)`, 0 after the last; `ValueError` without a clock."""
        if self.clock is None:
            raise ValueError("the path has no `clock`; record one: solve(..., clock=True).")
        return jnp.where(jnp.isfinite(self.clock[1:]), jnp.diff(self.clock), 0.0)

    @property
    def complete(self) -> Bool[Array, ""]:
        """Whether it reached the end of the time interval."""
        return self.result == diffrax.RESULTS.successful

    @property
    def reason(self) -> str:
        """Why it stopped, in words."""
        # numbers are compared, of which nothing is compiled
        ended, successful = jax.tree.leaves(self.result), jax.tree.leaves(diffrax.RESULTS.successful)
        if np.array_equal(np.asarray(ended), np.asarray(successful)):
            return "reached the end of the time interval"
        if self.result == diffrax.RESULTS.event_occurred:
            return "came to rest"
        return str(diffrax.RESULTS[self.result]).strip() or "stopped early"


def solve(
    field: AbstractMotion,
    state: PyTree[Array],
    *,
    t0: Scalar | float,
    t1: Scalar | float,
    solver: diffrax.AbstractSolver | None = None,
    controller: diffrax.AbstractStepSizeController | None = None,
    step: Scalar | float | None = None,
    levels: Float[Array, " M"] | None = None,
    times: Float[Array, " N"] | None = None,
    probes: Mapping[str, Callable[[Scalar, PyTree[Array], Any], PyTree[Array]]] | None = None,
    stop: Scalar | float | None = None,
    key: Key | None = None,
    clock: bool = False,
    max_steps: int = 4096,
    adjoint: diffrax.AbstractAdjoint | None = None,
) -> Trajectory:
    """Integrate a vector field with any diffrax solver, and record probes along the path.

    Main arguments:

    - `field`: the motion, `Relaxation`, `ProbabilityFlow`, `JointFlow`, ...
    - `state`: where it starts.
    - `t0`, `t1`: the interval, in the time of the field: relaxation time `t` or noise time `s`; `t1 > t0`.
    - `times`: increasing times to record within the interval; only the end by default. The end is always recorded.
    - `probes`: functions `(time, state, field) -> PyTree` by name, evaluated at every recorded time. `field` is then
      an `AbstractField` whose evidence and hidden state are cached. They are compiled with the motion: values they
      close over are those of the first call.

    Other arguments:

    - `solver`: any of diffrax, or a flow map; default `diffrax.Tsit5()`, and `diffrax.Euler()` for a field with noise
      or with `levels`.
    - `controller`: default `diffrax.PIDController(rtol=1e-3, atol=1e-4)`, or equal steps where `step` is given.
    - `step`: size of the (first) step.
    - `levels`: step through exactly these times, from `t0` to `t1`, such as those of a noise schedule; in place of
      `controller` and `step`. Noise is then drawn independently for every step: cheap, and the same if the motion is
      split into pieces at its levels, but it cannot be differentiated.
    - `stop`: stop early, at rest: where `max |d state / d time|` is below this speed, such as 1e-4.
    - `key`: random key of the noise, for fields that have some.
    - `clock`: keep the time of every step, for `Trajectory.step_sizes`.
    - `adjoint`: how derivatives are taken, any of diffrax. Default `RecursiveCheckpointAdjoint()`, for gradients, and
      `DirectAdjoint()` where forward mode (`jax.jvp`, `jax.jacfwd`) is seen to act; inside of a `jax.jit` it is not, so
      give `diffrax.ForwardMode()` there.
    - `max_steps`: give up after so many steps; what was reached is returned, with its `reason`.

    **Returns:** a `Trajectory`.

    **Raises:** `ValueError` for a `state` that is not finite, a `solver`, `controller`, `adjoint`, `key` or probe that
    is not one, a `stop` or `step` that is not positive, times that run backwards, `times` outside of the interval,
    `levels` that do not lead from `t0` to `t1`, a stochastic field without `key` or `step`, a flow map along anything
    but the `ProbabilityFlow` of a landscape without guidance, `levels` beside a `controller` or `step`, or a probe
    whose shapes depend on values; a runtime error for `times` and `levels` that are traced.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    field = ed.flow.Relaxation(model.energy, ed.flow.Gaussian(jnp.eye(3)[jnp.arange(8) % 3], 1.0))
    free_energy = lambda t, y, field: field.energy(y, field.evidence(t, y).field(field.energy.vocabulary.codes))
    path = ed.solve(field, model.energy.neutral(8), t0=0.0, t1=5.0, times=jnp.arange(5.0), probes={"F": free_energy})
    assert (jnp.diff(path.probes["F"]) < 0).all()
    ```
    """
    if not isinstance(field, AbstractMotion):
        raise ValueError(f"`field` is {field!r}; expected a motion, such as flow.Relaxation(...).")
    expected(
        solver=(solver, diffrax.AbstractSolver, "diffrax.Tsit5()"),
        controller=(controller, diffrax.AbstractStepSizeController, "diffrax.PIDController(rtol=1e-3, atol=1e-4)"),
        adjoint=(adjoint, diffrax.AbstractAdjoint, "diffrax.ForwardMode()"),
        probes=(probes, Mapping, '{"F": lambda time, state, field: ...}'),
        key=(key, (jax.Array, np.ndarray), "jax.random.key(0)"),
    )
    if not finite(state):
        raise ValueError("`state` has a NaN or an infinity; expected finite numbers to start from.")
    sizes(max_steps=max_steps)
    for name, time in (("t0", t0), ("t1", t1)):
        number(name, time, np.isreal, "a time")
    if stop is not None:
        number("stop", stop, lambda speed: speed > 0, "a positive speed that counts as rest, such as 1e-4")
    if step is not None:
        number("step", step, lambda step: step > 0, "a positive step size")
    for name, probe in (probes or {}).items():
        if not callable(probe):
            raise ValueError(f"`probes` has {probe!r} as {name!r}; expected a function of time, state and field.")
    stochastic = hasattr(field, "amplitude")
    if concrete((t0, t1)) and not np.all(np.asarray(t1) > np.asarray(t0)):
        raise ValueError(f"`t1`={t1} is not after `t0`={t0}; noise time s = -log sigma increases towards text.")
    if levels is not None:
        levels = jnp.asarray(levels)
        if controller is not None or step is not None:
            raise ValueError("`levels` fix every step; leave out `controller` and `step`, or `levels`.")
        if levels.ndim != 1 or levels.shape[0] < 2:
            raise ValueError(f"`levels` has shape {levels.shape}; expected (steps + 1,), from `t0` to `t1`.")
        max_steps = max(max_steps, levels.shape[0] - 1)
    if controller is None and levels is None:
        adaptive = step is None and not stochastic
        controller = diffrax.PIDController(rtol=1e-3, atol=1e-4) if adaptive else diffrax.ConstantStepSize()
    if isinstance(controller, diffrax.ConstantStepSize) and step is None:
        raise ValueError("`step` is missing; a constant step size needs one (or pass a `controller`).")
    if solver is None:
        solver = diffrax.Euler() if stochastic or levels is not None else diffrax.Tsit5()
    if stochastic and key is None:
        raise ValueError("`key` is missing; a field with noise needs a random key.")
    # numbers as arrays, so that another value does not compile another program
    t0, t1 = jnp.asarray(t0), jnp.asarray(t1)
    step = None if step is None else jnp.asarray(step)
    stop = None if stop is None else jnp.asarray(stop)
    if levels is not None and not _runs(levels, t0, t1, ends=True):
        raise ValueError(f"`levels` must increase from exactly `t0`={t0} to exactly `t1`={t1}.")
    if times is not None:
        times = jnp.asarray(times)
        if times.ndim != 1 or not times.size:
            raise ValueError(f"`times` has shape {times.shape}; expected (N,), at least one, or None for the end only.")
        if not _runs(times, t0, t1):
            raise ValueError(f"`times` must increase within `t0`={t0} and `t1`={t1}: all time runs forwards.")
    probes = {} if probes is None else dict(probes)
    if stochastic and levels is not None:  # noise is drawn afresh, and no gradient goes through it
        if adjoint is not None:
            raise ValueError(
                "`adjoint` goes with `step`, not with `levels` of a field with noise; leave out one of them."
            )
        adjoint = diffrax.ForwardMode()
    if adjoint is None:
        adjoint = (
            diffrax.DirectAdjoint() if forward_mode((field, state, t0, t1)) else diffrax.RecursiveCheckpointAdjoint()
        )
    options = (stop, key, clock, max_steps, adjoint)
    return _solve(field, state, t0, t1, solver, controller, step, levels, times, probes, *options)


# Jitted on its own, so that it is compiled once for every shape even outside a larger jitted function.
@eqx.filter_jit
def _solve(field, state, t0, t1, solver, controller, step, levels, times, probes, stop, key, clock, max_steps, adjoint):
    if levels is not None:
        astray = jnp.any(~(jnp.diff(levels) > 0)) | (levels[0] != t0) | (levels[-1] != t1)
        levels = eqx.error_if(levels, astray, "`levels` must increase from exactly `t0` to exactly `t1`.")
        controller = diffrax.StepTo(levels)

    # profiles read by the names of fields and terms
    named = jax.named_scope(type(field).__name__)(lambda t, y, args: field(jnp.asarray(t), y))
    drift = diffrax.ODETerm(named)
    terms = drift
    if hasattr(field, "amplitude"):
        shape = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
        if levels is None:
            brownian = diffrax.VirtualBrownianTree(t0, t1, tol=1e-4, shape=shape, key=key)
        else:  # steps are known and none is rejected, so one independent draw a step is exact
            brownian = diffrax.UnsafeBrownianPath(shape, key)
        amplitude = field.amplitude
        operator = lambda t, y, args: lx.DiagonalLinearOperator(amplitude(jnp.asarray(t), y))
        noise = diffrax.ControlTerm(operator, brownian)
        terms = diffrax.MultiTerm(drift, noise)

    record = lambda t, y, args: (t, y)
    subs = [diffrax.SubSaveAt(t1=True, fn=record)]
    if times is not None:
        backwards = jnp.any(~(jnp.diff(times) > 0))
        times = eqx.error_if(
            times, backwards, "`times` must increase: noise time and relaxation time both run forwards."
        )
        subs.append(diffrax.SubSaveAt(ts=times, fn=record))
    if clock:
        subs.append(diffrax.SubSaveAt(t0=True, steps=True, fn=lambda t, y, args: t))
    event = None
    if stop is not None:
        event = diffrax.Event(lambda t, y, args, **_: _speed(field(t, y)) < stop)
    solution = diffrax.diffeqsolve(
        terms,
        solver,
        t0,
        t1,
        step,
        state,
        args=field,
        saveat=diffrax.SaveAt(subs=subs),
        stepsize_controller=controller,
        event=event,
        adjoint=adjoint,
        max_steps=max_steps,
        throw=False,
    )
    ys: Any = solution.ys
    saved = ys[0]
    if times is not None:
        saved = jax.tree.map(lambda a, z: jnp.concatenate([a, z]), ys[1], saved)
    stats = solution.stats
    calls = _calls(solver, stats["num_steps"]) + (0 if stop is None else stats["num_accepted_steps"])
    return Trajectory(
        times=saved[0],
        states=saved[1],
        probes=observed(probes, saved, field),
        # a flow map is evaluated in place of the field
        force_evaluations=calls * (field.force_evaluations if getattr(solver, "average", None) is None else 1),
        accepted=stats["num_accepted_steps"],
        rejected=stats["num_rejected_steps"],
        clock=ys[-1] if clock else None,
        result=solution.result,
    )


def _runs(times, t0, t1, *, ends: bool = False) -> bool:
    """Whether times, where they are known, increase from `t0` to `t1`: within them, or from one end to the other."""
    if not concrete((times, t0, t1)):
        return True
    times, start, stop = map(np.asarray, (times, t0, t1))
    if jnp.issubdtype(times.dtype, jnp.floating):
        start, stop = start.astype(times.dtype), stop.astype(times.dtype)
    inside = (times[0] == start) & (times[-1] == stop) if ends else (times[0] >= start) & (times[-1] <= stop)
    return bool(inside and np.all(np.diff(times) > 0))


def _speed(motion: PyTree[Array]) -> Scalar:
    """`max |d state / d time|`. One relative to `|state|` would also be small where the state grows."""
    return jnp.max(jnp.stack([jnp.max(jnp.abs(leaf), initial=0.0) for leaf in jax.tree.leaves(motion)]))


def _calls(solver: diffrax.AbstractSolver, steps: Int[Array, ""]) -> Int[Array, ""]:
    """Evaluations of the vector field in `steps` steps, accepted or not."""
    tableau = getattr(solver, "tableau", None)
    if tableau is None:
        return getattr(solver, "stages", 1) * steps
    if tableau.fsal:  # the last stage is the next step's first
        return (tableau.num_stages - 1) * steps + 1
    return tableau.num_stages * steps
