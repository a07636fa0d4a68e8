"""What reading a damaged weight file raises."""

import pickle
import struct

from safetensors import SafetensorError

__all__ = ["DAMAGED"]

#: Raised by torch and safetensors for files of random, flipped or missing bytes.
DAMAGED: tuple[type[Exception], ...] = (
    pickle.UnpicklingError, SafetensorError, struct.error, RuntimeError, ValueError, TypeError, AttributeError,
    AssertionError, LookupError, ArithmeticError, EOFError, OSError,
)  # fmt: skip
