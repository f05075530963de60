"""Training, evaluation, files: exact resumption, refusals, twins, and the bound that cannot lie."""

import dataclasses
import importlib
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
import types
from pathlib import Path
from typing import Any

import equinox as eqx
import families
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
from families import host

import energy_dllm as ed
from energy_dllm import _files
from energy_dllm.learn import _cost, _file, _fit, _log
from energy_dllm.learn._structure import build, describe


sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
mutations = importlib.import_module("mutations")


LENGTH = 12


@pytest.fixture(scope="module")
def corpus():
    return ed.data.grammar_corpus(characters=3000)


@pytest.fixture
def model(corpus, getkey):
    return ed.EnergyDLLM(corpus.tokenizer, dim=16, steps=3, key=getkey())


@pytest.fixture(scope="module")
def small(corpus):
    """One synapse, where the law is not about the landscape: the compiler has less to do."""
    return families.small_model(corpus.tokenizer.alphabet)


OBJECTIVE = ed.learn.Denoising(horizon=2, tracked=2)


# The same for every training, so that those of one model share a program.
SIZES: dict[str, Any] = dict(steps=40, length=LENGTH, batch_size=8, learning_rate=1e-2)


def train(model, corpus, **settings):
    return ed.fit(model, corpus, OBJECTIVE, **{**SIZES, **settings})


TWINS = {
    "masked": lambda size, key: ed.learn.MaskedDiffusion(size, dim=8, heads=2, key=key),
    "recurrent": lambda size, key: ed.learn.MaskedDiffusion(size, dim=8, depth=1, repeats=3, heads=2, key=key),
    "autoregressive": lambda size, key: ed.learn.Autoregressive(size, dim=8, heads=2, key=key),
}


def tokens(shape, size, getkey):
    return jnp.asarray(np.random.default_rng(getkey.seed).integers(0, size, shape))


# ------------------------------------------------------------------------------------------- twins


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_predicts_distributions_and_does_not_see_what_it_predicts(name, getkey):
    twin = TWINS[name](5, getkey())
    ids, known = np.asarray(tokens((LENGTH,), 5, getkey)), np.arange(LENGTH) % 3 > 0
    log_posterior = eqx.filter_jit(twin.log_posterior)
    predict = lambda ids, known: np.asarray(log_posterior(jnp.asarray(ids), jnp.asarray(known)))
    p = predict(ids, known)
    assert np.allclose(np.exp(p).sum(-1), 1.0)
    hidden = (ids + 1) % 5
    if name == "autoregressive":
        other = predict(np.where(np.arange(LENGTH) < 7, ids, hidden), known)
        assert np.allclose(other[:8], p[:8]) and not np.allclose(other[8:], p[8:])
    else:
        assert np.allclose(predict(np.where(known, ids, hidden), known), p)
        assert not np.allclose(predict(np.where(known, hidden, ids), known), p)


def test_files_with_the_old_class_of_the_recurrent_twin_load():
    twin = ed.learn.MaskedDiffusion(5, dim=8, depth=1, repeats=3, heads=2, key=jax.random.key(0))
    structure, arrays = describe(twin)
    assert structure["class"] == "learn.MaskedDiffusion"
    assert eqx.tree_equal(build(structure | {"class": "learn.Recurrent"}, "model", arrays, ()), twin)


def test_the_recurrent_twin_repeats_one_block(getkey):
    make = lambda n: ed.learn.MaskedDiffusion(5, dim=8, depth=1, repeats=n, heads=2, key=jax.random.key(0))
    one, three = make(1), make(3)
    size = lambda model: sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array)))
    assert size(one) == size(three)


def test_local_help_is_a_convolution_over_neighbours(getkey):
    """With attention and MLP silenced, what is predicted depends on the neighbours in reach and on nobody else."""
    twin = ed.learn.MaskedDiffusion(5, dim=8, depth=1, heads=2, local=2, key=getkey())
    quiet = lambda t: (t.trunk.blocks[0].out, t.trunk.blocks[0].down)
    twin = eqx.tree_at(quiet, twin, tuple(jnp.zeros_like(leaf) for leaf in quiet(twin)))
    predict = eqx.filter_jit(jax.vmap(lambda ids: twin.log_posterior(ids, jnp.ones(LENGTH, bool))[5]))
    ids = np.asarray(tokens((LENGTH,), 5, getkey))
    others = (ids + np.eye(LENGTH, dtype=int)) % 5  # in each row another token is another one
    p = np.asarray(predict(jnp.asarray(np.vstack([ids, others]))))
    assert np.any(p[1:] != p[0], axis=-1).tolist() == [3 <= i <= 7 for i in range(LENGTH)]


def test_places_of_a_layout_tell_equal_tokens_apart(getkey):
    """Without attention and MLP, masked tokens differ where places have vectors of their own, and only there."""
    for places in (0, LENGTH):
        twin = ed.learn.MaskedDiffusion(5, dim=8, depth=1, heads=2, places=places, key=getkey())
        quiet = lambda t: (t.trunk.blocks[0].out, t.trunk.blocks[0].down)
        twin = eqx.tree_at(quiet, twin, tuple(jnp.zeros_like(leaf) for leaf in quiet(twin)))
        p = np.asarray(twin.log_posterior(jnp.zeros(LENGTH, int), jnp.zeros(LENGTH, bool)))
        assert len(np.unique(p.round(6), axis=0)) == max(1, places)


def test_twin_sizes_are_checked(getkey):
    with pytest.raises(ValueError, match="`local` is -1"):
        ed.learn.MaskedDiffusion(5, local=-1, key=getkey())
    with pytest.raises(ValueError, match="`dim` is 9, which `heads`=2 does not divide"):
        ed.learn.MaskedDiffusion(5, dim=9, heads=2, key=getkey())
    with pytest.raises(ValueError, match="`depth` is 0"):
        ed.learn.MaskedDiffusion(5, depth=0, key=getkey())


# ------------------------------------------------------------------------------------------- objectives


def test_the_mixture_has_its_shares_and_the_same_masks_as_the_twins(small, corpus, getkey):
    ids, key = jnp.asarray(ed.data.Windows.disjoint(corpus.train, LENGTH, count=20)), getkey()
    twin = TWINS["masked"](small.size, getkey())

    @eqx.filter_jit
    def read(small, twin, ids, key):
        end = jnp.array(1.0)
        mixed = ed.learn.Denoising(gaussian=0.5, typo=0.2, prefix=0.0, known=0.0).draw(small, ids, key, end)[:2]
        only, hidden = ed.learn.Denoising(gaussian=0.0, typo=0.0, prefix=0.0).draw(small, ids, key, end)[:2]
        return (
            mixed,
            (only, hidden),
            twin.objective(twin, ids, key, end),
            jax.vmap(twin.log_posterior)(ids, ~hidden),
        )

    (b, asked), (only, hidden), loss, log_p = host(read(small, twin, ids, key))
    hard = np.all((b == 0) | (b == ed.flow.FORBIDDEN), axis=(1, 2))
    assert hard.sum() == 6 and np.all(asked[~hard])
    assert np.all((only == 0).all(-1) == hidden)  # nothing is known exactly where tokens are hidden
    ce = -np.take_along_axis(log_p, np.asarray(ids)[..., None], -1)[..., 0]
    weight = hidden / np.sqrt(np.maximum(hidden.sum(-1, keepdims=True), 1))  # a window asks with sqrt(n) in all
    assert np.allclose(loss, np.sum(weight * ce) / weight.sum())


