"""Sends every byte back, to many clients at the same time: the twin of tcp-server.

    $ python3 tcp_server.py --addr 127.0.0.1:7007
    listening on 127.0.0.1:7007

Unlike tcp-server, it uses only IPv4 and logs only errors. Python applies the time limit to all of a sendall,
not to each write.
"""

import argparse
import socket
import sys
import threading
import time

MAX_CONNECTIONS = 100
IDLE_TIMEOUT = 60


def host_and_port(text):
    host, _, port = text.rpartition(":")
    return host, int(port)


def work(listener):
    """Serves one client after the other. Each thread serves one at a time, so the threads are the limit."""
    while True:
        try:
            connection, peer = listener.accept()
        except OSError as error:  # No descriptor is left. Without a pause the loop would spin.
            print(f"cannot accept: {error}", file=sys.stderr)
            time.sleep(0.1)
            continue
        with connection:
            try:
                echo(connection)
            except OSError as error:  # It concerns this client alone.
                print(f"{peer}: closed, {error}", file=sys.stderr)


def echo(connection):
    connection.settimeout(IDLE_TIMEOUT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := connection.recv(65535):  # No bytes: the client has half-closed.
        connection.sendall(data)  # send may take only a part.


def main():
    parser = argparse.ArgumentParser(description="Send every byte back, over TCP.")
    parser.add_argument("--addr", type=host_and_port, default="127.0.0.1:7007", metavar="HOST:PORT")
    args = parser.parse_args()
    with socket.create_server(args.addr) as listener:
        print("listening on {}:{}".format(*listener.getsockname()), flush=True)
        for _ in range(MAX_CONNECTIONS - 1):
            threading.Thread(target=work, args=(listener,), daemon=True).start()
        work(listener)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # Ctrl-C ends the server.
        pass
