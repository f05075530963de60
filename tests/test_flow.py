"""Laws 3, 4, 5 and 8: the score is a gradient, the motion descends, the answer does not depend on the solver."""

import functools
import itertools
from typing import Any

import diffrax
import equinox as eqx
import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energy_dllm as ed
from energy_dllm.flow._likelihood import Continuity


@pytest.fixture
def landscape(getkey):
    """A landscape small enough to be taken to rest to 1e-12."""
    energy, _ = families.make_energy(getkey())
    soft = lambda tree: jax.tree.map(lambda leaf: 0.6 * leaf, tree)
    return eqx.tree_at(lambda e: e.network.synapses, energy, soft(energy.network.synapses))


def rest(energy, b, steps=3000):
    return ed.flow.relax(energy, energy.neutral(b.shape[0]), b, steps=steps, step=0.5)


EVIDENCE = {
    "gaussian": lambda: ed.flow.Gaussian(jax.random.normal(jax.random.key(1), (4, 5)), jnp.array([0.3, 1.0, 2.0, 0.7])),
    "masked": lambda: ed.flow.Masked(4),
    "given": lambda: ed.flow.Given(jnp.array([0, 4, 2, 1]), jnp.array([True, False, True, True])),
    "typo": lambda: ed.flow.Typo(jnp.array([0, 4, 2, 1]), 0.2),
    "allowed": lambda: ed.flow.Allowed(jnp.arange(20).reshape(4, 5) % 3 > 0),
    "likelihood": lambda: ed.flow.Likelihood(jax.random.normal(jax.random.key(2), (4, 5))),
    "sum": lambda: (
        ed.flow.Typo(jnp.array([0, 4, 2, 1]), 0.2) + ed.flow.Masked(4) + ed.flow.Gaussian(jnp.ones((4, 5)), 1.0)
    ),
}


# ------------------------------------------------------------------------------------------- evidence


@pytest.mark.parametrize("name", EVIDENCE)
def test_evidence_is_a_finite_log_likelihood_with_its_length(name):
    evidence = EVIDENCE[name]()
    b = evidence.field(jnp.eye(5))
    assert evidence.length == 4 and b.shape == (4, 5) and evidence.spring().shape == (4,)
    assert np.all(np.isfinite(b))
    twice = evidence + evidence
    assert np.allclose(twice.field(jnp.eye(5)), 2 * b) and np.allclose(twice.spring(), 2 * evidence.spring())


def test_gaussian_evidence_is_the_noise_likelihood_with_its_spring(getkey):
    codes = getkey.normal((5, 3))  # norms differ
    x, sigma = getkey.normal((4, 3)), jnp.array([0.5, 1.0, 2.0, 0.1])
    evidence = ed.flow.Gaussian(x, sigma)
    squared = jnp.sum((x[:, None] - codes) ** 2, axis=-1)
    log_likelihood = -squared / (2 * sigma[:, None] ** 2) - 3 * jnp.log(sigma)[:, None]
    assert np.allclose(evidence.field(codes) - evidence.spring()[:, None], log_likelihood)


def test_typo_evidence_is_normalised_over_what_could_be_seen():
    b = jnp.stack([ed.flow.Typo(jnp.full(1, seen), 0.3).field(jnp.eye(5))[0] for seen in range(5)])
    assert np.allclose(np.exp(b).sum(0), 1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ed.flow.Gaussian(jnp.ones(3), 1.0), r"`x` has shape \(3,\)"),
        (lambda: ed.flow.Gaussian(jnp.ones((3, 2)), jnp.ones(2)), r"`sigma` has shape \(2,\)"),
        (lambda: ed.flow.Masked(0), "`length` is 0"),
        (lambda: ed.flow.Given(jnp.ones((2, 2), int)), "`ids` is"),
        (lambda: ed.flow.Given(jnp.ones(2, int), jnp.ones(3, bool)), r"`known` has shape \(3,\)"),
        (lambda: ed.flow.Typo(jnp.ones(2, int), 1.5), "`rate` is 1.5"),
        (lambda: ed.flow.Allowed(jnp.ones(3, bool)), r"`sets` has shape \(3,\)"),
        (lambda: ed.flow.Likelihood(jnp.ones(3)), r"`b` has shape \(3,\)"),
        (lambda: ed.flow.Masked(3) + ed.flow.Masked(4), r"have \[3, 4\] tokens"),
        (lambda: ed.flow.Gaussian(jnp.ones((3, 2)), 1.0).field(jnp.eye(5)), "codes of width 2"),
        (lambda: ed.flow.Allowed(jnp.ones((3, 4), bool)).field(jnp.eye(5)), "4 tokens a row"),
    ],
)
def test_evidence_names_what_does_not_fit(make, message, unchecked):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "good", "bad"),
    [
        (lambda sigma: ed.flow.Gaussian(jnp.zeros((2, 3)), sigma).sigma, [1.0, 0.5], [1.0, np.nan]),
        (lambda b: ed.flow.Likelihood(b).b, [[0.0, 1.0]], [[0.0, np.inf]]),
        (lambda sets: ed.flow.Allowed(sets).sets, [[True, False]], [[False, False]]),
        (lambda ids: ed.flow.Given(ids).field(jnp.eye(2)), [0, 1], [0, 2]),
    ],
)
def test_values_are_checked_where_they_are_known_and_where_they_are_not(make, good, bad, unchecked, monkeypatch):
    """No program is made of what is known to be sound; what is wrong is refused the same, known or traced."""
    for values in (np.asarray(bad), jnp.asarray(bad)):
        with pytest.raises(ValueError, match="`(sigma|b|sets|ids)`"):
            make(values)
    with pytest.raises(RuntimeError, match="`(sigma|b|sets|ids)`"):
        jax.block_until_ready(eqx.filter_jit(make)(jnp.asarray(bad)))
    traced = eqx.filter_jit(make)(jnp.asarray(good))
    monkeypatch.setattr(eqx, "error_if", None)
    for values in (np.asarray(good), jnp.asarray(good)):
        made = make(values)
        assert isinstance(made, jax.Array) and np.array_equal(made, traced)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ed.flow.Gaussian(jnp.ones((3, 2)), 0.0), "`sigma` must be positive"),
        (lambda: ed.flow.Gaussian(jnp.ones((3, 2)), -1.0), "`sigma` must be positive"),
        (lambda: ed.flow.Given(jnp.array([7])).field(jnp.eye(5)), "outside the vocabulary"),
        (lambda: ed.flow.Allowed(jnp.zeros((1, 5), bool)), "allows no token"),
        (lambda: ed.flow.Likelihood(jnp.full((1, 5), jnp.nan)), "must be finite"),
    ],
)
def test_evidence_values_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("known", [[1, 0, 1], np.array([1, 0, 1]), jnp.array([1, 0, 1]), np.array([True, False, True])])
def test_a_mask_of_zeros_and_ones_is_one_of_booleans(known, unchecked):
    ids, codes, right = jnp.array([0, 2, 1]), jnp.eye(3), jnp.array([True, False, True])
    for make in (ed.flow.Given, lambda ids, known: ed.flow.Typo(ids, 0.1, known)):
        assert (make(ids, known).field(codes) == make(ids, right).field(codes)).all()
        traced = eqx.filter_jit(lambda known, make=make: make(ids, known).field(codes))(jnp.asarray(known))
        assert (traced == make(ids, right).field(codes)).all()


