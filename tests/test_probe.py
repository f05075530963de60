"""Laws of what is read on the way: sums, rates, slices, and that every probe reads every field."""

import functools
import itertools
import math
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import diffrax
import equinox as eqx
import families
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import energy_dllm as ed
from energy_dllm.flow._probing import observed


L, V, D = 6, 4, 16
NOW = jnp.zeros(())
PROBES = {
    "free_energy": ed.probe.free_energy,
    "energy_terms": ed.probe.energy_terms,
    "energy_by_token": ed.probe.energy_by_token,
    "posterior_entropy": ed.probe.posterior_entropy,
    "confidence": ed.probe.confidence,
    "tokens": ed.probe.tokens,
    "force_norm": ed.probe.force_norm,
    "attention_pattern": ed.probe.attention_pattern,
    "dissipation": ed.probe.dissipation,
    "distance_to_rest": ed.probe.distance_to_rest,
    "energy_by_part": ed.probe.energy_by_part,
    "force_share": functools.partial(ed.probe.force_norm, share=True),
    "strongest_memories": ed.probe.strongest_memories,
    "attribution": ed.probe.attribution,
}


@eqx.filter_jit
def read(name: str, state, field):
    """One call, compiled: much faster than operation by operation."""
    return PROBES[name](NOW, state, field)


def shaken(module):
    """The module with every parameter moved, so that no bias or threshold is zero."""
    draw = np.random.default_rng(1).standard_normal
    arrays = families.host(eqx.filter(module, eqx.is_array))
    move = lambda a: a + 0.3 * ((a.std() if a.size else 0.0) or 1.0) * draw(a.shape)
    return jax.device_put(jax.tree.map(move, arrays))


@pytest.fixture(scope="module", params=[1, 2], ids=["one layer", "deep"])
def model(request) -> ed.EnergyDLLM:
    tokenizer = ed.data.Characters("ab \n")
    build = eqx.filter_jit(lambda key: ed.EnergyDLLM(tokenizer, dim=D, depth=request.param, steps=4, key=key))
    built = build(jax.random.key(0))
    energy = jax.tree.map(jnp.asarray, shaken(built.energy))
    # codes stay one-hot: they are not learned
    energy = eqx.tree_at(lambda e: e.vocabulary.codes, energy, jnp.eye(V))
    return eqx.tree_at(lambda m: m.energy, built, eqx.combine(energy, built.energy))


@pytest.fixture(scope="module")
def noisy() -> ed.flow.AbstractEvidence:
    x = jax.random.normal(jax.random.key(4), (L, V))
    return ed.flow.Gaussian(x, jnp.linspace(0.5, 1.5, L))


@pytest.fixture(scope="module")
def relaxed(model, noisy) -> ed.flow.Trajectory:
    """A relaxation from a random state, recorded at the nodes of Simpson's rule."""
    field = ed.flow.Relaxation(model.energy, noisy)
    kept = ("free_energy", "energy_terms", "dissipation", "tokens", "posterior_entropy")
    y = jax.random.normal(jax.random.key(5), (L, D))

    @eqx.filter_jit
    def path(field, y):
        return ed.solve(
            field,
            y,
            t0=0.0,
            t1=4.0,
            times=jnp.linspace(0.0, 4.0, 201)[:-1],
            probes={name: PROBES[name] for name in kept},
            controller=diffrax.PIDController(rtol=1e-6, atol=1e-8),
        )

    return path(field, y)


def terms_of(model) -> set[str]:
    """Every term but the spring."""
    synapses = ["pairwise", "attention", "memory"]
    if model.energy.one_shot:
        synapses = [f"{kind} {n}" for n in (1, 2) for kind in ("convolution", "attention", "memory")]
    return {"neurons", *synapses, "bias", "vocabulary"}


def named(model, kind):
    return {name for name in terms_of(model) if name.split()[0] == kind}


def fields(model, given):
    flow = ed.flow.ProbabilityFlow(model.energy, given, steps=2)
    joint = ed.flow.JointFlow(model.energy, given)
    x, y = jnp.ones((L, V)), model.energy.neutral(L)
    return {
        "relaxation": (ed.flow.Relaxation(model.energy, given), y),
        "flow": (flow, x),
        "joint": (joint, (x, y)),
        "reverse": (ed.flow.ReverseDiffusion(flow), x),
        "reverse joint": (ed.flow.ReverseDiffusion(joint), (x, y)),
    }


