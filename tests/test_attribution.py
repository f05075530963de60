"""The log-odds are a sum, whatever is summed over; and what is taken away is missed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import SYNAPSES, make_energy

import energy_dllm as ed
from energy_dllm.energy import AbstractCoupling, AbstractRecall


L, D, V = 6, 8, 5
NOW = jnp.zeros(())


@pytest.fixture(scope="module")
def energy():
    names = ("pairwise", "rotary attention", "convolutional")
    return eqx.filter_jit(make_energy)(jax.random.key(0), dim=D, size=V, synapses=names)[0]


@pytest.fixture(scope="module")
def given():
    x = jax.random.normal(jax.random.key(1), (L, V))
    return ed.flow.Gaussian(x, jnp.linspace(0.5, 1.5, L))


@eqx.filter_jit
def why(energy, given, y, **pair):
    return ed.probe.attribution(NOW, y, ed.flow.Relaxation(energy, given), **pair)


def test_the_parts_are_the_log_odds(energy, given):
    y = jax.random.normal(jax.random.key(2), (L, D))
    found = why(energy, given, y)
    logits = energy.logits(y, given.field(energy.vocabulary.codes))
    best, second = np.sort(logits, axis=-1)[:, :-3:-1].T
    assert np.allclose(found.log_odds, best - second, atol=1e-12) and (found.token == logits.argmax(-1)).all()
    assert np.allclose(found.total, found.log_odds, atol=1e-10) and np.abs(found.parts["residual"]).max() > 0.01
    assert set(found.parts) == {"prior", "evidence", *energy.network.synapses, "bias", "residual"}
    assert set(found.neighbours) == set(energy.network.synapses) and set(found.memories) == {"convolutional"}
    for name, split in [*found.neighbours.items(), *found.memories.items()]:
        assert np.allclose(split.sum(-1), found.parts[name], atol=1e-10), name
    # nobody tells himself anything through a bond, and nobody out of reach is heard
    assert not np.diagonal(found.neighbours["pairwise"]).any() and found.neighbours["pairwise"][0, 4] == 0
    assert not np.diagonal(found.neighbours["rotary attention"]).any()
    assert found.neighbours["convolutional"][0, 3] == 0 != found.neighbours["convolutional"][0, 2]


@pytest.mark.parametrize(
    "name", ["mapping", "rectified", "softmax memory", "token memory", "mapping attention", "deep convolutional"]
)
def test_every_synapse_splits_exactly(name):
    """The force by pattern against the force, the energy by pattern against the energy; other synapses: see above."""
    synapse = SYNAPSES[name](D, jax.random.key(3))
    g, u = jax.random.normal(jax.random.key(4), (2, L, D))

    @jax.jit
    def parts(g, u):
        whole = -jnp.sum(jax.grad(synapse)(g) * u, axis=-1)
        neighbours = synapse.by_neighbour(g, u) if isinstance(synapse, AbstractCoupling) else None
        each = synapse.per_memory(g) if isinstance(synapse, AbstractRecall) else None
        left = None if each is None else each.sum(-1) - synapse.per_token(g)
        return whole, neighbours, synapse.by_memory(g, u) if isinstance(synapse, AbstractRecall) else None, left

    whole, *splits, left = parts(g, u)
    for split in splits:
        assert split is None or np.allclose(split.sum(-1), whole, atol=1e-12)
    assert left is None or np.allclose(left, 0.0, atol=1e-12)
    assert any(split is not None for split in splits)


@pytest.mark.parametrize("name", ["pairwise", "mapping attention"])
def test_a_neighbour_is_heard_as_its_derivative(name):
    """A bond is linear, of attention one whose pattern is held: what `j` tells vanishes with its voice."""
    synapse = SYNAPSES[name](D, jax.random.key(5))
    if name == "mapping attention":
        synapse = eqx.tree_at(lambda s: s.query, synapse, jnp.zeros_like(synapse.query))
    g, u = jax.random.normal(jax.random.key(6), (2, L, D))
    whole = lambda g: -jnp.sum(jax.grad(synapse)(g) * u, axis=-1)

    @jax.jit
    def heard(g, u):
        without = lambda j: whole(g) - whole(g.at[j].set(0.0))
        return synapse.by_neighbour(g, u), jax.lax.map(without, jnp.arange(L))

    parts, missed = heard(g, u)
    assert np.allclose(missed.T, parts, atol=1e-12)


def test_what_is_taken_away_is_missed(energy, given):
    """For one step the fall is the step times what was told: by a term, by a bond, by a token that is not there."""
    y = jax.random.normal(jax.random.key(7), (L, D))
    found = why(energy, given, y)
    missed = ed.probe.counterfactual(energy, given, y, 2, steps=1, step=0.1)
    assert (missed.token, missed.reference) == (found.token[2], found.reference[2])
    assert set(missed.terms) == set(found.parts) - {"prior", "evidence", "residual"}
    for name, fall in missed.terms.items():
        assert np.allclose(fall, 0.1 * found.parts[name][2], atol=1e-10), name
    # the force in the passage that ends one token earlier
    b = given.field(energy.vocabulary.codes)
    short = lambda g: sum(jnp.sum(synapse(g)) for synapse in energy.network.synapses.values())
    g = energy.activation(y, b)
    u = energy.vocabulary.patterns[missed.token] - energy.vocabulary.patterns[missed.reference]
    told = jax.jit(lambda g: (jax.grad(short)(g[:-1]) - jax.grad(short)(g)[:-1])[2] @ u)(g)
    assert np.allclose(missed.neighbours[-1], 0.1 * told, atol=1e-10) and abs(told) > 1e-4
    assert missed.neighbours[2] == 0


def test_a_bond_that_is_taken_away_is_missed_as_it_was_told(given):
    energy = make_energy(jax.random.key(0), dim=D, size=V, synapses=("pairwise",))[0]
    y = jax.random.normal(jax.random.key(7), (L, D))
    missed = ed.probe.counterfactual(energy, given, y, 2, steps=1, step=0.1)
    assert np.allclose(missed.neighbours, 0.1 * why(energy, given, y).neighbours["pairwise"][2], atol=1e-10)


def test_counterfactual_names_what_is_wrong(energy, given, unchecked):
    y = jnp.zeros((L, D))
    with pytest.raises(ValueError, match=r"`place` is 6; the passage has 6 tokens, 0 to 5"):
        ed.probe.counterfactual(energy, given, y, 6)
    with pytest.raises(ValueError, match=r"`y` has shape \(5, 8\); expected \(6, 8\)"):
        ed.probe.counterfactual(energy, given, y[1:], 0)


class Mine(AbstractCoupling):
    """A synapse of one's own, as CONTRIBUTING says: `E = -sum_i <g_i, g_(i+1)>`, half of a bond at each end."""

    def per_token(self, g, mask=None):
        assert mask is None
        bonds = -0.5 * jnp.sum(g[:-1] * g[1:], axis=-1)
        return jnp.pad(bonds, (0, 1)) + jnp.pad(bonds, (1, 0))

    def by_neighbour(self, g, u):
        return jnp.where(abs(jnp.subtract.outer(jnp.arange(len(g)), jnp.arange(len(g)))) == 1, u @ g.T, 0.0)


def test_a_synapse_of_ones_own_is_attributed_by_neighbour(energy, given):
    mine = eqx.tree_at(lambda e: e.network, energy, ed.energy.Network(ed.energy.Tanh(), {"mine": Mine()}, jnp.ones(D)))
    found = why(mine, given, jax.random.normal(jax.random.key(8), (L, D)))
    assert set(found.neighbours) == {"mine"} and np.allclose(found.total, found.log_odds, atol=1e-10)
    assert np.allclose(found.neighbours["mine"].sum(-1), found.parts["mine"], atol=1e-10)
