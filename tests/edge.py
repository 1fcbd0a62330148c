#!/usr/bin/env python3
"""A foreign edge: publishes each line of standard input as it is, as any program that speaks AMQP would.

Shares no code with rollcall. A body is what docs/wire.md says: one event, or an array of events.
"""

import argparse
import sys

try:
    import pika
except ImportError:
    sys.exit("edge.py: Python's pika is missing: tests/run installs it")

PERSISTENT = 2


def main():
    arguments = parse()
    connection = pika.BlockingConnection(pika.URLParameters(arguments.url))
    channel = connection.channel()
    # From here on basic_publish returns when the broker has confirmed, and raises when it refuses or returns the message.
    channel.confirm_delivery()
    confirmed = 0
    for line in sys.stdin.buffer:
        channel.basic_publish(
            exchange=arguments.prefix + "inbound",
            routing_key=arguments.key,
            body=line.removesuffix(b"\n"),
            properties=pika.BasicProperties(delivery_mode=PERSISTENT),
            mandatory=True,
        )
        confirmed += 1
    connection.close()
    print(f"confirmed {confirmed}")


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="amqp://…")
    parser.add_argument("prefix", help="what stands before every name (bus.prefix), such as presence.")
    parser.add_argument("key", help="client or federation")
    return parser.parse_args()


if __name__ == "__main__":
    main()
