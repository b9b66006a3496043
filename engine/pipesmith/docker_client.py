"""Connections to one Docker daemon: by `docker_api` for jobs, and by the `docker` package, imported when one is made,
for images.

Which daemon: a URL (`unix://`, `tcp://` with TLS, `ssh://` through the system's ssh, so that its configuration, agent
and known_hosts hold); without one what the `docker` command uses: DOCKER_HOST, else the current context.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pipesmith.docker_api import Address, ConnectionLost, DaemonAnswer, DockerApi
from pipesmith.errors import EnvironmentFailure, PipeError
from pipesmith.records import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Daemon", "DaemonGone", "DaemonInfo", "answer", "is_conflict", "is_missing", "remove_container"]

_TIMEOUT_S = 60
_MOST_IDLE = 8


class DaemonGone(EnvironmentFailure):
    """A daemon can't be reached, or went away."""


@record
class DaemonInfo:
    """What a daemon says of its machine. memory_bytes: of the whole machine. architecture: as `uname -m` has it. name:
    the machine's. security: what holds of its containers, such as `rootless`, `userns` (it maps users), `selinux`."""

    architecture: str
    cpus: int
    memory_bytes: int
    name: str = ""
    security: frozenset[str] = frozenset()


class Daemon:
    """One daemon. compute: its name in pipeline.toml, for messages. url: None for the one that `docker` uses here. tls:
    absolute paths of `ca`, `cert` and `key`. Thread-safe: each thread borrows a connection of its own."""

    def __init__(self, compute: str, url: str | None = None, tls: Mapping[str, str] | None = None) -> None:
        self.compute = compute
        self.url = url
        self.tls = dict(tls or {})
        self._idle: list[Any] = []
        self._idle_apis: list[DockerApi] = []
        self._guard = threading.Lock()
        self._address: Address | None = None
        self._info: DaemonInfo | None = None

    @property
    def title(self) -> str:
        """What people know it by."""
        return f"`{self.compute}` ({self.url})" if self.url else f"`{self.compute}`"

    @contextmanager
    def api(self) -> Iterator[DockerApi]:
        """Borrow a connection. That it fails is raised as DaemonGone that names the compute; what the daemon says no
        to (`DaemonAnswer`) is raised as it is."""
        api, fresh = self._kept_api(), False
        try:
            if api is None:
                fresh = True
                api = DockerApi(self._where())
                fresh = False
            yield api
        except ConnectionLost as error:
            raise self._unreachable(str(error), fresh) from None
        finally:
            if api is not None:
                self._keep_api(api)

    def _kept_api(self) -> DockerApi | None:
        while True:
            with self._guard:
                if not self._idle_apis:
                    return None
                api = self._idle_apis.pop()
            if api.is_good:
                return api
            api.close()  # the daemon has closed it meanwhile

    def _keep_api(self, api: DockerApi) -> None:
        if api.is_good:
            with self._guard:
                if len(self._idle_apis) < _MOST_IDLE:
                    self._idle_apis.append(api)
                    return
        api.close()

    def _where(self) -> Address:
        with self._guard:
            if self._address is None:
                if self.url is not None:
                    self._address = Address(url=self.url, tls=self.tls, secure=bool(self.tls))
                else:
                    self._address = _address_of_the_command(self.compute)
            return self._address

    @contextmanager
    def client(self) -> Iterator[Any]:
        """Borrow a `docker.DockerClient`. What goes wrong with it is raised as DaemonGone that names the
        compute; answers of the daemon (`docker.errors.APIError`) are raised as they are."""
        with self._guard:
            client = self._idle.pop() if self._idle else None
        fresh = client is None
        good = False
        try:
            client = client or self._connect()
            yield client
            good = True
        except PipeError:
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

    @property
    def may_share(self) -> bool:
        """Whether it most likely sees this machine's files as this process does: it is asked over a unix socket, its
        machine has this one's name, and neither users are mapped nor files labelled. Raises DaemonGone."""
        if not self._where().url.startswith("unix://"):
            return False
        info = self.info()
        return info.name == os.uname().nodename and info.security.isdisjoint(("rootless", "userns", "selinux"))

    @property
    def may_give_network(self) -> bool:
        """Whether its containers can have the network of its machine: not where it maps users. Raises DaemonGone."""
        return "userns" not in self.info().security

    @property
    def reached(self) -> bool:
        """Whether it was asked already, and answered."""
        return self._info is not None

    def flags(self) -> list[str]:
        """Return how the `docker` command is told which daemon."""
        found = [] if self.url is None else ["--host", self.url]
        if self.tls:
            found.append("--tlsverify" if "ca" in self.tls else "--tls")
            found += [
                word for key, path in self.tls.items() for word in (f"--tls{'cacert' if key == 'ca' else key}", path)
            ]
        return found

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with self._guard:
            idle, self._idle = self._idle, []
            apis, self._idle_apis = self._idle_apis, []
        for client in idle:
            _close(client)
        for api in apis:
            api.close()

    def info(self) -> DaemonInfo:
        """Return what the daemon says of its machine; asked once. Raises DaemonGone where it is not reached."""
        return self._info or self.ask()

    def ask(self) -> DaemonInfo:
        """Return what the daemon says of its machine now. Raises DaemonGone where it is not reached."""
        with self.api() as api:
            told = api.info()
        self._info = DaemonInfo(
            architecture=told.get("Architecture", ""),
            cpus=int(told.get("NCPU", 0)),
            memory_bytes=int(told.get("MemTotal", 0)),
            name=told.get("Name", ""),
            security=frozenset(
                word.removeprefix("name=") for option in told.get("SecurityOptions") or () for word in option.split(",")
            ),
        )
        return self._info

    def _connect(self) -> Any:
        docker = _package(self.compute)
        settings: dict[str, Any] = {"timeout": _TIMEOUT_S}
        if self.url is None:
            settings |= _as_the_command_does(docker, self.compute)
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

    def _failure(self, error: Exception, fresh: bool) -> DaemonGone | None:
        """Return what to say of an error of the connection, None for what is none."""
        import requests

        docker = _package(self.compute)
        known = (docker.errors.DockerException, requests.exceptions.RequestException, ConnectionError, TimeoutError)
        if not isinstance(error, (*known, OSError)) and type(error).__module__.partition(".")[0] not in _NETWORKING:
            return None
        return self._unreachable(_cause(error), fresh)

    def _unreachable(self, why: str, fresh: bool) -> DaemonGone:
        what = "can't be reached" if fresh else "is gone"
        return DaemonGone(
            f"the Docker daemon of {self.title} {what}: {why}",
            "`docker info` there says whether it runs; `pipe compute status` asks all of them",
        )


