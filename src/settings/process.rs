//! `[store]`, `[shutdown]` and `[log]`: what concerns the process, not a handler.

use std::path::PathBuf;
use std::time::Duration;

use pawl_actors::record::KeyDisplay;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ByteSize, duration};

/// The local view of the ledgers. It may be deleted while Pawl is down: it is rebuilt from the
/// changelogs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// The directory, created if it is missing; a relative one is relative to the working directory of
    /// the process. Used by one process at a time. Default: pawl-data.
    pub dir: PathBuf,
    /// What the view is kept in. sled for up to a million keys, fjall for more: it restores faster and
    /// keeps to its cache. Another engine begins with an empty view, read from the changelog anew.
    /// Default: sled.
    pub engine: Engine,
    /// How often committed rows are written to the store. A longer interval spares the disk; after a
    /// crash more of the changelog is read. Bounds: 100ms to 10m. Default: 10s.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub checkpoint_interval: Duration,
    /// Committed rows kept in memory until they are written to the store, those that are being written
    /// among them; when half of it is full they are written before the interval is over. Bounds: 1MiB to 16GiB. Default: 64MiB.
    pub buffer_bytes: ByteSize,
    /// Memory for the engine's cache; sled needs about 50 bytes for each key beside it. Bounds: 1MiB to 64GiB. Default: 64MiB.
    pub cache_bytes: ByteSize,
    /// How long a ledger's restore may wait without reading anything while its brokers answer: an open
    /// transaction holds it back then. At least the transactions' own time-out and 30s more are waited.
    /// Bounds: 1s to 1h. Default: 1m 30s.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub restore_timeout: Duration,
}

/// What the local view is kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// sled 0.34: a tree of pages. The index of its pages is in memory beside the cache.
    #[default]
    Sled,
    /// fjall 3: sorted tables. All that it reads goes through the cache.
    Fjall,
}

impl Engine {
    /// Every engine.
    pub const ALL: [Engine; 2] = [Engine::Sled, Engine::Fjall];

    /// The name in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Sled => "sled",
            Engine::Fjall => "fjall",
        }
    }
}

/// How the process ends after SIGTERM or Ctrl-C.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// How long a drain may take: calls that run get four fifths of it, then they are cancelled and their records left
    /// for the next start. A drain that is not over then ends with exit code 4. Keep it below what the platform waits
    /// before it kills (Kubernetes and ECS: 30s).
    /// Bounds: 1s to 1h. Default: 25s.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub deadline: Duration,
}

/// What the process logs, to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// How a line looks. Default: text.
    pub format: LogFormat,
    /// What is logged: a level (error, warn, info, debug, trace) or a list such as
    /// "info,pawl::kafka=debug", in the form of tracing-subscriber's EnvFilter. Default: info.
    pub filter: String,
    /// How keys of records are told, in the log, in spans and by /ready: keys can be personal data. What services
    /// answer and what failures say is told as it is. Default: shown.
    pub keys: LogKeys,
}

/// How keys of records are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogKeys {
    /// As they are, up to 256 bytes of each.
    #[default]
    Shown,
    /// As 16 digits of a hash, the same for the same key. Whoever can guess a key can check the guess.
    Hashed,
    /// Not at all; partition and offset say which record is meant.
    Hidden,
}

impl From<LogKeys> for KeyDisplay {
    fn from(keys: LogKeys) -> Self {
        match keys {
            LogKeys::Shown => KeyDisplay::Shown,
            LogKeys::Hashed => KeyDisplay::Hashed,
            LogKeys::Hidden => KeyDisplay::Hidden,
        }
    }
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

impl Default for Store {
    fn default() -> Self {
        Store {
            dir: "pawl-data".into(),
            engine: Engine::default(),
            checkpoint_interval: Duration::from_secs(10),
            buffer_bytes: ByteSize::mib(64),
            cache_bytes: ByteSize::mib(64),
            restore_timeout: Duration::from_secs(90),
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown { deadline: Duration::from_secs(25) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Log { format: LogFormat::Text, filter: "info".into(), keys: LogKeys::Shown }
    }
}
