"""Counts its clients, but not those that have gone: after fifty, nobody is served any more."""

import threading

from right import tcp_server

places = threading.Semaphore(50)
serve_any = tcp_server.serve


def serve(connection):
    places.acquire()  # Where is the release?
    serve_any(connection)


tcp_server.serve = serve
tcp_server.main()
