"""Token files: what `tokenize` writes is the text's ids, whatever the form, and wherever it was stopped."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import energy_dllm as ed
from energy_dllm import _files
from energy_dllm._cli._corpus import corpus_of
from energy_dllm.data import _tokens


TEXT = "the cat sees the dög. " * 400
SCRIPT = textwrap.dedent("""
    import sys, time
    from energy_dllm.data import Bytes, _tokens, tokenize
    _tokens._CHUNK = 100
    tokenize([sys.argv[1]], sys.argv[2], tokenizer=Bytes(), progress=lambda share: time.sleep(0.002))
""")


@pytest.fixture
def text(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8-sig")
    return tmp_path / "a.txt"


def ids(corpus):
    return np.concatenate([corpus.train, corpus.validation, corpus.test])


@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_tokens_are_those_of_the_text_whatever_the_form(chunk, text, tmp_path, monkeypatch):
    monkeypatch.setattr(_tokens, "_CHUNK", chunk)
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    lines = TEXT.split(". ")[:30]
    (tmp_path / "b.jsonl").write_text("\n\n".join(json.dumps({"body": line}) for line in lines))
    parquet.write_table(pyarrow.table({"body": lines}), tmp_path / "c.parquet")
    whole = ed.data.tokenize([text, tmp_path / "b.jsonl", tmp_path / "c.parquet"], tmp_path / "all", field="body")
    records = "".join(line + "\n" for line in lines)
    assert isinstance(whole.train, np.memmap) and whole.train.dtype == np.uint8
    assert whole.tokenizer.decode(ids(whole)) == TEXT + records + records
    pairs = ed.data.BytePairs.from_text(TEXT, 280)
    coded = ed.data.tokenize([text], tmp_path / "pairs", tokenizer=pairs)
    assert coded.train.dtype == np.uint16 and ids(coded).tolist() == pairs.encode(TEXT).tolist()
    assert ed.data.read_tokens(tmp_path / "pairs").tokenizer == pairs


def test_a_killed_tokenize_goes_on_where_it_was(text, tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(text), str(tmp_path / "tokens")]
    process = subprocess.Popen(command)
    state = tmp_path / "tokens" / "tokens.json"
    while not state.exists() or json.loads(state.read_text())["tokens"] < 500:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    with pytest.raises(ValueError, match="is not finished; run the same"):
        ed.data.read_tokens(tmp_path / "tokens")
    with open(tmp_path / "tokens" / "tokens.bin", "ab") as file:
        file.write(b"written, and not counted")
    subprocess.run(command, check=True)
    corpus = ed.data.read_tokens(tmp_path / "tokens", validation=0.5)
    assert ids(corpus).tobytes().decode() == TEXT and abs(len(corpus.train) - len(corpus.validation)) <= 1


def test_rows_of_a_batch_are_those_of_the_whole(text, tmp_path):
    corpus = ed.data.tokenize([text], tmp_path / "tokens")
    windows = ed.data.Windows(corpus.train, length=8, batch=6, seed=3)
    rows = np.array([[5, 1], [0, 2]])
    assert np.array_equal(windows.at(7, rows), windows.at(7)[rows])


def test_the_command_line_takes_a_folder_of_tokens_for_a_text(text, tmp_path):
    made = ed.data.tokenize([text], tmp_path / "tokens")
    parts, whole = corpus_of(str(tmp_path / "tokens")), corpus_of(str(tmp_path / "tokens"), made.tokenizer)
    assert len(parts.validation) and len(whole.train) == len(parts.train) + len(parts.validation)
    with pytest.raises(ValueError, match="has tokens of its own; leave out `--tokenizer`"):
        corpus_of(str(tmp_path / "tokens"), "bytes")


def test_bad_sources_are_named(text, tmp_path):
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1") * 9)
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"body": "b"}\n')
    for sources, message in (
        ([], "`sources` is empty"),
        ([tmp_path / "latin.txt"], "is not UTF-8 .* at byte 0"),
        ([tmp_path / "bad.jsonl"], "whose line 2 is no JSON object with a text in the field 'text'"),
    ):
        with pytest.raises(ValueError, match=message):
            ed.data.tokenize(sources, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="which is not a file"):
        ed.data.tokenize([tmp_path / "none.txt"], tmp_path / "out")
    ed.data.tokenize([text], tmp_path / "out")
    with pytest.raises(ValueError, match="holds tokens of another tokenizer"):
        ed.data.tokenize([text], tmp_path / "out", tokenizer=ed.data.Bytes())
    with pytest.raises(ValueError, match="holds no tokens"):
        ed.data.read_tokens(tmp_path)


def test_ids_that_are_lost_are_said_and_not_made_up(text, tmp_path):
    folder = tmp_path / "tokens"
    ed.data.tokenize([text], folder)
    ids = (folder / "tokens.bin").read_bytes()
    for left in (None, ids[: len(ids) // 2]):
        (folder / "tokens.bin").unlink(missing_ok=True)
        if left is not None:
            (folder / "tokens.bin").write_bytes(left)
        for read in (lambda: ed.data.tokenize([text], folder), lambda: ed.data.read_tokens(folder)):
            with pytest.raises(ValueError, match=r"has lost tokens.bin, or a part of it; remove the folder"):
                read()
    (folder / "tokens.json").write_text(json.dumps({"format": _tokens.FORMAT, "tokenizer": {"class": "Bytes"}}))
    with pytest.raises(ValueError, match="holds no tokens"):
        ed.data.read_tokens(folder)


def test_files_of_others_stay(text, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "tokens.bin").write_text("abc" * 50)
    with pytest.raises(ValueError, match="has a tokens.bin without its tokens.json"):
        ed.data.tokenize([text], mine)
    with pytest.raises(ValueError, match="which would be lost; give another `folder`"):
        ed.data.tokenize([mine / "tokens.bin"], mine)
    assert (mine / "tokens.bin").read_text() == "abc" * 50 and os.listdir(mine) == ["tokens.bin"]
    with pytest.raises(ValueError, match="`folder` .* is a file"):
        ed.data.tokenize([text], text)
    with pytest.raises(ValueError, match=r"`sources` is .*; expected a list of files"):
        ed.data.tokenize(str(text), tmp_path / "out")
    with _files.alone(mine), pytest.raises(ValueError, match="is in use by another `tokenize`"):
        ed.data.tokenize([text], mine)


def test_a_text_of_the_same_name_and_size_is_another(text, tmp_path):
    folder = tmp_path / "tokens"
    ed.data.tokenize([text], folder)
    state = json.loads((folder / "tokens.json").read_text())
    text.write_text(TEXT.replace("cat", "tac"), encoding="utf-8-sig")
    with pytest.raises(ValueError, match="holds tokens of another sources"):
        ed.data.tokenize([text], folder)
    state["sources"] = [source[:2] for source in state["sources"]]  # as they were kept before
    (folder / "tokens.json").write_text(json.dumps(state))
    assert len(ids(ed.data.tokenize([text], folder))) == len(TEXT)


def test_what_cannot_be_read_leaves_nothing(tmp_path):
    for name, content in {
        "a.JSONL": b'{"text": 1}',
        "b.txt": b"abc\xe9abc",
        "c.txt": b"\x1f\x8b123",
        "d.parquet": b"x",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"`sources` names .*{name}"):
            ed.data.tokenize([tmp_path / name], tmp_path / "a" / "b", tokenizer=ed.data.Bytes())
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (["a", "b"], "it is of type list"),
        (0, "it is of type int"),
        ("\ud800", "it has what is not UTF-8"),
    ],
    ids=["list", "number", "half a pair"],
)
def test_records_are_texts(value, words, tmp_path):
    lines = [json.dumps({"text": each}) for each in ("a", None, value)]
    (tmp_path / "a.ndjson").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=f"whose line 3 is no JSON object with a text .*{words}"):
        ed.data.tokenize([tmp_path / "a.ndjson"], tmp_path / "out")
    (tmp_path / "a.ndjson").write_text("\n".join(lines[:2]))
    assert ids(ed.data.tokenize([tmp_path / "a.ndjson"], tmp_path / "out")).tolist() == [1, 0, 0]


def test_columns_are_of_texts(tmp_path):
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    columns = {"number": [0, 1], "text": ["dög", None], "bytes": ["dög".encode(), b""]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    made = {
        field: ed.data.tokenize([tmp_path / "a.parquet"], tmp_path / field, tokenizer=ed.data.Bytes(), field=field)
        for field in ("text", "bytes")
    }
    assert {ids(each).tobytes().decode() for each in made.values()} == {"dög\n\n"}
    with pytest.raises(ValueError, match="no column 'number' of texts .it is of type int"):
        ed.data.tokenize([tmp_path / "a.parquet"], tmp_path / "out", field="number")


def test_a_full_disk_is_one_sentence_and_the_same_call_goes_on(text, tmp_path, monkeypatch):
    def full(folder, state):
        if state["position"] > 4000:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(folder, state)

    write = _tokens._write
    monkeypatch.setattr(_tokens, "_CHUNK", 1000)
    monkeypatch.setattr(_tokens, "_write", full)
    with pytest.raises(
        OSError, match=r"`folder` .* cannot be written .No space left on device.; what is there is kept"
    ):
        ed.data.tokenize([text], tmp_path / "tokens")
    monkeypatch.setattr(_tokens, "_write", write)
    corpus = ed.data.tokenize([text], tmp_path / "tokens")
    assert corpus.tokenizer.decode(ids(corpus)) == TEXT
