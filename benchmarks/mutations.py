"""What of a damaged file is noticed: a model and a checkpoint are changed at random, and loaded.

    python benchmarks/mutations.py --count 2000

Bits are flipped, bytes overwritten, removed and doubled, ends cut off; tokens of the header are swapped; and values of
the structure are replaced with a checksum that fits the result, as a program would that edits files. A change may be
refused with a `ValueError` of one sentence, or be without consequence (a space in the header). What counts as a fault:
a file that loads as something else than was saved, and any other exception.
"""

import argparse
import collections
import contextlib
import copy
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

import energy_dllm as ed
from energy_dllm.learn import _file


ODD = [None, True, 0, -1, 7, 1e300, float("nan"), "", "x", [], [1], {}, {"tuple": [0]}, {"array": "x"}, 10**30]


def run(path: Path, count: int, seed: int) -> dict[str, int]:
    """Change a file `count` times, each time anew, and load it."""
    rng = np.random.default_rng(seed)
    content, counts = path.read_bytes(), collections.Counter({"changed": 0, "other exceptions": 0})
    saved = same(ed.load(path)), ed.learn.notes(path)
    changed = path.with_name("changed.safetensors")
    for n in range(count):
        while True:
            with contextlib.suppress(ValueError):  # a change that is not one: another is drawn
                KINDS[n % len(KINDS)](content, changed, rng)
                break
        try:
            found = same(ed.load(changed)), ed.learn.notes(changed)
        except ValueError as error:
            counts["refused" if "\n" not in str(error) else "other exceptions"] += 1
        except BaseException as error:  # noqa: BLE001
            print(f"{KINDS[n % len(KINDS)].__name__} {n}: {type(error).__name__}: {error}")
            counts["other exceptions"] += 1
        else:
            counts["without consequence" if found == saved else "changed"] += 1
            if found != saved:
                print(f"{KINDS[n % len(KINDS)].__name__} {n}: loaded as something else")
    changed.unlink(missing_ok=True)
    return dict(counts)


def same(model) -> str:
    """Equal for models that are equal to the bit."""
    leaves = [
        (leaf.dtype, leaf.shape, np.asarray(leaf).tobytes())
        for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array))
    ]
    return f"{jax.tree.structure(model)} {leaves}"


def bit(content, changed, rng):
    data = bytearray(content)
    place = rng.integers(8 * len(data))
    data[place // 8] ^= 1 << place % 8
    changed.write_bytes(data)


def header_bit(content, changed, rng):
    data = bytearray(content)
    place = rng.integers(8 * (8 + int.from_bytes(data[:8], "little")))
    data[place // 8] ^= 1 << place % 8
    changed.write_bytes(data)


def stretch(content, changed, rng):
    data = bytearray(content)
    start = rng.integers(len(data))
    length = rng.integers(1, 64)
    kind = rng.integers(4)
    if kind == 0:
        data[start : start + length] = rng.bytes(len(data[start : start + length]))
    elif kind == 1:
        del data[start : start + length]
    elif kind == 2:
        data[start:start] = data[start : start + length]
    else:
        del data[start:]
    changed.write_bytes(data)


def words(content, changed, rng):
    """Two pieces of the header change places."""
    end = 8 + int.from_bytes(content[:8], "little")
    pieces = content[8:end].split(b",")
    a, b = rng.integers(len(pieces), size=2)
    pieces[a], pieces[b] = pieces[b], pieces[a]
    changed.write_bytes(content[:8] + b",".join(pieces) + content[end:])


def structure(content, changed, rng):
    """One value of the structure is replaced, and the checksum is that of the result."""
    changed.write_bytes(content)
    arrays, header = _file.read(changed)
    before = copy.deepcopy(header["structure"])
    places = list(_places(header["structure"]))
    holder, name = places[rng.integers(len(places))]
    other, there = places[rng.integers(len(places))]
    holder[name] = copy.deepcopy(other[there]) if rng.random() < 0.3 else ODD[rng.integers(len(ODD))]
    # a number or a word that is as good as the one before is another model, and no damage
    if _kinds(before) == _kinds(header["structure"]):
        raise ValueError("another model")
    _file.write(changed, arrays, header)


def arrays(content, changed, rng):
    """One array is another kind of numbers, of another shape, or not finite; the description and checksum fit it."""
    changed.write_bytes(content)
    arrays, header = _file.read(changed)
    specs = [holder[name] for holder, name in _places({"": header["structure"]}) if _is_array(holder[name])]
    spec = specs[rng.integers(len(specs))]
    array = arrays[spec["array"]].copy()
    kind = rng.integers(4)
    if kind == 0:
        array = array.astype(np.int32)
    elif kind == 1:
        array = np.stack([array, array])
    elif kind == 2 and array.size:
        array.reshape(-1)[rng.integers(array.size)] = rng.choice([np.nan, np.inf, -np.inf])
    else:
        array = array.reshape(1, *array.shape)
    arrays[spec["array"]] = array
    spec.update(shape=list(array.shape), dtype=str(array.dtype))
    _file.write(changed, arrays, header)


KINDS = [bit, header_bit, stretch, words, structure, arrays]


def _is_array(spec) -> bool:
    return isinstance(spec, dict) and "array" in spec


def _places(spec: Any) -> Iterator[tuple[Any, Any]]:
    for name in spec if isinstance(spec, dict) else range(len(spec)):
        yield spec, name
        if isinstance(spec[name], (dict, list)):
            yield from _places(spec[name])


def _kinds(spec):
    """The structure without its numbers and words."""
    if isinstance(spec, dict):
        return {name: spec[name] if name in ("class", "array", "dtype") else _kinds(spec[name]) for name in spec}
    return [_kinds(item) for item in spec] if isinstance(spec, list) else type(spec).__name__


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    corpus = ed.data.grammar_corpus(characters=5000)
    model = ed.EnergyDLLM(corpus.tokenizer, dim=8, depth=1, states=30, key=jax.random.key(0))
    ed.fit(model, corpus, ed.learn.Denoising(horizon=1), steps=9, until=2, length=8, batch_size=1, directory=folder)
    ed.save(folder / "model.safetensors", model, notes={"steps": 2})
    for name in ("model", "checkpoint"):
        print(name, json.dumps(run(folder / f"{name}.safetensors", asked.count // 2, asked.seed)))


if __name__ == "__main__":
    main()
