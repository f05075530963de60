"""Laws of flow maps: a jump by the average posterior is where the ODE leads, and that is what distilling asks for."""

import diffrax
import equinox as eqx
import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energy_dllm as ed


ITEMS = np.array([[0, 1, 2], [2, 2, 0], [1, 0, 2], [2, 1, 1]])


@pytest.fixture(scope="module")
def model():
    energy = ed.energy.Empirical(ITEMS, size=3, weights=jnp.array([1.0, 2.0, 0.5, 1.5]))
    return ed.EnergyDLLM(ed.data.Characters("abc"), energy=energy, steps=1, key=jax.random.key(0))


@pytest.fixture(scope="module")
def small():
    return families.small_model("abc ")


class Exact(eqx.Module):
    """Follows the ODE itself by small steps of fourth order, and leans a little to some tokens."""

    flow: ed.flow.ProbabilityFlow
    lean: jax.Array

    def __call__(self, b, start, end):
        x = b * jnp.exp(-2 * start) + 0.5  # undoes the evidence of one-hot codes
        h = (end - start) / 32

        def step(x, n):
            s = start + n * h
            k1 = self.flow(s, x)
            k2 = self.flow(s + h / 2, x + h / 2 * k1)
            k3 = self.flow(s + h / 2, x + h / 2 * k2)
            return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + self.flow(s + h, x + h * k3)), None

        there = jax.lax.scan(step, x, jnp.arange(32))[0]
        ratio = jnp.exp(start - end)
        mean = jnp.where(
            end > start, (there - ratio * x) / jnp.where(end > start, 1 - ratio, 1.0), x + self.flow(start, x)
        )
        return jax.nn.log_softmax(jnp.log(jnp.maximum(mean, 1e-12)) + self.lean, axis=-1)


def exact(model):
    return Exact(ed.flow.ProbabilityFlow(model.energy, steps=1), jnp.zeros(3))


@pytest.fixture(scope="module")
def noise(model):
    start = float(model.schedule.levels(1)[0])
    return start, np.exp(-start) * np.random.default_rng(0).normal(size=(64, 3, 3)) + 1 / 3


@pytest.mark.parametrize("steps", [1, 3])
def test_a_jump_is_where_the_path_leads(steps, model, noise):
    start, xs = noise
    levels = model.schedule.levels(steps)
    field = ed.flow.ProbabilityFlow(model.energy, steps=1)

    def ends(x):
        jumped = ed.solve(
            field, x, t0=levels[0], t1=levels[-1], levels=levels, solver=ed.flow.DDIM(average=exact(model))
        )
        control = diffrax.PIDController(rtol=1e-9, atol=1e-9)
        followed = ed.solve(field, x, t0=levels[0], t1=levels[-1], solver=diffrax.Dopri8(), controller=control)
        return jumped.final, followed.final, jumped.force_evaluations

    jumped, followed, evaluations = jax.jit(jax.vmap(ends))(jnp.asarray(xs[:5]))
    assert np.allclose(jumped, followed, atol=1e-4) and (evaluations == steps).all()


def test_the_objective_is_least_where_the_map_is_exact(model, getkey):
    """The gradient with respect to a lean is the mean of the prediction less the target."""
    ids = jnp.asarray(ITEMS[[0, 1, 2, 3, 1, 1, 3, 0]])
    key = getkey()

    def slope(taught):
        objective = ed.learn.Distilling(model, taught=taught, steps=1, anneal=0.0)
        loss = lambda lean: objective(eqx.tree_at(lambda m: m.lean, exact(model), lean), ids, key, jnp.ones(()))
        return jax.jit(jax.value_and_grad(loss))(jnp.zeros(3)) + (jax.jit(loss)(jnp.array([0.3, 0.0, -0.2])),)

    for taught in (0.0, 1.0):
        least, gradient, other = slope(taught)
        assert np.abs(gradient).max() < 1e-4 and other > least + 1e-3


@pytest.mark.parametrize("steps", [1, 3])
def test_what_is_taught_is_the_posterior_the_teacher_has(steps, getkey):
    """That after the relaxation it is trained for: after more steps under noise it is another, and a worse one."""
    teacher = ed.EnergyDLLM(ed.data.Characters("abc"), dim=16, steps=steps, step=0.7, key=jax.random.key(0))
    energy, neutral = teacher.energy, teacher.energy.neutral(3)
    objective = ed.learn.Distilling(teacher, taught=1.0)

    def loss(lean):
        rest = lambda b: ed.flow.relax(energy, neutral, b, steps=steps, step=0.7)
        own = lambda b, s, t: jax.nn.log_softmax(energy.logits(rest(b), b) + lean)
        return objective(own, jnp.asarray(ITEMS), key, jnp.ones(()))

    key = getkey()
    assert np.abs(jax.jit(jax.grad(loss))(jnp.zeros((3, 3)))).max() < 1e-9


