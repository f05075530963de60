"""The examples run, on a small model."""

import importlib.util
import os
import shutil
from pathlib import Path

import jax
import pytest

import energy_dllm as ed


FOLDER = Path(__file__).parent.parent / "examples"
ngspice = pytest.mark.skipif(
    shutil.which(os.environ.get("ENERGY_DLLM_NGSPICE") or "ngspice") is None,
    reason="ngspice is not installed (apt install ngspice)",
)


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


@ngspice
def test_circuit_memory_recalls_and_draws(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    example = load("circuit_memory")
    found = example.main((3,), str(tmp_path / "memory.png"), t1=6.0)
    assert found["recalled"] == 1.0 and found["end_error"] < 1e-2
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")
    assert "1 of 1 recalled" in capsys.readouterr().out
    # the cue is not the digit
    assert (example.cue(3, jax.random.key(3)) != example.digits()[3]).sum() > 3


@ngspice
def test_circuit_text_writes_the_same_words_twice(capsys):
    example = load("circuit_text")
    assert len(set(example.sentences())) == 128
    found = example.main(1, steps=30, devices=True)
    assert found["agreement"] == 1.0 and "words that agree" in capsys.readouterr().out


def test_every_example_is_tested():
    assert {path.stem for path in FOLDER.glob("*.py")} == {"one_word", "circuit_memory", "circuit_text"}