def _lost(compute: str, why: str, help: str) -> DaemonGone:
    return DaemonGone(f"the Docker daemon of `{compute}` can't be reached: {why}", help)


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


def _address_of_the_command(compute: str) -> Address:
    """Return where the daemon is that the `docker` command uses here."""
    environ = os.environ
    host = environ.get("DOCKER_HOST")
    if host and not (environ.get("DOCKER_TLS_VERIFY") or environ.get("DOCKER_CERT_PATH")):
        return Address(url=host)
    if not host and (environ.get("DOCKER_CONTEXT") or _current_context()) == "default":
        return Address(url="unix:///var/run/docker.sock")
    settings = _as_the_command_does(_package(compute), compute)
    known = settings.get("tls") or None
    tls: dict[str, str] = {}
    if known is not None:
        cert, key = known.cert or (None, None)
        paths = {"ca": known.ca_cert if known.verify else None, "cert": cert, "key": key}
        tls = {name: path for name, path in paths.items() if path}
    return Address(url=str(settings["base_url"]), tls=tls, secure=known is not None)


def _settings_folder() -> str:
    return os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")


def _current_context() -> str:
    """Return the context that the `docker` command's settings name."""
    try:
        with open(os.path.join(_settings_folder(), "config.json"), "rb") as file:
            settings = json.load(file)
    except (OSError, ValueError):
        return "default"
    return str(settings.get("currentContext") or "default") if isinstance(settings, dict) else "default"


def _as_the_command_does(docker: Any, compute: str) -> dict[str, Any]:
    """Return the settings that DOCKER_HOST and its like, else DOCKER_CONTEXT or the current context, ask for. Raises
    DaemonGone."""
    host = os.environ.get("DOCKER_HOST")
    if host:
        try:
            settings: dict[str, Any] = docker.utils.kwargs_from_env()
        except docker.errors.DockerException:
            where = os.environ.get("DOCKER_CERT_PATH") or "~/.docker"
            raise _lost(
                compute,
                f"no certificates for {host}: `{where}` lacks `cert.pem` or `key.pem`",
                "DOCKER_CERT_PATH names their folder; without TLS, leave DOCKER_TLS_VERIFY out",
            ) from None
        if host.startswith("ssh://"):
            settings |= {"base_url": _with_port(host), "use_ssh_client": True}
        return settings
    name = os.environ.get("DOCKER_CONTEXT")
    called = f"Docker context `{name}`" if name else "current Docker context"
    try:
        url, keys, verified = _context(name or _current_context())
    except FileNotFoundError:
        help = "`docker context ls` shows them; DOCKER_HOST and DOCKER_CONTEXT name another one"
        raise _lost(compute, f"the {called} does not exist", help) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _lost(compute, f"the {called} can't be read: {error}", "`docker context ls` shows them") from None
    settings = {"base_url": url}
    if url.startswith("ssh://"):
        settings = {"base_url": _with_port(url), "use_ssh_client": True}
    if keys:
        pair = (keys["cert"], keys["key"]) if "cert" in keys and "key" in keys else None
        settings["tls"] = docker.tls.TLSConfig(client_cert=pair, ca_cert=keys.get("ca"), verify=verified)
    return settings


def _context(name: str) -> tuple[str, dict[str, str], bool]:
    """Return URL and keys of a context of the `docker` command, and whether its daemon's certificate is verified. Read
    here, since the package finds none where that command has written no settings besides."""
    from hashlib import sha256

    if name == "default":
        return "unix:///var/run/docker.sock", {}, False
    folder, digest = os.path.join(_settings_folder(), "contexts"), sha256(name.encode()).hexdigest()
    with open(os.path.join(folder, "meta", digest, "meta.json"), "rb") as file:
        endpoint = json.load(file)["Endpoints"]["docker"]
    paths = {key: os.path.join(folder, "tls", digest, "docker", f"{key}.pem") for key in ("ca", "cert", "key")}
    keys = {key: path for key, path in paths.items() if os.path.exists(path)}
    return str(endpoint["Host"]), keys, not endpoint.get("SkipTLSVerify")


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
    if isinstance(error, DaemonAnswer):
        return error.text
    if type(error).__module__ != "docker.errors" or not hasattr(error, "explanation"):
        return None
    return " ".join(str(error.explanation or error).split())


def is_missing(error: Exception) -> bool:
    """Return whether the daemon said that there is no such thing."""
    return _status(error) == 404


def is_conflict(error: Exception) -> bool:
    """Return whether the daemon said that a name is taken, or a thing is in use."""
    return _status(error) == 409


def _status(error: Exception) -> int | None:
    if isinstance(error, DaemonAnswer):
        return error.status
    return getattr(error, "status_code", None) if answer(error) is not None else None


def remove_container(container: Any) -> None:
    """Kill and remove a container of the package's; one that is gone, or being removed, is fine."""
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
