"""Write the card of a shipped model: what it is, its scores, ten samples nobody chose.

python benchmarks/model_card.py shakespeare docs/model_card.md
"""

import argparse
from pathlib import Path

import energy_dllm as ed


def main() -> None:
    """Read the notes, generate, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    notes = ed.learn.notes(options.model)
    lines = [f"# Model card: {options.model}", ""]
    lines += [f"- **{name}**: {notes[name]}" for name in ("data", "command", "steps", "seed", "seconds", "limits")]
    lines += [f"- **before**: {first['command']} ({first['seconds']:,} s)" for first in notes.get("before", [])]
    lines += ["", "| held-out part | read | bits/char | standard error | characters |", "|---|---|---|---|---|"]
    for name, score in notes["scores"].items():
        bits, error = score["masked_nelbo_bits_per_char"], score["standard_error"]
        lines.append(f"| {name} | as a whole, masked NELBO | {bits:.3f} | {error:.3f} | {score['characters']:,} |")
        for block, found in score.get("blocks", {}).items():
            bits, error = found["bits_per_char"], found["error"]
            way = "from left to right, exact" if block == "1" else f"in blocks of {block}"
            lines.append(f"| {name} | {way} | {bits:.3f} | {error:.3f} | {score['characters']:,} |")
    curve = notes["scores"]["validation"]["relaxation_curve"]
    best = min(ce for _, ce in curve)
    lines += ["", "| relaxation time | cross-entropy of masked tokens, nats | above the best |", "|---|---|---|"]
    lines += [f"| {time:.1f} | {ce:.3f} | {ce / best - 1:+.1%} |" for time, ce in curve]
    lines += ["", "| step of the relaxation, same time | cross-entropy, nats |", "|---|---|"]
    lines += [f"| {step:g} | {ce:.4f} |" for step, ce in notes["scores"]["validation"]["step_curve"]]
    model = ed.load(options.model)
    ways = {"default settings": ed.generate(model, samples=10, seed=options.seed, frames=1)}
    if 1 in model.blocks:
        ways["`--block 1`"] = ed.generate(model, samples=10, seed=options.seed, sampler=ed.sampling.Blocks(size=1))
    for name, made in ways.items():
        lines += ["", f"## Ten samples, seed {options.seed}, {name}, none left out", ""]
        for text in made.texts:
            lines += ["```text", *(line if line.strip() else "·" for line in text.splitlines()), "```", ""]
        lines.pop()
    options.out.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
