//! The process itself: what it is, since when it runs, and its memory where the system tells it (Linux).

use std::fmt::Error;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// See the module's documentation.
#[derive(Debug)]
pub struct Process {
    began: SystemTime,
}

impl Default for Process {
    /// Runs since now.
    fn default() -> Self {
        Process { began: SystemTime::now() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let gauge = MetricType::Gauge;
        let mut metric =
            encoder.encode_descriptor("pawl_build_info", "1; the labels say what runs", None, gauge)?;
        metric.encode_family(&[("version", env!("CARGO_PKG_VERSION"))])?.encode_gauge(&1_i64)?;
        let began = self.began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (help, unit) = ("When the process began, in seconds since 1970", Some(&Unit::Seconds));
        let mut metric = encoder.encode_descriptor("process_start_time", help, unit, gauge)?;
        metric.encode_gauge(&began.as_secs_f64())?;
        let Some(bytes) = resident_bytes() else { return Ok(()) };
        let (help, unit) = ("Resident memory of the process", Some(&Unit::Bytes));
        encoder.encode_descriptor("process_resident_memory", help, unit, gauge)?.encode_gauge(&bytes)
    }
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn the_process_tells_what_runs_and_since_when() {
        let text = Metrics::new(Vec::new(), Duration::ZERO).text().unwrap();
        let version = concat!("pawl_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1");
        assert!(text.contains(version), "{text}");
        let began = text.lines().find_map(|line| line.strip_prefix("process_start_time_seconds "));
        assert!(began.unwrap().parse::<f64>().unwrap() > 1_700_000_000.0, "{text}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_memory_of_the_process_is_shown() {
        let bytes = resident_bytes().expect("Linux tells it");
        assert!((1 << 20..1 << 40).contains(&bytes), "{bytes}");
        let text = Metrics::new(Vec::new(), Duration::ZERO).text().unwrap();
        assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
    }
}