def test_evidence_in_lists_and_integers(unchecked):
    sets: Any = [[1, 0]]
    assert ed.flow.Allowed(sets).field(jnp.eye(2)).tolist() == [[0.0, ed.flow.FORBIDDEN]]
    b: Any = [[0.0, 1.5]]
    assert ed.flow.Likelihood(b).field(jnp.eye(2)).tolist() == b
    assert ed.flow.Gaussian(jnp.eye(3, dtype=int), 0.5).sigma.tolist() == [0.5] * 3


# ------------------------------------------------------------------------------------------- schedules

SCHEDULES = {
    "log linear": lambda: ed.flow.LogLinear(sigma_max=3.0, sigma_min=0.2),
    "information": lambda: ed.flow.InformationUniform.context_free(7),
    "measured": lambda: ed.flow.InformationUniform(jnp.array([-1.0, 0.0, 1.0, 2.0]), jnp.array([3.0, 2.9, 0.5, 0.6])),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_runs_from_noise_to_text(name):
    levels = SCHEDULES[name]().levels(50)
    assert levels.shape == (51,) and np.all(np.diff(levels) > 0)


def test_levels_are_spaced_by_information():
    curve = jnp.linspace(-1.0, 2.0, 200)
    entropy = 1 / (1 + jnp.exp(4 * (curve - 0.7)))
    schedule = ed.flow.InformationUniform(curve, entropy, uniform=1e-6)
    gained = -jnp.diff(jnp.interp(schedule.levels(20), curve, entropy))
    assert np.allclose(gained, gained.mean(), rtol=1e-2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ed.flow.LogLinear(sigma_max=0.1, sigma_min=1.0), "sigma_max > sigma_min > 0"),
        (lambda: ed.flow.LogLinear(sigma_max=1.0, sigma_min=0.0), "sigma_max > sigma_min > 0"),
        (lambda: ed.flow.InformationUniform(jnp.array([1.0, 0.0]), jnp.ones(2)), "runs backwards"),
        (lambda: ed.flow.InformationUniform(jnp.array([0.0, 1.0]), jnp.ones(2)), "never falls"),
        (lambda: ed.flow.InformationUniform(jnp.array([0.0, 1.0]), jnp.ones(3)), "equal length"),
        (lambda: ed.flow.LogLinear().levels(0), "`steps` is 0"),
    ],
)
def test_a_schedule_that_runs_backwards_is_refused(make, message, unchecked):
    with pytest.raises(ValueError, match=message):
        make()


# ------------------------------------------------------------------------------------------- law 3: the score


def test_the_score_is_the_gradient_of_f(landscape, getkey):
    x, sigma = getkey.normal((6, 5)), jnp.asarray(np.exp(getkey.normal((6,))))
    y = getkey.normal((6, 8))
    codes = landscape.vocabulary.codes

    @jax.jit
    def sides(x):
        b = ed.flow.Gaussian(x, sigma).field(codes)
        # what is said is held: the score is the derivative through the evidence alone
        g = landscape.activation(y, b)

        def free_energy(x):
            evidence = ed.flow.Gaussian(x, sigma)
            terms = landscape.terms(y, evidence.field(codes), spring=evidence.spring(), g=g)
            return sum(term.sum() for term in terms.values())

        return -jax.grad(free_energy)(x), (landscape.denoised(y, b) - x) / sigma[:, None] ** 2

    assert np.abs(np.subtract(*sides(x))).max() <= 1e-12