def test_terms_sum_to_free_energy(relaxed, model, noisy):
    total = sum(relaxed.probes["energy_terms"].values())
    assert np.allclose(total, relaxed.probes["free_energy"], rtol=1e-12)
    y = relaxed.final
    field = ed.flow.Relaxation(model.energy, noisy)
    by_token = read("energy_by_token", y, field)
    assert set(by_token) == terms_of(model) | {"spring"}
    total = sum(term.sum() for term in by_token.values())
    assert np.allclose(total, read("free_energy", y, field), rtol=1e-12)
    assert np.allclose(by_token["spring"], noisy.spring()) and noisy.spring().min() > 0


def test_dissipation_is_the_rate_at_which_free_energy_falls(relaxed):
    energy, burnt = (np.asarray(relaxed.probes[name]) for name in ("free_energy", "dissipation"))
    assert (np.diff(energy) < 0).all() and (burnt > 0).all()
    weights = np.array([1.0, *[4.0, 2.0] * 99, 4.0, 1.0]) * 0.02 / 3  # Simpson's rule
    drop = energy[0] - energy[-1]
    assert drop > 1.0
    assert np.allclose(weights @ burnt, drop, rtol=1e-5)


def test_distance_to_rest_is_the_speed(model, noisy, relaxed):
    field = ed.flow.Relaxation(model.energy, noisy)
    speed = eqx.filter_jit(lambda field, state: field(NOW, state))
    distance = read("distance_to_rest", relaxed.final, field)
    assert np.allclose(distance, np.abs(speed(field, relaxed.final)).max(), rtol=1e-12)
    # in a joint flow it is still counted in time constants, not in noise time
    joint = ed.flow.JointFlow(model.energy, rate=7.0)
    state = jnp.ones((L, V)), relaxed.final
    _, dy = speed(joint, state)
    assert np.allclose(7.0 * read("distance_to_rest", state, joint), np.abs(dy).max(), rtol=1e-12)


def test_force_norms_are_slopes_of_the_terms(model, noisy):
    """In the activation `g`, with the hidden state `y` held."""
    energy, b = model.energy, model.field(noisy)
    y = jax.random.normal(jax.random.key(6), (L, D))
    g, step = energy.activation(y, b), 1e-5

    @jax.jit
    def differences(directions):
        def difference(d):
            up, down = (energy.terms(y, b, g=g + sign * step * d) for sign in (1, -1))
            return jax.tree.map(lambda u, w: jnp.sum(u - w) / (2 * step), up, down)

        return jax.lax.map(difference, directions)

    slopes = differences(jnp.eye(L * D).reshape(-1, L, D))
    norms = read("force_norm", y, ed.flow.Relaxation(energy, noisy))
    assert not slopes.pop("vocabulary").any()  # it acts through g
    assert set(norms) == set(slopes) | {"total"}
    slopes["total"] = sum(slopes.values())
    for name, norm in norms.items():
        measured = jnp.linalg.norm(slopes[name].reshape(L, D), axis=-1)
        assert norm.shape == (L,) and np.allclose(norm, measured, rtol=1e-5, atol=1e-7), name


def test_force_norm_refuses_a_synapse_named_total(model):
    network = eqx.tree_at(
        lambda n: n.synapses, model.energy.network, {"total": ed.energy.Pairwise(D, key=jax.random.key(0))}
    )
    field = ed.flow.Relaxation(eqx.tree_at(lambda e: e.network, model.energy, network), ed.flow.Masked(L))
    with pytest.raises(ValueError, match="synapse named 'total'"):
        jax.eval_shape(lambda y: ed.probe.force_norm(NOW, y, field), jnp.ones((L, D)))


def test_posterior_readings(model, relaxed):
    entropy = np.asarray(relaxed.probes["posterior_entropy"])
    assert (entropy >= 0).all() and (entropy <= math.log(V)).all() and entropy.max() > 0.1
    ids = jnp.array([0, 1, 2, 3, 2, 1])
    known = jnp.arange(L) < 3
    field = ed.flow.Relaxation(model.energy, ed.flow.Given(ids, known))
    y = jax.random.normal(jax.random.key(7), (L, D))
    p = np.asarray(eqx.filter_jit(field.posterior)(NOW, y))
    entropy, found = read("posterior_entropy", y, field), read("tokens", y, field)
    assert np.allclose(entropy, -(p * np.log(np.maximum(p, 1e-300))).sum(-1), atol=1e-12) and (entropy[:3] < 1e-6).all()
    assert np.allclose(read("confidence", y, field), p.max(-1))
    assert (found == p.argmax(-1)).all() and (found[:3] == ids[:3]).all()


