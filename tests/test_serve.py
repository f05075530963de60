"""The server, over HTTP: by the `openai` client, and by requests that are wrong."""

import asyncio
import collections
import concurrent.futures
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import urllib.error
import urllib.request
from typing import Any

import equinox as eqx
import families
import jax
import numpy as np
import openai
import pytest
from served import Running, driven, refused

import energy_dllm as ed
from energy_dllm.data import Characters, RegexDFA
from energy_dllm.serve import _automaton
from energy_dllm.serve._automaton import Strict, line_of
from energy_dllm.serve._body import parsed
from energy_dllm.serve._errors import APIError
from energy_dllm.serve._metrics import Metrics
from energy_dllm.serve._plan import of_answer
from energy_dllm.serve._requests import TEXT, ChatRequest, CompletionRequest
from energy_dllm.serve._run import listen
from energy_dllm.serve._schema import pattern_of
from energy_dllm.serve._write import Choice, written


ALPHABET = 'abcdefghijklmnopqrstuvwxyz0123456789{}[]":,.- \n'
LENGTH = 32


@pytest.fixture(scope="module")
def model():
    return families.small_model(ALPHABET)


@pytest.fixture(scope="module")
def running(model):
    memory = ed.TextMemory(["how do i reset my password", "where is my parcel"])
    app = ed.serve.application({"toy": model}, memory=memory, lengths=(LENGTH,), batches=(1,), queue=16)
    with Running(app) as running:
        yield running


@pytest.fixture(scope="module")
def client(running):
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=240) as client:
        yield client


def test_a_completion_is_what_generate_writes(client, model):
    made = client.completions.create(model="toy", prompt="abc", max_tokens=LENGTH - 3, seed=7, n=2, logprobs=2)
    written = ed.generate(model, length=LENGTH, prompt="abc", seed=7, samples=2)
    assert ["abc" + choice.text for choice in made.choices] == written.texts
    assert np.isclose(made.model_extra["energy_dllm"]["free_energy"], written.free_energy[:, -1], rtol=1e-4).all()
    assert made.usage.completion_tokens == 2 * (LENGTH - 3) and made.choices[0].finish_reason == "length"
    logprobs = made.choices[0].logprobs
    assert "".join(logprobs.tokens) == made.choices[0].text and logprobs.text_offset[:3] == [0, 1, 2]
    assert all(p == top.get(token, p) for token, p, top in zip(*map(list, (
        logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs)), strict=True))  # fmt: skip


def test_a_token_that_is_a_part_of_a_character_is_named_by_its_bytes():
    """`é€` is five bytes: the second begins where the first character does, and no two bytes have one name."""
    bytewise = ed.EnergyDLLM(ed.data.Bytes(), dim=16, depth=2, memories=8, key=jax.random.key(0))
    app = ed.serve.application({"bytes": bytewise}, lengths=(32,), batches=(1,))
    with Running(app) as running, openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", timeout=240) as client:
        asked: Any = dict(model="bytes", max_tokens=7, seed=1, extra_body={"regex": "(é|è|ê|ë)€[x-z]y"})
        made = client.completions.create(prompt="a", logprobs=4, **asked).choices[0]
        found = made.logprobs
        assert made.text[1] == "€" and made.text[3] == "y" and len(found.tokens) == 7
        assert found.text_offset == [0, 0, 1, 1, 1, 2, 3] and found.tokens[-1] == "y"
        assert found.tokens[0] == r"bytes:\xc3" and found.tokens[2:5] == [rf"bytes:\x{n:x}" for n in "€".encode()]
        assert len(found.top_logprobs[1]) == 4  # the four that may follow are continuation bytes
        chat = client.chat.completions.create(
            messages=[{"role": "user", "content": "a"}], logprobs=True, top_logprobs=4, **asked
        ).choices[0]
        spelt = bytes(n for token in chat.logprobs.content for n in token.bytes)
        assert spelt.decode() == chat.message.content


def test_the_rest_of_a_shorter_one_is_cut_away(client):
    long, short = (
        client.completions.create(model="toy", prompt="abc", max_tokens=n, seed=7).choices[0].text for n in (20, 5)
    )
    assert short == long[:5] and len(long) == 20


def test_a_stream_is_text_that_stands(client):
    """Deltas add up to what the same request is answered at once; the first comes before a quarter of the budget is
    spent, and as large a share stands as is spent of it in the descent."""
    asked = dict(model="toy", prompt="abc", max_tokens=24, seed=3)
    start, arrived, text, moments = time.monotonic(), [], "", []
    stream = client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    for chunk in stream:
        if chunk.choices:
            arrived.append((time.monotonic() - start, len(chunk.choices[0].text)))
            text += chunk.choices[0].text
            moments.append(chunk.model_extra["energy_dllm"])
        else:
            assert chunk.usage.completion_tokens == 24
    whole = client.completions.create(**asked, extra_body={"commit": True})
    assert text == whole.choices[0].text and len(text) == 24
    spent = [moment["force_evaluations"] for moment in moments]
    assert spent == [4, 8, 12, 16, *range(17, 26)] and moments[0]["budget"] == 25
    assert arrived[0][1] == 4 and sum(count for _, count in arrived[:4]) == 16
    assert moments[0]["sigma"] > moments[3]["sigma"] and moments[0]["free_energy"] > moments[3]["free_energy"]
    for moment in moments:
        assert "".join(moment["tokens"]).startswith(("abc" + text)[: moment["stands"]])
    first, last = arrived[0][0], arrived[-1][0]
    assert first < last


def test_text_before_and_behind(client):
    made = client.completions.create(
        model="toy", prompt="abc", suffix="xyz", max_tokens=10, seed=1, echo=True, logprobs=0
    )
    text = made.choices[0].text
    assert len(text) == 16 and text.startswith("abc") and text.endswith("xyz")
    offsets, tokens = made.choices[0].logprobs.text_offset, made.choices[0].logprobs.tokens
    assert [text[n] for n in offsets] == tokens and offsets[0] == 0
    nats = made.choices[0].logprobs.token_logprobs
    assert nats[:3] == [None] * 3 and None not in nats[3:] and len(nats) == 13  # the passage is written as a whole
    asked: Any = dict(model="toy", prompt="abc", suffix="xyz", max_tokens=10, seed=1, echo=True)
    parts: Any = client.completions.create(**asked, stream=True, extra_body={"commit": False})
    assert "".join(part.choices[0].text for part in parts) == text


