"""What `check` measures, in several programs: the relaxation, the forces, the dissipation, the gradients."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..flow import Gaussian, Given, Relaxation, relax
from ._attribution import pair
from ._probes import dissipation, free_energy


MULTIPLES = (1, 2, 5, 10)
"""The relaxation is followed to so many times its default."""


def measure(model, ids, known, key, say) -> dict[str, Any]:
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