def test_at_rest_the_envelope_theorem_holds_and_the_denoiser_is_a_gradient(landscape, getkey):
    x = getkey.normal((6, 5))
    codes = landscape.vocabulary.codes

    def settled(x, steps):
        evidence = ed.flow.Gaussian(x, 0.8)
        b = evidence.field(codes)
        y = rest(landscape, b, steps)
        return landscape(y, b, spring=evidence.spring()), landscape.denoised(y, b)

    total = np.asarray(jax.jit(jax.grad(lambda x: settled(x, 3000)[0]))(x))  # through the relaxation

    @jax.jit
    def denoised(x, steps):
        twice = lambda x: (settled(x, steps)[1],) * 2
        jacobian, x_hat = jax.jacfwd(twice, has_aux=True)(x)
        return jacobian.reshape(30, 30), x_hat

    jacobian, x_hat = (np.asarray(part) for part in denoised(x, 3000))
    assert np.abs(-total - (x_hat - x) / 0.8**2).max() <= 1e-8
    asymmetry = lambda jacobian: np.linalg.norm(jacobian - jacobian.T) / np.linalg.norm(jacobian)
    assert asymmetry(jacobian) <= 1e-8
    assert asymmetry(np.asarray(denoised(x, 3)[0])) > 1e-4  # on the way it is not: the test can fail


# ------------------------------------------------------------------------------------------- law 4: descent


def coupled(neurons, key):
    energy, _ = families.make_energy(key, neurons=neurons, synapses=("attention", "softmax memory"))
    if neurons == "rectifier":  # unbounded: coupled as strongly as the others they would run away
        soft = jax.tree.map(lambda leaf: 0.3 * leaf, energy.network.synapses)
        energy = eqx.tree_at(lambda e: e.network.synapses, energy, soft)
    return energy


def dissipation(t, y, field):
    """`kappa f . (dg/dy) f`, what the motion takes from `F` in a unit of time."""
    b = field.evidence(t, y).field(field.energy.vocabulary.codes)
    force = field.energy.force(y, b)
    _, dg = jax.jvp(lambda y: field.energy.activation(y, b), (y,), (force,))
    return field.energy.kappa * jnp.vdot(force, dg)


def free_energy(t, y, field):
    return field.energy(y, field.evidence(t, y).field(field.energy.vocabulary.codes))


@pytest.mark.parametrize("name", EVIDENCE)
def test_a_relaxation_is_moved_by_what_its_evidence_says(name, getkey):
    """Whatever it is, it moves as the same log likelihoods do; so the law below is that of all evidence."""
    energy, evidence = coupled("layer norm", getkey()), EVIDENCE[name]()
    y, said = getkey.normal((4, 8)), ed.flow.Likelihood(evidence.field(energy.vocabulary.codes))
    moves = [eqx.filter_jit(ed.flow.Relaxation(energy, given))(jnp.asarray(0.0), y) for given in (evidence, said)]
    assert np.allclose(*moves, rtol=1e-12, atol=0) and np.abs(moves[0]).max() > 1e-2


@pytest.mark.parametrize(
    ("name", "neurons"),
    [
        *((name, "layer norm") for name in EVIDENCE),
        *(("given", n) for n in ("tanh", "rectifier")),
    ],
)
def test_relaxation_never_raises_f_and_f_falls_by_what_is_dissipated(name, neurons, getkey):
    energy = coupled(neurons, getkey())
    path = ed.solve(
        ed.flow.Relaxation(energy, ed.flow.Likelihood(EVIDENCE[name]().field(energy.vocabulary.codes))),
        getkey.normal((4, 8)),
        t0=0.0,
        t1=6.0,
        times=jnp.asarray(np.linspace(0.0, 6.0, 601)[:-1]),
        controller=diffrax.PIDController(rtol=1e-8, atol=1e-8),
        probes={"F": free_energy, "dissipation": dissipation},
    )
    f, power = np.asarray(path.probes["F"]), np.asarray(path.probes["dissipation"])
    assert np.all(np.diff(f) <= 1e-9)
    assert np.all(power >= 0)
    lost = np.trapezoid(power, np.asarray(path.times))
    assert np.abs(lost - (f[0] - f[-1])) <= 1e-3 * (f[0] - f[-1])


def test_the_rest_point_is_finite_and_reached(landscape):
    evidence = EVIDENCE["given"]()
    path = ed.solve(
        ed.flow.Relaxation(landscape, evidence),
        landscape.neutral(4),
        t0=0.0,
        t1=10_000.0,
        solver=diffrax.Euler(),
        step=0.4,
        stop=1e-9,
        max_steps=30_000,
    )
    assert path.reason == "came to rest"
    assert np.all(np.isfinite(path.final)) and path.times[-1] < 10_000
    assert np.abs(landscape.force(path.final, evidence.field(landscape.vocabulary.codes))).max() < 1e-8


