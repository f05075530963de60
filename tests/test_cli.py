"""The command line: exit codes, one sentence for every bad input, one JSON object and nothing else."""

import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import families
import jax
import numpy as np
import pytest

import energy_dllm as ed
from energy_dllm._cli import COMMANDS, main
from energy_dllm._cli._progress import Stages
from energy_dllm._cli._show import busy


ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--length", "8", "--unmask", "--rounds", "2", "--remask-rounds", "0"]
WRITTEN = {
    "text",
    "seed",
    "time",
    "sigma",
    "known",
    "free_energy",
    "force_evaluations",
    "seconds",
    "result",
    "energy_dllm",
    "model",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    ed.save(path, families.small_model("abc \n", steps=2), notes={"steps": 0})
    return str(path)


@pytest.fixture
def run(capsys):
    def run(*argv: str) -> tuple[int, str, str]:
        try:
            code = main(argv)
        except SystemExit as end:  # of the parser
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run


def record(out: str) -> dict:
    """The one JSON object that stdout holds; NaN is not JSON."""
    assert out.endswith("}\n") and out.count("\n") == 1

    def refuse(constant: str):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(out, parse_constant=refuse)


def test_generate_json(run, model):
    argv = ["generate", model, *SMALL, "--prompt", "cab", "--samples", "2", "--seed", "3", "--json"]
    code, out, _ = run(*argv)
    found = record(out)
    assert code == 0 and set(found) >= WRITTEN
    assert found["seed"] == 3 and found["model"] == model and found["energy_dllm"] == ed.__version__
    assert len(found["text"]) == 2 and all(len(t) == 8 and t.startswith("cab") for t in found["text"])
    assert found["sigma"] == [None, None, 0.0] and [len(path) for path in found["free_energy"]] == [3, 3]
    assert found["known"] == [[3 / 8, 5 / 8, 1.0]] * 2 and len(found["time"]) == 3
    assert found["force_evaluations"] == 3 and found["result"] == "every token is written"
    again = record(run(*argv)[1])
    assert found | {"seconds": 0} == again | {"seconds": 0}
    # every moment a line, the result the last of them
    *moments, last = run(*argv[:-1], "--stream")[1].splitlines()
    assert json.loads(last)["text"] == found["text"] and len(moments) == 2
    assert [json.loads(line)["sigma"] for line in moments] == [None, 0.0]
    assert json.loads(moments[-1])["text"] == found["text"]


def test_the_default_is_the_descent_of_one_scalar_by_solve(run, model, monkeypatch):
    from energy_dllm.sampling import _diffusion

    fields = []
    solve = lambda field, *args, **settings: fields.append(field) or ed.solve(field, *args, **settings)
    monkeypatch.setattr(_diffusion, "solve", solve)
    found = record(run("generate", model, "--length", "8", "--steps", "7", "--json")[1])
    assert isinstance(fields[0], ed.flow.AutonomousDescent) and found["force_evaluations"] == 7 + 9
    (scalar,) = found["free_energy"]
    assert (np.diff(scalar) <= 0).all() and scalar[0] > scalar[-1]
    assert (np.diff(found["sigma"]) < 0).all()
    # a temperature is that of the descent: with less noise it begins lower
    cold = record(run("generate", model, "--length", "8", "--steps", "7", "--temperature", "0.5", "--json")[1])
    assert cold["free_energy"][0][0] < scalar[0]


def test_the_best_of_four_costs_what_all_of_them_cost(run, model, tmp_path):
    ed.save(tmp_path / "deep.safetensors", ed.EnergyDLLM(ed.data.Characters("abc"), dim=16, key=jax.random.key(0)))
    asked = ["--length", "8", "--steps", "7", "--best-of", "4", "--json"]
    found = record(run("generate", str(tmp_path / "deep.safetensors"), *asked)[1])
    assert len(found["text"]) == 1 and found["force_evaluations"] == 4 * 16
    code, out, err = run("generate", model, *asked)
    assert (code, out) == (2, "") and "without a likelihood in one evaluation" in err


def test_in_blocks_of_one_a_token_is_a_pass_and_the_likeliest_is_chosen_by_the_chain_rule(run, model, tmp_path):
    path = str(tmp_path / "blocks.safetensors")
    made: Any = ed.EnergyDLLM(ed.data.Characters("abc"), dim=16, blocks=(0, 1), key=jax.random.key(0))
    ed.save(path, made)
    asked = ["--length", "8", "--prompt", "ab", "--block", "1", "--json"]
    found = record(run("generate", path, *asked)[1])
    assert found["force_evaluations"] == 6 and found["text"][0].startswith("ab") and len(found["text"][0]) == 8
    best = record(run("generate", path, *asked, "--best-of", "4")[1])
    energy, several = made.energy.in_blocks(1), record(run("generate", path, *asked, "--samples", "4")[1])["text"]
    assert best["text"] == [max(several, key=lambda text: energy.log_likelihood(made.encode(text)))]
    greedy = [record(run("generate", path, *asked, "--temperature", "0", "--seed", seed)[1])["text"] for seed in "12"]
    assert greedy[0] == greedy[1]
    code, out, err = run("generate", model, *asked)
    assert (code, out) == (2, "") and "reads a passage as a whole" in err
    code, out, err = run("generate", path, "--block", "0")
    assert (code, out) == (2, "") and "`--block` is 0" in err
    code, out, err = run("generate", path, *asked, "--suffix", "c")
    assert (code, out) == (2, "") and "`--suffix` is not read" in err
    code, out, err = run("infill", "ab[2]c", path, "--block", "1")
    assert (code, out) == (2, "") and "nothing of the text behind a hole" in err
    (tmp_path / "text.txt").write_text("abcab" * 40)
    scores = [
        record(run("evaluate", path, str(tmp_path / "text.txt"), "--length", "9", "--block", block, "--json")[1])
        for block in "01"
    ]
    exact = scores[1]
    assert np.isclose(exact["masked_nelbo_bits_per_char"], exact["left_to_right_bits_per_char"])
    assert scores[0]["masked_nelbo_bits_per_char"] != exact["masked_nelbo_bits_per_char"]


def test_temperature_0_searches_for_the_likeliest_and_a_budget_is_its_width(run, model):
    argv = ["generate", model, "--length", "8", "--prompt", "ab", "--temperature", "0", "--json"]
    narrow, wide = (record(run(*argv, *more)[1]) for more in (["--budget", "16"], ["--seed", "3"]))
    assert narrow["force_evaluations"] == 1 + 6 * 2 and wide["force_evaluations"] == 1 + 6 * 16
    assert wide["text"] == record(run(*argv, "--seed", "4")[1])["text"] and wide["text"][0].startswith("ab")


def test_unmasking_at_temperature_0_takes_one_token_a_round_and_is_the_same_for_every_seed(run, model):
    argv = ["generate", model, "--length", "8", "--temperature", "0", "--remask-rounds", "0", "--json"]
    first, second = (record(run(*argv, "--seed", seed)[1]) for seed in ("1", "2"))
    assert first["text"] == second["text"]
    assert sorted({known for path in first["known"] for known in path})[-2:] == [7 / 8, 1.0]


def test_generate_in_a_pipe_is_the_text_alone(run, model):
    noise = ["--steps", "2", "--field", "joint", "--churn", "0", "--until", "0.5", "--front", "9"]
    code, out, err = run("generate", model, "--length", "8", *noise)
    assert code == 0 and len(out) == 9
    assert "11 force evaluations" in err and "every token is drawn" in err


def test_generate_on_a_terminal(run, model, monkeypatch):
    piped = run("generate", model, *SMALL, "--samples", "2")[1]
    monkeypatch.setenv("FORCE_COLOR", "1")
    code, out, _ = run("generate", model, *SMALL, "--samples", "2")
    assert code == 0 and "known" in out and "evaluations" in out
    # rich writes style by style; without its escapes the passage is the one of the pipe
    import re

    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out).replace("\r", "")
    assert all(text in plain for text in piped.rstrip("\n").split("\n\n"))


