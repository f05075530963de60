"""What a SOURCE or FILE of the command line names."""

from typing import Any


def corpus_of(source: str, tokenizer: Any = None) -> Any:
    """A corpus by name, or a file: in parts to train on, undivided to measure on with a given tokenizer."""
    from ..data import Corpus, docs_corpus, grammar_corpus, read_text

    if source == "docs":
        return docs_corpus(tokenizer=tokenizer)
    if source != "grammar":
        return read_text(source, tokenizer=tokenizer, validation=0.1 if tokenizer is None else 0.0)
    corpus = grammar_corpus()
    if tokenizer in (None, corpus.tokenizer):
        return corpus
    ids = tokenizer.encode(corpus.tokenizer.decode(corpus.validation))
    return Corpus("grammar", tokenizer, ids[:0], ids, ids[:0], corpus.entropy)
