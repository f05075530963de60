"""Models on the hub: a folder stands for it, called as the real client is."""

import inspect
import shutil
import sys

import families
import huggingface_hub.constants
import pytest
from families import host

import energy_dllm as ed


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder with a folder for each model; calls that the real client would not take fail."""
    download, api = huggingface_hub.hf_hub_download, huggingface_hub.HfApi

    def fetch(*args, **kwargs):
        asked = inspect.signature(download).bind(*args, **kwargs).arguments
        path = tmp_path / asked["repo_id"] / asked["filename"]
        if not path.exists():
            raise RuntimeError("404 Client Error.\nRepository Not Found")
        return str(path)

    class Api:
        def create_repo(self, *args, **kwargs):
            asked = inspect.signature(api.create_repo).bind(self, *args, **kwargs).arguments
            if asked["repo_id"].startswith("others/"):
                raise RuntimeError("403 Forbidden: you have no rights here")
            (tmp_path / asked["repo_id"]).mkdir(parents=True, exist_ok=asked["exist_ok"])
            return f"https://hub/{asked['repo_id']}"

        def upload_folder(self, **kwargs):
            asked = inspect.signature(api.upload_folder).bind(self, **kwargs).arguments
            shutil.copytree(asked["folder_path"], tmp_path / asked["repo_id"], dirs_exist_ok=True)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return tmp_path


def test_a_model_on_the_hub_comes_back_with_its_card(hub):
    import equinox as eqx

    model = families.small_model("abc |")
    notes = {"data": "a | b", "license": "cc0-1.0", "scores": {"bits": 1.5}}
    assert ed.learn.save_to_hub("me/toy", model, notes=notes) == "https://hub/me/toy"
    assert eqx.tree_equal(host(ed.load("me/toy")), host(model)) and ed.learn.notes("me/toy") == notes
    card = (hub / "me/toy/README.md").read_text()
    head, body = card.removeprefix("---\n").split("\n---\n")
    assert 'library_name: "energy_dllm"' in head and 'license: "cc0-1.0"' in head and ": null" not in head
    assert 'ed.load("me/toy")' in body and r"| data | a \| b |" in body and '{"bits": 1.5}' in body
    assert f"{(hub / 'me/toy/model.safetensors').stat().st_size:,}" in body
    # one that makes pictures
    ed.learn.save_to_hub("me/digits", ed.load("digits"))
    card = (hub / "me/digits/README.md").read_text()
    assert '"text-to-image"' in card and "pictures[0]" in card and "texts[0]" not in card
    # again, smaller, in the same place
    before = (hub / "me/toy/model.safetensors").read_bytes()
    ed.learn.save_to_hub("me/toy", model, int8=True)
    assert (hub / "me/toy/model.safetensors").read_bytes() != before and ed.learn.notes("me/toy") == {}


def test_what_the_hub_refuses_is_one_sentence(hub, tmp_path, monkeypatch):
    model = families.small_model("abc ")
    with pytest.raises(FileNotFoundError, match="404 Client Error. Repository Not Found") as refused:
        ed.load("me/none")
    assert str(refused.value).count("\n") == 0
    with pytest.raises(OSError, match="others/toy cannot be written .403 Forbidden"):
        ed.learn.save_to_hub("others/toy", model)
    for name in ("toy", "a/b/c", "/toy", "me/", "../toy", "me/toy.safetensors"):
        with pytest.raises(ValueError, match="expected `org/name`"):
            ed.learn.save_to_hub(name, model)
    # what looks like a file is not asked for elsewhere
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("runs/toy", "none/toy.safetensors", "toy"):
        with pytest.raises(FileNotFoundError, match="shipped are"):
            ed.load(name)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"\.\[hub\]"):
        ed.load("me/toy")


def test_without_a_network_it_says_so(tmp_path, monkeypatch):
    """The real client, told to stay offline."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="me/toy is neither .* cannot be had .*check the name"):
        ed.load("me/toy")
    with pytest.raises(OSError, match="me/toy cannot be written"):
        ed.learn.save_to_hub("me/toy", families.small_model("abc "))


def test_a_hub_that_no_name_server_knows_is_not_asked(tmp_path, monkeypatch):
    """The real client asks six times, in half a minute; what was downloaded before is there all the same."""
    monkeypatch.setattr("urllib.request.getproxies", dict)

    def unknown(host, *_):
        assert host == "huggingface.co"
        raise OSError("Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it was asked again"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="runs/mine is neither .*huggingface.co is out of reach"):
        ed.load("runs/mine")
    model, commit = families.small_model("abc "), "0" * 40
    kept = tmp_path / "models--me--toy"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs/main").write_text(commit)
    (kept / "snapshots" / commit).mkdir(parents=True)
    ed.save(kept / "snapshots" / commit / "model.safetensors", model)
    assert ed.load("me/toy").tokenizer == model.tokenizer
