"""Memories of one state: formulas, forces, identities with diffusion, and what happens to bad input."""

import itertools

import equinox as eqx
import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energy_dllm as ed


energy = eqx.filter_jit(lambda memory, x: memory(x))
pull = eqx.filter_jit(lambda memory, x: jax.grad(memory)(x))
energies = eqx.filter_jit(lambda memory, xs: jax.vmap(memory)(xs))
pulls = eqx.filter_jit(lambda memory, xs: jax.vmap(jax.grad(memory))(xs))


@pytest.fixture(params=families.MEMORIES)
def name(request):
    return request.param


def some(getkey, count=5, dim=6):
    """Patterns, weights and a state, none of them special."""
    draw = np.random.default_rng(getkey.seed)
    drawn = draw.normal(size=(count, dim)), draw.uniform(0.5, 2.0, count), 0.8 * draw.normal(size=dim)
    return tuple(jnp.asarray(part) for part in drawn)


def triples(z):
    return sum(z[i] * z[j] * z[k] for i, j, k in itertools.combinations(range(len(z)), 3))


# Written out pattern by pattern, as the papers have them.
FORMULAS = {
    "hopfield": lambda xi, w, x: sum(-0.5 * v * (p @ x) ** 2 for p, v in zip(xi, w, strict=True)),
    "polynomial": lambda xi, w, x: sum(-v * max(p @ x, 0) ** 4 / 4 for p, v in zip(xi, w, strict=True)),
    "exponential": lambda xi, w, x: sum(
        -v * np.exp(0.3 * (p @ x - max(q @ q for q in xi))) / 0.3 for p, v in zip(xi, w, strict=True)
    ),
    "simplicial": lambda xi, w, x: sum(-v * triples(p * x) for p, v in zip(xi, w, strict=True)),
    "some triples": lambda xi, w, x: sum(
        -v * (z[0] * z[1] * z[2] + z[1] * z[3] * z[4]) for z, v in zip(xi * x, w, strict=True)
    ),
    "log-sum-exp": lambda xi, w, x: x @ x / 2 - np.log(sum(w * np.exp(0.7 * xi @ x))) / 0.7,
    "gaussian": lambda xi, w, x: -np.log(sum(w * np.exp(-0.35 * ((xi - x) ** 2).sum(1)))) / 0.7,
    "log-sum-relu": lambda xi, w, x: -np.log(sum(w * np.maximum(1 - 0.05 * ((xi - x) ** 2).sum(1), 0))) / 0.1,
    "log-sum-relu, floor": lambda xi, w, x: (
        -np.log(1e-3 + sum(w * np.maximum(1 - 0.35 * ((xi - x) ** 2).sum(1), 0))) / 0.7
        + max(((xi - x) ** 2).sum(1).min() - 2 / 0.7, 0) / 2
    ),
    "kernel": lambda xi, w, x: -np.log(sum(w * np.maximum(1 - 0.04 * ((xi - x) ** 2).sum(1), 0) ** 2.5)) / 0.2,
}


# ------------------------------------------------------------------------------------------- every memory


def test_a_memory_is_its_formula(name, getkey):
    xi, w, x = some(getkey)
    memory = families.MEMORIES[name](xi, weights=w)
    for state in (x, xi[2] + 0.1 * x):  # the second inside the support of a narrow kernel too
        exact = FORMULAS[name](np.asarray(xi), np.asarray(w), np.asarray(state))
        assert np.allclose(energy(memory, state), exact, rtol=1e-12)


def test_force_and_parameters_have_true_gradients(name, getkey):
    xi, w, x = some(getkey)
    parameters, static = eqx.partition((families.MEMORIES[name](xi, weights=w), x), eqx.is_inexact_array)

    @jax.jit
    def value(both):
        memory, x = eqx.combine(both, static)
        return memory(x)

    direction = families.random_like(parameters, getkey())
    slope = families.finite_difference(value, parameters, direction)
    assert jnp.allclose(families.dot(jax.grad(value)(parameters), direction), slope, rtol=1e-6, atol=1e-8)


