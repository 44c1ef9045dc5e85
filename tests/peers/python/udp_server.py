"""Sends every UDP datagram back to its sender: the twin of udp-server.

    $ python3 udp_server.py --addr 127.0.0.1:7007
    listening on 127.0.0.1:7007

Unlike udp-server, it uses only IPv4 and logs only errors.
"""

import argparse
import socket
import sys


def host_and_port(text):
    host, _, port = text.rpartition(":")
    return host, int(port)


def serve(server):
    own_port = server.getsockname()[1]
    while True:
        # Longer than any datagram, because bytes that do not fit are lost without an error.
        datagram, peer = server.recvfrom(65535)
        # Port 0 stands for no socket. A system service, or another echo server with our port
        # number, could answer our answer, and so on without end.
        if peer[1] < 1024 or peer[1] == own_port:
            continue
        try:
            server.sendto(datagram, peer)
        except OSError as error:  # It concerns this peer alone.
            print(f"{peer}: cannot send the echo: {error}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description="Send every UDP datagram back to its sender.")
    parser.add_argument("--addr", type=host_and_port, default="127.0.0.1:7007", metavar="HOST:PORT")
    args = parser.parse_args()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(args.addr)
        print("listening on {}:{}".format(*server.getsockname()), flush=True)
        serve(server)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # Ctrl-C ends the server.
        pass