def test_infill_and_repair(run, model):
    asked = ["--match", ".*ca.*", "--avoid", "cc", "aa", "--temperature", "0.5", "--order", "certain"]
    rounds = ["--unmask", "--rounds", "2", "--remask-rounds", "0"]
    code, out, _ = run("infill", "ab[3]c", model, *rounds, *asked, "--json")
    (text,) = record(out)["text"]
    assert code == 0 and text[:2] == "ab" and text[5:] == "c" and set(record(out)) >= WRITTEN
    assert "ca" in text and "cc" not in text and "aa" not in text
    code, out, _ = run("repair", "abc", model, "--rate", "1e-6", "--json")
    found = record(out)
    assert code == 0 and found["text"] == "abc" and found["edits"] == []
    assert len(found["time"]) == len(found["free_energy"])
    code, out, err = run("repair", "abc", model, "--rate", "1e-6")
    assert (code, out) == (0, "abc\n") and "nothing changed" in err


def test_train_evaluate_info(run, tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("abc cab\n" * 64)
    out = tmp_path / "made" / "model.safetensors"
    argv = ["train", str(text), "--out", str(out), "--steps", "2", "--dim", "16", "--length", "8"]
    argv += ["--batch-size", "4", "--directory", str(tmp_path / "run"), "--json"]
    code, printed, _ = run(*argv)
    found = record(printed)
    assert code == 0 and found["steps"] == 2 and found["model"] == str(out)
    assert found["masked_nelbo_bits_per_char"] > 0 and found["standard_error"] > 0
    assert (tmp_path / "run" / "log.jsonl").read_text().count("\n") == 2
    assert ed.learn.notes(out)["masked_nelbo_bits_per_char"] == found["masked_nelbo_bits_per_char"]
    made: Any = ed.load(out)
    assert made.blocks == (0, 1) and made.energy.network.synapses["blocks"].shift == 1

    # as many windows as before: what is compiled for them serves again
    windows = found["characters"] // 8
    code, printed, words = run("evaluate", str(out), str(text), "--length", "8", "--windows", str(windows), "--json")
    assert "was trained on a part of" in words
    found = record(printed)
    curves = {"relaxation_curve", "noise_curve", "step_curve"}
    assert code == 0 and set(found) >= {"masked_nelbo_bits_per_char", "standard_error", "characters"} | curves
    assert found["characters"] == 8 * windows and all(len(pair) == 2 for pair in found["relaxation_curve"])

    code, printed, _ = run("info", str(out), "--json")
    found = record(printed)
    assert code == 0 and found["notes"]["steps"] == 2 and "Characters, 5 symbols" in found["tokenizer"]
    parts = found["parameters"]
    assert parts["all"] == sum(size for name, size in parts.items() if name != "all")


def test_train_begins_by_growing_and_reading(run, tmp_path, monkeypatch):
    text, parts = tmp_path / "text.txt", []
    text.write_text("abc cab\n" * 64)

    def fit(model, corpus, objective, **settings):
        parts.append((type(objective), settings["steps"], settings["batch_size"], settings["directory"]))
        # a state of a grown chain stands for one token, a fresh one for many
        assert model.energy.vocabulary.tables()[2].max(1).min() > 0.999
        return model

    monkeypatch.setattr(ed.learn, "fit", fit)
    out, folder = str(tmp_path / "m.safetensors"), str(tmp_path / "run")
    sizes = ["--steps", "5", "--depth", "1", "--pretraining", "3", "--dim", "16", "--length", "8", "--batch-size", "2"]
    code, printed, _ = run(
        "train", str(text), "--out", out, *sizes, "--directory", folder, "--fit-split-merge", "--json"
    )
    first, second = (
        (ed.learn.MaximumLikelihood, 3, 8, tmp_path / "run" / "pretraining"),
        (ed.learn.Denoising, 5, 2, tmp_path / "run"),
    )
    assert code == 0 and parts == [first, second] and record(printed)["pretraining"] == 3
    assert record(printed)["fit_split_merge"] is True and (tmp_path / "run" / "grown.safetensors").exists()


TINY = ["--length", "8", "--batch-size", "4"]


@pytest.fixture
def text(tmp_path) -> str:
    path = tmp_path / "text.txt"
    path.write_text("abc cab\n" * 64)
    return str(path)


def test_train_says_what_it_does_and_looks_at_the_held_out_text(run, text, tmp_path):
    said = {}
    for every in ("0", "2"):
        out = str(tmp_path / f"m{every}.safetensors")
        argv = ["train", text, "--out", out, "--steps", "4", "--dim", "16", *TINY, "--validate-every", every]
        code, printed, said[every] = run(*argv)
        assert code == 0 and printed.startswith(f"{out}: at most ")
    assert "460 tokens to learn from, 52 held out, Characters of 5 symbols" in said["0"]
    order = ["learn from", "training: compiling the program of one step", "training: step 1 of 4, loss"]
    assert [said["0"].index(words) for words in order] == sorted(said["0"].index(words) for words in order)
    assert "after" not in said["0"]
    # one look, after two of four steps, which does not change what is learned
    looks = [line for line in said["2"].splitlines() if line.startswith("after 2 steps: ")]
    assert len(looks) == 1 and "bits per character on held-out text; writes: " in looks[0]
    # above it the loss of these two steps, as a curve between its ends
    assert re.search(r"^loss (\d+\.\d{3}) (█▁|▁█|▁▁) (\d+\.\d{3})$", said["2"], re.M) and "▁" not in said["0"]
    first, second = (ed.load(tmp_path / f"m{every}.safetensors") for every in ("0", "2"))
    assert all((a == b).all() for a, b in zip(*map(jax.tree.leaves, (first, second)), strict=True))


def test_time_left_is_that_of_all_stages(capsys, monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr("energy_dllm._cli._progress.time.monotonic", lambda: float(next(clock)))
    monkeypatch.setattr("energy_dllm._cli._progress.EVERY", 0.0)
    with Stages({"pretraining": (4, 0.5), "training": (10, 1.0)}, done=2) as stages:
        stages.compiling("pretraining", "batches")
        for _ in range(2):
            stages.advance(1.0)
        # one second a step: 2 of these are left, and 8 of the training, each twice as long
        assert capsys.readouterr().err.splitlines()[-1].endswith("about 18 s left")
        stages.compiling("training", "batches")
        for _ in range(8):
            stages.advance(1.0)
    lines = capsys.readouterr().err.splitlines()
    stages.losses = [5.0] * 60 + [1.0, 3.0] * 18
    assert stages.curve() == f"loss 5.000 {'█' * 15}{'▁' * 9} 2.000" and len(stages.curve().split()[2]) == 24
    assert "step 3 of 10" in lines[1] and lines[1].endswith("not known yet") and lines[-1].endswith("about 0 s left")


def test_train_starts_from_given_weights(run, model, text, tmp_path, monkeypatch):
    seen = {}

    def fit(start, corpus, objective, **settings):
        seen.update(start=start, corpus=corpus, steps=settings["steps"])
        return start

    monkeypatch.setattr(ed.learn, "fit", fit)
    out = str(tmp_path / "mine.safetensors")
    code, printed, _ = run("train", text, "--init", model, "--out", out, "--steps", "5", *TINY, "--json")
    given = ed.load(model)
    assert code == 0 and record(printed)["init"] == model and record(printed)["dim"] == 16
    assert seen["corpus"].tokenizer == given.tokenizer and len(seen["corpus"].validation) == 52
    assert all((a == b).all() for a, b in zip(*map(jax.tree.leaves, (given, seen["start"])), strict=True))
    for flags in (["--dim", "8"], ["--depth", "1"], ["--tokenizer", "bytes"], ["--pretraining", "2"]):
        code, printed, err = run("train", text, "--init", model, "--out", out, *flags)
        assert (code, printed) == (2, "") and f"`{flags[0]}` cannot be used with `--init`" in err
    (tmp_path / "other.txt").write_text("xyz" * 200)
    code, _, err = run("train", str(tmp_path / "other.txt"), "--init", model, "--out", out)
    assert code == 2 and "outside the alphabet of 5" in err


def test_train_chooses_the_tokenizer(run, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(ed.learn, "fit", lambda start, corpus, *_, **settings: seen.append(corpus) or start)
    monkeypatch.setattr(ed.learn, "evaluate", lambda *_, **settings: seen.append(0) or Scored())
    characters = [*map(chr, range(0x4E00, 0x4E00 + 300))]
    shuffled = [random.Random(n).sample(characters, 300) for n in range(4)]
    (tmp_path / "many.txt").write_text("".join(map("".join, shuffled)), encoding="utf-8")
    pytest.importorskip("tokenizers")
    for flags in ([], *(["--tokenizer", kind] for kind in ("characters", "bytes", "byte-pairs"))):
        argv = ["train", str(tmp_path / "many.txt"), "--out", str(tmp_path / "m"), "--dim", "16", *TINY, *flags]
        code, _, err = run(*argv, "--validate-every", "0")
        assert code == 0, err
    kinds = [(type(corpus.tokenizer).__name__, corpus.tokenizer.size) for corpus in seen[::2]]
    assert kinds[:3] == [("Bytes", 256), ("Characters", 300), ("Bytes", 256)]
    assert kinds[3][0] == "BytePairs" and 256 < kinds[3][1] <= 1024
    argv = ["train", str(tmp_path / "many.txt"), "--out", str(tmp_path / "m"), *TINY, "--vocabulary"]
    assert run(*argv, "257", "--tokenizer", "byte-pairs", "--validate-every", "0")[0] == 0
    assert seen[-2].tokenizer.size == 257
    for flags in (["257"], ["255", "--tokenizer", "byte-pairs"]):
        code, _, err = run(*argv, *flags)
        assert code == 2 and "`--vocabulary` is 25" in err


class Scored:
    def as_dict(self):
        return {"masked_nelbo_bits_per_char": 1.0, "standard_error": 0.0}


def test_prompt_from_a_file_or_a_pipe_and_text_into_a_file(run, model, tmp_path, monkeypatch):
    (tmp_path / "prompt.txt").write_bytes(b"\xef\xbb\xbfca\r\nb\n")
    written = tmp_path / "written.txt"
    code, out, _ = run("generate", model, *SMALL, "--prompt-file", str(tmp_path / "prompt.txt"), "-o", str(written))
    assert code == 0 and out.startswith("ca\nb") and written.read_text() == out
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"ca\nb\n")))
    code, again, _ = run("generate", model, *SMALL, "--prompt", "-", "--json", "--out", str(written))
    assert code == 0 and record(again)["text"] == [out[:-1]] and written.read_text() == again


