//! The broker, the links, the service, the instances, and what is done to them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::load::Load;
use super::member::{END_DEADLINE, Member};
use super::operator::{Operator, sum};
use super::pipeline::{Pipeline, TALLY, settings};
use super::plan::{self, Event, Move};
use super::rolling::{self, Update};
use super::service::{Defects, Service};
use super::support::kafka::{Broker, free_ports};
use super::support::proxy::{Proxies, Quality};
use super::support::{clients, process, until};
use super::{Options, numbered};

/// From the last fault until everything is read.
const CATCH_UP: Duration = Duration::from_secs(120);
/// From then on until nothing waits and no letter is left.
const BACK: Duration = Duration::from_secs(240);

/// See the module's documentation.
pub struct World {
    pub broker: Broker,
    pub pipelines: [Pipeline; 2],
    pub service: Service,
    pub operator: Operator,
    service_dir: PathBuf,
    proxies: Proxies,
    pub members: Vec<Member>,
    /// The broker is there and every link is good.
    all_good: bool,
    began: Instant,
}

/// What a run leaves to be judged.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What was wrong on the way.
    pub findings: Vec<String>,
    /// Different events that were written for each handler.
    pub sent: [u64; 2],
    /// Offsets of the tally's input that an operator skipped: these may be missing.
    pub skipped: BTreeMap<i32, Range<i64>>,
    /// When the instances were replaced, if they were.
    pub update: Option<Update>,
}

impl World {
    /// Starts the broker and the links; `None`, said aloud, where a tool is missing.
    pub fn build(options: &Options) -> Option<World> {
        let broker = Broker::restartable_with_links(usize::from(options.instances))?;
        let proxies = Proxies::start(broker.links())?;
        let pipelines = Pipeline::build(&broker);
        let service_dir = process::scratch("service");
        let service = Service::open(&service_dir, "world");
        service.set(if options.rolling { Defects::NONE } else { Defects::ALL });
        let ports = free_ports(usize::from(options.instances));
        let member = |n: usize| {
            let port = options.rolling.then_some(ports[n]);
            let of = |name: &str| settings(options, &proxies.bootstrap(n), name, port, &pipelines);
            Member::new(format!("instance-{n}"), port, of, &service_dir, &pipelines)
        };
        let members = (0..usize::from(options.instances)).map(member).collect();
        let operator = Operator::new(&settings(options, broker.bootstrap(), "operator", None, &pipelines));
        let (all_good, began) = (true, Instant::now());
        Some(World { broker, pipelines, service, operator, service_dir, proxies, members, all_good, began })
    }

    /// Does everything that is planned, then waits until all is processed and ends the instances.
    pub fn run(&mut self, options: &Options, seed: u64) -> Outcome {
        let mut outcome = Outcome::default();
        let events = if options.rolling { Vec::new() } else { plan::draw(options, seed) };
        let [tally, numbers] = self.pipelines.each_ref().map(|one| &one.input);
        let loads = [
            Load::start(&self.broker, tally, options.rate, seed),
            numbered::start(&self.broker, numbers, (options.rate / 4).max(1), seed),
        ];
        self.began = Instant::now();
        if let Some(from) = &options.from {
            self.members.iter_mut().for_each(|member| member.becomes(from));
        }
        self.start_all();
        if options.rolling {
            outcome.update = Some(rolling::update(self, &mut outcome));
        }
        for (at, event) in events {
            self.look_until(at, &mut outcome);
            self.apply(event, &mut outcome);
        }
        self.look_until(options.duration, &mut outcome);
        outcome.sent = loads.map(Load::stop);
        self.tell("the last record is written");
        self.mend();
        self.operator.spare();
        self.start_all();
        // Where there was little quiet most of it is read now: the service fails as it did.
        self.catch_up(&mut outcome);
        self.service.set(Defects::NONE);
        self.bring_back(&mut outcome);
        self.end_all(&mut outcome);
        self.balance(&mut outcome);
        outcome
    }

    /// Copies the logs of the instances, the service's journals, and the broker's log and data, to where they
    /// outlive the run.
    pub fn keep_logs(&self, seed: u64) {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-logs-{seed}"));
        std::fs::create_dir_all(&kept).expect("the target directory can be written");
        let mut copy = Command::new("cp");
        copy.arg("-r").args([self.broker.dir(), &self.service_dir]).arg(&kept);
        assert!(copy.status().is_ok_and(|status| status.success()), "the directories can be copied");
        for member in &self.members {
            let copied = std::fs::copy(member.log(), kept.join(format!("{}.log", member.name)));
            copied.expect("a log can be copied");
        }
        println!("logs: {}", kept.display());
    }

    pub fn tell(&self, text: &str) {
        println!("{:8.3} {text}", self.began.elapsed().as_secs_f64());
    }

    /// Sees how instances and commands are.
    pub fn look(&mut self, outcome: &mut Outcome) {
        let all_good = self.all_good;
        outcome.findings.extend(self.members.iter_mut().filter_map(|member| member.look(all_good)));
        outcome.findings.extend(self.operator.look());
    }

