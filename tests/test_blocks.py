"""Laws of an energy in blocks: a sum of energies, each conditional on what was written before."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
import functools
import itertools
import math
import re
from typing import Any

import equinox as eqx
import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energy_dllm as ed


ABC = ed.data.Characters("abc")
L = 12


def small(block, tokenizer=ABC, **sizes):
    """A model in blocks, its energy too, whose tokens have much to say to one another."""
    sizes = {"dim": 16, "depth": 2, "reach": 2, "memories": 8, **sizes}
    model = ed.EnergyDLLM(tokenizer, **sizes, blocks=(block,), key=jax.random.key(3))
    model = eqx.tree_at(lambda m: m.energy, model, model.energy.in_blocks(block))
    vocabulary = model.energy.vocabulary
    patterns = 1.5 * jax.random.normal(jax.random.key(4), vocabulary.patterns.shape)
    return eqx.tree_at(lambda m: m.energy.vocabulary.patterns, model, patterns)


@pytest.fixture(scope="module", params=[1, 3, 4, "shifted"])
def model(request):
    return small(1, shift=True) if request.param == "shifted" else small(request.param)


def shift_of(energy):
    return energy.network.synapses["blocks"].shift


@eqx.filter_jit
def rest(energy, ids, known):
    """State, evidence and log posterior of known and masked tokens at rest."""
    b = ed.flow.Given(ids, known).field(energy.vocabulary.codes)
    y = ed.flow.relax(energy, energy.neutral(ids.shape[0]), b, steps=1, step=1.0)
    return y, b, jax.nn.log_softmax(energy.logits(y, b))


def texts(count=3):
    k1, k2 = jax.random.split(jax.random.key(7))
    return zip(
        jax.random.randint(k1, (count, L), 0, 3),
        jax.random.uniform(k2, (count, L)) < jnp.array([[0.2], [0.5], [0.8]]),
        strict=True,
    )


def test_three_forms_of_one_conditional_energy_agree(model):
    """In the passage with all masked behind a block; all blocks side by side; a block alone, after what is kept."""
    energy, block, shift, place = model.energy, model.energy.block, shift_of(model.energy), np.arange(L)
    for ids, known in texts():
        beside = energy.side_by_side(ids, block)
        y, b, log_p = rest(beside, ids, known)
        terms, kept = beside.terms(y, b), energy.kept(ids)
        for start in range(0, L, block):
            here = slice(start, start + block)
            upto = (place < start) | (known & (place < start + block))
            np.testing.assert_allclose(rest(energy, ids, upto)[2][here], log_p[here], atol=1e-12)
            # what is kept of later tokens is not looked at
            stale = jax.tree.map(lambda rows, start=start: rows.at[..., start + shift :, :].set(7.0), kept)
            alone = energy.after(stale, start, block)
            y_k, b_k, log_q = rest(alone, ids[here], known[here])
            np.testing.assert_allclose(log_q, log_p[here], atol=1e-12)
            for name, term in alone.terms(y_k, b_k).items():
                np.testing.assert_allclose(term, terms[name][here], atol=1e-11)
            for new, whole in zip(jax.tree.leaves(alone.kept(ids[here])), jax.tree.leaves(kept), strict=True):
                np.testing.assert_allclose(new, whole[..., start : start + block + shift, :], atol=1e-12)


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("count", [0, 1, 5, L - 1])
def test_the_next_token_is_at_rest_after_one_pass(count, shift):
    """As by a full step of the relaxation, and what is kept of the token before as of the whole passage."""
    energy = small(1, shift=shift).energy
    energy = eqx.tree_at(
        lambda e: e.network.bias, energy, jax.random.normal(jax.random.key(9), energy.network.bias.shape)
    )
    ids = jax.random.randint(jax.random.key(5), (L,), 0, 3)
    kept = energy.kept(ids)
    stale = jax.tree.map(lambda rows: rows.at[..., max(0, count - 1 + shift) :, :].set(7.0), kept)
    y, new = energy.next(stale, ids[max(0, count - 1)], count)
    np.testing.assert_allclose(y[0], rest(energy, ids, jnp.arange(L) < count)[0][count], atol=1e-12)
    for now, whole in zip(jax.tree.leaves(new), jax.tree.leaves(kept), strict=True):
        np.testing.assert_allclose(now[..., : count + shift, :], whole[..., : count + shift, :], atol=1e-12)


def test_what_is_kept_of_a_block_is_that_of_the_passage(model):
    energy, block = model.energy, model.energy.block
    ids = jax.random.randint(jax.random.key(5), (L,), 0, 3)
    kept = jax.tree.map(lambda rows: rows.at[..., shift_of(energy) :, :].set(7.0), energy.unwritten(L))
    for start in range(0, L, block):
        kept = energy.extended(kept, ids[start : start + block], start)
    for now, whole in zip(jax.tree.leaves(kept), jax.tree.leaves(energy.kept(ids)), strict=True):
        np.testing.assert_allclose(now, whole, atol=1e-12)
    if not shift_of(energy):  # what stands behind is not looked at, not even where all tokens read one another
        some = energy.in_blocks(0).extended(jax.tree.map(lambda rows: jnp.full_like(rows, 7.0), kept), ids[:5], 0)
        for now, whole in zip(jax.tree.leaves(some), jax.tree.leaves(energy.in_blocks(0).kept(ids[:5])), strict=True):
            np.testing.assert_allclose(now[..., :5, :], whole, atol=1e-12)


@pytest.mark.parametrize("shift", [False, True])
def test_one_pass_a_token_draws_what_a_relaxation_of_every_block_draws(shift):
    model, ids, free = small(1, shift=shift), [], []
    for step in (1.0, 1.0 + 1e-12):  # only the first is known to be at rest
        each = ed.sampling.Unmasking(rounds=1, steps=1, step=step, order=ed.sampling.most_certain)
        made = ed.generate(model, length=20, prompt="ab", samples=16, sampler=ed.sampling.Blocks(each), frames=2)
        ids.append(made.ids)
        free.append(made.free_energy)
        assert made.force_evaluations.tolist() == [18] * 16
        if step == 1.0:  # the certainty of a token is given all before it, of the prompt too
            energy = model.energy
            log_p = [energy.in_order(jnp.asarray(row)) for row in made.ids]
            np.testing.assert_allclose(np.log(made.confidence), log_p, rtol=1e-9)
    assert (ids[0] == ids[1]).all() and len(np.unique(ids[0], axis=0)) > 8
    np.testing.assert_allclose(free[0], free[1], rtol=1e-9)


def test_nothing_is_read_of_what_is_behind_the_block(model):
    energy, block = model.energy, model.energy.block
    b = jax.random.normal(jax.random.key(1), (L, 3))
    y = jax.random.normal(jax.random.key(2), (L, energy.dim))
    stack = energy.network.synapses["blocks"]
    by_token = jax.jacobian(lambda g: sum(stack.terms(g).values()))(energy.activation(y, b))
    read = np.asarray(jnp.any(by_token != 0, axis=-1))
    number = np.arange(L) // block
    assert not read[number[:, None] < number].any() and read[number[:, None] >= number].all()


def test_a_shifted_read_out_does_not_read_what_it_is_compared_with():
    """By one attention a token's energy depends on all streams but its own; read in order on those before alone."""
    for block in (0, 1):
        sizes = dict(depth=1, heads=2, convolution=2 * block, shift=True, block=block)
        stack = ed.energy.DeepStack(16, **sizes, key=jax.random.key(0))
        g = jax.random.normal(jax.random.key(1), (L, 16))
        slopes = jax.jacobian(stack.per_token)(g)
        read, compared = (np.abs(half).max(axis=-1) > 1e-9 for half in (slopes[..., :8], slopes[..., 8:]))
        there = ~np.eye(L, dtype=bool) if block == 0 else np.tri(L, k=-1, dtype=bool)
        assert (read == there).all() and (compared == np.eye(L, dtype=bool)).all()


