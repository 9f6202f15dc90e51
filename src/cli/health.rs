//! The command for health checks: `pawl health`.

use std::time::Duration;

use clap::Args;

use super::{EndpointArgs, SettingsFile};

/// `pawl health`.
#[derive(Args, Debug)]
#[command(after_help = "\
Asks /live of the instance on this machine: admin.listen of the settings, with this machine's own \
address in place of 0.0.0.0 or [::]. An instance whose partitions do not get on is alive; /ready, asked \
with --ready, is no where it holds a partition that is not running or stands still.

Exit code 0 if the answer is yes, 1 if it is no or there is none in time, 2 if the settings are wrong or \
say admin.listen = \"off\".")]
pub struct Health {
    #[command(flatten)]
    pub settings: SettingsFile,
    #[command(flatten)]
    pub endpoint: EndpointArgs,
    /// Ask whether it is ready, not only whether it is alive.
    #[arg(long)]
    pub ready: bool,
    /// How long the answer may take, 100ms to 1m.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = timeout)]
    pub timeout: Duration,
}

fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let bounds = Duration::from_millis(100)..=Duration::from_secs(60);
    if bounds.contains(&timeout) { Ok(timeout) } else { Err("100ms to 1m".into()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    #[test]
    fn an_endpoint_stands_in_for_the_settings_and_the_wait_is_bounded() {
        let parse = |extra: &[&str]| Cli::try_parse_from([&["pawl", "health"], extra].concat());
        for valid in [&[][..], &["--ready", "--timeout", "5s"], &["--admin", "http://[::1]:9464"]] {
            assert!(parse(valid).is_ok(), "{valid:?}");
        }
        for wrong in [&["--timeout", "1h"][..], &["--timeout", "0s"], &["--admin", "a"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
