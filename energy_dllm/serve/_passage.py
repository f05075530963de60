"""One passage as the server writes it: arrays in, arrays out, one program for each length and number of passages."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._types import LOG_ZERO, Key, Scalar
from ..energy import AbstractFreeEnergy
from ..flow import DDIM, AutonomousDescent, Conditioning, Given, Likelihood, solve
from ..sampling import Diffusion


PIECE = 8
"""Steps of the descent between two moments: what is streamed, and where a passage can be cancelled."""
TOP = 5
"""Tokens of each place whose log-probabilities are kept."""


class Page(NamedTuple):
    """What is known of passages: given tokens, evidence, the temperature of the noise, and the keys of its draws."""

    ids: Int[Array, "*N L"]
    known: Bool[Array, "*N L"]
    b: Float[Array, "*N L V"]
    temperature: Float[Array, "*N"]
    key: Key


class Moment(NamedTuple):
    """What stands at one moment, if the descent were to end there."""

    ids: Int[Array, "*N L"]
    log_p: Float[Array, "*N L"]
    top: Int[Array, "*N L n"]
    top_log_p: Float[Array, "*N L n"]
    entropy: Float[Array, "*N L"]
    free_energy: Float[Array, "*N"]
    sigma: Float[Array, "*N"]


@eqx.filter_jit
def begin(energy: AbstractFreeEnergy, pages: Page, time: Scalar) -> PyTree[Array]:
    """The noise that every passage descends from, as `sampling.Diffusion` draws it."""

    def one(page: Page):
        sampler = Diffusion(field=Partial(AutonomousDescent, temperature=page.temperature))
        return sampler.begin(energy, _conditioning(page), time, key=page.key)

    return jax.vmap(one)(pages)


@eqx.filter_jit
def descend(
    energy: AbstractFreeEnergy, pages: Page, states: PyTree[Array], clock: Float[Array, " n"]
) -> tuple[PyTree[Array], Moment]:
    """Through these noise times, one force evaluation a step; and the moment at the end of them."""

    def one(page: Page, state):
        field = _field(energy, page)
        path = solve(field, state, t0=clock[0], t1=clock[-1], solver=DDIM(field.decay), levels=clock, times=clock[-1:])
        return path.final, _moment(energy, page, field, clock[-1], path.final)

    return jax.vmap(one)(pages, states)


@eqx.filter_jit
def log_posterior(energy: AbstractFreeEnergy, page: Page, state: PyTree[Array]) -> Float[Array, "L V"]:
    """Of every token at every place of one passage, at the end of its descent."""
    field, time = _field(energy, page), jnp.zeros(())
    b = field.evidence(time, state).field(energy.vocabulary.codes)
    return jax.nn.log_softmax(energy.logits(field.hidden(time, state), b), axis=-1)


def _conditioning(page: Page) -> Conditioning:
    return Conditioning(Given(page.ids, page.known), Likelihood(page.b))


def _field(energy: AbstractFreeEnergy, page: Page) -> AutonomousDescent:
    return AutonomousDescent(energy, _conditioning(page), temperature=page.temperature)


def _moment(energy, page, field, time, state) -> Moment:
    evidence, y = field.evidence(time, state), field.hidden(time, state)
    b = evidence.field(energy.vocabulary.codes)
    # what is excluded is never read out, however sure the network is
    open = Conditioning.allowed(_conditioning(page).field(energy.vocabulary.codes))
    log_p = jax.nn.log_softmax(jnp.where(open, energy.logits(y, b), LOG_ZERO), axis=-1)
    ids = energy.sample(y, b, tilt=jnp.where(open, 0.0, LOG_ZERO).astype(b.dtype), dfa=None, key=None)
    ids = jnp.where(page.known, page.ids, ids).astype(page.ids.dtype)
    top_log_p, top = jax.lax.top_k(log_p, min(TOP, log_p.shape[-1]))
    free = energy(y, b, spring=evidence.spring())
    return Moment(
        ids=ids,
        log_p=jnp.take_along_axis(log_p, ids[:, None], axis=-1)[:, 0],
        top=top,
        top_log_p=top_log_p,
        entropy=-jnp.sum(jnp.exp(log_p) * log_p, axis=-1),
        free_energy=free,
        sigma=jnp.exp(jnp.max(state[2])),
    )
