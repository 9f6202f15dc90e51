//! What the process's exit code tells a script. A public interface: a number never changes meaning.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what it was told.
    Done = 0,
    /// It ran, and found what it was there to find.
    Findings = 1,
    /// The command line or the settings are wrong; nothing was done.
    Usage = 2,
    /// No broker could be reached.
    Unreachable = 3,
    /// It had to stop: Kafka, the disk or the settings of the cluster refuse it.
    Stopped = 4,
    /// A second signal ended it before it was done.
    Interrupted = 130,
}

impl Exit {
    const ALL: [(Exit, &str); 6] = [
        (Exit::Done, "done"),
        (
            Exit::Findings,
            "problems found (check, audit), not alive or not ready (health), bad lines (publish,\n\
             dlt import), nothing there (dlt show, keys show), a command that was refused, not\n\
             answered in time or about nothing (keys, dlt, rewind), a report that is not clean (demo)",
        ),
        (Exit::Usage, "the command line or the settings are wrong; nothing was done"),
        (Exit::Unreachable, "no broker could be reached"),
        (
            Exit::Stopped,
            "stopped by an error that needs a person, which the last lines name; no instance answers\n\
             (top, keys --admin)",
        ),
        (Exit::Interrupted, "ended at once by a second Ctrl-C or SIGTERM"),
    ];

    /// The table for `--help`.
    pub fn table() -> String {
        let meant = |meaning: &str| meaning.replace('\n', "\n       ");
        let lines = Self::ALL.map(|(exit, meaning)| format!("  {:>3}  {}\n", exit as u8, meant(meaning)));
        format!("Exit codes:\n{}", lines.concat())
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_in_the_table() {
        let table = Exit::table();
        for (exit, _) in Exit::ALL {
            assert!(table.contains(&format!("{:>3}  ", exit as u8)), "{exit:?}: {table}");
        }
    }
}
