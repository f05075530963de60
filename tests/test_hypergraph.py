"""Laws 1, 2 and 4 for layers of every kind of neurons, and the language model as one instance."""

from typing import Any

import diffrax
import equinox as eqx
import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energy_dllm as ed


LAYERS = {"tokens": (6, 4), "phrases": (2, 3), "whole": (5,), "gate": (3,)}
# Of these layers, in this order: every kind of neurons is in one of two landscapes.
KINDS = [("layer norm", "softmax", "identity", "tanh"), ("softplus", "spherical", "tanh", "softmax")]


def make(kinds, getkey):
    """Four layers, and every kind of synapse: convolution, attention, a memory, two bodies, three."""
    weak = lambda synapse: jax.tree.map(lambda leaf: 0.3 * leaf, synapse)
    synapses = {
        "parts": (weak(ed.energy.ConvolutionalSynapse.random(3, 4, 3, stride=3, key=getkey())), "tokens", "phrases"),
        "others": (weak(ed.energy.Attention(4, heads=1, head_dim=2, reach=2, key=getkey())), "tokens"),
        "stored": (ed.memory.GaussianMemory(jax.random.normal(getkey(), (3, 5)), beta=0.6), "whole"),
        "pair": (weak(ed.energy.DenseSynapse.random(5, 3, key=getkey())), "whole", "gate"),
        "three": (weak(ed.energy.DenseSynapse.random(5, 3, 5, key=getkey())), "whole", "gate", "whole"),
    }
    layers = {
        name: ed.energy.Layer(families.NEURONS[kind](), shape, threshold=0.3 * jax.random.normal(getkey(), shape[-1:]))
        for (name, shape), kind in zip(LAYERS.items(), kinds, strict=True)
    }
    energy = ed.energy.Hypergraph(layers, {name: ed.energy.Hyperedge(*edge) for name, edge in synapses.items()})
    return energy, families.random_like(energy.neutral(), getkey())


@pytest.fixture(params=KINDS, ids="-".join)
def landscape(request, getkey):
    return make(request.param, getkey)


def test_every_kind_of_neurons_is_here():
    assert {kind for kinds in KINDS for kind in kinds} == set(families.NEURONS)


# ------------------------------------------------------------------------------------------- laws 1 and 2


@eqx.filter_jit
def looked_at(energy, y, v) -> dict[str, Any]:
    """Everything that is asked of one state and one direction, in one program."""
    g, dg = jax.jvp(energy.activations, (y,), (v,))
    force = energy.force(y)
    return dict(
        terms=energy.terms(y),
        total=energy(y),
        force=force,
        felt=-families.dot(force, dg),
        slope=families.finite_difference(energy, y, v),
        spoken=families.dot(g, v),
        lagrangian=families.finite_difference(
            lambda y: sum(layer.lagrangian(y[name]) for name, layer in energy.layers.items()), y, v
        ),
    )


def test_terms_sum_to_e_and_force_is_minus_its_derivative(landscape, getkey):
    energy, y = landscape
    seen = looked_at(energy, y, families.random_like(y, getkey()))
    assert set(seen["terms"]) == {*LAYERS, "parts", "others", "stored", "pair", "three"}
    assert np.allclose(seen["total"], sum(seen["terms"].values()), atol=1e-12)
    assert np.allclose(seen["felt"], seen["slope"], rtol=1e-5, atol=1e-7)  # dE/dy = (dg/dy) dE/dg
    assert np.allclose(seen["spoken"], seen["lagrangian"], rtol=1e-6, atol=1e-8)  # g = grad Λ
    assert {name: force.shape for name, force in seen["force"].items()} == LAYERS


def test_a_convolution_is_its_sum_over_windows(getkey):
    """`-<g_(stride j + o - padding), W_o h_j>`, written out place by place."""
    synapse = ed.energy.ConvolutionalSynapse.random(3, 2, 4, stride=2, padding=1, key=getkey())
    g, h = np.random.default_rng(0).normal(size=(7, 2)), np.random.default_rng(1).normal(size=(4, 4))
    near = [(j, o) for j in range(4) for o in range(3) if 0 <= 2 * j + o - 1 < 7]
    direct = -sum(g[2 * j + o - 1] @ np.asarray(synapse.weights)[o] @ h[j] for j, o in near)
    assert np.allclose(synapse(jnp.asarray(g), jnp.asarray(h)), direct, atol=1e-12)


def test_dense_couplings_are_shared_by_all_tokens(getkey):
    synapse = ed.energy.DenseSynapse.random(2, 3, 4, key=getkey())
    sides = [np.random.default_rng(n).normal(size=(5, n)) for n in (2, 3, 4)]
    direct = -np.einsum("abc,ia,ib,ic->", np.asarray(synapse.weights), *sides)
    assert np.allclose(synapse(*map(jnp.asarray, sides)), direct, atol=1e-12)


# ------------------------------------------------------------------------------------------- law 4


