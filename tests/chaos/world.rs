//! The broker, the links, the instances, and what is done to them.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::Options;
use super::load::Load;
use super::plan::{self, Event, Move};
use super::support::kafka::Broker;
use super::support::proxy::{Proxies, Quality};
use super::support::{self, clients, process, until};

pub const PARTITIONS: i32 = 8;
const GROUP: &str = "tally";
/// From SIGTERM to the end of an instance: `shutdown.deadline` and some.
const END_DEADLINE: Duration = Duration::from_secs(60);
/// From the last fault until everything is processed.
const CATCH_UP: Duration = Duration::from_secs(120);

/// See the module's documentation.
pub struct World {
    pub broker: Broker,
    pub input: String,
    pub output: String,
    proxies: Proxies,
    instances: Vec<Instance>,
    /// The broker is there and every link is good.
    all_good: bool,
    began: Instant,
    /// Where `pawl audit` finds its settings.
    audit: PathBuf,
}

/// What a run leaves to be judged.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What was wrong on the way.
    pub findings: Vec<String>,
    /// Different events that were written.
    pub sent: u64,
    /// Input offsets that an operator skipped: these may be missing.
    pub skipped: BTreeMap<i32, Range<i64>>,
}

struct Instance {
    name: String,
    dir: PathBuf,
    child: Option<Child>,
    /// Since when it has been told to end.
    ending: Option<Instant>,
    /// Whether it begins again once it has ended.
    start_again: bool,
}

impl World {
    /// Starts the broker and the links; `None`, said aloud, where a tool is missing.
    pub fn build(options: &Options) -> Option<World> {
        let broker = Broker::restartable_with_links(usize::from(options.instances))?;
        let proxies = Proxies::start(broker.links())?;
        let input = support::topic(&broker, "events", PARTITIONS);
        let output = support::topic(&broker, "tallied", PARTITIONS);
        let instance = |n: usize| {
            let instance = Instance {
                name: format!("instance-{n}"),
                dir: process::scratch("instance"),
                child: None,
                ending: None,
                start_again: false,
            };
            let settings = settings(options, &proxies.bootstrap(n), &instance.name, &input);
            std::fs::write(instance.dir.join("pawl.toml"), settings).expect("a writable directory");
            instance
        };
        let instances = (0..usize::from(options.instances)).map(instance).collect();
        let audit = process::scratch("audit");
        let direct = settings(options, broker.bootstrap(), "auditor", &input);
        std::fs::write(audit.join("pawl.toml"), direct).expect("a writable directory");
        let began = Instant::now();
        Some(World { broker, input, output, proxies, instances, audit, all_good: true, began })
    }

    /// Does everything that is planned, then waits until all is processed and ends the instances.
    pub fn run(&mut self, options: &Options, seed: u64) -> Outcome {
        let mut outcome = Outcome::default();
        let events = plan::draw(options, seed, PARTITIONS);
        let load = Load::start(&self.broker, &self.input, options.rate, seed);
        self.began = Instant::now();
        for instance in 0..self.instances.len() {
            self.start(instance);
        }
        for (at, event) in events {
            while self.began.elapsed() < at {
                self.look(&mut outcome);
                std::thread::sleep(Duration::from_millis(10));
            }
            self.apply(event, &mut outcome);
        }
        while self.began.elapsed() < options.duration {
            self.look(&mut outcome);
            std::thread::sleep(Duration::from_millis(10));
        }
        outcome.sent = load.stop();
        self.tell("the last record is written");
        self.mend();
        for instance in 0..self.instances.len() {
            self.start(instance);
        }
        self.catch_up(&mut outcome);
        self.end_all(&mut outcome);
        self.balance(&mut outcome);
        outcome
    }

    /// Copies the instances' logs, and the broker's log and data, to where they outlive the run.
    pub fn keep_logs(&self, seed: u64) {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-logs-{seed}"));
        std::fs::create_dir_all(&kept).expect("the target directory can be written");
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(self.broker.dir()).arg(&kept);
        assert!(copy.status().is_ok_and(|status| status.success()), "the broker's directory can be copied");
        for instance in &self.instances {
            let copied = std::fs::copy(instance.log(), kept.join(format!("{}.log", instance.name)));
            copied.expect("a log can be copied");
        }
        println!("logs: {}", kept.display());
    }

    fn tell(&self, text: &str) {
        println!("{:8.3} {text}", self.began.elapsed().as_secs_f64());
    }

