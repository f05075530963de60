"""Strings to ids and back, and the texts to learn from. Needs numpy only: nothing here imports JAX."""

# in the order of the API page: what a reader wants first
from ._corpus import read_text as read_text, Corpus as Corpus
from ._tokenizer import Characters as Characters, Bytes as Bytes
from ._byte_pairs import BytePairs as BytePairs
from ._regex import RegexDFA as RegexDFA
from ._grammar import grammar_corpus as grammar_corpus, Grammar as Grammar
from ._docs import docs_corpus as docs_corpus
from ._windows import Windows as Windows, windows_of as windows_of
from ._tokenizer import AbstractTokenizer as AbstractTokenizer