def test_tokens_may_be_known_among_noisy_ones(small, corpus, getkey):
    ids = jnp.asarray(ed.data.Windows.disjoint(corpus.train, LENGTH, count=20))
    objective = ed.learn.Denoising(gaussian=1.0, typo=0.0, known=1.0)
    draw = eqx.filter_jit(lambda small, ids, key: objective.draw(small, ids, key, jnp.array(1.0))[:2])
    b, asked = host(draw(small, ids, getkey()))
    known = b.min(-1) < 0.5 * ed.flow.FORBIDDEN
    assert 0 < known.mean() < 1 and np.array_equal(asked, ~known)
    assert np.array_equal(b.argmax(-1)[known], np.asarray(ids)[known]) and len(np.unique(b[~known])) > 100


def test_large_vocabularies_are_read_window_by_window(monkeypatch):
    """The same loss and gradient, of which nothing is kept that is as large as the evidence."""
    tokenizer = ed.data.Characters("".join(map(chr, range(0x10000, 0x10000 + 2048))))
    network = ed.energy.Network(ed.energy.Silent(), {"pair": ed.energy.Pairwise(8, key=jax.random.key(0))}, jnp.ones(8))
    vocabulary = ed.energy.MeanFieldVocabulary(tokenizer.size, 8, key=jax.random.key(1))
    energy = ed.energy.FreeEnergy(network, vocabulary, kappa=1.0)
    model = ed.EnergyDLLM(tokenizer, energy=energy, key=jax.random.key(2))
    ids = jax.random.randint(jax.random.key(1), (12, 32), 0, tokenizer.size)
    made = []
    for large in (1 << 20, 1):
        monkeypatch.setattr("energy_dllm.learn._cross_entropy.LARGE", large)
        loss = lambda model, ids: OBJECTIVE(model, ids, jax.random.key(2), jnp.array(1.0))
        jitted: Any = eqx.filter_jit(eqx.filter_value_and_grad(loss))
        program = jitted.lower(model, ids).compile()
        made.append((program.compiled.memory_analysis().temp_size_in_bytes, program(model, ids)))
    (plain, one), (memory, other) = made
    assert memory < 0.6 * plain
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), one, other)


def test_the_horizon_grows_log_uniformly(small, corpus):
    ids = jnp.asarray(ed.data.Windows.disjoint(corpus.train, LENGTH, count=2))

    @eqx.filter_jit
    def draw(shortest, at):
        objective = ed.learn.Denoising(shortest=shortest, horizon=60, anneal=0.5)
        keys = jax.random.split(jax.random.key(0), 400)
        return jax.vmap(lambda key: objective.draw(small, ids, key, at)[2])(keys)

    untracked = lambda shortest, at: np.asarray(draw(shortest, jnp.asarray(at)))
    assert untracked(5, 0.0).max() == 0
    late = untracked(0, 1.0)
    assert 50 < late.max() <= 60 and late.min() == 0
    assert 0.35 < np.mean(late < 7) < 0.65  # the median of log-uniform on 1..61 is sqrt(61)
    assert untracked(5, 1.0).min() == 5 and untracked(5, 1.0).max() <= 60
    # as many as are asked for, where the exponential of a logarithm is less by rounding
    for n in (4, 6, 12, 48):
        objective = ed.learn.Denoising(shortest=n, horizon=n, anneal=0.0)
        assert objective.draw(small, ids, jax.random.key(0), jnp.array(1.0))[2] == n


@pytest.mark.parametrize(("blocks", "shift"), [((0,), False), ((0, 1), True)])
def test_windows_cost_the_same_in_one_program_as_apart(corpus, getkey, blocks, shift):
    """A horizon that is not reached yet relaxes nothing, but has programs of its own."""
    ids = jnp.asarray(ed.data.Windows.disjoint(corpus.train, LENGTH, count=12))
    model: Any = ed.EnergyDLLM(corpus.tokenizer, dim=16, blocks=blocks, shift=shift, key=getkey())
    moved = lambda x: x.astype(np.float64) + 0.1 * getkey.normal(x.shape) if eqx.is_inexact_array(x) else x
    model, key = jax.tree.map(moved, model), getkey()
    cost = eqx.filter_jit(eqx.filter_value_and_grad(lambda m, objective: objective(m, ids, key, jnp.array(0.0))))
    one, other = (cost(model, ed.learn.Denoising(horizon=horizon)) for horizon in (0, 1))
    assert one[0] > 0.1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), one, other)


def test_every_way_of_reading_is_trained_or_the_batch_is_refused(corpus, getkey):
    """The windows of a part of a batch are those that `accumulate` leaves."""
    model, objective = ed.EnergyDLLM(corpus.tokenizer, dim=16, blocks=(0, 1), key=getkey()), ed.learn.Denoising()
    for windows in (1, 2, 3):
        with pytest.raises(ValueError, match=r"`blocks` of the model are \(0, 1\), and of . win.* expected 4 or more"):
            objective.sizes(model, windows)
    assert all(set(objective.sizes(model, windows)) == {0, 1} for windows in range(4, 20))
    with pytest.raises(ValueError, match=r"and of 1 windows at once 0 are masked.* or lower `accumulate`"):
        ed.fit(model, corpus, objective, steps=1, length=8, batch_size=4, accumulate=4)


def test_the_loss_has_a_true_gradient_in_what_it_tracks(small, corpus, getkey):
    ids = jnp.asarray(ed.data.Windows.disjoint(corpus.train, LENGTH, count=4))
    model = jax.tree.map(lambda x: x.astype(np.float64) if eqx.is_inexact_array(x) else x, small)
    # no untracked steps: the whole motion is differentiated
    objective = ed.learn.Denoising(horizon=0, tracked=3, start=0.5)
    key = getkey()
    where = lambda m: m.energy.network.synapses["pairwise"].left
    loss = lambda w: objective(eqx.tree_at(where, model, w), ids, key, jnp.array(1.0))
    value_and_slope = jax.jit(jax.value_and_grad(loss))
    w, v = where(model), getkey.normal(where(model).shape)
    slope = families.finite_difference(lambda w: value_and_slope(w)[0], w, v)
    assert np.allclose(np.vdot(value_and_slope(w)[1], v), slope, rtol=1e-5)


