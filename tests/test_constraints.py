"""Laws of constraints: automata accept what they should, draws under them are exact, wishes act as evidence."""

import dataclasses
import functools
import itertools
import json
import re
import time
from typing import Any

import equinox as eqx
import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energy_dllm as ed


ABC = ed.data.Characters("abc ")
ITEMS = np.array(list(itertools.product(range(3), repeat=4)))
draws = functools.partial(ed.sampling.Unmasking, rounds=4, steps=2)
noise = functools.partial(ed.sampling.Diffusion, steps=3, field=functools.partial(ed.flow.ProbabilityFlow, steps=1))


def strings(most):
    return ("".join(s) for n in range(most + 1) for s in itertools.product("abc ", repeat=n))


# ------------------------------------------------------------------------------------------- automata


@pytest.mark.parametrize(
    "pattern",
    ["a+b", "(ab|c)*", "[ab]{2,3}c?", "a{2}|b{1,}", "[^a]*a[^a]*", ".*ab.*", r"\w+( \w+)*", "(a{2}){1,2}",
     "((a|bc)+ )?c", "", "a{0}b", "a*?b+?c??", "a{,2}b", "[^x-]c?", "(?:ab?){0,2}", r"\S+\s?", "[a-b]*c"],
)  # fmt: skip
def test_an_automaton_accepts_what_the_pattern_matches(pattern):
    made = ed.data.RegexDFA.of(pattern, ABC)
    outside, lengths = ~made, set()
    for text in strings(5):
        matches = re.fullmatch(pattern, text, re.DOTALL) is not None
        assert made(ABC.encode(text)) == matches != outside(ABC.encode(text))
        lengths |= {len(text)} if matches else set()
    assert set(made.lengths(5)) == lengths


@pytest.mark.parametrize(
    "pattern", [r"\w", r"\W", r"\d", r"\D", r"\s", r"\S", ".", "[^a]", r"[\d\s]", "[à-þ]", r"[^\w\s]"]
)
def test_classes_are_those_of_re(pattern):
    """As a character and as bytes of UTF-8."""
    points = [*range(0x700), *range(0x700, 0xD800, 97), *range(0xE000, 0x11000, 31), 0x20AC, 0xFFFD, 0x10FFFF]
    text = "".join(map(chr, points))
    matches = np.array([re.fullmatch(pattern, c, re.DOTALL) is not None for c in text])
    characters, made = ed.data.Characters(text), ed.data.RegexDFA.of(pattern, ed.data.Bytes())
    one = ed.data.RegexDFA.of(pattern, characters)
    assert np.array_equal(np.append(one.accept, False)[one.next[0]], matches)
    assert np.array_equal([made(ed.data.Bytes().encode(c)) for c in text], matches)


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        ("café.*", ["café", "cafe", "café noir", "cafès"]),
        (".{4}", ["café", "caf", "日本語だ", "🙂🙂🙂🙂", "🙂🙂🙂"]),
        (r"(\w+ )*\w+", ["où est l été", "où  est", "日本 語"]),
        (r"[а-я]+\s?\d{1,2}", ["май 9", "май ٣", "май 999", "may 9"]),
        (r"\u00e9|\x41|\U0001F642|[\t\x20]", ["é", "A", "🙂", "\t", " ", "e"]),
    ],
)  # fmt: skip
def test_a_pattern_over_bytes_is_about_the_text(pattern, texts):
    made = ed.data.RegexDFA.of(pattern, ed.data.Bytes())
    for text in texts:
        ids = ed.data.Bytes().encode(text)
        assert made(ids) == (re.fullmatch(pattern, text, re.DOTALL) is not None)
        assert not made(ids[:-1]) or ids[-1] < 128
    matching = ed.flow.Matching(pattern, ed.data.Bytes(), length=len(ed.data.Bytes().encode(texts[0])))
    assert matching.automaton(ed.data.Bytes().encode(texts[0]))


@dataclasses.dataclass(frozen=True)
class Pieces(ed.data.AbstractTokenizer):
    """Tokens of one character or several."""

    pieces: tuple[str, ...] = ("a", "b", "ab", "aba", " ", "b a")

    @property
    def size(self) -> int:
        return len(self.pieces)

    @property
    def symbols(self) -> tuple[str, ...]:
        return self.pieces

    def encode(self, text: str):
        return np.array([self.pieces.index(c) for c in text], np.int32)

    def decode(self, ids) -> str:
        return "".join(self.pieces[n] for n in ids)


