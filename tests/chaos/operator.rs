//! The person at the command line: asks for replays, pauses keys, and in the end brings everything back. Each
//! command is the `pawl` program; some of them are killed and given again.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Instant;

use super::plan::{Ask, Asked};
use super::support::{self, Finished, process};

/// Commands that run at a time.
const MOST: usize = 6;
/// How long a command waits for an answer: instances that hold partitions are away for as long.
const PATIENCE: &str = "20s";

/// See the module's documentation.
pub struct Operator {
    dir: PathBuf,
    /// Settings without a faulty link in between.
    settings: PathBuf,
    running: Vec<Running>,
    /// What is to be given as soon as fewer run.
    next: VecDeque<Vec<String>>,
    /// Handlers and keys that were paused at some time.
    paused: BTreeSet<(&'static str, String)>,
    given: usize,
    /// Commands that were killed and given again.
    pub killed: usize,
    /// Commands that ended well.
    pub done: usize,
}

struct Running {
    args: Vec<String>,
    number: usize,
    child: Child,
    kill_at: Option<Instant>,
}

impl Operator {
    /// Nothing is asked yet.
    pub fn new(settings: &str) -> Operator {
        let dir = process::scratch("operator");
        let file = dir.join("pawl.toml");
        std::fs::write(&file, settings).expect("a writable directory");
        let (running, next, paused) = (Vec::new(), VecDeque::new(), BTreeSet::new());
        Operator { dir, settings: file, running, next, paused, given: 0, killed: 0, done: 0 }
    }

    /// Gives a command, and does not wait for its end.
    pub fn give(&mut self, asked: &Asked) {
        if self.running.len() >= MOST {
            return;
        }
        let (handler, key) = (asked.handler, asked.key.clone());
        if asked.what == Ask::Pause {
            self.paused.insert((handler, key.clone()));
        }
        let args: &[&str] = match asked.what {
            Ask::ReplayAll => &["dlt", "replay", "--all"],
            Ask::ReplaySlowly => &["dlt", "replay", "--all", "--rate", "200"],
            Ask::ReplayKey => &["dlt", "replay", "--key", &key],
            Ask::StopReplay => &["dlt", "stop-replay"],
            Ask::Pause => &["keys", "pause", &key],
            Ask::Resume => &["keys", "resume", &key],
        };
        let kill_at = asked.killed_after.map(|after| Instant::now() + after);
        self.spawn(of(handler, args), kill_at);
    }

    fn spawn(&mut self, args: Vec<String>, kill_at: Option<Instant>) {
        self.given += 1;
        let number = self.given;
        let out = File::create(self.said(number)).expect("a writable directory");
        let mut command = support::pawl::program(&self.dir);
        command.args(&args).stdin(Stdio::null());
        command.stdout(out.try_clone().expect("a file handle can be cloned")).stderr(out);
        let child = process::spawn(command).expect("pawl can be started");
        self.running.push(Running { args, number, child, kill_at });
    }

    fn said(&self, number: usize) -> PathBuf {
        self.dir.join(format!("{number}.out"))
    }

    /// Sees which commands have ended, and kills those whose time has come. What a command cannot know, or has
    /// to report, is no finding; a command that is wrong or that breaks is.
    pub fn look(&mut self) -> Vec<String> {
        let (mut findings, mut again) = (Vec::new(), Vec::new());
        for mut one in std::mem::take(&mut self.running) {
            if let Some(status) = one.child.try_wait().expect("a child can be waited for") {
                match process::code(status) {
                    0 | 1 => self.done += 1,
                    // While the broker is away, or before an instance has run.
                    3 | 4 => {}
                    code => {
                        let said = process::tail(&self.said(one.number), 3);
                        findings.push(format!("pawl {} ended with {code}: {said}", one.args.join(" ")));
                    }
                }
            } else if one.kill_at.is_some_and(|at| at <= Instant::now()) {
                process::kill(&mut one.child);
                again.push(one.args);
            } else {
                self.running.push(one);
            }
        }
        self.killed += again.len();
        again.into_iter().for_each(|args| self.spawn(args, None));
        while self.running.len() < MOST
            && let Some(args) = self.next.pop_front()
        {
            self.spawn(args, None);
        }
        findings
    }

    /// Whether no command runs, and none is to be given.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.next.is_empty()
    }

    /// Kills no further command.
    pub fn spare(&mut self) {
        self.running.iter_mut().for_each(|one| one.kill_at = None);
    }

    /// Lets every key go on that was paused.
    pub fn resume_all(&mut self) {
        let resume = |(handler, key): &(&str, String)| of(handler, &["keys", "resume", key]);
        self.next.extend(self.paused.iter().map(resume));
    }

    /// Replays every letter that nobody has dealt with.
    pub fn replay_all(&mut self, handler: &str) {
        self.next.push_back(of(handler, &["dlt", "replay", "--all"]));
    }

    /// `pawl audit`, to its end.
    pub fn audit(&self) -> Finished {
        let settings = self.settings.to_str().expect("a path in UTF-8");
        support::command(&["audit", "--json", "--config", settings], b"")
    }
}

/// A command for one handler.
fn of(handler: &str, args: &[&str]) -> Vec<String> {
    let rest = ["--handler", handler, "--timeout", PATIENCE];
    args.iter().chain(&rest).map(|arg| (*arg).to_owned()).collect()
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.running.iter_mut().for_each(|one| process::kill(&mut one.child));
        // What cannot be removed now is swept by the next run.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// What `pawl audit` tells of a handler in all partitions together.
pub fn sum(report: &Finished, handler: &str, what: &str) -> u64 {
    let partitions = report.json()["partitions"].as_array().cloned().unwrap_or_default();
    let own = partitions.iter().filter(|one| one["handler"] == handler);
    own.filter_map(|one| one[what].as_u64()).sum()
}
