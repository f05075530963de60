"""Names of game characters: store some, and draw new ones that lie between two of them.

python examples/names.py

Halfway between two stored names the letters of both are equally likely; the background of the memory, a chain of
letters counted on all names, decides which of the two stands where, and whether another sounds better still.
The draws are exact samples of `P(s) exp(sum_i b_i(s_i))`.
"""

import jax
import jax.numpy as jnp
import numpy as np

import energy_dllm as ed


NAMES = """Aldemar Alvarin Amarys Andoril Arwenna Belandra Belmarin Berenor Caledra Calimor Camarin Celandor Celestra
Corvandel Damaris Darian Delamar Doriana Elandra Eldamir Elorin Emeradel Esmarin Evandor Faladrin Feanora Galadon
Galmarin Garandel Halandra Haldorin Ilmarin Isandra Isolaren Jorandel Kaladrin Keldoran Kestrelin Leandor Liandra
Lorimar Maladrin Marendil Meliandra Merandor Morwenna Nalandra Nerimar Oriana Orlandel Palandor Perindra Raladin
Roderin Rosamar Selandra Seremar Silvaren Talandor Tamarin Teriana Valandra Valmarin Veradel Wilmaren Yolandra
Zelmarin""".split()
EDGE = "."
"""Stands before and behind a name, so that the chain knows how names begin and end."""


def main(pairs: int = 6, draws: int = 8, sigma: float = 0.35, seed: int = 0) -> list[str]:
    """Print and return new names, each between two stored ones."""
    memory = ed.TextMemory([EDGE + name + EDGE for name in NAMES])
    print(f"{len(memory)} names", end="")
    for cue in ("Orianna", "Yolandr", "Gandalf"):
        found = memory.recall(f"{EDGE}{cue}{EDGE}", clean=0.5)
        print(f"; {cue}: {found.best.strip(EDGE)} with {found.stored:.2f}", end="")
    print()
    codes, chain = jnp.eye(memory.tokenizer.size), memory.energy.background
    drawn = jax.jit(lambda b, keys: jax.vmap(lambda key: chain.sample(b, key=key))(keys))
    invented: list[str] = []
    for key in jax.random.split(jax.random.key(seed), pairs):
        pair = [NAMES[i] for i in jax.random.choice(key, len(NAMES), (2,), replace=False)]
        padded = [(EDGE + name).ljust(memory.length, EDGE) for name in pair]
        # Gaussian noise of level sigma would leave this evidence around the middle of the two
        middle = sum(codes[memory.tokenizer.encode(name)] for name in padded) / 2
        b = ed.flow.Gaussian(middle, sigma).field(codes)
        strings = [memory.tokenizer.decode(ids) for ids in np.asarray(drawn(b, jax.random.split(key, draws)))]
        new = sorted({string.split(EDGE)[1] for string in strings if string[0] == EDGE} - {*NAMES, *invented, ""})
        print(f"{pair[0]:>10} and {pair[1]:<10} {' '.join(new)}")
        invented += new
    return invented


if __name__ == "__main__":
    main()
