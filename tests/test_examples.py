"""The examples run, on a small model."""

import importlib.util
from pathlib import Path

import jax

import energy_dllm as ed


FOLDER = Path(__file__).parent.parent / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_word_lowers_f_and_reads_every_term(capsys):
    model = ed.EnergyDLLM(ed.data.Characters("abc _"), dim=16, steps=8, key=jax.random.key(0))
    change = load("one_word").main(model, "ab_ cab")
    assert set(change) == {"neurons", "pairwise", "attention", "memory", "bias", "vocabulary", "spring"}
    assert sum(change.values()) < 0
    assert "force evaluations" in capsys.readouterr().out


def test_faq_answers_what_was_meant_and_nothing_else(capsys):
    faq = load("faq")
    understood = faq.main(faq.QUESTIONS[:1] + faq.QUESTIONS[5:])
    assert understood["how do i rest my pasword"] == "How do I reset my password?"
    assert [understood[question] for question in faq.QUESTIONS[5:]] == [None, None]
    out = capsys.readouterr().out
    assert "Forgot password" in out and "10 lines before, 11 after" in out


def test_names_between_two_are_new_and_of_their_letters(capsys):
    names = load("names")
    invented = names.main(pairs=2, draws=6)
    assert len(invented) >= 3 and not set(invented) & set(names.NAMES)
    assert all(name.isalpha() and name == name.capitalize() for name in invented)
    assert "67 names" in capsys.readouterr().out


def test_every_example_is_tested():
    assert {path.stem for path in FOLDER.glob("*.py")} == {"one_word", "faq", "names"}
