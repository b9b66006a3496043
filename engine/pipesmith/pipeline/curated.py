"""Environments that come with pipesmith, for `extends = "curated:NAME"`: Python version and packages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["CURATED"]

CURATED: Mapping[str, Mapping[str, Any]] = {
    "sklearn": {"python": "3.11", "packages": ["scikit-learn>=1.5,<2", "pandas>=2.2,<3", "matplotlib>=3.8,<4"]},
    "pytorch": {"python": "3.11", "packages": ["torch>=2.3,<3", "numpy>=1.26"]},
    "xgboost": {"python": "3.11", "packages": ["xgboost>=2,<4", "scikit-learn>=1.5,<2", "pandas>=2.2,<3"]},
    "notebook": {"python": "3.11", "packages": ["papermill>=2.6,<3", "ipykernel>=6.29,<8", "pandas>=2.2,<3"]},
}
