"""Laws of byte pairs: every text comes back, ids are those of the definition, and a model keeps its tokenizer."""

import dataclasses
import json
import pathlib
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import energy_dllm.data as data


pytest.importorskip("tokenizers")
sys.path.append(str(pathlib.Path(__file__).parents[1] / "benchmarks"))
GPT2 = pathlib.Path(__file__).parents[2] / "shared" / "data" / "gpt2_bpe"
TEXT = 'The cat sat on the mat. Then the rat said, "don\'t!"\n\nOnce upon a time 42 née cats sat.\n' * 20


@pytest.fixture(scope="module")
def pairs():
    return data.BytePairs.from_text(TEXT, size=290)


@given(st.text())
@settings(deadline=None)
def test_every_text_comes_back(pairs, text):
    ids = pairs.encode(text)
    assert ids.dtype == np.int32 and pairs.decode(ids) == text
    assert b"".join(pairs.spelling[n] for n in ids) == text.encode()
    assert pairs.characters(ids) == len(text)


@given(st.lists(st.integers(0, 289)))
@settings(deadline=None)
def test_any_tokens_decode(pairs, ids):
    spelt = b"".join(pairs.spelling[n] for n in ids)
    assert pairs.decode(np.array(ids, np.int64)) == spelt.decode("utf-8", errors="replace")
    alone = [pairs.spelling[n].decode("utf-8", errors="replace") for n in ids]
    assert pairs.by_token(np.array(ids, np.int64)) == alone


def test_byte_pairs_are_values(pairs):
    again = data.BytePairs(**json.loads(json.dumps(dataclasses.asdict(pairs))))
    assert again == pairs and hash(again) == hash(pairs) and again.definition == pairs.definition
    assert pairs.size == 290 == len(pairs.symbols) == len(set(pairs.symbols))
    assert all(symbol.isprintable() and symbol.strip() for symbol in pairs.symbols)
    assert data.BytePairs.from_text(TEXT, size=290) == pairs != data.BytePairs.from_text(TEXT, size=289)
    assert "␣the" in pairs.symbols and len(pairs.encode(" the cat")) < 8
    assert repr(pairs) != repr(data.BytePairs.from_text(TEXT[::-1], size=290)) and len(repr(pairs)) < 60
    assert data.BytePairs.from_text("", size=300).size == 256  # nothing to merge


def test_bits_are_counted_by_characters():
    for tokenizer in (data.Bytes(), data.Characters("né "), data.BytePairs.from_text("né né né", size=258)):
        ids = tokenizer.encode("né né")
        # each character is counted once, where it begins, however the text is cut
        assert [sum(tokenizer.characters(part) for part in (ids[:n], ids[n:])) for n in range(len(ids))] == [5] * len(
            ids
        )


def test_a_long_text_has_the_tokens_of_the_whole(monkeypatch, tmp_path):
    # spaces and line breaks of all kinds, where pieces must not be cut
    draw = np.random.default_rng(0)
    words = np.array(["cat", " sat", "\n", "\n\n", " \n ", "don't", "! ", "  ", "42", "née", "\r\n", ".\n"])
    text = "".join(draw.choice(words, 4000))
    pairs = data.BytePairs.from_text(text, size=300)
    whole = pairs._encoder.encode(text, add_special_tokens=False).ids
    monkeypatch.setattr("energy_dllm.data._byte_pairs.CHUNK", 50)
    assert pairs.encode(text).tolist() == whole
    monkeypatch.setattr("energy_dllm.data._corpus._CHUNK", 333)
    (tmp_path / "text.txt").write_bytes(text.encode())
    corpus = data.read_text(tmp_path / "text.txt", tokenizer=pairs, validation=0.5)
    assert np.concatenate([corpus.train, corpus.validation]).tolist() == whole and corpus.train.dtype == np.uint16