def test_several_prompts_and_stops(client):
    full = client.completions.create(model="toy", prompt=["abc", "xyz"], max_tokens=20, seed=2)
    for choice in full.choices:
        stop = choice.text[7:9]
        for stream in (False, True):
            prompt = ["abc", "xyz"][choice.index]
            made = client.completions.create(
                model="toy", prompt=prompt, max_tokens=20, seed=2, stop=[stop, "0" * 30], stream=stream,
                extra_body={"commit": False},
            )  # fmt: skip
            cut = "".join(chunk.choices[0].text for chunk in made) if stream else made.choices[0].text
            wanted = client.completions.create(model="toy", prompt=prompt, max_tokens=20, seed=2).choices[0].text
            assert cut == wanted[: wanted.index(wanted[7:9])] if stop in wanted else wanted


def test_a_long_answer_is_written_window_after_window(client):
    made = client.completions.create(model="toy", prompt="abc" * 30, max_tokens=70, seed=2)
    again = client.completions.create(model="toy", prompt="abc" * 30, max_tokens=70, seed=2)
    assert len(made.choices[0].text) == 70 and made.choices[0].text == again.choices[0].text
    assert made.model_extra["energy_dllm"]["force_evaluations"][0] == 5 * 25


def test_chat_is_a_line_behind_a_plain_template(client, model):
    asked = dict(model="toy", messages=[{"role": "user", "content": "hi"}], max_tokens=12, seed=5, temperature=0.5)
    made = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    text = client.completions.create(
        model="toy", prompt="user: hi\nassistant:", max_tokens=12, seed=5, temperature=0.5, stop="\n"
    )
    assert made.choices[0].message.content == text.choices[0].text.strip(" ")
    assert len(made.choices[0].logprobs.content[0].top_logprobs) == 2
    chunks = list(client.chat.completions.create(**asked, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-1].choices[0].finish_reason in ("stop", "length")


def test_a_chat_goes_on_with_what_the_client_was_answered(client):
    """Its own object, with all that the API knows of and is null here; and what asks for nothing asks for nothing."""
    talk: list[Any] = [{"role": "user", "content": "hi"}]
    said = client.chat.completions.create(model="toy", messages=talk, max_tokens=3, seed=5).choices[0].message
    whole, nothing = said.model_dump(), dict.fromkeys(("content", "annotations", "audio"))
    for answer, text in ((said, said.content), (whole, said.content), (whole | nothing, "")):
        extra: Any = dict(tools=None, tool_choice=None, store=False)
        again = [*talk, answer, {"role": "user", "content": "so"}]
        made = client.chat.completions.create(model="toy", messages=again, max_tokens=3, **extra)
        assert made.usage.prompt_tokens == len(f"user: hi\nassistant: {text}\nuser: so\nassistant:")


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 4}, "age": {"type": "integer"}, "ok": {"type": "boolean"}},
    "required": ["name", "ok"],
}


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_of_a_json_schema_is_one(client, stream):
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}
    asked = dict(model="toy", prompt="", max_tokens=LENGTH, seed=1, stream=stream)
    made = client.completions.create(**asked, extra_body={"response_format": form})
    parts = [chunk.choices[0] for chunk in made] if stream else made.choices
    found = json.loads("".join(part.text for part in parts))
    assert set(found) - {"age"} == {"name", "ok"} and len(found["name"]) <= 4 and parts[-1].finish_reason == "stop"


def test_a_chat_may_be_structured_too(client):
    form = {
        "type": "json_schema",
        "json_schema": {"name": "list", "schema": {"type": "array", "items": {"enum": [1, "a"]}}},
    }
    asked = dict(model="toy", messages=[{"role": "user", "content": "x"}], max_tokens=14)
    made = client.chat.completions.create(**asked, response_format=form, n=3)
    assert all(set(json.loads(choice.message.content)) <= {1, "a"} for choice in made.choices)


def test_a_pattern_is_matched_and_words_are_avoided(client):
    made = client.completions.create(
        model="toy", prompt="see ", max_tokens=12, n=2, extra_body={"regex": "[a-c]{3,5}( [x-z]{2})?"}
    )
    assert all(re.fullmatch("[a-c]{3,5}( [x-z]{2})?", choice.text) for choice in made.choices)
    asked = dict(model="toy", prompt="see ", max_tokens=12, seed=4)
    text = client.completions.create(**asked).choices[0].text
    other = (
        client.completions.create(**asked, extra_body={"avoid": [text[2:4]], "forbid": [[9, text[5]]]}).choices[0].text
    )
    assert text[2:4] not in other and other[5] != text[5]
    biased = client.completions.create(**asked, logit_bias={"3": 100}).choices[0].text
    assert biased == "d" * 12


@pytest.mark.parametrize("pattern", ["abc.*k.*q.*z", "[a-z]{3} ([a-z]{2,4} )*[a-z]{2}z"])
def test_a_pattern_is_part_of_the_energy(running, model, pattern):
    """As `infill` has it: the same text and the same energy, and rounds in which tokens are drawn anew."""
    template = f"abc[{LENGTH - 4}]z"
    wanted = ed.flow.Matching(pattern, model.tokenizer, length=LENGTH)
    written = ed.infill(model, template, evidence=wanted, seed=7)
    made = running.post("/v1/infill", template=template, match=pattern, seed=7)
    assert made["choices"][0]["text"] == written.texts[0]
    assert re.fullmatch(pattern, written.texts[0], re.DOTALL)
    assert np.isclose(made["energy_dllm"]["free_energy"], written.free_energy[:, -1], rtol=1e-4).all()


def test_a_pattern_of_many_states_is_met_at_the_end(running, monkeypatch):
    monkeypatch.setattr("energy_dllm.serve._automaton.LARGEST", 16)
    for stream in (False, True):
        asked = {"template": "abc[9]z", "match": "abc(.k){4}.z", "seed": 7, "stream": stream}
        _, answer = running.get("/v1/infill", asked)
        text = "".join(re.findall(r'"text": ?"((?:[^"\\\\]|\\\\.)*)"', answer))
        assert re.fullmatch(r"abc(.k){4}.z", json.loads(f'"{text}"'), re.DOTALL)