def power(time, y, field):
    """`sum_l 1/tau_l (dE/dg)^T (dg/dy) (dE/dg)`."""
    _, dg = jax.jvp(field.energy.activations, (y,), (field(time, y),))
    return families.dot(field.energy.force(y), dg)


TRACED = []


@eqx.filter_jit
def descend(energy, y, t1):
    TRACED.append(1)
    return ed.solve(
        ed.flow.LayerRelaxation(energy, tau={"phrases": 3.0, "gate": 0.5}),
        y,
        t0=0.0,
        t1=t1,
        times=t1 * jnp.linspace(0.0, 1.0, 601)[:-1],
        solver=diffrax.Heun(),
        step=t1 / 600,
        probes={"E": lambda t, y, field: field.energy(y), "power": power},
    )


def test_relaxation_never_raises_e_and_ends_at_rest(landscape):
    """`E` falls by what is dissipated, to a finite point where nothing pulls; one program for all of it."""
    TRACED.clear()
    energy, y = landscape
    path = descend(energy, y, jnp.asarray(6.0))
    e, lost = path.probes["E"], path.probes["power"]
    assert np.all(np.diff(e) <= 1e-9) and np.all(lost >= -1e-12)
    assert abs(np.trapezoid(lost, path.times) - (e[0] - e[-1])) <= 1e-3 * (e[0] - e[-1])
    rest = descend(energy, path.final, jnp.asarray(300.0))
    assert max(np.abs(force).max() for force in eqx.filter_jit(energy.force)(rest.final).values()) < 1e-6
    assert len(TRACED) == 1


def test_a_held_layer_stays_and_time_constants_do_not_move_the_rest():
    patterns = jnp.array([[1.0, 1.0, -1.0, -1.0], [1.0, -1.0, 1.0, -1.0]])
    energy = ed.energy.Hypergraph(
        {"seen": ed.energy.Layer(ed.energy.Tanh(), (4,)), "which": ed.energy.Layer(ed.energy.Softmax(), (2,))},
        {"stored": ed.energy.Hyperedge(ed.energy.DenseSynapse(patterns.T), "seen", "which")},
    )
    cue = energy.neutral() | {"seen": jnp.array([0.9, 0.3, -0.2, -1.1])}
    options: dict[str, Any] = dict(t0=0.0, t1=60.0, solver=diffrax.Euler(), step=0.2)
    end = lambda **tau: ed.solve(ed.flow.LayerRelaxation(energy, tau=tau), cue, **options).final
    held = end(seen=jnp.inf)
    assert np.array_equal(held["seen"], cue["seen"])
    assert np.allclose(held["which"], patterns @ jnp.tanh(cue["seen"]), atol=1e-4)
    slow, quick = end(seen=3.0), end(which=0.5)
    assert np.allclose(slow["seen"], quick["seen"], atol=1e-3)


# ------------------------------------------------------------------------------------------- one instance


class Expected(ed.energy.AbstractNeurons):
    """Tokens that take back what was expected: the only neurons here that are concave."""

    neurons: ed.energy.AbstractNeurons

    def lagrangian(self, y):
        return -self.neurons.lagrangian(y)


class Told(eqx.Module):
    """What tokens say to each other, of three layers: `E(g + kappa <U, p - pi>)`."""

    network: ed.energy.Network
    patterns: jax.Array
    kappa: jax.Array

    def __call__(self, hidden, p, expected):
        g = hidden + self.kappa * (p + expected) @ self.patterns
        return sum(synapse(g) for synapse in self.network.synapses.values()) - jnp.sum(g @ self.network.bias)


def test_the_language_model_is_a_hypergraph_of_three_layers(getkey):
    """Hidden neurons `y`, and tokens `v = kappa <y, U>` twice: with the evidence, and what is expected without it.

    `Λ = kappa log sum exp(v / kappa)`, prior and evidence are thresholds. The energy is `kappa F`, and the tokens,
    started in step with `y`, stay so: the paths of `y` are one.
    """
    energy, y = families.make_energy(getkey(), neurons="tanh", synapses=("attention",))
    b = 2.0 * jax.random.normal(getkey(), (6, 5))
    kappa, vocabulary = energy.kappa, energy.vocabulary
    vocabulary = eqx.tree_at(lambda v: v.prior, vocabulary, jax.random.normal(getkey(), (5,)))
    energy = eqx.tree_at(lambda e: e.vocabulary, energy, vocabulary)
    softmax = ed.energy.Softmax(beta=1 / float(kappa))
    prior = jnp.broadcast_to(vocabulary.prior, (6, 5))
    layers = {
        "hidden": ed.energy.Layer(energy.network.neurons, (6, 8)),
        "tokens": ed.energy.Layer(softmax, (6, 5), threshold=kappa * (prior + b)),
        "expected": ed.energy.Layer(Expected(softmax), (6, 5), threshold=kappa * prior),
    }
    told = Told(energy.network, vocabulary.patterns, kappa)
    graph = ed.energy.Hypergraph(layers, {"told": ed.energy.Hyperedge(told, *layers)})

    def start(y):
        v = kappa * y @ vocabulary.patterns.T
        return {"hidden": y, "tokens": v, "expected": v}

    options: dict[str, Any] = dict(t0=0.0, t1=8.0, solver=diffrax.Euler(), step=0.1)

    @eqx.filter_jit
    def both(energy, graph, y, b):
        one = ed.solve(ed.flow.Relaxation(energy, ed.flow.Likelihood(b)), y, **options).final
        two = ed.solve(ed.flow.LayerRelaxation(graph), start(y), **options).final
        spoken = graph.activations(start(y))["tokens"], energy.posterior(y, b)
        return (graph(start(y)), kappa * energy(y, b)), spoken, one, two

    heights, spoken, one, two = both(energy, graph, y, b)
    assert np.allclose(*heights, rtol=0, atol=1e-10) and np.allclose(*spoken, atol=1e-12)
    assert np.abs(one - y).max() > 0.1
    assert np.allclose(two["hidden"], one, rtol=0, atol=1e-10)
    assert np.allclose(two["tokens"], start(one)["tokens"], rtol=0, atol=1e-10)


