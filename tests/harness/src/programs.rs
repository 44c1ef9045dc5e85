//! Commands that start our programs and other people's.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use crate::not_run;

/// Returns the folder of the workspace.
pub fn root() -> PathBuf {
    // The path as people write it: without `..`, and without links followed.
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap_or(&package).to_owned()
}

/// Returns a command that starts a program of this workspace.
///
/// `cargo test` does not build the programs of other packages. So this builds the program
/// first, from the current sources and in the profile of the running test. A test never runs
/// an old program.
pub fn program(name: &str) -> Command {
    let build = escargot::CargoBuild::new().package(name).bin(name);
    built(name, build, |path| path)
}

/// Does the same for a program of the package `peers`, which holds what other people write.
pub fn peer(name: &str) -> Command {
    let build = escargot::CargoBuild::new().package("peers").bin(name);
    built(name, build, |path| path)
}

/// Does the same for an example of another package.
///
/// Cargo puts the examples of all packages into one folder, where the example of one package takes the
/// place of that with the same name of another. So each gets a link of its own.
pub fn example_of(package: &str, name: &str) -> Command {
    let build = escargot::CargoBuild::new().package(package).example(name);
    built(&format!("{package}/{name}"), build, |path| {
        let own_folder = path.with_file_name(package);
        let own_path = own_folder.join(name);
        let link = own_folder.join(format!("{name}-{}", std::process::id()));
        let linked = fs::create_dir_all(own_folder)
            .and_then(|()| fs::hard_link(&path, &link))
            .and_then(|()| fs::rename(&link, &own_path));
        linked.unwrap_or_else(|error| panic!("cannot link {}: {error}", own_path.display()));
        // If both were links to one file already, rename(2) has done nothing.
        let _ = fs::remove_file(link);
        own_path
    })
}

/// Returns a command for a program that is not ours. If it is not installed, prints `NOT RUN`
/// and returns `None`.
pub fn foreign(name: &str) -> Option<Command> {
    installed(name).map_err(|why| not_run(&why)).ok()
}

/// Does the same, and returns why there is none.
pub fn installed(name: &str) -> Result<Command, String> {
    let file = format!("{name}{}", env::consts::EXE_SUFFIX);
    let path = env::var_os("PATH").unwrap_or_default();
    // Debian installs servers in a folder that is not in every user's PATH.
    let folders = env::split_paths(&path).chain(["/usr/sbin".into()]);
    let mut paths = folders.map(|folder| folder.join(&file));
    let found = paths.find(|path| path.is_file());
    found
        .map(Command::new)
        .ok_or_else(|| format!("{name} is not installed"))
}

/// Returns a command for a Python program in `peers/python`. Without Python 3.8 or later, this
/// prints `NOT RUN` and returns `None`.
pub fn python(name: &str) -> Option<Command> {
    python_in("python", name)
}

/// Does the same for another folder in `peers`.
pub fn python_in(folder: &str, name: &str) -> Option<Command> {
    static IS_NEW_ENOUGH: OnceLock<bool> = OnceLock::new();
    let mut command = foreign("python3")?;
    let ask = || {
        let script = "import sys; sys.exit(sys.version_info < (3, 8))";
        Command::new("python3")
            .args(["-c", script])
            .status()
            .unwrap()
            .success()
    };
    if !IS_NEW_ENOUGH.get_or_init(ask) {
        not_run("python3 is older than 3.8");
        return None;
    }
    let path = root().join("tests/peers").join(folder).join(name);
    command.arg("-B").arg(path); // -B leaves no compiled files beside the programs.
    Some(command)
}

/// Builds a program once, and returns a command for the file that `keep` makes of it.
fn built(name: &str, build: escargot::CargoBuild, keep: impl Fn(PathBuf) -> PathBuf) -> Command {
    static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap();
    let path = built.entry(name.to_owned()).or_insert_with(|| {
        let run = build.args(["--profile", &profile()]).run();
        let run = run.unwrap_or_else(|error| panic!("cannot build {name}: {error}"));
        keep(run.path().to_owned())
    });
    let mut command = Command::new(path);
    // With these variables, anyhow would add a stack trace to the errors that the tests read.
    command
        .env_remove("RUST_BACKTRACE")
        .env_remove("RUST_LIB_BACKTRACE");
    command
}

