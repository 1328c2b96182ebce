from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tests.trainers.compression.nets import Stub
from tuwen.pipeline.errors import RunError, UsageError
from tuwen.trainers.compression import agent
from tuwen.trainers.compression.designs import super_resolution
from tuwen.trainers.compression.export import export
from tuwen.trainers.compression.network import Network
from tuwen.trainers.compression.profiler import LocalDevice, Measured, identity, interleaved, median, runner, share


def model(width: int) -> bytes:
    network = Network(super_resolution(width, 2))
    network.drop_unused()
    return export(network.eval(), torch.zeros(2, 3, 24, 24))


def test_the_interval_of_a_median_covers_it() -> None:
    rng = np.random.default_rng(0)
    inside = sum(low <= 1 <= high for _, low, high in (median(rng.exponential(1 / np.log(2), 25)) for _ in range(400)))
    assert 0.92 < inside / 400 < 1


def test_ratios_are_of_the_work_done() -> None:
    def work(n: int) -> None:
        sum(range(n))

    own, other = interleaved(lambda: work(40_000), lambda: work(10_000), 15)
    assert 3 < np.median(own / other) < 5


def test_a_busy_machine_does_not_change_a_share() -> None:
    """Half of the time everything is slower, the small model by twice as much."""
    rng = np.random.default_rng(0)
    slow = np.arange(20)[:, None] % 2
    other = (1 + 0.3 * slow) * (1 + rng.exponential(0.02, (20, 5)))
    own = 0.2 * (1 + 0.6 * slow) * (1 + rng.exponential(0.04, (20, 5)))
    assert np.median(own / other) > 0.215, "the median of ratios is what noise makes of it"
    value, low, high = share(own, other)
    assert value == pytest.approx(0.2, rel=0.02)
    assert 0.19 < low <= value <= high < 0.21


def test_a_larger_model_takes_longer_and_more_memory() -> None:
    small, large = model(8), model(48)
    device = LocalDevice()
    whole = device.refer(large)
    assert device.latency(small, 9).value < 0.6 * whole.value
    assert device.latency(identity(), 9).value < 0.3 * whole.value
    assert device.memory(large) > 0
    with pytest.raises(RunError, match="no reference yet"):
        LocalDevice().latency(small)
    with pytest.raises(RunError, match="cannot load"):
        runner(b"not a model")


@pytest.fixture
def address() -> Iterator[str]:
    server = agent.server(0, token="word", device=Stub())
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_agent_measures_what_it_is_sent(address: str) -> None:
    device = agent.RemoteDevice(address, "word")
    assert device.name == "stub"
    assert device.refer(b"x" * 3000) == Measured(3.0, pytest.approx(2.7), pytest.approx(3.3))  # type: ignore[arg-type]
    assert device.latency(b"x" * 2000).value == 2.0
    assert device.memory(b"x" * 2_000_000) == 2.0
    assert device.energy(b"x") is None


def test_the_agent_refuses_and_goes_on(address: str) -> None:
    with pytest.raises(RunError, match="the token is missing or wrong"):
        agent.RemoteDevice(address, "other")

    def status(path: str, body: bytes, token: str = "word") -> int:
        request = urllib.request.Request(f"{address}/{path}", body, {"Authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert status("latency", b"{") == 400
    assert status("latency", b'{"model": "###"}') == 400
    assert status("latency", b"[]") == 400
    assert status("nothing", b'{"model": ""}') == 404
    assert status("latency", b"") == 413
    assert agent.RemoteDevice(address, "word").latency(b"x" * 1000).value == 1.0


def test_a_real_device_behind_the_agent() -> None:
    server = agent.server(0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        device = agent.RemoteDevice(f"http://127.0.0.1:{server.server_port}")
        large = model(48)
        whole = device.refer(large)
        assert device.latency(model(8), 5).value < 0.6 * whole.value
        with pytest.raises(RunError, match="cannot load"):
            device.latency(b"not a model")
    finally:
        server.shutdown()
        server.server_close()


def test_no_agent() -> None:
    with pytest.raises(UsageError, match="is no address"):
        agent.RemoteDevice("localhost")
    with pytest.raises(RunError, match="no agent answers"):
        agent.RemoteDevice("http://127.0.0.1:9")
