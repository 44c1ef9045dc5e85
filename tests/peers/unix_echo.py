"""An echo between programs on one machine: the twin of unix-echo.

    $ python3 unix_echo.py server --path /tmp/echo.sock
    listening on /tmp/echo.sock

    $ python3 unix_echo.py client --path /tmp/echo.sock hello
    hello

Unlike unix-echo, it accepts only paths, no names without a file, and logs nothing. Its stream client gives up
at once if the server's backlog is full. Once everything is sent, the time limit of this client applies to all
that is still to come. Its datagram client binds to a file, in a directory that it removes at the end.
"""

import argparse
import os
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
from contextlib import suppress

MAX_CONNECTIONS = 100
LONGEST = 1024 * 1024  # Longer than any datagram; the sender's buffer (SO_SNDBUF) is the limit.


def remove_stale(kind, path):
    """Removes the file of a server that was killed: a socket on which nobody listens any more."""
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                os.unlink(path)
        except OSError:
            pass  # Either there is no file, or a server is running, which bind reports.


def serve(kind, path):
    remove_stale(kind, path)
    with socket.socket(socket.AF_UNIX, kind) as server:
        os.umask(0o177)  # From its creation, only we may use the file.
        server.bind(path)
        try:
            if kind == socket.SOCK_STREAM:
                server.listen()
            print(f"listening on {path}", flush=True)
            serve_clients = serve_streams if kind == socket.SOCK_STREAM else serve_datagrams
            serve_clients(server)
        finally:
            os.unlink(path)  # The kernel does not remove it.


def serve_streams(listener):
    for _ in range(MAX_CONNECTIONS - 1):
        threading.Thread(target=work, args=(listener,), daemon=True).start()
    work(listener)


def work(listener):
    """Serves one client after the other. Each thread serves one at a time, so the threads are the limit."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # No descriptor is left. Without a pause the loop would spin.
            time.sleep(0.1)
            continue
        with connection, suppress(OSError):  # It concerns this client alone.
            connection.settimeout(60)
            while data := connection.recv(65535):
                connection.sendall(data)


def serve_datagrams(server):
    while True:
        datagram, peer = server.recvfrom(LONGEST)
        if not peer:
            continue  # A client without an address gets no answer.
        with suppress(OSError):  # It concerns this client alone.
            # Does not wait for a client that does not read.
            server.sendto(datagram, socket.MSG_DONTWAIT, peer)


def ask_by_stream(args):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(args.timeout)
        client.connect(args.path)
        client.settimeout(None)  # No time limit while there is something to send.
        counts = {"received": 0}
        receiving = threading.Thread(target=receive, args=(client, counts), daemon=True)
        receiving.start()
        sent = 0
        lines = (os.fsencode(message) + b"\n" for message in args.messages)
        for data in lines if args.messages else iter(lambda: sys.stdin.buffer.read1(65535), b""):
            client.sendall(data)
            sent += len(data)
        client.shutdown(socket.SHUT_WR)
        receiving.join(args.timeout)
    if counts["received"] < sent:
        sys.exit(f"cannot get all back: {counts['received']} of {sent} bytes came back")


def receive(client, counts):
    """Prints bytes as soon as they arrive, until the server closes the connection."""
    try:
        while data := client.recv(65535):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            counts["received"] += len(data)
    except OSError as error:
        print(f"cannot receive: {error}", file=sys.stderr)


def ask_by_datagrams(args):
    lines = (line[:-1] if line.endswith(b"\n") else line for line in sys.stdin.buffer)
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.bind(os.path.join(folder, "client"))  # Without an address it gets no answer.
        client.settimeout(args.timeout)
        client.connect(args.path)  # The kernel drops datagrams from other senders.
        for message in map(os.fsencode, args.messages) if args.messages else lines:
            client.send(message)
            while client.recv(LONGEST) != message:
                pass  # This is the answer to another message.
            sys.stdout.buffer.write(message + b"\n")
            sys.stdout.buffer.flush()


def main():
    parser = argparse.ArgumentParser(description="Echo between processes of one machine.")
    parser.add_argument("role", choices=["server", "client"])
    parser.add_argument("--path", required=True)
    parser.add_argument("--datagram", action="store_true")
    parser.add_argument("--timeout", type=float, default=5, metavar="SECS")
    parser.add_argument("messages", nargs="*", metavar="MESSAGE", help="without any, stdin")
    args = parser.parse_intermixed_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit())  # An exception, so that each finally runs.
    try:
        if args.role == "server":
            serve(socket.SOCK_DGRAM if args.datagram else socket.SOCK_STREAM, args.path)
        else:
            ask = ask_by_datagrams if args.datagram else ask_by_stream
            ask(args)
    except OSError as error:
        sys.exit(f"cannot use {args.path}: {error}")


if __name__ == "__main__":
    main()
