"""Laws of writing: what is given stays, what is recorded adds up, and looking on changes nothing."""

import functools
import itertools
import re
from typing import Any

import diffrax
import equinox as eqx
import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import energy_dllm as ed
from energy_dllm.energy import AbstractFreeEnergy
from energy_dllm.flow import AbstractEvidence, AbstractField
from energy_dllm.sampling import of_template
from energy_dllm.sampling._align import _costs
from energy_dllm.sampling._template import prices


LENGTH, STEPS = 12, 4
ALPHABET = ed.data.Characters("abc [")


@pytest.fixture(scope="module")
def model():
    return families.small_model("abc [")


# Two relaxation steps inside, not two dozen: the laws are the same and the compiler has less to do.
short = functools.partial(ed.flow.ProbabilityFlow, steps=2)
noise = functools.partial(ed.sampling.Diffusion, steps=STEPS, field=short)
draws = functools.partial(ed.sampling.Unmasking, rounds=STEPS, steps=2)
PATHS = {"noise": noise, "draws": draws}


@pytest.fixture(scope="module")
def write(model):
    return functools.partial(ed.generate, model, length=LENGTH, samples=3, sampler=noise())


@pytest.fixture(scope="module", params=PATHS)
def either(model, request):
    """The same of both paths."""
    return functools.partial(ed.generate, model, length=LENGTH, samples=3, sampler=PATHS[request.param]())


@pytest.fixture(scope="module")
def written(either):
    return either(prompt="cab", seed=7)


def same(one, other):
    return one.texts == other.texts and np.allclose(one.free_energy, other.free_energy, rtol=1e-9)


def test_same_seed_same_text(either, written):
    again, other = either(prompt="cab", seed=7), either(prompt="cab", seed=8)
    assert same(again, written) and (again.entropy == written.entropy).all()
    assert not same(other, written)


def test_prompt_is_kept_in_every_frame(model, written):
    prompt = np.asarray(model.encode("cab"))
    assert all(text.startswith("cab") and len(text) == LENGTH for text in written.texts)
    assert (written.frames[:, :, :3] == prompt).all()
    assert (written.frames[:, -1] == written.ids).all()
    assert ((written.confidence > 0) & (written.confidence <= 1)).all()


def test_shapes_and_bookkeeping(model, written):
    moments = STEPS + 1
    assert written.free_energy.shape == written.known.shape == (3, moments)
    assert written.times.shape == written.sigma.shape == (moments,) and (np.diff(written.times) > 0).all()
    assert written.entropy.shape == written.frames.shape == (3, moments, LENGTH)
    assert ((written.entropy >= -1e-9) & (written.entropy <= np.log(model.size) + 1e-9)).all()
    assert np.allclose(sum(written.terms.values()), written.free_energy, atol=1e-9)
    assert {"spring", "vocabulary", "neurons"} <= set(written.terms)
    assert written.accepted.tolist() == [STEPS] * 3 and not written.rejected.any() and written.seed == 7


def test_noise_falls(write):
    """Euler: one call of the field a step, two forces a call."""
    written = write(prompt="cab")
    assert (np.diff(written.sigma) < 0).all() and np.allclose(written.sigma, np.exp(-written.times))
    assert written.force_evaluations.tolist() == [2 * STEPS] * 3 and (written.known == 3 / LENGTH).all()
    assert written.reason == "reached the end of the time interval"


def test_the_descent_goes_through_shares_of_the_schedule_of_the_model(model):
    schedule = ed.flow.LogLinear(sigma_max=2.0, sigma_min=0.5)
    clock = noise(steps=3, since=0.2, until=0.8).clock(schedule)
    np.testing.assert_allclose(clock, schedule.level(jnp.array([0.2, 0.4, 0.6, 0.8])), rtol=1e-12)
    levels, ends = ed.sampling.descent(9).clock(model.schedule), model.schedule.level(jnp.array([0.26, 0.4]))
    np.testing.assert_allclose([levels[0], levels[-1]], ends, rtol=1e-12)
    np.testing.assert_allclose(ed.sampling.descent(9, schedule=schedule).clock(model.schedule)[-1], np.log(2.0))


def test_a_front_of_noise_leaves_the_left_behind(write):
    """What is certain is certain from the left, and the noise of the last token is what is reported."""
    made = write(sampler=noise(steps=12, front=2.0), frames=12)
    middle = made.entropy[:, 6].mean(0)
    assert middle[:4].mean() < 0.5 * middle[-4:].mean() and (np.diff(made.sigma) <= 0).all()
    assert np.isclose(made.sigma[6], made.sigma[0]) and np.isclose(made.sigma[-1], np.exp(-made.times[-1]))


