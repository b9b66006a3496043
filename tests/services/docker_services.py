"""Real Docker daemons for tests: one on a unix socket, a second one on TCP with TLS, and the way to one over ssh.

    python tests/services/docker_services.py start KIND FOLDER      KIND: unix, tls, ssh, registry, mortal, mapped
    python tests/services/docker_services.py stop FOLDER

`mortal` is one more daemon, on a small disk, for who calls `kill`, `end` and `revive` here: alone, since others would
miss it. `mapped` maps users: it makes the machine a user `dockremap`, as Docker does.

Each starts once, whoever asks first; what it needs to be reached lies in FOLDER/KIND. Needs root, and the Debian packages
docker.io, iptables, busybox-static, openssh-server, docker-registry.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tarfile
import time
from pathlib import Path

NEEDED = ("dockerd", "docker", "iptables", "busybox", "sshd", "docker-registry")
IMAGE = "pipesmith/python:test"
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def free_port(place: Path) -> int:
    """Choose a port of this machine, and write it down in `place`/port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    (place / "port").write_text(str(port))
    return port


def missing() -> list[str]:
    """Return the programs that are not here."""
    return [name for name in NEEDED if shutil.which(name, path=PATH) is None]


def start(kind: str, folder: Path) -> Path:
    """Start what `kind` names unless it runs, and return the folder that says how to reach it."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{kind}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        place = folder / kind
        if not (place / "ready").exists():
            for pid_file in place.glob("*.pid"):  # of a start that failed
                _end(pid_file)
            _unmount(place)
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            makers = {
                "unix": _unix,
                "tls": _tls,
                "ssh": _ssh,
                "registry": _registry,
                "mortal": _mortal,
                "mapped": _mapped,
            }
            makers[kind](place)
            (place / "ready").touch()
        return place


def stop(folder: Path) -> None:
    """End all that was started. Containers go with their daemons."""
    for pid_file in sorted(folder.glob("*/*.pid")):
        _end(pid_file)
    for pid_file in folder.glob("*/exec/containerd/containerd.pid"):  # of a daemon that was killed
        _end(pid_file)
    for place in folder.iterdir():
        _unmount(place)


def _unmount(place: Path) -> None:
    """Unmount what a daemon leaves mounted: of containers that go on, and of the machine's network that some had."""
    left = [*place.glob("data/*/*/merged"), *place.glob("exec/netns/*")]
    for path in left:
        subprocess.run(["umount", "-q", path], capture_output=True, check=False)
    subprocess.run(["umount", "-q", "-l", place / "data"], capture_output=True, check=False)


def _end(pid_file: Path) -> None:
    try:
        pid = int(pid_file.read_text().strip())
        os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError):
        return
    for _ in range(100):
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass  # another process started it
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)


