//! From a handler's settings to the handler: `http` and `forward` are built, a `program` is
//! looked up among those that the Rust program registered.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::Arc;

use pawl_actors::handler::Handler;

use super::forward::ForwardHandler;
use super::http::{HttpHandler, HttpHandlerError};
use crate::settings::HandlerSettings;

/// The handlers that a Rust program brings along, by name. Empty for the `pawl` command.
///
/// ```
/// use pawl::handlers::{Registry, from_fn};
/// use pawl_actors::effects::Effects;
/// use pawl_actors::handler::Call;
/// use pawl_actors::outcome::Outcome;
///
/// let mut registry = Registry::default();
/// registry.register("billing", from_fn(|call: Call| async move {
///     println!("{:?}", call.record.key);
///     Outcome::Done(Effects::default())
/// }))?;
/// # Ok::<(), pawl::handlers::AlreadyRegistered>(())
/// ```
#[derive(Default)]
pub struct Registry {
    programs: BTreeMap<String, Arc<dyn Handler>>,
}

/// A name was registered twice.
#[derive(Debug, thiserror::Error)]
#[error("a handler named \"{0}\" is registered already")]
pub struct AlreadyRegistered(pub String);

/// Why a handler cannot be built from its settings.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The `http` handler's url, or the machine's certificate authorities, cannot be used.
    #[error("handler.{handler}.http: {source}")]
    Http {
        /// The handler's name.
        handler: String,
        /// What is wrong.
        source: HttpHandlerError,
    },
    /// The settings name a program's handler that nobody registered.
    #[error(
        "handler.{handler}.program: no handler named \"{program}\" is registered; {registered}. \
         Handlers of a Rust program are registered before it calls Pawl; the pawl command itself \
         has none"
    )]
    NotRegistered {
        /// The handler's name in the settings.
        handler: String,
        /// The name that was looked for.
        program: String,
        /// The names there are.
        registered: Names,
    },
    /// The settings say nothing of what records are handed to.
    #[error("handler.{handler}: one of http, forward and program must say what records are handed to")]
    Nowhere {
        /// The handler's name.
        handler: String,
    },
}

/// The names in a registry, for a message.
#[derive(Debug)]
pub struct Names(Vec<String>);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [] => write!(f, "no name is"),
            names => write!(f, "registered are {}", names.join(", ")),
        }
    }
}

impl Registry {
    /// Makes a handler known under a name that the settings can use: `program = { name = ... }`,
    /// or the handler's table itself.
    pub fn register(
        &mut self,
        name: impl Into<String>,
        handler: impl Handler,
    ) -> Result<(), AlreadyRegistered> {
        match self.programs.entry(name.into()) {
            Entry::Vacant(entry) => {
                entry.insert(Arc::new(handler));
                Ok(())
            }
            Entry::Occupied(entry) => Err(AlreadyRegistered(entry.key().clone())),
        }
    }

    /// The handler that stands under `name` in the settings. Opens no connection.
    pub fn build(&self, name: &str, settings: &HandlerSettings) -> Result<Arc<dyn Handler>, BuildError> {
        if let Some(http) = &settings.http {
            let bytes = http.max_response_bytes.0;
            let handler = HttpHandler::new(&http.url, http.timeout, http.max_in_flight, bytes);
            let handler = match &http.health_url {
                Some(url) => handler.and_then(|handler| handler.with_health(url)),
                None => handler,
            };
            let handler = handler.map_err(|source| BuildError::Http { handler: name.to_owned(), source })?;
            return Ok(Arc::new(handler));
        }
        if let Some(forward) = &settings.forward {
            return Ok(Arc::new(ForwardHandler::new(forward.topic.as_str())));
        }
        if let Some(program) = &settings.program {
            let program_name = program.name.as_deref().unwrap_or(name);
            let inner =
                self.programs.get(program_name).ok_or_else(|| self.not_registered(name, program_name))?;
            return Ok(inner.clone());
        }
        Err(BuildError::Nowhere { handler: name.to_owned() })
    }

