"""Rest points, passes and spectra, against what two stored memories have in closed form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import small_model

import energy_dllm as ed


A, BETA = np.array([0.9, 0.6, -0.3]), 3.0


@pytest.fixture(scope="module")
def pair():
    """Two memories at `+a` and `-a`: `E = |x|^2/2 + |a|^2/2 - log(2 cosh(beta <a, x>)) / beta`."""
    return ed.memory.GaussianMemory(jnp.stack([jnp.asarray(A), -jnp.asarray(A)]), beta=BETA)


@pytest.fixture(scope="module")
def well():
    """The minimum `m a`, `m = tanh(beta |a|^2 m)`, and its energy."""
    m = 1.0
    for _ in range(200):
        m = np.tanh(BETA * A @ A * m)
    energy = 0.5 * A @ A * (1 + m**2) - np.log(2 * np.cosh(BETA * A @ A * m)) / BETA
    return m * A, energy


def test_the_barrier_of_two_memories_is_exact(pair, well):
    start = np.array([0.2, -0.1, 0.3])
    over = ed.probe.Barrier(pair, jnp.asarray(A + start), jnp.asarray(-A + start), images=21, steps=200)
    top = 0.5 * A @ A - np.log(2) / BETA
    assert np.allclose(over.saddle, 0.0, atol=1e-6) and np.allclose(over.energy, top, atol=1e-9)
    assert np.allclose(over.height, top - well[1], atol=1e-6) and np.allclose(over.back, over.height, atol=1e-9)
    assert np.allclose(over.path[0], well[0], atol=1e-6) and over.speed < 1e-6
    assert np.allclose(over.curvature, 1 - BETA * A @ A, atol=1e-4)
    # a straight line lies above the pass, and along the pass no image is above the saddle
    line = jax.vmap(pair)(jnp.linspace(over.path[0] + start, over.path[-1] - start, 41))
    assert line.max() > over.energy - 1e-9 > over.energies.max() - 1e-6


def test_no_barrier_within_one_valley(pair, well):
    inside = ed.probe.Barrier(pair, jnp.asarray(1.1 * A), jnp.asarray(well[0]), images=21, steps=200)
    assert np.allclose(inside.height, 0.0, atol=1e-9) and np.allclose(inside.back, 0.0, atol=1e-9)


def test_rest_points_and_curvatures(pair, well):
    slope = jax.grad(pair)
    push = lambda x: -slope(x)
    saddle, _ = ed.probe.rest_point(push, jnp.array([0.1, 0.2, 0.0]), tolerance=1e-10)
    minimum, _ = ed.probe.rest_point(push, jnp.asarray(A), tolerance=1e-10)
    assert np.allclose(saddle, 0.0, atol=1e-8) and np.allclose(minimum, well[0], atol=1e-8)
    spectrum = ed.probe.hessian_spectrum(pair, saddle, key=jax.random.key(0))
    # two directions are alike, and Lanczos sees a pair of equal eigenvalues as one
    assert np.allclose(spectrum.values, np.array([1 - BETA * A @ A, 1.0])) and (spectrum.residuals < 1e-9).all()
    assert np.allclose(np.abs(spectrum.vectors[0] @ A), np.linalg.norm(A)) and np.allclose(spectrum.weights.sum(), 1.0)


def test_lanczos_finds_all_of_a_spectrum():
    root = jax.random.normal(jax.random.key(1), (12, 12))
    matrix = root + root.T
    found = ed.probe.hessian_spectrum(lambda x: 0.5 * x @ matrix @ x, jnp.zeros(12), key=jax.random.key(2), count=30)
    assert np.allclose(found.values, np.linalg.eigvalsh(matrix))
    few = ed.probe.hessian_spectrum(lambda x: 0.5 * x @ matrix @ x, jnp.zeros(12), key=jax.random.key(2), count=5)
    gaps = np.abs(few.values[:, None] - found.values).min(axis=1)
    assert few.values.size == 5 and (gaps <= few.residuals + 1e-12).all()


def test_paths_part_at_the_saddle_and_meet_in_the_valley(pair):
    field = ed.memory.Descent(pair)
    read = lambda x: ed.probe.lyapunov(field, x, t1=4.0, step=0.05, count=3, key=jax.random.key(3))
    assert np.allclose(read(jnp.zeros(3)).max(), BETA * A @ A - 1, atol=0.02)
    assert np.allclose(read(jnp.asarray(20 * A)), [-1.0] * 3, atol=1e-4)  # far out one memory remains, and its bowl


@pytest.fixture(scope="module")
def model():
    return eqx.filter_jit(small_model)("ab ")


def test_relaxation_rates_are_those_of_the_motion(model):
    """A small displacement from rest decays by the matrix whose spectrum this is."""
    energy, given = model.energy, ed.flow.Given(jnp.array([0, 1, 2]), jnp.array([True, False, True]))
    b = model.field(given)
    push = lambda y: energy.kappa * energy.force(y, b)
    rest, left = ed.probe.rest_point(push, energy.neutral(3), tolerance=1e-10)
    rates = ed.probe.relaxation_rates(energy, rest, b, key=jax.random.key(4), count=48)
    matrix = -jax.jit(jax.jacfwd(push))(rest).reshape(48, 48)
    true = np.sort(np.linalg.eigvals(matrix).real)
    assert left < 1e-8 and (rates.values > 0).all()
    assert np.allclose(rates.values[[0, -1]], true[[0, -1]], atol=1e-8)
    v = np.asarray(rates.vectors[0]).reshape(-1)
    assert np.allclose(matrix @ v, rates.values[0] * v, atol=1e-6)


def test_a_score_is_the_posterior_of_the_others(model):
    found = ed.probe.score(model, "abab ", batch_size=2)
    ids = model.encode("abab ")
    known = jnp.arange(5) != 3
    log_p = eqx.filter_jit(model.log_posterior)(ids, known)[3]
    assert np.allclose(found.nll[3], -log_p[1]) and found.likelier[3] == log_p.argmax()
    free_energy = eqx.filter_jit(lambda given: model.free_energy(given, model.settle(given)))
    assert np.allclose(found.free_energy, free_energy(ed.flow.Given(ids)))
    assert np.allclose(found.pseudo_likelihood, -found.nll.sum())


def test_landscapes_name_what_is_wrong(pair, model, unchecked):
    one, two = jnp.zeros((3, 2)), jnp.zeros((4, 2))
    with pytest.raises(ValueError, match=r"`one` has shape \(3, 2\) and `two` \(4, 2\).*two texts of the same length"):
        ed.probe.Barrier(lambda x: jnp.sum(x**2), one, two)
    with pytest.raises(ValueError, match=r"`images`=2 must be 3 or more"):
        ed.probe.Barrier(pair, jnp.zeros(3), jnp.ones(3), images=2)
    with pytest.raises(ValueError, match=r"`force` gives the shape \(\) for a `start` of \(3,\)"):
        ed.probe.rest_point(pair, jnp.ones(3))
    with pytest.raises(ValueError, match=r"`count` is 0"):
        ed.probe.hessian_spectrum(pair, jnp.ones(3), key=jax.random.key(0), count=0)
    with pytest.raises(ValueError, match=r"`t1`=0.0 must be after `t0`=0.0"):
        ed.probe.lyapunov(ed.memory.Descent(pair), jnp.ones(3), t1=0.0, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"`text` is empty"):
        ed.probe.score(model, "")
