"""Laws of text that is recalled: one energy, pure changes, calibrated answers, and no more than the evidence."""

import dataclasses

import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energy_dllm as ed
from energy_dllm.memory import _recall
from energy_dllm.memory._grams import shared, signatures
from energy_dllm.memory._store import columns_of


ALPHABET = "abcdefgh "
LENGTH = 24


def made_up(rng, number, length=LENGTH):
    return ["".join(rng.choice(list(ALPHABET), size=length)) for _ in range(number)]


@pytest.fixture(scope="module")
def lines():
    return made_up(np.random.default_rng(0), 200)


@pytest.fixture(scope="module")
def memory(lines):
    return ed.TextMemory(lines, tokenizer=ed.data.Characters(ALPHABET))


def mistyped(rng, text, rate):
    return "".join(rng.choice(list(ALPHABET)) if rng.random() < rate else c for c in text)


def edited(rng, text, edits):
    for _ in range(edits):
        place = rng.integers(len(text))
        text = text[:place] + (text[place + 1 :] if rng.random() < 0.5 else rng.choice(list(ALPHABET)) + text[place:])
    return text


SPOIL = {
    "typos": lambda rng, text: mistyped(rng, text, 0.25),
    "masks": lambda rng, text: "".join("_" if i >= 10 else text[p] for p, i in enumerate(rng.permutation(LENGTH))),
    "fragment": lambda rng, text: text[(p := rng.integers(LENGTH - 14)) : p + 14],
    "edits": lambda rng, text: edited(rng, text, 3),
}


@pytest.mark.parametrize("name", SPOIL)
def test_a_spoilt_line_is_recalled_and_a_strange_one_is_not(name, memory, lines):
    rng = np.random.default_rng(1)
    asked = [memory.recall(SPOIL[name](rng, line), unknown="_") for line in lines[:14]]
    right = np.mean([found.text == line for found, line in zip(asked, lines, strict=False)])
    assert right == 1.0
    assert all(lines[found.index] == found.best for found in asked)
    strange = [memory.recall(SPOIL[name](rng, line), unknown="_") for line in made_up(rng, 14)]
    assert all(found.text is None for found in strange)


log_masses = eqx.filter_jit(lambda lines, b, gap, mask: lines.log_masses(b, gap=gap, mask=mask))
typed = jax.jit(lambda ids, typo, known: ed.flow.Typo(ids, typo, known).field(jnp.eye(len(ALPHABET))))


def exact(memory, cue):
    """`F` and the posterior of a text cue from the energy over all lines, rate by rate, without a sieve."""
    ids = np.pad(memory.tokenizer.encode(cue), (0, LENGTH + 3 - len(cue)))
    mask = jnp.arange(len(ids)) < len(cue)
    terms = []
    for q, typo in enumerate(_recall.TYPOS):
        for g, gap in enumerate(_recall.GAPS):
            prior = _recall.log_prior(len(_recall.TYPOS), len(_recall.GAPS), _recall.CLEAN)[q, g]
            terms.append(prior + log_masses(memory.energy, typed(jnp.asarray(ids), typo, mask), jnp.asarray(gap), mask))
    terms = np.logaddexp.reduce(terms, axis=0)
    total = np.logaddexp.reduce(terms)
    return -total, np.exp(terms - total)


@pytest.mark.parametrize("spoil", ["typos", "fragment"])
def test_the_sieve_loses_nothing_of_the_energy(spoil, memory, lines):
    cue = SPOIL[spoil](np.random.default_rng(2), lines[7])
    free_energy, p = exact(memory, cue)
    found = memory.recall(cue)
    assert len(memory) > _recall.SIEVE
    assert np.isclose(found.free_energy, free_energy, atol=1e-6) and found.index == 7
    assert np.isclose(found.stored, 1 - p[0], atol=1e-6) and np.isclose(found.mass, p[8], atol=1e-6)
    assert np.isclose(found.margin, np.log(p[8] / np.delete(p, 8).max()), atol=1e-2)


def test_lines_outside_of_the_sieve_keep_their_place_in_the_sum(memory):
    """A cue without evidence leaves every line its weight, less the alignments that are not summed."""
    found = memory.recall("____", unknown="_")
    half = (1 + _recall.SIEVE / len(memory)) / 4
    assert np.isclose(found.stored, half / (half + 0.5), atol=0.02) and found.text is None and found.mass < 0.01
    assert np.isclose(memory.recall("____", unknown="_", sieve=len(memory)).stored, 0.5, atol=0.03)