/// Returns the folder where cargo puts the programs of the profile in which this one was built. A test runs
/// in `deps` there.
fn built_here() -> PathBuf {
    let program = env::current_exe().unwrap();
    let folders = program.ancestors().skip(1);
    let mut folders = folders.skip_while(|folder| folder.ends_with("deps"));
    folders.next().unwrap().to_owned()
}

/// Returns the profile of this program.
fn profile() -> String {
    match built_here().file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev".to_owned(),
        other => other.unwrap_or_default().to_owned(),
    }
}

/// Compiles a server in `peers` that cargo does not build, once, into a folder next to those that it builds. If
/// its compiler is not installed, returns why there is none.
pub fn compiled(source: &'static str) -> Result<Command, String> {
    static COMPILED: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut compiler = if source.ends_with(".go") {
        installed("go")?
    } else {
        installed("cc")?
    };
    let mut compiled = COMPILED.lock().unwrap();
    let compile = || {
        let folder = built_here().join("peers");
        fs::create_dir_all(&folder).unwrap();
        let name = source.replace(['.', '/'], "_");
        let program = folder.join(&name);
        // Renamed only when it is complete, because two processes may build it at the same time.
        let unfinished = folder.join(format!("{}_{name}", std::process::id()));
        let options: &[&str] = match source.ends_with(".go") {
            true => &["build"],
            false => &["-O2", "-pthread"],
        };
        let source = root().join("tests/peers").join(source);
        compiler
            .args(options)
            .arg("-o")
            .args([&unfinished, &source]);
        let output = compiler.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cannot build {source:?}: {said}");
        fs::rename(&unfinished, &program).unwrap();
        program
    };
    Ok(Command::new(compiled.entry(source).or_insert_with(compile)))
}

/// Returns whether nginx is here with the module that `peers/nginx.conf` loads. If it is not,
/// prints `NOT RUN`.
#[cfg(unix)]
pub fn has_nginx() -> bool {
    const CONFIG: &str = include_str!("../../peers/conf/nginx.conf");
    let mut modules = CONFIG
        .lines()
        .filter_map(|line| line.strip_prefix("load_module ")?.strip_suffix(';'));
    let has_modules = modules.all(|module| std::path::Path::new(module).exists());
    if !has_modules {
        not_run("nginx's stream module is not installed (on Debian: libnginx-mod-stream)");
    }
    has_modules && foreign("nginx").is_some()
}

/// Returns whether strace(1) works here. If it does not, prints `NOT RUN`.
#[cfg(target_os = "linux")]
pub fn can_trace() -> bool {
    tracing().map_err(|why| not_run(&why)).is_ok()
}

/// Returns why strace(1) does not work here, if it does not.
#[cfg(target_os = "linux")]
pub fn tracing() -> Result<(), String> {
    let mut strace = Command::new("strace");
    match strace.args(["-o", "/dev/null", "true"]).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            Err(format!("strace: {}", stderr.trim()))
        }
        Err(error) => Err(format!("strace: {error}")),
    }
}

/// Copies a program into a folder that everybody can enter, so that another user can start it.
/// The copy is removed when the folder is dropped.
#[cfg(unix)]
pub fn copy_for_everybody(name: &str) -> (tempfile::TempDir, PathBuf) {
    copy_of(&program(name))
}

/// Does the same for the program of a command.
#[cfg(unix)]
pub fn copy_of(command: &Command) -> (tempfile::TempDir, PathBuf) {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;
    let folder = crate::folder();
    set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let program = std::path::Path::new(command.get_program());
    let copy = folder.path().join(program.file_name().unwrap());
    // cp makes the copy. If we wrote it, a child of another test could inherit the open
    // descriptor, and the kernel does not run a file that is open for writing (ETXTBSY).
    let cp = Command::new("cp").arg(program).arg(&copy).status();
    assert!(cp.unwrap().success());
    (folder, copy)
}

/// Gives a program an address: where a server listens, or the server that a client asks.
pub fn at(mut command: Command, addr: &str) -> Command {
    command.args(["--addr", addr]);
    command
}
