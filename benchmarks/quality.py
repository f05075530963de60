"""The energy beside its twins under one budget: same parameters, windows, order, tokens, rates; several seeds.

    python benchmarks/quality.py train tinyshakespeare --models energy masked local tied autoregressive --seeds 0 1 2
    python benchmarks/quality.py train tinyshakespeare --tuning --rates 3e-3 6e-3 1.2e-2 2.4e-2 --steps 1000
    python benchmarks/quality.py table runs/quality
    python benchmarks/quality.py likelihood shakespeare ../shared/data/shakespeare_plays/plays.md.xz
    python benchmarks/quality.py noise shakespeare ../shared/data/shakespeare_plays/plays.md.xz

`--models energy-4` is the energy in blocks of four tokens, `mixed` one whose windows are whole and in blocks of 1 and 4
in turn, `both` and `shifted` whole and from left to right in turn, the latter with a shifted read-out; their cells have
the bound of each. In `feedback` unknown tokens send their beliefs, read after three evaluations. `train` runs one cell
after the other (corpus, size, model, rate, seed), resumes where it was stopped, skips what is done and writes one JSON
file a cell; `table` makes Markdown of all there are, `likelihood` measures a model's flow, `noise` what context is
worth to it under noise.
`--tuning` holds the end of the training part out and scores on that, so that rates are chosen on it and not on the
split that is reported. Sizes are 0.1M and 1M for a CPU, 10M for a GPU; parameters are counted without the fixed
codes.
"""

import argparse
import functools
import json
import lzma
import math
import statistics
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from recipe import seconds, train
from train_shakespeare import VALIDATION, plays

import energy_dllm as ed


# width and depth of the transformers, and of the deep energy (two halves of that width); width of the tied transformer;
# hidden width and states of the energy of one layer beside a hidden Markov model
SIZES = {"0.1M": (64, 2, 88, (64, 248)), "1M": (144, 4, 288, (224, 784)), "10M": (384, 6, 896, (640, 2560))}
TUNING = 0.1
BLOCKS = (1, 2, 4, 8, 16, 32)
MIXED = {"mixed": (0, 1, 4, 1), "both": (0, 1), "shifted": (0, 1)}


def letters(text: str) -> str:
    """Folded to the 27 symbols of text8."""
    return " ".join("".join(c if c in "abcdefghijklmnopqrstuvwxyz" else " " for c in text.lower()).split())


def corpus_of(name: str, data: Path) -> ed.data.Corpus:
    """A corpus by its name, with the split its README gives."""
    if name == "grammar":
        return ed.data.grammar_corpus(characters=2_000_000)
    if name == "docs":
        return ed.data.docs_corpus()
    if name == "tinyshakespeare":
        return ed.data.read_text(data / "tinyshakespeare.txt", validation=0.1)
    alphabet = ed.data.Characters(" abcdefghijklmnopqrstuvwxyz")
    if name == "text8-3M":
        ids = alphabet.encode((data / "text8_first3M.txt").read_text())
        return ed.data.Corpus(name, alphabet, ids[:2_700_000], ids[2_700_000:2_850_000], ids[2_850_000:])
    parts = [letters((data / "wikitext2" / f"wiki.{part}.tokens").read_text()) for part in ("train", "valid", "test")]
    return ed.data.Corpus("wikitext2-27", alphabet, *(alphabet.encode(part) for part in parts))