def test_stillness_and_the_vocabulary_alone_have_their_price(small, corpus, getkey):
    """Stillness costs the logarithm of the speed; the vocabulary reads on while the rest learns."""
    # far from rest: squares would cost more
    objective = ed.learn.Denoising(horizon=0, tracked=2, start=0.0, step=3.0, speed_penalty=0.0, prior_weight=0.0)

    @eqx.filter_jit
    def read(small, ids, key):
        end, energy = jnp.array(1.0), small.energy
        loss = lambda **weight: dataclasses.replace(objective, **weight)(small, ids, key, end)
        b, _, _, step = objective.draw(small, ids, key, end)

        def speed(b):
            y = ed.flow.relax(energy, energy.neutral(LENGTH), b, steps=1, step=step)  # where the last step begins
            return energy.kappa * energy.force(y, b)

        return (
            (loss(speed_penalty=0.7) - loss(), jax.vmap(speed)(b)),
            (loss(prior_weight=0.7) - loss(), jax.vmap(energy.vocabulary.nll)(ids).mean()),
            ed.learn.MaximumLikelihood()(small, ids, key, end),
        )

    ids = jnp.asarray(ed.data.Windows.disjoint(corpus.train, LENGTH, count=3))
    (speed_penalty, v), (prior_weight, nll), only = host(read(small, ids, getkey()))
    assert np.abs(v).max() > 1
    assert np.allclose(speed_penalty, 0.7 * np.mean(np.log1p(v**2)), rtol=1e-5)
    assert np.allclose(prior_weight, 0.7 * nll, rtol=1e-5)
    assert np.allclose(only, nll)


@pytest.mark.parametrize(
    "settings",
    [
        dict(gaussian=0.8, typo=0.4),
        dict(horizon=-1),
        dict(shortest=-1),
        dict(tracked=0),
        dict(step=0.0),
        dict(speed_penalty=-1.0),
        dict(start=-1.0),
        dict(prior_weight=-1.0),
        dict(likelihood=-1.0),
    ],
)
def test_objective_settings_are_checked(settings):
    with pytest.raises(ValueError, match="`" + next(iter(settings))):
        ed.learn.Denoising(**settings)


def test_what_a_known_token_adds_to_f_is_asked_to_be_its_nll(getkey):
    """`likelihood` costs nothing where tokens are independent, whose `F` is exact; elsewhere what `F` misses."""
    ids, key, end = jax.random.randint(getkey(), (6, 9), 0, 5), getkey(), jnp.array(1.0)
    model = ed.EnergyDLLM(ed.data.Characters("abcde"), dim=16, key=getkey())
    model = eqx.tree_at(lambda m: m.energy.vocabulary.prior, model, jax.random.normal(getkey(), (5,)))
    alone = eqx.tree_at(lambda m: m.energy.vocabulary.patterns, model, jnp.zeros((5, 16)))
    hidden = jnp.arange(9) == 4

    class One(ed.learn.Denoising):
        """One token is masked."""

        def draw(self, model, ids, key, progress):
            b = jax.vmap(lambda row: model.field(ed.flow.Given(row, ~hidden)))(ids)
            return b, jnp.broadcast_to(hidden, ids.shape), jnp.zeros((), int), jnp.ones(())

    @eqx.filter_jit
    def cost(kind, model):
        loss = lambda weight: kind(gaussian=0.0, typo=0.0, likelihood=weight)(model, ids, key, end)
        return loss(1.0) - loss(0.0)

    assert abs(cost(ed.learn.Denoising, alone)) < 1e-10 and cost(ed.learn.Denoising, model) > 1e-4
    gaps = []
    for row in ids:
        scalar = lambda known, row=row: float(
            model.energy(model.settle(ed.flow.Given(row, known)), model.field(ed.flow.Given(row, known)))
        )
        gaps.append(abs(scalar(hidden | ~hidden) - scalar(~hidden) + model.log_posterior(row, ~hidden)[4, row[4]]))
    gaps = np.array(gaps)
    assert np.isclose(cost(One, model), np.mean(np.where(gaps < 1, gaps**2 / 2, gaps - 0.5)), rtol=1e-6)
    shallow = ed.EnergyDLLM(ed.data.Characters("abcde"), dim=16, depth=1, key=key)
    with pytest.raises(ValueError, match="`likelihood` is 0.1"):
        ed.learn.Denoising(likelihood=0.1)(shallow, ids, key, end)


# ------------------------------------------------------------------------------------------- fit


def test_training_lowers_the_loss_of_every_model(corpus, getkey, tmp_path):
    contenders = {
        "energy": (ed.EnergyDLLM(corpus.tokenizer, dim=16, key=getkey()), OBJECTIVE),
    } | {
        name: (twin, twin.objective)
        for name in ("masked", "autoregressive")
        for twin in [TWINS[name](corpus.tokenizer.size, getkey())]
    }
    ids, key = jnp.asarray(ed.data.Windows.disjoint(corpus.validation, LENGTH, count=16)), getkey()
    for name, (model, objective) in contenders.items():
        fitted = ed.fit(model, corpus, objective, **SIZES, directory=tmp_path / name)
        loss = eqx.filter_jit(lambda model, objective=objective: objective(model, ids, key, jnp.array(1.0)))
        assert loss(fitted) < 0.97 * loss(model), name
        assert len((tmp_path / name / "log.jsonl").read_text().splitlines()) == 40


@eqx.filter_jit
def second_change(optimizer, gradient, parameters):
    """What an optimizer changes in its second step; the first is warming up."""
    step = lambda state, _: optimizer.update(gradient, state, parameters)[::-1]
    _, changes = jax.lax.scan(step, optimizer.init(parameters), None, length=2)
    return jax.tree.map(lambda change: change[1], changes)


def test_matrices_shrink_where_they_move_and_nothing_else_does():
    """By `decay eta`, whatever the gradient says; matrices that are fixed, and vectors, keep all."""
    shapes = {"matrix": (16, 20), "fixed": (16, 16), "bias": (7,)}
    parameters = {name: jnp.asarray(np.full(shape, 3.0)) for name, shape in shapes.items()}
    gradient = {name: jnp.asarray(np.full(shape, 1e-9 * (name != "fixed"))) for name, shape in shapes.items()}
    plain, shrinking = (
        host(second_change(ed.learn.default_optimizer(1e-2, steps=20, decay=decay), gradient, parameters))
        for decay in (0.0, 0.25)
    )
    lost = {name: shrinking[name] - plain[name] for name in shapes}
    assert np.allclose(lost["matrix"], -0.25 * 1e-2 * 3.0)
    assert not lost["fixed"].any() and not shrinking["fixed"].any() and not lost["bias"].any()
    with pytest.raises(ValueError, match="`decay` is -1"):
        ed.learn.default_optimizer(1e-2, steps=20, decay=-1)