def test_growing_states_do_not_count_as_rest():
    """`|y|` grows linearly at speed 1: a test relative to `|y|` would fire. The fastest component counts."""
    ended = lambda slope: (
        ed.solve(
            ed.memory.Descent(lambda x: jnp.sum(slope * x)), jnp.ones(2), t0=0.0, t1=1e4, step=1e3, stop=1e-2
        ).reason
    )
    assert ended(jnp.ones(2)) == ended(jnp.array([1e-3, -5e-2])) == "reached the end of the time interval"
    assert ended(jnp.array([1e-3, -5e-3])) == "came to rest"


# ------------------------------------------------------------------------------------------- law 5: closed forms


def independent(prior, dim=4):
    """No hidden network that matters: patterns 0, so tokens are independent with prior `softmax(c)`."""
    network = ed.energy.Network(ed.energy.Identity(), {}, jnp.zeros(dim))
    vocabulary = ed.energy.Vocabulary(prior.shape[0], dim, key=jax.random.key(0))
    vocabulary = eqx.tree_at(lambda v: (v.patterns, v.prior), vocabulary, (0 * vocabulary.patterns, jnp.log(prior)))
    return ed.energy.FreeEnergy(network, vocabulary, kappa=1.0)


def test_without_a_network_f_is_the_gaussian_mixture_and_the_flow_its_ode(getkey):
    prior = jnp.array([0.6, 0.3, 0.1])
    energy = independent(prior)
    codes = energy.vocabulary.codes

    def log_density(x, sigma):  # of one token, log p_sigma without its normalisation (2 pi sigma^2)^(-C/2)
        return jax.nn.logsumexp(jnp.log(prior) - jnp.sum((x - codes) ** 2, axis=-1) / (2 * sigma**2))

    @jax.jit
    def sides(x, sigma):
        evidence = ed.flow.Gaussian(x, sigma)
        f = energy(energy.neutral(5), evidence.field(codes), spring=evidence.spring())
        field = ed.flow.ProbabilityFlow(energy, steps=1)
        score = jax.vmap(lambda x: jax.grad(log_density)(x, 0.5))(x)
        normalised = -jax.vmap(log_density)(x, sigma).sum() + 3 * jnp.log(sigma).sum()
        return (f, normalised), (field(-jnp.log(0.5), x), 0.25 * score)

    for here, closed in sides(getkey.normal((5, 3)), jnp.array([0.2, 0.5, 1.0, 2.0, 0.3])):
        assert np.allclose(here, closed, atol=1e-12)


def test_the_likelihood_of_the_flow_equals_enumeration():
    """`log p(x_0)` by the trace of the flow's Jacobian, against the closed-form mixture, on 3 tokens."""
    prior = jnp.array([0.6, 0.3, 0.1])
    energy = independent(prior)
    field = ed.flow.ProbabilityFlow(energy, steps=1)
    sigma_0, sigma_1 = 0.25, 60.0

    def log_mixture(x, sigma):
        log = jnp.log(prior) - jnp.sum((x - jnp.eye(3)) ** 2, axis=-1) / (2 * sigma**2)
        return jax.nn.logsumexp(log) - 1.5 * jnp.log(2 * jnp.pi * sigma**2)

    @jax.jit
    def carry(x):
        return ed.solve(
            Continuity(field),
            (x[None] / sigma_0, jnp.zeros(())),
            t0=-1 / sigma_0,
            t1=-1 / sigma_1,
            controller=diffrax.PIDController(rtol=1e-9, atol=1e-9),
        ).final

    for w in range(3):
        x = jnp.eye(3)[w] + sigma_0 * jnp.array([0.3, -1.0, 0.6])
        (end,), volume = carry(x)
        end, change = sigma_1 * end, volume + 3 * jnp.log(sigma_1 / sigma_0)
        # the far end is one broad Gaussian around the mean code
        mean = prior @ jnp.eye(3)
        spread = sigma_1**2 + (1 - jnp.sum(mean**2)) / 3
        base = -jnp.sum((end - mean) ** 2) / (2 * spread) - 1.5 * jnp.log(2 * jnp.pi * spread)
        # along the path log p falls by the integrated divergence
        assert np.abs(base + change - log_mixture(x, sigma_0)) < 2e-3


def test_the_bound_of_the_flow_is_within_two_per_cent_of_enumeration():
    """All 27 texts of three tokens that depend on each other: `sum_text p log p`, by the flow and as it is."""
    rng = np.random.default_rng(0)
    texts = jnp.asarray(list(itertools.product(range(3), repeat=3)))
    p = rng.dirichlet(np.ones(27))
    flow = ed.flow.ProbabilityFlow(ed.energy.Empirical(texts, size=3, weights=jnp.asarray(p)), steps=1)
    schedule = ed.flow.LogLinear(sigma_max=30.0, sigma_min=0.12)

    def bound(directions, count):
        one = lambda ids, key: (
            ed.flow.FlowLikelihood(flow, ids, schedule, key=key, steps=128, directions=directions).nats
        )
        keys = jax.random.split(jax.random.key(0), (27, count))
        return np.asarray(jax.jit(jax.vmap(jax.vmap(one, (None, 0))))(texts, keys))

    exact = bound(None, 4)
    assert abs(p @ exact.mean(1) / (p @ np.log(p)) - 1) < 0.02
    # nearly a certainty of its own, and never far above the truth
    assert np.abs(exact.mean(1) - np.log(p)).max() < 0.05
    estimated = bound(2, 64)
    error = estimated.std(1) / 8
    assert (np.abs(estimated.mean(1) - exact.mean(1)) < 4 * error + 0.02).all() and error.max() > 0.1


