#!/usr/bin/env python3
"""A start with so many records, beside Redis, in one run:

    tests/peers/restart.py [RECORDS]

Redis (redis-server in PATH) gets a sorted set for each key, 100 members of 100 bytes each, one ZADD per member, and is
started from its append-only file and from its RDB file; the storage engine is measured by its own benchmark. Times run
until the first read is answered. RECORDS is 10 million unless given; both take one process and two cores at most.
"""

import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

PER_KEY = 100
VALUE = 100
PORT = 6421


def command(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


def start(directory, append_only):
    """Starts Redis; returns the process, and how long it took to answer a read."""
    begun = time.monotonic()
    redis = subprocess.Popen(
        ["redis-server", "--port", str(PORT), "--bind", "127.0.0.1", "--save", "", "--dir", directory,
         "--appendonly", append_only, "--auto-aof-rewrite-percentage", "0"],
        stdout=subprocess.DEVNULL)
    while True:
        try:
            answer = ask(command(b"ZRANGE", b"key0", b"-1", b"-1"))
            if not answer.startswith(b"-LOADING"):
                return redis, time.monotonic() - begun
        except OSError:
            pass
        time.sleep(0.005)


def ask(request):
    with socket.create_connection(("127.0.0.1", PORT)) as redis:
        redis.sendall(request)
        return redis.makefile("rb").readline()


def stop(redis):
    redis.terminate()
    redis.wait()


def fill(records):
    """One ZADD per record, 1,000 in flight."""
    keys = max(records // PER_KEY, 1)
    with socket.create_connection(("127.0.0.1", PORT)) as redis:
        answers, begun = redis.makefile("rb"), 0
        while begun < records:
            many = range(begun, min(begun + 1000, records))
            redis.sendall(b"".join(
                command(b"ZADD", b"key%d" % (n % keys), b"%d" % (n // keys), b"%0*d" % (VALUE, n)) for n in many))
            for _ in many:
                answers.readline()
            begun += len(many)


def main():
    records = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    directory = tempfile.mkdtemp()
    try:
        redis, _ = start(directory, "yes")
        fill(records)
        stop(redis)
        redis, from_log = start(directory, "yes")
        ask(command(b"SAVE"))
        stop(redis)
        shutil.rmtree(pathlib.Path(directory) / "appendonlydir", ignore_errors=True)
        for left in pathlib.Path(directory).glob("*.aof"):
            left.unlink()
        redis, from_rdb = start(directory, "no")
        stop(redis)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(f"Redis, {records} records: {from_log:.2f} s from the append-only file, {from_rdb:.2f} s from the RDB file")
    bench = subprocess.run(
        ["cargo", "bench", "-q", "-p", "stela-tablet", "--bench", "engine", "--", str(records)],
        check=True, capture_output=True, text=True).stdout
    units = {"ms": 1e-3, "s": 1.0, "µs": 1e-6}

    def took(what):
        number, unit = re.search(what + r" after ([0-9.]+)(ms|µs|s)", bench).groups()
        return float(number) * units[unit]

    snapshots, log = took("ready from snapshots"), took("ready from the log alone")
    print(f"Stela, {records} records: {log:.2f} s from the log alone, {snapshots:.2f} s from snapshots")
    print(f"the log {from_log / log:.1f} times as fast, snapshots {from_rdb / snapshots:.1f} times")


main()
