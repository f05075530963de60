"""Exact diffusion: a data set has a free energy of its own, and every motion runs on it. Motions of one state too."""

import functools
import itertools

import diffrax
import equinox as eqx
import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_flow import EVIDENCE

import energy_dllm as ed


ITEMS = np.array([[0, 4, 2, 1], [0, 1, 2, 1], [3, 4, 0, 1], [2, 2, 2, 2], [0, 4, 2, 3], [1, 0, 3, 4]])
WEIGHTS = np.array([1.0, 2.0, 0.5, 1.0, 3.0, 1.5])
PRIOR = WEIGHTS / WEIGHTS.sum()


@pytest.fixture(scope="module")
def exact():
    return ed.energy.Empirical(ITEMS, size=5, weights=jnp.asarray(WEIGHTS))


# ------------------------------------------------------------------------------------------- the energy


@pytest.mark.parametrize("name", EVIDENCE)
def test_it_is_bayes_over_the_items(name, exact):
    """`F`, the posterior over items and that over tokens, against a loop over the items, for every kind of evidence."""
    evidence = EVIDENCE[name]()
    b, spring = evidence.field(exact.vocabulary.codes), evidence.spring()
    y = exact.neutral(4)
    terms = exact.terms(y, b, spring=spring)
    fits = lambda row: np.exp(sum(b[i, token] for i, token in enumerate(row)))
    joint = PRIOR * np.array([fits(row) for row in ITEMS])
    assert np.allclose(sum(np.sum(term) for term in terms.values()), -np.log(joint.sum()) + np.sum(spring), atol=1e-11)
    shares = joint / joint.sum()
    assert np.allclose(np.exp(exact.log_shares(b)), shares, atol=1e-12)
    p = sum(share * np.eye(5)[row] for row, share in zip(ITEMS, shares, strict=True))
    assert np.allclose(exact.posterior(y, b), p, atol=1e-12)
    assert np.all(np.isfinite(exact.logits(y, b)))


def test_many_items_are_looked_up_and_few_multiplied(exact, monkeypatch, getkey):
    """To the same numbers, where something is ruled out for certain too."""
    b = (3.0 * jax.random.normal(getkey(), (4, 5))).at[0, 3].set(-jnp.inf)
    mask = jnp.array([True, True, False, True])
    slope = jax.grad(lambda b: exact.log_shares(b)[0])
    read = lambda: (exact.logits(exact.neutral(4), b), exact.log_shares(b, mask), slope(b))
    joint = PRIOR * np.exp(np.asarray(b)[np.arange(4), ITEMS].sum(axis=1))
    free = lambda: float(exact(exact.neutral(4), b))
    few = read()
    assert np.isclose(free(), -np.log(joint.sum()))
    monkeypatch.setattr("energy_dllm.energy._empirical.DENSE", 0)
    assert np.isclose(free(), -np.log(joint.sum()))
    for one, other in zip(few, read(), strict=True):
        assert np.allclose(np.exp(one), np.exp(other), atol=1e-12)


def test_masks_leave_the_items_that_agree(exact):
    """Identity 16, absorbing noise: the posterior is the prior over what agrees with the visible tokens."""
    seen = ed.flow.Given(jnp.array([0, 0, 2, 0]), jnp.array([True, False, True, False]))
    shares = np.exp(exact.log_shares(seen.field(jnp.eye(5))))
    agree = (ITEMS[:, 0] == 0) & (ITEMS[:, 2] == 2)
    assert np.allclose(shares, np.where(agree, WEIGHTS, 0) / WEIGHTS[agree].sum(), atol=1e-12)


def test_padding_is_not_looked_at(exact):
    b = jax.random.normal(jax.random.key(3), (4, 5))
    mask = jnp.array([True, True, False, True])
    other = b.at[2].set(7.0 * jnp.arange(5.0))
    value = lambda b: exact(exact.neutral(4), b, mask=mask)
    assert np.allclose(value(b), value(other)) and exact.terms(exact.neutral(4), b, mask=mask)["items"][2] == 0
    assert np.allclose(value(b), exact(exact.neutral(4), b.at[2].set(0.0)), atol=1e-12)