def test_attention_pattern(model):
    field = ed.flow.Relaxation(model.energy, ed.flow.Masked(L))
    y = jax.random.normal(jax.random.key(8), (L, D))
    patterns = read("attention_pattern", y, field)
    assert set(patterns) == named(model, "attention")
    for pattern in patterns.values():
        assert np.allclose(pattern.sum(-1), 1.0)
        # what a layer of a stack reads at its own token is not the pattern of that token, compared with it
        assert (np.diagonal(pattern, axis1=1, axis2=2) == 0).all() != model.energy.one_shot


@pytest.mark.parametrize("name", ["relaxation", "flow", "joint", "reverse", "reverse joint"])
def test_every_probe_reads_every_field(name, model, noisy):
    field, state = fields(model, ed.flow.Given(jnp.zeros(L, int), jnp.arange(L) < 2))[name]

    def read_all(state):
        return {name: probe(NOW, state, field) for name, probe in PROBES.items()}

    seen = jax.eval_shape(read_all, state)
    shapes = jax.tree.map(lambda a: a.shape, seen)
    terms = terms_of(model)
    assert [shapes[each] for each in ("free_energy", "dissipation", "distance_to_rest")] == [()] * 3
    assert [shapes[each] for each in ("posterior_entropy", "confidence", "tokens")] == [(L,)] * 3
    assert jnp.issubdtype(seen["tokens"].dtype, jnp.integer)
    assert shapes["energy_terms"] == dict.fromkeys(terms | {"spring"}, ())
    assert shapes["energy_by_token"] == dict.fromkeys(terms | {"spring"}, (L,))
    assert shapes["force_norm"] == dict.fromkeys((terms - {"vocabulary"}) | {"total"}, (L,))
    attentions, memories = named(model, "attention"), named(model, "memory")
    assert shapes["attention_pattern"] == dict.fromkeys(attentions, (1, L, L))
    assert shapes["energy_by_part"] == dict.fromkeys(attentions, (1, L)) | dict.fromkeys(memories, (L, 2 * D))
    assert shapes["force_share"] == dict.fromkeys(terms - {"vocabulary"}, (L,))
    strongest = {"memory": (L, 3), "strength": (L, 3), "tokens": (L, 3, 3)}
    assert shapes["strongest_memories"] == dict.fromkeys(memories, strongest)
    assert seen["attribution"].log_odds.shape == (L,)


def test_heads_and_memories_are_their_terms(model, noisy):
    field = ed.flow.Relaxation(model.energy, noisy)
    y = jax.random.normal(jax.random.key(13), (L, D))

    @jax.jit
    def look(y):
        names = ("energy_by_part", "energy_by_token", "force_share", "strongest_memories")
        return [PROBES[name](NOW, y, field) for name in names]

    parts, terms, shares, strongest = look(y)
    heads, memories = named(model, "attention"), named(model, "memory")
    assert set(parts) == heads | memories and memories == set(strongest)
    assert all(np.allclose(parts[name].sum(0), terms[name], rtol=1e-12) for name in heads)
    assert all(np.allclose(parts[name].sum(-1), terms[name], rtol=1e-12) for name in memories)
    assert np.allclose(sum(shares.values()), 1.0) and min(share.min() for share in shares.values()) >= 0
    for found in strongest.values():
        assert (np.diff(found["strength"], axis=-1) <= 0).all() and (found["strength"] > 0).all()


def test_a_path_with_a_clock_knows_its_steps(model, noisy):
    field = ed.flow.Relaxation(model.energy, noisy)

    @eqx.filter_jit
    def path(y):
        return ed.solve(field, y, t0=0.0, t1=2.0, times=jnp.array([0.5]), clock=True, max_steps=32)

    made = path(jnp.ones((L, D)))
    assert np.allclose(made.step_sizes.sum(), 2.0) and (made.step_sizes > 0).sum() == made.accepted
    with pytest.raises(ValueError, match=r"no `clock`; record one"):
        _ = eqx.tree_at(lambda p: p.clock, made, None).step_sizes


