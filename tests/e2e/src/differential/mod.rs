//! The same requests to the xenstore of a booted row, by dom0 and by puppets, and to `xenstore-lite` in process: the answers and the events
//! that each connection hears must be the same, in their order, but for [`allowed`] differences. Host.

pub mod allowed;
mod expected;
mod quotas;
mod reduce;
pub mod script;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use guests::script::{Message, Request};
use lab::{Lab, NATIVE_CLOCK, Output, Row};
use xenstore_lite::Quotas;

use expected::Expected;
use script::{Cast, Step};

/// How long scripts may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(110);
/// Scripts with a difference that are explained.
const SHOWN: usize = 5;
/// Where dom0 has the script.
const SCRIPT: &str = "/tmp/puppets";
/// And what was said.
const SAID: &str = "/tmp/puppets.said";

/// Dom0 and the puppets of a lab.
pub struct Theatre<'l> {
    lab: &'l Lab,
    /// Who plays.
    pub cast: Cast,
    /// `xenstore-lite` as the store is when a script begins.
    beginning: Expected,
}

/// What each domain heard, by its number: each with the step after which it was.
pub type Heard = BTreeMap<u16, Vec<(usize, Message)>>;

impl<'l> Theatre<'l> {
    /// Creates the puppets.
    ///
    /// # Errors
    /// What did not come up.
    pub fn open(lab: &'l Lab) -> Result<Self> {
        let mut puppets = [0; script::PUPPETS];
        for (index, id) in puppets.iter_mut().enumerate() {
            let name = name(index);
            create(lab, &name)?;
            *id = u16::try_from(lab.domain_id(&name)?)?;
        }
        let cast = Cast { puppets };
        let mut theatre = Self { lab, cast, beginning: Expected::default() };
        let said = play_lines(lab, &[theatre.preparation(), vec!["0 tree".to_owned()]].concat())?;
        let tree = said.last().context("no tree")?;
        let domains = lab.must("xl list | awk 'NR > 1 { print $2 }'")?;
        let domains = domains.split_whitespace().map(str::parse).collect::<Result<Vec<u16>, _>>()?;
        theatre.beginning = Expected::new(lab.row(), tree, &domains, &theatre.cast)?;
        Ok(theatre)
    }

    /// Destroys the puppets.
    ///
    /// # Errors
    /// What `xl` says.
    pub fn close(self) -> Result<()> {
        for index in 0..script::PUPPETS {
            self.lab.must(&format!("xl destroy {}", name(index)))?;
        }
        self.lab.must("xenstore-rm /t /lab-barrier").map(drop)
    }

    /// A script out of a seed, which this row's store outlives.
    pub fn random(&self, seed: u64, length: usize) -> Vec<Step> {
        let mut steps = self.cast.random(seed, length);
        allowed::spare(self.lab.row(), &mut steps);
        steps
    }

    /// One that sets quotas and meets them.
    pub fn meeting_quotas(&self, seed: u64, length: usize) -> Vec<Step> {
        let owned = self.cast.puppets.iter().map(|puppet| self.beginning.owned(*puppet)).max().unwrap_or_default();
        let mut steps = self.cast.meeting_quotas(self.lab.row(), seed, length, owned as u32);
        allowed::spare(self.lab.row(), &mut steps);
        steps
    }

    /// The lines that bring the real store to where a script begins.
    fn preparation(&self) -> Vec<String> {
        let mut lines = vec![self.default_quotas()];
        lines.extend(self.cast.preparation());
        lines
    }

    /// The line that sets the quotas to what they were.
    fn default_quotas(&self) -> String {
        let defaults = Quotas::default();
        let set =
            quotas::TIGHT.map(|resource| allowed::quota(self.lab.row(), resource, defaults.hard(resource)).word());
        format!("0 {}", set.join(" "))
    }

