"""The type checker of the tests: beartype, for which an int is also a float, as PEP 484 has it."""

from beartype import BeartypeConf, beartype


typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))
