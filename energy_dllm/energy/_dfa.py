"""Deterministic finite automata: the log-partition function over accepted strings, their exact draws and marginals."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._checks import booleans, concrete, number, on_device
from .._types import LOG_ZERO, Key, Scalar


class DFA(eqx.Module):
    """The strings a deterministic finite automaton accepts: `E(b) = -log sum_(x accepted) exp(sum_i b_i(x_i))`.

    One backward pass in logarithms, `beta_i(q) = log sum_w exp(b_iw + beta_(i+1)(next(q, w)))`, `beta_N = 0` where the
    automaton accepts: exact for any evidence. Tokens drawn with it forwards have the exact conditional distribution,
    and are always accepted.

    **Arguments:**

    - `next`: the state after a state and a token `(Q, V)`; `Q` where there is none.
    - `accept`: the states in which a string may end `(Q,)`.
    - `start`: the state a string begins in.

    `begins` makes that of the beginning of a passage, whose rest is accepted as often as it says; `within` that of some
    places of a passage, at which alone it reads.

    **Raises:** `ValueError` if shapes do not match or there is no such state; in `posterior`, `sample` and `best`, of
    evidence that is not traced, if no string of its length is accepted.

    **Source:** the forward-backward algorithm (Baum et al. 1970; Rabiner 1989).

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    tokenizer = ed.data.Characters("ab")
    dfa = ed.energy.DFA.of(ed.data.RegexDFA.of("a+b", tokenizer))
    ids = dfa.sample(jnp.zeros((5, 2)), key=jax.random.key(0))
    assert ids.tolist() == [0, 0, 0, 0, 1] and dfa.accepts(ids)
    ```
    """

    next: Int[Array, "Q V"]
    accept: Bool[Array, " Q"]
    start: Int[Array, ""]
    ends: Float[Array, " Q"]
    kinds: Int[Array, " V"]
    moves: Int[Array, "Q K"]
    here: Bool[Array, " N"] | None

    def __init__(self, next: Int[Array, "Q V"], accept: Bool[Array, " Q"], start: Int[Array, ""] | int = 0):
        shapes = np.shape(next), np.shape(accept)
        if len(shapes[0]) != 2 or shapes[1] != shapes[0][:1]:
            raise ValueError(f"`next` and `accept` have shapes {shapes}; expected (Q, V) and (Q,).")
        if concrete(next):
            states, table = shapes[1][0], np.asarray(next)
            if not np.issubdtype(table.dtype, np.integer) or not ((table >= 0) & (table <= states)).all():
                raise ValueError(f"`next` has what is no state; expected integers of 0 to {states}, {states} for none.")
        number("start", start, lambda state: (state >= 0) & (state < shapes[1][0]) & (state % 1 == 0), "a state")
        self.next, self.accept = jnp.asarray(next, jnp.int32), booleans("accept", accept)
        self.start = jnp.asarray(start, self.next.dtype)
        self.ends, self.here = jnp.where(self.accept, 0.0, LOG_ZERO), None
        # tokens that lead to the same states everywhere are one kind, of which there are few
        self.kinds, self.moves = jnp.arange(shapes[0][1], dtype=jnp.int32), self.next
        if concrete(next):
            moves, kinds = np.unique(np.asarray(next), axis=1, return_inverse=True)
            self.kinds, self.moves = (on_device(each.astype(np.int32)) for each in (kinds.ravel(), moves))

    @classmethod
    def of(cls, automaton, *, base: int = 2) -> "DFA":
        """That of a `data.RegexDFA`, on the device. The number of its states and that of its kinds of tokens, those of
        the same `next`, are rounded up to powers of `base`, so that automata of similar size are one shape; nothing
        leads to what is added."""
        count = len(automaton.accept)
        none = rounded_up(count, base)
        next = np.where(automaton.next == count, none, automaton.next)
        next = np.pad(next, ((0, none - count), (0, 0)), constant_values=none)
        made = cls(on_device(next.astype(np.int32)), on_device(np.pad(automaton.accept, (0, none - count))))
        kinds = made.moves.shape[1]
        more = ((0, 0), (0, rounded_up(kinds, base) - kinds))
        moves = on_device(np.pad(np.asarray(made.moves), more, constant_values=none))
        return eqx.tree_at(lambda dfa: dfa.moves, made, moves)

    def on(self, energy: Any) -> Any:
        """A free energy of the accepted passages alone, if it has a member `accepted`: of tokens that are independent
        given the hidden state, and of data sets. Of others the energy itself.

        **Example:**

        ```python
        import jax.numpy as jnp, energy_dllm as ed

        words = ed.energy.Empirical(jnp.array([[0, 1], [1, 1]]))
        exact = ed.energy.DFA.of(ed.data.RegexDFA.of("b.", ed.data.Characters("ab"))).on(words)
        assert exact.posterior(exact.neutral(2), jnp.zeros((2, 2)))[0, 1] > 0.99
        ```
        """
        return energy.accepted(self) if hasattr(energy, "accepted") else energy

    def begins(self, ends: Float[Any, " S"]) -> "DFA":
        """That of the beginning of a passage, `ends (S,)` being the log of how likely the rest is accepted after each
        of the first `S` states, -1e30 or less where it cannot be. `ValueError` for more than there are states.

        **Example:**

        ```python
        import jax.numpy as jnp, numpy as np, energy_dllm as ed

        dfa = ed.energy.DFA.of(ed.data.RegexDFA.of("a*b?", ed.data.Characters("ab")))
        beginning = dfa.begins(np.log([0.9, 0.1]))  # after an `a`, after the `b`
        assert jnp.allclose(-beginning(jnp.zeros((1, 2))), 0.0, atol=1e-6)  # log(0.9 + 0.1)
        ```
        """
        if len(ends) > len(self.accept):
            raise ValueError(f"`ends` has {len(ends)} states; expected at most {len(self.accept)}, one of each state.")
        ends = np.maximum(np.pad(ends, (0, len(self.accept) - len(ends)), constant_values=LOG_ZERO), LOG_ZERO)
        ends = on_device(ends.astype(self.ends.dtype))
        return eqx.tree_at(lambda dfa: (dfa.accept, dfa.ends), self, (ends > LOG_ZERO / 2, ends))

    def within(self, here: Bool[Array, " N"]) -> "DFA":
        """That of the places `here (N,)` of a passage; any token may stand at the others.

        **Example:**

        ```python
        import jax.numpy as jnp, energy_dllm as ed

        dfa = ed.energy.DFA.of(ed.data.RegexDFA.of("bb", ed.data.Characters("ab")))
        assert dfa.within(jnp.array([True, False, True])).accepts(jnp.array([1, 0, 1]))
        ```
        """
        return eqx.tree_at(lambda dfa: dfa.here, self, booleans("here", here), is_leaf=lambda leaf: leaf is None)

    def table(self, read: Bool[Array, ""] | None, by_kind: bool = False) -> Int[Array, "Q V"]:
        """The states after a place that is `read`, or not: as before it."""
        next = self.moves if by_kind else self.next
        return next if read is None else jnp.where(read, next, jnp.arange(next.shape[0], dtype=next.dtype)[:, None])

    def __call__(self, b: Float[Array, "N V"]) -> Scalar:
        """`-log sum_(x accepted) exp(sum_i b_i(x_i))` in nats, 1e30 if nothing is accepted."""
        return -self._backward(b, _sum)[0, self.start]

    def accepts(self, ids: Int[Array, " N"]) -> Bool[Array, ""]:
        """Whether the string `ids (N,)` is accepted."""
        none = self.accept.shape[0]
        step = lambda state, now: (padded(self.table(now[1]), none)[state, now[0]], None)
        return padded(self.accept, False)[jax.lax.scan(step, self.start, (ids, self.here))[0]]

    def ahead(self, b: Float[Array, "N V"]) -> Float[Array, "places states"]:
        """`beta_i(q) = log sum exp(sum_(j >= i) b_j(x_j))` `(N + 1, Q + 1)`, over all that may follow at place `i` in
        state `q` for the string to be accepted; the last state is that in which none is, -1e30."""
        return jnp.pad(self._backward(b, _sum), ((0, 0), (0, 1)), constant_values=LOG_ZERO)

    def cavity(self, b: Float[Array, "N V"]) -> Float[Array, "N V"]:
        """`log sum exp(sum_(j != i) b_j(x_j))` over the accepted strings with `x_i = w`, `(N, V)`; about -1e30 where
        there is none: `softmax(b + cavity(b))` are the marginals."""
        none = self.accept.shape[0]
        ahead = jnp.pad(self._backward(b, _sum), ((0, 0), (0, 1)), constant_values=LOG_ZERO)

        def step(here, now):
            row, after, read = now
            moves = self.table(read, by_kind=True)
            there = here[:, None] + after[moves]
            # by state, so that an improbable one that the rest may need is not lost
            moved = here[:, None] + row
            top = jax.lax.stop_gradient(jnp.full(none + 1, LOG_ZERO, b.dtype).at[moves].max(moved))
            sums = jnp.zeros(none + 1, b.dtype).at[moves].add(jnp.exp(moved - top[moves]))
            return _log(sums, top)[:none], jnp.maximum(_sum(there, 0), LOG_ZERO)

        start = jnp.where(jnp.arange(none) == self.start, 0.0, LOG_ZERO).astype(b.dtype)
        return jax.lax.scan(step, start, (self._by_kind(b, _sum), ahead[1:], self.here))[1][:, self.kinds]

    def posterior(self, b: Float[Array, "N V"]) -> Float[Array, "N V"]:
        """`P(x_i = w | b, accepted) = -dE/db_iw`, `(N, V)`."""
        energy, slope = jax.value_and_grad(self.__call__)(b)
        self._some(-energy, b)
        return -slope

    def sample(self, b: Float[Array, "N V"], *, key: Key) -> Int[Array, " N"]:
        """An accepted string drawn from `exp(sum_i b_i(x_i))`, exactly."""
        keys = jax.random.split(key, b.shape[0])
        return self._forward(b, self._backward(b, _sum), lambda n, row: jax.random.categorical(keys[n], row))

    def best(self, b: Float[Array, "N V"]) -> Int[Array, " N"]:
        """The accepted string of highest `sum_i b_i(x_i)`."""
        return self._forward(b, self._backward(b, jnp.max), lambda n, row: jnp.argmax(row))

    def support(self, allowed: Bool[Array, "N V"]) -> Bool[Array, "N V"]:
        """Which tokens some accepted string of allowed tokens has at each place; none at all if there is no such
        string."""
        backward = self._backward(jnp.where(allowed, 0.0, LOG_ZERO), jnp.max) > LOG_ZERO / 2
        kinds = jnp.zeros((len(allowed), self.moves.shape[1]), bool).at[:, self.kinds].max(allowed)

        def step(here, now):
            row, after, read = now
            moves = self.table(read, by_kind=True)
            open = row & here[:, None] & padded(after, False)[moves]
            return jnp.zeros(here.shape[0] + 1, bool).at[moves].max(open)[:-1], jnp.any(open, axis=0)

        here = jnp.arange(self.accept.shape[0]) == self.start
        return jax.lax.scan(step, here, (kinds, backward[1:], self.here))[1][:, self.kinds] & allowed

    def _backward(self, b, reduce):
        """`beta (N + 1, Q)`: the backward messages, sums or maxima of the evidence after each state at each place."""
        if b.ndim != 2 or b.shape[1] != self.next.shape[1]:
            raise ValueError(f"`b` has shape {b.shape}; expected (N, {self.next.shape[1]}), one row a token.")
        if self.here is not None and self.here.shape != b.shape[:1]:
            raise ValueError(f"`b` is about {b.shape[0]} tokens, and `here` of the automaton about {self.here.shape}.")
        end = self.ends.astype(b.dtype)

        def step(after, now):
            row, read = now
            onward = padded(after, LOG_ZERO)[self.table(read, by_kind=True)]
            backward = jnp.maximum(reduce(row + onward, axis=-1), LOG_ZERO)
            return backward, backward

        rows = self._by_kind(b, reduce)
        return jnp.concatenate([jax.lax.scan(step, end, (rows, self.here), reverse=True)[1], end[None]])

    def _by_kind(self, b, reduce):
        """Sums or maxima of the evidence over the tokens of each kind `(N, K)`."""
        count = self.moves.shape[1]
        top = jnp.full((b.shape[0], count), LOG_ZERO, b.dtype).at[:, self.kinds].max(b)
        if reduce is jnp.max:
            return top
        top = jax.lax.stop_gradient(top)
        each = jax.nn.one_hot(self.kinds, count, dtype=b.dtype)
        return _log(jnp.matmul(jnp.exp(b - top[:, self.kinds]), each, precision="highest"), top)

    def _some(self, log_mass, b):
        """`ValueError` if it is known that nothing is accepted."""
        if concrete((log_mass, b)) and not np.asarray(log_mass) > LOG_ZERO / 2:
            raise ValueError(f"`b` is about {b.shape[0]} tokens, of which no string is accepted; change either.")

    def _forward(self, b, backward, choose):
        self._some(backward[0, self.start], b)

        def step(state, now):
            n, row, after, read = now
            next = self.table(read)[state]
            token = choose(n, row + padded(after, LOG_ZERO)[next])
            return next[token], token

        numbers = jnp.arange(b.shape[0])
        return jax.lax.scan(step, self.start, (numbers, b, backward[1:], self.here))[1]


def _sum(values, axis):
    return jax.nn.logsumexp(values, axis=axis)


def _log(sums, top):
    """`log(sums e^top)`, of nothing -1e30."""
    there = sums > 0
    return jnp.maximum(jnp.where(there, top + jnp.log(jnp.where(there, sums, 1.0)), LOG_ZERO), LOG_ZERO)


def rounded_up(count: int, base: int = 2) -> int:
    """The next power of a number, at least 8."""
    power = base
    while power < max(8, count):
        power *= base
    return power


def padded(values, last):
    """With a last row, for the state after a token that is not accepted."""
    return jnp.concatenate([values, jnp.full((1, *values.shape[1:]), last, values.dtype)])


def chosen(scores: Float[Array, "L V"], dfa: DFA | None, key: Key | None) -> Int[Array, " L"]:
    """A token for every place, independently from `softmax(scores)`, without a `key` that of the highest score; with a
    `dfa`, conditional on being accepted."""
    if dfa is None:
        return jnp.argmax(scores, axis=-1) if key is None else jax.random.categorical(key, scores, axis=-1)
    log_p = jax.nn.log_softmax(scores, axis=-1)
    return dfa.best(log_p) if key is None else dfa.sample(log_p, key=key)