def test_of_independent_tokens_one_direction_gives_all_of_the_trace(getkey):
    """What a token's own evidence makes of it is not estimated: each code in two directions that are not its own."""
    energy = independent(jnp.array([0.6, 0.3, 0.1]))
    field, x = ed.flow.ProbabilityFlow(energy, steps=1), jnp.asarray(getkey.normal((4, 3)))
    at = lambda directions: Continuity(field, directions)(-2.0, (x, jnp.zeros(())))
    exact, one = at(None), at(jnp.asarray(getkey.normal((1, 4, 3))))
    np.testing.assert_allclose(one[0], exact[0], atol=1e-12)
    np.testing.assert_allclose(one[1], exact[1], atol=1e-12)


def test_a_number_of_steps_of_numpy_has_a_gradient(landscape):
    y, b = landscape.neutral(4), jnp.ones((4, landscape.size))
    slope = lambda steps: jax.grad(lambda y: jnp.sum(ed.flow.relax(landscape, y, b, steps=steps, step=0.5)))(y)
    assert (slope(np.int64(2)) == slope(2)).all()


def test_likelihood_settings_are_checked(landscape):
    flow, schedule = ed.flow.ProbabilityFlow(landscape), ed.flow.LogLinear()
    for steps, directions in ((0, 1), (8, 0)):
        with pytest.raises(ValueError, match="is 0; expected a positive integer"):
            ed.flow.FlowLikelihood(
                flow, jnp.zeros(4, int), schedule, key=jax.random.key(0), steps=steps, directions=directions
            )


# ------------------------------------------------------------------------------------------- law 8: the solver


@pytest.mark.parametrize(
    ("solver", "order"),
    [(diffrax.Euler(), 1), (diffrax.Heun(), 2), (diffrax.Bosh3(), 3), (diffrax.Tsit5(), 5)],
)
def test_a_solver_of_order_n_converges_with_slope_n(solver, order, landscape):
    field = ed.flow.Relaxation(landscape, EVIDENCE["given"]())
    run = lambda solver, step: ed.solve(field, landscape.neutral(4), t0=0.0, t1=2.0, solver=solver, step=step).final
    exact = run(diffrax.Dopri8(), 2**-5)
    steps = 2.0 ** -np.arange(2, 6) if order > 3 else 2.0 ** -np.arange(4, 8)
    errors = [np.abs(run(solver, float(step)) - np.asarray(exact)).max() for step in steps]
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert -0.35 < slope - order < (0.35 if order < 5 else 1.1)  # Tsit5's leading constant is tiny: slope 5 to 6


@pytest.mark.parametrize(("solver", "order"), [(ed.flow.DDIM(), 1), (ed.flow.ExponentialHeun(), 2)])
@pytest.mark.parametrize("kind", ["flow", "joint", "front", "joint front"])
def test_an_exponential_integrator_of_order_n_converges_with_slope_n(solver, order, kind, landscape, getkey):
    state = getkey.normal((4, 5))
    field = ed.flow.ProbabilityFlow(ed.energy.Empirical(np.array([[0, 2, 1, 4], [3, 2, 2, 0]]), size=5), steps=1)
    if "joint" in kind:
        field, state = ed.flow.JointFlow(landscape, rate=2.0), (state, jnp.ones((4, landscape.dim)))
    if "front" in kind:
        field = ed.flow.RollingNoise(field, width=2.0, start=-1.0, end=1.0)

    vector = lambda path: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(path.final)])
    run = lambda solver, step: vector(ed.solve(field, state, t0=-1.0, t1=1.0, solver=solver, step=float(step)))
    exact = run(diffrax.Tsit5(), 2.0**-7)
    if order == 2:  # it knows its own error, so a controller can lead it
        control = diffrax.PIDController(rtol=1e-4, atol=1e-4)
        led = ed.solve(field, state, t0=-1.0, t1=1.0, solver=solver, controller=control)
        assert np.abs(vector(led) - exact).max() < 1e-2 and led.accepted < 400
    steps = 2.0 ** -np.arange(3, 7)
    errors = [np.abs(run(solver, step) - exact).max() for step in steps]
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert -0.35 < slope - order < 0.5


@pytest.mark.parametrize("solver", [ed.flow.DDIM(), ed.flow.ExponentialHeun()])
def test_an_exponential_integrator_takes_noise_away_exactly(solver):
    """Where the posterior stands still, one step of any length ends where the path does."""
    energy = ed.energy.Empirical(np.array([[0, 2, 1]]), size=3)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)))
    path = ed.solve(
        ed.flow.ProbabilityFlow(energy, steps=1), x, t0=-1.0, t1=2.0, levels=jnp.array([-1.0, 2.0]), solver=solver
    )
    codes = np.eye(3)[[0, 2, 1]]
    assert np.allclose(path.final, codes + np.exp(-3.0) * (x - codes), atol=1e-12)
    assert path.force_evaluations == getattr(solver, "stages", 1)
    # behind a front every token has lost what its own noise time says, those that have not set off nothing
    flow = ed.flow.RollingNoise(ed.flow.ProbabilityFlow(energy, steps=1), width=1.0, start=-1.0, end=2.0)
    path = ed.solve(flow, x, t0=-1.0, t1=0.5, levels=jnp.array([-1.0, 0.5]), solver=solver)
    left = np.exp(-1.0 - np.asarray(flow.times(0.5, 3)[0]))[:, None]
    assert np.allclose(path.final, codes + left * (x - codes), atol=1e-12) and left[2] == 1