def contender(name: str, corpus: ed.data.Corpus, size: str, gaussian: float, seed: int):
    """One model and what it is trained on."""
    key, symbols = jax.random.key(seed), corpus.tokenizer.size
    dim, depth, tied, layer = SIZES[size]
    if name == "feedback":
        k1, k2 = jax.random.split(key)
        stack = ed.energy.DeepStack(2 * dim, depth=depth, heads=4, memories=4 * dim, convolution=4, key=k1)
        network = ed.energy.Network(ed.energy.Silent(), {"blocks": stack}, jnp.zeros(2 * dim))
        vocabulary = ed.energy.MeanFieldVocabulary(symbols, 2 * dim, feedback=1.0, key=k2)
        energy = ed.energy.FreeEnergy(network, vocabulary, kappa=1.0)
        objective = ed.learn.Denoising.at_rest(
            gaussian=0.0, typo=0.0, shortest=0, horizon=3, step=0.8, speed_penalty=0.0
        )
        return ed.EnergyDLLM(corpus.tokenizer, energy=energy, steps=3, step=0.8, key=key), objective
    if name.startswith(("energy", "layer", *MIXED)):
        counts, block = corpus.counts(), int(name.partition("-")[2] or 0)
        if name != "layer":
            blocks = MIXED.get(name, (block,))
            objective = ed.learn.Denoising(gaussian=gaussian, typo=0.1 * gaussian, prefix=0.0)
            return ed.EnergyDLLM(
                corpus.tokenizer, dim=2 * dim, depth=depth, heads=4, blocks=blocks, shift=name == "shifted", key=key
            ), objective
        objective = ed.learn.Denoising.at_rest(gaussian=gaussian, typo=0.4 * gaussian)
        one = dict(dim=layer[0], depth=1, states=layer[1], counts=counts)
        return ed.EnergyDLLM(corpus.tokenizer, **one, key=key), objective
    if name == "autoregressive":
        twin = ed.learn.Autoregressive(symbols, dim=dim, depth=depth, key=key)
    elif name == "tied":
        twin = ed.learn.MaskedDiffusion(symbols, dim=tied, depth=1, repeats=8, key=key)
    else:
        twin = ed.learn.MaskedDiffusion(symbols, dim=dim, depth=depth, local=4 if name == "local" else 0, key=key)
    return twin, twin.objective


def count(model: eqx.Module) -> int:
    """Trainable numbers of a model."""
    total = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))
    if isinstance(model, ed.EnergyDLLM):
        total -= model.energy.vocabulary.codes.size
        total -= sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model.schedule, eqx.is_inexact_array)))
    return total


def flops(model: eqx.Module, objective: ed.learn.AbstractObjective, length: int) -> float:
    """Operations of one training step for each of its tokens, as the compiler counts them.

    A loop is counted as one turn; the turns of the relaxation are put in by hand: `E[untracked]` forces, and what the
    gradient of one tracked step costs, `tracked` times. So are the passes over the text of a `HMMVocabulary`.
    """
    parameters, static = eqx.partition(model, eqx.is_inexact_array)
    ids, key = jnp.zeros((8, length), int), jax.random.key(0)
    cost = lambda function, *a: jax.jit(function).lower(*a).compile().cost_analysis()["flops"] / (8 * length)
    loss = lambda objective: (
        lambda p, ids, key: jax.grad(lambda p: objective(eqx.combine(p, static), ids, key, jnp.ones(())))(p)
    )
    if not isinstance(objective, ed.learn.Denoising) or (model.energy.one_shot and not objective.gaussian):
        return cost(loss(objective), parameters, ids, key)
    y, b = jnp.zeros((8, length, model.energy.dim)), jnp.zeros((8, length, model.size))
    force = cost(lambda y, b: jax.vmap(model.energy.force)(y, b), y, b)
    low, high = math.log1p(objective.shortest), math.log1p(objective.horizon)
    untracked = np.mean(np.floor(np.exp(np.linspace(low, high, 1000)))) - 1
    passes = 0
    if isinstance(model.energy.vocabulary, ed.energy.HMMVocabulary):
        # forward and backward, with and without evidence; thrice as much where a gradient follows; at last the
        # posterior and the negative log-likelihood
        states = model.energy.vocabulary.initial.size
        passes = 2 * states**2 * (4 * untracked + 3 * (4 * objective.tracked + 2 + 1))
    return passes + untracked * force + objective.tracked * (cost(loss(objective), parameters, ids, key) - force)


