//! Files with passwords, certificates and keys, and whether they have changed.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::state::State;
use crate::settings::{Kafka, Sasl, Security};

/// The most that is read of a file; a bundle of authorities has a quarter of that.
const MAX_BYTES: u64 = 1 << 20;

/// Reads the password of the settings.
pub(super) fn read_password(sasl: &Sasl, state: &State) -> bool {
    let password = match (&sasl.password, &sasl.password_file) {
        (Some(password), _) => Ok(password.reveal().to_owned()),
        (None, Some(file)) => read_secret(file, "kafka.sasl.password_file"),
        (None, None) => Err("there is no password: name a file in kafka.sasl.password_file".into()),
    };
    state.set_password(&sasl.username, password)
}

/// A secret in a file, without the line break at its end.
pub(super) fn read_secret(file: &Path, setting: &str) -> Result<String, String> {
    let failed = |why: String| format!("cannot read the secret in {} ({setting}): {why}", file.display());
    let bytes = read(file).map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8".into()))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() { Err(failed("it is empty".into())) } else { Ok(text.to_owned()) }
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok(bytes)
}

/// The certificates and keys of the settings, as they were when they were last looked at.
#[derive(Debug)]
pub(super) struct Certificates {
    files: Vec<PathBuf>,
    seen: Option<u64>,
}

impl Certificates {
    pub(super) fn of(kafka: &Kafka) -> Certificates {
        let tls = &kafka.tls;
        let files = [&tls.ca_file, &tls.certificate_file, &tls.key_file];
        let files = if kafka.security == Security::Plaintext {
            Vec::new()
        } else {
            files.into_iter().flatten().cloned().collect()
        };
        let mut certificates = Certificates { files, seen: None };
        certificates.seen = certificates.digest();
        certificates
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether they are others than at the last look, and the same at two looks in a row: a certificate and its
    /// key are two files, which nobody replaces at once. While one cannot be read they count as unchanged.
    pub(super) fn have_changed(&mut self, pending: &mut Option<u64>) -> bool {
        let Some(now) = self.digest() else { return false };
        if self.seen == Some(now) {
            *pending = None;
            return false;
        }
        if pending.replace(now) != Some(now) {
            return false;
        }
        *pending = None;
        self.seen = Some(now);
        true
    }

    fn digest(&self) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        for file in &self.files {
            read(file).ok()?.hash(&mut hasher);
        }
        Some(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Tls;

    #[test]
    fn a_secret_is_read_without_its_line_break_and_a_missing_one_is_told_with_its_setting() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("password");
        std::fs::write(&file, "s3cret \r\n").expect("written");
        assert_eq!(read_secret(&file, "a").as_deref(), Ok("s3cret "));
        std::fs::write(&file, "\n").expect("written");
        let error = read_secret(&file, "kafka.sasl.password_file").expect_err("empty");
        assert!(error.contains("it is empty") && error.contains("kafka.sasl.password_file"), "{error}");
    }

    #[test]
    fn certificates_have_changed_once_they_are_the_same_at_two_looks_and_can_be_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let [certificate, key] = ["certificate", "key"].map(|name| dir.path().join(name));
        let write = |file: &Path, text: &str| std::fs::write(file, text).expect("written");
        write(&certificate, "1");
        write(&key, "1");
        let tls = Tls {
            certificate_file: Some(certificate.clone()),
            key_file: Some(key.clone()),
            ..Tls::default()
        };
        let mut certificates = Certificates::of(&Kafka { security: Security::Tls, tls, ..Kafka::default() });
        let mut pending = None;
        assert!(!certificates.have_changed(&mut pending), "nothing was written");
        write(&certificate, "2");
        assert!(!certificates.have_changed(&mut pending), "the key may be on its way");
        write(&key, "2");
        assert!(!certificates.have_changed(&mut pending), "another than at the last look");
        assert!(certificates.have_changed(&mut pending));
        assert!(!certificates.have_changed(&mut pending), "told once");
        std::fs::remove_file(&key).expect("removed");
        assert!(!certificates.have_changed(&mut pending) && !certificates.have_changed(&mut pending));
    }
}