def test_matrices_move_along_all_directions_alike_and_the_rest_by_adam(getkey):
    """One update: singular values of a matrix become equal (Newton-Schulz: to 0.7 .. 1.2), batches of matrices each."""
    shapes = {"matrix": (40, 16), "alike": (40, 16), "heads": (3, 16, 20), "table": (4, 129), "bias": (7,)}
    gradient = {name: getkey.normal(shape) for name, shape in shapes.items()}
    parameters = {name: jnp.asarray(np.zeros(shape)) for name, shape in shapes.items()}
    change = host(second_change(ed.learn.default_optimizer(1e-2, steps=20), gradient, parameters))
    for name, longest in (("matrix", 40), ("alike", 40), ("heads", 20)):
        assert np.linalg.cond(gradient[name]).min() > 2
        size = np.linalg.svd(change[name], compute_uv=False) / (0.2 * longest**0.5 * 1e-2)
        assert ((size > 0.6) & (size < 1.3)).all()
        left, _, right = np.linalg.svd(gradient[name], full_matrices=False)
        inside = np.swapaxes(left, -1, -2) @ change[name] @ np.swapaxes(right, -1, -2)
        # along the directions of its own gradient
        assert (np.trace(inside, axis1=-2, axis2=-1) < -0.6 * left.shape[-1] * 0.2 * longest**0.5 * 1e-2).all()
    for name in ("table", "bias"):
        size = -change[name] / (np.sign(gradient[name]) * 1e-2)
        assert np.allclose(size, size.ravel()[0], rtol=0.05) and 0.5 < size.ravel()[0] < 2


SCRIPT = textwrap.dedent("""
    import sys, jax
    import energy_dllm as ed
    corpus = ed.data.grammar_corpus(characters=3000)
    key, tokenizer = jax.random.key(0), corpus.tokenizer
    memory = ed.energy.ConvolutionalMemory(16, key=key)
    network = ed.energy.Network(ed.energy.LayerNorm(), {"memory": memory}, jax.numpy.zeros(16))
    energy = ed.energy.FreeEnergy(network, ed.energy.Vocabulary(tokenizer.size, 16, key=key), kappa=8.0)
    model = ed.EnergyDLLM(tokenizer, energy=energy, key=key)
    objective = ed.learn.Denoising(horizon=2, tracked=2)
    sizes = dict(steps=60, length=12, batch_size=4)
    model = ed.fit(model, corpus, objective, **sizes, directory=sys.argv[1], checkpoint_seconds=0)
    ed.save(sys.argv[1] + "/final.safetensors", model)
""")


def test_a_training_killed_at_random_resumes_bit_by_bit(tmp_path):
    run = lambda folder: [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path / folder)]
    # three processes, one compilation
    env = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    subprocess.run(run("whole"), check=True, env=env)
    process = subprocess.Popen(run("killed"), env=env)
    checkpoint = tmp_path / "killed" / "checkpoint.safetensors"
    while not checkpoint.exists():
        time.sleep(0.01)
    time.sleep(float(np.random.default_rng().uniform(0, 0.2)))
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    steps = len((tmp_path / "killed" / "log.jsonl").read_text().splitlines())
    assert steps < 60  # it really was interrupted
    subprocess.run(run("killed"), check=True, env=env)
    whole, killed = ((tmp_path / f / "final.safetensors").read_bytes() for f in ("whole", "killed"))
    assert whole == killed
    logs = [(tmp_path / f / "log.jsonl").read_text().splitlines() for f in ("whole", "killed")]
    losses = [[json.loads(line)["loss"] for line in log] for log in logs]
    assert len(losses[0]) == 60 and losses[0] == losses[1]


def test_a_pause_changes_nothing(corpus, getkey, tmp_path):
    twin = TWINS["masked"](corpus.tokenizer.size, getkey())
    go = lambda **settings: host(ed.fit(twin, corpus, twin.objective, **SIZES, **settings))
    seen = []
    half = go(until=2, directory=tmp_path, log=seen.append)
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == seen and len(seen) == 2
    whole, resumed = go(), go(directory=tmp_path)
    same = lambda a, b: all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))
    arrays = lambda model: eqx.filter(model, eqx.is_array)
    assert same(arrays(whole), arrays(resumed)) and not same(arrays(half), arrays(whole))


def test_a_stopped_run_is_read_as_the_model_it_would_have_returned(small, corpus, tmp_path):
    for dtype in (jnp.float64, jnp.bfloat16):
        cast = lambda leaf, dtype=dtype: jnp.asarray(leaf, dtype) if eqx.is_inexact_array(leaf) else leaf
        model = jax.tree.map(cast, small)
        half = train(model, corpus, until=3, directory=tmp_path / dtype.__name__)
        loaded = ed.load(tmp_path / dtype.__name__ / "checkpoint.safetensors")
        assert jax.tree.structure(loaded) == jax.tree.structure(half) and loaded.tokenizer == half.tokenizer
        assert eqx.tree_equal(host(loaded), host(half))
        assert loaded.energy.log_kappa.dtype == dtype


def test_small_updates_and_constants_are_kept_whatever_the_dtype(small, corpus):
    """Of a model of 8 bits of precision too: steps of a thousandth of it add up, and what never moves stays."""
    cast = lambda dtype: jax.tree.map(lambda x: jnp.asarray(x, dtype) if eqx.is_inexact_array(x) else x, small)
    model = cast(jnp.bfloat16)
    step = lambda change: jax.tree.map(lambda g: jnp.full_like(g, change), eqx.filter(model, eqx.is_inexact_array))
    wide = lambda tree: jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), tree)

    def only_bias(change):
        nothing = wide(step(0.0))
        return eqx.tree_at(lambda m: m.energy.network.bias, nothing, replace_fn=lambda g: g + change)

    update: Any = lambda updates, state, params=None: (only_bias(2.0**-12), state)
    creep = optax.GradientTransformation(lambda params: optax.EmptyState(), update)
    model = eqx.tree_at(lambda m: m.energy.network.bias, model, jnp.ones(16, jnp.bfloat16))
    after = ed.fit(model, corpus, OBJECTIVE, **{**SIZES, "steps": 64}, optimizer=creep, average=0.0)
    assert np.all(np.asarray(after.energy.network.bias, float) == 1 + 64 * 2.0**-12)
    after = ed.fit(model, corpus, OBJECTIVE, **SIZES, optimizer=creep, average=0.999)
    assert np.all(np.asarray(after.energy.network.bias, float) > 1)
    fixed = lambda m: (m.energy.vocabulary.codes, m.schedule, m.energy.network.synapses, m.energy.log_kappa)
    assert eqx.tree_equal(host(fixed(after)), host(fixed(model)))


