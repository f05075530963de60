"""Whether the extra `serve` is there: said before anything else of the room is imported."""

import importlib


try:
    for name in ("pydantic", "starlette", "uvicorn"):
        importlib.import_module(name)
except ImportError as error:
    raise ImportError(f"the server needs {error.name}: pip install '.[serve]' in a checkout.") from None