    /// Sees which instances have ended. One that ends by itself is a finding: every fault here is one that
    /// a retry heals.
    fn look(&mut self, outcome: &mut Outcome) {
        let all_good = self.all_good;
        for n in 0..self.instances.len() {
            let instance = &mut self.instances[n];
            let Some(child) = &mut instance.child else { continue };
            let status = child.try_wait().expect("a child can be waited for");
            match (status, instance.ending) {
                (Some(status), Some(_)) => {
                    // Where its link is bad the drain may not be over by its deadline, and it says so.
                    let undrained = !all_good
                        && process::code(status) == 4
                        && instance.last_words(1).contains("the drain was not over");
                    // Told in its first moments, before it listened.
                    let unborn = process::code(status) == 128 + libc::SIGTERM;
                    if !status.success() && !undrained && !unborn {
                        outcome
                            .findings
                            .push(instance.ended_badly("was told to end, and did so badly", status));
                    }
                }
                (Some(status), None) => {
                    outcome.findings.push(instance.ended_badly("ended by itself", status));
                    instance.start_again = true;
                }
                (None, Some(since)) if since.elapsed() > END_DEADLINE => {
                    process::kill(child);
                    outcome.findings.push(format!("{} did not end within {END_DEADLINE:?}", instance.name));
                }
                (None, _) => continue,
            }
            (instance.child, instance.ending) = (None, None);
            if std::mem::take(&mut instance.start_again) {
                self.start(n);
            }
        }
    }

    fn apply(&mut self, event: Event, outcome: &mut Outcome) {
        self.tell(&format!("{event:?}"));
        match event {
            Event::Kill(n) => {
                let instance = &mut self.instances[n];
                if let Some(mut child) = instance.child.take() {
                    process::kill(&mut child);
                }
                (instance.ending, instance.start_again) = (None, false);
            }
            Event::End(n) => {
                self.thaw(n);
                self.end(n);
            }
            Event::Start(n) => self.start(n),
            Event::StartAnew(n) => {
                if self.instances[n].child.is_none() {
                    // There is none before the first start.
                    let _ = std::fs::remove_dir_all(self.instances[n].dir.join("pawl-data"));
                }
                self.start(n);
            }
            Event::Freeze(n) => {
                if let Some(child) = &self.instances[n].child {
                    process::signal(child, libc::SIGSTOP);
                }
            }
            Event::Thaw(n) => self.thaw(n),
            Event::Link(n, quality) => {
                self.all_good = false;
                self.proxies.set(n, quality);
            }
            Event::RestartBroker { hard } => {
                self.all_good = false;
                if hard {
                    self.broker.kill();
                } else {
                    self.broker.stop();
                }
                self.broker.start();
                self.tell("the broker is back");
            }
            Event::MoveOffsets(to) => self.move_offsets(to, outcome),
        }
    }

