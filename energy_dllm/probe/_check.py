"""`check`: a health report of a landscape, numbers with limits and advice."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from .._checks import seeded
from .._model import EnergyDLLM
from ..energy import FreeEnergy
from ..flow import Gaussian, Given, Relaxation, relax
from ._attribution import pair
from ._probes import dissipation, free_energy
from ._spectrum import largest_gain, relaxation_rates


MULTIPLES = (1, 2, 5, 10)
"""The relaxation is followed to so many times its default."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One number of a health report: its name, value and limit, whether it passes, and advice if it does not."""

    name: str
    value: float
    relation: str
    limit: float
    passed: bool
    advice: str

    def __str__(self) -> str:
        mark = "ok  " if self.passed else "FAIL"
        line = f"{mark}  {self.name}: {self.value:.3g} ({self.relation} {self.limit:g})"
        return line if self.passed else f"{line}. {self.advice}"


@dataclasses.dataclass(frozen=True)
class Health:
    """What `check` returns.

    - `findings`: in order of importance.
    - `curve`: pairs of relaxation time (time constants) and the cross-entropy of masked tokens in nats; without a
      text, the spread of the hidden states.
    - `largest_step`: the largest Euler step that is stable at rest, in time constants.
    """

    findings: list[Finding]
    curve: list[tuple[float, float]]
    largest_step: float

    @property
    def passed(self) -> bool:
        """Whether every finding keeps its limit."""
        return all(finding.passed for finding in self.findings)

    @property
    def failed(self) -> list[Finding]:
        """The findings that do not."""
        return [finding for finding in self.findings if not finding.passed]

    def as_dict(self) -> dict[str, Any]:
        """As JSON-ready values, with `passed`."""
        return {"passed": self.passed, **dataclasses.asdict(self)}

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings))


def check(
    model: EnergyDLLM,
    text: str | Int[np.ndarray, " L"] | None = None,
    *,
    length: int = 48,
    seed: int = 0,
    progress: Callable[[str], object] | None = None,
) -> Health:
    """Check a landscape: force against slope, dissipation against the fall of `F`, convergence, and dead terms.

    | finding | meaning |
    |---|---|
    | force of a term | the force against finite differences of the energy, relative |
    | dissipation balance | the drop of `F` against the integrated dissipation, relative |
    | rise of F | the largest rise of `F` along the relaxation, relative to its fall |
    | asymmetry of the denoiser | of its Jacobian at the default relaxation; 0 at rest, where it is a gradient |
    | spread | the variation of the hidden states over the passage at ten times the default; 0 is collapse |
    | drift of the cross-entropy | its rise from the default to ten times the default, nats; with a text only |
    | step against the largest stable step | below 1 an Euler step does not overshoot |
    | slowest rate | below 0 the default relaxation ends near a saddle |
    | dependence on the start | of the posterior at rest under noise, neutral or random, the largest total variation |
    | share of the log-odds from E | of masked tokens, in absolute nats beside prior and residual; near 0 `E` is idle |
    | share of a term | in the force at rest; near 0 it is dead |
    | gradient of a term | its share in the gradient of the loss; near 0 it does not learn |
    | gain | the largest slope `dg/dy` of the activation |
    | convexity | the least such slope over the largest; below 0 `F` need not fall |

    **Arguments:**

    - `model`: the model.
    - `text`: held-out text, of which the first `length` tokens are used; random tokens by default.
    - `length`: tokens of the passage.
    - `seed`: of the random tokens, of which of them are hidden, and of all directions.
    - `progress`: a function that is told what is measured next.

    **Returns:** a `Health`.

    **Raises:** `ValueError` if the model has no network, `length` is below 4, or the text is shorter than `length` or
    holds what the model does not know.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, steps=12, key=jax.random.key(0))
    health = ed.probe.check(model, length=6)
    assert not [finding for finding in health.failed if finding.name.startswith("force")]
    ```
    """
    if not isinstance(model.energy, FreeEnergy):
        raise ValueError(f"`model` has an energy of type {type(model.energy).__name__}, without a network to check.")
    if length < 4:
        raise ValueError(f"`length` is {length}; expected at least 4 tokens, such as 48.")
    seeded(seed)
    k1, k2, k3, k4, k5 = jax.random.split(jax.random.key(seed), 5)
    if text is None:
        ids = jax.random.randint(k1, (length,), 0, model.size)
    else:
        ids = jnp.asarray(model.encode(text) if isinstance(text, str) else text, int)[:length]
        if len(ids) < length:
            raise ValueError(f"`text` has {len(ids)} tokens; expected at least `length` {length}.")
    known = jax.random.permutation(k2, jnp.arange(length) % 2 == 0)
    say = (lambda words: None) if progress is None else progress
    seen = jax.tree.map(np.asarray, _measure(model, ids, known, k3, say))
    say("finding rates and gains by Lanczos")
    rest, b = seen["rest"], seen["b"]
    rates = relaxation_rates(model.energy, jnp.asarray(rest), jnp.asarray(b), key=k4, count=48)
    gain, least = largest_gain(model.energy, jnp.asarray(rest), jnp.asarray(b), key=k5)
    largest = 2.0 / float(rates.values[-1]) if rates.values[-1] > 0 else math.inf
    watched = seen["spread"] if text is None else seen["loss"]
    curve = [(n * model.steps * model.step, float(value)) for n, value in zip(MULTIPLES, watched, strict=True)]
    return Health(_findings(model, seen, rates, gain, least, largest, text is not None), curve, largest)


