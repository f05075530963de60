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


def test_digits_come_back_from_noise(capsys):
    assert load("denoise_digits").main(tries=4) > 0.7
    energies = [float(part.split()[0]) for part in capsys.readouterr().out.split("E = ")[1:]]
    assert len(energies) == 6 and energies == sorted(energies, reverse=True)


def test_two_memories_become_one_at_their_own_norm(capsys):
    assert abs(load("two_memories").main() - 1) < 0.01
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:5]]
    assert all(row[1] == "2" and abs(float(row[2]) - float(row[3])) < 1e-3 for row in rows)


def test_a_circle_is_memorised_mixed_up_and_understood():
    two, nine, thousand = load("circle").main()
    assert two.memorised == 1.0
    assert nine.spurious > nine.memorised and nine.spurious > nine.generalised
    assert thousand.generalised > 0.5 and thousand.memorised < 0.1


def test_every_example_is_tested():
    shown = {"one_word", "denoise_digits", "two_memories", "circle"}
    assert {path.stem for path in FOLDER.glob("*.py")} == shown