def test_energy_and_force_are_the_sums_of_their_parts(name, getkey):
    """Inside the supports, and where a far field is the force."""
    xi, w, x = some(getkey)
    synapse = ed.memory.TokenMemory(families.MEMORIES[name](xi, weights=w))
    g = jnp.stack([x, xi[2] + 0.1 * x, x if name in ("log-sum-relu", "kernel") else 9.0 * x])

    @jax.jit
    def parts(g, u):
        message = -jax.jvp(synapse.per_token, (g,), (u,))[1]
        return (synapse.per_token(g), synapse.per_memory(g)), (message, synapse.by_memory(g, u))

    for whole, split in parts(g, jnp.asarray(np.random.default_rng(2).normal(size=g.shape))):
        assert np.allclose(whole, split.sum(1), rtol=1e-10, atol=1e-12)


def test_patterns_come_and_go(name, getkey):
    xi, w, x = some(getkey)
    make = families.MEMORIES[name]
    whole = make(xi, weights=w)
    part = make(xi[:3], weights=w[:3])
    before, after = energy(part, x), energy(whole, x)
    assert np.allclose(energy(part.add(xi[3:], weights=w[3:]), x), after, rtol=1e-13)
    assert np.allclose(energy(whole.remove(3, -1), x), before, rtol=1e-13)
    assert np.allclose(energy(make(xi).reweight(w), x), after, rtol=1e-13)
    assert energy(part, x) == before and part.patterns.shape == (3, 6)


@pytest.mark.parametrize(
    "make",
    [
        ed.memory.ExponentialMemory,
        ed.memory.LogSumExpMemory,
        ed.memory.GaussianMemory,
        lambda xi, beta: ed.memory.KernelMemory(xi, beta=beta, floor=1e-6),
        lambda xi, beta: ed.memory.KernelMemory(xi, beta=beta, power=3.0, floor=1e-6),
    ],
)
def test_extreme_temperatures_and_far_queries_stay_finite(make, getkey):
    xi, _, x = some(getkey)
    everything = eqx.filter_jit(jax.vmap(jax.value_and_grad(lambda m, x: m(x), argnums=(0, 1)), in_axes=(None, 0)))
    for (dtype, far), beta in itertools.product([(jnp.float64, 1e6), (jnp.float32, 1e3)], (1e-6, 1.0, 1e6)):
        memory = make(xi.astype(dtype), beta=jnp.asarray(beta, dtype))
        queries = jnp.stack([x, 1e-3 * x, far * x, -far * x, xi[0]]).astype(dtype)
        for leaf in jax.tree.leaves(everything(memory, queries)):
            assert np.isfinite(leaf).all(), (dtype, beta)


# ------------------------------------------------------------------------------------------- identities


def log_density(xi, x, sigma):
    """`log 1/K sum N(x; xi, sigma^2)`, by another road than the library's."""
    dim = x.shape[-1]
    terms = -jnp.sum((x - xi) ** 2, axis=-1) / (2 * sigma**2) - dim / 2 * jnp.log(2 * jnp.pi * sigma**2)
    top = jnp.max(terms)
    return top + jnp.log(jnp.mean(jnp.exp(terms - top)))


