"""Token files: what `tokenize` writes is the text's ids, whatever the form, and wherever it was stopped."""

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
        ([tmp_path / "bad.jsonl"], "a line that is no JSON object with the field 'text'"),
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
