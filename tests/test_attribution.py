"""The log-odds are a sum, whatever is summed over; and what is taken away is missed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import SYNAPSES, make_energy

import energy_dllm as ed
from energy_dllm.energy import AbstractCoupling
from energy_dllm.energy._layered import AbstractLayered


L, D, V = 6, 8, 5
NOW = jnp.zeros(())
KINDS = {
    "one layer": ("pairwise", "rotary attention", "convolutional"),
    "deep": ("deep",),
    "under a pattern": ("deep",),
}
PATTERN = ed.energy.DFA.of(ed.data.RegexDFA.of("[a-d]{1,2}( [a-d]{1,3})*", ed.data.Characters("abcd ")))


@pytest.fixture(scope="module", params=KINDS)
def energy(request):
    made = eqx.filter_jit(make_energy)(jax.random.key(0), dim=D, size=V, synapses=KINDS[request.param])[0]
    if request.param == "one layer":
        return made
    network = eqx.tree_at(lambda n: n.neurons, made.network, ed.energy.Silent())
    vocabulary = ed.energy.MeanFieldVocabulary(V, D, key=jax.random.key(9))
    made = ed.energy.FreeEnergy(network, vocabulary, kappa=1.0)
    return made.accepted(PATTERN) if request.param == "under a pattern" else made


@pytest.fixture(scope="module")
def given():
    x = jax.random.normal(jax.random.key(1), (L, V))
    return ed.flow.Gaussian(x, jnp.linspace(0.5, 1.5, L))


@eqx.filter_jit
def why(energy, given, y, **pair):
    return ed.probe.attribution(NOW, y, ed.flow.Relaxation(energy, given), **pair)


def test_the_parts_are_the_log_odds(energy, given):
    """By term, head, stored pattern and token."""
    y = jax.random.normal(jax.random.key(2), (L, D))
    found = why(energy, given, y)
    b = given.field(energy.vocabulary.codes)
    best, second = np.sort(energy.logits(y, b), axis=-1)[:, :-3:-1].T
    assert np.allclose(found.log_odds, best - second, atol=1e-12)
    assert np.allclose(found.total, found.log_odds, atol=1e-10) and np.abs(found.parts["residual"]).max() > 0.01
    pattern = {"pattern"} & set(found.parts)
    assert pattern == ({"pattern"} if isinstance(energy.vocabulary, ed.energy.PatternVocabulary) else set())
    assert set(found.parts) == {"prior", "evidence", "residual", *pattern, *energy.forces(y, b)} - {"neurons"}
    kinds = lambda word: {name for name in found.parts if word in name}
    assert set(found.heads) == kinds("attention") and set(found.memories) == kinds("memory") | kinds("convolutional")
    assert set(found.neighbours) == set(found.parts) - {"prior", "evidence", "bias", "residual", "pattern"}
    for splits in (found.neighbours, found.heads, found.memories):
        assert splits
        for name, part in splits.items():
            assert np.abs(part).max() > 1e-4 and np.allclose(part.sum(-1), found.parts[name], atol=1e-10), name


def test_messages_stay_within_reach(energy, given):
    """No token has a message to itself through a bond, nor to one out of reach."""
    neighbours = why(energy, given, jax.random.normal(jax.random.key(2), (L, D))).neighbours
    if "pairwise" not in neighbours:
        # the attention before it reads from afar, though far less than the neighbours are read directly
        message = np.abs(neighbours["convolution 1"])
        assert message[0, 1] > 1e-3 > message[0, 2:].max() > 0
        return
    assert not np.diagonal(neighbours["pairwise"]).any() and neighbours["pairwise"][0, 4] == 0
    assert not np.diagonal(neighbours["rotary attention"]).any()
    assert neighbours["convolutional"][0, 3] == 0 != neighbours["convolutional"][0, 2]


@pytest.mark.parametrize(
    "name",
    [
        *("mapping", "rectified", "centred memory", "softmax memory", "token memory"),
        *("rotary attention", "deep convolutional", "deep"),
    ],
)
def test_every_synapse_splits_exactly(name):
    """The force by part against the force of its term, and the energy alike; other synapses: see above."""
    energy = make_energy(jax.random.key(3), dim=D, size=V, synapses=(name,))[0]
    synapse = energy.network.synapses[name]
    g, u = jax.random.normal(jax.random.key(4), (2, L, D))
    of_terms = lambda g: synapse.terms(g) if isinstance(synapse, AbstractLayered) else {name: synapse.per_token(g)}

    @jax.jit
    def parts(g, u):
        force = lambda term: -jnp.sum(jax.grad(lambda g: jnp.sum(of_terms(g)[term]))(g) * u, axis=-1)
        terms = of_terms(g)
        energies = {term: jnp.sum(each, axis=0) for term, (each, _) in energy.network.heads(g).items()}
        energies |= {term: jnp.sum(each, axis=-1) for term, (each, *_) in energy.network.memories(g).items()}
        return {term: force(term) for term in terms}, energy.network.split(g, u), energies, terms

    forces, splits, energies, terms = parts(g, u)
    assert any(splits) and energies
    for each in splits:
        assert all(np.allclose(part.sum(-1), forces[term], atol=1e-12) for term, part in each.items())
    assert all(np.allclose(each, terms[term], atol=1e-12) for term, each in energies.items())


def test_the_message_of_a_neighbour_is_its_derivative():
    """A bond is linear: the message of `j` vanishes with its activation."""
    synapse = SYNAPSES["pairwise"](D, jax.random.key(5))
    g, u = jax.random.normal(jax.random.key(6), (2, L, D))
    whole = lambda g: -jnp.sum(jax.grad(synapse)(g) * u, axis=-1)

    @jax.jit
    def messages(g, u):
        without = lambda j: whole(g) - whole(g.at[j].set(0.0))
        return synapse.by_neighbour(g, u), jax.lax.map(without, jnp.arange(L))

    parts, missed = messages(g, u)
    assert np.allclose(missed.T, parts, atol=1e-12)


def test_messages_in_a_stack_go_to_the_tokens_that_read():
    """In the first layer, with attention held fixed, the message of each token is as if the others were hidden."""
    stack = ed.energy.DeepStack(D, depth=1, heads=2, memories=3, reach=3, key=jax.random.key(5))
    stack = eqx.tree_at(lambda s: s.blocks[0]["attention"].query, stack, replace_fn=jnp.zeros_like)
    g, u = jax.random.normal(jax.random.key(6), (2, L, D))
    u = u.at[:, : D // 2].set(0.0)  # what is read, not by whom
    message = eqx.filter_jit(lambda stack: stack.by_neighbour(g, u))(stack)["attention 1"]
    z = g[:, : D // 2] + stack.background
    z = z - z.mean(-1, keepdims=True)
    z = z / jnp.sqrt((z**2).mean(-1, keepdims=True) + 1e-5)
    read = jax.jit(lambda z: jnp.sum(u[:, D // 2 :] * stack.blocks[0]["attention"].read(z, jnp.ones((L, L), bool)), -1))
    without = jnp.stack([read(z.at[j].set(0.0)) for j in range(L)], axis=1)
    assert np.allclose(read(z)[:, None] - without, message, atol=1e-12) and jnp.abs(message).max() > 1e-2


def test_what_is_taken_away_is_missed(energy, given):
    """For one step the fall is the step times the message: by a term, by a bond, by a token that is not there."""
    y = jax.random.normal(jax.random.key(7), (L, D))
    found = why(energy, given, y)
    missed = ed.probe.Counterfactual(energy, given, y, 2, steps=1, step=0.1)
    assert (missed.token, missed.reference) == (found.token[2], found.reference[2])
    assert set(missed.terms) == set(found.parts) - {"prior", "evidence", "residual", "pattern"}
    for name, fall in missed.terms.items():
        assert np.allclose(fall, 0.1 * found.parts[name][2], atol=1e-10), name
    # the force in the passage that ends one token earlier
    b = given.field(energy.vocabulary.codes)
    short = lambda g: sum(jnp.sum(synapse(g)) for synapse in energy.network.synapses.values())
    g = energy.activation(y, b)
    u = energy.vocabulary.patterns[missed.token] - energy.vocabulary.patterns[missed.reference]
    message = jax.jit(lambda g: (jax.grad(short)(g[:-1]) - jax.grad(short)(g)[:-1])[2] @ u)(g)
    assert np.allclose(missed.neighbours[-1], 0.1 * message, atol=1e-10) and abs(message) > 1e-4
    assert missed.neighbours[2] == 0


def test_a_bond_that_is_taken_away_is_missed_as_it_was_message(given):
    energy = make_energy(jax.random.key(0), dim=D, size=V, synapses=("pairwise",))[0]
    y = jax.random.normal(jax.random.key(7), (L, D))
    missed = ed.probe.Counterfactual(energy, given, y, 2, steps=1, step=0.1)
    assert np.allclose(missed.neighbours, 0.1 * why(energy, given, y).neighbours["pairwise"][2], atol=1e-10)


def test_counterfactual_names_what_is_wrong(energy, given, unchecked):
    y = jnp.zeros((L, D))
    with pytest.raises(ValueError, match=r"`place` is 6; the passage has 6 tokens, 0 to 5"):
        ed.probe.Counterfactual(energy, given, y, 6)
    with pytest.raises(ValueError, match=r"`y` has shape \(5, 8\); expected \(6, 8\)"):
        ed.probe.Counterfactual(energy, given, y[1:], 0)


class Mine(AbstractCoupling):
    """A synapse of one's own, as in CONTRIBUTING: `E = -sum_i <g_i, g_(i+1)>`, half of a bond at each end."""

    def per_token(self, g, mask=None):
        assert mask is None
        bonds = -0.5 * jnp.sum(g[:-1] * g[1:], axis=-1)
        return jnp.pad(bonds, (0, 1)) + jnp.pad(bonds, (1, 0))

    def by_neighbour(self, g, u):
        return jnp.where(abs(jnp.subtract.outer(jnp.arange(len(g)), jnp.arange(len(g)))) == 1, u @ g.T, 0.0)


def test_a_synapse_of_ones_own_is_attributed_by_neighbour(energy, given):
    mine = eqx.tree_at(
        lambda e: e.network, energy, ed.energy.Network(energy.network.neurons, {"mine": Mine()}, energy.network.bias)
    )
    found = why(mine, given, jax.random.normal(jax.random.key(8), (L, D)))
    assert set(found.neighbours) == {"mine"} and np.allclose(found.total, found.log_odds, atol=1e-10)
    assert np.allclose(found.neighbours["mine"].sum(-1), found.parts["mine"], atol=1e-10)