def test_a_map_comes_to_know_the_path(model, noise):
    """One jump of a small network that was taught is nearer to the end of the path than one step of the ODE."""
    start, xs = noise
    jumps = ed.learn.FlowMap(model.energy, dim=16, depth=1, heads=2, key=jax.random.key(1))
    objective = ed.learn.Distilling(model, taught=0.25, steps=1, anneal=0.3)
    optimizer = ed.learn.default_optimizer(1e-2, 1000)
    state = optimizer.init(eqx.filter(jumps, eqx.is_inexact_array))
    ids = jnp.asarray(np.repeat(ITEMS, [4, 8, 2, 6], axis=0)[:16])

    @eqx.filter_jit
    def train(jumps, state):
        def step(carry, n):
            parameters, state = carry
            loss = lambda p: objective(eqx.combine(p, static), ids, jax.random.fold_in(jax.random.key(2), n), n / 1000)
            change, state = optimizer.update(jax.grad(loss)(parameters), state, parameters)
            return (eqx.apply_updates(parameters, change), state), None

        parameters, static = eqx.partition(jumps, eqx.is_inexact_array)
        return eqx.combine(jax.lax.scan(step, (parameters, state), jnp.arange(1000))[0][0], static)

    field = ed.flow.ProbabilityFlow(model.energy, steps=1)
    levels = model.schedule.levels(1)

    @eqx.filter_jit
    def end(solver, x):
        return ed.solve(field, x, t0=levels[0], t1=levels[-1], levels=levels, solver=solver).final

    error = lambda average: np.sqrt(
        np.mean((jax.vmap(lambda x: end(ed.flow.DDIM(average=average), x))(jnp.asarray(xs)) - wanted) ** 2)
    )
    wanted = jax.vmap(lambda x: end(ed.flow.DDIM(average=exact(model)), x))(jnp.asarray(xs))
    assert error(train(jumps, state)) < 0.85 * min(error(None), error(jumps))


def test_what_is_known_stays_known(small, getkey):
    """Evidence that excludes a token excludes it from every jump, whatever the network says; so templates are kept."""
    jumps = eqx.filter_jit(ed.learn.FlowMap)(small.energy, dim=16, depth=1, key=getkey())
    b = jax.random.normal(getkey(), (6, 4)) + ed.flow.Given(jnp.arange(6) % 4, jnp.arange(6) < 3).field(jnp.eye(4))
    p = np.exp(eqx.filter_jit(jumps)(b, jnp.array(-0.7), jnp.array(1.0)))
    assert np.allclose(p[:3], np.eye(4)[np.arange(3)], atol=1e-12) and np.allclose(p.sum(-1), 1)
    assert (p[3:].max(-1) < 1 - 1e-6).all()
    made = ed.infill(
        small, "ab[6]c", sampler=ed.sampling.Diffusion(steps=3, solver=ed.flow.DDIM(average=jumps)), samples=3
    )
    assert all(text[:2] == "ab" and text[-1] == "c" for text in made.texts)
    assert made.force_evaluations.tolist() == [3] * 3


def test_a_map_is_kept(small, tmp_path, getkey):
    jumps = ed.learn.FlowMap(small.energy, dim=16, depth=1, key=getkey())
    ed.save(tmp_path / "map.safetensors", jumps)
    assert eqx.tree_equal(ed.load(tmp_path / "map.safetensors"), jumps)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"churn": 0.5}, "for motion without noise"),
        ({"front": 4.0}, "along a ProbabilityFlow"),
        ({"field": ed.flow.JointFlow}, "along a ProbabilityFlow"),
    ],
    ids=["churn", "front", "joint"],
)
def test_a_map_jumps_along_the_flow_it_knows(options, words, small, getkey, unchecked):
    jumps = ed.learn.FlowMap(small.energy, dim=16, depth=1, key=getkey())
    with pytest.raises(ValueError, match=words):
        solver = ed.flow.DDIM(average=jumps)
        ed.generate(small, length=8, sampler=ed.sampling.Diffusion(steps=2, solver=solver, **options))


def test_a_map_has_no_guidance(small, getkey, unchecked):
    """The map was trained on the landscape without it."""
    path = ed.sampling.Diffusion(
        steps=2, solver=ed.flow.DDIM(average=ed.learn.FlowMap(small.energy, dim=16, depth=1, key=getkey()))
    )
    with pytest.raises(ValueError, match="not the `guidance`"):
        ed.generate(small, length=8, sampler=path, guidance=ed.energy.Guidance(lambda p: jnp.sum(p[:, 0])))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda model: ed.learn.FlowMap(model.energy, local=-1, key=jax.random.key(0)), "`local` is -1"),
        (lambda model: ed.learn.FlowMap(model.energy, dim=10, heads=4, key=jax.random.key(0)), "does not divide"),
        (lambda model: ed.learn.Distilling(model, taught=1.5), "`taught`=1.5"),
        (lambda model: ed.learn.Distilling(model, anneal=-0.1), "`anneal`=-0.1"),
        (lambda model: ed.learn.Distilling(model, steps=0), "`steps` is 0"),
    ],
)
def test_what_cannot_be_is_named(make, words, model, unchecked):
    with pytest.raises(ValueError, match=words):
        make(model)
