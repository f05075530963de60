"""What can be wrong with a request, as the error object of the OpenAI API."""

import re
import sys
import traceback
from typing import Any


LONGEST = 600
"""Characters of a sentence, at most: a request may repeat much of itself."""


class Full(Exception):
    """The queue has no room, or is closed."""


class APIError(Exception):
    """An answer that is an error: status, one sentence, the argument at fault, and a code.

    **Arguments:**

    - `status`: of HTTP.
    - `message`: one sentence: what was given, what was expected, the usual fix.
    - `param`: the argument at fault, if one is.
    - `code`: a word for programs, such as `model_not_found`.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None):
        message = message if len(message) <= LONGEST else message[: LONGEST - 3] + "..."
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param and param[:60], code

    @property
    def body(self) -> dict[str, Any]:
        """The error object."""
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    504: "timeout_error",
}


def refused(error: Exception) -> APIError:
    """An error of the library: the argument that its sentence begins with is the one at fault."""
    message = " ".join(str(error).split())
    named = re.match(r"`(\w+)(?:[.\[][^`]*)?`", message)
    return APIError(400, message, param=named and named[1], code="invalid_value")


def sentence(error: BaseException) -> APIError:
    """What went wrong, as it is told; what nobody foresaw is told on standard error, and not to the client."""
    if isinstance(error, APIError):
        return error
    if isinstance(error, Full):
        return APIError(429, "the queue is full; try again in a moment.", code="queue_full")
    if isinstance(error, (ValueError, FloatingPointError)):
        return refused(error)
    traceback.print_exception(error, file=sys.stderr)
    return APIError(500, "the server failed at this request; its log says why.", code="internal_error")
