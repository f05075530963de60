"""Laws of the texts: nothing is lost, nothing leaks between parts, and the grammar's entropies are exact."""

import dataclasses
import itertools
import json
import math
import pathlib
import subprocess
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import energy_dllm.data as data


# Two words that share a beginning, a slot that remembers: small enough to enumerate, not trivially Markov.
TINY = {
    "first": [("ab ", 1.0, "second"), ("aa", 3.0, "first")],
    "second": [("b", 1.0, "first"), ("a ", 1.0, "second")],
}


@pytest.fixture(scope="module")
def english():
    return data.Grammar()


@pytest.fixture(scope="module")
def stream(english):
    return english.sample(200_000, seed=1)


@pytest.fixture(scope="module")
def optax_docs():
    return data.docs_corpus(packages=("optax",), standard_library=False, limit=None)


# Tokenizers


def test_counting_a_big_text_takes_no_more_than_the_text(tmp_path):
    (tmp_path / "text.txt").write_text("abc" * 3_000_000)
    corpus = data.read_text(tmp_path / "text.txt", validation=0.0)
    tracemalloc.start()
    assert corpus.counts().tolist() == [3_000_000] * 3
    assert tracemalloc.get_traced_memory()[1] < 9_000_000 * 2  # as whole numbers it is 72 MB
    tracemalloc.stop()


@given(st.text())
def test_bytes_roundtrip(text):
    ids = data.Bytes().encode(text)
    assert ids.dtype == np.int32 and data.Bytes().decode(ids) == text


@given(st.text(min_size=1), st.randoms())
def test_characters_roundtrip(text, random):
    tokenizer = data.Characters.from_text(text)
    shuffled = data.Characters("".join(random.sample(tokenizer.alphabet, tokenizer.size)))
    for t in (tokenizer, shuffled):
        ids = t.encode(text)
        assert ids.dtype == np.int32 and t.decode(ids) == text
        assert all(t.alphabet[i] == c for i, c in zip(ids, text, strict=True))


@given(st.lists(st.integers(0, 255)))
def test_any_bytes_decode(ids):
    assert data.Bytes().decode(np.array(ids, np.int64)) == bytes(ids).decode("utf-8", errors="replace")


@pytest.mark.parametrize("tokenizer", [data.Bytes(), data.Characters("\n aé"), data.Characters("ba")])
def test_tokenizers_are_values(tokenizer):
    again = type(tokenizer)(**json.loads(json.dumps(dataclasses.asdict(tokenizer))))
    assert again == tokenizer and hash(again) == hash(tokenizer)
    assert len(tokenizer.symbols) == tokenizer.size == len(set(tokenizer.symbols))
    assert all(symbol.isprintable() and symbol.strip() for symbol in tokenizer.symbols)
    assert len({data.Bytes(), data.Characters("ab"), data.Characters("ba")}) == 3


def test_tokenizer_errors(unchecked):
    with pytest.raises(ValueError, match=r"alphabet of 2 \('x' at 1, 'ß' at 3, '😀' at 4\).*Bytes\(\)"):
        data.Characters("ab").encode("axaß😀x")
    with pytest.raises(ValueError, match="7 characters outside") as caught:
        data.Characters("ab").encode("cdefghi")
    assert "'g' at 4" in str(caught.value) and "'h'" not in str(caught.value)
    with pytest.raises(ValueError, match="alphabet` is empty"):
        data.Characters("")
    with pytest.raises(ValueError, match="holds 'a' twice"):
        data.Characters("aba")
    for tokenizer in (data.Bytes(), data.Characters("ab")):
        for bad in (-1, tokenizer.size):
            with pytest.raises(ValueError, match=rf"must lie in 0\.\.{tokenizer.size - 1}, got {bad} at position 1"):
                tokenizer.decode(np.array([0, bad]))
        with pytest.raises(ValueError, match="one-dimensional array of integers, got float64"):
            tokenizer.decode(np.zeros(2))
        with pytest.raises(ValueError, match=r"shape \(1, 2\)"):
            tokenizer.decode(np.zeros((1, 2), int))


# Files


def test_parts_are_the_file_in_order(tmp_path):
    path = tmp_path / "tale.txt"
    text = "the quick brown fox\n" * 50
    path.write_bytes(text.encode())
    corpus = data.read_text(path, validation=0.2, test=0.1)
    assert corpus.name == "tale" and corpus.entropy is None
    assert corpus.tokenizer == data.Characters.from_text(text)
    assert [len(corpus.train), len(corpus.validation), len(corpus.test)] == [700, 200, 100]
    parts = (corpus.train, corpus.validation, corpus.test)
    assert "".join(map(corpus.tokenizer.decode, parts)) == text
    default = data.read_text(path)
    assert [len(default.train), len(default.validation), len(default.test)] == [900, 100, 0]


