//! The audit log's file: every line of the target `pawl::audit`, up to a size, then begun anew beside the last ones.
//!
//! Lines are handed to the system one by one and not forced to the disk: the durable record of commands is their topic.

use std::fs::{File, OpenOptions, rename};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::settings::Admin;

/// The target of the audit log.
pub const AUDIT: &str = "pawl::audit";

/// Only who runs Pawl reads it: it names people and keys.
const MODE: u32 = 0o600;

/// See the module's documentation.
#[derive(Debug)]
pub struct AuditFile {
    path: PathBuf,
    max_bytes: u64,
    kept: u32,
    file: File,
    bytes: u64,
    /// Whether the last line met with trouble; told once.
    failing: bool,
}

/// The file of the settings as a layer of a program's log, which `pawl run` has; `None` if they name none.
///
/// # Errors
/// The file cannot be opened.
pub fn layer<S>(settings: &Admin) -> io::Result<Option<impl Layer<S> + use<S>>>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let Some(path) = &settings.audit_file else { return Ok(None) };
    let file = AuditFile::open(path, settings.audit_file_size.bytes(), settings.audit_files_kept)?;
    let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(Mutex::new(file));
    Ok(Some(AuditOnly(layer)))
}

/// Hands on the lines of the audit log alone. A layer's filter of tracing-subscriber would lose lines: whoever asks
/// `tracing::enabled!` (the clients of Kafka do) has it remember an answer, which it takes for the next line of that
/// thread.
struct AuditOnly<L>(L);

impl<S: Subscriber, L: Layer<S>> Layer<S> for AuditOnly<L> {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if event.metadata().target() == AUDIT {
            self.0.on_event(event, context);
        }
    }
}

impl AuditFile {
    fn open(path: &Path, max_bytes: u64, kept: u32) -> io::Result<AuditFile> {
        let told = |error: io::Error| {
            let text = format!(
                "admin.audit_file ({}) cannot be written: {error}; name a file in a directory that this process may \
                 write to, or leave the key out",
                path.display()
            );
            io::Error::new(error.kind(), text)
        };
        let file = append(path).map_err(told)?;
        let bytes = file.metadata().map_err(told)?.len();
        Ok(AuditFile { path: path.to_owned(), max_bytes, kept, file, bytes, failing: false })
    }

    /// FILE.1 becomes FILE.2 and so on, the last one goes, and FILE is begun anew. What failed can be tried again: no
    /// step gives up another old file.
    fn begin_anew(&mut self) -> io::Result<()> {
        // Else it was moved already, and could not be made.
        if self.path.try_exists()? {
            // Beyond a gap, which an attempt before this one has left, nothing has to move.
            let free = (1..self.kept).find(|number| !self.numbered(*number).exists()).unwrap_or(self.kept);
            for number in (1..free).rev() {
                moved(&self.numbered(number), &self.numbered(number + 1))?;
            }
            moved(&self.path, &self.numbered(1))?;
        }
        self.file = append(&self.path)?;
        self.bytes = 0;
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    /// A line is worth more than the bound: where the file cannot be begun anew, it goes to the one that there is.
    fn put(&mut self, line: &[u8]) -> Result<(), Trouble> {
        let length = line.len() as u64;
        let is_full = self.bytes > 0 && self.bytes + length > self.max_bytes;
        let begun = if is_full { self.begin_anew() } else { Ok(()) };
        self.file.write_all(line).map_err(Trouble::Unwritten)?;
        self.bytes += length;
        begun.map_err(Trouble::Full)
    }
}

/// What is wrong with the file.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// The line is not in it.
    #[error("cannot be written: {0}; lines are in the log only")]
    Unwritten(io::Error),
    /// The line is in it, and it is larger than it should be.
    #[error("is full and cannot be begun anew: {0}; it grows until it can, which each line tries")]
    Full(io::Error),
}

/// One line is one write.
impl Write for AuditFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let put = self.put(line);
        if let (Err(trouble), false) = (&put, self.failing) {
            // The log cannot be used from inside of it.
            eprintln!("admin.audit_file ({}) {trouble}", self.path.display());
        }
        self.failing = put.is_err();
        match put {
            Ok(()) | Err(Trouble::Full(_)) => Ok(line.len()),
            Err(Trouble::Unwritten(error)) => Err(error),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(MODE).open(path)
}