def test_draws_stand(model):
    """What is written becomes evidence and stays; two forces a round, and two before the first."""
    made = ed.generate(model, length=LENGTH, samples=3, prompt="cab", sampler=draws())
    assert np.allclose(made.known, (3 + 9 * np.arange(STEPS + 1) // STEPS) / LENGTH)
    assert made.sigma.tolist() == [np.inf] * STEPS + [0.0] and made.reason == "every token is written"
    assert made.force_evaluations.tolist() == [2 * (STEPS + 1)] * 3
    certain = made.entropy < 1e-6
    assert np.allclose(certain.mean(-1), made.known) and (np.diff(certain.astype(int), axis=1) >= 0).all()
    before, after = made.frames[:, :-1], made.frames[:, 1:]
    assert (before == after)[certain[:, :-1]].all()


def test_unmasking_is_a_loop_of_draws_and_relaxations(model):
    """The whole of it written out: in this order nothing of the draw is left open at temperature 0."""
    path = draws(temperature=0.0, order=ed.sampling.left_to_right)
    made = ed.generate(model, length=LENGTH, sampler=path)
    ids, y, place = jnp.zeros(LENGTH, int), model.energy.neutral(LENGTH), jnp.arange(LENGTH)
    known, b = place < 0, jnp.zeros((LENGTH, model.size))
    relax = eqx.filter_jit(lambda energy, y, b: ed.flow.relax(energy, y, b, steps=2, step=0.6))
    for n in range(STEPS + 1):
        if n:
            ids = jnp.where(known, ids, jnp.argmax(model.energy.logits(y, b), axis=-1))
        known = place < LENGTH * n // STEPS
        b = model.field(ed.flow.Given(ids, known))
        y = relax(model.energy, y, b)
    assert (made.ids[0] == ids).all()
    assert np.allclose(made.free_energy[0, -1], model.energy(y, b), rtol=1e-9)
    log_q = jax.nn.log_softmax(model.energy.logits(y, b) - b)
    assert np.allclose(made.confidence[0], jnp.exp(log_q)[jnp.arange(LENGTH), ids], rtol=1e-9)


@pytest.mark.parametrize("pattern", [".*", "(a|b)*c(a|b|c)*"])
@pytest.mark.parametrize("rounds", [1, 3])
def test_a_beam_of_all_beginnings_finds_the_likeliest_passage(rounds, pattern):
    """Of all passages that agree with the given token and the pattern, by the chain rule over the open places."""
    model = ed.EnergyDLLM(ed.data.Characters("abc"), dim=16, depth=2, reach=1, memories=8, key=jax.random.key(3))
    passages = np.array(list(itertools.product(range(3), repeat=5)))
    fits = [ids[1] == 1 and re.fullmatch(pattern, model.decode(ids)) is not None for ids in passages]
    passages, known = passages[fits], np.arange(5) == 1

    @jax.jit
    def log_p(b):
        y = ed.flow.relax(model.energy, model.energy.neutral(5), b, steps=1, step=1.0)
        return jax.nn.log_softmax(model.energy.logits(y, b))

    def total(ids):
        nats = 0.0
        for place in np.flatnonzero(~known):
            before = known | (np.arange(5) < place)
            agree = passages[(passages == ids)[:, before].all(1)]
            b = np.where((agree[:, :, None] == np.arange(3)).any(0), 0.0, ed.flow.FORBIDDEN)
            nats += float(log_p(b)[place, ids[place]])
        return nats

    best = max(passages, key=total)
    evidence = ed.flow.Matching(pattern, model.tokenizer, length=5)
    sampler = ed.sampling.BeamSearch(width=27, rounds=rounds)
    made = ed.infill(model, "[1]b[3]", evidence=evidence, sampler=sampler, samples=2)
    assert made.texts == [model.decode(best)] * 2
    assert made.force_evaluations.tolist() == [1 + 4 * 27] * 2 and made.known[0, 0] == 0.2
    greedy = ed.infill(model, "[1]b[3]", evidence=evidence, sampler=ed.sampling.BeamSearch(width=1))
    assert total(greedy.ids[0]) <= total(best)


def test_a_beam_of_one_is_greedy():
    """And looking on changes nothing."""
    model = ed.EnergyDLLM(ALPHABET, dim=16, depth=2, reach=1, memories=8, key=jax.random.key(3))
    greedy = draws(temperature=0.0, rounds=LENGTH, steps=2, order=ed.sampling.left_to_right)
    seen = []
    beam: dict[str, Any] = dict(
        length=LENGTH, prompt="a", sampler=ed.sampling.BeamSearch(width=1, rounds=6, steps=2, step=0.6)
    )
    made = ed.generate(model, **beam, frames=3, watch=seen.append)
    assert made.texts == ed.generate(model, length=LENGTH, prompt="a", sampler=greedy).texts
    assert made.texts == ed.generate(model, **beam).texts and len(seen) == 3
    assert made.force_evaluations.tolist() == [2 * LENGTH] and made.sigma.tolist() == [np.inf] * 3 + [0.0]


def test_corrections_forget_and_write_again(model):
    made = ed.generate(
        model, length=LENGTH, samples=3, prompt="cab", sampler=draws(remask_rounds=3, remask_fraction=0.3)
    )
    assert made.known.shape == (3, STEPS + 4) and (made.known[:, STEPS:] == 1).all()
    assert made.force_evaluations.tolist() == [2 * (STEPS + 1) + 4 * 3] * 3
    before, after = made.frames[:, STEPS:-1], made.frames[:, STEPS + 1 :]
    changed = (before != after).sum(-1)
    assert (
        (changed <= round(0.3 * 9)).all() and changed.any() and (made.frames[:, :, :3] == made.ids[:, None, :3]).all()
    )


@pytest.mark.parametrize("order", [ed.sampling.at_random, ed.sampling.most_certain, ed.sampling.left_to_right])
def test_orders_say_what_is_next(order):
    log_p = jnp.log(jnp.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]]))
    score = order(jax.random.key(0), log_p, jnp.array([0, 0, 1]))
    first = {ed.sampling.most_certain: [1, 2, 0], ed.sampling.left_to_right: [0, 1, 2]}
    assert score.shape == (3,) and (order not in first or jnp.argsort(-score).tolist() == first[order])
    assert int(jnp.argmax(ed.sampling.least_likely(jax.random.key(0), log_p, jnp.array([0, 1, 1])))) == 1


