//! One thing that an audit says.

use serde::Serialize;

use super::facts::{Facts, PartitionFacts};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It agrees.
    Ok,
    /// It agrees as far as it can be known, or a person should know.
    Note,
    /// It does not agree.
    Error,
}

/// What was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// Whose ledger it is.
    Ledger,
    /// Whether the books balance.
    Books,
    /// Received records with those in the input.
    Received,
    /// Parked records with the rows that hold them.
    Parked,
    /// Dead-lettered records with the letters.
    DeadLetters,
    /// The row's claim with the last one.
    Claim,
    /// The watermark and the keys' taken offsets with the input's end.
    Heads,
    /// The group's offset with the watermark.
    Group,
    /// Whether a transaction stays open.
    Transactions,
    /// Applied records with those in the output.
    Output,
}

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// The handler it is about.
    pub handler: String,
    /// The partition it is about; `None`: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    /// What was compared.
    pub check: Check,
    /// What is the case.
    pub finding: String,
    /// What to do; empty unless it is an error.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl Finding {
    /// About a partition; [`ok`](Self::ok), [`note`](Self::note) or [`error`](Self::error) follows.
    pub fn at(facts: &Facts, one: &PartitionFacts, check: Check) -> Finding {
        Finding::of(facts, Some(one.partition), check)
    }

    /// About a partition or all of them.
    pub fn of(facts: &Facts, partition: Option<i32>, check: Check) -> Finding {
        Finding::new(&facts.handler, partition, check)
    }

    /// About a handler of which there are no facts.
    pub fn new(handler: &str, partition: Option<i32>, check: Check) -> Finding {
        let (finding, remedy) = (String::new(), String::new());
        Finding { level: Level::Ok, handler: handler.to_owned(), partition, check, finding, remedy }
    }

    /// It agrees.
    pub fn ok(self, finding: String) -> Finding {
        Finding { level: Level::Ok, finding, ..self }
    }

    /// It agrees as far as it can be known.
    pub fn note(self, finding: String) -> Finding {
        Finding { level: Level::Note, finding, ..self }
    }

    /// It does not agree.
    pub fn error(self, finding: String, remedy: &str) -> Finding {
        Finding { level: Level::Error, finding, remedy: remedy.to_owned(), ..self }
    }

    /// One line.
    pub fn line(&self) -> String {
        let Finding { level, handler, partition, finding, remedy, .. } = self;
        let level = match level {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Error => "error",
        };
        let partition = partition.map_or(String::new(), |partition| format!(" partition {partition}"));
        let remedy = if remedy.is_empty() { String::new() } else { format!("; {remedy}") };
        format!("{level}: {handler}{partition}: {finding}{remedy}\n")
    }
}
