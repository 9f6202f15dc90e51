//! The `pawl` program as a process: long runs that are killed and started again, and commands
//! that end by themselves.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::http::request_with;
use super::kafka::Broker;
use super::process;
use super::wait::until;

const READY_DEADLINE: Duration = Duration::from_secs(60);
const END_DEADLINE: Duration = Duration::from_secs(60);

/// One instance of `pawl run`, which a test starts, kills and starts again. Its working directory
/// (settings, log, local store) stays the same over restarts. Killed when dropped.
pub struct Pawl {
    dir: PathBuf,
    port: u16,
    env: Vec<(&'static str, String)>,
    /// The test of this binary that takes the place of `pawl run`.
    own: Option<&'static str>,
    child: Option<Child>,
}

impl Pawl {
    /// Prepares an instance with these settings: TOML to which a free port is added, and an `[admin]` table
    /// for it unless there is one at the end. Nothing runs yet.
    pub fn new(settings: &str) -> Pawl {
        let dir = process::scratch("pawl");
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback interface has free ports");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let pawl = Pawl { dir, port, env: Vec::new(), own: None, child: None };
        pawl.set(settings);
        pawl
    }

    /// The same with a program that uses Pawl as a library: an ignored test of this test binary, which finds
    /// its settings in the working directory.
    pub fn with_program(settings: &str, test: &'static str) -> Pawl {
        let mut pawl = Pawl::new(settings);
        pawl.own = Some(test);
        pawl
    }

    /// Replaces the settings; the next start reads them.
    pub fn set(&self, settings: &str) {
        let table = if settings.contains("\n[admin]\n") { "" } else { "\n[admin]\n" };
        // Tests ask more often than anybody.
        let bounds = "requests_per_second = 100000\nburst = 100000";
        let text = format!("{settings}{table}{bounds}\nlisten = \"127.0.0.1:{}\"\n", self.port);
        std::fs::write(self.dir.join("pawl.toml"), text).expect("the scratch directory can be written");
    }

