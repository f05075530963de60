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
from energy_dllm.energy._markov import _messages


V, L, D, K = 3, 4, 6, 5
TEXTS = np.array(list(itertools.product(range(V), repeat=L)))


@eqx.filter_jit
def make(key, **shape):
    """A vocabulary with loud patterns and uneven tables."""
    k1, k2, k3 = jax.random.split(key, 3)
    vocabulary = ed.energy.HMMVocabulary(V, D, **{"states": K, **shape}, key=k1)
    tables = (jax.random.normal(k2, vocabulary.initial.shape), 2 * vocabulary.transition, 1.5 * vocabulary.emission)
    return eqx.tree_at(
        lambda v: (v.patterns, v.initial, v.transition, v.emission),
        vocabulary,
        (jax.random.normal(k3, (V, D)), *tables),
    )


tables = eqx.filter_jit(lambda vocabulary: vocabulary.tables())


def enumerated(vocabulary, scores):
    """`P(w) exp(sum_i s_i(w_i))` of every text, in the order of `TEXTS`."""
    pi, move, token = map(np.asarray, tables(vocabulary))
    weights = []
    for text in TEXTS:
        ahead = pi * token[:, text[0]]
        for w in text[1:]:
            ahead = (ahead @ move) * token[:, w]
        weights.append(ahead.sum() * np.exp(scores[np.arange(L), text].sum()))
    return np.stack(weights)


def marginals(law):
    return np.stack([np.bincount(TEXTS[:, i], weights=law, minlength=V) for i in range(L)])


@eqx.filter_jit
def energy_of(key, vocabulary, synapses=("pairwise", "attention", "mapping")):
    """A landscape around a vocabulary."""
    energy, _ = families.make_energy(key, dim=D, size=V, synapses=synapses)
    return ed.energy.FreeEnergy(energy.network, vocabulary, kappa=2.0)


def given(ids, known):
    """Some tokens of a text are known, and no others."""
    field = np.where(np.eye(V, dtype=bool)[ids] | ~np.asarray(known)[:, None], 0.0, ed.flow.FORBIDDEN)
    return jnp.asarray(field)


@eqx.filter_jit
def read(vocabulary, y, b) -> dict[str, Any]:
    """All outputs of a vocabulary, and the slopes of its energy; one program for every test."""
    energy = lambda y, b: vocabulary.per_token(y, b).sum()
    slope = jax.grad(energy, (0, 1))(y, b)
    said = dict(
        unary_logits=vocabulary.unary_logits(y), posterior=vocabulary.posterior(y, b), message=vocabulary.message(y, b)
    )
    return dict(terms=vocabulary.per_token(y, b), slope_y=slope[0], slope_b=slope[1], **said)


def seen(vocabulary, y, b):
    """The same on the host, where it is compared."""
    return {name: np.asarray(value) for name, value in read(vocabulary, jnp.asarray(y), jnp.asarray(b)).items()}


def test_the_posterior_of_every_token_is_exact(getkey):
    vocabulary = make(getkey())
    y, b = np.asarray(getkey.normal((L, D))), np.asarray(getkey.normal((L, V)))
    m, patterns = seen(vocabulary, y, b), np.asarray(vocabulary.patterns)
    weights, prior = enumerated(vocabulary, m["unary_logits"] + b), enumerated(vocabulary, 0 * b)
    p, pi = marginals(weights / weights.sum()), marginals(prior)
    assert np.allclose(m["terms"].sum(), np.sum(pi * m["unary_logits"]) - np.log(weights.sum()), atol=1e-12)
    assert np.allclose(m["posterior"], p, atol=1e-12)
    assert np.allclose(-m["slope_b"], p, atol=1e-12)
    assert np.allclose(-m["slope_y"], (p - pi) @ patterns, atol=1e-12)
    assert np.allclose(m["message"], (p - pi) @ patterns, atol=1e-12)
    silent = seen(vocabulary, 0 * y, 0 * b)["message"]
    assert np.allclose(silent, 0.0, atol=1e-12) and np.abs(p - pi).max() > 0.05