def _findings(model, seen, rates, gain, least, largest, read) -> list[Finding]:
    made = []

    def most(name, value, limit, advice):
        made.append(Finding(name, float(value), "at most", limit, bool(value <= limit), advice))

    def not_below(name, value, limit, advice):
        made.append(Finding(name, float(value), "at least", limit, bool(value >= limit), advice))

    for name, wrong in seen["wrong"].items():
        most(
            f"force of {name}",
            wrong,
            0.03,
            f"The force of `{name}` is not the slope of its energy; let autodiff make it.",
        )
    most("dissipation balance", seen["balance"], 0.02, "F is not what the motion descends; see the forces above.")
    most("rise of F", seen["rise"], 0.01, "F rises on the way; are the neurons convex?")
    most(
        "asymmetry of the denoiser",
        seen["asymmetry"],
        0.2,
        "The default relaxation stops far from rest; raise `steps`, or train with a longer `Denoising(horizon=)`.",
    )
    advice = "All tokens fall into one hidden state; train at random, late times, and check for a term that dominates."
    not_below("spread", seen["spread"][-1], 0.02, advice)
    if read:
        drift = seen["loss"][-1] - seen["loss"][0]
        most(
            "drift of the cross-entropy",
            drift,
            0.25,
            "The answer gets worse at rest; train with a longer `Denoising(horizon=)`.",
        )
    most(
        "step against the largest stable step",
        model.step / largest,
        1.0,
        f"Take a `step` below {largest:.2g} time constants.",
    )
    not_below("slowest rate", rates.values[0], -0.1, "The relaxation stops on a pass, not in a valley; raise `steps`.")
    most(
        "dependence on the start",
        seen["dependence"],
        0.25,
        "There are several rest points, and the start decides; average over starts, or lower the noise in steps.",
    )
    advice = "Prior and residual decide the tokens; train longer, or raise `steps` if the residual is large."
    not_below("share of the log-odds from E", seen["carried"], 0.05, advice)
    for name in (name for name in seen["share"] if name not in ("neurons", "bias")):
        not_below(
            f"share of {name}",
            seen["share"][name],
            0.005,
            f"`{name}` has hardly any force; remove it, or scale it up.",
        )
    for name in model.energy.network.synapses:
        advice = f"`{name}` hardly learns; check its scale and `Denoising().diagnose`."
        not_below(f"gradient of {name}", seen["slope"][name], 1e-4, advice)
    most("gain", gain, 1e3, "Small differences are blown up; raise the neurons' epsilon or lower kappa.")
    not_below("convexity", least / gain, -1e-3, "The Lagrangian is not convex; F need not fall.")
    return made


