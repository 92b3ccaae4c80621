//! What a command says in the end: for people, or as JSON. Host.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use split_driver::control::{Answer, Pause};

use crate::domain::Domain;
use crate::reattach::{Attached, NoSuchDomain};

/// The exit code where the image before the new one is back.
const RETURNED: u8 = 3;

/// The exit code where a device could not be attached.
const NOT_ATTACHED: u8 = 4;

/// The exit code where `oxidom reattach` was given a name that is no domain's, nor that of a backend that is gone.
const NO_SUCH_DOMAIN: u8 = 5;

/// The exit code of `oxidom status` where something is wrong now.
const NOT_WELL: u8 = 6;

/// Any other failure, as [`ExitCode::FAILURE`].
const FAILURE: u8 = 1;

/// What came of a request.
pub(crate) struct Report {
    /// The domain that was asked.
    pub(crate) domain: Domain,
    /// Its last answer.
    pub(crate) answer: Answer,
}

impl Report {
    /// Prints it; gives the exit code.
    pub(crate) fn print(&self, as_json: bool) -> ExitCode {
        match (as_json, &self.answer) {
            (true, _) => println!("{}", self.json()),
            (false, Answer::Done { .. }) => println!("{}", printable(&self.text())),
            (false, _) => eprintln!("error: {}", printable(&self.text())),
        }
        match self.answer {
            Answer::Done { .. } => ExitCode::SUCCESS,
            Answer::Returned { .. } => RETURNED.into(),
            _ => ExitCode::FAILURE,
        }
    }

    fn text(&self) -> String {
        let Domain { id, name } = &self.domain;
        match &self.answer {
            Answer::Done { life, pause, exchanged: 0, before, after } if before == after => {
                format!("{name} (domain {id}) runs {after} in life {life}; {}", paused(*pause))
            }
            Answer::Done { life, pause, exchanged, before, after } => format!(
                "{name} (domain {id}) runs {after} in place of {before}, {exchanged} pages of it other ones, in life {life}; {}",
                paused(*pause)
            ),
            Answer::Returned { life, pause, reason } => format!(
                "{name} (domain {id}): the new image did not take over, and the one before it is back, in life {life}; {}. \
                 Its reason: {reason}",
                paused(*pause)
            ),
            Answer::Refused(reason) => format!("{name} (domain {id}) refuses, and goes on as before: {reason}"),
            other => format!("{name} (domain {id}) said {other:?}"),
        }
    }

    fn json(&self) -> Value {
        let Domain { id, name } = &self.domain;
        let pause =
            |pause: &Pause| json!({"us": pause.whole.as_micros() as u64, "ran_us": pause.own.as_micros() as u64});
        let more = match &self.answer {
            Answer::Done { life, pause: paused, exchanged, before, after } => json!({
                "result": "done",
                "life": life,
                "pause": pause(paused),
                "pages": exchanged,
                "before": {"name": before.name, "version": before.version},
                "after": {"name": after.name, "version": after.version},
            }),
            Answer::Returned { life, pause: paused, reason } => {
                json!({"result": "returned", "life": life, "pause": pause(paused), "reason": reason})
            }
            Answer::Refused(reason) => json!({"result": "refused", "reason": reason}),
            other => json!({"result": "unknown", "reason": format!("{other:?}")}),
        };
        let mut report = json!({"domain": id, "name": name});
        if let (Value::Object(report), Value::Object(more)) = (&mut report, more) {
            report.extend(more);
        }
        report
    }
}

/// A text of a domain as a terminal may have it: it is not trusted to move the cursor.
fn printable(text: &str) -> String {
    text.chars().map(|sign| if sign.is_control() && sign != '\n' { '\u{fffd}' } else { sign }).collect()
}

fn paused(Pause { whole, own }: Pause) -> String {
    format!("nobody was served for {whole:.1?}, of which the domain ran {own:.1?}")
}

/// Prints a text, with its colours where a terminal shows it and `NO_COLOR` is not set. Who reads no further ends the command.
pub(crate) fn print_text(text: &str) -> ExitCode {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => broken(&error),
    }
}

