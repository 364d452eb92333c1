"""The proxy of the fault suite does to connections what it says, before a real Redis."""

import random
import socket
import time
from collections.abc import Iterator

import pytest
import redis

from tests.faults.proxy import TcpProxy
from tests.service import wait_until

CONNECTIONS = 40


@pytest.fixture
def proxy(clean_redis_url: str) -> Iterator[TcpProxy]:
    with TcpProxy(clean_redis_url.removeprefix("unix://")) as running:
        yield running


@pytest.fixture
def direct(clean_redis_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(clean_redis_url) as client:
        yield client


def connect(proxy: TcpProxy, protocol: int = 3) -> "redis.Connection":
    """One connection that never reconnects by itself."""
    connection = redis.Connection(port=proxy.port, socket_timeout=1, protocol=protocol, retry=None)
    connection.connect()
    return connection


def ask(connection: "redis.Connection", *words: str | float) -> object:
    connection.send_command(*words)
    return connection.read_response()


def test_it_passes_everything_on(proxy: TcpProxy, direct: "redis.Redis") -> None:
    client = redis.Redis.from_url(proxy.url)
    value = random.Random(1).randbytes(3_000_000)
    client.set("large", value)
    assert direct.get("large") == value
    assert client.get("large") == value


def test_it_reaches_a_redis_on_a_port(proxy: TcpProxy) -> None:
    with TcpProxy(f"127.0.0.1:{proxy.port}") as second:
        assert ask(connect(second), "PING") == b"PONG"


def test_a_delay_is_added_to_each_round_trip(proxy: TcpProxy) -> None:
    connection = connect(proxy)
    proxy.delay(0.2)
    started = time.monotonic()
    ask(connection, "PING")
    assert 0.2 <= time.monotonic() - started < 0.4


def test_a_delay_holds_no_pipeline_up_and_keeps_its_order(proxy: TcpProxy) -> None:
    connection = connect(proxy)
    proxy.delay(0.2)
    started = time.monotonic()
    for number in range(50):
        connection.send_command("ECHO", number)
        if number == 40:
            proxy.pass_on()
    answers = [connection.read_response() for _ in range(50)]
    assert answers == [str(number).encode() for number in range(50)]
    assert time.monotonic() - started < 0.6


def test_reset_cuts_all_connections_with_rst_and_takes_new_ones(proxy: TcpProxy) -> None:
    plain = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(3)]
    for one in plain:
        one.sendall(b"*1\r\n$4\r\nPING\r\n")
        assert one.recv(100) == b"+PONG\r\n"
    proxy.reset()
    for one in plain:
        with pytest.raises(ConnectionResetError):
            one.recv(100)
        one.close()
    assert ask(connect(proxy), "PING") == b"PONG"


def test_refusing_cuts_old_connections_and_refuses_new_ones_until_it_passes_on(
    proxy: TcpProxy,
) -> None:
    connection = connect(proxy)
    proxy.refuse()
    with pytest.raises(redis.ConnectionError):
        ask(connection, "PING")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port))
    proxy.pass_on()
    assert ask(connect(proxy), "PING") == b"PONG"


def test_a_client_of_a_redis_that_is_away_is_cut() -> None:
    with TcpProxy("/nowhere/redis.sock") as proxy:
        plain = socket.create_connection(("127.0.0.1", proxy.port))
        plain.settimeout(2)
        with pytest.raises(ConnectionResetError):
            plain.recv(100)
        plain.close()


def test_swallowing_drops_bytes_both_ways_and_keeps_tcp_alive(
    proxy: TcpProxy, direct: "redis.Redis"
) -> None:
    asking, waiting = connect(proxy), connect(proxy)
    waiting.send_command("BLPOP", "list", 0)
    wait_until(lambda: direct.info("clients")["blocked_clients"] == 1)
    proxy.swallow()
    with pytest.raises(redis.TimeoutError):
        ask(asking, "INCR", "counter")
    direct.rpush("list", "popped and dropped")
    with pytest.raises(redis.TimeoutError):
        waiting.read_response(disconnect_on_error=False)
    late = socket.create_connection(("127.0.0.1", proxy.port), timeout=1)
    late.sendall(b"*1\r\n$4\r\nPING\r\n")
    with pytest.raises(TimeoutError):
        late.recv(100)
    late.close()
    assert direct.get("counter") is None


