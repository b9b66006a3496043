"""Connections to one Docker daemon, for executors and environments. The `docker` package is imported when one is made.

Which daemon: a URL (`unix://`, `tcp://` with TLS, `ssh://` through the system's ssh, so that its configuration, agent
and known_hosts hold); without one what the `docker` command uses: DOCKER_HOST, else the current context.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipesmith.errors import EnvironmentFailure, UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Daemon", "DaemonInfo", "answer", "is_conflict", "is_missing", "remove_container"]

_TIMEOUT_S = 60
_MOST_IDLE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonInfo:
    """What a daemon says of its machine. memory_bytes: of the whole machine. architecture: as `uname -m` has it."""

    architecture: str
    cpus: int
    memory_bytes: int


@dataclass(slots=True, eq=False)
class Daemon:
    """One daemon. compute: its name in pipeline.toml, for messages. url: None for the one that `docker` uses here. tls:
    absolute paths of `ca`, `cert` and `key`. Thread-safe: each thread borrows a connection of its own."""

    compute: str
    url: str | None = None
    tls: Mapping[str, str] = field(default_factory=dict)
    _idle: list[Any] = field(default_factory=list)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _info: DaemonInfo | None = None

    @property
    def title(self) -> str:
        """What people know it by."""
        return f"`{self.compute}` ({self.url})" if self.url else f"`{self.compute}`"

    @contextmanager
    def client(self) -> Iterator[Any]:
        """Borrow a `docker.DockerClient`. What goes wrong with it is raised as EnvironmentFailure that names the
        compute; answers of the daemon (`docker.errors.APIError`) are raised as they are."""
        with self._guard:
            client = self._idle.pop() if self._idle else None
        fresh = client is None
        good = False
        try:
            client = client or self._connect()
            yield client
            good = True
        except UserError:
            raise
        except Exception as error:
            if answer(error) is not None:
                good = True
                raise
            failure = self._failure(error, fresh)
            if failure is None:
                raise
            raise failure from None
        finally:
            if client is not None:
                with self._guard:
                    keep = good and len(self._idle) < _MOST_IDLE
                    if keep:
                        self._idle.append(client)
                if not keep:
                    _close(client)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with self._guard:
            idle, self._idle = self._idle, []
        for client in idle:
            _close(client)

    def info(self) -> DaemonInfo:
        """Return what the daemon says of its machine; asked once. Raises EnvironmentFailure where it is not reached."""
        if self._info is None:
            with self.client() as client:
                told = client.info()
            self._info = DaemonInfo(
                architecture=told.get("Architecture", ""),
                cpus=int(told.get("NCPU", 0)),
                memory_bytes=int(told.get("MemTotal", 0)),
            )
        return self._info

    def _connect(self) -> Any:
        docker = _package(self.compute)
        settings: dict[str, Any] = {"timeout": _TIMEOUT_S}
        if self.url is None:
            settings |= _as_the_command_does(docker)
        else:
            settings["base_url"] = self.url
            if self.url.startswith("ssh://"):
                settings |= {"base_url": _with_port(self.url), "use_ssh_client": True}
            elif self.tls:
                settings["tls"] = docker.tls.TLSConfig(
                    client_cert=(self.tls["cert"], self.tls["key"])
                    if "cert" in self.tls and "key" in self.tls
                    else None,
                    ca_cert=self.tls.get("ca"),
                    verify="ca" in self.tls,
                )
        newest = docker.constants.DEFAULT_DOCKER_API_VERSION
        client = _client(docker, settings, newest)
        try:
            offered = client.api.version(api_version=False)["ApiVersion"]
        except BaseException:
            _close(client)
            raise
        if _parts(offered) >= _parts(newest):
            return client
        _close(client)
        return _client(docker, settings, offered)

    def _failure(self, error: Exception, fresh: bool) -> EnvironmentFailure | None:
        """Return what to say of an error of the connection, None for what is none."""
        import requests

        docker = _package(self.compute)
        known = (docker.errors.DockerException, requests.exceptions.RequestException, ConnectionError, TimeoutError)
        if not isinstance(error, (*known, OSError)) and type(error).__module__.partition(".")[0] not in _NETWORKING:
            return None
        what = "can't be reached" if fresh else "is gone"
        return EnvironmentFailure(
            f"the Docker daemon of {self.title} {what}: {_cause(error)}",
            "`docker info` there says whether it runs; `pipe compute status` asks all of them",
        )


def _client(docker: Any, settings: dict[str, Any], version: str) -> Any:
    """Make a client. Its version is given, so that nothing is asked before what the environment says of certificates
    and proxies is set aside: REQUESTS_CA_BUNDLE would overrule the daemon's own authority."""
    client = docker.DockerClient(**settings, version=version)
    client.api.trust_env = False
    return client


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