def _daemon(place: Path, *flags: str) -> None:
    """Start a daemon with all of its own in one folder."""
    for _ in range(3):
        # One at a time: each makes the same chains of iptables anew. Daemons of others may do so too.
        with open(place.parent / "daemons.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _started(place, flags):
                return
    raise RuntimeError(f"no Docker daemon: {(place / 'log').read_text()[-2000:]}")


def _started(place: Path, flags: tuple[str, ...]) -> bool:
    apart = place / "machine"  # holds the name of the machine that it is to take this one for
    name = ("unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', apart.read_text()) if apart.exists() else ()
    with open(place / "log", "ab") as log:
        process = subprocess.Popen(
            [
                *name,
                shutil.which("dockerd", path=PATH) or "dockerd",
                f"--data-root={place}/data",
                f"--exec-root={place}/exec",
                f"--pidfile={place}/dockerd.pid",
                f"--host=unix://{place}/docker.sock",
                "--insecure-registry=127.0.0.0/8",
                *flags,
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PATH": f"{place}/bin:{PATH}"},
            start_new_session=True,
        )
    for _ in range(300):
        if docker(place, "version", check=False).returncode == 0:
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.1)
    process.kill()
    return False


def docker(
    place: Path, *args: str, check: bool = True, input: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run the `docker` command against the daemon of a folder."""
    environ = {"PATH": PATH, "HOME": str(place), "DOCKER_HOST": f"unix://{place}/docker.sock"}
    return subprocess.run(["docker", *args], env=environ, input=input, capture_output=True, check=check)


def _unix(place: Path) -> None:
    _daemon(place)
    _import_image(place)


def _mapped(place: Path) -> None:
    """Start a daemon whose containers' root is nobody on this machine."""
    _bridge("pipetest3", "172.30.9.1/24")
    _daemon(place, "--userns-remap=default", "--bridge=pipetest3", "--cgroup-parent=/pipetest3")
    _import_image(place)


def _import_image(place: Path) -> None:
    """Make an image of this very interpreter, its libraries and busybox: no registry is needed."""
    root = _root_of_images(place.parent)
    prefix = os.path.dirname(os.path.dirname(_python()))
    with open(root, "rb") as file:
        subprocess.run(
            ["docker", "import", "-c", f"ENV PATH={prefix}/bin:/usr/bin:/bin", "-", IMAGE],
            env={"PATH": PATH, "HOME": str(place), "DOCKER_HOST": f"unix://{place}/docker.sock"},
            stdin=file,
            capture_output=True,
            check=True,
        )


def _root_of_images(folder: Path) -> Path:
    """Return what lies in the image, as a tar that is made once."""
    root = folder / "rootfs.tar"
    with open(root.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            _pack_root(root)
    return root


def _python() -> str:
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def _pack_root(target: Path) -> None:
    python, library = _python(), sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix})
    left_out = ("test", "tests", "__pycache__", "site-packages", "dist-packages", "idlelib", "tkinter", "ensurepip")
    busybox = shutil.which("busybox", path=PATH)
    names = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    extensions = [str(path) for path in Path(library, "lib-dynload").glob("*.so")]
    told = subprocess.run(["ldd", python, *extensions], capture_output=True, text=True, check=False).stdout
    needed = {
        word
        for line in told.splitlines()
        for word in line.split()
        if word.startswith("/") and ".so" in word and word[-1] != ":"
    }

    def kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if os.path.basename(entry.name) in left_out or entry.name.endswith(".a") else entry

    partial = target.with_suffix(".part")
    with tarfile.open(partial, "w") as tar:
        tar.add(library, filter=kept)
        tar.add(python)
        bin_folder = os.path.dirname(python)
        for name in ("python3", "python"):
            _link(tar, f"{bin_folder}/{name}", python)
        for path in sorted(needed):
            tar.add(os.path.realpath(path), arcname=path)
        tar.add(busybox, arcname="bin/busybox")
        for name in names:
            if name not in ("busybox", "python", "python3"):
                _link(tar, f"bin/{name}", "/bin/busybox")
        _link(tar, "usr/bin/env", "/bin/busybox")
        for folder, mode in (("tmp", 0o1777), ("proc", 0o555), ("sys", 0o555), ("dev", 0o755), ("root", 0o700)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
    partial.rename(target)


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name.lstrip("/"))
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    tar.addfile(entry)


# What dockerd calls, where NVIDIA's container toolkit is installed, for a container that asks for GPUs: `nvidia-smi` is there then.
GPU_HOOK = r"""#!/bin/sh
PATH=/usr/bin:/bin
bundle=$(sed 's/.*"bundle":"\([^"]*\)".*/\1/')
root=$(sed 's/.*"root":{"path":"\([^"]*\)".*/\1/' "$bundle/config.json")
cat > "$root/bin/nvidia-smi" <<'END'
#!/bin/sh
visible=$(tr '\000' '\n' < /proc/1/environ | sed -n 's/^NVIDIA_VISIBLE_DEVICES=//p')
for gpu in $(echo $visible | tr , ' '); do echo "$((1000 * (gpu + 1))), $((10 * (gpu + 1)))"; done
END
chmod 755 "$root/bin/nvidia-smi"
"""


def _tls(place: Path) -> None:
    """Start a daemon whose machine has GPUs, as far as it can tell."""
    hook = place / "bin" / "nvidia-container-runtime-hook"
    hook.parent.mkdir()
    hook.write_text(GPU_HOOK)
    hook.chmod(0o755)

    def run(*args: str) -> None:
        subprocess.run(["openssl", *args], cwd=place, capture_output=True, check=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    run(
        "req", "-x509", *curve, "-days", "30", "-subj", "/CN=pipesmith-tests", "-keyout", "ca-key.pem", "-out", "ca.pem",
        "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
    )  # fmt: skip
    extensions = {
        "server": "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n",
        "client": "extendedKeyUsage=clientAuth\n",
    }
    for name, text in extensions.items():
        (place / f"{name}.ext").write_text(text)
        run("req", *curve, "-subj", f"/CN={name}", "-keyout", f"{name}-key.pem", "-out", f"{name}.csr")
        run(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial",
            "-out", f"{name}.pem", "-days", "30", "-extfile", f"{name}.ext",
        )  # fmt: skip
    _bridge("pipetest1", "172.30.7.1/24")
    _daemon(
        place,
        f"--host=tcp://127.0.0.1:{free_port(place)}",
        "--tlsverify",
        f"--tlscacert={place}/ca.pem",
        f"--tlscert={place}/server.pem",
        f"--tlskey={place}/server-key.pem",
        "--bridge=pipetest1",
        "--cgroup-parent=/pipetest1",
    )
    _import_image(place)


def _bridge(name: str, address: str) -> None:
    """Make a bridge for one daemon alone: with none, it would delete that of the first one."""
    if subprocess.run(["ip", "link", "show", name], capture_output=True, check=False).returncode != 0:
        for command in (
            ["ip", "link", "add", name, "type", "bridge"],
            ["ip", "addr", "add", address, "dev", name],
            ["ip", "link", "set", name, "up"],
        ):
            subprocess.run(command, check=True, capture_output=True)


SPARE_BYTES = 160 << 20  # on the disk of the mortal daemon, beside its image


def _mortal(place: Path) -> None:
    root = _root_of_images(place.parent)
    (place / "data").mkdir()
    size = f"size={root.stat().st_size + SPARE_BYTES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", place / "data"], check=True, capture_output=True)
    _bridge("pipetest2", "172.30.8.1/24")
    revive(place)
    _import_image(place)


def revive(place: Path, *flags: str) -> None:
    """Start the mortal daemon again, as it was; `--live-restore` among the flags: it takes up containers that run."""
    _end(place / "exec" / "containerd" / "containerd.pid")  # outlives a daemon that was killed, and keeps a new one out
    (place / "dockerd.pid").unlink(missing_ok=True)
    # Without iptables: what is started now and then must not touch what the network of the others stands on.
    own = ("--bridge=pipetest2", "--cgroup-parent=/pipetest2", "--iptables=false", "--ip6tables=false")
    _daemon(place, *own, *flags)


def move(place: Path, machine: str | None) -> None:
    """Have the mortal daemon take its machine for another one, of this name; None: for this one."""
    mark = place / "machine"
    if (mark.read_text() if mark.exists() else None) == machine:
        return
    if machine is None:
        mark.unlink()
    else:
        mark.write_text(machine)
    end(place)
    revive(place)


def kill(place: Path) -> None:
    """Kill the mortal daemon: it says goodbye to nobody, and its containers go on."""
    os.kill(int((place / "dockerd.pid").read_text()), signal.SIGKILL)


def end(place: Path) -> None:
    """Let the mortal daemon end in an orderly way; without `--live-restore` it ends its containers first."""
    _end(place / "dockerd.pid")


def _ssh(place: Path) -> None:
    """Start an sshd through which the second daemon is reached: its users' `docker` speaks to that one."""
    tls = start("tls", place.parent)
    port = free_port(place)
    for name in ("host", "id"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / name], check=True)
    os.makedirs("/run/sshd", exist_ok=True)
    (place / "authorized_keys").write_text((place / "id.pub").read_text())
    (place / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {place}/host\nAuthorizedKeysFile {place}/authorized_keys\n"
        f"PidFile {place}/sshd.pid\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        f"StrictModes no\nMaxStartups 100\nMaxSessions 100\nSetEnv DOCKER_HOST=unix://{tls}/docker.sock PATH={PATH}\n"
    )
    subprocess.run(
        [shutil.which("sshd", path=PATH) or "sshd", "-f", place / "sshd_config", "-E", place / "log"], check=True
    )
    key = (place / "host.pub").read_text().split()
    (place / "known_hosts").write_text(f"[127.0.0.1]:{port} {key[0]} {key[1]}\n")
    (place / "config").write_text(
        f"Host gpubox\n  HostName 127.0.0.1\n  Port {port}\n  User root\n  IdentityFile {place}/id\n"
        f"  UserKnownHostsFile {place}/known_hosts\n  BatchMode yes\n"
    )


def _registry(place: Path) -> None:
    port = free_port(place)
    (place / "config.yml").write_text(
        f"version: 0.1\nstorage:\n  filesystem: {{rootdirectory: {place}/data}}\n  delete: {{enabled: true}}\n"
        f"http: {{addr: 127.0.0.1:{port}}}\n"
    )
    with open(place / "log", "ab") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", place / "config.yml"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PATH": PATH},
            start_new_session=True,
        )
    (place / "registry.pid").write_text(str(process.pid))
    import urllib.request

    for _ in range(100):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=2).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"no registry: {(place / 'log').read_text()[-2000:]}")


if __name__ == "__main__":
    if sys.argv[1] == "start":
        print(start(sys.argv[2], Path(sys.argv[3]).resolve()))
    else:
        stop(Path(sys.argv[2]).resolve())
