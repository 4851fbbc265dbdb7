"""Frames survive any splitting of the stream, and damage is an error, never a hang or another message."""

from __future__ import annotations

import socket
import threading

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireside.engine import framing
from fireside.engine.framing import FrameError, FrameSender, FrameSplitter, decode_payload, encode_frame, read_frames
from fireside.engine.messages import Cancel, GenerationRequest, SamplingParams, Shutdown, Submit, ToWorker

requests = st.builds(
    GenerationRequest,
    id=st.text(max_size=20),
    prompt_ids=st.lists(st.integers(0, 2**31)).map(tuple),
    sampling=st.builds(
        SamplingParams,
        max_tokens=st.integers(0, 2**31),
        temperature=st.floats(allow_nan=False),
        logit_bias=st.dictionaries(st.integers(0, 2**31), st.floats(allow_nan=False), max_size=5),
        stop_token_ids=st.lists(st.integers(0, 2**31), max_size=5).map(tuple),
        seed=st.integers(-(2**63), 2**64 - 1),
        logprobs=st.none() | st.integers(0, 20),
    ),
    grammar=st.none() | st.text(max_size=50),
)
messages = st.builds(Submit, requests) | st.builds(Cancel, st.text(max_size=20)) | st.just(Shutdown())


def request_with_seed(seed: int) -> GenerationRequest:
    return GenerationRequest(id="r", prompt_ids=(1,), sampling=SamplingParams(max_tokens=1, seed=seed))


def decoder() -> msgspec.msgpack.Decoder[ToWorker]:
    return msgspec.msgpack.Decoder(ToWorker)


@given(st.lists(messages, max_size=5), st.data())
def test_every_splitting_gives_the_same_messages(sent: list[ToWorker], data: st.DataObject) -> None:
    stream = b"".join(encode_frame(message) for message in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    splitter = FrameSplitter()
    received: list[ToWorker] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += [decode_payload(payload, decoder()) for payload in splitter.feed(stream[start:end])]
    assert received == sent
    assert not splitter.incomplete


@given(st.binary(max_size=200))
def test_noise_is_refused_or_incomplete(noise: bytes) -> None:
    splitter = FrameSplitter()
    try:
        for payload in splitter.feed(noise):
            decode_payload(payload, decoder())
    except FrameError:
        return
    assert splitter.incomplete or not noise


@given(messages, st.data())
def test_a_damaged_byte_never_raises_anything_else(message: ToWorker, data: st.DataObject) -> None:
    frame = bytearray(encode_frame(message))
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    splitter = FrameSplitter()
    try:
        decoded = [decode_payload(payload, decoder()) for payload in splitter.feed(bytes(frame))]
    except FrameError:
        return
    assert decoded != [message]


def test_a_frame_that_claims_too_much_is_refused_before_its_payload() -> None:
    with pytest.raises(FrameError, match="most allowed"):
        FrameSplitter().feed((framing.MAX_FRAME + 1).to_bytes(4, "big"))


def test_a_message_that_is_too_long_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "MAX_FRAME", 100)
    with pytest.raises(FrameError, match="longer than a frame"):
        encode_frame(Cancel("x" * 200))


@pytest.mark.parametrize("message", [Cancel("\ud800"), Submit(request_with_seed(2**70))])
def test_a_message_that_msgpack_cannot_hold_is_not_sent(message: ToWorker) -> None:
    with pytest.raises(FrameError, match="cannot be encoded"):
        encode_frame(message)


def test_a_payload_of_another_type_is_refused() -> None:
    with pytest.raises(FrameError, match="cannot be decoded"):
        decode_payload(msgspec.msgpack.encode({"type": "reboot"}), decoder())


def test_frames_of_many_threads_stay_whole() -> None:
    ours, theirs = socket.socketpair()
    sender = FrameSender(ours)
    sent = [[Cancel(f"{thread}-{number}" + "." * 9999) for number in range(20)] for thread in range(4)]
    threads = [threading.Thread(target=lambda part=part: [sender.send(message) for message in part]) for part in sent]
    for thread in threads:
        thread.start()
    received: list[ToWorker] = []
    with ours, theirs:
        for payload in read_frames(theirs):
            received.append(decode_payload(payload, decoder()))
            if len(received) == 80:
                ours.shutdown(socket.SHUT_WR)
    for thread in threads:
        thread.join()
    assert sorted(received, key=repr) == sorted((message for part in sent for message in part), key=repr)


def test_an_end_within_a_frame_is_an_error() -> None:
    ours, theirs = socket.socketpair()
    ours.sendall(encode_frame(Cancel("whole")) + encode_frame(Cancel("broken"))[:-1])
    ours.close()
    with theirs:
        frames = read_frames(theirs)
        assert decode_payload(next(frames), decoder()) == Cancel("whole")
        with pytest.raises(FrameError, match="within a frame"):
            next(frames)
