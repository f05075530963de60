"""Everything `generate`, `infill` and `repair` can be asked for, measured: one table a command.

    python benchmarks/writing.py budget shakespeare ../shared/data/shakespeare_plays/plays.md.xz
    python benchmarks/writing.py descent shakespeare PLAYS --evaluations 8 16 32 64 --twins FILE
    python benchmarks/writing.py best MODEL PLAYS --samples 16
    python benchmarks/writing.py frontier shakespeare PLAYS --twins masked.safetensors --table-of-budget FILE
    python benchmarks/writing.py solvers shakespeare ../shared/data/shakespeare_plays/plays.md.xz
    python benchmarks/writing.py infill shakespeare PLAYS --twins masked.safetensors autoregressive.safetensors
    python benchmarks/writing.py repair shakespeare PLAYS
    python benchmarks/writing.py constraints shakespeare PLAYS
    python benchmarks/writing.py blocks shakespeare PLAYS
    python benchmarks/writing.py words stories ../shared/data/tinystories --samples 150
    python benchmarks/writing.py time shakespeare PLAYS --length 256

The text is that of the plays, held-out play and judge as in `judge.py`, a `.txt` file whose last tenth is held out, the
folder of `train_stories.py`, or `grammar`. Judged bits per character are those of a character 5-gram model of the
training text (of stories, their first four million characters); the entropy of all symbols beside them shows collapse.
"""

import argparse
import functools
import re
import time
from pathlib import Path
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
from judge import NGram, judge_of_plays, symbol_entropy
from train_shakespeare import corpus_of_plays
from train_stories import folded

import energy_dllm as ed


