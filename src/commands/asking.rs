//! Asks the instances of a handler for something: writes a command to its command topic, and waits until
//! whoever holds the partitions has answered there. Works from any machine that reaches the brokers.

pub(crate) mod merge;
mod request;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pawl_actors::command::{ANSWER, Command, MAX_COMMAND, Progress, Reply, VERSION, What};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::Serialize;

pub use request::Request;

use super::{Failure, handler, print, print_json, settings};
use crate::cli::Asking;
use crate::exit::Exit;
use crate::kafka::access::{Access, Live};
use crate::kafka::admin::Admin;
use crate::kafka::client::{self, LogContext};
use crate::kafka::headers;
use crate::kafka::topic_reader::is_passing;
use crate::settings::{HandlerSettings, Settings};

/// Longest wait for a record of the command topic.
const POLL: Duration = Duration::from_millis(100);

/// A handler to be asked.
pub struct Asked {
    /// All settings.
    pub settings: Settings,
    name: String,
    topic: String,
    partitions: Vec<i32>,
}

/// Who asks, and by which id the answers are known.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Names the command in its answers and in the audit log.
    pub id: String,
    /// For people: the log, and whoever reads the topic later.
    pub by: String,
}

/// How long answers are waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Without hearing anything.
    pub silence: Duration,
    /// In all.
    pub total: Duration,
}

/// What was asked, and answered.
#[derive(Debug, Serialize)]
pub struct Answers {
    /// The command's id.
    pub id: String,
    /// The last answer of each partition that has answered.
    pub partitions: BTreeMap<i32, Reply>,
    /// Partitions that have not answered to the end in time.
    pub silent: Vec<i32>,
}

/// Asks for something as the command line says, and tells what was answered.
///
/// # Errors
/// Settings, no broker, no right, or what is asked for cannot be.
pub fn ask(args: &Asking, request: &Request) -> Result<Exit, Failure> {
    let asked = Asked::open(args)?;
    ask_and_tell(&asked, args, &request.of_each(&asked)?)
}

/// Asks each partition for its part, and tells what was answered.
///
/// # Errors
/// No broker, or no right.
pub fn ask_and_tell(asked: &Asked, args: &Asking, parts: &BTreeMap<i32, What>) -> Result<Exit, Failure> {
    let asker = Asker::at_terminal();
    let patience = Patience { silence: args.whom.timeout, total: Duration::MAX };
    let bar = asked.bar();
    let answers = asked.answers(&asker, parts, patience, |answers| match answers {
        Some(answers) => merge::show(&bar, answers),
        None => bar.tick(),
    });
    bar.finish_and_clear();
    let answers = answers?;
    if args.whom.json {
        print_json(&answers)?;
    } else {
        print(merge::told(&answers, &asked.name).as_bytes())?;
    }
    Ok(merge::exit(&answers))
}

impl Asker {
    /// Somebody with an id of its own.
    pub fn new(by: String) -> Asker {
        Asker { id: uuid::Uuid::new_v4().to_string(), by }
    }

    /// Whoever sits at this machine.
    fn at_terminal() -> Asker {
        Asker::new(who())
    }
}

impl Asked {
    /// Finds the command topic of the handler that the command line means.
    ///
    /// # Errors
    /// Settings, no broker, or no command topic.
    pub fn open(args: &Asking) -> Result<Asked, Failure> {
        let settings = settings(&args.whom.settings)?;
        let name = handler(&settings, args.whom.handler.as_ref())?.0.to_owned();
        Asked::of(settings, name, args.partition)
    }

    /// Finds the command topic of a handler of these settings; one partition of it, or all.
    ///
    /// # Errors
    /// No broker, no command topic, or no such partition.
    pub fn of(settings: Settings, name: String, partition: Option<i32>) -> Result<Asked, Failure> {
        let topic = settings.handler[&name].command_topic(&name);
        let found = Admin::new(&settings.kafka)?.describe(&topic)?;
        let Some(found) = found else {
            return Err(Failure::new(
                Exit::Stopped,
                format!(
                    "there is no command topic {topic}: no instance of {name} has run yet. pawl topics create makes it"
                ),
            ));
        };
        let partitions = match partition {
            None => (0..found.partitions).collect(),
            Some(one) if (0..found.partitions).contains(&one) => vec![one],
            Some(one) => return Err(super::dlt::scan::no_such_partition(&topic, one, found.partitions)),
        };
        Ok(Asked { settings, name, topic, partitions })
    }

    /// The handler's settings.
    pub fn handler(&self) -> &HandlerSettings {
        &self.settings.handler[&self.name]
    }

    /// Its consumer group.
    pub fn group(&self) -> &str {
        self.handler().group(&self.name)
    }

