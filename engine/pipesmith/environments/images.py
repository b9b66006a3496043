"""Environments as images: pulled by digest, or made of packages on a slim Python base; built once a daemon.

An image of packages is made without running anything of the index in the container: uv, here, with its own settings and
cache, installs the pinned set for the daemon's platform into a folder, which is sent into the base and committed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import threading
from _blake2 import blake2b
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from pipesmith.docker_client import Daemon, answer, is_missing, remove_container
from pipesmith.docker_labels import HELPER, OWNER, owner
from pipesmith.environments.definition import pin_digest
from pipesmith.environments.dockerfiles import build_dockerfile, words
from pipesmith.environments.materialise import count_text, ensure, hold
from pipesmith.environments.uv import explain, run_uv
from pipesmith.errors import EnvironmentFailure
from pipesmith.lockfile.model import EnvironmentPin
from pipesmith.pipeline.model import Environment

__all__ = ["Images", "base_of", "dockerfile_tag", "image_tag", "resolve_image"]

REPOSITORY = "pipesmith/environment"
CONDA_PLACE = "/opt/environment"  # where conda packages lie in an image
_LABEL = "pipesmith.environment"
_PROBE = """
import json, platform, sys, sysconfig
paths = [sysconfig.get_path("purelib"), sysconfig.get_path("scripts")]
print(json.dumps([list(sys.version_info[:2]), *paths, platform.machine(), platform.libc_ver()]))
"""
_SHEBANG = re.compile(rb"\A#!\S*python\S*")


def base_of(environment: Environment, pin: EnvironmentPin) -> str:
    """Return the image that an environment of packages stands on."""
    return environment.base or f"python:{'.'.join(pin.python.split('.')[:2])}-slim"


def image_tag(environment: Environment, pin: EnvironmentPin, architecture: str) -> str:
    """Return the tag of an environment of packages: the same for the same packages on the same base and processor."""
    return _tag(environment, "1", pin_digest(pin), base_of(environment, pin), architecture)


def dockerfile_tag(environment: Environment, digest: str, architecture: str) -> str:
    """Return the tag of the image of a Dockerfile, whose content `dockerfile_digest` stands for."""
    return _tag(environment, "1", digest, architecture)


def _tag(environment: Environment, *words: str) -> str:
    repository = f"{environment.registry.rstrip('/')}/{REPOSITORY}" if environment.registry else REPOSITORY
    return f"{repository}:{blake2b(chr(0).join(words).encode(), digest_size=16).hexdigest()}"


def resolve_image(daemon: Daemon, environment: Environment) -> str:
    """Return `image` with the digest that it has now: in its registry, else on the daemon.

    Raises EnvironmentFailure where neither has it."""
    assert environment.image is not None
    name = environment.image
    if "@sha256:" in name or name.startswith("sha256:"):
        return name
    repository = name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name
    with daemon.client() as client:
        try:
            digest = client.images.get_registry_data(name).id
            return f"{repository}@{digest}"
        except Exception as error:
            if answer(error) is None:
                raise
            refusal = error
        try:
            image = client.images.get(name)
        except Exception as error:
            if answer(error) is None:
                raise
            raise EnvironmentFailure(
                f"environment `{environment.name}`: the image `{name}` is neither in its registry nor on "
                f"{daemon.title}: {words(refusal)}",
                f"`docker pull {name}` there says more",
            ) from None
        known = [each for each in image.attrs.get("RepoDigests") or () if each.startswith(f"{repository}@")]
        return str(known[0] if known else image.id)


class Images:
    """The images of one build. said(text): told what takes long. making(environment, daemon's title, how, text): held
    while an image is brought to a daemon. beside(daemon): other daemons that may have an image already. Thread-safe;
    one image is made at a time, also by several builds of one user on this machine."""

    def __init__(
        self,
        root: str,
        said: Callable[[str], None],
        making: Callable[[str, str, str, str], AbstractContextManager[None]],
        beside: Callable[[Daemon], Sequence[Daemon]] = lambda _: (),
    ) -> None:
        self._root = root
        self._said = said
        self._making = making
        self._beside = beside
        self._known: set[tuple[int, str]] = set()
        # One for all daemons: two must not make one image at once, where one could give it to the other.
        self._guard = threading.Lock()

    def ensure(self, daemon: Daemon, environment: Environment, pin: EnvironmentPin) -> str:
        """Return the reference of an environment's image, which the daemon has then. Raises EnvironmentFailure."""
        if pin.image is not None:
            image = pin.image
            return self._have(daemon, environment, image, lambda client: self._pull(client, daemon, environment, image))
        name = image_tag(environment, pin, daemon.info().architecture)
        return self._have(daemon, environment, name, lambda client: self._make(client, daemon, environment, pin, name))

    def built(self, daemon: Daemon, environment: Environment, digest: str, context: Sequence[tuple[str, str]]) -> str:
        """Return the reference of a Dockerfile's image, built where the daemon lacks it. Raises EnvironmentFailure.

        digest: what stands for it in fingerprints. context: (absolute origin, path in its folder) of its files."""
        name = dockerfile_tag(environment, digest, daemon.info().architecture)
        labels = {_LABEL: digest}

        def make(client: Any) -> None:
            text = f"building the image of `{environment.dockerfile}` on {daemon.title}"
            with self._making(environment.name, daemon.title, "built", text):
                build_dockerfile(client, daemon, environment, name, context, labels)

        return self._have(daemon, environment, name, make)

    def _have(self, daemon: Daemon, environment: Environment, name: str, make: Callable[[Any], None]) -> str:
        """See to it that a daemon has an image: it has it, or another one gives it, or its registry, or it is made."""
        with self._guard:
            key = (id(daemon), name)
            if key in self._known:
                return name
            if not _is_on(daemon, name):
                with hold(f"image-{blake2b(name.encode(), digest_size=16).hexdigest()}", self._said):
                    if not _is_on(daemon, name):  # whoever held it may have made it
                        with daemon.client() as client:
                            self._bring(client, daemon, environment, name, make)
            self._known.add(key)
            return name

    def _bring(
        self, client: Any, daemon: Daemon, environment: Environment, name: str, make: Callable[[Any], None]
    ) -> None:
        if self._given(client, daemon, environment, name):
            return
        shared = bool(environment.registry) and not environment.image
        if shared and self._pulled(client, daemon, environment, name):
            return
        make(client)
        if shared:
            self._share(client, name)

    def push(self, daemon: Daemon, name: str) -> None:
        """Send an image that a daemon has to its registry. Raises EnvironmentFailure where that does not take it."""
        with daemon.client() as client:
            digest = _push(client, name)
        self._said(f"pushed `{name}`{f', {digest}' if digest else ''}")

    def _share(self, client: Any, name: str) -> None:
        """Send a new image to its registry, so that others need not make it; that it can't be is told, no more."""
        try:
            _push(client, name)
        except EnvironmentFailure as error:
            self._said(f"{error.text}; it is on this daemon alone")

    def _pulled(self, client: Any, daemon: Daemon, environment: Environment, name: str) -> bool:
        """Pull an image if its registry has it; return whether it did."""
        try:
            client.images.get_registry_data(name)
        except Exception as error:
            if answer(error) is None:
                raise
            return False
        text = f"pulling the image of the environment to {daemon.title}"
        with self._making(environment.name, daemon.title, "pulled", text):
            _pull_image(client, daemon, name)
        self._said(f"pulled the image of the environment to {daemon.title}")
        return True

    def _given(self, client: Any, daemon: Daemon, environment: Environment, name: str) -> bool:
        """Stream an image from a daemon beside that has it, if one does; return whether it is there now."""
        if "@sha256:" in name:
            return False  # by the name of a registry, which is quicker, and which alone keeps the name
        for other in self._beside(daemon):
            try:
                with other.client() as donor:
                    if other.info().architecture != daemon.info().architecture or not _has(donor, name):
                        continue
                    text = f"sending the image `{name[:60]}` from {other.title} to {daemon.title}"
                    with self._making(environment.name, daemon.title, "sent", text):
                        client.api.load_image(donor.api.get_image(name))
            except EnvironmentFailure:
                continue  # that one can't be reached
            if _has(client, name):
                return True
        return False

    def _pull(self, client: Any, daemon: Daemon, environment: Environment, name: str) -> None:
        if name.startswith("sha256:"):
            raise EnvironmentFailure(
                f"the image `{name[:19]}` is not on {daemon.title}, and no registry has it",
                "push it to a registry and name it by that, or build it there and run `pipe env update`",
            )
        with self._making(environment.name, daemon.title, "pulled", f"pulling the image `{name}` to {daemon.title}"):
            _pull_image(client, daemon, name)

    def _make(self, client: Any, daemon: Daemon, environment: Environment, pin: EnvironmentPin, tag: str) -> None:
        base = base_of(environment, pin)
        if not _has(client, base):
            self._pull(client, daemon, environment, base)
        platform = _platform(daemon)
        text = f"building an image of {count_text(pin, platform)} on `{base}`, on {daemon.title}"
        with self._making(environment.name, daemon.title, "built", text):
            if pin.conda:
                self._commit_conda(client, pin, tag, base, platform)
            else:
                self._commit(client, daemon, environment, pin, tag, base)

    def _commit_conda(self, client: Any, pin: EnvironmentPin, tag: str, base: str, platform: str) -> None:
        """Make an image of conda packages: installed here for the daemon's platform, and sent as they lie there."""
        from pipesmith.environments.conda import this_platform
        from pipesmith.environments.conda_install import activation, install_conda, moved

        container = client.containers.create(base, command=["none"], **_as_helper())
        try:
            with ExitStack() as stack:
                if platform == this_platform():
                    made = ensure(pin, self._said, root=self._root)
                    prefix, variables = str(made.prefix), dict(made.variables)
                else:
                    scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="pipe-conda-for-another-machine-"))
                    prefix = os.path.join(scratch, "environment")
                    install_conda(pin, prefix, platform, self._root)
                    if pin.resolved:
                        raise EnvironmentFailure(
                            f"packages of an index beside those of conda can't be installed for {platform} from here",
                            "name them in `conda`, or build the image there: `dockerfile`",
                        )
                    variables = activation(prefix)
                from pipesmith.tars import Parcel, pack

                copy = stack.enter_context(moved(prefix, CONDA_PLACE))
                container.put_archive("/", pack([Parcel(copy, CONDA_PLACE)], 0, 0))
            path = next((each[5:] for each in _environment_of(client, base) if each.startswith("PATH=")), os.defpath)
            variables = {name: value.replace(prefix, CONDA_PLACE) for name, value in variables.items()}
            told = {**variables, "PATH": f"{CONDA_PLACE}/bin:{path}"}
            _commit(container, tag, pin, {"Env": [f"{name}={value}" for name, value in sorted(told.items())]})
        finally:
            remove_container(container)

    def _commit(
        self, client: Any, daemon: Daemon, environment: Environment, pin: EnvironmentPin, tag: str, base: str
    ) -> None:
        (major, minor), library, scripts, machine, libc = _look_inside(client, environment, base)
        if pin.python.split(".")[:2] != [str(major), str(minor)]:
            raise EnvironmentFailure(
                f"environment `{environment.name}` asks for Python {pin.python}, "
                f"and its base `{base}` has {major}.{minor}",
                f'write `python = "{major}.{minor}"`, or another `base`',
            )
        container = client.containers.create(base, command=["none"], **_as_helper())
        try:
            if pin.resolved:
                with _installed(pin, machine, libc, self._root) as folder:
                    _send(container, folder, library, scripts)
            _commit(container, tag, pin, {})
        finally:
            remove_container(container)


