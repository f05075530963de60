"""Pictures over HTTP: by the `openai` client, and by requests that are wrong."""

import base64
import io
import json
import shutil
import struct
import zlib
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import openai
import pytest
from served import Running, driven, refused

import energy_dllm as ed
from energy_dllm.serve._body import form
from energy_dllm.serve._errors import APIError
from energy_dllm.serve._pictures import opened


pytest.importorskip("PIL")
SHAPE = 4, 8


def drawings(channels=0):
    """Pictures of few kinds of patches of 2 x 2 pixels."""
    draw = np.random.default_rng(0)
    patches = draw.integers(0, 256, (5, 2, 2, max(1, channels)), np.uint8)
    chosen = patches[draw.integers(0, 5, (12, 2, 4))]
    made = chosen.transpose(0, 1, 3, 2, 4, 5).reshape(12, *SHAPE, -1)
    return made if channels else made[..., 0]


def model_of(channels=0):
    """One that has seen `one`, `two` and `no`: of all other letters its prior thinks little."""
    tokenizer = ed.data.Patches.from_pictures(drawings(channels), patch=2, captions=["one", "two", "no", "x"])
    schedule = ed.flow.LogLinear(sigma_max=4.0, sigma_min=0.1)
    model = ed.EnergyDLLM(tokenizer, dim=16, reach=1, schedule=schedule, key=jax.random.key(0))
    prior = jnp.where(jnp.arange(tokenizer.size) == tokenizer.letters.index("x"), -6.0, 0.0)
    return eqx.tree_at(lambda m: m.energy.vocabulary.prior, model, prior)


@pytest.fixture(scope="module")
def model():
    return model_of()


@pytest.fixture(scope="module")
def running(model):
    words = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, key=jax.random.key(0))
    with Running(ed.serve.application({"words": words, "drawn": model}, lengths=(8,), batches=(1, 2))) as running:
        yield running


@pytest.fixture(scope="module")
def client(running):
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=240) as client:
        yield client


def png(picture):
    file = io.BytesIO()
    ed.data.write_picture(file, picture)
    return file.getvalue()


def pixels(item):
    return ed.data.read_picture(io.BytesIO(base64.b64decode(item.b64_json)))


def test_a_caption_becomes_the_pictures_that_generate_makes(client, model, running):
    """Number by number, alone or in a batch; the caption of an empty prompt is sampled."""
    settings: Any = dict(model="drawn", n=2, size="8x4", response_format="b64_json")
    made = client.images.generate(prompt="one", **settings, extra_body={"seed": 7, "budget": 8})
    sampler = ed.sampling.default_sampler(model, 8)
    drawn = ed.generate(model, prompt="one", samples=2, seed=7, sampler=sampler)
    assert all(np.array_equal(pixels(item), picture) for item, picture in zip(made.data, drawn.pictures, strict=True))
    said = made.model_extra["energy_dllm"]
    assert said["caption"] == ["one", "one"] and said["force_evaluations"] == [8, 8] and said["seed"] == 7
    assert np.allclose(said["free_energy"], drawn.free_energy[:, -1], rtol=1e-5)
    assert (made.usage.input_tokens, made.usage.output_tokens) == (3, 16)
    free = client.images.generate(model="drawn", prompt="", size="auto", extra_body={"seed": 1})
    alone = ed.generate(model, seed=1)
    assert free.data[0].revised_prompt == alone.texts[0] and np.array_equal(pixels(free.data[0]), alone.pictures[0])
    assert free.model_extra["energy_dllm"]["budget"] == 48
    # the first model that makes pictures where none is named; counted
    assert len(running.post("/v1/images/generations", prompt="no", budget=4)["data"]) == 1
    assert float(running.get("/metrics")[1].split("\nenergy_dllm_pictures_total ")[1].split()[0]) == 4


