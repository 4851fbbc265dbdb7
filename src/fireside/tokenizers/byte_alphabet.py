"""The alphabet of byte-level BPE: one printable character for each byte (GPT-2, https://github.com/openai/gpt-2).

Bytes that print as themselves in Latin-1 stand for themselves; the others take the code points from 256 up.
"""

from __future__ import annotations

_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = tuple(byte for byte in range(256) if byte not in _PRINTABLE)

CHARACTER_TO_BYTE = {chr(byte): byte for byte in _PRINTABLE} | {chr(256 + n): byte for n, byte in enumerate(_OTHERS)}
