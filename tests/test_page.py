"""The page: one file, opened in a real browser."""

import json
import re
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energy_dllm as ed
from energy_dllm.probe import _page


FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --virtual-time-budget=2000"
).split()
# Run inside the page, after its own script: what a reader would do, and what came of it.
DRIVE = """<script>
const out=document.createElement('pre');out.id='seen';const T=document.getElementById('time');
const read=()=>document.getElementById('text').textContent+'|'+document.getElementById('clock').textContent;
const P=document.querySelector('#pages input');P.value=1;P.onchange();
const a=read();T.value=0;T.dispatchEvent(new Event('input'));const b=read();
const w=document.getElementById('why').textContent;
document.querySelector('#text span:nth-child(4)').dispatchEvent(new MouseEvent('mouseenter'));
const v=document.getElementById('why').textContent;
P.value=2;P.onchange();
const c=document.querySelector('#text span').dataset.i+document.getElementById('why').textContent;
out.textContent=[a!=b,w!=v&&v.startsWith('token 3 '),c.startsWith('6token 6 '),errors.length,errors.join()].join(' ');
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


@pytest.fixture(scope="module")
def look(model, tmp_path_factory):
    """A passage longer than a window: three pages."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("WINDOW", 6), ("CONTEXT", 2), ("DETAIL", 8), ("NUMBERS", 36)):
            patch.setattr(_page, name, value)
        return ed.probe.page(
            model, tmp_path_factory.mktemp("page") / "look.html", prompt="a<bcdefgh", length=12, steps=4
        )


def test_a_long_passage_is_made_in_windows(look, model):
    """Pages follow one another, what is given stays, and everything is there once for each token."""
    found = re.search(r'application/json">(.*?)</script>', look.read_text(), re.DOTALL)
    assert found
    data = json.loads(found[1])
    assert data["pages"] == [0, 6, 10] and data["moments"] == 5 and len(data["s"]) == 3
    assert data["tokens"][-1][:9] == model.encode("a<bcdefgh").tolist() and data["known"] == 9
    assert {len(row) for name in ("tokens", "confidence", "energy") for row in data[name]} == {12}
    assert [len(row) for row in data["why"]["parts"]["attention"]] == [12]
    whom, share = map(np.array, data["attended"]["attention"])
    # of its window each token hears four others, the strongest first; the last one holds the last six tokens
    assert whom.shape == share.shape == (12, 4) and (np.diff(share) <= 0).all()
    assert (whom != np.arange(12)[:, None]).all() and whom[:6].max() < 6 and whom[10:].min() >= 6
    energy, terms = np.sum(data["energy"], axis=1), np.sum([term for term in data["terms"].values()], axis=0)
    assert np.allclose(energy, terms, rtol=1e-2)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed (apt install chromium)")
def test_slider_moves_the_text_and_hover_explains_it(look, tmp_path):
    text = look.read_text()
    assert len(text) < 3e6 and not re.search(r"(src|href)=.https?:", text)
    driven = tmp_path / "driven.html"
    driven.write_text(text.replace("<style>", CATCH, 1).replace("</html>", DRIVE))
    run = ["chromium", *FLAGS, f"--user-data-dir={tmp_path / 'user'}", "--dump-dom", driven.as_uri()]
    dom = subprocess.run(run, capture_output=True, text=True, timeout=120).stdout
    seen = re.search('<pre id="seen">(.*?)</pre>', dom)
    assert seen and seen[1].strip() == "true true true 0", dom[-2000:]


def test_bad_input_is_one_sentence(model, tmp_path):
    with pytest.raises(ValueError, match="`length` is 0"):
        ed.probe.page(model, tmp_path / "x.html", length=0)
    with pytest.raises(ValueError, match="is a folder"):
        ed.probe.page(model, tmp_path)
    with pytest.raises(ValueError, match="make `length` larger"):
        ed.probe.page(model, tmp_path / "x.html", prompt="abcd", length=3)