def test_blocks_continue_what_was_written(model):
    """Windows of eight, four of them new: every one sees the end of the last, all have one shape."""
    made = ed.generate(model, length=30, samples=2, prompt="cab", suffix="bb", window=8, sampler=draws(), frames=1)
    assert all(len(t) == 30 and t.startswith("cab") and t.endswith("bb") for t in made.texts)
    blocks = 7  # 8 + 5 * 4 + the last, moved back to fit
    assert made.force_evaluations.tolist() == [2 * (STEPS + 1) * blocks] * 2
    assert made.frames.shape == (2, 2 * blocks, 30) and np.isclose(made.known[:, -1], 1.0).all()
    assert (np.diff(made.known) >= -1e-9).all() and np.isfinite(made.confidence).all()
    # the first window is a passage of its own
    alone = ed.generate(model, length=8, samples=2, prompt="cab", sampler=draws(), frames=1)
    assert (made.ids[:, :8] == alone.ids).all()
    # a template longer than a window is no other passage
    assert ed.infill(model, "cab[25]bb", samples=2, window=8, sampler=draws(), frames=1).texts == made.texts


@pytest.mark.parametrize("joint", [False, True])
def test_it_is_solve_from_noise_to_text(model, joint):
    """The whole of it written out, one sample at a time: the batch is a loop."""
    field = ed.flow.JointFlow if joint else short
    path = ed.sampling.Diffusion(steps=STEPS, churn=0.5, field=field)
    batch = ed.generate(model, length=LENGTH, prompt="b", sampler=path, samples=2, seed=3)
    known = jnp.arange(LENGTH) < 1
    given = ed.flow.Given(jnp.where(known, 1, 0), known)
    levels = model.schedule.levels(STEPS)
    flow = ed.flow.ReverseDiffusion(field(model.energy, given), churn=0.5)
    y = model.energy.neutral(LENGTH)
    alone = model.energy.logits(y, model.field(given))  # every token for itself
    for n in range(2):
        k1, k2 = jax.random.split(jax.random.fold_in(jax.random.key(3), n))
        k3, k4 = jax.random.split(k1)
        start = model.energy.vocabulary.codes[jax.random.categorical(k3, alone)]
        x = start + jnp.exp(-levels[0]) * jax.random.normal(k4, start.shape)
        state = (x, y) if joint else x
        path = ed.solve(flow, state, t0=levels[0], t1=levels[-1], levels=levels, key=k2)
        p = flow.posterior(levels[-1], path.final)
        assert (batch.ids[n] == jnp.argmax(p, axis=-1)).all()
        assert np.allclose(batch.confidence[n, 1:], jnp.max(p, axis=-1)[1:], rtol=1e-9)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_least_certain_tokens_are_drawn_anew(model, share):
    """`finish` is unmasking: the most certain tokens are known to it, and its rounds are paid for."""
    finish = draws(rounds=2, remask_rounds=0)
    bare = noise(temperature=0.0)
    path = noise(temperature=0.0, finish=finish, redraw=share)
    settings: dict[str, Any] = dict(length=LENGTH, prompt="b", samples=3, seed=3)
    plain, made = (ed.generate(model, sampler=sampler, **settings) for sampler in (bare, path))
    k = round(share * (LENGTH - 1))
    for n in range(3):
        # probabilities of the whole posterior, as they stood when the noise ended
        open_places = np.flatnonzero(plain.ids[n] != made.ids[n])
        assert len(open_places) <= k and 0 not in open_places
    assert (plain.ids != made.ids).any() and made.known[:, -1].tolist() == [1.0] * 3
    assert (made.force_evaluations - plain.force_evaluations >= finish.steps * 3).all()
    # a draw is no part of the motion
    assert (made.free_energy == plain.free_energy).all()
    # as many tokens as are due are masked, given ones not among them: all of them in one round, seen by its order
    seen = []

    def order(key, log_p, ids):
        jax.debug.callback(lambda log_p: seen.append(int((log_p.max(-1) < -1e-9).sum())), log_p)
        return -jnp.arange(ids.shape[0], dtype=log_p.dtype)

    ed.generate(model, sampler=noise(temperature=0.0, finish=draws(rounds=1, order=order), redraw=share), **settings)
    jax.effects_barrier()
    assert max(seen) == k
    none = ed.generate(model, sampler=noise(temperature=0.0, finish=finish, redraw=0.0), **settings)
    assert (none.ids == plain.ids).all()


