"""The letters of the equations.

Axes, used in every `jaxtyping` annotation of the package:

| letter | meaning |
|---|---|
| `L` | tokens of one sequence |
| `V` | symbols of the vocabulary |
| `C` | width of a token code `e_w` (the space of the noise) |
| `D` | width of a hidden token state `y` |
| `H`, `K` | heads of an attention synapse, width of a head |
| `M` | stored patterns of a memory |
| `N` | width of one state of a memory (elsewhere: recorded times) |
| `O`, `R` | offsets and rank of a pairwise synapse |
| `S`, `Q` | states of a hidden Markov model, of an automaton |

Variables: `x (L, C)` noisy observation, `y (L, D)` hidden state, `g (L, D)` activation, `b (L, V)` evidence,
`p (L, V)` posterior, `sigma (L,)` noise level of each token. Two clocks, never one letter: noise time
`s = -log sigma` and relaxation time `t`.
"""

from jaxtyping import Array, Float, PRNGKeyArray


Scalar = Float[Array, ""]
Key = PRNGKeyArray
LOG_ZERO = -1e30
"""The log of probability 0: finite, so that gradients stay finite."""
