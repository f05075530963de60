"""Laws 1 and 2: Lagrangians, terms, forces."""

import diffrax
import equinox as eqx
import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energy_dllm as ed


@pytest.fixture(params=families.NEURONS)
def neurons(request):
    return families.NEURONS[request.param]()


@pytest.fixture(params=families.SYNAPSES)
def synapse(request, getkey):
    return families.SYNAPSES[request.param](8, getkey())


# Compiled once for every member and shape: a program for every operation would cost the suite minutes.


@eqx.filter_jit
def of_neurons(neurons, y):
    """`Λ`, `g` and the Hessian."""
    return neurons.lagrangian(y), neurons.activation(y), jax.jacfwd(neurons.activation)(y)


@eqx.filter_jit
def of_synapse(synapse, g, mask):
    """`E`, its terms, and its gradient."""
    return synapse(g, mask), synapse.per_token(g, mask), jax.grad(lambda g: synapse(g, mask))(g)


@eqx.filter_jit
def of_energy(energy, y, b, v, spring=None, mask=None):
    """`F`, its terms, its force, and how `g` moves where `y` moves along `v`."""
    _, dg = jax.jvp(lambda y: energy.activation(y, b), (y,), (v,))
    terms = energy.terms(y, b, spring=spring, mask=mask)
    return energy(y, b, spring=spring, mask=mask), terms, energy.force(y, b, mask=mask), dg


# ------------------------------------------------------------------------------------------- law 1: neurons


def test_activation_is_the_gradient_of_the_lagrangian(neurons, getkey):
    for scale in (0.1, 1.0, 5.0):
        y, v = scale * getkey.normal((2, 7))
        slope = families.finite_difference(lambda y: of_neurons(neurons, y)[0], y, v)
        assert np.allclose(np.dot(of_neurons(neurons, y)[1], v), slope, rtol=1e-6, atol=1e-8)


def test_the_lagrangian_is_convex(neurons, getkey):
    for scale in (0.1, 1.0, 5.0):
        hessian = np.asarray(of_neurons(neurons, scale * getkey.normal((7,)))[2])
        assert np.allclose(hessian, hessian.T, atol=1e-12)
        assert np.linalg.eigvalsh(hessian).min() >= -1e-10


def test_parameters_of_the_lagrangian_have_true_gradients(neurons, getkey):
    y = getkey.normal((7,))
    weight = getkey.normal((7,))
    parameters, static = eqx.partition(neurons, eqx.is_array)
    for read in (lambda n: n.lagrangian(y), lambda n: weight @ n.activation(y)):
        function = lambda p, read=read: read(eqx.combine(p, static))
        direction = families.random_like(parameters, getkey())
        slope = families.finite_difference(jax.jit(function), parameters, direction)
        assert np.allclose(
            families.dot(jax.jit(jax.grad(function))(parameters), direction), slope, rtol=1e-5, atol=1e-8
        )


@pytest.mark.parametrize("y", [jnp.zeros(4), jnp.full(4, 700.0), jnp.array([-800.0, 0.0, 800.0, 1.0])], ids=str)
def test_extreme_states_stay_finite(neurons, y):
    lagrangian, activation, _ = of_neurons(neurons, y)
    assert np.isfinite(lagrangian) and np.all(np.isfinite(activation))


@pytest.mark.parametrize("make", [ed.energy.Softmax, ed.energy.Tanh])
def test_a_temperature_must_be_positive(make):
    with pytest.raises(ValueError, match="`beta` is -1.0"):
        make(beta=-1.0)


def test_epsilon_must_be_positive():
    with pytest.raises(ValueError, match="`epsilon` is 0"):
        ed.energy.LayerNorm(epsilon=0.0)


# ------------------------------------------------------------------------------------------- law 2: synapses


@pytest.mark.parametrize("masked", [False, True])
def test_a_synapse_is_the_sum_of_its_tokens_and_has_a_true_force(synapse, masked, getkey):
    g, v = getkey.normal((2, 6, 8))
    mask = jnp.array([True, True, False, True, True, False]) if masked else None
    energy = lambda g: of_synapse(synapse, g, mask)[0]
    total, terms, slope = (np.asarray(part) for part in of_synapse(synapse, g, mask))
    assert terms.shape == (6,) and np.allclose(total, terms.sum())
    assert np.allclose(np.vdot(slope, v), families.finite_difference(energy, g, v), rtol=1e-6, atol=1e-8)
    if mask is not None:
        assert np.all(slope[~np.asarray(mask)] == 0)  # padding is not pulled


