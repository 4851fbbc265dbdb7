"""Writes a GGUF file anew in another type of llama.cpp: `requantize.py SOURCE TARGET Q4_0`.

What llama.cpp makes of it: the embedding, which is the head too, goes to a finer type than the rest.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import llama_cpp  # type: ignore[import-not-found]


def requantize(source: str, target: str, kind: str) -> None:
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    params.allow_requantize = True  # from 4 bits to other 4 bits; only the speed is of interest
    partial = Path(f"{target}.{os.getpid()}.partial")
    status = llama_cpp.llama_model_quantize(source.encode(), bytes(partial), ctypes.byref(params))
    if status:
        raise SystemExit(f"llama.cpp cannot requantise {source} to {kind}: error {status}")
    partial.replace(target)


if __name__ == "__main__":
    requantize(*sys.argv[1:])
