"""Tokens that belong together: the vocabulary as a hidden Markov model, against enumeration."""

import itertools
from typing import Any

import equinox as eqx
import families
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import energy_dllm as ed


V, L, D, K = 3, 4, 6, 5
TEXTS = np.array(list(itertools.product(range(V), repeat=L)))


def make(key, **shape):
    """A vocabulary with loud patterns and uneven tables."""
    k1, k2, k3 = jax.random.split(key, 3)
    vocabulary = ed.energy.MarkovVocabulary(V, D, **{"states": K, **shape}, key=k1)
    tables = (jax.random.normal(k2, vocabulary.start.shape), 2 * vocabulary.moves, 1.5 * vocabulary.tokens)
    return eqx.tree_at(
        lambda v: (v.patterns, v.start, v.moves, v.tokens), vocabulary, (jax.random.normal(k3, (V, D)), *tables)
    )


def enumerated(vocabulary, scores):
    """`P(w) exp(sum_i s_i(w_i))` of every text, in the order of `TEXTS`."""
    pi, move, token = vocabulary.tables()
    weights = []
    for text in TEXTS:
        ahead = pi * token[:, text[0]]
        for w in text[1:]:
            ahead = (ahead @ move) * token[:, w]
        weights.append(ahead.sum() * jnp.exp(scores[np.arange(L), text].sum()))
    return jnp.stack(weights)


def marginals(law):
    return jnp.stack([jnp.bincount(TEXTS[:, i], weights=law, length=V) for i in range(L)])


def energy_of(key, vocabulary):
    """A landscape around a vocabulary."""
    energy, _ = families.make_energy(key, dim=D, size=V)
    return ed.energy.FreeEnergy(energy.network, vocabulary, kappa=2.0)


def test_the_posterior_of_every_token_is_exact(getkey):
    vocabulary = make(getkey())
    y, b = jax.random.normal(getkey(), (L, D)), jax.random.normal(getkey(), (L, V))
    said = vocabulary.heard(y)
    weights, prior = enumerated(vocabulary, said + b), enumerated(vocabulary, 0 * b)
    p, pi = marginals(weights / weights.sum()), marginals(prior)
    energy = lambda y, b: vocabulary.per_token(y, b).sum()
    assert jnp.allclose(energy(y, b), jnp.sum(pi * said) - jnp.log(weights.sum()), atol=1e-12)
    assert jnp.allclose(vocabulary.posterior(y, b), p, atol=1e-12)
    assert jnp.allclose(-jax.grad(energy, 1)(y, b), p, atol=1e-12)
    assert jnp.allclose(-jax.grad(energy, 0)(y, b), (p - pi) @ vocabulary.patterns, atol=1e-12)
    assert jnp.allclose(vocabulary.voice(y, b), (p - pi) @ vocabulary.patterns, atol=1e-12)
    assert jnp.allclose(vocabulary.voice(0 * y, 0 * b), 0.0, atol=1e-12) and jnp.abs(p - pi).max() > 0.05


def test_what_is_expected_of_a_token_does_not_depend_on_what_is_known_of_it(getkey):
    vocabulary = make(getkey())
    y, b = jax.random.normal(getkey(), (L, D)), jax.random.normal(getkey(), (L, V))
    slope = jax.jacobian(lambda b: vocabulary.expected(y, b))(b)  # (L, V, L, V)
    own = jnp.stack([slope[i, :, i] for i in range(L)])
    assert jnp.abs(own).max() < 1e-12 < 1e-2 < jnp.abs(slope).max()


