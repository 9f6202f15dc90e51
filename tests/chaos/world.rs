//! The broker, the links, the instances, and what is done to them.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
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
    began: Instant,
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
    frozen: bool,
}

impl World {
    /// Starts the broker and the links; `None`, said aloud, where a tool is missing.
    pub fn build(options: &Options) -> Option<World> {
        let broker = Broker::own_with_links(usize::from(options.instances))?;
        let proxies = Proxies::start(broker.links())?;
        let input = support::topic(&broker, "events", PARTITIONS);
        let output = support::topic(&broker, "tallied", PARTITIONS);
        let instance = |n: usize| {
            let instance = Instance {
                name: format!("instance-{n}"),
                dir: process::scratch("instance"),
                child: None,
                frozen: false,
            };
            let settings = settings(options, &proxies.bootstrap(n), &instance.name, &input);
            std::fs::write(instance.dir.join("pawl.toml"), settings).expect("a writable directory");
            instance
        };
        let instances = (0..usize::from(options.instances)).map(instance).collect();
        Some(World { broker, input, output, proxies, instances, began: Instant::now() })
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
        outcome
    }

    /// Copies the instances' logs to where they outlive the run.
    pub fn keep_logs(&self, seed: u64) {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-logs-{seed}"));
        std::fs::create_dir_all(&kept).expect("the target directory can be written");
        for instance in &self.instances {
            let copied = std::fs::copy(instance.log(), kept.join(format!("{}.log", instance.name)));
            copied.expect("a log can be copied");
        }
        println!("logs: {}", kept.display());
    }

    fn tell(&self, text: &str) {
        println!("{:8.3} {text}", self.began.elapsed().as_secs_f64());
    }

    /// An instance that ends by itself is a finding: every fault here is one that a retry heals.
    fn look(&mut self, outcome: &mut Outcome) {
        for n in 0..self.instances.len() {
            let instance = &mut self.instances[n];
            let Some(child) = &mut instance.child else { continue };
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                instance.child = None;
                instance.frozen = false;
                let last = process::tail(&instance.log(), 2);
                outcome.findings.push(format!("{} ended by itself ({status}): {last}", instance.name));
                self.tell(&format!("{} ended by itself", self.instances[n].name));
                self.start(n);
            }
        }
    }

    fn apply(&mut self, event: Event, outcome: &mut Outcome) {
        self.tell(&format!("{event:?}"));
        match event {
            Event::Kill(n) => {
                if let Some(mut child) = self.instances[n].child.take() {
                    process::kill(&mut child);
                    self.instances[n].frozen = false;
                }
            }
            Event::End(n) => {
                // Whether it ends well is seen when it is started again, or at the end.
                self.thaw(n);
                if let Some(child) = &self.instances[n].child {
                    process::signal(child, libc::SIGTERM);
                }
                self.await_end(n, outcome);
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
                    self.instances[n].frozen = true;
                }
            }
            Event::Thaw(n) => self.thaw(n),
            Event::Link(n, quality) => self.proxies.set(n, quality),
            Event::RestartBroker { hard } => {
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
            return;
        }
        let log = File::options().create(true).append(true).open(instance.log()).expect("a writable log");
        let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
        command.args(["instance", "pawl.toml", &output]).current_dir(&instance.dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        instance.child = Some(process::spawn(command).expect("an instance can be started"));
    }

    fn thaw(&mut self, n: usize) {
        let instance = &mut self.instances[n];
        if let Some(child) = &instance.child {
            process::signal(child, libc::SIGCONT);
        }
        instance.frozen = false;
    }

    /// Links are good again and nothing is frozen.
    fn mend(&mut self) {
        for n in 0..self.instances.len() {
            self.proxies.set(n, Quality::Good);
            self.thaw(n);
        }
    }

    fn await_end(&mut self, n: usize, outcome: &mut Outcome) {
        let Some(mut child) = self.instances[n].child.take() else { return };
        let began = Instant::now();
        let name = &self.instances[n].name;
        loop {
            match child.try_wait().expect("a child can be waited for") {
                Some(status) if status.success() => return,
                // Where its link is bad the drain may not be over by its deadline, and it says so.
                Some(status) if process::code(status) == 4 && self.undrained(n) => return,
                Some(status) => {
                    let last = process::tail(&self.instances[n].log(), 2);
                    return outcome
                        .findings
                        .push(format!("{name} was told to end and did so badly ({status}): {last}"));
                }
                None if began.elapsed() > END_DEADLINE => {
                    process::kill(&mut child);
                    return outcome.findings.push(format!("{name} did not end within {END_DEADLINE:?}"));
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn undrained(&self, n: usize) -> bool {
        process::tail(&self.instances[n].log(), 1).contains("the drain was not over")
    }

    fn end_all(&mut self, outcome: &mut Outcome) {
        for instance in &self.instances {
            if let Some(child) = &instance.child {
                process::signal(child, libc::SIGTERM);
            }
        }
        for n in 0..self.instances.len() {
            self.await_end(n, outcome);
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
        let moved = until("the group's offsets to be moved", END_DEADLINE, || {
            let class = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
            let output = self.broker.java_tool(class, &args, b"").expect("Java is there");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            (output.status.success() && text.contains("NEW-OFFSET")).then_some(text)
        });
        let after = clients::committed(&self.broker, GROUP, &self.input);
        assert_ne!(before, after, "{moved}");
        if let Move::Forward(partition, _) = to {
            outcome.skipped.insert(partition, before[&partition]..after[&partition]);
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
            if committed == ends {
                return self.tell("everything is processed");
            }
            if began.elapsed() > CATCH_UP {
                let behind = format!("committed {committed:?} of {ends:?} after {CATCH_UP:?}");
                return outcome.findings.push(format!("not everything was processed: {behind}"));
            }
            self.look(outcome);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Instance {
    fn log(&self) -> PathBuf {
        self.dir.join("pawl.log")
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
    let Options { handler, kafka, .. } = options;
    format!(
        "instance = \"{name}\"\n\
         [kafka]\nbootstrap_servers = [\"{bootstrap}\"]\nsession_timeout = \"6s\"\ntransaction_timeout = \"10s\"\n{kafka}\n\
         [store]\ncheckpoint_interval = \"500ms\"\n\
         [admin]\nlisten = \"off\"\n\
         [handler.tally]\ntopic = \"{input}\"\ngroup = \"{GROUP}\"\nevent_id = \"header:ce_id\"\nprogram = {{}}\n\
         retry = {{ initial = \"50ms\", max = \"1s\" }}\n{handler}\n"
    )
}