def test_a_stream_shows_moments_and_the_picture(client):
    asked: Any = dict(model="drawn", prompt="one", extra_body={"seed": 7, "budget": 32})
    whole = client.images.generate(**asked)
    events = list(client.images.generate(**asked, stream=True, partial_images=3))
    assert [type(event).__name__ for event in events] == ["ImageGenPartialImageEvent"] * 3 + ["ImageGenCompletedEvent"]
    assert [event.partial_image_index for event in events[:3]] == [0, 1, 2]
    said = [event.model_extra["energy_dllm"] for event in events]
    assert [each["force_evaluations"] for each in said] == [8, 16, 24, 32]
    assert said[0]["sigma"] > said[3]["sigma"] and said[0]["free_energy"] > said[3]["free_energy"]
    assert events[-1].b64_json == whole.data[0].b64_json and events[-1].usage.output_tokens == 8
    alone = list(client.images.generate(**asked, stream=True))
    assert len(alone) == 1 and alone[0].type == "image_generation.completed"


@pytest.mark.parametrize("channels", [0, 3])
def test_a_hole_is_filled_as_inpaint_fills_it(channels):
    """The mask is transparent there, or the picture itself; as a form by the client, and as JSON."""
    model = model_of(channels)
    picture, hole = drawings(channels)[2], np.zeros(SHAPE, bool)
    hole[:, 3:6] = True  # two columns of patches are cut in half
    filled = ed.sampling.inpaint(model, picture, hole, caption="one", seed=5, sampler=_filling(model, 12))
    veil = np.where(hole, 0, 255).astype(np.uint8)
    colour = picture if channels else np.stack([picture] * 3, axis=-1)
    mask, cut = png(np.stack([veil] * 4, axis=-1)), png(np.dstack([colour, veil]))
    with Running(ed.serve.application({"drawn": model}, batches=(1,))) as running:
        with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=240) as client:
            asked: Any = dict(model="drawn", prompt="one", extra_body={"seed": 5, "budget": 12})
            whole = client.images.edit(image=png(picture), mask=mask, **asked)
            holed = client.images.edit(image=[cut], **asked)
            events = list(client.images.edit(image=cut, stream=True, partial_images=1, **asked))
            named: Any = client.images.edit(
                image=png(picture), prompt="", model="drawn", extra_body={"seed": 5, "budget": 4}
            )
        coded = base64.b64encode(cut).decode()
        body = running.post("/v1/images/edits", image=f"data:image/png;base64,{coded}", prompt="one", seed=5, budget=12)
    colours = lambda item: ed.data.read_picture(io.BytesIO(base64.b64decode(item.b64_json)), colour=bool(channels))
    assert np.array_equal(colours(whole.data[0]), filled.pictures[0])
    assert np.array_equal(filled.pictures[0][~hole], picture[~hole])
    files = {whole.data[0].b64_json, holed.data[0].b64_json, events[-1].b64_json, body["data"][0]["b64_json"]}
    assert len(files) == 1 and [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"]
    alone = ed.sampling.inpaint(model, picture, seed=5, sampler=_filling(model, 4))
    assert np.array_equal(colours(named.data[0]), picture) and named.data[0].revised_prompt == alone.texts[0]


def _filling(model, evaluations):
    return ed.sampling.default_sampler(model, evaluations, filling=True)


def _encoded(shape=SHAPE, head=None):
    made = png(np.zeros(shape, np.uint8))
    made = made if head is None else made[:16] + struct.pack(">II", *head) + made[24:]
    return base64.b64encode(made).decode()


GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
BAD = {
    "a model of text": (GENERATIONS, {"model": "words", "prompt": "one"}, 400, "model"),
    "text of a model of pictures": ("/v1/completions", {"model": "drawn", "prompt": "one"}, 400, "model"),
    "a score of a model of pictures": ("/v1/score", {"model": "drawn", "text": "one"}, 400, "model"),
    "no such model": (GENERATIONS, {"model": "none", "prompt": "one"}, 404, "model"),
    "a word that is not known": (GENERATIONS, {"prompt": "ox"}, 400, "prompt"),
    "a word of other letters": (GENERATIONS, {"prompt": "zz"}, 400, "prompt"),
    "a word that is too long": (GENERATIONS, {"prompt": "a picture of one"}, 400, "prompt"),
    "no word": (GENERATIONS, {}, 400, "prompt"),
    "another size": (GENERATIONS, {"prompt": "one", "size": "1024x1024"}, 400, "size"),
    "an address": (GENERATIONS, {"prompt": "one", "response_format": "url"}, 400, "response_format"),
    "too many": (GENERATIONS, {"prompt": "one", "n": 99}, 400, "n"),
    "no picture": (EDITS, {"prompt": "one"}, 400, "image"),
    "no base64": (EDITS, {"image": "§§"}, 400, "image"),
    "base64 that is cut off": (EDITS, {"image": _encoded()[:-3]}, 400, "image"),
    "no PNG file": (EDITS, {"image": base64.b64encode(b"GIF89a" * 9).decode()}, 400, "image"),
    "a PNG file that is cut off": (EDITS, {"image": _encoded()[:40]}, 400, "image"),
    "a picture of another size": (EDITS, {"image": _encoded((8, 8))}, 400, "image"),
    "a picture whose head is wrong": (EDITS, {"image": _encoded(head=(65535, 65535))}, 400, "image"),
    "a mask of another size": (EDITS, {"image": _encoded(), "mask": _encoded((8, 8))}, 400, "mask"),
    "a mask without a hole": (EDITS, {"image": _encoded(), "mask": _encoded()}, 400, "mask"),
    "nothing that is open": (EDITS, {"image": _encoded(), "prompt": "one"}, 400, "image"),
    "a path": (EDITS, {"image": "../../etc/passwd"}, 400, "image"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said(running, name):
    message = refused(running, *BAD[name])
    assert " object at " not in message and len(message) < 250


def test_a_picture_is_not_unpacked_before_its_size_is_known(running):
    """A megabyte of zeros that say they are 28 GB: refused by its head; by another head, as damaged."""
    head = lambda down, across: struct.pack(">IIBBBBB", across, down, 8, 0, 0, 0, 0)
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    data = zlib.compress(bytes(400_000_000), 9)
    for size, word in (((170_000, 170_000), "170000 x 170000"), (SHAPE, "cannot be read")):
        bomb = (
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head(*size)) + chunk(b"zTXt", b"a\0\0" + data) + chunk(b"IEND", b"")
        )
        status, text = running.get(EDITS, {"image": base64.b64encode(bomb).decode(), "prompt": "one"})
        assert status == 400 and word in text, text


@pytest.mark.parametrize("hidden", [False, True])
def test_a_size_behind_another_chunk_or_another_head_is_not_believed(model, hidden):
    """Where the size stands a chunk of another kind, or a head that a second one takes back; neither is unpacked."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = lambda down, across: struct.pack(">IIBBBBB", across, down, 8, 0, 0, 0, 0)
    first = chunk(b"prVt" if hidden else b"IHDR", head(*SHAPE))
    data = zlib.compress(bytes(3000 * 3001), 9)
    bomb = b"\x89PNG\r\n\x1a\n" + first + chunk(b"IHDR", head(3000, 3000)) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    with pytest.raises(ValueError, match="`image` is no PNG file"):
        opened(model, base64.b64encode(bomb).decode(), "image")


def test_a_form_is_its_fields():
    """As browsers and clients write them, RFC 7578; what is none is refused, and never fails otherwise."""
    kind = "multipart/form-data; boundary=xYz"
    part = lambda name, content, file=b"": (
        b'--xYz\r\nContent-Disposition: form-data; name="' + name + b'"' + file + b"\r\n\r\n" + content + b"\r\n"
    )
    raw = bytes(range(256)) + b"\r\n--xY\r\n\r\n"
    body = part(b"prompt", "é".encode()) + part(b"image[]", raw, b'; filename="a.png"\r\nContent-Type: image/png')
    assert form(body + b"--xYz--\r\n", kind) == {"prompt": "é", "image": base64.b64encode(raw).decode()}
    quoted = 'Multipart/Form-Data; charset=utf-8; boundary="xYz"'
    assert form(b"--xYz\r\n" + body[7:] + b"--xYz--", quoted)["prompt"] == "é"
    draw = np.random.default_rng(0)
    wrong = [b"", body, b"--xYz--", body + body + b"--xYz--", part(b"a", b"\xff") + b"--xYz--", 70 * body + b"--xYz--"]
    wrong += [b"--xYz\r\nContent-Disposition: form-data\r\n\r\nx\r\n--xYz--", b"--xYz\r\n--xYz--"]
    whole = body + b"--xYz--"
    wrong += [whole[: draw.integers(len(whole) - 3)] for _ in range(50)]
    for each in wrong:
        with pytest.raises(APIError):
            form(each, kind)
    with pytest.raises(APIError, match="boundary"):
        form(whole, "multipart/form-data")


def test_the_document_and_the_models_tell_of_pictures(running, client):
    document = json.loads(running.get("/openapi.json")[1])
    kinds = document["paths"][EDITS]["post"]["requestBody"]["content"]
    assert list(kinds) == ["application/json", "multipart/form-data"] and {GENERATIONS, EDITS} < set(document["paths"])
    assert list(document["paths"][GENERATIONS]["post"]["requestBody"]["content"]) == ["application/json"]
    found = {each.id: each.model_extra["energy_dllm"] for each in client.models.list()}
    assert found["drawn"]["size"] == "8x4" and found["drawn"]["caption"]["width"] == 3 and "size" not in found["words"]
    assert client.models.retrieve("drawn").id == "drawn"


DRAW = """
await until(() => $('model').options.length == 2); $('model').value = 'drawn'; $('model').onchange();
const c = $('canvas'), read = () => [...pen().getImageData(0, 0, 8, 4).data];
seen.push(c.width == 8 && c.height == 4, $('budget').value == 48, $('fill').disabled, $('text').offsetHeight == 0);
$('prompt').value = 'one'; $('budget').value = 12; press(document, 'Enter'); await until(() => done);
const first = read(), kept = (a, b) => a.every((v, k) => k % 32 >= 16 || v == b[k]);
seen.push(moments.length == 3, new Set(first).size > 2, first.every((v, k) => k % 4 != 3 || v == 255));
seen.push($('named').textContent == 'one', $('said').textContent.includes("Caption 'one', 12 force"));
document.querySelector('.cut').click(); const holed = read();
seen.push(kept(first, holed), holed.filter((v, k) => k % 4 == 3 && v == 0).length == 16, !$('fill').disabled);
$('prompt').value = 'zz'; $('fill').click(); await until(() => $('said').className == 'bad');
seen.push(!$('fill').disabled, read().join() == holed.join());
$('prompt').value = ''; $('fill').click(); await again();
seen.push(kept(first, read()), read().every((v, k) => k % 4 != 3 || v == 255), $('fill').disabled);
const at = c.getBoundingClientRect();
c.dispatchEvent(new PointerEvent('pointerdown', {buttons: 1, clientX: at.left + 2, clientY: at.top + 2}));
seen.push(read()[3] == 0 && read()[4 * 7 + 3] == 255, !$('fill').disabled);
$('model').value = 'words'; $('model').onchange();
seen.push($('budget').value == 25, $('canvas').offsetHeight == 0, $('text').offsetHeight > 0);
"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed (apt install chromium)")
def test_pictures_in_the_playground(running, tmp_path):
    """Draw, erase half of it, fill that, after a caption that is refused; erase by pointer; back to text."""
    assert driven(running, DRAW, tmp_path) == "true " * 22 + "0"
