"""Pictures: patches and captions as tokens, layouts of grids in the energy, and the pixels that come back."""

import dataclasses
import functools
import gzip
import json
import struct
import sys
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energy_dllm as ed
from energy_dllm._cli import main
from energy_dllm._cli._sampler import Sampler
from energy_dllm.energy._layout import near, relations, steps
from energy_dllm.flow import FORBIDDEN
from energy_dllm.learn._cross_entropy import _places


GRIDS = ((1, 3), (2, 4))
L, D = 11, 16


def drawings(count=12, shape=(4, 8), kinds=5, seed=0):
    """Pictures of few kinds of patches of 2 x 2 pixels."""
    draw = np.random.default_rng(seed)
    patches = draw.integers(0, 256, (kinds, 2, 2), np.uint8)
    chosen = patches[draw.integers(0, kinds, (count, shape[0] // 2, shape[1] // 2))]
    return chosen.transpose(0, 1, 3, 2, 4).reshape(count, *shape)


@pytest.fixture(scope="module")
def tokenizer():
    return ed.data.Patches.from_pictures(drawings(), patch=2, captions=["one", "two", "no"])


@pytest.fixture(scope="module")
def model(tokenizer):
    schedule = ed.flow.LogLinear(sigma_max=4.0, sigma_min=0.1)
    return ed.EnergyDLLM(tokenizer, dim=D, reach=1, schedule=schedule, key=jax.random.key(0))


# --------------------------------------------------------------------------------------------------- pictures to ids


def test_few_patches_come_back_exactly(tokenizer):
    pictures = drawings()
    ids = tokenizer.join(["two", "no"], pictures[:2])
    assert ids.dtype == np.int32 and ids.shape == (2, tokenizer.places) == (2, L) and tokenizer.grids == GRIDS
    assert [tokenizer.decode(row) for row in ids] == ["two", "no"] and ids[1, 2] == tokenizer.encode(" ")[0]
    for row, picture in zip(ids, pictures, strict=False):
        assert np.array_equal(tokenizer.picture(row), picture)
    again = ed.data.Patches(**json.loads(json.dumps(dataclasses.asdict(tokenizer)), object_pairs_hook=_tuples))
    assert again == tokenizer and hash(again) == hash(tokenizer)
    assert tokenizer.size == len(tokenizer.symbols) == len(set(tokenizer.symbols)) == len(" enotw") + 5


def _tuples(pairs):
    return {name: tuple(value) if isinstance(value, list) else value for name, value in pairs}


def test_colours_come_back():
    pictures = np.random.default_rng(1).integers(0, 2, (3, 4, 4, 3), np.uint8) * 200
    tokenizer = ed.data.Patches.from_pictures(pictures, patch=2)
    assert tokenizer.channels == 3 and tokenizer.codes.shape == (tokenizer.size, 12) and tokenizer.grids == ((2, 2),)
    assert np.array_equal(tokenizer.picture(tokenizer.join([""], pictures[:1])[0]), pictures[0])


def test_many_patches_become_the_nearest_of_a_codebook():
    pictures = np.random.default_rng(2).integers(0, 256, (40, 4, 4), np.uint8)
    error = []
    for size in (4, 64):
        tokenizer = ed.data.Patches.from_pictures(pictures, patch=2, size=size)
        ids = tokenizer.quantise(pictures)
        patches = tokenizer.cut(pictures).reshape(-1, 4).astype(float)
        away = ((patches[:, None] - 255 * tokenizer.codes.astype(float)) ** 2).sum(-1)
        assert len(tokenizer.codebook) == size and np.array_equal(away.argmin(1), ids.ravel())
        error.append(away.min(1).mean())
    # k-means leaves 0.74 of the variance with 4 centres, and a fifth of that with 64
    assert error[0] < 0.8 * 4 * 255**2 / 12 and error[1] < 0.25 * error[0]


def test_codes_are_pixels_and_kinds_keep_their_places(tokenizer):
    letters = len(tokenizer.letters)
    pixels = np.array([list(bytes.fromhex(each)) for each in tokenizer.codebook]) / 255
    assert np.allclose(tokenizer.codes[letters:, :4], pixels) and not tokenizer.codes[letters:, 4:].any()
    assert np.array_equal(tokenizer.codes[:letters, :letters], np.eye(letters))
    assert np.array_equal(tokenizer.allowed[:3], np.tile(np.arange(tokenizer.size) < letters, (3, 1)))
    assert np.array_equal(tokenizer.allowed[3:], np.tile(np.arange(tokenizer.size) >= letters, (8, 1)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: ed.data.Patches((5, 8), 2, t.codebook), r"`shape` is \(5, 8\) and `patch` 2"),
        (lambda t: ed.data.Patches((4, 8), 2, ("00",)), "`codebook` needs patches of 4 bytes"),
        (lambda t: ed.data.Patches((4, 8), 2, ("0000zz00",)), "not hexadecimal"),
        (lambda t: ed.data.Patches((4, 8), 2, ("00" * 4, "00" * 12)), "in colour beside grey"),
        (lambda t: ed.data.Patches((4, 8), 2, t.codebook, "ab", 2), "without the space"),
        (lambda t: ed.data.Patches.from_pictures(drawings(), patch=3), "`patch` is 3; expected a divisor"),
        (lambda t: ed.data.Patches.from_pictures(drawings() / 255.0), "`pictures` is float64"),
        (lambda t: ed.data.Patches.from_pictures(drawings()[:0]), "`pictures` is empty"),
        (lambda t: t.encode("seven"), "holds 's', which is in no caption"),
        (lambda t: t.fill("twoo"), "has 4 letters; expected at most 3"),
        (lambda t: t.quantise(drawings(shape=(4, 6))), r"`pictures` are \(4, 6, 1\)"),
        (lambda t: t.picture(np.zeros(L, int)), "has no picture of 2 x 4"),
        (lambda t: ed.data.picture_corpus("x", drawings(), ["one"]), "`captions` are 1 for 12 pictures"),
        (lambda t: ed.data.picture_corpus("x", drawings(), validation=1.0), "`validation` is 1.0 of 12"),
    ],
)
def test_what_does_not_fit_is_named(tokenizer, make, message, unchecked):
    with pytest.raises(ValueError, match=message):
        make(tokenizer)


# -------------------------------------------------------------------------------------------------------- corpora


def packed(array):
    return gzip.compress(
        b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    )


def test_mnist_is_read_and_what_is_damaged_is_named(tmp_path):
    draw = np.random.default_rng(0)
    for name in ("train", "t10k"):
        images, labels = draw.integers(0, 256, (40, 28, 28), np.uint8), draw.integers(0, 10, 40).astype(np.uint8)
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(packed(images))
        (tmp_path / f"{name}-labels-idx1-ubyte.gz").write_bytes(packed(labels))
    corpus = ed.data.read_mnist(tmp_path, patch=14, size=8)
    tokenizer: Any = corpus.tokenizer
    assert tokenizer.grids == ((1, 5), (2, 2)) and [len(part) for part in (corpus.train, corpus.test)] == [
        38 * 9,
        40 * 9,
    ]
    words = [tokenizer.decode(row) for row in corpus.test.reshape(-1, 9)]
    assert words == ["zero one two three four five six seven eight nine".split()[label] for label in labels]
    np.savez(tmp_path / "train_10k.npz", images=images[:20], labels=labels[:20])
    assert len(ed.data.read_mnist(tmp_path, tokenizer=tokenizer).train) == 19 * 9
    whole = (tmp_path / "t10k-images-idx3-ubyte.gz").read_bytes()
    for content in (whole[:100], b"none", packed(images)[:-40], gzip.compress(b"\0\0\x0d\1\0\0\0\1\0")):
        (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(content)
        with pytest.raises(ValueError, match="damaged t10k-images-idx3-ubyte.gz"):
            ed.data.read_mnist(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(packed(images[:7]))
    with pytest.raises(ValueError, match="7 test pictures with labels"):
        ed.data.read_mnist(tmp_path)
    (tmp_path / "train_10k.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="damaged train_10k.npz"):
        ed.data.read_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    (tmp_path / "train_10k.npz").unlink()
    with pytest.raises(FileNotFoundError, match="no t10k-labels-idx1-ubyte.gz"):
        ed.data.read_mnist(tmp_path)


def test_folders_of_pictures_are_read_and_bad_files_are_named(tmp_path):
    pytest.importorskip("PIL")
    for n, picture in enumerate(drawings(8)):
        (tmp_path / "ab"[n % 2]).mkdir(exist_ok=True)
        ed.data.write_picture(tmp_path / "ab"[n % 2] / f"{n}.png", picture)
    corpus = ed.data.read_pictures(tmp_path, patch=2, validation=0.0)
    tokenizer: Any = corpus.tokenizer
    found = {(tokenizer.decode(row), tokenizer.picture(row).tobytes()) for row in corpus.train.reshape(8, -1)}
    assert found == {("ab"[n % 2], picture.tobytes()) for n, picture in enumerate(drawings(8))}
    ed.data.write_picture(tmp_path / "b" / "9.png", drawings(1, (8, 8))[0])
    with pytest.raises(ValueError, match=r"9\.png of \(8, 8\) pixels beside 0\.png of \(4, 8\)"):
        ed.data.read_pictures(tmp_path, patch=2)
    tokenizer = ed.data.read_pictures(tmp_path, shape=(4, 4), colour=True, patch=2).tokenizer
    assert tokenizer.channels == 3
    (tmp_path / "b" / "9.png").write_bytes((tmp_path / "b" / "1.png").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"9\.png' cannot be read as a picture"):
        ed.data.read_pictures(tmp_path, patch=2)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="no file that ends in"):
        ed.data.read_pictures(tmp_path / "none")


def test_pixels_are_those_that_are_seen(tmp_path, unchecked):
    image = pytest.importorskip("PIL.Image")
    wide = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    image.fromarray(wide).save(tmp_path / "wide.png")
    assert np.array_equal(ed.data.read_picture(tmp_path / "wide.png"), wide >> 8)
    assert ed.data.read_picture(tmp_path / "wide.png", colour=True, alpha=True).shape == (3, 4, 4)
    # what can be seen through is white, whatever colour is hidden there
    ink = np.zeros((2, 3, 4), np.uint8)
    ink[0, :, 3] = 255, 51, 0
    ed.data.write_picture(tmp_path / "ink.png", ink)
    assert ed.data.read_picture(tmp_path / "ink.png").tolist() == [[0, 204, 255], [255, 255, 255]]
    exif = image.Exif()
    exif[0x0112] = 6  # the camera was turned to its right
    image.fromarray((wide >> 8).astype(np.uint8)).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(ed.data.read_picture(tmp_path / "turned.png"), np.rot90(wide >> 8, -1))
    for fault in (np.zeros((2, 2)), np.zeros((2, 2, 5), np.uint8)):
        with pytest.raises(ValueError, match=r"`picture` has shape .*; expected \(rows, columns\)"):
            ed.data.write_picture(tmp_path / "fault.png", fault)


def test_whole_windows_are_pictures():
    ids = np.arange(60)
    windows = ed.data.Windows(ids, length=6, batch=200, seed=3, whole=True)
    batch = next(windows)
    assert set(batch[:, 0]) == set(range(0, 60, 6)) and (np.diff(batch, axis=1) == 1).all()


# --------------------------------------------------------------------------------------------------------- layouts


def test_steps_between_places():
    ahead = steps(GRIDS)
    assert ahead[3, 8].tolist() == [1, 1] and ahead[10, 7].tolist() == [0, -3] and ahead[0, 2].tolist() == [0, 2]
    number, distance = relations(GRIDS, 64)
    same = [(3, 8), (4, 9), (5, 10)]
    assert len({number[pair] for pair in same}) == 1 and distance[number[3, 8]] == 2
    # no pair of a letter and a patch is alike to one within a grid, and none has a distance
    grid = np.repeat([0, 1], [3, 8])
    within, between = (set(number[(grid[:, None] == grid) == kind]) for kind in (True, False))
    assert not within & between and not distance[list(between)].any()
    assert relations(((1, 6),), 2)[0][3].tolist() == [0, 0, 1, 2, 3, 4]  # text, as before: clip(j - i, -2, 2) + 2


def test_a_row_of_grid_is_text(getkey):
    text = ed.energy.DeepStack(D, depth=2, heads=2, memories=5, convolution=1, reach=L, key=jax.random.key(0))
    row = ed.energy.DeepStack(
        D, depth=2, heads=2, memories=5, convolution=1, reach=L, grids=((1, L),), key=jax.random.key(0)
    )
    row = eqx.tree_at(lambda s: s.background, row, jnp.tile(text.background, (L, 1)))
    g = getkey.normal((L, D))
    for name, part in text.parts(g).items():
        np.testing.assert_allclose(part, row.parts(g)[name], atol=1e-12)


def test_convolution_reaches_over_rows_and_not_into_the_caption(getkey):
    stack = ed.energy.DeepStack(D, depth=1, heads=2, memories=3, convolution=1, grids=GRIDS, key=getkey())
    layer: Any = stack.blocks[0]["convolution"]
    z = getkey.normal((L, D // 2))
    allowed = np.ones((L, L), bool)
    allowed[4, 5] = allowed[7, 3] = False
    offset = near(GRIDS, 1)[0]
    ahead, grid = steps(GRIDS), np.repeat([0, 1], [3, 8])
    expected = np.zeros((L, D // 2))
    for i in range(L):
        for j in range(L):
            down, across = ahead[i, j]
            if grid[i] == grid[j] and abs(down) <= 1 and abs(across) <= 1:
                assert offset[i, j] == 3 * (down + 1) + across + 1
                expected[i] += allowed[i, j] * np.asarray(layer.kernel[offset[i, j]] * z[j])
            else:
                assert offset[i, j] == -1
    np.testing.assert_allclose(layer.read(z, jnp.asarray(allowed)), expected, atol=1e-12)


def landscape(key, tokenizer, scale=1.0):
    """The energy of pictures, with patterns so large that messages are."""
    energy = ed.EnergyDLLM(tokenizer, dim=D, reach=1, key=key).energy
    patterns = scale * jax.random.normal(jax.random.fold_in(key, 1), energy.vocabulary.patterns.shape)
    prior = jnp.linspace(-1.0, 1.0, tokenizer.size)
    return eqx.tree_at(lambda e: (e.vocabulary.patterns, e.vocabulary.prior), energy, (patterns, prior))


def some_evidence(key, tokenizer):
    """Noisy, known and masked tokens side by side."""
    ids = jnp.asarray(tokenizer.join(["two"], drawings()[:1])[0])
    codes = jnp.asarray(tokenizer.codes, float)
    x = codes[ids] + 0.4 * jax.random.normal(key, (L, codes.shape[1]))
    noisy = ed.flow.Gaussian(x, 0.4).field(codes)
    known = ed.flow.Given(ids).field(codes)
    kind = (jnp.arange(L) % 3)[:, None]
    return jnp.where(kind == 0, noisy, jnp.where(kind == 1, known, 0.0))


def test_force_is_the_slope_of_f_in_two_dimensions(getkey, tokenizer):
    energy, b = landscape(getkey(), tokenizer), some_evidence(getkey(), tokenizer)
    y = getkey.normal((L, D))
    g, u = energy.activation(y, b), getkey.normal((L, D))
    slope = (energy.terms(y, b, g=g + 1e-5 * u), energy.terms(y, b, g=g - 1e-5 * u))
    for name, force in energy.forces(y, b).items():
        up, down = (float(each[name].sum()) for each in slope)
        np.testing.assert_allclose(-np.sum(np.asarray(force) * u), (up - down) / 2e-5, rtol=1e-5, atol=1e-7)
    stack = energy.network.synapses["blocks"]
    for name, term in stack.terms(g).items():
        np.testing.assert_allclose(jnp.sum(stack.parts(g)[name], axis=0), term, atol=1e-12)


def test_attribution_adds_up_across_caption_and_picture(getkey, tokenizer):
    energy, y = landscape(getkey(), tokenizer), getkey.normal((L, D))
    given = ed.flow.Likelihood(some_evidence(getkey(), tokenizer))
    why = ed.probe.attribution(0.0, y, ed.flow.Relaxation(energy, given))
    np.testing.assert_allclose(why.total, why.log_odds, atol=1e-10)
    for name, by_token in why.neighbours.items():
        np.testing.assert_allclose(by_token.sum(-1), why.parts[name], atol=1e-10)
    # letters speak to patches through attention, and never through the convolution of the first block alone
    read = energy.network.synapses["blocks"].blocks[0]["convolution"].sources
    z = getkey.normal((L, D // 2))
    assert not read(z, jnp.ones((L, L), bool), None, z)[3:, :3].any()
    assert all(np.abs(why.neighbours[f"attention {n}"][3:, :3]).max() > 1e-3 for n in (1, 2))


def test_only_tokens_of_its_kind_stand_at_a_place(getkey, tokenizer):
    energy, y = landscape(getkey(), tokenizer), getkey.normal((L, D))
    for b in (jnp.zeros((L, tokenizer.size)), some_evidence(getkey(), tokenizer)):
        p = energy.posterior(y, b)
        assert p[~tokenizer.allowed].max() < 1e-200 and np.allclose(p.sum(-1), 1.0)
    # what its kind is says nothing about a token: masked it stays silent
    assert not energy.vocabulary.message(y, jnp.zeros((L, tokenizer.size))).any()
    ids = jnp.asarray(tokenizer.join(["one"], drawings()[1:2])[0])
    prior = np.where(tokenizer.allowed, energy.vocabulary.prior, -np.inf)
    log_p = prior - np.log(np.exp(prior).sum(-1, keepdims=True))
    np.testing.assert_allclose(energy.vocabulary.nll(ids), -log_p[np.arange(L), ids], atol=1e-12)
    assert (energy.vocabulary.nll(ids[::-1])[:3] > 900).all()  # patches in place of letters


def test_a_layout_has_one_length(tokenizer, model, unchecked):
    with pytest.raises(ValueError, match="has 11 places"):
        model.posterior(ed.flow.Masked(12))
    with pytest.raises(ValueError, match="1 x 3 and 2 x 4, has 11"):
        model.energy.network.synapses["blocks"](jnp.zeros((7, D)))
    with pytest.raises(ValueError, match="`rotary` is True with `grids`"):
        ed.energy.DeepStack(D, rotary=True, heads=2, grids=GRIDS, key=jax.random.key(0))
    with pytest.raises(ValueError, match="`codes` is about 3 tokens and `size` is 5"):
        ed.energy.MeanFieldVocabulary(5, D, codes=jnp.eye(3), key=jax.random.key(0))


# ------------------------------------------------------------------------------------------- training, files, use


def test_windows_hide_a_caption_or_its_picture(tokenizer, model):
    objective = ed.learn.Denoising(gaussian=0.5, typo=0.0, prefix=1.0, known=1.0)
    ids = jnp.asarray(np.tile(tokenizer.join(["two"], drawings()[:1]), (200, 1)))
    b, asked, *_ = objective.draw(model, ids, jax.random.key(0), jnp.array(1.0))
    caption, picture = asked[:, :3], asked[:, 3:]
    assert not (caption.any(1) & picture.any(1)).any() and picture.any(1).mean() > 0.5 and caption.any(1).any()
    noisy = np.arange(200) < 100
    assert picture[noisy & picture.any(1)].all()  # wholly noisy under a known caption, partly masked without noise
    assert 0.3 < picture[~noisy & picture.any(1)].mean() < 0.8
    told = (b[:, :3] > FORBIDDEN / 2).sum(-1) == 1
    assert told[~caption.any(1)].all()


@pytest.mark.parametrize("gaussian", [0.0, 0.5])
def test_windows_are_cut_by_a_line_and_nothing_behind_it_is_seen(tokenizer, model, gaussian):
    """Of one grid a part that a line cuts off is hidden, with the place it goes through, and all of the others."""
    objective = ed.learn.Denoising(gaussian=gaussian, typo=0.0, prefix=0.0, cut=1.0, known=1.0)
    ids = jnp.asarray(np.tile(tokenizer.join(["two"], drawings()[:1]), (300, 1)))
    b, asked, *_ = objective.draw(model, ids, jax.random.key(0), jnp.array(1.0))
    asked, (grid, places) = np.asarray(asked), _places(GRIDS)
    seen = (np.asarray(b) > FORBIDDEN / 2).sum(-1) == 1
    assert (seen | asked).all() and (seen & ~asked).any()
    sides = set()
    for hidden in asked:
        whole = [hidden[grid == n].all() for n in range(2)]
        assert any(whole)
        cut = 1 if whole[0] else 0
        here, there = places[(grid == cut) & hidden], places[(grid == cut) & ~hidden]
        assert len(here)
        # some direction separates what is hidden from what is seen
        angles = np.linspace(0, 2 * np.pi, 721)
        along = np.stack([np.sin(angles), np.cos(angles)])
        apart = (here @ along).min(0) > (there @ along).max(0) - 1e-9 if len(there) else np.ones(721, bool)
        assert apart.any()
        sides.add((cut, bool(len(there)), int(np.argmax(apart)) // 180))
    assert len(sides) > 6  # both grids, every quarter of the directions


def test_a_training_knows_its_pictures_and_its_file_keeps_them(tokenizer, model, tmp_path):
    corpus = ed.data.picture_corpus("drawn", drawings(), ["one", "two"] * 6, tokenizer=tokenizer, validation=0.25)
    trained = ed.fit(model, corpus, ed.learn.Denoising(), steps=2, batch_size=4)
    assert ed.evaluate(trained, corpus.validation, windows=2, curves=False).characters == 2 * L
    path = tmp_path / "drawn.safetensors"
    ed.save(path, trained)
    again = ed.load(path)
    assert again.tokenizer == tokenizer
    for one, two in zip(jax.tree.leaves(trained), jax.tree.leaves(again), strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(two))
    ids, known = jnp.asarray(corpus.validation[:L]), jnp.arange(L) % 2 == 0
    assert np.array_equal(again.log_posterior(ids, known), trained.log_posterior(ids, known))


FIELD = functools.partial(ed.flow.AutonomousDescent, steps=1)
QUICK = ed.sampling.Diffusion(steps=6, temperature=0.0, field=FIELD)


def test_a_caption_becomes_a_picture_and_the_scalar_falls(model, tokenizer):
    made = ed.generate(model, prompt="no", samples=2, sampler=QUICK)
    assert made.texts == ["no", "no"] and made.pictures.shape == (2, 4, 8) and made.pictures.dtype == np.uint8
    assert np.array_equal(made.pictures[1], tokenizer.picture(made.ids[1]))
    assert (np.diff(made.free_energy, axis=1) < 1e-6).all()
    free = ed.generate(model, sampler=QUICK, seed=1)
    assert set(free.texts[0]) <= set(tokenizer.letters) and free.pictures.shape == (1, 4, 8)
    sampler: Any = ed.sampling.default_sampler(model)  # of the noise of the model: pixels are not letters
    fewer: Any = ed.sampling.default_sampler(model, 9)
    assert sampler.schedule is None and fewer.steps == 9 and sampler.field.keywords == {"steps": 1, "step": 1.3}
    drawn = ed.generate(model, prompt="no", sampler=fewer)
    # nine steps, and the hidden state of the draw at the end
    assert drawn.force_evaluations[0] == 10 and (np.diff(drawn.free_energy, axis=1) < 1e-6).all()
    warmer = Sampler(temperature=0.8, steps=7).build(9, model)
    assert warmer.field.keywords == {"steps": 1, "step": 1.3, "temperature": 0.8} and warmer.steps == 7


def test_known_pixels_are_kept(model, tokenizer):
    picture, hole = drawings()[2], np.zeros((4, 8), bool)
    hole[:, 3:6] = True  # two columns of patches are cut in half
    filled = ed.sampling.inpaint(model, picture, hole, caption="one", sampler=QUICK)
    assert filled.texts == ["one"] and np.array_equal(filled.pictures[0][~hole], picture[~hole])
    # a patch of which half is seen is one that looks like it there
    seen = tokenizer.picture(filled.ids[0])
    assert np.array_equal(seen[:, :3], picture[:, :3]) and np.array_equal(seen[:, 6:], picture[:, 6:])
    named = ed.sampling.inpaint(model, picture, sampler=QUICK)
    assert np.array_equal(named.pictures[0], picture) and set(named.texts[0]) <= set(tokenizer.letters)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: ed.generate(m, prompt="seven"), "`prompt` 'seven' has 5 letters"),
        (lambda m: ed.generate(m, prompt="xxx"), "`prompt` holds 'x', which is in no caption .*; expected of"),
        (lambda m: ed.generate(m, length=20), "`model` makes pictures of 11 tokens"),
        (lambda m: ed.infill(m, "one [3]"), "which have no template"),
        (lambda m: ed.repair(m, "one"), "which have no typing errors"),
        (lambda m: ed.sampling.inpaint(m, drawings()[0], caption="one"), "leaves nothing open"),
        (lambda m: ed.sampling.inpaint(m, drawings()[0], np.zeros((4, 8))), r"`hole` is float64 of shape \(4, 8\)"),
        (lambda m: ed.sampling.inpaint(m, drawings()[0] / 255.0), "`pictures` is float64"),
    ],
)
def test_what_pictures_cannot_do_is_named(model, call, message, unchecked):
    with pytest.raises(ValueError, match=message):
        call(model)


def test_command_line_draws_and_fills(model, tokenizer, tmp_path, monkeypatch, capsys, unchecked):
    pytest.importorskip("PIL")
    monkeypatch.chdir(tmp_path)
    ed.save("drawn.safetensors", model)
    assert main("generate drawn.safetensors --prompt no --samples 2 --steps 6 -o no.png".split()) == 0
    out, _ = capsys.readouterr()
    assert out.split("\n")[0] == "no" and set(out) <= set("no ▄▀█\n")
    assert ed.data.read_picture("no.png").shape == (4, 16)
    ed.data.write_picture("one.png", drawings()[3])
    ed.data.write_picture("hole.png", np.repeat([[0] * 4 + [255] * 4], 4, axis=0).astype(np.uint8))
    words = "infill one.png drawn.safetensors --hole hole.png --prompt one --steps 6 --json -o filled.png".split()
    assert main(words) == 0
    record = json.loads(capsys.readouterr()[0])
    assert record["text"] == ["one"] and np.array_equal(ed.data.read_picture("filled.png"), record["pictures"][0])
    assert np.array_equal(np.array(record["pictures"][0])[:, :4], drawings()[3][:, :4])
    for wrong, reason in (
        ("infill one.png drawn.safetensors --stop .", "`--stop` is of text"),
        ("infill none.png drawn.safetensors", "is not a file; expected a PNG"),
        ("infill [3] --hole hole.png", "`--hole` and `--prompt` are of pictures"),
    ):
        assert main(wrong.split()) == 2
        assert reason in capsys.readouterr()[1]


def test_a_picture_is_looked_at_as_long_as_it_is(model, tmp_path, capsys):
    ed.save(tmp_path / "pictures.safetensors", model)
    assert ed.probe.page(model, tmp_path / "page.html", steps=2).is_file()
    made, circuit = str(tmp_path / "pictures.safetensors"), str(tmp_path / "memory.cir")
    assert main(["inspect", made, "-o", str(tmp_path / "page.html"), "--steps", "2"]) == 0
    assert main(["export", made, "-o", circuit]) == 2
    assert f"pictures of {made} have {model.tokenizer.places} tokens" in capsys.readouterr().err
    for look in (
        lambda: ed.probe.page(model, tmp_path / "page.html", length=64),
        lambda: ed.probe.inspect(model, tmp_path, length=64),
        lambda: ed.probe.check(model, length=48),
    ):
        with pytest.raises(ValueError, match=f"pictures of this model have {model.tokenizer.places} tokens"):
            look()


def test_a_picture_that_cannot_be_written_is_not_made(model, tmp_path, monkeypatch, capsys):
    ed.save(tmp_path / "pictures.safetensors", model)
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setattr(ed.sampling, "generate", None)  # not called
    assert main(["generate", str(tmp_path / "pictures.safetensors"), "-o", str(tmp_path / "made.png")]) == 2
    assert "pictures need pillow" in capsys.readouterr().err and not (tmp_path / "made.png").exists()