def _platform(daemon: Daemon) -> str:
    """Return the platform of a daemon, as conda calls it."""
    architecture = daemon.info().architecture
    return f"linux-{'64' if architecture == 'x86_64' else architecture}"


def _environment_of(client: Any, image: str) -> list[str]:
    return list(client.images.get(image).attrs.get("Config", {}).get("Env") or ())


def _commit(container: Any, tag: str, pin: EnvironmentPin, settings: dict[str, Any]) -> None:
    repository, _, version = tag.rpartition(":")
    labels = {_LABEL: pin_digest(pin), OWNER: ""}  # what is made of it is nobody's
    conf = {"Labels": labels, "Cmd": ["python3"], **settings}
    container.commit(repository=repository, tag=version, conf=conf)


def _pull_image(client: Any, daemon: Daemon, name: str) -> None:
    try:
        client.images.pull(name)
    except Exception as error:
        if answer(error) is None:
            raise
        raise EnvironmentFailure(
            f"the image `{name}` can't be pulled to {daemon.title}: {words(error)}",
            f"`docker pull {name}` says more",
        ) from None


def _as_helper() -> dict[str, Any]:
    """Return by what a container is known as one that nobody needs once its pipe is gone."""
    return {"name": f"{HELPER}image-{os.urandom(8).hex()}", "labels": {OWNER: owner()}}


