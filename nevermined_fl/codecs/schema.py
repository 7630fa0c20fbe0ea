"""What tensors does a model have: names, dtypes and shapes, without the numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["DTYPES", "WIRE_DTYPES", "TensorSchema"]

DTYPES = {"F64": 8, "F32": 4, "F16": 2}
"""What a model's tensors may be, and bytes per number."""
WIRE_DTYPES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I8": 1}
"""What any file of ours may hold, in the order of the file: changes travel in BF16 and I8 too."""


@dataclass(frozen=True, slots=True)
class TensorSchema:
    """Name, safetensors dtype and shape of one tensor of the model."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def size(self) -> int:
        """Bytes."""
        return WIRE_DTYPES[self.dtype] * math.prod(self.shape)
