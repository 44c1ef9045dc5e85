//! The programs in the article, as they are printed, and what Python says about them. Each error is repaired in the
//! way that its text asks for, and then the next one shows. The corrected programs are in `tests/peers`, and
//! `peers/twins.rs` runs them.

use std::process::Command;

use harness::{Finished, not_run, run};

/// The general form in which the article makes a socket. It has no values for the names, and calls the module.
const GENERAL_FORM: &str = "import socket
socket(socket_family,socket_type,protocol=0)
";

/// How the article opens a TCP socket.
const TCP_SOCKET: &str = "import socket
tcpSocket = socket.socket(socket.AF_INET,socket.SCOK_STREAM)
";

/// How the article opens a UDP socket, in two ways.
const UDP_SOCKETS: [&str; 2] = [
    "import socket
udpSock = socket.socket(socket.AF_INET,socket.SOCK_DGRAM)
",
    "from socket import *
udpSock = socket(AF_INET,SOCK_DGRAM)
",
];

/// The article's server.
const UDP_SERVER: &str = "from socket import *
#创建服务器套接字
udpSocket = socket.socket(AF_INET,SOCK.DGRAM) 

#绑定服务器套接字
udpSocket.bind(port) 

#服务器无限循环,等待连接
while True: 
    #接受客户端传入/发送数据
    cs = udpSocket.recvfrom()/udpSocket.sendto(xxx)
    #关闭套接字
    udpSocket.close()
";

/// Binds the article's server, and lets a client send two datagrams, so that the loop need not wait.
const BIND_AND_LET_A_CLIENT_SEND: &str = "udpSocket.bind(('127.0.0.1', 0))
client = socket(AF_INET, SOCK_DGRAM)
for datagram in (b'first', b'second'):
    client.sendto(datagram, udpSocket.getsockname())
";

/// Runs a program in Python. Without Python, prints `NOT RUN` and returns `None`.
fn python(program: &str) -> Option<Finished> {
    if Command::new("python3").arg("--version").output().is_err() {
        not_run("python3 is not installed");
        return None;
    }
    let mut python = Command::new("python3");
    Some(run(
        python.args(["-c", program]).env("PYTHONUTF8", "1"),
        b"",
    ))
}

fn assert_fails(program: &str, error: &str) {
    if let Some(finished) = python(program) {
        assert_eq!(finished.code, Some(1), "{program}: {finished:?}");
        let last = finished.stderr.lines().last().unwrap_or_default();
        let mut parts = error.split(" ... ");
        assert!(
            parts.all(|part| last.contains(part)),
            "{program}: {last:?} is not {error:?}"
        );
    }
}

fn assert_works(program: &str) {
    if let Some(finished) = python(program) {
        assert_eq!(finished.code, Some(0), "{program}: {finished:?}");
    }
}

#[test]
fn scok_stream_is_no_type_of_a_socket() {
    assert_fails(
        TCP_SOCKET,
        "AttributeError: module 'socket' has no attribute 'SCOK_STREAM'",
    );
    assert_works(&TCP_SOCKET.replace("SCOK", "SOCK"));
}

#[test]
fn both_ways_to_open_a_udp_socket_work() {
    for program in UDP_SOCKETS {
        assert_works(program);
    }
}

#[test]
fn the_general_form_fails_three_times_and_the_parameter_is_called_proto() {
    assert_fails(
        GENERAL_FORM,
        "NameError: name 'socket_family' is not defined",
    );
    let with_names = GENERAL_FORM.replace(
        "socket_family,socket_type",
        "socket.AF_INET,socket.SOCK_STREAM",
    );
    assert_fails(&with_names, "TypeError: 'module' object is not callable");
    let of_the_module = with_names.replace("socket(", "socket.socket(");
    assert_fails(&of_the_module, "TypeError: ... protocol");
    assert_works(&of_the_module.replace("protocol", "proto"));
}

#[test]
fn af_ticp_is_af_tipc() {
    assert_fails(
        "import socket; socket.AF_TICP",
        "AttributeError: module 'socket' has no attribute 'AF_TICP'",
    );
    if cfg!(target_os = "linux") {
        assert_works("import socket; socket.AF_TIPC");
    }
}