def run(options: argparse.Namespace) -> None:
    """Train and score every cell that is not there yet."""
    corpus = corpus_of(options.corpus, options.data)
    held_out = corpus.validation
    if options.tuning:
        cut = round((1 - TUNING) * len(corpus.train))
        corpus = ed.data.Corpus(
            f"{corpus.name}, tuning", corpus.tokenizer, corpus.train[:cut], corpus.train[cut:], corpus.train[:0]
        )
        held_out = corpus.validation
    for seed in options.seeds:
        for name in options.models:
            for rate in options.rates:
                split = "tuning" if options.tuning else "validation"
                budget = f"{options.size}-{options.steps}x{options.batch_size}"
                cell = f"{options.corpus}-{budget}-{split}-{name}-{rate:g}-{seed}"
                folder = options.out / cell
                if (folder / "cell.json").exists():
                    continue
                model, objective = contender(name, corpus, options.size, options.gaussian, seed)
                cost = flops(model, objective, options.length)
                sizes = dict(length=options.length, batch_size=options.batch_size)
                model = train(
                    model,
                    corpus,
                    objective,
                    steps=options.steps,
                    learning_rate=rate,
                    directory=folder,
                    seed=seed,
                    **sizes,
                )
                ed.save(folder / "model.safetensors", model)
                score = ed.evaluate(model, held_out, length=options.length, windows=options.windows)
                record = dict(corpus=options.corpus, size=options.size, split=split, model=name, rate=rate, seed=seed)
                record |= dict(steps=options.steps, tokens=options.batch_size * options.length * options.steps)
                record |= dict(parameters=count(model), flops_per_token=cost, seconds=round(seconds(folder)))
                if name in MIXED:
                    bound = lambda block, model=model: (
                        ed.evaluate(
                            model, held_out, length=options.length, windows=options.windows, curves=False, block=block
                        ).masked_nelbo_bits_per_char
                    )
                    record["blocks"] = {
                        block: bound(block) for block in (MIXED[name] if name != "mixed" else (1, 2, 4, 8, 16, 32, 0))
                    }
                (folder / "cell.json").write_text(json.dumps(record | score.as_dict(), indent=1))
                bits, error = score.masked_nelbo_bits_per_char, score.standard_error
                print(f"{cell}: {bits:.4f} +- {error:.4f} bits a character, {record['seconds']} s", flush=True)


