"""Plays the stories; `cargo test --test interop` calls it.

python tests/interop --rollcall BINARY [PART OF A NAME …]
"""

import argparse
import asyncio
import inspect
import sys
import time
import traceback
from pathlib import Path

import stories
from bed import Bed
from children import end_well


def chosen(parts: list[str]) -> list:
    """The stories whose name holds one of `parts`, in the order in which they stand; all without parts."""
    functions = [
        value
        for name, value in vars(stories).items()
        if inspect.iscoroutinefunction(value) and value.__module__ == "stories" and not name.startswith("_")
    ]
    return [story for story in functions if not parts or any(part in story.__name__ for part in parts)]


async def play(story, bed: Bed) -> bool:
    """Whether it came to its good end. Prints a line, and why not."""
    begun = time.monotonic()
    try:
        await story(bed)
    except Exception:
        print(f"story {story.__name__} ... FAILED", flush=True)
        traceback.print_exc(file=sys.stdout)
        print(f"rollcall said last:\n{bed.rollcall.last_words()}", flush=True)
        return False
    print(f"story {story.__name__} ... ok ({time.monotonic() - begun:.1f} s)", flush=True)
    return True


async def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rollcall", type=Path, required=True, help="the binary")
    arguments.add_argument("parts", nargs="*")
    given = arguments.parse_args()
    playing = chosen(given.parts)
    print(f"\nplaying {len(playing)} stories with Synapse", flush=True)
    if not playing:
        return 0
    begun = time.monotonic()
    async with Bed(given.rollcall) as bed:
        print(f"two homeservers, rollcall and a broker are up ({time.monotonic() - begun:.1f} s)", flush=True)
        good = [await play(story, bed) for story in playing]
    failed = good.count(False)
    word = "FAILED" if failed else "ok"
    print(f"\ninterop: {word}. {len(good) - failed} passed; {failed} failed; in {time.monotonic() - begun:.1f} s\n")
    return 1 if failed else 0


end_well()
sys.exit(asyncio.run(main()))
