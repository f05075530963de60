"""Every member of every family: adding a member means adding one line here and inheriting all the laws."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

import energy_dllm as ed
from energy_dllm.energy import AbstractFreeEnergy
from energy_dllm.energy._empirical import Codes


NEURONS = {
    "identity": lambda: ed.energy.Identity(),
    "softmax": lambda: ed.energy.Softmax(beta=1.7),
    "layer norm": lambda: ed.energy.LayerNorm(gamma=1.3, epsilon=0.7),
    "tanh": lambda: ed.energy.Tanh(beta=1.4),
    "rectifier": lambda: ed.energy.Rectifier(),
    "silent": lambda: ed.energy.Silent(),
}

SYNAPSES = {
    "pairwise": lambda dim, key: ed.energy.Pairwise(dim, offsets=3, rank=4, key=key),
    "attention": lambda dim, key: ed.energy.Attention(dim, heads=2, head_dim=4, reach=3, key=key),
    "rotary attention": lambda dim, key: ed.energy.Attention(dim, heads=2, head_dim=4, rotary=True, key=key),
    "mapping": lambda dim, key: ed.energy.MappingMemory(dim, memories=9, key=key),
    "convolutional": lambda dim, key: ed.energy.ConvolutionalMemory(dim, memories=9, reach=2, key=key),
    "deep": lambda dim, key: ed.energy.DeepStack(dim, depth=2, heads=2, convolution=1, reach=3, key=key),
    "deep rotary": lambda dim, key: ed.energy.DeepStack(dim, depth=2, heads=2, memories=5, rotary=True, key=key),
    "deep in blocks": lambda dim, key: ed.energy.DeepStack(
        dim, depth=2, heads=2, memories=5, convolution=2, reach=3, block=3, key=key
    ),
    "deep shifted": lambda dim, key: ed.energy.DeepStack(
        dim, depth=2, heads=2, memories=5, convolution=2, reach=3, shift=True, key=key
    ),
    "deep shifted in order": lambda dim, key: ed.energy.DeepStack(
        dim, depth=2, heads=2, memories=5, convolution=2, reach=3, shift=True, block=1, key=key
    ),
    "deep convolutional": lambda dim, key: ed.energy.ConvolutionalMemory(
        dim, memories=5, depth=3, reach=1, rank=4, key=key
    ),
    "rectified": lambda dim, key: ed.energy.DenseMemory(dim, memories=9, neurons=ed.energy.Rectifier(), key=key),
    "centred memory": lambda dim, key: ed.energy.DenseMemory(dim, memories=9, neurons=ed.energy.LayerNorm(), key=key),
    "softmax memory": lambda dim, key: ed.energy.DenseMemory(
        dim, memories=9, neurons=ed.energy.Softmax(beta=1.5), key=key
    ),
    "token memory": lambda dim, key: ed.memory.TokenMemory(
        ed.memory.LogSumExpMemory(jax.random.normal(key, (9, dim)), beta=1.5)
    ),
    "sequence memory": lambda dim, key: ed.memory.SequenceMemory(
        ed.memory.GaussianMemory(jax.random.normal(key, (9, 7 * dim)), beta=0.1)
    ),
}

# Of patterns (M, N), with whatever else they have away from its default.
MEMORIES = {
    "hopfield": lambda xi, **w: ed.memory.HopfieldMemory(xi, **w),
    "polynomial": lambda xi, **w: ed.memory.PolynomialMemory(xi, degree=4, **w),
    "exponential": lambda xi, **w: ed.memory.ExponentialMemory(xi, beta=0.3, **w),
    "simplicial": lambda xi, **w: ed.memory.SimplicialMemory(xi, **w),
    "some triples": lambda xi, **w: ed.memory.SimplicialMemory(xi, triples=jnp.array([[0, 1, 2], [4, 3, 1]]), **w),
    "log-sum-exp": lambda xi, **w: ed.memory.LogSumExpMemory(xi, beta=0.7, **w),
    "gaussian": lambda xi, **w: ed.memory.GaussianMemory(xi, beta=0.7, **w),
    "log-sum-relu": lambda xi, **w: ed.memory.KernelMemory(xi, beta=0.1, **w),
    "log-sum-relu, floor": lambda xi, **w: ed.memory.KernelMemory(xi, beta=0.7, floor=1e-3, **w),
    "kernel": lambda xi, **w: ed.memory.KernelMemory(xi, beta=0.2, power=2.5, **w),
}
FEATURES = {
    "positive": lambda dim, **w: ed.memory.PositiveFeatureMemory(dim, beta=0.7, **w),
    "trigonometric": lambda dim, **w: ed.memory.TrigonometricFeatureMemory(dim, beta=0.7, **w),
}


def make_energy(key, *, dim=8, size=5, neurons="layer norm", synapses=("pairwise", "attention", "mapping")):
    """A small landscape with random non-zero parameters everywhere."""
    k1, k2, k3, *keys = jax.random.split(key, 3 + len(synapses))
    network = ed.energy.Network(
        NEURONS[neurons](),
        {name: SYNAPSES[name](dim, k) for name, k in zip(synapses, keys, strict=True)},
        0.3 * jax.random.normal(k1, (dim,)),
    )
    vocabulary = ed.energy.Vocabulary(size, dim, key=k2)
    energy = ed.energy.FreeEnergy(network, vocabulary, kappa=dim / 2)
    return jax.tree.map(lambda leaf: leaf, energy), 0.7 * jax.random.normal(k3, (6, dim))


def small_model(alphabet, *, steps=3):
    """A model with one synapse: where the laws are about writing, the compiler has less to do."""
    tokenizer = ed.data.Characters(alphabet)
    k1, k2 = jax.random.split(jax.random.key(0))
    network = ed.energy.Network(
        ed.energy.LayerNorm(), {"pairwise": ed.energy.Pairwise(16, offsets=2, rank=4, key=k1)}, jnp.zeros(16)
    )
    energy = ed.energy.FreeEnergy(network, ed.energy.Vocabulary(tokenizer.size, 16, key=k2), kappa=8.0)
    return ed.EnergyDLLM(tokenizer, energy=energy, steps=steps, key=k1)


def left_to_right(alphabet):
    """A small model that reads passages as a whole and from left to right, whose tokens have much to say to another."""
    sizes: dict = {"dim": 16, "depth": 2, "memories": 8, "blocks": (0, 1)}
    model = ed.EnergyDLLM(ed.data.Characters(alphabet), **sizes, key=jax.random.key(3))
    patterns = 1.5 * jax.random.normal(jax.random.key(4), model.energy.vocabulary.patterns.shape)
    return eqx.tree_at(lambda m: m.energy.vocabulary.patterns, model, patterns)


def finite_difference(function, point, direction, epsilon=1e-5):
    """Central difference of a scalar function of a PyTree along a direction."""
    point, direction = host(point), host(direction)
    ahead = jax.tree.map(lambda p, d: p + epsilon * d, point, direction)
    behind = jax.tree.map(lambda p, d: p - epsilon * d, point, direction)
    return (function(ahead) - function(behind)) / (2 * epsilon)


def host(tree):
    """Arrays as numpy: to compute with them, or to compare them, compiles nothing. What is being traced stays."""
    known = lambda leaf: isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer)
    return jax.tree.map(lambda leaf: np.asarray(leaf) if known(leaf) else leaf, tree)


def random_like(tree, key):
    """A random direction in the space of a PyTree of arrays."""
    draw = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    return jax.tree.map(lambda leaf: draw.normal(size=leaf.shape).astype(leaf.dtype), tree)


def dot(a, b):
    """Inner product of two PyTrees."""
    return sum((x * y).sum() for x, y in zip(jax.tree.leaves(host(a)), jax.tree.leaves(host(b)), strict=True))


def likely(ids, law):
    """Chi-square of sequences of three tokens against their law, in bins that are large enough."""
    found = np.bincount(ids @ 3 ** np.arange(3, -1, -1), minlength=81)
    expected = law * len(ids)
    assert not found[law == 0].any()
    rare = (expected < 5) & (law > 0)
    found, expected = (np.append(n[(law > 0) & ~rare], n[rare].sum()) for n in (found, expected))
    kept = expected > 0
    degrees = kept.sum() - 1
    # mean and standard deviation of chi-square, four of them above
    assert np.sum((found - expected)[kept] ** 2 / expected[kept]) < degrees + 4 * np.sqrt(2 * degrees)


class Markov(AbstractFreeEnergy):
    """The exact free energy of a Markov chain, at any length: `F = -log sum_s P(s) exp(sum_i b_i(s_i))`."""

    vocabulary: Codes
    background: ed.energy.NGram

    def __init__(self, counts):
        self.vocabulary, self.background = Codes(jnp.eye(len(counts))), ed.energy.NGram(counts)

    @property
    def kappa(self):
        return jnp.ones(())

    @property
    def dim(self):
        return 0

    @property
    def size(self):
        return self.background.size

    def neutral(self, length):
        return jnp.zeros((length, 0))

    def terms(self, y, b, *, spring=None, mask=None):
        here = jnp.ones(b.shape[0], bool) if mask is None else mask
        terms = {"chain": jnp.where(here, self.background(jnp.where(here[:, None], b, 0.0)) / jnp.sum(here), 0.0)}
        return terms if spring is None else terms | {"spring": jnp.where(here, spring, 0.0)}

    def force(self, y, b, *, mask=None):
        return jnp.zeros_like(y)

    def forces(self, y, b, *, mask=None):
        return {}

    def logits(self, y, b):
        return jnp.log(jnp.maximum(self.background.posterior(b), 1e-300))

    def sample(self, y, b, *, tilt=0.0, dfa=None, key):
        assert dfa is None
        logits = self.logits(y, b) + tilt
        return jnp.argmax(logits, axis=-1) if key is None else jax.random.categorical(key, logits, axis=-1)


COUNTS = [[2.0, 900.0, 3.0], [3.0, 4.0, 700.0], [600.0, 4.0, 9.0]]


def markov_model():
    """A chain in which the next token is nearly known, and no neurons; and the law of its first token and the next."""
    energy = Markov(jnp.array(COUNTS))
    model = ed.EnergyDLLM(ed.data.Characters("abc"), energy=energy, steps=1, key=jax.random.key(0))
    context, table = (np.asarray(part) for part in energy.background.tables())
    return model, context @ table, table
