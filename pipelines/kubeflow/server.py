"""A connection to a Kubeflow server with time limits: every failure becomes a RunnerError of one line.

It calls the generated APIs that ``kfp.Client`` holds. The client's own wrappers take no time limit, wait half a minute
for a dead server, and print links to standard output.
"""

from __future__ import annotations

import json
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import kfp
import urllib3
from kfp_server_api import ApiException
from kfp_server_api.rest import RESTClientObject

from spira.delivery.runner import RunnerError

SECONDS = 10
"""Timeout of a request; an int, as kfp's client ignores a float."""
RETRIES = urllib3.Retry(
    total=2,
    redirect=0,
    backoff_factor=0.5,
    status_forcelist=(429, 502, 503, 504),
    allowed_methods=("GET", "HEAD"),
    raise_on_redirect=False,
)
"""Retries of requests that only read; a request that may have taken effect is not repeated. Redirects are not followed:
Kubeflow's API sends none, and a proxy's leads to its login page."""
PAGE_SIZE = 100
EQUALS = 1
"""kfp's number of the operation "equals" in a filter."""
NOT_FOUND = 404
API_VERSION = 2
"""Major version of Kubeflow Pipelines whose API is used."""
FORWARD = "kubectl -n kubeflow port-forward service/ml-pipeline 8888, then --host http://localhost:8888"
"""Way to the API past a proxy and from outside of the cluster."""
TOKEN_FILE = "KF_PIPELINES_SA_TOKEN_PATH"
"""Environment variable of kfp: file with a token, for a server that requires one."""

logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it would log every retry


class NotKubeflowError(RunnerError):
    """The response does not come from Kubeflow's API."""


class JsonClient(RESTClientObject):
    """kfp's HTTP client with our retries, which refuses a response that is not JSON.

    The generated code would take the HTML of a proxy's login page for an empty listing.
    """

    def __init__(self, configuration: Any) -> None:
        super().__init__(configuration)
        self.pool_manager.connection_pool_kw["retries"] = RETRIES

    def request(self, *args: Any, **kwargs: Any) -> Any:
        """Send a request, and refuse a response that is no JSON."""
        response = super().request(*args, **kwargs)
        try:
            json.loads(response.data)
        except ValueError:
            raise NotKubeflowError(
                f"the answer is no JSON, but most likely a proxy's login page: connect past the proxy: {FORWARD}"
            ) from None
        return response


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
        self.api_client: Any = self.client.runs.api_client
        self.api_client.rest_client = JsonClient(self.api_client.configuration)
        self.tag = ""  # version of the server, once it was checked

    @contextmanager
    def explain_errors(self, failure: str) -> Iterator[None]:
        """Turn an error of the server or of the connection into a RunnerError of one line.

        Args:
            failure: First part of the message, such as "run spira-1 cannot be looked up".
        """
        try:
            yield
        except ApiException as error:
            raise RunnerError(f"{failure}: {refusal(self.host, error)}{self._version_note()}") from error
        except NotKubeflowError as error:
            raise RunnerError(f"{failure}: {self.host}: {error}") from error
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
        body = {"display_name": self.experiment} | ({"namespace": self.namespace} if self.namespace else {})
        try:
            return self.client.experiments.experiment_service_create_experiment(
                experiment=body, _request_timeout=SECONDS
            ).experiment_id
        except ApiException:
            if experiment_id := self.experiment_id():
                return experiment_id  # another process has just created it
            raise

    def check(self) -> None:
        """Refuse a server that does not respond, does not accept the login, or is not Kubeflow Pipelines 2."""
        try:
            health = self._get("/apis/v2beta1/healthz")
        except ApiException as error:
            if error.status == NOT_FOUND and (tag := self._tag_of_version_1()):
                raise RunnerError(
                    f"Kubeflow at {self.host} is Kubeflow Pipelines {tag}: version {API_VERSION} is needed, upgrade it"
                ) from error
            raise
        if not isinstance(health, dict) or "multi_user" not in health:
            raise NotKubeflowError("the answer is not that of Kubeflow Pipelines: is --host its API's URL?")
        self.tag = str(health.get("tag_name") or "")
        if self.tag[:1].isdigit() and self.tag.partition(".")[0] != str(API_VERSION):
            raise RunnerError(
                f"Kubeflow at {self.host} is Kubeflow Pipelines {self.tag}: version {API_VERSION} is needed; "
                f"kfp {kfp.__version__} does not work with it"
            )

    def _version_note(self) -> str:
        """Return the server's version if it is not that of kfp; empty if it is, or is unknown."""
        server, client = self.tag.split(".")[:2], kfp.__version__.split(".")[:2]
        if not self.tag[:1].isdigit() or server == client:
            return ""
        return f" (the server is Kubeflow Pipelines {self.tag}, and this program is made for {'.'.join(client)})"

    def _tag_of_version_1(self) -> str:
        try:
            health = self._get("/apis/v1beta1/healthz")
        except (ApiException, NotKubeflowError):
            return ""
        return str(health.get("tag_name") or "1") if isinstance(health, dict) else ""

    def _get(self, path: str) -> Any:
        """Return the body of a response as it is: the generated model of a health check has no version."""
        return self.api_client.call_api(
            path,
            "GET",
            response_type="object",
            auth_settings=["Bearer"],
            _return_http_data_only=True,
            _request_timeout=SECONDS,
        )