def test_a_sample_does_not_know_how_many_there_are(either, written):
    assert either(prompt="cab", seed=7, samples=1).texts == written.texts[:1]


@pytest.mark.parametrize("path", [noise(churn=0.5, until=0.7), noise(finish=draws(rounds=2)), draws()])
def test_looking_on_changes_nothing(write, path):
    """Not even the noise: pieces of a motion meet the noise of the whole."""
    seen = []
    quiet = write(seed=1, sampler=path, frames=1)
    watched = write(seed=1, sampler=path, frames=2, watch=seen.append)
    assert quiet.texts == watched.texts and np.allclose(quiet.confidence, watched.confidence, rtol=1e-9)
    assert np.allclose(quiet.free_energy[:, -1], watched.free_energy[:, -1], rtol=1e-9)
    assert quiet.force_evaluations.tolist() == watched.force_evaluations.tolist()
    assert quiet.sigma.shape == (2,) and watched.sigma.shape == (3,)
    assert [moment.sigma.size for moment in seen] == [2, 3]
    assert (seen[0].frames == watched.frames[:, :2]).all()


class Counting(AbstractField):
    """Independent tokens, and a list that grows whenever the field is traced."""

    energy: AbstractFreeEnergy
    given: AbstractEvidence
    traces: list[int] = eqx.field(static=True)

    @property
    def force_evaluations(self) -> int:
        return 1

    def __call__(self, time: Array | float, state: Array, args: object = None) -> Array:
        self.traces.append(1)
        return self.posterior(time, state) @ self.energy.vocabulary.codes - state

    def evidence(self, time: Array | float, state: Array) -> AbstractEvidence:
        return ed.flow.Gaussian(state, jnp.exp(-jnp.asarray(time))) + self.given

    def hidden(self, time: Array | float, state: Array) -> Array:
        return self.energy.neutral(state.shape[0])


class Traces(list):
    """Hashable, so that it can be a static field."""

    def __hash__(self) -> int:  # pyright: ignore
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


def test_one_compile_a_shape(write):
    traces = Traces()
    path = lambda: ed.sampling.Diffusion(steps=STEPS, field=functools.partial(Counting, traces=traces))
    write(sampler=path(), prompt="a", seed=0)
    first = len(traces)
    write(sampler=path(), prompt="cab c", seed=1)
    assert len(traces) == first > 0
    write(sampler=path(), length=LENGTH + 1)
    assert len(traces) == 2 * first


def test_adaptive_steps(write):
    controller = diffrax.PIDController(rtol=1e-2, atol=1e-2)
    one = write(sampler=noise(controller=controller, solver=diffrax.Heun()), seed=2, frames=2)
    assert one.free_energy.shape == (3, 3) and (one.accepted > 0).all()
    assert one.force_evaluations.tolist() == (4 * (one.accepted + one.rejected)).tolist()


def test_a_solver_that_gives_up_says_so(write):
    """What was reached is returned, every number of it finite."""
    controller = diffrax.PIDController(rtol=1e-9, atol=1e-9, dtmin=0.5, force_dtmin=False)
    made = write(sampler=noise(controller=controller, solver=diffrax.Heun()), frames=2)
    assert "minimum step size" in made.reason and "end of" not in made.reason
    assert np.isfinite(made.free_energy).all() and (made.frames >= 0).all() and (made.frames < 5).all()


