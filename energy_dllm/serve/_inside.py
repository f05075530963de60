"""Scores and attributions, whose lengths are rounded up, what is behind the text being unknown; repairs and recalls."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._checks import on_device
from .._model import EnergyDLLM
from ..flow import Given, Relaxation
from ..memory import TextMemory
from ..probe import attribution
from ..sampling import repair
from ._engine import Engine
from ._passage import TOP
from ._plan import Plan, read
from ._write import offsets, short


AT_ONCE = 8
"""Relaxations at once."""
SHIFTED = 96
"""Tokens times shifts of a repair, at most: every shift is looked for by `2 L` relaxations of all tokens."""
NEIGHBOURS = 12
"""Messages of other tokens that are listed."""


def scored(engine: Engine, model: EnergyDLLM, text: str, block: int) -> dict[str, Any]:
    """What every token costs, and the likeliest in its place, in nats.

    In blocks of one `-log p(token | tokens before it)`, which add up to `-log P(text)`; else `-log p(token | all
    others)`, and `-log P(text)` by two evaluations of the energy.
    """
    ids, size, length = _padded(engine, model, text)
    if block:
        log_p, top, _ = jax.tree.map(np.asarray, _in_order(model.energy, on_device(ids)))
        nll, likelier = -log_p, top[:, 0]
        whole = {"method": "chain rule", "log_likelihood": short(-float(nll[:size].sum()))}
    else:
        found = _score(model, on_device(ids), on_device(np.arange(length) < size))
        nll, likelier, cost = jax.tree.map(np.asarray, found)
        whole = {"method": "given all others", "pseudo_log_likelihood": short(-float(nll[:size].sum()))}
        whole["energy_nll"] = short(float(cost))
    return {
        "tokens": model.tokenizer.by_token(ids[:size]),
        "nll": [short(float(value)) for value in nll[:size]],
        "likelier": model.tokenizer.by_token(likelier[:size]),
    } | whole


def echoed(engine: Engine, plan: Plan) -> list[dict[str, Any]]:
    """Of every token before an answer what `Choice.logprobs` has of those of the answer, by the chain rule; without
    numbers where the answer is not from left to right, a token is unknown, or they do not fit into a window."""
    spelt, size = plan.model.tokenizer.spelt, len(plan.ids)
    found, length = [(None, [])] * size, engine.length(size)
    if size and plan.block and plan.known.all() and length is not None:
        ids = on_device(np.pad(plan.ids, (0, length - size)))
        log_p, top, nats = jax.tree.map(np.asarray, _in_order(plan.model.energy, ids))
        likely = lambda n: [(w, short(float(p))) for w, p in zip(spelt(top[n]), nats[n], strict=True)]
        found = [(short(float(log_p[n])), likely(n)) for n in range(size)]
    tokens = spelt(plan.ids)
    return [
        {"token": token, "logprob": log_p, "top": top, "offset": offset}
        for token, (log_p, top), offset in zip(tokens, found, offsets(tokens), strict=True)
    ]


@eqx.filter_jit
def _in_order(energy: Any, ids: Int[Array, " L"]) -> tuple[Float[Array, " L"], Int[Array, "L n"], Float[Array, "L n"]]:
    log_p = energy.conditionals(ids)
    nats, top = jax.lax.top_k(log_p, min(TOP, log_p.shape[-1]))
    return jnp.take_along_axis(log_p, ids[:, None], axis=-1)[:, 0], top, nats


@eqx.filter_jit
def _score(
    model: EnergyDLLM, ids: Int[Array, " L"], there: Bool[Array, " L"]
) -> tuple[Float[Array, " L"], Int[Array, " L"], Float[Array, ""]]:
    here = jnp.arange(ids.shape[0])

    def without(i):
        log_p = model.log_posterior(ids, there & (here != i))[i]
        return -log_p[ids[i]], jnp.argmax(log_p)

    def resting(known):
        evidence = Given(ids, known)
        return model.free_energy(evidence, model.settle(evidence))

    nll, likelier = jax.lax.map(without, here, batch_size=AT_ONCE)
    return nll, likelier, resting(there) - resting(jnp.zeros_like(there))


def attributed(
    engine: Engine, model: EnergyDLLM, text: str | list[int], place: int, reference: str | None
) -> dict[str, Any]:
    """Why this token: its log-odds given all others, as a sum over what spoke for it, and over the other tokens."""
    ids, size, length = _padded(engine, model, text)
    if place >= size:
        raise ValueError(f"`place` is {place}; the text has {size} tokens, so expected 0 to {size - 1}.")
    known = (np.arange(length) < size) & (np.arange(length) != place)
    other = -1
    if reference is not None:
        found = read(model, reference, False, "reference")[0]
        if len(found) != 1:
            raise ValueError(f"`reference` is {reference[:40]!r}, {len(found)} tokens; expected one.")
        other = int(found[0])
    why = _attributed(model, on_device(ids), on_device(known), on_device(np.array(place)), on_device(np.array(other)))
    against, odds, parts, pairs = jax.tree.map(np.asarray, why)
    said = np.sum(list(pairs.values()), axis=0)[:size] if pairs else np.zeros(size)
    strongest = np.argsort(-np.abs(said))[:NEIGHBOURS]
    return {
        "place": place,
        "token": model.tokenizer.decode(ids[place : place + 1]),
        "reference": model.tokenizer.decode(against[None]),
        "log_odds": short(float(odds)),
        "parts": {name: short(float(value)) for name, value in parts.items()},
        "neighbours": [
            {"place": int(j), "token": token, "nats": short(float(said[j]))}
            for j, token in zip(strongest, model.tokenizer.by_token(ids[strongest]), strict=True)
        ],
    }


@eqx.filter_jit
def _attributed(model: EnergyDLLM, ids, known, place, other) -> Any:
    field = Relaxation(model.energy, Given(ids, known))
    y = model.settle(Given(ids, known))
    logits = model.energy.logits(y, model.field(Given(ids, known)))
    likely = jnp.argmax(jnp.where(jnp.arange(model.size) == ids[:, None], -jnp.inf, logits), axis=-1)
    references = jnp.where(other < 0, likely, other).astype(ids.dtype)
    why = attribution(jnp.zeros(()), y, field, token=ids, reference=references)
    at = lambda leaf: leaf[place]
    return references[place], why.log_odds[place], jax.tree.map(at, why.parts), jax.tree.map(at, why.neighbours)


def repaired(
    engine: Engine, model: EnergyDLLM, text: str, rate: float, shifts: int, mask_unknown: bool
) -> dict[str, Any]:
    """`sampling.repair`, of texts that fit into a window."""
    _, size, _ = _padded(engine, model, text, mask_unknown)
    if size * shifts > SHIFTED:
        raise ValueError(
            f"`shifts` is {shifts} with a text of {size} tokens; expected at most {SHIFTED // shifts} of them, so send "
            "it in parts."
        )
    fixed = repair(model, text, rate=rate, shifts=shifts, mask_unknown=mask_unknown)
    return {
        "text": fixed.text,
        "edits": [{"kind": edit.kind, **edit._asdict(), "confidence": short(edit.confidence)} for edit in fixed.edits],
        "free_energy": short(float(fixed.free_energy[-1])),
        "force_evaluations": fixed.force_evaluations,
        "result": fixed.reason,
    }


def recalled(memory: TextMemory, cue: str, options: dict[str, Any]) -> dict[str, Any]:
    """The line that was meant, or none."""
    found = memory.recall(cue, **options)
    return {
        "text": found.text,
        "best": found.best,
        "line": found.index,
        "exact": found.exact,
        "stored": short(found.stored),
        "mass": short(found.mass),
        "margin": short(found.margin),
        "nearest": [{"text": line, "mass": short(mass)} for line, mass in found.nearest],
    }


def _padded(
    engine: Engine, model: EnergyDLLM, text: str | list[int], mask_unknown: bool = False
) -> tuple[np.ndarray, int, int]:
    """Its ids (or these) with unknown tokens behind, how many it has, and how many there are."""
    if isinstance(text, str):
        ids, _ = read(model, text, mask_unknown, "text")
    elif max(text) < model.size:
        ids = np.array(text, np.int32)
    else:
        raise ValueError(f"`text` has token {max(text)}; this model has tokens 0 to {model.size - 1}.")
    length = engine.length(len(ids))
    if length is None:
        raise ValueError(f"`text` has {len(ids)} tokens; expected at most {engine.lengths[-1]}, so send it in parts.")
    return np.pad(ids, (0, length - len(ids))), len(ids), length
