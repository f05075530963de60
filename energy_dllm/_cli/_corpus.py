"""What a SOURCE or FILE of the command line names."""

from typing import Any


def corpus_of(source: str, tokenizer: Any = None, *, validation: float | None = None) -> Any:
    """A corpus by name, or a file: in parts to train on, undivided to measure on with a given tokenizer.

    `tokenizer` is an object, or `"characters"`, `"bytes"`; `validation` the share of a file that is held out.
    """
    from ..data import Bytes, Characters, Corpus, docs_corpus, grammar_corpus, read_text

    if validation is None:
        validation = 0.1 if tokenizer is None or isinstance(tokenizer, str) else 0.0
    coder: Any = None if isinstance(tokenizer, str) else tokenizer
    if tokenizer == "bytes":
        coder = Bytes()
    if tokenizer == "characters" and source not in ("docs", "grammar"):
        corpus = read_text(source, validation=validation)
        if isinstance(corpus.tokenizer, Characters):
            return corpus
        with open(source, encoding="utf-8-sig", newline="") as file:  # more than 256 of them
            coder = Characters("".join(sorted({character for line in file for character in line})))
    if source == "docs":
        return docs_corpus(tokenizer=coder)
    if source != "grammar":
        return read_text(source, tokenizer=coder, validation=validation)
    corpus = grammar_corpus()
    if coder in (None, corpus.tokenizer):
        return corpus
    train, held = (coder.encode(corpus.tokenizer.decode(ids)) for ids in (corpus.train, corpus.validation))
    return Corpus("grammar", coder, train, held, held[:0], corpus.entropy)