def test_infill_keeps_what_is_written(model):
    filled = ed.infill(model, "ab[3]c [[[4]", samples=3, sampler=draws())
    for text in filled.texts:
        assert len(text) == 12 and text[:2] == "ab" and text[5:8] == "c ["
    assert filled.frames.shape == (3, STEPS + 1, 12)


def test_a_hole_of_unknown_width_takes_the_room(model):
    for template, width in (("ab[*]c [3]", 5), ("ab[2][*]", 8), ("[*]", 12)):
        filled = ed.infill(model, template, length=12, sampler=draws(), frames=1)
        plain = ed.infill(model, template.replace("*", str(width)), sampler=draws(), frames=1)
        assert filled.texts == plain.texts and len(filled.texts[0]) == 12


def test_the_width_that_is_chosen_makes_what_is_given_likeliest():
    """The price of what is given, at five widths, against the chain itself; padding to one shape changes nothing."""
    model, start, table = families.markov_model()
    exact = [-np.log(start[0] * np.linalg.matrix_power(table, n + 1)[0, 2]) for n in range(1, 6)]
    found = prices(model, [of_template(model, f"a[{n}]c")[0] for n in range(1, 6)])
    assert np.allclose(found, exact, atol=1e-9) and np.ptp(exact) > 1.0
    made = ed.infill(model, "a[*]c", length=range(3, 8), sampler=ed.sampling.Unmasking(rounds=2, steps=1), frames=1)
    assert len(made.texts[0]) == 3 + int(np.argmin(exact))


def test_a_text_ends_where_it_says(model):
    plain = ed.generate(model, length=30, samples=8, prompt="cab", window=8, sampler=draws(), frames=1)
    ended = ed.generate(model, length=30, samples=8, prompt="cab", window=8, sampler=draws(), frames=1, stop="b")
    for whole, text in zip(plain.texts, ended.texts, strict=True):
        written, cut = whole[3:], text[3:]  # the one that is given does not count
        assert cut == written.partition("b")[0] + "b" * ("b" in written)
    assert (ended.force_evaluations < plain.force_evaluations).all() and "every text has ended" in ended.reason
    assert ended.ids.shape == (8, 30)


def test_repair_of_strong_evidence_changes_nothing(model):
    fixed = ed.repair(model, "abc cab", rate=1e-6)
    assert fixed.text == "abc cab" and fixed.edits == []
    assert (fixed.confidence > 0.9).all()
    assert np.isfinite(fixed.times).all() and fixed.times.shape == fixed.free_energy.shape
    assert (np.diff(fixed.times) > 0).all()
    assert (np.diff(fixed.free_energy) < 1e-3).all()
    assert np.allclose(sum(fixed.terms.values()), fixed.free_energy, atol=1e-9)
    assert fixed.force_evaluations > 0


def test_repair_names_its_edits(model):
    """A vocabulary that knows one letter only, and typing that is nearly all wrong."""
    loud = eqx.tree_at(lambda m: m.energy.vocabulary.prior, model, 20.0 * jnp.eye(5)[1])
    fixed = ed.repair(loud, "abc", rate=0.9)
    assert fixed.text == "bbb"
    assert [edit[:3] for edit in fixed.edits] == [(0, "a", "b"), (2, "c", "b")]
    assert all(edit.confidence > 0.9 for edit in fixed.edits)


def test_letters_that_are_missing_or_too_many_are_found():
    """`abc` again and again, one letter left out, one wrong, one too many."""
    typed = "abcab" + "abcabc" + "abbabc" + "babcabc"
    model, *_ = families.markov_model()
    fixed = ed.repair(model, typed, rate=0.05, shifts=2)
    assert fixed.text == "abc" * 8
    assert [(edit.kind, *edit[:3]) for edit in fixed.edits] == [
        ("insert", 5, "", "c"),
        ("substitute", 13, "b", "c"),
        ("delete", 17, "b", ""),
    ]
    assert all(0.5 < edit.confidence <= 1 for edit in fixed.edits)
    assert fixed.origin.tolist() == [*range(5), -1, *range(5, 17), *range(18, 24)]
    # what is as it should be stays, and no more shifts are made than are allowed
    assert ed.repair(model, "abc" * 8, rate=0.05, shifts=2).edits == []
    assert "insert" not in [edit.kind for edit in ed.repair(model, typed, rate=0.05).edits]


