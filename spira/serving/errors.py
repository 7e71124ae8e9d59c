"""Responses to refused requests: a status and ``{"code": ..., "error": ...}``, the same on every path."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from kserve.errors import ModelNotFound, ModelNotReady
from prometheus_client import Counter

ERRORS = Counter("spira_errors", "Refused requests by error code", ["code"])

PATHS = "POST /v2/models/NAME/infer or /v1/models/NAME:predict"

logger = logging.getLogger(__name__)


class RequestError(Exception):
    """A refused request.

    Args:
        status: HTTP status.
        code: error code for programs; a code never changes.
        message: error message for people: what is wrong and what to do.
    """

    def __init__(self, status: HTTPStatus, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def malformed(code: str, message: str) -> RequestError:
    """Return an error of status 400: the client must write the request differently."""
    return RequestError(HTTPStatus.BAD_REQUEST, code, message)


def response(error: RequestError) -> JSONResponse:
    """Return the response to a refused request and count the request in the metrics."""
    ERRORS.labels(error.code).inc()
    headers = {"Retry-After": "1"} if error.status == HTTPStatus.TOO_MANY_REQUESTS else None
    content = {"code": error.code, "error": error.message}
    return JSONResponse(content, status_code=error.status, headers=headers)


def install(app: FastAPI) -> None:
    """Install handlers that convert every error of an application to a response of this module.

    Content sent by a client is neither returned nor logged.
    """
    for kind, convert in CONVERTERS.items():
        app.add_exception_handler(kind, _handler(convert))


def _handler(convert: Any) -> Any:
    async def handle(request: Request, error: Exception) -> JSONResponse:
        return response(convert(error))

    return handle


def _not_found(error: ModelNotFound) -> RequestError:
    return RequestError(
        HTTPStatus.NOT_FOUND, "model_not_found", f"{error} GET /v2/models lists the models served here."
    )


def _not_ready(error: ModelNotReady) -> RequestError:
    message = "the model is being loaded and checked: try again when /v2/models/NAME/ready returns 200"
    return RequestError(HTTPStatus.SERVICE_UNAVAILABLE, "model_not_ready", message)


def _empty(error: RequestValidationError) -> RequestError:
    return malformed("not_json", "the body is empty: send JSON with instances (v1) or inputs (v2)")


def _not_implemented(error: NotImplementedError) -> RequestError:
    return RequestError(HTTPStatus.NOT_IMPLEMENTED, "not_implemented", f"this server only predicts: {PATHS}")


def _http(error: HTTPException) -> RequestError:
    status = HTTPStatus(error.status_code)
    return RequestError(status, status.name.lower(), f"{error.detail}: {PATHS}")


def _unexpected(error: Exception) -> RequestError:
    logger.error("a request failed with an unexpected %s", type(error).__name__)
    message = "the server failed: contact its operator, who finds the error in its log"
    return RequestError(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", message)


CONVERTERS: dict[Any, Any] = {
    RequestError: lambda error: error,
    ModelNotFound: _not_found,
    ModelNotReady: _not_ready,
    NotImplementedError: _not_implemented,
    RequestValidationError: _empty,
    HTTPStatus.NOT_FOUND: _http,
    HTTPStatus.METHOD_NOT_ALLOWED: _http,
    Exception: _unexpected,
}
"""Functions to a RequestError, by the class or the status that an application raises."""
