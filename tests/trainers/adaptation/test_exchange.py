from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from tuwen.sample_data.faulty_cloud import FAULTS, MENDS, UPLOADS, FaultyCloud, upload
from tuwen.trainers.adaptation import exchange
from tuwen.trainers.adaptation.client import Limits, ask
from tuwen.trainers.adaptation.server import AdaptServer, serving

MODEL, FEATURES, ANCHORS, COUNT = "0123456789abcdef", 8, 4, 40
ROWS = np.random.default_rng(0).uniform(-1, 1, (ANCHORS, FEATURES)).astype(np.float32)


def made(anchors: exchange.F32) -> exchange.F32:
    """Parameters from which can be seen what anchors came."""
    return np.resize(anchors.mean(0), COUNT).astype(np.float32)


@pytest.fixture(scope="module")
def server() -> Iterator[AdaptServer]:
    with serving(AdaptServer(made, MODEL, FEATURES, ANCHORS, seconds=1.0)) as running:
        yield running


def test_anchors_go_up_as_bytes_and_parameters_come_down_as_half_floats(server: AdaptServer) -> None:
    told = ask(server.url, MODEL, ROWS, COUNT, 1.0)
    assert told.reason == ""
    assert told.parameters is not None
    levels = np.rint(ROWS * 127) / np.float32(127)
    assert np.abs(told.parameters - made(levels.astype(np.float32))).max() < 1e-3
    assert ANCHORS * FEATURES < told.sent < ANCHORS * FEATURES + 500
    assert told.tries == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_the_cloud_does_the_device_goes_on(fault: str) -> None:
    limits = Limits(seconds=0.6, pause=0.02)
    with serving(FaultyCloud(fault, made, MODEL, FEATURES, ANCHORS, seconds=1.5)) as server:
        started = time.monotonic()
        told = ask(server.url, MODEL, ROWS, COUNT, 1.0, limits)
        passed = time.monotonic() - started
    assert (told.parameters is not None) == (fault in MENDS)
    assert bool(told.reason) != (fault in MENDS)
    assert passed < 5 * limits.seconds


def test_nobody_listens() -> None:
    told = ask("http://127.0.0.1:9", MODEL, ROWS, COUNT, 1.0, Limits(seconds=0.5, pause=0.02))
    assert told.parameters is None
    assert "curl 7" in told.reason


@pytest.mark.parametrize("name", UPLOADS)
def test_whatever_is_uploaded_the_server_goes_on(name: str, server: AdaptServer) -> None:
    wanted = UPLOADS[name][0]
    status, seconds = upload(server, name, exchange.pack_features(ROWS))
    assert status == wanted
    assert seconds < 3 * server.seconds
    assert ask(server.url, MODEL, ROWS, COUNT, 1.0).parameters is not None


def test_too_many_at_once_are_told_to_wait() -> None:
    def slow(anchors: exchange.F32) -> exchange.F32:
        time.sleep(0.5)
        return made(anchors)

    with serving(AdaptServer(slow, MODEL, FEATURES, ANCHORS, at_once=1)) as server:
        assert server.places.acquire(blocking=False)
        told = ask(server.url, MODEL, ROWS, COUNT, 1.0, Limits(seconds=2.0, tries=1))
        assert "503" in told.reason
        server.places.release()
        assert ask(server.url, MODEL, ROWS, COUNT, 1.0).parameters is not None


def test_a_model_that_fails_is_a_500() -> None:
    def broken(anchors: exchange.F32) -> exchange.F32:
        raise RuntimeError(f"no memory for {len(anchors)}")

    with serving(AdaptServer(broken, MODEL, FEATURES, ANCHORS)) as server:
        told = ask(server.url, MODEL, ROWS, COUNT, 1.0, Limits(seconds=2.0, pause=0.01))
    assert told.tries == 2
    assert "500" in told.reason
    assert "no memory" not in told.reason


def test_parameters_that_cannot_be_right_are_refused() -> None:
    for body, words in (
        (b"123", "3 bytes"),
        (np.array([np.inf] * 4, "<f2").tobytes(), "no numbers"),
        (np.array([3.0] * 4, "<f2").tobytes(), "never made one over 2"),
    ):
        with pytest.raises(ValueError, match=words):
            exchange.unpack_parameters(body, 4, 2.0)
    for wrong in (b"", b"1234567"):
        with pytest.raises(ValueError, match="no anchors"):
            exchange.unpack_features(wrong, FEATURES)