def test_a_second_training_in_the_same_folder_is_refused(small, corpus, tmp_path):
    with _files.alone(tmp_path):
        with pytest.raises(ValueError, match="is in use by another training"):
            train(small, corpus, until=1, directory=tmp_path)
    train(small, corpus, until=1, directory=tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_keeps_what_it_has(number, small, corpus, tmp_path):
    whole = host(train(small, corpus, steps=6))
    seen = []

    def handle(*args):
        seen.append(number)
        raise KeyboardInterrupt

    before = signal.signal(number, handle)
    try:
        real = _fit._update

        def update(run, *rest):
            if int(run.step) == 2:
                signal.raise_signal(number)
            return real(run, *rest)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_fit, "_update", update)
            with pytest.raises(KeyboardInterrupt, match="stopped after step 3 of 6, kept in .*; to go on"):
                train(small, corpus, steps=6, directory=tmp_path)
        assert seen == [number] and signal.getsignal(number) is handle
    finally:
        signal.signal(number, before)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 3
    assert eqx.tree_equal(host(train(small, corpus, steps=6, directory=tmp_path)), whole)


def test_a_folder_of_another_training_is_refused(small, corpus, tmp_path):
    train(small, corpus, until=4, directory=tmp_path)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(ValueError, match="holds another training: its seed is 0, now 1"):
        train(small, corpus, until=4, directory=tmp_path, seed=1)
    moved = jax.tree.map(lambda leaf: leaf + 1 if eqx.is_inexact_array(leaf) else leaf, small)
    for seed, words in ((1, "its seed is 0, now 1"), (0, "its model began with other parameters;")):
        with pytest.raises(ValueError, match=f"holds another training: {words}"):
            train(moved, corpus, until=4, directory=tmp_path, seed=seed)
    other = eqx.tree_at(lambda objective: objective.schedule.end, OBJECTIVE, replace_fn=lambda end: end + 0.1)
    with pytest.raises(ValueError, match="holds another training: its objective is 'Denoising"):
        ed.fit(small, corpus, other, **SIZES, until=4, directory=tmp_path)
    arrays, header = _file.read(tmp_path / "checkpoint.safetensors")
    header["training"]["accumulate"] = 2
    _file.write(tmp_path / "checkpoint.safetensors", arrays, header)
    with pytest.raises(ValueError, match="holds another training: its accumulate is 2, now 1"):
        train(small, corpus, directory=tmp_path)
    (tmp_path / "checkpoint.safetensors").write_bytes(before[: len(before) // 2])
    with pytest.raises(ValueError, match="truncated"):
        train(small, corpus, directory=tmp_path)
    assert (tmp_path / "checkpoint.safetensors").stat().st_size == len(before) // 2  # left as it was found


def test_another_text_or_alphabet_is_another_training(small, corpus, tmp_path):
    folder, path = tmp_path / "run", tmp_path / "run" / "checkpoint.safetensors"
    train(small, corpus, until=2, directory=folder)
    turned = dataclasses.replace(corpus, train=corpus.train[::-1])
    with pytest.raises(ValueError, match=r"holds another training: its text is '3,000 tokens \(\w+\)', now '3,000 tok"):
        train(small, turned, directory=folder)
    other = dataclasses.replace(corpus, tokenizer=ed.data.Characters(corpus.tokenizer.alphabet[::-1]))
    with pytest.raises(ValueError, match=r"`corpus` has Characters of 29 symbols \(\w+\), `model` Characters of 29"):
        train(small, other)
    # one of before, which does not say what it learned from
    arrays, header = _file.read(path)
    for kept in (header["training"], header["notes"]["training"]):
        assert kept.pop("text") and kept.pop("tokenizer").startswith("Characters of 29")
    del header["notes"]["training"]["seed"]
    _file.write(path, arrays, header)
    train(small, corpus, until=3, directory=folder)
    assert "text" in _file.read(path)[1]["training"]


def test_a_log_of_something_else_stays(small, corpus, tmp_path):
    log = tmp_path / "log.jsonl"
    for content in ('{"text": "mine"}\n' * 9, "my notes", "[1]\n"):
        log.write_text(content)
        with pytest.raises(ValueError, match=r"`directory` .* has a log.jsonl that is of no training"):
            train(small, corpus, until=1, directory=tmp_path)
        assert log.read_text() == content and os.listdir(tmp_path) == ["log.jsonl"]
    for ours in ("", '{"st', '{"step": 1, "loss": 2.0}\n{"step": 2'):  # of trainings that were killed
        log.write_text(ours)
        train(small, corpus, until=1, directory=tmp_path)
        assert json.loads(log.read_text())["step"] == 1
        (tmp_path / "checkpoint.safetensors").unlink()


def test_a_log_that_cannot_be_written_keeps_what_is_learned(small, corpus, tmp_path, monkeypatch):
    def full(record):
        if record["step"] == 3:
            raise OSError(28, "No space left on device")
        return dumps(record)

    dumps = json.dumps
    with monkeypatch.context() as patch:
        patch.setattr(_log, "json", types.SimpleNamespace(dumps=full, loads=json.loads))
        with pytest.raises(OSError, match=r"`directory` .* cannot be written .No space left on device.; make room"):
            train(small, corpus, until=4, directory=tmp_path)
    assert ed.learn.notes(tmp_path / "checkpoint.safetensors")["step"] == 3
    whole = host(train(small, corpus, until=4))
    assert eqx.tree_equal(host(train(small, corpus, until=4, directory=tmp_path)), whole)


def test_nan_stops_with_the_step_the_term_and_the_last_good_checkpoint(small, corpus, tmp_path):
    couplings = lambda m: m.energy.network.synapses["pairwise"].left
    scaled = lambda by: eqx.tree_at(couplings, small, replace_fn=lambda c: jnp.asarray(np.asarray(c) * by))
    broken, steep = scaled(np.nan), scaled(1e300)
    with pytest.raises(FloatingPointError, match=r"step 0: the parameter .*pairwise.*left broke first"):
        train(broken, corpus)
    with pytest.raises(FloatingPointError, match="the term 'bias' of F, at relaxation step 1") as caught:
        train(steep, corpus, directory=tmp_path)
    assert str(tmp_path) in str(caught.value)
    arrays = safetensors.numpy.load_file(tmp_path / "checkpoint.safetensors")
    assert all(np.isfinite(array).all() for array in arrays.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(steps=0), "`steps` is 0"),
        (dict(length=0), "`length`"),
        (dict(batch_size=-1), "`batch_size` is -1"),
        (dict(length=100_000), "100000"),
        (dict(learning_rate=0.0), "`learning_rate` is 0"),
        (dict(average=1.0), "`average` is 1"),
        (dict(until=0), "`until` is 0"),
        (dict(steps=4, until=5), "`until` is 5; expected one of the 4 `steps`"),
        (dict(until=1.5), "`until` is 1.5"),
        (dict(until=True), "`until` is True"),
        (dict(checkpoint_seconds="x"), "`checkpoint_seconds` is 'x'"),
        (dict(checkpoint_seconds=math.nan), "`checkpoint_seconds` is nan"),
        (dict(progress="yes"), "`progress` is 'yes'"),
        (dict(directory=__file__), "`directory` .* is a file or below one; expected a folder"),
    ],
)
def test_fit_names_bad_settings(settings, message, model, corpus, unchecked):
    with pytest.raises(ValueError, match=message):
        train(model, corpus, **settings)