    /// Plays scripts on the real store; gives what each domain heard in each of them.
    ///
    /// # Errors
    /// What of the machinery failed.
    pub fn real(&self, scripts: &[Vec<Step>]) -> Result<Vec<Heard>> {
        let mut lines = Vec::new();
        // For each line whose it is, by script and step.
        let mut places = Vec::new();
        for (number, steps) in scripts.iter().enumerate() {
            let preparation = self.preparation();
            places.extend(preparation.iter().map(|_| None));
            lines.extend(preparation);
            let mut first = 0;
            for run in steps.chunk_by(|one, other| one.domain == other.domain) {
                let Some(domain) = run.first().map(|step| step.domain) else { continue };
                let words: Vec<String> = run.iter().map(|step| step.request.word()).collect();
                lines.push(format!("{domain} {}", words.join(" ")));
                places.push(Some((number, domain, first, first + run.len() - 1)));
                first += run.len();
            }
        }
        lines.push(self.default_quotas());
        places.push(None);
        let said = play_lines(self.lab, &lines)?;
        ensure!(said.len() == lines.len(), "{} lines for {}", said.len(), lines.len());
        let mut all = vec![Heard::new(); scripts.len()];
        for (place, said) in places.iter().zip(&said) {
            let messages = said.split(' ').filter(|word| !word.is_empty());
            let messages = messages
                .map(|word| Message::parse(word).with_context(|| format!("not a message: {word}")))
                .collect::<Result<Vec<_>>>()?;
            let Some((number, domain, first, last)) = place else {
                continue;
            };
            let heard = all.get_mut(*number).context("no script")?.entry(*domain).or_default();
            let mut step = *first;
            for message in messages {
                let is_event = message.kind == script::WATCH_EVENT;
                heard.push((step.min(*last), message));
                step += usize::from(!is_event);
            }
        }
        Ok(all)
    }

    /// What each domain must hear.
    pub fn expected(&self, steps: &[Step]) -> Heard {
        self.beginning.clone().play(self.lab.row(), steps)
    }

    /// Plays scripts made of these seeds, and holds the answers against each other; gives how many requests they were, and how many of them
    /// were refused for a quota.
    ///
    /// # Errors
    /// The first differences, each with its script's name and the shortest script found that shows it.
    pub fn compare(&self, scripts: &[(String, Vec<Step>)]) -> Result<(usize, usize)> {
        let steps: Vec<Vec<Step>> = scripts.iter().map(|(_, steps)| steps.clone()).collect();
        let mut found = Vec::new();
        let mut refused = 0;
        for ((name, steps), real) in scripts.iter().zip(self.real(&steps)?) {
            refused += real.values().flatten().filter(|(_, message)| quotas::is_refusal(message)).count();
            if found.len() < SHOWN
                && let Some(difference) = self.difference(steps, &real)
            {
                found.push(self.explain(name, steps, &difference)?);
            }
        }
        ensure!(found.is_empty(), "{}", found.join("\n"));
        Ok((steps.iter().map(Vec::len).sum(), refused))
    }

    /// A difference, as the shortest script shows it that is found.
    fn explain(&self, name: &str, steps: &[Step], difference: &str) -> Result<String> {
        let shown = |steps: &[Step]| -> Result<Option<String>> {
            let real = self.real(&[steps.to_vec()])?;
            Ok(real.first().and_then(|real| self.difference(steps, real)))
        };
        let shorter = reduce::reduce(steps, |steps| {
            let mut steps = steps.to_vec();
            self.cast.finish(&mut steps);
            Ok(shown(&steps)?.is_some())
        })?;
        let mut ended = shorter.clone();
        self.cast.finish(&mut ended);
        let last = shown(&ended)?.unwrap_or_else(|| format!("{difference}, but not when it was tried again"));
        Ok(format!("{name}: {last}\nthe shortest script that shows it:\n{}", describe(&shorter)))
    }

    /// The first difference of what was heard, as text.
    fn difference(&self, steps: &[Step], real: &Heard) -> Option<String> {
        let expected = self.expected(steps);
        for domain in self.cast.all() {
            let none = Vec::new();
            let (real, expected) = (real.get(&domain).unwrap_or(&none), expected.get(&domain).unwrap_or(&none));
            // Dom0's kernel passes events on by another way than answers.
            let kinds: &[fn(&Message) -> bool] = if domain == 0 {
                &[|message| message.kind != script::WATCH_EVENT, |message| message.kind == script::WATCH_EVENT]
            } else {
                &[|_| true]
            };
            for wanted in kinds {
                let pick = |all: &[(usize, Message)]| -> Vec<(usize, Message)> {
                    let rounds = |step| if domain == 0 { round_of_dom0(steps, step) } else { 0 };
                    without_repeats(all.iter().filter(|(_, message)| wanted(message)), rounds)
                };
                if let Some(text) = first_difference(self.lab.row(), steps, domain, &pick(real), &pick(expected)) {
                    return Some(text);
                }
            }
        }
        None
    }
}

/// Plays lines of a script; gives what was said of each.
///
/// # Errors
/// What of the machinery failed, and at which line.
pub(crate) fn play_lines(lab: &Lab, lines: &[String]) -> Result<Vec<String>> {
    lab.put(SCRIPT, 0o644, lines.join("\n").as_bytes())?;
    let played = lab.run_for(&format!("/init puppets {SCRIPT} >{SAID}"), PATIENCE).and_then(Output::success);
    let said = String::from_utf8(lab.get(SAID)?)?;
    let said: Vec<String> = said.lines().map(str::to_owned).collect();
    played.with_context(|| format!("not answered: {:?}", lines.get(said.len())))?;
    Ok(said)
}