    fn not_registered(&self, handler: &str, program: &str) -> BuildError {
        BuildError::NotRegistered {
            handler: handler.to_owned(),
            program: program.to_owned(),
            registered: Names(self.programs.keys().cloned().collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use pawl_actors::effects::Effects;
    use pawl_actors::handler::{Answer, Call};
    use pawl_actors::outcome::Outcome;

    use super::super::http::tests::{call, record};
    use super::*;
    use crate::handlers::from_fn;
    use crate::settings::{Forward, Http, Program, Settings};

    const NO_VARIABLES: [(&str, &str); 0] = [];
    const TIMEOUT: Duration = Duration::from_secs(20);

    fn program(name: Option<&str>, timeout: Duration) -> HandlerSettings {
        let program = Program { name: name.map(str::to_owned), timeout, ..Program::default() };
        HandlerSettings { program: Some(program), ..HandlerSettings::default() }
    }

    fn done() -> Outcome {
        Outcome::Done(Effects::default())
    }

    async fn outcome(handler: &dyn Handler) -> Outcome {
        match handler.handle(call(record())) {
            Answer::Ready(outcome) => outcome,
            Answer::Later(future) => future.await,
            Answer::Traced(..) => panic!("nobody traces it"),
        }
    }

    fn error(registry: &Registry, settings: &HandlerSettings) -> String {
        registry.build("billing", settings).map(|_| ()).unwrap_err().to_string()
    }

    #[tokio::test]
    async fn a_program_is_found_by_its_name_or_by_that_of_the_table() {
        let mut registry = Registry::default();
        registry.register("billing", from_fn(|_: Call| async { done() })).unwrap();
        for name in [None, Some("billing")] {
            let table = if name.is_some() { "invoices" } else { "billing" };
            let handler = registry.build(table, &program(name, TIMEOUT)).expect(table);
            assert_eq!(outcome(&*handler).await, done());
        }
    }

    #[tokio::test]
    async fn a_closure_sees_the_call_and_may_keep_what_is_not_send() {
        let handler = from_fn(|call: Call| async move {
            let offset = std::rc::Rc::new(call.record.offset.0);
            tokio::task::yield_now().await;
            assert_eq!(*offset, 42);
            done()
        });
        assert_eq!(outcome(&handler).await, done());
    }

    #[test]
    fn a_program_that_nobody_registered_is_named_with_those_there_are() {
        let mut registry = Registry::default();
        let text = error(&registry, &program(None, TIMEOUT));
        assert!(text.contains("no handler named \"billing\" is registered; no name is"), "{text}");
        for name in ["mail", "invoices"] {
            registry.register(name, from_fn(|_: Call| async { done() })).unwrap();
        }
        let text = error(&registry, &program(Some("bills"), TIMEOUT));
        assert!(text.contains("\"bills\" is registered; registered are invoices, mail"), "{text}");
    }

    #[test]
    fn a_name_is_registered_once() {
        let mut registry = Registry::default();
        registry.register("mail", from_fn(|_: Call| async { done() })).unwrap();
        let error = registry.register("mail", from_fn(|_: Call| async { done() })).unwrap_err();
        assert_eq!(error.to_string(), "a handler named \"mail\" is registered already");
    }

    #[tokio::test]
    async fn forward_answers_at_once_with_its_topic() {
        let forward = Some(Forward { topic: "copies".into() });
        let settings = HandlerSettings { forward, ..HandlerSettings::default() };
        let handler = Registry::default().build("copy", &settings).unwrap();
        match handler.handle(call(record())) {
            Answer::Ready(Outcome::Done(effects)) => assert_eq!(&*effects.emit[0].topic, "copies"),
            _ => panic!("expected effects at once"),
        }
    }

    #[test]
    fn a_url_that_cannot_be_used_is_named_with_its_place() {
        let http = Http { url: "ftp://billing".into(), ..Http::default() };
        let settings = HandlerSettings { http: Some(http), ..HandlerSettings::default() };
        let text = error(&Registry::default(), &settings);
        assert!(text.starts_with("handler.billing.http: url \"ftp://billing\" cannot be used"), "{text}");
    }

    #[test]
    fn settings_that_hand_records_nowhere_are_refused() {
        let text = error(&Registry::default(), &HandlerSettings::default());
        assert!(text.contains("one of http, forward and program"), "{text}");
    }

    #[test]
    fn the_settings_of_the_compose_file_build_their_handler() {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/docker/pawl.toml"));
        let text = std::fs::read_to_string(path).unwrap();
        let settings = Settings::parse(path, &text, NO_VARIABLES).unwrap_or_else(|error| panic!("{error}"));
        for (name, handler) in &settings.handler {
            Registry::default().build(name, handler).map(|_| ()).expect(name);
        }
        assert!(settings.handler.contains_key("billing"));
    }
}
