"""HTTP: an OpenAI-compatible API, a playground, and what this library has besides. Needs the extra `serve`."""

# in the order of the API page: what a reader wants first
from ._app import application as application
from ._run import serve as serve