    fn start(&mut self, n: usize) {
        let output = self.output.clone();
        let instance = &mut self.instances[n];
        if instance.child.is_some() {
            instance.start_again = instance.ending.is_some();
            return;
        }
        let log = File::options().create(true).append(true).open(instance.log()).expect("a writable log");
        let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
        command.args(["instance", "pawl.toml", &output]).current_dir(&instance.dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        instance.child = Some(process::spawn(command).expect("an instance can be started"));
    }

    fn thaw(&self, n: usize) {
        if let Some(child) = &self.instances[n].child {
            process::signal(child, libc::SIGCONT);
        }
    }

    fn end(&mut self, n: usize) {
        let instance = &mut self.instances[n];
        if let (Some(child), None) = (&instance.child, instance.ending) {
            process::signal(child, libc::SIGTERM);
            instance.ending = Some(Instant::now());
        }
    }

    /// Links are good again and nothing is frozen.
    fn mend(&mut self) {
        // Those that were told to end before it still have a reason to be late.
        self.all_good = self.instances.iter().all(|instance| instance.ending.is_none());
        for n in 0..self.instances.len() {
            self.proxies.set(n, Quality::Good);
            self.thaw(n);
        }
    }

    fn end_all(&mut self, outcome: &mut Outcome) {
        for n in 0..self.instances.len() {
            self.end(n);
            self.instances[n].start_again = false;
        }
        while self.instances.iter().any(|instance| instance.child.is_some()) {
            self.look(outcome);
            std::thread::sleep(Duration::from_millis(10));
        }
        self.tell("all instances have ended");
    }

    fn move_offsets(&mut self, to: Move, outcome: &mut Outcome) {
        self.mend();
        self.end_all(outcome);
        let before = clients::committed(&self.broker, GROUP, &self.input);
        let all = ["--topic".to_owned(), self.input.clone()];
        let change = match to {
            Move::Back => [&all[..], &["--to-earliest".to_owned()]].concat(),
            Move::Forward(partition, by) => vec![
                "--topic".to_owned(),
                format!("{}:{partition}", self.input),
                "--shift-by".to_owned(),
                by.to_string(),
            ],
        };
        let mut args =
            vec!["--bootstrap-server", self.broker.bootstrap(), "--group", GROUP, "--reset-offsets"];
        args.extend(change.iter().map(String::as_str));
        args.push("--execute");
        // A member that ended without leaving is known to the group for as long as its session.
        until("the group's offsets to be moved", END_DEADLINE, || {
            let class = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
            let output = self.broker.java_tool(class, &args, b"").expect("Java is there");
            let text = String::from_utf8_lossy(&output.stdout);
            (output.status.success() && !text.contains("Error")).then_some(())
        });
        let after = clients::committed(&self.broker, GROUP, &self.input);
        if let Move::Forward(partition, _) = to {
            let at = |offsets: &BTreeMap<i32, i64>| offsets.get(&partition).copied().unwrap_or_default();
            outcome.skipped.insert(partition, at(&before)..at(&after));
        }
        self.tell(&format!("the group's offsets were moved from {before:?} to {after:?}"));
        for n in 0..self.instances.len() {
            self.start(n);
        }
    }

    fn catch_up(&mut self, outcome: &mut Outcome) {
        let ends = clients::ends(&self.broker, &self.input).expect("the topic is there");
        let began = Instant::now();
        loop {
            let committed = clients::committed(&self.broker, GROUP, &self.input);
            let parked = (committed == ends).then(|| self.parked());
            if parked == Some(0) {
                return self.tell("everything is processed");
            }
            if began.elapsed() > CATCH_UP {
                let behind =
                    format!("committed {committed:?} of {ends:?}, parked {parked:?} after {CATCH_UP:?}");
                return outcome.findings.push(format!("not everything was processed: {behind}"));
            }
            self.look(outcome);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl World {
    /// `pawl audit` without a faulty link in between.
    fn audit(&self) -> support::Finished {
        let settings = self.audit.join("pawl.toml");
        support::command(&["audit", "--json", "--config", settings.to_str().expect("a path in UTF-8")], b"")
    }

    /// Records that wait for a retry: the group's offsets have passed them.
    fn parked(&self) -> u64 {
        let report = self.audit();
        let partitions = report.json()["partitions"].as_array().cloned().unwrap_or_default();
        partitions.iter().filter_map(|one| one["parked"].as_u64()).sum()
    }

    /// The books that Pawl keeps agree with the topics.
    fn balance(&self, outcome: &mut Outcome) {
        let report = self.audit();
        if report.code != 0 {
            outcome.findings.push(format!("the books do not agree: {}", report.stdout));
        }
    }
}

impl Instance {
    fn log(&self) -> PathBuf {
        self.dir.join("pawl.log")
    }

    fn last_words(&self, lines: usize) -> String {
        process::tail(&self.log(), lines)
    }

    fn ended_badly(&self, how: &str, status: ExitStatus) -> String {
        format!("{} {how} ({status}): {}", self.name, self.last_words(2))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            process::kill(child);
        }
        // What cannot be removed now is swept by the next run.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn settings(options: &Options, bootstrap: &str, name: &str, input: &str) -> String {
    let (handler, kafka) = (options.handler.as_deref().unwrap_or_default(), &options.kafka);
    format!(
        "instance = \"{name}\"\n\
         [kafka]\nbootstrap_servers = [\"{bootstrap}\"]\nsession_timeout = \"6s\"\ntransaction_timeout = \"10s\"\n{kafka}\n\
         [store]\ncheckpoint_interval = \"500ms\"\n\
         [admin]\nlisten = \"off\"\n\
         [handler.tally]\ntopic = \"{input}\"\ngroup = \"{GROUP}\"\nevent_id = \"header:ce_id\"\nprogram = {{}}\n\
         retry = {{ initial = \"50ms\", max = \"1s\" }}\ndead_letter = {{ then = \"continue\" }}\n{handler}\n"
    )
}
