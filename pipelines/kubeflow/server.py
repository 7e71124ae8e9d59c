"""A Kubeflow server, asked with a patience that ends: whatever goes wrong is a RunnerError of one line.

The calls are those of the real ``kfp.Client``, through the generated APIs that it holds: its own wrappers take no
time limit, wait for a dead server for half a minute and print links among the answers.
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
"""For an answer; a float would be ignored by kfp's client."""
PATIENCE = urllib3.Retry(
    total=2, backoff_factor=0.5, status_forcelist=(429, 502, 503, 504), allowed_methods=("GET", "HEAD")
)
"""What was only asked is asked again; what may have been done is not done again."""
PAGE = 100
EQUALS = 1
"""kfp's number of the operation in a filter."""
NOT_FOUND = 404

logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # of each retry it would tell


class Server:
    """One Kubeflow server and one experiment in it.

    Args:
        client: connected; with its own credentials where the server wants some.
        experiment: the name under which the dashboard shows the runs together.
        namespace: of a server for many users; empty for a stock one.
    """

    def __init__(self, client: kfp.Client, host: str, experiment: str = "spira", namespace: str = "") -> None:
        self.client: Any = client
        self.host, self.experiment, self.namespace = host, experiment, namespace
        manager = self.client.runs.api_client.rest_client.pool_manager
        manager.connection_pool_kw["retries"] = PATIENCE
        manager.clear()  # connections of before have kfp's retries

    @contextmanager
    def asked(self, trouble: str) -> Iterator[None]:
        """Say in one line what the server, or the way to it, refused."""
        try:
            yield
        except ApiException as error:
            raise RunnerError(f"{trouble}: Kubeflow at {self.host} says {error.status}: {_said(error)}") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise RunnerError(f"{trouble}: {unreachable(self.host, error)}") from error

    def all(self, call: Callable[..., Any], what: str, name: str = "", **query: Any) -> list[Any]:
        """Everything that a listing call gives, page by page; of one display name, if one is given."""
        if name:
            predicate = {"operation": EQUALS, "key": "display_name", "stringValue": name}
            query["filter"] = json.dumps({"predicates": [predicate]})
        found: list[Any] = []
        token = ""
        while True:
            page = call(page_token=token, page_size=PAGE, _request_timeout=SECONDS, **query)
            found += getattr(page, what) or []
            token = page.next_page_token
            if not token:
                return found

    def experiment_id(self) -> str | None:
        """The experiment's id; None before its first run."""
        return self._id(self.client.experiments.experiment_service_list_experiments, "experiments", "experiment_id")

    def made_experiment_id(self) -> str:
        """The experiment's id; it is made if there is none."""
        if found := self.experiment_id():
            return found
        body = {"display_name": self.experiment} | ({"namespace": self.namespace} if self.namespace else {})
        try:
            return self.client.experiments.experiment_service_create_experiment(
                experiment=body, _request_timeout=SECONDS
            ).experiment_id
        except ApiException:
            if found := self.experiment_id():
                return found  # of another process, just now
            raise

    def _id(self, call: Callable[..., Any], what: str, field: str) -> str | None:
        found = self.all(call, what, self.experiment, **({"namespace": self.namespace} if self.namespace else {}))
        return getattr(found[0], field) if found else None


def connect(host: str, experiment: str = "spira", namespace: str = "") -> Server:
    """The server at a URL.

    Raises:
        RunnerError: no URL is given, or nobody answers there; known in seconds.
    """
    if not host.startswith(("http://", "https://")):
        raise RunnerError(f"{host or 'no Kubeflow'}: give its URL with --host or KF_PIPELINES_ENDPOINT (http://…)")
    host = host.rstrip("/")
    try:
        answer = urllib3.PoolManager(retries=PATIENCE).request(
            "GET", f"{host}/apis/v2beta1/healthz", timeout=float(SECONDS)
        )
    except urllib3.exceptions.HTTPError as error:
        raise RunnerError(unreachable(host, error)) from error
    if answer.status != 200:
        raise RunnerError(f"Kubeflow at {host} is not well, it says {answer.status}: is --host the URL of its API?")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that it speaks version 2 only
        return Server(kfp.Client(host=host, namespace=namespace or "kubeflow"), host, experiment, namespace)


def unreachable(host: str, error: Exception) -> str:
    """Why nobody answers, in one line."""
    cause = getattr(error, "reason", None) or error
    return f"Kubeflow at {host} can't be reached: {' '.join(str(cause).split())}: is it up, and --host right?"


def _said(error: ApiException) -> str:
    """The first line of a refusal, without the stack that Kubeflow adds."""
    try:
        body = json.loads(error.body)
    except (TypeError, ValueError):
        return str(error.reason)
    told = body.get("message") or body.get("error") if isinstance(body, dict) else None
    return str(told or error.reason).strip().partition("\n")[0]
