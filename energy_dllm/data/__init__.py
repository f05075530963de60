"""Strings and pictures to ids and back, and what to learn from. Needs numpy only: nothing here imports JAX."""

# in the order of the API page: what a reader wants first
from ._corpus import read_text as read_text, Corpus as Corpus
from ._tokens import tokenize as tokenize, read_tokens as read_tokens
from ._tokenizer import Characters as Characters, Bytes as Bytes
from ._byte_pairs import BytePairs as BytePairs
from ._patches import Patches as Patches
from ._pictures import (
    picture_corpus as picture_corpus,
    read_mnist as read_mnist,
    read_pictures as read_pictures,
    read_picture as read_picture,
    write_picture as write_picture,
)
from ._regex import RegexDFA as RegexDFA
from ._grammar import grammar_corpus as grammar_corpus, Grammar as Grammar
from ._docs import docs_corpus as docs_corpus
from ._windows import Windows as Windows
from ._tokenizer import AbstractTokenizer as AbstractTokenizer