@pytest.mark.parametrize("pattern", ["(ab)+", r"\w+ \w+", "[^b]*b?", "a.*a"])
def test_a_pattern_is_about_the_text_whatever_the_tokens(pattern):
    made, avoid = ed.data.RegexDFA.of(pattern, Pieces()), ed.data.RegexDFA.without(["bab"], Pieces())
    for ids in (np.array(s) for n in range(1, 4) for s in itertools.product(range(6), repeat=n)):
        text = Pieces().decode(ids)
        assert made(ids) == (re.fullmatch(pattern, text) is not None) and avoid(ids) == ("bab" not in text)


PAIRS = ["Ġ t", "h e", "Ġt he", "o n", "Ã ©", "n Ã©", "n n"]


def test_a_pattern_over_byte_pairs_is_about_the_text():
    """Every string of three tokens, by its text; draws under a pattern, by their enumerated law."""
    pairs = ed.data.BytePairs(_pairs(PAIRS))
    few = [n for n, token in enumerate(pairs.spelling) if len(token) > 1 or token in (b"t", b" ", "é".encode()[:1])]
    few += [n for n, token in enumerate(pairs.spelling) if token in (b"n", b"e", "é".encode()[1:])]
    assert pairs.size == 263 and len(few) == 13
    items = np.array(list(itertools.product(few, repeat=3)))
    texts = ["".join(text) for text in map(pairs.decode, items)]
    whole = np.array(["\N{REPLACEMENT CHARACTER}" not in text for text in texts])  # no piece of a character is a text
    avoid = ed.data.RegexDFA.without(["né", "nt"], pairs)
    for pattern in (r" the(n|on)*", r"\w+ the\w*", "[^é]*né?", ".*é.*"):
        made = ed.data.RegexDFA.of(pattern, pairs)
        matches = np.array([re.fullmatch(pattern, text, re.DOTALL) is not None for text in texts]) & whole
        assert 0 < matches.sum() < len(texts)
        assert np.array_equal([made(ids) for ids in items], matches)
    without = np.array([not any(word in text for word in ("né", "nt")) for text in texts])
    assert np.array_equal(np.array([avoid(ids) for ids in items])[whole], without[whole])
    b = np.full((3, pairs.size), -1e4)
    b[:, few] = np.random.default_rng(0).normal(size=(3, len(few)))
    dfa = ed.energy.DFA.of(ed.data.RegexDFA.of(".*é.*", pairs))
    weight = np.exp(b[range(3), items].sum(1)) * [whole[n] and "é" in text for n, text in enumerate(texts)]
    marginal = np.stack([np.bincount(items[:, n], weight, pairs.size) for n in range(3)]) / weight.sum()
    assert np.allclose(-dfa(jnp.asarray(b)), np.log(weight.sum()), atol=1e-5)
    assert np.allclose(dfa.posterior(jnp.asarray(b)), marginal, atol=1e-5)


def _pairs(merges):
    """The content of a tokenizer.json with these merges."""
    itself = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = (n for n in range(256) if n not in itself)
    alphabet = [*map(chr, itself), *(chr(256 + k) for k, _ in enumerate(others))]
    tokens = [*alphabet, *(pair.replace(" ", "") for pair in merges)]
    model = {"type": "BPE", "vocab": {token: n for n, token in enumerate(tokens)}, "merges": merges}
    return json.dumps({"pre_tokenizer": {"type": "ByteLevel", "use_regex": True}, "model": model})


def test_patterns_without_limits_are_refused_at_once():
    """By a limit and a sentence, not after seconds; and what is long but simple is made at once."""
    start = time.process_time()
    letters = ed.data.Characters("".join(map(chr, range(32, 97))))
    for pattern, words in {
        "(" * 500 + "A" + ")" * 500: "groups within more than 50 groups",
        "(((A{30}){30}){30}){30}": "too large, more than 20,000 states",
        "(" * 40 + "A" + "){2}" * 40: "too large, more than 20,000 states",
        "A{1000000000}": "a count of more than 20,000",
        "(A?){2000}": "takes too long to prepare",
        ".{5000}": "more than 4,096 states",
    }.items():
        with pytest.raises(ValueError, match=re.escape(words)):
            ed.data.RegexDFA.of(pattern, letters)
    made = ed.data.RegexDFA.of("(A|.{999}).", letters)
    assert len(made.accept) == 1003 and made.lengths(1200) == [2, 1000]
    assert time.process_time() - start < 8  # it was 9 seconds for the last of them alone