    /// Its partitions, as many as were asked for.
    pub fn partitions(&self) -> &[i32] {
        &self.partitions
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks each partition for its part, and waits for the answers. `heard` is told of each, and nothing from
    /// time to time.
    ///
    /// # Errors
    /// No broker, no right, or the command is too long.
    pub fn answers(
        &self,
        asker: &Asker,
        parts: &BTreeMap<i32, What>,
        patience: Patience,
        heard: impl FnMut(Option<&Answers>),
    ) -> Result<Answers, Failure> {
        // Before the command is written, so that no answer is missed.
        let reader = self.reader(parts)?;
        self.write(asker, parts)?;
        self.collect(&reader, asker, parts, patience, heard)
    }

    fn failed(&self, error: &KafkaError) -> Failure {
        let unreachable = matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::MessageTimedOut
                    | RDKafkaErrorCode::OperationTimedOut
                    | RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::AllBrokersDown
            )
        );
        let exit = if unreachable { Exit::Unreachable } else { Exit::Stopped };
        let principal = Access::of(&self.settings.kafka).principal();
        Failure::new(
            exit,
            format!(
                "{}: {error}; this takes the rights to read and to write the topic, and it was asked by {principal}",
                self.topic
            ),
        )
    }

    /// A reader that stands at the end of each partition.
    fn reader(&self, parts: &BTreeMap<i32, What>) -> Result<Live<BaseConsumer<LogContext>>, Failure> {
        let kafka = &self.settings.kafka;
        let mut config = client::reader(kafka);
        client::tune(&mut config, kafka, &[("fetch.queue.backoff.ms", "5"), ("fetch.wait.max.ms", "100")]);
        let reader: Live<BaseConsumer<LogContext>> = config
            .set("auto.offset.reset", "latest")
            .open(LogContext::new("commands"))
            .map_err(|error| self.failed(&error.into()))?;
        let mut list = TopicPartitionList::new();
        for partition in parts.keys() {
            let ends = reader.fetch_watermarks(&self.topic, *partition, kafka.request_timeout);
            let (_, end) = ends.map_err(|error| self.failed(&error))?;
            let added = list.add_partition_offset(&self.topic, *partition, Offset::Offset(end));
            added.map_err(|error| self.failed(&error))?;
        }
        reader.assign(&list).map_err(|error| self.failed(&error))?;
        Ok(reader)
    }

    fn write(&self, Asker { id, by }: &Asker, parts: &BTreeMap<i32, What>) -> Result<(), Failure> {
        let kafka = &self.settings.kafka;
        let timeout = kafka.request_timeout;
        let producer: Live<BaseProducer<Delivered>> = client::producer(kafka)
            .set("message.timeout.ms", timeout.as_millis().to_string())
            .open(Delivered::default())
            .map_err(|error| self.failed(&error.into()))?;
        for (partition, what) in parts {
            let command = Command { version: VERSION, id: id.clone(), by: by.clone(), what: what.clone() };
            let value: Bytes = command.written();
            if value.len() > MAX_COMMAND {
                let (bytes, most) = (value.len(), MAX_COMMAND);
                let message =
                    format!("the command has {bytes} bytes, {most} are allowed: give a shorter reason");
                return Err(Failure::new(Exit::Usage, message));
            }
            let record = BaseRecord::<(), [u8]>::to(&self.topic).partition(*partition).payload(&value);
            producer.send(record).map_err(|(error, _)| self.failed(&error))?;
        }
        // Every record ends by its time-out.
        producer.flush(timeout + Duration::from_secs(1)).map_err(|error| self.failed(&error))?;
        let refused = producer.context().0.lock().expect("no holder panics").take();
        refused.map_or(Ok(()), |error| {
            let Failure { exit, .. } = self.failed(&error);
            Err(Failure::new(
                exit,
                format!(
                    "{}: the command {id} was not written to every partition: {error}; ask again",
                    self.topic
                ),
            ))
        })
    }

    /// Reads answers until all partitions have given their last, or nothing comes any more.
    fn collect(
        &self,
        reader: &BaseConsumer<LogContext>,
        asker: &Asker,
        parts: &BTreeMap<i32, What>,
        patience: Patience,
        mut heard: impl FnMut(Option<&Answers>),
    ) -> Result<Answers, Failure> {
        let silent = parts.keys().copied().collect();
        let mut answers = Answers { id: asker.id.clone(), partitions: BTreeMap::new(), silent };
        let began = Instant::now();
        let mut last = began;
        while !answers.silent.is_empty()
            && last.elapsed() < patience.silence
            && began.elapsed() < patience.total
        {
            heard(None);
            match reader.poll(POLL) {
                Some(Ok(message)) => {
                    let answer = headers::read(&message, Bytes::copy_from_slice);
                    let ours = pawl_actors::record::last_header(&answer, ANSWER);
                    if ours.is_none_or(|of| of != answers.id.as_bytes()) {
                        continue;
                    }
                    let reply: Result<Reply, _> =
                        serde_json::from_slice(message.payload().unwrap_or_default());
                    let Ok(reply) = reply else { continue };
                    last = Instant::now();
                    let partition = message.partition();
                    if reply.progress != Progress::Running {
                        answers.silent.retain(|silent| *silent != partition);
                    }
                    answers.partitions.insert(partition, reply);
                    heard(Some(&answers));
                }
                Some(Err(error))
                    if !is_passing(&error)
                        && error.rdkafka_error_code().is_some_and(crate::kafka::group::is_forbidden) =>
                {
                    return Err(self.failed(&error));
                }
                // librdkafka goes on by itself; the time-out decides.
                Some(Err(_)) | None => {}
            }
        }
        Ok(answers)
    }

    fn bar(&self) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{msg} [{bar:30}] {elapsed}").expect("a valid template");
        bar.set_style(style);
        bar.set_message(format!("waiting for {}", self.name));
        bar
    }
}

/// Who asks, for the log and for whoever reads the topic later.
fn who() -> String {
    let user =
        std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "somebody".into());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{user}@{}", host.trim())
}

/// The first write that was refused.
#[derive(Default)]
struct Delivered(std::sync::Mutex<Option<KafkaError>>);

impl rdkafka::ClientContext for Delivered {}

impl rdkafka::producer::ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &rdkafka::message::DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.lock().expect("no holder panics").get_or_insert(error.clone());
        }
    }
}
