"""What an energy says after short contexts: guesses of the next tokens, made without it."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._checks import on_device, sizes
from .._types import LOG_ZERO, Scalar
from ..energy import AbstractFreeEnergy, FreeEnergy
from ..flow import Conditioning


TOGETHER = 512
"""Contexts that are read at once."""


def is_shifted(energy: AbstractFreeEnergy) -> bool:
    """Whether a token is read out where the one before it stands, so that a pass reads several for little more."""
    return isinstance(energy, FreeEnergy) and any(getattr(s, "shift", 0) for s in energy.network.synapses.values())


class Draft(eqx.Module):
    """Guesses of the next tokens by the likeliest contexts of an energy: an automaton that is read in place of it.

    The state of a text is its longest end among the contexts, of at most some tokens each, which are the likeliest by
    the energy itself: `P(c w) = P(c) p(w | c)`. Of every one of them the likeliest next tokens are kept, with `log p`.
    `sampling.Blocks` asks the energy of as many guessed tokens at once as a pass over them is worth.

    **Arguments:**

    - `tokens`: the likeliest next tokens of each of `S` contexts `(S, K)`; the first is the empty context.
    - `log_p`: `log p(w | c)` of these `(S, K)`.
    - `next`: the context after each of them `(S, K)`.
    - `alone`: the context after any token `(V,)`, where it is none of them.

    **Raises:** `ValueError` in `Draft.of`, for numbers that are not positive or an energy that has no shifted read-out.

    **Source:** blockwise and speculative decoding, Stern et al. 2018 (arXiv 1811.03115), Leviathan et al. 2023 (arXiv
    2211.17192); the automaton is that of Aho and Corasick (1975).

    ??? cite "Reference"

        ```bibtex
        @inproceedings{leviathan2023fast,
          title={Fast Inference from Transformers via Speculative Decoding},
          author={Leviathan, Yaniv and Kalman, Matan and Matias, Yossi},
          booktitle={International Conference on Machine Learning},
          year={2023}
        }
        ```

    **Example:**

    ```python
    import energy_dllm as ed

    model = ed.load("shakespeare")
    sampler = ed.sampling.Blocks(size=1, draft=ed.sampling.Draft.of(model.energy, contexts=256))
    made = ed.generate(model, length=64, prompt="The ", sampler=sampler)
    assert made.force_evaluations[0] < 60  # the text is that without a draft
    ```
    """

    tokens: Int[Array, "S K"]
    log_p: Float[Array, "S K"]
    next: Int[Array, "S K"]
    alone: Int[Array, " V"]

    @classmethod
    def of(cls, energy: FreeEnergy, *, contexts: int = 16384, length: int = 5, tokens: int = 32) -> "Draft":
        """That of the likeliest `contexts` of an energy, each of at most `length` tokens.

        **Arguments:**

        - `energy`: one with a shifted read-out, `model.energy` of `EnergyDLLM(blocks=(0, 1), shift=True)`.
        - `contexts`: how many at most, none rarer than `1/(e contexts)`; each is one short passage to evaluate.
        - `length`: tokens of the longest.
        - `tokens`: next tokens that are kept of each.
        """
        sizes(contexts=contexts, length=length, tokens=tokens)
        if not is_shifted(energy):
            raise ValueError(
                "`energy` has no shifted read-out, without which several tokens are no cheaper than one; expected that "
                "of a model with `blocks=(0, 1)` and `shift=True`, such as shakespeare."
            )
        parent, token, log_p = _likeliest(energy, contexts, length)
        child = np.full(log_p.shape, -1, np.int32)
        child[parent[1:], token[1:]] = np.arange(1, len(parent))
        # where a context does not go on, its longest end among the others does
        after, end = np.maximum(child, 0), np.zeros(len(parent), np.int32)
        for number in range(1, len(parent)):
            end[number] = 0 if parent[number] == 0 else after[end[parent[number]], token[number]]
            after[number] = np.where(child[number] >= 0, child[number], after[end[number]])
        best = np.argsort(-log_p, axis=-1, kind="stable")[:, :tokens].astype(np.int32)
        of = functools.partial(np.take_along_axis, indices=best, axis=-1)
        return cls(*map(on_device, (best, of(log_p), of(after), after[0])))

    def guess(self, context: Int[Array, ""], noise: Float[Array, " V"]) -> tuple[Int[Array, ""], Int[Array, ""]]:
        """The likeliest next token with the `noise` of a draw added, and the context after it."""
        best = jnp.argmax(self.log_p[context] + noise[self.tokens[context]])
        return self.tokens[context, best], self.next[context, best]

    def follow(self, context: Int[Array, ""], token: Int[Array, ""]) -> Int[Array, ""]:
        """The context after a token."""
        there = self.tokens[context] == token
        return jnp.where(jnp.any(there), self.next[context, jnp.argmax(there)], self.alone[token])


def noise_of(
    keys: Array, energy: FreeEnergy, temperature: Scalar | float, b: Float[Array, "L V"] | None = None
) -> Float[Array, "L V"]:
    """What a draw with each of the keys, under evidence `b`, adds to `log p` of every token `(L, V)`: the largest sum
    is the token. A temperature acts on `p`, not on the evidence; excluded tokens are never drawn."""
    size, dtype, cold = energy.size, energy.vocabulary.codes.dtype, Conditioning.cold(temperature)
    gumbel = lambda key: jax.random.gumbel(key, (size,), dtype)
    noise = jnp.zeros((keys.shape[0], size), dtype) if cold else temperature * jax.vmap(gumbel)(keys)
    if b is None:
        return noise
    return noise + jnp.where(Conditioning.allowed(b), b if cold else temperature * b, LOG_ZERO).astype(dtype)


def guessed(
    energy: FreeEnergy, draft: Draft, ahead: int, known: Bool[Array, " L"], noise: Float[Array, "L V"], written: Any
) -> Any:
    """Tokens that are guessed, and read in one pass: those before the first that is drawn otherwise, and it."""
    place, context = written.stands
    here = lambda rows: jax.lax.dynamic_slice_in_dim(rows, place, ahead)
    put = lambda rows, new: jax.lax.dynamic_update_slice_in_dim(rows, new.astype(rows.dtype), place, axis=0)
    given, noise = here(written.ids), here(noise)
    # a token that is given, where a guess says otherwise, is a wrong guess
    tokens, contexts = [written.ids[jnp.maximum(place - 1, 0)]], [context]
    for n in range(ahead - 1):
        guess, after = draft.guess(contexts[-1], noise[n])
        tokens, contexts = [*tokens, guess.astype(given.dtype)], [*contexts, after]
    tokens = jnp.stack(tokens)
    y, kept = energy.next(written.kept, tokens, place)
    log_p = jax.nn.log_softmax(energy.logits(y, jnp.zeros((ahead, energy.size), y.dtype)))
    drawn = jnp.where(here(known), given, jnp.argmax(log_p + noise, axis=-1).astype(given.dtype))
    # all guesses up to the first that is wrong, and what is drawn in its place
    last = jnp.argmin(jnp.append(drawn[:-1] == tokens[1:], False))
    context = draft.follow(jnp.stack(contexts)[last], drawn[last])
    log_p = jnp.take_along_axis(log_p, drawn[:, None], axis=-1)[:, 0]
    return written._replace(
        ids=put(written.ids, drawn),
        kept=kept,
        forces=written.forces + 1,
        log_p=put(written.log_p, log_p),
        stands=(place + last + 1, context),
    )


def _likeliest(energy, contexts, length):
    """Number of the context without its last token, that token, and `log p` of the next one, of each of the likeliest
    contexts; shorter ones first, so that every one stands behind its beginning."""
    read = jax.jit(jax.vmap(lambda ids, end: energy.conditionals(ids)[end]))
    # those that are known of, the empty one first; `row` is that of `log_p` once the energy was asked
    ids, weight, found = np.zeros((1, length + 1), np.int32), np.zeros(1), []
    parent, depth, row = np.zeros(1, int), np.zeros(1, int), np.full(1, -1)
    while True:
        # no context is likelier than its beginning, so that these are the likeliest of all once all of them are read
        best = np.argsort(-weight, kind="stable")[:contexts]
        due = best[row[best] < 0][:TOGETHER]
        if not due.size:
            break
        padded = np.pad(due, (0, TOGETHER - due.size))
        log_p = np.asarray(read(ids[padded], depth[padded]))[: due.size]
        row[due] = len(found) * TOGETHER + np.arange(due.size)
        found.append(np.pad(log_p, ((0, TOGETHER - due.size), (0, 0))))
        before = due[depth[due] < length]
        joint = weight[before, None] + log_p[depth[due] < length]
        longer, last = np.nonzero(joint > -np.log(contexts) - 1.0)
        new = ids[before[longer]]
        new[np.arange(len(new)), depth[before[longer]]] = last
        ids, weight = np.concatenate([ids, new]), np.concatenate([weight, joint[longer, last]])
        parent, depth = np.append(parent, before[longer]), np.append(depth, depth[before[longer]] + 1)
        row = np.append(row, np.full(len(new), -1))
    kept = best[np.argsort(depth[best], kind="stable")]
    number = np.zeros(len(weight), int)
    number[kept] = np.arange(len(kept))
    token = ids[kept, np.maximum(depth[kept] - 1, 0)]
    return number[parent[kept]], token, np.concatenate(found)[row[kept]]
