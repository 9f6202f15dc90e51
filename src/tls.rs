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
/// There is none, without any part of the file.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    // The error could quote the file.
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| "there is no private key in PEM in it".to_owned())
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