@pytest.mark.parametrize("objective, moved", [(OBJECTIVE, "network"), (ed.learn.MaximumLikelihood(), "vocabulary")])
def test_what_the_loss_does_not_depend_on_is_not_decayed(objective, moved, small, corpus):
    """By an optimizer that shrinks all it is given; codes of tokens and levels of noise are no parameters."""
    settings: dict[str, Any] = {**SIZES, "steps": 2, "optimizer": optax.adamw(1e-2, weight_decay=1.0)}
    fitted, still = ed.fit(small, corpus, objective, **settings), objective is not OBJECTIVE
    different = lambda one, other: not eqx.tree_equal(host(one), host(other))
    assert different(getattr(fitted.energy, moved), getattr(small.energy, moved))
    assert different(fitted.energy.network, small.energy.network) != still
    assert not different(fitted.schedule, small.schedule)
    assert not different(fitted.energy.vocabulary.codes, small.energy.vocabulary.codes)


# ------------------------------------------------------------------------------------------- evaluate


def test_the_bound_of_the_exact_model_is_the_entropy():
    """Independent tokens with known frequencies: NELBO and NLL are the entropy, whatever the masks."""
    frequency = np.array([0.5, 0.25, 0.125, 0.125])
    ids = np.random.default_rng(0).choice(4, size=20_000, p=frequency)

    class Exact(ed.learn.AbstractTwin):
        size: int = 4
        objective: Any = None

        def log_posterior(self, ids, known):
            return jnp.broadcast_to(jnp.log(jnp.asarray(frequency)), (ids.shape[0], 4))

    score = ed.evaluate(Exact(), ids, length=50, windows=400)
    assert abs(score.masked_nelbo_bits_per_char - 1.75) < 4 * score.standard_error
    assert 0 < score.standard_error < 0.05 and score.characters == 20_000


def test_a_deterministic_order_is_a_chain_rule():
    """Every second token repeats the one before: one of two is a question, in any order."""
    ids = np.repeat(np.random.default_rng(0).integers(4, size=1000), 2)

    class Pairs(ed.learn.AbstractTwin):
        size: int = 4
        objective: Any = None

        def log_posterior(self, ids, known):
            partner = jnp.arange(ids.shape[0]) ^ 1
            sure = jnp.where(jnp.arange(4) == ids[partner][:, None], 0.0, -100.0)
            return jnp.where(known[partner][:, None], sure, jnp.log(0.25))

    score = ed.evaluate(Pairs(), ids, length=50, windows=40)
    found = (score.left_to_right_bits_per_char, score.certain_first_bits_per_char)
    assert np.allclose(np.array(found, float), 1.0)


def test_curves_of_an_energy_model(small, corpus):
    score = ed.evaluate(small, corpus.validation, length=LENGTH, windows=8)
    times = [time for time, _ in score.relaxation_curve]
    assert times == sorted(times) and math.isclose(times[-1], 30 * small.steps * small.step)
    at_default = dict(score.relaxation_curve)[small.steps * small.step]
    assert math.isclose(at_default, score.step_curve[0][1], rel_tol=1e-5)  # two roads to one number
    noise = [ce for _, ce in score.noise_curve]
    assert noise[0] > noise[-1] and noise[-1] < 0.1  # almost no noise, almost no doubt
    json.dumps(score.as_dict())


def test_costs_are_those_of_what_is_written(monkeypatch, tmp_path, getkey):
    """A force costs what it costs whatever the sampler; joules are those of a meter, or of so many seconds."""
    monkeypatch.setattr(_cost, "METERS", tmp_path)
    text, tokenizer = np.arange(400) % 3, ed.data.Characters("abc")
    model = ed.EnergyDLLM(tokenizer, dim=16, blocks=(0, 1, 4), key=getkey())
    measure = lambda model: (
        ed.evaluate(model, text, length=8, windows=2, curves=False, cost=True, tokenizer=tokenizer).costs
    )
    found = measure(model)
    assert set(found) == {"descent", "unmasking, a token a round", "left to right", "blocks of 4"}
    assert found["left to right"]["evaluations"] == 1 and found["descent"]["evaluations"] == 25 / 8
    each = {way: cost["operations"] / cost["evaluations"] for way, cost in found.items()}
    assert math.isclose(each["descent"], each["unmasking, a token a round"])
    # one pass of two tokens in place of a force, three passes, on eight
    assert each["left to right"] < each["blocks of 4"] < each["descent"]
    for cost in found.values():
        assert cost["joules"] == 10.0 * cost["seconds"] > 0 and not cost["metered"]
    for folder in ("intel-rapl:0", "intel-rapl:0:0"):  # the latter a part of it, which is not counted again
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "energy_uj").write_text("2500000")
    assert _cost._joules() == 2.5
    counted = iter([1.0, 7.0])
    monkeypatch.setattr(_cost, "_joules", lambda: next(counted))
    twin = ed.learn.MaskedDiffusion(3, dim=8, depth=1, heads=2, key=getkey())
    assert measure(twin)["one evaluation"]["joules"] == 6.0 / _cost.REPEATS / 8
    monkeypatch.setattr(_cost, "_joules", lambda: None)
    twin = ed.learn.Autoregressive(3, dim=8, depth=1, heads=2, key=getkey())
    assert measure(twin)["left to right"]["evaluations"] == 1


def test_evaluate_names_bad_settings(model, corpus):
    with pytest.raises(ValueError, match="`windows`=1"):
        ed.evaluate(model, corpus.validation, windows=1)
    with pytest.raises(ValueError, match="100000"):
        ed.evaluate(model, corpus.validation, length=100_000)


# ------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("name", ["energy", *TWINS])
def test_save_and_load_are_bitwise(name, corpus, getkey, tmp_path):
    if name == "energy":
        model = ed.EnergyDLLM(corpus.tokenizer, dim=16, key=getkey())
    else:
        model = TWINS[name](5, getkey())
    ed.save(tmp_path / "model.safetensors", model, notes={"steps": 3})
    loaded = ed.load(tmp_path / "model.safetensors")
    assert jax.tree.structure(model) == jax.tree.structure(loaded)
    assert eqx.tree_equal(host(model), host(loaded))
    assert ed.learn.notes(tmp_path / "model.safetensors") == {"steps": 3}