def _measure(model, ids, known, key, say):
    """What the findings are made of. Several programs: one of all of it takes a compiler six times as long."""
    k1, k2, k3, k4, k5 = jax.random.split(key, 5)
    energy, evidence = model.energy, Given(ids, known)
    b, steps = model.field(evidence), np.diff([0, *MULTIPLES]) * model.steps
    say(f"relaxing to {MULTIPLES[-1]} times the default, masked and under noise")
    move = lambda y, b, steps: relax(energy, y, b, steps=jnp.asarray(steps), step=model.step)
    states = [energy.neutral(ids.shape[0])]
    for n in steps:
        states.append(move(states[-1], b, n))
    loss, spread = _scores(energy, jnp.stack(states[1:]), b, ids, known)
    rest, field = states[1], Relaxation(energy, evidence)
    soft = evidence + Gaussian(*_noisy(model, ids, k4))
    noisy, long = model.field(soft), steps.sum()
    settled = move(energy.neutral(ids.shape[0]), noisy, long)
    apart = jnp.abs(energy.posterior(move(_like(settled, k5), noisy, long), noisy) - energy.posterior(settled, noisy))
    # where masks alone are at rest after one step the motion is measured under noise
    moving, end = (soft, settled) if energy.one_shot else (evidence, states[-1])
    start = end + _like(end, k1)
    b_moving = model.field(moving)
    say("comparing every force with the slope of its energy")
    share, carried = _pulls(field, rest, energy.forces(rest, b), known)
    wrong = _wrong(energy, start, b_moving, energy.forces(start, b_moving))
    say("comparing the fall of F with its dissipation")
    balance, rise = _balance(Relaxation(energy, moving), start)
    say("differentiating the loss")
    slope = _slopes(model, ids, known)
    say("differentiating the denoiser, in both directions")
    asymmetry = _asymmetry(model, ids, k2, k3)
    return {
        "b": b_moving,
        "rest": end,
        "loss": loss,
        "spread": spread,
        "dependence": 0.5 * jnp.max(jnp.sum(apart, axis=-1)),
        "carried": carried,
        "share": share,
        "slope": slope,
        "wrong": wrong,
        "balance": balance,
        "rise": rise,
        "asymmetry": asymmetry,
    }


def _like(state, key):
    """Normal numbers of the size of a state."""
    return jnp.sqrt(jnp.mean(state**2)) * jax.random.normal(key, state.shape, state.dtype)


def _masked_mean(value, known):
    return jnp.sum(jnp.where(known, 0.0, value)) / jnp.sum(~known)


def _cross_entropy(logits, ids):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), ids[:, None], axis=-1)[:, 0]


@eqx.filter_jit
def _scores(energy, states, b, ids, known):
    """The loss of masked tokens, and the spread of the hidden states, of every state."""

    def one(y):
        spread = jnp.sum((y - jnp.mean(y, axis=0)) ** 2) / jnp.maximum(jnp.sum(y**2), jnp.finfo(y.dtype).tiny)
        return _masked_mean(_cross_entropy(energy.logits(y, b), ids), known), spread

    return jax.lax.map(one, states)


@eqx.filter_jit
def _pulls(field, y, forces, known):
    """The share of each term in the force on a token, and `|E| / (|E| + |prior| + |residual|)` of the log-odds of
    masked tokens; means over tokens."""
    energy, b = field.energy, field.given.field(field.energy.vocabulary.codes)
    norms = {name: jnp.linalg.norm(force, axis=-1) for name, force in forces.items()}
    tiny = jnp.finfo(y.dtype).tiny
    whole = jnp.maximum(sum(norms.values()), tiny)
    w, r = pair(energy.logits(y, b), None, None)
    u, here = energy.vocabulary.patterns[w] - energy.vocabulary.patterns[r], jnp.arange(y.shape[0])
    messages = {name: energy.kappa * force for name, force in forces.items() if name != "neurons"}
    cavity = energy.vocabulary.cavity_logits(y, b)
    beside = jnp.abs(cavity[here, w] - cavity[here, r]) + jnp.abs(jnp.sum((y - sum(messages.values())) * u, axis=-1))
    carried = sum(jnp.abs(jnp.sum(message * u, axis=-1)) for message in messages.values())
    carried = carried / jnp.maximum(carried + beside, tiny)
    return {name: jnp.mean(norm / whole) for name, norm in norms.items()}, _masked_mean(carried, known)