def test_what_is_expected_of_a_token_does_not_depend_on_what_is_known_of_it(getkey):
    vocabulary = make(getkey())
    y, b = getkey.normal((L, D)), getkey.normal((L, V))
    slope = np.asarray(jax.jit(jax.jacobian(lambda b: vocabulary.cavity_logits(y, b)))(b))  # (L, V, L, V)
    own = np.stack([slope[i, :, i] for i in range(L)])
    assert np.abs(own).max() < 1e-12 < 1e-2 < np.abs(slope).max()


def test_a_known_token_says_its_pattern_and_its_company_hears_of_it(getkey):
    vocabulary = make(getkey())
    y, known = np.asarray(getkey.normal((L, D))), np.array([False, True, False, True])
    b = ed.flow.Given(jnp.array([0, 2, 1, 0]), jnp.asarray(known)).field(vocabulary.codes)
    pi = marginals(enumerated(vocabulary, np.zeros((L, V))))
    patterns, m = np.asarray(vocabulary.patterns), seen(vocabulary, y, b)
    message = m["message"]
    own = patterns[[2, 0]] - pi[known] @ patterns
    assert np.allclose(message[known], own, atol=1e-12)
    assert np.abs(message[~known]).max(axis=-1).min() > 1e-4
    assert np.allclose(-m["slope_y"], message, atol=1e-12)
    # another state of the neurons at a known token is nobody's business but its own
    other = seen(vocabulary, y + (np.arange(L) == 1)[:, None], b)["terms"]
    assert np.allclose(np.sum(other - m["terms"]), -np.sum(own[0]), atol=1e-9)


EVIDENCE = {
    "unknown": lambda getkey: np.zeros((L, V)),
    "known in part": lambda getkey: given(np.arange(L) % V, np.arange(L) < 2),
    "soft": lambda getkey: 3.0 * np.asarray(getkey.normal((L, V))),
    "certain of the unlikely": lambda getkey: -20.0 * np.eye(V)[np.zeros(L, int)],
}


@eqx.filter_jit
def hessian(energy, y, b):
    return jax.jacfwd(lambda y: energy.activation(y, b))(y).reshape(L * D, L * D)


@pytest.mark.parametrize("evidence", EVIDENCE)
def test_the_lagrangian_is_convex_under_any_evidence(evidence, getkey):
    """The Hessian of `Λ_b` is that of the neurons and `kappa` times the covariance of the messages of all tokens."""
    energy, b = energy_of(getkey(), make(getkey())), jnp.asarray(EVIDENCE[evidence](getkey))
    y = np.array([0.0, 0.3, 3.0])[:, None, None] * getkey.normal((3, L, D))
    hessians = np.stack([hessian(energy, jnp.asarray(one), b) for one in y])
    assert np.allclose(hessians, hessians.mT, atol=1e-10)
    assert np.linalg.eigvalsh(hessians).min() > -1e-10


@eqx.filter_jit
def descent(energy, y, b):
    """`F` along sixty small steps down."""
    step = lambda y, _: (ed.flow.relax(energy, y, b, steps=1, step=0.02), energy(y, b))
    return jax.lax.scan(step, y, None, length=60)[1]


@pytest.mark.parametrize("evidence", EVIDENCE)
def test_f_falls_under_any_evidence(evidence, getkey):
    energy, b = energy_of(getkey(), make(getkey())), jnp.asarray(EVIDENCE[evidence](getkey))
    f = np.asarray(descent(energy, jnp.asarray(2.0 * np.asarray(getkey.normal((L, D)))), b))
    assert np.all(np.diff(f) < 0) and f[0] - f[-1] > 0.5


def test_padding_is_not_there(getkey):
    vocabulary = make(getkey())
    y, b = getkey.normal((L, D)), getkey.normal((L, V))
    both = eqx.filter_jit(lambda v, y, b, mask=None: (v.per_token(y, b, mask), v.message(y, b, mask)))
    padded = both(vocabulary, y, b, jnp.asarray(np.arange(L) < 2))
    short = both(vocabulary, *(jnp.asarray(np.asarray(part)[:2]) for part in (y, b)))
    for long, alone in zip(map(np.asarray, padded), short, strict=True):
        assert np.allclose(long[:2], alone, atol=1e-12)
        assert np.all(long[2:] == 0)


