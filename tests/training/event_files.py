"""Reads TensorBoard's event files as TensorBoard does: TFRecords, in the order of their names; a start voids what an
earlier start told of that step and later ones. (Its own EventAccumulator comes with 60 MB of TensorBoard.)"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog


def records(path: Path) -> Iterator[bytes]:
    """https://www.tensorflow.org/tutorials/load_data/tfrecord: length, its checksum, data, their checksum."""
    data, at = path.read_bytes(), 0
    while at + 12 <= len(data):
        (length, sum_of_length) = struct.unpack_from("<QI", data, at)
        assert sum_of_length == masked_crc32c(data[at : at + 8])
        body = data[at + 12 : at + 12 + length]
        if len(data) < at + 16 + length:  # cut short by a kill
            return
        assert struct.unpack_from("<I", data, at + 12 + length) == (masked_crc32c(body),)
        yield body
        at += 16 + length


def masked_crc32c(data: bytes) -> int:
    """RFC 3720, B.4, by its polynomial, bit by bit; then as TensorFlow masks it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def told(folder: Path) -> dict[str, list[tuple[int, float | str]]]:
    """Step and value by tag."""
    found: dict[str, list[tuple[int, float | str]]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for index, body in enumerate(records(path)):
            event = Event.FromString(body)
            if index == 0:
                assert event.file_version == "brain.Event:2"
            if event.session_log.status == SessionLog.START:
                found = {tag: [item for item in items if item[0] < event.step] for tag, items in found.items()}
            for value in event.summary.value:
                is_text = value.metadata.plugin_data.plugin_name == "text"
                shown = value.tensor.string_val[0].decode() if is_text else value.simple_value
                found.setdefault(value.tag, []).append((event.step, shown))
    return found
