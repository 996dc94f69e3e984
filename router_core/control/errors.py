"""What a client is told when something is wrong, in the shape OpenAI's clients read.

{"error": {"message": ..., "type": ..., "param": null, "code": ...}}
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import hdrs, web

from router_core.relay.local_answer import error_body

log = logging.getLogger(__name__)

_ON_UNKNOWN: web.AppKey[Callable[[int], None]] = web.AppKey("on_unknown")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ErrorResponse(web.Response):
    """An error answer; it knows its `code` until its headers are sent."""

    code = ""


def error_response(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an error answer.

    Args:
        status: The HTTP status.
        code: A fixed word for programs, such as `model_not_found`.
        message: One sentence for people.
        headers: Headers beside the usual ones.
    """
    body = error_body(status, code, message)
    response = ErrorResponse(status=status, body=body, content_type="application/json", headers=headers)
    response.code = code
    return response


def json_app(
    error_code_header: str | None = None,
    on_unknown: Callable[[int], None] = lambda status: None,  # noqa: ARG005  # named as callers pass it
) -> web.Application:
    """Return an application without routes whose errors are JSON.

    Args:
        error_code_header: The header that tells their code as well; None for none.
        on_unknown: Told 404 or 405 of each request for a path, or with a method, that no route takes.
    """
    app = web.Application(middlewares=[errors_as_json])
    app[_ON_UNKNOWN] = on_unknown
    app.on_response_prepare.append(_hide_server)
    if error_code_header is not None:
        app.on_response_prepare.append(_tells_code(error_code_header))
    return app


def _tells_code(header: str) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    async def tell(request: web.Request, response: web.StreamResponse) -> None:  # noqa: ARG001  # a signal's form
        if isinstance(response, ErrorResponse):
            response.headers[header] = response.code

    return tell


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give every error a JSON body, and an unforeseen one no details: those are for the log."""
    # What aiohttp's routes do not know is not raised: the route that would do it holds the error, and the error would
    # hold the frames of the whole request. Floods of such requests made long pauses for the garbage collector.
    unknown = request.match_info.http_exception
    if unknown is not None:
        request.app[_ON_UNKNOWN](unknown.status)
        return _as_json(request, unknown)
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _as_json(request, error)
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return error_response(500, "internal_error", "The router failed to answer; its log says why.")


def _as_json(request: web.Request, error: web.HTTPException) -> web.Response:
    if isinstance(error, web.HTTPNotFound):
        return error_response(404, "not_found", f"There is nothing at {request.path}.")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = error.headers["Allow"]
        message = f"{request.path} does not take {request.method}; use {allowed}."
        return error_response(405, "method_not_allowed", message, {"Allow": allowed})
    return error_response(error.status, "bad_request" if error.status < 500 else "internal_error", error.reason)


async def _hide_server(request: web.Request, response: web.StreamResponse) -> None:  # noqa: ARG001
    """Leave out the header by which aiohttp tells everybody its own and Python's version."""
    response.headers.popall(hdrs.SERVER, None)