fn moved(from: &Path, to: &Path) -> io::Result<()> {
    match rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        moved => moved,
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::settings::ByteSize;

    #[test]
    fn a_full_file_is_kept_beside_the_new_one_and_the_oldest_goes() {
        let dir = TempDir::new().expect("a directory");
        let path = dir.path().join("audit.jsonl");
        let mut file = AuditFile::open(&path, 8, 2).expect("it can be opened");
        for n in 0..4 {
            file.write_all(format!("{n}{n}{n}\n").as_bytes()).expect("it can be written");
        }
        drop(file);
        // A new start goes on with it.
        let mut file = AuditFile::open(&path, 8, 2).expect("it can be opened");
        for n in 4..9 {
            file.write_all(format!("{n}{n}{n}\n").as_bytes()).expect("it can be written");
        }
        file.write_all(b"a line that is longer than a file\n").expect("it is written all the same");
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        assert_eq!(read("audit.jsonl"), "a line that is longer than a file\n");
        assert_eq!((read("audit.jsonl.1"), read("audit.jsonl.2")), ("888\n".into(), "666\n777\n".into()));
        assert_eq!(read("audit.jsonl.3"), "");
    }

    #[test]
    fn no_line_is_lost_where_a_full_file_cannot_be_begun_anew_and_each_line_tries_again() {
        let dir = TempDir::new().expect("a directory");
        let path = dir.path().join("audit.jsonl");
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        let in_the_way = dir.path().join("audit.jsonl.1");
        std::fs::create_dir(&in_the_way).expect("a writable directory");
        let mut file = AuditFile::open(&path, 8, 1).expect("it can be opened");
        for n in 0..4 {
            file.write_all(format!("{n}{n}{n}\n").as_bytes()).expect("it is written all the same");
        }
        assert_eq!(read("audit.jsonl"), "000\n111\n222\n333\n");
        std::fs::remove_dir(&in_the_way).expect("it is empty");
        file.write_all(b"444\n").expect("it can be written");
        assert_eq!(
            (read("audit.jsonl"), read("audit.jsonl.1")),
            ("444\n".into(), "000\n111\n222\n333\n".into())
        );
    }

    #[test]
    fn an_attempt_to_begin_anew_that_ended_half_way_costs_no_old_file() {
        // What it left of FILE, FILE.1, FILE.2 and FILE.3, the last of which was given up.
        for (left, expected) in [
            (["3\n", "2\n", "", "1\n"], ["4\n", "3\n", "2\n", "1\n"]),
            (["3\n", "", "2\n", "1\n"], ["4\n", "3\n", "2\n", "1\n"]),
            // As where the process has no file descriptor left.
            (["", "3\n", "2\n", "1\n"], ["4\n", "3\n", "2\n", "1\n"]),
        ] {
            let dir = TempDir::new().expect("a directory");
            let names = ["audit", "audit.1", "audit.2", "audit.3"].map(|name| dir.path().join(name));
            let mut file = AuditFile::open(&names[0], 2, 3).expect("it can be opened");
            file.write_all(b"0\n").expect("it can be written");
            for (name, text) in names.iter().zip(left) {
                let _ = std::fs::remove_file(name);
                if !text.is_empty() {
                    std::fs::write(name, text).expect("a writable directory");
                }
            }
            file.write_all(b"4\n").expect("it can be written");
            let found = names.map(|name| std::fs::read_to_string(name).unwrap_or_default());
            assert_eq!(found, expected, "after {left:?}");
        }
    }

    #[test]
    fn the_file_holds_the_audit_log_alone_one_json_object_a_line_whatever_is_in_it() {
        let dir = TempDir::new().expect("a directory");
        let path = dir.path().join("audit.jsonl");
        let settings =
            Admin { audit_file: Some(path.clone()), audit_file_size: ByteSize::mib(1), ..Admin::default() };
        let log = tracing_subscriber::registry().with(layer(&settings).expect("it can be opened"));
        tracing::subscriber::with_default(log, || {
            tracing::error!("something else");
            // Asking whether a line would be written must not keep the next one from it.
            assert!(tracing::enabled!(target: "librdkafka", tracing::Level::INFO));
            let command = "{\"key\":\"A\\nforged\"}\nforged \u{1b}[31m";
            tracing::info!(target: "pawl::audit", id = "c1", command, "command asked for");
        });
        let text = std::fs::read_to_string(&path).expect("it was written");
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((&line["message"], &line["id"]), (&"command asked for".into(), &"c1".into()));
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named_with_the_remedy() {
        let settings = Admin { audit_file: Some("/no/such/directory/audit".into()), ..Admin::default() };
        let error = layer::<tracing_subscriber::Registry>(&settings).err().expect("it cannot").to_string();
        assert!(
            error.contains("admin.audit_file (/no/such/directory/audit)") && error.contains("name a file"),
            "{error}"
        );
    }
}
