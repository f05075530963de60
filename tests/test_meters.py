"""Meters of memories: retrieval, capacity, basins, minima, critical noise, memorisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energy_dllm as ed


def signs(draw, *shape):
    return jnp.asarray(draw.choice([-1.0, 1.0], size=shape))


def capacity_at(degree, size, loads, trials=30):
    """The load at which 99 % of the neurons of stored patterns still stay where they are."""

    @jax.jit
    def stable(xi):
        memory = ed.memory.PolynomialMemory(xi, degree=degree)
        flip = 1 - 2 * jnp.eye(size)
        one = lambda x: jnp.mean(jax.vmap(lambda f: memory(f * x) > memory(x))(flip))
        return jnp.mean(jax.vmap(one)(xi[: int(min(loads))]))

    draw = np.random.default_rng(0)
    rows = lambda load: np.pad(draw.choice([-1.0, 1.0], size=(load, size)), ((0, max(loads) - load), (0, 0)))
    # an empty row is no memory: one shape, compiled once, for all loads
    rates = [np.mean([stable(jnp.asarray(rows(load)) / size**0.5) for _ in range(trials)]) for load in loads]
    return ed.memory.capacity(np.array(loads, float), np.array(rates), level=0.99)


def test_the_curve_of_retrieval_is_that_of_flips():
    """The rate the meter gives is the one counted by hand, and it falls with the load."""
    draw = np.random.default_rng(0)
    rates = []
    for load in (2, 12):
        xi = signs(draw, load, 40)
        memory = ed.memory.HopfieldMemory(xi)
        cues = xi * jnp.where(draw.random(xi.shape) < 0.1, -1.0, 1.0)
        recall = lambda x, memory=memory: ed.memory.glauber(memory, x, sweeps=4, key=jax.random.key(1))
        rate = jax.jit(lambda cues, xi=xi, recall=recall: ed.memory.retrieval_rate(recall, xi, cues))(cues)
        by_hand = np.mean(np.all(np.asarray(jax.jit(jax.vmap(recall))(cues)) == np.asarray(xi), axis=1))
        assert np.isclose(rate, by_hand)
        rates.append(float(rate))
    assert rates[0] == 1.0 > rates[1]


def test_capacity_grows_as_the_power_of_the_degree():
    """`M ~ N^(n-1)` at a fixed error, here for `n = 3` from two sizes; all of it in benchmarks/memories.py."""
    small = capacity_at(3, 16, [10, 14, 20, 28, 40, 56])
    large = capacity_at(3, 48, [90, 130, 180, 250, 350, 500], trials=8)
    assert abs(np.log(large / small) / np.log(3) - 2) < 0.25


def test_the_capacity_is_where_the_curve_crosses():
    assert ed.memory.capacity(np.array([1.0, 3.0]), np.array([1.0, 0.0]), level=0.25) == 2.5
    assert ed.memory.capacity(np.array([1.0, 3.0]), np.array([1.0, 0.6])) == float("inf")


def test_a_basin_ends_half_way_to_its_neighbour():
    memory = ed.memory.GaussianMemory(jnp.array([[1.0, 0.0], [-1.0, 0.0]]), beta=50.0)
    read = lambda x: x - jax.grad(memory)(x)
    recall = lambda x: read(read(read(x)))
    radii = jnp.array([0.5, 0.97, 2.0])
    rates = ed.memory.basin(recall, memory.patterns[0], radii, key=jax.random.key(0), tries=200)
    # a circle of radius 2 around (1, 0) lies left of the middle line between angles of +-120 degrees: one third
    assert rates[0] == rates[1] == 1.0 and abs(float(rates[2]) - 2 / 3) < 0.1


def test_minima_are_all_found_once():
    """Below `sigma_c = |xi|` two, at `+-m xi`; above one, at the origin (identities 7 and 8)."""
    starts = jax.random.normal(jax.random.key(0), (24, 3))
    xi = jnp.array([0.9, -0.5, 0.4])
    norm = jnp.linalg.norm(xi)
    for ratio, count in ((0.8, 2), (1.1, 1)):
        memory = ed.memory.GaussianMemory(jnp.stack([xi, -xi]), beta=(ratio * norm) ** -2)
        found = ed.memory.Minima(memory, starts, steps=300)
        assert len(found.points) == count and found.counts.sum() == 24 and found.speed < 1e-6
        m = 1.0
        for _ in range(500):
            m = np.tanh(m / ratio**2)
        assert np.allclose(np.linalg.norm(found.points, axis=1), m * norm, atol=1e-6)
        assert (found.curvature > 0).all() and np.allclose(found.points[found.which], found.points[found.which])
    stuck = ed.memory.Minima(
        ed.memory.GaussianMemory(jnp.stack([xi, -xi]), beta=(0.8 * norm) ** -2), jnp.zeros((1, 3)), steps=50
    )
    assert stuck.curvature[0] < 0  # on the ridge between them: a saddle, and said so


def test_log_sum_relu_has_more_minima_than_memories():
    xi = jnp.array([[0.0, 0.0], [1.0, 0.0], [5.0, 0.0]])
    starts = jnp.stack(jnp.meshgrid(jnp.linspace(-1.0, 6.1, 15), jnp.linspace(-1.0, 1.0, 5)), axis=-1).reshape(-1, 2)
    hard = ed.memory.Minima(ed.memory.KernelMemory(xi, beta=2.0 / 0.8**2, floor=1e-3), starts, steps=400)
    assert sorted(np.round(hard.points[:, 0], 3)) == [0.0, 0.5, 1.0, 5.0]


def test_condensation_is_where_the_books_say():
    """Identity 9: `D = 16`, `n = 1000`; mass and effective memories around `sigma_C = 0.854`."""
    data = jax.random.normal(jax.random.key(0), (1000, 16))
    closed = (1000 ** (2 / 16) - 1) ** -0.5
    found = ed.memory.CriticalNoise(data, key=jax.random.key(1), ratios=(0.6, 1.0, 1.6), draws=4000)
    assert abs(found.condensation / closed - 1) < 0.02
    assert abs(float(found.mass[1]) - 0.585) < 0.02
    assert abs(float(found.mass[0]) - 0.97) < 0.02 and abs(float(found.mass[2]) - 0.14) < 0.02
    assert np.allclose(found.effective, [1.05, 3.2, 37.0], rtol=0.1)
    covariance = np.cov(np.asarray(data).T, bias=True)
    assert np.allclose(found.speciation, np.linalg.eigvalsh(covariance)[-1] ** 0.5)


def test_memories_leave_one_by_one_along_a_flow():
    data = ed.energy.Empirical.of_vectors(jax.random.normal(jax.random.key(0), (30, 4)))
    field = ed.flow.ProbabilityFlow(data, steps=1)
    times = jnp.linspace(-2.5, 3.0, 12)
    path = ed.solve(
        field,
        10.0 * jax.random.normal(jax.random.key(1), (1, 4)),
        t0=-2.5,
        t1=3.5,
        times=times,
        probes={"effective": ed.memory.effective_memories},
    )
    effective = path.probes["effective"]
    assert effective[0] > 20.0 and effective[-1] < 1.001 and jnp.all((effective >= 1 - 1e-12) & (effective <= 30))


def test_a_model_is_told_from_its_training_set():
    draw = np.random.default_rng(0)
    training = draw.normal(size=(40, 8))
    copies = training[draw.integers(40, size=10)] + 0.01 * draw.normal(size=(10, 8))
    blends = np.repeat(training[:2].mean(0, keepdims=True), 10, 0) + 0.01 * draw.normal(size=(10, 8))
    fresh = draw.normal(size=(20, 8))
    report = ed.memory.Memorisation(np.vstack([copies, blends, fresh]), training)
    assert (report.memorised, report.spurious) == (0.25, 0.25) and report.generalised == 0.5
    assert np.allclose(np.linalg.norm(copies - training[report.nearest[:10]], axis=1), report.distance[:10])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ed.memory.retrieval_rate(lambda x: x, jnp.ones((2, 3)), jnp.ones((3, 3))), "differ"),
        (lambda: ed.memory.retrieval_rate(lambda x: x, jnp.ones((2, 3)), jnp.ones((2, 3)), tolerance=-1), "is -1"),
        (lambda: ed.memory.capacity(np.array([2.0, 1.0]), np.array([1.0, 0.0])), "must increase"),
        (lambda: ed.memory.capacity(np.array([1.0, 2.0]), np.array([0.3, 0.0])), "begin at 0.3"),
        (lambda: ed.memory.Minima(jnp.sum, jnp.ones(3)), r"`starts` has shape \(3,\)"),
        (lambda: ed.memory.Minima(jnp.sum, jnp.ones((2, 3)), apart=0.0), "`apart`=0.0"),
        (lambda: ed.memory.CriticalNoise(jnp.ones((1, 3)), key=jax.random.key(0)), "at least two rows"),
        (lambda: ed.memory.CriticalNoise(jnp.ones((4, 3)), key=jax.random.key(0)), "all equal"),
        (lambda: ed.memory.Memorisation(np.ones((2, 3)), np.ones((2, 4))), "equally wide"),
        (lambda: ed.memory.Memorisation(np.ones((2, 3)), np.ones((2, 3))), "`near` is 0.0"),
    ],
)
def test_what_does_not_fit_is_named(make, message, unchecked):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("temperature", [0.0, 0.3])
def test_flips_at_a_traced_temperature(temperature, unchecked):
    """And from a state of integers."""
    memory = ed.memory.HopfieldMemory(jnp.array([[1.0, -1.0, 1.0, 1.0, -1.0], [1.0, 1.0, 1.0, -1.0, -1.0]]))
    flip = lambda x, t: ed.memory.glauber(memory, x, sweeps=3, temperature=t, key=jax.random.key(3))
    cue = jnp.array([1, -1, -1, -1, -1])
    right = flip(cue.astype(float), temperature)
    assert (jax.jit(flip)(cue.astype(float), temperature) == right).all() and (flip(cue, temperature) == right).all()


def test_flips_compile_once_and_refuse_what_is_not_finite(unchecked):
    traced = []
    energy = lambda x: traced.append(x) or -jnp.sum(x[1:] * x[:-1])
    flip = lambda t, seed: ed.memory.glauber(energy, jnp.ones(4), sweeps=3, temperature=t, key=jax.random.key(seed))
    flip(0.5, 0)
    before = len(traced)
    flip(0.7, 1)
    assert len(traced) == before
    large = ed.memory.HopfieldMemory(1e200 * jnp.ones((1, 4)))
    for temperature in (0.0, 0.3):
        with pytest.raises(ValueError, match="scale the patterns down"):
            ed.memory.glauber(large, jnp.ones(4), sweeps=1, temperature=temperature, key=jax.random.key(0))


def test_a_motion_has_a_gradient_in_its_temperature():
    memory = ed.memory.GaussianMemory(jnp.eye(2), beta=4.0)

    def end(temperature):
        field = ed.memory.Langevin(memory, temperature=temperature)
        return ed.solve(field, jnp.zeros(2), t0=0.0, t1=0.5, step=0.1, key=jax.random.key(0)).final.sum()

    value, slope = jax.value_and_grad(end)(0.1)
    assert np.isclose(value, end(0.1)) and np.isclose(slope, (end(0.101) - end(0.099)) / 0.002, rtol=1e-3)


def test_states_of_integers_are_states(unchecked):
    rows = np.array([[2, 0], [-2, 0], [1, 1]])
    memory, key = ed.memory.GaussianMemory(rows[:2], beta=4.0), jax.random.key(0)
    read = lambda x: x - jax.grad(memory)(x)
    for measure in (
        lambda rows: ed.memory.CriticalNoise(rows, key=key, draws=8).sigma,
        lambda rows: ed.memory.basin(read, jnp.asarray(rows[0]), jnp.asarray(rows[2]), key=key, tries=4),
        lambda rows: ed.memory.Minima(memory, jnp.asarray(rows), steps=20).points,
        lambda rows: ed.probe.hessian_spectrum(memory, jnp.asarray(rows[2]), key=key).values,
    ):
        assert np.allclose(measure(rows), measure(rows.astype(float)))
