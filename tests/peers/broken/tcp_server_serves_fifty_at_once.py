"""Serves fifty clients at once. All others wait until one of them goes."""

import threading

from right import tcp_server

places = threading.Semaphore(50)
serve_any = tcp_server.serve


def serve(connection):
    with places:
        serve_any(connection)


tcp_server.serve = serve
tcp_server.main()
