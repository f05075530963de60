"""Pictures as the server makes them: PNG files to evidence, passages, and moments to PNG files."""

import base64
import binascii
import dataclasses
import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8

from .._checks import on_device
from .._model import EnergyDLLM
from ..data import read_picture, write_picture
from ..sampling import of_picture
from ._engine import Engine
from ._passage import keys_of, letters
from ._task import SETTLED, Budget, Passage, Shown


UNLIKELY = 20.0
"""A caption is unknown if another letter is so many times as likely at a place, given its other letters."""


@dataclasses.dataclass(frozen=True)
class PicturePlan:
    """Pictures that are to be made: given tokens `ids (L,)`, which of them are `known (L,)`, evidence `b (L, V)` about
    patches that are seen in part; the `picture` and its `hole`, if it is one that is filled."""

    name: str
    model: EnergyDLLM
    ids: Integer[np.ndarray, " L"]
    known: Bool[np.ndarray, " L"]
    b: Float[np.ndarray, "L V"]
    picture: UInt8[np.ndarray, "rows columns *channels"] | None
    hole: Bool[np.ndarray, "rows columns"] | None
    temperature: float
    budget: Budget
    seed: int


class Drawing:
    """One picture of a plan, number `index`: what stands at the moment that it was shown last. It is written as a
    `Choice` is."""

    stops, ends_line, reason, light = (), False, None, True

    def __init__(self, plan: PicturePlan, index: int):
        self.plan, self.index, self.ids = plan, index, plan.ids
        self.sigma, self.free_energy, self.evaluations = float("nan"), float("nan"), 0
        self.begun = False

    def next(self, engine: Engine, deliver: Callable[[Any], object]) -> Passage | None:
        """Its passage, once."""
        if self.begun:
            return None
        self.begun, plan = True, self.plan
        keys = np.asarray(keys_of(np.uint32(plan.seed), np.int32(0), np.int32(self.index)))
        way, given = 0 if plan.picture is not None else SETTLED, (plan.ids, plan.known, plan.b, len(plan.ids))
        return Passage(plan.name, *given, plan.temperature, keys, plan.budget, False, None, way, deliver)

    def take(self, shown: Shown) -> str:
        """Take over a moment."""
        moment = shown.moment
        self.ids = np.where(self.plan.known, self.plan.ids, moment.ids)
        self.sigma, self.free_energy, self.evaluations = (
            float(moment.sigma),
            float(moment.free_energy),
            shown.evaluations,
        )
        return ""

    @property
    def caption(self) -> str:
        """Given, or found."""
        return self.plan.model.decode(self.ids)

    @property
    def file(self) -> str:
        """PNG, in base64; pixels that are given are kept."""
        tokenizer: Any = self.plan.model.tokenizer
        made, given, hole = tokenizer.picture(self.ids), self.plan.picture, self.plan.hole
        if given is not None and hole is not None:
            made = np.where(hole if given.ndim == 2 else hole[..., None], made, given)
        return png(made)


def drawing(name: str, model: EnergyDLLM, caption: str, **settings: Any) -> PicturePlan:
    """A picture of a caption, or of any if it is empty."""
    known_caption(model, caption)
    return _plan(name, model, None, np.ones(_shape(model), bool), caption, settings)


def filling(name: str, model: EnergyDLLM, image: str, mask: str | None, caption: str, **settings: Any) -> PicturePlan:
    """A picture with a hole, where the mask, or without one the picture, is transparent."""
    picture, opaque = opened(model, image, "image")
    if mask is not None:
        _, opaque = opened(model, mask, "mask")
        if opaque.all():
            raise ValueError("`mask` has no transparent pixel; expected some, at which the picture is filled.")
    known_caption(model, caption)
    return _plan(name, model, picture, ~opaque, caption, settings)