def test_probes_name_what_is_wrong(model, unchecked):
    field = ed.flow.Relaxation(model.energy, ed.flow.Masked(L))
    read = lambda probe, width=D, **settings: jax.eval_shape(
        lambda y: probe(NOW, y, field, **settings), jnp.ones((L, width))
    )
    with pytest.raises(ValueError, match=r"hidden shape \(6, 17\); expected \(6, 16\).*another model"):
        read(ed.probe.free_energy, D + 1)
    with pytest.raises(ValueError, match=r"`token` has the ids 9 to 9; expected 0 to 3"):
        read(ed.probe.attribution, token=9)
    with pytest.raises(ValueError, match=r"`reference` has shape \(2,\); expected one id, or \(6,\)"):
        read(ed.probe.attribution, reference=np.array([0, 1]))
    with pytest.raises(ValueError, match=r"`count` is 0; expected a positive integer"):
        read(ed.probe.strongest_memories, count=0)


def test_probes_ride_along_with_a_noisy_motion(model):
    field, state = fields(model, ed.flow.Masked(L))["reverse joint"]

    def path(state, key):
        probes = {name: PROBES[name] for name in ("tokens", "dissipation")}
        times = jnp.array([-1.0, 0.0])
        return ed.solve(field, state, t0=-1.0, t1=1.0, times=times, step=0.1, key=key, probes=probes).probes

    seen = jax.eval_shape(path, state, jax.random.key(0))
    assert seen["tokens"].shape == (3, L) and seen["dissipation"].shape == (3,)


def test_probes_share_what_they_have_in_common():
    """A probe that is asked twice costs little more than once, and so do all of them beside one force."""
    # tokens one by one: the slope of a chain, which dissipation needs, is more products than all forces together
    build = eqx.filter_jit(lambda key: ed.EnergyDLLM(ed.data.Characters("ab \n"), dim=D, depth=1, states=0, key=key))
    energy = build(jax.random.key(0)).energy
    field = ed.flow.Relaxation(energy, ed.flow.Given(jnp.zeros(L, int), jnp.arange(L) < 2))
    times, states = jnp.arange(20.0), jnp.ones((20, L, D))

    def products(*names):
        probes = {str(n): PROBES[name] for n, name in enumerate(names)}
        lowered = jax.jit(lambda t, y: observed(probes, (t, y), field)).lower(times, states)
        # with every pass, as for a user: what probes have in common is found once constants are folded
        text = lowered.compile(compiler_options={"xla_disable_hlo_passes": ""}).as_text() or ""
        assert " while(" in text
        return len(re.findall(r" dot\(", text))

    force, both = products("distance_to_rest"), products("distance_to_rest", "distance_to_rest")
    standard = products("free_energy", "energy_terms", "tokens", "confidence", "dissipation", "distance_to_rest")
    assert both < 1.4 * force and standard < 1.5 * force


@pytest.mark.parametrize(
    ("probe", "sentence"),
    [
        (lambda t, y, field: y if t > 1 else y[:2], r"the probe 'odd' must return arrays .* use `jnp.where`"),
        (lambda t, y, field: y[y > 0], r"the probe 'odd' must return arrays .* use `jnp.where`"),
        (lambda t, y, field: {"a": t, "b": "text"}, r"the probe 'odd' must return arrays .* returns a str"),
    ],
)
def test_a_probe_has_one_shape_at_all_times(probe, sentence, model):
    field = ed.flow.Relaxation(model.energy, ed.flow.Masked(L))
    with pytest.raises(ValueError, match=sentence):
        jax.eval_shape(lambda y: ed.solve(field, y, t0=0.0, t1=2.0, probes={"odd": probe}).probes, jnp.ones((L, D)))


def test_commitment_time():
    tokens = jnp.array([[0, 1, 2, 0], [1, 1, 0, 0], [0, 1, 2, 0], [0, 1, 2, 3]])
    times = jnp.array([-1.0, 0.5, 1.0, 2.0])
    assert ed.probe.commitment_time(times, tokens).tolist() == [1.0, -1.0, 1.0, 2.0]
    assert ed.probe.commitment_time(times[:1], tokens[:1]).tolist() == [-1.0] * 4


def test_records_that_were_not_reached_are_no_change():
    times, none = jnp.array([0.0, 1.0, 2.0, jnp.inf, jnp.inf, 2.5]), jnp.iinfo(int).max
    tokens = jnp.array([[1, 5, 7], [2, 5, 7], [1, 5, 7], [none] * 3, [none] * 3, [1, 5, 8]])
    assert ed.probe.commitment_time(times, tokens).tolist() == [2.0, 0.0, 2.5]
    assert ed.probe.commitment_time(times[:5], tokens[:5]).tolist() == [2.0, 0.0, 0.0]