/// The server of the article has nine faults. Python reports one at a time.
#[test]
fn the_server_of_the_article_fails_nine_times_until_each_fault_is_repaired() {
    let closed = match cfg!(windows) {
        true => "OSError: ... not a socket",
        false => "OSError: [Errno 9] Bad file descriptor",
    };
    // What Python says; then what is printed, and what must be there instead.
    let faults = [
        (
            "AttributeError: type object 'socket' has no attribute 'socket'",
            "socket.socket(AF_INET",
            "socket(AF_INET",
        ),
        (
            "NameError: name 'SOCK' is not defined",
            "SOCK.DGRAM",
            "SOCK_DGRAM",
        ),
        (
            "NameError: name 'port' is not defined",
            "udpSocket.bind(port)",
            "udpSocket.bind(7007)",
        ),
        (
            "TypeError: ... address must be tuple, not int",
            "udpSocket.bind(7007) \n",
            BIND_AND_LET_A_CLIENT_SEND,
        ),
        (
            "TypeError: recvfrom ... at least 1 argument",
            "recvfrom()",
            "recvfrom(2048)",
        ),
        (
            "NameError: name 'xxx' is not defined",
            "sendto(xxx)",
            "sendto(b'hello')",
        ),
        (
            "TypeError: sendto() takes 2 or 3 arguments",
            "sendto(b'hello')",
            "sendto(b'hello', client.getsockname())",
        ),
        (
            "TypeError: unsupported operand type(s) for /: 'tuple' and 'int'",
            "cs = udpSocket.recvfrom(2048)/udpSocket.sendto(b'hello', client.getsockname())",
            "data, peer = udpSocket.recvfrom(2048)\n    udpSocket.sendto(data, peer)",
        ),
        (closed, "    #关闭套接字\n    udpSocket.close()\n", ""),
    ];
    let mut program = UDP_SERVER.to_owned();
    for (error, printed, right) in faults {
        assert_fails(&program, error);
        assert_eq!(program.matches(printed).count(), 1, "{program}");
        program = program.replace(printed, right);
    }
    // The loop has no end. Here it serves two clients.
    let program = program.replace("while True: ", "for _ in range(2):");
    assert_works(&format!("{program}udpSocket.close()\nclient.close()\n"));
}

#[test]
fn an_address_is_a_host_and_a_port_and_not_a_port_alone() {
    let open = "from socket import *\nserver = socket(AF_INET, SOCK_DGRAM)\n";
    assert_fails(&format!("{open}server.bind(0)"), "TypeError: ... tuple");
    assert_works(&format!("{open}server.bind(('127.0.0.1', 0))"));
}

/// Two datagrams are in the receive queue before the loop begins, so it never waits.
#[test]
fn a_server_that_closes_its_socket_in_the_loop_serves_one_client() {
    let server = format!(
        "from socket import *
udpSocket = socket(AF_INET, SOCK_DGRAM)
{BIND_AND_LET_A_CLIENT_SEND}for _ in range(2):
    data, peer = udpSocket.recvfrom(2048)
    udpSocket.sendto(data, peer)
    print(data)
"
    );
    let closing = format!("{server}    udpSocket.close()\n");
    if let Some(finished) = python(&closing) {
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert_eq!(finished.stdout, b"b'first'\n", "{finished:?}");
    }
    assert_works(&server);
}

/// The kernel knows no time limit of Python: with one, Python waits in poll(2) before each call.
#[test]
#[cfg(unix)]
fn a_time_limit_makes_the_descriptor_non_blocking_and_an_accepted_socket_has_none() {
    assert_works(
        "import os, socket
listener = socket.create_server(('127.0.0.1', 0))
assert os.get_blocking(listener.fileno())
listener.settimeout(5)
assert not os.get_blocking(listener.fileno())
client = socket.create_connection(listener.getsockname())
accepted, _ = listener.accept()
assert accepted.gettimeout() is None and os.get_blocking(accepted.fileno())
client.settimeout(0)
try:
    client.recv(1)
    assert False, 'it does not wait'
except BlockingIOError:
    pass
client.settimeout(0.01)
try:
    client.recv(1)
    assert False, 'nothing comes'
except TimeoutError as error:
    assert isinstance(error, OSError) and error.errno is None
try:
    client.settimeout(-1)
    assert False, 'it is no time'
except ValueError:
    pass
",
    );
}

/// The call holds the socket, so the peer does not even see the end.
#[test]
#[cfg(target_os = "linux")]
fn close_in_another_thread_neither_wakes_recv_nor_ends_the_connection_and_shutdown_does_both() {
    assert_works(
        "import socket, threading
def waiting(end):
    first, second = socket.socketpair()
    thread = threading.Thread(target=first.recv, args=(1,), daemon=True)
    thread.start()
    while open(f'/proc/self/task/{thread.native_id}/stat').read().split(')')[1].split()[0] != 'S':
        pass
    end(first)
    thread.join(0.3)
    second.setblocking(False)
    return thread.is_alive(), second

alive, peer = waiting(lambda end: end.close())
assert alive
try:
    peer.recv(1)
    assert False, 'there is no end'
except BlockingIOError:
    pass
peer.send(b'!')

alive, peer = waiting(lambda end: end.shutdown(socket.SHUT_RDWR))
assert not alive and peer.recv(1) == b''
",
    );
}