def test_a_gaussian_memory_is_diffusion(getkey):
    """Identities 1 to 6: density, Tweedie, second order, heat equation, probability flow, dot products."""
    xi, _, x = some(getkey, 7, 4)
    sigma = 0.8
    data = ed.energy.Empirical.of_vectors(xi)
    exact = ed.flow.ProbabilityFlow(data, steps=1)

    @jax.jit
    def measured(xi, x, sigma):
        memory = ed.memory.GaussianMemory(xi, beta=sigma**-2)
        score, heat = jax.grad(lambda x, s: log_density(xi, x, s), argnums=(0, 1))(x, sigma)
        return {
            "energy": memory(x),
            "shares": memory.shares(x),
            "pull": jax.grad(memory)(x),
            "hessian": jax.hessian(memory)(x),
            "log p": log_density(xi, x, sigma),
            "score": score,
            "heat": heat,
            "laplacian": jnp.trace(jax.hessian(lambda x: log_density(xi, x, sigma))(x)),
            "flow": exact(-jnp.log(sigma), x[None])[0],
            "log p of Empirical": data.log_density(x[None], sigma),
        }

    m = {name: np.asarray(value) for name, value in measured(xi, x, sigma).items()}
    xi, x, p = np.asarray(xi), np.asarray(x), m["shares"]
    constant = sigma**2 * (-np.log(7) - 2 * np.log(2 * np.pi * sigma**2))
    assert np.allclose(m["energy"], -(sigma**2) * m["log p"] + constant, atol=1e-12)  # 1
    assert np.allclose(m["log p of Empirical"], m["log p"], atol=1e-12)
    assert np.allclose(p.sum(), 1.0) and np.allclose(m["pull"], x - p @ xi, atol=1e-12)  # 2
    assert np.allclose(m["score"], -m["pull"] / sigma**2, atol=1e-12)
    centred = xi - p @ xi
    assert np.allclose(m["hessian"], np.eye(4) - centred.T @ (p[:, None] * centred) / sigma**2, atol=1e-12)  # 3
    assert np.allclose(m["heat"], sigma * (m["laplacian"] + m["score"] @ m["score"]), atol=1e-10)  # 4
    # 5: dx/dsigma = -sigma score, so that dx/ds = -grad E in noise time s = -log sigma
    assert np.allclose(m["flow"], sigma**2 * m["score"], atol=1e-12) and np.allclose(m["flow"], -m["pull"], atol=1e-12)

    unit = xi / np.linalg.norm(xi, axis=1, keepdims=True)
    dot, distance = ed.memory.LogSumExpMemory(unit, beta=1.3), ed.memory.GaussianMemory(unit, beta=1.3)
    x = jnp.asarray(x)
    assert np.allclose(energy(distance, x), energy(dot, x) + 0.5, atol=1e-12)  # 6
    biased = dot.reweight(jnp.exp(-0.65 * (xi**2).sum(1)))
    biased = eqx.tree_at(lambda memory: memory.patterns, biased, jnp.asarray(xi))
    assert np.allclose(energy(ed.memory.GaussianMemory(xi, beta=1.3), x), energy(biased, x), atol=1e-12)


def test_a_symmetric_pair_divides_at_its_own_norm(getkey):
    """Identity 7: the origin is stable above `sigma = |xi|`; below, `m xi` is, `m = tanh(m |xi|^2 / sigma^2)`."""
    xi = np.random.default_rng(getkey.seed).normal(size=5)
    pair = lambda ratio: ed.memory.GaussianMemory(np.stack([xi, -xi]), beta=float((ratio**2 * xi @ xi) ** -1))
    curvature = eqx.filter_jit(lambda memory: jax.hessian(memory)(jnp.zeros(5)))
    for ratio in (0.99, 1.0, 1.01):
        assert np.allclose(np.linalg.eigvalsh(curvature(pair(ratio)))[0], 1 - ratio**-2, atol=1e-12)
    m = 1.0
    for _ in range(200):
        m = np.tanh(m / 0.8**2)
    assert 0.5 < m < 0.99
    assert np.allclose(pull(pair(0.8), jnp.asarray(m * xi)), 0.0, atol=1e-10)


def test_information_is_the_integral_of_the_error():
    """Identity 10, I-MMSE: `dI / d(1/sigma^2) = MMSE / 2`, by quadrature in one dimension."""
    xi = jnp.array([-1.3, 0.2, 0.9])
    nodes, weights = np.polynomial.hermite_e.hermegauss(160)
    nodes, weights = jnp.asarray(nodes), jnp.asarray(weights) / np.sqrt(2 * np.pi)

    def averaged(read, snr):
        memory = ed.memory.GaussianMemory(xi[:, None], beta=snr)
        values = jax.vmap(lambda m, z: read(memory, m, (m + z * snr**-0.5)[None]), in_axes=(None, 0))
        return jnp.mean(jax.vmap(values, in_axes=(0, None))(xi, nodes) @ weights)

    def information(snr):  # log p(x | xi) - log p(x), the normalisers cancel
        read = lambda memory, m, x: -snr * jnp.sum((x - m) ** 2) / 2 + snr * memory(x) + jnp.log(3.0)
        return averaged(read, snr)

    def error(snr):
        return averaged(lambda memory, m, x: jnp.sum((memory.shares(x) @ xi[:, None] - m) ** 2), snr)

    both = jax.jit(lambda snr: (jax.grad(information)(snr), error(snr) / 2))
    for snr in (0.5, 1.5):
        assert np.allclose(*both(snr), atol=1e-10)