def test_a_shift_is_paid_for_by_the_chain_rule_where_the_model_has_one(unchecked):
    """The alignment of the least `-log P(w) - log P(typed | w)`, of all that are one shift away, each by itself."""
    model: Any = ed.EnergyDLLM(ed.data.Characters("abc"), dim=16, blocks=(0, 1), shift=True, key=jax.random.key(0))
    reader, rate, shifted = model.energy.in_blocks(1), 0.8, []

    @jax.jit
    def price(ids):
        b = ed.flow.Typo(jnp.maximum(ids, 0), rate, ids >= 0).field(model.energy.vocabulary.codes)
        y = ed.flow.relax(model.energy, model.energy.neutral(len(ids)), b, steps=model.steps, step=model.step)
        w = jnp.argmax(model.energy.logits(y, b), axis=-1)
        return -jnp.sum(reader.in_order(w)) - jnp.sum(jnp.where(jax.nn.one_hot(w, 3, dtype=bool), b, 0.0))

    for typed in np.random.default_rng(0).integers(0, 3, (6, 7)):
        moves = [np.arange(7), *(np.delete(np.arange(7), j) for j in range(7))]
        moves += [np.insert(np.arange(7), j, -1) for j in range(8)]
        cost = np.array([0.0, *[np.log(3) - np.log(rate)] * 7, *[-np.log(rate)] * 8])
        prices = cost + [float(price(jnp.asarray(np.where(move < 0, -1, typed[move])))) for move in moves]
        fixed = ed.repair(model, model.decode(typed), rate=rate, shifts=1, frames=1)
        assert fixed.origin.tolist() == moves[int(np.argmin(prices))].tolist()
        shifted.append(int(np.argmin(prices)))
    assert len(set(shifted)) > 2


def test_a_character_outside_the_alphabet_is_repaired_as_one_that_is_unknown():
    """Whatever it is, it is masked: as a hole in the middle of what was typed, and reported as replaced."""
    model, *_ = families.markov_model()
    for strange in "*é🙂":
        fixed = ed.repair(model, f"abcab{strange}abc", rate=0.05)
        assert fixed.text == "abcabcabc" and fixed.edits[0][:3] == (5, strange, "c") and len(fixed.edits) == 1
        again = ed.repair(model, f"abcab{strange}abc", rate=0.05, shifts=1)
        assert again.text == "abcabcabc" and again.edits[0].before == strange
    assert ed.repair(model, "***").text and len(ed.repair(model, "***").edits) == 3
    with pytest.raises(ValueError, match="outside the alphabet"):
        ed.repair(model, "ab*", mask_unknown=False)


def test_characters_outside_the_alphabet_are_written_anew_if_wanted(model):
    made = ed.generate(model, length=8, prompt="a!c", suffix="?b", mask_unknown=True, sampler=draws())
    assert made.texts[0][0] == "a" and made.texts[0][2] == "c" and made.texts[0][-1] == "b" and len(made.texts[0]) == 8
    assert np.isclose(made.known[0, 0], 3 / 8)
    filled = ed.infill(model, "a!c[2]b", mask_unknown=True, sampler=draws()).texts[0]
    assert len(filled) == 6 and filled[0] == "a" and filled[2] == "c" and filled[-1] == "b"


