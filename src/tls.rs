//! What all that speaks TLS by rustls begins with: its crypto library, and certificates and keys from PEM.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The one crypto library of HTTP.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The certificates of a PEM file.
///
/// # Errors
/// There is none, or one cannot be read.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|error| format!("it is not PEM: {error}"))?;
    if read.is_empty() { Err("there is no certificate in it".into()) } else { Ok(read) }
}

/// The private key of a PEM file.
///
/// # Errors
/// There is none, or it is encrypted; without any part of the file.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    // The error could quote the file.
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
        let text = String::from_utf8_lossy(pem);
        // PKCS #8, and OpenSSL's older form.
        let is_encrypted = ["BEGIN ENCRYPTED PRIVATE KEY", "4,ENCRYPTED"].iter().any(|mark| text.contains(mark));
        if is_encrypted {
            "the private key in it is encrypted, which is not taken: write it without a password (openssl pkey), \
             for this process alone to read"
                .to_owned()
        } else {
            "there is no private key in PEM in it".to_owned()
        }
    })
}

/// The authorities of a PEM file.
///
/// # Errors
/// There is none, or one cannot be used.
pub fn authorities(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots
            .add(certificate)
            .map_err(|error| format!("a certificate of it is none of an authority: {error}"))?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encrypted_key_is_told_as_one_and_no_part_of_it() {
        let pkcs8 = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nc2VjcmV0\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let older = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nc2VjcmV0\n\
                     -----END RSA PRIVATE KEY-----\n";
        for (pem, expected) in
            [(pkcs8, "is encrypted"), (older, "is encrypted"), ("c2VjcmV0", "no private key")]
        {
            let why = private_key(pem.as_bytes()).expect_err("it is no key that can be used");
            assert!(why.contains(expected) && !why.contains("c2VjcmV0"), "{why}");
        }
    }
}
