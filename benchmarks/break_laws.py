"""Break the code on purpose, once a law, and see that the test of that law notices.

    python benchmarks/break_laws.py

Every line of `FAULTS` is one fault: the law, the file, what is replaced by what, and the tests that must fail. The
package is copied, broken there, and tested there. Prints a table; exit code 1 if a fault goes unnoticed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


ROOT = Path(__file__).resolve().parents[1]
FAULTS = (
    (
        "1: the Lagrangian is convex",
        "energy/_neurons.py",
        "return y.size * jnp.exp(self.log_gamma) * _risen(jnp.var(y), self.log_epsilon)",
        "return -y.size * jnp.exp(self.log_gamma) * _risen(jnp.var(y), self.log_epsilon)",
        "tests/test_energy.py -k lagrangian_is_convex",
    ),
    (
        "1: a temperature has its true gradient",
        "energy/_neurons.py",
        "return jax.nn.logsumexp(beta * y) / beta",
        "return jax.nn.logsumexp(beta * y) / jax.lax.stop_gradient(beta)",
        "tests/test_energy.py -k parameters_of_the_lagrangian",
    ),
    (
        "2: the force is minus the slope of F (keys detached)",
        "energy/_synapses.py",
        "q, k = _shown(g, self.query), _shown(g, self.keys)",
        "q, k = _shown(g, self.query), _shown(jax.lax.stop_gradient(g), self.keys)",
        "tests/test_energy.py -k has_a_true_force",
    ),
    (
        "2: terms sum to F (a term forgotten)",
        "energy/_landscape.py",
        "return total(self.terms(y, b, spring=spring, mask=mask))",
        "return total({k: v for k, v in self.terms(y, b, spring=spring, mask=mask).items() if k != 'bias'})",
        "tests/test_energy.py -k terms_sum_to_f",
    ),
    (
        "2: attention excludes itself",
        "energy/_synapses.py",
        "others = ~jnp.eye(length, dtype=bool)",
        "others = jnp.ones((length, length), bool)",
        "tests/test_energy.py -k excludes_itself",
    ),
    (
        "2: an empty attention row gives 0",
        "energy/_synapses.py",
        "return -jnp.where(some, lower, 0.0) / self._beta",
        "return -(lower + 1.0) / self._beta",
        "tests/test_energy.py -k excludes_itself",
    ),
    (
        "2: padding does not pull",
        "energy/_synapses.py",
        "others & mask[None, :] & mask[:, None]",
        "others",
        "tests/test_energy.py -k padding_does_not_pull",
    ),
    (
        "3: the score is the gradient of F",
        "flow/evidence/_evidence.py",
        "return (self.x @ codes.T - 0.5 * jnp.sum(codes**2, axis=-1)) / self.sigma[:, None] ** 2",
        "return (self.x @ codes.T - 0.5 * jnp.sum(codes**2, axis=-1)) / self.sigma[:, None]",
        "tests/test_flow.py -k score_is_the_gradient",
    ),
    (
        "3: at rest the denoiser is a gradient (a force that is none)",
        "energy/_free_energy.py",
        "return -jax.grad(lambda g: total(self._by_name(y, g, mask)))(self.activation(y, b, mask))",
        "return 0.05 * jnp.roll(y, 1, 1) - jax.grad(lambda g: total(self._by_name(y, g, mask)))("
        "self.activation(y, b, mask))",
        "tests/test_flow.py -k envelope_theorem",
    ),
    (
        "1: the message of a token is the gradient of one Lagrangian (too strong)",
        "energy/_free_energy.py",
        "message = self.kappa * self.vocabulary.message(y, b, mask)",
        "message = 1.1 * self.kappa * self.vocabulary.message(y, b, mask)",
        "tests/test_energy.py -k what_a_token_says",
    ),
    (
        "1: no token receives its own evidence (an echo)",
        "energy/_free_energy.py",
        "return -jax.grad(lambda g: total(self._by_name(y, g, mask)))(self.activation(y, b, mask))",
        "return 0.1 * self.vocabulary.message(y, b) - jax.grad(lambda g: total(self._by_name(y, g, mask)))("
        "self.activation(y, b, mask))",
        "tests/test_energy.py -k does_not_hear",
    ),
    (
        "1: the message of a known token is its pattern (noise taken for knowledge)",
        "energy/_vocabulary.py",
        "CERTAIN = 500.0",
        "CERTAIN = 5.0",
        "tests/test_energy.py -k known_token",
    ),
    (
        "4: relaxation never raises F (uphill)",
        "flow/_field.py",
        "return self.energy.kappa * self.energy.force(state, b)",
        "return -self.energy.kappa * self.energy.force(state, b)",
        "tests/test_flow.py -k never_raises_f",
    ),
    (
        "4: F falls by what is dissipated (half the force)",
        "flow/_field.py",
        "return self.energy.kappa * self.energy.force(state, b)",
        "return 0.5 * self.energy.kappa * self.energy.force(state, b)",
        "tests/test_flow.py -k never_raises_f",
    ),
    (
        "4: the rest point is finite (no leak)",
        "energy/_network.py",
        'terms = {"neurons": valid(jnp.sum(y * g, axis=-1) - jax.vmap(self.neurons.lagrangian)(y), mask)}',
        'terms = {"neurons": valid(-0.1 * jnp.sum(y * g, axis=-1), mask)}',
        "tests/test_flow.py -k rest_point_is_finite",
    ),
    (
        "5: without a network the flow is that of the Gaussian mixture",
        "flow/_field.py",
        "return self.energy.denoised(self._settle(b), b) - state",
        "return self.energy.denoised(self._settle(b), b) - 0.9 * state",
        "tests/test_flow.py -k without_a_network",
    ),
    (
        "5: the likelihood of the flow equals enumeration",
        "energy/_landscape.py",
        "return self.posterior(y, b) @ self.vocabulary.codes",
        "return self.posterior(y, 0.9 * b) @ self.vocabulary.codes",
        "tests/test_flow.py -k likelihood_of_the_flow",
    ),
    (
        "8: a solver of order n has slope n (always Euler)",
        "flow/_solve.py",
        "    drift = diffrax.ODETerm(",
        "    solver = diffrax.Euler()\n    drift = diffrax.ODETerm(",
        "tests/test_flow.py -k slope_n",
    ),
    (
        "8: the answer does not depend on the step (the relaxation's clock is wrong)",
        "flow/_relax.py",
        "return y + move(y), None",
        "return y + move(y) * jnp.sqrt(0.36 / step), None",
        "tests/test_flow.py -k relax_is_euler",
    ),
    (
        "8: save and load are bitwise",
        "learn/_structure.py",
        "arrays[place] = np.asarray(value)",
        "arrays[place] = np.asarray(value) * (1 + 1e-7)",
        "tests/test_learn.py -k save_and_load_are_bitwise",
    ),
    (
        "a heavy ball comes to the same rest (momentum that pushes)",
        "flow/_relax.py",
        "v = momentum * v + move(y)",
        "v = momentum * v + move(y) + 1e-3 * momentum",
        "tests/test_flow.py -k heavy_ball",
    ),
    (
        "probes of times never reached are marked",
        "flow/_probing.py",
        "return jax.tree.map(lambda leaf: mark(leaf[:number], _never(leaf.dtype)), found)",
        "return jax.tree.map(lambda leaf: leaf[:number], found)",
        "tests/test_flow.py -k never_reached",
    ),
    (
        "probes share what they have in common (each reads the evidence for itself)",
        "flow/_probing.py",
        "moment = CachedField(now, *record) if isinstance(now, AbstractField) else now",
        "moment = now",
        "tests/test_probe.py -k have_in_common",
    ),
    (
        "the gradient follows the tracked steps (one of them detached)",
        "learn/_objective.py",
        "                y, _ = state\n",
        "                y, _ = jax.lax.stop_gradient(state)\n",
        "tests/test_learn.py -k true_gradient_in",
    ),
    (
        "windows in one program keep their own steps (masks take that of noise)",
        "learn/_objective.py",
        "steps = jnp.where(np.arange(ids.shape[0]) < soft, step, 1.0).astype(b.dtype)",
        "steps = jnp.full(ids.shape[0], step).astype(b.dtype)",
        "tests/test_learn.py -k one_program",
    ),
    (
        "the volume of the flow (half of it)",
        "flow/_likelihood.py",
        "own + jnp.mean(jnp.sum(along * change, axis=(1, 2)))",
        "0.5 * own + jnp.mean(jnp.sum(along * change, axis=(1, 2)))",
        "tests/test_flow.py -k within_two_per_cent",
    ),
    (
        "padding is silent in every layer of a memory (in the first one only)",
        "energy/_memories.py",
        "padded = jnp.pad(valid(z, mask), ((reach, reach), (0, 0)))",
        "padded = jnp.pad(z if n else valid(z, mask), ((reach, reach), (0, 0)))",
        "tests/test_energy.py -k padding_does_not_pull",
    ),
    (
        "matrices that do not move do not shrink (all do)",
        "learn/_optimizer.py",
        "change - decay * jnp.any(change != 0) * leaf",
        "change - decay * leaf",
        "tests/test_learn.py -k shrink_where_they_move",
    ),
    (
        "a prompt is read some tokens at a time (without the one before them)",
        "sampling/_written.py",
        "jnp.append(ids[jnp.maximum(start - 1, 0)], here[:-1])",
        "jnp.append(here[0], here[:-1])",
        "tests/test_draft.py -k some_tokens_at_a_time",
    ),
    (
        "pieces of a stream are sent at once (each waits for the client)",
        "serve/_run.py",
        "socket.TCP_NODELAY, 1",
        "socket.TCP_NODELAY, 0",
        "tests/test_serve.py -k sent_at_once",
    ),
    (
        "matrices of one shape move each by its own gradient (all by that of the first)",
        "learn/_optimizer.py",
        "batch[:count].reshape(leaves[n].shape), batch[count:]",
        "batch[:count].reshape(leaves[n].shape), batch",
        "tests/test_learn.py -k matrices_move",
    ),
    (
        "a pause changes nothing (one step too many)",
        "learn/_fit.py",
        "for n in range(first, end):",
        "for n in range(first, min(end + 1, steps)):",
        "tests/test_learn.py -k pause",
    ),
    (
        "lines: the chain sums over all strings (contexts out of step)",
        "energy/_ngram.py",
        "return jnp.moveaxis(alpha / total, 0, -1), jnp.log(total) + top",
        "return alpha / total, jnp.log(total) + top",
        "tests/test_lines.py -k sum_over_all_strings",
    ),
    (
        "lines: all alignments are summed (gaps of one token only)",
        "energy/_ngram.py",
        "jnp.where(ahead >= 0,",
        "jnp.where((ahead >= 0) & (ahead < 2),",
        "tests/test_lines.py -k over_lines_and_alignments",
    ),
    (
        "lines: marginals are gradients (a background that does not answer)",
        "energy/_ngram.py",
        "jnp.concatenate([-self.background(b)[None], likelihood])",
        "jnp.concatenate([-self.background(jax.lax.stop_gradient(b))[None], likelihood])",
        "tests/test_lines.py -k posteriors_are_gradients",
    ),
    (
        "memory: lines outside of the sieve keep their place in the sum",
        "memory/_text.py",
        "np.log(share / 4.0)",
        "np.log(share / 400.0)",
        "tests/test_memory.py -k outside_of_the_sieve",
    ),
    (
        "memory: removing a line is never having stored it",
        "memory/_text.py",
        "self.keys if left.all() else self.keys.without(~left),",
        "self.keys,",
        "tests/test_memory.py -k building_anew",
    ),
    (
        "memory: what it tells a model is posterior over background",
        "memory/_text.py",
        "jnp.log(p + tiny) - jnp.log(p_0 + tiny)",
        "jnp.log(p + tiny)",
        "tests/test_memory.py -k voice_of_a_memory",
    ),
    (
        "the netlist computes the field (constants of the other sign)",
        "circuit/_write.py",
        "self.netlist.current(GROUND, wire, weight * node.constant)",
        "self.netlist.current(GROUND, wire, -weight * node.constant)",
        "tests/test_circuit.py -k the_text_computes",
    ),
    (
        "equal signals are made once, and only equal ones (weights forgotten)",
        "circuit/_write.py",
        "self.netlist.follows(GROUND, wire, self.place[node.index], GROUND, weight)",
        "self.netlist.follows(GROUND, wire, self.place[node.index], GROUND, 1.0)",
        "tests/test_circuit.py -k the_text_computes",
    ),
    (
        "6: Langevin samples exp(-E/T) (half of its heat)",
        "memory/_dynamics.py",
        "return jnp.full_like(state, (2 * self.temperature) ** 0.5)",
        "return jnp.full_like(state, self.temperature**0.5)",
        "tests/test_exact.py -k langevin_has_the_law",
    ),
    (
        "7: a Gaussian memory is diffusion (the soft minimum forgets beta)",
        "memory/_states.py",
        "return least - jnp.log(jnp.sum(jnp.exp(-beta * gaps))) / beta",
        "return least - jnp.log(jnp.sum(jnp.exp(-beta * gaps)))",
        "tests/test_memories.py -k a_gaussian_memory_is_diffusion",
    ),
    (
        "a chip is what its netlist is (an offset of the other sign)",
        "circuit/_chip.py",
        "signal = self.reach * (mean + self.offset / self.technology.volts)",
        "signal = self.reach * (mean - self.offset / self.technology.volts)",
        "tests/test_circuit_device.py -k chip_with_all_its_faults",
    ),
    (
        "noise moves circuit and equation alike (half of its heat)",
        "circuit/_noise.py",
        "currents = (2 * temperature / step) ** 0.5",
        "currents = (temperature / step) ** 0.5",
        "tests/test_circuit_device.py -k noise_moves",
    ),
    (
        "the bill is the integral of the power (counted twice)",
        "circuit/_energy.py",
        "joules = float(np.trapezoid(power, times) * circuit.seconds)",
        "joules = float(2 * np.trapezoid(power, times) * circuit.seconds)",
        "tests/test_circuit_device.py -k supplies",
    ),
    (
        "7: memories leave one by one (entropy with the other sign)",
        "memory/_memorisation.py",
        "return jnp.exp(-jnp.sum(jnp.exp(logs) * logs))",
        "return jnp.exp(jnp.sum(jnp.exp(logs) * logs))",
        "tests/test_meters.py -k memories_leave",
    ),
    (
        "7: a basin ends half-way (a wider step)",
        "memory/_meters.py",
        "home, pattern + r * way",
        "home, pattern + 1.2 * r * way",
        "tests/test_meters.py -k basin_ends",
    ),
    (
        "a window asks with the square root of its gaps (with their number)",
        "learn/_cross_entropy.py",
        "jnp.sqrt(jnp.maximum(asked_in_block(targets, block), 1))",
        "jnp.maximum(asked_in_block(targets, block), 1)",
        "tests/test_learn.py -k mixture_has",
    ),
    (
        "speed_penalty costs a logarithm (a square)",
        "learn/_objective.py",
        "jnp.mean(jnp.log1p(speed**2))",
        "jnp.mean(speed**2)",
        "tests/test_learn.py -k speed_penalty",
    ),
    (
        "4: F falls under any evidence (the message without its prior)",
        "energy/_markov.py",
        "+ scores, axis=-1) - self._emitted(prior)",
        "+ scores, axis=-1)",
        "tests/test_markov.py -k falls_under",
    ),
    (
        "5: what is expected of a token leaves out its own evidence (it counts)",
        "energy/_markov.py",
        "return forward[:, 0], backward,",
        "return forward[:, 0] * likelihood, backward,",
        "tests/test_markov.py -k does_not_depend",
    ),
    (
        "6: tokens are drawn together (states drawn one by one)",
        "energy/_markov.py",
        "jax.random.categorical(key, weight + onward)",
        "jax.random.categorical(key, weight)",
        "tests/test_markov.py -k drawn_together",
    ),
    (
        "9: a language is drawn together (each token from its own posterior)",
        "energy/_markov.py",
        "        if dfa is not None:\n",
        "        if dfa is not None:\n            return dfa.sample(self.logits(y, b), key=key)\n",
        "tests/test_markov.py -k language",
    ),
    (
        "9: what is next to impossible is drawn where nothing else is left (no state has a scale of its own)",
        "energy/_markov.py",
        "top = jnp.max(onward, axis=-1)",
        "top = jnp.full(onward.shape[0], jnp.max(onward))",
        "tests/test_markov.py -k impossible",
    ),
    (
        "9: passages are exact in any number of rounds (tokens of a round drawn apart)",
        "energy/_free_energy.py",
        "return self.vocabulary.sample(y, b + tilt, dfa=dfa, key=key)",
        "return jax.random.categorical(key, self.logits(y, b + tilt), axis=-1)",
        "tests/test_markov.py -k any_number",
    ),
    (
        "growing: a merge costs what is lost, less what is saved (both are lost)",
        "learn/_split_merge.py",
        "pair = lost + _apart(entered)",
        "pair = lost - _apart(entered)",
        "tests/test_grow.py -k cost_of_a_merge",
    ),
    (
        "growing: counts are the slope of the likelihood (backward messages left out)",
        "learn/_split_merge.py",
        'return (jnp.einsum("bij,bj->bi", block, weight), counts), None',
        "return (behind, counts), None",
        "tests/test_grow.py -k expected_counts",
    ),
    (
        "growing: halves pass on which half they are (half of the time)",
        "learn/_split_merge.py",
        "[[stickiness, 1.0 - stickiness], [1.0 - stickiness, stickiness]]",
        "[[0.5, 0.5], [0.5, 0.5]]",
        "tests/test_grow.py -k halves",
    ),
    (
        "padding is not there (it has a message)",
        "energy/_markov.py",
        "return valid(unary, mask), valid(unary + b, mask)",
        "return unary, unary + b",
        "tests/test_markov.py -k padding",
    ),
    (
        "tables are no matrices (Muon turns them)",
        "learn/_optimizer.py",
        'return _each(kind, parameters, otherwise=lambda leaf: "rest")',
        "return jax.tree.map(kind, parameters)",
        "tests/test_markov.py -k no_matrices",
    ),
    (
        "9: tokens drawn one by one have the exact law (all are drawn at once)",
        "sampling/_unmasking.py",
        "(conditioning.length - before) * jnp.minimum(number, self.rounds) // self.rounds",
        "(conditioning.length - before)",
        "tests/test_constraints.py -k any_order",
    ),
    (
        "5: what noise leaves open is drawn (the likeliest is taken)",
        "sampling/_diffusion.py",
        "b, temperature=self.temperature, key=k1)",
        "b, temperature=0, key=k1)",
        "tests/test_exact.py -k leaves_open",
    ),
    (
        "9: what is drawn is accepted (the automaton is not asked)",
        "flow/evidence/_conditioning.py",
        "dfa=self.dfa, key=None if cold",
        "dfa=None, key=None if cold",
        "tests/test_constraints.py -k every_sample",
    ),
    (
        "9: a constraint holds across blocks (what must follow is forgotten)",
        "sampling/_blocks.py",
        "dfa.begins(self.ahead[end])",
        "dfa.begins(np.zeros(self.ahead[end].shape))",
        "tests/test_constraints.py -k hold_across",
    ),
    (
        "9: an associative scan has the messages of the chain (backwards without the step to the token)",
        "energy/_markov.py",
        "backward = jnp.sum(after[1:], axis=-1) @ transition.T",
        "backward = jnp.sum(after[1:], axis=-1)",
        "tests/test_markov.py -k associative",
    ),
    (
        "9: a pattern from left to right looks at what may follow the token (at what may follow before it)",
        "sampling/_blockwise.py",
        "pattern[1][number + 1, dfa.next[pattern[0]]]",
        "pattern[1][number, dfa.next[pattern[0]]]",
        "tests/test_blocks.py -k kept_from_left",
    ),
    (
        "9: a data set under a constraint has its restricted law (its tokens are drawn apart)",
        "energy/_empirical.py",
        "some = jnp.max(scores) > LOG_ZERO / 2",
        "some = jnp.zeros((), bool)",
        "tests/test_constraints.py -k from_its_restricted_law",
    ),
    (
        "9: a token's confidence is that of the others (its own evidence counts)",
        "sampling/_motion.py",
        "log_q = jax.nn.log_softmax(logits - plain, axis=-1)",
        "log_q = log_p",
        "tests/test_generate.py -k loop_of_draws",
    ),
    (
        "a shift is paid for by the chain rule",
        "sampling/_align.py",
        "return -jnp.sum(reader.in_order(likeliest) + typed, where=here)",
        "return -jnp.sum(reader.in_order(likeliest), where=here)",
        "tests/test_generate.py -k shift_is_paid",
    ),
    (
        "no command replaces what it reads",
        "_cli/_out.py",
        "os.path.exists(str(name)) and path.samefile(str(name)) for name in reads",
        "os.path.exists(str(name)) and not path.samefile(str(name)) for name in reads",
        "tests/test_bad_inputs.py -k replaces",
    ),
    (
        "2: a deep energy is the sum of its layers (the memories are left out of the stream)",
        "energy/_deep.py",
        "stream = stream + delta",
        'stream = stream + (0.0 if kind == "memory" and n == 1 else 1.0) * delta',
        "tests/test_deep.py -k chain_of_blocks",
    ),
    (
        "2: nothing is read of what is behind a block (of what is before)",
        "energy/_deep.py",
        "allowed = allowed & (number[None, :] <= number[:, None])",
        "allowed = allowed & (number[None, :] >= number[:, None])",
        "tests/test_blocks.py -k nothing_is_read",
    ),
    (
        "2: a token that is written next reads what is before it (one more)",
        "energy/_deep.py",
        "(there < start + length)",
        "(there < start + length + 1)",
        "tests/test_blocks.py -k what_is_kept",
    ),
    (
        "2: a shifted read-out does not read the token it is compared with (it does)",
        "energy/_deep.py",
        "allowed = allowed & ~np.eye(length, k=1, dtype=bool)",
        "allowed = allowed & ~np.eye(length, k=2, dtype=bool)",
        "tests/test_blocks.py -k does_not_read_what",
    ),
    (
        "2: a shifted read-out is of the token before (of the token itself)",
        "energy/_free_energy.py",
        "added, kept = stack.extend(g, kept, count - 1)",
        "added, kept = stack.extend(0.0 * g, kept, count - 1)",
        "tests/test_blocks.py -k next_token_is_at_rest",
    ),
    (
        "2: several tokens are read in one pass as one by one (from their own place)",
        "energy/_layers.py",
        "one = lambda i: jax.lax.dynamic_slice_in_dim(every, first - i, count, axis=1)",
        "one = lambda i: jax.lax.dynamic_slice_in_dim(every, first, count, axis=1)",
        "tests/test_draft.py -k read_in_one_pass",
    ),
    (
        "9: a draft changes nothing but the passes (a wrong guess stands)",
        "sampling/_draft.py",
        "last = jnp.argmin(",
        "last = 1 + jnp.argmin(",
        "tests/test_draft.py -k without_a_draft",
    ),
    (
        "9: a context is the longest end of a text (the empty one where none goes on)",
        "sampling/_draft.py",
        "np.where(child[number] >= 0, child[number], after[end[number]])",
        "np.where(child[number] >= 0, child[number], 0)",
        "tests/test_draft.py -k longest_end",
    ),
    (
        "6: a window that is cut hides all behind the line (and not the other grids)",
        "learn/_cross_entropy.py",
        "return (rows * jnp.sin(angle) + columns * jnp.cos(angle) >= 0) | (grid != grid[place])",
        "return rows * jnp.sin(angle) + columns * jnp.cos(angle) >= 0",
        "tests/test_pictures.py -k cut_by_a_line",
    ),
    (
        "3: in blocks of one the likelihood is the chain rule (in blocks of two)",
        "energy/_free_energy.py",
        "stack.side_by_side(g, 1).added",
        "stack.side_by_side(g, 2).added",
        "tests/test_blocks.py -k likelihood_is_the_chain_rule",
    ),
    (
        "3: over HTTP every passage of a batch is shown its own row (the first)",
        "serve/_lines.py",
        "{name: each[n] for name",
        "{name: each[0] for name",
        "tests/test_serve.py -k lines_that",
    ),
    (
        "3: over HTTP a passage joins those that are being written (waits until they have ended)",
        "serve/_engine.py",
        "room = max(size for",
        "room = min(size for",
        "tests/test_serve.py -k joins_those",
    ),
    (
        "3: what comes behind a passage of another shape waits for it (overtakes it)",
        "serve/_engine.py",
        "elif isinstance(task, Passage) and any(",
        "elif isinstance(task, Call) and any(",
        "tests/test_serve.py -k joins_those",
    ),
    (
        "3: a passage that joins takes a row that is free (the first)",
        "serve/_lines.py",
        "put(self.batches[size], made, np.int32(n))",
        "put(self.batches[size], made, np.int32(0))",
        "tests/test_serve.py -k joins_those",
    ),
    (
        "3: the first piece of a text that is looked at is short (as long as all others)",
        "serve/_lines.py",
        "FIRST if begins else AHEAD",
        "AHEAD",
        "tests/test_serve.py -k both_kinds",
    ),
    (
        "3: over HTTP a picture is that of `generate` (y moves along)",
        "serve/_engine.py",
        'get("step", 0.0)',
        'get("stride", 0.0)',
        "tests/test_serve_images.py -k caption_becomes",
    ),
    (
        "3: each of several pictures has noise of its own (that of the first)",
        "serve/_pictures.py",
        "np.int32(self.index)",
        "np.int32(0)",
        "tests/test_serve_images.py -k caption_becomes",
    ),
    (
        "3: what is transparent is filled (what is opaque)",
        "serve/_pictures.py",
        "_plan(name, model, picture, ~opaque, caption, settings)",
        "_plan(name, model, picture, opaque, caption, settings)",
        "tests/test_serve_images.py -k hole_is_filled",
    ),
    (
        "3: a caption that was not learned is refused (whatever its letters)",
        "serve/_pictures.py",
        "if odds[place] > np.log(UNLIKELY):",
        "if odds[place] > 1e9:",
        "tests/test_serve_images.py -k wrong_is_said",
    ),
    (
        "3: a file of a form is its bytes (without what looks like an end of line)",
        "serve/_body.py",
        "base64.b64encode(content)",
        "base64.b64encode(content.strip())",
        "tests/test_serve_images.py -k form_is",
    ),
    (
        "2: over HTTP a pattern is kept within the room that is left (is looked at a token late)",
        "serve/_passage.py",
        "pattern.ahead[place + 1, after]",
        "pattern.ahead[place, after]",
        "tests/test_serve.py -k patterns_hold",
    ),
    (
        "3: over HTTP the token before is read (the token itself)",
        "serve/_passage.py",
        "line.ids[jnp.maximum(place - 1, 0)]",
        "line.ids[place]",
        "tests/test_serve.py -k both_kinds",
    ),
    (
        "3: of several answers the likeliest is returned (the least likely)",
        "serve/_answers.py",
        "key=mean, reverse=True",
        "key=mean",
        "tests/test_serve.py -k both_kinds",
    ),
    (
        "3: likelihoods under the harness are those of their tokens (of the tokens before)",
        "learn/_harness.py",
        "where.append((number, n - begin))",
        "where.append((number, n - begin - 1))",
        "tests/test_harness.py -k normalised",
    ),
    (
        "3: the bound of a block counts all its tokens (those that are asked)",
        "learn/_evaluate.py",
        "asked_in_block(jnp.ones_like(hidden), block) / asked_in_block(hidden, block)",
        "asked_in_block(hidden, block) / asked_in_block(hidden, block)",
        "tests/test_blocks.py -k knows_nothing",
    ),
    (
        "6: a mixed window is asked as its own kind (all in blocks of the first)",
        "learn/_objective.py",
        "block = lambda rows, beside=beside: (jnp.asarray(sizes[rows]),) if beside else ()",
        "block = lambda rows, beside=beside: (jnp.asarray(sizes[rows] * 0 + sizes.max()),) if beside else ()",
        "tests/test_blocks.py -k asked_as_by",
    ),
    (
        "2: no step within a grid is one from grid to grid (the caption stands too near)",
        "energy/_layout.py",
        "top += rows + height - 1",
        "top += rows",
        "tests/test_pictures.py -k steps_between_places",
    ),
    (
        "2: a convolution reaches over rows (it reads its own row alone)",
        "energy/_layout.py",
        "wide[down : down + rows, across : across + columns]",
        "wide[high : high + rows, across : across + columns]",
        "tests/test_pictures.py -k convolution_reaches",
    ),
    (
        "4: only tokens of its kind stand at a place (patches in the caption)",
        "energy/_vocabulary.py",
        "jnp.where(self.allowed, self.prior, -2.0 * CERTAIN).astype(b.dtype)",
        "jnp.where(self.allowed, self.prior, self.prior).astype(b.dtype)",
        "tests/test_pictures.py -k only_tokens_of_its_kind",
    ),
    (
        "6: known pixels are evidence (a patch half in a hole is unknown)",
        "sampling/_inpaint.py",
        "/ (2 * PRECISION**2)",
        "* 0",
        "tests/test_pictures.py -k known_pixels",
    ),
    (
        "4: unknown tokens are silent (they state the prior)",
        "energy/_vocabulary.py",
        "if self.feedback else 0.0",
        "if self.feedback else p",
        "tests/test_deep.py -k masks_are_at_rest",
    ),
    (
        "4: unknown tokens send what they believe beyond the prior (they send it too)",
        "energy/_vocabulary.py",
        "self.feedback * (p - jax.nn.softmax(self.cavity_logits(y, b), axis=-1))",
        "self.feedback * p",
        "tests/test_deep.py -k with_feedback",
    ),
    (
        "1: what unknown tokens send is a gradient (their energy has no feedback)",
        "energy/_vocabulary.py",
        "energy -= jnp.where(here[:, 0], 0.0, self.feedback * gain)",
        "energy -= jnp.where(here[:, 0], 0.0, 0.0 * gain)",
        "tests/test_deep.py -k gradient_of_a_convex",
    ),
    (
        "4: the autonomous descent follows the slope of its scalar (the noise level the wrong way)",
        "flow/_autonomous.py",
        "-self.pace * dlevel / size",
        "self.pace * dlevel / size",
        "tests/test_autonomous.py -k never_rises",
    ),
    (
        "4: the descent from neutral is the flow of as many steps (their size not looked at)",
        "flow/_autonomous.py",
        "steps=self.steps, step=self.step)",
        "steps=self.steps, step=1.0)",
        "tests/test_autonomous.py -k noise_level_is_inferred",
    ),
    (
        "8: noise is taken away exactly (DDIM steps as Euler does)",
        "flow/_exponential.py",
        "x + (-jnp.expm1(-r * h) / r if r else h) * f",
        "x + h * f",
        "tests/test_flow.py -k takes_noise_away",
    ),
    (
        "8: exponential Heun is of order two (the straight line is left out)",
        "flow/_exponential.py",
        "y1 = jax.tree.map(jnp.add, guess, change)",
        "y1 = guess",
        "tests/test_flow.py -k exponential_integrator_of_order",
    ),
    (
        "8: a jump is two jumps of half its length (their shares exchanged)",
        "learn/_distill.py",
        "return share * jnp.exp(first) + (1 - share) * jnp.exp(second)",
        "return share * jnp.exp(second) + (1 - share) * jnp.exp(first)",
        "tests/test_flow_map.py -k least_where",
    ),
    (
        "8: a jump is where the path leads (the noise is kept)",
        "flow/_exponential.py",
        "start, end)) @ codes - x",
        "start, end)) @ codes",
        "tests/test_flow_map.py -k path_leads",
    ),
    (
        "9: the price of a pattern is part of F (left out)",
        "energy/_pattern.py",
        "price = self._read(mask)(scores) + jnp.sum(alone)",
        "price = jnp.zeros_like(jnp.sum(alone))",
        "tests/test_deep.py -k gradient_of_a_convex",
    ),
    (
        "9: a flow moves on the energy of the passages that match (of all)",
        "sampling/_diffusion.py",
        "dfa.on(energy), conditioning)",
        "energy, conditioning)",
        "tests/test_constraints.py -k flow_under_a_pattern",
    ),
    (
        "9: states that the evidence makes improbable are not lost (one scale for all)",
        "energy/_dfa.py",
        "top = jax.lax.stop_gradient(jnp.full(none + 1, LOG_ZERO, b.dtype).at[moves].max(moved))",
        "top = jnp.full(none + 1, jnp.max(moved))",
        "tests/test_constraints.py -k can_still_follow",
    ),
    (
        "9: tokens of a kind are added (their largest counts)",
        "energy/_dfa.py",
        'return _log(jnp.matmul(jnp.exp(b - top[:, self.kinds]), each, precision="highest"), top)',
        "return top",
        "tests/test_constraints.py -k sum_over_its_strings",
    ),
    (
        "3: a space before a hole is left to its first token (given)",
        "sampling/_template.py",
        "if begins.sum() < 2 or",
        "if True or",
        "tests/test_tokenizers.py -k space_before",
    ),
    (
        "9: from left to right a temperature leaves evidence alone (sharpens it)",
        "sampling/_draft.py",
        "b if cold else temperature * b, LOG_ZERO",
        "b, LOG_ZERO",
        "tests/test_blocks.py -k kept_from_left",
    ),
    (
        "9: an automaton reads the places it is about (all)",
        "energy/_dfa.py",
        "return next if read is None else jnp.where(read, next,",
        "return next if read is None else jnp.where(read | True, next,",
        "tests/test_constraints.py -k sum_over_its_strings",
    ),
    (
        "9: the last state of the likeliest path leads nowhere (to the likeliest next one)",
        "energy/_viterbi.py",
        "scan(behind, end, (scores, dfa.here), reverse=True)",
        "scan(behind, moved(end), (scores, dfa.here), reverse=True)",
        "tests/test_markov.py -k most_likely_passage",
    ),
    (
        "9: a window leaves what the rest is likely to have (what is possible)",
        "sampling/_blocks.py",
        "dfa.begins(self.ahead[end])",
        "dfa.begins(np.where(self.ahead[end] > -np.inf, 0.0, -np.inf))",
        "tests/test_constraints.py -k across_windows_has",
    ),
    (
        "2: over HTTP the rounds after a descent know of the pattern (nothing)",
        "serve/_passage.py",
        "return energy.sample(y, b, tilt=tilt, dfa=page.dfa, key=key).astype(jnp.int32)",
        "return energy.sample(y, b, tilt=tilt, dfa=None, key=key).astype(jnp.int32)",
        "tests/test_serve.py -k part_of_the_energy",
    ),
    (
        "3: an echo has the likelihood of each token of the prompt (of the one before it)",
        "serve/_inside.py",
        "found = [(short(float(log_p[n])), likely(n)) for n in range(size)]",
        "found = [(short(float(log_p[n - 1])), likely(n)) for n in range(size)]",
        "tests/test_serve.py -k an_echo_has",
    ),
    (
        "9: over HTTP a character begins where its first byte stands (where its last does)",
        "serve/_write.py",
        "return [0, *itertools.accumulate(len(decoder.decode(token)) for token in spelt)][: len(spelt)]",
        "return [*itertools.accumulate(len(decoder.decode(token)) for token in spelt)]",
        "tests/test_serve.py -k part_of_a_character",
    ),
)


def noticed(file: str, old: str, new: str, tests: str) -> bool:
    """Whether the tests fail when `old` is replaced by `new` in a copy."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("energy_dllm", "tests", "benchmarks"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        broken = copy / "energy_dllm" / file
        text = broken.read_text()
        if text.count(old) != 1:
            raise ValueError(f"{file} has {text.count(old)} times {old!r}; expected once. Mend FAULTS.")
        broken.write_text(text.replace(old, new))
        path, _, words = tests.partition(" -k ")
        command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-x", "-p", "no:cacheprovider", path, "-k", words]
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(command, cwd=copy, env=env, capture_output=True).returncode == 1


def main() -> None:
    """Break, test, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--law", help="only the faults of laws that start so")
    options = parser.parse_args()
    unnoticed = 0
    print("| law, and how it is broken | test | noticed |\n|---|---|---|", flush=True)
    for law, *fault in FAULTS:
        if options.law and not law.startswith(options.law):
            continue
        good = noticed(*fault)
        unnoticed += not good
        print(f"| {law} | `{fault[3]}` | {'yes' if good else 'NO'} |", flush=True)
    sys.exit(unnoticed > 0)


if __name__ == "__main__":
    main()