def test_a_page_costs_what_all_its_texts_cost_together():
    """`-log P(typed, alignment)` against a sum over every text that may have been meant."""
    model, start, table = families.markov_model()
    seen, known = np.array([0, 2, 0, 1]), np.array([True, True, False, True])
    total = 0.0
    for text in itertools.product(range(3), repeat=4):
        law = start[text[0]] * np.prod([table[i, j] for i, j in itertools.pairwise(text)])
        total += law * np.prod([0.9 * (s == w) + 0.1 / 3 for s, w, k in zip(seen, text, known, strict=True) if k])
    here = jnp.arange(6) < 4  # padded
    pad = lambda row: jnp.pad(jnp.asarray(row), (0, 2))[None]
    found = _costs(model.energy, None, pad(seen), pad(known), here[None], jnp.asarray(0.1), jnp.asarray(0.6), 1)
    empty = _costs(model.energy, None, pad(seen), pad(known & False), here[None], jnp.asarray(0.1), jnp.asarray(0.6), 1)
    assert np.allclose(found - empty, -np.log(total), atol=1e-9)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"length": 0}, "`length` is 0"),
        ({"samples": 0}, "`samples` is 0"),
        ({"frames": -1}, "`frames` is -1"),
        ({"seed": -1}, "`seed` is -1"),
        ({"prompt": "abcabcabcabc"}, "`prompt` has 12 tokens and `length` is 12"),
        ({"prompt": "xyz"}, "outside the alphabet"),
        ({"suffix": "xyz"}, "outside the alphabet"),
        ({"prompt": "abcabc", "suffix": "abcabc"}, "`prompt` and `suffix` have 12 tokens"),
        ({"window": 1}, "`window` is 1"),
        ({"stop": "ab"}, "`stop` is 'ab', 2 tokens"),
        ({"stop": "x"}, "outside the alphabet"),
        ({"stop": "b", "suffix": "c"}, "`stop` would cut off the text given at the end"),
        (
            {"stop": "b", "evidence": ed.flow.Matching(".*c", ALPHABET, length=LENGTH)},
            "`stop` would cut off the pattern",
        ),
        ({"sampler": ed.sampling.Diffusion(field=ed.flow.Relaxation)}, "made a Relaxation"),
    ],
)
def test_bad_input_is_named(write, wrong, words):
    with pytest.raises(ValueError, match=words):
        write(**wrong)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ed.sampling.Diffusion(steps=-3), "`steps` is -3"),
        (lambda: ed.sampling.Diffusion(steps=0), "`steps` is 0"),
        (lambda: ed.sampling.Diffusion(until=0.0), "`until` is 0.0"),
        (lambda: ed.sampling.Diffusion(until=1.5), "`until` is 1.5"),
        (lambda: ed.sampling.Diffusion(churn=-0.5), "`churn` is -0.5"),
        (lambda: ed.sampling.Diffusion(churn=0.5, solver=ed.flow.DDIM()), "beside a DDIM"),
        (
            lambda: ed.sampling.Diffusion(churn=0.5, controller=diffrax.PIDController(1e-3, 1e-3)),
            "beside a `controller`",
        ),
        (lambda: ed.sampling.Diffusion(controller=diffrax.PIDController(1e-20, 1e-20)), "no step is ever small enough"),
        (lambda: ed.sampling.Diffusion(front=0.0), "`front` is 0.0"),
        (lambda: ed.sampling.Diffusion(redraw=1.5), "`redraw` is 1.5"),
        (lambda: ed.sampling.BeamSearch(width=0), "`width` is 0"),
        (lambda: noise(since=0.5, until=0.4), "`since` is 0.5 and `until` is 0.4"),
        (lambda: noise(since=-0.1), "`since` is -0.1"),
        (lambda: ed.sampling.BeamSearch(step=-1.0), "`step` is -1.0"),
        (lambda: ed.sampling.Unmasking(rounds=0), "`rounds` is 0"),
        (lambda: ed.sampling.Unmasking(steps=0), "`steps` is 0"),
        (lambda: ed.sampling.Unmasking(step=0.0), "`step` is 0.0"),
        (lambda: ed.sampling.Unmasking(temperature=-1.0), "`temperature` is -1.0"),
        (lambda: ed.sampling.Unmasking(remask_rounds=-1), "`remask_rounds` is -1"),
        (lambda: ed.sampling.Unmasking(remask_fraction=0.0), "`remask_fraction` is 0.0"),
    ],
)
def test_a_path_that_cannot_be_is_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("template", "length", "words"),
    [
        ("ab[3]", 12, "`length` is 12 and every hole"),
        ("ab[*]c[*]", 12, "holes of unknown width at characters 2 and 6"),
        ("ab[*]c", 3, "`length` is 3 and `template` has 3 tokens beside"),
        ("ab[*]c", [], "expected room for at least one more"),
        ("a" * 64 + "[*]", None, "by default 64 and `template` has 64 tokens"),
        ("ab[*]", [8, 9], r"offers 2 to choose from, but one side of \[\*\] is empty"),
        ("[*][3]ab", [8, 9], r"one side of \[\*\] is empty"),
        ("ab[**]c", 12, "malformed hole at character 2"),
    ],
)
def test_a_width_that_cannot_be_found_is_named(model, template, length, words):
    with pytest.raises(ValueError, match=words):
        ed.infill(model, template, length=length)


@pytest.mark.parametrize("template", ["ab[]c", "ab[x]", "ab[0]", "ab[-1]", "ab[3", "ab["])
def test_a_malformed_hole_is_named(model, template):
    with pytest.raises(ValueError, match=r"malformed hole at character 2.*such as \[8\]"):
        ed.infill(model, template)


def test_bad_texts_are_named(model):
    with pytest.raises(ValueError, match="has no hole; write one as"):
        ed.infill(model, "abc [[8]")
    with pytest.raises(ValueError, match="outside the alphabet"):
        ed.infill(model, "xyz[8]")
    with pytest.raises(ValueError, match="`text` is empty"):
        ed.repair(model, "")
    with pytest.raises(ValueError, match="`rate` is 1.5"):
        ed.repair(model, "abc", rate=1.5)
    with pytest.raises(ValueError, match="`shifts` is -1"):
        ed.repair(model, "abc", shifts=-1)
    with pytest.raises(ValueError, match="`evidence` is about places, which `shifts` move"):
        ed.repair(model, "abc", shifts=1, evidence=ed.flow.Matching("[abc]*", ALPHABET, length=3))
    with pytest.raises(ValueError, match="`time` is 0"):
        ed.repair(model, "abc", time=0.0)