_NETWORKING = ("urllib3", "http", "paramiko", "requests", "docker")


def _package(compute: str) -> Any:
    try:
        import docker
        import docker.constants
        import docker.errors
        import docker.tls
    except ImportError:
        raise EnvironmentFailure(
            f"the compute `{compute}` needs the package `docker`", "run `pip install 'pipesmith[docker]'`"
        ) from None
    return docker


def _as_the_command_does(docker: Any) -> dict[str, Any]:
    """Return the settings that DOCKER_HOST and its like, else the current context, ask for."""
    if os.environ.get("DOCKER_HOST"):
        settings: dict[str, Any] = docker.utils.kwargs_from_env()
        if os.environ["DOCKER_HOST"].startswith("ssh://"):
            settings |= {"base_url": _with_port(os.environ["DOCKER_HOST"]), "use_ssh_client": True}
        return settings
    from docker.context import ContextAPI

    try:
        context = ContextAPI.get_current_context()
    except Exception as error:
        raise UserError(
            f"the current Docker context can't be read: {error}", "`docker context ls` shows them"
        ) from None
    if context is None:
        raise UserError("the current Docker context does not exist", "`docker context use default`, or set DOCKER_HOST")
    host = str(context.Host)
    settings = {"base_url": host}
    if host.startswith("ssh://"):
        settings = {"base_url": _with_port(host), "use_ssh_client": True}
    if context.TLSConfig:
        settings["tls"] = context.TLSConfig
    return settings


def _with_port(url: str) -> str:
    """Return an ssh:// URL with the port that ssh's configuration has for its host: the package would take 22."""
    import subprocess
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    if parts.port is not None or not parts.hostname:
        return url
    name = f"{parts.username}@{parts.hostname}" if parts.username else parts.hostname
    try:
        told = subprocess.run(["ssh", "-G", "--", name], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        raise EnvironmentFailure("the program `ssh` is not on PATH", f"install it, to reach {url}") from None
    port = next((line.split()[1] for line in told.splitlines() if line.startswith("port ")), "22")
    return parts._replace(netloc=f"{parts.netloc}:{port}").geturl()


def _close(client: Any) -> None:
    try:
        client.close()
    except Exception:
        pass  # it is of no use any more


def answer(error: Exception) -> str | None:
    """Return what a daemon said no with, in one line; None for what is no answer of a daemon."""
    if type(error).__module__ != "docker.errors" or not hasattr(error, "explanation"):
        return None
    return " ".join(str(error.explanation or error).split())


def is_missing(error: Exception) -> bool:
    """Return whether the daemon said that there is no such thing."""
    return answer(error) is not None and getattr(error, "status_code", None) == 404


def is_conflict(error: Exception) -> bool:
    """Return whether the daemon said that a name is taken."""
    return answer(error) is not None and getattr(error, "status_code", None) == 409


def remove_container(container: Any) -> None:
    """Kill and remove a container; one that is gone, or being removed, is fine."""
    try:
        container.remove(force=True, v=True)
    except Exception as error:
        if answer(error) is None:
            raise


def _cause(error: BaseException) -> str:
    """Return the innermost words of an error that wraps others."""
    while True:
        inner = error.__cause__ or next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        inner = inner or getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            break
        error = inner
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:300] or type(error).__name__
