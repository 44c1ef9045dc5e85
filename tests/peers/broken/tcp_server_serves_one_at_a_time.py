"""Serves one client to its end, and then the next. Everybody waits for the first."""

from right import tcp_server

tcp_server.hand_over = tcp_server.serve
tcp_server.main()