def test_commitment_time_of_confidence():
    sure = jnp.array([[0.95, 0.2, 0.9, 0.1], [0.5, 0.2, 0.9, 0.1], [0.9, 0.99, 0.9, 0.1]]) >= 0.9
    found = jnp.where(sure[-1], ed.probe.commitment_time(jnp.arange(3.0), sure), jnp.inf)
    assert found.tolist() == [2.0, 2.0, 0.0, jnp.inf]


def test_commitment_names_what_is_wrong(unchecked):
    with pytest.raises(ValueError, match=r"`tokens` has shape \(2,\)"):
        ed.probe.commitment_time(jnp.arange(2.0), jnp.ones(2))


def test_landscape_is_the_free_energy(model, noisy):
    free_energy = eqx.filter_jit(lambda y: model.free_energy(noisy, y))
    paths = jax.random.normal(jax.random.key(9), (2, 3, L, D)).cumsum(axis=1)
    land = ed.probe.Landscape(model.energy, noisy, paths, resolution=5, margin=0.5)
    plane = land.plane
    gram = np.einsum("ald,bld->ab", plane.directions, plane.directions)
    assert np.allclose(gram, jnp.eye(2), atol=1e-12)
    assert np.allclose(free_energy(plane.origin), free_energy(paths[:, -1].mean(0)))
    for i, j in ((0, 0), (1, 4), (3, 2)):
        y = plane.origin + land.u[j] * plane.directions[0] + land.v[i] * plane.directions[1]
        assert np.allclose(land.free_energy[i, j], free_energy(y), rtol=1e-12)
    assert np.allclose(land.path_energy[1, 2], free_energy(paths[1, 2]), rtol=1e-12)
    # the frame holds the paths, and distance is what the plane leaves over
    assert land.u[0] < land.paths[..., 0].min() and land.v[-1] > land.paths[..., 1].max()
    inside, outside = (land.paths**2).sum(-1), land.path_distance**2
    assert np.allclose(inside + outside, ((paths - plane.origin) ** 2).sum((-2, -1)))
    assert 0 < land.held < 1
    # the axes point the way the paths go
    assert ((land.paths[:, -1] - land.paths[:, 0]).mean(0) >= 0).all()


def test_landscape_is_that_of_the_origin_in_its_middle(model, noisy):
    free_energy = eqx.filter_jit(lambda y: model.free_energy(noisy, y))
    states = jax.random.normal(jax.random.key(10), (3, L, D))
    plane = ed.probe.Plane.through(*states)
    corners = plane.at(jnp.array([[[1.0, 1.0], [-1.0, -1.0], [0.5, 0.0]]] * 2))
    land = ed.probe.Landscape(model.energy, noisy, corners, plane=plane, resolution=5, margin=0.5)
    assert np.allclose(land.free_energy[2, 2], free_energy(states[0]), rtol=1e-12)
    assert np.allclose(plane.distance(states), 0.0, atol=1e-12) and np.allclose(land.held, 1.0)
    assert np.allclose(plane.at(plane.coordinates(states)), states, atol=1e-12)


def test_principal_plane_holds_a_plane_completely():
    flat = jax.random.normal(jax.random.key(11), (2, 4, 2))
    origin, *two = jax.random.normal(jax.random.key(12), (3, L, D))
    true = ed.probe.Plane(origin, jnp.stack(two))
    paths = true.at(flat)
    assert np.allclose(ed.probe.Plane.of_paths(paths).distance(paths), 0.0, atol=1e-10)


def test_landscape_names_what_is_wrong(model, noisy):
    paths = jnp.ones((2, 3, L, D))
    with pytest.raises(ValueError, match=r"`resolution` is 1; expected at least 2"):
        ed.probe.Landscape(model.energy, noisy, paths, resolution=1)
    with pytest.raises(ValueError, match=r"`margin` is -1.0; expected 0 or more"):
        ed.probe.Landscape(model.energy, noisy, paths, margin=-1.0)
    with pytest.raises(ValueError, match=r"`paths` has shape \(2, 3, 5, 16\); expected \(P, N, 6, 16\)"):
        ed.probe.Landscape(model.energy, noisy, paths[:, :, :5])
    with pytest.raises(ValueError, match=r"at least three states"):
        ed.probe.Plane.of_paths(paths[:, :1])
    # whichever looks first: the shapes that are checked in tests, or the sentence
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="directions"):
        ed.probe.Plane(jnp.ones((L, D)), jnp.ones((2, L, D + 1)))
    with pytest.raises(RuntimeError, match="parallel or zero"):
        ed.probe.Plane(jnp.ones((L, D)), jnp.ones((2, L, D)))