def test_a_dense_circle_is_a_bessel_function():
    """Identity 11 in our convention: `E(R) = (R^2 + 1)/2 - log I0(beta R) / beta`, score radial."""
    angle = 2 * jnp.pi * jnp.arange(1000) / 1000
    circle = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    memory = ed.memory.GaussianMemory(circle, beta=9.0, weights=jnp.full(1000, 1e-3))
    log_bessel = lambda z: jnp.log(jax.scipy.special.i0e(z)) + z
    x = jnp.array([0.3, -0.7])
    radius = jnp.linalg.norm(x)
    exact = lambda r: (r**2 + 1) / 2 - log_bessel(9.0 * r) / 9.0
    height, slope = jax.jit(jax.value_and_grad(exact))(radius)
    assert np.allclose(energy(memory, x), height, atol=1e-10)
    assert np.allclose(pull(memory, x), slope * x / radius, atol=1e-10)


def separated(key, radius, count=12, dim=3):
    """Points on a lattice, shaken: no two closer than `radius`."""
    grid = jnp.stack(jnp.meshgrid(*[jnp.arange(4.0)] * dim), axis=-1).reshape(-1, dim)
    rows = jax.random.permutation(key, grid)[:count]
    return radius * (1.4 * rows + 0.2 * jax.random.uniform(key, (count, dim)))


def test_log_sum_relu_stores_exactly(getkey):
    """Identity 18 and the theorem: at `beta = 2 / (r - Delta)^2` every memory is an exact zero, and within `Delta` one
    step of size `S / |B|` arrives on it; log-sum-exp at the same `beta` has neither."""
    xi = separated(getkey(), 1.0)
    gaps = jnp.linalg.norm(xi[:, None] - xi + 1e9 * jnp.eye(len(xi))[:, :, None], axis=-1)
    delta = 0.2
    beta = 2 / (gaps.min() - delta) ** 2
    hard, soft = ed.memory.KernelMemory(xi, beta=beta), ed.memory.GaussianMemory(xi, beta=beta)
    assert jnp.all(pulls(hard, xi) == 0)
    assert jnp.all(jnp.abs(pulls(soft, xi)).max(axis=-1) > 1e-4)

    offset = jax.random.normal(getkey(), xi.shape)
    cue = xi + 0.99 * delta * offset / jnp.linalg.norm(offset, axis=1, keepdims=True)
    kernel = jnp.exp(-beta * energies(hard, cue))  # floor + S, with one pattern active
    assert jnp.allclose(cue - kernel[:, None] * pulls(hard, cue), xi, atol=1e-12)


def test_log_sum_relu_has_minima_at_centroids(getkey):
    xi = np.array([[0.0, 0.0], [1.0, 0.2], [9.0, 9.0]])
    memory = ed.memory.KernelMemory(jnp.asarray(xi), beta=0.5, floor=1e-4)
    x, centroid = np.array([0.6, 0.3]), xi[:2].mean(0)
    total = np.exp(-0.5 * energy(memory, x))
    assert np.allclose(x - total / 2 * np.asarray(pull(memory, x)), centroid, atol=1e-12)
    assert np.allclose(pull(memory, centroid), 0.0, atol=1e-12)


def test_kernels_lie_between_log_sum_relu_and_log_sum_exp(getkey):
    xi, _, x = some(getkey)
    end = energy(ed.memory.GaussianMemory(xi, beta=0.3), x)
    powers = (8.0, 80.0, 800.0)
    errors = [abs(float(energy(ed.memory.KernelMemory(xi, beta=0.3, power=m), x)) - float(end)) for m in powers]
    slope = np.polyfit(np.log(powers), np.log(errors), 1)[0]
    near_the_rim = jnp.asarray(np.array(xi[0]) + 0.999 * np.sqrt(1600 / 0.3) * np.eye(6)[0])
    alone = ed.memory.KernelMemory(xi[:1], beta=0.3, power=800.0)
    assert np.isfinite(energy(alone, near_the_rim))  # where the kernel itself has long rounded to 0
    assert -1.15 < slope < -0.9  # m log(1 - u/m) = -u - u^2 / (2 m) ...


