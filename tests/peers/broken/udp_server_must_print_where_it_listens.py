"""Prints a line when it starts. If nobody reads it, print raises, and there is no server."""

from right import udp_server

print("listening", flush=True)
udp_server.main()