def test_what_is_read_of_a_shifted_passage_adds_up_by_head_and_token():
    stack = ed.energy.DeepStack(16, depth=2, heads=2, convolution=2, shift=True, key=jax.random.key(0))
    g, u = (jax.random.normal(jax.random.key(n), (L, 16)) for n in (1, 2))
    for energy, pattern in stack.heads(g).values():
        assert energy.shape == (2, L) and pattern.shape == (2, L, L + 1)
        np.testing.assert_allclose(pattern.sum(axis=-1), 1.0, rtol=1e-9)  # the start is read too
        assert (pattern[:, np.arange(L), np.arange(1, L + 1)] == 0).all()
    direct = stack.by_neighbour(g, u.at[:, :8].set(0.0))  # along what is compared a token has no part of its own
    np.testing.assert_allclose(np.diagonal(direct["convolution 1"])[3:], 0.0, atol=1e-12)


def test_force_after_a_prefix_is_the_slope_of_its_energy(model):
    ids = jax.random.randint(jax.random.key(5), (L,), 0, 3)
    alone = model.energy.after(model.energy.kept(ids), 2 * model.energy.block, 3)
    y, b, u = (jax.random.normal(jax.random.key(n), (3, width)) for n, width in ((0, 16), (1, 3), (2, 16)))
    g = alone.activation(y, b)
    at = lambda g: float(sum(term.sum() for term in alone.terms(y, b, g=g).values()))
    slope = (at(g + 1e-5 * u) - at(g - 1e-5 * u)) / 2e-5
    np.testing.assert_allclose(-np.sum(np.asarray(alone.force(y, b)) * u), slope, rtol=1e-6)


