"""HTTP: an OpenAI-compatible API, a playground, and what this library has besides. Needs the extra `serve`."""

import importlib.util as _util


if missing := [name for name in ("starlette", "uvicorn", "pydantic") if _util.find_spec(name) is None]:
    raise ImportError(
        f"the server needs {', '.join(missing)}: pip install 'energy-dllm[serve]', or from a checkout '.[serve]'."
    )

# in the order of the API page: what a reader wants first
from ._app import application as application  # noqa: E402
from ._run import serve as serve  # noqa: E402