def assert_labelled(figure):
    for axes in figure.axes:
        assert axes.get_xlabel() or axes.get_ylabel(), axes
    figure.canvas.draw()


def test_plots_are_labelled(relaxed, model, noisy):
    above, below = ed.probe.plot_energy(relaxed).axes
    assert above.get_ylabel() == "$F$ (nats)" and "(nats)" in below.get_ylabel()
    named_terms = {text.get_text().rpartition(" ")[0] for text in below.texts}  # without the last value
    assert named_terms == (terms_of(model) - {"vocabulary"}) | {"vocabulary + spring"}
    dissipation = lambda path: path.probes["dissipation"]
    pictures = [
        ed.probe.plot_energy(relaxed, noise_time=True),
        ed.probe.plot_relaxation(relaxed, horizon=2.0),
        ed.probe.plot_relaxation(eqx.tree_at(dissipation, relaxed, 0.0 * dissipation(relaxed))),  # at rest all along
        ed.probe.plot_passage(relaxed, model.tokenizer, rows=5),
        ed.probe.plot_relaxation_curve([(0.6, 3.0), (6.0, 2.0)], horizon=3.0),
    ]
    for picture in pictures:
        assert_labelled(picture)
    # the final text is the last row
    drawn = [text for text in pictures[3].axes[0].texts if text.get_position()[1] == 4]
    shown = "".join({"": " ", "↵": "\n"}.get(text.get_text(), text.get_text()) for text in drawn)
    assert shown == model.decode(relaxed.probes["tokens"][-1])


def test_plots_of_why_are_labelled(model, noisy):
    @eqx.filter_jit
    def look(y):
        field = ed.flow.Relaxation(model.energy, noisy)
        return ed.probe.attribution(NOW, y, field), ed.probe.attention_pattern(NOW, y, field)

    why, patterns = look(jax.random.normal(jax.random.key(14), (L, D)))
    pattern = patterns[min(patterns)]
    values = np.array([-1.0, 2.0])
    spectrum = ed.probe.Spectrum(values, np.eye(2), values**2 / 5, np.zeros(2))
    pair = ed.memory.GaussianMemory(jnp.array([[2.0, 0.0], [-2.0, 0.0]]))
    over = ed.probe.Barrier(pair, *pair.patterns, images=5, steps=2)
    pictures = [
        why.plot(-1, model.tokenizer),
        ed.probe.plot_attention(pattern, model.tokenizer, jnp.zeros(L, int)),
        over.plot(),
        spectrum.plot(),
    ]
    for picture in pictures:
        assert_labelled(picture)
    bars: Any = pictures[0].axes[0].containers[0]
    values = bars.datavalues
    assert np.allclose(sum(values), why.log_odds[-1])
    with pytest.raises(ValueError, match=r"`place` is 6; the passage has 6 tokens"):
        why.plot(6, model.tokenizer)
    with pytest.raises(ValueError, match=r"`pattern` has shape \(1, 6, 6\); expected \(H, 2, 2\)"):
        ed.probe.plot_attention(pattern, model.tokenizer, jnp.zeros(2, int))


def test_a_passage_moves(relaxed, model, tmp_path: Path, monkeypatch):
    few = jax.tree.map(lambda leaf: leaf[:3], (relaxed.times, relaxed.probes))
    path = eqx.tree_at(lambda path: (path.times, path.probes), relaxed, few)
    file = ed.probe.animate(path, model.tokenizer, tmp_path / "a.gif", width=4)
    assert file.read_bytes().startswith(b"GIF89a") and [*tmp_path.iterdir()] == [file]
    with pytest.raises(ValueError, match=r"ends with .gif or .mp4"):
        ed.probe.animate(path, model.tokenizer, tmp_path / "a.png")
    film = tmp_path / "a.mp4"
    if shutil.which("ffmpeg"):
        assert ed.probe.animate(path, model.tokenizer, film, width=4).read_bytes()[4:8] == b"ftyp"
    monkeypatch.setattr("matplotlib.animation.FFMpegWriter.isAvailable", lambda: False)
    with pytest.raises(ValueError, match=r"`file` ends with .mp4, which needs the program ffmpeg; install it, or"):
        ed.probe.animate(path, model.tokenizer, film)


def test_plots_need_no_glyph_a_font_lacks(relaxed):
    strange = ed.data.Characters("a\u4e00$\t")  # an ideograph, what mathtext would read, what is no glyph
    figure = ed.probe.plot_passage(relaxed, strange, rows=2)
    figure.canvas.draw()
    assert {text.get_text() for text in figure.axes[0].texts} == {"a", "□", "$", "⇥"}