/// Without events that are the same as one that came since the last answer, in the same round of those that `rounds` tells by step: a store
/// drops such while the first waits for its way into the ring, which is a matter of time.
fn without_repeats<'a>(
    all: impl Iterator<Item = &'a (usize, Message)>,
    rounds: impl Fn(usize) -> usize,
) -> Vec<(usize, Message)> {
    let mut left: Vec<(usize, Message)> = Vec::new();
    let mut since: Vec<&Message> = Vec::new();
    let mut round = 0;
    for (step, message) in all {
        let now = rounds(*step);
        let is_event = message.kind == script::WATCH_EVENT;
        if !is_event || now != round {
            since.clear();
            round = now;
        }
        if !(is_event && since.contains(&message)) {
            left.push((*step, message.clone()));
        }
        if is_event {
            since.push(message);
        }
    }
    left
}

/// Which round a step is of, or before: requests of dom0 without another's between them, at whose end it has heard all events.
fn round_of_dom0(steps: &[Step], step: usize) -> usize {
    let ends = steps.iter().zip(steps.iter().skip(1)).take(step);
    ends.filter(|(one, next)| one.domain == 0 && next.domain != 0).count()
}

fn first_difference(
    row: Row,
    steps: &[Step],
    domain: u16,
    real: &[(usize, Message)],
    expected: &[(usize, Message)],
) -> Option<String> {
    for index in 0..real.len().max(expected.len()) {
        let (one, other) = (real.get(index), expected.get(index));
        let at = one.or(other).map_or(0, |(step, _)| *step);
        let request = steps.get(at).filter(|step| step.domain == domain).map(|step| &step.request);
        if let (Some((_, one)), Some((_, other))) = (one, other)
            && (script::normal(one) == script::normal(other) || allowed::is_allowed(row, request, one, other))
        {
            continue;
        }
        let show = |message: Option<&(usize, Message)>| {
            message.map_or_else(|| "nothing".to_owned(), |(_, message)| message.word())
        };
        let asked = request.map_or_else(String::new, Request::word);
        return Some(format!(
            "domain {domain}, about step {at} ({asked}): the row's store says {}, xenstore-lite {}",
            show(one),
            show(other)
        ));
    }
    None
}

/// The steps, one a line.
fn describe(steps: &[Step]) -> String {
    let mut text = String::new();
    for (index, step) in steps.iter().enumerate() {
        let _ = writeln!(text, "{index:4}: domain {} {}", step.domain, step.request.word());
    }
    text
}

fn name(index: usize) -> String {
    format!("puppet{index}")
}

/// Creates a domain with the image `puppet`.
pub(crate) fn create(lab: &Lab, name: &str) -> Result<()> {
    let config = format!(
        "name = \"{name}\"\ntype = \"pv\"\nkernel = \"/usr/lib/oxidom/puppet\"\nmemory = 8\nvcpus = 1\non_crash = \"preserve\"\n{NATIVE_CLOCK}"
    );
    lab.put(&format!("/etc/xen/{name}.cfg"), 0o644, config.as_bytes())?;
    lab.must(&format!("xl create -q /etc/xen/{name}.cfg"))?;
    lab.wait_for_console(name, "a puppet waits", PATIENCE).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_a_round_are_joined() {
        let step = |domain| Step { domain, request: script::request(1, b"/\0") };
        let steps = [0, 0, 5, 0, 5, 6, 0].map(step);
        let rounds: Vec<_> = (0..steps.len()).map(|step| round_of_dom0(&steps, step)).collect();
        assert_eq!(rounds, [0, 0, 1, 1, 2, 2, 2]);
        let event = |step, name: &str| (step, Message { kind: script::WATCH_EVENT, payload: name.into() });
        let heard = [event(0, "a"), event(1, "b"), event(1, "a"), event(2, "a"), event(3, "a"), event(6, "a")];
        let left = without_repeats(heard.iter(), |step| round_of_dom0(&steps, step));
        assert_eq!(left, [event(0, "a"), event(1, "b"), event(2, "a"), event(6, "a")]);
        let answer = (2, Message { kind: 1, payload: Vec::new() });
        let heard = [event(0, "a"), event(1, "b"), event(1, "a"), answer.clone(), event(2, "a")];
        let left = without_repeats(heard.iter(), |_| 0);
        assert_eq!(left, [event(0, "a"), event(1, "b"), answer, event(2, "a")]);
    }
}