def test_the_score_is_a_gradient_and_the_second_order_holds(getkey):
    """Law 3 without any rest: `-dF/dx = (x_hat - x)/sigma^2`, each token with a code and a level of its own."""
    k1, k2 = jax.random.split(getkey())
    data = ed.energy.Empirical(ITEMS, codes=jax.random.normal(k1, (5, 3)))
    sigma = jnp.array([0.7, 1.0, 0.4, 1.5])

    def field(x):
        evidence = ed.flow.Gaussian(x, sigma)
        return evidence.field(data.vocabulary.codes), evidence.spring()

    def free_energy(x):
        b, spring = field(x)
        return data(data.neutral(4), b, spring=spring)

    denoised = lambda x: data.denoised(data.neutral(4), field(x)[0])
    x = jax.random.normal(k2, (4, 3))
    score, x_hat, jacobian = jax.jit(lambda x: (-jax.grad(free_energy)(x), denoised(x), jax.jacfwd(denoised)(x)))(x)
    assert np.allclose(score, (x_hat - x) / sigma[:, None] ** 2, atol=1e-12)
    scaled = np.asarray(jacobian) * np.asarray(sigma)[None, None, :, None] ** 2  # dx_hat/dx = Cov / sigma^2
    assert np.allclose(scaled.reshape(12, 12), scaled.reshape(12, 12).T, atol=1e-12)


# ------------------------------------------------------------------------------------------- motions on it


def test_the_probability_flow_carries_the_exact_likelihood(exact):
    """`log p` at the end of a path is that at its start, less the integrated divergence of the flow."""
    field = ed.flow.ProbabilityFlow(exact, steps=1)

    class Transport(ed.flow.AbstractMotion):
        @property
        def force_evaluations(self):
            return 1

        def __call__(self, time, state, args=None):
            x, _ = state
            divergence = jnp.trace(jax.jacfwd(lambda x: field(time, x.reshape(4, 5)).reshape(-1))(x.reshape(-1)))
            return field(time, x), -divergence

    x = jax.random.normal(jax.random.key(0), (4, 5)) * 3.0
    control = diffrax.PIDController(rtol=1e-8, atol=1e-9)
    path = ed.solve(Transport(), (x, jnp.zeros(())), t0=-1.0, t1=0.7, controller=control)
    end, gained = path.final
    before, after = exact.log_density(x, np.exp(1.0)), exact.log_density(end, np.exp(-0.7))
    assert jnp.allclose(after, before + gained, atol=1e-5)
    assert not jnp.allclose(after, before, atol=1.0)


def test_a_trained_model_is_not_needed_to_write(exact):
    tokenizer = ed.data.Characters("abcde")
    model = ed.EnergyDLLM(tokenizer, energy=exact, steps=1, key=jax.random.key(0))
    words = {tokenizer.decode(row) for row in ITEMS}
    path = ed.sampling.Diffusion(steps=12)
    made = ed.generate(model, length=4, samples=6, sampler=path, seed=1)  # compiled once: the hole below is as long
    assert set(made.texts) <= words and len(set(made.texts)) > 1
    assert ed.infill(model, "a[1]c[1]", samples=6, sampler=path).texts[0] in {"aecb", "abcb", "aecd"}


def test_vectors_are_sequences_of_one_token(getkey):
    rows = np.random.default_rng(0).normal(size=(6, 3))
    data = ed.energy.Empirical.of_vectors(rows)
    x = 4.0 * jax.random.normal(getkey(), (1, 3))
    path = ed.solve(ed.flow.ProbabilityFlow(data, steps=1), x, t0=-2.0, t1=8.0)
    assert np.linalg.norm(path.final - rows, axis=1).min() < 1e-2


def test_reverse_diffusion_ends_with_the_weights_of_the_items():
    """Half and half in, one and three out: the law of the end is that of the data, not that of the start."""
    data = ed.energy.Empirical.of_vectors(jnp.array([[-1.0], [1.0]]), weights=jnp.array([1.0, 3.0]))
    keys = jax.random.split(jax.random.key(0), 4000)
    starts = 8.0 * jax.random.normal(jax.random.key(1), (4000, 1, 1))
    field = ed.flow.ReverseDiffusion(ed.flow.ProbabilityFlow(data, steps=1), churn=1.0)
    levels = jnp.linspace(-jnp.log(8.0), 2.0, 120)
    move = lambda x, key: ed.solve(field, x, t0=levels[0], t1=levels[-1], levels=levels, key=key).final
    ends = jax.jit(jax.vmap(move))(starts, keys)
    assert abs(float(jnp.mean(ends > 0)) - 0.75) < 0.03


# ------------------------------------------------------------------------------------------- the law of what is written

STRINGS = np.array(list(itertools.product(range(3), repeat=4)))
FIELD, COUPLING = np.array([0.3, -0.2, 0.0]), np.array([[1.0, -0.8, 0.3], [0.2, -0.5, 0.9], [-0.6, 0.7, 0.1]])
LAW = np.exp(FIELD[STRINGS].sum(1) + COUPLING[STRINGS[:, :-1], STRINGS[:, 1:]].sum(1))
LAW /= LAW.sum()
"""Three tokens, four places, an energy made by hand whose neighbours are coupled: all 81 strings can be counted."""


@pytest.fixture(scope="module")
def chain():
    return ed.energy.Empirical(STRINGS, size=3, weights=jnp.asarray(LAW))


