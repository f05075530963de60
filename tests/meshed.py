"""Trainings on eight devices of one processor, as a program of its own: `python meshed.py RESULT.json [PROCESS PORT]`.

Devices are made before JAX starts, which no test can do in its own process.
"""

import functools
import json
import sys
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import numpy as np

import energy_dllm as ed
from energy_dllm.learn._mesh import place
from energy_dllm.sampling import _motion


STEPS = 50
SIZES = dict(steps=STEPS, length=8, batch_size=16)


@functools.cache
def parts():
    """A text and an energy of one block; made after the processes have found one another."""
    corpus, (k1, k2, k3) = ed.data.grammar_corpus(characters=3000), jax.random.split(jax.random.key(0), 3)
    stack = ed.energy.DeepStack(64, depth=1, heads=2, memories=32, key=k1)
    network = ed.energy.Network(ed.energy.Silent(), {"blocks": stack}, jax.numpy.zeros(64))
    vocabulary = ed.energy.MeanFieldVocabulary(corpus.tokenizer.size, 64, key=k2)
    energy = ed.energy.FreeEnergy(network, vocabulary, kappa=1.0)
    return corpus, ed.EnergyDLLM(corpus.tokenizer, energy=energy, key=k3)


def fit(mesh=None, **settings):
    """Parameters as one vector, the fixed codes apart, and the loss of every step."""
    (corpus, model), losses = parts(), []
    log = lambda record: losses.append(record["loss"])
    trained = ed.fit(model, corpus, ed.learn.Denoising(), mesh=mesh, log=log, **SIZES, **settings)
    trained = eqx.tree_at(lambda m: m.energy.vocabulary.codes, trained, 0.0)
    leaves = jax.tree.leaves(eqx.filter(trained, eqx.is_inexact_array))
    return np.concatenate([np.asarray(leaf).ravel() for leaf in leaves]), losses


def apart(one, other):
    """Relative differences of parameters and losses, the latter of the last of them."""
    losses = np.array(other[1]) / np.array(one[1])[-len(other[1]) :] - 1 if other[1] else np.zeros(1)
    return [float(np.linalg.norm(one[0] - other[0]) / np.linalg.norm(one[0])), float(np.abs(losses).max())]


def mesh(*shape, names=("fsdp",)):
    return jax.make_mesh(shape, names, devices=jax.devices()[: int(np.prod(shape))])


def one_process() -> dict:
    plain = fit()
    found: dict = {"plain": plain[0].tolist(), "losses": plain[1]}
    found["apart"] = {"2 x 2 x 2": apart(plain, fit(mesh(2, 2, 2, names=("data", "fsdp", "model"))))}
    folder = Path(tempfile.mkdtemp())
    fit(mesh(8), directory=folder, until=20)
    fit(mesh(4), directory=folder, until=40)
    found["apart"]["8, 4 and one device in turn"] = apart(plain, fit(directory=folder))
    found["steps"] = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    other = Path(tempfile.mkdtemp())
    half = fit(directory=other, until=40)
    found["apart"]["one device, then 8"] = apart(plain, fit(mesh(8), directory=other))
    read = ed.load(folder)  # the last sharded checkpoint, of step 40
    read = jax.tree.leaves(
        eqx.filter(eqx.tree_at(lambda m: m.energy.vocabulary.codes, read, 0.0), eqx.is_inexact_array)
    )
    found["apart"]["read"] = apart(half, (np.concatenate([np.asarray(leaf).ravel() for leaf in read]), []))
    found["six"] = fit(until=6)[0].tolist()
    found["bytes"] = [bytes_of(None), bytes_of(mesh(8))]
    samplers = {"descent": ed.sampling.descent(4), "left to right": ed.sampling.Blocks(size=1)}
    found["written"] = {name: written(sampler) for name, sampler in samplers.items()}
    return found


def written(sampler) -> dict:
    """Passages of one device and of eight, and on how many devices the latter lay."""
    model, devices, move = parts()[1], [], _motion._move

    def seen(*given):
        made, state = move(*given)
        devices.append(len(state[0].sharding.device_set))
        return made, state

    write = functools.partial(ed.generate, model, length=12, prompt="the", samples=8, sampler=sampler, frames=2)
    alone, _motion._move = write(), seen
    both = write(mesh=mesh(2, 4, names=("data", "fsdp")))
    _motion._move = move
    return {"alone": alone.texts, "together": both.texts, "devices": devices}


def bytes_of(mesh) -> int:
    """What the first device holds of parameters, average and optimizer of a model of the default size."""
    model = ed.EnergyDLLM(parts()[0].tokenizer, dim=128, key=jax.random.key(0))
    parameters = eqx.filter(model, eqx.is_inexact_array)
    state = (parameters, parameters, ed.learn.default_optimizer(1e-2, STEPS).init(parameters))
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(place(state, mesh)))


def two_processes(number: int, port: str) -> dict:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=number)
    everywhere = jax.make_mesh((2, 4), ("data", "fsdp"))
    folder = Path(sys.argv[1]).with_name("both")
    fit(everywhere, directory=folder, until=3)
    parameters, losses = fit(everywhere, directory=folder, until=6)
    return {"parameters": parameters.tolist(), "losses": losses, "devices": jax.device_count()}


if __name__ == "__main__":
    found = one_process() if len(sys.argv) == 2 else None
    if found is None:
        found = two_processes(int(sys.argv[2]), sys.argv[3])
    Path(sys.argv[1]).write_text(json.dumps(found))
