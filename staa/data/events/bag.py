"""Events in ROS 1 bags: messages EventArray of dvs_msgs or prophesee_event_msgs, which are laid out alike.

    uint32 seq, stamp's s and ns, length of frame_id; frame_id; uint32 height, width, n; n events: uint16 x, y, uint32 s, ns,
    bool p

It runs in a process of its own (`apart`), so it imports nothing of the package.

Source: the packages' EventArray.msg and Event.msg, and http://wiki.ros.org/msg for how they are serialised.
"""

import runpy
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGES = ("rosbags", "numpy")
PIECE = 1 << 20
ARRAYS = ("dvs_msgs/msg/EventArray", "prophesee_event_msgs/msg/EventArray")


def pieces_in(path: str, stream: str | None, limit: int) -> Iterator[tuple[dict, list[Any]]]:
    """{"unit", "sensor"}, then t, x, y, p of at most PIECE events. Raises ValueError for what is no such bag."""
    from rosbags.rosbag1 import Reader

    try:
        with Reader(Path(path)) as bag:
            yield from _pieces(bag, stream)
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # rosbags has ReaderError, struct.error, AssertionError …
        text = " ".join(f"{type(error).__name__} {error}".split())
        raise ValueError(f"it can't be read as a ROS bag: {text[:300]}; copy or download it again") from error


def _pieces(bag: Any, stream: str | None) -> Iterator[tuple[dict, list[Any]]]:
    found = [connection for connection in bag.connections if connection.msgtype in ARRAYS]
    topics = sorted({connection.topic for connection in found})
    if not found:
        there = ", ".join(sorted({connection.msgtype[:64] for connection in bag.connections})[:9]) or "none"
        raise ValueError(f"it has no messages {' or '.join(ARRAYS)}; found {there}")
    choose = runpy.run_path(str(Path(__file__).with_name("named.py")))["choose"]
    topic = topics[choose(topics, stream)]
    for _, _, data in bag.messages(connections=[connection for connection in found if connection.topic == topic]):
        sensor, events = _events(data)
        t = events["s"].astype("i8") * 1_000_000_000 + events["ns"]
        for k in range(0, len(t), PIECE):
            part = slice(k, k + PIECE)
            yield {"unit": "ns", "sensor": sensor}, [t[part], *(events[name][part].copy() for name in ("x", "y", "p"))]


def _events(data: bytes) -> tuple[tuple[int, int] | None, Any]:
    import numpy as np

    kind = np.dtype([("x", "<u2"), ("y", "<u2"), ("s", "<u4"), ("ns", "<u4"), ("p", "u1")])
    at = 16 + struct.unpack_from("<I", data, 12)[0]
    height, width, count = struct.unpack_from("<III", data, at)
    if len(data) - at - 12 != count * kind.itemsize:
        raise ValueError(f"a message of {len(data)} bytes is no EventArray of {count} events; copy or download it again")
    return (height, width) if height and width else None, np.frombuffer(data, kind, count, at + 12)
