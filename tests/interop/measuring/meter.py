"""CPU seconds of processes, of those that came and went among their children, too."""

import asyncio

import psutil


class Meter:
    """Reads groups of processes by name: each a list of process IDs whose descendants count."""

    def __init__(self, **groups: list[int]):
        self._groups = groups
        self._begun = self._read()

    def seconds(self) -> dict[str, float]:
        """What each group used since this began."""
        return {name: now - self._begun[name] for name, now in self._read().items()}

    def _read(self) -> dict[str, float]:
        return {name: sum(_tree(pid) for pid in pids) for name, pids in self._groups.items()}


async def idle(meter, most: float = 0.1, seconds: float = 6.0):
    """Waits until what `meter` makes meters of uses no more than this share of a core: what went before is over."""
    while True:
        now = meter()
        await asyncio.sleep(seconds)
        if sum(now.seconds().values()) <= most * seconds:
            return


def _tree(pid: int) -> float:
    root = psutil.Process(pid)
    return sum(_one(process) for process in [root, *root.children(recursive=True)])


def _one(process: psutil.Process) -> float:
    try:
        return sum(process.cpu_times()[:4])
    except psutil.NoSuchProcess:
        return 0.0
