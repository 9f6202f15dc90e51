//! Calls into a storage engine: what fails is told apart into what the system refuses and what is
//! damaged, and a panic is an error.

use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::StoreError;

/// Why a call failed, as an engine tells it.
pub enum Cause {
    /// The system refused.
    Io(io::Error),
    /// The engine found what it has not written, or will not go on.
    Damage(String),
    /// The files are open elsewhere.
    Locked,
}

/// Guards the calls into the storage in one directory.
pub struct Guard {
    dir: PathBuf,
}

impl Guard {
    /// For the storage in `dir`.
    pub fn new(dir: &Path) -> Self {
        Guard { dir: dir.to_owned() }
    }

    /// Makes a call. sled panics on some damaged files instead of returning an error (sled #1387), and
    /// fjall asserts what it expects of its own files.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] for a panic and what only damage explains, else [`StoreError::Failed`].
    pub fn call<T, E: Into<Cause>>(
        &self,
        what: &'static str,
        call: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, StoreError> {
        let cause = match catch_unwind(AssertUnwindSafe(call)) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error.into(),
            Err(_) => Cause::Damage("the storage engine panicked, which it does on damaged files".into()),
        };
        Err(match cause {
            Cause::Io(error) if !is_damage(&error) => self.failed(what, &error),
            Cause::Io(error) => self.damaged(what, &error),
            Cause::Damage(why) => self.damaged(what, &why),
            Cause::Locked => StoreError::InUse { dir: self.dir.display().to_string() },
        })
    }

    /// The error of a system that refuses.
    pub fn failed(&self, what: &'static str, why: &dyn Display) -> StoreError {
        StoreError::Failed { what, dir: self.dir.display().to_string(), why: why.to_string() }
    }

    fn damaged(&self, what: &'static str, why: &dyn Display) -> StoreError {
        StoreError::Damaged { what, dir: self.dir.display().to_string(), why: why.to_string() }
    }
}

/// Whether an I/O error says that a file is missing, too short, not what was written, or left over from
/// a beginning that was cut off: those kinds engines use for what they find. What the disk itself refuses is none of them.
fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::AlreadyExists
            | ErrorKind::InvalidData
            | ErrorKind::InvalidInput
            | ErrorKind::UnexpectedEof
            | ErrorKind::Other
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(result: Result<(), Cause>) -> StoreError {
        Guard::new(Path::new("d")).call("reading", || result).expect_err("an error")
    }

    #[test]
    fn what_the_disk_refuses_is_told_from_what_is_damaged() {
        for kind in [ErrorKind::StorageFull, ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem] {
            let error = called(Err(Cause::Io(kind.into())));
            assert!(matches!(error, StoreError::Failed { .. }), "{kind}: {error}");
        }
        // EIO, which has no kind of its own.
        let error = called(Err(Cause::Io(io::Error::from_raw_os_error(5))));
        assert!(matches!(error, StoreError::Failed { .. }), "{error}");
        for kind in [ErrorKind::NotFound, ErrorKind::InvalidData, ErrorKind::UnexpectedEof] {
            let error = called(Err(Cause::Io(kind.into())));
            assert!(matches!(error, StoreError::Damaged { .. }), "{kind}: {error}");
        }
        let error = called(Err(Cause::Damage("checksum".into())));
        assert!(error.to_string().contains("checksum: it is damaged"), "{error}");
    }

    #[test]
    fn a_panic_of_the_engine_is_damage() {
        let panics = || -> Result<(), Cause> { panic!("as sled does") };
        let error = Guard::new(Path::new("d")).call("reading", panics).expect_err("an error");
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }
}