def _plan(name, model, picture, hole, caption, settings) -> PicturePlan:
    tokenizer: Any = model.tokenizer
    colours = () if tokenizer.channels == 1 else (3,)
    blank = np.zeros((*hole.shape, *colours), np.uint8)
    try:
        given, b = of_picture(model, blank if picture is None else picture, hole, caption)
    except ValueError as error:
        words = {"`caption`": "`prompt`", "`text`": "`prompt`", "`hole` is empty": "`image` is opaque"}
        message = str(error)
        for word, other in words.items():
            message = message.replace(word, other)
        raise ValueError(message) from None
    b = b.astype(model.energy.vocabulary.codes.dtype)
    ids, known = np.asarray(given.ids, np.int32), np.asarray(given.known, bool)
    return PicturePlan(name, model, ids, known, b, picture, None if picture is None else hole, **settings)


def opened(
    model: EnergyDLLM, file: str, name: str
) -> tuple[UInt8[np.ndarray, "rows columns *channels"], Bool[np.ndarray, "rows columns"]]:
    """Pixels of a PNG file in base64, the argument `name` of a request, and which of them are not transparent."""
    tokenizer: Any = model.tokenizer
    try:
        content = base64.b64decode(file.partition("base64,")[2] if file.startswith("data:") else file, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"`{name}` is no base64; expected that of a PNG file.") from None
    if content[:8] != b"\x89PNG\r\n\x1a\n" or len(content) < 24 or not _headed(content):
        raise ValueError(f"`{name}` is no PNG file; expected one of {size_of(model)} pixels.")
    across, down = struct.unpack(">II", content[16:24])
    if (down, across) != tokenizer.shape:  # read from its head: a large one is not unpacked
        raise ValueError(
            f"`{name}` has {across} x {down} pixels; expected {size_of(model)}, those of pictures of this model."
        )
    try:
        pixels = read_picture(io.BytesIO(content), colour=tokenizer.channels == 3, alpha=True)
    except Exception:  # damaged in one of many ways
        raise ValueError(f"`{name}` is a PNG file that cannot be read; take another copy.") from None
    seen = pixels[..., 0] if tokenizer.channels == 1 else pixels[..., :3]
    return seen, pixels[..., -1] > 0


def _headed(content: bytes) -> bool:
    """Whether the head of a PNG file is its first chunk and the only one, so that no other says how large it is."""
    place, heads = 8, []
    while place + 8 <= len(content):
        size, kind = struct.unpack(">I4s", content[place : place + 8])
        heads += [place] if kind == b"IHDR" else []
        place += 12 + size
    return heads == [8]


def known_caption(model: EnergyDLLM, caption: str) -> None:
    """`ValueError` for a caption that the model has not learned: one in which another letter is far likelier at a
    place, given the other letters."""
    tokenizer: Any = model.tokenizer
    width = tokenizer.width
    if not caption or len(caption) > width or set(caption) - set(tokenizer.letters):
        return  # what `of_picture` says of it
    ids = np.pad(tokenizer.fill(caption), (0, tokenizer.places - width))
    log_p = np.asarray(letters(model, on_device(ids), width))
    here = np.arange(width), ids[:width]
    odds = log_p.max(axis=-1) - log_p[here]
    place = int(odds.argmax())
    if odds[place] > np.log(UNLIKELY):
        other, given = (tokenizer.decode(np.array([n])) or " " for n in (log_p[place].argmax(), ids[place]))
        raise ValueError(
            f"`prompt` {caption!r} is no caption that this model has learned: as letter {place + 1} {other!r} is "
            f"{np.exp(odds[place]):,.0f} times as likely as {given!r}."
        )


def png(picture: UInt8[np.ndarray, "rows columns *channels"]) -> str:
    """A PNG file in base64."""
    file = io.BytesIO()
    write_picture(file, picture)
    return base64.b64encode(file.getvalue()).decode()


def size_of(model: EnergyDLLM) -> str:
    """Columns and rows of its pictures, as the OpenAI API writes them."""
    rows, columns = _shape(model)
    return f"{columns}x{rows}"


def _shape(model: EnergyDLLM) -> tuple[int, int]:
    tokenizer: Any = model.tokenizer
    return tokenizer.shape