@eqx.filter_jit
def _wrong(energy, y, b, forces) -> dict[str, Array]:
    """Every force along its own direction against a central difference of its energy, relative to its length."""
    g = energy.activation(y, b)
    step = jnp.finfo(g.dtype).eps ** (1 / 3) * jnp.sqrt(jnp.sum(g**2))
    each = jnp.stack(list(forces.values()))
    sizes = jnp.sqrt(jnp.sum(each**2, axis=(1, 2)))
    scales = jnp.where(sizes > 0, sizes, 1.0)

    def slopes(way):
        up, down = (energy.terms(y, b, g=g + sign * step * way) for sign in (1, -1))
        # token by token first: the differences are small beside the values
        return {name: jnp.sum(up[name] - down[name]) / (2 * step) for name in forces}

    found = jax.lax.map(slopes, each / scales[:, None, None])
    apart = lambda n, name: jnp.where(sizes[n] > 0, jnp.abs(found[name][n] + sizes[n]) / scales[n], 0.0)
    return {name: apart(n, name) for n, name in enumerate(forces)}


def _slopes(model, ids, known):
    """The share of every synapse in the gradient of the loss of masked tokens."""
    asked = jnp.where(known, 0.0, 1.0) / jnp.sum(~known)
    seen = jax.nn.one_hot(ids, model.size, dtype=asked.dtype)
    slopes, _ = _back(model, model.field(Given(ids, known)), -asked[:, None] * seen, jnp.zeros_like(seen))
    norm = lambda tree: jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))
    return {name: norm(slope) / norm(slopes) for name, slope in slopes.synapses.items()}


@eqx.filter_jit
def _back(model, b, of_log, of_p):
    """The gradient of `sum of_log log p + of_p p` by the network and by the evidence, through the relaxation."""

    def read(parts):
        network, b = parts
        energy = eqx.tree_at(lambda energy: energy.network, model.energy, network)
        y = relax(energy, energy.neutral(b.shape[0]), b, steps=model.steps, step=model.step)
        log_p = jax.nn.log_softmax(energy.logits(y, b), axis=-1)
        return jnp.sum(of_log * log_p + of_p * jnp.exp(log_p))

    return eqx.filter_grad(read)((model.energy.network, b))


@eqx.filter_jit
def _balance(field, start):
    """The drop of `F` against its dissipation by Simpson's rule, and its largest rise, over the first two times, by
    Runge-Kutta steps of fourth order."""
    size, time = 2.0 / 64, jnp.zeros(())
    ahead, weight = (jnp.asarray(n, start.dtype) for n in ([0.0, 0.5, 0.5, 1.0], [1 / 6, 1 / 3, 1 / 3, 1 / 6]))

    def move(y, _):
        def stage(n, carry):
            slope, whole = carry
            slope = field(time, y + size * ahead[n] * slope)
            return slope, whole + weight[n] * slope

        whole = jax.lax.fori_loop(0, 4, stage, (jnp.zeros_like(y), jnp.zeros_like(y)))[1]
        return y + size * whole, (free_energy(time, y, field), dissipation(time, y, field))

    _, (energies, burnt) = jax.lax.scan(move, start, None, length=65)
    weights = jnp.ones(65).at[1:-1:2].set(4.0).at[2:-1:2].set(2.0) / 96
    drop = energies[0] - energies[-1]
    scale = jnp.maximum(jnp.abs(drop), jnp.finfo(drop.dtype).tiny)
    return jnp.abs(weights @ burnt - drop) / scale, jnp.max(jnp.diff(energies)) / scale


def _noisy(model, ids, key):
    """An observation at the noise where tokens are half known, and its noise level."""
    codes = model.energy.vocabulary.codes
    sigma = jnp.asarray(0.5, codes.dtype)
    return codes[ids] + sigma * jax.random.normal(key, (ids.shape[0], codes.shape[1]), codes.dtype), sigma


def _asymmetry(model, ids, k1, k2):
    """`|J v - J^T v| / |J v|` of `x_hat(x)` at the noise where tokens are half known, in a random direction."""
    x, sigma = _noisy(model, ids, k1)
    v = jax.random.normal(k2, x.shape, x.dtype)
    b, back = jax.vjp(lambda x: model.field(Gaussian(x, sigma)), x)
    zeros = jnp.zeros_like(b)
    (transposed,) = back(_back(model, b, zeros, v @ model.energy.vocabulary.codes.T)[1])
    ahead = _ahead(model, x, sigma, v)
    norm = lambda z: jnp.sqrt(jnp.sum(z**2))
    return norm(ahead - transposed) / jnp.maximum(norm(ahead), jnp.finfo(x.dtype).tiny)


@eqx.filter_jit
def _ahead(model, x, sigma, v):
    return jax.jvp(lambda x: model.denoised(Gaussian(x, sigma)), (x,), (v,))[1]
