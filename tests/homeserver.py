#!/usr/bin/env python3
"""The edge of a homeserver that federates for rollcall: takes transactions off presence.outbound, hands each to the homeserver,
and tells with a federation.receipt what became of it.

Shares no code with rollcall: what it knows stands in docs/wire.md. How a homeserver takes a transaction into its own queue is its
own affair; this one takes PUT <homeserver>/<destination>/<txn_id>. Ends with its standard input.
"""

import argparse
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid

try:
    import pika
except ImportError:
    sys.exit("homeserver.py: Python's pika is missing: tests/run installs it")

PERSISTENT = 2


def main():
    arguments = parse()
    threading.Thread(target=end_with_input, daemon=True).start()
    connection = pika.BlockingConnection(pika.URLParameters(arguments.url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_qos(prefetch_count=16)
    for method, _, body in channel.consume(arguments.prefix + "outbound"):
        message = json.loads(body)
        receipt = hand_on(arguments.homeserver, message)
        channel.basic_publish(
            exchange=arguments.prefix + "inbound",
            routing_key="federation",
            body=json.dumps(receipt).encode(),
            properties=pika.BasicProperties(delivery_mode=PERSISTENT),
            mandatory=True,
        )
        # Not before: a crash in between hands the same transaction on once more, which the homeserver's queue knows by its ID.
        channel.basic_ack(method.delivery_tag)


def hand_on(homeserver, message):
    """Returns the receipt."""
    now = int(time.time() * 1000)
    receipt = {
        "v": 1,
        "type": "federation.receipt",
        "id": uuid.uuid4().hex,
        "ts": now,
        "destination": message["destination"],
        "txn_id": message["txn_id"],
    }
    if message["v"] != 1 or now >= message["not_after"]:
        return receipt | {"outcome": "expired"}
    request = urllib.request.Request(
        f"{homeserver}/{message['destination']}/{message['txn_id']}",
        data=json.dumps(message["body"]).encode(),
        method="PUT",
    )
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10):
            return receipt | {"outcome": "delivered"}
    except urllib.error.HTTPError as refusal:
        if refusal.code == 413:
            return receipt | {"outcome": "too_large"}
        wait = json.loads(refusal.read() or b"{}").get("retry_after_ms")
        return receipt | {"outcome": "failed"} | ({"retry_after_ms": wait} if wait else {})


def end_with_input():
    sys.stdin.read()
    os._exit(0)


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="amqp://…")
    parser.add_argument("prefix", help="what stands before every name (bus.prefix), such as presence.")
    parser.add_argument("homeserver", help="http://…, where the homeserver takes transactions")
    return parser.parse_args()


if __name__ == "__main__":
    main()
