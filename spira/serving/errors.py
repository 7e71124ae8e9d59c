"""What a client gets instead of an answer: ``{"code": ..., "error": ...}`` with a status, the same from every path."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from kserve.errors import ModelNotFound, ModelNotReady
from prometheus_client import Counter

ERRORS = Counter("spira_errors", "Requests that were not answered, by the code of the refusal", ["code"])

PATHS = "POST /v2/models/NAME/infer or /v1/models/NAME:predict"

logger = logging.getLogger(__name__)


class RequestError(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP.
        code: for programs; it never changes.
        message: for people: what is wrong and what to do.
    """

    def __init__(self, status: HTTPStatus, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def malformed(code: str, message: str) -> RequestError:
    """400: the request itself must be written otherwise."""
    return RequestError(HTTPStatus.BAD_REQUEST, code, message)


def response(refused: RequestError) -> JSONResponse:
    """The answer that tells, and one more in the metrics."""
    ERRORS.labels(refused.code).inc()
    headers = {"Retry-After": "1"} if refused.status == HTTPStatus.TOO_MANY_REQUESTS else None
    content = {"code": refused.code, "error": refused.message}
    return JSONResponse(content, status_code=refused.status, headers=headers)


def install(app: FastAPI) -> None:
    """Make every error of an application one of these; what a client sent is never repeated to it, nor logged."""
    for kind, refusal in REFUSALS.items():
        app.add_exception_handler(kind, _handler(refusal))


def _handler(refusal: Any) -> Any:
    async def handle(request: Request, error: Exception) -> JSONResponse:
        return response(refusal(error))

    return handle


def _not_found(error: ModelNotFound) -> RequestError:
    return RequestError(HTTPStatus.NOT_FOUND, "model_not_found", f"{error} GET /v2/models lists those served here.")


def _not_ready(error: ModelNotReady) -> RequestError:
    message = "the model is being loaded and checked: try again when /v2/models/NAME/ready answers 200"
    return RequestError(HTTPStatus.SERVICE_UNAVAILABLE, "model_not_ready", message)


def _empty(error: RequestValidationError) -> RequestError:
    return malformed("not_json", "the body is empty: send JSON with instances (v1) or inputs (v2)")


def _not_implemented(error: NotImplementedError) -> RequestError:
    return RequestError(HTTPStatus.NOT_IMPLEMENTED, "not_implemented", f"only predictions are served: {PATHS}")


def _http(error: HTTPException) -> RequestError:
    status = HTTPStatus(error.status_code)
    return RequestError(status, status.name.lower(), f"{error.detail}: {PATHS}")


def _unforeseen(error: Exception) -> RequestError:
    logger.error("a request failed here: %s", type(error).__name__)
    message = "the server failed: its log says where; tell those who run it"
    return RequestError(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", message)


REFUSALS: dict[Any, Any] = {
    RequestError: lambda error: error,
    ModelNotFound: _not_found,
    ModelNotReady: _not_ready,
    NotImplementedError: _not_implemented,
    RequestValidationError: _empty,
    HTTPStatus.NOT_FOUND: _http,
    HTTPStatus.METHOD_NOT_ALLOWED: _http,
    Exception: _unforeseen,
}
"""By the class or the status that an application raises."""