def test_shares_after_a_prefix_add_up(model):
    """By token, head, memory and offset; what was read before the block is its own."""
    ids = jax.random.randint(jax.random.key(5), (L,), 0, 3)
    alone = model.energy.after(model.energy.kept(ids), 6, 3)
    stack = alone.network.synapses["blocks"]
    g, u = (jax.random.normal(jax.random.key(n), (3, 16)) for n in (0, 1))
    whole = {
        name: -jnp.sum(jax.grad(lambda g, name=name: jnp.sum(stack.terms(g)[name]))(g) * u, -1)
        for name in stack.terms(g)
    }
    for split in (stack.by_neighbour, stack.by_head, stack.by_memory):
        for name, shares in split(g, u).items():
            np.testing.assert_allclose(jnp.sum(shares, axis=1), whole[name], atol=1e-10)
    for name, parts in stack.parts(g).items():
        np.testing.assert_allclose(jnp.sum(parts, axis=0), stack.terms(g)[name], atol=1e-12)


def chain_rule(model, ids):
    """The log probability of a passage that is written from left to right, one token at a time."""
    known = jnp.arange(len(ids))
    return sum(float(rest(model.energy, ids, known < n)[2][n, ids[n]]) for n in range(len(ids)))


@pytest.mark.parametrize("block", [1, 2])
def test_passages_have_the_probability_of_the_chain_rule(block):
    """All passages of four tokens, counted among 4,000 that were written block by block."""
    model = small(block, dim=8)
    law = {"".join(text): 0.0 for text in itertools.product("abc", repeat=4)}
    for text in law:
        law[text] = np.exp(chain_rule(model, model.encode(text)))
    assert np.isclose(sum(law.values()), 1.0)
    sampler = ed.sampling.Blocks(
        ed.sampling.Unmasking(rounds=block, steps=1, step=1.0, order=ed.sampling.left_to_right)
    )
    made = ed.generate(model, length=4, samples=4000, sampler=sampler, frames=1)
    found = np.array([made.texts.count(text) for text in law])
    expected = 4000 * np.array(list(law.values()))
    often = expected > 5
    chi = np.sum((found - expected)[often] ** 2 / expected[often])
    assert chi < often.sum() + 4 * np.sqrt(2 * often.sum()) and expected.max() > 4 * 4000 / 81


