"""The programs under test, each in an environment of its own below the bench's folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.graphs import Shape, lay_out
from bench.measure import Command, environment, run_once

__all__ = ["Tools", "prepare_tools"]

ROOT = Path(__file__).resolve().parent.parent
PEERS = ("dvc==3.67.1", "snakemake==9.27.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """work: where graphs are laid out. python, pipe: of the normal install. peers: where dvc and snakemake are."""

    work: Path
    python: str
    pipe: str
    peers: Path | None

    def command(self, tool: str, repo: Path, *more: str) -> Command:
        """Return the command that brings a laid-out graph up to date (for git: looks at it)."""
        peers = str(self.peers)
        args = {
            "git": ["git", "status", "--porcelain"],
            "python": [self.python, "-c", "pass"],
            "pipe": [self.pipe, "build"],
            "make": ["make", "-rRs", "-j2"],
            "ninja": ["ninja", "--quiet", "-j2"],
            "dvc": [f"{peers}/dvc", "repro", "-q"],
            "snakemake": [f"{peers}/snakemake", "-j2", "-q"],
        }[tool]
        return Command(args=[*args, *more], cwd=repo)

    def built(self, tool: str, shape: Shape) -> Path:
        """Lay a graph out for a tool, build it, and return its repository."""
        repo = lay_out(self.work, tool, shape)
        environ = environment()
        if tool == "dvc":
            run_once(Command(args=[f"{self.peers}/dvc", "init", "-q"], cwd=repo), environ)
        if tool != "git":
            run_once(self.command(tool, repo), environ)
        return repo


def prepare_tools(work: Path, *, peers: bool) -> Tools:
    """Install pipesmith as its users do, and DVC and Snakemake beside it; where these can't be had, it is said."""
    work.mkdir(parents=True, exist_ok=True)
    own = _venv(work / "venv-pipe")
    _pip(own, "hatchling")
    _pip(own, "--no-build-isolation", f"{ROOT}[docker]")
    _uv(own, "--no-build-isolation", "--no-deps", "--reinstall", str(ROOT))
    found = None
    if peers:
        others = _venv(work / "venv-peers")
        try:
            _pip(others, *PEERS, constrained=False)
            found = others
        except subprocess.CalledProcessError:
            print(f"bench: {' and '.join(PEERS)} can't be installed; left out", file=sys.stderr)
    return Tools(work=work, python=str(own / "python"), pipe=str(own / "pipe"), peers=found)


def _venv(folder: Path) -> Path:
    if not (folder / "bin/pip").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return folder / "bin"


def _uv(bin_folder: Path, *words: str) -> None:
    """Install as uv does, and pip since 25.1: an older pip writes scripts that import `re`, for 4 ms."""
    uv = [sys.executable, "-m", "uv", "pip", "install", "-q", "--compile-bytecode", "--no-config"]
    subprocess.run([*uv, "--python", str(bin_folder / "python"), *words], check=True)


def _pip(bin_folder: Path, *words: str, constrained: bool = True) -> None:
    constraints = ["-c", str(ROOT / "constraints.txt")] if constrained else []
    command = [str(bin_folder / "python"), "-m", "pip", "--disable-pip-version-check", "install", "-q", "--compile"]
    subprocess.run([*command, *constraints, *words], check=True)
