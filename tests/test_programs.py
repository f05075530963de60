"""How many programs are compiled: one for every shape, none for a value."""

# pyright: reportArgumentType=false
import functools
import gc
from pathlib import Path

import diffrax
import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energy_dllm as ed
from energy_dllm.sampling import _padding


STATUS = Path("/proc/self/status")
ABC = ed.data.Characters("abc ")


@pytest.fixture(scope="module")
def model():
    return families.small_model("abc ", steps=2)


@pytest.fixture(scope="module")
def deep():
    return ed.EnergyDLLM(ABC, dim=16, depth=2, reach=1, memories=8, key=jax.random.key(1))


def write(model, **options):
    sampler = ed.sampling.Unmasking(rounds=2, steps=2, remask_rounds=1)
    return ed.generate(model, **{"length": 8, "sampler": sampler, "frames": 1, **options})


def fit(model, **options):
    corpus = ed.data.Corpus("made up", ABC, *[np.arange(300, dtype=np.int32) % 4] * 3)
    return ed.fit(model, corpus, ed.learn.Denoising(), **{"steps": 2, "length": 8, "batch_size": 2, **options})


VALUES = {
    "generate: seeds": lambda m, n: write(m, seed=n),
    "generate: prompts of one length": lambda m, n: write(m, prompt="abca"[n % 2 :][:2]),
    "generate: prompts of every length": lambda m, n: write(m, prompt="abcabc"[: n % 6]),
    "generate: likelihoods": lambda m, n: write(m, evidence=ed.flow.Likelihood(n * jnp.ones((8, 4)))),
    "generate: patterns": lambda m, n: write(
        m, evidence=ed.flow.Matching(["a.*", "[ab]*c?[ab]*", ".*ab.*", "(a|b ){2,}c*"][n - 1], ABC, length=8)
    ),
    "generate: rates of typos": lambda m, n: write(m, evidence=ed.flow.Typo(jnp.zeros(8, int), 0.01 + n / 100)),
    "infill: where the holes are": lambda m, n: ed.infill(
        m, "a" * (n % 6) + "[2]" + "b" * (6 - n % 6), sampler=ed.sampling.Unmasking(rounds=2, steps=2), frames=1
    ),
    "infill: lengths to choose from": lambda m, n: ed.infill(
        m, "ab[*]c", length=[8, 9, 9 + n], sampler=ed.sampling.Unmasking(rounds=2, steps=2), frames=1
    ),
    "repair: texts, lengths and rates": lambda m, n: ed.repair(m, "abcabcab"[: 2 * n], rate=n / 100, time=9.0 + n),
    "relax: steps and sizes": lambda m, n: ed.flow.relax(
        m.energy, m.energy.neutral(8), jnp.zeros((8, 4)), steps=jnp.asarray(n), step=jnp.asarray(0.1 * n)
    ),
    "evaluate: texts": lambda m, n: ed.evaluate(m, np.arange(n, n + 99) % 4, length=8, windows=4),
    "fit: seeds and learning rates": lambda m, n: fit(m, seed=n, learning_rate=0.01 * n),
    "the whole of an energy": lambda m, n: m.energy(n * m.energy.neutral(8) + n, n * jnp.ones((8, 4))),
}


@pytest.mark.parametrize("name", VALUES)
def test_no_new_program_for_a_value_that_is_not_a_shape(name, model, programs):
    for n in (1, 2):  # the second finds what the first leaves behind, such as the checks of a value that is known
        VALUES[name](model, n)
    programs()
    for n in (3, 4):
        VALUES[name](model, n)
    assert programs() == 0


def test_patterns_of_lengths_in_one_bucket_share_the_motion(model, programs):
    """What is compiled for each of them is the evidence that is looked at before."""
    for n in range(5):
        write(model, length=8 + n, evidence=ed.flow.Matching(".*ab.*", ABC, length=8 + n))
        if n == 1:
            programs()
    assert programs() <= 3


def test_another_bucket_of_lengths_is_another_program(model, programs):
    jax.clear_caches()  # another test of the same process may have had a model of these shapes
    write(model)
    programs()
    write(model, length=17)
    assert programs() > 0