def test_the_surprise_of_a_text_is_its_likelihood(getkey):
    vocabulary = make(getkey())
    law = enumerated(vocabulary, np.zeros((L, V)))
    assert np.allclose(law.sum(), 1.0)

    @jax.jit
    def both(ids):
        b = ed.flow.Given(ids, jnp.ones(L, bool)).field(vocabulary.codes)
        return vocabulary.nll(ids), vocabulary.per_token(jnp.zeros((L, D)), b)

    for n in (0, 17, 80):
        nll, terms = map(np.asarray, both(jnp.asarray(TEXTS[n])))
        assert np.allclose(nll.sum(), -np.log(law[n]), atol=1e-10)
        assert np.allclose(terms, nll, atol=1e-10)


def test_tokens_are_drawn_together(getkey):
    vocabulary = make(getkey())
    y, b = (jnp.asarray(0.3 * np.asarray(getkey.normal((L, width)))) for width in (D, V))

    @jax.jit
    def draw(key):
        ids = jax.vmap(lambda key: vocabulary.sample(y, b, key=key))(jax.random.split(key, 20_000))
        return ids, vocabulary.unary_logits(y) + b

    ids, scores = map(np.asarray, draw(getkey()))
    law = enumerated(vocabulary, scores)
    families.likely(ids, law / law.sum())


WITHOUT, WITH = 0.02, 0.5
"""Weights of texts without a `c` and with one."""


@pytest.fixture(scope="module", params=[True, False], ids=["all places", "all but one"])
def language(request):
    """At most one `c`, at all places or all but the second; how likely the rest of a passage is accepted; and the
    weight of every text."""
    made = ed.energy.DFA.of(ed.data.RegexDFA.of("[ab]*c?[ab]*", ed.data.Characters("abc")))
    here = np.arange(L) != 1 if not request.param else np.ones(L, bool)
    count = (TEXTS[:, here] == 2).sum(1)
    made = made.begins(np.log([WITHOUT, WITH]))
    made = made if request.param else made.within(jnp.asarray(here))
    return made, np.select([count == 0, count == 1], [WITHOUT, WITH], 0.0)


def test_a_language_is_drawn_together(language, getkey):
    """Of the passages that it accepts, by the law of the chain: independent draws would fail this."""
    vocabulary, (dfa, accepted) = make(getkey()), language
    y, b = (jnp.asarray(0.3 * np.asarray(getkey.normal((L, width)))) for width in (D, V))

    @jax.jit
    def draw(key):
        one = lambda key: vocabulary.sample(y, b, dfa=dfa, key=key)
        return jax.vmap(one)(jax.random.split(key, 20_000)), vocabulary.unary_logits(y) + b

    ids, scores = map(np.asarray, draw(getkey()))
    law = accepted * enumerated(vocabulary, scores)
    families.likely(ids, law / law.sum())


def test_the_most_likely_passage_is_that_of_its_states(language, getkey):
    """Of all paths of states and tokens, and of those that an automaton accepts: the likeliest of each place by itself
    is another one."""
    vocabulary, (dfa, accepted) = make(getkey()), language
    tables = [np.log(np.asarray(table)) for table in vocabulary.tables()]
    with np.errstate(divide="ignore"):
        fits = np.log(accepted)
    paths = np.array(list(itertools.product(range(len(tables[0])), repeat=L)))
    likeliest = lambda y, b, dfa: vocabulary.sample(y, b, dfa=dfa, key=None)
    best = jax.jit(lambda y, b: (likeliest(y, b, None), likeliest(y, b, dfa), vocabulary.logits(y, b)))
    apart = 0
    for _ in range(12):
        y, b = (jnp.asarray(1.5 * np.asarray(getkey.normal((L, width)))) for width in (D, V))
        scores = np.asarray(vocabulary.unary_logits(y) + b)
        of_states = tables[0][paths[:, 0]] + tables[1][paths[:, :-1], paths[:, 1:]].sum(1)
        of_tokens = tables[2][paths[:, None], TEXTS[None]] + scores[np.arange(L), TEXTS][None]
        most = (of_states[:, None] + of_tokens.sum(-1)).max(0)
        free, bound, logits = best(y, b)
        assert (TEXTS[most.argmax()] == free).all()
        assert (TEXTS[(most + fits).argmax()] == bound).all()
        apart += not (logits.argmax(-1) == free).all()
    assert apart


