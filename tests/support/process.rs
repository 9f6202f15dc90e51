//! Child processes that end with the test process, whatever ends it.
//!
//! Rust drops no statics, so a guard does not stop a shared broker. The kernel does:
//! `PR_SET_PDEATHSIG` kills the child when its parent *thread* ends (prctl(2)). Test threads end
//! with their test, so one thread that lives as long as the process starts every child.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use super::wait::until;

type Request = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts a child that is killed when this process ends.
pub fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Request>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, inbox) = mpsc::channel::<Request>();
        std::thread::Builder::new()
            .name("spawner".into())
            .spawn(move || {
                for (command, answer) in inbox {
                    // The asking test may have ended meanwhile; then nobody waits for the answer.
                    let _ = answer.send(spawn_here(command));
                }
            })
            .expect("a thread can be started");
        requests
    });
    let (answer, child) = mpsc::channel();
    spawner.send((command, answer)).expect("the spawner lives as long as the process");
    child.recv().expect("the spawner answers each request")
}

fn spawn_here(mut command: Command) -> io::Result<Child> {
    let parent = std::process::id();
    // SAFETY: between fork and exec only async-signal-safe calls are made (prctl, getppid).
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before prctl was called.
            if libc::getppid() as u32 != parent {
                return Err(io::Error::other("the parent has ended"));
            }
            Ok(())
        });
    }
    command.spawn()
}

/// Sends a signal to a child that was not waited for yet.
pub fn signal(child: &Child, signal: i32) {
    // SAFETY: no memory is involved; the child is not reaped, so its id cannot belong to another.
    let result = unsafe { libc::kill(child.id() as libc::pid_t, signal) };
    assert_eq!(result, 0, "signal {signal} to {}: {}", child.id(), io::Error::last_os_error());
}

/// Kills a child and waits for its end.
pub fn kill(child: &mut Child) {
    child.kill().expect("a child can be killed");
    child.wait().expect("a child can be waited for");
}

/// Waits for the end of a child.
pub fn wait(what: &str, child: &mut Child, deadline: Duration) -> ExitStatus {
    until(&format!("the end of {what}"), deadline, || child.try_wait().expect("a child can be waited for"))
}

/// The exit code as a shell shows it: 128 + signal for a process that a signal ended.
pub fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// A new directory below the target directory's `tmp`; directories of test processes that are
/// gone are removed on the way.
pub fn scratch(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
    static SWEPT: OnceLock<()> = OnceLock::new();
    SWEPT.get_or_init(|| sweep(root));
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = root.join(format!("{name}-{number}.{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the target directory can be written");
    dir
}

fn sweep(root: &Path) {
    let Ok(entries) = std::fs::read_dir(root) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let owner = path.extension().and_then(|text| text.to_str()).and_then(|text| text.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Another test process may be sweeping too.
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// The end of a text file, for a panic's message.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