def test_bytes_stay_on_disk(tmp_path):
    path = tmp_path / "big.txt"
    path.write_bytes(b"abcd" * 500_000)
    corpus = data.read_text(path, tokenizer=data.Bytes())
    for part in (corpus.train, corpus.validation):
        assert isinstance(part, np.memmap) and part.dtype == np.uint8 and not part.flags.owndata
    batch = next(data.Windows(corpus.train, length=64, batch=8))
    assert not isinstance(batch, np.memmap) and batch.flags.owndata and batch.dtype == np.int32
    with pytest.raises(ValueError, match="read-only"):
        corpus.train[0] = 0


def test_characters_take_one_byte_each(tmp_path):
    path = tmp_path / "big.txt"
    # Two-byte characters straddle the borders of the chunks that are read.
    text = "a" + "éa" * 1_000_000
    path.write_text(text, encoding="utf-8")
    corpus = data.read_text(path)
    assert corpus.train.dtype == np.uint8 and corpus.tokenizer == data.Characters("aé")
    assert corpus.tokenizer.decode(np.concatenate([corpus.train, corpus.validation])) == text


def test_many_characters_become_bytes_cut_between_characters(tmp_path):
    path = tmp_path / "many.txt"
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 257)))
    path.write_text(text, encoding="utf-8")
    corpus = data.read_text(path, validation=0.31, test=0.17)
    assert corpus.tokenizer == data.Bytes()
    parts = [corpus.tokenizer.decode(part) for part in (corpus.train, corpus.validation, corpus.test)]
    assert "".join(parts) == text and all(parts)
    path.write_text(text[:256], encoding="utf-8")
    assert data.read_text(path).tokenizer == data.Characters(text[:256])


def test_byte_order_mark_is_no_text(tmp_path):
    path = tmp_path / "mark.txt"
    path.write_bytes(b"\xef\xbb\xbfabc" + b"abc" * 9)
    assert data.read_text(path).tokenizer == data.Characters("abc")
    assert len(data.read_text(path, tokenizer=data.Bytes(), validation=0).train) == 30
    path.write_bytes(b"\xef\xbb\xbfabc\xff")
    with pytest.raises(ValueError, match="0xff at byte 6"):
        data.read_text(path)


def test_file_errors(tmp_path, unchecked):
    path = tmp_path / "text"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        data.read_text(path)
    with pytest.raises(ValueError, match="is a folder"):
        data.read_text(tmp_path)
    for empty in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(empty)
        with pytest.raises(ValueError, match=r"`path` .* is empty"):
            data.read_text(path)
    for begin, words in ((b"\x1f\x8b\x08", "gunzip"), (b"\xfd7zXZ\0", "unxz"), (b"PAR1", "energy-dllm tokenize")):
        path.write_bytes(begin + b"abc")
        with pytest.raises(ValueError, match=words):
            data.read_text(path)
    path.write_text("abc", encoding="utf-16")
    with pytest.raises(ValueError, match="is UTF-16; convert it, for example with `iconv -f UTF-16"):
        data.read_text(path)
    with pytest.raises(ValueError, match="is a pipe or a device; expected a file"):
        data.read_text("/dev/null")
    # The fault sits behind the first chunk, in front of which a character straddles the border.
    before = b"a" * ((1 << 20) - 1) + "é".encode()
    for tail, offset in ((b"\xff", 0), (b"b\xc3(", 1), (b"b\xc3", 1)):
        path.write_bytes(before + tail)
        for tokenizer in (None, data.Bytes()):
            with pytest.raises(ValueError, match=rf"is not UTF-8 .* at byte {len(before) + offset}\); convert"):
                data.read_text(path, tokenizer=tokenizer)
    path.write_bytes(b"ab" * (1 << 20) + b"x")
    with pytest.raises(ValueError, match=rf"from character {1 << 21} on.* alphabet of 2 \('x' at 0\)"):
        data.read_text(path, tokenizer=data.Characters("ab"))
    path.write_bytes(b"a")
    with pytest.raises(ValueError, match="no token to train on"):
        data.read_text(path)
    for validation, test in ((-0.1, 0.0), (0.5, 0.5), (0.0, 1.5), (math.nan, 0.0)):
        with pytest.raises(ValueError, match="sum below 1"):
            data.read_text(path, validation=validation, test=test)


