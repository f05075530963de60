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


def test_every_example_is_tested():
    assert {path.stem for path in FOLDER.glob("*.py")} == {"one_word"}