def table(folder: Path) -> str:
    """Markdown of all cells: per corpus, size and budget, the rate that was best in tuning, mean over seeds."""
    cells = [json.loads(path.read_text()) for path in sorted(folder.glob("*/cell.json"))]
    lines = []
    shared = ("corpus", "size", "tokens")
    for group in sorted({tuple(c[k] for k in shared) for c in cells if c["split"] == "validation"}):
        rows = {}
        for name in dict.fromkeys(c["model"] for c in cells):
            mine = [c for c in cells if c["split"] == "validation" and c["model"] == name]
            mine = [c for c in mine if tuple(c[k] for k in shared) == group]
            if not mine:
                continue
            tuned = {}
            for c in cells:
                if c["split"] == "tuning" and c["model"] == name and (c["corpus"], c["size"]) == group[:2]:
                    tuned.setdefault(c["rate"], []).append(c["masked_nelbo_bits_per_char"])
            here = {c["rate"] for c in mine}
            rate = min(here, key=lambda r: statistics.mean(tuned.get(r, [math.inf])))
            rows[name] = [c for c in mine if c["rate"] == rate]
        reference = [c["masked_nelbo_bits_per_char"] for c in rows.get("masked", [])]
        base = statistics.mean(reference) if reference else math.nan
        lines += [
            f"{group[0]}, {group[1]}, {group[2] / 1e6:.2f}M characters",
            "",
            "| model | parameters | rate | seeds | bits/char | over windows | over seeds | ratio | MFLOP a token | s |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for name, row in rows.items():
            bits = [c["masked_nelbo_bits_per_char"] for c in row]
            error = row[0]["standard_error"]
            spread = f"{statistics.stdev(bits) / len(bits) ** 0.5:.3f}" if len(bits) > 1 else ""
            lines.append(
                f"| {name} | {row[0]['parameters']:,} | {row[0]['rate']:g} | {len(bits)} | "
                f"{statistics.mean(bits):.3f} | {error:.3f} | {spread} | {statistics.mean(bits) / base:.3f} | "
                f"{row[0]['flops_per_token'] / 1e6:.2f} | {statistics.mean(c['seconds'] for c in row):.0f} |"
            )
        lines.append("")
    return "\n".join(lines)


def unseen(options: argparse.Namespace) -> tuple[ed.EnergyDLLM, jnp.ndarray]:
    """A model, and windows that it has not seen."""
    model = ed.load(options.model)
    if options.text.suffix == ".xz":
        ids = model.tokenizer.encode(plays(lzma.open(options.text, "rt", encoding="utf-8").read())[VALIDATION])
    else:
        ids = ed.data.read_text(options.text, validation=0.1).validation
    return model, jnp.asarray(ed.data.Windows.disjoint(ids, options.length, count=options.windows, seed=0))


def noise(options: argparse.Namespace) -> None:
    """Cross-entropy under noise beside the best posterior without context; how symmetric the denoiser's Jacobian is.

    Without context: Bayes on each token alone, its prior counted in the very windows it is asked about.
    """
    model, text = unseen(options)
    energy, codes = model.energy, model.energy.vocabulary.codes
    prior = jnp.log(jnp.bincount(text.ravel(), length=model.size) / text.size)
    k1, k2 = jax.random.split(jax.random.key(0))
    unit = jax.random.normal(k1, (*text.shape, codes.shape[1]))

    @functools.partial(jax.jit, static_argnums=1)
    def denoised(x, steps, sigma):
        b = ed.flow.Gaussian(x, sigma).field(codes)
        y = ed.flow.relax(energy, energy.neutral(x.shape[0]), b, steps=steps, step=model.step)
        return energy.logits(y, b), prior + b, energy.posterior(y, b) @ codes

    @jax.jit
    def entropies(sigma):
        def nats(logits, ids):
            return -jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), ids[:, None], axis=-1).mean()

        def one(row):
            ids, unit = row
            inside, alone, _ = denoised(codes[ids] + sigma * unit, model.steps, sigma)
            return jnp.stack([nats(inside, ids), nats(alone, ids)])

        return jax.lax.map(one, (text, unit), batch_size=8)

    @functools.partial(jax.jit, static_argnums=0)
    def asymmetry(steps):
        def one(row):
            ids, unit, v = row
            x_hat = lambda x: denoised(x, steps, 0.5)[2]
            x = codes[ids] + 0.5 * unit
            ahead, (back,) = jax.jvp(x_hat, (x,), (v,))[1], jax.vjp(x_hat, x)[1](v)
            return jnp.linalg.norm(ahead - back) / jnp.linalg.norm(ahead)

        return jax.lax.map(one, (text[:8], unit[:8], jax.random.normal(k2, unit[:8].shape)))

    print("| 1/sigma | nats | without context | difference | +- |\n|---|---|---|---|---|")
    for level in (0.3, 0.6, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0):
        inside, alone = np.asarray(entropies(jnp.asarray(1 / level, codes.dtype))).T
        error = (inside - alone).std(ddof=1) / len(text) ** 0.5
        print(
            f"| {level} | {inside.mean():.3f} | {alone.mean():.3f} | {(inside - alone).mean():.3f} | {error:.3f} |",
            flush=True,
        )
    for times in (1, 4):
        found = np.asarray(asymmetry(times * model.steps))
        print(
            f"asymmetry after {times * model.steps} steps: {found.mean():.1e}, the largest of 8 {found.max():.1e}",
            flush=True,
        )


