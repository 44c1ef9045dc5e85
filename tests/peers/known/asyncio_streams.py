# The "TCP echo server using streams" of Python's documentation of asyncio, as it stands there, with the address as
# the only change: https://docs.python.org/3.11/library/asyncio-stream.html#tcp-echo-server-using-streams (Zero-Clause
# BSD license). judge --known asks it for our promises.
import asyncio
import sys

async def handle_echo(reader, writer):
    data = await reader.read(100)
    message = data.decode()
    addr = writer.get_extra_info('peername')

    print(f"Received {message!r} from {addr!r}")

    print(f"Send: {message!r}")
    writer.write(data)
    await writer.drain()

    print("Close the connection")
    writer.close()
    await writer.wait_closed()

async def main():
    server = await asyncio.start_server(
        handle_echo, sys.argv[1], int(sys.argv[2]))

    addrs = ', '.join(str(sock.getsockname()) for sock in server.sockets)
    print(f'Serving on {addrs}')

    async with server:
        await server.serve_forever()

asyncio.run(main())
