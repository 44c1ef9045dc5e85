//! Makes sure that the tests leave nothing behind, even if they are killed.
//!
//! A handle that is dropped kills its program, or removes its folder. But a process that is
//! killed drops nothing. So each test process starts a shell that waits until the process
//! ends. The shell has its own process group, to which all programs are added, and its own
//! folder, which contains all other folders.

use tempfile::{Builder, TempDir};

/// Creates a folder with a short path, because the path of a Unix socket is limited. The
/// folder is removed when it is dropped.
pub fn folder() -> TempDir {
    let mut builder = Builder::new();
    let builder = builder.prefix("");
    #[cfg(unix)]
    let folder = builder.rand_bytes(4).tempdir_in(&guard::GUARD.folder);
    #[cfg(not(unix))]
    let folder = builder.tempdir();
    folder.unwrap()
}

#[cfg(unix)]
pub use guard::watch;
#[cfg(unix)]
pub(crate) use guard::{also_kill, mark};

#[cfg(unix)]
mod guard {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::process::CommandExt;
    use std::path::PathBuf;
    use std::process::{ChildStdin, Command, Stdio};
    use std::sync::{LazyLock, Mutex};

    /// When this process ends, the shell's stdin ends. Until then the shell reads the ids of
    /// other process groups that it must kill. A process that has just been started, or has left
    /// its group, is known by a variable of its environment, which Linux shows. For kill, 0 is
    /// the shell's own group, with the shell itself. If a process of the group is suspended when we
    /// end, the kernel sends SIGHUP to the whole group.
    const SCRIPT: &str = "
        trap '' HUP
        folder=$(mktemp -d /tmp/uxXXXXXX) && chmod 755 $folder && echo $folder || exit
        groups=
        while read -r group; do groups=\"$groups -$group\"; done
        rm -rf $folder
        for pause in 0.1 0; do
            marked=$(grep -lzsx LEFTOVER_OF=$$ /proc/[0-9]*/environ | tr -cd '0-9\n')
            kill -s KILL -- $groups $marked
            groups=
            sleep $pause
        done
        kill -s KILL 0";

    pub static GUARD: LazyLock<Guard> = LazyLock::new(Guard::start);

    pub struct Guard {
        group: i32,
        pub folder: PathBuf,
        /// We never close this. The kernel closes it when this process ends.
        groups: Mutex<ChildStdin>,
    }

    impl Guard {
        #[expect(clippy::zombie_processes)] // It ends after this process.
        fn start() -> Guard {
            // Every test that starts a program comes here first.
            LazyLock::force(&crate::limits::MAX_DESCRIPTORS);
            let mut shell = Command::new("sh")
                .args(["-c", SCRIPT])
                .process_group(0)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut folder = String::new();
            let stdout = shell.stdout.take().unwrap();
            BufReader::new(stdout).read_line(&mut folder).unwrap();
            assert!(!folder.is_empty(), "no folder for the tests");
            Guard {
                group: i32::try_from(shell.id()).unwrap(),
                folder: folder.trim_end().into(),
                groups: Mutex::new(shell.stdin.take().unwrap()),
            }
        }
    }

    /// Adds the process that a command will start to the group that the shell kills.
    pub fn watch(command: &mut Command) -> &mut Command {
        command.process_group(GUARD.group)
    }

    /// Marks the process that a command will start, and all that this starts, for the shell to kill.
    pub fn mark(command: &mut Command) -> &mut Command {
        command.env("LEFTOVER_OF", GUARD.group.to_string())
    }

    /// Tells the shell to kill another process group as well.
    pub fn also_kill(group: u32) {
        writeln!(GUARD.groups.lock().unwrap(), "{group}").unwrap();
    }
}