def test_settings_are_checked_before_any_work(run, tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("abc cab\n" * 64)

    def fit(*args, **settings):
        raise AssertionError("trained")

    monkeypatch.setattr(ed.learn, "fit", fit)
    sizes = ["--length", "4", "--dim", "16", "--depth", "1", "--pretraining", "5"]
    for wrong, words in ((["--steps", "0"], "`--steps` is 0"), (["--learning-rate", "-1"], "`--learning-rate` is -1")):
        code, out, err = run("train", str(text), "--out", str(tmp_path / "m"), *sizes, *wrong)
        assert (code, out) == (2, "") and words in err


def test_tables(run, model, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("abc cab\n" * 8)
    code, out, _ = run("evaluate", model, str(text), "--length", "8", "--windows", "2")
    assert code == 0 and "bits per character" in out and "█" in out
    code, out, _ = run("info", model)
    assert code == 0 and "pairwise" in out and "tiny.safetensors" in out
    assert "shipped" in run("info")[1]
    noted, words = str(tmp_path / "noted.safetensors"), "words of a sentence " * 9
    scores = {"test": {"bits": 1.23456789, "left": None, "curve": [[1, 2]], "blocks": {"1": {"bits": 2.0}}}}
    ed.save(noted, ed.load(model), notes={"limits": words, "before": [{"seconds": 3}], "scores": scores})
    out = " ".join(run("info", noted)[1].split())
    assert f"limits: {words}" in f"{out} " and "scores: test (bits 1.235, blocks (1 (bits 2)))" in out
    assert "before" not in out
    code, out, _ = run("info", model, "--size", "--json")
    parts = record(out)["bytes"]
    assert code == 0 and parts.pop("all") == sum(parts.values()) == os.path.getsize(model)
    twin = str(tmp_path / "twin.safetensors")
    ed.save(twin, ed.learn.MaskedDiffusion(5, dim=8, depth=1, heads=2, key=jax.random.key(0)))
    assert record(run("info", twin, "--json")[1])["kind"] == "MaskedDiffusion"
    code, _, words = run("evaluate", twin, str(text))
    assert code == 2 and "is a MaskedDiffusion; expected an EnergyDLLM" in words
    assert parts["energy.vocabulary"] > 0 and parts["description"] > 0


def test_inspect_wants_to_know_what(run, model):
    code, out, err = run("inspect", model)
    assert (code, out) == (2, "") and "`--out` is missing; expected a folder for the figures, or --check" in err


def test_inspect_prints_where_it_wrote(run, model, tmp_path, monkeypatch):
    asked = {}

    def inspect(loaded, directory, **options):
        asked.update(options, loaded=loaded, directory=directory)
        return [directory / "energy.png"]

    monkeypatch.setattr(ed.probe, "inspect", inspect, raising=False)
    code, out, _ = run("inspect", model, "-o", str(tmp_path), "--prompt", "ab", "--length", "16")
    assert (code, out) == (0, f"{tmp_path / 'energy.png'}\n")
    assert asked["prompt"] == "ab" and asked["length"] == 16 and asked["directory"] == tmp_path


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["generate", "nowhere.safetensors"], "`MODEL` nowhere.safetensors is neither a file nor a shipped model"),
        (["generate", "BROKEN"], "`MODEL` BROKEN is truncated or not a safetensors file"),
        (["generate", "FOLDER"], "is not a file"),
        (["generate", "MODEL", "--length", "0"], "`--length` is 0"),
        (["generate", "MODEL", "--steps", "-5"], "`--steps` is -5"),
        (["generate", "MODEL", "--unmask", "--steps", "5"], "`--steps` cannot be used with `--unmask`"),
        (["generate", "MODEL", "--unmask", "--redraw", "0.5"], "`--redraw` cannot be used with `--unmask`"),
        (["generate", "MODEL", "--rounds", "0"], "`--rounds` is 0"),
        (["generate", "MODEL", "--best-of", "0"], "`--best-of` is 0"),
        (["generate", "MODEL", "--unmask", "--rounds", "0"], "`--rounds` is 0"),
        (["generate", "MODEL", "--temperature", "-1"], "`--temperature` is -1"),
        (["generate", "MODEL", "--window", "1"], "`--window` is 1"),
        (["generate", "MODEL", "--match", "a{3}"], "matches nothing of 64 tokens; it can have 3"),
        (["generate", "MODEL", "--match", "("], "not closed"),
        (["generate", "MODEL", "--match", "xyz"], "not in the alphabet"),
        (["generate", "MODEL", "--prompt", "ab", "--avoid", "ab"], "`--avoid`"),
        (["generate", "MODEL", "--samples", "0"], "`--samples` is 0"),
        (["generate", "MODEL", "--churn", "-1"], "`--churn` is -1"),
        (["generate", "MODEL", "--until", "2"], "`--until` is 2"),
        (["generate", "MODEL", "--front", "0"], "`--front` is 0"),
        (["generate", "MODEL", "--seed", "-1"], "`--seed` is -1"),
        (["generate", "MODEL", "--prompt", "xyz"], "outside the alphabet"),
        (["generate", "MODEL", "--prompt", "abcabcabc", "--length", "8"], "at least one token"),
        (["infill", "ab[x]", "MODEL"], "malformed hole"),
        (["infill", "abc", "MODEL"], "has no hole"),
        (["repair", "", "MODEL"], "`TEXT` is empty"),
        (["repair", "abc", "MODEL", "--rate", "2"], "`--rate` is 2"),
        (["generate", "MODEL", "--prompt-file", "nowhere"], "is not a file"),
        (["generate", "MODEL", "--prompt-file", "LATIN"], "is not UTF-8"),
        (["generate", "MODEL", "--prompt-file", "TEXT", "--prompt", "a"], "are both given"),
        (["generate", "MODEL", "--prompt-file", "TEXT"], "at least one token"),
        (["generate", "MODEL", "--out", "FOLDER"], "is a folder"),
        (["train", "nowhere.txt", "--out", "m"], "`SOURCE` 'nowhere.txt' does not exist"),
        (
            ["train", "TEXT", "--out", "m", "--init", "nowhere"],
            "`--init` nowhere is neither a file",
        ),
        (["train", "TEXT", "--out", "m", "--validate-every", "-1"], "`--validate-every` is -1"),
        (["train", "EMPTY", "--out", "m"], "is empty"),
        (["train", "LATIN", "--out", "m"], "is not UTF-8"),
        (["train", "SHORT", "--out", "m"], "at least two windows"),
        (["train", "TEXT", "--out", "FOLDER"], "is a folder"),
        (["train", "TEXT", "--out", "m", "--length", "4", "--steps", "0"], "`--steps` is 0"),
        (["train", "TEXT", "--out", "m", "--length", "4", "--dim", "-8"], "`--dim`=-8"),
        (["train", "TEXT", "--out", "m", "--length", "4", "--pretraining", "-1"], "`--pretraining` is -1"),
        (["evaluate", "MODEL", "nowhere.txt"], "`FILE` 'nowhere.txt' does not exist"),
        (["evaluate", "MODEL", "FOREIGN"], "outside the alphabet"),
        (["evaluate", "MODEL", "SHORT"], "window"),
        (["info", "--size"], "`--size` is of a model"),
        (["info", "nowhere"], "`MODEL` nowhere is neither a file nor a shipped model"),
    ],
)
def test_bad_input_is_one_sentence(run, model, tmp_path, monkeypatch, argv, words):
    monkeypatch.chdir(tmp_path)
    files = {
        "BROKEN": b"\x08\x00\x00\x00",
        "EMPTY": b"",
        "LATIN": b"caf\xe9 " * 100,
        "SHORT": b"abc",
        "TEXT": b"abc cab\n" * 64,
        "FOREIGN": b"xyz" * 100,
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "FOLDER").mkdir()
    for flags in ([], ["--json"]):
        code, out, err = run(*[model if word == "MODEL" else word for word in argv], *flags)
        assert (code, out) == (2, "") and words in err
        assert err.startswith("energy-dllm: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    "argv", [[], ["dance"], ["generate", "--bogus"], ["generate", "--length", "many"], ["train", "x.txt"]]
)
def test_words_that_mean_nothing(run, argv):
    code, out, err = run(*argv)
    assert (code, out) == (2, "") and err and "Traceback" not in err


