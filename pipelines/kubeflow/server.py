"""A connection to a Kubeflow server with time limits: every failure becomes a RunnerError of one line.

It calls the generated APIs that ``kfp.Client`` holds. The client's own wrappers take no time limit, wait half a minute
for a dead server, and print links to standard output.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import kfp
import urllib3
from kfp_server_api import ApiException

from spira.delivery.runner import RunnerError

SECONDS = 10
"""Timeout of a request; an int, as kfp's client ignores a float."""
RETRIES = urllib3.Retry(
    total=2, backoff_factor=0.5, status_forcelist=(429, 502, 503, 504), allowed_methods=("GET", "HEAD")
)
"""Retries of requests that only read; a request that may have taken effect is not repeated."""
PAGE_SIZE = 100
EQUALS = 1
"""kfp's number of the operation "equals" in a filter."""
NOT_FOUND = 404
DESCRIPTION = "Trainings of SPIRA's detector of respiratory insufficiency, and ticks of its continuous delivery."
"""Description of the experiment."""

logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it would log every retry


class Server:
    """One Kubeflow server and one experiment in it.

    Args:
        client: Connected client; with credentials if the server requires them.
        host: URL of the server, for messages.
        experiment: Name under which the dashboard groups the runs.
        namespace: Namespace on a server for many users; empty for a stock server.
    """

    def __init__(self, client: kfp.Client, host: str, experiment: str = "spira", namespace: str = "") -> None:
        self.client: Any = client
        self.host, self.experiment, self.namespace = host, experiment, namespace
        manager = self.client.runs.api_client.rest_client.pool_manager
        manager.connection_pool_kw["retries"] = RETRIES
        manager.clear()  # open connections still have kfp's retries

    @contextmanager
    def explain_errors(self, failure: str) -> Iterator[None]:
        """Turn an error of the server or of the connection into a RunnerError of one line.

        Args:
            failure: First part of the message, such as "run spira-1 cannot be looked up".
        """
        try:
            yield
        except ApiException as error:
            reason = _first_line(error)
            raise RunnerError(f"{failure}: Kubeflow at {self.host} returned {error.status}: {reason}") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise RunnerError(f"{failure}: {unreachable(self.host, error)}") from error

    def list_all(self, call: Callable[..., Any], field: str, name: str = "", **query: Any) -> list[Any]:
        """Return the items of a listing, from all of its pages.

        Args:
            call: Listing call of the API.
            field: Field of a page that holds the items.
            name: Display name of the items; empty for all.
        """
        if name:
            predicate = {"operation": EQUALS, "key": "display_name", "stringValue": name}
            query["filter"] = json.dumps({"predicates": [predicate]})
        items: list[Any] = []
        token = ""
        while True:
            page = call(page_token=token, page_size=PAGE_SIZE, _request_timeout=SECONDS, **query)
            items += getattr(page, field) or []
            token = page.next_page_token
            if not token:
                return items

    def experiment_id(self) -> str | None:
        """Return the experiment's id, or None before its first run."""
        namespace = {"namespace": self.namespace} if self.namespace else {}
        call = self.client.experiments.experiment_service_list_experiments
        experiments = self.list_all(call, "experiments", self.experiment, **namespace)
        return experiments[0].experiment_id if experiments else None

    def get_or_create_experiment_id(self) -> str:
        """Return the experiment's id; create the experiment if there is none."""
        if experiment_id := self.experiment_id():
            return experiment_id
        body = {"display_name": self.experiment, "description": DESCRIPTION}
        body |= {"namespace": self.namespace} if self.namespace else {}
        try:
            return self.client.experiments.experiment_service_create_experiment(
                experiment=body, _request_timeout=SECONDS
            ).experiment_id
        except ApiException:
            if experiment_id := self.experiment_id():
                return experiment_id  # another process has just created it
            raise


def connect(host: str, experiment: str = "spira", namespace: str = "") -> Server:
    """Connect to the server at a URL.

    Raises:
        RunnerError: There is no URL, or the server does not respond; raised within seconds.
    """
    if not host.startswith(("http://", "https://")):
        raise RunnerError(f"{host or 'no Kubeflow'}: give its URL with --host or KF_PIPELINES_ENDPOINT (http://…)")
    host = host.rstrip("/")
    try:
        response = urllib3.PoolManager(retries=RETRIES).request(
            "GET", f"{host}/apis/v2beta1/healthz", timeout=float(SECONDS)
        )
    except urllib3.exceptions.HTTPError as error:
        raise RunnerError(unreachable(host, error)) from error
    if response.status != 200:
        raise RunnerError(f"Kubeflow at {host} is not healthy (status {response.status}): is --host its API's URL?")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # kfp warns that it supports version 2 only
        return Server(kfp.Client(host=host, namespace=namespace or "kubeflow"), host, experiment, namespace)


def unreachable(host: str, error: Exception) -> str:
    """Return why the server does not respond, in one line."""
    cause = getattr(error, "reason", None) or error
    return f"Kubeflow at {host} cannot be reached: {' '.join(str(cause).split())}: is it up, and is --host right?"


def _first_line(error: ApiException) -> str:
    """Return the first line of an error message, without the stack trace that Kubeflow appends."""
    try:
        body = json.loads(error.body)
    except (TypeError, ValueError):
        return str(error.reason)
    message = body.get("message") or body.get("error") if isinstance(body, dict) else None
    return str(message or error.reason).strip().partition("\n")[0]
