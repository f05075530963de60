"""A model under the lm-evaluation-harness: its answers are those of one normalised law, read from left to right."""

import itertools
import json
import math
import os
import sys
import tracemalloc
import types
from pathlib import Path
from typing import Any

import families
import jax
import numpy as np
import pytest

import energy_dllm as ed


TASKS = Path(__file__).parent / "harness"


def requests(*rows):
    return [types.SimpleNamespace(args=row) for row in rows]


@pytest.fixture(scope="module", params=["as a whole", "left to right"])
def model(request):
    if request.param == "as a whole":
        return families.small_model("ab")
    return families.left_to_right("ab")


@pytest.fixture
def standing(monkeypatch):
    """The base class of the harness, where it is not installed."""
    module = types.ModuleType("lm_eval.api.model")
    module.LM = type("LM", (), {"__init__": lambda self: setattr(self, "rank", 0)})  # pyright: ignore
    for name in ("lm_eval", "lm_eval.api"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.LM


def test_likelihoods_are_one_normalised_law(model, standing):
    lm = ed.learn.harness(model, window=8)
    assert isinstance(lm, standing) and lm.rank == 0
    texts = ["".join(letters) for letters in itertools.product("ab", repeat=4)]
    for context in ("", "abbab"):
        nats = [nats for nats, _ in lm.loglikelihood(requests(*((context, text) for text in texts)))]
        assert math.isclose(sum(map(math.exp, nats)), 1, rel_tol=1e-5) and np.ptp(nats) > 0.01
    # the chain rule, cut anywhere, and beyond the window
    whole = "abbabaabbbab"
    (rolled,) = lm.loglikelihood_rolling(requests((whole,)))
    parts = lm.loglikelihood(requests(("", whole[:5]), (whole[:5], whole[5:]), (whole, "")))
    assert math.isclose(rolled, sum(nats for nats, _ in parts), rel_tol=1e-5) and parts[2] == (0.0, True)
    far = lm.loglikelihood(requests(("a" + whole, "b"), ("b" + whole, "b"), (whole[:-1] + "a", "b")))
    assert far[0] == far[1] != far[2]  # the last seven tokens are all that it sees
    if 1 in model.blocks:
        ids = model.encode(whole[:8])
        exact = float(model.energy.in_blocks(1).log_likelihood(ids))
        assert math.isclose(lm.loglikelihood_rolling(requests((whole[:8],)))[0], exact, rel_tol=1e-5)


def test_byte_pairs_are_those_of_the_whole_text(standing):
    """Wherever a text is cut; a word has the space before it, and what is half of a pair is not asked by itself."""
    tokenizer = ed.load("stories").tokenizer
    model = ed.EnergyDLLM(tokenizer, dim=16, blocks=(0, 1), shift=True, key=jax.random.key(0))
    text = "There was a little girl"
    ids = model.encode(text)
    energy: Any = model.energy
    each = np.asarray(energy.in_order(ids))
    assert tokenizer.by_token(np.asarray(ids))[-2:] == [" little", " girl"]
    cuts = {"There was a little ": -1, "There was a little": -1, "There was a lit": -2, text: len(ids)}
    rows = requests(*((begins, text[len(begins) :]) for begins in cuts))
    found = [nats for nats, _ in ed.learn.harness(model, window=16).loglikelihood(rows)]
    assert np.allclose(found, [each[start:].sum() for start in cuts.values()], rtol=1e-5)


def test_what_it_writes_is_what_it_calls_greedy(model, standing):
    lm = ed.learn.harness(model, window=8)
    (made,) = lm.generate_until(requests(("ab", {"until": [], "max_gen_toks": 5})))
    texts = ["".join(letters) for letters in itertools.product("ab", repeat=5)]
    greedy = lm.loglikelihood(requests(*(("ab", text) for text in texts)))
    assert [text for text, (_, best) in zip(texts, greedy, strict=True) if best] == [made]
    stop = made[2]
    (short,) = lm.generate_until(requests(("ab", {"until": stop, "max_gen_toks": 5})))
    assert short == made[: made.index(stop)]


def test_a_long_text_is_kept_once(standing):
    """Not for each of its tokens: of 3,000 that were 72 MB, and of a book more than there is."""
    lm, text = ed.learn.harness(families.left_to_right("ab"), window=64), "abbabaabbb" * 300
    lm.loglikelihood_rolling(requests((text,)))  # compiled
    tracemalloc.start()
    lm.loglikelihood_rolling(requests((text,)))
    assert tracemalloc.get_traced_memory()[1] < 8e6
    tracemalloc.stop()


def test_what_cannot_be_asked_is_refused(model, monkeypatch, standing):
    with pytest.raises(ValueError, match="`window` is 1"):
        ed.learn.harness(model, window=1)
    with pytest.raises(ValueError, match="outside the alphabet"):
        ed.learn.harness(model).loglikelihood(requests(("a", "z")))
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "lm_eval.api.model")
    with pytest.raises(ImportError, match=r"\.\[eval\]"):
        ed.learn.harness(model)


@pytest.mark.filterwarnings("default")
def test_the_harness_itself_on_its_own_task_files(tmp_path, monkeypatch):
    """A model that is asked about what it thinks most likely is always right, and about the rest never."""
    reason = "lm_eval is large, and so not in the extra `test`: pip install '.[eval]'"
    lm_eval = pytest.importorskip("lm_eval", reason=reason)
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    model = families.small_model("abc")
    lm = ed.learn.harness(model, window=8)
    rows = []
    for n, begins in enumerate(("ab", "ba", "cab", "bb")):
        (written,) = lm.generate_until(requests((begins, {"until": ["c"], "max_gen_toks": 3})))
        ends = ["a", "b", "c"] if n else ["c", "b", "a"]
        best = int(np.argmax([nats for nats, _ in lm.loglikelihood(requests(*((begins, end) for end in ends)))]))
        rows.append({"begins": begins, "ends": ends, "right": best, "written": written})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    (tmp_path / "words.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for file in TASKS.glob("*.yaml"):
        (tmp_path / file.name).write_text(file.read_text().replace("words.jsonl", os.fspath(tmp_path / "words.jsonl")))
    tasks = TaskManager(include_path=str(tmp_path), include_defaults=False)
    found = lm_eval.simple_evaluate(model=lm, tasks=["words", "continued"], task_manager=tasks)
    assert found is not None and found["results"]["words"]["acc,none"] == 1.0
    assert found["results"]["continued"]["exact_match,none"] == 1.0