def test_infill_keeps_what_is_given(running):
    made = running.post("/v1/infill", template="abc[4]xyz[[1]", seed=1, match="[a-z]{10}.1]")
    text = made["choices"][0]["text"]
    assert text.startswith("abc") and text.endswith("xyz[1]") and text[3:7].isalpha() and len(text) == 13
    assert len(made["choices"][0]["tokens"]) == 13
    assert made["usage"] == {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    for stream in (False, True):
        status, said = running.get("/v1/infill", {"template": "abc[4]xyz", "seed": 1, "stream": stream})
        assert re.findall('"finish_reason": ?"([a-z]+)"', said) == ["stop"] and status == 200
    stars = running.post("/v1/infill", template="abc[*]xyz", length=[8, 9, 10])
    assert 8 <= len(stars["choices"][0]["text"]) <= 10


def test_repair_recall_score_attribution(running, model):
    fixed = running.post("/v1/repair", text="where is my parcel", rate=0.05)
    assert len(fixed["text"]) == 18 and all(edit["position"] < 18 for edit in fixed["edits"])
    found = running.post("/v1/recall", cue="how do i rest my pasword")
    assert found["text"] == "how do i reset my password" and running.post("/v1/recall", cue="zzzz 99")["text"] is None
    assert running.post("/v1/recall", cue="see", lines=["sea", "see"])["text"] == "see"
    score = running.post("/v1/score", text="abc")
    ids = model.encode("abc" + "a" * (LENGTH - 3))
    here = jax.numpy.arange(LENGTH)
    log_posterior = eqx.filter_jit(model.log_posterior)
    for n in range(3):
        log_p = log_posterior(ids, (here < 3) & (here != n))
        assert np.isclose(score["nll"][n], -log_p[n, ids[n]], atol=1e-5)
    why = running.post("/v1/attribution", text="abcab", place=2, reference="b")
    assert (why["token"], why["reference"]) == ("c", "b")
    assert np.isclose(sum(why["parts"].values()), why["log_odds"], atol=1e-4)
    assert {each["place"] for each in why["neighbours"]} == set(range(5))
    ids = model.encode("abcab").tolist()
    assert running.post("/v1/attribution", text=ids, place=2, reference="b") == why


BAD = {
    "malformed": ("/v1/completions", b"{", 400, None),
    "no object": ("/v1/completions", b"[1]", 400, None),
    "no text": ("/v1/completions", b"\xff\xfe", 400, None),
    "a lone surrogate": ("/v1/completions", b'{"prompt": "\\ud800"}', 400, None),
    "deep": ("/v1/completions", b"[" * 100_000, 400, None),
    "unknown model": ("/v1/completions", {"model": "none", "prompt": "a"}, 404, "model"),
    "unknown argument": ("/v1/completions", {"prompt": "a", "frobnicate": 1}, 400, "frobnicate"),
    "unknown characters": ("/v1/completions", {"prompt": "Ä"}, 400, "prompt"),
    "unknown characters in a chat": (
        "/v1/chat/completions", {"messages": [{"role": "user", "content": "Ä"}]}, 400, "messages"
    ),
    "a wrong type": ("/v1/completions", {"prompt": 5}, 400, "prompt"),
    "a number in quotes": ("/v1/completions", {"prompt": "a", "max_tokens": "5"}, 400, "max_tokens"),
    "too many tokens": ("/v1/completions", {"prompt": "a", "max_tokens": 10**9}, 400, "max_tokens"),
    "no number": ("/v1/completions", b'{"prompt": "a", "temperature": NaN}', 400, "temperature"),
    "a stop that is too long": ("/v1/completions", {"prompt": "a", "stop": ["b", "a" * 65]}, 400, "stop"),
    "best of": ("/v1/completions", {"prompt": "a", "best_of": 3}, 400, "best_of"),
    "a block the model has not": ("/v1/completions", {"prompt": "a", "block": 1}, 400, "block"),
    "too long to be written at once": ("/v1/completions", {"prompt": "a", "suffix": "b" * 99}, 400, None),
    "an argument of a message": (
        "/v1/chat/completions", {"messages": [{"role": "user", "content": "a", "tool_call_id": "x"}]}, 400, "messages"
    ),
    "a message without text": (
        "/v1/chat/completions", {"messages": [{"role": "user", "content": None}]}, 400, "messages"
    ),
    "tools": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "tools": []}, 400, "tools"),
    "an impossible pattern": ("/v1/completions", {"prompt": "a", "regex": "[ab]{90}"}, 400, None),
    "a malformed pattern": ("/v1/completions", {"prompt": "a", "regex": "("}, 400, "regex"),
    "a pattern of characters there are not": ("/v1/completions", {"prompt": "a", "regex": "ÄÖ"}, 400, "regex"),
    "a malformed match": ("/v1/infill", {"template": "ab[3]", "match": "("}, 400, "match"),
    "a response that no line is": (
        "/v1/completions",
        {"prompt": "a", "response_format": {"type": "regex", "pattern": "("}},
        400,
        "response_format",
    ),
    "lines": ("/v1/completions", {"prompt": "a", "regex": "a\nb"}, 400, "regex"),
    "any JSON": ("/v1/completions", {"prompt": "", "response_format": {"type": "json_object"}}, 400, "response_format"),
    "a schema that is none": (
        "/v1/completions",
        {"prompt": "", "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}},
        400,
        "schema",
    ),
    "a word that is given and avoided": ("/v1/completions", {"prompt": "abc", "avoid": ["bc"]}, 400, "avoid"),
    "everything forbidden": (
        "/v1/completions", {"prompt": "a", "forbid": [[1, c] for c in ALPHABET]}, 400, "forbid"
    ),
    "a token id there is not": ("/v1/completions", {"prompt": "a", "logit_bias": {"99": 1}}, 400, "logit_bias"),
    "a length over the window": ("/v1/infill", {"template": "abc[*]xyz", "length": [8, LENGTH + 1]}, 400, "length"),
    "no hole": ("/v1/infill", {"template": "abc"}, 400, "template"),
    "a malformed hole": ("/v1/infill", {"template": "a[b"}, 400, "template"),
    "a hole that is too wide": ("/v1/infill", {"template": "[500]"}, 400, None),
    "a hole of millions": ("/v1/infill", {"template": "[99999999999]"}, 400, "template"),
    "a rate that is none": ("/v1/repair", {"text": "abc", "rate": 1}, 400, "rate"),
    "a text that is too long": ("/v1/score", {"text": "a" * 99}, 400, "text"),
    "a token outside": ("/v1/attribution", {"text": [0, 99], "place": 1}, 400, "text"),
    "a place outside": ("/v1/attribution", {"text": "abc", "place": 3}, 400, "place"),
    "nothing": ("/v1/repair", {}, 400, "text"),
    "an empty cue": ("/v1/recall", {"cue": ""}, 400, "cue"),
    "huge": ("/v1/completions", json.dumps({"prompt": "a" * (1 << 20)}).encode(), 413, None),
    "no address": ("/v1/none", {}, 404, None),
    "a path": ("/v1/../../etc/passwd", None, 404, None),
    "another method": ("/v1/completions", None, 405, None),
    "another model": ("/v1/models/none", None, 404, "model"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said(running, name):
    refused(running, *BAD[name])


FAULTS = [
    (
        ChatRequest,
        {"messages": [{"role": "user", "content": "a", "x": 1}]},
        "`messages[0].x` is not supported here; le",
    ),
    (
        ChatRequest,
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "`messages[0].content[0].text` is m",
    ),
    (ChatRequest, {"messages": [{"role": "user"}]}, "`messages[0].content` is missing"),
    (ChatRequest, {"messages": [], "tools": [{}]}, "`messages` is wrong: List should have at least 1"),
    (CompletionRequest, {"stop": ["a", "b" * 65]}, "`stop[1]` is wrong: String should have at most 64"),
    (CompletionRequest, {"stop": 5}, "`stop` is wrong: Input should be a valid string, not 5"),
    (CompletionRequest, {"x" * 999: 5}, "`" + "x" * 60 + "` is not supported here; expected some of model"),
]


@pytest.mark.parametrize(("schema", "given", "fault"), FAULTS)
def test_a_fault_is_named_where_it_is(schema, given, fault):
    with pytest.raises(APIError) as caught:
        parsed(schema, json.dumps(given).encode(), "application/json")
    assert caught.value.message.startswith(fault)
    assert caught.value.param == next(iter(given))[:60]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "a", "forbid": [[1, "a" * 500_000]]}),
        ("/v1/completions", {"prompt": "a", "logit_bias": {"9" * 500_000: 1}}),
        ("/v1/completions", {"prompt": "a", "a" * 500_000: 1}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a", "a" * 500_000: 1}]}),
        ("/v1/attribution", {"text": "abc", "place": 1, "reference": "a" * 500_000}),
    ],
)
def test_no_answer_repeats_a_long_argument(running, path, body):
    status, text = running.get(path, body)
    assert status == 400 and len(text) < 700 and "`" in text, text[:1000]


