//! An instance as the world has it: a process that is started, ended and looked after.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::pipeline::Pipeline;
use super::support::http::request;
use super::support::process;

/// From SIGTERM to the end of an instance: `shutdown.deadline` and some.
pub const END_DEADLINE: Duration = Duration::from_secs(60);

/// See the module's documentation.
pub struct Member {
    pub name: String,
    dir: PathBuf,
    /// Where it answers, if it does.
    port: Option<u16>,
    program: PathBuf,
    /// What it is started with beside its settings and its name.
    args: Vec<String>,
    child: Option<Child>,
    /// Since when it has been told to end.
    ending: Option<Instant>,
    /// Whether it begins again once it has ended.
    start_again: bool,
}

impl Member {
    /// Nothing runs yet. `settings` are those of its name, and say that it listens at `port`.
    pub fn new(
        name: String,
        port: Option<u16>,
        settings: impl FnOnce(&str) -> String,
        service: &Path,
        pipelines: &[Pipeline; 2],
    ) -> Member {
        let dir = process::scratch("instance");
        std::fs::write(dir.join("pawl.toml"), settings(&name)).expect("a writable directory");
        let service = service.to_str().expect("a path in UTF-8").to_owned();
        let outputs = pipelines.each_ref().map(|one| one.output.clone());
        let args = [service].into_iter().chain(outputs).collect();
        let program = std::env::current_exe().expect("the path of this program");
        Member { name, dir, port, program, args, child: None, ending: None, start_again: false }
    }

    /// Sees whether it has ended. One that ends by itself is a finding: every fault here is one that a retry
    /// heals. `all_good`: the broker is there and every link is good.
    pub fn look(&mut self, all_good: bool) -> Option<String> {
        let child = self.child.as_mut()?;
        let status = child.try_wait().expect("a child can be waited for");
        let mut finding = None;
        match (status, self.ending) {
            (Some(status), Some(_)) => {
                // Where its link is bad the drain may not be over by its deadline, and it says so.
                let undrained = !all_good
                    && process::code(status) == 4
                    && self.last_words(1).contains("the drain was not over");
                // Told in its first moments, before it listened.
                let unborn = process::code(status) == 128 + libc::SIGTERM;
                if !status.success() && !undrained && !unborn {
                    finding = Some(self.ended_badly("was told to end, and did so badly", status));
                }
            }
            (Some(status), None) => {
                finding = Some(self.ended_badly("ended by itself", status));
                self.start_again = true;
            }
            (None, Some(since)) if since.elapsed() > END_DEADLINE => {
                process::kill(child);
                finding = Some(format!("{} did not end within {END_DEADLINE:?}", self.name));
            }
            (None, _) => return None,
        }
        (self.child, self.ending) = (None, None);
        if std::mem::take(&mut self.start_again) {
            self.start();
        }
        finding
    }

    /// Starts it, or does so once it has ended.
    pub fn start(&mut self) {
        if self.child.is_some() {
            self.start_again = self.ending.is_some();
            return;
        }
        let log = File::options().create(true).append(true).open(self.log()).expect("a writable log");
        let mut command = Command::new(&self.program);
        command.args(["instance", "pawl.toml", &self.name]).args(&self.args).current_dir(&self.dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(process::spawn(command).expect("an instance can be started"));
    }

    /// The same, on an empty disk.
    pub fn start_anew(&mut self) {
        if self.child.is_none() {
            // There is none before the first start.
            let _ = std::fs::remove_dir_all(self.dir.join("pawl-data"));
        }
        self.start();
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            process::kill(&mut child);
        }
        (self.ending, self.start_again) = (None, false);
    }

    /// Tells it to end.
    pub fn end(&mut self) {
        if let (Some(child), None) = (&self.child, self.ending) {
            process::signal(child, libc::SIGTERM);
            self.ending = Some(Instant::now());
        }
    }

    /// The same, and it does not begin again.
    pub fn end_for_good(&mut self) {
        self.end();
        self.start_again = false;
    }

    /// Sends a signal, if it runs.
    pub fn signal(&self, signal: i32) {
        if let Some(child) = &self.child {
            process::signal(child, signal);
        }
    }

    /// Is this program from its next start on.
    pub fn becomes(&mut self, program: &Path) {
        self.program = program.to_owned();
    }

    /// Whether it says that it is ready.
    pub fn is_ready(&self) -> bool {
        let answer = self.port.and_then(|port| request(port, "GET", "/ready", "").ok());
        answer.is_some_and(|(status, _)| status == 200)
    }

    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    pub fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("pawl.log")
    }

    fn last_words(&self, lines: usize) -> String {
        process::tail(&self.log(), lines)
    }

    fn ended_badly(&self, how: &str, status: ExitStatus) -> String {
        format!("{} {how} ({status}): {}", self.name, self.last_words(2))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
        // What cannot be removed now is swept by the next run.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