def likelihood(options: argparse.Namespace) -> None:
    """The ODE likelihood of a model's flow on held-out text, at two resolutions, beside its masked NELBO."""
    model, text = unseen(options)
    flow = ed.flow.ProbabilityFlow(model.energy, steps=options.relaxation or model.steps, step=model.step)
    keys = jax.random.split(jax.random.key(0), len(text))
    result = {}
    for steps in (options.steps, 2 * options.steps):

        def one(row, steps=steps):
            ids, key = row
            directions = options.directions
            return ed.flow.FlowLikelihood(flow, ids, model.schedule, key=key, steps=steps, directions=directions)

        bound = jax.jit(lambda rows: jax.lax.map(one, rows, batch_size=8))((text, keys))
        bits = -np.asarray(bound.nats, float) / options.length / math.log(2)
        parts = {k: float(jnp.mean(getattr(bound, k))) for k in ("prior", "volume", "decoder", "encoder")}
        result[steps] = dict(bits=float(bits.mean()), standard_error=float(bits.std(ddof=1) / len(bits) ** 0.5))
        result[steps] |= dict(nats_a_window=parts, force_evaluations=int(bound.force_evaluations[0]))
        print(steps, json.dumps(result[steps]), flush=True)
    bound = masked(model, text)
    result["masked_nelbo_bits_per_char"] = bound
    result["ratio"] = result[2 * options.steps]["bits"] / bound
    print(json.dumps(result, indent=1))


def masked(model: ed.EnergyDLLM, text: jnp.ndarray, rates: int = 32) -> float:
    """The masked NELBO of a few windows, each asked at many rates: one mask a window says little of so few."""
    known = jax.random.uniform(jax.random.key(5), (rates, *text.shape))
    rate = (jnp.arange(rates) + 0.5) / rates

    @jax.jit
    def bits(row):
        known, rate = row
        log_p = jax.vmap(model.log_posterior)(text, known)
        nats = jnp.where(known, 0.0, -jnp.take_along_axis(log_p, text[..., None], axis=-1)[..., 0])
        return jnp.mean(jnp.sum(nats, axis=-1)) / rate / text.shape[1] / math.log(2)

    return float(jnp.mean(jax.lax.map(bits, (known >= rate[:, None, None], rate))))


def main() -> None:
    """Parse and call."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    trains = commands.add_parser("train")
    trains.add_argument("corpus", choices=["tinyshakespeare", "text8-3M", "wikitext2-27", "docs", "grammar"])
    trains.add_argument("--data", type=Path, default=Path("../shared/data"))
    trains.add_argument("--size", choices=list(SIZES), default="0.1M")
    models = ["energy", "layer", "masked", "local", "tied", "autoregressive"]
    kinds = [*models, *MIXED, "feedback", *(f"energy-{n}" for n in BLOCKS)]
    trains.add_argument("--models", nargs="*", default=models, choices=kinds)
    trains.add_argument("--rates", nargs="*", type=float, default=[1.2e-2])
    trains.add_argument("--seeds", nargs="*", type=int, default=[0])
    trains.add_argument("--steps", type=int, default=4000)
    trains.add_argument("--batch-size", type=int, default=8)
    trains.add_argument("--length", type=int, default=64)
    trains.add_argument("--gaussian", type=float, default=0.0, help="share of Gaussian evidence for the energy")
    trains.add_argument("--windows", type=int, default=1024)
    trains.add_argument("--tuning", action="store_true")
    trains.add_argument("--out", type=Path, default=Path("runs/quality"))
    tables = commands.add_parser("table")
    tables.add_argument("folder", type=Path)
    flows = commands.add_parser("likelihood")
    flows.add_argument("model")
    flows.add_argument("text", type=Path)
    flows.add_argument("--windows", type=int, default=32)
    flows.add_argument("--length", type=int, default=64)
    flows.add_argument("--steps", type=int, default=32)
    flows.add_argument("--relaxation", type=int, help="relaxation steps of each evaluation, else those of the model")
    flows.add_argument("--directions", type=int, default=1)
    noises = commands.add_parser("noise")
    noises.add_argument("model")
    noises.add_argument("text", type=Path)
    noises.add_argument("--windows", type=int, default=64)
    noises.add_argument("--length", type=int, default=64)
    options = parser.parse_args()
    if options.command == "train":
        run(options)
    elif options.command == "noise":
        noise(options)
    elif options.command == "table":
        print(table(options.folder))
    else:
        likelihood(options)


if __name__ == "__main__":
    main()
