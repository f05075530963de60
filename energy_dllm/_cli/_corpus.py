"""What a SOURCE or FILE of the command line names."""

from typing import Any


def corpus_of(source: str, tokenizer: Any = None, *, validation: float | None = None) -> Any:
    """A corpus by name, or a file: in parts to train on, undivided to measure on with a given tokenizer.

    `tokenizer` is an object, or `"characters"`, `"bytes"`; `validation` the share of a file that is held out.
    """
    from ..data import Bytes, Characters, Corpus, docs_corpus, grammar_corpus, read_text

    if validation is None:
        validation = 0.1 if tokenizer is None or isinstance(tokenizer, str) else 0.0
    if tokenizer == "bytes":
        tokenizer = Bytes()
    elif tokenizer == "characters":
        tokenizer = None
        if source not in ("docs", "grammar"):
            corpus = read_text(source, validation=validation)
            if isinstance(corpus.tokenizer, Characters):
                return corpus
            with open(source, encoding="utf-8-sig", newline="") as file:  # more than 256 of them
                tokenizer = Characters("".join(sorted({c for line in file for c in line})))
    if source == "docs":
        return docs_corpus(tokenizer=tokenizer)
    if source != "grammar":
        return read_text(source, tokenizer=tokenizer, validation=validation)
    corpus = grammar_corpus()
    if tokenizer in (None, corpus.tokenizer):
        return corpus
    train, held = (tokenizer.encode(corpus.tokenizer.decode(ids)) for ids in (corpus.train, corpus.validation))
    return Corpus("grammar", tokenizer, train, held, held[:0], corpus.entropy)