def trajectory(*recorded) -> ed.flow.Trajectory:
    """Of times, states and probes."""
    times, states, probes = jax.tree.map(jnp.asarray, recorded)
    none = jnp.zeros((), int)
    return ed.flow.Trajectory(times, states, probes, none, none, none)


def test_a_passage_of_byte_pairs_reads_as_one_line():
    pairs = ed.load("stories").tokenizer
    ids = pairs.encode("Once upon a time, there was a girl.\nShe ran.")
    moments = np.stack([np.full_like(ids, pairs.encode(" little")[0]), ids])
    seen = {"tokens": moments, "posterior_entropy": np.zeros(moments.shape)}
    path = trajectory(np.array([0.0, 1.0]), np.zeros((2, 3, 2)), seen)
    figure = ed.probe.plot_passage(path, pairs, rows=2)
    figure.canvas.draw()
    axes = figure.axes[0]
    for row in range(2):
        boxes = [text.get_window_extent() for text in axes.texts if text.get_position()[1] == row]
        assert all(left.x1 <= right.x0 + 1.0 for left, right in itertools.pairwise(boxes))
    words = "".join(text.get_text() for text in axes.texts if text.get_position()[1] == 1)
    assert "".join(words.split()) == "Onceuponatime,therewasagirl.\u21b5Sheran."  # a letter alone has a space behind


def test_a_passage_of_a_picture_shows_its_patches():
    """By their pixels, behind the letters of the caption; their numbers in the book say nothing."""
    pictures = np.random.default_rng(0).integers(0, 2, (9, 4, 6), np.uint8) * 255
    tokenizer = ed.data.Patches.from_pictures(pictures, patch=2, captions=["one", "two"])
    moments = np.stack([tokenizer.join(["one"], pictures[4:5])[0], tokenizer.join(["two"], pictures[3:4])[0]])
    path = trajectory(np.arange(2.0), np.zeros((2, 9, 2)), {"tokens": moments, "posterior_entropy": np.zeros((2, 9))})
    figure = ed.probe.plot_passage(path, tokenizer, rows=2)
    figure.canvas.draw()
    axes = figure.axes[0]
    assert "".join(text.get_text() for text in axes.texts) == "onetwo"
    for image, picture in zip(axes.images, (pictures[4], pictures[3]), strict=True):
        assert image.get_zorder() > axes.collections[0].get_zorder()  # not behind the shades
        shown = np.asarray(image.get_array())
        shown = shown[shown[..., 3] > 0][:, 0].reshape(2, 6, 2).transpose(1, 0, 2)
        assert np.allclose(shown, tokenizer.cut(picture[None]).reshape(6, 2, 2) / 255, atol=1e-2)


@pytest.mark.parametrize(("low", "high"), [(42.76, 43.4), (-8000.0, -7990.0), (0.0, 3e4)])
def test_the_scale_of_a_landscape_tells_its_heights_apart(low, high):
    u, land = np.linspace(-1.0, 1.0, 9), object.__new__(ed.probe.Landscape)
    heights = low + (high - low) * (u**2 + u[:, None] ** 2) / 2
    lines = {"paths": np.ones((1, 2, 2)), "path_distance": np.ones((1, 2))}
    for name, value in {"u": u, "v": u, "free_energy": heights, **lines}.items():
        object.__setattr__(land, name, value)
    labels = [text.get_text() for text in land.plot().axes[1].get_yticklabels()]
    assert len(labels) > 3 and len(set(labels)) == len(labels), labels


def test_noise_time_leaves_out_what_is_the_same_for_every_text():
    s, terms = np.linspace(-1.0, 2.0, 5), {"neurons": np.arange(5.0), "vocabulary": np.ones(5)}
    terms["spring"] = 2.0 - 3 * 7 * s
    path = trajectory(s, (np.zeros((5, 3, 7)), np.zeros((5, 3, 2))), {"energy_terms": terms})
    above, below = ed.probe.plot_energy(path, noise_time=True).axes
    assert np.allclose(above.lines[0].get_ydata(), terms["neurons"] + 3.0)
    assert {text.get_text().rpartition(" ")[0] for text in below.texts} == {"neurons", "vocabulary + spring"}
    terms["spring"] = terms["spring"] + 99.0 * s
    for noise_time in (True, False):  # it is what is said of a term that is not drawn, where it is so
        _, below = ed.probe.plot_energy(path, noise_time=noise_time).axes
        assert ("mostly" in below.get_title(loc="left")) is not noise_time


