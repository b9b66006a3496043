"""Why a stage is not fresh, as typed values."""

from __future__ import annotations

from pipesmith.records import record

__all__ = ["REASON_KINDS", "Reason"]

REASON_KINDS = (
    "new",
    "run",
    "source",
    "input",
    "param",
    "env",
    "environment",
    "hash-path",
    "output-missing",
    "output-changed",
    "reuse-off",
    "forced",
    "upstream",
)


@record(kw_only=False)
class Reason:
    """One cause. kind: of REASON_KINDS. item: which param, input, path … old, new: short texts, None where there is
    none."""

    kind: str
    item: str = ""
    old: str | None = None
    new: str | None = None

    def as_json(self) -> dict[str, str | None]:
        return {"kind": self.kind, "item": self.item, "old": self.old, "new": self.new}