def test_files_of_other_kinds_are_refused(pairs, tmp_path, unchecked):
    import tokenizers

    path = tmp_path / "tokenizer.json"

    def refused(content, why):
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(
            ValueError, match=f"`path` .*tokenizer.json.* {why}.*; expected byte-level byte pairs"
        ) as caught:
            data.BytePairs.from_file(path)
        assert str(caught.value).count(". ") == 0 and "`definition`" not in str(caught.value)

    good = json.loads(pairs.definition)
    refused("not json", "is not the content of a tokenizer.json")
    refused([1], "is not the content of a tokenizer.json")
    words = tokenizers.Tokenizer(tokenizers.models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    refused(words.to_str(), "of kind WordPiece")
    refused({**good, "normalizer": {"type": "Lowercase"}}, "with Lowercase, which does not give every text back")
    refused({**good, "pre_tokenizer": {"type": "Whitespace"}}, "with Whitespace, which")
    refused({**good, "pre_tokenizer": None}, "with no ByteLevel, which")
    refused({**good, "model": {**good["model"], "end_of_word_suffix": "</w>"}}, "with a `end_of_word_suffix`")
    vocabulary = {token: n for token, n in good["model"]["vocab"].items() if token != "a"}
    refused({**good, "model": {**good["model"], "vocab": vocabulary}}, "not all bytes")
    refused({**good, "added_tokens": [5]}, "is not the content of a tokenizer.json")
    refused({**good, "model": {"type": "BPE", "vocab": good["model"]["vocab"]}}, "is not the content")
    for pair in ("abc", "zzz qqq"):
        refused({**good, "model": {**good["model"], "merges": [pair]}}, f"merges '{pair}', which are no two tokens")
    split = {"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": False}
    both = {"type": "Sequence", "pretokenizers": [split, good["pre_tokenizer"]]}
    refused({**good, "pre_tokenizer": both}, "cannot be read by tokenizers")
    with pytest.raises(FileNotFoundError, match="neither tokenizer.json nor vocab.json"):
        data.BytePairs.from_file(tmp_path / "..")
    with pytest.raises(FileNotFoundError, match="is not a file"):
        data.BytePairs.from_file(tmp_path / "none.json")
    sizes: Any = (255, 300.0, True)
    for size in sizes:
        with pytest.raises(ValueError, match="`size` is .*at least the 256 bytes"):
            data.BytePairs.from_text(TEXT, size=size)


def test_what_would_change_texts_is_left_out(pairs, tmp_path):
    """A space in front, NFC and special tokens that eat spaces: ids inside of a text stay the same, texts exact."""
    other = json.loads(pairs.definition)
    other["pre_tokenizer"]["add_prefix_space"] = True
    other["normalizer"] = {"type": "NFC"}
    other["post_processor"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    other["added_tokens"] = [
        {"id": 290, "content": "<end>", "single_word": False, "lstrip": True, "rstrip": True}
        | {"normalized": False, "special": True}
    ]
    other["model"]["merges"] = [pair.split(" ") for pair in other["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(other))
    found = data.BytePairs.from_file(tmp_path)
    assert found.size == 291 and found.symbols[290] == "<end>"
    text = "cat  <end>  the ne\u0301e"
    assert found.decode(found.encode(text)) == text and np.sum(found.encode(text) == 290) == 1
    assert found.encode("The cat sat").tolist() == pairs.encode("The cat sat").tolist()


def test_tokenizers_reads_what_is_saved(pairs, tmp_path):
    import tokenizers

    pairs.save(tmp_path / "tokenizer.json")
    there = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert there.encode(TEXT).ids == pairs.encode(TEXT).tolist() and there.decode(there.encode(TEXT).ids) == TEXT
    assert data.BytePairs.from_file(tmp_path / "tokenizer.json") == pairs


@pytest.mark.skipif(not GPT2.exists(), reason="needs ../shared/data")
def test_gpt2_has_the_ids_of_gpt2():
    pairs = data.BytePairs.from_file(GPT2)
    assert pairs.size == 50257 == len(set(pairs.symbols))
    assert pairs.encode("Hello world, 😀<|endoftext|>").tolist() == [15496, 995, 11, 30325, 222, 50256]
    assert pairs.decode(np.array([15496, 50256])) == "Hello<|endoftext|>"
    text = TEXT[:99] + " ".join(KINDS) + "<|endoftext|>"
    assert pairs._plain_encoder(text) == pairs.encode(text).tolist()


@pytest.fixture
def no_library(monkeypatch):
    """As if `tokenizers` was not installed."""
    monkeypatch.setitem(sys.modules, "tokenizers", None)


def test_decoding_needs_no_tokenizers(pairs, no_library):
    again = data.BytePairs(pairs.definition)
    assert again.decode(again.encode("The cat")) == "The cat" and again.symbols == pairs.symbols
    words = {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False}
    other = json.loads(pairs.definition)
    other["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [words, other["pre_tokenizer"]]}
    for use in (lambda: data.BytePairs(json.dumps(other)).encode("The cat"), lambda: data.BytePairs.from_text(TEXT)):
        with pytest.raises(ImportError, match=r"pip install '\.\[bpe\]' in a checkout"):
            use()


# letters, numbers, spaces and signs of many scripts, marks, controls, emoji, contractions; a merge that is no word
KINDS = "'s 't 're 've 'm 'll 'd 'S a the cat née 42 ²Ⅷ٣ _ - !? \t \r\n \x1c \x85 \xa0 \u3000 \u200b".split(" ")
KINDS += "aaaaaa --- e\u0301 猫 кот 😀 <end> <end".split()


@given(st.lists(st.one_of(st.sampled_from([*KINDS, "", " ", "  ", "\n"]), st.characters(codec="utf-8"))))
@settings(deadline=None, max_examples=300)
def test_ids_are_the_same_without_the_library(odd_pairs, parts):
    for text in ("".join(parts), " ".join(parts)):
        assert odd_pairs._plain_encoder(text) == odd_pairs.encode(text).tolist()


@pytest.fixture(scope="module", params=[False, True])
def odd_pairs(request):
    """Special tokens of which one begins another, merges that are missing or in disorder, ids in disorder."""
    made = json.loads(data.BytePairs.from_text(TEXT + " ".join(KINDS) * 3, size=500).definition)
    draw = np.random.default_rng(0)
    draw.shuffle(made["model"]["merges"])
    made["model"]["merges"] = made["model"]["merges"][20:]
    size = len(made["model"]["vocab"])
    ids = draw.permutation(size).tolist()
    made["model"]["vocab"] = {token: ids[n] for token, n in made["model"]["vocab"].items()}
    made["model"]["ignore_merges"] = request.param
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    made["added_tokens"] = [{"id": size + n, "content": c, **special} for n, c in enumerate(["<end", "<end>", "é 4"])]
    return data.BytePairs(json.dumps(made))


def test_a_model_keeps_its_tokenizer(pairs, tmp_path):
    import jax

    import energy_dllm as ed

    model = ed.EnergyDLLM(pairs, dim=16, key=jax.random.key(0))
    ed.save(tmp_path / "model.safetensors", model)
    again = ed.load(tmp_path / "model.safetensors")
    assert again.tokenizer == pairs and again.decode(again.encode("The cat sat")) == "The cat sat"
    with pytest.raises(ValueError, match="energy` has a vocabulary of 290"):
        ed.EnergyDLLM(data.Bytes(), energy=model.energy, key=jax.random.key(0))


# The training of `stories`


STORY = "Once upon a time there was a cat\u2014Tom.\n\n\u201cHi,\u201d said  Tom.\nThe end.\n<|endoftext|>\n"
PLAIN = 'Once upon a time there was a cat-Tom.\n"Hi," said  Tom.\nThe end.\n\n'


def test_stories_are_folded_and_encoded_once(tmp_path, monkeypatch):
    from train_stories import corpus_of_stories  # pyright: ignore[reportMissingImports]

    (tmp_path / "train_first2M.txt").write_text(STORY * 30, encoding="utf-8")
    (tmp_path / "valid_slice.txt").write_text("One day Tom sat.\n\nThe end.\n\n" * 30, encoding="utf-8")
    corpus = corpus_of_stories(tmp_path, tmp_path / "out", 270)
    assert corpus.tokenizer.size == 270 and corpus.train.dtype == np.uint16
    assert corpus.tokenizer.decode(corpus.train) == PLAIN * 30
    held = "".join(map(corpus.tokenizer.decode, (corpus.validation, corpus.test)))
    assert held == "One day Tom sat.\nThe end.\n" * 30 + "\n"
    monkeypatch.setattr(data.BytePairs, "from_text", None)
    (tmp_path / "train_first2M.txt").unlink()
    again = corpus_of_stories(tmp_path, tmp_path / "out", 270)
    assert (again.train == corpus.train).all() and again.tokenizer == corpus.tokenizer


@pytest.mark.parametrize("sampler", ["descent", "unmasking", "left to right"])
def test_a_space_before_a_hole_is_left_to_its_first_token(sampler):
    """The text is kept as it is; a word is one token with the space before it, as in the text that a model reads."""
    import jax
    import jax.numpy as jnp

    import energy_dllm as ed

    pairs = data.BytePairs.from_text("the cat and the dog and the rat sat " * 9, size=290)
    model = ed.EnergyDLLM(pairs, dim=16, blocks=(0, 1), key=jax.random.key(0))
    drawn = ed.sampling.Unmasking(rounds=3, steps=1, step=1.0)
    path: Any = {"descent": ed.sampling.descent(6), "unmasking": drawn}.get(sampler, ed.sampling.Blocks(size=1))
    spaces = np.array([each.startswith(b" ") for each in pairs.spelling])
    assert spaces.sum() > 4
    write: Any = dict(samples=12, sampler=path, frames=1)
    made = ed.infill(model, "the [2] cat [2] [1]dog", **write)
    at, size = len(pairs.encode("the")), len(pairs.encode(" cat"))
    opened = np.array([at, at + 2 + size, at + 4 + size])
    assert made.ids.shape == (12, at + size + 5 + len(pairs.encode("dog"))) and spaces[made.ids[:, opened]].all()
    assert all(text.startswith("the ") and " cat " in text and text.endswith("dog") for text in made.texts)
    assert len(set(made.ids[:, at].tolist())) > 2
    # of what is written on a prompt, and beside other evidence
    others = ed.flow.Likelihood(jnp.zeros((9, pairs.size)).at[:, int(made.ids[0, at])].set(ed.flow.FORBIDDEN))
    made = ed.generate(model, prompt="the ", length=9, evidence=others, **write)
    assert made.ids.shape == (12, 9) and all(text.startswith("the ") for text in made.texts)
    assert spaces[made.ids[:, at]].all() and len(set(made.texts)) > 6
    # a space within the text, or before text that is given, is what it was
    made = ed.infill(model, "the  cat and[2]", **write)
    assert (made.ids[:, :-2] == pairs.encode("the  cat and")).all()