#[test]
fn only_bytes_can_be_sent_and_struct_packs_a_number_in_network_byte_order_without_padding() {
    assert_works(
        "import socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    try:
        sender.sendto('hello', ('127.0.0.1', 7007))
        assert False, 'text is no bytes'
    except TypeError as error:
        assert 'a bytes-like object is required' in str(error)
assert struct.pack('!I', 7007) == bytes([0, 0, 0x1b, 0x5f])
assert struct.calcsize('!BI') == 5 < struct.calcsize('BI')
",
    );
}

/// The group and the address of the interface, four bytes each.
#[test]
#[cfg(target_os = "linux")]
fn ip_add_membership_joins_a_group() {
    assert_works(
        "import socket
member = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
member.bind(('0.0.0.0', 0))
member.settimeout(10)
group, loopback = socket.inet_aton('239.1.2.3'), socket.inet_aton('127.0.0.1')
member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + loopback)
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, loopback)
sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 2)
assert sender.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == 2
sender.sendto(b'hi', ('239.1.2.3', member.getsockname()[1]))
assert member.recv(3) == b'hi'
",
    );
}

/// `write` never waits, so a program that only writes fills its own memory.
#[test]
fn the_streams_of_asyncio_wait_in_drain_and_wait_closed_and_not_in_write() {
    assert_works(
        "import asyncio
async def main():
    readers = asyncio.Queue()
    server = await asyncio.start_server(lambda reader, _: readers.put_nowait(reader), '127.0.0.1', 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(bytes(64 << 20))
    try:
        await asyncio.wait_for(writer.drain(), 0.3)
        assert False, 'nobody has read'
    except asyncio.TimeoutError:
        assert writer.transport.get_write_buffer_size() > 0
    reader = await readers.get()
    rest = asyncio.create_task(reader.read())
    writer.close()
    await writer.wait_closed()
    assert writer.transport.get_write_buffer_size() == 0
    assert len(await rest) == 64 << 20
asyncio.run(main())
",
    );
}

/// The child does nothing with the listener that it has inherited.
#[test]
#[cfg(target_os = "linux")]
fn a_forked_child_keeps_the_listener_and_its_port() {
    assert_works(
        "import errno, os, signal, socket
listener = socket.create_server(('127.0.0.1', 0))
addr = listener.getsockname()
child = os.fork()
if child == 0:
    signal.alarm(60)
    signal.pause()
listener.close()
try:
    socket.create_server(addr)
    assert False, 'the child has the listener'
except OSError as error:
    assert error.errno == errno.EADDRINUSE
finally:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
socket.create_server(addr).close()
",
    );
}

#[test]
#[cfg(target_os = "linux")]
fn a_call_that_needs_an_address_or_has_one_already_is_error_89_or_106() {
    assert_works(
        "import errno, socket
def error_of(call, *args):
    try:
        call(*args)
    except OSError as error:
        return error.errno
listener = socket.create_server(('127.0.0.1', 0))
connected = socket.create_connection(listener.getsockname())
assert error_of(connected.connect, listener.getsockname()) == errno.EISCONN == 106
unconnected = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
assert error_of(unconnected.send, b'hi') == errno.EDESTADDRREQ == 89
",
    );
}

#[test]
#[cfg(target_os = "linux")]
fn the_file_of_a_socket_writes_when_it_is_flushed_and_reads_exactly_n_bytes() {
    assert_works(
        "import socket
near, far = socket.socketpair()
output = near.makefile('w')
output.write('hello')
far.setblocking(False)
try:
    far.recv(9)
    assert False, 'it is in the buffer'
except BlockingIOError:
    pass
output.flush()
assert far.recv(9) == b'hello'
input = near.makefile('rb')
far.sendall(b'123')
far.sendall(b'45678')
assert input.read(6) == b'123456'
far.close()
assert input.read(6) == b'78'
",
    );
}

/// SO_PEERCRED gives three numbers: of the process, the user and the group.
#[test]
#[cfg(target_os = "linux")]
fn it_sets_keepalive_and_asks_for_the_credentials_of_a_peer() {
    assert_works(
        "import os, socket, struct
near, far = socket.socketpair()
peer = struct.unpack('3i', near.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
assert peer == (os.getpid(), os.getuid(), os.getgid())
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
for option, value in ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3)):
    s.setsockopt(socket.IPPROTO_TCP, option, value)
    assert s.getsockopt(socket.IPPROTO_TCP, option) == value
",
    );
}

#[test]
#[cfg(target_os = "linux")]
fn the_error_etimedout_of_the_kernel_is_a_timeout_error_too() {
    assert_works(
        "import errno
error = OSError(errno.ETIMEDOUT, 'Connection timed out')
assert errno.ETIMEDOUT == 110 and isinstance(error, TimeoutError)
",
    );
}
