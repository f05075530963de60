"""Models by the name they have on the Hugging Face hub: one file of weights, and a card that says what it is."""

import json
import re
import socket
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax


WEIGHTS = "model.safetensors"
TAGS = ("energy-based-model", "diffusion-language-model", "associative-memory", "jax", "equinox")


def is_repository(path: str) -> bool:
    """Whether this can be the name of a model on the hub, `org/name`, and is not a misspelt file."""
    owner, _, name = path.partition("/")
    plain = all(re.fullmatch(r"\w[\w.-]*", part, re.A) for part in (owner, name))
    return plain and not name.endswith(".safetensors") and not Path(owner).exists()


def download(repository: str) -> Path:
    """The weights of a model on the hub, in the cache of `huggingface_hub`; one sentence if they cannot be had."""
    hub = _hub()
    reach = _reach(hub.constants.ENDPOINT)
    try:
        return Path(hub.hf_hub_download(repository, WEIGHTS, local_files_only=not reach))
    except Exception as error:  # of the network, the hub, the disk: many kinds
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if not reach and isinstance(error, hub.errors.LocalEntryNotFoundError):
            reason = f"{hub.constants.ENDPOINT} is out of reach, and it was not downloaded before"
        raise FileNotFoundError(
            f"`path` {repository} is neither a file nor a shipped model, and {WEIGHTS} of that name on the hub cannot "
            f"be had ({reason}); check the name and the network."
        ) from error


def upload(repository: str, model: eqx.Module, notes: Mapping[str, Any], write: Any) -> str:
    """Put the folder of a model on the hub, and return its address."""
    if not is_repository(repository):
        raise ValueError(f"`repository` is {repository!r}; expected `org/name`, such as 'me/sonnets'.")
    hub = _hub()
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / WEIGHTS
        write(weights)
        Path(folder, "README.md").write_text(card(repository, model, notes, weights.stat().st_size), encoding="utf-8")
        try:
            api = hub.HfApi()
            address = api.create_repo(repository, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Model and card")
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise OSError(
                f"`repository` {repository} cannot be written ({reason}); check the name, the network, and "
                "`hf auth login`."
            ) from error
    return str(address)


def card(repository: str, model: eqx.Module, notes: Mapping[str, Any], size: int) -> str:
    """A model card: metadata as YAML, which JSON values are, then what the model is and how it is used."""
    count = sum(leaf.size for leaf in jax.tree.leaves(model) if eqx.is_inexact_array(leaf))
    tokenizer = getattr(model, "tokenizer", None)
    facts = {"class": type(model).__name__, "numbers": f"{count:,}", "bytes of the file": f"{size:,}"}
    if tokenizer is not None:
        facts["tokenizer"] = f"{type(tokenizer).__name__}, {tokenizer.size} tokens"
    facts |= {name: value if isinstance(value, str) else json.dumps(value) for name, value in notes.items()}
    pictures = getattr(tokenizer, "places", 0) > 0
    task, what = ("text-to-image", "pictures") if pictures else ("text-generation", "text")
    meta = {"library_name": "energy_dllm", "pipeline_tag": task, "tags": list(TAGS)}
    meta |= {"license": notes["license"]} if isinstance(notes.get("license"), str) else {}
    cell = lambda value: " ".join(str(value).split()).replace("|", r"\|")
    head = [f"{name}: {json.dumps(value)}" for name, value in meta.items()]
    rows = [f"| {cell(name)} | {cell(value)} |" for name, value in facts.items()]
    code = ["import energy_dllm as ed", f'model = ed.load("{repository}")']
    code += [f"print(ed.generate(model).{'pictures[0].shape' if pictures else 'texts[0]'})"]
    about = f"A model of `energy_dllm`: {what} by gradient descent on one explicit free energy."
    lines = ["---", *head, "---", "", f"# {repository.split('/')[1]}", "", about, "", "```python", *code, "```", ""]
    return "\n".join([*lines, "| | |", "|---|---|", *rows, ""])


def _reach(address: str) -> bool:
    """Whether the name of the hub is known here; its client asks for half a minute before it gives up. What a proxy
    knows is not asked."""
    if urllib.request.getproxies():
        return True
    try:
        socket.getaddrinfo(urllib.parse.urlsplit(address).hostname, None)
    except OSError:
        return False
    return True


def _hub() -> Any:
    try:
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError:
        raise ImportError("the hub needs huggingface_hub: pip install '.[hub]' in a checkout.") from None
    return huggingface_hub
