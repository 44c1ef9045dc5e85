//! The example `families` of `unix-echo`: which sockets the kernel has.

#[cfg(not(target_os = "linux"))]
#[test]
fn the_families_are_those_of_linux() {
    harness::not_run("the numbers of the families are Linux's");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeMap;
    use std::process::Command;

    use harness::{as_nobody, copy_of, example_of, not_run, run};
    use socket2::{Domain, Protocol, Socket, Type};

    // From address_families(7) and the kernel's include/linux/socket.h.
    const AF_UNIX: i32 = 1;
    const AF_INET: i32 = 2;
    const AF_INET6: i32 = 10;
    const AF_TIPC: i32 = 30;
    const FAMILIES: [(&str, i32); 7] = [
        ("AF_UNIX", AF_UNIX),
        ("AF_INET", AF_INET),
        ("AF_INET6", AF_INET6),
        ("AF_NETLINK", 16),
        ("AF_TIPC", AF_TIPC),
        ("AF_PACKET", 17),
        ("AF_VSOCK", 40),
    ];

    const TYPES: [(&str, Type); 4] = [
        ("SOCK_STREAM", Type::STREAM),
        ("SOCK_DGRAM", Type::DGRAM),
        ("SOCK_SEQPACKET", Type::SEQPACKET),
        ("SOCK_RAW", Type::RAW),
    ];

    fn families() -> Command {
        example_of("unix-echo", "families")
    }

    pub fn stdout(command: &mut Command) -> String {
        let finished = run(command, b"");
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        String::from_utf8(finished.stdout).unwrap()
    }

    /// Returns the cells of the table by family and type. A column begins at its title.
    fn cells(table: &str) -> BTreeMap<(&str, &str), &str> {
        let (titles, rows) = table.split_once('\n').unwrap();
        let starts = TYPES.map(|(title, _)| titles.find(title).unwrap());
        let ends = [starts[1], starts[2], starts[3], usize::MAX];
        let mut cells = BTreeMap::new();
        for row in rows.lines().take_while(|row| !row.is_empty()) {
            let family = row[..starts[0]].trim_end();
            for ((title, _), (start, end)) in TYPES.iter().zip(starts.into_iter().zip(ends)) {
                cells.insert((family, *title), row[start..end.min(row.len())].trim_end());
            }
        }
        cells
    }

    fn open(family: i32, kind: Type) -> std::io::Result<Socket> {
        let protocol = match (family, kind) {
            (AF_INET, Type::RAW) => Some(Protocol::ICMPV4),
            (AF_INET6, Type::RAW) => Some(Protocol::ICMPV6),
            _ => None,
        };
        Socket::new(Domain::from(family), kind, protocol)
    }

    #[test]
    fn the_table_has_every_family_and_type_and_says_what_this_process_gets_too() {
        let table = stdout(&mut families());
        let cells = cells(&table);
        assert_eq!(cells.len(), FAMILIES.len() * TYPES.len(), "{table}");
        for (family, number) in FAMILIES {
            for (title, kind) in TYPES {
                let expected = match open(number, kind) {
                    Ok(_) => "yes".to_owned(),
                    Err(error) => match error.raw_os_error() {
                        Some(1 | 13) => "not permitted".to_owned(),
                        Some(97) => "no such family".to_owned(),
                        Some(91 | 93 | 94) => "no such type".to_owned(),
                        _ => error.to_string().to_lowercase(),
                    },
                };
                let cell = cells[&(family, title)];
                assert!(
                    !cell.is_empty() && expected.starts_with(&cell.to_lowercase()),
                    "{family} {title}: {cell}, {expected}"
                );
            }
        }
    }

    #[test]
    fn af_unix_takes_a_raw_socket_for_one_of_datagrams() {
        assert_eq!(
            open(AF_UNIX, Type::RAW).unwrap().r#type().unwrap(),
            Type::DGRAM
        );
    }

    #[test]
    fn without_the_right_raw_sockets_are_not_permitted_and_the_rest_of_the_table_comes() {
        let (_folder, copy) = copy_of(&families());
        let table = stdout(as_nobody(&mut Command::new(copy)));
        let cells = cells(&table);
        assert_eq!(cells[&("AF_INET", "SOCK_RAW")], "not permitted");
        assert_eq!(cells[&("AF_PACKET", "SOCK_RAW")], "not permitted");
        assert_eq!(cells[&("AF_UNIX", "SOCK_STREAM")], "yes");
        assert_eq!(cells.len(), FAMILIES.len() * TYPES.len(), "{table}");
    }

    /// Such an error says nothing about the family.
    #[test]
    fn a_process_that_can_open_no_socket_is_not_told_that_the_family_is_missing() {
        if !harness::can_trace() {
            return;
        }
        for error in ["EMFILE", "ENFILE", "ENOMEM", "ENOBUFS"] {
            let inject = format!("inject=socket:error={error}");
            let mut strace = Command::new("strace");
            strace.args(["-D", "-o", "/dev/null", "-e", &inject]);
            let finished = run(strace.arg(families().get_program()), b"");
            finished.assert_failed("Error: cannot ask for a socket\n");
        }
    }

    #[test]
    fn a_kernel_without_tipc_says_so_and_the_next_step_is_shown() {
        let table = stdout(&mut families());
        let (_, hint) = table.split_once("\n\n").unwrap_or_default();
        match open(AF_TIPC, Type::SEQPACKET) {
            Err(error) if error.raw_os_error() == Some(97) => {
                assert_eq!(
                    cells(&table)[&("AF_TIPC", "SOCK_SEQPACKET")],
                    "no such family"
                );
                assert!(
                    hint.contains("Address family not supported") && hint.contains("modprobe tipc"),
                    "{hint:?}"
                );
            }
            _ => assert_eq!(hint, ""),
        }
    }

    /// An address of TIPC is the name of a service. It has no path and no port, and the
    /// machine does not matter.
    #[test]
    fn an_echo_over_tipc() {
        if let Err(error) = open(AF_TIPC, Type::SEQPACKET) {
            return not_run(&format!("a TIPC socket: {error}"));
        }
        let echo = "import os, socket, sys
# Types from 64 on are for programs to choose.
service, instance = 64 + os.getpid(), 7
with socket.socket(socket.AF_TIPC, socket.SOCK_RDM) as server, \\
        socket.socket(socket.AF_TIPC, socket.SOCK_RDM) as client:
    server.settimeout(10)
    client.settimeout(10)
    server.bind((socket.TIPC_ADDR_NAMESEQ, service, instance, instance, socket.TIPC_NODE_SCOPE))
    client.sendto(sys.stdin.buffer.readline(), (socket.TIPC_ADDR_NAME, service, instance, 0))
    data, peer = server.recvfrom(2048)
    server.sendto(data, peer)
    data, server = client.recvfrom(2048)
    sys.stdout.buffer.write(data)
";
        if let Err(error) = Command::new("python3").arg("--version").output() {
            return not_run(&format!("cannot start python3: {error}"));
        }
        let finished = run(Command::new("python3").args(["-c", echo]), b"hello\n");
        assert_eq!(finished.stdout, b"hello\n", "{}", finished.stderr);
    }
}