def test_interruption(run, monkeypatch):
    def wait(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("energy_dllm._cli._write.load_model", wait)
    code, out, err = run("generate")
    assert (code, out, err) == (130, "", "energy-dllm: interrupted\n")


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_generate_prints_what_stands_when_it_is_interrupted(run, model, monkeypatch, flags):
    real = ed.sampling.generate

    def generate(*args, watch, **options):
        def look(so_far):
            watch(so_far)
            raise KeyboardInterrupt

        return real(*args, watch=look, **options)

    monkeypatch.setattr("energy_dllm.sampling.generate", generate)
    code, out, err = run("generate", model, *SMALL, "--prompt", "cab", *flags)
    assert code == 130 and err.endswith("energy-dllm: interrupted\n")
    text = record(out)["text"][0] if flags else out.removesuffix("\n")
    assert len(text) == 8 and text.startswith("cab")
    assert not flags or record(out)["result"] == "interrupted"


def test_places_of_results_are_tried_before_the_work(run, model, tmp_path, monkeypatch):
    def work(*args, **options):
        raise AssertionError("worked")

    (tmp_path / "file").write_text("abc cab\n" * 64)
    monkeypatch.setattr("energy_dllm._cli._train.corpus_of", work)
    monkeypatch.setattr("energy_dllm._cli.load_model", work)
    monkeypatch.setattr("energy_dllm._cli._export.load_model", work)
    blocked = str(tmp_path / "file" / "out")
    for argv in (
        ["train", str(tmp_path / "file"), "--out", blocked],
        ["train", str(tmp_path / "file"), "--out", str(tmp_path / "m"), "--directory", blocked],
        ["train", str(tmp_path / "file"), "--out", "/dev/null"],
        ["inspect", model, "-o", blocked],
        ["inspect", model, "-o", f"{blocked}.html"],
        ["inspect", model, "-o", str(tmp_path / "file")],
        ["export", model, "-o", blocked],
    ):
        code, out, err = run(*argv)
        assert (code, out) == (2, "") and err.count("\n") == 1, argv
        assert "cannot be written" in err or "expected a" in err, argv
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, out, err = run("inspect", model, "-o", str(tmp_path / "report"))
    assert (code, out) == (2, "") and "plots need matplotlib" in err


def test_an_interrupted_training_goes_on_with_the_same_command(tmp_path):
    (tmp_path / "text.txt").write_text("abc cab\n" * 64)
    out, folder = tmp_path / "m.safetensors", tmp_path / "m.safetensors.training"
    argv = [sys.executable, "-m", "energy_dllm", "train", str(tmp_path / "text.txt"), "--out", str(out)]
    argv += "--steps 400 --pretraining 0 --dim 16 --length 8 --batch-size 2 --blocks 0".split()
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    process = subprocess.Popen(argv, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
    while not (folder / "log.jsonl").exists() or not (folder / "log.jsonl").stat().st_size:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    last = said.splitlines()[-1]
    assert process.returncode == 143 and last.startswith("energy-dllm: stopped after step")
    assert last.endswith(f"of 400, kept in {folder}; to go on from there, run the same again")
    assert "Traceback" not in said
    steps = len((folder / "log.jsonl").read_text().splitlines())
    assert 0 < steps < 400 and ed.load(folder / "checkpoint.safetensors").size == 5 and not out.exists()
    went_on = subprocess.run(argv, cwd=ROOT, env=env, check=True, capture_output=True, text=True)
    assert f"going on after step {steps} of 400, kept in {folder}" in went_on.stderr
    assert out.exists() and not folder.exists()


def test_a_second_signal_ends_what_does_not_look_at_signals():
    """Inside of a compiler Python runs nothing; here the first signal is swallowed instead."""
    code = (
        "import os, signal, time\nfrom energy_dllm._cli._signals import Interruptible\n"
        "with Interruptible():\n    signal.signal(signal.SIGINT, lambda *_: None)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(0.2)\n    print('first', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(20)\n    print('second')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (130, "first\n")


def test_export(run, model, tmp_path):
    file = tmp_path / "memory.cir"
    code, out, err = run("export", model, "-o", str(file), "--prompt", "ab", "--length", "3", "--json")
    found = record(out)
    assert (code, err) == (0, "") and found["file"] == str(file)
    assert found["states"] == 3 * 16 and found["elements"] > 500 and found["expected_seconds"] >= 0
    deck = file.read_text()
    assert deck.endswith(".end\n") and deck.count("\nc") == found["states"]
    code, out, err = run("export", model, "-o", str(file), "--prompt", "ab", "--length", "3")
    assert code == 0 and out.startswith(f"{file}: ") and "ngspice -b" in err and file.read_text() == deck


def test_a_circuit_has_the_time_to_come_to_rest(run, model, tmp_path):
    """Of a deep model one full step is the relaxation, where a circuit is `1 - e^-t` of the way."""
    deep = ed.EnergyDLLM(ed.data.Characters("ab "), dim=8, key=jax.random.key(0))
    ed.save(tmp_path / "deep.safetensors", deep)
    argv = "--length", "2", "-o", str(tmp_path / "m.cir"), "--json"
    found = record(run("export", str(tmp_path / "deep.safetensors"), *argv)[1])
    assert deep.steps * deep.step == 1 and np.exp(-found["duration"]) < 1e-3
    layer = ed.load(model)
    assert record(run("export", model, *argv)[1])["duration"] == layer.steps * layer.step


def test_export_int8(run, tmp_path):
    model, file = str(tmp_path / "whole.safetensors"), tmp_path / "small.safetensors"
    ed.save(model, ed.EnergyDLLM(ed.data.Characters("ab "), dim=64, key=jax.random.key(0)))
    code, out, err = run("export", model, "-o", str(file), "--int8", "--json")
    found = record(out)
    assert (code, err) == (0, "") and found["bytes"] == file.stat().st_size < found["bytes_before"]
    assert ed.load(file).tokenizer == ed.load(model).tokenizer
    for wrong in (["--run"], ["--length", "3"], ["-o", str(tmp_path / "memory.cir")]):
        code, out, err = run("export", model, "-o", str(file), "--int8", *wrong)
        assert (code, out) == (2, "") and "`--int8` writes weights" in err


@pytest.mark.skipif(
    shutil.which(os.environ.get("ENERGY_DLLM_NGSPICE") or "ngspice") is None,
    reason="ngspice is not installed (apt install ngspice)",
)
def test_export_runs(run, model, tmp_path):
    argv = ["export", model, "-o", str(tmp_path / "m.cir"), "--prompt", "ab", "--length", "3", "--run"]
    found = record(run(*argv, "--json")[1])
    assert found["relative_error"] < 1e-3 and found["text"] == found["diffrax"] and found["text"].startswith("ab")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--length", "0"], "`--length` is 0"),
        (["--prompt", "abc"], "`--prompt` has 3 tokens but `--length` is 1"),
        (["--limit", "20"], "elements, about"),
        (["--duration", "-1"], "`--duration` is -1"),
        (["--run"], "apt install ngspice"),
    ],
)
def test_export_bad_input_is_one_sentence(run, model, tmp_path, monkeypatch, argv, words):
    monkeypatch.setenv("ENERGY_DLLM_NGSPICE", str(tmp_path / "none"))
    code, out, err = run("export", model, "-o", str(tmp_path / "m.cir"), *argv)
    assert (code, out) == (2, "") and err.startswith("energy-dllm: ") and words in err and err.count("\n") == 1
    assert not (tmp_path / "m.cir").exists()
    assert run("export", model, "-o", str(tmp_path))[0] == 2


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help(run, command):
    code, out, err = run(*filter(None, [command]), "--help")
    assert (code, err) == (0, "")
    assert "energy-dllm" in out and ("--json" in out or command is None)
    assert command is not None or len(out.splitlines()) < 40  # a screen: examples are in the help of each


def test_version(run):
    code, out, err = run("--version")
    assert (code, out, err) == (0, f"energy-dllm {ed.__version__}\n", "")


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom energy_dllm._cli import main\n"
        "try:\n    main(['generate', '--help'])\n"
        "finally:\n    heavy = {'jax', 'numpy', 'equinox', 'diffrax', 'optax'} & set(sys.modules)\n"
        "    print(sorted(heavy), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0 and "--prompt" in ran.stdout
    assert ran.stderr.strip() == "[]"


def test_module_is_the_command():
    argv = [sys.executable, "-m", "energy_dllm", "generate", "nowhere"]
    ran = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 2 and ran.stderr.startswith("energy-dllm: `MODEL` nowhere is neither")


@pytest.mark.parametrize("before", ["", "import jax; ", "import os; os.environ['EQX_ON_ERROR'] = 'raise'; "])
def test_compilations_are_kept_unless_jax_is_at_work_or_the_user_says_otherwise(before, tmp_path):
    code = (
        f"{before}from energy_dllm._cli._compiled import remember\nremember()\nimport os\n"
        "print(os.environ.get('JAX_COMPILATION_CACHE_DIR'), os.environ.get('EQX_ON_ERROR'))"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "EQX_"))}
    env["XDG_CACHE_HOME"] = str(tmp_path)
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    kept = str(tmp_path / "energy_dllm")
    expected = {"": f"{kept} nan", "import jax; ": "None None"}.get(before, f"{kept} raise")
    assert ran.stdout.strip() == expected


