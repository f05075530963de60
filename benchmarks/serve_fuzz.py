"""Random requests, made from the server's own OpenAPI document: none may crash it, or be answered by a failure.

python benchmarks/serve_fuzz.py http://127.0.0.1:8000 --count 2000 --seed 0

Bodies follow the schemas, then most of them are spoilt: values of other types, numbers out of range, odd characters,
missing and unknown arguments, cut or repeated bytes; PNG files with holes, of other sizes, damaged, in JSON and forms.
Every answer has to be JSON, with a status that is not 5xx (but 504, where a request takes too long) and an error object
where it is 4xx.
"""

import argparse
import base64
import collections
import json
import random
import string
import struct
import time
import urllib.error
import urllib.request
import zlib


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


WORDS = ["", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "éé"]
MARK = "x" * 12


def random_request(rng: random.Random, document: dict, size: tuple[int, int]) -> tuple[str, bytes, str]:
    """An address, a body for it, and its content type; pictures have this size."""
    paths = [path for path, methods in document["paths"].items() if "post" in methods]
    path = rng.choice(paths)
    schemas = document["components"]["schemas"]
    schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    body = _value(rng, schema, schemas)
    if "/images/" in path:
        body = {name: body[name] for name in body if name in ("n", "seed", "temperature") or rng.random() < 0.3}
        body |= {"prompt": rng.choice(WORDS)} if rng.random() < 0.9 else {}
        body |= {name: _png(rng, size) for name in ("image", "mask") if "edits" in path and rng.random() < 0.7}
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
        key = rng.choice([*body, _text(rng)])
        body[key] = rng.choice((_odd(rng), rng.choice(VALUES), [_odd(rng)], {_text(rng): _odd(rng)}))
    made, kind = json.dumps(body, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass"), "application/json"
    if "edits" in path and rng.random() < 0.5:
        made, kind = _form(body), f"multipart/form-data; boundary={MARK}"
    spoilt = rng.random()
    if spoilt < 0.04:
        made = made[: rng.randrange(len(made) + 1)]
    elif spoilt < 0.06:
        made += made
    elif spoilt < 0.08:
        made = bytes(rng.randrange(256) for _ in range(rng.randrange(200)))
    elif spoilt < 0.09:
        made = made[:-1] + b"," + b'"x":' + b"[" * 5000
    return path, made, kind


def _form(body: dict) -> bytes:
    """As clients write it: pictures as files, all else as text."""
    parts = []
    for name, value in body.items():
        head = f'--{MARK}\r\nContent-Disposition: form-data; name="{name}"'
        try:
            file = base64.b64decode(value, validate=True) if name in ("image", "mask") else None
        except (TypeError, ValueError):
            file = None
        text = value if isinstance(value, str) else json.dumps(value)
        content = text.encode("utf-8", "surrogatepass") if file is None else file
        head += "" if file is None else '; filename="a.png"\r\nContent-Type: image/png'
        parts.append(head.encode("utf-8", "surrogatepass") + b"\r\n\r\n" + content + b"\r\n")
    return b"".join(parts) + f"--{MARK}--\r\n".encode()


def _png(rng: random.Random, size: tuple[int, int]) -> str:
    """Grey pixels and how opaque they are, in base64; one in four is of another size, or damaged."""
    across, down = size if rng.random() < 0.85 else (rng.randrange(1, 60), rng.randrange(1, 60))
    edge = rng.randrange(across + 1)
    row = lambda: b"".join(bytes((rng.randrange(256), 255 * (place < edge))) for place in range(across))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", across, down, 8, 4, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row() for _ in range(down)))
    made = bytearray(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    if rng.random() < 0.1:
        made[rng.randrange(len(made))] = rng.randrange(256)
    return base64.b64encode(made[: rng.randrange(len(made))] if rng.random() < 0.05 else made).decode()


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
    events = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    for part in events or [text]:
        if part.strip() == "[DONE]":
            continue
        try:
            record = json.loads(part)
        except ValueError:
            return "no JSON"
        if (status >= 400) != ("error" in record):
            return "no error object" if status >= 400 else f"an error in the stream: {record['error']['message'][:200]}"
    return None


def send(address: str, path: str, body: bytes, kind: str) -> tuple[int, str]:
    """Status and body of the answer, 0 where there is none."""
    request = urllib.request.Request(address + path, body, {"Content-Type": kind})
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
    with urllib.request.urlopen(f"{options.address}/v1/models") as answer:
        sizes = [each["energy_dllm"].get("size") for each in json.loads(answer.read())["data"]]
    across, down = next((each for each in sizes if each), "28x28").split("x")
    made: collections.Counter[str] = collections.Counter()
    seen: collections.Counter[int] = collections.Counter()
    faults, start = 0, time.monotonic()
    for number in range(options.count):
        path, body, kind = random_request(rng, document, (int(across), int(down)))
        status, text = send(options.address, path, body, kind)
        seen[status] += 1
        made[path] += status == 200
        if fault := fault_of(status, text):
            faults += 1
            print(f"{number}: {path} {body[:300]!r}: {fault}: {text[:300]}", flush=True)
    print(f"{options.count} requests in {time.monotonic() - start:.0f} s, {faults} faults, by status {dict(seen)}")
    print(f"answers by address {dict(made)}")
    raise SystemExit(faults > 0)


if __name__ == "__main__":
    main()