def test_tiny_shakespeare():
    path = pathlib.Path(__file__).parents[2] / "shared" / "data" / "tinyshakespeare.txt"
    if not path.exists():
        pytest.skip("benchmark texts are not here")
    corpus = data.read_text(path)
    assert (corpus.tokenizer.size, len(corpus.train), len(corpus.validation)) == (65, 1_003_854, 111_540)


# Docstrings


def test_docs_parts_share_no_docstring(optax_docs):
    decode = optax_docs.tokenizer.decode
    parts = [decode(part) for part in (optax_docs.train, optax_docs.validation, optax_docs.test)]
    paragraphs = [set(part.strip().split("\n\n")) for part in parts]
    assert all(len(p) > 5 for p in paragraphs)
    for one, other in itertools.combinations(paragraphs, 2):
        assert not one & other
    assert len(parts[0]) > 5 * max(len(parts[1]), len(parts[2]))
    assert "gradient" in parts[0]


def test_docs_are_deterministic_ascii_and_limited(optax_docs):
    assert optax_docs.tokenizer.size == 96 and optax_docs.name == "docs"
    again = data.docs_corpus(packages=("optax",), standard_library=False, limit=10_000)
    assert np.array_equal(again.train, optax_docs.train[:10_000]) and len(again.train) == 10_000
    as_bytes = data.docs_corpus(packages=("optax",), standard_library=False, limit=10_000, tokenizer=data.Bytes())
    assert bytes(as_bytes.train.astype(np.uint8)).decode("ascii") == again.tokenizer.decode(again.train)


