"""What a stage logs through the SDK while it runs: lines of JSON, images and tables (docs/formats/context.md).

A sandboxed stage sees no `.git`, so it writes to a folder outside the workspace. Until the stage ends, the names under
`PIPE/logs/RUN/` are links to there, for those who follow a run; then they are the files themselves.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence

from pipesmith.executors.output import usable_secrets
from pipesmith.history.logged import files_of, lines_of
from pipesmith.store.modes import make_folders, share_all

__all__ = ["LiveLog"]

_MASK = b"***"


class LiveLog:
    """What one stage logs, over all its attempts. log, files: where it writes, in a folder below `parent`, outside the
    workspace. secrets: values that are masked in what stays."""

    def __init__(self, log_path: str, secrets: Sequence[str] = (), parent: str | None = None) -> None:
        self._secret = _pattern(secrets)
        self._lines, self._files = lines_of(log_path), files_of(log_path)
        self._folder = tempfile.mkdtemp(prefix="pipe-log-", dir=parent)
        self.log = os.path.join(self._folder, "log.jsonl")
        self.files = os.path.join(self._folder, "files")
        self._bring(self._lines, self.log)
        self._bring(self._files, self.files)

    @staticmethod
    def _bring(kept: str, live: str) -> None:
        """Take up what an earlier attempt left, and put a link in its place."""
        make_folders(os.path.dirname(kept))
        if os.path.islink(kept):  # of a build that was killed: what it led to is lost
            os.unlink(kept)
        elif os.path.lexists(kept):
            shutil.move(kept, live)
        os.symlink(live, kept)

    def close(self) -> None:
        """Put what was logged where it stays. Nothing stays of a stage that logged nothing."""
        if self._secret is not None:
            self._mask(self._secret)
        for live, kept in ((self.log, self._lines), (self.files, self._files)):
            if os.path.islink(kept):
                os.unlink(kept)
            if os.path.lexists(live):
                shutil.move(live, kept)
                share_all(kept)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _mask(self, secret: re.Pattern[bytes]) -> None:
        """Mask secrets in lines and tables, and in the names of files; images are what the stage drew."""
        paths = [self.log]
        for name in os.listdir(self.files) if os.path.isdir(self.files) else ():
            masked = os.fsdecode(secret.sub(_MASK, os.fsencode(name)))
            os.rename(os.path.join(self.files, name), os.path.join(self.files, masked))
            if masked.endswith(".json"):
                paths.append(os.path.join(self.files, masked))
        for path in paths:
            if not os.path.isfile(path) or os.path.islink(path):
                continue
            with open(path, "rb") as file:
                data = file.read()
            if (masked_data := secret.sub(_MASK, data)) != data:
                with open(path, "wb") as file:
                    file.write(masked_data)


def _pattern(secrets: Sequence[str]) -> re.Pattern[bytes] | None:
    """Return what finds secrets, as they are and as JSON writes them."""
    forms = set()
    for secret in usable_secrets(secrets):
        forms.add(secret)
        text = secret.decode("utf-8", "surrogateescape")
        for ascii in (True, False):
            forms.add(json.dumps(text, ensure_ascii=ascii)[1:-1].encode("utf-8", "surrogateescape"))
    listed = sorted(forms, key=lambda form: (-len(form), form))
    return re.compile(b"|".join(map(re.escape, listed))) if listed else None
