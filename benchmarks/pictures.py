"""Measure and draw what a model of pictures makes: `digits`, on MNIST.

    python benchmarks/pictures.py measure digits ../shared/data/mnist --out runs/pictures
    python benchmarks/pictures.py figures digits ../shared/data/mnist --out docs/figures

`measure` writes `measured.json`. A small convolutional classifier, trained on the real digits with shifts of up to two
pixels, is the judge (kept in `--out`). Of pictures asked for by word: the share that the judge reads as that word, the
Frechet distance between its 64 features there and on real test digits, beside that of two halves of these, and how far
the nearest training digit is. Of test digits with a half hidden, caption unknown: the judge's label of what was filled
in, beside completion by the nearest training digit. Of whole test digits: the caption, letter by letter, and the word
under which the energy is least, of the picture and of it and its shifts by one pixel together. Bits of a picture with
its caption. What another word would do to the log-odds of a patch. With `--twins` their bits, the judge's opinion of
what the autoregressive one makes, and the seconds of both.
"""

import argparse
import dataclasses
import functools
import gzip
import json
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

import energy_dllm as ed


WORDS = "zero one two three four five six seven eight nine".split()


class Judge(eqx.Module):
    """Two strided convolutions and two dense layers on 28 x 28 pixels."""

    weights: list[Array]
    biases: list[Array]

    def __init__(self, key: Array):
        shapes = (16, 16), (144, 32), (32 * 36, 64), (64, 10)
        keys = jax.random.split(key, 4)
        self.weights = [(2 / n) ** 0.5 * jax.random.normal(k, (n, m)) for k, (n, m) in zip(keys, shapes, strict=True)]
        self.biases = [jnp.zeros(m) for _, m in shapes]

    def features(self, picture: Array) -> Array:
        """64 numbers of a picture of pixels 0 to 1."""
        z = picture[..., None]
        for layer, side in ((0, 4), (1, 3)):
            ends = (z.shape[0] - side) // 2 * 2 + 1
            places = [(i, j) for i in range(side) for j in range(side)]
            near = jnp.concatenate([z[i : i + ends : 2, j : j + ends : 2] for i, j in places], axis=-1)
            z = jax.nn.relu(near @ self.weights[layer] + self.biases[layer])
        return jax.nn.relu(z.reshape(-1) @ self.weights[2] + self.biases[2])

    def __call__(self, picture: Array) -> Array:
        return self.features(picture) @ self.weights[3] + self.biases[3]

    def read(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Digits and features of pictures of bytes."""
        parts = [_read(self, each / np.float32(255)) for each in np.array_split(pictures, -(-len(pictures) // 500))]
        digits, features = (np.concatenate(part) for part in zip(*parts, strict=True))
        return digits, features.astype(float)


@eqx.filter_jit
def _read(judge, pictures):
    features = jax.vmap(judge.features)(pictures)
    return jnp.argmax(features @ judge.weights[3] + judge.biases[3], axis=-1), features


def trained_judge(pictures: np.ndarray, digits: np.ndarray, path: Path, steps: int = 2500) -> Judge:
    """The judge, from its file if it is there."""
    judge = Judge(jax.random.key(0))
    if path.exists():
        return eqx.tree_deserialise_leaves(path, judge)
    optimizer = optax.adamw(optax.cosine_decay_schedule(2e-3, steps), weight_decay=1e-2)

    def shifted(picture, key):
        start = jax.random.randint(key, (2,), 0, 5)
        return jax.lax.dynamic_slice(jnp.pad(picture, 2), start, picture.shape)

    @eqx.filter_jit
    def step(judge, state, pictures, digits, key):
        def loss(judge):
            moved = jax.vmap(shifted)(pictures, jax.random.split(key, len(pictures)))
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(jax.vmap(judge)(moved), digits))

        change, state = optimizer.update(eqx.filter_grad(loss)(judge), state, judge)
        return eqx.apply_updates(judge, change), state

    state, draw = optimizer.init(judge), np.random.default_rng(0)
    for n in range(steps):
        chosen = draw.integers(0, len(pictures), 64)
        judge, state = step(judge, state, pictures[chosen] / np.float32(255), digits[chosen], jax.random.key(n))
    path.parent.mkdir(parents=True, exist_ok=True)
    eqx.tree_serialise_leaves(path, judge)
    return judge


def frechet(one: np.ndarray, two: np.ndarray) -> float:
    """`|mean - mean|^2 + tr(A + B - 2 (A B)^(1/2))` of two sets of features."""
    away = one.mean(0) - two.mean(0)
    a, b = np.cov(one.T), np.cov(two.T)
    values, axes = np.linalg.eigh(a)
    root = (axes * np.sqrt(np.maximum(values, 0))) @ axes.T
    both = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ b @ root), 0)).sum()
    return float(away @ away + np.trace(a) + np.trace(b) - 2 * both)


class Digits:
    """MNIST as the model has it: pictures and digits of the training part and of the test part, and their tokens.

    Test digits are in random order: in the file the first 5,000 are plainer than the others and than those to train on.
    """

    def __init__(self, folder: Path, tokenizer: Any):
        corpus = ed.data.read_mnist(folder, tokenizer=tokenizer)
        order = np.random.default_rng(0).permutation(corpus.test.size // tokenizer.places)
        self.test_ids = corpus.test.reshape(-1, tokenizer.places)[order]
        self.train_ids = corpus.train.reshape(-1, tokenizer.places)
        word = lambda ids: WORDS.index(tokenizer.decode(ids))
        self.train_digits, self.test_digits = (
            np.array([word(i) for i in ids]) for ids in (self.train_ids, self.test_ids)
        )
        with np.load(folder / "train_10k.npz") as file:
            self.train = file["images"][: len(self.train_ids)]
        with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
            self.test = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)[order]


def asked(model: ed.EnergyDLLM, each: int, sampler: Any, seed: int = 0) -> tuple[np.ndarray, int, float, np.ndarray]:
    """`each` pictures of every word, how often a recorded scalar rose, seconds a picture, and the final scalars."""
    pictures, rises, energies, start = [], 0, [], time.monotonic()
    for number, word in enumerate(WORDS):
        for part in range(0, each, 50):
            options = dict(samples=min(50, each - part), seed=seed + 1000 * number + part)
            made = ed.generate(model, prompt=word, sampler=sampler, frames=8, **options)
            pictures.append(made.pictures)
            rises += int((np.diff(made.free_energy, axis=1) > 1e-3).sum())
            energies.append(made.free_energy[:, -1])
    return np.concatenate(pictures), rises, (time.monotonic() - start) / (10 * each), np.concatenate(energies)


@eqx.filter_jit
def by_twin(twin: ed.learn.Autoregressive, prompt: Array, keys: Array) -> Array:
    """Tokens of a picture below a caption, for every key, one after another with keys and values kept."""
    places = twin.trunk.background.shape[0]
    return jax.vmap(lambda key: twin.sample(places, prompt=prompt, key=key)[0])(keys)


def beside(
    model: ed.EnergyDLLM, twin: ed.learn.Autoregressive, steps: list[int], counts: tuple[int, ...] = (1, 8, 50)
) -> dict[str, float]:
    """Seconds for so many pictures by the twin and by the model, compiled before, without a record: medians of five
    calls that take turns."""
    prompt, calls = jnp.asarray(model.tokenizer.fill("seven")), {}
    for count in counts:
        keys = jax.random.split(jax.random.key(0), count)
        calls[f"{count} by the twin"] = functools.partial(by_twin, twin, prompt, keys)
        for n in steps:
            settings = dict(prompt="seven", samples=count, sampler=ed.sampling.default_sampler(model, n), frames=0)
            calls[f"{count} in {n} evaluations"] = functools.partial(ed.generate, model, **settings)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(6):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            if turn:  # the first compiles
                times[name].append(time.perf_counter() - start)
    return {name: float(np.median(each)) for name, each in times.items()}


def nearest(pictures: np.ndarray, among: np.ndarray, seen: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Index of the nearest of `among`, over the pixels `seen`, and its distance, white being 1."""
    seen = np.ones(pictures.shape[1:], bool) if seen is None else seen
    one, two = (each[:, seen].astype(np.float32) / 255 for each in (pictures, among))
    square = (one**2).sum(1)[:, None] + (two**2).sum(1) - 2 * one @ two.T
    return square.argmin(1), np.sqrt(np.maximum(square.min(1), 0))


@eqx.filter_jit
def captions(model: ed.EnergyDLLM, ids: Array) -> Array:
    """The letters of whole pictures, the likeliest at each place given the picture and those before."""
    width = model.tokenizer.grids[0][1]

    def one(ids):
        def letter(place, ids):
            known = (jnp.arange(ids.shape[0]) >= width) | (jnp.arange(ids.shape[0]) < place)
            return ids.at[place].set(jnp.argmax(model.log_posterior(ids, known)[place]).astype(ids.dtype))

        return jax.lax.fori_loop(0, width, letter, ids)[:width]

    return jax.lax.map(one, ids, batch_size=50)


@eqx.filter_jit
def by_energy(model: ed.EnergyDLLM, ids: Array) -> Array:
    """`log P` of each of the ten words given the picture `(N, 10)`, nats, by one evaluation of the energy each."""
    words = jnp.asarray(np.stack([model.tokenizer.fill(word) for word in WORDS]))
    energy: Any = model.energy
    under = lambda ids: jax.vmap(lambda word: energy.log_likelihood(ids.at[: word.shape[0]].set(word)))(words)
    return jax.nn.log_softmax(jax.lax.map(under, ids, batch_size=10))


def pull_of_letters(model: ed.EnergyDLLM, ids: np.ndarray, count: int = 200, seed: int = 0) -> dict[str, float]:
    """What a caption does to the log-odds of a hidden patch of a picture against the patch that stands there in a
    picture of another digit, a quarter of all other patches being known: under the word of the first less under that of
    the second, all of it and what is read of the letters directly; and by how much attribution misses the log-odds."""
    tokenizer: Any = model.tokenizer
    draw, width = np.random.default_rng(seed), tokenizer.width
    found: dict[str, list[float]] = {"whole": [], "letters": [], "error": []}
    while len(found["whole"]) < count:
        one, two = ids[draw.choice(len(ids), 2, replace=False)]
        differ = np.flatnonzero(one[width:] != two[width:]) + width
        if tokenizer.decode(one) == tokenizer.decode(two) or not differ.size:
            continue
        place = int(draw.choice(differ))
        known = (draw.random(len(one)) < 0.25) | (np.arange(len(one)) < width)
        known[place] = False
        whole, letters = [], []
        for word in (one, two):
            told = jnp.asarray(np.concatenate([word[:width], one[width:]]))
            given = ed.flow.Given(told, jnp.asarray(known))
            field = ed.flow.Relaxation(model.energy, given)
            pair = dict(token=int(one[place]), reference=int(two[place]))
            why = ed.probe.attribution(0.0, model.settle(given), field, **pair)
            whole.append(float(why.log_odds[place]))
            letters.append(float(sum(part[place, :width].sum() for part in why.neighbours.values())))
            found["error"].append(float(abs(why.total[place] - why.log_odds[place])))
        found["whole"].append(whole[0] - whole[1])
        found["letters"].append(letters[0] - letters[1])
    results = {"largest_error": max(found.pop("error"))}
    for name, gaps in found.items():
        results |= {name: float(np.mean(gaps)), f"{name}_error": float(np.std(gaps, ddof=1) / np.sqrt(count))}
    return results


def measure(model: ed.EnergyDLLM, data: Digits, options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as one dict; printed as it comes."""
    judge = trained_judge(data.train, data.train_digits, options.out / "judge.eqx")
    count, results = 10 * options.each, {}

    def note(name: str, **values: Any) -> None:
        results[name] = {key: round(float(value), 4) for key, value in values.items()}
        print(name, results[name], flush=True)

    labels, features = judge.read(data.test)
    halves = features[:count], features[count : 2 * count]
    books = np.stack([model.tokenizer.picture(row) for row in data.test_ids[:count]])
    note(
        "real test digits",
        judged_right=np.mean(labels == data.test_digits),
        frechet_between_halves=frechet(*halves),
        frechet_of_the_codebook=frechet(judge.read(books)[1], halves[1]),
        frechet_of_training_digits=frechet(judge.read(data.train[:count])[1], halves[1]),
        nearest_training_digit=nearest(data.test[:count], data.train)[1].mean(),
    )
    for temperature in options.temperatures:
        for steps in options.steps:
            sampler = ed.sampling.default_sampler(model, steps)
            if temperature != 1:
                field = functools.partial(sampler.field, temperature=temperature)
                sampler = dataclasses.replace(sampler, field=field)
            pictures, rises, seconds, _ = asked(model, options.each, sampler)
            digits, theirs = judge.read(pictures)
            note(
                f"{count} by word, {steps} evaluations, temperature {temperature:g}",
                judged_right=np.mean(digits == np.repeat(np.arange(10), options.each)),
                frechet=frechet(theirs, halves[0]),
                nearest_training_digit=nearest(pictures, data.train)[1].mean(),
                rises=rises,
                seconds=seconds,
            )
    for side in ("right", "lower") if options.filled else ():
        hole = np.zeros((28, 28), bool)
        hole[(slice(None), slice(14, None)) if side == "right" else slice(14, None)] = True
        some = data.test[: options.filled]
        ours = [ed.sampling.inpaint(model, picture, hole, frames=1, seed=n) for n, picture in enumerate(some)]
        theirs = np.where(hole, data.train[nearest(some, data.train, ~hole)[0]], some)
        right = lambda pictures: np.mean(judge.read(pictures)[0] == data.test_digits[: len(pictures)])
        named = [made.texts[0] == WORDS[digit] for made, digit in zip(ours, data.test_digits, strict=False)]
        note(
            f"{len(some)} test digits, {side} half hidden",
            judged_right=right(np.concatenate([made.pictures for made in ours])),
            caption_right=np.mean(named),
            nearest_neighbour=right(theirs),
            whole=right(some),
        )
    if options.captions:
        some = jnp.asarray(data.test_ids[: options.captions])
        letters, ranked = np.asarray(captions(model, some)), []
        for shift in (0, 0), (0, 1), (1, 0), (0, -1), (-1, 0):  # as it is first
            moved = model.tokenizer.quantise(np.roll(data.test[: options.captions], shift, (1, 2)))
            moved = np.concatenate([data.test_ids[: len(moved), : letters.shape[1]], moved], axis=1)
            ranked.append(np.asarray(by_energy(model, jnp.asarray(moved))))
        truth = data.test_ids[: options.captions, : letters.shape[1]]
        note(
            f"captions of {len(letters)} test digits",
            letter_by_letter=np.mean((letters == truth).all(1)),
            by_energy=np.mean(ranked[0].argmax(1) == data.test_digits[: len(some)]),
            by_energy_of_shifts=np.mean(sum(ranked).argmax(1) == data.test_digits[: len(some)]),
        )
    score = ed.evaluate(model, data.test_ids.ravel(), windows=500, curves=False)
    places = model.tokenizer.places
    bits, error = places * score.masked_nelbo_bits_per_char, places * score.standard_error
    note("bits of a picture with its caption", bits=bits, standard_error=error)
    note("pull of the right word on 200 hidden patches, nats", **pull_of_letters(model, data.test_ids))
    for path in options.twins:
        twin: Any = ed.load(path)
        score = ed.evaluate(twin, data.test_ids.ravel(), windows=500, curves=False, tokenizer=model.tokenizer)
        bits, error = places * score.masked_nelbo_bits_per_char, places * score.standard_error
        note(f"{type(twin).__name__}: bits of a picture with its caption", bits=bits, standard_error=error)
        if not isinstance(twin, ed.learn.Autoregressive):
            continue
        width, letters = model.tokenizer.width, len(model.tokenizer.letters)
        rows = [
            by_twin(twin, jnp.asarray(model.tokenizer.fill(word)), jax.random.split(jax.random.key(n), options.each))
            for n, word in enumerate(WORDS)
        ]
        # it may draw a letter where a patch belongs
        tokens = np.concatenate([np.asarray(row) for row in rows])
        astray = (tokens[:, width:] < letters).any(1).mean()
        tokens[:, width:] = np.maximum(tokens[:, width:], letters)
        pictures = np.stack([model.tokenizer.picture(row) for row in tokens])
        digits, theirs = judge.read(pictures)
        note(
            f"{count} by word, by the autoregressive twin",
            judged_right=np.mean(digits == np.repeat(np.arange(10), options.each)),
            frechet=frechet(theirs, halves[0]),
            nearest_training_digit=nearest(pictures, data.train)[1].mean(),
            astray=astray,
        )
        note("seconds", **beside(model, twin, options.steps))
    return results


def film(model: ed.EnergyDLLM, word: str, path: Path, seed: int) -> None:
    """The noisy pixels, what is believed of them, and the scalar, moment by moment."""
    import matplotlib.pyplot as plt
    from matplotlib.animation import FuncAnimation, PillowWriter

    tokenizer: Any = model.tokenizer
    ids, known = np.zeros(tokenizer.places, np.int32), np.arange(tokenizer.places) < tokenizer.width
    ids[known] = tokenizer.fill(word)
    given, sampler = ed.flow.Given(jnp.asarray(ids), jnp.asarray(known)), ed.sampling.default_sampler(model)
    assert isinstance(sampler, ed.sampling.Diffusion)
    levels = sampler.clock(model.schedule)
    field, neutral = sampler.field(model.energy, given), model.energy.neutral(len(ids))
    k1, k2 = jax.random.split(jax.random.key(seed))
    prior = model.energy.logits(neutral, model.field(given))
    sigma = jnp.exp(-levels[0])
    x = model.energy.vocabulary.codes[jax.random.categorical(k1, prior)]
    start = field.initial(x + sigma * jax.random.normal(k2, x.shape), neutral, sigma)

    def seen(time, state, _):
        b = field.evidence(time, state).field(field.energy.vocabulary.codes)
        believed = field.energy.denoised(field.hidden(time, state), b)
        return {"F": field.scalar(state), "x": state[0], "believed": believed}

    ends = dict(t0=levels[0], t1=levels[-1], solver=ed.flow.DDIM(field.decay), levels=levels)
    read = ed.solve(field, start, **ends, times=levels[::2], probes={"all": seen}).probes["all"]
    read = jax.tree.map(lambda leaf: leaf[: len(levels[::2])], read)

    def pixels(codes: Array) -> np.ndarray:
        down, across = tokenizer.grids[-1]
        patches = np.asarray(codes)[tokenizer.width :, : tokenizer.patch**2]
        grid = patches.reshape(down, across, tokenizer.patch, tokenizer.patch)
        return grid.transpose(0, 2, 1, 3).reshape(tokenizer.shape)

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(8.4, 2.9), width_ratios=(1, 1, 1.4))
    look = dict(cmap="gray", vmin=0, vmax=1)
    noisy, clean = left.imshow(pixels(read["x"][0]), **look), middle.imshow(pixels(read["believed"][0]), **look)
    left.set(xticks=[], yticks=[], title="x, the state")
    middle.set(xticks=[], yticks=[], title=f"what is believed: {word}")
    evaluations = 2 * np.arange(len(read["F"]))
    right.plot(evaluations, read["F"], color="0.85")
    (line,) = right.plot([], [], color="C0")
    right.set(xlabel="evaluations", ylabel="F, nats", title="one scalar falls")
    right.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    last = len(read["F"]) - 1

    def draw(n: int) -> None:
        now = min(n, last)
        # from noise of 8 white to a picture: what is shown is scaled by how much there is
        x = pixels(read["x"][now])
        noisy.set_data(x)
        noisy.set_clim(min(0.0, x.min()), max(1.0, x.max()))
        clean.set_data(pixels(read["believed"][now]))
        line.set_data(evaluations[: now + 1], read["F"][: now + 1])

    FuncAnimation(figure, draw, frames=last + 10).save(path, PillowWriter(7), dpi=80)


def figures(model: ed.EnergyDLLM, data: Digits, options: argparse.Namespace) -> None:
    """`digits.png`, `digits_nearest.png`, `digit.gif`, `digit_parts.png`: samples with energies, what they are nearest
    to, a film, and who pulled a patch."""
    import matplotlib.pyplot as plt

    tokenizer: Any = model.tokenizer
    look = dict(cmap="gray", vmin=0, vmax=255)
    rows = [ed.generate(model, prompt=word, samples=10, seed=1, frames=1) for word in WORDS]
    figure, axes = plt.subplots(10, 10, figsize=(7.2, 8.2))
    for made, line, word in zip(rows, axes, WORDS, strict=True):
        for n, axis in enumerate(line):
            axis.imshow(made.pictures[n], **look)
            axis.set_title(f"{made.free_energy[n, -1]:.0f}", fontsize=7, pad=1.5, color="0.35")
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(word, fontsize=9)
    figure.tight_layout(pad=0.3)
    figure.savefig(options.out / "digits.png", dpi=110)

    samples = np.stack([made.pictures[0] for made in rows])
    found, away = nearest(samples, data.train)
    figure, axes = plt.subplots(2, 10, figsize=(7.2, 1.9))
    for column, sample, index, distance in zip(axes.T, samples, found, away, strict=True):
        for axis, picture in zip(column, (sample, data.train[index]), strict=True):
            axis.imshow(picture, **look)
            axis.set(xticks=[], yticks=[])
        column[0].set_title(f"{distance:.1f}", fontsize=8, pad=2, color="0.35")
    for axis, name in zip(axes[:, 0], ("sample", "nearest"), strict=True):
        axis.set_ylabel(name, fontsize=9)
    figure.tight_layout(pad=0.3)
    figure.savefig(options.out / "digits_nearest.png", dpi=110)

    film(model, "seven", options.out / "digit.gif", options.seed)
    row, width = data.test_ids[int(np.flatnonzero(data.test_digits == 4)[options.seed])], tokenizer.width
    ink = tokenizer.codes[row].sum(1)
    place = int(width + np.argmax(ink[width:]))
    known = (np.random.default_rng(options.seed).random(len(row)) < 0.4) | (np.arange(len(row)) < width)
    known[place] = False
    given = ed.flow.Given(jnp.asarray(row), jnp.asarray(known))
    why = ed.probe.attribution(0.0, model.settle(given), ed.flow.Relaxation(model.energy, given), token=int(row[place]))
    pull = np.asarray(sum(part[place] for part in why.neighbours.values()))
    figure, axes = plt.subplots(1, 3, figsize=(9.2, 3.1), width_ratios=(1, 1, 0.8))
    down, across = divmod(place - width, tokenizer.grids[1][1])
    k = tokenizer.patch
    unknown = ~known[width:].reshape(tokenizer.grids[1]).repeat(k, 0).repeat(k, 1)
    axes[0].imshow(np.where(unknown, 90, tokenizer.picture(row)), **look)
    axes[0].add_patch(plt.Rectangle((across * k - 0.5, down * k - 0.5), k, k, fill=False, color="C1", lw=2))
    axes[0].set(xticks=[], yticks=[], title="known, and asked for")
    size = np.abs(pull).max()
    drawn = axes[1].imshow(pull[width:].reshape(tokenizer.grids[1]), cmap="RdBu_r", vmin=-size, vmax=size)
    axes[1].set(xticks=[], yticks=[], title="who pulls it to ink, nats")
    figure.colorbar(drawn, ax=axes[1], shrink=0.75)
    axes[2].bar(range(width), pull[:width], color="C0")
    axes[2].set_xticks(
        range(width), [symbol.replace("\u2423", "") for symbol in map(tokenizer.symbols.__getitem__, row[:width])]
    )
    axes[2].axhline(0, color="0.5", lw=0.6)
    axes[2].set(title="and of every letter")
    axes[2].spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(options.out / "digit_parts.png", dpi=110)


def main() -> None:
    """Measure or draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["measure", "figures"])
    parser.add_argument("model")
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--each", type=int, default=100, help="pictures of every word")
    parser.add_argument("--steps", type=int, nargs="+", default=[8, 16, 32, 64], help="evaluations of the force")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0])
    parser.add_argument("--filled", type=int, default=200, help="test digits that are completed, 0 for none")
    parser.add_argument("--captions", type=int, default=1000, help="test digits that are named, 0 for none")
    parser.add_argument("--twins", type=Path, nargs="*", default=[], help="files of train_digits.py --twin")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/pictures"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    model = ed.load(options.model)
    data = Digits(options.mnist, model.tokenizer)
    if options.what == "figures":
        figures(model, data, options)
        return
    results = measure(model, data, options)
    (options.out / "measured.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
