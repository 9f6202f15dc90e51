//! The way to a setting: `handler.billing.retry.attempts`.

use std::fmt;

/// The way from the root of the settings to one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Name(String),
    Index(usize),
}

impl KeyPath {
    /// A path of names: `["kafka", "client_id"]`.
    pub(super) fn of(names: &[&str]) -> Self {
        KeyPath(names.iter().map(|name| Step::Name((*name).to_owned())).collect())
    }

    /// The path one name further in.
    pub(super) fn name(&self, name: &str) -> Self {
        self.with(Step::Name(name.to_owned()))
    }

    /// The path to an element of a list, counted from 0.
    pub(super) fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        KeyPath(steps)
    }

    /// The path one step further out; `None` at the root.
    pub(super) fn parent(&self) -> Option<Self> {
        self.0.split_last().map(|(_, steps)| KeyPath(steps.to_vec()))
    }

    /// The list of which this is an element.
    pub(super) fn list(&self) -> Option<Self> {
        self.parent().filter(|_| matches!(self.0.last(), Some(Step::Index(_))))
    }

    /// Whether this is `other` or lies inside of it.
    pub(super) fn is_within(&self, other: &KeyPath) -> bool {
        self.0.starts_with(&other.0)
    }

    /// The names on the way, without indexes of lists.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|step| match step {
            Step::Name(name) => Some(name.as_str()),
            Step::Index(_) => None,
        })
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        };
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Name(name) => {
                    f.write_str(if position == 0 { "" } else { "." })?;
                    if bare(name) { f.write_str(name)? } else { write!(f, "{name:?}")? }
                }
            }
        }
        Ok(())
    }
}
