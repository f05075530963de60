"""Training on meshes of devices: the parameters of one device, its checkpoints on any number of them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import energy_dllm as ed


def program(devices: int, folder: Path, *words: str) -> subprocess.Popen:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    env = os.environ | {
        "XLA_FLAGS": flags,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen([sys.executable, "-W", "error", Path(__file__).with_name("meshed.py"), *words], env=env)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scale")


@pytest.fixture(scope="module")
def meshed(folder) -> dict[str, Any]:
    """What one process with eight devices found."""
    assert program(8, folder, str(folder / "one.json")).wait() == 0
    return json.loads((folder / "one.json").read_text())


@pytest.mark.timeout(900)  # of which the compiler needs most, on a machine that is busy
def test_a_mesh_gives_the_parameters_and_losses_of_one_device(meshed):
    assert len(meshed["apart"]) == 4
    for name, (parameters, losses) in meshed["apart"].items():
        assert parameters < 1e-6 and losses < 1e-5, name
    assert meshed["steps"] == list(range(1, 51))


def test_parts_of_a_batch_add_up_to_its_gradient():
    """Of a loss without draws, a mean over windows."""
    corpus, seen = ed.data.grammar_corpus(characters=3000), []
    vocabulary = ed.energy.HMMVocabulary(corpus.tokenizer.size, 8, states=4, key=jax.random.key(0))
    network = ed.energy.Network(
        ed.energy.Silent(), {"pair": ed.energy.Pairwise(8, key=jax.random.key(1))}, jax.numpy.ones(8)
    )
    energy = ed.energy.FreeEnergy(network, vocabulary, kappa=1.0)
    model = ed.EnergyDLLM(corpus.tokenizer, energy=energy, key=jax.random.key(2))
    for parts in (1, 4):
        sizes: Any = dict(steps=3, length=8, batch_size=8, accumulate=parts)
        ed.fit(model, corpus, ed.learn.MaximumLikelihood(), **sizes, log=seen.append)
    for one, other in zip(seen[:3], seen[3:], strict=True):
        np.testing.assert_allclose(
            [one[k] for k in ("loss", "gradient_norm")], [other[k] for k in ("loss", "gradient_norm")]
        )


def test_a_device_of_eight_holds_a_quarter_at_most(meshed):
    whole, shard = meshed["bytes"]
    assert shard <= 0.25 * whole


def test_passages_are_split_over_devices_and_the_same(meshed):
    for name, found in meshed["written"].items():
        assert found["devices"] == [8], name
        assert found["together"] == found["alone"] and len(set(found["alone"])) > 1, name


@pytest.mark.timeout(900)
def test_two_processes_give_the_parameters_of_one(meshed, folder):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    running = [program(4, folder, str(folder / f"{n}.json"), str(n), port) for n in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    found = [json.loads((folder / f"{n}.json").read_text()) for n in range(2)]
    assert found[0]["devices"] == 8 and found[0]["parameters"] == found[1]["parameters"]
    one, both = np.array(meshed["six"]), np.array(found[0]["parameters"])
    assert np.linalg.norm(one - both) < 1e-6 * np.linalg.norm(one)
    np.testing.assert_allclose(found[0]["losses"], meshed["losses"][3:6], rtol=1e-5)


def test_bad_meshes_are_refused(tmp_path, monkeypatch):
    corpus = ed.data.grammar_corpus(characters=3000)
    twin, sizes = ed.learn.MaskedDiffusion(corpus.tokenizer.size, dim=8, heads=2, key=jax.random.key(0)), dict(steps=1)
    fit = lambda **settings: ed.fit(twin, corpus, twin.objective, **{**sizes, "batch_size": 4, **settings})
    with pytest.raises(ValueError, match="`mesh` has an axis 'rows'; expected `data`, `fsdp` or `model`"):
        fit(mesh=jax.make_mesh((1,), ("rows",)))
    with pytest.raises(ValueError, match="`batch_size` is 4 windows for 3 parts"):
        fit(accumulate=3)
    model = ed.EnergyDLLM(corpus.tokenizer, dim=8, key=jax.random.key(0))
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1] * 2), ("data",))
    with pytest.raises(ValueError, match="`samples` is 3 and `mesh` has 2 devices; expected a multiple"):
        ed.generate(model, samples=3, mesh=mesh)
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(
        ImportError, match=r"need orbax, which is optional: pip install '\.\[distributed\]' in a checkout"
    ):
        fit(mesh=jax.make_mesh((1,), ("data",)), directory=tmp_path)