SAMPLERS: dict[str, Any] = {
    "draws": ed.sampling.Unmasking(rounds=2, steps=1, step=1.0, order=ed.sampling.most_certain),
    "descent": ed.sampling.descent(6, schedule=ed.flow.LogLinear(sigma_max=0.9, sigma_min=0.6)),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_given_tokens_stand_and_looking_on_changes_nothing(name):
    """Within blocks, before and behind them; a prompt costs no force."""
    model, sampler = small(3), ed.sampling.Blocks(SAMPLERS[name], moments=4)
    seen = []
    made = ed.generate(model, length=11, prompt="abcab", samples=3, sampler=sampler, frames=4, watch=seen.append)
    assert all(len(text) == 11 and text.startswith("abcab") for text in made.texts) and len(seen) == 4
    again = ed.generate(model, length=11, prompt="abcab", samples=3, sampler=sampler, frames=1)
    assert made.texts == again.texts and len(set(made.texts)) > 1
    assert made.force_evaluations.tolist() == again.force_evaluations.tolist()
    each = {"draws": 2, "descent": 6}[name]
    assert again.force_evaluations[0] == 3 * each  # blocks 1 (one token open), 2 and 3 of four
    assert (np.diff(made.known) >= 0).all() and made.known[0, -1] == 1 and made.reason == "every token is written"
    evidence = ed.flow.Likelihood(jnp.zeros((11, 3)).at[:, 0].set(ed.flow.FORBIDDEN))
    made = ed.generate(model, length=11, samples=2, evidence=evidence, sampler=sampler, frames=1)
    assert "a" not in "".join(made.texts)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("pattern", ["[ab]*ca[abc]|b+c*", None])
@pytest.mark.parametrize("prompt", ["", "b"])
@pytest.mark.parametrize("likely", [False, True], ids=["alone", "beside a likelihood"])
def test_evidence_is_kept_from_left_to_right_by_what_the_prior_says_of_the_rest(pattern, prompt, likely, temperature):
    """Token by token `p(w | before)` times its likelihood, and the probability, under the prior and the likelihood,
    that what follows matches. A temperature acts on the former alone."""
    model, n = small(1), 4
    energy, items = model.energy, np.array(list(itertools.product(range(3), repeat=n)))
    b = 0.7 * np.random.default_rng(0).normal(size=(n, 3)) * likely
    b[3, 0] = ed.flow.FORBIDDEN if likely else 0.0
    log_p = np.asarray(jax.vmap(energy.conditionals)(jnp.asarray(items)))  # (81, L, V)
    prior = np.asarray(jax.nn.softmax(energy.logits(energy.neutral(n), jnp.asarray(b))))
    matches = np.array([re.fullmatch(pattern or ".*", "".join("abc"[w] for w in row)) is not None for row in items])
    law = np.zeros(len(items))
    begins = lambda row: (items[:, : len(row)] == row).all(axis=1) & matches
    rest = lambda row: np.prod(prior[np.arange(len(row), n), items[begins(row)][:, len(row) :]], axis=1)
    for number in np.flatnonzero(begins(np.array(["abc".index(w) for w in prompt], int))):
        row, share = items[number], 1.0
        for i in range(len(prompt), n):
            follows = [np.sum(rest([*row[:i], w])) for w in range(3)]
            each = np.exp(log_p[number, i] / temperature + b[i]) * follows
            share *= each[row[i]] / sum(each)
        law[number] = share
    given: Any = ed.flow.Likelihood(jnp.asarray(b))
    matching = given if pattern is None else ed.flow.Matching(pattern, model.tokenizer, length=n)
    evidence = matching + given if likely and pattern else matching
    each = ed.sampling.Unmasking(rounds=1, steps=1, step=1.0, temperature=temperature)
    sampler = ed.sampling.Blocks(each, size=1)
    made = ed.generate(model, length=n, prompt=prompt, samples=8000, sampler=sampler, evidence=evidence, frames=0)
    families.likely(made.ids, law)
    assert (made.force_evaluations == n - len(prompt)).all()  # one pass a token
    first = int(np.argmax(law))
    row = np.flatnonzero((made.ids == items[first]).all(axis=1))[0]
    assert np.allclose(made.confidence[row, len(prompt) :], np.exp(log_p[first, range(n), items[first]])[len(prompt) :])


@pytest.mark.parametrize("name", ["left to right", "descent", "unmasking, in windows"])
def test_without_a_record_the_text_is_the_same_and_no_energy_is_evaluated(name, monkeypatch):
    model = ed.EnergyDLLM(ed.data.Characters("abc"), dim=8, blocks=(0, 1), key=jax.random.key(0))
    rounds = ed.sampling.Unmasking(rounds=4, steps=1, step=1.0)
    sampler = {"left to right": ed.sampling.Blocks(size=1), "descent": ed.sampling.descent(4)}.get(name, rounds)
    write = functools.partial(ed.generate, model, length=11, prompt="ab", samples=3, sampler=sampler)
    write = functools.partial(write, window=6) if "windows" in name else write
    recorded = write(frames=4)
    if name != "descent":  # whose force is a derivative of the terms
        monkeypatch.setattr(ed.energy.FreeEnergy, "terms", lambda *_, **__: pytest.fail("the record has an energy"))
    made = write(frames=0)
    assert made.texts == recorded.texts and np.allclose(made.confidence, recorded.confidence, atol=1e-6)
    assert made.force_evaluations.tolist() == recorded.force_evaluations.tolist()
    assert made.free_energy.shape == made.known.shape == (3, 0) and made.frames.shape == (3, 0, 11)
    assert made.terms == {} and made.times.shape == made.sigma.shape == (0,)


def test_blocks_are_the_default_and_a_long_passage_is_one_window():
    model = small(4, dim=8)
    made = ed.generate(model, length=200, samples=2, prompt="ab", frames=1)
    sampler = ed.sampling.default_sampler(model)
    assert isinstance(sampler, ed.sampling.Blocks) and sampler.each.rounds == 4
    assert made.force_evaluations.tolist() == [50 * 4] * 2 and all(len(text) == 200 for text in made.texts)


def test_the_bound_of_blocks_of_one_is_the_chain_rule():
    model = small(1)
    score = ed.evaluate(model, np.arange(400) % 3, length=12, windows=16)
    ordered: Any = [score.left_to_right_bits_per_char, score.certain_first_bits_per_char]
    np.testing.assert_allclose(ordered, score.masked_nelbo_bits_per_char, rtol=1e-6)
    for curve in (score.relaxation_curve, score.step_curve):  # of the same tokens, given the same text
        np.testing.assert_allclose(dict(curve)[1.0] / np.log(2), score.masked_nelbo_bits_per_char, rtol=1e-6)


@pytest.mark.parametrize("block", [0, 1, 3, 4])
def test_the_bound_of_a_model_that_knows_nothing_is_the_alphabet(block):
    model = small(block)
    model = eqx.tree_at(lambda m: m.energy.vocabulary.patterns, model, replace_fn=jnp.zeros_like)
    score = ed.evaluate(model, np.arange(400) % 3, length=12, windows=16, curves=False)
    np.testing.assert_allclose(score.masked_nelbo_bits_per_char, np.log2(3), rtol=1e-6)


@pytest.mark.parametrize("block", [0, 2])
def test_the_bound_is_the_mean_over_all_masks(block):
    """Against every mask of every block, each number of masked tokens being as likely; as far off as it is said."""
    model, size = small(block), block or 4
    text = np.random.default_rng(0).integers(0, 3, (64, 4))
    exact = 0.0
    for start in range(0, 4, size):
        for hidden in itertools.product([False, True], repeat=size):
            if not any(hidden):
                continue
            known = np.r_[np.ones(start, bool), ~np.array(hidden), np.zeros(4 - start - size, bool)]
            log_p = jax.vmap(model.log_posterior, (0, None))(jnp.asarray(text), jnp.asarray(known))
            nll = -np.take_along_axis(np.asarray(log_p), text[..., None], -1)[..., 0]
            asked = nll[:, start : start + size][:, np.array(hidden)].sum() / text.size / np.log(2)
            exact += asked / sum(hidden) / math.comb(size, sum(hidden))
    found = [ed.evaluate(model, text.ravel(), length=4, curves=False, seed=seed) for seed in range(40)]
    bits = np.array([score.masked_nelbo_bits_per_char for score in found])
    errors = np.array([score.standard_error for score in found])
    assert abs(bits.mean() - exact) < 4 * bits.std(ddof=1) / np.sqrt(40)
    assert bits.std() < 1.3 * errors.mean() and errors.max() < 2 * errors.min()


def test_training_asks_every_block_and_lowers_its_bound():
    model = small(4)
    ids = jnp.asarray(np.arange(480).reshape(40, 12) % 3)
    objective = ed.learn.Denoising(gaussian=0.0, typo=0.0)
    _, asked, _, _ = objective.draw(model, ids, jax.random.key(0), jnp.array(1.0))
    count = np.asarray(asked.reshape(40, 3, 4).sum(-1))
    assert count.min() == 1 and np.allclose(np.bincount(count.ravel())[1:], 30, atol=1)
    corpus = ed.data.Corpus("abc", ABC, *[np.arange(600, dtype=np.int32) % 3] * 3)
    settings: dict[str, Any] = dict(length=12, batch_size=8, steps=60, learning_rate=0.03)
    fitted = ed.fit(model, corpus, ed.learn.Denoising(), **settings)
    bound = lambda model: ed.evaluate(model, corpus.validation, length=12, windows=16, curves=False)
    assert bound(fitted).masked_nelbo_bits_per_char < 0.7 < bound(model).masked_nelbo_bits_per_char


def test_it_is_saved_and_a_passage_read_as_a_whole_has_the_same_parameters(tmp_path):
    model = small(4)
    ed.save(tmp_path / "model.safetensors", model)
    again = ed.load(tmp_path / "model.safetensors")
    assert again.energy.block == 4 and eqx.tree_equal(again, model)
    whole = again.energy.in_blocks(0)
    assert whole.block == 0 and eqx.tree_equal(whole.in_blocks(4), model.energy)
    ids, known = jnp.arange(L) % 3, jnp.arange(L) >= L - 2
    assert not np.allclose(rest(whole, ids, known)[2][0], rest(model.energy, ids, known)[2][0])


def mixed(*blocks, **sizes):
    """One set of parameters, read in several kinds of blocks."""
    return ed.EnergyDLLM(ABC, energy=small(0, **sizes).energy, blocks=blocks, key=jax.random.key(0))


@pytest.mark.parametrize(
    ("gaussian", "blocks", "sizes", "shift"),
    [
        (0.0, (0, 4, 0, 3), [0, 4, 0, 3, 0, 4, 0, 3], False),
        (0.5, (0, 4, 1), [0, 0, 0, 0, 0, 4, 1, 0], False),  # under noise as a whole
        (1.0, (4, 3), [4, 3, 4, 3, 4, 3, 4, 3], False),  # unless it never is
        (0.5, (0, 1), [0, 0, 0, 0, 0, 1, 0, 1], True),
        (0.5, (1,), [1] * 8, True),
    ],
)
def test_a_window_is_asked_as_by_the_energy_in_its_blocks(gaussian, blocks, sizes, shift):
    """The loss is the mean, over windows, of what each kind has by itself."""
    ids, key = jax.random.randint(jax.random.key(1), (8, L), 0, 3), jax.random.key(0)
    model = mixed(*blocks, shift=shift)
    objective = ed.learn.Denoising(gaussian=gaussian, typo=0.0, speed_penalty=0.0, prior_weight=0.0, known=0.0)
    b, asked, _, step = objective.draw(model, ids, key, jnp.array(1.0))
    assert objective.sizes(model, 8).tolist() == sizes
    expected = 0.0
    for block in set(sizes):
        ce, weight, rows = 0.0, 0.0, [n for n in range(8) if sizes[n] == block]
        for n in rows:
            energy = model.energy.side_by_side(ids[n], block) if block else model.energy
            y = ed.flow.relax(energy, energy.neutral(L), b[n], steps=1, step=step if n < 8 * gaussian else 1.0)
            nll = -jax.nn.log_softmax(energy.logits(y, b[n]))[jnp.arange(L), ids[n]]
            for start in range(0, L, block or L):
                here = slice(start, start + (block or L))
                share = asked[n, here] / np.sqrt(max(1, asked[n, here].sum()))
                ce, weight = ce + np.sum(np.where(asked[n, here], nll[here] * share, 0.0)), weight + np.sum(share)
        expected += len(rows) / 8 * ce / weight
    np.testing.assert_allclose(objective(model, ids, key, jnp.array(1.0)), expected, rtol=1e-6)


@pytest.mark.parametrize("shift", [False, True])
def test_in_blocks_of_one_the_likelihood_is_the_chain_rule_in_one_evaluation(shift):
    model = mixed(0, 1, shift=shift)
    energy = model.energy.in_blocks(1)
    for ids, _ in texts():
        in_order = eqx.tree_at(lambda m: m.energy, model, energy)
        np.testing.assert_allclose(energy.log_likelihood(ids), chain_rule(in_order, ids), rtol=1e-12)
    made = ed.generate(model, length=L, samples=6, frames=1)
    best = ed.sampling.likeliest(model, made, of=6)
    assert best.texts[0] == made.texts[int(np.argmax([energy.log_likelihood(jnp.asarray(row)) for row in made.ids]))]


def test_one_training_serves_the_passage_and_its_blocks():
    """What is learned in windows of both kinds is known to both, and the default of the sampler is the whole."""
    corpus = ed.data.Corpus("abc", ABC, *[np.arange(600, dtype=np.int32) % 3] * 3)
    settings: dict[str, Any] = dict(length=10, batch_size=8, steps=60, learning_rate=0.03)
    fitted = ed.fit(mixed(0, 4), corpus, ed.learn.Denoising(), **settings)
    bound = lambda block: ed.evaluate(fitted, corpus.validation, length=10, windows=16, curves=False, block=block)
    assert all(bound(block).masked_nelbo_bits_per_char < 0.7 for block in (0, 4))
    made = ed.generate(fitted, length=12, prompt="ab", sampler=ed.sampling.Blocks(size=4), samples=8)
    assert sum(text == "abcabcabcabc" for text in made.texts) >= 6
    assert not isinstance(ed.sampling.default_sampler(fitted), ed.sampling.Blocks)


@pytest.mark.parametrize("block", [1, 3, 4])
def test_the_bound_in_blocks_is_that_of_the_energy_in_them(block):
    ids = np.random.default_rng(0).integers(0, 3, 400)
    settings: dict[str, Any] = dict(length=L, windows=8, curves=False)
    one, other = ed.evaluate(small(block), ids, **settings), ed.evaluate(small(0), ids, **settings, block=block)
    np.testing.assert_allclose(one.masked_nelbo_bits_per_char, other.masked_nelbo_bits_per_char, rtol=1e-9)


def recalling(energy):
    """With a memory beside the stack, whose force on a token that nobody knows is not 0."""
    memory = ed.memory.TokenMemory(ed.memory.GaussianMemory(jnp.ones((1, energy.dim))))
    return eqx.tree_at(lambda e: e.network.synapses, energy, {**energy.network.synapses, "recall": memory})


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ed.sampling.Blocks(ed.sampling.Diffusion()), "without a schedule"),
        (lambda: ed.sampling.Blocks(moments=0), "`moments` is 0"),
        (lambda: ed.energy.DeepStack(16, block=-1, key=jax.random.key(0)), "`block` is -1"),
        (lambda: small(4, rotary=True, heads=2), "`block` is 4"),
        (lambda: ed.generate(small(0), length=8, sampler=ed.sampling.Blocks()), "for an energy in blocks"),
        (lambda: families.small_model("abc").energy.in_blocks(2), "has no blocks"),
        (lambda: families.small_model("abc").energy.kept(jnp.zeros(3, int)), "keeps nothing"),
        (
            lambda: ed.generate(
                small(4),
                length=8,
                evidence=ed.flow.Matching(".*a", ABC, length=8),
                sampler=ed.sampling.Blocks(),
            ),
            "keeps a pattern from left to right alone",
        ),
        (lambda: recalling(small(1).energy).in_order(jnp.zeros(3, int)), "a `DeepStack` alone"),
        (lambda: ed.EnergyDLLM(ABC, energy=recalling(small(0).energy), blocks=(0, 1), key=jax.random.key(0)), "alone"),
        (lambda: ed.sampling.Blocks(size=0), "`size` is 0"),
        (lambda: small(0, rotary=True, heads=2).energy.in_blocks(4), "`block` is 4"),
        (lambda: mixed(0, -1), "`blocks` is"),
        (lambda: small(4, shift=True), "read-out is shifted"),
        (lambda: small(1, shift=True).energy.side_by_side(jnp.zeros(8, int), 4), "read-out is shifted"),
        (lambda: ed.generate(small(0, shift=True), length=8, sampler=ed.sampling.Blocks(size=4)), "is shifted"),
        (lambda: ed.EnergyDLLM(ABC, dim=16, depth=1, shift=True, key=jax.random.key(0)), "`shift` is True"),
        (lambda: ed.energy.DeepStack(16, grids=((2, 3),), shift=True, key=jax.random.key(0)), "`shift` is True"),
        (lambda: mixed(), "`blocks` is"),
        (lambda: ed.EnergyDLLM(ABC, dim=16, depth=1, blocks=(0, 4), key=jax.random.key(0)), "has no blocks"),
        (lambda: ed.evaluate(families.small_model("abc"), np.arange(99) % 3, length=9, block=3), "has no blocks"),
    ],
)
def test_errors_name_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call()
