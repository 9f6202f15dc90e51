//! Files with passwords, certificates and keys, and whether they have changed.

use std::fmt;
use std::path::{Path, PathBuf};

use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::settings::{Kafka, Sasl, Security};
use crate::{bounded_file, tls};

/// The most that is read of a file; a bundle of authorities has a quarter of that.
const MAX_BYTES: u64 = 1 << 20;

/// The password of the settings.
pub(super) fn password(sasl: &Sasl) -> Result<String, String> {
    match (&sasl.password, &sasl.password_file) {
        (Some(password), _) => Ok(password.reveal().to_owned()),
        (None, Some(file)) => read_secret(file, "kafka.sasl.password_file"),
        (None, None) => Err("there is no password: name a file in kafka.sasl.password_file".into()),
    }
}

/// A secret in a file, without the line break at its end.
pub(super) fn read_secret(file: &Path, setting: &str) -> Result<String, String> {
    let failed = |why: String| format!("cannot read {} ({setting}): {why}", file.display());
    let bytes = bounded_file::read(file, MAX_BYTES).map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8".into()))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() { Err(failed("it is empty".into())) } else { Ok(text.to_owned()) }
}

/// Certificates and a key as librdkafka takes them. Clients are given these and not the files' names: a client that is
/// opened while the files are written anew, or after new ones were refused, must not read what is there just then.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Pem {
    pub(super) authorities: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pem")
    }
}

impl Pem {
    /// As whom the client's certificate is (RFC 4514), as a broker has it before it maps it.
    pub(super) fn subject(&self) -> Option<String> {
        let certificates = tls::certificates(self.certificate.as_ref()?.as_bytes()).ok()?;
        let own = Certificate::from_der(certificates.first()?).ok()?;
        Some(own.tbs_certificate.subject.to_string())
    }
}

/// Reads the certificates and the key of the settings.
pub(super) fn pem(kafka: &Kafka) -> Result<Pem, String> {
    if kafka.security == Security::Plaintext {
        return Ok(Pem::default());
    }
    let tls = &kafka.tls;
    let read = |file: &Option<PathBuf>, key: &str| {
        file.as_ref().map(|file| read_secret(file, &format!("kafka.tls.{key}"))).transpose()
    };
    Ok(Pem {
        authorities: read(&tls.ca_file, "ca_file")?,
        certificate: read(&tls.certificate_file, "certificate_file")?,
        key: read(&tls.key_file, "key_file")?,
    })
}

/// What the files hold now.
pub(super) struct Read {
    /// `None`: the settings name no file for it.
    pub(super) password: Option<Result<String, String>>,
    pub(super) pem: Result<Pem, String>,
}

impl Read {
    /// Blocks for as long as the file system does.
    pub(super) fn of(kafka: &Kafka) -> Read {
        let named = kafka.security.has_password() && kafka.sasl.password_file.is_some();
        Read { password: named.then(|| password(&kafka.sasl)), pem: pem(kafka) }
    }
}

/// Tells once when what was read differs from what is in use, and is the same at two looks in a row: a certificate and
/// its key are two files, which nobody replaces at once, and any file may be read half written.
#[derive(Debug, Default)]
pub(super) struct Changes<T> {
    pending: Option<T>,
    /// What was told last, whether it is in use or not.
    told: Option<T>,
}

impl<T: PartialEq + Clone> Changes<T> {
    /// What there is to be told.
    pub(super) fn look(&mut self, in_use: Option<&T>, now: T) -> Option<T> {
        if in_use == Some(&now) {
            // What was told is told again if it comes back.
            *self = Changes { pending: None, told: None };
            return None;
        }
        if self.told.as_ref() == Some(&now) {
            self.pending = None;
            return None;
        }
        if self.pending.replace(now.clone()).as_ref() != Some(&now) {
            return None;
        }
        self.pending = None;
        self.told = Some(now.clone());
        Some(now)
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
    fn what_has_changed_is_told_once_and_only_when_it_is_the_same_at_two_looks() {
        let (mut changes, in_use) = (Changes::default(), Some(&"1,1"));
        assert_eq!(changes.look(in_use, "1,1"), None, "nothing was written");
        assert_eq!(changes.look(in_use, "2,1"), None, "the key may be on its way");
        assert_eq!(changes.look(in_use, "2,2"), None, "another than at the last look");
        assert_eq!(changes.look(in_use, "2,2"), Some("2,2"));
        assert_eq!(changes.look(in_use, "2,2"), None, "told once, whatever became of it");
        assert_eq!(changes.look(in_use, "1,1"), None, "taken back");
        assert_eq!(changes.look(in_use, "2,2"), None, "and there once more");
        assert_eq!(changes.look(in_use, "2,2"), Some("2,2"));
        assert_eq!(changes.look(Some(&"2,2"), "2,2"), None, "and it is in use");
    }

    #[test]
    fn certificates_and_keys_are_read_together_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a directory");
        let [certificate, key] = ["certificate", "key"].map(|name| dir.path().join(name));
        std::fs::write(&certificate, "1\n").expect("written");
        let tls = Tls { certificate_file: Some(certificate), key_file: Some(key.clone()), ..Tls::default() };
        let kafka = Kafka { security: Security::Tls, tls, ..Kafka::default() };
        let error = pem(&kafka).expect_err("the key is not there");
        assert!(error.contains("kafka.tls.key_file"), "{error}");
        std::fs::write(&key, "2").expect("written");
        let read = pem(&kafka).expect("both are there");
        assert_eq!((read.certificate.as_deref(), read.key.as_deref()), (Some("1"), Some("2")));
        assert_eq!(read.authorities, None);
    }

    #[test]
    fn the_subject_of_a_certificate_is_told_as_brokers_have_it() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Orders");
        params.distinguished_name.push(rcgen::DnType::CommonName, "pawl");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        let of = |certificate| Pem { certificate, ..Pem::default() }.subject();
        assert_eq!(of(Some(certificate)).as_deref(), Some("CN=pawl,O=Orders"));
        assert_eq!([of(Some("no certificate".into())), of(None)], [None, None]);
    }
}