# ------------------------------------------------------------------------------------------- files and bad input


def test_a_hypergraph_comes_back_whole(getkey, tmp_path):
    energy, _ = make(KINDS[0], getkey)
    ed.save(tmp_path / "graph.safetensors", energy)
    assert bool(eqx.tree_equal(ed.load(tmp_path / "graph.safetensors"), energy))


def layer(*shape, **options):
    return ed.energy.Layer(ed.energy.Tanh(), shape, **options)


def graph():
    pair = ed.energy.Hyperedge(ed.energy.DenseSynapse(jnp.ones((4, 2))), "low", "high")
    return ed.energy.Hypergraph({"low": layer(4), "high": layer(2)}, {"pair": pair})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: layer(), r"`shape` is \(\); expected at least one axis"),
        (lambda: layer(3, 0), r"`shape` is \(3, 0\)"),
        (lambda: layer(4, threshold=jnp.ones(3)), r"`threshold` has shape \(3,\); expected \(4,\)"),
        (lambda: ed.energy.Hyperedge(graph()), "`layers` is empty; name the layers"),
        (lambda: ed.energy.Hypergraph({}, {}), "`layers` is empty; expected at least one"),
        (lambda: ed.energy.Hypergraph({"pair": layer(4)}, graph().synapses), "has the name 'pair', which is that of"),
        (lambda: ed.energy.Hypergraph({"low": layer(4)}, graph().synapses), "joins the layer 'high'; there are"),
        (lambda: graph()({"low": jnp.ones(4)}), r"`states` has the layers \['low'\]; expected \['high', 'low'\]"),
        (lambda: graph()({"low": jnp.ones(3), "high": jnp.ones(2)}), r"shape \(3,\) for 'low'; expected \(4,\)"),
        (
            lambda: ed.energy.Hypergraph({"low": layer(4)}, {"self": ed.energy.Hyperedge(jnp.square, "low")})(
                {"low": jnp.ones(4)}
            ),
            r"has 'self' of shape \(4,\); expected a scalar",
        ),
        (lambda: ed.energy.DenseSynapse(jnp.ones(3)), r"`weights` has shape \(3,\); expected one axis for each"),
        (lambda: ed.energy.DenseSynapse.random(3, key=jax.random.key(0)), r"`dims` is \(3,\); expected two widths"),
        (
            lambda: ed.energy.DenseSynapse(jnp.ones((4, 2)))(jnp.ones(4), jnp.ones(3)),
            r"shapes \[\(4,\), \(3,\)\]; expected last axes \(4, 2\)",
        ),
        (
            lambda: ed.energy.ConvolutionalSynapse(jnp.ones((3, 2))),
            r"`weights` has shape \(3, 2\); expected \(O, D, E\)",
        ),
        (lambda: ed.energy.ConvolutionalSynapse(jnp.ones((3, 2, 2)), stride=0), "`stride`=0 must be at least 1"),
        (lambda: ed.energy.ConvolutionalSynapse.random(0, 2, 2, key=jax.random.key(0)), "`offsets`=0"),
        (
            lambda: ed.energy.ConvolutionalSynapse(jnp.ones((3, 2, 2)))(jnp.ones((5, 2)), jnp.ones((4, 2))),
            r"`g` \(5, 2\) and `h` \(4, 2\) do not fit; expected \(L, 2\) and \(3, 2\)",
        ),
        (lambda: ed.flow.LayerRelaxation(graph(), tau={"middle": 1.0}), "`tau` has 'middle', which is no layer"),
        (lambda: ed.flow.LayerRelaxation(graph(), tau={"low": 0.0}), "`tau` is 0.0 for 'low'; expected a positive"),
    ],
)
def test_what_does_not_fit_is_named(wrong, message, unchecked):
    with pytest.raises(ValueError, match=message):
        wrong()
