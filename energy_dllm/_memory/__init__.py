"""`TextMemory`: lines that are told, not learned; recalled from what is left of them, or honestly not."""

from ._recall import Recall as Recall
from ._text import TextMemory as TextMemory