def test_a_known_token_says_its_pattern_and_its_company_hears_of_it(getkey):
    vocabulary = make(getkey())
    y, known = jax.random.normal(getkey(), (L, D)), jnp.array([False, True, False, True])
    b = ed.flow.Given(jnp.array([0, 2, 1, 0]), known).field(vocabulary.codes)
    pi = marginals(enumerated(vocabulary, jnp.zeros((L, V))))
    voice = vocabulary.voice(y, b)
    own = vocabulary.patterns[jnp.array([2, 0])] - pi[known] @ vocabulary.patterns
    assert jnp.allclose(voice[known], own, atol=1e-12)
    assert jnp.abs(voice[~known]).max(axis=-1).min() > 1e-4
    assert jnp.allclose(-jax.grad(lambda y: vocabulary.per_token(y, b).sum())(y), voice, atol=1e-12)
    # another state of the neurons at a known token is nobody's business but its own
    other = vocabulary.per_token(y.at[1].add(1.0), b)
    assert jnp.allclose(jnp.sum(other - vocabulary.per_token(y, b)), -jnp.sum(own[0]), atol=1e-9)


EVIDENCE = {
    "unknown": lambda key: jnp.zeros((L, V)),
    "known in part": lambda key: ed.flow.Given(jnp.arange(L) % V, jnp.arange(L) < 2).field(jnp.eye(V)),
    "soft": lambda key: 3.0 * jax.random.normal(key, (L, V)),
    "certain of the unlikely": lambda key: -20.0 * jax.nn.one_hot(jnp.zeros(L, int), V),
}


@pytest.mark.parametrize("evidence", EVIDENCE)
def test_the_lagrangian_is_convex_under_any_evidence(evidence, getkey):
    """The Hessian of `Λ_b` is that of the neurons and `kappa` times the covariance of what all tokens say."""
    energy, b = energy_of(getkey(), make(getkey())), EVIDENCE[evidence](getkey())
    y = jnp.array([0.0, 0.3, 3.0])[:, None, None] * jax.random.normal(getkey(), (3, L, D))
    hessians = jax.jit(jax.vmap(jax.jacfwd(lambda y: energy.activation(y, b))))(y).reshape(3, L * D, L * D)
    assert jnp.allclose(hessians, hessians.mT, atol=1e-10)
    assert jnp.linalg.eigvalsh(hessians).min() > -1e-10


@pytest.mark.parametrize("evidence", EVIDENCE)
def test_f_falls_under_any_evidence(evidence, getkey):
    energy, b = energy_of(getkey(), make(getkey())), EVIDENCE[evidence](getkey())

    @jax.jit
    def path(y):
        step = lambda y, _: (ed.flow.relax(energy, y, b, steps=1, step=0.02), energy(y, b))
        return jax.lax.scan(step, y, None, length=60)[1]

    f = path(2.0 * jax.random.normal(getkey(), (L, D)))
    assert jnp.all(jnp.diff(f) < 0) and f[0] - f[-1] > 0.5


def test_padding_is_not_there(getkey):
    vocabulary = make(getkey())
    y, b = jax.random.normal(getkey(), (L, D)), jax.random.normal(getkey(), (L, V))
    mask = jnp.arange(L) < 2
    for read in (vocabulary.per_token, vocabulary.voice):
        assert jnp.allclose(read(y, b, mask)[:2], read(y[:2], b[:2]), atol=1e-12)
        assert jnp.all(read(y, b, mask)[2:] == 0)


def test_the_surprise_of_a_text_is_its_likelihood(getkey):
    vocabulary = make(getkey())
    law = enumerated(vocabulary, jnp.zeros((L, V)))
    assert jnp.allclose(law.sum(), 1.0)
    for n in (0, 17, 80):
        ids = jnp.asarray(TEXTS[n])
        assert jnp.allclose(vocabulary.surprise(ids).sum(), -jnp.log(law[n]), atol=1e-10)
        b = ed.flow.Given(ids, jnp.ones(L, bool)).field(vocabulary.codes)
        assert jnp.allclose(vocabulary.per_token(jnp.zeros((L, D)), b), vocabulary.surprise(ids), atol=1e-10)


def test_tokens_are_drawn_together(getkey):
    vocabulary = make(getkey())
    y, b = 0.3 * jax.random.normal(getkey(), (L, D)), 0.3 * jax.random.normal(getkey(), (L, V))
    law = enumerated(vocabulary, vocabulary.heard(y) + b)
    draw = jax.jit(jax.vmap(lambda key: vocabulary.sample(y, b, key=key)))
    families.likely(np.asarray(draw(jax.random.split(getkey(), 20_000))), np.asarray(law / law.sum()))