def test_docs_read_sources_without_running_them(tmp_path, monkeypatch):
    package = tmp_path / "never_imported"
    package.mkdir()
    same = 'def f():\n    "Said twice."\n'
    for i in range(60):
        own = f'"""Module {i} says “naïve” × β.\n\nShared tail."""\nraise SystemExit\n'
        (package / f"m{i}.py").write_text(own + same, encoding="utf-8")
    (package / "broken.py").write_text("def (:\n")
    (package / "tests").mkdir()
    (package / "tests" / "a.py").write_text('"""A test."""\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    corpus = data.docs_corpus(packages=("never_imported",), standard_library=False)
    train, validation, test = map(corpus.tokenizer.decode, (corpus.train, corpus.validation, corpus.test))
    whole = train + validation + test
    assert "never_imported" not in sys.modules
    assert whole.count("Said twice.") == 1 and "A test." not in whole
    assert 'says "naive" x ?.' in validation and "Shared tail." not in validation
    order = [int(line.split()[1]) for line in train.splitlines() if "Module" in line]
    # Mixed, so that a limit takes some of everything.
    assert 45 < len(order) < 60 and order != sorted(order) and order != sorted(order, key=str)
    assert sorted(int(line.split()[1]) for line in whole.splitlines() if "Module" in line) == list(range(60))


def test_docs_errors(unchecked):
    for name in ("no_such_package", "jax.numpy", ""):
        with pytest.raises(ValueError, match="not an installed top-level package"):
            data.docs_corpus(packages=(name,))
    with pytest.raises(ValueError, match="too few docstrings"):
        data.docs_corpus(packages=(), standard_library=False)
    with pytest.raises(ValueError, match="limit` must be at least 1"):
        data.docs_corpus(limit=0)


# Windows


@given(st.integers(0, 2**32 - 1), st.integers(0, 20), st.integers(1, 9), st.integers(1, 5))
@settings(deadline=None)
def test_windows_resume_exactly(seed, steps, length, batch):
    ids = np.arange(50)
    kwargs = {"length": length, "batch": batch, "seed": seed}
    windows = data.Windows(ids, **kwargs)
    past = [next(windows) for _ in range(steps)]
    state = json.loads(json.dumps(windows.get_state()))
    future = [next(windows) for _ in range(3)]
    other = data.Windows(ids, **kwargs)
    next(other)
    other.set_state(state)
    assert all(np.array_equal(next(other), batch) for batch in future)
    assert all(np.array_equal(other.at(n), batch) for n, batch in enumerate(past + future))
    assert all((np.diff(window) == 1).all() for window in past + future)
    assert windows.get_state() == other.get_state() == {**state, "step": steps + 3}


def test_windows_start_everywhere_and_seeds_differ():
    windows = data.Windows(np.arange(10), length=3, batch=4_000)
    starts = np.bincount(next(windows)[:, 0], minlength=10)
    assert starts[8:].sum() == 0 and (np.abs(starts[:8] - 500) < 5 * 500**0.5).all()
    assert not np.array_equal(windows.at(0), windows.at(1))
    assert not np.array_equal(windows.at(0), data.Windows(np.arange(10), length=3, batch=4_000, seed=1).at(0))
    # The stream itself is part of the contract: a run stopped by an older release must resume.
    pinned = data.Windows(np.arange(1_000), length=1, batch=4, seed=7).at(3)
    assert pinned.ravel().tolist() == [601, 499, 807, 587]


def test_windows_errors(unchecked):
    ids = np.arange(10)
    lengths: Any = (0, -1, 2.5)
    for length in lengths:
        with pytest.raises(ValueError, match="`length` must be an integer of at least 1"):
            data.Windows(ids, length=length, batch=1)
        with pytest.raises(ValueError, match="`length` must be an integer of at least 1"):
            data.Windows.disjoint(ids, length)
    with pytest.raises(ValueError, match="`batch` must be an integer of at least 1, got 0"):
        data.Windows(ids, length=2, batch=0)
    with pytest.raises(ValueError, match="`seed` is -1; expected an integer"):
        data.Windows(ids, length=2, batch=1, seed=-1)
    with pytest.raises(ValueError, match="`count` must be"):
        data.Windows.disjoint(ids, 2, count=0)
    with pytest.raises(ValueError, match="holds 10 tokens, fewer than one window of 11"):
        data.Windows(ids, length=11, batch=1)
    with pytest.raises(ValueError, match="holds 10 tokens, fewer than one window of 11"):
        data.Windows.disjoint(ids, 11)
    with pytest.raises(ValueError, match="one-dimensional array of integers, got float64"):
        data.Windows(np.zeros(5), length=2, batch=1)
    windows = data.Windows(ids, length=2, batch=1)
    state = windows.get_state()
    for key in ("seed", "length", "batch", "tokens"):
        with pytest.raises(ValueError, match=f"`state` has {key} 99"):
            windows.set_state({**state, key: 99})
    broken: Any = ({}, {**state, "step": -1}, {**state, "step": True}, None)
    for bad in broken:
        with pytest.raises(ValueError, match="made by `get_state`"):
            windows.set_state(bad)
    assert windows.get_state() == state


@given(st.integers(1, 60), st.integers(1, 9), st.none() | st.integers(1, 70), st.integers(0, 99))
def test_windows_of_read_each_token_at_most_once(tokens, length, count, seed):
    if tokens < length:
        return
    windows = data.Windows.disjoint(np.arange(tokens, dtype=np.uint8), length, count=count, seed=seed)
    n = tokens // length
    assert windows.shape == (n if count is None else min(n, count), length) and windows.dtype == np.int32
    assert (np.diff(windows.ravel()) >= 1).all() and (windows[:, 0] % length == 0).all()
    if count is None or count >= n:
        assert np.array_equal(windows.ravel(), np.arange(n * length))


def test_windows_of_seed_decides():
    draws = {data.Windows.disjoint(np.arange(100), 1, count=10, seed=seed).tobytes() for seed in (0, 0, 1, 2)}
    assert len(draws) == 3


# Grammar


def enumerate_windows(grammar, length):
    ids = [np.array(w) for w in itertools.product(range(len(grammar.alphabet)), repeat=length)]
    return ids, np.array([grammar.log_probability(i) for i in ids])


@pytest.mark.parametrize("length", [1, 2, 5, 7])
def test_window_probabilities_are_a_stationary_law(length):
    grammar = data.Grammar(TINY)
    ids, log_p = enumerate_windows(grammar, length)
    p = np.exp(log_p)
    assert abs(p.sum() - 1) < 1e-12
    assert abs(-(p * np.where(p > 0, log_p, 0)).sum() / length - grammar.window_entropy(length)) < 1e-12
    if length > 1:
        # Stationary: leaving out the first or the last character gives the same law.
        cube = p.reshape([len(grammar.alphabet)] * length)
        assert np.abs(cube.sum(0) - cube.sum(-1)).max() < 1e-12


def test_entropy_rate_by_hand():
    # Entropy of the words over their mean length, each slot weighted by its visits.
    word = {"first": (-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)), 2.25), "second": (math.log(2), 1.5)}
    # From `first` to `second` with 1/4, back with 1/2: visits 2/3 and 1/3.
    expected = (2 * word["first"][0] + word["second"][0]) / (2 * word["first"][1] + word["second"][1])
    grammar = data.Grammar(TINY)
    assert abs(grammar.entropy_rate() - expected) < 1e-12
    # The excess over the rate stays bounded, so conditional entropies go down to it.
    h = [n * grammar.window_entropy(n) for n in (199, 200)]
    assert abs((h[1] - h[0]) - expected) < 1e-9


