//! The service that the instances call, which fails as the events' ids say and is mended on the way. It is
//! a directory that all instances reach: what ails it stands in one file, and each instance notes its
//! calls about events that fail in a journal of its own.

use std::fs::File;
use std::hash::Hasher;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use siphasher::sip::SipHasher13;

/// Attempts of an event before it becomes a dead letter.
pub const ATTEMPTS: u32 = 6;
/// The error code of failures that are waited for longer.
pub const SLOW: &str = "slow";
/// How the handlers try again; [`least_wait`] knows it too.
pub const RETRY: &str = "retry = { attempts = 6, initial = \"50ms\", max = \"1s\", \
    on = { slow = { delays = [\"3s\", \"10s\"], max = \"10s\" } } }";
/// Defects that the service may have, and that are mended one by one.
pub const DEFECTS: u8 = 3;

/// A set of defects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defects(pub u8);

impl Defects {
    pub const NONE: Defects = Defects(0);
    pub const ALL: Defects = Defects((1 << DEFECTS) - 1);

    fn has(self, defect: u8) -> bool {
        self.0 & (1 << defect) != 0
    }
}

/// What an event does to the service, the same on every attempt and every instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temper {
    /// Done after so many milliseconds.
    Takes(u64),
    /// So many attempts fail before one is done.
    FailsFor(u32),
    /// Two attempts fail, and are waited for longer.
    FailsSlowly,
    /// Refused while the service has this defect.
    Poison(u8),
    /// Every attempt fails while the service has this defect.
    Stubborn(u8),
}

/// One in 250 is refused or outlasts its attempts while it has its defect, one in 40 fails at first, one in
/// 250 outlasts a rebalance, half of the others take a while.
pub fn temper(event_id: &str) -> Temper {
    let mut hasher = SipHasher13::new();
    hasher.write(event_id.as_bytes());
    let hash = hasher.finish();
    let (n, defect) = (hash % 1_000, (hash / 1_000 % u64::from(DEFECTS)) as u8);
    match n {
        0..2 => Temper::Poison(defect),
        2..4 => Temper::Stubborn(defect),
        4..24 => Temper::FailsFor(1 + (n % 3) as u32),
        24..27 => Temper::FailsSlowly,
        27..31 => Temper::Takes(2_000),
        31..500 => Temper::Takes(n % 40),
        _ => Temper::Takes(0),
    }
}

/// The least time between the end of a failed attempt and the next one: the wait less its jitter of a fifth.
pub fn least_wait(temper: Temper, failed: u32) -> Duration {
    let millis = match (temper, failed) {
        (Temper::FailsSlowly, 1) => 3_000,
        (Temper::FailsSlowly, _) => 10_000,
        _ => (50_u64 << (failed - 1).min(10)).min(1_000),
    };
    Duration::from_millis(millis * 4 / 5)
}

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    NotYet,
    NotYetSlow,
    Refused,
}

/// A call of an event that may fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    pub handler: String,
    pub partition: i32,
    pub offset: i64,
    pub event_id: String,
    pub attempt: u32,
    /// When it was made and answered, since these calls take no time; milliseconds since the epoch.
    pub at: u64,
    pub failed: bool,
}

/// See the module's documentation.
pub struct Service {
    dir: PathBuf,
    journal: Mutex<File>,
}

impl Service {
    /// The service as the world or an instance has it.
    pub fn open(dir: &Path, who: &str) -> Service {
        let path = dir.join(format!("{who}.calls"));
        let journal = File::options().create(true).append(true).open(path).expect("a writable directory");
        Service { dir: dir.to_owned(), journal: Mutex::new(journal) }
    }

    /// It has these defects from now on.
    pub fn set(&self, defects: Defects) {
        let (new, file) = (self.dir.join("defects.new"), self.dir.join("defects"));
        std::fs::write(&new, defects.0.to_string()).expect("a writable directory");
        std::fs::rename(new, file).expect("a writable directory");
    }

    fn has(&self, defect: u8) -> bool {
        let text = std::fs::read_to_string(self.dir.join("defects")).expect("the world has written it");
        Defects(text.parse().expect("a number")).has(defect)
    }

    /// What the service answers to an event of this temper that is not just done.
    pub fn answer(&self, temper: Temper, attempt: u32) -> Answer {
        match temper {
            Temper::FailsFor(attempts) if attempt <= attempts => Answer::NotYet,
            Temper::FailsSlowly if attempt <= 2 => Answer::NotYetSlow,
            Temper::Poison(defect) if self.has(defect) => Answer::Refused,
            Temper::Stubborn(defect) if self.has(defect) => Answer::NotYet,
            _ => Answer::Done,
        }
    }

    /// Notes a call. One write, so that a kill leaves a whole line or none.
    pub fn note(&self, noted: &Noted) {
        let Noted { handler, partition, offset, event_id, attempt, at, failed } = noted;
        let line = format!("{handler} {partition} {offset} {event_id} {attempt} {at} {failed}\n");
        self.journal
            .lock()
            .expect("no holder panics")
            .write_all(line.as_bytes())
            .expect("a writable journal");
    }

    /// Everything that was noted by anybody.
    pub fn noted(&self) -> Vec<Noted> {
        let entries = std::fs::read_dir(&self.dir).expect("the directory is there").flatten();
        let journals =
            entries.map(|entry| entry.path()).filter(|path| path.extension() == Some("calls".as_ref()));
        let texts = journals.map(|path| std::fs::read_to_string(path).expect("text"));
        texts.flat_map(|text| text.lines().map(parse).collect::<Vec<_>>()).collect()
    }
}

fn parse(line: &str) -> Noted {
    let fields: Vec<&str> = line.split(' ').collect();
    let [handler, partition, offset, event_id, attempt, at, failed] = fields[..] else {
        panic!("not a line of a journal: {line}")
    };
    Noted {
        handler: handler.to_owned(),
        partition: partition.parse().expect("a number"),
        offset: offset.parse().expect("a number"),
        event_id: event_id.to_owned(),
        attempt: attempt.parse().expect("a number"),
        at: at.parse().expect("a number"),
        failed: failed.parse().expect("true or false"),
    }
}

/// Milliseconds since the epoch.
pub fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the clock is past 1970");
    u64::try_from(now.as_millis()).expect("the clock is before the year 500000000")
}