# wide enough at the start that nothing of the data is left but its mean
through = functools.partial(
    ed.sampling.Diffusion,
    field=functools.partial(ed.flow.ProbabilityFlow, steps=1),
    schedule=ed.flow.LogLinear(sigma_max=12.0, sigma_min=0.2),
)


@pytest.fixture(scope="module")
def write(chain):
    model = ed.EnergyDLLM(ed.data.Characters("abc"), energy=chain, steps=1, key=jax.random.key(0))
    return functools.partial(ed.infill, model, samples=20000, frames=1)


@pytest.mark.parametrize("path", [through(steps=32, solver=diffrax.Heun()), through(steps=64, churn=0.5)])
def test_through_noise_the_law_is_exact(path, write):
    """Chi-square over all strings: the probability flow, and the reverse diffusion."""
    families.likely(write("[4]", sampler=path).ids, LAW)


def test_what_noise_leaves_open_is_drawn_exactly(write):
    """Half the way in half as many steps, and the rest in one draw: the strings themselves, and those with a hole."""
    path = through(steps=16, until=0.5, solver=diffrax.Heun())
    made = write("[4]", sampler=path)
    families.likely(made.ids, LAW)
    assert (made.force_evaluations == 2 * 16 + 1).all() and (made.known[:, -1] == 1).all()
    given = np.where((STRINGS[:, 0] == 0) & (STRINGS[:, 3] == 1), LAW, 0.0)
    families.likely(write("a[2]b", sampler=path).ids, given / given.sum())


def test_behind_a_front_of_noise_the_law_is_exact(write):
    """Each token has a noise time of its own; when the first is all but known the last has not set off."""
    families.likely(write("[4]", sampler=through(steps=64, front=4.0, solver=diffrax.Heun())).ids, LAW)


def test_through_noise_holes_have_the_exact_conditional(write):
    given = np.where((STRINGS[:, 0] == 0) & (STRINGS[:, 3] == 1), LAW, 0.0)
    families.likely(write("a[2]b", sampler=through(steps=32, solver=diffrax.Heun())).ids, given / given.sum())


def test_independent_tokens_need_no_noise_above_the_first_level():
    """It starts with tokens of the prior under noise: exact from a level at which the noise hides nothing."""
    law = np.exp(2.0 * FIELD[STRINGS].sum(1))
    alone = ed.energy.Empirical(STRINGS, size=3, weights=jnp.asarray(law / law.sum()))
    model = ed.EnergyDLLM(ed.data.Characters("abc"), energy=alone, steps=1, key=jax.random.key(0))
    path = through(steps=24, solver=diffrax.Heun(), schedule=ed.flow.LogLinear(sigma_max=0.6, sigma_min=0.1))
    families.likely(ed.infill(model, "[4]", samples=20000, frames=1, sampler=path).ids, law / law.sum())


def test_steps_that_are_too_few_are_seen(write):
    """That the tests above can fail."""
    with pytest.raises(AssertionError):
        families.likely(write("[4]", sampler=through(steps=4)).ids, LAW)


def test_langevin_on_the_free_energy_has_the_law_of_the_noisy_text(chain, optimised):
    """`exp(-F(x))` is the text seen through noise: a string drawn by its posterior there has the law of the text."""

    def b(x):
        return ed.flow.Gaussian(x, 1.0).field(chain.vocabulary.codes)

    def free_energy(x):
        return chain(chain.neutral(4), b(x), spring=0.5 * jnp.sum(x**2, axis=-1))

    levels = jnp.linspace(0.0, 4.0, 65)

    def draw(key):
        k1, k2 = jax.random.split(key)
        motion = ed.memory.Langevin(free_energy)
        x = ed.solve(motion, jnp.zeros((4, 3)), t0=0.0, t1=4.0, levels=levels, key=k1).final
        return jax.random.categorical(k2, chain.log_shares(b(x)))

    found = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 20000))
    families.likely(STRINGS[np.asarray(found)], LAW)


# ------------------------------------------------------------------------------------------- motions of one state


def test_descent_burns_what_it_dissipates(getkey):
    """Identity 13: the drop of `E` is the integral of `|grad E|^2`; and it never rises."""
    memory = ed.memory.GaussianMemory(jax.random.normal(getkey(), (5, 4)), beta=3.0)
    times = jnp.linspace(0.0, 8.0, 400)
    probes = {"E": lambda t, x, field: field.energy(x), "burnt": lambda t, x, field: jnp.sum(field(t, x) ** 2)}
    path = ed.solve(
        ed.memory.Descent(memory),
        2.0 * jax.random.normal(getkey(), (4,)),
        t0=0.0,
        t1=9.0,
        times=times,
        probes=probes,
        controller=diffrax.PIDController(rtol=1e-7, atol=1e-8),
    )
    energies, burnt = np.asarray(path.probes["E"])[:-1], np.asarray(path.probes["burnt"])[:-1]
    assert (np.diff(energies) <= 1e-12).all()
    assert np.allclose(energies[0] - energies[-1], np.trapezoid(burnt, times), rtol=1e-3)