def test_automata_are_joined():
    both = ed.data.RegexDFA.without(["ab", "ca"], ABC) & ed.data.RegexDFA.of(".*bb.*", ABC)
    for text in strings(5):
        assert both(ABC.encode(text)) == ("bb" in text and "ab" not in text and "ca" not in text)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("a(", "not closed"),
        ("a)", "never opened"),
        ("[]", "']', which is not in the alphabet"),
        ("[x-z]", "a set without any symbol"),
        ("xa", "'x', which is not in the alphabet"),
        ("*a", "nothing to repeat"),
        ("a{3,2}", "runs backwards"),
        ("a{x}", "malformed count"),
        ("a**", "repetition of a repetition"),
        ("^a", "anchor"),
        ("(?=a)", "a lookahead .* of a kind that is not known"),
        ("(?<!a)b", "a negative lookbehind"),
        ("(?P<name>a)", "a named group"),
        ("(?i)a", "the flags \\(\\?i\\)"),
        ("(?i:a)", "the flags \\(\\?i:"),
        (r"a\b", r"the word boundary \\b"),
        (r"(a)\1", r"the reference to a group \\1"),
        (r"\p", r"the property of characters \\p"),
        ("a++", "a possessive repetition"),
        ("[c-a]", "a range from 'c' to 'a', which runs backwards"),
        (r"[\w-a]", "a range that begins with a class"),
        (r"[a-\w]", "a range that ends with a class"),
        (r"\x4", "no code of a character"),
        (r"\q", "escape"),
        ("a\\", "backslash"),
        ("(a|b)*a(a|b){14}", "more than 4,096 states"),
    ],
)
def test_a_malformed_pattern_is_named(pattern, words):
    with pytest.raises(ValueError, match=words):
        ed.data.RegexDFA.of(pattern, ABC)


@pytest.fixture(scope="module")
def dfa():
    return ed.energy.DFA.of(ed.data.RegexDFA.of("[ab]*c?[ab]*", ed.data.Characters("abc")))


@pytest.mark.parametrize("onward", [(1.0, 1.0), (0.02, 0.5)], ids=["all of it", "the beginning"])
@pytest.mark.parametrize("here", [None, [True, False, True, False]], ids=["all places", "two places"])
def test_a_language_is_the_sum_over_its_strings(dfa, here, onward, getkey):
    """Each weighted, where it is the beginning of a passage, by how likely its rest is accepted; at some places alone,
    any token stands at the others."""
    dfa = dfa.begins(np.log(onward))
    dfa = dfa if here is None else dfa.within(jnp.array(here))
    b = 3.0 * jax.random.normal(getkey(), (4, 3))
    read = ITEMS if here is None else ITEMS[:, here]
    accepted = (read == 2).sum(1) <= 1
    weight = np.where(accepted, np.exp(np.asarray(b)[np.arange(4), ITEMS].sum(1)), 0.0)
    weight = weight * np.where((read == 2).any(1), onward[1], onward[0])
    assert np.allclose(dfa(b), -np.log(weight.sum()), atol=1e-12)
    exact = np.array([[weight[ITEMS[:, i] == w].sum() for w in range(3)] for i in range(4)]) / weight.sum()
    assert np.allclose(dfa.posterior(b), exact, atol=1e-12)
    assert np.allclose(jax.nn.softmax(b + dfa.cavity(b), axis=-1), exact, atol=1e-12)
    others = [[weight[ITEMS[:, i] == w].sum() for w in range(3)] for i in range(4)] / np.exp(b)
    assert np.allclose(dfa.cavity(b), np.log(others), atol=1e-12)
    assert (dfa.best(b) == ITEMS[weight.argmax()]).all()
    assert (jax.jit(jax.vmap(dfa.accepts))(ITEMS) == accepted).all()
    drawn = jax.jit(jax.vmap(lambda key: dfa.sample(b, key=key)))(jax.random.split(getkey(), 20000))
    families.likely(np.asarray(drawn), weight / weight.sum())


def test_an_automaton_of_a_part_names_what_does_not_fit(dfa):
    with pytest.raises(ValueError, match="`ends` has 9 states; expected at most 8"):
        dfa.begins(np.zeros(9))
    with pytest.raises(ValueError, match="`b` is about 4 tokens"):
        dfa.within(jnp.ones(3, bool))(jnp.zeros((4, 3)))