def _push(client: Any, name: str) -> str | None:
    """Push a tag and return the digest that its registry gives it."""
    digest: str | None = None
    repository, _, tag = name.rpartition(":")
    for line in client.api.push(repository, tag=tag, stream=True, decode=True):
        if "error" in line:
            raise EnvironmentFailure(
                f"the image `{name}` can't be pushed: {' '.join(str(line['error']).split())}",
                "`docker login` of its registry may be missing on this machine",
            )
        digest = (line.get("aux") or {}).get("Digest", digest)
    return digest


def _is_on(daemon: Daemon, name: str) -> bool:
    """Return whether a daemon has an image; asked without the package, which most builds need for nothing else."""
    with daemon.api() as api:
        return api.has_image(name)


def _has(client: Any, name: str) -> bool:
    try:
        client.images.get(name)
    except Exception as error:
        if is_missing(error):
            return False
        raise
    return True


def _look_inside(client: Any, environment: Environment, base: str) -> Any:
    """Return the version, folders and platform of a base's Python, as `_PROBE` prints them."""
    for python in ("python3", "python"):
        container = client.containers.create(
            base, command=[python, "-c", _PROBE], entrypoint=[], network_mode="none", **_as_helper()
        )
        try:
            container.start()
            if container.wait(timeout=60)["StatusCode"] == 0:
                return json.loads(container.logs(stdout=True, stderr=False))
        except Exception as error:
            if answer(error) is None:
                raise
        finally:
            remove_container(container)
    raise EnvironmentFailure(
        f"environment `{environment.name}`: the base `{base}` has no Python", "name one that has, as `base`"
    )