SAMPLERS = {
    "unmasking": lambda n: ed.sampling.Unmasking(
        rounds=3, steps=2, remask_rounds=1, temperature=0.3 + n / 9, order=ed.sampling.left_to_right
    ),
    "beams": lambda n: ed.sampling.BeamSearch(width=2, rounds=3, step=0.9 + n / 99),
    "flow": lambda n: ed.sampling.Diffusion(
        steps=3, churn=0.1 + n / 9, until=0.5 + n / 50, temperature=0.3 + n / 9, field=short
    ),
    "descent": lambda n: ed.sampling.Diffusion(
        steps=4,
        until=0.4 + n / 50,
        temperature=0.0,
        finish=SAMPLERS["unmasking"](n),
        redraw=0.2 + n / 50,
        field=functools.partial(ed.flow.AutonomousDescent, temperature=0.5 + n / 9, by_token=True),
    ),
}
short = functools.partial(ed.flow.JointFlow, rate=3.0)


@pytest.mark.parametrize("name", SAMPLERS)
def test_twenty_calls_in_one_bucket_compile_what_the_first_did(name, model, programs):
    jax.clear_caches()
    for n in range(20):
        ed.generate(model, length=15 - n % 7, prompt="abcab"[: n % 5], sampler=SAMPLERS[name](n), seed=n, samples=2)
        if n == 0:
            assert programs() > 0
    assert programs() == 0


@pytest.mark.parametrize("name", SAMPLERS)
def test_padding_changes_nothing(name, model, deep, monkeypatch):
    """The same passages, whatever the length they are padded to, and all that is recorded of them."""
    evidence = ed.flow.Likelihood(jnp.asarray(np.random.default_rng(0).normal(size=(11, 4))))
    settings = dict(length=11, prompt="ab", suffix="c", samples=3, sampler=SAMPLERS[name](0), evidence=evidence)
    each = model if name == "flow" else deep
    padded = ed.generate(each, **settings)
    monkeypatch.setattr(_padding, "LENGTHS", (11, 256))
    plain = ed.generate(each, **settings)
    assert plain.texts == padded.texts and set(plain.terms) == set(padded.terms)
    for field in ("frames", "confidence", "entropy", "known", "free_energy", "sigma", "force_evaluations"):
        assert np.allclose(getattr(plain, field), getattr(padded, field), atol=1e-8), field


def test_padding_changes_no_repair(model, monkeypatch):
    padded = ed.repair(model, "abcab", shifts=1)
    monkeypatch.setattr(_padding, "LENGTHS", (5, 7, 256))
    plain = ed.repair(model, "abcab", shifts=1)
    assert plain.text == padded.text and plain.edits == pytest.approx(padded.edits)
    assert plain.free_energy[-1] == pytest.approx(padded.free_energy[-1], abs=1e-2)  # up to where it counts as rest


def test_what_depends_on_the_length_is_not_padded(model):
    rolling, adaptive = (
        ed.sampling.Diffusion(front=4.0),
        ed.sampling.Diffusion(controller=diffrax.PIDController(1e-3, 1e-3)),
    )
    middle = ed.sampling.Unmasking(order=lambda key, log_p, ids: -jnp.abs(jnp.arange(len(ids)) - len(ids) / 2))
    own = ed.sampling.Diffusion(field=lambda energy, given: ed.flow.ProbabilityFlow(energy, given))
    ragged = lambda each: getattr(each, "ragged", False)
    assert not any(map(ragged, (rolling, adaptive, middle, own))) and ragged(ed.sampling.descent())
    guided = ed.energy.Guidance(lambda p: p[-1, 0]).on(model.energy)
    assert ragged(model.energy) and not ragged(guided) and not ragged(families.markov_model()[0].energy)


def kilobytes():
    if not STATUS.exists():
        pytest.skip("the memory of a process is read from /proc")
    gc.collect()
    return int(STATUS.read_text().split("VmRSS:")[1].split()[0])


def test_memory_stays_flat_over_texts_of_many_lengths(model, programs):
    for length in (16, 32, 64):
        write(model, length=length)
    programs()
    before = kilobytes()
    for n in range(100):
        write(model, length=4 + n * 7 % 60, prompt="abc"[: n % 4], seed=n)
    assert programs() == 0
    assert kilobytes() - before < 20_000


def test_recall_pads_lengths_and_its_memory_stays_flat(programs):
    """100 cues of 1 to 40 characters: a program for each multiple of 16, and no more memory than before."""
    memory = ed.TextMemory(["abc cab " * 5, "bbc", "cab cab", "aa bb cc"], tokenizer=ABC)
    rng = np.random.default_rng(0)
    cue = lambda length: "".join(rng.choice(list("abc "), length)) or "a"
    for length in (1, 16, 17, 32, 33, 40):
        memory.recall(cue(length))
    programs()
    before = kilobytes()
    for n in range(100):
        memory.recall(cue(1 + n * 7 % 40))
    assert programs() == 0
    assert kilobytes() - before < 20_000