def test_padding_does_not_pull(synapse, getkey):
    g = getkey.normal((6, 8))
    mask = jnp.asarray(np.arange(6) < 4)
    other = jnp.concatenate([g[:4], getkey.normal((2, 8))])
    energy, _, slope = of_synapse(synapse, g, mask)
    for one in (of_synapse(synapse, other, mask), of_synapse(synapse, g[:4], None)):
        assert np.allclose(energy, one[0], atol=1e-12) and np.allclose(slope[:4], one[2][:4], atol=1e-12)


@pytest.mark.parametrize("name", ["deep", "deep in blocks", "deep shifted", "deep shifted in order"])
def test_a_hole_takes_one_token_away(name, getkey):
    """What stands behind it reads all the others still, in the row that would hold it where the read-out is shifted."""
    stack, g = families.SYNAPSES[name](8, getkey()), getkey.normal((6, 8))
    slope = jax.jit(jax.grad(lambda g: stack.per_token(g, jnp.arange(6) != 2)[3]))(g)
    read = np.abs(slope).max(axis=1)
    assert read[2] == 0 and read[[0, 1, 3]].min() > 1e-6


def test_a_batch_is_a_loop(synapse, getkey):
    g = getkey.normal((3, 6, 8))
    batch = eqx.filter_jit(lambda synapse, g: jax.vmap(jax.grad(synapse))(g))(synapse, g)
    assert np.allclose(batch, [of_synapse(synapse, row, None)[2] for row in g], atol=1e-12)


def test_attention_excludes_itself_and_an_empty_row_is_zero(getkey):
    attention = ed.energy.Attention(8, heads=2, head_dim=4, key=getkey())
    g, alone = getkey.normal((4, 8)), jnp.array([False, True, False, False])

    @eqx.filter_jit
    def read(attention, g, alone):
        slope = jax.value_and_grad(lambda g: attention(g, alone))(g)
        return attention.pattern(g), slope, attention.pattern(g, alone)

    pattern, (value, force), of_one = read(attention, g, alone)
    assert np.all(np.diagonal(pattern, axis1=1, axis2=2) == 0) and np.any(pattern)
    assert value == 0 and np.all(force == 0) and np.all(of_one == 0)


def test_a_convolutional_memory_is_its_sum_over_offsets_and_layers(getkey):
    """`-<g_i, sum_n W_n gelu(sum_o C_no z_(i+o) + w_n)>`, `z + B h` for the next layer, written out token by token."""
    memory = ed.energy.ConvolutionalMemory(6, memories=5, depth=2, reach=2, rank=3, key=getkey())
    memory = eqx.tree_at(lambda m: m.threshold, memory, getkey.normal((2, 5)))
    g = getkey.normal((4, 6))
    energies = eqx.filter_jit(lambda memory, g: memory.per_token(g))(memory, g)
    memory, g = jax.tree.map(np.asarray, (memory, g))  # from here on without a compiler
    cues = memory.cues.reshape(2, 5, 5, 3)  # layers, memories, offsets -2 .. 2, rank
    gelu = jax.jit(jax.nn.gelu)

    def recalled(n, z):
        near = lambda i: [o for o in range(-2, 3) if 0 <= i + o < 4]
        cue = lambda i: memory.threshold[n] + sum(cues[n, :, o + 2] @ z[i + o] for o in near(i))
        return [np.asarray(gelu(cue(i))) for i in range(4)]

    z = [memory.view @ row for row in g]
    first = recalled(0, z)
    second = recalled(1, [z[i] + memory.onward[0] @ first[i] for i in range(4)])
    for i, energy in enumerate(energies):
        answer = memory.answers[0].T @ first[i] + memory.answers[1].T @ second[i]
        assert np.allclose(energy, -g[i] @ answer, atol=1e-12)


def test_without_reach_attention_is_blind_to_order(getkey):
    attention = ed.energy.Attention(8, heads=2, head_dim=4, key=getkey())
    attention = eqx.tree_at(lambda a: a.bias, attention, jnp.zeros_like(attention.bias))
    g = getkey.normal((5, 8))
    order = jnp.array([3, 0, 4, 1, 2])
    assert np.allclose(attention(g), attention(g[order]), atol=1e-12)


def test_rotary_phases_see_offsets_only(getkey):
    attention = ed.energy.Attention(8, heads=2, head_dim=4, rotary=True, key=getkey())
    pair = getkey.normal((2, 8))

    @jax.jit
    def at(i, j):
        here = (jnp.arange(9) == i) | (jnp.arange(9) == j)
        return attention(jnp.zeros((9, 8)).at[i].set(pair[0]).at[j].set(pair[1]), here)

    assert np.allclose(at(0, 3), at(5, 8), atol=1e-12)
    assert not np.allclose(at(0, 3), at(0, 4), atol=1e-6)