def test_evidence_is_recalled_by_the_same_energy(memory, lines, getkey):
    codes = jnp.eye(len(ALPHABET))
    ids = jnp.asarray(memory.tokenizer.encode(lines[3]))
    noisy = ed.flow.Gaussian(codes[ids] + 0.5 * jax.random.normal(getkey(), (LENGTH, len(ALPHABET))), 0.5)
    both = noisy + ed.flow.Given(ids, jnp.arange(LENGTH) < 2)
    for evidence in (noisy, both):
        found = memory.recall(evidence)
        assert found.text == lines[3] and found.typo is None
        terms = log_masses(memory.energy, evidence.field(codes), None, None)
        assert np.isclose(found.free_energy, -np.logaddexp.reduce(terms), rtol=1e-9)
        assert np.isclose(found.mass, np.exp(terms[4] - np.logaddexp.reduce(terms)), rtol=1e-9)


def test_a_known_rate_is_one_term_of_the_sum(memory, lines):
    found = memory.recall(lines[0][:10], typo=0.2)
    mask = jnp.arange(LENGTH + 3) < 10
    b = typed(jnp.asarray(np.pad(memory.tokenizer.encode(lines[0][:10]), (0, LENGTH - 7))), 0.2, mask)
    (prior,) = _recall.log_prior(1, len(_recall.GAPS), _recall.CLEAN)
    parts = [
        p + log_masses(memory.energy, b, jnp.asarray(gap), mask) for p, gap in zip(prior, _recall.GAPS, strict=True)
    ]
    assert found.typo == 0.2 and np.isclose(found.free_energy, -np.logaddexp.reduce(parts, axis=None), atol=1e-6)


def test_bytes_are_remembered_as_well():
    """A vocabulary whose triples are too many to count, a chain of first order for evidence; texts are characters."""
    names = ["Zoë Müller", "Jürgen Groß", "Łukasz Żak", "José Núñez"]
    memory = ed.TextMemory(names, tokenizer=ed.data.Bytes())
    assert memory.lines == names and memory.energy.background.counts.shape == (256, 256)
    assert memory.recall("Jurgen Groß", clean=0.5).text == names[1]
    assert memory.recall("Łukasz").text == names[2] and memory.recall("Bob Smith").text is None


# ------------------------------------------------------------------------------------ changed while running


