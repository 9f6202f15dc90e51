//! The demo's report: a few lines for a person, one JSON object for a script.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use indicatif::HumanCount;
use serde::Serialize;

use super::judge::Verdict;

/// See the module's documentation.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Orders that were placed.
    pub orders: u32,
    /// What the workload was made of.
    pub seed: u64,
    /// How many event ids each order's ledger remembered.
    pub recent_ids: u32,
    /// What came of it.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Why dead letters are there, with their number.
    pub dead_letter_reasons: BTreeMap<String, u64>,
    /// How fast it went.
    #[serde(flatten)]
    pub pace: Pace,
    /// Whether all records were worked through before the demo's deadline.
    pub finished: bool,
}

/// How fast it went.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Pace {
    /// From the first call until the group's offset had reached the last record.
    pub seconds: f64,
    /// Published records over that time.
    pub records_per_second: f64,
    /// Calls of the service over that time.
    pub calls_per_second: f64,
}

impl Pace {
    /// From the time it took.
    pub fn new(verdict: &Verdict, took: Duration) -> Pace {
        let seconds = took.as_secs_f64();
        let rate = |number: u64| (number as f64 / seconds.max(0.001)).round();
        Pace {
            seconds: (seconds * 1_000.0).round() / 1_000.0,
            records_per_second: rate(verdict.published),
            calls_per_second: rate(verdict.calls),
        }
    }
}

impl Report {
    /// Whether there is nothing to complain of.
    pub fn is_clean(&self) -> bool {
        self.finished && self.verdict.is_clean()
    }

    /// For a person.
    pub fn text(&self) -> String {
        let mut text = format!(
            "\n{} orders with {} events, published as {} records (--orders {} --seed {})\n\n",
            HumanCount(u64::from(self.orders)),
            HumanCount(self.verdict.events),
            HumanCount(self.verdict.published),
            self.orders,
            self.seed
        );
        let mut row = |name: &str, number: u64, meaning: &str| {
            let number = HumanCount(number).to_string();
            writeln!(text, "  {name:<13} {number:>10}  {meaning}").expect("a String takes any text");
        };
        row("applied", self.verdict.applied, "events taken by the billing service");
        row("duplicates", self.verdict.duplicates, "written again by the producer, recognised and dropped");
        row(
            "retries",
            self.verdict.retries,
            "the service was busy (503) and was asked again; only that order waited",
        );
        row("dead letters", self.verdict.dead_letters, &self.reasons());
        row("out of order", self.verdict.out_of_order, "events that overtook another of their order");
        row("applied twice", self.verdict.applied_twice, "events that the service did again");
        row("lost", self.verdict.lost, "records without any result");
        let rate = HumanCount(self.pace.records_per_second as u64);
        let calls = HumanCount(self.pace.calls_per_second as u64);
        write!(
            text,
            "\n{rate} records/s, {calls} HTTP calls/s in {:.1} s; up to {} calls at a time, one for each order.\n\
             Counted from what was published, what the service saw and what lies in the dead-letter topic.\n\n{}",
            self.pace.seconds,
            self.verdict.most_calls_at_once,
            self.conclusion()
        )
        .expect("a String takes any text");
        text
    }

    fn reasons(&self) -> String {
        let reasons: Vec<String> = match self.dead_letter_reasons.len() {
            1 => self.dead_letter_reasons.keys().cloned().collect(),
            _ => self.dead_letter_reasons.iter().map(|(why, number)| format!("{number} {why}")).collect(),
        };
        reasons.join("; ")
    }

    fn conclusion(&self) -> String {
        let mut lines = Vec::new();
        if !self.finished {
            lines.push(
                "Not all records were worked through in time: those that are missing count as lost. Run it again with \
                 RUST_LOG=info to see where it stopped."
                    .to_owned(),
            );
        }
        if self.verdict.applied_twice > 0 && self.recent_ids == 0 {
            lines.push(format!(
                "Events were applied twice because --recent-ids 0 switched off the recognition of duplicates: run it \
                 again without that, with --orders {} --seed {}, and see them dropped.",
                self.orders, self.seed
            ));
        } else if self.verdict.applied_twice > 0 {
            lines.push(
                "Events were applied twice: this is a bug in Pawl, please report it with the seed."
                    .to_owned(),
            );
        }
        if self.finished && (self.verdict.lost, self.verdict.out_of_order) != (0, 0) {
            lines.push(
                "Events were lost or overtaken: this is a bug in Pawl, please report it with the seed."
                    .to_owned(),
            );
        }
        if lines.is_empty() {
            lines.push("Nothing lost, nothing applied twice, every order in order.".to_owned());
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verdict: Verdict, recent_ids: u32, finished: bool) -> Report {
        Report {
            orders: 10,
            seed: 7,
            recent_ids,
            verdict,
            dead_letter_reasons: [("pawl.Rejected: 422".to_owned(), 5)].into(),
            pace: Pace::new(&verdict, Duration::from_secs(2)),
            finished,
        }
    }

    #[test]
    fn a_clean_run_says_so() {
        let report = report(Verdict { published: 100, ..Verdict::default() }, 64, true);
        assert!(report.is_clean());
        assert_eq!(report.pace.records_per_second, 50.0);
        let text = report.text();
        assert!(text.ends_with("every order in order.\n") && text.contains("--seed 7"), "{text}");
        assert!(text.contains("pawl.Rejected: 422"), "{text}");
    }

    #[test]
    fn each_violation_alone_spoils_the_run_and_is_told() {
        let bug = "a bug in Pawl";
        let check = |verdict: Verdict, recent_ids, finished, told: &str| {
            let report = report(verdict, recent_ids, finished);
            assert!(!report.is_clean());
            let text = report.text();
            assert!(text.contains(told) && !text.contains("Nothing lost"), "{text}");
        };
        check(Verdict { lost: 1, ..Verdict::default() }, 64, true, bug);
        check(Verdict { out_of_order: 1, ..Verdict::default() }, 64, true, bug);
        check(Verdict { applied_twice: 1, ..Verdict::default() }, 64, true, bug);
        check(Verdict { applied_twice: 1, ..Verdict::default() }, 0, true, "--recent-ids 0 switched off");
        check(Verdict::default(), 64, false, "in time");
    }
}