def test_pairwise_bonds_are_counted_once(getkey):
    pairwise = ed.energy.Pairwise(8, offsets=3, rank=4, key=getkey())
    g = getkey.normal((6, 8))
    direct = -sum(
        jnp.vdot(pairwise.left[o - 1] @ g[i], pairwise.right[o - 1] @ g[i + o]) for o in (1, 2, 3) for i in range(6 - o)
    )
    assert np.allclose(pairwise(g), direct)


# ------------------------------------------------------------------------------------------- law 2: F


@pytest.mark.parametrize("name", families.NEURONS)
@pytest.mark.parametrize("masked", [False, True])
def test_terms_sum_to_f_and_force_is_minus_its_derivative(name, masked, getkey):
    energy, y = families.make_energy(getkey(), neurons=name)
    b = getkey.normal((6, 5))
    mask = jnp.arange(6) < 4 if masked else None
    spring = jnp.abs(getkey.normal((6,)))
    v = getkey.normal(y.shape)
    total, terms, force, dg = of_energy(energy, y, b, v, spring, mask)
    assert set(terms) == {"neurons", "pairwise", "attention", "mapping", "bias", "vocabulary", "spring"}
    assert np.allclose(total, sum(np.sum(term) for term in terms.values()), atol=1e-12)
    # dF/dy = (dg/dy) dF/dg: the force is the gradient in g, seen through the mobility
    slope = families.finite_difference(lambda y: of_energy(energy, y, b, v, spring, mask)[0], y, v)
    assert np.allclose(-np.vdot(force, dg), slope, rtol=1e-5, atol=1e-7)


def test_forces_by_term_add_up(getkey):
    energy, y = families.make_energy(getkey())
    b = getkey.normal((6, 5))
    forces = {name: np.asarray(force) for name, force in energy.forces(y, b).items()}
    assert np.allclose(sum(forces.values()), energy.force(y, b), atol=1e-12)
    assert np.allclose(forces["neurons"], -y / energy.kappa, atol=1e-12)  # the leak


def test_parameters_of_f_have_true_gradients(getkey):
    energy, y = families.make_energy(getkey())
    b = getkey.normal((6, 5))
    parameters, static = eqx.partition(energy, eqx.is_inexact_array)
    weight = getkey.normal(y.shape)

    parameters = jax.tree.map(np.asarray, parameters)
    for read in (lambda e: e(y, b), lambda e: jnp.vdot(weight, e.force(y, b))):
        both = jax.jit(jax.value_and_grad(lambda p, read=read: read(eqx.combine(p, static))))
        direction = jax.tree.map(lambda leaf: np.asarray(getkey.normal(leaf.shape)), parameters)
        slope = families.finite_difference(lambda p, both=both: both(p)[0], parameters, direction)
        gradient = jax.tree.map(np.asarray, both(parameters)[1])
        assert np.allclose(families.dot(gradient, direction), slope, rtol=1e-5, atol=1e-7)


def test_the_vocabulary_is_bayes(getkey):
    vocabulary = ed.energy.Vocabulary(5, 8, key=getkey())
    y = getkey.normal((6, 8))
    b = getkey.normal((6, 5))

    @jax.jit
    def read(y, b):
        energy = lambda y, b: vocabulary.per_token(y, b).sum()
        slopes = jax.grad(energy, (0, 1))(y, b)
        return vocabulary.per_token(y, b), vocabulary.posterior(y, b), vocabulary.message(y, b), *slopes

    _, prior, silence, *_ = read(y, 0 * b)
    energies, p, message, in_y, in_b = (np.asarray(part) for part in read(y, b))
    joint = prior * np.exp(b)
    assert np.allclose(energies, -np.log(joint.sum(-1)))
    assert np.allclose(p, joint / joint.sum(-1, keepdims=True))
    # p = -dE/db whatever y, and the message is the force on y: 0 without evidence
    assert np.allclose(-in_b, p) and np.allclose(-in_y, message)
    assert np.allclose(silence, 0, atol=1e-12)


def test_a_known_token_says_its_pattern(getkey):
    vocabulary = ed.energy.Vocabulary(5, 8, key=getkey())
    y = getkey.normal((4, 8))
    ids, known = np.array([0, 4, 2, 1]), np.array([True, True, False, True])

    @jax.jit
    def read(y, ids, known):
        b = ed.flow.Given(ids, known).field(vocabulary.codes)
        noisy = ed.flow.Gaussian(vocabulary.codes[ids], 0.05).field(vocabulary.codes)
        slope = jax.grad(lambda y: vocabulary.per_token(y, b).sum())(y)
        return vocabulary.known(b), vocabulary.known(noisy), vocabulary.message(y, b), slope

    seen, of_noise, message, slope = read(y, ids, known)
    assert np.array_equal(seen, known) and not np.any(of_noise)
    expected = np.where(known[:, None], np.asarray(vocabulary.patterns)[ids], 0.0)
    assert np.allclose(message, expected, atol=1e-12) and np.allclose(-slope, expected, atol=1e-12)


