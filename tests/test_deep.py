"""Laws of the deep energy: a density functional whose correlation energy is a stack of untied blocks."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energy_dllm as ed
from energy_dllm.flow import FORBIDDEN


L, V, D = 7, 5, 16


PATTERN = ed.energy.DFA.of(ed.data.RegexDFA.of(".*a.*b.*", ed.data.Characters("abcde")))
KINDS: dict[str, dict[str, Any]] = {"silent": {}, "feedback": {"feedback": 0.7}, "under a pattern": {"dfa": PATTERN}}


def functional(key, *, scale=1.0, feedback=0.0, dfa=None, **sizes):
    """A small deep energy; `scale` multiplies every pattern, so that the messages of the blocks are large."""
    sizes = {"depth": 2, "heads": 2, "memories": 6, "convolution": 1, "reach": 3, **sizes}
    k1, k2, k3 = jax.random.split(key, 3)
    network = ed.energy.Network(ed.energy.Silent(), {"blocks": ed.energy.DeepStack(D, **sizes, key=k1)}, jnp.zeros(D))
    vocabulary = ed.energy.MeanFieldVocabulary(V, D, feedback=feedback, key=k2)
    patterns = scale * jax.random.normal(k3, (V, D))
    vocabulary = eqx.tree_at(lambda v: (v.patterns, v.prior), vocabulary, (patterns, jnp.linspace(-1.0, 1.0, V)))
    energy = ed.energy.FreeEnergy(network, vocabulary, kappa=1.0)
    return energy if dfa is None else energy.accepted(dfa)


def passages(key, count=3):
    """Hidden states and evidence of a batch: soft, masked and known tokens side by side."""
    k1, k2, k3, k4 = jax.random.split(key, 4)
    y, soft = jax.random.normal(k1, (count, L, D)), 2.0 * jax.random.normal(k2, (count, L, V))
    known = jnp.where(jax.nn.one_hot(jax.random.randint(k3, (count, L), 0, V), V, dtype=bool), 0.0, FORBIDDEN)
    kind = jax.random.permutation(k4, jnp.arange(L) % 3)[None, :, None]
    return y, jnp.where(kind == 0, soft, jnp.where(kind == 1, known, 0.0))


@pytest.mark.parametrize("kind", KINDS)
def test_what_tokens_say_is_the_gradient_of_a_convex_function(getkey, kind):
    energy = functional(getkey(), **KINDS[kind])
    Lambda = lambda y, b: -jnp.sum(energy.vocabulary.per_token(y, b))
    for y, b in zip(*passages(getkey()), strict=True):
        np.testing.assert_allclose(jax.grad(Lambda)(y, b), energy.activation(y, b), atol=1e-12)
        curvature = jax.hessian(Lambda)(y, b).reshape(L * D, L * D)
        values = np.linalg.eigvalsh(curvature)
        assert values.min() > -1e-12 and values.max() > 1e-3


@pytest.mark.parametrize(
    ("depth", "kind"), [(1, "silent"), (2, "silent"), (3, "silent"), (2, "feedback"), (2, "under a pattern")]
)
def test_force_is_the_slope_of_f_and_of_each_of_its_terms(getkey, depth, kind):
    energy = functional(getkey(), depth=depth, **KINDS[kind])
    mask = jnp.arange(L) < L - 1
    at = lambda y, b, g: {name: float(term.sum()) for name, term in energy.terms(y, b, mask=mask, g=g).items()}
    for y, b in zip(*passages(getkey()), strict=True):
        g, u = energy.activation(y, b, mask), getkey.normal((L, D))
        up, down = at(y, b, g + 1e-5 * u), at(y, b, g - 1e-5 * u)
        forces = energy.forces(y, b, mask=mask)
        assert set(forces) == set(up) - {"vocabulary"}
        for name, force in forces.items():
            slope = (up[name] - down[name]) / 2e-5
            np.testing.assert_allclose(-np.sum(np.asarray(force) * u), slope, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(sum(forces.values()), energy.force(y, b, mask=mask), atol=1e-12)


def test_energy_is_a_sum_over_blocks_heads_memories_and_tokens(getkey):
    stack = ed.energy.DeepStack(D, depth=2, heads=2, memories=6, convolution=1, reach=3, key=getkey())
    g = getkey.normal((L, D))
    mask = jnp.arange(L) < L - 2
    for valid in (None, mask):
        terms, parts = stack.terms(g, valid), stack.parts(g, valid)
        assert {name: part.shape[0] for name, part in parts.items()} == {
            f"{kind} {n}": size for n in (1, 2) for kind, size in (("convolution", 3), ("attention", 2), ("memory", 6))
        }
        for name, term in terms.items():
            np.testing.assert_allclose(jnp.sum(parts[name], axis=0), term, atol=1e-12)
        np.testing.assert_allclose(sum(terms.values()), stack.per_token(g, valid), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(getkey, kind):
    energy, (y, b) = functional(getkey(), **KINDS[kind]), passages(getkey(), 1)
    short, mask = (y[0, :-2], b[0, :-2]), jnp.arange(L) < L - 2
    np.testing.assert_allclose(energy.force(y[0], b[0], mask=mask)[:-2], energy.force(*short), atol=1e-12)
    np.testing.assert_allclose(energy(y[0], b[0], mask=mask), energy(*short), atol=1e-12)


def test_masks_are_at_rest_after_one_full_step(getkey):
    energy, ids = functional(getkey(), scale=3.0), jnp.arange(L) % V
    b = ed.flow.Given(ids, jnp.arange(L) % 2 == 0).field(energy.vocabulary.codes)
    one = ed.flow.relax(energy, getkey.normal((L, D)), b, steps=1, step=1.0)
    assert jnp.max(jnp.abs(energy.force(one, b))) < 1e-12 and jnp.max(jnp.abs(one)) > 0.1
    soft = b + jnp.where(jnp.arange(L)[:, None] == 1, jnp.linspace(0.0, 1.0, V), 0.0)
    one = ed.flow.relax(energy, jnp.zeros((L, D)), soft, steps=1, step=1.0)
    assert jnp.max(jnp.abs(energy.force(one, soft))) > 1e-3  # a belief that context changes takes more


def test_with_feedback_unknown_tokens_inform_one_another_from_the_second_evaluation_on(getkey):
    key, ids = getkey(), jnp.arange(L) % V
    silent, energy = functional(key, scale=3.0), functional(key, scale=3.0, feedback=1.0)
    b = ed.flow.Given(ids, jnp.arange(L) % 2 == 0).field(energy.vocabulary.codes)
    after = lambda energy, steps: ed.flow.relax(energy, energy.neutral(L), b, steps=steps, step=1.0)
    np.testing.assert_allclose(after(energy, 1), after(silent, 1), atol=1e-12)
    assert not energy.activation(energy.neutral(L), b)[1::2].any()
    assert energy.activation(after(energy, 1), b)[1::2].all()
    assert silent.one_shot and not energy.one_shot
    assert jnp.max(jnp.abs(after(energy, 2) - after(silent, 2))) > 1e-2
    with pytest.raises(ValueError, match="no blocks"):
        energy.in_blocks(1)


@pytest.mark.parametrize("kind", KINDS)
def test_f_falls_under_any_evidence_and_the_drop_is_what_was_dissipated(getkey, kind):
    energy, (y, b) = functional(getkey(), scale=2.0, **KINDS[kind]), passages(getkey(), 4)
    step = 2e-3

    @jax.jit
    def relax(y, b):
        def move(y, _):
            force = energy.force(y, b)
            rate = jnp.sum(force * jax.jvp(lambda y: energy.activation(y, b), (y,), (force,))[1])
            return y + step * force, (energy(y, b), rate)

        return jax.lax.scan(move, y, None, length=1000)[1]

    free_energy, rate = jax.vmap(relax)(y, b)
    assert (np.diff(free_energy, axis=1) <= 1e-10).all()
    drop = free_energy[:, 0] - free_energy[:, -1]
    spent = step * np.sum((rate[:, 1:] + rate[:, :-1]) / 2, axis=1)
    np.testing.assert_allclose(drop, spent, rtol=2e-2)


def test_score_is_a_gradient_at_rest_and_not_after_one_step(getkey):
    energy = functional(getkey())
    x, sigma = getkey.normal((L, V)), 0.8

    def denoised(x, steps):
        b = ed.flow.Gaussian(x, sigma).field(energy.vocabulary.codes)
        y = ed.flow.relax(energy, energy.neutral(L), b, steps=steps, step=0.5)
        return energy.denoised(y, b).reshape(-1)

    def asymmetry(steps):
        slope = jax.jacfwd(lambda x: denoised(x, steps))(jnp.asarray(x)).reshape(L * V, L * V)
        return np.linalg.norm(slope - slope.T) / np.linalg.norm(slope)

    assert asymmetry(200) < 1e-6 < 1e-3 < asymmetry(1)
    b = lambda x: ed.flow.Gaussian(x, sigma)
    y = ed.flow.relax(energy, energy.neutral(L), b(x).field(energy.vocabulary.codes), steps=400, step=0.5)
    F = lambda x: energy(y, b(x).field(energy.vocabulary.codes), spring=b(x).spring())
    score = (denoised(jnp.asarray(x), 400).reshape(L, V) - x) / sigma**2
    np.testing.assert_allclose(-jax.grad(F)(jnp.asarray(x)), score, atol=1e-8)


def test_one_evaluation_gives_the_likelihood_of_a_law_that_the_energy_represents(getkey):
    """Independent tokens, `E = 0`: the chain rule, enumeration and `F` agree."""
    energy = functional(getkey())
    quiet = jax.tree.map(jnp.zeros_like, energy.network.synapses["blocks"])
    energy = eqx.tree_at(lambda e: e.network.synapses["blocks"], energy, quiet)
    every = jnp.stack(jnp.meshgrid(*[jnp.arange(V)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    log_p = jax.vmap(energy.log_likelihood)(every)
    np.testing.assert_allclose(jax.nn.logsumexp(log_p), 0.0, atol=1e-10)
    np.testing.assert_allclose(log_p, jnp.sum(jax.nn.log_softmax(energy.vocabulary.prior)[every], axis=-1), atol=1e-10)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"depth": 0}, "`depth` is 0"),
        ({"heads": 3}, "`heads` is 3"),
        ({"dim": 15}, "`dim` is 15"),
        ({"memories": -1}, "`memories` is -1"),
        ({"convolution": -1}, "`convolution` is -1"),
        ({"dim": 12, "heads": 2, "rotary": True}, "rotary"),
    ],
)
def test_sizes_that_do_not_fit_are_named(sizes, message, getkey):
    with pytest.raises(ValueError, match=message):
        ed.energy.DeepStack(**{"dim": 16, "heads": 2, **sizes}, key=getkey())


def test_attribution_adds_up_by_layer_head_memory_and_token(getkey):
    energy = functional(getkey())
    y, b = (leaf[0] for leaf in passages(getkey(), 1))
    field = ed.flow.Relaxation(energy, ed.flow.Likelihood(b))
    why = jax.jit(lambda y: ed.probe.attribution(0.0, y, field))(y)
    np.testing.assert_allclose(why.total, why.log_odds, atol=1e-9)
    layers = {f"{kind} {n}" for kind in ("attention", "convolution", "memory") for n in (1, 2)}
    assert set(why.parts) == layers | {"prior", "evidence", "bias", "residual"}
    assert set(why.neighbours) == layers
    assert set(why.heads) == {"attention 1", "attention 2"} and set(why.memories) == {"memory 1", "memory 2"}
    for split in (why.neighbours, why.heads, why.memories):
        for name, each in split.items():
            np.testing.assert_allclose(each.sum(-1), why.parts[name], atol=1e-9)


def test_layers_keep_their_order_when_a_stack_is_mapped(getkey):
    stack, g = ed.energy.DeepStack(D, convolution=1, key=getkey()), getkey.normal((L, D))
    np.testing.assert_array_equal(jax.tree.map(lambda leaf: leaf, stack).per_token(g), stack.per_token(g))


def test_force_is_the_whole_chain_of_blocks(getkey):
    """Every layer reads what all layers before it added."""
    stack, g = ed.energy.DeepStack(D, memories=6, key=getkey()), getkey.normal((L, D))
    stream = g[:, : D // 2] + stack.background
    energy, norm = 0.0, lambda z: (z - z.mean(-1, keepdims=True)) / jnp.sqrt(z.var(-1, keepdims=True) + 1e-5)
    for block in stack.blocks:
        for kind in ("attention", "memory"):
            delta = block[kind].read(norm(stream), jnp.ones((L, L), bool))
            stream, energy = stream + delta, energy - jnp.sum(g[:, D // 2 :] * delta, axis=-1)
    np.testing.assert_allclose(stack.per_token(g), energy, atol=1e-12)


@pytest.mark.parametrize("settings", [dict(block=2, convolution=2), dict(rotary=True)])
def test_a_long_passage_is_read_in_chunks_and_reads_the_same(settings, getkey, monkeypatch):
    """Value, force, and the gradient of the force that a training follows; padding and blocks as in a short one."""
    monkeypatch.setattr("energy_dllm.energy._layers.CHUNK", 3)
    stack, g, u = ed.energy.DeepStack(D, heads=1, reach=2, key=getkey(), **settings), *(getkey.normal((7, D)),) * 2
    mask, found = jnp.arange(7) < 6, []
    energy = lambda stack, g: jnp.sum(stack.per_token(g, mask))
    along = lambda stack: jnp.sum(u * jax.grad(energy, 1)(stack, g))
    for long in (1024, 4):
        monkeypatch.setattr("energy_dllm.energy._deep.LONG", long)
        both = lambda stack: (energy(stack, g), jax.grad(energy, 1)(stack, g), eqx.filter_grad(along)(stack))
        found.append(eqx.filter_jit(lambda stack, both=both: both(stack))(stack))
    plain, chunks = map(jax.tree.leaves, found)
    assert len(plain) == len(chunks) > 10
    for one, other in zip(plain, chunks, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)


def test_memory_of_a_force_is_linear_in_the_length(getkey, monkeypatch):
    monkeypatch.setattr("energy_dllm.energy._layers.CHUNK", 8)
    monkeypatch.setattr("energy_dllm.energy._deep.LONG", 64)
    stack, force = ed.energy.DeepStack(D, depth=1, key=getkey()), jax.grad(lambda g, stack: stack(g))

    def memory(length):
        jitted: Any = eqx.filter_jit(force)
        program = jitted.lower(jnp.zeros((length, D)), stack).compile()
        return program.compiled.memory_analysis().temp_size_in_bytes

    assert memory(1024) < 2.4 * memory(512)
