"""Measures rollcall against Synapse; `tests/interop/measure` calls it."""

import argparse
import asyncio
from pathlib import Path

import inbound
import outbound
import refresh
from children import end_well


def main():
    parser = argparse.ArgumentParser(prog="tests/interop/measure")
    parser.add_argument("--rollcall", type=Path, required=True, help=argparse.SUPPRESS)
    measurements = parser.add_subparsers(required=True)
    for module in (outbound, inbound, refresh):
        name = module.__name__
        measurement = measurements.add_parser(name, description=module.__doc__)
        module.options(measurement)
        measurement.set_defaults(run=module.run)
    given = parser.parse_args()
    end_well()
    asyncio.run(given.run(given.rollcall, given))


main()