def test_a_language_knows_what_can_still_follow(dfa):
    open = jnp.ones((4, 3), bool).at[1].set(jnp.array([False, False, True]))  # the one c there may be
    assert (dfa.support(open) == jnp.array([[1, 1, 0], [0, 0, 1], [1, 1, 0], [1, 1, 0]], bool)).all()
    assert not dfa.support(two := open.at[3].set(jnp.array([False, False, True]))).any()
    assert (dfa.within(jnp.array([True, True, True, False])).support(two) == two.at[::2, 2].set([False, False])).all()
    # a token that no accepted string has, and states that the evidence makes e^-900 times less likely than others
    b = jnp.zeros((4, 3)).at[1].set(jnp.array([-900.0, -900.0, 0.0])).at[3].set(jnp.array([-900.0, -900.0, 0.0]))
    p = jax.nn.softmax(b + dfa.cavity(b), axis=-1)
    assert np.allclose(p[1::2], [0.25, 0.25, 0.5], atol=1e-12) and np.allclose(p[0], [0.5, 0.5, 0.0], atol=1e-12)


# ------------------------------------------------------------------------------------------- exact laws


@pytest.fixture(scope="module")
def law():
    """81 strings of four tokens, none independent of the others."""
    weights = np.random.default_rng(0).gamma(0.7, size=81) + 0.02
    return weights / weights.sum()


@pytest.fixture(scope="module")
def write(law):
    # a product, of one: it knows the posterior of every token and not how they belong together
    energy = 1.0 * ed.energy.Empirical(ITEMS, size=3, weights=jnp.asarray(law))
    model = ed.EnergyDLLM(ed.data.Characters("abc"), energy=energy, steps=1, key=jax.random.key(0))
    path = ed.sampling.Unmasking(rounds=4, steps=1)
    return functools.partial(ed.infill, model, samples=20000, sampler=path, frames=1)


def test_unmasking_in_any_order_has_the_exact_law(write, law):
    made = write("[4]")
    families.likely(made.ids, law)
    # with the exact posterior the free energy is the price of the text, to the nat
    assert np.allclose(
        made.free_energy[:8, -1] - made.free_energy[:8, 0], -np.log(law[made.ids[:8] @ 3 ** np.arange(3, -1, -1)])
    )


def test_infilling_has_the_exact_conditional(write, law):
    given = np.where((ITEMS[:, 0] == 0) & (ITEMS[:, 3] == 1), law, 0.0)
    families.likely(write("a[2]b").ids, given / given.sum())


@pytest.mark.parametrize(("rounds", "order"), [(1, ed.sampling.at_random), (4, ed.sampling.most_certain)])
def test_tokens_drawn_at_once_or_kept_for_what_they_are_have_another_law(rounds, order, write, law):
    """That the two tests above can fail."""
    with pytest.raises(AssertionError):
        families.likely(write("[4]", sampler=ed.sampling.Unmasking(rounds=rounds, steps=1, order=order)).ids, law)


def test_a_data_set_is_drawn_whole(law):
    energy = ed.energy.Empirical(ITEMS, size=3, weights=jnp.asarray(law))
    model = ed.EnergyDLLM(ed.data.Characters("abc"), energy=energy, steps=1, key=jax.random.key(0))
    path = ed.sampling.Unmasking(rounds=1, steps=1)
    families.likely(ed.infill(model, "[4]", samples=20000, sampler=path, frames=1).ids, law)


def test_a_data_set_under_a_constraint_is_drawn_from_its_restricted_law(law):
    """In one draw, and behind what is given; where nothing that is accepted is in the data, tokens make it up."""
    tokenizer, path = ed.data.Characters("abc"), ed.sampling.Unmasking(rounds=1, steps=1)

    def write(template, pattern, items=ITEMS, weights=law, samples=20000):
        energy = ed.energy.Empirical(items, size=3, weights=jnp.asarray(weights))
        model = ed.EnergyDLLM(tokenizer, energy=energy, steps=1, key=jax.random.key(0))
        matching = ed.flow.Matching(pattern, tokenizer, length=4)
        return ed.infill(model, template, samples=samples, sampler=path, evidence=matching, frames=1)

    restricted = np.where((ITEMS == 2).sum(1) <= 1, law, 0.0)
    families.likely(write("[4]", "[ab]*c?[ab]*").ids, restricted / restricted.sum())
    given = np.where(ITEMS[:, 0] == 1, restricted, 0.0)
    families.likely(write("b[3]", "[ab]*c?[ab]*").ids, given / given.sum())
    apart = write("[4]", "abab|baba|caca", np.array([[0, 0, 1, 1], [1, 1, 0, 0]]), np.ones(2), samples=64)
    assert set(apart.texts) == {"abab", "baba"}


