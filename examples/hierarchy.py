"""Letters, syllables and words on one scalar: several layers of neurons relax together (a hierarchical memory).

python examples/hierarchy.py

`E = sum_l [<y_l, g_l> - Λ_l(y_l)] - sum_j <g_(letters of j), W g_(syllable j)> - sum_j <g_(syllable j), V_j g_word>`,
`g = grad Λ(y)`, and every layer follows `dy/dt = -dE/dg`. `E` never rises, because every Lagrangian is convex
(Krotov 2021, arXiv 2107.06446). A layer is a leaf of the state; its couplings are one function of all activations.
"""

import jax
import jax.numpy as jnp

import energy_dllm as ed


LETTERS, PARTS = "abegiklmnorst", ["ro", "me", "ba", "ri", "ta", "lo", "ne", "si"]
WORDS = ["rometa", "barine", "lonesi", "tabari"]
SPELLING = jnp.array([[[float(c == part[o]) for part in PARTS] for c in LETTERS] for o in range(2)])
BUILDING = jnp.array([[[float(word[2 * j : 2 * j + 2] == part) for word in WORDS] for part in PARTS] for j in range(3)])


class Hierarchy(ed.flow.AbstractMotion):
    """Descent of all layers at once under `evidence (6, 13)` about the letters; a held word stays where it starts."""

    evidence: jax.Array
    hold_word: bool = False

    @property
    def force_evaluations(self):
        """One."""
        return 1

    def activations(self, y):
        """`g` of every layer: softmax neurons, the evidence being a threshold of the letters."""
        fields = y | {"letters": y["letters"] + self.evidence}
        return jax.tree.map(jax.vmap(ed.energy.Softmax(beta=2.0).activation), fields)

    def coupling(self, g):
        """The energy of the synapses, a scalar of all activations."""
        letters = g["letters"].reshape(3, 2, -1)
        spelling = jnp.einsum("jod,odp,jp->", letters, 2.0 * SPELLING, g["syllables"])
        return -spelling - jnp.einsum("jp,jpw,w->", g["syllables"], 2.0 * BUILDING, g["word"][0])

    def __call__(self, time, state, args=None):
        """`-dE/dg = -y - dE_syn/dg` of every layer."""
        pull = jax.grad(self.coupling)(self.activations(state))
        speed = jax.tree.map(lambda y, slope: -y - slope, state, pull)
        return speed | {"word": 0.0 * speed["word"]} if self.hold_word else speed


def main(seen="ro__t_"):
    """The word that six letters, some unknown, come to rest on, and what the middle syllable is without the word."""
    evidence = jnp.array([[4.0 * (c == letter) for c in LETTERS] for letter in seen])
    start = {"letters": jnp.zeros((6, 13)), "syllables": jnp.zeros((3, 8)), "word": jnp.zeros((1, 4))}
    found = []
    for field in (Hierarchy(evidence), Hierarchy(evidence, hold_word=True)):
        g = field.activations(ed.solve(field, start, t0=0.0, t1=40.0).final)
        text = "".join(LETTERS[i] for i in g["letters"].argmax(-1))
        found.append((text, float(g["syllables"][1].max())))
        print(f"{seen} rests on {text}; its middle syllable has a probability of {found[-1][1]:.2f}")
    return found


if __name__ == "__main__":
    main()
