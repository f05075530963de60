"""Laws of the autonomous descent: one static scalar falls from noise to text, and the noise level is inferred."""

import functools
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import energy_dllm as ed


L, V = 9, 5
PATTERN = ed.energy.DFA.of(ed.data.RegexDFA.of("[a-d]{2,3}( [a-d]{2,3})*", ed.data.Characters("abcd ")))


def landscape(name, key):
    """Energies whose `Λ_b` is convex."""
    tokenizer = ed.data.Characters("abcd ")
    deep = name in ("deep", "under a pattern")
    model = ed.EnergyDLLM(tokenizer, depth=2 if deep else 1, dim=16 if deep else 8, states=0 if deep else 6, key=key)
    energy = jax.tree.map(lambda leaf: leaf.astype(float) if leaf.dtype == jnp.float32 else leaf, model.energy)
    return energy.accepted(PATTERN) if name == "under a pattern" else energy


def start(field, getkey, sigma=3.0):
    x = 1 / V + sigma * getkey.normal((L, V))
    return field.initial(jnp.asarray(x), field.energy.neutral(L).astype(float), sigma)


def move(field, state, end=3.5, **settings):
    scalar = lambda time, state, field: field.energy.terms(
        field.hidden(time, state),
        field.evidence(time, state).field(field.energy.vocabulary.codes),
        spring=field.evidence(time, state).spring(),
    )
    probes = {"F": lambda *record: sum(term.sum() for term in scalar(*record).values())}
    return ed.solve(field, state, t0=0.0, t1=end, probes=probes, **settings)


