"""What tests of reading pipeline.toml share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from pipesmith.errors import ConfigError
from pipesmith.pipeline.model import Pipeline
from pipesmith.pipeline.reader import read_pipeline


def _read(text: str, *, files: Mapping[str, bytes] | None = None, **more: Any) -> Pipeline:
    return read_pipeline(text, files=(files or {}).get, default_name="folder", **more)


@pytest.fixture
def read() -> Callable[..., Pipeline]:
    """Reads a text; files: path to bytes of what lies beside it."""
    return _read


@pytest.fixture
def faults() -> Callable[..., str]:
    """Reads a text that is wrong and returns what people see."""

    def faults(text: str, **more: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            _read(text, **more)
        assert caught.value.exit_code == 2
        return str(caught.value)

    return faults
