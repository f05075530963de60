"""Split-merge EM: counts are exact, the cost of a merge is what is computed, long memory is found."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energy_dllm as ed
from energy_dllm.learn import _split_merge as split_merge


# A letter, a stretch without any news, the same letter again: two states too few and it cannot be carried.
ECHO = {
    "start": [("a", 1, "a"), ("b", 1, "b")],
    "a": [("xyxx", 1, "a end"), ("xyyxx", 1, "a end")],
    "b": [("xyxx", 1, "b end"), ("xyyxx", 1, "b end")],
    "a end": [("a.", 1, "start")],
    "b end": [("b.", 1, "start")],
}


def read(grammar, characters, seed=0):
    return grammar.tokenizer.encode(grammar.sample(characters, seed=seed))


def vocabulary(size, states):
    return ed.energy.HMMVocabulary(size, 8, states=states, key=jax.random.key(0))


def a_chain(key, tokens):
    """Random counts between states that stand for the given tokens."""
    moves = np.asarray(jax.random.uniform(key, (len(tokens), len(tokens)), minval=0.1))
    return split_merge._Chain(moves / moves.sum(), np.asarray(tokens))


def test_a_grown_chain_carries_a_letter_over_a_stretch_without_news(optimised):
    """Within 2 % of the exact entropy; one state a token, where nothing can be carried, is far from it."""
    grammar = ed.data.Grammar(ECHO)
    ids, held_out = read(grammar, 20_000), read(grammar, 32 * 200, seed=1).reshape(200, 32)
    found = {}
    for states in (len(grammar.alphabet), 24):
        grown = ed.learn.fit_split_merge(
            vocabulary(len(grammar.alphabet), states), ids, rounds=3, epochs=5.0, length=64
        )
        found[states] = float(jnp.mean(jax.jit(jax.vmap(grown.nll))(jnp.asarray(held_out))))
    exact = -np.mean([grammar.log_probability(window) for window in held_out]) / 32
    assert exact < found[24] < 1.02 * exact + 1e-3 and found[len(grammar.alphabet)] > 1.5 * exact


def test_expected_counts_are_the_slope_of_the_likelihood(getkey):
    """`d log P / d log T`, which is how often a move is expected; they add up to the moves that there are."""
    pairs = np.stack(np.nonzero(np.ones((3, 3), bool)))
    alive = np.arange(4) < np.array([4, 2, 3])[:, None]
    counts = jax.random.uniform(getkey(), (9, 4, 4)) * alive[pairs[0]][:, :, None] * alive[pairs[1]][:, None, :]
    x = np.asarray(jax.random.randint(getkey(), (5, 7), 0, 3))
    first, then = x[:, 0], 3 * x[:, :-1] + x[:, 1:]

    @jax.jit
    def read(counts):
        start, moves = split_merge._laws(counts, pairs, alive)
        slope = jax.grad(lambda moves: split_merge._expected_counts(start, moves, first, then)[0])(moves)
        return start, moves, *split_merge._expected_counts(start, moves, first, then), slope

    start, moves, value, expected, slope = (np.asarray(part) for part in read(counts))
    assert np.allclose(expected, slope * moves, atol=1e-12) and np.isclose(expected.sum(), 5 * 6)
    # and the likelihood is that of the chain with these tables
    states = [(token, place) for token in range(3) for place in range(int(alive[token].sum()))]
    table = np.array([[moves[3 * a + b, i, j] for b, j in states] for a, i in states])
    likelihood = 0.0
    for row in x:
        here = np.array([start[token, place] * (token == row[0]) for token, place in states])
        for token in row[1:]:
            here = here @ table * np.array([state[0] == token for state in states])
        likelihood += np.log(here.sum())
    assert np.isclose(value, likelihood, atol=1e-10)


def test_a_batch_that_is_everything_raises_the_likelihood(getkey):
    """Expectation-maximisation: with `fade` 1 and the whole text in every batch no step loses more than the floor."""
    x = np.asarray(jax.random.randint(getkey(), (6, 20), 0, 2)).cumsum(1) % 3
    pairs = np.stack(np.nonzero(np.ones((3, 3), bool)))
    alive = np.ones((3, 3), bool)
    first, then = x[:, 0], 3 * x[:, :-1] + x[:, 1:]

    @jax.jit
    def step(counts, _):
        likelihood = split_merge._expected_counts(*split_merge._laws(counts, pairs, alive), first, then)[0]
        return split_merge._update(counts, pairs, alive, first, then, 1.0), likelihood

    found = np.asarray(jax.lax.scan(step, jax.random.uniform(getkey(), (9, 3, 3)), None, length=20)[1])
    # the law of the first token is how often a state is met, no parameter of its own
    assert np.all(np.diff(found) > -0.05) and found[-1] - found[0] > 3.0


def test_the_cost_of_a_merge_is_the_likelihood_it_loses(getkey):
    """Of a text whose states are seen: `sum T log T/T_z` before and after, and what choosing the state had cost."""
    chain = a_chain(getkey(), [0, 0, 1, 1, 1])
    log = lambda x: np.log(np.maximum(x, 1e-300))
    likelihood = lambda moves: np.sum(moves * log(moves / moves.sum(1, keepdims=True)))
    cost = split_merge._costs(chain.moves, chain.tokens)
    merged = split_merge._merge(chain, 4)
    first, second = np.unravel_index(np.argmin(cost), cost.shape)
    moves = chain.moves.copy()
    moves[first] += moves[second]
    moves = np.delete(moves, second, 0)
    # rows are one, columns still two: what is not known any more of what follows
    lost = likelihood(chain.moves) - likelihood(moves)
    columns = chain.moves[:, [first, second]]
    share = columns / columns.sum(1, keepdims=True)
    saved = -np.sum(columns * log(share))
    assert np.isclose(cost[first, second], lost - saved)
    assert len(merged.tokens) == 4 and np.isclose(merged.moves.sum(), 1.0)


def test_states_that_are_alike_merge_first_and_lose_nothing(getkey):
    tokens = np.array([0, 1, 1, 2])
    moves = np.roll(np.eye(4), 1, axis=1) + 0.02 * np.asarray(jax.random.uniform(getkey(), (4, 4)))
    chain = split_merge._Chain(moves / moves.sum(), tokens)
    twice = split_merge._Chain(np.kron(chain.moves, np.full((2, 2), 0.25)), np.repeat(chain.tokens, 2))
    once = split_merge._merge(twice, 4)
    assert np.array_equal(np.sort(once.tokens), chain.tokens) and np.allclose(once.moves, chain.moves)


def test_halves_pass_on_which_half_they_are(getkey):
    """Both together move as the whole did; each is followed by its like with probability `stickiness`, on average."""
    chain = a_chain(getkey(), list(range(30)))
    halves = split_merge._split(chain, 0.9, np.random.default_rng(0)).moves.reshape(30, 2, 30, 2)
    assert np.isclose(halves.sum(), 2.0, rtol=0.05)
    assert np.isclose(np.trace(halves.sum((0, 2))) / halves.sum(), 0.9, atol=0.02)


def test_the_rest_of_the_vocabulary_stays(getkey):
    before = vocabulary(3, 5)
    ids = np.asarray(jax.random.randint(getkey(), (300,), 0, 3))
    after = ed.learn.fit_split_merge(before, ids, length=32)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    assert [leaf.shape for leaf in jax.tree.leaves(before)] == [leaf.shape for leaf in jax.tree.leaves(after)]
    assert jnp.array_equal(before.patterns, after.patterns) and jnp.array_equal(before.codes, after.codes)
    again = ed.learn.fit_split_merge(before, ids, length=32)
    other = ed.learn.fit_split_merge(before, ids, length=32, seed=1)
    assert eqx.tree_equal(after, again) and not jnp.array_equal(after.transition, other.transition)


def test_a_token_that_is_never_seen_is_not_impossible(getkey):
    ids = np.asarray(jax.random.randint(getkey(), (300,), 0, 2))
    grown = ed.learn.fit_split_merge(vocabulary(3, 6), ids, length=32)
    assert jnp.all(jnp.isfinite(grown.nll(jnp.array([0, 2, 1, 2, 2]))))


@pytest.mark.parametrize(
    ("words", "states", "settings"),
    [
        ("`vocabulary` has 2 states for 3 tokens", 2, {}),
        (r"`ids` has shape \(300,\).* more than `length` 300", 5, {"length": 300}),
        ("`ids` lie in 0..3", 5, {"ids": np.arange(300) % 4}),
        (r"`ids` has shape \(30, 10\)", 5, {"ids": np.zeros((30, 10), int)}),
        ("`ids` has .* dtype float64", 5, {"ids": np.zeros(300)}),
        ("`rounds` is 0", 5, {"rounds": 0}),
        ("`length` is 1", 5, {"length": 1}),
        ("`batch_size` is -1", 5, {"batch_size": -1}),
        ("`epochs` is 0", 5, {"epochs": 0}),
        ("`stickiness` is 1.0", 5, {"stickiness": 1.0}),
    ],
)
def test_bad_settings(unchecked, words, states, settings):
    ids = settings.pop("ids", np.arange(300) % 3)
    with pytest.raises(ValueError, match=words):
        ed.learn.fit_split_merge(vocabulary(3, states), ids, **settings)


def test_what_was_grown_is_kept(tmp_path, monkeypatch):
    """The same growing again counts nothing and is the same bit by bit; another is refused and loses nothing."""
    ids, settings = np.tile([0, 1, 1, 2], 40), {"epochs": 1.0, "length": 20, "directory": tmp_path / "run"}
    grown = ed.learn.fit_split_merge(vocabulary(3, 4), ids, **settings)
    with pytest.raises(ValueError, match="holds another growing: its epochs is 1.0, now 2.0"):
        ed.learn.fit_split_merge(vocabulary(3, 4), ids, **{**settings, "epochs": 2.0})
    with pytest.raises(ValueError, match="holds another growing: its ids is"):
        ed.learn.fit_split_merge(vocabulary(3, 4), ids[::-1], **settings)
    with pytest.raises(ValueError, match="holds another growing: its vocabulary is"):
        ed.learn.fit_split_merge(eqx.tree_at(lambda v: v.patterns, grown, grown.patterns + 1.0), ids, **settings)
    monkeypatch.setattr(split_merge, "_count", None)
    assert bool(eqx.tree_equal(ed.learn.fit_split_merge(vocabulary(3, 4), ids, **settings), grown))