def test_relax_is_euler(landscape):
    evidence = EVIDENCE["gaussian"]()
    b = evidence.field(landscape.vocabulary.codes)
    path = ed.solve(
        ed.flow.Relaxation(landscape, evidence),
        landscape.neutral(4),
        t0=0.0,
        t1=2.0,
        solver=diffrax.Euler(),
        step=0.25,
    )
    y = ed.flow.relax(landscape, landscape.neutral(4), b, steps=8, step=0.25)
    assert np.allclose(path.final, y, atol=1e-12)
    traced = jax.jit(lambda n: ed.flow.relax(landscape, landscape.neutral(4), b, steps=n, step=0.25))
    assert np.allclose(traced(jnp.asarray(8)), y, atol=1e-12)
    assert path.force_evaluations == 8 and path.accepted == 8 and path.rejected == 0


def test_a_heavy_ball_comes_to_the_same_rest_sooner(landscape):
    b = ed.flow.Given(jnp.array([0, 1, 2, 0]), jnp.array([True, False, True, False])).field(landscape.vocabulary.codes)
    go = lambda steps, momentum: ed.flow.relax(
        landscape, landscape.neutral(4), b, steps=jnp.asarray(steps), step=0.05, momentum=momentum
    )
    rest = np.asarray(go(8000, 0.0))
    assert np.abs(landscape.force(jnp.asarray(rest), b)).max() < 1e-9
    away = lambda steps, momentum: np.linalg.norm(go(steps, jnp.asarray(momentum)) - rest)
    assert away(2000, 0.8) < 1e-8
    assert away(120, 0.5) < 0.7 * away(120, 0.0)  # twice as far along
    assert np.array_equal(go(20, jnp.asarray(0.0)), go(20, 0.0))  # no momentum, no difference
    with pytest.raises(ValueError, match="`momentum` is 1.0"):
        go(1, 1.0)


def test_force_evaluations_are_counted(landscape):
    """Against a count made by the field itself, solver by solver."""

    class Counted(ed.flow.AbstractField):
        energy: ed.energy.AbstractFreeEnergy

        @property
        def force_evaluations(self):
            return 1

        def __call__(self, time, state, args=None):
            jax.debug.callback(lambda: calls.append(1))
            return -state

        def evidence(self, time, state):
            return ed.flow.Masked(2)

        def hidden(self, time, state):
            return state

    for solver in (
        *(diffrax.Euler(), diffrax.Heun(), diffrax.Tsit5(), diffrax.Dopri5()),
        ed.flow.DDIM(),
        ed.flow.ExponentialHeun(),
    ):
        calls = []
        path = ed.solve(Counted(landscape), jnp.ones((2, 8)), t0=0.0, t1=1.0, solver=solver, step=0.125)
        jax.effects_barrier()
        assert abs(int(path.force_evaluations) - len(calls)) <= 1, solver  # diffrax may probe the first stage


def test_the_flow_with_fast_neurons_is_the_flow_at_rest(landscape, getkey):
    x = 0.5 * getkey.normal((4, 5))
    at_rest = ed.solve(ed.flow.ProbabilityFlow(landscape, steps=400, step=0.4), x, t0=-0.5, t1=1.0).final
    distance = []
    for rate in (20.0, 80.0):
        b = ed.flow.Gaussian(x, jnp.exp(0.5)).field(landscape.vocabulary.codes)
        joint = ed.flow.JointFlow(landscape, rate=rate)
        final, _ = ed.solve(joint, (x, rest(landscape, b)), t0=-0.5, t1=1.0).final
        distance.append(jnp.abs(final - at_rest).max())
    assert distance[1] < 0.5 * distance[0] and distance[1] < 2e-2


def test_churn_keeps_the_marginals(getkey, optimised):
    """Samples of the reverse diffusion follow the mixture the flow follows: token frequencies match the prior."""
    prior = jnp.array([0.6, 0.3, 0.1])
    flow = ed.flow.ProbabilityFlow(independent(prior), steps=1)
    x = prior + 5.0 * getkey.normal((3000, 3))
    path = ed.solve(ed.flow.ReverseDiffusion(flow, churn=0.7), x, t0=-np.log(5.0), t1=2.0, step=0.04, key=getkey())
    frequency = np.bincount(np.argmax(path.final, axis=-1), minlength=3) / 3000
    assert np.abs(frequency - prior).max() < 4 * np.sqrt(0.25 / 3000)
    still = ed.flow.ReverseDiffusion(flow, churn=0.0)
    assert np.allclose(still(0.3, x), flow(0.3, x))


