"""Whether times can be what they are taken for."""

from staa.data.events.recording import Sensor

ENOUGH = 1000  # events, of which a rate means something
SLOWEST = 10  # events a second; a camera's noise alone is more
FASTEST = 1000  # events a second and pixel, over the whole sensor
LONGEST = 86_400  # seconds


def doubt(count: int, first: int, last: int, sensor: Sensor | None) -> str:
    """A sentence about the unit of so many events' times, if they are as no camera sends them; else nothing."""
    seconds = (last - first + 1) / 1e6
    rate, pixels = count / seconds, sensor[0] * sensor[1] if sensor else 1 << 20
    if count < ENOUGH or (seconds <= LONGEST and SLOWEST <= rate <= FASTEST * pixels):
        return ""
    unit = "ms or s" if rate > FASTEST * pixels else "ns"
    return f"{count:,} events in {seconds:,.4g} s, {rate:,.3g} a second: are its times in {unit}, and not in µs?"