def test_pages_of_other_sites_are_refused(running):
    """Those of this server are not, nor is a client that is no page."""
    for origin, status in (
        (running.url, 200),
        ("https://example.org", 403),
        ("null", 403),
        ("http://127.0.0.1:1", 403),
    ):
        asked = urllib.request.Request(running.url + "/v1/recall", b'{"cue": "parcel"}', {"Origin": origin})
        try:
            with urllib.request.urlopen(asked, timeout=240) as answer:
                assert answer.status == status
        except urllib.error.HTTPError as error:
            with error:
                assert error.code == status and b"foreign_origin" in error.read()


def test_the_client_knows_these_errors(client):
    with pytest.raises(openai.NotFoundError, match="this server has toy"):
        client.completions.create(model="none", prompt="a")
    with pytest.raises(openai.BadRequestError, match="outside the alphabet"):
        client.completions.create(model="toy", prompt="É", stream=True)


def test_models_health_metrics_document_page(running, client):
    assert [each.id for each in client.models.list()] == ["toy"] and client.models.retrieve("toy").id == "toy"
    client.completions.create(model="toy", prompt="a", max_tokens=4)
    text = running.get("/metrics")[1]
    counts = dict(re.findall(r"^(energy_dllm_\w+(?:{.*?})?) (\S+)$", text, re.M))
    assert float(counts['energy_dllm_requests_total{path="/v1/completions",status="200"}']) > 0
    assert float(counts["energy_dllm_tokens_total"]) >= 4 and counts["energy_dllm_requests_running"] == "0"
    assert all(re.match(r"# |energy_dllm_\w+({.*})? -?[0-9.e+]+$", line) for line in text.splitlines())
    document = json.loads(running.get("/openapi.json")[1])
    assert {"/v1/completions", "/v1/infill", "/health"} <= set(document["paths"])
    answers = [each["responses"]["200"] for path in document["paths"].values() for each in path.values()]
    assert sum("schema" in each["content"].get("application/json", {}) for each in answers) == len(answers) - 1
    refs = re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document))
    assert set(refs) <= set(document["components"]["schemas"])
    schema = document["components"]["schemas"]["CompletionRequest"]["properties"]["prompt"]
    assert {"type": "string", "maxLength": TEXT} in schema["anyOf"]


def test_counts_are_whole_however_large(model):
    metrics = Metrics(engine := ed.serve.application({"toy": model}).state.engine)
    metrics.tokens, engine.evaluations = 1_234_567, 12_345_678
    lines = metrics.text().splitlines()
    assert {"energy_dllm_tokens_total 1234567", "energy_dllm_force_evaluations_total 12345678"} <= set(lines)


