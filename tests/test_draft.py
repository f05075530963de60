"""Laws of a draft: it saves passes, and changes nothing else."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_blocks import ABC, small

import energy_dllm as ed
from energy_dllm.sampling import _written


@pytest.fixture(scope="module")
def model():
    return small(1, shift=True)


@pytest.fixture(scope="module")
def draft(model):
    return ed.sampling.Draft.of(model.energy, contexts=20, length=3, tokens=2)


def drawn(temperature):
    return ed.sampling.Unmasking(rounds=1, steps=1, step=1.0, order=ed.sampling.most_certain, temperature=temperature)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_several_tokens_are_read_in_one_pass_as_one_by_one(model, count):
    energy, ids = model.energy, jnp.array([0, 2, 1, 1, 0, 2, 2, 1, 0, 1])
    kept, states = energy.unwritten(ids.size), []
    for n in range(count + 4):
        y, kept = energy.next(kept, ids[max(n - 1, 0)], n)
        states.append(y[0])
    before = energy.unwritten(ids.size)
    for n in range(count):
        before = energy.next(before, ids[max(n - 1, 0)], n)[1]
    rows = ids[np.maximum(np.arange(count - 1, count + 3), 0)]
    together, after = energy.next(before, rows, count)
    np.testing.assert_allclose(together, jnp.stack(states[count:]), atol=1e-12)
    for one, two in zip(jax.tree.leaves(kept), jax.tree.leaves(after), strict=True):
        np.testing.assert_allclose(two[..., : count + 4, :], one[..., : count + 4, :], atol=1e-12)


@pytest.mark.parametrize("some", [1, 3, 64])
@pytest.mark.parametrize("count", [0, 1, 4, 10])
def test_a_prompt_is_read_some_tokens_at_a_time_as_all_at_once(model, monkeypatch, count, some):
    monkeypatch.setattr(_written, "TOGETHER", some)
    energy, ids = model.energy, jnp.array([0, 2, 1, 1, 0, 2, 2, 1, 0, 1])
    kept, log_p = _written.read_prompt(energy, ids, jnp.array(count), jnp.zeros(ids.size))
    np.testing.assert_allclose(log_p[:count], energy.in_order(ids)[:count], atol=1e-12)
    for one, all_of_them in zip(jax.tree.leaves(kept), jax.tree.leaves(energy.kept(ids)), strict=True):
        np.testing.assert_allclose(one[..., :count, :], all_of_them[..., :count, :], atol=1e-12)


@pytest.mark.parametrize("contexts", [1, 7, 40])
def test_a_context_is_the_longest_end_of_a_text_and_knows_what_the_energy_says_after_it(model, contexts):
    draft = ed.sampling.Draft.of(model.energy, contexts=contexts, length=3, tokens=3)
    after = lambda text: model.energy.conditionals(jnp.array([*text, 0]))[len(text)]
    texts = [text for n in range(4) for text in itertools.product(range(3), repeat=n)]
    weight = {text: float(model.energy.in_order(jnp.array(text)).sum()) if text else 0.0 for text in texts}
    likely = [text for text in texts if weight[text] > -np.log(contexts) - 1.0]
    likeliest = sorted(likely, key=lambda text: (-weight[text], len(text)))[:contexts]
    assert draft.tokens.shape == (len(likeliest), 3) and len(likeliest) == min(contexts, 22)
    for text in itertools.product(range(3), repeat=5):
        context = jnp.zeros((), int)
        for token in text:
            context = draft.follow(context, jnp.array(token))
        end = next(text[n:] for n in range(6) if text[n:] in likeliest)
        log_p = np.empty(3)
        log_p[draft.tokens[context]] = draft.log_p[context]
        np.testing.assert_allclose(log_p, after(end), atol=1e-12)
        assert (np.diff(draft.log_p[context]) <= 0).all()


@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_the_text_is_that_without_a_draft_in_fewer_passes(model, draft, temperature, ahead):
    """Of every seed, with a prompt, tokens that are given behind it, evidence, and moments in between."""
    passes, seen_as = 0, ed.flow.Likelihood(jnp.asarray(np.random.default_rng(0).normal(size=(23, model.size))))
    for seed, prompt in enumerate(["", "b", "abca", "ccb"]):
        settings = dict(length=23, prompt=prompt, seed=seed, frames=5, evidence=seen_as if seed % 2 else None)
        plain = ed.generate(model, sampler=ed.sampling.Blocks(drawn(temperature), size=1, moments=5), **settings)
        sampler = ed.sampling.Blocks(drawn(temperature), size=1, draft=draft, ahead=ahead, moments=5)
        seen = []
        made = ed.generate(model, sampler=sampler, watch=seen.append, **settings)
        assert made.texts == plain.texts and made.reason == plain.reason and len(seen) == 5
        np.testing.assert_allclose(made.confidence, plain.confidence, atol=1e-12)
        np.testing.assert_allclose(made.known, plain.known)
        np.testing.assert_allclose(made.free_energy, plain.free_energy, atol=1e-9)
        assert plain.force_evaluations[0] == 23 - len(prompt)
        passes += made.force_evaluations[0] / plain.force_evaluations[0] / 4
    assert passes == 1 if ahead == 1 else 1 / ahead < passes < 0.9


def test_tokens_that_are_given_in_between_stand(model, draft):
    for seed in range(4):
        make = lambda sampler, seed=seed: ed.infill(model, "a[2]b[4]cc[2]a[1]", sampler=sampler, seed=seed, frames=0)
        plain, made = make(ed.sampling.Blocks(size=1)), make(ed.sampling.Blocks(size=1, draft=draft, ahead=3))
        assert made.texts == plain.texts and made.force_evaluations[0] < plain.force_evaluations[0]


def test_it_is_not_asked_where_it_cannot_help(model, draft):
    """By several passages, a pattern, a model without a shift: the text is the same."""
    sampler = ed.sampling.Blocks(size=1, draft=draft)
    pattern = ed.flow.Matching("(ab|c)*", ABC, length=10)
    for other, settings in (
        (model, {"samples": 3}),
        (model, {"evidence": pattern}),
        (small(1), {}),
    ):
        plain = ed.generate(other, length=10, sampler=ed.sampling.Blocks(size=1), frames=0, **settings)
        made = ed.generate(other, length=10, sampler=sampler, frames=0, **settings)
        assert made.texts == plain.texts and made.force_evaluations.tolist() == plain.force_evaluations.tolist()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ed.sampling.Draft.of(small(1).energy), "no shifted read-out"),
        (lambda: ed.sampling.Draft.of(small(1, shift=True).energy, contexts=0), "`contexts` is 0"),
        (lambda: ed.sampling.Blocks(size=1, ahead=0), "`ahead` is 0"),
        (lambda: small(1).energy.next(small(1).energy.unwritten(4), jnp.array([0, 1]), 1), "`last` are 2 tokens"),
    ],
)
def test_errors_name_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call()
