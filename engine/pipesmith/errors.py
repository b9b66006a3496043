"""The exceptions of pipesmith, each with its exit code.

PipeError
├── UserError            2  wrong use: a bad flag, an unknown stage, no git repository
│   └── ConfigError      2  pipeline.toml is wrong: carries every finding, with file, line and key
├── StageError           1  a stage failed, or an output is damaged or missing
├── EnvironmentFailure   1  an environment, compute, remote or disk did not do what it should
├── Cancelled          130  interrupted
└── InternalError       70  a bug of pipesmith: the only one shown with a traceback

The library raises; only `pipesmith.cli` prints.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "Cancelled",
    "ConfigError",
    "EnvironmentFailure",
    "Finding",
    "InternalError",
    "PipeError",
    "StageError",
    "UserError",
    "nearest",
]


class PipeError(Exception):
    """Base of all errors that pipesmith raises on purpose.

    text: one line, lower case, no full stop. help: one line with something to type, or None.
    """

    exit_code = 1
    kind = "error"

    def __init__(self, text: str, help: str | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.help = help

    def findings(self) -> list[Finding]:
        """Return the error as findings, the form that `--json` prints."""
        return [Finding(text=self.text, help=self.help)]

    @property
    def headline(self) -> str:
        """The first finding in one line, after file, line and key where it has them."""
        return self.findings()[0].headline


class UserError(PipeError):
    """The command was used in a way that cannot work."""

    exit_code = 2
    kind = "user"


class Finding:
    """One fault of a file. line: from 1, or None. key: dotted path such as `stage.train.inputs`, or None."""

    __slots__ = ("file", "help", "key", "line", "text")

    def __init__(
        self,
        *,
        text: str,
        file: str | None = None,
        line: int | None = None,
        key: str | None = None,
        help: str | None = None,
    ) -> None:
        self.file = file
        self.line = line
        self.key = key
        self.text = text
        self.help = help

    @property
    def headline(self) -> str:
        """`FILE:LINE: KEY: TEXT`, as far as there is a file and a key."""
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(word for word in (where if self.file else None, self.key, self.text) if word)

    def render(self) -> str:
        """Return the headline, after `error:` where it names no file, then a `help:` line where there is one."""
        head = self.headline if self.file else f"error: {self.headline}"
        return f"{head}\nhelp: {self.help}" if self.help else head

    def as_json(self) -> dict[str, object]:
        """Return the finding as `--json` prints it."""
        return {"file": self.file, "line": self.line, "key": self.key, "text": self.text, "help": self.help}


class ConfigError(UserError):
    """A file that people write is wrong. Holds every finding, in the order of the file."""

    kind = "config"

    def __init__(self, findings: Sequence[Finding]) -> None:
        first = findings[0]
        super().__init__(first.text, first.help)
        self._findings = list(findings)

    def findings(self) -> list[Finding]:
        return self._findings

    def __str__(self) -> str:
        return "\n".join(finding.render() for finding in self._findings)


class StageError(PipeError):
    """A stage failed, or what it made is missing or damaged."""

    kind = "stage"


class EnvironmentFailure(PipeError):
    """Something around pipesmith (an environment, compute, remote, the disk) did not do what it should.

    where: file, line and key of what asked for it, None where no file did."""

    kind = "environment"
    where: tuple[str, int | None, str] | None = None

    def findings(self) -> list[Finding]:
        file, line, key = self.where or (None, None, None)
        return [Finding(file=file, line=line, key=key, text=self.text, help=self.help)]


class Cancelled(PipeError):
    """The user interrupted."""

    exit_code = 130
    kind = "cancelled"

    def __init__(self, text: str = "interrupted", help: str | None = None) -> None:
        super().__init__(text, help)


class InternalError(PipeError):
    """A bug of pipesmith."""

    exit_code = 70
    kind = "internal"


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """Return the valid name nearest to `name`, or None where none is near. Upper and lower case are told apart last."""
    from difflib import get_close_matches

    names = list(valid)
    found = get_close_matches(name, names, n=1, cutoff=0.6)
    return found[0] if found else next((known for known in names if known.casefold() == name.casefold()), None)
