"""The examples run, on a small model."""

import importlib.util
import json
import os
import random
import re
import shutil
import types
from pathlib import Path

import families
import jax
import numpy as np
import pytest

import energy_dllm as ed


pytestmark = pytest.mark.example

FOLDER = Path(__file__).parent.parent / "examples"
ngspice = pytest.mark.skipif(
    shutil.which(os.environ.get("ENERGY_DLLM_NGSPICE") or "ngspice") is None,
    reason="ngspice is not installed (apt install ngspice)",
)


LAYERS = {f"{kind} {n}" for kind in ("attention", "convolution", "memory") for n in (1, 2)}


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_word_lowers_f_and_reads_every_term(capsys):
    model = ed.EnergyDLLM(ed.data.Characters("abc _"), dim=16, steps=8, key=jax.random.key(0))
    change = load("one_word").main(model, "ab_ cab")
    assert set(change) == LAYERS | {"neurons", "bias", "vocabulary", "spring"}
    assert sum(change.values()) < 0
    assert "force evaluations" in capsys.readouterr().out


def test_tour_explains_the_letter_it_finds(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    model = ed.EnergyDLLM(ed.data.Characters("abc _"), dim=16, steps=8, key=jax.random.key(0))
    place, parts = load("tour").main(model, "ab_ cab", str(tmp_path))
    assert 0 <= place < 7 and set(parts) == {"prior", "evidence", "bias", "residual"} | LAYERS
    assert {path.name for path in tmp_path.iterdir()} == {"attribution.png", "attention 1.png", "attention 2.png"}
    # the sum that is printed, and the sum of what is printed
    odds = capsys.readouterr().out.split("against")[1].split(": ")[1].split()[0]
    assert abs(sum(parts.values()) - float(odds)) < 0.01


def test_pictures_come_back_from_what_is_left_of_them(tmp_path, capsys):
    pytest.importorskip("PIL")
    drawn = np.random.default_rng(0).integers(0, 2, (9, 4, 4), np.uint8).repeat(2, 1).repeat(2, 2) * 255
    tokenizer = ed.data.Patches.from_pictures(drawn, patch=2, captions=["one", "two"])
    schedule = ed.flow.LogLinear(sigma_max=4.0, sigma_min=0.1)
    model = ed.EnergyDLLM(tokenizer, dim=16, reach=1, schedule=schedule, key=jax.random.key(0))
    far = load("pictures").main(model, drawn[0], noise=0.1, save=str(tmp_path / "all.png"))
    middle, noisy, coarse = far.values()
    # two kinds of patches, black and white: little noise and their means tell them, the middle does not
    assert noisy == coarse == 0 < middle and ed.data.read_picture(tmp_path / "all.png").shape == (8, 32)
    assert capsys.readouterr().out.count("of white from the picture") == 3


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


def test_hierarchy_completes_a_word_from_its_letters(capsys):
    found = load("hierarchy").main()
    assert found[0][0] == "rometa" and found[0][1] > 0.99 and found[1][1] < 0.5
    assert "rests on rometa" in capsys.readouterr().out


LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ,.-'\n"


def test_support_answers_with_the_fact_or_says_that_it_is_not_stored(capsys):
    support = load("support")
    asked = {q: meant for q, meant in support.QUESTIONS.items() if meant in ("How long does delivery take?", None)}
    model = families.small_model(LETTERS)
    assert support.main(model, dict(list(asked.items())[:3]), length=40) == (1.0, 1.0, 1.0)
    out = capsys.readouterr().out
    assert out.count("not stored") == 2 and "two days" in out


def test_sales_names_every_attribute_and_none_of_another_product(monkeypatch, capsys):
    sales = load("sales")
    words = sales.main(families.small_model(LETTERS), length=32, samples=2)  # refuses a text without its facts
    assert set(words) == {0.0, 1.0}
    out = capsys.readouterr().out
    assert " red kite " in out and " big lamp " in out and out.count("texts, all facts and no others") == 2
    monkeypatch.setattr(ed, "generate", lambda *args, **settings: types.SimpleNamespace(texts=["Look, a red drum"]))
    with pytest.raises(ValueError, match="lacks"):
        sales.main(families.small_model(LETTERS), length=32, samples=2)


def test_dungeons_have_their_form_and_those_returned_can_be_crossed(monkeypatch):
    dungeon = load("dungeon")
    rooms = [dungeon.dug(random.Random(seed)) for seed in range(50)]
    assert all(dungeon.crossed(room) and re.fullmatch(dungeon.FORM, room) for room in rooms)
    assert all(re.fullmatch(dungeon.STAIRS, room) and re.fullmatch(dungeon.MARKS, room) for room in rooms)
    wall = "cryptbor\n########\n#<.#...#\n" + "#..#...#\n" * 3 + "#..#..>#\n########\n"
    assert not dungeon.crossed(wall) and dungeon.crossed(wall.replace("#<.#", "#<..").replace("#..#", "#...", 1))
    seen = []
    fit = lambda model, corpus, objective, **settings: seen.append((corpus, settings)) or model
    monkeypatch.setattr(ed, "fit", fit)  # takes a minute
    model = families.small_model(dungeon.fresh(dim=16).tokenizer.alphabet)
    draw = ed.generate
    monkeypatch.setattr(ed, "generate", lambda *args, **settings: seen.append(draw(*args, **settings)) or seen[-1])
    one, other = dungeon.main(model, samples=8)
    (corpus, settings), made, _ = seen
    assert len(corpus.train) == 2000 * dungeon.LENGTH and settings["length"] == dungeon.LENGTH
    for form in (dungeon.FORM, dungeon.STAIRS, dungeon.MARKS):
        assert all(re.fullmatch(form, room) for room in made.texts)
    assert one == other == [room for room in made.texts if dungeon.crossed(room)]


def test_the_spelling_service_answers_over_http(capsys):
    before, after = load("spelling").main(families.small_model(LETTERS), lines=("to be or not to be",), seed=1)
    assert before > 0 and after >= 0 and f"{before} wrong letters before, {after} after" in capsys.readouterr().out


def test_strange_lines_of_a_log_have_a_high_score(capsys):
    found = load("anomaly").main(stored=60, lines=20, faults=3)
    assert found["all"] > 0.85 and found["a new message"] > 0.9
    assert "difflib" in capsys.readouterr().out


def test_every_example_is_tested():
    shown = {
        "anomaly",
        "circle",
        "circuit_memory",
        "circuit_text",
        "denoise_digits",
        "dungeon",
        "faq",
        "hierarchy",
        "names",
        "one_word",
        "pictures",
        "sales",
        "spelling",
        "support",
        "tour",
        "two_memories",
    }
    assert {path.stem for path in FOLDER.glob("*.py")} == shown


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    """Cell after cell in one namespace; and what is kept in it are results of all of them, in this order."""
    pytest.importorskip("matplotlib").use("agg")
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__main__"}
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, 1):
        exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), names)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert any(cell["outputs"] for cell in cells)
