"""Finds the right programs. A broken one replaces one function of a right one, and so shows only its mistake."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "right"))

import tcp_client, tcp_server, udp_client, udp_server, unix_server
