"""What a SOURCE or FILE of the command line names."""

from pathlib import Path
from typing import Any

from ._show import note


RECORDS = (".jsonl", ".ndjson", ".parquet")


def built_in(source: str) -> bool:
    """Whether this names a text that comes with the package; a folder of tokens of that name goes before it."""
    return source in ("docs", "grammar") and not (Path(source) / "tokens.json").exists()


def corpus_of(source: str, tokenizer: Any = None, *, validation: float | None = None, vocabulary: int = 1024) -> Any:
    """A corpus by name, a file or a folder of tokens: in parts to train on, undivided to measure on with a tokenizer.

    `tokenizer` is an object, or `"characters"`, `"bytes"`, `"byte-pairs"`; `validation` the share of a file that is
    held out; `vocabulary` the number of byte pairs.
    """
    from ..data import BytePairs, Bytes, Characters, Corpus, docs_corpus, grammar_corpus, read_text, read_tokens

    if validation is None:
        validation = 0.1 if tokenizer is None or isinstance(tokenizer, str) else 0.0
    named = built_in(source)
    if named and Path(source).is_file():
        note(f"{source} is the text that comes with the package; ./{source} is the file of that name")
    if Path(source).suffix.lower() in RECORDS and Path(source).is_file():
        raise ValueError(
            f"`source` {source} holds records; write their texts as tokens first, `energy-dllm tokenize {source} -o "
            "tokens`, and give that folder, or give it a name in .txt to take it as it stands."
        )
    if Path(source).is_dir() and not named:
        corpus = read_tokens(source, validation=validation)
        if tokenizer not in (None, corpus.tokenizer):
            raise ValueError(
                f"`source` {source} has tokens of its own; leave out `--tokenizer`, or give the text itself."
            )
        return corpus
    coder: Any = None if isinstance(tokenizer, str) else tokenizer
    if tokenizer == "bytes":
        coder = Bytes()
    if tokenizer == "byte-pairs" and named:
        raise ValueError(f"`--tokenizer` is byte-pairs and `source` {source}; expected a text file to find pairs in.")
    if tokenizer in ("characters", "byte-pairs") and not named:
        corpus = read_text(source, validation=validation)
        if tokenizer == "characters" and isinstance(corpus.tokenizer, Characters):
            return corpus
        with open(source, encoding="utf-8-sig", newline="") as file:
            if tokenizer == "characters":  # more than 256 of them
                coder = Characters("".join(sorted({character for line in file for character in line})))
            else:  # of what is learned from
                text = file.read()
                coder = BytePairs.from_text(text[: int(len(text) * (1 - validation))], vocabulary)
    if source == "docs":
        return docs_corpus(tokenizer=coder)
    if source != "grammar":
        return read_text(source, tokenizer=coder, validation=validation)
    corpus = grammar_corpus()
    if coder in (None, corpus.tokenizer):
        return corpus
    train, held = (coder.encode(corpus.tokenizer.decode(ids)) for ids in (corpus.train, corpus.validation))
    return Corpus("grammar", coder, train, held, held[:0], corpus.entropy)
