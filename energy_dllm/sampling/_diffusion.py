"""Diffusion: text by a flow from noise."""

import functools
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._checks import is_value, number, positive, sizes
from .._types import Key, Scalar
from ..energy import AbstractFreeEnergy
from ..flow import (
    DDIM,
    AbstractEvidence,
    AbstractMotion,
    AbstractSchedule,
    AutonomousDescent,
    Conditioning,
    ExponentialHeun,
    JointFlow,
    ProbabilityFlow,
    Relaxation,
    ReverseDiffusion,
    RollingNoise,
    Trajectory,
    solve,
)
from ._sampler import AbstractSampler, Observer, changed
from ._unmasking import Unmasking, first, most_certain


FIELDS = (ProbabilityFlow, JointFlow, AutonomousDescent)
"""Whose motion of one token does not depend on how many there are, but through the energy."""


class Diffusion(AbstractSampler):
    """Gaussian noise falls along a flow: from `x_i = e_w + sigma_max * noise` to `argmax p`, `w ~ p(. | evidence)`.

    It starts with tokens as they are without context, under noise: at great `sigma_max` that is noise alone, and at
    the noise of a code's own size, where context begins to be worth something, nothing is lost by not going through
    what is above. With `until < 1` the noise stops before the end of the schedule, and the tokens are drawn jointly
    from `P(w | x)`. Where the posterior is exact so is the distribution of the text, for any `until`, and the remaining
    steps are saved. Under a pattern (`flow.Matching`) it moves on the energy of the passages that match, if that is
    known (`energy.DFA.on`). With a `finish` the least certain tokens are drawn anew at the end.

    **Arguments:**

    - `steps`: steps through the noise schedule, equal in information: more are better and slower.
    - `since`: the share of the schedule that is left out at its beginning.
    - `until`: the share of the schedule before the tokens are drawn; at 1 nothing is drawn.
    - `churn`: noise along the reverse process, 0 for none (see `ReverseDiffusion`).
    - `front`: width in tokens of the front of rolling noise from left to right, infinite for the same noise at all
      tokens (see `RollingNoise`). Each token gets `1 + (L - 1) / front` times fewer of the steps.
    - `field`: makes the flow from a free energy and the given evidence: `ProbabilityFlow`, `JointFlow`,
      `functools.partial(ProbabilityFlow, steps=20)`, or one of your own that moves `x`.
    - `solver`: any diffrax solver, `DDIM`, `ExponentialHeun`, or a flow map, `DDIM(average=)`. Default `DDIM`;
      Euler's method where there is churn, Tsit5 beside a `controller`.
    - `controller`: any diffrax step size controller in place of the schedule's `steps`.
    - `schedule`: noise levels; default those of the model.
    - `finish`: how the least certain tokens are drawn anew at the end, an `Unmasking` with its rounds and temperature.
    - `redraw`: their share of all tokens that are not given.

    **Raises:** `ValueError` if `steps` or `front` is not positive, `until` not in (`since`, 1], `redraw` not in [0, 1],
    `churn` negative, beside a `controller` or a solver without noise, `field` no maker of one, or a tolerance too fine.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, key=jax.random.key(0))
    written = ed.generate(model, length=12, sampler=ed.sampling.Diffusion(steps=4, churn=0.5))
    assert written.sigma[0] > written.sigma[-1] and written.free_energy.shape == (1, 5)
    ```
    """

    steps: int = eqx.field(static=True)
    since: float
    until: float
    temperature: float
    churn: float
    front: float
    field: Callable[[AbstractFreeEnergy, AbstractEvidence], Any]
    solver: Any
    controller: Any
    schedule: AbstractSchedule | None
    finish: Unmasking | None
    redraw: float

    def __init__(
        self,
        *,
        steps: int = 24,
        since: float = 0.0,
        until: float = 1.0,
        temperature: float = 1.0,
        churn: float = 0.0,
        front: float = math.inf,
        field: Callable[[AbstractFreeEnergy, AbstractEvidence], Any] = ProbabilityFlow,
        solver: Any = None,
        controller: Any = None,
        schedule: AbstractSchedule | None = None,
        finish: Unmasking | None = None,
        redraw: float = 0.25,
    ):
        sizes(steps=steps)
        finite = lambda number: (number >= 0) & (number < math.inf)
        number("redraw", redraw, lambda share: (share >= 0) & (share <= 1), "a share of the tokens, 0 to 1")
        if not 0 <= since < until <= 1:
            raise ValueError(
                f"`since` is {since} and `until` is {until}; expected shares of the schedule, 0 up to 1 (all of it)."
            )
        number("temperature", temperature, finite, "0 (the most likely tokens) or more")
        number("churn", churn, finite, "0 (no noise) or more")
        number("front", front, lambda width: width > 0, "a positive number of tokens, such as 16, or infinity")
        if churn and isinstance(solver, (DDIM, ExponentialHeun)):
            raise ValueError(
                f"`churn` is {churn} beside a {type(solver).__name__}, which is for motion without noise; leave out "
                "`solver`, or set `churn=0`."
            )
        if churn and controller is not None:
            raise ValueError(f"`churn` is {churn} beside a `controller`; noise needs known steps, so set `churn=0`.")
        if not callable(field) or isinstance(field, AbstractMotion):
            raise ValueError(f"`field` is a {type(field).__name__}; expected what makes one, such as `flow.JointFlow`.")
        least = float(jnp.finfo(jnp.result_type(float)).eps)
        tolerance = max(getattr(controller, "rtol", 1.0), getattr(controller, "atol", 1.0))
        if tolerance < least:
            raise ValueError(
                f"`controller` has a tolerance of {tolerance}; numbers here have a precision of {least:.0e}, so "
                "no step is ever small enough. Expected 1e-6 or more."
            )
        if isinstance(field, functools.partial):  # equal partials compare equal: nothing is compiled twice
            field = jax.tree_util.Partial(field.func, *field.args, **field.keywords)
        self.steps, self.since, self.until, self.temperature = steps, float(since), float(until), float(temperature)
        self.churn, self.front, self.field = churn, float(front), field
        self.solver, self.controller, self.schedule = solver, controller, schedule
        self.finish, self.redraw = finish if redraw else None, float(redraw)

    @property
    def ragged(self) -> bool:
        """With equal noise and known steps, for the fields of this library."""
        equal = math.isinf(self.front) and self.controller is None and (self.finish is None or self.finish.ragged)
        return equal and _made_by(self.field) in FIELDS and getattr(self.solver, "average", None) is None

    def traced(self, dtype: Any) -> "Diffusion":
        """All numbers but those that leave something out, and the `temperature` that was bound to the field."""
        field, temperature = self.field, self.temperature
        if _made_by(field) is AutonomousDescent:
            words = field.keywords if isinstance(field, jax.tree_util.Partial) else {}
            noise = np.asarray(words.get("temperature", 1.0), dtype)
            field = jax.tree_util.Partial(AutonomousDescent, **words | {"temperature": noise})
        number = lambda value, special: value if value == special else np.asarray(value, dtype)
        return changed(
            self,
            since=np.asarray(self.since, dtype),
            until=number(self.until, 1.0),
            temperature=0.0 if Conditioning.cold(temperature) else np.asarray(temperature, dtype),
            churn=number(self.churn, 0.0),
            front=number(self.front, math.inf),
            field=field,
            finish=None if self.finish is None else self.finish.traced(dtype),
            redraw=np.asarray(self.redraw, jnp.result_type(float)),
        )

    def clock(self, schedule: AbstractSchedule) -> Float[Array, " n"]:
        """Noise times `s = -log sigma`, `(steps + 1,)`; with a front equally spaced, so that it travels evenly."""
        schedule = schedule if self.schedule is None else self.schedule
        levels = schedule.level(jnp.linspace(self.since, self.until, self.steps + 1))
        return levels if math.isinf(self.front) else jnp.linspace(levels[0], levels[-1], self.steps + 1)

    def sigma(self, clock: Float[Array, " n"], length: int) -> Float[Array, " n"]:
        """`e^-s`, with a front that of the last token."""
        if math.isinf(self.front):
            return jnp.exp(-clock)
        u = (clock - clock[0]) / (clock[-1] - clock[0]) * (1 + (length - 1) / self.front) - (length - 1) / self.front
        u = jnp.clip(u, 0.0, 1.0)
        return jnp.exp(-(clock[0] + (clock[-1] - clock[0]) * u**2 * (3 - 2 * u)))

    def begin(self, energy: AbstractFreeEnergy, conditioning: Conditioning, time: Scalar, *, key: Key) -> PyTree[Array]:
        """Noise around tokens that are drawn from evidence and prior."""
        y, codes = energy.neutral(conditioning.length), energy.vocabulary.codes
        k1, k2 = jax.random.split(key)
        b, dfa = conditioning.field(codes), conditioning.dfa
        ids = jax.random.categorical(k1, energy.logits(y, b)) if dfa is None else energy.sample(y, b, dfa=dfa, key=k1)
        start, energy = codes[ids], energy if dfa is None else dfa.on(energy)
        noise = jnp.exp(-time) * jax.random.normal(k2, start.shape, start.dtype)
        flow = self.field(energy, conditioning)
        if isinstance(flow, AutonomousDescent):
            return flow.likely(flow.initial(start + flow.temperature * noise, y, jnp.exp(-time)))
        return (start + noise, y) if isinstance(flow, JointFlow) else start + noise

    def move(
        self,
        energy: AbstractFreeEnergy,
        conditioning: Conditioning,
        state: PyTree[Array],
        clock: Float[Array, " n"],
        numbers: Int[Array, " n"],
        marks: tuple[int, ...],
        observer: Observer,
        *,
        key: Key,
    ) -> Trajectory:
        """One `solve`, through exactly these levels, or with the controller; then the draw, where there is one."""
        steps: dict[str, Any] = {"levels": clock} if self.controller is None else {"controller": self.controller}
        # the whole clock, of which this may be a part; with rolling noise its steps are equal
        pace = (clock[-1] - clock[0]) / (numbers[-1] - numbers[0])
        start = clock[0] - numbers[0] * pace
        end = start + self.steps * pace
        field = self._field(energy, conditioning, start, end)
        free = isinstance(field, AutonomousDescent)
        exponential = self.solver is None and self.controller is None and is_value(self.churn, 0)
        path = solve(
            field,
            state,
            t0=clock[0],
            t1=clock[-1],
            solver=DDIM(field.decay if free else ()) if exponential else self.solver,
            times=clock[jnp.asarray((0, *marks))],
            probes={
                "moment": lambda time, x, field: observer(field.evidence(time, x), field.hidden(time, x), conditioning)
            },
            key=key,
            **steps,
        )
        if free:  # the noise level is part of the state
            levels = path.states[2].reshape(path.times.shape[0], -1)
            if levels.shape[1] > 1:  # each token has its own, and that of what is given is of no interest
                levels = jnp.where(conditioning.given.known, -jnp.inf, levels)
            noise = {**path.probes["moment"], "sigma": jnp.exp(jnp.max(levels, axis=-1))}
            path = eqx.tree_at(lambda path: path.probes, path, {"moment": noise})
        if is_value(self.until, 1) and self.finish is None:
            return path
        last = numbers[-1] == self.steps
        return self._drawn(
            energy, conditioning, path, (start, end), last, observer, key=jax.random.fold_in(key, self.steps)
        )

    def _drawn(self, energy, conditioning, path, span, last, observer, *, key):
        """The trajectory with the text drawn at its end, where this is the `last` call and it was reached."""
        there = last & path.complete
        time, state = path.times[-1], path.final
        field = self._field(energy, conditioning, *span)
        b = field.evidence(time, state).field(energy.vocabulary.codes)
        k1, k2 = jax.random.split(key)
        ids, log_p = conditioning.draw(energy, field.hidden(time, state), b, temperature=self.temperature, key=k1)
        rounds, finish = 0, self.finish
        if finish is not None:
            certain = jnp.take_along_axis(log_p, ids[:, None], axis=-1)[:, 0]
            redrawn = lambda: self._redrawn(finish, energy, conditioning, ids, certain, key=k2)
            # the motion may be taken in several calls; only the last one draws
            ids, rounds = jax.lax.cond(last, redrawn, lambda: (ids, jnp.zeros((), int)))
        conditioning = conditioning.written(ids, jnp.ones(conditioning.length, bool))
        field = self._field(energy, conditioning, *span)
        drawn = observer(field.evidence(time, state), field.hidden(time, state), conditioning)
        put = lambda read, last: read.at[-1].set(jnp.where(there, last, read[-1]))
        # a draw is no part of the motion: the free energy is that of the descent
        moments = path.probes["moment"]
        kept = {name: jax.tree.map(lambda leaf: leaf[-1], moments[name]) for name in moments if name not in drawn}
        drawn = {**drawn, **kept, "terms": jax.tree.map(lambda term: term[-1], moments["terms"])}
        # where the hidden state is part of the state it is there, else it is found once more
        carried = not field.steps if isinstance(field, AutonomousDescent) else isinstance(state, tuple)
        more = 0 if carried else field.force_evaluations
        return eqx.tree_at(
            lambda path: (path.probes["moment"], path.force_evaluations),
            path,
            (jax.tree.map(put, moments, drawn), path.force_evaluations + jnp.where(there, more + rounds, 0)),
        )

    def _redrawn(self, finish, energy, conditioning, ids, certain, *, key):
        """The tokens with the least certain of them drawn anew by `finish`, and the force evaluations of that."""
        open = ~conditioning.given.known
        masked = first(jnp.round(self.redraw * jnp.sum(open)).astype(int), jnp.where(open, -certain, -jnp.inf)) & open
        given = conditioning.written(ids, ~masked)
        numbers = jnp.arange(finish.rounds + finish.remask_rounds + 1)
        clock, nothing = numbers.astype(certain.dtype), lambda evidence, y, conditioning: jnp.zeros(())
        begun = finish.begin(energy, given, clock[0], key=key)
        path = finish.move(energy, given, begun, clock, numbers, (), nothing, key=key)
        return path.final.ids, path.force_evaluations

    @property
    def ending(self) -> str:
        """The end of the noise schedule, or of the draw."""
        return "every token is drawn" if self.until < 1 or self.finish else "reached the end of the time interval"

    def _field(self, energy, conditioning, start, end):
        flow: Any = self.field(energy if (dfa := conditioning.dfa) is None else dfa.on(energy), conditioning)
        if isinstance(flow, Relaxation):
            raise ValueError(
                "`field` made a Relaxation, which moves y; expected a ProbabilityFlow, a JointFlow or alike."
            )
        if not is_value(self.front, math.inf):
            flow = RollingNoise(flow, width=self.front, start=start, end=end)
        return flow if is_value(self.churn, 0) else ReverseDiffusion(flow, churn=self.churn)