def test_what_takes_long_says_what_it_is_and_how_long_it_took(capsys):
    with busy("measuring", first=0.02, every=0.02):
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "measuring ..." and lines[1] == "measuring ... 0 s" and len(lines) < 12
    with busy("measuring"):
        pass
    assert capsys.readouterr().err == ""


def test_commands_of_a_model_of_byte_pairs(run, tmp_path, monkeypatch):
    """Prompts and holes are text, the record too; a pattern is about the text; no library is needed."""
    pytest.importorskip("tokenizers")
    pairs = ed.data.BytePairs.from_text("the cat né the dog né " * 9, size=266)
    model = str(tmp_path / "pairs.safetensors")
    ed.save(model, ed.EnergyDLLM(pairs, dim=16, depth=1, states=0, key=jax.random.key(0)))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    budget = ["--unmask", "--rounds", "2", "--remask-rounds", "0", "--json"]
    code, out, err = run("generate", model, *budget, "--length", "9", "--prompt", "the né", "--match", "the né[a-z ]*")
    assert code == 0, err
    (text,) = record(out)["text"]
    assert re.fullmatch("the né[a-z ]*", text)
    code, out, err = run("infill", "the [3] né", model, *budget, "--stream")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and len(lines) > 1, err
    for line in lines[1:]:
        assert line["text"][0].startswith("the ") and line["text"][0].endswith(" né")