def test_temperature_zero_writes_what_is_most_likely():
    """At least as likely as any temperature above, 20 seeds; in two rounds, where most is drawn at once. Of a hidden
    Markov model with tables far from uniform, and no neurons beside it."""
    model = ed.EnergyDLLM(ed.data.Characters("abcd "), dim=16, depth=1, states=12, key=jax.random.key(1))
    model = eqx.tree_at(
        lambda m: m.energy.network.synapses, model, replace_fn=lambda s: jax.tree.map(jnp.zeros_like, s)
    )
    tables = lambda m: [m.energy.vocabulary.initial, m.energy.vocabulary.transition, m.energy.vocabulary.emission]
    model = eqx.tree_at(tables, model, replace_fn=lambda table: 6.0 * table)
    price = {}
    for temperature in (0.0, 1e-46, 0.1, 0.7, 1.0):
        sampler = ed.sampling.Unmasking(rounds=2, steps=2, temperature=temperature)
        made = ed.generate(model, length=24, samples=20, sampler=sampler, frames=1)
        price[temperature] = np.asarray(jax.vmap(model.energy.vocabulary.nll)(jnp.asarray(made.ids)).sum(-1))
    assert price[0.0].max() <= min(each.min() for each in price.values()) + 1e-3
    assert np.allclose(price[1e-46], price[0.0])


@pytest.mark.parametrize("length", [1, 2, 7, 40])
def test_an_associative_scan_has_the_messages_of_the_chain(length, monkeypatch, getkey):
    """As accelerators compute them, with a known token and one that is next to impossible; the slope too."""
    arrays = tables(make(getkey()))
    scores = 4 * jax.random.normal(getkey(), (length, V)) + jnp.where(jnp.arange(V) == 1, 0.0, -300.0) * (
        jnp.arange(length)[:, None] % 3 == 1
    )
    unit = lambda rows: rows / rows.sum(axis=-1, keepdims=True)

    def found():
        plain: Any = _messages
        messages = jax.jit(lambda *given: plain.__wrapped__(*given))  # traced anew
        forward, backward, prior, norm = messages(*arrays, scores)
        slope = jax.grad(lambda s: messages(*arrays, s)[3].sum())(scores)
        return forward, unit(backward), prior, norm, slope

    one = found()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for chain, scan in zip(one, found(), strict=True):
        np.testing.assert_allclose(scan, chain, rtol=1e-9, atol=1e-12)


def test_what_is_next_to_impossible_is_drawn_where_nothing_else_is_left(getkey):
    """In single precision: another beginning, which is ruled out, would have been e^1800 times as likely."""
    vocabulary = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), make(getkey()))
    text = "b" + 30 * "ca"
    dfa = ed.energy.DFA.of(ed.data.RegexDFA.of(f"a[abc]*|{text}", ed.data.Characters("abc")))
    scores = np.zeros((len(text), V), np.float32)
    scores[0, 0] = -1e30
    scores[1:] = -30.0 * np.eye(V)[np.array([2, 0] * 30)]
    y = jnp.zeros((len(text), D), jnp.float32)
    ids = jax.jit(lambda key: vocabulary.sample(y, jnp.asarray(scores), dfa=dfa, key=key))(getkey())
    assert ed.data.Characters("abc").decode(np.asarray(ids)) == text


@pytest.mark.parametrize(("rounds", "pattern"), [(1, None), (2, None), (4, None), (2, "[ab]*c?[ab]*")])
def test_passages_are_exact_in_any_number_of_rounds(rounds, pattern, getkey):
    """One draw of everything has the law that a token at a time has; independent draws would fail this."""
    # independent of the neurons: one synapse is enough
    energy = energy_of(getkey(), make(getkey()), ("pairwise",))
    energy = eqx.tree_at(lambda e: e.vocabulary.patterns, energy, jnp.asarray(np.zeros((V, D))))
    model = ed.EnergyDLLM(ed.data.Characters("abc"), energy=energy, key=getkey())
    law = enumerated(energy.vocabulary, np.zeros((L, V)))
    evidence = None
    if pattern is not None:
        evidence = ed.flow.Matching(pattern, model.tokenizer, length=L)
        law = np.where([evidence.automaton(text) for text in TEXTS], law, 0.0)
    path = ed.sampling.Unmasking(rounds=rounds, steps=1)
    written = ed.generate(model, length=L, samples=20_000, sampler=path, evidence=evidence)
    families.likely(np.asarray(written.ids), law / law.sum())