def test_a_front_moves_every_token_at_its_own_time(landscape, getkey):
    """`dx_i = (ds_i/ds) (x_hat_i - x_i)`, `s_i` runs from end to end; infinitely wide it is the flow in its time."""
    x = getkey.normal((4, 5))
    flows: list[tuple[Any, Any]] = [
        (ed.flow.ProbabilityFlow(landscape, steps=2), x),
        (ed.flow.JointFlow(landscape), (x, landscape.neutral(4))),
    ]
    for flow, state in flows:
        flat = ed.flow.RollingNoise(flow, width=float("inf"), start=-1.0, end=2.0)
        (s, *_), (pace, *_) = flat.times(0.3, 4)
        x_of = lambda state: jax.tree.leaves(state)[0]
        assert np.allclose(x_of(flat(0.3, state)), pace * x_of(flow(s, state)), atol=1e-12)
        noise = ed.flow.ReverseDiffusion(flat, churn=0.5).amplitude(0.3, state)
        exact = ed.flow.ReverseDiffusion(flow, churn=0.5).amplitude(s, state)
        assert np.allclose(x_of(noise), np.sqrt(pace) * x_of(exact))
    front = ed.flow.RollingNoise(ed.flow.ProbabilityFlow(landscape, steps=2), width=2.0, start=-1.0, end=2.0)
    s, speed = jax.jit(lambda s: jax.jvp(lambda s: front.times(s, 4)[0], (s,), (1.0,)))(0.3)
    assert np.allclose(front.times(0.3, 4)[1], speed) and len(set(s.tolist())) > 2 and (np.diff(s) <= 0).all()
    assert (front.times(-1.0, 4)[0] == -1.0).all() and np.allclose(front.times(2.0, 4)[0], 2.0)
    b = ed.flow.Gaussian(x, jnp.exp(-s)).field(landscape.vocabulary.codes)
    x_hat = landscape.denoised(ed.flow.relax(landscape, landscape.neutral(4), b, steps=2, step=0.6), b)
    assert np.allclose(front(0.3, x), speed[:, None] * (x_hat - x), atol=1e-12)


class Settled(ed.flow.AbstractField):
    """A field of a user's own: `ProbabilityFlow` with two full steps, from its formula and nothing else."""

    energy: ed.energy.AbstractFreeEnergy
    given: Any = None

    @property
    def force_evaluations(self) -> int:
        return 2

    def __call__(self, time, state, args=None):
        b = self.evidence(time, state).field(self.energy.vocabulary.codes)
        return self.energy.denoised(self.hidden(time, state), b) - state

    def evidence(self, time, state):
        noisy = ed.flow.Gaussian(state, jnp.exp(-jnp.asarray(time)))
        return noisy if self.given is None else noisy + self.given

    def hidden(self, time, state):
        b = self.evidence(time, state).field(self.energy.vocabulary.codes)
        return ed.flow.relax(self.energy, self.energy.neutral(len(state)), b, steps=2, step=1.0)

    def diffusion_coefficient(self, time, length):
        return jnp.exp(-jnp.asarray(time))


@pytest.mark.parametrize("settings", [{"front": 2.0}, {"churn": 0.4}, {"front": 2.0, "churn": 0.4}])
def test_a_field_of_ones_own_takes_a_front_and_churn(settings, getkey):
    """With a `diffusion_coefficient` it is driven, counted and drawn from as the field of the library is."""
    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=8, key=getkey())
    made = [
        ed.generate(model, length=5, samples=2, seed=3, sampler=ed.sampling.Diffusion(steps=6, field=field, **settings))
        for field in (Settled, functools.partial(ed.flow.ProbabilityFlow, steps=2, step=1.0))
    ]
    assert made[0].texts == made[1].texts and np.allclose(made[0].free_energy, made[1].free_energy, atol=1e-9)
    assert made[0].force_evaluations.tolist() == made[1].force_evaluations.tolist() == [2 * 6] * 2


def test_vmap_equals_a_loop_and_one_compile_per_shape(landscape, getkey):
    traces = []

    class Traced(ed.flow.JointFlow):
        def __call__(self, time, state, args=None):
            traces.append(1)
            return super().__call__(time, state, args)

    def run(x, step=0.05):
        return ed.solve(Traced(landscape), (x, landscape.neutral(4)), t0=-0.5, t1=1.0, step=step).final[0]  # pyright: ignore[reportCallIssue]

    x = getkey.normal((3, 4, 5))
    loop = [run(jnp.asarray(row)) for row in np.asarray(x)]
    once = len(traces)
    run(x[0], step=0.1)
    assert len(traces) == once > 0
    assert np.allclose(jax.vmap(run)(x), loop, atol=1e-12)


def test_probes_and_times_of_a_path(landscape):
    field = ed.flow.Relaxation(landscape, EVIDENCE["masked"]())
    times = jnp.array([0.0, 0.5, 1.5])
    probes = {"time": lambda t, y, field: t, "norm": lambda t, y, field: {"y": jnp.linalg.norm(y)}}
    path = ed.solve(field, landscape.neutral(4), t0=0.0, t1=2.0, times=times, probes=probes)
    assert np.allclose(path.times, jnp.array([0.0, 0.5, 1.5, 2.0]))
    assert np.allclose(path.probes["time"], path.times)
    assert np.allclose(path.probes["norm"]["y"], np.linalg.norm(path.states, axis=(1, 2)))
    assert path.reason == "reached the end of the time interval"