@pytest.mark.parametrize("rounds", [1, 2, 4])
def test_passages_are_exact_in_any_number_of_rounds(rounds, getkey):
    """One draw of everything has the law that a token at a time has; independent draws would fail this."""
    energy = energy_of(getkey(), make(getkey()))
    energy = eqx.tree_at(lambda e: e.vocabulary.patterns, energy, jnp.zeros((V, D)))
    model = ed.EnergyDLLM(ed.data.Characters("abc"), energy=energy, key=getkey())
    law = np.asarray(enumerated(energy.vocabulary, jnp.zeros((L, V))))
    path = ed.flow.Unmasking(rounds=rounds, steps=1)
    written = ed.generate(model, length=L, samples=20_000, path=path)
    families.likely(np.asarray(written.ids), law)


def test_forces_follow_the_scalar(getkey):
    energy = energy_of(getkey(), make(getkey()))
    y, b = jax.random.normal(getkey(), (L, D)), jax.random.normal(getkey(), (L, V))
    g, way = energy.activation(y, b), jax.random.normal(getkey(), (L, D))
    scalar = lambda g: sum(t.sum() for t in energy.terms(y, b, g=g).values())
    slope = families.finite_difference(scalar, g, way)
    assert jnp.allclose(-jnp.vdot(energy.force(y, b), way), slope, rtol=1e-6, atol=1e-8)
    assert jnp.allclose(energy(y, b), scalar(g), atol=1e-12)
    held = lambda b: sum(t.sum() for t in energy.terms(y, b, g=g).values())
    assert jnp.allclose(-jax.grad(held)(b), energy.posterior(y, b), atol=1e-12)


def test_parameters_have_true_gradients(getkey):
    energy = energy_of(getkey(), make(getkey()))
    y, b = jax.random.normal(getkey(), (L, D)), jax.random.normal(getkey(), (L, V))
    parameters, static = eqx.partition(energy, eqx.is_inexact_array)
    weight = jax.random.normal(getkey(), y.shape)
    for read in (lambda e: e(y, b), lambda e: jnp.vdot(weight, e.force(y, b))):
        function = lambda p, read=read: read(eqx.combine(p, static))
        direction = families.random_like(parameters, getkey())
        slope = families.finite_difference(function, parameters, direction)
        assert jnp.allclose(families.dot(jax.grad(function)(parameters), direction), slope, rtol=1e-5, atol=1e-7)


def test_the_drop_of_f_is_what_is_dissipated(getkey):
    energy = energy_of(getkey(), make(getkey()))
    b = ed.flow.Given(jnp.array([0, 2, 1, 0]), jnp.array([True, False, True, False]))
    field = ed.flow.Relaxation(energy, b)
    times = jnp.linspace(0.0, 2.0, 129)
    probes = {"F": ed.probe.free_energy, "burnt": ed.probe.dissipation}
    path = ed.solve(field, jax.random.normal(getkey(), (L, D)), t0=0.0, t1=2.0, times=times[:-1], probes=probes)
    weights = jnp.ones(129).at[1:-1:2].set(4.0).at[2:-1:2].set(2.0) / 192
    drop = path.probes["F"][0] - path.probes["F"][-1]
    assert drop > 0.1 and jnp.abs(weights @ path.probes["burnt"] - drop) < 1e-3 * drop


def test_attribution_is_a_sum_here_too(getkey):
    energy = energy_of(getkey(), make(getkey()))
    b = ed.flow.Given(jnp.array([0, 2, 1, 0]), jnp.array([True, False, True, False]))
    why = ed.probe.attribution(0.0, jax.random.normal(getkey(), (L, D)), ed.flow.Relaxation(energy, b), token=1)
    assert jnp.allclose(why.total, why.log_odds, rtol=1e-9) and jnp.abs(why.parts["prior"]).max() > 0.1