@pytest.mark.parametrize("name", families.NEURONS)
def test_what_a_token_says_is_the_gradient_of_one_lagrangian(name, getkey):
    """Law 1 with evidence: `g = grad Λ_b`, `Λ_b = Λ + kappa log sum pi exp(b)`; convex for known and unknown tokens."""
    energy, y = families.make_energy(getkey(), neurons=name)
    hard = ed.flow.Given(jnp.arange(6) % 5, jnp.arange(6) % 2 == 0).field(energy.vocabulary.codes)

    @jax.jit
    def read(b):
        def lagrangian(y):
            own = jax.vmap(energy.network.neurons.lagrangian)(y)
            return jnp.sum(own - energy.kappa * energy.vocabulary.per_token(y, b))

        hessian = jax.jacfwd(lambda y: energy.activation(y, b))(y).reshape(48, 48)
        return energy.activation(y, b), jax.grad(lagrangian)(y), hessian

    for b in (hard, getkey.normal((6, 5))):
        g, slope, hessian = read(b)
        assert np.allclose(g, slope, atol=1e-12)
        assert np.allclose(hessian, hessian.T, atol=1e-12)
    assert np.linalg.eigvalsh(read(hard)[2]).min() >= -1e-10


def test_a_token_does_not_hear_its_own_evidence_from_itself(getkey):
    """The force on a token by pairs and attention while the others hold still does not depend on its own `b`."""
    energy, y = families.make_energy(getkey(), synapses=("pairwise",))
    b = getkey.normal((6, 5))
    forces = np.asarray(jax.jit(jax.jacobian(lambda b: energy.force(y, b)))(b))  # (L, D, L, V)
    own = np.stack([forces[i, :, i] for i in range(6)])
    assert np.abs(own).max() < 1e-12 < 1e-3 < np.abs(forces).max()


# ------------------------------------------------------------------------------------------- bad input


def test_shapes_that_do_not_match_are_named(getkey, unchecked):
    energy, y = families.make_energy(getkey())
    with pytest.raises(ValueError, match=r"`y` has shape \(6, 3\); expected \(L, 8\)"):
        energy(y[:, :3], jnp.zeros((6, 5)))
    with pytest.raises(ValueError, match=r"`b` has shape \(6, 4\); expected \(6, 5\)"):
        energy(y, jnp.zeros((6, 4)))
    with pytest.raises(ValueError, match="width 8 but `vocabulary` has width 9"):
        ed.energy.FreeEnergy(energy.network, ed.energy.Vocabulary(5, 9, key=getkey()), kappa=1.0)
    with pytest.raises(ValueError, match="`kappa` is 0"):
        ed.energy.FreeEnergy(energy.network, energy.vocabulary, kappa=0.0)
    with pytest.raises(ValueError, match="'bias', which is taken"):
        ed.energy.Network(ed.energy.Tanh(), {"bias": energy.network.synapses["mapping"]}, jnp.zeros(8))
    stacks = {name: families.SYNAPSES["deep"](8, getkey()) for name in "ab"}
    with pytest.raises(ValueError, match="two terms named 'attention 1'"):
        ed.energy.Network(ed.energy.Silent(), stacks, jnp.zeros(8)).terms(y)


def test_a_profile_names_the_terms_and_the_field(getkey):
    energy, _ = families.make_energy(getkey())
    field = ed.flow.Relaxation(energy, ed.flow.Masked(4))
    motion = lambda y: ed.solve(field, y, t0=0.0, t1=1.0, step=0.5, solver=diffrax.Euler()).final
    program = jax.jit(motion).lower(jnp.ones((4, 8))).as_text(debug_info=True)
    assert all(name in program for name in (*energy.network.synapses, "vocabulary", "Relaxation"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda key: ed.energy.Pairwise(8, rank=0, key=key), "`rank` is 0"),
        (lambda key: ed.energy.Attention(8, heads=-1, key=key), "`heads` is -1"),
        (lambda key: ed.energy.Attention(8, head_dim=3, rotary=True, key=key), "`head_dim` is 3"),
        (lambda key: ed.energy.MappingMemory(0, key=key), "`dim` is 0"),
        (lambda key: ed.energy.DenseMemory(8, memories=0, key=key), "`memories` is 0"),
        (lambda key: ed.energy.Softmax(beta=0.0), "`beta` is 0"),
        (lambda key: ed.energy.Vocabulary(0, 8, key=key), "`size` is 0"),
    ],
)
def test_sizes_must_be_positive(make, message, getkey):
    with pytest.raises(ValueError, match=message):
        make(getkey())