def test_a_regular_expression_restricts_the_law(write, law):
    """At every moment it is matched; corrections that forget at random lead to the exact restricted law."""
    matching = ed.flow.Matching("[ab]*c?[ab]*", ed.data.Characters("abc"), length=4)
    path = ed.sampling.Unmasking(
        rounds=4, steps=1, remask_rounds=16, remask_fraction=1e-6, remask_order=ed.sampling.at_random
    )
    restricted = np.where((ITEMS == 2).sum(1) <= 1, law, 0.0)
    families.likely(write("[4]", sampler=path, evidence=matching).ids, restricted / restricted.sum())


def independent(prior):
    """An energy without a network."""
    vocabulary = ed.energy.MeanFieldVocabulary(len(prior), 2, key=jax.random.key(0))
    network = ed.energy.Network(ed.energy.Silent(), {}, jnp.zeros(2))
    return ed.energy.FreeEnergy(network, eqx.tree_at(lambda v: v.prior, vocabulary, prior), kappa=1.0)


@pytest.mark.parametrize("what", ["a data set", "tokens that are independent"])
@pytest.mark.parametrize("until", [1.0, 0.5])
def test_a_flow_under_a_pattern_has_the_restricted_law(what, until, law):
    """The pattern is part of the energy on which it moves."""
    tokenizer = ed.data.Characters("abc")
    energy = ed.energy.Empirical(ITEMS, size=3, weights=jnp.asarray(law))
    if what != "a data set":
        energy, law = independent(prior := jnp.log(jnp.array([0.2, 0.3, 0.5]))), np.exp(np.asarray(prior)[ITEMS].sum(1))
    model = ed.EnergyDLLM(tokenizer, energy=energy, steps=1, key=jax.random.key(0))
    path = ed.sampling.Diffusion(
        steps=64, until=until, schedule=ed.flow.LogLinear(sigma_max=6.0, sigma_min=0.05), field=ed.flow.ProbabilityFlow
    )
    matching = ed.flow.Matching("[ab]*c?[ab]*", tokenizer, length=4)
    made = ed.infill(model, "[4]", samples=8000, sampler=path, evidence=matching, frames=1)
    restricted = np.where((ITEMS == 2).sum(1) <= 1, law, 0.0)
    families.likely(made.ids, restricted / restricted.sum())


def test_away_from_another_law(law):
    """`1.5 A - 0.5 B`: corrections that forget at random lead to `A^1.5 / B^0.5`, whose price `F` is, to the nat."""
    other = np.roll(law, 7) + 0.01
    other /= other.sum()
    one, two = (ed.energy.Empirical(ITEMS, size=3, weights=jnp.asarray(each)) for each in (law, other))
    model = ed.EnergyDLLM(ed.data.Characters("abc"), energy=1.5 * one - 0.5 * two, steps=1, key=jax.random.key(0))
    sharp = law**1.5 / other**0.5
    path = ed.sampling.Unmasking(
        rounds=4, steps=1, remask_rounds=12, remask_fraction=1e-6, remask_order=ed.sampling.at_random
    )
    made = ed.infill(model, "[4]", samples=20000, sampler=path, frames=1)
    families.likely(made.ids, sharp / sharp.sum())
    free_energy = made.free_energy[:8, -1] + np.log(sharp[made.ids[:8] @ 3 ** np.arange(3, -1, -1)])
    assert np.allclose(free_energy, free_energy[0], atol=1e-9)


# ------------------------------------------------------------------------------------------- a landscape with neurons


@pytest.fixture(scope="module")
def model():
    return families.small_model("abc ")


WORDS = "[abc]{1,3}( [abc]{2,3})*"


@pytest.mark.parametrize("path", [draws(temperature=3.0), noise(), noise(until=0.5)], ids=["draws", "noise", "both"])
def test_constraints_hold_in_every_sample(model, path):
    wanted = ed.flow.Matching(WORDS, ABC, length=12) + ed.flow.Matching.without(["aa", "bb"], ABC, length=12)
    sets = jnp.ones((12, 4), bool).at[4, 0].set(False)
    made = ed.generate(model, length=12, samples=20, sampler=path, prompt="c", evidence=wanted + ed.flow.Allowed(sets))
    for text in made.texts:
        assert re.fullmatch(WORDS, text) and "aa" not in text and "bb" not in text
        assert text[0] == "c" and text[4] != "a"
    assert len(set(made.texts)) > 10


