"""The model as a whole, and the laws on the weights that are shipped."""

import importlib.resources

import diffrax
import equinox as eqx
import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energy_dllm as ed


TEXT = "KING HENRY:\nMy lord, what news from France?\nI pray you, speak it plain.\n"


@pytest.fixture(scope="module")
def shipped():
    """The shipped model in float64, so that laws can be asked to 1e-8."""
    model = ed.load("shakespeare")
    return jax.tree.map(lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x, model)


def test_default_model_has_the_stages(getkey):
    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, steps=4, key=getkey())
    ids = model.encode("a cab")
    assert model.decode(ids) == "a cab"

    @eqx.filter_jit
    def read(model, ids):
        evidence = ed.flow.Given(ids, jnp.arange(5) != 2)
        y = model.settle(evidence)
        p = model.posterior(evidence)
        return (
            (p, model.energy.posterior(y, model.field(evidence))),
            (model.free_energy(evidence, y), sum(term.sum() for term in model.terms(evidence, y).values())),
            (jnp.exp(model.log_posterior(ids, evidence.known)), p),
            (model.denoised(evidence).sum(-1), jnp.ones(5)),  # one-hot codes: a mean of corners
            (p[0].argmax(), ids[0]),
        )

    for one, other in read(model, ids):
        assert np.allclose(one, other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(dim=0), "`dim`=0"),
        (dict(steps=0), "`steps`=0"),
        (dict(step=0.0), "`step`=0"),
        (dict(rank=-1, depth=1), "`rank`"),
        (dict(depth=0), "`depth`=0"),
        (dict(states=4), "`states`=4 at `depth`=2"),
        (dict(heads=3), "`heads` is 3"),
    ],
)
def test_sizes_are_checked(settings, message, getkey):
    with pytest.raises(ValueError, match=message):
        ed.EnergyDLLM(ed.data.Characters("abc "), **{"dim": 16, **settings}, key=getkey())


@pytest.mark.parametrize("depth", [1, 2])
def test_evidence_of_more_digits_than_the_model(depth, getkey):
    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, depth=depth, key=getkey())
    single = jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, model)
    evidence = ed.flow.Gaussian(jnp.eye(4)[jnp.array([0, 2, 1])], jnp.array([0.5, 1.0, 2.0]))
    assert np.allclose(single.settle(evidence), model.settle(evidence), atol=1e-3)
    y, b = single.energy.neutral(3), model.field(evidence)
    fast = [ed.flow.relax(m.energy, y, b, steps=2, step=0.5, momentum=0.5) for m in (single, model)]
    assert np.allclose(*fast, atol=1e-3)


def test_no_steps_are_none(getkey):
    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, key=getkey())
    assert (model.settle(ed.flow.Given(jnp.array([0, 1])), steps=0) == model.energy.neutral(2)).all()


def test_energy_and_tokenizer_must_agree(getkey):
    energy, _ = families.make_energy(getkey(), size=5)
    with pytest.raises(ValueError, match="vocabulary of 5, `tokenizer` of 4"):
        ed.EnergyDLLM(ed.data.Characters("abc "), energy=energy, key=getkey())


# ------------------------------------------------------------------------------------------- the shipped weights


@pytest.mark.parametrize("name", ["digits", "shakespeare"])
def test_shipped_models_are_small_and_say_where_they_come_from(name):
    file = importlib.resources.files("energy_dllm") / "weights" / f"{name}.safetensors"
    with importlib.resources.as_file(file) as path:
        assert path.stat().st_size < 8e6
    assert name in ed.learn.shipped()
    assert {"data", "command", "seed", "steps", "scores", "limits"} <= set(ed.learn.notes(name))


def test_laws_of_the_force_hold_for_the_shipped_energy(shipped, getkey):
    ids = shipped.encode(TEXT)
    b = shipped.field(ed.flow.Given(ids, jax.random.bernoulli(getkey(), 0.6, ids.shape)))
    y, v = jax.random.normal(getkey(), (2, ids.shape[0], shipped.energy.dim))

    @jax.jit
    def both_sides(y, v):
        _, dg = jax.jvp(lambda y: shipped.energy.activation(y, b), (y,), (v,))
        slope = families.finite_difference(lambda y: shipped.energy(y, b), y, v)
        return -jnp.vdot(shipped.energy.force(y, b), dg), slope

    assert np.allclose(*both_sides(y, v), rtol=1e-5)


def test_the_answer_of_the_shipped_model_does_not_depend_on_the_solver(shipped, getkey, optimised):
    """Law 8: the default relaxation against Tsit5 at tolerance 1e-6 followed to rest, on masked text, within 3 %."""
    ids = shipped.encode(TEXT)

    @jax.jit
    def both(known):
        evidence = ed.flow.Given(ids, known)
        field = ed.flow.Relaxation(shipped.energy, evidence)
        end = max(12.0, shipped.steps * shipped.step)
        controller = diffrax.PIDController(rtol=1e-6, atol=1e-6)
        start = shipped.energy.neutral(ids.shape[0])
        y = ed.solve(field, start, t0=0.0, t1=end, controller=controller).final
        exact = jax.nn.log_softmax(shipped.energy.logits(y, shipped.field(evidence)), axis=-1)
        ce = lambda log_p: -jnp.sum(jnp.where(known, 0, jnp.take_along_axis(log_p, ids[:, None], -1)[:, 0]))
        return ce(exact), ce(shipped.log_posterior(ids, known))

    # few and many masks
    keep = jnp.linspace(0.05, 0.95, 8)[:, None]
    known = jax.random.uniform(getkey(), (8, ids.shape[0])) < keep
    exact, euler = (jnp.sum(ce) for ce in jax.vmap(both)(known))
    assert abs(euler / exact - 1) < 0.03


@eqx.filter_jit
def energies_on_the_way(energy, b):
    step = lambda y, _: (ed.flow.relax(energy, y, b, steps=1, step=0.2), energy(y, b))
    return jax.lax.scan(step, energy.neutral(len(b)), None, length=60)[1]


@pytest.mark.parametrize("evidence", ["letters missing", "noise"])
def test_relaxation_of_the_shipped_model_lowers_f_at_every_step(evidence, shipped, getkey, optimised):
    """Law 4, under soft evidence too: `Λ_b` is convex whatever is known."""
    ids = shipped.encode(TEXT[:40])
    codes = shipped.energy.vocabulary.codes
    noisy = ed.flow.Gaussian(codes[ids] + 0.6 * jax.random.normal(getkey(), (40, codes.shape[1])), 0.6)
    missing = ed.flow.Given(ids, jnp.arange(40) % 3 > 0)
    b = shipped.field(noisy if evidence == "noise" else missing)

    f = np.asarray(energies_on_the_way(shipped.energy, b))
    # under masks messages are constant, and F with them
    assert np.all(np.diff(f) <= 1e-6 * np.abs(f).max()) and (evidence != "noise" or f[0] - f[-1] > 0.1)


def test_context_is_worth_something_to_the_shipped_model(shipped):
    """A letter inside a common word is found from its neighbours."""
    text = "the king and the queen"
    ids = shipped.encode(text)
    for place in (1, 6, 13):
        log_p = shipped.log_posterior(ids, jnp.arange(len(text)) != place)
        assert log_p[place, ids[place]] > jnp.log(0.3)
