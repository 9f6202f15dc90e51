//! `pawl dlt export`: letters as lines that `pawl dlt import` writes back byte for byte.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::SystemTime;

use super::filter::{filter, is_about};
use super::scan::Scan;
use super::{held_back, line};
use crate::cli::DltExport;
use crate::commands::{Failure, connection};
use crate::exit::Exit;

/// Carries `pawl dlt export` out.
///
/// # Errors
/// No broker, no such topic or partition, or the output cannot be written.
pub fn execute(args: &DltExport) -> Result<Exit, Failure> {
    let filter = filter(&args.filter, args.group.as_ref(), SystemTime::now())?;
    let scan = Scan::open(connection(&args.connection)?, &args.topic)?;
    let mut output = Output::open(&args.output)?;
    let (mut read, mut exported) = (0, 0);
    let result = scan.read_whole(args.partition, |found| {
        read += 1;
        if is_about(&filter, &found) {
            output.write(&line::write(&found).map_err(io::Error::from)?)?;
            exported += 1;
        }
        Ok(())
    });
    if output.reader_left {
        return Ok(Exit::Done);
    }
    let held = result.map_err(|failure| output.explain(failure))?;
    output.finish()?;
    if output.reader_left {
        return Ok(Exit::Done);
    }
    eprintln!("{exported} of {read} dead letters in {} exported to {}", args.topic, output.name);
    held_back(held, &args.topic);
    Ok(Exit::Done)
}

/// Where the lines go.
struct Output {
    name: String,
    file: Option<File>,
    to: BufWriter<Box<dyn Write>>,
    /// Nobody reads standard output any more (`| head`): not an error of the command.
    reader_left: bool,
}

impl Output {
    fn open(path: &Path) -> Result<Output, Failure> {
        let buffered = |to: Box<dyn Write>| BufWriter::with_capacity(256 * 1024, to);
        if path.as_os_str() == "-" {
            let (name, to) = ("standard output".into(), buffered(Box::new(io::stdout())));
            return Ok(Output { name, file: None, to, reader_left: false });
        }
        let name = path.display().to_string();
        let refused = |error: io::Error| {
            // What lies there may be all that is left of letters that were exported before.
            let remedy = match error.kind() {
                io::ErrorKind::AlreadyExists => "name another file, or move this one away",
                _ => "name a file that can be written, or - for standard output",
            };
            Failure::new(Exit::Usage, format!("cannot create {name}: {error}; {remedy}"))
        };
        let file = File::create_new(path).map_err(refused)?;
        let to = buffered(Box::new(file.try_clone().map_err(refused)?));
        Ok(Output { name, file: Some(file), to, reader_left: false })
    }

    fn write(&mut self, text: &[u8]) -> Result<(), Failure> {
        self.to.write_all(text).map_err(|error| self.failed(&error))
    }

    /// Until this has been done a file may hold less than was written.
    fn finish(&mut self) -> Result<(), Failure> {
        let done = self.to.flush().and_then(|()| self.file.as_ref().map_or(Ok(()), File::sync_all));
        match done {
            Ok(()) => Ok(()),
            Err(error) => match self.failed(&error) {
                _ if self.reader_left => Ok(()),
                failure => Err(self.explain(failure)),
            },
        }
    }

    fn failed(&mut self, error: &io::Error) -> Failure {
        self.reader_left |= self.file.is_none() && error.kind() == io::ErrorKind::BrokenPipe;
        Failure::new(Exit::Stopped, format!("cannot write {}: {error}", self.name))
    }

    fn explain(&self, failure: Failure) -> Failure {
        let Output { name, .. } = self;
        Failure::new(
            failure.exit,
            format!("{failure}; what was written to {name} is not all of it: export again, to another place"),
        )
    }
}