DRIVE = """
const text = () => moments.at(-1).tokens.join(''), box = $('text');
$('prompt').value = 'abc[6]xyz'; $('budget').value = 12;
press(document, 'Enter'); await until(() => done);
const first = text();
seen.push(/^abc.{6}xyz$/.test(first), box.children.length == 12, document.querySelectorAll('.given').length == 6);
seen.push(document.querySelectorAll('#curve circle').length == 2, $('said').textContent.includes('12 force'));
box.children[4].click(); await until(() => $('why').textContent.includes('the sum of'));
seen.push($('why').textContent.startsWith('token 4 '));
press(box.children[4], 'ArrowRight'); seen.push(document.activeElement == box.children[5]);
press(box.children[5], 'Delete'); await again();
seen.push(text()[5] != first[5], $('chips').children.length == 1);
const second = text(), kept = new DataTransfer();
const drag = name => new DragEvent(name, {dataTransfer: kept, bubbles: true});
box.children[7].dispatchEvent(drag('dragstart')); $('bin').dispatchEvent(drag('drop')); await again();
seen.push(text()[7] != second[7], $('chips').children.length == 2);
$('prompt').value = 'É[2]'; await write();
seen.push($('said').className == 'bad' && $('said').textContent.includes('template'));
"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed (apt install chromium)")
def test_the_playground_in_a_browser(running, tmp_path):
    """Write, explain a token by click, forbid one by key and one by drag."""
    assert not re.search(r"(src|href|url)\W{1,2}https?:", running.get("/")[1])
    assert driven(running, DRIVE, tmp_path) == "true " * 12 + "0"


def test_a_full_queue_and_clients_that_leave(running):
    """More than may wait is 429; whoever leaves is not computed for, and the others are answered."""
    engine = running.app.state.engine
    body = {"prompt": "a", "max_tokens": 30, "n": 8, "budget": 256}
    request = (
        f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(json.dumps(body))}\r\n\r\n{json.dumps(body)}"
    )
    before = engine.evaluations
    held = [socket.create_connection(("127.0.0.1", running.listening.getsockname()[1])) for _ in range(2)]
    for connection in held:
        connection.sendall(request.encode())
    end = time.monotonic() + 20
    while len(engine.waiting) < 12 and time.monotonic() < end:
        time.sleep(0.005)
    status, text = running.get("/v1/completions", {"prompt": "a", "n": 8})
    assert (status, json.loads(text)["error"]["code"]) == (429, "queue_full")
    for connection in held:
        connection.close()
    assert running.get("/v1/completions", {"prompt": "a", "max_tokens": 3})[0] == 200
    assert engine.evaluations - before < 12 * 256 and not engine.waiting


def test_a_key_is_asked_for(model, monkeypatch):
    for wrong in (" ", "sésame", "a\tb"):
        monkeypatch.setenv("ENERGY_DLLM_API_KEY", wrong)
        with pytest.raises(ValueError, match="`ENERGY_DLLM_API_KEY` is blank or"):
            ed.serve.application({"toy": model})
    monkeypatch.setenv("ENERGY_DLLM_API_KEY", " sesame\n")
    with Running(ed.serve.application({"toy": model}, lengths=(LENGTH,), batches=(1,), timeout=0.001)) as running:
        for key, status in ((None, 401), ("sesam", 401), ("sésame", 401), ("sesame", 200)):
            assert running.get("/v1/models", key=key)[0] == status
        assert json.loads(running.get("/v1/score", {"text": "a"})[1])["error"]["type"] == "authentication_error"
        assert running.get("/")[0] == running.get("/health")[0] == 200 and running.get("/metrics")[0] == 401
        status, text = running.get("/v1/completions", {"prompt": "a"}, key="sesame")
        assert (status, json.loads(text)["error"]["code"]) == (504, "timeout")


@pytest.mark.parametrize("kind", ["free", "under patterns of similar size"])
def test_passages_that_are_written_together_are_those_written_alone(model, kind):
    """A batch of four, some of them shorter, constrained, or shown as they come; and nothing is compiled for them."""
    app = ed.serve.application({"toy": model}, lengths=(LENGTH,), batches=(1, 4))
    engine = app.state.engine
    asked = [
        {"prompt": "abc", "max_tokens": 20, "seed": 1},
        {"prompt": "x", "max_tokens": 31, "seed": 2, "temperature": 0.3},
        {"prompt": "q", "max_tokens": 9, "seed": 3, "forbid": [[3, "e"]]},
        {"prompt": "see", "max_tokens": 12, "seed": 4, "commit": True},
    ]
    if kind != "free":
        patterns = {"regex": "[a-c]+ [a-c]+"}, {"regex": "x{2}.*"}, {"avoid": ["ab", "z"]}, {"regex": "a?[b-z ]*"}
        asked = [body | pattern for body, pattern in zip(asked, patterns, strict=True)]
    with Running(app) as running:
        alone = [running.post("/v1/completions", **body)["choices"][0]["text"] for body in asked]
        with engine.changed:
            (way,) = {way for *_, way, _ in engine.programs if kind == "free" or way}
            engine._want(program := ("toy", LENGTH, way, 4))
        while program not in engine.programs:
            time.sleep(0.05)
        together = [""] * 4

        def ask(n):
            together[n] = running.post("/v1/completions", **asked[n])["choices"][0]["text"]

        take = engine._batch
        there = []  # nothing is taken off the queue before all are there
        engine._batch = lambda: take() if there or len(engine.waiting) == 4 and not there.append(1) else []
        threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert engine.batched[4] == 1
    assert together == alone


# ----------------------------------------------------------------------------------------------------- left to right


@pytest.fixture(scope="module")
def ordered():
    return families.left_to_right(ALPHABET)


@pytest.fixture(scope="module")
def in_order(ordered):
    app = ed.serve.application({"toy": ordered}, lengths=(LENGTH,), batches=(1, 4))
    with Running(app) as running:
        yield running


def test_a_model_of_both_kinds_writes_from_left_to_right(in_order, ordered):
    """What `Blocks` writes, with exact log-probabilities, whole or as a stream by the `openai` client; `best_of` is the
    likeliest of these; a stop inside a piece ends it."""
    written = ed.generate(ordered, length=LENGTH, prompt="abc", seed=7, samples=4, sampler=ed.sampling.Blocks(size=1))
    asked: Any = dict(model="toy", prompt="abc", max_tokens=LENGTH - 3, seed=7)
    with openai.OpenAI(base_url=f"{in_order.url}/v1", api_key="none", max_retries=0, timeout=240) as client:
        made = client.completions.create(**asked, n=4, logprobs=2)
        assert ["abc" + choice.text for choice in made.choices] == written.texts
        assert made.model_extra["energy_dllm"]["block"] == 1
        nats = [sum(choice.logprobs.token_logprobs) for choice in made.choices]
        each = eqx.filter_jit(eqx.filter_vmap(ordered.energy.in_blocks(1).in_order))(jax.numpy.asarray(written.ids))
        assert np.allclose(nats, each[:, 3:].sum(axis=1), atol=1e-3)
        assert np.allclose(made.model_extra["energy_dllm"]["free_energy"], -np.array(nats), atol=1e-3)
        best = client.completions.create(**asked, best_of=4)
        assert best.choices[0].text == made.choices[int(np.argmax(nats))].text
        text = made.choices[0].text
        chunks: Any = list(client.completions.create(**asked, stream=True, logprobs=0))
        assert "".join(chunk.choices[0].text for chunk in chunks) == text
        assert [len(chunk.choices[0].text) for chunk in chunks] == [2, 8, 8, 8, 3]
        assert np.isclose(sum(chunks[-1].choices[0].logprobs.token_logprobs), nats[0], atol=1e-3)
        for chunk in chunks:
            extra = chunk.model_extra["energy_dllm"]
            assert "".join(extra["tokens"]) == ("abc" + text)[: extra["stands"]]
        stop = text[10:12]
        cut = client.completions.create(**asked, stop=stop, stream=True)
        assert "".join(chunk.choices[0].text for chunk in cut) == text[: text.index(stop)]
        cut = client.completions.create(**asked, stop=stop, logprobs=0)
        nats, said = cut.choices[0].logprobs.token_logprobs, cut.model_extra["energy_dllm"]
        assert len(nats) == text.index(stop) and np.isclose(said["free_energy"][0], -sum(nats), atol=1e-3)
        assert cut.usage.completion_tokens == len(nats) + 1 <= said["force_evaluations"][0] < len(text)
        long = client.completions.create(**asked | {"max_tokens": 70}, logprobs=1)
        nats = long.choices[0].logprobs.token_logprobs
        assert len(nats) == 70 and max(nats) < 0 and all(long.choices[0].logprobs.top_logprobs)
        assert np.isclose(long.model_extra["energy_dllm"]["free_energy"][0], -sum(nats), atol=1e-3)
        cold = [client.completions.create(**{**asked, "seed": n}, temperature=0).choices[0].text for n in (1, 2)]
        assert cold[0] == cold[1] != text
        talk: Any = dict(model="toy", messages=[{"role": "user", "content": "hi"}], max_tokens=12, seed=5)
        said = client.chat.completions.create(**talk).choices[0].message.content
        parts: Any = client.chat.completions.create(**talk, stream=True)
        assert "".join(part.choices[0].delta.content for part in parts) == said
        spaces = {**talk, "logit_bias": {str(ALPHABET.index(" ")): 3}, "n": 8}
        whole = client.chat.completions.create(**spaces)
        parts, said = client.chat.completions.create(**spaces, stream=True), [""] * 8
        for part in parts:
            said[part.choices[0].index] += part.choices[0].delta.content
        assert said == [choice.message.content for choice in whole.choices] and any(" " in text for text in said)


def test_lines_that_are_written_together_are_those_written_alone(in_order):
    """Prompts of other lengths, other temperatures, forbidden tokens, one that is cut away, in one batch."""
    asked = [
        {"prompt": "", "max_tokens": 20, "seed": 1},
        {"prompt": "x" * 9, "max_tokens": 3, "seed": 2, "temperature": 0.3},
        {"prompt": "q", "max_tokens": 31, "seed": 3, "forbid": [[n, "e"] for n in range(1, 32)]},
        {"prompt": "see ", "max_tokens": 70, "seed": 4},
    ]
    ask = lambda body: in_order.post("/v1/completions", **body)["choices"][0]["text"]
    engine = in_order.app.state.engine
    with engine.changed:
        engine._want(("toy", LENGTH, 1, 4))
    alone = [ask(body) for body in asked]
    assert [len(text) for text in alone] == [20, 3, 31, 70] and "e" not in alone[2]
    while ("toy", LENGTH, 1, 4) not in engine.programs:
        time.sleep(0.05)
    take, before = engine._batch, engine.batched[4]
    there = []  # nothing is taken off the queue before all are there
    engine._batch = lambda: take() if there or len(engine.waiting) == 4 and not there.append(1) else []
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, asked)) == alone
    engine._batch = take
    assert engine.batched[4] > before


def test_a_passage_joins_those_that_are_being_written(ordered, programs):
    """At any piece, in a place that is free; all are what they are alone, and nothing is compiled. What comes behind a
    passage of another shape does not join, so that nobody waits for ever."""
    engine = ed.serve.application({"toy": ordered}, lengths=(LENGTH,), batches=(1, 2)).state.engine
    for program in (("toy", LENGTH, 1, 1), ("toy", LENGTH, 1, 2), ("toy", LENGTH, 0, 1)):
        engine._run(program)
        engine.programs.add(program)
    asked = {"a": ("abc", 29, 1), "b": ("", 9, 1), "c": ("see the ", 20, 1), "d": ("x", 3, 0), "e": ("zz", 2, 1)}

    def write(first, come=""):
        """Texts, and who was shown in which order; the others are submitted when the first piece is there."""
        made, order = {}, []

        def passage(name):
            prompt, tokens, block = asked[name]
            request = CompletionRequest.model_validate({"seed": ord(name), "block": block})
            made[name] = choice = Choice(of_answer(request, "toy", engine, prompt, "", tokens), 0, 0)

            def deliver(item):
                assert not isinstance(item, Exception), item
                if item is not None:
                    choice.take(item)
                    order.append(name)
                if name == first and len(order) == 1:
                    engine.submit(*map(passage, come))

            return choice.next(engine, deliver)

        engine.submit(passage(first))
        while batch := engine._batch():
            engine._write(batch)
        return {name: choice.text for name, choice in made.items()}, "".join(order)

    alone = {name: write(name)[0][name] for name in asked}
    programs()
    together, order = write("a", "bcde")
    assert together == alone and not programs()
    assert re.fullmatch("a(ab){2}(ac){3}cd{5,}e", order), order


def test_a_token_is_forbidden_by_its_text_or_its_id():
    """A byte that is a part of a character has no text of its own."""
    model = ed.EnergyDLLM(ed.data.Bytes(), dim=16, key=jax.random.key(0))
    engine = ed.serve.application({"bytes": model}, lengths=(8,), batches=(1,)).state.engine

    def forbidden(token):
        request = CompletionRequest.model_validate({"forbid": [(1, token)]})
        return of_answer(request, "bytes", engine, "a", "", 4).forbid

    assert forbidden("x") == forbidden(ord("x")) == ((1, ord("x")),) and forbidden(0xC3) == ((1, 0xC3),)
    for wrong, words in (("é", "2 tokens; expected one"), (model.size, f"tokens 0 to {model.size - 1}")):
        with pytest.raises(ValueError, match=words):
            forbidden(wrong)


def test_what_a_passage_waits_for_is_compiled_first(ordered, monkeypatch):
    """Before what else is compiled at the start."""
    engine = ed.serve.application({"toy": ordered}, lengths=(8, LENGTH), batches=(1,)).state.engine
    assert engine.wanted[-1] == (last := ("toy", LENGTH, 0, 1))
    plan = of_answer(CompletionRequest.model_validate({"block": 0}), "toy", engine, "abc", "", LENGTH - 3)
    engine.submit(Choice(plan, 0, 0).next(engine, lambda item: None))
    made = []
    monkeypatch.setattr(engine, "_run", lambda program: setattr(engine, "closing", bool(made.append(program) or True)))
    engine._compile()
    assert made == [last]


def test_what_is_on_its_way_when_a_text_ends_is_left(ordered, monkeypatch):
    """All pieces are written before the first is looked at, in which the text ends at a stop."""
    engine = ed.serve.application({"toy": ordered}, lengths=(LENGTH,), batches=(1,)).state.engine
    engine.programs.add(("toy", LENGTH, 1, 1))
    monkeypatch.setattr(engine, "submit", lambda *tasks, limit=True: [engine._write([task]) for task in tasks])
    request = CompletionRequest.model_validate({"seed": 7})
    plan = of_answer(request, "toy", engine, "abc", "", LENGTH - 3)

    async def moments(stops):
        choice = Choice(plan, 0, 0, stops)
        made = [text async for *_, text in written(engine, [choice], 60.0, moments=True)]
        return choice, made

    whole, parts = asyncio.run(moments([]))
    assert len(parts) == 5 and whole.reason == "length"
    short, parts = asyncio.run(moments([whole.text[1:2]]))
    assert len(parts) == 1 and short.reason == "stop" and short.text == whole.text[:1]


def test_patterns_hold_from_left_to_right(in_order, ordered):
    """One pass a token, whatever is drawn, whole and as a stream: what could not be accepted any more within the room
    that is left is never drawn. Log-probabilities are those of the model, without the pattern."""
    regex = "[a-c]{3,5}( [x-z]{2}){1,2}"
    asked = {"prompt": "see ", "max_tokens": 7, "n": 8, "regex": regex, "seed": 1, "logprobs": 1}
    made = in_order.post("/v1/completions", **asked)
    texts = [choice["text"] for choice in made["choices"]]
    assert made["energy_dllm"]["block"] == 1 and len(set(texts)) > 4
    assert all(re.fullmatch("[a-c]{3,4}( [x-z]{2}){1}", text) for text in texts), texts  # no more fits into 7
    conditionals = eqx.filter_jit(ordered.energy.in_blocks(1).conditionals)
    text, said = texts[0], made["choices"][0]["logprobs"]["token_logprobs"]
    ids = np.zeros(16, int)
    ids[: 4 + len(text)] = ordered.encode("see " + text)
    assert np.allclose(said, conditionals(jax.numpy.asarray(ids))[np.arange(16), ids][4 : 4 + len(text)], atol=1e-4)
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}
    with openai.OpenAI(base_url=f"{in_order.url}/v1", api_key="none", max_retries=0, timeout=240) as client:
        asked: Any = dict(model="toy", prompt="", max_tokens=LENGTH, seed=1, stream=True)
        parts: Any = list(client.completions.create(**asked, extra_body={"response_format": form}))
    assert parts[0].model_extra["energy_dllm"]["block"] == 1 and parts[-1].choices[0].finish_reason == "stop"
    assert set(json.loads("".join(part.choices[0].text for part in parts))) - {"age"} == {"name", "ok"}
    free = in_order.post("/v1/completions", prompt="abc", max_tokens=60, seed=3)["choices"][0]["text"]
    words = [free[k : k + 2] for k in (0, 9, 40)]
    other = in_order.post("/v1/completions", prompt="abc", max_tokens=60, seed=3, avoid=words, block=1)
    text = other["choices"][0]["text"]
    assert len(text) == 60 and other["energy_dllm"]["block"] == 1 and not any(word in text for word in words)


def test_an_echo_has_the_likelihoods_of_the_prompt(in_order, ordered):
    """Those of the chain rule, as a client that scores texts by completions of one token reads them; of several
    prompts each its own, and no others than `/v1/score`."""
    with openai.OpenAI(base_url=f"{in_order.url}/v1", api_key="none", timeout=240) as client:
        prompts = ["abcab", "see a"]
        asked: Any = dict(model="toy", prompt=prompts, max_tokens=1, n=2, echo=True, logprobs=3, seed=1)
        made: Any = client.completions.create(**asked)
    for choice in made.choices:
        found, prompt = choice.logprobs, prompts[choice.index // 2]
        log_p = np.asarray(eqx.filter_jit(ordered.energy.in_blocks(1).conditionals)(ordered.encode(prompt)))
        own = log_p[np.arange(5), ordered.encode(prompt)]
        np.testing.assert_allclose(found.token_logprobs[:5], own, atol=2e-3)
        assert "".join(found.tokens) == choice.text and found.text_offset == list(range(6))
        for place, top in enumerate(found.top_logprobs[:5]):
            assert list(top) == [ordered.decode(w[None]) for w in np.argsort(-log_p[place])[:3]]


def test_the_descent_stays_where_it_is_asked_for(in_order, ordered):
    """By `block` 0, and for what is about the whole passage; both at once are refused, as is what the model has not."""
    block = lambda **body: in_order.post("/v1/completions", prompt="abc", max_tokens=5, **body)["energy_dllm"]["block"]
    assert [block(), block(block=1), block(block=0), block(budget=8), block(suffix="d")] == [1, 1, 0, 0, 0]
    for name, value in {"suffix": "d", "budget": 8, "commit": False, "regex": "(.*[ab].{9}c)+"}.items():
        status, text = in_order.get("/v1/completions", {"prompt": "abc", "block": 1, name: value})
        assert status == 400 and f"`{name}`" in json.loads(text)["error"]["message"], text
    for wrong in ({"block": 4}, {"best_of": 2, "block": 0}, {"best_of": 2, "stream": True}, {"n": 2, "best_of": 1}):
        assert in_order.get("/v1/completions", {"prompt": "abc", **wrong})[0] == 400, wrong
    score = in_order.post("/v1/score", text="abcab")
    nll = -eqx.filter_jit(ordered.energy.in_blocks(1).in_order)(ordered.encode("abcab"))
    assert score["method"] == "chain rule" and np.allclose(score["nll"], nll, atol=1e-5)
    assert np.isclose(score["log_likelihood"], -nll.sum(), atol=1e-4)


DRIVE_IN_ORDER = """
await until(() => !$('how').hidden);
const box = $('text'), tokens = () => moments.at(-1).tokens, spent = () => moments.map(m => m.force_evaluations);
$('prompt').value = 'abc'; $('block').value = '1'; $('form').oninput();
seen.push($('count').textContent == 'New tokens');
$('length').value = 70; press(document, 'Enter'); await until(() => done);
const first = tokens(), grows = v => v.every((each, k) => !k || each > v[k - 1]);
seen.push(first.length == 73 && box.children.length == 73, first.join('').startsWith('abc'));
seen.push(grows(spent()) && spent().at(-1) == 70 && moments.at(-1).budget == 70);
seen.push(grows(moments.map(m => m.free_energy)));
seen.push(moments.at(-1).certainty.slice(3).every(p => p < 1), document.querySelectorAll('.given').length == 3);
box.children[60].click(); await until(() => $('why').textContent.includes('the sum of'));
seen.push($('why').textContent.startsWith('token 60 '), document.querySelector('mark').textContent == name(first[60]));
press(box.children[60], 'Delete'); await again();
seen.push(tokens().slice(0, 60).join() == first.slice(0, 60).join(), tokens()[60] != first[60]);
$('length').value = 5; press(document, 'Enter'); await again();
seen.push(at == 7 && document.querySelectorAll('#text [tabindex="0"]').length == 1);
at = 99; press(box, 'Delete'); seen.push(forbid.length == 1);
const real = fetch; let asked = null;
window.fetch = (...given) => { asked = JSON.parse(given[1].body); return real(...given) };
await why(5); window.fetch = real;
seen.push(asked.text.join() == moments.at(-1).ids.join() && $('why').textContent.startsWith('token 5 '));
$('model').onchange(); seen.push(forbid.length == 0 && !$('chips').children.length);
$('prompt').value = 'abc[2]'; $('form').oninput(); seen.push($('count').textContent == 'Tokens in all');
"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed (apt install chromium)")
def test_a_text_of_several_windows_in_the_playground(in_order, tmp_path):
    """All of it is shown, explained (by its tokens: read again, a text may have others) and forbidden at its place;
    then a shorter one."""
    assert driven(in_order, DRIVE_IN_ORDER, tmp_path) == "true " * 16 + "0"


