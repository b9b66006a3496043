"""A thread that asks the driver how its GPUs are, as long as somebody wants to know.

One a build, started when the first stage asks for a GPU. All that is asked of the driver during a build is asked there:
a driver that hangs keeps no stage from ending.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

from pipesmith.executors.gpu import Gpu, GpuReading, GpuUsage
from pipesmith.liveness import ancestors

__all__ = ["GpuMeter", "GpuWatch"]

_OLD_S = 0.5  # a reading that is older is not given out any more
_FIRST_S, _LATER_S = 15.0, 2.0  # how long a reading is waited for: to begin with the driver may have to wake
_OFTEN_S, _SELDOM_S = 0.1, 1.0
_IDLE_S = 3.0  # after so long without a question the driver is let go


class GpuWatch:
    """Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._meters: list[GpuMeter] = []
        self._readings: dict[str, GpuReading] = {}
        self._read_at = 0.0
        self._asked_at = 0.0  # by who waits for a reading
        self._wanted_at = 0.0  # the last time that somebody asked anything
        self._late = False
        self._closed = False
        self._broken: str | None = None  # why the driver does not answer at all

    def readings(self, *, anew: bool = False) -> Mapping[str, GpuReading]:
        """Return how each GPU is, by its id: half a second ago at most (anew: from now on), or as last seen where the
        driver does not answer in time. Empty where it does not answer at all."""
        with self._changed:
            now = time.monotonic()
            if self._closed or self._broken or (not anew and now - self._read_at < _OLD_S):
                return self._readings
            self._asked_at = self._wanted_at = now
            self._start()
            patience = 0.0 if self._late else _LATER_S if self._read_at else _FIRST_S
            answered = self._changed.wait_for(lambda: self._read_at >= now or self._thread is None, patience)
            self._late = not answered
            return self._readings

    def add(self, meter: GpuMeter) -> None:
        with self._changed:
            meter.problem = self._broken
            if not self._closed and not self._broken:
                self._meters.append(meter)
                self._start()

    def remove(self, meter: GpuMeter) -> None:
        with self._changed:
            meter.problem = meter.problem or self._broken
            if meter in self._meters:
                self._meters.remove(meter)
                self._wanted_at = time.monotonic()

    def close(self) -> None:
        """Let the driver go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _start(self) -> None:
        if self._thread is None:
            self._wanted_at = time.monotonic()
            self._thread = threading.Thread(target=self._work, name="watch GPUs", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        from pipesmith.executors.nvml import Nvml, NvmlError

        try:
            with Nvml() as nvml:
                handles = {gpu.id: handle for gpu, handle in nvml.gpus()}
                while self._await_turn():
                    at = time.monotonic()
                    found = {id: nvml.read(handle) for id, handle in handles.items()}
                    with self._changed:
                        for meter in self._meters:
                            meter.note(found)
                        self._readings, self._read_at, self._late = found, at, False
                        self._changed.notify_all()
        except NvmlError as error:
            self._broken = error.text
        except Exception as error:
            self._broken = f"the NVIDIA driver can't be asked: {error!r}"
        finally:
            with self._changed:
                for meter in self._meters:
                    meter.problem = meter.problem or self._broken
                if self._thread is threading.current_thread():
                    self._thread = None
                self._changed.notify_all()

    def _await_turn(self) -> bool:
        """Wait until the driver is to be asked again. False: nobody wants to know any more."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                if self._asked_at > self._read_at:
                    return True
                if self._meters:
                    left = min(meter.pause_s for meter in self._meters) - (now - self._read_at)
                    if left <= 0:
                        return True
                else:
                    left = _IDLE_S - (now - self._wanted_at)
                    if left <= 0:
                        self._thread = None  # from here on another one is started for who asks
                        return False
                self._changed.wait(left)
            return False


class GpuMeter:
    """What one stage does with the GPUs that it was given, from its making until `end`. watch: None where there is no
    driver: then the time is all that is known."""

    def __init__(self, gpus: Sequence[Gpu], run: str, stage: str, watch: GpuWatch | None) -> None:
        self._gpus = tuple(gpus)
        self._mark = (f"PIPE_RUN={run}".encode(), f"PIPE_STAGE={stage}".encode())
        self._watch = watch
        self._began = time.monotonic()
        self._start_bytes: dict[str, int] = {}
        self._peak_bytes: int | None = None
        self._own = True
        self._percents = [0.0, 0]  # their sum, and how many
        self._mine: dict[int, bool] = {}
        self.problem: str | None = None
        if watch is not None:
            watch.add(self)

    @property
    def pause_s(self) -> float:
        """How long to wait between two looks: short ones for what may end soon."""
        return min(_SELDOM_S, max(_OFTEN_S, (time.monotonic() - self._began) / 4))

    def note(self, readings: Mapping[str, GpuReading]) -> None:
        """Take what the driver says of a moment."""
        sizes: list[int | None] = []
        for gpu in self._gpus:
            reading = readings.get(gpu.id)
            if reading is None:
                sizes.append(None)
                continue
            if reading.problem:
                self.problem = self.problem or f"{gpu.title}: {reading.problem}"
            if reading.percent is not None:
                self._percents[0] += reading.percent
                self._percents[1] += 1
            sizes.append(self._bytes(gpu, reading))
        known = [size for size in sizes if size is not None]
        if known:
            self._peak_bytes = max(self._peak_bytes or 0, sum(known))

    def _bytes(self, gpu: Gpu, reading: GpuReading) -> int | None:
        """Return what the stage's own processes have of a GPU. Where the driver does not say whose memory it is, all
        that is in use there."""
        used = reading.used_bytes
        start = self._start_bytes.setdefault(gpu.id, used or 0)
        if reading.processes is None:
            self._own = False
            return used
        mine = [size for pid, size in reading.processes.items() if self._is_mine(pid)]
        if None in mine:
            self._own = False
            return used
        if not reading.processes and used is not None:  # as in a container, which is shown none
            self._own = self._own and used <= start
            return max(0, used - start)
        return sum(size or 0 for size in mine)

    def _is_mine(self, pid: int) -> bool:
        known = self._mine.get(pid)
        if known is None:
            known = self._mine[pid] = any(self._has_mark(each) for each in ancestors(pid))
        return known

    def _has_mark(self, pid: int) -> bool:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                variables = file.read().split(b"\0")
        except OSError:
            return False
        return all(mark in variables for mark in self._mark)

    def end(self) -> GpuUsage:
        """Return what it was, once the stage has ended."""
        seconds = (time.monotonic() - self._began) * len(self._gpus)
        if self._watch is not None:
            self._watch.readings(anew=True)  # a short stage may have been seen by nobody yet
            self._watch.remove(self)
        sum_, count = self._percents
        return GpuUsage(
            ids=tuple(gpu.id for gpu in self._gpus),
            seconds=seconds,
            peak_bytes=self._peak_bytes,
            own=self._own and self._peak_bytes is not None,
            percent=sum_ / count if count else None,
            problem=self.problem,
        )
