"""JSON schemas as regular expressions: what is regular in them, exactly; the rest is refused by name."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..data import AbstractTokenizer


ESCAPED = r'|\\["\\/bfnrt]'
EXPONENT = r"([eE][+\-]?[0-9]+)?"
PLAIN = {"integer": r"-?(0|[1-9][0-9]*)", "boolean": "(true|false)", "null": "null"}
IGNORED = {
    "title",
    "description",
    "default",
    "examples",
    "$schema",
    "$id",
    "$defs",
    "definitions",
    "$comment",
    "strict",
}
KNOWN = {
    "string": {"minLength", "maxLength", "pattern"},
    "integer": set[str](),
    "number": set[str](),
    "boolean": set[str](),
    "null": set[str](),
    "array": {"items", "minItems", "maxItems"},
    "object": {"properties", "required", "additionalProperties"},
}
DEEPEST = 16
"""Levels of a schema."""
LONGEST = 20_000
"""Characters of its pattern."""


def pattern_of(schema: Mapping[str, Any], tokenizer: AbstractTokenizer) -> str:
    """The regular expression of all texts that a JSON schema allows, written without spaces, keys in its order.

    Objects have their properties in the order of the schema, those that are not required may be left out; nothing else
    is added to them, and so `additionalProperties` is taken for false. Escapes and exponents are left out where the
    alphabet has none.

    **Raises:** `ValueError` for what is not regular (a reference to itself) or not known, naming it.
    """
    return _Schema(schema, tokenizer).pattern(schema, 0, "schema")


class _Schema:
    def __init__(self, root: Mapping[str, Any], tokenizer: AbstractTokenizer):
        self.root = root
        escapes = _has(tokenizer, r"\"/bfnrt")
        self.letter = rf'([^"\\\x00-\x1f]{ESCAPED})' if escapes else r'[^"\x00-\x1f]'
        number = PLAIN["integer"] + r"(\.[0-9]+)?" + (EXPONENT if _has(tokenizer, "eE+-") else "")
        self.plain = {**PLAIN, "number": number}

    def pattern(self, schema: Any, depth: int, where: str) -> str:
        made = self.unlimited(schema, depth, where)
        self.short(len(made), where)
        return made

    def short(self, size: int, where: str) -> None:
        if size > LONGEST:
            raise ValueError(f"`{where}` needs a pattern of more than {LONGEST:,} characters; make the schema simpler.")

    def together(self, patterns: Iterable[str], where: str) -> list[str]:
        """All of them, or an error as soon as they are too long, before the rest is made."""
        found, size = [], 0
        for each in patterns:
            size += len(each)
            self.short(size, where)
            found.append(each)
        return found

    def unlimited(self, schema: Any, depth: int, where: str) -> str:
        if depth > DEEPEST:
            raise ValueError(
                f"`{where}` is nested or refers to itself beyond {DEEPEST} levels, which no automaton reads."
            )
        if not isinstance(schema, Mapping):
            raise ValueError(f"`{where}` is {_short(schema)}; expected a JSON schema, an object.")
        rest = {key for key in schema if key not in IGNORED}
        if "$ref" in schema:
            self.only(rest, {"$ref"}, where)
            return self.pattern(self.referred(schema["$ref"], where), depth + 1, where)
        for word in ("const", "enum"):
            if word in schema:
                self.only(rest, {word, "type"}, where)
                values = [schema[word]] if word == "const" else schema[word]
                if not isinstance(values, list) or not values:
                    raise ValueError(f"`{where}.enum` is {_short(values)}; expected a list of values.")
                return _either(self.together(map(_literal, values), where))
        for word in ("anyOf", "oneOf"):
            if word in schema:
                self.only(rest, {word}, where)
                choices = schema[word]
                if not isinstance(choices, list) or not choices:
                    raise ValueError(f"`{where}.{word}` is {_short(choices)}; expected a list of schemas.")
                made = (self.pattern(each, depth + 1, f"{where}.{word}[{n}]") for n, each in enumerate(choices))
                return _either(self.together(made, where))
        kind = schema.get("type")
        if isinstance(kind, list) and kind:
            shared = {key: value for key, value in schema.items() if key != "type"}
            known = lambda each: KNOWN.get(each, set()) | IGNORED if isinstance(each, str) else IGNORED
            kinds = [{k: v for k, v in shared.items() if k in known(each)} | {"type": each} for each in kind]
            return _either(self.together((self.pattern(each, depth + 1, where) for each in kinds), where))
        if not isinstance(kind, str) or kind not in KNOWN:
            raise ValueError(f"`{where}.type` is {_short(kind)}; expected one of {', '.join(KNOWN)}.")
        self.only(rest, {"type", *KNOWN[kind]}, where)
        if kind == "object":
            return self.object(schema, depth, where)
        if kind == "array":
            return self.array(schema, depth, where)
        return self.string(schema, where) if kind == "string" else self.plain[kind]

    def only(self, words: set[str], known: set[str], where: str) -> None:
        if odd := sorted(words - known):
            raise ValueError(f"`{where}.{odd[0]}` is not supported here; leave it out, or write a pattern of your own.")

    def referred(self, name: Any, where: str) -> Any:
        if not isinstance(name, str) or not name.startswith("#"):
            raise ValueError(
                f"`{where}.$ref` is {_short(name)}; expected a place in this schema, such as #/$defs/item."
            )
        found: Any = self.root
        for part in name.split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or part not in found:
                raise ValueError(f"`{where}.$ref` is {_short(name)}, which is not in the schema.")
            found = found[part]
        return found

    def object(self, schema: Mapping[str, Any], depth: int, where: str) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, Mapping) or not isinstance(required, list):
            raise ValueError(f"`{where}` has malformed `properties` or `required`; expected an object and a list.")
        if schema.get("additionalProperties", False) not in (False, True):
            raise ValueError(
                f"`{where}.additionalProperties` is a schema, which is not supported; list the properties."
            )
        if missing := [name for name in required if name not in properties]:
            raise ValueError(f"`{where}.required` has {_short(missing[0])}, which `properties` does not describe.")
        pairs = (
            _literal(name) + ":" + self.pattern(each, depth + 1, f"{where}.{name}") for name, each in properties.items()
        )
        pairs = zip(self.together(pairs, where), (name in required for name in properties), strict=True)
        # what may follow after the first n properties, with a comma before it or, if none was written yet, without
        later, first = "", ""
        for pair, needed in reversed(list(pairs)):
            first = f"{pair}{later}" if needed else _either([f"{pair}{later}", first])
            later = f",{pair}{later}" if needed else f"(,{pair})?{later}"
            self.short(len(first) + len(later), where)
        return r"\{" + first + r"\}"

    def array(self, schema: Mapping[str, Any], depth: int, where: str) -> str:
        least, most = _range(schema, "minItems", "maxItems", where)
        if "items" not in schema:
            raise ValueError(f"`{where}.items` is missing; expected the schema of the items.")
        item = self.pattern(schema["items"], depth + 1, f"{where}.items")
        if most == 0:
            return r"\[\]"
        more = f"(,{item}){{{max(0, least - 1)},{'' if most is None else most - 1}}}"
        return rf"\[({item}{more}){'' if least else '?'}\]"

    def string(self, schema: Mapping[str, Any], where: str) -> str:
        least, most = _range(schema, "minLength", "maxLength", where)
        if "pattern" in schema:
            if least or most is not None:
                raise ValueError(
                    f"`{where}.pattern` beside lengths is not supported; put the lengths into the pattern."
                )
            pattern = schema["pattern"]
            if not isinstance(pattern, str) or not (pattern.startswith("^") and pattern.endswith("$")):
                raise ValueError(
                    f"`{where}.pattern` is {_short(pattern)}; expected ^...$, a pattern of the whole string."
                )
            return f'"({pattern[1:-1]})"'
        return f'"{self.letter}{{{least},{"" if most is None else most}}}"'


def _has(tokenizer: AbstractTokenizer, characters: str) -> bool:
    try:
        tokenizer.encode(characters)
    except ValueError:
        return False
    return True


def _range(schema: Mapping[str, Any], low: str, high: str, where: str) -> tuple[int, int | None]:
    least, most = schema.get(low, 0), schema.get(high)
    for name, value in ((low, least), (high, most)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 1000):
            raise ValueError(f"`{where}.{name}` is {_short(value)}; expected a whole number up to 1000.")
    if most is not None and most < least:
        raise ValueError(f"`{where}.{high}` is {most}, less than `{low}`, {least}.")
    return least, most


def _literal(value: Any) -> str:
    return escaped(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def escaped(text: str) -> str:
    """A pattern that matches this text alone."""
    return re.sub(r"([\\.\[\](){}|?*+^$])", r"\\\1", text)


def _either(patterns: list[str]) -> str:
    return f"({'|'.join(patterns)})"


def _short(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) < 60 else shown[:57] + "..."
