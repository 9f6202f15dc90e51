//! `pawl dlt import`: exported letters back to a topic.
//!
//! The input is read twice: whatever can be found wrong with it is found before anything is written,
//! because half an import cannot be told from letters that were there.

use std::fs::File;
use std::io::{self, BufReader, Seek};
use std::path::Path;
use std::time::Instant;

use super::line::Line;
use crate::cli::DltImport;
use crate::commands::sending::lines::Lines;
use crate::commands::sending::sender::{Sender, Stopped};
use crate::commands::sending::{self, Destination, Report, acknowledged};
use crate::commands::{Failure, connection};
use crate::exit::Exit;

/// Carries `pawl dlt import` out.
///
/// # Errors
/// When nothing could be written, or not all of it; the message says how much was acknowledged.
pub fn execute(args: &DltImport) -> Result<Exit, Failure> {
    let kafka = connection(&args.connection)?;
    let mut input = Input::open(&args.file, args.max_line_bytes as usize)?;
    let remedy =
        "correct its name, or create it with as many partitions as the topic that the letters came from";
    let topic = sending::demand_topic(&kafka, &args.topic, remedy)?;
    let skipped = check(args, &mut input, topic)?;
    if topic.sets_time {
        let topic = &args.topic;
        eprintln!(
            "pawl: {topic} has message.timestamp.type=LogAppendTime: its letters get the time of the import"
        );
    }
    let sender = Sender::new(&kafka, &args.topic, args.timeout, input.limit, topic.takes)
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;

    let start = Instant::now();
    let result = send(args, &mut input, &sender);
    let ended = sender.finish().map_err(Ended::Broker);
    let seconds = start.elapsed().as_secs_f64();
    let failure = result.and(ended).err().map(|ended| explain(ended, args, &input.name, &sender));

    let error = failure.as_ref().map(ToString::to_string);
    Report { topic: &args.topic, acked: sender.acked(), skipped, seconds, error }.print(args.json)?;
    failure.map_or(Ok(Exit::Done), Err)
}

/// Why not all was written.
enum Ended {
    /// The input is not what it was when it was checked.
    Changed(Failure),
    Broker(Stopped),
}

/// The number of a line, and what it says or why it is a bad one.
type Numbered = (u64, Result<Line, String>);

/// Lines that can be read again.
struct Input {
    name: String,
    file: File,
    limit: usize,
}

impl Input {
    fn open(path: &Path, limit: usize) -> Result<Input, Failure> {
        let (name, mut reader) = sending::open(path, "exported letters")?;
        if path.is_file() {
            let file = File::open(path).map_err(|error| cannot_read(&name, &error))?;
            return Ok(Input { name, file, limit });
        }
        let kept = tempfile::tempfile().and_then(|mut file| io::copy(&mut reader, &mut file).map(|_| file));
        let file = kept.map_err(|error| {
            let dir = std::env::temp_dir();
            let message = format!(
                "cannot keep {name} in a temporary file in {}: {error}; nothing was written; set TMPDIR to a \
                 directory with room, or name a file",
                dir.display()
            );
            Failure::new(Exit::Stopped, message)
        })?;
        Ok(Input { name, file, limit })
    }

    /// The lines, from the first on.
    fn lines(&mut self) -> Result<impl Iterator<Item = Result<Numbered, Failure>>, Failure> {
        let Input { name, file, limit } = self;
        file.rewind().map_err(|error| cannot_read(name, &error))?;
        let lines = Lines::new(BufReader::with_capacity(256 * 1024, &*file), *limit);
        Ok(lines.map(|line| {
            let line = line.map_err(|error| cannot_read(name, &error))?;
            Ok((line.number, line.text.and_then(|text| Line::read(&text))))
        }))
    }
}

fn cannot_read(name: &str, error: &io::Error) -> Failure {
    Failure::new(Exit::Stopped, format!("cannot read {name}: {error}"))
}

/// How many lines are left out.
fn check(args: &DltImport, input: &mut Input, topic: Destination) -> Result<u64, Failure> {
    let (name, mut skipped) = (input.name.clone(), 0);
    for line in input.lines()? {
        match line? {
            (number, Ok(line)) if line.partition >= topic.partitions => {
                let message = format!(
                    "{name}:{number}: {} has no partition {}; its partitions are 0 to {}; nothing was written; name \
                     a topic with as many partitions as that which the letters came from",
                    args.topic,
                    line.partition,
                    topic.partitions - 1
                );
                return Err(Failure::new(Exit::Findings, message));
            }
            (_, Ok(_)) => {}
            (number, Err(why)) if args.skip_invalid => {
                skipped += 1;
                eprintln!("pawl: {name}:{number}: {why}; left out");
            }
            (number, Err(why)) => {
                let message = format!(
                    "{name}:{number}: {why}; nothing was written; correct the line, or leave bad lines out with \
                     --skip-invalid"
                );
                return Err(Failure::new(Exit::Findings, message));
            }
        }
    }
    Ok(skipped)
}

fn send(args: &DltImport, input: &mut Input, sender: &Sender) -> Result<(), Ended> {
    let name = input.name.clone();
    for line in input.lines().map_err(Ended::Changed)? {
        match line.map_err(Ended::Changed)? {
            (number, Ok(line)) => sender.send(number, &line.outgoing()).map_err(Ended::Broker)?,
            (_, Err(_)) if args.skip_invalid => {}
            (number, Err(why)) => {
                let message = format!("{name}:{number}: {why}; it was changed while it was read");
                return Err(Ended::Changed(Failure::new(Exit::Stopped, message)));
            }
        }
    }
    Ok(())
}

fn explain(ended: Ended, args: &DltImport, name: &str, sender: &Sender) -> Failure {
    match ended {
        Ended::Changed(why) => {
            let acked = acknowledged(sender.acked());
            Failure::new(why.exit, format!("{why}; {acked} in {}", args.topic))
        }
        Ended::Broker(stopped) => sender.explain(
            &stopped,
            name,
            "importing again makes copies of those that are; a new topic has none",
        ),
    }
}