def same(one, other):
    return one.tokenizer == other.tokenizer and all(
        a.dtype == b.dtype and np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


@hypothesis.given(st.lists(st.text(ALPHABET, min_size=1, max_size=40), min_size=2, max_size=6), st.data())
@hypothesis.settings(max_examples=15)
def test_adding_and_removing_is_building_anew(texts, data):
    tokenizer = ed.data.Characters(ALPHABET)
    cut = data.draw(st.integers(1, len(texts) - 1))
    before = ed.TextMemory(texts[:cut], tokenizer=tokenizer)
    grown = before.add(texts[cut:])
    assert len(before) == cut and grown.lines == texts
    whole = ed.TextMemory(texts, tokenizer=tokenizer)
    assert same(grown, whole)
    gone = data.draw(st.sampled_from(texts))
    left = [text for text in texts if text != gone]
    hypothesis.assume(left)
    smaller = grown.remove(gone)
    assert smaller.lines == left and np.array_equal(
        smaller.keys.counts, ed.TextMemory(left, tokenizer=tokenizer).keys.counts
    )


def test_one_line_more_is_recalled_and_disturbs_no_other(memory, lines):
    new = "a bad headache faced deaf"
    assert memory.recall(new).text is None
    changed = memory.add(new, weight=2.0)
    assert changed.recall("a bad haedache faced").text == new and len(memory) == len(lines)
    assert all(changed.recall(line[5:20]).best == line for line in lines[:20])
    assert changed.remove(new).recall(new).text is None
    assert same(changed.remove(new), memory)


def test_weights_are_odds():
    memory = ed.TextMemory(["abcabc", "abcab"], weights=[1.0, 3.0]).add("cba", weight=4.0)
    assert np.allclose(np.exp(memory.energy.log_weights), [1 / 2, 1 / 16, 3 / 16, 4 / 16])


def test_nobody_else_changes_a_memory():
    """What it is made of is copied: arrays of numpy share what they hold with whoever is given them."""
    for _ in range(16):  # whether jax takes an array over without a copy depends on where it happens to lie
        weights = np.ones(64, np.float32)
        memory = ed.TextMemory(
            ["".join(f"{n:06b}").replace("0", "a").replace("1", "b") for n in range(64)], weights=weights
        )
        before = np.array(memory.weights)
        weights[:] = 7.0
        assert (np.asarray(memory.weights) == before).all()


def test_a_memory_is_saved_and_loaded_bitwise(memory, lines, tmp_path):
    path = tmp_path / "memory.safetensors"
    ed.save(path, memory)
    again = ed.load(path)
    assert same(again, memory) and again.lines == lines
    assert dataclasses.asdict(again.recall(lines[5][3:17])) == dataclasses.asdict(memory.recall(lines[5][3:17]))
    assert len(again.add("abc").remove("abc")) == len(memory)


# ---------------------------------------------------------------------------------- one line, however often

ASK = ["Where do I park?", "How do I cancel my order?", "Is breakfast included?", "What time is checkout?"]


@pytest.mark.parametrize("copies", [2, 10])
def test_a_line_stored_several_times_is_answered_as_if_once(copies):
    once, often = ed.TextMemory(ASK), ed.TextMemory([ASK[0]] * copies + ASK[1:])
    for cue in ("Where do I park?", "Where do I prk?", "do I park", "is brekfast"):
        one, many = once.recall(cue), often.recall(cue)
        assert one.text is not None
        assert (one.text, one.stored, one.mass, one.free_energy) == (
            many.text,
            many.stored,
            many.mass,
            many.free_energy,
        )
        assert many.places == (tuple(range(copies)) if one.index == 0 else (one.index + copies - 1,))
    assert often.lines.count(ASK[0]) == copies and len(often.remove(ASK[0])) == 3
    given = ed.flow.Given(jnp.asarray(once.tokenizer.encode(ASK[0])))
    assert (
        np.isclose(once.recall(given).free_energy, often.recall(given).free_energy) and often.recall(given).index == 0
    )


@hypothesis.given(st.lists(st.text("ab ", min_size=1, max_size=6), min_size=1, max_size=12), st.data())
@hypothesis.settings(max_examples=15)
def test_a_stored_line_letter_by_letter_is_stored(texts, data):
    """Whatever its neighbours are, and however unlikely it is that it is meant."""
    weights = data.draw(st.lists(st.sampled_from([1e-6, 1.0]), min_size=len(texts), max_size=len(texts)))
    memory = ed.TextMemory(texts, tokenizer=ed.data.Characters("ab "), weights=weights)
    line = data.draw(st.sampled_from(texts))
    found = memory.recall(line, sieve=2)
    assert found.exact and found.text == line and found.stored == found.mass == 1.0
    assert all(texts[n] == line for n in found.places)
    assert not memory.recall("c", sieve=2).exact


def test_capitals_accents_and_vowel_marks_make_no_difference():
    lines = ["How do I reset my password?", "Où est mon café ?", "أين طردي؟", "שלום עולם", "Straße"]
    memory = ed.TextMemory(lines)
    for cue, line in (
        (lines[0].upper(), 0), ("ou est mon CAFE ?", 1), ("أَيْنَ طَرْدِي؟", 2), ("שָׁלוֹם עוֹלָם", 3), ("STRASSE", 4),
        ("how do i rest my PASWORD", 0),
    ):  # fmt: skip
        found = memory.recall(cue)
        assert found.text == lines[line] and found.normalized
    changed = ed.TextMemory(lines, normalize=False)
    found = changed.recall("أَيْنَ طَرْدِي؟")
    assert found.text is None and not found.normalized and changed.recall(lines[0]).exact
    assert not changed.recall(lines[0].upper()).exact


def test_spellings_of_one_line_are_changed_apart_by_the_cue():
    memory = ed.TextMemory(["polish", "Polish", "POLISH"], weights=[1.0, 2.0, 1.0])
    for number, line in enumerate(memory.lines):
        found = memory.recall(line)
        assert found.text == line and found.index == number and found.places == (0, 1, 2)
    assert memory.recall("pOLISH").text == "Polish"  # the one most often meant
    assert memory.remove("Polish").recall("polisch", clean=0.5).best == "polish"


def test_letters_are_no_marks():
    """Japanese voicing, Indic and Thai vowels tell words apart."""
    for one, other in (("はは", "ばば"), ("कि", "की"), ("กุ", "กู")):
        assert ed.TextMemory([one, other]).recall(other).index == 1


def test_a_text_is_compared_as_characters_whatever_the_tokens(unchecked):
    """Characters that are new to the keys, and a vocabulary too large for the pairs of its tokens."""
    lines = ["Zoë", "Jürgen", "Łukasz"]
    grown = ed.TextMemory(lines, tokenizer=ed.data.Bytes()).add(["Жанна", "Zoë"])
    assert grown.recall("Жана", clean=0.5).best == "Жанна" and grown.recall("zoe").places == (0, 4)
    large = ed.data.Characters("".join(map(chr, range(32, 32 + 9000))))
    memory = ed.TextMemory(lines, tokenizer=large)
    assert memory.recall("jurgen").text == "Jürgen"
    with pytest.raises(ValueError, match="`tokenizer` has 9,000 tokens; the counts of their pairs need 0.3 GB"):
        memory.recall(ed.flow.Masked(3))


# ------------------------------------------------------------------------------------------- two voices


def test_a_model_writes_what_it_was_changed():
    """Infilling a stored line with the shipped model, which has never seen it; nothing changes elsewhere."""
    model = ed.load("shakespeare")
    line = "The key is under the third stone."
    memory = ed.TextMemory([line, "No man may pass the northern gate."], tokenizer=model.tokenizer)
    known = jnp.asarray([not 11 <= i < 27 for i in range(len(line))])
    given = ed.flow.Given(model.encode(line), known)
    strange = ed.flow.Given(model.encode("Good morrow to you, sweet cousin."), known)
    posterior = eqx.filter_jit(lambda b: model.posterior(ed.flow.Likelihood(b)))
    read = lambda b: model.decode(posterior(b).argmax(-1))
    changed, without = model.field(given + memory.evidence(given)), model.field(given)
    assert read(changed) == line
    assert sum(a == b for a, b in zip(read(without)[11:27], line[11:27], strict=True)) < 10
    assert np.abs(memory.evidence(strange).b).max() < 0.01


def test_the_voice_of_a_memory_is_bayes(memory, lines):
    """A model that believes what the background believes ends at the posterior of the memory."""
    given = ed.flow.Given(jnp.asarray(memory.tokenizer.encode(lines[0])), jnp.arange(LENGTH) % 4 == 0)
    codes = jnp.eye(len(ALPHABET))
    b = given.field(codes)
    background = jax.jit(lambda b: memory.energy.background.posterior(b))(b)
    together = background * jnp.exp(memory.evidence(given).b)
    assert np.allclose(together / together.sum(-1, keepdims=True), memory.marginals(given), atol=1e-6)
    strange = ed.flow.Given(jnp.asarray(memory.tokenizer.encode(lines[0][::-1])), jnp.arange(LENGTH) % 2 == 0)
    assert np.abs(memory.evidence(strange).b).max() < 0.05


# ------------------------------------------------------------------------------------------------- parts


def test_marks_are_those_of_pieces_of_three(lines):
    tokenizer = ed.data.Characters(ALPHABET)
    columns = columns_of(["abcabc", "hg", "bcd"], tokenizer)
    marks = signatures(columns, tokenizer.size)
    assert np.bitwise_count(marks).sum(axis=0).tolist() == [3, 0, 1]  # abc bca cab (abc again), none, bcd
    assert shared(marks, marks[:, 0]).tolist() == [3, 0, 0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: ed.TextMemory([]), "`lines` is empty"),
        (lambda m: ed.TextMemory("abc"), "one string"),
        (lambda m: ed.TextMemory(["ab", ""]), "number 1 is empty"),
        (lambda m: ed.TextMemory(["ab"], weights=[0.0]), "`weights`"),
        (lambda m: ed.TextMemory(["ab"], weights=[1.0, 2.0]), "`weights` has shape \\(2,\\)"),
        (lambda m: ed.TextMemory(["abz"], tokenizer=ed.data.Characters("ab")), "outside the alphabet"),
        (lambda m: m.add("xyz"), "outside the alphabet"),
        (lambda m: m.add([]), "`lines` is empty"),
        (lambda m: m.add("abc", weight=-1.0), "`weights`"),
        (lambda m: m.remove("abc"), "is not stored"),
        (lambda m: m.remove("xyz"), "is not stored"),
        (lambda m: ed.TextMemory(["ab", "ab"]).remove("ab"), "all this memory holds"),
        (lambda m: m.recall(""), "`cue` is empty"),
        (lambda m: m.recall("a" * 49), "`cue` has 49 tokens, more than twice the longest line"),
        (lambda m: m.recall("a", typo=0.0), "`typo` is 0.0"),
        (lambda m: m.recall("a", threshold=1.0), "`threshold` is 1.0"),
        (lambda m: m.recall("a", unknown="__"), "`unknown`"),
        (lambda m: m.recall("a", sieve=1), "`sieve` is 1"),
        (lambda m: m.recall(ed.flow.Masked(25)), "evidence about 25 tokens"),
        (lambda m: m.recall(ed.flow.Likelihood(jnp.zeros((3, 4)))), "has 4 tokens a row"),
        (lambda m: m.evidence(ed.flow.Masked(25)), "evidence about 25 tokens"),
    ],
)
def test_bad_input_is_named(make, message, memory, unchecked):
    with pytest.raises(ValueError, match=message):
        make(memory)


def test_characters_from_elsewhere_say_nothing(memory, lines):
    """A question mark or an umlaut in a cue is no reason to fail: it is in no line."""
    assert memory.recall(lines[2][:10] + "?Ä" + lines[2][12:]).text == lines[2]
