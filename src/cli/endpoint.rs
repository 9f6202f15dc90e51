//! How a running instance is asked: its address, and what it asks for in turn.

use std::fmt;
use std::path::PathBuf;

use clap::Args;

/// Which instance is asked, and by what it knows who asks.
#[derive(Args, Clone, Debug, Default)]
pub struct EndpointArgs {
    /// Ask the instance with this endpoint, and nothing else [default: admin.listen of the settings].
    #[arg(long, value_name = "URL", value_parser = address)]
    pub admin: Option<Address>,
    /// A file with the endpoint's token [default: the variable PAWL_ADMIN_TOKEN, then for its own
    /// endpoint a token of the settings].
    #[arg(long, value_name = "FILE", help_heading = "Access")]
    pub token_file: Option<PathBuf>,
    /// Authorities of the endpoint's certificate, in PEM [default: for its own endpoint the
    /// certificate of the settings itself, else the system's].
    #[arg(long, value_name = "FILE", help_heading = "Access")]
    pub ca_file: Option<PathBuf>,
    /// A client certificate to show, in PEM.
    #[arg(long, value_name = "FILE", requires = "key_file", help_heading = "Access")]
    pub certificate_file: Option<PathBuf>,
    /// Its private key, in PEM.
    #[arg(long, value_name = "FILE", requires = "certificate_file", help_heading = "Access")]
    pub key_file: Option<PathBuf>,
}

/// The address of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Host and port.
    pub authority: String,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority)
    }
}

/// `http://host:port`, `https://host:port` or `host:port`.
fn address(text: &str) -> Result<Address, String> {
    let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => (false, text),
    };
    let authority = rest.trim_end_matches('/');
    let plain = !authority.is_empty() && !authority.contains(['/', '?', '#', '@']);
    match authority.rsplit_once(':') {
        Some((host, port)) if plain && !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(Address { tls, authority: authority.to_owned() })
        }
        _ => Err("write it like http://127.0.0.1:9464 or https://pawl-0:9464".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_named_by_scheme_host_and_port() {
        let read = |text: &str| address(text).map(|address| address.to_string());
        assert_eq!(read("a:1").as_deref(), Ok("http://a:1"));
        assert_eq!(read("http://[::1]:9464/").as_deref(), Ok("http://[::1]:9464"));
        assert_eq!(read("https://pawl-0:9464").as_deref(), Ok("https://pawl-0:9464"));
        for wrong in ["", "a", "https://a", "http://u:p@a:1", "http://a:1/ready", "a:1?token=x", "ftp://a:1"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