def test_after_swallowing_only_connections_that_lost_nothing_go_on(proxy: TcpProxy) -> None:
    idle, asking = connect(proxy), connect(proxy)
    proxy.swallow()
    asking.send_command("PING")
    wait_until(lambda: any(item.is_deaf for item in list(proxy.connections)))
    proxy.pass_on()
    assert ask(idle, "PING") == b"PONG"
    assert ask(connect(proxy), "PING") == b"PONG"
    with pytest.raises(redis.TimeoutError):
        asking.read_response()


def test_swallowing_drops_what_a_delay_held(proxy: TcpProxy, direct: "redis.Redis") -> None:
    connection = connect(proxy)
    proxy.delay(0.4)
    connection.send_command("INCR", "counter")
    time.sleep(0.1)
    proxy.swallow()
    with pytest.raises(redis.TimeoutError):
        connection.read_response()
    assert direct.get("counter") is None


def test_random_resets_hit_about_their_share_and_end(proxy: TcpProxy) -> None:
    connections = [connect(proxy) for _ in range(CONNECTIONS)]
    proxy.reset_randomly(0.5, 1, random.Random(7))
    time.sleep(1.3)
    left = len(proxy.connections)
    assert CONNECTIONS * 0.3 < left < CONNECTIONS * 0.9
    time.sleep(0.5)
    assert len(proxy.connections) == left
    assert len(connections) == CONNECTIONS


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_cut_swallows_the_answer_that_redis_has_given(
    proxy: TcpProxy, direct: "redis.Redis", protocol: int
) -> None:
    cut, other = connect(proxy, protocol), connect(proxy, protocol)
    done = proxy.cut_after("brpop")
    assert ask(cut, "BRPOP", "list", 0.2) is None  # an empty timeout does not count
    direct.lpush("list", "a", "b")
    assert not done.is_set()
    with pytest.raises(redis.ConnectionError):
        ask(cut, "BRPOP", "list", 0.2)
    assert done.wait(1)
    assert direct.llen("list") == 1
    assert ask(other, "BRPOP", "list", 0.2) == [b"list", b"b"]  # it happens once


def test_a_cut_may_deliver_the_answer_first(proxy: TcpProxy, direct: "redis.Redis") -> None:
    connection = connect(proxy)
    direct.lpush("list", "a")
    done = proxy.cut_after("BRPOP", deliver=True)
    assert ask(connection, "BRPOP", "list", 0.2) == [b"list", b"a"]
    assert done.wait(1)
    with pytest.raises(redis.ConnectionError):
        ask(connection, "PING")


def test_a_cut_sees_commands_in_transactions_and_pipelines(
    proxy: TcpProxy, direct: "redis.Redis"
) -> None:
    connection = connect(proxy)
    done = proxy.cut_after("INCR counter")
    packed = [("PING",), ("MULTI",), ("GET", "nothing"), ("INCR", "counter"), ("EXEC",)]
    connection.send_packed_command(connection.pack_commands(packed))
    with pytest.raises(redis.ConnectionError):
        for _ in packed:
            connection.read_response()
    assert done.wait(1)
    assert direct.get("counter") == b"1"


def test_a_cut_counts_no_errors_and_no_messages_of_a_subscription(
    proxy: TcpProxy, direct: "redis.Redis"
) -> None:
    asking = connect(proxy)
    done = proxy.cut_after("EVALSHA")
    with pytest.raises(redis.ResponseError):
        ask(asking, "EVALSHA", "0" * 40, 0)
    listener = redis.Redis.from_url(proxy.url).pubsub(ignore_subscribe_messages=True)
    listener.subscribe("channel")
    wait_until(lambda: direct.publish("channel", "hello") == 1)
    wait_until(lambda: listener.get_message(timeout=0.1) is not None)
    assert not done.is_set()
