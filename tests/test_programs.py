"""How many programs are compiled: one for every shape, none for a value."""

# pyright: reportArgumentType=false
import gc
from pathlib import Path

import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energy_dllm as ed


STATUS = Path("/proc/self/status")
ABC = ed.data.Characters("abc ")


@pytest.fixture(scope="module")
def model():
    return families.small_model("abc ", steps=2)


@pytest.fixture
def programs():
    """How many were asked of the compiler since the last look."""
    count = 0

    def heard(event: str, *_, **__) -> None:
        nonlocal count
        count += event == "/jax/core/compile/backend_compile_duration"

    def since() -> int:
        nonlocal count
        count, before = 0, count
        return before

    jax.monitoring.register_event_duration_secs_listener(heard)
    yield since
    jax.monitoring.clear_event_listeners()


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
    "generate: rates of typos": lambda m, n: write(m, evidence=ed.flow.Typo(jnp.zeros(8, int), 0.01 + n / 100)),
    "infill: where the holes are": lambda m, n: ed.infill(
        m, "a" * (n % 6) + "[2]" + "b" * (6 - n % 6), sampler=ed.sampling.Unmasking(rounds=2, steps=2), frames=1
    ),
    "repair: texts and rates": lambda m, n: ed.repair(m, "abcabc"[n % 2 :][:5], rate=0.05 + n / 100),
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


def test_another_length_is_another_program(model, programs):
    write(model, length=9)
    assert programs() > 0


def test_recall_pads_lengths_and_its_memory_stays_flat(programs):
    """100 cues of 1 to 40 characters: a program for each multiple of 16, and no more memory than before."""
    memory = ed.TextMemory(["abc cab " * 5, "bbc", "cab cab", "aa bb cc"], tokenizer=ABC)
    rng = np.random.default_rng(0)
    cue = lambda length: "".join(rng.choice(list("abc "), length)) or "a"
    for length in (1, 16, 17, 32, 33, 40):
        memory.recall(cue(length))
    programs()
    kilobytes = lambda: int(STATUS.read_text().split("VmRSS:")[1].split()[0])
    if not STATUS.exists():
        pytest.skip("the memory of a process is read from /proc")
    gc.collect()
    before = kilobytes()
    for n in range(100):
        memory.recall(cue(1 + n * 7 % 40))
    gc.collect()
    assert programs() == 0
    assert kilobytes() - before < 20_000