def test_int8_is_exact_small_and_keeps_its_bytes(corpus, getkey, tmp_path):
    """Every matrix is within half a step of what it was, tables of few rows, such as attention biases, and all else
    are what they were; what was read gives the same file again."""
    model = ed.EnergyDLLM(corpus.tokenizer, dim=64, key=getkey())
    model = eqx.tree_at(lambda m: m.energy.vocabulary.patterns, model, replace_fn=lambda w: w.at[3].set(0.0))
    ed.save(tmp_path / "whole", model, notes={"steps": 3})
    ed.save(tmp_path / "int8", model, notes={"steps": 3}, int8=True)
    rounded = ed.load(tmp_path / "int8")
    ed.save(tmp_path / "again", rounded, notes={"steps": 3}, int8=True)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "int8").read_bytes()
    assert ed.learn.notes(tmp_path / "int8") == {"steps": 3}
    # of 60,000 numbers; the header is as long as that of a large model
    assert (tmp_path / "int8").stat().st_size < 0.35 * (tmp_path / "whole").stat().st_size
    assert jax.tree.structure(rounded) == jax.tree.structure(model)
    for old, new in zip(jax.tree.leaves(model), jax.tree.leaves(rounded), strict=True):
        matrix = np.ndim(old) > 1 and np.size(old) >= 24 * max(np.shape(old))
        step = np.abs(old).max(axis=np.argmax(np.shape(old)), keepdims=True) / 127 if matrix else 0.0
        assert new.dtype == old.dtype and (np.abs(new - old) <= 0.505 * step).all()
    assert (rounded.energy.vocabulary.patterns[3] == 0).all()


def test_a_composed_model_comes_back_whole(corpus, getkey, tmp_path):
    synapses: dict[str, ed.energy.AbstractSynapse] = {"mine": ed.energy.DenseMemory(8, key=getkey())}
    network = ed.energy.Network(ed.energy.Tanh(beta=2.0), synapses, jnp.zeros(8))
    energy = ed.energy.FreeEnergy(network, ed.energy.Vocabulary(corpus.tokenizer.size, 8, key=getkey()), kappa=3.0)
    model = ed.EnergyDLLM(corpus.tokenizer, energy=energy, schedule=ed.flow.LogLinear(), key=getkey())
    ed.save(tmp_path / "m.safetensors", model)
    assert eqx.tree_equal(host(ed.load(tmp_path / "m.safetensors")), host(model))


def test_a_failed_save_leaves_the_old_file(model, tmp_path):
    path = tmp_path / "model.safetensors"
    ed.save(path, model)
    before = path.read_bytes()

    with pytest.raises(ValueError, match="holds a function at model.function"):
        ed.save(path, Plain(lambda x: x))
    with pytest.raises(ValueError, match="holds a Undecorated at model.function, which cannot be saved"):
        ed.save(path, Plain(Undecorated("ab")))
    with pytest.raises(ValueError, match="not finite in model.function"):
        ed.save(path, Plain(jnp.array([1.0, np.nan])))
    for note in (object(), np.float32(1)):
        with pytest.raises(ValueError, match="`notes` has what JSON cannot hold .*expected numbers"):
            ed.save(path, model, notes={"bad": note})
    assert path.read_bytes() == before and sorted(os.listdir(tmp_path)) == ["model.safetensors"]
    with pytest.raises(ValueError, match="is a folder"):
        ed.save(tmp_path, model)


BIAS = "model.energy.network.bias"


def energy(header):
    return header["structure"]["fields"]["energy"]["fields"]


def bias(header):
    return energy(header)["network"]["fields"]["bias"]


def tokenizer(header):
    return header["structure"]["fields"]["tokenizer"]["fields"]


def retype(arrays, header, dtype):
    arrays[BIAS] = arrays[BIAS].astype(dtype)
    bias(header).update(dtype=str(arrays[BIAS].dtype))


def tampered(path, change):
    arrays, header = _file.read(path)
    change(arrays, header)
    _file.write(path, arrays, header)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, h: h.update(format="energy_dllm 0"), "format 'energy_dllm 0'; this version reads"),
        (
            lambda a, h: a.update({"model.energy.vocabulary.prior": np.ones(3, np.float32)}),
            "the file was altered",
        ),
        (lambda a, h: a.pop("model.energy.vocabulary.prior"), "is missing or stands twice"),
        (lambda a, h: a.update(more=np.ones(3)), "nothing uses the array more"),
        (lambda a, h: energy(h).update(log_kappa=bias(h)), "is missing or stands twice"),
        (lambda a, h: a["model.energy.network.bias"].fill(np.nan), "network.bias has numbers that are not finite"),
        (lambda a, h: retype(a, h, np.int32), "network.bias is int32"),
        (lambda a, h: (a.update({BIAS: np.ones(9)}), bias(h).update(shape=[9])), "has width 9"),
        (lambda a, h: h["structure"]["fields"].update(tokenizer="x"), "tokenizer is 'x'; EnergyDLLM takes"),
        (lambda a, h: energy(h).update(network=0), "network is 0; FreeEnergy takes Network"),
        (lambda a, h: h["structure"]["fields"].update(steps=True), "steps is True; EnergyDLLM takes int"),
        (lambda a, h: h["structure"]["fields"].update(step=math.nan), "step is nan"),
        (lambda a, h: h["structure"]["fields"].update(step=-1.0), "must be positive"),
        (lambda a, h: h["structure"]["fields"].update(step=[1]), r"step is described as \[1\]"),
        (lambda a, h: tokenizer(h).update(alphabet="aa"), "'a' twice"),
        (lambda a, h: tokenizer(h).update(alphabet="ab"), "`tokenizer` of 2"),
        (lambda a, h: h.update(structure=None), "model|class"),
        (lambda a, h: h.pop("structure"), "holds no model"),
        (lambda a, h: h["structure"].update({"class": "os.system"}), "does not have"),
        (lambda a, h: h["structure"].update({"class": "learn.save"}), "is not a class of"),
        (lambda a, h: h["structure"]["fields"].update(extra=1), "has fields"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_a_sentence(change, message, model, tmp_path):
    path = tmp_path / "model.safetensors"
    ed.save(path, model)
    tampered(path, change)
    with pytest.raises(ValueError, match=message):
        ed.load(path)


def test_what_is_not_a_model_is_refused(model, tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match="neither a file nor a shipped model"):
        ed.load(path)
    path.write_text("once upon a time")
    with pytest.raises(ValueError, match="truncated or not a safetensors file"):
        ed.load(path)
    ed.save(path, model)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="truncated or not a safetensors file"):
        ed.load(path)
    safetensors.numpy.save_file({"a": np.ones(3)}, path)
    with pytest.raises(ValueError, match="of something else"):
        ed.load(path)


@pytest.mark.parametrize(
    "content", ["null", "[1]", "[" * 3000 + "]" * 3000, "1" * 5000, '{"format": ["energy_dllm 3"]}']
)
def test_a_header_that_is_no_description_is_refused(content, tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"a": np.ones(3)}, path, metadata={"energy_dllm": content})
    with pytest.raises(ValueError, match="damaged header|has format"):
        ed.load(path)


def test_no_changed_file_loads_as_something_else(small, corpus, tmp_path):
    """Bits, bytes and ends of a model and of a checkpoint; and the structure, with a checksum that fits it."""
    ed.save(tmp_path / "model.safetensors", small, notes={"steps": 3})
    train(small, corpus, until=2, directory=tmp_path)
    for name in ("model", "checkpoint"):
        counts = mutations.run(tmp_path / f"{name}.safetensors", 150, seed=0)
        assert counts["changed"] == counts["other exceptions"] == 0, counts
        assert counts["refused"] > 100