class Bench:
    """A model, a judge, held-out text, and a table on stdout."""

    def __init__(self, options: argparse.Namespace):
        self.model, self.options = ed.load(options.model), options
        if options.text.endswith(".txt"):
            corpus = ed.data.read_text(Path(options.text), validation=0.1)
            self.judge = NGram(corpus.tokenizer.decode(corpus.train))
            self.held_out = corpus.tokenizer.decode(corpus.validation)
        elif Path(options.text).is_dir():
            read = lambda name: folded((Path(options.text) / name).read_text(encoding="utf-8"))
            self.judge = NGram(read("train_first2M.txt")[:4_000_000])
            self.held_out = read("valid_slice.txt")
        elif options.text == "grammar":
            corpus = ed.data.grammar_corpus()
            self.judge = NGram(corpus.tokenizer.decode(corpus.train[:400_000]))
            self.held_out = corpus.tokenizer.decode(corpus.validation)
        else:
            self.judge, _ = judge_of_plays(Path(options.text), options.length)
            self.held_out = self.judge.test
        ids, length = self.model.encode(self.held_out), options.length
        stride = max(length, len(ids) // options.samples)
        starts = range(0, len(ids) - length, stride)
        self.windows = [self.model.decode(ids[i : i + length]) for i in starts][: options.samples]

    def row(self, *cells) -> None:
        """A row of the table, at once."""
        print("|", " | ".join(f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells), "|", flush=True)

    def head(self, *names: str) -> None:
        """The head of a table."""
        print("|", " | ".join(names), "|")
        print("|" + "---|" * len(names), flush=True)

    def judged(self, texts: list[str]) -> tuple[float, float, float]:
        """Judged bits per character, their standard error over passages, and the entropy of the symbols."""
        bits = np.array([self.judge.bits_per_char(text) for text in texts])
        return float(bits.mean()), float(bits.std(ddof=1) / len(bits) ** 0.5), symbol_entropy(texts)

    def write(self, path, **options) -> "ed.sampling.Generation":
        """As many passages as there are windows."""
        made = {"length": self.options.length, "samples": self.options.samples, "frames": 1, "seed": self.options.seed}
        return ed.generate(self.model, sampler=path, **{**made, **options})


def budget(bench: Bench) -> None:
    """Judged bits and entropy against force evaluations, both paths; orders, corrections and best of n beside them."""
    bench.head("way", "path", "force evaluations", "judged bits/char", "+-", "entropy, bits", "F, nats/char")
    bench.row("real text", "", "", *bench.judged(bench.windows), "")
    step, length = bench.model.step, bench.options.length

    def show(curve, name, made, texts=None, forces=None):
        price = float((made.free_energy[:, -1] - made.free_energy[:, 0]).mean() / length)
        forces = int(made.force_evaluations[0]) if forces is None else forces
        bench.row(curve, name, forces, *bench.judged(made.texts if texts is None else texts), price)

    unmask = functools.partial(ed.sampling.Unmasking, step=step)
    for total in bench.options.evaluations:
        inner = max(1, min(8, round(total**0.5)))  # relaxation steps a round
        rounds = max(1, total // inner - 1)
        for temperature in bench.options.temperatures:
            path = unmask(rounds=rounds, steps=inner, temperature=temperature)
            show(f"masks, T {temperature}", f"masks {rounds} x {inner}, T {temperature}", bench.write(path))
        inner = min(4, total)
        field = functools.partial(ed.flow.ProbabilityFlow, steps=inner, step=step)
        made = bench.write(ed.sampling.Diffusion(steps=total // inner, field=field))
        show("noise, neurons at rest", f"noise {total // inner} x {inner}", made)
        if total > 1:
            one = functools.partial(ed.flow.ProbabilityFlow, steps=1, step=step)
            path = ed.sampling.Diffusion(steps=total - 1, until=bench.options.until, field=one)
            show("noise, the rest drawn", f"noise {total - 1} x 1, the rest drawn", bench.write(path))
        rate = 1.0 / float(jnp.max(jnp.diff(bench.model.schedule.levels(total))))
        joint = functools.partial(ed.flow.JointFlow, rate=rate)
        show(
            "noise, neurons moving along",
            f"noise {total}, joint",
            bench.write(ed.sampling.Diffusion(steps=total, field=joint)),
        )
    # what more computing buys
    total = bench.options.evaluations[-2]
    inner = max(1, min(8, round(total**0.5)))
    rounds = total // inner - 1
    for order in (ed.sampling.most_certain, ed.sampling.left_to_right):
        made = bench.write(unmask(rounds=rounds, steps=inner, order=order))
        show(order.__name__.replace("_", " "), f"masks {rounds} x {inner}, {order.__name__}", made)
    for remask_order in (ed.sampling.least_likely, ed.sampling.at_random):
        for remask_rounds in (rounds // 2, rounds, 2 * rounds):
            path = unmask(rounds=rounds, steps=inner, remask_rounds=remask_rounds, remask_order=remask_order)
            name = f"corrections, {remask_order.__name__}"
            show(name.replace("_", " "), f"and {remask_rounds} {name}", bench.write(path))
    for n in (2, 4, 8):
        made = bench.write(unmask(rounds=rounds, steps=inner), samples=n * bench.options.samples)
        groups = np.arange(n * bench.options.samples).reshape(-1, n)
        for name, score in (
            ("lowest F", made.free_energy[:, -1]),
            ("likeliest to one another", -np.log(made.confidence).mean(-1)),
        ):
            best = groups[np.arange(len(groups)), score[groups].argmin(-1)]
            forces = n * int(made.force_evaluations[0])
            show(f"best of n, {name}", f"best of {n}, {name}", made, [made.texts[i] for i in best], forces)


def descent(bench: Bench) -> None:
    """The descent of one scalar beside unmasking at equal evaluations (one force a step, one force a round) and the
    autoregressive twins among `--twins`; the share of 5-grams that occur once shows repetition."""
    length, temperatures = bench.options.length, bench.options.temperatures
    bench.head("way", "evaluations", "judged bits/char", "+-", "entropy, bits", "distinct 5-grams", "rises of F")

    def row(name, evaluations, texts, rises: int | str = ""):
        grams = [text[i : i + 5] for text in texts for i in range(len(text) - 4)]
        bench.row(name, evaluations, *bench.judged(texts), len(set(grams)) / len(grams), rises)

    def show(name, sampler, falls=False):
        made = bench.write(sampler, frames=sampler.steps if falls else 1)
        change = np.diff(made.free_energy, axis=1) / np.abs(made.free_energy).max()
        row(name, int(made.force_evaluations[0]), made.texts, int((change > 1e-5).sum()) if falls else "")

    row("real text", "", bench.windows)
    for total in bench.options.evaluations:
        for temperature in temperatures:
            show(f"descent, T {temperature}", ed.sampling.descent(total, temperature=temperature), falls=True)
        for temperature in temperatures:
            order = ed.sampling.left_to_right
            for again in (0, total // 3) if total >= 32 else (0,):
                rounds = dict(rounds=total - again - bool(again), remask_rounds=again, steps=1, step=1.0)
                unmask = ed.sampling.Unmasking(**rounds, order=order, temperature=temperature)
                show(f"unmasking left to right, {again} rounds of remasking, T {temperature}", unmask)
    for size in sorted({size for size in bench.model.blocks if size}):
        for temperature in temperatures:
            each = ed.sampling.Unmasking(
                rounds=size, steps=1, step=1.0, order=ed.sampling.most_certain, temperature=temperature
            )
            show(f"blocks of {size}, T {temperature}", ed.sampling.Blocks(each, size=size, moments=1))
    for file in bench.options.twins:
        twin = ed.load(file)
        for temperature in temperatures if isinstance(twin, ed.learn.Autoregressive) else ():
            draw = lambda key, t=temperature, twin=twin: twin.sample(length, temperature=t, key=key)[0]
            keys = jax.random.split(jax.random.key(bench.options.seed), bench.options.samples)
            ids = np.asarray(jax.jit(jax.vmap(draw))(keys))
            row(f"autoregressive twin, T {temperature}", length, [bench.model.decode(row) for row in ids])


def best(bench: Bench) -> None:
    """The best of n passages by one evaluation of the energy each, and by the judge itself, which is the limit."""
    bench.head("way", "of", "judged bits/char", "+-", "entropy, bits", "best by the judge", "correlation")
    count, energy = bench.options.samples, bench.model.energy
    energy = energy.in_blocks(1) if 1 in bench.model.blocks else energy
    left_to_right = dict(steps=1, step=1.0, order=ed.sampling.left_to_right)
    for name, sampler in (
        ("descent", ed.sampling.descent()),
        ("unmasking, one token a round", ed.sampling.Unmasking(rounds=bench.options.length, **left_to_right)),
        *((("blocks of 1", ed.sampling.Blocks(size=1)),) if 1 in bench.model.blocks else ()),
    ):
        made = bench.write(sampler, samples=8 * count)
        log_p = np.asarray(jax.jit(jax.vmap(energy.log_likelihood))(jnp.asarray(made.ids)))
        bits = np.array([bench.judge.bits_per_char(text) for text in made.texts])
        together = float(np.corrcoef(log_p, -bits)[0, 1])
        for n in (1, 2, 4, 8):
            groups = np.arange(8 * count).reshape(-1, n)
            kept = groups[np.arange(len(groups)), log_p[groups].argmax(-1)]
            judged = bench.judged([made.texts[i] for i in kept])
            bench.row(name, n, *judged, float(bits[groups].min(-1).mean()), together)


def frontier(bench: Bench) -> None:
    """The masked twin's passages at the same budgets, and a picture of them with the table that `budget` printed."""
    options, twin = bench.options, ed.load(bench.options.twins[0])
    bench.head("way", "path", "evaluations of the twin", "judged bits/char", "+-", "entropy, bits", "")
    curves = {}
    for line in options.table_of_budget.read_text().splitlines()[2:]:
        way, _, *numbers, _ = (cell.strip() for cell in line.split("|")[1:-1])
        curves.setdefault(way, []).append([float(number or 0) for number in numbers])
    for rounds in options.evaluations:
        texts = _unmasked(twin, bench.model, options.length, rounds, options.samples, options.seed)
        judged = bench.judged(texts)
        bench.row("masked twin", f"{rounds} rounds", rounds, *judged, "")
        curves.setdefault("masked twin", []).append([rounds, *judged])
    (real,) = curves.pop("real text")
    _draw(curves, real[1:], options.figure)


def _unmasked(twin, model, length, rounds, samples, seed):
    """The twin's own passages: as many rounds, tokens drawn from its posterior and kept at random."""
    rounds = min(rounds, length)

    @eqx.filter_jit
    def write(twin, key):
        def one(state, n):
            ids, known = state
            k1, k2 = jax.random.split(jax.random.fold_in(key, n))
            drawn = jax.random.categorical(k1, twin.log_posterior(ids, known), axis=-1)
            due = length * (n + 1) // rounds - jnp.sum(known)
            rank = jnp.argsort(jnp.argsort(jnp.where(known, jnp.inf, jax.random.uniform(k2, (length,)))))
            new = (rank < due) & ~known
            return (jnp.where(new, drawn, ids), known | new), None

        nothing = jnp.zeros(length, int), jnp.zeros(length, bool)
        return jax.lax.scan(one, nothing, jnp.arange(rounds))[0][0]

    keys = jax.random.split(jax.random.key(seed), samples)
    return [model.decode(row) for row in np.asarray(jax.lax.map(lambda key: write(twin, key), keys))]


def _draw(curves, real, file: Path) -> None:
    """Judged bits against force evaluations and against entropy, a line for every way to spend them."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
    for n, (name, points) in enumerate(curves.items()):
        forces, bits, error, entropy = np.array(points).T
        style = dict(color=f"C{n}" if n < 10 else "k", marker="osD^v<>Pp*"[n % 10], markersize=4.5, linewidth=1.2)
        left.errorbar(forces, bits, error, **style, elinewidth=0.7, label=name)
        right.plot(entropy, bits, **style)
    left.axhline(real[0], color="0.4", linestyle=":", linewidth=1)
    left.annotate("real text", (1, real[0]), (0, 3), textcoords="offset points", color="0.3", fontsize=8)
    right.plot(real[2], real[0], "*", color="k", markersize=13)
    right.annotate("real text", (real[2], real[0]), (8, -4), textcoords="offset points", fontsize=8)
    # what is still noise is off the page
    left.set(xscale="log", xlabel="force evaluations", ylabel="judged bits a character", ylim=(real[0] - 0.4, 6.6))
    right.set(xlabel="entropy of the symbols, bits", xlim=(real[2] - 0.3, real[2] + 0.2))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)


def solvers(bench: Bench) -> None:
    """Solvers of the probability flow: distance to a reference path, judged bits, entropy; orders by regression."""
    model, length, samples = bench.model, bench.options.length, min(8, bench.options.samples)
    field = ed.flow.ProbabilityFlow(model.energy, steps=bench.options.relaxation, step=model.step)
    keys = jax.random.split(jax.random.key(bench.options.seed), samples)
    start = model.energy.denoised(model.energy.neutral(length), jnp.zeros((length, model.size)))

    def end(solver, steps, controller=None, churn=0.0):
        levels = model.schedule.levels(steps)
        clock = {"levels": levels} if controller is None else {"controller": controller}
        flow = ed.flow.ReverseDiffusion(field, churn=churn) if churn else field

        def one(key):
            x = start + jnp.exp(-levels[0]) * jax.random.normal(key, start.shape)
            path = ed.solve(flow, x, t0=levels[0], t1=levels[-1], solver=solver, key=key, **clock)
            return path.final, field.posterior(levels[-1], path.final).argmax(-1), path.force_evaluations

        x, ids, forces = eqx.filter_jit(jax.vmap(one))(keys)
        return np.asarray(x), [model.decode(row) for row in np.asarray(ids)], float(np.mean(forces))

    def row(name, steps, solver, count, controller=None):
        x, texts, forces = end(solver, count, controller)
        away = np.sqrt(np.mean((x - reference) ** 2, axis=(1, 2)))
        bench.row(name, steps, forces, float(np.sqrt(np.mean(away**2))), float(np.median(away)), *bench.judged(texts))
        return np.median(away)

    reference, texts, _ = end(diffrax.Tsit5(), bench.options.reference)
    away = ("distance to the reference", "that of half the passages")
    bench.head("solver", "steps", "force evaluations", *away, "judged bits/char", "+-", "entropy")
    bench.row("Tsit5, the reference", bench.options.reference, "", 0.0, 0.0, *bench.judged(texts))
    fixed = {"Euler": diffrax.Euler(), "DDIM": ed.flow.DDIM(), "Heun": diffrax.Heun()}
    fixed |= {"exponential Heun": ed.flow.ExponentialHeun(), "Tsit5": diffrax.Tsit5()}
    for name, solver in fixed.items():
        sizes = (8, 16, 32, 64)
        # the median: a passage that ends with another token is away by as much as tokens are apart
        errors = [row(name, steps, solver, steps) for steps in sizes]
        slope = -np.polyfit(np.log(sizes), np.log(errors), 1)[0]
        bench.row(f"{name}, order by regression", "", "", "", float(slope), "", "", "")
    adaptive = {"Tsit5, adaptive 1e-2": (diffrax.Tsit5(), 1e-2), "Tsit5, adaptive 1e-3": (diffrax.Tsit5(), 1e-3)}
    if bench.options.implicit:  # the Jacobian of a passage is too large to be written down
        newton = optx.Newton(rtol=1e-2, atol=1e-2, linear_solver=lx.GMRES(rtol=1e-2, atol=1e-2))
        adaptive |= {"Kvaerno3, adaptive 1e-2": (diffrax.Kvaerno3(root_finder=newton), 1e-2)}
    for name, (solver, tolerance) in adaptive.items():
        row(name, "", solver, 24, diffrax.PIDController(rtol=tolerance, atol=tolerance))
    for steps in (16, 64, 256):
        _, texts, forces = end(diffrax.Euler(), steps, churn=0.5)
        bench.row("Euler, churn 0.5 (an SDE)", steps, forces, "", "", *bench.judged(texts))


def infill(bench: Bench) -> None:
    """Characters restored in 30 % holes of held-out text: one at a time at random places, and whole stretches."""
    model = bench.model
    ids = jnp.stack([model.encode(window) for window in bench.windows])
    rng = np.random.default_rng(bench.options.seed)
    count, length = ids.shape
    scattered = rng.random((count, length)) < 0.3
    width = round(0.3 * length)
    first = rng.integers(0, length - width, count)[:, None]
    place = np.arange(length)
    stretch = (place >= first) & (place < first + width)
    bench.head("who", "holes", "characters right", "+-")
    posterior = eqx.filter_jit(lambda m, ids, known: jax.vmap(m.log_posterior)(ids, known).argmax(-1))
    for name, holes in (("scattered", scattered), ("one stretch", stretch)):
        answers = {"energy, likeliest of one relaxation": posterior(model, ids, jnp.asarray(~holes))}
        for file in bench.options.twins:
            twin = ed.load(file)
            known = jnp.asarray(~holes)
            if isinstance(twin, ed.learn.Autoregressive):  # it sees the left side only, and what it wrote itself
                answers[f"{type(twin).__name__}, left side only"] = _greedy(twin, ids, known)
            else:
                answers[type(twin).__name__] = posterior(twin, ids, known)
        path = ed.sampling.Unmasking(
            rounds=24, step=model.step, steps=model.steps, temperature=0.0, order=ed.sampling.most_certain
        )
        made = [_filled(model, row, hole, path) for row, hole in zip(np.asarray(ids), holes, strict=True)]
        answers["energy, most certain first, T 0"] = np.stack(made)
        for who, answer in answers.items():
            right = np.array(
                [(np.asarray(a) == np.asarray(t))[h].mean() for a, t, h in zip(answer, ids, holes, strict=True)]
            )
            bench.row(who, name, float(right.mean()), float(right.std(ddof=1) / count**0.5))


def _filled(model, ids, hole, path):
    # holes as evidence, so that every window has one shape
    pieces = [f"[{1}]" if h else model.decode(ids[i : i + 1]).replace("[", "[[") for i, h in enumerate(hole)]
    return ed.infill(model, "".join(pieces), sampler=path, frames=1).ids[0]


@eqx.filter_jit
def _greedy(twin, ids, known):
    def one(ids, known):
        def step(ids, i):
            best = twin.log_posterior(ids, known)[i].argmax()
            return ids.at[i].set(jnp.where(known[i], ids[i], best)), None

        return jax.lax.scan(step, ids, jnp.arange(ids.shape[0]))[0]

    return jax.vmap(one)(ids, known)


def repair(bench: Bench) -> None:
    """Error rates before and after at 5, 10 and 20 % typos, beside a character 5-gram with a beam; then those of one or
    two letters missing or too many, as edit distance a character."""
    model, rng = bench.model, np.random.default_rng(bench.options.seed)
    alphabet = [model.decode(np.array([n])) for n in range(model.size)]
    bench.head("typos", "who", "errors before", "after", "precision", "recall", "seconds a window")
    for rate in (0.05, 0.1, 0.2):
        typed = []
        for window in bench.windows:
            wrong = rng.random(len(window)) < rate
            typed.append(
                "".join(alphabet[rng.integers(len(alphabet))] if w else c for c, w in zip(window, wrong, strict=True))
            )
        correct = {
            "energy": lambda text, q=rate: ed.repair(model, text, rate=q, frames=1).text,
            "5-gram, beam of 64": lambda text, q=rate: _beam(bench.judge, alphabet, text, q),
        }
        for who, corrected in correct.items():
            corrected(typed[0])  # compiled
            start = time.monotonic()
            fixed = [corrected(text) for text in typed]
            seconds = (time.monotonic() - start) / len(typed)
            true, seen, said = (np.array([list(text) for text in texts]) for texts in (bench.windows, typed, fixed))
            flagged, wrong = said != seen, seen != true
            hits = float((flagged & wrong).sum())
            bench.row(
                rate, who, float(wrong.mean()), float((said != true).mean()), hits / max(1, flagged.sum()),
                hits / max(1, wrong.sum()), seconds,
            )  # fmt: skip
    for count in (1, 2):
        typed = [_shifted(rng, window, count, alphabet) for window in bench.windows]
        for shifts in (0, 2):
            fixing = functools.partial(ed.repair, model, rate=0.02, shifts=shifts, frames=1)
            fixing(typed[0])
            start = time.monotonic()
            fixed = [fixing(text).text for text in typed]
            seconds = (time.monotonic() - start) / len(typed)
            before, after = (
                sum(_distance(a, b) for a, b in zip(bench.windows, texts, strict=True))
                / sum(len(window) for window in bench.windows)
                for texts in (typed, fixed)
            )
            lengths = np.mean([len(a) == len(b) for a, b in zip(bench.windows, fixed, strict=True)])
            right = np.mean([a == b for a, b in zip(bench.windows, fixed, strict=True)])
            name = f"{count} missing or too many"
            said = f"energy, shifts={shifts}; length right in {lengths:.0%}, all of it in {right:.0%}"
            bench.row(name, said, before, after, "", "", seconds)


def _shifted(rng, text: str, count: int, alphabet: list[str]) -> str:
    """So many letters left out or put in at random."""
    for _ in range(count):
        place = int(rng.integers(len(text)))
        text = text[:place] + (text[place + 1 :] if rng.random() < 0.5 else str(rng.choice(alphabet)) + text[place:])
    return text


def _distance(one: str, two: str) -> int:
    """Substitutions, insertions and deletions from one to the other (Levenshtein 1966)."""
    row = list(range(len(two) + 1))
    for i, a in enumerate(one, 1):
        last, row = row, [i]
        for j, b in enumerate(two, 1):
            row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (a != b)))
    return row[-1]


def _beam(judge: NGram, alphabet: list[str], text: str, rate: float, width: int = 64) -> str:
    """The likeliest string under the 5-gram model and typos at this rate: Viterbi over its histories, the best kept."""
    table = functools.lru_cache(None)(lambda history: [np.log(judge.probability(history, c)) for c in alphabet])
    hit, miss = np.log(1 - rate + rate / len(alphabet)), np.log(rate / len(alphabet))
    paths = {"": (0.0, "")}
    for seen in text:
        ahead: dict[str, tuple[float, str]] = {}
        for history, (score, written) in paths.items():
            for c, log_p in zip(alphabet, table(history), strict=True):
                total, after = score + log_p + (hit if c == seen else miss), (history + c)[-4:]
                if after not in ahead or ahead[after][0] < total:
                    ahead[after] = total, written + c
        paths = dict(sorted(ahead.items(), key=lambda item: -item[1][0])[:width])
    return max(paths.values())[1]


def constraints(bench: Bench) -> None:
    """Each kind of constraint: how many of all passages satisfy it, and what it costs in judged bits."""
    model, length = bench.model, bench.options.length
    word = bench.options.word
    matching = functools.partial(ed.flow.Matching, tokenizer=model.tokenizer, length=length)
    spot = jnp.zeros(length, int).at[8 : 8 + len(word)].set(model.encode(word))
    there = (jnp.arange(length) >= 8) & (jnp.arange(length) < 8 + len(word))
    common = [w for w in bench.options.avoid if all(c in model.tokenizer.symbols or c == " " for c in w)]
    space = int(model.encode(" ")[0])
    spaces = ed.energy.Guidance(lambda p: (jnp.sum(p[:, space]) - length / 3) ** 2, name="spaces")
    count = lambda text: abs(text.count(" ") - length / 3) <= 0.05 * length
    kinds = {
        "none": ({}, lambda text: True),
        f"{word!r} at place 8": ({"evidence": ed.flow.Given(spot, there)}, lambda text: text[8:].startswith(word)),
        f"{word!r} somewhere": ({"evidence": matching(f".*{re.escape(word)}.*")}, lambda text: word in text),
        f"without {common}": (
            {"evidence": ed.flow.Matching.without(common, model.tokenizer, length=length)},
            lambda text: not any(w in text for w in common),
        ),
        "words of 2 to 4 letters": (
            {"evidence": matching(r"\S{2,4}(\s\S{2,4})*")},
            lambda text: re.fullmatch(r"\S{2,4}(\s\S{2,4})*", text) is not None,
        ),
        "a third of spaces, within 5 % (guidance, 0.5)": ({"guidance": 0.5 * spaces}, count),
        "a third of spaces, within 5 % (guidance, 2)": ({"guidance": 2.0 * spaces}, count),
    }
    bench.head("constraint", "sampler", "satisfied", "judged bits/char", "+-", "entropy", "seconds", "the first")
    order = ed.sampling.left_to_right  # the settings of `energy-dllm generate --unmask`
    unmasking = ed.sampling.Unmasking(rounds=32, steps=1, step=1.0, temperature=0.8, order=order, remask_rounds=16)
    paths: dict[str, Any] = {"descent": ed.sampling.descent(), "unmasking": unmasking}
    if 1 in model.blocks:
        paths["left to right"] = ed.sampling.Blocks(size=1)
    for name, (options, holds) in kinds.items():
        for sampler, path in paths.items():
            if sampler == "left to right" and "guidance" in options:
                continue
            bench.write(path, **options)  # compiled
            start = time.monotonic()
            made = bench.write(path, **options)
            seconds, share = time.monotonic() - start, np.mean([holds(text) for text in made.texts])
            of = f"{share:.1%} of {len(made.texts)}"
            bench.row(name, sampler, of, *bench.judged(made.texts), seconds, repr(made.texts[0]))


def blocks(bench: Bench) -> None:
    """One long passage block by block: judged bits, seconds and memory of each block, beside passages of one window."""
    import resource

    model, window = bench.model, bench.options.length
    path = ed.sampling.Unmasking(rounds=24, steps=8, step=model.step, temperature=bench.options.temperatures[-1])
    alone = bench.write(path, length=window)
    bench.head("what", "judged bits/char", "+-", "entropy", "seconds a block, median", "slowest after the first", "MiB")
    bench.row("single windows", *bench.judged(alone.texts), "", "", "")
    times, total = [time.monotonic()], bench.options.total
    made = ed.generate(
        model, length=total, window=window, sampler=path, frames=1, seed=bench.options.seed,
        watch=lambda _: times.append(time.monotonic()),
    )  # fmt: skip
    seconds = np.diff(times)
    text = made.texts[0]
    quarter = len(text) // 4
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pieces = [text[i : i + window] for i in range(0, total - window + 1, window)]
    for name, part in (("all of it", pieces), ("its last quarter", [p for p in pieces[-(quarter // window) :]])):
        bench.row(name, *bench.judged(part), float(np.median(seconds[1:])), float(seconds[1:].max()), f"{memory:.0f}")
    for n in range(4):
        part = text[n * quarter : (n + 1) * quarter]
        # as one text: what lies across the seams counts too
        bench.row(f"quarter {n + 1}, across the seams", bench.judge.bits_per_char(part), "", "", "", "", "")


def words(bench: Bench) -> None:
    """One word left out of each held-out sentence: how often `infill` writes it, and how often no word of the text. Of
    byte pairs, words that are one token with the space before them."""
    bench.head("sampler", "sentences", "the word itself", "no word", "the first")
    model, known = bench.model, set(re.findall(r"[A-Za-z']+", bench.held_out))
    gone = []
    for sentence in re.findall(r"[^\n\[]{120,200}(?=\n)", bench.held_out):
        inner = list(re.finditer(r"(?<= )[a-z]{2,}(?= )", sentence))
        word = inner[len(inner) // 2] if inner else None
        if word and (not model.tokenizer.places and len(model.encode(f" {word[0]}")) in (1, 1 + len(word[0]))):
            width = min(len(model.encode(word[0])), len(model.encode(f" {word[0]}")))
            gone.append((sentence[: word.start()], f"[{width}]", sentence[word.end() :], word[0]))
    gone = gone[: bench.options.samples]
    paths = {"descent": None, "unmasking": ed.sampling.Unmasking(rounds=1, steps=1, step=1.0)}
    for name, path in paths.items():
        made = [
            ed.infill(model, f"{before}{hole}{after}", sampler=path, frames=0, seed=bench.options.seed + n).texts[0]
            for n, (before, hole, after, _) in enumerate(gone)
        ]
        found = [
            text[len(before) : len(text) - len(after)] for text, (before, _, after, _) in zip(made, gone, strict=True)
        ]
        right = float(np.mean([word == each[-1] for word, each in zip(found, gone, strict=True)]))
        none = float(np.mean([word not in known for word in found]))
        bench.row(name, len(gone), f"{right:.1%}", f"{none:.1%}", repr(made[0]))


def clock(bench: Bench) -> None:
    """Seconds to a passage at several budgets, batches of 1 and 32, compiled; its judged bits."""
    bench.head("path", "force evaluations", "batch", "seconds", "judged bits/char", "+-", "entropy")
    for total in (8, 32, 128):
        inner = max(2, round(total**0.5))
        path = ed.sampling.Unmasking(rounds=max(1, total // inner - 1), steps=inner, step=bench.model.step)
        for batch in (1, 32):
            write = functools.partial(bench.write, path, samples=batch, window=bench.options.length)
            write()
            start = time.monotonic()
            made = write(seed=bench.options.seed + 1)
            seconds = time.monotonic() - start
            judged = bench.judged(made.texts) if batch > 1 else ("", "", "")
            bench.row(f"unmasking {path.rounds} x {inner}", int(made.force_evaluations[0]), batch, seconds, *judged)
    for file in bench.options.twins:
        twin = ed.load(file)
        if not isinstance(twin, ed.learn.Autoregressive):
            continue
        draw = eqx.filter_jit(
            lambda twin, keys: jax.vmap(lambda key: twin.sample(bench.options.length, key=key))(keys)[0]
        )
        for batch in (1, 32):
            np.asarray(draw(twin, jax.random.split(jax.random.key(bench.options.seed), batch)))
            start = time.monotonic()
            ids = np.asarray(draw(twin, jax.random.split(jax.random.key(bench.options.seed + 1), batch)))
            seconds = time.monotonic() - start
            judged = bench.judged([bench.model.decode(row) for row in ids]) if batch > 1 else ("", "", "")
            bench.row("autoregressive twin, keys kept", bench.options.length, batch, seconds, *judged)


def twins(bench: Bench) -> None:
    """Trains two twins of the shipped size on the same plays, for other tables; saves them in `--out`."""
    corpus, _ = corpus_of_plays(Path(bench.options.text))
    sizes = {"dim": bench.options.dim, "depth": bench.options.depth, "key": jax.random.key(0)}
    bench.head("twin", "parameters", "batches of 16 windows of 64", "seconds", "bits/char of the validation play", "+-")
    for kind in (ed.learn.Autoregressive, ed.learn.MaskedDiffusion):
        start, steps = time.monotonic(), bench.options.steps
        rate = bench.options.learning_rate
        twin = kind(corpus.tokenizer.size, **sizes)
        twin = ed.fit(twin, corpus, twin.objective, steps=steps, learning_rate=rate)
        seconds = time.monotonic() - start
        bench.options.out.mkdir(parents=True, exist_ok=True)
        ed.save(bench.options.out / f"{kind.__name__}.safetensors", twin)
        score = ed.evaluate(twin, corpus.validation, length=64, windows=256)
        bits = score.masked_nelbo_bits_per_char, score.standard_error
        bench.row(kind.__name__, sum(leaf.size for leaf in jax.tree.leaves(twin)), steps, seconds, *bits)


TABLES = {
    "budget": budget,
    "best": best,
    "descent": descent,
    "frontier": frontier,
    "solvers": solvers,
    "infill": infill,
    "repair": repair,
}
TABLES |= {"constraints": constraints, "blocks": blocks, "time": clock, "twins": twins, "words": words}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("model", nargs="?", default="shakespeare")
    parser.add_argument("text", nargs="?", default="../shared/data/shakespeare_plays/plays.md.xz")
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--length", type=int, default=64, help="of a passage, and of a window of `blocks`")
    parser.add_argument("--total", type=int, default=4096, help="of `blocks`")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluations", type=int, nargs="*", default=[1, 2, 4, 8, 16, 32, 64, 128, 256])
    parser.add_argument("--temperatures", type=float, nargs="*", default=[1.0, 0.7])
    parser.add_argument("--reference", type=int, default=2048, help="steps of the reference of `solvers`")
    parser.add_argument("--relaxation", type=int, default=4, help="steps of the neurons in each of `solvers`")
    parser.add_argument("--until", type=float, default=0.3, help="where `budget` stops and draws")
    parser.add_argument("--implicit", action="store_true", help="an implicit solver too")
    parser.add_argument("--twins", nargs="*", default=[], help="files of twins, for `infill` and `frontier`")
    parser.add_argument("--table-of-budget", type=Path, help="what `budget` printed, for `frontier`")
    parser.add_argument("--figure", type=Path, default=Path("budget.png"), help="where the picture of `frontier` goes")
    parser.add_argument("--steps", type=int, default=5000, help="batches that `twins` trains")
    parser.add_argument("--dim", type=int, default=128, help="width of the twins that `twins` trains")
    parser.add_argument("--depth", type=int, default=3, help="their depth")
    parser.add_argument("--learning-rate", type=float, default=6e-3, help="their learning rate")
    parser.add_argument("--out", type=Path, default=Path("runs/twins_of_plays"), help="where `twins` saves them")
    parser.add_argument("--word", default="love")
    parser.add_argument("--avoid", nargs="*", default=["the", "and"])
    options = parser.parse_args()
    TABLES[options.table](Bench(options))


if __name__ == "__main__":
    main()
