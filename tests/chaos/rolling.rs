//! A rolling update: under a steady load the instances are replaced one after the other, as ECS or Kubernetes
//! does with a new image. Each gets SIGTERM, ends, begins as the new program under its old name and with its old
//! local view, and is ready before it is the next one's turn.
//!
//! Told is how long deliveries paused: the longest time in which no call began that had its effect, anywhere and
//! of a single partition.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::pipeline::PARTITIONS;
use super::read::{Read, effect};
use super::support::{process, until};
use super::world::{Outcome, World};

/// How long one may take to end, or to be ready.
const DEADLINE: Duration = Duration::from_secs(120);
/// Load between two replacements, and after the last one.
const CALM: Duration = Duration::from_secs(3);
/// Load until partitions have found their places.
const SETTLING: Duration = Duration::from_secs(5);
/// Load with nothing happening, whose pauses are told beside the update's.
const BEFORE: Duration = Duration::from_secs(10);

/// When the instances were replaced.
#[derive(Debug)]
pub struct Update {
    /// From when on nothing happened until the update began.
    calm: SystemTime,
    began: SystemTime,
    ended: SystemTime,
}

/// Replaces all instances.
pub fn update(world: &mut World, outcome: &mut Outcome) -> Update {
    let dir = process::scratch("next");
    let program = dir.join("chaos");
    std::fs::copy(std::env::current_exe().expect("the path of this program"), &program)
        .expect("a writable directory");
    for n in 0..world.members.len() {
        ready(world, n, outcome);
    }
    pass(world, SETTLING, outcome);
    let calm = SystemTime::now();
    pass(world, BEFORE, outcome);
    let began = SystemTime::now();
    for n in 0..world.members.len() {
        replace(world, n, &program, outcome);
        pass(world, CALM, outcome);
    }
    let ended = SystemTime::now();
    // The programs run from it, which Linux lets go on.
    let _ = std::fs::remove_dir_all(&dir);
    Update { calm, began, ended }
}

fn replace(world: &mut World, n: usize, program: &Path, outcome: &mut Outcome) {
    let (name, began) = (world.members[n].name.clone(), Instant::now());
    world.members[n].end();
    until("the end of an instance", DEADLINE, || {
        world.look(outcome);
        (!world.members[n].runs()).then_some(())
    });
    let gone = began.elapsed();
    world.members[n].becomes(program);
    world.members[n].start();
    ready(world, n, outcome);
    let all = began.elapsed();
    world.tell(&format!(
        "{name} is replaced: it ended after {gone:.1?}, its successor was ready after {all:.1?}"
    ));
}

fn ready(world: &mut World, n: usize, outcome: &mut Outcome) {
    until("an instance to be ready", DEADLINE, || {
        world.look(outcome);
        world.members[n].is_ready().then_some(())
    });
}

/// Lets the load go on.
fn pass(world: &mut World, time: Duration, outcome: &mut Outcome) {
    let began = Instant::now();
    until("load", time * 2, || {
        world.look(outcome);
        (began.elapsed() > time).then_some(())
    });
}

impl Update {
    /// Prints the pauses of the update beside those of the time before it.
    pub fn tell(&self, output: &[Read], findings: &mut Vec<String>) {
        let calls = calls(output);
        let (calm, update) = (pauses(&calls, self.calm, self.began), pauses(&calls, self.began, self.ended));
        let Some(((calm, calm_of_one), (update, update_of_one))) = calm.zip(update) else {
            return findings
                .push("a partition had no delivery before or while instances were replaced".into());
        };
        println!(
            "rolling update in {:.1?}: deliveries paused for {update} ms (in the calm before: {calm} ms), those \
             of a single partition for {update_of_one} ms ({calm_of_one} ms)",
            self.ended.duration_since(self.began).unwrap_or_default()
        );
    }
}

/// When the calls of each partition began, in their order; milliseconds since the epoch.
fn calls(output: &[Read]) -> BTreeMap<i32, Vec<i64>> {
    let mut calls: BTreeMap<i32, Vec<i64>> =
        (0..PARTITIONS).map(|partition| (partition, Vec::new())).collect();
    for effect in output.iter().filter_map(|read| effect(&read.value)) {
        calls.entry(effect.partition).or_default().push(effect.at);
    }
    calls.values_mut().for_each(|times| times.sort_unstable());
    calls
}

/// The longest pauses in milliseconds, of all deliveries and of those of any one partition. Nothing where a
/// partition had none.
fn pauses(calls: &BTreeMap<i32, Vec<i64>>, from: SystemTime, to: SystemTime) -> Option<(i64, i64)> {
    let millis = |at: SystemTime| {
        let since = at.duration_since(SystemTime::UNIX_EPOCH).expect("the clock is past 1970");
        i64::try_from(since.as_millis()).expect("a time of this millennium")
    };
    let (from, to) = (millis(from), millis(to));
    let within =
        |times: &[i64]| times.iter().copied().filter(|at| (from..=to).contains(at)).collect::<Vec<_>>();
    let longest = |times: &[i64]| {
        let marks: Vec<i64> = [from].into_iter().chain(times.iter().copied()).chain([to]).collect();
        marks.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    };
    let each: Vec<Vec<i64>> = calls.values().map(|times| within(times)).collect();
    if each.iter().any(Vec::is_empty) {
        return None;
    }
    let mut all = each.concat();
    all.sort_unstable();
    Some((longest(&all), each.iter().map(|times| longest(times)).max().unwrap_or_default()))
}