def test_files_of_before_checksums_load(small, tmp_path):
    path = tmp_path / "model.safetensors"
    ed.save(path, small)
    arrays, header = _file.read(path)
    text = json.dumps({**header, "format": "energy_dllm 2"})
    safetensors.numpy.save_file(arrays, path, metadata={"energy_dllm": text})
    assert eqx.tree_equal(host(ed.load(path)), host(small))
    arrays[BIAS].fill(np.inf)
    safetensors.numpy.save_file(arrays, path, metadata={"energy_dllm": text})
    with pytest.raises(ValueError, match="bias has numbers that are not finite"):
        ed.load(path)


@dataclasses.dataclass(frozen=True)
class Words(ed.data.AbstractTokenizer):
    symbols: tuple = ("a", "cat", "sat")  # pyright: ignore[reportIncompatibleMethodOverride]

    @property
    def size(self):
        return len(self.symbols)

    def encode(self, text):
        return np.array([self.symbols.index(word) for word in text.split()], np.int32)

    def decode(self, ids):
        return " ".join(self.symbols[i] for i in np.asarray(ids))


class Pull(ed.energy.AbstractSynapse):
    """A synapse of somebody else's."""

    weight: jax.Array
    power: int = eqx.field(static=True, default=2)

    def per_token(self, g, mask=None):
        pull = -((g @ self.weight) ** self.power)
        return pull if mask is None else jnp.where(mask, pull, 0.0)


class Plain(eqx.Module):
    function: Any


class Undecorated(ed.data.Characters):
    """Inherits the fields of a dataclass; what it has beside them would be lost."""


def test_own_classes_are_saved_and_loaded_by_those_who_have_them(getkey, tmp_path):
    network = ed.energy.Network(ed.energy.LayerNorm(), {"pull": Pull(jnp.ones(8))}, jnp.zeros(8))
    energy = ed.energy.FreeEnergy(network, ed.energy.Vocabulary(3, 8, key=getkey()), kappa=3.0)
    model = ed.EnergyDLLM(Words(), energy=energy, key=getkey())
    path = tmp_path / "mine.safetensors"
    ed.save(path, model)
    loaded = ed.load(path, classes=[Words, Pull])
    assert loaded.tokenizer == Words() and eqx.tree_equal(host(loaded), host(model))
    for some, missing in (([], "Words"), ([Words], "Pull"), ([Pull], "Words")):
        with pytest.raises(ValueError, match=rf":{missing}; import it and call `ed.load\(path, classes=\[{missing}\]"):
            ed.load(path, classes=some)


def test_what_cannot_be_saved_is_not_trained(small, corpus, getkey, tmp_path):
    tokenizer = Undecorated(corpus.tokenizer.alphabet)
    model = ed.EnergyDLLM(tokenizer, energy=small.energy, key=getkey())
    same = ed.data.Corpus("same", tokenizer, corpus.train, corpus.validation, corpus.test)
    with pytest.raises(ValueError, match="holds a Undecorated at model.tokenizer, which cannot be saved"):
        train(model, same, directory=tmp_path)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("family", ["NEURONS", "SYNAPSES", "MEMORIES", "FEATURES"])
def test_every_member_of_every_family_is_saved(family, getkey, tmp_path):
    for name, make in getattr(families, family).items():
        if family == "NEURONS":
            member = make()
        elif family == "MEMORIES":
            member = make(jnp.sign(jnp.asarray(getkey.normal((5, 6)))))
        else:
            member = make(8, key=getkey()) if family == "FEATURES" else make(8, getkey())
        ed.save(tmp_path / "m.safetensors", member)
        assert eqx.tree_equal(host(ed.load(tmp_path / "m.safetensors")), host(member)), name


def test_a_link_stays_one_and_leftovers_of_killed_saves_go(small, tmp_path):
    (tmp_path / "disk").mkdir()
    link, target = tmp_path / "link.safetensors", tmp_path / "disk" / "model.safetensors"
    link.symlink_to(target)
    target.touch(mode=0o600)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left, other = (target.with_name(f".{target.name}.{pid}.tmp") for pid in (ended.pid, os.getppid()))
    left.touch()
    other.touch()
    ed.save(link, small)
    assert link.is_symlink() and target.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path / "disk")) == sorted([other.name, target.name])  # of a process that lives
    with pytest.raises(ValueError, match="a device or a pipe"):
        ed.save("/dev/null", small)


def test_a_disk_that_is_full_leaves_the_old_file(small, tmp_path):
    """A limit on the size of files stands for it: the error is of the same kind."""
    path = tmp_path / "model.safetensors"
    ed.save(path, Plain(jnp.ones(3)))
    before = path.read_bytes()
    code = (
        "import resource, sys, numpy as np\nfrom energy_dllm.learn import _file\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try:\n    _file.write(sys.argv[1], {'a': np.ones(10_000)}, {})\n"
        "except OSError as error:\n    print(error)"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert "cannot be written (File too large); what was there is kept" in ran.stdout
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot be written"):
        ed.save(tmp_path / "file" / "model.safetensors", small)


# ------------------------------------------------------------------------------------------- twins that write


@pytest.mark.parametrize(("temperature", "places"), [(0.0, 0), (0.7, 12)])
def test_a_twin_with_kept_keys_says_what_it_says_without(temperature, places, getkey):
    """Past the reach of its bias too, and in a layout; at temperature 0 what it writes is the likeliest."""
    twin = ed.learn.Autoregressive(5, dim=8, depth=2, heads=2, reach=3, places=places, key=getkey())
    louder = eqx.tree_at(lambda t: t.trunk.readout, twin, replace_fn=lambda r: jnp.asarray(30.0 * np.asarray(r)))

    @eqx.filter_jit
    def write_and_read(louder, key):
        ids, log_p = louder.sample(12, temperature=temperature, key=key)
        return ids, log_p, louder.log_posterior(ids, jnp.ones(12, bool))

    ids, log_p, read = host(write_and_read(louder, getkey()))
    assert np.allclose(log_p, read, atol=1e-10)
    assert len(set(ids.tolist())) > 1
    if not temperature:
        assert (ids == log_p.argmax(-1)).all()
    told = jnp.asarray([3, 3, 0, 3])
    begun, log_p = host(louder.sample(12, prompt=told, temperature=temperature, key=getkey()))
    assert begun[:4].tolist() == told.tolist()
    assert np.allclose(log_p, louder.log_posterior(jnp.asarray(begun), jnp.ones(12, bool)), atol=1e-10)
    with pytest.raises(ValueError, match="`prompt` has 4 tokens"):
        louder.sample(3, prompt=told, key=getkey())
    with pytest.raises(ValueError, match="`length`=0"):
        louder.sample(0, key=getkey())