def test_of_many_layers_those_of_a_kind_are_one_line():
    terms = {f"{kind} {n}": np.array([0.0, 1.0]) for kind in ("attention", "memory") for n in range(1, 9)}
    terms["neurons"] = np.array([0.0, -1234.0])
    path = trajectory(np.array([0.0, 1.0]), np.zeros((2, 3, 2)), {"energy_terms": terms})
    _, below = ed.probe.plot_energy(path).axes
    assert {text.get_text() for text in below.texts} == {"attention +8", "memory +8", "neurons \u22121,234"}


def test_plots_read_evaluations():
    curve = [(0.6, 3.0), (6.0, 2.0)]
    score = ed.learn.Evaluation(2.0, 0.1, 64, 2.0, 2.0, 2.0, 2.0, curve, [], [])
    (axes,) = ed.probe.plot_relaxation_curve(score).axes
    assert np.array_equal(axes.lines[0].get_xydata(), curve)


def test_plots_name_what_is_wrong(relaxed, model):
    bare = eqx.tree_at(lambda path: path.probes, relaxed, {})
    with pytest.raises(ValueError, match=r"`path` has no probe named 'energy_terms'; record it"):
        ed.probe.plot_energy(bare)
    with pytest.raises(ValueError, match=r"`path` has no probe named 'tokens'"):
        ed.probe.plot_passage(bare, model.tokenizer)
    with pytest.raises(ValueError, match=r"`rows` is 1; expected at least"):
        ed.probe.plot_passage(relaxed, model.tokenizer, rows=1)
    with pytest.raises(ValueError, match=r"`curve` has shape"):
        ed.probe.plot_relaxation_curve([(1.0, 2.0)])


def test_plots_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install '\.\[plot\]' in a checkout"):
        ed.probe.plot_relaxation_curve([(0.6, 3.0), (6.0, 2.0)])


def test_inspect(model, tmp_path: Path, monkeypatch):
    folder = tmp_path / "a" / "b"
    files = ed.probe.inspect(model, folder, prompt="ab", length=L, steps=5, seed=3)
    names = ["energy.png", "passage.png", "landscape.png", "relaxation.png", "inspect.npz"]
    assert [file.name for file in files] == names and sorted(folder.iterdir()) == sorted(files)
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files[:4])
    with np.load(files[4]) as arrays:
        seen = dict(arrays)
    assert all(np.isfinite(array).all() for array in seen.values())
    sigma = np.exp(-np.asarray(model.schedule.levels(5)))
    assert np.allclose(seen["passage/sigma"], sigma)
    assert seen["passage/tokens"].shape == (6, L) and (seen["passage/tokens"][-1, :2] == [0, 1]).all()
    energy = seen["relaxation/free_energy"]
    terms = [seen[name] for name in seen if name.startswith("relaxation/energy_terms/")]
    assert np.allclose(sum(terms), energy) and (np.diff(energy) < 1e-9).all()
    assert seen["slice/paths"].shape == (6, 49, 2) and seen["slice/free_energy"].shape == (48, 48)

    # a second look that fails half way leaves the first as it was
    before = {file: file.read_bytes() for file in files}
    write, written = Path.write_bytes, []

    def fail(path, data):
        written.append(path)
        if len(written) > 2:
            raise OSError("disk full")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        ed.probe.inspect(model, folder, prompt="ba", length=L, steps=5, seed=4)
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"length": 0}, r"`length` is 0; expected a positive number of tokens"),
        ({"steps": 0}, r"`steps` is 0; expected a positive number of steps"),
        ({"prompt": "aaa", "length": 2}, r"`prompt` has 3 tokens but `length` is 2; make `length` larger"),
        ({"prompt": "axe"}, r"`prompt` 'axe' cannot be encoded: .*'x' at 1"),
    ],
)
def test_inspect_names_what_is_wrong(settings, sentence, model, tmp_path: Path):
    with pytest.raises(ValueError, match=sentence):
        ed.probe.inspect(model, tmp_path / "look", **settings)
    assert not (tmp_path / "look").exists()


def test_inspect_refuses_a_file(model, tmp_path: Path):
    (tmp_path / "look").write_text("mine")
    with pytest.raises(ValueError, match=r"`directory` .*look is a file; expected a folder"):
        ed.probe.inspect(model, tmp_path / "look")
    assert (tmp_path / "look").read_text() == "mine"