def test_forces_follow_the_scalar(getkey):
    energy = energy_of(getkey(), make(getkey()))
    y, b = getkey.normal((L, D)), getkey.normal((L, V))
    way = getkey.normal((L, D))
    at_rest = jax.jit(lambda y, b: (energy.activation(y, b), energy.force(y, b), energy(y, b), energy.posterior(y, b)))
    g, force, total, posterior = at_rest(y, b)
    scalar = lambda g, b: sum(t.sum() for t in energy.terms(y, b, g=g).values())
    scalar_and_slope = jax.jit(jax.value_and_grad(scalar, argnums=1))  # `g` is held
    slope = families.finite_difference(lambda g: scalar_and_slope(g, b)[0], g, way)
    assert np.allclose(-np.vdot(force, way), slope, rtol=1e-6, atol=1e-8)
    held, slope_b = map(np.asarray, scalar_and_slope(g, b))
    assert np.allclose(total, held, atol=1e-12)
    assert np.allclose(-slope_b, posterior, atol=1e-12)


def test_parameters_have_true_gradients(getkey):
    energy = energy_of(getkey(), make(getkey()))
    y, b = getkey.normal((L, D)), getkey.normal((L, V))
    parameters, static = eqx.partition(energy, eqx.is_inexact_array)
    weight = getkey.normal(y.shape)

    def scalars(parameters):
        """`F`, and the force along some direction."""
        energy = eqx.combine(parameters, static)
        return jnp.stack([energy(y, b), jnp.vdot(weight, energy.force(y, b))])

    values_and_slopes = jax.jit(lambda p: (scalars(p), jax.jacrev(scalars)(p)))
    slopes = jax.tree.map(np.asarray, values_and_slopes(parameters)[1])
    for n in range(2):
        direction = families.random_like(parameters, getkey())
        slope = families.finite_difference(lambda p, n=n: np.asarray(values_and_slopes(p)[0])[n], parameters, direction)
        own = jax.tree.map(lambda leaf, n=n: leaf[n], slopes)
        assert np.allclose(families.dot(own, direction), slope, rtol=1e-5, atol=1e-7)


def test_the_drop_of_f_is_what_is_dissipated(getkey):
    energy = energy_of(getkey(), make(getkey()))
    b = ed.flow.Given(jnp.array([0, 2, 1, 0]), jnp.array([True, False, True, False]))
    field = ed.flow.Relaxation(energy, b)
    times = np.linspace(0.0, 2.0, 129)
    probes = {"F": ed.probe.free_energy, "burnt": ed.probe.dissipation}
    path = ed.solve(field, getkey.normal((L, D)), t0=0.0, t1=2.0, times=jnp.asarray(times[:-1]), probes=probes)
    f, burnt = np.asarray(path.probes["F"]), np.asarray(path.probes["burnt"])
    weights = np.ones(129)  # Simpson's rule
    weights[1:-1:2], weights[2:-1:2] = 4.0, 2.0
    drop = f[0] - f[-1]
    assert drop > 0.1 and np.abs(weights @ burnt / 192 - drop) < 1e-3 * drop


def test_attribution_is_a_sum_here_too(getkey):
    energy = energy_of(getkey(), make(getkey()))
    b = ed.flow.Given(jnp.array([0, 2, 1, 0]), jnp.array([True, False, True, False]))
    why = ed.probe.attribution(0.0, getkey.normal((L, D)), ed.flow.Relaxation(energy, b), token=1)
    assert np.allclose(why.total, why.log_odds, rtol=1e-9) and np.abs(why.parts["prior"]).max() > 0.1


def test_messages_survive_what_cannot_be(getkey):
    """Tables of ones and zeros, evidence against them, a long text: all stays finite, and sums to one."""
    vocabulary = eqx.tree_at(
        lambda v: (v.transition, v.emission), make(getkey()), (300 * np.eye(K), 300 * np.eye(K, V))
    )
    vocabulary = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float32), vocabulary)

    @jax.jit
    def read(ids, y):
        b = ed.flow.Given(ids, jnp.ones(500, bool)).field(vocabulary.codes)
        slope = jax.grad(lambda y: vocabulary.per_token(y, b).sum())(y)
        return slope, vocabulary.nll(ids), vocabulary.posterior(y, b)

    y = jnp.asarray(np.ones((500, D), np.float32))
    slope, nll, posterior = map(np.asarray, read(jnp.asarray(np.arange(500) % V), y))
    assert np.all(np.isfinite(slope)) and np.all(np.isfinite(nll))
    assert np.allclose(posterior.sum(-1), 1.0, atol=1e-5)