def _made_by(field):
    return field.func if isinstance(field, jax.tree_util.Partial) else field


def descent(evaluations: int = 25, *, temperature: float = 1.0, schedule: AbstractSchedule | None = None) -> Diffusion:
    """From noise to text on one falling scalar, `flow.AutonomousDescent`, in a number of force evaluations.

    Two thirds of them are steps of the descent, from the noise level at which context begins to tell tokens apart to
    that at which most are certain: 26 and 40 % of the schedule of the model, whose steps are of equal information. Then
    the least certain quarter of the tokens is drawn anew in rounds, the rest of the evaluations. How this was found is
    in the log.

    **Arguments:**

    - `evaluations`: of the force, for a passage or each window of a longer one.
    - `temperature`: of the noise and of the draws; below 1 plainer text and more repetition. At 1.1 the judged bits,
      the entropy and the repetition of what the shipped models write are those of text, with more words that are none.
    - `schedule`: noise levels in place of those of the model, all of it.

    **Returns:** a `Diffusion` with these settings.

    **Raises:** `ValueError` if there are fewer than 1 evaluations, or the temperature is not positive.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, key=jax.random.key(0))
    written = ed.generate(model, length=12, sampler=ed.sampling.descent(12, temperature=0.8))
    assert written.force_evaluations[0] == 12 and written.free_energy[0, -1] < written.free_energy[0, 0]
    ```
    """
    sizes(evaluations=evaluations)
    number("temperature", temperature, positive, "a positive number, such as 0.8")
    rounds = evaluations // 3
    finish = (
        Unmasking(rounds=rounds, temperature=temperature, order=most_certain, steps=1, step=1.0) if rounds else None
    )
    return Diffusion(
        steps=evaluations - rounds - 1 if rounds else evaluations,
        temperature=0.0,
        field=AutonomousDescent if temperature == 1 else functools.partial(AutonomousDescent, temperature=temperature),
        since=0.26 if schedule is None else 0.0,
        until=0.4 if schedule is None else 1.0,
        schedule=schedule,
        finish=finish,
        redraw=0.25,
    )