# ------------------------------------------------------------------------------------------- constraints, without HTTP

STRINGS = {
    "object": (
        SCHEMA,
        ['{"name":"a","ok":true}', '{"name":"","age":-3,"ok":false}'],
        ['{"ok":true}', '{"name":"abcde","ok":true}'],
    ),
    "optional": (
        {"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "boolean"}}},
        ["{}", '{"a":null}', '{"b":true}', '{"a":null,"b":false}'],
        ['{"a":null,}', '{,"b":true}', '{"b":true,"a":null}'],
    ),
    "array": (
        {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
        ["[1]", "[0,-12]"],
        ["[]", "[01]", "[1,2,3]"],
    ),
    "choices": (
        {"anyOf": [{"const": "a.b"}, {"$ref": "#/$defs/n"}], "$defs": {"n": {"type": ["number", "null"]}}},
        ['"a.b"', "1.5", "-2e3", "null"],
        ['"axb"', "1.", "true"],
    ),
    "pattern": ({"type": "string", "pattern": "^[ab]{2}$"}, ['"ab"'], ['"abc"', "ab"]),
}  # fmt: skip


@pytest.mark.parametrize("name", STRINGS)
def test_a_schema_is_its_pattern(name):
    schema, good, bad = STRINGS[name]
    for text in good:
        json.loads(text)
    tokenizer = Characters("".join(sorted({*ALPHABET, *"E+TF"})))
    automaton = RegexDFA.of(pattern_of(schema, tokenizer), tokenizer)
    assert all(automaton(tokenizer.encode(text)) for text in good)
    assert not any(automaton(tokenizer.encode(text)) for text in bad)


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"type": "object", "properties": {"a": {"$ref": "#"}}}, "refers to itself"),
        ({"type": "integer", "minimum": 3}, "schema.minimum. is not supported"),
        ({"type": "object", "required": ["a"]}, "required"),
        ({"enum": []}, "enum"),
        ({"$ref": "http://x"}, "ref"),
        ({"type": "string", "pattern": "a"}, r"\^...\$"),
        ({"type": "string", "maxLength": -1}, "maxLength"),
        (
            {"anyOf": [{"type": "object", "properties": {str(n): {"type": "null"} for n in range(999)}}] * 9},
            "characters",
        ),
    ],
)
def test_a_schema_that_is_not_regular_is_refused(schema, fault):
    with pytest.raises(ValueError, match=fault):
        pattern_of(schema, Characters(ALPHABET))