def test_divergence_is_said(model):
    broken = eqx.tree_at(lambda m: m.energy.network.bias, model, model.energy.network.bias * jnp.nan)
    with pytest.raises(FloatingPointError, match="the motion diverged"):
        ed.generate(broken, length=LENGTH, sampler=noise(), samples=3)


# Levels of `solve`


def test_levels_are_stepped_through_exactly(model):
    field = ed.flow.ProbabilityFlow(model.energy, steps=2)
    levels = jnp.array([-1.0, -0.2, 0.1, 0.9])
    x = jax.random.normal(jax.random.key(0), (6, 5))
    path = ed.solve(field, x, t0=levels[0], t1=levels[-1], levels=levels, times=levels[1:3])
    for n in range(3):
        x = x + (levels[n + 1] - levels[n]) * field(levels[n], x)
        assert jnp.allclose(path.states[n], x, atol=1e-12)
    assert int(path.accepted) == 3 and int(path.force_evaluations) == 6


def test_bad_levels_are_named(model):
    field = ed.flow.Relaxation(model.energy, ed.flow.Masked(4))
    solve = functools.partial(ed.solve, field, model.energy.neutral(4), t0=0.0, t1=1.0)
    with pytest.raises(ValueError, match="`levels` fix every step"):
        solve(levels=jnp.array([0.0, 1.0]), step=0.1)
    with pytest.raises(ValueError, match="`levels` has shape"):
        solve(levels=jnp.array([0.0]))
    for wrong in ([0.0, 0.5], [0.5, 1.0], [0.0, 0.6, 0.4, 1.0]):
        with pytest.raises(ValueError, match="must increase from exactly"):
            solve(levels=jnp.array(wrong))
        with pytest.raises(eqx.EquinoxRuntimeError, match="must increase from exactly"):
            eqx.filter_jit(lambda levels: solve(levels=levels).final)(jnp.array(wrong))


def test_the_likeliest_of_several_is_kept_with_all_that_is_its_own(getkey):
    model = ed.EnergyDLLM(ALPHABET, dim=16, key=getkey())
    made = ed.generate(model, length=LENGTH, samples=6, sampler=draws(), frames=2)
    best = ed.sampling.likeliest(model, made, of=3)
    energy: Any = model.energy
    log_p = np.array([energy.log_likelihood(jnp.asarray(row)) for row in made.ids])
    kept = [int(log_p[:3].argmax()), 3 + int(log_p[3:].argmax())]
    assert best.texts == [made.texts[n] for n in kept] and (best.ids == made.ids[kept]).all()
    assert (best.free_energy == made.free_energy[kept]).all() and (best.frames == made.frames[kept]).all()
    assert best.force_evaluations.tolist() == made.force_evaluations.reshape(2, 3).sum(1).tolist()
    with pytest.raises(ValueError, match="`of` is 4"):
        ed.sampling.likeliest(model, made, of=4)


@pytest.mark.parametrize("blocks", [(0,), (0, 1)])
def test_the_likeliest_of_texts_that_end_is_not_chosen_by_what_is_behind(blocks):
    model = families.left_to_right("abc")
    energy: Any = model.energy
    model = ed.EnergyDLLM(model.tokenizer, energy=energy, blocks=blocks, key=jax.random.key(0))
    made = ed.generate(model, length=9, samples=20, prompt="a", sampler=draws(steps=1, step=1.0), stop="c", frames=0)
    energy = energy.in_blocks(1) if 1 in blocks else energy

    def a_token(text):
        ids = jnp.pad(model.encode(text), (0, 9 - len(text)))
        if 1 in blocks:
            return float(np.mean(energy.in_order(ids)[: len(text)]))
        b = ed.flow.Given(ids, jnp.arange(9) < len(text)).field(energy.vocabulary.codes)
        return float(energy(energy.neutral(9), 0 * b) - energy(energy.neutral(9), b)) / len(text)

    texts = np.array(made.texts).reshape(10, 2)
    whole = np.asarray(jax.vmap(energy.log_likelihood)(jnp.asarray(made.ids))).reshape(10, 2)
    best = np.vectorize(a_token)(texts).argmax(1)
    assert ed.sampling.likeliest(model, made, of=2).texts == texts[np.arange(10), best].tolist()
    assert 1 not in blocks or (best != whole.argmax(1)).any()


def test_no_likelihood_in_one_evaluation_is_said(model, written):
    with pytest.raises(ValueError, match="without a likelihood in one evaluation"):
        ed.sampling.likeliest(model, written, of=1)
