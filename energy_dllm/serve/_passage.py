"""Passages as the server writes them: arrays in, arrays out, one program for each length and number of passages."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt32

from .._checks import on_device
from .._model import EnergyDLLM
from .._types import LOG_ZERO, Key, Scalar
from ..data import RegexDFA
from ..energy import DFA, AbstractFreeEnergy, FreeEnergy
from ..flow import DDIM, AutonomousDescent, Conditioning, Given, Likelihood, relax, solve
from ..sampling import Diffusion


PIECE = 4
"""Steps of the descent between two moments: what is streamed, and where a passage can be cancelled."""
AHEAD = 8
"""Tokens from left to right between two moments."""
FIRST = 2
"""The same before the first moment of a passage that is looked at."""
GIVEN = 16
"""Given tokens that are read at once before text that is written from left to right."""
TOP = 5
"""Tokens of each place whose log-probabilities are kept."""


class Page(NamedTuple):
    """What is known of passages: given tokens, evidence, the temperature, and the keys of noise and draws, as data; and
    an automaton about them as a whole, where there is one."""

    ids: Int[Array, "*N L"]
    known: Bool[Array, "*N L"]
    b: Float[Array, "*N L V"]
    temperature: Float[Array, "*N"]
    keys: UInt32[Array, "*N 2 _"]
    dfa: DFA | None = None


class Pattern(NamedTuple):
    """An automaton about the places `begin` to `end` of passages: the state `after` each token, and `ahead`, how likely
    what then follows is to be accepted, by place and state. One of a single state accepts everything."""

    after: Int[Array, "*N Q V"]
    ahead: Float[Array, "*N places Q"]
    begin: Int[Array, "*N"]
    end: Int[Array, "*N"]


class Written(NamedTuple):
    """Passages of which some tokens are drawn anew: those that stand, and the hidden states under them."""

    ids: Int[Array, "*N L"]
    known: Bool[Array, "*N L"]
    y: Float[Array, "*N L D"]


class Line(NamedTuple):
    """Passages that are written from left to right: up to `place`, where the automaton is in a `state`, and what is
    `kept` of the tokens before it."""

    ids: Int[Array, "*N L"]
    place: Int[Array, "*N"]
    state: Int[Array, "*N"]
    kept: PyTree[Array]


Rows = tuple[Page, Line, Pattern]
"""Of a batch that is written from left to right."""


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
def begin(energy: AbstractFreeEnergy, pages: Page, time: Scalar, settled: float = 0.0) -> PyTree[Array]:
    """The noise that every passage descends from, as `sampling.Diffusion` draws it."""

    def one(page: Page):
        sampler = Diffusion(field=Partial(AutonomousDescent, temperature=page.temperature, **_steps(settled)))
        return sampler.begin(energy, _conditioning(page), time, key=_key(page, 0))

    return jax.vmap(one)(pages)


@eqx.filter_jit
def descend(
    energy: AbstractFreeEnergy, pages: Page, states: PyTree[Array], clock: Float[Array, " n"], settled: float = 0.0
) -> tuple[PyTree[Array], Moment]:
    """Through these noise times, one force evaluation a step; and the moment at the end of them. The hidden state moves
    along, or is one step of the size `settled` from neutral."""

    def one(page: Page, state):
        field = _field(energy, page, settled)
        path = solve(field, state, t0=clock[0], t1=clock[-1], solver=DDIM(field.decay), levels=clock, times=clock[-1:])
        return path.final, _moment(energy, page, field, clock[-1], path.final)

    return jax.vmap(one)(pages, states)


@eqx.filter_jit
def redraw(
    energy: AbstractFreeEnergy, pages: Page, drafts: Written, due: Int[Array, " N"], keys: Array
) -> tuple[Written, Moment]:
    """One round of `sampling.Unmasking`: draw, keep the `due` most certain tokens, relax by one step."""

    def one(page: Page, draft: Written, due, key):
        b = _conditioning(page, draft).field(energy.vocabulary.codes)
        logits = energy.logits(draft.y, b)
        drawn = _drawn(energy, draft.y, b, page, key=jax.random.split(key)[0])
        read = _read(draft.known, draft.ids, drawn, logits)
        order = jnp.argsort(jnp.where(draft.known, jnp.inf, -read["log_p"]))
        new = jnp.zeros(drawn.shape, bool).at[order].set(jnp.arange(drawn.shape[0]) < due) & ~draft.known
        draft = Written(jnp.where(new, drawn, draft.ids), draft.known | new, draft.y)
        b = _conditioning(page, draft).field(energy.vocabulary.codes)
        y = relax(energy, draft.y, b, steps=1, step=1.0)
        nothing = jnp.zeros((), b.dtype)
        return draft._replace(y=y), Moment(**read, free_energy=nothing, sigma=nothing)

    return jax.vmap(one)(pages, drafts, due, keys)


def beginning(energy: FreeEnergy, page: Page, state: Int[Array, ""]) -> Line:
    """What is given before the first unknown token of a passage, some tokens at a time."""
    energy, length = energy.in_blocks(1), page.ids.shape[0]
    place, some = jnp.argmin(page.known).astype(jnp.int32), min(GIVEN, length)

    def read(n, kept):
        start = jnp.minimum(n * some, length - some)
        return energy.extended(kept, jax.lax.dynamic_slice_in_dim(page.ids, start, some), start)

    # the last given token is read with the first that is written
    kept = jax.lax.fori_loop(0, -(-(place - 1) // some), read, energy.unwritten(length))
    return Line(page.ids, place, state, kept)


def put(rows: PyTree[Array], row: PyTree[Array], n: Int[Array, ""]) -> PyTree[Array]:
    """A batch whose row `n` is this one."""
    return jax.tree.map(lambda all, one: all.at[n].set(one), rows, row)


def ahead(energy: FreeEnergy, rows: Rows, count: int = AHEAD) -> tuple[Rows, dict[str, Array]]:
    """The next `count` tokens of every passage, one pass each, and the posterior of each, `(N, count, ...)`. Every
    passage has a place of its own; tokens and the keys of their draws are those of `sampling.Blocks(size=1)`.

    Under a pattern a token is drawn from `p(w | before) P(what follows is accepted | w)`, the latter for tokens that
    follow independently by the prior: none is drawn after which no accepted text fits into the room that is left."""

    def one(page: Page, line: Line, pattern: Pattern):
        # of all tokens at once: within the loop a key takes as long as a layer; behind its end the last is read again
        places = jnp.minimum(line.place + jnp.arange(count), line.ids.shape[0] - 1)
        keys = jax.vmap(lambda n: jax.random.split(jax.random.fold_in(_key(page, 1), n), 3)[2])(places)
        noise = jax.vmap(lambda key: jax.random.gumbel(key, (energy.size,), page.b.dtype))(keys)

        def step(line: Line, drawing):
            place, noise = drawing
            y, kept = energy.next(line.kept, line.ids[jnp.maximum(place - 1, 0)], place)
            b, inside = page.b[place], (pattern.begin <= place) & (place < pattern.end)
            after = pattern.after[line.state]
            fits = jnp.where(inside, pattern.ahead[place + 1, after], 0.0)
            logits = energy.logits(y, b[None])[0]
            drawn = jnp.argmax(logits + fits + _tilt(logits + fits, b + fits, page.temperature) + noise)
            token = jnp.where(page.known[place], line.ids[place], drawn).astype(jnp.int32)
            state = jnp.where(inside, after[token], line.state)
            return Line(line.ids.at[place].set(token), line.place + 1, state, kept), (token, logits)

        line, (ids, logits) = jax.lax.scan(step, line, (places, noise))
        return line, _read(jnp.ones((count,), bool), ids, ids, logits)

    pages, lines, patterns = rows
    lines, found = _each(one, pages, lines, patterns)
    return (pages, lines, patterns), found


def _each(function: Callable[..., Any], *rows: Any) -> Any:
    """Of every row of a batch; of a row alone without the axis of a batch, which takes a fifth less."""
    if jax.tree.leaves(rows)[0].shape[0] > 1:
        return jax.vmap(function)(*rows)
    made = function(*jax.tree.map(lambda leaf: leaf[0], rows))
    return jax.tree.map(lambda leaf: leaf[None], made)


def blank(states: int, kinds: int, length: int, size: int) -> DFA:
    """A `DFA` of this shape that accepts every text."""
    made = DFA.of(RegexDFA(np.zeros((1, size), np.int32), np.ones(1, bool)), base=states)
    moves = on_device(np.pad(np.asarray(made.moves[:, :1]), ((0, 0), (0, kinds - 1)), constant_values=states))
    return eqx.tree_at(lambda dfa: dfa.moves, made, moves).within(on_device(np.ones(length, bool)))


def anything(states: int, length: int, size: int, dtype: Any) -> Pattern:
    """An automaton that accepts every text."""
    none = np.zeros((), np.int32)
    return Pattern(np.zeros((states, size), np.int32), np.zeros((length + 1, states), dtype), none, none)  # pyright: ignore


@jax.jit
def keys_of(seed: UInt32[Array, ""], begin: Int[Array, ""], number: Int[Array, ""]) -> UInt32[Array, "2 _"]:
    """Data of the keys of noise and draws of choice `number`, as `sampling` has them for the window that begins there:
    those of the first are those of `generate`."""
    key = jax.random.key(seed)
    later = jax.random.fold_in(jax.random.fold_in(key, 2**31 - 1), begin)
    key = jax.lax.cond(begin > 0, lambda: later, lambda: key)
    return jax.random.key_data(jax.random.split(jax.random.fold_in(key, number)))


@eqx.filter_jit
def log_posterior(energy: AbstractFreeEnergy, page: Page, state: PyTree[Array]) -> Float[Array, "L V"]:
    """Of every token at every place of one passage, at the end of its descent."""
    field, time = _field(energy, page), jnp.zeros(())
    b = field.evidence(time, state).field(energy.vocabulary.codes)
    return jax.nn.log_softmax(energy.logits(field.hidden(time, state), b), axis=-1)


@eqx.filter_jit
def letters(model: EnergyDLLM, ids: Int[Array, " L"], width: int) -> Float[Array, "width V"]:
    """Log-posteriors of the letters of a caption, each given the others and no picture."""
    here = jnp.arange(ids.shape[0])
    one = lambda place: model.log_posterior(ids, (here < width) & (here != place))[place]
    return jax.vmap(one)(here[:width])


def _key(page: Page, n: int) -> Key:
    return jax.random.wrap_key_data(page.keys[n])


def _conditioning(page: Page, stands: Page | Written | None = None) -> Conditioning:
    """With the tokens that stand, by default those of the page."""
    stands = page if stands is None else stands
    return Conditioning(Given(stands.ids, stands.known), Likelihood(page.b), page.dfa)


def _on(page: Page, energy: AbstractFreeEnergy) -> AbstractFreeEnergy:
    """That of what the automaton accepts."""
    return energy if page.dfa is None else page.dfa.on(energy)


def _field(energy: AbstractFreeEnergy, page: Page, settled: float = 0.0) -> AutonomousDescent:
    return AutonomousDescent(_on(page, energy), _conditioning(page), temperature=page.temperature, **_steps(settled))


def _steps(settled: float) -> dict[str, Any]:
    return {"steps": 1, "step": settled} if settled else {}


def _moment(energy, page, field, time, state) -> Moment:
    evidence, y = field.evidence(time, state), field.hidden(time, state)
    b, energy = evidence.field(energy.vocabulary.codes), _on(page, energy)
    # what is excluded is never read out, however sure the network is
    open = Conditioning.allowed(_conditioning(page).field(energy.vocabulary.codes))
    ids = energy.sample(y, b, tilt=jnp.where(open, 0.0, LOG_ZERO).astype(b.dtype), dfa=page.dfa, key=None)
    free = energy(y, b, spring=evidence.spring())
    read = _read(page.known, page.ids, ids.astype(page.ids.dtype), energy.logits(y, b))
    return Moment(**read, free_energy=free, sigma=jnp.exp(jnp.max(state[2])))


def _drawn(energy, y, b, page: Page, *, key) -> Int[Array, " L"]:
    """A token for every place."""
    tilt = _tilt(energy.logits(y, b), b, page.temperature)
    return energy.sample(y, b, tilt=tilt, dfa=page.dfa, key=key).astype(jnp.int32)


def _tilt(logits: Float[Array, "*L V"], b: Float[Array, "*L V"], temperature: Scalar) -> Float[Array, "*L V"]:
    """What a temperature adds to the logits under evidence `b`: it acts on the prior, not on the evidence; excluded
    tokens are never drawn."""
    tilt = (1.0 / temperature - 1.0) * (logits - b)
    return jnp.where(Conditioning.allowed(b), tilt, LOG_ZERO)


def _read(known, given, ids, logits) -> dict[str, Any]:
    """Tokens, given ones kept, and the posterior of them."""
    ids, log_p = jnp.where(known, given, ids), jax.nn.log_softmax(logits, axis=-1)
    top_log_p, top = jax.lax.top_k(log_p, min(TOP, log_p.shape[-1]))
    return {
        "ids": ids,
        "log_p": jnp.take_along_axis(log_p, ids[:, None], axis=-1)[:, 0],
        "top": top,
        "top_log_p": top_log_p,
        "entropy": -jnp.sum(jnp.exp(log_p) * log_p, axis=-1),
    }
