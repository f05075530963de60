"""Templates: text with holes, and the choice of the width of a hole of unknown width."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer

from .._checks import on_device, sizes
from .._model import EnergyDLLM
from ..flow import Allowed, Given, relax
from ._padding import pad, padded_length
from ._validate import WINDOW, room


class Typed(NamedTuple):
    """A text as tokens `ids (L,)`, which of them are `known (L,)`, and the characters of each; and whether it ends in a
    space that is left to the next token."""

    ids: Integer[np.ndarray, " L"]
    known: Bool[np.ndarray, " L"]
    pieces: list[str]
    opens: bool = False


def hole(width: int) -> Typed:
    """So many tokens of which nothing is known."""
    return Typed(np.zeros(width, np.int32), np.zeros(width, bool), [])


def typed(model: EnergyDLLM, text: str, mask_unknown: bool, name: str = "text") -> Typed:
    """The tokens of a text, which of them are known, and the characters of each.

    **Arguments:**

    - `model`: whose tokens.
    - `text`: the text, which an error calls `name`.
    - `mask_unknown`: whether characters outside the alphabet are unknown tokens; else they are a `ValueError`.
    """
    if not isinstance(mask_unknown, bool):
        raise ValueError(f"`mask_unknown` is {mask_unknown!r}; expected True or False.")
    if not isinstance(text, str):
        raise ValueError(f"`{name}` is {text!r}; expected a text, in quotes.")
    try:
        ids = np.asarray(model.tokenizer.encode(text))
    except ValueError as error:
        if not mask_unknown:
            what, alphabet, _ = str(error).partition("; use `Characters")
            fix = "; leave them out; of a prompt, suffix, template or text `mask_unknown` masks them (--unknown mask)"
            raise ValueError(what.replace("`text`", f"`{name}`", 1) + (f"{fix}." if alphabet else "")) from error
        if len(text) == 1:
            return Typed(np.zeros(1, np.int32), np.zeros(1, bool), [text])
        ids, known, pieces, _ = zip(*(typed(model, character, mask_unknown, name) for character in text), strict=True)
        return Typed(np.concatenate(ids), np.concatenate(known), [piece for each in pieces for piece in each])
    return Typed(ids, np.ones(ids.size, bool), model.tokenizer.by_token(ids))


def before_hole(model: EnergyDLLM, text: Typed) -> Typed:
    """A text without the space at its end, where the next token, that of a hole, may begin with one: of byte pairs a
    word is one token with the space before it, and hardly ever follows a space that is a token of its own."""
    space, begins = _spaces(model)
    if begins.sum() < 2 or not text.ids.size or not text.known[-1] or text.ids[-1] != space:
        return text
    return Typed(text.ids[:-1], text.known[:-1], text.pieces[:-1], opens=True)


def _spaces(model: EnergyDLLM) -> tuple[int, Bool[np.ndarray, " V"]]:
    """The token of a single space, -1 for none, and which tokens begin with one."""
    spelling = getattr(model.tokenizer, "spelling", ())
    begins = np.array([each.startswith(b" ") for each in spelling], bool)
    return next((n for n, each in enumerate(spelling) if each == b" "), -1), begins


def captioned(model: EnergyDLLM, caption: str, mask_unknown: bool = False, name: str = "caption") -> Typed:
    """The tokens of a caption, filled up with spaces as all captions are; none of an empty one, which is unknown."""
    grids = model.tokenizer.grids
    width = grids[0][1] if len(grids) > 1 else 0
    if len(caption) > width:
        raise ValueError(
            f"`{name}` {caption!r} has {len(caption)} letters; captions of this model have at most {width}."
        )
    return typed(model, caption and caption.ljust(width), mask_unknown, name)


Piece = str | int | None
"""Text, a hole of known width, the hole of unknown width."""


def of_template(
    model: EnergyDLLM, template: str, length: int | Sequence[int] | None = None, mask_unknown: bool = False
) -> tuple[Given, Allowed | None]:
    """The evidence of a template such as `"To be [8]or"`: its tokens are given, those of its holes unknown; and what is
    known of how these begin, see `given_of`.

    Arguments and errors are those of `infill`.
    """
    if not isinstance(template, str):
        raise ValueError(f"`template` is {template!r}; expected a text with holes such as [8].")
    pieces = _pieces(template)
    texts = [typed(model, piece, mask_unknown, "template") if isinstance(piece, str) else piece for piece in pieces]
    # text comes first and last, so that behind every other one there is a hole
    texts = [before_hole(model, each) if isinstance(each, Typed) else each for each in texts[:-1]] + texts[-1:]
    fixed = sum(piece.ids.size if isinstance(piece, Typed) else piece or 0 for piece in texts)
    room(max(fixed, 1), 1, 1, None, "template")
    if None not in pieces:
        if length is not None:
            raise ValueError(
                f"`length` is {length} and every hole of `template` has a width; write one as [*], or leave "
                "`length` out."
            )
        return _given(model, texts, 0)
    lengths = [WINDOW] if length is None else sorted(set(length)) if isinstance(length, Sequence) else [length]
    for each in lengths:
        sizes(length=each)
    if not lengths or lengths[0] <= fixed:
        given = "by default 64" if length is None else length
        raise ValueError(
            f"`length` is {given} and `template` has {fixed} tokens beside [*]; expected room for at least one more, "
            f"so make it {fixed + 1} or more."
        )
    room(lengths[-1], len(lengths), 1, None)
    choices = [_given(model, texts, each - fixed) for each in lengths]
    if len(choices) == 1:
        return choices[0]
    star = pieces.index(None)
    if not all(any(isinstance(piece, str) and piece for piece in side) for side in (pieces[:star], pieces[star:])):
        raise ValueError(
            f"`length` offers {len(lengths)} to choose from, but one side of [*] is empty in `template`, where no "
            "width fits better than another; give one `length`."
        )
    return choices[int(np.argmin(prices(model, [given for given, _ in choices])))]


def prices(model: EnergyDLLM, choices: Sequence[Given]) -> Float[np.ndarray, " N"]:
    """`-log P(what is given)` of passages of several lengths, in nats: `F` at rest less that of a masked passage."""
    # padded, in their number too, by the first again: one program for many
    longest = padded_length(max(given.length for given in choices))
    rows = [*choices, *[choices[0]] * (2 ** (len(choices) - 1).bit_length() - len(choices))]
    ids, known, mask = (
        on_device(np.stack([pad(row(given), longest) for given in rows]))
        for row in (lambda g: g.ids, lambda g: g.known, lambda g: np.ones(g.length, bool))
    )
    return np.asarray(_prices(model, ids, known, mask))[: len(choices)]


@eqx.filter_jit
def _prices(
    model: EnergyDLLM, ids: Int[Array, "N L"], known: Bool[Array, "N L"], mask: Bool[Array, "N L"]
) -> Float[Array, " N"]:
    """All of them padded to one shape."""

    def price(ids, known, mask):
        def resting(b):
            y = model.energy.neutral(ids.shape[0]).astype(b.dtype)
            y = relax(model.energy, y, b, steps=model.steps, step=model.step, mask=mask)
            return model.energy(y, b, mask=mask)

        b = model.field(Given(ids, known))
        return resting(b) - resting(jnp.zeros_like(b))

    return jax.vmap(price)(ids, known, mask)


def given_of(model: EnergyDLLM, *parts: Typed) -> tuple[Given, Allowed | None]:
    """One after another; and, where a text ends in a space that was left to the token behind it, that this begins with
    one."""
    ids, known = (np.concatenate([part[n] for part in parts]) for n in (0, 1))
    given = Given(on_device(ids.astype(np.int32)), on_device(known))
    ends = np.cumsum([part.ids.size for part in parts])
    places = [end for part, end in zip(parts, ends, strict=True) if part.opens]
    if not places:
        return given, None
    sets = np.ones((ids.size, model.size), bool)
    sets[places] = _spaces(model)[1]
    return given, Allowed(on_device(sets))


def _given(model: EnergyDLLM, texts, width: int) -> tuple[Given, Allowed | None]:
    """The passage, holes of unknown width being `width` tokens wide."""
    parts = [piece if isinstance(piece, Typed) else hole(width if piece is None else piece) for piece in texts]
    return given_of(model, *parts)


def _pieces(template: str) -> list[Piece]:
    """Literal text and the widths of holes, in order; text first and last."""
    pieces: list[Piece] = [""]
    place, stars = 0, []
    for match in re.finditer(r"\[\[|\[([1-9][0-9]*|\*)\]|\[", template):
        literal = template[place : match.start()] + ("[" if match[0] == "[[" else "")
        place = match.end()
        pieces[-1] = f"{pieces[-1]}{literal}"
        if match[1]:
            pieces += [None if match[1] == "*" else int(match[1]), ""]
            stars += [match.start()] if match[1] == "*" else []
        elif match[0] == "[":
            near = template[match.start() : match.start() + 12]
            raise ValueError(
                f"`template` has a malformed hole at character {match.start()}, {near!r}; expected one such "
                "as [8], [*] where the width is not known, or [[ for a bracket that is meant as such."
            )
    pieces[-1] = f"{pieces[-1]}{template[place:]}"
    if len(pieces) == 1:
        raise ValueError(f"`template` {template[:40]!r} has no hole; write one as [8], eight tokens wide.")
    if len(stars) > 1:
        raise ValueError(
            f"`template` has holes of unknown width at characters {stars[0]} and {stars[1]}; expected one at most, so "
            "give the width of the others, as [8]."
        )
    return pieces