@pytest.mark.parametrize("rules", [TINY, None])
def test_window_entropy_falls_to_the_rate(rules):
    grammar = data.Grammar(rules)
    total = np.array([0.0] + [n * grammar.window_entropy(n) for n in range(1, 130)])
    steps = np.diff(total)
    assert (np.diff(steps) < 1e-12).all() and (steps > grammar.entropy_rate() - 1e-12).all()
    p = grammar.stationary()
    assert abs(steps[0] + (p * np.log(p)).sum()) < 1e-12 and abs(p.sum() - 1) < 1e-12


def test_english_is_a_language_of_the_promised_entropy(english):
    assert english.alphabet == "\n ." + "abcdefghijklmnopqrstuvwxyz"
    assert 0.6 < english.entropy_rate() < english.window_entropy(64) < 1.0
    lemmas = {word.strip(" .") for entries in english.rules.values() for word, _, _ in entries}
    assert 60 < len(lemmas - {""}) < 120


def test_windows_of_a_sample_have_the_exact_entropy(english, stream):
    windows = data.Windows.disjoint(english.tokenizer.encode(stream), 64, count=500)
    nats = np.array([-english.log_probability(window) for window in windows]) / 64
    error = nats.std() / len(nats) ** 0.5
    assert error < 0.003 and abs(nats.mean() - english.window_entropy(64)) < 4 * error


def test_long_text_has_the_entropy_rate(english, stream):
    ids = english.tokenizer.encode(stream)[:50_000]
    assert abs(-english.log_probability(ids) / len(ids) - english.entropy_rate()) < 0.01


def test_sample_frequencies_are_stationary(english, stream):
    counts = np.bincount(english.tokenizer.encode(stream), minlength=english.tokenizer.size)
    expected = english.stationary() * len(stream)
    # Characters of a text are not independent; ten standard deviations of independent ones leave room for that.
    assert (np.abs(counts - expected) < 10 * expected**0.5).all() and np.abs(counts / expected - 1).max() < 0.1


def test_samples_begin_at_a_random_place():
    grammar = data.Grammar(TINY)
    ids = [tuple(grammar.tokenizer.encode(grammar.sample(2, seed))) for seed in range(3_000)]
    for pair in itertools.product(range(3), repeat=2):
        p = math.exp(grammar.log_probability(np.array(pair)))
        assert abs(ids.count(pair) / 3_000 - p) < 5 * (p / 3_000) ** 0.5 + 1e-9


@given(st.integers(0, 10**9), st.integers(1, 200))
@settings(deadline=None, max_examples=50)
def test_samples_are_accepted_and_scrambled_ones_are_not(english, seed, characters):
    text = english.sample(characters, seed)
    assert len(text) == characters and english.accepts(text) and text == english.sample(characters, seed)
    if characters > 60:
        scrambled = "".join(np.random.default_rng(seed).permutation(list(text)))
        assert not english.accepts(scrambled)


def test_accepts_fragments_and_agreement(english):
    for fragment in ("", "e king se", "the old king sees two red birds. ", "gs see", "w.\nmy", "a"):
        assert english.accepts(fragment), fragment
    for wrong in ("one kings ", "this king see ", "the kings sees", "King", "the the ", "wait quickly", ".."):
        assert not english.accepts(wrong), wrong
    assert english.log_probability(english.tokenizer.encode("..")) == -math.inf


def test_posterior_is_bayes():
    grammar = data.Grammar(TINY)
    ids, log_p = enumerate_windows(grammar, 5)
    evidence = np.random.default_rng(0).normal(size=(5, 3)) * 2
    evidence[1] = 0.0
    evidence[3, 0] = -np.inf
    joint = np.exp([lp + evidence[np.arange(5), i].sum() for i, lp in zip(ids, log_p, strict=True)])
    expected = np.zeros((5, 3))
    for i, w in zip(ids, joint / joint.sum(), strict=True):
        expected[np.arange(5), i] += w
    assert np.abs(grammar.posterior(evidence) - expected).max() < 1e-12
    assert np.abs(grammar.posterior(np.zeros((4, 3))) - grammar.stationary()).max() < 1e-12


