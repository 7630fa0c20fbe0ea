"""What tensors does a model have: names, dtypes and shapes, without the numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["DTYPES", "TensorSchema"]

DTYPES = {"F32": 4, "F64": 8, "F16": 2}


@dataclass(frozen=True, slots=True)
class TensorSchema:
    """Name, safetensors dtype and shape of one tensor of the model."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def size(self) -> int:
        """Bytes."""
        return DTYPES[self.dtype] * math.prod(self.shape)