/// What an output that broke means: nothing, where its reader has seen enough.
pub(crate) fn broken(error: &std::io::Error) -> ExitCode {
    if error.kind() == ErrorKind::BrokenPipe {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: writing what was asked for: {error}");
    ExitCode::FAILURE
}

/// Prints a line of JSON.
pub(crate) fn print_json(value: &Value) -> ExitCode {
    print_text(&format!("{value}\n"))
}

/// The exit code of a picture of the host.
pub(crate) fn well(printed: ExitCode, is_well: bool) -> ExitCode {
    if printed == ExitCode::SUCCESS && !is_well { NOT_WELL.into() } else { printed }
}

/// Prints what came of each device; gives the exit code.
pub(crate) fn print_attached(attached: &[Attached], as_json: bool) -> ExitCode {
    if as_json {
        let devices = attached.iter().map(|attached| {
            let Attached { guest, kind, name, backend, failure, note } = attached;
            json!({"domain": guest.id, "name": guest.name, "kind": kind, "device": name, "backend": backend, "failure": failure,
                "note": note})
        });
        println!("{}", json!({"devices": devices.collect::<Vec<_>>()}));
    } else if attached.is_empty() {
        println!("all devices have their backends");
    }
    for Attached { guest, kind, name, backend, failure, note } in attached.iter().filter(|_| !as_json) {
        let device = format!("{kind} {name} of {} (domain {})", guest.name, guest.id);
        match failure {
            None => println!("{device}: attached to {}; {}", backend.as_deref().unwrap_or_default(), left_to_do(kind)),
            Some(why) => eprintln!("error: {device}: {}", printable(why)),
        }
        if let Some(note) = note {
            eprintln!("note: {device}: {}", printable(note));
        }
    }
    if attached.iter().all(|attached| attached.failure.is_none()) { ExitCode::SUCCESS } else { NOT_ATTACHED.into() }
}

/// What is left for the guest to do with a device that is a new one to it.
fn left_to_do(kind: &str) -> &'static str {
    match kind {
        "vif" => "the guest sets its addresses again",
        _ => "a file system that was mounted from it has to be mounted again",
    }
}

/// Prints why a command came to nothing; gives the exit code.
pub(crate) fn print_error(error: &anyhow::Error, as_json: bool) -> ExitCode {
    if as_json {
        println!("{}", json!({"result": "error", "reason": format!("{error:#}")}));
    } else {
        eprintln!("error: {}", printable(&format!("{error:#}")));
    }
    code(error).into()
}

/// The exit code of a command that came to nothing.
fn code(error: &anyhow::Error) -> u8 {
    if error.is::<NoSuchDomain>() { NO_SUCH_DOMAIN } else { FAILURE }
}

/// A bar for the bytes of an image, where a person looks at it.
pub(crate) fn progress(bytes: usize, hidden: bool) -> ProgressBar {
    if hidden {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bytes} of {total_bytes} {wide_bar} {eta}");
    ProgressBar::new(bytes as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use split_driver::control::Image;
    use std::time::Duration;

    fn report(answer: Answer) -> Report {
        Report { domain: Domain { id: 3, name: "netdom".into() }, answer }
    }

    #[test]
    fn a_name_that_means_nothing_has_a_code_of_its_own() {
        let error = NoSuchDomain { word: "x".into(), gone: ["netdom".into()].into(), nameless: false };
        assert_eq!(code(&anyhow::Error::from(error)), 5);
        assert_eq!(code(&anyhow::anyhow!("there is no domain x")), 1);
    }

    #[test]
    fn each_end_is_said() {
        let image = |version: &str| Image { name: "netdom".into(), version: version.into() };
        let pause = Pause { whole: Duration::from_micros(12_340), own: Duration::from_micros(900) };
        let done =
            |exchanged, after| Answer::Done { life: 2, pause, exchanged, before: image("1"), after: image(after) };
        let paused = "nobody was served for 12.3ms, of which the domain ran 900.0µs";
        let text = |answer| report(answer).text();
        assert_eq!(text(done(0, "1")), format!("netdom (domain 3) runs netdom 1 in life 2; {paused}"));
        let other = "netdom (domain 3) runs netdom 2 in place of netdom 1, 9 pages of it other ones, in life 2; ";
        assert_eq!(text(done(9, "2")), format!("{other}{paused}"));
        let refused = "netdom (domain 3) refuses, and goes on as before: no memory";
        assert_eq!(text(Answer::Refused("no memory".into())), refused);
        assert_eq!(printable("a\u{1b}[2J\nb"), "a\u{fffd}[2J\nb");
        let json = report(Answer::Returned { life: 2, pause, reason: "why".into() }).json();
        let expected = json!({"domain": 3, "name": "netdom", "result": "returned", "life": 2,
            "pause": {"us": 12_340, "ran_us": 900}, "reason": "why"});
        assert_eq!(json, expected);
        assert_eq!(report(done(9, "2")).json()["after"]["version"], "2");
    }
}