@pytest.mark.parametrize("pattern", [".*aa.*", "b?(.*cb.*)", "[^c]*c[^c]*"])
@pytest.mark.parametrize("given", ["", "b..."])
def test_a_pattern_across_windows_has_the_restricted_law(pattern, given):
    """Of independent tokens: what a window leaves to the next ones is as likely as they are to have it."""
    tokenizer, prior = ed.data.Characters("abc"), np.log([0.2, 0.3, 0.5])
    model = ed.EnergyDLLM(tokenizer, energy=independent(jnp.asarray(prior)), steps=1, key=jax.random.key(0))
    texts = ["".join("abc"[w] for w in row) for row in ITEMS]
    fits = np.array([bool(re.fullmatch(pattern, text) and re.fullmatch(given or ".*", text)) for text in texts])
    weight = np.where(fits, np.exp(prior[ITEMS].sum(1)), 0.0)
    asked: Any = dict(length=4, prompt=given[:1], window=2, samples=4000, frames=0)
    evidence = ed.flow.Matching(pattern, tokenizer, length=4)
    made = ed.generate(model, **asked, sampler=draws(rounds=2, steps=1), evidence=evidence)
    families.likely(made.ids, weight / weight.sum())


def test_constraints_hold_across_blocks(model):
    matching = ed.flow.Matching(WORDS + " ccc", ABC, length=30)
    made = ed.generate(model, length=30, samples=20, window=8, sampler=draws(), evidence=matching, frames=1)
    assert all(re.fullmatch(WORDS + " ccc", text) for text in made.texts)


@pytest.mark.parametrize("hole", [0, 12, 26])
def test_evidence_holds_where_one_window_of_several_has_a_hole(model, hole):
    """What follows the window is part of the pattern, and evidence about it none of the window's."""
    text = "abbc" * 8
    template = f"{text[:hole]}[4]{text[hole + 4 : 30]}"
    known = ed.flow.Likelihood(jnp.zeros((30, 4)).at[hole + 1, 2].set(60.0))
    matching = ed.flow.Matching(f".{{{hole}}}a.b[a-c].*", ABC, length=30)
    made = ed.infill(model, template, samples=20, window=8, sampler=draws(), evidence=matching + known, frames=1)
    after = re.escape(text[hole + 4 : 30])
    assert all(re.fullmatch(f"{text[:hole]}acb[abc]{after}", each) for each in made.texts)
    assert len(set(made.texts)) == 3


def test_repair_obeys(model):
    fixed = ed.repair(model, "abaab", rate=0.01, evidence=ed.flow.Matching.without(["aa"], ABC, length=5))
    assert "aa" not in fixed.text and len(fixed.edits) == 1 and fixed.text != "abaab"


def test_what_is_repaired_is_as_certain_as_the_pattern_makes_it():
    """Marginals over all strings that match, `P(typed | w) P(w)` each; and `F` falls by what the evidence tells."""
    prior, rate = jnp.log(jnp.array([0.2, 0.3, 0.5])), 0.3
    model = ed.EnergyDLLM(ed.data.Characters("abc"), energy=independent(prior), steps=1, key=jax.random.key(0))
    matching = ed.flow.Matching("[ab]*c?[ab]*", ed.data.Characters("abc"), length=4)
    fixed = ed.repair(model, "cacc", rate=rate, evidence=matching)
    seen = np.where(ITEMS == np.array([2, 0, 2, 2]), 1 - rate + rate / 3, rate / 3).prod(1)
    weight = np.where((ITEMS == 2).sum(1) <= 1, seen * np.exp(np.asarray(prior)[ITEMS].sum(1)), 0.0)
    assert (fixed.ids == ITEMS[weight.argmax()]).all()
    exact = [weight[ITEMS[:, i] == w].sum() / weight.sum() for i, w in enumerate(fixed.ids)]
    np.testing.assert_allclose(fixed.confidence, exact, atol=1e-5)
    np.testing.assert_allclose(fixed.free_energy[-1], -np.log(weight.sum()), atol=1e-4)


def test_a_linear_wish_is_evidence(model, getkey):
    """And it is the only kind of which the mean field is exact: `F' = F(y, b - pull)`, whatever the strength."""
    pull = jax.random.normal(getkey(), (6, 4))
    y, b = jax.random.normal(getkey(), (6, 16)), jax.random.normal(getkey(), (6, 4))
    guidance = 2.0 * ed.energy.Guidance(lambda p: jnp.sum(p * pull), name="pull") + ed.energy.Guidance(
        lambda p: 0.0 * p.sum()
    )
    steered = guidance.on(model.energy)
    everything = lambda energy, b: (energy(y, b), energy.force(y, b), energy.posterior(y, b))
    found, exact = jax.jit(lambda: (everything(steered, b), everything(model.energy, b - 2 * pull)))()
    assert all(np.allclose(one, two, atol=1e-12) for one, two in zip(found, exact, strict=True))
    assert guidance.name == "pull + guidance"


