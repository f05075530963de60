"""The energy model beside its three twins: same parameters, same windows in the same order, same number of steps.

    python benchmarks/twins.py ../shared/data/tinyshakespeare.txt --steps 2000 --out runs/twins

Every training has two parts, see `recipe.py`: `--steps`, and 15 % more. Trains on the first 90 % of the text, evaluates
on the last 10 %, one model after the other, resumes where it was stopped, and writes `twins.json` and the table
`twins.md`. Parameters are counted without the fixed one-hot codes.
"""

import argparse
import json
import math
from pathlib import Path

import equinox as eqx
import jax
from recipe import seconds, train

import energy_dllm as ed


def count(model) -> int:
    """Trainable numbers of a model."""
    total = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))
    if isinstance(model, ed.EnergyDLLM):
        total -= model.energy.vocabulary.codes.size
        total -= sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model.schedule, eqx.is_inexact_array)))
    return total


def contenders(tokenizer, gaussian: float):
    """The four models and what each is trained on."""
    key = jax.random.key(0)
    size = tokenizer.size
    masked = ed.learn.Masking()
    return {
        "energy": (
            ed.EnergyDLLM(tokenizer, key=key),
            ed.learn.Denoising(gaussian=gaussian, typo=0.25 * gaussian),
        ),
        "masked diffusion": (ed.learn.MaskedDiffusion(size, dim=64, depth=2, key=key), masked),
        "weight-tied": (ed.learn.Recurrent(size, dim=88, steps=8, key=key), masked),
        "autoregressive": (ed.learn.Autoregressive(size, dim=64, depth=2, key=key), ed.learn.NextToken()),
    }


def main() -> None:
    """Train, evaluate, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1.2e-2)
    parser.add_argument("--gaussian", type=float, default=0.0, help="share of Gaussian evidence for the energy model")
    parser.add_argument("--windows", type=int, default=512)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--out", type=Path, default=Path("runs/twins"))
    options = parser.parse_args()
    corpus = ed.data.read_text(options.text, validation=0.1)
    rows = {}
    if (options.out / "twins.json").exists():
        rows = json.loads((options.out / "twins.json").read_text())
    for name, (model, objective) in contenders(corpus.tokenizer, options.gaussian).items():
        if options.only and name not in options.only:
            continue
        folder = options.out / name.replace(" ", "_")
        model = train(
            model,
            corpus,
            objective,
            steps=options.steps,
            batch_size=options.batch_size,
            length=options.length,
            learning_rate=options.learning_rate,
            directory=folder,
        )
        spent = seconds(folder)
        ed.save(folder / "model.safetensors", model)
        score = ed.evaluate(model, corpus.validation, length=options.length, windows=options.windows)
        rows[name] = dict(parameters=count(model), seconds=round(spent), steps=options.steps, **score.as_dict())
        bits, error = score.masked_nelbo_bits_per_char, score.standard_error
        print(
            f"{name}: {bits:.4f} +- {error:.4f} bits/char, {bits * math.log(2):.4f} nats, {spent:.0f} s",
            flush=True,
        )
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "twins.json").write_text(json.dumps(rows, indent=1))
    (options.out / "twins.md").write_text(table(rows))
    print(table(rows))


def table(rows: dict) -> str:
    """A Markdown table, ratios to the masked-diffusion twin."""
    reference = rows.get("masked diffusion", {}).get("masked_nelbo_bits_per_char", math.nan)
    lines = [
        "| model | parameters | bits/char | +- | nats/char | ratio | training s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        bits = row["masked_nelbo_bits_per_char"]
        lines.append(
            f"| {name} | {row['parameters']:,} | {bits:.3f} | {row['standard_error']:.3f} | "
            f"{bits * math.log(2):.3f} | {bits / reference:.3f} | {row['seconds']} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