@contextmanager
def _installed(pin: EnvironmentPin, machine: str, libc: list[str], root: str) -> Iterator[str]:
    """Give a folder that holds the pinned set as a container of this platform needs it."""
    flavour = "manylinux_2_28" if libc and libc[0] == "glibc" else "unknown-linux-musl"
    platform = f"{machine}-{flavour}"
    with tempfile.TemporaryDirectory(prefix="pipe-image-") as scratch:
        wanted, folder = os.path.join(scratch, "wanted.txt"), os.path.join(scratch, "packages")
        with open(wanted, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in pin.resolved)
        arguments = ["pip", "install", "--quiet", "--require-hashes", "--no-deps", "--only-binary", ":all:"]
        arguments += ["--target", folder, "--python-version", pin.python, "--python-platform", platform]
        done = run_uv([*arguments, "--requirements", wanted], cwd=root)
        if done.returncode != 0:
            what, whole = explain(done.stderr)
            raise EnvironmentFailure(f"an image can't be built: {what}", f"uv says: {whole}")
        yield folder


def _send(container: Any, folder: str, library: str, scripts: str) -> None:
    from pipesmith.tars import Parcel, pack

    programs = os.path.join(folder, "bin")
    apart = f"{folder}-bin"
    parcels = []
    if os.path.isdir(programs):
        shutil.move(programs, apart)
        for name in os.listdir(apart):
            _mend_shebang(os.path.join(apart, name))
            parcels.append(Parcel(os.path.join(apart, name), f"{scripts}/{name}"))
    parcels += [Parcel(os.path.join(folder, name), f"{library}/{name}") for name in os.listdir(folder)]
    container.put_archive("/", pack(parcels, 0, 0))


def _mend_shebang(path: str) -> None:
    """Let a script of uv's start the container's Python."""
    with open(path, "rb") as file:
        data = file.read()
    mended = _SHEBANG.sub(b"#!/usr/bin/env python3", data)
    if mended != data:
        with open(path, "wb") as file:
            file.write(mended)