def test_posterior_completes_the_word(english):
    text = "the old king sees my wizard. "
    ids = english.tokenizer.encode(text)
    evidence = np.where(np.eye(english.tokenizer.size)[ids] == 1, 0.0, -np.inf)
    evidence[text.index("zard") : text.index("zard") + 4] = 0.0
    assert english.tokenizer.decode(english.posterior(evidence).argmax(1)) == text


def test_grammar_corpus(english):
    corpus = data.grammar_corpus(characters=5_000, seed=3)
    assert [len(corpus.train), len(corpus.validation), len(corpus.test)] == [5_000, 500, 500]
    parts = map(corpus.tokenizer.decode, (corpus.train, corpus.validation, corpus.test))
    assert "".join(parts) == english.sample(6_000, 3)
    assert corpus.entropy == english.entropy_rate() and corpus.train.dtype == np.uint8
    tiny = data.grammar_corpus(characters=100, grammar=data.Grammar(TINY))
    assert tiny.tokenizer == data.Characters(" ab") and tiny.entropy == data.Grammar(TINY).entropy_rate()


@pytest.mark.parametrize(
    "rules, message",
    [
        ({}, "is empty"),
        ({"a": []}, "slot 'a' no continuation"),
        ({"a": [("", 1, "a")]}, "non-empty string"),
        ({"a": [("x", 0, "a")]}, "a positive weight"),
        ({"a": [("x", 1, "b")]}, "one of the 1 slots"),
        ({"a": [("x", 1, "a"), ("xy", 1, "a")]}, "'x' and 'xy' in slot 'a'"),
        ({"a": [("x", 1, "a"), ("x", 1, "a")]}, "'x' and 'x' in slot 'a'"),
        ({"a": [("x", 1, "a")], "b": [("x", 1, "a")]}, "'b' that cannot be reached from 'a'"),
        ({"a": [("x", 1, "b")], "b": [("x", 1, "b")]}, "'b' that never leads back to 'a'"),
    ],
)
def test_rules_errors(rules, message, unchecked):
    with pytest.raises(ValueError, match=message):
        data.Grammar(rules)


def test_grammar_errors(english, unchecked):
    with pytest.raises(ValueError, match="`length` must be"):
        english.window_entropy(0)
    with pytest.raises(ValueError, match="`limit` of 10 beliefs is too small"):
        data.Grammar().window_entropy(3, limit=10)
    with pytest.raises(ValueError, match=r"ids in 0\.\.28"):
        english.log_probability(np.array([29]))
    with pytest.raises(ValueError, match="got shape"):
        english.log_probability(np.zeros((2, 2), int))
    with pytest.raises(ValueError, match=r"shape \(L, 29\), got \(4, 3\)"):
        english.posterior(np.zeros((4, 3)))
    impossible = np.full((2, 29), -np.inf)
    impossible[:, english.alphabet.index(".")] = 0.0
    with pytest.raises(ValueError, match="excludes every text"):
        english.posterior(impossible)
    with pytest.raises(ValueError, match="`characters` must be an integer of at least 1"):
        english.sample(0)
    with pytest.raises(ValueError, match="`seed` is -1; expected an integer"):
        english.sample(5, seed=-1)
    with pytest.raises(ValueError, match="`characters` must be an integer of at least 10"):
        data.grammar_corpus(characters=5)


def test_periodic_grammar_has_no_entropy_rate_but_a_phase():
    # "ab" forever: the only uncertainty is where the window was cut.
    clock = data.Grammar({"a": [("a", 1, "b")], "b": [("b", 1, "a")]})
    assert clock.entropy_rate() == 0.0 and abs(clock.window_entropy(10) - math.log(2) / 10) < 1e-12


def test_equal_futures_are_one_state():
    assert data.Grammar({"a": [("x", 1, "b"), ("y", 1, "a")], "b": [("x", 2, "a"), ("y", 2, "b")]}).states == 1


def test_room_needs_no_jax():
    room = pathlib.Path(data.__file__).parents[1]
    code = (
        "import sys, types; house = types.ModuleType('energy_dllm'); "
        f"house.__path__ = [{str(room)!r}]; sys.modules['energy_dllm'] = house; "
        "import energy_dllm.data; sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
