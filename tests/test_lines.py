"""Laws of stored lines: sums over strings and alignments by enumeration, posteriors as gradients."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energy_dllm as ed


V = 3


@eqx.filter_jit
def read(lines, b, gap=None, mask=None):
    """All that is read off, compiled once for each shape: eager steps are what costs time here."""
    slope = jax.grad(lambda w: ed.energy.PairHMMMixture(lines.ids, w, lines.background)(b, gap=gap, mask=mask))(
        lines.log_weights
    )
    return (
        lines.log_masses(b, gap=gap, mask=mask),
        lines(b, gap=gap),
        lines.posterior(b, gap=gap),
        -slope,
        lines.marginals(b, gap=gap),
    )


def chain_of(order, seed=0):
    return ed.energy.NGram(jnp.asarray(np.random.default_rng(seed).poisson(2.0, (V,) * (order + 1)), float))


def probability(chain, string):
    """Of a string, one token after another, the two before the first summed over."""
    context, table = (np.asarray(t) for t in chain.tables())
    order = table.ndim - 1
    total = 0.0
    for before in itertools.product(range(V), repeat=order):
        p, tail = context[before], before
        for symbol in string:
            p, tail = p * table[(*tail, symbol)], (*tail, symbol)[1:]
        total += p
    return total


def lines_of(rng, chain):
    """Four lines of 1 to 5 tokens, one of them twice as likely."""
    lengths = (1, 3, 4, 5)
    ids = np.full((4, 5), V)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = rng.integers(V, size=length)
    return ed.energy.PairHMMMixture(jnp.asarray(ids), jnp.log(jnp.array([0.4, 0.24, 0.12, 0.12, 0.12])), chain)


def walks(line, b, token, gap):
    """The sum over every way the cue `b` can have been read off a line, one token of the cue after another."""

    def rest(place, i):
        if i == len(b):
            return 1.0
        inserted = gap * (token @ np.exp(b[i])) * rest(place, i + 1)
        read = sum(
            (1 - gap) ** 2 * gap ** (next - place) * np.exp(b[i, line[next]]) * rest(next + 1, i + 1)
            for next in range(place, len(line))
        )
        return inserted + read

    return sum(rest(place, 0) for place in range(len(line))) / len(line)


@pytest.mark.parametrize("order", [1, 2])
def test_the_chain_is_the_sum_over_all_strings(order, getkey):
    chain = chain_of(order)
    b = jax.random.normal(getkey(), (3, V))
    strings = list(itertools.product(range(V), repeat=3))
    p = np.array([probability(chain, s) for s in strings])
    assert np.isclose(p.sum(), 1.0, rtol=1e-12)
    joint = p * np.exp([np.asarray(b)[range(3), s].sum() for s in strings])
    free_energy, posterior = jax.jit(lambda b: (chain(b), chain.posterior(b)))(b)
    assert np.isclose(free_energy, -np.log(joint.sum()), rtol=1e-12)
    marginals = [[joint[[s[i] == w for s in strings]].sum() / joint.sum() for w in range(V)] for i in range(3)]
    assert np.allclose(posterior, marginals, rtol=1e-10)
    draws = jax.jit(jax.vmap(lambda key: chain.sample(b, key=key)))(jax.random.split(getkey(), 4000))
    share = np.bincount(np.asarray(draws) @ [9, 3, 1], minlength=27) / 4000
    assert np.abs(share - joint / joint.sum()).max() < 0.03 and np.corrcoef(share, joint)[0, 1] > 0.98


def test_counts_smooth_and_many_counts_decide():
    few, many = chain_of(2), ed.energy.NGram(1e6 * chain_of(2).counts)
    frequency = many.counts / many.counts.sum(-1, keepdims=True)
    assert np.allclose(many.tables()[1], frequency, atol=1e-5)
    assert (few.tables()[1] > 0).all() and not np.allclose(few.tables()[1], frequency, atol=1e-2)
    assert np.allclose(ed.energy.NGram(jnp.zeros((V, V))).tables()[1], 1 / V)


@pytest.mark.parametrize("gap", [None, 0.2])
def test_the_energy_is_the_sum_over_lines_and_alignments(gap, getkey):
    chain = chain_of(2)
    lines = lines_of(np.random.default_rng(1), chain)
    token = np.asarray(chain.unigram)
    b = np.asarray(jax.random.normal(getkey(), (4, V)))
    masses, free_energy, p, _, _ = read(lines, jnp.asarray(b), gap and jnp.asarray(gap))
    terms = [
        0.4 * sum(probability(chain, s) * np.exp(b[range(4), s].sum()) for s in itertools.product(range(V), repeat=4))
    ]
    for weight, row in zip(np.exp(np.asarray(lines.log_weights[1:])), np.asarray(lines.ids), strict=True):
        line = row[row < V]
        placed = np.prod([np.exp(b[i, line[i]]) if i < len(line) else token @ np.exp(b[i]) for i in range(4)])
        terms.append(weight * (placed if gap is None else (placed + walks(line, b, token, gap)) / 2))
    assert np.allclose(np.exp(masses), terms, rtol=1e-10)
    assert np.isclose(free_energy, -np.log(np.sum(terms)), rtol=1e-11)
    assert np.allclose(p, terms / np.sum(terms), rtol=1e-10)


@pytest.mark.parametrize("gap", [None, 0.2])
def test_padding_of_a_cue_changes_no_term(gap, getkey):
    """Neither those of the lines nor that of the background, whatever evidence stands there."""
    lines, b = lines_of(np.random.default_rng(1), chain_of(2)), jax.random.normal(getkey(), (6, V))
    gap = gap and jnp.asarray(gap)
    assert np.allclose(lines.log_masses(b, gap=gap, mask=jnp.arange(6) < 4), lines.log_masses(b[:4], gap=gap))


@pytest.mark.parametrize("gap", [None, 0.1])
def test_posteriors_are_gradients_of_the_energy(gap, getkey):
    lines = lines_of(np.random.default_rng(2), chain_of(2))
    b = jax.random.normal(getkey(), (4, V))
    gap = gap and jnp.asarray(gap)
    masses, _, p, slope, marginals = (np.asarray(array) for array in read(lines, b, gap))
    assert np.allclose(slope, p, rtol=1e-12) and np.allclose(p, jax.nn.softmax(masses), rtol=1e-12)
    assert np.allclose(marginals.sum(-1), 1.0, rtol=1e-12) and (marginals > 0).all()
    for i, w in ((0, 1), (3, 2)):
        ahead, behind = (read(lines, b.at[i, w].add(h), gap)[1] for h in (1e-5, -1e-5))
        assert np.isclose(-(ahead - behind) / 2e-5, marginals[i, w], rtol=1e-6)
    if gap is None:  # by hand: each line votes for its own token, the background for its own guess
        expected = p[0] * np.asarray(lines.background.posterior(b))
        token = np.asarray(lines.background.unigram)
        for share, row in zip(p[1:], np.asarray(lines.ids), strict=True):
            for i in range(4):
                guess = np.eye(V + 1)[row[i]][:V] if row[i] < V else token * np.exp(b[i]) / (token @ np.exp(b[i]))
                expected[i] += share * guess
        assert np.allclose(marginals, expected, rtol=1e-10)


def test_the_score_of_noisy_codes_is_the_gradient_of_the_energy(getkey):
    """`-d(F + spring)/dx = (x_hat - x) / sigma^2`: the memory is a diffusion model without training."""
    lines = lines_of(np.random.default_rng(3), chain_of(2))
    codes, sigma = jnp.eye(V), jnp.array([0.6, 0.9, 0.4, 0.7])
    x = jax.random.normal(getkey(), (4, V))

    def energy(x):
        seen = ed.flow.Gaussian(x, sigma)
        return lines(seen.field(codes)) + jnp.sum(seen.spring())

    x_hat = read(lines, ed.flow.Gaussian(x, sigma).field(codes))[4] @ codes
    assert np.allclose(-jax.jit(jax.grad(energy))(x), (x_hat - x) / sigma[:, None] ** 2, rtol=1e-10)


def test_what_is_beyond_the_mask_was_never_there(getkey):
    lines = lines_of(np.random.default_rng(4), chain_of(2))
    b, gap = jax.random.normal(getkey(), (4, V)), jnp.asarray(0.1)
    longer, mask = jnp.pad(b, ((0, 3), (0, 0))), jnp.arange(7) < 4
    short = read(lines, b, gap)[0]
    assert np.allclose(short, read(lines, longer, gap, mask)[0], rtol=1e-12)
    assert not np.allclose(short, read(lines, longer, gap, mask | True)[0], rtol=1e-3)


@pytest.mark.parametrize("gap", [1e-6, 0.06, 0.97])
def test_alignments_of_long_lines_are_those_of_the_recursion(gap):
    """`a_i = (1 - gap) e_i * (a_(i-1) T) + gap u_i a_(i-1)`, with `T` written out."""
    rng = np.random.default_rng(5)
    lines, b = np.full((2, 200), V), rng.normal(size=(3, V))
    lines[0], lines[1, :150] = rng.integers(V, size=200), rng.integers(V, size=150)
    mixture = ed.energy.PairHMMMixture(jnp.asarray(lines), jnp.zeros(3), ed.energy.NGram(jnp.ones((V, V))))
    ahead = np.arange(201) - np.arange(201)[:, None]
    jump = np.where(ahead > 0, (1 - gap) * gap ** np.maximum(ahead - 1.0, 0), 0)
    for line, found in zip(lines, mixture.aligned(jnp.asarray(b), jnp.asarray(gap)), strict=True):
        length = np.sum(line < V)
        a = np.where(np.arange(201) < length, 1 / length, 0.0)
        for row in b:
            emit = np.append(0.0, np.where(line < V, np.exp(np.append(row, 0.0)[line]), 0.0))
            a = (1 - gap) * emit * (a @ jump) + gap * np.mean(np.exp(row)) * a
        assert np.isclose(found, np.log(a.sum()), rtol=1e-12)


def test_without_gaps_a_cue_is_a_piece_of_a_line():
    """No line that is shorter than the cue has an alignment, which is a weight of 0, and no NaN."""
    rng = np.random.default_rng(5)
    lines, b = lines_of(rng, chain_of(1)), rng.normal(size=(4, V))
    aligned, marginals = lines.aligned(jnp.asarray(b), 0.0), lines.marginals(jnp.asarray(b), gap=0.0)
    for line, found in zip(np.asarray(lines.ids), aligned, strict=True):
        line = line[line < V]
        pieces = [np.exp(b[range(4), line[n : n + 4]].sum()) for n in range(len(line) - 3)]
        assert np.isclose(np.exp(found), np.sum(pieces) / max(len(line), 1), rtol=1e-12)
    assert np.allclose(marginals.sum(-1), 1.0)


def test_alignment_is_safe_for_long_lines_in_single_precision():
    """Sharp evidence over 200 tokens: a product of e^-30s, with a finite log and a finite gradient."""
    rng = np.random.default_rng(5)
    ids = jnp.asarray(rng.integers(V, size=(3, 200)))
    lines = ed.energy.PairHMMMixture(ids, jnp.log(jnp.full(4, 0.25)).astype(jnp.float32), chain_of(1))
    b = ed.flow.Given(ids[1, 20:180]).field(jnp.eye(V, dtype=jnp.float32)).astype(jnp.float32)
    for gap in jnp.array([1e-6, 1e-3, 0.05, 0.3], jnp.float32):
        masses, _, p, _, marginals = read(lines, b, gap)
        assert jnp.isfinite(masses).all() and p[2] > 0.999 and jnp.isfinite(marginals).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ed.energy.NGram(jnp.ones((2, 3))), "expected \\(V, V\\)"),
        (lambda: ed.energy.PairHMMMixture(jnp.zeros((2, 3), int), jnp.zeros(2), chain_of(1)), "expected \\(M, L\\)"),
        (lambda: lines_of(np.random.default_rng(0), chain_of(1))(jnp.zeros((2, V + 1))), "expected \\(N, 3\\)"),
    ],
)
def test_shapes_are_checked(make, message, unchecked):
    with pytest.raises(ValueError, match=message):
        make()