    /// Looks until so much time has passed since the start.
    fn look_until(&mut self, at: Duration, outcome: &mut Outcome) {
        while self.began.elapsed() < at {
            self.look(outcome);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn apply(&mut self, event: Event, outcome: &mut Outcome) {
        self.tell(&format!("{event:?}"));
        match event {
            Event::Kill(n) => self.members[n].kill(),
            Event::End(n) => {
                self.members[n].signal(libc::SIGCONT);
                self.members[n].end();
            }
            Event::Start(n) => self.members[n].start(),
            Event::StartAnew(n) => self.members[n].start_anew(),
            Event::Freeze(n) => self.members[n].signal(libc::SIGSTOP),
            Event::Thaw(n) => self.members[n].signal(libc::SIGCONT),
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
            Event::Service(defects) => self.service.set(defects),
            Event::Asked(asked) => self.operator.give(&asked),
        }
    }

    fn start_all(&mut self) {
        self.members.iter_mut().for_each(Member::start);
    }

    /// Links are good again and nothing is frozen.
    fn mend(&mut self) {
        // Those that were told to end before it still have a reason to be late.
        self.all_good = !self.members.iter().any(Member::is_ending);
        for (n, member) in self.members.iter().enumerate() {
            self.proxies.set(n, Quality::Good);
            member.signal(libc::SIGCONT);
        }
    }

    fn end_all(&mut self, outcome: &mut Outcome) {
        self.members.iter_mut().for_each(Member::end_for_good);
        while self.members.iter().any(Member::runs) {
            self.look(outcome);
            std::thread::sleep(Duration::from_millis(10));
        }
        self.tell("all instances have ended");
    }

    fn move_offsets(&mut self, to: Move, outcome: &mut Outcome) {
        self.mend();
        self.end_all(outcome);
        let input = self.pipelines[0].input.clone();
        let before = clients::committed(&self.broker, TALLY, &input);
        let change = match to {
            Move::Back => vec!["--topic".to_owned(), input.clone(), "--to-earliest".to_owned()],
            Move::Forward(partition, by) => vec![
                "--topic".to_owned(),
                format!("{input}:{partition}"),
                "--shift-by".to_owned(),
                by.to_string(),
            ],
        };
        let mut args =
            vec!["--bootstrap-server", self.broker.bootstrap(), "--group", TALLY, "--reset-offsets"];
        args.extend(change.iter().map(String::as_str));
        args.push("--execute");
        // A member that ended without leaving is known to the group for as long as its session.
        until("the group's offsets to be moved", END_DEADLINE, || {
            let class = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
            let output = self.broker.java_tool(class, &args, b"").expect("Java is there");
            let text = String::from_utf8_lossy(&output.stdout);
            (output.status.success() && !text.contains("Error")).then_some(())
        });
        let after = clients::committed(&self.broker, TALLY, &input);
        if let Move::Forward(partition, _) = to {
            let at = |offsets: &BTreeMap<i32, i64>| offsets.get(&partition).copied().unwrap_or_default();
            outcome.skipped.insert(partition, at(&before)..at(&after));
        }
        self.tell(&format!("the group's offsets were moved from {before:?} to {after:?}"));
        self.start_all();
    }

    /// Waits until the groups' offsets have come to the end.
    fn catch_up(&mut self, outcome: &mut Outcome) {
        let began = Instant::now();
        let ends = |one: &Pipeline| clients::ends(&self.broker, &one.input).expect("the topic is there");
        let ends = self.pipelines.each_ref().map(ends);
        loop {
            let committed = |one: &Pipeline| clients::committed(&self.broker, one.name, &one.input);
            let committed = self.pipelines.each_ref().map(committed);
            if committed == ends {
                return self.tell("everything is read");
            }
            if began.elapsed() > CATCH_UP {
                let behind = format!("committed {committed:?} of {ends:?} after {CATCH_UP:?}");
                return outcome.findings.push(format!("not everything was read: {behind}"));
            }
            self.look(outcome);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The operator lets every key go on and replays what was given up, until nothing waits and no letter is
    /// outstanding.
    fn bring_back(&mut self, outcome: &mut Outcome) {
        let (began, mut left, mut resumed) = (Instant::now(), String::new(), false);
        while began.elapsed() < BACK {
            self.look(outcome);
            std::thread::sleep(Duration::from_millis(50));
            if !self.operator.is_idle() {
                continue;
            }
            if !std::mem::replace(&mut resumed, true) {
                self.operator.resume_all();
                continue;
            }
            let report = self.operator.audit();
            let sums = |what| self.pipelines.each_ref().map(|one| sum(&report, one.name, what));
            let (parked, letters) = (sums("parked"), sums("dead_lettered"));
            if (parked, letters) == ([0; 2], [0; 2]) {
                return self.tell("everything is processed, and no letter is left");
            }
            left = format!("{parked:?} records wait, {letters:?} letters are left");
            self.tell(&left);
            for (one, _) in self.pipelines.iter().zip(letters).filter(|(_, letters)| *letters > 0) {
                self.operator.replay_all(one.name);
            }
        }
        outcome.findings.push(format!("not everything came back within {BACK:?}: {left}"));
    }

    /// The books that Pawl keeps agree with the topics.
    fn balance(&self, outcome: &mut Outcome) {
        let report = self.operator.audit();
        if report.code != 0 {
            outcome.findings.push(format!("the books do not agree: {}{}", report.stdout, report.stderr));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next run.
        let _ = std::fs::remove_dir_all(&self.service_dir);
    }
}