    /// Sets the variables that are added to its environment; the next start reads them.
    pub fn set_env(&mut self, variables: &[(&'static str, &str)]) {
        self.env = variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    }

    /// Starts `pawl run`.
    pub fn start(&mut self) -> &mut Self {
        assert!(self.child.is_none(), "this instance runs already");
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a writable log");
        let mut command = match self.own {
            None => program(&self.dir),
            Some(_) => clean(std::env::current_exe().expect("this binary has a path"), &self.dir),
        };
        match self.own {
            None => command.args(["run", "--config", "pawl.toml"]),
            Some(test) => command.args(["--ignored", "--exact", "--nocapture", test]),
        };
        command.stdin(Stdio::null());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdout(log.try_clone().expect("a file handle can be cloned")).stderr(log);
        self.child = Some(process::spawn(command).expect("pawl can be started"));
        self
    }

    /// Waits until `/ready` answers 200.
    ///
    /// # Panics
    /// With the end of the log, when the process ends or the deadline is over.
    pub fn wait_ready(&mut self) -> &mut Self {
        let start = std::time::Instant::now();
        while self.get("/ready").is_none_or(|(status, _)| status != 200) {
            let child = self.child.as_mut().expect("start() comes first");
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                self.child = None;
                panic!("pawl ended ({status}) before it was ready:\n{}", self.log_tail());
            }
            assert!(start.elapsed() < READY_DEADLINE, "pawl is not ready:\n{}", self.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
        self
    }

    /// Ends the process as a crash does (SIGKILL).
    pub fn kill(&mut self) {
        process::kill(&mut self.child.take().expect("the instance runs"));
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Returns
    /// The exit code, 128 + signal where a signal ended the process.
    pub fn terminate(&mut self) -> i32 {
        self.signal(libc::SIGTERM);
        self.wait()
    }

    /// Sends a signal to the running process.
    pub fn signal(&self, signal: i32) {
        process::signal(self.child.as_ref().expect("the instance runs"), signal);
    }

    /// Waits until the process ends by itself and returns the exit code.
    pub fn wait(&mut self) -> i32 {
        let mut child = self.child.take().expect("the instance runs");
        process::code(process::wait("pawl run", &mut child, END_DEADLINE))
    }

    /// Whether it runs no more; it may be started again then.
    pub fn has_ended(&mut self) -> bool {
        let ended = self
            .child
            .as_mut()
            .is_none_or(|child| child.try_wait().expect("a child can be waited for").is_some());
        if ended {
            self.child = None;
        }
        ended
    }

    /// The process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Asks the process's own HTTP endpoint: status and body; `None` where nobody answers.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let token =
            self.env.iter().find(|(name, _)| *name == "PAWL__ADMIN__READ_TOKEN").map(|(_, token)| &**token);
        request_with(self.port, "GET", path, token, "").ok()
    }

    /// Sends JSON to the endpoint: status and body.
    ///
    /// # Panics
    /// Nobody answers.
    pub fn send(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, String) {
        let answer = request_with(self.port, method, path, token, body);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// The port of the endpoint.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The sum of a metric's samples now, over all their labels; `None` where nobody answers.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics")?;
        let samples = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
        });
        Some(samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// The upper bound of the histogram bucket, in seconds, that this share of the samples lies within.
    pub fn quantile(&self, histogram: &str, share: f64) -> Option<f64> {
        let (_, text) = self.get("/metrics")?;
        let prefix = format!("{histogram}_bucket{{");
        let bucket = |line: &str| {
            let bound = line.strip_prefix(&prefix)?.split("le=\"").nth(1)?.split('"').next()?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            Some((bound, line.rsplit(' ').next()?.parse::<f64>().ok()?))
        };
        let buckets: Vec<(f64, f64)> = text.lines().filter_map(bucket).collect();
        let all = buckets.last()?.1;
        buckets.iter().find(|(_, count)| *count >= all * share).map(|(bound, _)| *bound)
    }

    /// The partitions in this phase.
    pub fn partitions(&self, phase: &str) -> Vec<usize> {
        let Some((_, text)) = self.get("/metrics") else { return Vec::new() };
        let phase = format!("phase=\"{phase}\"");
        let is_in = |line: &&str| {
            line.starts_with("pawl_partition_phase") && line.contains(&phase) && line.ends_with(" 1")
        };
        let number = |line: &str| line.split("partition=\"").nth(1)?.split('"').next()?.parse().ok();
        text.lines().filter(is_in).filter_map(number).collect()
    }

    /// Waits until it ends by itself with exit code 4, for a reason that the last line of its log tells
    /// with these parts.
    pub fn assert_refused(&mut self, parts: &[&str]) {
        let (code, log) = (self.wait(), self.log());
        assert_eq!(code, 4, "{log}");
        let last = log.lines().last().unwrap_or_default();
        for part in parts {
            assert!(last.contains(part), "{part:?} is not in the last line of\n{log}");
        }
    }

    /// Runs `pawl audit` with this instance's settings, whether it runs or not.
    ///
    /// # Panics
    /// When the books do not agree with the topics.
    pub fn audit(&self) -> Finished {
        let file = self.dir.join("pawl.toml");
        let finished = command(&["audit", "--config", file.to_str().expect("a path in UTF-8")], b"");
        assert_eq!(finished.code, 0, "{}{}", finished.stdout, finished.stderr);
        finished
    }

    /// The working directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Deletes the local store (`store.dir` as it is by default), as a lost disk does.
    pub fn forget_store(&self) {
        std::fs::remove_dir_all(self.dir.join("pawl-data")).expect("there was a local store");
    }

    /// Everything that was logged, over all starts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    fn log_tail(&self) -> String {
        process::tail(&self.log_path(), 40)
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("pawl.log")
    }
}

impl Drop for Pawl {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            process::kill(&mut child);
        }
        if std::thread::panicking() {
            eprintln!("the log of pawl ends:\n{}", self.log_tail());
        }
        // What cannot be removed now is swept by the next run.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Settings of one handler, named `billing`, which restarts quickly: `more` is the rest of its
/// table, and may go on with other tables.
pub fn settings(broker: &Broker, topic: &str, group: &str, more: &str) -> String {
    format!(
        "[kafka]\nbootstrap_servers = [\"{}\"]\nsession_timeout = \"6s\"\n\
         [store]\ncheckpoint_interval = \"200ms\"\n\
         [handler.billing]\ntopic = \"{topic}\"\ngroup = \"{group}\"\n{more}\n",
        broker.bootstrap()
    )
}

/// A command of `pawl` that has ended.
#[derive(Debug)]
pub struct Finished {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }
}

/// Runs a command of `pawl` with `stdin` as its standard input, and waits for its end.
pub fn command(args: &[&str], stdin: &[u8]) -> Finished {
    command_with(&[], args, stdin)
}

/// The same with these environment variables.
pub fn command_with(variables: &[(&str, &str)], args: &[&str], stdin: &[u8]) -> Finished {
    let dir = process::scratch("command");
    let file = |name: &str| dir.join(name);
    std::fs::write(file("in"), stdin).expect("the scratch directory can be written");
    let mut command = program(&dir);
    command.envs(variables.iter().copied());
    command.args(args).stdin(File::open(file("in")).expect("just written"));
    command.stdout(File::create(file("out")).expect("a writable directory"));
    command.stderr(File::create(file("err")).expect("a writable directory"));
    let mut child = process::spawn(command).expect("pawl can be started");
    let status = until("the end of a pawl command", END_DEADLINE, || child.try_wait().expect("a child"));
    let text = |name: &str| std::fs::read_to_string(file(name)).expect("output in UTF-8");
    let finished = Finished { code: process::code(status), stdout: text("out"), stderr: text("err") };
    let _ = std::fs::remove_dir_all(&dir);
    finished
}

/// `pawl` without the settings that the test's own environment may hold.
pub fn program(dir: &Path) -> Command {
    clean(env!("CARGO_BIN_EXE_pawl"), dir)
}

/// A program without such settings.
fn clean(executable: impl AsRef<OsStr>, dir: &Path) -> Command {
    let mut command = Command::new(executable);
    command.current_dir(dir);
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("PAWL_") || name_text.starts_with("OTEL_") || name_text.starts_with("TRACE")
        {
            command.env_remove(name);
        }
    }
    command
}