@pytest.mark.parametrize("whole", [
    {"anyOf": [{"$ref": "#/$defs/a"}] * 2_000},
    {"type": "object", "properties": {str(n): {"$ref": "#/$defs/a"} for n in range(2_000)}},
    {"enum": ["x" * 15_000] * 2_000},
])  # fmt: skip
def test_a_schema_that_is_too_long_is_refused_before_all_of_it_is_made(whole):
    tokenizer = Characters(ALPHABET)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="more than 20,000 characters"):
            pattern_of({**whole, "$defs": {"a": {"const": "x" * 15_000}}}, tokenizer)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_automata_are_kept_as_many_as_fit(monkeypatch):
    tokenizer, bytes_of = Characters(ALPHABET), lambda: sum(each.next.nbytes for each in _automaton._kept_ones.values())
    monkeypatch.setattr(_automaton, "_kept_ones", collections.OrderedDict())
    size = line_of("[ab]{40}", tokenizer).next.nbytes
    assert size == 42 * 4 * len(ALPHABET) == bytes_of()
    monkeypatch.setattr(_automaton, "KEPT", 3 * size)
    first, second = (line_of(f"[{c}d]{{40}}", tokenizer) for c in "ef")
    assert line_of("[ed]{40}", tokenizer) is first
    assert len({id(line_of(f"[{c}d]{{40}}", tokenizer)) for c in "gh"}) == 2 and bytes_of() == 3 * size
    assert line_of("[ed]{40}", tokenizer) is first and line_of("[fd]{40}", tokenizer) is not second
    line_of("[ed]{400}", tokenizer)  # larger than all that is kept
    assert bytes_of() == 3 * size


