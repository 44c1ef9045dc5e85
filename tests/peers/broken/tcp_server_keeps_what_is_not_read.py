"""Keeps in memory what a client does not read, however much it is. A single client can use up all memory."""

import asyncio
import sys


async def serve(reader, writer):
    try:
        while data := await reader.read(65_536):
            writer.write(data)  # Where is `await writer.drain()`?
    except OSError:
        pass
    writer.close()


async def main():
    port = int(sys.argv[1])
    host = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1"
    async with await asyncio.start_server(serve, host, port) as server:
        await server.serve_forever()


asyncio.run(main())