@pytest.mark.parametrize("function", [lambda p: 3.0 * (jnp.sum(p[:, 0]) - 3.0) ** 2, lambda p: jnp.tanh(p @ p.T).sum()])
def test_a_wish_that_is_no_evidence_descends_too(function, model, getkey):
    """The posterior is tilted by the slope that it has itself, its derivative is right, and `F` never rises."""
    energy = ed.energy.Guidance(function).on(model.energy)
    y, b, db = (jax.random.normal(getkey(), shape) for shape in ((6, 16), (6, 4), (6, 4)))
    posterior = lambda b: energy.posterior(y, jnp.asarray(b))
    p, dp = jax.jit(lambda b: jax.jvp(posterior, (b,), (db,)))(b)
    assert np.allclose(p, model.energy.posterior(y, b - jax.grad(function)(p)), atol=1e-8)
    assert np.allclose(dp, families.finite_difference(posterior, b, db), atol=1e-7)
    times, probes = jnp.linspace(0.0, 3.0, 60), {"F": lambda time, y, field: energy(y, b)}
    path = ed.solve(
        ed.flow.Relaxation(energy, ed.flow.Likelihood(b)), 3 * y, t0=0.0, t1=3.0, times=times, probes=probes
    )
    assert (np.diff(path.probes["F"]) <= 1e-9).all()


def test_a_wish_about_a_data_set_has_the_slope_of_its_posterior(getkey):
    """`dF/db = -p`, by the derivative of the root; and a count is met by the posterior, not beyond it."""
    base = ed.energy.Empirical(ITEMS, weights=jnp.exp(jax.random.normal(getkey(), (81,))))
    guidance = ed.energy.Guidance(lambda p: 20.0 * (jnp.sum(p[:, 0]) - 3.0) ** 2)
    energy = guidance.on(base)
    y, b = base.neutral(4), jax.random.normal(getkey(), (4, 3))
    p = energy.posterior(y, b)
    assert np.allclose(jax.grad(energy, 1)(y, b), -p, atol=1e-8) and abs(p[:, 0].sum() - 3.0) < 0.1
    assert energy(y, b) < base(y, b) + guidance(base.posterior(y, b))


@pytest.mark.parametrize("names", [("guidance", "guidance"), ("neurons", "vocabulary"), ("a", "a 2")])
def test_no_term_is_lost_by_its_name(names, model, getkey):
    y, b = jax.random.normal(getkey(), (6, 16)), jax.random.normal(getkey(), (6, 4))
    energy = model.energy
    for n, name in enumerate((*names, *names)):
        energy = ed.energy.Guidance(lambda p, n=n: jnp.sum(p[:, n]) ** 2, name=name).on(energy)
    terms, before = energy.terms(y, b), model.energy.terms(y, b)
    assert len(terms) == len(before) + 4 and set(before) < set(terms)
    assert np.allclose(sum(jnp.sum(term) for term in terms.values()), energy(y, b), atol=1e-10)


def test_a_weight_may_stand_behind(model):
    guidance = ed.energy.Guidance(lambda p: jnp.sum(p[:, 0]), weight=3.0)
    assert (guidance * 2.0).weight == (2.0 * guidance).weight == 6.0
    assert (model.energy * 1.5).weights.tolist() == [1.5] and (-model.energy).weights.tolist() == [-1.0]


def test_a_product_is_made_where_it_is_traced(model, getkey):
    y, b = jax.random.normal(getkey(), (6, 32)), jax.random.normal(getkey(), (6, 4))
    free_energy = lambda energy, y: (1.5 * energy - 0.5 * energy)(y, b)
    right = free_energy(model.energy, y)
    assert np.allclose(jax.jit(lambda y: free_energy(model.energy, y))(y), right)
    assert np.allclose(eqx.filter_jit(free_energy)(model.energy, y), right)


