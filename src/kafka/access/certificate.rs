//! What is wrong with a certificate. OpenSSL within librdkafka says only that a broker's could not be verified, and of a broker
//! that does not take the client's it often hears no more than that the connection has ended. So the handshake is made once
//! more, by a library that says why.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig, ClientConnection, RootCertStore};

use super::files::Pem;
use crate::settings::Kafka;
use crate::tls;

/// How long a broker may take for each step.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a broker may take to judge the client's certificate.
const JUDGEMENT: Duration = Duration::from_secs(1);
/// The most messages that may come before it.
const MAX_MESSAGES: usize = 8;

/// Why the certificate of a broker cannot be trusted by these authorities; `None`: it can, or no broker takes a connection.
pub(super) fn fault(kafka: &Kafka, pem: &Pem) -> Option<String> {
    let (server, error) =
        judged(kafka, config(pem)?, |error| is_about_it(error, kafka.tls.verify_host), || false)?;
    Some(format!("{server}: {error}"))
}

/// Why a broker does not take the client's certificate; `None`: it does, no broker takes a connection, or there is no certificate, or
/// none whose key can be read here.
pub(super) fn refusal(kafka: &Kafka, pem: &Pem, given_up: impl Fn() -> bool) -> Option<String> {
    let config = config(pem).filter(|config| config.client_auth_cert_resolver.has_certs())?;
    let (server, error) = judged(kafka, config, is_about_ours, given_up)?;
    Some(format!("{server} does not take the client's certificate: {error}"))
}

/// What is wrong by the first broker with which something of the kind is, asked until nobody needs to know.
fn judged(
    kafka: &Kafka,
    config: ClientConfig,
    is_it: impl Fn(&rustls::Error) -> bool,
    given_up: impl Fn() -> bool,
) -> Option<(&str, rustls::Error)> {
    let config = Arc::new(config);
    let mut servers = kafka.bootstrap_servers.iter().take(3).take_while(|_| !given_up());
    servers.find_map(|server| {
        let fault = handshake(server, &config).err()?;
        // Anything else than an error of rustls is not about certificates.
        let error = fault.get_ref()?.downcast_ref::<rustls::Error>()?;
        is_it(error).then(|| (server.as_str(), error.clone()))
    })
}

/// Whether an error is a judgement of the broker's certificate by what librdkafka checks.
fn is_about_it(error: &rustls::Error, verify_host: bool) -> bool {
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => verify_host,
        rustls::Error::InvalidCertificate(_) => true,
        _ => false,
    }
}

/// Whether it is the broker's judgement of the client's certificate (RFC 8446, section 6.2).
fn is_about_ours(error: &rustls::Error) -> bool {
    use AlertDescription::{
        AccessDenied, BadCertificate, CertificateExpired, CertificateRevoked, CertificateUnknown, UnknownCA,
        UnsupportedCertificate,
    };
    matches!(
        error,
        rustls::Error::AlertReceived(
            AccessDenied
                | BadCertificate
                | CertificateExpired
                | CertificateRevoked
                | CertificateUnknown
                | UnknownCA
                | UnsupportedCertificate
        )
    )
}

fn config(pem: &Pem) -> Option<ClientConfig> {
    let config = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .ok()?
        .with_root_certificates(roots(pem)?);
    let own = |text: &Option<String>| text.as_ref().map(|text| text.as_bytes().to_owned());
    let certificates = own(&pem.certificate).and_then(|text| tls::certificates(&text).ok());
    // One that is encrypted is none.
    let key = own(&pem.key).and_then(|text| tls::private_key(&text).ok());
    match certificates.zip(key) {
        Some((certificates, key)) => config.with_client_auth_cert(certificates, key).ok(),
        None => Some(config.with_no_client_auth()),
    }
}

fn roots(pem: &Pem) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let certificates = match &pem.authorities {
        Some(text) => tls::certificates(text.as_bytes()).ok()?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(certificates);
    Some(roots)
}

fn handshake(server: &str, config: &Arc<ClientConfig>) -> io::Result<()> {
    let (host, _) = server.rsplit_once(':').ok_or(io::ErrorKind::InvalidInput)?;
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    let name = name.map_err(|_| io::ErrorKind::InvalidInput)?;
    let address = server.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut connection = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    if config.client_auth_cert_resolver.has_certs() {
        // By TLS 1.3 it is judged after the handshake. Nothing is sent meanwhile: a broker that has closed the connection would
        // answer that by a reset, and what it said before would be lost.
        stream.set_read_timeout(Some(JUDGEMENT))?;
        for _ in 0..MAX_MESSAGES {
            connection.complete_io(&mut stream)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustls::Error;

    use super::*;

    #[test]
    fn what_is_wrong_with_a_certificate_is_told_apart_from_other_errors() {
        for (error, by_name, by_any, ours) in [
            (Error::InvalidCertificate(CertificateError::UnknownIssuer), true, true, false),
            (Error::InvalidCertificate(CertificateError::NotValidForName), true, false, false),
            (Error::AlertReceived(AlertDescription::CertificateUnknown), false, false, true),
            (Error::AlertReceived(AlertDescription::HandshakeFailure), false, false, false),
            (Error::PeerIncompatible(rustls::PeerIncompatible::NoCipherSuitesInCommon), false, false, false),
        ] {
            let [with_name, without] = [true, false].map(|verify_host| is_about_it(&error, verify_host));
            assert_eq!((with_name, without, is_about_ours(&error)), (by_name, by_any, ours), "{error}");
        }
    }
}