def test_what_is_not_there_counts_on_neither_side(getkey):
    """A short or padded sequence meets only the part of the patterns that it can be compared with."""
    xi, _, _ = some(getkey, 5, 12)
    synapse = ed.memory.SequenceMemory(ed.memory.GaussianMemory(xi, beta=0.4))
    g = jnp.asarray(np.random.default_rng(1).normal(size=(6, 2)))
    short = energy(ed.memory.GaussianMemory(xi[:, :8], beta=0.4), g[:4].reshape(-1))
    padded = eqx.filter_jit(lambda synapse, g, mask: synapse(g, mask))(synapse, g, jnp.arange(6) < 4)
    assert np.allclose(energy(synapse, g[:4]), short, atol=1e-12) and np.allclose(padded, short, atol=1e-12)


def test_outside_every_support_is_said(getkey):
    xi, _, _ = some(getkey)
    lost = 100.0 + jnp.zeros(6)
    strict = ed.memory.KernelMemory(xi, beta=0.7)
    covers, shares = eqx.filter_jit(strict.covers), eqx.filter_jit(strict.shares)
    assert not covers(lost) and covers(xi[1]) and np.all(shares(lost) == 0)
    with pytest.raises(RuntimeError, match="outside every support"):
        jax.block_until_ready(jax.grad(strict)(lost))
    kind = ed.memory.KernelMemory(xi, beta=0.7, floor=1e-6)
    away = np.asarray(lost) - np.asarray(xi)
    assert np.allclose(pull(kind, lost), away[np.linalg.norm(away, axis=1).argmin()])
    rim = np.array([1 - 1e-9, 1 + 1e-9])[:, None] * float(kind.radius) * np.eye(6)[0]
    one = ed.memory.KernelMemory(jnp.zeros((1, 6)), beta=0.7, floor=1e-6)
    assert abs(np.diff(energies(one, rim))[0]) < 1e-2  # continuous, if steep


# ------------------------------------------------------------------------------------------- random features


@pytest.fixture(params=families.FEATURES, scope="module")
def features(request):
    """Two patterns and then four more, in a memory of 64 features, and everything that is asked of it."""
    draw = np.random.default_rng(3)
    xi, w, x = (jnp.asarray(0.5 * part) for part in (draw.normal(size=(6, 3)), 1 + draw.random(6), draw.normal(size=3)))
    make = lambda size, key: families.FEATURES[request.param](3, features=size, key=key)
    return make, xi, w, x


def test_features_add_and_forget(features):
    make, xi, w, _ = features
    empty = make(64, jax.random.key(0))
    whole, part = empty.add(xi, weights=w, chunk=4), empty.add(xi[:2], weights=w[:2], chunk=4)
    of_row = eqx.filter_jit(empty.features)
    assert np.allclose(whole.total, np.asarray(w) @ np.stack([of_row(row) for row in xi]), atol=1e-12)
    assert np.allclose(part.add(xi[2:], weights=w[2:], chunk=4).total, whole.total, atol=1e-12)
    assert np.allclose(whole.remove(xi[2:], weights=w[2:], chunk=4).total, part.total, atol=1e-12)
    assert not np.any(part.remove(xi[:2], weights=w[:2], chunk=4).total) and part.count == 2 and whole.count == 6


def test_the_error_of_features_falls_as_their_root(features):
    make, xi, w, x = features
    exact = float(jnp.exp(-0.7 * ed.memory.GaussianMemory(xi, beta=0.7, weights=w)(x)))

    def error(size):
        one = lambda key: jnp.exp(-0.7 * make(size, key).add(xi, weights=w)(x))
        found = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(size), 200)))
        return np.sqrt(np.mean((found / exact - 1) ** 2))

    assert abs(np.log(error(1024) / error(32)) / np.log(32) + 0.5) < 0.1


def test_features_never_lose_their_gradient(features):
    make, xi, _, _ = features
    memory = make(128, jax.random.key(1)).add(xi)
    queries = 6.0 * jax.random.normal(jax.random.key(2), (200, 3))
    heights, slopes = jax.jit(jax.vmap(jax.value_and_grad(memory)))(queries)
    assert np.isfinite(heights).all() and (np.linalg.norm(slopes, axis=1) > 1e-6).all()
    if isinstance(memory, ed.memory.TrigonometricFeatureMemory):  # whose logarithm would have been clipped here
        assert 0.1 < np.mean(~jax.vmap(memory.covers)(queries)) < 0.9


