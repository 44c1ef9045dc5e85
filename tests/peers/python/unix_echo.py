"""An echo between programs on one machine: the twin of unix-echo.

    $ python3 unix_echo.py server --path /tmp/echo.sock
    listening on /tmp/echo.sock

    $ python3 unix_echo.py client --path /tmp/echo.sock hello
    hello

Unlike unix-echo, it takes only paths, logs nothing, and serves any number of clients. Its client waits
up to --timeout seconds for a connection, and as long for all that is still to come once it has sent
everything.
"""

import argparse
import errno
import os
import signal
import socket
import socketserver
import stat
import sys
import tempfile
import threading
from contextlib import suppress

LONGEST = 1024 * 1024  # Longer than most datagrams; the sender's buffer (SO_SNDBUF) is the limit.


class StreamServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128

    def finish_request(self, connection, _):
        connection.settimeout(60)
        with suppress(OSError):  # An error of one client concerns no other.
            while data := connection.recv(65535):
                connection.sendall(data)


class DatagramServer(socketserver.UnixDatagramServer):
    max_packet_size = LONGEST

    def finish_request(self, request, peer):
        # A client without an address gets no answer. A path (str) could be turned into a link to anywhere
        # that we may write to; an abstract name (bytes) leads nowhere else, but only Linux has them.
        if not peer or sys.platform == "linux" and isinstance(peer, str):
            return
        # MSG_DONTWAIT: a client that does not read holds up nobody. What it has not read takes space in
        # the buffer of its sender, so a fresh socket sends, unless the client has connected to our own.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as fresh:
            try:
                fresh.sendto(request[0], socket.MSG_DONTWAIT, peer)
            except PermissionError:
                self.socket.sendto(request[0], socket.MSG_DONTWAIT, peer)


def serve(kind, path):
    with socket.socket(socket.AF_UNIX, kind) as probe, suppress(FileNotFoundError):
        # The file of a server that was killed is a socket that refuses to connect.
        if stat.S_ISSOCK(os.lstat(path).st_mode) and probe.connect_ex(path) == errno.ECONNREFUSED:
            os.unlink(path)
    os.umask(0o177)  # From its creation, only we may use the file.
    with (StreamServer if kind == socket.SOCK_STREAM else DatagramServer)(path, None) as server:
        try:
            print(f"listening on {path}", flush=True)
            server.serve_forever()
        finally:
            os.unlink(path)  # The kernel does not remove it.


def show(data):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def ask_by_stream(args):
    received = 0

    def receive():
        nonlocal received
        with suppress(OSError):
            while data := client.recv(65535):
                show(data)
                received += len(data)

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(args.timeout)
        client.connect(args.path)
        client.settimeout(None)  # No time limit while there is something to send.
        receiving = threading.Thread(target=receive, daemon=True)
        receiving.start()
        sent = 0
        lines = (os.fsencode(message) + b"\n" for message in args.messages)
        for data in lines if args.messages else iter(lambda: sys.stdin.buffer.read1(65535), b""):
            client.sendall(data)
            sent += len(data)
        client.shutdown(socket.SHUT_WR)
        receiving.join(args.timeout)
    if received < sent:
        sys.exit(f"cannot get everything back: {received} of {sent} bytes came back")


def ask_by_datagrams(args):
    lines = (line[:-1] if line.endswith(b"\n") else line for line in sys.stdin.buffer)
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        # Without an address it gets no answer. On Linux an empty path asks for an abstract name.
        client.bind("" if sys.platform == "linux" else os.path.join(folder, "client"))
        client.settimeout(args.timeout)
        client.connect(args.path)  # The kernel drops datagrams from other senders.
        for message in map(os.fsencode, args.messages) if args.messages else lines:
            client.send(message)
            while client.recv(LONGEST) != message:
                pass  # This is the answer to another message.
            show(message + b"\n")


def main():
    parser = argparse.ArgumentParser(description="Echo between programs on one machine.")
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
            (ask_by_datagrams if args.datagram else ask_by_stream)(args)
    except OSError as error:
        sys.exit(f"cannot use {args.path}: {error}")


if __name__ == "__main__":
    main()
