"""Takes an option with the most connections at a time, and serves any number."""

from right import tcp_server

tcp_server.main()
