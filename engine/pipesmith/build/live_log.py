"""What a stage logs through the SDK while it runs: lines of JSON, images and tables (docs/formats/context.md).

A sandboxed stage sees no `.git`, so it writes to a folder outside the workspace. Until the stage ends, the names under
`PIPE/logs/RUN/` are links to there, for those who follow a run; then they are the files themselves.
"""

from __future__ import annotations

import os
import shutil
import tempfile

from pipesmith.history.logged import files_of, lines_of

__all__ = ["LiveLog"]


class LiveLog:
    """What one stage logs, over all its attempts. log, files: where it writes, outside the workspace."""

    def __init__(self, log_path: str) -> None:
        self._lines, self._files = lines_of(log_path), files_of(log_path)
        self._folder = tempfile.mkdtemp(prefix="pipe-log-")
        self.log = os.path.join(self._folder, "log.jsonl")
        self.files = os.path.join(self._folder, "files")
        self._bring(self._lines, self.log)
        self._bring(self._files, self.files)

    @staticmethod
    def _bring(kept: str, live: str) -> None:
        """Take up what an earlier attempt left, and put a link in its place."""
        os.makedirs(os.path.dirname(kept), exist_ok=True)
        if os.path.islink(kept):  # of a build that was killed: what it led to is lost
            os.unlink(kept)
        elif os.path.lexists(kept):
            shutil.move(kept, live)
        os.symlink(live, kept)

    def close(self) -> None:
        """Put what was logged where it stays. Nothing stays of a stage that logged nothing."""
        for live, kept in ((self.log, self._lines), (self.files, self._files)):
            if os.path.islink(kept):
                os.unlink(kept)
            if os.path.lexists(live):
                shutil.move(live, kept)
        shutil.rmtree(self._folder, ignore_errors=True)
