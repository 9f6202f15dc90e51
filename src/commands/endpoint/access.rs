//! What is shown to an endpoint, and whom its certificate is believed by.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::cli::EndpointArgs;
use crate::commands::Failure;
use crate::exit::Exit;
use crate::settings::{Admin, Secret, Token};
use crate::{bounded_file, tls};

/// The variable with a token for the endpoint that is asked.
const VARIABLE: &str = "PAWL_ADMIN_TOKEN";
/// The largest file of a token, a certificate or a key that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The token that is sent: the one that is named, else that of the variable, else one of the endpoint's own settings.
pub fn token(args: &EndpointArgs, own: Option<&Admin>) -> Result<Option<Secret>, Failure> {
    if let Some(file) = &args.token_file {
        let token = text(file).and_then(|text| first(&text));
        return token.map(Some).map_err(|why| unusable("--token-file", file, &why));
    }
    if let Ok(text) = std::env::var(VARIABLE) {
        let wrong = |why| Failure::new(Exit::Usage, format!("{VARIABLE} holds no token: {why}"));
        return first(&text).map(Some).map_err(wrong);
    }
    let Some(own) = own else { return Ok(None) };
    let of = |token: &Option<Secret>| token.as_ref().and_then(|token| first(token.reveal()).ok());
    // Whoever may not read them may have another way to be known; the endpoint says what it wants.
    let in_file = |file: &Option<PathBuf>| first(&text(file.as_ref()?).ok()?).ok();
    Ok(of(&own.read_token)
        .or_else(|| in_file(&own.read_token_file))
        .or_else(|| of(&own.operator_token))
        .or_else(|| in_file(&own.operator_token_file)))
}

fn text(file: &Path) -> Result<String, String> {
    let bytes = bounded_file::read(file, MAX_FILE_BYTES).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}

fn first(text: &str) -> Result<Secret, String> {
    Token::read_lines(text).map(|tokens| Secret::new(tokens[0].secret))
}

/// Which certificate the instance on this machine may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// That of its settings.
    Set,
    /// Any: it keeps the old one while certificate and key in its files do not fit together, and is alive all the same.
    /// Nothing secret may be sent.
    Any,
}

/// How TLS is spoken, where the endpoint speaks it.
pub fn tls(
    args: &EndpointArgs,
    own: Option<&Admin>,
    spoken: bool,
    certificate: Own,
) -> Result<ClientConfig, Failure> {
    let provider = tls::provider();
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Failure::new(Exit::Stopped, error.to_string()))?;
    let file = own.and_then(|own| own.tls.as_ref()).map(|tls| &tls.certificate_file);
    let builder = match (&args.ca_file, file) {
        (Some(file), _) => builder.with_root_certificates(read("--ca-file", file, tls::authorities)?),
        (None, Some(file)) => {
            let certificate = match certificate {
                // The first is the instance's own; there is one, or the file cannot be used.
                Own::Set => Some(read("admin.tls.certificate_file", file, tls::certificates)?.swap_remove(0)),
                Own::Any => None,
            };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Pinned { certificate, provider }))
        }
        // A machine without authorities can be asked in plain HTTP.
        (None, None) if !spoken => builder.with_root_certificates(RootCertStore::empty()),
        (None, None) => builder.with_native_roots().map_err(|error| {
            let why = format!("this machine's authorities cannot be read: {error}; name some with --ca-file");
            Failure::new(Exit::Usage, why)
        })?,
    };
    let (Some(certificate), Some(key)) = (&args.certificate_file, &args.key_file) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = read("--certificate-file", certificate, tls::certificates)?;
    let secret = read("--key-file", key, tls::private_key)?;
    let config = builder.with_client_auth_cert(chain, secret);
    config.map_err(|error| unusable("--certificate-file", certificate, &error.to_string()))
}

fn read<T>(what: &str, file: &Path, parse: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<T, Failure> {
    let read = bounded_file::read(file, MAX_FILE_BYTES).map_err(|error| error.to_string());
    read.and_then(|bytes| parse(&bytes)).map_err(|why| unusable(what, file, &why))
}

fn unusable(what: &str, file: &Path, why: &str) -> Failure {
    Failure::new(Exit::Usage, format!("{what} ({}) cannot be used: {why}", file.display()))
}

/// Believes one certificate, or any, whatever names stand in it: the instance on this machine is asked by an address, and its
/// certificate is at hand. That the other side has its key is checked as ever.
#[derive(Debug)]
struct Pinned {
    /// `None`: any.
    certificate: Option<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.certificate.as_ref().is_none_or(|certificate| certificate == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
