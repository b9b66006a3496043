"""Asserts in the helpers say what differed, as those of tests do."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("property.history", "property.oracle", "tests.property.history", "tests.property.oracle")