@pytest.mark.parametrize("name", ["deep", "hmm", "under a pattern"])
@pytest.mark.parametrize("by_token", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_field_is_the_gradient_of_one_scalar(name, by_token, temperature, getkey):
    energy = landscape(name, getkey())
    field = ed.flow.AutonomousDescent(energy, rate=3.0, pace=2.0, temperature=temperature, by_token=by_token)
    state = start(field, getkey)
    state = (state[0], jnp.asarray(getkey.normal(state[1].shape)), state[2])
    dx, dy, dlevel = field(0.0, state)
    u, v = getkey.normal(dx.shape), getkey.normal(dlevel.shape)
    at = lambda h, k: float(field.scalar((state[0] + h * u, state[1], state[2] + k * v)))
    slope_x, slope_level = (at(1e-5, 0.0) - at(-1e-5, 0.0)) / 2e-5, (at(0.0, 1e-5) - at(0.0, -1e-5)) / 2e-5
    size = temperature**2 * (V if by_token else L * V)
    np.testing.assert_allclose(np.sum(dx * u), -(3.0**2) * slope_x, rtol=1e-6)
    np.testing.assert_allclose(np.sum(dlevel * v), -2.0 / size * slope_level, rtol=1e-6)
    b = field.evidence(0.0, state).field(field.energy.vocabulary.codes)
    np.testing.assert_allclose(dy, 3.0 * field.energy.kappa * field.energy.force(state[1], b), rtol=1e-10)


@pytest.mark.parametrize("name", ["deep", "hmm", "under a pattern"])
@pytest.mark.parametrize("by_token", [False, True])
@pytest.mark.parametrize("prompt", [False, True])
def test_the_scalar_never_rises_from_noise_to_text(name, by_token, prompt, getkey):
    given = ed.flow.Given(jnp.arange(L) % 3, jnp.arange(L) < 3) if prompt else None
    field = ed.flow.AutonomousDescent(landscape(name, getkey()), given, by_token=by_token)
    path = move(field, start(field, getkey), times=jnp.linspace(0.0, 3.4, 60))
    F = np.asarray(path.probes["F"])
    assert (np.diff(F) <= 1e-9).all() and F[0] - F[-1] > L
    assert (path.states[2][-1] < path.states[2][0] - 2.0).all()


@pytest.mark.parametrize("by_token", [False, True])
def test_with_steps_it_is_the_flow_whose_noise_level_is_inferred(by_token, getkey):
    """`x` moves as in the probability flow of as many steps, whatever `y` was; the level is at rest where it is likely;
    and the scalar falls."""
    energy = landscape("deep", getkey())
    given = ed.flow.Given(jnp.arange(L) % V, jnp.arange(L) < 3)
    field = ed.flow.AutonomousDescent(energy, given, steps=2, step=1.2, rate=3.0, by_token=by_token)
    flow = ed.flow.ProbabilityFlow(energy, given, steps=2, step=1.2)
    x, _, level = start(field, getkey)
    y = jnp.asarray(getkey.normal((L, 16)))
    dx, dy, _ = field(0.0, (x, y, level))
    time = -jnp.max(level)
    np.testing.assert_allclose(dx, flow(time, x), atol=1e-8)
    np.testing.assert_allclose(y + dy / 3.0, flow.hidden(time, x), atol=1e-8)
    np.testing.assert_array_equal(field.hidden(0.0, (x, y, level)), flow.hidden(time, x))
    assert field.force_evaluations == 2
    state = x, y, level
    for _ in range(60):  # the likely level depends a little on the level
        state = field.likely(state)
    assert np.abs(field(0.0, state)[2]).max() < 15 * 2 * 0.002 + 1e-3 < np.abs(field(0.0, (x, y, level + 0.5))[2]).max()
    path = move(field, field.likely((x, y, level)), times=jnp.linspace(0.0, 3.4, 30))
    assert (np.diff(path.probes["F"]) < 0).all() and path.probes["F"][0] > path.probes["F"][-1] + L


def test_at_a_temperature_the_noise_is_less_than_sigma_accounts_for(getkey):
    energy, noise = landscape("deep", getkey()), getkey.normal((16, V))
    field = ed.flow.AutonomousDescent(energy, pace=40.0, temperature=0.6)
    state = field.initial(jnp.asarray(1 / V + 0.6 * 3.0 * noise), jnp.zeros((16, 16)), 3.0)
    path = move(field, state, 1.5, times=jnp.array([1.0, 1.4]))
    F = np.asarray(path.probes["F"])
    assert (np.diff(F) < 0).all()
    x, y, level = jax.tree.map(lambda leaf: leaf[0], path.states)
    b = field.evidence(0.0, (x, y, level)).field(energy.vocabulary.codes)
    p = energy.posterior(y, b)
    residual = jnp.sum(p * jnp.sum((x[:, None] - energy.vocabulary.codes) ** 2, axis=-1)) / x.size
    np.testing.assert_allclose(jnp.sqrt(residual), 0.6 * jnp.exp(level), rtol=0.1)


def test_sigma_is_the_maximum_likelihood_level_and_follows_the_clock(getkey, optimised):
    energy = landscape("deep", getkey())
    noise = getkey.normal((16, V))  # many tokens: the level of the noise is sharp

    def gap(pace):
        field = ed.flow.AutonomousDescent(energy, pace=pace)
        state = field.initial(jnp.asarray(1 / V + 3.0 * noise), jnp.zeros((16, 16)), 3.0)
        path = move(field, state, 2.0, times=jnp.array([1.0, 1.5, 1.9]))
        x, y, level = jax.tree.map(lambda leaf: leaf[:3], path.states)
        b = jax.vmap(lambda x, level: field.evidence(0.0, (x, None, level)).field(energy.vocabulary.codes))(x, level)
        p = jax.vmap(energy.posterior)(y, b)
        residual = jnp.sum(p * jnp.sum((x[:, :, None] - energy.vocabulary.codes) ** 2, axis=-1), axis=(1, 2))
        clock = jnp.log(3.0) - jnp.array([1.0, 1.5, 1.9])
        assert np.max(np.abs(level - clock)) < 0.35
        return np.max(np.abs(residual / (16 * V * jnp.exp(2 * level)) - 1))

    assert gap(40.0) < 0.05 < gap(10.0) < 0.15


@pytest.mark.parametrize(("solver", "order"), [(ed.flow.DDIM, 1), (ed.flow.ExponentialHeun, 2)])
def test_exponential_integrators_have_their_order_in_every_part_of_the_state(solver, order, getkey, optimised):
    field = ed.flow.AutonomousDescent(landscape("deep", getkey()), rate=4.0, pace=2.0)
    state = start(field, getkey)
    end = lambda **settings: ravel_pytree(ed.solve(field, state, t0=0.0, t1=1.0, max_steps=100_000, **settings).final)[
        0
    ]
    exact = end(solver=diffrax.Tsit5(), controller=diffrax.PIDController(rtol=1e-10, atol=1e-12))
    steps = np.array([32, 64, 128])
    errors = [np.linalg.norm(end(solver=solver(field.decay), step=1.0 / n) - exact) for n in steps]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert abs(slope - order) < 0.2


def test_samples_are_those_of_the_clocked_flow_where_the_law_is_enumerated(optimised):
    """The exact landscape of a data set of three passages, two of which share letters; both motions side by side."""
    codes = jnp.array([[0, 1, 2, 3, 4, 0, 1, 2], [0, 1, 2, 3, 0, 4, 3, 1], [4, 3, 2, 1, 0, 0, 2, 2]])
    model = ed.EnergyDLLM(ed.data.Characters("abcd "), energy=ed.energy.Empirical(codes, size=V), key=jax.random.key(0))
    made = {}
    for name, kind in (("flow", ed.flow.ProbabilityFlow), ("descent", ed.flow.AutonomousDescent)):
        sampler = ed.sampling.Diffusion(steps=48, field=kind)
        texts = ed.generate(model, length=8, samples=600, sampler=sampler, seed=3).ids
        every = (texts[:, None] == np.asarray(codes)).all(-1)
        assert every.any(-1).mean() > 0.97
        made[name] = every.sum(0) / every.sum()
    assert np.abs(made["flow"] - 1 / 3).max() < 0.07  # the exact law; 4 standard errors
    assert np.abs(made["descent"] - made["flow"]).max() < 0.07


@pytest.mark.parametrize("by_token", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_noise_level_stays_where_rounding_hides_what_is_less(by_token, batch, getkey, optimised):
    """In single precision, long after the text is written: without a limit what is rounded away moves it anywhere."""
    energy = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, landscape("deep", getkey())
    )
    field = ed.flow.AutonomousDescent(energy, steps=1, by_token=by_token)

    def path(noise):
        state = field.likely(field.initial(1 / V + 3.0 * noise, energy.neutral(L), 3.0))
        # an end in double precision would make the state one too
        t0, t1, step = map(jnp.float32, (0.0, 16.0, 0.05))
        times = jnp.arange(16, dtype=jnp.float32)
        path = ed.solve(field, state, t0=t0, t1=t1, solver=ed.flow.DDIM(field.decay), step=step, times=times)
        return path.states[0], path.states[2]

    x, level = jax.vmap(path)(jnp.asarray(getkey.normal((batch, L, V)), jnp.float32))
    assert level.dtype == jnp.float32 and (level[:, 5] < level[:, 0] - 4).all()
    assert (level[:, -1] > np.log(1e-4)).all() and (np.abs(level[:, -1] - level[:, -3]) < 0.2).all()
    np.testing.assert_allclose(x[:, -1].max(axis=-1), 1.0, atol=1e-4)  # a text
    # and of a text itself the likely level is that limit, whatever rounding makes of its distance
    likely = field.likely(field.initial(jnp.eye(V, dtype=jnp.float32)[jnp.arange(L) % V], energy.neutral(L), 0.01))[2]
    assert (likely > np.log(1e-4)).all() and (likely < np.log(1e-2)).all()


def test_codes_of_integers_and_of_numpy_begin_at_the_level_that_is_given(getkey, unchecked):
    field = ed.flow.AutonomousDescent(landscape("deep", getkey()), by_token=True)
    codes: Any = np.eye(V, dtype=int)
    levels: Any = np.linspace(0.5, 1.0, V)
    x, y, level = field.initial(codes, codes[:, :1] * np.zeros(16, int), 0.5)
    assert x.dtype == y.dtype == level.dtype == float
    np.testing.assert_allclose(np.exp(level), 0.5)
    np.testing.assert_allclose(np.exp(field.initial(x, y, levels)[2]), levels)


def test_generate_moves_by_solve_and_reports_the_scalar_and_sigma(getkey, monkeypatch):
    calls, solve = [], diffrax.diffeqsolve
    monkeypatch.setattr(diffrax, "diffeqsolve", lambda *a, **k: calls.append(a) or solve(*a, **k))
    model = ed.EnergyDLLM(ed.data.Characters("abcd "), dim=16, key=getkey())
    field = functools.partial(ed.flow.AutonomousDescent, rate=29.0)  # not compiled before
    made = ed.generate(model, length=7, samples=2, sampler=ed.sampling.Diffusion(steps=21, field=field))
    assert calls and (np.diff(made.free_energy, axis=1) < 0).all() and (np.diff(made.sigma) < 0).all()
    with pytest.raises(ValueError, match="`pace` is -1"):
        ed.flow.AutonomousDescent(model.energy, pace=-1.0)
    with pytest.raises(ValueError, match="`step` is 0"):
        ed.flow.AutonomousDescent(model.energy, steps=1, step=0)