def test_a_product_is_a_landscape(model, getkey):
    """Weights of one landscape add up to it, evidence counts once, and all neurons descend."""
    other = families.small_model("abc ").energy
    one = eqx.tree_at(lambda e: e.vocabulary.patterns, other, 2.0 * other.vocabulary.patterns)
    b = jax.random.normal(getkey(), (6, 4))
    y = jax.random.normal(getkey(), (6, 16))
    twice = jnp.concatenate([y, y], axis=-1)
    whole = 1.5 * one - 0.5 * one
    assert np.allclose(whole(twice, b), one(y, b)) and np.allclose(whole.logits(twice, b), one.logits(y, b))
    sharp = 2.0 * (1.5 * one - 0.5 * other)
    assert sharp.weights.tolist() == [3.0, -1.0] and sharp.dim == 32
    force = sharp.force(twice, b)
    assert np.allclose(force[:, :16], one.kappa * one.force(y, b)) and np.allclose(
        force[:, 16:], other.kappa * other.force(y, b)
    )
    assert np.allclose(sum(sharp.forces(twice, b).values()), force, atol=1e-12)
    assert np.allclose(sum(term.sum() for term in sharp.terms(twice, b).values()), sharp(twice, b))
    alone = 0.0 * one
    assert np.allclose(alone.posterior(y, b), jax.nn.softmax(b), atol=1e-12)
    assert np.allclose(alone(y, b), 6 * np.log(4) - jax.nn.logsumexp(b, axis=-1).sum())
    with pytest.raises(ValueError, match="`weights` has 1 numbers for 2 `landscapes`"):
        ed.energy.ProductOfExperts([one, other], [1.0])
    with pytest.raises(ValueError, match="differ in their token codes"):
        _ = one + families.small_model("ab").energy


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_product_of_data_sets_keeps_what_is_given(dtype):
    """What the evidence rules out has no prior above that of others, however small the numbers are."""
    items = np.array([[0, 1, 2], [1, 1, 0], [2, 0, 0], [0, 1, 0]])
    one, two = (ed.energy.Empirical(rows, codes=jnp.eye(4, dtype=dtype)) for rows in (items, items[1:]))
    b = ed.flow.Given(jnp.array([0, 1, 3]), jnp.array([True, True, False])).field(one.vocabulary.codes)
    for product in (2.0 * one, one + two, 1.5 * one - 0.5 * two, 0.5 * one, 2.0 * one - 3.0 * two):
        p = product.posterior(product.neutral(3), b)
        assert np.allclose([p[0, 0], p[1, 1]], 1.0, atol=1e-6)
    assert np.allclose((one + one).posterior(one.neutral(3), b)[2], [0.5, 0.0, 0.5, 0.0], atol=1e-6)


def test_a_wish_is_granted_by_its_strength(model):
    """A quadratic one: so many letters of one kind."""
    share = lambda text: text.count("a") / len(text)
    guidance = ed.energy.Guidance(lambda p: (jnp.sum(p[:, 0]) - 9.0) ** 2, name="nine")
    found = []
    for strength in (0.0, 3.0):
        made = ed.generate(model, length=12, samples=20, sampler=draws(), guidance=strength * guidance)
        found.append(np.mean([share(text) for text in made.texts]))
    assert abs(found[0] - 0.25) < 0.15 and abs(found[1] - 0.75) < 0.15 and "nine" in made.terms


# ------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pattern": "a{3}"}, "matches nothing of 12 tokens; it can have 3"),
        ({"pattern": "a{99}"}, "needs more than twice as many"),
        ({"pattern": "a.*", "prompt": "b"}, "'a.*' cannot be matched with what is given"),
        ({"pattern": "a.*", "other": "b.*"}, "'a.*' and `pattern` 'b.*' contradict each other"),
        ({"pattern": "a{12}|b{9}", "other": "b{12}|b{9}"}, "'b{12}|b{9}' matches nothing of 12 tokens; it can have 9"),
        ({"pattern": "a{5,}", "other": "(a{5})*"}, "'(a{5})*' matches nothing of 12 tokens; it can have 5, 10, 15"),
        ({"allowed": [0, 1], "prompt": "c"}, "the given text and Allowed contradict each other at token 0"),
        ({"allowed": [0, 1], "length": 11}, "is about 12 tokens; the passage has 11"),
        ({"pattern": ".*", "length": 11}, "is about 12 tokens; the passage has 11"),
    ],
)
def test_contradictions_are_named(model, options, words):
    options = {"length": 12, **options}
    with pytest.raises(ValueError, match=re.escape(words)):
        patterns = [options.pop(name) for name in ("pattern", "other") if name in options]
        sources: list[ed.flow.AbstractEvidence] = [ed.flow.Matching(p, ABC, length=12) for p in patterns]
        if "allowed" in options:
            sets = jnp.zeros((12, 4), bool).at[:, jnp.array(options.pop("allowed"))].set(True)
            sources.append(ed.flow.Allowed(sets))
        ed.generate(model, sampler=draws(), evidence=functools.reduce(lambda one, two: one + two, sources), **options)


def test_words_to_avoid_are_words():
    for words in ([], [""], "abc"):
        with pytest.raises(ValueError, match="`words` is"):
            ed.data.RegexDFA.without(words, ABC)
    with pytest.raises(ValueError, match="matches nothing of 3 tokens; it can have 0"):
        ed.flow.Matching.without(["a", "b", "c", " "], ABC, length=3)