def test_it_learns_a_source_by_reading(getkey):
    """Text in which every third letter repeats the first: its entropy is log(2) / 3 nats, up to the cut."""
    rules = {"word": [("aXa".replace("X", x), 1, "word") for x in "bc"]}
    source = ed.data.Grammar(rules)
    corpus = ed.data.grammar_corpus(characters=20_000, grammar=source)
    model = eqx.filter_jit(ed.EnergyDLLM)(corpus.tokenizer, dim=16, depth=1, states=8, key=getkey())
    read = ed.fit(model, corpus, ed.learn.MaximumLikelihood(), steps=150, length=24, batch_size=16, learning_rate=3e-2)
    text = jnp.asarray(ed.data.Windows.disjoint(corpus.validation, 24, count=64, seed=0))
    nll = eqx.filter_jit(lambda model: jax.vmap(model.energy.vocabulary.nll)(text).mean())
    assert nll(model) > 0.9 and nll(read) < 1.05 * source.window_entropy(24)
    # nothing else has moved
    models: Any = (model, read)
    before, after = (jax.tree.leaves(m.energy.network) for m in models)
    assert all(np.allclose(one, two, rtol=1e-12) for one, two in zip(before, after, strict=True))


def test_tables_are_no_matrices_of_the_optimizer(getkey):
    vocabulary: Any = ed.energy.HMMVocabulary(20, 24, states=32, key=getkey())

    def in_the_first_row(leaf):
        gradient = np.zeros_like(leaf)
        gradient[0] = np.arange(1.0, 1.0 + gradient[0].size).reshape(gradient[0].shape)
        return jnp.asarray(gradient)

    gradient = jax.tree.map(in_the_first_row, vocabulary)
    optimizer = ed.learn.default_optimizer(1e-2, steps=10, decay=0.5)

    @jax.jit
    def second_step(vocabulary, gradient):
        """The first is warming up."""

        def step(state, _):
            change, state = optimizer.update(gradient, state, vocabulary)
            return state, change

        _, changes = jax.lax.scan(step, optimizer.init(vocabulary), None, length=2)
        return optax.apply_updates(vocabulary, jax.tree.map(lambda change: change[1], changes))

    before, after = (jax.tree.map(np.asarray, v) for v in (vocabulary, second_step(vocabulary, gradient)))
    for table in ("initial", "transition", "emission"):
        change = getattr(after, table) - getattr(before, table)
        # Adam moves every number by as much, however steep it is there, and nothing where it is flat; no decay either
        assert np.allclose(change[0], change[0].min(), rtol=1e-3) and np.all(change[0] < 0) and not np.any(change[1:])
    change = after.patterns - before.patterns
    assert np.ptp(change[0]) > 0.5 * np.abs(change[0]).max() and np.all(change[1:] != 0)


def test_frequent_tokens_have_more_states(getkey):
    counts = np.array([1, 0, 25])
    first = jax.jit(lambda key: ed.energy.HMMVocabulary(3, 4, states=60, counts=counts, key=key).tables()[2])(getkey())
    assert np.bincount(np.asarray(first).argmax(-1), minlength=3).tolist() == [10, 0, 50]


def test_sizes_must_be_positive(getkey):
    with pytest.raises(ValueError, match="`states` is 0"):
        ed.energy.HMMVocabulary(3, 4, states=0, key=getkey())
    with pytest.raises(ValueError, match=r"`counts` has shape \(2,\)"):
        ed.energy.HMMVocabulary(3, 4, states=2, counts=np.array([1, 2]), key=getkey())
    plain = ed.EnergyDLLM(ed.data.Characters("ab"), dim=8, depth=1, states=0, key=getkey())
    assert isinstance(plain.energy.vocabulary, ed.energy.Vocabulary)
