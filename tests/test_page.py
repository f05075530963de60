"""The page: one file, opened in a real browser."""

import re
import shutil
import subprocess

import jax
import jax.numpy as jnp
import pytest

import energy_dllm as ed


FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --virtual-time-budget=2000"
).split()
# Run inside the page, after its own script: what a reader would do, and what came of it.
DRIVE = """<script>
const out=document.createElement('pre');out.id='seen';const T=document.getElementById('time');
const read=()=>document.getElementById('text').textContent+'|'+document.getElementById('clock').textContent;
const a=read();T.value=0;T.dispatchEvent(new Event('input'));const b=read();
const w=document.getElementById('why').textContent;
document.querySelector('#text span:nth-child(4)').dispatchEvent(new MouseEvent('mouseenter'));
const v=document.getElementById('why').textContent;
out.textContent=[a!=b,w!=v&&v.startsWith('token 3 in '),errors.length,errors.join()].join(' ');
document.body.append(out);
</script></html>"""
CATCH = "<script>window.errors=[];window.onerror=m=>{errors.push(m)};console.error=m=>errors.push(m)</script><style>"


@pytest.fixture(scope="module")
def model():
    """One synapse: a page is compiled for most of its time."""
    tokenizer, dim = ed.data.Characters("abcdefgh <>"), 8
    k1, k2 = jax.random.split(jax.random.key(0))
    synapses = {"attention": ed.energy.Attention(dim, heads=2, head_dim=4, key=k1)}
    network = ed.energy.Network(ed.energy.LayerNorm(epsilon=16.0), synapses, jnp.zeros(dim))
    energy = ed.energy.FreeEnergy(network, ed.energy.Vocabulary(tokenizer.size, dim, key=k2), kappa=1.0)
    return ed.EnergyDLLM(tokenizer, steps=4, energy=energy, key=k1)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed (apt install chromium)")
def test_slider_moves_the_text_and_hover_explains_it(model, tmp_path):
    file = ed.probe.page(model, tmp_path / "look.html", prompt="a<", length=8, steps=4)
    text = file.read_text()
    assert len(text) < 3e6 and not re.search(r"(src|href)=.https?:", text)
    driven = tmp_path / "driven.html"
    driven.write_text(text.replace("<style>", CATCH, 1).replace("</html>", DRIVE))
    run = ["chromium", *FLAGS, f"--user-data-dir={tmp_path / 'user'}", "--dump-dom", driven.as_uri()]
    dom = subprocess.run(run, capture_output=True, text=True, timeout=120).stdout
    seen = re.search('<pre id="seen">(.*?)</pre>', dom)
    assert seen and seen[1].strip() == "true true 0", dom[-2000:]


def test_bad_input_is_one_sentence(model, tmp_path):
    with pytest.raises(ValueError, match="`length` is 0"):
        ed.probe.page(model, tmp_path / "x.html", length=0)
    with pytest.raises(ValueError, match="is a folder"):
        ed.probe.page(model, tmp_path)
    with pytest.raises(ValueError, match="make `length` larger"):
        ed.probe.page(model, tmp_path / "x.html", prompt="abcd", length=3)
