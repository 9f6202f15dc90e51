//! What is wrong with a broker's certificate. OpenSSL within librdkafka says only that it could not be verified; so
//! the handshake is made once more, by a library that says why.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore};

use super::files::Pem;
use crate::settings::Kafka;
use crate::tls;

/// How long a broker may take for each step.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why the certificate of the first broker that takes a connection cannot be trusted by these authorities; `None`: it can, or none
/// does.
pub(super) fn fault(kafka: &Kafka, pem: &Pem) -> Option<String> {
    let roots = roots(pem)?;
    let config = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .ok()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    let mut servers = kafka.bootstrap_servers.iter().take(3);
    servers.find_map(|server| {
        let fault = handshake(server, &config).err()?;
        is_about_it(fault.get_ref()?.downcast_ref()?, kafka.tls.verify_host)
            .then(|| format!("{server}: {fault}"))
    })
}

/// Whether an error is a judgement of the broker's certificate by what librdkafka checks. A broker that asks for a client's
/// certificate ends this handshake, which has none, with an alert.
fn is_about_it(error: &rustls::Error, verify_host: bool) -> bool {
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => verify_host,
        rustls::Error::InvalidCertificate(_) => true,
        _ => false,
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, Error};

    use super::*;

    #[test]
    fn only_what_is_wrong_with_the_brokers_certificate_is_told() {
        for (error, by_name, by_any) in [
            (Error::InvalidCertificate(CertificateError::UnknownIssuer), true, true),
            (Error::InvalidCertificate(CertificateError::NotValidForName), true, false),
            (Error::AlertReceived(AlertDescription::CertificateRequired), false, false),
            (Error::PeerIncompatible(rustls::PeerIncompatible::NoCipherSuitesInCommon), false, false),
        ] {
            let told = [true, false].map(|verify_host| is_about_it(&error, verify_host));
            assert_eq!(told, [by_name, by_any], "{error}");
        }
    }
}