def test_langevin_has_the_law_it_claims():
    """Mean and variance under `exp(-E/T)` of a lopsided pair of wells, by quadrature."""
    memory = ed.memory.GaussianMemory(jnp.array([[-1.0], [1.2]]), beta=2.0, weights=jnp.array([1.0, 1.6]))
    grid = np.linspace(-8.0, 8.0, 4001)
    weight = np.exp(-np.asarray(jax.vmap(memory)(jnp.asarray(grid)[:, None])) / 0.5)
    weight /= weight.sum()
    mean = weight @ grid
    variance = weight @ (grid - mean) ** 2
    field = ed.memory.Langevin(memory, temperature=0.5)
    levels = jnp.linspace(0.0, 12.0, 601)
    move = lambda key: ed.solve(field, jnp.zeros(1), t0=0.0, t1=12.0, levels=levels, key=key).final[0]
    ends = np.asarray(jax.jit(jax.vmap(move))(jax.random.split(jax.random.key(0), 6000)))
    assert abs(ends.mean() - mean) < 0.05 and abs(ends.var() - variance) < 0.06
    assert abs(mean) > 0.1  # so that forgetting the weights would show


def test_flips_have_the_law_they_claim(getkey):
    memory = ed.memory.HopfieldMemory(jax.random.normal(getkey(), (2, 3)))
    states = np.array(np.meshgrid(*[[-1.0, 1.0]] * 3)).reshape(3, -1).T
    law = np.exp(-np.asarray(jax.vmap(memory)(jnp.asarray(states))) / 1.5)
    law /= law.sum()
    flip = lambda key: ed.memory.glauber(memory, jnp.ones(3), sweeps=12, temperature=1.5, key=key)
    ends = np.asarray(jax.jit(jax.vmap(flip))(jax.random.split(getkey(), 8000)))
    found = np.array([(ends == state).all(1).mean() for state in states])
    assert np.abs(found - law).max() < 0.025


def test_cold_flips_never_climb(getkey):
    xi = jnp.sign(jax.random.normal(getkey(), (3, 24)))
    for memory in (ed.memory.HopfieldMemory(xi), ed.memory.SimplicialMemory(xi), ed.memory.PolynomialMemory(xi)):
        cue = xi[0].at[:4].multiply(-1)
        one = eqx.filter_jit(lambda m, x, key: ed.memory.glauber(m, x, sweeps=1, key=key))
        x, energies = cue, [float(memory(cue))]
        for n in range(3):
            x = one(memory, x, jax.random.key(n))
            energies.append(float(memory(x)))
        assert (np.diff(energies) <= 1e-9).all() and energies[-1] < energies[0]


# ------------------------------------------------------------------------------------------- files


def test_a_data_set_is_saved_and_loaded_bitwise(exact, tmp_path):
    """Alone, of vectors, and inside the model that wraps it."""
    inside = ed.EnergyDLLM(ed.data.Characters("abcde"), energy=exact, steps=1, key=jax.random.key(0))
    vectors = ed.energy.Empirical.of_vectors(WEIGHTS[:, None] * np.eye(6, 3), weights=jnp.asarray(WEIGHTS))
    for model in (exact, vectors, inside):
        ed.save(tmp_path / "exact.safetensors", model)
        loaded = ed.load(tmp_path / "exact.safetensors")
        assert bool(eqx.tree_equal(loaded, model)) and loaded.size == model.size


# ------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ed.energy.Empirical(np.zeros((0, 4), int)), r"`items` is int64\[0, 4\]"),
        (lambda: ed.energy.Empirical(np.array([[0, 5]]), size=4), "token outside the vocabulary of 4"),
        (lambda: ed.energy.Empirical(ITEMS, codes=jnp.eye(5), size=4), "`size` is 4 but `codes` has 5"),
        (lambda: ed.energy.Empirical.of_vectors(jnp.zeros(3)), r"`patterns` has shape \(3,\)"),
        (
            lambda: ed.energy.Empirical(ITEMS).log_shares(jnp.zeros((3, 5))),
            r"`b` has shape \(3, 5\); expected \(4, 5\)",
        ),
        (lambda: ed.memory.Langevin(jnp.sum, temperature=0.0), "`temperature` is 0.0"),
        (lambda: ed.memory.glauber(jnp.sum, jnp.ones(3), sweeps=-1, key=jax.random.key(0)), "`sweeps` is -1"),
    ],
)
def test_what_does_not_fit_is_named(make, message, unchecked):
    with pytest.raises(ValueError, match=message):
        make()