# ------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ed.memory.HopfieldMemory(jnp.zeros((0, 4))), r"`patterns` has shape \(0, 4\); expected \(M, N\)"),
        (lambda: ed.memory.GaussianMemory(jnp.zeros(4)), r"`patterns` has shape \(4,\)"),
        (lambda: ed.memory.GaussianMemory([jnp.zeros(4), jnp.zeros(3)]), r"the shapes \[\(3,\), \(4,\)\]"),
        (lambda: ed.memory.GaussianMemory(jnp.eye(3), beta=0.0), "`beta` is 0.0"),
        (lambda: ed.memory.LogSumExpMemory(jnp.eye(3), beta=-2.0), "`beta` is -2.0"),
        (lambda: ed.memory.KernelMemory(jnp.eye(3), power=0.5), "`power` is 0.5"),
        (lambda: ed.memory.KernelMemory(jnp.eye(3), floor=-1.0), "`floor` is -1.0"),
        (lambda: ed.memory.PolynomialMemory(jnp.eye(3), degree=1), "`degree` is 1"),
        (lambda: ed.memory.SimplicialMemory(jnp.eye(2)), "width 2; three bodies"),
        (lambda: ed.memory.SimplicialMemory(jnp.eye(4), triples=jnp.array([[0, 1, 1]])), "three different neurons"),
        (lambda: ed.memory.SimplicialMemory(jnp.eye(4), triples=jnp.array([0, 1])), r"`triples` has shape \(2,\)"),
        (lambda: ed.memory.GaussianMemory(jnp.eye(3), weights=jnp.ones(2)), r"`weights` has shape \(2,\)"),
        (lambda: ed.memory.GaussianMemory(jnp.eye(3)).remove(3), "`indices` has 3; the memory holds 3"),
        (lambda: ed.memory.GaussianMemory(jnp.eye(3)).remove(0, 1, 2), "leave no pattern"),
        (lambda: ed.memory.GaussianMemory(jnp.eye(3)).add(jnp.ones((1, 4))), "`patterns` have width 4"),
        (lambda: ed.memory.GaussianMemory(jnp.eye(3))(jnp.ones(4)), r"`x` has shape \(4,\); expected \(3,\)"),
        (lambda: ed.memory.PositiveFeatureMemory(3, beta=0.0, key=jax.random.key(0)), "`beta` is 0.0"),
        (lambda: ed.memory.PositiveFeatureMemory(3, features=0, key=jax.random.key(0)), "`features` is 0"),
        (lambda: ed.memory.TrigonometricFeatureMemory(3, floor=0.0, key=jax.random.key(0)), "`floor` is 0.0"),
        (lambda: ed.memory.PositiveFeatureMemory(3, key=jax.random.key(0)).add(jnp.ones((1, 4))), "have width 4"),
        (lambda: ed.memory.SequenceMemory(ed.memory.GaussianMemory(jnp.eye(6)))(jnp.ones((4, 2))), "3 tokens of width"),
    ],
)
def test_what_does_not_fit_is_named(make, message, unchecked):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ed.memory.HopfieldMemory(jnp.array([[1.0, jnp.nan]])), "`patterns` must be finite"),
        (
            lambda: ed.memory.GaussianMemory(jnp.eye(3), weights=jnp.array([1.0, 0.0, 1.0])),
            "`weights` must be positive",
        ),
        (lambda: ed.memory.GaussianMemory(jnp.eye(3), beta=jnp.array(-1.0)), "`beta` is -1.0"),
        (lambda: ed.memory.PositiveFeatureMemory(3, key=jax.random.key(0))(jnp.ones(3)), "the memory is empty"),
        (lambda: ed.memory.TrigonometricFeatureMemory(3, key=jax.random.key(0))(jnp.ones(3)), "the memory is empty"),
        (lambda: ed.memory.PositiveFeatureMemory(3, key=jax.random.key(0)).remove(jnp.ones((1, 3))), "are more than"),
    ],
)
def test_bad_values_are_named(make, message):
    with pytest.raises((ValueError, RuntimeError), match=message):
        jax.block_until_ready(make())
