//! `pawl top`: the tree of a running instance, once or again and again.

mod tree;

use std::time::Instant;

use console::Term;

use super::endpoint::Endpoint;
use super::{Failure, print, print_json, settings};
use crate::admin::supervision::Supervision;
use crate::cli::Top;
use crate::exit::Exit;

/// Carries `pawl top` out.
///
/// # Errors
/// No instance answers. On a terminal one that answered before is waited for.
pub fn execute(args: &Top) -> Result<Exit, Failure> {
    let endpoint = whom(args)?;
    let look = || endpoint.get::<Supervision>("/supervision");
    let silent = |error| Failure::new(Exit::Stopped, format!("{error}"));
    let mut seen = look().map_err(silent)?;
    if args.json {
        print_json(&seen)?;
        return Ok(Exit::Done);
    }
    let terminal = Term::stdout();
    if args.once || !terminal.is_term() {
        print(tree::drawn(&seen, None).as_bytes())?;
        return Ok(Exit::Done);
    }
    let mut text = tree::drawn(&seen, None);
    loop {
        terminal.clear_screen()?;
        terminal.write_str(&format!("{}  (Ctrl-C ends)\n\n{text}", endpoint.address()))?;
        let looked = Instant::now();
        std::thread::sleep(args.interval);
        text = match look() {
            Ok(now) => {
                let before = tree::Before { seen: &seen, ago: looked.elapsed() };
                let text = tree::drawn(&now, Some(&before));
                seen = now;
                text
            }
            // A rolling update: it will be back.
            Err(error) => format!("{error}; asking again\n"),
        };
    }
}

fn whom(args: &Top) -> Result<Endpoint, Failure> {
    // Whoever names an endpoint needs no settings.
    let settings = args.endpoint.admin.is_none().then(|| settings(&args.settings)).transpose()?;
    let why =
        "the settings have no admin.listen, so the instance tells nobody; name another one with --admin URL";
    let found = Endpoint::find(&args.endpoint, settings.as_ref().map(|settings| &settings.admin))?;
    found.ok_or_else(|| Failure::new(Exit::Usage, why))
}