def test_an_automaton_and_its_most_likely_text_agree_with_enumeration():
    """Places 1 to 4 of five, some of them given; the likeliest accepted text of 3^4."""
    tokenizer = Characters("ab\n")
    rng = np.random.default_rng(0)
    for pattern in ("a+b?", "(ab)*", "b.*a"):
        made = line_of(pattern, tokenizer)
        log_p = rng.normal(size=(5, 3))
        allowed = np.ones((5, 3), bool)
        allowed[2, 1] = pattern == "(ab)*"
        texts = np.stack(np.meshgrid(*[range(3)] * 4, indexing="ij"), -1).reshape(-1, 4)
        good = [text for text in texts if re.fullmatch(pattern, tokenizer.decode(text).split("\n")[0])]
        good = [text for text in good if allowed[1:][np.arange(4), text].all()]
        strict = Strict(made, 1, 5, allowed, "the pattern")
        best = max(good, key=lambda text: log_p[1:][np.arange(4), text].sum())
        assert strict.best(np.where(allowed, log_p, -np.inf)).tolist() == best.tolist()
        nats = np.where(allowed, log_p, -1e30)
        whole = np.logaddexp.reduce([nats[1:][np.arange(4), text].sum() for text in good])
        assert np.isclose(strict.ahead(nats)[1, 0], whole) and strict.ahead(nats)[0].max() == 0
        open = strict.open(allowed)[1:]
        assert open.tolist() == [[any(text[i] == w for text in good) for w in range(3)] for i in range(4)]
    with pytest.raises(ValueError, match="cannot be matched"):
        Strict(line_of("aaaaa", tokenizer), 1, 5, allowed, "the pattern")


def test_pieces_of_a_stream_are_sent_at_once():
    """Nagle's algorithm would hold each back until the client has acknowledged the one before."""
    with listen("127.0.0.1", 0) as server, socket.create_connection(server.getsockname()):
        taken, _ = server.accept()
        with taken:
            assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_command_listens_and_ends_when_it_is_asked_to(tmp_path):
    """As a process: the address on stdout, an answer, SIGTERM and its exit code."""
    ed.save(tmp_path / "tiny.safetensors", ed.EnergyDLLM(Characters("abc "), dim=16, key=jax.random.key(0)))
    words = ["serve", str(tmp_path / "tiny.safetensors"), "--port", "0", "--lengths", "16", "--batches", "1"]
    command = [sys.executable, "-m", "energy_dllm", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        with urllib.request.urlopen(f"{address}/v1/models", timeout=60) as answer:
            assert json.load(answer)["data"][0]["id"] == "tiny"
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in err, err
