"""Random requests, made from the server's own OpenAPI document: none may crash it, or be answered by a failure.

python benchmarks/serve_fuzz.py http://127.0.0.1:8000 --count 2000 --seed 0

Bodies follow the schemas, then most of them are spoilt: values of other types, numbers out of range, odd characters,
missing and unknown arguments, cut or repeated bytes. Every answer has to be JSON, with a status that is not 5xx (but
504, where a request takes too long) and an error object where it is 4xx.
"""

import argparse
import collections
import json
import random
import string
import time
import urllib.error
import urllib.request


ODD = [
    "",
    " ",
    "\n",
    "\0",
    "é",
    "€",
    "\ud800",
    "𝔸",
    "\u202e",
    "[",
    "[[",
    "[1]",
    "[*]",
    "[999999999]",
    "a" * 9000,
    "%s%n",
]
ODD += ["../../etc/passwd", "(", "(a|b)*c{2,}", "a{1000}", "(.*a){20}", ".*", "[^a]", "\\", "#/$defs/x", "<script>"]
VALUES = [None, True, False, 0, -1, 1, 8, 64, 10**9, 2**63, -(2**70), 0.5, 1e308, 1e-300, float("nan"), [], {}, [[]]]


def random_request(rng: random.Random, document: dict) -> tuple[str, bytes]:
    """An address, and a body for it."""
    paths = [path for path, methods in document["paths"].items() if "post" in methods]
    path = rng.choice(paths)
    schemas = document["components"]["schemas"]
    schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    body = _value(rng, schema, schemas)
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
        key = rng.choice([*body, _text(rng)])
        body[key] = rng.choice((_odd(rng), rng.choice(VALUES), [_odd(rng)], {_text(rng): _odd(rng)}))
    made = json.dumps(body, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    spoilt = rng.random()
    if spoilt < 0.04:
        made = made[: rng.randrange(len(made) + 1)]
    elif spoilt < 0.06:
        made += made
    elif spoilt < 0.08:
        made = bytes(rng.randrange(256) for _ in range(rng.randrange(200)))
    elif spoilt < 0.09:
        made = made[:-1] + b"," + b'"x":' + b"[" * 5000
    return path, made


def _odd(rng: random.Random) -> str:
    return rng.choice(ODD) + (_text(rng) if rng.random() < 0.3 else "")


def _text(rng: random.Random) -> str:
    return "".join(rng.choice(string.ascii_lowercase + " .,[]8") for _ in range(rng.randrange(24)))


def _value(rng: random.Random, schema: dict, schemas: dict, depth: int = 0):
    """One that the schema allows, as far as it is looked at."""
    if "$ref" in schema:
        return _value(rng, schemas[schema["$ref"].split("/")[-1]], schemas, depth)
    if "anyOf" in schema:
        return _value(rng, rng.choice(schema["anyOf"]), schemas, depth)
    if "enum" in schema or "const" in schema:
        return rng.choice(schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    if kind == "object":
        if "properties" not in schema:
            of = schema.get("additionalProperties")
            one = lambda: _value(rng, of, schemas, depth + 1) if isinstance(of, dict) and of else rng.choice(VALUES)
            return {rng.choice(("3", "17", "schema", "type", _text(rng))): one() for _ in range(rng.randrange(3))}
        needed = schema.get("required", [])
        names = [name for name in schema["properties"] if name in needed or rng.random() < 0.3]
        made = {name: _value(rng, schema["properties"][name], schemas, depth + 1) for name in names}
        # what is large is slow, and no more likely to be wrong
        return {name: min(value, 24) if name in ("max_tokens", "max_completion_tokens", "n") and value else value
                for name, value in made.items() if name not in ("budget", "model") or rng.random() < 0.1}  # fmt: skip
    if kind == "array":
        count = rng.randrange(schema.get("minItems", 0), min(4, schema.get("maxItems", 3)) + 1)
        items = schema.get("prefixItems") or [schema.get("items", {})] * count
        return [_value(rng, item, schemas, depth + 1) for item in items]
    if kind == "integer":
        low = schema.get("minimum", 0)
        return rng.randrange(low, min(schema.get("maximum", low + 30), low + 30) + 1)
    if kind == "number":
        low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
        return rng.uniform(low, schema.get("maximum", schema.get("exclusiveMaximum", 1)))
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "null":
        return None
    if depth < 2 and rng.random() < 0.3:
        return f"{_text(rng)}[{rng.randrange(1, 9)}]{_text(rng)}"
    return _odd(rng)[: schema.get("maxLength", 100)] if rng.random() < 0.3 else _text(rng) or "a"


def fault_of(status: int, text: str) -> str | None:
    """What is wrong with an answer."""
    if status >= 500 and status != 504 or status == 0:
        return f"status {status}"
    if "Traceback" in text or 'File "' in text:
        return "a traceback"
    for part in text.removeprefix("data: ").split("\n\ndata: ") if text.startswith("data: ") else [text]:
        if part.strip() == "[DONE]":
            continue
        try:
            record = json.loads(part)
        except ValueError:
            return "no JSON"
        if (status >= 400) != ("error" in record):
            return "no error object" if status >= 400 else f"an error in the stream: {record['error']['message'][:200]}"
    return None


def send(address: str, path: str, body: bytes) -> tuple[int, str]:
    """Status and body of the answer, 0 where there is none."""
    request = urllib.request.Request(address + path, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with urllib.request.urlopen(f"{options.address}/openapi.json") as answer:
        document = json.loads(answer.read())
    seen: collections.Counter[int] = collections.Counter()
    faults, start = 0, time.monotonic()
    for number in range(options.count):
        path, body = random_request(rng, document)
        status, text = send(options.address, path, body)
        seen[status] += 1
        if fault := fault_of(status, text):
            faults += 1
            print(f"{number}: {path} {body[:300]!r}: {fault}: {text[:300]}", flush=True)
    print(f"{options.count} requests in {time.monotonic() - start:.0f} s, {faults} faults, by status {dict(seen)}")
    raise SystemExit(faults > 0)


if __name__ == "__main__":
    main()