def connect(host: str, experiment: str = "spira", namespace: str = "") -> Server:
    """Connect to the server at a URL.

    Raises:
        RunnerError: There is no URL, or the server does not respond, does not accept the login, or is not Kubeflow
            Pipelines 2; raised within seconds.
    """
    if not host.startswith(("http://", "https://")):
        raise RunnerError(f"{host or 'no Kubeflow'}: give its URL with --host or KF_PIPELINES_ENDPOINT (http://…)")
    host = host.rstrip("/")
    credentials = kfp.client.ServiceAccountTokenVolumeCredentials() if os.environ.get(TOKEN_FILE) else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # kfp warns that it supports version 2 only
        # with a namespace other than "kubeflow", the constructor does not wait half a minute for a dead server
        client = kfp.Client(host=host, namespace=namespace or "default", credentials=credentials)
    server = Server(client, host, experiment, namespace)
    with server.explain_errors("no connection"):
        server.check()
    return server


def unreachable(host: str, error: Exception) -> str:
    """Return why the server does not respond and what to do, in one line."""
    cause = getattr(error, "reason", None) or error
    text = " ".join(str(cause).split())
    text = re.sub(r"^HTTPS?Connection\(.*?\): ", "", text)  # the message has the host already
    return f"Kubeflow at {host} cannot be reached: {text}: {_advice(cause)}"


def _advice(cause: object) -> str:
    if isinstance(cause, urllib3.exceptions.NameResolutionError):
        return f"correct --host; a name of the cluster's own is known only there, elsewhere use {FORWARD}"
    if isinstance(cause, urllib3.exceptions.SSLError):
        return "is --host http:// instead of https://, and is the certificate known here?"
    return "is it up, and is --host right? The port of Kubeflow's API is 8888"


def refusal(host: str, error: ApiException) -> str:
    """Return why the server refused a request and what to do, in one line."""
    reason = _first_line(error)
    text = f"Kubeflow at {host} returned {error.status}: {reason}"
    if error.status == 401:
        return (
            f"{text}: the token has expired or is missing: write a new one into the file of {TOKEN_FILE}, or {FORWARD}"
        )
    if 300 <= error.status < 400:
        return f"{text}: a proxy redirects to its login page: connect past the proxy: {FORWARD}"
    return text


def _first_line(error: ApiException) -> str:
    """Return the first line of an error message, without the stack trace that Kubeflow appends."""
    try:
        body = json.loads(error.body)
    except (TypeError, ValueError):
        return str(error.reason)
    message = body.get("message") or body.get("error") if isinstance(body, dict) else None
    return str(message or error.reason).strip().partition("\n")[0]