def test_messages_survive_what_cannot_be(getkey):
    """Tables of ones and zeros, evidence against them, a long text: all stays finite, and sums to one."""
    vocabulary = eqx.tree_at(lambda v: (v.moves, v.tokens), make(getkey()), (300 * jnp.eye(K), 300 * jnp.eye(K, V)))
    vocabulary = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), vocabulary)
    ids = jnp.arange(500) % V
    b = ed.flow.Given(ids, jnp.ones(500, bool)).field(vocabulary.codes)
    y = jnp.ones((500, D), jnp.float32)
    slope = jax.grad(lambda y: vocabulary.per_token(y, b).sum())(y)
    assert jnp.all(jnp.isfinite(slope)) and jnp.all(jnp.isfinite(vocabulary.surprise(ids)))
    assert jnp.allclose(vocabulary.posterior(y, b).sum(-1), 1.0, atol=1e-5)


def test_it_learns_a_source_by_reading(getkey):
    """Text in which every third letter repeats the first: its entropy is log(2) / 3 nats, up to the cut."""
    rules = {"word": [("aXa".replace("X", x), 1, "word") for x in "bc"]}
    source = ed.data.Grammar(rules)
    corpus = ed.data.grammar_corpus(characters=20_000, grammar=source)
    model = ed.EnergyDLLM(corpus.tokenizer, dim=16, states=8, key=getkey())
    read = ed.fit(model, corpus, ed.learn.Surprise(), steps=150, length=24, batch_size=16, learning_rate=3e-2)
    text = jnp.asarray(ed.data.windows_of(corpus.validation, 24, count=64, seed=0))
    surprise = lambda model: jax.vmap(model.energy.vocabulary.surprise)(text).mean()
    assert surprise(model) > 0.9 and surprise(read) < 1.05 * source.window_entropy(24)
    # nothing else has moved
    before, after = (jax.tree.leaves(m.energy.network) for m in (model, read))  # pyright: ignore
    assert all(jnp.allclose(one, two, rtol=1e-12) for one, two in zip(before, after, strict=True))


def test_tables_are_no_matrices_of_the_optimizer(getkey):
    vocabulary: Any = ed.energy.MarkovVocabulary(20, 24, states=32, key=getkey())
    optimizer = ed.learn.default_optimizer(1e-2, steps=10, decay=0.5)
    state = optimizer.init(vocabulary)
    gradient = jax.tree.map(lambda leaf: jnp.zeros_like(leaf).at[0].set(1.0), vocabulary)
    _, state = optimizer.update(gradient, state, vocabulary)  # the first step is warming up
    change, _ = optimizer.update(gradient, state, vocabulary)
    after: Any = optax.apply_updates(vocabulary, change)
    # Adam leaves rows without a gradient where they are; Muon spreads, decay shrinks
    assert jnp.all(after.moves[1:] == vocabulary.moves[1:]) and jnp.all(after.moves[0] != vocabulary.moves[0])
    assert jnp.all(after.patterns[1:] != vocabulary.patterns[1:])


def test_frequent_tokens_have_more_states(getkey):
    vocabulary = ed.energy.MarkovVocabulary(3, 4, states=60, counts=np.array([1, 0, 25]), key=getkey())
    first = vocabulary.tables()[2].argmax(-1)
    assert jnp.bincount(first, length=3).tolist() == [10, 0, 50]


def test_sizes_must_be_positive(getkey):
    with pytest.raises(ValueError, match="`states` is 0"):
        ed.energy.MarkovVocabulary(3, 4, states=0, key=getkey())
    with pytest.raises(ValueError, match=r"`counts` has shape \(2,\)"):
        ed.energy.MarkovVocabulary(3, 4, states=2, counts=np.array([1, 2]), key=getkey())
    plain = ed.EnergyDLLM(ed.data.Characters("ab"), dim=8, states=0, key=getkey())
    assert isinstance(plain.energy.vocabulary, ed.energy.Vocabulary)