def test_probes_at_times_never_reached_are_marked(landscape):
    field = ed.flow.Relaxation(landscape, ed.flow.Given(jnp.array([0, 1, 2, 0])))
    probes = {
        "size": lambda time, state, field: jnp.sum(state**2),
        "token": lambda time, state, field: jnp.argmax(state[0]),
    }
    path = ed.solve(
        field,
        landscape.neutral(4),
        t0=0.0,
        t1=1e4,
        times=jnp.array([1.0, 9e3]),
        probes=probes,
        stop=1e-4,
    )
    assert np.isfinite(path.times).tolist() == [True, False, True]
    reached = jnp.array([0, 2])
    assert np.allclose(path.probes["size"][reached], np.sum(path.states[reached] ** 2, axis=(1, 2)))
    assert path.probes["size"][1] == np.inf
    assert path.probes["token"][1] == jnp.iinfo(path.probes["token"].dtype).max
    assert (path.probes["token"][reached] == np.argmax(path.states[reached, 0], axis=-1)).all()


def test_running_out_of_steps_is_said_and_keeps_the_best_state(landscape):
    field = ed.flow.Relaxation(landscape, EVIDENCE["masked"]())
    path = ed.solve(field, landscape.neutral(4), t0=0.0, t1=100.0, step=0.01, max_steps=16)
    assert "maximum number of solver steps" in path.reason


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(t0=1.0, t1=0.0), "is not after"),
        (dict(t0=0.0, t1=1.0, step=-0.1), "`step` is -0.1"),
        (dict(t0=0.0, t1=1.0, controller=diffrax.ConstantStepSize()), "`step` is missing"),
    ],
)
def test_solve_names_bad_settings(settings, message, landscape):
    field = ed.flow.Relaxation(landscape, EVIDENCE["masked"]())
    with pytest.raises(ValueError, match=message):
        ed.solve(field, landscape.neutral(4), **settings)


def test_fields_name_bad_settings(landscape, unchecked):
    flow = ed.flow.ProbabilityFlow(landscape)
    with pytest.raises(ValueError, match="`steps` is 0"):
        ed.flow.ProbabilityFlow(landscape, steps=0)
    with pytest.raises(ValueError, match="`rate` is 0"):
        ed.flow.JointFlow(landscape, rate=0.0)
    with pytest.raises(ValueError, match="`churn` is -1"):
        ed.flow.ReverseDiffusion(flow, churn=-1.0)
    still: Any = ed.flow.Relaxation(landscape, ed.flow.Masked(3))
    with pytest.raises(ValueError, match="`flow` is a Relaxation"):
        ed.flow.ReverseDiffusion(still)
    with pytest.raises(ValueError, match="`width` is 0"):
        ed.flow.RollingNoise(flow, width=0.0, start=-1.0, end=2.0)
    with pytest.raises(ValueError, match="`flow` is a Relaxation"):
        ed.flow.RollingNoise(still, width=2.0, start=0.0, end=1.0)
    with pytest.raises(ValueError, match="`key` is missing"):
        ed.solve(ed.flow.ReverseDiffusion(flow), jnp.ones((2, 5)), t0=0.0, t1=1.0, step=0.1)
    with pytest.raises(ValueError, match="`stop` is 0"):
        ed.solve(flow, jnp.ones((2, 5)), t0=0.0, t1=1.0, stop=0.0)


def test_differentiation_goes_both_ways(getkey):
    """Forwards and backwards, by default and by diffrax's own adjoints, inside of `jit` and without; and twice."""
    memory = ed.memory.GaussianMemory(jnp.eye(3), beta=2.0)
    descent = ed.memory.Descent(memory)
    end = lambda cue, **options: ed.solve(descent, cue, t0=0.0, t1=2.0, **options).final
    cue = jnp.ones(3) + 0.1 * getkey.normal((3,))
    backwards = jax.jit(jax.jacrev(end))(cue)
    for forwards in (
        jax.jacfwd(end),
        jax.jit(jax.jacfwd(end)),
        jax.jacfwd(lambda x: end(x, adjoint=diffrax.ForwardMode())),
        jax.jacrev(lambda x: end(x, adjoint=diffrax.DirectAdjoint())),
    ):
        assert np.allclose(forwards(cue), backwards, atol=1e-8)
    scale = lambda s: end(cue * s).sum()
    slope = jax.jvp(lambda beta: ed.solve(
        ed.memory.Descent(eqx.tree_at(lambda m: m.log_beta, memory, beta)), cue, t0=0.0, t1=2.0
    ).final.sum(), (memory.log_beta,), (1.0,))[1]  # fmt: skip
    assert np.isfinite(slope) and slope != 0
    assert np.allclose(jax.hessian(scale)(1.0), jax.jit(jax.grad(jax.grad(lambda s: end(
        cue * s, adjoint=diffrax.DirectAdjoint()).sum())))(1.0), atol=1e-6)  # fmt: skip
    noisy = ed.memory.Langevin(memory, temperature=0.1)
    with pytest.raises(ValueError, match="`adjoint` goes with `step`"):
        ed.solve(
            noisy, cue, t0=0.0, t1=1.0, levels=jnp.linspace(0.0, 1.0, 3), key=getkey(), adjoint=diffrax.ForwardMode()
        )
