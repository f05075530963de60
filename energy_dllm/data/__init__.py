"""Strings to ids and back, and the texts to learn from. Needs numpy only: nothing here imports JAX."""

from ._corpus import Corpus as Corpus, read_text as read_text
from ._docs import docs_corpus as docs_corpus
from ._grammar import Grammar as Grammar, grammar_corpus as grammar_corpus
from ._regex import RegexDFA as RegexDFA
from ._tokenizer import AbstractTokenizer as AbstractTokenizer, Bytes as Bytes, Characters as Characters
from ._windows import Windows as Windows, windows_of as windows_of
